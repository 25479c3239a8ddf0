//! Authentication of datagrams: HMAC keys, the key before each while it is being changed, whether the
//! time in a signed datagram is fresh, and whose clock is wrong when it is not. Pure.

use std::time::Duration;

use ring::hmac;

use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::datagram::Rejection;
use crate::heartbeat::encode;
use crate::secret::Secret;

/// What is signed to derive the id of a key.
const KEY_ID_INPUT: &[u8] = b"heartbeat key";

/// The keys of a host, or of all hosts that have none of their own.
#[derive(Debug)]
pub struct HostKeys {
    current: SigningKey,
    previous: Option<Box<SigningKey>>,
}

#[derive(Debug)]
struct SigningKey {
    key: hmac::Key,
    /// What tells it from other keys, also over a restart; never 0.
    id: u32,
}

impl SigningKey {
    fn new(secret: &Secret) -> SigningKey {
        let key = encode::signing_key(secret);
        let signature = hmac::sign(&key, KEY_ID_INPUT);
        let id = signature.as_ref().iter().take(4).fold(0, |id, byte| id << 8 | u32::from(*byte));
        SigningKey { key, id: id.max(1) }
    }
}

impl HostKeys {
    /// From the configuration.
    pub fn new(current: &Secret, previous: Option<&Secret>) -> HostKeys {
        let previous = previous.map(|previous| Box::new(SigningKey::new(previous)));
        HostKeys { current: SigningKey::new(current), previous }
    }

    /// The id of the key that the JSON was signed with; none when it was neither.
    pub fn verify(&self, json: &[u8], signature: &[u8; 32]) -> Option<u32> {
        let signed = |key: &&SigningKey| encode::verify(&key.key, json, signature);
        self.keys().find(signed).map(|key| key.id)
    }

    /// The key with this id.
    pub fn by_id(&self, id: u32) -> Option<&hmac::Key> {
        self.keys().find(|key| key.id == id).map(|key| &key.key)
    }

    fn keys(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.current).chain(self.previous.as_deref())
    }

    /// Whether that is the id of the previous key.
    pub fn is_previous(&self, id: u32) -> bool {
        id != self.current.id && self.previous.as_ref().is_some_and(|previous| previous.id == id)
    }
}

/// This many hosts that are off by the same show that it is our own clock that is wrong.
const QUORUM: usize = 3;

/// Whether our own wall clock is right, as far as signed datagrams show it.
///
/// A machine without a battery begins in 1970, or at the time of its last stop, until NTP sets it;
/// and any clock can be set wrongly. By such a clock every signed datagram is stale, and all hosts
/// would be overdue at once although they beat. So:
///
/// - While our clock shows a time before 2024, or one that it had passed before the start, it is
///   not asked: a datagram is fresh when it is later than the last one of its connection. That
///   ends when our clock is past that time, or when a signed datagram agrees with it.
/// - Else a datagram that is off by more than the skew is not applied, but it shows that a sender with
///   the key is alive, and it is newer than all before it. Whose clock is wrong cannot be known: the
///   deadline of its connection is extended by one interval and grace, once. When three hosts are off
///   by the same and no host agrees with us, it is our clock, and their deadlines are extended again
///   with each datagram, for as long as they send any. That of a silent host is never extended.
#[derive(Debug, Default)]
pub struct ClockCheck {
    /// The time that our clock had reached before the start.
    passed: Wall,
    /// When a signed datagram agreed with it last.
    last_agreement: Mono,
    /// How far those were ahead of it that did not agree since, in microseconds.
    offset: i64,
    /// The hosts that were off by about as much; three are enough.
    disagreeing_hosts: Vec<u32>,
}

impl ClockCheck {
    /// Our clock showed this time before the start.
    pub fn observe_past(&mut self, wall: Wall) {
        self.passed = self.passed.max(wall);
    }

    /// Checks the time of a signed datagram against our clock and against the `last` one of its
    /// connection, both in microseconds; whether it agrees with our clock.
    ///
    /// # Errors
    /// [`Rejection::Stale`] or [`Rejection::Replay`].
    pub fn check_freshness(
        &self,
        time: i64,
        last: Option<i64>,
        skew: Duration,
        now: Now,
    ) -> Result<bool, Rejection> {
        let (ours, skew) = (micros(now.wall), length(skew));
        let agrees = time.abs_diff(ours) <= skew.unsigned_abs();
        let doubted = !now.wall.is_plausible() || now.wall < self.passed;
        if !agrees && !doubted {
            return Err(Rejection::Stale);
        }
        // A time from beyond the skew was taken while our own clock was wrong. It must not shut
        // the host out until that time comes.
        let counts = |last: i64| doubted || last <= ours.saturating_add(skew);
        match last {
            Some(last) if time <= last && counts(last) => Err(Rejection::Replay),
            Some(_) | None => Ok(agrees),
        }
    }

    /// A signed datagram agreed with our clock.
    pub fn record_agreement(&mut self, now: Now) {
        self.last_agreement = now.mono;
        self.passed = self.passed.min(now.wall);
        self.disagreeing_hosts.clear();
    }

    /// A signed datagram of `host`, newer than its last one, was off by more than the skew. Whether the
    /// deadline of its connection is to be extended, where that was done last at `last_extended`.
    pub fn record_disagreement(
        &mut self,
        host: u32,
        time: i64,
        skew: Duration,
        last_extended: Option<Mono>,
        now: Now,
    ) -> bool {
        let offset = time.saturating_sub(micros(now.wall));
        if offset.abs_diff(self.offset) > length(skew).unsigned_abs() {
            self.offset = offset;
            self.disagreeing_hosts.clear();
        }
        if self.disagreeing_hosts.len() < QUORUM && !self.disagreeing_hosts.contains(&host) {
            self.disagreeing_hosts.push(host);
        }
        let ours_is_wrong = self.disagreeing_hosts.len() == QUORUM;
        last_extended.is_none_or(|extended| ours_is_wrong && self.last_agreement < extended)
    }

    /// Hosts have other indexes from now on.
    pub fn forget_disagreements(&mut self) {
        self.disagreeing_hosts.clear();
    }
}

fn micros(wall: Wall) -> i64 {
    wall.0.saturating_mul(1000)
}

fn length(skew: Duration) -> i64 {
    i64::try_from(skew.as_micros()).unwrap_or(i64::MAX)
}
