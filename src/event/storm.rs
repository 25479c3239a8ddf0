//! The kinds of events about storms: many hosts that fell silent together are one piece of news. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::listed;
use super::{Incident, Level, Subject};
use crate::clock::format_duration;

/// From when on hosts that are silent at the same time are a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormLimit {
    /// So many of them at least.
    pub hosts: usize,
    /// More than this share of those that were up before, in percent.
    pub share: usize,
}

impl Default for StormLimit {
    fn default() -> StormLimit {
        StormLimit { hosts: 3, share: 50 }
    }
}

impl StormLimit {
    /// Whether `silent` hosts of `of` are a storm.
    pub fn is_reached(self, silent: usize, of: usize) -> bool {
        silent >= self.hosts && silent * 100 > self.share * of
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn title(event: &StormEvent) -> (Level, String) {
        let described = event.describe();
        (described.level, described.title)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn storms_are_worded_exactly() {
        let began = StormEvent::Began {
            hosts: names(&["nas", "pi4", "web1"]),
            count: 12,
            of: 14,
            within: Duration::from_secs(20),
        };
        let words = "12 of 14 hosts fell silent within 20 s: probably this machine's own uplink";
        assert_eq!(title(&began), (Level::Critical, words.to_owned()));
        let silent = ("silent".to_owned(), "nas, pi4, web1 and 9 more".to_owned());
        assert_eq!(began.describe().details, [silent]);
        let ended = |silent: &[&str], silent_count| StormEvent::Ended {
            count: 12,
            silent: names(silent),
            silent_count,
            gone: Duration::from_secs(240),
        };
        let all = ended(&[], 0);
        assert_eq!(title(&all), (Level::Ok, "the 12 hosts are back (gone for: 4 min)".to_owned()));
        assert_eq!(all.describe().details, []);
        let some = ended(&["nas", "pi4"], 2);
        let words = "10 of the 12 hosts are back; still silent: nas, pi4";
        assert_eq!(title(&some), (Level::Ok, words.to_owned()));
        assert_eq!(some.describe().details, [("gone for".to_owned(), "4 min".to_owned())]);
        let many = ended(&["nas", "pi4"], 6);
        let words = "6 of the 12 hosts are back; still silent: nas, pi4 and 4 more";
        assert_eq!(title(&many).1, words);
        assert_eq!(began.describe().incident.opens(), Some(&Incident::Storm));
        assert_eq!(some.describe().incident.closes(), [Incident::Storm]);
    }

    #[test]
    fn a_storm_is_so_many_hosts_and_more_than_their_share() {
        let limit = StormLimit::default();
        for (silent, of, reached) in [
            (0, 0, false),
            (2, 2, false),
            (2, 14, false),
            (3, 3, true),
            (3, 5, true),
            (3, 6, false),
            (7, 14, false),
            (8, 14, true),
            (50_000, 100_000, false),
            (50_001, 100_000, true),
        ] {
            assert_eq!(limit.is_reached(silent, of), reached, "{silent} of {of}");
        }
        let two = StormLimit { hosts: 2, share: 99 };
        assert!(two.is_reached(2, 2) && !two.is_reached(99, 100) && two.is_reached(100, 100));
    }
}
