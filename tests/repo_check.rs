//! Real restic repositories in every condition that was met, and a restic that hangs.

mod support {
    #[allow(dead_code)]
    pub mod http_double;
    pub mod rclone;
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
use support::http_double::{HttpDouble, Mode, reply};
use support::rclone::{Gateway, LOGIN};
use support::restic::{Damage, PASSWORD, Restic, damage, lives, newer_program};

fn module(id: &str, state: ModuleState) -> Module {
    Module { uuid: Some("uuid".into()), id: id.into(), state, ..Module::default() }
}

fn plan(modules: &[&str]) -> Plan {
    plan_to("d1", modules)
}

fn plan_to(destination: &str, modules: &[&str]) -> Plan {
    let modules = modules.iter().map(|id| module(id, ModuleState::Failed)).collect();
    let destination = Some(Destination { id: destination.into(), ..Destination::default() });
    Plan { id: "1".into(), modules, destination, ..Plan::default() }
}

fn check(
    settings: &RepoCheckSettings,
    plan: &Plan,
    passwords: &BTreeMap<String, Secret>,
    stop: &Stop,
) -> Option<Vec<RepoCheckResult>> {
    let checker = RepoChecker { settings, permits: &ResticPermits::default() };
    check_by(checker, plan, passwords, stop)
}

fn check_by(
    checker: RepoChecker,
    plan: &Plan,
    passwords: &BTreeMap<String, Secret>,
    stop: &Stop,
) -> Option<Vec<RepoCheckResult>> {
    let mut results = Vec::new();
    checker.check_plans(&[plan], passwords, stop, |_, found| results = found)?;
    Some(results)
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
fn restic_was_given_all_that_stands_in_the_environment_of_hbd() {
    let restic = Restic::new();
    let seen = restic.path("seen");
    let script = format!("pwd >{seen}; env >>{seen}; echo null", seen = seen.display());
    let mut settings =
        RepoCheckSettings { restic_path: restic.script(&script), ..restic.settings() };
    let repository = settings.repositories.get_mut("default").unwrap();
    repository.env.insert("RCLONE_CONFIG".into(), Secret::new("/etc/rclone.conf"));
    state(&settings);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.starts_with("/\n"), "{seen}");
    for given in
        ["PATH=", "RESTIC_REPOSITORY=", "RESTIC_PASSWORD", "RCLONE_CONFIG=/etc/rclone.conf"]
    {
        assert!(seen.lines().any(|line| line.starts_with(given)), "{given}: {seen}");
    }
    // Each test is run with these.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")) && !seen.contains("CARGO"));
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
            scope.spawn(move || check_by(checker, &plan, &BTreeMap::new(), stop));
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

#[test]
fn of_a_long_list_the_newest_snapshot_was_a_month_too_old() {
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let folder = restic.path("many");
        std::fs::create_dir(&folder).unwrap();
        let file = |n| folder.join(format!("{n}-{}", "long-name-".repeat(9))).display().to_string();
        let files: Vec<String> = (0..900).map(file).collect();
        files.iter().for_each(|file| std::fs::write(file, "").unwrap());
        let day = |ago: u32| format!("2026-0{}-15 03:00:00", 9 - ago);
        for ago in [4, 3, 2, 1] {
            let (host, time) = (format!("host{ago}"), day(ago));
            let mut arguments = vec!["--host", &host, "--time", &time];
            arguments.extend(files.iter().map(String::as_str));
            restic.back_up("d1/mail/uuid", &arguments);
        }
        restic.back_up("d1/mail/uuid", &["--host", "newest", "--time", "2036-01-02 03:04:05"]);
        let seen = details(&restic.settings());
        let newest = seen.newest.unwrap().to_string();
        assert!(newest.starts_with("2036-01-0"), "{newest}");
        assert_eq!(seen.newest_unknown, None);
    }
}

#[test]
fn a_list_that_breaks_off_has_no_newest_snapshot() {
    let restic = Restic::new();
    let entry = r#"{"time":"2026-11-20T22:53:42Z"}"#;
    for (list, word) in [
        (format!("[{entry},{{\"time\":\"2026"), "breaks off"),
        (format!("[{entry},{{\"time\":\"soon\"}}]"), "cannot be read"),
        (String::new(), "listed nothing"),
        ("<html>".into(), "not what it should be"),
    ] {
        let script = format!("[ $1 != snapshots ] || printf %s '{list}'");
        let path = restic.script(&script);
        let seen = details(&RepoCheckSettings { restic_path: path, ..restic.settings() });
        assert_eq!(seen.newest, None, "{list}");
        let why = seen.newest_unknown.expect("it is not known");
        assert!(why.contains(word), "{list}: {why}");
    }
}

/// A repository with two snapshots, once made and then copied.
struct Sound(Restic);

impl Sound {
    fn new(restic: Restic) -> Sound {
        restic.make("sound");
        std::fs::write(restic.path("file"), "more words").unwrap();
        restic.back_up("sound", &["--time", "2036-01-02 03:04:05"]);
        std::fs::create_dir_all(restic.path("d1/mail")).unwrap();
        Sound(restic)
    }

    /// A copy where the module's repository is looked for.
    fn copy(&self) {
        let place = self.0.path("d1/mail/uuid");
        let _ = std::fs::remove_dir_all(&place);
        let from = self.0.path("sound");
        let status = std::process::Command::new("cp").arg("-rp").args([from, place]).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn a_damaged_snapshot_is_told_and_not_passed_over() {
    for restic in Restic::each() {
        let sound = Sound::new(restic);
        for how in [Damage::Empty, Damage::Short, Damage::Flipped] {
            sound.copy();
            damage(&sound.0.newest_file("d1/mail/uuid", "snapshots"), how);
            let seen = details(&sound.0.settings());
            let newest = seen.newest.unwrap().to_string();
            assert!(!newest.starts_with("2036"), "{how:?}: {newest}");
            let told = seen.unreadable_snapshots.expect("one is damaged");
            assert!(told.starts_with("1 snapshot cannot be read: "), "{told}");
            assert_eq!(seen.damage, Some(told));
        }
        sound.copy();
        for _ in 0..2 {
            let newest = sound.0.newest_file("d1/mail/uuid", "snapshots");
            damage(&newest, Damage::Empty);
            let aside = std::fs::File::open(&newest).unwrap();
            aside.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        let seen = details(&sound.0.settings());
        assert_eq!((seen.newest, seen.newest_unknown), (None, None));
        assert!(seen.unreadable_snapshots.unwrap().starts_with("2 snapshots cannot be read: "));
    }
}

#[test]
fn a_damaged_repository_was_told_as_a_server_that_cannot_be_reached() {
    for restic in Restic::each() {
        let sound = Sound::new(restic);
        let cases = [
            ("config", Damage::Empty, "config file has zero size, invalid repository?"),
            ("config", Damage::Short, "restic crashed: panic: runtime error: slice bounds"),
            ("config", Damage::Flipped, "ciphertext verification failed"),
            ("keys", Damage::Empty, ""),
            ("keys", Damage::Short, ""),
            ("keys", Damage::Flipped, ""),
        ];
        for (file, how, word) in cases {
            sound.copy();
            let path = match file {
                "keys" => sound.0.newest_file("d1/mail/uuid", "keys"),
                file => sound.0.path("d1/mail/uuid").join(file),
            };
            damage(&path, how);
            match state(&sound.0.settings()) {
                RepoState::Refused(RepoError::Damaged(why)) => {
                    assert!(why.contains(word), "{file} {how:?}: {why}");
                    assert!(!why.contains("asm_amd64") && !why.contains(".go:"), "{why}");
                }
                other => panic!("{file} {how:?}: {other:?}"),
            }
        }
        sound.copy();
        std::fs::remove_file(sound.0.path("d1/mail/uuid/config")).unwrap();
        let lost = state(&sound.0.settings());
        assert!(matches!(lost, RepoState::Refused(RepoError::Damaged(_))), "{lost:?}");
    }
}

#[test]
fn a_damaged_index_is_found_by_a_deep_check() {
    for restic in Restic::each() {
        let sound = Sound::new(restic);
        for how in [Damage::Empty, Damage::Flipped] {
            sound.copy();
            damage(&sound.0.newest_file("d1/mail/uuid", "index"), how);
            let check = details(&RepoCheckSettings { deep: true, ..sound.0.settings() }).check;
            match check {
                Some(IntegrityCheck::Damaged(what)) => assert!(what.contains("index"), "{what}"),
                other => panic!("{how:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_lock_that_cannot_be_read_is_told_beside_those_that_can() {
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let _holder = restic.lock("d1/mail/uuid");
        for (digit, bytes) in [("0", &b""[..]), ("1", &[7; 10]), ("2", &[7; 200])] {
            let file = restic.path("d1/mail/uuid/locks").join(digit.repeat(64));
            std::fs::write(file, bytes).unwrap();
        }
        let seen = details(&restic.settings());
        assert_eq!((seen.locks.len(), seen.damaged_locks), (1, 3), "{seen:?}");
        assert_eq!(seen.locks_unknown, None);
    }
}

#[test]
fn the_holder_of_a_sixth_lock_was_missed() {
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let _holders: Vec<_> = (0..7).map(|_| restic.lock("d1/mail/uuid")).collect();
        let seen = details(&restic.settings());
        let pids: std::collections::BTreeSet<_> =
            seen.locks.iter().map(|lock| &lock.holder).collect();
        assert_eq!((pids.len(), seen.locks_unknown.clone()), (7, None), "{seen:?}");
    }
}

#[test]
fn a_lock_that_was_released_meanwhile_is_left_out() {
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let listed = restic.path("listed");
        let script = format!(
            "[ \"$1 $2\" = 'list locks' ] || exec {0} \"$@\"\n\
             [ -e {1} ] || printf '%064d\\n' 3\ntouch {1}\n",
            restic.program.display(),
            listed.display()
        );
        let settings =
            RepoCheckSettings { restic_path: restic.script(&script), ..restic.settings() };
        let seen = details(&settings);
        assert_eq!((seen.locks, seen.locks_unknown, seen.damaged_locks), (vec![], None, 0));
    }
}

/// Settings that find the repositories behind a gateway, with the login in `env`.
fn behind(gateway: &Gateway, restic: &Restic, login: (&str, &str)) -> RepoCheckSettings {
    let mut settings = restic.settings();
    settings.timeout = Duration::from_secs(20);
    let repository = settings.repositories.get_mut("default").unwrap();
    repository.repository = format!("rest:{}{{repository}}/{{path}}", gateway.url);
    repository.env.insert("RESTIC_REST_USERNAME".into(), Secret::new(login.0));
    repository.env.insert("RESTIC_REST_PASSWORD".into(), Secret::new(login.1));
    settings
}

#[test]
fn the_login_of_the_gateway_reached_no_restic_of_debian_12() {
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let gateway = Gateway::of_directory(&restic.path(""));
        let settings = behind(&gateway, &restic, LOGIN);
        assert!(details(&settings).newest.is_some());
        let mut wrong = settings.clone();
        wrong.repositories.get_mut("default").unwrap().password =
            Some(RepositoryPassword::Clear(Secret::new("battery-staple")));
        assert_eq!(state(&wrong), RepoState::Refused(RepoError::WrongPassword));
        let told = state(&behind(&gateway, &restic, ("node", "other p@ss/word")));
        let RepoState::Refused(RepoError::Unreachable(why)) = told else { panic!("{told:?}") };
        assert!(why.contains("401"), "{why}");
        for part in ["p@ss", "p%40ss", "word"] {
            assert!(!why.contains(part), "{why}");
        }
    }
}

#[test]
fn a_gateway_tells_a_place_that_is_empty_from_a_repository_without_its_config() {
    for restic in Restic::each() {
        let gateway = Gateway::of_directory(&restic.path(""));
        let settings = behind(&gateway, &restic, LOGIN);
        assert_eq!(state(&settings), RepoState::Refused(RepoError::NotFound));
        restic.make("d1/mail/uuid");
        std::fs::remove_file(restic.path("d1/mail/uuid/config")).unwrap();
        let told = state(&settings);
        assert!(matches!(told, RepoState::Refused(RepoError::Damaged(_))), "{told:?}");
    }
}

#[test]
fn a_destination_that_refuses_its_gateway_was_told_as_a_repository_that_is_gone() {
    let server = HttpDouble::start(|_| reply(404, ""));
    let webdav = Gateway::of_webdav(&server.url);
    let s3 = Gateway::of_s3(&server.url);
    let refused = Gateway::of_webdav("http://127.0.0.1:1");
    for restic in Restic::each() {
        let check = |gateway: &Gateway| state(&behind(gateway, &restic, LOGIN));
        assert_eq!(check(&webdav), RepoState::Refused(RepoError::NotFound), "it answers 404");
        for (status, gateway) in [
            (401, &webdav),
            (403, &webdav),
            (500, &webdav),
            (503, &webdav),
            (507, &webdav),
            (401, &s3),
            (403, &s3),
            (0, &refused),
        ] {
            server.set_mode(Mode::Status(status, "no".into()));
            match check(gateway) {
                RepoState::Refused(RepoError::Unreachable(why)) => {
                    assert!(why.contains("the destination could not be asked"), "{status}: {why}");
                }
                other => panic!("{status}: {other:?}"),
            }
        }
        server.set_mode(Mode::Normal);
    }
}

#[test]
fn an_rclone_of_restic_s_own_does_not_say_that_nothing_is_there() {
    for restic in Restic::each() {
        restic.make("d1/mail/uuid");
        let mut settings = restic.settings();
        let repository = settings.repositories.get_mut("default").unwrap();
        repository.env.insert("RCLONE_CONFIG".into(), Secret::new("/dev/null"));
        repository.repository = format!("rclone:{}", repository.repository);
        assert!(details(&settings).newest.is_some());
        std::fs::rename(restic.path("d1"), restic.path("d2")).unwrap();
        match state(&settings) {
            RepoState::Refused(RepoError::Unreachable(why)) => {
                assert!(why.contains("or the destination could not be asked"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_web_page_in_a_server_s_place_is_told_as_that() {
    let page = HttpDouble::start(|_| reply(200, "<html>Welcome to the router</html>"));
    for restic in Restic::each() {
        let mut settings = restic.settings();
        settings.timeout = Duration::from_secs(4);
        settings.repositories.get_mut("default").unwrap().repository =
            format!("rest:{}/{{repository}}/{{path}}", page.url);
        match state(&settings) {
            RepoState::Refused(RepoError::Unreachable(why)) => {
                assert!(why.contains("a web page"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_restic_that_retries_for_minutes_is_asked_once() {
    let silent = HttpDouble::start(|_| reply(200, ""));
    silent.set_mode(Mode::Hang);
    let Some(_) = newer_program() else { return };
    let restic = Restic::each().remove(1);
    for url in ["http://127.0.0.1:1", &silent.url] {
        let mut settings = restic.settings();
        settings.timeout = Duration::from_secs(4);
        settings.repositories.get_mut("default").unwrap().repository =
            format!("rest:{url}/{{repository}}/{{path}}");
        let begin = Instant::now();
        let told = states(&settings, &plan(&["mail1", "mail2", "samba1", "web1"]));
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
        assert!(matches!(told[0], RepoState::TimedOut(_)), "{told:?}");
        for other in &told[1..] {
            let RepoState::NotChecked(why) = other else { panic!("{told:?}") };
            assert!(why.starts_with("not asked again: "), "{why}");
        }
    }
}

/// The plans in the order in which they are done, each with when, and its states.
type Order = Vec<(usize, Duration, Vec<RepoState>)>;

fn order(settings: &RepoCheckSettings, plans: &[&Plan]) -> Order {
    let (_stopper, stop) = Stop::channel();
    let permits = ResticPermits::default();
    let checker = RepoChecker { settings, permits: &permits };
    let (begin, mut order) = (Instant::now(), Vec::new());
    checker
        .check_plans(plans, &BTreeMap::new(), &stop, |index, results| {
            let states = results.into_iter().map(|result| result.state).collect();
            order.push((index, begin.elapsed(), states));
        })
        .unwrap();
    order
}

/// A restic that hangs at the destinations whose name begins with "dead", there in this command.
fn half_dead(restic: &Restic, command: &str, timeout: u64) -> RepoCheckSettings {
    let script = format!(
        "case $RESTIC_REPOSITORY in */dead*) [ $1 != {command} ] || sleep 300 ;; esac\n\
         [ $1 != snapshots ] || echo '[]'\n"
    );
    let timeout = Duration::from_secs(timeout);
    RepoCheckSettings { restic_path: restic.script(&script), timeout, ..restic.settings() }
}

#[test]
fn a_dead_destination_keeps_only_its_own_plan_waiting() {
    let restic = Restic::new();
    let settings = half_dead(&restic, "snapshots", 12);
    let dead = plan_to("dead", &["mail1", "mail2", "mail3", "mail4"]);
    let other = plan_to("d2", &["web1", "web2", "web3", "web4"]);
    let nothing = Plan { id: "3".into(), ..Plan::default() };
    let order = order(&settings, &[&dead, &other, &nothing]);
    let plans: Vec<usize> = order.iter().map(|(plan, ..)| *plan).collect();
    assert_eq!(plans, [2, 1, 0]);
    assert!(order[1].1 < Duration::from_secs(11), "{:?}", order[1].1);
    assert!(order[2].1 < Duration::from_secs(23), "one timeout: {:?}", order[2].1);
    assert!(order[1].2.iter().all(|state| matches!(state, RepoState::Open(_))), "{order:?}");
}

#[test]
fn two_dead_destinations_keep_another_plan_waiting_for_ten_seconds_only() {
    let restic = Restic::new();
    let settings = half_dead(&restic, "snapshots", 25);
    let dead = ["dead1", "dead2"].map(|id| plan_to(id, &["mail1", "mail2"]));
    let other = plan_to("d2", &["web1", "web2"]);
    let order = order(&settings, &[&dead[0], &dead[1], &other]);
    assert_eq!(order[0].0, 2);
    assert!(order[0].1 < Duration::from_secs(17), "{:?}", order[0].1);
    assert!(order[2].1 < Duration::from_secs(32), "{:?}", order[2].1);
}

#[test]
fn a_destination_that_answers_and_then_dies_in_a_deep_check_gives_its_permits_on() {
    let restic = Restic::new();
    let settings = RepoCheckSettings { deep: true, ..half_dead(&restic, "check", 25) };
    let dead = plan_to("dead", &["mail1", "mail2", "mail3"]);
    let other = plan_to("d2", &["web1", "web2", "web3", "web4"]);
    let order = order(&settings, &[&dead, &other]);
    assert_eq!(order[0].0, 1);
    assert!(order[0].1 < Duration::from_secs(17), "{:?}", order[0].1);
}

#[test]
fn those_who_wait_for_a_dead_destination_learn_from_the_first_who_asked() {
    let restic = Restic::new();
    let settings = half_dead(&restic, "snapshots", 5);
    let permits = ResticPermits::default();
    let checker = RepoChecker { settings: &settings, permits: &permits };
    let (_stopper, stop) = Stop::channel();
    let begin = Instant::now();
    let told = std::thread::scope(|scope| {
        let threads = ["mail1", "mail2", "mail3"].map(|module| {
            let stop = &stop;
            scope.spawn(move || {
                let plan = plan_to("dead", &[module]);
                check_by(checker, &plan, &BTreeMap::new(), stop).unwrap()
            })
        });
        threads.map(|thread| thread.join().unwrap().remove(0).state)
    });
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    let timed_out = told.iter().filter(|state| matches!(state, RepoState::TimedOut(_))).count();
    assert_eq!(timed_out, 1, "{told:?}");
}
