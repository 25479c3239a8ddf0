//! HTTP client of the backend: keep-alive connections, reused, bounded, and opened one after the
//! other.
//!
//! tiny_http serves a connection with one thread for as long as it is open. Its thread pool
//! (task_pool.rs of 0.12) counts a thread as waiting until that has woken up: connections that are
//! accepted in the same moment may be queued for fewer threads than there are, and one that is
//! left over would wait until another one is closed. So a connection is opened only when the one
//! before it has answered a request.

use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read, Take, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::backend::Backend;
use super::limits::{BACKEND_IDLE_TIMEOUT, MAX_BACKEND_CONNECTIONS, MAX_BACKEND_WRITES, MAX_HEAD};
use super::request::{BodyLength, ChunkedReader};
use super::stream::peek_now;
use crate::deadline::DeadlineStream;
use crate::thread::{Permit, Semaphore, lock};

const MAX_HEADERS: usize = 32;

const HEALTH_CHECK: &[u8] = b"GET /-/healthy HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

/// The connections to the backend.
pub struct Upstream {
    backend: Arc<Backend>,
    /// The one that was used last comes last.
    idle: Mutex<Vec<IdleConnection>>,
    in_use: Semaphore,
    writes: Semaphore,
    opening: Semaphore,
}

struct IdleConnection {
    stream: UnixStream,
    instance: u32,
    since: Instant,
}

/// A connection with one exchange on it.
pub struct UpstreamConnection<'a> {
    upstream: &'a Upstream,
    stream: DeadlineStream<UnixStream>,
    instance: u32,
    /// It has carried a request before.
    reused: bool,
    _permits: (Permit, Option<Permit>),
}

impl Upstream {
    /// Connections to `backend`, none of which is open yet.
    pub fn new(backend: Arc<Backend>) -> Upstream {
        let (in_use, writes) =
            (Semaphore::new(MAX_BACKEND_CONNECTIONS), Semaphore::new(MAX_BACKEND_WRITES));
        Upstream { backend, idle: Mutex::default(), in_use, writes, opening: Semaphore::new(1) }
    }

    /// Sends a request, head and body; `writes` when its response may wait for the disk. One that
    /// nothing was taken of, because the backend had closed the connection meanwhile, is sent over
    /// another one.
    ///
    /// # Errors
    /// `TimedOut` when no connection is free until `deadline`; else why it cannot be sent.
    pub fn send(
        &self,
        head: &[u8],
        body: &[u8],
        writes: bool,
        deadline: Instant,
    ) -> io::Result<UpstreamConnection<'_>> {
        loop {
            let mut connection = self.acquire(writes, deadline)?;
            let count = match connection.stream.write(head) {
                Err(_) if connection.reused => continue,
                written => written?,
            };
            connection.stream.write_all(&head[count..])?;
            connection.stream.write_all(body)?;
            return Ok(connection);
        }
    }

    /// Asks the backend for its health, over a new connection: an old one that works is no proof
    /// that another one can be opened. It needs no permit: while all connections wait for a slow
    /// disk, the backend is healthy nevertheless.
    ///
    /// # Errors
    /// When there is no answer until `deadline`, or another one than 200.
    pub fn check_health(&self, deadline: Instant) -> io::Result<()> {
        let _turn = acquire(&self.opening, deadline)?;
        self.open(deadline).map(drop)
    }

    /// Closes the connections that have been idle for long, and those to an instance that was
    /// replaced.
    pub fn close_idle(&self) {
        let current = self.backend.instance();
        let mut idle = lock(&self.idle);
        idle.retain(|one| one.instance == current);
        while idle.len() > 1 && idle[0].since.elapsed() > BACKEND_IDLE_TIMEOUT {
            idle.remove(0);
        }
    }

    /// Whether the backend works on as many requests as it may.
    pub fn is_saturated(&self) -> bool {
        self.in_use.is_exhausted()
    }

    fn acquire(&self, writes: bool, deadline: Instant) -> io::Result<UpstreamConnection<'_>> {
        let write = writes.then(|| acquire(&self.writes, deadline)).transpose()?;
        let _permits = (acquire(&self.in_use, deadline)?, write);
        let connection = |stream, instance, reused| {
            let stream = DeadlineStream::new(stream, deadline);
            UpstreamConnection { upstream: self, stream, instance, reused, _permits }
        };
        if let Some(IdleConnection { stream, instance, .. }) = self.pop_idle() {
            return Ok(connection(stream, instance, true));
        }
        let _turn = acquire(&self.opening, deadline)?;
        // There are never more than there are permits: one is opened only while none is idle.
        if let Some(IdleConnection { stream, instance, .. }) = self.pop_idle() {
            return Ok(connection(stream, instance, true));
        }
        let (stream, instance) = self.open(deadline)?;
        Ok(connection(stream, instance, false))
    }

    /// The one that was used last, of those that the backend has not closed.
    fn pop_idle(&self) -> Option<IdleConnection> {
        let current = self.backend.instance();
        let mut idle = lock(&self.idle);
        while let Some(last) = idle.pop() {
            let peeked = peek_now(&last.stream);
            let open = matches!(peeked, Err(why) if why.kind() == ErrorKind::WouldBlock);
            if open && last.instance == current {
                return Some(last);
            }
        }
        None
    }

    /// A new connection, after its first exchange. Only one thread at a time may open one.
    fn open(&self, deadline: Instant) -> io::Result<(UnixStream, u32)> {
        let (stream, instance) = self.backend.connect()?;
        let mut exchange = DeadlineStream::new(&stream, deadline);
        exchange.write_all(HEALTH_CHECK)?;
        let (head, mut body) = read_head(&mut exchange)?;
        let BodyLength::Length(length) = head.body else { return Err(malformed()) };
        let missing = length.saturating_sub(body.len());
        exchange.take(missing as u64).read_to_end(&mut body)?;
        if head.status == 200 && body.len() == length {
            Ok((stream, instance))
        } else {
            Err(malformed())
        }
    }
}

/// Asks the backend for its health, where neither a token nor a crowd of clients is in the way.
pub struct HealthProbe(Weak<Upstream>);

impl HealthProbe {
    /// Asks over the connections of `upstream`, as long as it is there.
    pub fn new(upstream: &Arc<Upstream>) -> HealthProbe {
        HealthProbe(Arc::downgrade(upstream))
    }

    /// Whether a request is answered until `deadline`. After the stop it always is.
    pub fn answers(&self, deadline: Instant) -> bool {
        self.0.upgrade().is_none_or(|upstream| upstream.check_health(deadline).is_ok())
    }
}

fn acquire(semaphore: &Semaphore, deadline: Instant) -> io::Result<Permit> {
    let left = deadline.saturating_duration_since(Instant::now());
    semaphore.acquire_timeout(left).ok_or_else(|| ErrorKind::TimedOut.into())
}

fn malformed() -> io::Error {
    ErrorKind::InvalidData.into()
}

impl<'a> UpstreamConnection<'a> {
    /// The response, as soon as its head is there. `to_head`: the request was HEAD, so there is no
    /// body.
    ///
    /// # Errors
    /// Why there is none.
    pub fn receive(mut self, to_head: bool) -> io::Result<UpstreamResponse<'a>> {
        let (head, rest) = read_head(&mut self.stream)?;
        let without_body = to_head || matches!(head.status, 100..=199 | 204 | 304);
        let length = if without_body { BodyLength::None } else { head.body };
        let source = Cursor::new(rest).chain(self);
        let body = match length {
            BodyLength::None => ResponseReader::Sized(source.take(0)),
            BodyLength::Length(length) => ResponseReader::Sized(source.take(length as u64)),
            BodyLength::Chunked => {
                ResponseReader::Chunked(ChunkedReader::new(BufReader::new(source)))
            }
        };
        Ok(UpstreamResponse { head, body })
    }

    /// Leaves it to the next request: this one has its whole response.
    fn keep(self) {
        let mut idle = lock(&self.upstream.idle);
        let since = Instant::now();
        idle.push(IdleConnection { stream: self.stream.stream, instance: self.instance, since });
        drop(idle);
        self.upstream.close_idle();
    }
}

impl Read for UpstreamConnection<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

/// A response whose head has come.
pub struct UpstreamResponse<'a> {
    /// Its head.
    pub head: ResponseHead,
    body: ResponseReader<'a>,
}

type BodySource<'a> = Chain<Cursor<Vec<u8>>, UpstreamConnection<'a>>;

enum ResponseReader<'a> {
    Sized(Take<BodySource<'a>>),
    Chunked(ChunkedReader<BufReader<BodySource<'a>>>),
}

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// Status line and headers, each line with its end, but for those that are about the
    /// connection and the form of the body.
    pub lines: String,
    /// What it says of its body, even where it has none.
    pub body: BodyLength,
    /// The backend closes the connection after it.
    closes: bool,
}

impl UpstreamResponse<'_> {
    /// Moves the time by which all of the body must have come.
    pub fn set_deadline(&mut self, deadline: Instant) {
        let source = match &mut self.body {
            ResponseReader::Sized(body) => body.get_mut(),
            ResponseReader::Chunked(body) => body.get_mut().get_mut(),
        };
        source.get_mut().1.stream.set_deadline(deadline);
    }

    /// The next bytes of the body, up to so many, and less only at its end.
    ///
    /// # Errors
    /// When the body is cut off, or does not come.
    pub fn read(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match &mut self.body {
            ResponseReader::Sized(body) => {
                body.by_ref().take(count as u64).read_to_end(&mut bytes)?;
                if bytes.len() < count && body.limit() > 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            ResponseReader::Chunked(body) => {
                body.by_ref().take(count as u64).read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// After the end of the body: leaves the connection to the next request.
    pub fn finish(self) {
        let source = match self.body {
            ResponseReader::Sized(body) if body.limit() == 0 => body.into_inner(),
            ResponseReader::Chunked(body) if body.has_ended() => body.into_inner().into_inner(),
            _ => return,
        };
        let (rest, connection) = source.into_inner();
        let all_read = rest.position() == rest.get_ref().len() as u64;
        if all_read && !self.head.closes {
            connection.keep();
        }
    }
}

/// The head of a response, and what came with it of its body.
fn read_head(stream: &mut impl Read) -> io::Result<(ResponseHead, Vec<u8>)> {
    let mut bytes = vec![0; 1024];
    let mut length = 0;
    loop {
        if length == bytes.len() {
            if length >= MAX_HEAD {
                return Err(malformed());
            }
            bytes.resize(length * 2, 0);
        }
        match stream.read(&mut bytes[length..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
        if let Some((head, end)) = parse_head(&bytes[..length])? {
            bytes.truncate(length);
            bytes.drain(..end);
            return Ok((head, bytes));
        }
    }
}

/// None when it is not complete yet; with how many bytes it took.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(ResponseHead, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let end = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(why) => return Err(io::Error::new(ErrorKind::InvalidData, why)),
    };
    let status = parsed.code.ok_or_else(malformed)?;
    let mut lines = format!("HTTP/1.1 {status} {}\r\n", parsed.reason.unwrap_or_default());
    let (mut body, mut closes) = (None, false);
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| malformed())?;
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("Content-Length") {
            body = Some(BodyLength::Length(value.parse().map_err(|_| malformed())?));
        } else if is("Transfer-Encoding") {
            body = Some(BodyLength::Chunked);
        } else if is("Connection") {
            closes = value.eq_ignore_ascii_case("close");
        } else {
            lines.extend([header.name, ": ", value, "\r\n"]);
        }
    }
    let body = body.ok_or_else(malformed)?;
    Ok(Some((ResponseHead { status, lines, body, closes }, end)))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::super::backend::HANDLERS;
    use super::*;
    use crate::thread::{Stop, StopSource};

    const GET: &[u8] = b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    const LONG: Duration = Duration::from_secs(20);

    /// Connections to a backend that answers everything with its path.
    struct Site {
        upstream: Arc<Upstream>,
        backend: Arc<Backend>,
        stop: Option<StopSource>,
        _scratch: tempfile::TempDir,
    }

    impl Site {
        fn open() -> Site {
            let scratch = tempfile::tempdir().unwrap();
            let (source, stop) = Stop::channel();
            let backend = Arc::new(Backend::start(scratch.path(), stop).unwrap());
            for _ in 0..HANDLERS {
                let backend = Arc::clone(&backend);
                thread::spawn(move || {
                    while let Some(request) = backend.next() {
                        let path = request.url().to_owned();
                        let response = tiny_http::Response::from_string(path);
                        let _ = request.respond(response);
                    }
                });
            }
            let upstream = Arc::new(Upstream::new(Arc::clone(&backend)));
            Site { upstream, backend, stop: Some(source), _scratch: scratch }
        }

        /// Whether the connection was used before.
        fn get(&self) -> bool {
            let connection = self.upstream.send(GET, b"", false, Instant::now() + LONG).unwrap();
            let reused = connection.reused;
            let mut response = connection.receive(false).unwrap();
            assert_eq!(response.head.status, 200);
            assert_eq!(response.read(10).unwrap(), b"/");
            response.finish();
            reused
        }

        fn idle(&self) -> usize {
            lock(&self.upstream.idle).len()
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            self.stop.take();
            self.backend.unblock();
        }
    }

    #[test]
    fn a_disk_that_hangs_kept_the_status_page_from_being_shown() {
        let site = Site::open();
        let far = Instant::now() + LONG;
        let posts: Vec<_> = (0..MAX_BACKEND_WRITES)
            .map(|_| site.upstream.send(GET, b"", true, far).unwrap())
            .collect();
        let late = site.upstream.send(GET, b"", true, Instant::now());
        assert_eq!(late.err().map(|why| why.kind()), Some(ErrorKind::TimedOut));
        assert!(!site.upstream.is_saturated());
        site.get();
        drop(posts);
        site.upstream.send(GET, b"", true, far).unwrap();
    }

    #[test]
    fn one_request_after_the_other_uses_one_connection() {
        let site = Site::open();
        assert!(!site.get());
        assert!((0..100).all(|_| site.get()));
        assert_eq!(site.idle(), 1);
    }

    #[test]
    fn a_response_that_was_not_read_to_its_end_takes_its_connection_with_it() {
        let site = Site::open();
        drop(site.upstream.send(GET, b"", false, Instant::now() + LONG).unwrap());
        assert_eq!(site.idle(), 0);
        let connection = site.upstream.send(GET, b"", false, Instant::now() + LONG).unwrap();
        connection.receive(false).unwrap().finish();
        assert_eq!(site.idle(), 0);
    }

    #[test]
    fn all_that_come_at_once_are_answered_over_few_connections() {
        let site = Site::open();
        for _ in 0..5 {
            thread::scope(|scope| {
                for _ in 0..2 * MAX_BACKEND_CONNECTIONS {
                    scope.spawn(|| site.get());
                }
            });
            let idle = site.idle();
            assert!((1..=MAX_BACKEND_CONNECTIONS).contains(&idle), "{idle}");
            // The next ones are opened while tiny_http's threads of these end.
            lock(&site.upstream.idle).clear();
        }
    }

    #[test]
    fn connections_that_the_backend_closed_or_left_behind_are_not_used_again() {
        let site = Site::open();
        site.get();
        let shut = |idle: &IdleConnection| idle.stream.shutdown(std::net::Shutdown::Both).unwrap();
        lock(&site.upstream.idle).iter().for_each(shut);
        assert!(!site.get(), "it was closed");
        lock(&site.upstream.idle)[0].instance += 1;
        assert!(!site.get(), "it belongs to another instance");
        assert_eq!(site.idle(), 1);
    }

    #[test]
    fn of_idle_connections_only_the_last_is_kept_for_long() {
        let site = Site::open();
        let deadline = Instant::now() + LONG;
        let both = [(); 2].map(|()| site.upstream.send(GET, b"", false, deadline).unwrap());
        for connection in both {
            let mut response = connection.receive(false).unwrap();
            response.read(10).unwrap();
            response.finish();
        }
        site.upstream.close_idle();
        assert_eq!(site.idle(), 2);
        let long_ago = Instant::now() - BACKEND_IDLE_TIMEOUT - BACKEND_IDLE_TIMEOUT;
        lock(&site.upstream.idle).iter_mut().for_each(|idle| idle.since = long_ago);
        site.upstream.close_idle();
        assert_eq!(site.idle(), 1);
    }

    #[test]
    fn the_health_check_needs_no_free_connection_but_a_backend_that_answers() {
        let site = Site::open();
        let deadline = Instant::now() + LONG;
        let all: Vec<_> = (0..MAX_BACKEND_CONNECTIONS)
            .map(|_| site.upstream.acquire(false, deadline).unwrap())
            .collect();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(site.upstream.acquire(false, soon).err().unwrap().kind(), ErrorKind::TimedOut);
        let probe = HealthProbe::new(&site.upstream);
        assert!(probe.answers(deadline));
        drop(all);
        let _turn = acquire(&site.upstream.opening, deadline).unwrap();
        assert!(!probe.answers(Instant::now() + Duration::from_millis(20)));
    }

    #[test]
    fn the_head_of_a_response_is_read_without_what_is_about_the_connection() {
        let text = "HTTP/1.1 200 OK\r\nDate: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab";
        let (head, end) = parse_head(text.as_bytes()).unwrap().unwrap();
        assert_eq!(head.lines, "HTTP/1.1 200 OK\r\nDate: x\r\n");
        assert_eq!((head.status, head.body, head.closes), (200, BodyLength::Length(2), true));
        assert_eq!(end, text.len() - 2);
        for end in 0..text.len() - 2 {
            assert_eq!(parse_head(&text.as_bytes()[..end]).unwrap(), None, "{end}");
        }
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse_head(chunked).unwrap().unwrap().0.body, BodyLength::Chunked);
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "its end is not known");
        assert!(parse_head(b"rubbish\r\n\r\n").is_err());
    }
}
