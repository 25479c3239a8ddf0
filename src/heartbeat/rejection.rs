//! Why a datagram may be refused. Pure.

use std::fmt;

/// Why a datagram was not believed. It is counted by [`name`](Rejection::name), never an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// More than 8,192 bytes.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Not a JSON object, or not a signature and one.
    NotJson,
    /// A field that breaks its limits; the text says which and what it must be.
    BadField(&'static str),
    /// A host that is not configured, while unknown ones are ignored.
    UnknownHost,
    /// No signature, though there is a key for this host.
    Unsigned,
    /// A signature that is wrong, or that no key is known for.
    BadSignature,
    /// Its time is further off than `clock_skew`.
    Stale,
    /// Its time is not later than that of an earlier one.
    Replay,
    /// One more unknown host than `max_unknown_hosts`.
    TooManyHosts,
    /// One more connection than a host may have.
    TooManyConnections,
    /// More metrics than a host may have.
    TooManyMetrics,
    /// It could not be taken in time (said by the HTTP side, for one that is to be repeated).
    Busy,
}

impl Rejection {
    /// One of each, for counters that begin at zero.
    pub const ALL: [Rejection; 13] = [
        Rejection::TooLong,
        Rejection::NotUtf8,
        Rejection::NotJson,
        Rejection::BadField("a field breaks its limits"),
        Rejection::UnknownHost,
        Rejection::Unsigned,
        Rejection::BadSignature,
        Rejection::Stale,
        Rejection::Replay,
        Rejection::TooManyHosts,
        Rejection::TooManyConnections,
        Rejection::TooManyMetrics,
        Rejection::Busy,
    ];

    /// The label of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Rejection::TooLong => "too_long",
            Rejection::NotUtf8 => "not_utf8",
            Rejection::NotJson => "not_json",
            Rejection::BadField(_) => "bad_field",
            Rejection::UnknownHost => "unknown_host",
            Rejection::Unsigned => "unsigned",
            Rejection::BadSignature => "bad_signature",
            Rejection::Stale => "stale",
            Rejection::Replay => "replay",
            Rejection::TooManyHosts => "too_many_hosts",
            Rejection::TooManyConnections => "too_many_connections",
            Rejection::TooManyMetrics => "too_many_metrics",
            Rejection::Busy => "busy",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Rejection::TooLong => "longer than 8192 bytes",
            Rejection::NotUtf8 => "not UTF-8",
            Rejection::NotJson => "not a JSON object",
            Rejection::BadField(what) => what,
            Rejection::UnknownHost => "the host is not configured",
            Rejection::Unsigned => "not signed, though there is a key for this host",
            Rejection::BadSignature => {
                "the signature is wrong, or there is no key to check it with"
            }
            Rejection::Stale => "its time is too far from ours",
            Rejection::Replay => "its time is not later than that of an earlier datagram",
            Rejection::TooManyHosts => "there are too many unknown hosts already",
            Rejection::TooManyConnections => "the host has too many connections already",
            Rejection::TooManyMetrics => "more than 512 metrics",
            Rejection::Busy => "it could not be taken in time",
        })
    }
}

impl std::error::Error for Rejection {}
