//! The page of one metric of a host: a large graph with axes, limits and marked events, and all its
//! values. Pure.

use std::ops::Range;

use super::charts::{Plot, finite, is_near, min_mean_max};
use super::events;
use super::filter::TimeRange;
use super::format::{MetricUnit, limit, metric};
use super::host::graph_href;
use super::html::Html;
use super::panels::{cut, moment, unreadable};
use super::summary::class_of;
use crate::clock::Wall;
use crate::event::Level;
use crate::view::{EventView, HostView, PointView, SeriesView};

/// The drawing, in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 300.0;
/// Into how many parts its time is divided.
const TIME_PARTS: u32 = 4;
/// Kinds of events that are marked, whatever the metric.
pub const MARKED: [&str; 8] =
    ["overdue", "back", "shutdown", "booted", "not_back", "returned", "threshold", "missing"];

/// All that is shown.
pub struct GraphPage<'a> {
    /// The host.
    pub host: &'a HostView,
    /// The path of the metric.
    pub path: &'a str,
    /// How far back.
    pub span: TimeRange,
    /// The values; an error says why they cannot be read.
    pub series: &'a Result<SeriesView, String>,
    /// The limits of the metric, and the level beyond each.
    pub limits: &'a [(Level, String)],
    /// Maintenance windows and silences.
    pub windows: &'a [Range<Wall>],
    /// The events about the host, of the kinds [`MARKED`].
    pub events: &'a [EventView],
    /// The time.
    pub now: Wall,
}

impl GraphPage<'_> {
    /// The title of the page.
    pub fn title(&self) -> String {
        format!("{}: {}", self.host.name, cut(&metric(self.path).0))
    }

    /// Writes the content of the page.
    pub fn render(&self, html: &mut Html) {
        let name = &self.host.name;
        html.markup("<div class=\"head dim\"><p class=i><a href=\"/\">All hosts</a> / <a");
        html.link("/hosts/", name).markup(">").text(name).markup("</a></p><h1>");
        html.text(cut(&metric(self.path).0)).markup("</h1><p class=i>").text(cut(self.path));
        html.markup("</p></div><section aria-labelledby=g-h><div class=bar>");
        html.markup("<h2 id=g-h>Over time</h2>");
        self.choices(html);
        html.markup("</div>");
        match self.series {
            Err(why) => unreadable(html, why),
            Ok(series) => self.graph(html, series),
        }
        html.markup("</section>");
    }

    /// Other metrics, and how far back.
    fn choices(&self, html: &mut Html) {
        if self.host.metrics.len() > 1 {
            html.markup("<form id=filter><label for=metric>Metric</label>");
            html.markup("<select id=metric name=metric>");
            if self.host.metrics.iter().all(|metric| metric.path != self.path) {
                html.markup("<option selected").attribute("value", self.path).markup(">");
                html.text(cut(&metric(self.path).0));
            }
            for other in &self.host.metrics {
                html.markup("<option").attribute("value", &other.path);
                html.markup(if other.path == self.path { " selected>" } else { ">" });
                html.text(cut(&metric(&other.path).0));
            }
            html.markup("</select><input type=hidden name=span")
                .attribute("value", self.span.name());
            html.markup("><button>Show</button></form>");
        }
        html.markup("<nav class=spans aria-label=\"How far back\">");
        for (_, label, _, span) in TimeRange::CHOICES {
            html.markup("<a").attribute("href", graph_href(&self.host.name, self.path, span));
            html.markup(if span == self.span { " aria-current=true>" } else { ">" });
            html.text(label).markup("</a>");
        }
        html.markup("</nav>");
    }

    fn graph(&self, html: &mut Html, series: &SeriesView) {
        let points: Vec<PointView> =
            series.points.iter().filter(|point| finite(point)).copied().collect();
        let (label, _) = self.span.label_and_days();
        let Some((least, mean, most)) = min_mean_max(&points) else {
            html.markup("<p class=i>Nothing was recorded within ").text(label).markup(".</p>");
            return;
        };
        let (name, unit) = metric(self.path);
        let limits: Vec<(Level, f64)> =
            self.limits.iter().filter_map(|(level, text)| Some((*level, limit(text)?))).collect();
        let shown = limits.iter().map(|(_, limit)| *limit).filter(|one| is_near(*one, least, most));
        let (low, high) =
            shown.fold((least, most), |(low, high), limit| (low.min(limit), high.max(limit)));
        let axis = Axis::around(low, high, unit);
        let (bottom, top) = (axis.bottom, axis.top());
        let window = self.span.until(self.now);
        let plot = Plot { bottom, top, window, step: series.step, width: WIDTH, height: HEIGHT };
        html.markup("<div class=graph><div class=y>");
        for part in (0..=axis.parts).rev() {
            html.markup("<span>").text(unit.of(axis.at(part))).markup("</span>");
        }
        html.markup(
            "</div><svg class=\"k z\" preserveAspectRatio=none viewBox=\"0 0 1000 300\" role=img",
        );
        let (low, middle, high) = (unit.of(least), unit.of(mean), unit.of(most));
        html.attribute(
            "aria-label",
            format_args!("{}, {label}: from {low} to {high}, {middle} on average", cut(&name)),
        );
        html.markup(">");
        self.windows(html, &plot);
        html.markup("<path class=l").attribute("d", axis.grid()).markup("/><path class=r");
        html.attribute("d", plot.band(&points)).markup("/><path class=n");
        html.attribute("d", plot.line(&points)).markup("/>");
        for (level, limit) in limits.iter().filter(|(_, limit)| (bottom..=top).contains(limit)) {
            html.markup("<path").attribute("class", format_args!("t {}", class_of(*level)));
            html.attribute("d", format_args!("M0 {:.0}H1000", plot.y(*limit))).markup("/>");
        }
        let marks = self.marks(&plot);
        for (event, x) in &marks {
            html.markup("<path").attribute("class", format_args!("e {}", class_of(event.level)));
            html.attribute("d", format_args!("M{x:.0} 0V300")).markup("><title>");
            html.text(cut(&event.text)).markup("</title></path>");
        }
        html.markup("</svg>");
        self.times(html);
        html.markup("</div>");
        self.key(html);
        marked(html, &marks);
        values(html, &points, unit, &plot);
    }

    fn windows(&self, html: &mut Html, plot: &Plot) {
        for window in self.windows {
            let (from, to) = (plot.x(window.start), plot.x(window.end));
            html.markup("<path class=w");
            html.attribute("d", format_args!("M{from:.0} 0H{to:.0}V300H{from:.0}Z"));
            html.markup("><title>maintenance window or silence</title></path>");
        }
    }

    /// The events that are about the metric or the whole host, the newest first, and where they lie.
    fn marks(&self, plot: &Plot) -> Vec<(&EventView, f64)> {
        let of_metric = |kind: &str| matches!(kind, "threshold" | "missing");
        let is_own = |event: &&EventView| {
            !of_metric(&event.kind) || event.text.split([' ', ',']).any(|word| word == self.path)
        };
        self.events.iter().filter(is_own).map(|event| (event, plot.x(event.at))).collect()
    }

    fn times(&self, html: &mut Html) {
        let window = self.span.until(self.now);
        let whole = window.to.since(window.from);
        html.markup("<p class=\"ends times\">");
        for part in 0..=TIME_PARTS {
            let at = (window.from + whole * part / TIME_PARTS).to_string();
            // The script writes the reader's own time.
            let (class, words) = match self.span {
                TimeRange::Day => ("h", at.get(11..16)),
                _ => ("d", at.get(5..10)),
            };
            html.markup("<time").attribute("class", class).attribute("datetime", &at);
            html.markup(">").text(words.unwrap_or_default()).markup("</time>");
        }
        html.markup("</p>");
    }

    fn key(&self, html: &mut Html) {
        html.markup("<p class=key><span class=u>mean, and from the least to the most</span>");
        for (level, text) in self.limits {
            html.markup(" <span").attribute("class", format_args!("t {}", class_of(*level)));
            html.markup(">").text(level.name()).markup(" ").text(text).markup("</span>");
        }
        if !self.windows.is_empty() {
            html.markup(" <span class=q>maintenance window or silence</span>");
        }
        html.markup("</p>");
    }
}

fn marked(html: &mut Html, marks: &[(&EventView, f64)]) {
    if marks.is_empty() {
        return;
    }
    html.markup("<h2>Marked in it</h2><ol id=marks class=\"list log\">");
    marks.iter().for_each(|(event, x)| events::item(html, event, Some(*x)));
    html.markup("</ol>");
}

/// All points, the newest first; the script shows these rows at the graph.
fn values(html: &mut Html, points: &[PointView], unit: MetricUnit, plot: &Plot) {
    html.markup("<details data-k=values><summary>All values</summary><table id=points><thead><tr>");
    html.markup("<th scope=col>From<th scope=col class=n>Least<th scope=col class=n>Mean");
    html.markup("<th scope=col class=n>Most<tbody>");
    for point in points.iter().rev() {
        html.markup("<tr").attribute("data-x", format_args!("{:.0}", plot.x(point.at)));
        html.markup("><th scope=row>");
        moment(html, point.at);
        for value in [point.least, point.mean, point.most] {
            html.markup("<td class=n>").text(unit.of(value.into()));
        }
    }
    html.markup("</table></details>");
}

/// The values at which lines are drawn: round ones.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    bottom: f64,
    step: f64,
    parts: u32,
}

impl Axis {
    /// The axis of all values from `low` to `high`. Percents have all of theirs.
    fn around(low: f64, high: f64, unit: MetricUnit) -> Axis {
        if unit == MetricUnit::Percent && low >= 0.0 && high <= 100.0 {
            return Axis { bottom: 0.0, step: 25.0, parts: 4 };
        }
        let low = if low > 0.0 && low < high * 0.6 { 0.0 } else { low };
        let least_height = (high.abs() * 0.02).max(1e-9);
        let (low, height) = if high - low < least_height {
            (low - least_height / 2.0, least_height)
        } else {
            (low, high - low)
        };
        // Days, hours and minutes are no decimals.
        let whole = match (unit, height) {
            (MetricUnit::Seconds, 259_200.0..) => 86_400.0,
            (MetricUnit::Seconds, 10_800.0..) => 3_600.0,
            (MetricUnit::Seconds, 180.0..) => 60.0,
            _ => 1.0,
        };
        let raw = height / whole / 4.0;
        let power = 10_f64.powf(raw.log10().floor());
        let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * power >= raw * 0.999);
        let step = round.unwrap_or(10.0) * power * whole;
        let bottom = (low / step).floor() * step;
        let parts = ((low + height - bottom) / step * 0.999_999).ceil().clamp(1.0, 10.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10")]
        Axis { bottom, step, parts: parts as u32 }
    }

    fn at(self, part: u32) -> f64 {
        self.bottom + self.step * f64::from(part)
    }

    fn top(self) -> f64 {
        self.at(self.parts)
    }

    fn grid(self) -> String {
        let y = |part: u32| HEIGHT * f64::from(part) / f64::from(self.parts);
        (0..=self.parts).map(|part| format!("M0 {:.0}H1000", y(part))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_axis_has_few_round_values_and_all_that_is_drawn_lies_within() {
        for (low, high, unit, labels) in [
            (3.0, 97.0, MetricUnit::Percent, "0 %, 25 %, 50 %, 75 %, 100 %"),
            (0.2, 1.9, MetricUnit::Plain, "0, 0.5, 1, 1.5, 2"),
            (1.2e9, 1.4e9, MetricUnit::Bytes, "1.2 GB, 1.25 GB, 1.3 GB, 1.35 GB, 1.4 GB"),
            (0.0, 0.0, MetricUnit::Plain, "-5e-10, 0, 5e-10"),
            (5.0, 5.0, MetricUnit::Plain, "4.95, 5, 5.05"),
            (-7.0, 3.0, MetricUnit::Plain, "-10, -5, 0, 5"),
            (0.0, 864_000.0, MetricUnit::Seconds, "0 s, 5 d, 10 d"),
        ] {
            let axis = Axis::around(low, high, unit);
            assert!(axis.bottom <= low && axis.top() >= high * 0.999_999, "{axis:?}");
            let found: Vec<_> = (0..=axis.parts).map(|part| unit.of(axis.at(part))).collect();
            assert_eq!(found.join(", ").replace('\u{a0}', " "), labels, "{axis:?}");
        }
        for high in [f64::MAX, 1e300, 1e-300] {
            let axis = Axis::around(0.0, high, MetricUnit::Plain);
            assert!((1..=10).contains(&axis.parts), "{axis:?}");
        }
    }

    fn event(kind: &str, text: &str, at: Wall) -> EventView {
        EventView {
            id: text.into(),
            at,
            level: Level::Critical,
            host: Some("web1".into()),
            subject: String::new(),
            kind: kind.into(),
            text: text.into(),
            details: Vec::new(),
            told: Vec::new(),
            held_by: Vec::new(),
            trouble: None,
            reminder: false,
            reminded: None,
        }
    }

    #[test]
    fn a_graph_shows_limits_windows_and_the_events_of_its_own_metric() {
        let now = Wall(1_795_219_200_000);
        let hour = Duration::from_secs(3600);
        let host = HostView::named("web1");
        let point = |at, mean| PointView { at, mean, least: mean - 1.0, most: mean + 1.0 };
        let points = vec![point(now - 12 * hour, 50.0), point(now - 6 * hour, f32::NAN)];
        let series = SeriesView { path: "cpu_monitor.cpu_percent".into(), step: hour, points };
        let series = Ok(series);
        let page = GraphPage {
            host: &host,
            path: "cpu_monitor.cpu_percent",
            span: TimeRange::Day,
            series: &series,
            limits: &[(Level::Warning, "> 80.0".into())],
            windows: &[now - 2 * hour..now - hour],
            events: &[
                event("overdue", "web1 ipv4 overdue", now - 6 * hour),
                event("threshold", "CRITICAL: web1 - cpu_monitor.cpu_percent = 95.5", now - hour),
                event("threshold", "CRITICAL: web1 - memory_monitor.percent = 95.5", now - hour),
            ],
            now,
        };
        let mut html = Html::default();
        page.render(&mut html);
        let drawn = html.as_str();
        for wanted in [
            "<path class=\"t warn\" d=\"M0 60H1000\"/>",
            "<path class=w d=\"M917 0H958V300H917Z\"><title>maintenance",
            "<path class=\"e bad\" d=\"M750 0V300\"><title>web1 ipv4 overdue</title></path>",
            "<tr data-x=\"500\"><th scope=row>",
            "<td class=n>49\u{a0}%<td class=n>50\u{a0}%<td class=n>51\u{a0}%",
            "<a href=\"/hosts/web1/graph?metric=cpu_monitor.cpu_percent&amp;span=7d\">7 days</a>",
            "warning &gt; 80.0",
        ] {
            assert!(drawn.contains(wanted), "{wanted}: {drawn}");
        }
        assert_eq!(drawn.matches("<tr data-x").count(), 1, "what is no number is not drawn");
        assert!(!drawn.contains("memory"), "{drawn}");
    }
}
