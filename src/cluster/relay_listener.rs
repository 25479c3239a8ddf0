//! What the relay is given, and what it tells of the other nodes.

use std::net::IpAddr;
use std::sync::Arc;

use super::connection::Connector;
use crate::clock::Mono;

/// Redis' clock minus the monotonic one of this machine, in milliseconds; none while it is not known.
pub type ClockOffset = Arc<dyn Fn() -> Option<i64> + Send + Sync>;

/// Whose datagrams are relayed, and where.
#[derive(Clone)]
pub struct RelayOptions {
    /// How Redis is reached.
    pub connector: Connector,
    /// The channel: [`super::keys::Keys::beats`].
    pub channel: String,
    /// This node.
    pub node: String,
    /// This process of it.
    pub incarnation: String,
    /// The cluster's clock.
    pub offset: ClockOffset,
}

/// When a connection of a host was heard last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardConnection {
    /// The host.
    pub host: String,
    /// Its connection.
    pub connection: String,
    /// When, by the clock of this machine.
    pub at: Mono,
    /// The time in its last signed datagram, microseconds since 1970; 0 without one.
    pub signed: i64,
}

/// What is told of the other nodes' receivers. Called on one thread; all times are of this machine's
/// clock.
pub trait RelayListener: Send + Sync {
    /// What is relayed comes in from now on; what was relayed since the last time did not.
    fn subscribed(&self, _at: Mono) {}
    /// A batch of a node comes in that was begun at `at`. It is not `complete` when others of the same
    /// process before it did not.
    fn arrived(&self, _node: &str, _at: Mono, _is_complete: bool) {}
    /// A node received a datagram at `at`.
    fn beat(&self, node: &str, datagram: &[u8], peer: IpAddr, at: Mono);
    /// A part of a round of the leader's last-heard times.
    fn last_heard(&self, node: &str, part: RelayedPart, connections: &[HeardConnection]);
    /// What a node received between these times did not arrive, or it received nothing.
    fn gap(&self, node: &str, from: Mono, to: Mono);
    /// Nothing comes from a node any more, since then.
    fn lost(&self, node: &str, since: Mono);
    /// After [`RelayListener::lost`]: it comes again.
    fn back(&self, node: &str, at: Mono);
}

/// Which part of which round it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedPart {
    /// Counts the rounds of the node.
    pub round: u32,
    /// From 0.
    pub part: u16,
    /// How many the round has.
    pub parts: u16,
    /// When the round was begun.
    pub began: Mono,
}
