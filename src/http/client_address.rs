//! Which client a request comes from: its address behind trusted proxies, and the network that an
//! address stands for. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The proxies whose word about their clients is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<AddressRange>);

/// An address, or all that begin with the same bits: `127.0.0.1`, `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    prefix: u32,
}

impl TrustedProxies {
    /// The client of a request: `peer`, or where that is a trusted proxy, the right-most address of
    /// `X-Forwarded-For` that is not. What stands left of it was written by the client itself.
    pub fn client(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let mut client = peer.to_canonical();
        let mut entries = forwarded_for.unwrap_or_default().rsplit(',');
        while self.0.iter().any(|range| range.contains(client)) {
            match entries.next().and_then(parse_entry) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// Some proxies write the port, too.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().or_else(|_| entry.parse().map(|with: SocketAddr| with.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressRange, String> {
        let wrong = || format!("\"{text}\" is no address and no network: 127.0.0.1, 10.0.0.0/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix == 0 || prefix > bits {
            return Err(wrong());
        }
        Ok(AddressRange { address, prefix })
    }
}

impl AddressRange {
    fn contains(self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.prefix
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

/// What counts as one client: of IPv6 a network, since its host has the other 2^64 addresses, too.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_right_most_address_that_is_no_trusted_proxy() {
        let ranges = ["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"];
        let proxies = TrustedProxies(ranges.map(|range| range.parse().unwrap()).into());
        for (peer, forwarded_for, client) in [
            ("192.0.2.1", Some("198.51.100.1"), "192.0.2.1"),
            ("127.0.0.1", None, "127.0.0.1"),
            ("127.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            ("127.0.0.1", Some("6.6.6.6, 198.51.100.1"), "198.51.100.1"),
            ("127.0.0.1", Some("6.6.6.6,198.51.100.1 , 10.1.2.3"), "198.51.100.1"),
            ("::ffff:127.0.0.1", Some("10.1.2.3"), "10.1.2.3"),
            ("127.0.0.1", Some("198.51.100.1:4711"), "198.51.100.1"),
            ("127.0.0.1", Some("[2001:db8::1]:4711"), "2001:db8::1"),
            ("127.0.0.1", Some("[2001:db8::1]"), "2001:db8::1"),
            ("2001:db8:1::7", Some("::ffff:198.51.100.1"), "198.51.100.1"),
            ("2001:db8:2::7", Some("198.51.100.1"), "2001:db8:2::7"),
            ("127.0.0.1", Some("6.6.6.6, unknown"), "127.0.0.1"),
            ("127.0.0.1", Some("6.6.6.6, , 10.0.0.1"), "10.0.0.1"),
            ("127.0.0.1", Some(""), "127.0.0.1"),
        ] {
            let found = proxies.client(peer.parse().unwrap(), forwarded_for);
            assert_eq!(found.to_string(), client, "{peer} {forwarded_for:?}");
        }
        let nobody = TrustedProxies::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(nobody.client(peer, Some("198.51.100.1")), peer);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "0.0.0.0/0", "::1/x"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}
