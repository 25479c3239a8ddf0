//! The availability of a host: how long it was up, degraded, down and unknown, by hour and by day, in
//! two short rows. Pure.
//!
//! A row is: the version, the number of its first slot (u32), then four u16 for each slot from
//! there on, all little-endian: how long the host was up, degraded and down, and how long its state
//! was unknown, since the daemon did not listen; in seconds for hours, in units of two seconds for
//! days. An hour stays in the row of hours until that has grown long, then it is added to its day:
//! each second is counted in one row.

use std::time::Duration;

use super::slots::{self, DAY, HOUR};
use crate::clock::Wall;
use crate::view::{AvailabilityView, UptimeSlice};

const VERSION: u8 = 1;
/// With more hours than this the older ones are added to their days.
const MAX_HOURS: usize = 72;
/// How many hours stay then.
const MIN_HOURS: usize = 48;
const DAY_UNIT: u32 = 2;
/// The maximum length of a row, and of a gap in one.
const MAX_DAYS: u32 = 4000;
/// How many hours and days are shown.
const SHOWN_HOURS: u32 = 24;
const SHOWN_DAYS: u32 = 90;

/// The state of a host that a time is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UptimeKind {
    /// Up, and all is well.
    Up,
    /// Up, with an open problem.
    Degraded,
    /// Overdue.
    Down,
    /// The daemon did not listen.
    Blind,
}

type SlotCounts = [u16; 4];

/// Consecutive slots and their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SlotRow {
    first: u32,
    slots: Vec<SlotCounts>,
}

impl SlotRow {
    fn decode(bytes: &[u8]) -> SlotRow {
        let read = || {
            let rest = bytes.strip_prefix(&[VERSION])?;
            let (first, rest) = rest.split_first_chunk::<4>()?;
            let (slots, []) = rest.as_chunks::<8>() else { return None };
            let counts = |slot: &[u8; 8]| {
                let (counts, _) = slot.as_chunks::<2>();
                std::array::from_fn(|kind| u16::from_le_bytes(counts[kind]))
            };
            let first = u32::from_le_bytes(*first);
            first.checked_add(u32::try_from(slots.len()).ok()?)?;
            Some(SlotRow { first, slots: slots.iter().map(counts).collect() })
        };
        // A corrupt row starts anew: nothing in it can be saved.
        read().unwrap_or_default()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.slots.iter().flatten().flat_map(|count| count.to_le_bytes()));
        bytes
    }

    fn end(&self) -> u32 {
        self.first + self.slots.len() as u32
    }

    fn get(&self, slot: u32) -> SlotCounts {
        let index = slot.checked_sub(self.first).map(|index| index as usize);
        index.and_then(|index| self.slots.get(index)).copied().unwrap_or_default()
    }

    /// Adds to a slot, which may be new at either end; all counts of a slot are at most `capacity`.
    fn add(&mut self, slot: u32, kind: UptimeKind, count: u32, capacity: u32) {
        if count == 0 {
            return;
        }
        let is_far = |from: u32| slot.abs_diff(from) > MAX_DAYS;
        if !self.slots.is_empty() && is_far(self.first) && is_far(self.end()) {
            // The clock is or was wrong: the times with more slots are believed.
            if self.slots.len() > 2 {
                return;
            }
            self.slots.clear();
        }
        if self.slots.is_empty() {
            self.first = slot;
        }
        if slot < self.first {
            let missing = vec![SlotCounts::default(); (self.first - slot) as usize];
            self.slots.splice(0..0, missing);
            self.first = slot;
        } else if slot >= self.end() {
            self.slots.resize((slot - self.first) as usize + 1, SlotCounts::default());
        }
        let counts = &mut self.slots[(slot - self.first) as usize];
        let used: u32 = counts.iter().map(|count| u32::from(*count)).sum();
        let added = count.min(capacity.saturating_sub(used));
        let own = &mut counts[kind as usize];
        *own = own.saturating_add(u16::try_from(added).unwrap_or(u16::MAX));
    }

    fn drop_before(&mut self, slot: u32) -> Vec<(u32, SlotCounts)> {
        let count = slot.saturating_sub(self.first).min(self.slots.len() as u32);
        let first = self.first;
        self.first += count;
        let dropped = self.slots.drain(..count as usize);
        dropped.zip(first..).map(|(counts, slot)| (slot, counts)).collect()
    }
}

/// The availability of a host as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    hours: SlotRow,
    days: SlotRow,
}

const UPTIME_KINDS: [UptimeKind; 4] =
    [UptimeKind::Up, UptimeKind::Degraded, UptimeKind::Down, UptimeKind::Blind];

impl Availability {
    /// Decodes the two rows, as far as they exist.
    pub fn decode(hours: Option<&[u8]>, days: Option<&[u8]>) -> Availability {
        let row = |bytes: Option<&[u8]>| bytes.map(SlotRow::decode).unwrap_or_default();
        Availability { hours: row(hours), days: row(days) }
    }

    /// Encodes the row of hours.
    pub fn hours(&self) -> Vec<u8> {
        self.hours.encode()
    }

    /// Encodes the row of days.
    pub fn days(&self) -> Vec<u8> {
        self.days.encode()
    }

    /// When the newest slot of both rows begins.
    pub fn newest(&self) -> Wall {
        let newest = |row: &SlotRow, step| slots::start(row.end().saturating_sub(1), step);
        newest(&self.hours, HOUR).max(newest(&self.days, DAY))
    }

    /// Adds a time to the hour that `at` is in.
    pub fn add(&mut self, at: Wall, kind: UptimeKind, time: Duration) {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let hour = slots::slot(at, HOUR);
        if seconds == 0 {
            return;
        }
        if hour.abs_diff(self.hours.end()) > MAX_HOURS as u32 {
            // After a long gap or a jump of the clock all hours are added to their days.
            self.fold_into_days(u32::MAX);
        }
        self.hours.add(hour, kind, seconds, HOUR);
        if self.hours.slots.len() > MAX_HOURS {
            self.fold_into_days(self.hours.end() - MIN_HOURS as u32);
        }
    }

    /// Adds the time between two moments, hour by hour. Hours before `oldest` are left out.
    pub fn add_span(&mut self, from: Wall, to: Wall, kind: UptimeKind, oldest: Wall) {
        let mut at = from.max(oldest);
        while at < to {
            let end = slots::start(slots::slot(at, HOUR) + 1, HOUR).min(to);
            self.add(at, kind, end.since(at));
            at = end;
        }
    }

    fn fold_into_days(&mut self, before: u32) {
        for (hour, counts) in self.hours.drop_before(before) {
            for kind in UPTIME_KINDS {
                self.add_to_day(hour, kind, counts[kind as usize].into());
            }
        }
    }

    fn add_to_day(&mut self, hour: u32, kind: UptimeKind, seconds: u32) {
        self.days.add(hour / (DAY / HOUR), kind, seconds.div_ceil(DAY_UNIT), DAY / DAY_UNIT);
    }

    /// Drops the days that began before; true when there were any.
    pub fn drop_days_before(&mut self, before: Wall) -> bool {
        !self.days.drop_before(slots::slot(before, DAY)).is_empty()
    }

    /// The hours and days that are shown at a moment.
    pub fn view(&self, now: Wall) -> AvailabilityView {
        let (hour, day) = (slots::slot(now, HOUR), slots::slot(now, DAY));
        let hours: Vec<UptimeSlice> = (hour.saturating_sub(SHOWN_HOURS - 1)..=hour)
            .map(|hour| slice(slots::start(hour, HOUR), seconds(self.hours.get(hour), 1)))
            .collect();
        let days: Vec<UptimeSlice> = (day.saturating_sub(SHOWN_DAYS - 1)..=day)
            .map(|day| slice(slots::start(day, DAY), self.day(day)))
            .collect();
        AvailabilityView {
            availability_day: UptimeSlice::availability(&hours),
            availability_90_days: UptimeSlice::availability(&days),
            hours,
            days,
        }
    }

    fn day(&self, day: u32) -> [u32; 4] {
        let mut sum = seconds(self.days.get(day), DAY_UNIT);
        // Only the hours within the day are visited: a page shows 90 days of 200 hosts.
        let (from, to) = (day * (DAY / HOUR), (day + 1) * (DAY / HOUR));
        for hour in from.max(self.hours.first)..to.min(self.hours.end()) {
            let own = seconds(self.hours.get(hour), 1);
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        sum
    }
}

fn seconds(counts: SlotCounts, unit: u32) -> [u32; 4] {
    counts.map(|count| u32::from(count) * unit)
}

fn slice(start: Wall, counts: [u32; 4]) -> UptimeSlice {
    let of = |kind: UptimeKind| Duration::from_secs(counts[kind as usize].into());
    UptimeSlice {
        start,
        up: of(UptimeKind::Up),
        degraded: of(UptimeKind::Degraded),
        down: of(UptimeKind::Down),
        blind: of(UptimeKind::Blind),
        maintained: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21T00:00:00Z.
    const MIDNIGHT: Wall = Wall(1_795_219_200_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn again(availability: &Availability) -> Availability {
        Availability::decode(Some(&availability.hours()), Some(&availability.days()))
    }

    #[test]
    fn hours_become_days_and_no_second_is_lost_or_told_twice() {
        let mut availability = Availability::default();
        for slot in 0..6 * 24 * 30 {
            let at = MIDNIGHT + slot * 10 * MINUTE;
            let kind = if slot % 6 == 5 { UptimeKind::Down } else { UptimeKind::Up };
            availability.add(at, kind, 10 * MINUTE);
            availability = again(&availability);
            assert!(availability.hours.slots.len() <= MAX_HOURS);
        }
        let end = MIDNIGHT + 30 * 24 * 60 * MINUTE;
        let view = availability.view(end - MINUTE);
        assert_eq!((view.hours.len(), view.days.len()), (24, 90));
        for hour in &view.hours {
            assert_eq!((hour.up, hour.down), (50 * MINUTE, 10 * MINUTE));
        }
        for day in &view.days[60..] {
            assert_eq!((day.up, day.down), (24 * 50 * MINUTE, 24 * 10 * MINUTE));
        }
        assert!(view.days[..60].iter().all(|day| day.up == Duration::ZERO));
        let near = |value: Option<f64>| (value.unwrap() - 5.0 / 6.0).abs() < 1e-9;
        assert!(near(view.availability_day) && near(view.availability_90_days));
    }

    #[test]
    fn an_outage_of_days_is_blind_in_each_of_its_hours() {
        let mut availability = Availability::default();
        availability.add(MIDNIGHT, UptimeKind::Up, 30 * MINUTE);
        let end = MIDNIGHT + 10 * 24 * 60 * MINUTE + 20 * MINUTE;
        availability.add_span(MIDNIGHT + 30 * MINUTE, end, UptimeKind::Blind, Wall(0));
        let view = again(&availability).view(end);
        let day = &view.days[79];
        assert_eq!((day.start, day.up), (MIDNIGHT, 30 * MINUTE));
        assert_eq!(day.blind, 24 * 60 * MINUTE - 30 * MINUTE);
        assert!(view.days[80..89].iter().all(|day| day.blind == 24 * 60 * MINUTE));
        assert_eq!(view.days[89].blind, 20 * MINUTE);
        assert_eq!(view.availability_90_days, Some(1.0));
        assert_eq!(view.availability_day, None);
    }

    #[test]
    fn an_hour_has_sixty_minutes() {
        let mut availability = Availability::default();
        availability.add(MIDNIGHT, UptimeKind::Up, 50 * MINUTE);
        availability.add(MIDNIGHT, UptimeKind::Blind, 50 * MINUTE);
        let hour = availability.view(MIDNIGHT).hours[23];
        assert_eq!((hour.up, hour.blind), (50 * MINUTE, 10 * MINUTE));
    }

    #[test]
    fn what_is_old_is_let_go() {
        let mut availability = Availability::default();
        availability.add_span(MIDNIGHT, MIDNIGHT + 20 * 24 * 60 * MINUTE, UptimeKind::Up, Wall(0));
        assert!(availability.drop_days_before(MIDNIGHT + 5 * 24 * 60 * MINUTE));
        assert!(!availability.drop_days_before(MIDNIGHT + 5 * 24 * 60 * MINUTE));
        assert_eq!(availability.days.first, slots::slot(MIDNIGHT, DAY) + 5);
    }

    proptest! {
        #[test]
        fn clocks_may_jump(steps in proptest::collection::vec((-400_000..400_000i64, 0..4000u64), 1..60)) {
            let mut availability = Availability::default();
            let mut at = MIDNIGHT;
            for (jump, spent) in steps {
                at = Wall(at.0 + jump * 1000);
                availability.add(at, UptimeKind::Up, Duration::from_secs(spent));
                availability = again(&availability);
                let view = availability.view(at);
                let full = |slices: &[UptimeSlice], step: u32| slices.iter().all(|slice| {
                    slice.up <= Duration::from_secs(step.into())
                });
                prop_assert!(full(&view.hours, HOUR) && availability.hours.slots.len() <= MAX_HOURS);
                prop_assert!(full(&view.days, DAY + HOUR));
            }
        }

        #[test]
        fn what_is_no_row_is_nothing(bytes: Vec<u8>) {
            let mut versioned = vec![VERSION];
            versioned.extend(&bytes);
            for bytes in [&bytes, &versioned] {
                let availability = Availability::decode(Some(bytes), Some(bytes));
                let _ = availability.view(MIDNIGHT);
            }
        }
    }
}
