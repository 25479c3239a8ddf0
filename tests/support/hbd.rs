//! hbd as an operator runs it, thrown away after the test. Each test file uses some of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http_double::lock;

/// How long a fact is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A running daemon.
pub struct Hbd {
    pub child: Child,
    /// The address of its HTTP server.
    pub address: SocketAddr,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Hbd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon of this command, with its log on a pipe.
pub fn spawn(mut command: Command, config: &Path) -> Child {
    command
        .args(["run", "--config"])
        .arg(config)
        .env_remove("HBD_LOG")
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Hbd {
    /// Starts it and waits until it is ready.
    pub fn start(config: &Path) -> Hbd {
        Hbd::start_by(Command::new(env!("CARGO_BIN_EXE_hbd")), config)
    }

    /// The same, with these variables in its environment.
    pub fn start_with(config: &Path, environment: &[(&str, String)]) -> Hbd {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
        command.envs(environment.iter().cloned());
        Hbd::start_by(command, config)
    }

    /// The same by a command that starts it.
    pub fn start_by(command: Command, config: &Path) -> Hbd {
        let mut hbd = Hbd::begin(command, config);
        hbd.wait_ready();
        hbd
    }

    /// The same, without waiting: it has no address yet.
    pub fn begin(command: Command, config: &Path) -> Hbd {
        let mut child = spawn(command, config);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                lock(&shared.0).push(line);
                shared.1.notify_all();
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Hbd { child, address, log, reader: Some(reader) }
    }

    /// Waits until it is ready.
    pub fn wait_ready(&mut self) {
        let ready = self.wait_log("is ready: ");
        let (_, rest) = ready.split_once("HTTP on ").unwrap();
        self.address = rest.split(',').next().unwrap().parse().unwrap();
    }

    /// Where it hears heartbeats over UDP.
    pub fn udp(&self) -> SocketAddr {
        self.last_address("heartbeats on UDP ")
    }

    /// The first line of its log with these words, as soon as there is one.
    pub fn wait_log(&self, words: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        let mut lines = lock(&self.log.0);
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(words)) {
                return line.clone();
            }
            let left = end.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("no {words:?} in {lines:#?}"));
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        lock(&self.log.0).clone()
    }

    /// Status and answer.
    pub fn request(&self, method: &str, target: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n\r\n"
        );
        // Who refuses a body need not read all of it.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{method} {target}: {answer:?}")), answer)
    }

    /// What Alertmanager would see.
    pub fn alert(&self, body: &str) -> u16 {
        self.request("POST", "/alert", body.as_bytes()).0
    }

    /// The sum of the samples of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, answer) = self.request("GET", "/metrics", b"");
        let samples = answer.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `holds`, which is asked again and again.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Hbd) -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !holds(self) {
            assert!(Instant::now() < end, "never: {what}; {:#?}", lock(&self.log.0));
            thread::yield_now();
        }
    }

    /// Waits until nothing is under way any more; says how many reports this daemon made.
    pub fn settled(&self) -> f64 {
        let name = "hbd_outbox_deliveries";
        self.wait_until("quiet", |hbd| hbd.metric("hbd_pipelines") == 0.0);
        self.wait_until("told", |hbd| hbd.metric(name) == 0.0);
        self.metric("hbd_backup_outcomes_total")
    }

    /// Has it read its configuration again.
    pub fn reload(&self) {
        let done = || {
            let lines = lock(&self.log.0);
            lines.iter().filter(|line| line.contains("the configuration was")).count()
        };
        let before = done();
        self.signal(libc::SIGHUP);
        self.wait_until("reloaded", |_| done() > before);
    }

    /// The address behind these words of its log, the last time they were written.
    pub fn last_address(&self, words: &str) -> SocketAddr {
        self.wait_log(words);
        let lines = lock(&self.log.0);
        let line = lines.iter().rev().find(|line| line.contains(words)).unwrap();
        let (_, rest) = line.split_once(words).unwrap();
        rest.split([',', ' ']).next().unwrap().parse().unwrap()
    }

    /// How often these words are in its log.
    pub fn logged(&self, words: &str) -> usize {
        lock(&self.log.0).iter().filter(|line| line.contains(words)).count()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// Its own memory in kB (proc(5), `RssAnon`).
    pub fn memory(&self) -> i64 {
        self.status("RssAnon:")
    }

    /// The most memory that it ever had, in kB (proc(5), `VmHWM`).
    pub fn peak(&self) -> i64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> i64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// As a crash does it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same; all that it wrote, to its end.
    pub fn crash(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.log()
    }

    /// As an operator does it.
    pub fn stop(mut self) {
        self.signal(libc::SIGTERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{:#?}", lock(&self.log.0));
    }
}
