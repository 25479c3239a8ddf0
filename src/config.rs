//! The configuration: composes the features' sections, and finds all that is wrong in one go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::local as agent;
use crate::backup::settings::{Correlator, RepoCheck};
use crate::config_file::{Environment, Names, Section, file};
use crate::dyndns::settings as dyndns;
use crate::heartbeat::settings::{HostSettings, read_hosts};
use crate::heartbeat::threshold::ThresholdSet;
use crate::heartbeat::{settings as heartbeat, threshold_config};
use crate::history::settings as history;
use crate::http::settings as http;
use crate::notify::channel::Definition;
use crate::notify::direct::Notifier;
use crate::notify::settings as notify;
use crate::problem::{Problems, Severity};
use crate::secret::Secret;

/// A configuration that can work.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// What looks wrong but need not be.
    pub warnings: Problems,
    /// `notification_channels`.
    pub channels: BTreeMap<String, Definition>,
    /// `default_notification_channels`.
    pub default_channels: Vec<String>,
    /// `hosts`.
    pub hosts: BTreeMap<String, HostSettings>,
    /// The built-in sets and those of `threshold_configs`, with what they extend.
    pub threshold_sets: BTreeMap<String, ThresholdSet>,
    /// How many of them are written in the file.
    pub own_threshold_sets: usize,
    /// How often an alert that goes on is repeated; none means never.
    pub renotify_interval: Option<Duration>,
    /// The daemon's own machine, where it is to be watched.
    pub agent: Option<agent::Settings>,
    /// The UDP side.
    pub heartbeat: heartbeat::Settings,
    /// The HTTP side.
    pub receiver: http::ReceiverSettings,
    /// Where the truth about backups is.
    pub correlator: Correlator,
    /// How repositories are asked; none means not at all.
    pub repo_check: Option<RepoCheck>,
    /// The hosts whose names in the DNS are kept, and how.
    pub dyndns: BTreeMap<String, dyndns::Entry>,
    /// How long what was is kept.
    pub history: history::Settings,
    /// Who hears about backups.
    pub notifier: notify::Settings,
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// Every secret that was read, to keep them out of all that is printed.
    pub secrets: Vec<Secret>,
}

impl Config {
    /// Loads a file: the configuration with its warnings, or all that is wrong with it.
    pub fn load(file: impl AsRef<Path>) -> Result<Config, Problems> {
        Config::load_with(file, &|name| std::env::var(name).ok())
    }

    /// Loads a file with an environment of one's own.
    pub fn load_with(file: impl AsRef<Path>, environment: Environment) -> Result<Config, Problems> {
        const PROGRAM: file::Program = file::Program { name: "hbd", variable: "HBD_CONFIG" };
        let file = file.as_ref();
        let loaded = file::load(file, environment, PROGRAM, read)?;
        let (warnings, secrets) = (loaded.warnings, loaded.secrets);
        Ok(Config { file: file.to_owned(), warnings, secrets, ..loaded.value })
    }

    /// The names of the channels that hear about a host: its own, else the default ones. An unknown
    /// host has the default ones.
    pub fn notification_channels_for_host(&self, host: &str) -> &[String] {
        let own = self.hosts.get(host).and_then(|host| host.notification_channels.as_deref());
        own.unwrap_or(&self.default_channels)
    }

    /// The channels that hear about a host, with their definitions.
    pub fn notification_channels_config(&self, host: &str) -> BTreeMap<&str, &Definition> {
        let names = self.notification_channels_for_host(host).iter();
        names.filter_map(|name| Some((name.as_str(), self.channel_config(name)?))).collect()
    }

    /// The definition of a channel.
    pub fn channel_config(&self, name: &str) -> Option<&Definition> {
        self.channels.get(name)
    }

    /// The names of the channels that hear about backups.
    pub fn notification_channels_for_backups(&self) -> &[String] {
        self.notifier.notification_channels.as_deref().unwrap_or(&self.default_channels)
    }
}

impl Notifier {
    /// Sends through the channels of `config`.
    pub fn new(config: &Config) -> Notifier {
        let channels = config.channels.iter();
        let channels = channels.map(|(name, channel)| (name.clone(), Arc::new(channel.clone())));
        let own = |(name, host): (&String, &HostSettings)| {
            Some((name.clone(), host.notification_channels.clone()?))
        };
        let hosts = config.hosts.iter().filter_map(own);
        Notifier::with(channels.collect(), config.default_channels.clone(), hosts.collect())
    }
}

fn read(top: &mut Section) -> Config {
    let names: Names = top.names_in("notification_channels");
    let channels = notify::read_channels(top);
    let default_channels =
        top.names("default_notification_channels", "channel", &names).unwrap_or_default();
    let own_threshold_sets = top.names_in("threshold_configs").len();
    let threshold_sets = threshold_config::read(top);
    let sets: Names = threshold_sets.keys().cloned().collect();
    let base = top.section("dyndns", |section| dyndns::Settings::read(section, None));
    let (mut kept, mut lines) = (BTreeMap::new(), BTreeMap::new());
    let hosts = read_hosts(top, &names, &default_channels, &sets, &mut |host, section| {
        let Some(entry) = dyndns::read_host(host, section, base.as_ref()) else { return false };
        kept.insert(host.to_owned(), entry);
        lines.insert(host.to_owned(), section.line_of("dyndns"));
        true
    });
    let host_names: Names = hosts.keys().cloned().collect();
    let renotify = top.duration("renotify_interval").unwrap_or(Duration::from_secs(3600));
    let config = Config {
        file: PathBuf::new(),
        warnings: Problems::default(),
        channels,
        default_channels,
        threshold_sets,
        own_threshold_sets,
        renotify_interval: (!renotify.is_zero()).then_some(renotify),
        agent: top.section("agent", agent::Settings::read).flatten(),
        heartbeat: top
            .section("heartbeat", |section| heartbeat::Settings::read(section, &hosts))
            .unwrap_or_default(),
        receiver: top
            .section("receiver", |section| read_receiver(section, &host_names))
            .unwrap_or_default(),
        correlator: top.section("correlator", Correlator::read).unwrap_or_default(),
        repo_check: top.section("repo_check", RepoCheck::read),
        dyndns: kept,
        history: top.section("history", history::Settings::read).unwrap_or_default(),
        notifier: top
            .section("notifier", |section| notify::Settings::read(section, &names))
            .unwrap_or_default(),
        state_dir: state_dir(top),
        hosts,
        secrets: Vec::new(),
    };
    check_dyndns(top, &config, &lines);
    if !names.is_empty() {
        let told = config.notification_channels_for_backups();
        notify::check_backups(top, told, speaks_of_backups(top, &config));
    }
    config
}

/// Whether the file is about backups, too. Where it only gives hosts their channels, nobody need
/// be told that backups have none.
fn speaks_of_backups(top: &Section, config: &Config) -> bool {
    let told = |host: &HostSettings| {
        host.notification_channels.as_ref().is_some_and(|channels| !channels.is_empty())
    };
    ["correlator", "repo_check", "notifier"].into_iter().any(|section| top.given(section))
        || config.receiver.poll_url.is_some()
        || config.receiver.alert_names != http::ReceiverSettings::default().alert_names
        || !config.hosts.values().any(told)
}

/// Two hosts must not fight for one name, and only what is signed moves one.
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

fn read_receiver(section: &mut Section, hosts: &Names) -> http::ReceiverSettings {
    let receiver = http::ReceiverSettings::read(section, hosts);
    if receiver.alert_names.is_empty() {
        section.warning("alert_names", "is empty: no alert is about backups, and none is told");
    }
    receiver
}

/// What the file says, else what systemd says, else the system's directory for whoever may write it,
/// else the user's own.
fn state_dir(top: &mut Section) -> PathBuf {
    const SYSTEM: &str = "/var/lib/hbd";
    if let Some(directory) = top.path("state_dir") {
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
