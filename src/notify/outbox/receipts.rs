//! Receipts of emergencies, which a provider repeats until they are acknowledged: when to poll
//! each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::acknowledgement::Acknowledgement;
use super::delivery::{DeliveryId, DeliveryRecord};
use crate::clock::{Mono, Now, Wall};
use crate::event::{EventId, Incident};
use crate::notify::channel::{Failure, ReceiptState};
use crate::store::{Table, Write};

/// Between two polls of one channel.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Between two polls of one receipt.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(120);
/// The longest time that a provider repeats an emergency (Pushover: three hours), and some more.
const MAX_LIFETIME: Duration = Duration::from_secs(3 * 3600 + 300);

/// An emergency that was delivered, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Through which channel.
    pub channel: String,
    /// The provider's id.
    pub receipt: String,
    /// The event of the message.
    pub event: EventId,
    /// The incidents in it.
    #[serde(rename = "troubles")]
    pub incidents: Vec<Incident>,
    /// When it was delivered.
    pub sent: Wall,
    /// The rows of the history that it stands for.
    pub records: Vec<(DeliveryId, DeliveryRecord)>,
    /// A person has seen all that it is about: the provider is to be told to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
}

/// A question to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptPoll {
    /// The channel to ask through.
    pub channel: String,
    /// The provider's id of the receipt.
    pub receipt: String,
    /// The event of an emergency that is to be ended, and not asked about.
    pub cancel: Option<EventId>,
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

/// A message that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcknowledgedMessage {
    /// The event of the message.
    pub event: EventId,
    /// The incidents in it.
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

/// Every emergency that is not acknowledged yet.
#[derive(Debug, Default)]
pub struct Receipts {
    tracked: BTreeMap<String, TrackedReceipt>,
    /// When each channel may be polled again.
    quiet_until: BTreeMap<String, Mono>,
    in_flight: BTreeSet<String>,
    writes: Vec<Write>,
}

impl Receipts {
    /// Polls for a receipt from now on.
    pub fn track(&mut self, receipt: Receipt, now: Now) {
        self.writes.push(Write::put(Table::Receipts, receipt.key(), &receipt));
        self.restore(receipt, now);
    }

    /// Loads what the store has.
    pub fn restore(&mut self, receipt: Receipt, now: Now) {
        let since = now.mono - now.wall.since(receipt.sent).min(MAX_LIFETIME);
        let tracked = TrackedReceipt { since, next_poll: now.mono + MIN_POLL_INTERVAL, receipt };
        self.tracked.insert(tracked.receipt.key(), tracked);
    }

    /// An incident was closed: a receipt of which none is open needs no acknowledgement.
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

    /// Has the provider end the emergencies of which every incident is acknowledged by now.
    pub fn cancel_acknowledged(
        &mut self,
        acknowledgement: impl Fn(&Incident) -> Option<Acknowledgement>,
        now: Now,
    ) {
        for (name, tracked) in &mut self.tracked {
            let incidents = &tracked.receipt.incidents;
            if tracked.receipt.cancelled || incidents.is_empty() {
                continue;
            }
            let all: Option<Vec<_>> = incidents.iter().map(&acknowledgement).collect();
            let Some(by) = all.and_then(|all| all.into_iter().max_by_key(|by| by.at)) else {
                continue;
            };
            tracked.receipt.cancelled = true;
            tracked.next_poll = now.mono;
            for (id, record) in &mut tracked.receipt.records {
                record.acknowledged = Some(by.at);
                record.acknowledged_by = by.device.clone().or_else(|| by.by.clone());
                self.writes.push(Write::put(Table::History, id.key(), record));
            }
            self.writes.push(Write::put(Table::Receipts, name.clone(), &tracked.receipt));
        }
    }

    /// Removes the receipts of channels that are no longer configured.
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

    /// The polls that are due: one at a time for each channel.
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
            let quiet = self.quiet_until.get(channel).is_some_and(|until| *until > now);
            // A phone that rings is not to wait for the provider's limit of questions.
            if !busy && (tracked.receipt.cancelled || !quiet) {
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
                cancel: tracked.receipt.cancelled.then_some(tracked.receipt.event),
            })
            .collect();
        self.in_flight.extend(polls.iter().map(|poll| poll.channel.clone()));
        polls
    }

    /// When the next poll is due.
    pub fn next_due(&self) -> Option<Mono> {
        let due = |tracked: &TrackedReceipt| {
            let channel = &tracked.receipt.channel;
            let quiet = self.quiet_until.get(channel).copied();
            let quiet = quiet.filter(|_| !tracked.receipt.cancelled);
            (!self.in_flight.contains(channel))
                .then(|| quiet.map_or(tracked.next_poll, |until| until.max(tracked.next_poll)))
        };
        self.tracked.values().filter_map(due).min()
    }

    /// Records an answer; returns the message if it was acknowledged.
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
                let pause = (age / 4).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
                let only_asked = tracked.receipt.cancelled && poll.cancel.is_none();
                tracked.next_poll = if only_asked { now.mono } else { now.mono + pause };
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
        let by =
            Acknowledgement { at, channel: receipt.channel, device, ..Acknowledgement::default() };
        AcknowledgedMessage { event: receipt.event, incidents: receipt.incidents, by }
    }

    /// How many emergencies of a channel are not acknowledged yet.
    pub fn waiting(&self, channel: &str) -> usize {
        let waits = |tracked: &&TrackedReceipt| {
            tracked.receipt.channel == channel && !tracked.receipt.cancelled
        };
        self.tracked.values().filter(waits).count()
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
