//! Real restic repositories in every condition that was met, and a restic that hangs.

mod support {
    pub mod restic;
}

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use heartbeat::backup::plan::{Destination, Module, ModuleState, Plan};
use heartbeat::backup::repo_check::{
    IntegrityCheck, RepoCheckResult, RepoChecker, RepoDetails, RepoState,
};
use heartbeat::backup::restic_output::RepoError;
use heartbeat::backup::restic_permits::ResticPermits;
use heartbeat::backup::settings::{RepoCheckSettings, RepositoryPassword};
use heartbeat::secret::Secret;
use heartbeat::thread::Stop;
use support::restic::{PASSWORD, Restic, lives};

fn module(id: &str, state: ModuleState) -> Module {
    Module {
        id: id.into(),
        ui_name: None,
        uuid: Some("uuid".into()),
        node: None,
        state,
        why: None,
        run: None,
    }
}

fn plan(modules: &[&str]) -> Plan {
    let modules = modules.iter().map(|id| module(id, ModuleState::Failed)).collect();
    let destination = Some(Destination { id: "d1".into(), ..Destination::default() });
    Plan { id: "1".into(), modules, destination, ..Plan::default() }
}

fn check(
    settings: &RepoCheckSettings,
    plan: &Plan,
    passwords: &BTreeMap<String, Secret>,
    stop: &Stop,
) -> Option<Vec<RepoCheckResult>> {
    RepoChecker { settings, permits: &ResticPermits::default() }.check(plan, passwords, stop)
}

fn states(settings: &RepoCheckSettings, plan: &Plan) -> Vec<RepoState> {
    let (_stopper, stop) = Stop::channel();
    let results = check(settings, plan, &BTreeMap::new(), &stop).unwrap();
    results.into_iter().map(|result| result.state).collect()
}

fn state(settings: &RepoCheckSettings) -> RepoState {
    let (_stopper, stop) = Stop::channel();
    check(settings, &plan(&["mail1"]), &BTreeMap::new(), &stop).unwrap().remove(0).state
}

fn details(settings: &RepoCheckSettings) -> RepoDetails {
    match state(settings) {
        RepoState::Open(details) => details,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_repository_shows_its_newest_snapshot() {
    let restic = Restic::new();
    restic.make("d1/mail/uuid");
    let seen = details(&restic.settings());
    let age = heartbeat::clock::Now::read().wall.since(seen.newest.unwrap());
    assert!(age < Duration::from_secs(120), "{age:?}");
    assert_eq!(seen.size, Some(10), "of the newest snapshot, whatever restic took it");
    assert_eq!((seen.locks, seen.locks_unknown, seen.check), (vec![], None, None));
}

#[test]
fn modules_that_succeeded_are_left_in_peace() {
    let mut plan = plan(&["mail1", "samba2"]);
    plan.modules[0].state = ModuleState::Success;
    let restic = Restic::new();
    let (_stopper, stop) = Stop::channel();
    let settings = restic.settings();
    let results = check(&settings, &plan, &BTreeMap::new(), &stop).unwrap();
    let names: Vec<_> = results.iter().map(|result| result.module.as_str()).collect();
    assert_eq!(names, ["samba2"]);
}

#[test]
fn a_lock_is_told_with_its_holder() {
    let restic = Restic::new();
    restic.make("d1/mail/uuid");
    let _holder = restic.lock("d1/mail/uuid");
    let settings = RepoCheckSettings { deep: true, ..restic.settings() };
    let seen = details(&settings);
    assert_eq!(seen.locks.len(), 1);
    assert!(seen.locks[0].holder.contains(" at "), "{:?}", seen.locks);
    assert!(seen.locks[0].since.is_some() && !seen.locks[0].stale);
    assert_eq!(seen.size, Some(10), "a lock of somebody else is not in the way");
    assert!(matches!(seen.check, Some(IntegrityCheck::Undecided(_))), "{:?}", seen.check);
}

#[test]
fn a_wrong_password_and_a_repository_that_is_gone_are_told_apart() {
    let restic = Restic::new();
    restic.make("d1/mail/uuid");
    let mut settings = restic.settings();
    settings.repositories.get_mut("default").unwrap().password =
        Some(RepositoryPassword::Clear(Secret::new("battery-staple")));
    assert_eq!(state(&settings), RepoState::Refused(RepoError::WrongPassword));
    std::fs::rename(restic.path("d1"), restic.path("d2")).unwrap();
    assert_eq!(state(&restic.settings()), RepoState::Refused(RepoError::NotFound));
}

#[test]
fn a_server_that_is_down_is_told_without_its_password() {
    let restic = Restic::new();
    let mut settings = restic.settings();
    settings.timeout = Duration::from_secs(10);
    settings.repositories.get_mut("default").unwrap().repository =
        "rest:http://ops:hunter22@127.0.0.1:1/{repository}/{path}".into();
    let said = format!("{:?}", state(&settings));
    assert!(said.contains("refused") && !said.contains("hunter22"), "{said}");
}

#[test]
fn the_password_comes_from_a_file_or_from_redis() {
    let restic = Restic::new();
    restic.make("d1/mail/uuid");
    let file = restic.path("password");
    std::fs::write(&file, PASSWORD).unwrap();
    let mut settings = restic.settings();
    let repository = settings.repositories.get_mut("default").unwrap();
    repository.password = Some(RepositoryPassword::File(file));
    assert!(matches!(state(&settings), RepoState::Open(_)));

    settings.repositories.get_mut("default").unwrap().password = None;
    assert!(matches!(state(&settings), RepoState::NotChecked(_)));
    let passwords = BTreeMap::from([("d1".to_owned(), Secret::new(PASSWORD))]);
    let (_stopper, stop) = Stop::channel();
    let results = check(&settings, &plan(&["mail1"]), &passwords, &stop).unwrap();
    assert!(matches!(results[0].state, RepoState::Open(_)), "{results:?}");
}

#[test]
fn a_deep_check_finds_what_is_broken() {
    let restic = Restic::new();
    restic.make("d1/mail/uuid");
    let settings = RepoCheckSettings { deep: true, ..restic.settings() };
    assert_eq!(details(&settings).check, Some(IntegrityCheck::Sound));
    // A pack that is gone would be looked for again and again; one that has grown is found at once.
    let mut grown = 0;
    for folder in std::fs::read_dir(restic.path("d1/mail/uuid/data")).unwrap() {
        for pack in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let pack = pack.unwrap().path();
            let mut bytes = std::fs::read(&pack).unwrap();
            bytes.extend(b"junk");
            std::fs::remove_file(&pack).unwrap();
            std::fs::write(&pack, bytes).unwrap();
            grown += 1;
        }
    }
    assert!(grown > 0);
    let check = details(&settings).check;
    assert!(matches!(check, Some(IntegrityCheck::Damaged(_))), "{check:?}");
}

#[test]
fn a_restic_that_hangs_is_killed_with_its_children_and_nothing_waits_for_long() {
    let restic = Restic::new();
    let pids = restic.path("pids");
    let script = format!("sleep 300 & echo $! >>{}; echo retrying >&2; wait", pids.display());
    let settings = RepoCheckSettings {
        restic_path: restic.script(&script),
        timeout: Duration::from_secs(1),
        ..restic.settings()
    };
    let names: Vec<String> = (1..=20).map(|n| format!("mail{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let states = states(&settings, &plan(&names));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let killed = "killed after 1 s: retrying";
    let again = format!("not asked again: its destination did not answer for mail1 ({killed})");
    let mut expected = vec![RepoState::NotChecked(again); 20];
    expected[0] = RepoState::TimedOut(killed.into());
    assert_eq!(states, expected);
    let deadline = Instant::now() + Duration::from_secs(10);
    for id in std::fs::read_to_string(pids).unwrap().lines() {
        while lives(id) {
            assert!(Instant::now() < deadline, "the child {id} lives");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_size_that_cannot_be_told_costs_nothing_else_of_the_answer() {
    let restic = Restic::new();
    restic.make("d1/mail/uuid");
    let pid = restic.path("pid");
    // As of restic 0.14, whichever is installed: it noted no size in its snapshots.
    let sizeless = r#"[ "$1" != snapshots ] || exec sh -c "restic $* | sed s/total_bytes_/x/""#;
    let hang = format!("echo $$ >{}; sleep 300", pid.display());
    for stats in [&hang, "echo '{\"total_size\":7}'; exit 1", "echo null"] {
        let script = format!("{sizeless}\n[ \"$1\" = stats ] || exec restic \"$@\"\n{stats}");
        let settings = RepoCheckSettings {
            restic_path: restic.script(&script),
            timeout: Duration::from_secs(24),
            deep: true,
            ..restic.settings()
        };
        let begin = Instant::now();
        let seen = details(&settings);
        assert!(begin.elapsed() < Duration::from_secs(20), "a part of its time: {stats}");
        assert_eq!((seen.newest.is_some(), seen.size), (true, None), "{stats}");
        assert_eq!((seen.locks, seen.locks_unknown), (vec![], None), "{stats}");
        assert_eq!(seen.check, Some(IntegrityCheck::Sound), "{stats}");
    }
    let pid = std::fs::read_to_string(pid).expect("the size was asked for");
    assert!(!lives(pid.trim()));
}

#[test]
fn the_size_is_asked_for_without_a_lock_and_of_the_newest_snapshot() {
    let restic = Restic::new();
    let seen = restic.path("seen");
    let id = "0f".repeat(32);
    let list = format!(r#"[{{"time":"2026-11-20T22:53:42Z","id":"{id}"}}]"#);
    let script = format!("echo \"$@\" >>{}; [ $1 != snapshots ] || echo '{list}'", seen.display());
    state(&RepoCheckSettings { restic_path: restic.script(&script), ..restic.settings() });
    let seen = std::fs::read_to_string(seen).unwrap();
    let asked = format!("stats --mode restore-size --json {id} --no-lock --no-cache");
    assert_eq!(seen.lines().last(), Some(asked.as_str()), "{seen}");
}

#[test]
fn without_restic_it_is_said_and_nothing_else_happens() {
    let restic = Restic::new();
    let settings = RepoCheckSettings { restic_path: "/nowhere/restic".into(), ..restic.settings() };
    let said = state(&settings);
    assert!(
        matches!(&said, RepoState::NotChecked(why) if why.contains("install restic")),
        "{said:?}"
    );
}

#[test]
fn nothing_secret_is_on_the_command_line() {
    let restic = Restic::new();
    let seen = restic.path("seen");
    let script = format!("echo \"$@\" >>{}; echo null", seen.display());
    let mut settings =
        RepoCheckSettings { restic_path: restic.script(&script), ..restic.settings() };
    let repository = settings.repositories.get_mut("default").unwrap();
    repository.repository = "rest:http://ops:hunter22@127.0.0.1/{repository}/{path}".into();
    repository.env.insert("AWS_SECRET_ACCESS_KEY".into(), Secret::new("aws-secret"));
    state(&settings);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.starts_with("snapshots --latest 1 --json --no-lock --no-cache\n"), "{seen}");
    for secret in [PASSWORD, "hunter22", "aws-secret"] {
        assert!(!seen.contains(secret), "{seen}");
    }
}

#[test]
fn checks_of_several_plans_share_the_bound_on_concurrent_runs() {
    let restic = Restic::new();
    let log = restic.path("log");
    let script = format!("echo + >>{0}; sleep 0.2; echo - >>{0}; exit 1", log.display());
    let settings = RepoCheckSettings { restic_path: restic.script(&script), ..restic.settings() };
    let permits = ResticPermits::default();
    let checker = RepoChecker { settings: &settings, permits: &permits };
    let (_stopper, stop) = Stop::channel();
    std::thread::scope(|scope| {
        for plan in [plan(&["mail1", "mail2", "mail3"]), plan(&["web1", "web2", "web3"])] {
            let stop = &stop;
            scope.spawn(move || checker.check(&plan, &BTreeMap::new(), stop));
        }
    });
    let (mut running, mut most, mut runs) = (0, 0, 0);
    for line in std::fs::read_to_string(log).unwrap().lines() {
        running += if line == "+" { 1 } else { -1 };
        runs += i32::from(line == "+");
        most = most.max(running);
    }
    assert_eq!((runs, most), (6, 2));
}

#[test]
fn a_stop_ends_the_asking() {
    let restic = Restic::new();
    let (stopper, stop) = Stop::channel();
    drop(stopper);
    let settings = restic.settings();
    assert_eq!(check(&settings, &plan(&["mail1"]), &BTreeMap::new(), &stop), None);
}
