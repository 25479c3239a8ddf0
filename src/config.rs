//! The configuration: composes the features' sections, and finds all that is wrong in one go.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::backup::settings::{Correlator, RepoCheck};
use crate::heartbeat::settings::{HostSettings, read_hosts};
use crate::heartbeat::threshold::ThresholdSet;
use crate::heartbeat::{settings as heartbeat, threshold_config};
use crate::history::settings as history;
use crate::notify::channel::Definition;
use crate::notify::direct::Notifier;
use crate::notify::settings as notify;
use crate::problem::{Problem, Problems, Severity};
use crate::secret::Secret;
use crate::section::{Environment, Names, Reading, Section, open_to_others};
use crate::web::settings as web;
use crate::yaml;

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
    /// The UDP side.
    pub heartbeat: heartbeat::Settings,
    /// The HTTP side.
    pub receiver: web::Settings,
    /// Where the truth about backups is.
    pub correlator: Correlator,
    /// How repositories are asked; none means not at all.
    pub repo_check: Option<RepoCheck>,
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
        let file = file.as_ref();
        let refused = |line, what| {
            let file = file.display().to_string();
            let path = String::new();
            Problems(vec![Problem { severity: Severity::Error, file, line, path, what }])
        };
        let (text, data) = contents(file).map_err(|(line, what)| refused(line, what))?;
        let root = yaml::parse(&text).map_err(|refusal| refused(refusal.line, refusal.what))?;
        let reading = Reading::new(file, environment);
        let mut config = reading.read(&root, read);
        if reading.holds_secrets() && open_to_others(&data) {
            let what =
                format!("holds secrets and others can read it: chmod o-r {}", file.display());
            reading.report(Severity::Warning, None, String::new(), what);
        }
        config.file = file.to_owned();
        config.secrets = reading.secrets();
        config.warnings = reading.problems();
        if config.warnings.has_errors() { Err(config.warnings) } else { Ok(config) }
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

/// The text of a file and its metadata, or the line and what is wrong with it.
fn contents(file: &Path) -> Result<(String, Metadata), (Option<usize>, String)> {
    let read = || -> std::io::Result<(Vec<u8>, Metadata)> {
        let open = File::open(file)?;
        let data = open.metadata()?;
        let mut bytes = Vec::new();
        open.take(yaml::LONGEST as u64 + 4).read_to_end(&mut bytes)?;
        Ok((bytes, data))
    };
    let (bytes, data) = read().map_err(|error| (None, unreadable(&error)))?;
    if bytes.len() > yaml::LONGEST {
        return Err((None, yaml::TOO_LONG.into()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, data)),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err((Some(line), "is not UTF-8 text here: save the file as UTF-8".into()))
        }
    }
}

fn unreadable(error: &std::io::Error) -> String {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => ": name another one with --config or $HBD_CONFIG",
        std::io::ErrorKind::PermissionDenied => ": let the user that runs hbd read it",
        _ => "",
    };
    format!("cannot be read ({error}){remedy}")
}

fn read(top: &mut Section) -> Config {
    let names: Names = top.names_in("notification_channels");
    let channels = notify::read_channels(top);
    let default_channels =
        top.names("default_notification_channels", "channel", &names).unwrap_or_default();
    let own_threshold_sets = top.names_in("threshold_configs").len();
    let threshold_sets = threshold_config::read(top);
    let sets: Names = threshold_sets.keys().cloned().collect();
    let hosts = read_hosts(top, &names, &default_channels, &sets);
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
        heartbeat: top
            .section("heartbeat", |section| heartbeat::Settings::read(section, &hosts))
            .unwrap_or_default(),
        receiver: top
            .section("receiver", |section| read_receiver(section, &host_names))
            .unwrap_or_default(),
        correlator: top.section("correlator", Correlator::read).unwrap_or_default(),
        repo_check: top.section("repo_check", RepoCheck::read),
        history: top.section("history", history::Settings::read).unwrap_or_default(),
        notifier: top
            .section("notifier", |section| notify::Settings::read(section, &names))
            .unwrap_or_default(),
        state_dir: state_dir(top),
        hosts,
        secrets: Vec::new(),
    };
    if !names.is_empty() {
        notify::check_backups(top, config.notification_channels_for_backups());
    }
    config
}

fn read_receiver(section: &mut Section, hosts: &Names) -> web::Settings {
    let receiver = web::Settings::read(section, hosts);
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
    let variable = |name| top.reading().variable(name).filter(|value| !value.is_empty());
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
