//! What is collected, and from where. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::config_file::{NameSet, Section};

/// Interfaces that come and go with containers and virtual machines, or carry nothing to the
/// outside: each would be a metric that vanishes again.
const PASSING_INTERFACES: &[&str] = &[
    "lo", "veth*", "vnet*", "tap*i*", "fwbr*", "fwln*", "fwpr*", "cali*", "cni*", "lxc*", "br-*",
    "docker*", "podman*", "ifb*", "dummy*",
];

/// The same for disks: what container engines and desktops mount for others.
const PASSING_MOUNTS: &[&str] =
    &["/var/lib/docker/*", "/var/lib/containers/*", "/run/*", "/snap/*"];

/// A group of metrics: the first segment of their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Monitor {
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

impl Monitor {
    /// All of them.
    pub const ALL: [Monitor; 10] = [
        Monitor::Cpu,
        Monitor::Disk,
        Monitor::Load,
        Monitor::Memory,
        Monitor::Network,
        Monitor::Process,
        Monitor::Swap,
        Monitor::Systemd,
        Monitor::Temperature,
        Monitor::Uptime,
    ];

    /// Its name in paths and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Monitor::Cpu => "cpu_monitor",
            Monitor::Disk => "disk_monitor",
            Monitor::Load => "load_monitor",
            Monitor::Memory => "memory_monitor",
            Monitor::Network => "network_monitor",
            Monitor::Process => "process_monitor",
            Monitor::Swap => "swap_monitor",
            Monitor::Systemd => "systemd_monitor",
            Monitor::Temperature => "temperature_monitor",
            Monitor::Uptime => "uptime_monitor",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Monitor> {
        Monitor::ALL.into_iter().find(|monitor| monitor.name() == name)
    }
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is collected, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where proc(5) is mounted.
    pub proc: PathBuf,
    /// Where sysfs(5) is mounted.
    pub sys: PathBuf,
    /// Who knows the units of systemd; none where the machine was not booted with it.
    pub systemctl: Option<PathBuf>,
    /// Monitors that are off.
    pub without: BTreeSet<Monitor>,
    /// Mount points that are left out besides those that are no disks of this machine; `*` stands
    /// for any text.
    pub excluded_mounts: Vec<String>,
    /// Network interfaces that are left out; `*` stands for any text.
    pub excluded_interfaces: Vec<String>,
}

impl Settings {
    /// Reads what is left out, besides what always is.
    pub fn read(section: &mut Section) -> Settings {
        let mut settings = Settings::default();
        let names: NameSet = Monitor::ALL.iter().map(|monitor| monitor.name().to_owned()).collect();
        let without = section.names("without", "monitor", &names).unwrap_or_default();
        settings.without = without.iter().filter_map(|name| Monitor::named(name)).collect();
        let more = |key, section: &mut Section| section.texts(key).unwrap_or_default();
        settings.excluded_mounts.extend(more("excluded_mounts", section));
        settings.excluded_interfaces.extend(more("excluded_interfaces", section));
        settings
    }
}

impl Default for Settings {
    fn default() -> Settings {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).into()).collect();
        Settings {
            proc: "/proc".into(),
            sys: "/sys".into(),
            systemctl: Some("systemctl".into()),
            without: BTreeSet::new(),
            excluded_mounts: owned(PASSING_MOUNTS),
            excluded_interfaces: owned(PASSING_INTERFACES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_monitor_is_found_by_its_name() {
        for monitor in Monitor::ALL {
            assert_eq!(Monitor::named(monitor.name()), Some(monitor));
        }
        assert_eq!(Monitor::named("cpu"), None);
    }
}
