//! How well a path carries: round-trip time and loss of what was asked over it lately. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Loss is that of so many questions.
const WINDOW: usize = 100;

/// The fate of the latest questions.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    /// Whether each was answered, the oldest first.
    fates: VecDeque<bool>,
    /// The smoothed round-trip time (RFC 6298, section 2).
    smooth: Option<Duration>,
}

impl Quality {
    /// A question was answered after so long.
    pub fn answered(&mut self, took: Duration) {
        self.smooth = Some(self.smooth.map_or(took, |smooth| (smooth * 7 + took) / 8));
        self.note(true);
    }

    /// A question was not answered in time: it was lost, or its answer was.
    pub fn lost(&mut self) {
        self.note(false);
        if !self.fates.contains(&true) {
            self.smooth = None;
        }
    }

    fn note(&mut self, fate: bool) {
        if self.fates.len() == WINDOW {
            self.fates.pop_front();
        }
        self.fates.push_back(fate);
    }

    /// How long an answer takes; none when none came lately.
    pub fn round_trip(&self) -> Option<Duration> {
        self.smooth
    }

    /// How many of a hundred questions are not answered; none when none was asked.
    pub fn loss_percent(&self) -> Option<f64> {
        let lost = self.fates.iter().filter(|answered| !**answered).count();
        (!self.fates.is_empty()).then(|| lost as f64 * 100.0 / self.fates.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_that_of_the_last_hundred() {
        let mut quality = Quality::default();
        assert_eq!(quality.loss_percent(), None);
        for n in 0..1000 {
            if n % 5 == 0 {
                quality.lost();
            } else {
                quality.answered(Duration::from_millis(10));
            }
        }
        assert_eq!(quality.loss_percent(), Some(20.0));
        for _ in 0..WINDOW {
            quality.answered(Duration::from_millis(10));
        }
        assert_eq!(quality.loss_percent(), Some(0.0));
    }

    #[test]
    fn the_round_trip_time_is_smoothed_and_forgotten_when_nothing_is_answered() {
        let mut quality = Quality::default();
        quality.answered(Duration::from_millis(80));
        quality.answered(Duration::from_millis(160));
        assert_eq!(quality.round_trip(), Some(Duration::from_millis(90)));
        for _ in 0..WINDOW {
            quality.lost();
        }
        assert_eq!((quality.round_trip(), quality.loss_percent()), (None, Some(100.0)));
    }
}
