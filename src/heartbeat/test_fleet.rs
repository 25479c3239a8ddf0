//! A fleet whose time is moved by hand, for tests.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventId};
use crate::heartbeat::datagram::Rejection;
use crate::heartbeat::fleet::{Fleet, Ingested};
use crate::heartbeat::persistence::{HostRow, LastAlive};
use crate::heartbeat::settings::FleetConfig;
use crate::heartbeat::settings::{HostSettings, UnknownHosts};
use crate::heartbeat::threshold::{Rule, ThresholdSet};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// 2026-11-21T20:12:08Z, ten thousand seconds after the kernel booted.
pub const BEGIN: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_291_928_000) };

pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub struct TestFleet {
    pub fleet: Fleet,
    pub config: FleetConfig,
    pub now: Now,
    /// The kernel that is running.
    pub kernel: String,
    events: Vec<Event>,
    /// What a crash leaves: the rows that had to be stored at once, or at the start.
    disk: HashMap<String, HostRow>,
    disk_alive: Option<LastAlive>,
}

/// One watched host, `web1`, that beats every ten seconds.
pub fn config() -> FleetConfig {
    let watched = HostSettings { watch: true, ..HostSettings::default() };
    let mut config = FleetConfig::default();
    config.renotify.interval = Some(HOUR);
    config.settings.unknown_hosts = UnknownHosts::Ignore;
    config.default_channels = vec!["log".into()];
    config.hosts.insert("web1".into(), watched);
    config
}

/// A threshold set of one rule.
pub fn set(pattern: &str, rule: Rule) -> ThresholdSet {
    ThresholdSet { rules: [(pattern.to_owned(), rule)].into() }
}

impl TestFleet {
    pub fn new() -> TestFleet {
        TestFleet::with(config())
    }

    pub fn with(config: FleetConfig) -> TestFleet {
        let now = BEGIN;
        let kernel = "kernel-1".to_owned();
        let fleet = Fleet::restore(config.clone(), [], None, now, &kernel);
        let disk = HashMap::new();
        TestFleet { fleet, config, now, kernel, events: Vec::new(), disk, disk_alive: None }
    }

    pub fn with_interval(interval: Duration) -> TestFleet {
        let mut config = config();
        config.settings.interval = interval;
        TestFleet::with(config)
    }

    pub fn with_threshold(pattern: &str, rule: Rule) -> TestFleet {
        let mut config = config();
        config.threshold_sets.insert("default".into(), set(pattern, rule));
        TestFleet::with(config)
    }

    /// Ingests a datagram from 127.0.0.1, which must be accepted.
    pub fn ingest(&mut self, json: &str) -> &mut TestFleet {
        self.try_ingest(json.as_bytes()).unwrap_or_else(|why| panic!("{json}: {why}"));
        self
    }

    pub fn try_ingest(&mut self, bytes: &[u8]) -> Result<Ingested, Rejection> {
        let ingested = self.fleet.ingest(bytes, HERE, self.now)?;
        self.events.extend(ingested.events.iter().cloned());
        self.disk.extend(ingested.rows.iter().cloned());
        Ok(ingested)
    }

    /// Adds events that were caused in another way.
    pub fn add_events(&mut self, events: Vec<Event>) {
        self.events.extend(events);
    }

    pub fn beat(&mut self, host: &str) -> &mut TestFleet {
        self.ingest(&format!(r#"{{"host":"{host}"}}"#))
    }

    pub fn beat_over(&mut self, host: &str, connection: &str) -> &mut TestFleet {
        self.ingest(&format!(r#"{{"host":"{host}","connection":"{connection}"}}"#))
    }

    /// A beat of web1 with the metric `m`.
    pub fn sample(&mut self, value: f64) -> &mut TestFleet {
        self.ingest(&format!(r#"{{"host":"web1","metrics":{{"m":{value}}}}}"#))
    }

    /// Lets time pass; each deadline is processed when it comes.
    pub fn wait(&mut self, time: Duration) -> &mut TestFleet {
        let end = self.now.later(time);
        while let Some(next) = self.fleet.next_deadline().filter(|next| *next <= end.mono) {
            let by = next.since(self.now.mono);
            self.now = self.now.later(by);
            self.process_due();
        }
        self.now = end;
        self
    }

    /// Processes the deadlines that have passed.
    pub fn process_due(&mut self) -> &mut TestFleet {
        let changes = self.fleet.due(self.now);
        self.events.extend(changes.events);
        self.disk.extend(changes.rows);
        self
    }

    /// Stores rows that were caused in another way.
    pub fn store(&mut self, rows: Vec<(String, HostRow)>) {
        self.disk.extend(rows);
    }

    /// The daemon is killed before it flushes anything, and starts again after `time`.
    pub fn kill_and_start_after(&mut self, time: Duration) -> &mut TestFleet {
        self.now = self.now.later(time);
        let rows = serde_json::to_vec(&self.disk).unwrap();
        let rows: HashMap<String, HostRow> = serde_json::from_slice(&rows).unwrap();
        let (rows, alive) = (rows.into_iter().collect(), self.disk_alive.clone());
        self.restore(rows, alive).record_start().process_due()
    }

    /// What the daemon stores at its start.
    pub fn record_start(&mut self) -> &mut TestFleet {
        self.disk.extend(self.fleet.flush());
        self.disk_alive = Some(self.last_alive());
        self
    }

    /// The state was moved aside: nothing is left of it.
    pub fn lose_state(&mut self) -> &mut TestFleet {
        self.disk.clear();
        self.disk_alive = None;
        self
    }

    /// The machine sleeps; the daemon notices when it wakes.
    pub fn sleep(&mut self, time: Duration) -> &mut TestFleet {
        let stop = self.now.mono;
        self.now = self.now.later(time);
        self.fleet.record_blindness(stop, self.now.mono);
        self.process_due()
    }

    pub fn last_alive(&self) -> LastAlive {
        LastAlive { kernel_boot: self.kernel.clone(), now: self.now, offset: None }
    }

    /// All rows, through the form in which they are stored.
    pub fn rows(&self) -> Vec<(String, HostRow)> {
        let stored = serde_json::to_vec(&self.fleet.all_rows()).unwrap();
        serde_json::from_slice(&stored).unwrap()
    }

    /// The daemon stops and starts again after `time`.
    pub fn restart_after(&mut self, time: Duration) -> &mut TestFleet {
        let (rows, last_alive) = (self.rows(), self.last_alive());
        self.now = self.now.later(time);
        self.start(rows, Some(last_alive))
    }

    /// The whole machine boots within `time`: its monotonic clock begins anew.
    pub fn reboot_after(&mut self, time: Duration) -> &mut TestFleet {
        let (rows, last_alive) = (self.rows(), self.last_alive());
        self.now = Now { mono: Mono(20_000), wall: self.now.wall + time };
        self.kernel.push('x');
        self.start(rows, Some(last_alive))
    }

    pub fn start(
        &mut self,
        rows: Vec<(String, HostRow)>,
        last_alive: Option<LastAlive>,
    ) -> &mut TestFleet {
        self.restore(rows, last_alive).process_due()
    }

    fn restore(
        &mut self,
        rows: Vec<(String, HostRow)>,
        last_alive: Option<LastAlive>,
    ) -> &mut TestFleet {
        // It is stored together with the events about it.
        let storm = self.fleet.storm_row();
        self.fleet = Fleet::restore(self.config.clone(), rows, last_alive, self.now, &self.kernel);
        self.fleet.restore_storm(storm, self.now);
        self
    }

    /// The events since they were last taken.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The titles of the events since they were last taken.
    pub fn titles(&mut self) -> Vec<String> {
        self.take_events().iter().map(|event| event.message(EventId(1)).title).collect()
    }

    /// The same with their levels in front: `critical web1 ipv4 overdue`.
    pub fn titles_with_level(&mut self) -> Vec<String> {
        let told =
            |event: &Event| format!("{} {}", event.level.name(), event.message(EventId(1)).title);
        self.take_events().iter().map(told).collect()
    }
}
