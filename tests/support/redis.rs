//! Debian's redis-server, thrown away after the test: on a Unix socket in a directory of its own.
#![allow(dead_code)]

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::backup::settings::CorrelatorSettings;

/// A running server.
pub struct Redis {
    child: Child,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// Starts one that speaks TLS as well; says on which port of 127.0.0.1.
    pub fn start_with_tls() -> (Redis, u16) {
        // Free when asked for; nobody else on this machine is given it so soon again.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tls =
            |name| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/").to_owned() + name;
        let words = ["--tls-port", "--tls-cert-file", "--tls-key-file", "--tls-auth-clients"];
        let values = [port.to_string(), tls("server.pem"), tls("server.key"), "no".to_owned()];
        let pairs = words.iter().zip(&values).flat_map(|(word, value)| [*word, value.as_str()]);
        (Redis::start_with(&pairs.collect::<Vec<_>>()), port)
    }

    /// Starts a Sentinel.
    pub fn start_sentinel() -> Redis {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        std::fs::write(&file, "sentinel monitor nethserver 127.0.0.1 1 1\n").unwrap();
        Redis::start_in(directory, &[file.to_str().unwrap(), "--sentinel"], &[])
    }

    /// Starts one with more of its own options.
    pub fn start_with(more: &[&str]) -> Redis {
        Redis::start_in(tempfile::tempdir().unwrap(), &[], more)
    }

    fn start_in(directory: tempfile::TempDir, first: &[&str], more: &[&str]) -> Redis {
        let socket = directory.path().join("redis.sock");
        let common = ["--port", "0", "--save", "", "--appendonly", "no"];
        let place = ["--unixsocket", socket.to_str().unwrap(), "--dir"];
        let place = place.into_iter().chain([directory.path().to_str().unwrap()]);
        let all = first.iter().copied().chain(common).chain(place).chain(more.iter().copied());
        let arguments: Vec<String> = all.map(str::to_owned).collect();
        let redis = Redis { child: Redis::spawn(&arguments), directory, arguments };
        redis.wait();
        redis
    }

    fn spawn(arguments: &[String]) -> Child {
        Command::new("redis-server")
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: apt-get install redis-server")
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::yield_now();
        }
    }

    /// Kills it, and starts it on what it has stored.
    pub fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Redis::spawn(&self.arguments);
        self.wait();
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Settings that reach it.
    pub fn settings(&self) -> CorrelatorSettings {
        CorrelatorSettings {
            redis_url: format!("redis+unix://{}", self.socket().display()),
            ..CorrelatorSettings::default()
        }
    }

    /// Runs a command.
    pub fn run(&self, words: &[&str]) {
        let mut connection = self.connection();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query::<redis::Value>(&mut connection).unwrap();
    }

    /// Runs commands without an argument that holds a space.
    pub fn run_lines(&self, commands: &[&str]) {
        for command in commands {
            self.run(&command.split(' ').collect::<Vec<_>>());
        }
    }

    /// How often these commands were called, whatever became of them, since the server started.
    pub fn calls(&self, commands: &[&str]) -> u64 {
        let said: String =
            redis::cmd("INFO").arg("commandstats").query(&mut self.connection()).unwrap();
        let calls = |line: &str| {
            let (name, counts) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            commands.contains(&name).then(|| counts.split(',').next()?.parse::<u64>().ok())?
        };
        said.lines().filter_map(calls).sum()
    }

    fn connection(&self) -> redis::Connection {
        let url = format!("redis+unix://{}", self.socket().display());
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
