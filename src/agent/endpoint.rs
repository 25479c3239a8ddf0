//! The UDP socket of one connection to one server: its address, its binding, and its last error.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::beat::session::Session;
use super::server::{
    AddressFamily, AddressList, ServerAddress, is_link_local, missing_zone_remedy,
};
use super::settings::{AgentSettings, FAMILIES};

/// One connection to one server, as far as it is a socket.
#[derive(Debug)]
pub struct Endpoint {
    /// The name of the connection.
    pub connection: String,
    /// The index of the hbd that it goes to: connections to the same one share the metrics.
    pub server_index: usize,
    /// The server whose addresses it uses.
    pub server: ServerAddress,
    /// Whether the configuration names it: its trouble is reported even if it never worked.
    pub named: bool,
    binding: SocketBinding,
    /// The addresses that it can use.
    pub addresses: AddressList,
    open: Option<(SocketAddr, UdpSocket)>,
    /// What went wrong last; none after an answer.
    pub last_error: Option<String>,
}

impl Endpoint {
    /// All that the settings ask for, in order: to each server, those of the address families, then
    /// the named ones.
    pub fn from_settings(settings: &AgentSettings) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for (index, server) in settings.servers.iter().enumerate() {
            let families = FAMILIES.iter().zip(settings.families).filter(|(_, enabled)| *enabled);
            for ((name, family), _) in families {
                let binding = SocketBinding::default();
                endpoints.push(Endpoint::new(name, index, server, Some(*family), binding, false));
            }
            for (name, connection) in &settings.connections {
                let server = match &connection.server {
                    // It is one place, and that is the first server's.
                    Some(_) if index > 0 => continue,
                    Some(own) => own,
                    None => server,
                };
                let interface = connection.interface.clone();
                let binding = SocketBinding { source: connection.source, interface };
                let family = connection.family();
                endpoints.push(Endpoint::new(name, index, server, family, binding, true));
            }
        }
        endpoints
    }

    fn new(
        name: &str,
        server_index: usize,
        server: &ServerAddress,
        family: Option<AddressFamily>,
        binding: SocketBinding,
        named: bool,
    ) -> Endpoint {
        Endpoint {
            connection: name.to_owned(),
            server_index,
            server: server.clone(),
            named,
            binding,
            addresses: AddressList::new(family),
            open: None,
            last_error: None,
        }
    }

    /// The open socket.
    pub fn socket(&self) -> Option<&UdpSocket> {
        self.open.as_ref().map(|(_, socket)| socket)
    }

    /// Opens a socket, unless one is open to the address that is to be used; whether one was
    /// opened.
    pub fn connect(&mut self) -> bool {
        let Some(address) = self.addresses.current() else {
            self.open = None;
            return false;
        };
        if self.open.as_ref().is_some_and(|(known, _)| *known == address) {
            return false;
        }
        match connect(address, &self.binding) {
            Ok(socket) => {
                self.open = Some((address, socket));
                true
            }
            Err(why) => {
                self.open = None;
                self.last_error = Some(why);
                // Another address may be reached.
                self.addresses.advance();
                false
            }
        }
    }

    /// Before a round: where no attempt of the last one was answered, the next beat goes to the next
    /// address, and comes from the address that the machine has now.
    pub fn fail_over(&mut self, session: &Session) {
        if session.is_failing() {
            self.open = None;
            self.addresses.advance();
        }
    }

    /// Sends a datagram, if a socket is open and takes it.
    pub fn send(&mut self, bytes: &[u8]) {
        let Some((address, socket)) = &self.open else { return };
        if let Err(why) = socket.send(bytes) {
            self.last_error = Some(describe_error(*address, &why));
            // A refused connection is the fate of an earlier datagram: this one was not sent.
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
                    self.last_error = Some(describe_error(*address, &why));
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

/// What a socket is bound to, besides its address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketBinding {
    /// The address that datagrams come from.
    pub source: Option<IpAddr>,
    /// The interface that they go through.
    pub interface: Option<String>,
}

/// A socket that sends to `to` only, receives from there only, and never blocks.
///
/// # Errors
/// What the machine lacks for it.
fn connect(to: SocketAddr, binding: &SocketBinding) -> Result<UdpSocket, String> {
    let no_route =
        |why: io::Error| format!("there is no way to {to}: {why}{}", missing_zone_remedy(to));
    let socket =
        Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)).map_err(no_route)?;
    if let Some(interface) = &binding.interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(|why| interface_error(interface, &why))?;
    }
    let from = binding.source.unwrap_or(match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    });
    let mut source = SocketAddr::new(from, 0);
    if let (SocketAddr::V6(source), SocketAddr::V6(to)) = (&mut source, to)
        && source.ip().is_unicast_link_local()
    {
        source.set_scope_id(to.scope_id());
    }
    socket.bind(&source.into()).map_err(|why| source_error(from, &why))?;
    socket.connect(&to.into()).map_err(no_route)?;
    socket.set_nonblocking(true).map_err(no_route)?;
    Ok(socket.into())
}

fn interface_error(interface: &str, why: &io::Error) -> String {
    match why.raw_os_error() {
        Some(libc::ENODEV) => format!("there is no interface {interface} now"),
        Some(libc::EPERM) => format!(
            "the interface {interface} may not be chosen: before Linux 5.7 that takes CAP_NET_RAW \
             (AmbientCapabilities=CAP_NET_RAW in the unit); source: ADDRESS does without"
        ),
        _ => format!("the interface {interface} cannot be chosen: {why}"),
    }
}

fn source_error(source: IpAddr, why: &io::Error) -> String {
    match why.kind() {
        ErrorKind::AddrNotAvailable => {
            format!("this machine does not have the address {source} now")
        }
        ErrorKind::InvalidInput if is_link_local(source) => {
            format!("cannot send from {source}: name its interface, such as {source}%eth0")
        }
        _ => format!("cannot send from {source}: {why}"),
    }
}

/// What kept a datagram from leaving, or came back instead of an answer.
fn describe_error(to: SocketAddr, why: &io::Error) -> String {
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
        let error = |source: Option<&str>, interface: Option<&str>| {
            let source = source.map(|source| source.parse().unwrap());
            let binding = SocketBinding { source, interface: interface.map(str::to_owned) };
            connect(to, &binding).unwrap_err()
        };
        assert_eq!(
            error(Some("192.0.2.1"), None),
            "this machine does not have the address 192.0.2.1 now"
        );
        let interface = error(None, Some("nosuch0"));
        assert!(interface.contains("interface nosuch0"), "{interface}");
    }

    #[test]
    fn a_link_local_address_without_its_interface_is_named_with_the_remedy() {
        let to: SocketAddr = "[fe80::1]:9099".parse().unwrap();
        let why = connect(to, &SocketBinding::default()).unwrap_err();
        assert!(why.ends_with(": name its interface, such as [fe80::1%eth0]:9099"), "{why}");
    }

    #[test]
    fn a_link_local_source_without_its_interface_was_an_invalid_argument() {
        let source = Some("fe80::2".parse().unwrap());
        let binding = SocketBinding { source, interface: None };
        let why = connect("[::1]:9099".parse().unwrap(), &binding).unwrap_err();
        assert_eq!(why, "cannot send from fe80::2: name its interface, such as fe80::2%eth0");
    }

    #[test]
    fn it_comes_from_where_it_was_bound() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = Some("127.0.0.5".parse().unwrap());
        let binding = SocketBinding { source, interface: Some("lo".into()) };
        let socket = connect(server.local_addr().unwrap(), &binding).unwrap();
        socket.send(b"x").unwrap();
        assert_eq!(server.recv_from(&mut [0]).unwrap().1.ip().to_string(), "127.0.0.5");
    }
}
