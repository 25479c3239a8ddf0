//! The intervals between the runs of a systemd calendar expression (systemd.time(7), "Calendar
//! Events"). Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// The intervals are measured over these years: one is a leap year, and the first begins on a
/// Sunday.
const MONTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const YEARS: RangeInclusive<u32> = 2023..=2028;
const FIRST_WEEKDAY: usize = 6;

const MINUTES_OF_A_DAY: u32 = 24 * 60;

/// The shortest and the longest time between one run and the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunIntervals {
    /// Of `Mon..Fri 03:00` a day.
    pub shortest: Duration,
    /// Of `Mon..Fri 03:00` three days.
    pub longest: Duration,
}

impl RunIntervals {
    /// Reads a schedule, to the minute; none when it is not understood.
    pub fn parse(schedule: &str) -> Option<RunIntervals> {
        let calendar = Calendar::parse(&expand_shorthand(&schedule.trim().to_ascii_lowercase()))?;
        let days = calendar.matching_days();
        let (first, last) = (calendar.minutes.first()?, calendar.minutes.last()?);
        let within = calendar.minutes.iter().zip(calendar.minutes.iter().skip(1));
        let within = within.map(|(one, next)| next - one);
        let between = days.iter().zip(days.iter().skip(1));
        let between = between.map(|(one, next)| (next - one) * MINUTES_OF_A_DAY + first - last);
        let between: Vec<u32> = between.collect();
        // A day that occurs once in these six years may as well never occur.
        let longest_between = *between.iter().max()?;
        let (shortest, longest) =
            within.chain(between).fold((longest_between, longest_between), |(low, high), gap| {
                (low.min(gap), high.max(gap))
            });
        let minutes = |count: u32| Duration::from_secs(u64::from(count) * 60);
        Some(RunIntervals { shortest: minutes(shortest), longest: minutes(longest) })
    }
}

/// Replaces a shorthand for a whole expression by that expression.
fn expand_shorthand(schedule: &str) -> String {
    match schedule {
        "minutely" => "*:*",
        "hourly" => "*:00",
        "daily" => "00:00",
        "weekly" => "mon 00:00",
        "monthly" => "*-*-01",
        "quarterly" => "*-01,04,07,10-01",
        "semiannually" | "semi-annually" => "*-01,07-01",
        "yearly" | "annually" => "*-01-01",
        other => other,
    }
    .to_owned()
}

/// A parsed calendar expression: the days, and the minutes of each of them.
struct Calendar {
    /// Monday is 0.
    weekdays: BTreeSet<u32>,
    months: BTreeSet<u32>,
    days: BTreeSet<u32>,
    /// Whether days are counted back from the last day of the month, which is 1.
    from_the_end: bool,
    minutes: BTreeSet<u32>,
}

impl Calendar {
    fn parse(schedule: &str) -> Option<Calendar> {
        let mut calendar = Calendar {
            weekdays: (0..7).collect(),
            months: (1..=12).collect(),
            days: (1..=31).collect(),
            from_the_end: false,
            minutes: BTreeSet::from([0]),
        };
        let tokens: Vec<&str> = schedule.split_whitespace().collect();
        let (last, others) = tokens.split_last()?;
        for token in others {
            calendar.parse_token(token)?;
        }
        if others.is_empty() || !is_timezone(last) {
            calendar.parse_token(last)?;
        }
        Some(calendar)
    }

    fn parse_token(&mut self, token: &str) -> Option<()> {
        if token.contains(':') {
            self.minutes = minutes(token)?;
        } else if token.starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.weekdays = weekdays(token)?;
        } else {
            self.parse_date(token)?;
        }
        Some(())
    }

    /// `*-*-01`, `01-15`, `*-02~03`.
    fn parse_date(&mut self, token: &str) -> Option<()> {
        let (before, day) = match token.split_once('~') {
            Some(parts) => {
                self.from_the_end = true;
                parts
            }
            None => token.rsplit_once('-')?,
        };
        let month = match before.split_once('-') {
            Some(("*", month)) => month,
            // With a year it is not periodic.
            Some(_) => return None,
            None => before,
        };
        self.months = numbers(month, 1..=12)?;
        self.days = numbers(day, 1..=31)?;
        Some(())
    }

    /// The days of [`YEARS`] that match, numbered from the first of them.
    fn matching_days(&self) -> Vec<u32> {
        let mut matching = Vec::new();
        let mut number = 0;
        let mut weekdays = (0..7).cycle().skip(FIRST_WEEKDAY);
        for (year, month) in YEARS.flat_map(|year| (1..=12).map(move |month| (year, month))) {
            let days = MONTHS[month as usize - 1] + u32::from(month == 2 && year % 4 == 0);
            for day in 1..=days {
                let day = if self.from_the_end { days + 1 - day } else { day };
                let weekday = weekdays.next().is_some_and(|day| self.weekdays.contains(&day));
                if weekday && self.months.contains(&month) && self.days.contains(&day) {
                    matching.push(number);
                }
                number += 1;
            }
        }
        matching
    }
}

/// `UTC` or `Europe/Rome`. Which one does not matter: the intervals stay the same.
fn is_timezone(token: &str) -> bool {
    let letters = token.starts_with(|c: char| c.is_ascii_alphabetic());
    token == "utc" || letters && token.contains('/')
}

/// `mon..fri`, `mon,thu`, `saturday`; a range may wrap around the end of the week.
fn weekdays(token: &str) -> Option<BTreeSet<u32>> {
    let number = |name: &str| {
        let full = |day: &&str| **day == *name || name.len() == 3 && day.starts_with(name);
        (0..).zip(&WEEKDAYS).find(|(_, day)| full(day)).map(|(number, _)| number)
    };
    let mut days = BTreeSet::new();
    for part in token.split(',').filter(|part| !part.is_empty()) {
        let range = part.split_once("..").or_else(|| part.split_once('-'));
        let (first, last) = range.unwrap_or((part, part));
        let (first, last): (u32, u32) = (number(first)?, number(last)?);
        days.extend((first..=if last < first { last + 7 } else { last }).map(|day| day % 7));
    }
    Some(days).filter(|days| !days.is_empty())
}

/// The minutes of a day that `03:00`, `*:0/15` or `8..18:30:00` means.
fn minutes(token: &str) -> Option<BTreeSet<u32>> {
    let fields: Vec<&str> = token.split(':').collect();
    let (hours, minutes) = match fields.as_slice() {
        [hours, minutes] => (hours, minutes),
        [hours, minutes, seconds] if are_seconds(seconds) => (hours, minutes),
        _ => return None,
    };
    let (hours, minutes) = (numbers(hours, 0..=23)?, numbers(minutes, 0..=59)?);
    Some(hours.iter().flat_map(|hour| minutes.iter().map(move |at| hour * 60 + at)).collect())
}

fn are_seconds(field: &str) -> bool {
    !field.is_empty() && field.chars().all(|c| c.is_ascii_digit() || "*,/.".contains(c))
}

/// The numbers that `*`, `1,15`, `1..7` or `0/15` means.
fn numbers(field: &str, all: RangeInclusive<u32>) -> Option<BTreeSet<u32>> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| all.contains(number));
    let mut numbers = BTreeSet::new();
    for part in field.split(',') {
        let (base, step) = match part.split_once('/') {
            Some((base, step)) => (base, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match base.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None if base == "*" => (*all.start(), *all.end()),
            None if step.is_some() => (number(base)?, *all.end()),
            None => (number(base)?, number(base)?),
        };
        numbers.extend((first..=last).step_by(step.unwrap_or(1) as usize));
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOURS_OF_A_DAY: u64 = 24;

    fn minutes_of(schedule: &str) -> Option<(u64, u64)> {
        let intervals = RunIntervals::parse(schedule)?;
        Some((intervals.shortest.as_secs() / 60, intervals.longest.as_secs() / 60))
    }

    #[test]
    fn the_gaps_of_a_schedule_are_its_true_ones() {
        const HOUR: u64 = 60;
        const DAY: u64 = HOURS_OF_A_DAY * HOUR;
        for (schedule, shortest, longest) in [
            ("minutely", 1, 1),
            ("hourly", HOUR, HOUR),
            ("*:0/15", 15, 15),
            ("*-*-* *:00/15:00", 15, 15),
            ("*-*-* 0/6:00:00", 6 * HOUR, 6 * HOUR),
            ("*-*-* 8..18:00", HOUR, 14 * HOUR),
            ("daily", DAY, DAY),
            ("03:00", DAY, DAY),
            ("*-*-* 03:00:00", DAY, DAY),
            ("*-*-* 03:00:00 Europe/Rome", DAY, DAY),
            ("Mon..Sun 03:00 UTC", DAY, DAY),
            ("Mon..Fri 03:00", DAY, 3 * DAY),
            ("Mon-Fri", DAY, 3 * DAY),
            ("Sat,Sun 03:00", DAY, 6 * DAY),
            ("Fri..Mon 03:00", DAY, 4 * DAY),
            ("Mon,Thu *-*-* 03:00:00", 3 * DAY, 4 * DAY),
            ("weekly", 7 * DAY, 7 * DAY),
            ("Sunday 03:00", 7 * DAY, 7 * DAY),
            ("*-*-01 03:00", 28 * DAY, 31 * DAY),
            ("*-*-1,15", 14 * DAY, 17 * DAY),
            ("*-*~01", 28 * DAY, 31 * DAY),
            ("Sun *-*-1..7 03:00", 28 * DAY, 35 * DAY),
            ("monthly", 28 * DAY, 31 * DAY),
            ("quarterly", 90 * DAY, 92 * DAY),
            ("semiannually", 181 * DAY, 184 * DAY),
            ("yearly", 365 * DAY, 366 * DAY),
            ("01-01 00:00:00", 365 * DAY, 366 * DAY),
        ] {
            assert_eq!(minutes_of(schedule), Some((shortest, longest)), "{schedule}");
        }
    }

    #[test]
    fn what_is_not_understood_has_no_gaps() {
        for schedule in [
            "",
            "nonsense",
            "often",
            "Mon..Foo 03:00",
            "25:00",
            "*:0/0",
            "*-13-01",
            "*-02-30",
            "2026-01-01 03:00",
            "UTC",
            "03",
            "1:2:3:4",
            "@1790000000",
        ] {
            assert_eq!(minutes_of(schedule), None, "{schedule}");
        }
    }

    proptest! {
        #[test]
        fn no_schedule_is_a_crash(text in r"[*0-9a-z.,:/~ -]{0,30}") {
            if let Some(intervals) = RunIntervals::parse(&text) {
                prop_assert!(intervals.shortest <= intervals.longest && !intervals.shortest.is_zero());
            }
        }
    }
}
