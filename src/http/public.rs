//! What is shown to those without the token, too: the hosts of some groups, on a page of their own and
//! as badges. Pure.

use super::routes::{PageRoute, Route};
use crate::host_pattern::ByPattern;
use crate::view::HostView;

/// The hosts that everybody is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicHosts {
    /// Their groups; there are none where nothing is shown.
    pub groups: Vec<String>,
    /// The names of those that are listed, in order.
    pub hosts: Vec<String>,
    /// Whether those that come by a pattern are shown.
    pub patterns: ByPattern<bool>,
    /// The names of those, in order, that match such a pattern, and are listed without such a group.
    pub others: Vec<String>,
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
            Route::Badge(host) => self.has(host),
            _ => false,
        }
    }

    /// Whether a host of that name is shown, if there is one.
    pub fn has(&self, host: &str) -> bool {
        let is_in =
            |names: &[String]| names.binary_search_by(|name| name.as_str().cmp(host)).is_ok();
        let by_pattern = || self.patterns.find(host) == Some(&true) && !is_in(&self.others);
        is_in(&self.hosts) || by_pattern()
    }

    /// Whether hosts are shown that are not listed.
    pub fn has_patterns(&self) -> bool {
        self.patterns.iter().any(|(_, is_shown)| *is_shown)
    }

    /// Takes away what is not for everybody; false where nothing of the host is.
    pub fn reduce(&self, host: &mut HostView) -> bool {
        host.groups.retain(|group| self.groups.contains(group));
        host.note = None;
        host.link = None;
        !host.groups.is_empty()
    }
}
