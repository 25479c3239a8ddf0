//! Several requests in one, on their way from the gate to the handlers, and their answers on the
//! way back: HTTP messages one after the other, as `application/http` (RFC 9112, section 10.2).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use socket2::SockRef;

use super::backend::Inner;
use super::exchange::{LINGER, WORK_TIME, linger, printed, unavailable};
use super::slots::{Phase, Ticket};
use super::stream::{Socket, receive_at_once};
use super::workers::Crew;
use super::{STACK, request};
use crate::http::api::Request;
use crate::http::routes::{Route, route};
use crate::thread::AbortOnPanic;

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
    let peer = header(request::PEER).and_then(|text| text.parse().ok());
    Request {
        method,
        target,
        authorization: header("Authorization"),
        content_type: header("Content-Type"),
        host: header("Host"),
        origin: header("Origin"),
        site: header("Sec-Fetch-Site"),
        encrypted: header(request::ENCRYPTED) == Some("true"),
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

/// So many go at a time: while one waits for the disk, others gather and are read.
pub const FERRIES: usize = 6;
/// So many requests go together. Each has up to 24 KiB.
const MOST: usize = 64;

/// A request that waits to be taken behind the gate, and who waits for its answer.
pub struct Fare {
    /// The client, to whom nothing was said yet.
    pub socket: Arc<TcpStream>,
    /// Its seat.
    pub ticket: Ticket,
    /// The request.
    pub message: Vec<u8>,
    /// What it asks for.
    pub target: String,
}

/// The way behind the gate for small requests.
pub struct Ferry {
    /// None means the end.
    waiting: Sender<Option<Fare>>,
    ended: Receiver<()>,
}

impl Ferry {
    /// Starts its threads.
    ///
    /// # Errors
    /// Why there are none.
    pub fn start(inner: &Arc<Inner>) -> io::Result<Ferry> {
        let (waiting, fares) = unbounded();
        let (alive, ended) = bounded(0);
        let ferry = Ferry { waiting, ended };
        for number in 1..=FERRIES {
            let (inner, fares, alive) = (Arc::clone(inner), fares.clone(), Sender::clone(&alive));
            let work = move || {
                let _vital = AbortOnPanic;
                let mut goes_on = true;
                while goes_on && let Ok(Some(first)) = fares.recv() {
                    goes_on = carry(&inner, first, &fares);
                }
                drop((inner, alive));
            };
            thread::Builder::new().name(format!("ferry-{number}")).stack_size(STACK).spawn(work)?;
        }
        Ok(ferry)
    }

    /// Takes a request over, up to its answer. There are not more of them than seats.
    pub fn take(&self, fare: Fare) {
        let _ = self.waiting.send(Some(fare));
    }

    /// Ends, once all that was taken over has been answered.
    pub fn close(&self, patience: Duration) {
        (0..FERRIES).for_each(|_| drop(self.waiting.send(None)));
        let _ = self.ended.recv_timeout(patience);
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

/// Takes `first` across, with whoever waits beside it, and brings each its answer; false when the
/// end was among those that waited.
fn carry(inner: &Inner, first: Fare, waiting: &Receiver<Option<Fare>>) -> bool {
    let mut fares = vec![first];
    let mut goes_on = true;
    while goes_on
        && fares.len() < MOST
        && let Ok(next) = waiting.try_recv()
    {
        match next {
            Some(fare) => fares.push(fare),
            None => goes_on = false,
        }
    }
    let answer = cross(inner, &fares);
    let answers = match &answer {
        Ok(bytes) => body_of(bytes).and_then(|body| answers(body, fares.len())),
        Err(why) => {
            log::debug!("requests cannot be taken now: {why}");
            None
        }
    };
    for (at, fare) in fares.iter().enumerate() {
        match &answers {
            Some(answers) => send(fare, answers[at]),
            None => send(fare, &printed(&unavailable(&fare.target))),
        }
    }
    // Nobody waits for the end of a connection.
    fares.into_iter().for_each(end);
    goes_on
}

/// All requests in one, and the answer to that.
fn cross(inner: &Inner, fares: &[Fare]) -> io::Result<Vec<u8>> {
    let mut connection = inner.connect(WORK_TIME)?;
    let length: usize = fares.iter().map(|fare| fare.message.len()).sum();
    let mut bytes = Vec::with_capacity(length + 256);
    write!(bytes, "POST / HTTP/1.1\r\n{}: {}\r\n", HEADER, fares.len())?;
    write!(bytes, "Connection: close\r\nContent-Length: {length}\r\n\r\n")?;
    fares.iter().for_each(|fare| bytes.extend_from_slice(&fare.message));
    connection.write_all(&bytes)?;
    bytes.clear();
    let end = Instant::now() + WORK_TIME;
    let mut piece = [0; 16 * 1024];
    while end_of_answer(&bytes) != Some(bytes.len()) {
        if Instant::now() > end {
            return Err(ErrorKind::TimedOut.into());
        }
        match connection.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
    Ok(bytes)
}

/// Gives a client its answer. It fits into what a connection holds on which nothing was sent yet:
/// nobody is waited for.
fn send(fare: &Fare, answer: &[u8]) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    match SockRef::from(&*fare.socket).send_with_flags(answer, flags) {
        Ok(count) if count == answer.len() => {}
        Ok(_) => log::debug!("a client takes only the beginning of its answer"),
        Err(why) => log::debug!("a client does not take its answer: {why}"),
    }
}

/// Ends a connection whose client has its answer.
fn end(fare: Fare) {
    let more = receive_at_once(&fare.socket, &mut [0]);
    if matches!(more, Ok(count) if count > 0) && fare.ticket.enter(Phase::Lingering) {
        // Rare, and bounded by the seats.
        let _ =
            thread::Builder::new().name("gate-linger".into()).stack_size(STACK).spawn(move || {
                // This thread is none of the gate's.
                let (socket, crew) = (&*fare.socket, &Crew::default());
                linger(Socket { socket, crew, end: Instant::now() + LINGER, stall: LINGER });
            });
    }
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
