//! One connection through the gate: its request is read whole, passed on, and answered.
//!
//! Every answer ends its connection (`Connection: close`). Keep-alive would save a peer on the
//! same machine some 100 microseconds, and would cost a seat per idle client (Alertmanager keeps
//! its connections open for five minutes) and a state in which two requests can be taken for one.

use std::fmt::Write as _;
use std::io::{self, BufReader, Cursor, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Floor;
use super::batch::{self, Fare, end_of_answer};
use super::request::{Body, Dechunk, ENCRYPTED, Framing, Head, LONGEST_HEAD, PEER, Refusal, parse};
use super::slots::{Phase, Ticket};
use super::stream::{Beginning, Line, Socket, Timed, receive_at_once};
use crate::clock::Now;
use crate::http::response::Reply;

/// How long a client may be silent, and then how long its head may take.
pub const HEAD_TIME: Duration = Duration::from_secs(3);
const BODY_TIME: Duration = Duration::from_secs(10);
/// How long a request may take behind the gate before its answer begins.
pub const WORK_TIME: Duration = Duration::from_secs(30);
const REPLY_TIME: Duration = Duration::from_secs(60);
const REPLY_STALL: Duration = Duration::from_secs(10);
pub const LINGER: Duration = Duration::from_millis(500);
/// A body is read in pieces of up to this size.
const LARGE_READ: usize = 16 * 1024;
/// An answer up to this size is taken from behind the gate in one go, so that a client that reads
/// slowly keeps nobody there waiting.
pub const SPOOL: usize = 64 * 1024;
/// A body up to this size goes behind the gate together with its head: whoever reads it there is
/// woken once.
const ONE_WRITE: usize = 16 * 1024;

/// Why there is no request to pass on. Whoever is too slow is left without an answer: Alertmanager
/// tries again after a lost connection, and does not after a 408.
enum Ended {
    /// The client is told why.
    Refused(Refusal),
    /// There is nobody to tell.
    Gone,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Ended {
        Ended::Refused(refusal)
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Ended {
        Ended::Gone
    }
}

/// Serves a connection from its first byte to its last, or to where the ferry takes it over.
pub fn serve(socket: &Arc<TcpStream>, peer: IpAddr, ticket: Ticket, floor: &Floor) {
    let mut line = Line::new(socket, &floor.crew);
    let received = receive(&mut line, &ticket, floor).and_then(|received| {
        if ticket.enter(Phase::Working) { Ok(received) } else { Err(Ended::Gone) }
    });
    let sender = Sender { peer, encrypted: line.is_encrypted() };
    let result = match received {
        Ok((head, body)) if may_join(&head, &body, &sender) => {
            let message = message(&head, body.bytes(), &sender);
            let socket = Arc::clone(socket);
            return floor.ferry.take(Fare { socket, ticket, message, target: head.target });
        }
        Ok((head, body)) => pass_on(&head, body, &sender, floor)
            .map_err(|_| unavailable(&head.target).into())
            .and_then(|reply| Ok(send(&mut line, &head, reply)?)),
        Err(ended) => Err(ended),
    };
    if let Err(Ended::Refused(refusal)) = &result {
        if !ticket.enter(Phase::Working) {
            return;
        }
        let _ = line.within(REPLY_TIME, REPLY_STALL).write_all(&printed(refusal));
    }
    let rest = line.end(LINGER);
    // Most clients have said all they had to say.
    let silent = || matches!(receive_at_once(socket, &mut [0]), Err(why) if why.kind() == ErrorKind::WouldBlock);
    if (result.is_err() || !silent()) && ticket.enter(Phase::Lingering) {
        linger(rest);
    }
}

/// That nobody behind the gate took a request.
pub fn unavailable(target: &str) -> Refusal {
    Refusal::new(503, "the request cannot be taken now").of(target)
}

/// Whether a request goes by the ferry. One that came through TLS does not: its answer would have to
/// be encrypted there.
fn may_join(head: &Head, body: &Body, sender: &Sender) -> bool {
    let small = body.bytes().len() <= ONE_WRITE;
    small && !sender.encrypted && batch::may_join(&head.method, &head.target)
}

/// Who sent a request, and how.
struct Sender {
    peer: IpAddr,
    encrypted: bool,
}

fn receive<'a>(
    line: &mut Line,
    ticket: &Ticket,
    floor: &'a Floor,
) -> Result<(Head, Body<'a>), Ended> {
    let end = Instant::now() + HEAD_TIME;
    let identity = floor.shown.get();
    match line.begin(identity.as_deref(), end)? {
        Beginning::Right => {}
        Beginning::Plain => {
            return Err(Refusal::new(400, "this port speaks HTTPS: begin with https://").into());
        }
    }
    if line.is_encrypted() {
        // It takes much reckoning, and a round trip more: who has begun it has not been silent.
        floor.crew.leave_door();
        if !ticket.enter(Phase::Head) {
            return Err(Ended::Gone);
        }
    }
    let (head, rest) = read_head(line.until(end, HEAD_TIME))?;
    let mut body = floor.budget.body();
    if head.framing == Framing::None {
        return Ok((head, body));
    }
    // A large body may come as fast as it is read, and chunks take long to be read.
    if !matches!(head.framing, Framing::Length(length) if length <= ONE_WRITE) {
        floor.crew.leave_door();
    }
    if !ticket.enter(Phase::Body) {
        return Err(Ended::Gone);
    }
    let mut socket = line.within(BODY_TIME, BODY_TIME);
    if head.wants_continue && rest.is_empty() {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let source = Cursor::new(rest).chain(socket);
    match head.framing {
        Framing::Length(length) => fill(&mut body, source.take(length as u64), Some(length)),
        Framing::Chunked => fill(&mut body, Dechunk::new(BufReader::new(source)), None),
        Framing::None => Ok(()),
    }
    .map_err(|ended| match ended {
        Ended::Refused(refusal) => Ended::Refused(refusal.of(&head.target)),
        Ended::Gone => Ended::Gone,
    })?;
    Ok((head, body))
}

/// The head, and what came with it of the body.
fn read_head(mut socket: Timed) -> Result<(Head, Vec<u8>), Ended> {
    let mut buffer = vec![0; 1024];
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize((length * 2).min(LONGEST_HEAD), 0);
        }
        let count = socket.read(&mut buffer[length..])?;
        if count == 0 {
            return Err(Ended::Gone);
        }
        let first = length == 0;
        let new = length..length + count;
        length += count;
        // A head that drips in is not parsed anew for every byte.
        let worth_a_look = first || length == LONGEST_HEAD || buffer[new].contains(&b'\n');
        if worth_a_look && let Some(head) = parse(&buffer[..length])? {
            let rest = buffer[head.length..length].to_vec();
            return Ok((head, rest));
        }
    }
}

fn fill(body: &mut Body, mut source: impl Read, length: Option<usize>) -> Result<(), Ended> {
    // What fits into one read is read in one.
    let mut buffer = vec![0; length.unwrap_or(LARGE_READ).clamp(1, LARGE_READ)];
    while length != Some(body.bytes().len()) {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => body.push(&buffer[..count])?,
            Err(why) if why.kind() == ErrorKind::InvalidData => {
                return Err(Refusal::new(400, "the chunks are malformed").into());
            }
            Err(_) => return Err(Ended::Gone),
        }
    }
    // Less than was promised: the rest can only be guessed.
    if length.is_some_and(|length| length != body.bytes().len()) {
        return Err(Ended::Gone);
    }
    Ok(())
}

/// An answer on its way from behind the gate: what is there already, and where the rest comes from.
struct Incoming {
    bytes: Vec<u8>,
    rest: Option<UnixStream>,
}

fn pass_on(head: &Head, body: Body, sender: &Sender, floor: &Floor) -> io::Result<Incoming> {
    floor.crew.leave_door();
    let permit = floor.permits.take(WORK_TIME).ok_or(ErrorKind::TimedOut)?;
    // Kept open for the next request, it would keep a thread of tiny_http's pool, which does not
    // grow for connections that come at the same moment.
    let mut inner = floor.inner.connect(WORK_TIME)?;
    if body.bytes().len() <= ONE_WRITE {
        inner.write_all(&message(head, body.bytes(), sender))?;
    } else {
        inner.write_all(&head_of(head, body.bytes().len(), sender))?;
        inner.write_all(body.bytes())?;
    }
    drop(body);
    let incoming = begun(inner, head.method != "HEAD")?;
    drop(permit);
    Ok(incoming)
}

/// A request as it goes on.
fn message(head: &Head, body: &[u8], sender: &Sender) -> Vec<u8> {
    let mut message = head_of(head, body.len(), sender);
    message.extend_from_slice(body);
    message
}

/// The head of a request as it goes on, with room for a small body.
fn head_of(head: &Head, length: usize, sender: &Sender) -> Vec<u8> {
    let Sender { peer, encrypted } = sender;
    let mut text = String::with_capacity(512 + length.min(ONE_WRITE));
    let _ = write!(text, "{} {} HTTP/1.1\r\n", head.method, head.target);
    for (name, value) in &head.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "{PEER}: {peer}\r\n{ENCRYPTED}: {encrypted}\r\n");
    let _ = write!(text, "Connection: close\r\nContent-Length: {length}\r\n\r\n");
    text.into_bytes()
}

/// As much of an answer as is taken in one go: all of it, mostly. Where it says how long it is, its
/// connection's end is not waited for.
fn begun(mut inner: UnixStream, has_body: bool) -> io::Result<Incoming> {
    const MOST: usize = SPOOL + LONGEST_HEAD;
    let mut bytes = vec![0; 1024];
    let mut length = 0;
    let mut end = None;
    while end != Some(length) && length < MOST {
        if length == bytes.len() {
            bytes.resize((length * 2).min(MOST), 0);
        }
        match inner.read(&mut bytes[length..])? {
            0 if length == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            0 => end = Some(length),
            count => length += count,
        }
        if has_body && end.is_none() {
            end = end_of_answer(&bytes[..length]);
        }
    }
    bytes.truncate(length);
    Ok(Incoming { bytes, rest: (end != Some(length)).then_some(inner) })
}

fn send(line: &mut Line, head: &Head, reply: Incoming) -> io::Result<()> {
    let mut client = line.within(REPLY_TIME, REPLY_STALL);
    let malformed = || io::Error::from(ErrorKind::InvalidData);
    let end = reply.bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(malformed)?;
    let lines = std::str::from_utf8(&reply.bytes[..end]).map_err(|_| malformed())?;
    let chunked = |line: &&str| line.to_ascii_lowercase().starts_with("transfer-encoding:");
    let dechunk = head.http10 && lines.lines().any(|line| chunked(&line));
    let mut first = String::new();
    for line in lines.lines().filter(|line| !(dechunk && chunked(line))) {
        first.push_str(line);
        first.push_str("\r\n");
    }
    first.push_str("Connection: close\r\n\r\n");
    let mut first = first.into_bytes();
    let body = &reply.bytes[end + 4..];
    let Some(rest) = reply.rest else {
        if dechunk && head.method != "HEAD" {
            Dechunk::new(body).read_to_end(&mut first)?;
        } else {
            first.extend_from_slice(body);
        }
        return client.write_all(&first);
    };
    client.write_all(&first)?;
    let body = body.chain(rest);
    if dechunk {
        io::copy(&mut Dechunk::new(BufReader::new(body)), &mut client)?;
    } else {
        io::copy(&mut BufReader::with_capacity(SPOOL, body), &mut client)?;
    }
    Ok(())
}

/// A refusal as it goes over the wire.
pub fn printed(refusal: &Refusal) -> Vec<u8> {
    let reply = Reply::problem(&refusal.target, refusal.status, refusal.why);
    let reply = if refusal.status == 405 { reply.with("Allow", "GET, HEAD, POST") } else { reply };
    reply.printed(Now::read().wall)
}

/// Closes our side and throws away what still comes: a close with unread bytes would be a reset,
/// and that takes the answer away from the client (RFC 9112, section 9.6).
pub fn linger(mut client: Socket) {
    let _ = client.socket.shutdown(Shutdown::Write);
    let mut buffer = vec![0; 8 * 1024];
    while matches!(client.read(&mut buffer), Ok(count) if count > 0) {}
}
