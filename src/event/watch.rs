//! The kinds of events about whether a host is watched at all: it is still silent, or nobody watches it
//! any more. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::listed;
use super::{Incident, Level, MAX_LISTED, Subject};
use crate::clock::{Wall, format_duration};

/// From this length on a silence is told in whole hours.
const HOURS_FROM: Duration = Duration::from_secs(12 * 3600);

/// What lasts longer was told before the clock of this machine was set.
const MAX_LASTING: Duration = Duration::from_secs(366 * 24 * 3600);

/// What happened to the watch that is kept of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WatchEvent {
    /// A reminder: a connection is still overdue, or a host has still not come back.
    Still {
        /// What goes on.
        incident: Incident,
        /// The level that it was told at.
        level: Level,
        /// When it was told first.
        since: Wall,
        /// For how long it goes on.
        lasting: Duration,
    },
    /// What was told of a host is followed no longer: it was taken out of the configuration, or is not
    /// to be watched.
    NoLonger {
        host: String,
        /// It is no longer configured.
        removed: bool,
        /// What was wrong with it.
        closes: Vec<Incident>,
    },
}

impl WatchEvent {
    /// The incident that a reminder is about.
    pub fn reminds_of(&self) -> Option<&Incident> {
        match self {
            WatchEvent::Still { incident, .. } => Some(incident),
            WatchEvent::NoLonger { .. } => None,
        }
    }

    /// The name of the kind of event that a reminder repeats.
    pub(super) fn says(&self) -> &'static str {
        match self {
            WatchEvent::Still { incident: Incident::NotBack { .. }, .. } => "not_back",
            WatchEvent::Still { .. } => "overdue",
            WatchEvent::NoLonger { .. } => "no_longer_watched",
        }
    }

    /// What an event of this kind means.
    pub fn describe(&self) -> EventDescription {
        match self {
            WatchEvent::Still { incident, level, since, lasting } => {
                still(incident, *level, *since, *lasting)
            }
            WatchEvent::NoLonger { host, removed, closes } => no_longer(host, *removed, closes),
        }
    }
}

fn still(incident: &Incident, level: Level, since: Wall, lasting: Duration) -> EventDescription {
    let (what, scope) = match (incident, incident.subject()) {
        (Incident::Connection { host, connection }, _) => {
            (format!("{host} {connection} is still overdue"), format!("{host}/{connection}"))
        }
        (_, Subject::Host(host)) => (format!("{host} has still not come back"), host),
        (_, subject) => (format!("{incident} goes on"), subject.to_string()),
    };
    let title = match lasting <= MAX_LASTING {
        true => format!("{what} (for {})", format_duration(rounded(lasting))),
        false => what,
    };
    EventDescription::new("still", level, incident.subject(), title)
        .watched_only()
        .reminder(true)
        .about(incident.clone())
        .detail("since", since.local().to_string())
        .detail("no more reminders", format!("hbd ack {scope}"))
}

/// To the minute, or to the hour where it is long.
fn rounded(lasting: Duration) -> Duration {
    let grain = if lasting < HOURS_FROM { 60 } else { 3600 };
    Duration::from_secs(lasting.as_secs().saturating_add(grain / 2) / grain * grain)
}

fn no_longer(host: &str, removed: bool, closes: &[Incident]) -> EventDescription {
    let why = match removed {
        true => "it was taken out of the configuration",
        false => "it has \"watch: false\" in the configuration now",
    };
    let about = |incident: &Incident| match incident {
        Incident::Connection { connection, .. } => connection.clone(),
        Incident::Metric { metric, .. } => metric.clone(),
        other => other.to_string(),
    };
    let names: Vec<String> = closes.iter().take(MAX_LISTED).map(about).collect();
    let title = format!("{host} is no longer watched");
    EventDescription::of_host("no_longer_watched", Level::Ok, host, title)
        .closes(closes.to_vec())
        .detail("why", why)
        .detail_if("told before, and not over", listed(&names, closes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    const HOUR: Duration = Duration::from_secs(3600);

    fn still(incident: Incident, lasting: Duration) -> Event {
        let since = Wall(1_795_291_928_000);
        Event::new(since, WatchEvent::Still { incident, level: Level::Critical, since, lasting })
    }

    #[test]
    fn a_reminder_says_for_how_long() {
        let connection = || Incident::connection("web1", "ipv4");
        for (lasting, words) in [
            (24 * HOUR + Duration::from_millis(7), "1 d"),
            (48 * HOUR - Duration::from_secs(3), "2 d"),
            (30 * HOUR, "1 d 6 h"),
            (HOUR + Duration::from_secs(29), "1 h"),
        ] {
            let title = format!("web1 ipv4 is still overdue (for {words})");
            assert_eq!(still(connection(), lasting).describe().title, title);
        }
        let clock_was_set = still(connection(), 20_000 * 24 * HOUR);
        assert_eq!(clock_was_set.describe().title, "web1 ipv4 is still overdue");
        let not_back = still(Incident::NotBack { host: "web1".into() }, 24 * HOUR);
        assert_eq!(not_back.describe().title, "web1 has still not come back (for 1 d)");
        assert_eq!(still(connection(), HOUR).alarm_state().what.as_deref(), Some("overdue"));
        assert_eq!(not_back.alarm_state().what.as_deref(), Some("not_back"));
        let since = ("since".to_owned(), "2026-11-21 20:12:08 UTC".to_owned());
        assert!(not_back.describe().details.contains(&since));
        let ack = ("no more reminders".to_owned(), "hbd ack web1/ipv4".to_owned());
        assert!(still(connection(), HOUR).describe().details.contains(&ack));
    }

    #[test]
    fn the_end_of_a_watch_closes_what_was_told() {
        let closes = vec![Incident::connection("web1", "ipv4"), Incident::metric("web1", "m")];
        let no_longer = WatchEvent::NoLonger { host: "web1".into(), removed: true, closes };
        let event = Event::new(Wall(0), no_longer);
        let described = event.describe();
        assert_eq!((event.level, &*described.title), (Level::Ok, "web1 is no longer watched"));
        assert_eq!(described.incident.closes().len(), 2);
        assert_eq!(described.details[1].1, "ipv4, m");
    }
}
