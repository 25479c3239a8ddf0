//! Maintenance windows: recurring hours by the calendar of a time zone. Pure.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use super::scope::{CalmScope, Target};
use crate::clock::Wall;
use crate::event::Level;

/// How far the next window is searched for.
pub const SEARCH_DAYS: i32 = 400;
/// Windows that follow one another without a gap are one; as many of them are looked at.
const MAX_JOINED: usize = 8;

/// An entry of `maintenance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its name in the configuration.
    pub name: String,
    /// What it is about.
    pub scopes: Vec<CalmScope>,
    /// The days on which it begins.
    pub days: Days,
    /// When.
    pub at: Hours,
    /// By which clock; none: that cannot be read, and there is no window.
    pub zone: Option<TimeZone>,
    /// Events of this level and above are told all the same.
    pub unless: Option<Level>,
}

/// The days on which a window begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Days {
    /// Days of every week, Monday first.
    Weekly([bool; 7]),
    /// Single days.
    Dates(BTreeSet<Date>),
}

/// Two times of day, in minutes. An end that is not later than the start is on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// 00:00 to 23:59.
    pub from: i16,
    /// 00:00 to 24:00.
    pub until: i16,
}

/// One occurrence of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Its first moment.
    pub from: Wall,
    /// The first moment after it.
    pub until: Wall,
}

impl Hours {
    /// Reads `02:00-04:30`.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn parse(text: &str) -> Result<Hours, String> {
        let malformed = || format!("must be two times of day such as 02:00-04:30, not \"{text}\"");
        let (from, until) = text.split_once('-').ok_or_else(malformed)?;
        let (from, until) = (minutes(from.trim()), minutes(until.trim()));
        let (Some(from @ 0..=1439), Some(until)) = (from, until) else { return Err(malformed()) };
        if from == until {
            return Err("is empty; for a whole day write 00:00-24:00".into());
        }
        Ok(Hours { from, until })
    }
}

/// `04:30` in minutes; `24:00` is the end of the day.
fn minutes(text: &str) -> Option<i16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<i16> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= 24 * 60).then_some(total)
}

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Days {
    /// Reads `mon` or `fri-mon`; several are several days.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn parse(texts: &[String]) -> Result<Days, String> {
        let mut days = [false; 7];
        for text in texts {
            let malformed =
                || format!("must be mon, tue ... or a range such as mon-fri, not \"{text}\"");
            let lower = text.trim().to_ascii_lowercase();
            let index = |name: &str| WEEKDAYS.iter().position(|day| *day == name.trim());
            let (first, last) = lower.split_once('-').unwrap_or((&lower, &lower));
            let (first, last) = index(first).zip(index(last)).ok_or_else(malformed)?;
            let count = (last + 7 - first) % 7;
            (0..=count).for_each(|step| days[(first + step) % 7] = true);
        }
        Ok(Days::Weekly(days))
    }

    /// Whether a window begins on that day.
    pub fn contain(&self, date: Date) -> bool {
        match self {
            Days::Weekly(days) => days[usize::from(weekday(date).unsigned_abs())],
            Days::Dates(dates) => dates.contains(&date),
        }
    }
}

/// Monday is 0.
fn weekday(date: Date) -> i8 {
    Weekday::to_monday_zero_offset(date.weekday())
}

impl Window {
    /// Whether it is about `target`.
    pub fn covers(&self, target: Target) -> bool {
        self.scopes.iter().any(|scope| scope.covers(target))
    }

    /// The window that begins on that day, whichever days are chosen; none where a change of the
    /// clocks leaves all of it out.
    pub fn on(&self, date: Date) -> Option<Occurrence> {
        let Hours { from, until } = self.at;
        let end = if until <= from { date.tomorrow().ok()? } else { date };
        let occurrence = Occurrence {
            from: self.moment(date, from, Fold::First)?,
            until: self.moment(end, until, Fold::Last)?,
        };
        (occurrence.from < occurrence.until).then_some(occurrence)
    }

    /// When a clock in its zone shows this; a time that a change leaves out stands for the moment of
    /// the change.
    fn moment(&self, date: Date, minutes: i16, fold: Fold) -> Option<Wall> {
        let zone = self.zone.as_ref()?;
        let time = civil(date, minutes)?;
        let at = match (zone.to_ambiguous_timestamp(time).offset(), fold) {
            (AmbiguousOffset::Unambiguous { offset }, _)
            | (AmbiguousOffset::Fold { before: offset, .. }, Fold::First)
            | (AmbiguousOffset::Fold { after: offset, .. }, Fold::Last) => {
                offset.to_timestamp(time).ok()?
            }
            (AmbiguousOffset::Gap { after, .. }, _) => {
                // By the clock after the change, it is before the change.
                zone.following(after.to_timestamp(time).ok()?).next()?.timestamp()
            }
        };
        Some(Wall(at.as_millisecond()))
    }

    /// What a clock in its zone shows at that moment.
    fn local(&self, at: Wall) -> Option<DateTime> {
        Some(self.zone.as_ref()?.to_datetime(Timestamp::from_millisecond(at.0).ok()?))
    }

    /// The chosen days from so many before that moment until so many after it.
    fn dates(&self, at: Wall, days: RangeInclusive<i32>) -> impl Iterator<Item = Date> {
        let dates = self.local(at).into_iter().flat_map(move |today| {
            let day = move |day| today.date().checked_add(i64::from(day).days()).ok();
            days.clone().filter_map(day)
        });
        dates.filter(|date| self.days.contain(*date))
    }

    /// The occurrences that may be running at that moment, or begin within so many days after it.
    fn around(&self, at: Wall, days: i32) -> impl Iterator<Item = Occurrence> {
        // One that began the day before yesterday can last until now where a day is long.
        self.dates(at, -2..=days).filter_map(|date| self.on(date))
    }

    /// The occurrence that is running; those that follow without a gap are part of it.
    pub fn current(&self, now: Wall) -> Option<Occurrence> {
        if !now.is_plausible() {
            return None;
        }
        let running =
            |at: Wall| self.around(at, 1).filter(move |one| one.from <= at && at < one.until);
        let mut whole = running(now).max_by_key(|one| one.until)?;
        for _ in 0..MAX_JOINED {
            let Some(next) = running(whole.until).max_by_key(|one| one.until) else { break };
            whole.until = next.until;
        }
        Some(whole)
    }

    /// The occurrences that touch this period.
    pub fn within(&self, period: &Range<Wall>) -> Vec<Range<Wall>> {
        let days = period.end.since(period.start).as_secs() / 86_400 + 1;
        let all = self.around(period.start, i32::try_from(days).unwrap_or(SEARCH_DAYS));
        let touching = all.filter(|one| one.from < period.end && period.start < one.until);
        touching.map(|one| one.from..one.until).collect()
    }

    /// The next occurrence that begins after `now`, within [`SEARCH_DAYS`], and is no part of the one that
    /// is running.
    pub fn next(&self, now: Wall) -> Option<Occurrence> {
        if !now.is_plausible() {
            return None;
        }
        let running = self.current(now).map_or(now, |running| running.until);
        self.around(now, SEARCH_DAYS).find(|one| one.from > now && one.from >= running)
    }

    /// The first day within [`SEARCH_DAYS`] on which it should begin, and a change of the clocks
    /// leaves it out.
    pub fn left_out(&self, now: Wall) -> Option<Date> {
        self.dates(now, 0..=SEARCH_DAYS).find(|date| self.on(*date).is_none())
    }

    /// Whether no window is left: all of its dates have passed.
    pub fn is_over(&self, now: Wall) -> bool {
        match &self.days {
            Days::Weekly(_) => false,
            Days::Dates(dates) => {
                dates.iter().filter_map(|date| self.on(*date)).all(|one| one.until <= now)
            }
        }
    }

    /// `Mon 02:00 to 04:30 Europe/Berlin`, for people.
    pub fn describe(&self, occurrence: Occurrence) -> String {
        let Some(zone) = &self.zone else { return String::new() };
        let local = |at| self.local(at).unwrap_or_default();
        let (from, until) = (local(occurrence.from), local(occurrence.until));
        let day = WEEKDAYS[usize::from(weekday(from.date()).unsigned_abs())];
        let name = zone.iana_name().unwrap_or("local time");
        let initial = day[..1].to_ascii_uppercase();
        let time = |time: DateTime| format!("{:02}:{:02}", time.hour(), time.minute());
        format!("{initial}{} {} to {} {name}", &day[1..], time(from), time(until))
    }
}

/// Which of two moments is meant that a clock shows alike.
#[derive(Clone, Copy)]
enum Fold {
    First,
    Last,
}

fn civil(date: Date, minutes: i16) -> Option<DateTime> {
    let whole_day = minutes == 24 * 60;
    let date = if whole_day { date.tomorrow().ok()? } else { date };
    let minutes = if whole_day { 0 } else { minutes };
    let part = |number: i16| i8::try_from(number).ok();
    Some(date.at(part(minutes / 60)?, part(minutes % 60)?, 0, 0))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::clock::parse_rfc3339;

    /// A window of every day.
    pub fn window(zone: &str, at: &str) -> Window {
        Window {
            name: "nightly".into(),
            scopes: vec![CalmScope::All],
            days: Days::Weekly([true; 7]),
            at: Hours::parse(at).unwrap(),
            zone: Some(jiff::tz::db().get(zone).expect("the package tzdata is there")),
            unless: None,
        }
    }

    fn shown(occurrence: Option<Occurrence>) -> String {
        let short = |at: Wall| at.to_string().replace(":00.000Z", "Z");
        occurrence.map_or("none".into(), |Occurrence { from, until }| {
            format!("{} {}", short(from), short(until))
        })
    }

    const BERLIN: &str = "Europe/Berlin";
    const NEW_YORK: &str = "America/New_York";
    const LORD_HOWE: &str = "Australia/Lord_Howe";
    const SANTIAGO: &str = "America/Santiago";

    /// Zone, day, `at`, and the window in UTC.
    const VECTORS: &[(&str, &str, &str, &str)] = &[
        (BERLIN, "2027-03-28", "01:00-05:00", "2027-03-28T00:00Z 2027-03-28T03:00Z"),
        (BERLIN, "2027-03-28", "02:30-04:00", "2027-03-28T01:00Z 2027-03-28T02:00Z"),
        (BERLIN, "2027-03-28", "01:00-02:30", "2027-03-28T00:00Z 2027-03-28T01:00Z"),
        (BERLIN, "2027-03-28", "02:15-02:45", "none"),
        (BERLIN, "2027-03-27", "23:00-04:00", "2027-03-27T22:00Z 2027-03-28T02:00Z"),
        (BERLIN, "2027-10-31", "01:00-05:00", "2027-10-30T23:00Z 2027-10-31T04:00Z"),
        (BERLIN, "2027-10-31", "02:15-02:45", "2027-10-31T00:15Z 2027-10-31T01:45Z"),
        (BERLIN, "2027-10-30", "23:30-02:30", "2027-10-30T21:30Z 2027-10-31T01:30Z"),
        (NEW_YORK, "2027-03-14", "02:30-04:00", "2027-03-14T07:00Z 2027-03-14T08:00Z"),
        (NEW_YORK, "2027-11-07", "01:15-01:45", "2027-11-07T05:15Z 2027-11-07T06:45Z"),
        (NEW_YORK, "2027-11-06", "23:00-01:30", "2027-11-07T03:00Z 2027-11-07T06:30Z"),
        (LORD_HOWE, "2027-04-04", "01:00-03:00", "2027-04-03T14:00Z 2027-04-03T16:30Z"),
        (LORD_HOWE, "2027-10-03", "01:00-03:00", "2027-10-02T14:30Z 2027-10-02T16:00Z"),
        (SANTIAGO, "2027-09-04", "23:00-01:00", "2027-09-05T03:00Z 2027-09-05T04:00Z"),
        (SANTIAGO, "2027-04-03", "22:30-00:30", "2027-04-04T01:30Z 2027-04-04T04:30Z"),
        ("Asia/Kolkata", "2027-01-01", "23:00-01:00", "2027-01-01T17:30Z 2027-01-01T19:30Z"),
        // Their neighbours.
        (BERLIN, "2027-03-28", "02:00-03:00", "none"),
        (BERLIN, "2027-03-28", "03:00-03:30", "2027-03-28T01:00Z 2027-03-28T01:30Z"),
        (BERLIN, "2027-03-28", "01:59-02:00", "2027-03-28T00:59Z 2027-03-28T01:00Z"),
        (BERLIN, "2027-03-28", "00:00-24:00", "2027-03-27T23:00Z 2027-03-28T22:00Z"),
        (BERLIN, "2027-10-31", "00:00-24:00", "2027-10-30T22:00Z 2027-10-31T23:00Z"),
        (BERLIN, "2027-10-31", "03:00-03:30", "2027-10-31T02:00Z 2027-10-31T02:30Z"),
        (BERLIN, "2027-10-31", "02:45-02:15", "2027-10-31T00:45Z 2027-11-01T01:15Z"),
        (BERLIN, "2027-03-27", "04:00-02:30", "2027-03-27T03:00Z 2027-03-28T01:00Z"),
        (NEW_YORK, "2027-03-13", "23:00-02:30", "2027-03-14T04:00Z 2027-03-14T07:00Z"),
        (SANTIAGO, "2027-09-05", "00:00-02:00", "2027-09-05T04:00Z 2027-09-05T05:00Z"),
        (SANTIAGO, "2027-09-04", "00:00-24:00", "2027-09-04T04:00Z 2027-09-05T04:00Z"),
        (SANTIAGO, "2027-04-03", "23:15-23:45", "2027-04-04T02:15Z 2027-04-04T03:45Z"),
        ("Atlantic/Azores", "2027-10-31", "00:15-00:45", "2027-10-31T00:15Z 2027-10-31T01:45Z"),
        ("Atlantic/Azores", "2027-03-28", "00:15-00:45", "none"),
        ("Pacific/Apia", "2027-06-01", "23:00-01:00", "2027-06-01T10:00Z 2027-06-01T12:00Z"),
        ("America/St_Johns", "2027-03-14", "02:30-04:00", "2027-03-14T05:30Z 2027-03-14T06:30Z"),
        ("UTC", "2027-02-28", "23:00-01:00", "2027-02-28T23:00Z 2027-03-01T01:00Z"),
        ("UTC", "2028-02-28", "23:59-00:00", "2028-02-28T23:59Z 2028-02-29T00:00Z"),
        // Beyond the transitions that a zone's file lists.
        (BERLIN, "2051-03-26", "02:30-04:00", "2051-03-26T01:00Z 2051-03-26T02:00Z"),
    ];

    #[test]
    fn windows_follow_the_clock_of_their_zone() {
        for (zone, day, at, expected) in VECTORS {
            let occurrence = window(zone, at).on(day.parse().unwrap());
            assert_eq!(shown(occurrence), *expected, "{zone} {day} {at}");
        }
    }

    #[test]
    fn the_next_window_is_no_part_of_the_one_that_is_running() {
        let window = window("UTC", "00:00-24:00");
        let now = at("2027-03-01T12:00:00Z");
        let running = window.current(now).unwrap();
        assert_eq!(window.next(now).unwrap().from, running.until);
    }

    #[test]
    fn the_windows_of_a_day_are_those_that_touch_it() {
        let window = window("UTC", "23:00-01:00");
        let hours = |from: &str, until: &str| window.within(&(at(from)..at(until)));
        let night = at("2027-02-28T23:00:00Z")..at("2027-03-01T01:00:00Z");
        let next = at("2027-03-01T23:00:00Z")..at("2027-03-02T01:00:00Z");
        let alone = hours("2027-03-01T00:30:00Z", "2027-03-01T23:00:00Z");
        assert_eq!(alone, std::slice::from_ref(&night));
        assert_eq!(hours("2027-03-01T00:30:00Z", "2027-03-02T00:30:00Z"), [night, next]);
        assert_eq!(hours("2027-03-01T01:00:00Z", "2027-03-01T23:00:00Z"), []);
    }

    fn at(text: &str) -> Wall {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_window_is_running_from_its_first_moment_to_before_its_last() {
        for (zone, day, hours, expected) in VECTORS {
            let date: Date = day.parse().unwrap();
            let window = Window { days: Days::Dates([date].into()), ..window(zone, hours) };
            let Some(one) = window.on(date) else {
                assert_eq!(window.next(at("2027-01-01T00:00:00Z")), None);
                continue;
            };
            let before = Wall(one.from.0 - 1);
            assert_eq!(window.current(before), None, "{expected}");
            assert_eq!(window.current(one.from), Some(one), "{expected}");
            assert_eq!(window.current(Wall(one.until.0 - 1)), Some(one), "{expected}");
            assert_eq!(window.current(one.until), None, "{expected}");
            assert_eq!(window.next(before), Some(one));
            assert_eq!(window.next(one.from), None);
            assert!(!window.is_over(before) && window.is_over(one.until));
        }
    }

    #[test]
    fn whole_days_that_follow_one_another_are_one_window() {
        let mut window = window(BERLIN, "00:00-24:00");
        window.days = Days::parse(&["sat-sun".into()]).unwrap();
        let whole = "2027-03-26T23:00Z 2027-03-28T22:00Z";
        let current = window.current(at("2027-03-27T12:00:00Z"));
        assert_eq!(shown(current), whole, "with the hour that is left out");
        assert_eq!(window.describe(current.unwrap()), "Sat 00:00 to 00:00 Europe/Berlin");
        assert_eq!(window.current(at("2027-03-28T22:00:00Z")), None);
    }

    #[test]
    fn a_clock_that_was_never_set_and_a_zone_that_is_not_known_are_no_window() {
        let mut window = window("UTC", "00:00-24:00");
        assert_eq!(window.current(Wall(1_000)), None);
        assert_eq!(window.next(Wall(1_000)), None);
        assert!(window.current(at("2027-03-27T12:00:00Z")).is_some());
        window.zone = None;
        assert_eq!(window.current(at("2027-03-27T12:00:00Z")), None);
        assert_eq!(window.next(at("2027-03-27T12:00:00Z")), None);
    }

    #[test]
    fn a_day_that_leaves_a_window_out_is_found() {
        let now = at("2027-01-01T00:00:00Z");
        let left_out = |hours| window(BERLIN, hours).left_out(now).map(|day| day.to_string());
        assert_eq!(left_out("02:15-02:45").as_deref(), Some("2027-03-28"));
        assert_eq!(left_out("02:15-03:45"), None);
    }

    #[test]
    fn days_and_hours_are_read_or_refused_in_the_operator_s_words() {
        let days = |texts: &[&str]| {
            Days::parse(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
        };
        let on = |texts: &[&str]| match days(texts).unwrap() {
            Days::Weekly(days) => days.map(u8::from),
            Days::Dates(_) => panic!(),
        };
        assert_eq!(on(&["mon-fri", "sun"]), [1, 1, 1, 1, 1, 0, 1]);
        assert_eq!(on(&["Fri-mon"]), [1, 0, 0, 0, 1, 1, 1]);
        assert_eq!(on(&["wed"]), [0, 0, 1, 0, 0, 0, 0]);
        for text in ["funday", "mon-", "mon-funday", "1", "mon,tue"] {
            let what = format!("must be mon, tue ... or a range such as mon-fri, not \"{text}\"");
            assert_eq!(days(&[text]), Err(what));
        }
        for text in
            ["2:00", "02:00", "25:00-26:00", "02:60-03:00", "24:00-02:00", "02:00-24:01", "a-b"]
        {
            let what = format!("must be two times of day such as 02:00-04:30, not \"{text}\"");
            assert_eq!(Hours::parse(text), Err(what));
        }
        let empty = Err("is empty; for a whole day write 00:00-24:00".into());
        assert_eq!(Hours::parse("02:00-02:00"), empty);
        assert_eq!(Hours::parse("00:00-24:00"), Ok(Hours { from: 0, until: 1440 }));
    }
}
