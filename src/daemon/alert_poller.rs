//! The thread that polls an Alertmanager for alerts, as the configuration in use says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::threads::Threads;
use super::wiring::{Current, HeartbeatAlerts};
use crate::backup::alert::Alert;
use crate::backup::alert_poller::{self, AlertPollerSettings, HeartbeatAlertHooks};
use crate::backup::pipeline::Pipelines;
use crate::heartbeat::monitor::Monitor;
use crate::http::settings::ReceiverSettings;
use crate::store::ChangeSink;
use crate::thread::{Stop, StopSource};

/// The thread `poll`, while the configuration has an address to poll.
pub struct AlertPoller {
    targets: AlertTargets,
    running: Option<RunningPoll>,
    /// A message said that the Alertmanager does not answer.
    silence_reported: Arc<AtomicBool>,
    threads: Threads,
}

/// Where fetched alerts go.
#[derive(Clone)]
pub struct AlertTargets {
    /// Alerts that count as heartbeats.
    pub monitor: Arc<Monitor>,
    /// Which alerts those are.
    pub heartbeat_alerts: Arc<Current<HeartbeatAlerts>>,
    /// Alerts about backups.
    pub pipelines: Arc<Pipelines>,
    /// Events about the Alertmanager itself.
    pub sink: ChangeSink,
}

struct RunningPoll {
    /// URL and interval.
    polled: (String, Duration),
    _stop_source: StopSource,
}

impl AlertPoller {
    /// A poller that does not run yet. `silence_reported`: a message before the start said that the
    /// Alertmanager does not answer.
    pub fn new(targets: AlertTargets, silence_reported: bool, threads: Threads) -> AlertPoller {
        let silence_reported = Arc::new(AtomicBool::new(silence_reported));
        AlertPoller { targets, running: None, silence_reported, threads }
    }

    /// Starts, stops or restarts the thread as the configuration says.
    ///
    /// # Errors
    /// When the thread cannot be started; none runs then.
    pub fn reconfigure(&mut self, receiver: &ReceiverSettings) -> Result<(), String> {
        let Some(url) = receiver.poll_url.clone() else {
            self.running = None;
            if self.silence_reported.swap(false, Ordering::Relaxed) {
                alert_poller::stop_reporting(&self.targets.sink);
            }
            return Ok(());
        };
        let polled = (url, receiver.poll_interval);
        if self.running.as_ref().is_some_and(|running| running.polled == polled) {
            return Ok(());
        }
        self.running = None;
        let (stop_source, stop) = Stop::channel();
        let reported = Arc::clone(&self.silence_reported);
        let settings = AlertPollerSettings { url: polled.0.clone(), interval: polled.1, reported };
        let targets = self.targets.clone();
        self.threads.spawn("poll", move || targets.poll(&settings, &stop))?;
        self.running = Some(RunningPoll { polled, _stop_source: stop_source });
        Ok(())
    }
}

impl AlertTargets {
    fn poll(&self, settings: &AlertPollerSettings, stop: &Stop) {
        let names = || self.heartbeat_alerts.get().names().to_vec();
        let ingest =
            |alerts: &[Alert]| self.heartbeat_alerts.get().ingest(alerts, &[], &self.monitor);
        let hooks = HeartbeatAlertHooks { names: &names, ingest: &ingest };
        alert_poller::run(settings, &self.pipelines, hooks, &self.sink, stop);
    }
}
