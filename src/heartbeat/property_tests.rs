//! Property tests: whatever happens, no alarm is lost and none is invented.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident};
use crate::heartbeat::encode;
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::host::untold::MAX_DOUBT;
use crate::heartbeat::persistence::{HostRow, LastAlive};
use crate::heartbeat::settings::FleetConfig;
use crate::heartbeat::test_fleet::{BEGIN, HERE, SECOND, TestFleet, config};
use crate::heartbeat::threshold::{Rule, ThresholdSet};
use crate::secret::Secret;
use crate::view::HostState;

#[derive(Clone, Debug)]
enum Operation {
    Beat {
        host: u8,
        connection: u8,
        metric: Option<u8>,
    },
    Boot {
        connection: u8,
        id: Option<u8>,
    },
    Goodbye {
        connection: u8,
    },
    Wait(u32),
    Flush,
    /// The daemon is killed, or stops in peace (then it flushes), and is away for a while.
    Restart {
        peaceful: bool,
        away: u32,
    },
    /// The machine boots; its wall clock is off by so much afterwards.
    Reboot {
        peaceful: bool,
        away: u32,
        off: i32,
    },
    Sleep(u32),
    MoveClock(i32),
    Reload {
        watch: bool,
        depends: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let away = 1..200_000u32;
    let off = prop_oneof![Just(0), -300_000..300_000i32];
    prop_oneof![
        6 => (0..2u8, 0..3u8, proptest::option::of(0..100u8))
            .prop_map(|(host, connection, metric)| Operation::Beat { host, connection, metric }),
        2 => (0..3u8, proptest::option::of(0..3u8))
            .prop_map(|(connection, id)| Operation::Boot { connection, id }),
        2 => (0..3u8).prop_map(|connection| Operation::Goodbye { connection }),
        6 => (1..60_000u32).prop_map(Operation::Wait),
        2 => Just(Operation::Flush),
        1 => (any::<bool>(), away.clone())
            .prop_map(|(peaceful, away)| Operation::Restart { peaceful, away }),
        1 => (any::<bool>(), away.clone(), off.clone())
            .prop_map(|(peaceful, away, off)| Operation::Reboot { peaceful, away, off }),
        1 => away.prop_map(Operation::Sleep),
        1 => off.prop_map(Operation::MoveClock),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(watch, depends)| Operation::Reload { watch, depends }),
    ]
}

/// A daemon with its store, and the incidents that were reported as open.
struct Simulation {
    config: FleetConfig,
    fleet: Fleet,
    now: Now,
    kernel: String,
    store: BTreeMap<String, String>,
    last_alive: Option<LastAlive>,
    open: BTreeSet<Incident>,
    overdue: usize,
    missing: usize,
}

fn simulated_config() -> FleetConfig {
    let rule =
        Rule { warning: "> 80".parse().ok(), critical: "> 90".parse().ok(), ..Rule::default() };
    let mut config = config();
    config.hosts.insert("web0".into(), config.hosts["web1"].clone());
    config.depends_on.insert("web1".into(), vec![vec!["web0".into()]]);
    config
        .threshold_sets
        .insert("default".into(), ThresholdSet { rules: [("m".to_owned(), rule)].into() });
    config
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

impl Simulation {
    fn new() -> Simulation {
        let fleet = Fleet::restore(simulated_config(), [], None, BEGIN, "k");
        let (store, open) = (BTreeMap::new(), BTreeSet::new());
        let kernel = "k".to_owned();
        let config = simulated_config();
        Simulation {
            config,
            fleet,
            now: BEGIN,
            kernel,
            store,
            last_alive: None,
            open,
            overdue: 0,
            missing: 0,
        }
    }

    fn save(&mut self, rows: Vec<(String, HostRow)>) {
        for (name, row) in rows {
            self.store.insert(name, serde_json::to_string(&row).unwrap());
        }
    }

    /// Problem and recovery alternate; a connection may be overdue first and then be shut down.
    fn record(&mut self, events: Vec<Event>, ended: Vec<Incident>) {
        for event in events {
            if let EventKind::Watch(_) = event.kind {
                // For whoever was told it is over; the fleet still knows what is down.
                continue;
            }
            let change = event.incident();
            if let Some(incident) = change.opens().cloned() {
                let again = matches!(
                    event.kind,
                    EventKind::Shutdown { .. }
                        | EventKind::Threshold { .. }
                        | EventKind::Missing { .. }
                );
                assert!(self.open.insert(incident) || again, "told twice: {event:?}");
            }
            for incident in change.closes() {
                assert!(self.open.remove(incident), "over before it began: {event:?}");
            }
            self.overdue += usize::from(matches!(event.kind, EventKind::Overdue { .. }));
            self.missing += usize::from(matches!(event.kind, EventKind::Missing { .. }));
        }
        for incident in ended {
            assert!(self.open.remove(&incident), "ended before it began: {incident:?}");
        }
    }

    fn ingest(&mut self, json: &str) {
        let ingested = self.fleet.ingest(json.as_bytes(), HERE, self.now).unwrap();
        self.save(ingested.rows);
        self.record(ingested.events, ingested.closed_incidents);
    }

    fn process_due(&mut self) {
        let changes = self.fleet.due(self.now);
        assert!(self.fleet.next_deadline().is_none_or(|next| next > self.now.mono));
        self.save(changes.rows);
        self.record(changes.events, changes.closed_incidents);
        self.check_doubt();
    }

    /// Nothing waits when its parent was heard since, and nothing for longer than two minutes, in which
    /// the daemon listens.
    fn check_doubt(&self) {
        let [web0, web1] = [0, 1].map(|index| &self.fleet.hosts[index]);
        let up = web0.connections.iter().filter(|connection| connection.state == HostState::Up);
        let heard = up.map(|connection| connection.last_seen.mono).max();
        for untold in web1.connections.iter().filter_map(|one| web1.untold(&one.name)) {
            assert!(untold.until() > self.now.mono, "{untold:?}");
            assert!(untold.is_shifted || untold.until().since(untold.from) <= MAX_DOUBT);
            assert!(heard.is_none_or(|heard| heard < untold.promised), "{heard:?} {untold:?}");
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.later(time);
        while let Some(next) = self.fleet.next_deadline().filter(|next| *next <= end.mono) {
            self.now = self.now.later(next.since(self.now.mono));
            self.process_due();
        }
        self.now = end;
    }

    fn flush(&mut self) {
        let rows = self.fleet.flush();
        self.save(rows);
        self.last_alive =
            Some(LastAlive { kernel_boot: self.kernel.clone(), now: self.now, offset: None });
    }

    fn start(&mut self) {
        let row =
            |(name, text): (&String, &String)| (name.clone(), serde_json::from_str(text).unwrap());
        let rows: Vec<(String, HostRow)> = self.store.iter().map(row).collect();
        let (last_alive, kernel) = (self.last_alive.clone(), self.kernel.clone());
        self.fleet = Fleet::restore(self.config.clone(), rows, last_alive, self.now, &kernel);
        self.flush();
        self.process_due();
    }

    fn apply(&mut self, step: &Operation) {
        match *step {
            Operation::Beat { host, connection, metric } => {
                let metrics = metric.map(|m| format!(r#","metrics":{{"m":{m}}}"#));
                let metrics = metrics.unwrap_or_default();
                self.ingest(&format!(
                    r#"{{"host":"web{host}","connection":"c{connection}"{metrics}}}"#
                ));
            }
            Operation::Boot { connection, id } => {
                let id = id.map(|id| format!(r#","boot_id":"b{id}""#)).unwrap_or_default();
                self.ingest(&format!(
                    r#"{{"host":"web1","event":"boot","connection":"c{connection}"{id}}}"#
                ));
            }
            Operation::Goodbye { connection } => self.ingest(&format!(
                r#"{{"host":"web1","event":"shutdown","connection":"c{connection}"}}"#
            )),
            Operation::Wait(time) => self.wait(millis(time)),
            Operation::Flush => self.flush(),
            Operation::Restart { peaceful, away } => {
                if peaceful {
                    self.flush();
                }
                self.now = self.now.later(millis(away));
                self.start();
            }
            Operation::Reboot { peaceful, away, off } => {
                if peaceful {
                    self.flush();
                }
                let wall = Wall(self.now.wall.0 + i64::from(away) + i64::from(off));
                self.now = Now { mono: Mono(9_000), wall };
                self.kernel.push('x');
                self.start();
            }
            Operation::Sleep(time) => {
                let stop = self.now.mono;
                self.now = self.now.later(millis(time));
                self.fleet.record_blindness(stop, self.now.mono);
                self.process_due();
            }
            Operation::MoveClock(by) => self.now.wall = Wall(self.now.wall.0 + i64::from(by)),
            Operation::Reload { watch, depends } => {
                let parents = depends.then(|| ("web1".to_owned(), vec![vec!["web0".to_owned()]]));
                self.config.depends_on = parents.into_iter().collect();
                self.config.hosts.get_mut("web1").unwrap().watch = watch;
                let changes = self.fleet.reconfigure(self.config.clone(), self.now);
                self.save(changes.rows);
                self.record(changes.events, changes.closed_incidents);
            }
        }
    }
}

/// A number as good as any other (the finalizer of splitmix64).
fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

proptest! {
    #[test]
    fn problem_and_recovery_alternate_and_no_silence_is_lost(
        steps in proptest::collection::vec(operation(), 0..60)
    ) {
        let mut simulation = Simulation::new();
        for step in &steps {
            simulation.apply(step);
        }
        simulation.wait(200 * SECOND);
        for host in simulation.fleet.views(0, 9) {
            for connection in host.connections {
                let incident =
                    Incident::Connection { host: host.name.clone(), connection: connection.name };
                let told = simulation.open.contains(&incident);
                prop_assert_eq!(told, connection.state != HostState::New, "{:?}", incident);
            }
        }
        for connection in ["c0", "c1", "c2"] {
            for host in ["web0", "web1"] {
                simulation.ingest(&format!(r#"{{"host":"{host}","connection":"{connection}"}}"#));
            }
        }
        simulation.open.retain(|incident| matches!(incident, Incident::Connection { .. }));
        prop_assert!(simulation.open.is_empty(), "{:?}", simulation.open);
    }

    /// It beats every ten seconds, give or take; what is sent while the daemon is away is lost. As
    /// long as the daemon listens for one interval between two absences, all is well.
    #[test]
    fn a_host_that_beats_is_never_overdue(
        absences in proptest::collection::vec(
            (10_500..90_000u32, 1..500_000u32, 0..3u8, any::<bool>()), 1..20),
        jitter in 0..500u32,
    ) {
        let mut simulation = Simulation::new();
        let mut sent = 0u32;
        let mut clock = 0u32;
        for (listening, away, kind, peaceful) in absences {
            let end = clock + listening;
            while sent <= end {
                simulation.wait(millis(sent - clock));
                clock = sent;
                simulation.ingest(r#"{"host":"web1","connection":"c0"}"#);
                if sent % 60_000 < 10_000 {
                    simulation.flush();
                }
                sent += 10_000 + (sent * 7) % (jitter + 1);
            }
            simulation.wait(millis(end - clock));
            simulation.apply(&match kind {
                0 => Operation::Restart { peaceful, away },
                1 => Operation::Reboot { peaceful, away, off: 0 },
                _ => Operation::Sleep(away),
            });
            clock = end + away;
            while sent < clock {
                sent += 10_000 + (sent * 7) % (jitter + 1);
            }
        }
        prop_assert_eq!(simulation.overdue, 0);
    }

    /// Its metrics travel in two datagrams, with each beat, of which some are lost. Whatever else
    /// happens, none of them is missing before it is no longer sent, and then it is, once.
    #[test]
    fn only_a_metric_that_is_no_longer_sent_is_missing(
        steps in proptest::collection::vec(
            (20..200u32, 1..4_000_000u32, 0..4u8, any::<bool>(), any::<u64>()), 1..12),
    ) {
        let mut simulation = Simulation::new();
        let beat = |simulation: &mut Simulation, part: &str| simulation.ingest(&format!(
            r#"{{"host":"web1","connection":"c0","metrics":{{"{part}":95}}}}"#));
        for _ in 0..12 {
            beat(&mut simulation, "m");
            simulation.wait(10 * SECOND);
        }
        for (beats, away, kind, peaceful, losses) in steps {
            for turn in 0..beats {
                // A tenth is lost.
                let lost = |salt: u64| mixed(losses ^ salt ^ u64::from(turn) << 8).is_multiple_of(10);
                for (part, salt) in [("cpu", 1), ("m", 2)] {
                    if !lost(salt) {
                        beat(&mut simulation, part);
                    }
                }
                if turn % 6 == 0 {
                    simulation.flush();
                }
                simulation.wait(10 * SECOND);
            }
            simulation.apply(&match kind {
                0 => Operation::Restart { peaceful, away },
                1 => Operation::Reboot { peaceful, away, off: 0 },
                2 => Operation::Wait(away),
                _ => Operation::Sleep(away),
            });
        }
        prop_assert_eq!(simulation.missing, 0);
        for turn in 0..250 {
            beat(&mut simulation, "cpu");
            simulation.wait(10 * SECOND);
            if turn == 220 {
                simulation.flush();
                simulation.apply(&Operation::Restart { peaceful: true, away: 1000 });
            }
        }
        prop_assert_eq!(simulation.missing, 1);
    }

    /// Hosts, signed or not, beat every ten seconds while our wall clock is set, again and again, while
    /// the daemon runs and while it is away, and drifts in between. Whoever recorded all of it sends it
    /// again, at any time: nobody is overdue who beats, and everybody is who does not.
    #[test]
    fn whatever_our_wall_clock_shows_who_beats_is_heard_and_an_echo_is_not(
        signed in proptest::collection::vec(any::<bool>(), 1..4),
        steps in proptest::collection::vec(
            (1..60u32, prop_oneof![Just(0), -90_000_000..90_000_000i64], -400..400i64, any::<bool>()),
            1..8),
        salt in any::<u64>(),
    ) {
        let mut config = config();
        let key = Secret::new("k");
        for (number, signed) in signed.iter().enumerate() {
            let mut host = config.hosts["web1"].clone();
            host.key = signed.then(|| key.clone());
            config.hosts.insert(format!("host{number}"), host);
        }
        config.hosts.remove("web1");
        let mut test = TestFleet::with(config);
        let mut elapsed = 0u32;
        let mut recorded: Vec<Vec<u8>> = Vec::new();
        let echo = |test: &mut TestFleet, recorded: &[Vec<u8>], turn: u64| {
            let chosen = recorded.len().checked_sub(1).map(|last| mixed(salt ^ turn) as usize % (last + 1));
            chosen.is_none_or(|chosen| test.try_ingest(&recorded[chosen]).is_err())
        };
        for (beats, set, drift, away) in steps {
            for turn in 0..beats {
                for (number, signed) in signed.iter().enumerate() {
                    let time = BEGIN.wall.0 as f64 / 1000.0 + f64::from(elapsed);
                    let json = format!(r#"{{"host":"host{number}","time":{time}}}"#);
                    let bytes = match signed {
                        true => encode::sign(&encode::signing_key(&key), json.as_bytes()),
                        false => json.into_bytes(),
                    };
                    prop_assert!(test.try_ingest(&bytes).is_ok(), "host{}", number);
                    if *signed {
                        recorded.push(bytes);
                    }
                }
                prop_assert!(echo(&mut test, &recorded, u64::from(elapsed)));
                test.now.wall.0 += drift;
                let pause = if away && turn + 1 == beats { 5 } else { 10 };
                elapsed += pause;
                match pause {
                    10 => drop(test.wait(10 * SECOND)),
                    _ => {
                        let (rows, last_alive) = (test.rows(), test.last_alive());
                        test.now = test.now.later(5 * SECOND);
                        test.now.wall.0 += set;
                        test.start(rows, Some(last_alive));
                    }
                }
            }
            test.now.wall.0 += if away { 0 } else { set };
        }
        prop_assert_eq!(test.titles(), Vec::<String>::new());
        for turn in 0..12 {
            prop_assert!(echo(&mut test, &recorded, turn));
            test.wait(10 * SECOND);
        }
        prop_assert_eq!(test.titles().len(), signed.len());
    }

    #[test]
    fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut fleet = Fleet::new(config(), BEGIN);
        prop_assert!(fleet.ingest(&bytes, HERE, BEGIN).is_err());
    }

    #[test]
    fn json_like_junk_never_panics(
        pieces in proptest::collection::vec(proptest::sample::select(&[
            "{", "}", "[", "]", ":", ",", "\"host\"", "\"web1\"", "\"metrics\"", "\"event\"",
            "\"boot\"", "1e999", "-0", "null", "true", "\"\\ud800\"", " ", "\"interval\"", "0.1",
        ][..]), 0..40)
    ) {
        let mut fleet = Fleet::new(config(), BEGIN);
        let _ = fleet.ingest(pieces.concat().as_bytes(), HERE, BEGIN);
        let _ = fleet.ingest(format!("{{\"host\":\"web1\",{}}}", pieces.concat()).as_bytes(), HERE, BEGIN);
    }
}
