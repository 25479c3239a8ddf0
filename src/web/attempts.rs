//! How often somebody may try a wrong token. Pure.
//!
//! Each address has a few attempts, and gets them back with time. What keeps a good token out is
//! only what its own address did: while wrong ones come from everywhere at once, an address that
//! has tried before has to wait, and one that has not is heard. A token that was refused before is
//! no guess: a script that goes on with last year's token locks nobody out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::clock::Mono;

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
