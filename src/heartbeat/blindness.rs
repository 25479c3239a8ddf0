//! When nothing could be received: by the daemon as a whole, or by one of several receivers, and which
//! receivers a connection is heard through. Pure.
//!
//! A single daemon is one receiver: it has periods of its own and knows no others by name. Of several
//! nodes each is a receiver; a connection could not be heard while *all* those that it is heard through
//! could not hear it.

use std::borrow::Cow;
use std::time::Duration;

use crate::clock::Mono;

/// How many periods are kept apart; beyond that the closest ones are joined.
const MAX_PERIODS: usize = 32;
/// The longest interval and three times that as grace: no deadline is further away.
const RETENTION: Duration = Duration::from_secs(28 * 24 * 3600);
/// The most receivers that are told apart.
pub const MAX_RECEIVERS: usize = 16;

/// A time in which the daemon could not receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindPeriod {
    /// The last moment of listening before it.
    pub from: Mono,
    /// The first moment of listening after it.
    pub to: Mono,
}

/// Blind periods that may still matter, in order, none touching another.
#[derive(Clone, Debug, Default)]
pub struct BlindPeriods {
    periods: Vec<BlindPeriod>,
}

impl BlindPeriods {
    /// Adds a period; one that ends before it begins is none.
    fn add(&mut self, from: Mono, to: Mono) {
        if to <= from {
            return;
        }
        self.periods.push(BlindPeriod { from, to });
        self.periods.sort_unstable_by_key(|period| period.from);
        self.join(|earlier, later| later.from <= earlier.to);
        if let Some(newest) = self.periods.last().map(|period| period.to) {
            self.periods.retain(|period| newest.since(period.to) <= RETENTION);
        }
        while self.periods.len() > MAX_PERIODS {
            let gap = |pair: &[BlindPeriod]| pair[1].from.since(pair[0].to);
            let least = self.periods.windows(2).map(gap).min().unwrap_or_default();
            self.join(|earlier, later| later.from.since(earlier.to) <= least);
        }
    }

    fn join(&mut self, belong: impl Fn(BlindPeriod, BlindPeriod) -> bool) {
        self.periods.dedup_by(|later, earlier| {
            let one = belong(*earlier, *later);
            if one {
                earlier.to = earlier.to.max(later.to);
            }
            one
        });
    }

    /// The times that are in both.
    fn intersection(&self, other: &BlindPeriods) -> BlindPeriods {
        let mut both = BlindPeriods::default();
        for ours in &self.periods {
            for theirs in &other.periods {
                both.add(ours.from.max(theirs.from), ours.to.min(theirs.to));
            }
        }
        both
    }
}

/// The receivers that a connection is heard through: those that brought a datagram of it in this
/// interval of its or in the one before. Empty where there is one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverSet {
    current: u16,
    before: u16,
    /// Those that brought its last datagram.
    last: u16,
}

impl ReceiverSet {
    /// The set of its bits, as after a restart.
    pub fn from_bits(bits: u16) -> ReceiverSet {
        ReceiverSet { current: bits, before: bits, last: 0 }
    }

    /// One bit for each receiver.
    pub fn bits(self) -> u16 {
        self.current | self.before
    }

    /// A datagram came through the receiver of that number, `at` this time, where the one before came
    /// at `last`.
    pub fn brought(&mut self, number: u8, interval: Duration, last: Mono, at: Mono) {
        let length = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        if last.0.div_euclid(length) != at.0.div_euclid(length) {
            self.before = std::mem::take(&mut self.current);
        }
        self.last = 0;
        self.add(number);
    }

    /// A copy of the last datagram came through that receiver.
    pub fn add(&mut self, number: u8) {
        let bit = 1 << number;
        self.current |= bit;
        self.last |= bit;
    }

    /// Whether the last datagram came through other receivers and not through this one.
    pub fn is_new_to(self, number: u8) -> bool {
        self.last != 0 && self.last & (1 << number) == 0
    }
}

/// A node that hears for the others.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// It is gone since then.
    pub lost_at: Option<Mono>,
    /// It was reported that hosts are heard by nobody because it is gone.
    pub is_told: bool,
    periods: BlindPeriods,
}

/// When nothing could be received.
#[derive(Clone, Debug, Default)]
pub struct Blindness {
    /// By no receiver, or not by the daemon that decides.
    all: BlindPeriods,
    /// Those that are known by name; none of a single daemon.
    receivers: Vec<Receiver>,
    /// Which of them is in this process.
    own: Option<u8>,
}

impl Blindness {
    /// The periods in which nothing was received of any host, in order.
    pub fn periods(&self) -> &[BlindPeriod] {
        &self.all.periods
    }

    /// The periods in which a connection could not be heard that is heard through these receivers;
    /// what lasts ends now.
    pub fn periods_of(&self, bits: u16, now: Mono) -> Cow<'_, [BlindPeriod]> {
        let mut common: Option<BlindPeriods> = None;
        for receiver in self.members(bits) {
            let mut periods = Cow::Borrowed(&receiver.periods);
            if let Some(lost) = receiver.lost_at {
                periods.to_mut().add(lost, now);
            }
            common = Some(common.map_or_else(
                || periods.clone().into_owned(),
                |common| common.intersection(&periods),
            ));
        }
        match common.filter(|common| !common.periods.is_empty()) {
            None => Cow::Borrowed(self.periods()),
            Some(mut common) => {
                self.all.periods.iter().for_each(|period| common.add(period.from, period.to));
                Cow::Owned(common.periods)
            }
        }
    }

    /// Whether all these receivers are gone at present, and there is one.
    pub fn are_lost(&self, bits: u16) -> bool {
        bits != 0 && self.members(bits).all(|receiver| receiver.lost_at.is_some())
    }

    fn members(&self, bits: u16) -> impl Iterator<Item = &Receiver> {
        let has = move |number: usize| bits & (1 << number) != 0;
        self.receivers
            .iter()
            .enumerate()
            .filter(move |(number, _)| has(*number))
            .map(|(_, one)| one)
    }

    /// Adds a period in which nothing was received of any host.
    pub fn add(&mut self, from: Mono, to: Mono) {
        self.all.add(from, to);
    }

    /// This process is the receiver of that name.
    pub fn set_own(&mut self, name: &str) {
        self.own = self.number(name);
    }

    /// The number of the receiver in this process; none of a single daemon.
    pub fn own(&self) -> Option<u8> {
        self.own
    }

    /// The number of a receiver, which it gets when it is new; none when there are too many.
    pub fn number(&mut self, name: &str) -> Option<u8> {
        let known = self.receivers.iter().position(|receiver| receiver.name == name);
        if known.is_none() && self.receivers.len() < MAX_RECEIVERS {
            let (lost_at, is_told) = (None, false);
            let name = name.to_owned();
            let periods = BlindPeriods::default();
            self.receivers.push(Receiver { name, lost_at, is_told, periods });
            return self.number_at(self.receivers.len() - 1);
        }
        self.number_at(known?)
    }

    fn number_at(&self, index: usize) -> Option<u8> {
        u8::try_from(index).ok()
    }

    /// A receiver by its number.
    pub fn receiver_mut(&mut self, number: u8) -> Option<&mut Receiver> {
        self.receivers.get_mut(usize::from(number))
    }

    /// All that are known by name, in the order of their numbers.
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    /// One bit for each receiver that is gone.
    pub fn lost_bits(&self) -> u16 {
        let bit = |(number, one): (usize, &Receiver)| u16::from(one.lost_at.is_some()) << number;
        self.receivers.iter().enumerate().map(bit).sum()
    }

    /// The names of receivers, as they stand in the row of a connection: `hb1,hb2`.
    pub fn names(&self, bits: u16) -> String {
        let names: Vec<&str> = self.members(bits).map(|receiver| receiver.name.as_str()).collect();
        names.join(",")
    }

    /// The receivers of these names.
    pub fn bits(&mut self, names: &str) -> u16 {
        let names = names.split(',').filter(|name| !name.is_empty());
        names.fold(0, |bits, name| bits | self.number(name).map_or(0, |number| 1 << number))
    }

    /// A receiver heard nothing from one moment to another. Whether that is one which is known.
    pub fn gap(&mut self, name: &str, from: Mono, to: Mono) {
        if let Some(number) = self.number(name)
            && let Some(receiver) = self.receiver_mut(number)
        {
            receiver.periods.add(from, to);
        }
    }
}

impl Receiver {
    /// It hears again. For how long it did not.
    pub fn is_back(&mut self, at: Mono) -> Option<Duration> {
        let lost = self.lost_at.take()?;
        self.periods.add(lost, at);
        Some(at.since(lost))
    }
}

/// For how long nothing could be received since then.
pub fn blind_since(periods: &[BlindPeriod], then: Mono) -> Duration {
    periods.iter().map(|period| period.to.since(period.from.max(then))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(periods: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut blindness = Blindness::default();
        for (from, to) in periods {
            blindness.add(Mono(*from), Mono(*to));
        }
        pairs(blindness.periods())
    }

    fn pairs(periods: &[BlindPeriod]) -> Vec<(i64, i64)> {
        periods.iter().map(|period| (period.from.0, period.to.0)).collect()
    }

    #[test]
    fn periods_that_touch_are_one() {
        assert_eq!(of(&[(1, 5), (5, 7)]), [(1, 7)]);
        assert_eq!(of(&[(10, 12), (1, 5), (2, 3)]), [(1, 5), (10, 12)]);
        assert_eq!(of(&[(1, 5), (3, 3), (9, 2)]), [(1, 5)]);
        assert_eq!(of(&[(i64::MIN, i64::MAX), (1, 2)]), [(i64::MIN, i64::MAX)]);
    }

    #[test]
    fn the_list_stays_short() {
        let many: Vec<(i64, i64)> = (0..500).map(|n| (n * n, n * n + 1)).collect();
        let kept = of(&many);
        assert!(kept.len() <= MAX_PERIODS);
        assert_eq!(kept.last(), Some(&(499 * 499, 499 * 499 + 1)));
        assert_eq!(kept.first().map(|first| first.0), Some(0));
    }

    #[test]
    fn a_connection_is_not_heard_while_all_its_receivers_hear_nothing() {
        let mut blindness = Blindness::default();
        blindness.add(Mono(1), Mono(2));
        blindness.gap("a", Mono(10), Mono(20));
        blindness.gap("b", Mono(15), Mono(30));
        let [a, b, c] = ["a", "b", "c"].map(|name| blindness.bits(name));
        let periods = |blindness: &Blindness, bits| pairs(&blindness.periods_of(bits, Mono(50)));
        assert_eq!(periods(&blindness, 0), [(1, 2)], "one receiver");
        assert_eq!(periods(&blindness, a), [(1, 2), (10, 20)]);
        assert_eq!(periods(&blindness, a | b), [(1, 2), (15, 20)]);
        assert_eq!(periods(&blindness, a | b | c), [(1, 2)]);
        blindness.receiver_mut(0).unwrap().lost_at = Some(Mono(40));
        assert_eq!(periods(&blindness, a), [(1, 2), (10, 20), (40, 50)]);
        assert!(blindness.are_lost(a) && !blindness.are_lost(a | b) && !blindness.are_lost(0));
        assert_eq!(
            blindness.receiver_mut(0).unwrap().is_back(Mono(45)),
            Some(Duration::from_millis(5))
        );
        assert_eq!(periods(&blindness, a), [(1, 2), (10, 20), (40, 45)]);
        assert_eq!(blindness.names(a | b), "a,b");
    }

    #[test]
    fn who_brought_nothing_for_two_intervals_is_no_receiver_any_more() {
        let (mut set, second) = (ReceiverSet::default(), Duration::from_secs(1));
        let mut last = Mono(0);
        let mut beat = |set: &mut ReceiverSet, number, at| {
            set.brought(number, second, std::mem::replace(&mut last, Mono(at)), Mono(at));
            set.bits()
        };
        assert_eq!(beat(&mut set, 0, 100), 1);
        assert!(set.is_new_to(1) && !set.is_new_to(0));
        set.add(1);
        assert!(!set.is_new_to(1));
        assert_eq!(beat(&mut set, 1, 1100), 3);
        assert_eq!(beat(&mut set, 1, 2100), 2);
        assert_eq!(beat(&mut set, 1, 2200), 2, "beats may come more often");
    }
}
