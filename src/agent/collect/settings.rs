//! What is collected, and from where. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// A group of metrics: the first segment of their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Monitor {
    /// How busy the processors are.
    Cpu,
    /// How many want to run.
    Load,
    /// Main memory.
    Memory,
    /// Swap space.
    Swap,
    /// How long the machine has been running.
    Uptime,
}

impl Monitor {
    /// All of them.
    pub const ALL: [Monitor; 5] =
        [Monitor::Cpu, Monitor::Load, Monitor::Memory, Monitor::Swap, Monitor::Uptime];

    /// Its name in paths and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Monitor::Cpu => "cpu_monitor",
            Monitor::Load => "load_monitor",
            Monitor::Memory => "memory_monitor",
            Monitor::Swap => "swap_monitor",
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
    /// Monitors that are off.
    pub without: BTreeSet<Monitor>,
    /// Mount points that are left out; `*` stands for any text.
    pub excluded_mounts: Vec<String>,
    /// Network interfaces that are left out; `*` stands for any text.
    pub excluded_interfaces: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            proc: "/proc".into(),
            sys: "/sys".into(),
            without: BTreeSet::new(),
            excluded_mounts: Vec::new(),
            excluded_interfaces: Vec::new(),
        }
    }
}
