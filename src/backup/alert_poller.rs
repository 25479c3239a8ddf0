//! Polls the API of an Alertmanager for its alerts, where it is not configured to send them.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{debug, warn};

use super::alert::{self, Alert, AlertNames, RelevantAlerts};
use super::pipeline::Pipelines;
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, Incident};
use crate::store::change::{Change, ChangeSink};
use crate::thread::Stop;
use crate::tls;

/// An outage of the Alertmanager is reported when it has lasted for this time.
const REPORT_AFTER: Duration = Duration::from_secs(5 * 60);

/// How long one request may take in all.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes of an answer are read: thousands of alerts.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Which Alertmanager is polled, and how often.
#[derive(Clone, Debug)]
pub struct AlertPollerSettings {
    /// `http://127.0.0.1:9093`
    pub url: String,
    /// The time between two requests.
    pub interval: Duration,
    /// Whether the present outage was reported; kept up to date for the poller that follows this
    /// one.
    pub reported: Arc<AtomicBool>,
}

/// The monitor's side of alerts that are heartbeats of a host.
#[derive(Clone, Copy)]
pub struct HeartbeatAlertHooks<'a> {
    /// The names of these alerts at present.
    pub names: &'a dyn Fn() -> Vec<String>,
    /// Takes those that are active.
    pub ingest: &'a dyn Fn(&[Alert]),
}

/// No Alertmanager is polled any more: the incident of a reported outage ends without a message.
pub fn stop_reporting(sink: &ChangeSink) {
    sink(Change { closed_silently: vec![Incident::Alertmanager], ..Change::default() });
}

/// Polls until the stop, for the alerts that the configuration names at present.
pub fn run(
    settings: &AlertPollerSettings,
    pipelines: &Arc<Pipelines>,
    hooks: HeartbeatAlertHooks,
    sink: &ChangeSink,
    stop: &Stop,
) {
    let reported = settings.reported.load(Ordering::Relaxed);
    let mut outage = OutageTracker::new(reported, Now::read().mono);
    let mut firing: Vec<Alert> = Vec::new();
    loop {
        let names = pipelines.alert_names((hooks.names)());
        let answer = fetch_alerts(&settings.url, &names);
        if stop.stopped() {
            // Another Alertmanager is polled by now: this one's outage must not be reported.
            return;
        }
        let now = Now::read();
        if let Some(kind) = outage.observe(answer.as_ref().err(), now.mono) {
            let event = Event::new(now.wall, kind);
            settings.reported.store(outage.reported, Ordering::Relaxed);
            sink(Change { events: vec![event], ..Change::default() });
        }
        match answer {
            Ok(alerts) => {
                (hooks.ingest)(&alerts.heartbeat);
                let fires: HashSet<_> = alerts.backup.iter().map(Alert::instance).collect();
                firing.retain(|alert| !fires.contains(&alert.instance()));
                pipelines.resolve(&firing);
                firing.clone_from(&alerts.backup);
                pipelines.warn_unlisted(alerts.unlisted);
                // What was not stored or found no room is fetched again with the next poll.
                pipelines.enqueue(alerts.backup, None, |_| {});
            }
            Err(why) => debug!("{why}"),
        }
        if stop.wait(settings.interval) {
            return;
        }
    }
}

/// Since when the Alertmanager does not answer, and whether that was reported.
///
/// ```text
///          failure                 REPORT_AFTER passed
/// answers ---------> outage ------------------------------> reported outage
///    ^                 |                                           |
///    +-- answer, no event -------- answer: AlertmanagerAnswers ----+
/// ```
#[derive(Debug, Default)]
struct OutageTracker {
    since: Option<Mono>,
    reported: bool,
}

impl OutageTracker {
    /// An outage that was reported before the start goes on until the Alertmanager answers.
    fn new(reported: bool, now: Mono) -> OutageTracker {
        OutageTracker { since: reported.then_some(now), reported }
    }

    /// Takes in the outcome of a poll; the event that is to be reported.
    fn observe(&mut self, failure: Option<&String>, now: Mono) -> Option<EventKind> {
        let Some(why) = failure else {
            let reported = std::mem::take(&mut self.reported);
            let since = self.since.take()?;
            return reported
                .then(|| EventKind::AlertmanagerAnswers { silent_for: now.since(since) });
        };
        if self.since.is_none() {
            warn!("{why}");
        }
        let since = *self.since.get_or_insert(now);
        if self.reported || now.since(since) < REPORT_AFTER {
            return None;
        }
        self.reported = true;
        Some(EventKind::AlertmanagerSilent { why: why.clone() })
    }
}

/// The alerts of these names that the Alertmanager at `base` (`http://127.0.0.1:9093`) holds.
/// Silenced and inhibited ones are fetched only where they can be heartbeats.
///
/// # Errors
/// Why it could not be reached, or what is wrong with its answer.
pub fn fetch_alerts(base: &str, names: &AlertNames) -> Result<RelevantAlerts, String> {
    let base = base.trim_end_matches('/');
    let suppressed = !names.heartbeat.is_empty();
    let url =
        format!("{base}/api/v2/alerts?active=true&silenced={suppressed}&inhibited={suppressed}");
    let mut answer = http_agent(base).get(&url).call().map_err(|why| describe_error(base, &why))?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(format!("{base} answered {status}: is there an Alertmanager?"));
    }
    let mut body = Vec::new();
    let read = answer.body_mut().as_reader().take(MAX_ANSWER + 1).read_to_end(&mut body);
    read.map_err(|why| format!("{base}: the answer broke off: {why}"))?;
    if body.len() as u64 > MAX_ANSWER {
        return Err(format!("{base}: the answer is longer than 16 MB"));
    }
    let alerts = alert::from_api(&body, names, Now::read().wall);
    alerts.map_err(|why| format!("{base}: {why}: is it an Alertmanager?"))
}

fn http_agent(base: &str) -> ureq::Agent {
    let roots = base.starts_with("https:").then(tls::system_roots);
    tls::http_agent(FETCH_TIMEOUT, roots)
}

fn describe_error(base: &str, why: &ureq::Error) -> String {
    if let Some(fault) = tls::certificate_fault(why) {
        let what = fault.describe("does this machine trust it");
        return format!("{base}: its certificate is not trusted: {what}");
    }
    match why {
        why if tls::is_not_tls(why) => format!("{base} {}", tls::NOT_TLS),
        ureq::Error::Timeout(_) => {
            format!("{base}: no answer within {} s", FETCH_TIMEOUT.as_secs())
        }
        ureq::Error::Io(why) => format!("{base}: {why}"),
        other => format!("{base}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_once_after_a_while_and_its_end_once() {
        let mut outage = OutageTracker::default();
        let why = "connection refused".to_owned();
        let at = |minutes: i64| Mono(minutes * 60_000);
        assert_eq!(outage.observe(Some(&why), at(0)), None);
        assert_eq!(outage.observe(None, at(1)), None, "a moment is nobody's concern");
        assert_eq!(outage.observe(Some(&why), at(2)), None);
        let told = outage.observe(Some(&why), at(7));
        assert_eq!(told, Some(EventKind::AlertmanagerSilent { why: why.clone() }));
        assert_eq!(outage.observe(Some(&why), at(8)), None);
        let over = EventKind::AlertmanagerAnswers { silent_for: Duration::from_secs(600) };
        assert_eq!(outage.observe(None, at(12)), Some(over));
        assert_eq!(outage.observe(None, at(13)), None);
    }

    #[test]
    fn the_silence_of_an_alertmanager_that_is_no_longer_asked_never_ended() {
        let (tx, rx) = crossbeam_channel::unbounded();
        let sink: ChangeSink = Arc::new(move |change: Change| tx.send(change).unwrap());
        stop_reporting(&sink);
        let change = rx.recv().unwrap();
        assert_eq!(change.closed_silently, [Incident::Alertmanager]);
        assert!(change.events.is_empty() && change.writes.is_empty(), "nobody is told");
    }

    #[test]
    fn silence_that_a_restart_came_into_was_told_twice_or_never_ended() {
        let at = |minutes: i64| Mono(minutes * 60_000);
        let mut outage = OutageTracker::new(true, at(0));
        assert_eq!(outage.observe(Some(&"still refused".to_owned()), at(9)), None);
        let over = EventKind::AlertmanagerAnswers { silent_for: Duration::from_secs(600) };
        assert_eq!(outage.observe(None, at(10)), Some(over));
        assert_eq!(OutageTracker::new(false, at(0)).observe(None, at(1)), None);
    }
}
