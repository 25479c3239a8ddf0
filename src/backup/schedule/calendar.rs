//! A systemd calendar expression (systemd.time(7), "Calendar Events") without its time zone: parsed,
//! and the civil times that match it. What systemd's own parser (src/shared/calendarspec.c) refuses
//! is refused. Pure.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time, date};

const MICROSECONDS: i32 = 1_000_000;

/// The years in which systemd looks for a match.
const MIN_YEAR: i32 = 1970;
const MAX_YEAR: i32 = 2199;

/// The places of the fields of a time.
const YEAR: usize = 0;
const MONTH: usize = 1;
const DAY: usize = 2;
const HOUR: usize = 3;
const MICROSECOND: usize = 5;

/// The first value of each field, and the last of those of the time of day.
const FIRST: [i32; 6] = [MIN_YEAR, 1, 1, 0, 0, 0];
const LAST_TIME: [i32; 3] = [23, 59, 60 * MICROSECONDS - 1];

/// How many matches in a row may be passed over.
const MAX_PASSED_OVER: usize = 100;

const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Which civil times match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Monday is 0.
    weekdays: [bool; 7],
    years: Field,
    months: Field,
    days: Field,
    /// Whether days are counted back from the last day of the month, which is 1.
    from_the_end: bool,
    /// Hours, minutes, and microseconds of a minute.
    time: [Field; 3],
}

/// The numbers that one field of an expression means; none: all of them.
type Field = Option<Vec<Component>>;

/// `5`, `1..7`, `0/15`, `1..31/2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Component {
    start: i32,
    stop: Option<i32>,
    /// 0: it is not repeated.
    repeat: i32,
}

/// A civil time as the search changes it: a field may lie beyond its range until it is normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Year, month, day, hour, minute, microsecond of the minute.
    fields: [i32; 6],
}

impl Calendar {
    /// Reads an expression in lower case, without a time zone at its end.
    pub fn parse(text: &str) -> Option<Calendar> {
        let mut rest = expand_shorthand(text);
        let weekdays = parse_weekdays(&mut rest)?;
        let (date_fields, from_the_end) = parse_date(&mut rest)?;
        let [mut years, months, days] = date_fields;
        let time = parse_time(rest)?;
        years.iter_mut().flatten().for_each(Component::complete_year);
        let last_day = if from_the_end { 28 } else { 31 };
        let valid = is_valid(&years, MIN_YEAR, MAX_YEAR, false)
            && is_valid(&months, 1, 12, false)
            && is_valid(&days, 1, last_day, from_the_end)
            && is_valid(&time[0], 0, 23, false)
            && is_valid(&time[1], 0, 59, false)
            && is_valid(&time[2], 0, 60 * MICROSECONDS - 1, false);
        valid.then_some(Calendar { weekdays, years, months, days, from_the_end, time })
    }

    /// The one moment of `@1790000000`, in UTC.
    pub fn at(time: DateTime) -> Calendar {
        let one = |number: i32| Some(vec![Component::once(number)]);
        Calendar {
            weekdays: [true; 7],
            years: one(time.year().into()),
            months: one(time.month().into()),
            days: one(time.day().into()),
            from_the_end: false,
            time: split_time(time.time()).map(one),
        }
    }

    /// The first match after a time, as systemd finds it (`find_next` in calendarspec.c): where a
    /// repetition runs over the end of a minute or an hour into another day, or over the end of a
    /// year, what matches before the place where it lands is passed over.
    pub fn next_after(&self, time: DateTime) -> Option<DateTime> {
        let from = time.checked_add(SignedDuration::from_micros(1)).ok()?;
        let mut position = Position::of(from);
        loop {
            position = position.normalized()?;
            if self.advance(&mut position)? {
                return position.time();
            }
        }
    }

    /// Moves to the next match, and says whether it is there already. None: there is no other.
    fn advance(&self, position: &mut Position) -> Option<bool> {
        for unit in YEAR..=MICROSECOND {
            let value = position.fields[unit];
            let Some(next) = self.next_value(unit, position) else {
                // Nothing more in the larger unit: none at all where that is the year.
                position.restart(unit.checked_sub(1)?, |larger| larger + 1);
                return Some(false);
            };
            if next != value {
                position.restart(unit, |_| next);
            }
            if position.fields[YEAR] > MAX_YEAR {
                return None;
            }
            if position.carry()? {
                return Some(false);
            }
            if unit == DAY && !self.weekday_matches(position.time()?.date()) {
                position.restart(DAY, |day| day + 1);
                return Some(false);
            }
        }
        Some(true)
    }

    /// The next value of one field; it may be beyond the range.
    fn next_value(&self, unit: usize, position: &Position) -> Option<i32> {
        let bound = position.fields[unit];
        let field = match unit {
            YEAR => &self.years,
            MONTH => &self.months,
            DAY => &self.days,
            unit => &self.time[unit - HOUR],
        };
        let Some(components) = field else { return Some(bound) };
        let length = i32::from(position.first_of_month()?.days_in_month());
        let counted = |component: &Component| match unit == DAY && self.from_the_end {
            true => component.counted_from_the_first(length),
            false => *component,
        };
        components.iter().filter_map(|component| counted(component).next(bound)).min()
    }

    /// The last match at a time or before it.
    pub fn last_until(&self, time: DateTime) -> Option<DateTime> {
        let mut last = self.search(time)?;
        for _ in 0..MAX_PASSED_OVER {
            let before = last.checked_sub(SignedDuration::from_micros(1)).ok()?;
            let Some(before) = self.search(before) else { break };
            if self.next_after(before) == Some(last) {
                break;
            }
            last = before;
        }
        Some(last)
    }

    fn search(&self, from: DateTime) -> Option<DateTime> {
        let mut bound = split_time(from.time());
        let mut day = from.date();
        while (MIN_YEAR..=MAX_YEAR).contains(&i32::from(day.year())) {
            if !self.year_and_month_match(day) {
                day = date(day.year(), day.month(), 1).yesterday().ok()?;
            } else {
                let found = self.day_matches(day).then(|| search_back(&self.time, &bound));
                if let Some(time) = found.flatten() {
                    return join_time(day, &time);
                }
                day = day.yesterday().ok()?;
            }
            bound = LAST_TIME;
        }
        None
    }

    fn year_and_month_match(&self, day: Date) -> bool {
        contains(&self.years, day.year().into()) && contains(&self.months, day.month().into())
    }

    fn day_matches(&self, day: Date) -> bool {
        let Some(days) = &self.days else { return self.weekday_matches(day) };
        let (number, length) = (i32::from(day.day()), i32::from(day.days_in_month()));
        let matches = |component: &Component| match self.from_the_end {
            true => component.counted_from_the_first(length).contains(number),
            false => component.contains(number),
        };
        self.weekday_matches(day) && days.iter().any(matches)
    }

    fn weekday_matches(&self, day: Date) -> bool {
        self.weekdays[day.weekday().to_monday_zero_offset() as usize]
    }
}

impl Position {
    fn of(time: DateTime) -> Position {
        let [hour, minute, microsecond] = split_time(time.time());
        let (year, month, day) = (time.year().into(), time.month().into(), time.day().into());
        Position { fields: [year, month, day, hour, minute, microsecond] }
    }

    /// Changes one field, and starts all smaller ones anew.
    fn restart(&mut self, unit: usize, change: impl Fn(i32) -> i32) {
        self.fields[unit] = change(self.fields[unit]);
        self.fields[unit + 1..].copy_from_slice(&FIRST[unit + 1..]);
    }

    /// The same time with every field in its range.
    fn normalized(self) -> Option<Position> {
        let [_, _, day, hour, minute, microsecond] = self.fields;
        let micros = i64::from(hour) * 3600 * i64::from(MICROSECONDS)
            + i64::from(minute) * 60 * i64::from(MICROSECONDS)
            + i64::from(microsecond);
        let first = self.first_of_month()?.to_datetime(Time::midnight());
        let beyond = SignedDuration::from_hours(i64::from(day - 1) * 24)
            + SignedDuration::from_micros(micros);
        first.checked_add(beyond).ok().map(Position::of)
    }

    /// Carries what lies beyond its range. As in systemd, only the unit below the largest one that
    /// changes starts anew. Whether there was anything to carry.
    fn carry(&mut self) -> Option<bool> {
        let mut carried = self.normalized()?;
        let changed = (YEAR..=MICROSECOND).find(|unit| carried.fields[*unit] != self.fields[*unit]);
        if let Some(below) = changed.map(|unit| unit + 1).filter(|below| *below <= MICROSECOND) {
            carried.fields[below] = match below {
                // systemd keeps seconds and microseconds apart.
                MICROSECOND => carried.fields[below] % MICROSECONDS,
                below => FIRST[below],
            };
        }
        *self = carried;
        Some(changed.is_some())
    }

    /// The civil time, when every field is in its range.
    fn time(&self) -> Option<DateTime> {
        let [year, month, day, hour, minute, microsecond] = self.fields;
        let number = |number: i32| i8::try_from(number).ok();
        let day = Date::new(i16::try_from(year).ok()?, number(month)?, number(day)?).ok()?;
        join_time(day, &[hour, minute, microsecond])
    }

    /// The first day of its month.
    fn first_of_month(&self) -> Option<Date> {
        let months = self.fields[YEAR] * 12 + self.fields[MONTH] - 1;
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        Date::new(year, i8::try_from(months.rem_euclid(12) + 1).ok()?, 1).ok()
    }
}

impl Component {
    fn once(start: i32) -> Component {
        Component { start, stop: None, repeat: 0 }
    }

    /// The same numbers, with the last of them as the end.
    fn shorten(&mut self) {
        let Some(stop) = self.stop else { return };
        if stop > self.start && self.repeat > 0 {
            self.stop = Some(stop - (stop - self.start) % self.repeat);
        }
        if self.stop == Some(self.start) {
            *self = Component::once(self.start);
        }
    }

    fn complete_year(&mut self) {
        self.start = complete_year(self.start);
        self.stop = self.stop.map(complete_year);
    }

    /// The same days, counted from the first of a month with so many days.
    fn counted_from_the_first(self, length: i32) -> Component {
        let day = |back: i32| length + 1 - back;
        match self.stop {
            Some(stop) => Component { start: day(stop), stop: Some(day(self.start)), ..self },
            None => Component { start: day(self.start), ..self },
        }
    }

    fn contains(self, number: i32) -> bool {
        self.next(number) == Some(number)
    }

    /// The first of its numbers from `bound` on.
    fn next(self, bound: i32) -> Option<i32> {
        let beyond = (bound - self.start).max(0);
        let steps = match self.repeat {
            0 if beyond > 0 => return None,
            0 => 0,
            repeat => (beyond + repeat - 1) / repeat,
        };
        let number = self.start + steps * self.repeat;
        (self.stop.is_none_or(|stop| number <= stop)).then_some(number)
    }

    /// The last of its numbers up to `bound`.
    fn last(self, bound: i32) -> Option<i32> {
        let beyond = self.stop.unwrap_or(bound).min(bound) - self.start;
        let steps = if self.repeat == 0 { 0 } else { beyond / self.repeat };
        (bound >= self.start).then_some(self.start + steps * self.repeat)
    }
}

/// `26` is 2026, `89` is 1989.
fn complete_year(year: i32) -> i32 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        year => year,
    }
}

/// Replaces a shorthand for a whole expression by that expression.
fn expand_shorthand(text: &str) -> &str {
    match text {
        "minutely" => "*:*",
        "hourly" => "*:00",
        "daily" => "00:00",
        "weekly" => "mon 00:00",
        "monthly" => "*-*-01",
        "quarterly" => "*-01,04,07,10-01",
        "semiannually" | "semi-annually" | "biannually" | "bi-annually" => "*-01,07-01",
        "yearly" | "annually" | "anually" => "*-01-01",
        other => other,
    }
}

/// `mon..fri`, `mon,thu`, `saturday`: all days where there is none.
fn parse_weekdays(rest: &mut &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let mut range_from = None;
    loop {
        let Some((day, after)) = weekday(rest) else {
            return (days == [false; 7]).then_some([true; 7]);
        };
        days.get_mut(range_from.unwrap_or(day)..=day).filter(|days| !days.is_empty())?.fill(true);
        let (next, opened) = match after.as_bytes().first() {
            Some(b'.') => (after.strip_prefix("..")?, Some(day)),
            Some(b'-') => (&after[1..], Some(day)),
            Some(b',') => (&after[1..], None),
            _ => (after, None),
        };
        if opened.is_some() && range_from.is_some() {
            return None;
        }
        range_from = opened;
        *rest = next;
        if next.is_empty() || next.starts_with(' ') {
            *rest = next.trim_start_matches(' ');
            return range_from.is_none().then_some(days);
        }
    }
}

/// The number of the weekday at the beginning, and what follows it.
fn weekday(text: &str) -> Option<(usize, &str)> {
    let name_and_rest = |name: &str| {
        let rest = text.strip_prefix(name).or_else(|| text.strip_prefix(&name[..3]))?;
        (rest.is_empty() || rest.starts_with(['-', '.', ',', ' '])).then_some(rest)
    };
    WEEKDAYS.iter().enumerate().find_map(|(number, name)| Some((number, name_and_rest(name)?)))
}

/// `2026-*-01`, `01-15`, `*-02~03`, and whether days count from the end of the month. All days where
/// there is no date.
fn parse_date(rest: &mut &str) -> Option<([Field; 3], bool)> {
    let every_day = ([None, None, None], false);
    if rest.is_empty() {
        return Some(every_day);
    }
    let mut text = *rest;
    let first = parse_field(&mut text, false)?;
    if text.is_empty() || text.starts_with(':') {
        return Some(every_day);
    }
    let mut from_the_end = date_separator(&mut text)?;
    let second = parse_field(&mut text, false)?;
    let fields = if text.is_empty() || text.starts_with(' ') {
        [None, first, second]
    } else if from_the_end {
        return None;
    } else {
        from_the_end = date_separator(&mut text)?;
        [first, second, parse_field(&mut text, false)?]
    };
    if !text.is_empty() && !text.starts_with(' ') {
        return None;
    }
    *rest = text.trim_start_matches(' ');
    from_the_end &= fields[2].is_some();
    Some((fields, from_the_end))
}

/// Whether it is `~`; none when it is not `-` either.
fn date_separator(text: &mut &str) -> Option<bool> {
    let from_the_end = text.starts_with('~');
    *text = text.strip_prefix(['-', '~'])?;
    Some(from_the_end)
}

/// `03:00`, `*:0/15`, `8..18:30:00`; midnight where there is no time.
fn parse_time(mut text: &str) -> Option<[Field; 3]> {
    let zero = || Some(vec![Component::once(0)]);
    if text.is_empty() {
        return Some([zero(), zero(), zero()]);
    }
    let hours = parse_field(&mut text, false)?;
    text = text.strip_prefix(':')?;
    let minutes = parse_field(&mut text, false)?;
    if text.is_empty() {
        return Some([hours, minutes, zero()]);
    }
    text = text.strip_prefix(':')?;
    let seconds = parse_field(&mut text, true)?;
    text.is_empty().then_some([hours, minutes, seconds])
}

/// `*`, or a list of components; `seconds` may have a fraction and become microseconds.
fn parse_field(text: &mut &str, seconds: bool) -> Option<Field> {
    if let Some(rest) = text.strip_prefix('*') {
        *text = rest;
        let every_second = Component { start: 0, stop: None, repeat: MICROSECONDS };
        return Some(seconds.then(|| vec![every_second]));
    }
    let mut components = Vec::new();
    loop {
        components.push(parse_component(text, seconds)?);
        let Some(rest) = text.strip_prefix(',') else { break };
        *text = rest;
    }
    Some(Some(components))
}

fn parse_component(text: &mut &str, seconds: bool) -> Option<Component> {
    let mut component = Component::once(parse_number(text, seconds)?);
    if let Some(rest) = text.strip_prefix("..") {
        *text = rest;
        component.stop = Some(parse_number(text, seconds)?);
        component.repeat = if seconds { MICROSECONDS } else { 1 };
    }
    if let Some(rest) = text.strip_prefix('/') {
        *text = rest;
        component.repeat = parse_number(text, seconds).filter(|repeat| *repeat > 0)?;
    } else if let (true, Some(stop)) = (seconds, component.stop)
        && component.start + component.repeat > stop
    {
        return None;
    }
    component.shorten();
    let at_an_end = text.is_empty() || text.starts_with([' ', ',', '-', '~', ':']);
    at_an_end.then_some(component)
}

/// A whole number; where `seconds`, with a fraction, in microseconds.
fn parse_number(text: &mut &str, seconds: bool) -> Option<i32> {
    let whole = take_digits(text);
    let mut number: i64 = whole.parse().ok()?;
    if seconds {
        number = number.checked_mul(i64::from(MICROSECONDS))?;
        if let Some(rest) = text.strip_prefix('.').filter(|rest| !rest.starts_with('.')) {
            *text = rest;
            number += fraction(take_digits(text))?;
        }
    }
    i32::try_from(number).ok()
}

fn take_digits<'a>(text: &mut &'a str) -> &'a str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    digits
}

/// The digits of a fraction of a second, rounded to microseconds.
fn fraction(digits: &str) -> Option<i64> {
    let six: i64 = format!("{:0<6}", &digits[..digits.len().min(6)]).parse().ok()?;
    let round_up = digits.as_bytes().get(6).is_some_and(|digit| *digit >= b'5');
    (!digits.is_empty()).then_some(six + i64::from(round_up))
}

/// Whether all components lie in a range, and each that repeats does so at least once.
fn is_valid(field: &Field, from: i32, to: i32, from_the_end: bool) -> bool {
    field.iter().flatten().all(|component| {
        let Component { start, stop, repeat } = *component;
        let stops = match stop {
            Some(stop) => stop <= to && start + repeat <= stop,
            None if from_the_end => start - repeat >= from,
            None => start + repeat <= to,
        };
        (from..=to).contains(&start) && repeat <= to - from && stops
    })
}

fn contains(field: &Field, number: i32) -> bool {
    let Some(components) = field else { return true };
    components.iter().any(|component| component.contains(number))
}

/// The last number of a field up to `bound`.
fn last(field: &Field, bound: i32) -> Option<i32> {
    let Some(components) = field else { return (bound >= 0).then_some(bound) };
    components.iter().filter_map(|component| component.last(bound)).max()
}

/// The last hour, minute and microsecond up to `bound`.
fn search_back(fields: &[Field], bound: &[i32]) -> Option<Vec<i32>> {
    let (Some((field, fields)), Some((limit, limits))) =
        (fields.split_first(), bound.split_first())
    else {
        return Some(Vec::new());
    };
    let joined = |number: i32, smaller: &[i32]| {
        let found = search_back(fields, smaller)?;
        Some([vec![number], found].concat())
    };
    let unbounded = &LAST_TIME[LAST_TIME.len() - fields.len()..];
    let number = last(field, *limit)?;
    if number < *limit {
        return joined(number, unbounded);
    }
    joined(number, limits).or_else(|| joined(last(field, limit - 1)?, unbounded))
}

/// Hours, minutes, and microseconds of the minute.
fn split_time(time: Time) -> [i32; 3] {
    let microseconds = i32::from(time.second()) * MICROSECONDS + time.subsec_nanosecond() / 1000;
    [time.hour().into(), time.minute().into(), microseconds]
}

fn join_time(day: Date, time: &[i32]) -> Option<DateTime> {
    let (seconds, micros) = (time[2] / MICROSECONDS, time[2] % MICROSECONDS);
    let number = |number: i32| i8::try_from(number).ok();
    let time = Time::new(number(time[0])?, number(time[1])?, number(seconds)?, micros * 1000);
    Some(day.to_datetime(time.ok()?))
}
