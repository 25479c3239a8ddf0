//! Debian's redis-server, thrown away after the test: on a Unix socket in a directory of its own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heartbeat::backup::settings::Correlator;

/// A running server.
pub struct Redis {
    child: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Redis {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server can be started: apt-get install redis-server");
        let redis = Redis { child, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::yield_now();
        }
        redis
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Settings that reach it.
    pub fn settings(&self) -> Correlator {
        Correlator {
            redis_url: format!("redis+unix://{}", self.socket().display()),
            ..Correlator::default()
        }
    }

    /// Runs a command.
    pub fn run(&self, words: &[&str]) {
        let mut connection = self.connection();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query::<redis::Value>(&mut connection).unwrap();
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
