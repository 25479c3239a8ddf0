//! Which alerts wait for their pipeline, which were reported, and what another delivery of one of
//! them means. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::alert::Alert;
use crate::clock::{Now, Wall};
use crate::store::{Table, Write};

/// So many alert instances may wait; beyond it the sender is asked to come again.
pub const MOST_WAITING: usize = 10_000;
/// So many bytes of them may.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// So many pipelines run at a time.
pub const MOST_PIPELINES: usize = 64;
/// A pipeline that took the daemon down so often is not tried again: it is reported as it is.
pub const MOST_ATTEMPTS: u32 = 3;
/// So long a reported instance is remembered when nothing repeats it.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 3600);
const BATCH: &str = "batch/";
const REPORTED: &str = "reported/";

/// Alerts that came together and are handled by one pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertBatch {
    /// The alerts, none of them waiting elsewhere. The pipeline holds the same ones.
    #[serde(serialize_with = "each", deserialize_with = "shared")]
    pub alerts: Arc<[Alert]>,
    /// When they came.
    pub accepted: Now,
    /// How many pipelines began on it: more than one means that the daemon died meanwhile.
    #[serde(default)]
    pub attempts: u32,
}

fn each<S: Serializer>(alerts: &Arc<[Alert]>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(alerts.iter())
}

fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[Alert]>, D::Error> {
    Vec::deserialize(from).map(Arc::from)
}

/// The number of a batch, rising.
pub type BatchId = u64;

/// What became of alerts that were offered.
#[derive(Debug, PartialEq)]
pub enum Enqueued {
    /// A new batch, to be stored with this row.
    New(Write),
    /// All of them wait already, or were reported lately: nothing is to be stored.
    Known,
    /// Too many wait.
    Full,
}

/// A row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRow {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl CorruptRow {
    /// Whether alerts that were accepted may be lost with it. What notes a report is no loss: at
    /// worst somebody is told again.
    pub fn may_be_alerts(&self) -> bool {
        !self.key.starts_with(REPORTED)
    }

    /// Takes the row out of the store, where it would be met again at each start.
    pub fn remove(&self) -> Write {
        Write::remove(Table::Pipelines, self.key.clone())
    }
}

/// Alerts on their way through the pipelines.
#[derive(Debug, Default)]
pub struct AlertQueue {
    batches: BTreeMap<BatchId, AlertBatch>,
    /// Batches with a pipeline, and whether it has begun to look.
    running: BTreeMap<BatchId, bool>,
    closed: bool,
    waiting: BTreeSet<String>,
    /// How many bytes wait.
    bytes: usize,
    damaged: Vec<CorruptRow>,
    reported: BTreeMap<String, Wall>,
    last: BatchId,
    /// An instance is reported again after this time; none: never.
    renotify: Option<Duration>,
}

impl AlertQueue {
    /// Takes over the rows of [`Table::Pipelines`], each of them text and JSON.
    pub fn restore(rows: Vec<(String, Vec<u8>)>, renotify: Option<Duration>) -> AlertQueue {
        let mut intake = AlertQueue { renotify, ..AlertQueue::default() };
        for (key, row) in rows {
            if let Err(why) = intake.take_over(&key, &row) {
                intake.damaged.push(CorruptRow { key, why });
            }
        }
        intake
    }

    fn take_over(&mut self, key: &str, row: &[u8]) -> Result<(), String> {
        if let Some(number) = key.strip_prefix(BATCH) {
            let id = number.parse().map_err(|why| format!("its number is none: {why}"))?;
            let batch: AlertBatch = serde_json::from_slice(row).map_err(|why| why.to_string())?;
            self.last = self.last.max(id);
            self.waiting.extend(batch.alerts.iter().map(Alert::instance));
            self.bytes += size(&batch.alerts);
            self.batches.insert(id, batch);
        } else if let Some(instance) = key.strip_prefix(REPORTED) {
            let at = serde_json::from_slice(row).map_err(|why| why.to_string())?;
            self.reported.insert(instance.to_owned(), at);
        } else {
            return Err("no row is called so".into());
        }
        Ok(())
    }

    /// The rows that could not be read, once: somebody has to be told, and they have to go.
    pub fn take_damaged(&mut self) -> Vec<CorruptRow> {
        std::mem::take(&mut self.damaged)
    }

    /// Another configuration: how soon an instance is reported again.
    pub fn renotify_after(&mut self, renotify: Option<Duration>) {
        self.renotify = renotify;
    }

    /// Takes alerts in. Those that wait already are joined, those that were reported lately are
    /// not reported again.
    pub fn offer(&mut self, alerts: Vec<Alert>, now: Now) -> Enqueued {
        let mut fresh = Vec::new();
        let mut seen = BTreeSet::new();
        for alert in alerts {
            let instance = alert.instance();
            let known = self.waiting.contains(&instance) || self.was_told(&instance, now.wall);
            if !known && seen.insert(instance) {
                fresh.push(alert);
            }
        }
        if fresh.is_empty() {
            return Enqueued::Known;
        }
        let bytes = self.bytes + size(&fresh);
        if self.waiting.len() + fresh.len() > MOST_WAITING || bytes > MOST_BYTES {
            return Enqueued::Full;
        }
        self.bytes = bytes;
        let id = self.next_id(now.wall);
        self.waiting.extend(seen);
        let batch = AlertBatch { alerts: fresh.into(), accepted: now, attempts: 0 };
        let write = Write::put(Table::Pipelines, batch_key(id), &batch);
        self.batches.insert(id, batch);
        Enqueued::New(write)
    }

    /// Made of the time, so that it stays unique when the store was lost.
    fn next_id(&mut self, now: Wall) -> BatchId {
        let from_time = u64::try_from(now.0).unwrap_or(0) << 12;
        self.last = from_time.max(self.last + 1);
        self.last
    }

    fn was_told(&self, instance: &str, now: Wall) -> bool {
        // A time that has not come yet was read from a wrong clock.
        let Some(at) = self.reported.get(instance).filter(|at| **at <= now) else { return false };
        self.renotify.is_none_or(|after| now.since(*at) < after)
    }

    /// The oldest batch without a pipeline, if one more may run; it runs from now on.
    pub fn start(&mut self) -> Option<(BatchId, AlertBatch)> {
        if self.closed || self.running.len() >= MOST_PIPELINES {
            return None;
        }
        let (id, batch) = self.batches.iter().find(|(id, _)| !self.running.contains_key(id))?;
        let started = (*id, batch.clone());
        self.running.insert(started.0, false);
        Some(started)
    }

    /// Notes that a pipeline is about to look; the row goes to disk before it does. None when it
    /// must not look any more.
    pub fn attempt(&mut self, id: BatchId) -> Option<(u32, Write)> {
        *self.running.get_mut(&id)? = true;
        let batch = self.batches.get_mut(&id)?;
        batch.attempts += 1;
        Some((batch.attempts, Write::put(Table::Pipelines, batch_key(id), batch)))
    }

    /// Ends a batch that was reported; the rows belong into the transaction of the report.
    pub fn reported(&mut self, id: BatchId, now: Wall) -> Vec<Write> {
        self.running.remove(&id);
        let Some(batch) = self.batches.remove(&id) else { return Vec::new() };
        let mut writes = vec![Write::remove(Table::Pipelines, batch_key(id))];
        self.bytes = self.bytes.saturating_sub(size(&batch.alerts));
        for alert in batch.alerts.iter() {
            let instance = alert.instance();
            self.waiting.remove(&instance);
            writes.push(Write::put(Table::Pipelines, format!("{REPORTED}{instance}"), &now));
            self.reported.insert(instance, now);
        }
        writes.extend(self.forget_old(now));
        writes
    }

    /// Puts a batch back whose pipeline was stopped before its end. An attempt that was cut off
    /// on purpose is not counted: the row says so.
    pub fn put_back(&mut self, id: BatchId) -> Option<Write> {
        let attempted = self.running.remove(&id)?;
        let batch = self.batches.get_mut(&id).filter(|_| attempted)?;
        batch.attempts = batch.attempts.saturating_sub(1);
        Some(Write::put(Table::Pipelines, batch_key(id), batch))
    }

    /// Puts all batches back whose pipelines run, and begins no more: some of them hang where they
    /// cannot be stopped in time.
    pub fn close(&mut self) -> Vec<Write> {
        self.closed = true;
        let running: Vec<BatchId> = self.running.keys().copied().collect();
        running.into_iter().filter_map(|id| self.put_back(id)).collect()
    }

    fn forget_old(&mut self, now: Wall) -> Vec<Write> {
        let memory = self.renotify.unwrap_or_default().max(MEMORY);
        let old = self.reported.iter().filter(|(_, at)| now.since(**at) > memory);
        let old: Vec<String> = old.map(|(instance, _)| instance.clone()).collect();
        old.into_iter()
            .map(|instance| {
                self.reported.remove(&instance);
                Write::remove(Table::Pipelines, format!("{REPORTED}{instance}"))
            })
            .collect()
    }

    /// How many pipelines run or wait.
    pub fn pipelines(&self) -> usize {
        self.batches.len()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let batches = self.batches.iter();
        let reported = self.reported.iter();
        batches
            .map(|(id, batch)| Write::put(Table::Pipelines, batch_key(*id), batch))
            .chain(reported.map(|(instance, at)| {
                Write::put(Table::Pipelines, format!("{REPORTED}{instance}"), at)
            }))
            .collect()
    }
}

fn size(alerts: &[Alert]) -> usize {
    alerts.iter().map(Alert::size).sum()
}

fn batch_key(id: BatchId) -> String {
    format!("{BATCH}{id:020}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Now {
        Now { mono: Mono(seconds * 1000), wall: Wall(1_800_000_000_000 + seconds * 1000) }
    }

    fn alert(fingerprint: &str) -> Alert {
        Alert {
            name: "BackupFailed".into(),
            fingerprint: fingerprint.into(),
            starts_at: Some(Wall(1)),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn intake() -> AlertQueue {
        AlertQueue::restore(Vec::new(), Some(HOUR))
    }

    #[test]
    fn an_alert_that_waits_is_joined_and_one_that_was_reported_comes_again_after_the_interval() {
        let mut intake = intake();
        assert!(matches!(intake.offer(vec![alert("a"), alert("a")], at(0)), Enqueued::New(_)));
        assert_eq!(intake.offer(vec![alert("a")], at(1)), Enqueued::Known);
        let (id, batch) = intake.start().unwrap();
        assert_eq!(batch.alerts.len(), 1);
        assert_eq!(intake.offer(vec![alert("a")], at(2)), Enqueued::Known, "its pipeline runs");
        intake.reported(id, at(30).wall);
        assert_eq!(intake.offer(vec![alert("a")], at(31)), Enqueued::Known);
        assert!(matches!(intake.offer(vec![alert("a")], at(3_631)), Enqueued::New(_)));
    }

    #[test]
    fn a_new_alert_beside_known_ones_gets_a_pipeline_of_its_own() {
        let mut intake = intake();
        intake.offer(vec![alert("a")], at(0));
        intake.offer(vec![alert("a"), alert("b")], at(1));
        intake.start().unwrap();
        assert_eq!(*intake.start().unwrap().1.alerts, [alert("b")]);
        assert_eq!(intake.start(), None);
    }

    #[test]
    fn what_was_stored_is_resumed_and_its_attempts_are_counted() {
        let mut disk = BTreeMap::new();
        let mut keep = |writes: Vec<Write>| {
            for write in writes {
                match write.value {
                    Some(value) => drop(disk.insert(write.key, value)),
                    None => drop(disk.remove(&write.key)),
                }
            }
            disk.clone().into_iter().collect::<Vec<_>>()
        };
        let mut first = intake();
        let Enqueued::New(write) = first.offer(vec![alert("a")], at(0)) else { panic!() };
        keep(vec![write]);
        let (id, _) = first.start().unwrap();
        let rows = keep(vec![first.attempt(id).unwrap().1]);
        let mut second = AlertQueue::restore(rows, Some(HOUR));
        assert_eq!(second.offer(vec![alert("a")], at(5)), Enqueued::Known);
        let (id, batch) = second.start().unwrap();
        assert_eq!(batch.attempts, 1);
        let rows = keep(second.reported(id, at(9).wall));
        let mut third = AlertQueue::restore(rows, Some(HOUR));
        assert_eq!(third.pipelines(), 0);
        assert_eq!(third.offer(vec![alert("a")], at(10)), Enqueued::Known, "it was reported");
    }

    #[test]
    fn attempts_that_end_with_the_daemon_on_purpose_are_not_counted() {
        let mut intake = intake();
        for name in ["a", "b", "c"] {
            intake.offer(vec![alert(name)], at(0));
        }
        let (hangs, _) = intake.start().unwrap();
        let (waits, _) = intake.start().unwrap();
        assert_eq!(intake.attempt(hangs).unwrap().0, 1);
        let writes = intake.close();
        assert_eq!(writes.len(), 1, "the other has not begun to look");
        let row: AlertBatch = serde_json::from_slice(writes[0].value.as_ref().unwrap()).unwrap();
        assert_eq!(row.attempts, 0);
        assert_eq!((intake.start(), intake.attempt(waits)), (None, None));
        assert_eq!(intake.put_back(hangs), None, "it comes late and is not counted twice");
        assert_eq!(intake.reported(hangs, at(1).wall).len(), 2, "it found an answer after all");
    }

    #[test]
    fn pipelines_are_bounded_and_the_rest_waits() {
        let mut intake = intake();
        for n in 0..100 {
            intake.offer(vec![alert(&n.to_string())], at(0));
        }
        let started: Vec<_> = std::iter::from_fn(|| intake.start()).collect();
        assert_eq!(started.len(), MOST_PIPELINES);
        intake.reported(started[0].0, at(1).wall);
        assert!(intake.start().is_some());
    }

    #[test]
    fn too_many_alerts_are_sent_away_and_none_is_half_taken() {
        let mut intake = intake();
        let many = |from: usize, to: usize| (from..to).map(|n| alert(&n.to_string())).collect();
        assert!(matches!(intake.offer(many(0, 9_999), at(0)), Enqueued::New(_)));
        assert_eq!(intake.offer(many(9_990, 10_001), at(0)), Enqueued::Full);
        assert!(matches!(intake.offer(many(10_000, 10_001), at(0)), Enqueued::New(_)));
    }

    #[test]
    fn alerts_that_waited_were_bounded_in_number_but_not_in_bytes() {
        let mut intake = intake();
        let large = |n: usize| Alert {
            annotations: [("summary".to_owned(), "x".repeat(1024 * 1024))].into(),
            ..alert(&n.to_string())
        };
        for n in 0..15 {
            assert!(matches!(intake.offer(vec![large(n)], at(0)), Enqueued::New(_)));
        }
        assert_eq!(intake.offer(vec![large(15)], at(0)), Enqueued::Full);
        let (id, _) = intake.start().unwrap();
        intake.reported(id, at(1).wall);
        assert!(matches!(intake.offer(vec![large(15)], at(2)), Enqueued::New(_)));
        let rows = intake.every_row().into_iter();
        let rows = rows.filter_map(|write| Some((write.key, write.value?))).collect();
        let mut next = AlertQueue::restore(rows, Some(HOUR));
        assert_eq!(next.offer(vec![large(16)], at(3)), Enqueued::Full, "a restart forgets nothing");
        assert_eq!(next.take_damaged(), []);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_with_what_is_wrong_and_removed() {
        let rows = ["batch/1", "batch/x", "reported/a", "other"];
        let rows = rows.map(|key| (key.to_owned(), b"{}".to_vec()));
        let mut intake = AlertQueue::restore(rows.into(), None);
        let damaged = intake.take_damaged();
        let told = damaged.iter().map(|row| (row.key.as_str(), row.may_be_alerts()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [("batch/1", true), ("batch/x", true), ("reported/a", false), ("other", true)]
        );
        assert!(damaged[0].why.starts_with("missing field `alerts`"), "{}", damaged[0].why);
        assert!(damaged.iter().all(|row| !row.why.is_empty()));
        assert_eq!(damaged[3].remove(), Write::remove(Table::Pipelines, "other"));
        assert_eq!(intake.take_damaged(), [], "once is enough");
    }

    #[test]
    fn a_report_from_a_clock_that_was_ahead_kept_later_ones_back() {
        let mut intake = intake();
        intake.offer(vec![alert("a")], at(0));
        let (id, _) = intake.start().unwrap();
        intake.reported(id, at(1_000_000).wall);
        assert!(matches!(intake.offer(vec![alert("a")], at(2)), Enqueued::New(_)));
    }

    #[test]
    fn old_reports_are_forgotten() {
        let mut intake = intake();
        intake.offer(vec![alert("a")], at(0));
        let (id, _) = intake.start().unwrap();
        intake.reported(id, at(0).wall);
        intake.offer(vec![alert("b")], at(0));
        let (id, _) = intake.start().unwrap();
        let month = at(31 * 24 * 3600);
        let writes = intake.reported(id, month.wall);
        assert!(
            writes
                .iter()
                .any(|write| write.key.starts_with("reported/a ") && write.value.is_none())
        );
    }
}
