//! The daemon as the HTTP server sees it: every question and request, passed on to the feature that
//! answers it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::backups::Backups;
use super::calm;
use super::history;
use super::node::ClusterNode;
use super::notifications;
use super::peers::Peers;
use super::reload::Reloads;
use super::summary::Summaries;
use super::wiring::{Current, HeartbeatAlerts, LabelledHosts};
use crate::backup::alert;
use crate::backup::outcome::Outcome;
use crate::backup::pipeline::AlertAdmission;
use crate::backup::plan_reporter::PlanReporter;
use crate::btree::InsertAll;
use crate::clock::{Now, Wall};
use crate::dyndns::updater::Updater;
use crate::event::{EventId, Level, LimitUse};
use crate::heartbeat::datagram::Rejection;
use crate::heartbeat::fleet::NotForgotten;
use crate::heartbeat::monitor::Monitor;
use crate::history::recorder::Recorder;
use crate::http::calm_request::CalmCommand;
use crate::http::query::NotifyRequest;
use crate::http::service::{CalmRefusal, ChannelMetrics, MetricsSnapshot, OutcomeCounts};
use crate::http::{Daemon, Ingest, IngestResult, ReloadResult, SendError, SendJob};
use crate::notify::calm::ReasonKind;
use crate::notify::courier::{Courier, CourierStats, FAILURE_REASONS};
use crate::notify::notifier::Notifier;
use crate::notify::outbox::QueueStatus;
use crate::store::InboxEntry;
use crate::thread::Semaphore;
use crate::view::calm::{CalmAnswer, HeldListView, SilencesView};
use crate::view::cluster::ClusterView;
use crate::view::query::{EventQuery, NotificationQuery, SeriesQuery};
use crate::view::{
    AlertView, AvailabilityView, ChannelView, DependencyView, DyndnsView, EventView, HostView,
    NotificationView, PlanView, SeriesView,
};

/// How long a request waits for the disk.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The features of the daemon, shared by its threads.
pub struct Services {
    /// Hosts, connections, metrics.
    pub monitor: Arc<Monitor>,
    /// Deliveries, and the store.
    pub courier: Courier,
    /// The recorded history.
    pub recorder: Arc<Recorder>,
    /// The channels, for messages that are sent at once.
    pub notifier: Current<Notifier>,
    /// Limits how many messages are sent at once.
    pub sending: Semaphore,
    /// Backup alerts until they are answered, and what was told of backup plans.
    pub backups: Backups,
    /// The daily summary of backups.
    pub summaries: Arc<Summaries>,
    /// Names in the DNS.
    pub updater: Arc<Updater>,
    /// The alerts that count as heartbeats.
    pub heartbeat_alerts: Arc<Current<HeartbeatAlerts>>,
    /// What the configuration says about hosts for people.
    pub labels: Current<LabelledHosts>,
    /// Requests for a reload, and the result of the last one.
    pub reloads: Reloads,
    /// The cluster that this daemon leads; none without one.
    pub cluster: Option<Arc<ClusterNode>>,
    /// Its other nodes.
    pub peers: Option<Arc<Peers>>,
}

impl Daemon for Services {
    fn ready(&self) -> Result<(), String> {
        match self.courier.stats().store_refuses {
            Some(why) => Err(format!("the state cannot be written to disk: {why}")),
            None => Ok(()),
        }
    }

    fn hosts(&self, from: usize, count: usize) -> Vec<HostView> {
        let quiet = self.courier.calm();
        let labels = self.labels.get();
        let mut hosts = self.monitor.views(from, count);
        for host in &mut hosts {
            host.quiet = quiet.quiet(&host.name);
            labels.label(host);
        }
        hosts
    }

    fn host(&self, name: &str) -> Option<HostView> {
        let mut host = self.monitor.view(name)?;
        host.quiet = self.courier.calm().quiet(name);
        self.labels.get().label(&mut host);
        Some(host)
    }

    fn ingest_heartbeat(&self, body: &[u8], peer: IpAddr) -> Ingest {
        let (tx, rx) = bounded(1);
        let then = move |_ack, stored| {
            // Fails when the request no longer waits.
            let _ = tx.send(stored);
        };
        match self.monitor.ingest_over_http(body, peer.to_canonical(), Now::read(), then) {
            Ok(()) => answer_when_stored(rx),
            Err(why) => Ingest::Done(rejection_answer(why)),
        }
    }

    fn forget(&self, host: &str, connection: Option<&str>) -> Result<(), String> {
        self.monitor.forget(host, connection).map_err(|why| match why {
            NotForgotten::NoHost => format!("no host is called {host}"),
            NotForgotten::NoConnection(known) if known.is_empty() => {
                format!("{host} has not been heard, and so has no connection")
            }
            NotForgotten::NoConnection(known) => {
                format!("{host} has no such connection, but: {}", known.join(", "))
            }
        })
    }

    fn ingest_alert(&self, body: &[u8]) -> Ingest {
        let (tx, rx) = bounded(1);
        let then = move |stored| {
            // Fails when the request no longer waits.
            let _ = tx.send(stored);
        };
        match self.take_alerts(body, None, then) {
            Ok(AlertAdmission::NoneRelevant) => Ingest::Done(IngestResult::Stored),
            Ok(AlertAdmission::Pending) => answer_when_stored(rx),
            Ok(AlertAdmission::QueueFull) => {
                Ingest::Done(IngestResult::Unavailable("too many alerts wait already".into()))
            }
            Err(refused) => Ingest::Done(refused),
        }
    }

    fn dyndns(&self) -> Vec<DyndnsView> {
        self.updater.views()
    }

    fn channels(&self) -> Vec<ChannelView> {
        notifications::channels(&self.notifier.get(), &self.courier.stats())
    }

    fn notifications(
        &self,
        query: &NotificationQuery,
    ) -> Result<(Vec<NotificationView>, Option<u64>), String> {
        notifications::notifications(&self.courier, query)
    }

    fn availabilities(&self, hosts: &[&str]) -> Result<Vec<Option<AvailabilityView>>, String> {
        let now = Now::read();
        let mut pasts = self.recorder.pasts(hosts, now)?;
        let shown = now.wall - AvailabilityView::SHOWN..now.wall;
        let windows = self.courier.calm().windows(hosts, &shown);
        for (past, windows) in pasts.iter_mut().zip(windows) {
            past.iter_mut().for_each(|past| past.mark(&windows));
        }
        Ok(pasts)
    }

    fn windows(&self, host: &str, period: &Range<Wall>) -> Vec<Range<Wall>> {
        self.courier.calm().windows(&[host], period).pop().unwrap_or_default()
    }

    fn dependencies(&self, host: &str) -> DependencyView {
        self.monitor.read(|fleet| fleet.dependency_view(host))
    }

    fn limits(&self, host: &str, metric: &str) -> Vec<(Level, String)> {
        self.monitor.read(|fleet| fleet.limit_views(host, metric))
    }

    fn series(&self, host: &str, query: &SeriesQuery) -> Result<Option<Vec<SeriesView>>, String> {
        history::series(&self.monitor, &self.recorder, host, query)
    }

    fn events(&self, query: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String> {
        history::events(&self.recorder, query)
    }

    fn alerts(&self) -> Result<Vec<AlertView>, String> {
        history::alerts(&self.monitor, &self.courier)
    }

    fn plans(&self) -> Result<Vec<PlanView>, String> {
        history::plans(&self.courier)
    }

    fn forget_plan(&self, plan: &str) -> Option<String> {
        self.backups.reporter.forget(plan)
    }

    fn notify(&self, request: NotifyRequest) -> Result<SendJob, SendError> {
        notifications::prepare_send(
            self.notifier.get(),
            self.courier.clone(),
            &self.sending,
            request,
        )
    }

    fn silences(&self) -> Result<SilencesView, String> {
        self.courier.silences(calm::TIMEOUT).map_err(|why| why.to_string())
    }

    fn held(&self, host: Option<&str>) -> Result<HeldListView, String> {
        self.courier.held(host, calm::TIMEOUT).map_err(|why| why.to_string())
    }

    fn calm(&self, command: CalmCommand) -> Result<CalmAnswer, CalmRefusal> {
        calm::answer(&self.monitor, &self.courier, command)
    }

    fn cluster(&self) -> Option<ClusterView> {
        Some(self.cluster.as_ref()?.view())
    }

    fn step_down(&self) -> Result<(), String> {
        match &self.cluster {
            Some(node) => node.request_step_down(),
            None => Err("this hbd is no node of a cluster".into()),
        }
    }

    fn reload(&self) -> ReloadResult {
        self.reloads.request()
    }

    fn metrics(&self) -> MetricsSnapshot {
        let stats = self.courier.stats();
        MetricsSnapshot {
            datagrams_accepted: self.monitor.counters().accepted(),
            datagrams_rejected: self
                .monitor
                .counters()
                .rejected()
                .map(|(reason, count)| (reason.to_owned(), count))
                .insert_all(),
            metrics_left_out: self.monitor.counters().metrics_left_out(),
            limits: self.limits(),
            channels: stats.queues.iter().map(|queue| channel_metrics(queue, &stats)).collect(),
            alerts_received: self.backups.pipelines.received(),
            pipelines: self.backups.pipelines.count() as u64,
            backup_outcomes: outcomes(&self.backups.reporter),
            last_reload_refused: self.reloads.refused(),
            last_reload_success: Some(Wall(self.reloads.loaded())),
            silences: stats.calm.stats.silences as u64,
            held: ReasonKind::ALL
                .map(ReasonKind::name)
                .into_iter()
                .zip(stats.calm.stats.held.map(|count| count as u64))
                .collect(),
            acknowledged: stats.acknowledged as u64,
            certificate_expiry: self.reloads.certificate_expiry(),
        }
    }
}

impl Services {
    /// Takes in the webhook of an Alertmanager, which may be an entry of the inbox.
    pub(super) fn take_alerts(
        &self,
        body: &[u8],
        entry: Option<InboxEntry>,
        then: impl FnOnce(bool) + Send + 'static,
    ) -> Result<AlertAdmission, IngestResult> {
        let heartbeat_alerts = self.heartbeat_alerts.get();
        let heartbeat = heartbeat_alerts.names().to_vec();
        let names = self.backups.pipelines.alert_names(heartbeat);
        let mut alerts =
            alert::from_webhook(body, &names, Now::read().wall).map_err(IngestResult::Malformed)?;
        let again = entry.as_ref().is_some_and(|entry| entry.again);
        alerts.backup.iter_mut().for_each(|alert| alert.may_repeat = again);
        let take_heartbeats = || {
            heartbeat_alerts.ingest(&alerts.heartbeat, &alerts.heartbeat_resolved, &self.monitor);
        };
        // An entry of the inbox that cannot be taken comes again: a sign of life is one once.
        let is_entry = entry.is_some();
        if !is_entry {
            take_heartbeats();
        }
        // Before those that fire: the next instance may come in one body with the end of the last.
        self.backups.pipelines.resolve(&alerts.backup_resolved);
        self.backups.pipelines.warn_unlisted(alerts.unlisted);
        if self.courier.is_backlogged() && !alerts.backup.is_empty() {
            let why = "the disk is slow, too much waits for it";
            return Err(IngestResult::Unavailable(why.into()));
        }
        let admission = self.backups.pipelines.enqueue(alerts.backup, entry, then);
        if is_entry && admission != AlertAdmission::QueueFull {
            take_heartbeats();
        }
        Ok(admission)
    }

    fn limits(&self) -> Vec<LimitUse> {
        let backups = self.backups.pipelines.limits();
        let own = self.monitor.limits().into_iter().chain(backups);
        own.chain([self.backups.reporter.limit()]).collect()
    }
}

/// The answer, as soon as the change is stored or cannot be.
pub(super) fn answer_when_stored(stored: Receiver<bool>) -> Ingest {
    if stored.try_recv() == Ok(true) {
        return Ingest::Done(IngestResult::Stored);
    }
    let deadline = Instant::now() + COMMIT_TIMEOUT;
    Ingest::Pending(Box::new(move || match stored.recv_deadline(deadline) {
        Ok(true) => IngestResult::Stored,
        Ok(false) => IngestResult::Unavailable("it was heard but cannot be stored".into()),
        Err(_) => {
            let why =
                "it was heard, and is not known to be stored yet: it may be told all the same";
            IngestResult::Unavailable(why.into())
        }
    }))
}

fn outcomes(reporter: &PlanReporter) -> OutcomeCounts {
    OutcomeCounts {
        success: reporter.outcome(Outcome::Success),
        partial: reporter.outcome(Outcome::Partial),
        failed: reporter.outcome(Outcome::Failed),
        missing: reporter.outcome(Outcome::Missing),
        running: reporter.outcome(Outcome::Running),
        unknown: reporter.outcome(Outcome::Unknown),
    }
}

fn channel_metrics(queue: &QueueStatus, stats: &CourierStats) -> ChannelMetrics {
    let name = &queue.channel;
    let counted = stats.failed.get(name);
    let failed = |reason: &'static str| {
        let count = counted.and_then(|counts| counts.get(reason)).copied().unwrap_or(0);
        (reason.to_owned(), count)
    };
    ChannelMetrics {
        name: name.clone(),
        sent: stats.sent.get(name).copied().unwrap_or(0),
        failed: FAILURE_REASONS.into_iter().map(failed).insert_all::<BTreeMap<_, _>>(),
        deliveries: queue.waiting as u64,
        oldest_age: queue.oldest.unwrap_or_default(),
        up: queue.failing_since.is_none(),
    }
}

pub(super) fn rejection_answer(why: Rejection) -> IngestResult {
    let text = why.to_string();
    match why {
        Rejection::TooLong
        | Rejection::NotUtf8
        | Rejection::NotJson
        | Rejection::BadField(_)
        | Rejection::TooManyConnections
        | Rejection::TooManyMetrics
        | Rejection::TooLongSilence => IngestResult::Malformed(text),
        Rejection::Unsigned => IngestResult::Unsigned(text),
        Rejection::BadSignature | Rejection::Stale | Rejection::Replay => {
            IngestResult::Forbidden(text)
        }
        Rejection::UnknownHost | Rejection::TooManyHosts => IngestResult::UnknownHost(text),
        Rejection::TooManyMessages => IngestResult::TooMany(text),
        Rejection::Busy => IngestResult::Unavailable(text),
    }
}
