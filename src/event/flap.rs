//! The kinds of events about flapping: what changes again and again is told once, and once more when
//! it has settled. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::{counted, decimal};
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
        /// Its value, of a metric that is sent.
        value: Option<f64>,
        /// How often it changed since it began.
        changes: usize,
        /// Within what time.
        within: Duration,
    },
}

impl FlapEvent {
    /// What an event of this kind means.
    pub fn describe(&self) -> EventDescription {
        match self {
            FlapEvent::Flapping { incident, level, changes, within } => {
                let (what, within) = (name(incident), format_duration(*within));
                let changes = counted(*changes, "change");
                let title = format!("{what} is flapping: {changes} in {within}");
                described("flapping", *level, incident, title)
            }
            FlapEvent::Settled { incident, level, value, changes, within } => {
                let (what, state) = (name(incident), state(incident, *level, *value));
                let (changes, within) = (counted(*changes, "change"), format_duration(*within));
                let title = format!("{what} has settled: {state} ({changes} in {within})");
                described("settled", *level, incident, title)
            }
        }
    }
}

fn described(
    name: &'static str,
    level: Level,
    incident: &Incident,
    title: String,
) -> EventDescription {
    let described = EventDescription::new(name, level, incident.subject(), title);
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

/// `up`, `overdue`; of a metric `OK = 42.0`, or its level alone.
fn state(incident: &Incident, level: Level, value: Option<f64>) -> String {
    match (incident, value) {
        (Incident::Metric { .. }, Some(value)) => format!("{level} = {}", decimal(value)),
        (Incident::Metric { .. }, None) => level.to_string(),
        (_, _) if level == Level::Ok => "up".into(),
        (_, _) => "overdue".into(),
    }
}
