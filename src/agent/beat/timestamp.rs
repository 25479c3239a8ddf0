//! The times in datagrams: they rise, and they are believed although a clock was set. Pure.
//!
//! hbd believes a signed datagram when its time is close to hbd's clock and later than that of the
//! last one over the same connection. Our wall clock fails that when it is set: back by a little,
//! and it is not later; to something wrong, and it is not close. So when our wall clock has moved
//! against the monotonic one, there are two tales of the time: ours, which rises from what was sent,
//! and theirs, which is hbd's clock as its last answer told it, and what has passed since. The first
//! attempt takes the tale that was answered last, the next one the other.

use std::time::Duration;

use crate::clock::{Mono, Now, Wall};

/// A smaller step is none: time servers adjust by less all the time, and hbd allows for more.
const STEP: u64 = 1000;
/// An answer comes within so many milliseconds.
const LATE: u64 = 5000;
/// CpuTimes of one connection differ by a millisecond at least.
const TICK: Duration = Duration::from_millis(1);

/// Which tale of the time a datagram tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockSource {
    /// Our own clock's.
    #[default]
    Ours,
    /// That of the clock of hbd.
    Theirs,
}

/// The times that one connection to one server has used, and those that were answered.
#[derive(Clone, Debug, Default)]
pub struct TimestampClock {
    /// The last time that was told, by either tale.
    ours: Wall,
    theirs: Wall,
    /// The last time that was answered.
    answered: Wall,
    /// Both clocks when our tale was answered last.
    trusted: Option<Now>,
    /// hbd's clock when it answered last.
    server: Option<(Mono, Wall)>,
    /// The tale that was answered last.
    good: ClockSource,
}

impl TimestampClock {
    /// For a connection over which `told` was the last time that was told.
    pub fn after(told: Wall) -> TimestampClock {
        TimestampClock { ours: told, ..TimestampClock::default() }
    }

    /// The last time that was told by our tale, or by theirs where that was answered later.
    pub fn told(&self) -> Wall {
        self.ours
    }

    /// The time for the next attempt to tell something, from 1.
    pub fn next(&mut self, attempt: u32, now: Now) -> (Wall, ClockSource) {
        let tale = match (self.good, attempt % 2) {
            _ if !self.stepped(now) => ClockSource::Ours,
            (ClockSource::Ours, 1) | (ClockSource::Theirs, 0) => ClockSource::Ours,
            _ => ClockSource::Theirs,
        };
        let time = match tale {
            ClockSource::Ours => {
                self.ours = now.wall.max(self.ours + TICK);
                self.ours
            }
            ClockSource::Theirs => {
                let guess = self.server.map_or(now.wall, |(at, wall)| wall + now.mono.since(at));
                self.theirs = guess.max(self.answered + TICK).max(self.theirs_rising());
                self.theirs
            }
        };
        (time, tale)
    }

    /// Without an answer theirs is our clock as it is: it need not rise above what was refused.
    fn theirs_rising(&self) -> Wall {
        if self.server.is_some() { self.theirs + TICK } else { Wall(i64::MIN) }
    }

    /// The datagram of that time and tale was answered by `server`, which is hbd's clock.
    pub fn answered(&mut self, time: Wall, tale: ClockSource, server: Wall, now: Now) {
        self.answered = self.answered.max(time);
        self.server = Some((now.mono, server));
        self.good = tale;
        match tale {
            // A time that was lifted above our clock says nothing for it.
            ClockSource::Ours if now.wall.0.abs_diff(time.0) <= LATE => self.trusted = Some(now),
            ClockSource::Ours => {}
            // What our clock said meanwhile was refused.
            ClockSource::Theirs => self.ours = time,
        }
        self.theirs = time;
    }

    /// Whether our wall clock has been set since our tale was answered.
    fn stepped(&self, now: Now) -> bool {
        match self.trusted {
            Some(trusted) => {
                let passed = now.mono.0.saturating_sub(trusted.mono.0);
                let shown = now.wall.0.saturating_sub(trusted.wall.0);
                shown.abs_diff(passed) > STEP
            }
            None => now.wall < self.ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_291_928_000) };
    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(86_400);
    const SKEW: i64 = 300_000;

    /// hbd as far as times are concerned, whose clock is right, and a host whose clock is not.
    struct Play {
        stamp: TimestampClock,
        /// The last time that hbd believed.
        last: Wall,
        now: Now,
        /// What our clock is ahead of the right one, in milliseconds.
        ahead: i64,
    }

    impl Play {
        fn new() -> Play {
            Play { stamp: TimestampClock::default(), last: Wall(0), now: BEGIN, ahead: 0 }
        }

        /// Tries until it is believed; how many attempts that took. `lost` answers do not come.
        fn tell(&mut self, mut lost: u32) -> u32 {
            for attempt in 1..10 {
                self.now = self.now.later(Duration::from_millis(500));
                let shown = Now { wall: Wall(self.now.wall.0 + self.ahead), ..self.now };
                let (time, tale) = self.stamp.next(attempt, shown);
                let fresh = time.0.abs_diff(self.now.wall.0) <= SKEW as u64;
                if fresh && time > self.last {
                    self.last = time;
                    if lost == 0 {
                        self.stamp.answered(time, tale, self.now.wall, shown);
                        return attempt;
                    }
                    lost -= 1;
                }
            }
            panic!("it was never believed: {:?}, last {:?}", self.stamp, self.last);
        }

        fn beats(&mut self, count: usize) -> Vec<u32> {
            let mut attempts = Vec::new();
            for _ in 0..count {
                self.now = self.now.later(Duration::from_secs(10));
                attempts.push(self.tell(0));
            }
            attempts
        }
    }

    #[test]
    fn a_clock_that_is_never_set_is_told_as_it_is() {
        let mut stamp = TimestampClock::default();
        let now = BEGIN.later(MINUTE);
        assert_eq!(stamp.next(1, now), (now.wall, ClockSource::Ours));
        assert_eq!(
            stamp.next(2, now),
            (now.wall + TICK, ClockSource::Ours),
            "in the same millisecond"
        );
    }

    #[test]
    fn a_step_back_costs_no_attempt_and_a_far_one_costs_one() {
        for (back, attempts) in [(2, 1), (100, 1), (4000, 2), (365 * 86_400, 2)] {
            let mut play = Play::new();
            play.tell(0);
            play.ahead = -back * 1000;
            let took = play.beats(200);
            let extra: u32 = took.iter().map(|attempts| attempts - 1).sum();
            assert!(extra <= 1, "{back} s: {took:?}");
            assert!(took.iter().all(|took| *took <= attempts), "{back} s: {took:?}");
            play.ahead = 0;
            assert!(play.beats(200).iter().all(|took| *took <= 2));
        }
    }

    #[test]
    fn a_step_forward_and_back_again_shuts_nobody_out() {
        for ahead in [100_000, 3_600_000, 365 * 86_400_000_i64] {
            let mut play = Play::new();
            play.tell(0);
            play.ahead = ahead;
            let took = play.beats(100);
            assert!(took.iter().all(|took| *took <= 2), "{took:?}");
            play.ahead = 0;
            let took = play.beats(100);
            assert!(took.iter().all(|took| *took <= 2), "{took:?}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_from_the_start_recovers_when_it_is_set() {
        let mut play = Play::new();
        for attempt in 1..20 {
            let shown = Now { wall: play.now.wall + DAY, ..play.now };
            play.stamp.next(attempt, shown);
        }
        assert!(play.beats(10).iter().all(|took| *took <= 2));
    }

    #[test]
    fn lost_answers_around_a_step_do_no_harm() {
        for ahead in [-100_000, 100_000, -7_200_000, 7_200_000] {
            for lost in 0..3 {
                let mut play = Play::new();
                play.tell(lost);
                play.ahead = ahead;
                play.tell(lost);
                assert!(play.beats(50).iter().all(|took| *took <= 3));
                play.ahead = 0;
                play.tell(lost);
                assert!(play.beats(50).iter().all(|took| *took <= 3));
            }
        }
    }
}
