//! The roads from a node to the one that leads, over a real Redis: the relay of heartbeats, and the
//! inbox.

#[path = "support/shared_redis.rs"]
mod shared_redis;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heartbeat::clock::{Mono, Now};
use heartbeat::cluster::connection::Connector;
use heartbeat::cluster::deposits::{DepositCounts, DepositOptions, Deposits};
use heartbeat::cluster::inbox::{HandledMessage, Inbox, InboxMessage, InboxOptions};
use heartbeat::cluster::inbox_entry::EntryKind;
use heartbeat::cluster::keys::Keys;
use heartbeat::cluster::relay::{LastHeardSource, Relay};
use heartbeat::cluster::relay_format::{BatchBeat, BatchEntries, BatchHead};
use heartbeat::cluster::relay_listener::{
    ClockOffset, HeardConnection, RelayListener, RelayOptions, RelayedPart,
};
use heartbeat::cluster::settings::ReplicaCount;
use heartbeat::store::{Change, ChangeSink, RawRow, Table};
use heartbeat::thread::{Stop, StopSource};
use redis::Value;

use shared_redis::SharedRedis;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
/// A deadline for a fact to be there: generous, since the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not there: {what}");
        std::thread::yield_now();
    }
}

/// Redis' clock is that of this machine.
fn offset() -> ClockOffset {
    let now = Now::read();
    let offset = now.wall.0 - now.mono.0;
    Arc::new(move || Some(offset))
}

fn keys() -> Keys {
    Keys::new("test")
}

/// Which node received which datagram from whom, and when.
type RelayedBeat = (String, Vec<u8>, IpAddr, Mono);

/// What a listener was told, in words.
#[derive(Debug, Default)]
struct Told {
    lines: Mutex<Vec<String>>,
    beats: Mutex<Vec<RelayedBeat>>,
    heard: Mutex<Vec<(RelayedPart, Vec<HeardConnection>)>>,
    gaps: Mutex<Vec<(Mono, Mono)>>,
    /// While it is set, the thread that tells is held up.
    held: AtomicBool,
}

impl Told {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn beats(&self) -> usize {
        self.beats.lock().unwrap().len()
    }

    fn has(&self, line: &str) -> Option<()> {
        self.lines().iter().any(|one| one == line).then_some(())
    }
}

impl RelayListener for Told {
    fn beat(&self, node: &str, datagram: &[u8], peer: IpAddr, at: Mono) {
        while self.held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.beats.lock().unwrap().push((node.into(), datagram.into(), peer, at));
    }

    fn last_heard(&self, _: &str, part: RelayedPart, connections: &[HeardConnection]) {
        self.heard.lock().unwrap().push((part, connections.to_vec()));
    }

    fn gap(&self, node: &str, from: Mono, to: Mono) {
        self.gaps.lock().unwrap().push((from, to));
        self.lines.lock().unwrap().push(format!("gap of {node}"));
    }

    fn lost(&self, node: &str, _: Mono) {
        self.lines.lock().unwrap().push(format!("{node} is lost"));
    }

    fn back(&self, node: &str, _: Mono) {
        self.lines.lock().unwrap().push(format!("{node} is back"));
    }
}

/// A node that relays.
struct Node {
    relay: Relay,
    told: Arc<Told>,
    _stop: StopSource,
}

impl Node {
    fn start(redis: &SharedRedis, name: &str) -> Node {
        let (source, stop) = Stop::channel();
        let told = Arc::new(Told::default());
        let options = RelayOptions {
            connector: Connector::new(&redis.settings(name)).unwrap(),
            channel: keys().beats(),
            node: name.into(),
            incarnation: "1".into(),
            offset: offset(),
        };
        let listener: Arc<dyn RelayListener> = told.clone();
        let (relay, _) = Relay::start(options, listener, &stop).unwrap();
        Node { relay, told, _stop: source }
    }

    /// Two nodes that hear each other.
    fn pair(redis: &SharedRedis) -> (Node, Node) {
        let (one, other) = (Node::start(redis, "hb1"), Node::start(redis, "hb2"));
        let hears = |from: &Node, to: &Node| {
            wait_for("the first beat", || {
                from.relay.push(b"hello", PEER, Now::read().mono);
                (to.told.beats() > 0).then_some(())
            });
        };
        hears(&one, &other);
        hears(&other, &one);
        (one, other)
    }

    fn push(&self, datagram: &[u8]) {
        self.relay.push(datagram, PEER, Now::read().mono);
    }

    /// Waits until this datagram came here.
    fn receives(&self, datagram: &[u8]) -> RelayedBeat {
        wait_for(&String::from_utf8_lossy(datagram), || {
            let beats = self.told.beats.lock().unwrap();
            beats.iter().find(|(_, bytes, ..)| bytes == datagram).cloned()
        })
    }
}

#[test]
fn a_beat_comes_to_the_other_node_with_its_own_time_and_not_back() {
    let redis = SharedRedis::start(&[]);
    let (one, other) = Node::pair(&redis);
    let at = Now::read().mono;
    one.relay.push(br#"{"host":"web1"}"#, PEER, at);
    let (node, _, peer, heard) = other.receives(br#"{"host":"web1"}"#);
    assert_eq!((node.as_str(), peer), ("hb1", PEER));
    // The two offsets were read a moment apart.
    assert!((heard.0 - at.0).abs() <= 5, "{heard:?} {at:?}");
    other.push(b"back");
    one.receives(b"back");
    let own = one.told.beats.lock().unwrap().iter().any(|(_, bytes, ..)| bytes.starts_with(b"{"));
    assert!(!own, "its own beats come back");
    assert_eq!((one.told.lines(), other.told.lines()), (vec![], vec![]));
}

#[test]
fn a_subscription_that_is_killed_again_and_again_is_told_as_that_and_nothing_else() {
    let redis = SharedRedis::start(&[]);
    let (one, other) = Node::pair(&redis);
    for turn in 0..5 {
        let before = other.told.lines().iter().filter(|line| *line == "hb1 is back").count();
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        wait_for("a way back", || {
            one.push(format!("turn {turn}").as_bytes());
            let lines = other.told.lines();
            (lines.iter().filter(|line| *line == "hb1 is back").count() > before).then_some(())
        });
    }
    one.push(b"the end");
    other.receives(b"the end");
    for line in other.told.lines() {
        assert!(["hb1 is lost", "hb1 is back"].contains(&line.as_str()), "{line}");
    }
    let mut beats = other.told.beats.lock().unwrap().clone();
    let count = beats.len();
    beats.retain(|(node, bytes, peer, _)| {
        let known: &[&[u8]] = &[b"hello", b"turn", b"the end"];
        node == "hb1" && *peer == PEER && known.iter().any(|known| bytes.starts_with(known))
    });
    assert_eq!(beats.len(), count);
}

#[test]
fn a_reader_that_is_too_slow_is_cut_off_and_it_comes_back_as_lost() {
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 512kb 1"];
    let redis = SharedRedis::start(&limit);
    let (one, other) = Node::pair(&redis);
    other.told.held.store(true, Ordering::SeqCst);
    let datagram = vec![b'x'; 4000];
    // More than the sockets hold.
    wait_for("that Redis cuts it off", || {
        for _ in 0..200 {
            one.push(&datagram);
        }
        let clients = redis.ask::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        (clients.lines().count() < 2).then_some(())
    });
    other.told.held.store(false, Ordering::SeqCst);
    wait_for("the loss", || other.told.has("hb1 is lost"));
    wait_for("the way back", || {
        one.push(b"again");
        other.told.has("hb1 is back")
    });
}

#[test]
fn a_batch_that_is_missing_is_a_gap_between_those_beside_it() {
    let redis = SharedRedis::start(&[]);
    let node = Node::start(&redis, "hb2");
    let publish = |number: u64| {
        let mut entries = BatchEntries::default();
        let datagram = format!("batch {number}");
        let datagram = datagram.as_bytes();
        entries.add_beat(BatchBeat { after: 0, peer: PEER, datagram });
        let head = BatchHead { node: "hb7", incarnation: "1", number, at: None };
        let batch = entries.encode_beats(head);
        let receivers: u64 = redis.query(redis::cmd("PUBLISH").arg(keys().beats()).arg(batch));
        receivers
    };
    wait_for("the subscription", || (publish(1) > 0).then_some(()));
    publish(2);
    node.receives(b"batch 2");
    let before = Now::read().mono;
    publish(5);
    node.receives(b"batch 5");
    redis.query::<u64>(redis::cmd("PUBLISH").arg(keys().beats()).arg("what is this?"));
    publish(6);
    node.receives(b"batch 6");
    assert_eq!(node.told.lines(), ["gap of hb7"]);
    let (from, to) = node.told.gaps.lock().unwrap()[0];
    assert!(from <= before && to >= before, "{from:?} {before:?} {to:?}");
    wait_for("that it says nothing any more", || node.told.has("hb7 is lost"));
}

#[test]
fn while_redis_is_away_beats_are_dropped_and_counted_and_the_others_know() {
    let mut redis = SharedRedis::start(&[]);
    let (one, other) = Node::pair(&redis);
    redis.kill();
    wait_for("a dropped beat", || {
        one.push(b"into the void");
        (one.relay.counts().dropped > 0).then_some(())
    });
    wait_for("the loss", || other.told.has("hb1 is lost"));
    redis.start_again();
    wait_for("the way back", || {
        one.push(b"again");
        other.told.has("hb1 is back")
    });
    other.receives(b"again");
}

#[test]
fn the_last_heard_times_of_the_leader_come_in_rounds() {
    let redis = SharedRedis::start(&[]);
    let (one, other) = Node::pair(&redis);
    let at = Now::read().mono - Duration::from_secs(3600);
    let source = LastHeardSource {
        hosts: Box::new(|| 450),
        part: Box::new(move |from, count| {
            let hosts = from..(from + count).min(450);
            let heard = |host| HeardConnection {
                host: format!("host{host}"),
                connection: "ipv4".into(),
                at,
                signed: host as i64,
            };
            hosts.map(heard).collect()
        }),
    };
    one.relay.share_last_heard(Some(Arc::new(source)));
    let round = wait_for("a round", || {
        let heard = other.told.heard.lock().unwrap();
        (heard.len() >= 3).then(|| heard[..3].to_vec())
    });
    for (index, (part, _)) in round.iter().enumerate() {
        assert_eq!((usize::from(part.part), part.parts, part.round), (index, 3, 1));
        assert!((part.began.0 - round[0].0.began.0).abs() <= 1000, "{part:?}");
    }
    let all: Vec<&HeardConnection> = round.iter().flat_map(|(_, heard)| heard).collect();
    assert_eq!(all.len(), 450);
    for (index, heard) in all.iter().enumerate() {
        assert_eq!((heard.host.as_str(), heard.signed), (&*format!("host{index}"), index as i64));
        assert!((heard.at.0 - at.0).abs() <= 20, "{heard:?}");
    }
    assert_eq!(other.told.lines(), Vec::<String>::new());
}

/// Redis' part of a core at 10,000 beats of 611 bytes a second, two nodes that hear each other.
#[test]
fn ten_thousand_beats_a_second_are_little_work_for_redis() {
    let redis = SharedRedis::start(&["--appendonly", "yes"]);
    let (one, other) = Node::pair(&redis);
    let datagram = vec![b'x'; 611];
    let before = redis.cpu_seconds();
    let began = Instant::now();
    let mut pushed = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let due = (began.elapsed().as_micros() / 100) as usize;
        while pushed < due {
            one.push(&datagram);
            pushed += 1;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let took = began.elapsed().as_secs_f64();
    one.push(b"the end");
    other.receives(b"the end");
    let share = (redis.cpu_seconds() - before) / took;
    println!("Redis takes {:.2} % of a core at {:.0} beats/s", share * 100.0, pushed as f64 / took);
    assert_eq!(one.relay.counts().dropped, 0);
    let arrived = other.told.beats.lock().unwrap();
    assert!(arrived.iter().filter(|(_, bytes, ..)| bytes.len() == 611).count() == pushed);
    assert!(share < 0.03, "{share}");
    let log: String = redis.ask(&["INFO", "persistence"]);
    let size = log.lines().find_map(|line| line.strip_prefix("aof_current_size:")).unwrap();
    assert_eq!(size.trim(), "0", "nothing of it is written to the disk");
}

fn start_deposits(redis: &SharedRedis, node: &str, stop: &Stop) -> Deposits {
    let options = DepositOptions {
        connector: Connector::new(&redis.settings(node)).unwrap(),
        stream: keys().inbox(),
        node: node.into(),
        incarnation: "1".into(),
        offset: offset(),
    };
    Deposits::start(options, stop).unwrap().0
}

/// The leader's store, as a test: what was committed survives it.
#[derive(Clone, Default)]
struct Committed {
    rows: BTreeMap<String, Vec<u8>>,
    effects: Vec<String>,
}

impl Committed {
    fn rows(&self) -> Vec<RawRow> {
        self.rows.clone().into_iter().collect()
    }

    fn take(&mut self, change: Change) {
        let now = Now::read().wall;
        let entry = change.entry.into_iter().flat_map(|entry| entry.writes(now));
        for write in change.writes.into_iter().chain(entry) {
            match write {
                // What a feature would store.
                write if write.table == Table::Events => self.effects.push(write.key),
                write => match write.value {
                    Some(value) => drop(self.rows.insert(write.key, value)),
                    None => drop(self.rows.remove(&write.key)),
                },
            }
        }
    }
}

/// A leader that stores the body of each message as its effect.
struct Leader {
    committed: Arc<Mutex<Committed>>,
    messages: Arc<Mutex<Vec<InboxMessage>>>,
    inbox: Inbox,
    stop: Option<StopSource>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Leader {
    /// `commits` is asked for each change whether the leader lives long enough to commit it.
    fn start(
        redis: &SharedRedis,
        committed: &Arc<Mutex<Committed>>,
        commits: impl Fn() -> bool + Send + Sync + 'static,
        handle: impl Fn(&InboxMessage) -> bool + Send + 'static,
    ) -> Leader {
        let (source, stop) = Stop::channel();
        let messages: Arc<Mutex<Vec<InboxMessage>>> = Arc::default();
        let store = Arc::clone(committed);
        let sink: ChangeSink = Arc::new(move |change| {
            if commits() {
                store.lock().unwrap().take(change);
            }
        });
        let (own, sent) = (Arc::clone(&messages), Arc::clone(&sink));
        let options = InboxOptions {
            connector: Connector::new(&redis.settings("hb1")).unwrap(),
            keys: keys(),
            node: "hb1".into(),
            offset: offset(),
            rows: committed.lock().unwrap().rows(),
            sink,
        };
        let handler = move |message: InboxMessage| {
            own.lock().unwrap().push(message.clone());
            if !handle(&message) {
                return HandledMessage::Nothing(message.entry);
            }
            let key = String::from_utf8(message.body).unwrap();
            let effect = heartbeat::store::Write::put(Table::Events, key, &());
            sent(Change { writes: vec![effect], entry: Some(message.entry), ..Change::default() });
            HandledMessage::Taken
        };
        let (inbox, thread) = Inbox::start(options, Box::new(handler), &stop).unwrap();
        Leader {
            committed: Arc::clone(committed),
            messages,
            inbox,
            stop: Some(source),
            thread: Some(thread),
        }
    }

    fn effects(&self) -> Vec<String> {
        self.committed.lock().unwrap().effects.clone()
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn deposit(deposits: &Deposits, body: &str) {
    deposits.deposit_and_wait(EntryKind::Event, body.into(), PEER).unwrap();
}

#[test]
fn what_a_node_deposits_is_handled_by_the_leader_with_where_it_came_from() {
    let redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    deposit(&deposits, "before there is a leader");
    let committed = Arc::default();
    let leader = Leader::start(&redis, &committed, || true, |_| true);
    deposits.deposit_and_wait(EntryKind::Alert, "an alert".into(), PEER).unwrap();
    wait_for("both effects", || (leader.effects().len() == 2).then_some(()));
    let messages = leader.messages.lock().unwrap().clone();
    assert_eq!((messages[0].node.as_str(), messages[0].peer), ("hb2", PEER));
    assert!(messages.iter().all(|message| message.age < SOON && !message.entry.again));
    assert_eq!([messages[0].kind, messages[1].kind], [EntryKind::Event, EntryKind::Alert]);
    assert_eq!(deposits.counts(), DepositCounts { confirmed: 2, ..DepositCounts::default() });
}

#[test]
fn an_entry_without_an_effect_moves_the_cursor_and_the_stream_is_cut_off() {
    let redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    let committed = Arc::default();
    let leader = Leader::start(&redis, &committed, || true, |_| false);
    for number in 0..20 {
        deposit(&deposits, &number.to_string());
    }
    redis.query::<String>(redis::cmd("XADD").arg(keys().inbox()).arg("*").arg("x").arg("y"));
    let last: String = wait_for("the last entry", || {
        let entries: Vec<(String, BTreeMap<String, String>)> =
            redis.ask(&["XREVRANGE", &keys().inbox(), "+", "-", "COUNT", "1"]);
        let (id, _) = entries.into_iter().next()?;
        let stored = leader.committed.lock().unwrap().rows.get("inbox").cloned()?;
        (serde_json::from_slice::<String>(&stored).unwrap() == id).then_some(id)
    });
    assert_eq!(leader.effects(), Vec::<String>::new());
    assert_eq!(leader.messages.lock().unwrap().len(), 20, "what is none of ours is not handled");
    // As the shared store does it in the same commit.
    let row = serde_json::to_string(&last).unwrap();
    redis.run(&["HSET", &keys().table("meta"), "inbox", &row]);
    wait_for("a short stream", || {
        (redis.ask::<u64>(&["XLEN", &keys().inbox()]) == 1).then_some(())
    });
}

#[test]
fn an_entry_that_cannot_be_handled_now_is_tried_again_before_those_behind_it() {
    let redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    ["a", "b"].iter().for_each(|body| deposit(&deposits, body));
    let (source, stop) = Stop::channel();
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let own = Arc::clone(&seen);
    let options = InboxOptions {
        connector: Connector::new(&redis.settings("hb1")).unwrap(),
        keys: keys(),
        node: "hb1".into(),
        offset: offset(),
        rows: Vec::new(),
        sink: Arc::new(|_| {}),
    };
    let handle = move |message: InboxMessage| {
        let mut seen = own.lock().unwrap();
        seen.push(message.body);
        if seen.len() < 3 { HandledMessage::Later } else { HandledMessage::Taken }
    };
    let (_, thread) = Inbox::start(options, Box::new(handle), &stop).unwrap();
    wait_for("both", || (seen.lock().unwrap().len() == 4).then_some(()));
    assert_eq!(*seen.lock().unwrap(), [b"a", b"a", b"a", b"b"]);
    drop(source);
    thread.join().unwrap();
}

#[test]
fn a_leader_that_dies_between_handling_and_commit_leaves_each_entry_with_one_effect() {
    let redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    let committed: Arc<Mutex<Committed>> = Arc::default();
    let expected: Vec<String> = (0..60).map(|number| format!("event {number}")).collect();
    expected.iter().for_each(|body| deposit(&deposits, body));
    for lives in [7, 0, 1, 30] {
        let left = Arc::new(Mutex::new(lives));
        let own = Arc::clone(&left);
        let commits = move || {
            let mut left = own.lock().unwrap();
            let alive = *left > 0;
            *left -= i32::from(alive);
            alive
        };
        let leader = Leader::start(&redis, &committed, commits, |_| true);
        // It handles more than it commits, and dies.
        wait_for("its death", || {
            let handled = leader.messages.lock().unwrap().len();
            (*left.lock().unwrap() == 0 && handled > lives as usize).then_some(())
        });
    }
    assert!(committed.lock().unwrap().effects.len() < expected.len());
    let leader = Leader::start(&redis, &committed, || true, |_| true);
    wait_for("all effects", || (leader.effects().len() >= expected.len()).then_some(()));
    assert_eq!(leader.effects(), expected);
}

#[test]
fn what_was_accepted_before_a_leader_began_is_handled_before_it_is_said_to_be() {
    let redis = SharedRedis::start(&[]);
    let committed = Arc::default();
    let leader = Leader::start(&redis, &committed, || true, |_| true);
    assert!(leader.inbox.wait_caught_up(SOON), "of an empty stream");
    drop(leader);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    deposit(&deposits, "one");
    deposit(&deposits, "two");
    let (go, gate) = crossbeam_channel::bounded::<()>(0);
    let leader = Leader::start(&redis, &committed, || true, move |_| gate.recv().is_ok());
    wait_for("the first one", || (!leader.messages.lock().unwrap().is_empty()).then_some(()));
    assert!(!leader.inbox.wait_caught_up(Duration::ZERO));
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert!(leader.inbox.wait_caught_up(SOON));
    assert_eq!(leader.effects(), ["one", "two"]);
}

#[test]
fn another_redis_is_given_the_deposits_of_the_last_minute_again_and_they_are_marked() {
    // Without a log on disk it comes back empty, as one that was promoted without the last writes.
    let mut redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    let committed = Arc::default();
    deposit(&deposits, "handled");
    {
        let leader = Leader::start(&redis, &committed, || true, |_| true);
        wait_for("the effect", || (leader.effects().len() == 1).then_some(()));
    }
    deposit(&deposits, "not handled");
    redis.kill();
    redis.start_again();
    let leader = Leader::start(&redis, &committed, || true, |_| true);
    wait_for("the effect", || (leader.effects().len() == 2).then_some(()));
    deposit(&deposits, "new");
    wait_for("the new one", || (leader.effects().len() == 3).then_some(()));
    assert_eq!(leader.effects(), ["handled", "not handled", "new"]);
    let messages = leader.messages.lock().unwrap().clone();
    assert_eq!(
        messages.iter().map(|message| message.entry.again).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(deposits.counts(), DepositCounts { confirmed: 3, refused: 0, again: 2 });
}

#[test]
fn with_too_much_in_the_inbox_deposits_are_refused_until_there_is_room() {
    let redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    let fill = "for i = 1, 20001 do redis.call('XADD', KEYS[1], '*', 'x', 'y') end";
    redis.run(&["EVAL", fill, "1", &keys().inbox()]);
    let refused = deposits.deposit_and_wait(EntryKind::Alert, "{}".into(), PEER).unwrap_err();
    assert!(refused.contains("20001 reports wait"), "{refused}");
    redis.run(&["XTRIM", &keys().inbox(), "MAXLEN", "20000"]);
    deposit(&deposits, "there is room");
    assert_eq!(deposits.counts(), DepositCounts { confirmed: 1, refused: 1, again: 0 });
}

#[test]
fn what_redis_does_not_confirm_within_two_seconds_is_refused() {
    let mut redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let mut settings = redis.settings("hb2");
    settings.replicas = ReplicaCount::Number(1);
    let options = DepositOptions {
        connector: Connector::new(&settings).unwrap(),
        stream: keys().inbox(),
        node: "hb2".into(),
        incarnation: "1".into(),
        offset: offset(),
    };
    let (alone, _) = Deposits::start(options, &stop).unwrap();
    let refused = alone.deposit_and_wait(EntryKind::Alert, "{}".into(), PEER).unwrap_err();
    assert!(refused.contains("1 replicas of Redis"), "{refused}");
    let deposits = start_deposits(&redis, "hb3", &stop);
    deposit(&deposits, "it is there");
    redis.kill();
    let began = Instant::now();
    deposits.deposit_and_wait(EntryKind::Alert, "{}".into(), PEER).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    redis.start_again();
    wait_for("a confirmation", || {
        deposits.deposit_and_wait(EntryKind::Event, "again".into(), PEER).ok()
    });
}

/// Where the process of the test below finds its Redis.
const READER: &str = "HB_TEST_INBOX_READER";

/// No test: the leader in the test below, when it is told so. Its commit is one transaction of Redis.
#[test]
fn reader_process() {
    let Ok(url) = std::env::var(READER) else { return };
    let connection = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
    let connection = Mutex::new(connection);
    let rows: BTreeMap<String, Vec<u8>> = redis::cmd("HGETALL")
        .arg(keys().table("meta"))
        .query(&mut *connection.lock().unwrap())
        .unwrap();
    let sink: ChangeSink = Arc::new(move |change: Change| {
        let mut commit = redis::pipe();
        commit.atomic();
        let entry = change.entry.into_iter().flat_map(|entry| entry.writes(Now::read().wall));
        for write in change.writes.into_iter().chain(entry) {
            let value = write.value.unwrap();
            match write.table {
                Table::Meta => commit.hset(keys().table("meta"), write.key, value),
                _ => commit.rpush("effects", write.key),
            };
        }
        commit.query::<Value>(&mut *connection.lock().unwrap()).unwrap();
    });
    let sent = Arc::clone(&sink);
    let options = InboxOptions {
        connector: Connector::new(&shared_redis::settings(&url, "hb1")).unwrap(),
        keys: keys(),
        node: "hb1".into(),
        offset: offset(),
        rows: rows.into_iter().collect(),
        sink,
    };
    let handle = move |message: InboxMessage| {
        let key = String::from_utf8(message.body).unwrap();
        let effect = heartbeat::store::Write::put(Table::Events, key, &());
        sent(Change { writes: vec![effect], entry: Some(message.entry), ..Change::default() });
        HandledMessage::Taken
    };
    let (_source, stop) = Stop::channel();
    let (_, thread) = Inbox::start(options, Box::new(handle), &stop).unwrap();
    thread.join().unwrap();
}

struct Process(Child);

impl Process {
    fn start(redis: &SharedRedis) -> Process {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["reader_process", "--exact"])
            .env(READER, redis.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Process(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn readers_that_are_killed_leave_each_entry_with_one_effect() {
    let redis = SharedRedis::start(&[]);
    let (_source, stop) = Stop::channel();
    let deposits = start_deposits(&redis, "hb2", &stop);
    let effects = || redis.ask::<Vec<String>>(&["LRANGE", "effects", "0", "-1"]);
    let mut expected: Vec<String> = Vec::new();
    for kill in 0..12 {
        for number in 0..40 {
            let body = format!("{kill}/{number}");
            deposit(&deposits, &body);
            expected.push(body);
        }
        let before = effects().len();
        let _process = Process::start(&redis);
        // Killed in the midst of them.
        wait_for("some effects", || (effects().len() > before + kill * 3).then_some(()));
    }
    let _process = Process::start(&redis);
    wait_for("all effects", || (effects().len() >= expected.len()).then_some(()));
    assert_eq!(effects(), expected);
}
