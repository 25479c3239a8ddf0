//! Incidents: what is wrong until it is over. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Subject;

/// Something that is wrong until it is over. A recovery goes to every channel that was given it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Incident {
    /// A connection is overdue or shut down.
    Connection { host: String, connection: String },
    /// A configured host never sent a beat.
    NeverSeen { host: String },
    /// A host that announced its shutdown has not come back.
    NotBack { host: String },
    /// A metric is beyond its threshold.
    Metric { host: String, metric: String },
    /// A backup plan did not succeed.
    Backup { plan: String },
    /// The Alertmanager that is asked for its alerts does not answer.
    Alertmanager,
    /// A channel does not deliver.
    Channel { channel: String },
    /// The store refuses to write.
    Store,
    /// Many hosts fell silent together.
    Storm,
    /// The name of a host in the DNS cannot be kept.
    Dyndns { host: String },
    /// A node of the cluster is gone, and with it the only one that heard some hosts.
    Node { node: String },
}

/// What an event does to incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentChange {
    /// Nothing.
    None,
    /// It begins or goes on.
    Opens(Incident),
    /// It goes on, but what was sent about it is outdated: every channel that was notified gets the
    /// event, whatever its `min_level`.
    Corrects(Incident),
    /// These are over.
    Closes(Vec<Incident>),
}

impl IncidentChange {
    /// The incident that begins or goes on.
    pub fn opens(&self) -> Option<&Incident> {
        match self {
            IncidentChange::Opens(incident) | IncidentChange::Corrects(incident) => Some(incident),
            IncidentChange::None | IncidentChange::Closes(_) => None,
        }
    }

    /// The incident that goes on otherwise than the channels that were given it believe.
    pub fn corrects(&self) -> Option<&Incident> {
        match self {
            IncidentChange::Corrects(incident) => Some(incident),
            IncidentChange::None | IncidentChange::Opens(_) | IncidentChange::Closes(_) => None,
        }
    }

    /// The incidents that are over.
    pub fn closes(&self) -> &[Incident] {
        match self {
            IncidentChange::Closes(incidents) => incidents,
            IncidentChange::None | IncidentChange::Opens(_) | IncidentChange::Corrects(_) => &[],
        }
    }
}

impl Incident {
    /// That of a connection.
    pub fn connection(host: &str, connection: &str) -> Incident {
        Incident::Connection { host: host.to_owned(), connection: connection.to_owned() }
    }

    /// That of a metric.
    pub fn metric(host: &str, metric: &str) -> Incident {
        Incident::Metric { host: host.to_owned(), metric: metric.to_owned() }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Incident::Connection { host, .. }
            | Incident::NeverSeen { host }
            | Incident::NotBack { host }
            | Incident::Metric { host, .. }
            | Incident::Dyndns { host } => Subject::Host(host.clone()),
            Incident::Backup { plan } => Subject::Plan(plan.clone()),
            Incident::Channel { channel } => Subject::Channel(channel.clone()),
            Incident::Alertmanager | Incident::Store | Incident::Storm | Incident::Node { .. } => {
                Subject::Daemon
            }
        }
    }

    /// The key of its row: unlike the text for people, no two incidents share one.
    pub fn key(&self) -> String {
        serde_json::to_string(self).expect("an incident is plain data")
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Incident::Connection { host, connection } => write!(f, "{host} {connection}"),
            Incident::NeverSeen { host } => write!(f, "{host} never heard"),
            Incident::NotBack { host } => write!(f, "{host} not back"),
            Incident::Metric { host, metric } => write!(f, "{host} {metric}"),
            Incident::Backup { plan } => write!(f, "plan {plan}"),
            Incident::Alertmanager => f.write_str("alertmanager"),
            Incident::Channel { channel } => write!(f, "channel {channel}"),
            Incident::Dyndns { host } => write!(f, "{host} dyndns"),
            Incident::Node { node } => write!(f, "node {node}"),
            Incident::Store => f.write_str("hbd store"),
            Incident::Storm => f.write_str("hbd storm"),
        }
    }
}
