//! Debian's BIND, thrown away after the test: one dynamic zone that only a key may change.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::http_double::lock;

/// The zone.
pub const ZONE: &str = "dyn.example.com";
/// The key that may change it, in base64.
pub const KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=";
/// Another one.
pub const OTHER_KEY: &str = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI=";

/// A server that may be stopped and started.
pub struct Bind {
    child: Option<Child>,
    directory: tempfile::TempDir,
    algorithm: String,
    log: Arc<Mutex<Vec<String>>>,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Bind {
    /// Starts one and waits until it answers.
    pub fn start() -> Bind {
        Bind::with("hmac-sha256")
    }

    /// The same with a key of this algorithm.
    pub fn with(algorithm: &str) -> Bind {
        let directory = tempfile::tempdir().unwrap();
        let log = Arc::default();
        let mut bind = Bind { child: None, directory, algorithm: algorithm.into(), log, port: 0 };
        let zone = format!(
            "$TTL 60\n@ IN SOA ns.{ZONE}. root.{ZONE}. 1 3600 600 86400 60\n@ IN NS ns.{ZONE}.\nns IN A 127.0.0.1\n"
        );
        fs::write(bind.file("zone.db"), zone).unwrap();
        // AppArmor keeps the one in /usr/sbin to the directories of the package.
        fs::copy("/usr/sbin/named", bind.file("named")).expect("apt-get install bind9");
        // Between the look for a free port and its use somebody else may take it.
        for _ in 0..10 {
            bind.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if bind.try_up() {
                return bind;
            }
        }
        panic!("named does not start: {:#?}", lock(&bind.log));
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn configure(&self) {
        let (directory, port, algorithm) = (self.directory.path(), self.port, &self.algorithm);
        let directory = directory.display();
        let text = format!(
            "options {{ directory \"{directory}\"; listen-on port {port} {{ 127.0.0.1; }};\n\
             listen-on-v6 {{ none; }}; pid-file \"{directory}/pid\"; recursion no; notify no;\n\
             session-keyfile \"{directory}/session.key\"; dnssec-validation no; }};\n\
             controls {{ }};\n\
             key \"hbd\" {{ algorithm {algorithm}; secret \"{KEY}\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file \"zone.db\"; allow-update {{ key hbd; }}; }};\n"
        );
        fs::write(self.file("named.conf"), text).unwrap();
    }

    /// Starts it again, on the same port and with what it knew.
    pub fn up(&mut self) {
        assert!(self.try_up(), "named does not start again: {:#?}", lock(&self.log));
    }

    fn try_up(&mut self) -> bool {
        self.configure();
        let mut command = Command::new(self.file("named"));
        command
            .args(["-g", "-n", "1", "-c", &self.file("named.conf")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // Another thread's child may still hold the fresh copy open, between its fork and its exec.
        let begun = Instant::now();
        let mut child = loop {
            match command.spawn() {
                Err(why) if why.kind() == ErrorKind::ExecutableFileBusy => {
                    assert!(begun.elapsed() < Duration::from_secs(60), "named stays busy");
                    thread::yield_now();
                }
                started => break started.expect("named can be started"),
            }
        };
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::clone(&self.log);
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| lock(&log).push(line)));
        let deadline = Instant::now() + Duration::from_secs(60);
        self.child = Some(child);
        loop {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && !self.dig("SOA").is_empty() {
                return true;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap().is_some();
            if ended || Instant::now() > deadline {
                self.down();
                return false;
            }
            thread::yield_now();
        }
    }

    /// Ends it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SAFETY: it only sends a signal, to a child that was not yet waited for.
            unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
            let _ = child.wait();
        }
    }

    fn dig(&self, kind: &str) -> Vec<String> {
        self.ask(ZONE, kind)
    }

    /// What it says about a name, sorted.
    pub fn ask(&self, name: &str, kind: &str) -> Vec<String> {
        let output = Command::new("dig")
            .args(["@127.0.0.1", "-p", &self.port.to_string(), "+short", "+tcp", "+time=2"])
            .args(["+tries=1", name, kind])
            .output()
            .expect("dig can be started: apt-get install bind9-dnsutils");
        if !output.status.success() {
            return Vec::new();
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Waits until it says exactly this about a name.
    pub fn wait_for(&self, name: &str, kind: &str, address: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ask(name, kind) != [address] {
            let said = self.ask(name, kind);
            assert!(Instant::now() < deadline, "{name} {kind} is {said:?}, not {address}");
            thread::yield_now();
        }
    }

    /// Changes it from outside, as nsupdate(1) does.
    pub fn change(&self, script: &str) {
        let mut child = Command::new("nsupdate")
            .args(["-y", &format!("{}:hbd:{KEY}", self.algorithm)])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsupdate can be started: apt-get install bind9-dnsutils");
        let script = format!("server 127.0.0.1 {}\nzone {ZONE}\n{script}\nsend\n", self.port);
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// The records that were added so far, each with the name and what was added, as its log says.
    pub fn added(&self) -> Vec<String> {
        let log = lock(&self.log);
        let added = log.iter().filter_map(|line| line.split_once("adding an RR at "));
        added.map(|(_, record)| record.replace('\'', "")).collect()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        self.down();
    }
}
