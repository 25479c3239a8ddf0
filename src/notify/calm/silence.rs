//! Silences: set by people, or by a host for itself, for a time. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scope::{CalmScope, Target};
use crate::clock::{Mono, Now, Wall};
use crate::event::Level;

/// The most silences at one time that people set, and that hosts ask for.
pub const MAX_SILENCES: usize = 1_000;
/// A wall clock that differs by this much from what was expected was set, or runs badly.
const CLOCK_SET: Duration = Duration::from_secs(5);
/// The longest comment, in characters.
pub const MAX_COMMENT: usize = 500;

/// Where a silence came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `hbd silence`.
    Command,
    /// The API.
    Api,
    /// The page.
    Page,
    /// The host that it is about.
    Host,
}

/// A silence, as it is kept on disk.
///
/// It lasts its length on the monotonic clock: an operator who sets the wall clock neither ends nor
/// lengthens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// What is silent.
    pub scope: CalmScope,
    /// When it began.
    pub from: Now,
    /// How long it lasts.
    pub length: Duration,
    /// Who set it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Events of this level and above are told all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<Level>,
    /// Where it came from.
    pub origin: Origin,
}

impl Silence {
    /// Its end on the monotonic clock.
    pub fn end(&self) -> Mono {
        self.from.mono + self.length
    }

    /// Whether it lasts.
    pub fn is_running(&self, now: Now) -> bool {
        now.mono < self.end()
    }

    /// Its end as people read it, by what the wall clock shows now. That the two clocks differ by a
    /// little does not move it.
    pub fn until(&self, now: Now) -> Wall {
        let left = self.end().0.saturating_sub(now.mono.0);
        let (planned, shown) =
            (self.from.wall + self.length, Wall(now.wall.0.saturating_add(left)));
        let set = planned.since(shown).max(shown.since(planned)) >= CLOCK_SET;
        if set { shown } else { planned }
    }

    /// Whether it is about `target`. A host's own covers that host alone, whatever its name.
    pub fn covers(&self, target: Target) -> bool {
        self.scope.covers(target)
    }

    /// The same silence on this boot's clock; none when it has ended, or when the clock was lost and
    /// nobody knows: doubt means tell. `rebase` turns a time of an earlier boot into one of this one.
    pub fn rebased(mut self, rebase: impl Fn(Now) -> Now, now: Now) -> Option<Silence> {
        self.from = rebased_start(self.from, rebase, now)?;
        self.is_running(now).then_some(self)
    }
}

/// When something began that lasts for a time, on this boot's clock; none when the clock was lost, and
/// how long it has lasted is not known. `rebase` turns a time of an earlier boot into one of this one.
pub fn rebased_start(from: Now, rebase: impl Fn(Now) -> Now, now: Now) -> Option<Now> {
    if rebase(from).mono == from.mono {
        return Some(from);
    }
    // Another boot: only the wall clock can say how long it has lasted.
    let known = now.wall.is_plausible() && now.wall >= from.wall;
    known.then(|| Now { mono: now.mono - now.wall.since(from.wall), wall: from.wall })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const BEGIN: Now = Now { mono: Mono(1_000_000), wall: Wall(1_795_291_928_000) };

    fn silence(length: Duration) -> Silence {
        Silence {
            scope: CalmScope::All,
            from: BEGIN,
            length,
            by: "ann".into(),
            comment: None,
            unless: None,
            origin: Origin::Command,
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_neither_ends_nor_lengthens_a_silence() {
        let silence = silence(HOUR);
        for step in [-86_400_000, -3_600_000, 3_600_000, 86_400_000] {
            let mut now = BEGIN.later(HOUR - Duration::from_millis(1));
            now.wall.0 += step;
            assert!(silence.is_running(now), "{step}");
            assert_eq!(silence.until(now), Wall(now.wall.0 + 1), "as the clock will show then");
            assert!(!silence.is_running(now.later(Duration::from_millis(1))), "{step}");
        }
    }

    /// After a boot of the machine: its monotonic clock begins anew.
    fn rebooted(wall: Wall) -> (Now, impl Fn(Now) -> Now) {
        let now = Now { mono: Mono(20_000), wall };
        let rebase =
            move |then: Now| Now { mono: now.mono - now.wall.since(then.wall), wall: then.wall };
        (now, rebase)
    }

    #[test]
    fn a_silence_goes_on_over_a_reboot_for_what_is_left_of_it() {
        for (length, passed, left) in [
            (HOUR, HOUR / 4, Some(HOUR * 3 / 4)),
            (HOUR, HOUR, None),
            // Longer than other times are believed.
            (HOUR * 24 * 28, HOUR * 24 * 20, Some(HOUR * 24 * 8)),
        ] {
            let (now, rebase) = rebooted(BEGIN.wall + passed);
            let restored = silence(length).rebased(rebase, now);
            assert_eq!(restored.map(|silence| silence.end().since(now.mono)), left);
        }
        let same_boot = silence(HOUR).rebased(|then| then, BEGIN.later(HOUR / 2));
        assert_eq!(same_boot, Some(silence(HOUR)));
    }

    #[test]
    fn a_lost_clock_ends_a_silence() {
        for wall in [Wall(0), Wall(86_400_000), Wall(BEGIN.wall.0 - 1)] {
            let (now, rebase) = rebooted(wall);
            assert_eq!(silence(HOUR).rebased(rebase, now), None, "{wall}");
        }
    }
}
