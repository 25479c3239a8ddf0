//! The history: fed from the fleet, kept in the store through the courier, and shown.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::{Failure, house::Rooms, spawn};
use crate::clock::{Now, Wall};
use crate::event::{EventId, Incident, Level};
use crate::heartbeat::watch::Watch;
use crate::history::chronicle::Chronicle;
use crate::history::settings::Settings;
use crate::history::{Row, Sources};
use crate::notify::courier::{Courier, Order};
use crate::notify::outbox::{self, Outbox};
use crate::store::Change;
use crate::store::{Snapshot, Store, Table, Write};
use crate::thread::Stop;
use crate::view::query::{EventQuery, SeriesQuery};
use crate::view::{AlertView, EventView, PlanView, SeriesView, UptimeSample};

/// How long the courier may let us wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many hosts are looked at before the lock on them is let go of.
const HOSTS_AT_ONCE: usize = 1000;
/// So many alerts are shown, the worst first.
const MOST_ALERTS: usize = 1000;

/// The rooms that the history is made of.
struct Around {
    watch: Arc<Watch>,
    courier: Courier,
}

/// The history of what these rooms tell.
pub fn open(watch: &Arc<Watch>, courier: &Courier, settings: Settings) -> Chronicle {
    let around = Around { watch: Arc::clone(watch), courier: courier.clone() };
    Chronicle::new(Arc::new(around), settings)
}

/// Lets it work until the stop.
///
/// # Errors
/// When no thread can be started.
pub fn start(chronicle: &Arc<Chronicle>, stop: &Stop) -> Result<(), Failure> {
    let (chronicle, stop) = (Arc::clone(chronicle), stop.clone());
    spawn("history", move || chronicle.run(&stop))
}

/// What `look` sees of the store and the outbox, as soon as the courier has time.
fn ask<T: Send + 'static>(
    courier: &Courier,
    look: impl FnOnce(&Store, &Outbox) -> T + Send + 'static,
) -> Result<T, String> {
    let (tx, rx) = bounded(1);
    courier.order(Order::Look(Box::new(move |store, outbox| {
        // Who no longer waits for the answer does not get it.
        let _ = tx.send(look(store, outbox));
    })));
    rx.recv_deadline(Instant::now() + PATIENCE).map_err(|why| match why {
        RecvTimeoutError::Timeout => "the history cannot be read now, the disk is slow".into(),
        RecvTimeoutError::Disconnected => "hbd is stopping".into(),
    })
}

impl Sources for Around {
    fn accounts(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.watch.accounts(from, count, until)
    }

    fn running(&self, host: &str, now: Now) -> Option<UptimeSample> {
        self.watch.running(host, now)
    }

    fn unseen(&self, now: Now) -> Vec<(Wall, Wall)> {
        self.watch.unseen(now)
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        let snapshot = ask(&self.courier, |store, _| store.snapshot())?;
        snapshot.ok_or_else(|| "the state cannot be written to disk".into())
    }

    fn newest(&self, table: Table, before: Option<&str>, count: usize) -> Result<Vec<Row>, String> {
        let before = before.map(str::to_owned);
        ask(&self.courier, move |store, _| store.newest(table, before.as_deref(), count))
    }

    fn write(&self, writes: Vec<Write>) {
        self.courier.order(Order::Accept(Change { writes, ..Change::default() }));
    }
}

/// The metrics of a host over time; none when there is no such host.
pub fn series(
    rooms: &Rooms,
    host: &str,
    query: &SeriesQuery,
) -> Result<Option<Vec<SeriesView>>, String> {
    if rooms.watch.view(host).is_none() {
        return Ok(None);
    }
    let now = Now::read().wall;
    rooms.chronicle.series(host, &query.metrics, query.range, now).map(Some)
}

/// What happened, and where to go on.
pub fn events(
    rooms: &Rooms,
    query: &EventQuery,
) -> Result<(Vec<EventView>, Option<EventId>), String> {
    rooms.chronicle.events(query)
}

/// How the backup plans fared, by id.
pub fn plans(rooms: &Rooms) -> Result<Vec<PlanView>, String> {
    let plans = ask(&rooms.courier, |store, _| store.read::<PlanView>(Table::Plans))?;
    Ok(plans.into_iter().map(|(_, plan)| plan).collect())
}

/// What is wrong at present, the worst first: what the hosts show, and what was told of all else.
pub fn alerts(rooms: &Rooms) -> Result<Vec<AlertView>, String> {
    let mut wrong = Vec::new();
    for from in (0..rooms.watch.count()).step_by(HOSTS_AT_ONCE) {
        wrong.extend(rooms.watch.wrong(from, HOSTS_AT_ONCE));
        // A whole site may be gone: what will not be shown is not kept.
        wrong.sort_by_key(|wrong| Reverse((wrong.level, wrong.since)));
        wrong.truncate(MOST_ALERTS);
    }
    let mut alerts = ask(&rooms.courier, move |_, outbox| {
        let of_hosts = wrong.into_iter().map(|wrong| {
            let told = outbox.alert(&wrong.trouble);
            let view = view(&wrong.trouble, wrong.text, told.as_ref());
            AlertView { level: wrong.level, since: Some(wrong.since), ..view }
        });
        let others = outbox
            .alerts_of_no_host()
            .into_iter()
            .filter_map(|told| Some(view(&told.trouble, of_no_host(&told.trouble)?, Some(&told))));
        of_hosts.chain(others).collect::<Vec<AlertView>>()
    })?;
    alerts.sort_by_key(|alert| Reverse((alert.level, alert.since)));
    alerts.truncate(MOST_ALERTS);
    Ok(alerts)
}

/// The words for a trouble that the hosts do not show.
fn of_no_host(trouble: &Incident) -> Option<String> {
    match trouble {
        Incident::Connection { .. } | Incident::NeverSeen { .. } | Incident::Metric { .. } => None,
        Incident::Backup { .. } => Some("the backup did not succeed".into()),
        Incident::Alertmanager => Some("the Alertmanager that is asked does not answer".into()),
        Incident::Channel { .. } => Some("does not deliver".into()),
        Incident::Store => Some("the state cannot be written to disk".into()),
        Incident::Dyndns { .. } => Some("its name in the DNS cannot be kept".into()),
    }
}

fn view(trouble: &Incident, text: String, told: Option<&outbox::AlertView>) -> AlertView {
    let (subject, host) = match trouble {
        Incident::Connection { host, .. }
        | Incident::NeverSeen { host }
        | Incident::Dyndns { host }
        | Incident::Metric { host, .. } => (format!("host {host}"), Some(host.clone())),
        Incident::Backup { plan } => (format!("plan {plan}"), None),
        Incident::Channel { channel } => (format!("channel {channel}"), None),
        Incident::Alertmanager => ("alertmanager".into(), None),
        Incident::Store => ("hbd".into(), None),
    };
    let acknowledged = told.and_then(|told| told.acknowledged.as_ref());
    AlertView {
        subject,
        host,
        text,
        level: told.and_then(|told| told.level).unwrap_or(Level::Warning),
        since: told.and_then(|told| told.since),
        channels: told.map(|told| told.channels.clone()).unwrap_or_default(),
        acknowledged: acknowledged.map(|by| by.at),
    }
}
