//! Which thread answers a request, the handler itself or one that has time, and how the response
//! is sent.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use tiny_http::{Header, StatusCode};

use super::api::Handler;
use super::exchange::{ApiRequest, Deferral, DeferredResponse, Handled};
use super::front::backend::Backend;
use super::front::limits::{MAX_BACKEND_CONNECTIONS, MAX_BODY};
use super::response::{COMMON_HEADERS, Response, ResponseBody, SMALL_BODY};
use crate::thread::{AbortOnPanic, Permit, Semaphore, lock};

/// What the handler threads share.
pub struct Dispatcher {
    handler: Handler,
    streams: ThreadLimit,
    waits: ThreadLimit,
    commits: ThreadLimit,
    history: ThreadLimit,
    pages: ThreadLimit,
    public_pages: ThreadLimit,
    /// What waits for the disk, in the order in which the disk gets it: one thread waits for all.
    pending: Sender<PendingCommit>,
}

/// Requests of a kind that may be answered at a time outside the handlers, each by a thread of its
/// own but for the commits.
struct ThreadLimit {
    what: &'static str,
    thread: &'static str,
    permits: Semaphore,
}

/// A request whose response is sent when what it brought is on the disk.
pub struct PendingCommit {
    request: tiny_http::Request,
    permit: Permit,
    work: DeferredResponse,
}

impl Dispatcher {
    /// A dispatcher that hands what waits for the disk to `pending`.
    pub fn new(handler: Handler, pending: Sender<PendingCommit>) -> Dispatcher {
        let lane =
            |what, thread, permits| ThreadLimit { what, thread, permits: Semaphore::new(permits) };
        Dispatcher {
            handler,
            streams: lane("large answers", "http-stream", 4),
            waits: lane("messages", "http-wait", 4),
            commits: lane(
                "requests that wait for the disk",
                "http-stored",
                MAX_BACKEND_CONNECTIONS,
            ),
            history: lane("looks into the history", "http-search", 4),
            pages: lane("pages", "http-page", 8),
            public_pages: lane("readers of the public page", "http-public", 4),
            pending,
        }
    }

    fn lane(&self, deferral: Deferral) -> &ThreadLimit {
        match deferral {
            Deferral::Wait => &self.waits,
            Deferral::Commit => &self.commits,
            Deferral::History => &self.history,
            Deferral::Page => &self.pages,
            Deferral::PublicPage => &self.public_pages,
        }
    }

    fn dispatch(&self, mut request: tiny_http::Request) {
        let handled = catch_unwind(AssertUnwindSafe(|| buffer_small(self.handle(&mut request))));
        match handled.unwrap_or_else(|_| Handled::Ready(internal_error(&request))) {
            // A client may take a minute to read it, and the handlers are few.
            Handled::Ready(response) if response.is_large() => {
                self.streams.spawn(request, |request, permit| {
                    send(request, response);
                    drop(permit);
                });
            }
            Handled::Ready(response) => send(request, response),
            Handled::Deferred(Deferral::Commit, work) => self.commit(request, work),
            Handled::Deferred(Deferral::Page, work) => {
                let streams = self.streams.permits.clone();
                let what = self.streams.what;
                self.pages.spawn(request, move |request, permit| {
                    respond_page(request, permit, (&streams, what), work);
                });
            }
            Handled::Deferred(Deferral::PublicPage, work) => {
                // To the end of its sending: who reads it slowly takes one of these few, too.
                self.public_pages.spawn(request, |request, permit| {
                    let response = run(&request, work);
                    send(request, response);
                    drop(permit);
                });
            }
            Handled::Deferred(deferral, work) => {
                let respond = |request, permit| respond_after(request, permit, work);
                self.lane(deferral).spawn(request, respond);
            }
        }
    }

    fn handle(&self, request: &mut tiny_http::Request) -> Handled {
        let body = match whole_body(request) {
            Ok(body) => body,
            Err(why) => return Handled::Ready(Response::error(request.url(), 400, &why)),
        };
        let header = |name: &'static str| header(request, name);
        let method = request.method().as_str();
        self.handler.handle(&ApiRequest::new(method, request.url(), header, &body))
    }

    fn commit(&self, request: tiny_http::Request, work: DeferredResponse) {
        match self.commits.permits.try_acquire() {
            // The thread ends after the handlers.
            Some(permit) => drop(self.pending.send(PendingCommit { request, permit, work })),
            None => respond_busy(request, self.commits.what),
        }
    }
}

/// Answers requests until the stop. The drop of `alive` tells that this thread has let go of the
/// server: its socket must still be there when it ends.
pub fn run_handler(backend: Arc<Backend>, dispatcher: &Dispatcher, alive: Sender<()>) {
    let _guard = AbortOnPanic;
    while let Some(request) = backend.next() {
        dispatcher.dispatch(request);
    }
    drop((backend, alive));
}

/// Answers what is on the disk, until no handler is left.
pub fn respond_to_commits(pending: &Receiver<PendingCommit>, alive: Sender<()>) {
    let _guard = AbortOnPanic;
    for PendingCommit { request, permit, work } in pending {
        respond_after(request, permit, work);
    }
    drop(alive);
}

/// As [`respond_after`], but a large page is a large answer: of slow readers there may be only a
/// few.
fn respond_page(
    request: tiny_http::Request,
    permit: Permit,
    (streams, what): (&Semaphore, &str),
    work: DeferredResponse,
) {
    let response = run(&request, work);
    drop(permit);
    if !response.is_large() {
        return send(request, response);
    }
    match streams.try_acquire() {
        Some(_permit) => send(request, response),
        None => respond_busy(request, what),
    }
}

fn respond_after(request: tiny_http::Request, permit: Permit, work: DeferredResponse) {
    let response = run(&request, work);
    // The next request comes as soon as this one has its response: it must find a permit.
    drop(permit);
    send(request, response);
}

fn run(request: &tiny_http::Request, work: DeferredResponse) -> Response {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| internal_error(request))
}

fn internal_error(request: &tiny_http::Request) -> Response {
    let (method, target) = (request.method().as_str(), request.url());
    log::error!("the answer to {method} {target} panicked");
    Response::error(target, 500, "this is a bug, see the log")
}

fn whole_body(request: &mut tiny_http::Request) -> Result<Vec<u8>, String> {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0).min(MAX_BODY) + 1);
    let read = request.as_reader().read_to_end(&mut body);
    read.map_err(|why| format!("the body cannot be read: {why}"))?;
    // Only whole bodies are forwarded, but the front may give up meanwhile.
    if request.body_length() == Some(body.len()) {
        Ok(body)
    } else {
        Err("the body is cut off".into())
    }
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a str> {
    let found = request.headers().iter().find(|header| header.field.equiv(name));
    found.map(|header| header.value.as_str())
}

/// Makes a small stream whole.
fn buffer_small(handled: Handled) -> Handled {
    let (response, mut stream) = match handled {
        Handled::Ready(Response {
            body: ResponseBody::Stream(stream),
            status,
            content_type,
            headers,
        }) => {
            let body = ResponseBody::Whole(Vec::new());
            (Response { status, content_type, headers, body }, stream)
        }
        other => return other,
    };
    let mut bytes = Vec::new();
    if stream.by_ref().take(SMALL_BODY as u64).read_to_end(&mut bytes).is_err() {
        return Handled::Ready(Response::text(500, "the answer cannot be made"));
    }
    let body = if bytes.len() < SMALL_BODY {
        ResponseBody::Whole(bytes)
    } else {
        ResponseBody::Stream(Box::new(io::Cursor::new(bytes).chain(stream)))
    };
    Handled::Ready(Response { body, ..response })
}

type ThreadMain = Box<dyn FnOnce() + Send>;

impl ThreadLimit {
    /// Answers a request from a thread of its own.
    fn spawn(
        &self,
        request: tiny_http::Request,
        respond: impl FnOnce(tiny_http::Request, Permit) + Send + 'static,
    ) {
        let start =
            |job: ThreadMain| thread::Builder::new().name(self.thread.into()).spawn(job).map(drop);
        self.spawn_with(start, request, respond);
    }

    fn spawn_with(
        &self,
        start: impl FnOnce(ThreadMain) -> io::Result<()>,
        request: tiny_http::Request,
        respond: impl FnOnce(tiny_http::Request, Permit) + Send + 'static,
    ) {
        let Some(permit) = self.permits.try_acquire() else {
            return respond_busy(request, self.what);
        };
        // A thread that cannot be started gives nothing back.
        let shared = Arc::new(Mutex::new(Some(request)));
        let own = Arc::clone(&shared);
        let job = move || {
            let request = lock(&own).take();
            if let Some(request) = request {
                respond(request, permit);
            }
        };
        if let Err(why) = start(Box::new(job)) {
            log::warn!(
                "one of the {} was turned away, no thread could be started: {why}",
                self.what
            );
            let request = lock(&shared).take();
            if let Some(request) = request {
                respond_busy(request, self.what);
            }
        }
    }
}

fn respond_busy(request: tiny_http::Request, what: &str) {
    let busy = Response::error(request.url(), 503, &format!("too many {what} at once"));
    send(request, busy);
}

fn send(request: tiny_http::Request, response: Response) {
    let headers = response.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = headers
        .chain([("Content-Type", response.content_type)])
        .chain(COMMON_HEADERS)
        .filter_map(|(name, value)| Header::from_bytes(name, value).ok())
        .collect();
    let (body, length): (Box<dyn Read + Send>, _) = match response.body {
        ResponseBody::Whole(bytes) => {
            let length = bytes.len();
            (Box::new(io::Cursor::new(bytes)), Some(length))
        }
        ResponseBody::Stream(stream) => (stream, None),
    };
    let status = StatusCode(response.status);
    // Above its threshold tiny_http would chunk even what has a length.
    let response = tiny_http::Response::new(status, headers, body, length, None)
        .with_chunked_threshold(usize::MAX);
    let sent = catch_unwind(AssertUnwindSafe(|| request.respond(response)));
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(why)) => log::debug!("an answer was not taken: {why}"),
        Err(_) => log::error!("sending an answer panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn where_no_thread_can_be_started_the_client_is_told_to_come_back() {
        let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
        let address = server.server_addr().to_ip().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /api/v1/events HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let request = server.recv().unwrap();
        let lane = ThreadLimit { what: "pages", thread: "http-page", permits: Semaphore::new(1) };
        let start = |_| Err(io::ErrorKind::WouldBlock.into());
        lane.spawn_with(start, request, |_, _| panic!("there is no thread"));
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("\r\nRetry-After: 5\r\n"), "{text}");
        assert!(lane.permits.try_acquire().is_some(), "its permit is free again");
    }
}
