//! How fast attempts may follow one another, and how delays are varied. Pure.

use std::time::Duration;

use super::channel::RetryPolicy;
use crate::clock::Mono;

/// A token bucket: so many attempts a minute on average, so many at once.
#[derive(Debug)]
pub struct Bucket {
    tokens: f64,
    at: Mono,
    per_milli: f64,
    size: f64,
}

impl Bucket {
    /// A full one.
    pub fn full(pace: &RetryPolicy, now: Mono) -> Bucket {
        let size = f64::from(pace.burst.max(1));
        Bucket { tokens: size, at: now, per_milli: f64::from(pace.per_minute) / 60_000.0, size }
    }

    fn level(&self, now: Mono) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of at most years")]
        let passed = now.since(self.at).as_millis() as f64;
        (self.tokens + passed * self.per_milli).min(self.size)
    }

    /// Whether an attempt may begin.
    pub fn holds(&self, now: Mono) -> bool {
        self.level(now) >= 1.0
    }

    /// An attempt begins.
    pub fn take(&mut self, now: Mono) {
        self.tokens = self.level(now) - 1.0;
        self.at = now;
    }

    /// When the next attempt may begin.
    pub fn next(&self, now: Mono) -> Mono {
        let missing = 1.0 - self.level(now);
        if missing <= 0.0 {
            return now;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let wait = (missing / self.per_milli).ceil() as u64 + 1;
        now + Duration::from_millis(wait)
    }
}

/// xorshift64: enough to keep many daemons from knocking at the same moment.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Different for each seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// A number between these two.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[allow(clippy::cast_precision_loss, reason = "53 bits are kept")]
        let unit = (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }
}
