//! The UDP socket and its thread: blocking, one datagram after the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use socket2::{Domain, Protocol, Socket, Type};

use super::settings::Settings;
use super::watch::Watch;
use crate::clock::Now;
use crate::stop::Stop;

/// The longest datagram, and one byte more to tell a longer one by.
const BUFFER: usize = 8192 + 1;
/// The default holds some hundred datagrams: a third of a flood would be lost.
const RECEIVE_BUFFER: usize = 2 << 20;
const PAUSE: Duration = Duration::from_millis(50);
/// So many failures in a row are the end: the daemon is started anew, with a new socket.
const MOST_FAILURES: u32 = 20;

/// Binds the UDP socket of the section `heartbeat`.
///
/// # Errors
/// A sentence that names the address and the remedy.
pub fn bind(settings: &Settings) -> Result<UdpSocket, String> {
    let name = format!("{}:{}", settings.host, settings.port);
    let address = (settings.host.as_str(), settings.port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or(format!("heartbeat.host: {} is no address of this machine", settings.host))?;
    open(address).map_err(|why| match why.kind() {
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

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let Err(why) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        debug!("the UDP receive buffer stays small: {why}");
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Hears datagrams until the stop.
pub fn listen(socket: &Arc<UdpSocket>, watch: &Watch, stop: &Stop) {
    let mut buffer = [0; BUFFER];
    let mut failures = 0;
    loop {
        match socket.recv_from(&mut buffer) {
            Ok(_) if stop.stopped() => return,
            Ok((length, from)) => {
                failures = 0;
                hear(socket, watch, &buffer[..length], from);
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => {
                failures += 1;
                if failures == 1 {
                    warn!("the UDP socket: {why}");
                }
                // A daemon that is deaf must not go on as if its hosts were silent.
                assert!(failures < MOST_FAILURES, "the UDP socket fails for good: {why}");
                if stop.wait(PAUSE) {
                    return;
                }
            }
        }
    }
}

fn hear(socket: &Arc<UdpSocket>, watch: &Watch, bytes: &[u8], from: SocketAddr) {
    let answering = Arc::clone(socket);
    // Why it was not believed is counted by the watch; there is nobody to tell.
    let _ = watch.hear(bytes, from.ip().to_canonical(), Now::read(), move |ack, stored| {
        if let Some(ack) = ack
            && stored
            && let Err(why) = answering.send_to(&ack, from)
        {
            debug!("the answer to {from} could not be sent: {why}");
        }
    });
}

/// Wakes the thread that blocks in [`listen`], after the stop.
pub fn wake(socket: &UdpSocket) {
    let Ok(mut address) = socket.local_addr() else { return };
    if address.ip().is_unspecified() {
        let loopback: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    if let Err(why) = socket.send_to(&[], address) {
        debug!("the UDP thread could not be woken: {why}");
    }
}
