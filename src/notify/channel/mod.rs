//! The channels: what they are configured with, and how one attempt of each can end.
//!
//! A channel is one file here, one arm in [`Definition`] and its matches. A channel never logs,
//! sleeps or retries: it makes one attempt and says how that ended.

use std::time::Duration;

use crate::clock::Wall;
use crate::config_file::Section;
use crate::event::{EventId, Level, Message};
use crate::notify::text::Room;

pub mod email;
pub(crate) mod http_client;
pub mod log;
pub mod mattermost;
pub mod pushover;
pub mod signal;

pub use pushover::ReceiptState;

/// One message on its way to one channel (and, where a channel sends to each of several
/// recipients on its own, to one of them).
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The name of the channel.
    pub channel: &'a str,
    /// What to say.
    pub message: &'a Message,
    /// To whom, for channels with one delivery per recipient.
    pub recipient: Option<&'a str>,
    /// An earlier attempt may have arrived: the text must say so.
    pub possible_repeat: bool,
    /// An earlier attempt was refused for its form or size: send it short and plain.
    pub plain: bool,
    /// What this channel answered to the first message of the same thread ([`Delivered::thread`]).
    pub thread: Option<&'a str>,
    /// The events, delivered through this channel before, whose trouble ends with this message.
    pub ends: &'a [EventId],
    /// The time of this attempt.
    pub now: Wall,
}

/// How an attempt that arrived ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// What the provider gave to follow the delivery up with (a Pushover receipt).
    pub receipt: Option<String>,
    /// What later messages of the same thread hang on to (the id of a Mattermost post).
    pub thread: Option<String>,
}

/// How an attempt that did not arrive ended. The texts never hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Trying again may help; the provider may have said when.
    Unreachable { why: String, after: Option<Duration> },
    /// This message will never be taken.
    MessageRefused(String),
    /// Nothing will be taken until somebody mends the channel, or until the hint has passed.
    ChannelRefused { why: String, after: Option<Duration> },
    /// This form is refused; once more as short plain text ([`Letter::plain`]).
    FormRefused(String),
    /// It may or may not have arrived.
    Unknown(String),
}

impl Failure {
    /// Its words alone.
    pub fn into_why(self) -> String {
        match self {
            Failure::Unreachable { why, .. }
            | Failure::ChannelRefused { why, .. }
            | Failure::MessageRefused(why)
            | Failure::FormRefused(why)
            | Failure::Unknown(why) => why,
        }
    }

    /// As the metrics name it.
    pub fn reason(&self) -> &'static str {
        match self {
            Failure::Unreachable { .. } => "unreachable",
            Failure::Unknown(_) => "unknown",
            Failure::MessageRefused(_) | Failure::FormRefused(_) => "message_refused",
            Failure::ChannelRefused { .. } => "channel_refused",
        }
    }

    /// The same end, in other words.
    #[must_use]
    pub fn map_why(self, reword: impl FnOnce(String) -> String) -> Failure {
        match self {
            Failure::Unreachable { why, after } => Failure::Unreachable { why: reword(why), after },
            Failure::MessageRefused(why) => Failure::MessageRefused(reword(why)),
            Failure::FormRefused(why) => Failure::FormRefused(reword(why)),
            Failure::ChannelRefused { why, after } => {
                Failure::ChannelRefused { why: reword(why), after }
            }
            Failure::Unknown(why) => Failure::Unknown(reword(why)),
        }
    }
}

/// How fast a channel may be used, and for how long it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The delay after the first failure; it doubles from there.
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
    /// Attempts a minute, on average.
    pub per_minute: u32,
    /// Attempts at once, after a quiet time.
    pub burst: u32,
    /// How long a delivery is tried: critical.
    pub give_up_critical: Duration,
    /// How long a delivery is tried: warning.
    pub give_up_warning: Duration,
    /// How long a delivery is tried: ok and info.
    pub give_up_rest: Duration,
    /// How much one message may hold of a queue that built up; none where each goes by itself.
    pub digest: Option<Room>,
}

impl Pace {
    /// How long a delivery of this level is tried before it is given up.
    pub fn give_up(&self, level: Level) -> Duration {
        match level {
            Level::Critical => self.give_up_critical,
            Level::Warning => self.give_up_warning,
            Level::Ok | Level::Info => self.give_up_rest,
        }
    }
}

/// What a channel is, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Mail over SMTP.
    Email(email::Email),
    /// The Pushover API.
    Pushover(pushover::Pushover),
    /// Signal through signal-cli.
    Signal(signal::Signal),
    /// Mattermost's incoming webhook or bot API.
    Mattermost(mattermost::Mattermost),
    /// The daemon's own log.
    Log,
}

/// One entry of `notification_channels`.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// It stays quiet below this level (but tells the end of what it told the beginning of).
    pub min_level: Level,
}

/// The words for `type`.
#[derive(Clone, Copy)]
enum Type {
    Email,
    Pushover,
    Signal,
    Mattermost,
    Log,
}

const TYPES: [(&str, Type); 5] = [
    ("email", Type::Email),
    ("pushover", Type::Pushover),
    ("signal", Type::Signal),
    ("mattermost", Type::Mattermost),
    ("log", Type::Log),
];

const MIN_LEVELS: [(&str, Level); 3] =
    [("info", Level::Info), ("warning", Level::Warning), ("critical", Level::Critical)];

impl Definition {
    /// Reads one entry of `notification_channels`.
    pub fn read(section: &mut Section) -> Definition {
        section.require("type");
        let min_level = section.choice("min_level", &MIN_LEVELS).unwrap_or(Level::Info);
        let kind = match section.choice("type", &TYPES) {
            Some(Type::Email) => Kind::Email(email::Email::read(section)),
            Some(Type::Pushover) => Kind::Pushover(pushover::Pushover::read(section)),
            Some(Type::Signal) => Kind::Signal(signal::Signal::read(section)),
            Some(Type::Mattermost) => Kind::Mattermost(mattermost::Mattermost::read(section)),
            Some(Type::Log) => Kind::Log,
            None => {
                section.ignore_rest();
                Kind::Log
            }
        };
        Definition { kind, min_level }
    }
}

impl Definition {
    /// Its `type`.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Email(_) => "email",
            Kind::Pushover(_) => "pushover",
            Kind::Signal(_) => "signal",
            Kind::Mattermost(_) => "mattermost",
            Kind::Log => "log",
        }
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver(&self, letter: &Letter) -> Result<Delivered, Failure> {
        match &self.kind {
            Kind::Email(email) => email.deliver(letter),
            Kind::Pushover(pushover) => pushover.deliver(letter),
            Kind::Signal(signal) => signal.deliver(letter),
            Kind::Mattermost(mattermost) => mattermost.deliver(letter),
            Kind::Log => log::deliver(letter),
        }
    }

    /// How fast it may be used, and for how long it is tried.
    pub fn pace(&self) -> Pace {
        match &self.kind {
            Kind::Email(_) => email::Email::PACE,
            Kind::Pushover(_) => pushover::Pushover::PACE,
            Kind::Signal(_) => signal::Signal::PACE,
            Kind::Mattermost(_) => mattermost::Mattermost::PACE,
            Kind::Log => log::PACE,
        }
    }

    /// Asks what became of an emergency that was answered with a receipt.
    ///
    /// # Errors
    /// Why it is not known. MessageRefused means that it never will be.
    pub fn poll(&self, receipt: &str) -> Result<ReceiptState, Failure> {
        match &self.kind {
            Kind::Pushover(pushover) => pushover.poll(receipt),
            Kind::Email(_) | Kind::Signal(_) | Kind::Mattermost(_) | Kind::Log => {
                Err(Failure::MessageRefused("this channel gives no receipts".into()))
            }
        }
    }

    /// Whether it gives receipts that may be asked about.
    pub fn gives_receipts(&self) -> bool {
        matches!(self.kind, Kind::Pushover(_))
    }

    /// To whom a message goes, each with a delivery of its own; one `None` where the channel is
    /// sent to as a whole.
    pub fn recipients(&self) -> Vec<Option<String>> {
        match &self.kind {
            Kind::Email(email) => email.recipients.iter().cloned().map(Some).collect(),
            Kind::Pushover(_) | Kind::Signal(_) | Kind::Mattermost(_) | Kind::Log => vec![None],
        }
    }
}
