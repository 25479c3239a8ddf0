//! Events of connections that are overdue, and wait until it is known whose silence that is: their
//! host's own, or that of what it is reached through. Pure.
//!
//! The state changes at the deadline as ever; the event stands in the row of its connection until it
//! is let go. A connection that is back before that leaves it in the history, and nobody is told.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadlines::{DeadlineEntry, DeadlineKind};
use super::dependencies::{Path, Reach, Standing};
use super::{Changes, Fleet};
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, MAX_LISTED};
use crate::heartbeat::connection::{Blindness, Connection, Extension};
use crate::heartbeat::host::Host;
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
    fn shift(&mut self, blindness: &Blindness) {
        let (from, until) = (self.from, self.until());
        let mut periods = blindness.periods().iter();
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

    fn untold_mut(&mut self, connection: &str) -> Option<&mut Untold> {
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

    fn take_untold(&mut self, connection: &str) -> Option<Untold> {
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
        gone.into_iter().filter_map(|index| self.drop_untold(index)).collect()
    }

    /// Whether it is down: nothing is heard of it, and that was reported, or waits to be.
    fn is_down(&self) -> bool {
        matches!(self.state, HostState::Overdue | HostState::Shutdown)
            && self.connections.iter().any(Connection::has_open_incident)
    }

    /// Whether its silence explains that of those which are reached through it: where nobody is told of
    /// it, or it never beat, it explains nothing.
    fn explains(&self) -> bool {
        self.profile.watch && !self.forgotten && self.was_seen()
    }
}

impl Fleet {
    /// How a host stands for those that are reached through it and silent since `promised`.
    fn standing(&self, host_index: u32, promised: Mono) -> Standing {
        let host = &self.hosts[host_index as usize];
        let up = host.connections.iter().filter(|connection| connection.state == HostState::Up);
        let heard = up.map(|connection| connection.last_seen.mono).max();
        match () {
            () if heard.is_some_and(|heard| heard >= promised) => Standing::Heard,
            () if !host.explains() => Standing::Unexpected,
            () if host.is_down() && !host.has_untold() => Standing::Down,
            () => Standing::Silent,
        }
    }

    /// What a host is reached through, for a silence since `promised`.
    fn path(&self, host_index: u32, promised: Mono) -> Path<'_> {
        self.dependencies.path(host_index, |other| self.standing(other, promised))
    }

    /// Whether a host is reached through others of which one at least is watched and was heard.
    pub(super) fn has_parents(&self, host_index: u32) -> bool {
        let mut parents = self.dependencies.ancestors(host_index).into_iter();
        parents.any(|parent| self.hosts[parent as usize].explains())
    }

    /// The event of a host that never beat, or did not come back: with what explains that.
    pub(super) fn explained(&mut self, host_index: u32, event: Event) -> Event {
        if !self.dependencies.has_parents(host_index) {
            return event;
        }
        // There is no beat that was promised: who is up is up.
        let path = self.path(host_index, Mono(i64::MIN));
        let behind = self.names_of(path.down());
        self.hosts[host_index as usize].set_behind(!behind.is_empty());
        Event { behind, ..event }
    }

    pub(super) fn names_of(&self, hosts: impl IntoIterator<Item = u32>) -> Vec<String> {
        hosts.into_iter().map(|host| self.hosts[host as usize].name.as_ref().into()).collect()
    }

    /// The event of a connection that fell due goes out now, or waits.
    pub(super) fn tell_or_hold(
        &mut self,
        host_index: u32,
        index: usize,
        untold: Untold,
        now: Now,
    ) -> Option<Event> {
        let has_parents =
            self.hosts[host_index as usize].profile.watch && self.has_parents(host_index);
        if !has_parents && untold.for_storm.is_none() {
            return Some(self.with_those_behind(host_index, untold.event));
        }
        let for_parents = has_parents.then(|| now.mono + MAX_DOUBT);
        let host = &mut self.hosts[host_index as usize];
        let connection = host.connections[index].name.clone();
        host.hold(connection.clone(), Untold { for_parents, ..untold });
        self.let_go(host_index, &connection, now)
    }

    /// Says in the event of a host that is down who is not told of meanwhile.
    fn with_those_behind(&self, host_index: u32, mut event: Event) -> Event {
        let host = &self.hosts[host_index as usize];
        if let EventKind::Overdue { was_last_up: true, behind_it, behind_count, .. } =
            &mut event.kind
            && host.profile.watch
            && self.dependencies.is_parent(host_index)
        {
            let is_down = |other| self.is_down_parent(other);
            let mut cut: Vec<u32> =
                self.dependencies.cut_off_by(host_index, is_down).into_iter().collect();
            let host = |index: &u32| &self.hosts[*index as usize];
            cut.retain(|index| host(index).profile.watch && !host(index).forgotten);
            *behind_count = cut.len();
            cut.truncate(MAX_LISTED);
            *behind_it = self.names_of(cut);
        }
        event
    }

    /// Takes out an event that waits when it is known by now whose silence it is, or it has waited for
    /// long enough; else it is looked at again when that may be so.
    pub(super) fn let_go(&mut self, host_index: u32, connection: &str, now: Now) -> Option<Event> {
        let host = &mut self.hosts[host_index as usize];
        let untold = host.untold_mut(connection)?;
        if let Some(until) = untold.for_storm.and_then(|_| self.storms.wait_of(untold.from)) {
            let kind = DeadlineKind::Untold;
            self.deadlines.push(DeadlineEntry { at: until, host: host_index, kind });
            return None;
        }
        untold.shift(&self.blindness);
        let (promised, until) = (untold.promised, untold.until());
        let path = self.path(host_index, promised);
        if path.is_open() == Reach::Doubtful && now.mono < until {
            let silent: Vec<u32> = path.silent().collect();
            self.waiting.extend(silent.into_iter().map(|parent| (parent, host_index)));
            let kind = DeadlineKind::Untold;
            self.deadlines.push(DeadlineEntry { at: until, host: host_index, kind });
            return None;
        }
        let behind = self.names_of(path.down());
        let host = &mut self.hosts[host_index as usize];
        let untold = host.take_untold(connection)?;
        host.must_store_now = true;
        host.set_behind(!behind.is_empty());
        // Those that are reached through it wait for this.
        self.wake(host_index, now);
        let in_storm = untold.for_storm.is_some() && self.storms.has(host_index);
        let mut event = Event { behind, in_storm, ..untold.event };
        if let EventKind::Overdue { others_down, others_count, .. } = &mut event.kind {
            let also_down = self.also_down(host_index);
            (*others_down, *others_count) = (also_down.names, also_down.count);
        }
        Some(self.with_those_behind(host_index, event))
    }

    /// Looks at the events of a host that wait, the oldest first; one at a time.
    pub(super) fn untold_due(&mut self, host_index: u32, now: Now) -> Option<Event> {
        let host = self.hosts.get(host_index as usize)?;
        let untold = &host.explanation.as_deref()?.untold;
        let names: Vec<Arc<str>> = untold.iter().map(|(name, _)| name.clone()).collect();
        for connection in names {
            let mut event = self.let_go(host_index, &connection, now);
            if event.is_some() {
                let index = self.hosts[host_index as usize].connection_index(&connection)?;
                self.set_patience(event.as_mut_slice(), host_index, index);
                self.schedule_untold(host_index, now);
                return event;
            }
        }
        None
    }

    /// The events of a host that wait are looked at with the next [`due`](Fleet::due).
    pub(super) fn schedule_untold(&mut self, host_index: u32, now: Now) {
        if self.hosts[host_index as usize].has_untold() {
            let kind = DeadlineKind::Untold;
            self.deadlines.push(DeadlineEntry { at: now.mono, host: host_index, kind });
        }
    }

    fn is_down_parent(&self, host_index: u32) -> bool {
        let host = &self.hosts[host_index as usize];
        host.explains() && host.is_down()
    }

    /// A host that others are reached through may be down from now on, or no longer.
    pub(super) fn update_down_parents(&mut self, host_index: u32) {
        if !self.dependencies.is_parent(host_index) {
            return;
        }
        if self.is_down_parent(host_index) {
            self.down_parents.insert(host_index);
        } else if self.down_parents.remove(&host_index) {
            let name = self.hosts[host_index as usize].name.as_ref().into();
            self.pending.parents_up.push(name);
            for host in self.dependencies.descendants(host_index) {
                self.review_behind(host);
            }
        }
    }

    /// Of these, which were down, those are no longer in the way that are up, or that a new
    /// configuration no longer expects or has others reached through.
    pub(super) fn note_parents_up(&mut self, were_down: Vec<String>) {
        let index = |name: &String| self.by_name.get(name.as_str()).copied();
        let is_down = |name: &String| {
            index(name).is_some_and(|host_index| self.down_parents.contains(&host_index))
        };
        let up = were_down.into_iter().filter(|name| !is_down(name));
        self.pending.parents_up.extend(up);
    }

    /// A host that was behind others is reported when it no longer is.
    pub(super) fn review_behind(&mut self, host_index: u32) {
        let host = &self.hosts[host_index as usize];
        if !host.is_behind() {
            return;
        }
        let promised = host.connections.iter().map(|connection| {
            let expectation = connection.expectation(&host.profile, &self.common);
            connection.last_seen.mono + expectation.interval
        });
        let path = self.path(host_index, promised.max().unwrap_or(Mono(i64::MIN)));
        if path.is_open() != Reach::Cut {
            let host = &mut self.hosts[host_index as usize];
            host.set_behind(false);
            self.pending.not_behind.push(host.name.as_ref().into());
            self.mark_dirty(host_index);
        }
    }

    /// What is no longer in the way, or no longer behind something, goes with the events.
    pub(super) fn take_explained(&mut self, changes: &mut Changes) {
        changes.parents_up.append(&mut self.pending.parents_up);
        changes.not_behind.append(&mut self.pending.not_behind);
    }

    /// Something became known of a host: the events that wait for it are looked at.
    pub(super) fn wake(&mut self, parent: u32, now: Now) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = self.waiting.range((parent, 0)..=(parent, u32::MAX));
        let woken: Vec<u32> = waiting.map(|(_, host)| *host).collect();
        for host in woken {
            self.waiting.remove(&(parent, host));
            self.schedule_untold(host, now);
        }
    }
}

/// When the beat was promised that a connection is overdue with.
///
/// After an extension the whole time of the connection counts from its beginning: what was heard
/// before the daemon was blind says nothing about the time since.
pub fn promised_at(
    last_seen: Mono,
    extension: Option<Extension>,
    deadline: Mono,
    grace: Duration,
) -> Mono {
    let from = extension.map_or(last_seen, |extension| extension.from);
    (deadline - grace).max(from)
}

#[cfg(test)]
#[path = "untold_tests.rs"]
mod tests;
