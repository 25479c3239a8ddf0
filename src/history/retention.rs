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

/// What may be kept: a day at least, or there would be nothing to show; ten years at most.
const AGES: RangeInclusive<Duration> = DAY..=Duration::from_secs(3660 * 86_400);

/// The section `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// How long it is kept what happened.
    pub events: Duration,
    /// How long the values of metrics are kept: by ten minutes for two days, by the hour for two
    /// weeks, by the day for so long.
    pub metrics: Duration,
    /// How long it is kept how hosts fared.
    pub availability: Duration,
    /// What all of it may take; the oldest gives way.
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

/// So many rows are read at a time.
const ROWS_PER_READ: usize = 2000;
/// So many rows of a kind go in one turn.
const MAX_REMOVALS: usize = 20_000;

/// Tables whose oldest rows come first.
const BY_TIME: [Table; 3] = [Table::Metrics, Table::Events, Table::History];

/// The removal of what is too old.
pub fn expired(snapshot: &Snapshot, settings: &RetentionSettings, now: Wall) -> Vec<Write> {
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
    // Numbers are made of the time.
    let oldest_id = EventId::default().next(oldest);
    remove(Table::Events, "", &oldest_id.to_string());
    remove(Table::History, "", &format!("{:020}", oldest_id.0));
    removals
}

/// The removal of backup plans that nobody speaks of any more, and of the rows of hosts of which
/// nothing was recorded for so long that all of it is too old.
pub fn of_removed_hosts(
    snapshot: &Snapshot,
    settings: &RetentionSettings,
    now: Wall,
) -> Vec<Write> {
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
        // No key begins with a letter behind this one.
        let rows = snapshot.range(table, &from, "\u{10ffff}", ROWS_PER_READ);
        rows.iter().for_each(|(key, bytes)| visit(key, bytes));
        let Some((last, _)) = rows.last().filter(|_| rows.len() == ROWS_PER_READ) else { return };
        from = format!("{last}\0");
    }
}

/// The removal of the oldest rows, when all of it takes more than `most` bytes: from the table
/// that takes most.
pub fn oversized(snapshot: &Snapshot, max_bytes: u64) -> Vec<Write> {
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
