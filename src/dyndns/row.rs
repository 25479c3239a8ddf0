//! What the store keeps of a name. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::method::Method;
use super::names::Family;
use super::settings::Entry;
use crate::clock::Wall;

/// A name, under its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The name in the DNS.
    pub name: String,
    /// Whom it was written to.
    pub place: String,
    /// By which configuration.
    pub fingerprint: String,
    /// Its records.
    pub records: BTreeMap<Family, RecordRow>,
    /// Why they cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureRow>,
    /// Until when the provider wants to be left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Wall>,
}

/// The records of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordRow {
    /// What they should hold.
    pub wanted: Option<IpAddr>,
    /// What they hold.
    pub sent: Option<IpAddr>,
    /// Since when, when it was written by us.
    pub at: Option<Wall>,
}

/// A failure that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureRow {
    /// Since when.
    pub since: Wall,
    /// When it was last tried.
    pub at: Wall,
    /// Why.
    pub why: String,
    /// Whether somebody has to mend something.
    pub refused: bool,
    /// Whether people were told.
    pub told: bool,
}

/// Tells one configuration of a name from another without telling its secrets.
pub fn fingerprint(entry: &Entry) -> String {
    let mut text = format!("{entry:?}");
    let secrets = match &entry.method {
        Method::Rfc2136(server) => vec![&server.key],
        Method::Http(provider) => provider.password.iter().chain([&provider.url]).collect(),
    };
    for secret in secrets {
        // Writing to a text cannot fail.
        let _ = write!(text, "\0{}", secret.reveal());
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    crate::escape::hex(&digest.as_ref()[..8])
}
