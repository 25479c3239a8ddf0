//! Signs of life of the daemon's own threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the turns of a thread. Cloned: one side turns, another one watches.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Another turn was made.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were made.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
