//! A running signal-cli daemon, over JSON-RPC 2.0 (man/signal-cli-jsonrpc.5.adoc).

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Rpc, Signal, verdict};
use crate::clock::words;
use crate::event::EventId;
use crate::notify::channel::Failure;
use crate::notify::channel::web_client::Call;

/// How much is read before an answer must have come: the daemon also tells what it receives.
const READ_CAP: u64 = 1024 * 1024;

impl Signal {
    /// Sends `text` through the daemon.
    pub(super) fn call_daemon(
        &self,
        rpc: &Rpc,
        text: &str,
        event: EventId,
        limit: Duration,
    ) -> Result<(), Failure> {
        let mut params = json!({"account": self.user, "message": text});
        match self.group() {
            Some(id) => params["groupId"] = json!(id),
            None => params["recipient"] = json!([self.recipient]),
        }
        if self.writes_to_itself() {
            params["notifySelf"] = json!(true);
        }
        let answer = call(rpc, "send", params, &format!("hbd-{event}"), limit)?;
        if answer["error"].is_object() {
            return Err(verdict::of_rpc_error(&answer["error"], &self.user));
        }
        let result = &answer["result"];
        match verdict::of_results(result, &self.user) {
            Some(verdict) => verdict,
            None if result["timestamp"].is_u64() => Ok(()),
            None => Err(Failure::Unknown("signal-cli's daemon told no results".into())),
        }
    }

    /// Which version the daemon has.
    pub(super) fn daemon_version(&self, rpc: &Rpc, limit: Duration) -> Result<String, String> {
        let answer =
            call(rpc, "version", json!({}), "hbd-version", limit).map_err(Failure::into_why)?;
        match answer["result"]["version"].as_str() {
            Some(version) => Ok(verdict::brief(version)),
            None => Err("what listens there is not signal-cli's daemon".into()),
        }
    }
}

/// One call, and the answer to it.
fn call(
    rpc: &Rpc,
    method: &str,
    params: Value,
    id: &str,
    limit: Duration,
) -> Result<Value, Failure> {
    let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
    match rpc {
        Rpc::Unix(path) => call_socket(path, &request, id, Instant::now() + limit, limit),
        Rpc::Http(url) => call_http(url, &request, limit),
    }
}

fn call_http(url: &str, request: &Value, timeout: Duration) -> Result<Value, Failure> {
    let answer = Call {
        url: format!("{}/api/v1/rpc", url.trim_end_matches('/')),
        body: Some(("application/json", request.to_string())),
        bearer: None,
        ca_file: None,
        timeout,
    }
    .make()?;
    match (answer.status, serde_json::from_str::<Value>(&answer.body)) {
        (200, Ok(said)) if said.is_object() => Ok(said),
        (200, _) if !answer.complete => Err(Failure::Unknown("the answer was cut off".into())),
        (status @ (408 | 429 | 500..=599), _) => {
            Err(unreachable(format!("signal-cli's daemon answered {status}")))
        }
        (status, _) => Err(Failure::ChannelRefused {
            why: format!("what listens at `rpc` answered {status}, and is not signal-cli's daemon"),
            after: None,
        }),
    }
}

fn call_socket(
    path: &Path,
    request: &Value,
    id: &str,
    end: Instant,
    limit: Duration,
) -> Result<Value, Failure> {
    let name = path.display();
    let mut stream = connect(path, limit)
        .map_err(|why| unreachable(format!("no connection to {name}: {why}")))?;
    // A line that did not leave as a whole is none for the daemon.
    stream
        .write_all(format!("{request}\n").as_bytes())
        .map_err(|why| unreachable(format!("{name} takes no request: {why}")))?;
    let lost =
        |why: &dyn std::fmt::Display| Failure::Unknown(format!("no answer from {name}: {why}"));
    let mut lines = BufReader::new(Deadline { stream, end }.take(READ_CAP));
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => return Err(lost(&"it closed the connection")),
            Ok(_) => {}
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(lost(&format!("{} have passed", words(limit))));
            }
            Err(why) => return Err(lost(&why)),
        }
        // Received messages and answers to others come on the same line.
        match serde_json::from_slice::<Value>(&line) {
            Ok(answer) if answer["id"] == id => return Ok(answer),
            Ok(answer) if answer["id"].is_null() && answer["error"].is_object() => {
                return Ok(answer);
            }
            _ => {}
        }
    }
}

/// A connected socket whose writes are bounded. The bound is set before connecting, because a
/// daemon that accepts nothing would block that too.
fn connect(path: &Path, limit: Duration) -> std::io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit.max(Duration::from_millis(1))))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Reads until a point in time, however slowly the bytes come.
struct Deadline {
    stream: UnixStream,
    end: Instant,
}

impl Read for Deadline {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn unreachable(why: String) -> Failure {
    Failure::Unreachable { why, after: None }
}
