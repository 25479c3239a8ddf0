//! What of a host survives a restart. Pure.
//!
//! Unknown fields are ignored and missing ones have a default, so that old stores load.

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};
use crate::event::Level;
use crate::heartbeat::connection::Connection;
pub use crate::heartbeat::connection::Grant;
use crate::heartbeat::gauge::Gauge;
use crate::heartbeat::host::Host;
use crate::heartbeat::presence::Known;
use crate::view::State;

/// The last moment at which a daemon is known to have listened.
///
/// It must never be later than the flush that its rows come from: a beat that was heard after that
/// flush is lost in a crash, and must count as one that could not be heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The kernel's boot id at that time: whether its monotonic clock is still ours.
    pub kernel_boot: String,
    /// That moment.
    pub now: Now,
}

/// A host as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Which boot of the kernel the monotonic times are of, in short; 0 when that is not known.
    pub kernel: u32,
    /// When it was first configured, or first heard.
    pub configured: Wall,
    /// Since when it is in its state.
    pub since: Wall,
    /// It was reported as never heard.
    #[serde(skip_serializing_if = "is_false")]
    pub reported: bool,
    /// Its machine was told to stop.
    #[serde(skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// Something of it is overdue that nobody was told of, since it was not watched.
    #[serde(skip_serializing_if = "is_false")]
    pub unwatched: bool,
    /// The id of the boot that is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The id of the boot before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_boot_id: Option<String>,
    /// When its last boot was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted: Option<Mono>,
    /// Whether that boot had an id.
    #[serde(skip_serializing_if = "is_false")]
    pub named: bool,
    /// Its connections, in order.
    pub connections: Vec<ConnectionRow>,
    /// Its metrics that are not OK, or beyond a limit, if not yet for long enough.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertRow>,
}

/// A connection as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionRow {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// A boot told that its trouble is over, but it was not heard since.
    #[serde(skip_serializing_if = "is_false")]
    pub covered: bool,
    /// How often its postponed deadline was shifted.
    #[serde(skip_serializing_if = "is_zero")]
    pub shifts: u8,
    /// What it promised last, in milliseconds; 0 when it never said.
    pub interval: u32,
    /// Since when it is in its state.
    pub since: Wall,
    /// When it was last heard.
    pub seen: Now,
    /// The time in its last signed datagram, microseconds since 1970.
    pub signed: i64,
    /// The tag of the key that it was signed with.
    #[serde(skip_serializing_if = "is_nil")]
    pub key: u32,
    /// The deadline that was granted after blindness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<Grant>,
    /// Where its last datagram came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A metric that is not OK, or beyond a limit, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertRow {
    /// Its path.
    pub path: String,
    /// Its last value.
    pub value: f64,
    /// Its level.
    pub level: Level,
    /// Since when it is at that level.
    pub since: Wall,
    /// When that was last told.
    pub told: Now,
    /// Since when its value is beyond the limit of WARNING, where that must last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning_since: Option<Mono>,
    /// Since when it is beyond that of CRITICAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_since: Option<Mono>,
    /// People were told that it is missing.
    #[serde(skip_serializing_if = "is_false")]
    pub missing: bool,
    /// The connection that brought it last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub over: String,
    /// When it comes.
    pub known: Known,
}

impl Default for ConnectionRow {
    fn default() -> ConnectionRow {
        ConnectionRow {
            name: String::new(),
            state: State::New,
            covered: false,
            shifts: 0,
            interval: 0,
            since: Wall::default(),
            seen: Now::default(),
            signed: 0,
            key: 0,
            granted: None,
            address: None,
        }
    }
}

impl Default for AlertRow {
    fn default() -> AlertRow {
        AlertRow {
            path: String::new(),
            value: 0.0,
            level: Level::Ok,
            since: Wall::default(),
            told: Now::default(),
            warning_since: None,
            critical_since: None,
            missing: false,
            over: String::new(),
            known: Known::default(),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_nil(tag: &u32) -> bool {
    *tag == 0
}

fn is_zero(count: &u8) -> bool {
    *count == 0
}

impl Row {
    /// The row of a host, on the monotonic clock of `kernel`.
    pub(super) fn of(host: &Host, kernel: u32) -> Row {
        let boots = host.boots.as_deref();
        let overdue = host.connections.iter().any(|c| c.state == State::Overdue);
        Row {
            kernel,
            configured: host.configured,
            since: host.since,
            reported: host.reported,
            leaving: host.leaving,
            unwatched: overdue && !host.profile.watch,
            boot_id: boots.map(|boots| boots.current.as_ref().into()),
            previous_boot_id: boots.and_then(|boots| boots.previous.as_deref()).map(Into::into),
            booted: host.booted,
            named: host.named,
            connections: host.connections.iter().map(ConnectionRow::of).collect(),
            alerts: host.gauges.iter().filter_map(|gauge| AlertRow::of(gauge, host)).collect(),
        }
    }
}

impl ConnectionRow {
    fn of(connection: &Connection) -> ConnectionRow {
        ConnectionRow {
            name: connection.name.as_ref().into(),
            state: connection.state,
            covered: connection.covered,
            shifts: connection.shifts,
            interval: connection.interval,
            since: connection.since,
            seen: connection.seen,
            signed: connection.signed,
            key: connection.key,
            granted: connection.granted,
            address: connection.address.map(|address| address.to_string()),
        }
    }
}

impl AlertRow {
    fn of(gauge: &Gauge, host: &Host) -> Option<AlertRow> {
        let watched = gauge.watched.as_deref()?;
        let lasting = !watched.rule.hold.is_zero();
        let (warning_since, critical_since) =
            if lasting { watched.standing.waits() } else { (None, None) };
        if gauge.alert().is_none() && warning_since.is_none() && critical_since.is_none() {
            return None;
        }
        let over = host.connections.get(gauge.presence.over());
        let heard = over.map_or(watched.told.mono, |connection| connection.seen.mono);
        Some(AlertRow {
            path: gauge.path.as_ref().into(),
            value: gauge.value,
            level: watched.standing.level,
            since: watched.since,
            told: watched.told,
            warning_since,
            critical_since,
            missing: watched.missing,
            over: over.map(|connection| connection.name.as_ref().into()).unwrap_or_default(),
            known: gauge.presence.known(heard),
        })
    }
}
