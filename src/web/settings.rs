//! The section `receiver`: the HTTP side.

use crate::address::{is_host, is_loopback};
use crate::secret::Secret;
use crate::section::Section;

/// The section `receiver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address to listen on.
    pub host: String,
    /// The TCP port to listen on.
    pub port: u16,
    /// What clients must show; needed beyond loopback.
    pub token: Option<Secret>,
    /// The alerts that are about backups, by `alertname`.
    pub alert_names: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: "127.0.0.1".into(),
            port: 9099,
            token: None,
            alert_names: ["NsBackupFailed", "NsBackupMissing", "BackupFailed"]
                .map(String::from)
                .into(),
        }
    }
}

impl Settings {
    /// Reads the section.
    pub fn read(section: &mut Section) -> Settings {
        let usual = Settings::default();
        let settings = Settings {
            host: section.text("host").unwrap_or(usual.host),
            port: section.listen_port("port").unwrap_or(usual.port),
            token: section.secret("token", "token_file"),
            alert_names: section.texts("alert_names").unwrap_or(usual.alert_names),
        };
        let host = &settings.host;
        let guarded = section.given("token") || section.given("token_file");
        if !is_host(host) {
            section.error("host", format!("\"{host}\" cannot be an address"));
        } else if !is_loopback(host) && !guarded {
            let what = format!("{host} is reachable from outside: set token or token_file");
            section.error("host", what);
        }
        settings
    }
}
