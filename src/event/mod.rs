//! Facts and the words for them: a feature produces an [`Event`], one function words it. Pure.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Wall;

mod incident;
mod kind;
mod message;

pub use self::incident::Incident;
pub use self::message::decimal;

/// How much an event matters. Ordered: `Ok < Info < Warning < Critical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A trouble is over. Goes to whoever was told of the trouble, whatever their `min_level`.
    Ok,
    /// Worth knowing.
    Info,
    /// Worth a look today.
    Warning,
    /// Worth waking somebody.
    Critical,
}

impl Level {
    /// The name in configuration and APIs: `ok`, `info`, `warning`, `critical`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// In capitals, as threshold messages spell it.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Level::Ok => "OK",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
        })
    }
}

/// The number of an event: unique over restarts and rising. Prints as 14 hex digits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EventId(pub u64);

impl EventId {
    /// The next number: made of the time, so that it stays unique when the store was lost.
    #[must_use]
    pub fn next(self, now: Wall) -> EventId {
        let from_time = u64::try_from(now.0).unwrap_or(0) << 12;
        EventId(from_time.max(self.0 + 1))
    }

    /// A number that is unique without a store: greater than every other one of this process that
    /// was made so, and unlikely to be that of an event or of another process of this machine.
    pub fn unique(now: Wall) -> EventId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // As in `next`, with random lower 12 bits.
        let random = RandomState::new().build_hasher().finish() & 0xfff;
        let from_time = u64::try_from(now.0).unwrap_or(0) << 12 | random;
        let next = |last: u64| Some(from_time.max(last + 1));
        let last =
            LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        EventId(from_time.max(last + 1))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// What deliveries are kept in order by: everything about one subject arrives in sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A host, by name.
    Host(String),
    /// A backup plan, by id.
    Plan(String),
    /// A notification channel, by name.
    Channel(String),
    /// The daemon itself.
    Daemon,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Subject::Host(name) => write!(f, "host {name}"),
            Subject::Plan(id) => write!(f, "plan {id}"),
            Subject::Channel(name) => write!(f, "channel {name}"),
            Subject::Daemon => f.write_str("hbd"),
        }
    }
}

/// A kind and when it was established.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Wall,
    /// How much it matters.
    pub level: Level,
    /// What.
    pub kind: EventKind,
}

/// How many other hosts an [`EventKind::Overdue`] names, or rows an [`EventKind::AlertsLost`]: when a whole
/// site is gone, each of its thousands of events must not carry thousands of names.
pub const MOST_OTHERS: usize = 10;

/// What happened. Words are given by [`Event::message`], and by nothing else.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A beat that was promised did not come.
    Overdue {
        host: String,
        connection: String,
        last_seen: Wall,
        /// When the next beat was promised.
        promised: Wall,
        /// Other watched hosts that are overdue at this moment, at most [`MOST_OTHERS`] of them.
        others_down: Vec<String>,
        /// How many there are in all.
        others_count: usize,
    },
    /// A host said goodbye on a connection.
    Shutdown { host: String, connection: String },
    /// A connection that was overdue or shut down beats again.
    Back { host: String, connection: String, gone: Duration },
    /// A host booted.
    Booted {
        host: String,
        /// Whether a shutdown was heard before, or the host is new.
        announced: bool,
        /// The connections whose trouble ends with it.
        returned: Vec<String>,
        /// How long the host was not heard; none when it is new.
        gone: Option<Duration>,
    },
    /// A host sent a text.
    Said { host: String, text: String },
    /// A configured, watched host was never heard since it was configured.
    NeverSeen { host: String, configured: Wall },
    /// A host that was reported as never seen sent its first beat.
    FirstHeard { host: String, connection: String },
    /// A metric changed its level, or still stands at it.
    Threshold {
        host: String,
        metric: String,
        value: f64,
        /// `> 90.0`: the limit of the event's level.
        limit: String,
        /// Since when the metric is at this level.
        since: Wall,
        /// Whether it repeats what was said before.
        reminder: bool,
    },
    /// A metric that is not OK is no longer sent, though its host beats on: nobody knows how it
    /// stands.
    Missing {
        host: String,
        metric: String,
        /// When it was last sent.
        last: Wall,
        /// Its value then.
        value: f64,
        /// `> 90.0`: the limit that it was beyond.
        limit: String,
        /// The level that it had.
        stood: Level,
    },
    /// The store cannot write; what happens is delivered all the same, but a crash would lose it.
    StoreRefuses { why: String },
    /// The store writes again, and what waited is in it.
    StoreWrites { refused_for: Duration },
    /// A store that could not be read was moved aside.
    StoreMovedAside { why: String, to: String },
    /// A channel has been failing for a while, or refuses us.
    ChannelFails { channel: String, why: String, waiting: usize },
    /// A channel that was reported as failing delivers again.
    ChannelDelivers { channel: String, failed_for: Duration },
    /// How a backup plan fared, as its report words it: only the report knows modules and repositories.
    Backup { plan: String, title: String, details: Vec<(String, String)>, table: Option<Table> },
    /// What was stored of backup alerts that were accepted cannot be read any more.
    AlertsLost {
        /// Key and defect of the rows, at most [`MOST_OTHERS`] of them.
        rows: Vec<String>,
        /// How many there are in all.
        count: usize,
    },
    /// The Alertmanager that is asked for its alerts has not answered for a while.
    AlertmanagerSilent { why: String },
    /// It answers again.
    AlertmanagerAnswers { silent_for: Duration },
    /// The name of a host in the DNS cannot be kept.
    DyndnsFails { host: String, name: String, why: String },
    /// It is kept again.
    DyndnsKept { host: String, name: String, failed_for: Duration },
    /// Somebody's own words, about a host or about nothing in particular.
    Custom { host: Option<String>, text: String },
}

/// An event in words: what every channel renders in its own way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The event it is about; every message carries it.
    pub event: EventId,
    /// When that happened.
    pub at: Wall,
    /// How much it matters.
    pub level: Level,
    /// What its order is kept by.
    pub subject: Subject,
    /// What threads problem, reminder and recovery together: `web1 ipv4`, `web1 cpu_monitor.cpu_percent`.
    pub thread: String,
    /// One line; the exact text of the contract. May hold words of strangers: channels clean it.
    pub title: String,
    /// What more there is to say, as label and text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(String, String)>,
    /// What is best told in rows and columns; channels that cannot show it leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
}

/// Rows and columns. A row may be shorter than the head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The names of the columns.
    pub head: Vec<String>,
    /// The rows. They may hold words of strangers: channels clean them.
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
}

impl Event {
    /// What its deliveries are kept in order by.
    pub fn subject(&self) -> Subject {
        match &self.kind {
            EventKind::Overdue { host, .. }
            | EventKind::Shutdown { host, .. }
            | EventKind::Back { host, .. }
            | EventKind::Booted { host, .. }
            | EventKind::Said { host, .. }
            | EventKind::NeverSeen { host, .. }
            | EventKind::FirstHeard { host, .. }
            | EventKind::Threshold { host, .. }
            | EventKind::Missing { host, .. }
            | EventKind::DyndnsFails { host, .. }
            | EventKind::DyndnsKept { host, .. }
            | EventKind::Custom { host: Some(host), .. } => Subject::Host(host.clone()),
            EventKind::Backup { plan, .. } => Subject::Plan(plan.clone()),
            EventKind::ChannelFails { channel, .. }
            | EventKind::ChannelDelivers { channel, .. } => Subject::Channel(channel.clone()),
            EventKind::StoreRefuses { .. }
            | EventKind::StoreWrites { .. }
            | EventKind::StoreMovedAside { .. }
            | EventKind::AlertsLost { .. }
            | EventKind::AlertmanagerSilent { .. }
            | EventKind::AlertmanagerAnswers { .. }
            | EventKind::Custom { host: None, .. } => Subject::Daemon,
        }
    }

    /// Whether it is told only for hosts with `watch: true`.
    pub fn wants_watch(&self) -> bool {
        match &self.kind {
            EventKind::Overdue { .. }
            | EventKind::Shutdown { .. }
            | EventKind::Back { .. }
            | EventKind::Booted { .. }
            | EventKind::Said { .. }
            | EventKind::NeverSeen { .. }
            | EventKind::FirstHeard { .. } => true,
            EventKind::Threshold { .. }
            | EventKind::Missing { .. }
            | EventKind::StoreRefuses { .. }
            | EventKind::StoreWrites { .. }
            | EventKind::StoreMovedAside { .. }
            | EventKind::ChannelFails { .. }
            | EventKind::ChannelDelivers { .. }
            | EventKind::Backup { .. }
            | EventKind::AlertsLost { .. }
            | EventKind::AlertmanagerSilent { .. }
            | EventKind::AlertmanagerAnswers { .. }
            | EventKind::DyndnsFails { .. }
            | EventKind::DyndnsKept { .. }
            | EventKind::Custom { .. } => false,
        }
    }

    /// The event in words.
    pub fn message(&self, event: EventId) -> Message {
        let details = self.details().into_iter();
        let mut message = Message {
            event,
            at: self.at,
            level: self.level,
            subject: self.subject(),
            thread: self.thread(),
            title: self.title(),
            details: details.map(|(label, text)| (label.to_owned(), text)).collect(),
            table: None,
        };
        if let EventKind::Backup { details, table, .. } = &self.kind {
            message.details.clone_from(details);
            message.table.clone_from(table);
        }
        message
    }

    fn thread(&self) -> String {
        match self.opens().or_else(|| self.closes().into_iter().next()) {
            Some(trouble) => trouble.to_string(),
            None => self.subject().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(level: Level, kind: EventKind) -> Event {
        Event { at: Wall(1_000_000), level, kind }
    }

    #[test]
    fn a_threshold_is_worded_exactly() {
        let event = event(
            Level::Critical,
            EventKind::Threshold {
                host: "prod-web-01".into(),
                metric: "cpu_monitor.cpu_percent".into(),
                value: 95.2,
                limit: "> 90.0".into(),
                since: Wall(0),
                reminder: false,
            },
        );
        assert_eq!(
            event.message(EventId(1)).title,
            "CRITICAL: prod-web-01 - cpu_monitor.cpu_percent = 95.2 (threshold: > 90.0)"
        );
    }

    #[test]
    fn a_connection_and_a_metric_of_the_same_name_are_two_troubles() {
        let (host, name) = ("web1".to_owned(), "vpn".to_owned());
        let metric = Incident::Metric { host: host.clone(), metric: name.clone() };
        let connection = Incident::Connection { host, connection: name };
        assert_eq!(metric.to_string(), connection.to_string());
        assert_ne!(metric.key(), connection.key());
    }

    #[test]
    fn two_records_of_one_millisecond_had_one_id() {
        let ids: Vec<EventId> = (0..100).map(|_| EventId::unique(Wall(5_000))).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }

    #[test]
    fn event_ids_rise_even_when_the_clock_goes_back() {
        let first = EventId::default().next(Wall(5_000));
        let second = first.next(Wall(5_000));
        let third = second.next(Wall(1));
        assert!(first < second && second < third);
        assert_eq!(EventId(0x1a2).to_string(), "000000000001a2");
    }

    #[test]
    fn a_boot_ends_the_trouble_of_the_connections_that_it_covers() {
        let booted = event(
            Level::Info,
            EventKind::Booted {
                host: "web1".into(),
                announced: true,
                returned: vec!["ipv4".into(), "vpn".into()],
                gone: Some(Duration::from_secs(40)),
            },
        );
        assert_eq!(booted.closes().len(), 2);
        assert_eq!(booted.opens(), None);
    }

    #[test]
    fn a_report_about_a_backup_opens_its_trouble_and_success_ends_it() {
        let report = |level| {
            let table = Some(Table { head: vec!["module".into()], rows: Vec::new() });
            let details = vec![("failed".to_owned(), "mail1".to_owned())];
            event(level, EventKind::Backup { plan: "1".into(), title: "t".into(), details, table })
        };
        let failed = report(Level::Critical);
        assert_eq!(failed.opens(), Some(Incident::Backup { plan: "1".into() }));
        assert_eq!(report(Level::Ok).closes(), vec![Incident::Backup { plan: "1".into() }]);
        let message = failed.message(EventId(1));
        assert_eq!((message.thread.as_str(), message.details.len()), ("plan 1", 1));
        assert!(message.table.is_some());
    }
}
