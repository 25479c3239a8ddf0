//! Formats of times, shares and metrics on the page: short, and steady between two refreshes. Pure.

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
        0..60 => "under\u{a0}1\u{a0}min".into(),
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

/// What a metric counts, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricUnit {
    /// Nothing in particular.
    Plain,
    /// Percent.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Seconds.
    Seconds,
}

const UNITS: [(&str, MetricUnit); 4] = [
    ("percent", MetricUnit::Percent),
    ("bytes", MetricUnit::Bytes),
    ("bytes per second", MetricUnit::BytesPerSecond),
    ("seconds", MetricUnit::Seconds),
];

impl MetricUnit {
    /// A value in this unit.
    pub fn of(self, value: f64) -> String {
        let rounded = RoundedNumber(value).to_string();
        let prefixed = |unit: &str| {
            let gap =
                if rounded.ends_with(|last: char| last.is_ascii_digit()) { "\u{a0}" } else { "" };
            format!("{rounded}{gap}{unit}")
        };
        match self {
            MetricUnit::Plain => rounded,
            MetricUnit::Percent => format!("{rounded}\u{a0}%"),
            MetricUnit::Bytes => prefixed("B"),
            MetricUnit::BytesPerSecond => prefixed("B/s"),
            MetricUnit::Seconds if value >= 60.0 => {
                Duration::try_from_secs_f64(value).map_or(rounded, about)
            }
            MetricUnit::Seconds => format!("{rounded}\u{a0}s"),
        }
    }
}

/// A metric's path in few words: `disk_monitor.root.percent` is `disk root`, in percent.
pub fn metric(path: &str) -> (String, MetricUnit) {
    let mut parts: Vec<String> = path.split('.').map(|part| part.replace('_', " ")).collect();
    let monitor = parts[0].strip_suffix(" monitor").map(str::to_owned);
    // What does not come from the agent keeps its name.
    let Some(monitor) = monitor else { return (path.to_owned(), MetricUnit::Plain) };
    parts[0] = monitor;
    let last = if parts.len() > 1 { parts.pop().unwrap_or_default() } else { String::new() };
    let found = UNITS.iter().find_map(|(end, unit)| Some((last.strip_suffix(end)?, *unit)));
    let (word, unit) = found.unwrap_or((&last, MetricUnit::Plain));
    let word = if word == "per core" { "" } else { word.trim_end() };
    if !word.is_empty() && parts.last().is_none_or(|part| part != word) {
        parts.push(word.to_owned());
    }
    (parts.join(" "), unit)
}

/// A metric's value as people read it: three digits that count are enough to see where it stands.
pub struct RoundedNumber(pub f64);

impl Display for RoundedNumber {
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
            ("cpu_monitor.cpu_percent", "cpu", MetricUnit::Percent),
            ("cpu_monitor.iowait_percent", "cpu iowait", MetricUnit::Percent),
            ("memory_monitor.percent", "memory", MetricUnit::Percent),
            ("disk_monitor.root.percent", "disk root", MetricUnit::Percent),
            ("disk_monitor.root.inodes_percent", "disk root inodes", MetricUnit::Percent),
            ("disk_monitor.root.free_bytes", "disk root free", MetricUnit::Bytes),
            (
                "network_monitor.eth0.rx_bytes_per_second",
                "network eth0 rx",
                MetricUnit::BytesPerSecond,
            ),
            ("uptime_monitor.seconds", "uptime", MetricUnit::Seconds),
            ("systemd_monitor.failed_units", "systemd failed units", MetricUnit::Plain),
            ("load_monitor.per_core", "load", MetricUnit::Plain),
            ("load_monitor.load1", "load load1", MetricUnit::Plain),
            ("a_monitor", "a", MetricUnit::Plain),
            ("queue.length", "queue.length", MetricUnit::Plain),
            ("", "", MetricUnit::Plain),
        ] {
            assert_eq!(metric(path), (name.to_owned(), unit), "{path}");
        }
    }

    #[test]
    fn values_have_their_unit() {
        for (unit, value, text) in [
            (MetricUnit::Plain, 3.0, "3"),
            (MetricUnit::Percent, 95.25, "95.2 %"),
            (MetricUnit::Bytes, 512.0, "512 B"),
            (MetricUnit::Bytes, 123.4e9, "123 GB"),
            (MetricUnit::BytesPerSecond, 12_345.0, "12.3 kB/s"),
            (MetricUnit::Seconds, 7.5, "7.5 s"),
            (MetricUnit::Seconds, 200_000.0, "2 d"),
            (MetricUnit::Seconds, f64::INFINITY, "inf"),
            (MetricUnit::Seconds, -5.0, "-5 s"),
        ] {
            assert_eq!(unit.of(value).replace('\u{a0}', " "), text);
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
            assert_eq!(RoundedNumber(value).to_string(), text, "{value}");
        }
        assert_eq!(limit("> 90.0"), Some(90.0));
    }
}
