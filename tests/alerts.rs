//! A failed backup is explained: from a real Prometheus and a real Alertmanager through hbd, a real
//! Redis and a real restic to the chat; and what remains of that when one of them hangs, lies, is
//! killed, or comes five hundred at once.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod alertmanager;
    pub mod burst;
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod prometheus;
    pub mod redis;
    pub mod restic;
}

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heartbeat::clock::Now;
use heartbeat::store::{CommitResult, Store, Table, Write as Row};
use serde_json::{Value, json};
use support::alertmanager::Alertmanager;
use support::burst::{burst, percentiles};
use support::hbd::{Hbd, TIMEOUT};
use support::http_double::{HttpDouble, reply};
use support::mattermost::{MattermostDouble, Mode, Post};
use support::prometheus::Prometheus;
use support::redis::Redis;
use support::restic::{PASSWORD, Restic};

/// A cluster whose nightly backup of mail failed.
fn cluster() -> Redis {
    let redis = Redis::start();
    redis.run_lines(&[
        "HSET cluster/backup/1 name Nightly repository d1 schedule daily enabled 1",
        "HSET cluster/backup_repository/d1 name Box provider generic-s3 url s3:x",
        "HSET cluster/module_node mail1 1 nextcloud2 1",
        "HSET cluster/module_uuid mail1 uuid nextcloud2 uuid",
        "SET module/mail1/ui_name Office",
    ]);
    redis.run(&["HSET", "cluster/backup/1", "instances", "mail1 nextcloud2"]);
    redis.run(&["HSET", "node/1/backup_status/1", "mail1", &status(2), "nextcloud2", &status(0)]);
    redis
}

fn status(errors: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (start, end) = (now - 99, now - 60);
    format!(r#"{{"start": {start}, "total_size": 5000, "errors": {errors}, "end": {end}}}"#)
}

/// What every report about that cluster is called.
const PARTIAL: &str = "backup Nightly PARTIAL: 1 of 2 modules failed";
/// A moment within the plan's window.
const SINCE: &str = "2026-11-21T20:12:11.503Z";

/// A webhook about plans, by their ids.
fn webhook(ids: &[&str]) -> String {
    let alert = |id: &&str| {
        json!({
            "status": "firing", "startsAt": SINCE, "fingerprint": format!("f{id}"),
            "labels": {"alertname": "BackupFailed", "id": id},
            "annotations": {"summary_en": format!("Backup job {id} has failed.")},
        })
    };
    json!({"version": "4", "alerts": ids.iter().map(alert).collect::<Vec<_>>()}).to_string()
}

/// A directory for hbd, and the chat that it tells.
struct Place {
    directory: tempfile::TempDir,
    chat: MattermostDouble,
}

/// What differs from test to test, as YAML in flow style.
#[derive(Clone, Default)]
struct Setup {
    receiver: String,
    wait: u64,
    redis: String,
    login: &'static str,
    more: String,
}

impl Setup {
    fn with(redis: &Redis) -> Setup {
        Setup { redis: redis.settings().redis_url, ..Setup::default() }
    }

    fn repositories(mut self, restic: &Restic, program: &str) -> Setup {
        let template = restic.path("{repository}/{path}").display().to_string();
        self.more += &format!(
            "repo_check:\n  restic_path: {program}\n  timeout_seconds: 2\n  repositories:\n    \
             default: {{repository: \"{template}\", password: {PASSWORD}}}\n"
        );
        self
    }
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap(), chat: MattermostDouble::start() }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn start(&self, setup: &Setup) -> Hbd {
        let Setup { receiver, wait, redis, login, more } = setup;
        let text = format!(
            "state_dir: {state}\nheartbeat: {{port: 0}}\nreceiver: {{port: 0, {receiver}}}\n\
             notification_channels:\n  chat: {{type: mattermost, host: \"{url}\", token: {token}, channel: ops}}\n\
             default_notification_channels: [chat]\n\
             correlator: {{wait_seconds: {wait}, max_wait_seconds: 2, redis_url: \"{redis}\"{login}}}\n{more}",
            state = self.state().display(),
            url = self.chat.url,
            token = self.chat.token,
        );
        let file = self.directory.path().join("heartbeat.yaml");
        fs::write(&file, text).unwrap();
        Hbd::start(&file)
    }

    /// The posts, of which there must be so many and no more once hbd has nothing left to do.
    fn posts(&self, hbd: &Hbd, count: usize) -> Vec<Post> {
        self.chat.wait_for(count, TIMEOUT);
        hbd.settled();
        let posts = self.chat.received();
        let texts: Vec<_> = posts.iter().map(|post| &post.text).collect();
        assert_eq!(posts.len(), count, "{texts:#?}");
        assert_eq!(self.chat.violations(), [""; 0]);
        posts
    }

    /// The only post.
    fn report(&self, hbd: &Hbd) -> String {
        self.posts(hbd, 1).remove(0).text
    }
}

/// Something on a port that takes connections, answers each with `bytes`, and then says nothing.
/// Each connection is told.
fn deaf(bytes: &'static [u8]) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (tx, rx) = channel();
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            // Not every test counts them.
            let _ = tx.send(());
            open.push(stream.try_clone());
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(bytes);
            });
        }
    });
    (url, rx)
}

fn waits_for(url: &str) -> Setup {
    Setup { redis: url.to_owned(), ..Setup::default() }
}

#[test]
fn two_alertmanagers_that_say_the_same_again_and_again_give_one_report_with_all_that_is_known() {
    let (place, redis, restic) = (Place::new(), cluster(), Restic::new());
    restic.make("d1/mail/uuid");
    let mut setup = Setup::with(&redis).repositories(&restic, "restic");
    setup.more = setup.more.replace("timeout_seconds: 2", "timeout_seconds: 60");
    let hbd = place.start(&setup);
    let url = format!("http://{}/alert", hbd.address);
    let pair = [Alertmanager::sending_to(&url, "1s"), Alertmanager::sending_to(&url, "1h")];
    for alertmanager in &pair {
        alertmanager.tell("BackupFailed", "1", SINCE, None);
    }
    let text = place.report(&hbd);
    for words in [
        PARTIAL,
        "mail1 (Office): 2 errors, ended ",
        "mail1: newest snapshot ",
        "the log of mail1 on node 1",
        "id 1, runs daily, to Box (generic-s3)",
        "BackupFailed (firing since 2026-11-21 20:12 UTC): It failed",
        "nextcloud2",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    hbd.wait_until("repeats", |hbd| hbd.metric("hbd_alerts_received_total") >= 4.0);
    let before = pair[1].sent();
    pair[1].tell("BackupFailed", "1", SINCE, Some("2026-11-21T20:13:11Z"));
    hbd.wait_until("a resolved", |_| pair[1].sent() > before);
    place.posts(&hbd, 1);
    assert_eq!(hbd.settled(), 1.0);
}

#[test]
fn a_failed_backup_of_nethserver_is_told_from_its_metric_to_the_chat() {
    let (place, redis) = (Place::new(), cluster());
    let hbd = place.start(&Setup::with(&redis));
    let exporter = HttpDouble::start(|_| {
        reply(200, "node_backup_status{id=\"1\",name=\"Nightly\",node=\"1\"} 0\n")
    });
    let rules = r#"
groups:
- name: backup
  rules:
  - alert: BackupFailed
    expr: node_backup_status == 0
    labels: {severity: critical, service: backup}
    annotations:
      summary_en: "Backup job {{ $labels.name }} (ID: {{ $labels.id }}) has failed."
      summary_it: "Backup {{ $labels.name }} (ID: {{ $labels.id }}) fallito."
"#;
    let alertmanager = Alertmanager::sending_to(&format!("http://{}/alert", hbd.address), "1s");
    let exporter_address = exporter.url.trim_start_matches("http://");
    let _prometheus = Prometheus::start(exporter_address, rules, alertmanager.address());
    let text = place.report(&hbd);
    assert!(text.contains(PARTIAL), "{text}");
    assert!(text.contains("Backup job Nightly (ID: 1) has failed."), "{text}");
    hbd.wait_until("a repeat", |hbd| hbd.metric("hbd_alerts_received_total") >= 2.0);
    place.posts(&hbd, 1);
}

#[test]
fn what_an_alertmanager_sends_is_taken_and_what_nobody_should_send_is_not() {
    let (place, redis) = (Place::new(), cluster());
    let hbd = place.start(&Setup { wait: 3600, ..Setup::with(&redis) });
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alertmanager");
    for entry in fs::read_dir(recorded).unwrap() {
        let path = entry.unwrap().path();
        let body = fs::read(&path).unwrap();
        assert_eq!(hbd.request("POST", "/alert", &body).0, 200, "{}", path.display());
        let cut = &body[..body.len() / 2];
        assert_eq!(hbd.request("POST", "/alert", cut).0, 400, "{} cut", path.display());
    }
    for lenient in [
        "{}",
        r#"{"alerts": null}"#,
        r#"{"alerts": [null, 1, {}, {"status": "firing"}, {"status": null, "labels": null}]}"#,
        r#"{"status": "firing", "alerts": [{"labels": {"alertname": "BackupFailed"}}]}"#,
    ] {
        assert_eq!(hbd.alert(lenient), 200, "{lenient}");
    }
    for malformed in ["", "{", "[]", "null", "\"x\"", "7", "{}{}"] {
        assert_eq!(hbd.alert(malformed), 400, "{malformed}");
    }
    let (status, answer) = hbd.request("GET", "/alert", b"");
    assert!(status == 405 && answer.contains("Allow: POST"), "{answer}");
    assert_eq!(hbd.request("POST", "/alerts", b"{}").0, 404);
    assert_eq!(hbd.request("POST", "/alert", &vec![b' '; 5 << 20]).0, 413);
}

#[test]
fn what_cannot_be_stored_is_refused_but_told_and_taken_once_the_disk_is_back() {
    let (place, redis) = (Place::new(), cluster());
    // A directory where the lock should be: nobody, not even root, can open it for writing.
    let lock = place.state().join("hbd.lock");
    fs::create_dir_all(&lock).unwrap();
    let hbd = place.start(&Setup::with(&redis));
    for _ in 0..2 {
        assert_eq!(hbd.alert(&webhook(&["1"])), 503);
    }
    let posts = place.chat.wait_for(2, TIMEOUT);
    let told = |posts: &[Post], words| posts.iter().filter(|p| p.text.contains(words)).count();
    assert_eq!(told(&posts, PARTIAL), 1, "{posts:#?}");
    assert_eq!(hbd.alert(&webhook(&["1"])), 503, "also what was told already");
    fs::remove_dir(&lock).unwrap();
    hbd.wait_until("healed", |hbd| hbd.request("GET", "/-/ready", b"").0 == 200);
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    hbd.settled();
    assert_eq!(told(&place.chat.received(), PARTIAL), 1);
    hbd.kill();
    let hbd = place.start(&Setup::with(&redis));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    assert_eq!(hbd.settled(), 0.0, "that it was told is on the disk now");
}

#[test]
fn an_alert_that_could_not_be_read_any_more_was_told_to_the_log_only_at_each_start() {
    let place = Place::new();
    let (mut store, _) = Store::open(&place.state(), Now::read()).unwrap();
    let row = br#"{"alerts": [{"name": "Backup"#.to_vec();
    store.write(Row::raw(Table::Pipelines, "batch/00000000000000000007", row));
    assert_eq!(store.commit(Now::read()), CommitResult::Committed);
    drop(store);
    let setup = waits_for("redis://127.0.0.1:1");
    let mut hbd = place.start(&setup);
    let text = place.report(&hbd);
    for words in [
        "hbd can no longer read backup alerts that it accepted",
        "batch/00000000000000000007: EOF while parsing a string",
        "hbd backup --all",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let kinds = |hbd: &Hbd| hbd.request("GET", "/api/v1/events?kind=alerts_lost", b"").1;
    for _ in 0..2 {
        hbd.kill();
        hbd = place.start(&setup);
        place.posts(&hbd, 1);
        let events = kinds(&hbd);
        assert_eq!(events.matches(r#""kind":"alerts_lost""#).count(), 1, "{events}");
    }
}

#[test]
fn killed_while_it_waits_the_report_comes_once() {
    let (place, redis) = (Place::new(), cluster());
    let setup = Setup { wait: 1, ..Setup::with(&redis) };
    let mut hbd = place.start(&setup);
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    for _ in 0..3 {
        hbd.kill();
        hbd = place.start(&setup);
    }
    assert!(place.report(&hbd).contains(PARTIAL));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    assert_eq!(hbd.metric("hbd_pipelines"), 0.0);
}

#[test]
fn killed_while_redis_hangs_the_report_comes_once() {
    let (place, redis) = (Place::new(), cluster());
    let (url, asked) = deaf(b"");
    let hbd = place.start(&waits_for(&url));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    asked.recv_timeout(TIMEOUT).unwrap();
    hbd.kill();
    let hbd = place.start(&Setup::with(&redis));
    assert!(place.report(&hbd).contains(PARTIAL));
}

#[test]
fn killed_while_restic_hangs_the_report_comes_once() {
    let (place, redis, restic) = (Place::new(), cluster(), Restic::new());
    let begun = restic.path("begun");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", begun.display());
    let script = restic.script(&script).display().to_string();
    let mut setup = Setup::with(&redis).repositories(&restic, &script);
    setup.more = setup.more.replace("timeout_seconds: 2", "timeout_seconds: 600");
    let hbd = place.start(&setup);
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    hbd.wait_until("restic", |_| begun.exists());
    hbd.kill();
    let left = fs::read_to_string(&begun).unwrap().trim().parse().unwrap();
    // SAFETY: it only sends a signal, to the script above, which sleeps for ten minutes.
    unsafe { libc::kill(left, libc::SIGKILL) };
    let hbd = place.start(&Setup::with(&redis));
    assert!(place.report(&hbd).contains(PARTIAL));
}

#[test]
fn killed_while_the_chat_refuses_the_report_comes_once_and_unmarked() {
    let (place, redis) = (Place::new(), cluster());
    place.chat.set_mode(Mode::Status(503, "down".into()));
    let hbd = place.start(&Setup::with(&redis));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    let refused = place.chat.wait_for(1, TIMEOUT);
    assert!(refused[0].text.contains(PARTIAL));
    hbd.kill();
    place.chat.set_mode(Mode::Normal);
    let hbd = place.start(&Setup::with(&redis));
    assert_eq!(hbd.settled(), 0.0, "the report is not made again, it is delivered");
    let posts = place.chat.received();
    let taken: Vec<_> = posts.iter().filter(|p| matches!(p.mode, Mode::Normal)).collect();
    assert_eq!(taken.len(), 1, "{posts:#?}");
    assert!(taken[0].text.contains(PARTIAL), "{taken:#?}");
}

#[test]
fn killed_while_the_chat_has_not_answered_the_report_comes_twice_and_says_so() {
    let (place, redis) = (Place::new(), cluster());
    place.chat.set_mode(Mode::Hang);
    let hbd = place.start(&Setup::with(&redis));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    let first = place.chat.wait_for(1, TIMEOUT).remove(0);
    hbd.kill();
    place.chat.set_mode(Mode::Normal);
    let hbd = place.start(&Setup::with(&redis));
    let posts = place.posts(&hbd, 2);
    assert!(first.text.contains(PARTIAL) && !first.text.contains("possible repeat"));
    assert!(posts[1].text.contains(PARTIAL) && posts[1].text.contains("possible repeat"));
    assert_eq!(hbd.settled(), 0.0);
}

#[test]
fn an_alert_that_ends_the_daemon_again_and_again_is_told_without_looking() {
    let place = Place::new();
    let (url, asked) = deaf(b"");
    let mut hbd = place.start(&waits_for(&url));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    for _ in 0..3 {
        asked.recv_timeout(TIMEOUT).unwrap();
        hbd.kill();
        hbd = place.start(&waits_for(&url));
    }
    let text = place.report(&hbd);
    assert!(text.contains("backup 1 UNKNOWN: looking into it ended hbd again and again"), "{text}");
    assert!(asked.try_recv().is_err(), "it was not asked a fourth time");
}

#[test]
fn an_operator_who_restarts_again_and_again_does_not_spoil_the_report() {
    let (place, redis) = (Place::new(), cluster());
    let (url, asked) = deaf(b"");
    let mut hbd = place.start(&waits_for(&url));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    for _ in 0..5 {
        asked.recv_timeout(TIMEOUT).unwrap();
        hbd.stop();
        hbd = place.start(&waits_for(&url));
    }
    hbd.stop();
    let hbd = place.start(&Setup::with(&redis));
    assert!(place.report(&hbd).contains(PARTIAL));
}

#[test]
fn a_redis_that_cannot_be_asked_is_told_soon() {
    let redis = cluster();
    redis.run(&["ACL", "SETUSER", "default", ">hunter22"]);
    let login = ", redis_user: default, redis_password: hunter23";
    let cases = [
        (waits_for("redis://127.0.0.1:1"), "Connection refused"),
        (waits_for(&deaf(b"").0), "no answer within 5 s"),
        (Setup { login, ..Setup::with(&redis) }, "user or password is wrong"),
        (waits_for(&deaf(b"HTTP/1.1 400 Bad Request\r\n\r\n").0), "is the address right?"),
        (waits_for(&deaf(b"$99999999999\r\n").0), "no answer within 5 s"),
    ];
    let begin = Instant::now();
    let reports = cases.map(|(setup, why)| {
        let report = thread::spawn(move || {
            let place = Place::new();
            let hbd = place.start(&setup);
            assert_eq!(hbd.alert(&webhook(&["1"])), 200);
            place.report(&hbd)
        });
        (why, report)
    });
    for (why, report) in reports {
        let text = report.join().unwrap();
        assert!(text.contains("backup 1 UNKNOWN: ") && text.contains(why), "{why}: {text}");
        assert!(text.contains("Backup job 1 has failed."), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(begin.elapsed() < Duration::from_secs(40));
}

#[test]
fn a_restic_that_hangs_is_told_soon_and_does_not_live_on() {
    let (place, redis, restic) = (Place::new(), cluster(), Restic::new());
    let begun = restic.path("begun");
    let script = format!("echo $$ > {}; sleep 600 & sleep 600", begun.display());
    let script = restic.script(&script).display().to_string();
    let hbd = place.start(&Setup::with(&redis).repositories(&restic, &script));
    assert_eq!(hbd.alert(&webhook(&["1"])), 200);
    let text = place.report(&hbd);
    assert!(text.contains(PARTIAL) && text.contains("mail1: did not answer in time"), "{text}");
    let left = fs::read_to_string(&begun).unwrap();
    assert!(!support::restic::lives(left.trim()));
}

#[test]
fn an_alertmanager_is_asked_once_it_is_there_and_each_alert_is_told_once() {
    let (place, redis) = (Place::new(), cluster());
    // An address where nobody else on this machine listens, so the port stays free.
    let address = TcpListener::bind("127.9.9.9:0").unwrap().local_addr().unwrap().to_string();
    let receiver = format!("poll_url: \"http://{address}\", poll_interval: 5s");
    let hbd = place.start(&Setup { receiver, ..Setup::with(&redis) });
    hbd.wait_log("Connection refused");
    let alertmanager = Alertmanager::start_at(&address);
    alertmanager.tell("BackupFailed", "1", SINCE, None);
    assert!(place.report(&hbd).contains(PARTIAL));
    hbd.wait_until("the next", |hbd| hbd.metric("hbd_alerts_received_total") >= 2.0);
    // What is sent is the same as what was fetched.
    let body = webhook(&["1"]).replace("\"f1\"", "null");
    let fetched = pulled(&alertmanager);
    assert_eq!(hbd.alert(&body.replace("null", &format!("{fetched:?}"))), 200);
    place.posts(&hbd, 1);
}

/// The fingerprint of its only alert.
fn pulled(alertmanager: &Alertmanager) -> String {
    let url = format!("{}/api/v2/alerts", alertmanager.url());
    let text = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
    let alerts: Value = serde_json::from_str(&text).unwrap();
    alerts[0]["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn an_alertmanager_that_dies_is_missed_by_its_watchdog() {
    let place = Place::new();
    let receiver = "heartbeat_alerts: {Watchdog: prometheus}".to_owned();
    let more = "hosts: {prometheus: {watch: true, interval: 1s, grace: 5s}}\n".to_owned();
    let redis = "redis://127.0.0.1:1".to_owned();
    let hbd = place.start(&Setup { receiver, more, redis, ..Setup::default() });
    let alertmanager = Alertmanager::sending_to(&format!("http://{}/alert", hbd.address), "1s");
    alertmanager.tell("Watchdog", "0", SINCE, None);
    let host = || {
        let (_, answer) = hbd.request("GET", "/api/v1/hosts/prometheus", b"");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()["connections"][0].clone()
    };
    hbd.wait_until("a beat", |_| host()["name"] == "alertmanager");
    let first = host()["last_seen"].clone();
    hbd.wait_until("another", |_| host()["last_seen"] != first);
    assert!(place.chat.received().is_empty());
    drop(alertmanager);
    let text = place.report(&hbd);
    assert!(text.contains("prometheus alertmanager overdue"), "{text}");
}

#[test]
fn five_hundred_alerts_and_two_hundred_bodies_at_once_are_all_taken_soon() {
    let (place, redis) = (Place::new(), cluster());
    let hbd = place.start(&Setup { wait: 3600, ..Setup::with(&redis) });
    let ids = |from: usize, to: usize| (from..to).map(|id| id.to_string()).collect::<Vec<_>>();
    let body = |ids: Vec<String>| webhook(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let times = |bodies: &[String], opened| {
        let answers = burst(hbd.address, "/alert", bodies, opened, TIMEOUT);
        let wrong = answers.iter().find(|one| !one.text.starts_with("HTTP/1.1 200"));
        assert!(wrong.is_none(), "{wrong:?}");
        answers.into_iter().map(|one| one.took).collect::<Vec<_>>()
    };
    let large: Vec<String> = (0..10).map(|n| body(ids(n * 500, n * 500 + 500))).collect();
    let (half, most) = percentiles(large.chunks(1).flat_map(|one| times(one, false)).collect());
    println!("a body of 500 alerts: p50 {half:?}, p99 {most:?}");
    assert!(most < Duration::from_secs(2));
    for round in 0..4 {
        let first = 5000 + round * 200;
        let bodies: Vec<String> = (first..first + 200).map(|n| body(ids(n, n + 1))).collect();
        let (half, most) = percentiles(times(&bodies, round % 2 == 1));
        println!("200 bodies at once: p50 {half:?}, p99 {most:?}");
        assert!(most < Duration::from_secs(2));
    }
    assert_eq!(hbd.metric("hbd_alerts_received_total"), 5800.0);
    assert_eq!(hbd.metric("hbd_pipelines"), 810.0);
}
