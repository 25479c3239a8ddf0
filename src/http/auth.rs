//! Authentication: the token of the configuration in use, and a limit on attempts to guess it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use log::warn;
use ring::hmac;

use crate::clock::{Mono, Now};
use crate::secret::Secret;
use crate::thread::lock;
use crate::token_bucket::TokenBucket;

/// Between two log lines about wrong tokens.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Decides about every request but those for `/-/healthy`.
pub struct Authenticator {
    token: RwLock<Option<Arc<Token>>>,
    failures: Mutex<FailureLog>,
}

struct FailureLog {
    limiter: LoginLimiter,
    last_logged: Option<Mono>,
}

/// Whether a request may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No token is needed.
    Public,
    /// It has the token.
    Allowed,
    /// It has none, or a wrong one.
    Denied,
    /// Too many were wrong: this one is not even looked at, for so long.
    RetryAfter(Duration),
}

impl Authenticator {
    /// Wants this token; none makes everything public.
    pub fn new(token: Option<&Secret>) -> Authenticator {
        let limiter = LoginLimiter::new(Now::read().mono);
        let failures = Mutex::new(FailureLog { limiter, last_logged: None });
        Authenticator { token: RwLock::new(shared(token)), failures }
    }

    /// From now on wants this one.
    pub fn replace(&self, token: Option<&Secret>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = shared(token);
    }

    /// Decides by the `Authorization` of a request from `peer`. None at all is no attempt.
    pub fn check(&self, authorization: Option<&str>, peer: IpAddr, now: Mono) -> Decision {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(token) = token else { return Decision::Public };
        let Some(authorization) = authorization else { return Decision::Denied };
        let (decision, must_log) = lock(&self.failures).check(&token, authorization, peer, now);
        if must_log {
            warn!("{peer} has shown many wrong tokens and has to wait before it may show another");
        }
        decision
    }
}

impl FailureLog {
    /// The decision, and whether to log that `peer` has to wait from now on.
    fn check(
        &mut self,
        token: &Token,
        authorization: &str,
        peer: IpAddr,
        now: Mono,
    ) -> (Decision, bool) {
        if let Some(wait) = self.limiter.retry_after(peer, now) {
            return (Decision::RetryAfter(wait), false);
        }
        if token.authorizes(Some(authorization)) {
            return (Decision::Allowed, false);
        }
        let last_one = self.limiter.record_failure(peer, token.fingerprint(authorization), now);
        let must_log = last_one && self.last_logged.is_none_or(|at| now.since(at) >= LOG_PAUSE);
        if must_log {
            self.last_logged = Some(now);
        }
        (Decision::Denied, must_log)
    }
}

fn shared(token: Option<&Secret>) -> Option<Arc<Token>> {
    token.map(|secret| Arc::new(Token::new(secret)))
}

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The token, as Bearer or as the password of Basic (RFC 7617), kept so that comparing takes the
/// same time for every wrong one.
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    /// Wants `secret`.
    pub fn new(secret: &Secret) -> Token {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"heartbeat token");
        let tag = hmac::sign(&key, secret.reveal().as_bytes());
        Token { key, tag }
    }

    /// Whether the value of an `Authorization` header holds the token.
    pub fn authorizes(&self, authorization: Option<&str>) -> bool {
        let Some((scheme, credentials)) = authorization.and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            self.verify(credentials.as_bytes())
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(credentials).is_some_and(|password| self.verify(&password))
        } else {
            false
        }
    }

    /// Enough of an `Authorization` that was wrong to recognise it.
    pub fn fingerprint(&self, authorization: &str) -> u32 {
        let tag = hmac::sign(&self.key, authorization.as_bytes());
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        u32::from_be_bytes(first)
    }

    /// Compares digests, in constant time: neither content nor length leaks.
    fn verify(&self, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, self.tag.as_ref()).is_ok()
    }
}

fn password(credentials: &str) -> Option<Vec<u8>> {
    let clear = BASE64.decode(credentials).ok()?;
    let colon = clear.iter().position(|byte| *byte == b':')?;
    Some(clear[colon + 1..].to_vec())
}

/// Wrong tokens that an address may try at once.
const BURST: u32 = 10;
/// In this time an address gets one of them back.
const REFILL: Duration = Duration::from_secs(6);
/// Wrong tokens from everywhere, at once, and the time in which one is given back.
const BURST_OF_ALL: u32 = 100;
const REFILL_OF_ALL: Duration = Duration::from_millis(200);
/// Addresses that are remembered; those whose last attempt is oldest are forgotten first.
const MAX_ADDRESSES: usize = 1024;
/// Wrong tokens that are remembered of each.
const MAX_REMEMBERED: usize = 4;

/// A part of a token's digest: enough to recognise it, too little to know it by.
pub type Fingerprint = u32;

/// A limit on wrong tokens: how often an address may try one.
///
/// Each address has a few attempts, and gets them back with time. What keeps a good token out is
/// only what its own address did: while wrong ones come from everywhere at once, an address that
/// has tried before has to wait, and one that has not is let in. A token that was refused before is
/// no guess: a script that goes on with last year's token locks nothing out.
#[derive(Debug)]
pub struct LoginLimiter {
    by_address: HashMap<IpAddr, PeerAttempts>,
    all: TokenBucket,
}

#[derive(Debug)]
struct PeerAttempts {
    bucket: TokenBucket,
    last: Mono,
    wrong: [Option<Fingerprint>; MAX_REMEMBERED],
}

impl LoginLimiter {
    /// A limiter that knows of no attempts.
    pub fn new(now: Mono) -> LoginLimiter {
        let all = TokenBucket::full(BURST_OF_ALL, REFILL_OF_ALL, now);
        LoginLimiter { by_address: HashMap::new(), all }
    }

    /// How long `peer` has to wait before a token of it is checked; none when it need not.
    pub fn retry_after(&self, peer: IpAddr, now: Mono) -> Option<Duration> {
        let own = &self.by_address.get(&network(peer))?.bucket;
        // In a crowd, an address that has tried waits until all that it tried is given back.
        let until = match (own.has_token(now), self.all.has_token(now)) {
            (false, _) => own.next_token(now),
            (true, false) => own.full_at(now),
            (true, true) => return None,
        };
        Some(until.since(now)).filter(|wait| !wait.is_zero())
    }

    /// Counts a wrong token; true when it was the last one that `peer` may try for now.
    pub fn record_failure(&mut self, peer: IpAddr, wrong: Fingerprint, now: Mono) -> bool {
        let network = network(peer);
        if !self.by_address.contains_key(&network) && self.by_address.len() >= MAX_ADDRESSES {
            let oldest = self.by_address.iter().min_by_key(|(_, attempts)| attempts.last);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.by_address.remove(&oldest);
            }
        }
        let attempts = self.by_address.entry(network).or_insert_with(|| PeerAttempts {
            bucket: TokenBucket::full(BURST, REFILL, now),
            last: now,
            wrong: [None; MAX_REMEMBERED],
        });
        if attempts.wrong.contains(&Some(wrong)) {
            return false;
        }
        attempts.wrong.rotate_right(1);
        attempts.wrong[0] = Some(wrong);
        attempts.last = now;
        self.all.take(now);
        attempts.bucket.take(now);
        !attempts.bucket.has_token(now)
    }
}

/// An IPv6 address stands for its network: its host has the other 2^64 addresses, too.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_is_not_heard_even_with_the_token_and_others_are() {
        let authenticator = Authenticator::new(Some(&Secret::new("s3cret")));
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let (start, good) = (Mono(0), Some("Bearer s3cret"));
        assert_eq!(authenticator.check(None, guesser, start), Decision::Denied);
        assert_eq!(authenticator.check(good, guesser, start), Decision::Allowed);
        for n in 0..10 {
            let wrong = format!("Bearer {n}");
            assert_eq!(authenticator.check(Some(&wrong), guesser, start), Decision::Denied);
        }
        assert_eq!(
            authenticator.check(good, guesser, start),
            Decision::RetryAfter(Duration::from_secs(6))
        );
        assert_eq!(authenticator.check(None, guesser, start), Decision::Denied);
        assert_eq!(authenticator.check(good, other, start), Decision::Allowed);
        assert_eq!(authenticator.check(good, guesser, Mono(6000)), Decision::Allowed);
    }

    #[test]
    fn a_new_token_counts_at_once() {
        let authenticator = Authenticator::new(None);
        let peer = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(authenticator.check(None, peer, Mono(0)), Decision::Public);
        authenticator.replace(Some(&Secret::new("new")));
        assert_eq!(authenticator.check(None, peer, Mono(0)), Decision::Denied);
        assert_eq!(authenticator.check(Some("Bearer new"), peer, Mono(0)), Decision::Allowed);
        authenticator.replace(Some(&Secret::new("newer")));
        assert_eq!(authenticator.check(Some("Bearer new"), peer, Mono(0)), Decision::Denied);
    }

    #[test]
    fn the_token_opens_as_bearer_and_as_password() {
        let token = Token::new(&Secret::new("s3cr:et"));
        for (value, opens) in [
            (Some("Bearer s3cr:et"), true),
            (Some("bearer  s3cr:et "), true),
            (Some("Basic YWRtaW46czNjcjpldA=="), true),
            (Some("basic OnMzY3I6ZXQ"), true),
            (Some("Basic czNjcjpldA=="), false),
            (Some("Basic !!!"), false),
            (Some("Bearer s3cr:e"), false),
            (Some("Bearer "), false),
            (Some("Bearer"), false),
            (Some("s3cr:et"), false),
            (Some("Digest s3cr:et"), false),
            (None, false),
        ] {
            assert_eq!(token.authorizes(value), opens, "{value:?}");
        }
    }

    #[test]
    fn base64_is_read_as_the_rfc_has_it() {
        for (text, clear) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmE", "fooba")] {
            assert_eq!(BASE64.decode(text).unwrap(), clear.as_bytes());
        }
        assert!(BASE64.decode("Zg==Zg==").is_err());
    }

    const START: Mono = Mono(0);

    fn at(seconds: i64) -> Mono {
        Mono(seconds * 1000)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Tries `count` tokens that nobody tried before, `first` and on.
    fn guess(limiter: &mut LoginLimiter, peer: &str, first: Fingerprint, count: u32, now: Mono) {
        for n in 0..count {
            limiter.record_failure(address(peer), first + n, now);
        }
    }

    #[test]
    fn an_address_that_guesses_waits_and_no_other_does() {
        let mut limiter = LoginLimiter::new(START);
        guess(&mut limiter, "192.0.2.1", 0, 9, START);
        assert_eq!(limiter.retry_after(address("192.0.2.1"), START), None);
        assert!(limiter.record_failure(address("192.0.2.1"), 9, START), "that was the last one");
        assert_eq!(limiter.retry_after(address("192.0.2.1"), at(2)), Some(Duration::from_secs(4)));
        assert_eq!(limiter.retry_after(address("192.0.2.2"), START), None);
        assert_eq!(limiter.retry_after(address("192.0.2.1"), at(6)), None);
        guess(&mut limiter, "192.0.2.1", 20, 1, at(6));
        assert_eq!(limiter.retry_after(address("192.0.2.1"), at(6)), Some(Duration::from_secs(6)));
        assert_eq!(limiter.retry_after(address("192.0.2.1"), at(600)), None);
    }

    #[test]
    fn the_same_wrong_token_again_is_no_guess() {
        let mut limiter = LoginLimiter::new(START);
        for _ in 0..1000 {
            assert!(!limiter.record_failure(address("192.0.2.1"), 7, START));
        }
        assert_eq!(limiter.retry_after(address("192.0.2.1"), START), None);
    }

    #[test]
    fn an_ipv6_network_is_one_guesser() {
        let mut limiter = LoginLimiter::new(START);
        (0..10).for_each(|n| guess(&mut limiter, &format!("2001:db8::{n}"), n, 1, START));
        assert!(limiter.retry_after(address("2001:db8::ffff"), START).is_some());
        assert_eq!(limiter.retry_after(address("2001:db8:0:1::1"), START), None);
        guess(&mut limiter, "::ffff:192.0.2.1", 0, 10, START);
        assert!(limiter.retry_after(address("192.0.2.1"), START).is_some());
        assert_eq!(limiter.retry_after(address("192.0.2.2"), START), None);
    }

    #[test]
    fn guesses_from_everywhere_leave_one_to_each_address() {
        let mut limiter = LoginLimiter::new(START);
        (0..100).for_each(|n| guess(&mut limiter, &format!("198.51.100.{n}"), n, 1, START));
        assert_eq!(
            limiter.retry_after(address("198.51.100.1"), START),
            Some(Duration::from_secs(6))
        );
        assert_eq!(limiter.retry_after(address("192.0.2.1"), START), None, "it tried nothing");
        assert_eq!(limiter.retry_after(address("198.51.100.1"), at(6)), None);
        assert_eq!(limiter.retry_after(address("198.51.100.1"), at(60)), None);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_remembered() {
        let mut limiter = LoginLimiter::new(START);
        for n in 0..5000u32 {
            let peer = IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
            limiter.record_failure(peer, n, Mono(i64::from(n)));
        }
        assert_eq!(limiter.by_address.len(), MAX_ADDRESSES);
        assert!(limiter.by_address.contains_key(&IpAddr::from([10, 0, 19, 135])));
    }
}
