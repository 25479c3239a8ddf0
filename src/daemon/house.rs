//! What the daemon shows and answers over HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::chronicle;
use super::reload::Reloads;
use super::signs::Signs;
use super::telling::{self, Seats};
use crate::backup::pipeline::{Accepted, Pipelines};
use crate::backup::verdict::Outcome;
use crate::clock::{Now, Wall};
use crate::dyndns::keeper::Keeper;
use crate::event::EventId;
use crate::heartbeat::rejection::Rejection;
use crate::heartbeat::watch::Watch;
use crate::history::chronicle::Chronicle;
use crate::http::query::NotifyRequest;
use crate::http::service::{ChannelMetrics, MetricsSnapshot, OutcomeCounts};
use crate::http::{Daemon, Ingest, IngestResult, ReloadResult, SendError, SendJob};
use crate::notify::courier::{Courier, REASONS, Standing};
use crate::notify::direct::Notifier;
use crate::notify::outbox::LineView;
use crate::view::query::{EventQuery, NotificationQuery, SeriesQuery};
use crate::view::{
    AlertView, ChannelView, DyndnsView, EventView, HostView, NotificationView, PastView, PlanView,
    SeriesView,
};

/// How long a request waits for the disk.
const DISK: Duration = Duration::from_secs(5);

/// The rooms that the web looks into.
pub struct Rooms {
    pub watch: Arc<Watch>,
    pub courier: Courier,
    /// What was.
    pub chronicle: Arc<Chronicle>,
    /// The channels, for what is sent at once.
    pub notifier: Mutex<Arc<Notifier>>,
    /// What is being sent at once.
    pub sending: Seats,
    /// Backup alerts on their way.
    pub pipelines: Arc<Pipelines>,
    /// The names in the DNS.
    pub keeper: Arc<Keeper>,
    /// The alerts that are signs of life.
    pub signs: Mutex<Arc<Signs>>,
    /// Who waits for the configuration to be read again, and how that went last.
    pub reloads: Reloads,
}

impl Rooms {
    fn notifier(&self) -> Arc<Notifier> {
        Arc::clone(&self.notifier.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The alerts that are signs of life.
    pub fn signs(&self) -> Arc<Signs> {
        Arc::clone(&self.signs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over those of a new configuration.
    pub fn replace_signs(&self, new: Signs) {
        *self.signs.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// Takes over the channels of a new configuration.
    pub fn replace_notifier(&self, new: Notifier) {
        *self.notifier.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }
}

impl Daemon for Rooms {
    fn ready(&self) -> Result<(), String> {
        if self.courier.standing().store_refuses {
            return Err("the state cannot be written to disk".into());
        }
        Ok(())
    }

    fn hosts(&self, from: usize, count: usize) -> Vec<HostView> {
        self.watch.views(from, count)
    }

    fn host(&self, name: &str) -> Option<HostView> {
        self.watch.view(name)
    }

    fn ingest_heartbeat(&self, body: &[u8], peer: IpAddr) -> Ingest {
        let (tx, rx) = bounded(1);
        let then = move |_ack, stored| {
            // Who no longer waits for the answer does not get it.
            let _ = tx.send(stored);
        };
        match self.watch.hear_over_http(body, peer.to_canonical(), Now::read(), then) {
            Ok(()) => once_stored(rx),
            Err(why) => Ingest::Done(refusal(why)),
        }
    }

    fn ingest_alert(&self, body: &[u8]) -> Ingest {
        let (tx, rx) = bounded(1);
        let then = move |stored| {
            // Who no longer waits for the answer does not get it.
            let _ = tx.send(stored);
        };
        self.signs().of_webhook(body, &self.watch);
        match self.pipelines.hear(body, then) {
            Ok(Accepted::Nothing) => Ingest::Done(IngestResult::Stored),
            Ok(Accepted::Coming) => once_stored(rx),
            Ok(Accepted::Full) => {
                Ingest::Done(IngestResult::Unavailable("too many alerts wait already".into()))
            }
            Err(why) => Ingest::Done(IngestResult::Malformed(why)),
        }
    }

    fn dyndns(&self) -> Vec<DyndnsView> {
        self.keeper.views()
    }

    fn channels(&self) -> Vec<ChannelView> {
        telling::channels(&self.notifier(), &self.courier.standing())
    }

    fn notifications(
        &self,
        query: &NotificationQuery,
    ) -> Result<(Vec<NotificationView>, Option<u64>), String> {
        telling::notifications(&self.courier, query)
    }

    fn pasts(&self, hosts: &[&str]) -> Result<Vec<Option<PastView>>, String> {
        self.chronicle.pasts(hosts, Now::read())
    }

    fn series(&self, host: &str, query: &SeriesQuery) -> Result<Option<Vec<SeriesView>>, String> {
        chronicle::series(self, host, query)
    }

    fn events(&self, query: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String> {
        chronicle::events(self, query)
    }

    fn alerts(&self) -> Result<Vec<AlertView>, String> {
        chronicle::alerts(self)
    }

    fn plans(&self) -> Result<Vec<PlanView>, String> {
        chronicle::plans(self)
    }

    fn notify(&self, request: NotifyRequest) -> Result<SendJob, SendError> {
        telling::prepare(self.notifier(), self.courier.clone(), &self.sending, request)
    }

    fn reload(&self) -> ReloadResult {
        self.reloads.ask()
    }

    fn metrics(&self) -> MetricsSnapshot {
        let standing = self.courier.standing();
        MetricsSnapshot {
            datagrams_accepted: self.watch.accepted(),
            datagrams_rejected: self
                .watch
                .rejected()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            channels: standing.lines.iter().map(|line| channel(line, &standing)).collect(),
            alerts_received: self.pipelines.received(),
            pipelines: self.pipelines.count() as u64,
            backup_outcomes: outcomes(&self.pipelines),
            last_reload_refused: self.reloads.refused(),
            last_reload_success: Some(Wall(self.reloads.loaded())),
            certificate_expiry: self.reloads.certificate_expiry(),
        }
    }
}

/// The answer, as soon as the disk has told.
fn once_stored(stored: Receiver<bool>) -> Ingest {
    if stored.try_recv() == Ok(true) {
        return Ingest::Done(IngestResult::Stored);
    }
    let until = Instant::now() + DISK;
    Ingest::Pending(Box::new(move || match stored.recv_deadline(until) {
        Ok(true) => IngestResult::Stored,
        Ok(false) => IngestResult::Unavailable("it was heard but cannot be stored".into()),
        Err(_) => IngestResult::Unavailable("the disk is slow, it was heard but not stored".into()),
    }))
}

fn outcomes(pipelines: &Pipelines) -> OutcomeCounts {
    OutcomeCounts {
        success: pipelines.outcome(Outcome::Success),
        partial: pipelines.outcome(Outcome::Partial),
        failed: pipelines.outcome(Outcome::Failed),
        missing: pipelines.outcome(Outcome::Missing),
        running: pipelines.outcome(Outcome::Running),
        unknown: pipelines.outcome(Outcome::Unknown),
    }
}

fn channel(line: &LineView, standing: &Standing) -> ChannelMetrics {
    let name = &line.channel;
    let counted = standing.failed.get(name);
    let failed = |reason: &'static str| {
        let count = counted.and_then(|counts| counts.get(reason)).copied().unwrap_or(0);
        (reason.to_owned(), count)
    };
    ChannelMetrics {
        name: name.clone(),
        sent: standing.sent.get(name).copied().unwrap_or(0),
        failed: REASONS.into_iter().map(failed).collect::<BTreeMap<_, _>>(),
        deliveries: line.waiting as u64,
        oldest_age: line.oldest.unwrap_or_default(),
        up: line.failing_since.is_none(),
    }
}

fn refusal(why: Rejection) -> IngestResult {
    let words = why.to_string();
    match why {
        Rejection::TooLong
        | Rejection::NotUtf8
        | Rejection::NotJson
        | Rejection::BadField(_)
        | Rejection::TooManyConnections
        | Rejection::TooManyMetrics => IngestResult::Malformed(words),
        Rejection::Unsigned => IngestResult::Unsigned(words),
        Rejection::BadSignature | Rejection::Stale | Rejection::Replay => {
            IngestResult::Forbidden(words)
        }
        Rejection::UnknownHost | Rejection::TooManyHosts => IngestResult::UnknownHost(words),
        Rejection::Busy => IngestResult::Unavailable(words),
    }
}
