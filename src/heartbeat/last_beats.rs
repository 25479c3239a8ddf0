//! What a node that does not lead keeps of what it hears itself and of what the others tell it: the last
//! beat of each connection, until it leads itself. Pure.
//!
//! A datagram is kept when it has passed the checks of a fleet: its signature, that it is fresh, and that
//! it is later than the one before. Nothing is decided here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroI64;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::heartbeat::auth::{self, ClockCheck, DEFAULT_CONNECTION_NAMES, SignedTime, TimeProof};
use crate::heartbeat::blindness::{Blindness, ReceiverSet};
use crate::heartbeat::datagram::{DatagramKind, ReceivedDatagram, Rejection};
use crate::heartbeat::encode;
use crate::heartbeat::host::MAX_CONNECTIONS;
use crate::heartbeat::persistence::kernel_tag;
use crate::heartbeat::settings::{self, FleetConfig, Interner, Profile, SharedSettings};
use crate::host_pattern::ByPattern;

/// What comes through another receiver within this time is a copy, and no replay.
pub const MAX_COPY_AGE: Duration = Duration::from_secs(5);

/// What another node hears is known here after this time at the latest.
const MAX_RELAY_DELAY: Duration = Duration::from_secs(1);

/// When a connection was heard last, as the node that leads tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastHeard {
    /// The host.
    pub host: String,
    /// Its connection.
    pub connection: String,
    /// When, on the clock of the process that has this value.
    pub at: Mono,
    /// The time in its last signed datagram, microseconds since 1970; 0 when none was signed.
    pub signed: i64,
}

/// Which part of its last-heard times the leader tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundPart {
    /// Of which round.
    pub round: u32,
    /// Which part, from 0 on.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
    /// When the round began: all that the leader had heard by then is in it or was told before.
    pub began: Mono,
}

/// The last beat of a connection.
#[derive(Clone, Debug)]
pub struct KeptBeat {
    /// The connection.
    pub connection: Arc<str>,
    /// When it was received.
    pub at: Now,
    /// The time in its last signed datagram, be it no beat; microseconds since 1970, 0 for none.
    pub signed_at: i64,
    /// The same of its last beat or boot: what else was signed later is news that is yet to be told.
    pub beat_signed_at: i64,
    /// What the clock of its host is ahead of our monotonic one, in microseconds.
    pub clock_offset: Option<NonZeroI64>,
    /// The key that it was signed with; 0 when it was not.
    pub key_id: u32,
    /// A hash of its boot id; 0 when it had none.
    boot: u32,
    /// The receivers that it is heard through.
    pub receivers: ReceiverSet,
    /// Where it came from.
    pub from: Option<IpAddr>,
    /// The datagram; none when only the time is known.
    pub datagram: Option<Box<[u8]>>,
}

impl KeptBeat {
    /// Whether a beat came over the connection. Else it only sent messages, and `at` is no time of a beat.
    pub fn is_heard(&self) -> bool {
        self.datagram.is_some() || self.receivers.bits() != 0
    }
}

#[derive(Debug)]
struct KnownHost {
    profile: Option<Arc<Profile>>,
    beats: Vec<KeptBeat>,
}

/// What is to be done with a datagram that was believed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// It is no plain beat, or shows a boot: the node that leads must get it, whatever happens.
    pub is_news: bool,
    /// The answer, when one was asked for.
    pub ack: Option<Vec<u8>>,
}

/// The last beats of all connections.
#[derive(Debug)]
pub struct LastBeats {
    node: String,
    common: SharedSettings,
    hosts: HashMap<Arc<str>, KnownHost>,
    /// What hosts have that are not listed.
    patterns: ByPattern<Arc<Profile>>,
    /// How many have come by patterns.
    by_pattern: usize,
    /// How many of them are not configured, and how many bytes these take.
    strangers: usize,
    stranger_bytes: usize,
    names: Interner,
    receivers: Blindness,
    clock_check: ClockCheck,
    /// From when on everything was heard that this node and the others can hear.
    listening_since: Mono,
    /// The round of the leader that is being heard: its leader, its number, and the next part.
    round: Option<(String, u32, u32)>,
    /// When the last round began of which all parts were heard.
    complete: Option<Mono>,
}

impl LastBeats {
    /// The node of that name begins to listen now.
    pub fn new(config: &FleetConfig, node: &str, now: Now) -> LastBeats {
        let mut receivers = Blindness::default();
        receivers.set_own(node);
        let mut beats = LastBeats {
            node: node.to_owned(),
            common: SharedSettings::new(config),
            hosts: HashMap::new(),
            patterns: ByPattern::default(),
            by_pattern: 0,
            strangers: 0,
            stranger_bytes: 0,
            names: Interner::default(),
            receivers,
            clock_check: ClockCheck::default(),
            listening_since: now.mono,
            round: None,
            complete: None,
        };
        beats.set_profiles(config);
        beats
    }

    /// Applies a new configuration. What was kept of hosts that are no longer configured is forgotten:
    /// where they are accepted, the next beat makes them known again.
    pub fn reconfigure(&mut self, config: &FleetConfig) {
        self.common = SharedSettings::new(config);
        self.set_profiles(config);
    }

    fn set_profiles(&mut self, config: &FleetConfig) {
        let mut known = std::mem::take(&mut self.hosts);
        (self.strangers, self.stranger_bytes) = (0, 0);
        let profiles = settings::profiles(config);
        for (name, profile) in profiles.listed {
            let (name, profile) = (Arc::from(name), Some(profile));
            let beats = known.remove(&name).map(|host| host.beats).unwrap_or_default();
            self.hosts.insert(name, KnownHost { profile, beats });
        }
        self.patterns = profiles.patterns;
        self.by_pattern = 0;
        for (name, host) in known {
            if let Some(profile) = self.patterns.find(&name).cloned() {
                self.by_pattern += 1;
                self.hosts.insert(name, KnownHost { profile: Some(profile), ..host });
            }
        }
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// How many connections are known.
    pub fn len(&self) -> usize {
        self.hosts.values().map(|host| host.beats.len()).sum()
    }

    /// How many hosts this node hears itself.
    pub fn count_heard(&self) -> usize {
        let own = self.receivers.own().map_or(0, |own| 1 << own);
        let heard = |host: &&KnownHost| host.beats.iter().any(|b| b.receivers.bits() & own != 0);
        self.hosts.values().filter(heard).count()
    }

    /// Whether nothing was heard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all that the node that led had heard is known up to its last round.
    pub fn is_warm(&self) -> bool {
        self.complete.is_some()
    }

    /// Until when what others heard is not known; none when all of it is.
    pub fn deaf_until(&self) -> Option<Mono> {
        (!self.is_warm()).then_some(self.listening_since)
    }

    /// Until when it is known what the node that led had heard.
    pub fn known_until(&self) -> Mono {
        self.complete.unwrap_or(self.listening_since)
    }

    /// What the others told was not heard for a while: what the leader heard is not known any more.
    pub fn gap(&mut self, to: Mono) {
        (self.round, self.complete) = (None, None);
        self.listening_since = self.listening_since.max(to);
    }

    /// A datagram that this node has received itself.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn hear(
        &mut self,
        received: &ReceivedDatagram,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
    ) -> Result<Heard, Rejection> {
        let own = self.receivers.own();
        let heard = self.take(received, bytes, from, (own, false), now)?;
        let datagram = &received.datagram;
        let mut ack = None;
        if datagram.ack {
            let time = datagram.time.as_ref().map(|time| &*time.text);
            let keys = self.keys(&datagram.host);
            let key = heard.1.and_then(|id| keys?.by_id(id));
            ack = encode::ack(time, now.wall, key, received.length);
        }
        Ok(Heard { is_news: heard.0, ack })
    }

    /// A datagram that another node has received, and checked.
    ///
    /// # Errors
    /// Why it is not believed here.
    pub fn keep_relayed(
        &mut self,
        received: &ReceivedDatagram,
        bytes: &[u8],
        (from, receiver): (IpAddr, &str),
        at: Now,
    ) -> Result<(), Rejection> {
        let number = self.receivers.number(receiver);
        self.take(received, bytes, from, (number, true), at).map(|_| ())
    }

    /// A part of what the node that leads heard last.
    pub fn keep_round(&mut self, leader: &str, part: RoundPart, times: &[LastHeard], now: Now) {
        let number = self.receivers.number(leader);
        for time in times {
            self.keep_time(time, number, now);
        }
        let expected = match &self.round {
            Some((from, round, next)) if from == leader && *round == part.round => *next,
            Some(_) | None => 0,
        };
        self.round = (part.part == expected).then(|| (leader.to_owned(), part.round, expected + 1));
        if self.round.is_some() && part.part + 1 == part.parts {
            self.complete = Some(part.began);
        }
    }

    fn keep_time(&mut self, time: &LastHeard, leader: Option<u8>, now: Now) {
        let at = Now { mono: time.at, wall: now.wall - now.mono.since(time.at) };
        let Ok(index) = self.find_or_create(&time.host, &time.connection, at, None) else { return };
        let interval = self.common.interval;
        let Some(beat) = self.beat_mut(&time.host, index) else { return };
        let was_heard = beat.is_heard();
        // What others had told it we would know, too: it heard that itself.
        let by_itself = at.mono.since(beat.at.mono) > MAX_RELAY_DELAY || beat.receivers.bits() == 0;
        if let Some(leader) = leader.filter(|_| by_itself) {
            beat.receivers.brought(leader, interval, beat.at.mono, at.mono);
        }
        beat.signed_at = beat.signed_at.max(time.signed);
        // Who leads has already what was in it; that it is later counts.
        if beat.at.mono < at.mono || !was_heard {
            beat.at = at;
            beat.beat_signed_at = beat.beat_signed_at.max(time.signed);
            beat.datagram = None;
        }
    }

    fn keys(&self, host: &str) -> Option<&auth::HostKeys> {
        let profile = match self.hosts.get(host) {
            Some(host) => host.profile.as_ref(),
            None => self.patterns.find(host),
        };
        profile.and_then(|profile| profile.keys.as_ref()).or(self.common.keys.as_ref())
    }

    fn beat_mut(&mut self, host: &str, index: usize) -> Option<&mut KeptBeat> {
        self.hosts.get_mut(host)?.beats.get_mut(index)
    }

    /// Checks and keeps a datagram: whether it is news, and the id of its key.
    fn take(
        &mut self,
        received: &ReceivedDatagram,
        bytes: &[u8],
        from: IpAddr,
        (receiver, is_relayed): (Option<u8>, bool),
        at: Now,
    ) -> Result<(bool, Option<u32>), Rejection> {
        let datagram = &received.datagram;
        let host = &*datagram.host;
        let is_unknown = !self.hosts.contains_key(host) && self.patterns.find(host).is_none();
        if is_unknown && self.common.max_unknown_hosts.is_none() {
            return Err(Rejection::UnknownHost);
        }
        let connection = datagram.connection.as_deref();
        let connection = connection.unwrap_or(auth::default_connection_name(from));
        let checked = auth::check_signature(received, self.keys(host))?;
        let mut proof = None;
        if let Some((key_id, time)) = checked {
            let signed = self.signed_time(host, connection, datagram.connection.is_some(), time);
            match self.clock_check.check_freshness(signed, self.common.clock_skew, at) {
                Ok(freshness) => {
                    if freshness == TimeProof::Agrees {
                        self.clock_check.record_agreement(at);
                    }
                    let offset = auth::clock_offset(signed, freshness, at);
                    proof = Some((key_id, time, offset.and_then(NonZeroI64::new)));
                }
                Err(Rejection::Replay)
                    if is_relayed || self.is_copy(host, connection, (receiver, time), at) =>
                {
                    self.add_receiver(host, connection, receiver, time);
                    return Ok((is_news_by_kind(datagram.event), Some(key_id)));
                }
                Err(rejection) => return Err(rejection),
            }
        }
        let index = self.find_or_create(host, connection, at, Some(bytes.len()))?;
        let may_keep = self.is_known(host) || self.stranger_bytes < self.common.max_unknown_bytes;
        let interval = datagram.interval.unwrap_or(self.common.interval);
        let Some(beat) = self.beat_mut(host, index) else { return Err(Rejection::UnknownHost) };
        if let Some((key_id, time, offset)) = proof {
            (beat.key_id, beat.signed_at, beat.clock_offset) = (key_id, time, offset);
        }
        let boot = datagram.boot_id.as_deref().map_or(0, kernel_tag);
        let is_boot = boot != 0 && beat.boot != 0 && boot != beat.boot;
        let is_news = is_news_by_kind(datagram.event) || is_boot;
        if matches!(datagram.event, DatagramKind::Beat | DatagramKind::Boot) {
            let is_later = !beat.is_heard() || at.mono >= beat.at.mono;
            if let Some(receiver) = receiver {
                beat.receivers.brought(receiver, interval, beat.at.mono, at.mono);
            }
            beat.boot = if boot == 0 { beat.boot } else { boot };
            beat.at = if is_later { at } else { beat.at };
            beat.beat_signed_at = beat.beat_signed_at.max(proof.map_or(0, |(_, time, _)| time));
            beat.from = Some(from);
            beat.datagram = may_keep.then(|| bytes.into());
        }
        Ok((is_news, checked.map(|(key_id, _)| key_id)))
    }

    fn signed_time(&self, host: &str, connection: &str, is_named: bool, time: i64) -> SignedTime {
        let beats = self.hosts.get(host).map(|host| host.beats.as_slice()).unwrap_or_default();
        let own = beats.iter().find(|beat| *beat.connection == *connection);
        let default = |beat: &&KeptBeat| DEFAULT_CONNECTION_NAMES.contains(&&*beat.connection);
        let others = || beats.iter().filter(default).map(|beat| beat.signed_at).max();
        let last = match own {
            Some(beat) => Some(beat.signed_at),
            None if is_named => None,
            None => others(),
        };
        let offset = own.and_then(|beat| beat.clock_offset);
        let offset = offset.or_else(|| beats.iter().filter_map(|beat| beat.clock_offset).max());
        SignedTime { time, last, offset: offset.map(NonZeroI64::get) }
    }

    /// Whether that is the last datagram of its connection once more, through a receiver that has not
    /// brought it yet.
    fn is_copy(
        &self,
        host: &str,
        connection: &str,
        (receiver, time): (Option<u8>, i64),
        at: Now,
    ) -> bool {
        let mut beats = self.hosts.get(host).into_iter().flat_map(|host| &host.beats);
        let beat = beats.find(|beat| *beat.connection == *connection);
        beat.zip(receiver).is_some_and(|(beat, receiver)| {
            beat.signed_at == time
                && beat.receivers.is_new_to(receiver)
                && at.mono.since(beat.at.mono) < MAX_COPY_AGE
        })
    }

    fn add_receiver(&mut self, host: &str, connection: &str, receiver: Option<u8>, time: i64) {
        let beats = self.hosts.get_mut(host).map(|host| &mut host.beats);
        let beat = beats.and_then(|beats| beats.iter_mut().find(|b| *b.connection == *connection));
        if let Some((beat, receiver)) = beat.filter(|beat| beat.signed_at == time).zip(receiver) {
            beat.receivers.add(receiver);
        }
    }

    fn is_known(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|host| host.profile.is_some())
    }

    /// Counts a host that is not listed, if there is room for one more.
    fn count_new(&mut self, by_pattern: bool) -> Result<(), Rejection> {
        let (count, most) = if by_pattern {
            (&mut self.by_pattern, self.common.max_pattern_hosts)
        } else {
            let most = self.common.max_unknown_hosts.ok_or(Rejection::UnknownHost)?;
            let is_full = self.stranger_bytes >= self.common.max_unknown_bytes;
            (&mut self.strangers, if is_full { 0 } else { most })
        };
        if *count >= most {
            return Err(Rejection::TooManyHosts);
        }
        *count += 1;
        Ok(())
    }

    /// The index of a connection, which is made when it is new.
    fn find_or_create(
        &mut self,
        host: &str,
        connection: &str,
        at: Now,
        bytes: Option<usize>,
    ) -> Result<usize, Rejection> {
        if !self.hosts.contains_key(host) {
            let profile = self.patterns.find(host).cloned();
            self.count_new(profile.is_some())?;
            self.hosts.insert(host.into(), KnownHost { profile, beats: Vec::new() });
        }
        let connection = self.names.intern(connection);
        let Some(known) = self.hosts.get_mut(host) else { return Err(Rejection::UnknownHost) };
        if let Some(index) = known.beats.iter().position(|beat| beat.connection == connection) {
            return Ok(index);
        }
        if known.beats.len() == MAX_CONNECTIONS {
            return Err(Rejection::TooManyConnections);
        }
        if known.profile.is_none() {
            self.stranger_bytes += size_of::<KeptBeat>() + host.len() + bytes.unwrap_or_default();
        }
        known.beats.reserve_exact(1);
        known.beats.push(KeptBeat {
            connection,
            at,
            signed_at: 0,
            beat_signed_at: 0,
            clock_offset: None,
            key_id: 0,
            boot: 0,
            receivers: ReceiverSet::default(),
            from: None,
            datagram: None,
        });
        Ok(known.beats.len() - 1)
    }

    /// Their receivers, by whose numbers the beats say how they were heard, and the beats of all hosts in
    /// the order of their times.
    pub fn into_beats(self) -> (Blindness, Vec<(Arc<str>, KeptBeat)>) {
        let of = |(name, host): (Arc<str>, KnownHost)| {
            host.beats.into_iter().map(move |beat| (name.clone(), beat))
        };
        let mut beats: Vec<(Arc<str>, KeptBeat)> = self.hosts.into_iter().flat_map(of).collect();
        beats.sort_unstable_by_key(|(_, beat)| beat.at.mono);
        (self.receivers, beats)
    }
}

fn is_news_by_kind(event: DatagramKind) -> bool {
    event != DatagramKind::Beat
}
