//! A little randomness for the delays of many daemons. Pure.

/// xorshift64: enough to keep many daemons from retrying at the same moment.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A sequence for each seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// The next number, between `low` and `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[allow(clippy::cast_precision_loss, reason = "53 bits are kept")]
        let unit = (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }
}
