//! The thread that keeps DNS records up to date: takes in the addresses that hosts were seen at,
//! writes those that have settled, and reports what fails.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use log::{debug, info, warn};

use super::attempt;
use super::method::UpdateError;
use super::names::RecordFamily;
use super::record::{DnsRecord, DyndnsRow, UpdateAttempt, UpdateResult};
use super::settings::DyndnsEntry;
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, format_duration};
use crate::event::{Event, Incident};
use crate::store::change::{Change, ChangeSink};
use crate::store::{Table, Write};
use crate::thread::{Stop, lock};
use crate::view::DyndnsView;

/// How many addresses wait to be logged while an update takes its time; beyond this they are not
/// logged.
const MAX_UNLOGGED: usize = 1000;

/// How often it is asked again whether records may be written.
const PERMIT_WAIT: Duration = Duration::from_millis(250);

/// The hosts whose names are kept up to date.
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
    /// The server or provider that it was written to.
    pub server: String,
    /// How many attempts it took.
    pub attempts: u32,
}

/// Called for every record that was written, under the lock of the updater.
pub type OnRecordWritten = Box<dyn Fn(RecordWritten, Now) + Send + Sync>;

/// The records of all hosts, and the state that their thread shares with the rest of the daemon.
pub struct Updater {
    state: Mutex<UpdaterState>,
    wake: (Sender<()>, Receiver<()>),
    sink: ChangeSink,
    on_written: OnRecordWritten,
}

#[derive(Default)]
struct UpdaterState {
    records: BTreeMap<String, DnsRecord>,
    /// Servers that did not answer or demanded a pause: until when no other name is tried there, and
    /// why.
    unavailable: BTreeMap<String, (Mono, UpdateError)>,
    /// Addresses that were seen and are not in the log yet.
    unlogged: Vec<AddressSeen>,
    closed: bool,
}

/// An address that was seen, and why it is not for the DNS where it is not.
struct AddressSeen {
    host: String,
    connection: String,
    address: IpAddr,
    result: Result<(), &'static str>,
}

impl Updater {
    /// Restores the records from their rows. Rows of other hosts are removed.
    pub fn new(
        entries: DyndnsEntries,
        rows: Vec<(String, DyndnsRow)>,
        sink: ChangeSink,
        on_written: OnRecordWritten,
        now: Now,
    ) -> Updater {
        let mut rows: BTreeMap<String, DyndnsRow> = rows.into_iter().insert_all();
        let records = entries.into_iter().map(|(host, entry)| {
            let record = match rows.remove(&host) {
                Some(row) => DnsRecord::restore(&host, entry, row, now),
                None => DnsRecord::new(&host, entry),
            };
            (host, record)
        });
        let state = UpdaterState { records: records.insert_all(), ..UpdaterState::default() };
        let updater = Updater { state: Mutex::new(state), wake: bounded(1), sink, on_written };
        updater.remove_hosts(rows.into_keys().collect());
        updater
    }

    fn wake(&self) {
        // If the channel is full, the thread is about to wake anyway.
        let _ = self.wake.0.try_send(());
    }

    fn remove_hosts(&self, hosts: Vec<String>) {
        if hosts.is_empty() {
            return;
        }
        (self.sink)(Change {
            writes: hosts.iter().map(|host| Write::remove(Table::Dyndns, host.clone())).collect(),
            closed_silently: hosts.into_iter().map(|host| Incident::Dyndns { host }).collect(),
            ..Change::default()
        });
    }

    /// A verified, signed datagram of a host came from another address than those before it. Only
    /// takes note: the thread of the monitor goes on with the next datagram.
    pub fn address_changed(&self, host: &str, connection: &str, address: IpAddr, now: Now) {
        let mut state = lock(&self.state);
        let Some(record) = state.records.get_mut(host) else { return };
        let result = record.address_seen(connection, address, now);
        if state.unlogged.len() < MAX_UNLOGGED {
            let (host, connection) = (host.to_owned(), connection.to_owned());
            state.unlogged.push(AddressSeen { host, connection, address, result });
        }
        drop(state);
        self.wake();
    }

    /// Logs the addresses that were seen since the last call; outside of the locks under which they
    /// were seen, since the log may block.
    fn log_addresses(&self) {
        let unlogged = std::mem::take(&mut lock(&self.state).unlogged);
        for AddressSeen { host, connection, address, result } in unlogged {
            match result {
                Ok(()) => debug!("{host} {connection} is at {address}"),
                Err(why) => info!("{host} {connection} is at {address}: not for the DNS, {why}"),
            }
        }
    }

    /// Applies another configuration. What the DNS holds of hosts that are no longer in it stays.
    pub fn reconfigure(&self, entries: DyndnsEntries) {
        let now = Now::read();
        let mut state = lock(&self.state);
        state.unavailable.clear();
        let mut old = std::mem::take(&mut state.records);
        for (host, entry) in entries {
            let record = match old.remove(&host) {
                Some(mut record) => {
                    record.reconfigure(entry, now);
                    record
                }
                None => DnsRecord::new(&host, entry),
            };
            state.records.insert(host, record);
        }
        drop(state);
        self.remove_hosts(old.into_keys().collect());
        self.wake();
    }

    /// The state of every record, by host.
    pub fn views(&self) -> Vec<DyndnsView> {
        let now = Now::read();
        lock(&self.state).records.values().map(|record| record.view(now)).collect()
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        lock(&self.state).records.iter().map(|(host, record)| row(host, &record.row())).collect()
    }

    /// Hands all changes to the store; later outcomes are dropped.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.store_changes(&mut state, Vec::new());
        drop(state);
        self.log_addresses();
    }

    /// Writes records until the stop, while `may_write` says that this process may.
    pub fn run(&self, may_write: &dyn Fn() -> bool, stop: &Stop) {
        while !stop.stopped() {
            self.log_addresses();
            if !may_write() {
                if stop.wait(PERMIT_WAIT) {
                    return;
                }
                continue;
            }
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

    /// The attempt that is due, if any, and when to look again.
    fn next_action(&self, now: Now) -> (Option<UpdateAttempt>, Option<Mono>) {
        let mut state = lock(&self.state);
        if state.closed {
            return (None, None);
        }
        let attempt = state.records.values_mut().find_map(|record| record.due_attempt(now));
        let events =
            state.records.values_mut().filter_map(|record| record.take_event(now)).collect();
        let next = state.records.values().filter_map(DnsRecord::next_wakeup).min();
        self.store_changes(&mut state, events);
        (attempt, next)
    }

    fn perform(&self, attempt: &UpdateAttempt) -> Result<UpdateResult, UpdateError> {
        let server = attempt.entry.method.server_label();
        let unavailable = lock(&self.state).unavailable.get(&server).cloned();
        let now = Now::read().mono;
        if let Some((until, error)) = unavailable.filter(|(until, _)| now < *until) {
            // The same server has just failed for another name.
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
        let unavailable = &mut lock(&self.state).unavailable;
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
        let Some(next) = self.record_outcome(attempt, outcome.clone(), now) else { return };
        let name = &attempt.request.name;
        // Logged after the unlock: the log may block.
        match outcome {
            Ok(result) => log_success(attempt, &result),
            Err(error) => warn!("{name} cannot be updated: {}", error.why()),
        }
        if let Some(next) = next {
            info!("{name} is tried again in {}", format_duration(next.since(now.mono)));
        }
    }

    /// Stores the outcome of an attempt, and the event that follows from it. Gives the time of the
    /// next attempt after a failure; none at all when the name is no longer kept up to date.
    fn record_outcome(
        &self,
        attempt: &UpdateAttempt,
        outcome: Result<UpdateResult, UpdateError>,
        now: Now,
    ) -> Option<Option<Mono>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        let record = state.records.get_mut(&attempt.request.host)?;
        let attempts = record.failures() + 1;
        if let Ok(result) = &outcome {
            self.notify_written(attempt, result, attempts, now);
        }
        let failed = outcome.is_err();
        record.complete(attempt, outcome, now);
        let next = record.next_attempt().filter(|_| failed);
        let events = record.take_event(now).into_iter().collect();
        self.store_changes(&mut state, events);
        Some(next)
    }

    fn notify_written(
        &self,
        attempt: &UpdateAttempt,
        result: &UpdateResult,
        attempts: u32,
        now: Now,
    ) {
        for address in &result.written {
            let (host, name) = (attempt.request.host.clone(), attempt.request.name.clone());
            let server = attempt.entry.method.server_label();
            let written = RecordWritten { host, name, address: *address, server, attempts };
            (self.on_written)(written, now);
        }
    }

    /// To be called under the lock, so that changes are stored in their order.
    fn store_changes(&self, state: &mut UpdaterState, events: Vec<Event>) {
        let changed = state.records.iter_mut();
        let writes: Vec<Write> = changed
            .filter_map(|(host, record)| Some(row(host, &record.take_changed_row()?)))
            .collect();
        if !writes.is_empty() || !events.is_empty() {
            (self.sink)(Change { writes, events, ..Change::default() });
        }
    }
}

fn log_success(attempt: &UpdateAttempt, result: &UpdateResult) {
    let (name, server) = (&attempt.request.name, attempt.entry.method.server_label());
    for address in &result.unchanged {
        let kind = RecordFamily::of(*address).record();
        info!("{name} {kind} is {address} already, as {server} says");
    }
    for address in &result.written {
        let kind = RecordFamily::of(*address).record();
        info!("{name} {kind} is {address} now, written to {server}");
    }
}

fn row(host: &str, row: &DyndnsRow) -> Write {
    Write::put(Table::Dyndns, host, row)
}
