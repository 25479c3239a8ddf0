//! The thread `lease`: the steps of [`LeaseState`] over a connection, and once a second what this node
//! tells of itself.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use log::{error, info, warn};
use redis::{Pipeline, Value};

use super::connection::{Connector, MasterConnection, RedisFault};
use super::keys::Keys;
use super::lease_scripts::{self, LeaseAnswer, LeaseRequest};
use super::lease_shared::{LeaseEvent, LeaseOptions, LeaseShared, LeaseView};
use super::lease_state::{LeaseIdentity, LeaseState, LeaseStep};
use super::members::{self, Member, MemberRole};
use super::requirements;
use super::settings::NodeRole;
use super::token::Token;
use crate::btree::InsertAll;
use crate::clock::{Mono, Now};
use crate::thread::{Stop, lock};

/// How often a node tells of itself.
const MEMBER_INTERVAL: Duration = Duration::from_secs(1);

/// Of how many measurements of Redis' clock the middle one counts.
const OFFSETS: usize = 15;

/// Of how many boots of kernels the clocks are kept; the oldest go first.
const MAX_CLOCKS: usize = 256;

/// Everything of the thread.
pub(super) struct LeaseThread {
    connector: Connector,
    options: LeaseOptions,
    keys: Keys,
    state: LeaseState,
    redis: Option<MasterConnection>,
    shared: Arc<LeaseShared>,
    events: Sender<LeaseEvent>,
    stop: Stop,
    /// When this node tells of itself next.
    tells_at: Mono,
    /// Since when it does, on Redis' clock.
    since: Option<i64>,
    /// The last measurements of Redis' clock, and which one is replaced next.
    offsets: Vec<i64>,
    oldest_offset: usize,
    /// The token of the leader before, and when the lease was seen to be free.
    fence: Option<Token>,
    is_down: bool,
    /// Why this node cannot lead, as it was told.
    blocked_by: Option<String>,
    /// What was said already of how Redis keeps its data.
    warned: Vec<String>,
}

impl LeaseThread {
    pub fn new(
        connector: Connector,
        options: LeaseOptions,
        shared: Arc<LeaseShared>,
        events: Sender<LeaseEvent>,
        stop: Stop,
    ) -> LeaseThread {
        let now = Now::read().mono;
        let identity = LeaseIdentity {
            node: options.settings.node.clone(),
            incarnation: options.incarnation.clone(),
            ttl: options.settings.lease,
            may_lead: options.settings.role == NodeRole::Auto,
            predecessor_dead: options.predecessor_dead,
            lost_at: options.lost_at.clone(),
        };
        LeaseThread {
            connector,
            keys: Keys::new(&options.settings.name),
            state: LeaseState::new(identity, now),
            options,
            redis: None,
            shared,
            events,
            stop,
            tells_at: now,
            since: None,
            offsets: Vec::new(),
            oldest_offset: 0,
            fence: None,
            is_down: false,
            blocked_by: None,
            warned: Vec::new(),
        }
    }

    /// Until it is stopped, or another node leads.
    pub fn run(mut self) {
        while !self.stop.stopped() {
            let now = Now::read().mono;
            let step = self.state.step(now);
            if let LeaseStep::WaitUntil(next) = step
                && (now < self.tells_at || self.is_down)
            {
                let next = if self.is_down { next } else { next.min(self.tells_at) };
                self.stop.wait(next.since(now).max(Duration::from_millis(1)));
                continue;
            }
            match self.turn(step, now) {
                Ok(()) => self.answered(),
                Err(fault) if fault.code() == "FENCED" => return self.deposed(&fault),
                Err(fault) => self.failed(&fault),
            }
        }
        self.give_back();
    }

    fn view<T>(&self, of: impl FnOnce(&mut LeaseView) -> T) -> T {
        of(&mut lock(&self.shared.view))
    }

    fn tell(&self, event: LeaseEvent) {
        // Refused only when nothing listens any more.
        let _ = self.events.send(event);
    }

    fn answered(&mut self) {
        let run_id = self.redis.as_ref().map(|redis| redis.run_id().to_owned());
        let (before, was_up) = self.view(|view| {
            let before = std::mem::replace(&mut view.run_id, run_id.clone());
            (before, std::mem::replace(&mut view.redis_is_up, true))
        });
        if self.is_down && !was_up {
            self.is_down = false;
            let restarted = before.is_some() && before != run_id;
            self.tell(LeaseEvent::RedisBack { restarted });
        }
    }

    fn failed(&mut self, fault: &RedisFault) {
        self.redis = None;
        self.state.failed(Now::read().mono);
        self.view(|view| view.redis_is_up = false);
        if !std::mem::replace(&mut self.is_down, true) {
            self.tell(LeaseEvent::RedisLost(fault.to_string()));
        }
    }

    fn deposed(&mut self, fault: &RedisFault) {
        self.state.deposed();
        self.shared.set_valid_until(None);
        let by: Option<Token> =
            fault.to_string().rsplit(' ').next().and_then(|token| token.parse().ok());
        self.view(|view| (view.token, view.leader) = (None, by.clone()));
        self.tell(LeaseEvent::Deposed { by });
    }

    fn turn(&mut self, step: LeaseStep, now: Mono) -> Result<(), RedisFault> {
        let mut redis = match self.redis.take().filter(|redis| !redis.is_broken()) {
            Some(redis) => redis,
            None => self.connect()?,
        };
        let (is_warm, configuration) = self.view(|view| (view.is_warm, view.configuration));
        self.state.set_warm(is_warm);
        self.state.set_differs(self.leader_has_another(configuration));
        match step {
            LeaseStep::WaitUntil(_) => {}
            LeaseStep::Probe => self.probe(&mut redis)?,
            LeaseStep::Acquire => self.acquire(&mut redis)?,
            LeaseStep::Renew => self.renew(&mut redis)?,
        }
        if now >= self.tells_at {
            self.tell_of_itself(&mut redis)?;
        }
        self.redis = Some(redis);
        Ok(())
    }

    fn connect(&mut self) -> Result<MasterConnection, RedisFault> {
        let mut redis = self.connector.connect()?;
        let faults = requirements::examine(&mut redis, &self.connector, &self.options.settings)?;
        if let Some(fault) = faults.iter().find(|fault| fault.refused) {
            return Err(redis.unusable(&fault.what));
        }
        for fault in faults {
            if !self.warned.contains(&fault.what) {
                warn!("{}: {}", redis.server(), fault.what);
                self.warned.push(fault.what);
            }
        }
        self.measure_clock(&mut redis)?;
        self.read_clocks(&mut redis)?;
        Ok(redis)
    }

    /// Whether the last leader has another configuration than this node.
    fn leader_has_another(&self, configuration: u32) -> bool {
        let Some(leader) = &self.fence else { return false };
        let is_leader = |member: &&Member| member.name == leader.node;
        self.view(|view| {
            view.members
                .iter()
                .find(is_leader)
                .is_some_and(|one| one.configuration != configuration)
        })
    }

    fn probe(&mut self, redis: &mut MasterConnection) -> Result<(), RedisFault> {
        let (lease, fence) = (self.keys.lease(), self.keys.fence());
        let mut commands = Pipeline::new();
        commands.cmd("GET").arg(&lease).cmd("PTTL").arg(&lease).cmd("GET").arg(&fence);
        let mut answers = redis.ask_all(&mut commands)?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        let (lease, left, fence) = (next()?, next()?, next()?);
        let lease = parse_token(redis, lease)?;
        let fence = parse_token(redis, fence)?;
        let left: i64 = redis::from_redis_value(left).unwrap_or(0);
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        self.state.probed(Now::read().mono, lease.as_ref().map(|token| (token, left)));
        let epoch = fence.as_ref().map_or(0, |token| token.epoch);
        self.view(|view| {
            view.leader = lease;
            view.highest_epoch = view.highest_epoch.max(epoch);
        });
        self.fence = fence;
        Ok(())
    }

    fn acquire(&mut self, redis: &mut MasterConnection) -> Result<(), RedisFault> {
        let sent = Now::read().mono;
        let (highest_epoch, known_id) = self.view(|view| (view.highest_epoch, view.id.clone()));
        let settings = &self.options.settings;
        let request = LeaseRequest {
            node: &settings.node,
            incarnation: &self.options.incarnation,
            ttl: settings.lease,
            predecessor_dead: self.options.predecessor_dead,
            highest_epoch,
            known_id: known_id.as_deref(),
            new_id: &self.options.incarnation,
        };
        let token = match lease_scripts::acquire(redis, &self.keys, &request)? {
            LeaseAnswer::Acquired(token) => token,
            LeaseAnswer::Held(..) => {
                self.state.not_acquired(Now::read().mono);
                return Ok(());
            }
            LeaseAnswer::NewerFormat(format) => {
                let why = format!(
                    "a newer hbd has led here (format {format}): this one cannot, upgrade it"
                );
                self.cannot_lead(redis, &why);
                return Ok(());
            }
            LeaseAnswer::OtherCluster(id) => {
                let why = format!(
                    "another cluster of this name is there (id {id}): give this one another \
                     cluster.name, or remove the key {} if it is this one",
                    self.keys.id()
                );
                self.cannot_lead(redis, &why);
                return Ok(());
            }
        };
        let needed = self.connector.required_replicas();
        if !redis.wait_for_replicas(needed, settings.lease / 2)? {
            lease_scripts::release(redis, &self.keys, &token)?;
            self.cannot_lead(redis, &too_few(needed));
            return Ok(());
        }
        self.leads(redis, token, sent)
    }

    /// Tells why, once; what is asked for is asked for again after a while.
    fn cannot_lead(&mut self, redis: &MasterConnection, why: &str) {
        if self.state.token().is_none() {
            self.state.not_acquired(Now::read().mono);
        }
        if self.blocked_by.as_deref() != Some(why) {
            self.blocked_by = Some(why.to_owned());
            self.tell(LeaseEvent::CannotLead(format!("{}: {why}", redis.server())));
        }
    }

    fn leads(
        &mut self,
        redis: &mut MasterConnection,
        token: Token,
        sent: Mono,
    ) -> Result<(), RedisFault> {
        self.read_clocks(redis)?;
        let id: Option<String> = redis.ask(redis::cmd("GET").arg(self.keys.id()))?;
        self.state.acquired(sent, token.clone());
        let previous = self.fence.replace(token.clone());
        let silent_for = previous.as_ref().and_then(|token| self.silence_of(&token.node));
        self.view(|view| {
            view.id = id;
            view.highest_epoch = token.epoch;
            (view.token, view.leader) = (Some(token.clone()), Some(token.clone()));
        });
        self.shared.set_valid_until(self.state.valid_until());
        self.blocked_by = None;
        self.tells_at = sent;
        self.tell(LeaseEvent::Leads { token, previous, silent_for });
        Ok(())
    }

    /// How long ago the last sign of a node was.
    fn silence_of(&self, node: &str) -> Option<Duration> {
        self.view(|view| {
            let member = view.members.iter().find(|member| member.name == node)?;
            let now = Now::read().mono.0 + view.offset?;
            Some(Duration::from_millis(u64::try_from(now - member.last_sign).unwrap_or(0)))
        })
    }

    fn renew(&mut self, redis: &mut MasterConnection) -> Result<(), RedisFault> {
        let Some(token) = self.state.token().cloned() else { return Ok(()) };
        let ttl = self.options.settings.lease;
        let sent = Now::read().mono;
        match lease_scripts::renew(redis, &self.keys, &token, ttl, self.options.predecessor_dead) {
            Ok(false) => {}
            Ok(true) => {
                warn!("Redis came back without the token of this leader: it was put right");
                self.view(|view| view.rollbacks += 1);
            }
            // It takes no writes: nobody can lead now, and people must be told why nothing is stored.
            Err(fault) if fault.is_one_of(&["OOM", "MISCONF"]) => {
                return self.renew_without_write(redis, &token, sent, fault);
            }
            Err(fault) => return Err(fault),
        }
        let needed = self.connector.required_replicas();
        let confirmed = redis.wait_for_replicas(needed, ttl / 4)?;
        self.state.renewed(sent, confirmed);
        self.shared.set_valid_until(self.state.valid_until());
        match confirmed {
            true => self.blocked_by = None,
            false => self.cannot_lead(redis, &too_few(needed)),
        }
        self.measure_clock(redis)
    }

    fn renew_without_write(
        &mut self,
        redis: &mut MasterConnection,
        token: &Token,
        sent: Mono,
        fault: RedisFault,
    ) -> Result<(), RedisFault> {
        let fence = redis.ask(redis::cmd("GET").arg(self.keys.fence()))?;
        if parse_token(redis, fence)?.as_ref() != Some(token) {
            return Err(fault);
        }
        // A node that finds the lease free when Redis takes writes again leads soon after that.
        self.state.renewed_for(sent, self.options.settings.lease / 2);
        self.shared.set_valid_until(self.state.valid_until());
        Ok(())
    }

    /// Half of the round trip is the way there.
    fn measure_clock(&mut self, redis: &mut MasterConnection) -> Result<(), RedisFault> {
        let sent = Now::read().mono;
        let (seconds, micros): (i64, i64) = redis.ask(&redis::cmd("TIME"))?;
        let received = Now::read().mono;
        let offset = seconds * 1000 + micros / 1000 - (sent.0 + received.0) / 2;
        if self.offsets.len() < OFFSETS {
            self.offsets.push(offset);
        } else {
            self.offsets[self.oldest_offset] = offset;
            self.oldest_offset = (self.oldest_offset + 1) % OFFSETS;
        }
        let mut sorted = self.offsets.clone();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        self.view(|view| view.offset = Some(median));
        Ok(())
    }

    /// Reads the clocks of all boots; the oldest are removed when there are too many.
    fn read_clocks(&mut self, redis: &mut MasterConnection) -> Result<(), RedisFault> {
        let flat: Vec<String> = redis.ask(redis::cmd("HGETALL").arg(self.keys.clocks()))?;
        let clock = |pair: &[String]| Some((pair[0].parse().ok()?, pair[1].parse().ok()?));
        let mut clocks: Vec<(u32, i64)> = flat.chunks_exact(2).filter_map(clock).collect();
        // A monotonic clock begins with the boot: the less Redis' clock is ahead, the older it is.
        clocks.sort_unstable_by_key(|(_, offset)| std::cmp::Reverse(*offset));
        for (tag, _) in clocks.split_off(clocks.len().min(MAX_CLOCKS)) {
            redis.ask::<Value>(redis::cmd("HDEL").arg(self.keys.clocks()).arg(tag))?;
        }
        self.view(|view| view.clocks = clocks.into_iter().insert_all());
        Ok(())
    }

    /// Writes what this node tells of itself, and reads what the others do.
    fn tell_of_itself(&mut self, redis: &mut MasterConnection) -> Result<(), RedisFault> {
        self.tells_at = Now::read().mono + MEMBER_INTERVAL;
        if self.state.token().is_none() {
            self.measure_clock(redis)?;
        }
        let members = members::read(redis, &self.keys)?;
        self.notice_namesake(&members);
        let settings = &self.options.settings;
        let (offset, mut own) = self.view(|view| {
            view.members = members;
            let own = Member {
                name: settings.node.clone(),
                incarnation: self.options.incarnation.clone(),
                advertise: settings.advertise.clone(),
                version: self.options.version.to_owned(),
                configuration: view.configuration,
                role: MemberRole::of(settings.role, view.token.is_some()),
                since: 0,
                last_sign: 0,
                hears: view.hears,
            };
            (view.offset.unwrap_or(0), own)
        });
        own.last_sign = Now::read().mono.0 + offset;
        own.since = *self.since.get_or_insert(own.last_sign);
        let mut commands = Pipeline::new();
        commands.cmd("HSET").arg(self.keys.nodes()).arg(&own.name).arg(own.to_json());
        commands.cmd("HSET").arg(self.keys.clocks()).arg(self.options.kernel).arg(offset);
        // One that is full refuses this: then the leader has more to say of it.
        redis.ask_all(&mut commands).map(drop)
    }

    /// Two machines with one name would take the lease from each other.
    fn notice_namesake(&mut self, members: &[Member]) {
        let own = |member: &&Member| member.name == self.options.settings.node;
        let Some(other) = members.iter().find(own).filter(|_| self.since.is_some()) else { return };
        if other.incarnation != self.options.incarnation && self.options.predecessor_dead {
            let node = &self.options.settings.node;
            error!(
                "another hbd runs as the node {node} of this cluster: give each its own cluster.node"
            );
            self.options.predecessor_dead = false;
            self.state.name_is_shared();
        }
    }

    fn give_back(&mut self) {
        self.shared.set_valid_until(None);
        let Some(token) = self.state.token().cloned() else { return };
        let redis = self.redis.take().filter(|redis| !redis.is_broken());
        let released = redis
            .map_or_else(|| self.connector.connect(), Ok)
            .and_then(|mut redis| lease_scripts::release(&mut redis, &self.keys, &token));
        match released {
            Ok(_) => info!("the lease was given back"),
            Err(why) => warn!("the lease could not be given back and runs out by itself: {why}"),
        }
    }
}

fn too_few(needed: u32) -> String {
    let replicas = crate::event::counted(needed as usize, "replica");
    format!("less than {replicas} confirmed the lease: are they running and connected?")
}

/// The token in a key, if there is one.
fn parse_token(redis: &MasterConnection, value: Value) -> Result<Option<Token>, RedisFault> {
    let text: Option<String> = redis::from_redis_value(value).unwrap_or(Some(String::new()));
    let token = text.map(|text| text.parse::<Token>()).transpose();
    token.map_err(|why| redis.unusable(&why))
}
