//! The places for connections: how many there are, and who has to leave for a newcomer.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// We wait for its head.
    Head,
    /// We wait for its body.
    Body,
    /// It waits for us: its request is being answered.
    Working,
    /// It was answered; what it still sends is thrown away.
    Lingering,
    /// It was told to go.
    Leaving,
}

impl Phase {
    /// How long a connection may keep its seat from a newcomer; none is for as long as it needs.
    /// Whoever is served keeps it; whoever lets us wait does not. A good client's body follows its
    /// head at once, but it may be large: it gets more time.
    fn patience(self) -> Option<Duration> {
        match self {
            Phase::Head => Some(Duration::from_millis(250)),
            Phase::Body => Some(Duration::from_secs(2)),
            Phase::Lingering => Some(Duration::from_millis(50)),
            Phase::Working | Phase::Leaving => None,
        }
    }
}

struct Seat {
    socket: Arc<TcpStream>,
    phase: Phase,
    since: Instant,
}

struct Table {
    seats: Vec<Option<Seat>>,
    closed: bool,
    sent_away: u64,
    /// Who waits for a change; waking nobody costs a system call, too.
    waiting: usize,
}

/// All seats.
pub struct Seats {
    table: Mutex<Table>,
    changed: Condvar,
}

/// A seat that is taken; dropping it gives it back.
pub struct Ticket {
    seats: Arc<Seats>,
    /// Which one it is.
    pub number: usize,
}

impl Seats {
    /// So many of them, all free.
    pub fn new(count: usize) -> Arc<Seats> {
        let seats = (0..count).map(|_| None).collect();
        Arc::new(Seats {
            table: Mutex::new(Table { seats, closed: false, sent_away: 0, waiting: 0 }),
            changed: Condvar::new(),
        })
    }

    /// Takes a seat for `socket`. When all are taken, whoever has kept us waiting longest beyond
    /// its patience is closed; while there is nobody like that, the newcomer waits. None when no
    /// more are let in.
    pub fn take(self: &Arc<Seats>, socket: Arc<TcpStream>) -> Option<Ticket> {
        let mut table = self.lock();
        loop {
            if table.closed {
                return None;
            }
            if let Some(number) = table.seats.iter().position(Option::is_none) {
                let seat = Seat { socket, phase: Phase::Head, since: Instant::now() };
                table.seats[number] = Some(seat);
                return Some(Ticket { seats: Arc::clone(self), number });
            }
            table = self.make_room(table);
        }
    }

    fn make_room<'a>(&self, mut table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
        let now = Instant::now();
        let first = table
            .seats
            .iter_mut()
            .flatten()
            .filter_map(|seat| Some((seat.since + seat.phase.patience()?, seat)))
            .min_by_key(|(due, _)| *due);
        let wait = match first {
            Some((due, _)) if due > now => Some(due - now),
            Some((_, seat)) => {
                seat.leave();
                table.sent_away += 1;
                None
            }
            None => None,
        };
        table.waiting += 1;
        let mut table = match wait {
            Some(wait) => {
                self.changed.wait_timeout(table, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait(table).unwrap_or_else(PoisonError::into_inner),
        };
        table.waiting -= 1;
        table
    }

    /// How many had to leave for a newcomer, so far.
    pub fn sent_away(&self) -> u64 {
        self.lock().sent_away
    }

    /// Lets nobody in any more, and sends away whoever is not being served.
    pub fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        for seat in table.seats.iter_mut().flatten() {
            if seat.phase.patience().is_some() {
                seat.leave();
            }
        }
        self.changed.notify_all();
    }

    /// Sends everybody away.
    pub fn clear(&self) {
        self.lock().seats.iter_mut().flatten().for_each(Seat::leave);
    }

    /// Waits until all seats are free; false when they were not after `patience`.
    pub fn wait_until_free(&self, patience: Duration) -> bool {
        let taken = |table: &mut Table| table.seats.iter().any(Option::is_some);
        let mut table = self.lock();
        table.waiting += 1;
        let waited = self.changed.wait_timeout_while(table, patience, taken);
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        table.waiting -= 1;
        !taken(&mut table)
    }

    fn tell(&self, table: &Table) {
        if table.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn leave(&mut self) {
        self.phase = Phase::Leaving;
        // Wakes the thread that reads from it; that it is closed already is no trouble.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Ticket {
    /// Goes on to `phase`; false when the connection was told to go meanwhile.
    pub fn enter(&self, phase: Phase) -> bool {
        let mut table = self.seats.lock();
        match &mut table.seats[self.number] {
            Some(seat) if seat.phase != Phase::Leaving => {
                (seat.phase, seat.since) = (phase, Instant::now());
                // Whoever waits for a seat must reckon anew; and once closed, only the served stay.
                if table.closed && phase.patience().is_some() && phase != Phase::Lingering {
                    return false;
                }
                self.seats.tell(&table);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.seats.lock();
        table.seats[self.number] = None;
        self.seats.tell(&table);
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
        let seats = Seats::new(2);
        let (served, _served_client) = pair();
        let (silent, silent_client) = pair();
        let served = seats.take(served).unwrap();
        assert!(served.enter(Phase::Working));
        let silent = seats.take(silent).unwrap();
        let thread = thread::spawn(move || {
            assert!(closed(silent_client));
            assert!(!silent.enter(Phase::Working), "who was told to go is not served");
        });
        assert_eq!(seats.take(pair().0).unwrap().number, 1);
        thread.join().unwrap();
        assert_eq!(seats.sent_away(), 1);
        assert!(served.enter(Phase::Lingering));
    }

    #[test]
    fn a_newcomer_waits_while_all_are_served() {
        let seats = Seats::new(1);
        let ticket = seats.take(pair().0).unwrap();
        assert!(ticket.enter(Phase::Working));
        let waiting = {
            let seats = Arc::clone(&seats);
            thread::spawn(move || seats.take(pair().0).is_some())
        };
        drop(ticket);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn closing_sends_the_waiting_away_and_lets_nobody_in() {
        let seats = Seats::new(2);
        let (idle, idle_client) = pair();
        let idle = seats.take(idle).unwrap();
        seats.close();
        assert!(closed(idle_client));
        assert!(seats.take(pair().0).is_none());
        assert!(!seats.wait_until_free(Duration::ZERO));
        drop(idle);
        assert!(seats.wait_until_free(Duration::ZERO));
    }
}
