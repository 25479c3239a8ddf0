//! Names in the DNS, which addresses their records may hold, and the template of a host's name.
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::address::to_ascii_host;

/// The address family of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordFamily {
    /// IPv4: an A record.
    #[serde(rename = "A")]
    V4,
    /// IPv6: an AAAA record.
    #[serde(rename = "AAAA")]
    V6,
}

impl RecordFamily {
    /// Both.
    pub const ALL: [RecordFamily; 2] = [RecordFamily::V4, RecordFamily::V6];

    /// That of an address; v4-mapped is IPv4.
    pub fn of(address: IpAddr) -> RecordFamily {
        if address.to_canonical().is_ipv4() { RecordFamily::V4 } else { RecordFamily::V6 }
    }

    /// The type of the record: `A`, `AAAA`.
    pub fn record(self) -> &'static str {
        match self {
            RecordFamily::V4 => "A",
            RecordFamily::V6 => "AAAA",
        }
    }
}

/// Limits of a name and of its labels (RFC 1035, 2.3.4; the name without its trailing dot).
const MAX_NAME_LENGTH: usize = 253;
const MAX_LABEL_LENGTH: usize = 63;

/// The name that a template makes with `{host}` and `{zone}`: without a trailing dot, in lower case.
///
/// # Errors
/// Why that is no valid name. Underscores are valid: the DNS allows them (RFC 2181, 11), only the
/// rules for host names do not.
pub fn fill(template: &str, host: &str, zone: Option<&str>) -> Result<String, String> {
    let filled = template.replace("{host}", host).replace("{zone}", zone.unwrap_or_default());
    let name = to_ascii(filled.strip_suffix('.').unwrap_or(&filled));
    validate(&name).map(|()| name)
}

/// A name in lower case, and in A-labels where it has letters beyond ASCII.
pub fn to_ascii(name: &str) -> String {
    let ascii = if name.is_ascii() { None } else { to_ascii_host(name) };
    ascii.unwrap_or_else(|| name.to_owned()).to_ascii_lowercase()
}

/// Validates a name.
///
/// # Errors
/// Why it is not valid.
pub fn validate(name: &str) -> Result<(), String> {
    if let Some(open) = name.find('{') {
        let placeholder = name[open..].split_inclusive('}').next().unwrap_or_default();
        return Err(format!("{placeholder} is not known here: there are {{host}} and {{zone}}"));
    }
    if name.len() > MAX_NAME_LENGTH {
        return Err(format!("the name {name} is longer than {MAX_NAME_LENGTH} characters"));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    for label in name.split('.') {
        let why = match label {
            "" => "has an empty part",
            long if long.len() > MAX_LABEL_LENGTH => "has a part of more than 63 characters",
            odd if !odd.chars().all(good) => "has other characters than letters, digits, - and _",
            edge if edge.starts_with('-') || edge.ends_with('-') => {
                "has a part that begins or ends with a dash"
            }
            _ => continue,
        };
        return Err(format!("the name \"{name}\" {why}"));
    }
    Ok(())
}

/// Whether a name is the zone's own or below it.
pub fn is_within(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|front| front.ends_with('.'))
}

/// Whether the address is globally reachable, so that it may be in a public zone; false for those in
/// the IANA IPv4 and IPv6 Special-Purpose Address Registries.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        // Carrier-grade NAT (RFC 6598).
        || (a == 100 && b & 0xc0 == 64)
        // Protocol assignments (RFC 6890), 6to4 relays (RFC 7526), benchmarks (RFC 2544).
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && b & 0xfe == 18)
        // Multicast, reserved, broadcast.
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only 2000::/3 is given out as global unicast (RFC 4291, 2.4).
    a & 0xe000 == 0x2000
        // Protocol assignments with Teredo (RFC 2928), documentation (RFC 3849 and 9637), 6to4.
        && !(a == 0x2001 && b < 0x0200)
        && !(a == 0x2001 && b == 0x0db8)
        && !(a == 0x3fff && b < 0x1000)
        && a != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_host_and_zone() {
        let zone = Some("dyn.example.com");
        for (template, host, name) in [
            ("{host}.{zone}", "web1", "web1.dyn.example.com"),
            ("{host}.{zone}", "WEB1", "web1.dyn.example.com"),
            ("{host}.{zone}", "a.b_c", "a.b_c.dyn.example.com"),
            ("home.example.net.", "web1", "home.example.net"),
        ] {
            assert_eq!(fill(template, host, zone).as_deref(), Ok(name));
        }
        let long = "x".repeat(64);
        for (template, host, why) in [
            ("{host}.{zone}", long.as_str(), "more than 63"),
            ("{host}.{zone}", ".web1", "empty part"),
            ("{host}.{zone}", "web1.", "empty part"),
            ("{host}.{zone}", "-web1", "a dash"),
            ("{nmae}.{zone}", "web1", "{nmae} is not known"),
            ("{host} {zone}", "web1", "other characters"),
            ("{host}", "", "empty part"),
        ] {
            let refused = fill(template, host, zone).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let deep = vec!["x".repeat(60); 5].join(".");
        assert!(fill("{host}", &deep, None).unwrap_err().contains("253"));
    }

    #[test]
    fn a_name_is_in_its_zone_or_not() {
        assert!(is_within("a.example.com", "example.com"));
        assert!(is_within("example.com", "example.com"));
        assert!(!is_within("badexample.com", "example.com"));
        assert!(!is_within("example.com", "a.example.com"));
    }

    #[test]
    fn only_addresses_of_the_whole_internet_are_public() {
        for public in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "193.0.0.1", "2a00:1450::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.9.9",
            "169.254.1.1",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.7",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "192.88.99.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "2001:db8::1",
            "2001::1",
            "2002:0a00::1",
            "3fff:123::1",
            "ff02::1",
            "::ffff:10.1.2.3",
            "64:ff9b::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
        assert!(is_public("::ffff:1.1.1.1".parse().unwrap()), "v4-mapped is IPv4");
    }
}
