//! What is wrong until it is over. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Event, Fact, Level};

/// Something that is wrong until it is over. A recovery goes to whoever was given the trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
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

impl Trouble {
    /// The key of its row: unlike the text for people, no two troubles share one.
    pub fn key(&self) -> String {
        serde_json::to_string(self).expect("a trouble is plain data")
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Trouble::Connection { host, connection } => write!(f, "{host} {connection}"),
            Trouble::NeverSeen { host } => write!(f, "{host} never heard"),
            Trouble::Metric { host, metric } => write!(f, "{host} {metric}"),
            Trouble::Backup { plan } => write!(f, "plan {plan}"),
            Trouble::Alertmanager => f.write_str("alertmanager"),
            Trouble::Channel { channel } => write!(f, "channel {channel}"),
            Trouble::Dyndns { host } => write!(f, "{host} dyndns"),
            Trouble::Store => f.write_str("hbd store"),
        }
    }
}

impl Event {
    /// The trouble that begins or goes on with it.
    pub fn opens(&self) -> Option<Trouble> {
        match &self.fact {
            Fact::Overdue { host, connection, .. } | Fact::Shutdown { host, connection } => {
                Some(connection_trouble(host, connection))
            }
            Fact::NeverSeen { host, .. } => Some(Trouble::NeverSeen { host: host.clone() }),
            Fact::Missing { host, metric, .. } => Some(metric_trouble(host, metric)),
            Fact::Threshold { host, metric, .. } if self.level != Level::Ok => {
                Some(metric_trouble(host, metric))
            }
            Fact::ChannelFails { channel, .. } => {
                Some(Trouble::Channel { channel: channel.clone() })
            }
            Fact::StoreRefuses { .. } => Some(Trouble::Store),
            Fact::AlertmanagerSilent { .. } => Some(Trouble::Alertmanager),
            Fact::DyndnsFails { host, .. } => Some(Trouble::Dyndns { host: host.clone() }),
            Fact::Backup { plan, .. } if self.level != Level::Ok => {
                Some(Trouble::Backup { plan: plan.clone() })
            }
            Fact::Back { .. }
            | Fact::Booted { .. }
            | Fact::Said { .. }
            | Fact::FirstHeard { .. }
            | Fact::Threshold { .. }
            | Fact::StoreWrites { .. }
            | Fact::StoreMovedAside { .. }
            | Fact::ChannelDelivers { .. }
            | Fact::Backup { .. }
            | Fact::AlertsLost { .. }
            | Fact::DyndnsKept { .. }
            | Fact::AlertmanagerAnswers { .. }
            | Fact::Custom { .. } => None,
        }
    }

    /// The troubles that are over with it.
    pub fn closes(&self) -> Vec<Trouble> {
        match &self.fact {
            Fact::Back { host, connection, .. } => vec![connection_trouble(host, connection)],
            Fact::Booted { host, returned, .. } => {
                returned.iter().map(|connection| connection_trouble(host, connection)).collect()
            }
            Fact::FirstHeard { host, .. } => vec![Trouble::NeverSeen { host: host.clone() }],
            Fact::Threshold { host, metric, .. } if self.level == Level::Ok => {
                vec![metric_trouble(host, metric)]
            }
            Fact::ChannelDelivers { channel, .. } => {
                vec![Trouble::Channel { channel: channel.clone() }]
            }
            Fact::StoreWrites { .. } => vec![Trouble::Store],
            Fact::AlertmanagerAnswers { .. } => vec![Trouble::Alertmanager],
            Fact::DyndnsKept { host, .. } => vec![Trouble::Dyndns { host: host.clone() }],
            Fact::Backup { plan, .. } if self.level == Level::Ok => {
                vec![Trouble::Backup { plan: plan.clone() }]
            }
            Fact::Overdue { .. }
            | Fact::Shutdown { .. }
            | Fact::Said { .. }
            | Fact::NeverSeen { .. }
            | Fact::Threshold { .. }
            | Fact::Missing { .. }
            | Fact::StoreRefuses { .. }
            | Fact::StoreMovedAside { .. }
            | Fact::ChannelFails { .. }
            | Fact::Backup { .. }
            | Fact::AlertsLost { .. }
            | Fact::AlertmanagerSilent { .. }
            | Fact::DyndnsFails { .. }
            | Fact::Custom { .. } => Vec::new(),
        }
    }

    /// The trouble whose state it tells of to everybody who was given that, whatever their
    /// `min_level`: they think that they know how it stands.
    pub fn corrects(&self) -> Option<Trouble> {
        match &self.fact {
            Fact::Missing { .. } => self.opens(),
            Fact::Overdue { .. }
            | Fact::Shutdown { .. }
            | Fact::Back { .. }
            | Fact::Booted { .. }
            | Fact::Said { .. }
            | Fact::NeverSeen { .. }
            | Fact::FirstHeard { .. }
            | Fact::Threshold { .. }
            | Fact::StoreRefuses { .. }
            | Fact::StoreWrites { .. }
            | Fact::StoreMovedAside { .. }
            | Fact::ChannelFails { .. }
            | Fact::ChannelDelivers { .. }
            | Fact::Backup { .. }
            | Fact::AlertsLost { .. }
            | Fact::AlertmanagerSilent { .. }
            | Fact::AlertmanagerAnswers { .. }
            | Fact::DyndnsFails { .. }
            | Fact::DyndnsKept { .. }
            | Fact::Custom { .. } => None,
        }
    }
}

fn metric_trouble(host: &str, metric: &str) -> Trouble {
    Trouble::Metric { host: host.to_owned(), metric: metric.to_owned() }
}

fn connection_trouble(host: &str, connection: &str) -> Trouble {
    Trouble::Connection { host: host.to_owned(), connection: connection.to_owned() }
}
