//! Since when an alert fires, in whatever form its sender gives the time. Pure.
//!
//! What leaves a doubt about the moment is not read: the alert fires, and counts from its arrival.

use std::time::Duration;

use serde_json::Value;

use crate::clock::{Wall, parse_rfc3339};

/// 2000-01-01: an alert that fires since before is one whose time was never set.
const EARLIEST: Wall = Wall(946_684_800_000);
/// How far ahead of ours the clock of a sender may be.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);
/// Numbers from 2001 to 2096 as Unix seconds, and as multiples of these: milliseconds, microseconds,
/// nanoseconds. No number is within two of these ranges.
const UNIX_SECONDS: std::ops::Range<f64> = 1e9..4e9;
const UNIX_UNITS: [f64; 4] = [1.0, 1e3, 1e6, 1e9];
/// The digits of a fraction that are read.
const MAX_FRACTION: usize = 9;

/// Reads the value of `startsAt`: RFC 3339, its relatives of ISO 8601 (a space, `+0000`, a comma), or
/// Unix time. None when it is missing, names no zone, or cannot be the start of an alert.
pub fn read(value: Option<&Value>, now: Wall) -> Option<Wall> {
    let start = match value? {
        Value::String(text) => read_text(text.trim()),
        Value::Number(number) => number.as_f64().and_then(read_unix),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    start.filter(|start| (EARLIEST..=now + MAX_AHEAD).contains(start))
}

fn read_text(text: &str) -> Option<Wall> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return read_unix(text.parse().ok()?);
    }
    let (date, rest) = text.split_at_checked("2026-11-21".len())?;
    let rest = rest.strip_prefix(['T', 't', ' ', '_'])?.trim_start();
    let is_zone = |letter: char| !letter.is_ascii_digit() && !matches!(letter, ':' | '.' | ',');
    let (time, zone) = rest.split_at(rest.find(is_zone)?);
    let (clock, fraction) = time.split_once(['.', ',']).unwrap_or((time, "0"));
    let fraction = fraction.get(..MAX_FRACTION).unwrap_or(fraction);
    let seconds = if clock.len() == "20:12".len() { ":00" } else { "" };
    let zone = offset(zone.trim())?;
    parse_rfc3339(&format!("{date}T{clock}{seconds}.{fraction}{zone}")).ok()
}

fn read_unix(number: f64) -> Option<Wall> {
    let unit = UNIX_UNITS.into_iter().find(|unit| UNIX_SECONDS.contains(&(number / unit)))?;
    Some(Wall((number / unit * 1000.0).round() as i64))
}

/// An offset as RFC 3339 has it, of `Z`, `UTC`, `+01`, `+0100`, `+01:00`, `+0100 CET`.
fn offset(zone: &str) -> Option<String> {
    let mut parts = zone.split_whitespace();
    let offset = parts.next()?;
    let name = parts.next().unwrap_or_default();
    if parts.next().is_some() || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    if ["Z", "UTC", "GMT"].iter().any(|zone| zone.eq_ignore_ascii_case(offset)) {
        return name.is_empty().then(|| "Z".into());
    }
    let sign = offset.chars().next().filter(|sign| matches!(sign, '+' | '-'))?;
    let digits = offset[1..].replacen(':', "", 1);
    match digits.as_bytes() {
        [b'0'..=b'9', b'0'..=b'9'] => Some(format!("{sign}{digits}:00")),
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
            Some(format!("{sign}{}:{}", &digits[..2], &digits[2..]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// 2026-11-22, the day after.
    const NOW: Wall = Wall(1_795_305_600_000);
    /// 2026-11-21T20:12:11Z
    const START: i64 = 1_795_291_931_000;

    #[test]
    fn a_start_that_leaves_no_doubt_is_read() {
        for (value, millis) in [
            (json!("2026-11-21T20:12:11Z"), 0),
            (json!("2026-11-21t20:12:11z"), 0),
            (json!(" 2026-11-21 20:12:11Z\n"), 0),
            (json!("2026-11-21 20:12:11 UTC"), 0),
            (json!("2026-11-21T20:12Z"), -11_000),
            (json!("2026-11-21T20:12:11.5Z"), 500),
            (json!("2026-11-21T20:12:11,503+0000"), 503),
            (json!("2026-11-21T20:12:11.123456789Z"), 123),
            (json!("2026-11-21T20:12:11.123456789012Z"), 123),
            (json!("2026-11-21T21:12:11+01:00"), 0),
            (json!("2026-11-21T21:12:11+0100"), 0),
            (json!("2026-11-21T21:12:11+01"), 0),
            (json!("2026-11-21T14:42:11-0530"), 0),
            (json!("2026-11-21 20:12:11.503 +0000 UTC"), 503),
            (json!("2026-11-21 21:12:11 +0100 CET"), 0),
            (json!(1_795_291_931), 0),
            (json!(1_795_291_931.5), 500),
            (json!("1795291931"), 0),
            (json!("1795291931.25"), 250),
            (json!(1_795_291_931_503_i64), 503),
            (json!("1795291931503"), 503),
            (json!(1_795_291_931_503_000_i64), 503),
            (json!(1_795_291_931_000_000_000_i64), 0),
        ] {
            let read = read(Some(&value), NOW).map(|start| start.0 - START);
            assert_eq!(read, Some(millis), "{value}");
        }
    }

    #[test]
    fn a_start_that_leaves_a_doubt_was_taken_for_last_night() {
        for value in [
            json!(null),
            json!(""),
            json!("0001-01-01T00:00:00Z"),
            json!("1970-01-01T00:00:00Z"),
            json!("1999-12-31T23:59:59Z"),
            json!("2026-11-21T20:12:11"),
            json!("2026-11-21 20:12:11.503"),
            json!("2026-11-21T20:12:11 00:00"),
            json!("2026-11-21T20:12:11 CET"),
            json!("2026-11-21T20:12:11+1"),
            json!("2026-11-21T20:12:11+01:00:00"),
            json!("2026-11-21T20:12:11Z CET"),
            json!("2026-11-21"),
            json!("2026-13-21T20:12:11Z"),
            json!("21.11.2026 20:12:11Z"),
            json!("20261121201211"),
            json!("yesterday"),
            json!("ööööööööööö"),
            json!("2099-01-01T00:00:00Z"),
            json!(0),
            json!(-1),
            json!(20_261_121),
            json!(1e300),
            json!("1.2.3"),
            json!(true),
            json!(["2026-11-21T20:12:11Z"]),
            json!({"seconds": 1_795_291_931}),
        ] {
            assert_eq!(read(Some(&value), NOW), None, "{value}");
        }
        assert_eq!(read(None, NOW), None);
    }

    proptest! {
        #[test]
        fn no_start_is_a_crash(text in "[0-9tTzZUC:.,+ ö_-]{0,40}", number in any::<f64>()) {
            let _ = read(Some(&json!(text)), NOW);
            let _ = read(Some(&json!(number)), NOW);
            let _ = read(Some(&json!(format!("2026-11-21T{text}"))), NOW);
        }
    }
}
