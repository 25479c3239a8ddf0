//! Which hosts are silent: those that are down since just now, and those that should have beaten by
//! now. Pure.
//!
//! A host counts that is watched, beats every five minutes at least, and is not reached through
//! others: those have what they are reached through to explain their silence.

use std::time::Duration;

use super::Fleet;
use crate::clock::Mono;
use crate::heartbeat::blindness::blind_since;
use crate::heartbeat::connection::Connection;
use crate::heartbeat::host::Host;
use crate::view::HostState;

/// Hosts that beat less often than this do not count.
const MAX_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// A host that has not beaten for more than this many intervals is silent.
const LATE_INTERVALS: u32 = 2;

/// How a host counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostSilence {
    /// It does not.
    NotCounted,
    /// It beats.
    Beats,
    /// It is silent; when its last beat was received.
    Since(Mono),
}

/// What came out when the hosts were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// How many hosts were up just now.
    pub of: usize,
    /// How many of these are silent.
    pub silent: usize,
    /// When the first of their last beats was received.
    pub first: Mono,
    /// When the last of these was.
    pub last: Mono,
}

impl Count {
    pub const NONE: Count = Count { of: 0, silent: 0, first: Mono(i64::MAX), last: Mono(i64::MIN) };

    /// Adds a host.
    pub fn add(&mut self, silence: HostSilence) {
        match silence {
            HostSilence::NotCounted => {}
            HostSilence::Beats => self.of += 1,
            HostSilence::Since(last_seen) => {
                self.of += 1;
                self.add_silent(last_seen);
            }
        }
    }

    /// One of the hosts that were added is silent.
    pub fn add_silent(&mut self, last_seen: Mono) {
        self.silent += 1;
        self.first = self.first.min(last_seen);
        self.last = self.last.max(last_seen);
    }
}

impl Fleet {
    /// Whether a connection has not beaten for too long, the time left out in which nothing could be
    /// received.
    fn is_late(&self, connection: &Connection, interval: Duration, now: Mono) -> bool {
        let limit = interval.saturating_mul(LATE_INTERVALS);
        let mut since = connection.last_seen.mono;
        if now.since(since) <= limit {
            return false;
        }
        // Its deadline was extended otherwise: it was heard, if not believed, or the clocks were lost.
        let periods = self.blindness.periods_of(connection.receivers.bits(), now);
        let blind = |at: Mono| periods.iter().any(|period| period.to == at);
        if let Some(extension) = connection.extension.filter(|extension| !blind(extension.from)) {
            since = since.max(extension.from);
        }
        now.since(since).saturating_sub(blind_since(&periods, since)) > limit
    }

    /// How a host that is up counts; the connection at the index `due` is late in any case.
    fn silence_while_up(&self, host: &Host, due: Option<usize>, now: Mono) -> HostSilence {
        let (mut is_silent, mut last_beat) = (true, Mono(i64::MIN));
        for (index, connection) in host.connections.iter().enumerate() {
            if connection.state != HostState::Up {
                continue;
            }
            let interval = connection.expectation(&host.profile, &self.common).interval;
            if interval > MAX_INTERVAL {
                return HostSilence::NotCounted;
            }
            is_silent &= due == Some(index) || self.is_late(connection, interval, now);
            last_beat = last_beat.max(connection.last_seen.mono);
        }
        if is_silent { HostSilence::Since(last_beat) } else { HostSilence::Beats }
    }

    /// How a host that is down counts.
    fn silence_while_down(&self, host: &Host, now: Mono) -> HostSilence {
        let seen = host.connections.iter().filter(|one| one.state != HostState::New);
        let last = seen.max_by_key(|connection| connection.last_seen.mono);
        let often = |last: &&Connection| {
            last.expectation(&host.profile, &self.common).interval <= MAX_INTERVAL
        };
        match last.filter(often) {
            Some(last) if host.is_silent_recently(now) => HostSilence::Since(last.last_seen.mono),
            Some(_) | None => HostSilence::NotCounted,
        }
    }

    /// How a host counts.
    pub(super) fn silence(&self, host_index: u32, due: Option<usize>, now: Mono) -> HostSilence {
        let host = &self.hosts[host_index as usize];
        if !host.is_expected() {
            return HostSilence::NotCounted;
        }
        let silence = match host.state {
            HostState::Up => self.silence_while_up(host, due, now),
            HostState::Overdue => self.silence_while_down(host, now),
            HostState::New | HostState::Shutdown => HostSilence::NotCounted,
        };
        if silence != HostSilence::NotCounted && self.has_parents(host_index) {
            HostSilence::NotCounted
        } else {
            silence
        }
    }

    /// What comes out when the hosts are counted.
    pub(super) fn count_hosts(&self, now: Mono) -> Count {
        let mut count = Count::NONE;
        (0..self.hosts.len() as u32).for_each(|host| count.add(self.silence(host, None, now)));
        count
    }

    /// Whether a host of a storm has not been heard again.
    pub(super) fn is_silent(&self, host_index: u32, now: Mono) -> bool {
        let host = &self.hosts[host_index as usize];
        match host.state {
            HostState::Overdue => true,
            HostState::Up => {
                matches!(self.silence_while_up(host, None, now), HostSilence::Since(_))
            }
            HostState::New | HostState::Shutdown => false,
        }
    }
}
