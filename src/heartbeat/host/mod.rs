//! One host: what beats, boots, shutdowns, timeouts and missing metrics change, and the events that
//! they cause. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::{CalmEvent, Event, EventKind, Incident, SilenceNotice};
use crate::heartbeat::blindness::BlindPeriod;
use crate::heartbeat::boots::BootIds;
use crate::heartbeat::connection::Connection;
use crate::heartbeat::datagram::{Datagram, DatagramKind};
use crate::heartbeat::goodbye::Goodbye;
use crate::heartbeat::host::memory::HostMemory;
use crate::heartbeat::metric::{self, Metric};
use crate::heartbeat::settings::{Expectation, Profile, SharedSettings};
use crate::heartbeat::uptime::{UptimeCounter, UptimeStatus};
use crate::view::{HostState, UptimeSample};

mod boot;
use self::boot::PutOff;
mod departure;
pub mod memory;
pub mod silence;
pub mod untold;
use self::untold::Explanation;

/// The most connections that a host may have.
pub const MAX_CONNECTIONS: usize = 16;

/// How often a host is checked for missing metrics, in milliseconds.
const CHECK_INTERVAL: i64 = 60_000;
/// After a gap of more than this many intervals it is not a single lost datagram any more.
const MAX_LATE_INTERVALS: u32 = 2;

/// A host of the fleet.
#[derive(Debug)]
pub struct Host {
    /// Its name under `hosts`, or as it called itself.
    pub name: Arc<str>,
    /// What the configuration says about it.
    pub profile: Arc<Profile>,
    /// In the order in which they were first seen.
    pub connections: Vec<Connection>,
    /// In the order in which they were first received.
    pub metrics: Vec<Metric>,
    /// The ids of its last boots; none when it never sent one.
    pub boot_ids: Option<Box<BootIds>>,
    /// Its last boot, unless it was shut down since.
    pub last_boot: Option<LastBoot>,
    /// Its availability since the last sample; none when it is not configured.
    pub uptime: Option<Box<UptimeCounter>>,
    /// The best state of its connections.
    pub state: HostState,
    /// Since when it is in that state; when it was never seen: since when it is configured.
    pub since: Wall,
    /// When it was first configured, or first seen.
    pub configured_since: Wall,
    /// Its machine was told to stop, and with it the daemon, which runs there: its next boot is
    /// announced.
    pub stop_announced: bool,
    /// It announced its shutdown, and did not beat since.
    pub goodbye: Option<Box<Goodbye>>,
    /// A boot or a return that it showed is not told yet.
    pub put_off: Option<Box<PutOff>>,
    /// What is known of why it is not heard.
    pub explanation: Option<Box<Explanation>>,
    /// All that it was heard over is forgotten: it is not expected until it beats again.
    pub forgotten: bool,
    /// It was logged that it sends metrics that cannot be used.
    pub left_out_logged: bool,
    /// It was reported as never seen, and was not seen since.
    pub never_seen_reported: bool,
    /// Something changed that must be stored at once.
    pub must_store_now: bool,
    /// Something changed since its row was last taken, be it only when it was last seen.
    pub dirty: bool,
    /// It is in the fleet's list of dirty hosts.
    pub in_dirty_list: bool,
    /// The memory that is counted of it, while it is not configured.
    pub memory: HostMemory,
}

/// A boot of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBoot {
    /// When it was reported.
    pub at: Mono,
    /// Whether it had an id.
    pub has_id: bool,
}

/// Other watched hosts that are overdue.
#[derive(Debug, Default)]
pub struct AlsoDown {
    /// Some of them.
    pub names: Vec<String>,
    /// How many there are in all.
    pub count: usize,
}

/// A connection whose deadline has passed.
#[derive(Debug)]
pub struct ConnectionTimeout {
    /// Its index.
    pub index: usize,
    /// What was expected of it.
    pub expectation: Expectation,
    /// What else is down.
    pub also_down: AlsoDown,
    /// Datagrams come over it, which are not believed: its clock and ours differ by so much.
    pub clock: Option<Duration>,
}

/// What missing metrics changed.
#[derive(Debug, Default)]
pub struct MissingMetrics {
    /// One for each that is missing from now on.
    pub events: Vec<Event>,
    /// Incidents of metrics that were dropped.
    pub closed_incidents: Vec<Incident>,
    /// Metrics have other indexes than before.
    pub reindexed: bool,
}

impl Host {
    /// A host that was never seen.
    pub fn new(name: Arc<str>, profile: Arc<Profile>, now: Now) -> Host {
        Host {
            name,
            profile,
            connections: Vec::new(),
            metrics: Vec::new(),
            boot_ids: None,
            last_boot: None,
            uptime: None,
            state: HostState::New,
            since: now.wall,
            configured_since: now.wall,
            stop_announced: false,
            goodbye: None,
            put_off: None,
            explanation: None,
            forgotten: false,
            left_out_logged: false,
            never_seen_reported: false,
            must_store_now: false,
            dirty: false,
            in_dirty_list: false,
            memory: HostMemory::default(),
        }
    }

    /// Whether it ever sent a beat.
    pub fn was_seen(&self) -> bool {
        self.connections.iter().any(|connection| connection.state != HostState::New)
    }

    /// The receivers that it is heard through, one bit for each.
    pub fn receivers(&self) -> u16 {
        self.connections.iter().fold(0, |bits, connection| bits | connection.receivers.bits())
    }

    /// A datagram comes over a connection through the receiver of that number.
    pub fn note_receiver(&mut self, index: usize, number: u8, common: &SharedSettings, now: Now) {
        let connection = &mut self.connections[index];
        let interval = connection.expectation(&self.profile, common).interval;
        let last = connection.last_seen.mono;
        connection.receivers.brought(number, interval, last, now.mono);
    }

    /// The index of a connection.
    pub fn connection_index(&self, connection: &str) -> Option<usize> {
        self.connections.iter().position(|known| *known.name == *connection)
    }

    /// Adds a connection; its index.
    pub fn add_connection(&mut self, name: Arc<str>, now: Now) -> usize {
        // The usual growth makes room for four: nearly all of 100,000 hosts have one.
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
        self.connections[index].address = Some(from);
        match datagram.event {
            DatagramKind::Beat | DatagramKind::Boot => {
                self.connections[index].promise(datagram.interval);
                self.on_beat(index, datagram, from, common, now)
            }
            DatagramKind::Shutdown => self.on_shutdown(index, datagram, now),
            DatagramKind::Message => {
                let text = datagram.message.as_deref().unwrap_or_default().to_owned();
                let kind = EventKind::HostMessage { host: self.name.as_ref().into(), text };
                vec![Event::new(now.wall, kind)]
            }
            DatagramKind::Silence => self.silence(datagram, now).into_iter().collect(),
        }
    }

    /// It asks for a silence of its own.
    fn silence(&self, datagram: &Datagram, now: Now) -> Option<Event> {
        let host: String = self.name.as_ref().into();
        let comment = datagram.message.as_deref().map(|text| text.replace(char::is_control, " "));
        let notice = SilenceNotice {
            scope: host.clone(),
            host: Some(host.clone()),
            id: String::new(),
            length: datagram.silence?,
            by: host,
            comment: comment.filter(|text| !text.trim().is_empty()),
            by_host: true,
        };
        Some(Event::new(now.wall, CalmEvent::Silenced(notice)))
    }

    fn on_beat(
        &mut self,
        index: usize,
        datagram: &Datagram,
        from: IpAddr,
        common: &SharedSettings,
        now: Now,
    ) -> Vec<Event> {
        let mut events: Vec<Event> = self.on_return(now).into_iter().collect();
        events.extend(self.drop_untold(index));
        self.must_store_now |= std::mem::take(&mut self.forgotten);
        if std::mem::take(&mut self.never_seen_reported) {
            let connection = self.connections[index].name.as_ref().into();
            let kind = EventKind::FirstHeard { host: self.name.as_ref().into(), connection };
            events.push(Event::new(now.wall, kind));
        }
        if self.is_new_boot(datagram, now) {
            events.extend(self.drop_all_untold());
            events.push(self.on_boot(datagram, now));
            self.put_off = None;
            self.presume_others_recovered(index, common, now);
        } else if self.connections[index].has_open_incident() {
            let connection = &self.connections[index];
            let kind = EventKind::Back {
                host: self.name.as_ref().into(),
                connection: connection.name.as_ref().into(),
                gone: self.silence_of(connection, now),
            };
            events.push(Event::new(now.wall, kind));
        }
        self.forget_put_off(index);
        events.extend(self.second_machine(datagram, from, now));
        // A power cut from now on is no announced boot, even if the daemon has just started.
        self.must_store_now |= std::mem::take(&mut self.stop_announced);
        self.must_store_now |= self.connections[index].mark_up(now);
        self.update_state(now);
        self.forget_fall();
        self.forget_explanation();
        events
    }

    fn on_shutdown(&mut self, index: usize, datagram: &Datagram, now: Now) -> Vec<Event> {
        let id = datagram.boot_id.as_deref();
        if id.zip(self.boot_ids.as_deref()).is_some_and(|(id, boots)| boots.is_earlier(id)) {
            return Vec::new();
        }
        self.last_boot = None;
        self.forget_put_off(index);
        let connection = &mut self.connections[index];
        let is_known = connection.state == HostState::Shutdown && !connection.recovery_presumed;
        if is_known || connection.state == HostState::New {
            return Vec::new();
        }
        let mut events: Vec<Event> = self.drop_untold(index).into_iter().collect();
        let connection = &mut self.connections[index];
        connection.last_seen = now;
        connection.recovery_presumed = false;
        connection.extension = None;
        connection.set_state(HostState::Shutdown, now);
        self.must_store_now = true;
        let goodbye = self.goodbye.get_or_insert_default();
        if goodbye.at == Now::default() {
            goodbye.at = now;
        }
        goodbye.reason = datagram.reason.or(goodbye.reason);
        let connection = connection.name.as_ref().into();
        self.update_state(now);
        let kind = EventKind::Shutdown { host: self.name.as_ref().into(), connection };
        events.push(Event::new(now.wall, kind));
        events
    }

    /// The deadline of a connection has passed: the event.
    pub fn on_timeout(&mut self, timeout: ConnectionTimeout, now: Now) -> Event {
        let ConnectionTimeout { index, expectation, also_down, clock } = timeout;
        let was_reported = self.connections.iter().any(Connection::has_open_incident);
        let connection = &mut self.connections[index];
        let was_up = connection.state == HostState::Up;
        connection.recovery_presumed = false;
        connection.extension = None;
        connection.set_state(HostState::Overdue, now);
        self.must_store_now = true;
        self.update_state(now);
        // One that had been presumed recovered counts as the last one when nothing else of the host is
        // reported as down.
        let last = self.state != HostState::Up && (was_up || !was_reported);
        let connection = &self.connections[index];
        let kind = EventKind::Overdue {
            host: self.name.as_ref().into(),
            connection: connection.name.as_ref().into(),
            last_seen: connection.last_seen.wall,
            // An alert that was resolved took a later promise back.
            promised: (connection.last_seen.wall + expectation.interval).min(now.wall),
            others_down: also_down.names,
            others_count: also_down.count,
            was_last_up: last,
            clock,
            behind_it: Vec::new(),
            behind_count: 0,
        };
        Event::new(now.wall, kind)
    }

    /// The host is watched from now on, and what is overdue already was not reported: it has as long as
    /// after a beat to come back, and is reported then. The incidents that are closed until then.
    pub fn reset_untold(&mut self, common: &SharedSettings, now: Now) -> Vec<Incident> {
        let (name, profile) = (self.name.clone(), self.profile.clone());
        let overdue = |c: &&mut Connection| c.state == HostState::Overdue && c.has_open_incident();
        let closed = self.connections.iter_mut().filter(overdue).map(|connection| {
            connection.presume_recovered(connection.expectation(&profile, common), now);
            Incident::Connection {
                host: name.as_ref().into(),
                connection: connection.name.as_ref().into(),
            }
        });
        closed.collect()
    }

    /// Applies what the configuration says of its internal connections: one that is no longer expected
    /// is removed, another one gets its new expectation. The incidents that are closed.
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

    /// Removes a connection; the incident that is closed without an event.
    fn remove_connection(&mut self, index: usize, now: Now) -> Option<Incident> {
        let gone = self.connections.remove(index);
        self.metrics.iter_mut().for_each(|metric| metric.freshness.connection_removed(index));
        self.must_store_now = true;
        self.update_state(now);
        if self.connections.is_empty() {
            // The host has as long to beat as one that was just configured.
            self.configured_since = now.wall;
        }
        gone.has_open_incident().then(|| Incident::Connection {
            host: self.name.as_ref().into(),
            connection: gone.name.as_ref().into(),
        })
    }

    /// Derives its state from its connections. While it is not up its metrics are not evaluated: for
    /// how long they were beyond their limits is forgotten.
    pub fn update_state(&mut self, now: Now) {
        let has = |state| self.connections.iter().any(|connection| connection.state == state);
        let state =
            [HostState::Up, HostState::Overdue, HostState::Shutdown].into_iter().find(|s| has(*s));
        let state = state.unwrap_or(HostState::New);
        if state == self.state {
            return;
        }
        if self.state == HostState::Up {
            let alerts =
                self.metrics.iter_mut().filter_map(|metric| metric.alert_state.as_deref_mut());
            alerts.for_each(|alert| alert.threshold.reset_pending());
        }
        self.state = state;
        self.since = now.wall;
    }

    /// Every incident of it that is open.
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
        if self.goodbye.as_deref().is_some_and(|goodbye| goodbye.reported) {
            incidents.push(Incident::NotBack { host: name() });
        }
        incidents
    }

    /// For how long the connection at `index`, which beats now, was silent beyond its interval; zero
    /// when that is nothing unusual. To be called before the beat is applied.
    pub fn excess_gap(&self, index: usize, common: &SharedSettings, now: Now) -> Duration {
        let connection = &self.connections[index];
        let interval = connection.expectation(&self.profile, common).interval;
        let gap = now.mono.since(connection.last_seen.mono);
        let usual = interval.saturating_mul(MAX_LATE_INTERVALS);
        if gap > usual { gap.saturating_sub(interval) } else { Duration::ZERO }
    }

    /// Whether it is time to check for missing metrics, at a beat of the connection at `index`. To be
    /// called before the beat is applied.
    pub fn check_due(&self, index: usize, now: Now) -> bool {
        self.connections[index].last_seen.mono.0.div_euclid(CHECK_INTERVAL)
            != now.mono.0.div_euclid(CHECK_INTERVAL)
    }

    /// The connection at `index` beats after a gap, which does not count as absence of its metrics.
    pub fn extend_metrics(&mut self, index: usize, gap: Duration) {
        if gap.is_zero() {
            return;
        }
        for metric in
            self.metrics.iter_mut().filter(|metric| metric.freshness.connection() == index)
        {
            metric.freshness.extend(gap);
        }
    }

    /// The connection at `index` brings metrics: those whose own connection is down are expected from
    /// it, too, from now on.
    pub fn adopt_metrics(&mut self, index: usize, now: Now) {
        let connections = &self.connections;
        for metric in &mut self.metrics {
            let own = connections.get(metric.freshness.connection());
            if own.is_none_or(|own| own.state != HostState::Up) {
                metric.freshness.move_to_connection(index, now);
            }
        }
    }

    /// Checks for metrics that the connection at `index`, which has just beaten, no longer brings:
    /// those that are not OK are reported once, and all are dropped in the end.
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
            if metric.is_missing(now.mono, interval) {
                missing.events.extend(metric.mark_missing(&self.name, now));
            }
        }
        let name = &self.name;
        let before = self.metrics.len();
        self.metrics.retain(|metric| {
            let gone =
                metric.freshness.connection() == index && metric.is_expired(now.mono, interval);
            missing.closed_incidents.extend(metric.open_incident(name).filter(|_| gone));
            !gone
        });
        missing.reindexed = self.metrics.len() < before;
        if missing.reindexed {
            self.metrics.shrink_to(2 * self.metrics.len());
            metric::clear_schedule(&mut self.metrics);
        }
        missing
    }

    /// Whether the connection that brought a metric beats on without it.
    pub fn is_missing(&self, metric: &Metric, common: &SharedSettings) -> bool {
        self.connections.get(metric.freshness.connection()).is_some_and(|connection| {
            let interval = connection.expectation(&self.profile, common).interval;
            metric.is_missing(connection.last_seen.mono, interval)
        })
    }

    /// How its time counts at present.
    pub fn uptime_status(&self) -> UptimeStatus {
        match self.state {
            HostState::New | HostState::Shutdown => UptimeStatus::NotExpected,
            HostState::Overdue => UptimeStatus::Down,
            HostState::Up => {
                let overdue = self.connections.iter().any(|c| c.state == HostState::Overdue);
                let alert = overdue || self.metrics.iter().any(|metric| metric.alert().is_some());
                if alert { UptimeStatus::Degraded } else { UptimeStatus::Up }
            }
        }
    }

    /// Counts its time under its present status from now on. Hosts that are not configured have no
    /// counter: there may be any number of them.
    pub fn update_uptime(&mut self, now: Mono, blind: &[BlindPeriod]) {
        if !self.profile.configured {
            self.uptime = None;
            return;
        }
        let status = self.uptime_status();
        match &mut self.uptime {
            Some(uptime) => uptime.set_status(status, now, blind),
            None => self.uptime = Some(Box::new(UptimeCounter::new(status, now))),
        }
    }

    /// Its availability and metrics since the last sample; none when it is not configured.
    pub fn take_sample(&mut self, now: Mono, blind: &[BlindPeriod]) -> Option<UptimeSample> {
        let sample = self.uptime.as_mut()?.take_sample(now, blind);
        let metrics = self.metrics.iter_mut().filter_map(|metric| metric.take_summary()).collect();
        Some(UptimeSample { host: self.name.clone(), metrics, ..sample })
    }

    /// What the next sample would be, its metrics left out.
    pub fn peek_sample(&self, now: Mono, blind: &[BlindPeriod]) -> Option<UptimeSample> {
        let sample = self.uptime.as_deref()?.clone().take_sample(now, blind);
        Some(UptimeSample { host: self.name.clone(), ..sample })
    }

    /// A deadline that was extended is not earlier than it would be under what a new configuration
    /// expects.
    pub fn stretch_extensions(
        &mut self,
        profile: &Profile,
        before: &SharedSettings,
        common: &SharedSettings,
    ) {
        for connection in self.connections.iter_mut().filter(|c| !c.is_internal()) {
            let expected = connection.expectation(profile, common);
            if expected != connection.expectation(&self.profile, before)
                && let Some(extension) = &mut connection.extension
            {
                extension.until = extension.until.max(extension.from + expected.timeout());
            }
        }
    }

    /// Applies a new profile; the incidents that are closed without an event.
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
        self.clear_connection_schedule();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::renotify::RenotifyBackoff;
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, SECOND, TestFleet, set};
    use crate::heartbeat::threshold::{Rule, ThresholdSet};

    fn high() -> Rule {
        let limit = |text: &str| Some(text.parse().unwrap());
        Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() }
    }

    fn test() -> TestFleet {
        let mut test = TestFleet::with_threshold("disk.*.percent", high());
        test.config.renotify.interval = None;
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
    fn a_job_that_failed_stays_red_until_it_succeeds_however_rarely_it_runs() {
        let failed = Rule { critical: "> 0".parse().ok(), ..Rule::default() };
        let mut test = TestFleet::with_threshold("job_monitor.*.exit_code", failed);
        test.config.renotify.interval = None;
        test.config.settings.interval = HOUR;
        test.fleet.reconfigure(test.config.clone(), test.now);
        let run = |test: &mut TestFleet, code: u8| {
            let metrics = format!(r#"{{"job_monitor":{{"backup":{{"exit_code":{code}}}}}}}"#);
            test.ingest(&format!(r#"{{"host":"web1","metrics":{metrics}}}"#));
        };
        // Tried often, by hand, and from then on run once a month at the most.
        for code in [1; 12] {
            run(&mut test, code);
            test.wait(MINUTE);
        }
        let title = "web1 - job_monitor.backup.exit_code";
        let told = format!("critical CRITICAL: {title} = 1.0 (threshold: > 0.0)");
        assert_eq!(test.titles_with_level(), [told]);
        for day in 0..45 {
            for _ in 0..24 {
                test.wait(HOUR).beat("web1");
            }
            if day % 5 == 0 {
                test.restart_after(MINUTE).beat("web1");
            }
            assert!(test.titles_with_level().is_empty() && stale(&test).is_empty(), "{day}");
        }
        run(&mut test, 0);
        assert_eq!(test.titles_with_level(), [format!("ok OK: {title} = 0.0 (threshold: > 0.0)")]);
    }

    #[test]
    fn reminders_become_rarer_where_that_is_wanted() {
        let mut test = TestFleet::with_threshold("m", high());
        test.config.renotify.backoff = RenotifyBackoff::Double;
        test.config.settings.interval = HOUR;
        test.fleet.reconfigure(test.config.clone(), test.now);
        let reminders = |test: &mut TestFleet, hours: u32| {
            for _ in 0..60 * hours {
                test.wait(MINUTE).sample(95.0);
            }
            test.take_events().len()
        };
        test.sample(95.0).take_events();
        assert_eq!(reminders(&mut test, 14), 3, "after 1, 3 and 7 hours");
        test.restart_after(SECOND);
        assert_eq!(reminders(&mut test, 2), 1, "after 15");
        assert_eq!(reminders(&mut test, 16 + 3 * 24), 4, "after 31, and then daily");
        test.sample(85.0).sample(95.0);
        assert_eq!(reminders(&mut test, 3), 2 + 2, "another level begins anew");
    }

    #[test]
    fn there_is_no_reminder_of_a_value_that_is_old() {
        let mut test = unmounted();
        test.config.renotify.interval = Some(HOUR);
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
    fn one_that_was_good_when_it_came_back_was_told_with_its_old_level() {
        for (then, told) in [
            (Some(5.0), "ok OK: web1 - disk.mnt.percent = 5.0 (threshold: > 80.0)"),
            (Some(95.0), CRITICAL),
            (None, MISSING),
        ] {
            let mut test = unmounted();
            let lasting = set("disk.*.percent", Rule { clear_for: 15 * MINUTE, ..high() });
            test.config.threshold_sets.insert("default".into(), lasting);
            test.fleet.reconfigure(test.config.clone(), test.now);
            beats(&mut test, 90, None);
            assert_eq!(test.titles_with_level(), [MISSING]);
            beats(&mut test, 30, Some(5.0));
            assert!(
                test.titles_with_level().is_empty(),
                "how it stands is not known yet: {then:?}"
            );
            assert!(stale(&test).is_empty());
            let open = test.fleet.open_problems(0, 1);
            assert!(open[0].text.starts_with("disk.mnt.percent = 5.0"), "{}", open[0].text);
            beats(&mut test, 90, then);
            let again = then.map(|_| told).into_iter().collect::<Vec<_>>();
            assert_eq!(test.titles_with_level(), again, "{then:?}");
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

    #[test]
    fn the_time_that_a_way_back_must_last_began_anew_at_a_restart() {
        let rule = Rule { clear_for: MINUTE, ..high() };
        let over = ["ok OK: web1 - m = 5.0 (threshold: > 80.0)"];
        let test = |away, old_row: bool| {
            let mut test = TestFleet::with_threshold("m", rule);
            test.sample(95.0).wait(10 * SECOND).take_events();
            for _ in 0..4 {
                test.sample(5.0).wait(10 * SECOND);
            }
            let (mut rows, alive) = (test.rows(), test.last_alive());
            if old_row {
                let alert = &mut rows[0].1.alerts[0];
                (alert.lower_since, alert.cleared_since) = (None, None);
            }
            test.now = test.now.later(away);
            test.start(rows, Some(alive));
            test
        };
        let mut short = test(20 * SECOND, false);
        short.sample(5.0).wait(10 * SECOND);
        assert!(short.titles_with_level().is_empty(), "being away does not count");
        short.sample(5.0).wait(10 * SECOND).sample(5.0);
        assert_eq!(short.titles_with_level(), over);
        for mut anew in [test(2 * MINUTE, false), test(20 * SECOND, true)] {
            for _ in 0..6 {
                anew.sample(5.0).wait(10 * SECOND);
            }
            assert!(anew.titles_with_level().is_empty(), "it begins anew");
            assert_eq!(anew.sample(5.0).titles_with_level(), over);
        }
        // On its way to WARNING, and then to OK, each for as long.
        let mut half = test(SECOND, false);
        half.sample(85.0).wait(20 * SECOND).sample(85.0);
        let warning = ["warning WARNING: web1 - m = 85.0 (threshold: > 80.0)"];
        assert_eq!(half.titles_with_level(), warning);
        half.sample(5.0).restart_after(SECOND);
        for _ in 0..5 {
            half.wait(10 * SECOND).sample(5.0);
        }
        assert!(half.titles_with_level().is_empty());
        assert_eq!(half.wait(10 * SECOND).sample(5.0).titles_with_level(), over);
    }
}
