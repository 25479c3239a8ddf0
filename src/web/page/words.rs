//! How the page words times, shares and metrics: short, and steady between two refreshes. Pure.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::event::decimal;

/// How long ago, to its largest unit: what is shown must not change with every second.
pub fn ago(age: Duration) -> String {
    match age.as_secs() {
        0..=14 => "just now".into(),
        15..=59 => "under\u{a0}1\u{a0}min ago".into(),
        _ => format!("{} ago", about(age)),
    }
}

/// A duration by its largest unit, rounded down: `under 1 min`, `3 min`, `5 h`, `12 d`.
pub fn about(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => {
            if seconds == 0 {
                "0 s".into()
            } else {
                "under\u{a0}1\u{a0}min".into()
            }
        }
        seconds @ 60..3_600 => format!("{}\u{a0}min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}\u{a0}h", seconds / 3_600),
        seconds => format!("{}\u{a0}d", seconds / 86_400),
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

/// A metric's path in few words: `disk_monitor.root.percent` is `disk root`, in percent.
pub fn metric(path: &str) -> (String, &'static str) {
    let mut parts: Vec<String> = path.split('.').map(|part| part.replace('_', " ")).collect();
    let Some(first) = parts.first_mut() else { return (String::new(), "") };
    let monitor = first.strip_suffix(" monitor").map(str::to_owned);
    // What does not come from the agent keeps its name.
    let Some(monitor) = monitor else { return (path.to_owned(), "") };
    *first = monitor;
    let last = parts.pop().unwrap_or_default();
    let (word, unit) = match last.strip_suffix("percent") {
        Some(rest) => (rest.trim_end(), "\u{a0}%"),
        None => (last.as_str(), ""),
    };
    let word = if word == "per core" { "" } else { word };
    if !word.is_empty() && parts.last().is_none_or(|part| part != word) {
        parts.push(word.to_owned());
    }
    (parts.join(" "), unit)
}

/// A metric's value as people read it: three digits that count are enough to see where it stands.
pub struct Rounded(pub f64);

impl Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
        let size = self.0.abs();
        if !size.is_finite() || size >= 1e15 || (size > 0.0 && size < 0.001) {
            return write!(f, "{:e}", self.0);
        }
        if let Some((from, unit)) = UNITS.iter().find(|(from, _)| size >= *from) {
            let scale = if *from < 1e6 { 1e3 } else { *from };
            return write!(f, "{}\u{a0}{unit}", short(self.0 / scale));
        }
        f.write_str(&short(self.0))
    }
}

fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The number in a limit such as `> 90.0`.
pub fn limit(text: &str) -> Option<f64> {
    text.rsplit(' ').next()?.parse().ok()
}

/// A value exactly, as messages print it.
pub fn exact(value: f64) -> String {
    decimal(value)
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

    #[test]
    fn metrics_have_short_names() {
        for (path, name, unit) in [
            ("cpu_monitor.cpu_percent", "cpu", "\u{a0}%"),
            ("cpu_monitor.iowait_percent", "cpu iowait", "\u{a0}%"),
            ("memory_monitor.percent", "memory", "\u{a0}%"),
            ("disk_monitor.root.percent", "disk root", "\u{a0}%"),
            ("disk_monitor.root.inodes_percent", "disk root inodes", "\u{a0}%"),
            ("systemd_monitor.failed_units", "systemd failed units", ""),
            ("load_monitor.per_core", "load", ""),
            ("queue.length", "queue.length", ""),
            ("", "", ""),
        ] {
            assert_eq!(metric(path), (name.to_owned(), unit), "{path}");
        }
    }

    #[test]
    fn values_are_rounded_to_what_counts() {
        for (value, text) in [
            (0.0, "0"),
            (95.25, "95.2"),
            (97.0, "97"),
            (0.123, "0.12"),
            (1234.6, "1235"),
            (123_456.0, "123\u{a0}k"),
            (-2_500_000.0, "-2.5\u{a0}M"),
            (1e-9, "1e-9"),
            (1e300, "1e300"),
            (100.0, "100"),
        ] {
            assert_eq!(Rounded(value).to_string(), text, "{value}");
        }
        assert_eq!(limit("> 90.0"), Some(90.0));
    }
}
