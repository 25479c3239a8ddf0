//! The section `hosts` of the configuration: hosts by name and by pattern.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::is_name;
use crate::btree::InsertAll;
use crate::config_file::{self, Section};
use crate::heartbeat::depends_on::DependencySettings;
use crate::heartbeat::fleet::dependencies::DependsOn;
use crate::heartbeat::former_names::FormerNames;
use crate::heartbeat::labels;
use crate::host_pattern::{self, ByPattern};
use crate::problem::Severity;
use crate::secret::Secret;
use crate::view::HostLabels;

/// The shortest and the longest time between two beats.
pub(super) const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(604_800);
/// How many patterns there may be: each datagram of a host that is not known is compared with them.
const MAX_PATTERNS: usize = 1000;
/// Up to this many hosts with the same fault are named one by one; more are counted.
const MAX_NAMED_HOSTS: usize = 20;

/// One entry of the section `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// The name of its threshold set.
    pub threshold_config: String,
    /// Whether its heartbeat events are notified.
    pub watch: bool,
    /// Its channels; none means the default ones.
    pub notification_channels: Option<Vec<String>>,
    /// Whether its name in the DNS follows its address.
    pub dyndns: bool,
    /// Its own key; datagrams of a host that has one are rejected without a signature.
    pub key: Option<Secret>,
    /// The one before, which is accepted, too, while the key is being changed.
    pub previous_key: Option<Secret>,
    /// Overrides what the host says.
    pub interval: Option<Duration>,
    /// Overrides the common grace.
    pub grace: Option<Duration>,
    /// Within what time it is to be back after a shutdown; zero: never reported.
    pub back_within: Option<Duration>,
    /// What people are shown beside it.
    pub labels: HostLabels,
    /// The name that it had before, of which it takes over what is known.
    pub was: Option<String>,
}

impl Default for HostSettings {
    fn default() -> HostSettings {
        HostSettings {
            threshold_config: "default".into(),
            watch: false,
            notification_channels: None,
            dyndns: false,
            key: None,
            previous_key: None,
            interval: None,
            grace: None,
            back_within: None,
            labels: HostLabels::default(),
            was: None,
        }
    }
}

impl HostSettings {
    /// Reads one entry; channels and threshold sets must be among those that there are.
    pub fn read(
        section: &mut Section,
        channels: &config_file::NameSet,
        sets: &config_file::NameSet,
    ) -> HostSettings {
        let defaults = HostSettings::default();
        let settings = HostSettings {
            threshold_config: section
                .name("threshold_config", "threshold set", sets)
                .unwrap_or(defaults.threshold_config),
            watch: section.flag("watch").unwrap_or(defaults.watch),
            notification_channels: section.names("notification_channels", "channel", channels),
            dyndns: defaults.dyndns,
            key: section.signing_key(),
            previous_key: section.secret("previous_key", "previous_key_file"),
            interval: section.duration_within("interval", INTERVALS),
            grace: section.duration("grace"),
            back_within: section.duration("back_within"),
            labels: labels::read(section),
            was: defaults.was,
        };
        check_previous(section, &settings.key, &settings.previous_key);
        settings
    }
}

/// A previous key means something only beside the present one.
pub(super) fn check_previous(section: &Section, key: &Option<Secret>, previous: &Option<Secret>) {
    let at = if section.given("previous_key") { "previous_key" } else { "previous_key_file" };
    let keyed = section.given("key") || section.given("key_file");
    if previous.is_some() && !keyed {
        section.error(at, "is the key before the present one: set key or key_file, too");
    } else if previous.is_some() && previous == key {
        section.warning(at, "is the same as key: it changes nothing");
    }
}

/// A host whose problems are not notified, by its configuration.
struct UnnoticedHost {
    name: String,
    line: Option<usize>,
}

/// Reads the key `dyndns` of a host, which belongs to another feature; says whether the host's
/// address is followed.
pub type ReadDyndns<'a> = &'a mut dyn FnMut(&str, &mut Section) -> bool;

/// The section `hosts`.
#[derive(Debug, Default)]
pub struct ConfiguredHosts {
    /// By exact name.
    pub listed: BTreeMap<String, HostSettings>,
    /// By pattern.
    pub patterns: ByPattern<HostSettings>,
    /// By name or pattern, what hosts are reached through.
    pub depends_on: DependsOn,
}

impl ConfiguredHosts {
    /// The settings of all hosts and patterns.
    pub fn settings(&self) -> impl Iterator<Item = &HostSettings> {
        self.listed.values().chain(self.patterns.iter().map(|(_, settings)| settings))
    }
}

/// Reads the section `hosts` of the top level: the hosts, and what they are reached through.
pub fn read_hosts(
    top: &mut Section,
    channels: &config_file::NameSet,
    default_channels: &[String],
    sets: &config_file::NameSet,
    read_dyndns: ReadDyndns,
) -> ConfiguredHosts {
    let (mut unwatched, mut unrouted) = (Vec::new(), Vec::new());
    let (mut names, mut dependencies) = (top.names_in("hosts"), DependencySettings::default());
    names.retain(|name| !host_pattern::is_pattern(name));
    let mut former = FormerNames::default();
    let hosts = top.entries("hosts", |name, section| {
        let is_pattern = host_pattern::is_pattern(name);
        if !is_name(name) && !host_pattern::is_good_pattern(name) {
            section.error(
                "",
                "a host's name must be 1 to 253 letters, digits, dots, dashes, underscores",
            );
        }
        dependencies.read(name, section, &names);
        let (dyndns, was) = if is_pattern {
            refuse_own_keys(section);
            (false, None)
        } else {
            (read_dyndns(name, section), former.read(name, section, &names))
        };
        let host = HostSettings { dyndns, was, ..HostSettings::read(section, channels, sets) };
        dependencies.note_watched(name, host.watch);
        let unnoticed = || UnnoticedHost { name: name.to_owned(), line: section.line_of("") };
        let routed = host.notification_channels.as_deref().unwrap_or(default_channels);
        if !host.watch {
            // Written out, it is meant so.
            if !section.is_meant("watch") {
                unwatched.push(unnoticed());
            }
        } else if routed.is_empty() {
            unrouted.push(unnoticed());
        }
        host
    });
    warn_of(
        top,
        &unwatched,
        "listed but not watched: without \"watch: true\" nobody is told when it is overdue",
    );
    warn_of(
        top,
        &unrouted,
        "watched, but no channel hears about it: set notification_channels, here or default_notification_channels for all",
    );
    let (patterns, listed): (Vec<_>, Vec<_>) =
        hosts.into_iter().partition(|(name, _)| host_pattern::is_pattern(name));
    let patterns = ByPattern::new(patterns);
    check_patterns(top, &patterns);
    let listed = listed.into_iter().insert_all();
    ConfiguredHosts { listed, patterns, depends_on: dependencies.finish(top) }
}

/// What only one host can have is no key of a pattern.
fn refuse_own_keys(section: &mut Section) {
    for key in ["was", "dyndns"] {
        if section.given(key) {
            let what =
                "cannot be shared by all hosts that match a pattern: list the host by its name";
            section.error(key, what);
        }
        section.ignore(key);
    }
}

fn check_patterns(top: &mut Section, patterns: &ByPattern<HostSettings>) {
    if patterns.len() > MAX_PATTERNS {
        top.error(
            "hosts",
            format!("has more than {MAX_PATTERNS} patterns: list the hosts by name"),
        );
        return;
    }
    for (first, second) in patterns.ties() {
        let what = format!(
            "is as specific as {first}: a host that matches both has what stands under {first}, the first of them"
        );
        top.entry_warning("hosts", second, what);
    }
}

fn warn_of(top: &Section, hosts: &[UnnoticedHost], what: &str) {
    if hosts.len() > MAX_NAMED_HOSTS {
        top.warning("hosts", format!("{} hosts are {what}", hosts.len()));
        return;
    }
    for host in hosts {
        let path = format!("hosts.{}", host.name);
        top.context().report(Severity::Warning, host.line, path, what.to_owned());
    }
}
