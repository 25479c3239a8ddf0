//! Which metrics are collected, and from where. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::btree::InsertAll;
use crate::config_file::{NameSet, Section};

/// Interfaces that come and go with containers and virtual machines, or carry nothing to the
/// outside: each would be a metric that vanishes again.
const TRANSIENT_INTERFACES: &[&str] = &[
    "lo", "veth*", "vnet*", "tap*i*", "fwbr*", "fwln*", "fwpr*", "cali*", "cni*", "lxc*", "br-*",
    "docker*", "podman*", "ifb*", "dummy*",
];

/// The same for disks: mounts of container engines and desktops.
const TRANSIENT_MOUNTS: &[&str] =
    &["/var/lib/docker/*", "/var/lib/containers/*", "/run/*", "/snap/*"];

/// A group of metrics: the first segment of their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricGroup {
    /// How busy the processors are.
    Cpu,
    /// How full the disks are.
    Disk,
    /// How many processes want to run.
    Load,
    /// Main memory.
    Memory,
    /// What the network interfaces carry.
    Network,
    /// How many processes there are.
    Process,
    /// Swap space.
    Swap,
    /// Units of systemd.
    Systemd,
    /// How warm it is.
    Temperature,
    /// How long the machine has been running.
    Uptime,
}

impl MetricGroup {
    /// All of them.
    pub const ALL: [MetricGroup; 10] = [
        MetricGroup::Cpu,
        MetricGroup::Disk,
        MetricGroup::Load,
        MetricGroup::Memory,
        MetricGroup::Network,
        MetricGroup::Process,
        MetricGroup::Swap,
        MetricGroup::Systemd,
        MetricGroup::Temperature,
        MetricGroup::Uptime,
    ];

    /// Its name in paths and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            MetricGroup::Cpu => "cpu_monitor",
            MetricGroup::Disk => "disk_monitor",
            MetricGroup::Load => "load_monitor",
            MetricGroup::Memory => "memory_monitor",
            MetricGroup::Network => "network_monitor",
            MetricGroup::Process => "process_monitor",
            MetricGroup::Swap => "swap_monitor",
            MetricGroup::Systemd => "systemd_monitor",
            MetricGroup::Temperature => "temperature_monitor",
            MetricGroup::Uptime => "uptime_monitor",
        }
    }

    /// The group of that name.
    pub fn from_name(name: &str) -> Option<MetricGroup> {
        MetricGroup::ALL.into_iter().find(|group| group.name() == name)
    }
}

impl fmt::Display for MetricGroup {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which metrics are collected, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectSettings {
    /// Where proc(5) is mounted.
    pub proc: PathBuf,
    /// Where sysfs(5) is mounted.
    pub sys: PathBuf,
    /// The program that knows the units of systemd; none leaves them out.
    pub systemctl: Option<PathBuf>,
    /// The file that keeps from one start to the next which sensor has which path; none keeps it while
    /// this process runs.
    pub sensor_names: Option<PathBuf>,
    /// The groups that are off.
    pub disabled: BTreeSet<MetricGroup>,
    /// Mount points that are left out, besides those that are no disks of this machine; `*` stands
    /// for any text.
    pub excluded_mounts: Vec<String>,
    /// Network interfaces that are left out; `*` stands for any text.
    pub excluded_interfaces: Vec<String>,
}

impl CollectSettings {
    /// Reads what is left out, besides the defaults.
    pub fn read(section: &mut Section) -> CollectSettings {
        let mut settings = CollectSettings::default();
        let names: NameSet =
            MetricGroup::ALL.iter().map(|group| group.name().to_owned()).insert_all();
        let without = section.names("without", "monitor", &names).unwrap_or_default();
        settings.disabled =
            without.iter().filter_map(|name| MetricGroup::from_name(name)).insert_all();
        let more = |key, section: &mut Section| section.texts(key).unwrap_or_default();
        settings.excluded_mounts.extend(more("excluded_mounts", section));
        settings.excluded_interfaces.extend(more("excluded_interfaces", section));
        settings
    }
}

impl Default for CollectSettings {
    fn default() -> CollectSettings {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).into()).collect();
        CollectSettings {
            proc: "/proc".into(),
            sys: "/sys".into(),
            systemctl: Some("systemctl".into()),
            sensor_names: None,
            disabled: BTreeSet::new(),
            excluded_mounts: owned(TRANSIENT_MOUNTS),
            excluded_interfaces: owned(TRANSIENT_INTERFACES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_monitor_is_found_by_its_name() {
        for group in MetricGroup::ALL {
            assert_eq!(MetricGroup::from_name(group.name()), Some(group));
        }
        assert_eq!(MetricGroup::from_name("cpu"), None);
    }
}
