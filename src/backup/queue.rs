//! The persistent queue of backup alerts: which wait for their pipeline, which join another about the
//! same plan, which were reported, and which are delivered again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::alert::Alert;
use crate::btree::InsertAll;
use crate::clock::{Now, Wall};
use crate::event::{KeptLimit, LimitEpisodes, LimitUse};
use crate::store::{Table, Write};

/// How many alert instances may wait; beyond this the sender is answered that it must retry.
pub const MAX_WAITING_ALERTS: usize = 10_000;
/// How many bytes the waiting alerts may take.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// How many pipelines run at a time.
pub const MAX_PIPELINES: usize = 64;
/// A batch whose analysis ended the daemon this many times is reported without another one.
pub const MAX_ATTEMPTS: u32 = 3;
/// How many alerts a batch has when none is added to it any more: its row is written anew each time.
const MAX_JOINED: usize = 100;
/// How many reported instances are remembered, and how many bytes they may take: the oldest are
/// forgotten.
const MAX_REPORTED: usize = 50_000;
const MAX_REPORTED_BYTES: usize = 8 << 20;
/// What one takes in memory beside its text.
const REPORTED_BYTES: usize = 96;
/// This part of them is forgotten at a time.
const REPORTED_EXCESS: usize = 16;
/// How long a reported instance is remembered when no delivery repeats it.
const REPORTED_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How old the row of a reported instance is when a repeat renews it.
const REPORTED_RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// The keys of the rows: `batch/` and a number, `reported/` and an instance.
const BATCH: &str = "batch/";
const REPORTED: &str = "reported/";

/// Alerts of one delivery, and what came in about the same plans before they were analyzed. One
/// pipeline handles them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertBatch {
    /// The alerts, none of them part of another batch. Shared with the pipeline.
    #[serde(serialize_with = "serialize_alerts", deserialize_with = "deserialize_alerts")]
    pub alerts: Arc<[Alert]>,
    /// When they were delivered.
    pub accepted: Now,
    /// How many analyses were started: more than one means that the daemon died during one.
    #[serde(default)]
    pub attempts: u32,
    /// The plans that were told of already, by id: the daemon died before the others were.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<String>,
}

fn serialize_alerts<S: Serializer>(alerts: &Arc<[Alert]>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(alerts.iter())
}

fn deserialize_alerts<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[Alert]>, D::Error> {
    Vec::deserialize(from).map(Arc::from)
}

/// The number of a batch, increasing.
pub type BatchId = u64;

/// The result of [`AlertQueue::enqueue`].
#[derive(Debug, PartialEq)]
pub enum Enqueued {
    /// All of them wait now, or did already, or were reported.
    Taken(EnqueuedAlerts),
    /// Too many alerts wait; none of these was taken.
    Full,
}

/// What became of alerts that were taken.
#[derive(Debug, Default, PartialEq)]
pub struct EnqueuedAlerts {
    /// Rows to be stored.
    pub writes: Vec<Write>,
    /// Whether some of them are new.
    pub are_new: bool,
    /// The plans of those that were reported before, by id; none: all plans.
    pub repeated: BTreeSet<Option<String>>,
}

/// A stored row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRow {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl CorruptRow {
    /// Whether accepted alerts may be lost with it. The loss of a `reported/` row at worst repeats
    /// a report.
    pub fn may_hold_alerts(&self) -> bool {
        !self.key.starts_with(REPORTED)
    }

    /// Removes the row, which would otherwise be found again at each start.
    pub fn remove(&self) -> Write {
        Write::remove(Table::Pipelines, self.key.clone())
    }
}

/// The alerts between their delivery and their report.
///
/// ```text
///  enqueue            start               begin_attempt                complete
/// ---------> waiting -------> running ----------------> being analyzed ---------> reported
///               ^                |                            |
///               +--- requeue ----+---- requeue, uncounted ----+
/// ```
#[derive(Debug, Default)]
pub struct AlertQueue {
    batches: BTreeMap<BatchId, AlertBatch>,
    /// Batches with a pipeline, and whether its analysis was started.
    running: BTreeMap<BatchId, bool>,
    closed: bool,
    waiting: BTreeSet<String>,
    /// How many bytes the alerts of all batches take.
    waiting_bytes: usize,
    corrupt_rows: Vec<CorruptRow>,
    reported: BTreeMap<Box<str>, Wall>,
    /// How many bytes these take.
    reported_bytes: usize,
    waiting_limit: LimitEpisodes,
    reported_limit: LimitEpisodes,
    /// Limits that were reached and not told yet.
    untold_limits: Vec<KeptLimit>,
    last_id: BatchId,
    /// By plan the last batch about it that is not being analyzed yet.
    joinable: BTreeMap<Option<String>, BatchId>,
}

impl AlertQueue {
    /// The queue as the rows of [`Table::Pipelines`] hold it, each a key and JSON.
    pub fn restore(rows: Vec<(String, Vec<u8>)>) -> AlertQueue {
        let mut queue = AlertQueue::default();
        for (key, row) in rows {
            if let Err(why) = queue.restore_row(&key, &row) {
                queue.corrupt_rows.push(CorruptRow { key, why });
            }
        }
        queue
    }

    fn restore_row(&mut self, key: &str, row: &[u8]) -> Result<(), String> {
        if let Some(number) = key.strip_prefix(BATCH) {
            let id = number.parse().map_err(|why| format!("its number is none: {why}"))?;
            let batch: AlertBatch = serde_json::from_slice(row).map_err(|why| why.to_string())?;
            self.last_id = self.last_id.max(id);
            self.waiting.extend(batch.alerts.iter().map(Alert::instance));
            self.waiting_bytes += total_size(&batch.alerts);
            self.batches.insert(id, batch);
        } else if let Some(instance) = key.strip_prefix(REPORTED) {
            let at = serde_json::from_slice(row).map_err(|why| why.to_string())?;
            self.insert_reported(instance.into(), at);
        } else {
            return Err("no row is called so".into());
        }
        Ok(())
    }

    /// The rows that could not be read, once: they have to be reported and removed.
    pub fn drain_corrupt_rows(&mut self) -> Vec<CorruptRow> {
        std::mem::take(&mut self.corrupt_rows)
    }

    /// Takes in alerts. Those that neither wait nor were reported become a batch, or join one that
    /// waits and is about the same plan, so that it is told once. `labels` may hold the id of a plan.
    pub fn enqueue(&mut self, alerts: Vec<Alert>, labels: &[String], now: Now) -> Enqueued {
        let mut taken = EnqueuedAlerts::default();
        let (mut fresh, mut seen) = (Vec::new(), BTreeSet::new());
        for alert in alerts {
            let instance = alert.instance();
            if self.waiting.contains(&instance) {
                continue;
            }
            let plan = alert.plan_id(labels).map(str::to_owned);
            if self.was_reported(&instance, now.wall) {
                taken.writes.extend(self.renew_reported(&instance, now.wall));
                taken.repeated.insert(plan);
            } else if seen.insert(instance) {
                fresh.push((plan, alert));
            }
        }
        let size: usize = fresh.iter().map(|(_, alert)| alert.size()).sum();
        if self.waiting.len() + fresh.len() > MAX_WAITING_ALERTS
            || self.waiting_bytes + size > MAX_WAITING_BYTES
        {
            if self.waiting_limit.reached(fresh.len() as u64, now.mono) {
                self.untold_limits.push(KeptLimit::WaitingAlerts);
            }
            return Enqueued::Full;
        }
        self.waiting_bytes += size;
        self.waiting.extend(seen);
        taken.are_new = !fresh.is_empty();
        taken.writes.extend(self.add_to_batches(fresh, now));
        Enqueued::Taken(taken)
    }

    /// Puts each alert into the batch of its plan, the others into a new one. Returns the rows.
    fn add_to_batches(&mut self, fresh: Vec<(Option<String>, Alert)>, now: Now) -> Vec<Write> {
        let mut added: BTreeMap<Option<BatchId>, Vec<Alert>> = BTreeMap::new();
        let mut new_plans = BTreeSet::new();
        for (plan, alert) in fresh {
            let batch = self.joinable.get(&plan).copied().filter(|id| self.has_room(*id));
            if batch.is_none() {
                new_plans.insert(plan);
            }
            added.entry(batch).or_default().push(alert);
        }
        let mut writes = Vec::new();
        for (joined, alerts) in added {
            let id = joined.unwrap_or_else(|| self.next_id(now.wall));
            let batch = self.batches.entry(id).or_insert_with(|| AlertBatch {
                alerts: Arc::default(),
                accepted: now,
                attempts: 0,
                told: BTreeSet::new(),
            });
            batch.alerts = batch.alerts.iter().cloned().chain(alerts).collect();
            writes.push(Write::put(Table::Pipelines, batch_key(id), batch));
            if joined.is_none() {
                let plans = std::mem::take(&mut new_plans).into_iter();
                self.joinable.extend(plans.map(|plan| (plan, id)));
            }
        }
        writes
    }

    fn has_room(&self, id: BatchId) -> bool {
        self.batches.get(&id).is_some_and(|batch| batch.alerts.len() < MAX_JOINED)
    }

    /// Derived from the time, so that it stays unique after the store was lost.
    fn next_id(&mut self, now: Wall) -> BatchId {
        let from_time = u64::try_from(now.0).unwrap_or(0) << 12;
        self.last_id = from_time.max(self.last_id + 1);
        self.last_id
    }

    fn was_reported(&self, instance: &str, now: Wall) -> bool {
        // A time in the future was read from a wrong clock.
        self.reported.get(instance).is_some_and(|at| *at <= now)
    }

    /// Remembers an instance for as long as it is repeated.
    fn renew_reported(&mut self, instance: &str, now: Wall) -> Option<Write> {
        let at =
            self.reported.get_mut(instance).filter(|at| now.since(**at) >= REPORTED_RENEWAL)?;
        *at = now;
        Some(Write::put(Table::Pipelines, reported_key(instance), &now))
    }

    /// The oldest batch without a pipeline, if one more may run; it counts as running.
    pub fn start(&mut self) -> Option<(BatchId, AlertBatch)> {
        if self.closed || self.running.len() >= MAX_PIPELINES {
            return None;
        }
        let (id, batch) = self.batches.iter().find(|(id, _)| !self.running.contains_key(id))?;
        let started = (*id, batch.clone());
        self.running.insert(started.0, false);
        Some(started)
    }

    /// Counts an attempt: the batch as it is now, to which nothing is added any more, and the row
    /// that must be on disk before the analysis starts. None when the queue is closed and the
    /// analysis must not start.
    pub fn begin_attempt(&mut self, id: BatchId) -> Option<(AlertBatch, Write)> {
        *self.running.get_mut(&id)? = true;
        self.joinable.retain(|_, batch| *batch != id);
        let batch = self.batches.get_mut(&id)?;
        batch.attempts += 1;
        let write = Write::put(Table::Pipelines, batch_key(id), batch);
        Some((batch.clone(), write))
    }

    /// Notes that a plan of a batch is told of; the row belongs to the transaction of that.
    pub fn record_told(&mut self, id: BatchId, plan: &str) -> Option<Write> {
        let batch = self.batches.get_mut(&id)?;
        batch.told.insert(plan.to_owned());
        Some(Write::put(Table::Pipelines, batch_key(id), batch))
    }

    /// Removes a batch of which all is told. The rows are stored after those of the reports.
    pub fn complete(&mut self, id: BatchId, now: Wall) -> Vec<Write> {
        self.running.remove(&id);
        self.joinable.retain(|_, batch| *batch != id);
        let Some(batch) = self.batches.remove(&id) else { return Vec::new() };
        let mut writes = vec![Write::remove(Table::Pipelines, batch_key(id))];
        self.waiting_bytes = self.waiting_bytes.saturating_sub(total_size(&batch.alerts));
        for alert in batch.alerts.iter() {
            let instance = alert.instance();
            self.waiting.remove(&instance);
            writes.push(Write::put(Table::Pipelines, reported_key(&instance), &now));
            self.insert_reported(instance.into(), now);
        }
        writes.extend(self.expire_reported(now));
        writes
    }

    /// Puts back a batch whose pipeline was stopped before its end. An attempt that was cut off on
    /// purpose is not counted: that is what the row says.
    pub fn requeue(&mut self, id: BatchId) -> Option<Write> {
        let attempted = self.running.remove(&id)?;
        let batch = self.batches.get_mut(&id).filter(|_| attempted)?;
        batch.attempts = batch.attempts.saturating_sub(1);
        Some(Write::put(Table::Pipelines, batch_key(id), batch))
    }

    /// Puts back all batches whose pipelines run, and starts no more: some pipelines hang where
    /// they cannot be stopped in time.
    pub fn close(&mut self) -> Vec<Write> {
        self.closed = true;
        let running: Vec<BatchId> = self.running.keys().copied().collect();
        running.into_iter().filter_map(|id| self.requeue(id)).collect()
    }

    /// These alerts no longer fire. An instance whose start is not known cannot be told from the next
    /// one by its start, but by its end: it counts as reported, and as one that waits for its
    /// analysis, no longer.
    pub fn resolve(&mut self, alerts: &[Alert]) -> Vec<Write> {
        let analyzed = self.running.iter().filter(|(_, analyzed)| **analyzed);
        let analyzed: BTreeSet<String> = analyzed
            .filter_map(|(id, _)| self.batches.get(id))
            .flat_map(|batch| batch.alerts.iter().map(Alert::instance))
            .insert_all();
        let ended: BTreeSet<String> = alerts.iter().map(Alert::instance_without_start).insert_all();
        self.waiting.retain(|instance| !(analyzed.contains(instance) && ended.contains(instance)));
        ended.iter().filter_map(|instance| self.remove_reported(instance)).collect()
    }

    fn expire_reported(&mut self, now: Wall) -> Vec<Write> {
        let is_old = |at: Wall| now.since(at) > REPORTED_RETENTION;
        let expired = self.reported.iter().filter(|(_, at)| is_old(**at));
        let expired: Vec<Box<str>> = expired.map(|(instance, _)| instance.clone()).collect();
        expired.iter().filter_map(|instance| self.remove_reported(instance)).collect()
    }

    fn insert_reported(&mut self, instance: Box<str>, at: Wall) {
        let size = REPORTED_BYTES + instance.len();
        if self.reported.insert(instance, at).is_none() {
            self.reported_bytes += size;
        }
    }

    /// Forgets that an instance was reported; its row, where it was.
    fn remove_reported(&mut self, instance: &str) -> Option<Write> {
        self.reported.remove(instance)?;
        self.reported_bytes -= REPORTED_BYTES + instance.len();
        Some(Write::remove(Table::Pipelines, reported_key(instance)))
    }

    /// Forgets the oldest reported instances when there are too many. Returns their rows.
    pub fn trim_reported(&mut self, now: Now) -> Vec<Write> {
        if self.reported.len() <= MAX_REPORTED && self.reported_bytes <= MAX_REPORTED_BYTES {
            return Vec::new();
        }
        let mut oldest: Vec<(Wall, Box<str>)> =
            self.reported.iter().map(|(instance, at)| (*at, instance.clone())).collect();
        oldest.sort_unstable();
        let most = (MAX_REPORTED, MAX_REPORTED_BYTES);
        let kept = (most.0 - most.0 / REPORTED_EXCESS, most.1 - most.1 / REPORTED_EXCESS);
        let mut writes = Vec::new();
        for (_, instance) in oldest {
            if self.reported.len() <= kept.0 && self.reported_bytes <= kept.1 {
                break;
            }
            writes.extend(self.remove_reported(&instance));
        }
        if self.reported_limit.reached(writes.len() as u64, now.mono) {
            self.untold_limits.push(KeptLimit::ReportedAlerts);
        }
        writes
    }

    /// Limits that were reached, each once for each time that it is reached again and again.
    pub fn drain_limits(&mut self) -> Vec<KeptLimit> {
        std::mem::take(&mut self.untold_limits)
    }

    /// How near the limits are.
    pub fn limits(&self) -> [LimitUse; 2] {
        [
            LimitUse {
                name: KeptLimit::WaitingAlerts.name(),
                used: self.waiting.len(),
                most: MAX_WAITING_ALERTS,
                reached: self.waiting_limit.count(),
            },
            LimitUse {
                name: KeptLimit::ReportedAlerts.name(),
                used: self.reported.len(),
                most: MAX_REPORTED,
                reached: self.reported_limit.count(),
            },
        ]
    }

    /// How many batches run or wait.
    pub fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let batches = self.batches.iter();
        let reported = self.reported.iter();
        batches
            .map(|(id, batch)| Write::put(Table::Pipelines, batch_key(*id), batch))
            .chain(
                reported
                    .map(|(instance, at)| Write::put(Table::Pipelines, reported_key(instance), at)),
            )
            .collect()
    }
}

fn total_size(alerts: &[Alert]) -> usize {
    alerts.iter().map(Alert::size).sum()
}

fn batch_key(id: BatchId) -> String {
    format!("{BATCH}{id:020}")
}

fn reported_key(instance: &str) -> String {
    format!("{REPORTED}{instance}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

    const DAY: i64 = 24 * 3600;

    fn at(seconds: i64) -> Now {
        Now { mono: Mono(seconds * 1000), wall: Wall(1_800_000_000_000 + seconds * 1000) }
    }

    /// One about a plan of its own.
    fn alert(fingerprint: &str) -> Alert {
        Alert {
            name: "BackupFailed".into(),
            fingerprint: fingerprint.into(),
            starts_at: Some(Wall(1)),
            labels: [("id".to_owned(), fingerprint.to_owned())].into(),
            annotations: BTreeMap::new(),
            may_repeat: false,
        }
    }

    /// One about this plan.
    fn about(fingerprint: &str, plan: &str) -> Alert {
        Alert { labels: [("id".to_owned(), plan.to_owned())].into(), ..alert(fingerprint) }
    }

    /// Whether some of the alerts were new.
    fn enqueue(queue: &mut AlertQueue, alerts: Vec<Alert>, now: Now) -> bool {
        match queue.enqueue(alerts, &["id".to_owned()], now) {
            Enqueued::Taken(taken) => taken.are_new,
            Enqueued::Full => panic!("full"),
        }
    }

    fn is_full(queue: &mut AlertQueue, alerts: Vec<Alert>) -> bool {
        queue.enqueue(alerts, &["id".to_owned()], at(0)) == Enqueued::Full
    }

    fn queue() -> AlertQueue {
        AlertQueue::restore(Vec::new())
    }

    /// The plans of which reported alerts were repeated, and how many rows that changed.
    fn repeated(queue: &mut AlertQueue, alerts: Vec<Alert>, now: Now) -> (Vec<String>, usize) {
        let Enqueued::Taken(taken) = queue.enqueue(alerts, &["id".to_owned()], now) else {
            panic!("full")
        };
        assert!(!taken.are_new);
        (taken.repeated.into_iter().flatten().collect(), taken.writes.len())
    }

    #[test]
    fn an_alert_that_waits_is_joined_and_one_that_was_reported_is_only_repeated() {
        let mut queue = queue();
        assert!(enqueue(&mut queue, vec![alert("a"), alert("a")], at(0)));
        assert_eq!(repeated(&mut queue, vec![alert("a")], at(1)), (vec![], 0));
        let (id, batch) = queue.start().unwrap();
        assert_eq!(batch.alerts.len(), 1);
        assert_eq!(repeated(&mut queue, vec![alert("a")], at(2)), (vec![], 0), "its pipeline runs");
        queue.complete(id, at(30).wall);
        assert_eq!(repeated(&mut queue, vec![alert("a")], at(31)), (vec!["a".into()], 0));
        for day in 1..40 {
            let told = repeated(&mut queue, vec![alert("a")], at(30 + day * DAY));
            assert_eq!(told, (vec!["a".into()], 1), "it is remembered for as long as it fires");
        }
    }

    #[test]
    fn two_nodes_and_two_alert_names_made_two_reports_of_one_failure() {
        let mut queue = queue();
        let with_name = |name: &str| Alert { name: name.into(), ..about("c", "7") };
        enqueue(&mut queue, vec![about("a", "7"), alert("x")], at(0));
        let (id, _) = queue.start().unwrap();
        assert!(enqueue(&mut queue, vec![about("b", "7"), alert("y")], at(20)), "while it waits");
        enqueue(&mut queue, vec![with_name("NsBackupMissing")], at(29));
        let (batch, write) = queue.begin_attempt(id).unwrap();
        let names = batch.alerts.iter().map(|alert| alert.fingerprint.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["a", "x", "b", "c"]);
        assert_eq!(batch.accepted, at(0), "the wait is not longer for that");
        let row: AlertBatch = serde_json::from_slice(&write.value.unwrap()).unwrap();
        assert_eq!(row, batch);
        let (other, batch) = queue.start().unwrap();
        assert_eq!(*batch.alerts, [alert("y")]);
        assert!(enqueue(&mut queue, vec![about("d", "7")], at(40)), "it is being analyzed");
        assert_eq!(*queue.start().unwrap().1.alerts, [about("d", "7")]);
        queue.complete(other, at(50).wall);
        assert_eq!(queue.complete(id, at(50).wall).len(), 5, "all four are reported");
    }

    #[test]
    fn a_batch_grows_only_so_far() {
        let mut queue = queue();
        for number in 0..150 {
            enqueue(&mut queue, vec![about(&number.to_string(), "7")], at(number));
        }
        let sizes: Vec<_> =
            std::iter::from_fn(|| queue.start()).map(|(_, batch)| batch.alerts.len()).collect();
        assert_eq!(sizes, [100, 50]);
    }

    #[test]
    fn a_batch_that_was_told_in_part_is_not_told_again_after_a_crash() {
        let mut first = queue();
        enqueue(&mut first, vec![alert("a"), alert("b")], at(0));
        let (id, _) = first.start().unwrap();
        first.begin_attempt(id).unwrap();
        let write = first.record_told(id, "a").unwrap();
        let mut second = AlertQueue::restore(vec![(write.key, write.value.unwrap())]);
        let (_, batch) = second.start().unwrap();
        assert_eq!((batch.attempts, batch.told), (1, BTreeSet::from(["a".to_owned()])));
    }

    #[test]
    fn a_new_alert_beside_known_ones_gets_a_pipeline_of_its_own() {
        let mut queue = queue();
        enqueue(&mut queue, vec![alert("a")], at(0));
        enqueue(&mut queue, vec![alert("a"), alert("b")], at(1));
        queue.start().unwrap();
        assert_eq!(*queue.start().unwrap().1.alerts, [alert("b")]);
        assert_eq!(queue.start(), None);
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
        let mut first = queue();
        let Enqueued::Taken(taken) = first.enqueue(vec![alert("a")], &[], at(0)) else { panic!() };
        keep(taken.writes);
        let (id, _) = first.start().unwrap();
        let rows = keep(vec![first.begin_attempt(id).unwrap().1]);
        let mut second = AlertQueue::restore(rows);
        assert!(!enqueue(&mut second, vec![alert("a")], at(5)));
        let (id, batch) = second.start().unwrap();
        assert_eq!(batch.attempts, 1);
        let rows = keep(second.complete(id, at(9).wall));
        let mut third = AlertQueue::restore(rows);
        assert_eq!(third.batch_count(), 0);
        assert!(!enqueue(&mut third, vec![alert("a")], at(10)), "it was reported");
    }

    #[test]
    fn a_stored_batch_keeps_its_names() {
        let stored = r#"{"alerts":[{"name":"BackupFailed","fingerprint":"f","starts_at":1,"labels":{"id":"7"},"annotations":{}}],"accepted":{"mono":2,"wall":3},"attempts":1}"#;
        let batch: AlertBatch = serde_json::from_str(stored).unwrap();
        assert_eq!((batch.alerts.len(), batch.accepted.wall, batch.attempts), (1, Wall(3), 1));
        assert_eq!(serde_json::to_string(&batch).unwrap(), stored);
        let rows = vec![
            ("batch/00000000000000000007".to_owned(), stored.as_bytes().to_vec()),
            ("reported/f 1 firing".to_owned(), b"1800000000000".to_vec()),
        ];
        let mut queue = AlertQueue::restore(rows);
        assert_eq!((queue.drain_corrupt_rows(), queue.batch_count()), (vec![], 1));
        assert_eq!(queue.every_row().len(), 2);
    }

    #[test]
    fn attempts_that_end_with_the_daemon_on_purpose_are_not_counted() {
        let mut queue = queue();
        for name in ["a", "b", "c"] {
            enqueue(&mut queue, vec![alert(name)], at(0));
        }
        let (hangs, _) = queue.start().unwrap();
        let (waits, _) = queue.start().unwrap();
        assert_eq!(queue.begin_attempt(hangs).unwrap().0.attempts, 1);
        let writes = queue.close();
        assert_eq!(writes.len(), 1, "the other has not begun to look");
        let row: AlertBatch = serde_json::from_slice(writes[0].value.as_ref().unwrap()).unwrap();
        assert_eq!(row.attempts, 0);
        assert_eq!((queue.start(), queue.begin_attempt(waits)), (None, None));
        assert_eq!(queue.requeue(hangs), None, "it comes late and is not counted twice");
        assert_eq!(queue.complete(hangs, at(1).wall).len(), 2, "it found an answer after all");
    }

    #[test]
    fn pipelines_are_bounded_and_the_rest_waits() {
        let mut queue = queue();
        for n in 0..100 {
            enqueue(&mut queue, vec![alert(&n.to_string())], at(0));
        }
        let started: Vec<_> = std::iter::from_fn(|| queue.start()).collect();
        assert_eq!(started.len(), MAX_PIPELINES);
        queue.complete(started[0].0, at(1).wall);
        assert!(queue.start().is_some());
    }

    #[test]
    fn too_many_alerts_are_sent_away_and_none_is_half_taken() {
        let mut queue = queue();
        let many = |from: usize, to: usize| (from..to).map(|n| alert(&n.to_string())).collect();
        assert!(enqueue(&mut queue, many(0, 9_999), at(0)));
        assert!(is_full(&mut queue, many(9_990, 10_001)));
        assert!(enqueue(&mut queue, many(10_000, 10_001), at(0)));
    }

    #[test]
    fn alerts_that_waited_were_bounded_in_number_but_not_in_bytes() {
        let mut queue = queue();
        let large = |n: usize| Alert {
            annotations: [("summary".to_owned(), "x".repeat(1024 * 1024))].into(),
            ..alert(&n.to_string())
        };
        for n in 0..31 {
            assert!(enqueue(&mut queue, vec![large(n)], at(0)));
        }
        assert!(is_full(&mut queue, vec![large(31)]));
        let (id, _) = queue.start().unwrap();
        queue.complete(id, at(1).wall);
        assert!(enqueue(&mut queue, vec![large(31)], at(2)));
        let rows = queue.every_row().into_iter();
        let rows = rows.filter_map(|write| Some((write.key, write.value?))).collect();
        let mut next = AlertQueue::restore(rows);
        assert!(is_full(&mut next, vec![large(32)]), "a restart forgets nothing");
        assert_eq!(next.drain_corrupt_rows(), []);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_with_what_is_wrong_and_removed() {
        let rows = ["batch/1", "batch/x", "reported/a", "other"];
        let rows = rows.map(|key| (key.to_owned(), b"{}".to_vec()));
        let mut queue = AlertQueue::restore(rows.into());
        let damaged = queue.drain_corrupt_rows();
        let told = damaged.iter().map(|row| (row.key.as_str(), row.may_hold_alerts()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [("batch/1", true), ("batch/x", true), ("reported/a", false), ("other", true)]
        );
        assert!(damaged[0].why.starts_with("missing field `alerts`"), "{}", damaged[0].why);
        assert!(damaged.iter().all(|row| !row.why.is_empty()));
        assert_eq!(damaged[3].remove(), Write::remove(Table::Pipelines, "other"));
        assert_eq!(queue.drain_corrupt_rows(), [], "once is enough");
    }

    #[test]
    fn a_report_from_a_clock_that_was_ahead_kept_later_ones_back() {
        let mut queue = queue();
        enqueue(&mut queue, vec![alert("a")], at(0));
        let (id, _) = queue.start().unwrap();
        queue.complete(id, at(1_000_000).wall);
        assert!(enqueue(&mut queue, vec![alert("a")], at(2)));
    }

    #[test]
    fn two_alerts_without_a_start_and_a_resolved_one_between_were_one() {
        let unknown = |fingerprint: &str| Alert { starts_at: None, ..alert(fingerprint) };
        let mut queue = queue();
        let enqueue = |queue: &mut AlertQueue, seconds| {
            enqueue(queue, vec![unknown("a"), alert("b")], at(seconds))
        };
        assert!(enqueue(&mut queue, 0));
        let (id, _) = queue.start().unwrap();
        assert_eq!(queue.resolve(&[unknown("a")]), [], "it waits for its analysis");
        assert!(!enqueue(&mut queue, 1), "which has not looked yet");
        queue.complete(id, at(2).wall);
        assert!(!enqueue(&mut queue, 3), "a repeat");
        // The start of the one that is resolved may be readable.
        let writes = queue.resolve(&[alert("a"), alert("b"), unknown("c")]);
        assert_eq!(writes, [Write::remove(Table::Pipelines, "reported/a 0 firing")]);
        assert!(enqueue(&mut queue, 4), "another one");
        let (id, batch) = queue.start().unwrap();
        assert_eq!(*batch.alerts, [unknown("a")], "the other one has a start");
        queue.begin_attempt(id).unwrap();
        queue.resolve(&[unknown("a")]);
        assert!(enqueue(&mut queue, 5), "its analysis may have looked before this one fired");
        queue.complete(id, at(6).wall);
        let (id, _) = queue.start().unwrap();
        queue.complete(id, at(7).wall);
        assert!(!enqueue(&mut queue, 8));
    }

    #[test]
    fn a_million_instances_were_remembered_for_a_month() {
        let mut queue = queue();
        let mut disk = BTreeSet::new();
        let mut told = Vec::new();
        for round in 0..20 {
            let many = (0..9_000).map(|n| alert(&format!("{:016x}", round * 9_000 + n)));
            assert!(enqueue(&mut queue, many.collect(), at(round)));
            let (id, _) = queue.start().unwrap();
            let mut writes = queue.complete(id, at(round).wall);
            writes.extend(queue.trim_reported(at(round)));
            for write in writes.into_iter().filter(|write| write.key.starts_with(REPORTED)) {
                match write.value {
                    Some(_) => drop(disk.insert(write.key)),
                    None => assert!(disk.remove(&write.key)),
                }
            }
            told.extend(queue.drain_limits());
        }
        assert_eq!(told, [KeptLimit::ReportedAlerts], "once");
        let reported = queue.reported.len();
        assert!((MAX_REPORTED / 2..=MAX_REPORTED).contains(&reported), "{reported}");
        assert_eq!(disk.len(), reported);
        let newest = (0..9_000).map(|n| alert(&format!("{:016x}", 19 * 9_000 + n)));
        assert!(!enqueue(&mut queue, newest.collect(), at(30)), "these are repeats");
        let bytes = |queue: &AlertQueue| -> usize {
            queue.reported.keys().map(|instance| REPORTED_BYTES + instance.len()).sum()
        };
        assert_eq!(queue.reported_bytes, bytes(&queue));
        let long = (0..9_000).map(|n| alert(&format!("{n:0128}")));
        for (round, alert) in long.enumerate() {
            queue.insert_reported(alert.instance().into(), at(100 + round as i64).wall);
        }
        queue.trim_reported(at(20_000));
        assert!(queue.reported_bytes <= MAX_REPORTED_BYTES);
        assert_eq!(queue.reported_bytes, bytes(&queue));
    }

    #[test]
    fn a_store_with_a_million_instances_is_trimmed_at_the_start() {
        let row = |n: i64| (format!("reported/{n:016x} 1 firing"), at(n).wall.0.to_string().into());
        let mut queue = AlertQueue::restore((0..60_000).map(row).collect());
        assert_eq!(queue.trim_reported(at(60_000)).len(), 60_000 - queue.reported.len());
        assert!(queue.reported.len() <= MAX_REPORTED);
        assert!(queue.was_reported(&format!("{:016x} 1 firing", 59_999), at(60_000).wall));
    }

    #[test]
    fn alerts_that_are_sent_away_are_told_once() {
        let mut queue = queue();
        let many = |from: usize, to: usize| (from..to).map(|n| alert(&n.to_string())).collect();
        assert!(enqueue(&mut queue, many(0, 10_000), at(0)));
        for number in 10_000..10_100 {
            assert!(is_full(&mut queue, many(number, number + 1)));
        }
        assert_eq!(queue.drain_limits(), [KeptLimit::WaitingAlerts]);
        let [waiting, _] = queue.limits();
        assert_eq!((waiting.used, waiting.most, waiting.reached), (10_000, 10_000, 100));
    }

    #[test]
    fn many_short_labels_took_ten_times_the_memory_that_was_counted() {
        let labels = |n: usize| (0..64).map(|l| (format!("l{n}{l}"), "x".to_owned())).collect();
        let many = |n: usize| Alert { labels: labels(n), ..alert(&n.to_string()) };
        let mut queue = queue();
        assert!(is_full(&mut queue, (0..9_000).map(many).collect()));
    }

    #[test]
    fn old_reports_are_forgotten() {
        let mut queue = queue();
        enqueue(&mut queue, vec![alert("a")], at(0));
        let (id, _) = queue.start().unwrap();
        queue.complete(id, at(0).wall);
        enqueue(&mut queue, vec![alert("b")], at(0));
        let (id, _) = queue.start().unwrap();
        let month = at(31 * 24 * 3600);
        let writes = queue.complete(id, month.wall);
        assert!(
            writes
                .iter()
                .any(|write| write.key.starts_with("reported/a ") && write.value.is_none())
        );
    }
}
