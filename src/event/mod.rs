//! Events: what can happen. A feature produces an [`Event`], [`EventKind::describe`] says what its
//! kind means and words it. Pure.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Wall;

mod calm;
mod description;
mod flap;
mod given_up;
mod incident;
mod kind;
mod lasted;
mod limit;
mod message;
pub mod metric;
mod node;
mod refused;
mod store_file;
mod storm;
mod watch;

pub use self::calm::{CalmEvent, SilenceNotice};
pub use self::description::EventDescription;
pub use self::flap::{FlapEvent, FlapState};
pub use self::given_up::{GiveUpCause, GivenUp, GivenUpMessage};
pub use self::incident::{Incident, IncidentChange};
pub use self::kind::{BackupNotice, EventKind, ForgottenConnection};
use self::lasted::lasted;
pub use self::limit::{KeptLimit, LimitEpisodes, LimitUse};
pub use self::message::{HELD_BACK, MAX_LISTED, Message, TextTable, counted, decimal};
pub use self::node::NodeEvent;
pub use self::refused::RefusedBeats;
pub use self::store_file::StoreFileEvent;
pub use self::storm::{StormEvent, StormLimit};
pub use self::watch::WatchEvent;

/// How much an event matters. Ordered: `Ok < Info < Warning < Critical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An incident is over. Goes to every channel that was given it, whatever its `min_level`.
    Ok,
    /// Worth knowing.
    Info,
    /// Worth a look today.
    Warning,
    /// Worth waking a person.
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

impl From<StormEvent> for EventKind {
    fn from(event: StormEvent) -> EventKind {
        EventKind::Calm(CalmEvent::Storm(event))
    }
}

impl From<FlapEvent> for EventKind {
    fn from(event: FlapEvent) -> EventKind {
        EventKind::Calm(CalmEvent::Flap(event))
    }
}

impl From<WatchEvent> for EventKind {
    fn from(event: WatchEvent) -> EventKind {
        EventKind::Watch(event)
    }
}

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub at: Wall,
    /// How much it matters.
    pub level: Level,
    /// What.
    pub kind: EventKind,
    /// How long to wait before it is told when it comes out of a hold: what ends it may be on its
    /// way.
    #[serde(default)]
    pub patience: Duration,
    /// What held it back until now, for its details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// Hosts that are down and that its host is reached through: whoever was told of one of these is
    /// not told of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<String>,
    /// It is part of a storm: whoever was told of that is not told of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_storm: bool,
    /// What was refused under the name of its host, which may explain that it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedBeats>,
    /// What more its producer knows, for its details: label and text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<(String, String)>,
    /// It was over before it was known whether it is news: it is recorded, and nobody is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untold: bool,
}

/// What an event says of its incident: one that says the same again is no news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmState {
    /// Its level.
    pub level: Level,
    /// What is wrong, beside the level; none: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

impl AlarmState {
    /// What no alarm says: whatever is wrong is news to whoever was told this.
    pub const UNTOLD: AlarmState = AlarmState { level: Level::Ok, what: None };

    /// Whether the other one is no news to whoever knows this one.
    pub fn says_the_same(&self, other: &AlarmState) -> bool {
        let unknown = self.what.is_none() || other.what.is_none();
        self.level == other.level && (unknown || self.what == other.what)
    }

    /// Whether this, of a connection, says that the whole host may not be heard: that it is overdue while
    /// another one beats does not.
    pub fn says_silent(&self) -> bool {
        let is_whole = |what: &str| matches!(what, "shutdown" | "flapping");
        self.level == Level::Critical || self.what.as_deref().is_some_and(is_whole)
    }
}

impl Event {
    /// An event of this kind, at the level that its kind has.
    pub fn new(at: Wall, kind: impl Into<EventKind>) -> Event {
        let kind = kind.into();
        let level = kind.describe().level;
        Event {
            at,
            level,
            kind,
            patience: Duration::ZERO,
            held_back: None,
            behind: Vec::new(),
            in_storm: false,
            refused: None,
            more: Vec::new(),
            untold: false,
        }
    }

    /// The same with a further detail.
    #[must_use]
    pub fn with_detail(mut self, label: &str, text: impl Into<String>) -> Event {
        self.more.push((label.to_owned(), text.into()));
        self
    }

    /// What its kind means, with how long it has lasted, what more is known, and what held it back among
    /// the details.
    pub fn describe(&self) -> EventDescription {
        let mut described = self.kind.describe();
        let owned = |(label, text): (&str, String)| (label.to_owned(), text);
        described.details.extend(lasted(&self.kind, self.at).map(owned));
        described.details.extend(self.more.iter().cloned());
        let refused = self.refused.iter().map(|beats| ("refused", beats.to_string()));
        let held = self.held_back.iter().map(|text| (HELD_BACK, text.clone()));
        described.details.extend(refused.chain(held).map(owned));
        described.history_only |= self.untold;
        described
    }

    /// What it says of the incident that it opens.
    pub fn alarm_state(&self) -> AlarmState {
        let described = self.kind.describe();
        // The title of a report says which modules failed; that of a metric has its value.
        let what = match described.subject {
            // In other words: what it repeats was said before.
            Subject::Plan(_) if described.is_reminder => None,
            Subject::Plan(_) => Some(described.title),
            Subject::Host(_) | Subject::Channel(_) | Subject::Daemon => {
                Some(self.says(&described).to_owned())
            }
        };
        AlarmState { level: self.level, what }
    }

    /// The name of the kind that says the same of its incident.
    fn says(&self, described: &EventDescription) -> &'static str {
        match &self.kind {
            EventKind::Calm(CalmEvent::Flap(event)) => event.says(),
            EventKind::Watch(event) => event.says(),
            _ => described.name,
        }
    }

    /// The same without the end of these incidents; none when it says nothing else.
    #[must_use]
    pub fn without_ends(&self, of: &[Incident]) -> Option<Event> {
        let mut rest = self.clone();
        let EventKind::Booted { host, returned, .. } = &mut rest.kind else { return None };
        returned.retain(|connection| !of.contains(&Incident::connection(host, connection)));
        Some(rest)
    }

    /// What its deliveries are kept in order by.
    pub fn subject(&self) -> Subject {
        self.kind.describe().subject
    }

    /// Whether it is notified only for hosts with `watch: true`.
    pub fn watched_only(&self) -> bool {
        self.kind.describe().watched_only
    }

    /// What it does to incidents.
    pub fn incident(&self) -> IncidentChange {
        self.kind.describe().incident
    }

    /// The event in words.
    pub fn message(&self, event: EventId) -> Message {
        let described = self.describe();
        let incident = described.incident.opens().or(described.incident.closes().first());
        let thread = incident.map_or_else(|| described.subject.to_string(), Incident::to_string);
        Message {
            event,
            at: self.at,
            level: self.level,
            thread,
            subject: described.subject,
            title: described.title,
            details: described.details,
            link: None,
            table: described.table,
        }
    }
}

/// Whether an event of the kind of that name matters less than an alarm: of these a host may cause
/// the most, and they are the first to go where there is no room for all.
pub fn is_minor(kind: &str, level: Level) -> bool {
    level < Level::Critical && matches!(kind, "message" | "back" | "threshold" | "missing")
}

#[cfg(test)]
mod round_trip_tests;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(kind: EventKind) -> Event {
        Event::new(Wall(1_000_000), kind)
    }

    #[test]
    fn a_threshold_is_worded_exactly() {
        let event = event(EventKind::Threshold {
            host: "prod-web-01".into(),
            metric: "cpu_monitor.cpu_percent".into(),
            value: 95.2,
            limit: "> 90.0".into(),
            level: Level::Critical,
            since: Wall(0),
            reminder: false,
        });
        assert_eq!(
            event.message(EventId(1)).title,
            "CRITICAL: prod-web-01 - cpu_monitor.cpu_percent = 95.2 (threshold: > 90.0)"
        );
    }

    fn details(event: &Event) -> Vec<String> {
        let details = event.message(EventId(1)).details;
        details.iter().map(|(label, text)| format!("{label}: {text}")).collect()
    }

    #[test]
    fn a_title_with_fourteen_decimals_was_sent() {
        let threshold = |value, limit: &str, reminder| EventKind::Threshold {
            host: "web1".into(),
            metric: "cpu_monitor.cpu_percent".into(),
            value,
            limit: limit.into(),
            level: Level::Critical,
            since: Wall(-7_200_000),
            reminder,
        };
        let title = |value| event(threshold(value, "> 90.0", false)).message(EventId(1)).title;
        let of = |number| {
            format!("CRITICAL: web1 - cpu_monitor.cpu_percent = {number} (threshold: > 90.0)")
        };
        assert_eq!(title(92.925_633_668_899_54), of("92.93"));
        assert_eq!(title(90.004), of("90.004"), "what is beyond its limit does not look like it");
        let reminded = event(threshold(92.926, "> 90.0", true)).with_detail("it says", "hot");
        assert_eq!(
            details(&reminded),
            [
                "measured: cpu 92.93 % (limit: above 90.0 %)",
                "reminder: at this level for 2 h 16 min, since 1969-12-31 22:00:00 UTC",
                "it says: hot",
            ]
        );
    }

    #[test]
    fn how_long_it_has_lasted_is_told_in_local_time() {
        let overdue = event(EventKind::Overdue {
            host: "web1".into(),
            connection: "ipv4".into(),
            last_seen: Wall(960_000),
            promised: Wall(970_000),
            others_down: Vec::new(),
            others_count: 0,
            was_last_up: true,
            clock: None,
            behind_it: Vec::new(),
            behind_count: 0,
        });
        assert_eq!(
            details(&overdue),
            [
                "last seen: 1970-01-01 00:16:00 UTC",
                "promised: the next beat by 1970-01-01 00:16:10 UTC",
                "not heard for: 40 s",
            ]
        );
    }

    #[test]
    fn a_connection_and_a_metric_of_the_same_name_are_two_incidents() {
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
    fn a_boot_ends_the_incident_of_the_connections_that_it_covers() {
        let booted = event(EventKind::Booted {
            host: "web1".into(),
            announced: true,
            returned: vec!["ipv4".into(), "vpn".into()],
            gone: Some(Duration::from_secs(40)),
        });
        assert_eq!(booted.incident().closes().len(), 2);
        assert_eq!(booted.incident().opens(), None);
    }

    #[test]
    fn a_report_about_a_backup_opens_its_incident_and_success_ends_it() {
        let notice = |notice, level| {
            let table = Some(TextTable { head: vec!["module".into()], rows: Vec::new() });
            let details = vec![("failed".to_owned(), "mail1".to_owned())];
            let (plan, title) = ("1".into(), "t".into());
            event(EventKind::Backup { plan, notice, level, title, details, table })
        };
        let report = |level| notice(BackupNotice::Report, level);
        let failed = report(Level::Critical);
        assert_eq!(failed.incident().opens(), Some(&Incident::Backup { plan: "1".into() }));
        assert_eq!(report(Level::Ok).incident().closes(), [Incident::Backup { plan: "1".into() }]);
        let message = failed.message(EventId(1));
        assert_eq!((message.thread.as_str(), message.details.len()), ("plan 1", 1));
        assert!(message.table.is_some());
        let reminder = notice(BackupNotice::Reminder, Level::Critical);
        assert!(reminder.kind.describe().is_reminder && reminder.incident().opens().is_some());
        let end = notice(BackupNotice::End, Level::Ok);
        assert!(!end.kind.describe().ok_is_news && end.incident().closes().len() == 1);
    }
}
