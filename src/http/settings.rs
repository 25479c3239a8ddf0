//! The section `receiver`: address, token and certificate of the HTTP server, and the alerts that
//! it takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::client_address::TrustedProxies;
use super::front::certificate::{CertificateError, ServerCertificate, TlsSettings};
use super::poll_url;
use crate::address::{BaseUrl, NO_HEADER_TEXT, is_header_text, is_loopback};
use crate::clock::Now;
use crate::config_file::{NameSet, Section, open_to_others};
use crate::secret::Secret;

/// The section `receiver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverSettings {
    /// The address to listen on.
    pub host: String,
    /// The TCP port to listen on.
    pub port: u16,
    /// Where people reach the status page, without a trailing slash: messages link to it.
    pub public_url: Option<String>,
    /// What clients must show; needed beyond loopback.
    pub token: Option<Secret>,
    /// The certificate that clients are shown; none means plain HTTP.
    pub tls: Option<TlsSettings>,
    /// The proxies whose word about their clients is taken.
    pub trusted_proxies: TrustedProxies,
    /// The groups of hosts that everybody is shown, without the token; none: nobody.
    pub public_groups: Vec<String>,
    /// The alerts that are about backups, by `alertname`.
    pub alert_names: Vec<String>,
    /// An Alertmanager that is polled for its alerts: `http://127.0.0.1:9093`.
    pub poll_url: Option<String>,
    /// How often it is polled.
    pub poll_interval: Duration,
    /// The alerts that count as heartbeats, by `alertname`: of which host each is one.
    pub heartbeat_alerts: BTreeMap<String, String>,
}

impl Default for ReceiverSettings {
    fn default() -> ReceiverSettings {
        ReceiverSettings {
            host: "127.0.0.1".into(),
            port: 9099,
            public_url: None,
            token: None,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            public_groups: Vec::new(),
            alert_names: ["NsBackupFailed", "NsBackupMissing", "BackupFailed", "backup_failed"]
                .map(String::from)
                .into(),
            poll_url: None,
            poll_interval: Duration::from_secs(30),
            heartbeat_alerts: BTreeMap::new(),
        }
    }
}

impl ReceiverSettings {
    /// Reads the section; `hosts` are the names under `hosts`, and `groups` those that they are in.
    pub fn read(section: &mut Section, hosts: &NameSet, groups: &NameSet) -> ReceiverSettings {
        let intervals = Duration::from_secs(5)..=Duration::from_secs(3600);
        let usual = ReceiverSettings::default();
        let settings = ReceiverSettings {
            host: section.host("host", "an address").unwrap_or(usual.host),
            port: section.listen_port("port").unwrap_or(usual.port),
            public_url: read_public_url(section),
            token: section.secret("token", "token_file"),
            tls: section.section("tls", read_tls).flatten(),
            trusted_proxies: read_trusted_proxies(section),
            public_groups: section
                .section("public", |section| read_public(section, groups))
                .unwrap_or_default(),
            alert_names: section.texts("alert_names").unwrap_or(usual.alert_names),
            poll_url: read_poll_url(section),
            poll_interval: section
                .duration_within("poll_interval", intervals)
                .unwrap_or(usual.poll_interval),
            heartbeat_alerts: section.names_by_key("heartbeat_alerts", "host", hosts),
        };
        settings.check_alerts(section);
        settings.check_host(section);
        settings.check_token(section);
        settings
    }

    /// Reads only what a client needs: where the server is, its token and its certificate.
    pub fn read_for_client(section: &mut Section) -> ReceiverSettings {
        let usual = ReceiverSettings::default();
        let settings = ReceiverSettings {
            host: section.host("host", "an address").unwrap_or(usual.host),
            port: section.listen_port("port").unwrap_or(usual.port),
            token: section.secret("token", "token_file"),
            tls: section.section("tls", read_tls).flatten(),
            ..usual
        };
        section.ignore_rest();
        settings
    }

    /// An alert is bad news or a sign of life: its end would be taken for both.
    fn check_alerts(&self, section: &Section) {
        for name in self.heartbeat_alerts.keys().filter(|name| self.alert_names.contains(name)) {
            let what = format!("\"{name}\" is in alert_names, too: it can be only one of them");
            section.error("heartbeat_alerts", what);
        }
    }

    fn check_token(&self, section: &Section) {
        if self.token.as_ref().is_some_and(|token| !is_header_text(token.reveal())) {
            let key = if section.given("token") { "token" } else { "token_file" };
            section.error(key, NO_HEADER_TEXT);
        }
    }

    fn check_host(&self, section: &Section) {
        let host = &self.host;
        let guarded = section.given("token") || section.given("token_file");
        if !is_loopback(host) && !guarded {
            let what = format!("{host} is reachable from outside: set token or token_file");
            section.error("host", what);
        } else if !is_loopback(host) && !section.given("tls") {
            let what = format!(
                "{host} is reachable from outside, and the token crosses the network in clear: set tls"
            );
            section.warning("host", what);
        }
    }
}

/// None when it is wrong, which is reported.
fn read_tls(section: &mut Section) -> Option<TlsSettings> {
    ["certificate_file", "key_file"].into_iter().for_each(|key| section.require(key));
    let (certificate_file, key_file) = (section.path("certificate_file"), section.path("key_file"));
    let (certificate_file, key_file) = (certificate_file?, key_file?);
    let certificate = match ServerCertificate::load(&certificate_file, &key_file) {
        Ok(certificate) => certificate,
        Err(CertificateError::Certificate(what)) => {
            section.error("certificate_file", what);
            return None;
        }
        Err(CertificateError::Key(what)) => {
            section.error("key_file", what);
            return None;
        }
    };
    for warning in certificate.warnings(Now::read().wall) {
        section.warning("certificate_file", warning);
    }
    if std::fs::metadata(&key_file).is_ok_and(|data| open_to_others(&data)) {
        let name = key_file.display();
        section.warning("key_file", format!("others can read {name}: chmod o-r {name}"));
    }
    Some(TlsSettings { certificate_file, key_file, certificate: Arc::new(certificate) })
}

fn read_public(section: &mut Section, groups: &NameSet) -> Vec<String> {
    section.require("groups");
    let shown = section.names("groups", "group", groups).unwrap_or_default();
    if shown.is_empty() && section.given("groups") {
        section.error("groups", "must name a group: leave public out to show nothing");
    }
    shown
}

fn read_trusted_proxies(section: &mut Section) -> TrustedProxies {
    let texts = section.texts("trusted_proxies").unwrap_or_default();
    let mut ranges = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(what) => section.error("trusted_proxies", what),
        }
    }
    TrustedProxies(ranges)
}

fn read_public_url(section: &mut Section) -> Option<String> {
    let text = section.text("public_url")?;
    let what = match text.contains("://") {
        true => BaseUrl::parse(&text),
        false => Err(format!("must begin with https:// or http://: https://{text}")),
    };
    what.map(|url| url.text).map_err(|what| section.error("public_url", what)).ok()
}

fn read_poll_url(section: &mut Section) -> Option<String> {
    let text = section.text("poll_url")?;
    let url = poll_url::parse(&text).map_err(|what| section.error("poll_url", what)).ok()?;
    if let Some(what) = poll_url::warning(&url) {
        section.warning("poll_url", what);
    }
    Some(url)
}
