//! Small requests go behind the gate together: while those before are on their way, the next ones
//! gather. What each would cost alone, a connection and four threads that wake each other, would be
//! more than all that is done about it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use socket2::SockRef;

use super::batch;
use super::crew::Crew;
use super::gate::STACK;
use super::inner::Inner;
use super::passage::{LINGER, WORK_TIME, linger, printed, unavailable};
use super::seats::{Phase, Ticket};
use super::timed::{Socket, receive_at_once};
use crate::thread::AbortOnPanic;

/// So many go at a time: while one waits for the disk, others gather and are read.
pub const FERRIES: usize = 6;
/// So many requests go together. Each has up to 24 KiB.
const MOST: usize = 64;

/// A request that waits to be taken behind the gate, and who waits for its answer.
pub struct Fare {
    /// The client, to whom nothing was said yet.
    pub socket: Arc<TcpStream>,
    /// Its seat.
    pub ticket: Ticket,
    /// The request.
    pub message: Vec<u8>,
    /// What it asks for.
    pub target: String,
}

/// The way behind the gate for small requests.
pub struct Ferry {
    /// None means the end.
    waiting: Sender<Option<Fare>>,
    ended: Receiver<()>,
}

impl Ferry {
    /// Starts its threads.
    ///
    /// # Errors
    /// Why there are none.
    pub fn start(inner: &Arc<Inner>) -> io::Result<Ferry> {
        let (waiting, fares) = unbounded();
        let (alive, ended) = bounded(0);
        let ferry = Ferry { waiting, ended };
        for number in 1..=FERRIES {
            let (inner, fares, alive) = (Arc::clone(inner), fares.clone(), Sender::clone(&alive));
            let work = move || {
                let _vital = AbortOnPanic;
                let mut goes_on = true;
                while goes_on && let Ok(Some(first)) = fares.recv() {
                    goes_on = carry(&inner, first, &fares);
                }
                drop((inner, alive));
            };
            thread::Builder::new().name(format!("ferry-{number}")).stack_size(STACK).spawn(work)?;
        }
        Ok(ferry)
    }

    /// Takes a request over, up to its answer. There are not more of them than seats.
    pub fn take(&self, fare: Fare) {
        let _ = self.waiting.send(Some(fare));
    }

    /// Ends, once all that was taken over has been answered.
    pub fn close(&self, patience: Duration) {
        (0..FERRIES).for_each(|_| drop(self.waiting.send(None)));
        let _ = self.ended.recv_timeout(patience);
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

/// Takes `first` across, with whoever waits beside it, and brings each its answer; false when the
/// end was among those that waited.
fn carry(inner: &Inner, first: Fare, waiting: &Receiver<Option<Fare>>) -> bool {
    let mut fares = vec![first];
    let mut goes_on = true;
    while goes_on
        && fares.len() < MOST
        && let Ok(next) = waiting.try_recv()
    {
        match next {
            Some(fare) => fares.push(fare),
            None => goes_on = false,
        }
    }
    let answer = cross(inner, &fares);
    let answers = match &answer {
        Ok(bytes) => batch::body_of(bytes).and_then(|body| batch::answers(body, fares.len())),
        Err(why) => {
            log::debug!("requests cannot be taken now: {why}");
            None
        }
    };
    for (at, fare) in fares.iter().enumerate() {
        match &answers {
            Some(answers) => send(fare, answers[at]),
            None => send(fare, &printed(&unavailable(&fare.target))),
        }
    }
    // Nobody waits for the end of a connection.
    fares.into_iter().for_each(end);
    goes_on
}

/// All requests in one, and the answer to that.
fn cross(inner: &Inner, fares: &[Fare]) -> io::Result<Vec<u8>> {
    let mut connection = inner.connect(WORK_TIME)?;
    let length: usize = fares.iter().map(|fare| fare.message.len()).sum();
    let mut bytes = Vec::with_capacity(length + 256);
    write!(bytes, "POST / HTTP/1.1\r\n{}: {}\r\n", batch::HEADER, fares.len())?;
    write!(bytes, "Connection: close\r\nContent-Length: {length}\r\n\r\n")?;
    fares.iter().for_each(|fare| bytes.extend_from_slice(&fare.message));
    connection.write_all(&bytes)?;
    bytes.clear();
    let end = Instant::now() + WORK_TIME;
    let mut piece = [0; 16 * 1024];
    while batch::end_of_answer(&bytes) != Some(bytes.len()) {
        if Instant::now() > end {
            return Err(ErrorKind::TimedOut.into());
        }
        match connection.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
    Ok(bytes)
}

/// Gives a client its answer. It fits into what a connection holds on which nothing was sent yet:
/// nobody is waited for.
fn send(fare: &Fare, answer: &[u8]) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    match SockRef::from(&*fare.socket).send_with_flags(answer, flags) {
        Ok(count) if count == answer.len() => {}
        Ok(_) => log::debug!("a client takes only the beginning of its answer"),
        Err(why) => log::debug!("a client does not take its answer: {why}"),
    }
}

/// Ends a connection whose client has its answer.
fn end(fare: Fare) {
    let more = receive_at_once(&fare.socket, &mut [0]);
    if matches!(more, Ok(count) if count > 0) && fare.ticket.enter(Phase::Lingering) {
        // Rare, and bounded by the seats.
        let _ =
            thread::Builder::new().name("gate-linger".into()).stack_size(STACK).spawn(move || {
                // This thread is none of the gate's.
                let (socket, crew) = (&*fare.socket, &Crew::default());
                linger(Socket { socket, crew, end: Instant::now() + LINGER, stall: LINGER });
            });
    }
}
