//! Gives the heartbeats that this node receives to the other nodes, at once and without a promise: what
//! does not arrive is missed as a lost datagram is, and the others see that it is missing.
//!
//! The thread `relay-out` publishes a batch each 50 ms while something comes in, and an empty one each
//! half second while nothing does. While Redis is away datagrams are dropped; the numbers of their batches
//! are used up, by which the others see the gap.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use log::{info, warn};

use super::connection::{MasterConnection, RedisFault};
use super::relay_format::{BatchBeat, BatchConnection, BatchEntries, BatchHead, BatchPart};
use super::relay_listener::{HeardConnection, RelayListener, RelayOptions};
use super::subscriber::{self, RelayNotice};
use crate::clock::{Mono, Now};
use crate::thread::{Stop, lock, spawn_critical};

/// How long datagrams are collected.
const COLLECT: Duration = Duration::from_millis(50);
/// How often at least something is published: by that the others see that this node lives.
const PULSE: Duration = Duration::from_millis(500);
/// The most bytes that wait; more is dropped.
const MAX_WAITING: usize = 4 << 20;
/// How long a round of last-heard times takes, and how long it is to the next one.
const ROUND: Duration = Duration::from_secs(10);
/// How many hosts are in one part of a round.
const HOSTS_PER_PART: usize = 200;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(2);
/// The threads hold batches on the heap.
const STACK: usize = 256 * 1024;

/// Where a leader's last-heard times come from. The order of hosts stays, and new ones come last.
pub struct LastHeardSource {
    /// How many hosts there are.
    pub hosts: Box<dyn Fn() -> usize + Send + Sync>,
    /// The connections of so many hosts, from an index on.
    pub part: Box<dyn Fn(usize, usize) -> Vec<HeardConnection> + Send + Sync>,
}

/// What was relayed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Batches that Redis took.
    pub batches: u64,
    /// Datagrams in them.
    pub beats: u64,
    /// Datagrams that were dropped, since Redis was away or too slow.
    pub dropped: u64,
    /// Gaps in what other nodes relayed.
    pub gaps: u64,
}

/// Takes datagrams for the other nodes. Cloned: all clones are the same.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

/// What the threads of the relay share.
#[derive(Default)]
struct Shared {
    collected: Mutex<Collected>,
    source: Mutex<Option<Arc<LastHeardSource>>>,
    batches: AtomicU64,
    beats: AtomicU64,
    dropped: AtomicU64,
    gaps: AtomicU64,
    /// A round is to begin now: another process of a node has come that heard nothing of the last one.
    round_now: AtomicBool,
    /// Wakes the publisher; none in a relay that was not started.
    wake: Mutex<Option<Wake>>,
}

/// How the publisher is woken.
struct Wake {
    /// Something came in.
    begun: Sender<()>,
    /// A batch is full.
    full: Sender<()>,
}

/// Datagrams that wait to be published.
#[derive(Default)]
struct Collected {
    full: VecDeque<Collecting>,
    current: Option<Collecting>,
    size: usize,
    /// Something was dropped: a number is to be left out.
    lacks: bool,
}

/// A batch that is being collected, and when it was begun.
struct Collecting {
    begun: Mono,
    entries: BatchEntries,
}

/// The number of milliseconds in a field of the format.
fn field_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Collected {
    /// Adds a datagram; none when it was dropped, else whether it is the first one, and whether a batch
    /// is full.
    fn add(&mut self, datagram: &[u8], peer: IpAddr, at: Mono) -> Option<(bool, bool)> {
        if self.size >= MAX_WAITING {
            self.lacks = true;
            return None;
        }
        let is_first = self.current.is_none();
        let current = self
            .current
            .get_or_insert_with(|| Collecting { begun: at, entries: BatchEntries::default() });
        let before = current.entries.size();
        let after = field_of(at.since(current.begun));
        if !current.entries.add_beat(BatchBeat { after, peer, datagram }) {
            return None;
        }
        self.size += current.entries.size() - before;
        let is_full = current.entries.is_full();
        if is_full {
            self.full.extend(self.current.take());
        }
        Some((is_first, is_full))
    }

    /// Everything that waits.
    fn take(&mut self) -> (VecDeque<Collecting>, bool) {
        let mut all = std::mem::take(&mut self.full);
        all.extend(self.current.take());
        self.size = 0;
        (all, std::mem::take(&mut self.lacks))
    }
}

impl Relay {
    /// Starts the threads: `listener` is told of what other nodes relay.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        options: RelayOptions,
        listener: Arc<dyn RelayListener>,
        stop: &Stop,
    ) -> io::Result<(Relay, [JoinHandle<()>; 2])> {
        let (begun, begun_rx) = bounded(1);
        let (full, full_rx) = bounded(1);
        let wake = Mutex::new(Some(Wake { begun, full }));
        let shared = Arc::new(Shared { wake, ..Shared::default() });
        let publisher = Publisher {
            shared: Arc::clone(&shared),
            options: options.clone(),
            connection: None,
            retry: None,
            pause: FIRST_RETRY,
            number: 0,
            round: Round::default(),
        };
        let own = stop.clone();
        let out =
            spawn_critical("relay-out", STACK, move || publisher.run(&begun_rx, &full_rx, &own))?;
        let (own, relay) = (stop.clone(), Relay(shared));
        let observer = relay.clone();
        let incoming = spawn_critical("relay-in", STACK, move || {
            let notify = |notice| match notice {
                RelayNotice::NewProcess => observer.begin_round(),
                RelayNotice::Gap => observer.count_gap(),
            };
            subscriber::run(&options, &notify, &*listener, &own);
        })?;
        Ok((relay, [out, incoming]))
    }

    /// Relays a datagram that this node received and verified. It never blocks.
    pub fn push(&self, datagram: &[u8], peer: IpAddr, at: Mono) {
        let added = lock(&self.0.collected).add(datagram, peer, at);
        let Some((is_first, is_full)) = added else {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if is_first || is_full {
            let wake = lock(&self.0.wake);
            // Refused when the publisher is to wake already.
            if let Some(wake) = &*wake {
                let _ = if is_full { &wake.full } else { &wake.begun }.try_send(());
            }
        }
    }

    /// From now on this node tells the others again and again when it heard whom last, as the leader
    /// does; none: no longer.
    pub fn share_last_heard(&self, source: Option<Arc<LastHeardSource>>) {
        *lock(&self.0.source) = source;
        self.wake();
    }

    fn wake(&self) {
        let wake = lock(&self.0.wake);
        if let Some(wake) = &*wake {
            let _ = wake.begun.try_send(());
        }
    }

    /// A process has come that heard nothing of the last round.
    fn begin_round(&self) {
        self.0.round_now.store(true, Ordering::Relaxed);
        if lock(&self.0.source).is_some() {
            self.wake();
        }
    }

    /// Counts a gap in what another node relays.
    fn count_gap(&self) {
        self.0.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// What was relayed so far.
    pub fn counts(&self) -> RelayCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayCounts {
            batches: read(&self.0.batches),
            beats: read(&self.0.beats),
            dropped: read(&self.0.dropped),
            gaps: read(&self.0.gaps),
        }
    }
}

/// How far a round of last-heard times is.
#[derive(Default)]
struct Round {
    number: u32,
    part: u16,
    /// 0 between two rounds.
    parts: u16,
    began: Mono,
    /// When the next part, or the next round, is due.
    due: Option<Mono>,
}

/// Publishes what was collected.
struct Publisher {
    shared: Arc<Shared>,
    options: RelayOptions,
    connection: Option<MasterConnection>,
    /// When connecting is tried again; none while it works.
    retry: Option<Instant>,
    pause: Duration,
    /// That of the last batch.
    number: u64,
    round: Round,
}

impl Publisher {
    fn run(mut self, begun: &Receiver<()>, full: &Receiver<()>, stop: &Stop) {
        let mut published = Instant::now();
        loop {
            let pulse = PULSE.saturating_sub(published.elapsed());
            let wait = self.next_part(Now::read().mono).map_or(pulse, |part| part.min(pulse));
            select! {
                recv(begun) -> _ => select! {
                    recv(full) -> _ => {}
                    recv(after(COLLECT)) -> _ => {}
                    recv(stop.receiver()) -> _ => {}
                },
                recv(full) -> _ => {}
                recv(after(wait)) -> _ => {}
                recv(stop.receiver()) -> _ => {}
            }
            let sent = self.publish_collected() | self.publish_part(Now::read().mono);
            if sent {
                published = Instant::now();
            } else if published.elapsed() >= PULSE || stop.stopped() {
                self.publish(&BatchEntries::default(), Now::read().mono, None);
                published = Instant::now();
            }
            if stop.stopped() {
                return;
            }
        }
    }

    fn publish_collected(&mut self) -> bool {
        let (batches, lacks) = lock(&self.shared.collected).take();
        self.number += u64::from(lacks);
        for Collecting { begun, entries } in &batches {
            self.publish(entries, *begun, None);
        }
        !batches.is_empty()
    }

    /// How long it is to the next part of a round; none when there are no rounds.
    fn next_part(&self, now: Mono) -> Option<Duration> {
        lock(&self.shared.source).as_ref()?;
        Some(self.round.due.map_or(Duration::ZERO, |due| due.since(now)))
    }

    /// Publishes a part of a round, when one is due.
    fn publish_part(&mut self, now: Mono) -> bool {
        if self.shared.round_now.swap(false, Ordering::Relaxed) {
            (self.round.parts, self.round.due) = (0, None);
        }
        if self.next_part(now) != Some(Duration::ZERO) {
            return false;
        }
        let Some(source) = lock(&self.shared.source).clone() else { return false };
        let round = &mut self.round;
        if round.parts == 0 {
            let parts = (source.hosts)().div_ceil(HOSTS_PER_PART).max(1);
            *round = Round {
                number: round.number.wrapping_add(1),
                part: 0,
                parts: u16::try_from(parts).unwrap_or(u16::MAX),
                began: now,
                due: None,
            };
        }
        let mut entries = BatchEntries::default();
        for heard in (source.part)(usize::from(round.part) * HOSTS_PER_PART, HOSTS_PER_PART) {
            entries.add_connection(BatchConnection {
                age: field_of(now.since(heard.at)),
                signed: heard.signed,
                host: &heard.host,
                connection: &heard.connection,
            });
        }
        let began = field_of(now.since(round.began));
        let Round { number, part, parts, .. } = *round;
        round.part += 1;
        if round.part == round.parts {
            round.parts = 0;
            round.due = Some((round.began + ROUND).max(now + ROUND / 2));
        } else {
            round.due = Some(round.began + ROUND / u32::from(parts) * u32::from(round.part));
        }
        self.publish(&entries, now, Some(BatchPart { round: number, part, parts, began }));
        true
    }

    /// Publishes a batch that was begun at `begun`. One that Redis does not take is gone.
    fn publish(&mut self, entries: &BatchEntries, begun: Mono, part: Option<BatchPart>) {
        self.number += 1;
        let head = BatchHead {
            node: &self.options.node,
            incarnation: &self.options.incarnation,
            number: self.number,
            at: (self.options.offset)().map(|offset| begun.0.saturating_add(offset)),
        };
        let message = match part {
            Some(part) => entries.encode_last_heard(head, part),
            None => entries.encode_beats(head),
        };
        let beats = if part.is_none() { entries.count() } else { 0 };
        match self.send(&message) {
            Some(Ok(())) => {
                if self.retry.take().is_some() {
                    info!("heartbeats are relayed to the other nodes again");
                }
                self.pause = FIRST_RETRY;
                self.shared.batches.fetch_add(1, Ordering::Relaxed);
                self.shared.beats.fetch_add(beats, Ordering::Relaxed);
            }
            failed => {
                self.shared.dropped.fetch_add(beats, Ordering::Relaxed);
                if let Some(Err(fault)) = failed {
                    self.on_fault(&fault);
                }
            }
        }
    }

    /// None while it is not tried.
    fn send(&mut self, message: &[u8]) -> Option<Result<(), RedisFault>> {
        if self.connection.is_none() {
            if self.retry.is_some_and(|retry| Instant::now() < retry) {
                return None;
            }
            match self.options.connector.connect() {
                Ok(connection) => self.connection = Some(connection),
                Err(fault) => return Some(Err(fault)),
            }
        }
        let connection = self.connection.as_mut()?;
        let publish = redis::cmd("PUBLISH").arg(&self.options.channel).arg(message).to_owned();
        Some(connection.ask::<i64>(&publish).map(drop))
    }

    fn on_fault(&mut self, fault: &RedisFault) {
        self.connection = None;
        if self.retry.is_none() {
            warn!("heartbeats cannot be relayed to the other nodes: {fault}");
        }
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(MAX_RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_leaves_a_number_out() {
        let shared = Shared::default();
        let relay = Relay(Arc::new(shared));
        let datagram = [b'x'; 600];
        let fits = MAX_WAITING / (datagram.len() + 11) + 1;
        for number in 0..fits + 7 {
            relay.push(&datagram, PEER, Mono(number as i64 / 100));
        }
        assert_eq!(relay.counts(), RelayCounts { dropped: 7, ..RelayCounts::default() });
        let (batches, lacks) = lock(&relay.0.collected).take();
        assert!(lacks);
        assert_eq!(batches.iter().map(|batch| batch.entries.count()).sum::<u64>(), fits as u64);
        assert!(batches.iter().rev().skip(1).all(|batch| batch.entries.is_full()));
        relay.push(&datagram, PEER, Mono(0));
        assert!(!lock(&relay.0.collected).take().1, "there is room again");
    }

    #[test]
    fn the_first_datagram_and_a_full_batch_wake_the_publisher() {
        let mut collected = Collected::default();
        assert_eq!(collected.add(b"a", PEER, Mono(5)), Some((true, false)));
        assert_eq!(collected.add(b"b", PEER, Mono(6)), Some((false, false)));
        assert_eq!(collected.add(&[], PEER, Mono(6)), None, "it is no datagram");
        assert!(!collected.lacks);
        let datagram = [b'x'; 8000];
        let full = (0..).find_map(|_| collected.add(&datagram, PEER, Mono(7)).filter(|it| it.1));
        assert_eq!(full, Some((false, true)));
        assert_eq!(collected.add(b"c", PEER, Mono(8)), Some((true, false)));
        assert_eq!(collected.take().0.len(), 2);
    }
}
