//! The HTTP side: the gate on the network, tiny_http behind it, and what is answered.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::secret::Secret;
use crate::stop::{self, Stopper, Vital};

mod answer;
mod aside;
mod attempts;
mod badge;
mod budget;
mod chunks;
mod crew;
mod gate;
mod guard;
mod head;
mod house;
pub mod identity;
mod inner;
mod line;
pub mod metrics;
pub mod notice;
mod openapi;
mod origin;
mod page;
mod passage;
mod past;
mod reply;
mod room;
mod routes;
mod seats;
pub mod settings;
mod stream;
mod timed;
mod token;
pub mod wanted;
mod x509;

pub use house::{Answer, House, NotSent, Reloaded, Sending, SentNow, Taken};
pub use inner::Probe;

use self::answer::{Answered, Request, answer};
use self::aside::{Seat, Seats, aside, broken, finish, send, send_away, show};
use self::gate::{Gate, PERMITS};
use self::guard::Guard;
use self::head::LONGEST_BODY;
use self::identity::{Identity, Shown};
use self::inner::{HANDLERS, Inner};
use self::passage::SPOOL;
use self::reply::{Body, Reply};

/// Large answers that are being sent at a time, each by a thread of its own.
const STREAMS: usize = 4;
/// Answers that are being waited for at a time, each by a thread of its own.
const WAITS: usize = 4;
/// Looks into the history at a time, each by a thread of its own.
const SEARCHES: usize = 4;
/// Pages that are being made at a time, each by a thread of its own.
const PAGES: usize = 8;
/// How long requests that are being answered may take at the stop.
const DRAIN: Duration = Duration::from_secs(4);

/// Who may come in, and what they are shown.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What everybody must show; none asks for nothing.
    pub token: Option<Secret>,
    /// What everybody is shown; none means plain HTTP.
    pub identity: Option<Arc<Identity>>,
}

/// The HTTP side while it runs.
pub struct Web {
    address: SocketAddr,
    gate: Gate,
    guard: Arc<Guard>,
    shown: Arc<Shown>,
    inner: Arc<Inner>,
    /// Of the gate, and of the handlers: these go on until the gate has emptied.
    stoppers: (Stopper, Stopper),
    ended: Receiver<()>,
}

/// What the handler threads share.
struct Desk {
    house: Arc<dyn House>,
    guard: Arc<Guard>,
    streams: Arc<Seats>,
    waits: Arc<Seats>,
    disk: Arc<Seats>,
    searches: Arc<Seats>,
    pages: Arc<Seats>,
    /// What waits for the disk, in the order in which the disk gets it: one thread waits for all.
    stored: Sender<Waiting>,
}

/// A request whose answer comes when what it brought is on the disk.
struct Waiting {
    request: tiny_http::Request,
    seat: Seat,
    work: Box<dyn FnOnce() -> Reply + Send>,
}

impl Web {
    /// Serves the connections of `listener`. `scratch` is a directory for a socket, used when
    /// the environment names no better one.
    pub fn start(
        listener: TcpListener,
        house: Arc<dyn House>,
        access: Access,
        scratch: &Path,
    ) -> io::Result<Web> {
        let address = listener.local_addr()?;
        let (gate_stopper, gate_stop) = stop::channel();
        let (inner_stopper, inner_stop) = stop::channel();
        let inner = Arc::new(Inner::start(scratch, inner_stop)?);
        let guard = Arc::new(Guard::new(access.token.as_ref()));
        let shown = Arc::new(Shown::new(access.identity));
        let (stored, waiting) = unbounded();
        let desk = Arc::new(Desk {
            house,
            guard: Arc::clone(&guard),
            streams: Seats::new("large answers", "http-stream", STREAMS),
            waits: Seats::new("messages", "http-wait", WAITS),
            disk: Seats::new("requests that wait for the disk", "http-stored", PERMITS),
            searches: Seats::new("looks into the history", "http-search", SEARCHES),
            pages: Seats::new("pages", "http-page", PAGES),
            stored,
        });
        let (alive, ended) = bounded(0);
        let open = || {
            let own = alive.clone();
            thread::Builder::new()
                .name("http-stored".into())
                .spawn(move || answer_stored(&waiting, own))?;
            for number in 1..=HANDLERS {
                let (inner, desk, alive) = (Arc::clone(&inner), Arc::clone(&desk), alive.clone());
                thread::Builder::new()
                    .name(format!("http-{number}"))
                    .spawn(move || serve(inner, &desk, alive))?;
            }
            Gate::open(listener, Arc::clone(&inner), Arc::clone(&shown), gate_stop)
        };
        match open() {
            Ok(gate) => {
                let stoppers = (gate_stopper, inner_stopper);
                Ok(Web { address, gate, guard, shown, inner, stoppers, ended })
            }
            Err(why) => {
                drop(inner_stopper);
                inner.wake();
                Err(why)
            }
        }
    }

    /// For whoever wants to know whether requests are answered.
    pub fn probe(&self) -> Probe {
        Probe::new(&self.inner)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next request on asks for this token, from the next connection on shows this
    /// identity.
    pub fn admit(&self, access: Access) {
        self.guard.replace(access.token.as_ref());
        self.shown.replace(access.identity);
    }

    /// Calls `open` while a listener to move to may be opened at the same port.
    pub fn beside<T>(&self, open: impl FnOnce() -> T) -> T {
        self.gate.beside(open)
    }

    /// Moves to another listener. Who came in through the old one is served to the end.
    ///
    /// # Errors
    /// When it cannot be opened: the old one stays.
    pub fn move_to(&mut self, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        self.gate.move_to(listener)?;
        self.address = address;
        Ok(())
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

/// Answers what is stored, until no handler is left.
fn answer_stored(waiting: &Receiver<Waiting>, alive: Sender<()>) {
    let _vital = Vital;
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
        Made::Stored(work) => match desk.disk.take() {
            // The thread ends after the handlers.
            Some(seat) => drop(desk.stored.send(Waiting { request, seat, work })),
            None => send_away(request, desk.disk.what),
        },
        Made::Searched(work) => {
            aside(&desk.searches, request, |request, seat| finish(request, seat, work))
        }
        Made::Drawn(work) => {
            let streams = Arc::clone(&desk.streams);
            aside(&desk.pages, request, move |request, seat| show(request, seat, &streams, work));
        }
    }
}

fn make(desk: &Desk, request: &mut tiny_http::Request) -> Answered {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0).min(LONGEST_BODY) + 1);
    let malformed = |request: &tiny_http::Request, why: &str| {
        Answered::Now(Reply::problem(request.url(), 400, why))
    };
    if let Err(why) = request.as_reader().read_to_end(&mut body) {
        return malformed(request, &format!("the body cannot be read: {why}"));
    }
    // The gate passes on whole bodies only, but it may give up while it does.
    if request.body_length() != Some(body.len()) {
        return malformed(request, "the body is cut off");
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
        content_type: header("Content-Type"),
        host: header("Host"),
        origin: header("Origin"),
        if_none_match: header("If-None-Match"),
        site: header("Sec-Fetch-Site"),
        encrypted: header(head::ENCRYPTED) == Some("true"),
        body: &body,
        peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    answer(&desk.house, &desk.guard, &asked)
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
