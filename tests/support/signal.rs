//! Doubles of signal-cli as a program and as a daemon. They accept what the real one accepts, and
//! record what it must not be given as violations.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http_double::{HttpDouble, Request, lock, reply};

/// The program: `tests/support/signal-cli`, in a directory of its own.
pub struct SignalDouble {
    dir: TempDir,
    pub cli_path: PathBuf,
}

impl SignalDouble {
    pub fn start() -> SignalDouble {
        let dir = tempfile::tempdir().unwrap();
        let cli_path = dir.path().join("signal-cli");
        // A link, because a program that was just written may be "busy" while other threads fork.
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/signal-cli");
        std::os::unix::fs::symlink(program, &cli_path).unwrap();
        SignalDouble { dir, cli_path }
    }

    /// Shell commands to answer a message with, in place of success: `echo '{...}'; exit 1`.
    pub fn answer(&self, script: &str) {
        fs::write(self.dir.path().join("answer"), script).unwrap();
    }

    /// Shell commands to answer `--version` with.
    pub fn answer_version(&self, script: &str) {
        fs::write(self.dir.path().join("version"), script).unwrap();
    }

    /// The texts that came, in order, each with its account and recipient.
    pub fn received(&self) -> Vec<(String, String)> {
        let read = |name: String| fs::read_to_string(self.dir.path().join(name));
        (0..)
            .map_while(|n| Some((read(format!("heard.{n}")).ok()?, read(format!("to.{n}")).ok()?)))
            .map(|(text, to)| (text, to.trim_end().to_owned()))
            .collect()
    }

    /// What it must not have been given.
    pub fn violations(&self) -> Vec<String> {
        let noted = fs::read_to_string(self.dir.path().join("violations")).unwrap_or_default();
        noted.lines().map(str::to_owned).collect()
    }
}

/// How the daemon treats a call.
#[derive(Clone, Debug)]
pub enum DaemonMode {
    /// As the real one does, after a notification and the response to another client's call.
    Normal,
    /// With this `result`.
    Result(Value),
    /// With this `error`.
    Error(Value),
    /// With silence, until the client goes.
    Hang,
    /// It closes the connection when it has read the call.
    Close,
    /// With something that is no JSON.
    Babble,
}

#[derive(Default)]
struct Heard {
    calls: Vec<Value>,
    violations: Vec<String>,
}

/// The daemon, on a Unix socket and on HTTP.
pub struct SignalDaemon {
    pub path: PathBuf,
    pub url: String,
    heard: Arc<Mutex<Heard>>,
    mode: Arc<Mutex<DaemonMode>>,
    http: HttpDouble,
    _dir: TempDir,
}

impl SignalDaemon {
    pub fn start() -> SignalDaemon {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mode = Arc::new(Mutex::new(DaemonMode::Normal));
        let listener = UnixListener::bind(&path).unwrap();
        let (notes, modes) = (heard.clone(), mode.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (notes, mode) = (notes.clone(), lock(&modes).clone());
                thread::spawn(move || serve(&stream, &mode, &notes));
            }
        });
        let (notes, modes) = (heard.clone(), mode.clone());
        let http = HttpDouble::start(move |request| {
            reply(200, http_answer(request, &lock(&modes), &mut lock(&notes)))
        });
        SignalDaemon { path, url: http.url.clone(), heard, mode, http, _dir: dir }
    }

    /// Sets the mode, from the next connection on.
    pub fn set_mode(&self, mode: DaemonMode) {
        let http = match mode {
            DaemonMode::Hang => super::http_double::Mode::Hang,
            DaemonMode::Close => super::http_double::Mode::DropAfterReading,
            _ => super::http_double::Mode::Normal,
        };
        self.http.set_mode(http);
        *lock(&self.mode) = mode;
    }

    /// The `params` of the messages that were accepted.
    pub fn received(&self) -> Vec<Value> {
        lock(&self.heard).calls.clone()
    }

    /// What it must not have been given.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.heard).violations.clone()
    }
}

fn http_answer(request: &Request, mode: &DaemonMode, heard: &mut Heard) -> String {
    if request.method != "POST" || request.target != "/api/v1/rpc" {
        heard.violations.push(format!("{} {}", request.method, request.target));
    }
    if request.header("content-type") != Some("application/json") {
        heard.violations.push(format!("content-type {:?}", request.header("content-type")));
    }
    answer(&request.body, mode, heard)
}

fn serve(stream: &UnixStream, mode: &DaemonMode, heard: &Mutex<Heard>) {
    let mut line = Vec::new();
    if BufReader::new(stream).read_until(b'\n', &mut line).is_err() || line.is_empty() {
        return;
    }
    let said = answer(&line, mode, &mut lock(heard));
    let mut stream = stream;
    match mode {
        DaemonMode::Hang => {
            let _ = stream.read(&mut [0]);
        }
        DaemonMode::Close => {}
        _ => {
            let notice = json!({"jsonrpc": "2.0", "method": "receive", "params": {"envelope": {}}});
            let foreign = json!({"jsonrpc": "2.0", "id": "another", "error": {"code": -1}});
            let _ = stream.write_all(format!("{notice}\n{foreign}\n{said}\n").as_bytes());
            let _ = stream.read(&mut [0]);
        }
    }
}

fn answer(line: &[u8], mode: &DaemonMode, heard: &mut Heard) -> String {
    let Ok(call) = serde_json::from_slice::<Value>(line) else {
        heard.violations.push("no JSON".into());
        return json!({"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}).to_string();
    };
    if call["jsonrpc"] != "2.0" || !call["id"].is_string() {
        heard.violations.push(format!("no JSON-RPC 2.0 call with an id: {call}"));
    }
    let done = |key: &str, value: &Value| {
        let mut answer = json!({"jsonrpc": "2.0", "id": call["id"]});
        answer[key] = value.clone();
        answer.to_string()
    };
    match (mode, call["method"].as_str()) {
        (DaemonMode::Babble, _) => "<html>hello</html>".into(),
        (DaemonMode::Result(result), _) => done("result", result),
        (DaemonMode::Error(error), _) => done("error", error),
        (_, Some("version")) => done("result", &json!({"version": "0.13.19"})),
        (_, Some("send")) => {
            note(&call["params"], heard);
            let to = json!({"recipientAddress": {"number": "+1"}, "type": "SUCCESS"});
            done("result", &json!({"timestamp": 1_795_291_928_667_u64, "results": [to]}))
        }
        _ => done("error", &json!({"code": -32601, "message": "Method not implemented"})),
    }
}

fn note(params: &Value, heard: &mut Heard) {
    let text = params["message"].as_str().unwrap_or_default();
    let to_one = params["recipient"].as_array().is_some_and(|to| to.len() == 1);
    let to_self = params["recipient"][0] == params["account"];
    for (wrong, what) in [
        (text.trim().is_empty(), "an empty message"),
        (text.len() >= 2000, "too long: it becomes an attachment"),
        (!params["account"].is_string(), "no account"),
        (to_one == params["groupId"].is_string(), "not one recipient, and not one group"),
        (to_self && params["notifySelf"] != true, "a note to oneself that nobody sees"),
    ] {
        if wrong {
            heard.violations.push(what.into());
        }
    }
    heard.calls.push(params.clone());
}
