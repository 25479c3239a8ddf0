//! What floods leave behind: memory that is bounded while they last and given back after them, and one
//! word to people.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod redis;
}

use std::fs;
use std::net::UdpSocket;

use serde_json::{Value, json};
use support::hbd::{Hbd, TIMEOUT};
use support::mattermost::MattermostDouble;
use support::redis::Redis;

const MB: i64 = 1024;

/// hbd, and the chat that it tells.
struct Place {
    hbd: Hbd,
    chat: MattermostDouble,
    redis: Redis,
    _directory: tempfile::TempDir,
}

impl Place {
    fn start(heartbeat: &str, wait: u64) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let (chat, redis) = (MattermostDouble::start(), Redis::start());
        let text = format!(
            "state_dir: {state}\nheartbeat: {{port: 0{heartbeat}}}\nreceiver: {{port: 0}}\n\
             notification_channels:\n  chat: {{type: mattermost, host: \"{url}\", token: {token}, channel: ops}}\n\
             default_notification_channels: [chat]\n\
             correlator: {{wait_seconds: {wait}, max_wait_seconds: 1, redis_url: \"{redis}\"}}\n",
            state = directory.path().join("state").display(),
            url = chat.url,
            token = chat.token,
            redis = redis.settings().redis_url,
        );
        let file = directory.path().join("heartbeat.yaml");
        fs::write(&file, text).unwrap();
        Place { hbd: Hbd::start(&file), chat, redis, _directory: directory }
    }

    /// How many messages with these words people got.
    fn told(&self, words: &str) -> usize {
        self.chat.received().iter().filter(|post| post.text.contains(words)).count()
    }

    /// Waits until its own memory, in kB, is no more than that.
    fn wait_for_memory(&self, most: i64) {
        self.hbd.wait_until("memory given back", |hbd| hbd.memory() <= most);
    }
}

fn alert(name: &str, id: usize) -> Value {
    json!({"status": "firing", "labels": {"alertname": name, "id": id.to_string()}})
}

fn body(alerts: impl Iterator<Item = Value>) -> String {
    json!({"version": "4", "alerts": alerts.collect::<Vec<_>>()}).to_string()
}

#[test]
fn bodies_of_nothing_but_brackets_took_600_mb_and_kept_half_of_it() {
    let place = Place::start("", 3600);
    let (memory, peak) = (place.hbd.memory(), place.hbd.peak());
    let size = (4 << 20) - 100;
    let good = alert("BackupFailed", 7).to_string();
    for (number, (begin, repeated, end)) in [
        ("{\"alerts\":[", "[],", ""),
        ("{\"x\":[0", ",{\"\":[]}", "],\"alerts\":["),
        ("{\"x\":[[\"", "\\ud800\u{1}\u{ffff}", "\"]],\"alerts\":["),
        ("{\"alerts\":[", "{\"labels\":{\"\":\"\"}},", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let junk = repeated.repeat(size / repeated.len());
        let alert = good.replace("\"7\"", &format!("\"{number}\""));
        let body = format!("{begin}{junk}{end}{alert}]}}");
        assert_eq!(place.hbd.alert(&body), 200, "{repeated}");
        assert_eq!(place.hbd.metric("hbd_alerts_received_total"), number as f64 + 1.0);
    }
    assert_eq!(place.hbd.alert(&"[".repeat(size)), 400);
    let grown = place.hbd.peak() - peak;
    assert!(grown < 60 * MB, "{grown} kB");
    place.wait_for_memory(memory + 12 * MB);
}

#[test]
fn a_body_of_45_000_alerts_took_a_tree_of_all_of_them() {
    let place = Place::start("", 3600);
    let (memory, peak) = (place.hbd.memory(), place.hbd.peak());
    let others = (0..45_000).map(|id| alert("Other", id));
    assert_eq!(place.hbd.alert(&body(others.chain([alert("BackupFailed", 7)]))), 200);
    assert_eq!(place.hbd.metric("hbd_alerts_received_total"), 1.0);
    let grown = place.hbd.peak() - peak;
    assert!(grown < 50 * MB, "{grown} kB");
    place.wait_for_memory(memory + 12 * MB);
}

#[test]
fn what_is_reported_and_what_waits_is_bounded_and_people_are_told_once() {
    let place = Place::start("", 0);
    place.redis.run_lines(&["HSET cluster/backup/1 name Nightly repository d1 enabled 1"]);
    let instances = |from: usize| {
        let about_one = |number: usize| {
            let mut alert = alert("BackupFailed", 1);
            alert["fingerprint"] = format!("{number:016x}").into();
            alert["startsAt"] = "2026-11-21T20:12:11.503Z".into();
            alert
        };
        body((from..from + 9_500).map(about_one))
    };
    for round in 0..7 {
        place.hbd.wait_until("taken", |hbd| hbd.alert(&instances(round * 9_500)) == 200);
        place.hbd.wait_until("reported", |hbd| hbd.metric("hbd_pipelines") == 0.0);
    }
    let reported = place.hbd.metric("hbd_limit_used{limit=\"reported_alerts\"}");
    assert!((9_500.0..=50_000.0).contains(&reported), "{reported}");
    place.hbd.wait_until("told", |_| place.told("more backup alerts were reported") == 1);
    let looked_into = place.hbd.logged("backup alerts came in");
    assert_eq!(place.hbd.alert(&instances(6 * 9_500)), 200);
    assert_eq!(place.hbd.logged("backup alerts came in"), looked_into, "the newest are repeats");
    place.wait_for_memory(80 * MB);
}

#[test]
fn metrics_of_hosts_that_nobody_configured_filled_the_memory() {
    let place = Place::start(", unknown_hosts: accept, max_unknown_bytes: 2000000", 0);
    let memory = place.hbd.memory();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(place.hbd.last_address("heartbeats on UDP ")).unwrap();
    udp.set_read_timeout(Some(TIMEOUT)).unwrap();
    for host in 0..150 {
        for part in 0..14 {
            let path = |n: usize| (format!("{host}.{part}.{n}.{}", "x".repeat(180)), json!(1));
            let metrics: serde_json::Map<_, _> = (0..37).map(path).collect();
            let beat =
                json!({"host": format!("h{host}"), "ack": true, "time": 1, "metrics": metrics});
            udp.send(beat.to_string().as_bytes()).unwrap();
            udp.recv(&mut [0; 9000]).unwrap();
        }
    }
    let grown = place.hbd.memory() - memory;
    assert!(grown < 12 * MB, "{grown} kB");
    assert_eq!(place.hbd.metric("hbd_limit_used{limit=\"unknown_hosts\"}"), 150.0);
    let used = place.hbd.metric("hbd_limit_used{limit=\"unknown_host_bytes\"}");
    assert!(used < 2_100_000.0, "{used}");
    assert!(place.hbd.metric("hbd_limit_reached_total{limit=\"unknown_host_bytes\"}") > 1000.0);
    place.hbd.wait_until("told", |_| place.told("hosts that are not configured take 2 MB") == 1);
    assert_eq!(place.hbd.metric("hbd_connection_up"), 150.0, "all of their beats are kept");
}

#[test]
fn an_endless_value_in_redis_was_read_to_its_end() {
    let place = Place::start("", 0);
    place.redis.run_lines(&[
        "HSET cluster/backup/1 name Nightly repository d1 schedule daily enabled 1 instances mail1",
        "HSET cluster/module_node mail1 1",
        "HSET cluster/module_uuid mail1 uuid",
    ]);
    place.redis.run(&["SETRANGE", "cluster/long", "60000000", "x"]);
    let copy =
        "redis.call('HSET', 'node/1/backup_status/1', 'mail1', redis.call('GET', 'cluster/long'))";
    place.redis.run(&["EVAL", copy, "0"]);
    let peak = place.hbd.peak();
    assert_eq!(place.hbd.alert(&body([alert("BackupFailed", 1)].into_iter())), 200);
    let text = place.chat.wait_for(1, TIMEOUT).remove(0).text;
    assert!(text.contains("it takes more than 4 MB"), "{text}");
    let grown = place.hbd.peak() - peak;
    assert!(grown < 50 * MB, "{grown} kB");
}
