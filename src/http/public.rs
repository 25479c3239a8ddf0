//! What is shown to those without the token, too: the hosts of some groups, on a page of their own and
//! as badges. Pure.

use super::routes::{PageRoute, Route};
use crate::view::HostView;

/// The hosts that everybody is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicHosts {
    /// Their groups; there are none where nothing is shown.
    pub groups: Vec<String>,
    /// Their names, in order.
    pub hosts: Vec<String>,
}

impl PublicHosts {
    /// Whether anything is shown.
    pub fn is_on(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether a request needs no token.
    pub fn covers(&self, route: &Route) -> bool {
        match route {
            Route::Page(PageRoute::Public) => self.is_on(),
            Route::Badge(host) => self.hosts.binary_search(host).is_ok(),
            _ => false,
        }
    }

    /// Takes away what is not for everybody; false where nothing of the host is.
    pub fn reduce(&self, host: &mut HostView) -> bool {
        host.groups.retain(|group| self.groups.contains(group));
        host.note = None;
        host.link = None;
        !host.groups.is_empty()
    }
}
