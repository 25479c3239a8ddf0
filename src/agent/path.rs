//! One connection to one server, as far as it is a socket.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use super::beat::aim::{Aim, Family};
use super::beat::line::Line;
use super::server::Server;
use super::settings::{FAMILIES, Settings};
use super::socket::{self, Binding, Refusal};

/// Where a connection goes to, and what is open of it.
#[derive(Debug)]
pub struct Path {
    /// Its name.
    pub connection: String,
    /// The hbd that it speaks to: connections to the same one share the metrics.
    pub group: usize,
    /// Whose addresses it uses.
    pub server: Server,
    /// Whether somebody named it: its trouble is reported even if it never worked.
    pub named: bool,
    binding: Binding,
    /// The addresses.
    pub aim: Aim,
    open: Option<(SocketAddr, UdpSocket)>,
    /// The last thing that went wrong with it.
    pub doubt: Option<String>,
}

impl Path {
    /// All that the settings ask for, in order: to each server, those of the families, then the
    /// named ones.
    pub fn all(settings: &Settings) -> Vec<Path> {
        let mut paths = Vec::new();
        for (group, server) in settings.servers.iter().enumerate() {
            let wanted = FAMILIES.iter().zip(settings.families).filter(|(_, wanted)| *wanted);
            for ((name, family), _) in wanted {
                let binding = Binding::default();
                paths.push(Path::new(name, group, server, Some(*family), binding, false));
            }
            for (name, connection) in &settings.connections {
                let server = match &connection.server {
                    // It is one place, and that is the first one's.
                    Some(_) if group > 0 => continue,
                    Some(own) => own,
                    None => server,
                };
                let interface = connection.interface.clone();
                let binding = Binding { source: connection.source, interface };
                paths.push(Path::new(name, group, server, connection.family(), binding, true));
            }
        }
        paths
    }

    fn new(
        name: &str,
        group: usize,
        server: &Server,
        family: Option<Family>,
        binding: Binding,
        named: bool,
    ) -> Path {
        Path {
            connection: name.to_owned(),
            group,
            server: server.clone(),
            named,
            binding,
            aim: Aim::new(family),
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
        match socket::open(address, &self.binding) {
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
    pub fn renew(&mut self, line: &Line) {
        if line.fails() {
            self.open = None;
            self.aim.turn();
        }
    }

    /// Sends, if it can.
    pub fn send(&mut self, bytes: &[u8]) {
        let Some((address, socket)) = &self.open else { return };
        if let Err(why) = socket.send(bytes) {
            self.doubt = Some(socket::explain(*address, &why));
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
                    self.doubt = Some(socket::explain(*address, &why));
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
