//! Charts (SVG): availability as a row of bars, and a metric over time as a small line. Pure.

use std::time::Duration;

use super::format::RoundedNumber;
use super::html::Html;
use crate::clock::Wall;
use crate::view::{PointView, SeriesView, UptimeSlice};

/// What a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BarState {
    Up,
    Degraded,
    Down,
    Blind,
}

/// In the order in which they are drawn: what is worse covers what is better.
const BAR_STATES: [(BarState, &str, &str); 4] = [
    (BarState::Up, "<path class=u d=\"", "up"),
    (BarState::Degraded, "<path class=g d=\"", "degraded"),
    (BarState::Down, "<path class=x d=\"", "down"),
    (BarState::Blind, "<path class=o d=\"", "blind"),
];

/// The worst that happened in a slice, and blind where the daemon saw less than half of it.
fn bar_state(slice: &UptimeSlice) -> Option<BarState> {
    let seen = slice.up + slice.degraded + slice.down;
    if !slice.down.is_zero() {
        Some(BarState::Down)
    } else if !slice.blind.is_zero() && slice.blind >= seen {
        Some(BarState::Blind)
    } else if !slice.degraded.is_zero() {
        Some(BarState::Degraded)
    } else if !slice.up.is_zero() {
        Some(BarState::Up)
    } else {
        None
    }
}

/// How wide a bar is, with the gap behind it, and what one stands for.
#[derive(Clone, Copy, Debug)]
pub struct BarScale {
    /// In units of the drawing.
    step: usize,
    begin: &'static str,
    /// `24 hours`.
    pub span: &'static str,
}

/// The last day.
pub const HOURS: BarScale = BarScale { step: 4, begin: "<svg class=\"b h\"", span: "24 hours" };
/// The last 90 days.
pub const DAYS: BarScale = BarScale { step: 2, begin: "<svg class=b", span: "90 days" };

/// Which hour it is, counted from 1970: that of the last bar, for the script, which has the reader's clock.
pub fn hour(now: Wall) -> i64 {
    now.0.div_euclid(3_600_000)
}

/// Draws the slices. One path for each condition, and in it one stroke for each run of slices:
/// there may be four hundred of these drawings on a page. The script of the page reads the condition
/// of a slice off these paths. Below slices that were in a maintenance window, one line more.
pub fn bars(html: &mut Html, slices: &[UptimeSlice], scale: BarScale) {
    let found: Vec<Option<BarState>> = slices.iter().map(bar_state).collect();
    html.markup(scale.begin);
    html.attribute("viewBox", format_args!("0 0 {} 14", slices.len() * scale.step));
    html.markup(" preserveAspectRatio=none role=img");
    html.attribute("aria-label", describe(&found, scale.span, slices)).markup(">");
    for (bar_state, begin, _) in BAR_STATES {
        let strokes = strokes(&found, bar_state, scale.step);
        if !strokes.is_empty() {
            html.markup(begin).text(strokes).markup("\"/>");
        }
    }
    let (mut lines, mut at) = (String::new(), 0);
    for run in slices.chunk_by(|a, b| a.maintained == b.maintained) {
        if run[0].maintained {
            lines.push_str(&format!("M{} 13h{}", at * scale.step, run.len() * scale.step));
        }
        at += run.len();
    }
    if !lines.is_empty() {
        html.markup("<path class=q d=\"").text(lines).markup("\"/>");
    }
    html.markup("</svg>");
}

fn strokes(found: &[Option<BarState>], wanted: BarState, step: usize) -> String {
    // Whatever is worse than up covers it: there the stroke may go on.
    let drawn = |bar_state: &Option<BarState>| match (wanted, bar_state) {
        (BarState::Up, Some(found)) => *found != BarState::Blind,
        (wanted, found) => *found == Some(wanted),
    };
    let mut path = String::new();
    let mut at = 0;
    for run in found.chunk_by(|a, b| drawn(a) == drawn(b)) {
        if drawn(&run[0]) && (wanted != BarState::Up || run.contains(&Some(BarState::Up))) {
            path.push_str(&format!("M{} 7h{}", at * step, run.len() * step));
        }
        at += run.len();
    }
    path
}

/// `24 hours: 22 up, 1 down, 1 blind`.
fn describe(found: &[Option<BarState>], span: &str, slices: &[UptimeSlice]) -> String {
    let parts = BAR_STATES.iter().filter_map(|(bar_state, _, word)| {
        let count = found.iter().filter(|found| **found == Some(*bar_state)).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let maintained = slices.iter().filter(|slice| slice.maintained).count();
    let maintained = (maintained > 0).then(|| format!("{maintained} in a window"));
    let parts: Vec<String> = parts.chain(maintained).collect();
    let parts = if parts.is_empty() { "nothing known".into() } else { parts.join(", ") };
    format!("{span}: {parts}")
}

/// A stretch of time to draw.
#[derive(Clone, Copy, Debug)]
pub struct ChartWindow {
    /// Where it begins.
    pub from: Wall,
    /// Where it ends.
    pub to: Wall,
}

impl ChartWindow {
    /// Where a moment lies in it, from 0 to 1.
    pub fn share(&self, at: Wall) -> f64 {
        let whole = self.to.since(self.from).as_secs_f64().max(1.0);
        (at.since(self.from).as_secs_f64() / whole).min(1.0)
    }
}

/// The least, the mean and the greatest of all points; none without any.
pub fn min_mean_max(points: &[PointView]) -> Option<(f64, f64, f64)> {
    let least = points.iter().map(|point| f64::from(point.least)).reduce(f64::min)?;
    let most = points.iter().map(|point| f64::from(point.most)).reduce(f64::max)?;
    let sum: f64 = points.iter().map(|point| f64::from(point.mean)).sum();
    Some((least, sum / points.len() as f64, most))
}

/// Draws a series, and the limit where that lies within what is drawn.
pub fn sparkline(html: &mut Html, series: &SeriesView, window: ChartWindow, limit: Option<f64>) {
    let points: Vec<PointView> =
        series.points.iter().filter(|point| finite(point)).copied().collect();
    let Some((least, mean, most)) = min_mean_max(&points) else {
        html.markup("<span class=i>nothing recorded</span>");
        return;
    };
    let (bottom, top) = range(least, most, limit);
    let plot = Plot { bottom, top, window, step: series.step, width: 320.0, height: 48.0 };
    let (low, middle, high) = (RoundedNumber(least), RoundedNumber(mean), RoundedNumber(most));
    html.markup("<svg class=k preserveAspectRatio=none viewBox=\"0 0 320 48\" role=img");
    html.attribute("aria-label", format_args!("from {low} to {high}, {middle} on average"));
    html.markup("><path class=r").attribute("d", plot.band(&points));
    html.markup("/><path class=n").attribute("d", plot.line(&points)).markup("/>");
    if let Some(y) = limit.map(|limit| plot.y(limit)) {
        html.markup("<path class=t").attribute("d", format_args!("M0 {y:.0}H320")).markup("/>");
    }
    html.markup("</svg>");
}

/// Whether a point can be drawn.
pub fn finite(point: &PointView) -> bool {
    point.least.is_finite() && point.mean.is_finite() && point.most.is_finite()
}

/// What the picture reaches from and to.
fn range(least: f64, most: f64, limit: Option<f64>) -> (f64, f64) {
    let limit = limit.filter(|limit| is_near(*limit, least, most));
    let mut bottom = limit.map_or(least, |limit| least.min(limit));
    let top = limit.map_or(most, |limit| most.max(limit));
    if bottom > 0.0 && bottom < top * 0.6 {
        bottom = 0.0;
    }
    let spare = ((top - bottom) * 0.08).max(top.abs() * 0.01).max(1e-9);
    (bottom - spare, top + spare)
}

/// A limit belongs into the picture when the values come near it, else they would be a line at the
/// bottom.
pub fn is_near(limit: f64, least: f64, most: f64) -> bool {
    (limit - most).abs() <= (most - least).max(most.abs() * 0.5)
}

/// A drawing of points over time.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// The value at its bottom.
    pub bottom: f64,
    /// The value at its top.
    pub top: f64,
    /// The time.
    pub window: ChartWindow,
    /// How long a point stands for.
    pub step: Duration,
    /// In units of the drawing.
    pub width: f64,
    /// In units of the drawing.
    pub height: f64,
}

impl Plot {
    /// Where a value lies.
    pub fn y(&self, value: f64) -> f64 {
        self.height - (value - self.bottom) / (self.top - self.bottom) * self.height
    }

    /// Where a moment lies.
    pub fn x(&self, at: Wall) -> f64 {
        self.window.share(at) * self.width
    }

    /// Points without a gap between them.
    fn runs<'a>(&self, points: &'a [PointView]) -> impl Iterator<Item = &'a [PointView]> {
        let gap = self.step + self.step / 2;
        points.chunk_by(move |a, b| b.at.since(a.at) <= gap)
    }

    /// The means, as a path.
    pub fn line(&self, points: &[PointView]) -> String {
        let mut path = String::new();
        for run in self.runs(points) {
            let mut letter = 'M';
            for point in run {
                self.push(&mut path, letter, point.at, point.mean);
                letter = 'L';
            }
            self.push(&mut path, 'L', run[run.len() - 1].at + self.step, run[run.len() - 1].mean);
        }
        path
    }

    /// What lies between the least and the greatest values, as a path.
    pub fn band(&self, points: &[PointView]) -> String {
        let mut path = String::new();
        for run in self.runs(points) {
            let last = run[run.len() - 1];
            let mut letter = 'M';
            for point in run {
                self.push(&mut path, letter, point.at, point.most);
                letter = 'L';
            }
            self.push(&mut path, 'L', last.at + self.step, last.most);
            self.push(&mut path, 'L', last.at + self.step, last.least);
            for point in run.iter().rev() {
                self.push(&mut path, 'L', point.at, point.least);
            }
            path.push('Z');
        }
        path
    }

    fn push(&self, path: &mut String, letter: char, at: Wall, value: f32) {
        let (x, y) = (self.x(at), self.y(f64::from(value)));
        path.push_str(&format!("{letter}{x:.0} {y:.0}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn slice(up: u64, degraded: u64, down: u64, blind: u64) -> UptimeSlice {
        let seconds = Duration::from_secs;
        UptimeSlice {
            up: seconds(up),
            degraded: seconds(degraded),
            down: seconds(down),
            blind: seconds(blind),
            ..UptimeSlice::default()
        }
    }

    #[test]
    fn a_bar_shows_the_worst_and_does_not_guess_what_was_not_seen() {
        for (slice, expected) in [
            (slice(0, 0, 0, 0), None),
            (slice(60, 0, 0, 0), Some(BarState::Up)),
            (slice(59, 1, 0, 0), Some(BarState::Degraded)),
            (slice(58, 1, 1, 0), Some(BarState::Down)),
            (slice(59, 0, 0, 1), Some(BarState::Up)),
            (slice(20, 0, 0, 40), Some(BarState::Blind)),
            (slice(0, 0, 0, 60), Some(BarState::Blind)),
            (slice(0, 0, 1, 59), Some(BarState::Down)),
        ] {
            assert_eq!(bar_state(&slice), expected, "{slice:?}");
        }
    }

    #[test]
    fn runs_of_slices_are_one_stroke_and_have_words() {
        let day = [slice(0, 0, 0, 0), slice(1, 0, 0, 0), slice(1, 0, 0, 0), slice(0, 0, 1, 0)];
        let mut html = Html::default();
        bars(&mut html, &day, HOURS);
        assert_eq!(
            html.as_str(),
            "<svg class=\"b h\" viewBox=\"0 0 16 14\" preserveAspectRatio=none role=img \
             aria-label=\"24 hours: 2 up, 1 down\"><path class=u d=\"M4 7h12\"/>\
             <path class=x d=\"M12 7h4\"/></svg>"
        );
        let mut html = Html::default();
        bars(&mut html, &[UptimeSlice::default()], DAYS);
        assert!(html.as_str().contains("90 days: nothing known"));
        let mut html = Html::default();
        let maintained = [false, true, true, false, true];
        let with_windows = maintained.map(|maintained| UptimeSlice { maintained, ..day[1] });
        bars(&mut html, &with_windows, HOURS);
        let drawn = html.as_str();
        assert!(drawn.contains("5 up, 3 in a window"), "{drawn}");
        assert!(drawn.contains("<path class=q d=\"M4 13h8M16 13h4\"/>"), "{drawn}");
    }
}
