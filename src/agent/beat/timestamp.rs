//! The timestamps of datagrams: they rise, and hbd believes them although a clock was set. Pure.
//!
//! hbd believes a signed datagram when its time is close to hbd's clock and later than that of the
//! last one over the same connection. Our wall clock fails that when it is set: back by a little,
//! and it is not later; to something wrong, and it is not close. So when our wall clock has moved
//! against the monotonic one, there are two candidates: our own clock, never earlier than what was
//! sent, and the server's, which is its time in the last answer plus what has passed since. The
//! first attempt takes the clock that was answered last, the next attempt the other.

use std::time::Duration;

use crate::clock::{Mono, Now, Wall};

/// A smaller step of the clock, in milliseconds, is ignored: time servers adjust by less all the
/// time, and hbd allows for more.
const MIN_STEP_MILLIS: u64 = 1000;
/// An answer comes within this number of milliseconds.
const MAX_ANSWER_MILLIS: u64 = 5000;
/// Timestamps of one connection differ by this at least.
const RESOLUTION: Duration = Duration::from_millis(1);

/// The clock that a timestamp is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockSource {
    /// Our own wall clock.
    #[default]
    Local,
    /// hbd's clock, as its last answer told it.
    Server,
}

/// The timestamps that one connection to one server has used, and those that were answered.
#[derive(Clone, Debug, Default)]
pub struct TimestampClock {
    /// The last timestamp of the local clock.
    last_local: Wall,
    /// The last timestamp of the server's clock, or that of the last answer.
    last_server: Wall,
    /// The latest timestamp that was answered.
    last_answered: Wall,
    /// Both of our clocks when a timestamp of the local one was answered last.
    local_accepted: Option<Now>,
    /// hbd's clock in its last answer, and when that came.
    server: Option<(Mono, Wall)>,
    /// The source of the timestamp that was answered last.
    accepted: ClockSource,
}

impl TimestampClock {
    /// A clock for a connection whose last timestamp was `last`.
    pub fn after(last: Wall) -> TimestampClock {
        TimestampClock { last_local: last, ..TimestampClock::default() }
    }

    /// The last timestamp of the local clock, or of the server's where that was answered later.
    pub fn last(&self) -> Wall {
        self.last_local
    }

    /// The timestamp for the `attempt`th attempt to send one beat, from 1.
    pub fn next(&mut self, attempt: u32, now: Now) -> (Wall, ClockSource) {
        let source = match (self.accepted, attempt % 2) {
            _ if !self.has_stepped(now) => ClockSource::Local,
            (ClockSource::Local, 1) | (ClockSource::Server, 0) => ClockSource::Local,
            _ => ClockSource::Server,
        };
        let time = match source {
            ClockSource::Local => {
                self.last_local = now.wall.max(self.last_local + RESOLUTION);
                self.last_local
            }
            ClockSource::Server => {
                let guess = self.server.map_or(now.wall, |(at, wall)| wall + now.mono.since(at));
                self.last_server =
                    guess.max(self.last_answered + RESOLUTION).max(self.min_server_time());
                self.last_server
            }
        };
        (time, source)
    }

    /// Without an answer the server's clock is taken to be ours: it need not rise above what was
    /// refused.
    fn min_server_time(&self) -> Wall {
        if self.server.is_some() { self.last_server + RESOLUTION } else { Wall(i64::MIN) }
    }

    /// The datagram with the timestamp `time` from `source` was answered, when hbd's clock showed
    /// `server`.
    pub fn on_answer(&mut self, time: Wall, source: ClockSource, server: Wall, now: Now) {
        self.last_answered = self.last_answered.max(time);
        self.server = Some((now.mono, server));
        self.accepted = source;
        match source {
            // A timestamp that was lifted above our clock says nothing for our clock.
            ClockSource::Local if now.wall.0.abs_diff(time.0) <= MAX_ANSWER_MILLIS => {
                self.local_accepted = Some(now);
            }
            ClockSource::Local => {}
            // The timestamps of our clock were refused meanwhile.
            ClockSource::Server => self.last_local = time,
        }
        self.last_server = time;
    }

    /// Whether our wall clock was set since a timestamp of it was answered.
    fn has_stepped(&self, now: Now) -> bool {
        match self.local_accepted {
            Some(accepted) => {
                let passed = now.mono.0.saturating_sub(accepted.mono.0);
                let shown = now.wall.0.saturating_sub(accepted.wall.0);
                shown.abs_diff(passed) > MIN_STEP_MILLIS
            }
            None => now.wall < self.last_local,
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
    struct Simulation {
        clock: TimestampClock,
        /// The last time that hbd believed.
        last: Wall,
        now: Now,
        /// What our clock is ahead of the right one, in milliseconds.
        ahead: i64,
    }

    impl Simulation {
        fn new() -> Simulation {
            Simulation { clock: TimestampClock::default(), last: Wall(0), now: BEGIN, ahead: 0 }
        }

        /// Tries until it is believed; how many attempts that took. `lost` answers do not come.
        fn send(&mut self, mut lost: u32) -> u32 {
            for attempt in 1..10 {
                self.now = self.now.later(Duration::from_millis(500));
                let shown = Now { wall: Wall(self.now.wall.0 + self.ahead), ..self.now };
                let (time, source) = self.clock.next(attempt, shown);
                let fresh = time.0.abs_diff(self.now.wall.0) <= SKEW as u64;
                if fresh && time > self.last {
                    self.last = time;
                    if lost == 0 {
                        self.clock.on_answer(time, source, self.now.wall, shown);
                        return attempt;
                    }
                    lost -= 1;
                }
            }
            panic!("it was never believed: {:?}, last {:?}", self.clock, self.last);
        }

        fn beats(&mut self, count: usize) -> Vec<u32> {
            let mut attempts = Vec::new();
            for _ in 0..count {
                self.now = self.now.later(Duration::from_secs(10));
                attempts.push(self.send(0));
            }
            attempts
        }
    }

    #[test]
    fn a_clock_that_is_never_set_is_told_as_it_is() {
        let mut clock = TimestampClock::default();
        let now = BEGIN.later(MINUTE);
        assert_eq!(clock.next(1, now), (now.wall, ClockSource::Local));
        assert_eq!(
            clock.next(2, now),
            (now.wall + RESOLUTION, ClockSource::Local),
            "in the same millisecond"
        );
    }

    #[test]
    fn a_step_back_costs_no_attempt_and_a_far_one_costs_one() {
        for (back, attempts) in [(2, 1), (100, 1), (4000, 2), (365 * 86_400, 2)] {
            let mut simulation = Simulation::new();
            simulation.send(0);
            simulation.ahead = -back * 1000;
            let took = simulation.beats(200);
            let extra: u32 = took.iter().map(|attempts| attempts - 1).sum();
            assert!(extra <= 1, "{back} s: {took:?}");
            assert!(took.iter().all(|took| *took <= attempts), "{back} s: {took:?}");
            simulation.ahead = 0;
            assert!(simulation.beats(200).iter().all(|took| *took <= 2));
        }
    }

    #[test]
    fn a_step_forward_and_back_again_shuts_nobody_out() {
        for ahead in [100_000, 3_600_000, 365 * 86_400_000_i64] {
            let mut simulation = Simulation::new();
            simulation.send(0);
            simulation.ahead = ahead;
            let took = simulation.beats(100);
            assert!(took.iter().all(|took| *took <= 2), "{took:?}");
            simulation.ahead = 0;
            let took = simulation.beats(100);
            assert!(took.iter().all(|took| *took <= 2), "{took:?}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_from_the_start_recovers_when_it_is_set() {
        let mut simulation = Simulation::new();
        for attempt in 1..20 {
            let shown = Now { wall: simulation.now.wall + DAY, ..simulation.now };
            simulation.clock.next(attempt, shown);
        }
        assert!(simulation.beats(10).iter().all(|took| *took <= 2));
    }

    #[test]
    fn lost_answers_around_a_step_do_no_harm() {
        for ahead in [-100_000, 100_000, -7_200_000, 7_200_000] {
            for lost in 0..3 {
                let mut simulation = Simulation::new();
                simulation.send(lost);
                simulation.ahead = ahead;
                simulation.send(lost);
                assert!(simulation.beats(50).iter().all(|took| *took <= 3));
                simulation.ahead = 0;
                simulation.send(lost);
                assert!(simulation.beats(50).iter().all(|took| *took <= 3));
            }
        }
    }
}
