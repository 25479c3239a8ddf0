//! The gate: it owns the TCP port, so that tiny_http never meets the network.
//!
//! Each connection has a seat; the number of seats bounds them, and the threads. What goes through
//! is one whole, well-formed request, handed to tiny_http over a Unix socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};

use self::backend::Inner;
use self::batch::Ferry;
use self::certificate::Shown;
use self::exchange::HEAD_TIME;
use self::idle::{Next, Room};
use self::request::Budget;
use self::slots::Seats;
use self::workers::Crew;
use crate::thread::{AbortOnPanic, Stop};

pub mod backend;
pub mod batch;
pub mod certificate;
pub mod exchange;
mod idle;
pub mod request;
mod slots;
mod stream;
mod workers;

/// Connections at a time. A seat costs one descriptor, and while its client is waited for a thread
/// with a small stack.
const SEATS: usize = 256;
/// Requests behind the gate at a time; each costs three more descriptors.
pub const PERMITS: usize = 64;
/// What the bodies of all requests may take, beyond 16 KiB each (with 256 seats: 4 MiB).
const BODIES: usize = 12 << 20;
/// Alertmanager opens hundreds of connections within a second.
const BACKLOG: i32 = 1024;
pub const STACK: usize = 128 * 1024;
/// How long a thread has nothing to do before it asks whether it is still needed.
const BOREDOM: Duration = Duration::from_secs(30);
/// After an error of `accept` (there are no descriptors left, mostly).
const PAUSE: Duration = Duration::from_millis(50);
/// How long a listener that was left finishes the handshakes that have begun there.
const LAST_CALL: Duration = Duration::from_millis(200);
/// Between two lines of the log about a crowd.
const CROWD_PAUSE: Duration = Duration::from_secs(60);

/// What all connections share.
pub struct Floor {
    /// Where requests go.
    pub inner: Arc<Inner>,
    /// How many may be there at a time.
    pub permits: Permits,
    /// What their bodies may take.
    pub budget: Budget,
    /// What connections are shown, when they are encrypted.
    pub shown: Arc<Shown>,
    /// The threads.
    pub crew: Arc<Crew>,
    /// How small requests get there.
    pub ferry: Ferry,
}

/// The gate while it is open.
pub struct Gate {
    door: Arc<Door>,
}

/// What the threads at the gate share.
struct Door {
    room: Room,
    /// The number of the door that is open at present.
    open: AtomicU64,
    seats: Arc<Seats>,
    floor: Floor,
    stop: Stop,
    /// `accept` gave an error, and no connection since.
    troubled: AtomicBool,
    crowd: Mutex<Crowd>,
    hired: AtomicUsize,
}

impl Gate {
    /// Opens: from now on the listener's connections are served.
    pub fn open(
        listener: TcpListener,
        inner: Arc<Inner>,
        shown: Arc<Shown>,
        stop: Stop,
    ) -> io::Result<Gate> {
        prepare(&listener)?;
        let room = Room::new()?;
        let open = AtomicU64::new(room.open(listener)?);
        let floor = Floor {
            ferry: Ferry::start(&inner)?,
            inner,
            permits: Permits::new(PERMITS),
            budget: Budget::new(BODIES),
            shown,
            crew: Arc::default(),
        };
        let door = Arc::new(Door {
            room,
            open,
            seats: Seats::new(SEATS),
            floor,
            stop,
            troubled: AtomicBool::new(false),
            crowd: Mutex::default(),
            hired: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&door);
        door.floor.crew.hire_with(move || match weak.upgrade() {
            Some(door) => door.hire(),
            None => Err(ErrorKind::NotFound.into()),
        })?;
        Ok(Gate { door })
    }

    /// Moves to another listener: no more connections come in through the old one, and those that
    /// did go on. Takes a moment, in which nobody is turned away.
    pub fn move_to(&self, listener: TcpListener) -> io::Result<()> {
        prepare(&listener)?;
        let room = &self.door.room;
        let old = self.door.open.swap(room.open(listener)?, Ordering::Relaxed);
        if let Some(listener) = room.listener(old) {
            turn_away(&listener);
        }
        // Who has begun to come in is let in.
        self.door.stop.wait(LAST_CALL);
        room.shut(old);
        Ok(())
    }

    /// Calls `open` while another listener may be opened at this one's port, as 0.0.0.0 beside
    /// 127.0.0.1.
    pub fn beside<T>(&self, open: impl FnOnce() -> T) -> T {
        let listener = self.door.room.listener(self.door.open.load(Ordering::Relaxed));
        let share = |shared| {
            listener.iter().for_each(|one| drop(SockRef::from(&**one).set_reuse_port(shared)));
        };
        share(true);
        let opened = open();
        share(false);
        opened
    }

    /// Closes, after the stop: nobody comes in, who is being served gets `patience`.
    pub fn close(self, patience: Duration) {
        let Door { room, seats, floor, .. } = &*self.door;
        room.close();
        floor.crew.close();
        seats.close();
        if !seats.wait_until_free(patience) {
            seats.clear();
            seats.wait_until_free(Duration::from_secs(1));
        }
        floor.crew.wait_until_gone(Duration::from_secs(1));
        floor.ferry.close(Duration::from_secs(1));
    }
}

fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.listen(BACKLOG)?;
    // Connections have it from their listener.
    socket.set_tcp_nodelay(true)
}

/// Lets no new connection begin: a SYN is dropped and comes again a second later (RFC 6298), by
/// then to the listener that took over the port, where there is one. Handshakes that have begun
/// are finished: a listener that is closed resets whoever has not been accepted.
fn turn_away(listener: &TcpListener) {
    let step = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    // Drops the segment when of SYN and ACK in the flags, byte 13 of the header, only SYN is set.
    let filter = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0x12),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0x02),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    if let Err(why) = SockRef::from(listener).attach_filter(&filter) {
        log::debug!("the old listener goes on to take connections while it is closed: {why}");
    }
}

impl Door {
    fn hire(self: Arc<Door>) -> io::Result<()> {
        let number = self.hired.fetch_add(1, Ordering::Relaxed) + 1;
        let crew = Arc::clone(&self.floor.crew);
        let work = move || {
            let _vital = AbortOnPanic;
            self.floor.crew.begins();
            while self.floor.crew.come_to_door(BOREDOM) {
                self.serve_next();
            }
            drop(self);
            // It comes last: once all are gone, nobody holds the server any more.
            crew.is_gone();
        };
        thread::Builder::new()
            .name(format!("gate-{number}"))
            .stack_size(STACK)
            .spawn(work)
            .map(drop)
    }

    /// Takes the next connection and serves it.
    fn serve_next(&self) {
        match self.room.next(BOREDOM, HEAD_TIME) {
            Next::Guest(socket, peer) => {
                self.troubled.store(false, Ordering::Relaxed);
                self.serve(socket, peer);
            }
            _ if self.stop.stopped() => self.floor.crew.close(),
            Next::Nobody => {}
            Next::Trouble(why) => {
                if !self.troubled.swap(true, Ordering::Relaxed) {
                    log::warn!("connections cannot be accepted, trying again: {why}");
                }
                self.stop.wait(PAUSE);
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: IpAddr) {
        let socket = Arc::new(socket);
        let Some(ticket) = self.seats.take(Arc::clone(&socket)) else { return };
        self.crowd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tell(self.seats.sent_away() + self.room.sent_away());
        let serve = || exchange::serve(&socket, peer, ticket, &self.floor);
        if catch_unwind(AssertUnwindSafe(serve)).is_err() {
            log::error!("serving a connection panicked");
        }
    }
}

/// Says now and then that connections have to leave for others.
#[derive(Default)]
struct Crowd {
    told: Option<(Instant, u64)>,
}

impl Crowd {
    fn tell(&mut self, sent_away: u64) {
        let (before, quiet) = match self.told {
            Some((at, count)) => (count, at.elapsed() < CROWD_PAUSE),
            None => (0, false),
        };
        if sent_away > before && !quiet {
            let new = sent_away - before;
            log::warn!("too many connections, {new} silent ones were closed for others");
            self.told = Some((Instant::now(), sent_away));
        }
    }
}

/// A number of permits, each of which one can have at a time.
pub struct Permits {
    counts: Mutex<Counts>,
    given_back: Condvar,
}

struct Counts {
    free: usize,
    /// Who waits for one; waking nobody costs a system call, too.
    waiting: usize,
}

/// Given back when dropped.
pub struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(free: usize) -> Permits {
        Permits { counts: Mutex::new(Counts { free, waiting: 0 }), given_back: Condvar::new() }
    }

    /// A permit, when one is free within `patience`.
    pub fn take(&self, patience: Duration) -> Option<Permit<'_>> {
        let mut counts = self.lock();
        counts.waiting += 1;
        let none = |counts: &mut Counts| counts.free == 0;
        let waited = self.given_back.wait_timeout_while(counts, patience, none);
        let (mut counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.waiting -= 1;
        counts.free = counts.free.checked_sub(1)?;
        Some(Permit(self))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.free += 1;
        if counts.waiting > 0 {
            self.0.given_back.notify_one();
        }
    }
}
