//! The gate: it owns the TCP port, so that tiny_http never meets the network.
//!
//! Each connection has a seat and a thread of its own; the number of seats bounds both. What goes
//! through is one whole, well-formed request, handed to tiny_http over a Unix socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::{SockFilter, SockRef};

use super::budget::Budget;
use super::identity::Shown;
use super::inner::Inner;
use super::passage;
use super::seats::{Seats, Ticket};
use crate::stop::{Stop, Vital};

/// Connections at a time. A seat costs a thread with a small stack and one descriptor.
const SEATS: usize = 256;
/// Requests behind the gate at a time; each costs three more descriptors.
pub const PERMITS: usize = 32;
/// What the bodies of all requests may take, beyond 16 KiB each (with 256 seats: 4 MiB).
const BODIES: usize = 12 << 20;
/// Alertmanager opens hundreds of connections within a second.
const BACKLOG: i32 = 1024;
const STACK: usize = 128 * 1024;
/// After an error of `accept` (there are no descriptors left, mostly).
const PAUSE: Duration = Duration::from_millis(50);
/// How long a listener that was left finishes the handshakes that have begun there.
const LAST_CALL: Duration = Duration::from_millis(500);
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
    /// What connections are encrypted with, when they are.
    pub shown: Shown,
}

impl Floor {
    /// An empty one.
    pub fn new(inner: Arc<Inner>, shown: Shown) -> Floor {
        let permits = Permits::new(PERMITS);
        Floor { inner, permits, budget: Budget::new(BODIES), shown }
    }
}

/// The gate while it is open.
pub struct Gate {
    floor: Arc<Floor>,
    seats: Arc<Seats>,
    stop: Stop,
    door: Door,
    /// Doors that were closed for others, as long as their threads run.
    closed: Vec<JoinHandle<()>>,
}

/// A listener, and the thread that takes its connections.
struct Door {
    listener: Arc<TcpListener>,
    /// Its drop wakes the thread, and tells it that the door closes.
    open: UnixStream,
    thread: JoinHandle<()>,
}

impl Gate {
    /// Opens: from now on the listener's connections are served.
    pub fn open(listener: TcpListener, floor: Arc<Floor>, stop: Stop) -> io::Result<Gate> {
        let seats = Seats::new(SEATS);
        let door = Door::open(listener, &seats, &floor, &stop)?;
        Ok(Gate { floor, seats, stop, door, closed: Vec::new() })
    }

    /// Moves to another listener: no more connections come in through the old one, but those that
    /// did go on.
    pub fn move_to(&mut self, listener: TcpListener) -> io::Result<()> {
        let new = Door::open(listener, &self.seats, &self.floor, &self.stop)?;
        let old = std::mem::replace(&mut self.door, new);
        // It may have to be opened again before this one is gone.
        let _ = SockRef::from(&*old.listener).set_reuse_port(true);
        self.closed.retain(|thread| !thread.is_finished());
        self.closed.push(old.close());
        Ok(())
    }

    /// Calls `open` while another listener may be opened at this one's port, as 0.0.0.0 beside
    /// 127.0.0.1.
    pub fn beside<T>(&self, open: impl FnOnce() -> T) -> T {
        let listener = SockRef::from(&*self.door.listener);
        let _ = listener.set_reuse_port(true);
        let opened = open();
        let _ = listener.set_reuse_port(false);
        opened
    }

    /// Closes, after the stop: nobody comes in, who is being served gets `patience`.
    pub fn close(self, patience: Duration) {
        // Sends away whoever waits to come in.
        let _ = SockRef::from(&*self.door.listener).shutdown(Shutdown::Both);
        self.seats.close();
        for thread in self.closed.into_iter().chain([self.door.close()]) {
            let _ = thread.join();
        }
        if !self.seats.wait_until_free(patience) {
            self.seats.clear();
            self.seats.wait_until_free(Duration::from_secs(1));
        }
    }
}

impl Door {
    fn open(
        listener: TcpListener,
        seats: &Arc<Seats>,
        floor: &Arc<Floor>,
        stop: &Stop,
    ) -> io::Result<Door> {
        let listener = Arc::new(listener);
        SockRef::from(&*listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let (open, closing) = UnixStream::pair()?;
        let ends = Ends { stop: stop.clone(), closing };
        let thread = {
            let (listener, seats) = (Arc::clone(&listener), Arc::clone(seats));
            let floor = Arc::clone(floor);
            thread::Builder::new()
                .name("gate".into())
                .spawn(move || accept(&listener, &seats, &floor, &ends))?
        };
        Ok(Door { listener, open, thread })
    }

    /// Lets its thread take whoever is about to come in, and then end.
    fn close(self) -> JoinHandle<()> {
        drop(self.open);
        self.thread
    }
}

/// What ends a door.
struct Ends {
    /// Everything ends.
    stop: Stop,
    /// Broken when another door has taken its place.
    closing: UnixStream,
}

fn accept(listener: &TcpListener, seats: &Arc<Seats>, floor: &Arc<Floor>, ends: &Ends) {
    let _vital = Vital;
    let mut troubled = false;
    let mut crowd = Crowd::default();
    let mut last_call: Option<Instant> = None;
    loop {
        if !wait(listener, &ends.closing, last_call) && last_call.is_none() {
            turn_away(listener);
            last_call = Some(Instant::now() + LAST_CALL);
        }
        match listener.accept() {
            _ if ends.stop.stopped() => return,
            Ok((socket, peer)) => {
                troubled = false;
                let socket = Arc::new(socket);
                let Some(ticket) = seats.take(Arc::clone(&socket)) else { return };
                if let Err(why) = seat(socket, peer.ip().to_canonical(), ticket, floor) {
                    log::warn!("a connection was dropped, no thread could be started: {why}");
                }
                crowd.tell(seats.sent_away());
            }
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                if last_call.is_some_and(|end| Instant::now() >= end) {
                    return;
                }
            }
            Err(why) => {
                if matches!(why.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                    continue;
                }
                if !std::mem::replace(&mut troubled, true) {
                    log::warn!("connections cannot be accepted, trying again: {why}");
                }
                if ends.stop.wait(PAUSE) {
                    return;
                }
            }
        }
    }
}

/// Waits for a connection, until the `end` where there is one; false when the door closes.
fn wait(listener: &TcpListener, closing: &UnixStream, end: Option<Instant>) -> bool {
    let watch = |descriptor| libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let mut both = [watch(listener.as_raw_fd()), watch(closing.as_raw_fd())];
    // Once it closes, its sign is there for good and would end every wait.
    let (count, millis) = match end {
        None => (2, -1),
        Some(end) => (1, end.saturating_duration_since(Instant::now()).as_millis() as i32 + 1),
    };
    // SAFETY: the pointer is to `both`, of which so many are there (poll(2)). An error, such as an
    // interruption, is a wait that ended early.
    unsafe { libc::poll(both.as_mut_ptr(), count, millis) };
    both[1].revents == 0
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

fn seat(
    socket: Arc<TcpStream>,
    peer: IpAddr,
    ticket: Ticket,
    floor: &Arc<Floor>,
) -> io::Result<()> {
    // Fails when the peer has gone again: its thread will find out.
    let _ = socket.set_nodelay(true);
    let floor = Arc::clone(floor);
    thread::Builder::new()
        .name(format!("gate-{}", ticket.number))
        .stack_size(STACK)
        .spawn(move || {
            passage::serve(&socket, peer, &ticket, &floor);
            // The seat comes last: once all are free, nobody holds the server any more.
            drop((floor, ticket));
        })
        .map(drop)
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
            log::warn!("all {SEATS} connections are taken, {new} silent ones were closed");
            self.told = Some((Instant::now(), sent_away));
        }
    }
}

/// A number of permits, each of which one can have at a time.
pub struct Permits {
    give: Sender<()>,
    take: Receiver<()>,
}

/// Given back when dropped.
pub struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(count: usize) -> Permits {
        let (give, take) = bounded(count);
        (0..count).for_each(|_| give.send(()).expect("both ends are ours"));
        Permits { give, take }
    }

    /// A permit, when one is free within `patience`.
    pub fn take(&self, patience: Duration) -> Option<Permit<'_>> {
        self.take.recv_timeout(patience).ok().map(|()| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let _ = self.0.give.try_send(());
    }
}
