//! The hosts that a page shows: the worst first, and of many no more than fit on a page. Pure.

use super::asked::Asked;
use super::health::{Census, Health};
use crate::snapshot::HostView;

/// So many hosts are on one page.
pub const ON_A_PAGE: usize = 200;

/// What hosts are sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    health: Health,
    name: String,
}

/// Takes all hosts, a few at a time, and keeps the names of those that are to be shown: there may
/// be a hundred thousand.
pub struct Sieve<'a> {
    asked: &'a Asked,
    places: Vec<Place>,
    census: Census,
    wanted: usize,
}

/// The hosts of one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Their names, the worst first.
    pub names: Vec<String>,
    /// How many hosts there are, by health.
    pub census: Census,
    /// How many of them are wanted.
    pub wanted: usize,
    /// Which page this is; the first is 1.
    pub page: usize,
    /// How many pages there are.
    pub pages: usize,
}

impl Sieve<'_> {
    /// Nothing yet.
    pub fn new(asked: &Asked) -> Sieve<'_> {
        Sieve { asked, places: Vec::new(), census: Census::default(), wanted: 0 }
    }

    /// Takes a host.
    pub fn take(&mut self, host: &HostView) {
        let health = Health::of(host);
        self.census.add(health);
        if !self.asked.wants(host, health) {
            return;
        }
        self.wanted += 1;
        self.places.push(Place { health, name: host.name.clone() });
        let most = self.asked.page.saturating_mul(ON_A_PAGE);
        if self.places.len() >= most.saturating_mul(2) {
            self.places.select_nth_unstable(most);
            self.places.truncate(most);
        }
    }

    /// Those of the wanted page, or of the last one where there are not so many.
    pub fn chosen(mut self) -> Chosen {
        let pages = self.wanted.div_ceil(ON_A_PAGE).max(1);
        let page = self.asked.page.min(pages);
        self.places.sort_unstable();
        let places = self.places.into_iter().skip((page - 1) * ON_A_PAGE).take(ON_A_PAGE);
        let names = places.map(|place| place.name).collect();
        Chosen { names, census: self.census, wanted: self.wanted, page, pages }
    }
}
