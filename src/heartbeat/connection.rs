//! One path to a host: when it was heard, and until when its silence is excused by what the daemon
//! could not hear: a restart, a suspended machine, a stalled loop. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::settings::{ALERTMANAGER, Expectation, LOCAL, Profile, SharedSettings};
use crate::view::State;

/// How often a postponed deadline may be shifted without a proof that anybody listened.
const MAX_UNPROVEN_EXTENSIONS: u8 = 3;
/// The least grace that nobody asked for.
const MIN_DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A connection of a host.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `ipv4`, `ipv6`, or what the host calls it.
    pub name: Arc<str>,
    /// Where it stands.
    pub state: State,
    /// It is down, but a boot of its host told that its trouble is over: its beat is no news, and
    /// when it does not come until the deadline, that is told anew.
    pub recovery_presumed: bool,
    /// How often its postponed deadline was shifted without such a proof.
    pub extension_count: u8,
    /// What it promised last, in milliseconds; 0 when it never said.
    pub interval: u32,
    /// Since when it is in its state.
    pub since: Wall,
    /// When it was last heard.
    pub last_seen: Now,
    /// The time in its last signed datagram, microseconds since 1970.
    pub last_signed_at: i64,
    /// The tag of the key that it was signed with; 0 when it was not.
    pub key_id: u32,
    /// What was granted because the daemon was blind; once per time it was heard.
    pub extension: Option<Extension>,
    /// The moment of its earliest entry among the deadlines.
    pub scheduled_at: Mono,
    /// Where its last datagram came from.
    pub address: Option<IpAddr>,
}

/// A deadline that was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// From when on listening counts.
    pub from: Mono,
    /// The deadline, if the daemon listens all the time.
    pub until: Mono,
}

impl Connection {
    /// A connection that was never heard.
    pub fn new(name: Arc<str>, now: Now) -> Connection {
        Connection {
            name,
            state: State::New,
            recovery_presumed: false,
            extension_count: 0,
            interval: 0,
            since: now.wall,
            last_seen: now,
            last_signed_at: 0,
            key_id: 0,
            extension: None,
            scheduled_at: Mono(i64::MAX),
            address: None,
        }
    }

    /// Whether people were told that it is down, and not yet that this is over.
    pub fn has_open_incident(&self) -> bool {
        matches!(self.state, State::Overdue | State::Shutdown) && !self.recovery_presumed
    }

    /// Whether it was made by beats that somebody in this process vouches for. They come from here,
    /// and nobody signs them.
    pub fn is_internal(&self) -> bool {
        let here = self.address.is_some_and(|address| address.is_loopback());
        [ALERTMANAGER, LOCAL].contains(&&*self.name) && self.last_signed_at == 0 && here
    }

    /// Takes over what such beats promise by the configuration. Where that is another promise than
    /// the last one gave, it gets a whole interval and grace from now on. Whether that changed
    /// anything.
    pub fn set_expectation(&mut self, expectation: Expectation, now: Now) -> bool {
        let changed = self.interval != expectation.interval_millis();
        if changed {
            self.interval = expectation.interval_millis();
            self.extend_once(expectation, now);
        }
        changed
    }

    /// What it promised: its host's settings go before its own word, that before the common ones.
    pub fn expectation(&self, profile: &Profile, common: &SharedSettings) -> Expectation {
        if let Some(vouched) = profile.internal_expectation(&self.name) {
            return vouched;
        }
        let said = (self.interval > 0).then(|| Duration::from_millis(self.interval.into()));
        let interval = profile.interval.or(said).unwrap_or(common.interval);
        let usual = || interval.saturating_mul(2).max(MIN_DEFAULT_GRACE);
        Expectation { interval, grace: profile.grace.or(common.grace).unwrap_or_else(usual) }
    }

    /// The beat came: it is up, and all that was excused is forgotten. Whether that must be stored
    /// at once: a new state, or the end of excuses that a crash would count on.
    pub fn mark_up(&mut self, now: Now) -> bool {
        let shifted = self.extension_count > 0;
        self.last_seen = now;
        self.extension = None;
        self.extension_count = 0;
        self.recovery_presumed = false;
        self.set_state(State::Up, now) || shifted
    }

    /// Enters a state; whether that is a change.
    pub fn set_state(&mut self, state: State, now: Now) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            self.since = now.wall;
        }
        changed
    }

    /// A boot told that its trouble is over: it has as long as after a beat to prove it.
    pub fn presume_recovered(&mut self, expectation: Expectation, now: Now) {
        self.recovery_presumed = true;
        self.extension_count = 0;
        self.extension =
            Some(Extension { from: now.mono, until: now.mono + expectation.timeout() });
    }

    /// Its datagrams come, but may not be believed since a clock is wrong: for once it gets an
    /// interval and grace from now on. Whether there was anything to excuse.
    pub fn extend_once(&mut self, expectation: Expectation, now: Now) -> bool {
        let waits = self.deadline(expectation).is_some();
        if waits {
            self.extension =
                Some(Extension { from: now.mono, until: now.mono + expectation.timeout() });
        }
        waits
    }

    /// When its silence would have to be told, as far as it is known without blindness.
    pub fn deadline(&self, expectation: Expectation) -> Option<Mono> {
        match self.state {
            State::Up => Some(
                self.extension.map_or(self.last_seen.mono + expectation.timeout(), |extension| {
                    extension.until
                }),
            ),
            State::Overdue | State::Shutdown if self.recovery_presumed => {
                self.extension.map(|extension| extension.until)
            }
            State::New | State::Overdue | State::Shutdown => None,
        }
    }

    /// When its silence has to be told, after what the daemon could not hear.
    ///
    /// A beat that was expected while the daemon was blind, or whose grace that cut short, gets a
    /// whole interval and grace from the end of the blindness, once. From then on only time spent
    /// listening counts: later blindness shifts the deadline by what was left of it. Where nobody
    /// can prove that there was any listening in between, it does so a few times only: frequent
    /// restarts must not postpone an alarm for ever.
    pub fn deadline_after_blindness(
        &mut self,
        expectation: Expectation,
        blindness: &Blindness,
    ) -> Option<Mono> {
        let mut deadline = self.deadline(expectation)?;
        let expected = self.last_seen.mono + expectation.interval;
        for period in blindness.periods() {
            let (stop, start) = (period.from, period.to);
            let Some(extension) = self.extension else {
                if stop <= deadline && expected <= start {
                    deadline = start + expectation.timeout();
                    self.extension = Some(Extension { from: start, until: deadline });
                }
                continue;
            };
            let unproven = deadline <= start || stop <= extension.from;
            let spent = unproven && self.extension_count == MAX_UNPROVEN_EXTENSIONS;
            if extension.from < start && stop < deadline && !spent {
                deadline = start + deadline.since(stop.max(extension.from));
                self.extension = Some(Extension { from: start, until: deadline });
                self.extension_count = self
                    .extension_count
                    .saturating_add(u8::from(unproven))
                    .min(MAX_UNPROVEN_EXTENSIONS);
            }
        }
        Some(deadline)
    }
}

/// How many periods are told apart; beyond it the closest ones are taken for one.
const MAX_PERIODS: usize = 32;
/// The longest interval and three times that as grace: nobody waits for a beat any longer.
const RETENTION: Duration = Duration::from_secs(28 * 24 * 3600);

/// From `stop` to `start` nothing could be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindPeriod {
    /// The last moment of listening before it.
    pub from: Mono,
    /// The first moment of listening after it.
    pub to: Mono,
}

/// The periods that may still matter, in order, none touching another.
#[derive(Clone, Debug, Default)]
pub struct Blindness {
    periods: Vec<BlindPeriod>,
}

impl Blindness {
    /// The periods, in order.
    pub fn periods(&self) -> &[BlindPeriod] {
        &self.periods
    }

    /// Adds a period; one that ends before it begins is none.
    pub fn add(&mut self, stop: Mono, start: Mono) {
        if start <= stop {
            return;
        }
        self.periods.push(BlindPeriod { from: stop, to: start });
        self.periods.sort_by_key(|period| period.from);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(periods: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut blindness = Blindness::default();
        for (stop, start) in periods {
            blindness.add(Mono(*stop), Mono(*start));
        }
        blindness.periods().iter().map(|period| (period.from.0, period.to.0)).collect()
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
}
