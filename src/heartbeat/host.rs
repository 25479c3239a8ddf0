//! One host: what beats, boots, goodbyes and silence mean for it, and the metrics that it no longer
//! sends. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident};
use crate::heartbeat::connection::{BlindPeriod, Connection};
use crate::heartbeat::datagram::{Datagram, DatagramKind};
use crate::heartbeat::metric::{self, Metric};
use crate::heartbeat::settings::{Expectation, Profile, SharedSettings};
use crate::heartbeat::uptime::{UptimeCounter, UptimeStatus};
use crate::view::{State, UptimeSample};

/// The most connections that a host may have.
pub const MAX_CONNECTIONS: usize = 16;
/// Within this time a second boot without a `boot_id` is the same boot, told over another
/// connection or repeated by a careful sender.
const BOOT_DEDUP: Duration = Duration::from_secs(120);

/// A machine that has been up for longer, in seconds, has not just booted.
const MAX_UPTIME_OF_NEW_BOOT: f64 = 600.0;

/// How often it is looked for them, in milliseconds.
const CHECK_INTERVAL: i64 = 60_000;
/// A beat may be as late as another one, and a bit, before its silence is more than a lost datagram.
const MAX_LATE_INTERVALS: u32 = 2;

/// A host of the fleet.
#[derive(Debug)]
pub struct Host {
    /// Its name under `hosts`, or as it called itself.
    pub name: Arc<str>,
    /// What the configuration says about it.
    pub profile: Arc<Profile>,
    /// In the order in which they were first heard.
    pub connections: Vec<Connection>,
    /// Its metrics, in the order in which they were first heard.
    pub metrics: Vec<Metric>,
    /// The ids of its boots; none when it never told one.
    pub boot_ids: Option<Box<BootIds>>,
    /// When its last boot was told, unless it said goodbye since.
    pub last_boot_at: Option<Mono>,
    /// Whether that boot had an id.
    pub boot_has_id: bool,
    /// How it fared since the last account; none when it is not configured.
    pub uptime: Option<Box<UptimeCounter>>,
    /// The best state of its connections.
    pub state: State,
    /// Since when it is in that state; when it never was heard: since when it is configured.
    pub since: Wall,
    /// When it was first configured, or first heard.
    pub configured_since: Wall,
    /// Its machine was told to stop, and with it the daemon, which runs there: its next boot is
    /// announced.
    pub stop_announced: bool,
    /// It was reported as never heard, and was not heard since.
    pub never_seen_reported: bool,
    /// Something changed that must be stored at once.
    pub must_store_now: bool,
    /// Something changed since its row was last taken, be it only that it was heard.
    pub dirty: bool,
    /// It waits among the changed ones.
    pub in_dirty_list: bool,
}

/// Other watched hosts that are overdue.
#[derive(Debug, Default)]
pub struct AlsoDown {
    /// Some of them.
    pub names: Vec<String>,
    /// How many there are in all.
    pub count: usize,
}

/// The boots of a host that tells their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootIds {
    /// The boot that is running.
    pub current: Box<str>,
    /// The one before: late datagrams of it are no boot.
    pub previous: Option<Box<str>>,
}

/// What the absence of metrics meant.
#[derive(Debug, Default)]
pub struct MissingMetrics {
    /// One for each that is missing from now on.
    pub events: Vec<Event>,
    /// Troubles of metrics that were forgotten.
    pub closed_incidents: Vec<Incident>,
    /// Metrics are at other places than before.
    pub reindexed: bool,
}

impl Host {
    /// A host that was never heard.
    pub fn new(name: Arc<str>, profile: Arc<Profile>, now: Now) -> Host {
        Host {
            name,
            profile,
            connections: Vec::new(),
            metrics: Vec::new(),
            boot_ids: None,
            last_boot_at: None,
            boot_has_id: false,
            uptime: None,
            state: State::New,
            since: now.wall,
            configured_since: now.wall,
            stop_announced: false,
            never_seen_reported: false,
            must_store_now: false,
            dirty: false,
            in_dirty_list: false,
        }
    }

    /// Whether it ever sent a beat.
    pub fn was_seen(&self) -> bool {
        self.connections.iter().any(|connection| connection.state != State::New)
    }

    /// The place of a connection.
    pub fn connection_index(&self, connection: &str) -> Option<usize> {
        self.connections.iter().position(|known| *known.name == *connection)
    }

    /// The place of a connection that is added when it is new.
    pub fn add_connection(&mut self, name: Arc<str>, now: Now) -> usize {
        // Nearly all hosts have one connection: room for four would be paid for 100,000 times.
        self.connections.reserve_exact(1);
        self.connections.push(Connection::new(name, now));
        self.connections.len() - 1
    }

    /// Applies an accepted datagram; the events that it causes.
    pub fn on_datagram(
        &mut self,
        index: usize,
        datagram: &Datagram,
        from: IpAddr,
        common: &SharedSettings,
        now: Now,
    ) -> Vec<Event> {
        let connection = &mut self.connections[index];
        connection.address = Some(from);
        match datagram.event {
            DatagramKind::Beat | DatagramKind::Boot => {
                if let Some(interval) = datagram.interval {
                    connection.interval = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
                }
                self.on_beat(index, datagram, common, now)
            }
            DatagramKind::Shutdown => self.on_shutdown(index, datagram, now).into_iter().collect(),
            DatagramKind::Message => {
                let text = datagram.message.as_deref().unwrap_or_default().to_owned();
                let kind = EventKind::Said { host: self.name.as_ref().into(), text };
                vec![Event::new(now.wall, kind)]
            }
        }
    }

    fn on_beat(
        &mut self,
        index: usize,
        datagram: &Datagram,
        common: &SharedSettings,
        now: Now,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if std::mem::take(&mut self.never_seen_reported) {
            let connection = self.connections[index].name.as_ref().into();
            let kind = EventKind::FirstHeard { host: self.name.as_ref().into(), connection };
            events.push(Event::new(now.wall, kind));
        }
        if self.is_new_boot(datagram, now) {
            events.push(self.on_boot(now));
            self.presume_others_recovered(index, common, now);
        } else if self.connections[index].has_open_incident() {
            let connection = &self.connections[index];
            let kind = EventKind::Back {
                host: self.name.as_ref().into(),
                connection: connection.name.as_ref().into(),
                gone: now.mono.since(connection.last_seen.mono),
            };
            events.push(Event::new(now.wall, kind));
        }
        // A power cut from now on is no announced boot, even if the daemon has just started.
        self.must_store_now |= std::mem::take(&mut self.stop_announced);
        self.must_store_now |= self.connections[index].mark_up(now);
        self.update_state(now);
        events
    }

    /// Whether a beat tells a boot that was not told before; notes its id.
    fn is_new_boot(&mut self, datagram: &Datagram, now: Now) -> bool {
        let says_boot = datagram.event == DatagramKind::Boot;
        let recent = self.last_boot_at.is_some_and(|booted| now.mono.since(booted) < BOOT_DEDUP);
        let Some(id) = datagram.boot_id.as_deref() else {
            let boots = says_boot && !recent;
            self.boot_has_id &= !boots;
            return boots;
        };
        let previous = match self.boot_ids.take() {
            Some(boots) if boots.is_known(id) => {
                self.boot_ids = Some(boots);
                return false;
            }
            Some(boots) => Some(boots.current),
            None => None,
        };
        // The first id of a host that beats is no boot: it only began to tell ids. Neither is that
        // of an agent that begins to speak long after its machine did.
        let just = datagram.uptime.is_none_or(|uptime| uptime < MAX_UPTIME_OF_NEW_BOOT);
        let new = previous.is_some() || says_boot && just;
        self.boot_ids = Some(Box::new(BootIds { current: id.into(), previous }));
        let told = recent && !self.boot_has_id;
        self.boot_has_id = true;
        self.must_store_now = true;
        new && !told
    }

    fn on_boot(&mut self, now: Now) -> Event {
        let known = self.was_seen();
        let said_goodbye = |c: &Connection| c.state == State::Shutdown && !c.recovery_presumed;
        let announced = !known || self.stop_announced || self.connections.iter().any(said_goodbye);
        let returned = self.connections.iter().filter(|connection| connection.has_open_incident());
        let seen = self.connections.iter().filter(|connection| connection.state != State::New);
        let kind = EventKind::Booted {
            host: self.name.as_ref().into(),
            announced,
            returned: returned.map(|connection| connection.name.as_ref().into()).collect(),
            gone: seen.map(|connection| now.mono.since(connection.last_seen.mono)).min(),
        };
        self.last_boot_at = Some(now.mono);
        self.must_store_now = true;
        Event::new(now.wall, kind)
    }

    /// The trouble of the other connections was told as over: they have to prove it in time.
    fn presume_others_recovered(&mut self, index: usize, common: &SharedSettings, now: Now) {
        let profile = self.profile.clone();
        for (other, connection) in self.connections.iter_mut().enumerate() {
            if other != index && connection.has_open_incident() {
                connection.presume_recovered(connection.expectation(&profile, common), now);
            }
        }
    }

    fn on_shutdown(&mut self, index: usize, datagram: &Datagram, now: Now) -> Option<Event> {
        let late = |boots: &BootIds| boots.previous.as_deref() == datagram.boot_id.as_deref();
        if datagram.boot_id.is_some() && self.boot_ids.as_deref().is_some_and(late) {
            return None;
        }
        self.last_boot_at = None;
        let connection = &mut self.connections[index];
        let told = connection.state == State::Shutdown && !connection.recovery_presumed;
        if told || connection.state == State::New {
            return None;
        }
        connection.last_seen = now;
        connection.recovery_presumed = false;
        connection.extension = None;
        connection.set_state(State::Shutdown, now);
        self.must_store_now = true;
        let connection = connection.name.as_ref().into();
        self.update_state(now);
        let kind = EventKind::Shutdown { host: self.name.as_ref().into(), connection };
        Some(Event::new(now.wall, kind))
    }

    /// A connection's deadline has passed: the event that says so.
    pub fn on_timeout(
        &mut self,
        index: usize,
        expectation: Expectation,
        also_down: AlsoDown,
        now: Now,
    ) -> Event {
        let told = self.connections.iter().any(Connection::has_open_incident);
        let connection = &mut self.connections[index];
        let was_up = connection.state == State::Up;
        connection.recovery_presumed = false;
        connection.extension = None;
        connection.set_state(State::Overdue, now);
        self.must_store_now = true;
        self.update_state(now);
        // One that was excused counts as the last one when nothing was told of the host so far.
        let last = self.state != State::Up && (was_up || !told);
        let connection = &self.connections[index];
        let kind = EventKind::Overdue {
            host: self.name.as_ref().into(),
            connection: connection.name.as_ref().into(),
            last_seen: connection.last_seen.wall,
            promised: connection.last_seen.wall + expectation.interval,
            others_down: also_down.names,
            others_count: also_down.count,
            last,
        };
        Event::new(now.wall, kind)
    }

    /// It is watched from now on: nobody was told what is overdue already. It has as long as after
    /// a beat to come back, and is told then. The troubles that must be forgotten until then.
    pub fn reset_untold(&mut self, common: &SharedSettings, now: Now) -> Vec<Incident> {
        let (name, profile) = (self.name.clone(), self.profile.clone());
        let overdue = |c: &&mut Connection| c.state == State::Overdue && c.has_open_incident();
        let told = self.connections.iter_mut().filter(overdue).map(|connection| {
            connection.presume_recovered(connection.expectation(&profile, common), now);
            Incident::Connection {
                host: name.as_ref().into(),
                connection: connection.name.as_ref().into(),
            }
        });
        told.collect()
    }

    /// Goes by what the configuration says of its vouched connections now: where nobody vouches any
    /// more, the connection is forgotten, and the trouble about it; else it holds its new promise.
    pub fn refresh_internal_connections(&mut self, now: Now) -> Vec<Incident> {
        let mut closed = Vec::new();
        for index in (0..self.connections.len()).rev() {
            let connection = &mut self.connections[index];
            if !connection.is_internal() {
                continue;
            }
            match self.profile.internal_expectation(&connection.name) {
                Some(expectation) => {
                    self.must_store_now |= connection.set_expectation(expectation, now)
                }
                None => closed.extend(self.remove_connection(index, now)),
            }
        }
        closed
    }

    /// Forgets a connection; the trouble that ends without a word.
    fn remove_connection(&mut self, index: usize, now: Now) -> Option<Incident> {
        let gone = self.connections.remove(index);
        self.metrics.iter_mut().for_each(|metric| metric.freshness.connection_removed(index));
        self.must_store_now = true;
        self.update_state(now);
        if self.connections.is_empty() {
            // Whoever has to beat now has as long as a host that was just configured.
            self.configured_since = now.wall;
        }
        gone.has_open_incident().then(|| Incident::Connection {
            host: self.name.as_ref().into(),
            connection: gone.name.as_ref().into(),
        })
    }

    /// Takes the state that follows from its connections. While it is not up nobody looks at its
    /// metrics: for how long they were beyond their limits is forgotten.
    pub fn update_state(&mut self, now: Now) {
        let has = |state| self.connections.iter().any(|connection| connection.state == state);
        let state = [State::Up, State::Overdue, State::Shutdown].into_iter().find(|s| has(*s));
        let state = state.unwrap_or(State::New);
        if state == self.state {
            return;
        }
        if self.state == State::Up {
            let alert =
                self.metrics.iter_mut().filter_map(|metric| metric.alert_state.as_deref_mut());
            alert.for_each(|alert| alert.threshold.reset_pending());
        }
        self.state = state;
        self.since = now.wall;
    }

    /// Everything that people were told is wrong with it.
    pub fn open_incidents(&self) -> Vec<Incident> {
        let name = || self.name.as_ref().to_owned();
        let mut incidents: Vec<Incident> =
            self.metrics.iter().filter_map(|metric| metric.open_incident(&self.name)).collect();
        let down = self.connections.iter().filter(|connection| connection.has_open_incident());
        incidents.extend(down.map(|connection| Incident::Connection {
            host: name(),
            connection: connection.name.as_ref().into(),
        }));
        if self.never_seen_reported {
            incidents.push(Incident::NeverSeen { host: name() });
        }
        incidents
    }

    /// For how long the connection at `place`, that beats now, was silent beyond its promise; zero
    /// when that is nothing unusual. To be asked before the beat is noted.
    pub fn excess_gap(&self, index: usize, common: &SharedSettings, now: Now) -> Duration {
        let connection = &self.connections[index];
        let interval = connection.expectation(&self.profile, common).interval;
        let gap = now.mono.since(connection.last_seen.mono);
        let usual = interval.saturating_mul(MAX_LATE_INTERVALS);
        if gap > usual { gap.saturating_sub(interval) } else { Duration::ZERO }
    }

    /// Whether it is time to look for metrics that are missing, at a beat of the connection at
    /// `place`. To be asked before the beat is noted.
    pub fn check_due(&self, index: usize, now: Now) -> bool {
        self.connections[index].last_seen.mono.0.div_euclid(CHECK_INTERVAL)
            != now.mono.0.div_euclid(CHECK_INTERVAL)
    }

    /// The connection at `place` beats, after a `silence` that nobody may blame its metrics for.
    pub fn extend_metrics(&mut self, index: usize, silence: Duration) {
        if silence.is_zero() {
            return;
        }
        for metric in
            self.metrics.iter_mut().filter(|metric| metric.freshness.connection() == index)
        {
            metric.freshness.extend(silence);
        }
    }

    /// The connection at `place` brings metrics: from it are expected from now on those, too, whose
    /// own connection is down.
    pub fn adopt_metrics(&mut self, index: usize, now: Now) {
        let connections = &self.connections;
        for metric in &mut self.metrics {
            let own = connections.get(metric.freshness.connection());
            if own.is_none_or(|own| own.state != State::Up) {
                metric.freshness.move_to_connection(index, now);
            }
        }
    }

    /// Looks for metrics that the connection at `place`, which has just beaten, no longer brings.
    pub fn check_missing(
        &mut self,
        index: usize,
        common: &SharedSettings,
        now: Now,
    ) -> MissingMetrics {
        let mut missing = MissingMetrics::default();
        let interval = self.connections[index].expectation(&self.profile, common).interval;
        for metric in
            self.metrics.iter_mut().filter(|metric| metric.freshness.connection() == index)
        {
            if metric.freshness.is_missing(now.mono, interval) {
                missing.events.extend(metric.mark_missing(&self.name, now));
            }
        }
        let name = &self.name;
        let before = self.metrics.len();
        self.metrics.retain(|metric| {
            let told = metric.alert().is_some();
            let gone = metric.freshness.connection() == index
                && metric.freshness.is_expired(now.mono, interval, told);
            missing.closed_incidents.extend(metric.open_incident(name).filter(|_| gone));
            !gone
        });
        missing.reindexed = self.metrics.len() < before;
        if missing.reindexed {
            metric::clear_schedule(&mut self.metrics);
        }
        missing
    }

    /// Whether the connection that brought a metric beats on without it.
    pub fn is_missing(&self, metric: &Metric, common: &SharedSettings) -> bool {
        self.connections.get(metric.freshness.connection()).is_some_and(|connection| {
            let interval = connection.expectation(&self.profile, common).interval;
            metric.freshness.is_missing(connection.last_seen.mono, interval)
        })
    }

    /// How it fares.
    pub fn uptime_status(&self) -> UptimeStatus {
        match self.state {
            State::New | State::Shutdown => UptimeStatus::NotExpected,
            State::Overdue => UptimeStatus::Down,
            State::Up => {
                let overdue = self.connections.iter().any(|c| c.state == State::Overdue);
                let alert = overdue || self.metrics.iter().any(|metric| metric.alert().is_some());
                if alert { UptimeStatus::Degraded } else { UptimeStatus::Up }
            }
        }
    }

    /// Writes down how it fares from now on. Hosts that are not configured keep no diary: there
    /// may be any number of them.
    pub fn update_uptime(&mut self, now: Mono, blind: &[BlindPeriod]) {
        if !self.profile.configured {
            self.uptime = None;
            return;
        }
        let condition = self.uptime_status();
        match &mut self.uptime {
            Some(diary) => diary.set_status(condition, now, blind),
            None => self.uptime = Some(Box::new(UptimeCounter::new(condition, now))),
        }
    }

    /// How it fared since the last account; none when it keeps no diary.
    pub fn take_sample(&mut self, now: Mono, blind: &[BlindPeriod]) -> Option<UptimeSample> {
        let account = self.uptime.as_mut()?.take_sample(now, blind);
        let metrics = self.metrics.iter_mut().filter_map(|metric| metric.take_summary()).collect();
        Some(UptimeSample { host: self.name.clone(), metrics, ..account })
    }

    /// What the next account would say of its condition.
    pub fn peek_sample(&self, now: Mono, blind: &[BlindPeriod]) -> Option<UptimeSample> {
        let account = self.uptime.as_deref()?.clone().take_sample(now, blind);
        Some(UptimeSample { host: self.name.clone(), ..account })
    }

    /// Goes by a new profile; the troubles that end without a word.
    pub fn apply_profile(
        &mut self,
        profile: Arc<Profile>,
        common: &SharedSettings,
        now: Now,
    ) -> Vec<Incident> {
        if profile.configured && !self.profile.configured {
            self.configured_since = now.wall;
            self.must_store_now = true;
        }
        let was_watched = std::mem::replace(&mut self.profile, profile).watch;
        self.in_dirty_list = false;
        for connection in &mut self.connections {
            connection.scheduled_at = Mono(i64::MAX);
        }
        let name = self.name.clone();
        let mut closed: Vec<_> = self
            .metrics
            .iter_mut()
            .filter_map(|metric| metric.reapply_rule(&name, &self.profile, now))
            .collect();
        closed.extend(self.refresh_internal_connections(now));
        if self.profile.watch && !was_watched {
            closed.extend(self.reset_untold(common, now));
        }
        self.must_store_now |= !closed.is_empty() || self.profile.watch != was_watched;
        closed
    }
}

impl BootIds {
    fn is_known(&self, id: &str) -> bool {
        *self.current == *id || self.previous.as_deref() == Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, SECOND, TestFleet, set};
    use crate::heartbeat::threshold::{Rule, ThresholdSet};

    fn high() -> Rule {
        let limit = |text: &str| Some(text.parse().unwrap());
        Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() }
    }

    fn test() -> TestFleet {
        let mut test = TestFleet::with_threshold("disk.*.percent", high());
        test.config.renotify_interval = None;
        test.fleet.reconfigure(test.config.clone(), test.now);
        test
    }

    /// So many beats, ten seconds apart, in two datagrams: the second has the disk that may be gone.
    fn beats(test: &mut TestFleet, count: u32, disk: Option<f64>) {
        for _ in 0..count {
            test.ingest(r#"{"host":"web1","metrics":{"cpu":1,"disk":{"root":{"percent":5}}}}"#);
            let mnt = disk.map(|value| format!(r#","mnt":{{"percent":{value}}}"#));
            let mnt = mnt.unwrap_or_default();
            test.ingest(&format!(
                r#"{{"host":"web1","metrics":{{"disk":{{"boot":{{"percent":1}}{mnt}}}}}}}"#
            ));
            test.wait(10 * SECOND);
        }
    }

    const MISSING: &str = "warning web1 metric disk.mnt.percent is missing";
    const CRITICAL: &str = "critical CRITICAL: web1 - disk.mnt.percent = 95.0 (threshold: > 90.0)";

    fn stale(test: &TestFleet) -> Vec<String> {
        let metrics = test.fleet.view("web1").unwrap().metrics.into_iter();
        metrics.filter(|metric| metric.stale).map(|metric| metric.path).collect()
    }

    /// web1 with a disk at CRITICAL that is unmounted.
    fn unmounted() -> TestFleet {
        let mut test = test();
        beats(&mut test, 20, Some(95.0));
        assert_eq!(test.titles_with_level(), [CRITICAL]);
        test
    }

    #[test]
    fn a_disk_that_is_unmounted_while_critical_is_missing_once() {
        let mut test = unmounted();
        beats(&mut test, 59, None);
        assert!(test.titles_with_level().is_empty() && stale(&test).is_empty());
        beats(&mut test, 7, None);
        assert_eq!(test.titles_with_level(), [MISSING]);
        assert_eq!(stale(&test), ["disk.mnt.percent"]);
        beats(&mut test, 6 * 60 * 24, None);
        assert!(test.titles_with_level().is_empty(), "once");
    }

    #[test]
    fn there_is_no_reminder_of_a_value_that_is_old() {
        let mut test = unmounted();
        test.config.renotify_interval = Some(HOUR);
        test.fleet.reconfigure(test.config.clone(), test.now);
        beats(&mut test, 6 * 60 * 5, None);
        assert_eq!(test.titles_with_level(), [MISSING]);
        beats(&mut test, 1, Some(95.0));
        assert_eq!(test.titles_with_level(), [CRITICAL]);
        beats(&mut test, 6 * 60, Some(95.0));
        assert_eq!(test.titles_with_level(), [CRITICAL], "the reminder");
    }

    #[test]
    fn its_return_tells_how_it_stands() {
        for (value, told) in [
            (95.0, CRITICAL),
            (85.0, "warning WARNING: web1 - disk.mnt.percent = 85.0 (threshold: > 80.0)"),
            (5.0, "ok OK: web1 - disk.mnt.percent = 5.0 (threshold: > 80.0)"),
        ] {
            let mut test = unmounted();
            beats(&mut test, 90, None);
            assert_eq!(test.titles_with_level(), [MISSING]);
            beats(&mut test, 90, Some(value));
            assert_eq!(test.titles_with_level(), [told]);
            assert!(stale(&test).is_empty());
        }
    }

    #[test]
    fn what_was_well_is_stale_and_not_told() {
        let mut test = test();
        beats(&mut test, 20, Some(5.0));
        beats(&mut test, 90, None);
        assert!(test.titles_with_level().is_empty());
        assert_eq!(stale(&test), ["disk.mnt.percent"]);
        assert_eq!(test.fleet.view("web1").unwrap().metrics.len(), 4);
        beats(&mut test, 6 * 60 * 24, None);
        assert_eq!(test.fleet.view("web1").unwrap().metrics.len(), 3, "it is forgotten");
        assert!(test.titles_with_level().is_empty());
    }

    #[test]
    fn a_restart_neither_forgets_nor_repeats_it() {
        for reboot in [false, true] {
            let mut test = unmounted();
            let again = |test: &mut TestFleet| {
                if reboot {
                    test.reboot_after(HOUR)
                } else {
                    test.restart_after(HOUR)
                };
            };
            again(&mut test);
            beats(&mut test, 55, None);
            assert!(test.titles_with_level().is_empty(), "nobody listened for an hour");
            again(&mut test);
            beats(&mut test, 12, None);
            assert_eq!(test.titles_with_level(), [MISSING], "restarts do not postpone it for ever");
            again(&mut test);
            beats(&mut test, 90, None);
            assert!(test.titles_with_level().is_empty(), "once");
            beats(&mut test, 1, Some(95.0));
            assert_eq!(test.titles_with_level(), [CRITICAL]);
        }
    }

    #[test]
    fn the_silence_of_a_host_is_not_the_absence_of_its_metrics() {
        let mut test = unmounted();
        for _ in 0..8 {
            // Up, but late within its grace; then overdue; then asleep.
            test.wait(25 * SECOND);
            beats(&mut test, 1, None);
            test.wait(DAY);
            assert_eq!(test.titles_with_level(), ["critical web1 ipv4 overdue"]);
            beats(&mut test, 1, None);
            assert_eq!(test.titles_with_level(), ["ok web1 ipv4 is back"]);
            test.sleep(DAY);
            beats(&mut test, 1, None);
        }
        assert!(test.titles_with_level().is_empty());
    }

    #[test]
    fn metrics_of_a_connection_that_is_overdue_are_not_missed() {
        let mut test = test();
        for _ in 0..20 {
            test.ingest(r#"{"host":"web1","connection":"vpn","metrics":{"disk.mnt.percent":95}}"#);
            test.beat("web1").wait(10 * SECOND);
        }
        test.titles_with_level();
        for _ in 0..1000 {
            test.beat("web1").wait(10 * SECOND);
        }
        assert_eq!(test.titles_with_level(), ["warning web1 vpn overdue"]);
        // Another one brings metrics from now on.
        beats(&mut test, 90, None);
        assert_eq!(test.titles_with_level(), [MISSING]);
    }

    #[test]
    fn own_metrics_come_at_their_own_distances() {
        let mut test = test();
        for _ in 0..12 {
            test.ingest(r#"{"host":"web1","metrics":{"disk.mnt.percent":95}}"#);
            for _ in 0..360 {
                test.beat("web1").wait(10 * SECOND);
            }
        }
        assert_eq!(test.titles_with_level(), [CRITICAL]);
        for _ in 0..(3 * 360 + 350) {
            test.beat("web1").wait(10 * SECOND);
        }
        assert!(test.titles_with_level().is_empty(), "it comes every hour");
        for _ in 0..400 {
            test.beat("web1").wait(10 * SECOND);
        }
        assert_eq!(test.titles_with_level(), [MISSING]);
    }

    #[test]
    fn a_metric_of_a_job_that_ran_a_few_times_is_not_missed_the_next_day() {
        let mut test = test();
        for _ in 0..5 {
            test.ingest(r#"{"host":"web1","metrics":{"disk.mnt.percent":95}}"#).wait(5 * SECOND);
        }
        test.titles_with_level();
        for _ in 0..(6 * 24 * 7) {
            for _ in 0..60 {
                test.beat("web1").wait(10 * SECOND);
            }
        }
        assert!(test.titles_with_level().is_empty());
    }

    #[test]
    fn nothing_is_missing_where_a_fifth_of_all_datagrams_is_lost() {
        let mut test = test();
        let mut state = 7u64;
        let mut lost = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33 < (1 << 31) / 5
        };
        for _ in 0..(10 * 360) {
            for part in ["disk.mnt", "disk.boot"] {
                if !lost() {
                    let metrics = format!(r#"{{"{part}.percent":95}}"#);
                    test.ingest(&format!(r#"{{"host":"web1","metrics":{metrics}}}"#));
                }
            }
            test.wait(10 * SECOND);
        }
        let missing = |event: &Event| matches!(event.kind, EventKind::Missing { .. });
        assert!(!test.take_events().iter().any(missing));
    }

    #[test]
    fn what_is_missing_for_long_is_forgotten_without_a_false_ok() {
        let mut test = unmounted();
        let mut ended = Vec::new();
        for _ in 0..(32 * 24 * 60) {
            let json = br#"{"host":"web1","interval":60,"metrics":{"cpu":1}}"#;
            ended.extend(test.try_ingest(json).unwrap().closed_incidents);
            test.wait(MINUTE);
        }
        let told = test.titles_with_level();
        assert!(told.iter().all(|title| !title.starts_with("ok ")), "{told:?}");
        let incident = Incident::Metric { host: "web1".into(), metric: "disk.mnt.percent".into() };
        assert_eq!(ended, [incident]);
        assert_eq!(test.fleet.view("web1").unwrap().metrics.len(), 1);
    }

    #[test]
    fn a_reload_that_removes_the_rule_ends_it() {
        let mut test = unmounted();
        beats(&mut test, 90, None);
        assert_eq!(test.titles_with_level(), [MISSING]);
        test.config.threshold_sets.insert("default".into(), ThresholdSet::default());
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!((changes.events.len(), changes.closed_incidents.len()), (0, 1));
        test.config.threshold_sets.insert("default".into(), set("disk.*.percent", high()));
        test.fleet.reconfigure(test.config.clone(), test.now);
        beats(&mut test, 90, None);
        assert!(test.titles_with_level().is_empty());
    }

    #[test]
    fn the_time_that_a_value_must_last_begins_anew_when_it_was_not_sent() {
        let mut test = test();
        let lasting = set("disk.*.percent", Rule { for_duration: 5 * MINUTE, ..high() });
        test.config.threshold_sets.insert("default".into(), lasting);
        test.fleet.reconfigure(test.config.clone(), test.now);
        beats(&mut test, 20, Some(95.0));
        beats(&mut test, 90, None);
        beats(&mut test, 30, Some(95.0));
        assert!(test.titles_with_level().is_empty());
        beats(&mut test, 1, Some(95.0));
        assert_eq!(test.titles_with_level(), [CRITICAL]);
    }

    #[test]
    fn the_time_that_a_value_must_last_goes_on_after_a_restart() {
        let rule = Rule { for_duration: MINUTE, ..high() };
        let critical = ["critical CRITICAL: web1 - m = 95.0 (threshold: > 90.0)"];
        let test = |away| {
            let mut test = TestFleet::with_threshold("m", rule);
            for _ in 0..4 {
                test.sample(95.0).wait(10 * SECOND);
            }
            test.restart_after(away);
            test
        };
        let mut short = test(20 * SECOND);
        short.sample(95.0).wait(10 * SECOND);
        assert!(short.titles_with_level().is_empty(), "being away does not count");
        short.sample(95.0).wait(10 * SECOND).sample(95.0);
        assert_eq!(short.titles_with_level(), critical);
        let mut fell = test(20 * SECOND);
        fell.sample(5.0).wait(10 * SECOND).sample(95.0).wait(30 * SECOND).sample(95.0);
        assert!(fell.titles_with_level().is_empty());
        let mut long = test(2 * MINUTE);
        for _ in 0..6 {
            long.sample(95.0).wait(10 * SECOND);
        }
        assert!(long.titles_with_level().is_empty(), "it begins anew");
        assert_eq!(long.sample(95.0).titles_with_level(), critical);
    }
}
