//! The head of a request: what the gate lets through, and in which form. Pure.
//!
//! HTTP/1.0 and 1.1 (RFC 9112), stricter than it where leniency has been abused: one framing
//! only, no unknown methods, and only the headers in [`PASSED`] go on.

/// The largest head, in bytes.
pub const LONGEST_HEAD: usize = 8 * 1024;
/// The largest body, in bytes.
pub const LONGEST_BODY: usize = 4 * 1024 * 1024;
/// The header, of our own, that carries the peer's address behind the gate.
pub const PEER: &str = "X-Heartbeat-Peer";
/// The header, of our own, that says whether the request came through TLS.
pub const ENCRYPTED: &str = "X-Heartbeat-Encrypted";

const MOST_HEADERS: usize = 48;
const LONGEST_TARGET: usize = 2048;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
/// Only these reach the handlers: what is not here can neither fool nor crash them.
const PASSED: [&str; 7] = [
    "Authorization",
    "Content-Type",
    "Accept",
    "Host",
    "Origin",
    "Sec-Fetch-Site",
    "If-None-Match",
];

/// A request line with the headers that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// One of the known methods.
    pub method: String,
    /// Path and query, printable ASCII, beginning with a slash.
    pub target: String,
    /// The client speaks HTTP/1.0: no chunks, no `100 Continue`.
    pub http10: bool,
    /// How the body is framed.
    pub framing: Framing,
    /// It waits for `100 Continue` before it sends the body.
    pub wants_continue: bool,
    /// The headers that go on.
    pub headers: Vec<(&'static str, String)>,
    /// How many bytes the head took.
    pub length: usize,
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a request is not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The reason, for whoever debugs the client.
    pub why: &'static str,
    /// What was asked for, where that was understood.
    pub target: String,
}

impl Refusal {
    /// A refusal of a request whose target is not known.
    pub fn new(status: u16, why: &'static str) -> Refusal {
        Refusal { status, why, target: String::new() }
    }

    /// The same, of a request for `target`.
    #[must_use]
    pub fn of(self, target: &str) -> Refusal {
        Refusal { target: target.to_owned(), ..self }
    }
}

/// Reads a head; none when it is not complete yet.
pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Refusal::new(431, "the head is too long")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "too many headers")),
        Err(httparse::Error::Version) => {
            return Err(Refusal::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"));
        }
        Err(_) => return Err(Refusal::new(400, "this is not HTTP")),
    };
    let target = target(request.path.unwrap_or_default())?;
    let judge = || {
        let http10 = request.version == Some(0);
        let (framing, wants_continue) = framing(request.headers)?;
        Ok(Head {
            method: method(request.method.unwrap_or_default())?,
            target: target.to_owned(),
            http10,
            framing,
            wants_continue: wants_continue && !http10,
            headers: passed(request.headers)?,
            length,
        })
    };
    judge().map(Some).map_err(|refusal: Refusal| refusal.of(target))
}

fn target(text: &str) -> Result<&str, Refusal> {
    if text.len() > LONGEST_TARGET {
        return Err(Refusal::new(414, "the path is too long"));
    }
    if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::new(400, "the path must begin with a slash and be printable ASCII"));
    }
    Ok(text)
}

fn method(text: &str) -> Result<String, Refusal> {
    if METHODS.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(405, "the method is not known here"))
    }
}

fn framing(headers: &[httparse::Header]) -> Result<(Framing, bool), Refusal> {
    let (mut length, mut chunked, mut wants_continue) = (None, false, false);
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.replace(body_length(header.value)?).is_some() {
                return Err(Refusal::new(400, "Content-Length is given twice"));
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::new(501, "the only Transfer-Encoding known is chunked"));
            }
            if std::mem::replace(&mut chunked, true) {
                return Err(Refusal::new(400, "Transfer-Encoding is given twice"));
            }
        } else if header.name.eq_ignore_ascii_case("expect") {
            if !header.value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(417, "the only Expect known is 100-continue"));
            }
            wants_continue = true;
        }
    }
    let framing = match (length, chunked) {
        (Some(_), true) => {
            return Err(Refusal::new(400, "Content-Length and chunked exclude each other"));
        }
        (Some(length), false) if length > LONGEST_BODY => return Err(too_large()),
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (None, false) => Framing::None,
    };
    Ok((framing, wants_continue))
}

/// The refusal of a body that is too large.
pub fn too_large() -> Refusal {
    Refusal::new(413, "the body is larger than 4 MiB")
}

/// Digits only: `parse` alone would take a plus sign. What has more than 19 digits is too large
/// in any case.
fn body_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::new(400, "Content-Length must be a number"));
    }
    let text = std::str::from_utf8(value).unwrap_or_default();
    Ok(text.parse().unwrap_or(usize::MAX))
}

fn passed(headers: &[httparse::Header]) -> Result<Vec<(&'static str, String)>, Refusal> {
    let mut kept = Vec::new();
    for header in headers {
        let Some(name) = PASSED.into_iter().find(|name| name.eq_ignore_ascii_case(header.name))
        else {
            continue;
        };
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\t';
        if !header.value.iter().all(printable) {
            return Err(Refusal::new(400, "a header is not printable ASCII"));
        }
        if kept.iter().any(|(other, _)| *other == name) {
            return Err(Refusal::new(400, "a header is given twice that may be given once"));
        }
        kept.push((name, String::from_utf8_lossy(header.value).into_owned()));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> u16 {
        match parse(request.as_bytes()) {
            Err(refusal) => refusal.status,
            Ok(Some(_)) => 200,
            Ok(None) => 0,
        }
    }

    #[test]
    fn what_is_ambiguous_or_unknown_is_refused() {
        for (request, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", 200),
            ("GET / HTTP/1.0\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\nHost: a\r\n", 0),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("BREW / HTTP/1.1\r\n\r\n", 405),
            ("GET nothing HTTP/1.1\r\n\r\n", 400),
            ("\x16\x03\x01", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 100000000000\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
            ("POST / HTTP/1.1\r\nExpect: magic\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nAuthorization: \u{e4}\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nUser-Agent: \u{e4}\r\n\r\n", 200),
        ] {
            assert_eq!(status(request), expected, "{request}");
        }
        assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(3000))), 414);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(9000))), 431);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(49))), 431);
    }

    #[test]
    fn only_known_headers_go_on() {
        let request = "GET / HTTP/1.1\r\nx-heartbeat-peer: 6.6.6.6\r\nTE: a,b;q=nan\r\n\
                       Connection: upgrade\r\nauthorization: Bearer x\r\n\r\n";
        let head = parse(request.as_bytes()).unwrap().unwrap();
        assert_eq!(head.headers, [("Authorization", "Bearer x".to_owned())]);
    }

    #[test]
    fn a_refusal_knows_what_was_asked_for() {
        let request = b"POST /api/v1/heartbeat HTTP/1.1\r\nContent-Length: x\r\n\r\n";
        assert_eq!(parse(request).unwrap_err().target, "/api/v1/heartbeat");
    }
}
