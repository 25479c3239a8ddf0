//! Deliveries: their rows, an attempt at one, its result, and the status of a queue. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ChannelTarget;
use crate::clock::{Now, Wall};
use crate::event::{EventId, GivenUp, Incident, Level, Message, Subject};
use crate::notify::channel::RetryPolicy;

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
    /// The channel.
    pub channel: String,
    /// The recipient, where each has deliveries of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// The message.
    pub message: Arc<Message>,
    /// When it was accepted.
    pub accepted: Now,
    /// How many attempts were started.
    #[serde(default)]
    pub attempts: u32,
    /// Whether an attempt is in flight: after a crash, its result is unknown.
    #[serde(default)]
    pub in_flight: bool,
    /// An earlier attempt may have arrived.
    #[serde(default)]
    pub possible_repeat: bool,
    /// Its full form was refused: short and plain from now on.
    #[serde(default)]
    pub plain: bool,
    /// A digest with it was refused: alone from now on.
    #[serde(default, rename = "alone", skip_serializing_if = "is_false")]
    pub never_digest: bool,
    /// Its event matters less than an alarm.
    #[serde(default, rename = "minor", skip_serializing_if = "is_false")]
    pub is_minor: bool,
    /// The incident that it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Incident>,
    /// The incidents that it closes, of those that this channel was notified of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closes: Vec<Incident>,
    /// Deliver even if no alarm that it closes was delivered.
    #[serde(default, rename = "told", skip_serializing_if = "is_false")]
    pub always_deliver: bool,
    /// The events that it closes, as delivered through this channel.
    #[serde(default, rename = "ends", skip_serializing_if = "Vec::is_empty")]
    pub recovered_events: Vec<EventId>,
    /// What the channel replies to: the first message of the thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// It only repeats what was told before.
    #[serde(default, rename = "reminder", skip_serializing_if = "is_false")]
    pub is_reminder: bool,
    /// The message that is sent in place of this delivery and of others.
    #[serde(default, rename = "bundle", skip_serializing_if = "Option::is_none")]
    pub digest: Option<Box<Digest>>,
    /// It is for those who hear about backups, though it is not about a plan.
    #[serde(default, skip_serializing_if = "is_false")]
    pub for_backups: bool,
    /// The level of the incidents that it closes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_level: Option<Level>,
    /// Everywhere that its event was sent to, when that is more than here.
    #[serde(default, skip_serializing_if = "is_nowhere_else")]
    pub given_to: Arc<BTreeSet<Place>>,
    /// It is a notice that these messages were given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<Box<GivenUp>>,
}

/// Deliveries about one subject to one recipient that wait, in order.
pub type SubjectDeliveries<'a> = Vec<(DeliveryId, &'a Delivery)>;

/// A channel, and a recipient of it where each has deliveries of its own.
pub type Place = (String, Option<String>);

fn is_nowhere_else(places: &Arc<BTreeSet<Place>>) -> bool {
    places.is_empty()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Delivery {
    /// A delivery that was accepted now.
    pub(super) fn new(
        channel: &str,
        recipient: Option<String>,
        message: Arc<Message>,
        opens: Option<&Incident>,
        target: &ChannelTarget,
        now: Now,
    ) -> Delivery {
        Delivery {
            channel: channel.to_owned(),
            recipient,
            message,
            accepted: now,
            attempts: 0,
            in_flight: false,
            possible_repeat: false,
            plain: false,
            never_digest: false,
            is_minor: target.is_minor,
            opens: opens.cloned(),
            closes: target.closes.clone(),
            always_deliver: target.always_deliver,
            recovered_events: target.recovered_events.clone(),
            thread: target.thread.clone(),
            is_reminder: target.is_reminder,
            digest: None,
            for_backups: target.for_backups,
            ended_level: target.ended_level,
            given_to: Arc::clone(&target.given_to),
            given_up: None,
        }
    }

    /// Whether it may be part of a digest: it surely has not arrived yet, and it fits into a line,
    /// which the report of a backup does not.
    pub fn can_be_digested(&self) -> bool {
        let is_report = matches!(self.message.subject, Subject::Plan(_));
        !is_report && !self.in_flight && !self.possible_repeat && !self.plain && !self.never_digest
    }

    /// Where it is sent.
    pub fn place(&self) -> Place {
        (self.channel.clone(), self.recipient.clone())
    }

    /// The level that decides which channels take it over.
    pub fn routing_level(&self) -> Level {
        match self.message.level {
            Level::Ok => self.ended_level.unwrap_or(Level::Warning),
            level => level,
        }
    }

    /// Its row in the history.
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
            is_minor: self.is_minor,
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        }
    }
}

/// Why a backlog built up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backlog {
    /// The channel failed.
    #[serde(rename = "unreached")]
    Unreachable,
    /// The rate limit held it back.
    #[serde(rename = "rate")]
    RateLimited,
    /// It came out of a hold at once.
    #[serde(rename = "held")]
    HeldBack,
    /// None did: it happened to connections of one host at the same time.
    #[serde(rename = "together")]
    Together,
}

impl Backlog {
    /// As a part of a sentence, for people.
    pub fn describe(self, channel: &str) -> String {
        match self {
            Backlog::Unreachable => format!("while {channel} could not be reached"),
            Backlog::RateLimited => format!("while {channel} was held back by its rate limit"),
            Backlog::HeldBack => "while they were held back".into(),
            Backlog::Together => "at the same time".into(),
        }
    }
}

/// One message in place of several. It is stored with the first of its deliveries, so that it
/// stays the same at each attempt once one of these may have arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// The event number of this message.
    pub event: EventId,
    /// When it was put together.
    pub at: Wall,
    /// Why.
    pub cause: Backlog,
    /// Its deliveries, in the order of their lines.
    pub members: Vec<DeliveryId>,
    /// How many more waited and did not fit.
    #[serde(default, rename = "left")]
    pub left_out: usize,
    /// How many attempts at it ended with an unknown result.
    #[serde(default, rename = "lost")]
    pub times_lost: u32,
}

/// An attempt to make.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryAttempt {
    /// The delivery to complete.
    pub id: DeliveryId,
    /// What to send: the delivery, or the digest in its place.
    pub delivery: Delivery,
}

/// Why a delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The channel will never take this message.
    MessageRefused,
    /// It was retried for as long as its level allows.
    Expired,
    /// Its channel is no longer configured, and no other one takes it.
    ChannelRemoved,
}

/// What became of a delivery, for the log and the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// It arrived, as a message about this many events.
    Delivered { events: usize },
    /// It is tried again after `delay`, or later.
    Retrying { why: String, delay: Duration, may_have_arrived: bool },
    /// The channel refuses everything; its queue waits.
    ChannelPaused { why: String, delay: Duration },
    /// One of several recipients is refused; what is for that one waits.
    RecipientPaused { why: String, delay: Duration },
    /// It will never arrive.
    Failed { reason: DropReason, why: String },
    /// Its channel or recipient is no longer configured, and these channels were given it instead;
    /// none when others had it before.
    Moved { to: Vec<String> },
    /// A recovery whose alarm never arrived.
    Orphaned,
}

/// A row of the history: what was sent to whom, and how that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// The event.
    pub event: EventId,
    /// The channel.
    pub channel: String,
    /// The recipient, where each has deliveries of its own.
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
    /// How many attempts were made.
    pub attempts: u32,
    /// Whether it arrived; if not, see [`why`](Self::why).
    pub delivered: bool,
    /// Why it did not arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It matters less than an alarm: it is removed before one.
    #[serde(default, rename = "minor", skip_serializing_if = "is_false")]
    pub is_minor: bool,
    /// The event number of the digest that it was delivered in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_in: Option<EventId>,
    /// When it was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Wall>,
    /// On which device, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
}

/// What the outbox needs to know of a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// Its rate limit, delays and times to give up.
    pub retry_policy: RetryPolicy,
    /// Its recipients; one `None` for a channel that is sent to as a whole.
    pub recipients: Vec<Option<String>>,
}

/// One queue and the health of its channel, for the status and the metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueStatus {
    /// The channel.
    pub channel: String,
    /// How many deliveries wait or are in flight.
    pub waiting: usize,
    /// How long the oldest of them has been waiting.
    pub oldest: Option<Duration>,
    /// Since when the channel fails; none when it works as far as is known.
    pub failing_since: Option<Wall>,
    /// Whether it refuses everything until it is repaired.
    pub refused: bool,
    /// The last success.
    pub last_success: Option<Wall>,
    /// The last failure and when it was.
    pub last_failure: Option<(Wall, String)>,
    /// Emergencies that are not acknowledged yet.
    pub unacknowledged: usize,
}
