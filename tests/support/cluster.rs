//! Several hbd as one service, thrown away after the test: a redis-server on a port of its own that
//! keeps everything, as many daemons as wanted, what hosts say to them, and a count of what people hear.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::hbd::{self, TIMEOUT};
use super::http_double::lock;
use super::torture::request;

/// How long a request waits for its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// A pause between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// A port of 127.0.0.1 that was free when it was asked for; nobody else is given it so soon again.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A redis-server that has every write on disk before it answers.
pub struct ClusterRedis {
    child: Child,
    directory: tempfile::TempDir,
    pub port: u16,
}

impl ClusterRedis {
    pub fn start() -> ClusterRedis {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let child = ClusterRedis::spawn(directory.path(), port);
        let redis = ClusterRedis { child, directory, port };
        redis.wait_ready();
        redis
    }

    fn spawn(directory: &Path, port: u16) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: apt-get install redis-server")
    }

    fn wait_ready(&self) {
        let end = Instant::now() + TIMEOUT;
        let answers = || {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
            let mut connection = client.get_connection().ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()
        };
        while answers().is_none() {
            assert!(Instant::now() < end, "redis-server does not answer");
            thread::sleep(LOOK);
        }
    }

    /// As a crash does it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on what it has on disk.
    pub fn restart(&mut self) {
        self.child = ClusterRedis::spawn(self.directory.path(), self.port);
        self.wait_ready();
    }

    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_connection().unwrap()
    }
}

impl Drop for ClusterRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line that a daemon wrote, and when it came here.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub node: usize,
    pub text: String,
}

/// All that the daemons wrote, in the order in which it came.
#[derive(Clone, Default)]
pub struct Record(Arc<(Mutex<Vec<Line>>, Condvar)>);

impl Record {
    fn push(&self, node: usize, text: String) {
        lock(&self.0.0).push(Line { at: Instant::now(), node, text });
        self.0.1.notify_all();
    }

    pub fn lines(&self) -> Vec<Line> {
        lock(&self.0.0).clone()
    }

    /// How many lines there are: a place to wait from.
    pub fn len(&self) -> usize {
        lock(&self.0.0).len()
    }

    /// The first line from the place `from` on that `holds`, as soon as there is one.
    pub fn wait(&self, what: &str, from: usize, holds: impl Fn(&Line) -> bool) -> Line {
        let end = Instant::now() + TIMEOUT;
        let mut lines = lock(&self.0.0);
        loop {
            if let Some(line) = lines.iter().skip(from).find(|line| holds(line)) {
                return line.clone();
            }
            let left = end.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| {
                let seen: Vec<_> = lines.iter().map(|l| format!("{} {}", l.node, l.text)).collect();
                panic!("never: {what}: {seen:#?}")
            });
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// One daemon, its configuration, and its process while it has one.
pub struct Node {
    pub name: String,
    pub number: usize,
    pub config: PathBuf,
    pub http: SocketAddr,
    pub udp: SocketAddr,
    child: Option<(Child, JoinHandle<()>)>,
    record: Record,
}

impl Node {
    /// Starts it and waits until it is ready.
    pub fn start(&mut self) {
        let from = self.record.len();
        self.begin();
        let number = self.number;
        self.record
            .wait("ready", from, |line| line.node == number && line.text.contains(" is ready: "));
    }

    /// Starts it.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let mut child = hbd::spawn(Command::new(env!("CARGO_BIN_EXE_hbd")), &self.config);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (record, number) = (self.record.clone(), self.number);
        let reader = thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| record.push(number, line));
        });
        self.child = Some((child, reader));
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").0.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(self.id() as i32, signal) };
    }

    /// As a crash does it; all that it wrote is in the record then.
    pub fn kill(&mut self) {
        let (mut child, reader) = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
    }

    /// As an operator does it.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let (mut child, reader) = self.child.take().expect("it runs");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", self.name);
        reader.join().unwrap();
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Status and answer; none when there was no whole one.
    pub fn request(&self, head: &str, body: &str) -> Option<(u16, String)> {
        request(self.http, head, body, PATIENCE)
    }

    /// Whether it says that it leads.
    pub fn leads(&self) -> bool {
        self.runs() && self.request("GET /-/leader", "").is_some_and(|(status, _)| status == 200)
    }

    /// The names of its threads, sorted.
    pub fn threads(&self) -> Vec<String> {
        let directory = format!("/proc/{}/task", self.id());
        let names = fs::read_dir(directory).unwrap().filter_map(|one| {
            Some(fs::read_to_string(one.ok()?.path().join("comm")).ok()?.trim().to_owned())
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The daemons and their Redis.
pub struct Cluster {
    pub redis: ClusterRedis,
    pub nodes: Vec<Node>,
    pub record: Record,
    directory: tempfile::TempDir,
}

/// How many hosts say things, and how many beat.
pub const TALKERS: usize = 10;
pub const BEATERS: usize = 6;
/// What those promise that beat, and how long they are waited for.
pub const INTERVAL: Duration = Duration::from_secs(1);
pub const GRACE: Duration = Duration::from_secs(2);

impl Cluster {
    /// So many nodes, none of which runs yet. `more` is added to each configuration.
    pub fn new(count: usize, more: &str) -> Cluster {
        let (redis, directory) = (ClusterRedis::start(), tempfile::tempdir().unwrap());
        let record = Record::default();
        let nodes = (1..=count)
            .map(|number| {
                let folder = directory.path().join(format!("hb{number}"));
                fs::create_dir(&folder).unwrap();
                let (http, udp) = (free_port(), free_port());
                let config = folder.join("heartbeat.yaml");
                let text = configuration(&folder, number, (http, udp), redis.port) + more;
                fs::write(&config, text).unwrap();
                Node {
                    name: format!("hb{number}"),
                    number,
                    config,
                    http: SocketAddr::from(([127, 0, 0, 1], http)),
                    udp: SocketAddr::from(([127, 0, 0, 1], udp)),
                    child: None,
                    record: record.clone(),
                }
            })
            .collect();
        Cluster { redis, nodes, record, directory }
    }

    /// All of them run, and one leads.
    pub fn start(count: usize) -> Cluster {
        let mut cluster = Cluster::new(count, "");
        cluster.nodes.iter_mut().for_each(Node::start);
        let leader = cluster.wait_leader();
        cluster.wait_known(leader);
        cluster
    }

    /// Waits until the node at this place knows all that run.
    pub fn wait_known(&self, place: usize) {
        let end = Instant::now() + TIMEOUT;
        loop {
            let (_, answer) = self.nodes[place].request("GET /api/v1/cluster", "").unwrap();
            let known = |node: &&Node| answer.contains(&format!("{{\"name\":\"{}\"", node.name));
            if self.nodes.iter().filter(|node| node.runs()).all(|node| known(&node)) {
                return;
            }
            assert!(Instant::now() < end, "not all are known: {answer}");
            thread::sleep(LOOK);
        }
    }

    /// The place of the node that leads, as soon as one does.
    pub fn wait_leader(&self) -> usize {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(place) = self.nodes.iter().position(Node::leads) {
                return place;
            }
            assert!(Instant::now() < end, "no node leads: {:#?}", self.record.lines());
            thread::sleep(LOOK);
        }
    }

    /// How long it takes from now on until a node leads that is not at this place.
    pub fn wait_other_leader(&self, old: usize, from: usize) -> Duration {
        let since = Instant::now();
        let old = self.nodes[old].number;
        let line = self.record.wait("another one leads", from, |line| {
            line.node != old && line.text.contains(" leads now (epoch ")
        });
        line.at.saturating_duration_since(since)
    }
}

fn configuration(folder: &Path, number: usize, (http, udp): (u16, u16), redis: u16) -> String {
    let mut text = format!(
        "state_dir: {}/state\nheartbeat: {{host: 127.0.0.1, port: {udp}}}\n\
         receiver: {{host: 127.0.0.1, port: {http}}}\n\
         calm: {{flapping: off, storm: off}}\n\
         notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
         cluster: {{redis_url: 'redis://127.0.0.1:{redis}', node: hb{number}, \
         advertise: 'http://127.0.0.1:{http}', lease: 1500ms}}\nhosts:\n",
        folder.display()
    );
    for host in 0..TALKERS {
        text += &format!("  talker-{host}: {{watch: true, interval: 1d}}\n");
    }
    let (interval, grace) = (INTERVAL.as_secs(), GRACE.as_secs());
    for host in 0..BEATERS {
        text +=
            &format!("  beater-{host}: {{watch: true, interval: {interval}s, grace: {grace}s}}\n");
    }
    text
}

/// What a host said, in order, and whether a daemon said that it is stored.
pub type Told = Vec<bool>;

/// A silence of a host: when its last beat left, and its first one after.
#[derive(Clone, Debug)]
pub struct Silence {
    pub host: String,
    pub from: Instant,
    pub to: Instant,
}

/// Hosts that say things and beat, until it is stopped.
pub struct Load {
    over: Arc<AtomicBool>,
    talker: JoinHandle<BTreeMap<String, Told>>,
    beater: JoinHandle<Vec<Silence>>,
}

impl Load {
    /// Twenty events a second, each to one node, or to another one where that refuses it, and beats to
    /// every node; each five seconds another host is silent for `silence`.
    pub fn start(nodes: &[Node], silence: Duration) -> Load {
        Load::to(nodes, silence, |_| (0..nodes.len()).collect())
    }

    /// The same, with beats only to those nodes that `hear` a host, by its number.
    pub fn to(nodes: &[Node], silence: Duration, hear: impl Fn(usize) -> Vec<usize>) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let https: Vec<_> = nodes.iter().map(|node| node.http).collect();
        let address = |place: usize| nodes[place].udp;
        let udps: Vec<Vec<SocketAddr>> =
            (0..BEATERS).map(|host| hear(host).into_iter().map(address).collect()).collect();
        let (talk, beat) = (Arc::clone(&over), Arc::clone(&over));
        Load {
            over,
            talker: thread::spawn(move || talk_until(&talk, &https)),
            beater: thread::spawn(move || beat_until(&beat, &udps, silence)),
        }
    }

    /// Ends it: what was said, and who was silent when.
    pub fn stop(self) -> (BTreeMap<String, Told>, Vec<Silence>) {
        self.over.store(true, Ordering::Relaxed);
        (self.talker.join().unwrap(), self.beater.join().unwrap())
    }
}

fn talk_until(over: &AtomicBool, nodes: &[SocketAddr]) -> BTreeMap<String, Told> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let host = format!("talker-{}", turn % TALKERS);
        let said = told.entry(host.clone()).or_default();
        let number = said.len();
        let body = format!(r#"{{"host":"{host}","event":"message","message":"number {number}"}}"#);
        let first = turn % TALKERS % nodes.len();
        let answers = nodes[first..].iter().chain(&nodes[..first]).find_map(|node| {
            // Where nothing listens nothing is stored.
            TcpStream::connect_timeout(node, PATIENCE).ok()?;
            // What is cut off, or not known to be stored, may be told: it is not said again.
            let answer = request(*node, "POST /api/v1/heartbeat", &body, PATIENCE);
            Some(answer.is_some_and(|(status, _)| status == 200))
        });
        said.push(answers.unwrap_or(false));
        thread::sleep(Duration::from_millis(50));
    }
    told
}

fn beat_until(over: &AtomicBool, nodes: &[Vec<SocketAddr>], silence: Duration) -> Vec<Silence> {
    const STEP: Duration = Duration::from_millis(250);
    const PAUSE: Duration = Duration::from_secs(5);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut silences: Vec<Silence> = Vec::new();
    let mut quiet: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut next = Instant::now() + PAUSE;
    let mut turn = 0;
    while !over.load(Ordering::Relaxed) || !quiet.is_empty() {
        let now = Instant::now();
        if now >= next && !over.load(Ordering::Relaxed) && !silence.is_zero() {
            quiet.entry(turn % BEATERS).or_insert(now);
            (turn, next) = (turn + 1, now + PAUSE);
        }
        let ended: Vec<_> =
            quiet.iter().filter(|(_, from)| now - **from >= silence).map(|one| *one.0).collect();
        for host in ended {
            let from = quiet.remove(&host).unwrap();
            silences.push(Silence { host: format!("beater-{host}"), from, to: now });
        }
        for host in (0..BEATERS).filter(|host| !quiet.contains_key(host)) {
            let datagram = format!(r#"{{"host":"beater-{host}"}}"#);
            for node in &nodes[host] {
                // One that does not run refuses it.
                let _ = socket.send_to(datagram.as_bytes(), node);
            }
        }
        thread::sleep(STEP);
    }
    silences
}

/// Something that people were told.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    pub node: usize,
    /// `talker-1 number 3`, `beater-2 ipv4 overdue`.
    pub text: String,
    pub event: String,
    pub marked: bool,
}

/// What the log channel of all daemons said: `TIME LEVEL TITLE (possibly a repeat) (DETAILS) [EVENT]`.
pub fn heard(lines: &[Line]) -> Vec<Heard> {
    let of_line = |line: &Line| {
        let (text, event) = line.text.strip_suffix(']')?.rsplit_once(" [")?;
        let (time, rest) = text.split_once(' ')?;
        let text = rest.trim_start().split_once(' ')?.1.trim_start();
        let plain = text.split(" (").next().unwrap_or_default();
        time.ends_with('Z').then(|| Heard {
            at: line.at,
            node: line.node,
            text: plain.to_owned(),
            event: event.to_owned(),
            marked: text.contains(" (possibly a repeat)"),
        })
    };
    lines.iter().filter_map(of_line).collect()
}

/// How well people were told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Accepted and never told.
    pub lost: Vec<String>,
    /// Told again, and said so.
    pub repeats: usize,
    /// Told again, and did not say so.
    pub unmarked: Vec<String>,
    /// Told after something that came later.
    pub disordered: Vec<String>,
    /// A host was told of as silent that was not.
    pub false_overdue: Vec<String>,
    /// A silence that nobody was told of.
    pub untold: Vec<String>,
    /// The end of a silence that came before its beginning was told.
    pub early_recovery: Vec<String>,
    /// How late the longest overdue was told.
    pub latest: Duration,
}

/// Counts. A silence is from the last beat on, and is due after the interval and the grace.
pub fn count(told: &BTreeMap<String, Told>, silences: &[Silence], heard: &[Heard]) -> Count {
    let mut count = Count::default();
    let mut events: BTreeSet<&str> = BTreeSet::new();
    let mut fresh = Vec::new();
    for one in heard {
        if events.insert(&one.event) {
            fresh.push(one);
        } else if one.marked {
            count.repeats += 1;
        } else {
            count.unmarked.push(one.text.clone());
        }
    }
    count_messages(told, &fresh, &mut count);
    count_silences(silences, &fresh, &mut count);
    count
}

fn count_messages(told: &BTreeMap<String, Told>, fresh: &[&Heard], count: &mut Count) {
    for (host, said) in told {
        let words = format!("{host} number ");
        let numbers: Vec<usize> =
            fresh.iter().filter_map(|one| one.text.strip_prefix(&words)?.parse().ok()).collect();
        let arrived: BTreeSet<usize> = numbers.iter().copied().collect();
        for (number, _) in
            said.iter().enumerate().filter(|(number, stored)| **stored && !arrived.contains(number))
        {
            count.lost.push(format!("{words}{number}"));
        }
        for pair in numbers.windows(2).filter(|pair| pair[1] <= pair[0]) {
            count.disordered.push(format!("{words}{} after {}", pair[1], pair[0]));
        }
    }
}

fn count_silences(silences: &[Silence], fresh: &[&Heard], count: &mut Count) {
    let mut told = vec![false; silences.len()];
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for one in fresh {
        let Some((host, what)) = one.text.split_once(" ipv4 ") else { continue };
        match what {
            "overdue" => {
                open.insert(host);
                let due = |silence: &Silence| silence.from + INTERVAL + GRACE;
                let found = silences.iter().zip(&mut told).find(|(silence, told)| {
                    // A beat that left just before may be heard just after.
                    !**told && silence.host == host && one.at + INTERVAL / 2 >= due(silence)
                });
                match found {
                    Some((silence, told)) if silence.to >= due(silence) => {
                        *told = true;
                        count.latest =
                            count.latest.max(one.at.saturating_duration_since(due(silence)));
                    }
                    _ => count.false_overdue.push(format!("{host} at {:?}", one.at)),
                }
            }
            "is back" if !open.remove(host) => count.early_recovery.push(host.to_owned()),
            _ => {}
        }
    }
    for (silence, _) in silences.iter().zip(told).filter(|(_, told)| !told) {
        count.untold.push(format!("{} from {:?}", silence.host, silence.from));
    }
}

/// Whether something listens at an address.
pub fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}
