//! The methods of updating a DNS record, and the errors of an update. Pure.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use domain::tsig::Algorithm;

use super::names::RecordFamily;
use crate::secret::Secret;

/// How a record is updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateMethod {
    /// A DNS server takes updates (RFC 2136).
    Rfc2136(DnsServer),
    /// A provider takes an HTTP request.
    Http(Provider),
}

/// A DNS server that takes updates of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// Its name or address.
    pub server: String,
    /// Its TCP port.
    pub port: u16,
    /// The zone, without a trailing dot.
    pub zone: String,
    /// How long resolvers may cache the address, in seconds.
    pub ttl: u32,
    /// The name of the TSIG key (RFC 8945) that may update it.
    pub key_name: String,
    /// That key, in base64.
    pub key: Secret,
    /// The algorithm of its signatures.
    pub algorithm: Algorithm,
}

/// A provider that takes HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The URL template; it may hold a token.
    pub url: Secret,
    /// The user, for Basic authentication.
    pub user: Option<String>,
    /// The password, likewise.
    pub password: Option<Secret>,
    /// The first words of answers that mean success, or their beginnings.
    pub expect: Vec<String>,
    /// What stands in answers that mean refusal, whatever else they say.
    pub refuse: Vec<String>,
    /// Further certificate authorities.
    pub ca_file: Option<PathBuf>,
}

/// A name and the addresses that are to be written to its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The host, as the configuration names it.
    pub host: String,
    /// Its name in the DNS.
    pub name: String,
    /// The addresses to write, one of each family at most.
    pub addresses: Vec<IpAddr>,
    /// All known addresses, also of a family that did not change.
    pub known: Vec<IpAddr>,
}

impl UpdateRequest {
    /// The known address of a family.
    pub fn known(&self, family: RecordFamily) -> Option<IpAddr> {
        self.known.iter().copied().find(|address| RecordFamily::of(*address) == family)
    }
}

/// Why an update failed, by what follows from it. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// Retried with the usual pauses.
    Unreachable(String),
    /// Retried, but not before this time has passed.
    Busy(String, Duration),
    /// Needs a repair, here or at the server; retried with long pauses.
    Refused(String),
    /// Needs a repair, and the provider counts further attempts as abuse: retried once a day.
    Forbidden(String),
}

impl UpdateError {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            UpdateError::Unreachable(why)
            | UpdateError::Busy(why, _)
            | UpdateError::Refused(why)
            | UpdateError::Forbidden(why) => why,
        }
    }
}

impl UpdateMethod {
    /// The name of the method in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            UpdateMethod::Rfc2136(_) => "rfc2136",
            UpdateMethod::Http(_) => "http",
        }
    }

    /// The server or provider as it may be shown: `192.0.2.1 port 53`, `https://dns.example`.
    pub fn server_label(&self) -> String {
        match self {
            UpdateMethod::Rfc2136(server) => format!("{} port {}", server.server, server.port),
            UpdateMethod::Http(provider) => provider.server_label(),
        }
    }

    /// The families whose records it updates.
    pub fn families(&self) -> &'static [RecordFamily] {
        match self {
            UpdateMethod::Rfc2136(_) => &RecordFamily::ALL,
            UpdateMethod::Http(provider) => provider.families(),
        }
    }

    /// Whether one attempt updates the records of both families.
    pub fn updates_both_families(&self) -> bool {
        match self {
            UpdateMethod::Rfc2136(_) => true,
            UpdateMethod::Http(provider) => !provider.one_address_per_request(),
        }
    }
}
