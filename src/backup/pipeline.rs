//! The pipelines: from a backup alert to its report. Each batch of alerts is stored, left alone for
//! the configured wait, analyzed, and reported.
//!
//! One detached thread per batch, at most 64 at a time; the others wait in the store. A pipeline
//! that was running when the daemon died is resumed at the next start.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::bounded;
use log::{error, info, warn};

use super::alert::Alert;
use super::analysis::{Analyzer, PlanReport, plan_rows, reportable, unknown};
use super::outcome::Outcome;
use super::plan_query::{PlanQuery, alerts_about};
use super::queue::{AlertBatch, AlertQueue, BatchId, CorruptRow, Enqueued, MAX_ATTEMPTS};
use super::repo_check::RepoChecker;
use super::restic_permits::ResticPermits;
use super::settings::{CorrelatorSettings, RepoCheckSettings};
use crate::clock::{Now, Wall};
use crate::event::{Event, EventKind, MAX_LISTED};
use crate::store::Write;
use crate::store::change::{Change, ChangeSink};
use crate::thread::{Stop, lock, spawn_critical};

/// How long a pipeline waits until its own row is on disk.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// The stack of a pipeline, in bytes: the Redis library and ours need less than the default of 2 MB.
const STACK: usize = 512 * 1024;
/// How many characters about a corrupt row are reported: its key and the error may hold anything
/// that is in the row.
const MAX_ROW_TEXT: usize = 300;

/// The configuration of the pipelines.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The names of the alerts that are about backups.
    pub alert_names: Vec<String>,
    /// Where Redis is, and how long to wait for it.
    pub correlator: CorrelatorSettings,
    /// How repositories are checked; none: not at all.
    pub repo_check: Option<RepoCheckSettings>,
    /// An alert instance is reported again after this time; none: never.
    pub renotify: Option<Duration>,
}

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
    settings: Mutex<Arc<PipelineSettings>>,
    sink: ChangeSink,
    stop: Stop,
    received: AtomicU64,
    started: AtomicU64,
    outcomes: Mutex<BTreeMap<Outcome, u64>>,
    /// Shared by all pipelines: the machines are small.
    restic_permits: ResticPermits,
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

impl Pipelines {
    /// Resumes what the rows of [`crate::store::Table::Pipelines`] hold.
    pub fn resume(
        rows: Vec<(String, Vec<u8>)>,
        settings: PipelineSettings,
        sink: ChangeSink,
        stop: Stop,
    ) -> Arc<Pipelines> {
        let mut queue = AlertQueue::restore(rows, settings.renotify);
        let corrupt = queue.drain_corrupt_rows();
        if !corrupt.is_empty() {
            sink(discard_corrupt_rows(&corrupt, Now::read().wall));
        }
        if queue.batch_count() > 0 {
            info!("{} backup alerts wait from before the start", queue.batch_count());
        }
        let pipelines = Arc::new(Pipelines {
            queue: Mutex::new(queue),
            settings: Mutex::new(Arc::new(settings)),
            sink,
            stop,
            received: AtomicU64::new(0),
            started: AtomicU64::new(0),
            outcomes: Mutex::new(BTreeMap::new()),
            restic_permits: ResticPermits::default(),
        });
        pipelines.start_pending();
        pipelines
    }

    /// Applies another configuration; an analysis that is running keeps its own.
    pub fn reconfigure(&self, settings: PipelineSettings) {
        lock(&self.queue).set_renotify(settings.renotify);
        *lock(&self.settings) = Arc::new(settings);
    }

    /// The names of the alerts that are about backups, at present.
    pub fn alert_names(&self) -> Vec<String> {
        self.settings().alert_names.clone()
    }

    fn settings(&self) -> Arc<PipelineSettings> {
        Arc::clone(&lock(&self.settings))
    }

    /// Ingests backup alerts. `stored` is called with whether they are on disk, unless the result
    /// says that none was taken.
    pub fn enqueue(
        self: &Arc<Self>,
        alerts: Vec<Alert>,
        stored: impl FnOnce(bool) + Send + 'static,
    ) -> AlertAdmission {
        if alerts.is_empty() {
            return AlertAdmission::NoneRelevant;
        }
        self.received.fetch_add(alerts.len() as u64, Ordering::Relaxed);
        let count = alerts.len();
        // Logged after the unlock: the log may block.
        let Some(are_new) = self.enqueue_and_store(alerts, stored) else {
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
        stored: impl FnOnce(bool) + Send + 'static,
    ) -> Option<bool> {
        let mut queue = lock(&self.queue);
        let writes = match queue.enqueue(alerts, Now::read()) {
            Enqueued::Full => return None,
            Enqueued::Known => Vec::new(),
            Enqueued::New(write) => vec![write],
        };
        let are_new = !writes.is_empty();
        // Known ones may still be on their way to the disk: the callback comes after them.
        self.store(writes, stored);
        Some(are_new)
    }

    /// Starts a thread for every batch that waits, as far as the limit allows. To be called
    /// periodically: a thread that could not be started is retried by the next call.
    pub fn start_pending(self: &Arc<Self>) {
        while !self.stop.stopped() {
            let Some((id, batch)) = lock(&self.queue).start() else { return };
            let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
            let own = Arc::clone(self);
            let name = format!("pipeline-{number}");
            let thread = spawn_critical(&name, STACK, move || own.run(id, &batch));
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
            let unknown = unknown(&PlanQuery::for_all(), why);
            let rows = plan_rows(&unknown, Now::read().wall);
            self.report(id, rows, unknown.iter().map(|report| (report, Vec::new())).collect());
        }
        self.start_pending();
    }

    fn handle(&self, id: BatchId, batch: &AlertBatch) {
        let passed = Now::read().wall.since(batch.accepted.wall);
        if self.stop.wait(self.settings().correlator.wait.saturating_sub(passed)) {
            return self.requeue(id);
        }
        // Read after the wait, so that a reload during it counts.
        let settings = self.settings();
        let Some(attempt) = self.record_attempt(id) else { return };
        let query = PlanQuery::from_alerts(&batch.alerts, &settings.correlator.backup_id_labels);
        let (reports, alerts) = if attempt > MAX_ATTEMPTS {
            let why = "looking into it ended hbd again and again, so it was not looked into";
            // Nor are the alerts quoted: the cause may be in them.
            (Some(unknown(&query, why)), &[][..])
        } else {
            (self.analyze(&settings, &query), &batch.alerts[..])
        };
        let Some(reports) = reports else { return self.requeue(id) };
        let labels = &settings.correlator.backup_id_labels;
        let rows = plan_rows(&reports, Now::read().wall);
        let reports = reportable(reports, &query);
        let reports =
            reports.iter().map(|report| (report, alerts_about(&report.plan.id, alerts, labels)));
        self.report(id, rows, reports.collect());
    }

    /// Counts the attempt on disk before it is made, so that it is known if it ends the daemon.
    fn record_attempt(&self, id: BatchId) -> Option<u32> {
        let (attempt, write) = lock(&self.queue).begin_attempt(id)?;
        let (tx, rx) = bounded(1);
        self.store(vec![write], move |_| {
            let _ = tx.send(());
        });
        // A disk that cannot be written must not prevent the report.
        let _ = rx.recv_timeout(STORE_TIMEOUT);
        Some(attempt)
    }

    fn store(&self, writes: Vec<Write>, stored: impl FnOnce(bool) + Send + 'static) {
        (self.sink)(Change { writes, on_stored: Some(Box::new(stored)), ..Change::default() });
    }

    fn analyze(&self, settings: &PipelineSettings, query: &PlanQuery) -> Option<Vec<PlanReport>> {
        let (repo_check, permits) = (settings.repo_check.as_ref(), &self.restic_permits);
        let analyzer = Analyzer {
            correlator: &settings.correlator,
            repo_checker: repo_check.map(|settings| RepoChecker { settings, permits }),
            wait_for_running: true,
        };
        let analyze = AssertUnwindSafe(|| analyzer.analyze(query, &self.stop));
        catch_unwind(analyze).unwrap_or_else(|_| {
            error!("looking into a backup panicked");
            Some(unknown(query, "looking into it failed, see the log of hbd"))
        })
    }

    /// Reports these plans, each with the alerts about it, stores the rows of all plans, and
    /// completes the batch: one transaction.
    fn report(&self, id: BatchId, rows: Vec<Write>, reports: Vec<(&PlanReport, Vec<&Alert>)>) {
        let now = Now::read();
        let event = |(report, alerts): (&PlanReport, Vec<&Alert>)| {
            let plan_outcome = &report.plan_outcome;
            *lock(&self.outcomes).entry(plan_outcome.outcome).or_default() += 1;
            info!(
                "plan {}: {} ({})",
                report.plan.id,
                plan_outcome.outcome.name(),
                plan_outcome.why
            );
            report.event(&alerts, now.wall)
        };
        let events: Vec<Event> = reports.into_iter().map(event).collect();
        let mut queue = lock(&self.queue);
        let mut writes = queue.complete(id, now.wall);
        writes.extend(rows);
        (self.sink)(Change { writes, events, ..Change::default() });
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

    /// Waits until no restic runs any more, for `limit` at most. To be called after the stop.
    pub fn wait_for_restic(&self, limit: Duration) {
        self.restic_permits.wait_for_end(limit);
    }

    /// How many alert instances were delivered since the start.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How many pipelines run or wait.
    pub fn count(&self) -> usize {
        lock(&self.queue).batch_count()
    }

    /// How many reports had which outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        lock(&self.outcomes).get(&outcome).copied().unwrap_or(0)
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
