//! Where the daemon listens, and how it moves elsewhere without losing anything on the way.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use log::info;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Failure, spawn};
use crate::config::Config;
use crate::heartbeat::listener;
use crate::heartbeat::watch::Watch;
use crate::http::{Credentials, HttpServer};
use crate::thread::ProgressCounter;
use crate::thread::{Stop, StopSource};

/// The UDP side while it hears.
pub struct Ear {
    /// The socket that it hears at.
    pub socket: Arc<UdpSocket>,
    stopper: StopSource,
    watch: Arc<Watch>,
    pulse: ProgressCounter,
}

impl Ear {
    /// Starts to hear.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn open(
        socket: UdpSocket,
        watch: &Arc<Watch>,
        pulse: ProgressCounter,
    ) -> Result<Ear, Failure> {
        let socket = Arc::new(socket);
        let stopper = hear(&socket, watch, &pulse)?;
        Ok(Ear { socket, stopper, watch: Arc::clone(watch), pulse })
    }

    /// Hears at another socket from now on, and what has arrived at the old one.
    ///
    /// # Errors
    /// When no thread can be started: the old one stays.
    pub fn move_to(&mut self, socket: UdpSocket) -> Result<(), Failure> {
        let socket = Arc::new(socket);
        let stopper = hear(&socket, &self.watch, &self.pulse)?;
        drop(std::mem::replace(&mut self.stopper, stopper));
        let old = std::mem::replace(&mut self.socket, socket);
        listener::leave(&old);
        Ok(())
    }

    /// Hears nothing more.
    pub fn close(self) {
        drop(self.stopper);
        listener::wake(&self.socket);
    }
}

fn hear(
    socket: &Arc<UdpSocket>,
    watch: &Arc<Watch>,
    pulse: &ProgressCounter,
) -> Result<StopSource, Failure> {
    let (stopper, stop) = Stop::channel();
    let (socket, watch, pulse) = (Arc::clone(socket), Arc::clone(watch), pulse.clone());
    spawn("udp", move || listener::listen(&socket, &watch, &stop, || pulse.increment()))?;
    Ok(stopper)
}

/// The ports of a new configuration, as far as they are others: open, and nobody listens yet.
#[derive(Default)]
pub struct Ports {
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
}

impl Ports {
    /// Opens what `new` has and `old` has not, while the old ports are still open. An error names
    /// the key that cannot be followed, and why.
    pub fn open(
        old: &Config,
        new: &Config,
        ear: &Ear,
        web: &HttpServer,
    ) -> Result<Ports, (&'static str, String)> {
        let (was, is) = (&old.heartbeat, &new.heartbeat);
        let mut ports = Ports::default();
        if (&was.host, was.port) != (&is.host, is.port) {
            let bound = listener::bind_beside(is, &ear.socket);
            ports.udp = Some(bound.map_err(|why| split(why, "heartbeat.port"))?);
        }
        let (was, is) = (&old.receiver, &new.receiver);
        if (&was.host, was.port) != (&is.host, is.port) {
            let bound = web.beside(|| bind_tcp(&is.host, is.port, true));
            ports.tcp = Some(bound.map_err(|why| split(why, "receiver.port"))?);
        }
        Ok(ports)
    }

    /// Moves there.
    ///
    /// # Errors
    /// When no thread can be started; what could not move stays where it is.
    pub fn take(self, ear: &mut Ear, web: &mut HttpServer) -> Result<(), Failure> {
        if let Some(socket) = self.udp {
            let name = address(socket.local_addr());
            ear.move_to(socket)?;
            info!("heartbeats are heard on UDP {name} now");
        }
        if let Some(listener) = self.tcp {
            web.move_to(listener)
                .map_err(|why| Failure::Other(format!("the HTTP side cannot move: {why}")))?;
            info!("HTTP is on {} now", web.address());
        }
        Ok(())
    }
}

/// The key that a sentence begins with, and the rest of it.
fn split(why: String, usual: &'static str) -> (&'static str, String) {
    const KEYS: [&str; 4] = ["heartbeat.host", "heartbeat.port", "receiver.host", "receiver.port"];
    let key = KEYS.into_iter().find(|key| why.starts_with(&format!("{key}: ")));
    match key {
        Some(key) => (key, why[key.len() + 2..].to_owned()),
        None => (usual, why),
    }
}

/// What the HTTP side asks for and shows.
pub fn access(config: &Config) -> Credentials {
    let receiver = &config.receiver;
    let certificate = receiver.tls.as_ref().map(|tls| Arc::clone(&tls.certificate));
    Credentials { token: receiver.token.clone(), certificate }
}

/// Opens the TCP port; `shared` with a listener that is about to move away from it.
///
/// # Errors
/// A sentence that names the address and the remedy.
pub fn bind_tcp(host: &str, port: u16, shared: bool) -> Result<TcpListener, String> {
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
    bound().map_err(|why| match why.kind() {
        io::ErrorKind::AddrInUse => {
            format!("receiver.port: TCP {host}:{port} is in use by another program")
        }
        io::ErrorKind::PermissionDenied => {
            format!("receiver.port: TCP {host}:{port} needs privileges; use a port above 1023")
        }
        _ => format!("receiver.host: TCP {host}:{port} cannot be opened: {why}"),
    })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A port is free again as soon as its listener is gone, whoever is still being served there.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    // Else any program of the same user could share the port for good, and take connections away.
    SockRef::from(&socket).set_reuse_port(false)?;
    Ok(socket.into())
}

/// How an address is shown.
pub fn address(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "?".into(), |address| address.to_string())
}
