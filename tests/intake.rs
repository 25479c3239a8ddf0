//! What comes in at `/alert`: what a real Alertmanager sends and what others send, and the trace that
//! is left by what is refused.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod alertmanager;
    pub mod certificates;
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod redis;
}

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use heartbeat::escape::is_unseen;
use serde_json::{Value, json};
use support::alertmanager::Alertmanager;
use support::certificates::certificates;
use support::hbd::{Hbd, TIMEOUT};
use support::mattermost::MattermostDouble;
use support::redis::Redis;

/// hbd with this section `receiver`, and more; the directory and the chat that it tells.
struct Place {
    directory: tempfile::TempDir,
    chat: MattermostDouble,
    redis: Redis,
}

impl Place {
    fn new() -> Place {
        let redis = Redis::start();
        redis.run_lines(&[
            "HSET cluster/backup/1 name Nightly repository d1 schedule daily enabled 1 instances mail1",
            "HSET cluster/module_node mail1 1",
            "HSET cluster/module_uuid mail1 uuid",
        ]);
        let status = r#"{"start": 1790000000, "errors": 2, "end": 1790000420}"#;
        redis.run(&["HSET", "node/1/backup_status/1", "mail1", status]);
        Place { directory: tempfile::tempdir().unwrap(), chat: MattermostDouble::start(), redis }
    }

    fn start(&self, receiver: &str, wait: u64, more: &str) -> Hbd {
        let text = format!(
            "state_dir: {state}\nheartbeat: {{port: 0}}\nreceiver: {{port: 0{receiver}}}\n\
             notification_channels:\n  chat: {{type: mattermost, host: \"{url}\", token: {token}, channel: ops}}\n\
             default_notification_channels: [chat]\n\
             correlator: {{wait_seconds: {wait}, max_wait_seconds: 2, redis_url: \"{redis}\"}}\n{more}",
            state = self.directory.path().join("state").display(),
            url = self.chat.url,
            token = self.chat.token,
            redis = self.redis.settings().redis_url,
        );
        let file = self.directory.path().join("heartbeat.yaml");
        fs::write(&file, text).unwrap();
        Hbd::start(&file)
    }
}

fn alert(status: &str, id: &str) -> Value {
    json!({"status": status, "labels": {"alertname": "BackupFailed", "id": id}})
}

fn webhook(alerts: &[Value]) -> String {
    json!({"version": "4", "alerts": alerts}).to_string()
}

/// The status of the answer to these very bytes.
fn status(hbd: &Hbd, request: &str) -> u16 {
    let mut stream = TcpStream::connect(hbd.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&answer)
}

/// How many alerts were refused for a reason.
fn refused(hbd: &Hbd, reason: &str) -> u64 {
    let (_, answer) = hbd.request("GET", "/metrics", b"");
    let name = format!("hbd_alerts_refused_total{{reason=\"{reason}\"}} ");
    let line = answer.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}in {answer}")).parse().unwrap()
}

#[test]
fn what_nobody_sees_turned_lines_of_the_log_and_steered_the_terminal() {
    const EVIL: &str = "a\u{202e}b\u{200b}\u{2066}c\u{9b}31m\u{2028}\u{e0041}\u{7f}\u{ad}d";
    let place = Place::new();
    place.redis.run(&["HSET", "cluster/backup/1", "name", EVIL]);
    let hbd = place.start(
        "",
        0,
        "hosts: {web1: {watch: true}}\nthreshold_configs: {default: {\"m.*\": {warning: \"> 1\"}}}\n",
    );
    let alert = json!({
        "status": "firing",
        "labels": {"alertname": "BackupFailed", "id": "1", EVIL: EVIL},
        "annotations": {"summary": EVIL, EVIL: EVIL},
    });
    assert_eq!(hbd.alert(&webhook(&[alert])), 200);
    for more in [
        json!({"metrics": {"m": {"x\u{202e}\u{200b}y": 95}}}),
        json!({"event": "message", "message": EVIL}),
    ] {
        let mut beat = json!({"host": "web1"});
        beat.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, said) = hbd.request("POST", "/api/v1/heartbeat", beat.to_string().as_bytes());
        assert_eq!(status, 200, "{said}");
    }
    let chat = || place.chat.received().into_iter().map(|post| post.text).collect::<Vec<_>>();
    hbd.wait_until("all is told", |_| chat().len() >= 3);
    let mut sinks = vec![hbd.log().join("\n"), chat().join("\n")];
    for target in [
        "/",
        "/hosts/web1",
        "/backups",
        "/metrics",
        "/api/v1/hosts",
        "/api/v1/events",
        "/api/v1/backups",
        "/api/v1/alerts",
        "/api/v1/notifications",
    ] {
        sinks.push(hbd.request("GET", target, b"").1);
    }
    for sink in &sinks {
        let unseen = |c: char| is_unseen(c) && !"\r\n".contains(c);
        assert!(!sink.contains(unseen), "{:?}", sink.escape_debug().to_string());
    }
    let all = sinks.join("\n");
    assert!(all.contains("abc31m") && all.contains("\\u202e"), "{all}");
    // A program is told what was said.
    let events = hbd.request("GET", "/api/v1/events", b"").1;
    let title = format!("web1 {EVIL}");
    let events: Value = serde_json::from_str(events.split_once("\r\n\r\n").unwrap().1).unwrap();
    let told = events["events"].as_array().unwrap().iter().any(|event| event["text"] == *title);
    assert!(told, "{events}");
    hbd.stop();
}

#[test]
fn an_alert_that_was_refused_left_no_trace() {
    let place = Place::new();
    let hbd = place.start("", 3600, "");
    let reasons = ["malformed", "not_found", "method_not_allowed", "too_large", "unauthorized"];
    assert_eq!(reasons.map(|reason| refused(&hbd, reason)), [0; 5]);
    for _ in 0..3 {
        assert_eq!(hbd.alert("no JSON"), 400);
        assert_eq!(hbd.request("POST", "/alerts?token=hunter2", b"{}").0, 404);
        assert_eq!(hbd.request("GET", "/alert", b"").0, 405);
        assert_eq!(hbd.request("POST", "/alert", &vec![b' '; 5 << 20]).0, 413);
    }
    assert_eq!(reasons.map(|reason| refused(&hbd, reason)), [3, 3, 3, 3, 0]);
    for (status, words) in [
        (400, "the body is not JSON"),
        (404, "alerts are taken at /alert"),
        (405, "a redirect makes a GET of a POST"),
        (413, "the body is larger than 4 MiB; max_alerts"),
    ] {
        let line =
            hbd.wait_log(&format!("an alert from 127.0.0.1 was refused with status {status}"));
        assert!(line.contains(words), "{line}");
        assert_eq!(hbd.logged(&format!("was refused with status {status}")), 1, "once a minute");
    }
    assert_eq!(hbd.logged("hunter2"), 0);
    // What is not meant for it is not counted.
    assert_eq!(hbd.request("POST", "/api/v1/heartbeat", b"{").0, 400);
    assert_eq!(hbd.request("GET", "/nowhere", b"").0, 404);
    assert_eq!(hbd.metric("hbd_alerts_refused_total"), 12.0);
}

#[test]
fn an_alertmanager_with_a_wrong_path_or_token_or_without_tls_was_not_noticed() {
    let place = Place::new();
    let hbd = place.start(", token: a-long-random-word", 3600, "");
    let wrong = Alertmanager::sending_to(&format!("http://{}/webhook", hbd.address), "1h");
    wrong.fire(&[("BackupFailed", "1")]);
    let line = hbd.wait_log("was refused with status 401");
    assert!(line.contains("http_config.authorization"), "{line}");
    hbd.stop();
    let hbd = place.start("", 3600, "");
    let wrong = Alertmanager::sending_to(&format!("http://{}/webhook", hbd.address), "1h");
    wrong.fire(&[("BackupFailed", "1")]);
    hbd.wait_log("was refused with status 404");
    hbd.stop();
    let pair = &certificates().good;
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    let tls = format!(", tls: {{certificate_file: {certificate}, key_file: {key}}}");
    let hbd = place.start(&tls, 3600, "");
    let wrong = Alertmanager::sending_to(&format!("http://{}/alert", hbd.address), "1h");
    wrong.fire(&[("BackupFailed", "1")]);
    hbd.wait_log("was refused with status 400: this port speaks HTTPS");
}

#[test]
fn an_alert_was_refused_for_the_form_of_its_first_line() {
    let place = Place::new();
    let hbd = place.start("", 3600, "");
    for (number, target) in
        ["/alert", "/alert/", "//alert", "http://hbd.example:9099/alert", "HTTP://h/alert/"]
            .iter()
            .enumerate()
    {
        let body = webhook(&[alert("firing", &number.to_string())]);
        let length = body.len();
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
        assert_eq!(status(&hbd, &request), 200, "{target}");
    }
    assert_eq!(hbd.metric("hbd_alerts_received_total"), 5.0);
    assert_eq!(hbd.metric("hbd_pipelines"), 5.0);
}

#[test]
fn a_lone_surrogate_in_one_annotation_cost_all_alerts() {
    let place = Place::new();
    let hbd = place.start("", 3600, "");
    let mut spoiled = alert("firing", "1");
    spoiled["annotations"] = json!({"summary": "SPOILED"});
    let body = webhook(&[spoiled, alert("firing", "2")]);
    for (number, by) in [&b"\\ud83d"[..], b"\xff\xfe", b"a\nb"].into_iter().enumerate() {
        let at = body.find("SPOILED").unwrap();
        let body = [&body.as_bytes()[..at], by, &body.as_bytes()[at + 7..]].concat();
        assert_eq!(hbd.request("POST", "/alert", &body).0, 200, "{by:?}");
        assert_eq!(hbd.metric("hbd_alerts_received_total"), 2.0 * (number as f64 + 1.0));
    }
}

#[test]
fn alerts_that_an_alertmanager_left_out_were_about_nothing() {
    let place = Place::new();
    let hbd = place.start("", 0, "");
    let url = format!("http://{}/alert", hbd.address);
    let alertmanager = Alertmanager::sending_groups_to(&url, "max_alerts: 1");
    alertmanager.fire(&[("BackupFailed", "1"), ("BackupFailed", "2"), ("BackupFailed", "3")]);
    let text = place.chat.wait_for(1, TIMEOUT).remove(0).text;
    assert!(text.contains("the sender left out 2 alerts"), "{text}");
    assert!(text.contains("Nightly"), "{text}");
}

#[test]
fn an_alert_about_a_backup_that_is_in_no_list_was_ignored_in_silence() {
    let place = Place::new();
    let hbd = place.start("", 3600, "");
    let alertmanager = Alertmanager::sending_to(&format!("http://{}/alert", hbd.address), "1s");
    alertmanager.fire(&[("backup_failed", "1"), ("PgBackupOld", "2"), ("DiskFull", "3")]);
    let line = hbd.wait_log("PgBackupOld");
    assert!(line.contains("receiver.alert_names does not list it"), "{line}");
    hbd.wait_until("a repeat", |hbd| hbd.metric("hbd_alerts_received_total") >= 2.0);
    assert_eq!(hbd.logged("receiver.alert_names does not list it"), 1);
    assert_eq!(hbd.metric("hbd_pipelines"), 1.0, "the old name of NethServer is in the list");
}

#[test]
fn an_alert_without_a_readable_start_took_last_nights_run_for_an_all_clear() {
    let place = Place::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // It was due half an hour ago, and last ran the day before.
    let due = (now - 1800) % 86_400;
    let schedule = format!("*-*-* {:02}:{:02}:00", due / 3600, due % 3600 / 60);
    place.redis.run(&["HSET", "cluster/backup/1", "schedule", &schedule]);
    let end = now - 23 * 3600 - 1800;
    let status = format!(r#"{{"start": {}, "errors": 0, "end": {end}}}"#, end - 60);
    place.redis.run(&["HSET", "node/1/backup_status/1", "mail1", &status]);
    let starts =
        [json!(null), json!("0001-01-01T00:00:00Z"), json!("2026-11-21T20:12:11"), json!(0)];
    let with_start = |start: Value| {
        let mut alert = alert("firing", "1");
        alert["labels"]["start"] = json!(start.to_string());
        alert["startsAt"] = start;
        alert
    };
    let hbd = place.start("", 0, "");
    for start in starts {
        assert_eq!(hbd.alert(&webhook(&[with_start(start)])), 200);
    }
    place.chat.wait_for(1, TIMEOUT);
    hbd.settled();
    for post in place.chat.received() {
        assert!(!post.text.contains("SUCCESS"), "{}", post.text);
    }
}

#[test]
fn two_alerts_without_a_start_and_a_resolved_one_between_were_one() {
    let place = Place::new();
    let hbd = place.start("", 0, "");
    let send = |status: &str| assert_eq!(hbd.alert(&webhook(&[alert(status, "1")])), 200);
    let looked_into = || hbd.logged("backup alerts came in");
    send("firing");
    hbd.settled();
    send("firing");
    hbd.settled();
    assert_eq!(looked_into(), 1, "a repeat");
    send("resolved");
    send("firing");
    hbd.wait_until("the next", |_| looked_into() == 2);
    hbd.settled();
    send("firing");
    assert_eq!(looked_into(), 2);
}

#[test]
fn a_watchdog_that_is_resolved_is_news() {
    let place = Place::new();
    let hosts = "hosts: {prometheus: {watch: true}}\n";
    let hbd = place.start(", heartbeat_alerts: {Watchdog: prometheus}", 0, hosts);
    let alertmanager = Alertmanager::sending_to(&format!("http://{}/alert", hbd.address), "1h");
    let since = "2026-11-21T20:12:11.503Z";
    alertmanager.tell("Watchdog", "0", since, None);
    let connections = || {
        let (_, answer) = hbd.request("GET", "/api/v1/hosts/prometheus", b"");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()["connections"].clone()
    };
    hbd.wait_until("a beat", |_| connections()[0]["name"] == "alertmanager");
    assert_eq!(connections()[0]["interval"], 12.0 * 3600.0);
    alertmanager.tell("Watchdog", "0", since, Some("2026-11-21T20:13:11Z"));
    hbd.wait_log("the sign of life of prometheus is resolved");
    assert!(place.chat.received().is_empty(), "it may fire again");
}
