//! Addresses as operators write them: hosts, loopback or not, base URLs. Pure.

use std::net::{IpAddr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What percent-encoded text stands for (RFC 3986, section 2.1); none when a percent sign begins no
/// code, or when it is not UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let is_code = |code: &str| code.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let well_formed = text.split('%').skip(1).all(is_code);
    String::from_utf8(decoded_bytes(text)).ok().filter(|_| well_formed)
}

/// The same where anything may stand: a percent sign that begins no code stands for itself.
pub fn percent_decoded_lossy(text: &str) -> String {
    String::from_utf8_lossy(&decoded_bytes(text)).into_owned()
}

fn decoded_bytes(text: &str) -> Vec<u8> {
    let digit = |letter: &u8| char::from(*letter).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.first_chunk().filter(|_| *first == b'%');
        let code = code.and_then(|[high, low]| Some(digit(high)? * 16 + digit(low)?));
        bytes.push(code.map_or(*first, |code| code as u8));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// What follows `://` in a URL, as the login of its authority (RFC 3986, section 3.2) and what is behind
/// that.
pub fn split_login(rest: &str) -> (Option<&str>, &str) {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    }
}

/// The value of an `Authorization` header that shows a user and a password (RFC 7617).
pub fn basic_login(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Whether a host is this very machine: 127.0.0.0/8, `::1`, `localhost`.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether it can be a host's name or address, without a port.
pub fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=253).contains(&text.len()) && text.chars().all(good) && !text.starts_with(['.', '-'])
}

/// A host as resolvers and TLS want it: an address without brackets, a name beyond ASCII in its
/// A-labels (RFC 5890). None when it cannot be a host.
pub fn to_ascii_host(text: &str) -> Option<String> {
    if !is_host(text) {
        return None;
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ascii = match bare.is_ascii() {
        true => Some(bare.to_owned()),
        false => to_a_labels(bare).filter(|name| name.len() <= 253),
    };
    // No name server has a name with another label (RFC 1035, 2.3.4).
    let is_label = |label: &str| (1..=63).contains(&label.len());
    ascii.filter(|name| name.strip_suffix('.').unwrap_or(name).split('.').all(is_label))
}

/// A name with its labels beyond ASCII in Punycode (RFC 3492). Letters become small, and no other form
/// is sought: the tables of UTS 46 would make a fifth of hbc, and a decomposed letter is none of a
/// host ([`is_host`]).
fn to_a_labels(name: &str) -> Option<String> {
    let a_label = |label: &str| match label.is_ascii() {
        true => Some(label.to_owned()),
        false => Some(format!("xn--{}", idna::punycode::encode_str(label)?)),
    };
    let labels: Option<Vec<String>> = name.to_lowercase().split('.').map(a_label).collect();
    Some(labels?.join("."))
}

/// Whether it can name something in the configuration: 1-253 of `A-Za-z0-9._-`.
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=253).contains(&text.len()) && text.bytes().all(good)
}

/// What is wrong with a token that is no [`is_header_text`].
pub const NO_HEADER_TEXT: &str =
    "must be of ASCII characters, with no blank at either end: a header of HTTP carries no others";

/// Whether a header of HTTP carries it as it stands.
pub fn is_header_text(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Scheme, host, port and path prefix of a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// The whole, without a trailing slash.
    pub text: String,
    /// The host alone.
    pub host: String,
    /// Whether it is `https`.
    pub secure: bool,
}

impl BaseUrl {
    /// Parses one; without a scheme it is `https`. The error says what is expected.
    pub fn parse(text: &str) -> Result<BaseUrl, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(format!("must begin with https:// or http://, not {scheme}://")),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            return Err("must not hold a user or a password".into());
        }
        if rest.contains(|c: char| c.is_whitespace() || matches!(c, '?' | '#' | '"' | '\\')) {
            return Err("must be a host, maybe with a port and a path".into());
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let (written, port) = split_port(authority);
        let ascii = to_ascii_host(written);
        let ascii = ascii.ok_or_else(|| format!("\"{written}\" cannot be the name of a host"))?;
        let host = if written.is_ascii() { written } else { &ascii };
        let after = &rest[written.len()..];
        if port.is_some_and(|port| !port.parse().is_ok_and(|port: u16| port > 0)) {
            return Err("must have a port from 1 to 65535 behind the colon".into());
        }
        if !after.is_ascii() {
            return Err(
                "must have no letters beyond ASCII in its path: write them as %C3%BC".into()
            );
        }
        Ok(BaseUrl { text: format!("{scheme}://{host}{after}"), host: host.to_owned(), secure })
    }

    /// Whether requests to it are not encrypted on a network.
    pub fn in_clear(&self) -> bool {
        !self.secure && !is_loopback(&self.host)
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port))
            if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) =>
        {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_codes_are_decoded_and_what_is_none_is_refused_or_kept() {
        for (text, decoded, lossy) in [
            ("", Some(""), ""),
            ("a%2Fb%3f", Some("a/b?"), "a/b?"),
            ("m%C3%BCnster", Some("m\u{fc}nster"), "m\u{fc}nster"),
            ("%25%", None, "%%"),
            ("%+1", None, "%+1"),
            ("%2", None, "%2"),
            ("%%41", None, "%A"),
            ("%ff", None, "\u{fffd}"),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
            assert_eq!(percent_decoded_lossy(text), lossy, "{text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest_of_the_world() {
        for host in ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.168.1.1", "example.com", "localhost.example.com", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_name_beyond_ascii_passed_the_check_and_was_never_found() {
        for (text, ascii) in [
            ("mail.büro.example", Some("mail.xn--bro-hoa.example")),
            ("MÜLLER.example", Some("xn--mller-kva.example")),
            ("例え.jp", Some("xn--r8jz45g.jp")),
            ("mail.example", Some("mail.example")),
            ("_dmarc.example", Some("_dmarc.example")),
            ("[::1]", Some("::1")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(to_ascii_host(text).as_deref(), ascii, "{text}");
        }
    }

    #[test]
    fn a_name_that_no_name_server_can_have_passed_the_check() {
        let label = "x".repeat(64);
        for text in ["a..b", "b\u{fc}ro..example", "a..", &label, &format!("{label}.example")] {
            assert_eq!(to_ascii_host(text), None, "{text}");
        }
        for text in ["example.", &label[1..], "fe80::1"] {
            assert_eq!(to_ascii_host(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn base_urls_are_completed_and_checked() {
        for (text, url) in [
            ("chat.example.com", "https://chat.example.com"),
            ("chat.example.com:8065/", "https://chat.example.com:8065"),
            ("http://127.0.0.1:8065/team", "http://127.0.0.1:8065/team"),
            ("https://[::1]:8065", "https://[::1]:8065"),
            ("https://chat.münchen.example:8065/a", "https://chat.xn--mnchen-3ya.example:8065/a"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().text, url);
        }
        for text in
            ["", "ftp://x", "a b", "x:0", "x:99999", "x:y", "u:p@x", "https://", "x?y=1", "x/ü"]
        {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
        assert!(BaseUrl::parse("http://chat.example.com").unwrap().in_clear());
        assert!(!BaseUrl::parse("http://localhost").unwrap().in_clear());
    }
}
