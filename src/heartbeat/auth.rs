//! Authentication of datagrams: HMAC keys, the key before each while it is being changed, whether the
//! time in a signed datagram is fresh, and whose clock is wrong when it is not. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ring::hmac;

use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::datagram::{self, ReceivedDatagram, Rejection};
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

/// Checks the signature of a datagram of a host with these keys: the id of the key and the time in it, in
/// microseconds since 1970; none when it needs no signature.
///
/// # Errors
/// When a signature is missing, wrong, or one that no key is known for: its sender thinks that it is
/// checked.
pub fn check_signature(
    received: &ReceivedDatagram,
    keys: Option<&HostKeys>,
) -> Result<Option<(u32, i64)>, Rejection> {
    let (keys, signature) = match (keys, &received.signature) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(Rejection::BadSignature),
        (Some(_), None) => return Err(Rejection::Unsigned),
        (Some(keys), Some(signature)) => (keys, signature),
    };
    let key_id = keys.verify(received.json, signature).ok_or(Rejection::BadSignature)?;
    let time = received.datagram.time.as_ref();
    let time = time.ok_or(Rejection::BadField(datagram::TIME_WANTED))?.micros;
    Ok(Some((key_id, time)))
}

/// The names of connections that have none of their own.
pub const DEFAULT_CONNECTION_NAMES: [&str; 2] = ["ipv4", "ipv6"];

/// The name of a connection that has none: by the sender's address.
pub fn default_connection_name(from: IpAddr) -> &'static str {
    DEFAULT_CONNECTION_NAMES[usize::from(from.to_canonical().is_ipv6())]
}

/// This many hosts that are off by the same show that it is our own clock that is wrong.
const QUORUM: usize = 3;

/// A host whose clock and ours were both set back is let in again when it is past its last time, after as
/// long as this at most.
const MAX_REWIND: Duration = Duration::from_secs(24 * 3600);

/// The connections whose clocks differ from ours are remembered up to this number.
const MAX_DIFFERENCES: usize = 1024;

/// The time in a signed datagram, and what is known of its sender; in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct SignedTime {
    /// That time.
    pub time: i64,
    /// The last one of its connection.
    pub last: Option<i64>,
    /// What the clock of its host was ahead of our monotonic one, when it agreed with our wall clock.
    pub offset: Option<i64>,
}

/// What shows that a signed datagram is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeProof {
    /// Its time agrees with our wall clock.
    Agrees,
    /// It does not, but it has gone on as our monotonic clock has: our wall clock has moved.
    GoesOn,
    /// Our wall clock is not asked, and it is later than the last one.
    Later,
}

/// Which connection: the indexes of the host, and of the connection where that is known.
pub type ConnectionKey = (u32, Option<u8>);

/// How a clock differed from ours in the last signed datagram that was not believed for that.
#[derive(Clone, Copy, Debug)]
struct ClockDifference {
    /// The time in the datagram.
    time: i64,
    /// When it came.
    at: Now,
}

/// Whether our own wall clock is right, as far as signed datagrams show it.
///
/// A machine without a battery begins in 1970, or at the time of its last stop, until NTP sets it;
/// and any clock can be set wrongly. By such a clock every signed datagram is stale, and all hosts
/// would be overdue at once although they beat. So:
///
/// - While the clock of a host agrees with our wall clock, what it is ahead of our monotonic clock is
///   remembered, also over a restart. When our wall clock moves, the host's goes on by the monotonic
///   one, which nobody sets: its datagrams are as fresh as before, however few hosts there are.
/// - While our clock shows a time before 2024, or one that it had passed before the start, it is
///   not asked: a datagram is fresh when it is later than the last one of its connection. That
///   ends when our clock is past that time, or when a signed datagram agrees with it.
/// - Else a datagram that is off by more than the skew is not applied, but it shows that a sender with
///   the key is alive, and it is newer than all before it. Whose clock is wrong cannot be known: the
///   deadline of its connection is extended by one interval and grace, once, and when that has passed,
///   too, people are told how much the clocks differ. When three hosts are off by the same and no host
///   agrees with us, it is our clock, and their deadlines are extended again with each datagram, for
///   as long as they send any. That of a silent host is never extended.
///
/// In any case a datagram is later than the last one of its connection, whatever our clock shows: one
/// that was recorded is never believed again. There is one exception, a host that was let in while its
/// clock and ours were wrong, and whose clock was set back since.
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
    differences: HashMap<ConnectionKey, ClockDifference>,
}

impl ClockCheck {
    /// Our clock showed this time before the start.
    pub fn observe_past(&mut self, wall: Wall) {
        self.passed = self.passed.max(wall);
    }

    /// Checks the time of a signed datagram against our clocks and against what is known of its sender.
    ///
    /// # Errors
    /// [`Rejection::Stale`] or [`Rejection::Replay`].
    pub fn check_freshness(
        &self,
        signed: SignedTime,
        skew: Duration,
        now: Now,
    ) -> Result<TimeProof, Rejection> {
        let SignedTime { time, last, offset } = signed;
        let (ours, skew) = (micros(now.wall.0), length(skew));
        let expected = offset.map(|offset| micros(now.mono.0).saturating_add(offset));
        let close = |to: i64| time.abs_diff(to) <= skew.unsigned_abs();
        let doubted = !now.wall.is_plausible() || now.wall < self.passed;
        let freshness = match expected {
            _ if close(ours) => TimeProof::Agrees,
            Some(expected) if close(expected) => TimeProof::GoesOn,
            _ if doubted => TimeProof::Later,
            _ => return Err(Rejection::Stale),
        };
        // A time from beyond the skew was taken while our own clock was wrong. It must not shut
        // the host out until that time comes: unless its clock was right by then, and ours was set
        // back.
        let believed =
            |last: i64| expected.is_some_and(|expected| last <= expected.saturating_add(skew));
        let counts = |last: i64| {
            let ahead = last.saturating_sub(ours);
            doubted
                || freshness != TimeProof::Agrees
                || ahead <= skew
                || ahead <= length(MAX_REWIND) && believed(last)
        };
        match last {
            Some(last) if time <= last && counts(last) => Err(Rejection::Replay),
            Some(_) | None => Ok(freshness),
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
        let offset = time.saturating_sub(micros(now.wall.0));
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

    /// A signed datagram over that connection, newer than its last one, was not believed at `now`,
    /// because the clocks differ.
    pub fn record_difference(&mut self, key: ConnectionKey, time: i64, now: Now) {
        if let Some(known) = self.differences.get_mut(&key) {
            if time > known.time {
                *known = ClockDifference { time, at: now };
            }
            return;
        }
        if self.differences.len() == MAX_DIFFERENCES {
            self.differences.retain(|_, one| now.mono.since(one.at.mono) < MAX_REWIND);
        }
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.insert(key, ClockDifference { time, at: now });
        }
    }

    /// By how much the clock of that connection differs from ours, where datagrams came after `since`
    /// that were not believed for that.
    pub fn difference(&self, key: ConnectionKey, since: Mono) -> Option<Duration> {
        let found = self.differences.get(&key).filter(|found| found.at.mono > since)?;
        Some(Duration::from_micros(found.time.abs_diff(micros(found.at.wall.0))))
    }

    /// Hosts have other indexes from now on.
    pub fn forget_disagreements(&mut self) {
        self.disagreeing_hosts.clear();
        self.differences.clear();
    }
}

/// What the clock of a host is ahead of our monotonic one after a signed datagram, in microseconds;
/// none as long as it never agreed with our wall clock. A datagram that was held up on its way takes
/// nothing off it, or each could be held up a little longer than the one before.
pub fn clock_offset(signed: SignedTime, freshness: TimeProof, now: Now) -> Option<i64> {
    let ahead = signed.time.saturating_sub(micros(now.mono.0));
    match freshness {
        TimeProof::Agrees => Some(ahead),
        TimeProof::GoesOn => signed.offset.map(|known| known.max(ahead)),
        TimeProof::Later => signed.offset,
    }
}

fn micros(millis: i64) -> i64 {
    millis.saturating_mul(1000)
}

fn length(skew: Duration) -> i64 {
    i64::try_from(skew.as_micros()).unwrap_or(i64::MAX)
}
