//! The correlator against a real Redis in both layouts, and against ones that are down, silent,
//! locked, or no Redis at all.

mod support {
    pub mod redis;
}

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heartbeat::backup::alert::Alert;
use heartbeat::backup::correlator::{self, RedisState, correlate};
use heartbeat::backup::outcome::PlanOutcome;
use heartbeat::backup::plan::{ModuleState, Plan};
use heartbeat::backup::plan_query::PlanQuery;
use heartbeat::backup::redis::RedisConnection;
use heartbeat::backup::settings::CorrelatorSettings;
use heartbeat::clock::Wall;
use heartbeat::secret::Secret;
use heartbeat::thread::Stop;
use support::redis::Redis;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn json(ago: u64, errors: u64) -> String {
    let end = now() - ago;
    format!(
        r#"{{"start": {}, "total_size": 123456789, "total_file_count": 4321, "snapshots_count": 1, "errors": {errors}, "end": {end}}}"#,
        end - 420
    )
}

/// A cluster with one plan of three modules on two nodes.
fn cluster() -> Redis {
    let redis = Redis::start();
    fill_cluster(&redis);
    redis
}

fn fill_cluster(redis: &Redis) {
    redis.run_lines(&[
        "HSET cluster/backup/1 name Nightly repository d1 schedule daily enabled 1",
        "HSET cluster/backup_repository/d1 name Box provider generic-s3 url s3:x",
        "HSET cluster/module_node mail1 1 nextcloud2 1 samba3 2",
        "HSET cluster/module_uuid mail1 u-mail nextcloud2 u-cloud samba3 u-samba",
        "HSET private/agents/backup_destination/restic_password d1 hunter22",
    ]);
    redis.run(&["HSET", "cluster/backup/1", "instances", "mail1 nextcloud2 samba3 removed4"]);
    redis.run(&["SET", "module/mail1/ui_name", "Post office"]);
    redis.run(&[
        "HSET",
        "node/1/backup_status/1",
        "mail1",
        &json(60, 0),
        "nextcloud2",
        &json(60, 2),
    ]);
    redis.run(&["HSET", "node/2/backup_status/1", "samba3", &json(90, 0)]);
}

/// Polls once, with nobody who says stop.
fn look(settings: &CorrelatorSettings, query: &PlanQuery) -> Result<RedisState, String> {
    let (_stopper, stop) = Stop::channel();
    correlator::read_once(settings, query, &stop).unwrap()
}

fn ask(redis: &Redis, plan: &str) -> Plan {
    let answer = look(&redis.settings(), &PlanQuery::for_plan(plan)).unwrap();
    assert_eq!(answer.plans.len(), 1);
    answer.plans.into_iter().next().unwrap()
}

/// `mail1 success, samba3 missing`.
fn states(plan: &Plan) -> String {
    let said =
        |module: &heartbeat::backup::plan::Module| format!("{} {}", module.id, module.state.name());
    plan.modules.iter().map(said).collect::<Vec<_>>().join(", ")
}

fn outcome(plan: &Plan) -> &'static str {
    PlanOutcome::of(plan).outcome.name()
}

#[test]
fn a_plan_is_read_with_all_that_is_known_about_its_modules() {
    let redis = cluster();
    let answer = look(&redis.settings(), &PlanQuery::for_plan("1")).unwrap();
    let plan = &answer.plans[0];
    assert_eq!(states(plan), "mail1 success, nextcloud2 failed, samba3 success");
    assert_eq!(outcome(plan), "PARTIAL");
    assert_eq!(plan.name.as_deref(), Some("Nightly"));
    let destination = plan.destination.as_ref().unwrap();
    assert_eq!((destination.id.as_str(), destination.name.as_deref()), ("d1", Some("Box")));
    assert_eq!(answer.passwords["d1"].reveal(), "hunter22");
    let mail = &plan.modules[0];
    assert_eq!(mail.ui_name.as_deref(), Some("Post office"));
    assert_eq!((mail.uuid.as_deref(), mail.node.as_deref()), (Some("u-mail"), Some("1")));
    let run = mail.run.as_ref().unwrap();
    assert_eq!((run.size, run.files, run.snapshots), (Some(123_456_789), Some(4321), Some(1)));
    assert_eq!(plan.modules[2].node.as_deref(), Some("2"));
}

#[test]
fn damaged_values_are_reported_and_not_skipped() {
    let redis = cluster();
    redis.run(&[
        "HSET",
        "node/1/backup_status/1",
        "mail1",
        "{not json",
        "nextcloud2",
        &json(60, 0),
    ]);
    let plan = ask(&redis, "1");
    assert_eq!(states(&plan), "mail1 unreadable, nextcloud2 success, samba3 success");
    assert_eq!(outcome(&plan), "UNKNOWN");
    redis.run(&["DEL", "node/2/backup_status/1"]);
    redis.run(&["SET", "node/2/backup_status/1", "a text where a hash should be"]);
    let plan = ask(&redis, "1");
    assert_eq!(plan.modules[2].state, ModuleState::Unreadable);
    assert!(plan.modules[2].why.as_ref().unwrap().contains("WRONGTYPE"), "{plan:?}");
}

#[test]
fn the_older_layout_is_read_and_the_newer_end_wins() {
    let redis = cluster();
    redis.run(&["HDEL", "cluster/backup/1", "instances"]);
    redis.run(&["DEL", "node/2/backup_status/1"]);
    for module in ["mail1", "nextcloud2", "samba3", "removed4"] {
        redis.run(&["SADD", &format!("module/{module}/backups"), "1", "7"]);
    }
    let old = |module: &str, ago: u64, errors: &str| {
        let (start, end) = ((now() - ago - 60).to_string(), (now() - ago).to_string());
        let key = format!("module/{module}/backup_status/1");
        redis.run(&["HSET", &key, "start", &start, "end", &end, "errors", errors]);
    };
    old("mail1", 3600, "9");
    old("nextcloud2", 10, "0");
    old("samba3", 10, "x");
    let plan = ask(&redis, "1");
    assert_eq!(states(&plan), "mail1 success, nextcloud2 success, samba3 unreadable");
}

#[test]
fn a_node_that_was_off_leaves_its_modules_missing() {
    let redis = cluster();
    redis.run(&["HSET", "cluster/backup/1", "schedule", &daily_since(19 * 60)]);
    redis.run(&["DEL", "node/2/backup_status/1"]);
    redis.run(&["HSET", "node/1/backup_status/1", "nextcloud2", &json(60, 0)]);
    let plan = ask(&redis, "1");
    assert_eq!(states(&plan), "mail1 success, nextcloud2 success, samba3 missing");
    redis.run(&["HSET", "node/2/backup_status/1", "samba3", &json(3 * 86_400, 0)]);
    assert_eq!(states(&ask(&redis, "1")), "mail1 success, nextcloud2 success, samba3 missing");
}

/// A schedule that elapsed so many minutes ago, and elapses once a day.
fn daily_since(minutes: u64) -> String {
    let minute = (now() / 60 - minutes) % (24 * 60);
    format!("{:02}:{:02} UTC", minute / 60, minute % 60)
}

#[test]
fn what_had_its_turn_the_day_before_was_called_missing_in_the_middle_of_a_pass() {
    const DAY: u64 = 86_400;
    let redis = cluster();
    redis.run(&["HSET", "cluster/backup/1", "schedule", &daily_since(30)]);
    redis.run(&[
        "HSET",
        "node/1/backup_status/1",
        "mail1",
        &json(60, 1),
        "nextcloud2",
        &json(DAY, 0),
    ]);
    redis.run(&["HSET", "node/2/backup_status/1", "samba3", &json(DAY - 600, 0)]);
    let plan = ask(&redis, "1");
    assert_eq!(states(&plan), "mail1 failed, nextcloud2 pending, samba3 pending");
    let told = PlanOutcome::of(&plan);
    assert_eq!(
        (told.outcome.name(), told.why.as_str()),
        ("PARTIAL", "1 of 3 modules failed, 2 not yet run")
    );
    let why = plan.modules[1].why.as_ref().unwrap();
    assert!(why.starts_with("last success ") && why.contains(", not yet run "), "{why}");

    redis.run(&["HSET", "node/1/backup_status/1", "mail1", &json(60, 0)]);
    assert_eq!(outcome(&ask(&redis, "1")), "RUNNING");
    // Their regular time is over after six hours.
    redis.run(&["HSET", "cluster/backup/1", "schedule", &daily_since(6 * 60 + 5)]);
    redis.run(&["HSET", "node/2/backup_status/1", "samba3", &json(5 * 3600, 0)]);
    assert_eq!(states(&ask(&redis, "1")), "mail1 success, nextcloud2 missing, samba3 success");
    redis.run(&["HSET", "cluster/backup/1", "enabled", "0", "schedule", &daily_since(30)]);
    assert_eq!(states(&ask(&redis, "1")), "mail1 success, nextcloud2 missing, samba3 missing");
}

#[test]
fn what_ns_backup_missing_says_is_not_doubted() {
    let redis = cluster();
    redis.run(&["HSET", "cluster/backup/1", "schedule", &daily_since(30)]);
    redis.run(&["HDEL", "node/1/backup_status/1", "mail1"]);
    redis.run(&["HSET", "node/1/backup_status/1", "nextcloud2", &json(86_400, 0)]);
    let told = |name: &str| {
        let alert = Alert {
            name: name.into(),
            fingerprint: "f".into(),
            starts_at: Some(Wall(i64::try_from(now() * 1000).unwrap())),
            labels: [("backup_id".to_owned(), "1".to_owned())].into(),
            annotations: std::collections::BTreeMap::new(),
            may_repeat: false,
        };
        let query =
            PlanQuery::from_alerts(&[alert], &["backup_id".to_owned()], SystemTime::now().into());
        states(&look(&redis.settings(), &query).unwrap().plans[0])
    };
    assert_eq!(told("NsBackupFailed"), "mail1 pending, nextcloud2 pending, samba3 success");
    assert_eq!(told("NsBackupMissing"), "mail1 missing, nextcloud2 missing, samba3 success");
}

#[test]
fn a_plan_that_nobody_knows_is_unknown() {
    let plan = ask(&cluster(), "*");
    assert_eq!((outcome(&plan), plan.modules.len()), ("UNKNOWN", 0));
}

#[test]
fn without_an_id_all_enabled_and_all_recently_written_plans_are_looked_at() {
    let redis = cluster();
    redis.run(&["HSET", "cluster/backup/2", "name", "Off", "enabled", "", "instances", "mail1"]);
    redis.run(&[
        "HSET",
        "cluster/backup/3",
        "schedule",
        &daily_since(19 * 60),
        "name",
        "Never ran",
        "enabled",
        "1",
        "instances",
        "mail1",
    ]);
    redis.run(&["HSET", "node/1/backup_status/4", "mail1", &json(60, 1)]);
    redis.run(&["HSET", "node/1/backup_status/5", "mail1", &json(9 * 86_400, 1)]);
    redis.run(&["HSET", "node/1/backup_status/6", "removed4", &json(60, 1)]);
    let answer = look(&redis.settings(), &PlanQuery::for_all()).unwrap();
    let found: Vec<_> =
        answer.plans.iter().map(|plan| format!("{} {}", plan.id, outcome(plan))).collect();
    assert_eq!(found, ["1 PARTIAL", "3 MISSING", "4 FAILED"]);
}

#[test]
fn a_running_module_is_waited_for() {
    let redis = cluster();
    let running = format!(r#"{{"start": {}}}"#, now() - 5);
    redis.run(&["HSET", "node/1/backup_status/1", "nextcloud2", &running]);
    let short = CorrelatorSettings { max_wait: Duration::from_millis(50), ..redis.settings() };
    let (_stopper, stop) = Stop::channel();
    let answer = correlate(&short, &PlanQuery::for_plan("1"), &stop).unwrap().unwrap();
    assert_eq!(outcome(&answer.plans[0]), "RUNNING");

    let long = CorrelatorSettings { max_wait: Duration::from_secs(600), ..redis.settings() };
    let (stopper, stop) = Stop::channel();
    let waiting = std::thread::spawn(move || correlate(&long, &PlanQuery::for_plan("1"), &stop));
    drop(stopper);
    assert!(waiting.join().unwrap().is_none());
}

#[test]
fn a_plan_of_thousands_of_modules_is_read_in_time() {
    let redis = cluster();
    let modules: Vec<String> = (0..3000).map(|n| format!("app{n}")).collect();
    let status = json(60, 0);
    let mut fields = vec!["HSET", "node/1/backup_status/1"];
    let mut nodes = vec!["HSET", "cluster/module_node"];
    for module in &modules {
        fields.extend([module.as_str(), &status]);
        nodes.extend([module.as_str(), "1"]);
    }
    redis.run(&fields);
    redis.run(&nodes);
    redis.run(&["HSET", "cluster/backup/1", "instances", &modules.join(" ")]);
    let begin = Instant::now();
    let plan = ask(&redis, "1");
    assert_eq!((plan.modules.len(), outcome(&plan)), (3000, "SUCCESS"));
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_user_a_password_and_a_database_are_used() {
    let redis = Redis::start();
    redis.run(&["HSET", "cluster/module_node", "mail1", "1"]);
    redis.run(&["COPY", "cluster/module_node", "cluster/module_node", "DB", "2"]);
    redis.run(&["ACL", "SETUSER", "ops", "on", ">p@ss w:ö/#", "~*", "+@read", "+select"]);
    redis.run(&["ACL", "SETUSER", "bound", "on", ">hunter22", "~*", "+@read"]);
    redis.run(&["ACL", "SETUSER", "default", ">hunter22"]);
    let url = format!("redis+unix://{}?db=2", redis.socket().display());
    let with = |user: Option<&str>, password: Option<&str>| {
        let settings = CorrelatorSettings {
            redis_url: url.clone(),
            redis_user: user.map(str::to_owned),
            redis_password: password.map(Secret::new),
            ..CorrelatorSettings::default()
        };
        look(&settings, &PlanQuery::for_plan("1")).map(|answer: RedisState| answer.plans.len())
    };
    assert_eq!(with(Some("ops"), Some("p@ss w:ö/#")), Ok(1));
    assert_eq!(with(None, Some("hunter22")), Ok(1));
    let wrong = with(Some("ops"), Some("hunter23")).unwrap_err();
    assert!(wrong.ends_with("user or password is wrong"), "{wrong}");
    assert!(!wrong.contains("hunter23"));
    let refused = with(Some("bound"), Some("hunter22")).unwrap_err();
    assert!(refused.contains("NOPERM") && refused.contains("'select'"), "{refused}");
    let none = with(None, None).unwrap_err();
    assert!(none.contains("it wants a password"), "{none}");
}

#[test]
fn what_we_may_not_read_is_said_and_what_we_can_do_without_is_not() {
    let redis = cluster();
    let mut user = vec!["ACL", "SETUSER", "ops", "on", ">hunter22", "+@read", "~cluster/*"];
    let settings = CorrelatorSettings {
        redis_user: Some("ops".into()),
        redis_password: Some(Secret::new("hunter22")),
        ..redis.settings()
    };
    user.push("~node/*");
    redis.run(&user);
    let answer = look(&settings, &PlanQuery::for_plan("1")).unwrap();
    assert_eq!(outcome(&answer.plans[0]), "PARTIAL");
    assert!(answer.passwords.is_empty());
    redis.run(&["ACL", "SETUSER", "ops", "resetkeys", "~node/*"]);
    let refused = look(&settings, &PlanQuery::for_plan("1")).unwrap_err();
    assert!(refused.contains("cluster/module_node cannot be read: NOPERM"), "{refused}");
}

/// What the system trusts is given by the environment, so this runs itself again in one of its own.
#[test]
fn a_redis_behind_tls_is_asked_when_its_certificate_is_trusted() {
    let over_tls = |port: &str| {
        let redis_url = format!("rediss://127.0.0.1:{port}");
        look(
            &CorrelatorSettings { redis_url, ..CorrelatorSettings::default() },
            &PlanQuery::for_plan("1"),
        )
    };
    if let Ok(port) = std::env::var("HB_TEST_TLS_PORT") {
        assert_eq!(over_tls(&port).unwrap().plans.len(), 1);
        return;
    }
    let (redis, port) = Redis::start_with_tls();
    redis.run(&["HSET", "cluster/module_node", "mail1", "1"]);
    let refused = over_tls(&port.to_string()).unwrap_err();
    assert!(refused.contains("certificate is not trusted"), "{refused}");
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/ca.pem");
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_redis_behind_tls_is_asked_when_its_certificate_is_trusted"])
        .env("SSL_CERT_FILE", authority)
        .env("HB_TEST_TLS_PORT", port.to_string())
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
}

/// A server on loopback that answers each connection with these bytes and then keeps it open.
fn answering(bytes: &'static [u8]) -> CorrelatorSettings {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis_url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut some = [0; 4096];
            let _ = stream.read(&mut some);
            let _ = stream.write_all(bytes);
            open.push(stream);
        }
    });
    CorrelatorSettings { redis_url, ..CorrelatorSettings::default() }
}

#[test]
fn a_redis_that_is_down_silent_or_something_else_is_said_in_bounded_time() {
    // A port that nobody is given by chance.
    let down = CorrelatorSettings {
        redis_url: "redis://127.0.0.1:1".into(),
        ..CorrelatorSettings::default()
    };
    let with_password = |settings: CorrelatorSettings| CorrelatorSettings {
        redis_password: Some(Secret::new("hunter22")),
        ..settings
    };
    let denied = b"-DENIED Redis is running in protected mode because x\r\n";
    let before_6 = b"-ERR wrong number of arguments for 'auth' command\r\n";
    let cases = [
        (down, "Connection refused"),
        (with_password(answering(denied)), "protected mode"),
        (with_password(answering(before_6)), "leave out redis_user"),
        (with_password(answering(b"-ERR invalid password\r\n")), "user or password is wrong"),
        (answering(b""), "no answer within 5 s"),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is the address right?"),
        (answering(b"*99999999999\r\n"), "no answer within 5 s"),
        (answering(b"$99999999999\r\n"), "no answer within 5 s"),
        (answering(b"$-7\r\n"), "is the address right?"),
        (answering(b"+OK\r\n"), "is the address right?"),
        (answering(b":1\r\n"), "is the address right?"),
        (answering(b"*2\r\n$1\r\nx\r\n*0\r\n"), "is the address right?"),
        (answering(b"|1\r\n+a\r\n"), "no answer within 5 s"),
        (answering(b"-LOADING Redis is loading the dataset in memory\r\n"), "LOADING"),
        (answering(denied), "protected mode"),
        (
            answering(b"-MASTERDOWN Link with MASTER is down and x\r\n"),
            "replica without its master",
        ),
        (answering(b"-MISCONF Redis is configured to save RDB snapshots\r\n"), "its log says why"),
        (answering(b"-MOVED 3999 127.0.0.1:6381\r\n"), "a node of a Redis Cluster"),
        (answering(b"-ERR max number of clients reached\r\n"), "maxclients"),
        (answering(b"\0\xff\xfe\r\n"), "is the address right?"),
    ];
    let begin = Instant::now();
    let asked = cases.map(|(settings, why)| {
        (why, std::thread::spawn(move || look(&settings, &PlanQuery::for_plan("1"))))
    });
    for (why, asked) in asked {
        let said = asked.join().unwrap().unwrap_err();
        assert!(said.contains(why), "{said} for {why}");
        assert!(said.contains("Redis at 127.0.0.1:"), "{said}");
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_redis_that_starts_anew_is_asked_again_and_a_stop_is_not_waited_out() {
    let redis = cluster();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis_url = format!("redis://{}", listener.local_addr().unwrap());
    let socket = redis.socket();
    std::thread::spawn(move || {
        // Whoever comes first finds it closed again at once.
        drop(listener.accept().unwrap());
        let (client, _) = listener.accept().unwrap();
        let server = UnixStream::connect(socket).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut &server, &mut &client);
    });
    let settings = CorrelatorSettings { redis_url, ..CorrelatorSettings::default() };
    let (stopper, stop) = Stop::channel();
    let answer = correlate(&settings, &PlanQuery::for_plan("1"), &stop).unwrap().unwrap();
    assert_eq!(outcome(&answer.plans[0]), "PARTIAL");
    let begin = Instant::now();
    let silent = answering(b"");
    let waiting =
        std::thread::spawn(move || correlate(&silent, &PlanQuery::for_plan("1"), &stop).is_none());
    drop(stopper);
    assert!(waiting.join().unwrap());
    assert!(begin.elapsed() < Duration::from_secs(4), "the answer itself was waited for");
}

#[test]
fn what_left_the_cluster_made_a_plan_partial_for_ever() {
    let redis = cluster();
    redis.run(&["HSET", "node/1/backup_status/1", "nextcloud2", &json(60, 0)]);
    // A module that was moved, with the failure that it left behind; and one that was removed with its
    // node, of which cores before 3.21.1 keep everything but this.
    redis.run(&["HSET", "node/1/backup_status/1", "samba3", &json(86_400, 4)]);
    redis.run(&["HDEL", "cluster/module_node", "mail1"]);
    redis.run(&["HSET", "node/1/backup_status/1", "mail1", &json(9 * 86_400, 1)]);
    let plan = ask(&redis, "1");
    assert_eq!(states(&plan), "nextcloud2 success, samba3 success");
    assert_eq!(outcome(&plan), "SUCCESS");
    // Moved a moment ago: its last run is where it was, on a node where nothing is any more.
    redis.run(&["HSET", "cluster/module_node", "samba3", "1"]);
    redis.run(&["RENAME", "node/2/backup_status/1", "node/3/backup_status/1"]);
    assert_eq!(states(&ask(&redis, "1")), "nextcloud2 success, samba3 success");
    redis.run(&["DEL", "cluster/module_node"]);
    redis.run(&["HDEL", "cluster/module_uuid", "samba3"]);
    assert_eq!(states(&ask(&redis, "1")), "mail1 failed, nextcloud2 success");
}

/// `1 PARTIAL, 5 UNKNOWN`.
fn outcomes(state: &RedisState) -> String {
    let said = |plan: &Plan| format!("{} {}", plan.id, outcome(plan));
    state.plans.iter().map(said).collect::<Vec<_>>().join(", ")
}

#[test]
fn one_key_that_cannot_be_read_made_every_plan_unknown() {
    let redis = cluster();
    redis.run(&["SET", "cluster/backup/5", "a text"]);
    redis.run(&["SET", "cluster/backup/lock", "a text"]);
    redis.run(&["SET", "cluster/backup/1/lock", "a text"]);
    redis.run(&["HSET", "cluster/backup/1/more", "enabled", "1"]);
    let all = look(&redis.settings(), &PlanQuery::for_all()).unwrap();
    assert_eq!((outcomes(&all).as_str(), &all.incomplete), ("1 PARTIAL, 5 UNKNOWN", &None));
    let why = all.plans[1].why.as_ref().unwrap();
    assert!(why.starts_with("cluster/backup/5 cannot be read: WRONGTYPE"), "{why}");
    let mut query = PlanQuery::for_plan("1");
    query.plans.insert("5".into(), None);
    query.plans.insert("lock".into(), None);
    query.plans.insert("8".into(), None);
    let named = look(&redis.settings(), &query).unwrap();
    assert_eq!(outcomes(&named), "1 PARTIAL, 5 UNKNOWN, 8 UNKNOWN, lock UNKNOWN");
    let whys: Vec<bool> = named.plans.iter().map(|plan| plan.why.is_some()).collect();
    assert_eq!(whys, [false, true, false, true], "that 8 does not exist is known");
    // What only adds to what is known.
    for key in ["cluster/module_uuid", "cluster/backup_repository/d1"] {
        redis.run(&["SET", key, "a text"]);
    }
    assert_eq!(states(&ask(&redis, "1")), "mail1 success, nextcloud2 failed, samba3 success");
    // A key of one module is about that module.
    redis.run(&["SET", "module/samba3/backup_status/1", "a text"]);
    redis.run(&["SET", "module/mail1/ui_name", ""]);
    redis.run(&["HSET", "module/nextcloud2/ui_name", "no", "text"]);
    assert_eq!(states(&ask(&redis, "1")), "mail1 success, nextcloud2 failed, samba3 unreadable");
}

#[test]
fn a_plan_that_an_acl_hides_is_unknown_and_no_other() {
    let redis = cluster();
    redis.run(&["HSET", "cluster/backup/2", "enabled", "1", "instances", "mail1"]);
    redis.run(&["HSET", "node/1/backup_status/2", "mail1", &json(60, 0)]);
    let mut settings = CorrelatorSettings {
        redis_user: Some("ops".into()),
        redis_password: Some(Secret::new("hunter22")),
        ..redis.settings()
    };
    let user = ["ACL", "SETUSER", "ops", "on", ">hunter22", "+@read", "~node/1/*", "~cluster/m*"];
    redis.run(&user);
    redis.run(&["ACL", "SETUSER", "ops", "~cluster/backup/1", "~node/2/*"]);
    let all = look(&settings, &PlanQuery::for_all()).unwrap();
    assert_eq!((outcomes(&all).as_str(), &all.incomplete), ("1 PARTIAL, 2 UNKNOWN", &None));
    let hidden = look(&settings, &PlanQuery::for_plan("2")).unwrap();
    let why = hidden.plans[0].why.as_ref().unwrap();
    assert!(why.contains("cluster/backup/2 cannot be read: NOPERM"), "{why}");
    // Without SCAN the plans cannot be listed, and one that is named can be read.
    redis.run(&["ACL", "SETUSER", "ops", "-scan", "~cluster/backup/*"]);
    let all = look(&settings, &PlanQuery::for_all()).unwrap();
    assert!(all.plans.is_empty());
    let why = all.incomplete.unwrap();
    assert!(why.contains("the list of all keys cannot be read: NOPERM"), "{why}");
    let mut query = PlanQuery::for_all();
    query.plans.insert("1".into(), None);
    let both = look(&settings, &query).unwrap();
    assert_eq!((outcomes(&both).as_str(), both.incomplete.is_some()), ("1 PARTIAL", true));
    settings.redis_user = None;
    settings.redis_password = None;
    assert_eq!(outcomes(&look(&settings, &PlanQuery::for_all()).unwrap()), "1 PARTIAL, 2 SUCCESS");
}

#[test]
fn a_database_without_a_cluster_was_said_to_know_nothing_of_the_plan() {
    let redis = cluster();
    let at = |database: u32| CorrelatorSettings {
        redis_url: format!("redis+unix://{}?db={database}", redis.socket().display()),
        ..CorrelatorSettings::default()
    };
    let (_stopper, stop) = Stop::channel();
    let holds = |settings| correlator::holds_cluster(&settings, &stop).unwrap();
    for query in [PlanQuery::for_plan("1"), PlanQuery::for_all()] {
        let said = look(&at(3), &query).unwrap_err();
        assert!(said.contains("database 3 holds no cluster"), "{said}");
    }
    let said = correlator::find_problem(&at(3), &stop).unwrap();
    assert!(said.contains("database 3 holds no cluster"), "{said}");
    assert_eq!(holds(at(3)), Ok(false));
    assert_eq!((holds(at(0)), correlator::find_problem(&at(0), &stop)), (Ok(true), None));
    let said = holds(at(99)).unwrap_err();
    assert!(said.contains("no database of the number in redis_url"), "{said}");
    let down = CorrelatorSettings {
        redis_url: "redis://127.0.0.1:1".into(),
        ..CorrelatorSettings::default()
    };
    assert_eq!(correlator::find_problem(&down, &stop), None, "it may be elsewhere");
    assert!(holds(down).unwrap_err().contains("Connection refused"));
    assert_eq!(look(&at(0), &PlanQuery::for_plan("7")).unwrap().plans[0].why, None);
}

#[test]
fn a_redis_that_holds_no_data_of_ours_is_called_what_it_is() {
    let (_stopper, stop) = Stop::channel();
    let sentinel = Redis::start_sentinel();
    let node = Redis::start_with(&["--cluster-enabled", "yes"]);
    let said = look(
        &CorrelatorSettings {
            redis_password: Some(Secret::new("hunter22")),
            ..sentinel.settings()
        },
        &PlanQuery::for_plan("1"),
    );
    let said = said.unwrap_err();
    assert!(
        said.ends_with("it has no password: leave out redis_password, or set one there"),
        "{said}"
    );
    for (redis, database, what) in [
        (&sentinel, 0, "a Sentinel, which holds no data?"),
        (&sentinel, 2, "a Sentinel, which holds no data?"),
        (&node, 0, "a node of a Redis Cluster"),
        (&node, 2, "a node of a Redis Cluster"),
    ] {
        let settings = CorrelatorSettings {
            redis_url: format!("redis+unix://{}?db={database}", redis.socket().display()),
            ..CorrelatorSettings::default()
        };
        for said in [
            look(&settings, &PlanQuery::for_plan("1")).unwrap_err(),
            look(&settings, &PlanQuery::for_all()).unwrap_err(),
            correlator::find_problem(&settings, &stop).unwrap(),
            correlator::holds_cluster(&settings, &stop).unwrap().unwrap_err(),
        ] {
            assert!(said.contains(what), "{said}");
        }
    }
}

#[test]
fn the_image_of_a_module_is_not_always_called_like_the_module() {
    let redis = cluster();
    let image = |module: &str, url: &str| {
        redis.run(&["HSET", &format!("module/{module}/environment"), "IMAGE_URL", url]);
    };
    image("mail1", "ghcr.io/nethserver/mail:1.2");
    image("samba3", "registry.example.com:5000/nethserver/samba-dc@sha256:0123456789abcdef");
    let plan = ask(&redis, "1");
    let images: Vec<_> = plan.modules.iter().map(|module| module.image.as_deref()).collect();
    assert_eq!(images, [Some("mail"), None, Some("samba-dc")]);
}

const KEY_COMMANDS: [&str; 4] = ["scan", "keys", "dbsize", "randomkey"];

/// A cluster beside as many keys of others; how long a named plan and all plans take.
fn times_beside(keys: u64) -> (Duration, Duration) {
    let redis = Redis::start_with(&["--enable-debug-command", "local"]);
    fill_cluster(&redis);
    redis.run(&["DEBUG", "POPULATE", &keys.to_string(), "module/mail1/mailbox", "8"]);
    let begin = Instant::now();
    let plan = ask(&redis, "1");
    let named = begin.elapsed();
    assert_eq!(states(&plan), "mail1 success, nextcloud2 failed, samba3 success");
    assert_eq!(redis.calls(&KEY_COMMANDS), 0, "a plan that is named is read by its keys");
    let begin = Instant::now();
    let all = look(&redis.settings(), &PlanQuery::for_all()).unwrap();
    let all_plans = begin.elapsed();
    assert_eq!((outcomes(&all).as_str(), all.incomplete), ("1 PARTIAL", None));
    let scans = redis.calls(&KEY_COMMANDS);
    assert!(scans <= keys / 10_000 + 2, "{scans} SCAN are more than one look through {keys} keys");
    (named, all_plans)
}

#[test]
fn a_plan_took_three_looks_through_all_keys() {
    let (named, all_plans) = times_beside(300_000);
    assert!(named < Duration::from_secs(5), "{named:?}");
    assert!(all_plans < Duration::from_secs(20), "{all_plans:?}");
}

#[test]
fn a_look_through_too_many_keys_ends_in_time_and_says_so() {
    let redis = Redis::start_with(&["--enable-debug-command", "local"]);
    fill_cluster(&redis);
    redis.run(&["DEBUG", "POPULATE", "50000"]);
    let now = Instant::now();
    let mut connection =
        RedisConnection::connect(&redis.settings(), now + Duration::from_secs(60)).unwrap();
    let mut scan = |until| connection.scan_keys("/backup", until, |_| true).unwrap();
    let cut = scan(now);
    assert_eq!(cut.incomplete.as_deref(), Some("there are too many keys to look at all in time"));
    assert_eq!(redis.calls(&["scan"]), 1);
    let whole = scan(now + Duration::from_secs(60));
    assert_eq!((whole.incomplete, whole.keys.contains("node/2/backup_status/1")), (None, true));
}

#[test]
#[ignore = "takes 1.5 GB of memory and half a minute"]
fn a_plan_beside_twelve_million_keys_is_read_in_time() {
    let (named, all_plans) = times_beside(12_000_000);
    println!("a named plan {named:?}, all plans {all_plans:?}");
    assert!(named < Duration::from_secs(5), "{named:?}");
    assert!(all_plans < Duration::from_secs(90), "{all_plans:?}");
}

/// `hbd`: its exit code and what it prints.
fn hbd(file: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
        .args(arguments)
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_wrong_redis_was_ok_to_the_check() {
    let (redis, sentinel) = (cluster(), Redis::start_sentinel());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("heartbeat.yaml");
    let check = |section: &str, strict: bool| {
        let head =
            "notification_channels: {log: {type: log}}\ndefault_notification_channels: [log]\n";
        std::fs::write(&file, format!("{head}{section}\n")).unwrap();
        let arguments: &[&str] = if strict { &["check", "--strict"] } else { &["check"] };
        hbd(&file, arguments)
    };
    let at = |url: &str| format!("correlator: {{redis_url: \"{url}\"}}");
    let url = redis.settings().redis_url;
    let (code, said) = check(&at(&url), true);
    assert_eq!((code, said.as_str()), (0, "OK: 1 channel, 0 hosts, 0 threshold sets\n"));
    for (url, what) in [
        (format!("{url}?db=3"), "database 3 holds no cluster"),
        (sentinel.settings().redis_url, "a Sentinel"),
        (format!("{url}?user=ops&pass=hunter22"), "user or password is wrong"),
    ] {
        let (code, said) = check(&at(&url), false);
        assert!(
            said.contains("warning: correlator.redis_url: Redis at ") && said.contains(what),
            "{said}"
        );
        assert!(code == 0 && said.contains("\nOK: ") && !said.contains("hunter22"), "{said}");
        assert_eq!(check(&at(&url), true).0, 78);
    }
    for section in
        [at("redis://127.0.0.1:1"), at("redis+unix:///nowhere/redis.sock"), String::new()]
    {
        assert_eq!(check(&section, true).0, 0, "what does not answer may be elsewhere: {section}");
    }
}

#[test]
fn plans_that_could_not_be_listed_are_not_said_to_be_none() {
    let redis = cluster();
    redis.run(&["ACL", "SETUSER", "ops", "on", ">hunter22", "~*", "+@read", "-scan"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("heartbeat.yaml");
    let url = redis.settings().redis_url;
    let text = format!("correlator: {{redis_url: \"{url}?user=ops&pass=hunter22\"}}\n");
    std::fs::write(&file, text).unwrap();
    let (code, said) = hbd(&file, &["backup", "--all", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["plans"][0]["outcome"]), (1, &"UNKNOWN".into()), "{said}");
    let why = report["plans"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("the list of all keys cannot be read: NOPERM"), "{why}");
    let (_, said) = hbd(&file, &["backup", "1"]);
    assert!(said.starts_with("backup Nightly PARTIAL: 1 of 3 modules failed"), "{said}");
    redis.run(&["SET", "cluster/backup/5", "a text"]);
    let (_, said) = hbd(&file, &["backup", "5"]);
    assert!(said.contains("5 UNKNOWN: cluster/backup/5 cannot be read: WRONGTYPE"), "{said}");
}

#[test]
fn a_redis_without_tls_was_told_as_a_corrupt_message() {
    let over = |settings: CorrelatorSettings| {
        let redis_url = settings.redis_url.replace("redis://", "rediss://");
        CorrelatorSettings { redis_url, ..settings }
    };
    let protocol_error = b"-ERR Protocol error: invalid multibulk length\r\n";
    for (settings, what) in [
        (over(answering(b"")), " over TLS: no answer within 5 s"),
        (over(answering(protocol_error)), "it does not speak TLS: redis:// in redis_url"),
    ] {
        let said = look(&settings, &PlanQuery::for_plan("1")).unwrap_err();
        assert!(said.contains(what), "{said}");
    }
}
