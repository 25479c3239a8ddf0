//! What a cluster says of the Redis that it is given: which one is the master, why it cannot be used,
//! and what it must be so that nothing is lost.

mod support {
    pub mod sentinel;
}

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use heartbeat::cluster::connection::{Connector, MasterConnection, RedisFault};
use heartbeat::cluster::keys::Keys;
use heartbeat::cluster::lease::{Lease, LeaseEvent, LeaseOptions};
use heartbeat::cluster::requirements;
use heartbeat::cluster::script::Script;
use heartbeat::cluster::settings::{
    ClusterSettings, RedisLogin, RedisPlace, ReplicaCount, SentinelAddress,
};
use heartbeat::secret::Secret;
use support::sentinel::{RedisServer, wait_until};

fn settings(url: &str) -> ClusterSettings {
    ClusterSettings::for_tests(url, "hb1")
}

fn login(user: Option<&str>, password: &str) -> RedisLogin {
    RedisLogin { user: user.map(str::to_owned), password: Some(Secret::new(password)) }
}

fn connect(settings: &ClusterSettings) -> Result<MasterConnection, RedisFault> {
    Connector::new(settings).unwrap().connect()
}

fn why(settings: &ClusterSettings) -> String {
    connect(settings).unwrap_err().to_string()
}

fn sentinel(port: u16) -> SentinelAddress {
    SentinelAddress { host: "127.0.0.1".into(), port, secure: false }
}

fn watched(sentinels: &[&RedisServer]) -> ClusterSettings {
    let sentinels = sentinels.iter().map(|server| sentinel(server.port)).collect();
    let redis = RedisPlace::Sentinels { sentinels, service: "hbd".into() };
    ClusterSettings { redis, ..settings("redis://127.0.0.1:1") }
}

/// A server on loopback that answers all with these bytes and then keeps the connection open.
fn answering(bytes: &'static [u8]) -> ClusterSettings {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
            open.push(stream);
        }
    });
    settings(&url)
}

#[test]
fn why_a_redis_cannot_be_used_is_said_with_the_remedy() {
    let server = RedisServer::start(&[]);
    let replica = RedisServer::start_replica(&server, &[]);
    let locked = RedisServer::start(&["--requirepass", "hunter22"]);
    let sharded = RedisServer::start(&["--cluster-enabled", "yes"]);
    let watcher = RedisServer::start_sentinel(&server, 1, "");
    let with = |server: &RedisServer, login| ClusterSettings { login, ..settings(&server.url()) };
    let over_tls = settings(&server.url().replace("redis://", "rediss://"));
    for (settings, what) in [
        (settings("redis://127.0.0.1:1"), "Connection refused"),
        (settings("redis+unix:///nowhere/redis.sock"), "No such file"),
        (settings(&locked.url()), "it wants a password (cluster.redis_password)"),
        (with(&locked, login(None, "wrong")), "user or password is wrong"),
        (with(&locked, login(Some("nobody"), "hunter22")), "user or password is wrong"),
        (with(&server, login(None, "hunter22")), "leave out cluster.redis_password"),
        (settings(&sharded.url()), "a node of a Redis Cluster"),
        (settings(&replica.url()), "it is a replica now"),
        (settings(&watcher.url()), "name it in cluster.sentinels"),
        (over_tls, "no answer within 1 s"),
        (answering(b"-DENIED Redis is running in protected mode because x\r\n"), "protected mode"),
        (answering(b"-LOADING Redis is loading the dataset in memory\r\n"), "LOADING"),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is the address right?"),
        (answering(b""), "no answer within 1 s"),
        (answering(b"$21\r\nredis_version:5.0.14\n\r\n"), "version 5.0.14 is too old: 6.2"),
        (watched(&[&server]), "it is no Sentinel"),
    ] {
        let said = why(&settings);
        assert!(said.contains(what), "{said}, not {what}");
        assert!(said.contains("at 127.0.0.1:") || said.contains("at /nowhere/"), "{said}");
        assert!(!said.contains("hunter22") && !said.contains("wrong)"), "{said}");
    }
    connect(&with(&locked, login(None, "hunter22"))).unwrap();
    let unknown =
        RedisPlace::Sentinels { sentinels: vec![sentinel(watcher.port)], service: "other".into() };
    let said = why(&ClusterSettings { redis: unknown, ..settings("") });
    assert!(said.contains("it knows no service other: is cluster.service"), "{said}");
}

#[test]
fn over_tls_the_authority_of_the_configuration_is_trusted() {
    let file =
        |name: &str| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/").to_owned() + name;
    let tls_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, certificate, key) = (tls_port.to_string(), file("server.pem"), file("server.key"));
    let _server = RedisServer::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let said = why(&settings(&url));
    assert!(said.contains("its certificate is not trusted"), "{said}");
    let ca_file = Some(PathBuf::from(file("ca.pem")));
    let mut redis = connect(&ClusterSettings { ca_file, ..settings(&url) }).unwrap();
    assert_eq!(redis.ask::<String>(&redis::cmd("PING")).unwrap(), "PONG");
    assert!(redis.server().ends_with("over TLS"), "{}", redis.server());
}

#[test]
fn after_a_failover_the_new_master_is_found_and_an_old_one_is_not_believed() {
    let mut master = RedisServer::start(&[]);
    let replica = RedisServer::start_replica(&master, &[]);
    let sentinels: Vec<_> = (0..3).map(|_| RedisServer::start_sentinel(&master, 2, "")).collect();
    let settings = watched(&sentinels.iter().collect::<Vec<_>>());
    let connector = Connector::new(&settings).unwrap();
    let port = |redis: &MasterConnection| -> u16 {
        redis.server().rsplit(':').next().unwrap().parse().unwrap()
    };
    assert_eq!(connector.required_replicas(), 1, "not even before it is known");
    wait_until("the Sentinels know the replica and one another", || {
        let first = connector.connect().ok();
        let known = |server: &RedisServer| {
            let said: Vec<redis::Value> = server.run(&["SENTINEL", "sentinels", "hbd"]);
            said.len() == 2
        };
        first.is_some() && connector.known_replicas() == 1 && sentinels.iter().all(known)
    });
    let mut redis = connector.connect().unwrap();
    assert_eq!(port(&redis), master.port);
    let run_id = redis.run_id().to_owned();
    wait_until("the replica follows", || {
        redis.ask::<redis::Value>(redis::cmd("SET").arg("{hb:hbd}:x").arg(1)).unwrap();
        redis.wait_for_replicas(1, Duration::from_millis(200)).unwrap()
    });
    master.kill();
    assert!(matches!(redis.ask::<String>(&redis::cmd("PING")), Err(RedisFault::Lost(_))));
    assert!(redis.is_broken());
    let (mut found, mut said) = (None, String::new());
    wait_until("the replica is promoted", || match connector.connect() {
        Ok(redis) => {
            found = Some(redis);
            true
        }
        Err(fault) => {
            let why = fault.to_string();
            if why != said {
                println!("{why}");
                said = why;
            }
            false
        }
    });
    let mut found = found.unwrap();
    assert_eq!(port(&found), replica.port);
    assert_ne!(found.run_id(), run_id);
    assert_eq!(found.ask::<i64>(redis::cmd("GET").arg("{hb:hbd}:x")).unwrap(), 1);
    // What a master that was cut off would say of itself, and a Sentinel that was cut off with it.
    master.restart();
    let stale = RedisServer::start_sentinel(&master, 1, "");
    wait_until("the old master is a replica", || master.info("role") == "slave");
    let both = watched(&[&stale, &sentinels[0]]);
    assert_eq!(port(&connect(&both).unwrap()), replica.port);
}

#[test]
fn a_script_is_sent_again_when_redis_has_forgotten_it() {
    static TWICE: Script = Script::new("return ARGV[1] .. ARGV[1] .. #KEYS");
    let server = RedisServer::start(&[]);
    let mut redis = connect(&settings(&server.url())).unwrap();
    let mut twice = || TWICE.call::<String>(&mut redis, &["{hb:hbd}:a"], &[b"x"]).unwrap();
    assert_eq!(twice(), "xx1");
    server.run::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(twice(), "xx1");
    let refused: Script = Script::new("return redis.error_reply('FENCED 7:hb2:x')");
    let fault = refused.call::<String>(&mut redis, &[], &[]).unwrap_err();
    assert_eq!(fault.code(), "FENCED");
    assert!(!redis.is_broken());
}

#[test]
fn an_answer_that_comes_too_late_breaks_the_connection() {
    let server = RedisServer::start(&[]);
    let mut redis = connect(&settings(&server.url())).unwrap();
    redis.set_timeout(Duration::from_millis(50)).unwrap();
    let fault = redis.ask::<redis::Value>(redis::cmd("BLPOP").arg("{hb:hbd}:none").arg(30));
    assert!(matches!(fault, Err(RedisFault::Lost(_))), "{fault:?}");
    assert!(redis.is_broken());
}

/// What is said of a server; each with whether it is refused.
fn faults(settings: &ClusterSettings) -> Vec<(bool, String)> {
    let connector = Connector::new(settings).unwrap();
    let mut redis = connector.connect().unwrap();
    let faults = requirements::examine(&mut redis, &connector, settings).unwrap();
    faults.into_iter().map(|fault| (fault.refused, fault.what)).collect()
}

#[test]
fn a_redis_that_may_lose_alarms_is_refused_or_warned_of() {
    for (options, expected) in [
        (&["--appendonly", "yes", "--appendfsync", "always"][..], None),
        (&["--appendonly", "yes", "--appendfsync", "no"], Some((true, "appendfsync is no"))),
        (&["--appendonly", "no", "--save", ""], Some((true, "appendonly to yes"))),
        (&["--appendonly", "yes"], Some((false, "appendfsync is everysec"))),
        (
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory-policy",
                "allkeys-lfu",
            ],
            Some((true, "maxmemory-policy is allkeys-lfu")),
        ),
        (
            &[
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory-policy",
                "volatile-lru",
            ],
            Some((false, "throw the lease away")),
        ),
        (
            &["--appendonly", "yes", "--appendfsync", "always", "--replica-read-only", "no"],
            Some((true, "replica-read-only is no")),
        ),
    ] {
        let server = RedisServer::start_plain(options);
        let said = faults(&settings(&server.url()));
        match expected {
            None => assert_eq!(said, []),
            Some((refused, what)) => {
                assert_eq!(said.len(), 1, "{options:?}: {said:?}");
                assert!(said[0].0 == refused && said[0].1.contains(what), "{said:?}");
            }
        }
    }
}

#[test]
fn replicas_and_sentinels_are_counted() {
    let master = RedisServer::start(&[]);
    let sentinel = RedisServer::start_sentinel(&master, 1, "");
    let watched = watched(&[&sentinel]);
    let says =
        |part: &str| faults(&watched).iter().any(|(refused, what)| !refused && what.contains(part));
    assert!(says("know no replica of it") && says("min-replicas-to-write is 0"));
    let _replica = RedisServer::start_replica(&master, &[]);
    // A Sentinel looks for new replicas every ten seconds.
    wait_until("the Sentinel knows the replica", || says("there are two Redis"));
    master.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert!(!says("min-replicas-to-write"));
    let replicas = ReplicaCount::Number(2);
    let wanting = ClusterSettings { replicas, ..settings(&master.url()) };
    let said = faults(&wanting);
    assert!(said.iter().any(|(_, what)| what.contains("and 1 are connected")), "{said:?}");
}

#[test]
fn a_redis_that_does_not_tell_how_it_keeps_things_must_be_trusted() {
    let server = RedisServer::start(&[]);
    server.run::<()>(&["ACL", "SETUSER", "hbd", "on", ">hunter22", "~*", "&*", "+@all", "-config"]);
    let told = ClusterSettings { login: login(Some("hbd"), "hunter22"), ..settings(&server.url()) };
    let said = faults(&told);
    assert_eq!(said.len(), 1);
    assert!(!said[0].0 && said[0].1.contains("durability: trusted"), "{said:?}");
    assert_eq!(faults(&ClusterSettings { trusted: true, ..told }), []);
}

/// The command in hbd(8).
fn acl_of_the_manual() -> Vec<String> {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/man/hbd.8");
    let text = std::fs::read_to_string(manual).unwrap();
    let from = text.find("ACL SETUSER").expect("the manual has an example");
    let example = text[from..].split(".Ed").next().unwrap().replace("\\e\n", " ");
    example.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_user_of_the_manual_may_do_what_is_needed_and_nothing_else() {
    let server = RedisServer::start(&[]);
    let words = acl_of_the_manual();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert!(words.contains(&">PASSWORD"), "{words:?}");
    server.run::<()>(&words);
    let settings =
        ClusterSettings { login: login(Some("hbd"), "PASSWORD"), ..settings(&server.url()) };
    assert_eq!(faults(&settings), []);
    let options = LeaseOptions {
        settings: settings.clone(),
        incarnation: "a".into(),
        predecessor_dead: true,
        highest_epoch: 0,
        known_id: None,
        lost_at: Vec::new(),
        kernel: 1,
        configuration: 1,
        version: "0.0.0",
    };
    let (lease, events) = Lease::start(Connector::new(&settings).unwrap(), options).unwrap();
    lease.set_warm(true);
    let event = events.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(event, LeaseEvent::Leads { .. }), "{event:?}");
    wait_until("it tells of itself", || !lease.members().is_empty());
    lease.release();
    let mut redis = connect(&settings).unwrap();
    let keys = Keys::new("hbd");
    let id = "*".to_owned();
    for words in [
        vec!["SCRIPT".into(), "LOAD".into(), "return 1".into()],
        vec!["HSET".into(), keys.table("hosts"), "a".into(), "b".into()],
        vec!["HSCAN".into(), keys.table("hosts"), "0".into()],
        vec!["ZADD".into(), keys.index("events"), "0".into(), "a".into()],
        vec!["XADD".into(), keys.inbox(), id, "k".into(), "alert".into()],
        vec!["XTRIM".into(), keys.inbox(), "MAXLEN".into(), "1".into()],
        vec!["PUBLISH".into(), keys.beats(), "x".into()],
        vec!["WAIT".into(), "0".into(), "1".into()],
        vec!["TIME".into()],
        vec!["ROLE".into()],
    ] {
        let mut command = redis::cmd(&words[0]);
        redis.ask::<redis::Value>(command.arg(&words[1..])).unwrap_or_else(|why| panic!("{why}"));
    }
    for words in [
        &["GET", "cluster/module"][..],
        &["SET", "x", "y"],
        &["FLUSHALL"],
        &["KEYS", "*"],
        &["CONFIG", "SET", "appendonly", "no"],
        &["REPLICAOF", "NO", "ONE"],
        &["SHUTDOWN"],
        &["PUBLISH", "other", "x"],
        &["ACL", "LIST"],
    ] {
        let mut command = redis::cmd(words[0]);
        let fault = redis.ask::<redis::Value>(command.arg(&words[1..])).unwrap_err();
        assert_eq!(fault.code(), "NOPERM", "{words:?}: {fault}");
        assert!(fault.to_string().contains("hbd(8)"), "{fault}");
    }
}

#[test]
fn a_strict_check_asks_the_redis_of_the_cluster() {
    let server = RedisServer::start_plain(&["--save", "", "--appendonly", "no"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("heartbeat.yaml");
    let text = format!(
        "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
         state_dir: {}\ncluster: {{redis_url: '{}', node: hb1}}\n",
        directory.path().join("state").display(),
        server.url()
    );
    std::fs::write(&file, &text).unwrap();
    let check = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
        let output = command.arg("check").args(arguments).arg(&file).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check(&[]);
    assert!(code == 0 && said.starts_with("OK: "), "{said}");
    let (code, said) = check(&["--strict"]);
    assert_eq!(code, 78);
    assert!(said.contains("heartbeat.yaml: cluster: Redis at 127.0.0.1:"), "{said}");
    assert!(said.contains("set appendonly to yes"), "{said}");
    for (option, value) in [("appendfsync", "always"), ("appendonly", "yes")] {
        server.run::<()>(&["CONFIG", "SET", option, value]);
    }
    let (code, said) = check(&["--strict"]);
    assert!(code == 0 && said.starts_with("OK: "), "{said}");
    let other = r#"{"incarnation": "x", "version": "0.1.0", "configuration": 7, "role": "leader"}"#;
    server.run::<()>(&["HSET", "{hb:hbd}:nodes", "hb2", other, "hb1", other]);
    let (code, said) = check(&["--strict"]);
    assert_eq!(code, 78);
    assert!(said.contains("hb2 has another configuration than this file"), "{said}");
    assert!(!said.contains("hb1 has"), "{said}");
    drop(server);
    let (code, said) = check(&["--strict"]);
    assert!(code == 78 && said.contains("Connection refused"), "{said}");
}
