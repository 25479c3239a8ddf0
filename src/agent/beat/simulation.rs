//! A host and a fleet over networks that lose and delay, by hand-moved time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::line::{News, Tick};
use super::speaker::{Speaker, Voice};
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
struct Net {
    loss: f64,
    delay: Duration,
    jitter: Duration,
}

const GOOD: Net = Net { loss: 0.0, delay: Duration::from_millis(10), jitter: Duration::ZERO };
const CUT: Net = Net { loss: 1.0, ..GOOD };

/// When it arrives, in which order, over which path, whether at the server, and what.
type Flight = (Mono, u64, usize, bool, Vec<u8>);

/// One host, one server, some connections.
struct Play {
    speaker: Speaker,
    fleet: Fleet,
    nets: Vec<Net>,
    now: Now,
    /// What the wall clock of the host is ahead of hbd's, in milliseconds.
    ahead: i64,
    start: Instant,
    /// How long the host had been up when the play, or its agent, began; and when that was.
    uptime: (Duration, Mono),
    /// On their way.
    flying: BinaryHeap<Reverse<Flight>>,
    sent: u64,
    chance: u64,
    metrics: Vec<(String, f64)>,
    events: Vec<Event>,
    news: Vec<(usize, News)>,
}

fn voice(interval: Duration) -> Voice {
    let key = Some(encode::signing_key(&Secret::new("k")));
    Voice { host: "web1".into(), boot_id: Some("b1".into()), key, interval }
}

impl Play {
    fn new(connections: &[&str], interval: Duration, uptime: Duration) -> Play {
        let mut rules = FleetConfig::default();
        rules.settings.key = Some(Secret::new("k"));
        let host = HostSettings { watch: true, ..HostSettings::default() };
        rules.hosts.insert("web1".into(), host);
        let fleet = Fleet::restore(rules, [], None, BEGIN, "kernel");
        let mut play = Play {
            speaker: speaker(connections, interval, Wall(0), BEGIN),
            fleet,
            nets: vec![GOOD; connections.len()],
            now: BEGIN,
            ahead: 0,
            start: Instant::now(),
            uptime: (uptime, BEGIN.mono),
            flying: BinaryHeap::new(),
            sent: 0,
            chance: 88_172_645_463_325_252,
            metrics: vec![("load_monitor.load1".into(), 0.5)],
            events: Vec::new(),
            news: Vec::new(),
        };
        play.run(Duration::ZERO);
        play
    }

    /// The same everywhere: xorshift64 (Marsaglia 2003).
    fn chance(&mut self) -> f64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn tick(&self) -> Tick {
        let wall = Wall(self.now.wall.0 + self.ahead);
        let at = self.start + self.now.mono.since(BEGIN.mono);
        Tick { now: Now { wall, ..self.now }, at }
    }

    fn fly(&mut self, path: usize, to_server: bool, bytes: Vec<u8>) {
        self.sent += u64::from(to_server);
        let net = self.nets[path];
        if self.chance() < net.loss {
            return;
        }
        let delay = net.delay + net.jitter.mul_f64(self.chance());
        let order = self.flying.len() as u64 + self.sent * 1000;
        self.flying.push(Reverse((self.now.mono + delay, order, path, to_server, bytes)));
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) -> &mut Play {
        let end = self.now.later(time);
        loop {
            let flight = self.flying.peek().map(|Reverse((at, ..))| *at);
            let over = self.speaker.is_over(self.now);
            let speaks = (!over).then(|| self.speaker.next());
            let next = [speaks, flight, self.fleet.next_deadline()];
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
        while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.mono) {
            let Reverse((_, _, path, to_server, bytes)) = self.flying.pop().unwrap();
            if to_server {
                let heard = self.fleet.ingest(&bytes, HERE, self.now);
                if let Ok(heard) = heard {
                    self.events.extend(heard.events);
                    if let Some(ack) = heard.ack {
                        self.fly(path, false, ack);
                    }
                }
            } else {
                let news = self.speaker.hear(path, &bytes, self.tick());
                self.news.extend(news.ok().flatten().map(|news| (path, news)));
            }
        }
        self.events.extend(self.fleet.due(self.now).events);
        let tick = self.tick();
        if self.speaker.begins(tick.now) {
            let metrics = self.metrics.clone();
            let (uptime, since) = self.uptime;
            self.speaker.speak(&metrics, Some(uptime + tick.now.mono.since(since)), tick.now);
        }
        self.news.extend(self.speaker.news(tick.now));
        for (path, bytes) in self.speaker.due(tick) {
            self.fly(path, true, bytes);
        }
    }

    /// The agent is killed and starts again; it knows which time it told last.
    fn restart(&mut self, connections: &[&str], interval: Duration, uptime: Duration) {
        let now = self.tick().now;
        self.uptime = (uptime, now.mono);
        self.speaker = speaker(connections, interval, self.speaker.told(), now);
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

fn speaker(connections: &[&str], interval: Duration, told: Wall, now: Now) -> Speaker {
    let paths = connections.iter().map(|name| (0, (*name).to_owned()));
    let mut speaker = Speaker::new(voice(interval), paths, told, now);
    (0..connections.len()).for_each(|path| speaker.set_present(path, true));
    speaker
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn nothing_is_invented_at_twenty_percent_loss_over_ten_hours() {
    let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
    play.nets = vec![Net { loss: 0.2, delay: Duration::from_millis(40), jitter: SECOND / 5 }; 2];
    play.run(10 * HOUR);
    assert_eq!(play.told(), [""; 0]);
    assert_eq!(play.news, []);
    // Question or answer is lost.
    for path in ["connection_monitor.loss_percent", "connection_monitor.vpn.loss_percent"] {
        let loss = play.metric(path);
        assert!((20.0..55.0).contains(&loss), "{path} is {loss}, about 36 is right");
    }
    let rtt = play.metric("connection_monitor.ipv4.rtt_ms");
    assert!((100.0..450.0).contains(&rtt), "{rtt}, about 280 is right");
    // 3,600 beats over each of two connections, and as many again for 36 % that are repeated.
    assert!((9_000..14_000).contains(&play.sent), "{} datagrams", play.sent);
}

#[test]
fn without_loss_a_beat_is_one_datagram() {
    let mut play = Play::new(&["ipv4"], TEN, HOUR);
    play.run(HOUR);
    assert_eq!(play.sent, 361);
    assert_eq!(play.metric("connection_monitor.loss_percent"), 0.0);
    assert_eq!(play.metric("connection_monitor.rtt_ms"), 20.0);
    assert_eq!(play.metric("load_monitor.load1"), 0.5);
}

#[test]
fn the_measured_loss_is_the_loss_of_the_path() {
    // Over many windows: repetitions must not bias it.
    let mut play = Play::new(&["ipv4"], SECOND * 5, HOUR);
    play.nets = vec![Net { loss: 0.2, ..GOOD }];
    let mut sum = 0.0;
    for _ in 0..60 {
        play.run(10 * MINUTE);
        sum += play.metric("connection_monitor.loss_percent");
    }
    let mean = sum / 60.0;
    assert!((33.0..39.0).contains(&mean), "{mean}, 36 is right");
}

#[test]
fn one_path_cut_is_a_warning_both_are_critical_and_each_returns() {
    let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
    play.run(MINUTE);
    play.nets[1] = CUT;
    play.run(5 * MINUTE);
    assert_eq!(play.told(), ["warning web1 vpn overdue"]);
    assert!(matches!(play.news[..], [(1, News::Silent(_))]), "{:?}", play.news);
    assert!(play.metric("connection_monitor.vpn.loss_percent") > 80.0);
    assert_eq!(play.metric("connection_monitor.loss_percent"), 0.0);
    play.nets[0] = CUT;
    play.run(5 * MINUTE);
    assert_eq!(play.told(), ["critical web1 ipv4 overdue"]);
    play.nets = vec![GOOD; 2];
    play.run(MINUTE);
    let mut told = play.told();
    told.sort();
    assert_eq!(told, ["ok web1 ipv4 is back", "ok web1 vpn is back"]);
    assert_eq!(play.news.len(), 4, "{:?}", play.news);
}

#[test]
fn a_boot_is_told_once_and_a_restart_of_the_agent_is_none() {
    let mut play = Play::new(&["ipv4", "vpn"], TEN, MINUTE);
    play.run(MINUTE);
    assert_eq!(play.told(), ["info web1 booted"]);
    for uptime in [2 * MINUTE, HOUR] {
        play.restart(&["ipv4", "vpn"], TEN, uptime);
        play.run(MINUTE);
        assert_eq!(play.told(), [""; 0]);
    }
}

#[test]
fn an_agent_on_a_machine_that_runs_for_long_tells_no_boot() {
    let mut play = Play::new(&["ipv4"], TEN, 100 * HOUR);
    play.run(MINUTE);
    assert_eq!(play.told(), [""; 0]);
}

#[test]
fn a_boot_is_repeated_until_it_is_answered() {
    let mut play = Play::new(&["ipv4"], TEN, MINUTE);
    play.flying.clear();
    play.nets[0] = CUT;
    play.run(5 * MINUTE);
    assert_eq!(play.told(), [""; 0]);
    play.nets[0] = GOOD;
    play.run(MINUTE);
    assert_eq!(play.told(), ["info web1 booted"]);
}

#[test]
fn goodbye_is_said_over_all_connections_and_survives_loss() {
    let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
    play.run(MINUTE);
    play.nets = vec![Net { loss: 0.2, ..GOOD }; 2];
    let now = play.tick().now;
    play.speaker.goodbye(Some(HOUR), now);
    play.run(3 * SECOND);
    assert!(play.speaker.is_over(play.now));
    let mut told = play.told();
    told.sort();
    assert_eq!(told, ["warning web1 ipv4 shutdown", "warning web1 vpn shutdown"]);
}

#[test]
fn goodbye_does_not_wait_for_a_path_that_is_cut() {
    let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
    play.nets[1] = CUT;
    play.run(5 * MINUTE);
    play.told();
    let now = play.tick().now;
    play.speaker.goodbye(Some(HOUR), now);
    play.run(SECOND);
    assert!(play.speaker.is_over(play.now));
    assert_eq!(play.told(), ["warning web1 ipv4 shutdown"]);
}

#[test]
fn a_clock_that_is_set_is_no_alarm() {
    for ahead in [-2_000, -200_000, -86_400_000, 2_000, 200_000, 86_400_000] {
        let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
        play.run(MINUTE);
        for ahead in [ahead, 0, -ahead, 0] {
            play.ahead = ahead;
            play.run(15 * MINUTE);
        }
        assert_eq!(play.told(), [""; 0], "{ahead} ms");
        assert_eq!(play.news, [], "{ahead} ms");
    }
}

#[test]
fn an_agent_that_starts_anew_after_its_clock_was_set_is_no_alarm() {
    // An agent that starts with a clock that is a day ahead knows no better one.
    for ahead in [-2_000, -120_000, -280_000, -86_400_000, 120_000] {
        let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
        play.run(15 * MINUTE);
        for ahead in [ahead, 0] {
            play.ahead = ahead;
            play.run(SECOND);
            play.restart(&["ipv4", "vpn"], TEN, 2 * HOUR);
            play.run(10 * MINUTE);
        }
        assert_eq!(play.told(), [""; 0], "{ahead} ms");
    }
}

#[test]
fn after_a_long_sleep_one_beat_comes_at_once() {
    let mut play = Play::new(&["ipv4"], TEN, HOUR);
    play.run(MINUTE);
    let (stop, sent) = (play.now.mono, play.sent);
    play.now = play.now.later(8 * HOUR);
    play.fleet.record_blindness(stop, play.now.mono);
    play.run(SECOND);
    assert_eq!(play.sent, sent + 1);
    play.run(10 * MINUTE);
    assert_eq!(play.told(), [""; 0]);
    assert_eq!(play.news, []);
}

#[test]
fn metrics_go_over_one_connection_and_change_over_when_it_fails() {
    let mut play = Play::new(&["ipv4", "vpn"], TEN, HOUR);
    play.metrics =
        (0..100).map(|n| (format!("disk_monitor.d{n:02}.percent"), f64::from(n))).collect();
    play.run(10 * MINUTE);
    let before = play.sent;
    play.run(10 * MINUTE);
    // Three datagrams over one connection and one over the other.
    let each = (play.sent - before) as f64 / 60.0;
    assert!((4.0..6.1).contains(&each), "{each} a round");
    play.nets[0] = CUT;
    play.metrics = vec![("disk_monitor.d00.percent".into(), 77.0)];
    play.run(30 * SECOND);
    assert_eq!(play.metric("disk_monitor.d00.percent"), 77.0);
}

#[test]
fn nothing_grows_while_nobody_answers() {
    let mut play = Play::new(&["ipv4"], SECOND / 20, HOUR);
    play.nets[0] = CUT;
    play.run(10 * MINUTE);
    let size = format!("{:?}", play.speaker).len();
    play.run(10 * MINUTE);
    assert!(format!("{:?}", play.speaker).len() < size * 2);
    assert!(play.speaker.line(0).quality().loss_percent() == Some(100.0));
}
