//! What must be looked at when: a heap of moments that may turn out to be early. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Mono;

/// What an entry is about, within its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadlineKind {
    /// The connection at this place may be overdue.
    Connection(u8),
    /// The host may be one that was never heard.
    NeverSeen,
    /// The alert of the metric at this place may want a reminder.
    Metric(u16),
}

/// A moment at which a host must be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadlineEntry {
    /// When.
    pub at: Mono,
    /// Its place in the fleet.
    pub host: u32,
    /// What about it.
    pub kind: DeadlineKind,
}

/// The heap. A beat that moves a deadline later does not touch it: whoever pops an entry looks up
/// the true deadline and pushes it again. Whoever owns a deadline notes the moment of its earliest
/// entry; an entry of another moment is an old one and means nothing.
#[derive(Debug, Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<DeadlineEntry>>,
    /// From this size on old entries are swept out.
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

    /// Takes the earliest entry out when its moment has come.
    pub fn pop_due(&mut self, now: Mono) -> Option<DeadlineEntry> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether so many entries have gathered that old ones should be swept out: a host whose
    /// interval shrinks with every beat must not fill the memory.
    pub fn needs_compaction(&self) -> bool {
        self.heap.len() > self.compact_at.max(1024)
    }

    /// Keeps the entries that still mean something.
    pub fn compact(&mut self, mut means: impl FnMut(&DeadlineEntry) -> bool) {
        self.heap.retain(|Reverse(entry)| means(entry));
        self.compact_at = self.heap.len() * 2;
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.heap.clear();
    }
}
