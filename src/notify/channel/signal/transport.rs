//! How signal-cli is reached: as a process (man/signal-cli.1.adoc), or as a running daemon over
//! JSON-RPC 2.0 (man/signal-cli-jsonrpc.5.adoc).

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{RpcAddress, Signal, result};
use crate::clock::format_duration;
use crate::deadline::DeadlineStream;
use crate::event::EventId;
use crate::notify::channel::attempt::Failure;
use crate::notify::channel::http_client::HttpRequest;
use crate::process;

/// How many bytes are read before the reply must have come: the daemon also sends what it receives.
const MAX_BEFORE_REPLY: u64 = 1024 * 1024;

/// What the start script of signal-cli looks at, and the JVM.
const JAVA_VARIABLES: &[&str] =
    &["JAVA_HOME", "JAVA_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "SIGNAL_CLI_OPTS"];

impl Signal {
    /// Sends `text` by a run of signal-cli. The text goes to its standard input: as an argument it
    /// would be visible to every user, and a text that starts with `-` would be an option.
    pub(super) fn run_program(&self, text: &str, limit: Duration) -> Result<(), Failure> {
        let mut command = self.command();
        command.args(["-o", "json", "-a", &self.user, "send", "--message-from-stdin"]);
        if self.is_note_to_self() {
            command.arg("--notify-self");
        }
        match self.group() {
            Some(id) => command.arg(format!("--group-id={id}")),
            None => command.args(["--", &self.recipient]),
        };
        let finished = process::run(&mut command, text, limit)
            .map_err(|why| self.classify_start_error(&why))?;
        if finished.timed_out {
            let limit = format_duration(limit);
            return Err(Failure::Unknown(format!("signal-cli did not end within {limit}")));
        }
        result::parse_output(finished.code, &finished.stdout, &finished.stderr, &self.user)
    }

    /// What `signal-cli --version` says.
    pub(super) fn program_version(&self, limit: Duration) -> Result<String, String> {
        let name = self.cli_path.display();
        let finished = process::run(self.command().arg("--version"), "", limit)
            .map_err(|why| format!("{name} cannot be started: {why}"))?;
        if finished.timed_out {
            return Err(format!("{name} --version did not end within {}", format_duration(limit)));
        }
        match finished.stdout.trim().strip_prefix("signal-cli ") {
            Some(version) if finished.code == Some(0) => Ok(result::truncate(version)),
            _ => Err(result::explain_failed_start(&finished.stderr)
                .unwrap_or_else(|| format!("{name} is not signal-cli: it tells no version"))),
        }
    }

    /// Under another locale than UTF-8 the JVM turns everything beyond ASCII into U+FFFD.
    fn command(&self) -> Command {
        let more = [process::NETWORK_VARIABLES, JAVA_VARIABLES].concat();
        let mut command = process::command(&self.cli_path, &more);
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    fn classify_start_error(&self, why: &std::io::Error) -> Failure {
        let name = self.cli_path.display();
        let why = match why.kind() {
            ErrorKind::NotFound => format!("{name} is not there, or its interpreter (cli_path?)"),
            ErrorKind::PermissionDenied => format!("{name} may not be executed"),
            _ => {
                let why = format!("{name} cannot be started: {why}");
                return Failure::unreachable(why);
            }
        };
        Failure::channel_refused(why)
    }

    /// Sends `text` through the daemon.
    pub(super) fn call_daemon(
        &self,
        rpc: &RpcAddress,
        text: &str,
        event: EventId,
        limit: Duration,
    ) -> Result<(), Failure> {
        let mut params = json!({"account": self.user, "message": text});
        match self.group() {
            Some(id) => params["groupId"] = json!(id),
            None => params["recipient"] = json!([self.recipient]),
        }
        if self.is_note_to_self() {
            params["notifySelf"] = json!(true);
        }
        let response = call(rpc, "send", params, &format!("hbd-{event}"), limit)?;
        if response["error"].is_object() {
            return Err(result::classify_rpc_error(&response["error"], &self.user));
        }
        let results = &response["result"];
        match result::parse_results(results, &self.user) {
            Some(result) => result,
            None if results["timestamp"].is_u64() => Ok(()),
            None => Err(Failure::Unknown("signal-cli's daemon told no results".into())),
        }
    }

    /// The version that the daemon reports.
    pub(super) fn daemon_version(
        &self,
        rpc: &RpcAddress,
        limit: Duration,
    ) -> Result<String, String> {
        let response =
            call(rpc, "version", json!({}), "hbd-version", limit).map_err(Failure::into_why)?;
        match response["result"]["version"].as_str() {
            Some(version) => Ok(result::truncate(version)),
            None => Err("what listens there is not signal-cli's daemon".into()),
        }
    }
}

/// Calls a method, and returns the whole response: with a `result` or an `error`.
fn call(
    rpc: &RpcAddress,
    method: &str,
    params: Value,
    id: &str,
    limit: Duration,
) -> Result<Value, Failure> {
    let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
    match rpc {
        RpcAddress::Unix(path) => call_socket(path, &request, id, limit),
        RpcAddress::Http(url) => call_http(url, &request, limit),
    }
}

fn call_http(url: &str, request: &Value, timeout: Duration) -> Result<Value, Failure> {
    let response = HttpRequest {
        url: format!("{}/api/v1/rpc", url.trim_end_matches('/')),
        body: Some(("application/json", request.to_string())),
        bearer: None,
        ca_file: None,
        timeout,
    }
    .send()?;
    match (response.status, serde_json::from_str::<Value>(&response.body)) {
        (200, Ok(said)) if said.is_object() => Ok(said),
        (200, _) if !response.complete => Err(Failure::Unknown("the answer was cut off".into())),
        (status @ (408 | 429 | 500..=599), _) => {
            Err(Failure::unreachable(format!("signal-cli's daemon answered {status}")))
        }
        (status, _) => Err(Failure::channel_refused(format!(
            "what listens at `rpc` answered {status}, and is not signal-cli's daemon"
        ))),
    }
}

fn call_socket(path: &Path, request: &Value, id: &str, limit: Duration) -> Result<Value, Failure> {
    let deadline = Instant::now() + limit;
    let name = path.display();
    let mut stream = connect(path, limit)
        .map_err(|why| Failure::unreachable(format!("no connection to {name}: {why}")))?;
    // The daemon ignores a line that is not complete.
    stream
        .write_all(format!("{request}\n").as_bytes())
        .map_err(|why| Failure::unreachable(format!("{name} takes no request: {why}")))?;
    let lost =
        |why: &dyn std::fmt::Display| Failure::Unknown(format!("no answer from {name}: {why}"));
    let mut responses =
        BufReader::new(DeadlineStream::new(stream, deadline).take(MAX_BEFORE_REPLY));
    let mut line = Vec::new();
    loop {
        line.clear();
        match responses.read_until(b'\n', &mut line) {
            Ok(0) => return Err(lost(&"it closed the connection")),
            Ok(_) => {}
            Err(why) if why.kind() == ErrorKind::TimedOut => {
                return Err(lost(&format!("{} have passed", format_duration(limit))));
            }
            Err(why) => return Err(lost(&why)),
        }
        // Messages that the daemon receives and responses to other clients come on the same
        // connection.
        match serde_json::from_slice::<Value>(&line) {
            Ok(response) if response["id"] == id => return Ok(response),
            Ok(response) if response["id"].is_null() && response["error"].is_object() => {
                return Ok(response);
            }
            _ => {}
        }
    }
}

/// A connected socket with a timeout for writing. It is set before connecting, because a daemon
/// that does not accept would block that too.
fn connect(path: &Path, limit: Duration) -> std::io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit.max(Duration::from_millis(1))))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}
