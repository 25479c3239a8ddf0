//! The courier on tables that several daemons share: what waits, and what is never sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::event::{Event, EventKind, Level};
use crate::notify::calm::scope::CalmScope;
use crate::notify::calm::{CalmSettings, NewSilence, Origin};
use crate::notify::channel::{Channel, ChannelKind};
use crate::notify::routing::{ChannelRoute, HostRoute, Routes};
use crate::store::shared_model::{ModelAnswer, SharedModel};
use crate::store::{DirectoryLock, Table};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Enough for whatever could be done too early.
const TRIES: usize = 4;

struct World {
    _directory: tempfile::TempDir,
    courier: Courier,
    permitted: Arc<AtomicBool>,
    exits: Receiver<CourierExit>,
}

fn settings() -> NotifySettings {
    let name = || "log".to_owned();
    let routes = Routes {
        channels: [(name(), ChannelRoute { min_level: Level::Info })].into(),
        default: vec![name()],
        hosts: [("web1".to_owned(), HostRoute { watch: true, channels: None })].into(),
        backups: Vec::new(),
    };
    let channel = Channel { kind: ChannelKind::Log, min_level: Level::Info };
    NotifySettings {
        routes,
        channels: [(name(), Arc::new(channel))].into(),
        calm: CalmSettings::default(),
        overdue_renotify: None,
        public_url: None,
        retry_policy: None,
    }
}

fn overdue() -> Event {
    let kind = EventKind::Shutdown { host: "web1".into(), connection: "ipv4".into() };
    Event { level: Level::Critical, ..Event::new(Now::read().wall, kind) }
}

impl World {
    fn start(model: &Arc<SharedModel>) -> World {
        World::with_rows(model, Vec::new)
    }

    fn with_rows(
        model: &Arc<SharedModel>,
        every_row: impl Fn() -> Vec<Write> + Send + 'static,
    ) -> World {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::hold(directory.path()).unwrap();
        let (store, _) = Store::open_shared(lock, model.clone(), Now::read());
        let (courier, pending) = Courier::new();
        let (tx, exits) = bounded(1);
        let permitted = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&permitted);
        let hooks = CourierHooks {
            every_row: Box::new(every_row),
            permit: Arc::new(move || asked.load(Ordering::SeqCst)),
            on_exit: Box::new(move |exit| tx.send(exit).unwrap()),
        };
        pending.open(store, settings(), hooks, |then| then).unwrap();
        World { _directory: directory, courier, permitted, exits }
    }

    /// An alarm; what is answered once it is stored.
    fn accept(&self) -> Receiver<bool> {
        let (tx, rx) = bounded(1);
        let on_stored = Some(Box::new(move |stored| tx.send(stored).unwrap()) as OnStored);
        self.courier.commit(Change { events: vec![overdue()], on_stored, ..Change::default() });
        rx
    }

    fn sent(&self) -> u64 {
        self.courier.stats().sent.values().sum()
    }

    fn wait_until_sent(&self, count: u64) {
        let end = Instant::now() + TIMEOUT;
        while self.sent() < count {
            assert!(Instant::now() < end, "nothing is sent");
            // Each is a turn of the courier.
            self.courier.inspect(TIMEOUT, |_, _| ()).unwrap();
        }
        assert_eq!(self.sent(), count);
    }

    fn stop(self) -> CourierExit {
        self.courier.stop();
        self.exits.recv_timeout(TIMEOUT).unwrap()
    }
}

#[test]
fn nothing_is_sent_or_answered_before_it_is_confirmed() {
    for answer in [ModelAnswer::Silent, ModelAnswer::Unconfirmed] {
        let model = SharedModel::new();
        let world = World::start(&model);
        model.answer(answer);
        let first = world.accept();
        model.wait_for_tries(TRIES);
        let second = world.accept();
        model.wait_for_tries(TRIES);
        assert_eq!((world.sent(), first.try_recv().ok(), second.try_recv().ok()), (0, None, None));
        assert!(world.courier.stats().store_refuses.is_some(), "it is shown");
        model.answer(ModelAnswer::Confirmed);
        for answer in [first, second] {
            assert_eq!(answer.recv_timeout(TIMEOUT), Ok(true));
        }
        world.wait_until_sent(2);
        assert_eq!(world.courier.stats().store_refuses, None);
        assert_eq!(world.courier.stats().failed, BTreeMap::new());
        assert_eq!(world.stop(), CourierExit::Stored);
        assert!(model.stored().keys().all(|(table, _)| *table != Table::Outbox));
    }
}

#[test]
fn a_silence_that_was_not_confirmed_in_time_is_none() {
    let model = SharedModel::new();
    let world = World::start(&model);
    model.answer(ModelAnswer::Unconfirmed);
    let silence = CalmRequest::Silence(NewSilence {
        scope: CalmScope::All,
        length: Duration::from_secs(3600),
        by: "ann".into(),
        comment: None,
        unless: None,
        origin: Origin::Command,
    });
    let short = Duration::from_millis(1);
    assert!(world.courier.request(silence, short).is_err(), "ann is told that it has no effect");
    model.answer(ModelAnswer::Confirmed);
    assert_eq!(world.accept().recv_timeout(TIMEOUT), Ok(true));
    world.courier.inspect(TIMEOUT, |_, _| ()).unwrap();
    assert_eq!(world.courier.silences(TIMEOUT).unwrap().silences, []);
    assert_eq!(world.stop(), CourierExit::Stored);
}

#[test]
fn tables_that_refuse_delay_no_alarm() {
    let model = SharedModel::new();
    let world = World::start(&model);
    model.answer(ModelAnswer::Silent);
    let first = world.accept();
    model.wait_for_tries(TRIES);
    model.answer(ModelAnswer::Refused);
    assert_eq!(first.recv_timeout(TIMEOUT), Ok(false));
    // The alarm, and that nothing is stored.
    world.wait_until_sent(2);
    model.answer(ModelAnswer::Confirmed);
    world.wait_until_sent(3);
    assert_eq!(world.stop(), CourierExit::Stored);
}

#[test]
fn one_that_is_deposed_sends_and_answers_nothing_of_what_waits() {
    let model = SharedModel::new();
    let world = World::start(&model);
    model.answer(ModelAnswer::Silent);
    let first = world.accept();
    model.wait_for_tries(TRIES);
    model.answer(ModelAnswer::Deposed);
    assert_eq!(world.exits.recv_timeout(TIMEOUT), Ok(CourierExit::Deposed));
    assert_eq!(first.recv_timeout(TIMEOUT), Err(RecvTimeoutError::Disconnected), "no answer");
    assert_eq!((world.sent(), model.stored().len()), (0, 0));
}

#[test]
fn one_that_stops_does_not_wait_for_ever_for_a_confirmation() {
    let model = SharedModel::new();
    let world = World::start(&model);
    model.answer(ModelAnswer::Silent);
    world
        .courier
        .commit(Change { writes: vec![Write::put(Table::Meta, "n", &1)], ..Change::default() });
    model.wait_for_tries(1);
    assert_eq!(world.stop(), CourierExit::Lost);
    let world = World::start(&model);
    let first = world.accept();
    model.wait_for_tries(1);
    world.courier.stop();
    model.wait_for_tries(TRIES);
    model.answer(ModelAnswer::Confirmed);
    assert_eq!(world.exits.recv_timeout(TIMEOUT), Ok(CourierExit::Stored));
    assert_eq!(first.recv_timeout(TIMEOUT), Ok(true));
    assert_eq!(world.sent(), 1, "it was to be sent before the stop");
}

#[test]
fn without_a_permit_no_attempt_is_made_and_the_channel_is_as_healthy_as_before() {
    let model = SharedModel::new();
    let world = World::start(&model);
    world.permitted.store(false, Ordering::SeqCst);
    assert_eq!(world.accept().recv_timeout(TIMEOUT), Ok(true));
    // The attempt starts, is not made, and starts again.
    model.wait_for_tries(2 * TRIES);
    let stats = world.courier.stats();
    let queue = &stats.queues[0];
    assert_eq!((world.sent(), stats.failed.len(), queue.waiting), (0, 0, 1));
    assert_eq!((&queue.last_failure, queue.last_success), (&None, None));
    world.permitted.store(true, Ordering::SeqCst);
    world.wait_until_sent(1);
    assert_eq!(world.stop(), CourierExit::Stored);
}

#[test]
fn what_was_delivered_is_not_sent_again_after_the_tables_went_back() {
    let model = SharedModel::new();
    let host = || vec![Write::put(Table::Hosts, "web1", &1)];
    let world = World::with_rows(&model, host);
    assert_eq!(world.accept().recv_timeout(TIMEOUT), Ok(true));
    world.wait_until_sent(1);
    let about = |table| model.stored().keys().filter(|(of, _)| *of == table).count();
    assert_eq!((about(Table::Outbox), about(Table::Troubles)), (0, 1));
    // The delivery is there again, as it was while it was in flight.
    while about(Table::Outbox) == 0 {
        model.roll_back(1);
    }
    let note = vec![Write::put(Table::Meta, "n", &1)];
    world.courier.commit(Change { writes: note, ..Change::default() });
    world.courier.inspect(TIMEOUT, |_, _| ()).unwrap();
    assert_eq!((about(Table::Outbox), about(Table::Troubles), about(Table::Hosts)), (0, 1, 1));
    assert_eq!(world.stop(), CourierExit::Stored);
    let next = World::start(&model);
    next.courier.inspect(TIMEOUT, |_, _| ()).unwrap();
    assert_eq!((next.sent(), next.courier.stats().queues[0].waiting), (0, 0));
    assert_eq!(next.stop(), CourierExit::Stored);
}
