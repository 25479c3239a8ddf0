//! A metric over time, as a small drawing: a line for the mean, a band from the least to the
//! greatest, gaps where nothing was heard. Pure.

use std::time::Duration;

use super::html::Html;
use super::words::Rounded;
use crate::clock::Wall;
use crate::view::{PointView, SeriesView};

/// The drawing, in its own units.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 48.0;

/// A stretch of time to draw.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Where it begins.
    pub from: Wall,
    /// Where it ends.
    pub to: Wall,
}

impl Window {
    fn x(&self, at: Wall) -> f64 {
        let whole = self.to.since(self.from).as_secs_f64().max(1.0);
        (at.since(self.from).as_secs_f64() / whole).min(1.0) * WIDTH
    }
}

/// The least, the mean and the greatest of all points; none without any.
pub fn summary(points: &[PointView]) -> Option<(f64, f64, f64)> {
    let least = points.iter().map(|point| f64::from(point.least)).reduce(f64::min)?;
    let most = points.iter().map(|point| f64::from(point.most)).reduce(f64::max)?;
    let sum: f64 = points.iter().map(|point| f64::from(point.mean)).sum();
    Some((least, sum / points.len() as f64, most))
}

/// Draws a series, and the limit where that lies within what is drawn.
pub fn spark(html: &mut Html, series: &SeriesView, window: Window, limit: Option<f64>) {
    let points: Vec<PointView> =
        series.points.iter().filter(|point| finite(point)).copied().collect();
    let Some((least, mean, most)) = summary(&points) else {
        html.markup("<span class=i>nothing recorded</span>");
        return;
    };
    let frame = Frame::around(least, most, limit, window, series.step);
    let (low, middle, high) = (Rounded(least), Rounded(mean), Rounded(most));
    html.markup("<svg class=k preserveAspectRatio=none viewBox=\"0 0 320 48\" role=img");
    html.attribute("aria-label", format_args!("from {low} to {high}, {middle} on average"));
    html.markup("><path class=r").attribute("d", frame.band(&points));
    html.markup("/><path class=n").attribute("d", frame.line(&points)).markup("/>");
    if let Some(y) = limit.map(|limit| frame.y(limit)) {
        html.markup("<path class=t").attribute("d", format_args!("M0 {y:.0}H320")).markup("/>");
    }
    html.markup("</svg>");
}

fn finite(point: &PointView) -> bool {
    point.least.is_finite() && point.mean.is_finite() && point.most.is_finite()
}

struct Frame {
    bottom: f64,
    top: f64,
    window: Window,
    step: Duration,
}

impl Frame {
    /// The limit belongs into the picture when the values come near it, else they would be a line
    /// at the bottom.
    fn around(least: f64, most: f64, limit: Option<f64>, window: Window, step: Duration) -> Frame {
        let near = |limit: &f64| (limit - most).abs() <= (most - least).max(most.abs() * 0.5);
        let limit = limit.filter(near);
        let mut bottom = limit.map_or(least, |limit| least.min(limit));
        let top = limit.map_or(most, |limit| most.max(limit));
        if bottom > 0.0 && bottom < top * 0.6 {
            bottom = 0.0;
        }
        let spare = ((top - bottom) * 0.08).max(top.abs() * 0.01).max(1e-9);
        Frame { bottom: bottom - spare, top: top + spare, window, step }
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - (value - self.bottom) / (self.top - self.bottom) * HEIGHT
    }

    /// Points without a gap between them.
    fn runs<'a>(&self, points: &'a [PointView]) -> impl Iterator<Item = &'a [PointView]> {
        let gap = self.step + self.step / 2;
        points.chunk_by(move |a, b| b.at.since(a.at) <= gap)
    }

    fn line(&self, points: &[PointView]) -> String {
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

    fn band(&self, points: &[PointView]) -> String {
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
        let (x, y) = (self.window.x(at), self.y(f64::from(value)));
        path.push_str(&format!("{letter}{x:.0} {y:.0}"));
    }
}
