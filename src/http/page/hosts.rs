//! The list of hosts: a filter, a table, and links to the next pages; and the names in the DNS.
//! Pure.

use super::charts::{self, BarScale, DAYS, HOURS, bars};
use super::filter::{HostFilter, PAGE_SIZE, PageQuery, Selection};
use super::format::{MetricUnit, about, ago, count, percent};
use super::html::Html;
use super::panels::{badge, cut, moment, section};
use super::problem::metric_problem;
use super::sort::{self, HostOrder, SortColumn};
use super::summary::{Health, HealthCounts, class_of};
use crate::clock::Wall;
use crate::event::Level;
use crate::view::{
    AvailabilityView, ConnectionView, DnsRecordView, DyndnsState, DyndnsView, HostState, HostView,
    MetricView, UptimeSlice,
};

/// Groups that are counted above the list.
const MAX_GROUPS: usize = 40;
/// What fills the bar of a share, and its unit.
const SHARE: (f64, MetricUnit) = (100.0, MetricUnit::Percent);
/// The same for the load of each core.
const LOAD: (f64, MetricUnit) = (2.0, MetricUnit::Plain);
/// In so many steps a bar is drawn.
const STEPS: f64 = 20.0;

/// A host and its availability.
pub type ListedHost = (HostView, Option<AvailabilityView>);

/// The columns: the head, and what it sorts by.
const COLUMNS: [(&str, Option<SortColumn>); 9] = [
    ("Host", Some(SortColumn::Name)),
    ("State", Some(SortColumn::State)),
    ("Last heard", Some(SortColumn::Heard)),
    ("CPU", Some(SortColumn::Cpu)),
    ("Memory", Some(SortColumn::Memory)),
    ("Disk", Some(SortColumn::Disk)),
    ("Load", Some(SortColumn::Load)),
    ("24 hours", None),
    ("90 days", None),
];

/// The list.
pub struct HostList<'a> {
    /// The query.
    pub query: &'a PageQuery,
    /// What it selects.
    pub selection: &'a Selection,
    /// The hosts of this page.
    pub rows: &'a [ListedHost],
    /// Why their availability is not known.
    pub error: Option<&'a str>,
    /// It is for everybody: names, states and bars, and no links to what is not.
    pub public: bool,
    /// The time.
    pub now: Wall,
}

impl HostList<'_> {
    /// Writes it as a section of the page.
    pub fn render(&self, html: &mut Html) {
        html.markup(
            "<section id=hosts aria-labelledby=hosts-h><div class=bar><h2 id=hosts-h>Hosts</h2>",
        );
        if !self.public {
            self.filter(html);
        }
        html.markup("</div>");
        if !self.public {
            self.groups(html);
        }
        if let Some(why) = self.error {
            html.markup("<p class=note>How they fared cannot be told");
            // What keeps the daemon from it is not for everybody.
            if !self.public {
                html.markup(": ").text(why);
            }
            html.markup("</p>");
        }
        if self.rows.is_empty() && self.public {
            html.markup("<p class=i>There are none yet.</p>");
        } else if self.rows.is_empty() {
            html.markup("<p class=i>No host is like that. <a href=\"/\">Show all</a></p>");
        } else {
            self.table(html);
        }
        self.pager(html);
        html.markup("</section>");
    }

    fn filter(&self, html: &mut Html) {
        html.markup("<form id=filter role=search action=\"/\"><label for=q>Part of a name</label>");
        html.markup("<input id=q name=q type=search placeholder=\"Filter by name\" autocomplete=off spellcheck=false");
        html.attribute("value", &self.query.name);
        html.markup("><label for=state>State</label><select id=state name=state>");
        for (value, words, which) in HostFilter::CHOICES {
            html.markup("<option").attribute("value", value);
            html.markup(if which == self.query.which { " selected>" } else { ">" });
            html.text(words);
        }
        html.markup("</select>");
        let order = self.query.order.name();
        if !self.query.group.is_empty() {
            html.markup("<input type=hidden name=group").attribute("value", &self.query.group);
            html.markup(">");
        }
        if !order.is_empty() {
            html.markup("<input type=hidden name=sort").attribute("value", order).markup(">");
        }
        html.markup("<button>Filter</button></form>");
    }

    /// How many hosts are in which group, each a link to them; nothing where there are no groups.
    fn groups(&self, html: &mut Html) {
        let groups = &self.selection.groups;
        if groups.is_empty() {
            return;
        }
        let (query, order) = (self.query, self.query.order);
        let link = |html: &mut Html, target: String, current: bool| {
            html.attribute("href", target);
            html.markup(if current { " aria-current=true>" } else { ">" });
        };
        html.markup("<nav class=\"spans groups\" aria-label=Groups><a");
        link(html, query.query_with(order, "", 1), query.group.is_empty());
        html.markup("all groups</a>");
        for (name, counts) in groups.iter().take(MAX_GROUPS) {
            let (words, class) = group_words(counts);
            html.markup("<a").attribute("class", class);
            link(html, query.query_with(order, name, 1), query.group == *name);
            html.text(name).markup(" <i>").text(words).markup("</i></a>");
        }
        let hidden = groups.len().saturating_sub(MAX_GROUPS);
        if hidden > 0 {
            html.markup("<span class=i>and ").text(hidden).markup(" more</span>");
        }
        let by_group = order.column == SortColumn::Group;
        let turned = if by_group { HostOrder::default() } else { order.turned(SortColumn::Group) };
        html.markup("<a");
        link(html, query.query_with(turned, &query.group, 1), by_group);
        html.markup("sort by group</a></nav>");
    }

    fn table(&self, html: &mut Html) {
        html.markup(if self.public { "<table class=\"hosts open\"" } else { "<table class=hosts" });
        html.attribute("data-hour", charts::hour(self.now)).markup("><thead><tr>");
        for (label, column) in COLUMNS {
            if self.public && !matches!(label, "Host" | "State" | "24 hours" | "90 days") {
                continue;
            }
            html.markup("<th scope=col");
            let Some(column) = column.filter(|_| !self.public) else {
                html.markup(">").markup(label);
                continue;
            };
            let order = self.query.order;
            if order.column == column {
                html.markup(" aria-sort=").markup(order.direction());
            }
            let target = self.query.query_with(order.turned(column), &self.query.group, 1);
            html.markup("><a").attribute("href", target).markup(">").markup(label).markup("</a>");
        }
        let grouped = self.query.order.column == SortColumn::Group;
        let mut group = None;
        for (host, past) in self.rows {
            let own = host.groups.first().map_or("no group", String::as_str);
            if !grouped && group.is_none() {
                html.markup("<tbody>");
            } else if grouped && group != Some(own) {
                // Its mark is for the script: a filter by name hides the heads, too.
                html.markup("<tbody").attribute("data-k", own);
                html.markup("><tr class=group data-k=\"\"><th scope=rowgroup");
                html.markup(if self.public { " colspan=4>" } else { " colspan=9>" }).text(own);
            }
            group = Some(own);
            self.row(html, host, past.as_ref());
        }
        html.markup("</table>");
    }

    fn row(&self, html: &mut Html, host: &HostView, past: Option<&AvailabilityView>) {
        let health = Health::of(host);
        html.markup("<tr class=").markup(health.class()).attribute("data-k", &host.name);
        html.markup("><th scope=row>");
        if self.public {
            html.text(&host.name);
        } else {
            html.markup("<a").link("/hosts/", &host.name).markup(">").text(&host.name);
            html.markup("</a>");
            labels(html, host);
        }
        html.markup("<td");
        if !self.public {
            reasons(html, host);
        }
        html.markup("><b>").text(health.short_word()).markup("</b>");
        if let Some(since) = health.since(host) {
            html.markup(" <i>").text(about(self.now.since(since))).markup("</i>");
        }
        if !self.public {
            heard(html, host, self.now);
            for (metric, scale) in [
                (sort::cpu(host), SHARE),
                (sort::memory(host), SHARE),
                (sort::fullest_disk(host), SHARE),
                (sort::load(host), LOAD),
            ] {
                metric_cell(html, metric, scale, host.state == HostState::Up);
            }
        }
        let none = AvailabilityView::default();
        let past = past.unwrap_or(&none);
        availability_cell(html, &past.hours, HOURS, past.availability_day);
        availability_cell(html, &past.days, DAYS, past.availability_90_days);
    }

    fn pager(&self, html: &mut Html) {
        let Selection { matching, page, pages, .. } = *self.selection;
        if pages < 2 {
            return;
        }
        let first = (page - 1) * PAGE_SIZE + 1;
        let shown = (first + self.rows.len()).saturating_sub(1);
        html.markup("<nav class=pager aria-label=\"Pages of hosts\"><span>");
        html.text(format_args!("{first} to {shown} of {matching} hosts"));
        if self.query.order == HostOrder::default() {
            html.markup(", the worst first");
        }
        html.markup("</span>");
        if page > 1 {
            html.markup("<a rel=prev").attribute("href", self.query.page_query(page - 1));
            html.markup(">Previous page</a>");
        }
        if page < pages {
            html.markup("<a rel=next").attribute("href", self.query.page_query(page + 1));
            html.markup(">Next page</a>");
        }
        html.markup("</nav>");
    }
}

/// `12`, or `12, 1 overdue` and the class that colours it.
fn group_words(counts: &HealthCounts) -> (String, &'static str) {
    let worst = Health::ALL.into_iter().find(|health| counts.of(*health) > 0);
    let worst = worst.filter(|health| matches!(health.class(), "bad" | "warn"));
    match worst {
        Some(health) => {
            let words = format!("{}, {} {}", counts.all(), counts.of(health), health.word());
            (words, health.class())
        }
        None => (counts.all().to_string(), ""),
    }
}

/// What people wrote about a host, in the rest of the line.
fn labels(html: &mut Html, host: &HostView) {
    external_link(html, host);
    if host.groups.is_empty() && host.note.is_none() {
        return;
    }
    html.markup(" <i>").text(host.groups.join(", "));
    if let Some(note) = &host.note {
        html.markup(if host.groups.is_empty() { "" } else { " \u{b7} " }).text(cut(note));
    }
    html.markup("</i>");
}

/// Where more is to be found about a host; the place that it leads to is not told where it comes from.
fn external_link(html: &mut Html, host: &HostView) {
    let Some(link) = &host.link else { return };
    html.markup(" <a class=out rel=noreferrer").attribute("href", link);
    html.attribute("aria-label", format_args!("More about {}", host.name));
    html.attribute("title", link).markup(">\u{2197}</a>");
}

/// Note, link and groups of a host, on its own page.
pub fn about_host(html: &mut Html, host: &HostView) {
    if let Some(note) = &host.note {
        html.markup("<p class=w>").text(note).markup("</p>");
    }
    if let Some(link) = &host.link {
        html.markup("<p class=w><a rel=noreferrer").attribute("href", link).markup(">");
        html.text(link).markup("</a></p>");
    }
    if host.groups.is_empty() {
        return;
    }
    html.markup("<p class=census>");
    for group in &host.groups {
        let query = PageQuery::default().query_with(HostOrder::default(), group, 1);
        html.markup("<a").attribute("href", format_args!("/{query}")).markup(">");
        html.text(group).markup("</a> ");
    }
    html.markup("</p>");
}

/// What makes a host critical or degraded, in words, for who points at its state.
fn reasons(html: &mut Html, host: &HostView) {
    let beyond = host.metrics.iter().filter(|metric| metric.level > Some(Level::Ok));
    let words: Vec<String> = beyond.take(3).map(metric_problem).collect();
    if host.state == HostState::Up && !words.is_empty() {
        html.attribute("title", words.join("; "));
    }
}

fn availability_cell(
    html: &mut Html,
    slices: &[UptimeSlice],
    scale: BarScale,
    availability: Option<f64>,
) {
    html.markup("<td>");
    bars(html, slices, scale);
    if let Some(share) = availability {
        html.markup(" <i>").text(percent(share)).markup("</i>");
    }
}

/// When a host was last heard; of one that is up, rather which connection is not.
fn heard(html: &mut Html, host: &HostView, now: Wall) {
    let gone = |one: &&ConnectionView| one.state != HostState::Up;
    let gone: Vec<&ConnectionView> = host.connections.iter().filter(gone).collect();
    match gone.as_slice() {
        [one] if host.state == HostState::Up => {
            let word = state_word(one.state).unwrap_or_default();
            html.markup("<td><b>").text(&one.name).markup(" ").text(word).markup("</b>");
        }
        [_, _, ..] if host.state == HostState::Up => {
            let (gone, all) = (gone.len(), host.connections.len());
            html.markup("<td><b>").text(format_args!("{gone} of {all} silent")).markup("</b>");
        }
        _ => {
            let seen = host.connections.iter().filter_map(|connection| connection.last_seen).max();
            let seen = seen.map_or("never".into(), |seen| ago(now.since(seen)));
            html.markup("<td>").text(seen);
        }
    }
}

/// `just now`, `overdue, 5 min ago`.
pub fn last_heard(connection: &ConnectionView, now: Wall) -> String {
    let seen = connection.last_seen.map(|seen| ago(now.since(seen)));
    match (state_word(connection.state), seen) {
        (None, Some(seen)) => seen,
        (Some(word), Some(seen)) => format!("{word}, {seen}"),
        (word, None) => word.unwrap_or("never").into(),
    }
}

/// What is said about a state that is not the usual one.
fn state_word(state: HostState) -> Option<&'static str> {
    match state {
        HostState::New => Some("never heard"),
        HostState::Up => None,
        HostState::Overdue => Some("overdue"),
        HostState::Shutdown => Some("shut down"),
    }
}

/// A value over a bar: the style has a class for each step of it. What was not heard lately is grey.
fn metric_cell(
    html: &mut Html,
    metric: Option<&MetricView>,
    (full, unit): (f64, MetricUnit),
    is_up: bool,
) {
    let Some(metric) = metric else {
        html.markup("<td>");
        return;
    };
    let step = (metric.value / full * STEPS).clamp(0.0, STEPS).round();
    let level = metric.level.filter(|level| is_up && *level > Level::Ok);
    let class = match level {
        Some(level) => class_of(level),
        None if is_up && !metric.stale => "",
        None => "old",
    };
    html.markup("<td");
    match class {
        // Without quotes: there may be hundreds of these.
        "" => html.markup(" class=").text(format_args!("p{step}")),
        class => html.attribute("class", format_args!("p{step} {class}")),
    };
    if let Some(disk) = sort::disk_name(&metric.path).filter(|disk| *disk != "root") {
        html.attribute("title", disk);
    }
    html.markup(if level.is_some() { "><b>" } else { ">" });
    html.text(format_value(metric.value, unit));
    html.markup(if level.is_some() { "</b>" } else { "" });
    html.markup(if metric.stale { " <i>old</i>" } else { "" });
}

/// Percents without decimals: more of them would only flicker.
fn format_value(value: f64, unit: MetricUnit) -> String {
    unit.of(if unit == MetricUnit::Percent { value.round() } else { value })
}

/// How many hosts are in which state, each number a link to them.
pub fn counts(html: &mut Html, selection: &Selection) {
    let counts = &selection.counts;
    html.markup("<p class=census><a href=\"/\">").text(count(counts.all(), "host", "hosts"));
    html.markup("</a>");
    for health in Health::ALL.into_iter().filter(|health| counts.of(*health) > 0) {
        html.markup(" <a").attribute("class", health.class());
        html.attribute("href", format_args!("/?state={}", health.filter())).markup(">");
        html.text(counts.of(health)).markup(" ").text(health.word()).markup("</a>");
    }
    html.markup("</p>");
}

/// The names in the DNS, each with its state and addresses; nothing where none is kept.
pub fn dns_names(html: &mut Html, dns_names: &[DyndnsView]) {
    if dns_names.is_empty() {
        return;
    }
    section(html, "names", "Names", |html| {
        html.markup("<ul class=list>");
        for name in dns_names {
            html.markup("<li").attribute("data-k", &name.name).markup(">");
            let class = match name.state {
                DyndnsState::Kept => "good",
                DyndnsState::Unknown | DyndnsState::Waiting => "dim",
                DyndnsState::Failing | DyndnsState::Refused => "bad",
            };
            badge(html, class, name.state.name());
            html.markup(" <span class=w>").text(&name.name).markup(" <i>(").text(&name.host);
            html.markup(")</i></span>");
            name.records.iter().for_each(|one| record(html, one));
            if let Some(failure) = &name.last_failure {
                html.markup("<p class=i>last error");
                at(html, failure.at);
                html.markup(": ").text(cut(&failure.why)).markup("</p>");
            }
        }
        html.markup("</ul>");
    });
}

/// `A 192.0.2.7, since 3 h ago`, and the host's address where that is another one.
fn record(html: &mut Html, record: &DnsRecordView) {
    html.markup("<p class=i>").text(record.record).markup(" ");
    match record.written {
        Some(written) => html.text(written.to_string()),
        None => html.markup("not written yet"),
    };
    if record.last_update.is_some() {
        html.markup(", written");
        at(html, record.last_update);
    }
    if let Some(address) = record.address.filter(|address| Some(*address) != record.written) {
        html.markup("; the host is at ").text(address.to_string());
    }
    html.markup("</p>");
}

fn at(html: &mut Html, time: Option<Wall>) {
    if let Some(time) = time {
        html.markup(" ");
        moment(html, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_its_address_its_record_and_what_keeps_it_back() {
        let mut html = Html::default();
        dns_names(&mut html, &[]);
        assert!(html.as_str().is_empty());
        let record = DnsRecordView {
            record: "A",
            address: Some([192, 0, 2, 8].into()),
            written: Some([192, 0, 2, 7].into()),
            last_update: Some(Wall(0)),
        };
        let one = DyndnsView {
            host: "home".into(),
            name: "home.dyn.example".into(),
            method: "rfc2136",
            server: "ns1".into(),
            state: DyndnsState::Failing,
            records: vec![record],
            failing_since: Some(Wall(0)),
            last_failure: Some(crate::view::FailureView { at: None, why: "<b>REFUSED</b>".into() }),
            next_attempt: None,
        };
        dns_names(&mut html, &[one]);
        let page = html.as_str();
        for wanted in ["home.dyn.example", "192.0.2.7", "the host is at 192.0.2.8", "&lt;b&gt;"] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
    }
}
