//! What a machine says about itself: the kernel's figures, read and put under their paths.

mod cpu;
mod disks;
mod load;
mod memory;
mod mounts;
mod network;
mod probe;
mod processes;
mod sensors;
mod settings;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use log::warn;

use crate::clock::{Mono, Now};
use cpu::Times;
use disks::Disks;
use network::Counters;
use sensors::Sensors;
pub use settings::{Monitor, Settings};
use units::Units;

/// Readings closer to each other, in milliseconds, are one reading: the kernel counts processor
/// time in hundredths of a second, and a shorter span would tell more of that than of the machine.
const SHORTEST: i64 = 1000;

/// Reads the figures of this machine; it remembers the last reading, because a rate needs two.
pub struct Collector {
    settings: Settings,
    times: Option<Times>,
    counters: Option<(Mono, BTreeMap<String, Counters>)>,
    disks: Disks,
    sensors: Sensors,
    units: Option<Units>,
    last: Option<(Mono, Vec<(String, f64)>)>,
}

impl Collector {
    /// One that has read nothing yet. It starts a thread where systemd is to be asked.
    pub fn new(settings: &Settings) -> Collector {
        Collector {
            settings: settings.clone(),
            times: None,
            counters: None,
            disks: Disks::new(),
            sensors: Sensors::new(),
            units: units(settings),
            last: None,
        }
    }

    /// The figures now, finite and ordered by path, no path twice. What this machine does not have
    /// is left out; rates are from the second reading on. Within a second of the last reading that
    /// one is given again.
    ///
    /// It takes milliseconds, and at most a second or two when disks or sensors begin to hang.
    pub fn collect(&mut self, now: Now) -> Vec<(String, f64)> {
        if let Some((read, metrics)) = &self.last
            && (read.0..read.0 + SHORTEST).contains(&now.mono.0)
        {
            return metrics.clone();
        }
        let mut metrics = Vec::new();
        for monitor in Monitor::ALL {
            if !self.settings.without.contains(&monitor) {
                let found = self.ask(monitor, now).into_iter();
                metrics.extend(found.map(|(name, value)| (format!("{monitor}.{name}"), value)));
            }
        }
        metrics.retain(|(_, value)| value.is_finite());
        metrics.sort_by(|a, b| a.0.cmp(&b.0));
        self.last = Some((now.mono, metrics.clone()));
        metrics
    }

    /// Names without the monitor's own, and values.
    fn ask(&mut self, monitor: Monitor, now: Now) -> Vec<(String, f64)> {
        match monitor {
            Monitor::Cpu => self.cpu(),
            Monitor::Disk => {
                // Bytes: a mount point need not be UTF-8.
                let mounts = fs::read(self.settings.proc.join("self/mountinfo"));
                self.disks.ask(&mounts.unwrap_or_default(), &self.settings.excluded_mounts)
            }
            Monitor::Load => load::load(&self.proc("loadavg"), &self.proc("stat")),
            Monitor::Memory => memory::memory(&self.proc("meminfo")),
            Monitor::Network => self.network(now.mono),
            Monitor::Process => processes::processes(&self.settings.proc),
            Monitor::Swap => memory::swap(&self.proc("meminfo")),
            Monitor::Systemd => {
                let failed = self.units.as_ref().and_then(|units| units.failed(now));
                failed.map(|failed| ("failed_units".to_owned(), failed)).into_iter().collect()
            }
            Monitor::Temperature => self.sensors.ask(&self.settings.sys),
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

    fn network(&mut self, now: Mono) -> Vec<(String, f64)> {
        let counters = network::parse(&self.proc("net/dev"), &self.settings.excluded_interfaces);
        let rates = self
            .counters
            .as_ref()
            .map(|(read, earlier)| network::rates(earlier, &counters, now.since(*read)));
        self.counters = Some((now, counters));
        rates.unwrap_or_default()
    }

    /// A file of the kernel; empty when there is none.
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.settings.proc.join(file)).unwrap_or_default()
    }
}

/// Where the machine was booted with systemd (sd_booted(3)).
fn units(settings: &Settings) -> Option<Units> {
    let wanted = !settings.without.contains(&Monitor::Systemd);
    let booted = Path::new("/run/systemd/system").is_dir();
    let systemctl = settings.systemctl.clone().filter(|_| wanted && booted)?;
    match Units::start(systemctl) {
        Ok(units) => Some(units),
        Err(why) => {
            warn!("failed units are left out: no thread can be started: {why}");
            None
        }
    }
}
