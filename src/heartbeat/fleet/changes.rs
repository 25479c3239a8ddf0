//! What the fleet returns: what a datagram caused, and what the passing of time or a new configuration
//! did. Pure.

use std::fmt;

use crate::event::{Event, EventKind, Incident, MAX_LISTED, WatchEvent};
use crate::heartbeat::fleet::ConnectionId;
use crate::heartbeat::fleet::storm::StormRow;
use crate::heartbeat::persistence::{HostRow, host_row};
use crate::store::Change;

/// What an accepted datagram caused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ingested {
    /// In order.
    pub events: Vec<Event>,
    /// The hosts that changed in a way that must be stored together with the events; empty for a
    /// plain beat.
    pub rows: Vec<(String, HostRow)>,
    /// The answer, when one was asked for.
    pub ack: Option<Vec<u8>>,
    /// The earliest deadline became earlier: the deadline thread must re-arm.
    pub rearm: bool,
    /// Incidents that are closed without an event.
    pub closed_incidents: Vec<Incident>,
    /// Its host, when others are reached through it and it is no longer down.
    pub parents_up: Vec<String>,
    /// Hosts that are down, or never beat, and that nothing explains any more.
    pub not_behind: Vec<String>,
    /// While keys are being changed: which one it was signed with.
    pub key_usage: Option<KeyUsage>,
    /// The first metric that cannot be used, of a host that sent none before.
    pub left_out: Option<String>,
    /// The connection, when the datagram proves that its host is where it came from: it is signed,
    /// new, and the host's name follows its address.
    pub proven_address: Option<ConnectionId>,
}

/// Which of two keys a connection signs with, while its host has two: reported when that is the
/// previous one, and when it no longer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyUsage {
    /// The host.
    pub host: String,
    /// The connection.
    pub connection: String,
    /// It is the previous one.
    pub previous: bool,
}

impl fmt::Display for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let KeyUsage { host, connection, previous } = self;
        let how =
            if *previous { "still signs with the previous key" } else { "signs with its new key" };
        write!(f, "{host} {connection} {how}")
    }
}

/// What the passing of time, or a new configuration, caused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// In order.
    pub events: Vec<Event>,
    /// The hosts that changed, to be stored together with the events.
    pub rows: Vec<(String, HostRow)>,
    /// The hosts that are no longer known: their rows are to be removed.
    pub removed_hosts: Vec<String>,
    /// Incidents that are closed without an event: their rule or host is no longer configured.
    pub closed_incidents: Vec<Incident>,
    /// The row of the storm, where that changed; none within: it is to be removed.
    pub storm: Option<Option<StormRow>>,
    /// The nodes of which it was told that hosts are heard by nobody, where that changed.
    pub receivers: Option<Vec<String>>,
    /// Hosts that others are reached through, and that are no longer down or no longer expected.
    pub parents_up: Vec<String>,
    /// Hosts that are down, or never beat, and that nothing explains any more.
    pub not_behind: Vec<String>,
}

impl Changes {
    /// Whether there is nothing to store and nothing to report.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// The hosts that are followed no longer though something is wrong with them, in sentences.
    pub fn unwatched(&self) -> Vec<String> {
        let hosts: Vec<&String> = self
            .events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Watch(WatchEvent::NoLonger { host, .. }) => Some(host),
                _ => None,
            })
            .collect();
        let sentence = |host: &&String| {
            format!("{host} is no longer watched, which whoever was told of its trouble hears")
        };
        let named = hosts.iter().take(MAX_LISTED).map(sentence);
        let more = hosts.len().saturating_sub(MAX_LISTED);
        let more = (more > 0).then(|| format!("and {more} more hosts that were in trouble"));
        named.chain(more).collect()
    }
}

/// What is to be stored; none for a plain beat.
pub fn change_of(ingested: Ingested) -> Option<Change> {
    let Ingested { events, rows, closed_incidents, parents_up, not_behind, .. } = ingested;
    let changed = [events.is_empty(), rows.is_empty(), closed_incidents.is_empty()];
    let plain = changed == [true; 3] && parents_up.is_empty() && not_behind.is_empty();
    (!plain).then(|| Change {
        writes: rows.iter().map(host_row).collect(),
        events,
        closed_silently: closed_incidents,
        parents_up,
        not_behind,
        ..Change::default()
    })
}
