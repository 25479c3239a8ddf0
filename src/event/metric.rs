//! Metrics in words, as messages and the page have them: names, units, values beside their limits. Pure.

use std::fmt::{self, Display};
use std::time::Duration;

use super::message::decimal;
use crate::clock::{about, format_duration};

/// A measured value with one or two decimals: `95.0`, `92.93`. Where that would stand otherwise to its
/// `limit` than the value does, it has as many more as it takes: 90.004 is above 90.0.
pub fn measured(value: f64, limit: Option<f64>) -> String {
    const USUAL_DECIMALS: usize = 2;
    const MAX_DECIMALS: usize = 20;
    for decimals in USUAL_DECIMALS..=MAX_DECIMALS {
        let text = format!("{value:.decimals$}");
        let rounded: f64 = text.parse().unwrap_or(value);
        if limit.is_none_or(|limit| rounded.partial_cmp(&limit) == value.partial_cmp(&limit)) {
            // No minus before a zero.
            return if rounded == 0.0 { decimal(0.0) } else { shortened(&text) };
        }
    }
    decimal(value)
}

/// Whether three digits may not tell one from the other.
fn is_near(value: f64, limit: f64) -> bool {
    (value - limit).abs() <= limit.abs() * 0.005
}

/// Without the zeros at its end, but for one decimal.
fn shortened(number: &str) -> String {
    let Some((whole, decimals)) = number.split_once('.') else { return number.to_owned() };
    let decimals = decimals.trim_end_matches('0');
    format!("{whole}.{}", if decimals.is_empty() { "0" } else { decimals })
}

/// A metric with its value and the limit of a message, such as `> 90.0`, in words:
/// `cpu 92.93 % (limit: above 90.0 %)`. Where there is no limit, without that.
pub fn in_words(path: &str, value: f64, limit: &str) -> String {
    let (name, unit) = metric_name(path);
    let Some(number) = limit_number(limit) else {
        return format!("{name} {}", unit.worded(value, measured(value, None)));
    };
    let beyond = unit.worded(number, decimal(number));
    let shown = measured(value, Some(number));
    let mut worded = unit.worded(value, shown.clone());
    if value != number && (worded == beyond || is_near(value, number)) {
        worded = unit.beside(shown);
    }
    let operator = match limit.split(' ').next().unwrap_or_default() {
        ">" => "above",
        ">=" => "at least",
        "<" => "below",
        "<=" => "at most",
        "!=" => "anything but",
        _ => "exactly",
    };
    format!("{name} {worded} (limit: {operator} {beyond})")
}

/// What the text is that travels beside a metric.
pub fn text_label(path: &str) -> &'static str {
    if path.ends_with(".failed_units") {
        "failed units"
    } else if path.starts_with("job_monitor.") {
        "last words"
    } else {
        "it says"
    }
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

    /// A value in this unit beside a limit, which it must not look like unless it is the same.
    pub fn beside_limit(self, value: f64, limit: Option<f64>) -> String {
        match limit.filter(|limit| self.look_alike(value, *limit)) {
            Some(limit) => self.beside(measured(value, Some(limit))).replace(' ', "\u{a0}"),
            None => self.of(value),
        }
    }

    /// Whether two values may look the same in this unit, rounded to three digits, and are not.
    fn look_alike(self, value: f64, limit: f64) -> bool {
        value != limit && (is_near(value, limit) || self.of(value) == self.of(limit))
    }

    /// A value whose number is given, in words.
    fn worded(self, value: f64, number: String) -> String {
        match self {
            MetricUnit::Seconds if value >= 60.0 => match Duration::try_from_secs_f64(value) {
                Ok(time) => format_duration(time),
                Err(_) => self.beside(number),
            },
            MetricUnit::Bytes | MetricUnit::BytesPerSecond if (1.0..1e15).contains(&value) => {
                self.of(value).replace('\u{a0}', " ")
            }
            _ => self.beside(number),
        }
    }

    /// A number with the unit behind it.
    fn beside(self, number: String) -> String {
        match self {
            MetricUnit::Plain => number,
            MetricUnit::Percent => number + " %",
            MetricUnit::Bytes => number + " B",
            MetricUnit::BytesPerSecond => number + " B/s",
            MetricUnit::Seconds => number + " s",
        }
    }
}

/// A metric's path in few words: `disk_monitor.root.percent` is `disk root`, in percent.
pub fn metric_name(path: &str) -> (String, MetricUnit) {
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
pub fn limit_number(text: &str) -> Option<f64> {
    text.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_number_has_one_or_two_decimals_and_no_exponent() {
        for (value, text) in [
            (92.925_633_668_899_54, "92.93"),
            (95.0, "95.0"),
            (95.2, "95.2"),
            (0.1 + 0.2, "0.3"),
            (-0.001, "0.0"),
            (-7.255, "-7.25"),
            (1e15, "1000000000000000.0"),
            (5e-324, "0.0"),
            (123_456_789.987, "123456789.99"),
        ] {
            assert_eq!(measured(value, None), text);
        }
        assert!(!measured(f64::MAX, None).contains('e'));
    }

    #[test]
    fn a_rounded_number_contradicted_its_limit() {
        for (value, limit, text) in [
            (90.004, 90.0, "90.004"),
            (90.0, 90.0, "90.0"),
            (89.999, 90.0, "89.999"),
            (90.006, 90.0, "90.01"),
            (79.999_999_9, 80.0, "79.9999999"),
            (0.001, 0.0, "0.001"),
            (-0.000_1, 0.0, "-0.0001"),
            (0.004_9, 0.005, "0.0"),
            (0.005_1, 0.005, "0.01"),
            (92.925, 90.0, "92.92"),
            (5e-324, 0.0, "0.0"),
        ] {
            let shown = measured(value, Some(limit));
            if value != 5e-324 {
                assert_eq!(shown, text, "{value} beside {limit}");
            }
            let read: f64 = shown.parse().unwrap();
            assert_eq!(
                read.partial_cmp(&limit),
                value.partial_cmp(&limit),
                "{shown} beside {limit}"
            );
        }
    }

    #[test]
    fn a_metric_is_told_in_words() {
        for (path, value, limit, words) in [
            ("cpu_monitor.cpu_percent", 92.926, "> 90.0", "cpu 92.93 % (limit: above 90.0 %)"),
            ("memory_monitor.percent", 90.004, "> 90.0", "memory 90.004 % (limit: above 90.0 %)"),
            ("load_monitor.per_core", 4.0, ">= 4.0", "load 4.0 (limit: at least 4.0)"),
            (
                "disk_monitor.root.free_bytes",
                999_999_999.0,
                "< 1000000000.0",
                "disk root free 999999999.0 B (limit: below 1 GB)",
            ),
            (
                "disk_monitor.root.free_bytes",
                123.4e6,
                "< 1000000000.0",
                "disk root free 123 MB (limit: below 1 GB)",
            ),
            (
                "job_monitor.backup.seconds",
                303.25,
                "> 300.0",
                "job backup 5 min 3 s (limit: above 5 min)",
            ),
            (
                "job_monitor.backup.exit_code",
                2.0,
                "!= 0.0",
                "job backup exit code 2.0 (limit: anything but 0.0)",
            ),
            ("queue.length", 7.0, "", "queue.length 7.0"),
            ("queue.length", 7.0, "== 7.0", "queue.length 7.0 (limit: exactly 7.0)"),
        ] {
            assert_eq!(in_words(path, value, limit), words);
        }
        let beside = |value| MetricUnit::Percent.beside_limit(value, Some(90.0));
        assert_eq!(
            [beside(90.0), beside(90.004), beside(92.926)].map(|text| text.replace('\u{a0}', " ")),
            ["90 %", "90.004 %", "92.9 %"]
        );
        for (path, label) in [
            ("systemd_monitor.failed_units", "failed units"),
            ("job_monitor.backup.exit_code", "last words"),
            ("own_monitor.check_disk.exit_code", "it says"),
        ] {
            assert_eq!(text_label(path), label);
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
            assert_eq!(metric_name(path), (name.to_owned(), unit), "{path}");
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
        assert_eq!(limit_number("> 90.0"), Some(90.0));
    }
}
