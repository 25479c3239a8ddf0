//! The channels: what they are configured with, and how one attempt of each can end.
//!
//! A channel is one file here, one arm in [`Channel`] and its matches. A channel never logs,
//! sleeps or retries: it makes one attempt and says how that ended.

use crate::config_file::Section;
use crate::event::Level;

pub mod attempt;
pub mod email;
pub(crate) mod http_client;
pub mod log;
pub mod mattermost;
pub mod pushover;
pub mod signal;

pub use attempt::{Delivered, Failure, OutgoingMessage, ReceiptState, RetryPolicy};

/// What channels know from one attempt to the next, by what it is about: an account, a hook. It outlives
/// the configuration, and everything in a process that delivers shares one.
#[derive(Debug, Default)]
pub struct SharedState {
    signal_accounts: signal::AccountLocks,
    mattermost_hooks: mattermost::HookHistory,
}

/// What a channel is, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum ChannelKind {
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
pub struct Channel {
    /// What it is.
    pub kind: ChannelKind,
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

impl Channel {
    /// Reads one entry of `notification_channels`.
    pub fn read(section: &mut Section) -> Channel {
        section.require("type");
        let min_level = section.choice("min_level", &MIN_LEVELS).unwrap_or(Level::Info);
        let kind = match section.choice("type", &TYPES) {
            Some(Type::Email) => ChannelKind::Email(email::Email::read(section)),
            Some(Type::Pushover) => ChannelKind::Pushover(pushover::Pushover::read(section)),
            Some(Type::Signal) => ChannelKind::Signal(signal::Signal::read(section)),
            Some(Type::Mattermost) => {
                ChannelKind::Mattermost(mattermost::Mattermost::read(section))
            }
            Some(Type::Log) => ChannelKind::Log,
            None => {
                section.ignore_rest();
                ChannelKind::Log
            }
        };
        Channel { kind, min_level }
    }
}

impl Channel {
    /// Its `type`.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            ChannelKind::Email(_) => "email",
            ChannelKind::Pushover(_) => "pushover",
            ChannelKind::Signal(_) => "signal",
            ChannelKind::Mattermost(_) => "mattermost",
            ChannelKind::Log => "log",
        }
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// How it ended when it did not arrive.
    pub fn deliver(
        &self,
        outgoing: &OutgoingMessage,
        state: &SharedState,
    ) -> Result<Delivered, Failure> {
        match &self.kind {
            ChannelKind::Email(email) => email.deliver(outgoing),
            ChannelKind::Pushover(pushover) => pushover.deliver(outgoing),
            ChannelKind::Signal(signal) => signal.deliver(outgoing, &state.signal_accounts),
            ChannelKind::Mattermost(mattermost) => {
                mattermost.deliver(outgoing, &state.mattermost_hooks)
            }
            ChannelKind::Log => log::deliver(outgoing),
        }
    }

    /// How fast it may be used, and for how long it is tried.
    pub fn pace(&self) -> RetryPolicy {
        match &self.kind {
            ChannelKind::Email(_) => email::Email::RETRY_POLICY,
            ChannelKind::Pushover(_) => pushover::Pushover::RETRY_POLICY,
            ChannelKind::Signal(_) => signal::Signal::RETRY_POLICY,
            ChannelKind::Mattermost(_) => mattermost::Mattermost::RETRY_POLICY,
            ChannelKind::Log => log::RETRY_POLICY,
        }
    }

    /// Asks what became of an emergency that was answered with a receipt.
    ///
    /// # Errors
    /// Why it is not known. MessageRefused means that it never will be.
    pub fn poll(&self, receipt: &str) -> Result<ReceiptState, Failure> {
        match &self.kind {
            ChannelKind::Pushover(pushover) => pushover.poll(receipt),
            ChannelKind::Email(_)
            | ChannelKind::Signal(_)
            | ChannelKind::Mattermost(_)
            | ChannelKind::Log => {
                Err(Failure::MessageRefused("this channel gives no receipts".into()))
            }
        }
    }

    /// Whether it gives receipts that may be asked about.
    pub fn gives_receipts(&self) -> bool {
        matches!(self.kind, ChannelKind::Pushover(_))
    }

    /// To whom a message goes, each with a delivery of its own; one `None` where the channel is
    /// sent to as a whole.
    pub fn recipients(&self) -> Vec<Option<String>> {
        match &self.kind {
            ChannelKind::Email(email) => email.recipients.iter().cloned().map(Some).collect(),
            ChannelKind::Pushover(_)
            | ChannelKind::Signal(_)
            | ChannelKind::Mattermost(_)
            | ChannelKind::Log => vec![None],
        }
    }
}
