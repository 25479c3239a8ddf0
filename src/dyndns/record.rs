//! One name: which address it should have, which it has, and when to do something about it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::method::{UpdateError, UpdateMethod, UpdateRequest};
use super::names::{self, RecordFamily};
use super::settings::DyndnsEntry;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Level};
use crate::view::{DyndnsState, DyndnsView, DynrecordView, FailureView};

/// The longest pause between two attempts that may help.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// What a provider has forbidden is tried again after this time.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Something to do now, outside: nothing here waits for a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateAttempt {
    /// What is to be written.
    pub wish: UpdateRequest,
    /// How.
    pub entry: DyndnsEntry,
    /// Whether the zone may say so already, and is asked first.
    pub ask: bool,
}

/// What an attempt achieved: the records are as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateResult {
    /// Those that had to be written.
    pub written: Vec<IpAddr>,
    /// Those that were so already.
    pub found: Vec<IpAddr>,
}

/// A host whose name is kept.
#[derive(Debug)]
pub struct DnsRecord {
    host: String,
    entry: DyndnsEntry,
    /// What was heard since the start, by family and place among the connections.
    heard: BTreeMap<(RecordFamily, usize), IpAddr>,
    slots: BTreeMap<RecordFamily, FamilyState>,
    failure: Option<UpdateFailure>,
    /// How many attempts failed in a row.
    failures: u32,
    not_before: Mono,
    /// Until when a provider wants to be left alone.
    held_until: Option<Wall>,
    dirty: bool,
}

/// The records of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FamilyState {
    /// An address that has to prove itself first.
    coming: Option<(IpAddr, Mono)>,
    /// What the record should hold.
    wanted: Option<IpAddr>,
    /// What it holds, as far as is known, and when that was written by us.
    sent: Option<(IpAddr, Option<Wall>)>,
    /// Not before this it is written again.
    not_before: Mono,
    /// The host was heard from `wanted` since the start.
    heard: bool,
    /// What the zone says was compared with `wanted` since the start.
    checked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct UpdateFailure {
    since: Now,
    at: Wall,
    bad: UpdateError,
    told: bool,
}

impl FamilyState {
    fn in_place(&self) -> bool {
        self.wanted.is_some() && self.sent.map(|(address, _)| address) == self.wanted
    }

    /// The address to be written, where there is something to do.
    fn due(&self) -> Option<IpAddr> {
        let resting = self.in_place() && (self.checked || !self.heard);
        self.wanted.filter(|_| self.coming.is_none() && !resting)
    }
}

impl DnsRecord {
    /// A name of which nothing is known.
    pub fn new(host: &str, entry: DyndnsEntry) -> DnsRecord {
        DnsRecord {
            host: host.to_owned(),
            entry,
            heard: BTreeMap::new(),
            slots: BTreeMap::new(),
            failure: None,
            failures: 0,
            not_before: Mono(i64::MIN),
            held_until: None,
            dirty: false,
        }
    }

    /// A name as the store knew it. Another configuration lifts what a provider has forbidden.
    pub fn restore(host: &str, entry: DyndnsEntry, row: DyndnsRow, now: Now) -> DnsRecord {
        let same = row.fingerprint == fingerprint(&entry);
        let same_place = row.name == entry.name && row.place == entry.method.place();
        let mut kept = DnsRecord::new(host, entry);
        for (family, record) in row.records {
            let sent = record.sent.filter(|_| same_place);
            let rested = record.at.map_or(Duration::MAX, |at| now.wall.since(at));
            let left = kept.entry.pace.min_interval.saturating_sub(rested);
            let slot = FamilyState {
                wanted: record.wanted,
                sent: sent.map(|sent| (sent, record.at)),
                not_before: now.mono + left,
                ..FamilyState::default()
            };
            kept.slots.insert(family, slot);
        }
        kept.failure = row.failure.map(|failure| {
            let age = now.wall.since(failure.since);
            let since = Now { mono: now.mono - age, wall: failure.since };
            let bad = if failure.refused { UpdateError::Refused } else { UpdateError::Unreachable };
            UpdateFailure { since, at: failure.at, bad: bad(failure.why), told: failure.told }
        });
        if let Some(until) = row.held_until.filter(|until| same && *until > now.wall) {
            // A clock that was wrong must not hold it for ever.
            kept.not_before = now.mono + until.since(now.wall).min(FORBIDDEN_PAUSE);
            kept.held_until = Some(until);
        }
        kept.dirty = !same;
        kept.drop_strange_families();
        kept
    }

    /// Goes by a new configuration from now on.
    pub fn reconfigure(&mut self, entry: DyndnsEntry, now: Now) {
        if entry == self.entry {
            return;
        }
        if (&entry.name, entry.method.place()) != (&self.entry.name, self.entry.method.place()) {
            self.slots.values_mut().for_each(|slot| slot.sent = None);
        }
        if entry.method != self.entry.method || entry.name != self.entry.name {
            self.slots.values_mut().for_each(|slot| slot.checked = false);
            (self.not_before, self.held_until, self.failures) = (now.mono, None, 0);
        }
        if entry.connections != self.entry.connections {
            self.heard.clear();
        }
        self.entry = entry;
        self.drop_strange_families();
        self.dirty = true;
    }

    /// Another url may have no place for the addresses of a family.
    fn drop_strange_families(&mut self) {
        let families = self.entry.method.families();
        self.slots.retain(|family, _| families.contains(family));
    }

    /// A believed, signed datagram came over `connection` from `address`.
    ///
    /// # Errors
    /// Why that address does not count.
    pub fn hear(
        &mut self,
        connection: &str,
        address: IpAddr,
        now: Now,
    ) -> Result<(), &'static str> {
        let address = address.to_canonical();
        let family = RecordFamily::of(address);
        let place = self.entry.connections.iter().position(|name| name == connection);
        let place = place.ok_or("its connection is not among the connections of dyndns")?;
        if !self.entry.method.families().contains(&family) {
            return Err("the url has no place for addresses of this family");
        }
        if address.is_unspecified() || address.is_multicast() {
            return Err("it is no address of a host");
        }
        if !self.entry.allow_private && !names::is_public(address) {
            return Err("it is private, and allow_private is not set");
        }
        self.heard.insert((family, place), address);
        let mut known = self.heard.range((family, 0)..=(family, usize::MAX));
        let (_, first) = known.next().expect("one was just put in");
        let (first, asks) = (*first, matches!(self.entry.method, UpdateMethod::Rfc2136(_)));
        let slot = self.slots.entry(family).or_default();
        if slot.wanted == Some(first) {
            (slot.coming, slot.heard) = (None, true);
            // A provider is not asked what it holds: it would count that as an update.
            slot.checked |= slot.in_place() && !asks;
        } else if slot.coming.is_none_or(|(coming, _)| coming != first) {
            slot.coming = Some((first, now.mono));
        }
        Ok(())
    }

    /// What is to be done now, after the addresses that have proven themselves were taken over.
    pub fn step(&mut self, now: Now) -> Option<UpdateAttempt> {
        for slot in self.slots.values_mut() {
            if let Some((address, since)) = slot.coming
                && now.mono >= since + self.entry.pace.settle
            {
                slot.wanted = Some(address);
                (slot.coming, slot.heard) = (None, true);
                self.dirty = true;
            }
        }
        if now.mono < self.not_before {
            return None;
        }
        let open = |slot: &&FamilyState| slot.not_before <= now.mono;
        let due = self.slots.values().filter(open).filter_map(FamilyState::due);
        let at_once = if self.entry.method.joint() { usize::MAX } else { 1 };
        let addresses: Vec<IpAddr> = due.take(at_once).collect();
        if addresses.is_empty() {
            return None;
        }
        let known = self.slots.values().filter_map(|slot| slot.wanted).collect();
        let (host, name) = (self.host.clone(), self.entry.name.clone());
        let unasked = |slot: &FamilyState| slot.due().is_some() && !slot.checked;
        Some(UpdateAttempt {
            wish: UpdateRequest { host, name, addresses, known },
            entry: self.entry.clone(),
            ask: self.slots.values().any(unasked),
        })
    }

    /// An attempt has ended; what there is to tell.
    pub fn ended(
        &mut self,
        attempt: &UpdateAttempt,
        outcome: Result<UpdateResult, UpdateError>,
        now: Now,
    ) {
        if attempt.entry.method != self.entry.method || attempt.entry.name != self.entry.name {
            // What the configuration says meanwhile is done by the next one.
            return;
        }
        match outcome {
            Ok(done) => self.succeeded(&done, now),
            Err(bad) => self.failed(bad, now),
        }
    }

    fn succeeded(&mut self, done: &UpdateResult, now: Now) {
        (self.failures, self.not_before, self.held_until) = (0, now.mono, None);
        for address in done.found.iter().chain(&done.written) {
            let slot = self.slots.entry(RecordFamily::of(*address)).or_default();
            let written = done.written.contains(address);
            let known = slot.sent.filter(|(sent, _)| sent == address).and_then(|(_, at)| at);
            let sent = Some((*address, if written { Some(now.wall) } else { known }));
            self.dirty |= slot.sent != sent;
            slot.sent = sent;
            slot.checked = true;
            if written {
                slot.not_before = now.mono + self.entry.pace.min_interval;
            }
        }
    }

    fn failed(&mut self, bad: UpdateError, now: Now) {
        self.failures += 1;
        let usual = self.pause();
        let (pause, held) = match &bad {
            UpdateError::Unreachable(_) => (usual, false),
            UpdateError::Refused(_) => match self.entry.method {
                UpdateMethod::Rfc2136(_) => (usual, false),
                UpdateMethod::Http(_) => (usual.max(LONGEST_PAUSE), true),
            },
            UpdateError::Busy(_, least) => (usual.max(*least), true),
            UpdateError::Forbidden(_) => (FORBIDDEN_PAUSE, true),
        };
        self.not_before = now.mono + pause;
        self.held_until = held.then_some(now.wall + pause);
        let known = self.failure.take();
        self.dirty |= held || known.as_ref().is_none_or(|known| known.bad != bad);
        let (since, told) = known.map_or((now, false), |known| (known.since, known.told));
        self.failure = Some(UpdateFailure { since, at: now.wall, bad, told });
    }

    /// Doubled with every failure, and a little different for each name: they must not all come
    /// back at once.
    fn pause(&self) -> Duration {
        let retry = self.entry.pace.retry;
        let doubled = retry.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(self.failures);
        for byte in self.entry.name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let share = 0.8 + (hash >> 40) as f64 / (1_u64 << 24) as f64 * 0.4;
        doubled.min(LONGEST_PAUSE.max(retry)).mul_f64(share)
    }

    /// What there is to tell: a failure that lasts or that somebody has to mend, or its end.
    pub fn tell(&mut self, now: Now) -> Option<Event> {
        let rests =
            |slot: &FamilyState| slot.in_place() && slot.coming.is_none() && slot.due().is_none();
        let well = self.slots.values().all(rests) && self.slots.values().any(|slot| slot.checked);
        let (host, name) = (self.host.clone(), self.entry.name.clone());
        let failure = self.failure.as_mut()?;
        if well {
            let failed_for = now.mono.since(failure.since.mono);
            let told = failure.told;
            (self.failure, self.failures, self.dirty) = (None, 0, true);
            let kind = EventKind::DyndnsKept { host, name, failed_for };
            return told.then_some(Event { at: now.wall, level: Level::Ok, kind });
        }
        let grave = matches!(failure.bad, UpdateError::Refused(_) | UpdateError::Forbidden(_));
        let lasting = now.mono >= failure.since.mono + self.entry.pace.report_after;
        if failure.told || !(grave || lasting) {
            return None;
        }
        (failure.told, self.dirty) = (true, true);
        let kind = EventKind::DyndnsFails { host, name, why: failure.bad.why().to_owned() };
        Some(Event { at: now.wall, level: Level::Warning, kind })
    }

    /// When to look again; none when only a datagram can bring something new.
    pub fn next(&self) -> Option<Mono> {
        let untold = self.failure.iter().filter(|failure| !failure.told);
        let untold = untold.map(|failure| failure.since.mono + self.entry.pace.report_after);
        self.next_attempt().into_iter().chain(untold).min()
    }

    /// When it may be tried next; none when there is nothing to do.
    pub fn next_attempt(&self) -> Option<Mono> {
        let settled = self.slots.values().filter_map(|slot| {
            let (_, since) = slot.coming?;
            Some(since + self.entry.pace.settle)
        });
        let due = self.slots.values().filter(|slot| slot.due().is_some());
        let due = due.map(|slot| slot.not_before.max(self.not_before));
        settled.chain(due).min()
    }

    /// Its row, when that changed since it was last taken.
    pub fn take_row(&mut self) -> Option<DyndnsRow> {
        std::mem::take(&mut self.dirty).then(|| self.row())
    }

    /// How many attempts failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Its row at the stop: an address that has not proven itself yet does so after the start.
    pub fn row(&self) -> DyndnsRow {
        let record = |slot: &FamilyState| FamilyRow {
            wanted: slot.wanted,
            sent: slot.sent.map(|(address, _)| address),
            at: slot.sent.and_then(|(_, at)| at),
        };
        DyndnsRow {
            name: self.entry.name.clone(),
            place: self.entry.method.place(),
            fingerprint: fingerprint(&self.entry),
            records: self.slots.iter().map(|(family, slot)| (*family, record(slot))).collect(),
            failure: self.failure.as_ref().map(|failure| FailureRow {
                since: failure.since.wall,
                at: failure.at,
                why: failure.bad.why().to_owned(),
                refused: matches!(failure.bad, UpdateError::Refused(_) | UpdateError::Forbidden(_)),
                told: failure.told,
            }),
            held_until: self.held_until,
        }
    }

    /// How it stands.
    pub fn view(&self, now: Now) -> DyndnsView {
        let waits = self.slots.values().any(|slot| slot.coming.is_some() || slot.due().is_some());
        let state = match &self.failure {
            Some(UpdateFailure {
                bad: UpdateError::Refused(_) | UpdateError::Forbidden(_),
                ..
            }) => DyndnsState::Refused,
            Some(_) => DyndnsState::Failing,
            None if self.slots.is_empty() => DyndnsState::Unknown,
            None if waits => DyndnsState::Waiting,
            None => DyndnsState::Kept,
        };
        let record = |(family, slot): (&RecordFamily, &FamilyState)| DynrecordView {
            record: family.record(),
            address: slot.coming.map(|(address, _)| address).or(slot.wanted),
            written: slot.sent.map(|(address, _)| address),
            last_update: slot.sent.and_then(|(_, at)| at),
        };
        DyndnsView {
            host: self.host.clone(),
            name: self.entry.name.clone(),
            method: self.entry.method.name(),
            server: self.entry.method.place(),
            state,
            records: self.slots.iter().map(record).collect(),
            failing_since: self.failure.as_ref().map(|failure| failure.since.wall),
            last_failure: self.failure.as_ref().map(|failure| FailureView {
                at: Some(failure.at),
                why: failure.bad.why().to_owned(),
            }),
            next_attempt: self.next_attempt().map(|at| now.wall + at.since(now.mono)),
        }
    }
}

/// A name, under its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DyndnsRow {
    /// The name in the DNS.
    pub name: String,
    /// Whom it was written to.
    pub place: String,
    /// By which configuration.
    pub fingerprint: String,
    /// Its records.
    pub records: BTreeMap<RecordFamily, FamilyRow>,
    /// Why they cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureRow>,
    /// Until when the provider wants to be left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Wall>,
}

/// The records of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FamilyRow {
    /// What they should hold.
    pub wanted: Option<IpAddr>,
    /// What they hold.
    pub sent: Option<IpAddr>,
    /// Since when, when it was written by us.
    pub at: Option<Wall>,
}

/// A failure that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureRow {
    /// Since when.
    pub since: Wall,
    /// When it was last tried.
    pub at: Wall,
    /// Why.
    pub why: String,
    /// Whether somebody has to mend something.
    pub refused: bool,
    /// Whether people were told.
    pub told: bool,
}

/// Tells one configuration of a name from another without telling its secrets.
pub fn fingerprint(entry: &DyndnsEntry) -> String {
    let mut text = format!("{entry:?}");
    let secrets = match &entry.method {
        UpdateMethod::Rfc2136(server) => vec![&server.key],
        UpdateMethod::Http(provider) => provider.password.iter().chain([&provider.url]).collect(),
    };
    for secret in secrets {
        // Writing to a text cannot fail.
        let _ = write!(text, "\0{}", secret.reveal());
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
