//! How many datagrams were accepted, and how many rejected, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::heartbeat::datagram::Rejection;

/// Counters since the start.
#[derive(Default)]
pub struct DatagramCounters {
    accepted: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
    metrics_left_out: AtomicU64,
}

impl DatagramCounters {
    /// A datagram was accepted.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A datagram was rejected.
    pub fn count_rejected(&self, why: Rejection) {
        self.rejected[why.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// So many metrics of an accepted datagram cannot be used.
    pub fn count_left_out(&self, metrics: usize) {
        self.metrics_left_out.fetch_add(metrics as u64, Ordering::Relaxed);
    }

    /// How many datagrams were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many datagrams were rejected, by reason.
    pub fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.rejected.iter().map(|count| count.load(Ordering::Relaxed));
        Rejection::ALL.iter().map(|reason| reason.name()).zip(counts)
    }

    /// How many metrics of accepted datagrams were left out because they cannot be used.
    pub fn metrics_left_out(&self) -> u64 {
        self.metrics_left_out.load(Ordering::Relaxed)
    }
}
