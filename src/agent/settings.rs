//! The configuration: hbc.yaml with the options that override it, `hbc check`, and the section `agent`
//! of heartbeat.yaml.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::collect::CollectSettings;
use super::host_info;
use super::plugins::PluginSettings;
use super::server::{AddressFamily, ServerAddress, is_interface, is_link_local, is_zone};
use crate::address::is_name;
use crate::clock::format_duration;
use crate::config_file::file::{self, Program};
use crate::config_file::{Environment, Section, trim_secret};
use crate::escape;
use crate::problem::{Problem, Problems, Severity};
use crate::secret::Secret;

/// The file, unless an option or the environment names another.
const DEFAULT_FILE: &str = "/etc/hbc/hbc.yaml";
/// What hbd takes as the time between two beats (section 2 of the contract).
pub const INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(604_800);
/// hbd keeps sixteen connections of a host, and two are there without being named.
const MAX_CONNECTIONS: usize = 14;
/// More servers are a mistake.
const MAX_SERVERS: usize = 16;
/// The connections that are there without being named.
pub const FAMILIES: [(&str, AddressFamily); 2] =
    [("ipv4", AddressFamily::V4), ("ipv6", AddressFamily::V6)];

const BAD_NAME: &str = "must be 1 to 253 letters, digits, dots, dashes, underscores";
const PROGRAM: Program = Program { name: "hbc", variable: "HBC_CONFIG" };

/// What `hbc run` goes by: hbc.yaml and the options that override it.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSettings {
    /// Where hbd listens, once or more.
    pub servers: Vec<ServerAddress>,
    /// The name of this host; none is the machine's.
    pub host: Option<String>,
    /// What datagrams are signed with.
    pub key: Option<Secret>,
    /// The time between two beats.
    pub interval: Duration,
    /// Whether there is a connection for each family of addresses, in the order of [`FAMILIES`].
    pub families: [bool; 2],
    /// The connections that are named, by name.
    pub connections: BTreeMap<String, ConnectionSettings>,
    /// Which metrics of the machine are collected.
    pub metrics: CollectSettings,
    /// The directory of the plugins.
    pub metrics_dir: PathBuf,
}

impl Default for AgentSettings {
    fn default() -> AgentSettings {
        AgentSettings {
            servers: Vec::new(),
            host: None,
            key: None,
            interval: Duration::from_secs(10),
            families: [true; 2],
            connections: BTreeMap::new(),
            metrics: CollectSettings::default(),
            metrics_dir: PluginSettings::default().directory,
        }
    }
}

/// A named connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The address that it comes from.
    pub source: Option<IpAddr>,
    /// The interface that it goes through.
    pub interface: Option<String>,
    /// Where the first server is to be found over it, if that is another place.
    pub server: Option<ServerAddress>,
}

/// The options of the command line; they override the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CliOverrides {
    /// The file instead of the default one.
    pub config: Option<PathBuf>,
    /// The servers instead of those of the file.
    pub servers: Vec<ServerAddress>,
    /// The name of the host.
    pub host: Option<String>,
    /// The time between two beats.
    pub interval: Option<Duration>,
    /// The file with the key.
    pub key_file: Option<PathBuf>,
}

impl AgentSettings {
    /// Loads the file: `config`, else `$HBC_CONFIG`, else `/etc/hbc/hbc.yaml`; with what the
    /// command line says instead, and the warnings. The default file need not be there when the
    /// command line names a server.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(
        overrides: &CliOverrides,
        environment: Environment,
    ) -> Result<(AgentSettings, Problems), Problems> {
        let named =
            overrides.config.clone().or_else(|| environment("HBC_CONFIG").map(PathBuf::from));
        let file = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let optional = named.is_none() && !overrides.servers.is_empty();
        if optional && !Path::new(DEFAULT_FILE).exists() {
            return Ok((AgentSettings::default().with_overrides(overrides)?, Problems::default()));
        }
        let read = |top: &mut Section| AgentSettings::read(top, overrides);
        let loaded = file::load(&file, environment, PROGRAM, read)?;
        Ok((loaded.value.with_overrides(overrides)?, loaded.warnings))
    }

    fn with_overrides(self, overrides: &CliOverrides) -> Result<AgentSettings, Problems> {
        let key = overrides.key_file.as_deref().map(read_key).transpose().map_err(cli_error)?;
        if let Some(host) = overrides.host.as_deref().filter(|host| !is_name(host)) {
            return Err(cli_error(format!("--host: \"{host}\" {BAD_NAME}")));
        }
        let instead = (!overrides.servers.is_empty()).then(|| overrides.servers.clone());
        Ok(AgentSettings {
            servers: instead.unwrap_or(self.servers),
            host: overrides.host.clone().or(self.host),
            key: key.or(self.key),
            interval: overrides.interval.unwrap_or(self.interval),
            ..self
        })
    }

    /// The same with the name of this machine as the host, where none is given.
    ///
    /// # Errors
    /// No host can be called like this machine.
    pub fn with_machine_name(self) -> Result<AgentSettings, Problems> {
        let host = match self.host {
            Some(host) => host,
            None => machine_name()
                .map_err(|why| cli_error(format!("{why}: give host: NAME, or --host NAME")))?,
        };
        Ok(AgentSettings { host: Some(host), ..self })
    }

    fn read(top: &mut Section, overrides: &CliOverrides) -> AgentSettings {
        let defaults = AgentSettings::default();
        let servers = read_servers(top, overrides.servers.is_empty());
        let host = top.text("host");
        if host.as_deref().is_some_and(|host| !is_name(host)) {
            top.error("host", BAD_NAME);
        }
        let key = top.signing_key();
        let interval = top.duration_within("interval", INTERVAL_RANGE).unwrap_or(defaults.interval);
        let (families, connections) =
            top.section("connections", read_connections).unwrap_or_default();
        let families = if top.given("connections") { families } else { defaults.families };
        if families == [false; 2] && connections.is_empty() {
            top.error(
                "connections",
                "ipv4 and ipv6 are off and no other one is named: none is left",
            );
        }
        check_zones(top, &servers, &connections);
        let metrics = top.section("metrics", CollectSettings::read).unwrap_or_default();
        let metrics_dir = read_metrics_dir(top).unwrap_or(defaults.metrics_dir);
        AgentSettings { servers, host, key, interval, families, connections, metrics, metrics_dir }
    }
}

/// A problem of the command line.
fn cli_error(what: String) -> Problems {
    let (file, path) = ("hbc".to_owned(), String::new());
    Problems(vec![Problem { severity: Severity::Error, file, line: None, path, what }])
}

/// The key in a file that `--key-file` names.
pub(super) fn read_key(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|why| format!("--key-file: cannot read {shown}: {why}"))?;
    let line = trim_secret(&text);
    if line.is_empty() || line.contains(char::is_control) {
        return Err(format!("--key-file: {shown} must hold one line, the key, and nothing else"));
    }
    Ok(Secret::new(line))
}

/// The directory of the plugins. The default one need not be there.
fn read_metrics_dir(top: &mut Section) -> Option<PathBuf> {
    let directory = top.path("metrics_dir")?;
    match fs::metadata(&directory) {
        Ok(found) if !found.is_dir() => {
            top.error("metrics_dir", format!("{} is no directory", directory.display()));
        }
        Ok(_) => {}
        Err(why) => top.warning("metrics_dir", format!("{}: {why}", directory.display())),
    }
    Some(directory)
}

fn read_servers(top: &mut Section, needed: bool) -> Vec<ServerAddress> {
    let one = top.text("server");
    let many = top.texts("servers");
    if one.is_some() && many.is_some() {
        top.error("servers", "give either server or servers, not both");
    }
    let key = if many.is_some() { "servers" } else { "server" };
    let mut servers: Vec<ServerAddress> = Vec::new();
    for text in one.into_iter().chain(many.into_iter().flatten()) {
        match ServerAddress::parse(&text) {
            Ok(server) if servers.contains(&server) => {
                top.warning(key, format!("names {server} twice"));
            }
            Ok(server) => servers.push(server),
            Err(why) => top.error(key, why),
        }
    }
    if servers.len() > MAX_SERVERS {
        top.error(
            key,
            format!("{} servers are too many: {MAX_SERVERS} is the most", servers.len()),
        );
    }
    if needed && !top.given("servers") {
        top.require("server");
    }
    servers
}

fn read_connections(section: &mut Section) -> ([bool; 2], BTreeMap<String, ConnectionSettings>) {
    let mut families = [true; 2];
    let mut connections = BTreeMap::new();
    let expected = "must be a map, such as {source: 10.8.0.2}, or off for ipv4 and ipv6";
    let read = section.others(expected, |name, section| {
        let family = FAMILIES.iter().position(|(family, _)| *family == name);
        (family, section.map(|section| ConnectionSettings::read(name, family, section)))
    });
    for (name, (family, connection)) in read {
        match (family, connection) {
            (Some(family), None) => families[family] = false,
            (None, None) => section
                .error(&name, "only ipv4 and ipv6 can be off: what is not named here is not there"),
            (_, Some(connection)) => {
                connections.insert(name, connection);
            }
        }
    }
    if connections.len() > MAX_CONNECTIONS {
        let what = format!("more than {MAX_CONNECTIONS}, and hbd keeps 16 of a host in all");
        section.error("", what);
    }
    (families, connections)
}

/// A link-local address is one on each interface, and nothing is sent to or from it without that.
fn check_zones(
    top: &mut Section,
    servers: &[ServerAddress],
    connections: &BTreeMap<String, ConnectionSettings>,
) {
    let is_open = |server: &&ServerAddress| {
        server.host.parse().is_ok_and(is_link_local) && server.zone().is_none()
    };
    let bound = connections.values().any(|connection| connection.interface.is_some());
    for ServerAddress { host, port } in servers.iter().filter(is_open).filter(|_| !bound) {
        let key = if top.given("servers") { "servers" } else { "server" };
        top.error(key, format!("{host} must have its interface: [{host}%eth0]:{port}"));
    }
    for (name, connection) in connections {
        let towards = connection.server.iter().chain(servers);
        let is_zoned = towards.filter_map(ServerAddress::zone).count() > 0;
        if let Some(source) = connection.source.filter(|source| is_link_local(*source))
            && !(is_zoned || connection.interface.is_some())
        {
            let what = format!("{name}: the source must have its interface: {source}%eth0");
            top.error("connections", what);
        }
    }
}

impl ConnectionSettings {
    fn read(name: &str, family: Option<usize>, section: &mut Section) -> ConnectionSettings {
        if !is_name(name) || name.len() > 32 {
            section.error(
                "",
                "a connection's name must be 1 to 32 letters, digits, dots, dashes, underscores",
            );
        }
        let (source, zone) = section.text("source").map(|text| read_source(&text, section)).unzip();
        let (interface, zone) = (section.text("interface"), zone.flatten());
        if let (Some(interface), Some(zone)) = (&interface, &zone)
            && interface != zone
        {
            section.error("interface", format!("is another one than that of the source, {zone}"));
        }
        let connection = ConnectionSettings {
            source: source.flatten(),
            interface: interface.or(zone),
            server: section.text("server").and_then(|text| {
                ServerAddress::parse(&text).map_err(|why| section.error("server", why)).ok()
            }),
        };
        if connection.interface.as_ref().is_some_and(|name| !is_interface(name)) {
            section.error("interface", "must be the name of an interface, at most 15 characters");
        }
        if family.is_some() {
            section.error(
                "",
                "is there without being named: turn it off with \"off\", or take another name",
            );
        } else if !["source", "interface", "server"].iter().any(|key| section.given(key)) {
            section.error("", "give source, interface or server: what makes it another path?");
        }
        connection
    }

    /// The address family of its source.
    pub fn family(&self) -> Option<AddressFamily> {
        self.source.map(AddressFamily::of)
    }
}

/// An address of this machine, and its interface where it has one on each: `fe80::1%eth0`.
fn read_source(text: &str, section: &mut Section) -> (Option<IpAddr>, Option<String>) {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone.to_owned())),
        None => (text, None),
    };
    let source = address.parse().ok();
    if source.is_none() {
        section.error("source", format!("must be an address of this machine, not \"{text}\""));
    } else if zone.as_deref().is_some_and(|zone| !is_zone(zone, address)) {
        let what = "must be a link-local address and its interface: fe80::2%eth0";
        section.error("source", format!("\"{text}\" {what}"));
        return (None, None);
    }
    (source, zone)
}

/// The name of this machine, for a program with the option `--host`.
///
/// # Errors
/// Why it cannot be known, and the remedy.
pub(super) fn hostname() -> Result<String, String> {
    host_info::hostname().map_err(|why| format!("{why}: give --host NAME"))
}

/// `hbc check`: what to print about the file `config` (else the default one), every problem in one
/// line, and whether it can be used. With `strict` warnings count as errors; with `json` all is one
/// JSON object, which has the fields of `hbd check`.
pub fn check(config: Option<PathBuf>, strict: bool, json: bool) -> (String, bool) {
    let overrides = CliOverrides { config, ..CliOverrides::default() };
    let loaded = AgentSettings::load(&overrides, &|name| std::env::var(name).ok());
    let loaded = loaded.and_then(|(settings, warnings)| match settings.with_machine_name() {
        Ok(settings) => Ok((settings, warnings)),
        Err(problems) => Err(Problems([warnings.0, problems.0].concat())),
    });
    let (settings, problems) = match loaded {
        Ok((settings, warnings)) => (Some(settings), warnings),
        Err(problems) => (None, problems),
    };
    let valid = settings.is_some() && (!strict || problems.0.is_empty());
    if json {
        let settings = settings.unwrap_or_default();
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let answer = json!({
            "ok": valid,
            "problems": problems.0,
            "host": settings.host,
            "servers": servers,
        });
        return (escape::json(format!("{answer}\n")), valid);
    }
    let mut text: String = problems.0.iter().map(|problem| format!("{problem}\n")).collect();
    text += &settings.filter(|_| valid).map_or(String::new(), |settings| summary(&settings));
    (text, valid)
}

/// `OK: web1 beats every 10 s to hbd.example.com:9099 over ipv4, ipv6, vpn`
fn summary(settings: &AgentSettings) -> String {
    let host = settings.host.as_deref().unwrap_or_default();
    let servers: Vec<_> = settings.servers.iter().map(ToString::to_string).collect();
    let families = FAMILIES.iter().zip(settings.families).filter(|(_, enabled)| *enabled);
    let connections: Vec<&str> = families
        .map(|((name, _), _)| *name)
        .chain(settings.connections.keys().map(String::as_str))
        .collect();
    let every = format_duration(settings.interval);
    format!(
        "OK: {host} beats every {every} to {} over {}\n",
        servers.join(", "),
        connections.join(", ")
    )
}

/// Of the section `agent`. At shorter intervals the share of the processor means nothing.
const LOCAL_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The section `agent` of heartbeat.yaml when it is enabled: hbd collects the metrics of its own
/// machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAgentSettings {
    /// The host that this machine is.
    pub host: String,
    /// How often its metrics are collected.
    pub interval: Duration,
    /// Which metrics.
    pub metrics: CollectSettings,
}

impl LocalAgentSettings {
    /// Reads the section; none when it is not enabled.
    pub fn read(section: &mut Section) -> Option<LocalAgentSettings> {
        section.require("enabled");
        let enabled = section.flag("enabled").unwrap_or_default();
        let host = section.text("host");
        let interval = section.duration_within("interval", LOCAL_INTERVAL_RANGE);
        let metrics = CollectSettings::read(section);
        if let Some(host) = host.as_deref().filter(|host| !is_name(host)) {
            section.error("host", format!("\"{host}\" {BAD_NAME}"));
        }
        let machine_name = |section: &Section| {
            let refuse = |why| section.error("enabled", format!("{why}: give host"));
            machine_name().map_err(refuse).ok()
        };
        let host = if enabled { host.or_else(|| machine_name(section)) } else { None }?;
        Some(LocalAgentSettings {
            host,
            interval: interval.unwrap_or(Duration::from_secs(10)),
            metrics,
        })
    }
}

/// The name of the machine, if a host can have it; else what is wrong with it.
fn machine_name() -> Result<String, String> {
    match host_info::hostname() {
        Ok(name) if is_name(&name) => Ok(name),
        Ok(name) => Err(format!("this machine is called \"{name}\", which no host can be")),
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(text: &str) -> Result<(AgentSettings, Problems), Problems> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let config = Some(file.path().to_owned());
        AgentSettings::load(&CliOverrides { config, ..CliOverrides::default() }, &|_| None)
    }

    #[test]
    fn what_can_never_work_is_refused_in_one_go() {
        for (text, what) in [
            ("", ": server: is missing"),
            ("host: web1", ": server: is missing"),
            ("server: a b", ":1: server: \"a b\" must be a name or an address"),
            ("server: a\nservers: [b]", ":2: servers: give either server or servers, not both"),
            ("server: a\ninterval: 30d", ":2: interval: must be from 50 ms to 7 d, not 30 d"),
            ("server: a\nkey: k\nkey_file: f", ":3: key_file: give either key or key_file"),
            ("server: a\nkey_file: /nowhere/k", ":2: key_file: cannot read /nowhere/k"),
            (
                "server: a\nconnections: {vpn: {source: tun0}}",
                ":2: connections.vpn.source: must be an address of this machine, not \"tun0\"",
            ),
            (
                "server: a\nconnections: {vpn: {interface: a-very-long-name}}",
                ":2: connections.vpn.interface: must be the name of an interface",
            ),
            (
                "server: a\nconnections: {vpn: {}}",
                ":2: connections.vpn: give source, interface or server",
            ),
            (
                "server: a\nconnections: {vpn: off}",
                ":2: connections.vpn: only ipv4 and ipv6 can be off",
            ),
            (
                "server: a\nconnections: {vpn: 10.8.0.2}",
                ":2: connections.vpn: must be a map, such as {source: 10.8.0.2}",
            ),
            (
                "server: a\nconnections: {\"my vpn\": {interface: wg0}}",
                ":2: connections.my vpn: a connection's name must be 1 to 32",
            ),
            (
                "server: a\nmetrics: {without: [cpu_monitr]}",
                ":2: metrics.without: no monitor is called \"cpu_monitr\", did you mean \"cpu_monitor\"?",
            ),
            ("server: a\nmetrics_dir: /dev/null", ":2: metrics_dir: /dev/null is no directory"),
            (
                "server: \"[2001:db8::1%eth0]\"",
                ":1: server: \"[2001:db8::1%eth0]\" must be a link-local address and its interface",
            ),
            ("server: a\nmetric: {}", ":2: metric: unknown key, did you mean \"metrics\"?"),
            (
                "server: a\nconnections: {ipv4: off, ipv6: off}",
                ":2: connections: ipv4 and ipv6 are off and no other one is named",
            ),
        ] {
            let problems = load(text).unwrap_err().to_string();
            assert!(problems.contains(what), "{text}: {problems}");
        }
    }

    #[test]
    fn a_key_file_with_a_mark_or_a_blank_that_nobody_sees_held_another_key() {
        for text in ["k 1", "k 1\n", "\u{feff}k 1\r\n", "k 1 \t\n\n"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(read_key(file.path()), Ok(Secret::new("k 1")), "{text:?}");
        }
    }

    #[test]
    fn the_source_of_a_connection_may_have_a_zone() {
        let text = "server: a\nconnections: {lan: {source: \"fe80::2%eth0\"}}";
        let (settings, warnings) = load(text).unwrap();
        let lan = &settings.connections["lan"];
        assert_eq!(lan.source, Some("fe80::2".parse().unwrap()));
        assert_eq!((lan.interface.as_deref(), warnings.0.len()), (Some("eth0"), 0));
        let (_, warnings) = load("server: a\nmetrics_dir: /nonexistent").unwrap();
        assert!(warnings.to_string().contains(":2: warning: metrics_dir: /nonexistent: No such"));
    }

    #[test]
    fn a_zone_that_names_no_interface_passed_the_check() {
        for (connection, what) in [
            ("source: \"fe80::2%\"", "source: \"fe80::2%\" must be a link-local address and its"),
            ("source: \"10.8.0.2%eth0\"", "source: \"10.8.0.2%eth0\" must be a link-local address"),
            ("source: \"fe80::2%eth0:1\"", "source: \"fe80::2%eth0:1\" must be a link-local"),
            ("interface: \"eth0:1\"", "interface: must be the name of an interface"),
            (
                "source: \"fe80::2%eth0\", interface: eth1",
                "interface: is another one than that of the source, eth0",
            ),
        ] {
            let text = format!("server: a\nconnections: {{lan: {{{connection}}}}}");
            let problems = load(&text).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            let what = format!(":2: connections.lan.{what}");
            assert!(problems.to_string().contains(&what), "{problems}");
        }
        let both = "server: a\nconnections: {lan: {source: \"fe80::2%eth0\", interface: eth0}}";
        assert!(load(both).is_ok());
    }

    #[test]
    fn a_link_local_address_without_its_interface_passed_the_check() {
        let lan = |what: &str| format!("\nconnections: {{lan: {{{what}}}}}");
        for (text, what) in [
            (
                "server: \"[fe80::1]:7\"".into(),
                ":1: server: fe80::1 must have its interface: [fe80::1%eth0]:7",
            ),
            ("servers: [a, \"fe80::1\"]".into(), ":1: servers: fe80::1 must have its interface"),
            (
                "server: a".to_owned() + &lan("source: \"fe80::2\""),
                ":2: connections: lan: the source must have its interface: fe80::2%eth0",
            ),
        ] {
            let problems = load(&text).unwrap_err();
            assert_eq!(problems.0.len(), 1, "{problems}");
            assert!(problems.to_string().contains(what), "{problems}");
        }
        for text in [
            "server: \"fe80::1\"".to_owned() + &lan("interface: eth0"),
            "server: \"fe80::1%eth0\"".to_owned() + &lan("source: \"fe80::2\""),
            "server: a".to_owned() + &lan("source: \"fe80::2\", server: \"fe80::1%eth0\""),
        ] {
            assert!(load(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"servers: [a, b]\nhost: web1\ninterval: 1m\nkey: k\n").unwrap();
        let mut overrides =
            CliOverrides { config: Some(file.path().to_owned()), ..CliOverrides::default() };
        let (settings, _) = AgentSettings::load(&overrides, &|_| None).unwrap();
        assert_eq!(settings.servers.len(), 2);
        overrides.servers = vec![ServerAddress::parse("c:7").unwrap()];
        overrides.host = Some("web2".into());
        overrides.interval = Some(Duration::from_secs(5));
        let (settings, _) = AgentSettings::load(&overrides, &|_| None).unwrap();
        assert_eq!(settings.servers, overrides.servers);
        assert_eq!(settings.host, overrides.host);
        assert_eq!(settings.interval, Duration::from_secs(5));
        assert_eq!(settings.key, Some(Secret::new("k")));
        overrides.config = None;
        let other = file.path().to_str().unwrap().to_owned();
        let (settings, _) =
            AgentSettings::load(&overrides, &|name| (name == "HBC_CONFIG").then(|| other.clone()))
                .unwrap();
        assert_eq!(settings.key, Some(Secret::new("k")));
    }

    #[test]
    fn the_example_is_sound_but_for_its_key() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/hbc.yaml");
        let overrides = CliOverrides { config: Some(file.into()), ..CliOverrides::default() };
        let problems = AgentSettings::load(&overrides, &|_| None).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert!(problems.to_string().contains("key_file: cannot read "));
        let text = std::fs::read_to_string(file).unwrap();
        // All that is commented out holds, too.
        let text = text.replace("key_file: secrets/key", "").replace("\n#", "\n");
        let keys = [
            "server:",
            "host:",
            "interval:",
            "connections:",
            "  vpn:",
            "  lte:",
            "  ipv6:",
            "metrics:",
            "  without:",
            "  excluded_",
            "metrics_dir:",
        ];
        let lines = text.lines().filter(|line| keys.iter().any(|key| line.starts_with(key)));
        let (settings, _) =
            load(&lines.fold(String::new(), |all, line| all + line + "\n")).unwrap();
        assert_eq!(settings.connections.len(), 2);
        assert_eq!(settings.families, [true, false]);
        assert_eq!(settings.metrics.disabled.len(), 2);
        assert_eq!(settings.metrics_dir, PluginSettings::default().directory);
    }
}
