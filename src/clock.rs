//! Two clocks: the wall clock for people and other machines, a monotonic one for deadlines.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z. It may jump.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub i64);

/// Milliseconds on a clock that never jumps and that goes on while the machine sleeps
/// (`CLOCK_BOOTTIME`, clock_gettime(2)). Its zero is the boot of the kernel; times that were
/// translated from an earlier boot are negative.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mono(pub i64);

/// One reading of both clocks. Time is read at the edges and passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Mono,
    /// For people, and to compare with times of other machines.
    pub wall: Wall,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        Now { mono: boottime(), wall: SystemTime::now().into() }
    }

    /// The same moment, `by` later on both clocks.
    #[must_use]
    pub fn later(self, by: Duration) -> Now {
        Now { mono: self.mono + by, wall: self.wall + by }
    }
}

fn boottime() -> Mono {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and CLOCK_BOOTTIME exists since Linux 2.6.39.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    assert_eq!(result, 0, "CLOCK_BOOTTIME exists on every supported kernel");
    #[allow(clippy::unnecessary_cast, reason = "both fields are 32 bits wide on some targets")]
    Mono(time.tv_sec as i64 * 1000 + time.tv_nsec as i64 / 1_000_000)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

macro_rules! moment {
    ($name:ident) => {
        impl Add<Duration> for $name {
            type Output = $name;
            fn add(self, by: Duration) -> $name {
                $name(self.0.saturating_add(millis(by)))
            }
        }

        impl Sub<Duration> for $name {
            type Output = $name;
            fn sub(self, by: Duration) -> $name {
                $name(self.0.saturating_sub(millis(by)))
            }
        }

        impl $name {
            /// How long it is since `earlier`; zero when that is not earlier.
            pub fn since(self, earlier: $name) -> Duration {
                Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
            }
        }
    };
}
moment!(Wall);
moment!(Mono);

/// 2024-01-01: a wall clock that shows less was never set.
const EARLIEST: Wall = Wall(1_704_067_200_000);

impl Wall {
    /// Whether the clock that shows this can have been set: a machine without a battery begins in
    /// 1970.
    pub fn is_plausible(self) -> bool {
        self >= EARLIEST
    }
}

impl From<SystemTime> for Wall {
    fn from(time: SystemTime) -> Wall {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Wall(millis(after)),
            Err(before) => Wall(-millis(before.duration())),
        }
    }
}

/// RFC 3339, UTC, with milliseconds: `2026-11-21T20:12:08.667Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // humantime formats the years 1970 to 9999 only.
        let millis = u64::try_from(self.0).unwrap_or(0).min(253_402_300_799_999);
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        write!(f, "{}", humantime::format_rfc3339_millis(time))
    }
}

/// The zone in which people read times; none is UTC.
static LOCAL_ZONE: RwLock<Option<TimeZone>> = RwLock::new(None);

/// Reads which zone this machine is in (`TZ`, `/etc/localtime`): from now on [`Wall::local`] shows
/// times in that, before in UTC. UTC when it is not known. To be called at the start and at a reload,
/// on the main thread: reading the file of a zone takes much of a stack.
pub fn read_local_zone() {
    let zone = TimeZone::try_system().ok();
    *LOCAL_ZONE.write().unwrap_or_else(PoisonError::into_inner) = zone;
}

/// The zone of this machine as it was read last; UTC before.
pub fn local_zone() -> TimeZone {
    let zone = LOCAL_ZONE.read().unwrap_or_else(PoisonError::into_inner).clone();
    zone.unwrap_or(TimeZone::UTC)
}

/// A time as people read it, with [`Wall::local`].
#[derive(Clone, Copy, Debug)]
pub struct LocalTime(Wall);

impl Wall {
    /// This time in the zone of this machine, which is named: `2026-11-21 21:12:08 CET`.
    pub fn local(self) -> LocalTime {
        LocalTime(self)
    }

    /// The nearest that the library of time zones can represent.
    pub fn timestamp(self) -> Timestamp {
        let limit = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_millisecond(self.0).unwrap_or(limit)
    }

    /// This time in a zone.
    pub fn in_zone(self, zone: TimeZone) -> Zoned {
        Zoned::new(self.timestamp(), zone)
    }

    /// To the second, and with the zone: `2026-11-21 21:12:08 CET`.
    pub fn second_in(self, zone: TimeZone) -> String {
        self.in_zone(zone).strftime("%F %T %Z").to_string()
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0.second_in(local_zone()))
    }
}

/// Why a text is no [`Wall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// It is a time before 1970, where `Wall` begins.
    TooEarly,
    /// It is no time, or one without an offset.
    Malformed,
}

/// Reads a time by RFC 3339, with up to nine digits of a fraction, as `Z` or with any offset. To
/// the millisecond.
///
/// # Errors
/// What is wrong with it.
pub fn parse_rfc3339(text: &str) -> Result<Wall, TimeError> {
    let upper = text.to_ascii_uppercase();
    let (local, offset) = match upper.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let at = upper.len().checked_sub("+00:00".len()).ok_or(TimeError::Malformed)?;
            let (local, offset) = upper.split_at_checked(at).ok_or(TimeError::Malformed)?;
            (local, offset_seconds(offset).ok_or(TimeError::Malformed)?)
        }
    };
    match humantime::parse_rfc3339_weak(local) {
        Ok(time) => Ok(Wall(Wall::from(time).0 - offset * 1000)),
        Err(humantime::TimestampError::OutOfRange) if local < "1970" => Err(TimeError::TooEarly),
        Err(_) => Err(TimeError::Malformed),
    }
}

/// `+01:30` in seconds.
fn offset_seconds(offset: &str) -> Option<i64> {
    let sign = match offset.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let two_digits = |text: &str, max: i64| -> Option<i64> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number <= max)
    };
    Some(sign * (two_digits(hours, 23)? * 3600 + two_digits(minutes, 59)? * 60))
}

/// A duration for people, to its two largest units: `3 h 5 min`, `42 s`, `200 ms`.
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let Some(first) = UNITS.iter().position(|(size, _)| rest >= *size) else {
        return "0 s".into();
    };
    let mut parts = Vec::new();
    for (size, unit) in UNITS.iter().skip(first).take(if first == 3 { 1 } else { 2 }) {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        }
    }
    parts.join(" ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_worded_by_their_two_largest_units() {
        for (millis, text) in [
            (0, "0 s"),
            (200, "200 ms"),
            (42_900, "42 s"),
            (65_000, "1 min 5 s"),
            (11_100_000, "3 h 5 min"),
            (86_400_000, "1 d"),
            (90_061_000, "1 d 1 h"),
        ] {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn the_wall_clock_prints_as_rfc_3339() {
        assert_eq!(Wall(1_795_291_928_667).to_string(), "2026-11-21T20:12:08.667Z");
        assert_eq!(Wall(-5).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn people_read_a_time_in_their_zone_and_see_which_it_is() {
        // No test sets the zone of the process, which all of them share.
        assert_eq!(Wall(1_795_291_928_667).local().to_string(), "2026-11-21 20:12:08 UTC");
        for at in [i64::MIN, -1, i64::MAX] {
            assert!(Wall(at).local().to_string().ends_with(" UTC"), "{at}");
        }
    }

    #[test]
    fn times_are_read_with_any_offset() {
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Ok(1_000)),
            ("1970-01-01t00:00:01.123456789z", Ok(1_123)),
            ("1970-01-01T02:00:01+02:00", Ok(1_000)),
            ("1970-01-01T00:00:01-05:30", Ok(19_801_000)),
            ("0001-01-01T00:00:00Z", Err(TimeError::TooEarly)),
            ("2026-13-01T00:00:00Z", Err(TimeError::Malformed)),
            ("1970-01-01T00:00:01", Err(TimeError::Malformed)),
            ("1970-01-01T00:00:01+2:00", Err(TimeError::Malformed)),
            ("yesterday", Err(TimeError::Malformed)),
            ("\u{f6}", Err(TimeError::Malformed)),
            ("", Err(TimeError::Malformed)),
        ] {
            assert_eq!(parse_rfc3339(text), expected.map(Wall), "{text}");
        }
    }

    #[test]
    fn the_monotonic_clock_goes_forward() {
        let first = Now::read();
        let second = Now::read();
        assert!(second.mono >= first.mono);
    }
}
