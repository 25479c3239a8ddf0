//! The page of one host. Pure.

use std::ops::Range;
use std::time::Duration;

use super::calm::{CalmForm, held_list};
use super::charts::{BarScale, ChartWindow, DAYS, HOURS, bars, min_mean_max, sparkline};
use super::filter::{PageQuery, TimeRange};
use super::format::{about, ago, exact, limit, metric, percent};
use super::hosts::last_heard;
use super::html::Html;
use super::panels::{self, ReadResult, cut};
use super::summary::{Health, class_of};
use crate::clock::{Wall, format_duration};
use crate::event::Level;
use crate::view::calm::HeldView;
use crate::view::{
    AvailabilityView, EventView, HostState, HostView, MetricView, NotificationView, SeriesView,
    UptimeSlice,
};

/// Slices in which something was wrong that are described in words.
const MAX_SLICES: usize = 20;

/// All that is shown of a host.
pub struct HostPage<'a> {
    /// The query.
    pub query: &'a PageQuery,
    /// The host.
    pub host: &'a HostView,
    /// Its availability; an error says why that is not known.
    pub past: &'a Result<Option<AvailabilityView>, String>,
    /// What is held back about it.
    pub held: &'a [HeldView],
    /// The maintenance windows about it within the last day.
    pub windows: &'a [Range<Wall>],
    /// Its metrics over time.
    pub series: &'a ReadResult<SeriesView>,
    /// The events about it.
    pub events: &'a ReadResult<EventView>,
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
        if !self.host.quiet.is_empty() {
            html.markup("<p class=note>Silent by ")
                .text(self.host.quiet.join(", "))
                .markup(".</p>");
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
        self.availability(html);
        self.metrics(html);
        panels::events(html, self.events);
        panels::notifications(html, self.notifications);
    }

    fn sentence(&self) -> String {
        let since = self.host.since.map(|since| format!("For {}. ", about(self.now.since(since))));
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

    fn availability(&self, html: &mut Html) {
        html.markup("<section aria-labelledby=a-h><h2 id=a-h>Availability</h2>");
        match self.past {
            Ok(Some(past)) => {
                let maintained: Vec<bool> =
                    past.hours.iter().map(|hour| self.is_maintained(hour)).collect();
                let day = ("Last 24 hours", past.availability_day);
                availability_bar(html, &past.hours, HOURS, day, &maintained);
                let days = ("Last 90 days", past.availability_90_days);
                availability_bar(html, &past.days, DAYS, days, &[]);
                html.markup(
                    "<p class=key><span class=u>up</span> <span class=g>degraded</span> \
                    <span class=x>down</span> <span class=o>blind: hbd itself was not listening, \
                    and does not count it</span>",
                );
                html.markup(if maintained.contains(&true) {
                    " <span class=q>maintenance window</span></p>"
                } else {
                    "</p>"
                });
                problem_days(html, &past.days);
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

    /// Whether a window was, or is, in this hour.
    fn is_maintained(&self, hour: &UptimeSlice) -> bool {
        let end = hour.start + Duration::from_secs(3600);
        self.windows.iter().any(|window| window.start < end && hour.start < window.end)
    }

    fn metrics(&self, html: &mut Html) {
        html.markup("<section aria-labelledby=m-h><div class=bar><h2 id=m-h>Metrics</h2>");
        html.markup("<nav class=spans aria-label=\"How far back\">");
        for (name, label, _, span) in TimeRange::CHOICES {
            html.markup("<a").attribute("href", format_args!("?span={name}"));
            html.markup(if span == self.query.span { " aria-current=true>" } else { ">" });
            html.text(label).markup("</a>");
        }
        html.markup("</nav></div>");
        if self.host.metrics.is_empty() {
            html.markup("<p class=i>It sends none.</p></section>");
            return;
        }
        let nothing = Vec::new();
        let series = match self.series {
            Ok(series) => series,
            Err(why) => {
                html.markup("<p class=note>How they were cannot be read at present: ").text(why);
                html.markup("</p>");
                &nothing
            }
        };
        html.markup(
            "<table class=metrics><thead><tr><th scope=col>Metric<th scope=col class=n>Now",
        );
        html.markup("<th scope=col>Over time<th scope=col class=n>Least<th scope=col class=n>Mean<th scope=col class=n>Most<tbody>");
        let (_, days) = self.query.span.label_and_days();
        let from = self.now - Duration::from_secs(days * 86_400);
        let window = ChartWindow { from, to: self.now };
        let mut metrics: Vec<&MetricView> = self.host.metrics.iter().collect();
        metrics.sort_by_key(|metric| {
            std::cmp::Reverse(metric.level.filter(|level| *level > Level::Ok))
        });
        for metric in metrics {
            let found = series.iter().find(|series| series.path == metric.path);
            row(html, metric, found, window);
        }
        html.markup("</table></section>");
    }
}

fn row(html: &mut Html, view: &MetricView, series: Option<&SeriesView>, window: ChartWindow) {
    let (name, unit) = metric(&view.path);
    let level = view.level.filter(|level| *level > Level::Ok);
    html.markup("<tr").attribute("data-k", &view.path);
    html.attribute("class", level.map_or("", class_of)).markup("><th scope=row");
    html.attribute("title", &view.path).markup(">").text(cut(&name));
    html.markup("<td class=n><b").attribute("title", exact(view.value)).markup(">");
    let beyond = view.limit.as_deref().and_then(limit);
    html.text(unit.beside_limit(view.value, beyond)).markup("</b>");
    if let Some(level) = level {
        html.markup(" <b>").text(level.name()).markup("</b>");
    }
    if view.stale {
        let age = view.at.map_or_else(String::new, |at| format!(", {}", ago(window.to.since(at))));
        html.markup(" <b>old").text(age).markup("</b>");
    }
    if let Some(limit) = &view.limit {
        html.markup(" <i>").text(limit).markup("</i>");
    }
    html.markup("<td>");
    let Some(series) = series else {
        html.markup("<td class=n><td class=n><td class=n>");
        return;
    };
    sparkline(html, series, window, view.limit.as_deref().and_then(limit));
    let (least, mean, most) = min_mean_max(&series.points).unwrap_or_default();
    for value in [least, mean, most] {
        html.markup("<td class=n>");
        if !series.points.is_empty() {
            html.text(unit.of(value));
        }
    }
}

fn availability_bar(
    html: &mut Html,
    slices: &[UptimeSlice],
    scale: BarScale,
    (label, share): (&str, Option<f64>),
    maintained: &[bool],
) {
    html.markup("<div class=fared><p>").text(label).markup(" <b>");
    html.text(share.map_or("unknown".into(), percent)).markup("</b></p>");
    bars(html, slices, scale, maintained);
    html.markup("<p class=ends><span>").text(scale.span).markup(" ago</span><span>now</span></p>");
    html.markup("</div>");
}

/// The days on which something was wrong, in words.
fn problem_days(html: &mut Html, days: &[UptimeSlice]) {
    let wrong = |slice: &&UptimeSlice| !(slice.down + slice.degraded + slice.blind).is_zero();
    let found: Vec<&UptimeSlice> = days.iter().rev().filter(wrong).collect();
    if found.is_empty() {
        return;
    }
    html.markup("<details data-k=days><summary>Days with trouble, in words</summary><ul>");
    for slice in found.iter().take(MAX_SLICES) {
        let start = slice.start.to_string();
        html.markup("<li>").text(start.get(..10).unwrap_or_default()).markup(": ");
        let parts = [(slice.down, "down"), (slice.degraded, "degraded"), (slice.blind, "blind")];
        let parts = parts.iter().filter(|(time, _)| !time.is_zero());
        let parts: Vec<_> =
            parts.map(|(time, word)| format!("{word} {}", format_duration(*time))).collect();
        html.text(parts.join(", "));
    }
    html.markup("</ul></details>");
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
