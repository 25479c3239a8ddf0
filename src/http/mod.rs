//! The HTTP side: the gate on the network, tiny_http behind it, and what is answered.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use crossbeam_channel::{Receiver, bounded, unbounded};

use self::auth::Guard;
use self::dispatch::{Desk, Seats, answer_stored, serve};
use self::front::backend::{HANDLERS, Inner};
use self::front::batch::FERRIES;
use self::front::certificate::{Identity, Shown};
use self::front::{Gate, PERMITS};
use crate::secret::Secret;
use crate::thread::{Stop, StopSource};

mod api;
mod auth;
mod dispatch;
pub mod front;
pub mod metrics;
mod openapi;
mod origin;
mod page;
pub mod query;
mod response;
mod routes;
mod service;
pub mod settings;

pub use front::backend::Probe;
pub use service::{Answer, House, NotSent, Reloaded, Sending, SentNow, Taken};

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
    stoppers: (StopSource, StopSource),
    ended: Receiver<()>,
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
        let (gate_stopper, gate_stop) = Stop::channel();
        let (inner_stopper, inner_stop) = Stop::channel();
        let inner = Arc::new(Inner::start(scratch, inner_stop)?);
        let guard = Arc::new(Guard::new(access.token.as_ref()));
        let shown = Arc::new(Shown::new(access.identity));
        let (stored, waiting) = unbounded();
        let desk = Arc::new(Desk {
            house,
            guard: Arc::clone(&guard),
            streams: Seats::new("large answers", "http-stream", STREAMS),
            waits: Seats::new("messages", "http-wait", WAITS),
            disk: Seats::new("requests that wait for the disk", "http-stored", PERMITS + FERRIES),
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
