//! The nodes of a cluster, as one of them knows them. Pure.

use serde::Serialize;

use super::always;
use crate::clock::Wall;

/// What a node of a cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It decides, and sends.
    Leader,
    /// It takes over when the leader is gone.
    Standby,
    /// It only listens, by its configuration.
    Receiver,
}

/// A node that gave no sign for so long is gone, in seconds: each gives one a second.
pub const GONE_SECONDS: f64 = 10.0;

/// The cluster, in the shape of `/api/v1/cluster`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterView {
    /// The time of this answer.
    #[serde(serialize_with = "always")]
    pub now: Wall,
    /// The name of the cluster.
    pub name: String,
    /// The name of the node that answers.
    pub node: String,
    /// What it does.
    pub role: NodeState,
    /// The name of the node that leads, as far as is known.
    pub leader: Option<String>,
    /// Where that one answers.
    pub leader_url: Option<String>,
    /// How often the lead has changed hands, all in all.
    pub epoch: u64,
    /// How often this node took over since it runs.
    pub takeovers: u64,
    /// Of how many connections of hosts the node that answers knows when they were heard last.
    #[serde(skip)]
    pub connections: usize,
    /// Why Redis cannot be asked; null when it can.
    pub redis_trouble: Option<String>,
    /// Every node that is known, by name.
    pub nodes: Vec<NodeView>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: NodeState,
    /// Its version.
    pub version: String,
    /// Where it answers.
    pub url: Option<String>,
    /// How many seconds ago it gave its last sign.
    pub last_sign_seconds: f64,
    /// How many hosts it hears.
    pub hosts: u64,
    /// A hash of its configuration.
    pub configuration: String,
}
