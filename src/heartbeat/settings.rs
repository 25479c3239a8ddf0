//! The sections `heartbeat` and `hosts` of the configuration. Pure.

use std::time::Duration;

use crate::secret::Secret;

/// What to do with a datagram of a host that is not under `hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownHosts {
    /// Count it and say so once.
    Ignore,
    /// Track and show the host; it is never notified, since it is not watched.
    Accept,
}

/// The section `heartbeat`: the UDP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address to listen on.
    pub host: String,
    /// The UDP port to listen on.
    pub port: u16,
    /// The key of all hosts that have none of their own.
    pub key: Option<Secret>,
    /// How often a host beats that does not say so itself.
    pub interval: Duration,
    /// How late a beat may be; none means max(2 x interval, 30 s).
    pub grace: Option<Duration>,
    /// How far the `time` of a signed datagram may be off.
    pub clock_skew: Duration,
    /// What to do with hosts that are not configured.
    pub unknown_hosts: UnknownHosts,
    /// At most so many of them are kept.
    pub max_unknown_hosts: usize,
    /// Needed to listen beyond loopback without a key.
    pub accept_unsigned: bool,
    /// A watched host that was never heard is reported after this time; zero turns it off.
    pub new_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: "127.0.0.1".into(),
            port: 9099,
            key: None,
            interval: Duration::from_secs(10),
            grace: None,
            clock_skew: Duration::from_secs(300),
            unknown_hosts: UnknownHosts::Ignore,
            max_unknown_hosts: 100_000,
            accept_unsigned: false,
            new_timeout: Duration::from_secs(24 * 3600),
        }
    }
}

/// One entry of the section `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// The name of its threshold set.
    pub threshold_config: String,
    /// Whether its heartbeat events are notified.
    pub watch: bool,
    /// Its channels; none means the default ones.
    pub notification_channels: Option<Vec<String>>,
    /// Whether its name in the DNS follows its address.
    pub dyndns: bool,
    /// Its own key; a host that has one is never believed without a signature.
    pub key: Option<Secret>,
    /// Overrides what the host says.
    pub interval: Option<Duration>,
    /// Overrides the common grace.
    pub grace: Option<Duration>,
}

impl Default for HostSettings {
    fn default() -> HostSettings {
        HostSettings {
            threshold_config: "default".into(),
            watch: false,
            notification_channels: None,
            dyndns: false,
            key: None,
            interval: None,
            grace: None,
        }
    }
}
