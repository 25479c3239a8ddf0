//! From an alert that came in to a report that goes out: stored, waited for, examined, told.
//!
//! One detached thread for each delivery of alerts, at most 64 at a time; the rest waits in the
//! store. A pipeline that the daemon died over is resumed at the next start.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use log::{error, info, warn};

use super::alert::{self, Alert};
use super::analysis::{Analyzer, PlanReport, rows, unknown, worth_telling};
use super::outcome::Outcome;
use super::question::{PlanQuery, about};
use super::queue::{AlertBatch, AlertQueue, BatchId, CorruptRow, Enqueued, MOST_ATTEMPTS};
use super::settings::{CorrelatorSettings, RepoCheckSettings};
use crate::clock::{Now, Wall};
use crate::event::{Event, EventKind, Level, MOST_OTHERS};
use crate::store::Write;
use crate::store::change::{Change, ChangeSink};
use crate::thread::{AbortOnPanic, Stop};

/// How long a pipeline waits for its own row to be on disk.
const DISK: Duration = Duration::from_secs(10);
/// Redis' and restic's libraries and ours: a pipeline needs less than the default of 2 MB.
const STACK: usize = 512 * 1024;
/// How many characters are told of a row that cannot be read: its key, and what is wrong, may hold
/// whatever is in it.
const LONGEST_ROW: usize = 300;

/// What the pipelines have to be told.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The alerts that are about backups.
    pub alert_names: Vec<String>,
    /// Where the truth is.
    pub correlator: CorrelatorSettings,
    /// How repositories are asked.
    pub repo_check: Option<RepoCheckSettings>,
    /// An alert instance is reported again after this time; none: never.
    pub renotify: Option<Duration>,
}

/// What is answered to a sender of alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertAdmission {
    /// Nothing in it concerns us.
    Nothing,
    /// Whether it is stored is told later.
    Coming,
    /// Too many alerts wait.
    Full,
}

/// All pipelines.
pub struct Pipelines {
    intake: Mutex<AlertQueue>,
    settings: Mutex<Arc<PipelineSettings>>,
    sink: ChangeSink,
    stop: Stop,
    received: AtomicU64,
    started: AtomicU64,
    outcomes: Mutex<BTreeMap<Outcome, u64>>,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of rows that cannot be read: they are removed, and in the same transaction people are
/// told which alerts were lost with them, so that it is told once and not at each start.
fn given_up(damaged: &[CorruptRow], now: Wall) -> Change {
    for CorruptRow { key, why } in damaged {
        error!("the stored row {key} of the pipelines is damaged, what it says is lost: {why}");
    }
    let writes = damaged.iter().map(CorruptRow::remove).collect();
    let lost: Vec<_> = damaged.iter().filter(|row| row.may_be_alerts()).collect();
    let told = lost.iter().take(MOST_OTHERS).map(|row| {
        let words = format!("{}: {}", row.key, row.why);
        words.chars().take(LONGEST_ROW).collect()
    });
    let kind = EventKind::AlertsLost { rows: told.collect(), count: lost.len() };
    let event = Event { at: now, level: Level::Critical, kind };
    let events = if lost.is_empty() { Vec::new() } else { vec![event] };
    Change { writes, events, ..Change::default() }
}

impl Pipelines {
    /// Takes over what the store kept ([`crate::store::Table::Pipelines`]) and resumes it.
    pub fn resume(
        rows: Vec<(String, Vec<u8>)>,
        settings: PipelineSettings,
        sink: ChangeSink,
        stop: Stop,
    ) -> Arc<Pipelines> {
        let mut intake = AlertQueue::restore(rows, settings.renotify);
        let damaged = intake.take_damaged();
        if !damaged.is_empty() {
            sink(given_up(&damaged, Now::read().wall));
        }
        if intake.pipelines() > 0 {
            info!("{} backup alerts wait from before the start", intake.pipelines());
        }
        let pipelines = Arc::new(Pipelines {
            intake: Mutex::new(intake),
            settings: Mutex::new(Arc::new(settings)),
            sink,
            stop,
            received: AtomicU64::new(0),
            started: AtomicU64::new(0),
            outcomes: Mutex::new(BTreeMap::new()),
        });
        pipelines.start_waiting();
        pipelines
    }

    /// Takes over another configuration; pipelines that run keep theirs.
    pub fn reconfigure(&self, settings: PipelineSettings) {
        locked(&self.intake).renotify_after(settings.renotify);
        *locked(&self.settings) = Arc::new(settings);
    }

    /// The alerts that are about backups, at present.
    pub fn alert_names(&self) -> Vec<String> {
        self.settings().alert_names.clone()
    }

    fn settings(&self) -> Arc<PipelineSettings> {
        Arc::clone(&locked(&self.settings))
    }

    /// The body of a webhook. `stored` is told whether all that concerns us is on disk.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub fn hear(
        self: &Arc<Self>,
        body: &[u8],
        stored: impl FnOnce(bool) + Send + 'static,
    ) -> Result<AlertAdmission, String> {
        Ok(self.accept(alert::relevant(body, &self.alert_names())?, stored))
    }

    /// Alerts that were fetched or sent. `stored` is told whether they are on disk.
    pub fn accept(
        self: &Arc<Self>,
        alerts: Vec<Alert>,
        stored: impl FnOnce(bool) + Send + 'static,
    ) -> AlertAdmission {
        if alerts.is_empty() {
            return AlertAdmission::Nothing;
        }
        self.received.fetch_add(alerts.len() as u64, Ordering::Relaxed);
        let count = alerts.len();
        let mut intake = locked(&self.intake);
        let writes = match intake.offer(alerts, Now::read()) {
            Enqueued::Full => {
                warn!("{count} backup alerts were sent away: too many wait already");
                return AlertAdmission::Full;
            }
            Enqueued::Known => Vec::new(),
            Enqueued::New(write) => {
                info!("backup alerts came in ({count}), they are looked into");
                vec![write]
            }
        };
        // Known ones may still be on their way to the disk: the answer waits behind them.
        (self.sink)(Change { writes, stored: Some(Box::new(stored)), ..Change::default() });
        drop(intake);
        self.start_waiting();
        AlertAdmission::Coming
    }

    /// Starts a thread for every batch that waits, as far as there is room. To be called now and
    /// then: where no thread could be started, another time may be better.
    pub fn start_waiting(self: &Arc<Self>) {
        while !self.stop.stopped() {
            let Some((id, batch)) = locked(&self.intake).start() else { return };
            let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
            let own = Arc::clone(self);
            let thread = thread::Builder::new()
                .name(format!("pipeline-{number}"))
                .stack_size(STACK)
                .spawn(move || own.run(id, &batch));
            if let Err(why) = thread {
                warn!("a pipeline could not be started, its alerts wait: {why}");
                locked(&self.intake).put_back(id);
                return;
            }
        }
    }

    fn run(self: &Arc<Self>, id: BatchId, batch: &AlertBatch) {
        let _vital = AbortOnPanic;
        let handled = catch_unwind(AssertUnwindSafe(|| self.handle(id, batch)));
        if handled.is_err() {
            error!("the pipeline of a backup alert panicked");
            // Not even what the alerts say is looked at: whatever it was may be in them.
            let why = "looking into an alert failed, see the log of hbd";
            let unknown = unknown(&PlanQuery::about_everything(), why);
            let kept = rows(&unknown, Now::read().wall);
            self.report(id, kept, unknown.iter().map(|one| (one, Vec::new())).collect());
        }
        self.start_waiting();
    }

    fn handle(&self, id: BatchId, batch: &AlertBatch) {
        let passed = Now::read().wall.since(batch.accepted.wall);
        if self.stop.wait(self.settings().correlator.wait.saturating_sub(passed)) {
            return self.put_back(id);
        }
        // As they are now: a reload during the wait was meant.
        let settings = self.settings();
        let Some(attempt) = self.begin(id) else { return };
        let question = PlanQuery::of(&batch.alerts, &settings.correlator.backup_id_labels);
        let (examined, alerts) = if attempt > MOST_ATTEMPTS {
            let why = "looking into it ended hbd again and again, so it was not looked into";
            // Nor are the alerts' own words repeated: whatever it was may be in them.
            (Some(unknown(&question, why)), &[][..])
        } else {
            (self.examine(&settings, &question), &batch.alerts[..])
        };
        let Some(examined) = examined else { return self.put_back(id) };
        let labels = &settings.correlator.backup_id_labels;
        let kept = rows(&examined, Now::read().wall);
        let told = worth_telling(examined, &question);
        let told = told.iter().map(|one| (one, about(&one.plan.id, alerts, labels)));
        self.report(id, kept, told.collect());
    }

    /// Counts the attempt on disk before it is made: should it end the daemon, that is known.
    fn begin(&self, id: BatchId) -> Option<u32> {
        let (attempt, write) = locked(&self.intake).attempt(id)?;
        let (tx, rx) = bounded(1);
        self.leave(vec![write], move |_| {
            let _ = tx.send(());
        });
        // A disk that refuses must not keep the report from being made.
        let _ = rx.recv_timeout(DISK);
        Some(attempt)
    }

    fn leave(&self, writes: Vec<Write>, stored: impl FnOnce(bool) + Send + 'static) {
        (self.sink)(Change { writes, stored: Some(Box::new(stored)), ..Change::default() });
    }

    fn examine(
        &self,
        settings: &PipelineSettings,
        question: &PlanQuery,
    ) -> Option<Vec<PlanReport>> {
        let examiner = Analyzer {
            correlator: &settings.correlator,
            repo_check: settings.repo_check.as_ref(),
            patient: true,
        };
        let examine = AssertUnwindSafe(|| examiner.examine(question, &self.stop));
        catch_unwind(examine).unwrap_or_else(|_| {
            error!("looking into a backup panicked");
            Some(unknown(question, "looking into it failed, see the log of hbd"))
        })
    }

    /// Tells of these plans, each with the alerts about it, keeps how all fared, and ends the
    /// batch: one transaction.
    fn report(&self, id: BatchId, kept: Vec<Write>, told: Vec<(&PlanReport, Vec<&Alert>)>) {
        let now = Now::read();
        let event = |(one, alerts): (&PlanReport, Vec<&Alert>)| {
            let verdict = &one.verdict;
            *locked(&self.outcomes).entry(verdict.outcome).or_default() += 1;
            info!("plan {}: {} ({})", one.plan.id, verdict.outcome.name(), verdict.why);
            one.event(&alerts, now.wall)
        };
        let events: Vec<Event> = told.into_iter().map(event).collect();
        let mut intake = locked(&self.intake);
        let mut writes = intake.reported(id, now.wall);
        writes.extend(kept);
        (self.sink)(Change { writes, events, ..Change::default() });
    }

    /// The daemon stops: the next one resumes the batch, and does not count this attempt.
    fn put_back(&self, id: BatchId) {
        let mut intake = locked(&self.intake);
        if let Some(write) = intake.put_back(id) {
            (self.sink)(Change { writes: vec![write], ..Change::default() });
        }
    }

    /// Ends them all, before the store is closed: the next daemon resumes them, also those that
    /// hang where nothing wakes them.
    pub fn close(&self) {
        let mut intake = locked(&self.intake);
        let writes = intake.close();
        (self.sink)(Change { writes, ..Change::default() });
    }

    /// Alert instances that came in.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Pipelines that run or wait.
    pub fn count(&self) -> usize {
        locked(&self.intake).pipelines()
    }

    /// How many reports had which outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        locked(&self.outcomes).get(&outcome).copied().unwrap_or(0)
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        locked(&self.intake).every_row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;
    use crate::store::Table;

    fn damaged(keys: &[&str]) -> Vec<CorruptRow> {
        let why = "x".repeat(1_000);
        keys.iter().map(|key| CorruptRow { key: (*key).into(), why: why.clone() }).collect()
    }

    #[test]
    fn rows_that_cannot_be_read_are_told_and_removed_in_one_transaction() {
        let keys: Vec<_> = (0..12).map(|number| format!("batch/{number}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).chain(["reported/a"]).collect();
        let effect = given_up(&damaged(&keys), Wall(7));
        assert_eq!(
            effect.writes,
            keys.iter().map(|key| Write::remove(Table::Pipelines, *key)).collect::<Vec<_>>()
        );
        let [event] = &effect.events[..] else { panic!("{:?}", effect.events) };
        assert_eq!((event.at, event.level), (Wall(7), Level::Critical));
        let message = event.message(EventId(1));
        let (_, rows) = &message.details[0];
        assert!(rows.starts_with("batch/0: xxx") && rows.ends_with("\nand 2 more"), "{rows}");
        assert!(rows.len() < 4_000, "however much is wrong");
    }

    #[test]
    fn a_report_that_is_no_longer_noted_is_nobodys_concern() {
        let effect = given_up(&damaged(&["reported/a"]), Wall(7));
        assert_eq!((effect.writes.len(), effect.events), (1, vec![]));
    }
}
