//! The hosts that a page shows: the worst first, and of many no more than fit on a page. Pure.

use super::asked::Asked;
use super::health::{Census, Health};
use crate::view::HostView;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::State;

    fn host(name: String, state: State) -> HostView {
        HostView {
            name,
            watch: true,
            state,
            since: None,
            connections: Vec::new(),
            metrics: Vec::new(),
            channels: Vec::new(),
        }
    }

    fn chosen(query: &str, count: usize) -> Chosen {
        let asked = Asked::of(query);
        let mut sieve = Sieve::new(&asked);
        for number in 0..count {
            let state = if number % 1000 == 999 { State::Overdue } else { State::Up };
            sieve.take(&host(format!("h{number:06}"), state));
        }
        sieve.chosen()
    }

    #[test]
    fn the_worst_come_first_from_wherever_they_stand() {
        let chosen = chosen("/", 5_000);
        assert_eq!(chosen.names.len(), ON_A_PAGE);
        assert_eq!(chosen.names[..2], ["h000999", "h001999"]);
        assert_eq!(chosen.names[5], "h000000");
        assert_eq!((chosen.census.of(Health::Down), chosen.census.all()), (5, 5_000));
        assert_eq!((chosen.page, chosen.pages, chosen.wanted), (1, 25, 5_000));
    }

    #[test]
    fn pages_hold_every_host_once() {
        let mut all: Vec<String> = Vec::new();
        for page in 1..=4 {
            all.extend(chosen(&format!("/?page={page}"), 700).names);
        }
        assert_eq!(all.len(), 700);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 700);
        let beyond = chosen("/?page=9", 700);
        assert_eq!((beyond.page, beyond.names.len()), (4, 100));
        assert_eq!(chosen("/?q=nothing", 700).names, Vec::<String>::new());
    }

    #[test]
    fn a_hundred_thousand_hosts_leave_few_names_in_memory() {
        let asked = Asked::of("/");
        let mut sieve = Sieve::new(&asked);
        for number in 0..100_000 {
            sieve.take(&host(format!("h{number}"), State::Up));
            assert!(sieve.places.len() < 2 * ON_A_PAGE);
        }
        assert_eq!(sieve.chosen().wanted, 100_000);
    }
}
