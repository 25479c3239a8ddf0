//! What hbc costs the machine that it speaks for: memory, processor time, threads, size.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Daemon, kilobytes};

/// How long it beats before it is looked at: by then it has counted processes and asked systemd,
/// both of which it does not do with every beat, and has given back what its start needed.
const TIME: Duration = Duration::from_secs(40);

/// One agent that beats every second, with all metrics, to an hbd over loopback.
pub fn agent() {
    if cfg!(debug_assertions) {
        println!("agent: a build without optimization, whose figures mean nothing");
    }
    let daemon = Daemon::start("  web1: {watch: true}\n", "");
    let agent = Agent::start(&daemon);
    println!("agent: hbc is answered, and beats for {} s now", TIME.as_secs());
    let (begun, before, heard) = (Instant::now(), agent.spent(), daemon.accepted());
    std::thread::sleep(TIME);
    let (beats, spent) = (begun.elapsed().as_secs_f64(), agent.spent() - before);
    let datagrams = (daemon.accepted() - heard) as f64;
    let id = agent.process.id();
    println!(
        "hbc, every second, all metrics: PSS {} kB, {} kB of it anonymous; {} threads; \
         {:.2} datagrams and {:.0} us of a processor a beat, what systemctl takes not counted",
        kilobytes(id, "Pss"),
        kilobytes(id, "Pss_Anon"),
        fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count),
        datagrams / beats,
        spent.as_secs_f64() * 1e6 / beats,
    );
    println!("size of hbc, stripped: {:.2} MB", stripped() as f64 / 1e6);
}

/// A running hbc of this build, stopped when dropped.
struct Agent {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Agent {
    /// Comes back when it was answered. It has a configuration, so that one of this machine is left
    /// alone, and so are the programs in its metrics.d.
    fn start(daemon: &Daemon) -> Agent {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("hbc.yaml");
        let own = directory.path().join("metrics.d");
        fs::create_dir(&own).expect("a directory");
        let text = format!("server: {}\nhost: web1\nmetrics_dir: {}\n", daemon.udp, own.display());
        fs::write(&config, text).expect("the configuration is written");
        let mut process = Command::new(env!("CARGO_BIN_EXE_hbc"))
            .args(["run", "--interval", "1s", "--config"])
            .arg(&config)
            .env_remove("HBC_LOG")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hbc starts");
        let mut log = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        while !line.ends_with(" answers\n") {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "hbc ended");
        }
        // It says little from now on, and must not wait for who reads it.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Agent { process, _directory: directory }
    }

    /// The processor time of all its threads so far, those that have ended, too: it asks disks and
    /// sensors from threads that live for a round, which /proc/PID/task/*/schedstat forgets; and
    /// /proc/PID/stat counts in ticks, of which a beat is a small part.
    fn spent(&self) -> Duration {
        let id = i32::try_from(self.process.id()).expect("a process id");
        let mut clock = 0;
        // SAFETY: it writes only to `clock`.
        let found = unsafe { libc::clock_getcpuclockid(id, &raw mut clock) };
        assert_eq!(found, 0, "the process lives");
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes only to `time`.
        let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
        assert_eq!(read, 0, "the process lives");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As the package strips it, in bytes.
fn stripped() -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("hbc");
    let done = Command::new("strip").arg("-o").arg(&copy).arg(env!("CARGO_BIN_EXE_hbc")).status();
    assert!(done.is_ok_and(|status| status.success()), "strip is there: the package binutils");
    fs::metadata(copy).expect("the copy").len()
}
