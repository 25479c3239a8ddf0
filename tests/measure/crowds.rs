//! How long a good client waits among 600 silent, 50 dripping and 8 malformed ones.

use std::fs;
use std::time::Duration;

use super::Daemon;
use super::certificates::certificates;
use super::crowd::{Crowd, good, trusting};

const REQUESTS: usize = 1000;

/// Plain and over TLS; alone, among clients that stay away once they are sent away, and among ones
/// that come back at once.
pub fn crowds() {
    let tls = trusting(&certificates().authority.certificate);
    for encrypted in [false, true] {
        let daemon = start(encrypted);
        let name = if encrypted { "TLS" } else { "plain" };
        let tls = encrypted.then_some(&tls);
        let mut alone: Vec<Duration> = (0..REQUESTS).map(|_| good(daemon.http, tls)).collect();
        alone.sort();
        println!(
            "{name}, alone: p50 {:?}, p99 {:?}",
            alone[REQUESTS / 2],
            alone[REQUESTS * 99 / 100]
        );
        for (returning, how) in [(false, "a crowd"), (true, "a crowd that comes back")] {
            let before = daemon.memory();
            let crowd = Crowd::gather(daemon.http, encrypted, returning);
            let times = crowd.times(daemon.http, tls, REQUESTS);
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process.id()));
            println!(
                "{name}, {how}: p50 {:?}, p99 {:?}, worst {:?}; {} threads, PSS {} kB, {} kB before",
                times.percentile(50),
                times.percentile(99),
                times.percentile(100),
                tasks.map_or(0, Iterator::count),
                daemon.memory(),
                before,
            );
        }
    }
}

fn start(encrypted: bool) -> Daemon {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("heartbeat.yaml");
    let pair = &certificates().good;
    let tls = match encrypted {
        true => format!(
            ", tls: {{certificate_file: {}, key_file: {}}}",
            pair.certificate.display(),
            pair.key.display()
        ),
        false => String::new(),
    };
    let state = directory.path().join("state");
    let text = format!(
        "notification_channels: {{log: {{type: log}}}}\nheartbeat: {{port: 0}}\n\
         receiver: {{port: 0{tls}}}\nstate_dir: {}\n",
        state.display()
    );
    fs::write(&config, text).expect("the configuration is written");
    Daemon::run(&config, directory)
}
