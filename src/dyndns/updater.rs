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
    pub server: String,
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
    records: BTreeMap<String, DnsRecord>,
    /// Places that did not answer, or want to be left alone: until when their other names are not
    /// tried, and why.
    unavailable: BTreeMap<String, (Mono, UpdateError)>,
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
        let records = entries.into_iter().map(|(host, entry)| {
            let record = match rows.remove(&host) {
                Some(row) => DnsRecord::restore(&host, entry, row, now),
                None => DnsRecord::new(&host, entry),
            };
            (host, record)
        });
        let inner = UpdaterState { records: records.collect(), ..UpdaterState::default() };
        let keeper = Updater { inner: Mutex::new(inner), wake: bounded(1), sink, on_written };
        keeper.remove_hosts(rows.into_keys().collect());
        keeper
    }

    fn lock(&self) -> MutexGuard<'_, UpdaterState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // One that waits already is enough.
        let _ = self.wake.0.try_send(());
    }

    fn remove_hosts(&self, hosts: Vec<String>) {
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
    pub fn address_changed(&self, host: &str, connection: &str, address: IpAddr, now: Now) {
        let mut inner = self.lock();
        let Some(record) = inner.records.get_mut(host) else { return };
        match record.address_seen(connection, address, now) {
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
        inner.unavailable.clear();
        let mut old = std::mem::take(&mut inner.records);
        for (host, entry) in entries {
            let record = match old.remove(&host) {
                Some(mut record) => {
                    record.reconfigure(entry, now);
                    record
                }
                None => DnsRecord::new(&host, entry),
            };
            inner.records.insert(host, record);
        }
        drop(inner);
        self.remove_hosts(old.into_keys().collect());
        self.wake();
    }

    /// How every name stands, by host.
    pub fn views(&self) -> Vec<DyndnsView> {
        let now = Now::read();
        self.lock().records.values().map(|record| record.view(now)).collect()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        self.lock().records.iter().map(|(host, record)| row(host, &record.row())).collect()
    }

    /// Ends it: what is known is on its way to the store.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.store_changes(&mut inner, Vec::new());
    }

    /// Keeps the names until the stop.
    pub fn run(&self, stop: &Stop) {
        while !stop.stopped() {
            let now = Now::read();
            let (attempt, next) = self.next_action(now);
            if let Some(attempt) = attempt {
                let outcome = self.perform(&attempt);
                self.complete(&attempt, outcome);
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
    fn next_action(&self, now: Now) -> (Option<UpdateAttempt>, Option<Mono>) {
        let mut inner = self.lock();
        if inner.closed {
            return (None, None);
        }
        let attempt = inner.records.values_mut().find_map(|record| record.due_attempt(now));
        let events =
            inner.records.values_mut().filter_map(|record| record.take_event(now)).collect();
        let next = inner.records.values().filter_map(DnsRecord::next_wakeup).min();
        self.store_changes(&mut inner, events);
        (attempt, next)
    }

    fn perform(&self, attempt: &UpdateAttempt) -> Result<UpdateResult, UpdateError> {
        let server = attempt.entry.method.server_label();
        let unavailable = self.lock().unavailable.get(&server).cloned();
        let now = Now::read().mono;
        if let Some((until, error)) = unavailable.filter(|(until, _)| now < *until) {
            // Another name was just told so, or waited in vain, by the same server.
            return Err(match error {
                UpdateError::Busy(why, _) => UpdateError::Busy(why, until.since(now)),
                error => error,
            });
        }
        let outcome = attempt::perform(attempt);
        let pause = match &outcome {
            Err(UpdateError::Unreachable(_)) => Some(attempt.entry.timing.retry / 2),
            Err(UpdateError::Busy(_, pause)) => Some(*pause),
            Err(UpdateError::Refused(_) | UpdateError::Forbidden(_)) | Ok(_) => None,
        };
        let unavailable = &mut self.lock().unavailable;
        match (pause, &outcome) {
            (Some(pause), Err(error)) => {
                unavailable.insert(server, (Now::read().mono + pause, error.clone()));
            }
            _ => drop(unavailable.remove(&server)),
        }
        outcome
    }

    fn complete(&self, attempt: &UpdateAttempt, outcome: Result<UpdateResult, UpdateError>) {
        let now = Now::read();
        let request = &attempt.request;
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        let Some(record) = inner.records.get_mut(&request.host) else { return };
        let attempts = record.failures() + 1;
        match &outcome {
            Ok(result) => self.log_success(attempt, result, attempts, now),
            Err(error) => warn!("{} cannot be updated: {}", request.name, error.why()),
        }
        let failed = outcome.is_err();
        record.complete(attempt, outcome, now);
        if let Some(next) = record.next_attempt().filter(|_| failed) {
            info!("{} is tried again in {}", request.name, words(next.since(now.mono)));
        }
        let events = record.take_event(now).into_iter().collect();
        self.store_changes(&mut inner, events);
    }

    fn log_success(&self, attempt: &UpdateAttempt, result: &UpdateResult, attempts: u32, now: Now) {
        let (request, server) = (&attempt.request, attempt.entry.method.server_label());
        for address in &result.unchanged {
            let kind = RecordFamily::of(*address).record();
            info!("{} {kind} is {address} already, as {server} says", request.name);
        }
        for address in &result.written {
            let kind = RecordFamily::of(*address).record();
            info!("{} {kind} is {address} now, written to {server}", request.name);
            let (host, name) = (request.host.clone(), request.name.clone());
            let written =
                RecordWritten { host, name, address: *address, server: server.clone(), attempts };
            (self.on_written)(written, now);
        }
    }

    /// Under the lock: what changed first must be stored first.
    fn store_changes(&self, inner: &mut UpdaterState, events: Vec<Event>) {
        let changed = inner.records.iter_mut();
        let writes: Vec<Write> = changed
            .filter_map(|(host, record)| Some(row(host, &record.take_changed_row()?)))
            .collect();
        if !writes.is_empty() || !events.is_empty() {
            (self.sink)(Change { writes, events, ..Change::default() });
        }
    }
}

fn row(host: &str, row: &DyndnsRow) -> Write {
    Write::put(Table::Dyndns, host, row)
}
