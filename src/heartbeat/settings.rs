//! The section `heartbeat` of the configuration, and the profiles that are made of it and of `hosts`: the
//! settings of a host in a form that 100,000 of them share.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::address::is_loopback;
use crate::btree::InsertAll;
use crate::config_file::Section;
use crate::event::StormLimit;
use crate::heartbeat::auth::HostKeys;
use crate::heartbeat::datagram::ShutdownReason;
use crate::heartbeat::fleet::dependencies::DependsOn;
use crate::heartbeat::host_settings::{INTERVALS, check_previous};
use crate::heartbeat::renotify::Renotify;
use crate::heartbeat::threshold::{Rule, ThresholdSet};
use crate::host_pattern::ByPattern;
use crate::secret::Secret;

pub use crate::heartbeat::host_settings::{ConfiguredHosts, HostSettings};

/// The name of the connection of heartbeats that come as alerts of an Alertmanager.
pub const ALERTMANAGER: &str = "alertmanager";
/// The name of the connection of the daemon's own machine.
pub const LOCAL: &str = "local";

/// Within what time a host is to be back that said that it reboots.
const DEFAULT_BACK_WITHIN: Duration = Duration::from_secs(15 * 60);

/// What to do with a datagram of a host that is not under `hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHosts {
    /// Reject and count it, and log its host once.
    Ignore,
    /// Track and show the host; it is never notified, since it is not watched.
    Accept,
}

/// The section `heartbeat`: the UDP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// The address to listen on.
    pub host: String,
    /// The UDP port to listen on.
    pub port: u16,
    /// The key of all hosts that have none of their own.
    pub key: Option<Secret>,
    /// The one before, which is accepted, too, while the key is being changed.
    pub previous_key: Option<Secret>,
    /// How often a host beats that does not say so itself.
    pub interval: Duration,
    /// How late a beat may be; none means max(2 x interval, 30 s).
    pub grace: Option<Duration>,
    /// How far the `time` of a signed datagram may be off.
    pub clock_skew: Duration,
    /// What to do with hosts that are not configured.
    pub unknown_hosts: UnknownHosts,
    /// How many of them are kept at most.
    pub max_unknown_hosts: usize,
    /// How many bytes they may take together.
    pub max_unknown_bytes: usize,
    /// Needed to listen beyond loopback without a key.
    pub accept_unsigned: bool,
    /// A watched host that was never seen is reported after this time; zero turns it off.
    pub new_timeout: Duration,
    /// How often it is repeated that a connection is overdue; zero: never.
    pub renotify_interval: Duration,
    /// A connection that was not heard for this time is forgotten; zero turns it off.
    pub forget_after: Duration,
}

impl Default for HeartbeatSettings {
    fn default() -> HeartbeatSettings {
        HeartbeatSettings {
            host: "127.0.0.1".into(),
            port: 9099,
            key: None,
            previous_key: None,
            interval: Duration::from_secs(10),
            grace: None,
            clock_skew: Duration::from_secs(300),
            unknown_hosts: UnknownHosts::Ignore,
            max_unknown_hosts: 100_000,
            max_unknown_bytes: 56_000_000,
            accept_unsigned: false,
            new_timeout: Duration::from_secs(24 * 3600),
            renotify_interval: Duration::from_secs(24 * 3600),
            forget_after: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl HeartbeatSettings {
    /// Reads the section; `hosts` are needed to know whether all of them have a key of their own.
    pub fn read(section: &mut Section, hosts: &ConfiguredHosts) -> HeartbeatSettings {
        let defaults = HeartbeatSettings::default();
        let accept = [("ignore", UnknownHosts::Ignore), ("accept", UnknownHosts::Accept)];
        let max_unknown_hosts = section.number("max_unknown_hosts", 0..=10_000_000);
        let max_unknown_bytes = section.number("max_unknown_bytes", 1_000_000..=100_000_000_000);
        let settings = HeartbeatSettings {
            host: section.host("host", "an address").unwrap_or(defaults.host),
            port: section.listen_port("port").unwrap_or(defaults.port),
            key: section.signing_key(),
            previous_key: section.secret("previous_key", "previous_key_file"),
            interval: section.duration_within("interval", INTERVALS).unwrap_or(defaults.interval),
            grace: section.duration("grace"),
            clock_skew: section.duration("clock_skew").unwrap_or(defaults.clock_skew),
            unknown_hosts: section
                .choice("unknown_hosts", &accept)
                .unwrap_or(defaults.unknown_hosts),
            max_unknown_hosts: max_unknown_hosts
                .and_then(|max| usize::try_from(max).ok())
                .unwrap_or(defaults.max_unknown_hosts),
            max_unknown_bytes: max_unknown_bytes
                .and_then(|max| usize::try_from(max).ok())
                .unwrap_or(defaults.max_unknown_bytes),
            accept_unsigned: section.flag("accept_unsigned").unwrap_or(defaults.accept_unsigned),
            new_timeout: section.duration("new_timeout").unwrap_or(defaults.new_timeout),
            renotify_interval: section
                .duration("renotify_interval")
                .unwrap_or(defaults.renotify_interval),
            forget_after: section.duration("forget_after").unwrap_or(defaults.forget_after),
        };
        check_previous(section, &settings.key, &settings.previous_key);
        if !is_loopback(&settings.host) && settings.is_forgeable(section, hosts) {
            section.error(
                "host",
                format!(
                    "{} is reachable from outside, and heartbeats are not signed: set key or key_file, or accept_unsigned: true",
                    settings.host
                ),
            );
        }
        settings
    }

    /// Whether a datagram without a signature would be accepted although that was not asked for.
    fn is_forgeable(&self, section: &Section, hosts: &ConfiguredHosts) -> bool {
        let keyed = self.key.is_some() || section.given("key") || section.given("key_file");
        let mut all = hosts.settings().peekable();
        let each_keyed = self.unknown_hosts == UnknownHosts::Ignore
            && all.peek().is_some()
            && all.all(|host| host.key.is_some());
        !keyed && !each_keyed && !self.accept_unsigned
    }
}

/// How often a connection is expected to beat, and how late a beat may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The time between two beats.
    pub interval: Duration,
    /// How late a beat may be.
    pub grace: Duration,
}

impl Expectation {
    /// How long after its last beat a connection is overdue.
    pub fn timeout(self) -> Duration {
        self.interval.saturating_add(self.grace)
    }

    /// The interval in milliseconds.
    pub fn interval_millis(self) -> u32 {
        u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX)
    }
}

/// The whole configuration of the fleet.
#[derive(Clone, Debug, Default)]
pub struct FleetConfig {
    /// The section `heartbeat`.
    pub settings: HeartbeatSettings,
    /// The hosts that are listed by their names.
    pub hosts: BTreeMap<String, HostSettings>,
    /// Those that come by patterns.
    pub patterns: ByPattern<HostSettings>,
    /// All threshold sets, the built-in ones included, with `extends` resolved.
    pub threshold_sets: BTreeMap<String, ThresholdSet>,
    /// How often an alert that goes on is repeated.
    pub renotify: Renotify,
    /// The channels of hosts that name none.
    pub default_channels: Vec<String>,
    /// The hosts whose heartbeats come as alerts of an Alertmanager, and what is expected of those.
    pub alert_heartbeats: BTreeMap<String, Expectation>,
    /// The host that the daemon's own machine is, and what is expected of its beats.
    pub local_host: Option<(String, Expectation)>,
    /// The longest silence that a host may ask for; zero: none.
    pub max_silence: Duration,
    /// From when on hosts that are silent at the same time are a storm; none: never.
    pub storm: Option<StormLimit>,
    /// What hosts are reached through.
    pub depends_on: DependsOn,
}

/// The settings that all hosts share.
#[derive(Debug)]
pub struct SharedSettings {
    /// The keys of hosts that have none of their own.
    pub keys: Option<HostKeys>,
    /// The interval of hosts that say nothing.
    pub interval: Duration,
    /// The grace of hosts that have none of their own.
    pub grace: Option<Duration>,
    /// How far the time of a signed datagram may be off.
    pub clock_skew: Duration,
    /// How many unknown hosts are accepted; none when they are ignored.
    pub max_unknown_hosts: Option<usize>,
    /// How many bytes they may take together.
    pub max_unknown_bytes: usize,
    /// How many hosts may come by patterns.
    pub max_pattern_hosts: usize,
    /// When a watched host that was never seen is reported; zero: never.
    pub new_timeout: Duration,
    /// When a connection that is down is forgotten; none: never.
    pub forget_after: Option<Duration>,
    /// How often an alert that goes on is repeated.
    pub renotify: Renotify,
    /// The longest silence that a host may ask for.
    pub max_silence: Duration,
    /// From when on hosts that are silent at the same time are a storm.
    pub storm: Option<StormLimit>,
}

/// The settings of a host. Hosts with equal settings and no key of their own share one profile.
#[derive(Debug, Default)]
pub struct Profile {
    /// Whether it is in the configuration, by name or by a pattern.
    pub configured: bool,
    /// The number of the pattern that it has its settings from; none where it is listed by name.
    pub pattern: Option<u16>,
    /// Whether its heartbeat events are notified.
    pub watch: bool,
    /// Its own keys.
    pub keys: Option<HostKeys>,
    /// Overrides what the host says.
    pub interval: Option<Duration>,
    /// Overrides the common grace.
    pub grace: Option<Duration>,
    /// Within what time it is to be back after a shutdown, where that is configured.
    pub back_within: Option<Duration>,
    /// Its channels.
    pub channels: Vec<String>,
    /// Whether its name in the DNS follows its address.
    pub dyndns: bool,
    /// What is expected of its connection `alertmanager`, before all else; none when it has none.
    pub alert_heartbeat: Option<Expectation>,
    /// The same for its connection `local`: the daemon's own machine has one.
    pub local: Option<Expectation>,
    set: Option<Arc<CompiledSet>>,
}

/// A threshold set whose rules are shared by the metrics under them.
#[derive(Debug, Default)]
struct CompiledSet {
    set: ThresholdSet,
    rules: BTreeMap<String, Arc<Rule>>,
}

impl Profile {
    /// What is expected of an internal connection: one whose beats this process makes itself.
    pub fn internal_expectation(&self, connection: &str) -> Option<Expectation> {
        match connection {
            ALERTMANAGER => self.alert_heartbeat,
            LOCAL => self.local,
            _ => None,
        }
    }

    /// Within what time the host is to be back after a shutdown; none when it need not come back, as
    /// after a power-off, or when it does not say that it boots again.
    pub fn back_within(&self, reason: Option<ShutdownReason>) -> Option<Duration> {
        let within = match reason {
            Some(ShutdownReason::PowerOff) => None,
            Some(ShutdownReason::Reboot) => Some(self.back_within.unwrap_or(DEFAULT_BACK_WITHIN)),
            None => self.back_within,
        };
        within.filter(|within| !within.is_zero())
    }

    /// The rule of a metric.
    pub fn rule(&self, path: &str) -> Option<Arc<Rule>> {
        let compiled = self.set.as_deref()?;
        let (pattern, _) = compiled.set.rule(path)?;
        compiled.rules.get(pattern).cloned()
    }
}

impl SharedSettings {
    /// From the configuration.
    pub fn new(config: &FleetConfig) -> SharedSettings {
        let settings = &config.settings;
        SharedSettings {
            keys: host_keys(&settings.key, &settings.previous_key),
            interval: settings.interval,
            grace: settings.grace,
            clock_skew: settings.clock_skew,
            max_unknown_hosts: match settings.unknown_hosts {
                UnknownHosts::Ignore => None,
                UnknownHosts::Accept => Some(settings.max_unknown_hosts),
            },
            max_unknown_bytes: settings.max_unknown_bytes,
            max_pattern_hosts: settings.max_unknown_hosts,
            new_timeout: settings.new_timeout,
            forget_after: Some(settings.forget_after).filter(|after| !after.is_zero()),
            renotify: config.renotify,
            max_silence: config.max_silence,
            storm: config.storm,
        }
    }
}

/// The profiles of all configured hosts.
#[derive(Debug, Default)]
pub struct Profiles {
    /// Of those that are listed, in the order of their names.
    pub listed: Vec<(String, Arc<Profile>)>,
    /// Of the patterns.
    pub patterns: ByPattern<Arc<Profile>>,
}

/// The profiles of all configured hosts.
pub fn profiles(config: &FleetConfig) -> Profiles {
    let sets: BTreeMap<&str, Arc<CompiledSet>> = config
        .threshold_sets
        .iter()
        .map(|(name, set)| (name.as_str(), Arc::new(compile(set))))
        .insert_all();
    let profile_of = |settings: &HostSettings| {
        let set = sets.get(settings.threshold_config.as_str()).cloned();
        profile(settings, set, &config.default_channels)
    };
    let mut shared: Vec<(&HostSettings, Arc<Profile>)> = Vec::new();
    let mut listed = Vec::with_capacity(config.hosts.len());
    for (name, settings) in &config.hosts {
        let alert_heartbeat = config.alert_heartbeats.get(name).copied();
        let local_host = config.local_host.as_ref().filter(|(host, _)| host == name);
        let local = local_host.map(|(_, expectation)| *expectation);
        let same = |profile: &Profile| {
            profile.alert_heartbeat == alert_heartbeat && profile.local == local
        };
        let known = shared.iter().find(|(known, profile)| *known == settings && same(profile));
        let profile = match known {
            Some((_, profile)) => profile.clone(),
            None => {
                let profile = Profile { alert_heartbeat, local, ..profile_of(settings) };
                let profile = Arc::new(profile);
                if settings.key.is_none() && shared.len() < 64 {
                    shared.push((settings, profile.clone()));
                }
                profile
            }
        };
        listed.push((name.clone(), profile));
    }
    let patterns = config.patterns.map(|pattern, settings| {
        let number = config.patterns.iter().position(|(known, _)| known == pattern);
        let pattern = number.and_then(|number| u16::try_from(number).ok());
        Arc::new(Profile { pattern, ..profile_of(settings) })
    });
    Profiles { listed, patterns }
}

fn profile(
    settings: &HostSettings,
    set: Option<Arc<CompiledSet>>,
    default_channels: &[String],
) -> Profile {
    let channels = settings.notification_channels.as_deref().unwrap_or(default_channels);
    Profile {
        configured: true,
        pattern: None,
        watch: settings.watch,
        keys: host_keys(&settings.key, &settings.previous_key),
        interval: settings.interval,
        grace: settings.grace,
        back_within: settings.back_within,
        channels: channels.to_vec(),
        dyndns: settings.dyndns,
        alert_heartbeat: None,
        local: None,
        set,
    }
}

fn host_keys(current: &Option<Secret>, previous: &Option<Secret>) -> Option<HostKeys> {
    current.as_ref().map(|current| HostKeys::new(current, previous.as_ref()))
}

fn compile(set: &ThresholdSet) -> CompiledSet {
    let rules =
        set.rules.iter().map(|(pattern, rule)| (pattern.clone(), Arc::new(*rule))).insert_all();
    CompiledSet { set: set.clone(), rules }
}

/// A string interner for the names of connections and the paths of metrics: the same few for all
/// hosts, each kept once.
#[derive(Debug, Default)]
pub struct Interner {
    known: HashSet<Arc<str>>,
    /// How many were in use when it was shrunk last.
    used: usize,
    /// How many bytes all of them take.
    bytes: usize,
}

/// What a name takes in memory beside its text.
pub const NAME_BYTES: usize = 64;

/// Fewer names than this are not worth shrinking.
const MIN_SHRINK: usize = 1024;

impl Interner {
    /// The one copy of `name`.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.known.insert(name.clone());
        self.bytes += NAME_BYTES + name.len();
        // A host may send other paths with every beat: they must not fill the memory.
        if self.known.len() > 2 * self.used.max(MIN_SHRINK) {
            self.shrink();
        }
        name
    }

    /// Forgets the names that are no longer in use.
    pub fn shrink(&mut self) {
        self.known.retain(|name| Arc::strong_count(name) > 1);
        self.used = self.known.len();
        if self.known.capacity() > 4 * self.used.max(MIN_SHRINK) {
            self.known.shrink_to_fit();
        }
        self.bytes = self.known.iter().map(|name| NAME_BYTES + name.len()).sum();
    }

    /// The same, where many are new since it was shrunk last.
    pub fn shrink_if_worth(&mut self) {
        if self.known.len() > self.used + self.used / 8 + 64 {
            self.shrink();
        }
    }

    /// How many bytes the names take, those included that are no longer in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_uses_any_more_were_kept_for_ever() {
        let mut names = Interner::default();
        let used: Vec<_> = (0..100).map(|n| names.intern(&format!("used{n}"))).collect();
        for n in 0..100_000 {
            names.intern(&format!("veth{n}"));
        }
        assert!(names.known.len() <= 2 * 1024, "{}", names.known.len());
        assert!(used.iter().all(|name| Arc::ptr_eq(&names.intern(name), name)));
    }
}
