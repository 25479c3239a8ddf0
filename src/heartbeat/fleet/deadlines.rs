//! The deadlines of all hosts: a lazy heap, whose entries may turn out to be early. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Mono;

/// What a deadline is about, within its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadlineKind {
    /// There may be a storm, or it may be over; of all entries at one moment this is the first.
    Storm,
    /// The connection at this index may be overdue.
    Connection(u8),
    /// The host may be one that was never seen.
    NeverSeen,
    /// The host may not have come back after its goodbye.
    Return,
    /// A connection of the host may be forgotten.
    Forget,
    /// The events of the host that wait must be looked at again.
    Untold,
    /// The alert of the metric at this index may want a reminder.
    Metric(u16),
    /// The hosts must be counted that are heard by nobody because the node of this number is gone.
    Receiver(u8),
}

/// When a host must be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadlineEntry {
    /// When.
    pub at: Mono,
    /// Its index in the fleet; that of none where the entry is about no host.
    pub host: u32,
    /// What about it.
    pub kind: DeadlineKind,
}

/// The heap. A beat that moves a deadline later does not touch it: when an entry is popped, the true
/// deadline is looked up and pushed again. Each connection and metric has the moment of its earliest
/// entry (`scheduled_at`); an entry of another moment is an old one and means nothing.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<DeadlineEntry>>,
    /// From this size on old entries are removed.
    compact_at: usize,
}

impl Deadlines {
    /// The moment of the earliest entry.
    pub fn next(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: DeadlineEntry) {
        self.heap.push(Reverse(entry));
    }

    /// Removes the earliest entry when its moment has come.
    pub fn pop_due(&mut self, now: Mono) -> Option<DeadlineEntry> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether there are so many entries that old ones should be removed: a host whose interval
    /// shrinks with every beat must not fill the memory.
    pub fn needs_compaction(&self) -> bool {
        self.heap.len() > self.compact_at.max(1024)
    }

    /// Keeps the entries that still mean something.
    pub fn compact(&mut self, mut means: impl FnMut(&DeadlineEntry) -> bool) {
        self.heap.retain(|Reverse(entry)| means(entry));
        self.compact_at = self.heap.len() * 2;
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.heap.clear();
    }
}
