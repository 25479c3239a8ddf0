//! What is told of the nodes of a cluster. Pure.

use serde::{Deserialize, Serialize};

use super::description::EventDescription;
use super::message::{counted, listed};
use super::{Incident, Level};

/// What happened to a node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeEvent {
    /// It is gone, and with it the only one that heard these watched hosts.
    Gone {
        node: String,
        /// At most [`MAX_LISTED`](super::MAX_LISTED) of them.
        hosts: Vec<String>,
        /// How many there are in all.
        count: usize,
    },
    /// They are heard again.
    Heard { node: String },
}

impl NodeEvent {
    pub(super) fn describe(&self) -> EventDescription {
        match self {
            NodeEvent::Gone { node, hosts, count } => gone(node, hosts, *count),
            NodeEvent::Heard { node } => heard(node),
        }
    }
}

fn gone(node: &str, hosts: &[String], count: usize) -> EventDescription {
    let verb = if count == 1 { "is" } else { "are" };
    let title = format!("node {node} is gone: {} {verb} heard by nobody", counted(count, "host"));
    EventDescription::of_daemon("node_gone", Level::Warning, &title)
        .about(Incident::Node { node: node.to_owned() })
        .detail_if("heard by nobody", listed(hosts, count))
        .detail("meanwhile", "it is not noticed when they fall silent")
        .detail(
            "to do",
            "start it again, or let these hosts send to all nodes (servers in hbc.yaml)",
        )
}

fn heard(node: &str) -> EventDescription {
    let title = format!("the hosts of node {node} are heard again");
    EventDescription::of_daemon("node_heard", Level::Ok, &title)
        .about(Incident::Node { node: node.to_owned() })
}
