//! Several hbd as one service on a real Redis: leaders that are killed, stopped, frozen and asked to
//! go, and a Redis that goes away. People hear of everything, once, or marked as a repeat.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/hbd.rs"]
mod hbd;
mod support;

use cluster::{BEATERS, Cluster, Count, GRACE, Heard, INTERVAL, Load, Silence, Told, count, heard};
use support::http_double;
use support::torture;
use support::torture::Dice;

/// Longer than it takes until people are told of it, whatever happens meanwhile.
const SILENCE: Duration = Duration::from_secs(8);
/// Longer than the lease.
const FROZEN: Duration = Duration::from_secs(4);
/// What a takeover may take after a kill: the lease, and what is read.
const TAKEOVER: Duration = Duration::from_secs(2);
/// How late people are told of a silence whose deadline falls into a takeover.
const LATE: Duration = TAKEOVER;

/// What is told is all that was accepted, once, in order, and nothing was invented.
fn assert_whole(count: &Count, most_repeats: usize) {
    let nothing: [String; 0] = [];
    assert_eq!(count.lost, nothing, "lost: {count:?}");
    assert_eq!(count.unmarked, nothing, "twice and unmarked: {count:?}");
    assert_eq!(count.disordered, nothing, "order: {count:?}");
    assert_eq!(count.false_overdue, nothing, "false overdue: {count:?}");
    assert_eq!(count.early_recovery, nothing, "recovery before its problem: {count:?}");
    assert_eq!(count.untold, nothing, "untold: {count:?}");
    assert!(count.repeats <= most_repeats, "{count:?}");
    assert!(count.latest < LATE, "{count:?}");
}

/// Waits until everything that was said is told, and counts.
fn conclude(cluster: &Cluster, load: Load) -> (Count, usize) {
    let (told, silences) = load.stop();
    let leader = cluster.wait_leader();
    let end = Instant::now() + hbd::TIMEOUT;
    let empty = || {
        let (_, figures) = cluster.nodes[leader].request("GET /metrics", "")?;
        figures
            .lines()
            .find(|line| line.starts_with("hbd_outbox_deliveries{"))
            .map(|line| line.ends_with(" 0"))
    };
    let so_far = || count(&told, &silences, &heard(&cluster.record.lines()));
    // Who was silent last is told of before it beats again; what another node took may be on its way.
    while (empty() != Some(true) || !so_far().lost.is_empty()) && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(empty(), Some(true), "the outbox never became empty");
    let stored = told.values().flatten().filter(|stored| **stored).count();
    let count = so_far();
    println!("{stored} messages, {} silences: {count:?}", silences.len());
    (count, stored)
}

/// One kill after the other, of the leader, which starts again a little later.
fn kill_leaders(kills: usize) {
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("the dice begin at {seed}");
    let (mut dice, mut cluster) = (Dice(seed), Cluster::start(3));
    let load = Load::start(&cluster.nodes, SILENCE);
    for _ in 0..kills {
        // The randomness itself; nothing is waited for.
        thread::sleep(Duration::from_millis(500 + dice.throw(1500)));
        let (leader, from) = (cluster.wait_leader(), cluster.record.len());
        cluster.nodes[leader].kill();
        let gap = cluster.wait_other_leader(leader, from);
        assert!(gap < TAKEOVER + Duration::from_secs(1), "it took {gap:?}");
        thread::sleep(Duration::from_millis(dice.throw(1500)));
        cluster.nodes[leader].start();
    }
    let (count, stored) = conclude(&cluster, load);
    // The log is the one channel: one attempt is under way at each death.
    assert_whole(&count, kills);
    assert!(stored > kills * 10, "only {stored} messages were accepted: this tested nothing");
}

#[test]
fn nothing_accepted_is_lost_over_five_kills_of_the_leader() {
    kill_leaders(5);
}

#[test]
#[ignore = "takes ten minutes"]
fn nothing_accepted_is_lost_over_a_hundred_kills_of_the_leader() {
    kill_leaders(100);
}

#[test]
fn hosts_that_speak_to_one_node_only_are_heard_over_takeovers() {
    let mut cluster = Cluster::start(3);
    let receiver = (cluster.wait_leader() + 1) % 3;
    let load = Load::to(&cluster.nodes, SILENCE, |_| vec![receiver]);
    for _ in 0..5 {
        // The load itself; nothing is waited for.
        thread::sleep(Duration::from_secs(2));
        let (leader, from) = (cluster.wait_leader(), cluster.record.len());
        if leader == receiver {
            let (status, why) =
                cluster.nodes[leader].request("POST /api/v1/cluster/step-down", "").unwrap();
            assert_eq!(status, 200, "{why}");
            cluster.wait_other_leader(leader, from);
        } else {
            cluster.nodes[leader].kill();
            cluster.wait_other_leader(leader, from);
            cluster.nodes[leader].start();
        }
    }
    let (count, _) = conclude(&cluster, load);
    assert_whole(&count, 5);
}

#[test]
fn no_host_is_missed_while_subscriptions_are_cut_off_again_and_again() {
    let cluster = Cluster::start(3);
    let leader = cluster.wait_leader();
    let load = Load::to(&cluster.nodes, Duration::ZERO, |host| vec![(leader + 1 + host % 2) % 3]);
    let mut redis = cluster.redis.connection();
    for _ in 0..12 {
        // The load itself; nothing is waited for.
        thread::sleep(Duration::from_secs(1));
        let cut: u64 =
            redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query(&mut redis).unwrap();
        assert!(cut > 0);
    }
    let (count, _) = conclude(&cluster, load);
    assert_whole(&count, 0);
    assert_eq!(cluster.wait_leader(), leader);
}

#[test]
fn a_webhook_that_a_standby_takes_is_handled_once() {
    let mut cluster = Cluster::start(3);
    let received = |cluster: &Cluster, leader: usize, count: &str| {
        let end = Instant::now() + hbd::TIMEOUT;
        let line = format!("\nhbd_alerts_received_total {count}\n");
        loop {
            let (_, figures) = cluster.nodes[leader].request("GET /metrics", "").unwrap();
            if figures.contains(&line) {
                return;
            }
            assert!(Instant::now() < end, "{figures}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    let webhook = |id: &str| {
        let labels = format!(r#"{{"alertname": "BackupFailed", "id": "{id}"}}"#);
        format!(
            r#"{{"version": "4", "alerts": [{{"status": "firing", "fingerprint": "f{id}",
            "startsAt": "2026-11-21T20:12:11.503Z", "labels": {labels}}}]}}"#
        )
    };
    let leader = cluster.wait_leader();
    let standby = (leader + 1) % 3;
    assert_eq!(cluster.nodes[standby].request("POST /alert", &webhook("1")).unwrap().0, 200);
    assert_eq!(cluster.nodes[standby].request("POST /alert", "[]").unwrap().0, 400);
    received(&cluster, leader, "1");
    let from = cluster.record.len();
    cluster.nodes[leader].kill();
    cluster.wait_other_leader(leader, from);
    let next = cluster.wait_leader();
    let other = 3 - leader - next;
    assert_eq!(cluster.nodes[other].request("POST /alert", &webhook("2")).unwrap().0, 200);
    // It comes after the first one in the inbox, which that leader would handle again.
    received(&cluster, next, "1");
    cluster.redis.kill();
    let (status, why) = cluster.nodes[other].request("POST /alert", &webhook("3")).unwrap();
    assert_eq!(status, 503, "{why}");
    cluster.redis.restart();
}

#[test]
fn a_standby_knows_what_the_leader_hears_and_what_it_hears_itself() {
    let cluster = Cluster::start(2);
    let leader = cluster.wait_leader();
    let load = Load::to(&cluster.nodes, Duration::ZERO, |host| vec![host % 2]);
    let end = Instant::now() + hbd::TIMEOUT;
    let known = |place: usize| {
        let (_, figures) = cluster.nodes[place].request("GET /metrics", "").unwrap();
        let lines = figures.lines();
        lines
            .filter_map(|line| line.strip_prefix("hbd_cluster_connections ")?.parse::<usize>().ok())
            .sum::<usize>()
    };
    // Those that talk have a connection each, too.
    while known(0) < BEATERS || known(1) < BEATERS {
        assert!(Instant::now() < end, "{} and {}", known(0), known(1));
        thread::sleep(Duration::from_millis(20));
    }
    let (count, _) = conclude(&cluster, load);
    assert_whole(&count, 0);
    assert_eq!(cluster.wait_leader(), leader);
}

#[test]
fn each_node_watches_its_own_machine_whoever_leads() {
    let hosts: String = (1..=2).map(|number| format!("  hb{number}: {{watch: true}}\n")).collect();
    let mut cluster = Cluster::new(2, &hosts);
    for node in &mut cluster.nodes {
        let text = std::fs::read_to_string(&node.config).unwrap();
        let agent = format!("agent: {{enabled: true, host: {}, interval: 1s}}\n", node.name);
        std::fs::write(&node.config, text + &agent).unwrap();
        node.start();
    }
    let watched = |cluster: &Cluster, leader: usize| {
        let end = Instant::now() + hbd::TIMEOUT;
        for host in ["hb1", "hb2"] {
            loop {
                let head = format!("GET /api/v1/hosts/{host}");
                let (_, answer) = cluster.nodes[leader].request(&head, "").unwrap();
                if ["\"name\":\"agent\"", "\"state\":\"UP\"", "memory"]
                    .iter()
                    .all(|w| answer.contains(w))
                {
                    break;
                }
                assert!(Instant::now() < end, "{answer}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    };
    let leader = cluster.wait_leader();
    watched(&cluster, leader);
    let from = cluster.record.len();
    cluster.nodes[leader].stop();
    cluster.wait_other_leader(leader, from);
    cluster.nodes[leader].start();
    watched(&cluster, 1 - leader);
    let told = heard(&cluster.record.lines());
    assert!(!told.iter().any(|one| one.text.contains("overdue")), "{told:?}");
}

#[test]
fn a_leader_that_is_stopped_is_replaced_at_once() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster.nodes, Duration::ZERO);
    for _ in 0..3 {
        let (leader, from) = (cluster.wait_leader(), cluster.record.len());
        cluster.nodes[leader].stop();
        let gap = cluster.wait_other_leader(leader, from);
        assert!(gap < Duration::from_millis(300), "it took {gap:?}");
        cluster.nodes[leader].start();
    }
    let (count, _) = conclude(&cluster, load);
    assert_whole(&count, 0);
}

#[test]
fn a_node_that_starts_again_takes_its_own_lead_back() {
    let mut cluster = Cluster::start(1);
    for _ in 0..3 {
        let from = cluster.record.len();
        cluster.nodes[0].kill();
        let begun = Instant::now();
        cluster.nodes[0].start();
        let words = "it led before";
        let line = cluster.record.wait(words, from, |line| line.text.contains(words));
        // The lease alone would take longer.
        assert!(line.at - begun < Duration::from_secs(1), "{:?}", line.at - begun);
    }
}

#[test]
fn a_leader_that_was_frozen_sends_nothing_and_stands_by_with_its_sockets() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster.nodes, Duration::ZERO);
    let old = cluster.wait_leader();
    let (from, number) = (cluster.record.len(), cluster.nodes[old].number);
    cluster.record.wait("messages are told", 0, |line| line.text.contains("talker-5 number 0"));
    cluster.nodes[old].signal(libc::SIGSTOP);
    cluster.wait_other_leader(old, from);
    thread::sleep(FROZEN);
    // What comes while it is frozen waits in its sockets: they must not be closed when it starts anew.
    let waits = UdpSocket::bind("127.0.0.1:0").unwrap();
    waits.connect(cluster.nodes[old].udp).unwrap();
    let woken = cluster.record.len();
    cluster.nodes[old].signal(libc::SIGCONT);
    cluster.record.wait("it stands by", woken, |line| {
        // A refused datagram would be an error of the next one (udp(7)).
        waits.send(b"{}").unwrap();
        line.node == number && line.text.contains(" stands by in the cluster")
    });
    waits.send(b"{}").unwrap();
    waits.send(b"{}").unwrap();
    assert!(!cluster.nodes[old].leads());
    let (count, _) = conclude(&cluster, load);
    assert_whole(&count, 1);
    let lines = cluster.record.lines();
    let sent: Vec<_> =
        heard(&lines[woken..]).into_iter().filter(|one| one.node == number).collect();
    assert!(sent.is_empty(), "{sent:?}");
}

#[test]
fn a_redis_that_is_away_for_a_while_loses_nothing_and_changes_no_leader() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster.nodes, Duration::ZERO);
    let (leader, from) = (cluster.wait_leader(), cluster.record.len());
    thread::sleep(Duration::from_secs(1));
    cluster.redis.kill();
    thread::sleep(Duration::from_secs(5));
    cluster.redis.restart();
    let (count, _) = conclude(&cluster, load);
    assert_whole(&count, 1);
    assert_eq!(cluster.wait_leader(), leader);
    let takeovers = cluster.record.lines().split_off(from);
    assert!(!takeovers.iter().any(|line| line.text.contains(" leads now (epoch ")));
}

#[test]
fn a_leader_that_is_asked_to_hands_over() {
    let cluster = Cluster::start(2);
    let (leader, from) = (cluster.wait_leader(), cluster.record.len());
    let (status, answer) =
        cluster.nodes[leader].request("POST /api/v1/cluster/step-down", "").unwrap();
    assert_eq!(status, 200, "{answer}");
    cluster.wait_other_leader(leader, from);
    assert_eq!(cluster.wait_leader(), 1 - leader);
    assert!(!cluster.nodes[leader].leads());
}

#[test]
fn a_node_that_stands_by_names_the_leader() {
    let cluster = Cluster::start(2);
    let leader = cluster.wait_leader();
    let standby = &cluster.nodes[1 - leader];
    cluster.wait_known(1 - leader);
    for (head, status) in [
        ("GET /-/healthy", 200),
        ("GET /-/ready", 200),
        ("GET /-/leader", 503),
        ("GET /api/v1/hosts", 503),
    ] {
        let (found, answer) = standby.request(head, "{}").unwrap();
        assert_eq!(found, status, "{head}: {answer}");
        assert_eq!(answer.contains("Retry-After: "), status == 503, "{head}: {answer}");
        let names = answer.contains(&format!("http://{}", cluster.nodes[leader].http));
        assert!(status != 503 || names, "{head}: {answer}");
    }
    let (_, figures) = standby.request("GET /metrics", "").unwrap();
    assert!(figures.contains("\nhbd_cluster_leader 0\n"), "{figures}");
    let (_, figures) = cluster.nodes[leader].request("GET /metrics", "").unwrap();
    for line in ["\nhbd_cluster_leader 1\n", "\nhbd_cluster_redis_up 1\n"] {
        assert!(figures.contains(line), "{figures}");
    }
    for node in &cluster.nodes {
        let (status, answer) = node.request("GET /api/v1/cluster", "").unwrap();
        assert_eq!(status, 200, "{answer}");
        for name in ["\"name\":\"hb1\"", "\"name\":\"hb2\"", "\"role\":\"leader\""] {
            assert!(answer.contains(name), "{answer}");
        }
    }
}

#[test]
fn a_node_starts_before_its_redis_and_says_so_once() {
    let mut cluster = Cluster::new(1, "");
    cluster.redis.kill();
    cluster.nodes[0].start();
    let words = "the cluster's Redis cannot be used";
    cluster.record.wait(words, 0, |line| line.text.contains(words));
    thread::sleep(Duration::from_secs(3));
    let said = cluster.record.lines().iter().filter(|line| line.text.contains(words)).count();
    assert_eq!(said, 1);
    assert_eq!(cluster.nodes[0].request("GET /-/healthy", "").unwrap().0, 200);
    assert_eq!(cluster.nodes[0].request("GET /-/ready", "").unwrap().0, 503);
    cluster.redis.restart();
    assert_eq!(cluster.wait_leader(), 0);
}

#[test]
fn without_a_cluster_the_threads_are_those_of_a_single_daemon() {
    let mut cluster = Cluster::new(1, "");
    let config = std::fs::read_to_string(&cluster.nodes[0].config).unwrap();
    std::fs::write(&cluster.nodes[0].config, alone(&config)).unwrap();
    cluster.nodes[0].start();
    assert_eq!(cluster.nodes[0].request("GET /-/leader", "").unwrap().0, 404);
    let mut names: Vec<_> = cluster.nodes[0]
        .threads()
        .into_iter()
        .map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned())
        .collect();
    names.dedup();
    let known = [
        "backups",
        "courier",
        "deadlines",
        "dyndns",
        "front-",
        "hbd",
        "history",
        "http-",
        "http-stored",
        "store",
        "store-read",
        "udp",
        "worker-",
    ];
    assert_eq!(names, known);
}

/// The configuration without its section `cluster`.
fn alone(config: &str) -> String {
    let lines = config.lines().filter(|line| !line.starts_with("cluster:"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_state_of_a_single_daemon_moves_into_redis_and_back() {
    let mut cluster = Cluster::new(1, "");
    let file = cluster.nodes[0].config.clone();
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, alone(&config)).unwrap();
    cluster.nodes[0].start();
    let body = r#"{"host":"talker-0","event":"message","message":"number 0"}"#;
    assert_eq!(cluster.nodes[0].request("POST /api/v1/heartbeat", body).unwrap().0, 200);
    cluster.nodes[0].stop();
    std::fs::write(&file, config).unwrap();
    let hbd = |action: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["cluster", action, "--config"])
            .arg(&file)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(hbd("import"), (Some(0), String::new()));
    let (code, why) = hbd("import");
    assert!(code == Some(1) && why.contains("has a state already"), "{why}");
    cluster.nodes[0].start();
    cluster.wait_leader();
    let (_, answer) = cluster.nodes[0].request("GET /api/v1/events", "").unwrap();
    assert!(answer.contains("talker-0 number 0"), "{answer}");
    let (code, why) = hbd("export");
    assert!(code == Some(1) && why.contains("is in use by another hbd"), "{why}");
    cluster.nodes[0].stop();
    let (code, why) = hbd("export");
    assert!(code == Some(1) && why.contains("has a state already"), "{why}");
    let state = file.with_file_name("state");
    std::fs::rename(state.join("heartbeat.redb"), state.join("old.redb")).unwrap();
    assert_eq!(hbd("export"), (Some(0), String::new()));
}

// The counter itself: it finds what it is there to find.

fn said(at: Instant, event: &str, text: &str, marked: bool) -> Heard {
    Heard { at, node: 1, text: text.into(), event: event.into(), marked }
}

fn told(stored: &[bool]) -> BTreeMap<String, Told> {
    BTreeMap::from([("a".to_owned(), stored.to_vec())])
}

#[test]
fn the_count_finds_what_is_lost_told_twice_and_out_of_order() {
    let now = Instant::now();
    let one = |event: &str, number: usize, marked| {
        said(now, event, &format!("a number {number}"), marked)
    };
    let good = [one("1", 0, false), one("2", 1, false), one("2", 1, true)];
    let found = count(&told(&[true, true, false]), &[], &good);
    assert_eq!(found, Count { repeats: 1, ..Count::default() });
    let found = count(&told(&[true, true, true]), &[], &good);
    assert_eq!(found.lost, ["a number 2"]);
    let found = count(&told(&[true]), &[], &[one("1", 0, false), one("1", 0, false)]);
    assert_eq!(found.unmarked, ["a number 0"]);
    let found = count(&told(&[true, true]), &[], &[one("2", 1, false), one("1", 0, false)]);
    assert_eq!(found.disordered, ["a number 0 after 1"]);
    // Accepted twice: two events tell the same.
    let found = count(&told(&[true]), &[], &[one("1", 0, false), one("2", 0, false)]);
    assert_eq!(found.disordered, ["a number 0 after 0"]);
}

#[test]
fn the_count_finds_invented_missing_and_early_silences() {
    let from = Instant::now();
    let silence = Silence { host: "b".into(), from, to: from + 3 * (INTERVAL + GRACE) };
    let due = from + INTERVAL + GRACE;
    let late = due + Duration::from_millis(70);
    let overdue = |at, event: &str| said(at, event, "b ipv4 overdue", false);
    let back = |event: &str| said(silence.to, event, "b ipv4 is back", false);
    let silences = std::slice::from_ref(&silence);
    let found = count(&BTreeMap::new(), silences, &[overdue(late, "1"), back("2")]);
    assert_eq!(found, Count { latest: Duration::from_millis(70), ..Count::default() });
    let found = count(&BTreeMap::new(), silences, &[]);
    assert_eq!(found.untold.len(), 1);
    let twice = [overdue(late, "1"), overdue(late, "2")];
    assert_eq!(count(&BTreeMap::new(), silences, &twice).false_overdue.len(), 1);
    assert_eq!(count(&BTreeMap::new(), &[], &twice[..1]).false_overdue.len(), 1);
    assert_eq!(count(&BTreeMap::new(), silences, &[back("1")]).early_recovery, ["b"]);
    let short = Silence { to: from + INTERVAL, ..silence.clone() };
    assert_eq!(count(&BTreeMap::new(), &[short], &twice[..1]).false_overdue.len(), 1);
}
