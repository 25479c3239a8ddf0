//! A token bucket: a limit on how often something may happen, on average and at once. Pure.

use std::time::Duration;

use crate::clock::Mono;

/// What is missing by less than this is an error of calculation: a token has come back after its
/// interval, and not a millisecond later.
const EPSILON: f64 = 1e-9;

/// A token bucket: every event takes a token, and tokens come back at a steady rate.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// As of `at`. A fraction of a token is on its way.
    tokens: f64,
    at: Mono,
    capacity: f64,
    /// How long one token takes to come back, in milliseconds.
    interval: f64,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens, of which one comes back every `interval`.
    pub fn full(capacity: u32, interval: Duration, now: Mono) -> TokenBucket {
        let (capacity, interval) = (f64::from(capacity.max(1)), interval.as_secs_f64() * 1000.0);
        TokenBucket { tokens: capacity, at: now, capacity, interval: interval.max(1e-3) }
    }

    fn tokens(&self, now: Mono) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of at most years")]
        let passed = now.since(self.at).as_millis() as f64;
        (self.tokens + passed / self.interval).min(self.capacity)
    }

    /// Whether there is a token.
    pub fn has_token(&self, now: Mono) -> bool {
        self.tokens(now) >= 1.0 - EPSILON
    }

    /// Takes a token, or what is left of one.
    pub fn take(&mut self, now: Mono) {
        self.tokens = (self.tokens(now) - 1.0).max(0.0);
        self.at = now;
    }

    /// When there is a token: now, or later.
    pub fn next_token(&self, now: Mono) -> Mono {
        let missing = 1.0 - self.tokens(now) - EPSILON;
        if missing <= 0.0 {
            return now;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let wait = (missing * self.interval).ceil() as u64;
        now + Duration::from_millis(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_full_bucket_allows_a_burst_and_then_one_an_interval() {
        let mut now = Mono(0);
        let mut bucket = TokenBucket::full(3, 2 * SECOND, now);
        for _ in 0..3 {
            assert!(bucket.has_token(now));
            bucket.take(now);
        }
        assert!(!bucket.has_token(now));
        assert_eq!(bucket.next_token(now), now + 2 * SECOND);
        now = bucket.next_token(now);
        assert!(bucket.has_token(now));
        bucket.take(now);
        assert_eq!(bucket.next_token(now + SECOND), now + 2 * SECOND, "half of it is there");
    }

    #[test]
    fn a_token_is_back_after_its_interval_whenever_one_asks() {
        let start = Mono(0);
        let mut bucket = TokenBucket::full(10, 6 * SECOND, start);
        (0..10).for_each(|_| bucket.take(start));
        for seconds in 0..=6 {
            let next = bucket.next_token(start + seconds * SECOND);
            assert_eq!(next, start + 6 * SECOND, "asked after {seconds} s");
        }
        assert!(bucket.has_token(start + 6 * SECOND));
    }

    #[test]
    fn it_never_holds_more_than_its_capacity_nor_less_than_nothing() {
        let mut now = Mono(0);
        let mut bucket = TokenBucket::full(2, SECOND, now);
        now = now + 1000 * SECOND;
        (0..5).for_each(|_| bucket.take(now));
        assert_eq!(bucket.next_token(now), now + SECOND);
    }
}
