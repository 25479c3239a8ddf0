//! The UDP socket of one connection to one server: its address, its binding, and its last error.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::beat::session::Session;
use super::server::{AddressFamily, AddressList, ServerAddress};
use super::settings::{AgentSettings, FAMILIES};

/// Where a connection goes to, and what is open of it.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name.
    pub connection: String,
    /// The hbd that it speaks to: connections to the same one share the metrics.
    pub group: usize,
    /// Whose addresses it uses.
    pub server: ServerAddress,
    /// Whether somebody named it: its trouble is reported even if it never worked.
    pub named: bool,
    binding: SocketBinding,
    /// The addresses.
    pub aim: AddressList,
    open: Option<(SocketAddr, UdpSocket)>,
    /// The last thing that went wrong with it.
    pub doubt: Option<String>,
}

impl Endpoint {
    /// All that the settings ask for, in order: to each server, those of the families, then the
    /// named ones.
    pub fn all(settings: &AgentSettings) -> Vec<Endpoint> {
        let mut paths = Vec::new();
        for (group, server) in settings.servers.iter().enumerate() {
            let wanted = FAMILIES.iter().zip(settings.families).filter(|(_, wanted)| *wanted);
            for ((name, family), _) in wanted {
                let binding = SocketBinding::default();
                paths.push(Endpoint::new(name, group, server, Some(*family), binding, false));
            }
            for (name, connection) in &settings.connections {
                let server = match &connection.server {
                    // It is one place, and that is the first one's.
                    Some(_) if group > 0 => continue,
                    Some(own) => own,
                    None => server,
                };
                let interface = connection.interface.clone();
                let binding = SocketBinding { source: connection.source, interface };
                paths.push(Endpoint::new(name, group, server, connection.family(), binding, true));
            }
        }
        paths
    }

    fn new(
        name: &str,
        group: usize,
        server: &ServerAddress,
        family: Option<AddressFamily>,
        binding: SocketBinding,
        named: bool,
    ) -> Endpoint {
        Endpoint {
            connection: name.to_owned(),
            group,
            server: server.clone(),
            named,
            binding,
            aim: AddressList::new(family),
            open: None,
            doubt: None,
        }
    }

    /// The open socket.
    pub fn socket(&self) -> Option<&UdpSocket> {
        self.open.as_ref().map(|(_, socket)| socket)
    }

    /// Opens a socket, where there is none to the address that is to be used; whether one was
    /// opened.
    pub fn open(&mut self) -> bool {
        let Some(address) = self.aim.address() else {
            self.open = None;
            return false;
        };
        if self.open.as_ref().is_some_and(|(known, _)| *known == address) {
            return false;
        }
        match open(address, &self.binding) {
            Ok(socket) => {
                self.open = Some((address, socket));
                true
            }
            Err(Refusal::NoWay(why) | Refusal::NotBound(why)) => {
                self.open = None;
                self.doubt = Some(why);
                // Another address may be reached.
                self.aim.turn();
                false
            }
        }
    }

    /// A beat over `line` was not answered however often it was repeated: the next one goes to the
    /// next address, and comes from the address that the machine has now.
    pub fn renew(&mut self, line: &Session) {
        if line.fails() {
            self.open = None;
            self.aim.turn();
        }
    }

    /// Sends, if it can.
    pub fn send(&mut self, bytes: &[u8]) {
        let Some((address, socket)) = &self.open else { return };
        if let Err(why) = socket.send(bytes) {
            self.doubt = Some(explain(*address, &why));
            // That nobody listened is told of an earlier datagram: this one was not sent.
            let again = why.kind() == ErrorKind::ConnectionRefused && socket.send(bytes).is_ok();
            if !again && why.kind() != ErrorKind::WouldBlock {
                self.open = None;
            }
        }
    }

    /// The next datagram that came.
    pub fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let (address, socket) = self.open.as_ref()?;
        match socket.recv(buffer) {
            Ok(length) => Some(&buffer[..length]),
            Err(why) => {
                if !matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    self.doubt = Some(explain(*address, &why));
                }
                None
            }
        }
    }

    /// `ipv4: hbd.example.com:9099 (192.0.2.1:9099)`
    pub fn label(&self) -> String {
        let server = self.server.to_string();
        let address = self.open.as_ref().map(|(address, _)| address.to_string());
        match address.filter(|address| *address != server) {
            Some(address) => format!("{}: {server} ({address})", self.connection),
            None => format!("{}: {server}", self.connection),
        }
    }
}

/// What a socket is bound to, besides its family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketBinding {
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
pub fn open(to: SocketAddr, binding: &SocketBinding) -> Result<UdpSocket, Refusal> {
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
            let binding = SocketBinding { source, interface: interface.map(str::to_owned) };
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
        let binding = SocketBinding { source, interface: Some("lo".into()) };
        let socket = open(server.local_addr().unwrap(), &binding).unwrap();
        socket.send(b"x").unwrap();
        assert_eq!(server.recv_from(&mut [0]).unwrap().1.ip().to_string(), "127.0.0.5");
    }
}
