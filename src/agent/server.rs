//! The address of a server, `server:9099`, `192.0.2.1`, `[2001:db8::1]:9099`, and the IP addresses that
//! its name resolves to. Pure.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::net::{IpAddr, SocketAddr};

use crate::address::to_ascii_host;

/// The port that hbd listens on by default.
const DEFAULT_PORT: u16 = 9099;

/// A server, as the operator named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Its name as name servers know it, or its address without brackets; a zone (RFC 4007) is
    /// behind a percent sign.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

impl ServerAddress {
    /// Parses one. The error says what is expected.
    pub fn parse(text: &str) -> Result<ServerAddress, String> {
        let (host, port) = split_port(text);
        let (address, zone) = split_zone(host);
        let Some(ascii) = to_ascii_host(&address) else {
            return Err(format!(
                "\"{text}\" must be a name or an address, maybe with a port: server:{DEFAULT_PORT}, 192.0.2.1:{DEFAULT_PORT}, [2001:db8::1]:{DEFAULT_PORT}"
            ));
        };
        if zone.is_some_and(|zone| !is_zone(zone, &ascii)) {
            return Err(format!(
                "\"{text}\" must be a link-local address and its interface: [fe80::1%eth0]:{DEFAULT_PORT}"
            ));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                format!("\"{text}\" must have a port from 1 to 65535 behind the colon")
            })?,
        };
        let host = zone.map_or_else(|| ascii.clone(), |zone| format!("{ascii}%{zone}"));
        Ok(ServerAddress { host, port })
    }

    /// The interface behind which its address is.
    pub fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }
}

/// `[fe80::1%eth0]` is the address `[fe80::1]` in the zone `eth0`.
fn split_zone(host: &str) -> (Cow<'_, str>, Option<&str>) {
    match host.split_once('%') {
        Some((address, zone)) => match zone.strip_suffix(']') {
            Some(zone) => (format!("{address}]").into(), Some(zone)),
            None => (address.into(), Some(zone)),
        },
        None => (host.into(), None),
    }
}

/// Whether it can be the interface of that address.
pub(super) fn is_zone(zone: &str, address: &str) -> bool {
    address.parse().is_ok_and(is_link_local) && is_interface(zone)
}

/// Whether there may be one such address on each interface.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What to say behind an error where an address lacks its interface; else nothing.
pub(super) fn missing_zone_remedy(to: SocketAddr) -> String {
    match to {
        SocketAddr::V6(v6) if v6.scope_id() == 0 && is_link_local(to.ip()) => {
            format!(": name its interface, such as [{}%eth0]:{}", v6.ip(), v6.port())
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => String::new(),
    }
}

/// Whether it can be the name of an interface: IFNAMSIZ of linux/if.h is 16 with the NUL.
pub(super) fn is_interface(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/:%[]".contains(c);
    (1..=15).contains(&name.len()) && !name.contains(odd)
}

/// A colon separates host and port, unless it belongs to a bare IPv6 address.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some(_) if split_zone(text).0.parse::<Ipv6Addr>().is_ok() => (text, None),
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

/// A family of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressFamily {
    /// The family of an address.
    pub fn of(address: IpAddr) -> AddressFamily {
        if address.is_ipv4() { AddressFamily::V4 } else { AddressFamily::V6 }
    }
}

/// The addresses of a server that a connection can use, and the one that it uses.
#[derive(Clone, Debug, Default)]
pub struct AddressList {
    family: Option<AddressFamily>,
    known: Vec<SocketAddr>,
    index: usize,
}

impl AddressList {
    /// An empty list, of addresses of `family` only if there is one.
    pub fn new(family: Option<AddressFamily>) -> AddressList {
        AddressList { family, known: Vec::new(), index: 0 }
    }

    /// Replaces the addresses by those that the name has now. The one in use stays while it is among
    /// them; and all stay when none of the new ones can be used: half an answer of a name server is
    /// more likely than a server that lost a family.
    pub fn update(&mut self, addresses: &[SocketAddr]) {
        let usable = |address: &&SocketAddr| {
            self.family.is_none_or(|f| f == AddressFamily::of(address.ip()))
        };
        let usable: Vec<SocketAddr> = addresses.iter().filter(usable).copied().collect();
        if usable.is_empty() {
            return;
        }
        let kept = self.current().and_then(|used| usable.iter().position(|new| *new == used));
        self.index = kept.unwrap_or(0);
        self.known = usable;
    }

    /// The address in use; none when none is known.
    pub fn current(&self) -> Option<SocketAddr> {
        self.known.get(self.index).copied()
    }

    /// Uses the next address from now on.
    pub fn advance(&mut self) {
        self.index = (self.index + 1) % self.known.len().max(1);
    }

    /// Whether no address is known.
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
    fn a_link_local_address_has_a_zone() {
        for (text, shown) in [
            ("[fe80::1%eth0]:7", "[fe80::1%eth0]:7"),
            ("[fe80::1%eth0]", "[fe80::1%eth0]:9099"),
            ("fe80::1%br-lan.2", "[fe80::1%br-lan.2]:9099"),
            ("fe80::1%2", "[fe80::1%2]:9099"),
            ("fe80::1", "[fe80::1]:9099"),
        ] {
            assert_eq!(ServerAddress::parse(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(ServerAddress::parse("[fe80::1%eth0]:7").unwrap().zone(), Some("eth0"));
        for text in [
            "2001:db8::1%eth0",
            "web1%eth0",
            "192.0.2.1%eth0",
            "[fe80::1%]:7",
            "fe80::1%a/b",
            // A port without brackets.
            "fe80::1%eth0:9099",
        ] {
            let why = ServerAddress::parse(text).unwrap_err();
            assert!(why.contains("must be a link-local address and its interface"), "{why}");
        }
    }

    #[test]
    fn a_name_with_an_umlaut_was_never_found() {
        let server = ServerAddress::parse("b\u{fc}cher.example:7").unwrap();
        assert_eq!(server.to_string(), "xn--bcher-kva.example:7");
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
            let mut list = AddressList::new(family);
            assert_eq!(list.current(), None);
            list.update(&all);
            assert_eq!(list.current(), Some(used.parse().unwrap()));
        }
    }

    #[test]
    fn the_address_in_use_stays_while_it_is_among_them() {
        let mut list = AddressList::new(Some(AddressFamily::V4));
        list.update(&addresses(&["10.0.0.1:1", "10.0.0.2:1"]));
        list.advance();
        let second = list.current();
        list.update(&addresses(&["10.0.0.3:1", "10.0.0.2:1"]));
        assert_eq!(list.current(), second);
        list.update(&[]);
        list.update(&addresses(&["[::1]:1"]));
        assert_eq!(list.current(), second, "the last good ones are kept");
        list.update(&addresses(&["10.0.0.4:1"]));
        assert_eq!(list.current(), addresses(&["10.0.0.4:1"]).first().copied());
        list.advance();
        assert_eq!(list.current(), addresses(&["10.0.0.4:1"]).first().copied());
    }
}
