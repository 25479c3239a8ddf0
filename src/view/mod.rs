//! The API model: the state of hosts, channels and names, as JSON shows it. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::Wall;
use crate::event::{Level, RefusedBeats};

pub mod calm;
pub mod cluster;
pub mod history;
pub mod query;

pub use self::history::{
    AlertView, AvailabilityView, ConfiguredView, DetailView, EventView, ModuleView, PlanView,
    PointView, RemindedView, RepositoryView, SeriesView, ToldModuleView, ToldView, UptimeSlice,
};

/// Serializes a time that is always there as RFC 3339.
pub fn always<S: serde::Serializer>(time: &Wall, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// The state of a connection, or of a host as the best of its connections.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum HostState {
    /// Nothing was received of it yet.
    New,
    /// Its beats come.
    Up,
    /// A beat is missing.
    Overdue,
    /// It announced its shutdown.
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
    pub state: HostState,
    /// Since when it is in that state; null when nothing was received of it yet.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<Wall>,
    /// In the order in which they appeared.
    pub connections: Vec<ConnectionView>,
    /// Ordered by path.
    pub metrics: Vec<MetricView>,
    /// The channels for messages about it.
    pub channels: Vec<String>,
    /// The ids of the silences and windows that are about it, or a part of it.
    pub quiet: Vec<String>,
    /// What people wrote about it.
    pub note: Option<String>,
    /// Where more is to be found about it: an `http` or `https` URL.
    pub link: Option<String>,
    /// The groups that it is in, the first of them is the one that it is listed under.
    pub groups: Vec<String>,
    /// What was refused under its name since it was last believed: why it may be silent.
    pub refused: Option<RefusedView>,
}

#[cfg(test)]
impl HostView {
    /// A watched host that is up, of which nothing else is known.
    pub fn named(name: &str) -> HostView {
        HostView {
            name: name.to_owned(),
            watch: true,
            state: HostState::Up,
            since: None,
            connections: Vec::new(),
            metrics: Vec::new(),
            channels: Vec::new(),
            quiet: Vec::new(),
            note: None,
            link: None,
            groups: Vec::new(),
            refused: None,
        }
    }
}

/// What the configuration says about a host for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostLabels {
    /// A note.
    pub note: Option<String>,
    /// An `http` or `https` URL.
    pub link: Option<String>,
    /// The groups that it is in, each once.
    pub groups: Vec<String>,
}

/// Datagrams under the name of a host that were refused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefusedView {
    /// Where the last one came from.
    pub from: String,
    /// What was wrong with it.
    pub why: String,
    /// How many there were.
    pub count: u64,
    /// When the first of them came.
    #[serde(serialize_with = "always")]
    pub since: Wall,
    /// All of that in a sentence.
    pub text: String,
}

impl From<RefusedBeats> for RefusedView {
    fn from(refused: RefusedBeats) -> RefusedView {
        let text = refused.to_string();
        let RefusedBeats { from, why, count, since, .. } = refused;
        RefusedView { from, why, count, since, text }
    }
}

/// One path to a host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionView {
    /// Its name: `ipv4`, `ipv6`, or what the host calls it.
    pub name: String,
    /// Its state.
    pub state: HostState,
    /// Since when it is in that state; null when nothing was received over it yet.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<Wall>,
    /// When its last datagram came.
    #[serde(serialize_with = "rfc3339")]
    pub last_seen: Option<Wall>,
    /// Seconds between its beats.
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    /// Where its last datagram came from, without the port.
    pub address: Option<String>,
    /// Its last signed datagram was signed with the previous key, which is to be removed.
    pub old_key: bool,
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
    /// The text that its host sent with its value: which units failed, what a plugin or a job said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// When it was last sent.
    #[serde(serialize_with = "rfc3339")]
    pub at: Option<Wall>,
    /// Its host beats without sending it: value and level are old.
    pub stale: bool,
}

/// What a host is reached through, and who is reached through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DependencyView {
    /// What it is reached through: each entry must be up, of an entry with several hosts one.
    pub through: Vec<Vec<LinkedHost>>,
    /// Who is reached through it, directly or not, those that are not up first; not all of very many.
    pub behind: Vec<LinkedHost>,
    /// How many these are in all.
    pub behind_count: usize,
}

/// Another host, and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedHost {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: HostState,
}

/// One message to one recipient, in the shape of `/api/v1/notifications`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotificationView {
    /// Its number, rising; pages of the history begin after one.
    pub id: String,
    /// The event that it is about.
    pub event: String,
    /// Whether it arrived.
    pub state: DeliveryState,
    /// Through which channel.
    pub channel: String,
    /// The recipient, where each one gets a message of its own.
    pub recipient: Option<String>,
    /// The host that it is about, where it is about one.
    pub host: Option<String>,
    /// What it is about: `host web1`, `channel chat`, `hbd`.
    pub subject: String,
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub title: String,
    /// When it was accepted.
    #[serde(serialize_with = "rfc3339")]
    pub accepted: Option<Wall>,
    /// When it ended; null while it waits.
    #[serde(serialize_with = "rfc3339")]
    pub finished: Option<Wall>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why it did not arrive, or does not at present.
    pub why: Option<String>,
    /// The event of the digest that it was sent in, if it was.
    pub told_in: Option<String>,
    /// When it was acknowledged, where the channel reports that.
    #[serde(serialize_with = "rfc3339")]
    pub acknowledged: Option<Wall>,
    /// By which user or device, in the terms of the channel.
    pub acknowledged_by: Option<String>,
}

/// The state of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It arrived.
    Delivered,
    /// It never will.
    Failed,
    /// It is queued, or an attempt is under way.
    Waiting,
}

/// One channel, in the shape of `/api/v1/channels`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChannelView {
    /// Its name.
    pub name: String,
    /// Its type: `email`, `signal` ...
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// It stays quiet below this level.
    pub min_level: Level,
    /// Whether it works, as far as is known.
    pub state: ChannelState,
    /// Since when it does not.
    #[serde(serialize_with = "rfc3339")]
    pub failing_since: Option<Wall>,
    /// When something last arrived.
    #[serde(serialize_with = "rfc3339")]
    pub last_success: Option<Wall>,
    /// When something last did not, and why.
    pub last_failure: Option<FailureView>,
    /// How many deliveries wait or are under way.
    pub waiting: usize,
    /// Emergencies that arrived and are not acknowledged yet.
    pub unacknowledged: usize,
    /// How long the oldest of them has been waiting.
    pub oldest_age_seconds: Option<f64>,
    /// Deliveries that arrived since the start.
    pub sent: u64,
    /// Attempts that did not, since the start.
    pub failed: u64,
}

/// Whether a channel works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelState {
    /// As far as is known.
    Works,
    /// The last attempts failed; it is tried again and again.
    Failing,
    /// It takes nothing until it is repaired; it is probed now and then.
    Refused,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureView {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: Option<Wall>,
    /// Why. Never holds a secret.
    pub why: String,
}

/// A host whose name in the DNS follows its address, in the shape of `/api/v1/dyndns`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DyndnsView {
    /// The host.
    pub host: String,
    /// Its name in the DNS, without a trailing dot.
    pub name: String,
    /// How it is changed: `rfc2136` or `http`.
    pub method: &'static str,
    /// The server that it is written to.
    pub server: String,
    /// Whether it is as it should be.
    pub state: DyndnsState,
    /// Its records, for those address families that the host has used.
    pub records: Vec<DnsRecordView>,
    /// Since when it cannot be written.
    #[serde(serialize_with = "rfc3339")]
    pub failing_since: Option<Wall>,
    /// When the last attempt failed, and why; null when it did not.
    pub last_failure: Option<FailureView>,
    /// When it is tried next; null when there is nothing to do.
    #[serde(serialize_with = "rfc3339")]
    pub next_attempt: Option<Wall>,
}

/// One record of a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DnsRecordView {
    /// `A` or `AAAA`.
    #[serde(rename = "type")]
    pub record: &'static str,
    /// The address of the host.
    pub address: Option<IpAddr>,
    /// The address in the record, as far as is known.
    pub written: Option<IpAddr>,
    /// When it was written by hbd; null when it was found there.
    #[serde(serialize_with = "rfc3339")]
    pub last_update: Option<Wall>,
}

/// The state of a name in the DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DyndnsState {
    /// No signed datagram of the host came yet.
    Unknown,
    /// Its address is as it should be.
    Kept,
    /// A new address is written when it has been in use for long enough.
    Waiting,
    /// The last attempts failed; it is tried again and again.
    Failing,
    /// The server refuses it; the configuration of either side must change.
    Refused,
}

impl DyndnsState {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            DyndnsState::Unknown => "unknown",
            DyndnsState::Kept => "kept",
            DyndnsState::Waiting => "waiting",
            DyndnsState::Failing => "failing",
            DyndnsState::Refused => "refused",
        }
    }
}

/// The availability of a host and its metrics since the last sample of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UptimeSample {
    /// Its name.
    pub host: Arc<str>,
    /// It was never seen or has announced its shutdown: its silence is not downtime.
    pub not_expected: bool,
    /// For how long all was well.
    pub up: Duration,
    /// For how long it was up, but a connection was overdue or a metric beyond its limit.
    pub degraded: Duration,
    /// For how long it was overdue.
    pub down: Duration,
    /// The metrics that it sent.
    pub metrics: Vec<MetricSummary>,
}

/// The values of one metric since the last sample.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSummary {
    /// Its dotted path.
    pub path: Arc<str>,
    /// How many values came.
    pub count: u32,
    /// Their mean.
    pub mean: f32,
    /// The least of them.
    pub least: f32,
    /// The greatest of them.
    pub most: f32,
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
