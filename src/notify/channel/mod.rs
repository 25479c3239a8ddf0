//! The channels: the configuration of each, and one attempt to deliver a message through it.
//!
//! A channel is one file here, a variant of [`ChannelKind`] and its arms. A channel never logs,
//! sleeps or retries: it makes one attempt and returns how that ended, in the words of [`attempt`].

use crate::config_file::Section;
use crate::event::{EventId, Level};

pub mod attempt;
pub mod email;
pub(crate) mod http_client;
pub mod log;
pub mod mattermost;
pub mod pushover;
pub mod signal;

pub use attempt::{Delivered, Failure, OutgoingMessage, ReceiptState, RetryPolicy, Scope};

/// What channels remember from one attempt to the next, by account and by hook. It outlives a
/// configuration, and all deliveries of a process share one.
#[derive(Debug, Default)]
pub struct SharedState {
    signal_accounts: signal::AccountLocks,
    mattermost_hooks: mattermost::HookHistory,
}

/// The provider of a channel, by its `type`.
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
    /// Its provider.
    pub kind: ChannelKind,
    /// Events below this level are not sent (but the recovery of an alarm that was sent is).
    pub min_level: Level,
}

/// The values of `type`.
#[derive(Clone, Copy)]
enum ChannelType {
    Email,
    Pushover,
    Signal,
    Mattermost,
    Log,
}

/// Why a message is not sent that must not be.
pub(super) const NOT_SENT: &str = "it may not be sent at present";

const TYPES: [(&str, ChannelType); 5] = [
    ("email", ChannelType::Email),
    ("pushover", ChannelType::Pushover),
    ("signal", ChannelType::Signal),
    ("mattermost", ChannelType::Mattermost),
    ("log", ChannelType::Log),
];

/// The keys of all types together: whatever the type is, no other one can be right.
const KEYS: [&str; 29] = [
    "recipients",
    "sender",
    "smtp_server",
    "smtp_port",
    "smtp_user",
    "smtp_password",
    "smtp_password_file",
    "tls",
    "ca_file",
    "helo",
    "token",
    "token_file",
    "user",
    "user_file",
    "priority",
    "retry",
    "expire",
    "sound",
    "device",
    "api_url",
    "cli_path",
    "recipient",
    "rpc",
    "host",
    "channel",
    "username",
    "icon",
    "bot_token",
    "bot_token_file",
];

const MIN_LEVELS: [(&str, Level); 3] =
    [("info", Level::Info), ("warning", Level::Warning), ("critical", Level::Critical)];

impl Channel {
    /// Reads one entry of `notification_channels`.
    pub fn read(section: &mut Section) -> Channel {
        section.require_choice("type", &TYPES);
        let min_level = section.choice("min_level", &MIN_LEVELS).unwrap_or(Level::Info);
        let kind = match section.choice("type", &TYPES) {
            Some(ChannelType::Email) => ChannelKind::Email(email::Email::read(section)),
            Some(ChannelType::Pushover) => ChannelKind::Pushover(pushover::Pushover::read(section)),
            Some(ChannelType::Signal) => ChannelKind::Signal(signal::Signal::read(section)),
            Some(ChannelType::Mattermost) => {
                ChannelKind::Mattermost(mattermost::Mattermost::read(section))
            }
            Some(ChannelType::Log) => ChannelKind::Log,
            None => {
                section.ignore_known(&KEYS);
                ChannelKind::Log
            }
        };
        Channel { kind, min_level }
    }

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
        self.deliver_if(outgoing, state, &|| true)
    }

    /// The same where `may_send` says so, which is asked when there is nothing left to wait for.
    ///
    /// # Errors
    /// How it ended when it did not arrive, or was not sent.
    pub fn deliver_if(
        &self,
        outgoing: &OutgoingMessage,
        state: &SharedState,
        may_send: &dyn Fn() -> bool,
    ) -> Result<Delivered, Failure> {
        match &self.kind {
            ChannelKind::Signal(signal) => {
                signal.deliver(outgoing, &state.signal_accounts, may_send)
            }
            _ if !may_send() => Err(Failure::unreachable(NOT_SENT)),
            ChannelKind::Email(email) => email.deliver(outgoing),
            ChannelKind::Pushover(pushover) => pushover.deliver(outgoing),
            ChannelKind::Mattermost(mattermost) => {
                mattermost.deliver(outgoing, &state.mattermost_hooks)
            }
            ChannelKind::Log => log::deliver(outgoing),
        }
    }

    /// Rate, retries and expiry.
    pub fn retry_policy(&self) -> RetryPolicy {
        match &self.kind {
            ChannelKind::Email(_) => email::Email::RETRY_POLICY,
            ChannelKind::Pushover(_) => pushover::Pushover::RETRY_POLICY,
            ChannelKind::Signal(_) => signal::Signal::RETRY_POLICY,
            ChannelKind::Mattermost(_) => mattermost::Mattermost::RETRY_POLICY,
            ChannelKind::Log => log::RETRY_POLICY,
        }
    }

    /// Queries the state of an emergency by its receipt.
    ///
    /// # Errors
    /// Why it is not known. MessageRefused: it never will be.
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

    /// Ends an emergency that a person has seen; its state is that it is over.
    ///
    /// # Errors
    /// Why it may go on. MessageRefused: there is nothing to end.
    pub fn cancel(&self, event: EventId) -> Result<ReceiptState, Failure> {
        match &self.kind {
            ChannelKind::Pushover(pushover) => pushover.cancel_emergency(event),
            ChannelKind::Email(_)
            | ChannelKind::Signal(_)
            | ChannelKind::Mattermost(_)
            | ChannelKind::Log => {
                Err(Failure::MessageRefused("this channel gives no receipts".into()))
            }
        }
    }

    /// Whether it gives receipts that can be polled.
    pub fn gives_receipts(&self) -> bool {
        matches!(self.kind, ChannelKind::Pushover(_))
    }

    /// The recipients, each with a delivery of its own; one `None` where a channel has no
    /// recipients of its own.
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
