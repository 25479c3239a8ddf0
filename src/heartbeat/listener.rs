//! The UDP socket and its thread: blocking, one datagram after the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::monitor::FleetMonitor;
use super::settings::Settings;
use crate::clock::Now;
use crate::thread::Stop;

/// The longest datagram, and one byte more to tell a longer one by.
const BUFFER_BYTES: usize = 8192 + 1;
/// The default holds some hundred datagrams: a third of a flood would be lost.
const RECEIVE_BUFFER: usize = 2 << 20;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// So many failures in a row are the end: the daemon is started anew, with a new socket.
const MAX_FAILURES: u32 = 20;
/// Who hears nothing for so long says that it still listens.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// More than a full receive buffer holds, and a bound on a drain that never ends.
const MAX_DRAINED: usize = 20_000;

/// Binds the UDP socket of the section `heartbeat`.
///
/// # Errors
/// A sentence that names the address and the remedy.
pub fn bind(settings: &Settings) -> Result<UdpSocket, String> {
    bind_as(settings, false)
}

/// Binds the socket of a new configuration while the `old` one still hears: they may share a port,
/// as 0.0.0.0 and 127.0.0.1 do.
///
/// # Errors
/// As [`bind`].
pub fn bind_beside(settings: &Settings, old: &UdpSocket) -> Result<UdpSocket, String> {
    let old = SockRef::from(old);
    // Else any program of the same user could share the port for good, and take datagrams away.
    let _ = old.set_reuse_port(true);
    let new = bind_as(settings, true);
    let _ = old.set_reuse_port(false);
    new
}

fn bind_as(settings: &Settings, shared: bool) -> Result<UdpSocket, String> {
    let name = format!("{}:{}", settings.host, settings.port);
    let address = (settings.host.as_str(), settings.port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or(format!("heartbeat.host: {} is no address of this machine", settings.host))?;
    open(address, shared).map_err(|why| match why.kind() {
        io::ErrorKind::AddrInUse => {
            format!("heartbeat.port: UDP {name} is in use by another program")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("heartbeat.host: {} is no address of this machine", settings.host)
        }
        io::ErrorKind::PermissionDenied => {
            format!("heartbeat.port: UDP {name} needs privileges; use a port above 1023")
        }
        _ => format!("UDP {name} cannot be opened: {why}"),
    })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let Err(why) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        debug!("the UDP receive buffer stays small: {why}");
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(false)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(socket.into())
}

/// Hears datagrams until the stop, and what has arrived by then. `pulse` is called at every turn,
/// every second at least.
pub fn listen(socket: &Arc<UdpSocket>, watch: &FleetMonitor, stop: &Stop, pulse: impl Fn()) {
    let mut buffer = [0; BUFFER_BYTES];
    let mut failures = 0;
    loop {
        pulse();
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                failures = 0;
                if stop.stopped() {
                    refuse_new_datagrams(socket);
                    // What woke us may be a beat.
                    if length > 0 {
                        receive(socket, watch, &buffer[..length], from);
                    }
                    return drain(socket, watch, &mut buffer);
                }
                receive(socket, watch, &buffer[..length], from);
            }
            Err(why) if is_timeout(&why) => {
                if stop.stopped() {
                    refuse_new_datagrams(socket);
                    return drain(socket, watch, &mut buffer);
                }
            }
            Err(why) => {
                failures += 1;
                if failures == 1 {
                    warn!("the UDP socket: {why}");
                }
                // A daemon that is deaf must not go on as if its hosts were silent.
                assert!(failures < MAX_FAILURES, "the UDP socket fails for good: {why}");
                if stop.wait(RETRY_PAUSE) {
                    return;
                }
            }
        }
    }
}

fn is_timeout(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Lets no more datagrams into the socket: a connected one hears its peer alone (udp(7)), and at
/// that port of our own nobody speaks. What arrives from now on goes to the socket that took over
/// the port, where there is one.
fn refuse_new_datagrams(socket: &UdpSocket) {
    const NOBODY: u16 = 1;
    if let Some(own) = own_address(socket)
        && let Err(why) = socket.connect((own.ip(), NOBODY))
    {
        debug!("the old UDP socket goes on to hear while it is emptied: {why}");
    }
}

/// Hears what has arrived.
fn drain(socket: &Arc<UdpSocket>, watch: &FleetMonitor, buffer: &mut [u8]) {
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    for _ in 0..MAX_DRAINED {
        match socket.recv_from(buffer) {
            Ok((length, from)) => receive(socket, watch, &buffer[..length], from),
            Err(_) => return,
        }
    }
}

fn receive(socket: &Arc<UdpSocket>, watch: &FleetMonitor, bytes: &[u8], from: SocketAddr) {
    let answering = Arc::clone(socket);
    // Why it was not believed is counted by the watch; there is nobody to tell.
    let _ = watch.ingest(bytes, from.ip().to_canonical(), Now::read(), move |ack, stored| {
        if let Some(ack) = ack
            && stored
            && let Err(why) = answering.send_to(&ack, from)
        {
            debug!("the answer to {from} could not be sent: {why}");
        }
    });
}

/// Lets the thread in [`listen`] notice that another socket has taken over, after its stop.
pub fn hand_over(socket: &UdpSocket) {
    // It may have to be opened again before this one is gone.
    let _ = SockRef::from(socket).set_reuse_port(true);
    wake(socket);
}

/// Wakes the thread that blocks in [`listen`], after the stop.
pub fn wake(socket: &UdpSocket) {
    let woken = own_address(socket).map(|address| socket.send_to(&[], address));
    if let Some(Err(why)) = woken {
        debug!("the UDP thread will notice within seconds, it could not be woken: {why}");
    }
}

/// Where the socket is reached on this machine.
fn own_address(socket: &UdpSocket) -> Option<SocketAddr> {
    let mut address = socket.local_addr().ok()?;
    if address.ip().is_unspecified() {
        let loopback: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    Some(address)
}
