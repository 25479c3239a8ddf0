//! Resolves the names of servers again and again, each in a thread of its own: getaddrinfo(3) has no
//! timeout.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::poll::Waker;
use super::server::ServerAddress;
use crate::clock::{Mono, Now};
use crate::thread::spawn_critical;

/// How often a name is resolved whose server answers.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// How often one is resolved that has no address, or whose server does not answer.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// Resolvers need more than a thread of ours: nss modules keep buffers on the stack.
const STACK: usize = 512 * 1024;

/// The addresses of a server, or why it has none.
pub type Resolved = Result<Vec<SocketAddr>, String>;

/// Resolves the name of one server.
pub struct Resolver {
    server: ServerAddress,
    /// None where the name is an address itself.
    requests: Option<Sender<()>>,
    results: Receiver<Resolved>,
    next_request: Mono,
    retry_delay: Duration,
    /// The thread has a request that it did not answer yet.
    in_progress: bool,
}

impl Resolver {
    /// Starts the thread, which wakes `waker` whenever there is a result.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(server: ServerAddress, waker: Waker, now: Now) -> Result<Resolver, String> {
        let (found, results) = bounded(1);
        let mut resolver = Resolver {
            server: server.clone(),
            requests: None,
            results,
            next_request: now.mono,
            retry_delay: MIN_RETRY_DELAY,
            in_progress: false,
        };
        if let Ok(address) = server.host.parse::<IpAddr>() {
            let _ = found.send(Ok(vec![SocketAddr::new(address, server.port)]));
            return Ok(resolver);
        }
        let (requests, requested) = bounded(1);
        spawn_critical("names", STACK, move || resolve_all(&server, &requested, &found, &waker))
            .map_err(|why| format!("no thread can be started: {why}"))?;
        resolver.requests = Some(requests);
        Ok(resolver)
    }

    /// The server.
    pub fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// Asks the thread to resolve the name, if it is time to; sooner when the address is `suspect`,
    /// since the server does not answer there.
    pub fn request_if_due(&mut self, suspect: bool, now: Now) {
        let Some(requests) = &self.requests else { return };
        let soon = now.mono + self.retry_delay;
        if suspect && !self.in_progress && self.next_request > soon {
            self.next_request = soon;
        }
        if self.in_progress || self.next_request > now.mono {
            return;
        }
        match requests.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => self.in_progress = true,
            // The thread ended: the process is about to.
            Err(TrySendError::Disconnected(())) => self.next_request = now.mono + MAX_RETRY_DELAY,
        }
    }

    /// The result of the last request, once.
    pub fn take_result(&mut self, now: Now) -> Option<Resolved> {
        let result = self.results.try_recv().ok()?;
        self.in_progress = false;
        self.next_request = now.mono
            + match &result {
                Ok(_) => REFRESH_INTERVAL,
                Err(_) => self.retry_delay,
            };
        // The name of a server that does not answer is resolved less and less often, too.
        self.retry_delay = (self.retry_delay * 2).min(MAX_RETRY_DELAY);
        Some(result)
    }

    /// The server answers: the next time that it does not, its name is resolved at once.
    pub fn on_server_answers(&mut self) {
        self.retry_delay = MIN_RETRY_DELAY;
    }

    /// When the next request is due; none while one is in progress.
    pub fn next_request(&self) -> Option<Mono> {
        (self.requests.is_some() && !self.in_progress).then_some(self.next_request)
    }
}

/// Resolves the name of a server once (getaddrinfo(3)); the error is why it has no address.
pub fn resolve(server: &ServerAddress) -> Result<Vec<SocketAddr>, String> {
    match (server.host.as_str(), server.port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        // The address itself was checked.
        Err(why) => Err(match server.zone() {
            Some(zone) => format!("there is no interface {zone} now"),
            None => why.to_string(),
        }),
    }
}

/// Answers requests until the [`Resolver`] is dropped.
fn resolve_all(
    server: &ServerAddress,
    requested: &Receiver<()>,
    results: &Sender<Resolved>,
    waker: &Waker,
) {
    for () in requested {
        let result = match resolve(server) {
            Ok(addresses) if addresses.is_empty() => Err(format!("{} has no address", server.host)),
            Ok(addresses) => Ok(addresses),
            Err(why) => Err(format!("{} cannot be resolved: {why}", server.host)),
        };
        if results.send(result).is_err() {
            return;
        }
        waker.wake();
    }
}
