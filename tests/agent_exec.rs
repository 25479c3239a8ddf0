//! hbc exec as cron would run it, against a socket that answers or does not, and against hbd.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::clock::Now;
use heartbeat::heartbeat::datagram::{Datagram, DatagramKind, parse, split};
use heartbeat::heartbeat::encode::{ack, signing_key, verify};
use heartbeat::secret::Secret;

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod hbd;
    pub mod http_double;
}

/// A socket that answers, or does not, and keeps what came.
struct Server {
    address: SocketAddr,
    came: Receiver<Vec<u8>>,
}

impl Server {
    fn start(answers: bool) -> Server {
        Server::with_key(answers, None)
    }

    /// The same, which believes what is signed with the key, and nothing else.
    fn with_key(answers: bool, key: Option<&'static str>) -> Server {
        let key = key.map(|key| signing_key(&Secret::new(key)));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let address = socket.local_addr().unwrap();
        let (tx, came) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 9000];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let (signature, json) = split(&buffer[..length]);
                if let Some(key) = &key {
                    assert!(verify(key, json, &signature.expect("it is signed")));
                }
                let bytes = json.to_vec();
                let time = parse(&bytes).unwrap().time.map(|time| time.text.into_owned());
                // Kept before it is answered: with the answer the test goes on at once.
                if tx.send(bytes).is_err() {
                    return;
                }
                if let Some(answer) = ack(time.as_deref(), Now::read().wall, key.as_ref(), 8192)
                    && answers
                {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Server { address, came }
    }

    /// All that came, in short: event, text, metrics without times.
    fn told(&self) -> Vec<String> {
        self.came.try_iter().map(|bytes| short(&parse(&bytes).unwrap())).collect()
    }
}

fn short(datagram: &Datagram) -> String {
    if let Some(message) = &datagram.message {
        assert_eq!(datagram.event, DatagramKind::Message);
        return format!("message: {message}");
    }
    let timeless = ["started", "ended", "seconds"];
    let metrics = datagram.metrics.iter().filter_map(|(path, value)| {
        let (_, last) = path.rsplit_once('.').unwrap();
        (!timeless.contains(&last)).then(|| format!(" {path}={value}"))
    });
    metrics.collect::<String>().trim().to_owned()
}

fn hbc(address: SocketAddr, options: &[&str], command: &[&str]) -> Command {
    let mut hbc = Command::new(env!("CARGO_BIN_EXE_hbc"));
    hbc.args(["exec", "--server", &address.to_string(), "--host", "web1", "--wait", "20s"]);
    hbc.args(options).arg("--").args(command);
    hbc
}

fn exec(server: &Server, options: &[&str], command: &[&str]) -> (i32, String, String) {
    said(&hbc(server.address, options, command).output().unwrap())
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_job_that_works_is_told_at_its_beginning_and_at_its_end() {
    let server = Server::start(true);
    let (code, out, error) = exec(&server, &["--name", "nightly.backup"], &["echo", "done"]);
    assert_eq!((code, out.as_str(), error.as_str()), (0, "done\n", ""));
    let came: Vec<Vec<u8>> = server.came.try_iter().collect();
    let told: Vec<Datagram> = came.iter().map(|bytes| parse(bytes).unwrap()).collect();
    // It may have ended before its start was answered: then the start is not sent twice.
    let last = told.last().unwrap();
    assert_eq!(
        short(last),
        "job_monitor.nightly_backup.exit_code=0 job_monitor.nightly_backup.running=0"
    );
    let value = |what: &str| {
        let path = format!("job_monitor.nightly_backup.{what}");
        last.metrics.iter().find(|(known, _)| *known == path).unwrap().1
    };
    let now = Now::read().wall.0 as f64 / 1000.0;
    assert!((now - 60.0..=now).contains(&value("started")));
    assert!(value("ended") >= value("started") && value("seconds") < 60.0);
    assert_eq!(last.host, "web1");
}

#[test]
fn a_job_that_runs_is_told_while_it_runs() {
    let server = Server::start(true);
    let mut child = hbc(server.address, &["--interval", "1d", "--metric", "a.b=1"], &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = server.came.recv_timeout(Duration::from_secs(60)).unwrap();
    let begin = parse(&bytes).unwrap();
    assert_eq!(short(&begin), "a.b=1 job_monitor.cat.running=1");
    assert_eq!(begin.interval, Some(Duration::from_secs(86_400)));
    child.stdin.take().unwrap().write_all(b"its own input").unwrap();
    let (code, out, error) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str(), error.as_str()), (0, "its own input", ""));
    assert_eq!(server.told(), ["a.b=1 job_monitor.cat.exit_code=0 job_monitor.cat.running=0"]);
}

#[test]
fn a_job_that_fails_is_told_as_a_message() {
    for (script, code, how) in [
        ("exit 3", 3, "failed with exit code 3 after "),
        ("kill -KILL $$", 137, "was killed by signal 9 after "),
    ] {
        let server = Server::start(true);
        let (exit, out, error) = exec(&server, &["--name", "job"], &["sh", "-c", script]);
        assert_eq!((exit, out.as_str(), error.as_str()), (code, "", ""));
        let told = server.told();
        let [.., message, end] = &told[..] else { panic!("{told:?}") };
        assert!(message.starts_with(&format!("message: job job {how}")), "{message}");
        assert_eq!(*end, format!("job_monitor.job.exit_code={code} job_monitor.job.running=0"));
    }
}

#[test]
fn the_last_words_of_a_job_go_with_its_end() {
    let server = Server::start(true);
    let script = "echo out; echo one >&2; printf 'Fatal: no repository\n\n' >&2; exit 3";
    let (code, out, error) = exec(&server, &["--name", "job"], &["sh", "-c", script]);
    assert_eq!((code, out.as_str()), (3, "out\n"));
    assert_eq!(error, "one\nFatal: no repository\n\n", "it passes through as it is");
    let came: Vec<Vec<u8>> = server.came.try_iter().collect();
    let [.., message, end] = &came[..] else { panic!("{came:?}") };
    let (message, end) = (parse(message).unwrap(), parse(end).unwrap());
    assert!(short(&message).ends_with(": Fatal: no repository"), "{}", short(&message));
    // Both in one datagram, so that hbd can tell of both in one message.
    assert_eq!(message.metrics, end.metrics);
    assert_eq!(end.metrics.text("job_monitor.job.exit_code"), Some("Fatal: no repository"));
    let script = "echo all is well >&2";
    assert_eq!(exec(&server, &["--name", "job"], &["sh", "-c", script]).0, 0);
    let end = server.came.try_iter().last().unwrap();
    assert_eq!(parse(&end).unwrap().metrics.text("job_monitor.job.exit_code"), None);
}

#[test]
fn what_a_job_leaves_behind_may_write_on_and_is_not_waited_for() {
    let server = Server::start(true);
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    // It waits for a file, and would die of SIGPIPE before it says that it did not.
    let rest = format!(
        "(while ! test -e {0}; do sleep 0.01; done; echo late >&2; echo lived >&2) >/dev/null &",
        go.display()
    );
    let script = format!("echo first >&2; {rest} exit 0");
    let mut hbc = hbc(server.address, &["--name", "job"], &["sh", "-c", &script]);
    let mut child = hbc.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut error = child.stderr.take().unwrap();
    assert!(child.wait().unwrap().success(), "before its descendant has ended");
    std::fs::write(&go, "").unwrap();
    let mut written = String::new();
    error.read_to_string(&mut written).unwrap();
    assert_eq!(written, "first\nlate\nlived\n");
}

#[test]
fn a_command_that_is_not_there_is_told_like_a_job_that_failed() {
    let server = Server::start(true);
    let (code, _, error) = exec(&server, &[], &["/nonexistent/backup"]);
    assert_eq!(code, 127);
    assert!(error.starts_with("hbc: cannot run /nonexistent/backup: "), "{error}");
    let told = server.told();
    assert!(told[told.len() - 2].starts_with("message: job backup could not be started: "));
    let (code, ..) = exec(&server, &[], &["/etc/passwd"]);
    assert_eq!(code, 126);
}

#[test]
fn a_server_that_does_not_answer_harms_nobody() {
    let server = Server::start(false);
    let begin = Instant::now();
    let script = "echo out; echo err >&2; exit 5";
    let (code, out, error) = exec(&server, &["--wait", "300ms"], &["sh", "-c", script]);
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!((code, out.as_str()), (5, "out\n"));
    assert!(error.starts_with("err\nhbc: "), "{error}");
    assert!(error.contains(" did not answer within "), "{error}");
    // Whatever is lost on the way: the end is the last datagram.
    let told = server.told();
    let first_end = told.iter().position(|line| !line.contains("running=1")).unwrap();
    assert!(told[first_end..].iter().all(|line| !line.contains("running=1")), "{told:?}");
    assert!(told.last().unwrap().contains("running=0"), "{told:?}");
}

#[test]
fn what_cannot_be_told_at_all_does_not_keep_the_job_from_running() {
    let server = Server::start(true);
    for options in [&["--key-file", "/nonexistent"][..], &["--host", "no host"]] {
        let (code, out, error) = exec(&server, options, &["echo", "done"]);
        assert_eq!((code, out.as_str()), (0, "done\n"), "{error}");
        assert!(error.starts_with("hbc: --"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(server.told().is_empty());
}

/// hbc exec as it is configured.
fn configured(config: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut hbc = Command::new(env!("CARGO_BIN_EXE_hbc"));
    hbc.arg("exec").args(options).arg("--").args(command).env("HBC_CONFIG", config);
    hbc
}

#[test]
fn a_job_without_a_server_on_its_command_line_told_nobody() {
    let (silent, good) = (Server::start(false), Server::with_key(true, Some("hunter22hunter22")));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hbc.yaml");
    let text = format!(
        "servers: [\"{}\", \"{}\"]\nkey: hunter22hunter22\nhost: web1\n",
        silent.address, good.address
    );
    std::fs::write(&config, text).unwrap();
    let options = ["--host", "nas-backup", "--interval", "1d", "--name", "job", "--wait", "2s"];
    let mut command = configured(&config, &options, &["sh", "-c", "exit 3"]);
    let (code, _, error) = said(&command.output().unwrap());
    assert_eq!(code, 3);
    let came: Vec<Vec<u8>> = good.came.try_iter().collect();
    let told: Vec<Datagram> = came.iter().map(|bytes| parse(bytes).unwrap()).collect();
    let [.., message, end] = &told[..] else { panic!("{told:?}") };
    assert!(short(message).starts_with("message: job job failed with exit code 3 after "));
    assert_eq!(short(end), "job_monitor.job.exit_code=3 job_monitor.job.running=0");
    assert_eq!((&*end.host, end.interval), ("nas-backup", Some(Duration::from_secs(86_400))));
    // The silent one kept nothing from the other, and is named.
    assert!(!silent.told().is_empty());
    assert!(error.contains(&format!("{} did not answer within ", silent.address)), "{error}");
    assert!(!error.contains(&good.address.to_string()), "{error}");
    // Without --host it is about the configured one.
    let mut command = configured(&config, &["--wait", "1s"], &["true"]);
    assert!(command.output().unwrap().status.success());
    assert_eq!(parse(&good.came.try_iter().last().unwrap()).unwrap().host, "web1");
}

#[test]
fn a_job_that_cannot_be_told_of_says_why_and_keeps_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    for (config, why) in [
        (folder.path().join("missing.yaml"), "missing.yaml: cannot be read"),
        (write("broken.yaml", "server: [a\n"), "broken.yaml:"),
        (write("wrong.yaml", "sever: a\n"), "did you mean \"server\"?"),
        (write("keyless.yaml", "server: a\nkey_file: gone\n"), "key_file: cannot read"),
    ] {
        let command = ["sh", "-c", "echo out; echo err >&2; exit 5"];
        let (code, out, error) = said(&configured(&config, &[], &command).output().unwrap());
        assert_eq!((code, out.as_str()), (5, "out\n"), "{error}");
        let (own, told) = error.split_once('\n').unwrap();
        assert_eq!(own, "err");
        assert!(told.starts_with("hbc: --server HOST:PORT is missing, and the "), "{error}");
        assert!(told.contains(why), "{error}");
    }
}

#[test]
fn an_ordinary_user_who_may_not_read_the_configuration_is_told_so() {
    // SAFETY: geteuid(2) takes nothing and never fails.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hbc.yaml");
    std::fs::write(&config, "server: 127.0.0.1:9\n").unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = configured(&config, &[], &["true"]);
    let (code, _, error) = said(&command.uid(65_534).gid(65_534).output().unwrap());
    assert_eq!(code, 0);
    assert!(error.contains("hbc.yaml: cannot be read (Permission denied"), "{error}");
    // With a server it is told, whatever the configuration is.
    let server = Server::start(true);
    let options = ["--server", &server.address.to_string(), "--host", "web1"];
    let mut command = configured(&config, &options, &["true"]);
    let (code, _, error) = said(&command.uid(65_534).gid(65_534).output().unwrap());
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(server.told().last().unwrap().contains("running=0"));
}

/// A job that has printed that it is ready.
fn ready(command: &mut Command) -> (Child, BufReader<std::process::ChildStdout>) {
    // A shell cannot trap what was ignored when it was started, and a shell that runs this test in
    // the background may ignore some.
    let heed = || {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: it takes no pointer, and may be called after a fork (signal-safety(7)).
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: it does nothing but that.
    unsafe { command.pre_exec(heed) };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

#[test]
fn signals_are_passed_on_to_the_job() {
    for (signal, name) in [(libc::SIGTERM, "TERM"), (libc::SIGINT, "INT"), (libc::SIGHUP, "HUP")] {
        let server = Server::start(true);
        let script = format!("trap 'exit 7' {name}; echo ready; while :; do sleep 0.05; done");
        let (mut child, _out) = ready(&mut hbc(server.address, &[], &["sh", "-c", &script]));
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(7), "{name}");
        let told = server.told();
        assert!(
            told[told.len() - 2].starts_with("message: job sh failed with exit code 7"),
            "{told:?}"
        );
    }
}

#[test]
fn a_job_inherits_no_blocked_signals() {
    let server = Server::start(true);
    let command = ["grep", "^SigBlk", "/proc/self/status"];
    let (code, out, _) = exec(&server, &[], &command);
    let (_, usual, _) = said(&Command::new(command[0]).args(&command[1..]).output().unwrap());
    assert_eq!((code, out), (0, usual));
}

#[test]
fn hbd_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("heartbeat.yaml");
    let text = format!(
        "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
         hosts: {{web1: {{watch: true}}}}\nreceiver: {{port: 0}}\nheartbeat: {{port: 0}}\nstate_dir: {}\n",
        folder.path().join("state").display()
    );
    std::fs::write(&config, text).unwrap();
    let hbd = support::hbd::Hbd::start(&config);
    let ready = hbd.wait_log("is ready: ");
    let (_, rest) = ready.split_once("UDP ").unwrap();
    let address: SocketAddr = rest.split(',').next().unwrap().parse().unwrap();
    let options = ["--name", "nightly", "--interval", "1d"];
    let (code, _, error) = said(&hbc(address, &options, &["sh", "-c", "exit 3"]).output().unwrap());
    assert_eq!((code, error.as_str()), (3, ""));
    hbd.wait_log("CRITICAL: web1 - job_monitor.nightly.exit_code = 3.0 (threshold: > 0.0)");
    let (_, sent) = hbd.request("GET", "/api/v1/events?host=web1", b"");
    assert!(sent.contains("job nightly failed with exit code 3 after "), "as a detail: {sent}");
    assert!(!sent.contains(r#""kind":"message""#), "it was told twice: {sent}");
    let (_, answer) = hbd.request("GET", "/api/v1/hosts/web1", b"");
    assert!(answer.contains("job_monitor.nightly.exit_code"), "{answer}");
    hbd.stop();
}
