//! Formats of times, shares and metrics on the page: short, and steady between two refreshes. Pure.

use std::time::Duration;

pub use crate::clock::about;
use crate::event::metric::measured;
pub use crate::event::metric::{
    MetricUnit, RoundedNumber, limit_number as limit, metric_name as metric,
};

/// How long ago, to its largest unit: what is shown must not change with every second.
pub fn ago(age: Duration) -> String {
    match age.as_secs() {
        0..=14 => "just now".into(),
        15..=59 => "under\u{a0}1\u{a0}min ago".into(),
        _ => format!("{} ago", about(age)),
    }
}

/// `3 hosts`, `1 host`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A share as a percentage. It is 100 only when nothing is missing.
pub fn percent(share: f64) -> String {
    let percent = share.clamp(0.0, 1.0) * 100.0;
    if percent >= 100.0 {
        return "100 %".into();
    }
    let (scale, decimals) = if percent >= 99.0 { (100.0, 2) } else { (10.0, 1) };
    format!("{:.decimals$} %", (percent * scale).floor() / scale)
}

/// A value as messages print it.
pub fn exact(value: f64) -> String {
    measured(value, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_change_seldom() {
        for (seconds, text) in [
            (0, "just now"),
            (14, "just now"),
            (59, "under 1 min ago"),
            (60, "1 min ago"),
            (3_599, "59 min ago"),
            (7_200, "2 h ago"),
            (172_800, "2 d ago"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)).replace('\u{a0}', " "), text);
        }
    }

    #[test]
    fn only_all_of_it_is_100_percent() {
        for (share, text) in [
            (1.0, "100 %"),
            (0.99999, "99.99 %"),
            (0.98999, "98.9 %"),
            (0.0, "0.0 %"),
            (f64::NAN, "NaN %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
