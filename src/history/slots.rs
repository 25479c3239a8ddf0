//! Time in slots of ten minutes, hours and days (UTC), how long each are kept, and their keys. Pure.

use std::time::Duration;

use crate::clock::Wall;

/// Seconds of an hour.
pub const HOUR: u32 = 3600;
/// Seconds of a day.
pub const DAY: u32 = 86_400;

/// The length of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// Ten minutes.
    TenMinutes,
    /// An hour.
    Hours,
    /// A day.
    Days,
}

impl Resolution {
    /// All of them, the finest first.
    pub const ALL: [Resolution; 3] = [Resolution::TenMinutes, Resolution::Hours, Resolution::Days];

    /// Seconds of one slot.
    pub fn step(self) -> u32 {
        match self {
            Resolution::TenMinutes => 600,
            Resolution::Hours => HOUR,
            Resolution::Days => DAY,
        }
    }

    /// How long its slots are kept: at most for `longest`.
    pub fn retention(self, longest: Duration) -> Duration {
        let own = match self {
            Resolution::TenMinutes => Duration::from_secs(2 * u64::from(DAY)),
            Resolution::Hours => Duration::from_secs(14 * u64::from(DAY)),
            Resolution::Days => longest,
        };
        own.min(longest)
    }

    /// The finest resolution that is kept for `range`.
    pub fn reaching(range: Duration) -> Resolution {
        let reaches = |resolution: &Resolution| {
            *resolution == Resolution::Days || range <= resolution.retention(Duration::MAX)
        };
        Resolution::ALL.into_iter().find(reaches).unwrap_or(Resolution::Days)
    }

    /// The resolution that its slots are rolled up from.
    pub fn finer(self) -> Option<Resolution> {
        match self {
            Resolution::TenMinutes => None,
            Resolution::Hours => Some(Resolution::TenMinutes),
            Resolution::Days => Some(Resolution::Hours),
        }
    }

    /// The number of the slot that a moment is in.
    pub fn slot(self, at: Wall) -> u32 {
        slot(at, self.step())
    }

    /// When a slot begins.
    pub fn start(self, slot: u32) -> Wall {
        start(slot, self.step())
    }

    /// The slots of the finer resolution that one slot consists of.
    pub fn parts(self, slot: u32) -> std::ops::Range<u32> {
        let count = self.finer().map_or(1, |finer| self.step() / finer.step());
        let first = slot.saturating_mul(count);
        first..first.saturating_add(count)
    }

    /// The first letter of its keys: all slots of a resolution are together, in order of time.
    pub fn prefix(self) -> &'static str {
        match self {
            Resolution::TenMinutes => "a",
            Resolution::Hours => "b",
            Resolution::Days => "c",
        }
    }

    /// The key of the row of a host in a slot.
    pub fn key(self, slot: u32, host: &str) -> String {
        format!("{}{slot:08x}/{host}", self.prefix())
    }
}

/// The number of the slot of `step` seconds that a moment is in.
pub fn slot(at: Wall, step: u32) -> u32 {
    u32::try_from(at.0.max(0) / (i64::from(step) * 1000)).unwrap_or(u32::MAX)
}

/// When a slot of `step` seconds begins.
pub fn start(slot: u32, step: u32) -> Wall {
    Wall(i64::from(slot) * i64::from(step) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_within_each_other() {
        let at = Wall(1_795_291_928_667);
        for resolution in Resolution::ALL {
            let slot = resolution.slot(at);
            assert!(
                resolution.start(slot) <= at && at < resolution.start(slot + 1),
                "{resolution:?}"
            );
            if let Some(finer) = resolution.finer() {
                assert!(resolution.parts(slot).contains(&finer.slot(at)));
                assert_eq!(finer.start(resolution.parts(slot).start), resolution.start(slot));
                assert_eq!(finer.start(resolution.parts(slot).end), resolution.start(slot + 1));
            }
        }
    }

    #[test]
    fn keys_are_in_order_of_time() {
        let early = Resolution::TenMinutes
            .key(Resolution::TenMinutes.slot(Wall(1_795_291_928_667)), "web2");
        let late = Resolution::TenMinutes
            .key(Resolution::TenMinutes.slot(Wall(1_795_299_928_667)), "web1");
        assert!(early < late && late < Resolution::Hours.key(0, "web1"), "{early} {late}");
    }

    #[test]
    fn the_finest_tier_that_reaches_back_is_taken() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        for (range, resolution) in [
            (1, Resolution::TenMinutes),
            (2, Resolution::TenMinutes),
            (3, Resolution::Hours),
            (90, Resolution::Days),
        ] {
            assert_eq!(Resolution::reaching(days(range)), resolution);
        }
        assert_eq!(Resolution::Hours.retention(days(1)), days(1));
    }
}
