//! One attempt of a channel: what is sent, how it can end, and how often it is repeated. Pure.

use std::time::Duration;

use crate::clock::{Wall, format_duration};
use crate::event::{EventId, Level, Message};
use crate::notify::text::{LineBreaks, TextLimit, TextUnit, clean, cut};

/// A message that is sent later than this after its event says when that was.
const LATE_AFTER: Duration = Duration::from_secs(60);

/// One message on its way to one channel (and, where a channel sends to each of several
/// recipients on its own, to one of them).
#[derive(Clone, Copy, Debug)]
pub struct OutgoingMessage<'a> {
    /// The name of the channel.
    pub channel: &'a str,
    /// What it says.
    pub message: &'a Message,
    /// The recipient, for channels with one delivery per recipient.
    pub recipient: Option<&'a str>,
    /// An earlier attempt may have arrived: the text must say so.
    pub possible_repeat: bool,
    /// An earlier attempt was refused for its form or size: send it short and plain.
    pub short_form: bool,
    /// The thread that this channel opened for the first message ([`Delivered::thread`]).
    pub thread: Option<&'a str>,
    /// The events that were delivered through this channel and whose incidents this message closes.
    pub recovered_events: &'a [EventId],
    /// The time of this attempt.
    pub now: Wall,
}

impl OutgoingMessage<'_> {
    /// What the text says besides the message: when that happened, if it is sent late, and that it
    /// may have arrived before.
    pub fn annotations(&self) -> Vec<String> {
        late(self.message.at, self.now)
            .into_iter()
            .chain(self.possible_repeat.then(|| "possible repeat of an earlier message".into()))
            .collect()
    }

    /// The message as plain lines, its event id last, in at most `limit` units. What is too long is
    /// cut before the annotations and the event id, which are always there.
    pub fn plain_text(&self, limit: usize, unit: TextUnit) -> String {
        self.text_with_link(None, limit, unit)
    }

    /// The same with the link of the message before its annotations.
    pub fn linked_text(&self, limit: usize, unit: TextUnit) -> String {
        self.text_with_link(self.message.link.as_deref(), limit, unit)
    }

    fn text_with_link(&self, link: Option<&str>, limit: usize, unit: TextUnit) -> String {
        let message = self.message;
        let mut body = clean(&message.title, LineBreaks::Keep);
        let details = if self.short_form { &[] } else { message.details.as_slice() };
        for (label, text) in details {
            let label = clean(label, LineBreaks::Remove);
            body.push_str(&format!("\n{label}: {}", clean(text, LineBreaks::Keep)));
        }
        let mut end = String::new();
        if let Some(link) = link.filter(|_| !self.short_form) {
            end.push_str(&format!("\n{link}"));
        }
        for remark in self.annotations() {
            end.push_str(&format!("\n{remark}"));
        }
        end.push_str(&format!("\nevent {}", message.event));
        cut(&body, limit.saturating_sub(unit.count(&end)), unit) + &end
    }
}

fn late(at: Wall, now: Wall) -> Option<String> {
    let delay = now.since(at);
    (delay > LATE_AFTER).then(|| {
        format!("happened at {}, {} before this was sent", at.local(), format_duration(delay))
    })
}

/// What a provider gave for a message that it accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// A receipt to query the acknowledgement with (Pushover).
    pub receipt: Option<String>,
    /// The thread for later messages about the same (the id of a Mattermost post).
    pub thread: Option<String>,
}

/// What a failure was said about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The channel: what is for another recipient would end likewise.
    Channel,
    /// The recipient of the message; nothing is known of others.
    Recipient,
}

/// Why a message did not arrive, by what the queue does next. The texts never hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Trying again may help; the provider may have said when.
    Unreachable { why: String, retry_after: Option<Duration>, scope: Scope },
    /// This message will never be taken.
    MessageRefused(String),
    /// Nothing will be taken until the operator changes something, or until the hint has passed.
    ChannelRefused { why: String, retry_after: Option<Duration>, scope: Scope },
    /// This form is refused: try once more as short plain text ([`OutgoingMessage::short_form`]).
    FormRefused(String),
    /// It may or may not have arrived.
    Unknown(String),
}

impl Failure {
    /// [`Failure::Unreachable`] where the provider gave no hint.
    pub fn unreachable(why: impl Into<String>) -> Failure {
        Failure::Unreachable { why: why.into(), retry_after: None, scope: Scope::Channel }
    }

    /// [`Failure::Unreachable`] for one recipient.
    pub fn recipient_deferred(why: impl Into<String>) -> Failure {
        Failure::Unreachable { why: why.into(), retry_after: None, scope: Scope::Recipient }
    }

    /// [`Failure::ChannelRefused`], said about one recipient.
    pub fn recipient_refused(why: impl Into<String>) -> Failure {
        Failure::ChannelRefused { why: why.into(), retry_after: None, scope: Scope::Recipient }
    }

    /// [`Failure::ChannelRefused`] until the operator changes something.
    pub fn channel_refused(why: impl Into<String>) -> Failure {
        Failure::ChannelRefused { why: why.into(), retry_after: None, scope: Scope::Channel }
    }

    /// Its text alone.
    pub fn into_why(self) -> String {
        match self {
            Failure::Unreachable { why, .. }
            | Failure::ChannelRefused { why, .. }
            | Failure::MessageRefused(why)
            | Failure::FormRefused(why)
            | Failure::Unknown(why) => why,
        }
    }

    /// The label in the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Failure::Unreachable { .. } => "unreachable",
            Failure::Unknown(_) => "unknown",
            Failure::MessageRefused(_) | Failure::FormRefused(_) => "message_refused",
            Failure::ChannelRefused { .. } => "channel_refused",
        }
    }

    /// The same failure with another text.
    #[must_use]
    pub fn map_why(self, reword: impl FnOnce(String) -> String) -> Failure {
        match self {
            Failure::Unreachable { why, retry_after, scope } => {
                Failure::Unreachable { why: reword(why), retry_after, scope }
            }
            Failure::MessageRefused(why) => Failure::MessageRefused(reword(why)),
            Failure::FormRefused(why) => Failure::FormRefused(reword(why)),
            Failure::ChannelRefused { why, retry_after, scope } => {
                Failure::ChannelRefused { why: reword(why), retry_after, scope }
            }
            Failure::Unknown(why) => Failure::Unknown(reword(why)),
        }
    }
}

/// How fast a channel may be used, how failures are retried, and when a delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay after the first failure; it doubles from there.
    pub first_delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
    /// Attempts a minute, on average.
    pub per_minute: u32,
    /// Attempts at once, after a quiet time.
    pub burst: u32,
    /// How long a critical delivery is retried.
    pub give_up_critical: Duration,
    /// How long a warning is retried.
    pub give_up_warning: Duration,
    /// How long a delivery of level ok or info is retried.
    pub give_up_other: Duration,
    /// The longest digest of a backlog; none where each message is sent by itself.
    pub digest: Option<TextLimit>,
}

impl RetryPolicy {
    /// How long a delivery of this level is retried before it is given up.
    pub fn give_up(&self, level: Level) -> Duration {
        match level {
            Level::Critical => self.give_up_critical,
            Level::Warning => self.give_up_warning,
            Level::Ok | Level::Info => self.give_up_other,
        }
    }
}

/// The state of an emergency that has a receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptState {
    /// When a person acknowledged it.
    pub acknowledged: Option<Wall>,
    /// On which device.
    pub device: Option<String>,
    /// Whether it was repeated to its end without an acknowledgement.
    pub expired: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Subject;

    fn message(title: &str) -> Message {
        Message {
            event: EventId(1),
            at: Wall(1_000_000),
            level: Level::Warning,
            subject: Subject::Daemon,
            thread: String::new(),
            title: title.into(),
            details: vec![("why".into(), "because".into())],
            link: None,
            table: None,
        }
    }

    fn outgoing(message: &Message, after: i64) -> OutgoingMessage<'_> {
        OutgoingMessage {
            channel: "chat",
            message,
            recipient: None,
            possible_repeat: false,
            short_form: false,
            thread: None,
            recovered_events: &[],
            now: Wall(message.at.0 + after),
        }
    }

    #[test]
    fn a_late_or_repeated_message_says_so_however_long_it_is() {
        let long = message(&"x".repeat(5000));
        let text = OutgoingMessage { possible_repeat: true, ..outgoing(&long, 65_000) }
            .plain_text(200, TextUnit::Characters);
        assert!(text.ends_with(
            "…\nhappened at 1970-01-01 00:16:40 UTC, 1 min 5 s before this was sent\n\
             possible repeat of an earlier message\nevent 00000000000001"
        ));
        assert_eq!(text.chars().count(), 200);
    }

    #[test]
    fn a_message_in_time_is_its_title_its_details_and_its_event() {
        let message = message("web1 ipv4 overdue");
        assert_eq!(
            outgoing(&message, 60_000).plain_text(1000, TextUnit::Bytes),
            "web1 ipv4 overdue\nwhy: because\nevent 00000000000001"
        );
        let short = OutgoingMessage { short_form: true, ..outgoing(&message, 0) };
        assert_eq!(
            short.plain_text(1000, TextUnit::Bytes),
            "web1 ipv4 overdue\nevent 00000000000001"
        );
    }
}
