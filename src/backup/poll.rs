//! Fetches alerts where they are not sent: an Alertmanager is asked again and again.

use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};

use super::alert::Alert;
use super::pipeline::Pipelines;
use super::pull::pull;
use crate::clock::{Mono, Now};
use crate::effect::{Effect, Sink};
use crate::event::{Event, Fact, Level};
use crate::stop::Stop;

/// Who does not answer for so long is reported.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://127.0.0.1:9093`
    pub url: String,
    /// The time between two questions.
    pub interval: Duration,
    /// The alerts that are about backups.
    pub alert_names: Vec<String>,
    /// The alerts that are signs of life.
    pub heartbeat_names: Vec<String>,
}

/// Asks until the stop. Alerts that are signs of life are given to `beat`.
pub fn poll(
    settings: &Settings,
    pipelines: &Arc<Pipelines>,
    beat: &dyn Fn(&[Alert]),
    sink: &Sink,
    stop: &Stop,
) {
    let mut silence = Silence::default();
    let names: Vec<String> =
        settings.alert_names.iter().chain(&settings.heartbeat_names).cloned().collect();
    loop {
        let answer = pull(&settings.url, &names);
        let now = Now::read();
        if let Some(fact) = silence.judge(answer.as_ref().err(), now.mono) {
            let level = match fact {
                Fact::AlertmanagerSilent { .. } => Level::Warning,
                _ => Level::Ok,
            };
            let event = Event { at: now.wall, level, fact };
            sink(Effect { events: vec![event], ..Effect::default() });
        }
        match answer {
            Ok(alerts) => take(settings, alerts, pipelines, beat),
            Err(why) => debug!("{why}"),
        }
        if stop.wait(settings.interval) {
            return;
        }
    }
}

fn take(
    settings: &Settings,
    alerts: Vec<Alert>,
    pipelines: &Arc<Pipelines>,
    beat: &dyn Fn(&[Alert]),
) {
    let (signs, alerts): (Vec<_>, Vec<_>) =
        alerts.into_iter().partition(|alert| settings.heartbeat_names.contains(&alert.name));
    beat(&signs);
    // What was not stored or found no room is fetched again with the next question.
    pipelines.accept(alerts, |_| {});
}

/// Since when there is no answer, and whether that was told.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Mono>,
    told: bool,
}

impl Silence {
    fn judge(&mut self, failure: Option<&String>, now: Mono) -> Option<Fact> {
        let Some(why) = failure else {
            let told = std::mem::take(&mut self.told);
            let since = self.since.take()?;
            return told.then(|| Fact::AlertmanagerAnswers { silent_for: now.since(since) });
        };
        if self.since.is_none() {
            warn!("{why}");
        }
        let since = *self.since.get_or_insert(now);
        if self.told || now.since(since) < PATIENCE {
            return None;
        }
        self.told = true;
        Some(Fact::AlertmanagerSilent { why: why.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_after_a_while_and_its_end_once() {
        let mut silence = Silence::default();
        let why = "connection refused".to_owned();
        let at = |minutes: i64| Mono(minutes * 60_000);
        assert_eq!(silence.judge(Some(&why), at(0)), None);
        assert_eq!(silence.judge(None, at(1)), None, "a moment is nobody's concern");
        assert_eq!(silence.judge(Some(&why), at(2)), None);
        let told = silence.judge(Some(&why), at(7));
        assert_eq!(told, Some(Fact::AlertmanagerSilent { why: why.clone() }));
        assert_eq!(silence.judge(Some(&why), at(8)), None);
        let over = Fact::AlertmanagerAnswers { silent_for: Duration::from_secs(600) };
        assert_eq!(silence.judge(None, at(12)), Some(over));
        assert_eq!(silence.judge(None, at(13)), None);
    }
}
