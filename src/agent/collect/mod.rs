//! What a machine says about itself: the kernel's figures, read and put under their paths.

mod cpu;
mod load;
mod memory;
mod name;
mod settings;

use std::fs;

use crate::clock::{Mono, Now};
use cpu::Times;
pub use settings::{Monitor, Settings};

/// Readings closer to each other, in milliseconds, are one reading: the kernel counts processor
/// time in hundredths of a second, and a shorter span would tell more of that than of the machine.
const SHORTEST: i64 = 1000;

/// Reads the figures of this machine; it remembers the last reading, because a rate needs two.
pub struct Collector {
    settings: Settings,
    times: Option<Times>,
    last: Option<(Mono, Vec<(String, f64)>)>,
}

impl Collector {
    /// One that has read nothing yet.
    pub fn new(settings: &Settings) -> Collector {
        Collector { settings: settings.clone(), times: None, last: None }
    }

    /// The figures now, finite and ordered by path, no path twice. What this machine does not have
    /// is left out; rates are from the second reading on. Within a second of the last reading that
    /// one is given again.
    pub fn collect(&mut self, now: Now) -> Vec<(String, f64)> {
        if let Some((read, metrics)) = &self.last
            && (read.0..read.0 + SHORTEST).contains(&now.mono.0)
        {
            return metrics.clone();
        }
        let mut metrics = Vec::new();
        for monitor in Monitor::ALL {
            if !self.settings.without.contains(&monitor) {
                let found = self.ask(monitor).into_iter();
                metrics.extend(found.map(|(name, value)| (format!("{monitor}.{name}"), value)));
            }
        }
        metrics.retain(|(_, value)| value.is_finite());
        metrics.sort_by(|a, b| a.0.cmp(&b.0));
        self.last = Some((now.mono, metrics.clone()));
        metrics
    }

    /// Names without the monitor's own, and values.
    fn ask(&mut self, monitor: Monitor) -> Vec<(String, f64)> {
        match monitor {
            Monitor::Cpu => self.cpu(),
            Monitor::Load => load::load(&self.proc("loadavg"), &self.proc("stat")),
            Monitor::Memory => memory::memory(&self.proc("meminfo")),
            Monitor::Swap => memory::swap(&self.proc("meminfo")),
            Monitor::Uptime => load::uptime(&self.proc("uptime")),
        }
    }

    fn cpu(&mut self) -> Vec<(String, f64)> {
        let times = cpu::parse(&self.proc("stat"));
        let before = std::mem::replace(&mut self.times, times);
        match (before, &self.times) {
            (Some(before), Some(times)) => times.since(&before),
            _ => Vec::new(),
        }
    }

    /// A file of the kernel; empty when there is none.
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.settings.proc.join(file)).unwrap_or_default()
    }
}
