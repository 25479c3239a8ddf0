//! The address of a server, `server:9099`, `192.0.2.1`, `[2001:db8::1]:9099`, and the IP addresses that
//! its name resolves to. Pure.

use std::fmt;
use std::net::Ipv6Addr;
use std::net::{IpAddr, SocketAddr};

use crate::address::is_host;

/// The port that hbd listens on when nobody said otherwise.
const PORT: u16 = 9099;

/// A server, as the operator named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

impl ServerAddress {
    /// Reads one. The error says what is wanted.
    pub fn parse(text: &str) -> Result<ServerAddress, String> {
        let (host, port) = split(text);
        if !is_host(host) {
            return Err(format!(
                "\"{text}\" must be a name or an address, maybe with a port: server:{PORT}, 192.0.2.1:{PORT}, [2001:db8::1]:{PORT}"
            ));
        }
        let port = match port {
            None => PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                format!("\"{text}\" must have a port from 1 to 65535 behind the colon")
            })?,
        };
        Ok(ServerAddress { host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

/// A colon parts host and port, unless it belongs to a bare IPv6 address.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some(_) if text.parse::<Ipv6Addr>().is_ok() => (text, None),
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The kinds of addresses that a connection can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// That of an address.
    pub fn of(address: IpAddr) -> AddressFamily {
        if address.is_ipv4() { AddressFamily::V4 } else { AddressFamily::V6 }
    }
}

/// The addresses of a server that a connection can use, and the one that it does use.
#[derive(Clone, Debug, Default)]
pub struct AddressList {
    family: Option<AddressFamily>,
    known: Vec<SocketAddr>,
    current: usize,
}

impl AddressList {
    /// Nothing is known yet. Only addresses of `family` can be used, when there is one.
    pub fn new(family: Option<AddressFamily>) -> AddressList {
        AddressList { family, known: Vec::new(), current: 0 }
    }

    /// Takes over the addresses that a name has now. The one in use stays while it is among them;
    /// and all stay when there is none that can be used: half an answer of a name server is more
    /// likely than a server that lost a family.
    pub fn learn(&mut self, addresses: &[SocketAddr]) {
        let usable = |address: &&SocketAddr| {
            self.family.is_none_or(|f| f == AddressFamily::of(address.ip()))
        };
        let usable: Vec<SocketAddr> = addresses.iter().filter(usable).copied().collect();
        if usable.is_empty() {
            return;
        }
        let kept = self.address().and_then(|used| usable.iter().position(|new| *new == used));
        self.current = kept.unwrap_or(0);
        self.known = usable;
    }

    /// The address in use; none when none is known.
    pub fn address(&self) -> Option<SocketAddr> {
        self.known.get(self.current).copied()
    }

    /// The one in use is of no use: the next one's turn.
    pub fn turn(&mut self) {
        self.current = (self.current + 1) % self.known.len().max(1);
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_maybe_a_port() {
        for (text, shown) in [
            ("server:9000", "server:9000"),
            ("server", "server:9099"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("[::1]", "[::1]:9099"),
            ("::1", "[::1]:9099"),
        ] {
            assert_eq!(ServerAddress::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_explained() {
        for text in ["", ":9099", "a b:1", "[::1", "http://server:9099", "1::2::3:4", "-v"] {
            let why = ServerAddress::parse(text).unwrap_err();
            assert!(why.contains("must be a name or an address"), "{text}: {why}");
        }
        for text in ["server:", "server:0", "server:65536", "server:http"] {
            let why = ServerAddress::parse(text).unwrap_err();
            assert!(why.contains("must have a port from 1 to 65535"), "{text}: {why}");
        }
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_connection_keeps_to_its_family() {
        let all = addresses(&["[::1]:1", "127.0.0.1:1"]);
        for (family, used) in [
            (None, "[::1]:1"),
            (Some(AddressFamily::V4), "127.0.0.1:1"),
            (Some(AddressFamily::V6), "[::1]:1"),
        ] {
            let mut aim = AddressList::new(family);
            assert_eq!(aim.address(), None);
            aim.learn(&all);
            assert_eq!(aim.address(), Some(used.parse().unwrap()));
        }
    }

    #[test]
    fn the_address_in_use_stays_while_it_is_among_them() {
        let mut aim = AddressList::new(Some(AddressFamily::V4));
        aim.learn(&addresses(&["10.0.0.1:1", "10.0.0.2:1"]));
        aim.turn();
        let second = aim.address();
        aim.learn(&addresses(&["10.0.0.3:1", "10.0.0.2:1"]));
        assert_eq!(aim.address(), second);
        aim.learn(&[]);
        aim.learn(&addresses(&["[::1]:1"]));
        assert_eq!(aim.address(), second, "the last good ones are kept");
        aim.learn(&addresses(&["10.0.0.4:1"]));
        assert_eq!(aim.address(), addresses(&["10.0.0.4:1"]).first().copied());
        aim.turn();
        assert_eq!(aim.address(), addresses(&["10.0.0.4:1"]).first().copied());
    }
}
