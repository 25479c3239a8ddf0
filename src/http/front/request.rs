//! Strict reading of a request: its head and its chunks. Pure.
//!
//! HTTP/1.0 and 1.1 (RFC 9112), stricter than it where leniency has been abused: one framing
//! only, no unknown methods, and only the headers in `KEPT_HEADERS` are kept.

use std::io::{self, BufRead, ErrorKind, Read};

use super::limits::{MAX_BODY, MAX_HEAD, MAX_HEADERS, MAX_TARGET};

/// The header, of our own, that tells the backend the address of the client.
pub const PEER_HEADER: &str = "X-Heartbeat-Peer";

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
/// Only these are kept: what is not here can neither fool nor crash anything.
const KEPT_HEADERS: [&str; 8] = [
    "Authorization",
    "Content-Type",
    "Accept",
    "Host",
    "Origin",
    "Sec-Fetch-Site",
    "If-None-Match",
    "X-Forwarded-For",
];

/// Those among them by which a request is judged, and which go no further.
pub const JUDGED_HEADERS: [&str; 5] =
    ["Authorization", "Host", "Origin", "Sec-Fetch-Site", "X-Forwarded-For"];

/// Those among them that hold lists.
const LIST_HEADERS: [&str; 3] = ["Accept", "If-None-Match", "X-Forwarded-For"];

/// A request line with the headers that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// One of the known methods.
    pub method: String,
    /// Path and query, printable ASCII, beginning with a slash.
    pub target: String,
    /// The client speaks HTTP/1.0: no chunks, no `100 Continue`.
    pub http10: bool,
    /// How long the body is.
    pub body: BodyLength,
    /// It waits for `100 Continue` before it sends the body.
    pub wants_continue: bool,
    /// The headers that matter.
    pub headers: Vec<(&'static str, String)>,
    /// How many bytes the head took.
    pub length: usize,
}

impl RequestHead {
    /// The value of one of the headers that matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How the end of a body is found (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// `Content-Length`: so many bytes.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why a request is not forwarded: what the client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// The HTTP status.
    pub status: u16,
    /// The reason, for the author of the client.
    pub why: &'static str,
    /// The method of the request, where that was understood.
    pub method: String,
    /// What was asked for, where that was understood.
    pub target: String,
    /// A further header of the answer.
    pub header: Option<(&'static str, String)>,
}

impl HttpError {
    /// An error of a request whose target is not known.
    pub fn new(status: u16, why: &'static str) -> HttpError {
        HttpError { status, why, method: String::new(), target: String::new(), header: None }
    }

    /// The same, of this request for `target`.
    #[must_use]
    pub fn with_request(self, method: &str, target: &str) -> HttpError {
        HttpError { method: method.to_owned(), target: target.to_owned(), ..self }
    }

    /// The same, with this header in its answer.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: impl Into<String>) -> HttpError {
        HttpError { header: Some((name, value.into())), ..self }
    }
}

/// Reads a head; none when it is not complete yet.
pub fn parse(bytes: &[u8]) -> Result<Option<RequestHead>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let error = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => return validated(&request, length).map(Some),
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => HttpError::new(431, "the head is too long"),
        Err(httparse::Error::TooManyHeaders) => HttpError::new(431, "too many headers"),
        Err(httparse::Error::Version) => {
            HttpError::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        }
        Err(_) => HttpError::new(400, "this is not HTTP"),
    };
    // The first line may have been understood.
    let found = request.path.and_then(|path| target(path).ok());
    Err(match found {
        Some((_, target)) => error.with_request(request.method.unwrap_or_default(), &target),
        None => error,
    })
}

fn validated(request: &httparse::Request, length: usize) -> Result<RequestHead, HttpError> {
    let (authority, target) = target(request.path.unwrap_or_default())?;
    let name = request.method.unwrap_or_default();
    let validate = || {
        let http10 = request.version == Some(0);
        let (body, wants_continue) = body_length(request.headers)?;
        Ok(RequestHead {
            method: method(name)?,
            target: target.clone(),
            http10,
            body,
            wants_continue: wants_continue && !http10,
            headers: with_authority(forwarded(request.headers)?, authority),
            length,
        })
    };
    validate().map_err(|error: HttpError| error.with_request(name, &target))
}

/// The host that a target names, and its path and query. The absolute form, which proxies are sent, must
/// be understood by every server (RFC 9112, section 3.2.2).
fn target(text: &str) -> Result<(Option<&str>, String), HttpError> {
    if text.len() > MAX_TARGET {
        return Err(HttpError::new(414, "the path is too long"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HttpError::new(400, "the path must be printable ASCII"));
    }
    if text.starts_with('/') {
        return Ok((None, text.to_owned()));
    }
    let is_web =
        |scheme: &str| ["http", "https"].iter().any(|web| web.eq_ignore_ascii_case(scheme));
    let Some((_, rest)) = text.split_once("://").filter(|(scheme, _)| is_web(scheme)) else {
        return Err(HttpError::new(400, "the path must begin with a slash"));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains('@') || path.contains('#') {
        return Err(HttpError::new(
            400,
            "a whole URL must have a host, without a user or a fragment",
        ));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((Some(authority), format!("{slash}{path}")))
}

/// The headers with the host that the target names, which goes before the one in the header.
fn with_authority(
    mut headers: Vec<(&'static str, String)>,
    authority: Option<&str>,
) -> Vec<(&'static str, String)> {
    if let Some(authority) = authority {
        headers.retain(|(name, _)| *name != "Host");
        headers.push(("Host", authority.to_owned()));
    }
    headers
}

fn method(text: &str) -> Result<String, HttpError> {
    if METHODS.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(HttpError::new(405, "the method is not known here")
            .with_header("Allow", "GET, HEAD, POST"))
    }
}

fn body_length(headers: &[httparse::Header]) -> Result<(BodyLength, bool), HttpError> {
    let (mut length, mut chunked, mut wants_continue) = (None, false, false);
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.replace(content_length(header.value)?).is_some() {
                return Err(HttpError::new(400, "Content-Length is given twice"));
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::new(501, "the only Transfer-Encoding known is chunked"));
            }
            if std::mem::replace(&mut chunked, true) {
                return Err(HttpError::new(400, "Transfer-Encoding is given twice"));
            }
        } else if header.name.eq_ignore_ascii_case("expect") {
            if !header.value.eq_ignore_ascii_case(b"100-continue") {
                return Err(HttpError::new(417, "the only Expect known is 100-continue"));
            }
            wants_continue = true;
        }
    }
    let body = match (length, chunked) {
        (Some(_), true) => {
            return Err(HttpError::new(400, "Content-Length and chunked exclude each other"));
        }
        (Some(length), false) if length > MAX_BODY => return Err(too_large()),
        (Some(length), false) => BodyLength::Length(length),
        (None, true) => BodyLength::Chunked,
        (None, false) => BodyLength::None,
    };
    Ok((body, wants_continue))
}

/// The error about a body that is too large.
pub fn too_large() -> HttpError {
    HttpError::new(413, "the body is larger than 4 MiB")
}

/// Digits only: `parse` alone would take a plus sign. What has more than 19 digits is too large
/// in any case.
fn content_length(value: &[u8]) -> Result<usize, HttpError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::new(400, "Content-Length must be a number"));
    }
    let text = std::str::from_utf8(value).unwrap_or_default();
    Ok(text.parse().unwrap_or(usize::MAX))
}

fn forwarded(headers: &[httparse::Header]) -> Result<Vec<(&'static str, String)>, HttpError> {
    let mut kept = Vec::new();
    for header in headers {
        let Some(name) =
            KEPT_HEADERS.into_iter().find(|name| name.eq_ignore_ascii_case(header.name))
        else {
            continue;
        };
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\t';
        if !header.value.iter().all(printable) {
            return Err(HttpError::new(400, "a header is not printable ASCII"));
        }
        let value = String::from_utf8_lossy(header.value).into_owned();
        match kept.iter_mut().find(|(other, _): &&mut (&str, String)| *other == name) {
            None => kept.push((name, value)),
            // RFC 9110, section 5.3: lines of a list are one list.
            Some((_, list)) if LIST_HEADERS.contains(&name) => {
                list.push_str(", ");
                list.push_str(&value);
            }
            Some(_) => {
                return Err(HttpError::new(400, "a header is given twice that may be given once"));
            }
        }
    }
    Ok(kept)
}

const MAX_LINE: u64 = 1024;
const MAX_TRAILERS: usize = 16;

/// Decodes the chunked coding (RFC 9112, section 7.1), with a bound on everything that is not body.
///
/// The decoder of the crate that tiny_http uses keeps a chunk-size line of any length in memory
/// and refuses trailers.
pub struct ChunkedReader<R> {
    source: R,
    left_in_chunk: usize,
    started: bool,
    ended: bool,
}

impl<R: BufRead> ChunkedReader<R> {
    /// Decodes the chunks of `source`.
    pub fn new(source: R) -> ChunkedReader<R> {
        ChunkedReader { source, left_in_chunk: 0, started: false, ended: false }
    }

    /// Whether the last chunk was read.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the chunks come from.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The same, with what follows the chunks.
    pub fn into_inner(self) -> R {
        self.source
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.started && !self.line()?.is_empty() {
            return Err(malformed("a chunk is longer than its size"));
        }
        self.started = true;
        let line = self.line()?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(malformed("the size of a chunk is not a number"));
        }
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        self.left_in_chunk =
            usize::from_str_radix(digits, 16).map_err(|_| malformed("a chunk is too large"))?;
        if self.left_in_chunk == 0 {
            self.skip_trailers()?;
            self.ended = true;
        }
        Ok(())
    }

    fn skip_trailers(&mut self) -> io::Result<()> {
        for _ in 0..=MAX_TRAILERS {
            if self.line()?.is_empty() {
                return Ok(());
            }
        }
        Err(malformed("too many trailers"))
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.source.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(content) => Ok(content.to_vec()),
            None if line.len() as u64 == MAX_LINE => Err(malformed("a line is too long")),
            None if line.ends_with(b"\n") => Err(malformed("a line ends without CR")),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: BufRead> Read for ChunkedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left_in_chunk == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended || into.is_empty() {
            return Ok(0);
        }
        let wanted = into.len().min(self.left_in_chunk);
        let count = self.source.read(&mut into[..wanted])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left_in_chunk -= count;
        Ok(count)
    }
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> u16 {
        match parse(request.as_bytes()) {
            Err(error) => error.status,
            Ok(Some(_)) => 200,
            Ok(None) => 0,
        }
    }

    #[test]
    fn two_lines_of_one_list_were_refused() {
        let request = "GET / HTTP/1.1\r\naccept: a/b\r\nAccept: c/d;q=0.5\r\n\r\n";
        let head = parse(request.as_bytes()).unwrap().unwrap();
        assert_eq!(head.headers, [("Accept", "a/b, c/d;q=0.5".to_owned())]);
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
            ("GET / HTTP/1.1\r\nAccept: a\r\nAccept: b\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
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
    fn a_whole_url_in_the_first_line_was_refused() {
        for (target, expected) in [
            ("http://h:9099/alert", Some(("/alert", "h:9099"))),
            ("HTTPS://[::1]:9099/alert?x=y", Some(("/alert?x=y", "[::1]:9099"))),
            ("http://h", Some(("/", "h"))),
            ("http://h?x", Some(("/?x", "h"))),
            ("/alert?u=http://h/", Some(("/alert?u=http://h/", "header"))),
            ("http://ann@h/alert", None),
            ("http:///alert", None),
            ("http://h/alert#x", None),
            ("ftp://h/alert", None),
            ("alert", None),
            ("*", None),
            ("h:9099", None),
        ] {
            let request = format!("POST {target} HTTP/1.1\r\nHost: header\r\n\r\n");
            let head = parse(request.as_bytes()).ok().flatten();
            let found =
                head.as_ref().map(|head| (head.target.as_str(), head.headers[0].1.as_str()));
            assert_eq!(found, expected, "{target}");
            assert!(head.is_none_or(|head| head.headers.len() == 1), "{target}");
        }
    }

    #[test]
    fn a_refusal_knows_what_was_asked_for() {
        let request = b"POST /api/v1/heartbeat HTTP/1.1\r\nContent-Length: x\r\n\r\n";
        let error = parse(request).unwrap_err();
        assert_eq!((error.method.as_str(), error.target.as_str()), ("POST", "/api/v1/heartbeat"));
        let head = |rest: &str| format!("POST /alert HTTP/1.1\r\n{rest}");
        for rest in [
            "a: b\r\n".repeat(49) + "\r\n",
            "A: ".to_owned() + &"a".repeat(9000),
            "\0\r\n\r\n".into(),
        ] {
            let error = parse(head(&rest).as_bytes()).unwrap_err();
            assert_eq!((error.method.as_str(), error.target.as_str()), ("POST", "/alert"));
        }
    }

    fn decode(text: &str) -> Result<String, ErrorKind> {
        let mut body = String::new();
        let result = ChunkedReader::new(text.as_bytes()).read_to_string(&mut body);
        result.map(|_| body).map_err(|error| error.kind())
    }

    #[test]
    fn a_body_is_read_out_of_its_chunks() {
        assert_eq!(
            decode("3\r\nhel\r\nB;x=y\r\nlo world!!!\r\n0\r\n\r\n").unwrap(),
            "hello world!!!"
        );
        assert_eq!(decode("0\r\nA: b\r\nC: d\r\n\r\nGET / HTTP/1.1").unwrap(), "");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for (text, expected) in [
            ("", ErrorKind::UnexpectedEof),
            ("5\r\nhel", ErrorKind::UnexpectedEof),
            ("0\r\n", ErrorKind::UnexpectedEof),
            ("-1\r\n", ErrorKind::InvalidData),
            ("\r\n", ErrorKind::InvalidData),
            ("fffffffff\r\n", ErrorKind::InvalidData),
            ("3\nhel", ErrorKind::InvalidData),
            ("3\r\nhello\r\n0\r\n\r\n", ErrorKind::InvalidData),
        ] {
            assert_eq!(decode(text), Err(expected), "{text:?}");
        }
        assert_eq!(decode(&"1".repeat(1_000_000)), Err(ErrorKind::InvalidData));
        assert_eq!(decode(&format!("0\r\n{}", "a: b\r\n".repeat(99))), Err(ErrorKind::InvalidData));
    }
}
