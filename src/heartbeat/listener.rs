//! The UDP socket and its thread: receives one datagram after the other, and sends the answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, warn};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::clock::Now;
use crate::heartbeat::datagram::{MAX_BYTES, Rejection};
use crate::heartbeat::monitor::Monitor;
use crate::heartbeat::packet_info::{self, Peer};
use crate::heartbeat::settings::HeartbeatSettings;
use crate::problem::ListenError;
use crate::thread::Stop;

/// The longest datagram, and one byte more, by which a longer one is noticed.
const BUFFER_BYTES: usize = MAX_BYTES + 1;
/// The default holds some hundred datagrams: a third of a flood would be lost.
const RECEIVE_BUFFER: usize = 2 << 20;
/// How long the thread waits after a failure of the socket.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// After this many failures in a row the process aborts: the service manager starts it again, with a
/// new socket.
const MAX_FAILURES: u32 = 20;
/// How long the thread blocks in a read at most: then it reports that it is alive.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// More than a full receive buffer holds, and a bound on a drain that never ends.
const MAX_DRAINED: usize = 20_000;

/// Binds the UDP socket of the section `heartbeat`.
///
/// # Errors
/// The key that is wrong, the address and the remedy.
pub fn bind(settings: &HeartbeatSettings) -> Result<UdpSocket, ListenError> {
    bind_as(settings, false)
}

/// Binds the socket of a new configuration while the `old` one still receives: they may share a port,
/// as 0.0.0.0 and 127.0.0.1 do.
///
/// # Errors
/// As [`bind`].
pub fn bind_shared(
    settings: &HeartbeatSettings,
    old: &UdpSocket,
) -> Result<UdpSocket, ListenError> {
    let old = SockRef::from(old);
    // Set back at once: any program of the same user could share the port, and take datagrams away.
    let _ = old.set_reuse_port(true);
    let new = bind_as(settings, true);
    let _ = old.set_reuse_port(false);
    new
}

fn bind_as(settings: &HeartbeatSettings, shared: bool) -> Result<UdpSocket, ListenError> {
    let name = format!("{}:{}", settings.host, settings.port);
    let address = (settings.host.as_str(), settings.port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| not_ours(settings))?;
    open(address, shared).map_err(|why| {
        let what = match why.kind() {
            io::ErrorKind::AddrNotAvailable => return not_ours(settings),
            io::ErrorKind::AddrInUse => "is in use by another program".into(),
            io::ErrorKind::PermissionDenied => "needs privileges; use a port above 1023".into(),
            _ => format!("cannot be opened: {why}"),
        };
        ListenError { key: "heartbeat.port", why: format!("UDP {name} {what}") }
    })
}

fn not_ours(settings: &HeartbeatSettings) -> ListenError {
    let why = format!("{} is no address of this machine", settings.host);
    ListenError { key: "heartbeat.host", why }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let Err(why) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        debug!("the UDP receive buffer stays small: {why}");
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if let Err(why) = packet_info::request(&socket, address.ip()) {
        debug!("answers leave from the address that the system chooses: {why}");
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(false)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(socket.into())
}

/// Takes the datagrams that a socket receives.
pub trait DatagramReceiver {
    /// Takes a datagram. `then` is called with the answer, if one is wanted, and whether it may be sent.
    ///
    /// # Errors
    /// Why it was rejected; that is counted and logged there.
    fn ingest(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection>;
}

impl DatagramReceiver for Monitor {
    fn ingest(
        &self,
        bytes: &[u8],
        from: IpAddr,
        now: Now,
        then: impl FnOnce(Option<Vec<u8>>, bool) + Send + 'static,
    ) -> Result<(), Rejection> {
        Monitor::ingest(self, bytes, from, now, then)
    }
}

/// Receives datagrams until the stop, and then what has arrived by then. `on_turn` is called at every
/// turn, every second at least.
///
/// Aborts the process when the socket fails for good: a daemon that receives nothing must not go on
/// as if its hosts were silent.
pub fn listen(
    socket: &Arc<UdpSocket>,
    monitor: &impl DatagramReceiver,
    stop: &Stop,
    on_turn: impl Fn(),
) {
    let mut buffer = [0; BUFFER_BYTES];
    let mut failures = 0;
    let receive_next = receive_function(socket);
    loop {
        on_turn();
        match receive_next(socket, &mut buffer) {
            Ok((length, from)) => {
                failures = 0;
                if stop.stopped() {
                    refuse_new_datagrams(socket);
                    // What woke this thread may be a beat.
                    if length > 0 {
                        receive(socket, monitor, &buffer[..length], from);
                    }
                    return drain(socket, monitor, &mut buffer, receive_next);
                }
                receive(socket, monitor, &buffer[..length], from);
            }
            Err(error) if is_timeout(&error) => {
                if stop.stopped() {
                    refuse_new_datagrams(socket);
                    return drain(socket, monitor, &mut buffer, receive_next);
                }
            }
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    warn!("the UDP socket: {error}");
                }
                if failures == MAX_FAILURES {
                    error!("the UDP socket fails for good: {error}");
                    process::abort();
                }
                if stop.wait(RETRY_PAUSE) {
                    return;
                }
            }
        }
    }
}

/// Receives one datagram.
type ReceiveFunction = fn(&UdpSocket, &mut [u8]) -> io::Result<(usize, Peer)>;

/// A socket with one address need not ask which one a datagram came to.
fn receive_function(socket: &UdpSocket) -> ReceiveFunction {
    if packet_info::is_wildcard(socket) {
        return packet_info::receive;
    }
    |socket, buffer| {
        let (length, address) = socket.recv_from(buffer)?;
        Ok((length, Peer { address, asked: None }))
    }
}

fn is_timeout(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Lets no more datagrams into the socket: a connected one receives from its peer alone (udp(7)),
/// and nothing sends from that port of this machine. What arrives from now on goes to the socket that
/// took over the port, where there is one.
fn refuse_new_datagrams(socket: &UdpSocket) {
    const UNUSED_PORT: u16 = 1;
    if let Some(own) = own_address(socket)
        && let Err(why) = socket.connect((own.ip(), UNUSED_PORT))
    {
        debug!("the old UDP socket goes on to hear while it is emptied: {why}");
    }
}

/// Receives what has arrived.
fn drain(
    socket: &Arc<UdpSocket>,
    monitor: &impl DatagramReceiver,
    buffer: &mut [u8],
    receive_next: ReceiveFunction,
) {
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    for _ in 0..MAX_DRAINED {
        match receive_next(socket, buffer) {
            Ok((length, from)) => receive(socket, monitor, &buffer[..length], from),
            Err(_) => return,
        }
    }
}

fn receive(socket: &Arc<UdpSocket>, monitor: &impl DatagramReceiver, bytes: &[u8], peer: Peer) {
    let answering = Arc::clone(socket);
    let from = peer.address;
    // A rejection is counted and logged by the monitor; the sender gets no answer.
    let _ = monitor.ingest(bytes, from.ip().to_canonical(), Now::read(), move |ack, stored| {
        // Most answers are sent by the courier, whose work must not wait for the network: one that finds
        // the send buffer full is dropped, and the agent asks again.
        if let Some(ack) = ack
            && stored
            && let Err(why) = packet_info::answer(&answering, &ack, &peer)
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
