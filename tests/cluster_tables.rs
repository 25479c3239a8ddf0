//! The tables in Redis against a real redis-server: what is written is read, whole or not at all, by the
//! one that leads, and whatever Redis does.

#[path = "support/redis.rs"]
mod redis_server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heartbeat::cluster::connection::Connector;
use heartbeat::cluster::keys::Keys;
use heartbeat::cluster::settings::{ClusterSettings, ReplicaCount};
use heartbeat::cluster::tables::RedisTables;
use heartbeat::cluster::token::Token;
use heartbeat::store::shared::{
    KeyRange, SharedCommit, SharedCommitError, SharedPosition, SharedTables,
};
use heartbeat::store::{CommitResult, DirectoryLock, OpenResult, Rows, Store, Table, Write};
use redis_server::Redis;

const FENCE: &str = "{hb:hbd}:fence";
const SEQ: &str = "{hb:hbd}:seq";
const TOKEN: &str = "5:hb1:a1";

type Model = BTreeMap<(Table, String), Vec<u8>>;

fn settings(redis: &Redis) -> ClusterSettings {
    let url = format!("redis+unix://{}", redis.socket().display());
    ClusterSettings::for_tests(&url, "hb1")
}

fn tables_with(settings: &ClusterSettings) -> RedisTables {
    let token: Token = TOKEN.parse().unwrap();
    let connector = Connector::new(settings).unwrap();
    RedisTables::new(connector, Keys::new("hbd"), Arc::new(move || Some(token.clone())))
}

/// Tables of a node that leads.
fn led(redis: &Redis) -> RedisTables {
    redis.run(&["SET", FENCE, TOKEN]);
    tables_with(&settings(redis))
}

fn put(table: Table, key: &str, value: &str) -> ((Table, String), Option<Vec<u8>>) {
    ((table, key.to_owned()), Some(value.as_bytes().to_vec()))
}

fn remove(table: Table, key: &str) -> ((Table, String), Option<Vec<u8>>) {
    ((table, key.to_owned()), None)
}

fn commit(
    tables: &RedisTables,
    rows: impl IntoIterator<Item = ((Table, String), Option<Vec<u8>>)>,
) -> Result<SharedPosition, SharedCommitError> {
    let rows: Rows = rows.into_iter().collect();
    tables.commit(&SharedCommit { rows: &rows, known: 0, rewrites: false })
}

fn unconfirmed(result: Result<SharedPosition, SharedCommitError>) -> String {
    match result {
        Err(SharedCommitError::Unconfirmed(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn refused(result: Result<SharedPosition, SharedCommitError>) -> String {
    match result {
        Err(SharedCommitError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn stored(tables: &RedisTables) -> Model {
    let mut all = Model::new();
    for table in Table::ALL {
        for (key, value) in tables.rows(table).unwrap() {
            all.insert((table, key), value);
        }
    }
    all
}

/// What is read in any way is what the model has.
fn compare(tables: &RedisTables, model: &Model) {
    assert_eq!(stored(tables), *model);
    let position = tables.position().unwrap();
    for table in Table::ALL {
        let keys: Vec<String> =
            model.keys().filter(|(of, _)| *of == table).map(|(_, key)| key.clone()).collect();
        if table.is_history() {
            let of_table = model.iter().filter(|((of, _), _)| *of == table);
            let bytes: usize = of_table.map(|((_, key), value)| key.len() + value.len()).sum();
            assert_eq!(position.history.of(table), bytes as u64, "{table:?}");
        }
        for (from, to) in
            [("", None), ("k2", None), ("", Some("k5")), ("k3", Some("k7")), ("x", None)]
        {
            for last_first in [false, true] {
                let range = KeyRange { from: from.into(), to: to.map(str::to_owned), last_first };
                let ranges = [range.clone(), range.clone()];
                for count in [1, 3, 1000] {
                    let found = tables.keys_in(table, &ranges, count).unwrap();
                    let expected = range.select(&keys, count);
                    assert_eq!(found, [expected.clone(), expected], "{table:?} {range:?} {count}");
                }
            }
        }
        let mut asked = keys.clone();
        asked.push("none".into());
        let mut expected: Vec<Option<Vec<u8>>> =
            keys.iter().map(|key| model.get(&(table, key.clone())).cloned()).collect();
        expected.push(None);
        assert_eq!(tables.get_all(table, &asked).unwrap(), expected);
    }
}

#[test]
fn what_is_committed_is_what_is_read() {
    let redis = Redis::start();
    let tables = led(&redis);
    let mut model = Model::new();
    compare(&tables, &model);
    let mut random = 7u64;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for number in 1..40 {
        let mut rows = Rows::new();
        for _ in 0..next(30) {
            let table = Table::ALL[next(15) as usize];
            // Keys and values of any bytes, empty ones among them.
            let key = format!("k{}{}", next(10), ["", " ", "\0", "ä", "\n"][next(5) as usize]);
            let value = [b'"', 0, 255, b'\r'][next(4) as usize];
            let value = (next(4) > 0).then(|| vec![value; next(200) as usize]);
            rows.insert((table, key), value);
        }
        let position = commit(&tables, rows.clone()).unwrap();
        assert_eq!(position.number, number);
        for (key, value) in rows {
            match value {
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
        }
        assert_eq!(tables.position().unwrap(), position);
        compare(&tables, &model);
    }
}

#[test]
fn only_the_whole_token_writes() {
    let redis = Redis::start();
    let tables = led(&redis);
    commit(&tables, [put(Table::Hosts, "web1", "1")]).unwrap();
    let before = stored(&tables);
    // Another node, another life of this one, a later epoch.
    for fence in ["5:hb2:a1", "5:hb1:a2", "6:hb1:a1", "10:hb2:x", "5:hb1:a1 ", "5:hb1:a11"] {
        redis.run(&["SET", FENCE, fence]);
        let result = commit(&tables, [put(Table::Hosts, "web1", "2")]);
        assert_eq!(result, Err(SharedCommitError::Deposed), "{fence}");
    }
    // What a failover has rolled back is written again by the lease, before anything else is.
    for fence in ["4:hb2:a1", "0:hb1:a1", "x", ""] {
        redis.run(&["SET", FENCE, fence]);
        let why = unconfirmed(commit(&tables, [put(Table::Hosts, "web1", "2")]));
        assert!(why.contains("rolled back"), "{why}");
    }
    redis.run(&["DEL", FENCE]);
    unconfirmed(commit(&tables, [put(Table::Hosts, "web1", "2")]));
    assert_eq!(stored(&tables), before);
    redis.run(&["SET", FENCE, TOKEN]);
    assert_eq!(commit(&tables, [put(Table::Hosts, "web1", "2")]).unwrap().number, 2);
    let connector = Connector::new(&settings(&redis)).unwrap();
    let standby = RedisTables::new(connector, Keys::new("hbd"), Arc::new(|| None));
    let result = commit(&standby, [put(Table::Hosts, "web1", "3")]);
    assert_eq!(result, Err(SharedCommitError::Deposed), "without a token");
    assert_eq!(standby.rows(Table::Hosts).unwrap(), [("web1".to_owned(), b"2".to_vec())]);
}

#[test]
fn a_script_that_redis_has_forgotten_is_loaded_again() {
    let redis = Redis::start();
    let tables = led(&redis);
    for number in 1..4 {
        assert_eq!(commit(&tables, [put(Table::Meta, "n", "1")]).unwrap().number, number);
        redis.run(&["SCRIPT", "FLUSH"]);
    }
}

#[test]
fn a_commit_that_too_few_replicas_have_is_not_confirmed() {
    let port = free_port().to_string();
    let redis = Redis::start_with(&["--port", &port]);
    redis.run(&["SET", FENCE, TOKEN]);
    let settings = ClusterSettings { replicas: ReplicaCount::Number(1), ..settings(&redis) };
    let tables = tables_with(&settings);
    let why = unconfirmed(commit(&tables, [put(Table::Outbox, "1", "a")]));
    assert!(why.contains("fewer than 1 replicas"), "{why}");
    let replica = Redis::start();
    redis.run(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    replica.run(&["REPLICAOF", "127.0.0.1", &port]);
    let end = Instant::now() + Duration::from_secs(60);
    let position = loop {
        match commit(&tables, [put(Table::Outbox, "1", "a")]) {
            Ok(position) => break position,
            other => drop(unconfirmed(other)),
        }
        assert!(Instant::now() < end, "the replica never confirms");
    };
    assert!(position.number > 1, "each try is a commit");
    assert_eq!(stored(&tables).len(), 1);
    // min-replicas-to-write is the same to people.
    replica.run(&["REPLICAOF", "NO", "ONE"]);
    redis.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let why = loop {
        let why = unconfirmed(commit(&tables, [put(Table::Outbox, "1", "b")]));
        if why.contains("min-replicas-to-write") {
            break why;
        }
        assert!(Instant::now() < end, "{why}");
    };
    assert!(why.contains("are they running?"), "{why}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn tables_that_went_back_are_written_only_as_a_whole() {
    let redis = Redis::start();
    let tables = led(&redis);
    let rows = Table::ALL.map(|table| put(table, "stays", "1"));
    commit(&tables, rows).unwrap();
    let rows = Table::ALL.map(|table| put(table, "gone", "1"));
    let known = commit(&tables, rows).unwrap().number;
    let before = stored(&tables);
    redis.run(&["SET", SEQ, "1"]);
    let rows: Rows = [put(Table::Outbox, "new", "2")].into_iter().collect();
    let write = |rewrites, known| tables.commit(&SharedCommit { rows: &rows, known, rewrites });
    for _ in 0..3 {
        assert_eq!(write(false, known), Err(SharedCommitError::WentBack { to: 1 }));
    }
    assert_eq!(stored(&tables), before, "nothing was written");
    assert_eq!(write(true, known).unwrap().number, known + 1);
    let mut model: Model =
        before.into_iter().filter(|((table, _), _)| !table.is_known_whole()).collect();
    model.insert((Table::Outbox, "new".into()), b"2".to_vec());
    compare(&tables, &model);
    assert_eq!(write(false, known + 1).unwrap().number, known + 2);
    redis.run(&["DEL", SEQ]);
    assert_eq!(write(false, known + 2), Err(SharedCommitError::WentBack { to: 0 }));
}

#[test]
fn a_large_commit_is_written_as_one() {
    let redis = Redis::start();
    let tables = led(&redis);
    let value = "x".repeat(244);
    let many = |count: usize| {
        (0..count).map(|number| put(Table::Hosts, &format!("host-{number:06}"), &value))
    };
    let others = || [put(Table::Outbox, "1", "a"), put(Table::Events, "1", "b")];
    commit(&tables, [put(Table::Hosts, "old", "1"), put(Table::Troubles, "old", "1")]).unwrap();
    let rows: Rows = many(100_000).chain(others()).collect();
    redis.run(&["CONFIG", "RESETSTAT"]);
    let position = tables.commit(&SharedCommit { rows: &rows, known: 1, rewrites: true }).unwrap();
    assert_eq!(position.number, 2);
    assert!(redis.calls(&["evalsha"]) > 5, "in several calls");
    let all = stored(&tables);
    assert_eq!(all.len(), 100_002, "and what was there is gone");
    assert!(rows.iter().all(|(key, row)| all.get(key) == row.as_ref()));
    // One that is deposed in between has written nothing of it.
    redis.run(&["SET", FENCE, "6:hb2:a1"]);
    let rows: Rows = many(50_000).map(|(key, _)| (key, None)).collect();
    let result = tables.commit(&SharedCommit { rows: &rows, known: 2, rewrites: false });
    assert_eq!(result, Err(SharedCommitError::Deposed));
    assert_eq!(stored(&tables), all);
    redis.run(&["SET", FENCE, TOKEN]);
    let rows: Rows = many(30_000).map(|(key, _)| (key, None)).collect();
    tables.commit(&SharedCommit { rows: &rows, known: 2, rewrites: false }).unwrap();
    assert_eq!(stored(&tables).len(), 70_002);
    let rows: Rows = many(2000).collect();
    tables.commit(&SharedCommit { rows: &rows, known: 2, rewrites: false }).unwrap();
}

#[test]
fn a_redis_that_is_full_or_may_not_be_written_says_what_to_do() {
    let redis = Redis::start_with(&["--enable-protected-configs", "yes"]);
    let tables = led(&redis);
    commit(&tables, [put(Table::Hosts, "web1", "1")]).unwrap();
    let before = stored(&tables);
    let several = || {
        [
            put(Table::Hosts, "web0", "1"),
            remove(Table::Hosts, "web1"),
            put(Table::Events, "1", &"x".repeat(1000)),
            put(Table::Outbox, "1", "a"),
        ]
    };
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let why = refused(commit(&tables, several()));
    assert!(why.contains("full (maxmemory)"), "{why}");
    assert_eq!(stored(&tables), before, "nothing of it is written");
    // A script that has begun to write, by giving something back, goes on to its end.
    commit(&tables, [remove(Table::Hosts, "web1"), put(Table::Outbox, "0", "b")]).unwrap();
    assert_eq!(stored(&tables).into_keys().collect::<Vec<_>>(), [(Table::Outbox, "0".into())]);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    commit(&tables, several()).unwrap();
    assert_eq!(stored(&tables).len(), 4);
    let before = stored(&tables);
    // A disk that cannot be written.
    redis.run(&["CONFIG", "SET", "dir", "/proc"]);
    redis.run(&["CONFIG", "SET", "save", "3600 1"]);
    redis.run(&["BGSAVE"]);
    let end = Instant::now() + Duration::from_secs(60);
    let why = loop {
        match commit(&tables, [put(Table::Hosts, "web2", "1")]) {
            Err(SharedCommitError::Refused(why)) => break why,
            Ok(_) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(Instant::now() < end, "it takes everything");
    };
    assert!(why.contains("MISCONF"), "{why}");
    redis.run(&["CONFIG", "SET", "save", ""]);
    redis.run(&["CONFIG", "SET", "dir", "/tmp"]);
    redis.run(&["ACL", "SETUSER", "default", "-hset"]);
    let why = refused(commit(&tables, [put(Table::Hosts, "web1", "2")]));
    assert!(why.contains("ACL") && why.contains("cluster.redis_user"), "{why}");
    redis.run(&["ACL", "SETUSER", "default", "+@all"]);
    commit(&tables, [remove(Table::Hosts, "web2")]).unwrap();
    assert_eq!(stored(&tables), before);
}

#[test]
fn one_that_became_a_replica_is_left() {
    let redis = Redis::start();
    let tables = led(&redis);
    commit(&tables, [put(Table::Hosts, "web1", "1")]).unwrap();
    assert_eq!(tables.rows(Table::Hosts).unwrap().len(), 1);
    redis.run(&["REPLICAOF", "127.0.0.1", "1"]);
    let why = unconfirmed(commit(&tables, [put(Table::Hosts, "web1", "2")]));
    assert!(why.contains("replica"), "{why}");
    let why = unconfirmed(commit(&tables, [put(Table::Hosts, "web1", "2")]));
    assert!(why.contains("replica"), "{why}");
    redis.run(&["REPLICAOF", "NO", "ONE"]);
    commit(&tables, [put(Table::Hosts, "web1", "2")]).unwrap();
}

#[test]
fn an_answer_that_came_too_late_is_never_taken_for_another_one() {
    let redis = Redis::start();
    let tables = led(&redis);
    commit(&tables, [put(Table::Hosts, "web1", "0")]).unwrap();
    assert_eq!(tables.rows(Table::Hosts).unwrap().len(), 1);
    for value in ["1", "2"] {
        redis.run(&["CLIENT", "PAUSE", "1500", "ALL"]);
        unconfirmed(commit(&tables, [put(Table::Hosts, "web1", value)]));
        let end = Instant::now() + Duration::from_secs(60);
        let next: Rows =
            [put(Table::Hosts, "web1", value), put(Table::Outbox, value, value)].into();
        while tables.commit(&SharedCommit { rows: &next, known: 0, rewrites: false }).is_err() {
            assert!(Instant::now() < end);
        }
        let rows = tables.rows(Table::Hosts).unwrap();
        assert_eq!(rows, [("web1".to_owned(), value.as_bytes().to_vec())]);
    }
    assert_eq!(tables.get_all(Table::Outbox, &["2".into()]).unwrap(), [Some(b"2".to_vec())]);
}

#[test]
fn what_was_confirmed_outlives_the_death_of_redis() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let tables = Arc::new(led(&redis));
    let confirmed = Arc::new(Mutex::new(0u64));
    for round in 0..3 {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writer = {
            let (tables, confirmed, stop) = (tables.clone(), confirmed.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut next = *confirmed.lock().unwrap() + 1;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let key = format!("{next:08}");
                    let rows = [put(Table::Events, &key, "e"), put(Table::Outbox, &key, "o")];
                    if commit(&tables, rows).is_ok() {
                        *confirmed.lock().unwrap() = next;
                        next += 1;
                    }
                }
            })
        };
        let begin = *confirmed.lock().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while *confirmed.lock().unwrap() < begin + 50 {
            assert!(Instant::now() < end, "nothing is committed");
            std::thread::yield_now();
        }
        redis.kill_and_restart();
        let begin = *confirmed.lock().unwrap();
        while *confirmed.lock().unwrap() < begin + 5 {
            assert!(Instant::now() < end, "nothing is committed after restart {round}");
            std::thread::yield_now();
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        writer.join().unwrap();
        let last = *confirmed.lock().unwrap();
        for table in [Table::Events, Table::Outbox] {
            let there = tables.rows(table).unwrap().len() as u64;
            assert!(there >= last, "{there} of {last} rows of {table:?}");
        }
    }
}

#[test]
fn the_store_works_on_redis_as_on_a_file() {
    let redis = Redis::start();
    let directory = tempfile::tempdir().unwrap();
    let now = heartbeat::clock::Now::read();
    let open = || {
        let lock = DirectoryLock::hold(directory.path()).unwrap();
        let tables = Arc::new(led(&redis));
        let (store, opened) = Store::open_shared(lock, tables, now);
        assert_eq!(opened, OpenResult::Ready);
        store
    };
    let mut store = open();
    for number in 0..3000 {
        store.write(Write::put(Table::Events, format!("{number:05}"), &number));
    }
    store.write(Write::put(Table::Hosts, "web1", &1));
    assert_eq!(store.commit(now), CommitResult::Committed);
    store.write(Write::put(Table::Events, "99999", &99_999));
    let newest = store.view(Table::Events).newest(None, 2);
    let keys: Vec<&str> = newest.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["99999", "02999"], "with what is not stored yet");
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.newest(Table::Events, None, usize::MAX).len(), 3000);
    assert_eq!(snapshot.range(Table::Events, "00010", "02000", 5000).len(), 1990);
    assert_eq!(store.commit(now), CommitResult::Committed);
    drop(store);
    let mut store = open();
    assert_eq!(store.read::<i32>(Table::Events).len(), 3001);
    assert_eq!(store.get::<i32>(Table::Hosts, "web1"), Some(1));
    redis.run(&["SET", SEQ, "0"]);
    store.write(Write::put(Table::Hosts, "web1", &2));
    assert_eq!(store.commit(now), CommitResult::Replaced);
    store.rewrite([Write::put(Table::Hosts, "web2", &3)].into_iter());
    assert_eq!(store.commit(now), CommitResult::Committed);
    let expected = [("web1".to_owned(), 2), ("web2".to_owned(), 3)];
    assert_eq!(store.read::<i32>(Table::Hosts), expected);
    redis.run(&["SET", FENCE, "6:hb2:a1"]);
    store.write(Write::put(Table::Hosts, "web1", &4));
    assert_eq!(store.commit(now), CommitResult::Deposed);
    assert_eq!(store.read::<i32>(Table::Hosts), expected);
}
