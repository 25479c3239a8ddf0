//! The times of day at which the daily summary is sent, and whether one is due. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, civil};

use crate::btree::InsertAll;
use crate::clock::Wall;

/// A summary that could not be sent in time, since hbd did not run, is sent up to this late.
pub const MAX_LATE: Duration = Duration::from_secs(6 * 3600);
/// A last summary from further in the future is not believed: the clock was wrong. A day, which may
/// have 25 hours, so that no clock that is set back makes two summaries of one day.
const MAX_AHEAD: Duration = Duration::from_secs(26 * 3600);
/// The longest wait: the wall clock may jump, and the time zone change, meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A time of day by the local clock, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    hour: i8,
    minute: i8,
}

impl TimeOfDay {
    /// Reads `08:00` or `8:00`.
    pub fn parse(text: &str) -> Option<TimeOfDay> {
        let (hour, minute) = text.trim().split_once(':')?;
        let number = |text: &str, max: i8| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && text.len() <= 2 && *number <= max)
        };
        let minute = number(minute, 59).filter(|_| minute.len() == 2)?;
        Some(TimeOfDay { hour: number(hour, 23)?, minute })
    }

    /// When it is this time on a day. A time that a change of the clock leaves out is that much
    /// later, and of one that comes twice it is the first: each day has it once.
    fn on(self, day: civil::Date, zone: &TimeZone) -> Option<Wall> {
        let at = zone.to_timestamp(day.at(self.hour, self.minute, 0, 0)).ok()?;
        Some(Wall(at.as_millisecond()))
    }
}

/// `08:00`.
impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// What is to be done about the summary now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SummaryStep {
    /// Send one.
    Send,
    /// Nothing; ask again after this time.
    Wait(Duration),
    /// What is known of the last one is from a clock that was wrong: go on as if it was sent now.
    Rebase,
}

/// What is to be done at `now` about a summary at these `times`, of which none is owed from before
/// `since`: when the last one was sent, or the times were configured.
pub fn step(times: &BTreeSet<TimeOfDay>, since: Wall, now: Wall, zone: &TimeZone) -> SummaryStep {
    if !now.is_plausible() {
        return SummaryStep::Wait(MAX_WAIT);
    }
    if since > now + MAX_AHEAD {
        return SummaryStep::Rebase;
    }
    let moments = moments_around(times, now, zone);
    let latest = moments.iter().copied().filter(|moment| *moment <= now).max();
    if latest.is_some_and(|moment| moment > since && now.since(moment) <= MAX_LATE) {
        return SummaryStep::Send;
    }
    let next = moments.into_iter().find(|moment| *moment > now);
    SummaryStep::Wait(next.map_or(MAX_WAIT, |next| next.since(now).min(MAX_WAIT)))
}

/// The moments of these times, in order, on the days around `now`.
fn moments_around(times: &BTreeSet<TimeOfDay>, now: Wall, zone: &TimeZone) -> BTreeSet<Wall> {
    let Ok(now) = Timestamp::from_millisecond(now.0) else { return BTreeSet::new() };
    let today = zone.to_datetime(now).date();
    (-1..=2)
        .filter_map(|offset: i64| today.checked_add(offset.days()).ok())
        .flat_map(|day| times.iter().filter_map(move |time| time.on(day, zone)))
        .insert_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("the package tzdata is there")
    }

    fn times(texts: &[&str]) -> BTreeSet<TimeOfDay> {
        texts.iter().map(|text| TimeOfDay::parse(text).unwrap()).collect()
    }

    fn wall(local: &str, zone: &TimeZone) -> Wall {
        let time: civil::DateTime = local.parse().unwrap();
        Wall(zone.to_timestamp(time).unwrap().as_millisecond())
    }

    /// hbd on a clock that is moved by hand.
    struct Play {
        times: BTreeSet<TimeOfDay>,
        zone: TimeZone,
        since: Wall,
        now: Wall,
        sent: Vec<String>,
    }

    impl Play {
        fn new(texts: &[&str], name: &str, local: &str) -> Play {
            let zone = zone(name);
            let now = wall(local, &zone);
            Play { times: times(texts), zone, since: now, now, sent: Vec::new() }
        }

        fn look(&mut self) -> Duration {
            match step(&self.times, self.since, self.now, &self.zone) {
                SummaryStep::Send => {
                    let at = Timestamp::from_millisecond(self.now.0).unwrap();
                    self.sent.push(self.zone.to_datetime(at).strftime("%d %H:%M").to_string());
                    self.since = self.now;
                    Duration::ZERO
                }
                SummaryStep::Rebase => {
                    self.since = self.now;
                    Duration::ZERO
                }
                SummaryStep::Wait(wait) => {
                    assert!(!wait.is_zero() && wait <= MAX_WAIT);
                    wait
                }
            }
        }

        /// hbd runs for this time.
        fn run(&mut self, time: Duration) -> &mut Play {
            let until = self.now + time;
            while self.now <= until {
                let wait = self.look();
                self.now = self.now + wait;
            }
            self.now = until;
            self
        }

        /// The clock is set, or hbd does not run until then.
        fn jump_to(&mut self, local: &str) -> &mut Play {
            self.now = wall(local, &self.zone);
            self
        }

        fn sent(&mut self) -> Vec<String> {
            std::mem::take(&mut self.sent)
        }
    }

    #[test]
    fn times_of_day_are_read_as_people_write_them() {
        for (text, read) in [
            ("08:00", Some("08:00")),
            ("8:05", Some("08:05")),
            (" 23:59 ", Some("23:59")),
            ("00:00", Some("00:00")),
            ("24:00", None),
            ("08:60", None),
            ("8:5", None),
            ("08:00:00", None),
            ("480", None),
            ("+8:00", None),
            (":00", None),
            ("8am", None),
            ("08:00 UTC", None),
            ("", None),
        ] {
            let time = TimeOfDay::parse(text).map(|time| time.to_string());
            assert_eq!(time.as_deref(), read, "{text}");
        }
    }

    #[test]
    fn every_day_has_one_summary() {
        let mut play = Play::new(&["08:00"], "Europe/Rome", "2026-11-01T12:00");
        assert_eq!(play.run(3 * DAY).sent(), ["02 08:00", "03 08:00", "04 08:00"]);
        let mut play = Play::new(&["08:00", "20:00"], "UTC", "2026-11-01T12:00");
        assert_eq!(play.run(DAY).sent(), ["01 20:00", "02 08:00"]);
    }

    #[test]
    fn the_days_of_a_change_of_the_clock_have_one_summary_each() {
        for (time, days) in [
            // The clock goes from 02:00 to 03:00 on 29 March, from 03:00 to 02:00 on 25 October.
            ("02:30", ["28 02:30", "29 03:30", "30 02:30"]),
            ("02:00", ["28 02:00", "29 03:00", "30 02:00"]),
            ("03:00", ["28 03:00", "29 03:00", "30 03:00"]),
        ] {
            let mut play = Play::new(&[time], "Europe/Rome", "2026-03-27T12:00");
            assert_eq!(play.run(3 * DAY).sent(), days, "{time}");
        }
        for (time, days) in [
            ("02:30", ["24 02:30", "25 02:30", "26 02:30"]),
            ("02:00", ["24 02:00", "25 02:00", "26 02:00"]),
            ("03:00", ["24 03:00", "25 03:00", "26 03:00"]),
        ] {
            let mut play = Play::new(&[time], "Europe/Rome", "2026-10-23T12:00");
            assert_eq!(play.run(3 * DAY).sent(), days, "{time}");
        }
        let mut both = Play::new(&["02:30", "03:30"], "Europe/Rome", "2026-03-28T12:00");
        assert_eq!(both.run(DAY).sent(), ["29 03:30"], "the same moment is told of once");
        // At midnight there, the clock goes from 00:00 to 01:00 (April) and back (October).
        let mut midnight = Play::new(&["00:00"], "Africa/Cairo", "2026-04-22T12:00");
        assert_eq!(midnight.run(3 * DAY).sent(), ["23 00:00", "24 01:00", "25 00:00"]);
        let mut twice = Play::new(&["23:30"], "Africa/Cairo", "2026-10-28T12:00");
        assert_eq!(twice.run(3 * DAY).sent(), ["28 23:30", "29 23:30", "30 23:30"]);
    }

    #[test]
    fn a_day_that_a_country_leaves_out_has_no_summary_of_its_own() {
        let mut play = Play::new(&["08:00"], "Pacific/Apia", "2011-12-29T12:00");
        // Such an old clock was never set.
        assert_eq!(play.look(), MAX_WAIT);
        let moments = moments_around(&play.times, play.now, &play.zone);
        assert_eq!(moments.len(), 3, "{moments:?}");
    }

    #[test]
    fn what_was_missed_is_sent_at_the_start_unless_it_is_old() {
        let mut play = Play::new(&["08:00"], "Europe/Rome", "2026-11-01T12:00");
        play.run(HOUR).jump_to("2026-11-02T13:59").run(MINUTE / 2);
        assert_eq!(play.sent(), ["02 13:59"]);
        assert_eq!(play.run(DAY).sent(), ["03 08:00"], "and no other that day");
        play.jump_to("2026-11-07T14:01").run(HOUR);
        assert_eq!(play.sent(), [""; 0], "nor are those of whole days caught up with");
        assert_eq!(play.run(DAY).sent(), ["08 08:00"]);
    }

    #[test]
    fn a_restart_or_a_clock_that_is_set_back_made_no_second_one() {
        let mut play = Play::new(&["08:00"], "Europe/Rome", "2026-11-01T12:00");
        assert_eq!(play.run(20 * HOUR).sent(), ["02 08:00"]);
        for back in ["2026-11-02T07:59:59", "2026-11-02T06:00", "2026-11-01T09:00"] {
            play.jump_to(back);
            assert_eq!(play.run(HOUR / 2).sent(), [""; 0], "{back}");
        }
        play.jump_to("2026-11-02T07:00");
        assert_eq!(play.run(DAY + 2 * HOUR).sent(), ["03 08:00"]);
    }

    #[test]
    fn a_clock_that_was_years_ahead_did_not_end_the_summaries() {
        let mut play = Play::new(&["08:00"], "Europe/Rome", "2026-11-01T12:00");
        play.jump_to("2031-05-05T09:00").run(HOUR);
        assert_eq!(play.sent(), ["05 09:00"]);
        play.jump_to("2026-11-01T13:00");
        assert_eq!(play.run(2 * DAY).sent(), ["02 08:00", "03 08:00"]);
    }

    #[test]
    fn a_clock_that_was_never_set_says_nothing() {
        let mut play = Play::new(&["08:00"], "UTC", "1970-01-01T00:00");
        assert_eq!(play.run(DAY).sent(), [""; 0]);
        play.jump_to("2026-11-02T08:03");
        assert_eq!(play.run(HOUR).sent(), ["02 08:03"]);
    }

    #[test]
    fn times_that_were_configured_after_they_had_passed_wait_for_the_next_day() {
        let mut play = Play::new(&["08:00"], "Europe/Rome", "2026-11-01T08:01");
        assert_eq!(play.run(12 * HOUR).sent(), [""; 0]);
        assert_eq!(play.run(12 * HOUR).sent(), ["02 08:00"]);
    }

    #[test]
    fn a_machine_that_changes_its_time_zone_is_told_by_the_new_one() {
        let mut play = Play::new(&["08:00"], "Europe/Rome", "2026-11-02T07:00");
        assert_eq!(play.run(2 * HOUR).sent(), ["02 08:00"]);
        play.zone = zone("America/New_York");
        // There it is 03:00 on the same day.
        assert_eq!(play.run(6 * HOUR).sent(), ["02 08:00"]);
    }
}
