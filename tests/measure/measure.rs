//! The figures that design and README name, measured: `cargo bench --bench measure`, or
//! `cargo bench --bench measure -- flood alerts` for some of them.
//!
//! Each line is a figure of this machine at this moment. Nothing here passes or fails.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use heartbeat::clock::{Now, Wall};
use heartbeat::event::{Event, EventId, EventKind, Level};
use heartbeat::heartbeat::encode::{self, OutgoingDatagram};
use heartbeat::heartbeat::event_limits::Load;
use heartbeat::heartbeat::fleet::Fleet;
use heartbeat::heartbeat::monitor::Monitor;
use heartbeat::heartbeat::settings::{FleetConfig, HostSettings};
use heartbeat::history::HistorySource;
use heartbeat::history::retention::RetentionSettings;
use heartbeat::secret::Secret;
use heartbeat::store::{self, Store, Table};
use heartbeat::view::{EventView, MetricSummary, UptimeSample};

#[path = "../support/recorder.rs"]
mod recorder;

use recorder::{DAY, Hosts, MIDNIGHT, World};

mod agent;
mod alerts;
#[path = "../support/burst.rs"]
mod burst;
#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/crowd.rs"]
mod crowd;
mod crowds;
mod silences;

const ALL: [(&str, fn()); 12] = [
    ("sizes", sizes),
    ("rates", datagram_rates),
    ("start", start_and_idle),
    ("agent", agent::agent),
    ("alerts", alerts::alerts),
    ("crowds", crowds::crowds),
    ("flood", flood),
    ("paced", paced_flood),
    ("many-start", start_with_many),
    ("many-hosts", many_hosts),
    ("year", year),
    ("silences", silences::silences),
];

fn main() {
    // cargo adds one that begins with a dash.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, measure) in ALL {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
}

/// A running hbd of this build, stopped when dropped.
struct Daemon {
    process: Child,
    udp: SocketAddr,
    http: SocketAddr,
    ready_after: Duration,
    _directory: tempfile::TempDir,
}

impl Daemon {
    fn start(hosts: &str, heartbeat: &str) -> Daemon {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("heartbeat.yaml");
        let state = directory.path().join("state");
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n\
             heartbeat: {{port: 0{heartbeat}}}\nreceiver: {{port: 0}}\n\
             state_dir: {}\nhosts:\n{hosts}",
            state.display()
        );
        fs::write(&config, text).expect("the configuration is written");
        Daemon::run(&config, directory)
    }

    fn run(config: &Path, directory: tempfile::TempDir) -> Daemon {
        let begun = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["run", "--config"])
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("hbd starts");
        let mut log = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        while !line.contains("is ready") {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "hbd ended");
        }
        let ready_after = begun.elapsed();
        // Now and then: to be woken by every line would be a part of what is measured.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(log.get_mut().read(&mut buffer), Ok(count) if count > 0) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let udp = after(&line, "UDP ");
        let http = after(&line, "HTTP on ");
        Daemon { process, udp, http, ready_after, _directory: directory }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("hbd listens");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn accepted(&self) -> u64 {
        let metrics = self.get("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("hbd_datagrams_accepted_total"));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("the counter")
    }

    /// Proportional set size in kB.
    fn memory(&self) -> u64 {
        kilobytes(self.process.id(), "Pss")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A line of a process's memory (proc(5), smaps_rollup).
fn kilobytes(process: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
    let text = text.expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kb.expect("a number")
}

fn after(line: &str, words: &str) -> SocketAddr {
    let rest = line.split(words).nth(1).expect("the address");
    rest.split([',', ' ']).next().and_then(|text| text.parse().ok()).expect("an address")
}

fn hosts(count: usize) -> String {
    (0..count).map(|n| format!("  host{n}: {{watch: true}}\n")).collect()
}

fn sizes() {
    for binary in [env!("CARGO_BIN_EXE_hbd"), env!("CARGO_BIN_EXE_hbc")] {
        let size = fs::metadata(binary).expect("the binary").len();
        println!("size of {binary}: {:.2} MB", size as f64 / 1e6);
    }
}

fn start_and_idle() {
    let mut ready: Vec<_> = (0..10).map(|_| Daemon::start(&hosts(1), "").ready_after).collect();
    ready.sort();
    println!("start to ready, 1 host: median {:?}, worst {:?}", ready[5], ready[9]);
    let daemon = Daemon::start(&hosts(3), "");
    daemon.get("/-/ready");
    println!("PSS idle, 3 hosts, 1 channel: {} kB", daemon.memory());
}

fn start_with_many() {
    let mut ready: Vec<_> = (0..5).map(|_| Daemon::start(&hosts(10_000), "").ready_after).collect();
    ready.sort();
    println!("start to ready, 10,000 hosts: median {:?}, worst {:?}", ready[2], ready[4]);
}

/// One sender that never stops, three seconds each: against a loop that only receives, and
/// against the daemon; then the same with signatures.
fn flood() {
    flood_with(None, "");
    flood_with(Some(encode::signing_key(&Secret::new(KEY))), &format!(", key: {KEY}"));
}

const KEY: &str = "a-key-of-some-length";

fn flood_with(key: Option<ring::hmac::Key>, heartbeat: &str) {
    const TIME: Duration = Duration::from_secs(3);
    // With as large a receive buffer.
    let settings =
        heartbeat::heartbeat::settings::HeartbeatSettings { port: 0, ..Default::default() };
    let bare = heartbeat::heartbeat::listener::bind(&settings).expect("a socket");
    let address = bare.local_addr().expect("an address");
    let own = key.clone();
    let sender = std::thread::spawn(move || send_for(TIME, address, own.as_ref()));
    bare.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut received = 0u64;
    let mut buffer = [0; 8193];
    while bare.recv_from(&mut buffer).is_ok() {
        received += 1;
    }
    let sent = sender.join().expect("the sender ends");
    let daemon = Daemon::start(&hosts(10), heartbeat);
    let sent_to_daemon = send_for(TIME, daemon.udp, key.as_ref());
    let mut accepted = 0;
    while accepted != daemon.accepted() {
        accepted = daemon.accepted();
        std::thread::sleep(Duration::from_millis(100));
    }
    println!(
        "flood of one sender{}: a bare loop took {received} of {sent}, hbd {accepted} of {sent_to_daemon}: {:.2} of it",
        if key.is_some() { ", signed" } else { "" },
        accepted as f64 / received as f64
    );
}

fn send_for(time: Duration, to: SocketAddr, key: Option<&ring::hmac::Key>) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let begun = Instant::now();
    let first = Now::read().wall;
    let mut sent: u64 = 0;
    while begun.elapsed() < time {
        let host = format!("host{}", sent % 10);
        let text = match key {
            // Each host's times rise by a millisecond, so each is later than the one before.
            Some(key) => {
                let time = Some(first + Duration::from_millis(sent / 10));
                let beat = OutgoingDatagram { host, time, ..OutgoingDatagram::default() };
                encode::sign(key, &beat.json())
            }
            None => format!("{{\"host\":\"{host}\",\"interval\":60}}").into_bytes(),
        };
        sent += u64::from(socket.send_to(&text, to).is_ok());
    }
    sent
}

/// 10,000 datagrams a second for five seconds.
fn paced_flood() {
    let daemon = Daemon::start(&hosts(10), "");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let begun = Instant::now();
    let total = 50_000;
    for n in 0..total {
        let due = Duration::from_micros(100 * n);
        while begun.elapsed() < due {
            std::hint::spin_loop();
        }
        let text = format!("{{\"host\":\"host{}\",\"interval\":60}}", n % 10);
        socket.send_to(text.as_bytes(), daemon.udp).expect("sent");
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while daemon.accepted() < total && Instant::now() < deadline {}
    let lost = total - daemon.accepted();
    println!("10,000 datagrams/s for 5 s: {lost} of {total} lost");
}

/// Memory with 100,000 hosts, and how late their deadlines fire.
fn many_hosts() {
    let daemon = Daemon::start("  host0: {}\n", ", unknown_hosts: accept");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for n in 0..100_000u64 {
        let text = format!("{{\"host\":\"host-number-{n}\",\"interval\":600}}");
        socket.send_to(text.as_bytes(), daemon.udp).expect("sent");
        // As fast as it is taken, so that none is lost.
        if n % 500 == 0 {
            while daemon.accepted() < n {}
        }
    }
    while daemon.accepted() < 100_000 {}
    println!("PSS with 100,000 hosts: {} kB", daemon.memory());
    let begun = Instant::now();
    let length = daemon.get("/api/v1/hosts").len();
    println!(
        "all hosts as JSON: {length} bytes in {:?}, then PSS {} kB",
        begun.elapsed(),
        daemon.memory()
    );
    // A flush writes 100,000 rows.
    std::thread::sleep(Duration::from_secs(75));
    println!("PSS after the flush: {} kB", daemon.memory());
}

/// How fast datagrams that wait in the socket are taken out of it: bare, heard, heard signed.
fn datagram_rates() {
    let key = encode::signing_key(&Secret::new("a key of some length"));
    let plain = |n: usize| {
        format!("{{\"host\":\"host{}\",\"interval\":10,\"metrics\":{{\"load_monitor\":{{\"load1\":0.{n}}}}}}}", n % 1000)
            .into_bytes()
    };
    let beat = |n: usize| format!("{{\"host\":\"host{}\",\"interval\":10}}", n % 1000).into_bytes();
    let signed = |n: usize| {
        let mut time = Now::read().wall;
        time.0 += n as i64;
        let beat = OutgoingDatagram {
            host: format!("host{}", n % 1000),
            time: Some(time),
            ..OutgoingDatagram::default()
        };
        encode::sign(&key, &beat.json())
    };
    let bare = rate(&beat, None);
    let heard = rate(&beat, Some(&watch(None)));
    let metrics_bare = rate(&plain, None);
    let metrics = rate(&plain, Some(&watch(None)));
    let signed_bare = rate(&signed, None);
    let signed_heard = rate(&signed, Some(&watch(Some("a key of some length"))));
    println!("bare recv_from: {bare:.0}/s; heard: {heard:.0}/s, {:.2} of it", heard / bare);
    println!(
        "with a metric: {metrics:.0}/s, {:.2} of bare {metrics_bare:.0}/s",
        metrics / metrics_bare
    );
    println!(
        "signed: {signed_heard:.0}/s, {:.2} of bare {signed_bare:.0}/s",
        signed_heard / signed_bare
    );
}

fn watch(key: Option<&str>) -> Monitor {
    let mut rules = FleetConfig::default();
    rules.settings.key = key.map(Secret::new);
    rules.hosts = (0..1000).map(|n| (format!("host{n}"), HostSettings::default())).collect();
    let fleet = Fleet::restore(rules, Vec::new(), None, Now::read(), "boot");
    Monitor::new(fleet, "boot".into(), Arc::new(drop), Box::new(|_, _| Load::Free))
}

/// Fills the socket, then times how long it takes to empty it; again and again.
fn rate(datagram: &dyn Fn(usize) -> Vec<u8>, watch: Option<&Monitor>) -> f64 {
    const BATCH: usize = 1000;
    const ROUNDS: usize = 300;
    let settings =
        heartbeat::heartbeat::settings::HeartbeatSettings { port: 0, ..Default::default() };
    let socket = heartbeat::heartbeat::listener::bind(&settings).expect("a socket");
    let to = socket.local_addr().expect("an address");
    let from = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut spent = Duration::ZERO;
    let mut buffer = [0; 8193];
    for round in 0..ROUNDS {
        for n in 0..BATCH {
            from.send_to(&datagram(round * BATCH + n), to).expect("sent");
        }
        let begun = Instant::now();
        for _ in 0..BATCH {
            let (length, peer) = socket.recv_from(&mut buffer).expect("received");
            if let Some(watch) = watch {
                let heard = watch.ingest(
                    &buffer[..length],
                    peer.ip().to_canonical(),
                    Now::read(),
                    |_, _| {},
                );
                heard.expect("it is believed");
            }
            assert_ne!(peer.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        spent += begun.elapsed();
    }
    (BATCH * ROUNDS) as f64 / spent.as_secs_f64()
}

/// Fifty hosts with thirty metrics each, of which none ever stands still.
struct Fifty {
    seed: u32,
}

impl Fifty {
    /// The next of a row of numbers that look thrown, from 0 to 1 (Numerical Recipes, ranqd1).
    fn thrown(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.seed >> 8) as f32 / 16_777_216.0
    }
}

impl Hosts for Fifty {
    fn take_samples(&mut self, from: usize, count: usize, _: Now) -> Vec<UptimeSample> {
        let ten = Duration::from_secs(600);
        let mut account = |host: usize| UptimeSample {
            host: format!("prod-web-{host:02}.example.com").into(),
            up: ten,
            metrics: (0..30)
                .map(|metric| {
                    let (mean, spread) = (self.thrown() * 100.0, self.thrown() * 20.0);
                    let path = format!("monitor_{metric:02}.some_value_percent").into();
                    MetricSummary {
                        path,
                        count: 60,
                        mean,
                        least: mean - spread,
                        most: mean + spread,
                    }
                })
                .collect(),
            ..UptimeSample::default()
        };
        (from..50.min(from + count)).map(&mut account).collect()
    }

    fn peek_sample(&self, _: &str, _: Now) -> Option<UptimeSample> {
        None
    }

    fn outages(&mut self, _: Now) -> Vec<(Wall, Wall)> {
        Vec::new()
    }
}

/// What a year of fifty hosts takes on disk, with 90 days of events, five a host and day.
fn year() {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.expect("a directory");
    let world = World::new(directory.path(), Fifty { seed: 1 });
    let recorder = world.recorder(RetentionSettings::default());
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for slot in 0..365 * 144u32 {
        let now = MIDNIGHT.later(Duration::from_secs(600) * slot);
        let turn = Instant::now();
        recorder.tick(now);
        longest = longest.max(turn.elapsed());
        if slot % 29 == 0 {
            tell(&world, now);
        }
    }
    let took = begun.elapsed();
    let file = fs::metadata(directory.path().join("heartbeat.redb")).expect("the store");
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    println!(
        "a year of 50 hosts with 30 metrics: {:.1} MB on disk, {:.1} MB long; {} rows written in {took:?}, the longest turn took {longest:?}",
        on_disk as f64 / 1e6,
        file.len() as f64 / 1e6,
        world.writes.lock().expect("nobody panicked")
    );
    for table in [Table::Metrics, Table::Events, Table::Hours, Table::Days] {
        let snapshot = world.snapshot().expect("a store");
        println!("  {table:?}: {:.1} MB", snapshot.bytes(table) as f64 / 1e6);
    }
    let end = MIDNIGHT.later(365 * DAY);
    for days in [1, 14, 365] {
        let begun = Instant::now();
        let host = "prod-web-07.example.com";
        let series = recorder.series(host, &[], days * DAY, end.wall).expect("a series");
        let points: usize = series.iter().map(|one| one.points.len()).sum();
        println!("  {points} points of {days} days read in {:?}", begun.elapsed());
    }
    let names: Vec<String> =
        (0..50).map(|host| format!("prod-web-{host:02}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let pasts = recorder.pasts(&names, end).expect("pasts");
    println!("  {} pasts read in {:?}", pasts.len(), begun.elapsed());
    drop((recorder, world));
    let begun = Instant::now();
    Store::open(directory.path(), end).expect("the store");
    println!("  the store opened in {:?}", begun.elapsed());
}

/// Fifty events of a message each.
fn tell(world: &World<Fifty>, now: Now) {
    let event = |host: u32| {
        let kind = EventKind::Back {
            host: format!("prod-web-{host:02}.example.com"),
            connection: "ipv4".into(),
            gone: Duration::from_secs(60),
        };
        let event = Event { level: Level::Ok, ..Event::new(now.wall, kind) };
        let id = EventId(EventId::default().next(now.wall).0 + u64::from(host));
        store::Write::put(Table::Events, id.to_string(), &EventView::of(&event, id))
    };
    world.write((0..50).map(event).collect());
}
