//! How a host fared, as a row of bars: the worse, the taller. Pure.

use super::html::Html;
use crate::view::UptimeSlice;

/// What a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Up,
    Degraded,
    Down,
    Blind,
}

/// In the order in which they are drawn: what is worse covers what is better.
const CONDITIONS: [(Condition, &str, &str); 4] = [
    (Condition::Up, "<path class=u d=\"", "up"),
    (Condition::Degraded, "<path class=g d=\"", "degraded"),
    (Condition::Down, "<path class=x d=\"", "down"),
    (Condition::Blind, "<path class=o d=\"", "blind"),
];

/// The worst that happened in a slice, and blind where the daemon saw less than half of it.
fn condition(slice: &UptimeSlice) -> Option<Condition> {
    let seen = slice.up + slice.degraded + slice.down;
    if !slice.down.is_zero() {
        Some(Condition::Down)
    } else if !slice.blind.is_zero() && slice.blind >= seen {
        Some(Condition::Blind)
    } else if !slice.degraded.is_zero() {
        Some(Condition::Degraded)
    } else if !slice.up.is_zero() {
        Some(Condition::Up)
    } else {
        None
    }
}

/// How wide a bar is, with the gap behind it, and what one stands for.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// In units of the drawing.
    step: usize,
    begin: &'static str,
    /// `24 hours`.
    pub span: &'static str,
}

/// The last day.
pub const HOURS: Scale = Scale { step: 4, begin: "<svg class=\"b h\"", span: "24 hours" };
/// The last 90 days.
pub const DAYS: Scale = Scale { step: 2, begin: "<svg class=b", span: "90 days" };

/// Draws the slices. One path for each condition, and in it one stroke for each run of slices:
/// there may be two hundred of these drawings on a page.
pub fn bars(html: &mut Html, slices: &[UptimeSlice], scale: Scale) {
    let found: Vec<Option<Condition>> = slices.iter().map(condition).collect();
    html.markup(scale.begin);
    html.attribute("viewBox", format_args!("0 0 {} 14", slices.len() * scale.step));
    html.markup(" preserveAspectRatio=none role=img");
    html.attribute("aria-label", spoken(&found, scale.span)).markup(">");
    for (condition, begin, _) in CONDITIONS {
        let strokes = strokes(&found, condition, scale.step);
        if !strokes.is_empty() {
            html.markup(begin).text(strokes).markup("\"/>");
        }
    }
    html.markup("</svg>");
}

fn strokes(found: &[Option<Condition>], wanted: Condition, step: usize) -> String {
    // Whatever is worse than up covers it: there the stroke may go on.
    let drawn = |condition: &Option<Condition>| match (wanted, condition) {
        (Condition::Up, Some(found)) => *found != Condition::Blind,
        (wanted, found) => *found == Some(wanted),
    };
    let mut path = String::new();
    let mut at = 0;
    for run in found.chunk_by(|a, b| drawn(a) == drawn(b)) {
        if drawn(&run[0]) && (wanted != Condition::Up || run.contains(&Some(Condition::Up))) {
            path.push_str(&format!("M{} 7h{}", at * step, run.len() * step));
        }
        at += run.len();
    }
    path
}

/// `24 hours: 22 up, 1 down, 1 blind`.
fn spoken(found: &[Option<Condition>], span: &str) -> String {
    let parts = CONDITIONS.iter().filter_map(|(condition, _, word)| {
        let count = found.iter().filter(|found| **found == Some(*condition)).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let parts: Vec<String> = parts.collect();
    let parts = if parts.is_empty() { "nothing known".into() } else { parts.join(", ") };
    format!("{span}: {parts}")
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
            (slice(60, 0, 0, 0), Some(Condition::Up)),
            (slice(59, 1, 0, 0), Some(Condition::Degraded)),
            (slice(58, 1, 1, 0), Some(Condition::Down)),
            (slice(59, 0, 0, 1), Some(Condition::Up)),
            (slice(20, 0, 0, 40), Some(Condition::Blind)),
            (slice(0, 0, 0, 60), Some(Condition::Blind)),
            (slice(0, 0, 1, 59), Some(Condition::Down)),
        ] {
            assert_eq!(condition(&slice), expected, "{slice:?}");
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
    }
}
