//! The daemon's own machine as one of its hosts: what `hbc` does on others, without the network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{info, warn};

use super::{Failure, spawn};
use crate::agent::collect::Collector;
use crate::agent::local::Settings;
use crate::clock::Now;
use crate::config::Config;
use crate::heartbeat::monitor::FleetMonitor;
use crate::heartbeat::settings::Expectation;
use crate::thread::{Stop, StopSource};

/// A collector that waits for a disk is late, not dead.
const LEAST_GRACE: Duration = Duration::from_secs(60);

/// What the fleet may expect: the host that this machine is, and how often it is heard.
pub fn promise(config: &Config) -> Option<(String, Expectation)> {
    let settings = config.agent.as_ref()?;
    let own = config.hosts.get(&settings.host).and_then(|host| host.grace);
    let interval = settings.interval;
    let grace = own.unwrap_or_else(|| interval.saturating_mul(2).max(LEAST_GRACE));
    Some((settings.host.clone(), Expectation { interval, grace }))
}

/// The thread `agent`, while the configuration wants one.
pub struct Agent {
    watch: Arc<FleetMonitor>,
    running: Mutex<Option<Running>>,
}

struct Running {
    settings: Settings,
    _stopper: StopSource,
}

impl Agent {
    /// None yet.
    pub fn new(watch: Arc<FleetMonitor>) -> Agent {
        Agent { watch, running: Mutex::default() }
    }

    /// Starts, stops, or goes on otherwise, as the configuration says. To be called when the watch
    /// goes by that configuration already.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn reconfigure(&self, settings: Option<&Settings>) -> Result<(), Failure> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().map(|running| &running.settings) == settings {
            return Ok(());
        }
        // It ends by itself when it wakes: a collector that hangs must not hold up the reload.
        *running = None;
        let Some(settings) = settings.cloned() else { return Ok(()) };
        let (stopper, stop) = Stop::channel();
        let (watch, own) = (Arc::clone(&self.watch), settings.clone());
        spawn("agent", move || speak(&own, &watch, &stop))?;
        *running = Some(Running { settings, _stopper: stopper });
        Ok(())
    }

    /// Ends it.
    pub fn stop(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn speak(settings: &Settings, watch: &FleetMonitor, stop: &Stop) {
    let mut collector = Collector::new(&settings.figures);
    let (mut trouble, mut told) = (None, false);
    info!("this machine is watched as {}", settings.host);
    loop {
        let begun = Now::read();
        let metrics = collector.collect(begun);
        if stop.stopped() {
            return;
        }
        let now = Now::read();
        let why = watch.ingest_local(&settings.host, &metrics, now).err();
        // Once may be a reload that is about to end this thread.
        if let Some(why) = why.filter(|_| trouble == why && !told) {
            warn!("not all figures of {} could be taken: {why}", settings.host);
        }
        told = why.is_some() && trouble == why;
        trouble = why;
        let spent = now.mono.since(begun.mono);
        if stop.wait(settings.interval.saturating_sub(spent)) {
            return;
        }
    }
}
