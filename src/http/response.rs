//! A response: status, headers, and a body that is whole, or generated while it is sent. Pure.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};

use httpdate::fmt_http_date;
use serde::Serialize;
use serde_json::json;
use tiny_http::StatusCode;

use super::service::{ReloadResult, SendError};
use crate::clock::Wall;
use crate::escape::{self, LineBreaks, visible};

/// A body up to this size is sent by a handler, and taken by the front, in one go.
pub const SMALL_BODY: usize = 64 * 1024;

/// Security headers of every response: nothing is guessed, nothing is kept. No `Strict-Transport-Security` where TLS is
/// spoken: it would hold for every other port of this name, too (RFC 6797, section 8.3).
pub const COMMON_HEADERS: [(&str, &str); 3] =
    [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"), ("Server", "hbd")];

/// A response.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: ResponseBody,
}

/// The body of a response.
pub enum ResponseBody {
    /// All of it.
    Whole(Vec<u8>),
    /// Made while it is sent, for what would be too large in one piece.
    Stream(Box<dyn Read + Send>),
}

impl Response {
    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        let text: String = visible(&(text.into() + "\n"), LineBreaks::Keep).collect();
        Response::with_body(status, "text/plain; charset=utf-8", text.into_bytes())
    }

    /// JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Response {
        match serde_json::to_string(value) {
            Ok(written) => {
                let body = escape::json(written + "\n").into_bytes();
                Response::with_body(status, "application/json", body)
            }
            Err(why) => Response::text(500, format!("the answer cannot be written as JSON: {why}")),
        }
    }

    /// A picture.
    pub fn svg(picture: String) -> Response {
        Response::with_body(200, "image/svg+xml", picture.into_bytes())
    }

    /// JSON that was written before.
    pub fn json_bytes(json: &[u8]) -> Response {
        Response::with_body(200, "application/json", json.to_vec())
    }

    /// A body that is generated while it is sent.
    pub fn stream(content_type: &'static str, body: impl Read + Send + 'static) -> Response {
        let body = ResponseBody::Stream(Box::new(body));
        Response { status: 200, content_type, headers: Vec::new(), body }
    }

    /// An error in the form that suits what was asked for: JSON below `/api`, else text. With 503
    /// goes a hint when to come back.
    pub fn error(target: &str, status: u16, why: &str) -> Response {
        let response = if target.starts_with("/api/") {
            Response::json(status, &json!({ "error": why }))
        } else {
            Response::text(status, why)
        };
        if status == 503 { response.with_header("Retry-After", "5") } else { response }
    }

    /// The error of a message that was not sent.
    pub fn not_sent(target: &str, why: SendError) -> Response {
        match why {
            SendError::NoChannel(why) => Response::error(target, 400, &why),
            SendError::Busy(why) => Response::error(target, 503, &why),
        }
    }

    /// The result of a reload. Always JSON: scripts want to know what is wrong and where.
    pub fn reloaded(result: ReloadResult) -> Response {
        match result {
            ReloadResult::Applied { changes, warnings } => {
                Response::json(200, &json!({ "changes": changes, "warnings": warnings.0 }))
            }
            ReloadResult::Refused(problems) => {
                let error = "the configuration is refused, the old one stays";
                Response::json(400, &json!({ "error": error, "problems": problems.0 }))
            }
            ReloadResult::NotTried(why) => {
                Response::json(503, &json!({ "error": why })).with_header("Retry-After", "5")
            }
        }
    }

    /// Whether it may be too large to be sent by a handler: a client may take its time to read it.
    pub fn is_large(&self) -> bool {
        match &self.body {
            ResponseBody::Whole(bytes) => bytes.len() > SMALL_BODY,
            ResponseBody::Stream(_) => true,
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    /// 304: the client has already what it asked for (RFC 9110, section 15.4.5).
    pub fn not_modified() -> Response {
        Response::with_body(304, "text/html; charset=utf-8", Vec::new())
    }

    /// As it goes over the wire at `now`, on a connection that ends with it. Of a stream, only the
    /// head.
    pub fn into_bytes(self, now: Wall) -> Vec<u8> {
        let body = match self.body {
            ResponseBody::Whole(body) => body,
            ResponseBody::Stream(_) => Vec::new(),
        };
        let reason = StatusCode(self.status).default_reason_phrase();
        let mut text = String::with_capacity(256 + body.len());
        let _ = write!(text, "HTTP/1.1 {} {reason}\r\nConnection: close\r\n", self.status);
        let date = fmt_http_date(UNIX_EPOCH + Duration::from_millis(now.0.max(0) as u64));
        let _ = write!(text, "Date: {date}\r\nContent-Type: {}\r\n", self.content_type);
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in headers.chain(COMMON_HEADERS) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// All of it, of this type.
    pub fn with_body(status: u16, content_type: &'static str, body: Vec<u8>) -> Response {
        Response { status, content_type, headers: Vec::new(), body: ResponseBody::Whole(body) }
    }
}

/// A body that is generated while it is read: `next` writes one piece after the other, until it
/// returns false.
pub struct GeneratedBody<F> {
    next: F,
    piece: Vec<u8>,
    read: usize,
    more: bool,
}

impl<F: FnMut(&mut Vec<u8>) -> bool> GeneratedBody<F> {
    /// A body of the pieces that `next` writes into the vector it is given.
    pub fn new(next: F) -> GeneratedBody<F> {
        GeneratedBody { next, piece: Vec::new(), read: 0, more: true }
    }
}

impl<F: FnMut(&mut Vec<u8>) -> bool> Read for GeneratedBody<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() && self.more {
            self.piece.clear();
            self.read = 0;
            self.more = (self.next)(&mut self.piece);
        }
        let rest = &self.piece[self.read..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(response: Response) -> String {
        match response.body {
            ResponseBody::Whole(bytes) => String::from_utf8(bytes).unwrap(),
            ResponseBody::Stream(_) => panic!("a stream"),
        }
    }

    #[test]
    fn errors_are_json_below_api_and_text_elsewhere() {
        let api = Response::error("/api/v1/hosts", 404, "no \"such\" host");
        assert_eq!(body(api), "{\"error\":\"no \\\"such\\\" host\"}\n");
        assert_eq!(body(Response::error("/alert", 404, "nothing here")), "nothing here\n");
    }

    #[test]
    fn a_client_that_is_turned_away_is_told_when_to_come_back() {
        let names = |response: Response| response.headers.into_iter().map(|(name, _)| name).next();
        assert_eq!(names(Response::error("/", 503, "full")), Some("Retry-After"));
        assert_eq!(names(Response::error("/", 500, "broken")), None);
    }

    #[test]
    fn pieces_are_read_in_order_and_an_empty_one_is_not_the_end() {
        let mut pieces = ["ab", "", "cde", ""].into_iter();
        let mut body = GeneratedBody::new(|piece| match pieces.next() {
            Some(text) => {
                piece.extend_from_slice(text.as_bytes());
                true
            }
            None => {
                piece.push(b'!');
                false
            }
        });
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde!");
    }
}
