//! What is wrong until it is over. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Event, Fact};

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
            Trouble::Store => f.write_str("hbd store"),
        }
    }
}

impl Event {
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
            | Fact::AlertmanagerSilent { .. }
            | Fact::AlertmanagerAnswers { .. }
            | Fact::Custom { .. } => None,
        }
    }
}
