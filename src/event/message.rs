//! Messages: an event in words, one title and what more there is to say. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EventId, Level, Subject};
use crate::clock::{Wall, format_duration};

/// How many other hosts an event `overdue` names, or rows an event `alerts_lost`: when
/// a whole site is gone, each of its thousands of events must not carry thousands of names.
pub const MAX_LISTED: usize = 10;

/// The label of the detail that names other hosts that are overdue.
pub(super) const ALSO_OVERDUE: &str = "also overdue";

/// The label of the detail that says what held an event back.
pub const HELD_BACK: &str = "held back";

/// An event in words, which every channel renders in its own way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The event it is about; every message carries it.
    pub event: EventId,
    /// When that happened.
    pub at: Wall,
    /// How much it matters.
    pub level: Level,
    /// What its deliveries are kept in order by.
    pub subject: Subject,
    /// What threads problem, reminder and recovery together: `web1 ipv4`, `web1 cpu_monitor.cpu_percent`.
    pub thread: String,
    /// One line; the exact text of the contract. It may hold foreign text: channels clean it.
    pub title: String,
    /// What more there is to say, as label and text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(String, String)>,
    /// Where more is to be seen: the page of its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// What is best told in rows and columns; channels that cannot show it leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TextTable>,
}

/// Rows and columns. A row may be shorter than the head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextTable {
    /// The names of the columns.
    pub head: Vec<String>,
    /// The rows. They may hold foreign text: channels clean them.
    pub rows: Vec<Vec<String>>,
}

impl Message {
    /// The host that it is about, where it is about one.
    pub fn host(&self) -> Option<&str> {
        match &self.subject {
            Subject::Host(name) => Some(name),
            Subject::Plan(_) | Subject::Channel(_) | Subject::Daemon => None,
        }
    }

    /// The same, where `names` are the first of the `count` other hosts that are overdue and that its
    /// reader is told of.
    #[must_use]
    pub fn with_also_overdue(&self, names: &[String], count: usize) -> Message {
        let mut message = self.clone();
        let place = message.details.iter().position(|(label, _)| label == ALSO_OVERDUE);
        match (place, listed(names, count)) {
            (Some(place), Some(text)) => message.details[place].1 = text,
            (Some(place), None) => drop(message.details.remove(place)),
            (None, _) => {}
        }
        message
    }

    /// Whether its event was held back before.
    pub fn was_held_back(&self) -> bool {
        self.details.iter().any(|(label, _)| label == HELD_BACK)
    }
}

/// To the minute where it is that much: what a datagram was under way is no part of it.
pub fn differing_clocks(by: Duration) -> String {
    let grain = if by < Duration::from_secs(600) { 1000 } else { 60_000 };
    let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX).saturating_add(grain / 2);
    let by = format_duration(Duration::from_millis(millis / grain * grain));
    format!("its datagrams come, but its clock and ours differ by {by}")
}

/// A number as short as it can be written exactly, with at least one decimal: `95.2`, `90.0`. What was
/// measured is shown by [`measured`](super::metric::measured).
pub fn decimal(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// `1 message`, `2 messages`: of a thing whose plural has an s.
pub fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The names, then how many more of `count` there are; nothing where there is no name.
pub fn listed(names: &[String], count: usize) -> Option<String> {
    let all = names.join(", ");
    match count.saturating_sub(names.len()) {
        _ if names.is_empty() => None,
        0 => Some(all),
        more => Some(format!("{all} and {more} more")),
    }
}

/// One below the other, then how many more of `count` there are.
pub fn lines(rows: &[String], count: usize) -> String {
    match count.saturating_sub(rows.len()) {
        0 => rows.join("\n"),
        more => format!("{}\nand {more} more", rows.join("\n")),
    }
}
