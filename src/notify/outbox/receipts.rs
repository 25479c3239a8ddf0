//! Emergencies that a provider repeats until somebody acknowledges them: when to ask. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::delivery::{DeliveryId, DeliveryRecord};
use super::incidents::Acknowledgement;
use crate::clock::{Mono, Now, Wall};
use crate::event::{EventId, Incident};
use crate::notify::channel::{Failure, ReceiptState};
use crate::store::{Table, Write};

/// A channel is asked no more often than this.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// About each emergency at least this often.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(120);
/// No provider repeats an emergency for longer (Pushover: three hours).
const MAX_LIFETIME: Duration = Duration::from_secs(3 * 3600 + 300);

/// An emergency that was delivered, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Through which channel.
    pub channel: String,
    /// What the provider calls it.
    pub receipt: String,
    /// The number of the message.
    pub event: EventId,
    /// What it told of.
    #[serde(rename = "troubles")]
    pub incidents: Vec<Incident>,
    /// When it was delivered.
    pub sent: Wall,
    /// The lines of the history that it stands for.
    pub records: Vec<(DeliveryId, DeliveryRecord)>,
}

/// A question to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptPoll {
    /// Of which channel.
    pub channel: String,
    /// About which emergency.
    pub receipt: String,
}

impl ReceiptPoll {
    fn key(&self) -> String {
        format!("{} {}", self.channel, self.receipt)
    }
}

impl Receipt {
    fn key(&self) -> String {
        format!("{} {}", self.channel, self.receipt)
    }
}

/// What was taken note of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcknowledgedMessage {
    /// The message.
    pub event: EventId,
    /// The incidents that it told of.
    pub incidents: Vec<Incident>,
    /// When and how.
    pub by: Acknowledgement,
}

#[derive(Debug)]
struct TrackedReceipt {
    receipt: Receipt,
    since: Mono,
    next_poll: Mono,
}

/// Every emergency that nobody acknowledged yet.
#[derive(Debug, Default)]
pub struct Receipts {
    tracked: BTreeMap<String, TrackedReceipt>,
    /// When each channel may be asked again.
    quiet_until: BTreeMap<String, Mono>,
    in_flight: BTreeSet<String>,
    writes: Vec<Write>,
}

impl Receipts {
    /// Follows an emergency up from now on.
    pub fn track(&mut self, receipt: Receipt, now: Now) {
        self.writes.push(Write::put(Table::Receipts, receipt.key(), &receipt));
        self.restore(receipt, now);
    }

    /// Takes over what the store kept.
    pub fn restore(&mut self, receipt: Receipt, now: Now) {
        let since = now.mono - now.wall.since(receipt.sent).min(MAX_LIFETIME);
        let tracked = TrackedReceipt { since, next_poll: now.mono + MIN_POLL_INTERVAL, receipt };
        self.tracked.insert(tracked.receipt.key(), tracked);
    }

    /// Nobody needs to acknowledge what is over.
    pub fn close_incident(&mut self, incident: &Incident) {
        let mut ended = Vec::new();
        for (name, tracked) in &mut self.tracked {
            let incidents = &mut tracked.receipt.incidents;
            let before = incidents.len();
            incidents.retain(|other| other != incident);
            if incidents.is_empty() && before > 0 {
                ended.push(name.clone());
            }
        }
        ended.iter().for_each(|name| drop(self.remove(name)));
    }

    /// Forgets what was sent through channels that are gone.
    pub fn retain_channels(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone = |tracked: &&TrackedReceipt| !is_there(&tracked.receipt.channel);
        let gone: Vec<String> =
            self.tracked.values().filter(gone).map(|tracked| tracked.receipt.key()).collect();
        gone.iter().for_each(|name| drop(self.remove(name)));
    }

    fn remove(&mut self, name: &str) -> Option<TrackedReceipt> {
        self.writes.push(Write::remove(Table::Receipts, name));
        self.tracked.remove(name)
    }

    /// The questions whose time has come: one at a time for each channel.
    pub fn due_polls(&mut self, now: Mono) -> Vec<ReceiptPoll> {
        let expired: Vec<String> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| now.since(tracked.since) > MAX_LIFETIME)
            .map(|(name, _)| name.clone())
            .collect();
        expired.iter().for_each(|name| drop(self.remove(name)));
        let mut first: BTreeMap<&String, &TrackedReceipt> = BTreeMap::new();
        for tracked in self.tracked.values().filter(|tracked| tracked.next_poll <= now) {
            let channel = &tracked.receipt.channel;
            let busy = self.in_flight.contains(channel);
            if !busy && self.quiet_until.get(channel).is_none_or(|until| *until <= now) {
                let earliest = first.entry(channel).or_insert(tracked);
                if tracked.next_poll < earliest.next_poll {
                    *earliest = tracked;
                }
            }
        }
        let polls: Vec<ReceiptPoll> = first
            .into_iter()
            .map(|(channel, tracked)| ReceiptPoll {
                channel: channel.clone(),
                receipt: tracked.receipt.receipt.clone(),
            })
            .collect();
        self.in_flight.extend(polls.iter().map(|poll| poll.channel.clone()));
        polls
    }

    /// When the next question is to be asked.
    pub fn next_due(&self) -> Option<Mono> {
        let due = |tracked: &TrackedReceipt| {
            let channel = &tracked.receipt.channel;
            let quiet = self.quiet_until.get(channel).copied();
            (!self.in_flight.contains(channel))
                .then(|| quiet.map_or(tracked.next_poll, |until| until.max(tracked.next_poll)))
        };
        self.tracked.values().filter_map(due).min()
    }

    /// Takes note of an answer; says so when it was acknowledged.
    pub fn on_poll_result(
        &mut self,
        poll: &ReceiptPoll,
        answer: Result<ReceiptState, Failure>,
        now: Now,
    ) -> Option<AcknowledgedMessage> {
        self.in_flight.remove(&poll.channel);
        self.quiet_until.insert(poll.channel.clone(), now.mono + MIN_POLL_INTERVAL);
        match answer {
            Ok(ReceiptState { acknowledged: Some(at), device, .. }) => {
                let receipt = self.remove(&poll.key())?.receipt;
                Some(self.record_acknowledgement(receipt, at, device))
            }
            Ok(ReceiptState { expired: true, .. }) | Err(Failure::MessageRefused(_)) => {
                self.remove(&poll.key());
                None
            }
            Ok(ReceiptState { expired: false, .. })
            | Err(
                Failure::Unreachable { .. }
                | Failure::ChannelRefused { .. }
                | Failure::FormRefused(_)
                | Failure::Unknown(_),
            ) => {
                let tracked = self.tracked.get_mut(&poll.key())?;
                let age = now.mono.since(tracked.since);
                tracked.next_poll =
                    now.mono + (age / 4).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
                None
            }
        }
    }

    fn record_acknowledgement(
        &mut self,
        receipt: Receipt,
        at: Wall,
        device: Option<String>,
    ) -> AcknowledgedMessage {
        for (id, mut record) in receipt.records {
            record.acknowledged = Some(at);
            record.acknowledged_by.clone_from(&device);
            self.writes.push(Write::put(Table::History, id.key(), &record));
        }
        let by = Acknowledgement { at, channel: receipt.channel, device };
        AcknowledgedMessage { event: receipt.event, incidents: receipt.incidents, by }
    }

    /// How many of a channel's emergencies nobody acknowledged yet.
    pub fn waiting(&self, channel: &str) -> usize {
        self.tracked.values().filter(|tracked| tracked.receipt.channel == channel).count()
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Write> + '_ {
        self.tracked
            .iter()
            .map(|(name, tracked)| Write::put(Table::Receipts, name.clone(), &tracked.receipt))
    }
}
