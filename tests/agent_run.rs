//! `hbc run` as an operator or systemd would run it, against a socket that answers by a rule.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use heartbeat::clock::Now;
use heartbeat::heartbeat::datagram::{Datagram, DatagramKind, parse, split};
use heartbeat::heartbeat::encode::{ack, signing_key, verify};
use heartbeat::secret::Secret;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A datagram that came, as far as it matters here.
#[derive(Clone, Debug)]
struct Said {
    connection: String,
    event: DatagramKind,
    boot_id: Option<String>,
    micros: i64,
    interval: Option<Duration>,
    host: String,
    signed: bool,
    json: String,
}

/// A server that answers by a rule, which gets the number of datagrams that came before.
struct Server {
    address: SocketAddr,
    came: Receiver<Said>,
}

impl Server {
    fn start(rule: impl Fn(usize, &Said) -> bool + Send + 'static) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (tx, came) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 9000];
            for count in 0.. {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
                let (signature, json) = split(&buffer[..length]);
                let datagram = parse(json).unwrap();
                let ours = signing_key(&Secret::new("hunter22"));
                let signed = signature.is_some_and(|signature| verify(&ours, json, &signature));
                let said = Said {
                    json: String::from_utf8(json.to_vec()).unwrap(),
                    ..said(&datagram, signed)
                };
                assert!(datagram.ack && length <= 1200);
                let answers = rule(count, &said);
                // Kept before it is answered: with the answer the test goes on at once.
                if tx.send(said).is_err() {
                    return;
                }
                if answers {
                    let time = datagram.time.as_ref().map(|time| &*time.text);
                    let now = Now::read().wall;
                    let answer = ack(time, now, signed.then_some(&ours), length).unwrap();
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Server { address, came }
    }

    fn good() -> Server {
        Server::start(|_, _| true)
    }

    fn next(&self) -> Said {
        self.came.recv_timeout(TIMEOUT).unwrap()
    }

    /// The next one that `holds`.
    fn find(&self, holds: impl Fn(&Said) -> bool) -> Said {
        loop {
            let said = self.next();
            if holds(&said) {
                return said;
            }
        }
    }
}

fn said(datagram: &Datagram, signed: bool) -> Said {
    Said {
        connection: datagram.connection.as_deref().unwrap_or("none").to_owned(),
        event: datagram.event,
        boot_id: datagram.boot_id.as_deref().map(str::to_owned),
        micros: datagram.time.as_ref().map_or(0, |time| time.micros),
        interval: datagram.interval,
        host: datagram.host.clone().into_owned(),
        signed,
        json: String::new(),
    }
}

struct Hbc {
    child: Child,
    log: Receiver<String>,
}

impl Hbc {
    fn start(arguments: &[&str]) -> Hbc {
        Hbc::start_in(arguments, &[])
    }

    fn start_in(arguments: &[&str], environment: &[(&str, &str)]) -> Hbc {
        Hbc::start_as(Command::new(env!("CARGO_BIN_EXE_hbc")), arguments, environment)
    }

    fn start_as(mut hbc: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Hbc {
        let mut child = hbc
            .arg("run")
            .args(arguments)
            .env_remove("HBC_LOG")
            .env_remove("HBC_CONFIG")
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tx, log) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tx.send(line)));
        Hbc { child, log }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), signal) };
    }

    fn wait_log(&self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("no {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Hbc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let file = directory.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[test]
fn three_lines_are_a_configuration() {
    let server = Server::good();
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "key", "hunter22\n");
    let text = format!("server: {}\nkey_file: key\nhost: web1\n", server.address);
    let file = write(directory.path(), "hbc.yaml", &text);
    let hbc = Hbc::start(&["--config", file.to_str().unwrap()]);
    let first = server.next();
    assert_eq!((first.host.as_str(), first.connection.as_str()), ("web1", "ipv4"));
    assert_eq!(first.interval, Some(Duration::from_secs(10)));
    assert_eq!(first.boot_id.map(|id| id.len()), Some(36));
    assert!(first.signed);
    assert_eq!(first.event, DatagramKind::Boot);
    hbc.wait_log("answers");
    hbc.signal(libc::SIGTERM);
    let last = server.next();
    assert_eq!(last.event, DatagramKind::Shutdown);
    assert!(last.signed && last.micros > first.micros);
    assert_eq!(hbc.end(), Some(0));
}

#[test]
fn what_is_not_answered_is_repeated_with_a_later_time() {
    let server = Server::start(|count, _| count != 1);
    let address = server.address.to_string();
    let hbc = Hbc::start(&["--server", &address, "--host", "web1", "--interval", "1h"]);
    hbc.wait_log("answers");
    // The goodbye is lost once.
    hbc.signal(libc::SIGINT);
    let said: Vec<Said> = (0..3).map(|_| server.next()).collect();
    assert_eq!(said[1].event, DatagramKind::Shutdown);
    assert_eq!(said[2].event, DatagramKind::Shutdown);
    assert!(said.windows(2).all(|pair| pair[0].micros < pair[1].micros), "{said:?}");
    assert_eq!(hbc.end(), Some(0));
}

#[test]
fn a_goodbye_that_nobody_answers_ends_in_time() {
    let server = Server::start(|_, _| false);
    let address = server.address.to_string();
    let hbc = Hbc::start(&["--server", &address, "--host", "web1"]);
    server.next();
    hbc.signal(libc::SIGTERM);
    assert_eq!(hbc.end(), Some(0));
    // The server may not have read all of them yet.
    let mut goodbyes = 0;
    while goodbyes < 3 {
        goodbyes += usize::from(server.next().event == DatagramKind::Shutdown);
    }
    goodbyes += server.came.try_iter().filter(|said| said.event == DatagramKind::Shutdown).count();
    assert!(goodbyes <= 6, "{goodbyes}");
}

/// hbc in namespaces of its own, after a script; none where these cannot be made.
fn hbc_after(namespaces: &[&str], script: &str) -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        // SAFETY: geteuid(2) takes nothing and never fails.
        if unsafe { libc::geteuid() } != 0 {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(namespaces);
        command
    };
    let able = unshare().arg("true").output().is_ok_and(|output| output.status.success());
    let mut command = unshare();
    command.args(["sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_hbc")).env_remove("HBC_CONFIG");
    able.then_some(command)
}

#[test]
fn a_goodbye_did_not_say_whether_the_machine_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let write = "printf '#!/bin/sh\ntest \"$1\" = list-jobs && cat %s/jobs\n' \"$0\" > \"$0/systemctl\" \
                 && chmod 755 \"$0/systemctl\"";
    assert!(Command::new("sh").args(["-c", write]).arg(folder.path()).status().unwrap().success());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for (jobs, reason) in [
        ("11 hbc.service stop running\n12 reboot.target start waiting\n", Some("\"reboot\"")),
        ("12 poweroff.target start waiting\n", Some("\"poweroff\"")),
        ("11 hbc.service stop running\n", None),
    ] {
        std::fs::write(folder.path().join("jobs"), jobs).unwrap();
        let systemd = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system";
        let Some(hbc) = hbc_after(&["--mount"], systemd) else { return };
        let server = Server::good();
        let address = server.address.to_string();
        let arguments = ["--server", &address, "--host", "web1"];
        let hbc = Hbc::start_as(hbc, &arguments, &[("PATH", &path)]);
        hbc.wait_log("answers");
        hbc.signal(libc::SIGTERM);
        let goodbye = server.find(|said| said.event == DatagramKind::Shutdown);
        let expected = reason.map(|reason| format!("\"reason\":{reason}"));
        let said = goodbye.json.contains("reason").then_some(goodbye.json);
        match (&expected, &said) {
            (Some(expected), Some(json)) => assert!(json.contains(expected), "{json}"),
            _ => assert_eq!(expected, said),
        }
        assert_eq!(hbc.end(), Some(0));
    }
}

#[test]
fn a_restart_by_systemd_is_no_shutdown() {
    let server = Server::good();
    let address = server.address.to_string();
    let hbc = Hbc::start(&["--server", &address, "--host", "web1"]);
    hbc.wait_log("answers");
    hbc.signal(libc::SIGUSR1);
    assert_eq!(hbc.end(), Some(0));
    assert!(server.came.try_iter().all(|said| said.event != DatagramKind::Shutdown));
}

#[test]
fn a_reload_takes_over_what_is_sound() {
    let (one, other) = (Server::good(), Server::good());
    let directory = tempfile::tempdir().unwrap();
    let text = |server: &Server, more| format!("server: {}\nhost: web1\n{more}\n", server.address);
    let file = write(directory.path(), "hbc.yaml", &text(&one, "interval: 100ms"));
    let hbc = Hbc::start(&["--config", file.to_str().unwrap()]);
    one.next();
    write(directory.path(), "hbc.yaml", &text(&other, "intervall: 100ms"));
    hbc.signal(libc::SIGHUP);
    hbc.wait_log("unknown key, did you mean \"interval\"?");
    hbc.wait_log("stays as it was");
    one.came.try_iter().for_each(drop);
    one.next();
    write(directory.path(), "hbc.yaml", &text(&other, "interval: 100ms"));
    hbc.signal(libc::SIGHUP);
    assert_eq!(other.next().event, DatagramKind::Boot);
    hbc.signal(libc::SIGTERM);
    other.find(|said| said.event == DatagramKind::Shutdown);
    assert!(one.came.try_iter().all(|said| said.event != DatagramKind::Shutdown));
    assert_eq!(hbc.end(), Some(0));
}

#[test]
fn systemd_hears_that_it_is_ready_and_lives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    // No server is there: it is ready all the same.
    let _hbc = Hbc::start_in(&["--server", "127.0.0.1:1", "--interval", "1h"], &environment);
    let mut buffer = [0; 100];
    let mut told = Vec::new();
    while told.len() < 5 {
        let length = socket.recv(&mut buffer).unwrap();
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(told, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
}

#[test]
fn a_server_where_nobody_listens_is_named() {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let hbc = Hbc::start(&["--server", &address, "--interval", "200ms"]);
    let line = hbc.wait_log("has not answered for 10 s");
    assert!(line.contains(&format!("ipv4: {address}")), "{line}");
    assert!(line.contains(&format!("nobody listens on UDP {address}")), "{line}");
}

#[test]
fn a_wrong_key_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "key", "another\n");
    let server = Server::good();
    let (address, file) = (server.address.to_string(), file.to_str().unwrap());
    let hbc = Hbc::start(&["--server", &address, "--key-file", file, "--interval", "200ms"]);
    assert!(hbc.wait_log("has not answered").contains("an answer came that is not signed"));
}

fn hbc(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hbc"));
    command.env_remove("HBC_CONFIG").args(arguments).output().unwrap()
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_wrong_is_said_before_it_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "hbc.yaml", "sever: hbd.example.com\nhost: web 1\n");
    let file = file.to_str().unwrap();
    for (arguments, code, what) in [
        (
            &["run", "--config", file][..],
            78,
            "hbc.yaml:1: sever: unknown key, did you mean \"server\"?",
        ),
        (&["run", "--config", file], 78, "hbc.yaml:2: host: must be 1 to 253"),
        (
            &["run", "--config", "/nowhere/hbc.yaml"],
            78,
            "name another one with --config or $HBC_CONFIG",
        ),
        (
            &["run", "--server", "a", "--key-file", "/nowhere/key"],
            78,
            "--key-file: cannot read /nowhere/key",
        ),
        (&["run", "--server", "a", "--host", "web 1"], 78, "--host: \"web 1\" must be"),
        (&["run", "--sever", "a"], 2, "run has no option --sever, did you mean --server?"),
    ] {
        let (exit, out, error) = told(&hbc(arguments));
        assert_eq!((exit, out.as_str()), (code, ""), "{arguments:?}: {error}");
        assert!(error.contains(what), "{arguments:?}: {error}");
    }
}

#[test]
fn check_says_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let text = "servers: [a, b:7]\nhost: web1\nconnections: {vpn: {source: \"::1\"}, ipv6: off}\n";
    let file = write(directory.path(), "hbc.yaml", text);
    let (code, out, _) = told(&hbc(&["check", "--strict", "--config", file.to_str().unwrap()]));
    assert_eq!(code, 0);
    assert_eq!(out, "OK: web1 beats every 10 s to a:9099, b:7 over ipv4, vpn\n");
    let file = write(directory.path(), "hbc.yaml", "servers: [a, a]\n");
    let check = |options: &[&str]| {
        told(&hbc(&[&["check", "--config", file.to_str().unwrap()], options].concat()))
    };
    let (code, out, _) = check(&[]);
    assert!(code == 0 && out.contains(":1: warning: servers: names a:9099 twice\nOK: "), "{out}");
    let (code, out, _) = check(&["--strict"]);
    assert!(code == 78 && !out.contains("OK"), "{out}");
    let (code, out, _) = told(&hbc(&["check", file.to_str().unwrap(), "--json"]));
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &answer["ok"], &answer["servers"]),
        (0, &true.into(), &["a:9099"][..].into())
    );
    assert_eq!(answer["problems"][0]["path"], "servers");
    let file = write(directory.path(), "hbc.yaml", "server: a\nkey: hunter22\n");
    let (_, out, _) = told(&hbc(&["check", file.to_str().unwrap()]));
    assert!(out.contains("hbc.yaml:2: warning: key: is shorter than 16 characters"), "{out}");
}

#[test]
fn a_machine_with_a_name_that_no_host_can_have_beat_into_rejection_for_ever() {
    for name in ["b\u{fc}ro-pi", "(none)", "My Pi"] {
        let script = format!("printf '{name}' > /proc/sys/kernel/hostname");
        let hbc = |arguments: &[&str]| {
            let mut hbc = hbc_after(&["--uts"], &script)?;
            Some(told(&hbc.args(arguments).output().unwrap()))
        };
        let Some((code, out, _)) = hbc(&["check", "--config", "/nonexistent"]) else { return };
        assert!(code == 78 && out.contains("cannot be read"), "{out}");
        let directory = tempfile::tempdir().unwrap();
        let file = write(directory.path(), "hbc.yaml", "servers: [a, a]\n");
        let config = ["--config", file.to_str().unwrap()];
        let remedy = format!(
            "this machine is called \"{name}\", which no host can be: give host: NAME, or --host NAME"
        );
        let (code, out, _) = hbc(&[&["check"], &config[..]].concat()).unwrap();
        assert!(code == 78 && out.contains(&remedy) && out.contains("twice"), "{out}");
        let (code, _, error) = hbc(&[&["run"], &config[..]].concat()).unwrap();
        assert!(code == 78 && error.contains(&remedy), "{error}");
        let (code, _, error) = hbc(&["send", "--server", "127.0.0.1:9"]).unwrap();
        assert!(code == 2 && error.contains("--host"), "{error}");
        write(directory.path(), "hbc.yaml", "server: a\nhost: web1\n");
        assert_eq!(hbc(&[&["check"], &config[..]].concat()).unwrap().0, 0);
    }
}
