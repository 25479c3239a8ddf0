//! Authentication: the token of the configuration in use, and a limit on attempts to guess it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use log::warn;
use ring::hmac;

use super::client_address::{TrustedProxies, network};
use super::routes::Route;
use super::{Credentials, PublicHosts};
use crate::clock::Mono;
use crate::secret::Secret;
use crate::thread::lock;
use crate::token_bucket::TokenBucket;

/// Between two log lines about wrong tokens.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Decides about every request but those for `/-/healthy`.
pub struct Authenticator {
    rules: RwLock<Arc<AccessRules>>,
    failures: Mutex<FailureLog>,
}

struct AccessRules {
    token: Option<AccessToken>,
    proxies: TrustedProxies,
    public: Arc<PublicHosts>,
}

#[derive(Default)]
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
    /// It has a wrong one, as too many had before: no more guesses for so long.
    RetryAfter(Duration),
}

impl Authenticator {
    /// Wants the token of `credentials`; none makes everything public.
    pub fn new(credentials: &Credentials) -> Authenticator {
        let rules = RwLock::new(Arc::new(AccessRules::new(credentials)));
        Authenticator { rules, failures: Mutex::default() }
    }

    /// From now on wants that of these.
    pub fn replace(&self, credentials: &Credentials) {
        let rules = Arc::new(AccessRules::new(credentials));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The address of the client that `peer`, which may be a proxy, speaks for.
    pub fn client(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        self.rules().proxies.client(peer, forwarded_for)
    }

    /// What is shown without the token, too.
    pub fn public(&self) -> Arc<PublicHosts> {
        Arc::clone(&self.rules().public)
    }

    /// Whether a token is wanted, but not for this.
    pub fn opens(&self, route: &Route) -> bool {
        let rules = self.rules();
        rules.token.is_some() && rules.public.covers(route)
    }

    /// Decides by the `Authorization` of a request from `client`. None at all is no attempt. The
    /// right token is let in whatever came from that address before: others may share it.
    pub fn check(&self, authorization: Option<&str>, client: IpAddr, now: Mono) -> Decision {
        let rules = self.rules();
        let Some(token) = &rules.token else { return Decision::Public };
        let Some(authorization) = authorization else { return Decision::Denied };
        if token.authorizes(authorization) {
            return Decision::Allowed;
        }
        let fingerprint = token.fingerprint(authorization);
        let (decision, must_log) = lock(&self.failures).record(client, fingerprint, now);
        if must_log {
            warn!(
                "{client} has shown many wrong tokens: more of them are answered with status 429; if \
                 that is a proxy of yours, name it in receiver.trusted_proxies"
            );
        }
        decision
    }

    fn rules(&self) -> Arc<AccessRules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AccessRules {
    fn new(credentials: &Credentials) -> AccessRules {
        let proxies = credentials.trusted_proxies.clone();
        let public = Arc::clone(&credentials.public);
        AccessRules { token: credentials.token.as_ref().map(AccessToken::new), proxies, public }
    }
}

impl FailureLog {
    /// The decision about a wrong token, and whether to log that `client` has to wait from now on.
    fn record(&mut self, client: IpAddr, wrong: Fingerprint, now: Mono) -> (Decision, bool) {
        if let Some(wait) = self.limiter.retry_after(client, now) {
            return (Decision::RetryAfter(wait), false);
        }
        let last_one = self.limiter.record_failure(client, wrong, now);
        let must_log = last_one && self.last_logged.is_none_or(|at| now.since(at) >= LOG_PAUSE);
        if must_log {
            self.last_logged = Some(now);
        }
        (Decision::Denied, must_log)
    }
}

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The token, as Bearer or as the password of Basic (RFC 7617), kept so that comparing takes the
/// same time for every wrong one.
pub struct AccessToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl AccessToken {
    /// Wants `secret`.
    pub fn new(secret: &Secret) -> AccessToken {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"heartbeat token");
        let tag = hmac::sign(&key, secret.reveal().as_bytes());
        AccessToken { key, tag }
    }

    /// Whether the value of an `Authorization` header holds the token.
    pub fn authorizes(&self, authorization: &str) -> bool {
        let Some((scheme, credentials)) = authorization.split_once(' ') else { return false };
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
/// Addresses that are remembered; those whose last attempt is oldest are forgotten first.
const MAX_ADDRESSES: usize = 1024;
/// Wrong tokens that are remembered of each.
const MAX_REMEMBERED: usize = 4;

/// A part of a token's digest: enough to recognise it, too little to know it by.
pub type Fingerprint = u32;

/// A limit on wrong tokens: how often an address may try one.
///
/// Each address has a few attempts, and gets them back with time. A token that was refused before is
/// no guess: a script that goes on with last year's token has to wait for nothing.
#[derive(Debug, Default)]
pub struct LoginLimiter {
    by_address: HashMap<IpAddr, PeerAttempts>,
}

#[derive(Debug)]
struct PeerAttempts {
    bucket: TokenBucket,
    last: Mono,
    wrong: [Option<Fingerprint>; MAX_REMEMBERED],
}

impl LoginLimiter {
    /// How long `peer` has to wait before it may try a wrong token again; none when it need not.
    pub fn retry_after(&self, peer: IpAddr, now: Mono) -> Option<Duration> {
        let attempts = self.by_address.get(&network(peer))?;
        Some(attempts.bucket.next_token(now).since(now)).filter(|wait| !wait.is_zero())
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
        attempts.bucket.take(now);
        !attempts.bucket.has_token(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials { token: token.map(Secret::new), ..Credentials::default() }
    }

    #[test]
    fn the_right_token_is_let_in_among_guesses_from_its_own_address() {
        let authenticator = Authenticator::new(&credentials(Some("s3cret")));
        let shared = IpAddr::from([192, 0, 2, 1]);
        let (start, basic) = (Mono(0), Some("Basic YWRtaW46czNjcmV0"));
        assert_eq!(authenticator.check(None, shared, start), Decision::Denied);
        for n in 0..100 {
            let wrong = format!("Bearer {n}");
            let wait = Decision::RetryAfter(Duration::from_secs(6));
            let expected = if n < 10 { Decision::Denied } else { wait };
            assert_eq!(authenticator.check(Some(&wrong), shared, start), expected, "{n}");
            let good = Some("Bearer s3cret");
            assert_eq!(authenticator.check(good, shared, start), Decision::Allowed);
            assert_eq!(authenticator.check(basic, shared, start), Decision::Allowed);
        }
        assert_eq!(authenticator.check(None, shared, start), Decision::Denied);
    }

    #[test]
    fn a_new_token_counts_at_once() {
        let authenticator = Authenticator::new(&credentials(None));
        let peer = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(authenticator.check(None, peer, Mono(0)), Decision::Public);
        authenticator.replace(&credentials(Some("new")));
        assert_eq!(authenticator.check(None, peer, Mono(0)), Decision::Denied);
        assert_eq!(authenticator.check(Some("Bearer new"), peer, Mono(0)), Decision::Allowed);
        authenticator.replace(&credentials(Some("newer")));
        assert_eq!(authenticator.check(Some("Bearer new"), peer, Mono(0)), Decision::Denied);
    }

    #[test]
    fn the_token_opens_as_bearer_and_as_password() {
        let token = AccessToken::new(&Secret::new("s3cr:et"));
        for (value, opens) in [
            ("Bearer s3cr:et", true),
            ("bearer  s3cr:et ", true),
            ("Basic YWRtaW46czNjcjpldA==", true),
            ("basic OnMzY3I6ZXQ", true),
            ("Basic czNjcjpldA==", false),
            ("Basic !!!", false),
            ("Bearer s3cr:e", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("s3cr:et", false),
            ("Digest s3cr:et", false),
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
        let mut limiter = LoginLimiter::default();
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
        let mut limiter = LoginLimiter::default();
        for _ in 0..1000 {
            assert!(!limiter.record_failure(address("192.0.2.1"), 7, START));
        }
        assert_eq!(limiter.retry_after(address("192.0.2.1"), START), None);
    }

    #[test]
    fn an_ipv6_network_is_one_guesser() {
        let mut limiter = LoginLimiter::default();
        (0..10).for_each(|n| guess(&mut limiter, &format!("2001:db8::{n}"), n, 1, START));
        assert!(limiter.retry_after(address("2001:db8::ffff"), START).is_some());
        assert_eq!(limiter.retry_after(address("2001:db8:0:1::1"), START), None);
        guess(&mut limiter, "::ffff:192.0.2.1", 0, 10, START);
        assert!(limiter.retry_after(address("192.0.2.1"), START).is_some());
        assert_eq!(limiter.retry_after(address("192.0.2.2"), START), None);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_remembered() {
        let mut limiter = LoginLimiter::default();
        for n in 0..5000u32 {
            let peer = IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
            limiter.record_failure(peer, n, Mono(i64::from(n)));
        }
        assert_eq!(limiter.by_address.len(), MAX_ADDRESSES);
        assert!(limiter.by_address.contains_key(&IpAddr::from([10, 0, 19, 135])));
    }
}
