//! The courier: takes events in, writes them down, and sees to it that each delivery gets its turn.
//!
//! One thread owns the outbox and the store. Everything that waits is taken into one transaction:
//! what changed, what it causes and which attempts begin with it. Only then are the attempts made,
//! by workers, and only then is the sender told that it is stored.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use log::{debug, error, info, warn};

use super::channel::{Definition, Pace};
use super::outbox::{
    Delivery, DeliveryRecord, DeliveryResult, Outbox, QueueSettings, QueueStatus, StoredOutbox,
};
use super::routing::Routes;
pub use super::worker::FAILURE_REASONS;
use super::worker::{self, DeliveryCounters, Task, TaskDone, TaskKind as ToDo, TaskResult};
use crate::clock::{Mono, Now};
use crate::event::{Event, EventId, EventKind, Level, Subject};
use crate::store::Change;
use crate::store::{Committed, Store, Table, Write};
use crate::thread::AbortOnPanic;
use crate::view::EventView;

/// So many orders are taken into one transaction at most: a bound on its memory.
const MAX_INPUTS_PER_COMMIT: usize = 1000;
/// How long an attempt that is under way may take at the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows of history that are kept.
const MAX_HISTORY_ROWS: usize = 10_000;
const LAST_EVENT_KEY: &str = "last_event";

/// Channels and routes: what a configuration means to the courier.
#[derive(Clone)]
pub struct NotifySettings {
    /// Who hears about what.
    pub routes: Routes,
    /// The channels by name.
    pub channels: BTreeMap<String, Arc<Definition>>,
    /// What to make of the channels' own paces: where time must not be waited for.
    pub pace: Option<fn(Pace) -> Pace>,
}

impl NotifySettings {
    /// What the outbox has to be told of each channel.
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

/// Something for the courier to do.
pub enum Command {
    /// Store these rows and events as one, then deliver.
    Commit(Change),
    /// A new configuration.
    Reconfigure(NotifySettings),
    /// Put into the history what was sent without the outbox.
    Record(Vec<DirectRecord>),
    /// Have a look at what is stored and at what waits. The courier waits meanwhile: be short.
    Inspect(InspectFn),
    /// Finish: write everything, end the attempts that are under way.
    Stop,
}

/// Sees the store and the outbox as they are after a commit.
pub type InspectFn = Box<dyn FnOnce(&Store, &Outbox) + Send>;

/// Something that was sent without the outbox.
pub struct DirectRecord {
    /// What, to whom, and how it ended.
    pub record: DeliveryRecord,
    /// Which of [`REASONS`] it failed for; none when it did not, or was not even tried.
    pub reason: Option<&'static str>,
}

/// How the courier stands, for the status and the metrics.
#[derive(Clone, Debug, Default)]
pub struct CourierStats {
    /// When it was so.
    pub at: Mono,
    /// Every channel.
    pub queues: Vec<QueueStatus>,
    /// Deliveries that arrived, by channel.
    pub sent: BTreeMap<String, u64>,
    /// Attempts that did not, by channel and reason.
    pub failed: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Whether the disk refuses.
    pub store_refuses: bool,
}

/// Where orders are left, and where the standing is seen.
#[derive(Clone)]
pub struct Courier {
    inputs: Sender<Input>,
    stats: Arc<Mutex<CourierStats>>,
    queued: Arc<AtomicUsize>,
}

enum Input {
    Order(Command),
    Done(TaskDone),
}

impl From<TaskDone> for Input {
    fn from(done: TaskDone) -> Input {
        Input::Done(done)
    }
}

/// What a full store makes of itself: every row that the features know.
pub type EveryRow = Box<dyn Fn() -> Vec<Write> + Send>;

/// The courier's desk before it is opened: orders may be left already.
pub struct PendingCourier {
    inputs: Receiver<Input>,
    results: Sender<Input>,
    stats: Arc<Mutex<CourierStats>>,
    queued: Arc<AtomicUsize>,
}

impl PendingCourier {
    /// Starts the courier and its workers on what the store holds. `translate` turns a time of
    /// an earlier boot into one of this boot's clock, `every_row` gives the features' rows to a
    /// store that lost its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(
        self,
        mut store: Store,
        equipment: NotifySettings,
        every_row: EveryRow,
        translate: impl Fn(Now) -> Now,
    ) -> std::io::Result<thread::JoinHandle<bool>> {
        let now = Now::read();
        let (tasks, to_do) = unbounded();
        let (outbox, dropped) = restore_outbox(&mut store, &equipment, translate, now);
        let mut work = CourierThread {
            stored_event_id: outbox.last_event(),
            outbox,
            store,
            settings: equipment,
            every_row,
            inputs: self.inputs,
            tasks,
            task_queue: to_do,
            results: self.results,
            workers: 0,
            stats: self.stats,
            queued: self.queued,
            history_rows_added: 0,
            event_stored: false,
            counters: DeliveryCounters::default(),
        };
        work.trim_history();
        work.counters.log_and_count_all(&dropped, Duration::ZERO);
        work.spawn_workers()?;
        work.publish_stats(now);
        thread::Builder::new().name("courier".into()).spawn(move || work.run())
    }
}

impl Courier {
    /// A courier whose desk is not open yet.
    pub fn new() -> (Courier, PendingCourier) {
        let (orders, inputs) = unbounded();
        let stats = Arc::new(Mutex::new(CourierStats::default()));
        let queued = Arc::default();
        let desk = PendingCourier {
            inputs,
            results: orders.clone(),
            stats: Arc::clone(&stats),
            queued: Arc::clone(&queued),
        };
        (Courier { inputs: orders, stats, queued }, desk)
    }

    /// Leaves an order. It is taken up as soon as the disk has the ones before it.
    pub fn order(&self, order: Command) {
        // The courier outlives everybody who gives orders; at the stop nobody waits for an answer.
        let _ = self.inputs.send(Input::Order(order));
    }

    /// How many orders wait.
    pub fn backlog(&self) -> usize {
        self.inputs.len()
    }

    /// How many deliveries wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// How things stand.
    pub fn standing(&self) -> CourierStats {
        let mut standing = self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The courier sleeps while nothing happens, but what waits grows older.
        let slept = Now::read().mono.since(standing.at);
        for age in standing.queues.iter_mut().filter_map(|line| line.oldest.as_mut()) {
            *age += slept;
        }
        standing
    }
}

fn restore_outbox(
    store: &mut Store,
    equipment: &NotifySettings,
    translate: impl Fn(Now) -> Now,
    now: Now,
) -> (Outbox, Vec<(DeliveryResult, DeliveryRecord)>) {
    let seed = now.wall.0.unsigned_abs() ^ u64::from(std::process::id()).rotate_left(32);
    let mut outbox = Outbox::new(equipment.queue_settings(), seed, now);
    let mut deliveries = store.read::<Delivery>(Table::Outbox);
    for (key, delivery) in &mut deliveries {
        let translated = translate(delivery.accepted);
        if translated != delivery.accepted {
            delivery.accepted = translated;
            store.write(Write::put(Table::Outbox, key.clone(), delivery));
        }
    }
    if !deliveries.is_empty() {
        info!("{} deliveries wait from before the start", deliveries.len());
    }
    let kept = StoredOutbox {
        last_event: store.get(Table::Meta, LAST_EVENT_KEY).unwrap_or_default(),
        deliveries,
        incidents: store.read(Table::Troubles).into_iter().map(|(_, open)| open).collect(),
        receipts: store.read(Table::Receipts).into_iter().map(|(_, receipt)| receipt).collect(),
    };
    let dropped = outbox.restore(kept, now);
    for write in outbox.take_writes() {
        store.write(write);
    }
    (outbox, dropped)
}

struct CourierThread {
    store: Store,
    outbox: Outbox,
    settings: NotifySettings,
    every_row: EveryRow,
    /// The last event number that was written down.
    stored_event_id: EventId,
    inputs: Receiver<Input>,
    tasks: Sender<Task>,
    task_queue: Receiver<Task>,
    results: Sender<Input>,
    workers: usize,
    stats: Arc<Mutex<CourierStats>>,
    queued: Arc<AtomicUsize>,
    history_rows_added: usize,
    /// An event was written since the last commit.
    event_stored: bool,
    counters: DeliveryCounters,
}

type OnStored = Box<dyn FnOnce(bool) + Send>;

impl CourierThread {
    /// Works until the stop; false when something could not be stored in the end.
    fn run(mut self) -> bool {
        let _vital = AbortOnPanic;
        let mut stopping: Option<Instant> = None;
        loop {
            let inputs = self.wait(stopping);
            let now = Now::read();
            let (mut answers, mut looks) = (Vec::new(), Vec::new());
            for input in inputs {
                match input {
                    Input::Done(done) => self.complete(done, now),
                    Input::Order(Command::Commit(effect)) => {
                        answers.extend(self.apply_change(effect, now))
                    }
                    Input::Order(Command::Reconfigure(equipment)) => {
                        self.reconfigure(equipment, now)
                    }
                    Input::Order(Command::Record(noted)) => self.record_direct(&noted, now),
                    Input::Order(Command::Inspect(look)) => looks.push(look),
                    Input::Order(Command::Stop) => stopping = Some(Instant::now()),
                }
            }
            let tasks = self.process_due(now, stopping.is_none());
            let stored = self.commit(now);
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

    /// Waits for something to do and takes all of it.
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

    /// Takes what a feature caused into the transaction at hand.
    fn apply_change(&mut self, effect: Change, now: Now) -> Option<OnStored> {
        for write in effect.writes {
            self.store.write(write);
        }
        for trouble in &effect.forgotten {
            self.outbox.close_silently(trouble);
        }
        for event in effect.events {
            self.accept(&event, now);
        }
        effect.stored
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

    /// Keeps what happened, told or not. Strangers may be any number: theirs is not kept.
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

    fn record_direct(&mut self, noted: &[DirectRecord], now: Now) {
        for DirectRecord { record, reason } in noted {
            self.counters.count_direct(record, *reason);
            self.outbox.record_direct(record, now);
        }
    }

    fn reconfigure(&mut self, equipment: NotifySettings, now: Now) {
        self.settings = equipment;
        let seed = now.wall.0.unsigned_abs();
        let dropped = self.outbox.reconfigure(self.settings.queue_settings(), seed, now);
        self.counters.log_and_count_all(&dropped, Duration::ZERO);
        if let Err(why) = self.spawn_workers() {
            warn!("no further worker could be started: {why}");
        }
    }

    /// What time alone brings about, and what is to be done.
    fn process_due(&mut self, now: Now, working: bool) -> Vec<ToDo> {
        let expired = self.outbox.expire(now);
        self.counters.log_and_count_all(&expired, Duration::ZERO);
        for event in self.outbox.channel_reports(now) {
            self.accept(&event, now);
        }
        if !working {
            return Vec::new();
        }
        let jobs = self.outbox.start(now).into_iter().map(ToDo::Attempt);
        jobs.chain(self.outbox.due_polls(now).into_iter().map(ToDo::Poll)).collect()
    }

    /// Puts everything on disk; true when it is.
    fn commit(&mut self, now: Now) -> bool {
        let writes = self.outbox.take_writes();
        // A number that nobody was told may be given again.
        let named = std::mem::take(&mut self.event_stored) || !writes.is_empty();
        if named && self.outbox.last_event() != self.stored_event_id {
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

    /// What the disk answered, told to people; true when everything is on it.
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
            Committed::Unread { .. } => start_anew(),
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

    /// The last chance of what is not on disk yet; false when it is lost.
    fn final_commit(&mut self, now: Now) -> bool {
        for write in self.outbox.take_writes() {
            self.store.write(write);
        }
        let rows = self.store.waiting();
        match self.store.commit_now(now) {
            Committed::Stored | Committed::Healed { .. } | Committed::Unread { .. } => true,
            Committed::Emptied { .. } => {
                let rows = (self.every_row)().into_iter().chain(self.outbox.every_row());
                rows.for_each(|write| self.store.write(write));
                self.store.commit_now(now) == Committed::Stored
            }
            Committed::Refused { .. } | Committed::StillRefused => {
                let waiting = self.outbox.len();
                error!(
                    "the disk takes nothing: {rows} rows of state are lost, {waiting} deliveries among them"
                );
                false
            }
        }
    }

    /// An event of the courier's own; it is started at the next turn.
    fn raise(&mut self, kind: EventKind, now: Now) {
        self.accept(&Event::new(now.wall, kind), now);
    }

    fn trim_history(&mut self) {
        self.history_rows_added = 0;
        for key in self.store.oldest(Table::History, MAX_HISTORY_ROWS) {
            self.store.write(Write::remove(Table::History, key));
        }
    }

    fn dispatch(&self, work: Vec<ToDo>) {
        for work in work {
            if let Some(channel) = self.settings.channels.get(work.channel()) {
                let _ = self.tasks.send(Task { channel: Arc::clone(channel), kind: work });
            }
        }
    }

    /// One worker for each channel, and one more where receipts are asked about: a provider that
    /// hangs holds up its own channel only.
    fn spawn_workers(&mut self) -> std::io::Result<()> {
        let channels = &self.settings.channels;
        let asked = channels.values().filter(|channel| channel.gives_receipts()).count();
        while self.workers < channels.len() + asked {
            worker::spawn(self.workers + 1, self.task_queue.clone(), self.results.clone())?;
            self.workers += 1;
        }
        Ok(())
    }

    fn publish_stats(&self, now: Now) {
        self.queued.store(self.outbox.len(), Ordering::Relaxed);
        let standing = CourierStats {
            at: now.mono,
            queues: self.outbox.queue_status(now),
            sent: self.counters.sent.clone(),
            failed: self.counters.failed.clone(),
            store_refuses: self.store.refuses(),
        };
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// The state from before the start can be read at last: only a daemon that begins with it knows
/// what it says, so this one makes room for the next.
fn start_anew() -> ! {
    warn!("the state from before the start can be read now: hbd starts anew to take it up");
    let why = std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
    error!("hbd cannot start itself anew ({why}) and ends");
    std::process::exit(1)
}
