//! Several requests in one, on their way from the gate to the handlers, and their answers on the
//! way back: HTTP messages one after the other, as `application/http` (RFC 9112, section 10.2).
//! Pure.

use std::net::{IpAddr, Ipv4Addr};

use super::answer::Request;
use super::head;
use super::routes::{Route, route};

/// What it is called as a body.
pub const TYPE: &str = "application/http";

/// The header, of our own, that a batch has; its value is how many requests there are.
pub const HEADER: &str = "X-Heartbeat-Batch";

const MOST_HEADERS: usize = 32;

/// Whether a request may go with others: it is small in what it asks for, and all that there is to
/// wait for is the disk.
pub fn may_join(method: &str, target: &str) -> bool {
    matches!(route(method, target), Ok(Route::Alert | Route::Heartbeat))
}

/// The requests of a batch, in their order; none when it is not one.
pub fn requests(mut bytes: &[u8]) -> Option<Vec<Request<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
        let (method, target) = (parsed.method?, parsed.path?);
        let (body, rest) = bytes[length..].split_at_checked(length_of(parsed.headers)?)?;
        let named = |name: &str| text_of(parsed.headers, name);
        all.push(asked(method, target, named, body));
        bytes = rest;
    }
    Some(all)
}

/// A request, as the gate has written it: what its headers say, and its body.
pub fn asked<'a>(
    method: &'a str,
    target: &'a str,
    header: impl Fn(&'static str) -> Option<&'a str>,
    body: &'a [u8],
) -> Request<'a> {
    let peer = header(head::PEER).and_then(|text| text.parse().ok());
    Request {
        method,
        target,
        authorization: header("Authorization"),
        content_type: header("Content-Type"),
        host: header("Host"),
        origin: header("Origin"),
        site: header("Sec-Fetch-Site"),
        encrypted: header(head::ENCRYPTED) == Some("true"),
        if_none_match: header("If-None-Match"),
        body,
        peer: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    }
}

/// The answers in the answer to a batch; none when they are not as many as there were requests.
pub fn answers(mut bytes: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let (one, rest) = bytes.split_at_checked(end_of_answer(bytes)?)?;
        all.push(one);
        bytes = rest;
    }
    bytes.is_empty().then_some(all)
}

/// The body of an answer to a batch.
pub fn body_of(answer: &[u8]) -> Option<&[u8]> {
    let head = AnswerHead::read(answer)?;
    let is_batch = (head.status, head.content_type) == (200, Some(TYPE));
    is_batch.then(|| &answer[head.length..])
}

/// Where an answer ends, when its head is there and says how long the body is.
pub fn end_of_answer(bytes: &[u8]) -> Option<usize> {
    let head = AnswerHead::read(bytes)?;
    head.length.checked_add(head.body)
}

struct AnswerHead<'a> {
    status: u16,
    content_type: Option<&'a str>,
    /// How long it is.
    length: usize,
    /// How long it says that the body is.
    body: usize,
}

impl<'a> AnswerHead<'a> {
    fn read(bytes: &'a [u8]) -> Option<AnswerHead<'a>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
        let content_type = text_of(parsed.headers, "Content-Type");
        Some(AnswerHead {
            status: parsed.code?,
            content_type,
            length,
            body: length_of(parsed.headers)?,
        })
    }
}

fn length_of(headers: &[httparse::Header]) -> Option<usize> {
    text_of(headers, "Content-Length")?.parse().ok()
}

fn text_of<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_out_as_they_went_in() {
        let text = "POST /alert HTTP/1.1\r\nauthorization: Bearer x\r\nX-Heartbeat-Peer: ::1\r\n\
            X-Heartbeat-Encrypted: true\r\nContent-Length: 22\r\n\r\nGET / HTTP/1.1\r\nA: b\r\n\
            POST /api/v1/heartbeat?x=1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let all = requests(text.as_bytes()).unwrap();
        let [first, second] = &all[..] else { panic!("{}", all.len()) };
        assert_eq!((first.method, first.target), ("POST", "/alert"));
        assert_eq!(first.authorization, Some("Bearer x"));
        assert_eq!(first.peer, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!((first.encrypted, second.encrypted), (true, false));
        assert_eq!(first.body, b"GET / HTTP/1.1\r\nA: b\r\n");
        assert_eq!((second.target, second.body), ("/api/v1/heartbeat?x=1", &b""[..]));
        assert!(requests(b"").unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_off_or_no_request_is_no_batch() {
        let whole = "POST /alert HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        assert!(requests(whole.as_bytes()).is_some());
        for end in 1..whole.len() {
            assert!(requests(&whole.as_bytes()[..end]).is_none(), "{}", &whole[..end]);
        }
        assert!(requests(b"POST /alert HTTP/1.1\r\n\r\n").is_none(), "no length");
        assert!(requests(b"POST /alert HTTP/1.1\r\nContent-Length: -1\r\n\r\n").is_none());
    }

    #[test]
    fn every_request_has_one_answer() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n\
            HTTP/1.1 503 x\r\nRetry-After: 5\r\ncontent-length: 0\r\n\r\n";
        let all = answers(bytes, 2).unwrap();
        assert!(all[0].ends_with(b"ok\n") && all[1].starts_with(b"HTTP/1.1 503"));
        for (end, count) in [(bytes.len(), 1), (bytes.len(), 3), (bytes.len() - 1, 2), (0, 1)] {
            assert!(answers(&bytes[..end], count).is_none(), "{end} {count}");
        }
    }

    #[test]
    fn only_a_batch_is_taken_for_the_answer_to_one() {
        let answer = |status, kind| {
            let text = format!(
                "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\nab"
            );
            body_of(text.as_bytes()).map(<[u8]>::to_vec)
        };
        assert_eq!(answer(200, TYPE), Some(b"ab".to_vec()));
        assert_eq!(answer(503, TYPE), None);
        assert_eq!(answer(200, "text/plain"), None);
    }

    #[test]
    fn only_what_waits_for_the_disk_alone_goes_with_others() {
        assert!(may_join("POST", "/alert"));
        assert!(may_join("POST", "/api/v1/heartbeat?x"));
        assert!(!may_join("GET", "/alert"));
        assert!(!may_join("POST", "/api/v1/notify"));
        assert!(!may_join("POST", "/-/reload"));
    }
}
