//! The courier: the one thread that owns the store and the outbox.
//!
//! Group commit: every command that waits goes into one transaction, together with what it causes
//! and the attempts that start because of it. The attempts are made, by workers, and the producers
//! are answered only after the fsync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use self::overlay::Undo;
use self::thread::CourierThread;
use super::calm::{Calm, CalmError, CalmOverview};
use super::channel::SharedState;
use super::outbox::{DeliveryRecord, Outbox, QueueStatus, Room, UsedShares};
use super::settings::NotifySettings;
use super::worker::TaskDone;
pub use super::worker::{FAILURE_REASONS, SendPermit};
use crate::clock::{Mono, Now};
use crate::store::{Change, HistoryLimit, Store, Write};
use crate::thread::{DEFAULT_STACK, ProgressCounter, lock, spawn_critical};
use crate::view::calm::{CalmAnswer, HeldListView, SilencesView};

mod delivery_pool;
mod overlay;
mod restore;
mod thread;
mod waiting;

pub use self::overlay::{CalmRequest, NewAcknowledgement};

/// Commands that wait for the disk. Beyond this, producers that can refuse do so.
pub const MAX_BACKLOG: usize = 10_000;
const LAST_EVENT_KEY: &str = "last_event";

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
    /// Another daemon leads from now on. Nothing of what was not stored was sent or answered: the
    /// process must start again, and know nothing.
    Deposed,
}

/// What the daemon gives the courier's thread to call.
pub struct CourierHooks {
    /// Every row of every feature, for a store that lost its own.
    pub every_row: EveryRow,
    /// Asked before each attempt and each poll.
    pub permit: SendPermit,
    /// Called on the courier's thread when it has ended and the store is closed.
    pub on_exit: Box<dyn FnOnce(CourierExit) + Send>,
}

/// See [`CourierHooks::every_row`].
pub type EveryRow = Box<dyn Fn() -> Vec<Write> + Send>;

enum Command {
    /// Stores these rows and events as one, then delivers.
    Commit(Change),
    Reconfigure(NotifySettings),
    LimitHistory(HistoryLimit),
    Record(Vec<DirectRecord>),
    Inspect(InspectFn),
    /// Carries out what people ask of silences and acknowledgements.
    Calm(CalmRequest, CalmReply),
    /// Takes back one that could not be stored.
    UndoCalm(Undo),
    Stop,
}

type InspectFn = Box<dyn FnOnce(&Store, &Outbox, &Calm, Now) + Send>;
/// Whether the answer is still waited for.
type CalmReply = Box<dyn FnOnce(Result<CalmAnswer, CalmError>) -> bool + Send>;
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
    /// Why the disk takes nothing; none while it does.
    pub store_refuses: Option<String>,
    /// What is silent, and held back.
    pub calm: Arc<CalmOverview>,
    /// Open alarms that are acknowledged.
    pub acknowledged: usize,
}

/// A handle of the courier's thread: takes commands, and shows the statistics.
#[derive(Clone)]
pub struct Courier {
    /// Unbounded, since a producer must not block and what it has accepted must not be lost.
    /// A disk that is slow, or begins to hang, holds up the courier for seconds, so each producer
    /// is bounded by itself.
    ///
    /// Refused when [`MAX_BACKLOG`] commands wait, before their producer changes any state:
    /// - datagrams and HTTP heartbeats that carry more than a beat, by [`Courier::is_backlogged`];
    ///   a beat is taken, but not acknowledged (see [`Courier::commit`])
    /// - `POST /alert` and `POST /notify` (503), by [`Courier::is_backlogged`]
    /// - reading requests, by [`Courier::inspect`]
    ///
    /// Not refused, since each of these was accepted before or happened anyway:
    /// - pipelines: at most 64 at once, of at most 10,000 alerts (`backup::queue`); each leaves
    ///   three commands
    /// - deadlines: at most two events per connection and beat interval; one row per changed host
    ///   and flush, 1000 rows in one command
    /// - the updater of DNS names: one record per name and attempt, attempts are rate-limited
    /// - the history: the rows of one slot, once per slot
    /// - direct sends that have begun: at most 4 at once, one record per channel
    /// - the daily summary of backups: one event and one row for each configured time
    /// - the alert poller: one event per outage and per recovery
    /// - reloads: one at a time, of the main thread
    /// - workers: one result each
    inputs: Sender<Input>,
    channel_state: Arc<SharedState>,
    stats: Arc<Mutex<CourierStats>>,
    used_shares: Arc<Mutex<UsedShares>>,
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
    channel_state: Arc<SharedState>,
    stats: Arc<Mutex<CourierStats>>,
    used_shares: Arc<Mutex<UsedShares>>,
}

impl PendingCourier {
    /// Starts the courier's thread and its workers on what the store holds. `rebase` turns a time
    /// of an earlier boot into one of this boot's clock.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(
        self,
        store: Store,
        settings: NotifySettings,
        hooks: CourierHooks,
        rebase: impl Fn(Now) -> Now,
    ) -> std::io::Result<JoinHandle<CourierExit>> {
        let thread =
            CourierThread::start(self, store, settings, (hooks.every_row, hooks.permit), rebase)?;
        spawn_critical("courier", DEFAULT_STACK, move || {
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
        let channel_state = Arc::default();
        let used_shares = Arc::default();
        let pending = PendingCourier {
            inputs,
            results: tx.clone(),
            channel_state: Arc::clone(&channel_state),
            stats: Arc::clone(&stats),
            used_shares: Arc::clone(&used_shares),
        };
        (Courier { inputs: tx, channel_state, stats, used_shares }, pending)
    }

    /// Stores a change after those before it, then delivers its events.
    ///
    /// A change that stores nothing only waits for those before it. Beyond [`MAX_BACKLOG`] it does
    /// not: it is answered at once, as not stored.
    pub fn commit(&self, mut change: Change) {
        let stores_nothing = change.writes.is_empty()
            && change.events.is_empty()
            && change.closed_silently.is_empty()
            && change.parents_up.is_empty()
            && change.not_behind.is_empty()
            && change.entry.is_none();
        if stores_nothing && self.is_backlogged() {
            if let Some(answer) = change.on_stored.take() {
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

    /// Limits the bytes of the history from the next commit on.
    pub fn limit_history(&self, limit: HistoryLimit) {
        self.send(Command::LimitHistory(limit));
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
        let answer = self.wait_for(timeout, |tx| {
            Command::Inspect(Box::new(move |store, outbox, _, _| {
                // Fails when the timeout has passed.
                let _ = tx.send(look(store, outbox));
            }))
        });
        answer.map_err(|why| no_time(why, "the history cannot be read now, the disk is slow"))
    }

    /// Does what people ask: a silence is set, and the answer says what is wrong at present within its
    /// scope, and was told; silences are ended, and it says what follows because of it; open alarms that
    /// were told are acknowledged, the acknowledged ones anew, or no longer. It is on disk when this
    /// returns. Whether there is anything that a scope is about is for the caller to find out, with
    /// [`CalmScope::check`](super::calm::scope::CalmScope::check).
    ///
    /// # Errors
    /// Invalid: of no length, or a comment that is none. Conflict: too long, or one too many. NotFound:
    /// nothing is silent, told or acknowledged there. NotStored: it has no effect; the end of a silence
    /// has until a restart.
    pub fn request(
        &self,
        request: CalmRequest,
        timeout: Duration,
    ) -> Result<CalmAnswer, CalmError> {
        let answer = self.wait_for(timeout, |tx| {
            let reply = Box::new(move |answer| tx.send(answer).is_ok());
            Command::Calm(request, reply)
        });
        answer.map_err(not_answered)?
    }

    /// The silences and windows at present, and what comes next.
    ///
    /// # Errors
    /// As [`Courier::inspect_calm`].
    pub fn silences(&self, timeout: Duration) -> Result<SilencesView, CalmError> {
        self.inspect_calm(timeout, |calm, _, now| calm.silences(now))
    }

    /// What is held back at present, of one host or in all.
    ///
    /// # Errors
    /// As [`Courier::inspect_calm`].
    pub fn held(&self, host: Option<&str>, timeout: Duration) -> Result<HeldListView, CalmError> {
        let host = host.map(str::to_owned);
        self.inspect_calm(timeout, move |calm, _, now| calm.held_view(host.as_deref(), now))
    }

    /// As [`Courier::inspect`], with what is silent and held back, and the time.
    ///
    /// # Errors
    /// NotStored: there was no time for it.
    pub fn inspect_calm<T: Send + 'static>(
        &self,
        timeout: Duration,
        look: impl FnOnce(&Calm, &Outbox, Now) -> T + Send + 'static,
    ) -> Result<T, CalmError> {
        let answer = self.wait_for(timeout, |tx| {
            Command::Inspect(Box::new(move |_, outbox, calm, now| {
                // Fails when the timeout has passed.
                let _ = tx.send(look(calm, outbox, now));
            }))
        });
        answer.map_err(not_answered)
    }

    /// What a command answers; at once none when too much waits already.
    fn wait_for<T>(
        &self,
        timeout: Duration,
        command: impl FnOnce(Sender<T>) -> Command,
    ) -> Result<T, RecvTimeoutError> {
        if self.is_backlogged() {
            return Err(RecvTimeoutError::Timeout);
        }
        let (tx, rx) = bounded(1);
        self.send(command(tx));
        rx.recv_timeout(timeout)
    }

    /// Has the courier's thread increment `answered` when it comes to this command.
    pub fn ping(&self, answered: ProgressCounter) {
        self.send(Command::Inspect(Box::new(move |_, _, _, _| answered.increment())));
    }

    /// What the channels know from one attempt to the next: for all that delivers in this process.
    pub fn channel_state(&self) -> Arc<SharedState> {
        Arc::clone(&self.channel_state)
    }

    fn send(&self, command: Command) {
        // Fails when the thread has ended: at the stop, after every producer that needs an answer.
        let _ = self.inputs.send(Input::Command(command));
    }

    /// Whether so many commands wait for the disk that no more should be caused.
    pub fn is_backlogged(&self) -> bool {
        self.inputs.len() > MAX_BACKLOG
    }

    /// Whether there is room in the outbox for messages of a host, which is configured or not.
    pub fn room(&self, host: &str, configured: bool) -> Room {
        lock(&self.used_shares).room(host, configured)
    }

    /// What is silent, as of the last turn.
    pub fn calm(&self) -> Arc<CalmOverview> {
        Arc::clone(&lock(&self.stats).calm)
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

fn no_time(why: RecvTimeoutError, slow: &str) -> String {
    match why {
        RecvTimeoutError::Timeout => slow.into(),
        RecvTimeoutError::Disconnected => "hbd is stopping".into(),
    }
}

fn not_answered(why: RecvTimeoutError) -> CalmError {
    CalmError::NotStored(no_time(why, "the disk is slow, try again later"))
}

#[cfg(test)]
mod shared_tests;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::notify::calm::scope::CalmScope;
    use crate::notify::calm::{NewSilence, SilenceSelection};
    use crate::notify::routing::Routes;
    use crate::store::{FILE_NAME, Table};
    use crate::view::calm::SilencedView;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn start(pending: PendingCourier, directory: &Path) -> Receiver<CourierExit> {
        let (tx, exits) = bounded(1);
        let store = Store::open(directory, Now::read()).unwrap().0;
        let settings = NotifySettings {
            routes: Routes::default(),
            channels: BTreeMap::new(),
            calm: crate::notify::calm::CalmSettings::default(),
            overdue_renotify: None,
            public_url: None,
            retry_policy: None,
        };
        let on_exit = Box::new(move |exit| tx.send(exit).unwrap());
        let (every_row, permit) = (Box::new(Vec::new), Arc::new(|| true));
        let hooks = CourierHooks { every_row, permit, on_exit };
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
        assert!(courier.is_backlogged());
        let slow = "the history cannot be read now, the disk is slow";
        assert_eq!(courier.inspect(TIMEOUT, |_, _| ()), Err(slow.into()), "at once");
        let (tx, rx) = bounded(1);
        let on_stored = move || {
            let tx = tx.clone();
            Some(Box::new(move |stored| tx.send(stored).unwrap()) as OnStored)
        };
        courier.commit(Change { on_stored: on_stored(), ..Change::default() });
        assert_eq!(rx.try_recv(), Ok(false), "a beat is not acknowledged");
        courier.commit(Change { on_stored: on_stored(), ..row("last", 1) });
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
    fn that_an_entry_of_the_inbox_was_handled_is_stored_with_its_effect() {
        let directory = tempfile::tempdir().unwrap();
        let (courier, pending) = Courier::new();
        let exits = start(pending, directory.path());
        let entry = |id: &str, uid: &str| {
            Some(crate::store::InboxEntry { id: id.into(), uid: uid.into(), again: false })
        };
        courier.commit(Change { entry: entry("17-0", "hb1:a:1"), ..row("effect", 1) });
        courier.commit(Change { entry: entry("17-1", ""), ..Change::default() });
        let rows = courier.inspect(TIMEOUT, |store, _| {
            let cursor: Option<String> = store.get(Table::Meta, "inbox");
            let handled: Option<crate::clock::Wall> = store.get(Table::Meta, "u/hb1:a:1");
            let others = store.rows(Table::Meta).iter().filter(|(key, _)| key == "u/").count();
            (cursor, handled.is_some(), store.get::<usize>(Table::Meta, "effect"), others)
        });
        assert_eq!(rows, Ok((Some("17-1".into()), true, Some(1), 0)));
        courier.stop();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Stored));
    }

    fn new_silence() -> CalmRequest {
        CalmRequest::Silence(NewSilence {
            scope: CalmScope::All,
            length: Duration::from_secs(3600),
            by: "ann".into(),
            comment: None,
            unless: None,
            origin: crate::notify::calm::Origin::Command,
        })
    }

    fn silenced(courier: &Courier) -> SilencedView {
        let answer = courier.request(new_silence(), TIMEOUT).unwrap();
        let CalmAnswer::Silenced(view) = answer else { panic!("{answer:?}") };
        view
    }

    #[test]
    fn a_silence_is_on_disk_when_it_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let (courier, pending) = Courier::new();
        let exits = start(pending, directory.path());
        let set = silenced(&courier);
        assert_eq!((set.silence.id.as_str(), set.silence.holds), ("s1", 0));
        let row = |store: &Store, _: &Outbox| store.rows(Table::Calm).len();
        assert_eq!(courier.inspect(TIMEOUT, row), Ok(2), "the silence and its number");
        assert_eq!(courier.silences(TIMEOUT).unwrap().silences, [set.silence]);
        assert!(courier.held(None, TIMEOUT).unwrap().held.is_empty());
        let new = NewAcknowledgement {
            scope: CalmScope::All,
            by: "ann".into(),
            comment: None,
            length: None,
        };
        let refused = courier.request(CalmRequest::Acknowledge(new), TIMEOUT).unwrap_err();
        assert_eq!(refused.to_string(), "nothing that was told is wrong with --all");
        courier.stop();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Stored));
        let (courier, pending) = Courier::new();
        let exits = start(pending, directory.path());
        assert_eq!(courier.silences(TIMEOUT).unwrap().silences[0].id, "s1");
        let end = CalmRequest::Unsilence { which: SilenceSelection::All, by: "bob".into() };
        let ended = courier.request(end, TIMEOUT).unwrap();
        let CalmAnswer::Unsilenced(ended) = ended else { panic!("{ended:?}") };
        assert_eq!(ended.ended, ["s1"]);
        let set = silenced(&courier);
        assert_eq!(set.silence.id, "s2", "a number is used once");
        courier.stop();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Stored));
    }

    #[test]
    fn a_silence_that_the_disk_does_not_take_is_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(FILE_NAME)).unwrap();
        let (courier, pending) = Courier::new();
        let exits = start(pending, directory.path());
        for _ in 0..2 {
            let refused = courier.request(new_silence(), TIMEOUT).unwrap_err();
            let why = "the disk takes nothing: it was not stored, and has no effect";
            assert_eq!(refused, CalmError::NotStored(why.into()));
            assert_eq!(courier.silences(TIMEOUT).unwrap().silences, []);
        }
        courier.stop();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Lost));
    }

    #[test]
    fn a_state_that_can_be_read_only_later_ends_the_courier_for_a_restart() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [file, sound] = [&directory, &other].map(|directory| directory.path().join(FILE_NAME));
        drop(Store::open(other.path(), Now::read()).unwrap());
        fs::create_dir(&file).unwrap();
        let (courier, pending) = Courier::new();
        let exits = start(pending, directory.path());
        courier.commit(row("n", 1));
        assert_eq!(courier.inspect(TIMEOUT, |store, _| store.is_failing()), Ok(true));
        fs::remove_dir(&file).unwrap();
        fs::rename(&sound, &file).unwrap();
        assert_eq!(exits.recv_timeout(TIMEOUT), Ok(CourierExit::Restart));
    }
}
