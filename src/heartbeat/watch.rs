//! The fleet under its lock, with the clock that fires its deadlines and the road to the store.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{debug, info, warn};

use super::datagram::{self, Kind};
use super::fleet::{Due, Fleet, Mark, Row, Rules};
use super::rejection::Rejection;
use crate::clock::{Mono, Now, words};
use crate::effect::{Effect, Sink};
use crate::snapshot::HostView;
use crate::store::{Table, Write};

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
/// So many unknown hosts are named in the log.
const STRANGERS_NAMED: usize = 100;

/// The hosts, as everybody asks for them.
pub struct Watch {
    inner: Mutex<Inner>,
    wake: Condvar,
    sink: Sink,
    kernel_boot: String,
    overloaded: Box<dyn Fn() -> bool + Send + Sync>,
    accepted: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
}

struct Inner {
    fleet: Fleet,
    closed: bool,
    strangers: BTreeSet<String>,
}

impl Watch {
    /// Takes the fleet over. `overloaded` says when events come in faster than they can be stored.
    pub fn new(
        fleet: Fleet,
        kernel_boot: String,
        sink: Sink,
        overloaded: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> Watch {
        let inner = Inner { fleet, closed: false, strangers: BTreeSet::new() };
        Watch {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            sink,
            kernel_boot,
            overloaded,
            accepted: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a datagram. `then` is given the answer, if one is wanted, and whether what the
    /// datagram caused is stored: at once when it caused nothing, else when it is on disk.
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
        let heard = self.hear_locked(bytes, from, now, then);
        match heard {
            Ok(()) => drop(self.accepted.fetch_add(1, Ordering::Relaxed)),
            Err(why) => self.reject(why, bytes, from),
        }
        heard
    }

    fn hear_locked(
        &self,
        bytes: &[u8],
        from: IpAddr,
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
        let heard = inner.fleet.hear(bytes, from, now)?;
        if heard.wake {
            self.wake.notify_all();
        }
        if heard.events.is_empty() && heard.rows.is_empty() && heard.ended.is_empty() {
            drop(inner);
            then(heard.ack, true);
            return Ok(());
        }
        // Still under the lock: what changed first must be stored first.
        let ack = heard.ack;
        (self.sink)(Effect {
            writes: heard.rows.iter().map(host_row).collect(),
            events: heard.events,
            forgotten: heard.ended,
            stored: Some(Box::new(move |stored| then(ack, stored))),
        });
        Ok(())
    }

    fn reject(&self, why: Rejection, bytes: &[u8], from: IpAddr) {
        if let Some(index) = Rejection::ALL.iter().position(|other| other.name() == why.name()) {
            self.rejected[index].fetch_add(1, Ordering::Relaxed);
        }
        debug!("a datagram from {from} was dropped: {why}");
        if why == Rejection::UnknownHost
            && let Ok(stranger) = datagram::parse(datagram::split(bytes).1)
        {
            let mut inner = self.lock();
            let named = &mut inner.strangers;
            if named.len() < STRANGERS_NAMED && named.insert(stranger.host.to_string()) {
                let name = &stranger.host;
                info!("{from} sends heartbeats as {name}, which is not under hosts: ignored");
            }
        }
    }

    /// Fires deadlines, notices when the machine slept, writes signs of life, until it is closed.
    /// `pulse` is called at every turn.
    pub fn keep_time(&self, mut pulse: impl FnMut()) {
        let mut slept_from = Now::read().mono;
        let mut planned = slept_from + TICK;
        let mut flushed = slept_from;
        loop {
            let now = Now::read();
            let late = now.mono.since(planned);
            if late >= STALL {
                warn!("hbd was asleep for {} and heard nothing meanwhile", words(late));
                self.lock().fleet.blind(slept_from, now.mono);
            } else if late >= LATE {
                self.listen_first();
            }
            pulse();
            if !self.fire(Now::read()) {
                return;
            }
            flushed = self.flush_when_due(flushed);
            let Some((from, until)) = self.sleep() else { return };
            (slept_from, planned) = (from, until);
        }
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
            self.send(due);
            if !more {
                return true;
            }
        }
    }

    fn send(&self, due: Due) {
        if due.is_empty() {
            return;
        }
        let gone = due.gone.iter().map(|name| Write::remove(Table::Hosts, name.clone()));
        (self.sink)(Effect {
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
                (self.sink)(Effect { writes, ..Effect::default() });
            }
            if last {
                return wrote || anyway;
            }
        }
    }

    /// Sleeps until the next deadline, a tick at most; says from when to when it meant to.
    fn sleep(&self) -> Option<(Mono, Mono)> {
        let inner = self.lock();
        if inner.closed {
            return None;
        }
        let now = Now::read().mono;
        let deadline = inner.fleet.next_deadline().unwrap_or(now + TICK);
        // A millisecond more than the clock's own grain, so as not to wake just before.
        let until = (deadline + Duration::from_millis(1)).min(now + TICK).max(now);
        let _ = self.wake.wait_timeout(inner, until.since(now));
        // Who is woken early did not oversleep.
        Some((now, until))
    }

    /// Ends the watch: from now on nothing is heard, and all that was is on its way to the store.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
        self.flush(Now::read(), true);
    }

    /// Takes over a new configuration.
    pub fn reconfigure(&self, rules: Rules) {
        let mut inner = self.lock();
        inner.strangers.clear();
        let due = inner.fleet.reconfigure(rules, Now::read());
        self.send(due);
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
}

fn host_row((name, row): &(String, Row)) -> Write {
    Write::put(Table::Hosts, name.clone(), row)
}

/// Whether a datagram would cause an event: the only ones that are refused under overload.
fn tells_something(bytes: &[u8]) -> bool {
    datagram::parse(datagram::split(bytes).1).is_ok_and(|datagram| datagram.event != Kind::Beat)
}
