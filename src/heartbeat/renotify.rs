//! How often an alert of a threshold that goes on is repeated. Pure.

use std::time::Duration;

/// Reminders that become rarer come this often at least.
const MAX_RENOTIFY: Duration = Duration::from_secs(24 * 3600);

/// Whether the reminders of an alert that goes on become rarer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenotifyBackoff {
    /// They do not.
    #[default]
    None,
    /// The time to the next one doubles with each, up to a day.
    Double,
}

/// How often an alert that goes on is repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renotify {
    /// The time to the first reminder; none or zero: never.
    pub interval: Option<Duration>,
    /// Whether those after it are rarer.
    pub backoff: RenotifyBackoff,
}

impl Renotify {
    /// The time to the next reminder after so many; none: there are no reminders.
    pub fn delay(self, reminders: u8) -> Option<Duration> {
        let interval = self.interval.filter(|interval| !interval.is_zero())?;
        let factor = match self.backoff {
            RenotifyBackoff::None => 1,
            RenotifyBackoff::Double => 1_u32.checked_shl(reminders.into()).unwrap_or(u32::MAX),
        };
        Some(interval.saturating_mul(factor).min(MAX_RENOTIFY).max(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_double_up_to_a_day() {
        let hours = |interval: u64, backoff| {
            let interval = Some(Duration::from_secs(interval * 3600));
            let renotify = Renotify { interval, backoff };
            [0, 1, 2, 4, 5, 40, u8::MAX]
                .map(|after| renotify.delay(after).unwrap().as_secs() / 3600)
        };
        assert_eq!(hours(1, RenotifyBackoff::None), [1; 7]);
        assert_eq!(hours(1, RenotifyBackoff::Double), [1, 2, 4, 16, 24, 24, 24]);
        assert_eq!(hours(48, RenotifyBackoff::Double), [48; 7], "no more often than is wanted");
        for interval in [None, Some(Duration::ZERO)] {
            let backoff = RenotifyBackoff::Double;
            assert_eq!(Renotify { interval, backoff }.delay(3), None);
        }
    }
}
