//! Connects the history to its sources, the monitor and the store, and answers questions about it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::threads::Threads;
use crate::backup::plan_tracker::is_forgotten;
use crate::clock::{Now, Wall};
use crate::event::{EventId, Incident, Level};
use crate::heartbeat::monitor::Monitor;
use crate::history::HistorySource;
use crate::history::recorder::Recorder;
use crate::history::retention::RetentionSettings;
use crate::notify::calm::scope::Target;
use crate::notify::courier::Courier;
use crate::notify::outbox::OpenIncident;
use crate::store::{Change, RawRow, Snapshot, Table, Write};
use crate::thread::Stop;
use crate::view::query::{EventQuery, SeriesQuery};
use crate::view::{AlertView, EventView, PlanView, SeriesView, UptimeSample};

/// How long an answer of the courier is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many hosts are inspected each time that the monitor's lock is held.
const HOSTS_PER_LOCK: usize = 1000;
/// How many alerts are shown, the worst first.
const MAX_ALERTS: usize = 1000;

/// What the history is recorded from, and where to.
struct HistorySources {
    monitor: Arc<Monitor>,
    courier: Courier,
}

/// A history that is recorded from the monitor into the store of the courier.
pub fn open(monitor: &Arc<Monitor>, courier: &Courier, settings: RetentionSettings) -> Recorder {
    courier.limit_history(settings.limit());
    let sources = HistorySources { monitor: Arc::clone(monitor), courier: courier.clone() };
    Recorder::new(Arc::new(sources), settings)
}

/// Applies another configuration.
pub fn reconfigure(recorder: &Recorder, courier: &Courier, settings: RetentionSettings) {
    courier.limit_history(settings.limit());
    recorder.reconfigure(settings);
}

/// Starts the thread that records the history until the stop.
///
/// # Errors
/// When it cannot be started.
pub fn start(recorder: &Arc<Recorder>, threads: &Threads, stop: &Stop) -> Result<(), String> {
    let (recorder, stop) = (Arc::clone(recorder), stop.clone());
    threads.spawn("history", move || recorder.run(&stop))
}

impl HistorySource for HistorySources {
    fn take_samples(&self, from: usize, count: usize, until: Now) -> Vec<UptimeSample> {
        self.monitor.take_samples(from, count, until)
    }

    fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample> {
        self.monitor.read(|fleet| fleet.peek_sample(host, now))
    }

    fn outages(&self, now: Now) -> Vec<(Wall, Wall)> {
        self.monitor.take_blind_periods(now)
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        let snapshot = self.courier.inspect(TIMEOUT, |store, _| store.snapshot())?;
        snapshot.ok_or_else(|| "the state cannot be written to disk".into())
    }

    fn newest(
        &self,
        table: Table,
        before: Option<&str>,
        count: usize,
    ) -> Result<Vec<RawRow>, String> {
        let view = self.courier.inspect(TIMEOUT, move |store, _| store.view(table))?;
        Ok(view.newest(before, count))
    }

    fn write(&self, writes: Vec<Write>) {
        self.courier.commit(Change { writes, ..Change::default() });
    }
}

/// The metrics of a host over time; none when there is no such host.
pub fn series(
    monitor: &Monitor,
    recorder: &Recorder,
    host: &str,
    query: &SeriesQuery,
) -> Result<Option<Vec<SeriesView>>, String> {
    if monitor.view(host).is_none() {
        return Ok(None);
    }
    let now = Now::read().wall;
    recorder.series(host, &query.metrics, query.range, now).map(Some)
}

/// A page of the events, and where the next one begins.
pub fn events(
    recorder: &Recorder,
    query: &EventQuery,
) -> Result<(Vec<EventView>, Option<EventId>), String> {
    recorder.events(query)
}

/// The last look at each backup plan, by id. A trouble that an operator ended is not shown, nor what
/// is remembered of the modules to compare the next look with.
pub fn plans(courier: &Courier) -> Result<Vec<PlanView>, String> {
    let plans = courier.inspect(TIMEOUT, |store, _| store.view(Table::Plans))?.read::<PlanView>();
    let is_shown = |plan: &PlanView| !plan.told.as_ref().is_some_and(is_forgotten);
    let shown = plans.into_iter().map(|(_, plan)| plan).filter(is_shown);
    Ok(shown
        .map(|mut plan| {
            plan.told.iter_mut().for_each(|told| told.modules.clear());
            plan.configured = None;
            plan
        })
        .collect())
}

/// What is wrong at present, the worst first: of hosts by their state, of everything else by the
/// incidents that messages were sent about.
pub fn alerts(monitor: &Monitor, courier: &Courier) -> Result<Vec<AlertView>, String> {
    let mut problems = Vec::new();
    for from in (0..monitor.count()).step_by(HOSTS_PER_LOCK) {
        problems.extend(monitor.open_problems(from, HOSTS_PER_LOCK));
        // Memory stays bounded when a whole site is down.
        problems.sort_by_key(|problem| Reverse((problem.level, problem.since)));
        problems.truncate(MAX_ALERTS);
    }
    let alerts = courier.inspect_calm(TIMEOUT, move |calm, outbox, now| {
        let of_hosts = problems.into_iter().map(|problem| {
            let open_incident = outbox.open_incident(&problem.incident);
            let held = calm.held_incident(&problem.incident, now);
            let view = alert_view(&problem.incident, problem.text, open_incident, now);
            AlertView { level: problem.level, since: Some(problem.since), held, ..view }
        });
        let others = outbox.open_incidents().filter_map(|open_incident| {
            let incident = &open_incident.incident;
            let view = alert_view(incident, describe_incident(incident)?, Some(open_incident), now);
            Some(AlertView { held: calm.held_incident(incident, now), ..view })
        });
        // Of what nobody was told of, as all of it is held back.
        let unheard = calm.held_incidents().filter(|held| outbox.open_incident(held).is_none());
        let unheard = unheard.filter_map(|incident| {
            // Nearly all are of hosts, and come with their state.
            let view = alert_view(incident, describe_incident(incident)?, None, now);
            let held = calm.held_incident(incident, now)?;
            Some(AlertView { level: held.level, since: Some(held.since), held: Some(held), ..view })
        });
        of_hosts.chain(others).chain(unheard).collect::<Vec<AlertView>>()
    });
    let mut alerts = alerts.map_err(|why| why.to_string())?;
    alerts.sort_by_key(|alert| Reverse((alert.level, alert.since)));
    alerts.truncate(MAX_ALERTS);
    Ok(alerts)
}

/// What is wrong, for an incident that is not part of a host's state.
fn describe_incident(incident: &Incident) -> Option<String> {
    match incident {
        Incident::Connection { .. }
        | Incident::NeverSeen { .. }
        | Incident::NotBack { .. }
        | Incident::Metric { .. } => None,
        Incident::Backup { .. } => Some("the backup is not known to have succeeded".into()),
        Incident::Alertmanager => Some("the Alertmanager that is asked does not answer".into()),
        Incident::Channel { .. } => Some("does not deliver".into()),
        Incident::Store => Some("the state cannot be written to disk".into()),
        Incident::Storm => Some("many hosts fell silent together".into()),
        Incident::Node { .. } => Some("hosts that it alone heard are heard by nobody".into()),
        Incident::Dyndns { .. } => Some("its name in the DNS cannot be kept".into()),
    }
}

fn alert_view(
    incident: &Incident,
    text: String,
    open_incident: Option<&OpenIncident>,
    now: Now,
) -> AlertView {
    let (subject, host) = match incident {
        Incident::Connection { host, .. }
        | Incident::NeverSeen { host }
        | Incident::NotBack { host }
        | Incident::Dyndns { host }
        | Incident::Metric { host, .. } => (format!("host {host}"), Some(host.clone())),
        Incident::Backup { plan } => (format!("plan {plan}"), None),
        Incident::Channel { channel } => (format!("channel {channel}"), None),
        Incident::Alertmanager => ("alertmanager".into(), None),
        Incident::Node { node } => (format!("node {node}"), None),
        Incident::Store | Incident::Storm => ("hbd".into(), None),
    };
    let acknowledged = open_incident.and_then(|open_incident| open_incident.acknowledgement(now));
    let channels: Vec<_> = open_incident.iter().flat_map(|open| &open.channels).collect();
    let names = |reached: bool| {
        let given = channels.iter().filter(|(_, given)| !given.handed_over);
        let given = given.filter(|(_, given)| given.delivered || !reached);
        given.map(|(name, _)| (*name).clone()).collect()
    };
    AlertView {
        subject,
        host,
        text,
        level: open_incident
            .and_then(|open_incident| open_incident.level)
            .unwrap_or(Level::Warning),
        since: open_incident.and_then(|open_incident| open_incident.since),
        channels: names(false),
        acknowledged: acknowledged.map(|by| by.at),
        scope: Target::of_incident(incident).map(|target| target.scope().to_string()),
        told: names(true),
        held: None,
    }
}
