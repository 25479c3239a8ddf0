//! Debian's redis-server as a cluster has it: it may be killed, and started again.
#![allow(dead_code)]

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::cluster::settings::ClusterSettings;
use redis::{Cmd, FromRedisValue, Value};

/// A server in a directory of its own.
pub struct SharedRedis {
    child: Child,
    directory: tempfile::TempDir,
    options: Vec<String>,
}

/// Settings of a node that uses it.
pub fn settings(url: &str, node: &str) -> ClusterSettings {
    ClusterSettings::for_tests(url, node)
}

impl SharedRedis {
    /// Starts one, with more of its own options; it writes nothing to the disk unless they say so.
    pub fn start(options: &[&str]) -> SharedRedis {
        let directory = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let child = spawn(&directory, &options);
        SharedRedis { child, directory, options }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, in the same directory.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.directory, &self.options);
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("redis.sock").display())
    }

    /// Settings of a node that uses it.
    pub fn settings(&self, node: &str) -> ClusterSettings {
        settings(&self.url(), node)
    }

    /// The answer to a command.
    pub fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        command.query(&mut connection).unwrap()
    }

    /// The answer to a command, given as words.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.query(&command)
    }

    /// Runs a command.
    pub fn run(&self, words: &[&str]) {
        self.ask::<Value>(words);
    }

    /// How many seconds of a processor it has used.
    pub fn cpu_seconds(&self) -> f64 {
        let said: String = self.ask(&["INFO", "cpu"]);
        let value = |name: &str| -> f64 {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse().unwrap()
        };
        value("used_cpu_sys:") + value("used_cpu_user:")
    }
}

fn spawn(directory: &tempfile::TempDir, options: &[String]) -> Child {
    let socket = directory.path().join("redis.sock");
    // One that was killed leaves it behind.
    let _ = std::fs::remove_file(&socket);
    let child = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no"])
        .arg("--unixsocket")
        .arg(&socket)
        .arg("--dir")
        .arg(directory.path())
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server can be started: apt-get install redis-server");
    let deadline = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "redis-server does not listen");
        std::thread::yield_now();
    }
    child
}

impl Drop for SharedRedis {
    fn drop(&mut self) {
        self.kill();
    }
}
