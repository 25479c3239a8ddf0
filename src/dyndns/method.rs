//! The ways to change a name, and how an attempt may end. Pure.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use domain::tsig::Algorithm;

use super::names::RecordFamily;
use crate::secret::Secret;

/// How a name is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateMethod {
    /// A DNS server takes updates (RFC 2136).
    Rfc2136(DnsServer),
    /// A provider takes a request over HTTP.
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
    /// How long others may remember the address, in seconds.
    pub ttl: u32,
    /// The name of the key that may change it.
    pub key_name: String,
    /// That key, in base64.
    pub key: Secret,
    /// What it signs by.
    pub algorithm: Algorithm,
}

/// A provider that takes requests over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The address, with placeholders; it may hold a token.
    pub url: Secret,
    /// The user, for Basic authentication.
    pub user: Option<String>,
    /// The password, likewise.
    pub password: Option<Secret>,
    /// The first words of answers that mean that it was done.
    pub expect: Vec<String>,
    /// Further certificate authorities.
    pub ca_file: Option<PathBuf>,
}

/// What is written under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The host, as it is called here.
    pub host: String,
    /// Its name in the DNS.
    pub name: String,
    /// The addresses to write, one of each family at most.
    pub addresses: Vec<IpAddr>,
    /// All that are known, also of the family that did not change.
    pub known: Vec<IpAddr>,
}

impl UpdateRequest {
    /// The known address of a family.
    pub fn known(&self, family: RecordFamily) -> Option<IpAddr> {
        self.known.iter().copied().find(|address| RecordFamily::of(*address) == family)
    }
}

/// Why an attempt failed, and what follows from it. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// Trying again may help.
    Unreachable(String),
    /// Trying again may help, but not before so long.
    Busy(String, Duration),
    /// Somebody has to mend something, here or there. It is tried again now and then.
    Refused(String),
    /// The same, and the provider counts further attempts as abuse.
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
    /// As the configuration calls it.
    pub fn name(&self) -> &'static str {
        match self {
            UpdateMethod::Rfc2136(_) => "rfc2136",
            UpdateMethod::Http(_) => "http",
        }
    }

    /// Whom it talks to, fit to be shown: a server, or a scheme and a host.
    pub fn server_label(&self) -> String {
        match self {
            UpdateMethod::Rfc2136(server) => format!("{} port {}", server.server, server.port),
            UpdateMethod::Http(provider) => provider.server_label(),
        }
    }

    /// Of these families it changes records.
    pub fn families(&self) -> &'static [RecordFamily] {
        match self {
            UpdateMethod::Rfc2136(_) => &RecordFamily::ALL,
            UpdateMethod::Http(provider) => provider.families(),
        }
    }

    /// Whether one attempt changes the records of both families.
    pub fn updates_both_families(&self) -> bool {
        match self {
            UpdateMethod::Rfc2136(_) => true,
            UpdateMethod::Http(provider) => !provider.one_address_per_request(),
        }
    }
}
