//! Where datagrams go: `server:9099`, `192.0.2.1`, `[2001:db8::1]:9099`. Pure.

use std::fmt;
use std::net::Ipv6Addr;

use crate::address::is_host;

/// The port that hbd listens on when nobody said otherwise.
const PORT: u16 = 9099;

/// A server, as the operator named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

impl Server {
    /// Reads one. The error says what is wanted.
    pub fn parse(text: &str) -> Result<Server, String> {
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
        Ok(Server { host: host.trim_matches(['[', ']']).to_owned(), port })
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

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
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
            assert_eq!(Server::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_explained() {
        for text in ["", ":9099", "a b:1", "[::1", "http://server:9099", "1::2::3:4", "-v"] {
            let why = Server::parse(text).unwrap_err();
            assert!(why.contains("must be a name or an address"), "{text}: {why}");
        }
        for text in ["server:", "server:0", "server:65536", "server:http"] {
            let why = Server::parse(text).unwrap_err();
            assert!(why.contains("must have a port from 1 to 65535"), "{text}: {why}");
        }
    }
}
