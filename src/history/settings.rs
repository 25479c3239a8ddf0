//! The section `history`: how long what was is kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config_file::Section;

const DAY: Duration = Duration::from_secs(86_400);

/// What may be kept: a day at least, or there would be nothing to show; ten years at most.
const AGES: RangeInclusive<Duration> = DAY..=Duration::from_secs(3660 * 86_400);

/// The section `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long it is kept what happened.
    pub events: Duration,
    /// How long the values of metrics are kept: by ten minutes for two days, by the hour for two
    /// weeks, by the day for so long.
    pub metrics: Duration,
    /// How long it is kept how hosts fared.
    pub availability: Duration,
    /// What all of it may take; the oldest gives way.
    pub max_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            events: 90 * DAY,
            metrics: 400 * DAY,
            availability: 400 * DAY,
            max_bytes: 50_000_000,
        }
    }
}

impl Settings {
    /// Reads the section.
    pub fn read(section: &mut Section) -> Settings {
        let usual = Settings::default();
        let bytes = section.number("max_bytes", 1_000_000..=100_000_000_000);
        Settings {
            events: section.duration_within("events", AGES).unwrap_or(usual.events),
            metrics: section.duration_within("metrics", AGES).unwrap_or(usual.metrics),
            availability: section
                .duration_within("availability", AGES)
                .unwrap_or(usual.availability),
            max_bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(usual.max_bytes),
        }
    }
}
