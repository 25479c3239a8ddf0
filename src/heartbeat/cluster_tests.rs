//! Several nodes, of which one decides: whatever dies or is cut off, no alarm is lost and none is
//! invented. Each node has clocks of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident};
use crate::heartbeat::clocks::ClusterClocks;
use crate::heartbeat::datagram::{Datagram, ReceivedDatagram, Rejection};
use crate::heartbeat::encode;
use crate::heartbeat::event_limits::Load;
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::fleet::restore::Takeover;
use crate::heartbeat::last_beats::{LastBeats, LastHeard, RoundPart};
use crate::heartbeat::persistence::{HostRow, LastAlive, kernel_tag};
use crate::heartbeat::settings::{
    ALERTMANAGER, Expectation, FleetConfig, HostSettings, UnknownHosts,
};
use crate::heartbeat::test_fleet::{BEGIN, HERE, SECOND};
use crate::secret::Secret;

const NODES: [&str; 3] = ["hb1", "hb2", "hb3"];
/// How far the monotonic clocks of the nodes are from the time of the test, and how far their wall
/// clocks are off.
const CLOCKS: [(i64, i64); 3] = [(0, 0), (7_000_000, 120_000), (-9_000_000, -90_000)];
const KEY: &str = "k";
const HOSTS: [&str; 3] = ["web0", "web1", "web2"];
const ROUND: i64 = 10_000;
const FLUSH: i64 = 60_000;

fn config() -> FleetConfig {
    let watched = || HostSettings { watch: true, ..HostSettings::default() };
    let mut config = FleetConfig::default();
    config.settings.unknown_hosts = UnknownHosts::Ignore;
    config.hosts = HOSTS.map(|name| (name.to_owned(), watched())).into();
    config.hosts.get_mut("web1").unwrap().key = Some(Secret::new(KEY));
    config
}

struct Cluster {
    /// Milliseconds since the test began.
    time: i64,
    leader: usize,
    fleet: Fleet,
    /// What the nodes keep that live and do not lead.
    standbys: [Option<LastBeats>; 3],
    died: [i64; 3],
    /// Until when nothing of a node arrives at the others.
    cut_off: [i64; 3],
    rows: BTreeMap<String, String>,
    last_alive: Option<LastAlive>,
    told_gone: Vec<String>,
    open: BTreeMap<Incident, i64>,
    /// When a host beat last, and which nodes it speaks to.
    beat: [i64; 3],
    speaks_to: [u8; 3],
    beats: [bool; 3],
    round: u32,
    titles: Vec<String>,
    overdue: Vec<(i64, String)>,
}

impl Cluster {
    fn now_of(&self, node: usize) -> Now {
        self.at(node, self.time)
    }

    fn at(&self, node: usize, time: i64) -> Now {
        let (mono, wall) = CLOCKS[node];
        Now { mono: Mono(BEGIN.mono.0 + time + mono), wall: Wall(BEGIN.wall.0 + time + wall) }
    }

    fn kernel(node: usize) -> String {
        format!("kernel of {}", NODES[node])
    }

    fn new() -> Cluster {
        let at = |node: usize| Now {
            mono: Mono(BEGIN.mono.0 + CLOCKS[node].0),
            wall: Wall(BEGIN.wall.0 + CLOCKS[node].1),
        };
        let beats = |node: usize| LastBeats::new(&config(), NODES[node], at(node));
        let mut cluster = Cluster {
            time: 0,
            leader: 0,
            fleet: Fleet::new(config(), BEGIN),
            standbys: [Some(beats(0)), Some(beats(1)), Some(beats(2))],
            died: [-1; 3],
            cut_off: [0; 3],
            rows: BTreeMap::new(),
            last_alive: None,
            told_gone: Vec::new(),
            open: BTreeMap::new(),
            beat: [i64::MIN; 3],
            speaks_to: [0b111; 3],
            beats: [true; 3],
            round: 0,
            titles: Vec::new(),
            overdue: Vec::new(),
        };
        cluster.lead(0);
        cluster
    }

    fn lives(&self, node: usize) -> bool {
        node == self.leader || self.standbys[node].is_some()
    }

    /// A node that stands by leads from now on.
    fn lead(&mut self, node: usize) {
        let previous = (self.leader != node).then(|| NODES[self.leader].to_owned());
        let beats = self.standbys[node].take().unwrap();
        self.leader = node;
        let clocks = ClusterClocks {
            own: BEGIN.wall.0 - CLOCKS[node].0,
            of: (0..3)
                .map(|other| (kernel_tag(&Self::kernel(other)), BEGIN.wall.0 - CLOCKS[other].0))
                .collect(),
        };
        let rows = self.rows.iter();
        let rows: Vec<(String, HostRow)> =
            rows.map(|(name, text)| (name.clone(), serde_json::from_str(text).unwrap())).collect();
        let (now, kernel_boot) = (self.now_of(node), Self::kernel(node));
        let told_gone = self.told_gone.clone();
        let takeover = Takeover { now, kernel_boot, clocks, told_gone, previous, beats };
        self.fleet = Fleet::restore_in_cluster(config(), rows, self.last_alive.clone(), takeover);
        for (other, name) in NODES.iter().enumerate() {
            if !self.lives(other) {
                let died = self.at(node, self.died[other]).mono;
                self.fleet.receiver_lost(name, died);
            }
        }
        self.flush();
        self.process_due();
    }

    fn dies(&mut self, node: usize) {
        self.standbys[node] = None;
        self.died[node] = self.time;
        if node != self.leader {
            let now = self.now_of(self.leader).mono;
            self.fleet.receiver_lost(NODES[node], now);
        }
    }

    fn starts(&mut self, node: usize) {
        let now = self.now_of(node);
        self.standbys[node] = Some(LastBeats::new(&config(), NODES[node], now));
        let back = self.now_of(self.leader).mono;
        self.fleet.receiver_back(NODES[node], back);
        self.process_due();
    }

    fn flush(&mut self) {
        let rows = self.fleet.flush();
        self.save(rows);
        let (now, kernel_boot) = (self.now_of(self.leader), Self::kernel(self.leader));
        self.last_alive = Some(LastAlive { kernel_boot, now, offset: None });
    }

    fn save(&mut self, rows: Vec<(String, HostRow)>) {
        for (name, row) in rows {
            self.rows.insert(name, serde_json::to_string(&row).unwrap());
        }
    }

    fn record(&mut self, events: Vec<Event>, ended: Vec<Incident>) {
        for event in events {
            let title = event.message(crate::event::EventId(1)).title;
            let change = event.incident();
            if let Some(incident) = change.opens().cloned() {
                let before = self.open.insert(incident, self.time);
                assert!(before.is_none(), "told twice: {title}");
            }
            for incident in change.closes() {
                let told = self.open.remove(incident).expect("over before it began");
                if let EventKind::Back { host, .. } = &event.kind {
                    let index = HOSTS.iter().position(|name| name == host).unwrap();
                    assert!(self.beat[index] >= told, "{title}: it did not beat since");
                }
            }
            if let EventKind::Overdue { host, .. } = &event.kind {
                self.overdue.push((self.time, host.clone()));
            }
            self.titles.push(title);
        }
        for incident in ended {
            assert!(self.open.remove(&incident).is_some(), "ended before it began: {incident:?}");
        }
    }

    fn process_due(&mut self) {
        loop {
            let now = self.now_of(self.leader);
            let changes = self.fleet.due(now);
            self.save(changes.rows);
            self.told_gone = changes.receivers.unwrap_or(std::mem::take(&mut self.told_gone));
            self.record(changes.events, changes.closed_incidents);
            if self.fleet.next_deadline().is_none_or(|next| next > now.mono) {
                return;
            }
        }
    }

    fn datagram(&self, host: usize, more: &str) -> Vec<u8> {
        let time = (BEGIN.wall.0 + self.time) as f64 / 1000.0;
        let json = format!(r#"{{"host":"{}","time":{time}{more}}}"#, HOSTS[host]);
        match HOSTS[host] {
            "web1" => encode::sign(&encode::signing_key(&Secret::new(KEY)), json.as_bytes()),
            _ => json.into_bytes(),
        }
    }

    fn beat_of(&mut self, host: usize) {
        let bytes = self.datagram(host, "");
        let nodes = self.speaks_to[host];
        for node in (0..3).filter(|node| nodes & (1 << node) != 0) {
            if self.lives(node) {
                self.beat[host] = self.time;
            }
            self.receive(node, &bytes);
        }
    }

    /// A datagram arrives at a node, which tells the others.
    fn receive(&mut self, node: usize, bytes: &[u8]) {
        let now = self.now_of(node);
        if node == self.leader {
            let ingested = self.fleet.ingest(bytes, HERE, now).unwrap();
            self.save(ingested.rows);
            return self.record(ingested.events, ingested.closed_incidents);
        }
        let received = ReceivedDatagram::parse(bytes).unwrap();
        let Some(beats) = &mut self.standbys[node] else { return };
        beats.hear(&received, bytes, HERE, now).unwrap();
        if self.time < self.cut_off[node] {
            return;
        }
        for other in (0..3).filter(|other| *other != node) {
            let at = self.now_of(other);
            if let Some(beats) = &mut self.standbys[other] {
                beats.keep_relayed(&received, bytes, (HERE, NODES[node]), at).unwrap();
            }
        }
        let at = self.now_of(self.leader);
        let ingested =
            self.fleet.ingest_relayed(&received, (HERE, NODES[node]), Load::Free, at).unwrap();
        self.save(ingested.rows);
        self.record(ingested.events, ingested.closed_incidents);
    }

    fn tell_round(&mut self) {
        self.round += 1;
        for node in (0..3).filter(|node| *node != self.leader) {
            let (ours, theirs) = (CLOCKS[self.leader].0, CLOCKS[node].0);
            let shift = |mut heard: LastHeard| {
                heard.at.0 += theirs - ours;
                heard
            };
            let times: Vec<_> = self.fleet.last_heard(0, 99).into_iter().map(shift).collect();
            let now = self.now_of(node);
            let part = RoundPart { round: self.round, part: 0, parts: 1, began: now.mono };
            if let Some(beats) = &mut self.standbys[node] {
                beats.keep_round(NODES[self.leader], part, &times, now);
            }
        }
    }

    /// Time passes; hosts beat every ten seconds, each at its own time.
    fn wait(&mut self, millis: i64) {
        let end = self.time + millis;
        while self.pass(end) {
            self.tick();
        }
    }

    /// Goes on to the next half second, or to the end, where it is over.
    fn pass(&mut self, end: i64) -> bool {
        let next = (self.time / 500 + 1) * 500;
        self.time = next.min(end);
        next <= end
    }

    fn tick(&mut self) {
        for host in 0..3 {
            if self.beats[host] && self.time % 10_000 == 3_000 * host as i64 {
                self.beat_of(host);
            }
        }
        if self.time % ROUND == 1_500 {
            self.tell_round();
        }
        if self.time % FLUSH == 31_000 {
            self.flush();
        }
        self.process_due();
    }

    /// The node that leads dies; another one leads after a while, which began to listen only just before
    /// when it is not `warm`.
    fn take_over(&mut self, warm: bool, lost: i64) {
        let old = self.leader;
        let Some(next) = (1..3).map(|by| (old + by) % 3).find(|node| self.lives(*node)) else {
            return;
        };
        if !warm {
            let now = self.now_of(next);
            self.standbys[next] = Some(LastBeats::new(&config(), NODES[next], now));
        }
        self.died[old] = self.time;
        // Nobody decides meanwhile; hosts beat on.
        let end = self.time + lost;
        while self.pass(end) {
            for host in 0..3 {
                if self.beats[host] && self.time % 10_000 == 3_000 * host as i64 {
                    self.beat_unled(host);
                }
            }
        }
        self.lead(next);
    }

    fn beat_unled(&mut self, host: usize) {
        let bytes = self.datagram(host, "");
        let received = ReceivedDatagram::parse(&bytes).unwrap();
        for node in (0..3).filter(|node| self.speaks_to[host] & (1 << node) != 0) {
            let now = self.now_of(node);
            let Some(beats) = &mut self.standbys[node] else { continue };
            beats.hear(&received, &bytes, HERE, now).unwrap();
            self.beat[host] = self.time;
            for other in (0..3).filter(|other| *other != node) {
                let at = self.now_of(other);
                if let Some(beats) = &mut self.standbys[other] {
                    beats.keep_relayed(&received, &bytes, (HERE, NODES[node]), at).unwrap();
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Takeover {
        warm: bool,
        lost_millis: i64,
    },
    ReceiverDies(usize),
    ReceiverBack(usize),
    RelayGap(usize, i64),
    /// A host speaks to these nodes from now on.
    SpeaksTo(usize, u8),
    Silent(usize),
    Beats(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..90_000i64).prop_map(Step::Wait),
        3 => (any::<bool>(), 0..5_000i64)
            .prop_map(|(warm, lost_millis)| Step::Takeover { warm, lost_millis }),
        2 => (0..3usize).prop_map(Step::ReceiverDies),
        3 => (0..3usize).prop_map(Step::ReceiverBack),
        1 => (0..3usize, 1..30_000i64).prop_map(|(node, time)| Step::RelayGap(node, time)),
        1 => (0..3usize, 1..8u8).prop_map(|(host, nodes)| Step::SpeaksTo(host, nodes)),
        1 => (0..3usize).prop_map(Step::Silent),
        2 => (0..3usize).prop_map(Step::Beats),
    ]
}

impl Cluster {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Wait(time) => self.wait(time),
            Step::Takeover { warm, lost_millis } => self.take_over(warm, lost_millis),
            Step::ReceiverDies(node) if node != self.leader && self.lives(node) => self.dies(node),
            Step::ReceiverBack(node) if !self.lives(node) => self.starts(node),
            Step::RelayGap(node, time) if node != self.leader && self.lives(node) => {
                let from = self.now_of(self.leader).mono;
                self.cut_off[node] = self.time + time;
                for other in (0..3).filter(|other| *other != node) {
                    let until = self.at(other, self.time + time).mono;
                    if let Some(beats) = &mut self.standbys[other] {
                        beats.gap(until);
                    }
                }
                // As it is reported: when the relay goes on.
                self.wait(time);
                let leader = self.leader;
                let to = self.now_of(leader).mono;
                self.fleet.receiver_gap(NODES[node], from, to);
            }
            // A host that moves does so while those that hear it live.
            Step::SpeaksTo(host, nodes) => {
                if (0..3).all(|node| self.lives(node)) {
                    self.speaks_to[host] = nodes;
                    self.wait(30_000);
                }
            }
            Step::Silent(host) => self.beats[host] = false,
            Step::Beats(host) => self.beats[host] = true,
            Step::ReceiverDies(_) | Step::ReceiverBack(_) | Step::RelayGap(..) => {}
        }
    }

    /// Who was found overdue though nobody could know that it was silent for so long.
    fn false_overdue(&self, silent_since: &[Option<i64>; 3]) -> Vec<(i64, String)> {
        let is_false = |(_, name): &&(i64, String)| {
            let host = HOSTS.iter().position(|host| host == name).unwrap();
            silent_since[host].is_none()
        };
        self.overdue.iter().filter(is_false).cloned().collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_dies_no_alarm_is_lost_and_none_is_invented(
        steps in proptest::collection::vec(step(), 0..25)
    ) {
        let mut cluster = Cluster::new();
        cluster.wait(61_000);
        let mut was_silent: [Option<i64>; 3] = [None; 3];
        for step in &steps {
            cluster.apply(step);
            for (was_silent, beats) in was_silent.iter_mut().zip(cluster.beats) {
                *was_silent = was_silent.or((!beats).then_some(cluster.time));
            }
            prop_assert_eq!(cluster.false_overdue(&was_silent), vec![], "{:?}", step);
        }
        for node in 0..3 {
            if !cluster.lives(node) {
                cluster.starts(node);
            }
        }
        let beats = cluster.beats;
        cluster.wait(240_000);
        for (host, beats) in beats.iter().enumerate() {
            let incident = Incident::connection(HOSTS[host], "ipv4");
            prop_assert_eq!(cluster.open.contains_key(&incident), !beats, "{}", HOSTS[host]);
        }
        cluster.beats = [true; 3];
        cluster.wait(20_000);
        let left: BTreeSet<_> = cluster.open.keys().collect();
        prop_assert!(left.is_empty(), "{:?}", left);
    }
}

#[test]
fn the_last_beat_before_a_silence_that_was_told_ends_it_not() {
    let mut cluster = Cluster::new();
    cluster.speaks_to[0] = 0b010;
    cluster.wait(61_000);
    cluster.beats[0] = false;
    cluster.wait(60_000);
    assert_eq!(cluster.titles, ["web0 ipv4 overdue"]);
    // hb2 has kept that beat.
    cluster.take_over(true, 1_000);
    cluster.wait(120_000);
    assert_eq!(cluster.titles, ["web0 ipv4 overdue"]);
    cluster.beats[0] = true;
    cluster.wait(10_000);
    assert_eq!(cluster.titles, ["web0 ipv4 overdue", "web0 ipv4 is back"]);
}

#[test]
fn a_deadline_that_falls_into_a_death_is_kept_by_a_node_that_heard_all() {
    let mut cluster = Cluster::new();
    cluster.wait(61_000);
    cluster.beats[0] = false;
    // Its last beat was at 60 s: it is due at 100 s.
    cluster.wait(38_500);
    cluster.take_over(true, 1_000);
    assert_eq!(cluster.time, 100_500);
    assert_eq!(cluster.titles, ["web0 ipv4 overdue"]);
}

#[test]
fn a_host_that_speaks_to_one_node_is_excused_while_that_is_gone_and_one_that_speaks_to_all_is_not()
{
    let mut cluster = Cluster::new();
    cluster.speaks_to = [0b010, 0b111, 0b110];
    cluster.wait(61_000);
    cluster.dies(1);
    cluster.beats = [false, false, true];
    cluster.wait(120_000);
    assert_eq!(
        cluster.titles,
        ["node hb2 is gone: 1 host is heard by nobody", "web1 ipv4 overdue"]
    );
    assert_eq!(cluster.fleet.count_unheard(), 1);
    // Whoever leads now knows what was told.
    cluster.take_over(true, 1_000);
    cluster.wait(60_000);
    assert_eq!(cluster.titles.len(), 2, "{:?}", cluster.titles);
    cluster.beats[0] = true;
    cluster.starts(1);
    cluster.wait(50_000);
    assert_eq!(cluster.titles[2..], ["the hosts of node hb2 are heard again"]);
    cluster.beats[0] = false;
    cluster.wait(60_000);
    assert_eq!(cluster.titles[3..], ["web0 ipv4 overdue"]);
}

/// T14: whoever overhears a datagram sends it to another node at once.
#[test]
fn a_datagram_that_was_overheard_is_no_beat_at_another_node() {
    for delay in [0, 1, 50, 100] {
        let mut cluster = Cluster::new();
        cluster.speaks_to[1] = 0b001;
        cluster.wait(61_000);
        let bytes = cluster.datagram(1, "");
        cluster.receive(0, &bytes);
        let row = cluster.fleet.row("web1").unwrap();
        let (seen, signed) = (row.connections[0].seen, row.connections[0].signed);
        cluster.wait(delay);
        let titles = cluster.titles.len();
        cluster.receive(1, &bytes);
        cluster.receive(1 + usize::from(delay > 50), &cluster.datagram(0, ""));
        let row = cluster.fleet.row("web1").unwrap();
        assert_eq!((row.connections[0].seen, row.connections[0].signed), (seen, signed));
        assert_eq!(cluster.titles.len(), titles);
        // And at the node that heard it, it is a replay.
        let now = cluster.now_of(0);
        assert_eq!(cluster.fleet.ingest(&bytes, HERE, now), Err(Rejection::Replay));
        cluster.take_over(true, 500);
        let now = cluster.now_of(cluster.leader);
        let again = cluster.fleet.ingest(&bytes, HERE, now);
        assert_eq!(again, Err(Rejection::Replay), "after a takeover, too");
    }
}

#[test]
fn a_host_that_sends_to_all_nodes_is_no_attack_and_is_answered_by_all() {
    let mut cluster = Cluster::new();
    cluster.wait(61_000);
    let bytes = cluster.datagram(1, r#","ack":true,"metrics":{"filler":1}"#);
    cluster.receive(1, &bytes);
    let now = cluster.now_of(0);
    let ingested = cluster.fleet.ingest(&bytes, HERE, now).unwrap();
    assert!(ingested.ack.is_some() && ingested.events.is_empty());
    assert_eq!(cluster.fleet.ingest(&bytes, HERE, now), Err(Rejection::Replay));
    let received = ReceivedDatagram::parse(&bytes).unwrap();
    let now = cluster.now_of(2);
    let beats = cluster.standbys[2].as_mut().unwrap();
    let heard = beats.hear(&received, &bytes, HERE, now).unwrap();
    assert!(heard.ack.is_some() && !heard.is_news);
    assert_eq!(beats.hear(&received, &bytes, HERE, now), Err(Rejection::Replay));
    let row = cluster.fleet.row("web1").unwrap();
    assert_eq!(row.connections[0].receivers, "hb1,hb2,hb3");
}

#[test]
fn a_message_that_a_beat_has_overtaken_is_told_once() {
    let mut cluster = Cluster::new();
    cluster.wait(61_000);
    let message = cluster.datagram(1, r#","event":"message","message":"is hot""#);
    cluster.wait(100);
    let beat = cluster.datagram(1, "");
    cluster.receive(0, &beat);
    for (node, count) in [("hb2", 1), ("hb3", 0), ("hb2", 0)] {
        let received = ReceivedDatagram::parse(&message).unwrap();
        let at = cluster.at(0, 61_000);
        let ingested =
            cluster.fleet.ingest_relayed(&received, (HERE, node), Load::Free, at).unwrap();
        assert_eq!(ingested.events.len(), count, "{node}");
    }
    let unsigned = cluster.datagram(0, r#","event":"message","message":"is hot""#);
    let received = ReceivedDatagram::parse(&unsigned).unwrap();
    let at = cluster.now_of(0);
    assert_eq!(cluster.fleet.ingest(&unsigned, HERE, at).unwrap().events.len(), 1);
    let copy = cluster.fleet.ingest_relayed(&received, (HERE, "hb2"), Load::Free, at).unwrap();
    assert!(copy.events.is_empty());
}

/// The node that deposited it leads before the leader has read it.
#[test]
fn signed_news_that_a_node_has_deposited_is_told_once_when_that_node_leads() {
    for event in [r#","event":"message","message":"is hot""#, r#","event":"shutdown""#] {
        let mut cluster = Cluster::new();
        cluster.wait(61_000);
        let news = cluster.datagram(1, event);
        let received = ReceivedDatagram::parse(&news).unwrap();
        let now = cluster.now_of(1);
        let beats = cluster.standbys[1].as_mut().unwrap();
        assert!(beats.hear(&received, &news, HERE, now).unwrap().is_news);
        assert_eq!(beats.hear(&received, &news, HERE, now), Err(Rejection::Replay));
        cluster.take_over(true, 1_000);
        assert_eq!(cluster.leader, 1);
        for count in [1, 0] {
            let at = cluster.at(1, 61_000);
            let ingested =
                cluster.fleet.ingest_relayed(&received, (HERE, "hb2"), Load::Free, at).unwrap();
            assert_eq!(ingested.events.len(), count, "{event}");
        }
    }
}

#[test]
fn a_connection_that_only_messages_came_over_expects_no_beat_after_a_takeover() {
    for event in [r#","event":"message","message":"is hot""#, r#","event":"shutdown""#] {
        let mut cluster = Cluster::new();
        cluster.wait(61_000);
        let news = cluster.datagram(0, &format!(r#","connection":"wifi"{event}"#));
        let received = ReceivedDatagram::parse(&news).unwrap();
        let now = cluster.now_of(1);
        cluster.standbys[1].as_mut().unwrap().hear(&received, &news, HERE, now).unwrap();
        cluster.wait(30_000);
        cluster.take_over(true, 1_000);
        cluster.wait(120_000);
        assert_eq!(cluster.titles, Vec::<String>::new(), "{event}");
    }
}

#[test]
fn an_alert_that_is_a_heartbeat_hangs_on_no_node() {
    let mut config = config();
    let expectation = Expectation { interval: 10 * SECOND, grace: 30 * SECOND };
    config.alert_heartbeats.insert("web0".into(), expectation);
    let mut fleet = Fleet::new(config.clone(), BEGIN);
    fleet.ingest_internal(&Datagram::beat("web0", ALERTMANAGER), BEGIN).unwrap();
    let rows = vec![("web0".to_owned(), fleet.row("web0").unwrap())];
    let takeover = |node: &str, previous: &str, now| Takeover {
        now,
        kernel_boot: "kernel".into(),
        clocks: ClusterClocks { own: 0, of: [(kernel_tag("kernel"), 0)].into() },
        told_gone: Vec::new(),
        previous: Some(previous.to_owned()),
        beats: LastBeats::new(&config, node, now),
    };
    let last = LastAlive { kernel_boot: "kernel".into(), now: BEGIN, offset: None };
    let takeover = takeover("hb2", "hb1", BEGIN);
    let mut fleet = Fleet::restore_in_cluster(config.clone(), rows, Some(last), takeover);
    let row = fleet.row("web0").unwrap();
    let own = row.connections.iter().find(|one| one.name == ALERTMANAGER).unwrap();
    assert_eq!(own.receivers, "");
    let late = Now { mono: BEGIN.mono + Duration::from_secs(100), wall: BEGIN.wall };
    let told = fleet.due(late).events;
    assert!(told.iter().any(|event| matches!(event.kind, EventKind::Overdue { .. })), "{told:?}");
}

#[test]
fn what_a_standby_keeps_is_checked_and_bounded() {
    let mut config = config();
    config.settings.unknown_hosts = UnknownHosts::Accept;
    config.settings.max_unknown_hosts = 3;
    let mut beats = LastBeats::new(&config, "hb2", BEGIN);
    let mut hear = |json: &str| {
        let received = ReceivedDatagram::parse(json.as_bytes()).unwrap();
        beats.hear(&received, json.as_bytes(), IpAddr::from([192, 0, 2, 1]), BEGIN)
    };
    assert_eq!(hear(r#"{"host":"web1"}"#), Err(Rejection::Unsigned));
    for stranger in 0..3 {
        assert!(hear(&format!(r#"{{"host":"stranger{stranger}"}}"#)).is_ok());
    }
    assert_eq!(hear(r#"{"host":"stranger3"}"#), Err(Rejection::TooManyHosts));
    assert!(hear(r#"{"host":"web0","boot_id":"a"}"#).is_ok_and(|heard| !heard.is_news));
    assert!(hear(r#"{"host":"web0","boot_id":"b"}"#).is_ok_and(|heard| heard.is_news));
    assert!(hear(r#"{"host":"web0","event":"shutdown"}"#).is_ok_and(|heard| heard.is_news));
    assert_eq!((beats.len(), beats.count_heard()), (4, 4));
    assert!(!beats.is_warm());
}

/// A row of each kernel is translated by its own clock.
#[test]
fn each_row_is_on_the_clock_of_the_node_that_wrote_it() {
    let [a, b, here] = ["a", "b", "here"].map(kernel_tag);
    let row = |kernel: u32, mono: i64| HostRow {
        kernel,
        connections: vec![
            serde_json::from_value(serde_json::json!({
                "name": "ipv4", "state": "UP", "interval": 10_000,
                "seen": {"mono": mono, "wall": 5}
            }))
            .unwrap(),
        ],
        ..HostRow::default()
    };
    // The cluster's clock shows 1,000,000 now.
    let now = Now { mono: Mono(50_000), wall: BEGIN.wall };
    let clocks = ClusterClocks { own: 950_000, of: [(a, 0), (b, 900_000), (here, 1)].into() };
    let rows = [("web0".to_owned(), row(a, 999_000)), ("web2".to_owned(), row(b, 98_000))];
    let mark = Now { mono: Mono(99_500), wall: Wall(0) };
    let last_alive = LastAlive { kernel_boot: "b".into(), now: mark, offset: Some(7) };
    let beats = LastBeats::new(&config(), "hb1", now);
    let takeover = Takeover {
        now,
        kernel_boot: "here".into(),
        clocks,
        told_gone: Vec::new(),
        previous: Some("hb2".into()),
        beats,
    };
    let fleet = Fleet::restore_in_cluster(config(), rows, Some(last_alive), takeover);
    let seen = |name: &str| fleet.row(name).unwrap().connections[0].seen.mono;
    assert_eq!((seen("web0"), seen("web2")), (Mono(49_000), Mono(48_000)));
    assert_eq!(fleet.lost_receivers().collect::<Vec<_>>(), ["hb2"]);
}

#[test]
#[ignore = "a measurement: cargo test --lib -- --ignored --nocapture merge_of"]
fn merge_of_100_000_beats() {
    let mut config = config();
    let names: Vec<String> = (0..100_000).map(|number| format!("host{number:06}")).collect();
    let settings = HostSettings { watch: true, ..HostSettings::default() };
    config.hosts = names.iter().map(|name| (name.clone(), settings.clone())).collect();
    let before = resident();
    let mut beats = LastBeats::new(&config, "hb2", BEGIN);
    let empty = resident();
    let metrics = r#""metrics":{"cpu":{"percent":12.5,"iowait":0.1},"load":{"per_core":0.3},
        "memory":{"percent":41.2},"swap":{"percent":0},"disk":{"root":{"percent":55.5}},"net":{"rx":1,"tx":2}}"#;
    for (number, name) in names.iter().enumerate() {
        let json = format!(r#"{{"host":"{name}","boot_id":"b",{metrics}}}"#);
        let at = BEGIN.later(Duration::from_micros(number as u64 * 100));
        let received = ReceivedDatagram::parse(json.as_bytes()).unwrap();
        beats.hear(&received, json.as_bytes(), HERE, at).unwrap();
    }
    let full = resident();
    let kept = (full - empty) / names.len();
    println!(
        "{} B a kept beat with its datagram of 250 B, {} B a host before",
        kept,
        (empty - before) / names.len()
    );
    let rows: Vec<(String, HostRow)> = names
        .iter()
        .map(|name| {
            let row = serde_json::json!({"kernel": kernel_tag("k"), "connections": [
                {"name": "ipv4", "state": "UP", "seen": BEGIN, "since": BEGIN.wall}]});
            (name.clone(), serde_json::from_value(row).unwrap())
        })
        .collect();
    let now = BEGIN.later(SECOND * 20);
    let takeover = Takeover {
        now,
        kernel_boot: "k".into(),
        clocks: ClusterClocks::default(),
        told_gone: Vec::new(),
        previous: None,
        beats,
    };
    let last_alive = LastAlive { kernel_boot: "k".into(), now: BEGIN, offset: None };
    let begun = std::time::Instant::now();
    let fleet = Fleet::restore_in_cluster(config, rows, Some(last_alive), takeover);
    println!("{:?} to restore and merge {}", begun.elapsed(), fleet.len());
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
