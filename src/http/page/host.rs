//! The page of one host. Pure.

use std::time::Duration;

use super::calm::{CalmForm, held_list};
use super::charts::{self, BarScale, ChartWindow, DAYS, HOURS, bars, min_mean_max, sparkline};
use super::events::{self, EventFilter};
use super::filter::TimeRange;
use super::format::{about, ago, exact, limit, metric, percent};
use super::hosts::{about_host, last_heard};
use super::html::Html;
use super::panels::{self, ReadResult, cut};
use super::summary::{Health, class_of};
use crate::clock::{Wall, format_duration};
use crate::escape::PercentEncoded;
use crate::event::Level;
use crate::view::calm::HeldView;
use crate::view::{
    AvailabilityView, DependencyView, EventView, HostState, HostView, LinkedHost, MetricView,
    NotificationView, SeriesView, UptimeSlice,
};

/// Reasons that are named of an hour with trouble.
const MAX_REASONS: usize = 3;
/// The kinds of events that are reasons.
const REASONS: [&str; 6] = ["overdue", "shutdown", "booted", "not_back", "threshold", "missing"];

/// All that is shown of a host.
pub struct HostPage<'a> {
    /// How far metrics go back.
    pub span: TimeRange,
    /// The host.
    pub host: &'a HostView,
    /// What it is reached through, and who is reached through it.
    pub dependencies: &'a DependencyView,
    /// Its availability; an error says why that is not known.
    pub past: &'a Result<Option<AvailabilityView>, String>,
    /// What is held back about it.
    pub held: &'a [HeldView],
    /// Its metrics over time.
    pub series: &'a ReadResult<SeriesView>,
    /// The last events about it.
    pub events: &'a ReadResult<EventView>,
    /// Those of the last day.
    pub day: &'a [EventView],
    /// What was sent about it.
    pub notifications: &'a ReadResult<NotificationView>,
    /// The time.
    pub now: Wall,
}

impl HostPage<'_> {
    /// The answer to "how is it?", and how much that matters.
    pub fn headline(&self) -> (Level, String) {
        let health = Health::of(self.host);
        let level = match health {
            Health::Down | Health::Critical => Level::Critical,
            Health::Degraded => Level::Warning,
            Health::Silent | Health::Shutdown | Health::New => Level::Info,
            Health::Up => Level::Ok,
        };
        (level, format!("{}: {}", self.host.name, health.word()))
    }

    /// Writes the content of the page.
    pub fn render(&self, html: &mut Html) {
        let (level, _) = self.headline();
        html.markup("<div").attribute("class", format_args!("head {}", class_of(level)));
        html.markup("><p class=i><a href=\"/\">All hosts</a></p><h1>").text(&self.host.name);
        html.markup(" <span class=state>").text(Health::of(self.host).word());
        html.markup("</span></h1><p>").text(self.sentence()).markup("</p>");
        about_host(html, self.host);
        if !self.host.quiet.is_empty() {
            html.markup("<p class=note>Silent by ")
                .text(self.host.quiet.join(", "))
                .markup(".</p>");
        }
        if let Some(refused) = &self.host.refused {
            html.markup("<p class=note>Refused: ").text(&refused.text).markup(".</p>");
        }
        if !self.held.is_empty() {
            held_list(html, self.held);
        }
        let name = &self.host.name;
        CalmForm { scope: name, host: Some(name), acknowledged: None, told: true }.render(html);
        html.markup("</div>");
        if self.host.state == HostState::New {
            first_beat(html, Some(&self.host.name));
        }
        self.connections(html);
        self.dependencies(html);
        self.availability(html);
        self.metrics(html);
        events::panel(html, self.events, &EventFilter::of_host(name, None));
        panels::notifications(html, self.notifications);
    }

    fn sentence(&self) -> String {
        let since = Health::of(self.host).since(self.host);
        let since = since.map(|since| format!("For {}. ", about(self.now.since(since))));
        let told = match (self.host.watch, self.host.channels.as_slice()) {
            (true, []) => "Watched, but no channel hears about it.".into(),
            (true, channels) => format!("Watched; told to {}.", channels.join(", ")),
            (false, []) => "Not watched: nobody is told when it falls silent.".into(),
            (false, channels) => format!(
                "Not watched: nobody is told when it falls silent; its metrics are told to {}.",
                channels.join(", ")
            ),
        };
        since.unwrap_or_default() + &told
    }

    fn connections(&self, html: &mut Html) {
        if self.host.connections.is_empty() {
            return;
        }
        html.markup("<section aria-labelledby=c-h><h2 id=c-h>Connections</h2><table class=stack>");
        html.markup("<thead><tr><th scope=col>Name<th scope=col>Last heard<th scope=col>Beats every<th scope=col>From<tbody>");
        for connection in &self.host.connections {
            let class = match connection.state {
                HostState::Up => "good",
                HostState::Overdue => "bad",
                HostState::New | HostState::Shutdown => "dim",
            };
            html.markup("<tr").attribute("class", class).markup("><th scope=row>");
            html.text(&connection.name).markup("<td><b>");
            html.text(last_heard(connection, self.now)).markup("</b>");
            html.markup("<td>").text(format_duration(connection.interval)).markup("<td>");
            html.text(connection.address.as_deref().unwrap_or_default());
            html.markup(if connection.old_key {
                " <span class=note>signed with the previous key</span>"
            } else {
                ""
            });
        }
        html.markup("</table></section>");
    }

    fn dependencies(&self, html: &mut Html) {
        let DependencyView { through, behind, behind_count } = self.dependencies;
        if through.is_empty() && behind.is_empty() {
            return;
        }
        html.markup("<section aria-labelledby=d-h><h2 id=d-h>Reached through</h2>");
        if through.is_empty() {
            html.markup("<p class=i>Nothing else.</p>");
        } else {
            html.markup("<ul class=list>");
            for entry in through {
                html.markup(if entry.len() > 1 { "<li class=w>one of " } else { "<li class=w>" });
                linked_hosts(html, entry);
            }
            html.markup("</ul>");
        }
        if !behind.is_empty() {
            html.markup("<p class=w>Behind it: ");
            linked_hosts(html, behind);
            let more = behind_count.saturating_sub(behind.len());
            if more > 0 {
                html.markup(" and ").text(more).markup(" more");
            }
            html.markup("</p>");
        }
        html.markup("</section>");
    }

    fn availability(&self, html: &mut Html) {
        html.markup("<section aria-labelledby=a-h");
        html.attribute("data-hour", charts::hour(self.now));
        html.markup("><h2 id=a-h>Availability</h2>");
        match self.past {
            Ok(Some(past)) => {
                let day = ("Last 24 hours", past.availability_day);
                availability_bar(html, &past.hours, HOURS, day);
                let days = ("Last 90 days", past.availability_90_days);
                availability_bar(html, &past.days, DAYS, days);
                html.markup(
                    "<p class=key><span class=u>up</span> <span class=g>degraded</span> \
                    <span class=x>down</span> <span class=o>blind: hbd itself was not listening, \
                    and does not count it</span>",
                );
                let is_maintained = past.hours.iter().chain(&past.days).any(|one| one.maintained);
                html.markup(if is_maintained {
                    " <span class=q>maintenance window or silence</span></p>"
                } else {
                    "</p>"
                });
                self.hours(html, &past.hours);
                self.days(html, &past.days);
            }
            Ok(None) => drop(html.markup("<p class=i>Nothing is recorded of it yet.</p>")),
            Err(why) => {
                html.markup("<p class=note>This cannot be read at present: ")
                    .text(why)
                    .markup("</p>");
            }
        }
        html.markup("</section>");
    }

    /// The hours in which something was wrong: when, for how long, and why. The script of the page
    /// shows these rows at the bars.
    fn hours(&self, html: &mut Html, hours: &[UptimeSlice]) {
        if !hours.iter().any(is_wrong) {
            return;
        }
        html.markup("<details data-k=hours><summary>Hours with trouble, in words</summary>");
        html.markup("<table id=hours><thead><tr><th scope=col>From<th scope=col>It was");
        html.markup("<th scope=col>What happened<td><tbody>");
        for (index, hour) in hours.iter().enumerate().rev().filter(|(_, hour)| is_wrong(hour)) {
            row_head(html, index);
            let at = hour.start.to_string();
            html.markup("<time class=h").attribute("datetime", &at).markup(">");
            html.text(at.get(11..16).unwrap_or_default()).markup("</time><td>");
            html.text(slice_words(hour));
            self.reasons(html, hour, Duration::from_secs(3600), reasons(self.day, hour));
        }
        html.markup("</table></details>");
    }

    /// The same of days, whose events stand on a page of their own.
    fn days(&self, html: &mut Html, days: &[UptimeSlice]) {
        if !days.iter().any(is_wrong) {
            return;
        }
        html.markup("<details data-k=days><summary>Days with trouble, in words</summary>");
        html.markup("<table id=days><thead><tr><th scope=col>Day, UTC<th scope=col>It was");
        html.markup("<th scope=col>What happened<td><tbody>");
        for (index, day) in days.iter().enumerate().rev().filter(|(_, day)| is_wrong(day)) {
            row_head(html, index);
            html.text(day.start.to_string().get(..10).unwrap_or_default()).markup("<td>");
            html.text(slice_words(day));
            self.reasons(html, day, Duration::from_secs(86_400), Vec::new());
        }
        html.markup("</table></details>");
    }

    fn reasons(&self, html: &mut Html, slice: &UptimeSlice, length: Duration, texts: Vec<&str>) {
        let all = EventFilter::of_host(&self.host.name, Some((slice.start, slice.start + length)));
        html.markup("<td>").text(cut(&texts.join(", "))).markup("<td><a");
        html.attribute("href", all.href(None)).markup(">events</a>");
    }

    fn metrics(&self, html: &mut Html) {
        html.markup("<section aria-labelledby=m-h><div class=bar><h2 id=m-h>Metrics</h2>");
        html.markup("<nav class=spans aria-label=\"How far back\">");
        for (name, label, _, span) in TimeRange::CHOICES {
            html.markup("<a").attribute("href", format_args!("?span={name}"));
            html.markup(if span == self.span { " aria-current=true>" } else { ">" });
            html.text(label).markup("</a>");
        }
        html.markup("</nav></div>");
        let nothing = Vec::new();
        let series = match self.series {
            Ok(series) => series,
            Err(why) => {
                html.markup("<p class=note>How they were cannot be read at present: ").text(why);
                html.markup("</p>");
                &nothing
            }
        };
        let metrics = all_metrics(self.host, series);
        if metrics.is_empty() {
            let (label, _) = self.span.label_and_days();
            if matches!(self.host.state, HostState::Up | HostState::New) {
                html.markup("<p class=i>It sends none.");
            } else {
                html.markup("<p class=i>It sent none within ").text(label).markup(".");
            }
            html.markup("</p></section>");
            return;
        }
        html.markup(
            "<table class=metrics><thead><tr><th scope=col>Metric<th scope=col class=n>Now",
        );
        html.markup("<th scope=col>Over time<th scope=col class=n>Least<th scope=col class=n>Mean<th scope=col class=n>Most<tbody>");
        let window = self.span.until(self.now);
        for metric in &metrics {
            let found = series.iter().find(|series| series.path == metric.path);
            self.row(html, metric, found, window);
        }
        html.markup("</table></section>");
    }

    fn row(
        &self,
        html: &mut Html,
        view: &MetricView,
        series: Option<&SeriesView>,
        window: ChartWindow,
    ) {
        let (name, unit) = metric(&view.path);
        let level = view.level.filter(|level| *level > Level::Ok);
        html.markup("<tr").attribute("data-k", &view.path);
        html.attribute("class", level.map_or("", class_of)).markup("><th scope=row");
        html.attribute("title", &view.path).markup(">").text(cut(&name));
        if let Some(text) = &view.text {
            html.markup("<small").attribute("title", text).markup(">").text(text);
            html.markup("</small>");
        }
        html.markup("<td class=n><b").attribute("title", exact(view.value)).markup(">");
        let beyond = view.limit.as_deref().and_then(limit);
        html.text(unit.beside_limit(view.value, beyond)).markup("</b>");
        if let Some(level) = level {
            html.markup(" <b>").text(level.name()).markup("</b>");
        }
        if view.stale {
            let age = view.at.map(|at| format!(", {}", ago(window.to.since(at))));
            html.markup(" <b>old").text(age.unwrap_or_default()).markup("</b>");
        }
        if let Some(limit) = &view.limit {
            html.markup(" <i>").text(limit).markup("</i>");
        }
        html.markup("<td>");
        let Some(series) = series else {
            html.markup("<td class=n><td class=n><td class=n>");
            return;
        };
        html.markup("<a").attribute("href", graph_href(&self.host.name, &view.path, self.span));
        html.attribute("aria-label", format_args!("Graph of {}", cut(&name))).markup(">");
        sparkline(html, series, window, beyond);
        html.markup("</a>");
        let (least, mean, most) = min_mean_max(&series.points).unwrap_or_default();
        for value in [least, mean, most] {
            html.markup("<td class=n>");
            if !series.points.is_empty() {
                html.text(unit.of(value));
            }
        }
    }
}

/// The address of the page of a graph.
pub fn graph_href(host: &str, path: &str, span: TimeRange) -> String {
    let (host, path) = (PercentEncoded(host), PercentEncoded(path));
    format!("/hosts/{host}/graph?metric={path}&span={}", span.name())
}

/// The metrics of a host, the worst first. What the daemon does not know of a host whose beats do not
/// come, after a restart of its own, the history does.
fn all_metrics(host: &HostView, series: &[SeriesView]) -> Vec<MetricView> {
    let mut metrics = host.metrics.clone();
    if host.state != HostState::Up || host.metrics.is_empty() {
        let last_seen = host.connections.iter().filter_map(|connection| connection.last_seen).max();
        for SeriesView { path, step, points } in series {
            let (Some(last), true) =
                (points.last(), host.metrics.iter().all(|metric| metric.path != *path))
            else {
                continue;
            };
            metrics.push(MetricView {
                path: path.clone(),
                value: last.mean.into(),
                level: None,
                since: None,
                limit: None,
                // A step may be a day, and not be over yet.
                at: Some(last.at + *step).min(last_seen).or(Some(last.at)),
                text: None,
                stale: true,
            });
        }
    }
    metrics.sort_unstable_by(|a, b| {
        let bad = |metric: &MetricView| metric.level.filter(|level| *level > Level::Ok);
        bad(b).cmp(&bad(a)).then_with(|| a.path.cmp(&b.path))
    });
    metrics
}

/// `router, wan1 overdue`: each a link, with its state where that is not the usual one.
fn linked_hosts(html: &mut Html, hosts: &[LinkedHost]) {
    for (index, host) in hosts.iter().enumerate() {
        html.markup(if index > 0 { ", <a" } else { "<a" }).link("/hosts/", &host.name);
        html.markup(">").text(&host.name).markup("</a> ");
        let (class, word) = match host.state {
            HostState::Up => ("good", "up"),
            HostState::Overdue => ("bad", "overdue"),
            HostState::Shutdown => ("dim", "shut down"),
            HostState::New => ("dim", "never heard"),
        };
        html.markup("<b").attribute("class", class).markup(">").text(word).markup("</b>");
    }
}

fn is_wrong(slice: &UptimeSlice) -> bool {
    !(slice.down + slice.degraded + slice.blind).is_zero()
}

/// `down 12 min, degraded 3 min`.
fn slice_words(slice: &UptimeSlice) -> String {
    let parts = [(slice.down, "down"), (slice.degraded, "degraded"), (slice.blind, "blind")];
    let parts = parts.iter().filter(|(time, _)| !time.is_zero());
    let parts: Vec<_> =
        parts.map(|(time, word)| format!("{word} {}", format_duration(*time))).collect();
    let maintained = if slice.maintained { ", maintenance window or silence" } else { "" };
    parts.join(", ") + maintained
}

/// What is the matter in an hour: the alarms in it, else the last one before it if nothing was over
/// since. Of the events the newest comes first.
fn reasons<'a>(events: &'a [EventView], hour: &UptimeSlice) -> Vec<&'a str> {
    if (hour.down + hour.degraded).is_zero() {
        return Vec::new();
    }
    let end = hour.start + Duration::from_secs(3600);
    let is_reason =
        |event: &&EventView| event.level >= Level::Warning && REASONS.contains(&&*event.kind);
    let within = events.iter().filter(|event| (hour.start..end).contains(&event.at));
    let mut texts: Vec<&str> = Vec::new();
    for event in within.filter(is_reason) {
        if texts.len() < MAX_REASONS && !texts.contains(&&*event.text) {
            texts.push(&event.text);
        }
    }
    if texts.is_empty() {
        // Where something was over since, nobody knows here whether it was that.
        let mut before = events.iter().filter(|event| event.at < hour.start);
        let last = before.find(|event| is_reason(event) || event.level == Level::Ok);
        texts.extend(last.filter(is_reason).map(|event| &*event.text));
    }
    texts
}

fn row_head(html: &mut Html, index: usize) {
    html.markup("<tr").attribute("data-i", index).markup("><th scope=row>");
}

fn availability_bar(
    html: &mut Html,
    slices: &[UptimeSlice],
    scale: BarScale,
    (label, share): (&str, Option<f64>),
) {
    html.markup("<div class=fared><p>").text(label).markup(" <b>");
    html.text(share.map_or("unknown".into(), percent)).markup("</b></p>");
    bars(html, slices, scale);
    html.markup("<p class=ends><span>").text(scale.span).markup(" ago</span><span>now</span></p>");
    html.markup("</div>");
}

/// How to send a first beat: what an empty page explains.
pub fn first_beat(html: &mut Html, host: Option<&str>) {
    let name = host.unwrap_or("web1");
    html.markup("<section class=first aria-labelledby=f-h><h2 id=f-h>The first beat</h2><ol>");
    if host.is_none() {
        html.markup("<li>Name the host in <code>heartbeat.yaml</code>, then run ");
        html.markup("<code>systemctl reload hbd</code>:<pre>hosts:\n  web1: {watch: true}</pre>");
    }
    html.markup("<li>On the host, send a beat. With the agent:<pre>hbc send --server HBD --host ");
    html.text(name)
        .markup(" --wait 5s</pre>or with nothing but a shell:<pre>printf &#39;{\"host\":\"");
    html.text(name).markup("\"}&#39; | nc -u -w1 HBD 9099</pre>");
    html.markup(
        "<li>It stands here within seconds. Where it does not, <code>--wait</code> says \
        what was not believed; with a key, give <code>--key-file</code>.</ol>",
    );
    html.markup("<p class=i>HBD is the name of this server, 9099 its <code>heartbeat.port</code>.</p></section>");
}

/// The page of a host that is not known.
pub fn no_such_host(html: &mut Html, name: &str) {
    html.markup("<div class=\"head dim\"><p class=i><a href=\"/\">All hosts</a></p><h1>");
    html.markup("No such host</h1><p>Nothing is known of ").text(cut(name)).markup(".</p></div>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(host: &HostView) -> String {
        let mut html = Html::default();
        let page = HostPage {
            span: TimeRange::default(),
            host,
            dependencies: &DependencyView::default(),
            past: &Ok(None),
            held: &[],
            series: &Ok(Vec::new()),
            events: &Ok(Vec::new()),
            day: &[],
            notifications: &Ok(Vec::new()),
            now: Wall(1_795_291_928_000),
        };
        page.render(&mut html);
        html.as_str().to_owned()
    }

    #[test]
    fn what_a_host_said_beside_a_metric_was_nowhere_on_its_page() {
        let metric = |path: &str, text: Option<&str>| MetricView {
            path: path.into(),
            value: 1.0,
            level: Some(Level::Critical),
            since: None,
            limit: None,
            text: text.map(str::to_owned),
            at: None,
            stale: false,
        };
        let mut host = HostView::named("web1");
        let odd = "Fatal: <b>no</b> \"repository\"";
        host.metrics =
            vec![metric("job_monitor.backup.exit_code", Some(odd)), metric("plain", None)];
        let page = page(&host);
        let text = "Fatal: &lt;b&gt;no&lt;/b&gt; &quot;repository&quot;";
        let shown = format!("<small title=\"{text}\">{text}</small>");
        assert!(page.contains(&shown), "{page}");
        assert_eq!(page.matches("<small").count(), 1);
        // For the bars: the hour of hbd's clock.
        assert!(page.contains("data-hour=\"498692\""), "{page}");
    }
}
