//! The thread that keeps the names: it hears where hosts are, waits until that has proven itself,
//! writes it, and tells people when it cannot.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use log::{debug, info, warn};

use super::attempt;
use super::method::UpdateError;
use super::names::RecordFamily;
use super::record::DyndnsRow;
use super::record::{DnsRecord, UpdateAttempt, UpdateResult};
use super::settings::DyndnsEntry;
use crate::clock::{Mono, Now, words};
use crate::event::{Event, Incident};
use crate::store::change::{Change, ChangeSink};
use crate::store::{Table, Write};
use crate::thread::Stop;
use crate::view::DyndnsView;

/// The hosts whose names are kept.
pub type DyndnsEntries = BTreeMap<String, DyndnsEntry>;

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordWritten {
    /// The host.
    pub host: String,
    /// Its name in the DNS.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// Where it was written to.
    pub place: String,
    /// How many attempts it took.
    pub attempts: u32,
}

/// Told of every record that was written.
pub type OnRecordWritten = Box<dyn Fn(RecordWritten, Now) + Send + Sync>;

/// The names, as everybody asks for them.
pub struct Updater {
    inner: Mutex<UpdaterState>,
    wake: (Sender<()>, Receiver<()>),
    sink: ChangeSink,
    on_written: OnRecordWritten,
}

#[derive(Default)]
struct UpdaterState {
    kept: BTreeMap<String, DnsRecord>,
    /// Places that did not answer, or want to be left alone: until when their other names are not
    /// tried, and why.
    silent: BTreeMap<String, (Mono, UpdateError)>,
    closed: bool,
}

impl Updater {
    /// Takes the names over as the store knew them. What it knows of others is removed.
    pub fn new(
        entries: DyndnsEntries,
        rows: Vec<(String, DyndnsRow)>,
        sink: ChangeSink,
        on_written: OnRecordWritten,
        now: Now,
    ) -> Updater {
        let mut rows: BTreeMap<String, DyndnsRow> = rows.into_iter().collect();
        let kept = entries.into_iter().map(|(host, entry)| {
            let kept = match rows.remove(&host) {
                Some(row) => DnsRecord::restore(&host, entry, row, now),
                None => DnsRecord::new(&host, entry),
            };
            (host, kept)
        });
        let inner = UpdaterState { kept: kept.collect(), ..UpdaterState::default() };
        let keeper = Updater { inner: Mutex::new(inner), wake: bounded(1), sink, on_written };
        keeper.forget(rows.into_keys().collect());
        keeper
    }

    fn lock(&self) -> MutexGuard<'_, UpdaterState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // One that waits already is enough.
        let _ = self.wake.0.try_send(());
    }

    fn forget(&self, hosts: Vec<String>) {
        if hosts.is_empty() {
            return;
        }
        (self.sink)(Change {
            writes: hosts.iter().map(|host| Write::remove(Table::Dyndns, host.clone())).collect(),
            forgotten: hosts.into_iter().map(|host| Incident::Dyndns { host }).collect(),
            ..Change::default()
        });
    }

    /// A believed, signed datagram of a host came from another address than those before it. It
    /// only takes note.
    pub fn hear(&self, host: &str, connection: &str, address: IpAddr, now: Now) {
        let mut inner = self.lock();
        let Some(kept) = inner.kept.get_mut(host) else { return };
        match kept.hear(connection, address, now) {
            Ok(()) => debug!("{host} {connection} is at {address}"),
            Err(why) => info!("{host} {connection} is at {address}: not for the DNS, {why}"),
        }
        drop(inner);
        self.wake();
    }

    /// Goes by a new configuration. The records of hosts that are no longer kept are left as they
    /// are.
    pub fn reconfigure(&self, entries: DyndnsEntries) {
        let now = Now::read();
        let mut inner = self.lock();
        inner.silent.clear();
        let mut old = std::mem::take(&mut inner.kept);
        for (host, entry) in entries {
            let kept = match old.remove(&host) {
                Some(mut kept) => {
                    kept.reconfigure(entry, now);
                    kept
                }
                None => DnsRecord::new(&host, entry),
            };
            inner.kept.insert(host, kept);
        }
        drop(inner);
        self.forget(old.into_keys().collect());
        self.wake();
    }

    /// How every name stands, by host.
    pub fn views(&self) -> Vec<DyndnsView> {
        let now = Now::read();
        self.lock().kept.values().map(|kept| kept.view(now)).collect()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        self.lock().kept.iter().map(|(host, kept)| row(host, &kept.row())).collect()
    }

    /// Ends it: what is known is on its way to the store.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.send(&mut inner, Vec::new());
    }

    /// Keeps the names until the stop.
    pub fn keep(&self, stop: &Stop) {
        while !stop.stopped() {
            let now = Now::read();
            let (attempt, next) = self.look(now);
            if let Some(attempt) = attempt {
                let outcome = self.make(&attempt);
                self.ended(&attempt, outcome);
                continue;
            }
            let due = next.map(|at| at.since(now.mono) + Duration::from_millis(1));
            let due = due.map_or(never(), after);
            select! {
                recv(self.wake.1) -> _ => {}
                recv(due) -> _ => {}
                recv(stop.receiver()) -> _ => return,
            }
        }
    }

    /// What is to be done now, else when to look again.
    fn look(&self, now: Now) -> (Option<UpdateAttempt>, Option<Mono>) {
        let mut inner = self.lock();
        if inner.closed {
            return (None, None);
        }
        let attempt = inner.kept.values_mut().find_map(|kept| kept.step(now));
        let events = inner.kept.values_mut().filter_map(|kept| kept.tell(now)).collect();
        let next = inner.kept.values().filter_map(DnsRecord::next).min();
        self.send(&mut inner, events);
        (attempt, next)
    }

    fn make(&self, attempt: &UpdateAttempt) -> Result<UpdateResult, UpdateError> {
        let place = attempt.entry.method.place();
        let silent = self.lock().silent.get(&place).cloned();
        let now = Now::read().mono;
        if let Some((until, bad)) = silent.filter(|(until, _)| now < *until) {
            // Another name was just told so, or waited in vain, by the same server.
            return Err(match bad {
                UpdateError::Busy(why, _) => UpdateError::Busy(why, until.since(now)),
                bad => bad,
            });
        }
        let outcome = attempt::make(attempt);
        let pause = match &outcome {
            Err(UpdateError::Unreachable(_)) => Some(attempt.entry.pace.retry / 2),
            Err(UpdateError::Busy(_, pause)) => Some(*pause),
            Err(UpdateError::Refused(_) | UpdateError::Forbidden(_)) | Ok(_) => None,
        };
        let silent = &mut self.lock().silent;
        match (pause, &outcome) {
            (Some(pause), Err(bad)) => {
                silent.insert(place, (Now::read().mono + pause, bad.clone()));
            }
            _ => drop(silent.remove(&place)),
        }
        outcome
    }

    fn ended(&self, attempt: &UpdateAttempt, outcome: Result<UpdateResult, UpdateError>) {
        let now = Now::read();
        let wish = &attempt.wish;
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        let Some(kept) = inner.kept.get_mut(&wish.host) else { return };
        let attempts = kept.failures() + 1;
        match &outcome {
            Ok(done) => self.tell(attempt, done, attempts, now),
            Err(bad) => warn!("{} cannot be updated: {}", wish.name, bad.why()),
        }
        let failed = outcome.is_err();
        kept.ended(attempt, outcome, now);
        if let Some(next) = kept.next_attempt().filter(|_| failed) {
            info!("{} is tried again in {}", wish.name, words(next.since(now.mono)));
        }
        let events = kept.tell(now).into_iter().collect();
        self.send(&mut inner, events);
    }

    fn tell(&self, attempt: &UpdateAttempt, done: &UpdateResult, attempts: u32, now: Now) {
        let (wish, place) = (&attempt.wish, attempt.entry.method.place());
        for address in &done.found {
            let kind = RecordFamily::of(*address).record();
            info!("{} {kind} is {address} already, as {place} says", wish.name);
        }
        for address in &done.written {
            let kind = RecordFamily::of(*address).record();
            info!("{} {kind} is {address} now, written to {place}", wish.name);
            let (host, name) = (wish.host.clone(), wish.name.clone());
            let written =
                RecordWritten { host, name, address: *address, place: place.clone(), attempts };
            (self.on_written)(written, now);
        }
    }

    /// Under the lock: what changed first must be stored first.
    fn send(&self, inner: &mut UpdaterState, events: Vec<Event>) {
        let changed = inner.kept.iter_mut();
        let writes: Vec<Write> =
            changed.filter_map(|(host, kept)| Some(row(host, &kept.take_row()?))).collect();
        if !writes.is_empty() || !events.is_empty() {
            (self.sink)(Change { writes, events, ..Change::default() });
        }
    }
}

fn row(host: &str, row: &DyndnsRow) -> Write {
    Write::put(Table::Dyndns, host, row)
}
