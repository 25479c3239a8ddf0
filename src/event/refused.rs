//! What is said of beats that are refused: why a host is silent although it sends. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Wall;

/// Datagrams under the name of a host that were refused since one of it was last accepted. Anybody may
/// have sent them: they change nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedBeats {
    /// The name that they bear.
    pub host: String,
    /// Where the last one came from.
    pub from: String,
    /// What was wrong with that, in words.
    pub why: String,
    /// How many there were.
    pub count: u64,
    /// When the first of them came.
    pub since: Wall,
}

/// As a sentence: `beats that say they are db1 come from 10.77.0.12 and are refused: bad signature, 50
/// times since 2026-11-21 22:31:04 UTC`.
impl fmt::Display for RefusedBeats {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let RefusedBeats { host, from, why, count, since } = self;
        let since = since.local();
        write!(f, "beats that say they are {host} come from {from} and are refused: {why}, ")?;
        match count {
            1 => write!(f, "once, at {since}"),
            count => write!(f, "{count} times since {since}"),
        }
    }
}
