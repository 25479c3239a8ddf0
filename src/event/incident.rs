//! What is wrong until it is over. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Event, EventKind, Level};

/// Something that is wrong until it is over. A recovery goes to whoever was given the trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Incident {
    /// A connection is overdue or shut down.
    Connection { host: String, connection: String },
    /// A configured host never sent a beat.
    NeverSeen { host: String },
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
    /// The name of a host in the DNS cannot be kept.
    Dyndns { host: String },
}

impl Incident {
    /// The key of its row: unlike the text for people, no two troubles share one.
    pub fn key(&self) -> String {
        serde_json::to_string(self).expect("a trouble is plain data")
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Incident::Connection { host, connection } => write!(f, "{host} {connection}"),
            Incident::NeverSeen { host } => write!(f, "{host} never heard"),
            Incident::Metric { host, metric } => write!(f, "{host} {metric}"),
            Incident::Backup { plan } => write!(f, "plan {plan}"),
            Incident::Alertmanager => f.write_str("alertmanager"),
            Incident::Channel { channel } => write!(f, "channel {channel}"),
            Incident::Dyndns { host } => write!(f, "{host} dyndns"),
            Incident::Store => f.write_str("hbd store"),
        }
    }
}

impl Event {
    /// The trouble that begins or goes on with it.
    pub fn opens(&self) -> Option<Incident> {
        match &self.kind {
            EventKind::Overdue { host, connection, .. }
            | EventKind::Shutdown { host, connection } => {
                Some(connection_trouble(host, connection))
            }
            EventKind::NeverSeen { host, .. } => Some(Incident::NeverSeen { host: host.clone() }),
            EventKind::Missing { host, metric, .. } => Some(metric_trouble(host, metric)),
            EventKind::Threshold { host, metric, .. } if self.level != Level::Ok => {
                Some(metric_trouble(host, metric))
            }
            EventKind::ChannelFails { channel, .. } => {
                Some(Incident::Channel { channel: channel.clone() })
            }
            EventKind::StoreRefuses { .. } => Some(Incident::Store),
            EventKind::AlertmanagerSilent { .. } => Some(Incident::Alertmanager),
            EventKind::DyndnsFails { host, .. } => Some(Incident::Dyndns { host: host.clone() }),
            EventKind::Backup { plan, .. } if self.level != Level::Ok => {
                Some(Incident::Backup { plan: plan.clone() })
            }
            EventKind::Back { .. }
            | EventKind::Booted { .. }
            | EventKind::Said { .. }
            | EventKind::FirstHeard { .. }
            | EventKind::Threshold { .. }
            | EventKind::StoreWrites { .. }
            | EventKind::StoreMovedAside { .. }
            | EventKind::ChannelDelivers { .. }
            | EventKind::Backup { .. }
            | EventKind::AlertsLost { .. }
            | EventKind::DyndnsKept { .. }
            | EventKind::AlertmanagerAnswers { .. }
            | EventKind::Custom { .. } => None,
        }
    }

    /// The troubles that are over with it.
    pub fn closes(&self) -> Vec<Incident> {
        match &self.kind {
            EventKind::Back { host, connection, .. } => vec![connection_trouble(host, connection)],
            EventKind::Booted { host, returned, .. } => {
                returned.iter().map(|connection| connection_trouble(host, connection)).collect()
            }
            EventKind::FirstHeard { host, .. } => vec![Incident::NeverSeen { host: host.clone() }],
            EventKind::Threshold { host, metric, .. } if self.level == Level::Ok => {
                vec![metric_trouble(host, metric)]
            }
            EventKind::ChannelDelivers { channel, .. } => {
                vec![Incident::Channel { channel: channel.clone() }]
            }
            EventKind::StoreWrites { .. } => vec![Incident::Store],
            EventKind::AlertmanagerAnswers { .. } => vec![Incident::Alertmanager],
            EventKind::DyndnsKept { host, .. } => vec![Incident::Dyndns { host: host.clone() }],
            EventKind::Backup { plan, .. } if self.level == Level::Ok => {
                vec![Incident::Backup { plan: plan.clone() }]
            }
            EventKind::Overdue { .. }
            | EventKind::Shutdown { .. }
            | EventKind::Said { .. }
            | EventKind::NeverSeen { .. }
            | EventKind::Threshold { .. }
            | EventKind::Missing { .. }
            | EventKind::StoreRefuses { .. }
            | EventKind::StoreMovedAside { .. }
            | EventKind::ChannelFails { .. }
            | EventKind::Backup { .. }
            | EventKind::AlertsLost { .. }
            | EventKind::AlertmanagerSilent { .. }
            | EventKind::DyndnsFails { .. }
            | EventKind::Custom { .. } => Vec::new(),
        }
    }

    /// The trouble whose state it tells of to everybody who was given that, whatever their
    /// `min_level`: they think that they know how it stands.
    pub fn corrects(&self) -> Option<Incident> {
        match &self.kind {
            EventKind::Missing { .. } => self.opens(),
            EventKind::Overdue { .. }
            | EventKind::Shutdown { .. }
            | EventKind::Back { .. }
            | EventKind::Booted { .. }
            | EventKind::Said { .. }
            | EventKind::NeverSeen { .. }
            | EventKind::FirstHeard { .. }
            | EventKind::Threshold { .. }
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
            | EventKind::Custom { .. } => None,
        }
    }
}

fn metric_trouble(host: &str, metric: &str) -> Incident {
    Incident::Metric { host: host.to_owned(), metric: metric.to_owned() }
}

fn connection_trouble(host: &str, connection: &str) -> Incident {
    Incident::Connection { host: host.to_owned(), connection: connection.to_owned() }
}
