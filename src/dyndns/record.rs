//! The DNS records of one host: which addresses they should hold, which they hold, and when to update
//! them; with their row in the store. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::method::{DnsServer, Provider, UpdateError, UpdateMethod, UpdateRequest};
use super::names::{self, RecordFamily};
use super::settings::{DyndnsEntry, UpdateTiming};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind};
use crate::view::{DnsRecordView, DyndnsState, DyndnsView, FailureView};

/// The longest pause between two attempts after failures that may pass.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30 * 60);
/// The pause after an error that the provider counts as abuse.
const FORBIDDEN_RETRY_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// An update that is to be attempted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateAttempt {
    /// The name and its addresses.
    pub request: UpdateRequest,
    /// How to update them.
    pub entry: DyndnsEntry,
    /// Whether to query the zone first: it may hold the addresses already.
    pub check_first: bool,
}

/// The result of a successful attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateResult {
    /// The addresses that were written.
    pub written: Vec<IpAddr>,
    /// The addresses that the zone held already.
    pub unchanged: Vec<IpAddr>,
}

/// The records of a host.
///
/// Each address family goes through these states:
///
/// ```text
///  address_seen           settled              written, or found in the zone
/// --------------> pending --------> to write ---------------------------------> up to date
///                    ^                 |   ^                                         |
///                    |                 +---+ failure: after a pause                  |
///                    +-------------------- another address is seen ------------------+
/// ```
#[derive(Debug)]
pub struct DnsRecord {
    host: String,
    entry: DyndnsEntry,
    /// The addresses seen since the start, by family and index among the connections.
    seen_addresses: BTreeMap<(RecordFamily, usize), IpAddr>,
    families: BTreeMap<RecordFamily, FamilyState>,
    failure: Option<UpdateFailure>,
    /// How many attempts failed in a row.
    failures: u32,
    not_before: Mono,
    /// Until when the provider must not be asked, as it is stored.
    held_until: Option<Wall>,
    dirty: bool,
}

/// The state of the record of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FamilyState {
    /// An address that has not settled yet, and since when it is seen.
    pending: Option<(IpAddr, Mono)>,
    /// The address that the record should hold.
    wanted: Option<IpAddr>,
    /// The address that it holds, as far as is known, and when we wrote it.
    written: Option<(IpAddr, Option<Wall>)>,
    /// It is not written again before this time.
    not_before: Mono,
    /// Whether the host was seen at `wanted` since the start.
    confirmed: bool,
    /// Whether the zone was compared with `wanted` since the start.
    verified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UpdateFailure {
    since: Now,
    at: Wall,
    error: UpdateError,
    reported: bool,
}

impl FamilyState {
    fn is_up_to_date(&self) -> bool {
        self.wanted.is_some() && self.written.map(|(address, _)| address) == self.wanted
    }

    /// The address that must be written; none when the record is up to date or not settled.
    fn address_to_write(&self) -> Option<IpAddr> {
        let resting = self.is_up_to_date() && (self.verified || !self.confirmed);
        self.wanted.filter(|_| self.pending.is_none() && !resting)
    }
}

impl DnsRecord {
    /// Records of which nothing is known yet.
    pub fn new(host: &str, entry: DyndnsEntry) -> DnsRecord {
        DnsRecord {
            host: host.to_owned(),
            entry,
            seen_addresses: BTreeMap::new(),
            families: BTreeMap::new(),
            failure: None,
            failures: 0,
            not_before: Mono(i64::MIN),
            held_until: None,
            dirty: false,
        }
    }

    /// Restores the records from their row. If the configuration has changed, the pause that the
    /// provider demanded is over.
    pub fn restore(host: &str, entry: DyndnsEntry, row: DyndnsRow, now: Now) -> DnsRecord {
        let same = row.fingerprint == fingerprint(&entry);
        let same_place = row.name == entry.name && row.place == entry.method.server_label();
        let mut record = DnsRecord::new(host, entry);
        for (family, stored) in row.records {
            let sent = stored.sent.filter(|_| same_place);
            let rested = stored.at.map_or(Duration::MAX, |at| now.wall.since(at));
            let left = record.entry.timing.min_interval.saturating_sub(rested);
            let state = FamilyState {
                wanted: stored.wanted,
                written: sent.map(|sent| (sent, stored.at)),
                not_before: now.mono + left,
                ..FamilyState::default()
            };
            record.families.insert(family, state);
        }
        record.failure = row.failure.map(|failure| {
            let age = now.wall.since(failure.since);
            let since = Now { mono: now.mono - age, wall: failure.since };
            let error =
                if failure.refused { UpdateError::Refused } else { UpdateError::Unreachable };
            UpdateFailure {
                since,
                at: failure.at,
                error: error(failure.why),
                reported: failure.told,
            }
        });
        if let Some(until) = row.held_until.filter(|until| same && *until > now.wall) {
            // Bounded, since the stored time may come from a wrong clock.
            record.not_before = now.mono + until.since(now.wall).min(FORBIDDEN_RETRY_PAUSE);
            record.held_until = Some(until);
        }
        record.dirty = !same;
        record.drop_other_families();
        record
    }

    /// Applies another configuration.
    pub fn reconfigure(&mut self, entry: DyndnsEntry, now: Now) {
        if entry == self.entry {
            return;
        }
        if (&entry.name, entry.method.server_label())
            != (&self.entry.name, self.entry.method.server_label())
        {
            self.families.values_mut().for_each(|state| state.written = None);
        }
        if entry.method != self.entry.method || entry.name != self.entry.name {
            self.families.values_mut().for_each(|state| state.verified = false);
            (self.not_before, self.held_until, self.failures) = (now.mono, None, 0);
        }
        if entry.connections != self.entry.connections {
            self.seen_addresses.clear();
        }
        self.entry = entry;
        self.drop_other_families();
        self.dirty = true;
    }

    /// Drops the records of families that the method does not update.
    fn drop_other_families(&mut self) {
        let families = self.entry.method.families();
        self.families.retain(|family, _| families.contains(family));
    }

    /// A verified, signed datagram came over `connection` from `address`.
    ///
    /// # Errors
    /// Why that address does not count.
    pub fn address_seen(
        &mut self,
        connection: &str,
        address: IpAddr,
        now: Now,
    ) -> Result<(), &'static str> {
        let address = address.to_canonical();
        let family = RecordFamily::of(address);
        let index = self.entry.connections.iter().position(|name| name == connection);
        let index = index.ok_or("its connection is not among the connections of dyndns")?;
        if !self.entry.method.families().contains(&family) {
            return Err("the url has no place for addresses of this family");
        }
        if address.is_unspecified() || address.is_multicast() {
            return Err("it is no address of a host");
        }
        if !self.entry.allow_private && !names::is_public(address) {
            return Err("it is private, and allow_private is not set");
        }
        self.seen_addresses.insert((family, index), address);
        let mut known = self.seen_addresses.range((family, 0)..=(family, usize::MAX));
        let (_, first) = known.next().expect("one was just put in");
        let (first, asks) = (*first, matches!(self.entry.method, UpdateMethod::Rfc2136(_)));
        let state = self.families.entry(family).or_default();
        if state.wanted == Some(first) {
            (state.pending, state.confirmed) = (None, true);
            // A provider cannot be queried: a request always counts as an update.
            state.verified |= state.is_up_to_date() && !asks;
        } else if state.pending.is_none_or(|(pending, _)| pending != first) {
            state.pending = Some((first, now.mono));
        }
        Ok(())
    }

    /// The attempt that is due, once the addresses that have settled are taken over.
    pub fn due_attempt(&mut self, now: Now) -> Option<UpdateAttempt> {
        for state in self.families.values_mut() {
            if let Some((address, since)) = state.pending
                && now.mono >= since + self.entry.timing.settle
            {
                state.wanted = Some(address);
                (state.pending, state.confirmed) = (None, true);
                self.dirty = true;
            }
        }
        if now.mono < self.not_before {
            return None;
        }
        let open = |state: &&FamilyState| state.not_before <= now.mono;
        let due = self.families.values().filter(open).filter_map(FamilyState::address_to_write);
        let at_once = if self.entry.method.updates_both_families() { usize::MAX } else { 1 };
        let addresses: Vec<IpAddr> = due.take(at_once).collect();
        if addresses.is_empty() {
            return None;
        }
        let known = self.families.values().filter_map(|state| state.wanted).collect();
        let (host, name) = (self.host.clone(), self.entry.name.clone());
        let unverified =
            |state: &FamilyState| state.address_to_write().is_some() && !state.verified;
        Some(UpdateAttempt {
            request: UpdateRequest { host, name, addresses, known },
            entry: self.entry.clone(),
            check_first: self.families.values().any(unverified),
        })
    }

    /// Takes in the outcome of an attempt.
    pub fn complete(
        &mut self,
        attempt: &UpdateAttempt,
        outcome: Result<UpdateResult, UpdateError>,
        now: Now,
    ) {
        if attempt.entry.method != self.entry.method || attempt.entry.name != self.entry.name {
            // The configuration has changed meanwhile: the next attempt follows it.
            return;
        }
        match outcome {
            Ok(result) => self.on_success(&result, now),
            Err(error) => self.on_failure(error, now),
        }
    }

    fn on_success(&mut self, result: &UpdateResult, now: Now) {
        (self.failures, self.not_before, self.held_until) = (0, now.mono, None);
        for address in result.unchanged.iter().chain(&result.written) {
            let state = self.families.entry(RecordFamily::of(*address)).or_default();
            let written = result.written.contains(address);
            let known = state.written.filter(|(sent, _)| sent == address).and_then(|(_, at)| at);
            let now_written = Some((*address, if written { Some(now.wall) } else { known }));
            self.dirty |= state.written != now_written;
            state.written = now_written;
            state.verified = true;
            if written {
                state.not_before = now.mono + self.entry.timing.min_interval;
            }
        }
    }

    fn on_failure(&mut self, error: UpdateError, now: Now) {
        self.failures += 1;
        let backoff = self.backoff();
        let (pause, held) = match &error {
            UpdateError::Unreachable(_) => (backoff, false),
            UpdateError::Refused(_) => match self.entry.method {
                UpdateMethod::Rfc2136(_) => (backoff, false),
                UpdateMethod::Http(_) => (backoff.max(MAX_RETRY_PAUSE), true),
            },
            UpdateError::Busy(_, least) => (backoff.max(*least), true),
            UpdateError::Forbidden(_) => (FORBIDDEN_RETRY_PAUSE, true),
        };
        self.not_before = now.mono + pause;
        self.held_until = held.then_some(now.wall + pause);
        let known = self.failure.take();
        self.dirty |= held || known.as_ref().is_none_or(|known| known.error != error);
        let (since, reported) = known.map_or((now, false), |known| (known.since, known.reported));
        self.failure = Some(UpdateFailure { since, at: now.wall, error, reported });
    }

    /// The pause after this many failures: doubled with each of them, with jitter by the name, so that
    /// not all names are retried at once.
    fn backoff(&self) -> Duration {
        let retry = self.entry.timing.retry;
        let doubled = retry.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(self.failures);
        for byte in self.entry.name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let share = 0.8 + (hash >> 40) as f64 / (1_u64 << 24) as f64 * 0.4;
        doubled.min(MAX_RETRY_PAUSE.max(retry)).mul_f64(share)
    }

    /// The event that is to be reported: a failure that lasts or needs a repair, or its end.
    pub fn take_event(&mut self, now: Now) -> Option<Event> {
        let rests = |state: &FamilyState| {
            state.is_up_to_date() && state.pending.is_none() && state.address_to_write().is_none()
        };
        let all_well =
            self.families.values().all(rests) && self.families.values().any(|state| state.verified);
        let (host, name) = (self.host.clone(), self.entry.name.clone());
        let failure = self.failure.as_mut()?;
        if all_well {
            let failed_for = now.mono.since(failure.since.mono);
            let reported = failure.reported;
            (self.failure, self.failures, self.dirty) = (None, 0, true);
            let kind = EventKind::DyndnsKept { host, name, failed_for };
            return reported.then_some(Event::new(now.wall, kind));
        }
        let needs_repair =
            matches!(failure.error, UpdateError::Refused(_) | UpdateError::Forbidden(_));
        let lasting = now.mono >= failure.since.mono + self.entry.timing.report_after;
        if failure.reported || !(needs_repair || lasting) {
            return None;
        }
        (failure.reported, self.dirty) = (true, true);
        let kind = EventKind::DyndnsFails { host, name, why: failure.error.why().to_owned() };
        Some(Event::new(now.wall, kind))
    }

    /// When [`DnsRecord::due_attempt`] or [`DnsRecord::take_event`] may have a result; none when only
    /// another address can change anything.
    pub fn next_wakeup(&self) -> Option<Mono> {
        let unreported = self.failure.iter().filter(|failure| !failure.reported);
        let unreported =
            unreported.map(|failure| failure.since.mono + self.entry.timing.report_after);
        self.next_attempt().into_iter().chain(unreported).min()
    }

    /// The time of the next attempt; none when nothing has to be written.
    pub fn next_attempt(&self) -> Option<Mono> {
        let settled = self.families.values().filter_map(|state| {
            let (_, since) = state.pending?;
            Some(since + self.entry.timing.settle)
        });
        let due = self.families.values().filter(|state| state.address_to_write().is_some());
        let due = due.map(|state| state.not_before.max(self.not_before));
        settled.chain(due).min()
    }

    /// The row, when it has changed since the last call.
    pub fn take_changed_row(&mut self) -> Option<DyndnsRow> {
        std::mem::take(&mut self.dirty).then(|| self.row())
    }

    /// How many attempts failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The row. An address that has not settled is not in it: it settles after the next start.
    pub fn row(&self) -> DyndnsRow {
        let record = |state: &FamilyState| FamilyRow {
            wanted: state.wanted,
            sent: state.written.map(|(address, _)| address),
            at: state.written.and_then(|(_, at)| at),
        };
        DyndnsRow {
            name: self.entry.name.clone(),
            place: self.entry.method.server_label(),
            fingerprint: fingerprint(&self.entry),
            records: self
                .families
                .iter()
                .map(|(family, state)| (*family, record(state)))
                .insert_all(),
            failure: self.failure.as_ref().map(|failure| FailureRow {
                since: failure.since.wall,
                at: failure.at,
                why: failure.error.why().to_owned(),
                refused: matches!(
                    failure.error,
                    UpdateError::Refused(_) | UpdateError::Forbidden(_)
                ),
                told: failure.reported,
            }),
            held_until: self.held_until,
        }
    }

    /// The records as the API and the page show them.
    pub fn view(&self, now: Now) -> DyndnsView {
        let waits = self
            .families
            .values()
            .any(|state| state.pending.is_some() || state.address_to_write().is_some());
        let state = match &self.failure {
            Some(UpdateFailure {
                error: UpdateError::Refused(_) | UpdateError::Forbidden(_),
                ..
            }) => DyndnsState::Refused,
            Some(_) => DyndnsState::Failing,
            None if self.families.is_empty() => DyndnsState::Unknown,
            None if waits => DyndnsState::Waiting,
            None => DyndnsState::Kept,
        };
        let record = |(family, state): (&RecordFamily, &FamilyState)| DnsRecordView {
            record: family.record(),
            address: state.pending.map(|(address, _)| address).or(state.wanted),
            written: state.written.map(|(address, _)| address),
            last_update: state.written.and_then(|(_, at)| at),
        };
        DyndnsView {
            host: self.host.clone(),
            name: self.entry.name.clone(),
            method: self.entry.method.name(),
            server: self.entry.method.server_label(),
            state,
            records: self.families.iter().map(record).collect(),
            failing_since: self.failure.as_ref().map(|failure| failure.since.wall),
            last_failure: self.failure.as_ref().map(|failure| FailureView {
                at: Some(failure.at),
                why: failure.error.why().to_owned(),
            }),
            next_attempt: self.next_attempt().map(|at| now.wall + at.since(now.mono)),
        }
    }
}

/// The stored row of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DyndnsRow {
    /// The name in the DNS.
    pub name: String,
    /// The label of the server or provider that it was written to.
    pub place: String,
    /// The `fingerprint` of the configuration.
    pub fingerprint: String,
    /// The record of each family.
    pub records: BTreeMap<RecordFamily, FamilyRow>,
    /// The failure that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureRow>,
    /// Until when the provider must not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Wall>,
}

/// The record of one family in a stored row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FamilyRow {
    /// The address that it should hold.
    pub wanted: Option<IpAddr>,
    /// The address that it holds.
    pub sent: Option<IpAddr>,
    /// When we wrote it, if we did.
    pub at: Option<Wall>,
}

/// A failure that goes on, in a stored row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureRow {
    /// Since when.
    pub since: Wall,
    /// When the last attempt failed.
    pub at: Wall,
    /// Why.
    pub why: String,
    /// Whether it needs a repair.
    pub refused: bool,
    /// Whether it was reported.
    pub told: bool,
}

/// Identifies the configuration of a name, its secrets included, without holding them.
///
/// Part of the format of stored rows: the hashed text keeps the type and field names of the first
/// version, so that an update of the program does not look like another configuration.
fn fingerprint(entry: &DyndnsEntry) -> String {
    let DyndnsEntry { name, connections, allow_private, timing, method } = entry;
    let UpdateTiming { settle, retry, min_interval, report_after } = timing;
    let (method, secrets) = match method {
        UpdateMethod::Rfc2136(server) => (text_of_server(server), vec![&server.key]),
        UpdateMethod::Http(provider) => {
            let secrets = provider.password.iter().chain([&provider.url]);
            (text_of_provider(provider), secrets.collect())
        }
    };
    let mut text = format!(
        "Entry {{ name: {name:?}, connections: {connections:?}, allow_private: {allow_private:?}, \
         pace: Pace {{ settle: {settle:?}, retry: {retry:?}, min_interval: {min_interval:?}, \
         report_after: {report_after:?} }}, method: {method} }}"
    );
    for secret in secrets {
        // Writing to a text cannot fail.
        let _ = write!(text, "\0{}", secret.reveal());
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    crate::escape::hex(&digest.as_ref()[..8])
}

fn text_of_server(server: &DnsServer) -> String {
    let DnsServer { server, port, zone, ttl, key_name, key, algorithm } = server;
    format!(
        "Rfc2136(Server {{ server: {server:?}, port: {port:?}, zone: {zone:?}, ttl: {ttl:?}, \
         key_name: {key_name:?}, key: {key:?}, algorithm: {algorithm:?} }})"
    )
}

fn text_of_provider(provider: &Provider) -> String {
    let Provider { url, user, password, expect, refuse, ca_file } = provider;
    let refused = if refuse.is_empty() { String::new() } else { format!(", refuse: {refuse:?}") };
    format!(
        "Http(Provider {{ url: {url:?}, user: {user:?}, password: {password:?}, \
         expect: {expect:?}, ca_file: {ca_file:?}{refused} }})"
    )
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
