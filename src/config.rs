//! The configuration of the daemon: composed of the features' sections, with all problems at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::host_info;
use crate::agent::settings::LocalAgentSettings;
use crate::backup::settings::{CorrelatorSettings, RepoCheckSettings, TellingSettings};
use crate::btree::InsertAll;
use crate::cluster::settings::ClusterSettings;
use crate::config_file::{Environment, NameSet, Section, file};
use crate::dyndns::settings as dyndns;
use crate::heartbeat::fleet::dependencies::DependsOn;
use crate::heartbeat::host_settings::{ConfiguredHosts, HostSettings, read_hosts};
use crate::heartbeat::renotify::RenotifyBackoff;
use crate::heartbeat::threshold::ThresholdSet;
use crate::heartbeat::{settings as heartbeat, threshold};
use crate::history::retention as history;
use crate::host_pattern::ByPattern;
use crate::http::settings as http;
use crate::notify::calm::CalmSettings;
use crate::notify::channel::Channel;
use crate::notify::notifier::Notifier;
use crate::notify::settings as notify;
use crate::problem::{Problems, Severity};
use crate::secret::Secret;

pub use crate::http::settings::ReceiverSettings;

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// Its warnings.
    pub warnings: Problems,
    /// `notification_channels`.
    pub channels: BTreeMap<String, Channel>,
    /// `default_notification_channels`.
    pub default_channels: Vec<String>,
    /// Those of `hosts` that are listed by their names.
    pub hosts: BTreeMap<String, HostSettings>,
    /// Those that come by patterns.
    pub patterns: ByPattern<HostSettings>,
    /// What hosts are reached through.
    pub depends_on: DependsOn,
    /// The built-in sets and those of `threshold_configs`, with what they extend.
    pub threshold_sets: BTreeMap<String, ThresholdSet>,
    /// How many of them are defined in the file.
    pub own_threshold_sets: usize,
    /// The interval at which a message about an open alert is repeated; none means never.
    pub renotify_interval: Option<Duration>,
    /// Whether these become rarer.
    pub renotify_backoff: RenotifyBackoff,
    /// The daemon's own machine as one of its hosts, if it is one.
    pub agent: Option<LocalAgentSettings>,
    /// The UDP server and the monitor.
    pub heartbeat: heartbeat::HeartbeatSettings,
    /// The HTTP server.
    pub receiver: http::ReceiverSettings,
    /// Redis, which has the results of backups.
    pub correlator: CorrelatorSettings,
    /// How restic repositories are checked; none means not at all.
    pub repo_check: Option<RepoCheckSettings>,
    /// By host, how its name in the DNS is updated.
    pub dyndns: BTreeMap<String, dyndns::DyndnsEntry>,
    /// How long the history is kept.
    pub history: history::RetentionSettings,
    /// The channels for messages about backups.
    pub notifier: notify::NotifierSettings,
    /// `maintenance` and `calm`: what holds messages back, and for how long.
    pub calm: CalmSettings,
    /// What is told of backup plans, and how often.
    pub telling: TellingSettings,
    /// The nodes that are one service with this one; none: it is alone.
    pub cluster: Option<ClusterSettings>,
    /// In a cluster a hash of all that is not this node's own; else 0.
    pub fingerprint: u32,
    /// The directory of the store.
    pub state_dir: PathBuf,
    /// Every secret that was read, to remove them from everything that is printed.
    pub secrets: Vec<Secret>,
}

const PROGRAM: file::Program = file::Program { name: "hbd", variable: "HBD_CONFIG" };

impl Config {
    /// Loads a file.
    ///
    /// # Errors
    /// All of its problems, warnings included.
    pub fn load(file: impl AsRef<Path>) -> Result<Config, Problems> {
        Config::load_with(file, &|name| std::env::var(name).ok())
    }

    /// Loads a file with this environment instead of that of the process.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(file: impl AsRef<Path>, environment: Environment) -> Result<Config, Problems> {
        let file = file.as_ref();
        let loaded = file::load_including(file, environment, PROGRAM, |top| {
            warn_of_nothing(top);
            read(top)
        })?;
        let (warnings, secrets) = (loaded.warnings, loaded.secrets);
        Ok(Config { file: file.to_owned(), warnings, secrets, ..loaded.value })
    }

    /// What a client of the daemon needs, of a file whose rest may be broken: where its HTTP server
    /// is, its token and its certificate.
    ///
    /// # Errors
    /// The section `receiver` itself is wrong, or the file cannot be read.
    pub fn load_receiver(file: impl AsRef<Path>) -> Result<http::ReceiverSettings, Problems> {
        let environment = |name: &str| std::env::var(name).ok();
        let read = http::ReceiverSettings::read_for_client;
        let receiver = file::load_section(file.as_ref(), &environment, PROGRAM, "receiver", read)?;
        Ok(receiver.unwrap_or_default())
    }

    /// The names below a section of a file, whose contents may be broken.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn names_in(
        file: impl AsRef<Path>,
        section: &'static str,
    ) -> Result<Vec<String>, Problems> {
        let environment = |name: &str| std::env::var(name).ok();
        let read = |section: &mut Section| section.take_names();
        let names = file::load_section(file.as_ref(), &environment, PROGRAM, section, read)?;
        Ok(names.unwrap_or_default())
    }

    /// The names of the channels for messages about a host: its own, else the default ones. An unknown
    /// host has the default ones.
    pub fn notification_channels_for_host(&self, host: &str) -> &[String] {
        let own = self.host(host).and_then(|host| host.notification_channels.as_deref());
        own.unwrap_or(&self.default_channels)
    }

    /// What is configured for a host, by its name or by a pattern.
    pub fn host(&self, name: &str) -> Option<&HostSettings> {
        self.hosts.get(name).or_else(|| self.patterns.find(name))
    }

    /// The channels for messages about a host, with their definitions.
    pub fn notification_channels_config(&self, host: &str) -> BTreeMap<&str, &Channel> {
        let names = self.notification_channels_for_host(host).iter();
        names.filter_map(|name| Some((name.as_str(), self.channel_config(name)?))).collect()
    }

    /// The definition of a channel.
    pub fn channel_config(&self, name: &str) -> Option<&Channel> {
        self.channels.get(name)
    }

    /// The names of the channels for messages about backups.
    pub fn notification_channels_for_backups(&self) -> &[String] {
        self.notifier.notification_channels.as_deref().unwrap_or(&self.default_channels)
    }
}

impl From<&Config> for Notifier {
    fn from(config: &Config) -> Notifier {
        let channels = config.channels.iter();
        let channels = channels.map(|(name, channel)| (name.clone(), Arc::new(channel.clone())));
        let default = &config.default_channels;
        let or_default = |own: &Option<Vec<String>>| own.as_ref().unwrap_or(default).clone();
        // What a pattern says is not for a host that is listed without channels.
        let has_own = |(name, host): &(&String, &HostSettings)| {
            host.notification_channels.is_some() || config.patterns.position(name).is_some()
        };
        let hosts = config.hosts.iter().filter(has_own);
        let hosts =
            hosts.map(|(name, host)| (name.clone(), or_default(&host.notification_channels)));
        let patterns = config.patterns.map(|_, host| or_default(&host.notification_channels));
        Notifier::with(channels.insert_all(), default.clone(), hosts.insert_all())
            .with_patterns(patterns)
    }
}

fn warn_of_nothing(top: &Section) {
    if top.is_empty() {
        let what = "is empty: no host is watched and nobody is told; begin with hosts and \
                    notification_channels, see heartbeat.yaml(5)";
        top.warning("", what);
    }
}

fn read(top: &mut Section) -> Config {
    let names: NameSet = top.names_in("notification_channels");
    let channels = notify::read_channels(top);
    let default_channels =
        top.names("default_notification_channels", "channel", &names).unwrap_or_default();
    let own_threshold_sets = top.names_in("threshold_configs").len();
    let threshold_sets = threshold::read(top);
    let sets: NameSet = threshold_sets.keys().cloned().insert_all();
    let base = top.section("dyndns", |section| dyndns::DyndnsSettings::read(section, None));
    let (mut kept, mut lines) = (BTreeMap::new(), BTreeMap::new());
    let hosts = read_hosts(top, &names, &default_channels, &sets, &mut |host, section| {
        let Some(entry) = dyndns::read_host(host, section, base.as_ref()) else { return false };
        kept.insert(host.to_owned(), entry);
        lines.insert(host.to_owned(), section.line_of("dyndns"));
        true
    });
    let listed: NameSet = hosts.listed.keys().cloned().insert_all();
    let hosts_and_patterns = top.names_in("hosts");
    let (renotify_interval, renotify_backoff) = read_renotify(top);
    let mut telling = TellingSettings::default();
    let read_notifier = |section: &mut Section| {
        let notifier = notify::NotifierSettings::read(section, &names);
        telling = TellingSettings::read(section);
        notifier
    };
    let mut config = Config {
        file: PathBuf::new(),
        warnings: Problems::default(),
        channels,
        default_channels,
        threshold_sets,
        own_threshold_sets,
        renotify_interval,
        renotify_backoff,
        agent: top.section("agent", LocalAgentSettings::read).flatten(),
        heartbeat: read_heartbeat(top, &hosts),
        receiver: top
            .section("receiver", |section| read_receiver(section, &listed, &hosts))
            .unwrap_or_default(),
        correlator: top.section("correlator", CorrelatorSettings::read).unwrap_or_default(),
        repo_check: top.section("repo_check", RepoCheckSettings::read),
        dyndns: kept,
        history: top.section("history", history::RetentionSettings::read).unwrap_or_default(),
        notifier: top.section("notifier", read_notifier).unwrap_or_default(),
        calm: CalmSettings::read(top, &hosts_and_patterns),
        telling,
        cluster: None,
        fingerprint: 0,
        state_dir: state_dir(top),
        hosts: hosts.listed,
        patterns: hosts.patterns,
        depends_on: hosts.depends_on,
        secrets: Vec::new(),
    };
    read_cluster(top, &mut config);
    check_dyndns(top, &config, &lines);
    check_notifier(top, &config, &names);
    config
}

fn check_notifier(top: &Section, config: &Config, channels: &NameSet) {
    if channels.is_empty() {
        return;
    }
    let told = config.notification_channels_for_backups();
    notify::check_backups(top, told, uses_backups(top, config));
    notify::check_summary(top, &config.notifier, told, &config.channels);
}

fn read_cluster(top: &mut Section, config: &mut Config) {
    let polls = config.receiver.poll_url.is_some();
    config.cluster = top.section("cluster", |section| {
        let machine = || host_info::hostname().map_err(|why| why.to_string());
        ClusterSettings::read(section, polls, machine)
    });
    if config.cluster.is_some() {
        config.fingerprint = top.fingerprint(&is_node_s_own);
        // Each node is a host of the one that leads, which has the same hosts and another agent.
        let unknown = config.agent.as_ref().filter(|agent| config.host(&agent.host).is_none());
        if let Some(agent) = unknown {
            let host = &agent.host;
            let what = format!("its host {host} must be under hosts of every node of the cluster");
            top.error("agent", what);
        }
    }
}

/// Whether a key may differ from node to node of a cluster.
fn is_node_s_own(path: &str) -> bool {
    const OWN: [&str; 10] = [
        "agent",
        "cluster",
        "heartbeat.host",
        "heartbeat.port",
        "include",
        "receiver.host",
        "receiver.port",
        "receiver.public_url",
        "receiver.tls",
        "state_dir",
    ];
    OWN.contains(&path)
}

fn read_renotify(top: &mut Section) -> (Option<Duration>, RenotifyBackoff) {
    let interval = top.duration("renotify_interval").unwrap_or(Duration::from_secs(3600));
    let backoffs = [("none", RenotifyBackoff::None), ("double", RenotifyBackoff::Double)];
    let backoff = top.choice("renotify_backoff", &backoffs).unwrap_or_default();
    ((!interval.is_zero()).then_some(interval), backoff)
}

fn read_heartbeat(top: &mut Section, hosts: &ConfiguredHosts) -> heartbeat::HeartbeatSettings {
    let read = |section: &mut Section| heartbeat::HeartbeatSettings::read(section, hosts);
    top.section("heartbeat", read).unwrap_or_default()
}

/// Whether the file is about backups, too: else there is no need to warn that they have no channels.
fn uses_backups(top: &Section, config: &Config) -> bool {
    let told = |host: &HostSettings| {
        host.notification_channels.as_ref().is_some_and(|channels| !channels.is_empty())
    };
    ["correlator", "repo_check", "notifier"].into_iter().any(|section| top.given(section))
        || config.receiver.poll_url.is_some()
        || config.receiver.alert_names != http::ReceiverSettings::default().alert_names
        || !(config.hosts.values().any(told) || config.patterns.iter().any(|(_, host)| told(host)))
}

/// Two hosts must not have one name, and only signed heartbeats update one.
fn check_dyndns(top: &Section, config: &Config, lines: &BTreeMap<String, Option<usize>>) {
    let report = |severity, host: &str, what: String| {
        let line = lines.get(host).copied().flatten();
        top.context().report(severity, line, format!("hosts.{host}.dyndns"), what);
    };
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (host, entry) in &config.dyndns {
        if let Some(other) = owners.insert(&entry.name, host) {
            let what = format!("keeps the name {}, and {other} does so, too", entry.name);
            report(Severity::Error, host, what);
        }
        let key = config.hosts.get(host).and_then(|host| host.key.as_ref());
        if key.or(config.heartbeat.key.as_ref()).is_none() {
            let what = "never moves: only signed heartbeats do that, set key or heartbeat.key";
            report(Severity::Warning, host, what.into());
        }
    }
}

fn read_receiver(
    section: &mut Section,
    names: &NameSet,
    hosts: &ConfiguredHosts,
) -> http::ReceiverSettings {
    let groups = hosts.settings().flat_map(|host| &host.labels.groups).cloned().insert_all();
    let receiver = http::ReceiverSettings::read(section, names, &groups);
    if receiver.alert_names.is_empty() {
        section.warning("alert_names", "is empty: no alert is about backups, and none is told");
    }
    receiver
}

/// That of the file, else that of systemd, else the system's directory if it is writable, else the
/// user's own.
fn state_dir(top: &mut Section) -> PathBuf {
    const SYSTEM: &str = "/var/lib/hbd";
    if let Some(directory) = top.path("state_dir") {
        let nearest = directory.ancestors().find(|path| path.symlink_metadata().is_ok());
        if let Some(file) = nearest.filter(|nearest| !nearest.is_dir()) {
            let what = format!("{} is a file: name a directory", file.display());
            top.warning("state_dir", what);
        }
        return directory;
    }
    let variable = |name| top.context().variable(name).filter(|value| !value.is_empty());
    if let Some(directories) = variable("STATE_DIRECTORY") {
        return directories.split(':').next().unwrap_or(SYSTEM).into();
    }
    match variable("HOME") {
        Some(home) if !writable(Path::new(SYSTEM)) => Path::new(&home).join(".local/state/hbd"),
        _ => SYSTEM.into(),
    }
}

/// Whether the directory, or else the one that it would be made in, may be written.
fn writable(directory: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let nearest = if directory.exists() { Some(directory) } else { directory.parent() };
    let path = nearest.and_then(|path| std::ffi::CString::new(path.as_os_str().as_bytes()).ok());
    // SAFETY: the pointer is to a live string that ends in NUL, and access(2) keeps nothing.
    path.is_some_and(|path| unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } == 0)
}
