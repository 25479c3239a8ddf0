//! Answers that are made or sent by a thread of their own, and how many of a kind at a time: the
//! handlers are two.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tiny_http::{Header, Response, StatusCode};

use super::passage::SPOOL;
use super::reply::{ALWAYS, Body, Reply};

/// So many requests of a kind may be answered by threads of their own at a time.
pub struct Seats {
    /// What is answered.
    pub what: &'static str,
    thread: &'static str,
    most: usize,
    taken: AtomicUsize,
}

impl Seats {
    /// `most` of them.
    pub fn new(what: &'static str, thread: &'static str, most: usize) -> Arc<Seats> {
        Arc::new(Seats { what, thread, most, taken: AtomicUsize::new(0) })
    }

    /// One of them, while there is one.
    pub fn take(self: &Arc<Seats>) -> Option<Seat> {
        let seat = Seat(Arc::clone(self));
        // One that is too many is given back by its drop.
        (self.taken.fetch_add(1, Ordering::SeqCst) < self.most).then_some(seat)
    }
}

/// Counts a request while it is being answered.
pub struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Answers a request from a thread of its own.
pub fn aside(
    seats: &Arc<Seats>,
    request: tiny_http::Request,
    work: impl FnOnce(tiny_http::Request, Seat) + Send + 'static,
) {
    let what = seats.what;
    let Some(seat) = seats.take() else { return send_away(request, what) };
    let started =
        thread::Builder::new().name(seats.thread.into()).spawn(move || work(request, seat));
    if let Err(why) = started {
        log::warn!("one of the {what} was dropped, no thread could be started: {why}");
    }
}

/// When all seats are taken.
pub fn send_away(request: tiny_http::Request, what: &str) {
    let busy = Reply::problem(request.url(), 503, &format!("too many {what} at once"));
    send(request, busy);
}

/// Sends an answer.
pub fn send(request: tiny_http::Request, reply: Reply) {
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = headers
        .chain([("Content-Type", reply.content_type)])
        .chain(ALWAYS)
        .filter_map(|(name, value)| Header::from_bytes(name, value).ok())
        .collect();
    let (body, length): (Box<dyn Read + Send>, _) = match reply.body {
        Body::Whole(bytes) => {
            let length = bytes.len();
            (Box::new(io::Cursor::new(bytes)), Some(length))
        }
        Body::Stream(stream) => (stream, None),
    };
    // Above its threshold tiny_http would chunk even what has a length.
    let response = Response::new(StatusCode(reply.status), headers, body, length, None)
        .with_chunked_threshold(usize::MAX);
    let sent = catch_unwind(AssertUnwindSafe(|| request.respond(response)));
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(why)) => log::debug!("an answer was not taken: {why}"),
        Err(_) => log::error!("sending an answer panicked"),
    }
}

/// As [`finish`], but a large page is a large answer: of slow readers there may be only a few.
pub fn show(
    request: tiny_http::Request,
    seat: Seat,
    streams: &Arc<Seats>,
    work: Box<dyn FnOnce() -> Reply + Send>,
) {
    let reply = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| broken(&request));
    drop(seat);
    if !matches!(&reply.body, Body::Whole(bytes) if bytes.len() > SPOOL) {
        return send(request, reply);
    }
    let Some(_seat) = streams.take() else {
        return send_away(request, streams.what);
    };
    send(request, reply);
}

/// Makes an answer and sends it.
pub fn finish(request: tiny_http::Request, seat: Seat, work: Box<dyn FnOnce() -> Reply + Send>) {
    let reply = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| broken(&request));
    // The gate lets the next one in as soon as it has the answer: it must find a free seat.
    drop(seat);
    send(request, reply);
}

/// The answer when ours panicked.
pub fn broken(request: &tiny_http::Request) -> Reply {
    log::error!("the answer to {} {} panicked", request.method(), request.url());
    Reply::problem(request.url(), 500, "this is a bug, see the log")
}
