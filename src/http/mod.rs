//! The webhook server: a hardened front on the network, tiny_http behind it, and the HTTP API.
//!
//! ```text
//! client -> front (strict reading, limits, TLS, token) -> tiny_http -> dispatch -> api -> Daemon
//! ```

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::secret::Secret;
use crate::thread::{Stop, StopSource};

mod access;
mod api;
mod auth;
mod calm;
pub mod calm_request;
mod channel_test;
pub mod client_address;
mod current_service;
mod dispatch;
mod exchange;
pub mod front;
mod ingest_response;
mod metrics;
mod openapi;
mod origin;
mod page;
mod poll_url;
mod public;
pub mod query;
mod refusals;
mod response;
mod routes;
pub mod service;
pub mod settings;
mod standby;

pub use front::upstream::HealthProbe;
pub use public::PublicHosts;
pub use service::{
    Daemon, Ingest, IngestResult, ReloadResult, SendError, SendJob, SendResponse, Service,
    StandbyDaemon,
};

use self::api::Handler;
use self::auth::Authenticator;
use self::channel_test::ChannelTests;
use self::client_address::TrustedProxies;
use self::current_service::CurrentService;
use self::dispatch::{Dispatcher, PendingCommit, respond_to_commits, run_handler};
use self::front::Front;
use self::front::backend::{Backend, HANDLERS};
use self::front::certificate::{CurrentCertificate, ServerCertificate};
use self::front::exchange::ExchangeContext;
use self::front::upstream::Upstream;
use self::refusals::RefusedAlerts;

/// How long requests that are being answered may take at the stop.
const DRAIN: Duration = Duration::from_secs(4);

/// What clients must show, and what they are shown.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The token that every client must show; with none, none must.
    pub token: Option<Secret>,
    /// The certificate that clients are shown; none means plain HTTP.
    pub certificate: Option<Arc<ServerCertificate>>,
    /// The proxies whose word about their clients is taken.
    pub trusted_proxies: TrustedProxies,
    /// What is shown without the token, too.
    pub public: Arc<PublicHosts>,
}

/// The running server.
pub struct HttpServer {
    address: SocketAddr,
    front: Front,
    service: Arc<CurrentService>,
    authenticator: Arc<Authenticator>,
    certificate: Arc<CurrentCertificate>,
    backend: Arc<Backend>,
    upstream: Arc<Upstream>,
    /// Of the front, and of the handlers: these go on until the front has emptied.
    stop_sources: (StopSource, StopSource),
    ended: Receiver<()>,
}

impl HttpServer {
    /// Serves the connections of `listener`. `scratch` is a directory for a socket, used when
    /// the environment names no better one.
    ///
    /// # Errors
    /// When there is no place for the socket, or no thread can be started.
    pub fn start(
        listener: TcpListener,
        service: Service,
        credentials: Credentials,
        scratch: &Path,
    ) -> io::Result<HttpServer> {
        let address = listener.local_addr()?;
        let (front_source, front_stop) = Stop::channel();
        let (backend_source, backend_stop) = Stop::channel();
        let backend = Arc::new(Backend::start(scratch, backend_stop)?);
        let upstream = Arc::new(Upstream::new(Arc::clone(&backend)));
        let authenticator = Arc::new(Authenticator::new(&credentials));
        let certificate = Arc::new(CurrentCertificate::new(credentials.certificate));
        let (pending, commits) = unbounded();
        let refused = Arc::new(RefusedAlerts::default());
        let service = Arc::new(CurrentService::new(service));
        let handler = Handler {
            service: Arc::clone(&service),
            refused: Arc::clone(&refused),
            authenticator: Arc::clone(&authenticator),
            tests: ChannelTests::default(),
        };
        let dispatcher = Arc::new(Dispatcher::new(handler, pending));
        let (alive, ended) = bounded(0);
        let open = || {
            spawn_handlers(&backend, &dispatcher, commits, &alive)?;
            let context = ExchangeContext::new(
                Arc::clone(&upstream),
                Arc::clone(&certificate),
                Arc::clone(&authenticator),
                refused,
            );
            Front::open(listener, context, front_stop)
        };
        match open() {
            Ok(front) => {
                let stop_sources = (front_source, backend_source);
                Ok(HttpServer {
                    address,
                    front,
                    service,
                    authenticator,
                    certificate,
                    backend,
                    upstream,
                    stop_sources,
                    ended,
                })
            }
            Err(why) => {
                drop(backend_source);
                backend.unblock();
                Err(why)
            }
        }
    }

    /// Tells the watchdog whether requests are answered.
    pub fn probe(&self) -> HealthProbe {
        HealthProbe::new(&self.upstream)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has another one answer from the next request on.
    pub fn set_service(&self, service: Service) {
        self.service.replace(service);
    }

    /// From the next request on wants this token and trusts these proxies, from the next connection on
    /// shows this certificate.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.authenticator.replace(&credentials);
        self.certificate.replace(credentials.certificate);
    }

    /// Calls `open` while a listener to move to may be opened at the same port.
    pub fn with_shared_port<T>(&self, open: impl FnOnce() -> T) -> T {
        self.front.with_shared_port(open)
    }

    /// Moves to another listener. Connections of the old one are served to the end.
    ///
    /// # Errors
    /// When it cannot be opened: the old one stays.
    pub fn move_to(&mut self, listener: TcpListener) -> io::Result<()> {
        let address = listener.local_addr()?;
        self.front.move_to(listener)?;
        self.address = address;
        Ok(())
    }

    /// Stops: no new requests, those that are being answered are finished within seconds.
    pub fn stop(self) {
        let (front_source, backend_source) = self.stop_sources;
        drop(front_source);
        self.front.close(DRAIN);
        drop(backend_source);
        self.backend.unblock();
        let _ = self.ended.recv_timeout(DRAIN);
    }
}

/// Starts the threads behind the front. What `alive` belongs to ends with the last of them.
fn spawn_handlers(
    backend: &Arc<Backend>,
    dispatcher: &Arc<Dispatcher>,
    commits: Receiver<PendingCommit>,
    alive: &Sender<()>,
) -> io::Result<()> {
    let own = alive.clone();
    thread::Builder::new()
        .name("http-stored".into())
        .spawn(move || respond_to_commits(&commits, own))?;
    for number in 1..=HANDLERS {
        let (backend, dispatcher) = (Arc::clone(backend), Arc::clone(dispatcher));
        let alive = alive.clone();
        thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || run_handler(backend, &dispatcher, alive))?;
    }
    Ok(())
}
