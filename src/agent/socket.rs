//! The socket of one connection to one server: bound as the operator wants it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// What a socket is bound to, besides its family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The address that datagrams come from.
    pub source: Option<IpAddr>,
    /// The interface that they go through.
    pub interface: Option<String>,
}

/// Why there is no socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The machine has no way to that address: it may have one later.
    NoWay(String),
    /// What it is to be bound to is not there, or may not be used.
    NotBound(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Refusal::NoWay(why) | Refusal::NotBound(why) => f.write_str(why),
        }
    }
}

/// A socket that sends to `to` only, hears from there only, and never blocks.
///
/// # Errors
/// What the machine lacks for it.
pub fn open(to: SocketAddr, binding: &Binding) -> Result<UdpSocket, Refusal> {
    let no_way = |why: io::Error| Refusal::NoWay(format!("there is no way to {to}: {why}"));
    let socket =
        Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)).map_err(no_way)?;
    if let Some(interface) = &binding.interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(|why| no_interface(interface, &why))?;
    }
    let from = binding.source.unwrap_or(match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    });
    socket.bind(&SocketAddr::new(from, 0).into()).map_err(|why| no_source(from, &why))?;
    socket.connect(&to.into()).map_err(no_way)?;
    socket.set_nonblocking(true).map_err(no_way)?;
    Ok(socket.into())
}

fn no_interface(interface: &str, why: &io::Error) -> Refusal {
    Refusal::NotBound(match why.raw_os_error() {
        Some(libc::ENODEV) => format!("there is no interface {interface} now"),
        Some(libc::EPERM) => format!(
            "the interface {interface} may not be chosen: before Linux 5.7 that takes CAP_NET_RAW \
             (AmbientCapabilities=CAP_NET_RAW in the unit); source: ADDRESS does without"
        ),
        _ => format!("the interface {interface} cannot be chosen: {why}"),
    })
}

fn no_source(source: IpAddr, why: &io::Error) -> Refusal {
    Refusal::NotBound(match why.kind() {
        ErrorKind::AddrNotAvailable => {
            format!("this machine does not have the address {source} now")
        }
        _ => format!("cannot send from {source}: {why}"),
    })
}

/// What kept a datagram from leaving, or came back instead of an answer.
pub fn explain(to: SocketAddr, why: &io::Error) -> String {
    match why.kind() {
        ErrorKind::ConnectionRefused => format!("nobody listens on UDP {to}"),
        _ => format!("cannot send to {to}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_lacks_is_said() {
        let to: SocketAddr = "127.0.0.1:9099".parse().unwrap();
        let refusal = |source: Option<&str>, interface: Option<&str>| {
            let source = source.map(|source| source.parse().unwrap());
            let binding = Binding { source, interface: interface.map(str::to_owned) };
            open(to, &binding).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(Some("192.0.2.1"), None),
            "this machine does not have the address 192.0.2.1 now"
        );
        let interface = refusal(None, Some("nosuch0"));
        assert!(interface.contains("interface nosuch0"), "{interface}");
    }

    #[test]
    fn it_comes_from_where_it_was_bound() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = Some("127.0.0.5".parse().unwrap());
        let binding = Binding { source, interface: Some("lo".into()) };
        let socket = open(server.local_addr().unwrap(), &binding).unwrap();
        socket.send(b"x").unwrap();
        assert_eq!(server.recv_from(&mut [0]).unwrap().1.ip().to_string(), "127.0.0.5");
    }
}
