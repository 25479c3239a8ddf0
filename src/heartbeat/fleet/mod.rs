//! All hosts: what the passing of time and a new configuration mean for them. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident, MAX_NAMED};
use crate::heartbeat::auth::Trust;
use crate::heartbeat::connection::{Blindness, Period};
use crate::heartbeat::fleet::deadlines::{Deadlines, Entry, What};
use crate::heartbeat::host::{Host, Others};
use crate::heartbeat::persistence::{self, Frame, Mark, Row};
use crate::heartbeat::settings::{self, Common, Names, Profile, Rules};
use crate::view::State;

mod deadlines;
mod ingest;
mod views;

pub use self::views::Wrong;

/// How many events and rows [`Fleet::due`] gives at once: when 100,000 hosts are gone in one
/// moment, theirs must not be in memory all together.
const MOST_AT_ONCE: usize = 1024;

/// What an accepted datagram caused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// In order.
    pub events: Vec<Event>,
    /// The hosts that changed in a way that must be stored together with the events; empty for a
    /// plain beat.
    pub rows: Vec<(String, Row)>,
    /// The answer, when one was asked for.
    pub ack: Option<Vec<u8>>,
    /// The earliest deadline became earlier.
    pub wake: bool,
    /// Troubles that ended without a word.
    pub ended: Vec<Incident>,
    /// While keys are being changed: who signed with which.
    pub key: Option<KeyUse>,
    /// The connection, when the datagram proves that its host is where it came from: it is signed,
    /// new, and the host's name follows its address.
    pub vouched: Option<Path>,
}

/// Which of two keys a connection signs with, while its host has two: told when that is the
/// previous one, and when it no longer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyUse {
    /// The host.
    pub host: String,
    /// The connection.
    pub connection: String,
    /// It is the previous one.
    pub previous: bool,
}

/// What the passing of time, or a new configuration, caused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// In order.
    pub events: Vec<Event>,
    /// The hosts that changed, to be stored together with the events.
    pub rows: Vec<(String, Row)>,
    /// The hosts that are no longer known: their rows are to be removed.
    pub gone: Vec<String>,
    /// Troubles that ended without a word: their rule or host is no longer configured.
    pub ended: Vec<Incident>,
}

impl Due {
    /// Whether there is nothing to store and nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Due::default()
    }
}

/// All hosts and what is expected of them.
#[derive(Debug)]
pub struct Fleet {
    common: Common,
    /// The configured ones by name, then the others as they came.
    pub(super) hosts: Vec<Host>,
    index: HashMap<Arc<str>, u32>,
    names: Names,
    deadlines: Deadlines,
    blindness: Blindness,
    /// When nothing could be heard, as far as that was not yet told to the history.
    unseen: Vec<Period>,
    trust: Trust,
    /// Watched hosts that are overdue.
    down: BTreeSet<u32>,
    /// Hosts that may have changed since the last flush.
    changed: Vec<u32>,
    /// What unknown hosts are treated by.
    stranger: Arc<Profile>,
    strangers: usize,
    /// The addresses that names in the DNS follow.
    moves: Moves,
    kernel: u32,
    /// What is told with the next `due`.
    pending: Due,
}

impl Fleet {
    /// A fleet of which nothing was heard. Its rows do not tell which kernel's clock they are on:
    /// a daemon begins with [`restore`](Fleet::restore), without rows when there are none.
    pub fn new(rules: Rules, now: Now) -> Fleet {
        let mut fleet = Fleet::empty(&rules, now);
        fleet.populate(settings::profiles(&rules), HashMap::new(), now);
        fleet
    }

    /// The fleet as `rows` tell, after the daemon was away since `mark`.
    ///
    /// What must be removed from the store is told by the first [`due`](Fleet::due).
    pub fn restore(
        rules: Rules,
        rows: impl IntoIterator<Item = (String, Row)>,
        mark: Option<Mark>,
        now: Now,
        kernel_boot: &str,
    ) -> Fleet {
        let mut fleet = Fleet::empty(&rules, now);
        let frame = Frame::new(mark.as_ref(), kernel_boot, now, &mut fleet.blindness);
        fleet.unseen = fleet.blindness.periods().to_vec();
        fleet.kernel = frame.kernel();
        fleet.trust.reached(mark.map_or(Wall::default(), |mark| mark.now.wall));
        let profiles = settings::profiles(&rules);
        let configured: HashMap<&str, &Arc<Profile>> =
            profiles.iter().map(|(name, profile)| (name.as_str(), profile)).collect();
        let mut known = HashMap::new();
        for (name, row) in rows {
            let profile = configured.get(name.as_str()).copied().unwrap_or(&fleet.stranger);
            let name: Arc<str> = name.into();
            let profile = profile.clone();
            row.connections.iter().for_each(|connection| fleet.trust.reached(connection.seen.wall));
            let (host, ended) = persistence::restore_host(
                name.clone(),
                row,
                profile,
                &frame,
                &fleet.common,
                &mut fleet.names,
            );
            fleet.pending.ended.extend(ended);
            known.insert(name, host);
        }
        fleet.populate(profiles, known, now);
        fleet
    }

    fn empty(rules: &Rules, now: Now) -> Fleet {
        Fleet {
            common: Common::new(rules),
            hosts: Vec::new(),
            index: HashMap::new(),
            names: Names::default(),
            deadlines: Deadlines::default(),
            blindness: Blindness::default(),
            unseen: Vec::new(),
            trust: Trust::default(),
            down: BTreeSet::new(),
            changed: Vec::new(),
            stranger: Arc::default(),
            strangers: 0,
            moves: Moves::begin(now),
            kernel: 0,
            pending: Due::default(),
        }
    }

    /// The connections, alerts and hosts whose deadline has passed, each once.
    ///
    /// At most about a thousand at a time: when more have passed, the next deadline has passed
    /// still, and calling again goes on.
    pub fn due(&mut self, now: Now) -> Due {
        let mut due = std::mem::take(&mut self.pending);
        let mut touched = BTreeSet::new();
        while due.events.len() < MOST_AT_ONCE && touched.len() < MOST_AT_ONCE {
            let Some(entry) = self.deadlines.pop_due(now.mono) else {
                break;
            };
            let event = match entry.what {
                What::Connection(place) => self.connection_due(entry, place.into(), now),
                What::NeverSeen => self.never_seen_due(entry.host, now),
                What::Metric(place) => self.metric_due(entry, place.into(), now),
            };
            due.events.extend(event);
            if self.hosts.get(entry.host as usize).is_some_and(|host| host.changed) {
                touched.insert(entry.host);
            }
        }
        due.rows.extend(touched.into_iter().map(|host| self.take_row(host)));
        due
    }

    fn connection_due(&mut self, entry: Entry, place: usize, now: Now) -> Option<Event> {
        let host = self.hosts.get_mut(entry.host as usize)?;
        let connection = host.connections.get_mut(place).filter(|c| c.queued == entry.at)?;
        connection.queued = Mono(i64::MAX);
        let promise = connection.promise(&host.profile, &self.common);
        let granted = connection.granted;
        let deadline = connection.excuse(promise, &self.blindness)?;
        host.changed |= connection.granted != granted;
        if deadline > now.mono {
            self.schedule_connections(entry.host);
            return None;
        }
        let others = self.others_down(entry.host);
        let event = self.hosts[entry.host as usize].fall_silent(place, promise, others, now);
        self.note_state(entry.host);
        self.note_condition(entry.host, now);
        Some(event)
    }

    fn others_down(&self, host: u32) -> Others {
        let names = self.down.iter().filter(|other| **other != host).take(MAX_NAMED);
        Others {
            names: names.map(|other| self.hosts[*other as usize].name.as_ref().into()).collect(),
            count: self.down.len() - usize::from(self.down.contains(&host)),
        }
    }

    fn never_seen_due(&mut self, index: u32, now: Now) -> Option<Event> {
        let host = self.hosts.get_mut(index as usize)?;
        if host.heard() || host.reported || !host.profile.watch {
            return None;
        }
        host.reported = true;
        host.changed = true;
        let kind =
            EventKind::NeverSeen { host: host.name.as_ref().into(), configured: host.configured };
        Some(Event::new(now.wall, kind))
    }

    fn metric_due(&mut self, entry: Entry, place: usize, now: Now) -> Option<Event> {
        let host = self.hosts.get_mut(entry.host as usize)?;
        let gauge = host.gauges.get_mut(place)?;
        let watched = gauge.watched.as_deref_mut().filter(|w| w.queued == entry.at)?;
        watched.queued = Mono(i64::MAX);
        if host.state != State::Up {
            return None;
        }
        let due = gauge.remind_at(self.common.renotify)? <= now.mono;
        let event = if due { gauge.tell(&host.name, now, true) } else { None };
        host.changed |= event.is_some();
        self.schedule_metrics(entry.host);
        event
    }

    /// The daemon was told to stop, maybe with its machine: should that boot, it was announced.
    pub fn leave(&mut self) {
        for index in 0..self.hosts.len() as u32 {
            let host = &mut self.hosts[index as usize];
            if host.profile.own.is_some() {
                host.leaving = true;
                self.list(index);
            }
        }
    }

    /// When [`due`](Fleet::due) wants to be called next; it may find that it was called too early.
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.pending.is_empty() { self.deadlines.next() } else { Some(Mono(i64::MIN)) }
    }

    /// Notes that nothing could be heard from `stop` to `start`. To be called before the first
    /// [`due`](Fleet::due) after `start`.
    pub fn blind(&mut self, stop: Mono, start: Mono) {
        self.blindness.add(stop, start);
        if stop < start {
            self.unseen.push(Period { stop, start });
        }
    }

    fn add(&mut self, host: Host) -> u32 {
        let index = u32::try_from(self.hosts.len()).expect("hosts are fewer than their limit");
        self.index.insert(host.name.clone(), index);
        self.strangers += usize::from(!host.profile.configured);
        self.hosts.push(host);
        index
    }

    fn schedule_connections(&mut self, index: u32) {
        let host = &mut self.hosts[index as usize];
        for (place, connection) in host.connections.iter_mut().enumerate() {
            let promise = connection.promise(&host.profile, &self.common);
            match connection.deadline(promise) {
                Some(at) if at < connection.queued => {
                    connection.queued = at;
                    let what = What::Connection(place as u8);
                    self.deadlines.push(Entry { at, host: index, what });
                }
                Some(_) | None => {}
            }
        }
        if self.deadlines.wants_sweep() {
            self.sweep();
        }
    }

    fn schedule_metrics(&mut self, index: u32) {
        let host = &mut self.hosts[index as usize];
        if host.state != State::Up {
            return;
        }
        for (place, gauge) in host.gauges.iter_mut().enumerate() {
            let at = gauge.remind_at(self.common.renotify);
            if let (Some(at), Some(watched)) = (at, gauge.watched.as_deref_mut())
                && at < watched.queued
            {
                watched.queued = at;
                let what = What::Metric(place as u16);
                self.deadlines.push(Entry { at, host: index, what });
            }
        }
    }

    fn schedule_never_seen(&mut self, index: u32, now: Now) {
        let host = &mut self.hosts[index as usize];
        let timeout = self.common.new_timeout;
        if !host.profile.watch || host.reported || host.heard() || timeout.is_zero() {
            return;
        }
        let passed = if now.wall.is_plausible() && host.configured.is_plausible() {
            now.wall.since(host.configured)
        } else {
            Default::default()
        };
        let at = now.mono + timeout.saturating_sub(passed);
        self.deadlines.push(Entry { at, host: index, what: What::NeverSeen });
    }

    fn sweep(&mut self) {
        let hosts = &self.hosts;
        self.deadlines.sweep(|entry| {
            let host = &hosts[entry.host as usize];
            match entry.what {
                What::Connection(place) => {
                    host.connections.get(usize::from(place)).is_some_and(|c| c.queued == entry.at)
                }
                What::NeverSeen => !host.heard(),
                What::Metric(place) => {
                    let gauge = host.gauges.get(usize::from(place));
                    let watched = gauge.and_then(|gauge| gauge.watched.as_deref());
                    watched.is_some_and(|watched| watched.queued == entry.at)
                }
            }
        });
    }

    fn note_state(&mut self, index: u32) {
        let host = &self.hosts[index as usize];
        if host.profile.watch && host.state == State::Overdue {
            self.down.insert(index);
        } else {
            self.down.remove(&index);
        }
    }

    fn list(&mut self, index: u32) {
        let host = &mut self.hosts[index as usize];
        host.unsaved = true;
        if !std::mem::replace(&mut host.listed, true) {
            self.changed.push(index);
        }
    }

    fn row_of(&self, host: &Host) -> (String, Row) {
        (host.name.as_ref().into(), Row::of(host, self.kernel))
    }

    fn take_row(&mut self, index: u32) -> (String, Row) {
        let host = &mut self.hosts[index as usize];
        host.changed = false;
        host.unsaved = false;
        self.row_of(&self.hosts[index as usize])
    }

    /// Fills the fleet: first the configured hosts by name, then the others that may stay.
    fn populate(
        &mut self,
        profiles: Vec<(String, Arc<Profile>)>,
        mut known: HashMap<Arc<str>, Host>,
        now: Now,
    ) {
        self.hosts.reserve_exact(profiles.len().max(known.len()));
        for (name, profile) in profiles {
            let name: Arc<str> = name.into();
            let new = || Host { changed: true, ..Host::new(name.clone(), profile.clone(), now) };
            let host = known.remove(&name).unwrap_or_else(new);
            self.add(host);
        }
        let mut others: Vec<Host> = known.into_values().collect();
        others.sort_by(|a, b| (a.configured, &a.name).cmp(&(b.configured, &b.name)));
        for host in others {
            if Some(self.strangers) < self.common.most_strangers {
                self.add(host);
            } else {
                self.pending.ended.extend(host.troubles());
                self.pending.gone.push(host.name.as_ref().into());
            }
        }
        for index in 0..self.hosts.len() as u32 {
            let host = &self.hosts[index as usize];
            if host.changed || host.unsaved {
                self.list(index);
            }
            self.note_state(index);
            self.note_condition(index, now);
            self.schedule_connections(index);
            self.schedule_metrics(index);
            self.schedule_never_seen(index, now);
        }
    }

    /// Goes by new rules: hosts that are no longer configured go, or become unknown ones where
    /// those are accepted; new ones begin; an alert whose rule is gone ends without a false OK.
    pub fn reconfigure(&mut self, rules: Rules, now: Now) -> Due {
        let profiles = settings::profiles(&rules);
        let configured: HashMap<&str, &Arc<Profile>> =
            profiles.iter().map(|(name, profile)| (name.as_str(), profile)).collect();
        self.common = Common::new(&rules);
        self.index.clear();
        self.changed.clear();
        self.down.clear();
        self.deadlines.clear();
        self.trust.forget_witnesses();
        self.strangers = 0;
        self.moves.forget();
        let mut known = HashMap::with_capacity(self.hosts.len());
        for mut host in std::mem::take(&mut self.hosts) {
            let profile = configured.get(&*host.name).copied().unwrap_or(&self.stranger);
            self.pending.ended.extend(host.adopt(profile.clone(), &self.common, now));
            known.insert(host.name.clone(), host);
        }
        self.populate(profiles, known, now);
        self.names.tidy();
        let mut due = std::mem::take(&mut self.pending);
        due.rows.extend(self.flush());
        due
    }

    /// The rows of all hosts that changed since they were last taken, be it only that they were
    /// heard.
    pub fn flush(&mut self) -> Vec<(String, Row)> {
        self.flush_some(usize::MAX)
    }

    /// The same, at most `most` of them at a time: the rows of 100,000 hosts are many megabytes.
    pub fn flush_some(&mut self, most: usize) -> Vec<(String, Row)> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let Some(index) = self.changed.pop() else {
                break;
            };
            let host = &mut self.hosts[index as usize];
            host.listed = false;
            if host.unsaved {
                rows.push(self.take_row(index));
            }
        }
        rows
    }

    /// The rows of all hosts, to heal a lost store.
    pub fn all_rows(&self) -> Vec<(String, Row)> {
        self.rows(0, usize::MAX)
    }

    /// The rows of `count` hosts, from the place `from` on.
    pub fn rows(&self, from: usize, count: usize) -> Vec<(String, Row)> {
        self.hosts.iter().skip(from).take(count).map(|host| self.row_of(host)).collect()
    }

    /// The row of one host.
    pub fn row(&self, name: &str) -> Option<Row> {
        let host = *self.index.get(name)?;
        Some(self.row_of(&self.hosts[host as usize]).1)
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Takes note of the address that a datagram came from which [`hear`](Fleet::hear) has vouched
    /// for; what there is to tell when it is another one.
    pub fn moved(&mut self, (index, connection): &Path, from: IpAddr) -> Option<Moved> {
        let address = from.to_canonical();
        let key = (*index, Arc::clone(connection), address.is_ipv6());
        if self.moves.told.insert(key, address) == Some(address) {
            return None;
        }
        let host = &self.hosts[*index as usize];
        Some(Moved {
            host: host.name.as_ref().into(),
            connection: connection.as_ref().into(),
            address,
        })
    }
}

/// A host whose name follows its address was heard from another one than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The host.
    pub host: String,
    /// The connection.
    pub connection: String,
    /// Where its datagram came from; v4-mapped addresses are IPv4.
    pub address: IpAddr,
}

/// A connection of a host, by its place and its name.
pub type Path = (u32, Arc<str>);

/// What was told.
#[derive(Debug, Default)]
pub struct Moves {
    /// The last addresses, by connection and whether they are of IPv6.
    told: HashMap<(u32, Arc<str>, bool), IpAddr>,
    /// When the daemon began to listen.
    begun: Wall,
}

impl Moves {
    /// Nothing was told yet.
    pub fn begin(now: Now) -> Moves {
        Moves { begun: now.wall, ..Moves::default() }
    }

    /// Everything is told anew: the places may have changed.
    pub fn forget(&mut self) {
        self.told.clear();
    }

    /// Whether a datagram that was signed at `time`, in microseconds, is from before the start. It
    /// may have been heard then, and that have been forgotten in a crash: somebody may send it
    /// again. A start in the future shows that it was our clock that was wrong.
    pub fn is_old(&self, time: i64, now: Now) -> bool {
        self.begun <= now.wall && time / 1000 < self.begun.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::heartbeat::settings::{HostSettings, Promise, UnknownHosts};
    use crate::heartbeat::test_fleet::{BEGIN, DAY, HERE, HOUR, MINUTE, Play, SECOND, rules};

    const BEAT: &str = r#"{"host":"web1"}"#;
    const SHUTDOWN: &str = r#"{"host":"web1","event":"shutdown"}"#;
    const BOOT: &str = r#"{"host":"web1","event":"boot","boot_id":"b2"}"#;
    const MESSAGE: &str = r#"{"host":"web1","event":"message","message":"is hot"}"#;

    /// web1, brought into a state, with the events of that forgotten.
    fn in_state(state: State) -> Play {
        let mut play = Play::new();
        match state {
            State::New => {}
            State::Up => drop(play.hear(r#"{"host":"web1","boot_id":"b1"}"#)),
            State::Overdue => drop(play.hear(r#"{"host":"web1","boot_id":"b1"}"#).wait(MINUTE)),
            State::Shutdown => {
                play.hear(r#"{"host":"web1","boot_id":"b1"}"#).hear(SHUTDOWN);
            }
        }
        play.wait(SECOND).facts();
        assert_eq!(play.fleet.view("web1").unwrap().state, state);
        play
    }

    #[test]
    fn every_row_of_the_state_table_holds() {
        use State::{New, Overdue, Shutdown, Up};
        let rows: [(State, &str, State, &[&str]); 17] = [
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
            let mut play = in_state(from);
            play.hear(json);
            assert_eq!(play.told(), events, "{from:?} {json}");
            assert_eq!(play.fleet.view("web1").unwrap().state, to, "{from:?} {json}");
        }
    }

    #[test]
    fn silence_is_told_once_and_at_its_deadline() {
        let mut play = Play::new();
        play.beat("web1").wait(40 * SECOND - Duration::from_millis(1));
        assert!(play.events().is_empty());
        assert_eq!(play.wait(Duration::from_millis(1)).told(), ["critical web1 ipv4 overdue"]);
        assert!(play.wait(DAY).events().is_empty());
        assert_eq!(play.beat("web1").events(), ["web1 ipv4 is back"]);
        assert_eq!(play.wait(DAY).events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn what_a_host_says_of_its_interval_is_kept_unless_its_settings_say_otherwise() {
        let mut play = Play::new();
        play.hear(r#"{"host":"web1","interval":3600}"#).wait(HOUR).beat("web1");
        assert!(play.wait(3 * HOUR - SECOND).events().is_empty());
        assert_eq!(play.wait(SECOND).events(), ["web1 ipv4 overdue"]);

        let mut rules = rules();
        let host = rules.hosts.get_mut("web1").unwrap();
        host.interval = Some(MINUTE);
        host.grace = Some(SECOND);
        let mut play = Play::with(rules);
        play.hear(r#"{"host":"web1","interval":3600}"#);
        assert_eq!(play.wait(61 * SECOND).events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_shorter_interval_wakes_the_loop() {
        let mut play = Play::new();
        assert!(play.try_hear(br#"{"host":"web1","interval":3600}"#).unwrap().wake);
        assert!(!play.try_hear(br#"{"host":"web1","interval":7200}"#).unwrap().wake);
        assert!(play.try_hear(br#"{"host":"web1","interval":1}"#).unwrap().wake);
        assert_eq!(play.wait(32 * SECOND).events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn only_the_last_live_connection_is_critical() {
        let mut play = Play::new();
        play.beat_over("web1", "ipv4").wait(SECOND).beat_over("web1", "vpn");
        assert_eq!(
            play.wait(MINUTE).told(),
            ["warning web1 ipv4 overdue", "critical web1 vpn overdue"]
        );
    }

    #[test]
    fn a_boot_is_told_once_for_all_connections() {
        let mut play = Play::new();
        let over = |event: &str, connection: &str, id: &str| {
            format!(
                r#"{{"host":"web1","event":"{event}","connection":"{connection}","boot_id":"{id}"}}"#
            )
        };
        play.hear(&over("beat", "a", "b1")).hear(&over("beat", "b", "b1")).wait(MINUTE).facts();
        play.hear(&over("boot", "a", "b2"));
        let facts = play.facts();
        let EventKind::Booted { announced: false, returned, gone: Some(gone), .. } = &facts[0].kind
        else {
            panic!("{facts:?}");
        };
        assert_eq!((returned.join(" ").as_str(), *gone), ("a b", MINUTE));
        play.hear(&over("boot", "b", "b2")).hear(&over("beat", "a", "b1"));
        assert!(play.events().is_empty(), "neither its second way nor a late datagram is a boot");
    }

    #[test]
    fn a_connection_that_a_boot_covered_is_told_again_when_it_stays_away() {
        let mut play = Play::new();
        play.beat_over("web1", "a").beat_over("web1", "b").wait(MINUTE).facts();
        play.hear(r#"{"host":"web1","event":"boot","connection":"a"}"#);
        assert_eq!(play.events(), ["web1 booted"]);
        for _ in 0..6 {
            play.wait(10 * SECOND).beat_over("web1", "a");
        }
        assert_eq!(play.told(), ["warning web1 b overdue"]);
        assert_eq!(play.beat_over("web1", "b").events(), ["web1 b is back"]);
    }

    #[test]
    fn a_boot_without_an_id_is_told_once_within_two_minutes() {
        let mut play = Play::new();
        let boot = r#"{"host":"web1","event":"boot"}"#;
        play.beat("web1").hear(boot).facts();
        assert!(play.wait(5 * SECOND).hear(boot).events().is_empty());
        assert_eq!(play.hear(SHUTDOWN).hear(boot).events(), ["web1 ipv4 shutdown", "web1 booted"]);
        for _ in 0..12 {
            play.wait(10 * SECOND).beat("web1");
        }
        assert_eq!(play.hear(boot).events(), ["web1 booted"]);
        let named = r#"{"host":"web1","boot_id":"b1"}"#;
        assert!(play.wait(SECOND).hear(named).events().is_empty(), "its id is learnt silently");
    }

    #[test]
    fn an_agent_that_begins_to_speak_long_after_the_boot_tells_no_boot() {
        let boot = |id: &str, uptime: u32| {
            format!(r#"{{"host":"web1","event":"boot","boot_id":"{id}","uptime":{uptime}}}"#)
        };
        let mut play = Play::new();
        assert!(play.hear(&boot("b1", 600)).events().is_empty());
        assert!(play.hear(&boot("b1", 700)).events().is_empty());
        let told = play.hear(&boot("b2", 900)).events();
        assert_eq!(told, ["web1 booted"], "its last boot is known, and this is another one");
        assert_eq!(Play::new().hear(&boot("b1", 599)).events(), ["web1 booted"]);
    }

    #[test]
    fn a_repeated_boot_is_a_beat() {
        let mut play = Play::new();
        assert_eq!(play.hear(BOOT).events(), ["web1 booted"]);
        assert_eq!(play.wait(MINUTE).events(), ["web1 ipv4 overdue"]);
        assert_eq!(play.hear(BOOT).events(), ["web1 ipv4 is back"]);
    }

    #[test]
    fn a_goodbye_of_the_boot_before_comes_too_late() {
        let mut play = in_state(State::Up);
        play.hear(BOOT).facts();
        play.hear(r#"{"host":"web1","event":"shutdown","boot_id":"b1"}"#);
        assert!(play.events().is_empty());
    }

    #[test]
    fn a_watched_host_that_was_never_heard_is_told_once_and_over_restarts() {
        let mut play = Play::new();
        play.wait(23 * HOUR).restart_after(MINUTE);
        assert!(play.events().is_empty());
        assert_eq!(play.wait(HOUR).told(), ["warning web1 was never heard"]);
        play.restart_after(MINUTE).wait(3 * DAY);
        assert!(play.events().is_empty());
        assert_eq!(play.beat("web1").told(), ["ok web1 ipv4 is up"]);

        let mut play = Play::new();
        play.wait(20 * HOUR).reboot_after(HOUR).wait(3 * HOUR);
        assert_eq!(play.events(), ["web1 was never heard"]);
    }

    #[test]
    fn a_restart_does_not_invent_silence_and_does_not_forget_it() {
        for reboots in [false, true] {
            let restart = |play: &mut Play, time| {
                if reboots {
                    play.reboot_after(time)
                } else {
                    play.restart_after(time)
                };
            };
            let mut play = Play::new();
            play.beat("web1").wait(MINUTE).facts();
            restart(&mut play, HOUR);
            assert!(play.wait(DAY).events().is_empty(), "already notified");

            let mut play = Play::new();
            play.beat("web1").wait(5 * SECOND);
            restart(&mut play, HOUR);
            assert!(play.wait(40 * SECOND - Duration::from_millis(1)).events().is_empty());
            assert_eq!(play.wait(SECOND).events(), ["web1 ipv4 overdue"], "E within");

            let mut play = Play::with_interval(DAY);
            play.beat("web1").wait(20 * HOUR);
            restart(&mut play, 5 * MINUTE);
            play.wait(3 * DAY - 20 * HOUR - 5 * MINUTE - SECOND);
            assert!(play.events().is_empty());
            assert_eq!(play.wait(SECOND).events(), ["web1 ipv4 overdue"], "E after start");
        }
    }

    #[test]
    fn a_deadline_that_passed_before_the_stop_is_told_at_once() {
        let mut play = Play::new();
        play.beat("web1");
        let rows = play.rows();
        play.now = play.now.later(MINUTE);
        let mark = play.mark();
        play.now = play.now.later(SECOND);
        assert_eq!(play.start(rows, Some(mark)).events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_lost_clock_gives_everyone_a_whole_interval_and_grace() {
        for (wall, mark) in [(0, true), (BEGIN.wall.0 - 1, true), (BEGIN.wall.0 + 9, false)] {
            let mut play = Play::new();
            play.beat("web1");
            let (rows, mark) = (play.rows(), mark.then(|| play.mark()));
            play.kernel = "kernel-2".into();
            play.now = Now { mono: Mono(5_000), wall: Wall(wall) };
            play.start(rows, mark).wait(40 * SECOND - Duration::from_millis(1));
            assert!(play.events().is_empty());
            assert_eq!(play.wait(SECOND).events(), ["web1 ipv4 overdue"]);
        }
    }

    #[test]
    fn frequent_restarts_do_not_postpone_an_alarm_for_ever() {
        let mut play = Play::new();
        play.beat("web1");
        for _ in 0..10 {
            play.wait(20 * SECOND).restart_after(SECOND);
        }
        assert_eq!(play.events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_second_long_outage_does_not_invent_an_alarm() {
        let mut play = Play::new();
        play.beat("web1").wait(5 * SECOND).sleep(HOUR).wait(5 * SECOND).sleep(HOUR);
        play.wait(10 * SECOND).beat("web1");
        assert!(play.events().is_empty());
        play.wait(5 * SECOND).sleep(HOUR).wait(HOUR);
        assert_eq!(play.events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn crash_after_crash_before_any_flush_did_invent_an_alarm() {
        let mut play = Play::new();
        play.beat("web1");
        let mark = play.mark();
        let mut stored = play.rows();
        for _ in 0..20 {
            play.now = play.now.later(SECOND);
            play.start(stored.clone(), Some(mark.clone()));
            stored = play.rows();
            play.wait(35 * SECOND);
            stored.extend(play.try_hear(BEAT.as_bytes()).unwrap().rows);
            assert!(play.events().is_empty());
        }
    }

    #[test]
    fn rows_of_two_kernels_ago_go_by_the_wall_clock() {
        let mut play = Play::new();
        play.beat("web1").wait(MINUTE).facts();
        let rows = play.rows();
        play.reboot_after(MINUTE);
        let mark = play.mark();
        play.now = Now { mono: Mono(7_000), wall: play.now.wall + HOUR };
        play.kernel.push('y');
        play.start(rows, Some(mark)).beat("web1");
        let facts = play.facts();
        assert!(matches!(facts[0].kind, EventKind::Back { gone, .. } if gone == HOUR + 2 * MINUTE));
    }

    #[test]
    fn weird_rows_do_no_harm() {
        for number in [i64::MIN, -1, 0, i64::MAX] {
            let now = format!(r#"{{"mono":{number},"wall":{number}}}"#);
            let row: Row = serde_json::from_str(&format!(
                r#"{{"since":{number},"configured":{number},"booted":{number},"unknown":1,
                "connections":[{{"name":"a","state":"UP","seen":{now},"granted":{{"from":{number},"until":{number}}},
                "interval":4294967295,"shifts":255}},{{"state":"OVERDUE","covered":true}},{{}}],
                "alerts":[{{"path":"m","level":"critical","told":{now}}}]}}"#
            ))
            .unwrap();
            for mark in [Some(number), None] {
                let mark = mark.map(|n| Mark {
                    kernel_boot: "k".into(),
                    now: Now { mono: Mono(n), wall: Wall(n) },
                });
                for kernel in ["k", "l"] {
                    let rows = [("web1".to_owned(), row.clone())];
                    let mut fleet = Fleet::restore(rules(), rows, mark.clone(), BEGIN, kernel);
                    fleet.due(BEGIN);
                    fleet.due(BEGIN.later(365 * DAY));
                    fleet.hear(BEAT.as_bytes(), HERE, BEGIN.later(366 * DAY)).unwrap();
                    assert_eq!(fleet.view("web1").unwrap().state, State::Up);
                }
            }
        }
    }

    #[test]
    fn plain_beats_store_nothing_and_changes_do() {
        let mut play = Play::new();
        assert_eq!(play.fleet.flush().len(), 1, "since when it is configured");
        assert_eq!(play.try_hear(BEAT.as_bytes()).unwrap().rows.len(), 1);
        assert!(play.fleet.flush().is_empty());
        assert!(play.try_hear(BEAT.as_bytes()).unwrap().rows.is_empty());
        assert_eq!(play.fleet.flush().len(), 1);
        assert!(play.fleet.flush().is_empty());
        play.now = play.now.later(MINUTE);
        assert_eq!(play.fleet.due(play.now).rows.len(), 1);
    }

    #[test]
    fn others_that_are_down_are_named_and_counted() {
        let mut rules = rules();
        let watched = HostSettings { watch: true, ..HostSettings::default() };
        rules.hosts.insert("web2".into(), watched);
        rules.hosts.insert("quiet".into(), HostSettings::default());
        let mut play = Play::with(rules);
        play.beat("quiet").wait(SECOND).beat("web1").wait(SECOND).beat("web2").wait(MINUTE);
        let others: Vec<_> = play
            .facts()
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
        let mut play = Play::new();
        play.now.wall = Wall(5_000);
        play.start(Vec::new(), None);
        let mut stored: HashMap<_, _> = play.fleet.flush().into_iter().collect();
        play.now.wall = BEGIN.wall;
        for _ in 0..2 {
            play.wait(23 * HOUR);
            stored.extend(play.fleet.flush());
            let mark = play.mark();
            play.now = play.now.later(SECOND);
            play.start(stored.clone().into_iter().collect(), Some(mark));
        }
        assert_eq!(play.wait(HOUR).events(), ["web1 was never heard"]);
    }

    #[test]
    fn a_boot_told_two_kernels_ago_did_count_as_one_told_now() {
        let mut play = Play::new();
        play.hear(BOOT).wait(MINUTE);
        let rows = play.rows();
        play.reboot_after(MINUTE);
        let mark = play.mark();
        play.now = Now { mono: Mono(7_000), wall: play.now.wall + HOUR };
        play.kernel.push('y');
        play.start(rows, Some(mark)).facts();
        play.hear(r#"{"host":"web1","event":"boot"}"#);
        assert_eq!(play.events(), ["web1 booted"]);
    }

    #[test]
    fn a_beat_with_another_interval_did_cost_a_write_each_time() {
        let mut play = Play::new();
        play.beat("web1").fleet.flush();
        for interval in [10, 11, 10] {
            let beat = format!(r#"{{"host":"web1","interval":{interval}}}"#);
            assert!(play.try_hear(beat.as_bytes()).unwrap().rows.is_empty());
        }
        assert_eq!(play.fleet.flush()[0].1.connections[0].interval, 10_000);
    }

    #[test]
    fn a_reload_takes_hosts_out_and_in() {
        let mut play = Play::new();
        play.beat("web1").wait(HOUR).facts();
        play.rules.hosts.clear();
        let watched = HostSettings { watch: true, ..HostSettings::default() };
        play.rules.hosts.insert("web2".into(), watched);
        let due = play.fleet.reconfigure(play.rules.clone(), play.now);
        assert_eq!(due.gone, ["web1"]);
        let trouble = Incident::Connection { host: "web1".into(), connection: "ipv4".into() };
        assert_eq!((due.events.len(), due.ended), (0, vec![trouble]));
        assert_eq!(due.rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["web2"]);
        assert!(play.fleet.view("web1").is_none());
        assert_eq!(play.wait(DAY).events(), ["web2 was never heard"]);
    }

    fn signs(interval: Duration, grace: Duration) -> Play {
        let mut rules = rules();
        rules.settings.grace = Some(SECOND);
        rules.signs.insert("web1".into(), Promise { interval, grace });
        Play::with(rules)
    }

    fn sign(play: &mut Play) {
        let json = br#"{"host":"web1","connection":"alertmanager"}"#;
        play.fleet.hear_of(json, HERE, play.now).unwrap();
    }

    #[test]
    fn signs_of_life_keep_their_own_promise() {
        let mut play = signs(30 * SECOND, 5 * MINUTE);
        sign(&mut play);
        play.beat("web1");
        assert_eq!(play.wait(5 * MINUTE).events(), ["web1 ipv4 overdue"]);
        assert_eq!(play.wait(30 * SECOND).events(), ["web1 alertmanager overdue"]);
    }

    #[test]
    fn another_way_to_hear_signs_of_life_made_them_overdue() {
        let fetched = Promise { interval: 30 * SECOND, grace: 5 * MINUTE };
        for reload in [true, false] {
            let mut play = signs(4 * HOUR, 8 * HOUR);
            sign(&mut play);
            play.wait(3 * HOUR);
            play.rules.signs.insert("web1".into(), fetched);
            if reload {
                play.fleet.reconfigure(play.rules.clone(), play.now);
            } else {
                play.restart_after(SECOND);
            }
            assert!(play.wait(5 * MINUTE).events().is_empty());
            // Another start promises nothing anew.
            play.restart_after(Duration::ZERO);
            assert_eq!(play.wait(MINUTE).events(), ["web1 alertmanager overdue"]);
        }
    }

    #[test]
    fn signs_of_life_that_nobody_passes_on_any_more_are_forgotten() {
        for reload in [true, false] {
            for overdue in [true, false] {
                let mut play = signs(30 * SECOND, 5 * MINUTE);
                sign(&mut play);
                play.wait(if overdue { 2 * DAY } else { SECOND }).facts();
                play.rules.signs.clear();
                let due = if reload {
                    play.fleet.reconfigure(play.rules.clone(), play.now)
                } else {
                    let (rows, mark) = (play.rows(), play.mark());
                    let (rules, now) = (play.rules.clone(), play.now);
                    play.fleet = Fleet::restore(rules, rows, Some(mark), now, &play.kernel);
                    play.fleet.due(now)
                };
                assert_eq!((due.events.len(), due.ended.len()), (0, usize::from(overdue)));
                assert!(play.fleet.view("web1").unwrap().connections.is_empty());
                assert!(play.wait(DAY - SECOND).events().is_empty(), "{reload} {overdue}");
                assert_eq!(play.wait(DAY).events(), ["web1 was never heard"]);
            }
        }
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let mut play = Play::new();
        play.beat("web1").wait(20 * SECOND);
        play.rules.hosts.get_mut("web1").unwrap().grace = Some(MINUTE);
        play.rules.default_channels = vec!["oncall".into()];
        assert!(play.fleet.reconfigure(play.rules.clone(), play.now).gone.is_empty());
        assert_eq!(play.fleet.view("web1").unwrap().channels, ["oncall"]);
        assert!(play.wait(50 * SECOND - SECOND).events().is_empty());
        assert_eq!(play.wait(SECOND).events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_host_that_is_no_longer_configured_becomes_an_unknown_one_where_those_are_accepted() {
        let mut play = Play::new();
        play.beat("web1");
        play.rules.hosts.clear();
        play.rules.settings.unknown_hosts = UnknownHosts::Accept;
        assert!(play.fleet.reconfigure(play.rules.clone(), play.now).gone.is_empty());
        assert!(!play.fleet.view("web1").unwrap().watch);
        assert_eq!(play.fleet.strangers, 1);
    }

    #[test]
    fn rows_of_hosts_that_are_gone_are_told_after_a_restart() {
        let mut play = Play::new();
        play.beat("web1");
        let (rows, mark) = (play.rows(), play.mark());
        play.rules.hosts.clear();
        play.now = play.now.later(SECOND);
        play.fleet = Fleet::restore(play.rules, rows, Some(mark), play.now, &play.kernel);
        assert!(play.fleet.is_empty());
        assert_eq!(play.fleet.next_deadline(), Some(Mono(i64::MIN)), "at once");
        assert_eq!(play.fleet.due(play.now).gone, ["web1"]);
        assert_eq!(play.fleet.next_deadline(), None);
    }

    #[test]
    fn a_reload_did_forget_who_was_heard_and_a_restart_invented_an_alarm() {
        let mut play = Play::with_interval(DAY);
        play.rules.settings.grace = Some(HOUR);
        play.fleet.reconfigure(play.rules.clone(), play.now);
        play.beat("web1");
        let mut stored: HashMap<_, _> = play.rows().into_iter().collect();
        play.fleet.flush();
        play.wait(DAY).beat("web1").wait(20 * SECOND);
        stored.extend(play.fleet.reconfigure(play.rules.clone(), play.now).rows);
        play.wait(2 * HOUR);
        stored.extend(play.fleet.flush());
        let mark = play.mark();
        play.now = play.now.later(SECOND);
        assert!(play.start(stored.into_iter().collect(), Some(mark)).events().is_empty());
    }

    /// web1 is down, and from now on it is watched.
    fn watched_at_last(restarts: bool) -> Play {
        let mut play = Play::new();
        play.rules.hosts.get_mut("web1").unwrap().watch = false;
        play.fleet.reconfigure(play.rules.clone(), play.now);
        play.beat_over("web1", "a").beat_over("web1", "b").wait(HOUR).facts();
        play.rules.hosts.get_mut("web1").unwrap().watch = true;
        if restarts {
            play.restart_after(SECOND);
        } else {
            let due = play.fleet.reconfigure(play.rules.clone(), play.now);
            assert_eq!((due.events.len(), due.ended.len()), (0, 2));
        }
        play
    }

    #[test]
    fn a_host_that_was_down_when_it_became_watched_was_never_told() {
        for restarts in [false, true] {
            let mut play = watched_at_last(restarts);
            assert!(play.wait(39 * SECOND).events().is_empty(), "it may be back by itself");
            let told = ["critical web1 a overdue", "warning web1 b overdue"];
            assert_eq!(play.wait(SECOND).told(), told);
            play.restart_after(SECOND);
            play.fleet.reconfigure(play.rules.clone(), play.now);
            assert!(play.wait(DAY).events().is_empty(), "once");
            assert_eq!(play.beat_over("web1", "a").events(), ["web1 a is back"]);

            let mut play = watched_at_last(restarts);
            play.wait(SECOND);
            assert!(play.beat_over("web1", "a").events().is_empty(), "nobody knew it was away");
            assert_eq!(play.wait(40 * SECOND).told()[0], "warning web1 b overdue");
        }
    }
}
