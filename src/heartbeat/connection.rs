//! One path to a host: when it was heard, and until when its silence is excused. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::blindness::Blindness;
use crate::heartbeat::profile::{Common, Profile};
use crate::view::State;

/// The connection over which an Alertmanager passes signs of life on.
pub const ALERTMANAGER: &str = "alertmanager";
/// The connection over which the daemon hears its own machine.
pub const LOCAL: &str = "local";
/// How often a postponed deadline may be shifted without a proof that anybody listened.
const MOST_SHIFTS: u8 = 3;
/// The least grace that nobody asked for.
const LEAST_GRACE: Duration = Duration::from_secs(30);

/// A connection of a host.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `ipv4`, `ipv6`, or what the host calls it.
    pub name: Arc<str>,
    /// Where it stands.
    pub state: State,
    /// It is down, but a boot of its host told that its trouble is over: its beat is no news, and
    /// when it does not come until the deadline, that is told anew.
    pub covered: bool,
    /// How often its postponed deadline was shifted without such a proof.
    pub shifts: u8,
    /// What it promised last, in milliseconds; 0 when it never said.
    pub interval: u32,
    /// Since when it is in its state.
    pub since: Wall,
    /// When it was last heard.
    pub seen: Now,
    /// The time in its last signed datagram, microseconds since 1970.
    pub signed: i64,
    /// The tag of the key that it was signed with; 0 when it was not.
    pub key: u32,
    /// What was granted because the daemon was blind; once per time it was heard.
    pub granted: Option<Grant>,
    /// The moment of its earliest entry among the deadlines.
    pub queued: Mono,
    /// Where its last datagram came from.
    pub address: Option<IpAddr>,
}

/// A deadline that was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// From when on listening counts.
    pub from: Mono,
    /// The deadline, if the daemon listens all the time.
    pub until: Mono,
}

/// How often a connection beats, and how late a beat may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The time between two beats.
    pub interval: Duration,
    /// How late one may be.
    pub grace: Duration,
}

impl Promise {
    /// How long after it was heard a connection is overdue.
    pub fn patience(self) -> Duration {
        self.interval.saturating_add(self.grace)
    }

    /// The interval as a connection keeps it.
    fn millis(self) -> u32 {
        u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX)
    }
}

impl Connection {
    /// A connection that was never heard.
    pub fn new(name: Arc<str>, now: Now) -> Connection {
        Connection {
            name,
            state: State::New,
            covered: false,
            shifts: 0,
            interval: 0,
            since: now.wall,
            seen: now,
            signed: 0,
            key: 0,
            granted: None,
            queued: Mono(i64::MAX),
            address: None,
        }
    }

    /// Whether people were told that it is down, and not yet that this is over.
    pub fn in_trouble(&self) -> bool {
        matches!(self.state, State::Overdue | State::Shutdown) && !self.covered
    }

    /// Whether it was made by beats that somebody in this process vouches for. They come from here,
    /// and nobody signs them.
    pub fn is_vouched(&self) -> bool {
        let here = self.address.is_some_and(|address| address.is_loopback());
        [ALERTMANAGER, LOCAL].contains(&&*self.name) && self.signed == 0 && here
    }

    /// Takes over what such beats promise by the configuration. Where that is another promise than
    /// the last one gave, it gets a whole interval and grace from now on. Whether that changed
    /// anything.
    pub fn promise_anew(&mut self, promise: Promise, now: Now) -> bool {
        let changed = self.interval != promise.millis();
        if changed {
            self.interval = promise.millis();
            self.postpone(promise, now);
        }
        changed
    }

    /// What it promised: its host's settings go before its own word, that before the common ones.
    pub fn promise(&self, profile: &Profile, common: &Common) -> Promise {
        if let Some(vouched) = profile.vouched(&self.name) {
            return vouched;
        }
        let said = (self.interval > 0).then(|| Duration::from_millis(self.interval.into()));
        let interval = profile.interval.or(said).unwrap_or(common.interval);
        let usual = || interval.saturating_mul(2).max(LEAST_GRACE);
        Promise { interval, grace: profile.grace.or(common.grace).unwrap_or_else(usual) }
    }

    /// The beat came: it is up, and all that was excused is forgotten. Whether that must be stored
    /// at once: a new state, or the end of excuses that a crash would count on.
    pub fn rise(&mut self, now: Now) -> bool {
        let shifted = self.shifts > 0;
        self.seen = now;
        self.granted = None;
        self.shifts = 0;
        self.covered = false;
        self.turn(State::Up, now) || shifted
    }

    /// Enters a state; whether that is a change.
    pub fn turn(&mut self, state: State, now: Now) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            self.since = now.wall;
        }
        changed
    }

    /// A boot told that its trouble is over: it has as long as after a beat to prove it.
    pub fn cover(&mut self, promise: Promise, now: Now) {
        self.covered = true;
        self.shifts = 0;
        self.granted = Some(Grant { from: now.mono, until: now.mono + promise.patience() });
    }

    /// Its datagrams come, but may not be believed since a clock is wrong: for once it gets an
    /// interval and grace from now on. Whether there was anything to excuse.
    pub fn postpone(&mut self, promise: Promise, now: Now) -> bool {
        let waits = self.deadline(promise).is_some();
        if waits {
            self.granted = Some(Grant { from: now.mono, until: now.mono + promise.patience() });
        }
        waits
    }

    /// When its silence would have to be told, as far as it is known without blindness.
    pub fn deadline(&self, promise: Promise) -> Option<Mono> {
        match self.state {
            State::Up => {
                Some(self.granted.map_or(self.seen.mono + promise.patience(), |grant| grant.until))
            }
            State::Overdue | State::Shutdown if self.covered => {
                self.granted.map(|grant| grant.until)
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
    pub fn excuse(&mut self, promise: Promise, blindness: &Blindness) -> Option<Mono> {
        let mut deadline = self.deadline(promise)?;
        let expected = self.seen.mono + promise.interval;
        for period in blindness.periods() {
            let (stop, start) = (period.stop, period.start);
            let Some(grant) = self.granted else {
                if stop <= deadline && expected <= start {
                    deadline = start + promise.patience();
                    self.granted = Some(Grant { from: start, until: deadline });
                }
                continue;
            };
            let unproven = deadline <= start || stop <= grant.from;
            let spent = unproven && self.shifts == MOST_SHIFTS;
            if grant.from < start && stop < deadline && !spent {
                deadline = start + deadline.since(stop.max(grant.from));
                self.granted = Some(Grant { from: start, until: deadline });
                self.shifts = self.shifts.saturating_add(u8::from(unproven)).min(MOST_SHIFTS);
            }
        }
        Some(deadline)
    }
}
