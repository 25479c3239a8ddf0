//! What of a page is wanted: its query. People type into it, so nothing in it is an error. Pure.

use super::summary::{Census, Health};
use crate::address::Encoded;
use crate::http::routes::percent_decoded;
use crate::view::{HostView, State};

/// A longer search is cut.
const LONGEST: usize = 253;

/// Which hosts, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    #[default]
    Any,
    /// Those that are not well.
    Wrong,
    /// Those that are so.
    Like(Health),
}

impl Which {
    /// The choices, by their value in the query, with their words.
    pub const CHOICES: [(&'static str, &'static str, Which); 8] = [
        ("", "all states", Which::Any),
        ("wrong", "not well", Which::Wrong),
        ("overdue", "overdue", Which::Like(Health::Down)),
        ("critical", "critical", Which::Like(Health::Critical)),
        ("degraded", "degraded", Which::Like(Health::Degraded)),
        ("shutdown", "shut down", Which::Like(Health::Shutdown)),
        ("new", "never heard", Which::Like(Health::New)),
        ("up", "up", Which::Like(Health::Up)),
    ];

    fn of(value: &str) -> Which {
        let found = Which::CHOICES.iter().find(|(name, ..)| *name == value);
        found.map_or(Which::Any, |(.., which)| *which)
    }

    fn name(self) -> &'static str {
        let found = Which::CHOICES.iter().find(|(.., which)| *which == self);
        found.map_or("", |(name, ..)| name)
    }
}

/// The stretch of time whose metrics are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// 24 hours.
    #[default]
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 365 days.
    Year,
}

impl Span {
    /// By value in the query, with their words and days.
    pub const CHOICES: [(&'static str, &'static str, u64, Span); 4] = [
        ("day", "24 hours", 1, Span::Day),
        ("week", "7 days", 7, Span::Week),
        ("month", "30 days", 30, Span::Month),
        ("year", "a year", 365, Span::Year),
    ];

    /// Its words, and how many days it has.
    pub fn words(self) -> (&'static str, u64) {
        let found = Span::CHOICES.iter().find(|(.., span)| *span == self);
        found.map_or(("24 hours", 1), |(_, words, days, _)| (words, *days))
    }
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// A part of the names of hosts, in lower case.
    pub name: String,
    /// In which state.
    pub which: Which,
    /// Which page of the list; the first is 1.
    pub page: usize,
    /// How far metrics go back.
    pub span: Span,
    /// Only what changes, for the script of a page that is there already.
    pub part: bool,
}

impl Asked {
    /// Reads a target (path and query).
    pub fn of(target: &str) -> Asked {
        let mut asked = Asked { page: 1, ..Asked::default() };
        let query = target.split_once('?').map_or("", |(_, query)| query);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            // A form writes spaces as plus signs.
            let value = percent_decoded(&value.replace('+', " ")).unwrap_or_default();
            match name {
                "q" => asked.name = value.trim().to_lowercase().chars().take(LONGEST).collect(),
                "state" => asked.which = Which::of(&value),
                "page" => asked.page = value.parse().unwrap_or(1).clamp(1, 1_000_000),
                "span" => {
                    let found = Span::CHOICES.iter().find(|(name, ..)| *name == value);
                    asked.span = found.map_or(Span::Day, |(.., span)| *span);
                }
                "part" => asked.part = true,
                _ => {}
            }
        }
        asked
    }

    /// Whether a host is wanted.
    pub fn wants(&self, host: &HostView, health: Health) -> bool {
        let state = match self.which {
            Which::Any => true,
            Which::Wrong => !matches!(health, Health::Up | Health::New),
            Which::Like(Health::Down) => host.state == State::Overdue,
            Which::Like(wanted) => health == wanted,
        };
        state && (self.name.is_empty() || host.name.to_lowercase().contains(&self.name))
    }

    /// The query of another page of the same list.
    pub fn page_query(&self, page: usize) -> String {
        format!("?q={}&state={}&page={page}", Encoded(&self.name), self.which.name())
    }
}

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

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let asked = Asked::of("/?q=+M%C3%BCnster+1&state=overdue&page=3&part=1&junk&x=y");
        assert_eq!(
            asked,
            Asked {
                name: "m\u{fc}nster 1".into(),
                which: Which::Like(Health::Down),
                page: 3,
                span: Span::Day,
                part: true,
            }
        );
        assert_eq!(asked.page_query(4), "?q=m%C3%BCnster%201&state=overdue&page=4");
    }

    #[test]
    fn nonsense_shows_everything() {
        for query in ["", "?", "?q=%ff&state=<b>&page=-1&span=x", "?page=0", "?page=none&&="] {
            let all = Asked { page: 1, ..Asked::default() };
            assert_eq!(Asked::of(&format!("/{query}")), all, "{query}");
        }
        assert_eq!(Asked::of(&format!("/?q={}", "x".repeat(9999))).name.len(), LONGEST);
        assert_eq!(Asked::of("/?page=99999999999999999999").page, 1);
    }

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
