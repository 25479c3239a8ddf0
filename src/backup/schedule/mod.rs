//! When a backup plan runs: its systemd calendar expression (systemd.time(7), "Calendar Events") in
//! a time zone, the moments at which it elapses, and when a run should be over. Pure.

mod calendar;
mod zones;

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Dst};

use self::calendar::Calendar;
pub use self::zones::{ZONE_READER_STACK, Zone, Zones};
use crate::clock::Wall;

/// A run may always take this long.
const MIN_RUN_TIME: Duration = Duration::from_secs(600);

/// A run of whose usual time little is known may take a part of the interval, and no more than this.
const MAX_USUAL_SLACK: Duration = Duration::from_secs(6 * 3600);

/// A plan of which some module never ran may take three quarters of the interval, and no more than
/// this: the first full backup.
pub const MAX_FIRST_RUN_TIME: Duration = Duration::from_secs(18 * 3600);

/// By more the clocks are not put back.
const MAX_CLOCK_CHANGE: Duration = Duration::from_secs(86_400);

/// How many matches that do not elapse are skipped, such as those in an hour that the clocks skip.
const MAX_SKIPPED: usize = 10_000;

/// A calendar expression and its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    calendar: Calendar,
    zone: Zone,
    /// For `03:00 CEST` where that is the local zone in summer: systemd finds no elapse across a
    /// change of the clocks, nor in the other half of the year.
    daylight_saving: Option<Dst>,
}

impl Schedule {
    /// Reads a calendar expression as systemd does; none when it is not understood.
    pub fn parse(text: &str, zones: &Zones) -> Option<Schedule> {
        let text = text.trim();
        let (rest, zone, daylight_saving) = split_zone(text, zones);
        let rest = rest.to_ascii_lowercase();
        if let Some(seconds) = rest.strip_prefix('@') {
            let seconds: i64 = seconds.parse().ok().filter(|seconds| *seconds >= 0)?;
            let at = Wall(seconds.checked_mul(1000)?);
            let calendar = Calendar::at(Zone::default().civil_time(at));
            return Some(Schedule { calendar, zone: Zone::default(), daylight_saving: None });
        }
        let calendar = Calendar::parse(&rest).filter(|_| !rest.is_empty())?;
        Some(Schedule { calendar, zone, daylight_saving })
    }

    /// The first elapse after a moment; none when there is no more.
    pub fn next_elapse(&self, after: Wall) -> Option<Wall> {
        if !self.is_in_season(after) {
            return None;
        }
        let mut civil = self.zone.civil_time(after);
        for _ in 0..MAX_SKIPPED {
            civil = self.calendar.next_after(civil)?;
            if let Some(at) = self.moment(civil, after).filter(|at| *at > after) {
                return Some(at).filter(|at| self.is_in_season(*at));
            }
        }
        None
    }

    /// The last elapse at a moment or before it; none when there was none.
    pub fn latest_elapse(&self, until: Wall) -> Option<Wall> {
        let mut civil = self.calendar.last_until(self.latest_shown(until))?;
        for _ in 0..MAX_SKIPPED {
            // Of those that the clocks show twice the first.
            let moment = self.moment(civil, Wall(i64::MIN)).filter(|at| *at <= until);
            if let Some(at) = moment.filter(|at| self.is_in_season(*at)) {
                return Some(at);
            }
            let before = civil.checked_sub(jiff::SignedDuration::from_micros(1)).ok()?;
            civil = self.calendar.last_until(before)?;
        }
        None
    }

    /// The latest civil time that the clocks have shown until a moment: when they were put back just
    /// before it, more than they show now.
    fn latest_shown(&self, until: Wall) -> DateTime {
        let shown = self.zone.civil_time(until);
        let change = self.zone.rules().preceding(until.timestamp()).next();
        let change = change.map(|change| Wall(change.timestamp().as_millisecond()));
        let recent = change.filter(|change| until.since(*change) < MAX_CLOCK_CHANGE);
        recent.map_or(shown, |change| shown.max(self.zone.civil_time(Wall(change.0 - 1))))
    }

    /// The moment of a civil time: none when the clocks skip it; when they show it twice the first,
    /// unless we are in the second already.
    fn moment(&self, civil: DateTime, near: Wall) -> Option<Wall> {
        let ambiguous = self.zone.rules().to_ambiguous_timestamp(civil);
        let wall = |at: jiff::Timestamp| Wall(at.as_millisecond());
        match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => None,
            AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok().map(wall),
            AmbiguousOffset::Fold { .. } => {
                let (first, second) = (ambiguous.earlier().ok()?, ambiguous.later().ok()?);
                let (first, second) = (wall(first), wall(second));
                let in_second = near > first && self.zone.civil_time(near) < civil;
                Some(if in_second { second } else { first })
            }
        }
    }

    fn is_in_season(&self, at: Wall) -> bool {
        self.daylight_saving
            .is_none_or(|wanted| self.zone.rules().to_offset_info(at.timestamp()).dst() == wanted)
    }
}

/// The expression without the time zone at its end, and that zone.
fn split_zone<'a>(text: &'a str, zones: &Zones) -> (&'a str, Zone, Option<Dst>) {
    let local = || zones.local().clone();
    let Some((rest, name)) = text.rsplit_once(' ') else { return (text, local(), None) };
    if name.eq_ignore_ascii_case("UTC") {
        return (rest, Zone::default(), None);
    }
    if let Some(dst) = local_abbreviation(zones.local(), name) {
        return (rest, local(), Some(dst));
    }
    match zones.get(name) {
        Some(zone) => (rest, zone, None),
        None => (text, local(), None),
    }
}

/// Whether a name is what the local zone is called in winter or in summer.
fn local_abbreviation(zone: &Zone, name: &str) -> Option<Dst> {
    // 15 January and 15 July 2030.
    [1_894_665_600_000, 1_910_304_000_000].into_iter().find_map(|at| {
        let info = zone.rules().to_offset_info(Wall(at).timestamp());
        info.abbreviation().eq_ignore_ascii_case(name).then(|| info.dst())
    })
}

/// When a run that began at `elapse` should be over, as the usual duration of a whole run and the
/// time to the next one have it. None: some module never ran, so that is not known.
pub fn regular_end(elapse: Wall, usual_duration: Option<Duration>, interval: Duration) -> Wall {
    let run_time = match usual_duration {
        Some(usual) => usual.saturating_mul(2).max((interval / 4).min(MAX_USUAL_SLACK)),
        None => (interval * 3 / 4).min(MAX_FIRST_RUN_TIME),
    };
    elapse + run_time.min(interval).max(MIN_RUN_TIME)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::parse_rfc3339;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn rome() -> Zones {
        Zones::with_local("Europe/Rome").unwrap()
    }

    #[test]
    fn the_elapses_around_a_moment_are_found_in_the_local_zone() {
        for (schedule, now, latest, next) in [
            ("03:00", "2026-11-30T01:59:59Z", "2026-11-29T02:00:00Z", "2026-11-30T02:00:00Z"),
            ("03:00", "2026-11-30T02:00:00Z", "2026-11-30T02:00:00Z", "2026-12-01T02:00:00Z"),
            ("03:00 UTC", "2026-11-30T02:00:00Z", "2026-11-29T03:00:00Z", "2026-11-30T03:00:00Z"),
            (
                "Mon..Fri 03:00",
                "2026-11-29T12:00:00Z",
                "2026-11-27T02:00:00Z",
                "2026-11-30T02:00:00Z",
            ),
            (
                "*-*~01 03:00",
                "2026-03-01T12:00:00Z",
                "2026-02-28T02:00:00Z",
                "2026-03-31T01:00:00Z",
            ),
            ("biannually", "2026-11-30T12:00:00Z", "2026-06-30T22:00:00Z", "2026-12-31T23:00:00Z"),
            // The clocks skip 02:30, and show it twice.
            ("02:30", "2026-03-29T12:00:00Z", "2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"),
            ("02:30", "2026-10-25T01:45:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            let at = |text: &str| Some(parse_rfc3339(text).unwrap());
            let now = at(now).unwrap();
            let parsed = Schedule::parse(schedule, &rome()).unwrap();
            let found = (parsed.latest_elapse(now), parsed.next_elapse(now));
            assert_eq!(found, (at(latest), at(next)), "{schedule} {now}");
        }
    }

    #[test]
    fn an_elapse_was_overlooked_while_the_clocks_showed_its_hour_again() {
        for (schedule, now, latest) in [
            ("02:30", "2026-10-25T00:29:00Z", "2026-10-24T00:30:00Z"),
            ("02:30", "2026-10-25T00:31:00Z", "2026-10-25T00:30:00Z"),
            ("02:30", "2026-10-25T01:10:00Z", "2026-10-25T00:30:00Z"),
            ("02:30", "2026-10-25T02:10:00Z", "2026-10-25T00:30:00Z"),
            ("01:30", "2026-10-25T01:10:00Z", "2026-10-24T23:30:00Z"),
            ("03:00", "2026-10-25T01:59:00Z", "2026-10-24T01:00:00Z"),
            ("03:00", "2026-10-25T02:00:00Z", "2026-10-25T02:00:00Z"),
        ] {
            let at = |text: &str| parse_rfc3339(text).unwrap();
            let found = Schedule::parse(schedule, &rome()).unwrap().latest_elapse(at(now));
            assert_eq!(found, Some(at(latest)), "{schedule} {now}");
        }
    }

    #[test]
    fn a_pass_has_its_regular_time() {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        for (usual, interval, expected) in [
            (Some(minutes(20)), DAY, 6 * HOUR),
            (Some(4 * HOUR), DAY, 8 * HOUR),
            (Some(20 * HOUR), DAY, DAY),
            (Some(minutes(20)), 7 * DAY, 6 * HOUR),
            (Some(minutes(50)), HOUR, HOUR),
            (Some(minutes(2)), HOUR, minutes(15)),
            (Some(minutes(1)), minutes(5), minutes(10)),
            (None, DAY, 18 * HOUR),
            (None, 7 * DAY, 18 * HOUR),
            (None, HOUR, minutes(45)),
            (Some(Duration::MAX), DAY, DAY),
        ] {
            let end = regular_end(Wall(0), usual, interval);
            assert_eq!(end, Wall(0) + expected, "{usual:?} {interval:?}");
        }
    }

    proptest! {
        #[test]
        fn no_schedule_is_a_crash(
            text in r"[*0-9a-zA-Z.,:/~@ -]{0,30}",
            valid in r"(mon|tue|sat,sun)? ?\*-[1-9]{1,2}[~-][0-9]{1,2}(/[1-9])? [0-9]:[0-9]{1,2}(:[0-9.]{1,9})?( CEST)?",
            now in any::<i64>(),
        ) {
            for text in [text, valid] {
                if let Some(schedule) = Schedule::parse(&text, &rome()) {
                    for now in [Wall(now), Wall(now % 7_000_000_000_000)] {
                        prop_assert!(schedule.next_elapse(now).is_none_or(|next| next > now));
                        prop_assert!(schedule.latest_elapse(now).is_none_or(|last| last <= now));
                    }
                }
            }
        }
    }
}
