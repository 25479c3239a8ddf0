//! One connection of a host: its state, its deadline, and how the deadline is extended after the
//! daemon could not receive: a restart, a suspended machine, a stalled loop. Pure.

use std::net::IpAddr;
use std::num::NonZeroI64;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};
use crate::heartbeat::blindness::{BlindPeriod, ReceiverSet};
use crate::heartbeat::settings::{ALERTMANAGER, Expectation, LOCAL, Profile, SharedSettings};
use crate::view::HostState;

/// How often an extension may be shifted by blindness without a proof that the daemon listened in
/// between.
const MAX_UNPROVEN_EXTENSIONS: u8 = 3;
/// The least grace where none is configured.
const MIN_DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A connection of a host.
///
/// ```text
///           beat             deadline passed
///     New ────────▶ Up ──────────────────────────▶ Overdue
///                   │ ▲                            │  │ ▲
///          shutdown │ │ beat                  beat │  │ │ deadline passed
///                   ▼ │                (to Up) ◀───┘  │ │ (recovery presumed)
///                Shutdown ◀────────── shutdown ───────┘ │
///                   └───────────────────────────────────┘
/// ```
///
/// A boot of its host presumes that a connection that is down has recovered: its incident is closed,
/// it keeps its state, and when no beat comes until the deadline it is overdue (anew).
#[derive(Clone, Debug)]
pub struct Connection {
    /// `ipv4`, `ipv6`, or what the host calls it.
    pub name: Arc<str>,
    /// Its state.
    pub state: HostState,
    /// It is down, but a boot of its host closed its incident: its next beat is no event, and when
    /// none comes until the deadline, it is reported anew.
    pub recovery_presumed: bool,
    /// How often its extension was shifted without a proof that the daemon listened in between.
    pub extension_count: u8,
    /// The interval in its last datagram that named one, in milliseconds; 0 when none did.
    pub interval: u32,
    /// Since when it is in its state.
    pub since: Wall,
    /// The same by the monotonic clock.
    pub entered_at: Mono,
    /// When its last beat or shutdown was received.
    pub last_seen: Now,
    /// The time in its last signed datagram, microseconds since 1970.
    pub last_signed_at: i64,
    /// What the clock of the host was ahead of our monotonic one then, in microseconds; none as long as
    /// it did not agree with our wall clock.
    pub clock_offset: Option<NonZeroI64>,
    /// The id of the key that it was signed with; 0 when it was not.
    pub key_id: u32,
    /// The extension of its deadline, where it has one; forgotten with the next beat.
    pub extension: Option<Extension>,
    /// When its earliest entry in the deadline heap is due; `i64::MAX` when it has none.
    pub scheduled_at: Mono,
    /// Where its last datagram came from.
    pub address: Option<IpAddr>,
    /// Which receivers it is heard through, where there are several.
    pub receivers: ReceiverSet,
}

/// A deadline that replaces the one after the last beat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// From when on the time counts in which the daemon listens.
    pub from: Mono,
    /// The deadline, if the daemon listens all the time.
    pub until: Mono,
}

impl Connection {
    /// A connection over which nothing was received yet.
    pub fn new(name: Arc<str>, now: Now) -> Connection {
        Connection {
            name,
            state: HostState::New,
            recovery_presumed: false,
            extension_count: 0,
            interval: 0,
            since: now.wall,
            entered_at: now.mono,
            last_seen: now,
            last_signed_at: 0,
            clock_offset: None,
            key_id: 0,
            extension: None,
            scheduled_at: Mono(i64::MAX),
            address: None,
            receivers: ReceiverSet::default(),
        }
    }

    /// Whether it was reported as down, and not yet as recovered.
    pub fn has_open_incident(&self) -> bool {
        matches!(self.state, HostState::Overdue | HostState::Shutdown) && !self.recovery_presumed
    }

    /// A beat may say when the next one comes.
    pub fn promise(&mut self, interval: Option<Duration>) {
        if let Some(interval) = interval {
            self.interval = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        }
    }

    /// Whether it was made by beats of this process itself: they are not signed, and their address is
    /// this machine.
    pub fn is_internal(&self) -> bool {
        let here = self.address.is_some_and(|address| address.is_loopback());
        [ALERTMANAGER, LOCAL].contains(&&*self.name) && self.last_signed_at == 0 && here
    }

    /// Applies what the configuration expects of an internal connection. Where that has changed, the
    /// connection gets a whole interval and grace from now on. Whether it has.
    pub fn set_expectation(&mut self, expectation: Expectation, now: Now) -> bool {
        let changed = self.interval != expectation.interval_millis();
        if changed {
            self.interval = expectation.interval_millis();
            self.extend_once(expectation, now);
        }
        changed
    }

    /// What is expected of it: its host's settings go before what its datagrams say, that before the
    /// common settings.
    pub fn expectation(&self, profile: &Profile, common: &SharedSettings) -> Expectation {
        if let Some(internal) = profile.internal_expectation(&self.name) {
            return internal;
        }
        let said = (self.interval > 0).then(|| Duration::from_millis(self.interval.into()));
        let interval = profile.interval.or(said).unwrap_or(common.interval);
        let default = || interval.saturating_mul(2).max(MIN_DEFAULT_GRACE);
        Expectation { interval, grace: profile.grace.or(common.grace).unwrap_or_else(default) }
    }

    /// A beat is received: it is up, and has no extension any more. Whether that must be stored at
    /// once: a new state, or the end of extensions that would count again after a crash.
    pub fn mark_up(&mut self, now: Now) -> bool {
        let was_extended = self.extension_count > 0;
        self.last_seen = now;
        self.extension = None;
        self.extension_count = 0;
        self.recovery_presumed = false;
        self.set_state(HostState::Up, now) || was_extended
    }

    /// Enters a state; whether that is a change.
    pub fn set_state(&mut self, state: HostState, now: Now) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            (self.since, self.entered_at) = (now.wall, now.mono);
        }
        changed
    }

    /// Its incident is closed without a beat: it has as long as after a beat to send one.
    pub fn presume_recovered(&mut self, expectation: Expectation, now: Now) {
        self.recovery_presumed = true;
        self.extension_count = 0;
        self.extension =
            Some(Extension { from: now.mono, until: now.mono + expectation.timeout() });
    }

    /// Gives it an interval and grace from now on. Whether it had a deadline to extend.
    pub fn extend_once(&mut self, expectation: Expectation, now: Now) -> bool {
        let has_deadline = self.deadline(expectation).is_some();
        if has_deadline {
            self.extension =
                Some(Extension { from: now.mono, until: now.mono + expectation.timeout() });
        }
        has_deadline
    }

    /// What promised its next beat is taken back: it has `grace` from now on to beat anyway, unless it is
    /// overdue before. Whether that has changed its deadline.
    pub fn withdraw_promise(
        &mut self,
        expectation: Expectation,
        grace: Duration,
        now: Now,
    ) -> bool {
        let until = now.mono + grace;
        let is_later = self.deadline(expectation).is_some_and(|deadline| deadline > until);
        if is_later {
            self.extension = Some(Extension { from: now.mono, until });
        }
        is_later
    }

    /// When it becomes overdue, blindness left aside; none when it is not expected to beat.
    pub fn deadline(&self, expectation: Expectation) -> Option<Mono> {
        match self.state {
            HostState::Up => Some(
                self.extension.map_or(self.last_seen.mono + expectation.timeout(), |extension| {
                    extension.until
                }),
            ),
            HostState::Overdue | HostState::Shutdown if self.recovery_presumed => {
                self.extension.map(|extension| extension.until)
            }
            HostState::New | HostState::Overdue | HostState::Shutdown => None,
        }
    }

    /// When it becomes overdue, after the times in which the daemon could not receive.
    ///
    /// A beat that was expected while the daemon was blind, or whose grace that cut short, gets a
    /// whole interval and grace from the end of the blindness, once. From then on only time spent
    /// listening counts: later blindness shifts the deadline by what was left of it. Without a proof
    /// that the daemon listened in between, it does so a few times only: frequent restarts must not
    /// postpone an alarm for ever.
    pub fn deadline_after_blindness(
        &mut self,
        expectation: Expectation,
        blind: &[BlindPeriod],
    ) -> Option<Mono> {
        let mut deadline = self.deadline(expectation)?;
        let expected = self.last_seen.mono + expectation.interval;
        for period in blind {
            let BlindPeriod { from, to } = *period;
            let Some(extension) = self.extension else {
                if from <= deadline && expected <= to {
                    deadline = to + expectation.timeout();
                    self.extension = Some(Extension { from: to, until: deadline });
                }
                continue;
            };
            let unproven = deadline <= to || from <= extension.from;
            let spent = unproven && self.extension_count == MAX_UNPROVEN_EXTENSIONS;
            if extension.from < to && from < deadline && !spent {
                deadline = to + deadline.since(from.max(extension.from));
                self.extension = Some(Extension { from: to, until: deadline });
                self.extension_count = self
                    .extension_count
                    .saturating_add(u8::from(unproven))
                    .min(MAX_UNPROVEN_EXTENSIONS);
            }
        }
        Some(deadline)
    }
}
