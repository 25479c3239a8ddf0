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
        Place::start_with("")
    }

    /// With this below `heartbeat`, after the ports.
    fn start_with(heartbeat: &str) -> Place {
        let mut place = Place { directory: tempfile::tempdir().unwrap(), hbd: None };
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n\
             heartbeat: {{port: 0, unknown_hosts: accept{heartbeat}}}\nreceiver: {{port: 0}}\n\
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

    fn restart(&mut self) {
        self.hbd.take().unwrap().stop();
        self.hbd = Some(Hbd::start(&self.config()));
    }

    fn page(&self, path: &str) -> String {
        let (status, page) = self.hbd().request("GET", path, b"");
        assert_eq!(status, 200, "{path}: {page}");
        page.replace('\u{a0}', " ")
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

    /// Posts JSON, as a program does.
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_as("application/json", path, &body.to_string())
    }

    fn post_as(&self, content_type: &str, path: &str, body: &str) -> (u16, Value) {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("http://{}{path}", self.hbd().address);
        let mut answer = agent.post(url).header("Content-Type", content_type).send(body).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Place) -> bool) {
        self.hbd().wait_until(what, |_| holds(self));
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
fn a_silent_host_was_said_to_send_no_metrics_after_a_restart() {
    let mut place = Place::start_with(", grace: 0s");
    let metrics = json!({"cpu_monitor": {"cpu_percent": 12.5}});
    place.beat(&json!({"host": "web1", "interval": 0.2, "metrics": metrics}));
    let is_overdue = |place: &Place| place.get("/api/v1/hosts/web1").1["state"] == "OVERDUE";
    place.wait_for("it is overdue", is_overdue);
    place.restart();
    place.wait_for("it is overdue still", is_overdue);
    assert_eq!(place.get("/api/v1/hosts/web1").1["metrics"], json!([]));
    let page = place.page("/hosts/web1");
    let graph = "/hosts/web1/graph?metric=cpu_monitor.cpu_percent";
    for wanted in ["12.5 %", "<b>old, ", &format!("<a href=\"{graph}&amp;span=24h\"")] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    let page = place.page(graph);
    for wanted in ["<td class=n>12.5 %", "<title>web1 ipv4 overdue</title>", "cpu_percent"] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    assert!(place.page("/hosts/quiet").contains("It sends none."), "not of one that is new");
    assert!(place.page("/events?q=WEB&kind=presence").contains("web1 ipv4 overdue"));
    assert!(place.page("/events?q=quiet").contains("Nothing like that."));
    assert_eq!(place.hbd().request("GET", "/hosts/nobody/graph?metric=m", b"").0, 404);
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

#[test]
fn a_silence_is_stored_or_refused_by_the_name_of_its_field() {
    let mut place = Place::start();
    place.beat(&json!({"host": "web1", "metrics": {"m": 5}}));
    let silence = json!({"scope": "web1", "seconds": 3600, "comment": "kernel", "by": "ann"});
    let (status, set) = place.post("/api/v1/silences", &silence);
    assert_eq!((status, &set["id"], &set["kind"]), (201, &json!("s1"), &json!("silence")));
    assert_eq!(
        (&set["by"], &set["comment"], &set["told"]),
        (&"ann".into(), &"kernel".into(), &json!([]))
    );
    for (body, status, why) in [
        (json!({"scope": "web1"}), 400, "seconds: is missing"),
        (json!({"scope": "web1", "seconds": "soon"}), 400, "seconds: must be a number"),
        (json!({"scope": "web 1", "seconds": 1}), 400, "scope: must be a host such as"),
        (json!({"scope": "web1", "seconds": 1, "unless": "loud"}), 400, "unless: must be"),
        (json!({"scope": "web1", "seconds": 1, "by": ""}), 400, "by: must be"),
        (json!({"scope": "web1", "seconds": 1, "comment": "a\nb"}), 400, "comment: must be"),
        (json!({"scope": "web1", "seconds": 1, "comment": "c".repeat(501)}), 400, "comment: must"),
        (json!({"scope": "web1", "seconds": 1, "hots": 1}), 400, "hots: unknown"),
        (json!({"scope": "web1", "seconds": 0}), 400, "a silence lasts from 1 s to 4 w"),
        (json!({"scope": "web1", "seconds": 1e9}), 409, "a silence lasts from 1 s to 4 w"),
        (
            json!({"scope": "wbe1", "seconds": 1}),
            404,
            "no host is called \"wbe1\", did you mean \"web1\"?",
        ),
        (
            json!({"scope": "web1/n", "seconds": 1}),
            404,
            "web1 has no connection and no metric \"n\"",
        ),
        (json!({"scope": "wbe*", "seconds": 1}), 404, "no host matches"),
    ] {
        let (found, answer) = place.post("/api/v1/silences", &body);
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(found == status && said.starts_with(why), "{body}: {found} {answer}");
    }
    let text = silence.to_string();
    for path in
        ["silences", "silences/s1/end", "silences/end", "acknowledgements", "acknowledgements/end"]
    {
        let path = format!("/api/v1/{path}");
        assert_eq!(place.post_as("text/plain", &path, &text).0, 415, "{path}");
    }
    place.kill();
    let (_, now) = place.get("/api/v1/silences");
    let silences = now["silences"].as_array().unwrap();
    assert_eq!(silences.len(), 1, "{now}");
    assert_eq!((&silences[0]["id"], &silences[0]["scope"]), (&json!("s1"), &json!("web1")));
    assert_eq!(place.get("/api/v1/hosts/web1").1["quiet"], json!(["s1"]));
    assert_eq!(place.get("/api/v1/hosts/quiet").1["quiet"], json!([]));
    assert_eq!(place.hbd().metric("hbd_silences"), 1.0);
    let (status, ended) = place.post("/api/v1/silences/s1/end", &json!({"by": "bob"}));
    assert_eq!((status, &ended), (200, &json!({"ended": ["s1"], "follows": []})));
    assert_eq!(place.post("/api/v1/silences/s1/end", &json!({})).0, 404);
    assert_eq!(place.post("/api/v1/silences", &json!({"scope": "web1", "seconds": 9})).0, 201);
    for no_id in ["--all", "web1", "s%20x"] {
        let path = format!("/api/v1/silences/{no_id}/end");
        assert_eq!(place.post(&path, &json!({})).0, 404, "a scope is no id: {no_id}");
    }
    assert_eq!(place.post("/api/v1/silences/end", &json!({"scope": "web1"})).0, 200);
    for (scope, which) in [("web*", "web*"), ("--all", "--all")] {
        assert_eq!(place.post("/api/v1/silences", &json!({"scope": scope, "seconds": 9})).0, 201);
        assert_eq!(place.post("/api/v1/silences/end", &json!({"scope": which})).0, 200);
        assert_eq!(place.post("/api/v1/silences/end", &json!({"scope": which})).0, 404);
    }
    assert_eq!(place.get("/api/v1/silences").1["silences"], json!([]));
    assert_eq!(place.get("/api/v1/hosts").1["hosts"][0]["quiet"], json!([]));
}

#[test]
fn what_a_silence_holds_back_is_shown_and_told_when_it_ends() {
    let place = Place::start_with(", grace: 0s");
    let silence = json!({"scope": "web1/ipv4", "seconds": 3600, "by": "ann"});
    place.beat(&json!({"host": "web1", "interval": 0.2}));
    // It may be overdue by then, and told.
    let (status, set) = place.post("/api/v1/silences", &silence);
    assert_eq!(status, 201, "{set}");
    place.beat(&json!({"host": "web1", "interval": 0.3}));
    place.wait_for("it is held back", |place| {
        place.get("/api/v1/held").1["held"].as_array().is_some_and(|held| !held.is_empty())
    });
    let (_, held) = place.get("/api/v1/held");
    let one = &held["held"][0];
    assert_eq!((&one["subject"], &one["text"]), (&json!("host web1"), &json!("web1 ipv4 overdue")));
    assert_eq!((&one["level"], &one["out_at"]), (&json!("critical"), &Value::Null));
    let reason = &one["reasons"][0];
    assert_eq!((&reason["why"], &reason["id"]), (&json!("silence"), &json!("s1")));
    assert_eq!(reason["channels"], json!(["log"]));
    let alert = place.get("/api/v1/alerts").1["alerts"][0].clone();
    assert_eq!((&alert["channels"], &alert["scope"]), (&json!([]), &json!("web1/ipv4")));
    assert_eq!((&alert["held"]["text"], &alert["told"]), (&one["text"], &json!([])));
    let (_, events) = place.get("/api/v1/events?kind=overdue&limit=1");
    assert_eq!(events["events"][0]["held_by"], json!(["s1"]));
    assert_eq!(place.hbd().metric("hbd_held"), 1.0);
    let page = place.hbd().request("GET", "/", b"").1;
    assert!(page.contains("1 silence holds 1 thing back"), "{page}");
    let (status, refused) = place.post("/api/v1/acknowledgements", &json!({"scope": "web1"}));
    assert_eq!(
        (status, &refused["error"]),
        (404, &json!("nothing that was told is wrong with web1"))
    );
    let (status, ended) = place.post("/api/v1/silences/end", &json!({"scope": "web1/ipv4"}));
    assert_eq!((status, &ended["follows"][0]["text"]), (200, &json!("web1 ipv4")), "{ended}");
    place.wait_for("it is told", |place| {
        place.get("/api/v1/alerts").1["alerts"][0]["told"] == json!(["log"])
    });
    let (_, told) = place.get("/api/v1/notifications?delivered=true&limit=1");
    assert_eq!(told["notifications"][0]["title"], "web1 ipv4 overdue");
    let page = place.hbd().request("GET", "/", b"").1;
    assert!(!page.contains("holds"), "{page}");
    let ack = json!({"scope": "web1/ipv4", "comment": "on my way", "by": "ann"});
    let (status, done) = place.post("/api/v1/acknowledgements", &ack);
    assert_eq!((status, done), (200, json!({"acknowledged": ["web1 ipv4 overdue"]})));
    assert_ne!(place.get("/api/v1/alerts").1["alerts"][0]["acknowledged"], Value::Null);
    assert_eq!(place.hbd().metric("hbd_acknowledged"), 1.0);
    for status in [200, 404] {
        let found = place.post("/api/v1/acknowledgements/end", &json!({"scope": "web1"}));
        assert_eq!(found.0, status, "{found:?}");
    }
    assert_eq!(place.post("/api/v1/acknowledgements", &json!({"scope": "wbe1"})).0, 404);
    let wrong = place.post("/api/v1/acknowledgements", &json!({"scope": "web1", "seconds": 0}));
    assert_eq!(wrong.0, 400, "{wrong:?}");
}

#[test]
fn the_forms_of_the_page_do_what_they_say_and_lead_back() {
    let place = Place::start();
    place.beat(&json!({"host": "web1", "metrics": {"m": 95.5}}));
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let post = |path: &str, body: &str, origin: &str| {
        let url = format!("http://{}{path}", place.hbd().address);
        let answer = agent
            .post(url)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Origin", origin)
            .send(body)
            .unwrap();
        let place = answer.headers().get("location");
        (answer.status().as_u16(), place.map(|place| place.to_str().unwrap().to_owned()))
    };
    let ours = format!("http://{}", place.hbd().address);
    let form = "scope=web1%2Fm&comment=on+my+way&seconds=3600&back=%2Fhosts%2Fweb1";
    assert_eq!(post("/silence", form, "http://evil.example"), (403, None));
    let back = |to: &str| (303, Some(to.to_owned()));
    assert_eq!(post("/silence", form, &ours), back("/hosts/web1"));
    let (_, silences) = place.get("/api/v1/silences");
    let one = &silences["silences"][0];
    assert_eq!((&one["scope"], &one["comment"]), (&json!("web1/m"), &json!("on my way")));
    assert_eq!(one["by"], "127.0.0.1");
    assert_eq!(post("/unsilence", "id=s1&back=//evil.example/", &ours), back("/"));
    assert_eq!(post("/unsilence", "id=s1", &ours), (404, None));
    assert_eq!(post("/ack", "scope=web1&comment=&back=/hosts/%0d%0aX:y", &ours), back("/"));
    assert_eq!(place.hbd().metric("hbd_acknowledged"), 1.0);
    let undone = post("/ack", "scope=web1&undo=1&comment=not+so", &ours);
    assert_eq!(undone, back("/"), "the field for a comment stands beside the button");
    assert_eq!(place.hbd().metric("hbd_acknowledged"), 0.0);
    assert_eq!(post("/silence", "scope=web1", &ours), (400, None));
    assert_eq!(place.post_as("application/json", "/silence", "{}").0, 415);
    for path in ["/silence", "/unsilence", "/ack"] {
        assert_eq!(place.hbd().request("GET", path, b"").0, 405, "{path}");
    }
}
