//! Who is let in: the token of the configuration in use, and whoever tried too many wrong ones.

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

/// Between two lines of the log about guessers.
const QUIET: Duration = Duration::from_secs(60);

/// Stands before everything but `/-/healthy`.
pub struct Guard {
    token: RwLock<Option<Arc<Token>>>,
    attempts: Mutex<Guesses>,
}

struct Guesses {
    attempts: Attempts,
    told: Option<Mono>,
}

/// What the guard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No token is asked for.
    Open,
    /// It was the token.
    Admitted,
    /// There was none, or it was wrong.
    Refused,
    /// Too many were wrong: this one is not even looked at, for so long.
    Later(Duration),
}

impl Guard {
    /// Asks for this token.
    pub fn new(token: Option<&Secret>) -> Guard {
        let guesses = Guesses { attempts: Attempts::new(Now::read().mono), told: None };
        Guard { token: RwLock::new(wanted(token)), attempts: Mutex::new(guesses) }
    }

    /// From now on asks for this one.
    pub fn replace(&self, token: Option<&Secret>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = wanted(token);
    }

    /// Judges the `Authorization` of a request from `peer`. Whoever shows none has tried nothing.
    pub fn judge(&self, authorization: Option<&str>, peer: IpAddr, now: Mono) -> Admission {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(token) = token else { return Admission::Open };
        let Some(authorization) = authorization else { return Admission::Refused };
        let mut guesses = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = guesses.attempts.wait(peer, now) {
            return Admission::Later(wait);
        }
        if token.admits(Some(authorization)) {
            return Admission::Admitted;
        }
        if guesses.attempts.failed(peer, token.print(authorization), now)
            && guesses.told.is_none_or(|at| now.since(at) >= QUIET)
        {
            guesses.told = Some(now);
            warn!("{peer} has shown many wrong tokens and has to wait before it may show another");
        }
        Admission::Refused
    }
}

fn wanted(token: Option<&Secret>) -> Option<Arc<Token>> {
    token.map(|secret| Arc::new(Token::new(secret)))
}

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The token that is wanted, kept so that comparing takes the same time for every wrong one.
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
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let Some((scheme, credentials)) = authorization.and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            self.is(credentials.as_bytes())
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(credentials).is_some_and(|password| self.is(&password))
        } else {
            false
        }
    }

    /// Of an `Authorization` that was wrong, enough to know it again.
    pub fn print(&self, authorization: &str) -> u32 {
        let tag = hmac::sign(&self.key, authorization.as_bytes());
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        u32::from_be_bytes(first)
    }

    /// Compares digests, in constant time: neither content nor length leaks.
    fn is(&self, given: &[u8]) -> bool {
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
/// So many addresses are remembered; the ones that tried longest ago are forgotten first.
const ADDRESSES: usize = 1024;
/// So many wrong tokens are remembered of each.
const REMEMBERED: usize = 4;

/// A part of a token's digest: enough to know it again, too little to know it by.
pub type Print = u32;

/// Who tried what.
#[derive(Debug)]
pub struct Attempts {
    by_address: HashMap<IpAddr, Tries>,
    all: Bucket,
}

#[derive(Debug)]
struct Tries {
    bucket: Bucket,
    wrong: [Option<Print>; REMEMBERED],
}

impl Attempts {
    /// Nobody has tried anything.
    pub fn new(now: Mono) -> Attempts {
        Attempts { by_address: HashMap::new(), all: Bucket::full(BURST_OF_ALL, REFILL_OF_ALL, now) }
    }

    /// How long `peer` has to wait before a token is looked at; none when it is at once.
    pub fn wait(&mut self, peer: IpAddr, now: Mono) -> Option<Duration> {
        let crowded = self.all.wait(now);
        let tries = self.by_address.get_mut(&network(peer))?;
        let own = tries.bucket.wait(now);
        // In a crowd, whoever has tried waits until all that it tried is given back.
        own.or(crowded.and(tries.bucket.wait_until_full(now)))
    }

    /// Counts a wrong token; true when it was the last one that `peer` may try for now.
    pub fn failed(&mut self, peer: IpAddr, print: Print, now: Mono) -> bool {
        let network = network(peer);
        if !self.by_address.contains_key(&network) && self.by_address.len() >= ADDRESSES {
            let oldest = self.by_address.iter().min_by_key(|(_, tries)| tries.bucket.touched);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.by_address.remove(&oldest);
            }
        }
        let tries = self.by_address.entry(network).or_insert_with(|| Tries {
            bucket: Bucket::full(BURST, REFILL, now),
            wrong: [None; REMEMBERED],
        });
        if tries.wrong.contains(&Some(print)) {
            return false;
        }
        tries.wrong.rotate_right(1);
        tries.wrong[0] = Some(print);
        self.all.take(now);
        tries.bucket.take(now);
        tries.bucket.wait(now).is_some()
    }
}

/// Who has one IPv6 address has the other 2^64 of its network, too.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// A number that grows back with time.
#[derive(Debug)]
struct Bucket {
    most: u32,
    left: u32,
    refill: Duration,
    /// Since when the next one is on its way.
    since: Mono,
    touched: Mono,
}

impl Bucket {
    fn full(most: u32, refill: Duration, now: Mono) -> Bucket {
        Bucket { most, left: most, refill, since: now, touched: now }
    }

    fn grow(&mut self, now: Mono) {
        let passed = now.since(self.since).as_millis() / self.refill.as_millis();
        let back = u32::try_from(passed).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(back).min(self.most);
        self.since = if self.left == self.most { now } else { self.since + self.refill * back };
    }

    fn take(&mut self, now: Mono) {
        self.grow(now);
        self.left = self.left.saturating_sub(1);
        self.touched = now;
    }

    fn wait(&mut self, now: Mono) -> Option<Duration> {
        self.grow(now);
        (self.left == 0).then(|| self.refill.saturating_sub(now.since(self.since)))
    }

    fn wait_until_full(&mut self, now: Mono) -> Option<Duration> {
        self.grow(now);
        let missing = self.most - self.left;
        let whole = (self.refill * missing).saturating_sub(now.since(self.since));
        (missing > 0).then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_is_not_heard_even_with_the_token_and_others_are() {
        let guard = Guard::new(Some(&Secret::new("s3cret")));
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let (start, good) = (Mono(0), Some("Bearer s3cret"));
        assert_eq!(guard.judge(None, guesser, start), Admission::Refused);
        assert_eq!(guard.judge(good, guesser, start), Admission::Admitted);
        for n in 0..10 {
            let wrong = format!("Bearer {n}");
            assert_eq!(guard.judge(Some(&wrong), guesser, start), Admission::Refused);
        }
        assert_eq!(guard.judge(good, guesser, start), Admission::Later(Duration::from_secs(6)));
        assert_eq!(guard.judge(None, guesser, start), Admission::Refused);
        assert_eq!(guard.judge(good, other, start), Admission::Admitted);
        assert_eq!(guard.judge(good, guesser, Mono(6000)), Admission::Admitted);
    }

    #[test]
    fn a_new_token_counts_at_once() {
        let guard = Guard::new(None);
        let peer = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(guard.judge(None, peer, Mono(0)), Admission::Open);
        guard.replace(Some(&Secret::new("new")));
        assert_eq!(guard.judge(None, peer, Mono(0)), Admission::Refused);
        assert_eq!(guard.judge(Some("Bearer new"), peer, Mono(0)), Admission::Admitted);
        guard.replace(Some(&Secret::new("newer")));
        assert_eq!(guard.judge(Some("Bearer new"), peer, Mono(0)), Admission::Refused);
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
            assert_eq!(token.admits(value), opens, "{value:?}");
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
    fn guess(attempts: &mut Attempts, peer: &str, first: Print, count: u32, now: Mono) {
        for n in 0..count {
            attempts.failed(address(peer), first + n, now);
        }
    }

    #[test]
    fn an_address_that_guesses_waits_and_no_other_does() {
        let mut attempts = Attempts::new(START);
        guess(&mut attempts, "192.0.2.1", 0, 9, START);
        assert_eq!(attempts.wait(address("192.0.2.1"), START), None);
        assert!(attempts.failed(address("192.0.2.1"), 9, START), "that was the last one");
        assert_eq!(attempts.wait(address("192.0.2.1"), at(2)), Some(Duration::from_secs(4)));
        assert_eq!(attempts.wait(address("192.0.2.2"), START), None);
        assert_eq!(attempts.wait(address("192.0.2.1"), at(6)), None);
        guess(&mut attempts, "192.0.2.1", 20, 1, at(6));
        assert_eq!(attempts.wait(address("192.0.2.1"), at(6)), Some(Duration::from_secs(6)));
        assert_eq!(attempts.wait(address("192.0.2.1"), at(600)), None);
    }

    #[test]
    fn the_same_wrong_token_again_is_no_guess() {
        let mut attempts = Attempts::new(START);
        for _ in 0..1000 {
            assert!(!attempts.failed(address("192.0.2.1"), 7, START));
        }
        assert_eq!(attempts.wait(address("192.0.2.1"), START), None);
    }

    #[test]
    fn an_ipv6_network_is_one_guesser() {
        let mut attempts = Attempts::new(START);
        (0..10).for_each(|n| guess(&mut attempts, &format!("2001:db8::{n}"), n, 1, START));
        assert!(attempts.wait(address("2001:db8::ffff"), START).is_some());
        assert_eq!(attempts.wait(address("2001:db8:0:1::1"), START), None);
        guess(&mut attempts, "::ffff:192.0.2.1", 0, 10, START);
        assert!(attempts.wait(address("192.0.2.1"), START).is_some());
        assert_eq!(attempts.wait(address("192.0.2.2"), START), None);
    }

    #[test]
    fn guesses_from_everywhere_leave_one_to_each_address() {
        let mut attempts = Attempts::new(START);
        (0..100).for_each(|n| guess(&mut attempts, &format!("198.51.100.{n}"), n, 1, START));
        assert_eq!(attempts.wait(address("198.51.100.1"), START), Some(Duration::from_secs(6)));
        assert_eq!(attempts.wait(address("192.0.2.1"), START), None, "it tried nothing");
        assert_eq!(attempts.wait(address("198.51.100.1"), at(6)), None);
        assert_eq!(attempts.wait(address("198.51.100.1"), at(60)), None);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_remembered() {
        let mut attempts = Attempts::new(START);
        for n in 0..5000u32 {
            let peer = IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
            attempts.failed(peer, n, Mono(i64::from(n)));
        }
        assert_eq!(attempts.by_address.len(), ADDRESSES);
        assert!(attempts.by_address.contains_key(&IpAddr::from([10, 0, 19, 135])));
    }
}
