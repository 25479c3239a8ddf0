//! The fleet under its lock: ingests datagrams, fires deadlines, sends what changed to the store.
//!
//! Under the lock the fleet only decides, and what it decided is queued for the store, in order. Log
//! lines and answers come after it is released: a full pipe must not hold up every datagram.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use log::{debug, info, warn};

use crate::clock::{Mono, Now, Wall, format_duration};
use crate::event::LimitUse;
use crate::heartbeat::counters::DatagramCounters;
use crate::heartbeat::datagram::{ReceivedDatagram, Rejection, claimed_host};
use crate::heartbeat::event_limits::Load;
use crate::heartbeat::fleet::receivers::receivers_write;
use crate::heartbeat::fleet::storm::storm_write;
use crate::heartbeat::fleet::{
    AddressChange, Changes, ConnectionId, Fleet, NotForgotten, OpenProblem, change_of,
};
use crate::heartbeat::logged_once::LoggedOnce;
use crate::heartbeat::loop_clock::LoopClock;
use crate::heartbeat::persistence::{LastAlive, host_row};
use crate::heartbeat::settings::FleetConfig;
use crate::store::change::{Change, ChangeSink};
use crate::store::{Table, Write};
use crate::thread;
use crate::view::{HostView, UptimeSample};

mod internal;
mod receivers;
pub use self::receivers::{AcceptedDatagram, ClusterOffset, OnAccepted, RelayedDatagram};

/// The key of [`LastAlive`] in the store.
pub const LAST_ALIVE_KEY: &str = "mark";
/// The longest wait of the deadline thread: it reads the clock at least this often, to notice that
/// the machine slept.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// A wait that ends this much later than planned was a sleep of the machine: no datagram was
/// received meanwhile.
const STALL: Duration = Duration::from_secs(1);
/// After a wait that ends this late the datagrams in the socket are ingested before deadlines fire.
const LATE: Duration = Duration::from_millis(100);
const PENDING_DATAGRAMS_WAIT: Duration = Duration::from_millis(200);
/// How often `last_seen` goes to disk, when it changed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// How often [`LastAlive`] goes to disk when nothing else does.
const LAST_ALIVE_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// The most rows in one change.
const MAX_ROWS_PER_CHANGE: usize = 2000;

/// Called with every change of a followed address, in the order in which they were found, while
/// the fleet is not locked.
pub type OnAddressChange = Box<dyn Fn(AddressChange) + Send + Sync>;

/// Called with the name of a host, and whether that is configured, for what waits already.
pub type LoadOf = Box<dyn Fn(&str, bool) -> Load + Send + Sync>;

/// Where a datagram came from.
#[derive(Clone, Copy)]
struct DatagramSource {
    address: IpAddr,
    /// Whether that is where the host is; over HTTP it may be a proxy's.
    is_direct: bool,
}

/// The fleet as all threads share it.
pub struct Monitor {
    state: Mutex<MonitorState>,
    /// The deadline thread must look for the next deadline again.
    rearm: Condvar,
    sink: ChangeSink,
    kernel_boot: String,
    load: LoadOf,
    counters: DatagramCounters,
    /// How many changes were sent, and which of them is known to be on disk.
    sent_changes: AtomicU64,
    stored_changes: Arc<AtomicU64>,
    address_observer: OnceLock<OnAddressChange>,
    /// Told of each datagram that was believed.
    accepted: OnceLock<OnAccepted>,
    cluster_offset: OnceLock<ClusterOffset>,
    /// Held while the observer is called, so that two threads do not swap two changes.
    observing: Mutex<()>,
}

struct MonitorState {
    fleet: Fleet,
    closed: bool,
    /// Changes of address that the observer has not seen.
    address_changes: Vec<AddressChange>,
    logged: LoggedOnce,
}

impl Monitor {
    /// Watches `fleet`. `load` says when events come in faster than they can be stored and sent.
    pub fn new(fleet: Fleet, kernel_boot: String, sink: ChangeSink, load: LoadOf) -> Monitor {
        Monitor {
            state: Mutex::new(MonitorState {
                fleet,
                closed: false,
                address_changes: Vec::new(),
                logged: LoggedOnce::default(),
            }),
            rearm: Condvar::new(),
            sink,
            kernel_boot,
            load,
            counters: DatagramCounters::default(),
            sent_changes: AtomicU64::new(0),
            stored_changes: Arc::default(),
            address_observer: OnceLock::new(),
            accepted: OnceLock::new(),
            cluster_offset: OnceLock::new(),
            observing: Mutex::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MonitorState> {
        thread::lock(&self.state)
    }

    /// Ingests a datagram. `then` is called with the answer, if one is wanted, and whether what the
    /// datagram caused is stored. It is called at once when nothing is on its way to the disk,
    /// else when that is there: a datagram that repeats an earlier one causes nothing of its own,
    /// and must not be answered before what the earlier one caused is stored.
    ///
    /// # Errors
    /// Why it was rejected; that is counted and logged here.
    pub fn ingest(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.ingest_from(bytes, DatagramSource { address: from, is_direct: true }, now, then)
    }

    /// As [`ingest`](Monitor::ingest), for a datagram that came over HTTP: its sender may be a
    /// proxy, and the address says nothing about where the host is.
    ///
    /// # Errors
    /// Why it was rejected; that is counted and logged here.
    pub fn ingest_over_http(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.ingest_from(bytes, DatagramSource { address: from, is_direct: false }, now, then)
    }

    fn ingest_from(
        &self,
        bytes: &[u8],
        source: DatagramSource,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let received = ReceivedDatagram::parse(bytes);
        let result = match &received {
            Ok(received) => {
                let result = self.ingest_received(received, source, now, then);
                result.inspect(|()| self.report_accepted(received, bytes, source, now))
            }
            Err(rejection) => Err(*rejection),
        };
        match result {
            Ok(()) => self.counters.count_accepted(),
            Err(rejection) => {
                self.counters.count_rejected(rejection);
                debug!("a datagram from {} was dropped: {rejection}", source.address);
                let host = match &received {
                    Ok(received) => Some((*received.datagram.host).into()),
                    Err(Rejection::BadField(_)) => claimed_host(bytes),
                    Err(_) => None,
                };
                if let Some(host) = host {
                    self.on_refused(&host, source.address, rejection, now);
                }
            }
        }
        result
    }

    fn ingest_received(
        &self,
        received: &ReceivedDatagram,
        source: DatagramSource,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejection::Busy);
        }
        let host = &received.datagram.host;
        let load = (self.load)(host, state.fleet.is_configured(host));
        let mut ingested = state.fleet.ingest_parsed(received, source.address, load, now)?;
        if ingested.rearm {
            self.rearm.notify_all();
        }
        let changed_key =
            ingested.key_usage.take().filter(|key| state.logged.key_usage_changed(key));
        let is_observed = source.is_direct && self.address_observer.get().is_some();
        let proven = ingested.proven_address.take().filter(|_| is_observed);
        let moved = proven.is_some_and(|id| state.track_address(&id, source.address));
        let ack = ingested.ack.take();
        let left_out = ingested.left_out.take();
        self.counters.count_left_out(received.datagram.metrics.left_out().0);
        let change = change_of(ingested);
        let answer = if change.is_none() && self.all_stored() {
            Some((then, ack))
        } else {
            // Still under the lock: what changed first must be stored first.
            let stored: Option<Box<dyn FnOnce(bool) + Send>> =
                Some(Box::new(move |stored| then(ack, stored)));
            self.send_change(Change { on_stored: stored, ..change.unwrap_or_default() });
            None
        };
        drop(state);
        if let Some((then, ack)) = answer {
            then(ack, true);
        }
        if let Some(key) = changed_key {
            info!("{key}");
        }
        if let Some(path) = left_out {
            let host = &received.datagram.host;
            warn!(
                "{host} sends metrics that cannot be used, such as {path:?}: what is no number, has no path of its own or is beyond 512 is left out, and counted from now on"
            );
        }
        if moved {
            self.report_address_changes();
        }
        Ok(())
    }

    /// Remembers what was refused, and says it once in the log: why a host is silent, or that it is not
    /// configured.
    fn on_refused(&self, host: &str, from: IpAddr, rejection: Rejection, now: Now) {
        if rejection == Rejection::UnknownHost {
            return self.log_unknown_host(host, from);
        }
        let mut state = self.lock();
        let news = state.fleet.on_refused(host, from, rejection, now);
        let unheard = state.first_refusal_by_pattern(host);
        drop(state);
        if let Some(refused) = news {
            warn!("{refused}");
        }
        if let Some(pattern) = unheard {
            warn!("{from} sends heartbeats as {host}, which matches hosts.{pattern}: {rejection}");
        }
    }

    fn log_unknown_host(&self, host: &str, from: IpAddr) {
        let is_first = self.lock().logged.is_first(host);
        if is_first {
            info!("{from} sends heartbeats as {host}, which is not under hosts: ignored");
        }
    }

    /// Calls `observer` with every change of a followed address from now on. There is one observer:
    /// a second one is not called.
    pub fn on_address_change(&self, observer: OnAddressChange) {
        // An error means that there is one already.
        let _ = self.address_observer.set(observer);
    }

    /// Only threads that have found a change come here, and wait for the observer of another one.
    fn report_address_changes(&self) {
        let Some(observer) = self.address_observer.get() else { return };
        let _in_order = thread::lock(&self.observing);
        let changes = std::mem::take(&mut self.lock().address_changes);
        changes.into_iter().for_each(observer);
    }

    fn all_stored(&self) -> bool {
        self.stored_changes.load(Ordering::Acquire) == self.sent_changes.load(Ordering::Acquire)
    }

    /// Sends a change to the store and counts whether it is on disk. The courier stores in order,
    /// so one that is stored proves that those before it are.
    fn send_change(&self, change: Change) {
        let number = self.sent_changes.fetch_add(1, Ordering::AcqRel) + 1;
        let stored_changes = Arc::clone(&self.stored_changes);
        let on_stored = change.on_stored;
        (self.sink)(Change {
            on_stored: Some(Box::new(move |stored| {
                if stored {
                    stored_changes.fetch_max(number, Ordering::AcqRel);
                }
                if let Some(on_stored) = on_stored {
                    on_stored(stored);
                }
            })),
            ..change
        });
    }

    /// The deadline thread: fires deadlines, notices when the machine slept, flushes rows, until
    /// the monitor is closed. `on_turn` is called at every turn, every second at least.
    pub fn run_deadlines(&self, mut on_turn: impl FnMut()) {
        let mut clock = LoopClock::at(Now::read());
        let mut flushed = clock.last.mono;
        loop {
            if self.check_clock(&mut clock) >= LATE {
                self.wait_for_pending_datagrams();
            }
            on_turn();
            if !self.process_due(Now::read()) {
                return;
            }
            flushed = self.flush_when_due(flushed);
            // The machine may have slept during the turn, too.
            self.check_clock(&mut clock);
            let Some(until) = self.wait() else { return };
            clock.planned = until;
        }
    }

    /// Reads the clock: when that happens much later than planned, the machine slept, and nothing
    /// was received since the clock was read last. Returns how late it is.
    fn check_clock(&self, clock: &mut LoopClock) -> Duration {
        let read = Now::read();
        let (now, late) = (read.mono, read.mono.since(clock.planned));
        if let Some(moved) = clock.wall_step(read) {
            warn!("the clock of this machine was set {moved}: hosts are heard as before");
        }
        if late >= STALL {
            self.lock().fleet.record_blindness(clock.last.mono, now);
            warn!("hbd was asleep for {} and heard nothing meanwhile", format_duration(late));
        }
        *clock = LoopClock::at(read);
        late
    }

    /// Gives the UDP thread time for what waits in the socket, before its hosts are reported.
    fn wait_for_pending_datagrams(&self) {
        let _ = self.rearm.wait_timeout(self.lock(), PENDING_DATAGRAMS_WAIT);
    }

    /// Fires all deadlines that have passed; false when the monitor is closed.
    fn process_due(&self, now: Now) -> bool {
        loop {
            let mut state = self.lock();
            if state.closed {
                return false;
            }
            let changes = state.fleet.due(now);
            let more = state.fleet.next_deadline().is_some_and(|next| next <= now.mono);
            self.send_changes(changes);
            if !more {
                return true;
            }
        }
    }

    fn send_changes(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let removed =
            changes.removed_hosts.into_iter().map(|name| Write::remove(Table::Hosts, name));
        let storm = changes.storm.iter().map(storm_write);
        let meta = storm.chain(changes.receivers.iter().map(receivers_write));
        self.send_change(Change {
            writes: removed.chain(changes.rows.iter().map(host_row)).chain(meta).collect(),
            events: changes.events,
            closed_silently: changes.closed_incidents,
            parents_up: changes.parents_up,
            not_behind: changes.not_behind,
            ..Change::default()
        });
    }

    fn flush_when_due(&self, flushed: Mono) -> Mono {
        let now = Now::read();
        let since = now.mono.since(flushed);
        if since < FLUSH_INTERVAL || !self.flush(now, since >= LAST_ALIVE_INTERVAL) {
            return flushed;
        }
        now.mono
    }

    /// Sends the dirty rows to the store, and [`LastAlive`] behind them; false when there was
    /// nothing to write.
    pub fn flush(&self, now: Now, always: bool) -> bool {
        let mut wrote = false;
        loop {
            let mut state = self.lock();
            let rows = state.fleet.flush_some(MAX_ROWS_PER_CHANGE);
            let last = rows.len() < MAX_ROWS_PER_CHANGE;
            wrote |= !rows.is_empty();
            let mut writes: Vec<_> = rows.iter().map(host_row).collect();
            if last && (wrote || always) {
                let kernel_boot = self.kernel_boot.clone();
                let last_alive = LastAlive { kernel_boot, now, offset: self.cluster_offset() };
                writes.push(Write::put(Table::Meta, LAST_ALIVE_KEY, &last_alive));
            }
            if !writes.is_empty() {
                (self.sink)(Change { writes, ..Change::default() });
            }
            if last {
                return wrote || always;
            }
        }
    }

    /// Waits for the next deadline, [`MAX_WAIT`] at most; returns until when it meant to wait, none
    /// when the monitor is closed.
    fn wait(&self) -> Option<Mono> {
        let state = self.lock();
        if state.closed {
            return None;
        }
        let now = Now::read().mono;
        let deadline = state.fleet.next_deadline().unwrap_or(now + MAX_WAIT);
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let until = (deadline + Duration::from_millis(1)).min(now + MAX_WAIT).max(now);
        let _ = self.rearm.wait_timeout(state, until.since(now));
        Some(until)
    }

    /// Closes the monitor: from now on nothing is ingested, and all that was is on its way to the
    /// store.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.fleet.announce_stop();
        let refused = state.fleet.limits.due(Now::read(), true);
        self.send_changes(Changes { events: refused, ..Changes::default() });
        drop(state);
        self.rearm.notify_all();
        self.flush(Now::read(), true);
    }

    /// Applies a new configuration; what it says to those who were told of hosts, in sentences.
    pub fn reconfigure(&self, config: FleetConfig) -> Vec<String> {
        let mut state = self.lock();
        state.logged = LoggedOnce::default();
        let changes = state.fleet.reconfigure(config, Now::read());
        let unwatched = changes.unwatched();
        self.send_changes(changes);
        drop(state);
        self.rearm.notify_all();
        unwatched
    }

    /// Every row of every host, for a store that lost its own.
    pub fn all_rows(&self) -> Vec<Write> {
        let state = self.lock();
        let storm = storm_write(&state.fleet.storm_row());
        let gone = state.fleet.told_gone();
        let meta = [storm].into_iter().chain(gone.iter().map(receivers_write));
        state.fleet.all_rows().iter().map(host_row).chain(meta).collect()
    }

    /// At most `count` hosts, from the index `from` on.
    pub fn views(&self, from: usize, count: usize) -> Vec<HostView> {
        self.lock().fleet.views(from, count)
    }

    /// One host.
    pub fn view(&self, name: &str) -> Option<HostView> {
        self.lock().fleet.view(name)
    }

    /// How many hosts there are.
    pub fn count(&self) -> usize {
        self.lock().fleet.len()
    }

    /// What was accepted and rejected.
    pub fn counters(&self) -> &DatagramCounters {
        &self.counters
    }

    /// How near the limits of hosts that are not configured are.
    pub fn limits(&self) -> [LimitUse; 3] {
        self.lock().fleet.limits()
    }

    /// [`Fleet::forget`].
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn forget(&self, host: &str, connection: Option<&str>) -> Result<(), NotForgotten> {
        let mut state = self.lock();
        let changes = state.fleet.forget(host, connection, Now::read())?;
        self.send_changes(changes);
        Ok(())
    }

    /// The availability of `count` hosts, from the index `from` on, since their last sample.
    pub fn take_samples(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.lock().fleet.take_samples(from, count, until)
    }

    /// What else is asked of the fleet.
    pub fn read<T>(&self, read: impl FnOnce(&Fleet) -> T) -> T {
        read(&self.lock().fleet)
    }

    /// When nothing could be received, each period once.
    pub fn take_blind_periods(&self, now: Now) -> Vec<(Wall, Wall)> {
        self.lock().fleet.take_blind_periods(now)
    }

    /// What is wrong with `count` hosts, from the index `from` on.
    pub fn open_problems(&self, from: usize, count: usize) -> Vec<OpenProblem> {
        self.lock().fleet.open_problems(from, count)
    }
}

impl MonitorState {
    /// Whether a connection has another address than before; the change waits for the observer.
    fn track_address(&mut self, connection: &ConnectionId, address: IpAddr) -> bool {
        let change = self.fleet.track_address(connection, address);
        let moved = change.is_some();
        self.address_changes.extend(change);
        moved
    }

    /// The pattern of a host that was never heard, when no refusal of it was logged yet.
    fn first_refusal_by_pattern(&mut self, host: &str) -> Option<String> {
        let pattern = self.fleet.unheard_pattern(host)?.to_owned();
        self.logged.is_first(host).then_some(pattern)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::event::Incident;
    use crate::heartbeat::datagram::Datagram;
    use crate::heartbeat::encode;
    use crate::heartbeat::settings::{Expectation, HostSettings, LOCAL};
    use crate::heartbeat::test_fleet::{MINUTE, SECOND, TestFleet, config};
    use crate::secret::Secret;
    use crate::store::InboxEntry;
    use crate::view::HostState;

    fn web1() -> (Monitor, mpsc::Receiver<Change>) {
        let hosts = [("web1".to_owned(), HostSettings { watch: true, ..HostSettings::default() })];
        let config = FleetConfig { hosts: hosts.into(), ..FleetConfig::default() };
        let fleet = Fleet::restore(config, Vec::new(), None, Now::read(), "boot");
        let (tx, rx) = mpsc::channel();
        let tx = Mutex::new(tx);
        let sink: ChangeSink = Arc::new(move |change| {
            let tx = tx.lock().expect("nobody panicked");
            tx.send(change).expect("the test listens");
        });
        (Monitor::new(fleet, "boot".into(), sink, Box::new(|_, _| Load::Free)), rx)
    }

    fn ingest(monitor: &Monitor, json: &str) -> mpsc::Receiver<bool> {
        let (tx, rx) = mpsc::channel();
        let from = IpAddr::from([127, 0, 0, 1]);
        let then = move |_, stored| tx.send(stored).expect("the test listens");
        monitor.ingest(json.as_bytes(), from, Now::read(), then).expect("it is believed");
        rx
    }

    #[test]
    fn a_repeat_is_not_answered_before_what_it_repeats_is_stored() {
        let (monitor, changes) = web1();
        let boot = r#"{"host":"web1","event":"boot","boot_id":"a"}"#;
        let first = ingest(&monitor, boot);
        let second = ingest(&monitor, boot);
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        let changes: Vec<Change> = changes.try_iter().collect();
        for change in changes {
            change.on_stored.expect("a receiver of the answer")(true);
        }
        assert!(first.recv().expect("an answer") && second.recv().expect("an answer"));
    }

    #[test]
    fn what_a_refusing_disk_did_not_take_is_not_called_stored_when_it_is_repeated() {
        let (monitor, changes) = web1();
        let boot = r#"{"host":"web1","event":"boot","boot_id":"a"}"#;
        let first = ingest(&monitor, boot);
        changes.recv().expect("a change").on_stored.expect("a receiver of the answer")(false);
        assert!(!first.recv().expect("an answer"));
        let second = ingest(&monitor, boot);
        assert!(second.try_recv().is_err(), "the disk is asked again");
        changes.recv().expect("a change").on_stored.expect("a receiver of the answer")(true);
        assert!(second.recv().expect("an answer"));
        assert!(ingest(&monitor, r#"{"host":"web1"}"#).recv().expect("an answer"));
    }

    #[test]
    fn what_another_node_accepted_takes_its_entry_along_and_is_not_counted_here() {
        let (monitor, changes) = web1();
        let entry = |id: &str| InboxEntry { id: id.into(), uid: "hb2:a:1".into(), again: false };
        let take = |json: &str, id: &str| {
            let from = IpAddr::from([192, 0, 2, 7]);
            let (bytes, at) = (json.as_bytes(), Now::read());
            let relayed = RelayedDatagram { bytes, from, is_direct: true, receiver: "hb2", at };
            monitor.ingest_relayed(relayed, Some(entry(id)))
        };
        assert_eq!(take(r#"{"host":"web1","event":"boot","boot_id":"a"}"#, "1-0"), Ok(()));
        let change = changes.try_recv().expect("a change");
        assert_eq!((change.entry, change.events.is_empty()), (Some(entry("1-0")), false));
        assert_eq!(take(r#"{"host":"web1"}"#, "2-0"), Ok(()));
        let change = changes.try_recv().expect("a change");
        assert_eq!((change.entry, change.events.len()), (Some(entry("2-0")), 0), "it stands alone");
        assert_eq!(take(r#"{"host":"web2"}"#, "3-0"), Err(Rejection::UnknownHost));
        assert!(changes.try_recv().is_err(), "the caller stores that it was handled");
        let rejected: u64 = monitor.counters().rejected().map(|(_, count)| count).sum();
        assert_eq!((monitor.counters().accepted(), rejected), (0, 0));
    }

    #[test]
    fn a_monitor_that_is_closed_ingests_nothing_and_has_sent_everything() {
        let (monitor, changes) = web1();
        ingest(&monitor, r#"{"host":"web1"}"#);
        monitor.close();
        let from = IpAddr::from([127, 0, 0, 1]);
        let late = monitor.ingest(br#"{"host":"web1"}"#, from, Now::read(), |_, _| {});
        assert_eq!(late, Err(Rejection::Busy));
        let writes: Vec<Write> = changes.try_iter().flat_map(|change| change.writes).collect();
        assert!(writes.iter().any(|write| write.table == Table::Hosts));
        assert!(writes.iter().any(|write| write.key == LAST_ALIVE_KEY));
    }

    #[test]
    fn under_overload_only_what_causes_an_event_is_refused() {
        let (monitor, _changes) = web1();
        let monitor = Monitor { load: Box::new(|_, _| Load::OutboxFull), ..monitor };
        let from = IpAddr::from([127, 0, 0, 1]);
        let send = |json: &str| monitor.ingest(json.as_bytes(), from, Now::read(), |_, _| {});
        assert_eq!(send(r#"{"host":"web1","event":"boot"}"#), Err(Rejection::Busy));
        assert_eq!(
            send(r#"{"host":"web1","event":"message","message":"x"}"#),
            Err(Rejection::Busy)
        );
        assert_eq!(send(r#"{"host":"web1"}"#), Ok(()));
        assert_eq!(send("no JSON"), Err(Rejection::NotJson));
        assert_eq!(send(r#"{"host":"web2"}"#), Err(Rejection::UnknownHost));
        let rejected: Vec<_> =
            monitor.counters().rejected().filter(|(_, count)| *count > 0).collect();
        assert_eq!(rejected, [("not_json", 1), ("unknown_host", 1), ("busy", 2)]);
        assert_eq!(monitor.counters().accepted(), 1);
    }

    #[test]
    fn the_observer_of_addresses_was_called_under_the_lock_of_the_fleet() {
        let key = Secret::new("k");
        let mut config = config();
        config.settings.key = Some(key.clone());
        config.hosts.get_mut("web1").unwrap().dyndns = true;
        let begun = Now::read();
        let fleet = Fleet::restore(config, Vec::new(), None, begun, "boot");
        let monitor =
            Monitor::new(fleet, "boot".into(), Arc::new(|_| ()), Box::new(|_, _| Load::Free));
        let monitor = Arc::new(monitor);
        let (tx, rx) = mpsc::channel();
        let observed = Arc::downgrade(&monitor);
        monitor.on_address_change(Box::new(move |change| {
            let monitor = observed.upgrade().unwrap();
            let unlocked = monitor.state.try_lock().is_ok();
            tx.send((change.address.to_string(), unlocked)).unwrap();
        }));
        for (seconds, from) in [(0, "192.0.2.1"), (1, "192.0.2.1"), (2, "192.0.2.2"), (3, "::1")] {
            let time = (begun.wall + Duration::from_secs(seconds)).0 + 1;
            let json = format!(r#"{{"host":"web1","time":{}}}"#, time as f64 / 1000.0);
            let bytes = encode::sign(&encode::signing_key(&key), json.as_bytes());
            monitor.ingest(&bytes, from.parse().unwrap(), begun, |_, _| {}).unwrap();
        }
        let by_proxy =
            format!(r#"{{"host":"web1","time":{}}}"#, (begun.wall.0 + 9000) as f64 / 1000.0);
        let by_proxy = encode::sign(&encode::signing_key(&key), by_proxy.as_bytes());
        monitor.ingest_over_http(&by_proxy, [192, 0, 2, 9].into(), begun, |_, _| {}).unwrap();
        let seen: Vec<_> = rx.try_iter().collect();
        let unlocked = |address: &str| (address.to_owned(), true);
        assert_eq!(seen, [unlocked("192.0.2.1"), unlocked("192.0.2.2"), unlocked("::1")]);
    }

    const EXPECTATION: Expectation =
        Expectation { interval: Duration::from_secs(10), grace: MINUTE };

    fn beat_locally(test: &mut TestFleet, boot: &str) {
        let beat = Datagram { boot_id: Some(boot.into()), ..Datagram::beat("web1", LOCAL) };
        let ingested = test.fleet.ingest_internal(&beat, test.now).unwrap();
        test.add_events(ingested.events);
    }

    fn with_local_host() -> TestFleet {
        let mut config = config();
        config.local_host = Some(("web1".into(), EXPECTATION));
        TestFleet::with(config)
    }

    #[test]
    fn all_metrics_of_this_machine_are_ingested_however_many() {
        let config = with_local_host().config;
        let now = Now::read();
        let fleet = Fleet::restore(config, Vec::new(), None, now, "boot");
        let monitor =
            Monitor::new(fleet, "boot".into(), Arc::new(|_| ()), Box::new(|_, _| Load::Free));
        let path = |n: usize| format!("disk_monitor.{}{n}.percent", "a".repeat(150));
        let metrics: Vec<_> = (0..300).map(|n| (path(n), n as f64)).collect();
        monitor.ingest_local("web1", &metrics, &[], now).unwrap();
        let view = monitor.view("web1").unwrap();
        assert_eq!((view.state, view.metrics.len()), (HostState::Up, 300));
        assert_eq!(view.connections[0].name, LOCAL);
        let more: Vec<_> = (0..600).map(|n| (format!("m{n}"), 0.0)).collect();
        assert_eq!(monitor.ingest_local("web1", &more, &[], now), Err(Rejection::TooManyMetrics));
        let kept = monitor.view("web1").unwrap().metrics;
        assert_eq!(kept.iter().filter(|metric| metric.path.starts_with('m')).count(), 512);
        assert_eq!(monitor.ingest_local("web2", &metrics, &[], now), Err(Rejection::UnknownHost));
        let twice = [("twice".to_owned(), 1.0), ("twice".to_owned(), 2.0)];
        monitor.ingest_local("web1", &twice, &[], now).unwrap();
        let metrics = monitor.view("web1").unwrap().metrics;
        assert_eq!(metrics.iter().find(|metric| metric.path == "twice").unwrap().value, 2.0);
        let bad = [("a..b".to_owned(), 1.0)];
        let rejection = monitor.ingest_local("web1", &bad, &[], now).unwrap_err();
        assert_eq!(rejection.name(), "bad_field");
    }

    #[test]
    fn this_machine_needs_no_key_and_nobody_else_may_do_without() {
        let mut test = with_local_host();
        test.config.settings.key = Some(Secret::new("k"));
        test.fleet.reconfigure(test.config.clone(), test.now);
        beat_locally(&mut test, "a");
        let forged = br#"{"host":"web1","connection":"local"}"#;
        assert_eq!(test.try_ingest(forged), Err(Rejection::Unsigned));
    }

    #[test]
    fn a_boot_of_this_machine_is_told_once_and_is_announced_when_the_daemon_was_stopped() {
        for (stopped, level) in [(true, "info"), (false, "warning")] {
            let mut test = with_local_host();
            beat_locally(&mut test, "a");
            test.wait(10 * SECOND);
            assert!(test.titles_with_level().is_empty(), "its first start is no boot");
            if stopped {
                test.fleet.announce_stop();
            }
            test.reboot_after(5 * MINUTE);
            beat_locally(&mut test, "b");
            test.wait(SECOND);
            beat_locally(&mut test, "b");
            assert_eq!(test.titles_with_level(), [format!("{level} web1 booted")]);
        }
        let mut test = with_local_host();
        beat_locally(&mut test, "a");
        test.fleet.announce_stop();
        test.restart_after(SECOND);
        beat_locally(&mut test, "a");
        assert!(test.titles_with_level().is_empty(), "an upgrade of hbd is nothing");
        test.reboot_after(MINUTE);
        beat_locally(&mut test, "b");
        assert_eq!(
            test.titles_with_level(),
            ["warning web1 booted"],
            "it was started since: a power cut"
        );
    }

    #[test]
    fn a_collector_that_hangs_is_overdue() {
        let mut test = with_local_host();
        beat_locally(&mut test, "a");
        assert!(test.wait(70 * SECOND - Duration::from_millis(1)).titles_with_level().is_empty());
        assert_eq!(test.wait(SECOND).titles_with_level(), ["critical web1 local overdue"]);
    }

    #[test]
    fn an_agent_that_is_switched_off_is_forgotten_and_not_overdue() {
        for (reload, overdue) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut test = with_local_host();
            beat_locally(&mut test, "a");
            test.beat("web1").ingest(r#"{"host":"web1","metrics":{"m":1}}"#);
            test.wait(if overdue { 2 * MINUTE } else { SECOND }).titles_with_level();
            test.config.local_host = None;
            let due = if reload {
                test.fleet.reconfigure(test.config.clone(), test.now)
            } else {
                let (rows, mark) = (test.rows(), test.last_alive());
                let (config, now) = (test.config.clone(), test.now);
                test.fleet = Fleet::restore(config, rows, Some(mark), now, &test.kernel);
                test.fleet.due(now)
            };
            let trouble = Incident::Connection { host: "web1".into(), connection: LOCAL.into() };
            assert_eq!(due.closed_incidents.contains(&trouble), overdue, "{reload} {overdue}");
            let view = test.fleet.view("web1").unwrap();
            assert_eq!(view.connections.len(), 1);
            // What the other connection brought is still expected of that one.
            let moved_up =
                test.fleet.hosts[0].metrics.iter().all(|metric| metric.freshness.connection() == 0);
            assert!(moved_up, "{reload} {overdue}");
            test.ingest(r#"{"host":"web1","metrics":{"m":1}}"#).titles_with_level();
            assert_eq!(test.wait(MINUTE).titles_with_level(), ["critical web1 ipv4 overdue"]);
        }
    }
}
