//! Messages that were given up, and how that is told. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::{EventId, Incident, Level, Subject};
use crate::btree::InsertAll;
use crate::clock::Wall;

/// How many messages are listed. The others are counted: a notice must fit into one message.
pub const MAX_GIVEN_UP: usize = 20;
/// The longest title, in characters: the shortest limit of a channel is that of a mail's subject.
const MAX_TITLE: usize = 200;

/// Why messages were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GiveUpCause {
    /// The channel could not be reached until their time was over.
    Unreachable,
    /// The channel refused everything until their time was over.
    ChannelRefused,
    /// Their time was over before their turn came.
    Late,
    /// The channel refused these messages for good.
    MessageRefused,
    /// The channel is no longer configured, and no other one takes them.
    ChannelRemoved,
}

/// One message that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenUpMessage {
    /// Its event.
    pub event: EventId,
    /// When that happened.
    pub at: Wall,
    /// How much it mattered.
    pub level: Level,
    /// What it was about.
    pub subject: Subject,
    /// It was for those who hear about backups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_backups: bool,
    /// What it said.
    pub title: String,
    /// The incident that it opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Incident>,
    /// That incident is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}

impl GivenUpMessage {
    /// How much it still matters.
    fn present_level(&self) -> Level {
        if self.over { Level::Info } else { self.level.max(Level::Info) }
    }
}

/// Messages that one channel was to deliver and that were given up for one cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The channel.
    pub channel: String,
    /// The recipient, where the cause concerns one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Why.
    pub cause: GiveUpCause,
    /// The most important twenty, in order.
    pub messages: Vec<GivenUpMessage>,
    /// How many there are in all.
    pub count: usize,
    /// How the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What they said is left out: a provider refused a notice with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untitled: bool,
}

impl GivenUp {
    /// Whether both are told as one.
    pub fn is_same_kind(&self, other: &GivenUp) -> bool {
        (&self.channel, &self.recipient, self.cause)
            == (&other.channel, &other.recipient, other.cause)
    }

    /// Adds others of the same kind. One that is listed already is the same: each recipient of a
    /// channel has a delivery of its own.
    pub fn merge(&mut self, other: GivenUp) {
        let listed: BTreeSet<EventId> =
            self.messages.iter().map(|message| message.event).insert_all();
        let unlisted = other.unlisted();
        let new = other.messages.into_iter().filter(|message| !listed.contains(&message.event));
        self.messages.extend(new);
        self.count += self.messages.len() - listed.len() + unlisted;
        // Of equal ones the first, so that the list begins where it all began.
        self.messages
            .sort_unstable_by_key(|message| (Reverse(message.present_level()), message.event));
        self.messages.truncate(MAX_GIVEN_UP);
        self.messages.sort_unstable_by_key(|message| message.event);
        self.why = other.why.or(self.why.take());
    }

    /// The same with no more than are listed.
    #[must_use]
    pub fn abridged(&self) -> GivenUp {
        let mut abridged = GivenUp { count: 0, ..self.part(Vec::new()) };
        abridged.merge(self.clone());
        abridged
    }

    fn unlisted(&self) -> usize {
        self.count.saturating_sub(self.messages.len())
    }

    /// Only these of its messages, and those that are not listed where these are all.
    pub fn part(&self, messages: Vec<GivenUpMessage>) -> GivenUp {
        let is_all = messages.len() == self.messages.len();
        let count = messages.len() + if is_all { self.unlisted() } else { 0 };
        let GivenUp { channel, recipient, cause, why, untitled, .. } = self;
        let (cause, untitled) = (*cause, *untitled);
        let (channel, recipient, why) = (channel.clone(), recipient.clone(), why.clone());
        GivenUp { channel, recipient, cause, messages, count, why, untitled }
    }

    /// The highest level of what is not over.
    pub fn level(&self) -> Level {
        self.messages.iter().map(GivenUpMessage::present_level).max().unwrap_or(Level::Info)
    }

    pub(super) fn describe(&self) -> EventDescription {
        let subject = Subject::Channel(self.channel.clone());
        let described = EventDescription::new("given_up", self.level(), subject, self.title());
        EventDescription { details: self.details(), ..described }
    }

    fn title(&self) -> String {
        let (messages, them) = match self.count {
            1 => ("1 message was".to_owned(), "it"),
            count => (format!("{count} messages were"), "them"),
        };
        let channel = &self.channel;
        let cause = match (self.cause, &self.recipient) {
            (GiveUpCause::Unreachable, None) => format!("while {channel} could not be reached"),
            (GiveUpCause::Unreachable, Some(one)) => {
                format!("while {channel} could not reach {one}")
            }
            (GiveUpCause::ChannelRefused, None) => format!("while {channel} refused everything"),
            (GiveUpCause::ChannelRefused, Some(one)) => format!("while {channel} refused {one}"),
            (GiveUpCause::Late, _) => format!("because their turn at {channel} came too late"),
            (GiveUpCause::MessageRefused, None) => format!("because {channel} refused {them}"),
            (GiveUpCause::MessageRefused, Some(one)) => {
                format!("because {channel} refused {them} for {one}")
            }
            (GiveUpCause::ChannelRemoved, _) => {
                format!(
                    "because {channel} is no longer configured and no other channel takes {them}"
                )
            }
        };
        let head = format!("{messages} given up {cause}");
        if self.untitled { head } else { self.with_titles(head + ": ") }
    }

    /// As many titles as fit, each once, and how many messages they leave out.
    fn with_titles(&self, mut line: String) -> String {
        let mut titles: Vec<(&str, usize, bool)> = Vec::new();
        for message in &self.messages {
            let same = |(title, _, over): &&mut (&str, usize, bool)| {
                *title == message.title && *over == message.over
            };
            match titles.iter_mut().find(same) {
                Some((_, times, _)) => *times += 1,
                None => titles.push((&message.title, 1, message.over)),
            }
        }
        let mut left = self.count;
        for (index, (title, times, over)) in titles.into_iter().enumerate() {
            let more = |left: usize| {
                if left == 0 { String::new() } else { format!(" and {left} more") }
            };
            let often = if times > 1 { format!(" ({times} times)") } else { String::new() };
            let over = if over { " (over)" } else { "" };
            let separator = if index == 0 { "" } else { ", " };
            let around = [separator, often.as_str(), over, &more(left - times)].concat();
            let room = MAX_TITLE.saturating_sub(line.chars().count() + around.chars().count());
            let fits = title.chars().count() <= room;
            if !fits && index > 0 {
                break;
            }
            left -= times;
            line.push_str(separator);
            line.push_str(&if fits { title.to_owned() } else { shortened(title, room) });
            line.push_str(&often);
            line.push_str(over);
        }
        if left > 0 { format!("{line} and {left} more") } else { line }
    }

    fn details(&self) -> Vec<(String, String)> {
        let listed = |message: &GivenUpMessage| {
            let over = if message.over { ", over" } else { "" };
            let GivenUpMessage { event, at, level, title, .. } = message;
            (at.local().to_string(), format!("{}{over}: {title} [{event}]", level.name()))
        };
        let shown = if self.untitled { &[] } else { self.messages.as_slice() };
        let left = self.count.saturating_sub(shown.len());
        let rest = (left > 0).then(|| {
            ("not listed".to_owned(), format!("{left}, see /api/v1/notifications or the log"))
        });
        let why = self.why.clone().filter(|_| !self.untitled);
        let why = why.map(|why| ("last failure".to_owned(), why));
        shown.iter().map(listed).chain(rest).chain(why).collect()
    }
}

/// The beginning of `text`, in `room` characters.
fn shortened(text: &str, room: usize) -> String {
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(cause: GiveUpCause, titles: &[&str]) -> GivenUp {
        let messages = titles.iter().zip(1..).map(|(title, number)| GivenUpMessage {
            event: EventId(number),
            at: Wall(0),
            level: Level::Warning,
            subject: Subject::Host("web1".into()),
            for_backups: false,
            title: (*title).to_owned(),
            opens: None,
            over: false,
        });
        let messages: Vec<_> = messages.collect();
        let count = messages.len();
        let channel = "mm".to_owned();
        GivenUp { channel, recipient: None, cause, messages, count, why: None, untitled: false }
    }

    #[test]
    fn the_words_are_true_for_the_cause() {
        let one = |cause| given_up(cause, &["web1 raid failed"]).title();
        let two = |cause| given_up(cause, &["a", "b"]).title();
        assert_eq!(
            two(GiveUpCause::Unreachable),
            "2 messages were given up while mm could not be reached: a, b"
        );
        assert_eq!(
            one(GiveUpCause::MessageRefused),
            "1 message was given up because mm refused it: web1 raid failed"
        );
        assert_eq!(
            two(GiveUpCause::ChannelRefused),
            "2 messages were given up while mm refused everything: a, b"
        );
        let mut of_one = given_up(GiveUpCause::Unreachable, &["a"]);
        of_one.recipient = Some("ann@example.com".into());
        assert_eq!(
            of_one.title(),
            "1 message was given up while mm could not reach ann@example.com: a"
        );
    }

    #[test]
    fn a_title_is_short_whatever_was_given_up_and_counts_what_it_leaves_out() {
        let long = "x".repeat(500);
        for count in [1, 3, 20] {
            let titles: Vec<String> = (0..count).map(|n| format!("{n}{long}")).collect();
            let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
            let title = given_up(GiveUpCause::Unreachable, &titles).title();
            assert!(title.chars().count() <= MAX_TITLE, "{title}");
            assert_eq!(title.ends_with(&format!(" and {} more", count - 1)), count > 1, "{title}");
        }
        let same = given_up(GiveUpCause::Unreachable, &["raid failed", "disk", "raid failed"]);
        assert!(same.title().ends_with(": raid failed (2 times), disk"), "{}", same.title());
    }

    #[test]
    fn of_very_many_the_list_took_time_by_the_square_of_their_number() {
        let mut one = given_up(GiveUpCause::Unreachable, &["a"]);
        let message = |number| GivenUpMessage { event: EventId(number), ..one.messages[0].clone() };
        let messages: Vec<_> = (0..200_000).map(message).collect();
        let all = one.part(messages);
        one.merge(GivenUp { count: 200_000, ..all });
        assert_eq!((one.count, one.messages.len()), (200_000, MAX_GIVEN_UP));
        assert_eq!(one.messages[19].event, EventId(19));
    }

    #[test]
    fn of_many_the_most_important_are_listed_and_all_are_counted() {
        let titles: Vec<String> = (0..15).map(|n| format!("t{n}")).collect();
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        let mut all = given_up(GiveUpCause::Unreachable, &titles);
        let mut others = given_up(GiveUpCause::Unreachable, &titles);
        for message in &mut others.messages {
            message.event.0 += 100;
        }
        others.messages[14].level = Level::Critical;
        all.merge(others.clone());
        all.merge(others);
        assert_eq!((all.count, all.messages.len()), (30 + 10, MAX_GIVEN_UP));
        assert_eq!(all.messages[19].event, EventId(115));
        assert_eq!(all.level(), Level::Critical);
    }
}
