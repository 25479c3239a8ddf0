//! Where a host's signed datagrams come from, told when that changes: its name in the DNS may
//! have to follow. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::{Now, Wall};
use crate::heartbeat::fleet::Fleet;

/// A host whose name follows its address was heard from another one than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The host.
    pub host: String,
    /// The connection.
    pub connection: String,
    /// Where its datagram came from; v4-mapped addresses are IPv4.
    pub address: IpAddr,
}

/// A connection of a host, by its place and its name.
pub type Path = (u32, Arc<str>);

/// What was told.
#[derive(Debug, Default)]
pub struct Moves {
    /// The last addresses, by connection and whether they are of IPv6.
    told: HashMap<(u32, Arc<str>, bool), IpAddr>,
    /// When the daemon began to listen.
    begun: Wall,
}

impl Moves {
    /// Nothing was told yet.
    pub fn begin(now: Now) -> Moves {
        Moves { begun: now.wall, ..Moves::default() }
    }

    /// Everything is told anew: the places may have changed.
    pub fn forget(&mut self) {
        self.told.clear();
    }

    /// Whether a datagram that was signed at `time`, in microseconds, is from before the start. It
    /// may have been heard then, and that have been forgotten in a crash: somebody may send it
    /// again. A start in the future shows that it was our clock that was wrong.
    pub fn is_old(&self, time: i64, now: Now) -> bool {
        self.begun <= now.wall && time / 1000 < self.begun.0
    }
}

impl Fleet {
    /// Takes note of the address that a datagram came from which [`hear`](Fleet::hear) has vouched
    /// for; what there is to tell when it is another one.
    pub fn moved(&mut self, (index, connection): &Path, from: IpAddr) -> Option<Moved> {
        let address = from.to_canonical();
        let key = (*index, Arc::clone(connection), address.is_ipv6());
        if self.moves.told.insert(key, address) == Some(address) {
            return None;
        }
        let host = &self.hosts[*index as usize];
        Some(Moved {
            host: host.name.as_ref().into(),
            connection: connection.as_ref().into(),
            address,
        })
    }
}
