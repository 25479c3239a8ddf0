//! Events, alerts, backups and badges over HTTP, of a daemon that is killed in between.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod hbd;
    pub mod http_double;
}

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::hbd::Hbd;
use tempfile::TempDir;

struct Place {
    directory: TempDir,
    hbd: Option<Hbd>,
}

impl Place {
    fn start() -> Place {
        let mut place = Place { directory: tempfile::tempdir().unwrap(), hbd: None };
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n\
             heartbeat: {{port: 0, unknown_hosts: accept}}\nreceiver: {{port: 0}}\n\
             state_dir: {}\ncorrelator: {{wait_seconds: 0, redis_url: \"redis://127.0.0.1:1\"}}\n\
             threshold_configs: {{default: {{m: {{critical: \"> 90\"}}}}}}\n\
             hosts: {{web1: {{watch: true}}, quiet: {{}}}}\n",
            place.directory.path().join("state").display()
        );
        fs::write(place.config(), text).unwrap();
        place.hbd = Some(Hbd::start(&place.config()));
        place
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    fn hbd(&self) -> &Hbd {
        self.hbd.as_ref().unwrap()
    }

    fn kill(&mut self) {
        self.hbd.take().unwrap().kill();
        self.hbd = Some(Hbd::start(&self.config()));
    }

    fn beat(&self, beat: &Value) {
        let (status, answer) =
            self.hbd().request("POST", "/api/v1/heartbeat", beat.to_string().as_bytes());
        assert_eq!(status, 200, "{answer}");
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, answer) = self.hbd().request("GET", path, b"");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn texts(&self, query: &str) -> Vec<String> {
        let (status, answer) = self.get(&format!("/api/v1/events?{query}"));
        assert_eq!(status, 200, "{query}: {answer}");
        let events = answer["events"].as_array().unwrap();
        events.iter().map(|event| event["text"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn what_happened_survives_a_kill_whether_or_not_anybody_was_told() {
    let mut place = Place::start();
    place.beat(&json!({"host": "web1", "metrics": {"m": 95.5}}));
    place.beat(&json!({"host": "quiet", "event": "boot", "boot_id": "a"}));
    place.beat(&json!({"host": "quiet", "event": "shutdown"}));
    place.beat(&json!({"host": "web1", "event": "message", "message": "<script>\u{1}\""}));
    place.beat(&json!({"host": "stranger", "event": "message", "message": "who am I"}));
    place.kill();
    place.beat(&json!({"host": "web1", "metrics": {"m": 10}}));
    let all = [
        "OK: web1 - m = 10.0 (threshold: > 90.0)",
        "web1 <script>\u{1}\"",
        "quiet ipv4 shutdown",
        "quiet booted",
        "CRITICAL: web1 - m = 95.5 (threshold: > 90.0)",
    ];
    assert_eq!(place.texts(""), all);
    assert_eq!(place.texts("host=quiet"), all[2..4]);
    assert_eq!(place.texts("level=critical,ok"), [all[0], all[4]]);
    assert_eq!(place.texts("kind=message"), all[1..2]);
    assert_eq!(place.texts("since=2100-01-01T00:00:00Z"), [""; 0]);
    assert_eq!(place.texts("until=2001-01-01T00:00:00Z"), [""; 0]);
    let (mut paged, mut before) = (Vec::new(), String::new());
    loop {
        let (_, page) = place.get(&format!("/api/v1/events?limit=2{before}"));
        let events = page["events"].as_array().unwrap();
        paged.extend(events.iter().map(|event| event["text"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(paged, all);
}

#[test]
fn what_is_wrong_now_is_shown_the_worst_first() {
    let place = Place::start();
    assert_eq!(place.get("/api/v1/alerts").1["alerts"], json!([]));
    place.beat(&json!({"host": "web1"}));
    place.beat(&json!({"host": "web1", "event": "shutdown"}));
    place.beat(&json!({"host": "quiet", "metrics": {"m": 95.5}}));
    let (_, answer) = place.get("/api/v1/alerts");
    let alerts = answer["alerts"].as_array().unwrap();
    let shown: Vec<_> = alerts
        .iter()
        .map(|alert| (alert["host"].as_str().unwrap(), alert["text"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("quiet", "m = 95.5 (> 90.0)"), ("web1", "ipv4 shutdown")]);
    assert_eq!(alerts[0]["level"], "critical");
    assert_eq!(alerts[0]["channels"], json!(["log"]));
    place.beat(&json!({"host": "web1"}));
    place.beat(&json!({"host": "quiet", "metrics": {"m": 5}}));
    assert_eq!(place.get("/api/v1/alerts").1["alerts"], json!([]));
}

#[test]
fn how_a_backup_fared_is_still_known_after_a_kill() {
    let mut place = Place::start();
    let alert = json!({"alerts": [{"status": "firing", "fingerprint": "a",
        "labels": {"alertname": "NsBackupFailed", "backup_id": "4<b>"}}]});
    assert_eq!(place.hbd().alert(&alert.to_string()), 200);
    place.hbd().settled();
    for _ in 0..2 {
        let (_, answer) = place.get("/api/v1/backups");
        let plan = &answer["plans"][0];
        assert_eq!((&plan["plan"], &plan["outcome"]), (&json!("4<b>"), &json!("UNKNOWN")));
        assert_eq!(plan["level"], "critical");
        assert!(plan["why"].as_str().unwrap().contains("Redis"), "{plan}");
        place.kill();
    }
    let (_, alerts) = place.get("/api/v1/alerts");
    assert_eq!(alerts["alerts"][0]["subject"], "plan 4<b>");
}

#[test]
fn a_host_has_a_history_and_a_badge_and_what_is_no_host_has_none() {
    let place = Place::start();
    place.beat(&json!({"host": "web1", "metrics": {"m": 95.5}}));
    let (status, past) = place.get("/api/v1/hosts/web1/history?metrics=*&range=7d");
    assert_eq!(status, 200);
    assert_eq!(past["hours"].as_array().unwrap().len(), 24);
    assert_eq!(past["days"].as_array().unwrap().len(), 90);
    assert_eq!(past["series"], json!([]), "ten minutes have not passed");
    let (_, badge) = place.hbd().request("GET", "/api/v1/hosts/web1/badge.svg", b"");
    assert!(badge.contains("image/svg+xml") && badge.contains("web1: critical"), "{badge}");
    for path in ["history", "badge.svg"] {
        let (status, answer) = place.get(&format!("/api/v1/hosts/%3Cscript%3E/{path}"));
        assert_eq!((status, &answer["error"]), (404, &json!("no host is called \"<script>\"")));
    }
    assert_eq!(place.get("/api/v1/hosts/web1/history?range=long").0, 400);
    place.beat(&json!({"host": "stranger"}));
    let (_, nothing) = place.get("/api/v1/hosts/stranger/history");
    assert_eq!((&nothing["hours"], &nothing["availability_day"]), (&json!([]), &Value::Null));
}

#[test]
fn ten_minutes_are_written_down_at_the_stop() {
    let mut place = Place::start();
    place.beat(&json!({"host": "web1", "metrics": {"m": 5}}));
    place.beat(&json!({"host": "web1", "metrics": {"m": 7.5}}));
    place.hbd.take().unwrap().stop();
    place.hbd = Some(Hbd::start(&place.config()));
    let (_, past) = place.get("/api/v1/hosts/web1/history?metrics=m");
    let point = &past["series"][0]["points"][0];
    let values = [&point["least"], &point["mean"], &point["most"]];
    assert_eq!(values, [&json!(5.0), &json!(6.25), &json!(7.5)]);
    for range in ["7d", "90d"] {
        let (_, past) = place.get(&format!("/api/v1/hosts/web1/history?metrics=m&range={range}"));
        assert_eq!(past["series"][0]["points"][0]["mean"], 6.25, "{range}");
    }
}

#[test]
fn the_log_shows_what_happened() {
    let place = Place::start();
    place.beat(&json!({"host": "web1", "event": "message", "message": "is \u{1b}[31mhot"}));
    place.beat(&json!({"host": "quiet", "event": "boot", "boot_id": "a"}));
    let log = |arguments: &[&str]| {
        let url = format!("http://{}", place.hbd().address);
        let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["log", "--url", &url])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let events = log(&["--events"]);
    assert!(events.contains("web1 is") && events.contains("quiet booted"), "{events}");
    assert!(!events.contains('\u{1b}'), "{events}");
    assert!(!log(&["--events", "web1"]).contains("quiet"));
    assert!(!log(&[]).contains("quiet booted"), "nobody was told");
    let json: Value = serde_json::from_str(&log(&["--events", "--json"])).unwrap();
    assert_eq!(json["events"].as_array().unwrap().len(), 2);
}
