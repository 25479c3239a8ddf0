//! What other nodes have heard: single datagrams while this one leads, and the last beats of all
//! connections when it begins to. Pure.
//!
//! A beat counts only when it is later than what is known: later than the last one of a connection that
//! is up, and later than the moment at which one was found overdue or shut down. Else the last beat
//! before a silence that was told would end it, and the silence be told twice.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::Fleet;
use super::ingest::{IncomingDatagram, Signed};
use crate::clock::{Mono, Now};
use crate::heartbeat::blindness::{Blindness, ReceiverSet};
use crate::heartbeat::connection::Connection;
use crate::heartbeat::datagram::{Datagram, DatagramKind, ReceivedDatagram, Rejection};
use crate::heartbeat::event_limits::Load;
use crate::heartbeat::fleet::{Changes, Ingested};
use crate::heartbeat::last_beats::{KeptBeat, LastBeats, LastHeard, MAX_COPY_AGE};
use crate::view::HostState;

/// A message, or a shutdown, that comes by way of the inbox may be overtaken by beats for so long.
const MAX_NEWS_DELAY: Duration = Duration::from_secs(60);
/// [`MAX_COPY_AGE`] in milliseconds.
const MAX_COPY_MILLIS: u64 = MAX_COPY_AGE.as_millis() as u64;
/// The most datagrams that are remembered as handled.
const MAX_NEWS: usize = 4096;
/// An unsigned shutdown that was heard by so much earlier than the last beat is an old one.
const MAX_DISORDER: Duration = Duration::from_secs(1);

/// The datagrams that are no plain beats and were handled lately: several nodes may have heard one, and
/// bring it later than beats that were sent after it.
#[derive(Debug, Default)]
pub(super) struct RecentNews {
    /// When, a hash of it, and the receiver that brought it.
    handled: VecDeque<(Mono, u64, u8)>,
}

impl RecentNews {
    fn add(&mut self, hash: u64, receiver: u8, now: Mono) {
        let old = |(at, ..): &(Mono, u64, u8)| now.since(*at) > MAX_NEWS_DELAY;
        while self.handled.len() == MAX_NEWS || self.handled.front().is_some_and(old) {
            self.handled.pop_front();
        }
        self.handled.push_back((now, hash, receiver));
    }

    fn has(&self, hash: u64) -> bool {
        self.handled.iter().any(|(_, known, _)| *known == hash)
    }

    /// Whether another receiver brought it just now.
    fn has_copy(&self, hash: u64, receiver: u8, now: Mono) -> bool {
        self.handled.iter().any(|(at, known, by)| {
            *known == hash && *by != receiver && now.0.abs_diff(at.0) < MAX_COPY_MILLIS
        })
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Fleet {
    /// Ingests a datagram that another node received at `at`, on our clocks. One that is known already
    /// is no refusal: it only says that its connection is heard through that node, too.
    ///
    /// # Errors
    /// Why it is rejected.
    pub fn ingest_relayed(
        &mut self,
        received: &ReceivedDatagram,
        (from, receiver): (IpAddr, &str),
        load: Load,
        at: Now,
    ) -> Result<Ingested, Rejection> {
        let datagram = &received.datagram;
        let receiver = self.blindness.number(receiver);
        let incoming = IncomingDatagram { receiver, load, ..self.locate(datagram, from, at) };
        let is_beat = datagram.event == DatagramKind::Beat;
        let signed = match self.authenticate(received, &incoming) {
            Err(Rejection::Replay) if is_beat || self.is_old_news(received, &incoming) => {
                self.add_receiver(&incoming);
                return Ok(Ingested::default());
            }
            // Beats that were sent after it have come before it: it is no less news for that.
            Err(Rejection::Replay) => None,
            signed => signed?,
        };
        let is_copy = self.is_unsigned_copy(received, &incoming);
        let Some(now) = self.counts_at(&incoming, signed.is_some()).filter(|_| !is_copy) else {
            self.add_receiver(&incoming);
            self.note_signed(&incoming, signed);
            return Ok(Ingested::default());
        };
        self.ingest_verified(received, &IncomingDatagram { now, ..incoming }, signed)
    }

    /// When a relayed datagram counts as received; none when it is older than what is known.
    fn counts_at(&self, incoming: &IncomingDatagram, is_signed: bool) -> Option<Now> {
        let Some(connection) = self.connection_of(incoming) else { return Some(incoming.now) };
        let (at, last) = (incoming.now, connection.last_seen);
        let known = last.mono.max(connection.entered_at);
        let counts = match incoming.datagram.event {
            DatagramKind::Beat => is_later(connection, at.mono) || is_signed && is_up(connection),
            DatagramKind::Shutdown => is_signed || at.mono + MAX_DISORDER >= last.mono,
            DatagramKind::Boot | DatagramKind::Message | DatagramKind::Silence => true,
        };
        // Time does not go back within a connection.
        let later = if at.mono < known { Now { mono: known, wall: at.wall } } else { at };
        counts.then_some(later)
    }

    fn connection_of(&self, incoming: &IncomingDatagram) -> Option<&Connection> {
        self.hosts.get(incoming.host? as usize)?.connections.get(incoming.connection_index?)
    }

    fn connection_mut(&mut self, incoming: &IncomingDatagram) -> Option<&mut Connection> {
        self.hosts.get_mut(incoming.host? as usize)?.connections.get_mut(incoming.connection_index?)
    }

    fn add_receiver(&mut self, incoming: &IncomingDatagram) {
        let time = incoming.datagram.time.as_ref().map_or(0, |time| time.micros);
        if let Some(receiver) = incoming.receiver
            && let Some(connection) = self.connection_mut(incoming)
            && [0, time].contains(&connection.last_signed_at)
        {
            connection.receivers.add(receiver);
        }
    }

    fn note_signed(&mut self, incoming: &IncomingDatagram, signed: Option<Signed>) {
        if let (Some(connection), Some(signed)) = (self.connection_mut(incoming), signed) {
            connection.last_signed_at = connection.last_signed_at.max(signed.time);
        }
    }

    /// Whether a datagram that is a replay is the last one of its connection, which another node has
    /// brought just now.
    pub(super) fn is_copy(&self, incoming: &IncomingDatagram) -> bool {
        let time = incoming.datagram.time.as_ref().map(|time| time.micros);
        let connection = self.connection_of(incoming).zip(incoming.receiver);
        connection.is_some_and(|(connection, receiver)| {
            time == Some(connection.last_signed_at)
                && connection.receivers.is_new_to(receiver)
                && incoming.now.mono.since(connection.last_seen.mono) < MAX_COPY_AGE
        })
    }

    /// Answers a copy: its sender asks each node.
    pub(super) fn ingest_copy(
        &mut self,
        received: &ReceivedDatagram,
        incoming: &IncomingDatagram,
    ) -> Ingested {
        self.add_receiver(incoming);
        let key_id = self.connection_of(incoming).map(|connection| connection.key_id);
        let host = incoming.host.filter(|_| incoming.datagram.ack);
        let ack = host.and_then(|host| self.ack(received, host, key_id, incoming.now));
        Ingested { ack, ..Ingested::default() }
    }

    /// Whether a replay that is no beat was handled before, or is too old to be told.
    fn is_old_news(&self, received: &ReceivedDatagram, incoming: &IncomingDatagram) -> bool {
        let time = incoming.datagram.time.as_ref().map_or(0, |time| time.micros);
        let last = self.connection_of(incoming).map_or(0, |connection| connection.last_signed_at);
        let delay = Duration::from_micros(last.saturating_sub(time).unsigned_abs());
        time == last || delay > MAX_NEWS_DELAY || self.recent_news.has(hash(received.json))
    }

    /// In a cluster, what is no plain beat may come again through another node.
    pub(super) fn note_news(&mut self, received: &ReceivedDatagram, incoming: &IncomingDatagram) {
        if let Some(receiver) = incoming.receiver
            && incoming.datagram.event != DatagramKind::Beat
        {
            self.recent_news.add(hash(received.json), receiver, incoming.now.mono);
        }
    }

    /// Whether another node brought the same datagram just now, which nobody signed and which is no
    /// plain beat.
    pub(super) fn is_unsigned_copy(
        &self,
        received: &ReceivedDatagram,
        incoming: &IncomingDatagram,
    ) -> bool {
        let is_news = received.datagram.event != DatagramKind::Beat;
        let receiver = incoming.receiver.filter(|_| is_news && received.signature.is_none());
        receiver.is_some_and(|receiver| {
            self.recent_news.has_copy(hash(received.json), receiver, incoming.now.mono)
        })
    }

    /// When the connections of `count` hosts were heard last, from the index `from` on.
    pub fn last_heard(&self, from: usize, count: usize) -> Vec<LastHeard> {
        let hosts = self.hosts.iter().skip(from).take(count);
        let all = hosts.flat_map(|host| host.connections.iter().map(move |one| (host, one)));
        let heard = all.filter(|(_, one)| one.state != HostState::New && !one.is_internal());
        heard
            .map(|(host, connection)| LastHeard {
                host: host.name.as_ref().into(),
                connection: connection.name.as_ref().into(),
                at: connection.last_seen.mono,
                signed: connection.last_signed_at,
            })
            .collect()
    }

    /// Merges what was heard while another node led, in the order of its times.
    pub(super) fn merge(&mut self, beats: LastBeats, previous: Option<&str>, now: Now) {
        let known_until = beats.known_until();
        let (receivers, beats) = beats.into_beats();
        let numbers: Vec<u16> =
            receivers.receivers().iter().map(|one| self.blindness.bits(&one.name)).collect();
        let previous = previous.filter(|previous| *previous != receivers_own(&receivers));
        let leader = previous.map_or(0, |previous| self.blindness.bits(previous));
        for (host, beat) in beats {
            let bits = beat.receivers.bits();
            let has = |(number, _): &(usize, &u16)| bits & (1 << number) != 0;
            let bits = numbers.iter().enumerate().filter(has).fold(0, |all, (_, bit)| all | bit);
            self.merge_beat(&host, &beat, bits, now);
        }
        for connection in self.hosts.iter_mut().flat_map(|host| &mut host.connections) {
            if connection.receivers.bits() == 0 && !connection.is_internal() {
                connection.receivers = ReceiverSet::from_bits(leader);
            }
        }
        if let Some(previous) = previous {
            self.receiver_lost(previous, known_until.min(now.mono));
        }
    }

    fn merge_beat(&mut self, host: &str, beat: &KeptBeat, bits: u16, now: Now) {
        let received = beat.datagram.as_deref().map(ReceivedDatagram::parse);
        let plain = Datagram::beat(host, &beat.connection);
        let datagram = match &received {
            Some(Ok(received)) => &received.datagram,
            Some(Err(_)) | None => &plain,
        };
        let at = if beat.at.mono > now.mono { now } else { beat.at };
        let from = beat.from.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let located = self.locate(datagram, from, at);
        let connection_index = located
            .host
            .and_then(|host| self.hosts[host as usize].connection_index(&beat.connection));
        let mut incoming =
            IncomingDatagram { connection_name: &beat.connection, connection_index, ..located };
        let counts = beat.is_heard()
            && self.connection_of(&incoming).is_none_or(|known| is_later(known, at.mono));
        if counts {
            let address = self.connection_of(&incoming).and_then(|known| known.address);
            let Ok((host, index)) = self.find_or_create(&incoming) else { return };
            let ingested = self.apply(host, index, &incoming);
            self.keep_ingested(ingested);
            let connection = &mut self.hosts[host as usize].connections[index];
            connection.address = beat.from.or(address);
            (incoming.host, incoming.connection_index) = (Some(host), Some(index));
        }
        let Some(connection) = self.connection_mut(&incoming) else { return };
        let bits = bits | if counts { 0 } else { connection.receivers.bits() };
        connection.receivers = ReceiverSet::from_bits(bits);
        if beat.beat_signed_at > connection.last_signed_at {
            connection.last_signed_at = beat.beat_signed_at;
            if beat.key_id != 0 {
                connection.key_id = beat.key_id;
                connection.clock_offset = beat.clock_offset.or(connection.clock_offset);
            }
        }
    }

    /// What is to be told of what was merged.
    pub fn take_merged(&mut self) -> Changes {
        std::mem::take(&mut self.pending)
    }

    /// What a beat caused before the first [`due`](Fleet::due) goes out before that.
    fn keep_ingested(&mut self, ingested: Ingested) {
        let Ingested { events, rows, closed_incidents, parents_up, not_behind, .. } = ingested;
        let pending = &mut self.pending;
        pending.events.extend(events);
        pending.rows.extend(rows);
        pending.closed_incidents.extend(closed_incidents);
        pending.parents_up.extend(parents_up);
        pending.not_behind.extend(not_behind);
    }
}

fn receivers_own(receivers: &Blindness) -> &str {
    let own = receivers.own().and_then(|own| receivers.receivers().get(usize::from(own)));
    own.map_or("", |own| own.name.as_str())
}

fn is_up(connection: &Connection) -> bool {
    matches!(connection.state, HostState::Up | HostState::New)
}

/// Whether a beat at that time is later than what is known of a connection.
fn is_later(connection: &Connection, at: Mono) -> bool {
    connection.state == HostState::New || at > connection.last_seen.mono.max(connection.entered_at)
}
