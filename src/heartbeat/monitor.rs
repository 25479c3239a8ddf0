//! The fleet under its lock, with the clock that fires its deadlines and the road to the store.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use log::{debug, info, warn};

use crate::clock::{Mono, Now, Wall, words};
use crate::heartbeat::datagram::{self, DatagramKind, MAX_BYTES, MAX_METRICS, Rejection};
use crate::heartbeat::encode::OutgoingDatagram;
use crate::heartbeat::fleet::{AddressChange, Changes, Fleet, Ingested, KeyUsage, OpenProblem};
use crate::heartbeat::persistence::{HostRow, LastAlive};
use crate::heartbeat::settings::{ALERTMANAGER, FleetConfig, LOCAL};
use crate::store::change::{Change, ChangeSink};
use crate::store::{Table, Write};
use crate::thread;
use crate::view::{HostView, UptimeSample};

/// The key of the last sign of life in the store.
pub const LAST_ALIVE_KEY: &str = "mark";
/// The clock looks around at least so often, to notice when the machine slept.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Who wakes so much later than planned was asleep, and deaf.
const STALL: Duration = Duration::from_secs(1);
/// Who wakes this late lets what has arrived meanwhile be heard first.
const LATE: Duration = Duration::from_millis(100);
const PENDING_DATAGRAMS_WAIT: Duration = Duration::from_millis(200);
/// How often `last_seen` goes to disk, when it changed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// How often the sign of life goes to disk when nothing else does.
const LAST_ALIVE_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// So many rows go to disk in one order.
const MAX_ROWS_PER_CHANGE: usize = 2000;
/// So many unknown hosts, and connections with an old key, are named in the log.
const MAX_UNKNOWN_LOGGED: usize = 100;

/// What a metric takes in a beat besides its path, and all the rest of a beat, at most.
const METRIC_BYTES: usize = 64;
const BEAT_BYTES: usize = 512;

/// Told of moves while the fleet is locked: it must neither wait nor ask the watch.
pub type OnAddressChange = Box<dyn Fn(AddressChange) + Send + Sync>;

/// Where a datagram came from.
struct DatagramSource<'a> {
    address: IpAddr,
    /// Who is told when that address is a new one; none when it may be a proxy's.
    observer: Option<&'a OnAddressChange>,
}

/// The hosts, as everybody asks for them.
pub struct FleetMonitor {
    state: Mutex<MonitorState>,
    rearm: Condvar,
    sink: ChangeSink,
    kernel_boot: String,
    overloaded: Box<dyn Fn() -> bool + Send + Sync>,
    accepted: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
    // How many effects were sent, and which of them is known to be on disk.
    sent_changes: AtomicU64,
    stored_changes: Arc<AtomicU64>,
    address_observer: OnceLock<OnAddressChange>,
}

struct MonitorState {
    fleet: Fleet,
    closed: bool,
    unknown_logged: BTreeSet<String>,
    /// Who signs with the previous key, as far as it was told.
    previous_key_users: BTreeSet<(String, String)>,
}

impl FleetMonitor {
    /// Takes the fleet over. `overloaded` says when events come in faster than they can be stored.
    pub fn new(
        fleet: Fleet,
        kernel_boot: String,
        sink: ChangeSink,
        overloaded: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> FleetMonitor {
        let (strangers, old_keys) = Default::default();
        let inner = MonitorState {
            fleet,
            closed: false,
            unknown_logged: strangers,
            previous_key_users: old_keys,
        };
        FleetMonitor {
            state: Mutex::new(inner),
            rearm: Condvar::new(),
            sink,
            kernel_boot,
            overloaded,
            accepted: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
            sent_changes: AtomicU64::new(0),
            stored_changes: Arc::default(),
            address_observer: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, MonitorState> {
        thread::lock(&self.state)
    }

    /// Takes in a datagram. `then` is given the answer, if one is wanted, and whether what the
    /// datagram caused is stored. It is called at once when nothing is on its way to the disk,
    /// else when that is there: a datagram that repeats an earlier one causes nothing of its own,
    /// and must not be answered before what the earlier one caused is stored.
    ///
    /// # Errors
    /// Why it was not believed; that is counted here.
    pub fn ingest(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.ingest_from(
            bytes,
            DatagramSource { address: from, observer: self.address_observer.get() },
            now,
            then,
        )
    }

    fn ingest_locked(
        &self,
        bytes: &[u8],
        from: &DatagramSource,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        if (self.overloaded)() && carries_event(bytes) {
            return Err(Rejection::Busy);
        }
        let mut inner = self.lock();
        if inner.closed {
            return Err(Rejection::Busy);
        }
        let mut heard = inner.fleet.ingest(bytes, from.address, now)?;
        if heard.rearm {
            self.rearm.notify_all();
        }
        if let Some(key) = &heard.key_usage {
            inner.record_key(key);
        }
        if let (Some(path), Some(told)) = (&heard.proven_address, from.observer) {
            inner.fleet.track_address(path, from.address).into_iter().for_each(told);
        }
        let ack = heard.ack.take();
        let effect = heard.into_change();
        if effect.is_none() && self.all_stored() {
            drop(inner);
            then(ack, true);
            return Ok(());
        }
        // Still under the lock: what changed first must be stored first.
        let stored: Option<Box<dyn FnOnce(bool) + Send>> =
            Some(Box::new(move |stored| then(ack, stored)));
        self.send_change(Change { stored, ..effect.unwrap_or_default() });
        Ok(())
    }

    fn all_stored(&self) -> bool {
        self.stored_changes.load(Ordering::Acquire) == self.sent_changes.load(Ordering::Acquire)
    }

    /// Sends an effect and keeps account of whether it is on disk. The courier stores in order,
    /// so one that is stored vouches for those before it.
    fn send_change(&self, effect: Change) {
        let number = self.sent_changes.fetch_add(1, Ordering::AcqRel) + 1;
        let stored_to = Arc::clone(&self.stored_changes);
        let answer = effect.stored;
        (self.sink)(Change {
            stored: Some(Box::new(move |stored| {
                if stored {
                    stored_to.fetch_max(number, Ordering::AcqRel);
                }
                if let Some(answer) = answer {
                    answer(stored);
                }
            })),
            ..effect
        });
    }

    /// Fires deadlines, notices when the machine slept, writes signs of life, until it is closed.
    /// `pulse` is called at every turn.
    pub fn run_deadlines(&self, mut pulse: impl FnMut()) {
        let mut pace = LoopClock::at(Now::read().mono);
        let mut flushed = pace.last;
        loop {
            if self.check_clock(&mut pace) >= LATE {
                self.wait_for_pending_datagrams();
            }
            pulse();
            if !self.process_due(Now::read()) {
                return;
            }
            flushed = self.flush_when_due(flushed);
            // The machine may have slept during the turn, too.
            self.check_clock(&mut pace);
            let Some(until) = self.wait() else { return };
            pace.planned = until;
        }
    }

    /// Looks at the clock: who looks much later than planned was asleep, and deaf since the last
    /// look. Says how late it is.
    fn check_clock(&self, pace: &mut LoopClock) -> Duration {
        let now = Now::read().mono;
        let late = now.since(pace.planned);
        if late >= STALL {
            self.lock().fleet.record_blindness(pace.last, now);
            warn!("hbd was asleep for {} and heard nothing meanwhile", words(late));
        }
        *pace = LoopClock::at(now);
        late
    }

    /// Lets the datagrams that wait in the socket be heard before their hosts are given up.
    fn wait_for_pending_datagrams(&self) {
        let _ = self.rearm.wait_timeout(self.lock(), PENDING_DATAGRAMS_WAIT);
    }

    /// Everything that has fallen due; false when the watch is closed.
    fn process_due(&self, now: Now) -> bool {
        loop {
            let mut inner = self.lock();
            if inner.closed {
                return false;
            }
            let due = inner.fleet.due(now);
            let more = inner.fleet.next_deadline().is_some_and(|next| next <= now.mono);
            self.send_changes(due);
            if !more {
                return true;
            }
        }
    }

    fn send_changes(&self, due: Changes) {
        if due.is_empty() {
            return;
        }
        let gone = due.removed_hosts.iter().map(|name| Write::remove(Table::Hosts, name.clone()));
        self.send_change(Change {
            writes: gone.chain(due.rows.iter().map(host_row)).collect(),
            events: due.events,
            forgotten: due.closed_incidents,
            stored: None,
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

    /// Sends what changed to the store, and the sign of life behind it; false when there was
    /// nothing to write.
    fn flush(&self, now: Now, anyway: bool) -> bool {
        let mut wrote = false;
        loop {
            let mut inner = self.lock();
            let rows = inner.fleet.flush_some(MAX_ROWS_PER_CHANGE);
            let last = rows.len() < MAX_ROWS_PER_CHANGE;
            wrote |= !rows.is_empty();
            let mut writes: Vec<_> = rows.iter().map(host_row).collect();
            if last && (wrote || anyway) {
                let mark = LastAlive { kernel_boot: self.kernel_boot.clone(), now };
                writes.push(Write::put(Table::Meta, LAST_ALIVE_KEY, &mark));
            }
            if !writes.is_empty() {
                (self.sink)(Change { writes, ..Change::default() });
            }
            if last {
                return wrote || anyway;
            }
        }
    }

    /// Sleeps until the next deadline, a tick at most; says until when it meant to.
    fn wait(&self) -> Option<Mono> {
        let inner = self.lock();
        if inner.closed {
            return None;
        }
        let now = Now::read().mono;
        let deadline = inner.fleet.next_deadline().unwrap_or(now + MAX_WAIT);
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let until = (deadline + Duration::from_millis(1)).min(now + MAX_WAIT).max(now);
        let _ = self.rearm.wait_timeout(inner, until.since(now));
        Some(until)
    }

    /// Ends the watch: from now on nothing is heard, and all that was is on its way to the store.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.fleet.announce_stop();
        drop(inner);
        self.rearm.notify_all();
        self.flush(Now::read(), true);
    }

    /// Takes over a new configuration.
    pub fn reconfigure(&self, rules: FleetConfig) {
        let mut inner = self.lock();
        inner.unknown_logged.clear();
        inner.previous_key_users.clear();
        let due = inner.fleet.reconfigure(rules, Now::read());
        self.send_changes(due);
        drop(inner);
        self.rearm.notify_all();
    }

    /// Every row of every host, for a store that lost its own.
    pub fn all_rows(&self) -> Vec<Write> {
        self.lock().fleet.all_rows().iter().map(host_row).collect()
    }

    /// At most `count` hosts from the place `from` on.
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

    /// Datagrams that were believed.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Datagrams that were not, by reason.
    pub fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.rejected.iter().map(|count| count.load(Ordering::Relaxed));
        Rejection::ALL.iter().map(|reason| reason.name()).zip(counts)
    }

    /// From now on `told` hears of moves. Only the first one does.
    pub fn on_address_change(&self, told: OnAddressChange) {
        // Nobody is replaced: there is one who keeps names.
        let _ = self.address_observer.set(told);
    }

    /// As [`hear`](Watch::hear), for a datagram that came over HTTP: who sent it may be a proxy,
    /// and its address says nothing about where the host is.
    ///
    /// # Errors
    /// Why it was not believed; that is counted here.
    pub fn ingest_over_http(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.ingest_from(bytes, DatagramSource { address: from, observer: None }, now, then)
    }

    fn ingest_from(
        &self,
        bytes: &[u8],
        from: DatagramSource,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let heard = self.ingest_locked(bytes, &from, now, then);
        match heard {
            Ok(()) => drop(self.accepted.fetch_add(1, Ordering::Relaxed)),
            Err(why) => self.reject(why, bytes, from.address),
        }
        heard
    }

    fn reject(&self, why: Rejection, bytes: &[u8], from: IpAddr) {
        if let Some(index) = Rejection::ALL.iter().position(|other| other.name() == why.name()) {
            self.rejected[index].fetch_add(1, Ordering::Relaxed);
        }
        debug!("a datagram from {from} was dropped: {why}");
        if why == Rejection::UnknownHost
            && let Ok(stranger) = datagram::parse(datagram::split(bytes).1)
        {
            let name = &stranger.host;
            let is_news = {
                let named = &mut self.lock().unknown_logged;
                named.len() < MAX_UNKNOWN_LOGGED && named.insert(name.to_string())
            };
            if is_news {
                info!("{from} sends heartbeats as {name}, which is not under hosts: ignored");
            }
        }
    }

    /// A sign of life of a configured host that an Alertmanager passed on: a beat over the
    /// connection `alertmanager`.
    pub fn ingest_alert_heartbeat(&self, host: &str) {
        let beat = OutgoingDatagram {
            host: host.to_owned(),
            connection: Some(ALERTMANAGER.into()),
            ..OutgoingDatagram::default()
        };
        if let Err(why) = self.ingest_internal(&beat, Now::read()) {
            warn!("a sign of life of {host} could not be taken: {why}");
        }
    }

    /// What the daemon's own machine, the host `host`, says about itself: a beat over the connection
    /// `local`. The boot is that of the kernel that is running.
    ///
    /// # Errors
    /// When the configuration has no such host, when a path is none, or when there are more metrics
    /// than are kept of a host: the first ones were taken.
    pub fn ingest_local(
        &self,
        host: &str,
        metrics: &[(String, f64)],
        now: Now,
    ) -> Result<(), Rejection> {
        let beat = || OutgoingDatagram {
            host: host.to_owned(),
            connection: Some(LOCAL.into()),
            boot_id: Some(self.kernel_boot.clone()).filter(|id| !id.is_empty()),
            ..OutgoingDatagram::default()
        };
        let (mut part, mut bytes) = (beat(), BEAT_BYTES);
        for (path, value) in metrics.iter().take(MAX_METRICS) {
            bytes += path.len() + METRIC_BYTES;
            if bytes > MAX_BYTES {
                self.ingest_internal(&std::mem::replace(&mut part, beat()), now)?;
                bytes = BEAT_BYTES + path.len() + METRIC_BYTES;
            }
            part.metrics.insert(path.clone(), *value);
        }
        self.ingest_internal(&part, now)?;
        if metrics.len() > MAX_METRICS { Err(Rejection::TooManyMetrics) } else { Ok(()) }
    }

    fn ingest_internal(&self, beat: &OutgoingDatagram, now: Now) -> Result<(), Rejection> {
        let mut inner = self.lock();
        if inner.closed {
            return Ok(());
        }
        let heard = inner.fleet.ingest_internal(&beat.json(), Ipv4Addr::LOCALHOST.into(), now)?;
        if heard.rearm {
            self.rearm.notify_all();
        }
        if let Some(effect) = heard.into_change() {
            self.send_change(effect);
        }
        Ok(())
    }

    /// How the `count` hosts from the place `from` on fared since their last account.
    pub fn take_samples(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.lock().fleet.take_samples(from, count, until)
    }

    /// What the next account of a host would say.
    pub fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample> {
        self.lock().fleet.peek_sample(host, now)
    }

    /// When nothing could be heard, each told once.
    pub fn take_blind_periods(&self, now: Now) -> Vec<(Wall, Wall)> {
        self.lock().fleet.take_blind_periods(now)
    }

    /// What is wrong with the `count` hosts from the place `from` on.
    pub fn open_problems(&self, from: usize, count: usize) -> Vec<OpenProblem> {
        self.lock().fleet.open_problems(from, count)
    }
}

impl MonitorState {
    /// Tells the operator who changes keys is still to change, and who has.
    fn record_key(&mut self, key: &KeyUsage) {
        let who = (key.host.clone(), key.connection.clone());
        if !key.previous {
            self.previous_key_users.remove(&who);
            info!("{} {} signs with its new key", key.host, key.connection);
        } else if self.previous_key_users.len() < MAX_UNKNOWN_LOGGED
            && self.previous_key_users.insert(who)
        {
            info!("{} {} still signs with the previous key", key.host, key.connection);
        }
    }
}

/// When the clock was last looked at, and when it was to be looked at next.
struct LoopClock {
    last: Mono,
    planned: Mono,
}

impl LoopClock {
    fn at(now: Mono) -> LoopClock {
        LoopClock { last: now, planned: now }
    }
}

impl Ingested {
    /// What it changed; none for a plain beat.
    fn into_change(self) -> Option<Change> {
        let plain =
            self.events.is_empty() && self.rows.is_empty() && self.closed_incidents.is_empty();
        (!plain).then(|| Change {
            writes: self.rows.iter().map(host_row).collect(),
            events: self.events,
            forgotten: self.closed_incidents,
            stored: None,
        })
    }
}

fn host_row((name, row): &(String, HostRow)) -> Write {
    Write::put(Table::Hosts, name.clone(), row)
}

/// Whether a datagram would cause an event: the only ones that are refused under overload.
fn carries_event(bytes: &[u8]) -> bool {
    datagram::parse(datagram::split(bytes).1)
        .is_ok_and(|datagram| datagram.event != DatagramKind::Beat)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::event::Incident;
    use crate::heartbeat::settings::{Expectation, HostSettings};
    use crate::heartbeat::test_fleet::{MINUTE, SECOND, TestFleet, config};
    use crate::view::State;

    fn watch() -> (FleetMonitor, mpsc::Receiver<Change>) {
        let hosts = [("web1".to_owned(), HostSettings { watch: true, ..HostSettings::default() })];
        let rules = FleetConfig { hosts: hosts.into(), ..FleetConfig::default() };
        let fleet = Fleet::restore(rules, Vec::new(), None, Now::read(), "boot");
        let (tx, rx) = mpsc::channel();
        let tx = Mutex::new(tx);
        let sink: ChangeSink = Arc::new(move |effect| {
            let tx = tx.lock().expect("nobody panicked");
            tx.send(effect).expect("the test listens");
        });
        (FleetMonitor::new(fleet, "boot".into(), sink, Box::new(|| false)), rx)
    }

    fn hear(watch: &FleetMonitor, json: &str) -> mpsc::Receiver<bool> {
        let (tx, rx) = mpsc::channel();
        let from = IpAddr::from([127, 0, 0, 1]);
        let then = move |_, stored| tx.send(stored).expect("the test listens");
        watch.ingest(json.as_bytes(), from, Now::read(), then).expect("it is believed");
        rx
    }

    #[test]
    fn a_repeat_is_not_answered_before_what_it_repeats_is_stored() {
        let (watch, effects) = watch();
        let goodbye = r#"{"host":"web1","event":"boot","boot_id":"a"}"#;
        let first = hear(&watch, goodbye);
        let second = hear(&watch, goodbye);
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        let effects: Vec<Change> = effects.try_iter().collect();
        for effect in effects {
            effect.stored.expect("somebody waits")(true);
        }
        assert!(first.recv().expect("an answer") && second.recv().expect("an answer"));
    }

    #[test]
    fn what_a_refusing_disk_did_not_take_is_not_called_stored_when_it_is_repeated() {
        let (watch, effects) = watch();
        let goodbye = r#"{"host":"web1","event":"boot","boot_id":"a"}"#;
        let first = hear(&watch, goodbye);
        effects.recv().expect("an effect").stored.expect("somebody waits")(false);
        assert!(!first.recv().expect("an answer"));
        let second = hear(&watch, goodbye);
        assert!(second.try_recv().is_err(), "the disk is asked again");
        effects.recv().expect("an effect").stored.expect("somebody waits")(true);
        assert!(second.recv().expect("an answer"));
        assert!(hear(&watch, r#"{"host":"web1"}"#).recv().expect("an answer"));
    }

    #[test]
    fn a_watch_that_is_closed_hears_nothing_and_has_sent_everything() {
        let (watch, effects) = watch();
        hear(&watch, r#"{"host":"web1"}"#);
        watch.close();
        let from = IpAddr::from([127, 0, 0, 1]);
        let late = watch.ingest(br#"{"host":"web1"}"#, from, Now::read(), |_, _| {});
        assert_eq!(late, Err(Rejection::Busy));
        let writes: Vec<Write> = effects.try_iter().flat_map(|effect| effect.writes).collect();
        assert!(writes.iter().any(|write| write.table == Table::Hosts));
        assert!(writes.iter().any(|write| write.key == LAST_ALIVE_KEY));
    }

    const PROMISE: Expectation = Expectation { interval: Duration::from_secs(10), grace: MINUTE };

    fn own(play: &mut TestFleet, boot: &str) {
        let beat = OutgoingDatagram {
            host: "web1".into(),
            connection: Some(LOCAL.into()),
            boot_id: Some(boot.into()),
            ..OutgoingDatagram::default()
        };
        let heard =
            play.fleet.ingest_internal(&beat.json(), Ipv4Addr::LOCALHOST.into(), play.now).unwrap();
        play.add_events(heard.events);
    }

    fn play() -> TestFleet {
        let mut rules = config();
        rules.local_host = Some(("web1".into(), PROMISE));
        TestFleet::with(rules)
    }

    #[test]
    fn all_figures_of_this_machine_are_heard_however_many() {
        let rules = play().config;
        let now = Now::read();
        let fleet = Fleet::restore(rules, Vec::new(), None, now, "boot");
        let watch = FleetMonitor::new(fleet, "boot".into(), Arc::new(|_| ()), Box::new(|| false));
        let path = |n: usize| format!("disk_monitor.{}{n}.percent", "a".repeat(150));
        let metrics: Vec<_> = (0..300).map(|n| (path(n), n as f64)).collect();
        watch.ingest_local("web1", &metrics, now).unwrap();
        let view = watch.view("web1").unwrap();
        assert_eq!((view.state, view.metrics.len()), (State::Up, 300));
        assert_eq!(view.connections[0].name, LOCAL);
        let more: Vec<_> = (0..600).map(|n| (format!("m{n}"), 0.0)).collect();
        assert_eq!(watch.ingest_local("web1", &more, now), Err(Rejection::TooManyMetrics));
        let kept = watch.view("web1").unwrap().metrics;
        assert_eq!(kept.iter().filter(|metric| metric.path.starts_with('m')).count(), 512);
        assert_eq!(watch.ingest_local("web2", &metrics, now), Err(Rejection::UnknownHost));
    }

    #[test]
    fn this_machine_needs_no_key_and_nobody_else_may_do_without() {
        let mut play = play();
        play.config.settings.key = Some(crate::secret::Secret::new("k"));
        play.fleet.reconfigure(play.config.clone(), play.now);
        own(&mut play, "a");
        let forged = br#"{"host":"web1","connection":"local"}"#;
        assert_eq!(play.try_ingest(forged), Err(Rejection::Unsigned));
    }

    #[test]
    fn a_boot_of_this_machine_is_told_once_and_is_announced_when_the_daemon_was_stopped() {
        for (stopped, level) in [(true, "info"), (false, "warning")] {
            let mut play = play();
            own(&mut play, "a");
            play.wait(10 * SECOND);
            assert!(play.titles_with_level().is_empty(), "its first start is no boot");
            if stopped {
                play.fleet.announce_stop();
            }
            play.reboot_after(5 * MINUTE);
            own(&mut play, "b");
            play.wait(SECOND);
            own(&mut play, "b");
            assert_eq!(play.titles_with_level(), [format!("{level} web1 booted")]);
        }
        let mut play = play();
        own(&mut play, "a");
        play.fleet.announce_stop();
        play.restart_after(SECOND);
        own(&mut play, "a");
        assert!(play.titles_with_level().is_empty(), "an upgrade of hbd is nothing");
        play.reboot_after(MINUTE);
        own(&mut play, "b");
        assert_eq!(
            play.titles_with_level(),
            ["warning web1 booted"],
            "it was started since: a power cut"
        );
    }

    #[test]
    fn a_collector_that_hangs_is_overdue() {
        let mut play = play();
        own(&mut play, "a");
        assert!(play.wait(70 * SECOND - Duration::from_millis(1)).titles_with_level().is_empty());
        assert_eq!(play.wait(SECOND).titles_with_level(), ["critical web1 local overdue"]);
    }

    #[test]
    fn an_agent_that_is_switched_off_is_forgotten_and_not_overdue() {
        for (reload, overdue) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut play = play();
            own(&mut play, "a");
            play.beat("web1").ingest(r#"{"host":"web1","metrics":{"m":1}}"#);
            play.wait(if overdue { 2 * MINUTE } else { SECOND }).titles_with_level();
            play.config.local_host = None;
            let due = if reload {
                play.fleet.reconfigure(play.config.clone(), play.now)
            } else {
                let (rows, mark) = (play.rows(), play.last_alive());
                let (rules, now) = (play.config.clone(), play.now);
                play.fleet = Fleet::restore(rules, rows, Some(mark), now, &play.kernel);
                play.fleet.due(now)
            };
            let trouble = Incident::Connection { host: "web1".into(), connection: LOCAL.into() };
            assert_eq!(due.closed_incidents.contains(&trouble), overdue, "{reload} {overdue}");
            let view = play.fleet.view("web1").unwrap();
            assert_eq!(view.connections.len(), 1);
            // What the other connection brought is still expected of that one.
            let moved_up =
                play.fleet.hosts[0].metrics.iter().all(|gauge| gauge.freshness.connection() == 0);
            assert!(moved_up, "{reload} {overdue}");
            play.ingest(r#"{"host":"web1","metrics":{"m":1}}"#).titles_with_level();
            assert_eq!(play.wait(MINUTE).titles_with_level(), ["critical web1 ipv4 overdue"]);
        }
    }
}
