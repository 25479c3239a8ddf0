//! Storms: hosts that fall silent at the same time are one piece of news, probably about this
//! machine's own uplink. Pure.
//!
//! ```text
//!            a host falls silent, and by the count    20 s later, counted again
//!            so many others are silent, too           too many still
//!     Calm ──────────────────────────────────▶ Waiting ─────────────▶ Storm
//!      ▲                                          │ no longer           │ at most half of its hosts
//!      │◀─────────────────────────────────────────┘                     │ silent, for their patience
//!      └────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fleet;
use super::deadlines::{DeadlineEntry, DeadlineKind};
use super::silence::{Count, HostSilence};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, Incident, MAX_LISTED, StormEvent};
use crate::heartbeat::blindness::blind_since;
use crate::heartbeat::connection::Connection;
use crate::heartbeat::host::Host;
use crate::heartbeat::host::silence::seconds;
use crate::heartbeat::host::untold::{Explanation, Untold};
use crate::store::{Table, Write};
use crate::view::HostState;

/// The key of the storm that lasts in the store.
pub const STORM_KEY: &str = "storm";
/// For how long events wait, from the first of them on, until it is known whether there is a storm.
pub const MAX_STORM_WAIT: Duration = Duration::from_secs(20);
/// How often hosts are counted at most, and looked at while a storm lasts.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// For how long at most half of a storm's hosts must be silent at most until it is over.
const MAX_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// A storm that lasts this long from the last beat before it is over, whoever is silent: what more
/// than half of its hosts have in common is told, and each of them must be.
const MAX_STORM: Duration = Duration::from_secs(3600);

/// What the silence of a connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fall {
    /// Its event goes out as ever.
    Alone,
    /// Its event waits until it is known whether there is a storm.
    Waits(Mono),
    /// Its event is part of a storm.
    InStorm,
}

impl Fall {
    /// The event as it is from now on.
    pub(super) fn apply(self, mut untold: Untold) -> Untold {
        match self {
            Fall::Alone => {}
            Fall::Waits(until) => untold.for_storm = Some(until),
            Fall::InStorm => untold.event.in_storm = true,
        }
        untold
    }
}

/// Rounded to a whole second, and never none.
fn whole_seconds(duration: Duration) -> Duration {
    let rounded = duration.saturating_add(Duration::from_millis(500)).as_secs();
    Duration::from_secs(rounded.max(1))
}

/// Events that wait until it is known whether there is a storm.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// When the first of them began to.
    from: Mono,
    /// When hosts are counted again.
    until: Mono,
    /// It was prolonged by a time in which the daemon could not receive.
    is_shifted: bool,
}

/// Hosts that fell silent together.
#[derive(Debug)]
struct Storm {
    /// What its hosts are known by.
    id: u16,
    /// Since when it is known.
    since: Wall,
    /// When the last beat of a host was received before it began.
    last_beat: Now,
    /// Its hosts.
    hosts: BTreeSet<u32>,
    /// Since when at most half of them are.
    calm_since: Option<Mono>,
}

/// The storm of a fleet, as far as there is one.
#[derive(Debug, Default)]
pub struct Storms {
    /// When the hosts were counted last, and what came out.
    counted: Option<(Mono, Count)>,
    wait: Option<Wait>,
    current: Option<Storm>,
    /// That of the last storm.
    last_id: u16,
    /// When its entry in the heap of deadlines is due.
    scheduled_at: Option<Mono>,
    /// Its row is not stored yet as it is.
    is_changed: bool,
}

/// A storm as it is stored. Its hosts have its number in their rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormRow {
    /// Its number.
    pub id: u16,
    /// Since when it is known.
    pub since: Wall,
    /// When the last beat of a host was received before it began.
    pub last_beat: Wall,
}

/// The row of the storm as it is to be in the store from now on; none within: there is no storm.
pub fn storm_write(row: &Option<StormRow>) -> Write {
    match row {
        Some(row) => Write::put(Table::Meta, STORM_KEY, row),
        None => Write::remove(Table::Meta, STORM_KEY),
    }
}

impl Storms {
    /// Whether an event that began to wait at `from` waits still.
    pub(super) fn wait_of(&self, from: Mono) -> Option<Mono> {
        self.wait.filter(|wait| from >= wait.from).map(|wait| wait.until)
    }

    /// Whether the entry of the heap that is due at that moment still means something.
    pub(super) fn is_scheduled(&self, at: Mono) -> bool {
        self.scheduled_at == Some(at)
    }

    /// Whether a host belongs to the storm that lasts.
    pub(super) fn has(&self, host_index: u32) -> bool {
        self.current.as_ref().is_some_and(|storm| storm.hosts.contains(&host_index))
    }

    /// The row of the storm; none when there is no storm.
    pub(super) fn row(&self) -> Option<StormRow> {
        let row = |storm: &Storm| StormRow {
            id: storm.id,
            since: storm.since,
            last_beat: storm.last_beat.wall,
        };
        self.current.as_ref().map(row)
    }

    /// The same, when it is not stored yet as it is; none within when it is to be removed.
    pub(super) fn take_row(&mut self) -> Option<Option<StormRow>> {
        std::mem::take(&mut self.is_changed).then(|| self.row())
    }
}

impl Fleet {
    /// What comes out when the hosts are counted, once a second at most, with those that fell silent
    /// since; `host_index` is one that does so now.
    fn count_with(&mut self, host_index: u32, last_beat: Mono, now: Mono) -> Count {
        let known = self.storms.counted.filter(|(at, _)| now.since(*at) < COUNT_INTERVAL);
        let (at, mut count) = known.unwrap_or_else(|| (now, self.count_hosts(now)));
        let host = &self.hosts[host_index as usize];
        let is_added = known.is_some() && host.fell_at() >= seconds(at).max(1);
        if !is_added && self.silence(host_index, None, at) == HostSilence::Beats {
            count.add_silent(last_beat);
        }
        self.storms.counted = Some((at, count));
        count
    }

    /// The deadline of a connection has passed, and it is overdue with that: what its silence means.
    /// To be called while it is up still.
    pub(super) fn fall(&mut self, host_index: u32, index: usize, now: Now) -> Fall {
        let Some(limit) = self.common.storm.filter(|limit| self.hosts.len() >= limit.hosts) else {
            return Fall::Alone;
        };
        if self.hosts[host_index as usize].connections[index].state != HostState::Up {
            return Fall::Alone;
        }
        let HostSilence::Since(last_beat) = self.silence(host_index, Some(index), now.mono) else {
            return Fall::Alone;
        };
        let fall = match &mut self.storms.current {
            Some(storm) => {
                storm.hosts.insert(host_index);
                self.hosts[host_index as usize].set_storm(storm.id);
                Fall::InStorm
            }
            None => {
                let Count { silent, of, .. } = self.count_with(host_index, last_beat, now.mono);
                let is_suspect = limit.is_reached(silent, of);
                if is_suspect { Fall::Waits(self.wait_for_storm(now.mono)) } else { Fall::Alone }
            }
        };
        self.hosts[host_index as usize].note_fall(now.mono);
        fall
    }

    /// Until when events wait that begin to do so now.
    fn wait_for_storm(&mut self, now: Mono) -> Mono {
        if let Some(wait) = self.storms.wait {
            return wait.until;
        }
        let wait = Wait { from: now, until: now + MAX_STORM_WAIT, is_shifted: false };
        self.storms.wait = Some(wait);
        self.schedule_storm(wait.until);
        wait.until
    }

    fn schedule_storm(&mut self, at: Mono) {
        self.storms.scheduled_at = Some(at);
        self.deadlines.push(DeadlineEntry { at, host: 0, kind: DeadlineKind::Storm });
    }

    /// It is time to decide whether there is a storm, or to look whether it is over.
    pub(super) fn storm_due(&mut self, at: Mono, now: Now) -> Option<Event> {
        self.storms.scheduled_at.take_if(|scheduled| *scheduled == at)?;
        if self.storms.current.is_some() {
            return self.storm_goes_on(now);
        }
        let mut wait = self.storms.wait.take()?;
        let blind = blind_since(self.blindness.periods(), wait.from);
        if !std::mem::replace(&mut wait.is_shifted, true) {
            // Whoever beat meanwhile could not be heard.
            wait.until = wait.until + blind;
        }
        if wait.until > now.mono {
            self.storms.wait = Some(wait);
            self.schedule_storm(wait.until);
            return None;
        }
        let count = self.count_hosts(now.mono);
        self.storms.counted = Some((now.mono, count));
        let is_storm = self.common.storm?.is_reached(count.silent, count.of);
        is_storm.then(|| self.begin_storm(count, now))
    }

    fn begin_storm(&mut self, count: Count, now: Now) -> Event {
        let id = self.storms.last_id.checked_add(1).unwrap_or(1);
        let mut hosts = BTreeSet::new();
        for host_index in 0..self.hosts.len() as u32 {
            if let HostSilence::Since(_) = self.silence(host_index, None, now.mono) {
                self.join_storm(host_index, id);
                hosts.insert(host_index);
            }
        }
        let ago = now.mono.since(count.last);
        let last_beat = Now { mono: count.last, wall: now.wall - ago };
        let kind = StormEvent::Began {
            hosts: self.first_names(hosts.iter()),
            count: count.silent,
            of: count.of,
            within: whole_seconds(count.last.since(count.first)),
        };
        // When it comes out of a hold, then before its hosts do.
        let patience = self.timeouts(&hosts).min().unwrap_or_default();
        let storm = Storm { id, since: now.wall, last_beat, hosts, calm_since: None };
        self.set_storm(Some(storm));
        self.schedule_storm(now.mono + COUNT_INTERVAL);
        Event { patience, ..Event::new(now.wall, kind) }
    }

    /// A host belongs to a storm from now on; 0: to none.
    fn join_storm(&mut self, host_index: u32, id: u16) {
        self.hosts[host_index as usize].set_storm(id);
        self.mark_dirty(host_index);
    }

    fn set_storm(&mut self, storm: Option<Storm>) {
        if let Some(storm) = &storm {
            self.storms.last_id = storm.id;
        }
        self.storms.current = storm;
        self.storms.is_changed = true;
    }

    fn first_names<'a>(&self, hosts: impl Iterator<Item = &'a u32>) -> Vec<String> {
        let name = |host: &u32| self.hosts[*host as usize].name.as_ref().into();
        hosts.take(MAX_LISTED).map(name).collect()
    }

    /// Looks whether a storm is over.
    fn storm_goes_on(&mut self, now: Now) -> Option<Event> {
        let mut storm = self.storms.current.take()?;
        let is_gone = |host: &&u32| !self.hosts[**host as usize].is_expected();
        let gone: Vec<u32> = storm.hosts.iter().filter(is_gone).copied().collect();
        for host in gone {
            storm.hosts.remove(&host);
            self.join_storm(host, 0);
        }
        if storm.hosts.is_empty() {
            self.pending.closed_incidents.push(Incident::Storm);
            self.set_storm(None);
            return None;
        }
        if now.mono.since(storm.last_beat.mono) >= MAX_STORM {
            return Some(self.end_storm(&storm, now));
        }
        let silent = storm.hosts.iter().filter(|host| self.is_silent(**host, now.mono));
        if silent.count() * 2 > storm.hosts.len() {
            storm.calm_since = None;
        } else {
            let since = *storm.calm_since.get_or_insert(now.mono);
            let heard =
                now.mono.since(since).saturating_sub(blind_since(self.blindness.periods(), since));
            if heard >= self.storm_patience(&storm) {
                return Some(self.end_storm(&storm, now));
            }
        }
        self.storms.current = Some(storm);
        self.schedule_storm(now.mono + COUNT_INTERVAL);
        None
    }

    /// How long its hosts have to be heard again.
    fn storm_patience(&self, storm: &Storm) -> Duration {
        self.timeouts(&storm.hosts).max().unwrap_or_default().min(MAX_PATIENCE)
    }

    /// Within what time the connections of these hosts must beat.
    fn timeouts(&self, hosts: &BTreeSet<u32>) -> impl Iterator<Item = Duration> {
        hosts.iter().map(|host| &self.hosts[*host as usize]).flat_map(|host| {
            let timeout = |one: &Connection| one.expectation(&host.profile, &self.common).timeout();
            host.connections.iter().map(timeout)
        })
    }

    fn end_storm(&mut self, storm: &Storm, now: Now) -> Event {
        let silent = storm.hosts.iter().filter(|host| self.is_silent(**host, now.mono));
        let until = storm.calm_since.unwrap_or(now.mono);
        let kind = StormEvent::Ended {
            count: storm.hosts.len(),
            silent_count: silent.clone().count(),
            silent: self.first_names(silent),
            gone: whole_seconds(until.since(storm.last_beat.mono)),
        };
        storm.hosts.iter().for_each(|host| self.join_storm(*host, 0));
        self.set_storm(None);
        Event::new(now.wall, kind)
    }

    /// Takes up what was begun before the start: the storm of this row, whose hosts know its number,
    /// or a wait for one. To be called before the first [`due`](Fleet::due).
    pub fn restore_storm(&mut self, row: Option<StormRow>, now: Now) {
        let known = self.hosts.iter().map(Host::storm).max().unwrap_or_default();
        let id = row.as_ref().map_or(0, |row| row.id);
        self.storms.last_id = known.max(id);
        for host_index in 0..self.hosts.len() as u32 {
            let host = &self.hosts[host_index as usize];
            let waits = host.explanation.as_deref().is_some_and(Explanation::waits_for_storm);
            // Those that the daemon did not come to any more before it died, both ways.
            if host.storm() != id && (waits || host.storm() != 0) {
                self.join_storm(host_index, if waits { id } else { 0 });
            }
        }
        let Some(StormRow { id, since, last_beat }) = row else {
            self.restore_wait(now.mono);
            return;
        };
        let hosts = self.hosts_of_storm(id);
        let mono = now.mono - now.wall.since(last_beat);
        let last_beat = Now { mono, wall: last_beat };
        let storm = Storm { id, since, last_beat, hosts, calm_since: None };
        self.storms.current = Some(storm);
        self.schedule_storm(now.mono + COUNT_INTERVAL);
        self.end_storm_if_off(now);
    }

    /// The daemon was away while events waited: they do so for their whole time from now on, once.
    fn restore_wait(&mut self, now: Mono) {
        let mut wait: Option<Wait> = None;
        for host_index in 0..self.hosts.len() as u32 {
            let explanation = self.hosts[host_index as usize].explanation.as_deref_mut();
            let Some(explanation) = explanation.filter(|all| all.waits_for_storm()) else {
                continue;
            };
            for untold in explanation.waiting_for_storm() {
                let whole = (!untold.is_shifted).then_some(now + MAX_STORM_WAIT);
                let until = whole.or(untold.for_storm).unwrap_or(now).max(now);
                (untold.for_storm, untold.is_shifted) = (Some(until), true);
                let all = wait.get_or_insert(Wait { from: untold.from, until, is_shifted: true });
                all.from = all.from.min(untold.from);
                all.until = all.until.min(until);
            }
            self.mark_dirty(host_index);
        }
        if let Some(wait) = wait {
            self.storms.wait = Some(wait);
            self.schedule_storm(wait.until);
        }
    }

    fn hosts_of_storm(&self, id: u16) -> BTreeSet<u32> {
        let hosts = (0..).zip(&self.hosts).filter(|(_, host)| host.storm() == id);
        hosts.map(|(host_index, _)| host_index).insert_all()
    }

    /// The hosts may have other indexes than before, and the heap of deadlines is empty.
    pub(super) fn rebuild_storm(&mut self) {
        if let Some(mut storm) = self.storms.current.take() {
            storm.hosts = self.hosts_of_storm(storm.id);
            self.storms.current = Some(storm);
        }
        if let Some(at) = self.storms.scheduled_at {
            self.schedule_storm(at);
        }
    }

    /// With storms switched off, one that lasts is over, and what waits for one is told.
    pub(super) fn end_storm_if_off(&mut self, now: Now) {
        if self.common.storm.is_some() {
            return;
        }
        self.storms.wait = None;
        if let Some(storm) = self.storms.current.take() {
            let event = self.end_storm(&storm, now);
            self.pending.events.push(event);
        }
    }

    /// The row of the storm that lasts.
    pub fn storm_row(&self) -> Option<StormRow> {
        self.storms.row()
    }
}

#[cfg(test)]
#[path = "storm_tests.rs"]
mod tests;
