//! One line for each backup plan: by `hbd backup --all`, and once a day as a message. Against a real
//! Redis; the clock of the daemon is shifted.

mod support {
    #![allow(dead_code, reason = "each test file uses some of them")]
    pub mod clock;
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod preload;
    pub mod redis;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::clock::hbd_at;
use support::hbd::{Hbd, TIMEOUT};
use support::mattermost::{MattermostDouble, Post};
use support::redis::Redis;
use tempfile::TempDir;

/// 2026-11-30T07:00:00Z, in Rome 08:00.
const EIGHT: i64 = 1_796_022_000;
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// hbd in Rome, whose clock shows `seconds` now.
fn at(seconds: i64) -> Command {
    let mut command = hbd_at(seconds);
    command.env("TZ", "Europe/Rome");
    command
}

fn status(errors: u64, end: i64) -> String {
    format!(
        r#"{{"start": {}, "total_size": 6150000000, "total_file_count": 1000,
            "snapshots_count": 3, "errors": {errors}, "end": {end}}}"#,
        end - 600
    )
}

/// A cluster with a nightly plan that is well, one of mail that is not, and one that is off.
fn cluster(end: i64) -> Redis {
    let redis = Redis::start();
    redis.run_lines(&[
        "HSET cluster/backup/10 name Nightly repository d1 schedule daily enabled 1",
        "HSET cluster/backup/2 name Mail repository d1 schedule daily enabled 1 instances mail1",
        "HSET cluster/backup/3 name Old repository d1 schedule daily enabled 0 instances mail1",
        "HSET cluster/module_node mail1 1 nextcloud2 1 samba3 1",
        "HSET cluster/module_uuid mail1 uuid nextcloud2 uuid samba3 uuid",
    ]);
    redis.run(&["HSET", "cluster/backup/10", "instances", "nextcloud2 samba3"]);
    run_ends(&redis, end);
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &status(2, end)]);
    redis.run(&["HSET", "node/1/backup_status/3", "mail1", &status(0, end)]);
    redis
}

/// The nightly plan succeeded.
fn run_ends(redis: &Redis, end: i64) {
    let good = status(0, end);
    redis.run(&["HSET", "node/1/backup_status/10", "nextcloud2", &good, "samba3", &good]);
}

/// A directory for hbd, and the chats that it tells: one of everything, one of what is critical.
struct Place {
    directory: TempDir,
    chat: MattermostDouble,
    phone: MattermostDouble,
}

impl Place {
    fn new() -> Place {
        let (chat, phone) = (MattermostDouble::start(), MattermostDouble::start());
        Place { directory: tempfile::tempdir().unwrap(), chat, phone }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    fn configure(&self, redis_url: &str, notifier: &str) {
        let channel = |chat: &MattermostDouble| {
            format!("type: mattermost, host: \"{}\", token: {}, channel: x", chat.url, chat.token)
        };
        let text = format!(
            "state_dir: {}\nheartbeat: {{port: 0}}\nreceiver: {{port: 0}}\n\
             notification_channels:\n  chat: {{{}}}\n  phone: {{{}, min_level: critical}}\n\
             correlator: {{redis_url: \"{redis_url}\", max_wait_seconds: 1}}\n\
             notifier:\n  notification_channels: [chat, phone]\n{notifier}",
            self.directory.path().join("state").display(),
            channel(&self.chat),
            channel(&self.phone),
        );
        fs::write(self.file(), text).unwrap();
    }

    fn start(&self, seconds: i64) -> Hbd {
        Hbd::start_by(at(seconds), &self.file())
    }

    /// The posts, of which there are so many, none of them to the phone.
    fn posts(&self, hbd: &Hbd, count: usize) -> Vec<Post> {
        self.chat.wait_for(count, TIMEOUT);
        hbd.settled();
        assert_eq!(self.phone.received().len(), 0, "a record rings no phone");
        let posts = self.chat.received();
        assert_eq!(posts.len(), count, "{posts:?}");
        posts
    }
}

/// How many summaries hbd knows to have made.
fn summaries(hbd: &Hbd) -> usize {
    let (status, answer) = hbd.request("GET", "/api/v1/events?kind=backup_summary", b"");
    assert_eq!(status, 200, "{answer}");
    answer.matches(r#""kind":"backup_summary""#).count()
}

fn backup(file: &Path, arguments: &[&str]) -> (i32, String) {
    let output = at(EIGHT).args(["backup", "--config"]).arg(file).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn all_plans_are_a_line_each_and_details_of_those_that_are_not_well() {
    let redis = cluster(EIGHT - HOUR);
    let place = Place::new();
    place.configure(&redis.settings().redis_url, "");
    let (code, said) = backup(&place.file(), &["--all"]);
    assert_eq!(code, 1, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0])[..3], ["id", "plan", "outcome"], "{said}");
    assert_eq!(words(lines[1])[..3], ["2", "Mail", "FAILED"], "the worst is the first: {said}");
    assert_eq!(
        words(lines[2]),
        ["10", "Nightly", "SUCCESS", "2", "12.3", "GB", "2000", "6", "2026-11-30", "07:00", "CET"],
        "{said}"
    );
    assert_eq!(lines[3], "switched off: Old (3)");
    assert_eq!(lines[4], "");
    assert!(lines[5].starts_with("backup Mail FAILED: 1 of 1 module failed"), "{said}");
    assert!(!said.contains("backup Nightly"), "{said}");
    let (_, json) = backup(&place.file(), &["--all", "--json"]);
    let plans: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plans["plans"].as_array().unwrap().len(), 3, "{json}");

    for plan in ["2", "3"] {
        redis.run(&["DEL", &format!("cluster/backup/{plan}")]);
        redis.run(&["DEL", &format!("node/1/backup_status/{plan}")]);
    }
    let (code, said) = backup(&place.file(), &["--all"]);
    assert_eq!((code, said.lines().count()), (0, 2), "{said}");
}

#[test]
fn a_summary_that_hbd_missed_is_sent_at_the_start_and_once_a_day() {
    let redis = cluster(EIGHT - HOUR);
    let place = Place::new();
    // Not in quotes: it is no number to the base of sixty.
    place.configure(&redis.settings().redis_url, "  summary_at: 08:00\n");
    place.start(EIGHT - HOUR).stop();

    let hbd = place.start(EIGHT + 10 * MINUTE);
    hbd.wait_log("the daily summary of backups is queued");
    let post = &place.posts(&hbd, 1)[0];
    assert!(post.text.contains("backups: 1 of 2 plans well"), "{}", post.text);
    let nightly = "`SUCCESS, 2 modules, 12.3 GB, 2000 files, 6 snapshots, ended 07:00 CET`";
    assert!(post.text.contains(&format!("`Nightly (10)`: {nightly}")), "{}", post.text);
    assert!(post.text.contains("`Mail (2)`: `FAILED, 1 of 1 module failed, "), "{}", post.text);
    assert!(post.text.contains("switched off: `Old (3)`"), "{}", post.text);
    assert!(post.text.contains("id  plan     outcome  modules"), "{}", post.text);
    assert_eq!(summaries(&hbd), 1);
    let (_, alerts) = hbd.request("GET", "/api/v1/alerts", b"");
    assert!(alerts.contains(r#""alerts":[]"#), "a record opens nothing: {alerts}");
    hbd.kill();

    // A crash, a clock that is set back, a restart: no second one that day.
    for seconds in [EIGHT + 20 * MINUTE, EIGHT - HOUR, EIGHT + 5 * HOUR] {
        place.start(seconds).stop();
    }
    run_ends(&redis, EIGHT + DAY - HOUR);
    let hbd = place.start(EIGHT + DAY + MINUTE);
    hbd.wait_log("the daily summary of backups is queued");
    let post = &place.posts(&hbd, 2)[1];
    assert!(post.text.contains("6 snapshots, ended 07:00 CET"), "{}", post.text);
    assert!(post.text.contains("no run since 2026-11-30 07:00 CET"), "{}", post.text);
    assert_eq!(summaries(&hbd), 2);
    hbd.stop();
}

#[test]
fn a_running_hbd_sends_it_when_the_time_comes_also_after_a_reload() {
    let redis = cluster(EIGHT - HOUR);
    let place = Place::new();
    place.configure(&redis.settings().redis_url, "  summary_at: \"20:00\"\n");
    let hbd = place.start(EIGHT - 15);
    // The first has passed, so that it is for tomorrow.
    place.configure(&redis.settings().redis_url, "  summary_at: [\"07:30\", \"8:00\"]\n");
    hbd.reload();
    hbd.wait_log("the daily summary of backups is queued");
    place.posts(&hbd, 1);
    place.configure(&redis.settings().redis_url, "");
    hbd.reload();
    hbd.stop();
    // What is configured anew was not missed while it was not.
    place.configure(&redis.settings().redis_url, "  summary_at: [\"07:30\", \"8:00\"]\n");
    place.start(EIGHT + DAY + 10 * MINUTE).stop();
    let hbd = place.start(EIGHT + 2 * DAY + 10 * MINUTE);
    hbd.wait_log("the daily summary of backups is queued");
    place.posts(&hbd, 2);
    assert_eq!(summaries(&hbd), 2);
    hbd.stop();
}

#[test]
fn a_redis_that_is_away_is_said_in_the_summary() {
    let place = Place::new();
    place.configure("redis://127.0.0.1:1", "  summary_at: \"08:00\"\n");
    place.start(EIGHT - HOUR).stop();
    let hbd = place.start(EIGHT + MINUTE);
    let post = &place.posts(&hbd, 1)[0];
    let expected = "backups: not known how they are: Redis at 127.0.0.1:1: Connection refused";
    assert!(post.text.contains(expected), "{}", post.text);
    assert!(post.text.contains("_warning, event "), "{}", post.text);
    hbd.stop();
}

#[test]
fn a_summary_that_waits_for_redis_does_not_hold_up_the_stop() {
    let place = Place::new();
    // It takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    place.configure(&url, "  summary_at: \"08:00\"\n");
    place.start(EIGHT - HOUR).stop();
    let hbd = place.start(EIGHT + MINUTE);
    let _asked = silent.accept().unwrap();
    hbd.signal(libc::SIGTERM);
    hbd.wait_log("stopped");
    assert_eq!(hbd.logged("thread summary did not end"), 0);
    assert_eq!(place.chat.received().len(), 0, "it is still owed");
}

#[test]
fn a_time_that_is_none_is_refused_with_its_remedy() {
    let place = Place::new();
    for bad in ["480", "8", "24:00", "8am", "08:00 UTC", "[08:00, 20]"] {
        place.configure("redis://127.0.0.1:1", &format!("  summary_at: {bad}\n"));
        let (code, said) = backup(&place.file(), &["--all"]);
        assert_eq!(code, 78, "{bad}: {said}");
        assert!(said.contains("notifier.summary_at: must be a time of day "), "{bad}: {said}");
    }
    for good in ["08:00", "\"08:00\"", "'8:00'", "[08:00, \"20:00\"]", "[]", "null"] {
        place.configure("redis://127.0.0.1:1", &format!("  summary_at: {good}\n"));
        let (code, said) = backup(&place.file(), &["1"]);
        assert_eq!(code, 1, "{good}: {said}");
    }
}

#[test]
fn a_summary_that_no_channel_takes_is_warned_about() {
    let place = Place::new();
    place.configure("redis://127.0.0.1:1", "  summary_at: 08:00\n");
    let text = fs::read_to_string(place.file()).unwrap();
    fs::write(place.file(), text.replace("[chat, phone]", "[phone]")).unwrap();
    let output = at(EIGHT).args(["check", "--config"]).arg(place.file()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("summary_at: the summary is of level info, and no channel"), "{said}");
}
