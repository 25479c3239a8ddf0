//! Debian's redis-server and redis-sentinel on ports of their own on 127.0.0.1, thrown away after the
//! test.
#![allow(dead_code)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server, master, replica or Sentinel.
pub struct RedisServer {
    child: Option<Child>,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    /// Its port.
    pub port: u16,
}

/// A port that was free when asked for; nobody else on this machine is given it so soon again.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl RedisServer {
    /// One that loses nothing, with more of its own options.
    pub fn start(more: &[&str]) -> RedisServer {
        let durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
        RedisServer::start_plain(&[&durable, more].concat())
    }

    /// One with nothing but these options.
    pub fn start_plain(options: &[&str]) -> RedisServer {
        let port = free_port();
        let mut arguments = vec!["--port".to_owned(), port.to_string()];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        RedisServer::start_in(tempfile::tempdir().unwrap(), port, arguments)
    }

    /// A replica of another one.
    pub fn start_replica(master: &RedisServer, more: &[&str]) -> RedisServer {
        let port = master.port.to_string();
        let replica = ["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &port];
        RedisServer::start(&[&replica, more].concat())
    }

    /// A Sentinel of the service `hbd`.
    pub fn start_sentinel(master: &RedisServer, quorum: u32, more: &str) -> RedisServer {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor hbd 127.0.0.1 {} {quorum}\n\
             sentinel down-after-milliseconds hbd 1000\nsentinel failover-timeout hbd 3000\n{more}",
            master.port
        );
        std::fs::write(&file, text).unwrap();
        let arguments = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        RedisServer::start_in(directory, port, arguments)
    }

    fn start_in(directory: tempfile::TempDir, port: u16, arguments: Vec<String>) -> RedisServer {
        let mut server = RedisServer { child: None, directory, arguments, port };
        server.restart();
        server
    }

    /// Starts it again after [`RedisServer::kill`], with the files that it left.
    pub fn restart(&mut self) {
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: apt-get install redis-server");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::yield_now();
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The answer to a command.
    pub fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_run(words).unwrap()
    }

    /// The answer to a command, or why there is none.
    pub fn try_run<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    }

    /// The value of `name:value` of INFO; nothing while it drops its clients, as one does that a Sentinel
    /// makes a replica.
    pub fn info(&self, name: &str) -> String {
        let said: String = self.try_run(&["INFO", "everything"]).unwrap_or_default();
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
        said.lines().find_map(value).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
