//! The daemon's interface to the HTTP server. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::calm_request::CalmCommand;
use super::query::NotifyRequest;
use crate::clock::Wall;
use crate::event::{EventId, Level, LimitUse};
use crate::problem::Problems;
use crate::view::calm::{CalmAnswer, HeldListView, SilencesView};
use crate::view::cluster::ClusterView;
use crate::view::query::{EventQuery, NotificationQuery, SeriesQuery};
use crate::view::{
    AlertView, AvailabilityView, ChannelView, DependencyView, DyndnsView, EventView, HostView,
    NotificationView, PlanView, SeriesView,
};

/// What the HTTP server asks the daemon for. Called from several threads at once.
pub trait Daemon: Send + Sync {
    /// Whether the daemon does its work.
    ///
    /// # Errors
    /// What keeps it from it: a sentence.
    fn ready(&self) -> Result<(), String>;

    /// At most `count` hosts, beginning with the one at index `from`; none means that there are
    /// no more. The order stays from call to call and new ones come last: a list is read in
    /// several calls, and a host that appeared twice in it would spoil a scrape.
    fn hosts(&self, from: usize, count: usize) -> Vec<HostView>;

    /// The host of that name.
    fn host(&self, name: &str) -> Option<HostView>;

    /// Takes in a datagram that came over HTTP.
    fn ingest_heartbeat(&self, body: &[u8], peer: IpAddr) -> Ingest;

    /// Takes in the webhook of an Alertmanager.
    fn ingest_alert(&self, body: &[u8]) -> Ingest;

    /// Forgets a connection of a host, or all that is known of it, until it beats again.
    ///
    /// # Errors
    /// A sentence: there is no such thing.
    fn forget(&self, host: &str, connection: Option<&str>) -> Result<(), String>;

    /// The values of `/metrics`.
    fn metrics(&self) -> MetricsSnapshot;

    /// The state of the names in the DNS that follow their hosts, by host.
    fn dyndns(&self) -> Vec<DyndnsView> {
        Vec::new()
    }

    /// The state of every channel.
    fn channels(&self) -> Vec<ChannelView>;

    /// What was sent and what waits, the newest first, and before which id to go on; none when
    /// there is no more.
    fn notifications(
        &self,
        query: &NotificationQuery,
    ) -> Result<(Vec<NotificationView>, Option<u64>), String>;

    /// The availability of each of these hosts, in their order; none where nothing is recorded. This
    /// and the four below may wait for the disk, some seconds at most: they are for a thread that
    /// has time.
    ///
    /// # Errors
    /// A sentence: why it cannot be read now.
    fn availabilities(&self, hosts: &[&str]) -> Result<Vec<Option<AvailabilityView>>, String>;

    /// The availability of one host.
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn availability(&self, host: &str) -> Result<Option<AvailabilityView>, String> {
        Ok(self.availabilities(&[host])?.pop().flatten())
    }

    /// The maintenance windows about a host, and the silences that are running, that touch a period.
    fn windows(&self, _host: &str, _period: &Range<Wall>) -> Vec<Range<Wall>> {
        Vec::new()
    }

    /// What a host is reached through, and who is reached through it.
    fn dependencies(&self, _host: &str) -> DependencyView {
        DependencyView::default()
    }

    /// The limits of a metric of a host, `> 90.0`, and the level beyond each.
    fn limits(&self, _host: &str, _metric: &str) -> Vec<(Level, String)> {
        Vec::new()
    }

    /// The metrics of a host over time, by path; none when there is no such host.
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn series(&self, host: &str, query: &SeriesQuery) -> Result<Option<Vec<SeriesView>>, String>;

    /// The event log, the newest first, and before which event to go on; none when there is no more.
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn events(&self, query: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String>;

    /// What is wrong at present, the worst first.
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn alerts(&self) -> Result<Vec<AlertView>, String>;

    /// The last known outcome of each backup plan, by id.
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn plans(&self) -> Result<Vec<PlanView>, String>;

    /// Ends the trouble of a backup plan, given by its id or name, on an operator's word: its id; none
    /// when it has none.
    fn forget_plan(&self, plan: &str) -> Option<String>;

    /// Prepares a message that is sent at once: the sending is for a thread that has time.
    ///
    /// # Errors
    /// Why nothing will be sent.
    fn notify(&self, request: NotifyRequest) -> Result<SendJob, SendError>;

    /// The silences and windows at present, and what comes next. This and the two below may wait
    /// for the disk, as [`Daemon::availabilities`].
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn silences(&self) -> Result<SilencesView, String>;

    /// What is held back, of one host or in all.
    ///
    /// # Errors
    /// As [`Daemon::availabilities`].
    fn held(&self, host: Option<&str>) -> Result<HeldListView, String>;

    /// Does what is asked of silences and acknowledgements: it is stored when this returns.
    ///
    /// # Errors
    /// It has no effect.
    fn calm(&self, command: CalmCommand) -> Result<CalmAnswer, CalmRefusal>;

    /// The cluster that this daemon is the leader of; none without one.
    fn cluster(&self) -> Option<ClusterView> {
        None
    }

    /// Hands over to another node, a moment after this returns.
    ///
    /// # Errors
    /// A sentence: it goes on to lead.
    fn step_down(&self) -> Result<(), String> {
        Err("this hbd is no node of a cluster".into())
    }

    /// Loads the configuration again, and waits for the result: less than half a minute.
    fn reload(&self) -> ReloadResult;
}

/// What the HTTP server of a node asks that does not lead its cluster. Called from several threads at
/// once.
pub trait StandbyDaemon: Send + Sync {
    /// Whether this node hears hosts, and could take over.
    ///
    /// # Errors
    /// What keeps it from it: a sentence.
    fn ready(&self) -> Result<(), String>;

    /// The cluster, as far as this node knows it.
    fn cluster(&self) -> ClusterView;

    /// As [`Daemon::ingest_heartbeat`]: stored when the node that leads will take it in.
    fn ingest_heartbeat(&self, body: &[u8], peer: IpAddr) -> Ingest;

    /// As [`Daemon::ingest_alert`]: stored when the node that leads will take it in.
    fn ingest_alert(&self, body: &[u8], peer: IpAddr) -> Ingest;

    /// The last reload of the configuration was refused.
    fn last_reload_refused(&self) -> bool;

    /// As [`Daemon::reload`].
    fn reload(&self) -> ReloadResult;
}

/// Who answers the requests of the HTTP server.
#[derive(Clone)]
pub enum Service {
    /// The daemon, every request.
    Daemon(Arc<dyn Daemon>),
    /// A node of a cluster that does not lead.
    Standby(Arc<dyn StandbyDaemon>),
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new configuration is in use.
    Applied {
        /// What has changed, a sentence each.
        changes: Vec<String>,
        /// What looks wrong with it.
        warnings: Problems,
    },
    /// Everything is as it was, because of these.
    Refused(Problems),
    /// It could not be tried: a sentence.
    NotTried(String),
}

/// Sends a message, within half a minute: what has not ended by then is reported as not arrived. An
/// error means that nothing was sent.
pub type SendJob = Box<dyn FnOnce() -> Result<SendResponse, SendError> + Send>;

/// The result of a message that was sent at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendResponse {
    /// By channel, whether it took the message.
    pub results: BTreeMap<String, bool>,
    /// By channel, why it did not.
    pub why: BTreeMap<String, String>,
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// There is no channel of that name, or for that host.
    NoChannel(String),
    /// Too many messages are being sent.
    Busy(String),
}

/// Why what was asked of silences and acknowledgements was not done: a sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalmRefusal {
    /// A field is wrong.
    Invalid(String),
    /// There is nothing that it is about.
    NotFound(String),
    /// It is beyond a limit.
    Conflict(String),
    /// It could not be stored.
    Unavailable(String),
}

/// Whether the result of what a client sent is known already.
pub enum Ingest {
    /// It is known.
    Done(IngestResult),
    /// Waits for the disk, for a few seconds at most from now on. One thread calls all of these, in
    /// the order in which they came.
    Pending(Box<dyn FnOnce() -> IngestResult + Send>),
}

/// The result of what a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestResult {
    /// It was accepted, and what it caused is stored.
    Stored,
    /// It is no datagram.
    Malformed(String),
    /// It has no signature where one is needed.
    Unsigned(String),
    /// Its signature is wrong, or its time is.
    Forbidden(String),
    /// Its host is not known here.
    UnknownHost(String),
    /// Its host sends more than it may; it should be sent again in a while.
    TooMany(String),
    /// It could not be stored; it should be sent again later.
    Unavailable(String),
}

/// What the daemon has counted since it started, and its present state, for `/metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsSnapshot {
    /// Datagrams that were accepted.
    pub datagrams_accepted: u64,
    /// Datagrams that were not, by reason; every known reason is there, if only with 0.
    pub datagrams_rejected: BTreeMap<String, u64>,
    /// Metrics of accepted datagrams that were left out because they cannot be used.
    pub metrics_left_out: u64,
    /// How near the limits of what is kept are.
    pub limits: Vec<LimitUse>,
    /// The channels, in the order in which they are shown.
    pub channels: Vec<ChannelMetrics>,
    /// Alert instances that came in, repeats too.
    pub alerts_received: u64,
    /// Pipelines that run or wait.
    pub pipelines: u64,
    /// Reports about backup plans by outcome.
    pub backup_outcomes: OutcomeCounts,
    /// The last reload of the configuration was refused.
    pub last_reload_refused: bool,
    /// When the configuration was last loaded.
    pub last_reload_success: Option<Wall>,
    /// Silences that are running.
    pub silences: u64,
    /// Things that are held back, by the kind of the reason; every kind is there.
    pub held: Vec<(&'static str, u64)>,
    /// Open alarms that are acknowledged.
    pub acknowledged: u64,
    /// Until when the certificate of the HTTP server is valid, where it has one.
    pub certificate_expiry: Option<Wall>,
}

/// One notification channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelMetrics {
    /// Its name under `notification_channels`.
    pub name: String,
    /// Deliveries that arrived.
    pub sent: u64,
    /// Attempts that did not, by reason; every known reason is there, if only with 0.
    pub failed: BTreeMap<String, u64>,
    /// Deliveries that wait in the outbox.
    pub deliveries: u64,
    /// How long the oldest of them has waited; zero when none does.
    pub oldest_age: Duration,
    /// It takes messages, as far as is known.
    pub up: bool,
}

/// How many backup alerts ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the outcomes of the contract")]
pub struct OutcomeCounts {
    pub success: u64,
    pub partial: u64,
    pub failed: u64,
    pub missing: u64,
    pub running: u64,
    pub unknown: u64,
}
