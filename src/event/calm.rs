//! The kinds of events about what is held back: silences, acknowledgements, notes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::{HELD_BACK, MAX_LISTED, counted, lines, listed};
use super::{FlapEvent, Level, StormEvent, Subject};
use crate::clock::format_duration;

/// What happened about what is held back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CalmEvent {
    /// A silence began: from now on alarms within it are held back.
    Silenced(SilenceNotice),
    /// A silence is over; what it held back follows.
    Unsilenced {
        scope: String,
        host: Option<String>,
        /// `s17`.
        id: String,
        /// Who ended it; none: its time was over.
        by: Option<String>,
    },
    /// A person has seen open alarms: no more reminders of these.
    Acknowledged {
        host: Option<String>,
        /// The alarms, as they were told.
        alarms: Vec<String>,
        /// Who, or through which channel.
        by: String,
        comment: Option<String>,
        /// Taken back by an operator.
        undone: bool,
    },
    /// What was held back cannot be read any more.
    HeldLost {
        /// The keys of the rows, at most [`MAX_LISTED`] of them.
        keys: Vec<String>,
        /// How many there are in all.
        count: usize,
    },
    /// Messages about a host that came while it was silenced.
    Notes {
        host: String,
        /// The worst of them.
        level: Level,
        /// None of them is told of a host that is not watched.
        watched_only: bool,
        /// What they say, the oldest first.
        texts: Vec<String>,
        /// How many there are in all.
        count: usize,
        /// What held them back: `until ..., by s17 of ann`.
        held_back: String,
    },
    /// Hosts that fall silent together, or are back.
    Storm(StormEvent),
    /// A connection or a metric that changes again and again, or no longer.
    Flap(FlapEvent),
}

/// A silence as its beginning reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceNotice {
    /// What is silent: `web*`, `web1/ipv4`, `plan:4`, `--all`.
    pub scope: String,
    /// The host, where it is about exactly one.
    pub host: Option<String>,
    /// `s17`; empty while the host only asks for it.
    pub id: String,
    /// For how long; zero ends it.
    pub length: Duration,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub comment: Option<String>,
    /// The host asked for it itself.
    pub by_host: bool,
}

impl SilenceNotice {
    /// Whether a host only asks for it.
    pub fn is_wish(&self) -> bool {
        self.by_host && self.id.is_empty()
    }
}

impl CalmEvent {
    /// What an event of this kind means.
    pub fn describe(&self) -> EventDescription {
        match self {
            CalmEvent::Silenced(notice) => silenced(notice),
            CalmEvent::Unsilenced { scope, host, id, by } => {
                unsilenced(scope, host.as_deref(), id, by.as_deref())
            }
            CalmEvent::Acknowledged { host, alarms, by, comment, undone } => {
                acknowledged(host.as_deref(), alarms, by, *undone)
                    .detail_if("comment", comment.clone())
            }
            CalmEvent::HeldLost { keys, count } => held_lost(keys, *count),
            CalmEvent::Storm(event) => event.describe(),
            CalmEvent::Flap(event) => event.describe(),
            CalmEvent::Notes { host, level, watched_only, texts, count, held_back } => {
                let described = notes(host, *level, texts, *count);
                EventDescription { watched_only: *watched_only, ..described }
                    .detail(HELD_BACK, held_back.as_str())
            }
        }
    }
}

fn recorded(name: &'static str, host: Option<&str>, title: String) -> EventDescription {
    let subject = host.map_or(Subject::Daemon, |host| Subject::Host(host.to_owned()));
    let described = EventDescription::new(name, Level::Info, subject, title);
    EventDescription { history_only: true, ..described }
}

fn silenced(notice: &SilenceNotice) -> EventDescription {
    let SilenceNotice { scope, host, id, length, by, comment, by_host } = notice;
    let title = match (by_host, length.is_zero()) {
        (true, true) => format!("{scope} ends its own silence"),
        (true, false) => format!("{scope} silences itself for {}", format_duration(*length)),
        (false, _) => format!("{scope} is silenced for {}", format_duration(*length)),
    };
    recorded("silenced", host.as_deref(), title)
        .detail_if("silence", (!id.is_empty()).then(|| id.clone()))
        .detail_if("by", (!by_host).then(|| by.clone()))
        .detail_if("comment", comment.clone())
}

fn unsilenced(scope: &str, host: Option<&str>, id: &str, by: Option<&str>) -> EventDescription {
    recorded("unsilenced", host, format!("{scope} is no longer silenced"))
        .detail("silence", id)
        .detail_if("ended by", by.map(str::to_owned))
}

fn acknowledged(host: Option<&str>, alarms: &[String], by: &str, undone: bool) -> EventDescription {
    let what = listed(&alarms[..alarms.len().min(MAX_LISTED)], alarms.len()).unwrap_or_default();
    let title = match undone {
        false => format!("acknowledged: {what}"),
        true => format!("no longer acknowledged: {what}"),
    };
    recorded("acknowledged", host, title).detail("by", by)
}

fn held_lost(keys: &[String], count: usize) -> EventDescription {
    let title = "hbd could not read what it held back";
    EventDescription::of_daemon("held_lost", Level::Critical, title)
        .detail("not readable", lines(keys, count))
        .detail("lost", "silences that were set, or alarms that they held back")
        .detail("to do", "look at what is wrong at present: hbd status")
}

/// What was said while the host was silenced, in one message.
fn notes(host: &str, level: Level, texts: &[String], count: usize) -> EventDescription {
    let title = format!("{host}: {} came while it was silenced", counted(count, "message"));
    EventDescription::of_host("notes", level, host, title).detail("messages", lines(texts, count))
}
