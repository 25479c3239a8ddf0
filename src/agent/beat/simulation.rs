//! Simulates a host and a fleet over networks that lose and delay, by hand-moved time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::scheduler::{BeatScheduler, HostIdentity};
use super::session::{ClockReading, LinkChange};
use crate::agent::collect::Sample;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventId};
use crate::heartbeat::encode;
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::settings::{FleetConfig, HostSettings};
use crate::secret::Secret;

const BEGIN: Now = Now { mono: Mono(10_000_000), wall: Wall(1_795_291_928_000) };
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A network path: what it does to datagrams, both ways.
#[derive(Clone, Copy)]
struct Network {
    loss: f64,
    delay: Duration,
    jitter: Duration,
}

const GOOD: Network =
    Network { loss: 0.0, delay: Duration::from_millis(10), jitter: Duration::ZERO };
const CUT: Network = Network { loss: 1.0, ..GOOD };

/// When it arrives, in which order, over which path, whether at the server, and what.
type InFlight = (Mono, u64, usize, bool, Vec<u8>);

/// One host, one server, some connections.
struct Simulation {
    scheduler: BeatScheduler,
    fleet: Fleet,
    networks: Vec<Network>,
    now: Now,
    /// What the wall clock of the host is ahead of hbd's, in milliseconds.
    ahead: i64,
    start: Instant,
    /// How long the host had been up when the simulation, or its agent, began; and when that was.
    uptime: (Duration, Mono),
    /// On their way.
    in_flight: BinaryHeap<Reverse<InFlight>>,
    sent: u64,
    chance: u64,
    metrics: Vec<(String, f64)>,
    events: Vec<Event>,
    changes: Vec<(usize, LinkChange)>,
}

fn identity(interval: Duration) -> HostIdentity {
    let key = Some(encode::signing_key(&Secret::new("k")));
    HostIdentity { host: "web1".into(), boot_id: Some("b1".into()), key, interval }
}

impl Simulation {
    fn new(connections: &[&str], interval: Duration, uptime: Duration) -> Simulation {
        let mut rules = FleetConfig::default();
        rules.settings.key = Some(Secret::new("k"));
        let host = HostSettings { watch: true, ..HostSettings::default() };
        rules.hosts.insert("web1".into(), host);
        let fleet = Fleet::restore(rules, [], None, BEGIN, "kernel");
        let mut simulation = Simulation {
            scheduler: scheduler(connections, interval, Wall(0), BEGIN),
            fleet,
            networks: vec![GOOD; connections.len()],
            now: BEGIN,
            ahead: 0,
            start: Instant::now(),
            uptime: (uptime, BEGIN.mono),
            in_flight: BinaryHeap::new(),
            sent: 0,
            chance: 88_172_645_463_325_252,
            metrics: vec![("load_monitor.load1".into(), 0.5)],
            events: Vec::new(),
            changes: Vec::new(),
        };
        simulation.run(Duration::ZERO);
        simulation
    }

    /// The same everywhere: xorshift64 (Marsaglia 2003).
    fn chance(&mut self) -> f64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn clock(&self) -> ClockReading {
        let wall = Wall(self.now.wall.0 + self.ahead);
        let instant = self.start + self.now.mono.since(BEGIN.mono);
        ClockReading { now: Now { wall, ..self.now }, instant }
    }

    fn transmit(&mut self, path: usize, to_server: bool, bytes: Vec<u8>) {
        self.sent += u64::from(to_server);
        let network = self.networks[path];
        if self.chance() < network.loss {
            return;
        }
        let delay = network.delay + network.jitter.mul_f64(self.chance());
        let order = self.in_flight.len() as u64 + self.sent * 1000;
        self.in_flight.push(Reverse((self.now.mono + delay, order, path, to_server, bytes)));
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) -> &mut Simulation {
        let end = self.now.later(time);
        loop {
            let arrival = self.in_flight.peek().map(|Reverse((at, ..))| *at);
            let over = self.scheduler.is_finished(self.now);
            let speaks = (!over).then(|| self.scheduler.next_deadline());
            let next = [speaks, arrival, self.fleet.next_deadline()];
            let next = next.into_iter().flatten().min().unwrap().max(self.now.mono);
            if next > end.mono {
                break;
            }
            self.now = self.now.later(next.since(self.now.mono));
            self.step();
        }
        self.now = end;
        self
    }

    fn step(&mut self) {
        while self.in_flight.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.mono) {
            let Reverse((_, _, path, to_server, bytes)) = self.in_flight.pop().unwrap();
            if to_server {
                let heard = self.fleet.ingest(&bytes, HERE, self.now);
                if let Ok(heard) = heard {
                    self.events.extend(heard.events);
                    if let Some(ack) = heard.ack {
                        self.transmit(path, false, ack);
                    }
                }
            } else {
                let news = self.scheduler.ingest(path, &bytes, self.clock());
                self.changes.extend(news.ok().flatten().map(|news| (path, news)));
            }
        }
        self.events.extend(self.fleet.due(self.now).events);
        let clock = self.clock();
        if self.scheduler.start_round(clock.now) {
            let sample = Sample { metrics: self.metrics.clone(), texts: Vec::new() };
            let (uptime, since) = self.uptime;
            self.scheduler.send_round(
                &sample,
                Some(uptime + clock.now.mono.since(since)),
                clock.now,
            );
        }
        self.changes.extend(self.scheduler.detect_silence(clock.now));
        for (path, bytes) in self.scheduler.due(clock) {
            self.transmit(path, true, bytes);
        }
    }

    /// The agent is killed and starts again; it knows its last timestamp.
    fn restart(&mut self, connections: &[&str], interval: Duration, uptime: Duration) {
        let now = self.clock().now;
        self.uptime = (uptime, now.mono);
        self.scheduler = scheduler(connections, interval, self.scheduler.last_timestamp(), now);
    }

    fn told(&mut self) -> Vec<String> {
        let events = std::mem::take(&mut self.events);
        let told =
            |event: &Event| format!("{} {}", event.level.name(), event.message(EventId(1)).title);
        events.iter().map(told).collect()
    }

    fn metric(&self, path: &str) -> f64 {
        let view = self.fleet.view("web1").unwrap();
        view.metrics.iter().find(|metric| metric.path == path).unwrap().value
    }
}

fn scheduler(connections: &[&str], interval: Duration, last: Wall, now: Now) -> BeatScheduler {
    let links = connections.iter().map(|name| (0, (*name).to_owned()));
    let mut scheduler = BeatScheduler::new(identity(interval), links, last, now);
    (0..connections.len()).for_each(|path| scheduler.set_present(path, true));
    scheduler
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn nothing_is_invented_at_twenty_percent_loss_over_ten_hours() {
    let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
    simulation.networks =
        vec![Network { loss: 0.2, delay: Duration::from_millis(40), jitter: SECOND / 5 }; 2];
    simulation.run(10 * HOUR);
    assert_eq!(simulation.told(), [""; 0]);
    assert_eq!(simulation.changes, []);
    // OpenRequest or answer is lost.
    for path in ["connection_monitor.loss_percent", "connection_monitor.vpn.loss_percent"] {
        let loss = simulation.metric(path);
        assert!((20.0..55.0).contains(&loss), "{path} is {loss}, about 36 is right");
    }
    let rtt = simulation.metric("connection_monitor.ipv4.rtt_ms");
    assert!((100.0..450.0).contains(&rtt), "{rtt}, about 280 is right");
    // 3,600 beats over each of two connections, and as many again for 36 % that are repeated.
    assert!((9_000..14_000).contains(&simulation.sent), "{} datagrams", simulation.sent);
}

#[test]
fn without_loss_a_beat_is_one_datagram() {
    let mut simulation = Simulation::new(&["ipv4"], TEN, HOUR);
    simulation.run(HOUR);
    assert_eq!(simulation.sent, 361);
    assert_eq!(simulation.metric("connection_monitor.loss_percent"), 0.0);
    assert_eq!(simulation.metric("connection_monitor.rtt_ms"), 20.0);
    assert_eq!(simulation.metric("load_monitor.load1"), 0.5);
}

#[test]
fn the_measured_loss_is_the_loss_of_the_path() {
    // Over many windows: repetitions must not bias it.
    let mut simulation = Simulation::new(&["ipv4"], SECOND * 5, HOUR);
    simulation.networks = vec![Network { loss: 0.2, ..GOOD }];
    let mut sum = 0.0;
    for _ in 0..60 {
        simulation.run(10 * MINUTE);
        sum += simulation.metric("connection_monitor.loss_percent");
    }
    let mean = sum / 60.0;
    assert!((33.0..39.0).contains(&mean), "{mean}, 36 is right");
}

#[test]
fn one_path_cut_is_a_warning_both_are_critical_and_each_returns() {
    let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
    simulation.run(MINUTE);
    simulation.networks[1] = CUT;
    simulation.run(5 * MINUTE);
    assert_eq!(simulation.told(), ["warning web1 vpn overdue"]);
    assert!(
        matches!(simulation.changes[..], [(1, LinkChange::Silent(_))]),
        "{:?}",
        simulation.changes
    );
    assert!(simulation.metric("connection_monitor.vpn.loss_percent") > 80.0);
    assert_eq!(simulation.metric("connection_monitor.loss_percent"), 0.0);
    simulation.networks[0] = CUT;
    simulation.run(5 * MINUTE);
    assert_eq!(simulation.told(), ["critical web1 ipv4 overdue"]);
    simulation.networks = vec![GOOD; 2];
    simulation.run(MINUTE);
    let mut told = simulation.told();
    told.sort();
    assert_eq!(told, ["ok web1 ipv4 is back", "ok web1 vpn is back"]);
    assert_eq!(simulation.changes.len(), 4, "{:?}", simulation.changes);
}

#[test]
fn a_boot_is_told_once_and_a_restart_of_the_agent_is_none() {
    let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, MINUTE);
    simulation.run(MINUTE);
    assert_eq!(simulation.told(), ["info web1 booted"]);
    for uptime in [2 * MINUTE, HOUR] {
        simulation.restart(&["ipv4", "vpn"], TEN, uptime);
        simulation.run(MINUTE);
        assert_eq!(simulation.told(), [""; 0]);
    }
}

#[test]
fn an_agent_on_a_machine_that_runs_for_long_tells_no_boot() {
    let mut simulation = Simulation::new(&["ipv4"], TEN, 100 * HOUR);
    simulation.run(MINUTE);
    assert_eq!(simulation.told(), [""; 0]);
}

#[test]
fn a_boot_is_repeated_until_it_is_answered() {
    let mut simulation = Simulation::new(&["ipv4"], TEN, MINUTE);
    simulation.in_flight.clear();
    simulation.networks[0] = CUT;
    simulation.run(5 * MINUTE);
    assert_eq!(simulation.told(), [""; 0]);
    simulation.networks[0] = GOOD;
    simulation.run(MINUTE);
    assert_eq!(simulation.told(), ["info web1 booted"]);
}

#[test]
fn goodbye_is_said_over_all_connections_and_survives_loss() {
    let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
    simulation.run(MINUTE);
    simulation.networks = vec![Network { loss: 0.2, ..GOOD }; 2];
    let now = simulation.clock().now;
    simulation.scheduler.shut_down(None, Some(HOUR), now);
    simulation.run(3 * SECOND);
    assert!(simulation.scheduler.is_finished(simulation.now));
    let mut told = simulation.told();
    told.sort();
    assert_eq!(told, ["warning web1 ipv4 shutdown", "warning web1 vpn shutdown"]);
}

#[test]
fn goodbye_does_not_wait_for_a_path_that_is_cut() {
    let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
    simulation.networks[1] = CUT;
    simulation.run(5 * MINUTE);
    simulation.told();
    let now = simulation.clock().now;
    simulation.scheduler.shut_down(None, Some(HOUR), now);
    simulation.run(SECOND);
    assert!(simulation.scheduler.is_finished(simulation.now));
    assert_eq!(simulation.told(), ["warning web1 ipv4 shutdown"]);
}

#[test]
fn a_clock_that_is_set_is_no_alarm() {
    for ahead in [-2_000, -200_000, -86_400_000, 2_000, 200_000, 86_400_000] {
        let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
        simulation.run(MINUTE);
        for ahead in [ahead, 0, -ahead, 0] {
            simulation.ahead = ahead;
            simulation.run(15 * MINUTE);
        }
        assert_eq!(simulation.told(), [""; 0], "{ahead} ms");
        assert_eq!(simulation.changes, [], "{ahead} ms");
    }
}

#[test]
fn an_agent_that_starts_anew_after_its_clock_was_set_is_no_alarm() {
    // An agent that starts with a clock that is a day ahead knows no better one.
    for ahead in [-2_000, -120_000, -280_000, -86_400_000, 120_000] {
        let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
        simulation.run(15 * MINUTE);
        for ahead in [ahead, 0] {
            simulation.ahead = ahead;
            simulation.run(SECOND);
            simulation.restart(&["ipv4", "vpn"], TEN, 2 * HOUR);
            simulation.run(10 * MINUTE);
        }
        assert_eq!(simulation.told(), [""; 0], "{ahead} ms");
    }
}

#[test]
fn after_a_long_sleep_one_beat_comes_at_once() {
    let mut simulation = Simulation::new(&["ipv4"], TEN, HOUR);
    simulation.run(MINUTE);
    let (stop, sent) = (simulation.now.mono, simulation.sent);
    simulation.now = simulation.now.later(8 * HOUR);
    simulation.fleet.record_blindness(stop, simulation.now.mono);
    simulation.run(SECOND);
    assert_eq!(simulation.sent, sent + 1);
    simulation.run(10 * MINUTE);
    assert_eq!(simulation.told(), [""; 0]);
    assert_eq!(simulation.changes, []);
}

#[test]
fn metrics_go_over_one_connection_and_change_over_when_it_fails() {
    let mut simulation = Simulation::new(&["ipv4", "vpn"], TEN, HOUR);
    simulation.metrics =
        (0..100).map(|n| (format!("disk_monitor.d{n:02}.percent"), f64::from(n))).collect();
    simulation.run(10 * MINUTE);
    let before = simulation.sent;
    simulation.run(10 * MINUTE);
    // Three datagrams over one connection and one over the other.
    let each = (simulation.sent - before) as f64 / 60.0;
    assert!((4.0..6.1).contains(&each), "{each} a round");
    simulation.networks[0] = CUT;
    simulation.metrics = vec![("disk_monitor.d00.percent".into(), 77.0)];
    simulation.run(30 * SECOND);
    assert_eq!(simulation.metric("disk_monitor.d00.percent"), 77.0);
}

#[test]
fn nothing_grows_while_nobody_answers() {
    let mut simulation = Simulation::new(&["ipv4"], SECOND / 20, HOUR);
    simulation.networks[0] = CUT;
    simulation.run(10 * MINUTE);
    let size = format!("{:?}", simulation.scheduler).len();
    simulation.run(10 * MINUTE);
    assert!(format!("{:?}", simulation.scheduler).len() < size * 2);
    assert!(simulation.scheduler.session(0).stats().loss_percent() == Some(100.0));
}
