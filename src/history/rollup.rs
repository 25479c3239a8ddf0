//! Makes the rows of a slot from the samples of hosts, and the rows of coarser slots from finer ones.
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::availability::{Availability, UptimeKind};
use super::samples::{MetricNames, MetricPoint, NamesRoom, SampleRow};
use super::slots::{self, DAY, Resolution};
use crate::clock::Wall;
use crate::store::{Table, Write};
use crate::view::{MetricSummary, UptimeSample};

/// The stored rows of a host that a sample changes.
#[derive(Debug, Default)]
pub struct HostRows {
    /// Its availability by hour.
    pub hours: Option<Vec<u8>>,
    /// Its availability by day.
    pub days: Option<Vec<u8>>,
    /// Its newest list of names.
    pub names: Option<Vec<u8>>,
    /// Its metrics of the same ten minutes, written before a restart.
    pub points: Option<Vec<u8>>,
}

/// Makes the rows of one slot.
#[derive(Debug)]
pub struct SlotWriter<'a> {
    /// The slot of ten minutes.
    pub slot: u32,
    /// From when to when the daemon did not listen.
    pub outages: &'a [(Wall, Wall)],
    /// Days before this are dropped.
    pub oldest: Wall,
}

impl SlotWriter<'_> {
    /// The rows that a sample changes; metrics whose new names find no room are left out.
    pub fn rows(
        &self,
        sample: &UptimeSample,
        stored: &HostRows,
        room: &mut NamesRoom,
    ) -> Vec<Write> {
        let mut rows = self.availability_rows(sample, stored);
        rows.extend(self.sample_rows(sample, stored, room));
        rows
    }

    fn availability_rows(&self, sample: &UptimeSample, stored: &HostRows) -> Vec<Write> {
        let at = Resolution::TenMinutes.start(self.slot);
        let mut availability =
            Availability::decode(stored.hours.as_deref(), stored.days.as_deref());
        let before = availability.clone();
        availability.add(at, UptimeKind::Up, sample.up);
        availability.add(at, UptimeKind::Degraded, sample.degraded);
        availability.add(at, UptimeKind::Down, sample.down);
        if !sample.not_expected {
            for (from, to) in self.outages {
                availability.add_span(*from, *to, UptimeKind::Blind, self.oldest);
            }
        }
        let mut rows = Vec::new();
        if availability.days() != before.days() {
            availability.drop_days_before(self.oldest);
            rows.push(Write::raw(Table::Days, &*sample.host, availability.days()));
        }
        if availability.hours() != before.hours() {
            rows.push(Write::raw(Table::Hours, &*sample.host, availability.hours()));
        }
        rows
    }

    fn sample_rows(
        &self,
        sample: &UptimeSample,
        stored: &HostRows,
        room: &mut NamesRoom,
    ) -> Vec<Write> {
        let names = stored.names.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let mut names: MetricNames = names.unwrap_or_default();
        let all: Vec<Arc<str>> =
            sample.metrics.iter().map(|summary| summary.path.clone()).collect();
        let mut fits = names.affordable(&all, room).into_iter();
        let metrics: Vec<&MetricSummary> =
            sample.metrics.iter().filter(|_| fits.next().unwrap_or_default()).collect();
        if metrics.is_empty() {
            return Vec::new();
        }
        let paths: Vec<Arc<str>> = metrics.iter().map(|summary| summary.path.clone()).collect();
        let epoch_before = names.epoch;
        let day = slots::slot(Resolution::TenMinutes.start(self.slot), DAY);
        let (indexes, changed) = names.indexes(&paths, day);
        let mut points: Vec<(u16, MetricPoint)> =
            indexes.into_iter().zip(metrics.iter().map(|summary| point(summary))).collect();
        points.sort_unstable_by_key(|(index, _)| *index);
        let count = metrics.iter().map(|summary| summary.count).max().unwrap_or(0);
        let mut row = SampleRow { epoch: names.epoch, count, points };
        if let Some(earlier) = stored.points.as_deref().and_then(SampleRow::decode) {
            row = earlier.merge(row);
        }
        let key = Resolution::TenMinutes.key(self.slot, &sample.host);
        let mut rows = vec![Write::raw(Table::Metrics, key, row.encode())];
        if changed {
            rows.push(Write::put(
                Table::Names,
                MetricNames::key(&sample.host, names.epoch),
                &names,
            ));
        }
        if names.epoch != epoch_before {
            let outdated = MetricNames::outdated_key(&sample.host, names.epoch);
            rows.push(Write::remove(Table::Names, outdated));
        }
        rows
    }
}

fn point(summary: &MetricSummary) -> MetricPoint {
    MetricPoint { mean: summary.mean, least: summary.least, most: summary.most }
}

/// The rows of one slot of a coarser resolution, by host, merged from finer rows in order of time.
#[derive(Debug, Default)]
pub struct Rollup(BTreeMap<String, SampleRow>);

impl Rollup {
    /// Adds a finer row with its key.
    pub fn add(&mut self, key: &str, bytes: &[u8]) {
        let (Some((_, host)), Some(row)) = (key.split_once('/'), SampleRow::decode(bytes)) else {
            return;
        };
        let merged = match self.0.remove(host) {
            Some(earlier) => earlier.merge(row),
            None => row,
        };
        self.0.insert(host.to_owned(), merged);
    }

    /// The rows to store.
    pub fn rows(self, resolution: Resolution, slot: u32) -> Vec<Write> {
        let write = |(host, row): (String, SampleRow)| {
            Write::raw(Table::Metrics, resolution.key(slot, &host), row.encode())
        };
        self.0.into_iter().map(write).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT: Wall = Wall(1_795_291_928_000);

    fn sample(paths: &[&str], value: f32) -> UptimeSample {
        let summary = |path: &&str| MetricSummary {
            path: (*path).into(),
            count: 6,
            mean: value,
            least: value - 1.0,
            most: value + 1.0,
        };
        let ten = Duration::from_secs(600);
        let metrics = paths.iter().map(summary).collect();
        UptimeSample { host: "web1".into(), up: ten, metrics, ..UptimeSample::default() }
    }

    fn writer() -> SlotWriter<'static> {
        SlotWriter { slot: Resolution::TenMinutes.slot(AT), outages: &[], oldest: Wall(0) }
    }

    fn rows(writer: &SlotWriter, sample: &UptimeSample, stored: &HostRows) -> Vec<Write> {
        writer.rows(sample, stored, &mut NamesRoom::new(1_000_000, 0))
    }

    fn bytes(rows: &[Write], table: Table) -> Option<Vec<u8>> {
        rows.iter().find(|row| row.table == table).and_then(|row| row.value.clone())
    }

    #[test]
    fn the_same_ten_minutes_of_two_daemons_are_one_row() {
        let first = rows(&writer(), &sample(&["a", "b"], 1.0), &HostRows::default());
        assert_eq!(first.len(), 3);
        let stored = HostRows {
            hours: bytes(&first, Table::Hours),
            names: bytes(&first, Table::Names),
            points: bytes(&first, Table::Metrics),
            days: None,
        };
        let second = rows(&writer(), &sample(&["b", "c"], 3.0), &stored);
        let row = SampleRow::decode(&bytes(&second, Table::Metrics).unwrap()).unwrap();
        assert_eq!(row.points.len(), 3);
        assert_eq!(row.point(1), Some(MetricPoint { mean: 2.0, least: 0.0, most: 4.0 }));
    }

    #[test]
    fn nothing_is_written_of_a_host_that_nobody_misses() {
        let stopped =
            UptimeSample { host: "web1".into(), not_expected: true, ..UptimeSample::default() };
        let outages = [(AT, AT + Duration::from_secs(100))];
        let writer = SlotWriter { outages: &outages, ..writer() };
        assert_eq!(rows(&writer, &stopped, &HostRows::default()), []);
        let missed = UptimeSample { not_expected: false, ..stopped };
        assert_eq!(rows(&writer, &missed, &HostRows::default()).len(), 1);
    }

    #[test]
    fn a_rollup_weighs_what_it_is_made_of() {
        let mut rollup = Rollup::default();
        let row = |count, value| SampleRow {
            epoch: 0,
            count,
            points: vec![(0, MetricPoint { mean: value, least: value, most: value })],
        };
        rollup.add("a00000001/web1", &row(1, 1.0).encode());
        rollup.add("a00000002/web1", &row(3, 5.0).encode());
        rollup.add("a00000002/web2", &row(3, 5.0).encode());
        rollup.add("a00000003/web2", b"junk");
        let rows = rollup.rows(Resolution::Hours, 7);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].key, Resolution::Hours.key(7, "web1"));
        let made = SampleRow::decode(rows[0].value.as_deref().unwrap()).unwrap();
        assert_eq!(made.point(0), Some(MetricPoint { mean: 4.0, least: 1.0, most: 5.0 }));
    }
}
