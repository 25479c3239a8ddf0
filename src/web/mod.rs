//! The HTTP side: the gate on the network, tiny_http behind it, and what is answered.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tiny_http::{Header, Response, StatusCode};

use crate::secret::Secret;
use crate::stop::{self, Stopper, Vital};

mod answer;
mod budget;
mod chunks;
mod gate;
mod head;
mod house;
mod inner;
pub mod metrics;
mod passage;
mod reply;
mod routes;
mod seats;
pub mod settings;
mod stream;
mod timed;
mod token;

pub use house::{Answer, House};

use self::answer::{Request, answer};
use self::gate::Gate;
use self::inner::{HANDLERS, Inner};
use self::passage::SPOOL;
use self::reply::{ALWAYS, Body, Reply};
use self::token::Token;

/// Large answers that are being sent at a time, each by a thread of its own.
const STREAMS: usize = 4;
/// How long requests that are being answered may take at the stop.
const DRAIN: Duration = Duration::from_secs(4);

/// The HTTP side while it runs.
pub struct Web {
    address: SocketAddr,
    gate: Gate,
    inner: Arc<Inner>,
    /// Of the gate, and of the handlers: these go on until the gate has emptied.
    stoppers: (Stopper, Stopper),
    ended: Receiver<()>,
}

/// What the handler threads share.
struct Desk {
    house: Arc<dyn House>,
    token: Option<Token>,
    streams: AtomicUsize,
}

impl Web {
    /// Serves the connections of `listener`. `scratch` is a directory for a socket, used when
    /// the environment names no better one.
    pub fn start(
        listener: TcpListener,
        house: Arc<dyn House>,
        token: Option<Secret>,
        scratch: &Path,
    ) -> io::Result<Web> {
        let address = listener.local_addr()?;
        let (gate_stopper, gate_stop) = stop::channel();
        let (inner_stopper, inner_stop) = stop::channel();
        let inner = Arc::new(Inner::start(scratch, inner_stop)?);
        let token = token.as_ref().map(Token::new);
        let desk = Arc::new(Desk { house, token, streams: AtomicUsize::new(0) });
        let (alive, ended) = bounded(0);
        let open = || {
            for number in 1..=HANDLERS {
                let (inner, desk, alive) = (Arc::clone(&inner), Arc::clone(&desk), alive.clone());
                thread::Builder::new()
                    .name(format!("http-{number}"))
                    .spawn(move || serve(inner, &desk, alive))?;
            }
            Gate::open(listener, Arc::clone(&inner), gate_stop)
        };
        match open() {
            Ok(gate) => {
                let stoppers = (gate_stopper, inner_stopper);
                Ok(Web { address, gate, inner, stoppers, ended })
            }
            Err(why) => {
                drop(inner_stopper);
                inner.wake();
                Err(why)
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: no new requests, those that are being answered are finished within seconds.
    pub fn stop(self) {
        let (gate_stopper, inner_stopper) = self.stoppers;
        drop(gate_stopper);
        self.gate.close(DRAIN);
        drop(inner_stopper);
        self.inner.wake();
        let _ = self.ended.recv_timeout(DRAIN);
    }
}

/// Answers requests until the stop. The drop of `alive` tells that this thread has let go of the
/// server: its socket must still be there when it ends.
fn serve(inner: Arc<Inner>, desk: &Arc<Desk>, alive: Sender<()>) {
    let _vital = Vital;
    while let Some(request) = inner.next() {
        handle(desk, request);
    }
    drop((inner, alive));
}

fn handle(desk: &Arc<Desk>, mut request: tiny_http::Request) {
    let (reply, more) = match catch_unwind(AssertUnwindSafe(|| spool(make(desk, &mut request)))) {
        Ok(reply) => reply,
        Err(_) => {
            log::error!("the answer to {} {} panicked", request.method(), request.url());
            (Reply::problem(request.url(), 500, "this is a bug, see the log"), false)
        }
    };
    if more { send_aside(desk, request, reply) } else { send(request, reply) }
}

fn make(desk: &Desk, request: &mut tiny_http::Request) -> Reply {
    let mut body = Vec::new();
    if let Err(why) = request.as_reader().read_to_end(&mut body) {
        return Reply::problem(request.url(), 400, &format!("the body cannot be read: {why}"));
    }
    // The gate passes on whole bodies only, but it may give up while it does.
    if request.body_length() != Some(body.len()) {
        return Reply::problem(request.url(), 400, "the body is cut off");
    }
    let header = |name: &'static str| {
        let found = request.headers().iter().find(|header| header.field.equiv(name));
        found.map(|header| header.value.as_str())
    };
    let peer = header(head::PEER).and_then(|text| text.parse().ok());
    let asked = Request {
        method: request.method().as_str(),
        target: request.url(),
        authorization: header("Authorization"),
        body: &body,
        peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    answer(&desk.house, desk.token.as_ref(), &asked)
}

/// Makes a small stream whole; true when there is more of it.
fn spool(reply: Reply) -> (Reply, bool) {
    let Body::Stream(mut stream) = reply.body else { return (reply, false) };
    let mut bytes = Vec::new();
    if stream.by_ref().take(SPOOL as u64).read_to_end(&mut bytes).is_err() {
        return (Reply::text(500, "the answer cannot be made"), false);
    }
    let more = bytes.len() == SPOOL;
    let body = if more {
        Body::Stream(Box::new(io::Cursor::new(bytes).chain(stream)))
    } else {
        Body::Whole(bytes)
    };
    (Reply { body, ..reply }, more)
}

/// Sends a large answer from a thread of its own: a client may take a minute to read it, and the
/// handlers are two.
fn send_aside(desk: &Arc<Desk>, request: tiny_http::Request, reply: Reply) {
    if desk.streams.fetch_add(1, Ordering::SeqCst) >= STREAMS {
        desk.streams.fetch_sub(1, Ordering::SeqCst);
        let busy = Reply::problem(request.url(), 503, "too many large answers at once");
        return send(request, busy);
    }
    let seat = StreamSeat(Arc::clone(desk));
    let started = thread::Builder::new().name("http-stream".into()).spawn(move || {
        let _seat = seat;
        send(request, reply);
    });
    if let Err(why) = started {
        log::warn!("a large answer was dropped, no thread could be started: {why}");
    }
}

/// Counts a large answer while it is being sent.
struct StreamSeat(Arc<Desk>);

impl Drop for StreamSeat {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
    }
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
