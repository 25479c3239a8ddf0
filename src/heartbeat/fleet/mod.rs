//! All hosts: restored from rows, changed by datagrams, by the passing of time and by a new
//! configuration. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::btree::InsertAll;
use crate::clock::{Mono, Now};
use crate::event::{Event, EventKind, Incident, MAX_LISTED, WatchEvent};
use crate::heartbeat::auth::ClockCheck;
use crate::heartbeat::blindness::{BlindPeriod, Blindness};
use crate::heartbeat::connection::Connection;
use crate::heartbeat::event_limits::EventLimits;
use crate::heartbeat::fleet::deadlines::{DeadlineEntry, DeadlineKind, Deadlines};
use crate::heartbeat::host::untold::Untold;
use crate::heartbeat::host::{AlsoDown, Host};
use crate::heartbeat::persistence::HostRow;
use crate::heartbeat::refused::Refusals;
use crate::heartbeat::settings::{self, FleetConfig, Interner, Profile, Profiles, SharedSettings};
use crate::view::HostState;

mod absence;
mod addresses;
mod changes;
mod deadlines;
pub mod dependencies;
mod forget;
pub mod ingest;
mod internal;
mod never_seen;
mod patterns;
pub mod receivers;
mod relayed;
pub mod restore;
mod silence;
pub mod storm;
mod unknown;
mod untold;
mod views;

use self::addresses::AddressTracker;
pub use self::addresses::{AddressChange, ConnectionId};
pub use self::changes::{Changes, Ingested, KeyUsage, change_of};
use self::dependencies::{Dependencies, DependsOn};
pub use self::forget::NotForgotten;
use self::patterns::{PatternHosts, ProfileIndex};
use self::relayed::RecentNews;
use self::storm::Storms;
use self::unknown::UnknownMemory;
pub use self::views::OpenProblem;

/// Connections of one host that are overdue within this time are so together.
const TOGETHER: Duration = Duration::from_secs(1);

/// A reminder that is due while its metric recovers is looked at again after this time.
const RECOVERY_CHECK: Duration = Duration::from_secs(60);

/// How many events and rows [`Fleet::due`] returns at once: when 100,000 hosts are down in one moment,
/// theirs must not be in memory all together.
const MAX_AT_ONCE: usize = 1024;

/// All hosts and what is expected of them.
#[derive(Debug)]
pub struct Fleet {
    common: SharedSettings,
    /// The configured ones by name, then the others as they came.
    pub(super) hosts: Vec<Host>,
    by_name: HashMap<Arc<str>, u32>,
    names: Interner,
    deadlines: Deadlines,
    blindness: Blindness,
    /// When nothing could be received, as far as the history does not know it yet.
    unreported_blindness: Vec<BlindPeriod>,
    clock_check: ClockCheck,
    /// Watched hosts that are overdue.
    down: BTreeSet<u32>,
    /// Which hosts are reached through which others.
    dependencies: Dependencies,
    /// Those that others are reached through and that are down.
    down_parents: BTreeSet<u32>,
    /// Parents that are silent, and the hosts that have events which wait for them.
    waiting: BTreeSet<(u32, u32)>,
    storms: Storms,
    /// Hosts that may have changed since the last flush.
    dirty: Vec<u32>,
    /// The profile of hosts that are not configured.
    unknown_profile: Arc<Profile>,
    unknown: UnknownMemory,
    patterns: PatternHosts,
    /// The addresses that names in the DNS follow.
    addresses: AddressTracker,
    /// How many events each host may cause.
    pub(super) limits: EventLimits,
    /// What was refused of them.
    refusals: Refusals,
    /// Which kernel's monotonic clock rows are written on.
    kernel: u32,
    /// What was handled lately that is no plain beat, in a cluster.
    recent_news: RecentNews,
    /// What the next `due` returns.
    pending: Changes,
}

impl Fleet {
    /// A fleet of hosts that were never seen. Its rows do not say which kernel's clock they are on: a
    /// daemon begins with [`restore`](Fleet::restore), without rows when there are none.
    pub fn new(config: FleetConfig, now: Now) -> Fleet {
        let mut fleet = Fleet::empty(&config, now);
        fleet.populate(settings::profiles(&config), HashMap::new(), &config.depends_on, now);
        fleet
    }

    fn empty(config: &FleetConfig, now: Now) -> Fleet {
        Fleet {
            common: SharedSettings::new(config),
            hosts: Vec::new(),
            by_name: HashMap::new(),
            names: Interner::default(),
            deadlines: Deadlines::default(),
            blindness: Blindness::default(),
            unreported_blindness: Vec::new(),
            clock_check: ClockCheck::default(),
            down: BTreeSet::new(),
            dependencies: Dependencies::default(),
            down_parents: BTreeSet::new(),
            waiting: BTreeSet::new(),
            storms: Storms::default(),
            dirty: Vec::new(),
            unknown_profile: Arc::default(),
            unknown: UnknownMemory::default(),
            patterns: PatternHosts::default(),
            addresses: AddressTracker::new(now),
            limits: EventLimits::default(),
            refusals: Refusals::default(),
            kernel: 0,
            recent_news: RecentNews::default(),
            pending: Changes::default(),
        }
    }

    /// The connections, alerts and hosts whose deadline has passed, each once.
    ///
    /// At most about a thousand at a time: when more have passed, the next deadline has passed
    /// still, and calling again goes on.
    pub fn due(&mut self, now: Now) -> Changes {
        let mut changes = std::mem::take(&mut self.pending);
        changes.events.extend(self.limits.due(now, false));
        let mut touched = BTreeSet::new();
        while changes.events.len() < MAX_AT_ONCE && touched.len() < MAX_AT_ONCE {
            let Some(entry) = self.deadlines.pop_due(now.mono) else {
                break;
            };
            let event = match entry.kind {
                DeadlineKind::Connection(index) => self.connection_due(entry, index.into(), now),
                DeadlineKind::NeverSeen => self.never_seen_due(entry.host, now),
                DeadlineKind::Return => self.return_due(entry.host, now),
                DeadlineKind::Forget => {
                    changes.events.extend(self.forget_due(entry.host, now));
                    None
                }
                DeadlineKind::Metric(index) => self.metric_due(entry, index.into(), now),
                DeadlineKind::Untold => self.untold_due(entry.host, now),
                DeadlineKind::Storm => self.storm_due(entry.at, now),
                DeadlineKind::Receiver(number) => self.receiver_due(number, now),
            };
            changes.events.extend(event);
            if self.hosts.get(entry.host as usize).is_some_and(|host| host.must_store_now) {
                touched.insert(entry.host);
            }
        }
        touched.retain(|host| !self.patterns.is_gone(*host));
        changes.rows.extend(touched.into_iter().map(|host| self.take_row(host)));
        self.remove_gone(&mut changes, now);
        self.take_explained(&mut changes);
        changes.storm = self.storms.take_row();
        changes.receivers = self.pending.receivers.take().or(changes.receivers);
        changes
    }

    fn connection_due(&mut self, entry: DeadlineEntry, index: usize, now: Now) -> Option<Event> {
        let host = self.hosts.get_mut(entry.host as usize)?;
        let connection = host.connections.get_mut(index).filter(|c| c.scheduled_at == entry.at)?;
        connection.scheduled_at = Mono(i64::MAX);
        let expectation = connection.expectation(&host.profile, &self.common);
        let extension_before = connection.extension;
        let receivers = connection.receivers.bits();
        let blind = self.blindness.periods_of(receivers, now.mono);
        if self.blindness.are_lost(receivers) {
            // How long that lasts is not known yet: the extension is recorded when it is.
            let at = connection.clone().deadline_after_blindness(expectation, &blind)?;
            if at > now.mono {
                connection.scheduled_at = at;
                self.deadlines.push(DeadlineEntry { at, ..entry });
                return None;
            }
        }
        let deadline = connection.deadline_after_blindness(expectation, &blind)?;
        host.must_store_now |= connection.extension != extension_before;
        if deadline > now.mono {
            self.schedule_connections(entry.host);
            return None;
        }
        if let Some(at) = self.due_together(entry.host, deadline, now.mono) {
            self.hosts[entry.host as usize].connections[index].scheduled_at = at;
            self.deadlines.push(DeadlineEntry { at, ..entry });
            return None;
        }
        let host = &self.hosts[entry.host as usize];
        let connection = &host.connections[index];
        let (last_seen, extension) = (connection.last_seen.mono, connection.extension);
        let promised = untold::promised_at(last_seen, extension, deadline, expectation.grace);
        let fall = self.fall(entry.host, index, now);
        let timeout = self.connection_timeout(entry.host, index, expectation);
        let event = self.hosts[entry.host as usize].on_timeout(timeout, now);
        self.update_down_set(entry.host);
        self.update_uptime(entry.host, now);
        self.schedule_forget(entry.host);
        self.wake(entry.host, now);
        let untold = fall.apply(Untold::new(event, promised, now));
        let mut event = self.tell_or_hold(entry.host, index, untold, now);
        self.add_context(event.as_mut_slice(), entry.host, index);
        event
    }

    /// When other connections of a watched host are overdue, too, as far as that is within a second of
    /// `deadline` and their beats are late already: they are told in one message.
    fn due_together(&self, host_index: u32, deadline: Mono, now: Mono) -> Option<Mono> {
        let host = &self.hosts[host_index as usize];
        let late = |connection: &Connection| {
            let expectation = connection.expectation(&host.profile, &self.common);
            let promised = connection.last_seen.mono + expectation.interval;
            connection.deadline(expectation).filter(|_| promised <= now)
        };
        let others = host.connections.iter().filter(|_| host.profile.watch).filter_map(late);
        others.filter(|at| now < *at && *at < deadline + TOGETHER).max()
    }

    fn also_down(&self, host: u32) -> AlsoDown {
        let names = self.down.iter().filter(|other| **other != host).take(MAX_LISTED);
        AlsoDown {
            names: names.map(|other| self.hosts[*other as usize].name.as_ref().into()).collect(),
            count: self.down.len() - usize::from(self.down.contains(&host)),
        }
    }

    fn metric_due(&mut self, entry: DeadlineEntry, index: usize, now: Now) -> Option<Event> {
        let host = self.hosts.get_mut(entry.host as usize)?;
        let metric = host.metrics.get_mut(index)?;
        let alert = metric.alert_state.as_deref_mut().filter(|w| w.scheduled_at == entry.at)?;
        alert.scheduled_at = Mono(i64::MAX);
        if host.state != HostState::Up {
            return None;
        }
        let is_due = metric.reminder_due_at(self.common.renotify)? <= now.mono;
        if is_due && metric.is_recovering() {
            // No event says that its value is bad again after all.
            let at = now.mono + RECOVERY_CHECK;
            metric.alert_state.as_deref_mut()?.scheduled_at = at;
            self.deadlines.push(DeadlineEntry { at, host: entry.host, kind: entry.kind });
            return None;
        }
        let mut event = if is_due { metric.event(&host.name, now, true) } else { None };
        host.must_store_now |= event.is_some();
        self.schedule_metrics(entry.host);
        self.add_context(event.as_mut_slice(), entry.host, 0);
        event
    }

    /// The daemon is told to stop, maybe with its machine: the next boot of that is announced.
    pub fn announce_stop(&mut self) {
        for host_index in 0..self.hosts.len() as u32 {
            let host = &mut self.hosts[host_index as usize];
            if host.profile.local.is_some() {
                host.stop_announced = true;
                self.mark_dirty(host_index);
            }
        }
    }

    /// When [`due`](Fleet::due) must be called next; it may find that it was called too early.
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.pending.is_empty() { self.deadlines.next() } else { Some(Mono(i64::MIN)) }
    }

    fn add_host(&mut self, host: Host) -> u32 {
        let host_index = u32::try_from(self.hosts.len()).expect("hosts are fewer than their limit");
        self.by_name.insert(host.name.clone(), host_index);
        self.patterns.add(&host);
        self.hosts.push(host);
        self.unknown.add(&mut self.hosts[host_index as usize]);
        host_index
    }

    fn schedule_connections(&mut self, host_index: u32) {
        let host = &mut self.hosts[host_index as usize];
        for (index, connection) in host.connections.iter_mut().enumerate() {
            let expectation = connection.expectation(&host.profile, &self.common);
            match connection.deadline(expectation) {
                Some(at) if at < connection.scheduled_at => {
                    connection.scheduled_at = at;
                    let kind = DeadlineKind::Connection(index as u8);
                    self.deadlines.push(DeadlineEntry { at, host: host_index, kind });
                }
                Some(_) | None => {}
            }
        }
        if self.deadlines.needs_compaction() {
            self.compact();
        }
    }

    fn schedule_metrics(&mut self, host_index: u32) {
        let host = &mut self.hosts[host_index as usize];
        if host.state != HostState::Up {
            return;
        }
        for (index, metric) in host.metrics.iter_mut().enumerate() {
            let at = metric.reminder_due_at(self.common.renotify);
            if let (Some(at), Some(alert)) = (at, metric.alert_state.as_deref_mut())
                && at < alert.scheduled_at
            {
                alert.scheduled_at = at;
                let kind = DeadlineKind::Metric(index as u16);
                self.deadlines.push(DeadlineEntry { at, host: host_index, kind });
            }
        }
    }

    /// Removes the entries that mean nothing any more.
    fn compact(&mut self) {
        let (hosts, common, storms) = (&self.hosts, &self.common, &self.storms);
        self.deadlines.compact(|entry| {
            let Some(host) = hosts.get(entry.host as usize) else {
                return matches!(entry.kind, DeadlineKind::Receiver(_));
            };
            match entry.kind {
                DeadlineKind::Receiver(_) => true,
                DeadlineKind::Storm => storms.is_scheduled(entry.at),
                DeadlineKind::Connection(index) => host
                    .connections
                    .get(usize::from(index))
                    .is_some_and(|c| c.scheduled_at == entry.at),
                DeadlineKind::NeverSeen => !host.was_seen(),
                DeadlineKind::Untold => host.has_untold(),
                DeadlineKind::Return => host.return_deadline().is_some(),
                DeadlineKind::Forget => {
                    let after = common.forget_after;
                    after.is_some_and(|after| host.next_forgotten(after).is_some())
                }
                DeadlineKind::Metric(index) => {
                    let metric = host.metrics.get(usize::from(index));
                    let alert = metric.and_then(|metric| metric.alert_state.as_deref());
                    alert.is_some_and(|alert| alert.scheduled_at == entry.at)
                }
            }
        });
    }

    fn update_down_set(&mut self, host_index: u32) {
        let host = &self.hosts[host_index as usize];
        if host.profile.watch && host.state == HostState::Overdue {
            self.down.insert(host_index);
        } else {
            self.down.remove(&host_index);
        }
        self.update_down_parents(host_index);
    }

    fn mark_dirty(&mut self, host_index: u32) {
        let host = &mut self.hosts[host_index as usize];
        host.dirty = true;
        if !std::mem::replace(&mut host.in_dirty_list, true) {
            self.dirty.push(host_index);
        }
    }

    fn row_of(&self, host: &Host) -> (String, HostRow) {
        (host.name.as_ref().into(), HostRow::of(host, self.kernel, &self.blindness))
    }

    fn take_row(&mut self, host_index: u32) -> (String, HostRow) {
        let host = &mut self.hosts[host_index as usize];
        host.must_store_now = false;
        host.dirty = false;
        self.row_of(&self.hosts[host_index as usize])
    }

    /// Adds the listed hosts by name, then the others that may stay: those that came by patterns, and those
    /// that are not configured.
    fn populate(
        &mut self,
        profiles: Profiles,
        mut known: HashMap<Arc<str>, Host>,
        depends_on: &DependsOn,
        now: Now,
    ) {
        self.patterns.set(profiles.patterns);
        self.hosts.reserve_exact(profiles.listed.len().max(known.len()));
        for (name, profile) in profiles.listed {
            let name: Arc<str> = name.into();
            let new =
                || Host { must_store_now: true, ..Host::new(name.clone(), profile.clone(), now) };
            let host = known.remove(&name).unwrap_or_else(new);
            self.add_host(host);
        }
        self.dependencies = Dependencies::new(depends_on, &self.by_name);
        self.find_parents_of_patterns(depends_on);
        let mut others: Vec<Host> = known.into_values().collect();
        others.sort_unstable_by(|a, b| {
            (a.configured_since, &a.name).cmp(&(b.configured_since, &b.name))
        });
        for host in others {
            if self.may_stay(&host) {
                let host_index = self.add_host(host);
                self.connect_by_pattern(host_index);
            } else {
                self.pending.closed_incidents.extend(host.open_incidents());
                self.pending.removed_hosts.push(host.name.as_ref().into());
            }
        }
        self.schedule_all(now);
    }

    /// Builds what is derived of hosts: none of them has an entry in the heap.
    fn schedule_all(&mut self, now: Now) {
        for host_index in 0..self.hosts.len() as u32 {
            let host = &self.hosts[host_index as usize];
            if host.must_store_now || host.dirty {
                self.mark_dirty(host_index);
            }
            self.update_down_set(host_index);
            self.update_uptime(host_index, now);
            self.schedule_connections(host_index);
            self.schedule_metrics(host_index);
            self.schedule_never_seen(host_index, now);
            self.schedule_return(host_index);
            self.schedule_forget(host_index);
            self.schedule_untold(host_index, now);
        }
        for host_index in 0..self.hosts.len() as u32 {
            self.review_behind(host_index);
        }
        self.rebuild_storm();
        self.schedule_receivers(now);
    }

    /// Applies a new configuration: hosts that are no longer configured are removed, or become unknown
    /// ones where those are accepted; new ones are added; an alert whose rule is gone is closed
    /// without a false OK.
    pub fn reconfigure(&mut self, config: FleetConfig, now: Now) -> Changes {
        let profiles = settings::profiles(&config);
        let configured = ProfileIndex::new(&profiles);
        let before = std::mem::replace(&mut self.common, SharedSettings::new(&config));
        let down_parents = self.names_of(self.down_parents.iter().copied());
        let hosts = self.take_hosts();
        let mut known = HashMap::with_capacity(hosts.len());
        for mut host in hosts {
            let profile = configured.get(&host.name, !host.connections.is_empty());
            let profile = profile.unwrap_or(&self.unknown_profile);
            host.stretch_extensions(profile, &before, &self.common);
            // What waits was not told: it is recorded, and that is all.
            let untold = host.with_untold();
            self.pending.events.extend(host.drop_unexpected(profile));
            if host.profile.configured {
                let untold = host.profile.watch.then_some(&*untold);
                self.pending.events.extend(host.on_unwatched(profile, &[], untold, now));
            }
            self.pending.closed_incidents.extend(host.apply_profile(
                profile.clone(),
                &self.common,
                now,
            ));
            known.insert(host.name.clone(), host);
        }
        self.populate(profiles, known, &config.depends_on, now);
        self.keep_told_ends();
        self.note_parents_up(down_parents);
        self.names.shrink();
        self.unknown.names.shrink();
        self.end_storm_if_off(now);
        let mut changes = std::mem::take(&mut self.pending);
        changes.storm = self.storms.take_row();
        changes.rows.extend(self.flush());
        changes
    }

    /// What an event ends is not closed without one before that.
    fn keep_told_ends(&mut self) {
        let ends = |event: &Event| match &event.kind {
            EventKind::Watch(WatchEvent::NoLonger { closes, .. }) => closes.clone(),
            _ => Vec::new(),
        };
        let told: BTreeSet<Incident> = self.pending.events.iter().flat_map(ends).insert_all();
        self.pending.closed_incidents.retain(|incident| !told.contains(incident));
    }

    /// Takes all hosts out, together with what refers to them by their indexes.
    fn take_hosts(&mut self) -> Vec<Host> {
        self.by_name.clear();
        self.dirty.clear();
        self.down.clear();
        self.down_parents.clear();
        self.waiting.clear();
        self.deadlines.clear();
        self.clock_check.forget_disagreements();
        self.unknown.clear();
        self.patterns.clear();
        self.addresses.clear();
        self.refusals.clear();
        std::mem::take(&mut self.hosts)
    }

    /// The rows of all hosts that changed since they were last taken, be it only when they were last
    /// seen.
    pub fn flush(&mut self) -> Vec<(String, HostRow)> {
        self.flush_some(usize::MAX)
    }

    /// The same, at most `max` of them at a time: the rows of 100,000 hosts are many megabytes.
    pub fn flush_some(&mut self, max: usize) -> Vec<(String, HostRow)> {
        let mut rows = Vec::new();
        while rows.len() < max {
            let Some(host_index) = self.dirty.pop() else {
                break;
            };
            let host = &mut self.hosts[host_index as usize];
            host.in_dirty_list = false;
            if host.dirty {
                rows.push(self.take_row(host_index));
            }
        }
        rows
    }

    /// The rows of all hosts, for a store that lost its own.
    pub fn all_rows(&self) -> Vec<(String, HostRow)> {
        self.rows(0, usize::MAX)
    }

    /// The rows of `count` hosts, from the index `from` on.
    pub fn rows(&self, from: usize, count: usize) -> Vec<(String, HostRow)> {
        self.hosts.iter().skip(from).take(count).map(|host| self.row_of(host)).collect()
    }

    /// The row of one host.
    pub fn row(&self, name: &str) -> Option<HostRow> {
        let host = *self.by_name.get(name)?;
        Some(self.row_of(&self.hosts[host as usize]).1)
    }

    /// Whether the configuration has a host of that name, or a pattern that matches it.
    pub fn is_configured(&self, name: &str) -> bool {
        match self.by_name.get(name) {
            Some(host) => self.hosts[*host as usize].profile.configured,
            None => self.patterns.profile(name).is_some(),
        }
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::heartbeat::datagram::Datagram;
    use crate::heartbeat::persistence::LastAlive;
    use crate::heartbeat::settings::{ALERTMANAGER, Expectation, HostSettings, UnknownHosts};
    use crate::heartbeat::test_fleet::{BEGIN, DAY, HERE, HOUR, MINUTE, SECOND, TestFleet, config};
    use crate::heartbeat::threshold::Rule;

    const BEAT: &str = r#"{"host":"web1"}"#;
    const SHUTDOWN: &str = r#"{"host":"web1","event":"shutdown"}"#;
    const BOOT: &str = r#"{"host":"web1","event":"boot","boot_id":"b2"}"#;
    const MESSAGE: &str = r#"{"host":"web1","event":"message","message":"is hot"}"#;

    /// web1, brought into a state, with the events of that forgotten.
    fn in_state(state: HostState) -> TestFleet {
        let mut test = TestFleet::new();
        match state {
            HostState::New => {}
            HostState::Up => drop(test.ingest(r#"{"host":"web1","boot_id":"b1"}"#)),
            HostState::Overdue => {
                test.ingest(r#"{"host":"web1","boot_id":"b1"}"#).wait(MINUTE);
            }
            HostState::Shutdown => {
                test.ingest(r#"{"host":"web1","boot_id":"b1"}"#).ingest(SHUTDOWN);
            }
        }
        test.wait(SECOND).take_events();
        assert_eq!(test.fleet.view("web1").unwrap().state, state);
        test
    }

    #[test]
    fn every_row_of_the_state_table_holds() {
        use HostState::{New, Overdue, Shutdown, Up};
        let rows: [(HostState, &str, HostState, &[&str]); 17] = [
            (New, BEAT, Up, &[]),
            (New, SHUTDOWN, New, &[]),
            (New, BOOT, Up, &["info web1 booted"]),
            (New, MESSAGE, New, &["warning web1 is hot"]),
            (Up, BEAT, Up, &[]),
            (Up, SHUTDOWN, Shutdown, &["warning web1 ipv4 shutdown"]),
            (Up, BOOT, Up, &["warning web1 booted"]),
            (Up, r#"{"host":"web1","boot_id":"b2"}"#, Up, &["warning web1 booted"]),
            (Up, MESSAGE, Up, &["warning web1 is hot"]),
            (Overdue, BEAT, Up, &["ok web1 ipv4 is back"]),
            (Overdue, SHUTDOWN, Shutdown, &["warning web1 ipv4 shutdown"]),
            (Overdue, BOOT, Up, &["warning web1 booted"]),
            (Overdue, MESSAGE, Overdue, &["warning web1 is hot"]),
            (Shutdown, BEAT, Up, &["ok web1 ipv4 is back"]),
            (Shutdown, SHUTDOWN, Shutdown, &[]),
            (Shutdown, BOOT, Up, &["info web1 booted"]),
            (Shutdown, MESSAGE, Shutdown, &["warning web1 is hot"]),
        ];
        for (from, json, to, events) in rows {
            let mut test = in_state(from);
            test.ingest(json);
            assert_eq!(test.titles_with_level(), events, "{from:?} {json}");
            assert_eq!(test.fleet.view("web1").unwrap().state, to, "{from:?} {json}");
        }
    }

    #[test]
    fn silence_is_told_once_and_at_its_deadline() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(40 * SECOND - Duration::from_millis(1));
        assert!(test.titles().is_empty());
        assert_eq!(
            test.wait(Duration::from_millis(1)).titles_with_level(),
            ["critical web1 ipv4 overdue"]
        );
        assert!(test.wait(DAY).titles().is_empty());
        assert_eq!(test.beat("web1").titles(), ["web1 ipv4 is back"]);
        assert_eq!(test.wait(DAY).titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn what_a_host_says_of_its_interval_is_kept_unless_its_settings_say_otherwise() {
        let mut test = TestFleet::new();
        test.ingest(r#"{"host":"web1","interval":3600}"#).wait(HOUR).beat("web1");
        assert!(test.wait(3 * HOUR - SECOND).titles().is_empty());
        assert_eq!(test.wait(SECOND).titles(), ["web1 ipv4 overdue"]);

        let mut config = config();
        let host = config.hosts.get_mut("web1").unwrap();
        host.interval = Some(MINUTE);
        host.grace = Some(SECOND);
        let mut test = TestFleet::with(config);
        test.ingest(r#"{"host":"web1","interval":3600}"#);
        assert_eq!(test.wait(61 * SECOND).titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_shorter_interval_wakes_the_loop() {
        let mut test = TestFleet::new();
        assert!(test.try_ingest(br#"{"host":"web1","interval":3600}"#).unwrap().rearm);
        assert!(!test.try_ingest(br#"{"host":"web1","interval":7200}"#).unwrap().rearm);
        assert!(test.try_ingest(br#"{"host":"web1","interval":1}"#).unwrap().rearm);
        assert_eq!(test.wait(32 * SECOND).titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn only_the_last_live_connection_is_critical() {
        let mut test = TestFleet::new();
        test.beat_over("web1", "ipv4").wait(SECOND).beat_over("web1", "vpn");
        assert_eq!(
            test.wait(MINUTE).titles_with_level(),
            ["warning web1 ipv4 overdue", "critical web1 vpn overdue"]
        );
    }

    #[test]
    fn a_boot_is_told_once_for_all_connections() {
        let mut test = TestFleet::new();
        let over = |event: &str, connection: &str, id: &str| {
            format!(
                r#"{{"host":"web1","event":"{event}","connection":"{connection}","boot_id":"{id}"}}"#
            )
        };
        test.ingest(&over("beat", "a", "b1"))
            .ingest(&over("beat", "b", "b1"))
            .wait(MINUTE)
            .take_events();
        test.ingest(&over("boot", "a", "b2"));
        let facts = test.take_events();
        let EventKind::Booted { announced: false, returned, gone: Some(gone), .. } = &facts[0].kind
        else {
            panic!("{facts:?}");
        };
        assert_eq!((returned.join(" ").as_str(), *gone), ("a b", MINUTE));
        test.ingest(&over("boot", "b", "b2")).ingest(&over("beat", "a", "b1"));
        assert!(test.titles().is_empty(), "neither its second way nor a late datagram is a boot");
    }

    #[test]
    fn a_connection_that_a_boot_covered_is_told_again_when_it_stays_away() {
        let mut test = TestFleet::new();
        test.beat_over("web1", "a").beat_over("web1", "b").wait(MINUTE).take_events();
        test.ingest(r#"{"host":"web1","event":"boot","connection":"a"}"#);
        assert_eq!(test.titles(), ["web1 booted"]);
        for _ in 0..6 {
            test.wait(10 * SECOND).beat_over("web1", "a");
        }
        assert_eq!(test.titles_with_level(), ["warning web1 b overdue"]);
        assert_eq!(test.beat_over("web1", "b").titles(), ["web1 b is back"]);
    }

    #[test]
    fn a_boot_without_an_id_is_told_once_within_two_minutes() {
        let mut test = TestFleet::new();
        let boot = r#"{"host":"web1","event":"boot"}"#;
        test.beat("web1").ingest(boot).take_events();
        assert!(test.wait(5 * SECOND).ingest(boot).titles().is_empty());
        assert_eq!(
            test.ingest(SHUTDOWN).ingest(boot).titles(),
            ["web1 ipv4 shutdown", "web1 booted"]
        );
        for _ in 0..12 {
            test.wait(10 * SECOND).beat("web1");
        }
        assert_eq!(test.ingest(boot).titles(), ["web1 booted"]);
        let named = r#"{"host":"web1","boot_id":"b1"}"#;
        assert!(test.wait(SECOND).ingest(named).titles().is_empty(), "its id is learnt silently");
    }

    #[test]
    fn an_agent_that_begins_to_speak_long_after_the_boot_tells_no_boot() {
        let boot = |id: &str, uptime: u32| {
            format!(r#"{{"host":"web1","event":"boot","boot_id":"{id}","uptime":{uptime}}}"#)
        };
        let mut test = TestFleet::new();
        assert!(test.ingest(&boot("b1", 600)).titles().is_empty());
        assert!(test.ingest(&boot("b1", 700)).titles().is_empty());
        let told = test.ingest(&boot("b2", 900)).titles();
        assert_eq!(told, ["web1 booted"], "its last boot is known, and this is another one");
        assert_eq!(TestFleet::new().ingest(&boot("b1", 599)).titles(), ["web1 booted"]);
    }

    #[test]
    fn a_repeated_boot_is_a_beat() {
        let mut test = TestFleet::new();
        assert_eq!(test.ingest(BOOT).titles(), ["web1 booted"]);
        assert_eq!(test.wait(MINUTE).titles(), ["web1 ipv4 overdue"]);
        assert_eq!(test.ingest(BOOT).titles(), ["web1 ipv4 is back"]);
    }

    #[test]
    fn a_shutdown_of_the_boot_before_comes_too_late() {
        let mut test = in_state(HostState::Up);
        test.ingest(BOOT).take_events();
        test.ingest(r#"{"host":"web1","event":"shutdown","boot_id":"b1"}"#);
        assert!(test.titles().is_empty());
    }

    #[test]
    fn a_watched_host_that_was_never_seen_is_reported_once_and_over_restarts() {
        let mut test = TestFleet::new();
        test.wait(23 * HOUR).restart_after(MINUTE);
        assert!(test.titles().is_empty());
        assert_eq!(test.wait(HOUR).titles_with_level(), ["warning web1 was never heard"]);
        test.restart_after(MINUTE).wait(3 * DAY);
        assert!(test.titles().is_empty());
        assert_eq!(test.beat("web1").titles_with_level(), ["ok web1 ipv4 is up"]);

        let mut test = TestFleet::new();
        test.wait(20 * HOUR).reboot_after(HOUR).wait(3 * HOUR);
        assert_eq!(test.titles(), ["web1 was never heard"]);
    }

    #[test]
    fn a_restart_does_not_invent_silence_and_does_not_forget_it() {
        for reboots in [false, true] {
            let restart = |test: &mut TestFleet, time| {
                if reboots {
                    test.reboot_after(time)
                } else {
                    test.restart_after(time)
                };
            };
            let mut test = TestFleet::new();
            test.beat("web1").wait(MINUTE).take_events();
            restart(&mut test, HOUR);
            assert!(test.wait(DAY).titles().is_empty(), "already notified");

            let mut test = TestFleet::new();
            test.beat("web1").wait(5 * SECOND);
            restart(&mut test, HOUR);
            assert!(test.wait(40 * SECOND - Duration::from_millis(1)).titles().is_empty());
            assert_eq!(test.wait(SECOND).titles(), ["web1 ipv4 overdue"], "E within");

            let mut test = TestFleet::with_interval(DAY);
            test.beat("web1").wait(20 * HOUR);
            restart(&mut test, 5 * MINUTE);
            test.wait(3 * DAY - 20 * HOUR - 5 * MINUTE - SECOND);
            assert!(test.titles().is_empty());
            assert_eq!(test.wait(SECOND).titles(), ["web1 ipv4 overdue"], "E after start");
        }
    }

    #[test]
    fn a_deadline_that_passed_before_the_stop_is_told_at_once() {
        let mut test = TestFleet::new();
        test.beat("web1");
        let rows = test.rows();
        test.now = test.now.later(MINUTE);
        let last_alive = test.last_alive();
        test.now = test.now.later(SECOND);
        assert_eq!(test.start(rows, Some(last_alive)).titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_lost_clock_gives_everyone_a_whole_interval_and_grace() {
        for (wall, last_alive) in [(0, true), (BEGIN.wall.0 - 1, true), (BEGIN.wall.0 + 9, false)] {
            let mut test = TestFleet::new();
            test.beat("web1");
            let (rows, last_alive) = (test.rows(), last_alive.then(|| test.last_alive()));
            test.kernel = "kernel-2".into();
            test.now = Now { mono: Mono(5_000), wall: Wall(wall) };
            test.start(rows, last_alive).wait(40 * SECOND - Duration::from_millis(1));
            assert!(test.titles().is_empty());
            assert_eq!(test.wait(SECOND).titles(), ["web1 ipv4 overdue"]);
        }
    }

    #[test]
    fn frequent_restarts_do_not_postpone_an_alarm_for_ever() {
        let mut test = TestFleet::new();
        test.beat("web1");
        for _ in 0..10 {
            test.wait(20 * SECOND).restart_after(SECOND);
        }
        assert_eq!(test.titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_second_long_outage_does_not_invent_an_alarm() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(5 * SECOND).sleep(HOUR).wait(5 * SECOND).sleep(HOUR);
        test.wait(10 * SECOND).beat("web1");
        assert!(test.titles().is_empty());
        test.wait(5 * SECOND).sleep(HOUR).wait(HOUR);
        assert_eq!(test.titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn crash_after_crash_before_any_flush_did_invent_an_alarm() {
        let mut test = TestFleet::new();
        test.beat("web1");
        let last_alive = test.last_alive();
        let mut stored = test.rows();
        for _ in 0..20 {
            test.now = test.now.later(SECOND);
            test.start(stored.clone(), Some(last_alive.clone()));
            stored = test.rows();
            test.wait(35 * SECOND);
            stored.extend(test.try_ingest(BEAT.as_bytes()).unwrap().rows);
            assert!(test.titles().is_empty());
        }
    }

    #[test]
    fn a_daemon_that_never_lived_for_a_minute_never_told_of_a_host_that_fell_silent() {
        for life in [5, 30, 59] {
            for away in [0, 1, 20] {
                let mut test = TestFleet::new();
                test.record_start().wait(SECOND).beat("web1").wait(life * SECOND - SECOND);
                let mut told = Vec::new();
                for _ in 0..60 {
                    told.extend(
                        test.kill_and_start_after(away * SECOND).wait(life * SECOND).titles(),
                    );
                }
                assert_eq!(told, ["web1 ipv4 overdue"], "{life} {away}");
                test.beat("web1").kill_and_start_after(SECOND);
                assert_eq!(test.titles(), ["web1 ipv4 is back"], "{life} {away}");
            }
        }
    }

    #[test]
    fn a_daemon_that_never_lived_for_a_minute_told_of_no_host_that_beats() {
        for life in [11, 30, 59] {
            for away in [0, 1, 100] {
                let mut test = TestFleet::new();
                test.record_start();
                for _ in 0..60 {
                    let mut left = life;
                    while left > 10 {
                        test.wait(10 * SECOND).beat("web1");
                        left -= 10;
                    }
                    test.wait(left * SECOND).kill_and_start_after(away * SECOND);
                }
                assert!(test.titles().is_empty(), "{life} {away}");
            }
        }
    }

    #[test]
    fn a_host_that_was_never_heard_was_never_told_by_a_daemon_that_never_lived_for_a_minute() {
        for life in [5 * SECOND, 59 * SECOND] {
            let mut test = TestFleet::new();
            test.config.settings.new_timeout = HOUR;
            test.lose_state().kill_and_start_after(Duration::ZERO);
            let mut told = Vec::new();
            for _ in 0..3 * HOUR.as_secs() / life.as_secs() {
                told.extend(test.wait(life).kill_and_start_after(SECOND).titles());
            }
            assert_eq!(told, ["web1 was never heard"], "{life:?}");
        }
    }

    #[test]
    fn a_store_of_which_the_last_sign_of_life_is_lost_did_extend_deadlines_at_each_start() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(DAY).lose_state();
        test.now = BEGIN;
        test.start(Vec::new(), None).ingest(BEAT);
        // A row and no sign of life, as earlier versions left it.
        test.wait(HOUR).take_events();
        let mut told = Vec::new();
        for _ in 0..60 {
            told.extend(test.kill_and_start_after(SECOND).wait(5 * SECOND).titles());
        }
        assert_eq!(told, [""; 0], "it was told before");

        let mut test = TestFleet::new();
        test.beat("web1");
        test.now = test.now.later(5 * SECOND);
        assert!(test.kill_and_start_after(SECOND).wait(5 * SECOND).titles().is_empty());
        for _ in 0..60 {
            told.extend(test.kill_and_start_after(SECOND).wait(5 * SECOND).titles());
        }
        assert_eq!(told, ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_longer_interval_in_a_reload_after_a_restart_is_no_silence() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(5 * SECOND).restart_after(MINUTE);
        test.config.hosts.get_mut("web1").unwrap().interval = Some(HOUR);
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert!(test.wait(HOUR).beat("web1").titles().is_empty());
    }

    #[test]
    fn rows_of_two_kernels_ago_go_by_the_wall_clock() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(MINUTE).take_events();
        let rows = test.rows();
        test.reboot_after(MINUTE);
        let last_alive = test.last_alive();
        test.now = Now { mono: Mono(7_000), wall: test.now.wall + HOUR };
        test.kernel.push('y');
        test.start(rows, Some(last_alive)).beat("web1");
        let facts = test.take_events();
        assert!(matches!(facts[0].kind, EventKind::Back { gone, .. } if gone == HOUR + 2 * MINUTE));
    }

    #[test]
    fn weird_rows_do_no_harm() {
        for number in [i64::MIN, -1, 0, i64::MAX] {
            let now = format!(r#"{{"mono":{number},"wall":{number}}}"#);
            let row: HostRow = serde_json::from_str(&format!(
                r#"{{"since":{number},"configured":{number},"booted":{number},"unknown":1,
                "connections":[{{"name":"a","state":"UP","seen":{now},"granted":{{"from":{number},"until":{number}}},
                "interval":4294967295,"shifts":255}},{{"state":"OVERDUE","covered":true}},{{}}],
                "alerts":[{{"path":"m","level":"critical","told":{now}}}]}}"#
            ))
            .unwrap();
            for last_alive in [Some(number), None] {
                let last_alive = last_alive.map(|n| LastAlive {
                    kernel_boot: "k".into(),
                    now: Now { mono: Mono(n), wall: Wall(n) },
                    offset: None,
                });
                for kernel in ["k", "l"] {
                    let rows = [("web1".to_owned(), row.clone())];
                    let mut fleet =
                        Fleet::restore(config(), rows, last_alive.clone(), BEGIN, kernel);
                    fleet.due(BEGIN);
                    fleet.due(BEGIN.later(365 * DAY));
                    fleet.ingest(BEAT.as_bytes(), HERE, BEGIN.later(366 * DAY)).unwrap();
                    assert_eq!(fleet.view("web1").unwrap().state, HostState::Up);
                }
            }
        }
    }

    #[test]
    fn plain_beats_store_nothing_and_changes_do() {
        let mut test = TestFleet::new();
        assert_eq!(test.fleet.flush().len(), 1, "since when it is configured");
        assert_eq!(test.try_ingest(BEAT.as_bytes()).unwrap().rows.len(), 1);
        assert!(test.fleet.flush().is_empty());
        assert!(test.try_ingest(BEAT.as_bytes()).unwrap().rows.is_empty());
        assert_eq!(test.fleet.flush().len(), 1);
        assert!(test.fleet.flush().is_empty());
        test.now = test.now.later(MINUTE);
        assert_eq!(test.fleet.due(test.now).rows.len(), 1);
    }

    #[test]
    fn others_that_are_down_are_named_and_counted() {
        let mut config = config();
        let watched = HostSettings { watch: true, ..HostSettings::default() };
        config.hosts.insert("web2".into(), watched);
        config.hosts.insert("quiet".into(), HostSettings::default());
        let mut test = TestFleet::with(config);
        test.beat("quiet").wait(SECOND).beat("web1").wait(SECOND).beat("web2").wait(MINUTE);
        let others: Vec<_> = test
            .take_events()
            .into_iter()
            .map(|event| match event.kind {
                EventKind::Overdue { others_down, others_count, .. } => {
                    format!("{others_count} {}", others_down.join(" "))
                }
                kind => panic!("{kind:?}"),
            })
            .collect();
        assert_eq!(others, ["0 ", "0 ", "1 web1"]);
    }

    #[test]
    fn restarts_did_postpone_for_ever_what_an_unset_clock_had_begun() {
        let mut test = TestFleet::new();
        test.now.wall = Wall(5_000);
        test.start(Vec::new(), None);
        let mut stored: HashMap<_, _> = test.fleet.flush().into_iter().collect();
        test.now.wall = BEGIN.wall;
        for _ in 0..2 {
            test.wait(23 * HOUR);
            stored.extend(test.fleet.flush());
            let last_alive = test.last_alive();
            test.now = test.now.later(SECOND);
            test.start(stored.clone().into_iter().collect(), Some(last_alive));
        }
        assert_eq!(test.wait(HOUR).titles(), ["web1 was never heard"]);
    }

    #[test]
    fn a_boot_told_two_kernels_ago_did_count_as_one_told_now() {
        let mut test = TestFleet::new();
        test.ingest(BOOT).wait(MINUTE);
        let rows = test.rows();
        test.reboot_after(MINUTE);
        let last_alive = test.last_alive();
        test.now = Now { mono: Mono(7_000), wall: test.now.wall + HOUR };
        test.kernel.push('y');
        test.start(rows, Some(last_alive)).take_events();
        test.ingest(r#"{"host":"web1","event":"boot"}"#);
        assert_eq!(test.titles(), ["web1 booted"]);
    }

    #[test]
    fn a_beat_with_another_interval_did_cost_a_write_each_time() {
        let mut test = TestFleet::new();
        test.beat("web1").fleet.flush();
        for interval in [10, 11, 10] {
            let beat = format!(r#"{{"host":"web1","interval":{interval}}}"#);
            assert!(test.try_ingest(beat.as_bytes()).unwrap().rows.is_empty());
        }
        assert_eq!(test.fleet.flush()[0].1.connections[0].interval, 10_000);
    }

    #[test]
    fn a_reload_takes_hosts_out_and_in() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(HOUR).take_events();
        test.config.hosts.clear();
        let watched = HostSettings { watch: true, ..HostSettings::default() };
        test.config.hosts.insert("web2".into(), watched);
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(changes.removed_hosts, ["web1"]);
        let told: Vec<_> = changes.events.iter().map(|event| event.describe()).collect();
        assert_eq!(told[0].title, "web1 is no longer watched");
        assert_eq!(told[0].incident.closes(), [Incident::connection("web1", "ipv4")]);
        assert_eq!((told.len(), changes.closed_incidents), (1, Vec::new()));
        assert_eq!(
            changes.rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["web2"]
        );
        assert!(test.fleet.view("web1").is_none());
        assert_eq!(test.wait(DAY).titles(), ["web2 was never heard"]);
    }

    /// web1, where something was told, goes on under a configuration that was changed.
    fn changed(test: &mut TestFleet, restarts: bool) -> Changes {
        if !restarts {
            return test.fleet.reconfigure(test.config.clone(), test.now);
        }
        let (rows, last_alive) = (test.rows(), test.last_alive());
        let (config, now) = (test.config.clone(), test.now);
        test.fleet = Fleet::restore(config, rows, Some(last_alive), now, &test.kernel);
        test.fleet.due(now)
    }

    #[test]
    fn connections_that_are_overdue_within_a_second_are_so_together() {
        for (apart, together) in [(0, true), (7, true), (900, true), (1_000, false)] {
            let mut test = TestFleet::new();
            test.beat_over("web1", "ipv4").wait(Duration::from_millis(apart));
            test.beat_over("web1", "ipv6").take_events();
            let first = BEGIN.mono + 40 * SECOND;
            test.wait(first.since(test.now.mono));
            assert_eq!(
                test.titles().len(),
                if apart == 1_000 { 1 } else { 2 * usize::from(apart == 0) }
            );
            test.wait(Duration::from_millis(apart));
            let at: Vec<Wall> = test.take_events().iter().map(|event| event.at).collect();
            let all = BEGIN.wall + 40 * SECOND + Duration::from_millis(apart);
            let expected = if apart == 0 {
                0
            } else if together {
                2
            } else {
                1
            };
            assert_eq!(at, vec![all; expected], "{apart}");
        }
        // One that beats after all was alone, and is told a second later at most.
        let mut test = TestFleet::new();
        test.beat_over("web1", "ipv4").wait(Duration::from_millis(900));
        test.beat_over("web1", "ipv6").wait(Duration::from_millis(39_500));
        test.beat_over("web1", "ipv6").take_events();
        assert_eq!(test.wait(Duration::from_millis(500)).titles(), ["web1 ipv4 overdue"]);
        // One whose beat is not late yet is not waited for.
        let mut test = TestFleet::new();
        test.config.settings.grace = Some(Duration::from_millis(500));
        test.fleet.reconfigure(test.config.clone(), test.now);
        test.beat_over("web1", "ipv4").wait(Duration::from_millis(900));
        test.beat_over("web1", "ipv6").wait(Duration::from_millis(9_600));
        assert_eq!(test.titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn people_who_were_told_of_a_host_that_is_removed_believed_in_its_trouble_for_ever() {
        for (restarts, removed) in [(false, false), (false, true), (true, false), (true, true)] {
            let rule = Rule { warning: "> 80".parse().ok(), ..Rule::default() };
            let mut test = TestFleet::with_threshold("m", rule);
            test.sample(95.0).wait(HOUR).take_events();
            match removed {
                true => drop(test.config.hosts.remove("web1")),
                false => test.config.hosts.get_mut("web1").unwrap().watch = false,
            }
            let changes = changed(&mut test, restarts);
            let ends = |event: &Event| event.incident().closes().to_vec();
            let ends: Vec<_> = changes.events.iter().map(ends).collect();
            let connection = Incident::connection("web1", "ipv4");
            let metric = Incident::metric("web1", "m");
            let expected = if removed { vec![metric, connection] } else { vec![connection] };
            let ended: Vec<Vec<Incident>> = ends
                .into_iter()
                .map(|mut ends| {
                    ends.sort_unstable_by_key(|end| matches!(end, Incident::Connection { .. }));
                    ends
                })
                .collect();
            assert_eq!(ended, [expected], "{restarts} {removed}");
            assert_eq!(changes.closed_incidents, [], "{restarts} {removed}");
            let rows = changed(&mut test, false).events;
            assert!(rows.is_empty(), "once");
            let again = changed(&mut test, true);
            assert!(again.events.is_empty(), "once: {restarts} {removed} {again:?}");
        }
    }

    #[test]
    fn the_metrics_of_a_host_that_was_not_watched_ended_without_a_word_when_it_was_removed() {
        for restarts in [false, true] {
            let rule = Rule { warning: "> 80".parse().ok(), ..Rule::default() };
            let mut test = TestFleet::with_threshold("m", rule);
            test.config.hosts.get_mut("web1").unwrap().watch = false;
            test.fleet.reconfigure(test.config.clone(), test.now);
            test.sample(95.0).wait(HOUR).take_events();
            test.config.hosts.remove("web1");
            let changes = changed(&mut test, restarts);
            let [event] = &changes.events[..] else { panic!("{restarts} {changes:?}") };
            assert_eq!(event.describe().title, "web1 is no longer watched");
            let ends = [Incident::metric("web1", "m")];
            assert_eq!(event.incident().closes(), ends, "nobody was told that it is overdue");
            assert!(!changes.closed_incidents.contains(&ends[0]));
            for restarts in [false, true] {
                assert!(changed(&mut test, restarts).events.is_empty(), "once");
            }
        }
    }

    fn with_alert_heartbeats(interval: Duration, grace: Duration) -> TestFleet {
        let mut config = config();
        config.settings.grace = Some(SECOND);
        config.alert_heartbeats.insert("web1".into(), Expectation { interval, grace });
        TestFleet::with(config)
    }

    fn send_alert_heartbeat(test: &mut TestFleet) {
        let beat = Datagram::beat("web1", ALERTMANAGER);
        test.fleet.ingest_internal(&beat, test.now).unwrap();
    }

    #[test]
    fn alert_heartbeats_have_an_expectation_of_their_own() {
        let mut test = with_alert_heartbeats(30 * SECOND, 5 * MINUTE);
        send_alert_heartbeat(&mut test);
        test.beat("web1");
        assert_eq!(test.wait(5 * MINUTE).titles(), ["web1 ipv4 overdue"]);
        assert_eq!(test.wait(30 * SECOND).titles(), ["web1 alertmanager overdue"]);
    }

    #[test]
    fn a_resolved_watchdog_was_no_news_for_half_a_day() {
        for restart in [true, false] {
            let mut test = with_alert_heartbeats(12 * HOUR, 2 * HOUR);
            let resolve =
                |test: &mut TestFleet| test.fleet.resolve_alert_heartbeat("web1", test.now);
            assert_eq!(resolve(&mut test), Ingested::default(), "it never fired");
            send_alert_heartbeat(&mut test);
            test.wait(HOUR);
            let resolved = resolve(&mut test);
            assert!(resolved.rearm && resolved.rows.len() == 1 && resolved.events.is_empty());
            test.wait(9 * MINUTE);
            assert_eq!(resolve(&mut test), Ingested::default(), "it is said again");
            send_alert_heartbeat(&mut test);
            assert!(test.wait(14 * HOUR - SECOND).titles().is_empty(), "it fired again in time");
            send_alert_heartbeat(&mut test);
            resolve(&mut test);
            if restart {
                test.restart_after(Duration::ZERO);
            }
            assert!(test.wait(10 * MINUTE - SECOND).titles().is_empty(), "{restart}");
            let events = test.wait(SECOND).take_events();
            assert_eq!(events.len(), 1, "{restart}");
            let EventKind::Overdue { promised, .. } = events[0].kind else { panic!() };
            assert!(promised <= test.now.wall, "not in half a day");
            assert_eq!(resolve(&mut test), Ingested::default(), "it is overdue already");
        }
    }

    #[test]
    fn another_way_to_receive_alert_heartbeats_made_them_overdue() {
        let fetched = Expectation { interval: 30 * SECOND, grace: 5 * MINUTE };
        for reload in [true, false] {
            let mut test = with_alert_heartbeats(4 * HOUR, 8 * HOUR);
            send_alert_heartbeat(&mut test);
            test.wait(3 * HOUR);
            test.config.alert_heartbeats.insert("web1".into(), fetched);
            if reload {
                test.fleet.reconfigure(test.config.clone(), test.now);
            } else {
                test.restart_after(SECOND);
            }
            assert!(test.wait(5 * MINUTE).titles().is_empty());
            // Another start does not extend it again.
            test.restart_after(Duration::ZERO);
            assert_eq!(test.wait(MINUTE).titles(), ["web1 alertmanager overdue"]);
        }
    }

    #[test]
    fn alert_heartbeats_that_are_no_longer_expected_are_forgotten() {
        for reload in [true, false] {
            for overdue in [true, false] {
                let mut test = with_alert_heartbeats(30 * SECOND, 5 * MINUTE);
                send_alert_heartbeat(&mut test);
                test.wait(if overdue { 2 * DAY } else { SECOND }).take_events();
                test.config.alert_heartbeats.clear();
                let changes = if reload {
                    test.fleet.reconfigure(test.config.clone(), test.now)
                } else {
                    let (rows, last_alive) = (test.rows(), test.last_alive());
                    let (config, now) = (test.config.clone(), test.now);
                    test.fleet = Fleet::restore(config, rows, Some(last_alive), now, &test.kernel);
                    test.fleet.due(now)
                };
                assert_eq!(
                    (changes.events.len(), changes.closed_incidents.len()),
                    (0, usize::from(overdue))
                );
                assert!(test.fleet.view("web1").unwrap().connections.is_empty());
                assert!(test.wait(DAY - SECOND).titles().is_empty(), "{reload} {overdue}");
                assert_eq!(test.wait(DAY).titles(), ["web1 was never heard"]);
            }
        }
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let mut test = TestFleet::new();
        test.beat("web1").wait(20 * SECOND);
        test.config.hosts.get_mut("web1").unwrap().grace = Some(MINUTE);
        test.config.default_channels = vec!["oncall".into()];
        assert!(test.fleet.reconfigure(test.config.clone(), test.now).removed_hosts.is_empty());
        assert_eq!(test.fleet.view("web1").unwrap().channels, ["oncall"]);
        assert!(test.wait(50 * SECOND - SECOND).titles().is_empty());
        assert_eq!(test.wait(SECOND).titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_host_that_is_no_longer_configured_becomes_an_unknown_one_where_those_are_accepted() {
        let mut test = TestFleet::new();
        test.beat("web1");
        test.config.hosts.clear();
        test.config.settings.unknown_hosts = UnknownHosts::Accept;
        assert!(test.fleet.reconfigure(test.config.clone(), test.now).removed_hosts.is_empty());
        assert!(!test.fleet.view("web1").unwrap().watch);
        assert_eq!(test.fleet.unknown.count(), 1);
    }

    #[test]
    fn rows_of_hosts_that_are_gone_are_told_after_a_restart() {
        let mut test = TestFleet::new();
        test.beat("web1");
        let (rows, last_alive) = (test.rows(), test.last_alive());
        test.config.hosts.clear();
        test.now = test.now.later(SECOND);
        test.fleet = Fleet::restore(test.config, rows, Some(last_alive), test.now, &test.kernel);
        assert!(test.fleet.is_empty());
        assert_eq!(test.fleet.next_deadline(), Some(Mono(i64::MIN)), "at once");
        assert_eq!(test.fleet.due(test.now).removed_hosts, ["web1"]);
        assert_eq!(test.fleet.next_deadline(), None);
    }

    #[test]
    fn a_reload_did_forget_which_hosts_were_seen_and_a_restart_invented_an_alarm() {
        let mut test = TestFleet::with_interval(DAY);
        test.config.settings.grace = Some(HOUR);
        test.fleet.reconfigure(test.config.clone(), test.now);
        test.beat("web1");
        let mut stored: HashMap<_, _> = test.rows().into_iter().collect();
        test.fleet.flush();
        test.wait(DAY).beat("web1").wait(20 * SECOND);
        stored.extend(test.fleet.reconfigure(test.config.clone(), test.now).rows);
        test.wait(2 * HOUR);
        stored.extend(test.fleet.flush());
        let last_alive = test.last_alive();
        test.now = test.now.later(SECOND);
        assert!(test.start(stored.into_iter().collect(), Some(last_alive)).titles().is_empty());
    }

    /// web1 is down, and from now on it is watched.
    fn watched_at_last(restarts: bool) -> TestFleet {
        let mut test = TestFleet::new();
        test.config.hosts.get_mut("web1").unwrap().watch = false;
        test.fleet.reconfigure(test.config.clone(), test.now);
        test.beat_over("web1", "a").beat_over("web1", "b").wait(HOUR).take_events();
        test.config.hosts.get_mut("web1").unwrap().watch = true;
        if restarts {
            test.restart_after(SECOND);
        } else {
            let changes = test.fleet.reconfigure(test.config.clone(), test.now);
            assert_eq!((changes.events.len(), changes.closed_incidents.len()), (0, 2));
        }
        test
    }

    #[test]
    fn a_host_that_was_down_when_it_became_watched_was_never_reported() {
        for restarts in [false, true] {
            let mut test = watched_at_last(restarts);
            assert!(test.wait(39 * SECOND).titles().is_empty(), "it may be back by itself");
            let told = ["critical web1 a overdue", "warning web1 b overdue"];
            assert_eq!(test.wait(SECOND).titles_with_level(), told);
            test.restart_after(SECOND);
            test.fleet.reconfigure(test.config.clone(), test.now);
            assert!(test.wait(DAY).titles().is_empty(), "once");
            assert_eq!(test.beat_over("web1", "a").titles(), ["web1 a is back"]);

            let mut test = watched_at_last(restarts);
            test.wait(SECOND);
            assert!(test.beat_over("web1", "a").titles().is_empty(), "nobody knew it was away");
            assert_eq!(test.wait(40 * SECOND).titles_with_level()[0], "warning web1 b overdue");
        }
    }
}
