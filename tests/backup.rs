//! `hbd backup` against a real Redis, a real restic and a real Alertmanager.

mod support {
    pub mod alertmanager;
    pub mod redis;
    pub mod restic;
}

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heartbeat::backup::alert::{Alert, AlertNames};
use heartbeat::backup::alert_poller::fetch_alerts;
use serde_json::Value;
use support::alertmanager::Alertmanager;
use support::redis::Redis;
use support::restic::{PASSWORD, Restic};

/// A cluster whose nightly backup of mail failed, with its repositories below `restic`.
fn cluster() -> Redis {
    let redis = Redis::start();
    redis.run_lines(&[
        "HSET cluster/backup/1 name Nightly repository d1 schedule daily enabled 1",
        "HSET cluster/backup/2 name Weekly repository d1 schedule weekly enabled 1 instances samba3",
        "HSET cluster/backup_repository/d1 name Box provider generic-s3 url s3:x",
        "HSET cluster/module_node mail1 1 nextcloud2 1 samba3 1",
        "HSET cluster/module_uuid mail1 uuid nextcloud2 uuid samba3 uuid",
        "SET module/mail1/ui_name <b>Office</b>",
    ]);
    redis.run(&["HSET", "cluster/backup/1", "instances", "mail1 nextcloud2"]);
    redis.run(&["HSET", "node/1/backup_status/1", "mail1", &status(2), "nextcloud2", &status(0)]);
    redis.run(&["HSET", "node/1/backup_status/2", "samba3", &status(0)]);
    redis
}

fn status(errors: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    format!(
        r#"{{"start": {}, "total_size": 5000, "errors": {errors}, "end": {}}}"#,
        now - 99,
        now - 60
    )
}

fn configuration(restic: &Restic, redis_url: &str) -> PathBuf {
    let file = restic.path("heartbeat.yaml");
    let repositories = restic.path("{repository}/{path}").display().to_string();
    let text = format!(
        "correlator: {{redis_url: \"{redis_url}\"}}\n\
         repo_check:\n  repositories:\n    default: {{repository: \"{repositories}\", password: {PASSWORD}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// `hbd backup`: its exit code and what it prints.
fn run(file: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
        .args(["backup", "--config"])
        .arg(file)
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_report_of_a_failed_plan_is_printed_and_one_that_is_well_is_exit_0() {
    let (redis, restic) = (cluster(), Restic::new());
    restic.make("d1/mail/uuid");
    let file = configuration(&restic, &redis.settings().redis_url);
    for plan in ["1", "Nightly"] {
        let (code, said) = run(&file, &[plan]);
        assert_eq!(code, 1);
        assert!(said.starts_with("backup Nightly PARTIAL: 1 of 2 modules failed\n"), "{said}");
        assert!(said.contains("mail1 (<b>Office</b>): 2 errors, ended "), "{said}");
        assert!(said.contains("mail1: newest snapshot "), "{said}");
        assert!(said.contains("\nmodule "), "{said}");
    }
    let (code, said) = run(&file, &["2"]);
    assert_eq!(
        (code, said.lines().next()),
        (0, Some("backup Weekly SUCCESS: its module succeeded"))
    );
    let (code, said) = run(&file, &["--all", "--json"]);
    let plans: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, 1);
    assert_eq!(plans["plans"][0]["outcome"], "PARTIAL");
    assert_eq!(plans["plans"][0]["plan"]["modules"][0]["state"], "failed");
    assert!(plans["plans"][0]["repositories"][0]["condition"]["open"]["newest"].is_string());
    assert_eq!(plans["plans"][1]["outcome"], "SUCCESS");
    let (code, said) = run(&file, &["9"]);
    assert_eq!(code, 1);
    assert!(said.starts_with("backup 9 UNKNOWN: Redis knows nothing of this plan"), "{said}");
}

#[test]
fn times_are_those_of_the_local_zone() {
    let (redis, restic) = (cluster(), Restic::new());
    restic.make("d1/mail/uuid");
    let file = configuration(&restic, &redis.settings().redis_url);
    for (zone, name) in [("Asia/Kolkata", "IST"), ("UTC", "UTC")] {
        let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["backup", "1", "--config"])
            .arg(&file)
            .env("TZ", zone)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let shown = said.matches(&format!(" {name}")).count();
        // When the failed module ended, its snapshot, and start and end of both in the table.
        assert_eq!(shown, 6, "{said}");
    }
}

#[test]
fn variables_of_hbd_s_own_hid_the_snapshots_from_restic() {
    let redis = cluster();
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let file = configuration(&restic, &redis.settings().redis_url);
        let text = std::fs::read_to_string(&file).unwrap();
        let program = format!("repo_check:\n  restic_path: {}\n", restic.program.display());
        let program = if restic.program.is_absolute() { program } else { "repo_check:\n".into() };
        std::fs::write(&file, text.replace("repo_check:\n", &program)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["backup", "1", "--config"])
            .arg(&file)
            .env("RESTIC_HOST", "elsewhere")
            .env("RESTIC_REPOSITORY", "/nowhere")
            .env("RESTIC_REPOSITORY_FILE", "/nowhere")
            .env("RESTIC_PASSWORD", "battery-staple")
            .env("RESTIC_PASSWORD_COMMAND", "false")
            .env("RESTIC_KEY_HINT", "0a")
            .env("RESTIC_CACERT", "/nowhere")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("mail1: newest snapshot "), "{said}");
    }
}

#[test]
fn a_restic_lived_on_when_the_command_was_interrupted() {
    let (redis, restic) = (cluster(), Restic::new());
    let begun = restic.path("begun");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", begun.display());
    let script = restic.script(&script).display().to_string();
    let file = configuration(&restic, &redis.settings().redis_url);
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("repo_check:\n", &format!("repo_check:\n  restic_path: {script}\n"));
    std::fs::write(&file, text).unwrap();
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["backup", "--all", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !begun.exists() {
            assert!(Instant::now() < deadline, "restic is not begun");
            std::thread::yield_now();
        }
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(command.id() as i32, signal) };
        assert_eq!(command.wait().unwrap().code(), Some(code));
        let left = std::fs::read_to_string(&begun).unwrap();
        assert!(!support::restic::lives(left.trim()));
        std::fs::remove_file(&begun).unwrap();
    }
}

#[test]
fn without_redis_the_report_says_so() {
    let restic = Restic::new();
    let (code, said) = run(&configuration(&restic, "redis://127.0.0.1:1"), &["--all"]);
    assert_eq!(code, 1);
    let expected = "backup of all plans UNKNOWN: Redis at 127.0.0.1:1: Connection refused";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("hbd backup --all"), "{said}");
}

#[test]
fn a_bad_configuration_is_78() {
    let restic = Restic::new();
    let file = restic.path("heartbeat.yaml");
    std::fs::write(&file, "correlator: {redis_url: nonsense}\n").unwrap();
    let (code, said) = run(&file, &["--all"]);
    assert!(code == 78 && said.contains("correlator.redis_url"), "{said}");
}

#[test]
fn either_a_plan_or_all_of_them_are_asked_about() {
    let restic = Restic::new();
    let file = configuration(&restic, "redis://127.0.0.1:1");
    for arguments in [&[][..], &["1", "--all"], &["1", "2"], &["--deep", "1"]] {
        let (code, said) = run(&file, arguments);
        assert_eq!((code, said.as_str()), (2, ""), "{arguments:?}");
    }
}

#[test]
fn a_real_alertmanager_is_asked_for_its_alerts() {
    let server = Alertmanager::start();
    let wanted = AlertNames {
        backup: vec!["BackupFailed".into()],
        heartbeat: vec!["Watchdog".into()],
        ..AlertNames::default()
    };
    server.fire(&[("BackupFailed", "1"), ("BackupFailed", "2"), ("Watchdog", "0"), ("Other", "0")]);
    server.silence("2");
    server.silence("0");
    let deadline = Instant::now() + Duration::from_secs(30);
    let told = |alert: &Alert| format!("{} {}", alert.name, alert.labels["id"]);
    loop {
        let found = fetch_alerts(&server.url(), &wanted).unwrap();
        let told = [found.backup, found.heartbeat].concat().iter().map(told).collect::<Vec<_>>();
        if told == ["BackupFailed 1", "Watchdog 0"] {
            break;
        }
        assert!(Instant::now() < deadline, "{told:?}");
        std::thread::yield_now();
    }
    let alerts = fetch_alerts(&server.url(), &wanted).unwrap().backup;
    assert!(alerts.iter().all(|alert| alert.starts_at.is_some() && alert.fingerprint.len() == 16));
    assert_eq!(alerts[0].annotations["summary"], "It failed");
}

#[test]
fn an_alertmanager_that_is_away_or_something_else_is_said() {
    let away = fetch_alerts("http://127.0.0.1:1", &AlertNames::default()).unwrap_err();
    assert!(away.contains("127.0.0.1:1: Connection refused"), "{away}");
    let server = Alertmanager::start();
    let elsewhere =
        fetch_alerts(&format!("{}/nowhere", server.url()), &AlertNames::default()).unwrap_err();
    assert!(elsewhere.ends_with("answered 404: is there an Alertmanager?"), "{elsewhere}");
}

#[test]
fn a_repository_is_where_the_image_says_and_not_the_id() {
    let (redis, restic) = (cluster(), Restic::new());
    let url = "ghcr.io:443/nethserver/mail-server:1.2@sha256:0123";
    redis.run(&["HSET", "module/mail1/environment", "IMAGE_URL", url]);
    restic.make("d1/mail-server/uuid");
    let (_, said) = run(&configuration(&restic, &redis.settings().redis_url), &["1"]);
    assert!(said.contains("mail1: newest snapshot "), "{said}");
}
