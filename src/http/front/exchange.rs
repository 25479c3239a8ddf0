//! One exchange with a client: its request is read whole, forwarded, and answered.
//!
//! Every response ends its connection (`Connection: close`). Keep-alive would save a client on the
//! same machine some 100 microseconds, and would cost a slot per idle client (Alertmanager keeps
//! its connections open for five minutes) and a state in which two requests can be taken for one.

use std::fmt::Write as _;
use std::io::{self, BufReader, Cursor, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::body::{BodyBuffer, BodyError, BodyMemory};
use super::certificate::CurrentCertificate;
use super::limits::{
    ALL_BODY_BYTES, BACKEND_TIMEOUT, BODY_MEMORY_TIMEOUT, BODY_TIMEOUT, HEAD_TIMEOUT,
    LINGER_TIMEOUT, MAX_HEAD, PLAIN_HEAD_TIMEOUT, RESPONSE_STALL_TIMEOUT, RESPONSE_TIMEOUT,
};
use super::request::{
    BodyLength, ChunkedReader, HttpError, JUDGED_HEADERS, PEER_HEADER, RequestHead, parse,
    too_large,
};
use super::slots::{Phase, SlotGuard};
use super::stream::{ClientStream, DeadlineClientStream, Protocol, peek_now};
use super::upstream::{Upstream, UpstreamResponse};
use crate::clock::Now;
use crate::http::access::refuse;
use crate::http::auth::Authenticator;
use crate::http::refusals::{Refusal, RefusedAlerts};
use crate::http::response::{Response, SMALL_BODY};
use crate::http::routes::{Route, route};

/// A body is read in pieces of up to this size.
const READ_SIZE: usize = 16 * 1024;
/// A body up to this size goes to the backend together with its head: its reader is woken once.
const ONE_WRITE: usize = 16 * 1024;

/// Limits and services for each exchange.
pub struct ExchangeContext {
    /// Where requests are forwarded to.
    pub upstream: Arc<Upstream>,
    /// What their bodies may take.
    pub body_memory: BodyMemory,
    /// What clients are shown; none means plain HTTP.
    pub certificate: Arc<CurrentCertificate>,
    /// Knows which client a proxy speaks for.
    pub authenticator: Arc<Authenticator>,
    /// Takes note of webhooks that are refused.
    pub refused: Arc<RefusedAlerts>,
}

impl ExchangeContext {
    /// With the memory for the bodies of all requests.
    pub fn new(
        upstream: Arc<Upstream>,
        certificate: Arc<CurrentCertificate>,
        authenticator: Arc<Authenticator>,
        refused: Arc<RefusedAlerts>,
    ) -> ExchangeContext {
        let body_memory = BodyMemory::new(ALL_BODY_BYTES);
        ExchangeContext { upstream, body_memory, certificate, authenticator, refused }
    }
}

/// Why there is no request to forward. A client that is too slow gets no response: Alertmanager
/// tries again after a lost connection, and does not after a 408.
enum ReadError {
    /// The client gets an answer that says what is wrong.
    Refused(HttpError),
    /// The connection is lost, or too slow.
    Lost,
}

impl From<HttpError> for ReadError {
    fn from(error: HttpError) -> ReadError {
        ReadError::Refused(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> ReadError {
        ReadError::Lost
    }
}

/// Serves a connection from its first byte to its last; true when it has its response, and what it
/// still sends is to be thrown away.
/// `before_stream` is called before the worker waits for a client to take a long response.
pub fn handle_connection(
    socket: &TcpStream,
    peer: IpAddr,
    slot: &SlotGuard,
    context: &ExchangeContext,
    before_stream: impl Fn(),
) -> bool {
    let mut stream = ClientStream::new(socket);
    let mut client = peer;
    let received = receive(&mut stream, slot, context, &mut client).and_then(|received| {
        if slot.set_phase(Phase::Responding) { Ok(received) } else { Err(ReadError::Lost) }
    });
    let result = received.and_then(|(head, body)| {
        let mut response = forward(&head, body, client, &context.upstream)
            .map_err(|why| unavailable(&head, &why))?;
        let first = response.read(SMALL_BODY + 1).map_err(|why| unavailable(&head, &why))?;
        let status = response.head.status;
        if status >= 400 {
            let why = String::from_utf8_lossy(&first);
            let RequestHead { method, target, .. } = &head;
            context.refused.record(Refusal { method, target, peer: client, status, why: &why });
        }
        if first.len() > SMALL_BODY {
            // The client may read slowly, and this worker waits for it.
            before_stream();
        }
        Ok(respond(&mut stream, &head, response, first)?)
    });
    match &result {
        Err(ReadError::Lost) => return false,
        Err(ReadError::Refused(error)) => {
            let HttpError { method, target, status, why, .. } = error;
            context.refused.record(Refusal { method, target, peer: client, status: *status, why });
            if !slot.set_phase(Phase::Responding) {
                return false;
            }
            let bytes = to_bytes(error);
            let _ = stream.with_timeout(RESPONSE_TIMEOUT, RESPONSE_STALL_TIMEOUT).write_all(&bytes);
        }
        Ok(()) => {}
    }
    stream.close(LINGER_TIMEOUT);
    // Most clients have sent all that they had to send.
    let silent = matches!(peek_now(socket), Err(why) if why.kind() == ErrorKind::WouldBlock);
    result.is_err() || !silent
}

fn unavailable(head: &RequestHead, why: &io::Error) -> HttpError {
    log::debug!("a request cannot be taken now: {why}");
    HttpError::new(503, "the request cannot be taken now").with_request(&head.method, &head.target)
}

/// The request; the head is judged before anything of its body is read. `client` is the peer, and
/// becomes the address that a trusted proxy names.
fn receive<'a>(
    stream: &mut ClientStream,
    slot: &SlotGuard,
    context: &'a ExchangeContext,
    client: &mut IpAddr,
) -> Result<(RequestHead, BodyBuffer<'a>), ReadError> {
    let deadline = Instant::now() + HEAD_TIMEOUT;
    let certificate = context.certificate.get();
    match stream.detect(certificate.as_deref(), deadline)? {
        Protocol::Expected => {}
        Protocol::PlainHttp => {
            return Err(plain_http_error(stream).into());
        }
    }
    // A handshake takes much computing, and a round trip more: it is not taken for silence.
    let encrypted = stream.is_encrypted();
    if encrypted && !slot.set_phase(Phase::ReadingHead) {
        return Err(ReadError::Lost);
    }
    let (head, rest) = read_head(stream.with_deadline(deadline, HEAD_TIMEOUT))?;
    let authenticator = &context.authenticator;
    *client = authenticator.client(*client, head.header("X-Forwarded-For"));
    let body = match refuse(&head, *client, encrypted, authenticator, Now::read().mono) {
        Some(error) => Err(error.into()),
        None => receive_body(stream, &head, rest, slot, context.body_memory.body(*client)),
    };
    match body {
        Ok(body) => Ok((head, body)),
        Err(ReadError::Refused(error)) => {
            Err(error.with_request(&head.method, &head.target).into())
        }
        Err(ReadError::Lost) => Err(ReadError::Lost),
    }
}

/// The body of a request, of which `rest` came with the head.
fn receive_body<'a>(
    stream: &mut ClientStream,
    head: &RequestHead,
    rest: Vec<u8>,
    slot: &SlotGuard,
    mut body: BodyBuffer<'a>,
) -> Result<BodyBuffer<'a>, ReadError> {
    if head.body == BodyLength::None {
        return Ok(body);
    }
    if !slot.begin_body(body.client()) {
        return Err(ReadError::Lost);
    }
    let mut client = stream.with_timeout(BODY_TIMEOUT, BODY_TIMEOUT);
    if head.wants_continue && rest.is_empty() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let source = Cursor::new(rest).chain(client);
    match head.body {
        BodyLength::Length(length) => {
            read_body(&mut body, source.take(length as u64), Some(length), slot)?;
        }
        BodyLength::Chunked => {
            read_body(&mut body, ChunkedReader::new(BufReader::new(source)), None, slot)?;
        }
        BodyLength::None => {}
    }
    Ok(body)
}

/// The error of a client that speaks plain HTTP where TLS is spoken; it knows what was asked for, if the
/// head has come already.
fn plain_http_error(stream: &mut ClientStream) -> HttpError {
    let error = HttpError::new(400, "this port speaks HTTPS: begin with https://");
    match read_head(stream.with_timeout(PLAIN_HEAD_TIMEOUT, PLAIN_HEAD_TIMEOUT)) {
        Ok((head, _)) => error.with_request(&head.method, &head.target),
        Err(_) => error,
    }
}

/// The head, and what came with it of the body.
fn read_head(mut client: DeadlineClientStream) -> Result<(RequestHead, Vec<u8>), ReadError> {
    let mut buffer = vec![0; 1024];
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize((length * 2).min(MAX_HEAD), 0);
        }
        let count = client.read(&mut buffer[length..])?;
        if count == 0 {
            return Err(ReadError::Lost);
        }
        let first = length == 0;
        let new = length..length + count;
        length += count;
        // A head that drips in is not parsed anew for every byte.
        let worth_parsing = first || length == MAX_HEAD || buffer[new].contains(&b'\n');
        if worth_parsing && let Some(head) = parse(&buffer[..length])? {
            let rest = buffer[head.length..length].to_vec();
            return Ok((head, rest));
        }
    }
}

fn read_body(
    body: &mut BodyBuffer,
    mut source: impl Read,
    length: Option<usize>,
    slot: &SlotGuard,
) -> Result<(), ReadError> {
    // What fits into one read is read in one.
    let mut buffer = vec![0; length.unwrap_or(READ_SIZE).clamp(1, READ_SIZE)];
    let mut in_time = 0;
    while length != Some(body.bytes().len()) {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => push(body, &buffer[..count], slot)?,
            Err(why) if why.kind() == ErrorKind::InvalidData => {
                return Err(HttpError::new(400, "the chunks are malformed").into());
            }
            Err(_) => return Err(ReadError::Lost),
        }
        // A large body that keeps coming is not slow.
        if body.bytes().len() - in_time >= READ_SIZE {
            in_time = body.bytes().len();
            if !slot.set_phase(Phase::ReadingBody) {
                return Err(ReadError::Lost);
            }
        }
    }
    // Less than was promised: the rest can only be guessed.
    if length.is_some_and(|length| length != body.bytes().len()) {
        return Err(ReadError::Lost);
    }
    Ok(())
}

/// Appends to a body. Where there is no memory for it, slow ones have to go.
fn push(body: &mut BodyBuffer, bytes: &[u8], slot: &SlotGuard) -> Result<(), ReadError> {
    let deadline = Instant::now() + BODY_MEMORY_TIMEOUT;
    loop {
        match body.push(bytes) {
            Ok(()) => return Ok(()),
            Err(BodyError::TooLarge) => return Err(too_large().into()),
            Err(BodyError::NoMemory { .. }) if Instant::now() >= deadline => {
                return Err(HttpError::new(503, "too many large requests at once").into());
            }
            Err(BodyError::NoMemory { of }) if slot.evict_slow_body(of) => {}
            Err(BodyError::NoMemory { .. }) => return Err(ReadError::Lost),
        }
    }
}

fn forward<'a>(
    head: &RequestHead,
    body: BodyBuffer,
    client: IpAddr,
    upstream: &'a Upstream,
) -> io::Result<UpstreamResponse<'a>> {
    let deadline = Instant::now() + BACKEND_TIMEOUT;
    let mut message = serialize_head(head, body.bytes().len(), client);
    let mut separate: &[u8] = &[];
    if body.bytes().len() <= ONE_WRITE {
        message.extend_from_slice(body.bytes());
    } else {
        separate = body.bytes();
    }
    let connection = upstream.send(&message, separate, waits_for_disk(head), deadline)?;
    drop(body);
    connection.receive(head.method == "HEAD")
}

/// Whether the response to a request waits until what it caused is stored.
fn waits_for_disk(head: &RequestHead) -> bool {
    matches!(route(&head.method, &head.target), Ok(Route::Alert | Route::Heartbeat))
}

/// The head of a request as it is forwarded, in a buffer with room for a small body.
fn serialize_head(head: &RequestHead, length: usize, client: IpAddr) -> Vec<u8> {
    let mut text = String::with_capacity(512 + length.min(ONE_WRITE));
    let _ = write!(text, "{} {} HTTP/1.1\r\n", head.method, head.target);
    for (name, value) in head.headers.iter().filter(|(name, _)| !JUDGED_HEADERS.contains(name)) {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "{PEER_HEADER}: {client}\r\nContent-Length: {length}\r\n\r\n");
    text.into_bytes()
}

/// Passes a response on. One that is small is first taken whole, so that a client that reads slowly
/// keeps no connection to the backend busy.
fn respond(
    stream: &mut ClientStream,
    request: &RequestHead,
    mut response: UpstreamResponse,
    first: Vec<u8>,
) -> io::Result<()> {
    let head = &response.head;
    let mut bytes = head.lines.clone().into_bytes();
    let (length, to_head) = (head.body, request.method == "HEAD");
    let whole = first.len() <= SMALL_BODY;
    let chunked = match length {
        BodyLength::Length(length) => {
            write!(bytes, "Content-Length: {length}\r\n")?;
            false
        }
        _ if whole && !to_head => {
            write!(bytes, "Content-Length: {}\r\n", first.len())?;
            false
        }
        _ if request.http10 => false,
        _ => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            !to_head
        }
    };
    bytes.extend_from_slice(b"Connection: close\r\n\r\n");
    if whole {
        response.finish();
        bytes.extend_from_slice(&first);
        return stream.with_timeout(RESPONSE_TIMEOUT, RESPONSE_STALL_TIMEOUT).write_all(&bytes);
    }
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    response.set_deadline(deadline);
    let mut client = stream.with_deadline(deadline, RESPONSE_STALL_TIMEOUT);
    client.write_all(&bytes)?;
    let mut piece = first;
    while !piece.is_empty() {
        if chunked {
            let end = piece.len();
            piece.splice(0..0, format!("{end:x}\r\n").into_bytes());
            piece.extend_from_slice(b"\r\n");
        }
        client.write_all(&piece)?;
        piece = response.read(SMALL_BODY)?;
    }
    response.finish();
    if chunked { client.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// An error as a whole response.
fn to_bytes(error: &HttpError) -> Vec<u8> {
    let mut response = Response::error(&error.target, error.status, error.why);
    response.headers.extend(error.header.clone());
    let mut bytes = response.into_bytes(Now::read().wall);
    if error.method == "HEAD" {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        bytes.truncate(end.map_or(bytes.len(), |end| end + 4));
    }
    bytes
}
