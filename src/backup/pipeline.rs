//! The pipelines: from a backup alert to its report. Each batch of alerts is stored, left alone for
//! the configured wait, analyzed, and reported.
//!
//! One detached thread per batch, at most 64 at a time; the others wait in the store. A pipeline
//! that was running when the daemon died is resumed at the next start.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::bounded;
use log::{error, info, warn};

use super::alert::{Alert, AlertNames};
use super::analysis::PlansReading;
use super::look_schedule::RecheckReason;
use super::plan_query::PlanQuery;
use super::plan_reporter::{Look, PipelineSettings, PlanReporter};
use super::plan_tracker::LookCause;
use super::plan_watch::RecheckRequests;
use super::queue::{AlertBatch, AlertQueue, BatchId, CorruptRow, Enqueued, MAX_ATTEMPTS};
use super::schedule::ZONE_READER_STACK;
use super::unlisted::UnlistedAlerts;
use crate::clock::{Now, Wall};
use crate::event::{Event, EventKind, LimitUse, MAX_LISTED};
use crate::store::Write;
use crate::store::change::{Change, ChangeSink, InboxEntry};
use crate::thread::{Stop, lock, spawn_critical};

/// How long a pipeline waits until its own row is on disk.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many characters about a corrupt row are reported: its key and the error may hold anything
/// that is in the row.
const MAX_ROW_TEXT: usize = 300;

/// Whether delivered alerts were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertAdmission {
    /// None of them is about backups.
    NoneRelevant,
    /// They wait, or waited already; the callback says whether they are on disk.
    Pending,
    /// Too many alerts wait: the sender must retry.
    QueueFull,
}

/// All pipelines, and the queue that feeds them.
pub struct Pipelines {
    queue: Mutex<AlertQueue>,
    reporter: Arc<PlanReporter>,
    rechecks: RecheckRequests,
    sink: ChangeSink,
    stop: Stop,
    received: AtomicU64,
    started: AtomicU64,
    unlisted: UnlistedAlerts,
}

/// Removes rows that cannot be read, and reports the alerts that may be lost with them: in one
/// transaction, so that it is reported once and not at each start.
fn discard_corrupt_rows(corrupt: &[CorruptRow], now: Wall) -> Change {
    for CorruptRow { key, why } in corrupt {
        error!("the stored row {key} of the pipelines is damaged, what it says is lost: {why}");
    }
    let writes = corrupt.iter().map(CorruptRow::remove).collect();
    let lost: Vec<_> = corrupt.iter().filter(|row| row.may_hold_alerts()).collect();
    let rows = lost.iter().take(MAX_LISTED).map(|row| {
        let text = format!("{}: {}", row.key, row.why);
        text.chars().take(MAX_ROW_TEXT).collect()
    });
    let kind = EventKind::AlertsLost { rows: rows.collect(), count: lost.len() };
    let event = Event::new(now, kind);
    let events = if lost.is_empty() { Vec::new() } else { vec![event] };
    Change { writes, events, ..Change::default() }
}

/// Rows of the queue, and the limits of it that were reached.
fn change_of(queue: &mut AlertQueue, writes: Vec<Write>, now: Wall) -> Change {
    let limits = queue.drain_limits().into_iter();
    let events = limits.map(|limit| Event::new(now, EventKind::LimitReached { limit })).collect();
    Change { writes, events, ..Change::default() }
}

impl Pipelines {
    /// Resumes what the rows of [`crate::store::Table::Pipelines`] hold. Plans whose alerts are
    /// repeated or have ended are requested to be looked at again.
    pub fn resume(
        rows: Vec<(String, Vec<u8>)>,
        reporter: Arc<PlanReporter>,
        rechecks: RecheckRequests,
        sink: ChangeSink,
    ) -> Arc<Pipelines> {
        let mut queue = AlertQueue::restore(rows);
        let corrupt = queue.drain_corrupt_rows();
        if !corrupt.is_empty() {
            sink(discard_corrupt_rows(&corrupt, Now::read().wall));
        }
        let now = Now::read();
        let forgotten = queue.trim_reported(now);
        if !forgotten.is_empty() {
            sink(change_of(&mut queue, forgotten, now.wall));
        }
        if queue.batch_count() > 0 {
            info!("{} backup alerts wait from before the start", queue.batch_count());
        }
        let pipelines = Arc::new(Pipelines {
            queue: Mutex::new(queue),
            stop: reporter.stop().clone(),
            reporter,
            rechecks,
            sink,
            received: AtomicU64::new(0),
            started: AtomicU64::new(0),
            unlisted: UnlistedAlerts::default(),
        });
        pipelines.start_pending();
        pipelines
    }

    /// Which alerts count at present: those about backups, and these heartbeats.
    pub fn alert_names(&self, heartbeat: Vec<String>) -> AlertNames {
        let settings = self.settings();
        AlertNames {
            backup: settings.alert_names.clone(),
            heartbeat,
            plan_labels: settings.correlator.backup_id_labels.clone(),
        }
    }

    /// Tells the names of alerts that seem to be about backups and that no list has.
    pub fn warn_unlisted(&self, names: BTreeSet<String>) {
        self.unlisted.warn_once(names);
    }

    /// Takes in that these alerts no longer fire, which says nothing about the backup: what fires
    /// again without a start that can be read is new.
    pub fn resolve(&self, alerts: &[Alert]) {
        let settings = self.settings();
        let labels = &settings.correlator.backup_id_labels;
        let ended = alerts.iter().map(|alert| alert.plan_id(labels).map(str::to_owned));
        self.rechecks.request(RecheckReason::AlertEnded, ended);
        let mut queue = lock(&self.queue);
        let writes = queue.resolve(alerts);
        if !writes.is_empty() {
            // Under the lock, as all rows of the queue.
            self.store(writes, |_| {});
        }
    }

    fn settings(&self) -> Arc<PipelineSettings> {
        self.reporter.settings()
    }

    /// Ingests backup alerts, which may be an entry of the inbox: then they must not be none. `stored`
    /// is called with whether they are on disk, unless the result says that none was taken.
    pub fn enqueue(
        self: &Arc<Self>,
        alerts: Vec<Alert>,
        entry: Option<InboxEntry>,
        stored: impl FnOnce(bool) + Send + 'static,
    ) -> AlertAdmission {
        if alerts.is_empty() {
            return AlertAdmission::NoneRelevant;
        }
        self.received.fetch_add(alerts.len() as u64, Ordering::Relaxed);
        let count = alerts.len();
        // Logged after the unlock: the log may block.
        let Some(are_new) = self.enqueue_and_store(alerts, entry, stored) else {
            warn!("{count} backup alerts were sent away: too many wait already");
            return AlertAdmission::QueueFull;
        };
        if are_new {
            info!("backup alerts came in ({count}), they are looked into");
        }
        self.start_pending();
        AlertAdmission::Pending
    }

    /// Whether some of the alerts are new; none when the queue is full. Stores them under the lock:
    /// the row of a batch must not come after the one that removes it.
    fn enqueue_and_store(
        &self,
        alerts: Vec<Alert>,
        entry: Option<InboxEntry>,
        stored: impl FnOnce(bool) + Send + 'static,
    ) -> Option<bool> {
        let settings = self.settings();
        let mut queue = lock(&self.queue);
        let labels = &settings.correlator.backup_id_labels;
        let taken = match queue.enqueue(alerts, labels, Now::read()) {
            Enqueued::Full => {
                (self.sink)(change_of(&mut queue, Vec::new(), Now::read().wall));
                return None;
            }
            Enqueued::Taken(taken) => taken,
        };
        // Known ones may still be on their way to the disk: the callback comes after them.
        (self.sink)(Change {
            writes: taken.writes,
            entry,
            on_stored: Some(Box::new(stored)),
            ..Change::default()
        });
        self.rechecks.request(RecheckReason::AlertRepeated, taken.repeated.into_iter());
        Some(taken.are_new)
    }

    /// Starts a thread for every batch that waits, as far as the limit allows. To be called
    /// periodically: a thread that could not be started is retried by the next call.
    pub fn start_pending(self: &Arc<Self>) {
        while !self.stop.stopped() {
            let Some((id, batch)) = lock(&self.queue).start() else { return };
            let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
            let own = Arc::clone(self);
            let name = format!("pipeline-{number}");
            let thread = spawn_critical(&name, ZONE_READER_STACK, move || own.run(id, &batch));
            if let Err(why) = thread {
                warn!("a pipeline could not be started, its alerts wait: {why}");
                lock(&self.queue).requeue(id);
                return;
            }
        }
    }

    fn run(self: &Arc<Self>, id: BatchId, batch: &AlertBatch) {
        let handled = catch_unwind(AssertUnwindSafe(|| self.handle(id, batch)));
        if handled.is_err() {
            error!("the pipeline of a backup alert panicked");
            // The alerts are not looked at again: the cause of the panic may be in them.
            let why = "looking into an alert failed, see the log of hbd";
            let query = PlanQuery::for_all();
            self.answer(
                id,
                &AlertBatch { alerts: Arc::default(), ..batch.clone() },
                &query,
                |query| Some(PlansReading::unknown(query, why)),
            );
        }
        self.start_pending();
    }

    fn handle(&self, id: BatchId, batch: &AlertBatch) {
        let passed = Now::read().wall.since(batch.accepted.wall);
        if self.stop.wait(self.settings().correlator.wait.saturating_sub(passed)) {
            return self.requeue(id);
        }
        // With what has joined it during the wait.
        let Some(mut batch) = self.record_attempt(id) else { return };
        let settings = self.settings();
        let labels = &settings.correlator.backup_id_labels;
        let query = PlanQuery::from_alerts(&batch.alerts, labels, batch.accepted.wall);
        if batch.attempts <= MAX_ATTEMPTS {
            return self.answer(id, &batch, &query, |query| self.reporter.read(query, true));
        }
        // Nor are the alerts quoted: the cause may be in them.
        batch.alerts = Arc::default();
        let why = "looking into it ended hbd again and again, so it was not looked into";
        self.answer(id, &batch, &query, |query| Some(PlansReading::unknown(query, why)));
    }

    /// Counts the attempt on disk before it is made, so that it is known if it ends the daemon.
    fn record_attempt(&self, id: BatchId) -> Option<AlertBatch> {
        let (batch, write) = lock(&self.queue).begin_attempt(id)?;
        let (tx, rx) = bounded(1);
        self.store(vec![write], move |_| {
            let _ = tx.send(());
        });
        // A disk that cannot be written must not prevent the report.
        let _ = rx.recv_timeout(STORE_TIMEOUT);
        Some(batch)
    }

    /// Tells what was read of the plans that a batch is about, notes with each of them that it is
    /// told, and completes the batch.
    fn answer(
        &self,
        id: BatchId,
        batch: &AlertBatch,
        query: &PlanQuery,
        read: impl FnOnce(&PlanQuery) -> Option<PlansReading>,
    ) {
        let look = Look {
            query,
            cause: LookCause::Alert,
            alerts: &batch.alerts,
            accepted: Some(batch.accepted.wall),
            answered: &batch.told,
        };
        let told = |plan: &str| lock(&self.queue).record_told(id, plan);
        let done = read(query).and_then(|reading| self.reporter.tell(look, reading, told));
        if done.is_none() {
            return self.requeue(id);
        }
        let mut queue = lock(&self.queue);
        let now = Now::read();
        let mut writes = queue.complete(id, now.wall);
        writes.extend(queue.trim_reported(now));
        (self.sink)(change_of(&mut queue, writes, now.wall));
    }

    fn store(&self, writes: Vec<Write>, stored: impl FnOnce(bool) + Send + 'static) {
        (self.sink)(Change { writes, on_stored: Some(Box::new(stored)), ..Change::default() });
    }

    /// Leaves the batch to the next daemon, since this one stops; the attempt is not counted.
    fn requeue(&self, id: BatchId) {
        let mut queue = lock(&self.queue);
        if let Some(write) = queue.requeue(id) {
            (self.sink)(Change { writes: vec![write], ..Change::default() });
        }
    }

    /// Puts all batches back before the store is closed, also those of pipelines that hang: the next
    /// daemon resumes them.
    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        let writes = queue.close();
        (self.sink)(Change { writes, ..Change::default() });
    }

    /// How many alert instances were delivered since the start.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How near the limits of the queue are.
    pub fn limits(&self) -> [LimitUse; 2] {
        lock(&self.queue).limits()
    }

    /// How many pipelines run or wait.
    pub fn count(&self) -> usize {
        lock(&self.queue).batch_count()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        lock(&self.queue).every_row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Level};
    use crate::store::Table;

    fn corrupt_rows(keys: &[&str]) -> Vec<CorruptRow> {
        let why = "x".repeat(1_000);
        keys.iter().map(|key| CorruptRow { key: (*key).into(), why: why.clone() }).collect()
    }

    #[test]
    fn rows_that_cannot_be_read_are_told_and_removed_in_one_transaction() {
        let keys: Vec<_> = (0..12).map(|number| format!("batch/{number}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).chain(["reported/a"]).collect();
        let change = discard_corrupt_rows(&corrupt_rows(&keys), Wall(7));
        assert_eq!(
            change.writes,
            keys.iter().map(|key| Write::remove(Table::Pipelines, *key)).collect::<Vec<_>>()
        );
        let [event] = &change.events[..] else { panic!("{:?}", change.events) };
        assert_eq!((event.at, event.level), (Wall(7), Level::Critical));
        let message = event.message(EventId(1));
        let (_, rows) = &message.details[0];
        assert!(rows.starts_with("batch/0: xxx") && rows.ends_with("\nand 2 more"), "{rows}");
        assert!(rows.len() < 4_000, "however much is wrong");
    }

    #[test]
    fn a_report_that_is_no_longer_noted_is_nobodys_concern() {
        let change = discard_corrupt_rows(&corrupt_rows(&["reported/a"]), Wall(7));
        assert_eq!((change.writes.len(), change.events), (1, vec![]));
    }
}
