//! Emergencies that a provider repeats until somebody acknowledges them: when to ask. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::delivery::{DeliveryId, Record};
use super::incidents::Acknowledged;
use crate::clock::{Mono, Now, Wall};
use crate::event::{EventId, Incident};
use crate::notify::channel::{Failure, ReceiptState};
use crate::store::{Table, Write};

/// A channel is asked no more often than this.
const SHORTEST: Duration = Duration::from_secs(5);
/// About each emergency at least this often.
const LONGEST: Duration = Duration::from_secs(120);
/// No provider repeats an emergency for longer (Pushover: three hours).
const LIFE: Duration = Duration::from_secs(3 * 3600 + 300);

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
    pub troubles: Vec<Incident>,
    /// When it was delivered.
    pub sent: Wall,
    /// The lines of the history that it stands for.
    pub records: Vec<(DeliveryId, Record)>,
}

/// A question to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Of which channel.
    pub channel: String,
    /// About which emergency.
    pub receipt: String,
}

impl Poll {
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
pub struct Note {
    /// The message.
    pub event: EventId,
    /// The troubles that it told of.
    pub troubles: Vec<Incident>,
    /// When and how.
    pub by: Acknowledged,
}

#[derive(Debug)]
struct Followed {
    receipt: Receipt,
    since: Mono,
    next: Mono,
}

/// Every emergency that nobody acknowledged yet.
#[derive(Debug, Default)]
pub struct Receipts {
    followed: BTreeMap<String, Followed>,
    /// When each channel may be asked again.
    quiet_until: BTreeMap<String, Mono>,
    in_flight: BTreeSet<String>,
    writes: Vec<Write>,
}

impl Receipts {
    /// Follows an emergency up from now on.
    pub fn follow(&mut self, receipt: Receipt, now: Now) {
        self.writes.push(Write::put(Table::Receipts, receipt.key(), &receipt));
        self.restore(receipt, now);
    }

    /// Takes over what the store kept.
    pub fn restore(&mut self, receipt: Receipt, now: Now) {
        let since = now.mono - now.wall.since(receipt.sent).min(LIFE);
        let followed = Followed { since, next: now.mono + SHORTEST, receipt };
        self.followed.insert(followed.receipt.key(), followed);
    }

    /// Nobody needs to acknowledge what is over.
    pub fn over(&mut self, trouble: &Incident) {
        let mut ended = Vec::new();
        for (name, followed) in &mut self.followed {
            let troubles = &mut followed.receipt.troubles;
            let before = troubles.len();
            troubles.retain(|other| other != trouble);
            if troubles.is_empty() && before > 0 {
                ended.push(name.clone());
            }
        }
        ended.iter().for_each(|name| drop(self.forget(name)));
    }

    /// Forgets what was sent through channels that are gone.
    pub fn keep_channels(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone = |followed: &&Followed| !is_there(&followed.receipt.channel);
        let gone: Vec<String> =
            self.followed.values().filter(gone).map(|followed| followed.receipt.key()).collect();
        gone.iter().for_each(|name| drop(self.forget(name)));
    }

    fn forget(&mut self, name: &str) -> Option<Followed> {
        self.writes.push(Write::remove(Table::Receipts, name));
        self.followed.remove(name)
    }

    /// The questions whose time has come: one at a time for each channel.
    pub fn due(&mut self, now: Mono) -> Vec<Poll> {
        let expired: Vec<String> = self
            .followed
            .iter()
            .filter(|(_, followed)| now.since(followed.since) > LIFE)
            .map(|(name, _)| name.clone())
            .collect();
        expired.iter().for_each(|name| drop(self.forget(name)));
        let mut first: BTreeMap<&String, &Followed> = BTreeMap::new();
        for followed in self.followed.values().filter(|followed| followed.next <= now) {
            let channel = &followed.receipt.channel;
            let busy = self.in_flight.contains(channel);
            if !busy && self.quiet_until.get(channel).is_none_or(|until| *until <= now) {
                let earliest = first.entry(channel).or_insert(followed);
                if followed.next < earliest.next {
                    *earliest = followed;
                }
            }
        }
        let polls: Vec<Poll> = first
            .into_iter()
            .map(|(channel, followed)| Poll {
                channel: channel.clone(),
                receipt: followed.receipt.receipt.clone(),
            })
            .collect();
        self.in_flight.extend(polls.iter().map(|poll| poll.channel.clone()));
        polls
    }

    /// When the next question is to be asked.
    pub fn next_due(&self) -> Option<Mono> {
        let due = |followed: &Followed| {
            let channel = &followed.receipt.channel;
            let quiet = self.quiet_until.get(channel).copied();
            (!self.in_flight.contains(channel))
                .then(|| quiet.map_or(followed.next, |until| until.max(followed.next)))
        };
        self.followed.values().filter_map(due).min()
    }

    /// Takes note of an answer; says so when it was acknowledged.
    pub fn answered(
        &mut self,
        poll: &Poll,
        answer: Result<ReceiptState, Failure>,
        now: Now,
    ) -> Option<Note> {
        self.in_flight.remove(&poll.channel);
        self.quiet_until.insert(poll.channel.clone(), now.mono + SHORTEST);
        match answer {
            Ok(ReceiptState { acknowledged: Some(at), device, .. }) => {
                let receipt = self.forget(&poll.key())?.receipt;
                Some(self.note(receipt, at, device))
            }
            Ok(ReceiptState { expired: true, .. }) | Err(Failure::MessageRefused(_)) => {
                self.forget(&poll.key());
                None
            }
            Ok(ReceiptState { expired: false, .. })
            | Err(
                Failure::Unreachable { .. }
                | Failure::ChannelRefused { .. }
                | Failure::FormRefused(_)
                | Failure::Unknown(_),
            ) => {
                let followed = self.followed.get_mut(&poll.key())?;
                let age = now.mono.since(followed.since);
                followed.next = now.mono + (age / 4).clamp(SHORTEST, LONGEST);
                None
            }
        }
    }

    fn note(&mut self, receipt: Receipt, at: Wall, device: Option<String>) -> Note {
        for (id, mut record) in receipt.records {
            record.acknowledged = Some(at);
            record.acknowledged_by.clone_from(&device);
            self.writes.push(Write::put(Table::History, id.key(), &record));
        }
        let by = Acknowledged { at, channel: receipt.channel, device };
        Note { event: receipt.event, troubles: receipt.troubles, by }
    }

    /// How many of a channel's emergencies nobody acknowledged yet.
    pub fn waiting(&self, channel: &str) -> usize {
        self.followed.values().filter(|followed| followed.receipt.channel == channel).count()
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Write> + '_ {
        self.followed
            .iter()
            .map(|(name, followed)| Write::put(Table::Receipts, name.clone(), &followed.receipt))
    }
}
