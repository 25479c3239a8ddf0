//! How long the history is kept (the section `history`), and which rows are removed: what is too
//! old, and the oldest when all of it takes too much room.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::availability::Availability;
use super::samples::MetricNames;
use super::slots::{self, Resolution};
use crate::clock::Wall;
use crate::config_file::Section;
use crate::event::EventId;
use crate::store::{Snapshot, Table, Write};
use crate::view::PlanView;

const DAY: Duration = Duration::from_secs(86_400);

/// The ages that may be configured: with less than a day there would be nothing to show.
const AGES: RangeInclusive<Duration> = DAY..=Duration::from_secs(3660 * 86_400);

/// The section `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// How long events are kept.
    pub events: Duration,
    /// How long metrics are kept by the day; by ten minutes it is two days, by the hour two weeks.
    pub metrics: Duration,
    /// How long the availability of hosts is kept.
    pub availability: Duration,
    /// How many bytes all of it may take; beyond this the oldest is removed.
    pub max_bytes: u64,
}

impl Default for RetentionSettings {
    fn default() -> RetentionSettings {
        RetentionSettings {
            events: 90 * DAY,
            metrics: 400 * DAY,
            availability: 400 * DAY,
            max_bytes: 50_000_000,
        }
    }
}

impl RetentionSettings {
    /// Reads the section.
    pub fn read(section: &mut Section) -> RetentionSettings {
        let defaults = RetentionSettings::default();
        let bytes = section.number("max_bytes", 1_000_000..=100_000_000_000);
        RetentionSettings {
            events: section.duration_within("events", AGES).unwrap_or(defaults.events),
            metrics: section.duration_within("metrics", AGES).unwrap_or(defaults.metrics),
            availability: section
                .duration_within("availability", AGES)
                .unwrap_or(defaults.availability),
            max_bytes: bytes
                .and_then(|bytes| u64::try_from(bytes).ok())
                .unwrap_or(defaults.max_bytes),
        }
    }
}

/// How many rows are read at a time.
const ROWS_PER_READ: usize = 2000;
/// How many rows of a table are removed at a time.
const MAX_REMOVALS: usize = 20_000;

/// Tables whose keys are in order of time.
const BY_TIME: [Table; 3] = [Table::Metrics, Table::Events, Table::History];

/// Removes rows that are too old.
pub fn expired_rows(snapshot: &Snapshot, settings: &RetentionSettings, now: Wall) -> Vec<Write> {
    let mut removals = Vec::new();
    let mut remove = |table, from: &str, to: &str| {
        let keys = snapshot.keys_before(table, from, to, MAX_REMOVALS);
        removals.extend(keys.into_iter().map(|key| Write::remove(table, key)));
    };
    for resolution in Resolution::ALL {
        let first = resolution.slot(now - resolution.retention(settings.metrics));
        remove(Table::Metrics, resolution.prefix(), &resolution.key(first, ""));
    }
    let oldest = now - settings.events;
    // Ids are derived from the time.
    let oldest_id = EventId::default().next(oldest);
    remove(Table::Events, "", &oldest_id.to_string());
    remove(Table::History, "", &format!("{:020}", oldest_id.0));
    removals
}

/// Removes backup plans that were not analyzed for so long that all about them is too old, and
/// likewise the rows of hosts of which nothing was recorded.
pub fn abandoned_rows(snapshot: &Snapshot, settings: &RetentionSettings, now: Wall) -> Vec<Write> {
    let mut removals = Vec::new();
    for_each_row(snapshot, Table::Plans, |key, bytes| {
        let at = serde_json::from_slice(bytes).map(|plan: PlanView| plan.at);
        if at.is_ok_and(|at| at < now - settings.events) {
            removals.push(Write::remove(Table::Plans, key));
        }
    });
    for_each_row(snapshot, Table::Names, |key, bytes| {
        let names: MetricNames = serde_json::from_slice(bytes).unwrap_or_default();
        if slots::start(names.day, slots::DAY) < now - settings.metrics {
            removals.push(Write::remove(Table::Names, key));
        }
    });
    for table in [Table::Hours, Table::Days] {
        for_each_row(snapshot, table, |key, bytes| {
            let availability = match table {
                Table::Hours => Availability::decode(Some(bytes), None),
                _ => Availability::decode(None, Some(bytes)),
            };
            if availability.newest() < now - settings.availability {
                removals.push(Write::remove(table, key));
            }
        });
    }
    removals
}

fn for_each_row(snapshot: &Snapshot, table: Table, mut visit: impl FnMut(&str, &[u8])) {
    let mut from = String::new();
    loop {
        // No key begins with a character after this one.
        let rows = snapshot.range(table, &from, "\u{10ffff}", ROWS_PER_READ);
        rows.iter().for_each(|(key, bytes)| visit(key, bytes));
        let Some((last, _)) = rows.last().filter(|_| rows.len() == ROWS_PER_READ) else { return };
        from = format!("{last}\0");
    }
}

/// Removes the oldest rows of the largest table, when all tables take more than `max_bytes`.
pub fn excess_rows(snapshot: &Snapshot, max_bytes: u64) -> Vec<Write> {
    let fixed: u64 =
        [Table::Hours, Table::Days, Table::Names].map(|table| snapshot.bytes(table)).iter().sum();
    let sizes = BY_TIME.map(|table| (snapshot.bytes(table), table));
    let all = fixed + sizes.iter().map(|(bytes, _)| bytes).sum::<u64>();
    let (Some(excess), Some((_, table))) = (all.checked_sub(max_bytes), sizes.into_iter().max())
    else {
        return Vec::new();
    };
    let keys = snapshot.oldest(table, excess).into_iter();
    keys.map(|key| Write::remove(table, key)).collect()
}
