//! Datagrams with the address of this machine that they came to, and answers that leave from there.
//!
//! A socket on all addresses (`0.0.0.0`, `::`) lets the kernel choose the source of what it sends, and
//! a client that asked a virtual address drops an answer from another one. With `IP_PKTINFO` (ip(7))
//! and `IPV6_RECVPKTINFO` (ipv6(7), RFC 3542, section 6) the kernel says where a datagram came to, and
//! takes the same as the source of the answer.

use std::io;
use std::mem::{self, MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use libc::{c_int, c_void, cmsghdr, in_addr, in_pktinfo, in6_addr, in6_pktinfo, msghdr};
use socket2::{SockAddr, SockAddrStorage, SockRef};

/// Room for one control message, aligned as its header wants to be.
#[repr(C, align(8))]
struct ControlBuffer([u8; 64]);

/// An address of this machine that a datagram came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    ip: IpAddr,
    /// The interface that a link-local address belongs to, else 0: the route decides.
    interface: u32,
}

/// Where a datagram came from, and what it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The sender.
    pub address: SocketAddr,
    /// The address that it asked; none where the socket has only one, or the kernel does not say.
    pub asked: Option<LocalAddress>,
}

/// Has the kernel tell what datagrams come to, if the socket is about to be bound to all addresses.
///
/// # Errors
/// Those of setsockopt(2).
pub fn request(socket: &impl AsRawFd, bound_to: IpAddr) -> io::Result<()> {
    if !bound_to.is_unspecified() {
        return Ok(());
    }
    let (level, option) = match bound_to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: c_int = 1;
    // SAFETY: the descriptor is open, and the value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a socket is bound to all addresses: then datagrams are received with [`receive`].
pub fn is_wildcard(socket: &UdpSocket) -> bool {
    socket.local_addr().is_ok_and(|address| address.ip().is_unspecified())
}

/// As `recv_from`; also what the datagram came to, where that was requested.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
    let mut name = SockAddrStorage::zeroed();
    let mut control = MaybeUninit::<ControlBuffer>::uninit();
    let mut part =
        libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    // SAFETY: zeros are a valid msghdr, whose padding differs between C libraries.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut name).cast::<c_void>();
    message.msg_namelen = name.size_of();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast::<c_void>();
    message.msg_controllen = size_of::<ControlBuffer>() as _;
    // SAFETY: everything that the message points to is writable, as long as said, and lives on.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written an address of this length.
    let address = unsafe { SockAddr::new(name, message.msg_namelen) }.as_socket();
    let address = address.ok_or_else(|| io::Error::other("a datagram from no internet address"))?;
    // SAFETY: the kernel has filled the control buffer as far as the message says.
    let asked = unsafe { read_control(&message) };
    Ok((length, Peer { address, asked }))
}

/// The address in the control message of a received message.
///
/// # Safety
/// The message must be one that recvmsg(2) has filled, with what it points to.
unsafe fn read_control(message: &msghdr) -> Option<LocalAddress> {
    // SAFETY: the header is within the control buffer, and is aligned as that is. What follows it is as
    // long as its type says, and is read unaligned.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message).as_ref()?;
        let data = libc::CMSG_DATA(header);
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = data.cast::<in_pktinfo>().read_unaligned();
                // Of a broadcast that is the address of the interface.
                let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                LocalAddress::new(ip.into(), 0)
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = data.cast::<in6_pktinfo>().read_unaligned();
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                LocalAddress::new(ip.into(), interface as u32)
            }
            _ => None,
        }
    }
}

impl LocalAddress {
    /// None when nothing can be sent from there.
    fn new(ip: IpAddr, interface: u32) -> Option<LocalAddress> {
        let canonical = ip.to_canonical();
        let usable = !canonical.is_unspecified() && !canonical.is_multicast();
        usable.then_some(LocalAddress { ip, interface })
    }
}

/// Sends an answer from the address that was asked, or drops it when the send buffer is full.
///
/// # Errors
/// Those of sendmsg(2).
pub fn answer(socket: &UdpSocket, bytes: &[u8], peer: &Peer) -> io::Result<usize> {
    let to = SockAddr::from(peer.address);
    let any = || send_from_any(socket, bytes, &to);
    let Some(from) = peer.asked else { return any() };
    match send_from(socket.as_raw_fd(), bytes, &to, from) {
        // The address is gone, or was a broadcast to a v4-mapped one.
        Err(why) if why.kind() != io::ErrorKind::WouldBlock => any(),
        sent => sent,
    }
}

fn send_from_any(socket: &impl AsFd, bytes: &[u8], to: &SockAddr) -> io::Result<usize> {
    SockRef::from(socket).send_to_with_flags(bytes, to, libc::MSG_DONTWAIT)
}

fn send_from(socket: RawFd, bytes: &[u8], to: &SockAddr, from: LocalAddress) -> io::Result<usize> {
    match from.ip {
        IpAddr::V4(ip) => {
            let address = in_addr { s_addr: u32::from(ip).to_be() };
            let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: address };
            send_with(socket, bytes, to, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
        }
        IpAddr::V6(ip) => {
            let address = in6_addr { s6_addr: ip.octets() };
            let info = in6_pktinfo { ipi6_addr: address, ipi6_ifindex: from.interface as _ };
            send_with(socket, bytes, to, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info)
        }
    }
}

/// Sends with one control message.
fn send_with<T: Copy>(
    socket: RawFd,
    bytes: &[u8],
    to: &SockAddr,
    (level, kind): (c_int, c_int),
    info: T,
) -> io::Result<usize> {
    let mut control = ControlBuffer([0; 64]);
    let mut part =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() };
    // SAFETY: zeros are a valid msghdr, whose padding differs between C libraries.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast::<c_void>();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast::<c_void>();
    let size = size_of::<T>() as u32;
    // SAFETY: CMSG_SPACE of either type is less than the control buffer, so that there is a first
    // header, and room for the data behind it. sendmsg(2) only reads what the message points to.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
        let header: *mut cmsghdr = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(info);
        libc::sendmsg(socket, &raw const message, libc::MSG_DONTWAIT)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::*;

    /// On loopback the send buffer of UDP is never full; that of a Unix socket is, when its peer does
    /// not read.
    #[test]
    fn an_answer_that_finds_a_full_buffer_did_hold_up_the_courier() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer");
        let _peer = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let to = SockAddr::unix(&path).unwrap();
        let asked = LocalAddress { ip: Ipv4Addr::LOCALHOST.into(), interface: 0 };
        let bytes = [0; 1000];
        let send = || send_from_any(&socket, &bytes, &to);
        let refused = (0..100_000).find_map(|_| send().err()).expect("the buffer is full at last");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let refused = send_from(socket.as_raw_fd(), &bytes, &to, asked).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }

    fn wildcard(address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(false).unwrap();
        }
        request(&socket, address.ip()).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.into()
    }

    #[test]
    fn an_answer_left_from_another_address_than_was_asked() {
        for (bound, asked) in [
            ("0.0.0.0:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.2"),
            ("[::]:0", "127.0.0.3"),
            ("[::]:0", "::1"),
        ] {
            let server = wildcard(bound);
            let asked: IpAddr = asked.parse().unwrap();
            let own = if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let client = UdpSocket::bind(own).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let asked = SocketAddr::new(asked, server.local_addr().unwrap().port());
            client.send_to(b"ping", asked).unwrap();
            let mut buffer = [0; 16];
            let (length, peer) = receive(&server, &mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"ping");
            assert_eq!(peer.address.ip().to_canonical(), client.local_addr().unwrap().ip());
            assert_eq!(answer(&server, b"pong", &peer).unwrap(), 4);
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"pong"[..], asked), "{bound}");
        }
    }

    #[test]
    fn an_address_that_is_gone_or_can_send_nothing_is_no_obstacle() {
        let server = wildcard("0.0.0.0:0");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let gone = LocalAddress::new("192.0.2.1".parse().unwrap(), 0);
        let peer = Peer { address: client.local_addr().unwrap(), asked: gone };
        answer(&server, b"pong", &peer).unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 4);
        for never in ["0.0.0.0", "224.0.0.1", "::", "ff02::1", "::ffff:224.0.0.1"] {
            assert_eq!(LocalAddress::new(never.parse().unwrap(), 0), None, "{never}");
        }
    }

    #[test]
    fn a_longer_datagram_fills_the_buffer_and_a_socket_with_one_address_is_not_asked() {
        let server = wildcard("0.0.0.0:0");
        let port = server.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&[7; 100], ("127.0.0.1", port)).unwrap();
        assert_eq!(receive(&server, &mut [0; 10]).unwrap().0, 10);
        assert!(is_wildcard(&server) && !is_wildcard(&client));
        let loopback = wildcard("127.0.0.1:0");
        client.send_to(b"ping", loopback.local_addr().unwrap()).unwrap();
        assert_eq!(receive(&loopback, &mut [0; 10]).unwrap().1.asked, None);
    }
}
