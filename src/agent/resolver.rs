//! The addresses of servers: each name is asked for in a thread of its own, since nobody can tell
//! a resolver when to give up.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::poll::Waker;
use super::server::ServerAddress;
use crate::clock::{Mono, Now};
use crate::thread::AbortOnPanic;

/// How often a name is asked for that is known.
const USUAL: Duration = Duration::from_secs(300);
/// How often one is asked for that is not known, or whose server does not answer.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);
/// Resolvers need more than a thread of ours: nss modules keep buffers on the stack.
const STACK: usize = 512 * 1024;

/// What asking for a name gave.
pub type Resolved = Result<Vec<SocketAddr>, String>;

/// A server whose addresses are asked for again and again.
pub struct Resolver {
    server: ServerAddress,
    /// None where it is an address itself.
    asks: Option<Sender<()>>,
    found: Receiver<Resolved>,
    next: Mono,
    pause: Duration,
    /// It was asked for and did not answer yet.
    waits: bool,
}

impl Resolver {
    /// Begins to ask. What is found is announced by `waker`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(server: ServerAddress, waker: Waker, now: Now) -> Result<Resolver, String> {
        let (tell, found) = bounded(1);
        let mut name =
            Resolver { server, asks: None, found, next: now.mono, pause: SOONEST, waits: false };
        if let Ok(address) = name.server.host.parse::<IpAddr>() {
            let _ = tell.send(Ok(vec![SocketAddr::new(address, name.server.port)]));
            return Ok(name);
        }
        let (asks, asked) = bounded(1);
        let server = name.server.clone();
        thread::Builder::new()
            .name("names".into())
            .stack_size(STACK)
            .spawn(move || {
                let _vital = AbortOnPanic;
                answer(&server, &asked, &tell, &waker);
            })
            .map_err(|why| format!("no thread can be started: {why}"))?;
        name.asks = Some(asks);
        Ok(name)
    }

    /// The server.
    pub fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Asks, if it is time to; `doubted` when the server does not answer where it is known to be.
    pub fn ask(&mut self, doubted: bool, now: Now) {
        let Some(asks) = &self.asks else { return };
        let soon = now.mono + self.pause;
        if doubted && !self.waits && self.next > soon {
            self.next = soon;
        }
        if self.waits || self.next > now.mono {
            return;
        }
        match asks.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => self.waits = true,
            // The thread ended: the process is about to.
            Err(TrySendError::Disconnected(())) => self.next = now.mono + LATEST,
        }
    }

    /// What was found since this was last asked.
    pub fn found(&mut self, now: Now) -> Option<Resolved> {
        let found = self.found.try_recv().ok()?;
        self.waits = false;
        self.next = now.mono
            + match &found {
                Ok(_) => USUAL,
                Err(_) => self.pause,
            };
        // Whoever does not answer is looked for less and less often, too.
        self.pause = (self.pause * 2).min(LATEST);
        Some(found)
    }

    /// The server answers: the next doubt is looked into at once.
    pub fn is_good(&mut self) {
        self.pause = SOONEST;
    }

    /// When it wants to be asked again.
    pub fn next(&self) -> Option<Mono> {
        (self.asks.is_some() && !self.waits).then_some(self.next)
    }
}

/// The thread of a name; ends when nobody asks any more.
fn answer(server: &ServerAddress, asked: &Receiver<()>, tell: &Sender<Resolved>, waker: &Waker) {
    for () in asked {
        let found = (server.host.as_str(), server.port).to_socket_addrs();
        let found = match found.map(Iterator::collect::<Vec<_>>) {
            Ok(addresses) if addresses.is_empty() => Err(format!("{} has no address", server.host)),
            Ok(addresses) => Ok(addresses),
            Err(why) => Err(format!("{} cannot be resolved: {why}", server.host)),
        };
        if tell.send(found).is_err() {
            return;
        }
        waker.wake();
    }
}
