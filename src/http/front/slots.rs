//! Connection slots: how many connections there are, and which one is evicted for a new one.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::thread::lock;

/// Connections that are evicted at once, when slots are short.
const EVICTED_AT_ONCE: usize = 8;
/// A large body of which nothing came for so long gives its memory up for others. A good one waits for
/// its turn on a busy machine, too.
const SLOW_BODY: Duration = Duration::from_millis(250);
/// After so long without a change it is looked anew for what may be evicted.
const RECHECK: Duration = Duration::from_millis(50);

/// What a connection is doing.
///
/// ```text
/// ReadingHead -> ReadingBody -> Responding -> (free)
///      \______________________/^
/// ```
///
/// From each but Responding it may be Evicted, for a new connection or at the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// We wait for its head.
    ReadingHead,
    /// We wait for its body.
    ReadingBody,
    /// Its request is being answered.
    Responding,
    /// It is closed, and its worker has still to notice.
    Evicted,
}

impl Phase {
    /// How long a connection may keep its slot from a new one; none is for as long as it needs. A
    /// well-behaved client's body follows its head at once; of a large one, each piece has this time.
    fn grace(self) -> Option<Duration> {
        match self {
            Phase::ReadingHead => Some(Duration::from_millis(250)),
            Phase::ReadingBody => Some(Duration::from_millis(20)),
            Phase::Responding | Phase::Evicted => None,
        }
    }
}

struct Slot {
    socket: Arc<TcpStream>,
    /// Whose body is read, as far as that is known.
    client: Option<IpAddr>,
    phase: Phase,
    since: Instant,
}

struct SlotTable {
    slots: Vec<Option<Slot>>,
    closed: bool,
    evicted: u64,
    /// Threads that wait for a change; to notify none costs a system call, too.
    waiting: usize,
}

/// All slots.
pub struct Slots {
    table: Mutex<SlotTable>,
    changed: Condvar,
}

/// A slot in use, free again when dropped.
pub struct SlotGuard<'a> {
    slots: &'a Slots,
    index: usize,
}

impl Slots {
    /// So many slots, all free.
    pub fn new(count: usize) -> Slots {
        let slots = (0..count).map(|_| None).collect();
        Slots {
            table: Mutex::new(SlotTable { slots, closed: false, evicted: 0, waiting: 0 }),
            changed: Condvar::new(),
        }
    }

    /// A slot for `socket`. When all are in use, the connection that has kept us waiting longest
    /// beyond its grace is evicted; while there is none, the new one waits. None once closed.
    pub fn acquire(&self, socket: Arc<TcpStream>) -> Option<SlotGuard<'_>> {
        let mut table = lock(&self.table);
        loop {
            if table.closed {
                return None;
            }
            if let Some(index) = table.slots.iter().position(Option::is_none) {
                let since = Instant::now();
                table.slots[index] =
                    Some(Slot { socket, client: None, phase: Phase::ReadingHead, since });
                return Some(SlotGuard { slots: self, index });
            }
            table = self.evict_some(table);
        }
    }

    /// Evicts a few connections, since others wait behind the new one, and waits for a change.
    fn evict_some<'a>(&self, mut table: MutexGuard<'a, SlotTable>) -> MutexGuard<'a, SlotTable> {
        let wait = (0..EVICTED_AT_ONCE).find_map(|_| table.evict_first(|_, _| true));
        self.wait(table, wait.unwrap_or(RECHECK))
    }

    fn wait<'a>(
        &self,
        mut table: MutexGuard<'a, SlotTable>,
        timeout: Duration,
    ) -> MutexGuard<'a, SlotTable> {
        table.waiting += 1;
        let waited = self.changed.wait_timeout(table, timeout);
        let mut table = waited.unwrap_or_else(PoisonError::into_inner).0;
        table.waiting -= 1;
        table
    }

    /// Evicts a connection, so that others have its descriptor, even within its grace; false when none
    /// may be.
    pub fn evict(&self) -> bool {
        let mut table = lock(&self.table);
        let Some((_, slot)) = table.first_due(|_, _| true) else { return false };
        slot.evict();
        table.evicted += 1;
        true
    }

    /// How many connections were evicted for new ones, so far.
    pub fn evicted(&self) -> u64 {
        lock(&self.table).evicted
    }

    /// Gives out no more slots, and evicts the connections whose requests are not being answered.
    pub fn close(&self) {
        let mut table = lock(&self.table);
        table.closed = true;
        for slot in table.slots.iter_mut().flatten() {
            if slot.phase.grace().is_some() {
                slot.evict();
            }
        }
        self.changed.notify_all();
    }

    /// Evicts every connection.
    pub fn evict_all(&self) {
        lock(&self.table).slots.iter_mut().flatten().for_each(Slot::evict);
    }

    /// Waits until all slots are free; false when they were not after `timeout`.
    pub fn wait_until_free(&self, timeout: Duration) -> bool {
        let in_use = |table: &mut SlotTable| table.slots.iter().any(Option::is_some);
        let mut table = lock(&self.table);
        table.waiting += 1;
        let waited = self.changed.wait_timeout_while(table, timeout, in_use);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.waiting -= 1;
        !in_use(&mut table)
    }

    fn notify(&self, table: &SlotTable) {
        if table.waiting > 0 {
            self.changed.notify_all();
        }
    }
}

impl SlotTable {
    /// Evicts the connection that has kept us waiting longest beyond its grace, of those that
    /// `among` says; else gives how long until one may be evicted, where there is one.
    fn evict_first(&mut self, among: impl Fn(usize, &Slot) -> bool) -> Option<Duration> {
        let now = Instant::now();
        let (due, slot) = self.first_due(among)?;
        if due <= now {
            slot.evict();
            self.evicted += 1;
            return None;
        }
        Some(due - now)
    }

    fn first_due(&mut self, among: impl Fn(usize, &Slot) -> bool) -> Option<(Instant, &mut Slot)> {
        let slots = self.slots.iter_mut().enumerate();
        slots
            .filter_map(|(index, slot)| slot.as_mut().filter(|slot| among(index, slot)))
            .filter_map(|slot| Some((slot.since + slot.phase.grace()?, slot)))
            .min_by_key(|(due, _)| *due)
    }
}

impl Slot {
    fn evict(&mut self) {
        self.phase = Phase::Evicted;
        // Ends the read of its worker. One that is closed already is no error.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl SlotGuard<'_> {
    /// Begins with the body of `client`; false when the connection was evicted meanwhile.
    pub fn begin_body(&self, client: IpAddr) -> bool {
        if let Some(slot) = &mut lock(&self.slots.table).slots[self.index] {
            slot.client = Some(client);
        }
        self.set_phase(Phase::ReadingBody)
    }

    /// Lets the slowest other body go, of a client or of all, and waits for a moment: for its memory,
    /// or until there is a slow one. False when this connection was evicted meanwhile.
    pub fn evict_slow_body(&self, of: Option<IpAddr>) -> bool {
        // It is not slow: it waits for us.
        if !self.set_phase(Phase::Responding) {
            return false;
        }
        let mut table = lock(&self.slots.table);
        table.evict_first(|index, slot| {
            let is_body = index != self.index && slot.phase == Phase::ReadingBody;
            is_body && slot.since.elapsed() > SLOW_BODY && (of.is_none() || slot.client == of)
        });
        drop(self.slots.wait(table, RECHECK));
        self.set_phase(Phase::ReadingBody)
    }

    /// Goes on to `phase`; false when the connection was evicted meanwhile.
    pub fn set_phase(&self, phase: Phase) -> bool {
        let mut table = lock(&self.slots.table);
        match &mut table.slots[self.index] {
            Some(slot) if slot.phase != Phase::Evicted => {
                (slot.phase, slot.since) = (phase, Instant::now());
                // Once closed, only requests that are being answered go on.
                if table.closed && phase.grace().is_some() {
                    return false;
                }
                // Which one may be evicted next is another one now.
                self.slots.notify(&table);
                true
            }
            _ => false,
        }
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let mut table = lock(&self.slots.table);
        table.slots[self.index] = None;
        self.slots.notify(&table);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(listener.accept().unwrap().0), client)
    }

    fn closed(mut client: TcpStream) -> bool {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_silent_one_leaves_for_a_newcomer_and_the_served_one_stays() {
        let slots = Slots::new(2);
        let (served, _served_client) = pair();
        let (silent, silent_client) = pair();
        let served = slots.acquire(served).unwrap();
        assert!(served.set_phase(Phase::Responding));
        let silent = slots.acquire(silent).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(closed(silent_client));
                assert!(!silent.set_phase(Phase::Responding), "an evicted one is not served");
            });
            assert_eq!(slots.acquire(pair().0).unwrap().index, 1);
        });
        assert_eq!(slots.evicted(), 1);
    }

    #[test]
    fn a_newcomer_waits_while_all_are_served() {
        let slots = Slots::new(1);
        let served = slots.acquire(pair().0).unwrap();
        assert!(served.set_phase(Phase::Responding));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.acquire(pair().0).is_some());
            drop(served);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn closing_sends_the_waiting_away_and_lets_nobody_in() {
        let slots = Slots::new(2);
        let (idle, idle_client) = pair();
        let idle = slots.acquire(idle).unwrap();
        slots.close();
        assert!(closed(idle_client));
        assert!(slots.acquire(pair().0).is_none());
        assert!(!slots.wait_until_free(Duration::ZERO));
        drop(idle);
        assert!(slots.wait_until_free(Duration::ZERO));
    }
}
