//! Durations as operators write them: `500ms`, `30s`, `5m`, `1h30m`, `1d`, `2w`, or bare seconds. Pure.

use std::time::Duration;

const UNITS: [(&str, f64); 7] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("min", 60.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
];

/// A hundred years: more is a typing error, and far from where arithmetic overflows.
const MAX_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// Parses a duration; its parts may be fractional and separated by spaces. The error says what is
/// expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("must be a duration, such as 30s, 5m or 1h30m, not \"{text}\"");
    let mut rest = text.trim();
    let mut seconds = match leading_number(rest) {
        Some((value, "")) => return plausible(value).ok_or_else(expected),
        Some(_) => 0.0,
        None => return Err(expected()),
    };
    while !rest.is_empty() {
        let (value, after) = leading_number(rest).ok_or_else(expected)?;
        let name = after.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(expected)?;
        seconds += value * unit;
        rest = after[name.len()..].trim_start();
    }
    plausible(seconds).ok_or_else(expected)
}

/// The number that `text` begins with, and what follows it.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

fn plausible(seconds: f64) -> Option<Duration> {
    if seconds > MAX_SECONDS {
        return None;
    }
    let nanos = Duration::try_from_secs_f64(seconds).ok()?;
    // 0.3 s and the like: what was meant are milliseconds, not the nearest binary fraction.
    Some(Duration::from_micros(u64::try_from((nanos.as_nanos() + 500) / 1000).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_write_is_understood() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("0", 0),
            ("0.25", 250),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            (" 0.3s ", 300),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "s", "-5s", "5 parsecs", "1h30", "1e3", "5m-", "1..2s", "inf", "99999999d", "+3s"]
        {
            assert!(parse(text).unwrap_err().starts_with("must be a duration"), "{text}");
        }
    }
}
