//! When a metric was last sent, how often it usually is, and from when on its absence means
//! something. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};

/// So many times a metric must have come before one can tell how often it does: whoever tries a job
/// a few times in a row does not promise to go on.
const REGULAR: u8 = 10;
/// So many of its usual distances a metric may be absent. A metric travels in one datagram of
/// several, and datagrams get lost.
const MISSED: u32 = 5;
/// No metric is missing before it was absent that long.
const LEAST: Duration = Duration::from_secs(10 * 60);
/// What may be expected of a metric that came only a few times: it may be that of a weekly job.
const IRREGULAR: Duration = Duration::from_secs(8 * 24 * 3600);
/// A metric that is well is forgotten when it was absent for so many times its patience, and that
/// long at least.
const FORGOTTEN: u32 = 2;
const LEAST_FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// One whose absence people were told of is forgotten after that long.
const TOLD_FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// When a metric comes.
///
/// What counts as its absence is the time in which the connection that brought it was heard
/// without it. A connection that is silent proves nothing about its metrics: its silence is told
/// as such, or nobody could listen.
#[derive(Clone, Debug)]
pub struct Presence {
    /// When it was last sent.
    pub at: Wall,
    /// From when on its absence counts.
    from: Mono,
    /// How far apart it comes, in milliseconds: the longest distance of late.
    every: u32,
    /// How often it came, as far as that matters.
    samples: u8,
    /// The place of the connection that brought it last.
    over: u8,
}

/// What of it survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// When it was last sent.
    pub at: Wall,
    /// How long it had been absent when its connection was last heard, in milliseconds.
    pub absent: u32,
    /// How far apart it comes, in milliseconds.
    pub every: u32,
    /// How often it came.
    pub samples: u8,
}

impl Presence {
    /// A metric that came for the first time, over the connection at the place `over`.
    pub fn new(over: usize, now: Now) -> Presence {
        Presence { at: now.wall, from: now.mono, every: 0, samples: 1, over: place(over) }
    }

    /// One that is known from before a restart; `heard` is when its connection was.
    pub fn restore(known: Known, over: usize, heard: Mono) -> Presence {
        let from = heard - Duration::from_millis(known.absent.into());
        let Known { at, every, samples, .. } = known;
        Presence { at, from, every, samples, over: place(over) }
    }

    /// What a restart must know; `heard` is when its connection was.
    pub fn known(&self, heard: Mono) -> Known {
        let absent = millis(self.absent(heard));
        Known { at: self.at, absent, every: self.every, samples: self.samples }
    }

    /// It came.
    pub fn sent(&mut self, over: usize, now: Now) {
        let gap = millis(now.mono.since(self.from));
        // The same beat over another connection is no further sample.
        if gap >= self.every / 4 {
            self.samples = self.samples.saturating_add(1);
        }
        self.every = if gap > self.every { gap } else { self.every - (self.every - gap) / 8 };
        (self.at, self.from, self.over) = (now.wall, now.mono, place(over));
    }

    /// The place of the connection that brought it last.
    pub fn over(&self) -> usize {
        self.over.into()
    }

    /// Its absence counts anew, by another connection: the one that brought it is down.
    pub fn expect_over(&mut self, over: usize, now: Now) {
        (self.from, self.over) = (now.mono, place(over));
    }

    /// The connections behind the place `gone` moved up: that one is no more.
    pub fn connection_gone(&mut self, gone: usize) {
        if self.over() > gone {
            self.over -= 1;
        } else if self.over() == gone {
            self.over = u8::MAX;
        }
    }

    /// For so long its connection was silent beyond what it promises: that counts as nothing.
    pub fn excuse(&mut self, silence: Duration) {
        self.from = self.from + silence;
    }

    /// How long it was absent when its connection was `heard`.
    pub fn absent(&self, heard: Mono) -> Duration {
        heard.since(self.from)
    }

    /// Whether it is missing, by when its connection was `heard` and how often that beats.
    pub fn missing(&self, heard: Mono, interval: Duration) -> bool {
        self.absent(heard) >= self.patience(interval)
    }

    /// Whether nothing is expected of it any more; `told` says that people know of its absence.
    pub fn forgotten(&self, heard: Mono, interval: Duration, told: bool) -> bool {
        let patience = self.patience(interval);
        let long = if told {
            patience.saturating_add(TOLD_FORGOTTEN)
        } else {
            patience.saturating_mul(FORGOTTEN).max(LEAST_FORGOTTEN)
        };
        self.absent(heard) >= long
    }

    fn patience(&self, interval: Duration) -> Duration {
        let every = Duration::from_millis(self.every.into()).max(interval);
        let regular = every.saturating_mul(MISSED).max(LEAST);
        if self.samples < REGULAR { regular.max(IRREGULAR) } else { regular }
    }
}

fn place(over: usize) -> u8 {
    u8::try_from(over).unwrap_or(u8::MAX)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(gaps: &[u64]) -> (Presence, Now) {
        let mut now = Now { mono: Mono(0), wall: Wall(0) };
        let mut presence = Presence::new(0, now);
        for gap in gaps {
            now = now.later(Duration::from_secs(*gap));
            presence.sent(0, now);
        }
        (presence, now)
    }

    /// After how many seconds of beats every ten seconds it is missing.
    fn missing_after(gaps: &[u64]) -> u64 {
        let (presence, now) = after(gaps);
        let missing =
            |seconds: &u64| presence.missing(now.mono + Duration::from_secs(*seconds), 10 * SECOND);
        (0..).step_by(10).find(missing).unwrap()
    }

    #[test]
    fn the_usual_distance_decides_when_a_metric_is_missing() {
        for (gaps, missing) in [
            (&[10; 20][..], 600),
            (&[60; 20], 600),
            (&[600; 20], 3_000),
            (&[0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10], 600),
            (&[86_400; 20], 5 * 86_400),
            // One that was late once is given more time, for a while.
            (&[600, 600, 600, 600, 600, 600, 600, 600, 600, 1_800], 9_000),
        ] {
            assert_eq!(missing_after(gaps), missing, "{gaps:?}");
        }
    }

    #[test]
    fn a_job_that_was_tried_a_few_times_does_not_promise_to_go_on() {
        for gaps in [&[][..], &[5], &[5, 5, 5, 5, 5, 5]] {
            assert_eq!(missing_after(gaps), 8 * 86_400, "{gaps:?}");
        }
    }

    #[test]
    fn what_is_known_survives_a_restart() {
        let (presence, now) = after(&[60; 20]);
        let heard = now.mono + 300 * SECOND;
        let again = Presence::restore(presence.known(heard), 3, Mono(7_000_000));
        assert_eq!(again.absent(Mono(7_000_000)), 300 * SECOND);
        assert!(!again.missing(Mono(7_299_999), 10 * SECOND));
        assert!(again.missing(Mono(7_300_000), 10 * SECOND));
        assert_eq!((again.at, again.over()), (presence.at, 3));
    }

    #[test]
    fn what_is_long_gone_is_forgotten() {
        let (presence, now) = after(&[10; 20]);
        let at = |days: u64| now.mono + Duration::from_secs(days * 86_400);
        assert!(!presence.forgotten(at(0), 10 * SECOND, false));
        assert!(presence.forgotten(at(1), 10 * SECOND, false));
        assert!(!presence.forgotten(at(30), 10 * SECOND, true));
        assert!(presence.forgotten(at(31), 10 * SECOND, true));
    }
}
