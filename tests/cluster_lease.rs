//! The lease of a cluster against a real Redis: who leads when, and what its scripts answer, compared
//! with a model of them that is tried in every order of steps.

mod support {
    pub mod sentinel;
}

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use heartbeat::cluster::connection::Connector;
use heartbeat::cluster::keys::Keys;
use heartbeat::cluster::lease::{Lease, LeaseEvent, LeaseOptions, new_incarnation};
use heartbeat::cluster::lease_scripts::{self, LeaseAnswer, LeaseRequest};
use heartbeat::cluster::members::MemberRole;
use heartbeat::cluster::settings::{ClusterSettings, NodeRole};
use heartbeat::cluster::token::Token;
use support::sentinel::{RedisServer, wait_until};

/// Epoch, node, incarnation.
type ModelToken = (i8, u8, u8);

/// What is left out of the scripts to see that the model finds it.
#[derive(Clone, Copy, Default)]
struct Omitted {
    /// Only epochs are compared.
    whole_token: bool,
    /// RENEW leaves the number of the last commit as it is.
    removed_number: bool,
    /// ACQUIRE does not count as a commit.
    counted_acquire: bool,
}

#[derive(Clone, Default, Debug, PartialEq, Eq, Hash)]
struct RedisModel {
    fence: Option<ModelToken>,
    lease: Option<ModelToken>,
    seq: i8,
    /// Who made each commit.
    data: Vec<ModelToken>,
    /// The tokens that another one followed, in this history.
    superseded: BTreeSet<ModelToken>,
}

#[derive(Debug, PartialEq, Eq)]
enum CommitAnswer {
    Stored,
    WentBack,
    Unconfirmed,
    Fenced,
}

impl RedisModel {
    fn lead(&mut self, token: ModelToken) {
        if let Some(before) = self.fence.replace(token).filter(|before| *before != token) {
            self.superseded.insert(before);
        }
        self.superseded.remove(&token);
        self.lease = Some(token);
    }

    fn acquire(
        &mut self,
        node: u8,
        incarnation: u8,
        highest: i8,
        omitted: Omitted,
    ) -> Option<ModelToken> {
        // The lock on its directory says that every other process of the node is dead.
        if self.lease.is_some_and(|(_, holder, _)| holder != node) {
            return None;
        }
        let epoch = self.fence.map_or(0, |(epoch, ..)| epoch).max(highest) + 1;
        self.lead((epoch, node, incarnation));
        self.seq += i8::from(!omitted.counted_acquire);
        Some((epoch, node, incarnation))
    }

    fn is_fence(&self, token: ModelToken, omitted: Omitted) -> bool {
        match omitted.whole_token {
            true => self.fence.is_some_and(|(epoch, ..)| epoch == token.0),
            false => self.fence == Some(token),
        }
    }

    /// None: fenced; else whether the fence was put right.
    fn renew(&mut self, token: ModelToken, omitted: Omitted) -> Option<bool> {
        if self.is_fence(token, omitted) {
            self.lease = Some(token);
            return Some(false);
        }
        let held = self.lease.is_some_and(|lease| lease != token && lease.1 != token.1);
        if held || self.fence.map_or(0, |(epoch, ..)| epoch) >= token.0 {
            return None;
        }
        self.lead(token);
        if !omitted.removed_number {
            self.seq = 0;
        }
        Some(true)
    }

    fn commit(&mut self, token: ModelToken, known: i8, omitted: Omitted) -> CommitAnswer {
        if !self.is_fence(token, omitted) {
            let older = self.fence.map_or(0, |(epoch, ..)| epoch) < token.0;
            return if older { CommitAnswer::Unconfirmed } else { CommitAnswer::Fenced };
        }
        if self.seq < known {
            return CommitAnswer::WentBack;
        }
        self.data.push(token);
        self.seq += 1;
        CommitAnswer::Stored
    }
}

#[derive(Clone, Default, Debug, PartialEq, Eq, Hash)]
struct NodeModel {
    incarnation: u8,
    highest: i8,
    token: Option<ModelToken>,
    /// The number of its last commit.
    known: i8,
    /// What it takes for the commits that are there.
    belief: Vec<ModelToken>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq, Hash)]
struct World {
    redis: RedisModel,
    /// What it was before its last changes, the latest last: a failover may bring one back.
    past: Vec<RedisModel>,
    nodes: [NodeModel; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Acquire(usize),
    Renew(usize),
    Commit(usize),
    /// The process dies, and another one of the node starts.
    Die(usize),
    Expire,
    /// A failover that loses so many changes.
    Lose(usize),
}

const MOST_LOST: usize = 3;

impl World {
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            match node.token {
                None => steps.push(Step::Acquire(index)),
                Some(_) => {
                    steps.extend([Step::Renew(index), Step::Commit(index), Step::Die(index)]);
                }
            }
        }
        steps.extend(self.redis.lease.map(|_| Step::Expire));
        steps.extend((1..=self.past.len()).map(Step::Lose));
        steps
    }

    /// Takes a step, or says what must not be.
    fn take(&mut self, step: Step, omitted: Omitted) -> Result<(), String> {
        let before = self.redis.clone();
        match step {
            Step::Acquire(index) => {
                let node = &mut self.nodes[index];
                node.highest = node.highest.max(before.fence.map_or(0, |(epoch, ..)| epoch));
                node.token =
                    self.redis.acquire(index as u8, node.incarnation, node.highest, omitted);
                (node.known, node.belief) = (self.redis.seq, self.redis.data.clone());
            }
            Step::Renew(index) => {
                let Some(token) = self.nodes[index].token else { return Ok(()) };
                if self.redis.renew(token, omitted).is_none() {
                    self.start_anew(index);
                }
            }
            Step::Commit(index) => self.commit(index, omitted)?,
            Step::Die(index) => self.start_anew(index),
            Step::Expire => self.redis.lease = None,
            Step::Lose(count) => {
                let kept = self.past.len() - count;
                self.redis = self.past[kept].clone();
                self.past.truncate(kept);
                return Ok(());
            }
        }
        if before != self.redis {
            self.past.push(before);
            if self.past.len() > MOST_LOST {
                self.past.remove(0);
            }
        }
        Ok(())
    }

    fn commit(&mut self, index: usize, omitted: Omitted) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(token) = node.token else { return Ok(()) };
        match self.redis.commit(token, node.known, omitted) {
            CommitAnswer::Stored => node.belief.push(token),
            // It writes everything anew, in one commit.
            CommitAnswer::WentBack => {
                self.redis.data = node.belief.clone();
                self.redis.seq += 1;
            }
            CommitAnswer::Unconfirmed => return Ok(()),
            CommitAnswer::Fenced => {
                self.start_anew(index);
                return Ok(());
            }
        }
        node.known = self.redis.seq;
        if self.redis.superseded.contains(&token) {
            return Err(format!("{token:?} committed, and another one leads"));
        }
        if self.redis.data != node.belief {
            return Err(format!(
                "{token:?} believes {:?}, and {:?} is there",
                node.belief, self.redis.data
            ));
        }
        Ok(())
    }

    fn start_anew(&mut self, index: usize) {
        let NodeModel { incarnation, highest, token, .. } = self.nodes[index];
        let highest = highest.max(token.map_or(0, |(epoch, ..)| epoch));
        self.nodes[index] =
            NodeModel { incarnation: incarnation + 1, highest, ..NodeModel::default() };
    }
}

/// Every order of so many steps; how many different worlds were seen, or what must not be.
fn explore(depth: u8, omitted: Omitted) -> Result<usize, String> {
    let mut seen = HashMap::new();
    go_on(&World::default(), depth, omitted, &mut seen, &mut Vec::new())?;
    Ok(seen.len())
}

fn go_on(
    world: &World,
    depth: u8,
    omitted: Omitted,
    seen: &mut HashMap<u64, u8>,
    steps: &mut Vec<Step>,
) -> Result<(), String> {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    let left = seen.entry(hasher.finish()).or_insert(0);
    if depth == 0 || *left >= depth {
        return Ok(());
    }
    *left = depth;
    for step in world.steps() {
        let mut next = world.clone();
        steps.push(step);
        next.take(step, omitted).map_err(|what| format!("{what} after {steps:?}"))?;
        go_on(&next, depth - 1, omitted, seen, steps)?;
        steps.pop();
    }
    Ok(())
}

/// T19.
#[test]
fn in_no_order_of_steps_does_a_leader_commit_that_another_one_followed() {
    let worlds = explore(8, Omitted::default()).unwrap();
    assert!(worlds > 10_000, "only {worlds} worlds");
}

#[test]
fn the_model_finds_what_the_scripts_are_there_for() {
    let number = explore(8, Omitted { whole_token: true, ..Omitted::default() }).unwrap_err();
    assert!(number.contains("another one leads") || number.contains("believes"), "{number}");
    let removed = explore(8, Omitted { removed_number: true, ..Omitted::default() }).unwrap_err();
    assert!(removed.contains("believes"), "{removed}");
    let counted = explore(8, Omitted { counted_acquire: true, ..Omitted::default() }).unwrap_err();
    assert!(counted.contains("believes"), "{counted}");
}

const NODES: [&str; 3] = ["hb0", "hb1", "hb2"];

fn text(token: ModelToken) -> String {
    format!("{}:{}:i{}", token.0, NODES[token.1 as usize], token.2)
}

/// A small generator: the same steps in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn the_scripts_answer_as_their_model_does() {
    let server = RedisServer::start_plain(&["--save", "", "--appendonly", "no"]);
    let connector = Connector::new(&ClusterSettings::for_tests(&server.url(), "hb0")).unwrap();
    let mut redis = connector.connect().unwrap();
    let keys = Keys::new("hbd");
    let mut dice = Dice(7);
    for _ in 0..300 {
        redis.ask::<redis::Value>(&redis::cmd("FLUSHALL")).unwrap();
        let mut world = World::default();
        for _ in 0..25 {
            let steps = world.steps();
            let step = steps[dice.below(steps.len())];
            let before = world.clone();
            world.take(step, Omitted::default()).unwrap();
            match step {
                Step::Acquire(index) => {
                    let node = &world.nodes[index];
                    let answer = acquire(&mut redis, &keys, index, node);
                    match (answer, node.token) {
                        (LeaseAnswer::Acquired(token), Some(expected)) => {
                            assert_eq!(token.to_string(), text(expected));
                        }
                        (LeaseAnswer::Held(holder, left), None) => {
                            assert_eq!(Some(holder), before.redis.lease.map(text));
                            assert!(left > Duration::from_secs(20), "{left:?}");
                        }
                        (answer, expected) => panic!("{answer:?}, not {expected:?}"),
                    }
                }
                Step::Renew(index) => {
                    let token = before.nodes[index].token.unwrap();
                    let expected = before.redis.clone().renew(token, Omitted::default());
                    let token: Token = text(token).parse().unwrap();
                    let ttl = Duration::from_secs(30);
                    let answer = lease_scripts::renew(&mut redis, &keys, &token, ttl, true);
                    match (answer, expected) {
                        (Ok(restored), Some(expected)) => assert_eq!(restored, expected),
                        (Err(fault), None) => assert_eq!(fault.code(), "FENCED"),
                        (answer, expected) => panic!("{answer:?}, not {expected:?}"),
                    }
                }
                Step::Commit(_) => set(&mut redis, &keys.seq(), Some(world.redis.seq.to_string())),
                Step::Die(_) => {}
                Step::Expire => set(&mut redis, &keys.lease(), None),
                Step::Lose(_) => {
                    set(&mut redis, &keys.fence(), world.redis.fence.map(text));
                    set(&mut redis, &keys.seq(), Some(world.redis.seq.to_string()));
                    let lease = world.redis.lease.map(text);
                    set(&mut redis, &keys.lease(), lease.clone());
                    if lease.is_some() {
                        let command = redis::cmd("EXPIRE").arg(keys.lease()).arg(30).to_owned();
                        redis.ask::<redis::Value>(&command).unwrap();
                    }
                }
            }
            assert_eq!(get(&mut redis, &keys.fence()), world.redis.fence.map(text), "{step:?}");
            assert_eq!(get(&mut redis, &keys.lease()), world.redis.lease.map(text), "{step:?}");
            let seq = get(&mut redis, &keys.seq()).map_or(0, |seq| seq.parse().unwrap());
            assert_eq!(seq, world.redis.seq, "{step:?}");
        }
    }
}

type Redis = heartbeat::cluster::connection::MasterConnection;

fn acquire(redis: &mut Redis, keys: &Keys, index: usize, node: &NodeModel) -> LeaseAnswer {
    let request = LeaseRequest {
        node: NODES[index],
        incarnation: &format!("i{}", node.incarnation),
        ttl: Duration::from_secs(30),
        predecessor_dead: true,
        highest_epoch: node.highest as u64,
        known_id: None,
        new_id: "id",
    };
    lease_scripts::acquire(redis, keys, &request).unwrap()
}

fn get(redis: &mut Redis, key: &str) -> Option<String> {
    redis.ask(redis::cmd("GET").arg(key)).unwrap()
}

fn set(redis: &mut Redis, key: &str, value: Option<String>) {
    let command = match value {
        Some(value) => redis::cmd("SET").arg(key).arg(value).to_owned(),
        None => redis::cmd("DEL").arg(key).to_owned(),
    };
    redis.ask::<redis::Value>(&command).unwrap();
}

/// A node with its lease.
struct Node {
    lease: Lease,
    events: Receiver<LeaseEvent>,
}

fn options(server: &RedisServer, node: &str) -> LeaseOptions {
    LeaseOptions {
        settings: ClusterSettings {
            lease: Duration::from_secs(1),
            ..ClusterSettings::for_tests(&server.url(), node)
        },
        incarnation: new_incarnation().unwrap(),
        predecessor_dead: true,
        highest_epoch: 0,
        known_id: None,
        lost_at: Vec::new(),
        kernel: 17,
        configuration: 1,
        version: "0.0.0",
    }
}

impl Node {
    fn start(options: LeaseOptions) -> Node {
        let connector = Connector::new(&options.settings).unwrap();
        let (lease, events) = Lease::start(connector, options).unwrap();
        lease.set_warm(true);
        Node { lease, events }
    }

    fn event(&self) -> LeaseEvent {
        self.events.recv_timeout(Duration::from_secs(30)).expect("an event within 30 s")
    }

    /// Waits until it leads.
    fn leads(&self) -> Token {
        match self.event() {
            LeaseEvent::Leads { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }

    fn stands_by(&self) {
        assert_eq!(self.lease.token(), None);
        assert!(!self.lease.permit(Duration::ZERO));
        assert!(self.events.is_empty());
    }
}

const MARGIN: Duration = Duration::from_millis(100);

#[test]
fn one_node_leads_and_another_one_at_once_when_it_gives_the_lease_back() {
    let server = RedisServer::start(&[]);
    let one = Node::start(options(&server, "hb1"));
    let first = one.leads();
    assert_eq!((first.epoch, first.node.as_str()), (1, "hb1"));
    assert!(one.lease.permit(MARGIN));
    let other = Node::start(LeaseOptions { configuration: 2, ..options(&server, "hb2") });
    wait_until("the standby sees who leads", || other.lease.leader().is_some());
    wait_until("both are known", || other.lease.members().len() == 2);
    let roles: Vec<_> = other.lease.members().iter().map(|member| member.role).collect();
    assert_eq!(roles, [MemberRole::Leader, MemberRole::Standby]);
    other.stands_by();
    let begin = Instant::now();
    one.lease.release();
    assert!(!one.lease.permit(Duration::ZERO));
    let event = other.event();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let LeaseEvent::Leads { token, previous, silent_for } = event else { panic!("{event:?}") };
    assert_eq!((token.epoch, token.node.as_str(), previous), (2, "hb2", Some(first)));
    assert!(silent_for.unwrap() < Duration::from_secs(10), "{silent_for:?}");
    assert!(other.lease.permit(MARGIN) && other.lease.epoch() == 2);
    assert_eq!(other.lease.id(), one.lease.id());
    let offset = other.lease.offset().unwrap();
    let known = other.lease.clocks()[&17];
    assert!((known - offset).abs() < 1000, "{known} and {offset}");
}

#[test]
fn a_dead_leader_is_followed_when_its_lease_ran_out_and_a_dead_predecessor_at_once() {
    let server = RedisServer::start(&[]);
    let connector = Connector::new(&ClusterSettings::for_tests(&server.url(), "hb9")).unwrap();
    let mut redis = connector.connect().unwrap();
    let keys = Keys::new("hbd");
    let request = LeaseRequest {
        node: "hb9",
        incarnation: "dead",
        ttl: Duration::from_secs(4),
        predecessor_dead: false,
        highest_epoch: 6,
        known_id: None,
        new_id: "id",
    };
    let begin = Instant::now();
    assert!(matches!(
        lease_scripts::acquire(&mut redis, &keys, &request).unwrap(),
        LeaseAnswer::Acquired(_)
    ));
    let other = Node::start(options(&server, "hb2"));
    assert_eq!(other.leads().epoch, 8);
    assert!(begin.elapsed() >= Duration::from_millis(3900), "{:?}", begin.elapsed());
    other.lease.release();
    let held = LeaseRequest { ttl: Duration::from_secs(600), ..request };
    lease_scripts::acquire(&mut redis, &keys, &held).unwrap();
    let unsure = Node::start(LeaseOptions { predecessor_dead: false, ..options(&server, "hb9") });
    wait_until("it sees the lease", || unsure.lease.leader().is_some());
    unsure.stands_by();
    unsure.lease.release();
    assert_eq!(Node::start(options(&server, "hb9")).leads().epoch, 10);
}

#[test]
fn a_receiver_never_leads() {
    let server = RedisServer::start(&[]);
    let mut receiver = options(&server, "hb1");
    receiver.settings.role = NodeRole::Receiver;
    let receiver = Node::start(receiver);
    wait_until("it is known", || !receiver.lease.members().is_empty());
    receiver.stands_by();
    let leader = Node::start(options(&server, "hb2"));
    leader.leads();
    wait_until("both are known", || leader.lease.members().len() == 2);
    assert_eq!(leader.lease.members()[0].role, MemberRole::Receiver);
}

#[test]
fn who_is_followed_by_another_one_is_told_so_and_has_no_permit() {
    let server = RedisServer::start(&[]);
    let node = Node::start(options(&server, "hb1"));
    node.leads();
    // What a lease that ran out and a takeover leave.
    server.run::<()>(&["SET", "{hb:hbd}:lease", "2:hb2:x", "PX", "60000"]);
    server.run::<()>(&["SET", "{hb:hbd}:fence", "2:hb2:x"]);
    let by = Some("2:hb2:x".parse().unwrap());
    assert_eq!(node.event(), LeaseEvent::Deposed { by });
    assert!(!node.lease.permit(Duration::ZERO));
    assert_eq!(node.lease.token(), None);
}

#[test]
fn a_redis_that_dies_and_comes_back_changes_no_leader() {
    let mut server = RedisServer::start(&[]);
    let node = Node::start(options(&server, "hb1"));
    let token = node.leads();
    server.kill();
    assert!(matches!(node.event(), LeaseEvent::RedisLost(_)));
    wait_until("the lease ran out", || !node.lease.permit(MARGIN));
    assert_eq!(node.lease.token(), Some(token.clone()), "nobody followed it");
    server.restart();
    assert_eq!(node.event(), LeaseEvent::RedisBack { restarted: true });
    wait_until("it may notify again", || node.lease.permit(MARGIN));
    assert_eq!(node.lease.token(), Some(token));
}

#[test]
fn a_redis_that_forgot_the_token_is_put_right_and_that_is_counted() {
    let server = RedisServer::start(&[]);
    let node = Node::start(options(&server, "hb1"));
    let token = node.leads();
    server.run::<()>(&["FLUSHALL"]);
    wait_until("it is noticed", || node.lease.rollbacks() == 1);
    assert_eq!(server.run::<String>(&["GET", "{hb:hbd}:fence"]), token.to_string());
}

#[test]
fn a_redis_that_is_full_still_lets_the_leader_say_so() {
    let server = RedisServer::start(&[]);
    let node = Node::start(options(&server, "hb1"));
    let token = node.leads();
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = server.try_run::<()>(&["SET", "x", "y"]).unwrap_err();
    assert_eq!(full.code(), Some("OOM"));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        assert!(node.lease.permit(Duration::ZERO), "after {:?}", begin.elapsed());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(node.lease.token(), Some(token));
}

#[test]
fn another_cluster_of_the_same_name_and_a_newer_version_are_refused() {
    let server = RedisServer::start(&[]);
    server.run::<()>(&["SET", "{hb:hbd}:id", "production"]);
    let known_id = Some("staging".to_owned());
    let staging = Node::start(LeaseOptions { known_id, ..options(&server, "hb1") });
    let LeaseEvent::CannotLead(why) = staging.event() else { panic!("it leads") };
    assert!(why.contains("another cluster of this name") && why.contains("production"), "{why}");
    staging.lease.release();
    server.run::<()>(&["SET", "{hb:hbd}:format", "999"]);
    let old = Node::start(options(&server, "hb1"));
    let LeaseEvent::CannotLead(why) = old.event() else { panic!("it leads") };
    assert!(why.contains("upgrade"), "{why}");
}

#[test]
fn a_lease_that_too_few_replicas_have_is_given_back() {
    let server = RedisServer::start(&[]);
    let mut alone = options(&server, "hb1");
    alone.settings.replicas = heartbeat::cluster::settings::ReplicaCount::Number(1);
    let node = Node::start(alone);
    let LeaseEvent::CannotLead(why) = node.event() else { panic!("it leads") };
    assert!(why.contains("less than 1 replica confirmed"), "{why}");
    assert!(!node.lease.permit(Duration::ZERO));
    let replica = RedisServer::start_replica(&server, &[]);
    node.leads();
    assert!(node.lease.permit(MARGIN));
    drop(replica);
    assert!(matches!(node.event(), LeaseEvent::CannotLead(_)));
    wait_until("nothing may be sent", || !node.lease.permit(Duration::ZERO));
}
