//! When the daemon could not listen: a restart, a suspended machine, a stalled loop. Pure.

use std::time::Duration;

use crate::clock::Mono;

/// How many periods are told apart; beyond it the closest ones are taken for one.
const MOST: usize = 32;
/// The longest interval and three times that as grace: nobody waits for a beat any longer.
const MEMORY: Duration = Duration::from_secs(28 * 24 * 3600);

/// From `stop` to `start` nothing could be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The last moment of listening before it.
    pub stop: Mono,
    /// The first moment of listening after it.
    pub start: Mono,
}

/// The periods that may still matter, in order, none touching another.
#[derive(Clone, Debug, Default)]
pub struct Blindness {
    periods: Vec<Period>,
}

impl Blindness {
    /// The periods, in order.
    pub fn periods(&self) -> &[Period] {
        &self.periods
    }

    /// Adds a period; one that ends before it begins is none.
    pub fn add(&mut self, stop: Mono, start: Mono) {
        if start <= stop {
            return;
        }
        self.periods.push(Period { stop, start });
        self.periods.sort_by_key(|period| period.stop);
        self.join(|earlier, later| later.stop <= earlier.start);
        if let Some(newest) = self.periods.last().map(|period| period.start) {
            self.periods.retain(|period| newest.since(period.start) <= MEMORY);
        }
        while self.periods.len() > MOST {
            let gap = |pair: &[Period]| pair[1].stop.since(pair[0].start);
            let least = self.periods.windows(2).map(gap).min().unwrap_or_default();
            self.join(|earlier, later| later.stop.since(earlier.start) <= least);
        }
    }

    fn join(&mut self, belong: impl Fn(Period, Period) -> bool) {
        self.periods.dedup_by(|later, earlier| {
            let one = belong(*earlier, *later);
            if one {
                earlier.start = earlier.start.max(later.start);
            }
            one
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(periods: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut blindness = Blindness::default();
        for (stop, start) in periods {
            blindness.add(Mono(*stop), Mono(*start));
        }
        blindness.periods().iter().map(|period| (period.stop.0, period.start.0)).collect()
    }

    #[test]
    fn periods_that_touch_are_one() {
        assert_eq!(of(&[(1, 5), (5, 7)]), [(1, 7)]);
        assert_eq!(of(&[(10, 12), (1, 5), (2, 3)]), [(1, 5), (10, 12)]);
        assert_eq!(of(&[(1, 5), (3, 3), (9, 2)]), [(1, 5)]);
        assert_eq!(of(&[(i64::MIN, i64::MAX), (1, 2)]), [(i64::MIN, i64::MAX)]);
    }

    #[test]
    fn the_list_stays_short() {
        let many: Vec<(i64, i64)> = (0..500).map(|n| (n * n, n * n + 1)).collect();
        let kept = of(&many);
        assert!(kept.len() <= MOST);
        assert_eq!(kept.last(), Some(&(499 * 499, 499 * 499 + 1)));
        assert_eq!(kept.first().map(|first| first.0), Some(0));
    }
}
