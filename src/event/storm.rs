//! The kinds of events about storms: many hosts that fell silent together are one piece of news. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::listed;
use super::{Incident, Level, Subject};
use crate::clock::format_duration;

/// What happened to hosts that fell silent together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StormEvent {
    /// So many hosts fell silent together that the reason is hardly in each of them.
    Began {
        /// The hosts, at most [`MAX_LISTED`](super::MAX_LISTED) of them.
        hosts: Vec<String>,
        /// How many there are in all.
        count: usize,
        /// How many hosts were looked at: these and those that beat on.
        of: usize,
        /// The time between the first and the last of their last beats.
        within: Duration,
    },
    /// Most of them beat again.
    Ended {
        /// How many fell silent in all.
        count: usize,
        /// Those that are silent still, at most [`MAX_LISTED`](super::MAX_LISTED) of them.
        silent: Vec<String>,
        /// How many of these there are in all.
        silent_count: usize,
        /// How long the storm lasted.
        gone: Duration,
    },
}

impl StormEvent {
    /// What an event of this kind means.
    pub fn describe(&self) -> EventDescription {
        match self {
            StormEvent::Began { hosts, count, of, within } => {
                began(*count, *of, *within).detail_if("silent", listed(hosts, *count))
            }
            StormEvent::Ended { count, silent, silent_count, gone } => {
                ended(*count, listed(silent, *silent_count), *silent_count, *gone)
            }
        }
    }
}

fn began(count: usize, of: usize, within: Duration) -> EventDescription {
    let within = format_duration(within);
    let title = format!(
        "{count} of {of} hosts fell silent within {within}: probably this machine's own uplink"
    );
    EventDescription::new("storm", Level::Critical, Subject::Daemon, title).about(Incident::Storm)
}

fn ended(
    count: usize,
    silent: Option<String>,
    silent_count: usize,
    gone: Duration,
) -> EventDescription {
    let title = match &silent {
        None => format!("the {count} hosts are back (gone for: {})", format_duration(gone)),
        Some(names) => {
            let back = count.saturating_sub(silent_count);
            format!("{back} of the {count} hosts are back; still silent: {names}")
        }
    };
    EventDescription::new("storm_over", Level::Ok, Subject::Daemon, title)
        .about(Incident::Storm)
        .detail_if("gone for", silent.map(|_| format_duration(gone)))
}
