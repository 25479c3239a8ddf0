//! The gate: it owns the TCP port, so that tiny_http never meets the network.
//!
//! Each connection has a seat and a thread of its own; the number of seats bounds both. What goes
//! through is one whole, well-formed request, handed to tiny_http over a Unix socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::SockRef;

use super::budget::Budget;
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
}

/// The gate while it is open.
pub struct Gate {
    listener: Arc<TcpListener>,
    seats: Arc<Seats>,
    thread: JoinHandle<()>,
}

impl Gate {
    /// Opens: from now on the listener's connections are served.
    pub fn open(listener: TcpListener, inner: Arc<Inner>, stop: Stop) -> io::Result<Gate> {
        let listener = Arc::new(listener);
        SockRef::from(&*listener).listen(BACKLOG)?;
        let seats = Seats::new(SEATS);
        let permits = Permits::new(PERMITS);
        let floor = Arc::new(Floor { inner, permits, budget: Budget::new(BODIES) });
        let thread = {
            let (listener, seats) = (Arc::clone(&listener), Arc::clone(&seats));
            thread::Builder::new()
                .name("gate".into())
                .spawn(move || accept(&listener, &seats, &floor, &stop))?
        };
        Ok(Gate { listener, seats, thread })
    }

    /// Closes, after the stop: nobody comes in, who is being served gets `patience`.
    pub fn close(self, patience: Duration) {
        // On Linux this wakes `accept` with an error.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        self.seats.close();
        let _ = self.thread.join();
        if !self.seats.wait_until_free(patience) {
            self.seats.clear();
            self.seats.wait_until_free(Duration::from_secs(1));
        }
    }
}

fn accept(listener: &TcpListener, seats: &Arc<Seats>, floor: &Arc<Floor>, stop: &Stop) {
    let _vital = Vital;
    let mut troubled = false;
    let mut crowd = Crowd::default();
    loop {
        match listener.accept() {
            Ok((socket, peer)) => {
                troubled = false;
                let socket = Arc::new(socket);
                let Some(ticket) = seats.take(Arc::clone(&socket)) else { return };
                if let Err(why) = seat(socket, peer.ip().to_canonical(), ticket, floor) {
                    log::warn!("a connection was dropped, no thread could be started: {why}");
                }
                crowd.tell(seats.sent_away());
            }
            Err(_) if stop.stopped() => return,
            Err(why) => {
                if matches!(why.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                    continue;
                }
                if !std::mem::replace(&mut troubled, true) {
                    log::warn!("connections cannot be accepted, trying again: {why}");
                }
                if stop.wait(PAUSE) {
                    return;
                }
            }
        }
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
