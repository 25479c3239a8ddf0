//! How late the deadline thread is. Pure.

use crate::clock::Mono;

/// When the deadline thread read the clock last, and when it meant to read it next.
pub struct LoopClock {
    /// When it was read.
    pub last: Mono,
    /// When it is to be read next.
    pub planned: Mono,
}

impl LoopClock {
    /// It was read, and is to be read again, at this moment.
    pub fn at(now: Mono) -> LoopClock {
        LoopClock { last: now, planned: now }
    }
}
