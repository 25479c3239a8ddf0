//! The kinds of events about flapping: what changes again and again is told once, and once more when
//! it has settled. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::counted;
use super::metric::measured;
use super::{Incident, IncidentChange, Level};
use crate::clock::format_duration;

/// What happened to a connection or a metric that changes again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FlapEvent {
    /// It changed so often that its changes are not told one by one any more.
    Flapping {
        /// What changes.
        incident: Incident,
        /// The worst level that it had.
        level: Level,
        /// How often it changed.
        changes: usize,
        /// Within what time.
        within: Duration,
    },
    /// It has not changed for a while.
    Settled {
        /// What changed.
        incident: Incident,
        /// Its level now; OK: it is over.
        level: Level,
        /// How it stands.
        state: FlapState,
        /// How often it changed since it began.
        changes: usize,
        /// Between the first and the last of these changes.
        within: Duration,
    },
}

/// How a connection or a metric stands since its last change, beside its level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlapState {
    /// The connection beats.
    Up,
    /// It is overdue.
    Overdue,
    /// It is shut down.
    Shutdown,
    /// The metric had this value.
    Value(f64),
    /// It is not sent any more.
    Missing,
}

impl FlapState {
    /// The name of the kind of event that says so.
    fn event_name(self) -> &'static str {
        match self {
            FlapState::Up => "back",
            FlapState::Overdue => "overdue",
            FlapState::Shutdown => "shutdown",
            FlapState::Value(_) => "threshold",
            FlapState::Missing => "missing",
        }
    }

    /// Whether it is the same as another one, whatever the values.
    pub fn is_like(self, other: FlapState) -> bool {
        self.event_name() == other.event_name()
    }

    /// `up`, `overdue`; of a metric `OK = 42.0`.
    fn words(self, level: Level) -> String {
        match self {
            FlapState::Up => "up".into(),
            FlapState::Value(value) => format!("{level} = {}", measured(value, None)),
            FlapState::Overdue | FlapState::Shutdown | FlapState::Missing => {
                self.event_name().into()
            }
        }
    }
}

impl FlapEvent {
    /// What changes, or did.
    pub fn incident(&self) -> &Incident {
        match self {
            FlapEvent::Flapping { incident, .. } | FlapEvent::Settled { incident, .. } => incident,
        }
    }

    /// What an event of this kind means.
    pub fn describe(&self) -> EventDescription {
        match self {
            FlapEvent::Flapping { incident, level, changes, within } => {
                let (what, within) = (name(incident), format_duration(*within));
                let changes = counted(*changes, "change");
                let title = format!("{what} is flapping: {changes} in {within}");
                described("flapping", *level, incident, title)
            }
            FlapEvent::Settled { incident, level, state, changes, within } => {
                let (what, state) = (name(incident), state.words(*level));
                let (changes, within) = (counted(*changes, "change"), format_duration(*within));
                let title = format!("{what} has settled: {state} ({changes} in {within})");
                described("settled", *level, incident, title)
            }
        }
    }

    /// The name of the kind of event that says the same of the incident: that it has settled is said
    /// by no other, and how it stands by the one that led there.
    pub(super) fn says(&self) -> &'static str {
        match self {
            FlapEvent::Flapping { .. } => "flapping",
            FlapEvent::Settled { state, .. } => state.event_name(),
        }
    }
}

fn described(
    name: &'static str,
    level: Level,
    incident: &Incident,
    title: String,
) -> EventDescription {
    let described = EventDescription {
        // As the events that it stands for.
        watched_only: matches!(incident, Incident::Connection { .. }),
        ..EventDescription::new(name, level, incident.subject(), title)
    };
    match level {
        Level::Ok => described.closes(vec![incident.clone()]),
        Level::Info | Level::Warning | Level::Critical => EventDescription {
            // Whoever was told of it learns how it is, whatever their level.
            incident: IncidentChange::Corrects(incident.clone()),
            ..described
        },
    }
}

/// `web1 ipv4`, `web1 - cpu_monitor.cpu_percent`.
fn name(incident: &Incident) -> String {
    match incident {
        Incident::Metric { host, metric } => format!("{host} - {metric}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::event::{Event, EventId, EventKind};

    const MINUTE: Duration = Duration::from_secs(60);

    fn title(event: FlapEvent) -> (Level, String) {
        let event = Event::new(Wall(0), event);
        (event.level, event.message(EventId(1)).title)
    }

    #[test]
    fn flapping_is_worded_exactly() {
        let (changes, within) = (6, 18 * MINUTE);
        let incident = Incident::connection("web1", "ipv4");
        let level = Level::Critical;
        let flapping = FlapEvent::Flapping { incident, level, changes, within };
        let text = "web1 ipv4 is flapping: 6 changes in 18 min";
        assert_eq!(title(flapping), (level, text.into()));
    }

    #[test]
    fn what_has_settled_is_worded_exactly() {
        let cpu = || Incident::metric("web1", "cpu_monitor.cpu_percent");
        let ipv4 = || Incident::connection("web1", "ipv4");
        for (incident, level, state, text) in [
            (ipv4(), Level::Ok, FlapState::Up, "web1 ipv4 has settled: up"),
            (ipv4(), Level::Critical, FlapState::Overdue, "web1 ipv4 has settled: overdue"),
            (ipv4(), Level::Warning, FlapState::Shutdown, "web1 ipv4 has settled: shutdown"),
            (
                cpu(),
                Level::Ok,
                FlapState::Value(42.0),
                "web1 - cpu_monitor.cpu_percent has settled: OK = 42.0",
            ),
            (
                cpu(),
                Level::Critical,
                FlapState::Value(95.25),
                "web1 - cpu_monitor.cpu_percent has settled: CRITICAL = 95.25",
            ),
            (
                cpu(),
                Level::Warning,
                FlapState::Missing,
                "web1 - cpu_monitor.cpu_percent has settled: missing",
            ),
        ] {
            let (changes, within) = (14, 52 * MINUTE);
            let settled = FlapEvent::Settled { incident, level, state, changes, within };
            assert_eq!(title(settled), (level, format!("{text} (14 changes in 52 min)")));
        }
    }

    #[test]
    fn it_is_told_of_those_hosts_whose_changes_are() {
        let described = |incident| {
            let (level, changes, within) = (Level::Warning, 6, MINUTE);
            FlapEvent::Flapping { incident, level, changes, within }.describe()
        };
        assert!(described(Incident::connection("web1", "ipv4")).watched_only);
        assert!(!described(Incident::metric("web1", "m")).watched_only);
    }

    #[test]
    fn what_has_settled_says_what_the_last_change_said() {
        let incident = Incident::connection("web1", "ipv4");
        let (level, state) = (Level::Warning, FlapState::Shutdown);
        let settled = FlapEvent::Settled { incident, level, state, changes: 6, within: MINUTE };
        let shutdown = EventKind::Shutdown { host: "web1".into(), connection: "ipv4".into() };
        let shutdown = Event::new(Wall(0), shutdown);
        assert_eq!(Event::new(Wall(0), settled).alarm_state(), shutdown.alarm_state());
    }
}
