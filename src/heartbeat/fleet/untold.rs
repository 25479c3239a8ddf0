//! When an event that waits is let go: as soon as what its host is reached through was heard, or is
//! known to be down. Pure.

use std::time::Duration;

use super::deadlines::{DeadlineEntry, DeadlineKind};
use super::dependencies::{Evidence, Path, Reach};
use super::{Changes, Fleet};
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, MAX_LISTED};
use crate::heartbeat::connection::Extension;
use crate::heartbeat::host::untold::{MAX_DOUBT, Untold};
use crate::view::HostState;

impl Fleet {
    /// How a host stands for those that are reached through it and silent since `promised`.
    fn evidence(&self, host_index: u32, promised: Mono) -> Evidence {
        let host = &self.hosts[host_index as usize];
        let up = host.connections.iter().filter(|connection| connection.state == HostState::Up);
        let heard = up.map(|connection| connection.last_seen.mono).max();
        match () {
            () if heard.is_some_and(|heard| heard >= promised) => Evidence::Heard,
            () if !host.explains() => Evidence::Unexpected,
            () if host.is_down() && !host.has_untold() => Evidence::Down,
            () => Evidence::Silent,
        }
    }

    /// What a host is reached through, for a silence since `promised`.
    fn path(&self, host_index: u32, promised: Mono) -> Path<'_> {
        self.dependencies.path(host_index, |other| self.evidence(other, promised))
    }

    /// Whether a host is reached through others of which one at least is watched and was heard.
    pub(super) fn has_parents(&self, host_index: u32) -> bool {
        // Of nearly all hosts: without a look at what there is above them.
        if !self.dependencies.has_parents(host_index) {
            return false;
        }
        let mut parents = self.dependencies.ancestors(host_index).into_iter();
        parents.any(|parent| self.hosts[parent as usize].explains())
    }

    /// The event of a host that never beat, or did not come back: with what explains that.
    pub(super) fn explained(&mut self, host_index: u32, event: Event) -> Event {
        if !self.dependencies.has_parents(host_index) {
            return event;
        }
        // There is no beat that was promised: who is up is up.
        let down = self.path(host_index, Mono(i64::MIN)).down();
        self.hosts[host_index as usize].set_behind(!down.is_empty());
        let in_storm = self.is_any_in_storm(&down);
        Event { behind: self.names_of(down), in_storm, ..event }
    }

    /// Whether one of these belongs to the storm that lasts: nobody is told of that one, and it
    /// explains nothing by itself.
    fn is_any_in_storm(&self, hosts: &[u32]) -> bool {
        hosts.iter().any(|host| self.storms.has(*host))
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
        if let EventKind::Overdue {
            was_last_up: true,
            behind_it,
            behind_count,
            others_down,
            others_count,
            ..
        } = &mut event.kind
            && host.profile.watch
            && self.dependencies.is_parent(host_index)
        {
            let is_down = |other| self.is_down_parent(other);
            let mut cut: Vec<u32> =
                self.dependencies.cut_off_by(host_index, is_down).into_iter().collect();
            let host = |index: &u32| &self.hosts[*index as usize];
            cut.retain(|index| host(index).profile.watch && !host(index).forgotten);
            // Of these it is said already.
            let is_said = |other: &u32| *other == host_index || cut.binary_search(other).is_ok();
            let said = cut.iter().chain([&host_index]).filter(|other| self.down.contains(other));
            *others_count = self.down.len() - said.count();
            let others = self.down.iter().copied().filter(|other| !is_said(other));
            *others_down = self.names_of(others.take(MAX_LISTED));
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
        let blind = self.blindness.periods_of(host.receivers(), now.mono);
        let untold = host.untold_mut(connection)?;
        if let Some(until) = untold.for_storm.and_then(|_| self.storms.wait_of(untold.from)) {
            let kind = DeadlineKind::Untold;
            self.deadlines.push(DeadlineEntry { at: until, host: host_index, kind });
            return None;
        }
        untold.shift(&blind);
        let (promised, until) = (untold.promised, untold.until());
        let path = self.path(host_index, promised);
        if path.is_open() == Reach::Doubtful && now.mono < until {
            let silent: Vec<u32> = path.silent().collect();
            self.waiting.extend(silent.into_iter().map(|parent| (parent, host_index)));
            let kind = DeadlineKind::Untold;
            self.deadlines.push(DeadlineEntry { at: until, host: host_index, kind });
            return None;
        }
        let down = path.down();
        let by_parents = self.is_any_in_storm(&down);
        let behind = self.names_of(down);
        let host = &mut self.hosts[host_index as usize];
        let untold = host.take_untold(connection)?;
        host.must_store_now = true;
        host.set_behind(!behind.is_empty());
        // Those that are reached through it wait for this.
        self.wake(host_index, now);
        let by_itself = untold.for_storm.is_some() && self.storms.has(host_index);
        let in_storm = by_itself || by_parents;
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
        for connection in host.with_untold() {
            let mut event = self.let_go(host_index, &connection, now);
            if event.is_some() {
                let index = self.hosts[host_index as usize].connection_index(&connection)?;
                self.add_context(event.as_mut_slice(), host_index, index);
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
