//! The list of hosts: a filter, a table, and links to the next pages; and the names in the DNS.
//! Pure.

use super::charts::{BarScale, DAYS, HOURS, bars};
use super::filter::{HostFilter, PAGE_SIZE, PageQuery, Selection};
use super::format::{MetricUnit, about, ago, count, limit, metric, percent};
use super::html::Html;
use super::panels::{badge, cut, moment, section};
use super::summary::{Health, class_of};
use crate::clock::Wall;
use crate::event::Level;
use crate::view::{
    AvailabilityView, ConnectionView, DnsRecordView, DyndnsState, DyndnsView, HostState, HostView,
    MetricView, UptimeSlice,
};

/// Metrics that are shown of a host that is well.
const MAX_METRICS: usize = 4;
/// A longer name of a metric is cut.
const MAX_METRIC_NAME: usize = 40;

/// A host and its availability.
pub type ListedHost = (HostView, Option<AvailabilityView>);

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
    /// The time.
    pub now: Wall,
}

impl HostList<'_> {
    /// Writes it as a section of the page.
    pub fn render(&self, html: &mut Html) {
        html.markup(
            "<section id=hosts aria-labelledby=hosts-h><div class=bar><h2 id=hosts-h>Hosts</h2>",
        );
        self.filter(html);
        html.markup("</div>");
        if let Some(why) = self.error {
            html.markup("<p class=note>How they fared cannot be told: ").text(why).markup("</p>");
        }
        if self.rows.is_empty() {
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
        html.markup("</select><button>Filter</button></form>");
    }

    fn table(&self, html: &mut Html) {
        html.markup(
            "<table class=hosts><thead><tr><th scope=col>Host<th scope=col>State\
             <th scope=col>Connections, last heard<th scope=col>Metrics\
             <th scope=col>24 hours<th scope=col>90 days<tbody>",
        );
        for (host, past) in self.rows {
            self.row(html, host, past.as_ref());
        }
        html.markup("</table>");
    }

    fn row(&self, html: &mut Html, host: &HostView, past: Option<&AvailabilityView>) {
        let health = Health::of(host);
        html.markup("<tr class=").markup(health.class()).attribute("data-k", &host.name);
        html.markup("><th scope=row><a").link("/hosts/", &host.name).markup(">");
        html.text(&host.name).markup("</a><td><b>").text(health.word()).markup("</b>");
        if let Some(since) = host.since {
            html.markup(" <i>").text(about(self.now.since(since))).markup("</i>");
        }
        html.markup("<td>");
        connections(html, host, self.now);
        html.markup("<td>");
        if host.state != HostState::Up && !host.metrics.is_empty() {
            html.markup("<i>last known:</i> ");
        }
        metrics(html, &host.metrics);
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
        html.text(format_args!("{first} to {shown} of {matching} hosts, the worst first"));
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

fn connections(html: &mut Html, host: &HostView, now: Wall) {
    for (index, connection) in host.connections.iter().enumerate() {
        if index > 0 {
            html.markup("<br>");
        }
        html.text(&connection.name).markup(" ");
        let gone = connection.state != HostState::Up;
        html.markup(if gone { "<b>" } else { "<i>" });
        let word = (connection.state != host.state).then(|| state_word(connection.state)).flatten();
        html.text(seen(word, connection, now));
        html.markup(if gone { "</b>" } else { "</i>" });
    }
}

/// `just now`, `overdue, 5 min ago`.
pub fn last_heard(connection: &ConnectionView, now: Wall) -> String {
    seen(state_word(connection.state), connection, now)
}

fn seen(word: Option<&str>, connection: &ConnectionView, now: Wall) -> String {
    let seen = connection.last_seen.map(|seen| ago(now.since(seen)));
    match (word, seen) {
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

/// Those beyond a limit, then of each monitor the one nearest to its limit, as far as there is room.
fn metrics(html: &mut Html, metrics: &[MetricView]) {
    let beyond = |metric: &&MetricView| metric.level >= Some(Level::Warning);
    let mut bad: Vec<&MetricView> = metrics.iter().filter(beyond).collect();
    bad.sort_by_key(|metric| std::cmp::Reverse(metric.level));
    let hidden = bad.len().saturating_sub(MAX_METRICS);
    for metric in bad.iter().take(MAX_METRICS) {
        metric_item(html, metric);
    }
    if hidden > 0 {
        html.markup("<i>").text(format_args!("and {hidden} more")).markup("</i>");
    }
    let mut well: Vec<&MetricView> =
        metrics.iter().filter(|metric| metric.level == Some(Level::Ok)).collect();
    well.sort_by(|a, b| family(a).cmp(family(b)).then(limit_ratio(b).total_cmp(&limit_ratio(a))));
    well.dedup_by_key(|metric| family(metric));
    for metric in well.into_iter().take(MAX_METRICS.saturating_sub(bad.len())) {
        metric_item(html, metric);
    }
}

fn family(metric: &MetricView) -> &str {
    metric.path.split('.').next().unwrap_or_default()
}

fn limit_ratio(metric: &MetricView) -> f64 {
    let limit = metric.limit.as_deref().and_then(limit).filter(|limit| *limit > 0.0);
    limit.map_or(0.0, |limit| metric.value / limit)
}

fn metric_item(html: &mut Html, view: &MetricView) {
    let (name, unit) = metric(&view.path);
    let name = shortened(&name);
    let value = format_value(view.value, unit);
    let Some(level) = view.level.filter(|level| *level > Level::Ok) else {
        html.markup("<span class=m><i>").text(name).markup("</i> ").text(value);
        html.markup(if view.stale { " <i>(old)</i>" } else { "" });
        html.markup("</span>");
        return;
    };
    html.markup("<span").attribute("class", format_args!("m {}", class_of(level))).markup(">");
    html.text(level.name()).markup(": ").text(name).markup(" <b>").text(value);
    html.markup(if view.stale { "</b> <i>(old)</i>" } else { "</b>" });
    if let Some(limit) = &view.limit {
        html.markup(" <i>").text(limit).markup("</i>");
    }
    html.markup("</span>");
}

/// A name of a metric, cut: it may be long; the host's own page has all of it.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_METRIC_NAME) {
        Some((end, _)) => format!("{}\u{2026}", &name[..end]),
        None => name.to_owned(),
    }
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
