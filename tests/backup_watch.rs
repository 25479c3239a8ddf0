//! A trouble of a backup is told once, told again when it changes, and told when it is over: hbd as
//! an operator runs it, with a real Redis.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod redis;
    pub mod restic;
}

use std::fs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::hbd::{Hbd, TIMEOUT};
use support::mattermost::MattermostDouble;
use support::redis::Redis;
use support::restic::{PASSWORD, Restic};

const FAILED: &str = "backup Nightly PARTIAL: 1 of 2 modules failed";
const WELL: &str = "backup Nightly SUCCESS: all 2 modules succeeded";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The status of a run that ended so many seconds ago.
fn status(errors: u64, ago: u64) -> String {
    let end = now() - ago;
    format!(r#"{{"start": {}, "total_size": 5000, "errors": {errors}, "end": {end}}}"#, end - 30)
}

/// A plan that runs every minute, so that its present pass is never over for long; two modules.
fn cluster() -> Redis {
    let redis = Redis::start();
    redis.run(&["HSET", "cluster/module_node", "mail1", "1", "nextcloud2", "2"]);
    redis.run(&["HSET", "cluster/module_uuid", "mail1", "uuid", "nextcloud2", "uuid"]);
    add_plan(&redis, "1", "Nightly");
    set_mail(&redis, 2, 60);
    redis
}

fn add_plan(redis: &Redis, id: &str, name: &str) {
    let key = format!("cluster/backup/{id}");
    let plan = ["name", name, "repository", "d1", "schedule", "daily", "enabled", "1"];
    redis.run(&[&["HSET", &key, "instances", "mail1 nextcloud2"], &plan[..]].concat());
    redis.run(&["HSET", &format!("node/2/backup_status/{id}"), "nextcloud2", &status(0, 60)]);
}

fn set_mail(redis: &Redis, errors: u64, ago: u64) {
    redis.run(&["HSET", "node/1/backup_status/1", "mail1", &status(errors, ago)]);
}

/// A webhook about one plan, an alert for each of these fingerprints.
fn webhook(state: &str, plan: Option<&str>, fingerprints: &[&str]) -> String {
    let alert = |fingerprint: &&str| {
        let mut alert = json!({
            "status": state, "startsAt": "2026-11-21T20:12:11.503Z", "fingerprint": fingerprint,
            "labels": {"alertname": "BackupFailed", "node": fingerprint},
        });
        if let Some(plan) = plan {
            alert["labels"]["id"] = plan.into();
        }
        alert
    };
    let alerts: Vec<Value> = fingerprints.iter().map(alert).collect();
    json!({"version": "4", "alerts": alerts}).to_string()
}

struct Place {
    directory: tempfile::TempDir,
    chat: MattermostDouble,
    correlator: String,
    more: String,
}

impl Place {
    /// With a configuration that reads this Redis; `correlator` are further keys of that section.
    fn with(redis_url: &str, correlator: &str) -> Place {
        Place {
            directory: tempfile::tempdir().unwrap(),
            chat: MattermostDouble::start(),
            correlator: format!("redis_url: \"{redis_url}\", {correlator}"),
            more: String::new(),
        }
    }

    fn new(redis: &Redis, correlator: &str) -> Place {
        Place::with(&redis.settings().redis_url, correlator)
    }

    fn start(&self) -> Hbd {
        let text = format!(
            "state_dir: {state}\nheartbeat: {{port: 0}}\nreceiver: {{port: 0}}\n\
             notification_channels:\n  chat: {{type: mattermost, host: \"{url}\", token: {token}, channel: ops}}\n\
             default_notification_channels: [chat]\n\
             correlator: {{max_wait_seconds: 0, {correlator}}}\n{more}",
            state = self.directory.path().join("state").display(),
            url = self.chat.url,
            token = self.chat.token,
            correlator = self.correlator,
            more = self.more,
        );
        let file = self.directory.path().join("heartbeat.yaml");
        fs::write(&file, text).unwrap();
        Hbd::start(&file)
    }

    /// The first lines of what was told, of which there must be so many once nothing is under way.
    fn titles(&self, hbd: &Hbd, count: usize) -> Vec<String> {
        self.chat.wait_for(count, TIMEOUT);
        hbd.settled();
        let posts = self.chat.received();
        let texts: Vec<_> = posts.iter().map(|post| post.text.clone()).collect();
        assert_eq!(texts.len(), count, "{texts:#?}");
        texts
    }
}

fn json_of(hbd: &Hbd, target: &str) -> Value {
    let (_, answer) = hbd.request("GET", target, b"");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {answer}"))
}

fn open_alerts(hbd: &Hbd) -> usize {
    json_of(hbd, "/api/v1/alerts")["alerts"].as_array().unwrap().len()
}

fn plans(hbd: &Hbd) -> usize {
    json_of(hbd, "/api/v1/backups")["plans"].as_array().unwrap().len()
}

/// Has hbd look at plan 1, as the end of an alert does, and waits until all that it found is told.
fn look(hbd: &Hbd, redis: &Redis) {
    let reads = || redis.calls(&["hscan", "hgetall"]);
    // The second look begins when the first has told.
    for _ in 0..2 {
        let before = reads();
        assert_eq!(hbd.alert(&webhook("resolved", Some("1"), &["z"])), 200);
        let end = Instant::now() + TIMEOUT;
        while reads() == before {
            assert!(Instant::now() < end, "nobody looks");
            std::thread::yield_now();
        }
    }
}

#[test]
fn the_end_of_a_failure_was_never_told() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1, watch_plans: false");
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    assert!(place.titles(&hbd, 1)[0].contains(FAILED));
    assert_eq!((open_alerts(&hbd), plans(&hbd)), (1, 1));
    look(&hbd, &redis);
    place.titles(&hbd, 1);
    set_mail(&redis, 0, 1);
    let told = place.titles(&hbd, 2);
    assert!(told[1].contains(WELL) && told[1].contains("PARTIAL since"), "{told:#?}");
    assert_eq!(open_alerts(&hbd), 0);
    look(&hbd, &redis);
    place.titles(&hbd, 2);
}

#[test]
fn an_alert_that_ends_is_looked_into_at_once_and_proves_nothing() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 0, watch_plans: false");
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    place.titles(&hbd, 1);
    let resolved = webhook("resolved", Some("1"), &["a"]);
    assert_eq!(hbd.alert(&resolved), 200);
    assert_eq!(open_alerts(&hbd), 1);
    set_mail(&redis, 0, 1);
    // The first looks come after two minutes, unless an alert has ended.
    assert_eq!(hbd.alert(&resolved), 200);
    assert!(place.titles(&hbd, 2)[1].contains(WELL));
    assert_eq!(open_alerts(&hbd), 0);
}

#[test]
fn the_same_failure_is_told_once_however_often_and_by_whomever_it_is_said() {
    let (redis, restic) = (cluster(), Restic::new());
    let count = restic.path("count");
    let script = format!("echo >> {}; exit 1", count.display());
    let mut place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    place.more = format!(
        "repo_check:\n  restic_path: {}\n  repositories:\n    default: {{repository: \"/x/{{path}}\", password: {PASSWORD}}}\n",
        restic.script(&script).display(),
    );
    let hbd = place.start();
    for fingerprints in [&["a"][..], &["a"], &["b"], &["a", "b"], &["c"]] {
        assert_eq!(hbd.alert(&webhook("firing", Some("1"), fingerprints)), 200);
        hbd.settled();
    }
    assert!(place.titles(&hbd, 1)[0].contains(FAILED));
    let asked = fs::read_to_string(&count).unwrap();
    set_mail(&redis, 3, 1);
    let told = place.titles(&hbd, 2);
    assert!(told[1].contains(FAILED) && told[1].contains("3 errors"), "{told:#?}");
    assert!(fs::read_to_string(&count).unwrap().len() > asked.len());
    hbd.kill();
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a", "d"])), 200);
    place.titles(&hbd, 2);
}

#[test]
fn two_nodes_that_fail_are_one_report() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 2, watch_plans: false");
    let hbd = place.start();
    for node in ["a", "b", "c"] {
        assert_eq!(hbd.alert(&webhook("firing", Some("1"), &[node])), 200);
    }
    assert_eq!(hbd.metric("hbd_pipelines"), 1.0);
    assert!(place.titles(&hbd, 1)[0].contains(FAILED));
}

#[test]
fn a_success_was_told_twice_to_an_alert_with_a_plan_and_one_without() {
    let redis = cluster();
    set_mail(&redis, 0, 60);
    let place = Place::new(&redis, "wait_seconds: 2, watch_plans: false");
    let hbd = place.start();
    for plan in [Some("1"), None] {
        assert_eq!(hbd.alert(&webhook("firing", plan, &[plan.unwrap_or("a")])), 200);
    }
    assert!(place.titles(&hbd, 1)[0].contains(WELL));
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["b"])), 200);
    place.titles(&hbd, 2);
}

#[test]
fn a_plan_without_modules_was_told_as_one_that_no_longer_exists() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    place.titles(&hbd, 1);
    redis.run(&["HSET", "cluster/backup/1", "instances", ""]);
    assert!(place.titles(&hbd, 2)[1].contains("backup Nightly: the plan has no modules"));
}

#[test]
fn a_trouble_that_goes_on_is_reminded_of_without_restic() {
    let (redis, restic) = (cluster(), Restic::new());
    let count = restic.path("count");
    let script = format!("echo >> {}; exit 1", count.display());
    let mut place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1, watch_plans: false");
    place.more = format!(
        "notifier: {{renotify_interval: 3s}}\nrepo_check:\n  restic_path: {}\n  repositories:\n    default: {{repository: \"/x/{{path}}\", password: {PASSWORD}}}\n",
        restic.script(&script).display(),
    );
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    place.chat.wait_for(1, TIMEOUT);
    let asked = fs::read_to_string(&count).unwrap();
    let posts = place.chat.wait_for(3, TIMEOUT);
    for reminder in &posts[1..3] {
        let words = "backup Nightly still PARTIAL, unchanged since ";
        assert!(reminder.text.contains(words), "{}", reminder.text);
    }
    assert_eq!(fs::read_to_string(&count).unwrap(), asked);
}

#[test]
fn the_end_of_a_trouble_waited_for_a_destination_of_another_plan() {
    let (redis, restic) = (cluster(), Restic::new());
    let mut place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    let begun = restic.path("begun");
    let script = format!(
        "test \"$RESTIC_REPOSITORY\" = /d1 && exit 1; echo > {0}; exec sleep 600",
        begun.display()
    );
    place.more = format!(
        "repo_check:\n  restic_path: {}\n  timeout_seconds: 3600\n  repositories:\n    d1: {{repository: /d1, password: x}}\n    d2: {{repository: /d2, password: x}}\n",
        restic.script(&script).display(),
    );
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    assert!(place.titles(&hbd, 1)[0].contains(FAILED));
    add_plan(&redis, "2", "Weekly");
    redis.run(&["HSET", "cluster/backup/2", "repository", "d2"]);
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &status(1, 60)]);
    assert_eq!(hbd.alert(&webhook("resolved", Some("2"), &["b"])), 200);
    hbd.wait_until("the check of plan 2", |_| begun.exists());
    set_mail(&redis, 0, 0);
    assert!(place.titles(&hbd, 2)[1].contains(WELL));
}

#[test]
fn what_is_gone_or_never_was_stays_open_no_longer() {
    let redis = cluster();
    add_plan(&redis, "2", "Weekly");
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &status(1, 60)]);
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1, watch_plans: false");
    let hbd = place.start();
    for (plan, fingerprint) in [("2", "a"), ("1", "b")] {
        assert_eq!(hbd.alert(&webhook("firing", Some(plan), &[fingerprint])), 200);
        hbd.settled();
    }
    place.titles(&hbd, 2);
    // Its statuses are left, and none of them is told of as a plan.
    redis.run(&["DEL", "cluster/backup/2"]);
    let told = place.titles(&hbd, 3);
    assert!(told[2].contains("backup Weekly: the plan no longer exists"), "{told:#?}");
    assert_eq!((open_alerts(&hbd), plans(&hbd)), (1, 1));
    redis.run(&["HSET", "cluster/backup/1", "enabled", "0"]);
    assert!(place.titles(&hbd, 4)[3].contains("backup Nightly: the plan was switched off"));
    assert_eq!(hbd.alert(&webhook("firing", Some("99"), &["c"])), 200);
    let told = place.titles(&hbd, 6);
    assert!(told[4].contains("backup 99 UNKNOWN: Redis knows nothing of this plan"), "{told:#?}");
    assert!(told[5].contains("backup 99: there is no such plan"), "{told:#?}");
    assert_eq!((open_alerts(&hbd), plans(&hbd)), (0, 0));
    assert_eq!(hbd.alert(&webhook("firing", Some("99"), &["c"])), 200);
    look(&hbd, &redis);
    place.titles(&hbd, 6);
}

#[test]
fn what_a_deleted_plan_left_was_told_as_a_failure() {
    let redis = cluster();
    add_plan(&redis, "2", "Weekly");
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &status(1, 60)]);
    redis.run(&["DEL", "cluster/backup/2"]);
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    let hbd = place.start();
    assert!(place.titles(&hbd, 1)[0].contains(FAILED));
    look(&hbd, &redis);
    place.titles(&hbd, 1);
    assert_eq!((open_alerts(&hbd), plans(&hbd)), (1, 1));
}

#[test]
fn a_minute_without_redis_was_a_trouble_of_all_plans_for_ever() {
    let socket_directory = tempfile::tempdir().unwrap();
    let socket = socket_directory.path().join("redis.sock");
    let url = format!("redis+unix://{}", socket.display());
    let place = Place::with(&url, "wait_seconds: 0, recheck_seconds: 1, watch_plans: false");
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", None, &["a"])), 200);
    assert!(place.titles(&hbd, 1)[0].contains("backup of all plans UNKNOWN"));
    let redis = cluster();
    std::os::unix::fs::symlink(redis.socket(), &socket).unwrap();
    let told = place.titles(&hbd, 3);
    let is_told = |words| told[1..].iter().any(|text| text.contains(words));
    assert!(is_told("backup of all plans: what Redis says of them can be read"), "{told:#?}");
    assert!(is_told(FAILED), "what was asked is answered: {told:#?}");
    assert_eq!(open_alerts(&hbd), 1);
    assert!(!json_of(&hbd, "/api/v1/backups").to_string().contains("\"all\""));
}

#[test]
fn a_backup_that_never_ran_is_told_without_an_alert_and_only_once() {
    let redis = cluster();
    add_plan(&redis, "2", "Weekly");
    let old = status(0, 4 * 86_400);
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &old]);
    redis.run(&["HSET", "node/2/backup_status/2", "nextcloud2", &old]);
    add_plan(&redis, "3", "Off");
    redis.run(&["HSET", "cluster/backup/3", "enabled", "0"]);
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    let hbd = place.start();
    let told = place.titles(&hbd, 2);
    let is_told = |words| told.iter().any(|text| text.contains(words));
    assert!(is_told("backup Weekly MISSING: 2 of 2 modules without a recent run"), "{told:#?}");
    assert!(is_told(FAILED), "{told:#?}");
    assert_eq!(hbd.alert(&webhook("firing", Some("2"), &["a"])), 200);
    assert_eq!(hbd.alert(&webhook("firing", None, &["b"])), 200);
    look(&hbd, &redis);
    place.titles(&hbd, 2);
    hbd.kill();
    let hbd = place.start();
    look(&hbd, &redis);
    place.titles(&hbd, 2);
}

#[test]
fn a_plan_that_was_just_made_was_told_as_missing() {
    let redis = cluster();
    set_mail(&redis, 0, 60);
    add_plan(&redis, "2", "Weekly");
    let old = status(0, 4 * 86_400);
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &old]);
    add_plan(&redis, "3", "Made today");
    redis.run(&["HSET", "cluster/backup/3", "schedule", "*-01-01"]);
    redis.run(&["DEL", "node/2/backup_status/3"]);
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    for _ in 0..2 {
        let hbd = place.start();
        assert!(place.titles(&hbd, 1)[0].contains("backup Weekly PARTIAL"));
        hbd.wait_until("plan 3", |hbd| {
            json_of(hbd, "/api/v1/backups").to_string().contains("no run is known, first due")
        });
        look(&hbd, &redis);
        hbd.kill();
    }
    let hbd = place.start();
    let alert = webhook("firing", Some("3"), &["a"]).replace("BackupFailed", "NsBackupMissing");
    assert_eq!(hbd.alert(&alert), 200);
    assert!(place.titles(&hbd, 2)[1].contains("backup Made today MISSING"));
}

#[test]
fn without_a_section_or_by_wish_nothing_is_watched() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1, watch_plans: false");
    let hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("9"), &["a"])), 200);
    // The end of that one shows that the watch has looked.
    place.titles(&hbd, 2);
}

#[test]
fn an_operator_ends_a_trouble_by_hand_until_it_changes() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    let hbd = place.start();
    place.titles(&hbd, 1);
    let forget = |plan: &str, more: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["backup", plan, "--forget", "--url", &hbd.address.to_string()])
            .args(more)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    let (code, said) = forget("9", &[]);
    assert!(code == 1 && said.contains("no trouble is open of a plan \"9\""), "{code} {said}");
    let (code, said) = forget("Nightly", &[]);
    assert_eq!(
        (code, said.as_str()),
        (0, "the trouble of plan 1 is ended; it is told again when it changes\n")
    );
    assert_eq!(forget("1", &[]).0, 1);
    assert!(place.titles(&hbd, 2)[1].contains("backup Nightly: no longer told"));
    assert_eq!((open_alerts(&hbd), plans(&hbd)), (0, 0));
    look(&hbd, &redis);
    place.titles(&hbd, 2);
    set_mail(&redis, 2, 1);
    look(&hbd, &redis);
    assert!(place.titles(&hbd, 3)[2].contains(FAILED));
    assert_eq!((open_alerts(&hbd), plans(&hbd)), (1, 1));
}

#[test]
fn every_success_is_told_where_that_is_wished_with_sizes_and_counts() {
    let redis = cluster();
    set_mail(&redis, 0, 60);
    let mut place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    place.more =
        "notifier: {report_success: never, plans: {\"1\": {report_success: always}}}\n".into();
    let hbd = place.start();
    let told = place.titles(&hbd, 1);
    assert!(told[0].contains(WELL) && told[0].contains("5.0 kB"), "{told:#?}");
    look(&hbd, &redis);
    place.titles(&hbd, 1);
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    place.titles(&hbd, 2);
    hbd.stop();
    place.more = "notifier: {report_success: never}\n".into();
    let hbd = place.start();
    set_mail(&redis, 1, 1);
    look(&hbd, &redis);
    assert!(place.titles(&hbd, 3)[2].contains(FAILED));
    set_mail(&redis, 0, 0);
    hbd.wait_until("the end", |hbd| open_alerts(hbd) == 0);
    place.titles(&hbd, 3);
}

#[test]
fn killed_again_and_again_nothing_is_told_twice_and_the_end_is_told() {
    let redis = cluster();
    let place = Place::new(&redis, "wait_seconds: 0, recheck_seconds: 1");
    let mut hbd = place.start();
    assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
    place.titles(&hbd, 1);
    for _ in 0..3 {
        hbd.kill();
        hbd = place.start();
        assert_eq!(hbd.alert(&webhook("firing", Some("1"), &["a"])), 200);
        look(&hbd, &redis);
        place.titles(&hbd, 1);
    }
    hbd.kill();
    set_mail(&redis, 0, 1);
    let hbd = place.start();
    assert!(place.titles(&hbd, 2)[1].contains(WELL));
    assert_eq!(open_alerts(&hbd), 0);
}
