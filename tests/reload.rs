//! A running daemon whose configuration changes: all of it is taken up or nothing, listeners move,
//! and nothing that is under way gets lost.

#[allow(dead_code)]
mod support {
    pub mod certificates;
    pub mod hbd;
    pub mod http_double;
}

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::certificates::{Pair, certificates};
use support::hbd::{Hbd, TIMEOUT};
use support::http_double::{HttpDouble, reply};

const TOKEN: &str = "a-token-of-some-length";

/// A directory with a configuration and a state.
struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.configure(text);
        place
    }

    fn configure(&self, text: &str) {
        let head = "notification_channels: {log: {type: log}}\n\
                    default_notification_channels: [log]\n";
        let state = self.0.path().join("state");
        let text = format!("{head}state_dir: {}\n{text}\n", state.display());
        // At once: a reload must not find half of it.
        fs::write(self.0.path().join("new"), text).unwrap();
        fs::rename(self.0.path().join("new"), self.config()).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("heartbeat.yaml")
    }

    fn start(&self) -> Hbd {
        Hbd::start(&self.config())
    }
}

/// A port that is free for both.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Status and body of `POST /-/reload`.
fn reload(hbd: &Hbd) -> (u16, Value) {
    let (status, answer) = hbd.request("POST", "/-/reload", b"");
    (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
}

/// Sends the head of a heartbeat and half of its body.
fn half_a_request(address: SocketAddr, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let (length, half) = (body.len(), &body[..body.len() / 2]);
    let head = "POST /api/v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ";
    write!(stream, "{head}{TOKEN}\r\nContent-Length: {length}\r\n\r\n{half}").unwrap();
    stream
}

fn finish(mut stream: TcpStream, body: &str) -> String {
    stream.write_all(&body.as_bytes()[body.len() / 2..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn listeners_move_and_what_is_under_way_is_finished() {
    let place =
        Place::new("hosts: {web1: {watch: true}}\nheartbeat: {port: 0}\nreceiver: {port: 0}");
    let mut hbd = place.start();
    let (udp, tcp) = (free_port(), free_port());
    let body = r#"{"host":"web1","event":"message","message":"from before"}"#;
    let begun = half_a_request(hbd.address, body);
    let old = hbd.address;
    let moved = format!("heartbeat: {{port: {udp}}}\nreceiver: {{port: {tcp}}}");
    place.configure(&format!("hosts: {{web1: {{watch: true}}}}\n{moved}"));
    let (status, answer) = reload(&hbd);
    assert_eq!(status, 200, "{answer}");
    let changes = answer["changes"].to_string();
    assert!(changes.contains(&format!("heartbeat: moved from 127.0.0.1:0 to 127.0.0.1:{udp}")));
    hbd.address.set_port(tcp);
    assert!(finish(begun, body).starts_with("HTTP/1.1 200"));
    hbd.wait_log("web1 from before");
    hbd.wait_until("the old port is closed", |_| TcpStream::connect(old).is_err());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let beat = br#"{"host":"web1","event":"message","message":"over there"}"#;
    socket.send_to(beat, ("127.0.0.1", udp)).unwrap();
    hbd.wait_log("web1 over there");
    assert_eq!(hbd.metric("hbd_config_last_reload_successful"), 1.0);
    hbd.stop();
}

#[test]
fn a_listener_that_opens_up_at_its_own_port_loses_no_datagram_and_no_request() {
    let (udp, tcp) = (free_port(), free_port());
    let text = |host: &str| {
        format!(
            "hosts: {{web1: {{}}}}\nheartbeat: {{host: {host}, port: {udp}, accept_unsigned: true}}\n\
             receiver: {{host: {host}, port: {tcp}, token: {TOKEN}}}"
        )
    };
    let place = Place::new(&text("127.0.0.1"));
    let hbd = place.start();
    let over = Arc::new(AtomicBool::new(false));
    let beats = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut sent = 0u64;
            while !over.load(Ordering::Relaxed) {
                // As fast as it is heard: what a full buffer drops is not lost by us.
                let beat = format!(r#"{{"host":"web1","ack":true,"time":{sent}}}"#);
                socket.send_to(beat.as_bytes(), ("127.0.0.1", udp)).unwrap();
                socket.set_read_timeout(Some(TIMEOUT)).unwrap();
                socket.recv(&mut [0; 100]).expect("an ack");
                sent += 1;
            }
            sent
        }
    });
    let made = Arc::new(AtomicUsize::new(0));
    let requests = thread::spawn({
        let (over, made) = (Arc::clone(&over), Arc::clone(&made));
        move || {
            while !over.load(Ordering::Relaxed) {
                let mut stream = TcpStream::connect(("127.0.0.1", tcp)).unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                stream.write_all(b"GET /-/healthy HTTP/1.0\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{made:?}: {answer:?}");
                made.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for round in 1..=6 {
        place.configure(&text(if round % 2 == 1 { "0.0.0.0" } else { "127.0.0.1" }));
        hbd.signal(libc::SIGHUP);
        hbd.wait_until("it moved", |hbd| hbd.logged("HTTP is on") == round);
        let before = made.load(Ordering::SeqCst);
        hbd.wait_until("requests go on", |_| made.load(Ordering::SeqCst) > before + 9);
    }
    over.store(true, Ordering::Relaxed);
    let sent = beats.join().unwrap();
    requests.join().unwrap();
    assert!(sent > 20, "{sent} beats: this tested nothing");
    hbd.stop();
}

#[test]
fn a_port_that_is_taken_refuses_the_whole_reload_and_the_old_one_stays() {
    let place = Place::new("heartbeat: {port: 0}\nreceiver: {port: 0}\nhosts: {web1: {}}");
    let hbd = place.start();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ports = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()];
    for (section, port) in ["receiver", "heartbeat"].into_iter().zip(ports) {
        let other = if section == "receiver" { "heartbeat" } else { "receiver" };
        place.configure(&format!(
            "{section}: {{port: {port}}}\n{other}: {{port: {}}}\nhosts: {{web2: {{}}}}",
            free_port()
        ));
        let (status, answer) = reload(&hbd);
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["problems"][0]["path"], format!("{section}.port"));
        let what = answer["problems"][0]["what"].as_str().unwrap();
        assert!(what.contains("is in use by another program"), "{what}");
        assert_eq!(hbd.request("GET", "/api/v1/hosts/web1", b"").0, 200);
        assert_eq!(hbd.request("GET", "/api/v1/hosts/web2", b"").0, 404);
        assert_eq!(hbd.metric("hbd_config_last_reload_successful"), 0.0);
    }
    let text = fs::read_to_string(place.config()).unwrap();
    let elsewhere = text.replace("/state\n", "/elsewhere\n");
    fs::write(place.config(), elsewhere).unwrap();
    let (status, answer) = reload(&hbd);
    assert_eq!((status, &answer["problems"][0]["path"]), (400, &Value::from("state_dir")));
    let clustered = format!("{text}cluster: {{redis_url: 'redis://127.0.0.1:6379', node: hb1}}\n");
    fs::write(place.config(), clustered).unwrap();
    let (status, answer) = reload(&hbd);
    assert_eq!((status, &answer["problems"][0]["path"]), (400, &Value::from("cluster")));
    assert!(answer["problems"][0]["what"].as_str().unwrap().contains("restart"), "{answer}");
    hbd.stop();
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let place = Place::new("heartbeat: {port: 0}\nreceiver: {port: 0}");
    let hbd = place.start();
    place.configure("hosts: {web1: {wacth: true}}\nreceiver: {port: 70000}\nheartbeat: {port: 0}");
    let (status, answer) = reload(&hbd);
    assert_eq!(status, 400);
    let problems = answer["problems"].as_array().unwrap();
    let paths: Vec<_> = problems.iter().map(|problem| problem["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["hosts.web1.wacth", "receiver.port"]);
    assert!(problems[0]["what"].as_str().unwrap().contains("did you mean \"watch\"?"));
    assert!(problems[0]["line"].is_u64());
    hbd.stop();
}

#[test]
fn a_removed_rule_ends_without_a_word_and_a_removed_host_with_one() {
    let disk = "threshold_configs: {default: {disk_monitor.root.percent: {warning: '> 80'}}}";
    let rest = "heartbeat: {port: 0}\nreceiver: {port: 0}";
    let place = Place::new(&format!("{rest}\n{disk}\nhosts: {{web1: {{}}, web2: {{}}}}"));
    let hbd = place.start();
    let full = |host: &str| {
        let metrics = r#""metrics":{"disk_monitor":{"root":{"percent":97}}}"#;
        let body = format!("{{\"host\":\"{host}\",{metrics}}}");
        assert_eq!(hbd.request("POST", "/api/v1/heartbeat", body.as_bytes()).0, 200);
        hbd.wait_log(&format!("WARNING: {host} - disk_monitor.root.percent = 97.0"));
    };
    full("web1");
    full("web2");
    place.configure(&format!("{rest}\n{disk}\nhosts: {{web2: {{}}}}"));
    assert_eq!(reload(&hbd).0, 200);
    place
        .configure(&format!("{rest}\nthreshold_configs: {{default: {{}}}}\nhosts: {{web2: {{}}}}"));
    assert_eq!(reload(&hbd).0, 200);
    assert_eq!(hbd.request("GET", "/api/v1/hosts/web1", b"").0, 404);
    let body = r#"{"host":"web2","metrics":{"disk_monitor":{"root":{"percent":1}}}}"#;
    assert_eq!(hbd.request("POST", "/api/v1/heartbeat", body.as_bytes()).0, 200);
    hbd.wait_log("Sent notification to log: web1 is no longer watched");
    let (_, sent) = hbd.request("GET", "/api/v1/notifications", b"");
    assert_eq!(sent.matches(r#""level":"warning""#).count(), 2, "{sent}");
    assert_eq!(
        sent.matches(r#""level":"ok""#).count(),
        1,
        "the host that is gone, not the rule: {sent}"
    );
    hbd.stop();
}

#[test]
fn a_refused_reload_and_a_good_one_leave_the_queue_alone() {
    let place = Place::new("");
    // Nobody listens there: the letter waits.
    let chat = format!(
        "notification_channels: {{chat: {{type: mattermost, host: 'http://127.0.0.1:{}', \
         token: abcdefghijklmnopqrstuvwxyz, channel: ops}}}}\n\
         default_notification_channels: [chat]\nheartbeat: {{port: 0}}\nreceiver: {{port: 0}}\n\
         state_dir: {}/state\n",
        free_port(),
        place.0.path().display()
    );
    let write = |rest: &str| fs::write(place.config(), format!("{chat}{rest}\n")).unwrap();
    write("hosts: {web1: {watch: true}}");
    let hbd = place.start();
    let body = br#"{"host":"web1","event":"message","message":"hello"}"#;
    assert_eq!(hbd.request("POST", "/api/v1/heartbeat", body).0, 200);
    let waits = |hbd: &Hbd| hbd.metric("hbd_outbox_deliveries") == 1.0;
    hbd.wait_until("it waits", waits);
    write("hosts: {web1: {watch: perhaps}}");
    assert_eq!(reload(&hbd).0, 400);
    assert!(waits(&hbd));
    write("hosts: {web1: {watch: true}, web2: {}}");
    assert_eq!(reload(&hbd).0, 200);
    assert!(waits(&hbd));
    hbd.stop();
}

#[test]
fn a_new_token_in_its_file_is_asked_for_at_once() {
    let place = Place::new("");
    let file = place.0.path().join("token");
    fs::write(&file, "the-first-token").unwrap();
    place.configure(&format!(
        "heartbeat: {{port: 0}}\nreceiver: {{port: 0, token_file: {}}}",
        file.display()
    ));
    let hbd = place.start();
    let status = |token: &str| {
        let mut stream = TcpStream::connect(hbd.address).unwrap();
        let head = "GET /metrics HTTP/1.0\r\nAuthorization: Bearer";
        write!(stream, "{head} {token}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((status("the-first-token"), status("the-second-one")), ("200".into(), "401".into()));
    fs::write(&file, "the-second-one").unwrap();
    hbd.signal(libc::SIGHUP);
    hbd.wait_log("receiver.token: another one");
    assert_eq!((status("the-first-token"), status("the-second-one")), ("401".into(), "200".into()));
    hbd.stop();
}

/// The certificate that is shown, and what a GET is answered.
fn over_tls(address: SocketAddr, target: &str) -> std::io::Result<(Vec<u8>, String)> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = heartbeat::tls::read_ca_file(&certificates().authority.certificate).unwrap();
    roots.add_parsable_certificates(authority);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let mut stream = rustls::StreamOwned::new(connection, socket);
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    Ok((shown, answer))
}

#[test]
fn tls_begins_changes_its_certificate_and_ends_without_a_restart() {
    let place = Place::new("heartbeat: {port: 0}\nreceiver: {port: 0}");
    let hbd = place.start();
    let (certificate, key) = (place.0.path().join("web.pem"), place.0.path().join("web.key"));
    let install = |pair: &Pair| {
        fs::copy(&pair.certificate, &certificate).unwrap();
        fs::copy(&pair.key, &key).unwrap();
    };
    let shown = |pair: &Pair| heartbeat::tls::read_ca_file(&pair.certificate).unwrap()[0].to_vec();
    install(&certificates().good);
    place.configure(
        "heartbeat: {port: 0}\n\
         receiver: {port: 0, tls: {certificate_file: web.pem, key_file: web.key}}",
    );
    let (status, answer) = reload(&hbd);
    assert_eq!(status, 200, "{answer}");
    let (first, answer) = over_tls(hbd.address, "/-/healthy").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(first, shown(&certificates().good));
    let (status, answer) = hbd.request("GET", "/-/healthy", b"");
    assert_eq!(status, 400);
    assert!(answer.contains("this port speaks HTTPS"), "{answer}");
    // A renewed one in the same files; openssl gave both pairs the same authority.
    install(&certificates().other);
    hbd.signal(libc::SIGHUP);
    hbd.wait_until("it is shown", |hbd| {
        over_tls(hbd.address, "/-/healthy").unwrap().0 == shown(&certificates().other)
    });
    // Half of a renewal: the reload is refused, and the old one is still shown.
    fs::copy(&certificates().good.key, &key).unwrap();
    hbd.signal(libc::SIGHUP);
    hbd.wait_log("does not belong to the certificate");
    assert_eq!(over_tls(hbd.address, "/-/healthy").unwrap().0, shown(&certificates().other));
    place.configure("heartbeat: {port: 0}\nreceiver: {port: 0}");
    hbd.signal(libc::SIGHUP);
    hbd.wait_log("receiver.tls: plain HTTP");
    hbd.wait_until("it is plain", |hbd| hbd.request("GET", "/-/healthy", b"").0 == 200);
    hbd.stop();
}

/// An Alertmanager without alerts, and how often it was asked.
fn alertmanager() -> (HttpDouble, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let double = HttpDouble::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        reply(200, "[]")
    });
    (double, asked)
}

#[test]
fn another_alertmanager_is_asked_as_soon_as_it_is_configured() {
    let ((first, asked_first), (second, asked_second)) = (alertmanager(), alertmanager());
    let count = |asked: &AtomicUsize| asked.load(Ordering::SeqCst);
    let text = |url: &str| {
        format!(
            "heartbeat: {{port: 0}}\n\
             receiver: {{port: 0, poll_url: '{url}', poll_interval: 5s}}"
        )
    };
    let place = Place::new(&text(&first.url));
    let hbd = place.start();
    hbd.wait_until("the first is asked", |_| count(&asked_first) > 0);
    place.configure(&text(&second.url));
    assert_eq!(reload(&hbd).0, 200);
    // Two questions of the second: the first would have been asked again meanwhile.
    hbd.wait_until("the second is asked", |_| count(&asked_second) > 1);
    assert_eq!(count(&asked_first), 1);
    hbd.stop();
}

#[test]
fn reloads_at_the_same_time_are_made_one_after_the_other() {
    let place = Place::new("heartbeat: {port: 0}\nreceiver: {port: 0}\nhosts: {h0: {}}");
    let hbd = place.start();
    let address = hbd.address;
    let asking: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                let head =
                    "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer.split(' ').nth(1).unwrap().to_owned()
            })
        })
        .collect();
    for round in 1..20 {
        place.configure(&format!(
            "heartbeat: {{port: 0}}\nreceiver: {{port: 0}}\nhosts: {{h{round}: {{}}}}"
        ));
        hbd.signal(libc::SIGHUP);
    }
    assert!(asking.into_iter().all(|thread| thread.join().unwrap() == "200"));
    hbd.wait_until("the last one counts", |hbd| {
        hbd.request("GET", "/api/v1/hosts/h19", b"").0 == 200
    });
    // At a stop they are forgotten.
    (0..10).for_each(|_| hbd.signal(libc::SIGHUP));
    hbd.stop();
}

/// What systemd would have been told, until `words` are among it.
fn told(socket: &UnixDatagram, words: &str) -> Vec<String> {
    let mut said = Vec::new();
    let end = Instant::now() + TIMEOUT;
    loop {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("something is said");
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        said.push(text.clone());
        if text.contains(words) {
            return said;
        }
        assert!(Instant::now() < end, "no {words}: {said:?}");
    }
}

#[test]
fn systemd_is_told_of_reloads_and_that_the_threads_work() {
    let place = Place::new("heartbeat: {port: 0}\nreceiver: {port: 0}");
    let path = place.0.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let environment =
        [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "4000000".into())];
    let hbd = Hbd::start_with(&place.config(), &environment);
    told(&socket, "READY=1");
    told(&socket, "WATCHDOG=1");
    hbd.signal(libc::SIGHUP);
    let said = told(&socket, "READY=1");
    let begun = said.iter().find(|text| text.starts_with("RELOADING=1\n")).unwrap();
    let (_, micros) = begun.split_once("MONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    told(&socket, "WATCHDOG=1");
    // Who is stopped makes no turns: nothing is said until it goes on.
    hbd.signal(libc::SIGSTOP);
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut buffer = [0; 100];
    while socket.recv(&mut buffer).is_ok() {}
    hbd.signal(libc::SIGCONT);
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    told(&socket, "WATCHDOG=1");
    hbd.signal(libc::SIGTERM);
    told(&socket, "STOPPING=1");
    hbd.stop();
}

/// Lets the daemon, which runs as this user, start no further thread; root is never limited so.
/// From now on it can start no thread. Those that it has wait for work before: one of a pool that has
/// not come so far would be taken for busy, and another one started in its place.
fn forbid_threads(hbd: &Hbd, user: u32) {
    use std::os::unix::process::CommandExt;
    hbd.wait_until("all of its threads wait", |hbd| {
        let tasks = fs::read_dir(format!("/proc/{}/task", hbd.id())).unwrap();
        // The state is behind the name, which is in parentheses (proc_pid_stat(5)).
        let state = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
        tasks.flatten().filter_map(state).all(|stat| stat.contains(") S "))
    });
    let process = hbd.id().to_string();
    let done = std::process::Command::new("prlimit")
        .args(["--pid", &process, "--nproc=1"])
        .uid(user)
        .gid(user)
        .status()
        .expect("prlimit is there: the package util-linux");
    assert!(done.success());
}

#[test]
fn an_agent_that_cannot_be_started_is_said_and_a_port_that_cannot_be_opened_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let rest = "heartbeat: {port: 0}\nreceiver: {port: 0}";
    let place = Place::new(&format!("{rest}\nhosts: {{web1: {{}}}}"));
    let program = place.0.path().join("hbd");
    fs::copy(env!("CARGO_BIN_EXE_hbd"), &program).unwrap();
    let open = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    };
    open(place.0.path());
    open(&place.config());
    let mut command = std::process::Command::new(&program);
    command.uid(NOBODY).gid(NOBODY).env("TMPDIR", place.0.path()).env("HOME", place.0.path());
    let hbd = Hbd::start_by(command, &place.config());
    forbid_threads(&hbd, NOBODY);
    place.configure(&format!("{rest}\nhosts: {{web2: {{}}}}\nagent: {{enabled: true, host: own}}"));
    hbd.reload();
    hbd.wait_log("agent: this machine is not watched");
    // Another port needs a thread.
    let heartbeat = format!("heartbeat: {{port: {}}}", free_port());
    place.configure(&format!("{heartbeat}\nreceiver: {{port: 0}}\nhosts: {{web3: {{}}}}"));
    hbd.reload();
    hbd.wait_log("heartbeat.port: ");
    hbd.wait_log("the configuration was not reloaded: the old one stays");
    let (_, hosts) = hbd.request("GET", "/api/v1/hosts", b"");
    assert!(hosts.contains("web2") && !hosts.contains("web3"), "{hosts}");
    assert!(hbd.metric("hbd_config_last_reload_successful") < 0.5);
    hbd.stop();
}
