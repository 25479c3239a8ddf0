//! The section `agent` of heartbeat.yaml: hbd watches its own machine, too.

use std::time::Duration;

use super::collect;
use super::machine;
use crate::address::is_name;
use crate::config_file::Section;

/// How often it may look. More often the processor's share tells nothing.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The section, when it is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What this machine is called among the hosts.
    pub host: String,
    /// How often its figures are taken.
    pub interval: Duration,
    /// Which figures.
    pub figures: collect::Settings,
}

impl Settings {
    /// Reads the section; none when it is not enabled.
    pub fn read(section: &mut Section) -> Option<Settings> {
        section.require("enabled");
        let enabled = section.flag("enabled").unwrap_or_default();
        let host = section.text("host");
        let interval = section.duration_within("interval", INTERVALS);
        let figures = collect::Settings::read(section);
        if let Some(host) = host.as_deref().filter(|host| !is_name(host)) {
            let what = "must be 1 to 253 letters, digits, dots, dashes, underscores";
            section.error("host", format!("\"{host}\" {what}"));
        }
        let host = if enabled { host.or_else(|| this_machine(section)) } else { None }?;
        Some(Settings { host, interval: interval.unwrap_or(Duration::from_secs(10)), figures })
    }
}

/// The name that the machine has.
fn this_machine(section: &Section) -> Option<String> {
    let name = machine::hostname();
    match name {
        Ok(name) if is_name(&name) => Some(name),
        Ok(name) => {
            let what =
                format!("this machine is called \"{name}\", which no host can be: give host");
            section.error("enabled", what);
            None
        }
        Err(why) => {
            let why = why.trim_end_matches(": give --host NAME").to_owned();
            section.error("enabled", format!("{why}: give host"));
            None
        }
    }
}
