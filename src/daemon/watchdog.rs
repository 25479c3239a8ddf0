//! The systemd watchdog (`WatchdogSec=`, systemd.service(5)): fed while every thread makes progress.
//!
//! A thread that panics ends the process; one that hangs is found here, and systemd restarts the
//! daemon when it is not fed. The threads that touch the disk are none of these: a restart does not
//! mend a disk that hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use super::threads::Threads;
use crate::heartbeat::monitor::Monitor;
use crate::http::HealthProbe;
use crate::notify::courier::Courier;
use crate::systemd;
use crate::thread::{ProgressCounter, Stop};

/// The bounds of the time between two checks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(15);
/// After so many failed checks in a row the log says which thread hangs.
const LOGGED_AFTER: u32 = 2;

/// The progress of the threads that loop by themselves.
#[derive(Clone, Default)]
pub struct Progress {
    /// Of the UDP thread.
    pub udp: ProgressCounter,
    /// Of the deadline thread.
    pub deadlines: ProgressCounter,
}

/// Starts to feed the watchdog, if systemd has one for this process, while `check` says within the time
/// that it is given that every thread makes progress, or else which one does not.
///
/// # Errors
/// When no thread can be started.
pub fn start(
    mut check: impl FnMut(Duration) -> Result<(), &'static str> + Send + 'static,
    threads: &Threads,
    stop: &Stop,
) -> Result<(), String> {
    let Some(timeout) = systemd::watchdog_interval() else { return Ok(()) };
    let interval = (timeout / 4).clamp(MIN_INTERVAL, MAX_INTERVAL);
    info!("systemd is told every {interval:?} that all threads do their work");
    let stop = stop.clone();
    threads.spawn("watchdog", move || {
        let mut failed = 0;
        loop {
            match check(interval) {
                Ok(()) => {
                    systemd::notify("WATCHDOG=1");
                    failed = 0;
                }
                Err(who) => {
                    failed += 1;
                    if failed == LOGGED_AFTER {
                        error!("{who} gives no sign of life; systemd will end hbd when that lasts");
                    }
                }
            }
            if stop.wait(interval) {
                return;
            }
        }
    })
}

/// Whether every thread makes progress.
pub struct ThreadCheck {
    progress: Progress,
    monitor: Arc<Monitor>,
    courier: Courier,
    probe: HealthProbe,
    /// The progress that the last successful check found.
    seen: (u64, u64),
    /// Of the courier: how often it was asked, and how often it answered.
    asked: u64,
    answered: ProgressCounter,
}

impl ThreadCheck {
    /// A check that was not run yet.
    pub fn new(
        progress: Progress,
        monitor: Arc<Monitor>,
        courier: Courier,
        probe: HealthProbe,
    ) -> ThreadCheck {
        let answered = ProgressCounter::default();
        ThreadCheck { progress, monitor, courier, probe, seen: (0, 0), asked: 0, answered }
    }

    /// Whether every thread made a turn since the last successful check; else which did not. Waits
    /// for the HTTP server for `timeout` at most.
    pub fn run(&mut self, timeout: Duration) -> Result<(), &'static str> {
        // Blocks while another thread hangs with the monitor's lock, so that systemd is not told.
        let _ = self.monitor.count();
        if self.answered.count() == self.asked {
            self.asked += 1;
            self.courier.ping(self.answered.clone());
        }
        let turns = (self.progress.udp.count(), self.progress.deadlines.count());
        if turns.0 == self.seen.0 {
            return Err("the thread udp");
        }
        if turns.1 == self.seen.1 {
            return Err("the thread deadlines");
        }
        if !self.probe.answers(Instant::now() + timeout) {
            return Err("the HTTP side");
        }
        if self.answered.count() != self.asked {
            return Err("the courier");
        }
        self.seen = turns;
        Ok(())
    }
}

/// Whether the threads of a node that stands by make progress. Redis need not answer: a restart does
/// not mend it.
pub struct StandbyCheck {
    udp: ProgressCounter,
    probe: HealthProbe,
    seen: u64,
}

impl StandbyCheck {
    /// A check that was not run yet.
    pub fn new(udp: ProgressCounter, probe: HealthProbe) -> StandbyCheck {
        StandbyCheck { udp, probe, seen: 0 }
    }

    /// As [`ThreadCheck::run`].
    pub fn run(&mut self, timeout: Duration) -> Result<(), &'static str> {
        let turns = self.udp.count();
        if turns == self.seen {
            return Err("the thread udp");
        }
        if !self.probe.answers(Instant::now() + timeout) {
            return Err("the HTTP side");
        }
        self.seen = turns;
        Ok(())
    }
}
