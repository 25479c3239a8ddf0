//! Events of connections that are overdue, and wait until it is known whose silence that is: their
//! host's own, or that of what it is reached through. Pure.
//!
//! The state changes at the deadline as ever; the event stands in the row of its connection until it
//! is let go. A connection that is back before that leaves it in the history, and nobody is told.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Host;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind};
use crate::heartbeat::blindness::BlindPeriod;
use crate::heartbeat::connection::Connection;
use crate::heartbeat::settings::Profile;
use crate::view::HostState;

/// The longest time for which an event waits for what its host is reached through.
pub const MAX_DOUBT: Duration = Duration::from_secs(120);

/// An event that waits, for one reason or several: until the last of them has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Untold {
    /// The event.
    pub event: Event,
    /// When the beat was promised that did not come: what was heard since then is up.
    pub promised: Mono,
    /// From when on it waits.
    pub from: Mono,
    /// Until when it waits at most for what its host is reached through.
    pub for_parents: Option<Mono>,
    /// Until when it waits for what may turn out to be a storm.
    pub for_storm: Option<Mono>,
    /// The times above were shifted by a time in which the daemon could not receive.
    pub is_shifted: bool,
}

/// As it is stored with its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UntoldRow {
    /// When the connection fell due.
    pub at: Wall,
    /// It was the host's last one.
    pub last: bool,
    /// What the clocks differed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Duration>,
    /// When the beat was promised, by both clocks.
    pub promised: Now,
    /// From when on it waits.
    pub from: Mono,
    /// Until when for what its host is reached through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parents: Option<Mono>,
    /// Until when for what may be a storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<Mono>,
    /// The times were shifted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shifted: bool,
}

impl Untold {
    /// An event that begins to wait now.
    pub fn new(event: Event, promised: Mono, now: Now) -> Untold {
        Untold {
            event,
            promised,
            from: now.mono,
            for_parents: None,
            for_storm: None,
            is_shifted: false,
        }
    }

    /// Until when it waits at most.
    pub fn until(&self) -> Mono {
        self.for_parents.unwrap_or(self.from)
    }

    /// Time in which the daemon could not receive does not count, once: frequent restarts must not
    /// postpone it for ever.
    pub fn shift(&mut self, blind: &[BlindPeriod]) {
        let (from, until) = (self.from, self.until());
        let mut periods = blind.iter();
        let during = periods.find(|period| from < period.to && period.from < until);
        if let Some(period) = during.filter(|_| !self.is_shifted) {
            let by = period.to.since(period.from.max(from));
            self.for_parents = self.for_parents.map(|until| until + by);
            self.is_shifted = true;
        }
    }

    /// As it is stored.
    pub fn to_row(&self) -> UntoldRow {
        let (last, clock, by) = match &self.event.kind {
            EventKind::Overdue { was_last_up, clock, promised, .. } => {
                (*was_last_up, *clock, *promised)
            }
            _ => (true, None, self.event.at),
        };
        UntoldRow {
            at: self.event.at,
            last,
            clock,
            promised: Now { mono: self.promised, wall: by },
            from: self.from,
            parents: self.for_parents,
            storm: self.for_storm,
            shifted: self.is_shifted,
        }
    }

    /// From its row, whose monotonic times are `offset` behind the present clock.
    pub fn restore(
        row: UntoldRow,
        host: &str,
        connection: &Connection,
        offset: i64,
        now: Now,
    ) -> Untold {
        let time = |time: Mono| Mono(time.0.saturating_add(offset));
        let kind = EventKind::Overdue {
            host: host.to_owned(),
            connection: connection.name.as_ref().into(),
            last_seen: connection.last_seen.wall,
            promised: row.promised.wall,
            others_down: Vec::new(),
            others_count: 0,
            was_last_up: row.last,
            clock: row.clock,
            behind_it: Vec::new(),
            behind_count: 0,
        };
        // No event waits for longer than one that begins now, whatever the row says.
        let until = |until: Mono| time(until).min(now.mono + MAX_DOUBT);
        Untold {
            event: Event::new(row.at, kind),
            promised: time(row.promised.mono),
            from: time(row.from).min(now.mono),
            for_parents: row.parents.map(until),
            for_storm: row.storm.map(until),
            is_shifted: row.shifted,
        }
    }
}

/// What is known of why a host is not heard, and what of that is not told yet.
#[derive(Debug, Default)]
pub struct Explanation {
    /// By connection, the events that wait.
    untold: Vec<(Arc<str>, Untold)>,
    /// What it is reached through is down: whoever was told of that may not have been told of it.
    is_behind: bool,
    /// The number of the storm that it belongs to; 0 for none.
    pub storm: u16,
    /// When it fell silent, in seconds since the kernel's boot; 0 when that is not known.
    pub fell_at: u32,
}

impl Explanation {
    /// Whether there is nothing to explain any more.
    pub fn is_over(&self) -> bool {
        self.untold.is_empty() && !self.is_behind && self.storm == 0 && self.fell_at == 0
    }

    /// Whether an event waits until it is known whether there is a storm.
    pub fn waits_for_storm(&self) -> bool {
        self.untold.iter().any(|(_, untold)| untold.for_storm.is_some())
    }

    /// The events that wait for that.
    pub fn waiting_for_storm(&mut self) -> impl Iterator<Item = &mut Untold> {
        let untold = self.untold.iter_mut().map(|(_, untold)| untold);
        untold.filter(|untold| untold.for_storm.is_some())
    }
}

impl Host {
    /// The event of a connection that waits.
    pub fn untold(&self, connection: &str) -> Option<&Untold> {
        let untold = &self.explanation.as_deref()?.untold;
        untold.iter().find(|(name, _)| **name == *connection).map(|(_, untold)| untold)
    }

    /// The same, to change it.
    pub fn untold_mut(&mut self, connection: &str) -> Option<&mut Untold> {
        let untold = &mut self.explanation.as_deref_mut()?.untold;
        untold.iter_mut().find(|(name, _)| **name == *connection).map(|(_, untold)| untold)
    }

    /// Lets an event of a connection wait.
    pub fn hold(&mut self, connection: Arc<str>, mut untold: Untold) {
        // A hundred thousand may wait at once: which others are down is looked up when it is told.
        if let EventKind::Overdue { others_down, .. } = &mut untold.event.kind {
            *others_down = Vec::new();
        }
        self.explanation.get_or_insert_default().untold.push((connection, untold));
    }

    /// Takes it out.
    pub fn take_untold(&mut self, connection: &str) -> Option<Untold> {
        let all = &mut self.explanation.as_deref_mut()?.untold;
        let index = all.iter().position(|(name, _)| **name == *connection)?;
        let (_, untold) = all.remove(index);
        self.tidy_explanation();
        Some(untold)
    }

    /// Forgets what is over of it.
    pub fn tidy_explanation(&mut self) {
        self.explanation.take_if(|explanation| explanation.is_over());
    }

    /// Whether what it is reached through was down when it was last reported as down, or not seen, and
    /// nothing has changed that.
    pub fn is_behind(&self) -> bool {
        self.explanation.as_deref().is_some_and(|explanation| explanation.is_behind)
    }

    /// Sets that.
    pub fn set_behind(&mut self, is_behind: bool) {
        if is_behind != self.is_behind() {
            self.explanation.get_or_insert_default().is_behind = is_behind;
            self.tidy_explanation();
        }
    }

    /// It beats: when nothing of it is down any more there is nothing to explain.
    pub fn forget_explanation(&mut self) {
        if self.explanation.is_some() && !self.connections.iter().any(Connection::has_open_incident)
        {
            self.set_behind(false);
        }
    }

    /// The connections whose events wait, the oldest first.
    pub fn with_untold(&self) -> Vec<Arc<str>> {
        let untold = self.explanation.iter().flat_map(|explanation| &explanation.untold);
        untold.map(|(name, _)| name.clone()).collect()
    }

    /// Whether an event of it waits.
    pub fn has_untold(&self) -> bool {
        self.explanation.as_deref().is_some_and(|explanation| !explanation.untold.is_empty())
    }

    /// The connection is back, shut down, or given up: what waits of it is recorded, and nobody is told.
    pub fn drop_untold(&mut self, index: usize) -> Option<Event> {
        self.explanation.as_deref()?;
        let name = self.connections[index].name.clone();
        let untold = self.take_untold(&name)?;
        Some(Event { untold: true, ..untold.event })
    }

    /// The same of all that waits of it.
    pub fn drop_all_untold(&mut self) -> Vec<Event> {
        (0..self.connections.len()).filter_map(|index| self.drop_untold(index)).collect()
    }

    /// The same of what `profile` no longer expects.
    pub fn drop_unexpected(&mut self, profile: &Profile) -> Vec<Event> {
        let gone = |connection: &Connection| {
            let expected = profile.internal_expectation(&connection.name).is_some();
            !profile.watch || (connection.is_internal() && !expected)
        };
        let indexes = (0..self.connections.len()).filter(|_| self.explanation.is_some());
        let gone: Vec<usize> = indexes.filter(|index| gone(&self.connections[*index])).collect();
        self.must_store_now |= !gone.is_empty();
        gone.into_iter().filter_map(|index| self.drop_untold(index)).collect()
    }

    /// Whether it is down: nothing is heard of it, and that was reported, or waits to be.
    pub fn is_down(&self) -> bool {
        matches!(self.state, HostState::Overdue | HostState::Shutdown)
            && self.connections.iter().any(Connection::has_open_incident)
    }

    /// Whether its silence explains that of those which are reached through it: where nobody is told of
    /// it, or it never beat, it explains nothing.
    pub fn explains(&self) -> bool {
        self.profile.watch && !self.forgotten && self.was_seen()
    }
}
