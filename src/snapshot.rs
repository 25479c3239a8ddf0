//! How things stand, as shown to people and programs. Pure.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::Wall;
use crate::event::Level;

/// The state of a connection, or of a host as the best of its connections.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Never heard.
    New,
    /// Its beats come.
    Up,
    /// A beat is missing.
    Overdue,
    /// It said goodbye.
    Shutdown,
}

/// One host, in the shape of `/api/v1/hosts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostView {
    /// Its name under `hosts`, or as it called itself.
    pub name: String,
    /// Whether its heartbeat events are notified.
    pub watch: bool,
    /// UP when any connection is, else OVERDUE, SHUTDOWN, NEW.
    pub state: State,
    /// Since when it is in that state; null when it was never heard.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<Wall>,
    /// In the order in which they were first heard.
    pub connections: Vec<ConnectionView>,
    /// Ordered by path.
    pub metrics: Vec<MetricView>,
    /// The channels that hear about it.
    pub channels: Vec<String>,
}

/// One path to a host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionView {
    /// Its name: `ipv4`, `ipv6`, or what the host calls it.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// When it was last heard.
    #[serde(serialize_with = "rfc3339")]
    pub last_seen: Option<Wall>,
    /// Seconds between its beats.
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    /// Where its last datagram came from, without the port.
    pub address: Option<String>,
}

/// One metric of a host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricView {
    /// Dotted path, `cpu_monitor.cpu_percent`.
    pub path: String,
    /// Its last value.
    pub value: f64,
    /// OK, WARNING or CRITICAL; null when no threshold is set for it.
    pub level: Option<Level>,
    /// Since when it is at that level.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<Wall>,
    /// The limit of its level, or the next one up: `> 90.0`.
    pub limit: Option<String>,
}

/// Serializes a time as RFC 3339 or null.
pub fn rfc3339<S: Serializer>(time: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

/// Serializes a duration as seconds, fractional.
pub fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
