//! How much memory a host takes: of those that are not configured the sum is limited. Pure.

use super::Host;
use crate::heartbeat::connection::Connection;
use crate::heartbeat::metric::Metric;

/// What a host takes beside itself and its name: its place in the index by name and in the list of hosts
/// to be stored, and that the lists of all hosts grow in steps.
const HOST_BYTES: usize = 112;
/// What a connection takes beside itself: its entries among the deadlines.
const CONNECTION_BYTES: usize = 56;

/// How many bytes a host takes; the names of its connections and metrics, which hosts share, left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// For what its beats are known by.
    pub beats: u32,
    /// For its metrics.
    pub metrics: u32,
}

impl HostMemory {
    /// Both.
    pub fn total(self) -> usize {
        self.beats as usize + self.metrics as usize
    }
}

impl Host {
    /// How many bytes it takes at present.
    pub fn measure(&self) -> HostMemory {
        let connections =
            self.connections.capacity() * (size_of::<Connection>() + CONNECTION_BYTES);
        let boots = self.boot_ids.as_deref().map_or(0, |boots| boots.size());
        let goodbye = self.goodbye.as_deref().map_or(0, size_of_val);
        let own = size_of::<Host>() + HOST_BYTES + self.name.len();
        let metrics = self.metrics.capacity() * size_of::<Metric>();
        let small = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        HostMemory { beats: small(own + connections + boots + goodbye), metrics: small(metrics) }
    }
}
