//! The section `dyndns`, and the key `dyndns` of a host.

use std::time::Duration;

use domain::tsig::Algorithm;
use domain::utils::base64;

use super::method::{DnsServer, Provider, UpdateMethod};
use super::{names, provider};
use crate::config_file::{FlagOrSection, Section};
use crate::tls;

/// The default connections: those that an agent names after its address family.
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];
/// How dyndns2 and DuckDNS answer that an update was made.
const EXPECTED: [&str; 3] = ["good", "nochg", "OK"];
const DAY: Duration = Duration::from_secs(24 * 3600);
const ALGORITHMS: [(&str, Algorithm); 2] =
    [("hmac-sha256", Algorithm::Sha256), ("hmac-sha512", Algorithm::Sha512)];

/// The keys that belong to one method only.
const OF_RFC2136: [&str; 7] = ["server", "port", "ttl", "key_name", "key", "key_file", "algorithm"];
const OF_HTTP: [&str; 9] = [
    "url",
    "url_file",
    "user",
    "password",
    "password_file",
    "expect",
    "refuse",
    "allow_http",
    "ca_file",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MethodKind {
    Rfc2136,
    Http,
}

/// When updates are made, retried and reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateTiming {
    /// How long a host must be seen at an address before it is written.
    pub settle: Duration,
    /// The pause after the first failure; each further failure doubles it.
    pub retry: Duration,
    /// The minimum time between two updates of one record.
    pub min_interval: Duration,
    /// A failure is reported when it has lasted for this time.
    pub report_after: Duration,
}

impl Default for UpdateTiming {
    fn default() -> UpdateTiming {
        UpdateTiming {
            settle: Duration::from_secs(30),
            retry: Duration::from_secs(30),
            min_interval: Duration::from_secs(60),
            report_after: Duration::from_secs(600),
        }
    }
}

/// The section `dyndns`, or the key of a host with this section as its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DyndnsSettings {
    /// The template of the names; none: `{host}.{zone}`, or `{host}` without a zone.
    pub name: Option<String>,
    /// The zone, without a trailing dot.
    pub zone: Option<String>,
    /// The connections whose addresses count.
    pub connections: Vec<String>,
    /// Whether addresses count that are not globally reachable.
    pub allow_private: bool,
    /// When updates are made, retried and reported.
    pub timing: UpdateTiming,
    /// How records are updated; none when the keys are not complete, which was reported.
    pub method: Option<UpdateMethod>,
    kind: Option<MethodKind>,
}

/// How the name of one host is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DyndnsEntry {
    /// Its name in the DNS, without a trailing dot.
    pub name: String,
    /// The connections whose addresses count; the first of them with an address wins.
    pub connections: Vec<String>,
    /// Whether addresses count that are not globally reachable.
    pub allow_private: bool,
    /// When updates are made, retried and reported.
    pub timing: UpdateTiming,
    /// How its records are updated.
    pub method: UpdateMethod,
}

/// The values of `method`.
const METHODS: [(&str, MethodKind); 2] =
    [("rfc2136", MethodKind::Rfc2136), ("http", MethodKind::Http)];

impl DyndnsSettings {
    /// Reads the section, or the key of a host; defaults are taken from `base`, the section of all
    /// hosts.
    pub fn read(section: &mut Section, base: Option<&DyndnsSettings>) -> DyndnsSettings {
        let kind = section.choice("method", &METHODS).or(base.and_then(|base| base.kind));
        let zone = read_zone(section).or(base.and_then(|base| base.zone.clone()));
        let settings = DyndnsSettings {
            name: section.text("name").or(base.and_then(|base| base.name.clone())),
            connections: section
                .texts("connections")
                .or(base.map(|base| base.connections.clone()))
                .unwrap_or(FAMILIES.map(String::from).into()),
            allow_private: section
                .flag("allow_private")
                .or(base.map(|base| base.allow_private))
                .unwrap_or(false),
            timing: read_timing(
                section,
                base.map_or_else(UpdateTiming::default, |base| base.timing),
            ),
            method: read_method(section, kind, zone.as_deref(), base),
            kind,
            zone,
        };
        if settings.connections.is_empty() {
            section.error("connections", "is empty: no address would ever count");
        }
        settings
    }

    /// The entry of `host` by these settings; none when they are not complete.
    ///
    /// # Errors
    /// Why there can be no name for it.
    fn entry(&self, host: &str) -> Result<Option<DyndnsEntry>, String> {
        let Some(method) = self.method.clone() else { return Ok(None) };
        let defaults = if self.zone.is_some() { "{host}.{zone}" } else { "{host}" };
        let template = self.name.as_deref().unwrap_or(defaults);
        if template.contains("{zone}") && self.zone.is_none() {
            return Err("the name wants a {zone}, and none is set".into());
        }
        let name = names::fill(template, host, self.zone.as_deref())?;
        if let UpdateMethod::Rfc2136(server) = &method
            && !names::is_within(&name, &server.zone)
        {
            return Err(format!("the name {name} is not in the zone {}", server.zone));
        }
        Ok(Some(DyndnsEntry {
            name,
            connections: self.connections.clone(),
            allow_private: self.allow_private,
            timing: self.timing,
            method,
        }))
    }
}

/// Reads the key `dyndns` of a host; `base` is the section of all hosts.
pub fn read_host(
    host: &str,
    section: &mut Section,
    base: Option<&DyndnsSettings>,
) -> Option<DyndnsEntry> {
    let own = section.flag_or_section("dyndns", |section| DyndnsSettings::read(section, base))?;
    let settings = match own {
        FlagOrSection::Flag(false) => return None,
        FlagOrSection::Section(own) => own,
        FlagOrSection::Flag(true) => match base {
            Some(base) => base.clone(),
            None => {
                section.warning(
                    "dyndns",
                    "nothing is done about it: no section dyndns says which server keeps the name",
                );
                return None;
            }
        },
    };
    settings.entry(host).unwrap_or_else(|why| {
        section.error("dyndns", why);
        None
    })
}

fn read_zone(section: &mut Section) -> Option<String> {
    let text = section.text("zone")?;
    let zone = names::to_ascii(text.strip_suffix('.').unwrap_or(&text));
    match names::validate(&zone) {
        Ok(()) => Some(zone),
        Err(why) => {
            section.error("zone", why);
            None
        }
    }
}

fn read_timing(section: &mut Section, defaults: UpdateTiming) -> UpdateTiming {
    let mut read = |key, least| section.duration_within(key, Duration::from_millis(least)..=DAY);
    UpdateTiming {
        settle: read("settle", 0).unwrap_or(defaults.settle),
        retry: read("retry", 100).unwrap_or(defaults.retry),
        min_interval: read("min_interval", 0).unwrap_or(defaults.min_interval),
        report_after: read("report_after", 0).unwrap_or(defaults.report_after),
    }
}

/// Reports keys of the other method, in clearer words than for an unknown key.
fn refuse_others(section: &mut Section, keys: &[&'static str], method: &str) {
    for key in keys {
        if section.given(key) {
            section.error(key, format!("goes with method: {method} only"));
            section.ignore(key);
        }
    }
}

/// Keys that are missing in the section of all hosts are reported there, not again for each host.
fn read_method(
    section: &mut Section,
    kind: Option<MethodKind>,
    zone: Option<&str>,
    base: Option<&DyndnsSettings>,
) -> Option<UpdateMethod> {
    let inherited = base.and_then(|base| base.method.as_ref());
    let incomplete = |kind| base.is_some_and(|base| base.kind == kind && base.method.is_none());
    let report_missing = !incomplete(kind);
    match (kind, inherited) {
        (Some(MethodKind::Rfc2136), Some(UpdateMethod::Rfc2136(server))) => {
            read_server(section, zone, Some(server), report_missing).map(UpdateMethod::Rfc2136)
        }
        (Some(MethodKind::Rfc2136), _) => {
            read_server(section, zone, None, report_missing).map(UpdateMethod::Rfc2136)
        }
        (Some(MethodKind::Http), Some(UpdateMethod::Http(provider))) => {
            read_provider(section, Some(provider), report_missing).map(UpdateMethod::Http)
        }
        (Some(MethodKind::Http), _) => {
            read_provider(section, None, report_missing).map(UpdateMethod::Http)
        }
        (None, _) => {
            if report_missing {
                section.require_choice("method", &METHODS);
            }
            section.ignore_rest();
            None
        }
    }
}

fn read_server(
    section: &mut Section,
    zone: Option<&str>,
    base: Option<&DnsServer>,
    report_missing: bool,
) -> Option<DnsServer> {
    refuse_others(section, &OF_HTTP, "http");
    if base.is_none() && report_missing {
        ["server", "key_name"].into_iter().for_each(|key| section.require(key));
        if !section.given("key_file") {
            section.require("key");
        }
    }
    if zone.is_none() && report_missing {
        section.require("zone");
    }
    let server =
        section.host("server", "a name or an address").or(base.map(|base| base.server.clone()));
    let port = section.port("port").or(base.map(|base| base.port)).unwrap_or(53);
    let ttl = section.duration_within("ttl", Duration::from_secs(1)..=7 * DAY);
    let ttl = ttl.and_then(|ttl| u32::try_from(ttl.as_secs()).ok());
    let algorithm = section.choice("algorithm", &ALGORITHMS);
    let key_name = section.text("key_name").or(base.map(|base| base.key_name.clone()));
    if let Some(why) =
        key_name.as_deref().and_then(|name| names::validate(name.trim_end_matches('.')).err())
    {
        section.error("key_name", why);
    }
    let key = section.secret("key", "key_file");
    if let Some(key) = &key
        && base64::decode::<Vec<u8>>(key.reveal()).map_or(true, |octets| octets.is_empty())
    {
        let at = if section.given("key") { "key" } else { "key_file" };
        section.error(at, "must be the key in base64, as tsig-keygen prints it behind \"secret\"");
        return None;
    }
    Some(DnsServer {
        server: server?,
        port,
        zone: zone?.to_owned(),
        ttl: ttl.or(base.map(|base| base.ttl)).unwrap_or(60),
        key_name: key_name?,
        key: key.or(base.map(|base| base.key.clone()))?,
        algorithm: algorithm.or(base.map(|base| base.algorithm)).unwrap_or(Algorithm::Sha256),
    })
}

fn check_expected(section: &Section, expect: &[String], refuse: &[String]) {
    if !section.given("expect") || !refuse.is_empty() {
        return;
    }
    for entry in expect.iter().filter(|entry| provider::tells_nothing(entry)) {
        let what = format!(
            "\"{entry}\" begins refusals, too: write on up to where they differ, or say with refuse what stands in those"
        );
        section.warning("expect", what);
    }
}

fn read_provider(
    section: &mut Section,
    base: Option<&Provider>,
    report_missing: bool,
) -> Option<Provider> {
    refuse_others(section, &OF_RFC2136, "rfc2136");
    if base.is_none() && report_missing && !section.given("url_file") {
        section.require("url");
    }
    let in_clear = section.flag("allow_http").unwrap_or(false);
    let at = if section.given("url_file") { "url_file" } else { "url" };
    let url = section.secret("url", "url_file");
    if let Some(url) = &url
        && let Err(why) = provider::validate(url.reveal(), in_clear)
    {
        section.error(at, why);
        return None;
    }
    let url = url.map(|url| provider::with_ascii_host(&url));
    let user = section.text("user").or(base.and_then(|base| base.user.clone()));
    let password =
        section.secret("password", "password_file").or(base.and_then(|base| base.password.clone()));
    if user.as_deref().is_some_and(|user| user.contains(':')) {
        section.error("user", "must not hold a colon: Basic authentication has no place for it");
    }
    if user.is_some() != password.is_some() {
        let missing = if user.is_some() { "password" } else { "user" };
        section.require(missing);
    }
    let expect = section.texts("expect").or(base.map(|base| base.expect.clone()));
    let expect = expect.unwrap_or(EXPECTED.map(String::from).into());
    let refuse = section.texts("refuse").or(base.map(|base| base.refuse.clone()));
    let refuse = refuse.unwrap_or_default();
    check_expected(section, &expect, &refuse);
    Some(Provider {
        url: url.or(base.map(|base| base.url.clone()))?,
        user,
        password,
        expect,
        refuse,
        ca_file: section
            .file_with("ca_file", tls::check_ca_file)
            .or(base.and_then(|base| base.ca_file.clone())),
    })
}
