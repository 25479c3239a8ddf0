//! The monitor as one of several receivers: it says what it has received, and takes what others have.

use std::net::IpAddr;
use std::sync::Arc;

use super::{DatagramSource, Monitor, MonitorState};
use crate::clock::{Mono, Now};
use crate::heartbeat::datagram::{DatagramKind, ReceivedDatagram, Rejection};
use crate::heartbeat::event_limits::Load;
use crate::heartbeat::fleet::change_of;
use crate::heartbeat::last_beats::LastHeard;
use crate::store::change::{Change, InboxEntry};

/// A datagram that was believed.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedDatagram<'a> {
    /// As it was received.
    pub bytes: &'a [u8],
    /// Where it came from.
    pub from: IpAddr,
    /// Whether that is where the host is; over HTTP it may be a proxy's.
    pub is_direct: bool,
    /// When it was received.
    pub now: Now,
    /// It is no plain beat, or shows a boot.
    pub is_news: bool,
}

/// Called with each datagram that was believed, while nothing is locked.
pub type OnAccepted = Arc<dyn Fn(&AcceptedDatagram) + Send + Sync>;

/// What is to be added to the monotonic clock to get that of the cluster, in milliseconds; none while it
/// is not known.
pub type ClusterOffset = Box<dyn Fn() -> Option<i64> + Send + Sync>;

/// A datagram that another node has received, and checked.
#[derive(Clone, Copy, Debug)]
pub struct RelayedDatagram<'a> {
    /// As it was received.
    pub bytes: &'a [u8],
    /// Where it came from.
    pub from: IpAddr,
    /// Whether that is where the host is; over HTTP it may be a proxy's.
    pub is_direct: bool,
    /// The node.
    pub receiver: &'a str,
    /// When it received it, on our clocks.
    pub at: Now,
}

impl Monitor {
    /// Calls `listener` with each plain beat that is believed from now on. There is one listener: a second
    /// one is not called.
    pub fn on_accepted(&self, listener: OnAccepted) {
        // An error means that there is one already.
        let _ = self.accepted.set(listener);
    }

    /// Rows say from now on how the monotonic clock relates to that of the cluster.
    pub fn set_cluster_offset(&self, offset: ClusterOffset) {
        let _ = self.cluster_offset.set(offset);
    }

    /// Sends on what was merged of what was heard while another node led, before anything that comes in.
    pub fn send_merged(&self) {
        let merged = self.lock().fleet.take_merged();
        self.send_changes(merged);
    }

    pub(super) fn cluster_offset(&self) -> Option<i64> {
        self.cluster_offset.get().and_then(|offset| offset())
    }

    pub(super) fn report_accepted(
        &self,
        received: &ReceivedDatagram,
        bytes: &[u8],
        source: DatagramSource,
        now: Now,
    ) {
        // All else is stored, and would be told twice by a node that leads meanwhile.
        let is_beat = received.datagram.event == DatagramKind::Beat;
        if let Some(listener) = self.accepted.get().filter(|_| is_beat) {
            let DatagramSource { address: from, is_direct } = source;
            listener(&AcceptedDatagram { bytes, from, is_direct, now, is_news: false });
        }
    }

    /// Ingests what another node has received. A datagram that is known already is no refusal, and
    /// counted nowhere.
    ///
    /// That `entry` was handled is stored with what it causes, or alone where it causes nothing.
    ///
    /// # Errors
    /// Why it was rejected: nothing is stored, the entry neither.
    pub fn ingest_relayed(
        &self,
        relayed: RelayedDatagram,
        entry: Option<InboxEntry>,
    ) -> Result<(), Rejection> {
        let received = ReceivedDatagram::parse(relayed.bytes)?;
        let mut state = self.lock();
        if state.closed {
            return Err(Rejection::Busy);
        }
        let host = &received.datagram.host;
        // What the inbox has is taken when there is room for it.
        let load = match entry {
            Some(_) => Load::Free,
            None => (self.load)(host, state.fleet.is_configured(host)),
        };
        let (from, at) = (relayed.from, relayed.at);
        let mut ingested =
            state.fleet.ingest_relayed(&received, (from, relayed.receiver), load, at)?;
        if ingested.rearm {
            self.rearm.notify_all();
        }
        let is_observed = relayed.is_direct && self.address_observer.get().is_some();
        let proven = ingested.proven_address.take().filter(|_| is_observed);
        let moved = proven.is_some_and(|id| state.track_address(&id, from));
        let change = change_of(ingested);
        if change.is_some() || entry.is_some() {
            self.send_change(Change { entry, ..change.unwrap_or_default() });
        }
        drop(state);
        if moved {
            self.report_address_changes();
        }
        Ok(())
    }

    /// [`Fleet::last_heard`](crate::heartbeat::fleet::Fleet::last_heard).
    pub fn last_heard(&self, from: usize, count: usize) -> Vec<LastHeard> {
        self.lock().fleet.last_heard(from, count)
    }

    /// A node is gone since then: hosts that no other one hears are excused until it is back.
    pub fn receiver_lost(&self, node: &str, at: Mono) {
        self.with_receivers(|state| state.fleet.receiver_lost(node, at));
    }

    /// A node hears again since then.
    pub fn receiver_back(&self, node: &str, at: Mono) {
        self.with_receivers(|state| state.fleet.receiver_back(node, at));
    }

    /// What a node heard from one moment to another did not arrive.
    pub fn receiver_gap(&self, node: &str, from: Mono, to: Mono) {
        self.with_receivers(|state| state.fleet.receiver_gap(node, from, to));
    }

    fn with_receivers(&self, change: impl FnOnce(&mut MonitorState)) {
        change(&mut self.lock());
        self.rearm.notify_all();
    }
}
