//! What the web asks the daemon for. Pure.

use std::net::IpAddr;

use super::metrics::Figures;
use crate::snapshot::HostView;

/// The daemon, as the web knows it. Called from several threads at once.
pub trait House: Send + Sync {
    /// Whether the daemon does its work; else what keeps it from it.
    fn ready(&self) -> Result<(), String>;

    /// At most `count` hosts, beginning with the one at index `from`; none means that there are
    /// no more. The order stays from call to call and newcomers come last: a list is read in
    /// several calls, and a host that appeared twice in it would spoil a scrape.
    fn hosts(&self, from: usize, count: usize) -> Vec<HostView>;

    /// The host of that name.
    fn host(&self, name: &str) -> Option<HostView>;

    /// A datagram that came over HTTP. Returns when what it caused is stored.
    fn hear(&self, body: &[u8], peer: IpAddr) -> Answer;

    /// The figures of `/metrics`.
    fn figures(&self) -> Figures;
}

/// What became of a datagram that came over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was accepted, and what it caused is stored.
    Stored,
    /// It is no datagram.
    Malformed(String),
    /// It has no signature where one is needed.
    Unsigned(String),
    /// Its signature is wrong, or its time is.
    Forbidden(String),
    /// Its host is not known here.
    UnknownHost(String),
    /// It could not be stored; it should be sent again later.
    Unavailable(String),
}
