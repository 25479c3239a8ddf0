//! hbc as a script would run it, against a socket that answers by a rule.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use heartbeat::clock::Now;
use heartbeat::heartbeat::datagram::{Datagram, DatagramKind, parse, split};
use heartbeat::heartbeat::encode::{ack, signing_key, verify};
use heartbeat::secret::Secret;

/// What hbd does with a datagram: the bytes to answer with.
type Rule = dyn Fn(usize, &Datagram) -> Option<Vec<u8>> + Send;

/// A socket that answers by a rule and keeps what came.
struct Server {
    address: SocketAddr,
    came: Receiver<Vec<u8>>,
}

impl Server {
    fn start(bind: &str, rule: Box<Rule>) -> Server {
        let socket = UdpSocket::bind(bind).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let address = socket.local_addr().unwrap();
        let (tx, came) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 9000];
            for count in 0.. {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
                let bytes = buffer[..length].to_vec();
                let answer = rule(count, &parse(split(&bytes).1).unwrap());
                // Kept before it is answered: hbc ends with the answer, and the test looks then.
                if tx.send(bytes).is_err() {
                    return;
                }
                if let Some(answer) = answer {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Server { address, came }
    }

    fn silent(bind: &str) -> Server {
        Server::start(bind, Box::new(|_, _| None))
    }

    fn answering(bind: &str) -> Server {
        Server::start(bind, Box::new(|_, datagram| answer(datagram, None)))
    }

    fn next(&self) -> Vec<u8> {
        self.came.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// What came before hbc ended.
    fn all(&self) -> Vec<Vec<u8>> {
        let first = self.next();
        std::iter::once(first).chain(self.came.try_iter()).collect()
    }
}

fn answer(datagram: &Datagram, secret: Option<&str>) -> Option<Vec<u8>> {
    let key = secret.map(|secret| signing_key(&Secret::new(secret)));
    ack(datagram.time.as_ref().map(|time| &*time.text), Now::read().wall, key.as_ref(), 8192)
}

fn send(server: &str, options: &[&str]) -> Output {
    let arguments = ["send", "--server", server];
    Command::new(env!("CARGO_BIN_EXE_hbc")).args(arguments).args(options).output().unwrap()
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn key_file(secret: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{secret}").unwrap();
    file
}

#[test]
fn one_datagram_goes_out_and_nothing_is_said() {
    let server = Server::silent("127.0.0.1:0");
    let options =
        ["--host", "web1", "--metric", "cpu_monitor.cpu_percent=95.2", "--interval", "1d"];
    assert_eq!(
        told(&send(&server.address.to_string(), &options)),
        (0, String::new(), String::new())
    );
    let json =
        r#"{"host":"web1","interval":86400.0,"metrics":{"cpu_monitor":{"cpu_percent":95.2}}}"#;
    assert_eq!(String::from_utf8(server.next()).unwrap(), json);
}

#[test]
fn what_the_machine_knows_is_filled_in() {
    let server = Server::silent("127.0.0.1:0");
    let options = ["--event", "boot", "--boot-id", "auto", "--uptime", "--connection", "vpn"];
    assert_eq!(told(&send(&server.address.to_string(), &options)).0, 0);
    let bytes = server.next();
    let datagram = parse(&bytes).unwrap();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(datagram.host, hostname.trim());
    assert_eq!(datagram.event, DatagramKind::Boot);
    assert_eq!(datagram.connection.as_deref(), Some("vpn"));
    assert_eq!(datagram.boot_id.map(|id| id.len()), Some(36));
    assert!(datagram.uptime.unwrap() > 0.0);
}

#[test]
fn a_signed_question_wants_a_signed_answer() {
    let file = key_file("hunter22");
    let options = ["--key-file", file.path().to_str().unwrap(), "--wait", "20s"];
    let rule = |_: usize, datagram: &Datagram| answer(datagram, Some("hunter22"));
    let server = Server::start("127.0.0.1:0", Box::new(rule));
    let (code, out, _) = told(&send(&server.address.to_string(), &options));
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("{} answered in ", server.address)), "{out}");
    assert!(out.ends_with(" ms\n"), "{out}");
    let bytes = server.next();
    let (signature, json) = split(&bytes);
    assert!(verify(&signing_key(&Secret::new("hunter22")), json, &signature.unwrap()));
    assert!(parse(json).unwrap().ack);

    for (wrong, why) in [(None, "is not signed"), (Some("another"), "signed with another key")] {
        let rule = move |_: usize, datagram: &Datagram| answer(datagram, wrong);
        let server = Server::start("127.0.0.1:0", Box::new(rule));
        let options = [options[0], options[1], "--wait", "200ms"];
        let (code, out, error) = told(&send(&server.address.to_string(), &options));
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_lost_beat_is_sent_again_with_a_later_time() {
    let rule = |count: usize, datagram: &Datagram| answer(datagram, None).filter(|_| count == 1);
    let server = Server::start("127.0.0.1:0", Box::new(rule));
    let (code, out, _) = told(&send(&server.address.to_string(), &["--wait", "20s"]));
    assert_eq!(code, 0);
    // The time counts from the second one.
    assert!(out.contains("answered in "), "{out}");
    let times: Vec<_> =
        server.all().iter().map(|b| parse(b).unwrap().time.unwrap().micros).collect();
    assert_eq!(times.len(), 2);
    assert!(times[0] < times[1]);
}

#[test]
fn a_message_is_not_repeated_within_a_second() {
    let server = Server::silent("127.0.0.1:0");
    let options = ["--host", "web1", "--message", "disk \"sda\" is tired", "--wait", "900ms"];
    let begun = Instant::now();
    let (code, _, error) = told(&send(&server.address.to_string(), &options));
    assert!(begun.elapsed() >= Duration::from_millis(900));
    assert_eq!(code, 1);
    assert!(error.contains("did not answer within 900 ms: is hbd listening there"), "{error}");
    let came = server.all();
    assert_eq!(came.len(), 1);
    let datagram = parse(&came[0]).unwrap();
    assert_eq!(datagram.event, DatagramKind::Message);
    assert_eq!(datagram.message.as_deref(), Some("disk \"sda\" is tired"));
}

#[test]
fn a_name_is_tried_at_all_its_addresses() {
    // localhost is often ::1 first, where no server listens.
    let server = Server::answering("127.0.0.1:0");
    let name = format!("localhost:{}", server.address.port());
    assert_eq!(told(&send(&name, &[])).0, 0);
    server.next();
    let (code, out, error) = told(&send(&name, &["--wait", "20s"]));
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with(&format!("{name} (127.0.0.1:{}) answered in", server.address.port())));
}

#[test]
fn ipv6_works_where_there_is_any() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    let server = Server::answering("[::1]:0");
    assert_eq!(told(&send(&server.address.to_string(), &["--wait", "20s"])).0, 0);
}

/// This thread, and what it starts, has a network of its own from now on, with a link-local address;
/// whether it does.
fn enter_link_local_network() -> bool {
    // SAFETY: it takes no pointer, and concerns this thread alone.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    let ip = |arguments: &str| {
        Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|status| status.success())
    };
    entered && ip("link set lo up") && ip("address add fe80::1/64 dev lo nodad")
}

/// Whether a datagram to the link-local address of this network arrives.
fn link_local_network_carries() -> bool {
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // The interface lo of a new network is its first one.
    let itself = SocketAddrV6::new("fe80::1".parse().unwrap(), port_of(&socket), 0, 1);
    (0..5).any(|_| socket.send_to(b"x", itself).is_ok() && socket.recv(&mut [0; 1]).is_ok())
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

#[test]
fn a_server_behind_one_interface_was_no_server() {
    let tried = thread::spawn(|| {
        if !enter_link_local_network() {
            return;
        }
        assert!(link_local_network_carries(), "the network that was made for this carries nothing");
        let server = Server::answering("[::]:0");
        let address = format!("[fe80::1%lo]:{}", server.address.port());
        let (code, out, error) = told(&send(&address, &["--host", "web1", "--wait", "20s"]));
        assert_eq!((code, error.as_str()), (0, ""), "{out}");
        assert!(out.starts_with(&address), "{out}");
        assert_eq!(server.all().len(), 1);
        let (code, _, error) = told(&send("[fe80::1%nosuch0]", &["--host", "web1"]));
        assert_eq!(code, 1);
        assert!(error.contains("there is no interface nosuch0 now"), "{error}");
        let mut run = Command::new(env!("CARGO_BIN_EXE_hbc"));
        let mut run = run.args(["run", "--server", &address, "--host", "web1"]).spawn().unwrap();
        let beat = server.next();
        assert_eq!(parse(split(&beat).1).unwrap().connection.as_deref(), Some("ipv6"));
        run.kill().unwrap();
        run.wait().unwrap();
    });
    tried.join().unwrap();
}

#[test]
fn every_server_is_told_and_a_silent_one_is_named() {
    let (good, silent) = (Server::answering("127.0.0.1:0"), Server::silent("127.0.0.1:0"));
    let second = silent.address.to_string();
    let (code, out, error) =
        told(&send(&good.address.to_string(), &["--server", &second, "--wait", "300ms"]));
    assert_eq!(code, 1);
    assert!(out.starts_with(&good.address.to_string()), "{out}");
    assert!(error.contains(&format!("{second} did not answer within 300 ms")), "{error}");
}

#[test]
fn that_nobody_listens_is_said_where_it_can_be_known() {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for options in [&[][..], &["--wait", "100ms"]] {
        let (code, _, error) = told(&send(&address, options));
        assert_eq!(code, 1);
        assert!(error.contains(&format!("nobody listens on UDP {address}")), "{error}");
    }
    let (code, _, error) = told(&send("no-such-host.invalid:1", &[]));
    assert_eq!(code, 1);
    assert!(error.contains("no-such-host.invalid has no address"), "{error}");
}

#[test]
fn what_hbd_would_refuse_is_refused_here_with_the_option_named() {
    let long = "x".repeat(501);
    let metrics: Vec<String> = (0..400).map(|n| format!("metric_number_{n}.percent={n}")).collect();
    let many: Vec<&str> = metrics.iter().flat_map(|metric| ["--metric", metric]).collect();
    let empty = key_file("");
    for (options, what) in [
        (vec!["--host", "web 1"], "--host: must be 1 to 253 of"),
        (vec!["--connection", ""], "--connection: must be 1 to 32 of"),
        (vec!["--message", &long], "--message: must be a text of at most 500"),
        (vec!["--message", " "], "--message: an event \"message\" needs a text"),
        (vec!["--interval", "30d"], "--interval: must be a number of seconds from 0.05"),
        (vec!["--boot-id", ""], "--boot-id: must be 1 to 64"),
        (vec!["--metric", "a..b=1"], "--metric: must be numbers, nested"),
        (vec!["--key-file", "/no/such/file"], "--key-file: cannot read /no/such/file"),
        (vec!["--key-file", empty.path().to_str().unwrap()], "must hold one line, the key"),
        (many, "bytes are too many for one datagram, 8192 is the most"),
    ] {
        let (code, out, error) = told(&send("127.0.0.1:9", &options));
        assert_eq!((code, out.as_str()), (2, ""), "{error}");
        assert!(error.starts_with("hbc: ") && error.contains(what), "{error}");
    }
}

/// A daemon that listens where the system let it.
struct Daemon {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start(heartbeat: &str) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("heartbeat.yaml");
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             hosts: {{web1: {{watch: true}}}}\nreceiver: {{port: 0}}\nstate_dir: {}\n\
             heartbeat: {{port: 0, {heartbeat}}}\n",
            folder.path().join("state").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["run", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains("is ready: ")).expect("hbd starts");
        let (_, rest) = ready.split_once("UDP ").unwrap();
        let address = rest.split(',').next().unwrap().to_owned();
        // A pipe that is not read would stop it once it is full.
        thread::spawn(move || lines.for_each(drop));
        Daemon { child, address, _folder: folder }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn hbd_answers_what_it_believes_and_nothing_else() {
    let daemon = Daemon::start("key: hunter22");
    let (right, wrong) = (key_file("hunter22"), key_file("hunter23"));
    let [right, wrong] = [&right, &wrong].map(|file| file.path().to_str().unwrap());
    let host = ["--host", "web1"];
    let metric = ["--metric", "cpu_monitor.cpu_percent=9.5"];
    let told = |options: &[&str]| told(&send(&daemon.address, &[&host, options].concat()));
    for (event, metric) in [("boot", &metric[..]), ("beat", &metric), ("shutdown", &[])] {
        let options = ["--event", event, "--key-file", right, "--wait", "20s", "--boot-id", "auto"];
        let (code, out, error) = told(&[&options, metric].concat());
        assert_eq!(code, 0, "{error}");
        assert!(out.contains(" answered in "), "{out}");
    }
    let (code, ..) = told(&["--message", "disk tired", "--key-file", right, "--wait", "20s"]);
    assert_eq!(code, 0);
    for options in [&["--wait", "300ms"][..], &["--wait", "300ms", "--key-file", wrong]] {
        let (code, _, error) = told(options);
        assert_eq!(code, 1);
        assert!(error.contains("does it know the host web1, do key and clock agree?"), "{error}");
    }
}
