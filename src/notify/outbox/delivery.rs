//! A delivery as it is kept, an attempt at it, and what becomes of it. Pure.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Now, Wall};
use crate::event::{EventId, Incident, Level, Message, Subject};
use crate::notify::channel::Pace;

/// The number of a delivery, rising: their order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DeliveryId(pub u64);

impl DeliveryId {
    /// The key of its row.
    pub fn key(self) -> String {
        format!("{:020}", self.0)
    }
}

/// One message on its way to one channel, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// To which channel.
    pub channel: String,
    /// To which of its recipients, where each is sent to on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// What to say.
    pub message: Arc<Message>,
    /// When it was accepted.
    pub accepted: Now,
    /// How many attempts have begun.
    #[serde(default)]
    pub attempts: u32,
    /// Whether one is under way: after a crash, its outcome is unknown.
    #[serde(default)]
    pub in_flight: bool,
    /// An earlier attempt may have arrived.
    #[serde(default)]
    pub possible_repeat: bool,
    /// Its full form was refused: short and plain from now on.
    #[serde(default)]
    pub plain: bool,
    /// A message that told of it among others was refused: by itself from now on.
    #[serde(default, rename = "alone", skip_serializing_if = "is_false")]
    pub never_digest: bool,
    /// The trouble that it tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Incident>,
    /// The troubles that end with it, of those that this channel was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closes: Vec<Incident>,
    /// It says something to this channel even if no alarm that it ends ever arrived there.
    #[serde(default, rename = "told", skip_serializing_if = "is_false")]
    pub always_deliver: bool,
    /// The events whose trouble it ends, as this channel was told of them.
    #[serde(default, rename = "ends", skip_serializing_if = "Vec::is_empty")]
    pub recovered_events: Vec<EventId>,
    /// What the channel hangs its thread on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// The message that is sent in place of this and of others.
    #[serde(default, rename = "bundle", skip_serializing_if = "Option::is_none")]
    pub digest: Option<Box<Digest>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Delivery {
    /// Whether it may be told of in one message with others: it has surely not arrived yet, and a
    /// line can hold it, as it cannot hold the report of a backup.
    pub fn can_be_digested(&self) -> bool {
        let is_report = matches!(self.message.subject, Subject::Plan(_));
        !is_report && !self.in_flight && !self.possible_repeat && !self.plain && !self.never_digest
    }

    /// What the history says of it.
    pub fn record(&self, now: Now, why: Option<String>) -> DeliveryRecord {
        DeliveryRecord {
            event: self.message.event,
            channel: self.channel.clone(),
            recipient: self.recipient.clone(),
            subject: self.message.subject.clone(),
            level: self.message.level,
            title: self.message.title.clone(),
            accepted: self.accepted.wall,
            finished: now.wall,
            attempts: self.attempts,
            delivered: why.is_none(),
            why,
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        }
    }
}

/// Why a queue built up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backlog {
    /// The channel failed.
    #[serde(rename = "unreached")]
    Unreachable,
    /// Its rate limit held it back.
    #[serde(rename = "rate")]
    RateLimited,
}

impl Backlog {
    /// In words, for people.
    pub fn describe(self, channel: &str) -> String {
        match self {
            Backlog::Unreachable => format!("while {channel} could not be reached"),
            Backlog::RateLimited => format!("while {channel} was held back by its rate limit"),
        }
    }
}

/// One message in place of several. It is kept with the first of them, so that it stays the same
/// at each attempt once one of these may have arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// The number of this message.
    pub event: EventId,
    /// When it was put together.
    pub at: Wall,
    /// Why.
    pub cause: Backlog,
    /// Of which deliveries it tells, in this order.
    pub members: Vec<DeliveryId>,
    /// How many more waited then and did not fit.
    #[serde(default, rename = "left")]
    pub left_out: usize,
    /// How often it was lost after it was handed over.
    #[serde(default, rename = "lost")]
    pub times_lost: u32,
}

/// An attempt to make.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryAttempt {
    /// Of which delivery.
    pub id: DeliveryId,
    /// The delivery as it stands; where it is told of together with others, what is said of all.
    pub delivery: Delivery,
}

/// Why a delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The channel will never take this message.
    MessageRefused,
    /// It was retried for as long as its level allows.
    Expired,
    /// Its channel is no longer configured.
    ChannelRemoved,
}

/// What became of a delivery, for the log and the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// It arrived, and told of so many events.
    Delivered { events: usize },
    /// It is tried again at that time at the earliest.
    Retrying { why: String, delay: Duration, may_have_arrived: bool },
    /// The channel takes nothing at all; its queue waits.
    ChannelPaused { why: String, delay: Duration },
    /// It will never arrive.
    Failed { reason: DropReason, why: String },
    /// It was to end an alarm that never arrived.
    Orphaned,
}

/// One line of the history: what was sent to whom, and how that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// The event.
    pub event: EventId,
    /// The channel.
    pub channel: String,
    /// Which of its recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// What it was about.
    pub subject: Subject,
    /// How much it mattered.
    pub level: Level,
    /// What it said.
    pub title: String,
    /// When it was accepted.
    pub accepted: Wall,
    /// When it ended.
    pub finished: Wall,
    /// After how many attempts.
    pub attempts: u32,
    /// Whether it arrived; else [`why`](Self::why) it did not.
    pub delivered: bool,
    /// Why it did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The message that told of this event among others, by the number that it carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_in: Option<EventId>,
    /// When somebody acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Wall>,
    /// On which device, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
}

/// What the outbox has to be told of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// How fast and how long.
    pub pace: Pace,
    /// Its recipients; one `None` for a channel that is sent to as a whole.
    pub recipients: Vec<Option<String>>,
}

/// How a channel stands, for the status and the metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueStatus {
    /// Its name.
    pub channel: String,
    /// How many deliveries wait or are under way.
    pub waiting: usize,
    /// How long the oldest of them has been waiting.
    pub oldest: Option<Duration>,
    /// Since when it fails; none when it works as far as is known.
    pub failing_since: Option<Wall>,
    /// Whether it takes nothing until somebody mends it.
    pub refused: bool,
    /// The last success.
    pub last_success: Option<Wall>,
    /// The last failure and when it was.
    pub last_failure: Option<(Wall, String)>,
    /// Emergencies that nobody has acknowledged yet.
    pub unacknowledged: usize,
}
