//! Where a request is answered: at once, or by a thread that has time, and how it is sent.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use tiny_http::{Header, Response, StatusCode};

use super::api::{Answered, Request, answer};
use super::auth::Guard;
use super::front::backend::Inner;
use super::front::batch;
use super::front::exchange::SPOOL;
use super::front::request::LONGEST_BODY;
use super::response::{ALWAYS, Body, Reply};
use super::service::House;
use crate::clock::Now;
use crate::thread::AbortOnPanic;

/// What the handler threads share.
pub struct Desk {
    pub house: Arc<dyn House>,
    pub guard: Arc<Guard>,
    pub streams: Arc<Seats>,
    pub waits: Arc<Seats>,
    pub disk: Arc<Seats>,
    pub searches: Arc<Seats>,
    pub pages: Arc<Seats>,
    /// What waits for the disk, in the order in which the disk gets it: one thread waits for all.
    pub stored: Sender<Waiting>,
}

/// A request whose answer comes when what it brought is on the disk.
pub struct Waiting {
    request: tiny_http::Request,
    seat: Seat,
    work: Box<dyn FnOnce() -> Reply + Send>,
}

/// Answers requests until the stop. The drop of `alive` tells that this thread has let go of the
/// server: its socket must still be there when it ends.
pub fn serve(inner: Arc<Inner>, desk: &Arc<Desk>, alive: Sender<()>) {
    let _vital = AbortOnPanic;
    while let Some(request) = inner.next() {
        handle(desk, request);
    }
    drop((inner, alive));
}

/// Answers what is stored, until no handler is left.
pub fn answer_stored(waiting: &Receiver<Waiting>, alive: Sender<()>) {
    let _vital = AbortOnPanic;
    for Waiting { request, seat, work } in waiting {
        finish(request, seat, work);
    }
    drop(alive);
}

/// What is to be done about a request.
enum Made {
    Short(Reply),
    Long(Reply),
    Later(Box<dyn FnOnce() -> Reply + Send>),
    Stored(Box<dyn FnOnce() -> Reply + Send>),
    Searched(Box<dyn FnOnce() -> Reply + Send>),
    Drawn(Box<dyn FnOnce() -> Reply + Send>),
}

fn handle(desk: &Desk, mut request: tiny_http::Request) {
    if header(&request, batch::HEADER).is_some() {
        return handle_batch(desk, request);
    }
    let make = || match make(desk, &mut request) {
        Answered::Now(reply) => spool(reply),
        Answered::Later(work) => Made::Later(work),
        Answered::Stored(work) => Made::Stored(work),
        Answered::Searched(work) => Made::Searched(work),
        Answered::Drawn(work) => Made::Drawn(work),
    };
    match catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| Made::Short(broken(&request))) {
        Made::Short(reply) => send(request, reply),
        // A client may take a minute to read it, and the handlers are two.
        Made::Long(reply) => aside(&desk.streams, request, |request, seat| {
            send(request, reply);
            drop(seat);
        }),
        Made::Later(work) => {
            aside(&desk.waits, request, |request, seat| finish(request, seat, work))
        }
        Made::Stored(work) => store(desk, request, work),
        Made::Searched(work) => {
            aside(&desk.searches, request, |request, seat| finish(request, seat, work))
        }
        Made::Drawn(work) => {
            let streams = Arc::clone(&desk.streams);
            aside(&desk.pages, request, move |request, seat| show(request, seat, &streams, work));
        }
    }
}

/// As [`finish`], but a large page is a large answer: of slow readers there may be only a few.
fn show(
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
        let busy = Reply::problem(request.url(), 503, "too many large answers at once");
        return send(request, busy);
    };
    send(request, reply);
}

fn finish(request: tiny_http::Request, seat: Seat, work: Box<dyn FnOnce() -> Reply + Send>) {
    let reply = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| broken(&request));
    // The gate lets the next one in as soon as it has the answer: it must find a free seat.
    drop(seat);
    send(request, reply);
}

fn broken(request: &tiny_http::Request) -> Reply {
    broken_at(request.method().as_str(), request.url())
}

fn broken_at(method: &str, target: &str) -> Reply {
    log::error!("the answer to {method} {target} panicked");
    Reply::problem(target, 500, "this is a bug, see the log")
}

fn store(desk: &Desk, request: tiny_http::Request, work: Box<dyn FnOnce() -> Reply + Send>) {
    match desk.disk.take() {
        // The thread ends after the handlers.
        Some(seat) => drop(desk.stored.send(Waiting { request, seat, work })),
        None => send_away(request, desk.disk.what),
    }
}

/// Answers several requests in one. What some of them wait for is the disk, for all together.
fn handle_batch(desk: &Desk, mut request: tiny_http::Request) {
    let begin_all = || {
        let body = whole_body(&mut request).ok()?;
        let all = batch::requests(&body)?;
        Some(all.iter().map(|one| begin(desk, one)).collect::<Vec<Begun>>())
    };
    let begun = match catch_unwind(AssertUnwindSafe(begin_all)) {
        Ok(Some(begun)) => begun,
        Ok(None) => return send(request, Reply::text(400, "this is no batch of requests")),
        Err(_) => {
            let reply = broken(&request);
            return send(request, reply);
        }
    };
    let at_once = begun.iter().all(|one| matches!(one, Begun::Ended(_)));
    let all = move || {
        let now = Now::read().wall;
        let end = |one| match one {
            Begun::Ended(reply) => reply,
            Begun::Waits(work) => work(),
        };
        let printed: Vec<Vec<u8>> = begun.into_iter().map(|one| end(one).printed(now)).collect();
        Reply::whole(200, batch::TYPE, printed.concat())
    };
    if at_once { send(request, all()) } else { store(desk, request, Box::new(all)) }
}

/// A request of a batch with which was begun.
enum Begun {
    Ended(Reply),
    Waits(Box<dyn FnOnce() -> Reply + Send>),
}

/// A panic is the answer to this request, and to no other.
fn begin(desk: &Desk, one: &Request) -> Begun {
    let (method, target) = (one.method.to_owned(), one.target.to_owned());
    match catch_unwind(AssertUnwindSafe(|| answer(&desk.house, &desk.guard, one))) {
        Ok(Answered::Now(reply)) => Begun::Ended(reply),
        Ok(
            Answered::Stored(work)
            | Answered::Later(work)
            | Answered::Searched(work)
            | Answered::Drawn(work),
        ) => Begun::Waits(Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            done.unwrap_or_else(|_| broken_at(&method, &target))
        })),
        Err(_) => Begun::Ended(broken_at(&method, &target)),
    }
}

fn make(desk: &Desk, request: &mut tiny_http::Request) -> Answered {
    let body = match whole_body(request) {
        Ok(body) => body,
        Err(why) => return Answered::Now(Reply::problem(request.url(), 400, &why)),
    };
    let named = |name: &'static str| header(request, name);
    let asked = batch::asked(request.method().as_str(), request.url(), named, &body);
    answer(&desk.house, &desk.guard, &asked)
}

fn whole_body(request: &mut tiny_http::Request) -> Result<Vec<u8>, String> {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0).min(LONGEST_BODY) + 1);
    let read = request.as_reader().read_to_end(&mut body);
    read.map_err(|why| format!("the body cannot be read: {why}"))?;
    // The gate passes on whole bodies only, but it may give up while it does.
    if request.body_length() == Some(body.len()) {
        Ok(body)
    } else {
        Err("the body is cut off".into())
    }
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    let found = request.headers().iter().find(|header| header.field.equiv(name));
    found.map(|header| header.value.as_str())
}

/// Makes a small stream whole.
fn spool(reply: Reply) -> Made {
    let mut stream = match reply.body {
        Body::Whole(ref bytes) if bytes.len() > SPOOL => return Made::Long(reply),
        Body::Whole(_) => return Made::Short(reply),
        Body::Stream(stream) => stream,
    };
    let mut bytes = Vec::new();
    if stream.by_ref().take(SPOOL as u64).read_to_end(&mut bytes).is_err() {
        return Made::Short(Reply::text(500, "the answer cannot be made"));
    }
    if bytes.len() < SPOOL {
        return Made::Short(Reply { body: Body::Whole(bytes), ..reply });
    }
    let body = Body::Stream(Box::new(io::Cursor::new(bytes).chain(stream)));
    Made::Long(Reply { body, ..reply })
}

/// So many requests of a kind may be answered by threads of their own at a time.
pub struct Seats {
    what: &'static str,
    thread: &'static str,
    most: usize,
    taken: AtomicUsize,
}

impl Seats {
    pub fn new(what: &'static str, thread: &'static str, most: usize) -> Arc<Seats> {
        Arc::new(Seats { what, thread, most, taken: AtomicUsize::new(0) })
    }

    fn take(self: &Arc<Seats>) -> Option<Seat> {
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
fn aside(
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

fn send_away(request: tiny_http::Request, what: &str) {
    let busy = Reply::problem(request.url(), 503, &format!("too many {what} at once"));
    send(request, busy);
}

fn send(request: tiny_http::Request, reply: Reply) {
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
