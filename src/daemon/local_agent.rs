//! The daemon's own machine as one of its hosts: what `hbc` does on others, without the network.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{info, warn};

use super::threads::Threads;
use crate::agent::collect::Collector;
use crate::agent::settings::LocalAgentSettings;
use crate::clock::Now;
use crate::config::Config;
use crate::heartbeat::monitor::Monitor;
use crate::heartbeat::settings::Expectation;
use crate::thread::{Stop, StopSource, lock};

/// A collector that waits for a disk is late, not dead.
const MIN_GRACE: Duration = Duration::from_secs(60);

/// The host that this machine is, and how often the monitor may expect a beat of it.
pub fn expectation(config: &Config) -> Option<(String, Expectation)> {
    let settings = config.agent.as_ref()?;
    let own = config.host(&settings.host).and_then(|host| host.grace);
    let interval = settings.interval;
    let grace = own.unwrap_or_else(|| interval.saturating_mul(2).max(MIN_GRACE));
    Some((settings.host.clone(), Expectation { interval, grace }))
}

/// The thread `agent`, while the configuration has the section `agent`.
pub struct LocalAgent {
    monitor: Arc<Monitor>,
    threads: Threads,
    running: Mutex<Option<RunningAgent>>,
}

struct RunningAgent {
    settings: LocalAgentSettings,
    _stop_source: StopSource,
}

impl LocalAgent {
    /// An agent that does not run yet.
    pub fn new(monitor: Arc<Monitor>, threads: Threads) -> LocalAgent {
        LocalAgent { monitor, threads, running: Mutex::default() }
    }

    /// Starts, stops or restarts the thread as the configuration says. To be called when the monitor
    /// has that configuration already.
    ///
    /// # Errors
    /// When the thread cannot be started; none runs then.
    pub fn reconfigure(&self, settings: Option<&LocalAgentSettings>) -> Result<(), String> {
        let mut running = lock(&self.running);
        if running.as_ref().map(|running| &running.settings) == settings {
            return Ok(());
        }
        // It ends by itself when it wakes: a collector that hangs must not hold up the reload.
        *running = None;
        let Some(settings) = settings.cloned() else { return Ok(()) };
        let (stop_source, stop) = Stop::channel();
        let (monitor, own) = (Arc::clone(&self.monitor), settings.clone());
        self.threads.spawn("agent", move || run(&own, &monitor, &stop))?;
        *running = Some(RunningAgent { settings, _stop_source: stop_source });
        Ok(())
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *lock(&self.running) = None;
    }
}

/// Collects metrics and hands them to the monitor until the stop.
fn run(settings: &LocalAgentSettings, monitor: &Monitor, stop: &Stop) {
    let mut collector = Collector::for_service(&settings.metrics);
    let (mut last_error, mut logged) = (None, false);
    info!("this machine is watched as {}", settings.host);
    loop {
        let begun = Now::read();
        let metrics = collector.collect(begun);
        if stop.stopped() {
            return;
        }
        let now = Now::read();
        let why = monitor.ingest_local(&settings.host, &metrics, &collector.texts(now), now).err();
        // A single error may come from a reload that is about to end this thread.
        if let Some(why) = why.filter(|_| last_error == why && !logged) {
            warn!("not all figures of {} could be taken: {why}", settings.host);
        }
        logged = why.is_some() && last_error == why;
        last_error = why;
        let spent = now.mono.since(begun.mono);
        if stop.wait(settings.interval.saturating_sub(spent)) {
            return;
        }
    }
}
