//! "What happened": the event log as a panel and as a page, with a filter. People type into its query,
//! so nothing in it is an error. Pure.

use super::filter::{pairs, search};
use super::format::count;
use super::html::Html;
use super::panels::{ReadResult, badge, cut, moment, section, unreadable};
use super::summary::class_of;
use crate::clock::{Wall, parse_rfc3339};
use crate::escape::PercentEncoded;
use crate::event::{EventId, EventKind, Level};
use crate::view::EventView;
use crate::view::query::EventQuery;

/// Events on one page.
const PAGE_SIZE: usize = 100;

/// The choices of levels: the value in the query, which is that of the API, and the label.
const LEVELS: [(&str, &str); 5] = [
    ("", "all levels"),
    ("critical", "critical"),
    ("critical,warning", "warning and worse"),
    ("ok", "ok"),
    ("info", "info"),
];

/// The choices of kinds: the value in the query, the label, and the kinds of the API.
const KINDS: [(&str, &str, &[&str]); 8] = [
    ("", "all kinds", &[]),
    (
        "presence",
        "silence and return",
        &[
            "overdue",
            "back",
            "not_back",
            "returned",
            "never_seen",
            "first_heard",
            "forgotten",
            "two_machines",
            "still",
            "no_longer_watched",
        ],
    ),
    ("boots", "boots and shutdowns", &["booted", "shutdown"]),
    ("metrics", "metrics", &["threshold", "missing"]),
    ("messages", "messages", &["message", "custom", "too_many_messages"]),
    ("backups", "backups", &["backup", "backup_summary", "alerts_lost"]),
    (
        "calm",
        "silences, storms, flapping",
        &[
            "silenced",
            "unsilenced",
            "acknowledged",
            "held_lost",
            "notes",
            "storm",
            "storm_over",
            "flapping",
            "settled",
        ],
    ),
    (
        "hbd",
        "hbd itself",
        &[
            "store_refuses",
            "store_writes",
            "outbox_refuses",
            "store_moved_aside",
            "store_damaged",
            "store_behind",
            "store_replaced",
            "channel_fails",
            "channel_delivers",
            "given_up",
            "alertmanager_silent",
            "alertmanager_answers",
            "dyndns_fails",
            "dyndns_kept",
            "node_gone",
            "node_heard",
            "limit_reached",
        ],
    ),
];

/// Which events are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// A part of the names of hosts, in lower case.
    name: String,
    /// This host alone.
    host: String,
    /// As the query has them: one of [`LEVELS`], or a list as that of the API.
    level: String,
    /// One of [`KINDS`], or a list as that of the API.
    kind: String,
    since: Option<Wall>,
    until: Option<Wall>,
    before: Option<EventId>,
}

impl EventFilter {
    /// Reads a target (path and query).
    pub fn of(target: &str) -> EventFilter {
        let mut filter = EventFilter::default();
        for (name, value) in pairs(target) {
            match name {
                "q" => filter.name = search(&value),
                "host" => filter.host = value,
                "level" => filter.level = known(&value, |name| level(name).is_some()),
                "kind" => filter.kind = known(&value, |name| !kinds(name).is_empty()),
                "since" => filter.since = parse_rfc3339(&value).ok(),
                "until" => filter.until = parse_rfc3339(&value).ok(),
                "before" => filter.before = u64::from_str_radix(&value, 16).ok().map(EventId),
                _ => {}
            }
        }
        filter
    }

    /// The events about a host within a time.
    pub fn of_host(host: &str, period: Option<(Wall, Wall)>) -> EventFilter {
        let (since, until) = period.unzip();
        EventFilter { host: host.to_owned(), since, until, ..EventFilter::default() }
    }

    /// The events about hosts with this in their names, or about anything when it is empty.
    pub fn named(name: &str) -> EventFilter {
        EventFilter { name: name.to_owned(), ..EventFilter::default() }
    }

    /// What is asked of the history.
    pub fn query(&self) -> EventQuery {
        let kinds = self.kind.split(',').flat_map(kinds).map(|name| (*name).to_owned()).collect();
        EventQuery {
            limit: PAGE_SIZE,
            before: self.before,
            host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            name: self.name.clone(),
            levels: self.level.split(',').filter_map(level).collect(),
            kinds,
            since: self.since,
            until: self.until,
            fold_reminders: true,
        }
    }

    /// Whether older events than the newest are shown: they do not change.
    pub fn is_old(&self) -> bool {
        self.before.is_some()
    }

    /// The address of the page that begins before an event, or with the newest one.
    pub fn href(&self, before: Option<EventId>) -> String {
        let mut href = String::from("/events?");
        let times = [("since", self.since), ("until", self.until)];
        let times = times.map(|(name, at)| (name, at.map_or(String::new(), |at| at.to_string())));
        let before = before.map_or(String::new(), |id| id.to_string());
        let fields = [
            ("q", &self.name),
            ("host", &self.host),
            ("level", &self.level),
            ("kind", &self.kind),
            ("since", &times[0].1),
            ("until", &times[1].1),
            ("before", &before),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            href.push_str(&format!("{name}={}&", PercentEncoded(value)));
        }
        href.pop();
        href
    }

    /// Writes the page.
    pub fn render(
        &self,
        html: &mut Html,
        events: &Result<(Vec<EventView>, Option<EventId>), String>,
    ) {
        html.markup("<div class=\"head dim\"><p class=i><a href=\"/\">All hosts</a></p>");
        html.markup("<h1>What happened</h1></div><section aria-labelledby=events-h>");
        html.markup("<div class=bar><h2 id=events-h>Events, the newest first</h2>");
        self.form(html);
        html.markup("</div>");
        self.only(html);
        match events {
            Err(why) => unreadable(html, why),
            Ok((events, next)) => {
                if events.is_empty() {
                    html.markup("<p class=i>Nothing like that");
                    html.markup(if next.is_some() { " so far.</p>" } else { ".</p>" });
                } else {
                    list(html, events);
                }
                self.pager(html, *next);
            }
        }
        html.markup("</section>");
    }

    fn form(&self, html: &mut Html) {
        html.markup("<form id=filter role=search action=\"/events\">");
        html.markup("<label for=q>Part of a host&#39;s name</label><input id=q name=q type=search");
        html.markup(" placeholder=\"Filter by host\" autocomplete=off spellcheck=false");
        html.attribute("value", &self.name).markup("><label for=level>Level</label>");
        html.markup("<select id=level name=level>");
        for (value, label) in LEVELS {
            option(html, value, label, value == self.level);
        }
        if LEVELS.iter().all(|(value, _)| *value != self.level) {
            option(html, &self.level, &self.level, true);
        }
        html.markup("</select><label for=kind>Kind</label><select id=kind name=kind>");
        for (value, label, _) in KINDS {
            option(html, value, label, value == self.kind);
        }
        if KINDS.iter().all(|(value, ..)| *value != self.kind) {
            option(html, &self.kind, &self.kind.replace('_', " "), true);
        }
        html.markup("</select>");
        let times = [("since", self.since), ("until", self.until)];
        for (name, at) in times.into_iter().filter_map(|(name, at)| Some((name, at?))) {
            hidden(html, name, &at.to_string());
        }
        if !self.host.is_empty() {
            hidden(html, "host", &self.host);
        }
        html.markup("<button>Filter</button></form>");
    }

    /// What the form does not show.
    fn only(&self, html: &mut Html) {
        if self.host.is_empty() && self.since.is_none() && self.until.is_none() {
            return;
        }
        html.markup("<p class=i>Only");
        if !self.host.is_empty() {
            html.markup(" about <a").link("/hosts/", &self.host).markup(">");
            html.text(cut(&self.host)).markup("</a>");
        }
        for (word, at) in [(" from ", self.since), (" until ", self.until)] {
            if let Some(at) = at {
                html.markup(word);
                moment(html, at);
            }
        }
        let all = EventFilter {
            host: String::new(),
            since: None,
            until: None,
            before: None,
            ..self.clone()
        };
        html.markup(". <a").attribute("href", all.href(None)).markup(">Show all</a></p>");
    }

    fn pager(&self, html: &mut Html, next: Option<EventId>) {
        if next.is_none() && self.before.is_none() {
            return;
        }
        html.markup("<nav class=pager aria-label=\"Pages of events\">");
        if self.before.is_some() {
            html.markup("<a").attribute("href", self.href(None)).markup(">Newest</a>");
        }
        match next {
            Some(next) => {
                html.markup("<a rel=next").attribute("href", self.href(Some(next)));
                html.markup(">Older</a>");
            }
            None if self.since.is_some() => {}
            None => drop(html.markup("<span>These are the oldest that are kept.</span>")),
        }
        html.markup("</nav>");
    }
}

/// A list with commas of which every part is known, else nothing.
fn known(value: &str, is_known: impl Fn(&str) -> bool) -> String {
    let all = !value.is_empty() && value.split(',').all(is_known);
    if all { value.to_owned() } else { String::new() }
}

fn level(name: &str) -> Option<Level> {
    const ALL: [Level; 4] = [Level::Ok, Level::Info, Level::Warning, Level::Critical];
    ALL.into_iter().find(|level| level.name() == name)
}

/// The kinds of a choice, or the one of that name.
fn kinds(name: &str) -> &'static [&'static str] {
    let choice = KINDS.iter().find(|(value, ..)| *value == name).map(|(.., kinds)| *kinds);
    let all: &'static [&'static str] = &EventKind::NAMES;
    let one = || all.get(all.iter().position(|known| *known == name)?..)?.get(..1);
    choice.or_else(one).unwrap_or_default()
}

fn option(html: &mut Html, value: &str, label: &str, is_chosen: bool) {
    html.markup("<option").attribute("value", value);
    html.markup(if is_chosen { " selected>" } else { ">" }).text(label);
}

fn hidden(html: &mut Html, name: &'static str, value: &str) {
    html.markup("<input type=hidden").attribute("name", name).attribute("value", value).markup(">");
}

/// The newest events, with a link to the page of all of them.
pub fn panel(html: &mut Html, events: &ReadResult<EventView>, all: &EventFilter) {
    section(html, "events", "What happened", |html| {
        match events {
            Err(why) => unreadable(html, why),
            Ok(events) if events.is_empty() => drop(html.markup("<p class=i>Nothing lately.</p>")),
            Ok(events) => list(html, events),
        }
        html.markup("<p class=\"i pager\"><a").attribute("href", all.href(None));
        html.markup(">Filter, and older events</a></p>");
    });
}

/// Events, in their order.
pub fn list(html: &mut Html, events: &[EventView]) {
    html.markup("<ol class=\"list log\">");
    events.iter().for_each(|event| item(html, event, None));
    html.markup("</ol>");
}

/// One event; where it lies in a graph, if it is marked there.
pub fn item(html: &mut Html, event: &EventView, x: Option<f64>) {
    html.markup("<li").attribute("data-k", &event.id);
    if let Some(x) = x {
        html.attribute("data-x", format_args!("{x:.0}"));
    }
    html.markup(">");
    moment(html, event.at);
    html.markup(" ");
    badge(html, class_of(event.level), event.level.name());
    html.markup(" <span class=w>");
    match &event.host {
        Some(host) => {
            html.markup("<a").link("/hosts/", host).markup(">").text(cut(&event.text));
            html.markup("</a>");
        }
        None => drop(html.text(cut(&event.text))),
    }
    html.markup("</span>");
    if let Some(reminded) = event.reminded {
        html.markup(" <i>reminded ").text(count(reminded.count, "time", "times"));
        if reminded.last != event.at {
            html.markup(", last ");
            moment(html, reminded.last);
        }
        html.markup("</i>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::RemindedView;

    #[test]
    fn every_kind_is_in_one_choice() {
        let mut chosen: Vec<&str> = KINDS.iter().flat_map(|(.., kinds)| *kinds).copied().collect();
        let mut all = EventKind::NAMES.to_vec();
        chosen.sort();
        all.sort();
        assert_eq!(chosen, all);
    }

    #[test]
    fn the_query_of_the_page_is_that_of_the_api_and_of_its_form() {
        let target = "/events?q=+WEB&level=critical,warning&kind=boots&before=1f&host=&x=y";
        let filter = EventFilter::of(target);
        let query = filter.query();
        assert_eq!(
            (query.name.as_str(), query.host, query.before),
            ("web", None, Some(EventId(31)))
        );
        assert_eq!(query.levels, [Level::Critical, Level::Warning]);
        assert_eq!(query.kinds, ["booted", "shutdown"]);
        assert_eq!(
            filter.href(Some(EventId(7))),
            "/events?q=web&level=critical%2Cwarning&kind=boots&before=00000000000007"
        );
        let api = "/events?kind=overdue,threshold&since=2026-11-21T20:12:08Z&host=web1";
        let query = EventFilter::of(api).query();
        assert_eq!((query.kinds.len(), query.host.as_deref()), (2, Some("web1")));
        assert!(query.since.is_some());
    }

    #[test]
    fn nonsense_shows_all_events() {
        for query in ["", "?level=<b>&kind=%ff&since=x&until=&before=-", "?level=,&kind=overdue,x"]
        {
            assert_eq!(EventFilter::of(&format!("/events{query}")), EventFilter::default());
        }
        assert_eq!(EventFilter::default().href(None), "/events");
    }

    fn event(id: &str) -> EventView {
        EventView {
            id: id.into(),
            at: Wall(0),
            level: Level::Critical,
            host: Some("web1".into()),
            subject: String::new(),
            kind: "threshold".into(),
            text: "<b>".into(),
            details: Vec::new(),
            told: Vec::new(),
            held_by: Vec::new(),
            trouble: None,
            reminder: false,
            reminded: Some(RemindedView { count: 67, last: Wall(60_000) }),
        }
    }

    #[test]
    fn the_page_says_what_it_shows_and_where_it_goes_on() {
        let filter = EventFilter::of("/events?host=%3Cb%3E&kind=flapping&before=9");
        let mut html = Html::default();
        filter.render(&mut html, &Ok((vec![event("5")], Some(EventId(5)))));
        let page = html.as_str();
        for wanted in [
            "Only about <a href=\"/hosts/%3Cb%3E\">&lt;b&gt;</a>",
            "<option value=\"flapping\" selected>flapping",
            "<input type=hidden name=\"host\" value=\"&lt;b&gt;\">",
            "reminded 67 times, last <time",
            "<a href=\"/events?host=%3Cb%3E&amp;kind=flapping\">Newest</a>",
            "<a rel=next href=\"/events?host=%3Cb%3E&amp;kind=flapping&amp;before=00000000000005\">",
        ] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        let mut html = Html::default();
        EventFilter::default().render(&mut html, &Ok((Vec::new(), None)));
        assert!(html.as_str().contains("Nothing like that.") && !html.as_str().contains("<nav"));
    }
}
