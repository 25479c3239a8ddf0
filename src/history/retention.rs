//! How long the history is kept (the section `history`), and which rows are removed: what is too
//! old. What takes too much room the store removes by the limit that is made here.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::availability::Availability;
use super::samples::MetricNames;
use super::slots::{self, Resolution};
use crate::clock::Wall;
use crate::config_file::Section;
use crate::event::{self, EventId, Level};
use crate::store::{HistoryLimit, Snapshot, Table, Write};
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
    /// The limit of the store.
    pub fn limit(&self) -> HistoryLimit {
        HistoryLimit { max_bytes: self.max_bytes, is_minor }
    }

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

/// What a row of the history says of its weight: those of events, and those of deliveries.
#[derive(Deserialize)]
#[serde(default)]
struct Weight<'a> {
    kind: Cow<'a, str>,
    level: Level,
    minor: bool,
}

impl Default for Weight<'_> {
    fn default() -> Self {
        Weight { kind: Cow::default(), level: Level::Critical, minor: false }
    }
}

/// Whether a row of the events or of the deliveries matters less than an alarm.
fn is_minor(row: &[u8]) -> bool {
    serde_json::from_slice(row)
        .is_ok_and(|row: Weight| row.minor || event::is_minor(&row.kind, row.level))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_less_than_an_alarm_is_minor() {
        for (row, minor) in [
            (r#"{"id":"1","kind":"message","level":"warning","text":"web1 x"}"#, true),
            (r#"{"kind":"back","level":"ok"}"#, true),
            (r#"{"kind":"threshold","level":"warning"}"#, true),
            (r#"{"kind":"threshold","level":"critical"}"#, false),
            (r#"{"kind":"overdue","level":"warning"}"#, false),
            (r#"{"kind":"shutdown","level":"warning"}"#, false),
            (r#"{"kind":"booted","level":"info"}"#, false),
            (r#"{"kind":"backup","level":"ok"}"#, false),
            (r#"{"kind":"store_refuses","level":"critical"}"#, false),
            (r#"{"kind":"too_many_messages","level":"warning"}"#, false),
            (r#"{"event":1,"level":"warning","title":"web1 x","minor":true}"#, true),
            (r#"{"event":1,"level":"warning","title":"web1 ipv4 overdue"}"#, false),
            (r#"{"kind":"message"}"#, false),
            ("damaged", false),
        ] {
            assert_eq!(is_minor(row.as_bytes()), minor, "{row}");
        }
    }
}
