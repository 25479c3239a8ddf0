//! How soon alerts are taken: one large body, many bodies at once.

use std::fs;
use std::time::{Duration, Instant};

use super::Daemon;
use super::burst::{burst, percentiles};

const TIMEOUT: Duration = Duration::from_secs(30);
const AT_ONCE: usize = 200;
const ROUNDS: usize = 10;

/// Bodies of 500 alerts one after the other, then 200 bodies of one alert at the same moment.
pub fn alerts() {
    let mut large = Vec::new();
    let daemon = start();
    for round in 0..15 {
        large.push(webhook(round * 500..round * 500 + 500));
    }
    // Each gets a connection of its own, when the one before is answered.
    let times = large.iter().map(|body| {
        let answered = burst(daemon.http, "/alert", std::slice::from_ref(body), false, TIMEOUT);
        assert!(answered[0].text.starts_with("HTTP/1.1 200"), "{}", answered[0].text);
        answered[0].took
    });
    let (half, most) = percentiles(times.collect());
    println!("a body of 500 alerts ({} kB): p50 {half:?}, worst {most:?}", large[0].len() / 1000);
    drop(daemon);
    for (opened, how) in [(false, "each connects"), (true, "connected before")] {
        let daemon = start();
        let before = Spent::of(&daemon);
        let mut rounds: Vec<(Duration, Duration, Duration)> = (0..ROUNDS)
            .map(|round| {
                let first = round * AT_ONCE;
                let bodies: Vec<String> =
                    (first..first + AT_ONCE).map(|n| webhook(n..n + 1)).collect();
                let begun = Instant::now();
                let answered = burst(daemon.http, "/alert", &bodies, opened, TIMEOUT);
                let all = begun.elapsed();
                assert!(answered.iter().all(|one| one.text.starts_with("HTTP/1.1 200")));
                let (half, most) = percentiles(answered.iter().map(|one| one.took).collect());
                (most, half, all)
            })
            .collect();
        rounds.sort();
        let spent = Spent::of(&daemon).since(before).per(AT_ONCE * ROUNDS);
        let (most, half, all) = rounds[ROUNDS / 2];
        println!(
            "200 bodies at once, {how}: p50 {half:?}, p99 {most:?}, all {all:?} \
             (median of {ROUNDS} rounds; best p99 {:?}, worst {:?}); hbd: {spent}",
            rounds[0].0,
            rounds[ROUNDS - 1].0
        );
    }
}

fn start() -> Daemon {
    Daemon::start("  host0: {}\ncorrelator: {wait_seconds: 3600}\n", "")
}

/// A webhook about so many plans.
fn webhook(ids: std::ops::Range<usize>) -> String {
    let alert = |id: usize| {
        format!(
            r#"{{"status":"firing","labels":{{"alertname":"BackupFailed","id":"{id}","name":"Nightly","node":"1","service":"backup","severity":"critical"}},"annotations":{{"summary_en":"Backup job Nightly (ID: {id}) has failed."}},"startsAt":"2026-11-21T20:12:11.503Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://p:9091/graph","fingerprint":"{id:016x}"}}"#
        )
    };
    let alerts: Vec<String> = ids.map(alert).collect();
    format!(
        r#"{{"receiver":"heartbeat","status":"firing","alerts":[{}],"groupLabels":{{}},"commonLabels":{{}},"commonAnnotations":{{}},"externalURL":"http://a:9093","version":"4","groupKey":"{{}}:{{}}","truncatedAlerts":0}}"#,
        alerts.join(",")
    )
}

/// What the daemon used of the processor so far.
#[derive(Clone, Copy)]
struct Spent {
    user: Duration,
    system: Duration,
}

impl Spent {
    /// In ticks of 10 ms (proc(5), /proc/PID/stat: fields 14 and 15).
    fn of(daemon: &Daemon) -> Spent {
        let path = format!("/proc/{}/stat", daemon.process.id());
        let text = fs::read_to_string(path).expect("the process lives");
        let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
        let field = |number: usize| fields.split(' ').nth(number - 3).expect("the field").parse();
        let ticks = |number| Duration::from_millis(10) * field(number).expect("a number");
        Spent { user: ticks(14), system: ticks(15) }
    }

    fn since(self, before: Spent) -> Spent {
        Spent { user: self.user - before.user, system: self.system - before.system }
    }

    fn per(self, count: usize) -> String {
        let each = |time: Duration| time.as_micros() / count as u128;
        format!("{} us user and {} us system a request", each(self.user), each(self.system))
    }
}
