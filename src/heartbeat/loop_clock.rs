//! The clocks as the deadline thread read them last: when it means to read them next, and whether the
//! wall clock was set meanwhile. Pure.

use std::time::Duration;

use crate::clock::{Mono, Now, format_duration};

/// A wall clock that moves by so many milliseconds against the monotonic one was set.
const STEP: u64 = 2000;

/// When the deadline thread read the clocks last, and when it meant to read them next.
#[derive(Debug)]
pub struct LoopClock {
    /// What they showed.
    pub last: Now,
    /// When it meant to read them next, by the monotonic clock.
    pub planned: Mono,
}

impl LoopClock {
    /// They were just read.
    pub fn at(now: Now) -> LoopClock {
        LoopClock { last: now, planned: now.mono }
    }

    /// How the wall clock was set since: `forward by 1 h`.
    pub fn wall_step(&self, now: Now) -> Option<String> {
        let moved = (now.wall.0 - self.last.wall.0).saturating_sub(now.mono.0 - self.last.mono.0);
        let way = if moved > 0 { "forward" } else { "back" };
        let by = Duration::from_millis(moved.unsigned_abs());
        (moved.unsigned_abs() >= STEP).then(|| format!("{way} by {}", format_duration(by)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    #[test]
    fn only_a_wall_clock_that_moves_by_itself_was_set() {
        let clock = LoopClock::at(Now { mono: Mono(5_000), wall: Wall(1_000_000) });
        for (passed, shown, step) in [
            (1_000, 1_000, None),
            (3_600_000, 3_600_000, None),
            (1_000, 1_001_000, Some("forward by 16 min 40 s")),
            (1_000, -3_599_000, Some("back by 1 h")),
            (1_000, 2_900, None),
        ] {
            let now = Now { mono: Mono(5_000 + passed), wall: Wall(1_000_000 + shown) };
            assert_eq!(clock.wall_step(now).as_deref(), step);
        }
    }
}
