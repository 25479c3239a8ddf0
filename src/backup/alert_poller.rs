//! Fetches alerts where they are not sent: an Alertmanager is asked again and again.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{debug, warn};

use super::alert::{self, Alert, AlertNames, RelevantAlerts};
use super::pipeline::Pipelines;
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, Incident, Level};
use crate::store::change::{Change, ChangeSink};
use crate::thread::Stop;
use crate::tls;

/// Who does not answer for so long is reported.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct AlertPollerSettings {
    /// `http://127.0.0.1:9093`
    pub url: String,
    /// The time between two questions.
    pub interval: Duration,
    /// People were told that there is no answer; kept up to date, for whoever asks next.
    pub told: Arc<AtomicBool>,
}

/// Where alerts that are signs of life belong.
#[derive(Clone, Copy)]
pub struct HeartbeatAlertHooks<'a> {
    /// Their names at present.
    pub names: &'a dyn Fn() -> Vec<String>,
    /// Takes those that were found.
    pub beat: &'a dyn Fn(&[Alert]),
}

/// No Alertmanager is asked any more: what was said of its silence is over, without a word.
pub fn abandon(sink: &ChangeSink) {
    sink(Change { forgotten: vec![Incident::Alertmanager], ..Change::default() });
}

/// Asks until the stop, for the alerts that the configuration names at present.
pub fn poll(
    settings: &AlertPollerSettings,
    pipelines: &Arc<Pipelines>,
    signs: HeartbeatAlertHooks,
    sink: &ChangeSink,
    stop: &Stop,
) {
    let mut silence = OutageTracker::new(settings.told.load(Ordering::Relaxed), Now::read().mono);
    loop {
        let wanted = AlertNames { alerts: pipelines.alert_names(), signs: (signs.names)() };
        let answer = pull(&settings.url, &wanted);
        if stop.stopped() {
            // Somebody else is asked by now, and what this one says of itself is nobody's concern.
            return;
        }
        let now = Now::read();
        if let Some(kind) = silence.judge(answer.as_ref().err(), now.mono) {
            let level = match kind {
                EventKind::AlertmanagerSilent { .. } => Level::Warning,
                _ => Level::Ok,
            };
            let event = Event { at: now.wall, level, kind };
            settings.told.store(silence.told, Ordering::Relaxed);
            sink(Change { events: vec![event], ..Change::default() });
        }
        match answer {
            Ok(fetched) => {
                (signs.beat)(&fetched.signs);
                // What was not stored or found no room is fetched again with the next question.
                pipelines.accept(fetched.alerts, |_| {});
            }
            Err(why) => debug!("{why}"),
        }
        if stop.wait(settings.interval) {
            return;
        }
    }
}

/// Since when there is no answer, and whether that was told.
#[derive(Debug, Default)]
struct OutageTracker {
    since: Option<Mono>,
    told: bool,
}

impl OutageTracker {
    /// Silence that was told before the start goes on, until there is an answer.
    fn new(told: bool, now: Mono) -> OutageTracker {
        OutageTracker { since: told.then_some(now), told }
    }

    fn judge(&mut self, failure: Option<&String>, now: Mono) -> Option<EventKind> {
        let Some(why) = failure else {
            let told = std::mem::take(&mut self.told);
            let since = self.since.take()?;
            return told.then(|| EventKind::AlertmanagerAnswers { silent_for: now.since(since) });
        };
        if self.since.is_none() {
            warn!("{why}");
        }
        let since = *self.since.get_or_insert(now);
        if self.told || now.since(since) < PATIENCE {
            return None;
        }
        self.told = true;
        Some(EventKind::AlertmanagerSilent { why: why.clone() })
    }
}

/// How long one question may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer is read: thousands of alerts.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// What is wanted of the alerts that the Alertmanager at `base` (`http://127.0.0.1:9093`) holds.
///
/// # Errors
/// Why it could not be asked, or what is wrong with its answer.
pub fn pull(base: &str, wanted: &AlertNames) -> Result<RelevantAlerts, String> {
    let base = base.trim_end_matches('/');
    let hidden = !wanted.signs.is_empty();
    let url = format!("{base}/api/v2/alerts?active=true&silenced={hidden}&inhibited={hidden}");
    let mut answer = agent(base).get(&url).call().map_err(|why| words(base, &why))?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(format!("{base} answered {status}: is there an Alertmanager?"));
    }
    let mut body = Vec::new();
    let read = answer.body_mut().as_reader().take(LONGEST_ANSWER + 1).read_to_end(&mut body);
    read.map_err(|why| format!("{base}: the answer broke off: {why}"))?;
    if body.len() as u64 > LONGEST_ANSWER {
        return Err(format!("{base}: the answer is longer than 16 MB"));
    }
    alert::fetched(&body, wanted).map_err(|why| format!("{base}: {why}: is it an Alertmanager?"))
}

fn agent(base: &str) -> ureq::Agent {
    let roots = base.starts_with("https:").then(tls::system_roots);
    tls::http_agent(TIMEOUT, roots)
}

fn words(base: &str, why: &ureq::Error) -> String {
    match why {
        ureq::Error::Timeout(_) => format!("{base}: no answer within {} s", TIMEOUT.as_secs()),
        ureq::Error::Io(why) => format!("{base}: {why}"),
        other => format!("{base}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_after_a_while_and_its_end_once() {
        let mut silence = OutageTracker::default();
        let why = "connection refused".to_owned();
        let at = |minutes: i64| Mono(minutes * 60_000);
        assert_eq!(silence.judge(Some(&why), at(0)), None);
        assert_eq!(silence.judge(None, at(1)), None, "a moment is nobody's concern");
        assert_eq!(silence.judge(Some(&why), at(2)), None);
        let told = silence.judge(Some(&why), at(7));
        assert_eq!(told, Some(EventKind::AlertmanagerSilent { why: why.clone() }));
        assert_eq!(silence.judge(Some(&why), at(8)), None);
        let over = EventKind::AlertmanagerAnswers { silent_for: Duration::from_secs(600) };
        assert_eq!(silence.judge(None, at(12)), Some(over));
        assert_eq!(silence.judge(None, at(13)), None);
    }

    #[test]
    fn the_silence_of_an_alertmanager_that_is_no_longer_asked_never_ended() {
        let (tx, rx) = crossbeam_channel::unbounded();
        let sink: ChangeSink = Arc::new(move |effect: Change| tx.send(effect).unwrap());
        abandon(&sink);
        let effect = rx.recv().unwrap();
        assert_eq!(effect.forgotten, [Incident::Alertmanager]);
        assert!(effect.events.is_empty() && effect.writes.is_empty(), "nobody is told");
    }

    #[test]
    fn silence_that_a_restart_came_into_was_told_twice_or_never_ended() {
        let at = |minutes: i64| Mono(minutes * 60_000);
        let mut silence = OutageTracker::new(true, at(0));
        assert_eq!(silence.judge(Some(&"still refused".to_owned()), at(9)), None);
        let over = EventKind::AlertmanagerAnswers { silent_for: Duration::from_secs(600) };
        assert_eq!(silence.judge(None, at(10)), Some(over));
        assert_eq!(OutageTracker::new(false, at(0)).judge(None, at(1)), None);
    }
}
