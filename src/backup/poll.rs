//! Fetches alerts where they are not sent: an Alertmanager is asked again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{debug, warn};

use super::alert::{Alert, Wanted};
use super::pipeline::Pipelines;
use super::pull::pull;
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, Incident};
use crate::store::change::{Change, ChangeSink};
use crate::thread::Stop;

/// Who does not answer for so long is reported.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://127.0.0.1:9093`
    pub url: String,
    /// The time between two questions.
    pub interval: Duration,
    /// People were told that there is no answer; kept up to date, for whoever asks next.
    pub told: Arc<AtomicBool>,
}

/// Where alerts that are signs of life belong.
#[derive(Clone, Copy)]
pub struct Signs<'a> {
    /// Their names at present.
    pub names: &'a dyn Fn() -> Vec<String>,
    /// Takes those that were found.
    pub beat: &'a dyn Fn(&[Alert]),
}

/// No Alertmanager is asked any more: what was said of its silence is over, without a word.
pub fn abandon(sink: &ChangeSink) {
    sink(Change { closed_silently: vec![Incident::Alertmanager], ..Change::default() });
}

/// Asks until the stop, for the alerts that the configuration names at present.
pub fn poll(
    settings: &Settings,
    pipelines: &Arc<Pipelines>,
    signs: Signs,
    sink: &ChangeSink,
    stop: &Stop,
) {
    let mut silence = Silence::new(settings.told.load(Ordering::Relaxed), Now::read().mono);
    loop {
        let wanted = Wanted { alerts: pipelines.alert_names(), signs: (signs.names)() };
        let answer = pull(&settings.url, &wanted);
        if stop.stopped() {
            // Somebody else is asked by now, and what this one says of itself is nobody's concern.
            return;
        }
        let now = Now::read();
        if let Some(kind) = silence.judge(answer.as_ref().err(), now.mono) {
            let event = Event::new(now.wall, kind);
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
struct Silence {
    since: Option<Mono>,
    told: bool,
}

impl Silence {
    /// Silence that was told before the start goes on, until there is an answer.
    fn new(told: bool, now: Mono) -> Silence {
        Silence { since: told.then_some(now), told }
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
        assert_eq!(effect.closed_silently, [Incident::Alertmanager]);
        assert!(effect.events.is_empty() && effect.writes.is_empty(), "nobody is told");
    }

    #[test]
    fn silence_that_a_restart_came_into_was_told_twice_or_never_ended() {
        let at = |minutes: i64| Mono(minutes * 60_000);
        let mut silence = Silence::new(true, at(0));
        assert_eq!(silence.judge(Some(&"still refused".to_owned()), at(9)), None);
        let over = EventKind::AlertmanagerAnswers { silent_for: Duration::from_secs(600) };
        assert_eq!(silence.judge(None, at(10)), Some(over));
        assert_eq!(Silence::new(false, at(0)).judge(None, at(1)), None);
    }
}
