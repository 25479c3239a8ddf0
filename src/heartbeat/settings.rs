//! The sections `heartbeat` and `hosts` of the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::{is_host, is_loopback, is_name};
use crate::config_file::{NameSet, Section};
use crate::problem::Severity;
use crate::secret::Secret;

/// The shortest and the longest time between two beats.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(604_800);

/// So many hosts with the same fault are named one by one; more are counted.
const NAMED_HOSTS: usize = 20;

/// What to do with a datagram of a host that is not under `hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHosts {
    /// Count it and say so once.
    Ignore,
    /// Track and show the host; it is never notified, since it is not watched.
    Accept,
}

/// The section `heartbeat`: the UDP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address to listen on.
    pub host: String,
    /// The UDP port to listen on.
    pub port: u16,
    /// The key of all hosts that have none of their own.
    pub key: Option<Secret>,
    /// The one before, which is believed, too, while the key is being changed.
    pub previous_key: Option<Secret>,
    /// How often a host beats that does not say so itself.
    pub interval: Duration,
    /// How late a beat may be; none means max(2 x interval, 30 s).
    pub grace: Option<Duration>,
    /// How far the `time` of a signed datagram may be off.
    pub clock_skew: Duration,
    /// What to do with hosts that are not configured.
    pub unknown_hosts: UnknownHosts,
    /// At most so many of them are kept.
    pub max_unknown_hosts: usize,
    /// Needed to listen beyond loopback without a key.
    pub accept_unsigned: bool,
    /// A watched host that was never heard is reported after this time; zero turns it off.
    pub new_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: "127.0.0.1".into(),
            port: 9099,
            key: None,
            previous_key: None,
            interval: Duration::from_secs(10),
            grace: None,
            clock_skew: Duration::from_secs(300),
            unknown_hosts: UnknownHosts::Ignore,
            max_unknown_hosts: 100_000,
            accept_unsigned: false,
            new_timeout: Duration::from_secs(24 * 3600),
        }
    }
}

impl Settings {
    /// Reads the section; `hosts` are needed to know whether all of them have a key of their own.
    pub fn read(section: &mut Section, hosts: &BTreeMap<String, HostSettings>) -> Settings {
        let usual = Settings::default();
        let accept = [("ignore", UnknownHosts::Ignore), ("accept", UnknownHosts::Accept)];
        let most = section.number("max_unknown_hosts", 0..=10_000_000);
        let settings = Settings {
            host: section.text("host").unwrap_or(usual.host),
            port: section.listen_port("port").unwrap_or(usual.port),
            key: section.secret("key", "key_file"),
            previous_key: section.secret("previous_key", "previous_key_file"),
            interval: section.duration_within("interval", INTERVALS).unwrap_or(usual.interval),
            grace: section.duration("grace"),
            clock_skew: section.duration("clock_skew").unwrap_or(usual.clock_skew),
            unknown_hosts: section.choice("unknown_hosts", &accept).unwrap_or(usual.unknown_hosts),
            max_unknown_hosts: most
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(usual.max_unknown_hosts),
            accept_unsigned: section.flag("accept_unsigned").unwrap_or(usual.accept_unsigned),
            new_timeout: section.duration("new_timeout").unwrap_or(usual.new_timeout),
        };
        check_previous(section, &settings.key, &settings.previous_key);
        if !is_host(&settings.host) {
            section.error("host", format!("\"{}\" cannot be an address", settings.host));
        } else if !is_loopback(&settings.host) && settings.believes_anybody(section, hosts) {
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

    fn believes_anybody(&self, section: &Section, hosts: &BTreeMap<String, HostSettings>) -> bool {
        let keyed = self.key.is_some() || section.given("key") || section.given("key_file");
        let each_keyed = self.unknown_hosts == UnknownHosts::Ignore
            && !hosts.is_empty()
            && hosts.values().all(|host| host.key.is_some());
        !keyed && !each_keyed && !self.accept_unsigned
    }
}

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
    /// Its own key; a host that has one is never believed without a signature.
    pub key: Option<Secret>,
    /// The one before, which is believed, too, while the key is being changed.
    pub previous_key: Option<Secret>,
    /// Overrides what the host says.
    pub interval: Option<Duration>,
    /// Overrides the common grace.
    pub grace: Option<Duration>,
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
        }
    }
}

impl HostSettings {
    /// Reads one entry; channels and threshold sets must be among those that there are.
    pub fn read(section: &mut Section, channels: &NameSet, sets: &NameSet) -> HostSettings {
        let usual = HostSettings::default();
        let settings = HostSettings {
            threshold_config: section
                .name("threshold_config", "threshold set", sets)
                .unwrap_or(usual.threshold_config),
            watch: section.flag("watch").unwrap_or(usual.watch),
            notification_channels: section.names("notification_channels", "channel", channels),
            dyndns: usual.dyndns,
            key: section.secret("key", "key_file"),
            previous_key: section.secret("previous_key", "previous_key_file"),
            interval: section.duration_within("interval", INTERVALS),
            grace: section.duration("grace"),
        };
        check_previous(section, &settings.key, &settings.previous_key);
        settings
    }
}

/// A previous key has its meaning beside the present one.
fn check_previous(section: &Section, key: &Option<Secret>, previous: &Option<Secret>) {
    let at = if section.given("previous_key") { "previous_key" } else { "previous_key_file" };
    let keyed = section.given("key") || section.given("key_file");
    if previous.is_some() && !keyed {
        section.error(at, "is the key before the present one: set key or key_file, too");
    } else if previous.is_some() && previous == key {
        section.warning(at, "is the same as key: it changes nothing");
    }
}

/// A host that is configured in a way that tells nobody anything.
struct Mute {
    name: String,
    line: Option<usize>,
}

/// Reads the key `dyndns` of a host, which belongs to another feature; says whether the host's
/// address is followed.
pub type ReadDyndns<'a> = &'a mut dyn FnMut(&str, &mut Section) -> bool;

/// Reads the section `hosts` of the top level.
pub fn read_hosts(
    top: &mut Section,
    channels: &NameSet,
    default_channels: &[String],
    sets: &NameSet,
    read_dyndns: ReadDyndns,
) -> BTreeMap<String, HostSettings> {
    let (mut unwatched, mut unheard) = (Vec::new(), Vec::new());
    let hosts = top.entries("hosts", |name, section| {
        if !is_name(name) {
            section.error(
                "",
                "a host's name must be 1 to 253 letters, digits, dots, dashes, underscores",
            );
        }
        let dyndns = read_dyndns(name, section);
        let host = HostSettings { dyndns, ..HostSettings::read(section, channels, sets) };
        let mute = || Mute { name: name.to_owned(), line: section.line_of("") };
        let routed = host.notification_channels.as_deref().unwrap_or(default_channels);
        if !host.watch {
            unwatched.push(mute());
        } else if routed.is_empty() {
            unheard.push(mute());
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
        &unheard,
        "watched, but no channel hears about it: set notification_channels, here or default_notification_channels for all",
    );
    hosts.into_iter().collect()
}

fn warn_of(top: &Section, hosts: &[Mute], what: &str) {
    if hosts.len() > NAMED_HOSTS {
        top.warning("hosts", format!("{} hosts are {what}", hosts.len()));
        return;
    }
    for host in hosts {
        let path = format!("hosts.{}", host.name);
        top.context().report(Severity::Warning, host.line, path, what.to_owned());
    }
}
