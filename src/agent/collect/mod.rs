//! Collects the metrics of this machine from the kernel and systemd, each under its path.

mod disk_usage;
mod disks;
pub(super) mod metric_name;
mod network;
mod pools;
mod probe;
mod proc;
mod sensors;
mod settings;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use log::warn;

use crate::clock::{Mono, Now};
use crate::heartbeat::datagram::cleaned_text;
use crate::systemd;
use disks::Disks;
use network::InterfaceCounters;
use proc::CpuTimes;
use sensors::Sensors;
pub use settings::{CollectSettings, MetricGroup};
use units::FailedUnits;

/// Readings within this number of milliseconds are one reading: the kernel counts processor
/// time in hundredths of a second, and a shorter span would tell more of that than of the machine.
const MIN_INTERVAL_MILLIS: i64 = 1000;

/// How often processes are counted: each has a file of its own to be read, which takes longer than
/// all other metrics together.
const PROCESS_INTERVAL: Duration = Duration::from_secs(30);

/// What was collected at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Metrics, ordered by path, no path twice.
    pub metrics: Vec<(String, f64)>,
    /// Texts beside some of them, by the same paths.
    pub texts: Vec<(String, String)>,
}

/// Collects the metrics of this machine; it keeps the last reading, because a rate needs two.
pub struct Collector {
    settings: CollectSettings,
    last_cpu: Option<CpuTimes>,
    last_network: Option<(Mono, BTreeMap<String, InterfaceCounters>)>,
    last_processes: Option<(Mono, Vec<(String, f64)>)>,
    disks: Disks,
    sensors: Sensors,
    units: Option<FailedUnits>,
    last: Option<(Mono, Vec<(String, f64)>)>,
}

impl Collector {
    /// A collector that has read nothing yet. It starts a thread where systemd is to be queried.
    pub fn new(settings: &CollectSettings) -> Collector {
        Collector {
            settings: settings.clone(),
            last_cpu: None,
            last_network: None,
            last_processes: None,
            disks: Disks::new(),
            sensors: Sensors::new(settings.sensor_names.clone()),
            units: failed_units(settings),
            last: None,
        }
    }

    /// The same for a service, whose state directory keeps which sensor has which path.
    pub fn for_service(settings: &CollectSettings) -> Collector {
        let sensor_names = systemd::state_directory().map(|directory| directory.join("sensors"));
        Collector::new(&CollectSettings { sensor_names, ..settings.clone() })
    }

    /// The metrics now, finite and ordered by path, no path twice. What this machine does not have
    /// is left out; rates are there from the second reading on. Within a second of the last reading
    /// that one is given again.
    ///
    /// It takes milliseconds; when disks or sensors begin to hang a few seconds, once for each.
    pub fn collect(&mut self, now: Now) -> Vec<(String, f64)> {
        if let Some((read, metrics)) = &self.last
            && (read.0..read.0 + MIN_INTERVAL_MILLIS).contains(&now.mono.0)
        {
            return metrics.clone();
        }
        let mut metrics = Vec::new();
        for group in MetricGroup::ALL {
            if !self.settings.disabled.contains(&group) {
                let found = self.read(group, now).into_iter();
                metrics.extend(found.map(|(name, value)| (format!("{group}.{name}"), value)));
            }
        }
        metrics.retain(|(_, value)| value.is_finite());
        metrics.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.last = Some((now.mono, metrics.clone()));
        metrics
    }

    /// The texts beside the metrics: which units failed.
    pub fn texts(&self, now: Now) -> Vec<(String, String)> {
        let names = self.units.as_ref().and_then(|units| units.names(now));
        let path = || format!("{}.failed_units", MetricGroup::Systemd);
        let names = names.and_then(|names| cleaned_text(&names));
        names.map(|names| (path(), names)).into_iter().collect()
    }

    /// The metrics of one group; the paths lack its name.
    fn read(&mut self, group: MetricGroup, now: Now) -> Vec<(String, f64)> {
        match group {
            MetricGroup::Cpu => self.cpu(),
            MetricGroup::Disk => {
                // Bytes: a mount point need not be UTF-8.
                let mounts = fs::read(self.settings.proc.join("self/mountinfo"));
                self.disks.collect(&mounts.unwrap_or_default(), &self.settings.excluded_mounts)
            }
            MetricGroup::Load => proc::load(&self.proc("loadavg"), &self.proc("stat")),
            MetricGroup::Memory => proc::memory(&self.proc("meminfo"), self.reclaimable()),
            MetricGroup::Network => self.network(now.mono),
            MetricGroup::Process => self.processes(now.mono),
            MetricGroup::Swap => proc::swap(&self.proc("meminfo")),
            MetricGroup::Systemd => {
                let failed = self.units.as_ref().and_then(|units| units.failed(now));
                failed.map(|failed| ("failed_units".to_owned(), failed)).into_iter().collect()
            }
            MetricGroup::Temperature => self.sensors.collect(&self.settings.sys),
            MetricGroup::Uptime => proc::uptime(&self.proc("uptime")),
        }
    }

    fn cpu(&mut self) -> Vec<(String, f64)> {
        let times = proc::parse_cpu(&self.proc("stat"));
        let before = std::mem::replace(&mut self.last_cpu, times);
        match (before, &self.last_cpu) {
            (Some(before), Some(times)) => times.since(&before),
            _ => Vec::new(),
        }
    }

    fn network(&mut self, now: Mono) -> Vec<(String, f64)> {
        let counters = network::parse(&self.proc("net/dev"), &self.settings.excluded_interfaces);
        let rates = self
            .last_network
            .as_ref()
            .map(|(read, earlier)| network::rates(earlier, &counters, now.since(*read)));
        self.last_network = Some((now, counters));
        rates.unwrap_or_default()
    }

    fn processes(&mut self, now: Mono) -> Vec<(String, f64)> {
        match &self.last_processes {
            Some((read, counted)) if *read <= now && now.since(*read) < PROCESS_INTERVAL => {
                counted.clone()
            }
            _ => {
                let counted = proc::processes(process_stats(&self.settings.proc));
                self.last_processes = Some((now, counted.clone()));
                counted
            }
        }
    }

    /// Bytes of the cache of ZFS that programs can have. In a container it is that of the whole machine,
    /// and none of the container's memory.
    fn reclaimable(&self) -> f64 {
        let arc = proc::reclaimable_arc(&self.proc("spl/kstat/zfs/arcstats"));
        if arc == 0.0 {
            return arc;
        }
        let mounts = fs::read(self.settings.proc.join("self/mountinfo")).unwrap_or_default();
        let container = proc::is_container(&String::from_utf8_lossy(&mounts))
            || Path::new("/run/systemd/container").exists();
        if container { 0.0 } else { arc }
    }

    /// The text of a file of proc(5); empty when there is none.
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.settings.proc.join(file)).unwrap_or_default()
    }
}

/// The id and the file `stat` of each process.
fn process_stats(proc: &Path) -> impl Iterator<Item = (u32, io::Result<String>)> {
    fs::read_dir(proc).into_iter().flatten().flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((id, fs::read_to_string(entry.path().join("stat"))))
    })
}

/// None where the machine was not booted with systemd (sd_booted(3)).
fn failed_units(settings: &CollectSettings) -> Option<FailedUnits> {
    let enabled = !settings.disabled.contains(&MetricGroup::Systemd);
    let booted = Path::new("/run/systemd/system").is_dir();
    let systemctl = settings.systemctl.clone().filter(|_| enabled && booted)?;
    match FailedUnits::start(systemctl) {
        Ok(units) => Some(units),
        Err(why) => {
            warn!("failed units are left out: no thread can be started: {why}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container that began a while ago: no guests, no temperatures, no swap.
    fn container() -> (tempfile::TempDir, CollectSettings) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("stat", "cpu  100 0 50 850 0 0 0 0 0 0\ncpu0 100 0 50 850 0 0 0 0 0 0\n"),
            ("loadavg", "0.50 0.40 0.30 2/97 1234\n"),
            (
                "meminfo",
                "MemTotal: 1000 kB\nMemAvailable: 750 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            ),
            ("uptime", "86400.25 1.0\n"),
            (
                "net/dev",
                "    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0: 1000 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0\n",
            ),
            ("self/mountinfo", "27 1 0:47 / / rw - zfs rpool/data/subvol-101-disk-0 rw\n"),
            ("1/stat", "1 (init) S 0\n"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let settings = CollectSettings {
            proc: folder.path().into(),
            sys: folder.path().join("sys"),
            systemctl: None,
            ..CollectSettings::default()
        };
        (folder, settings)
    }

    fn later(seconds: u64) -> Now {
        Now::default().later(Duration::from_secs(seconds))
    }

    fn paths(metrics: &[(String, f64)]) -> Vec<&str> {
        metrics.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn a_container_tells_what_it_has_and_rates_from_the_second_reading_on() {
        let (folder, settings) = container();
        let mut collector = Collector::new(&settings);
        let first = collector.collect(later(0));
        let plain = [
            "disk_monitor.root.free_bytes",
            "disk_monitor.root.inodes_percent",
            "disk_monitor.root.percent",
            "load_monitor.load1",
            "load_monitor.load15",
            "load_monitor.load5",
            "load_monitor.per_core",
            "memory_monitor.available_bytes",
            "memory_monitor.percent",
            "process_monitor.count",
            "process_monitor.zombies",
            "uptime_monitor.seconds",
        ];
        // Where this test runs, the root need not have a fixed number of inodes.
        let fixed = |path: &&&str| !path.contains("inodes") || paths(&first).contains(*path);
        assert_eq!(paths(&first), plain.iter().filter(fixed).copied().collect::<Vec<_>>());

        fs::write(folder.path().join("stat"), "cpu  125 0 50 925 0 0 0 0 0 0\ncpu0 1 2 3 4\n")
            .unwrap();
        let dev = "  eth0: 3000 1 0 0 0 0 0 0 1500 1 2 0 0 0 0 0\n";
        fs::write(folder.path().join("net/dev"), dev).unwrap();
        let second = collector.collect(later(10));
        let rates: Vec<_> =
            second.iter().filter(|(path, _)| !paths(&first).contains(&&**path)).collect();
        let expected = [
            ("cpu_monitor.cpu_percent", 25.0),
            ("cpu_monitor.iowait_percent", 0.0),
            ("cpu_monitor.steal_percent", 0.0),
            ("network_monitor.eth0.errors", 2.0),
            ("network_monitor.eth0.rx_bytes_per_second", 200.0),
            ("network_monitor.eth0.tx_bytes_per_second", 100.0),
        ];
        assert_eq!(
            rates.iter().map(|(path, value)| (path.as_str(), *value)).collect::<Vec<_>>(),
            expected
        );
        assert!(paths(&second).is_sorted());
    }

    #[test]
    fn within_a_second_it_is_the_same_reading() {
        let (folder, settings) = container();
        let mut collector = Collector::new(&settings);
        let first = collector.collect(later(5));
        fs::write(folder.path().join("uptime"), "90000.00 1.0\n").unwrap();
        let soon = later(5).later(Duration::from_millis(999));
        assert_eq!(collector.collect(soon), first);
        assert_ne!(collector.collect(later(6)), first);
        // A clock that was set back begins anew.
        fs::write(folder.path().join("uptime"), "90009.00 1.0\n").unwrap();
        let back = collector.collect(later(2));
        assert_eq!(back.last().unwrap().1, 90009.0);
    }

    #[test]
    fn processes_are_counted_twice_a_minute() {
        let (folder, settings) = container();
        let mut collector = Collector::new(&settings);
        let mut count = |seconds| {
            let metrics = collector.collect(later(seconds));
            metrics.into_iter().find(|(path, _)| path == "process_monitor.count").unwrap().1
        };
        assert_eq!(count(0), 1.0);
        fs::create_dir(folder.path().join("2")).unwrap();
        fs::write(folder.path().join("2/stat"), "2 (sh) S 1").unwrap();
        assert_eq!([count(10), count(29), count(30)], [1.0, 1.0, 2.0]);
    }

    #[test]
    fn what_is_off_is_not_told_and_what_is_not_there_neither() {
        let (_folder, settings) = container();
        let disabled =
            MetricGroup::ALL.into_iter().filter(|group| *group != MetricGroup::Load).collect();
        let only_load = CollectSettings { disabled, ..settings.clone() };
        let metrics = Collector::new(&only_load).collect(later(0));
        assert_eq!(metrics.len(), 4, "{metrics:?}");
        let nothing = CollectSettings { proc: "/nonexistent".into(), ..settings };
        let mut collector = Collector::new(&nothing);
        assert_eq!(collector.collect(later(0)), []);
        assert_eq!(collector.collect(later(10)), []);
    }

    #[test]
    fn this_machine_is_read_in_order_and_each_path_once() {
        let mut collector = Collector::new(&CollectSettings::default());
        let now = Now::read();
        collector.collect(now);
        let metrics = collector.collect(now.later(Duration::from_secs(10)));
        let paths = paths(&metrics);
        assert!(paths.windows(2).all(|pair| pair[0] < pair[1]), "{paths:?}");
        assert!(paths.len() > 10);
    }
}
