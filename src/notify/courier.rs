//! The courier: takes events in, writes them down, and sees to it that each delivery gets its turn.
//!
//! One thread owns the outbox and the store. Everything that waits is taken into one transaction:
//! what changed, what it causes and which attempts begin with it. Only then are the attempts made,
//! by workers, and only then is the sender told that it is stored.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use log::{debug, error, info, warn};

use super::channel::{Definition, Pace};
use super::outbox::{Delivery, Fate, Kept, LineSettings, LineView, Outbox, Record};
use super::routing::Routes;
pub use super::worker::REASONS;
use super::worker::{self, Done, Ended, Tally, Task, Work as ToDo};
use crate::clock::{Mono, Now};
use crate::event::{Event, EventId, EventKind, Level, Subject};
use crate::store::Change;
use crate::store::{Committed, Store, Table, Write};
use crate::thread::AbortOnPanic;
use crate::view::EventView;

/// So many orders are taken into one transaction at most: a bound on its memory.
const MOST_AT_ONCE: usize = 1000;
/// How long an attempt that is under way may take at the stop.
const LAST_ATTEMPT: Duration = Duration::from_secs(10);
/// Rows of history that are kept.
const HISTORY_KEPT: usize = 10_000;
const LAST_EVENT: &str = "last_event";

/// Channels and routes: what a configuration means to the courier.
#[derive(Clone)]
pub struct Equipment {
    /// Who hears about what.
    pub routes: Routes,
    /// The channels by name.
    pub channels: BTreeMap<String, Arc<Definition>>,
    /// What to make of the channels' own paces: where time must not be waited for.
    pub pace: Option<fn(Pace) -> Pace>,
}

impl Equipment {
    /// What the outbox has to be told of each channel.
    pub fn lines(&self) -> BTreeMap<String, LineSettings> {
        self.channels
            .iter()
            .map(|(name, channel)| {
                let pace = self.pace.map_or(channel.pace(), |change| change(channel.pace()));
                (name.clone(), LineSettings { pace, recipients: channel.recipients() })
            })
            .collect()
    }
}

/// Something for the courier to do.
pub enum Order {
    /// Store these rows and events as one, then deliver.
    Accept(Change),
    /// A new configuration.
    Reconfigure(Equipment),
    /// Put into the history what was sent without the outbox.
    Note(Vec<Noted>),
    /// Have a look at what is stored and at what waits. The courier waits meanwhile: be short.
    Look(Look),
    /// Finish: write everything, end the attempts that are under way.
    Stop,
}

/// Sees the store and the outbox as they are after a commit.
pub type Look = Box<dyn FnOnce(&Store, &Outbox) + Send>;

/// Something that was sent without the outbox.
pub struct Noted {
    /// What, to whom, and how it ended.
    pub record: Record,
    /// Which of [`REASONS`] it failed for; none when it did not, or was not even tried.
    pub reason: Option<&'static str>,
}

/// How the courier stands, for the status and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// When it was so.
    pub at: Mono,
    /// Every channel.
    pub lines: Vec<LineView>,
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
    orders: Sender<Input>,
    standing: Arc<Mutex<Standing>>,
    queued: Arc<AtomicUsize>,
}

enum Input {
    Order(Order),
    Done(Done),
}

impl From<Done> for Input {
    fn from(done: Done) -> Input {
        Input::Done(done)
    }
}

/// What a full store makes of itself: every row that the features know.
pub type EveryRow = Box<dyn Fn() -> Vec<Write> + Send>;

/// The courier's desk before it is opened: orders may be left already.
pub struct Desk {
    inputs: Receiver<Input>,
    results: Sender<Input>,
    standing: Arc<Mutex<Standing>>,
    queued: Arc<AtomicUsize>,
}

impl Desk {
    /// Starts the courier and its workers on what the store holds. `translate` turns a time of
    /// an earlier boot into one of this boot's clock, `every_row` gives the features' rows to a
    /// store that lost its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(
        self,
        mut store: Store,
        equipment: Equipment,
        every_row: EveryRow,
        translate: impl Fn(Now) -> Now,
    ) -> std::io::Result<thread::JoinHandle<bool>> {
        let now = Now::read();
        let (tasks, to_do) = unbounded();
        let (outbox, dropped) = restored(&mut store, &equipment, translate, now);
        let mut work = Work {
            stored_event: outbox.last_event(),
            outbox,
            store,
            equipment,
            every_row,
            inputs: self.inputs,
            tasks,
            to_do,
            results: self.results,
            workers: 0,
            standing: self.standing,
            queued: self.queued,
            history: 0,
            recorded: false,
            tally: Tally::default(),
        };
        work.trim_history();
        work.tally.tell_all(&dropped, Duration::ZERO);
        work.hire()?;
        work.show(now);
        thread::Builder::new().name("courier".into()).spawn(move || work.run())
    }
}

impl Courier {
    /// A courier whose desk is not open yet.
    pub fn new() -> (Courier, Desk) {
        let (orders, inputs) = unbounded();
        let standing = Arc::new(Mutex::new(Standing::default()));
        let queued = Arc::default();
        let desk = Desk {
            inputs,
            results: orders.clone(),
            standing: Arc::clone(&standing),
            queued: Arc::clone(&queued),
        };
        (Courier { orders, standing, queued }, desk)
    }

    /// Leaves an order. It is taken up as soon as the disk has the ones before it.
    pub fn order(&self, order: Order) {
        // The courier outlives everybody who gives orders; at the stop nobody waits for an answer.
        let _ = self.orders.send(Input::Order(order));
    }

    /// How many orders wait.
    pub fn backlog(&self) -> usize {
        self.orders.len()
    }

    /// How many deliveries wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The courier sleeps while nothing happens, but what waits grows older.
        let slept = Now::read().mono.since(standing.at);
        for age in standing.lines.iter_mut().filter_map(|line| line.oldest.as_mut()) {
            *age += slept;
        }
        standing
    }
}

fn restored(
    store: &mut Store,
    equipment: &Equipment,
    translate: impl Fn(Now) -> Now,
    now: Now,
) -> (Outbox, Vec<(Fate, Record)>) {
    let seed = now.wall.0.unsigned_abs() ^ u64::from(std::process::id()).rotate_left(32);
    let mut outbox = Outbox::new(equipment.lines(), seed, now);
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
    let kept = Kept {
        last_event: store.get(Table::Meta, LAST_EVENT).unwrap_or_default(),
        deliveries,
        troubles: store.read(Table::Troubles).into_iter().map(|(_, open)| open).collect(),
        receipts: store.read(Table::Receipts).into_iter().map(|(_, receipt)| receipt).collect(),
    };
    let dropped = outbox.restore(kept, now);
    for write in outbox.take_writes() {
        store.write(write);
    }
    (outbox, dropped)
}

struct Work {
    store: Store,
    outbox: Outbox,
    equipment: Equipment,
    every_row: EveryRow,
    /// The last event number that was written down.
    stored_event: EventId,
    inputs: Receiver<Input>,
    tasks: Sender<Task>,
    to_do: Receiver<Task>,
    results: Sender<Input>,
    workers: usize,
    standing: Arc<Mutex<Standing>>,
    queued: Arc<AtomicUsize>,
    history: usize,
    /// An event was written since the last commit.
    recorded: bool,
    tally: Tally,
}

type Answer = Box<dyn FnOnce(bool) + Send>;

impl Work {
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
                    Input::Done(done) => self.done(done, now),
                    Input::Order(Order::Accept(effect)) => answers.extend(self.take(effect, now)),
                    Input::Order(Order::Reconfigure(equipment)) => self.reequip(equipment, now),
                    Input::Order(Order::Note(noted)) => self.note(&noted, now),
                    Input::Order(Order::Look(look)) => looks.push(look),
                    Input::Order(Order::Stop) => stopping = Some(Instant::now()),
                }
            }
            let tasks = self.turn(now, stopping.is_none());
            let stored = self.commit(now);
            for answer in answers {
                answer(stored);
            }
            looks.into_iter().for_each(|look| look(&self.store, &self.outbox));
            self.dispatch(tasks);
            self.show(now);
            if let Some(since) = stopping
                && (!self.outbox.is_busy() || since.elapsed() >= LAST_ATTEMPT)
            {
                return self.commit_at_last(Now::read());
            }
        }
    }

    /// Waits for something to do and takes all of it.
    fn wait(&self, stopping: Option<Instant>) -> Vec<Input> {
        let now = Now::read();
        let timeout = match stopping {
            Some(since) => Some(LAST_ATTEMPT.saturating_sub(since.elapsed())),
            None => self.next_wake(now),
        };
        let first = match timeout {
            Some(timeout) => self.inputs.recv_timeout(timeout),
            None => self.inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        first.into_iter().chain(self.inputs.try_iter().take(MOST_AT_ONCE)).collect()
    }

    fn next_wake(&self, now: Now) -> Option<Duration> {
        let turn = self.outbox.next_wake(now);
        let store = self.store.next_try().map(|next| next.mono);
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let grain = Duration::from_millis(1);
        [turn, store].into_iter().flatten().min().map(|at| at.since(now.mono) + grain)
    }

    /// Takes what a feature caused into the transaction at hand.
    fn take(&mut self, effect: Change, now: Now) -> Option<Answer> {
        for write in effect.writes {
            self.store.write(write);
        }
        for trouble in &effect.forgotten {
            self.outbox.forget(trouble);
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
        let count = self.outbox.accept(event, id, &self.equipment.routes, now);
        debug!("{:?} is event {id}, {count} deliveries queued", event.kind);
        self.record(event, id);
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
    fn record(&mut self, event: &Event, id: EventId) {
        if let Subject::Host(host) = event.subject()
            && !self.equipment.routes.hosts.contains_key(&host)
        {
            return;
        }
        self.recorded = true;
        self.store.write(Write::put(Table::Events, id.to_string(), &EventView::of(event, id)));
    }

    fn done(&mut self, done: Done, now: Now) {
        match done.ended {
            Ended::Delivery(id, result) => {
                let ended = self.outbox.finish(id, result, now);
                self.tally.tell_all(&ended, done.took);
            }
            Ended::Poll(poll, answer) => {
                let failed = answer.as_ref().err().map(|failure| failure.clone().into_why());
                if let Some(note) = self.outbox.polled(&poll, answer, now) {
                    worker::noted(&note);
                } else if let Some(why) = failed {
                    debug!("a receipt of {} could not be asked about: {why}", poll.channel);
                }
            }
        }
    }

    fn note(&mut self, noted: &[Noted], now: Now) {
        for Noted { record, reason } in noted {
            self.tally.note(record, *reason);
            self.outbox.note(record, now);
        }
    }

    fn reequip(&mut self, equipment: Equipment, now: Now) {
        self.equipment = equipment;
        let seed = now.wall.0.unsigned_abs();
        let dropped = self.outbox.reconfigure(self.equipment.lines(), seed, now);
        self.tally.tell_all(&dropped, Duration::ZERO);
        if let Err(why) = self.hire() {
            warn!("no further worker could be started: {why}");
        }
    }

    /// What time alone brings about, and what is to be done.
    fn turn(&mut self, now: Now, working: bool) -> Vec<ToDo> {
        let expired = self.outbox.expire(now);
        self.tally.tell_all(&expired, Duration::ZERO);
        for event in self.outbox.reports(now) {
            self.accept(&event, now);
        }
        if !working {
            return Vec::new();
        }
        let jobs = self.outbox.start(now).into_iter().map(ToDo::Attempt);
        jobs.chain(self.outbox.polls(now).into_iter().map(ToDo::Ask)).collect()
    }

    /// Puts everything on disk; true when it is.
    fn commit(&mut self, now: Now) -> bool {
        let writes = self.outbox.take_writes();
        // A number that nobody was told may be given again.
        let named = std::mem::take(&mut self.recorded) || !writes.is_empty();
        if named && self.outbox.last_event() != self.stored_event {
            self.stored_event = self.outbox.last_event();
            self.store.write(Write::put(Table::Meta, LAST_EVENT, &self.stored_event));
        }
        for write in writes {
            self.history += usize::from(write.table == Table::History);
            self.store.write(write);
        }
        if self.history > HISTORY_KEPT / 10 {
            self.trim_history();
        }
        let committed = self.store.commit(now);
        self.took(committed, now)
    }

    /// What the disk answered, told to people; true when everything is on it.
    fn took(&mut self, committed: Committed, now: Now) -> bool {
        match committed {
            Committed::Stored => true,
            Committed::StillRefused => false,
            Committed::Refused { why } => {
                error!("a crash would lose what is not on disk, and that takes nothing: {why}");
                self.say(EventKind::StoreRefuses { why }, now);
                false
            }
            Committed::Healed { refused_for } => self.healed(refused_for, now),
            Committed::Emptied { refused_for } => {
                let rows = (self.every_row)().into_iter().chain(self.outbox.all_writes());
                rows.for_each(|write| self.store.write(write));
                self.healed(refused_for, now)
            }
            Committed::Unread { .. } => start_anew(),
        }
    }

    fn healed(&mut self, refused_for: Duration, now: Now) -> bool {
        self.say(EventKind::StoreWrites { refused_for }, now);
        for write in self.outbox.take_writes() {
            self.store.write(write);
        }
        let committed = self.store.commit(now);
        self.took(committed, now)
    }

    /// The last chance of what is not on disk yet; false when it is lost.
    fn commit_at_last(&mut self, now: Now) -> bool {
        for write in self.outbox.take_writes() {
            self.store.write(write);
        }
        let rows = self.store.waiting();
        match self.store.commit_now(now) {
            Committed::Stored | Committed::Healed { .. } | Committed::Unread { .. } => true,
            Committed::Emptied { .. } => {
                let rows = (self.every_row)().into_iter().chain(self.outbox.all_writes());
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
    fn say(&mut self, kind: EventKind, now: Now) {
        self.accept(&Event::new(now.wall, kind), now);
    }

    fn trim_history(&mut self) {
        self.history = 0;
        for key in self.store.oldest(Table::History, HISTORY_KEPT) {
            self.store.write(Write::remove(Table::History, key));
        }
    }

    fn dispatch(&self, work: Vec<ToDo>) {
        for work in work {
            if let Some(channel) = self.equipment.channels.get(work.channel()) {
                let _ = self.tasks.send(Task { channel: Arc::clone(channel), work });
            }
        }
    }

    /// One worker for each channel, and one more where receipts are asked about: a provider that
    /// hangs holds up its own channel only.
    fn hire(&mut self) -> std::io::Result<()> {
        let channels = &self.equipment.channels;
        let asked = channels.values().filter(|channel| channel.gives_receipts()).count();
        while self.workers < channels.len() + asked {
            worker::hire(self.workers + 1, self.to_do.clone(), self.results.clone())?;
            self.workers += 1;
        }
        Ok(())
    }

    fn show(&self, now: Now) {
        self.queued.store(self.outbox.len(), Ordering::Relaxed);
        let standing = Standing {
            at: now.mono,
            lines: self.outbox.views(now),
            sent: self.tally.sent.clone(),
            failed: self.tally.failed.clone(),
            store_refuses: self.store.refuses(),
        };
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// The state from before the start can be read at last: only a daemon that begins with it knows
/// what it says, so this one makes room for the next.
fn start_anew() -> ! {
    warn!("the state from before the start can be read now: hbd starts anew to take it up");
    let why = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
    error!("hbd cannot start itself anew ({why}) and ends");
    std::process::exit(1)
}
