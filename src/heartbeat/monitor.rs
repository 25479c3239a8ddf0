//! The fleet under its lock, with the clock that fires its deadlines and the road to the store.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use log::{debug, info, warn};

use crate::clock::{Mono, Now, Wall, words};
use crate::heartbeat::datagram::{self, Kind, MAX_BYTES, MAX_METRICS, Rejection};
use crate::heartbeat::encode::Beat;
use crate::heartbeat::fleet::{Due, Fleet, Heard, KeyUse, Moved, Wrong};
use crate::heartbeat::persistence::{Mark, Row};
use crate::heartbeat::settings::{ALERTMANAGER, LOCAL, Rules};
use crate::store::change::{Change, ChangeSink};
use crate::store::{Table, Write};
use crate::thread;
use crate::view::{HostView, UptimeSample};

/// The key of the last sign of life in the store.
pub const MARK: &str = "mark";
/// The clock looks around at least so often, to notice when the machine slept.
const TICK: Duration = Duration::from_secs(1);
/// Who wakes so much later than planned was asleep, and deaf.
const STALL: Duration = Duration::from_secs(1);
/// Who wakes this late lets what has arrived meanwhile be heard first.
const LATE: Duration = Duration::from_millis(100);
const LISTEN_FIRST: Duration = Duration::from_millis(200);
/// How often `last_seen` goes to disk, when it changed.
const FLUSH: Duration = Duration::from_secs(60);
/// How often the sign of life goes to disk when nothing else does.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15 * 60);
/// So many rows go to disk in one order.
const ROWS_AT_ONCE: usize = 2000;
/// So many unknown hosts, and connections with an old key, are named in the log.
const STRANGERS_NAMED: usize = 100;

/// What a metric takes in a beat besides its path, and all the rest of a beat, at most.
const METRIC_BYTES: usize = 64;
const BEAT_BYTES: usize = 512;

/// Told of moves while the fleet is locked: it must neither wait nor ask the watch.
pub type OnMove = Box<dyn Fn(Moved) + Send + Sync>;

/// Where a datagram came from.
struct Source<'a> {
    address: IpAddr,
    /// Who is told when that address is a new one; none when it may be a proxy's.
    told: Option<&'a OnMove>,
}

/// The hosts, as everybody asks for them.
pub struct Watch {
    inner: Mutex<Inner>,
    wake: Condvar,
    sink: ChangeSink,
    kernel_boot: String,
    overloaded: Box<dyn Fn() -> bool + Send + Sync>,
    accepted: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
    // How many effects were sent, and which of them is known to be on disk.
    sent: AtomicU64,
    stored: Arc<AtomicU64>,
    told: OnceLock<OnMove>,
}

struct Inner {
    fleet: Fleet,
    closed: bool,
    strangers: BTreeSet<String>,
    /// Who signs with the previous key, as far as it was told.
    old_keys: BTreeSet<(String, String)>,
}

impl Watch {
    /// Takes the fleet over. `overloaded` says when events come in faster than they can be stored.
    pub fn new(
        fleet: Fleet,
        kernel_boot: String,
        sink: ChangeSink,
        overloaded: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> Watch {
        let (strangers, old_keys) = Default::default();
        let inner = Inner { fleet, closed: false, strangers, old_keys };
        Watch {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            sink,
            kernel_boot,
            overloaded,
            accepted: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
            sent: AtomicU64::new(0),
            stored: Arc::default(),
            told: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        thread::lock(&self.inner)
    }

    /// Takes in a datagram. `then` is given the answer, if one is wanted, and whether what the
    /// datagram caused is stored. It is called at once when nothing is on its way to the disk,
    /// else when that is there: a datagram that repeats an earlier one causes nothing of its own,
    /// and must not be answered before what the earlier one caused is stored.
    ///
    /// # Errors
    /// Why it was not believed; that is counted here.
    pub fn hear(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.hear_from(bytes, Source { address: from, told: self.told.get() }, now, then)
    }

    fn hear_locked(
        &self,
        bytes: &[u8],
        from: &Source,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        if (self.overloaded)() && tells_something(bytes) {
            return Err(Rejection::Busy);
        }
        let mut inner = self.lock();
        if inner.closed {
            return Err(Rejection::Busy);
        }
        let mut heard = inner.fleet.hear(bytes, from.address, now)?;
        if heard.wake {
            self.wake.notify_all();
        }
        if let Some(key) = &heard.key {
            inner.note_key(key);
        }
        if let (Some(path), Some(told)) = (&heard.vouched, from.told) {
            inner.fleet.moved(path, from.address).into_iter().for_each(told);
        }
        let ack = heard.ack.take();
        let effect = heard.effect();
        if effect.is_none() && self.all_stored() {
            drop(inner);
            then(ack, true);
            return Ok(());
        }
        // Still under the lock: what changed first must be stored first.
        let stored: Option<Box<dyn FnOnce(bool) + Send>> =
            Some(Box::new(move |stored| then(ack, stored)));
        self.send(Change { stored, ..effect.unwrap_or_default() });
        Ok(())
    }

    fn all_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire) == self.sent.load(Ordering::Acquire)
    }

    /// Sends an effect and keeps account of whether it is on disk. The courier stores in order,
    /// so one that is stored vouches for those before it.
    fn send(&self, effect: Change) {
        let number = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let stored_to = Arc::clone(&self.stored);
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
    pub fn keep_time(&self, mut pulse: impl FnMut()) {
        let mut pace = Pace::at(Now::read().mono);
        let mut flushed = pace.last;
        loop {
            if self.look(&mut pace) >= LATE {
                self.listen_first();
            }
            pulse();
            if !self.fire(Now::read()) {
                return;
            }
            flushed = self.flush_when_due(flushed);
            // The machine may have slept during the turn, too.
            self.look(&mut pace);
            let Some(until) = self.sleep() else { return };
            pace.planned = until;
        }
    }

    /// Looks at the clock: who looks much later than planned was asleep, and deaf since the last
    /// look. Says how late it is.
    fn look(&self, pace: &mut Pace) -> Duration {
        let now = Now::read().mono;
        let late = now.since(pace.planned);
        if late >= STALL {
            self.lock().fleet.blind(pace.last, now);
            warn!("hbd was asleep for {} and heard nothing meanwhile", words(late));
        }
        *pace = Pace::at(now);
        late
    }

    /// Lets the datagrams that wait in the socket be heard before their hosts are given up.
    fn listen_first(&self) {
        let _ = self.wake.wait_timeout(self.lock(), LISTEN_FIRST);
    }

    /// Everything that has fallen due; false when the watch is closed.
    fn fire(&self, now: Now) -> bool {
        loop {
            let mut inner = self.lock();
            if inner.closed {
                return false;
            }
            let due = inner.fleet.due(now);
            let more = inner.fleet.next_deadline().is_some_and(|next| next <= now.mono);
            self.send_due(due);
            if !more {
                return true;
            }
        }
    }

    fn send_due(&self, due: Due) {
        if due.is_empty() {
            return;
        }
        let gone = due.gone.iter().map(|name| Write::remove(Table::Hosts, name.clone()));
        self.send(Change {
            writes: gone.chain(due.rows.iter().map(host_row)).collect(),
            events: due.events,
            forgotten: due.ended,
            stored: None,
        });
    }

    fn flush_when_due(&self, flushed: Mono) -> Mono {
        let now = Now::read();
        let since = now.mono.since(flushed);
        if since < FLUSH || !self.flush(now, since >= SIGN_OF_LIFE) {
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
            let rows = inner.fleet.flush_some(ROWS_AT_ONCE);
            let last = rows.len() < ROWS_AT_ONCE;
            wrote |= !rows.is_empty();
            let mut writes: Vec<_> = rows.iter().map(host_row).collect();
            if last && (wrote || anyway) {
                let mark = Mark { kernel_boot: self.kernel_boot.clone(), now };
                writes.push(Write::put(Table::Meta, MARK, &mark));
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
    fn sleep(&self) -> Option<Mono> {
        let inner = self.lock();
        if inner.closed {
            return None;
        }
        let now = Now::read().mono;
        let deadline = inner.fleet.next_deadline().unwrap_or(now + TICK);
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let until = (deadline + Duration::from_millis(1)).min(now + TICK).max(now);
        let _ = self.wake.wait_timeout(inner, until.since(now));
        Some(until)
    }

    /// Ends the watch: from now on nothing is heard, and all that was is on its way to the store.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.fleet.leave();
        drop(inner);
        self.wake.notify_all();
        self.flush(Now::read(), true);
    }

    /// Takes over a new configuration.
    pub fn reconfigure(&self, rules: Rules) {
        let mut inner = self.lock();
        inner.strangers.clear();
        inner.old_keys.clear();
        let due = inner.fleet.reconfigure(rules, Now::read());
        self.send_due(due);
        drop(inner);
        self.wake.notify_all();
    }

    /// Every row of every host, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
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
    pub fn on_move(&self, told: OnMove) {
        // Nobody is replaced: there is one who keeps names.
        let _ = self.told.set(told);
    }

    /// As [`hear`](Watch::hear), for a datagram that came over HTTP: who sent it may be a proxy,
    /// and its address says nothing about where the host is.
    ///
    /// # Errors
    /// Why it was not believed; that is counted here.
    pub fn hear_over_http(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        self.hear_from(bytes, Source { address: from, told: None }, now, then)
    }

    fn hear_from(
        &self,
        bytes: &[u8],
        from: Source,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        let heard = self.hear_locked(bytes, &from, now, then);
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
                let named = &mut self.lock().strangers;
                named.len() < STRANGERS_NAMED && named.insert(name.to_string())
            };
            if is_news {
                info!("{from} sends heartbeats as {name}, which is not under hosts: ignored");
            }
        }
    }

    /// A sign of life of a configured host that an Alertmanager passed on: a beat over the
    /// connection `alertmanager`.
    pub fn hear_of(&self, host: &str) {
        let beat = Beat {
            host: host.to_owned(),
            connection: Some(ALERTMANAGER.into()),
            ..Beat::default()
        };
        if let Err(why) = self.hear_vouched(&beat, Now::read()) {
            warn!("a sign of life of {host} could not be taken: {why}");
        }
    }

    /// What the daemon's own machine, the host `host`, says about itself: a beat over the connection
    /// `local`. The boot is that of the kernel that is running.
    ///
    /// # Errors
    /// When the configuration has no such host, when a path is none, or when there are more metrics
    /// than are kept of a host: the first ones were taken.
    pub fn hear_own(
        &self,
        host: &str,
        metrics: &[(String, f64)],
        now: Now,
    ) -> Result<(), Rejection> {
        let beat = || Beat {
            host: host.to_owned(),
            connection: Some(LOCAL.into()),
            boot_id: Some(self.kernel_boot.clone()).filter(|id| !id.is_empty()),
            ..Beat::default()
        };
        let (mut part, mut bytes) = (beat(), BEAT_BYTES);
        for (path, value) in metrics.iter().take(MAX_METRICS) {
            bytes += path.len() + METRIC_BYTES;
            if bytes > MAX_BYTES {
                self.hear_vouched(&std::mem::replace(&mut part, beat()), now)?;
                bytes = BEAT_BYTES + path.len() + METRIC_BYTES;
            }
            part.metrics.insert(path.clone(), *value);
        }
        self.hear_vouched(&part, now)?;
        if metrics.len() > MAX_METRICS { Err(Rejection::TooManyMetrics) } else { Ok(()) }
    }

    fn hear_vouched(&self, beat: &Beat, now: Now) -> Result<(), Rejection> {
        let mut inner = self.lock();
        if inner.closed {
            return Ok(());
        }
        let heard = inner.fleet.hear_of(&beat.json(), Ipv4Addr::LOCALHOST.into(), now)?;
        if heard.wake {
            self.wake.notify_all();
        }
        if let Some(effect) = heard.effect() {
            self.send(effect);
        }
        Ok(())
    }

    /// How the `count` hosts from the place `from` on fared since their last account.
    pub fn accounts(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.lock().fleet.accounts(from, count, until)
    }

    /// What the next account of a host would say.
    pub fn running(&self, host: &str, now: Now) -> Option<UptimeSample> {
        self.lock().fleet.running(host, now)
    }

    /// When nothing could be heard, each told once.
    pub fn unseen(&self, now: Now) -> Vec<(Wall, Wall)> {
        self.lock().fleet.unseen(now)
    }

    /// What is wrong with the `count` hosts from the place `from` on.
    pub fn wrong(&self, from: usize, count: usize) -> Vec<Wrong> {
        self.lock().fleet.wrong(from, count)
    }
}

impl Inner {
    /// Tells the operator who changes keys is still to change, and who has.
    fn note_key(&mut self, key: &KeyUse) {
        let who = (key.host.clone(), key.connection.clone());
        if !key.previous {
            self.old_keys.remove(&who);
            info!("{} {} signs with its new key", key.host, key.connection);
        } else if self.old_keys.len() < STRANGERS_NAMED && self.old_keys.insert(who) {
            info!("{} {} still signs with the previous key", key.host, key.connection);
        }
    }
}

/// When the clock was last looked at, and when it was to be looked at next.
struct Pace {
    last: Mono,
    planned: Mono,
}

impl Pace {
    fn at(now: Mono) -> Pace {
        Pace { last: now, planned: now }
    }
}

impl Heard {
    /// What it changed; none for a plain beat.
    fn effect(self) -> Option<Change> {
        let plain = self.events.is_empty() && self.rows.is_empty() && self.ended.is_empty();
        (!plain).then(|| Change {
            writes: self.rows.iter().map(host_row).collect(),
            events: self.events,
            forgotten: self.ended,
            stored: None,
        })
    }
}

fn host_row((name, row): &(String, Row)) -> Write {
    Write::put(Table::Hosts, name.clone(), row)
}

/// Whether a datagram would cause an event: the only ones that are refused under overload.
fn tells_something(bytes: &[u8]) -> bool {
    datagram::parse(datagram::split(bytes).1).is_ok_and(|datagram| datagram.event != Kind::Beat)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::event::Incident;
    use crate::heartbeat::settings::{HostSettings, Promise};
    use crate::heartbeat::test_fleet::{MINUTE, Play, SECOND, rules};
    use crate::view::State;

    fn watch() -> (Watch, mpsc::Receiver<Change>) {
        let hosts = [("web1".to_owned(), HostSettings { watch: true, ..HostSettings::default() })];
        let rules = Rules { hosts: hosts.into(), ..Rules::default() };
        let fleet = Fleet::restore(rules, Vec::new(), None, Now::read(), "boot");
        let (tx, rx) = mpsc::channel();
        let tx = Mutex::new(tx);
        let sink: ChangeSink = Arc::new(move |effect| {
            let tx = tx.lock().expect("nobody panicked");
            tx.send(effect).expect("the test listens");
        });
        (Watch::new(fleet, "boot".into(), sink, Box::new(|| false)), rx)
    }

    fn hear(watch: &Watch, json: &str) -> mpsc::Receiver<bool> {
        let (tx, rx) = mpsc::channel();
        let from = IpAddr::from([127, 0, 0, 1]);
        let then = move |_, stored| tx.send(stored).expect("the test listens");
        watch.hear(json.as_bytes(), from, Now::read(), then).expect("it is believed");
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
        let late = watch.hear(br#"{"host":"web1"}"#, from, Now::read(), |_, _| {});
        assert_eq!(late, Err(Rejection::Busy));
        let writes: Vec<Write> = effects.try_iter().flat_map(|effect| effect.writes).collect();
        assert!(writes.iter().any(|write| write.table == Table::Hosts));
        assert!(writes.iter().any(|write| write.key == MARK));
    }

    const PROMISE: Promise = Promise { interval: Duration::from_secs(10), grace: MINUTE };

    fn own(play: &mut Play, boot: &str) {
        let beat = Beat {
            host: "web1".into(),
            connection: Some(LOCAL.into()),
            boot_id: Some(boot.into()),
            ..Beat::default()
        };
        let heard = play.fleet.hear_of(&beat.json(), Ipv4Addr::LOCALHOST.into(), play.now).unwrap();
        play.note(heard.events);
    }

    fn play() -> Play {
        let mut rules = rules();
        rules.own = Some(("web1".into(), PROMISE));
        Play::with(rules)
    }

    #[test]
    fn all_figures_of_this_machine_are_heard_however_many() {
        let rules = play().rules;
        let now = Now::read();
        let fleet = Fleet::restore(rules, Vec::new(), None, now, "boot");
        let watch = Watch::new(fleet, "boot".into(), Arc::new(|_| ()), Box::new(|| false));
        let path = |n: usize| format!("disk_monitor.{}{n}.percent", "a".repeat(150));
        let metrics: Vec<_> = (0..300).map(|n| (path(n), n as f64)).collect();
        watch.hear_own("web1", &metrics, now).unwrap();
        let view = watch.view("web1").unwrap();
        assert_eq!((view.state, view.metrics.len()), (State::Up, 300));
        assert_eq!(view.connections[0].name, LOCAL);
        let more: Vec<_> = (0..600).map(|n| (format!("m{n}"), 0.0)).collect();
        assert_eq!(watch.hear_own("web1", &more, now), Err(Rejection::TooManyMetrics));
        let kept = watch.view("web1").unwrap().metrics;
        assert_eq!(kept.iter().filter(|metric| metric.path.starts_with('m')).count(), 512);
        assert_eq!(watch.hear_own("web2", &metrics, now), Err(Rejection::UnknownHost));
    }

    #[test]
    fn this_machine_needs_no_key_and_nobody_else_may_do_without() {
        let mut play = play();
        play.rules.settings.key = Some(crate::secret::Secret::new("k"));
        play.fleet.reconfigure(play.rules.clone(), play.now);
        own(&mut play, "a");
        let forged = br#"{"host":"web1","connection":"local"}"#;
        assert_eq!(play.try_hear(forged), Err(Rejection::Unsigned));
    }

    #[test]
    fn a_boot_of_this_machine_is_told_once_and_is_announced_when_the_daemon_was_stopped() {
        for (stopped, level) in [(true, "info"), (false, "warning")] {
            let mut play = play();
            own(&mut play, "a");
            play.wait(10 * SECOND);
            assert!(play.told().is_empty(), "its first start is no boot");
            if stopped {
                play.fleet.leave();
            }
            play.reboot_after(5 * MINUTE);
            own(&mut play, "b");
            play.wait(SECOND);
            own(&mut play, "b");
            assert_eq!(play.told(), [format!("{level} web1 booted")]);
        }
        let mut play = play();
        own(&mut play, "a");
        play.fleet.leave();
        play.restart_after(SECOND);
        own(&mut play, "a");
        assert!(play.told().is_empty(), "an upgrade of hbd is nothing");
        play.reboot_after(MINUTE);
        own(&mut play, "b");
        assert_eq!(play.told(), ["warning web1 booted"], "it was started since: a power cut");
    }

    #[test]
    fn a_collector_that_hangs_is_overdue() {
        let mut play = play();
        own(&mut play, "a");
        assert!(play.wait(70 * SECOND - Duration::from_millis(1)).told().is_empty());
        assert_eq!(play.wait(SECOND).told(), ["critical web1 local overdue"]);
    }

    #[test]
    fn an_agent_that_is_switched_off_is_forgotten_and_not_overdue() {
        for (reload, overdue) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut play = play();
            own(&mut play, "a");
            play.beat("web1").hear(r#"{"host":"web1","metrics":{"m":1}}"#);
            play.wait(if overdue { 2 * MINUTE } else { SECOND }).told();
            play.rules.own = None;
            let due = if reload {
                play.fleet.reconfigure(play.rules.clone(), play.now)
            } else {
                let (rows, mark) = (play.rows(), play.mark());
                let (rules, now) = (play.rules.clone(), play.now);
                play.fleet = Fleet::restore(rules, rows, Some(mark), now, &play.kernel);
                play.fleet.due(now)
            };
            let trouble = Incident::Connection { host: "web1".into(), connection: LOCAL.into() };
            assert_eq!(due.ended.contains(&trouble), overdue, "{reload} {overdue}");
            let view = play.fleet.view("web1").unwrap();
            assert_eq!(view.connections.len(), 1);
            // What the other connection brought is still expected of that one.
            let moved_up =
                play.fleet.hosts[0].gauges.iter().all(|gauge| gauge.presence.over() == 0);
            assert!(moved_up, "{reload} {overdue}");
            play.hear(r#"{"host":"web1","metrics":{"m":1}}"#).told();
            assert_eq!(play.wait(MINUTE).told(), ["critical web1 ipv4 overdue"]);
        }
    }
}
