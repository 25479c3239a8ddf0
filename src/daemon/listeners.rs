//! The UDP and TCP listeners, and how a reload moves them without losing a datagram or a connection.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use log::info;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::threads::Threads;
use super::wiring;
use crate::config::Config;
use crate::heartbeat::listener::{self, DatagramReceiver};
use crate::http::{HttpServer, Service};
use crate::problem::ListenError;
use crate::thread::{ProgressCounter, Stop, StopSource};

/// The thread that receives datagrams, and its socket.
pub struct UdpServer {
    /// The socket that it receives from.
    socket: Arc<UdpSocket>,
    stop_source: StopSource,
    context: UdpContext,
}

/// What every UDP thread works with.
#[derive(Clone)]
struct UdpContext {
    listen: Listen,
    threads: Threads,
}

/// Receives from a socket until the stop.
pub type Listen = Arc<dyn Fn(&Arc<UdpSocket>, &Stop) + Send + Sync>;

/// Receives for the monitor, or for what a node that stands by has in its place, and counts the turns.
pub fn listen_for(
    receiver: &Arc<impl DatagramReceiver + Send + Sync + 'static>,
    progress: ProgressCounter,
) -> Listen {
    let receiver = Arc::clone(receiver);
    Arc::new(move |socket, stop| {
        listener::listen(socket, &*receiver, stop, || progress.increment());
    })
}

impl UdpServer {
    /// Starts to receive.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        socket: UdpSocket,
        listen: Listen,
        threads: &Threads,
    ) -> Result<UdpServer, String> {
        let context = UdpContext { listen, threads: threads.clone() };
        let new = NewUdpServer::start(Arc::new(socket), &context)?;
        let (socket, stop_source) = new.release();
        Ok(UdpServer { socket, stop_source, context })
    }

    /// Its address, for the log.
    pub fn address(&self) -> String {
        format_address(self.socket.local_addr())
    }

    /// Receives from another socket from now on, and what has arrived at the old one.
    fn move_to(&mut self, new: NewUdpServer) {
        let name = format_address(new.socket.local_addr());
        let (socket, stop_source) = new.release();
        drop(std::mem::replace(&mut self.stop_source, stop_source));
        let old = std::mem::replace(&mut self.socket, socket);
        listener::hand_over(&old);
        info!("heartbeats are heard on UDP {name} now");
    }

    /// Receives nothing more.
    pub fn close(self) {
        drop(self.stop_source);
        listener::wake(&self.socket);
    }
}

/// A socket with its thread, which does not receive before it is released. Dropped, it ends.
struct NewUdpServer {
    socket: Arc<UdpSocket>,
    stop_source: StopSource,
    released: Sender<()>,
}

impl NewUdpServer {
    fn start(socket: Arc<UdpSocket>, context: &UdpContext) -> Result<NewUdpServer, String> {
        let (stop_source, stop) = Stop::channel();
        let (released, release) = bounded(1);
        let (own, UdpContext { listen, threads }) = (Arc::clone(&socket), context.clone());
        threads.spawn("udp", move || {
            if release.recv().is_ok() {
                listen(&own, &stop);
            }
        })?;
        Ok(NewUdpServer { socket, stop_source, released })
    }

    fn release(self) -> (Arc<UdpSocket>, StopSource) {
        // Its thread waits for it, and there is room for one.
        let _ = self.released.send(());
        (self.socket, self.stop_source)
    }
}

/// The listeners of a new configuration, as far as they are others: open, with all that they need,
/// but not in use yet.
#[derive(Default)]
pub struct NewListeners {
    udp: Option<NewUdpServer>,
    tcp: Option<TcpListener>,
}

impl NewListeners {
    /// Opens what `new` has and `old` has not, while the old listeners are still open.
    ///
    /// # Errors
    /// The key that cannot be followed, and why.
    pub fn open(
        old: &Config,
        new: &Config,
        udp: &UdpServer,
        http_server: &HttpServer,
    ) -> Result<NewListeners, ListenError> {
        let (was, is) = (&old.heartbeat, &new.heartbeat);
        let mut listeners = NewListeners::default();
        if (&was.host, was.port) != (&is.host, is.port) {
            let socket = listener::bind_shared(is, &udp.socket)?;
            let started = NewUdpServer::start(Arc::new(socket), &udp.context);
            let started = started.map_err(|why| ListenError { key: "heartbeat.port", why })?;
            listeners.udp = Some(started);
        }
        let (was, is) = (&old.receiver, &new.receiver);
        if (&was.host, was.port) != (&is.host, is.port) {
            listeners.tcp =
                Some(http_server.with_shared_port(|| bind_tcp(&is.host, is.port, true))?);
        }
        Ok(listeners)
    }

    /// Duplicates of those that are not in use yet.
    pub fn duplicate(&self) -> (Option<UdpSocket>, Option<TcpListener>) {
        let udp = self.udp.as_ref().and_then(|new| new.socket.try_clone().ok());
        (udp, self.tcp.as_ref().and_then(|new| new.try_clone().ok()))
    }

    /// Moves the HTTP server, if its address is another one.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn move_http(&mut self, http_server: &mut HttpServer) -> Result<(), ListenError> {
        let Some(listener) = self.tcp.take() else { return Ok(()) };
        http_server.move_to(listener).map_err(|why| ListenError {
            key: "receiver.port",
            why: format!("the HTTP side cannot move: {why}"),
        })?;
        info!("HTTP is on {} now", http_server.address());
        Ok(())
    }

    /// Moves the UDP server, if its address is another one.
    pub fn move_udp(self, server: &mut UdpServer) {
        if let Some(new) = self.udp {
            server.move_to(new);
        }
    }
}

/// Where a daemon that starts has its UDP socket from.
pub enum UdpSource {
    /// It is bound, and nothing receives from it yet.
    Bound(UdpSocket),
    /// It is received from already, and that goes on.
    Running(UdpServer, ProgressCounter),
}

impl UdpSource {
    /// Its address, for the log.
    pub fn address(&self) -> String {
        match self {
            UdpSource::Bound(socket) => format_address(socket.local_addr()),
            UdpSource::Running(server, _) => server.address(),
        }
    }

    /// The progress of the thread that receives from it already.
    pub fn progress(&self) -> ProgressCounter {
        match self {
            UdpSource::Bound(_) => ProgressCounter::default(),
            UdpSource::Running(_, progress) => progress.clone(),
        }
    }

    /// Receives from now on, where that has not begun.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(self, listen: Listen, threads: &Threads) -> Result<UdpServer, String> {
        match self {
            UdpSource::Bound(socket) => UdpServer::start(socket, listen, threads),
            UdpSource::Running(server, _) => Ok(server),
        }
    }
}

/// Where a daemon that starts has its HTTP server from.
pub enum HttpSource {
    /// Its port is bound.
    Bound(TcpListener),
    /// Another service answered so far.
    Running(HttpServer),
}

impl HttpSource {
    /// Its address, for the log.
    pub fn address(&self) -> String {
        match self {
            HttpSource::Bound(listener) => format_address(listener.local_addr()),
            HttpSource::Running(server) => server.address().to_string(),
        }
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// A sentence.
    pub fn start(self, service: Service, config: &Config) -> Result<HttpServer, String> {
        match self {
            HttpSource::Bound(listener) => {
                HttpServer::start(listener, service, wiring::credentials(config), &config.state_dir)
                    .map_err(|why| format!("the HTTP side cannot be started: {why}"))
            }
            HttpSource::Running(server) => {
                server.set_service(service);
                Ok(server)
            }
        }
    }
}

/// Opens the TCP port; `shared` with a listener that is about to move away from it.
///
/// # Errors
/// The key that is wrong, the address and the remedy.
pub fn bind_tcp(host: &str, port: u16, shared: bool) -> Result<TcpListener, ListenError> {
    let bound = || {
        let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match open(address, shared) {
                Ok(listener) => return Ok(listener),
                Err(why) => last = why,
            }
        }
        Err(last)
    };
    bound().map_err(|why| {
        let (key, what) = match why.kind() {
            io::ErrorKind::AddrInUse => ("receiver.port", "is in use by another program".into()),
            io::ErrorKind::PermissionDenied => {
                ("receiver.port", "needs privileges; use a port above 1023".into())
            }
            _ => ("receiver.host", format!("cannot be opened: {why}")),
        };
        ListenError { key, why: format!("TCP {host}:{port} {what}") }
    })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A port is free again as soon as its listener is gone, although connections to it go on.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    // Else any program of the same user could share the port for good, and take connections away.
    SockRef::from(&socket).set_reuse_port(false)?;
    Ok(socket.into())
}

/// An address for the log; `?` when the system does not know it.
pub fn format_address(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "?".into(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_is_to_change_was_read_out_of_a_sentence() {
        let taken = bind_tcp("127.0.0.1", 0, false).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind_tcp("127.0.0.1", port, false).unwrap_err();
        assert_eq!(error.key, "receiver.port");
        assert_eq!(error.why, format!("TCP 127.0.0.1:{port} is in use by another program"));
        let error = bind_tcp("192.0.2.1", 0, false).unwrap_err();
        assert_eq!(error.key, "receiver.host");

        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let settings = crate::heartbeat::settings::HeartbeatSettings::default();
        let settings = |host: &str| crate::heartbeat::settings::HeartbeatSettings {
            host: host.into(),
            port,
            ..settings.clone()
        };
        let error = listener::bind(&settings("127.0.0.1")).unwrap_err();
        let line = format!("heartbeat.port: UDP 127.0.0.1:{port} is in use by another program");
        assert_eq!(error.to_string(), line);
        let error = listener::bind(&settings("192.0.2.1")).unwrap_err();
        assert_eq!(error.key, "heartbeat.host");
    }
}
