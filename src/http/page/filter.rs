//! The query of a page, and the hosts that it selects. People type into it, so nothing in it is an
//! error. Pure.

use super::sort::{HostOrder, SortKey};
use std::time::Duration;

use super::charts::ChartWindow;
use super::summary::{Health, HealthCounts};
use crate::address::percent_decoded;
use crate::clock::Wall;
use crate::escape::PercentEncoded;
use crate::view::{HostState, HostView};

/// A longer search is cut.
const MAX_SEARCH: usize = 253;

/// Which hosts are shown, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostFilter {
    /// All of them.
    #[default]
    Any,
    /// Those that are not well.
    Wrong,
    /// Those of this health.
    Like(Health),
}

impl HostFilter {
    /// The choices: the value in the query, the label, the filter.
    pub const CHOICES: [(&'static str, &'static str, HostFilter); 8] = [
        ("", "all states", HostFilter::Any),
        ("wrong", "not well", HostFilter::Wrong),
        ("overdue", "overdue", HostFilter::Like(Health::Down)),
        ("critical", "critical", HostFilter::Like(Health::Critical)),
        ("degraded", "degraded", HostFilter::Like(Health::Degraded)),
        ("shutdown", "shut down", HostFilter::Like(Health::Shutdown)),
        ("new", "never heard", HostFilter::Like(Health::New)),
        ("up", "up", HostFilter::Like(Health::Up)),
    ];

    fn of(value: &str) -> HostFilter {
        let found = HostFilter::CHOICES.iter().find(|(name, ..)| *name == value);
        found.map_or(HostFilter::Any, |(.., which)| *which)
    }

    fn name(self) -> &'static str {
        let found = HostFilter::CHOICES.iter().find(|(.., which)| *which == self);
        found.map_or("", |(name, ..)| name)
    }
}

/// The stretch of time whose metrics are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeRange {
    /// 24 hours.
    #[default]
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
    /// 90 days.
    Quarter,
    /// 365 days.
    Year,
}

impl TimeRange {
    /// The choices: the value in the query, the label, the days, the range.
    pub const CHOICES: [(&'static str, &'static str, u64, TimeRange); 5] = [
        ("24h", "24 hours", 1, TimeRange::Day),
        ("7d", "7 days", 7, TimeRange::Week),
        ("30d", "30 days", 30, TimeRange::Month),
        ("90d", "90 days", 90, TimeRange::Quarter),
        ("1y", "a year", 365, TimeRange::Year),
    ];

    /// All of them, the shortest first.
    pub fn all() -> impl Iterator<Item = TimeRange> {
        TimeRange::CHOICES.into_iter().map(|(.., span)| span)
    }

    /// The stretch of time that ends now.
    pub fn until(self, now: Wall) -> ChartWindow {
        let (_, days) = self.label_and_days();
        ChartWindow { from: now - Duration::from_secs(days * 86_400), to: now }
    }

    /// Its value in the query.
    pub fn name(self) -> &'static str {
        let found = TimeRange::CHOICES.iter().find(|(.., span)| *span == self);
        found.map_or("24h", |(name, ..)| name)
    }

    /// Its label, and how many days it has.
    pub fn label_and_days(self) -> (&'static str, u64) {
        let found = TimeRange::CHOICES.iter().find(|(.., span)| *span == self);
        found.map_or(("24 hours", 1), |(_, label, days, _)| (label, *days))
    }
}

/// The query of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// A part of the names of hosts, in lower case.
    pub name: String,
    /// In which state.
    pub which: HostFilter,
    /// In which group; empty for all.
    pub group: String,
    /// The order of the list.
    pub order: HostOrder,
    /// Which page of the list; the first is 1.
    pub page: usize,
    /// How far metrics go back; none when the query does not say it.
    pub span: Option<TimeRange>,
    /// The path of the metric that a graph is about.
    pub metric: String,
    /// Only what changes, for the script of a page that is there already.
    pub part: bool,
}

/// Names and values of a query. A form writes spaces as plus signs.
pub fn pairs(target: &str) -> impl Iterator<Item = (&str, String)> {
    let pairs = target.split_once('?').map_or("", |(_, pairs)| pairs);
    let pairs = pairs.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name, percent_decoded(&value.replace('+', " ")).unwrap_or_default()))
}

/// A part of a name that is searched for.
pub fn search(value: &str) -> String {
    value.trim().to_lowercase().chars().take(MAX_SEARCH).collect()
}

impl PageQuery {
    /// Reads a target (path and query).
    pub fn of(target: &str) -> PageQuery {
        let mut query = PageQuery { page: 1, ..PageQuery::default() };
        for (name, value) in pairs(target) {
            match name {
                "q" => query.name = search(&value),
                "state" => query.which = HostFilter::of(&value),
                "group" => query.group = value.chars().take(MAX_SEARCH).collect(),
                "sort" => query.order = HostOrder::parse(&value),
                "page" => query.page = value.parse().unwrap_or(1).clamp(1, 1_000_000),
                "span" => {
                    let found = TimeRange::CHOICES.iter().find(|(name, ..)| *name == value);
                    query.span = found.map(|(.., span)| *span);
                }
                "metric" => query.metric = value,
                "part" => query.part = true,
                _ => {}
            }
        }
        query
    }

    /// Whether the query selects a host.
    pub fn matches(&self, host: &HostView, health: Health) -> bool {
        let state = match self.which {
            HostFilter::Any => true,
            HostFilter::Wrong => !matches!(health, Health::Up | Health::New),
            HostFilter::Like(Health::Down) => host.state == HostState::Overdue,
            HostFilter::Like(matching) => health == matching,
        };
        let group = self.group.is_empty() || host.groups.contains(&self.group);
        state && group && (self.name.is_empty() || host.name.to_lowercase().contains(&self.name))
    }

    /// The query of another page of the same list.
    pub fn page_query(&self, page: usize) -> String {
        self.query_with(self.order, &self.group, page)
    }

    /// The query of the same hosts in another order, or of another group; what is usual is left out.
    pub fn query_with(&self, order: HostOrder, group: &str, page: usize) -> String {
        let page = if page > 1 { page.to_string() } else { String::new() };
        let order = order.name();
        let mut query = String::new();
        for (name, value) in [
            ("q", self.name.as_str()),
            ("state", self.which.name()),
            ("group", group),
            ("sort", &order),
            ("page", &page),
        ] {
            if !value.is_empty() {
                let sign = if query.is_empty() { '?' } else { '&' };
                query.push_str(&format!("{sign}{name}={}", PercentEncoded(value)));
            }
        }
        if query.is_empty() { "?".into() } else { query }
    }
}

/// Hosts on one page.
pub const PAGE_SIZE: usize = 200;

/// Selects the hosts to show out of all, which it sees a few at a time: there may be a hundred
/// thousand, and only the names of those on the page are kept.
pub struct HostSelector<'a> {
    query: &'a PageQuery,
    keys: Vec<SortKey>,
    counts: HealthCounts,
    groups: Vec<(String, HealthCounts)>,
    matching: usize,
}

/// The hosts of one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Their names, in the order of the query.
    pub names: Vec<String>,
    /// How many hosts there are, by health.
    pub counts: HealthCounts,
    /// How many there are of each group, by name.
    pub groups: Vec<(String, HealthCounts)>,
    /// How many of them the query selects.
    pub matching: usize,
    /// Which page this is; the first is 1.
    pub page: usize,
    /// How many pages there are.
    pub pages: usize,
}

impl HostSelector<'_> {
    /// A selector that has seen no hosts yet.
    pub fn new(query: &PageQuery) -> HostSelector<'_> {
        HostSelector {
            query,
            keys: Vec::new(),
            counts: HealthCounts::default(),
            groups: Vec::new(),
            matching: 0,
        }
    }

    /// Adds a host.
    pub fn add(&mut self, host: &HostView) {
        let health = Health::of(host);
        self.counts.add(health);
        for group in &host.groups {
            let index = match self.groups.binary_search_by(|(known, _)| known.cmp(group)) {
                Ok(index) => index,
                Err(index) => {
                    self.groups.insert(index, (group.clone(), HealthCounts::default()));
                    index
                }
            };
            self.groups[index].1.add(health);
        }
        if !self.query.matches(host, health) {
            return;
        }
        self.matching += 1;
        let order = self.query.order;
        self.keys.push(order.key(host, health));
        let most = self.query.page.saturating_mul(PAGE_SIZE);
        if self.keys.len() >= most.saturating_mul(2) {
            self.keys.select_nth_unstable_by(most, |a, b| order.compare(a, b));
            self.keys.truncate(most);
        }
    }

    /// The hosts of the page that is asked for, or of the last one where there are not so many.
    pub fn selection(mut self) -> Selection {
        let pages = self.matching.div_ceil(PAGE_SIZE).max(1);
        let page = self.query.page.min(pages);
        let order = self.query.order;
        self.keys.sort_unstable_by(|a, b| order.compare(a, b));
        let keys = self.keys.into_iter().skip((page - 1) * PAGE_SIZE).take(PAGE_SIZE);
        let names = keys.map(|key| key.name).collect();
        let HostSelector { counts, groups, matching, .. } = self;
        Selection { names, counts, groups, matching, page, pages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::HostState;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let query = PageQuery::of("/?q=+M%C3%BCnster+1&state=overdue&page=3&part=1&junk&x=y");
        assert_eq!(
            query,
            PageQuery {
                name: "m\u{fc}nster 1".into(),
                which: HostFilter::Like(Health::Down),
                page: 3,
                part: true,
                ..PageQuery::default()
            }
        );
        assert_eq!(query.page_query(4), "?q=m%C3%BCnster%201&state=overdue&page=4");
        let query = PageQuery::of("/?group=a%26b&sort=-cpu&page=2");
        assert_eq!(query.page_query(1), "?group=a%26b&sort=-cpu");
        assert_eq!(query.query_with(HostOrder::default(), "", 1), "?");
    }

    #[test]
    fn nonsense_shows_everything() {
        for query in ["", "?", "?q=%ff&state=<b>&page=-1&span=x", "?page=0", "?page=none&&="] {
            let all = PageQuery { page: 1, ..PageQuery::default() };
            assert_eq!(PageQuery::of(&format!("/{query}")), all, "{query}");
        }
        assert_eq!(PageQuery::of(&format!("/?q={}", "x".repeat(9999))).name.len(), MAX_SEARCH);
        assert_eq!(PageQuery::of("/?page=99999999999999999999").page, 1);
    }

    fn host(name: String, state: HostState) -> HostView {
        HostView { state, ..HostView::named(&name) }
    }

    fn selection(query: &str, count: usize) -> Selection {
        let query = PageQuery::of(query);
        let mut selector = HostSelector::new(&query);
        for number in 0..count {
            let state = if number % 1000 == 999 { HostState::Overdue } else { HostState::Up };
            selector.add(&host(format!("h{number:06}"), state));
        }
        selector.selection()
    }

    #[test]
    fn the_worst_come_first_from_wherever_they_stand() {
        let selection = selection("/", 5_000);
        assert_eq!(selection.names.len(), PAGE_SIZE);
        assert_eq!(selection.names[..2], ["h000999", "h001999"]);
        assert_eq!(selection.names[5], "h000000");
        assert_eq!((selection.counts.of(Health::Down), selection.counts.all()), (5, 5_000));
        assert_eq!((selection.page, selection.pages, selection.matching), (1, 25, 5_000));
    }

    #[test]
    fn pages_hold_every_host_once() {
        let mut all: Vec<String> = Vec::new();
        for page in 1..=4 {
            all.extend(selection(&format!("/?page={page}"), 700).names);
        }
        assert_eq!(all.len(), 700);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 700);
        let beyond = selection("/?page=9", 700);
        assert_eq!((beyond.page, beyond.names.len()), (4, 100));
        assert_eq!(selection("/?q=nothing", 700).names, Vec::<String>::new());
    }

    #[test]
    fn a_group_is_counted_whatever_is_shown_and_shows_its_own_hosts() {
        let query = PageQuery::of("/?group=web");
        let mut selector = HostSelector::new(&query);
        for (name, groups, state) in [
            ("a", &["web", "db"][..], HostState::Up),
            ("b", &["db"], HostState::Overdue),
            ("c", &[], HostState::Up),
        ] {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            selector.add(&HostView { groups, ..host(name.into(), state) });
        }
        let selection = selector.selection();
        assert_eq!(selection.names, ["a"]);
        let groups = selection.groups.iter();
        let groups: Vec<_> =
            groups.map(|(name, of)| (name.as_str(), of.all(), of.of(Health::Down))).collect();
        assert_eq!(groups, [("db", 2, 1), ("web", 1, 0)]);
    }

    #[test]
    fn a_hundred_thousand_hosts_leave_few_names_in_memory() {
        let query = PageQuery::of("/");
        let mut selector = HostSelector::new(&query);
        for number in 0..100_000 {
            selector.add(&host(format!("h{number}"), HostState::Up));
            assert!(selector.keys.len() < 2 * PAGE_SIZE);
        }
        assert_eq!(selector.selection().matching, 100_000);
    }
}
