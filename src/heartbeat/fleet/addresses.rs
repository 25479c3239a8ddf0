//! The addresses that names in the DNS follow. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Fleet;
use crate::clock::{Now, Wall};

impl Fleet {
    /// Records the address of a connection that a datagram has proven
    /// ([`super::Ingested::proven_address`]); some when it is another one than before.
    pub fn track_address(
        &mut self,
        (host_index, connection): &ConnectionId,
        from: IpAddr,
    ) -> Option<AddressChange> {
        let address = from.to_canonical();
        let key = (*host_index, Arc::clone(connection), address.is_ipv6());
        if self.addresses.reported.insert(key, address) == Some(address) {
            return None;
        }
        let host = &self.hosts[*host_index as usize];
        Some(AddressChange {
            host: host.name.as_ref().into(),
            connection: connection.as_ref().into(),
            address,
        })
    }
}

/// A host whose name in the DNS follows its address sends from another one than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressChange {
    /// The host.
    pub host: String,
    /// The connection.
    pub connection: String,
    /// Where its datagram came from; v4-mapped addresses are IPv4.
    pub address: IpAddr,
}

/// A connection of the fleet: the index of its host, and its name.
pub type ConnectionId = (u32, Arc<str>);

/// The addresses that names in the DNS follow, as they were last reported.
#[derive(Debug, Default)]
pub struct AddressTracker {
    /// The last addresses, by connection and whether they are of IPv6.
    pub(super) reported: HashMap<(u32, Arc<str>, bool), IpAddr>,
    /// When the daemon began to listen.
    started_at: Wall,
}

impl AddressTracker {
    /// Nothing is reported yet.
    pub fn new(now: Now) -> AddressTracker {
        AddressTracker { started_at: now.wall, ..AddressTracker::default() }
    }

    /// Every address is reported anew: the indexes of hosts may have changed.
    pub fn clear(&mut self) {
        self.reported.clear();
    }

    /// Whether a datagram that was signed at `time`, in microseconds, is from before the start. It may
    /// have been received then, and that be lost in a crash: an attacker could send it again. A start
    /// in the future shows that it was our clock that was wrong.
    pub fn predates_start(&self, time: i64, now: Now) -> bool {
        self.started_at <= now.wall && time / 1000 < self.started_at.0
    }
}
