//! When a node asks for the lease, and when it renews it. Pure.
//!
//! ```text
//!            held by another           free for long enough, or a dead predecessor's
//!  probing <-----------------> probing ---------------------> acquiring
//!     ^                                                           |  confirmed by replicas
//!     |           given back: too few replicas confirmed it       v
//!     +------------------------------------------------------- leading --> deposed
//!                                                            renews, also when the lease ran out
//! ```

use std::time::Duration;

use super::token::Token;
use crate::clock::Mono;

/// How often the lease is looked at while another node holds it: so long nothing leads after a leader
/// that gave it back.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// After a failure it is tried again so soon.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How much longer than others a node waits that has not heard all hosts yet, or that has another
/// configuration than the last leader.
const HANDICAP: Duration = Duration::from_millis(500);

/// Who lost the lease twice within this time waits one TTL longer.
const FLAP_WINDOW: Duration = Duration::from_secs(60);

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Nothing before this time.
    WaitUntil(Mono),
    /// See who holds the lease.
    Probe,
    /// Ask for it.
    Acquire,
    /// Renew it.
    Renew,
}

/// Who this node is, and what is known before the start.
#[derive(Clone, Debug)]
pub struct LeaseIdentity {
    /// `cluster.node`.
    pub node: String,
    /// Which process of it this is.
    pub incarnation: String,
    /// The TTL of the lease.
    pub ttl: Duration,
    /// Whether it may lead at all.
    pub may_lead: bool,
    /// Whether every other process of this node is known to be dead.
    pub predecessor_dead: bool,
    /// When this node lost the lease to another one lately.
    pub lost_at: Vec<Mono>,
}

/// What a node knows of the lease.
#[derive(Debug)]
pub struct LeaseState {
    identity: LeaseIdentity,
    /// Whether it has heard for long enough to know when every host was heard last.
    is_warm: bool,
    /// Whether its configuration is another one than the last leader's.
    differs: bool,
    /// Since when the lease is seen to be free.
    free_since: Option<Mono>,
    /// Redis was away since the lease was seen to be held: it ran out, and its holder may live.
    was_away: bool,
    /// Until when it was held when it was last looked at.
    held_until: Option<Mono>,
    /// It did not run out: its holder gave it back, and has stored whom it had heard when.
    was_given_back: bool,
    /// Whether it may be asked for now.
    is_ripe: bool,
    next: Mono,
    token: Option<Token>,
    /// Until when the lease is surely ours, on our clock.
    valid_until: Option<Mono>,
}

impl LeaseState {
    /// At the start: the lease is looked at first.
    pub fn new(identity: LeaseIdentity, now: Mono) -> LeaseState {
        LeaseState {
            identity,
            is_warm: false,
            differs: false,
            free_since: None,
            was_away: false,
            held_until: None,
            was_given_back: false,
            is_ripe: false,
            next: now,
            token: None,
            valid_until: None,
        }
    }

    /// What is to be done.
    pub fn step(&self, now: Mono) -> LeaseStep {
        if now < self.next {
            return LeaseStep::WaitUntil(self.next);
        }
        match &self.token {
            Some(_) => LeaseStep::Renew,
            None if self.is_ripe => LeaseStep::Acquire,
            None => LeaseStep::Probe,
        }
    }

    /// Whether this node knows when every host was heard last.
    pub fn set_warm(&mut self, is_warm: bool) {
        self.is_warm = is_warm;
    }

    /// Whether its configuration is another one than the last leader's.
    pub fn set_differs(&mut self, differs: bool) {
        self.differs = differs;
    }

    /// Another process uses this node's name: it must not be taken for dead.
    pub fn name_is_shared(&mut self) {
        self.identity.predecessor_dead = false;
    }

    /// How long a free lease is left to the others.
    fn patience(&self, now: Mono) -> Duration {
        let lately = |lost: &&Mono| now.since(**lost) < FLAP_WINDOW;
        let flaps = self.identity.lost_at.iter().filter(lately).count() >= 2;
        let mut patience = if flaps { self.identity.ttl } else { Duration::ZERO };
        patience += if self.was_away { self.identity.ttl } else { Duration::ZERO };
        let knows = self.is_warm || self.was_given_back;
        patience += if knows { Duration::ZERO } else { HANDICAP };
        patience + if self.differs { HANDICAP } else { Duration::ZERO }
    }

    /// The lease was looked at: who holds it, and for how long still.
    pub fn probed(&mut self, now: Mono, holder: Option<(&Token, Duration)>) {
        let LeaseIdentity { node, incarnation, may_lead, predecessor_dead, .. } = &self.identity;
        let (may_lead, predecessor_dead) = (*may_lead, *predecessor_dead);
        let Some((token, left)) = holder else {
            if let Some(until) = self.held_until.take() {
                self.was_given_back = now < until;
            }
            let since = *self.free_since.get_or_insert(now);
            let ripe_at = since + self.patience(now);
            self.is_ripe = may_lead && ripe_at <= now;
            let soon = now + PROBE_INTERVAL;
            self.next = if self.is_ripe { now } else { soon.min(ripe_at.max(now)) };
            if !may_lead {
                self.next = soon;
            }
            return;
        };
        (self.free_since, self.was_away) = (None, false);
        (self.held_until, self.was_given_back) = (Some(now + left), false);
        self.is_ripe = may_lead && predecessor_dead && token.is_predecessor_of(node, incarnation);
        let expiry = now + left + Duration::from_millis(1);
        self.next = if self.is_ripe { now } else { expiry.min(now + PROBE_INTERVAL) };
    }

    /// It was asked for at `sent`, given, and confirmed.
    pub fn acquired(&mut self, sent: Mono, token: Token) {
        self.token = Some(token);
        self.is_ripe = false;
        self.renewed(sent, true);
    }

    /// It was asked for, and another node was faster, or it had to be given back.
    pub fn not_acquired(&mut self, now: Mono) {
        self.is_ripe = false;
        self.free_since = None;
        self.next = now + RETRY_INTERVAL;
    }

    /// It was renewed at `sent`; whether enough replicas confirmed that.
    pub fn renewed(&mut self, sent: Mono, confirmed: bool) {
        if confirmed {
            self.valid_until = Some(sent + self.identity.ttl);
        }
        self.next = sent + self.identity.ttl / 4;
    }

    /// It could not be renewed at `sent`, and nobody else can have it before `valid` is over.
    pub fn renewed_for(&mut self, sent: Mono, valid: Duration) {
        self.valid_until = self.valid_until.max(Some(sent + valid));
        self.next = sent + self.identity.ttl / 4;
    }

    /// Redis did not do what was asked: who leads goes on leading, until it is known that another does.
    pub fn failed(&mut self, now: Mono) {
        self.is_ripe = false;
        (self.free_since, self.was_away) = (None, true);
        (self.held_until, self.was_given_back) = (None, false);
        self.next = now + RETRY_INTERVAL;
    }

    /// Another node leads.
    pub fn deposed(&mut self) {
        self.token = None;
        self.valid_until = None;
    }

    /// That of this node while it leads.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Until when the lease is surely ours, on our clock.
    pub fn valid_until(&self) -> Option<Mono> {
        self.valid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(1500);

    fn identity() -> LeaseIdentity {
        LeaseIdentity {
            node: "hb1".into(),
            incarnation: "b".into(),
            ttl: TTL,
            may_lead: true,
            predecessor_dead: true,
            lost_at: Vec::new(),
        }
    }

    fn token(text: &str) -> Token {
        text.parse().unwrap()
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// After how long a free lease is asked for.
    fn waits(identity: LeaseIdentity, warm: bool, differs: bool) -> i64 {
        let start = Mono(1_000_000);
        let mut state = LeaseState::new(identity, start);
        state.set_warm(warm);
        state.set_differs(differs);
        let mut now = start;
        loop {
            match state.step(now) {
                LeaseStep::WaitUntil(next) => now = next,
                LeaseStep::Probe => state.probed(now, None),
                LeaseStep::Acquire => return now.0 - start.0,
                LeaseStep::Renew => panic!("it does not lead"),
            }
            assert!(now.0 - start.0 < 10_000, "it never asks");
        }
    }

    #[test]
    fn a_lease_that_ran_out_while_redis_was_away_is_left_to_its_holder_first() {
        let start = Mono(1_000_000);
        let mut state = LeaseState::new(identity(), start);
        state.set_warm(true);
        let other = token("7:hb2:a");
        state.probed(start, Some((&other, TTL)));
        state.failed(start + ms(100));
        let back = start + ms(5000);
        state.probed(back, None);
        assert!(matches!(
            state.step(back + TTL - ms(1)),
            LeaseStep::WaitUntil(_) | LeaseStep::Probe
        ));
        state.probed(back + TTL, None);
        assert_eq!(state.step(back + TTL), LeaseStep::Acquire);
        // Once it was held again, the next one is free at once.
        state.probed(back + TTL, Some((&other, TTL)));
        state.probed(back + TTL + ms(1500), None);
        assert_eq!(state.step(back + TTL + ms(1500)), LeaseStep::Acquire);
    }

    #[test]
    fn a_free_lease_is_asked_for_at_once_by_those_that_should_lead() {
        assert_eq!(waits(identity(), true, false), 0);
        assert_eq!(waits(identity(), false, false), 500);
        assert_eq!(waits(identity(), true, true), 500);
        assert_eq!(waits(identity(), false, true), 1000);
        let lost = |ago: &[i64]| LeaseIdentity {
            lost_at: ago.iter().map(|ago| Mono(1_000_000 - ago)).collect(),
            ..identity()
        };
        assert_eq!(waits(lost(&[1000]), true, false), 0);
        assert_eq!(waits(lost(&[1000, 61_000]), true, false), 0);
        assert_eq!(waits(lost(&[1000, 50_000]), true, false), 1500);
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once_also_by_who_knows_less() {
        let other = token("4:hb2:a");
        for (free_at, asks_at) in [(100, 100), (1399, 1399), (1401, 1901)] {
            let mut state = LeaseState::new(identity(), Mono(0));
            state.probed(Mono(0), Some((&other, ms(1400))));
            let mut now = Mono(free_at);
            state.probed(now, None);
            while state.step(now) != LeaseStep::Acquire {
                match state.step(now) {
                    LeaseStep::WaitUntil(next) => now = next,
                    _ => state.probed(now, None),
                }
            }
            assert_eq!(now, Mono(asks_at));
        }
        // What a Redis does not know that was away, nobody gave back.
        let mut state = LeaseState::new(identity(), Mono(0));
        state.probed(Mono(0), Some((&other, ms(1400))));
        state.failed(Mono(100));
        state.probed(Mono(300), None);
        assert_ne!(state.step(Mono(300)), LeaseStep::Acquire);
    }

    #[test]
    fn a_lease_that_is_held_is_looked_at_when_it_runs_out_and_often_before() {
        let mut state = LeaseState::new(identity(), Mono(0));
        let other = token("4:hb2:a");
        state.probed(Mono(0), Some((&other, ms(1400))));
        assert_eq!(state.step(Mono(0)), LeaseStep::WaitUntil(Mono(100)));
        state.probed(Mono(100), Some((&other, ms(30))));
        assert_eq!(state.step(Mono(100)), LeaseStep::WaitUntil(Mono(131)));
        assert_eq!(state.step(Mono(131)), LeaseStep::Probe);
    }

    #[test]
    fn only_the_lease_of_a_dead_predecessor_is_taken_back_at_once() {
        let step = |identity, holder: &str| {
            let mut state = LeaseState::new(identity, Mono(0));
            state.probed(Mono(0), Some((&token(holder), ms(1400))));
            state.step(Mono(0))
        };
        let waiting = LeaseStep::WaitUntil(Mono(100));
        assert_eq!(step(identity(), "4:hb1:a"), LeaseStep::Acquire);
        assert_eq!(step(identity(), "4:hb2:a"), waiting);
        let unsure = LeaseIdentity { predecessor_dead: false, ..identity() };
        assert_eq!(step(unsure, "4:hb1:a"), waiting);
        let receiver = LeaseIdentity { may_lead: false, ..identity() };
        assert_eq!(step(receiver, "4:hb1:a"), waiting);
        let mut state = LeaseState::new(identity(), Mono(0));
        state.name_is_shared();
        state.probed(Mono(0), Some((&token("4:hb1:a"), ms(1400))));
        assert_eq!(state.step(Mono(0)), waiting);
    }

    #[test]
    fn a_receiver_never_asks() {
        let receiver = LeaseIdentity { may_lead: false, ..identity() };
        let mut state = LeaseState::new(receiver, Mono(0));
        state.set_warm(true);
        let mut now = Mono(0);
        for _ in 0..100 {
            match state.step(now) {
                LeaseStep::WaitUntil(next) => now = next,
                LeaseStep::Probe => state.probed(now, None),
                other => panic!("{other:?}"),
            }
        }
        assert!(now >= Mono(4000), "{now:?}");
    }

    #[test]
    fn the_lease_counts_from_before_the_renewal_was_sent_and_outlives_a_stall() {
        let mut state = LeaseState::new(identity(), Mono(0));
        state.acquired(Mono(1000), token("5:hb1:b"));
        assert_eq!(state.valid_until(), Some(Mono(2500)));
        assert_eq!(state.step(Mono(1100)), LeaseStep::WaitUntil(Mono(1375)));
        assert_eq!(state.step(Mono(1375)), LeaseStep::Renew);
        state.renewed(Mono(1375), false);
        assert_eq!(state.valid_until(), Some(Mono(2500)), "too few replicas have it");
        state.failed(Mono(2800));
        assert_eq!(state.step(Mono(3000)), LeaseStep::Renew, "it leads until another does");
        assert_eq!(state.token(), Some(&token("5:hb1:b")));
        state.renewed(Mono(3000), true);
        assert_eq!(state.valid_until(), Some(Mono(4500)));
        state.deposed();
        assert_eq!((state.token(), state.valid_until()), (None, None));
    }

    #[test]
    fn who_was_too_slow_or_got_no_confirmation_tries_again_after_a_while() {
        let mut state = LeaseState::new(identity(), Mono(0));
        state.set_warm(true);
        state.probed(Mono(0), None);
        assert_eq!(state.step(Mono(0)), LeaseStep::Acquire);
        state.not_acquired(Mono(10));
        assert_eq!(state.step(Mono(10)), LeaseStep::WaitUntil(Mono(210)));
        assert_eq!(state.step(Mono(210)), LeaseStep::Probe);
    }
}
