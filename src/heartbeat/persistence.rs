//! The rows of hosts in the store, and how hosts are restored from them, whatever the clocks did
//! meanwhile. Pure.
//!
//! The names of the fields of rows are those on disk, in JSON: they stay. Unknown fields are ignored
//! and missing ones have a default, so that old stores load.

use std::num::NonZeroI64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, Incident, Level};
use crate::heartbeat::blindness::{Blindness, ReceiverSet};
use crate::heartbeat::boots::BootIds;
use crate::heartbeat::clocks::ClockMapping;
pub use crate::heartbeat::clocks::{LastAlive, kernel_tag};
use crate::heartbeat::connection::{Connection, Extension};
use crate::heartbeat::datagram::MAX_METRICS;
use crate::heartbeat::goodbye::Goodbye;
use crate::heartbeat::host::untold::{Untold, UntoldRow};
use crate::heartbeat::host::{Host, LastBoot, MAX_CONNECTIONS};
use crate::heartbeat::metric::{Freshness, Metric, PresenceRow};
use crate::heartbeat::settings::{Interner, Profile, SharedSettings};
use crate::heartbeat::threshold::ThresholdState;
use crate::store::{Table, Write};
use crate::view::HostState;

/// A host as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostRow {
    /// Which boot of the kernel the monotonic times are of, in short; 0 when that is not known.
    pub kernel: u32,
    /// When it was first configured, or first seen.
    pub configured: Wall,
    /// Since when it is in its state.
    pub since: Wall,
    /// It was reported as never seen.
    #[serde(skip_serializing_if = "is_false")]
    pub reported: bool,
    /// Its machine was told to stop: the next boot is announced.
    #[serde(skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// Something is wrong with it, and it is not watched: that it is down was not reported.
    #[serde(skip_serializing_if = "is_false")]
    pub unwatched: bool,
    /// The id of the boot that is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The id of the boot before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_boot_id: Option<String>,
    /// The ids of the boots before that one, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier_boot_ids: Vec<String>,
    /// It was reported that two machines beat under its name.
    #[serde(skip_serializing_if = "is_false")]
    pub two_machines: bool,
    /// Its announced shutdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goodbye: Option<Goodbye>,
    /// All that it was heard over is forgotten.
    #[serde(skip_serializing_if = "is_false")]
    pub forgotten: bool,
    /// When its last boot was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted: Option<Mono>,
    /// Whether that boot had an id.
    #[serde(skip_serializing_if = "is_false")]
    pub named: bool,
    /// The number of the storm that it belongs to.
    #[serde(skip_serializing_if = "is_no_storm")]
    pub storm: u16,
    /// What it is reached through explains that it is down, or never beat.
    #[serde(skip_serializing_if = "is_false")]
    pub behind: bool,
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
    /// Its state.
    pub state: HostState,
    /// It is down, but a boot of its host closed its incident.
    #[serde(skip_serializing_if = "is_false")]
    pub covered: bool,
    /// How often its extension was shifted without a proof that the daemon listened.
    #[serde(skip_serializing_if = "is_zero")]
    pub shifts: u8,
    /// The interval in its last datagram that named one, in milliseconds; 0 when none did.
    pub interval: u32,
    /// Since when it is in its state.
    pub since: Wall,
    /// The same by the monotonic clock, in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entered: Option<Mono>,
    /// The nodes that it is heard through, where there are several: `hb1,hb2`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub receivers: String,
    /// When its last beat or shutdown was received.
    pub seen: Now,
    /// The time in its last signed datagram, microseconds since 1970.
    pub signed: i64,
    /// What the clock of the host was ahead of the monotonic one of `kernel` then, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<NonZeroI64>,
    /// The id of the key that it was signed with.
    #[serde(skip_serializing_if = "is_nil")]
    pub key: u32,
    /// The extension of its deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<Extension>,
    /// Where its last datagram came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The event that waits, that it is overdue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untold: Option<Box<UntoldRow>>,
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
    /// When an event of that was last made.
    pub told: Now,
    /// How many reminders there were since it is at that level.
    #[serde(skip_serializing_if = "is_zero")]
    pub reminded: u8,
    /// Since when its value is beyond the limit of WARNING, where that must last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning_since: Option<Mono>,
    /// Since when it is beyond that of CRITICAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_since: Option<Mono>,
    /// Since when its value would have its level come down, where that must last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_since: Option<Mono>,
    /// Since when it would have it come down to OK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleared_since: Option<Mono>,
    /// It was reported as missing.
    #[serde(skip_serializing_if = "is_false")]
    pub missing: bool,
    /// The text that came with its last value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The connection that brought it last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub over: String,
    /// When it was received.
    pub known: PresenceRow,
}

impl Default for ConnectionRow {
    fn default() -> ConnectionRow {
        ConnectionRow {
            name: String::new(),
            state: HostState::New,
            covered: false,
            shifts: 0,
            interval: 0,
            since: Wall::default(),
            entered: None,
            receivers: String::new(),
            seen: Now::default(),
            signed: 0,
            ahead: None,
            key: 0,
            granted: None,
            address: None,
            untold: None,
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
            reminded: 0,
            warning_since: None,
            critical_since: None,
            lower_since: None,
            cleared_since: None,
            missing: false,
            text: None,
            over: String::new(),
            known: PresenceRow::default(),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_nil(tag: &u32) -> bool {
    *tag == 0
}

fn is_no_storm(number: &u16) -> bool {
    *number == 0
}

fn is_zero(count: &u8) -> bool {
    *count == 0
}

impl HostRow {
    /// The row of a host, on the monotonic clock of `kernel`, with the names of its receivers.
    pub(super) fn of(host: &Host, kernel: u32, receivers: &Blindness) -> HostRow {
        let connections = host.connections.iter();
        let boots = host.boot_ids.as_deref();
        let earlier = boots.into_iter().flat_map(BootIds::earlier);
        let mut earlier = earlier.map(|id| id.as_ref().into());
        HostRow {
            kernel,
            configured: host.configured_since,
            since: host.since,
            reported: host.never_seen_reported,
            leaving: host.stop_announced,
            unwatched: !host.profile.watch && host.has_open_incident(),
            boot_id: boots.map(|boots| boots.current.as_ref().into()),
            previous_boot_id: earlier.next(),
            earlier_boot_ids: earlier.collect(),
            two_machines: boots.is_some_and(BootIds::two_machines_reported),
            goodbye: host.goodbye.as_deref().copied(),
            forgotten: host.forgotten,
            booted: host.last_boot.map(|boot| boot.at),
            named: host.last_boot.is_some_and(|boot| boot.has_id),
            storm: host.storm(),
            behind: host.is_behind(),
            connections: connections.map(|c| ConnectionRow::of(c, host, receivers)).collect(),
            alerts: host.metrics.iter().filter_map(|metric| AlertRow::of(metric, host)).collect(),
        }
    }
}

impl ConnectionRow {
    fn of(connection: &Connection, host: &Host, receivers: &Blindness) -> ConnectionRow {
        ConnectionRow {
            name: connection.name.as_ref().into(),
            state: connection.state,
            covered: connection.recovery_presumed,
            shifts: connection.extension_count,
            interval: connection.interval,
            since: connection.since,
            entered: receivers.own().map(|_| connection.entered_at),
            receivers: receivers.names(connection.receivers.bits()),
            seen: connection.last_seen,
            signed: connection.last_signed_at,
            ahead: connection.clock_offset,
            key: connection.key_id,
            granted: connection.extension,
            address: connection.address.map(|address| address.to_string()),
            untold: host.untold(&connection.name).map(|untold| Box::new(untold.to_row())),
        }
    }
}

impl AlertRow {
    fn of(metric: &Metric, host: &Host) -> Option<AlertRow> {
        let alert = metric.alert_state.as_deref()?;
        let lasting = !alert.rule.for_duration.is_zero();
        let (warning_since, critical_since) =
            if lasting { alert.threshold.pending_since() } else { (None, None) };
        if metric.alert().is_none() && warning_since.is_none() && critical_since.is_none() {
            return None;
        }
        let (lower_since, cleared_since) = alert.threshold.way_back();
        let over = host.connections.get(metric.freshness.connection());
        let last_seen =
            over.map_or(alert.last_notified.mono, |connection| connection.last_seen.mono);
        Some(AlertRow {
            path: metric.path.as_ref().into(),
            value: metric.value,
            level: alert.threshold.level,
            since: alert.since,
            told: alert.last_notified,
            reminded: alert.reminders,
            warning_since,
            critical_since,
            lower_since,
            cleared_since,
            missing: alert.reported_missing,
            text: metric.text.as_deref().cloned(),
            over: over.map(|connection| connection.name.as_ref().into()).unwrap_or_default(),
            known: metric.freshness.to_row(last_seen),
        })
    }
}

/// The longest interval that a datagram may name, in milliseconds.
const MAX_INTERVAL_MILLIS: u32 = 604_800_000;

/// Restores a host from its row; with it the events that waited and are recorded only, that it is no
/// longer watched, and the incidents that are closed without an event, since what they are about is no
/// longer configured.
pub fn restore_host(
    name: Arc<str>,
    row: HostRow,
    profile: Arc<Profile>,
    clocks: &ClockMapping,
    common: &SharedSettings,
    (names, receivers): (&mut Interner, &mut Blindness),
) -> (Host, Vec<Event>, Vec<Incident>) {
    let now = clocks.now();
    let mut host = Host::new(name, profile.clone(), now);
    host.never_seen_reported = row.reported;
    host.stop_announced = row.leaving;
    host.forgotten = row.forgotten;
    host.set_behind(row.behind);
    host.goodbye = row.goodbye.map(|goodbye| {
        Box::new(Goodbye { at: clocks.translate(row.kernel, goodbye.at), ..goodbye })
    });
    host.boot_ids = row.boot_id.map(|current| {
        let earlier = row.previous_boot_id.into_iter().chain(row.earlier_boot_ids).collect();
        Box::new(BootIds::restore(&current, earlier, row.two_machines, now.mono))
    });
    let booted = row.booted.zip(clocks.known_offset(row.kernel));
    host.last_boot = booted.map(|(booted, offset)| LastBoot {
        at: Mono(booted.0.saturating_add(offset)).min(now.mono),
        has_id: row.named,
    });
    for mut stored in row.connections.into_iter().take(MAX_CONNECTIONS) {
        if host.connection_index(&stored.name).is_none() {
            let untold = stored.untold.take();
            let offset = clocks.offset(row.kernel, stored.seen);
            let both = (&mut *names, &mut *receivers);
            let connection = restore_connection(stored, row.kernel, &profile, clocks, common, both);
            if let Some(row) = untold.filter(|_| connection.state == HostState::Overdue) {
                let untold = Untold::restore(*row, &host.name, &connection, offset, now);
                host.hold(connection.name.clone(), untold);
            }
            host.connections.push(connection);
        }
    }
    host.connections.shrink_to_fit();
    host.update_state(now);
    host.since = row.since;
    host.restore_silence(row.storm, now);
    restore_configured_since(&mut host, row.configured, now);
    let untold = host.with_untold();
    let mut events = host.drop_unexpected(&profile);
    let mut closed = host.refresh_internal_connections(now);
    if row.unwatched && profile.watch {
        closed.extend(host.reset_untold(common, now));
        host.must_store_now = true;
    }
    for stored in row.alerts.into_iter().take(MAX_METRICS) {
        closed.extend(restore_alert(&mut host, stored, row.kernel, clocks, names));
    }
    let untold = (!row.unwatched).then_some(&*untold);
    let unwatched = host.on_unwatched(&profile, &closed, untold, now);
    host.must_store_now |= unwatched.is_some();
    events.extend(unwatched);
    (host, events, closed)
}

fn restore_configured_since(host: &mut Host, configured: Wall, now: Now) {
    host.configured_since = configured;
    if !configured.is_plausible() {
        // Configured while the clock was not set yet: it must not look ages old. That must be
        // stored, or each start would begin to count anew.
        host.configured_since = now.wall;
        host.must_store_now = now.wall.is_plausible();
    }
}

/// Restores a metric of a host; the incident that is closed when its rule is gone.
fn restore_alert(
    host: &mut Host,
    row: AlertRow,
    kernel: u32,
    clocks: &ClockMapping,
    names: &mut Interner,
) -> Option<Incident> {
    let now = clocks.now();
    let connection = host.connection_index(&row.over);
    let last_seen = connection.map_or(now.mono, |index| host.connections[index].last_seen.mono);
    // Rows of earlier versions do not say when it was received.
    let at = if row.known.at == Wall::default() { row.since } else { row.known.at };
    let freshness = Freshness::restore(
        PresenceRow { at, ..row.known },
        connection.unwrap_or(usize::MAX),
        last_seen,
    );
    let path = names.intern(&row.path);
    let mut metric = Metric::new(path, row.value, freshness, &host.profile, now);
    metric.text = row.text.map(Box::new);
    let mut closed = None;
    match metric.alert_state.as_deref_mut() {
        Some(alert) if alert.rule.allows(row.level) => {
            if row.level >= Level::Warning {
                alert.threshold = ThresholdState::new(row.level);
                alert.since = row.since;
                alert.last_notified = clocks.translate(kernel, row.told);
                alert.reminders = row.reminded;
                alert.reported_missing = row.missing;
            }
            if host.state == HostState::Up {
                let since = |since| clocks.resume_pending(kernel, since, alert.rule.for_duration);
                let (warning, critical) = (since(row.warning_since), since(row.critical_since));
                alert.threshold.restore_pending(warning, critical);
                let since = |since| clocks.resume_pending(kernel, since, alert.rule.clear_for);
                let (lower, cleared) = (since(row.lower_since), since(row.cleared_since));
                alert.threshold.restore_way_back(lower, cleared);
            }
        }
        Some(_) | None if row.level >= Level::Warning => {
            closed = Some(Incident::Metric { host: host.name.as_ref().into(), metric: row.path });
        }
        Some(_) | None => {}
    }
    host.metrics.push(metric);
    closed
}

fn restore_connection(
    row: ConnectionRow,
    kernel: u32,
    profile: &Profile,
    clocks: &ClockMapping,
    common: &SharedSettings,
    (names, receivers): (&mut Interner, &mut Blindness),
) -> Connection {
    let offset = clocks.offset(kernel, row.seen);
    let mut connection = Connection::new(names.intern(&row.name), clocks.now());
    connection.state = row.state;
    connection.recovery_presumed = row.covered;
    connection.extension_count = row.shifts;
    connection.interval = row.interval.min(MAX_INTERVAL_MILLIS);
    connection.since = row.since;
    connection.last_seen = clocks.translate(kernel, row.seen);
    let entered = row.entered.unwrap_or(row.seen.mono + row.since.since(row.seen.wall));
    connection.entered_at = Mono(entered.0.saturating_add(offset)).min(clocks.now().mono);
    connection.last_signed_at = row.signed;
    connection.clock_offset =
        row.ahead.zip(clocks.running_offset(kernel)).and_then(|(ahead, by)| {
            NonZeroI64::new(ahead.get().saturating_sub(by.saturating_mul(1000)))
        });
    connection.key_id = row.key;
    connection.receivers = ReceiverSet::from_bits(receivers.bits(&row.receivers));
    connection.address = row.address.and_then(|address| address.parse().ok());
    // No deadline is later than it would be after a beat at this moment, whatever the row says.
    let latest = clocks.now().mono + connection.expectation(profile, common).timeout();
    let extension = row.granted.map(|extension| Extension {
        from: Mono(extension.from.0.saturating_add(offset)),
        until: Mono(extension.until.0.saturating_add(offset)).min(latest),
    });
    let whole = Extension { from: clocks.now().mono, until: latest };
    let has_deadline = row.state == HostState::Up || row.covered;
    let unknown = has_deadline && (!clocks.is_continued() || (row.covered && extension.is_none()));
    connection.extension = if unknown { Some(whole) } else { extension };
    connection
}

/// The row of a host by its name.
pub fn host_row((name, row): &(String, HostRow)) -> Write {
    Write::put(Table::Hosts, name.clone(), row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::fleet::Fleet;
    use crate::heartbeat::test_fleet::{BEGIN, config, set};
    use crate::heartbeat::threshold::Rule;

    /// The row of a host as earlier versions wrote it: with every field.
    const STORED: &str = r#"{
        "kernel": 7, "configured": 1795000000000, "since": 1795291000000, "reported": true,
        "leaving": true, "unwatched": true, "boot_id": "b2", "previous_boot_id": "b1",
        "booted": 9000000, "named": true,
        "connections": [{
            "name": "ipv4", "state": "OVERDUE", "covered": true, "shifts": 2, "interval": 10000,
            "since": 1795291000001, "seen": {"mono": 9000001, "wall": 1795291000002},
            "signed": 1795291000000003, "key": 4711,
            "granted": {"from": 9000004, "until": 9000005}, "address": "192.0.2.1"
        }],
        "alerts": [{
            "path": "m", "value": 95.5, "level": "critical", "since": 1795291000006,
            "told": {"mono": 9000007, "wall": 1795291000008}, "reminded": 3,
            "warning_since": 9000009,
            "critical_since": 9000010, "missing": true, "over": "ipv4",
            "known": {"at": 1795291000011, "absent": 12, "every": 13, "samples": 14}
        }]
    }"#;

    #[test]
    fn the_names_on_disk_stay() {
        let stored: serde_json::Value = serde_json::from_str(STORED).unwrap();
        let row: HostRow = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&row).unwrap(), stored);
        let last_alive = r#"{"kernel_boot":"k","now":{"mono":1,"wall":2}}"#;
        let read: LastAlive = serde_json::from_str(last_alive).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), last_alive);
    }

    #[test]
    fn a_row_of_an_earlier_version_is_restored() {
        let row: HostRow = serde_json::from_str(STORED).unwrap();
        let mut config = config();
        let limit = |text: &str| text.parse().ok();
        let rule = Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() };
        config.threshold_sets.insert("default".into(), set("m", rule));
        let rows = [("web1".to_owned(), HostRow { unwatched: false, ..row.clone() })];
        let last_alive = LastAlive { kernel_boot: "k".into(), now: BEGIN, offset: None };
        let fleet = Fleet::restore(config, rows, Some(last_alive), BEGIN, "k");
        let view = fleet.view("web1").unwrap();
        let connection = &view.connections[0];
        assert_eq!((view.state, &*connection.name), (HostState::Overdue, "ipv4"));
        assert_eq!(connection.address.as_deref(), Some("192.0.2.1"));
        assert_eq!((view.metrics[0].value, view.metrics[0].level), (95.5, Some(Level::Critical)));
        let again = fleet.row("web1").unwrap();
        assert_eq!(again.boot_id, row.boot_id);
        assert_eq!(
            (again.connections[0].signed, again.connections[0].key),
            (1795291000000003, 4711)
        );
        assert_eq!((again.alerts[0].since, again.alerts[0].missing), (Wall(1795291000006), true));
        assert_eq!(again.alerts[0].known.samples, 14);
    }
}
