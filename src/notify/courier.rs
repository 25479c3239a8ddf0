//! The courier: the one thread that owns the store and the outbox.
//!
//! Group commit: every command that waits goes into one transaction, together with what it causes
//! and the attempts that start because of it. The attempts are made, by workers, and the producers
//! are answered only after the fsync.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use log::{debug, error, info, warn};

use super::channel::{Definition, Pace};
use super::outbox::{
    Delivery, DeliveryRecord, DeliveryResult, Outbox, QueueSettings, QueueStatus, StoredOutbox,
};
use super::routing::Routes;
pub use super::worker::FAILURE_REASONS;
use super::worker::{self, DeliveryCounters, Task, TaskDone, TaskKind, TaskResult};
use crate::clock::{Mono, Now};
use crate::event::{Event, EventId, EventKind, Level, Subject};
use crate::store::{Change, Committed, Store, Table, Write};
use crate::thread::{ProgressCounter, lock, spawn_critical};
use crate::view::EventView;

/// Commands that wait for the disk. Beyond this, producers that can refuse do so.
pub const MAX_BACKLOG: usize = 10_000;
/// Deliveries that wait for their channels. Beyond this, events of hosts are refused.
const MAX_QUEUED: usize = 20_000;
/// A bound on the memory of one transaction.
const MAX_INPUTS_PER_COMMIT: usize = 1000;
/// How long attempts that are in flight at the stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Ended deliveries beyond the newest of this number are removed.
const MAX_HISTORY_ROWS: usize = 10_000;
const STACK: usize = 2 * 1024 * 1024;
const LAST_EVENT_KEY: &str = "last_event";

/// The channels and the routes of a configuration.
#[derive(Clone)]
pub struct NotifySettings {
    /// Which channels get which event.
    pub routes: Routes,
    /// The channels by name.
    pub channels: BTreeMap<String, Arc<Definition>>,
    /// Replaces the channels' own rates and delays: for tests.
    pub pace: Option<fn(Pace) -> Pace>,
}

impl NotifySettings {
    /// What the outbox needs to know of each channel.
    pub fn queue_settings(&self) -> BTreeMap<String, QueueSettings> {
        self.channels
            .iter()
            .map(|(name, channel)| {
                let pace = self.pace.map_or(channel.pace(), |change| change(channel.pace()));
                (name.clone(), QueueSettings { pace, recipients: channel.recipients() })
            })
            .collect()
    }
}

/// Why the courier's thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CourierExit {
    /// It was stopped, and everything is on disk.
    Stored,
    /// It was stopped, and the disk did not take everything.
    Lost,
    /// The disk failed before the start and can be read only now: the process must start again to
    /// load what it holds.
    Restart,
}

/// What the daemon gives the courier's thread to call.
pub struct CourierHooks {
    /// Every row of every feature, for a store that lost its own.
    pub every_row: EveryRow,
    /// Called on the courier's thread when it has ended and the store is closed.
    pub on_exit: Box<dyn FnOnce(CourierExit) + Send>,
}

/// See [`CourierHooks::every_row`].
pub type EveryRow = Box<dyn Fn() -> Vec<Write> + Send>;

enum Command {
    /// Stores these rows and events as one, then delivers.
    Commit(Change),
    Reconfigure(NotifySettings),
    Record(Vec<DirectRecord>),
    Inspect(InspectFn),
    Stop,
}

type InspectFn = Box<dyn FnOnce(&Store, &Outbox) + Send>;
type OnStored = Box<dyn FnOnce(bool) + Send>;

/// A message that was sent without the outbox.
pub struct DirectRecord {
    /// What, to whom, and how it ended.
    pub record: DeliveryRecord,
    /// Which of [`FAILURE_REASONS`] it failed for; none when it arrived or was not tried.
    pub reason: Option<&'static str>,
}

/// Channels and counters at one moment, for the status and the metrics.
#[derive(Clone, Debug, Default)]
pub struct CourierStats {
    /// That moment.
    pub at: Mono,
    /// Every channel.
    pub queues: Vec<QueueStatus>,
    /// Deliveries that arrived, by channel.
    pub sent: BTreeMap<String, u64>,
    /// Attempts that did not, by channel and reason.
    pub failed: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Whether the disk refuses to write.
    pub store_refuses: bool,
}

/// A handle of the courier's thread: takes commands, and shows the statistics.
#[derive(Clone)]
pub struct Courier {
    /// Unbounded, since a producer must not block and what it has accepted must not be lost.
    /// While the disk hangs in an fsync nothing is taken out, so each producer is bounded by
    /// itself (and in time: `WatchdogSec=60s` ends a daemon whose courier does not answer).
    ///
    /// Refused when [`MAX_BACKLOG`] commands wait, before their producer changes any state:
    /// - datagrams and HTTP heartbeats that carry more than a beat, by [`Courier::is_overloaded`];
    ///   a beat is taken, but not acknowledged (see [`Courier::commit`])
    /// - `POST /alert` and `POST /notify` (503), by [`Courier::is_backlogged`]
    /// - reading requests, by [`Courier::inspect`]
    ///
    /// Not refused, since each of these was accepted before or happened anyway:
    /// - pipelines: at most 64 at once, of at most 10,000 alerts (`backup::intake`); each leaves
    ///   three commands
    /// - deadlines: at most two events per connection and beat interval; one row per changed host
    ///   and flush, 1000 rows in one command
    /// - the updater of DNS names: one record per name and attempt, attempts are rate-limited
    /// - the history: the rows of one slot, once per slot
    /// - direct sends that have begun: at most 4 at once, one record per channel
    /// - the alert poller: one event per outage and per recovery
    /// - reloads: one at a time, of the main thread
    /// - workers: one result each
    inputs: Sender<Input>,
    stats: Arc<Mutex<CourierStats>>,
    queued: Arc<AtomicUsize>,
}

enum Input {
    Command(Command),
    Done(TaskDone),
}

impl From<TaskDone> for Input {
    fn from(done: TaskDone) -> Input {
        Input::Done(done)
    }
}

/// The courier before its thread runs: commands may be sent already.
pub struct PendingCourier {
    inputs: Receiver<Input>,
    results: Sender<Input>,
    stats: Arc<Mutex<CourierStats>>,
    queued: Arc<AtomicUsize>,
}

impl PendingCourier {
    /// Starts the courier's thread and its workers on what the store holds. `rebase` turns a time
    /// of an earlier boot into one of this boot's clock.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(
        self,
        mut store: Store,
        settings: NotifySettings,
        hooks: CourierHooks,
        rebase: impl Fn(Now) -> Now,
    ) -> std::io::Result<JoinHandle<CourierExit>> {
        let now = Now::read();
        let (tasks, task_queue) = unbounded();
        let (outbox, dropped) = restore_outbox(&mut store, &settings, rebase, now);
        let mut thread = CourierThread {
            stored_event_id: outbox.last_event(),
            outbox,
            store,
            settings,
            every_row: hooks.every_row,
            inputs: self.inputs,
            tasks,
            task_queue,
            results: self.results,
            workers: 0,
            stats: self.stats,
            queued: self.queued,
            history_rows_added: 0,
            event_stored: false,
            must_restart: false,
            counters: DeliveryCounters::default(),
        };
        thread.trim_history();
        thread.counters.log_and_count_all(&dropped, Duration::ZERO);
        thread.spawn_workers()?;
        thread.publish_stats(now);
        spawn_critical("courier", STACK, move || {
            let exit = thread.run();
            (hooks.on_exit)(exit);
            exit
        })
    }
}

impl Courier {
    /// A handle, and the courier that it will command.
    pub fn new() -> (Courier, PendingCourier) {
        let (tx, inputs) = unbounded();
        let stats = Arc::new(Mutex::new(CourierStats::default()));
        let queued = Arc::default();
        let pending = PendingCourier {
            inputs,
            results: tx.clone(),
            stats: Arc::clone(&stats),
            queued: Arc::clone(&queued),
        };
        (Courier { inputs: tx, stats, queued }, pending)
    }

    /// Stores a change after those before it, then delivers its events.
    ///
    /// A change that stores nothing only waits for those before it. Beyond [`MAX_BACKLOG`] it does
    /// not: it is answered at once, as not stored.
    pub fn commit(&self, mut change: Change) {
        let stores_nothing =
            change.writes.is_empty() && change.events.is_empty() && change.forgotten.is_empty();
        if stores_nothing && self.is_backlogged() {
            if let Some(answer) = change.stored.take() {
                answer(false);
            }
            return;
        }
        self.send(Command::Commit(change));
    }

    /// Puts messages that were sent without the outbox into the history.
    pub fn record(&self, records: Vec<DirectRecord>) {
        self.send(Command::Record(records));
    }

    /// Applies another configuration.
    pub fn reconfigure(&self, settings: NotifySettings) {
        self.send(Command::Reconfigure(settings));
    }

    /// Ends the courier's thread: attempts in flight have ten seconds, then everything is written.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    /// What `look` sees of the store and the outbox after the next commit. The courier's thread
    /// waits for `look`: it must be short.
    ///
    /// # Errors
    /// A sentence: there was no time for it within `timeout`, too much waits already, or the
    /// courier has ended.
    pub fn inspect<T: Send + 'static>(
        &self,
        timeout: Duration,
        look: impl FnOnce(&Store, &Outbox) -> T + Send + 'static,
    ) -> Result<T, String> {
        const SLOW: &str = "the history cannot be read now, the disk is slow";
        if self.is_backlogged() {
            return Err(SLOW.into());
        }
        let (tx, rx) = bounded(1);
        self.send(Command::Inspect(Box::new(move |store, outbox| {
            // Fails when the timeout has passed.
            let _ = tx.send(look(store, outbox));
        })));
        rx.recv_timeout(timeout).map_err(|why| match why {
            RecvTimeoutError::Timeout => SLOW.into(),
            RecvTimeoutError::Disconnected => "hbd is stopping".into(),
        })
    }

    /// Has the courier's thread increment `answered` when it comes to this command.
    pub fn ping(&self, answered: ProgressCounter) {
        self.send(Command::Inspect(Box::new(move |_, _| answered.increment())));
    }

    fn send(&self, command: Command) {
        // Fails when the thread has ended: at the stop, after every producer that needs an answer.
        let _ = self.inputs.send(Input::Command(command));
    }

    /// Whether so many commands wait for the disk that no more should be caused.
    pub fn is_backlogged(&self) -> bool {
        self.inputs.len() > MAX_BACKLOG
    }

    /// Whether commands wait for the disk, or deliveries for their channels, beyond their limit.
    pub fn is_overloaded(&self) -> bool {
        self.is_backlogged() || self.queued.load(Ordering::Relaxed) > MAX_QUEUED
    }

    /// The statistics as of now.
    pub fn stats(&self) -> CourierStats {
        let mut stats = lock(&self.stats).clone();
        // They are published at every turn; what waits has grown older since.
        let age = Now::read().mono.since(stats.at);
        for oldest in stats.queues.iter_mut().filter_map(|queue| queue.oldest.as_mut()) {
            *oldest += age;
        }
        stats
    }
}

fn restore_outbox(
    store: &mut Store,
    settings: &NotifySettings,
    rebase: impl Fn(Now) -> Now,
    now: Now,
) -> (Outbox, Vec<(DeliveryResult, DeliveryRecord)>) {
    let seed = now.wall.0.unsigned_abs() ^ u64::from(std::process::id()).rotate_left(32);
    let mut outbox = Outbox::new(settings.queue_settings(), seed, now);
    let mut deliveries = store.read::<Delivery>(Table::Outbox);
    for (key, delivery) in &mut deliveries {
        let accepted = rebase(delivery.accepted);
        if accepted != delivery.accepted {
            delivery.accepted = accepted;
            store.write(Write::put(Table::Outbox, key.clone(), delivery));
        }
    }
    if !deliveries.is_empty() {
        info!("{} deliveries wait from before the start", deliveries.len());
    }
    let stored = StoredOutbox {
        last_event: store.get(Table::Meta, LAST_EVENT_KEY).unwrap_or_default(),
        deliveries,
        incidents: store.read(Table::Troubles).into_iter().map(|(_, open)| open).collect(),
        receipts: store.read(Table::Receipts).into_iter().map(|(_, receipt)| receipt).collect(),
    };
    let dropped = outbox.restore(stored, now);
    for write in outbox.take_writes() {
        store.write(write);
    }
    (outbox, dropped)
}

/// What the thread owns.
struct CourierThread {
    store: Store,
    outbox: Outbox,
    settings: NotifySettings,
    every_row: EveryRow,
    /// The last event number that is on disk.
    stored_event_id: EventId,
    inputs: Receiver<Input>,
    tasks: Sender<Task>,
    task_queue: Receiver<Task>,
    results: Sender<Input>,
    workers: usize,
    stats: Arc<Mutex<CourierStats>>,
    queued: Arc<AtomicUsize>,
    /// Since the history was trimmed.
    history_rows_added: usize,
    /// An event was written since the last commit.
    event_stored: bool,
    /// See [`CourierExit::Restart`].
    must_restart: bool,
    counters: DeliveryCounters,
}

impl CourierThread {
    /// Runs until the stop, or until the process must restart.
    fn run(mut self) -> CourierExit {
        let mut stopping: Option<Instant> = None;
        loop {
            let inputs = self.wait(stopping);
            let now = Now::read();
            let (mut answers, mut looks) = (Vec::new(), Vec::new());
            for input in inputs {
                match input {
                    Input::Done(done) => self.complete(done, now),
                    Input::Command(Command::Commit(change)) => {
                        answers.extend(self.apply_change(change, now));
                    }
                    Input::Command(Command::Reconfigure(settings)) => {
                        self.reconfigure(settings, now);
                    }
                    Input::Command(Command::Record(records)) => self.record_direct(&records, now),
                    Input::Command(Command::Inspect(look)) => looks.push(look),
                    Input::Command(Command::Stop) => stopping = Some(Instant::now()),
                }
            }
            let tasks = self.process_due(now, stopping.is_none());
            let stored = self.commit(now);
            if self.must_restart {
                // What waits here is unanswered, and is sent again to the next process.
                return if stopping.is_some() { CourierExit::Stored } else { CourierExit::Restart };
            }
            for answer in answers {
                answer(stored);
            }
            looks.into_iter().for_each(|look| look(&self.store, &self.outbox));
            self.dispatch(tasks);
            self.publish_stats(now);
            if let Some(since) = stopping
                && (!self.outbox.is_busy() || since.elapsed() >= STOP_TIMEOUT)
            {
                return self.final_commit(Now::read());
            }
        }
    }

    /// Waits for an input or for something that falls due; everything that waits by then.
    fn wait(&self, stopping: Option<Instant>) -> Vec<Input> {
        let now = Now::read();
        let timeout = match stopping {
            Some(since) => Some(STOP_TIMEOUT.saturating_sub(since.elapsed())),
            None => self.next_wake(now),
        };
        let first = match timeout {
            Some(timeout) => self.inputs.recv_timeout(timeout),
            None => self.inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        first.into_iter().chain(self.inputs.try_iter().take(MAX_INPUTS_PER_COMMIT)).collect()
    }

    fn next_wake(&self, now: Now) -> Option<Duration> {
        let turn = self.outbox.next_wake(now);
        let store = self.store.next_try().map(|next| next.mono);
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let grain = Duration::from_millis(1);
        [turn, store].into_iter().flatten().min().map(|at| at.since(now.mono) + grain)
    }

    /// Puts a change into the transaction at hand.
    fn apply_change(&mut self, change: Change, now: Now) -> Option<OnStored> {
        for write in change.writes {
            self.store.write(write);
        }
        for incident in &change.forgotten {
            self.outbox.close_silently(incident);
        }
        for event in change.events {
            self.accept(&event, now);
        }
        change.stored
    }

    fn accept(&mut self, event: &Event, now: Now) {
        if let Some(by) = self.outbox.acknowledged(event) {
            let device = by.device.as_deref().unwrap_or("a device");
            info!(
                "no reminder of {:?}: acknowledged through {} on {device} at {}",
                event.kind, by.channel, by.at
            );
            return;
        }
        let id = self.outbox.next_event(now.wall);
        let count = self.outbox.accept(event, id, &self.settings.routes, now);
        debug!("{:?} is event {id}, {count} deliveries queued", event.kind);
        self.store_event(event, id);
        if let EventKind::Backup { plan, .. } = &event.kind
            && event.level > Level::Ok
            && count == 0
        {
            warn!(
                "nobody is told how the backup {plan} fared: no channel takes {}",
                event.level.name()
            );
        }
    }

    /// Keeps an event for the list of events, notified or not. Hosts that are not configured may be
    /// any number: their events are not kept.
    fn store_event(&mut self, event: &Event, id: EventId) {
        if let Subject::Host(host) = event.subject()
            && !self.settings.routes.hosts.contains_key(&host)
        {
            return;
        }
        self.event_stored = true;
        self.store.write(Write::put(Table::Events, id.to_string(), &EventView::of(event, id)));
    }

    fn complete(&mut self, done: TaskDone, now: Now) {
        match done.result {
            TaskResult::Attempt(id, result) => {
                let ended = self.outbox.complete(id, result, now);
                self.counters.log_and_count_all(&ended, done.took);
            }
            TaskResult::Poll(poll, answer) => {
                let failed = answer.as_ref().err().map(|failure| failure.clone().into_why());
                if let Some(note) = self.outbox.on_poll_result(&poll, answer, now) {
                    worker::log_acknowledgement(&note);
                } else if let Some(why) = failed {
                    debug!("a receipt of {} could not be asked about: {why}", poll.channel);
                }
            }
        }
    }

    fn record_direct(&mut self, records: &[DirectRecord], now: Now) {
        for DirectRecord { record, reason } in records {
            self.counters.count_direct(record, *reason);
            self.outbox.record_direct(record, now);
        }
    }

    fn reconfigure(&mut self, settings: NotifySettings, now: Now) {
        self.settings = settings;
        let seed = now.wall.0.unsigned_abs();
        let dropped = self.outbox.reconfigure(self.settings.queue_settings(), seed, now);
        self.counters.log_and_count_all(&dropped, Duration::ZERO);
        if let Err(why) = self.spawn_workers() {
            warn!("no further worker could be started: {why}");
        }
    }

    /// Expires deliveries and reports channels; starts every attempt and poll that is due, except
    /// while stopping.
    fn process_due(&mut self, now: Now, starts: bool) -> Vec<TaskKind> {
        let expired = self.outbox.expire(now);
        self.counters.log_and_count_all(&expired, Duration::ZERO);
        for event in self.outbox.channel_reports(now) {
            self.accept(&event, now);
        }
        if !starts {
            return Vec::new();
        }
        let attempts = self.outbox.start(now).into_iter().map(TaskKind::Attempt);
        attempts.chain(self.outbox.due_polls(now).into_iter().map(TaskKind::Poll)).collect()
    }

    /// Puts everything on disk; true when it is.
    fn commit(&mut self, now: Now) -> bool {
        let writes = self.outbox.take_writes();
        // A number that was never shown may be given again.
        let shown = std::mem::take(&mut self.event_stored) || !writes.is_empty();
        if shown && self.outbox.last_event() != self.stored_event_id {
            self.stored_event_id = self.outbox.last_event();
            self.store.write(Write::put(Table::Meta, LAST_EVENT_KEY, &self.stored_event_id));
        }
        for write in writes {
            self.history_rows_added += usize::from(write.table == Table::History);
            self.store.write(write);
        }
        if self.history_rows_added > MAX_HISTORY_ROWS / 10 {
            self.trim_history();
        }
        let committed = self.store.commit(now);
        self.handle_commit(committed, now)
    }

    /// Reports what the disk answered; true when everything is on it.
    fn handle_commit(&mut self, committed: Committed, now: Now) -> bool {
        match committed {
            Committed::Stored => true,
            Committed::StillRefused => false,
            Committed::Refused { why } => {
                error!("a crash would lose what is not on disk, and that takes nothing: {why}");
                self.raise(EventKind::StoreRefuses { why }, now);
                false
            }
            Committed::Healed { refused_for } => self.on_recovered(refused_for, now),
            Committed::Emptied { refused_for } => {
                let rows = (self.every_row)().into_iter().chain(self.outbox.every_row());
                rows.for_each(|write| self.store.write(write));
                self.on_recovered(refused_for, now)
            }
            Committed::Unread { .. } => {
                self.must_restart = true;
                false
            }
        }
    }

    fn on_recovered(&mut self, refused_for: Duration, now: Now) -> bool {
        self.raise(EventKind::StoreWrites { refused_for }, now);
        for write in self.outbox.take_writes() {
            self.store.write(write);
        }
        let committed = self.store.commit(now);
        self.handle_commit(committed, now)
    }

    /// The last try for what is not on disk yet.
    fn final_commit(&mut self, now: Now) -> CourierExit {
        for write in self.outbox.take_writes() {
            self.store.write(write);
        }
        let rows = self.store.waiting();
        match self.store.commit_now(now) {
            Committed::Stored | Committed::Healed { .. } | Committed::Unread { .. } => {
                CourierExit::Stored
            }
            Committed::Emptied { .. } => {
                let rows = (self.every_row)().into_iter().chain(self.outbox.every_row());
                rows.for_each(|write| self.store.write(write));
                match self.store.commit_now(now) {
                    Committed::Stored => CourierExit::Stored,
                    _ => CourierExit::Lost,
                }
            }
            Committed::Refused { .. } | Committed::StillRefused => {
                let waiting = self.outbox.len();
                error!(
                    "the disk takes nothing: {rows} rows of state are lost, {waiting} deliveries among them"
                );
                CourierExit::Lost
            }
        }
    }

    /// An event of the courier's own; its deliveries start at the next turn.
    fn raise(&mut self, kind: EventKind, now: Now) {
        self.accept(&Event::new(now.wall, kind), now);
    }

    fn trim_history(&mut self) {
        self.history_rows_added = 0;
        for key in self.store.oldest(Table::History, MAX_HISTORY_ROWS) {
            self.store.write(Write::remove(Table::History, key));
        }
    }

    fn dispatch(&self, tasks: Vec<TaskKind>) {
        for kind in tasks {
            if let Some(channel) = self.settings.channels.get(kind.channel()) {
                let _ = self.tasks.send(Task { channel: Arc::clone(channel), kind });
            }
        }
    }

    /// One worker for each channel, and one more for each whose receipts are polled: a provider
    /// that hangs blocks no other channel. A reload with more channels adds workers; one with fewer
    /// leaves them idle, which costs a stack each: ending one of many that wait on one queue would
    /// need a command of its own.
    fn spawn_workers(&mut self) -> std::io::Result<()> {
        let channels = &self.settings.channels;
        let polled = channels.values().filter(|channel| channel.gives_receipts()).count();
        while self.workers < channels.len() + polled {
            worker::spawn(self.workers + 1, self.task_queue.clone(), self.results.clone())?;
            self.workers += 1;
        }
        Ok(())
    }

    fn publish_stats(&self, now: Now) {
        self.queued.store(self.outbox.len(), Ordering::Relaxed);
        let stats = CourierStats {
            at: now.mono,
            queues: self.outbox.queue_status(now),
            sent: self.counters.sent.clone(),
            failed: self.counters.failed.clone(),
            store_refuses: self.store.refuses(),
        };
        *lock(&self.stats) = stats;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::store::FILE;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn start(pending: PendingCourier, directory: &Path) -> Receiver<CourierExit> {
        let (tx, exits) = bounded(1);
        let store = Store::open(directory, Now::read()).unwrap().0;
        let settings =
            NotifySettings { routes: Routes::default(), channels: BTreeMap::new(), pace: None };
        let on_exit = Box::new(move |exit| tx.send(exit).unwrap());
        let hooks = CourierHooks { every_row: Box::new(Vec::new), on_exit };
        pending.open(store, settings, hooks, |then| then).unwrap();
        exits
    }

    fn row(key: &str, number: usize) -> Change {
        Change { writes: vec![Write::put(Table::Meta, key, &number)], ..Change::default() }
    }

    #[test]
    fn a_backlog_refuses_what_can_be_refused_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        // Nothing is taken out yet, as while the disk hangs.
        let (courier, pending) = Courier::new();
        (0..=MAX_BACKLOG).for_each(|number| courier.commit(row("n", number)));
        assert!(courier.is_backlogged() && courier.is_overloaded());
        let slow = "the history cannot be read now, the disk is slow";
        assert_eq!(courier.inspect(TIMEOUT, |_, _| ()), Err(slow.into()), "at once");
        let (tx, rx) = bounded(1);
        let on_stored = move || {
            let tx = tx.clone();
            Some(Box::new(move |stored| tx.send(stored).unwrap()) as OnStored)
        };
        courier.commit(Change { stored: on_stored(), ..Change::default() });
        assert_eq!(rx.try_recv(), Ok(false), "a beat is not acknowledged");
        courier.commit(Change { stored: on_stored(), ..row("last", 1) });
        assert!(rx.try_recv().is_err(), "what is to be stored waits");

        let exits = start(pending, directory.path());
        assert_eq!(rx.recv_timeout(TIMEOUT), Ok(true));
        assert!(!courier.is_backlogged());
        let look = |store: &Store, _: &Outbox| {
            (store.get(Table::Meta, "n"), store.get::<usize>(Table::Meta, "last"))
        };
        assert_eq!(courier.inspect(TIMEOUT, look), Ok((Some(MAX_BACKLOG), Some(1))));
        courier.stop();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Stored));
        assert_eq!(courier.inspect(TIMEOUT, |_, _| ()), Err("hbd is stopping".into()));
    }

    #[test]
    fn a_state_that_can_be_read_only_later_ends_the_courier_for_a_restart() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [file, sound] = [&directory, &other].map(|directory| directory.path().join(FILE));
        drop(Store::open(other.path(), Now::read()).unwrap());
        fs::create_dir(&file).unwrap();
        let (courier, pending) = Courier::new();
        let exits = start(pending, directory.path());
        courier.commit(row("n", 1));
        assert_eq!(courier.inspect(TIMEOUT, |store, _| store.refuses()), Ok(true));
        fs::remove_dir(&file).unwrap();
        fs::rename(&sound, &file).unwrap();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Restart));
    }
}
