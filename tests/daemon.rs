//! The daemon as an operator runs it: the example as it stands, reload, a second one, damage, junk.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[path = "support/clock.rs"]
mod clock;
#[path = "support/preload.rs"]
mod preload;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A directory with a configuration and a state.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(hosts: &str) -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap() };
        place.configure(hosts);
        place
    }

    fn configure(&self, hosts: &str) {
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n\
             heartbeat: {{port: 0}}\nreceiver: {{port: 0}}\nstate_dir: {}\nhosts: {hosts}\n",
            self.state().display()
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }
}

/// A daemon that runs, and its log line by line.
struct Daemon {
    child: Child,
    log: Receiver<String>,
    seen: Vec<String>,
    udp: SocketAddr,
    http: SocketAddr,
}

fn spawn_by(mut command: Command, config: &Path) -> (Child, Receiver<String>) {
    let mut child =
        command.args(["run", "--config"]).arg(config).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (tx, rx) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tx.send(line)));
    (child, rx)
}

impl Daemon {
    fn start(config: &Path) -> Daemon {
        Daemon::start_by(Command::new(env!("CARGO_BIN_EXE_hbd")), config)
    }

    fn start_by(command: Command, config: &Path) -> Daemon {
        let (child, log) = spawn_by(command, config);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut daemon = Daemon { child, log, seen: Vec::new(), udp: nowhere, http: nowhere };
        let ready = daemon.wait_for("is ready");
        let address = |after: &str| {
            let rest = ready.split(after).nth(1).unwrap();
            rest.split(',').next().unwrap().parse().unwrap()
        };
        (daemon.udp, daemon.http) = (address("UDP "), address("HTTP on "));
        daemon
    }

    /// The next line of the log with these words.
    fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(why) => panic!("no {words:?} in the log ({why}): {:#?}", self.seen),
            }
        }
    }

    /// The same, also when it was written before the daemon was ready.
    fn wait_for_once(&mut self, words: &str) {
        if !self.seen.iter().any(|line| line.contains(words)) {
            self.wait_for(words);
        }
    }

    /// Whether a line of the log so far has these words.
    fn has_said(&mut self, words: &str) -> bool {
        self.seen.extend(self.log.try_iter());
        self.seen.iter().any(|line| line.contains(words))
    }

    fn beat(&self, json: &str) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(json.as_bytes(), self.udp).unwrap();
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Asks until the answer has these words.
    fn get_until(&self, path: &str, words: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let answer = self.get(path);
            if answer.contains(words) {
                return answer;
            }
            assert!(Instant::now() < deadline, "no {words:?} in {answer}");
        }
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: the process is our child and was not waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn stop(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unix_millis() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i128
}

/// The time at the head of a line of the log, in milliseconds since 1970.
fn time_of(line: &str) -> i128 {
    let stamp = line.split(' ').next().unwrap();
    let time = humantime::parse_rfc3339(stamp).unwrap();
    time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i128
}

/// Milliseconds from the deadline of a beat to the line of the log that tells of it.
fn lateness(daemon: &mut Daemon) -> i128 {
    let sent = unix_millis();
    daemon.beat(r#"{"host":"web1","interval":1}"#);
    daemon.get_until("/api/v1/hosts", r#""name":"web1","watch":true,"state":"UP""#);
    let line = daemon.wait_for("ERROR web1 ipv4 overdue");
    let late = time_of(&line) - sent - 2000;
    // That it is back is no longer told of one that comes and goes: it flaps.
    daemon.beat(r#"{"host":"web1","interval":1}"#);
    daemon.get_until("/api/v1/hosts", r#""name":"web1","watch":true,"state":"UP""#);
    late
}

#[test]
fn the_example_as_it_stands_tells_of_a_silent_host_within_100_ms() {
    let place = Place { directory: tempfile::tempdir().unwrap() };
    let example = fs::read_to_string("heartbeat.yaml.example").unwrap();
    let example = example
        .replace("#heartbeat:\n", "heartbeat:\n  port: 0\n")
        .replace("#receiver:\n", "receiver:\n  port: 0\n")
        .replace("    watch: true\n", "    watch: true\n    grace: 1s\n");
    let state = format!("{example}\nstate_dir: {}\n", place.state().display());
    fs::write(place.config(), state).unwrap();
    let mut daemon = Daemon::start(&place.config());
    daemon.get_until("/api/v1/hosts", r#""connections":[{"name":"local","state":"UP""#);
    // The machine may be busy with other things: three tries, the best counts.
    let late = (0..3).map(|_| lateness(&mut daemon)).min().unwrap();
    assert!((-1..=100).contains(&late), "{late} ms late");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_reload_takes_up_what_is_good_and_refuses_what_is_not() {
    let place = Place::new("{web1: {watch: true, interval: 1s, grace: 60s}}");
    let mut daemon = Daemon::start(&place.config());
    daemon.beat(r#"{"host":"web1"}"#);
    daemon.get_until("/api/v1/hosts", r#""state":"UP""#);
    place.configure("{web1: {watch: perhaps}}");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("hosts.web1.watch");
    daemon.wait_for("the old one stays");
    daemon.get_until("/metrics", "hbd_config_last_reload_successful 0");
    place.configure("{web1: {watch: true, interval: 1s, grace: 0s}, web2: {watch: true}}");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("web1 ipv4 overdue");
    assert!(daemon.get("/metrics").contains("hbd_config_last_reload_successful 1"));
    assert!(daemon.get("/api/v1/hosts/web2").contains(r#""state":"NEW""#));
    daemon.beat(r#"{"host":"web2","event":"message","message":"hello"}"#);
    daemon.wait_for("web2 hello");
}

#[test]
fn a_second_daemon_on_the_same_state_is_told_who_holds_it() {
    let place = Place::new("{web1: {watch: true}}");
    let first = Daemon::start(&place.config());
    let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
        .args(["run", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains(&format!("pid {}", first.child.id())), "{why}");
}

#[test]
fn a_refused_configuration_ends_with_78_and_all_problems() {
    let place = Place::new("{web1: {wacth: true}, web2: {watch: true, grace: soon}}");
    let output = Command::new(env!("CARGO_BIN_EXE_hbd"))
        .args(["run", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("did you mean \"watch\"?") && why.contains("web2.grace"), "{why}");
}

#[test]
fn a_damaged_state_is_moved_aside_and_told() {
    let place = Place::new("{web1: {watch: true}}");
    fs::create_dir(place.state()).unwrap();
    fs::write(place.state().join("heartbeat.redb"), "junk of no format").unwrap();
    let mut daemon = Daemon::start(&place.config());
    daemon.wait_for_once("hbd could not read its state and began anew");
    let kept = fs::read_dir(place.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("heartbeat.redb.damaged-"))
        .unwrap();
    assert_eq!(fs::read(place.state().join(kept)).unwrap(), b"junk of no format");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_disk_that_refuses_is_told_and_what_happened_meanwhile_is_kept_when_it_heals() {
    let place = Place::new("{web1: {watch: true}}");
    // A file where the state's directory should be: nobody, not even root, can write below it.
    fs::write(place.state(), "").unwrap();
    let mut daemon = Daemon::start(&place.config());
    daemon.wait_for_once("hbd cannot write its state to disk");
    daemon.beat(r#"{"host":"web1","event":"boot","boot_id":"a"}"#);
    daemon.wait_for("web1 booted");
    assert!(daemon.get("/-/ready").contains("503"));
    fs::remove_file(place.state()).unwrap();
    daemon.wait_for("hbd writes its state to disk again");
    daemon.get_until("/-/ready", "200");
    assert_eq!(daemon.stop().code(), Some(0));
    let daemon = Daemon::start(&place.config());
    assert!(daemon.get("/api/v1/hosts/web1").contains(r#""name":"ipv4""#));
}

#[test]
fn junk_on_every_port_disturbs_nothing() {
    let place = Place::new("{web1: {watch: true}}");
    let mut daemon = Daemon::start(&place.config());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in (0..9000).step_by(97) {
        let junk: Vec<u8> = (0..length).map(|n: usize| (n * 31 + length) as u8).collect();
        socket.send_to(&junk, daemon.udp).unwrap();
        let mut stream = TcpStream::connect(daemon.http).unwrap();
        // It may have been closed on us already.
        let _ = stream.write_all(&junk);
    }
    daemon.beat(r#"{"host":"web1","event":"message","message":"still here"}"#);
    daemon.wait_for("web1 still here");
    daemon.get_until("/-/healthy", "200");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_minute_in_which_the_daemon_was_stopped_is_nobodys_silence() {
    let place = Place::new("{web1: {watch: true, interval: 1s, grace: 1s}}");
    let mut daemon = Daemon::start(&place.config());
    daemon.beat(r#"{"host":"web1"}"#);
    daemon.get_until("/api/v1/hosts", r#""state":"UP""#);
    daemon.signal(libc::SIGSTOP);
    let stopped = Instant::now();
    // What is waited for is the passing of time itself.
    let (_tx, never) = channel::<()>();
    let _ = never.recv_timeout(Duration::from_secs(5));
    daemon.signal(libc::SIGCONT);
    daemon.wait_for("hbd was asleep for");
    daemon.beat(r#"{"host":"web1"}"#);
    let back = Instant::now();
    daemon.wait_for("web1 ipv4 overdue");
    assert!(back.elapsed() >= Duration::from_millis(1900), "{:?}", back.elapsed());
    assert!(stopped.elapsed() >= Duration::from_secs(5));
    let overdue = daemon.seen.iter().filter(|line| line.contains("overdue")).count();
    assert_eq!(overdue, 1, "{:#?}", daemon.seen);
}

/// A datagram, signed as a shell would do it.
fn signed(key: &str, json: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-r", "-hmac", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(json.as_bytes()).unwrap();
    let digest = openssl.wait_with_output().unwrap().stdout;
    format!("{} {json}", std::str::from_utf8(&digest[..64]).unwrap())
}

/// A beat of the host, by our own clock, moved by so many milliseconds.
fn beat_at(key: &str, host: &str, moved: i128) -> String {
    let millis = unix_millis() + moved;
    let time = format!("{}.{:03}", millis / 1000, millis % 1000);
    signed(key, &format!(r#"{{"host":"{host}","time":{time}}}"#))
}

/// Whether the daemon believes the datagram.
fn is_heard(daemon: &Daemon, datagram: &str) -> bool {
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let length = datagram.len();
    write!(stream, "POST /api/v1/heartbeat HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{datagram}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 ") || answer.contains("time"), "{answer}");
    answer.contains(" 200 ")
}

#[test]
fn a_clock_that_was_set_under_a_running_daemon_did_silence_its_only_signed_host() {
    let place =
        Place::new("{web1: {watch: true, key: a-key-of-some-length, interval: 2s, grace: 2s}}");
    let shift = place.directory.path().join("shift");
    let set = |seconds: i64| fs::write(&shift, seconds.to_string()).unwrap();
    set(0);
    let mut daemon = Daemon::start_by(clock::hbd_ahead_by(&shift), &place.config());
    let mut heard: Vec<String> = Vec::new();
    for (seconds, restart) in
        [(0, false), (3600, false), (-3600, false), (0, false), (7200, true), (-86_400, true)]
    {
        assert!(!daemon.has_said("overdue"), "{:#?}", daemon.seen);
        set(seconds);
        if restart {
            daemon.signal(libc::SIGTERM);
            daemon.child.wait().unwrap();
            daemon = Daemon::start_by(clock::hbd_ahead_by(&shift), &place.config());
        }
        for _ in 0..2 {
            let beat = beat_at("a-key-of-some-length", "web1", 0);
            assert!(is_heard(&daemon, &beat), "{seconds}: {:#?}", daemon.seen);
            heard.push(beat);
            for echo in &heard {
                assert!(!is_heard(&daemon, echo), "{seconds}: an echo");
            }
        }
    }
    assert!(!daemon.has_said("overdue"), "{:#?}", daemon.seen);
    // Its own clock is wrong, and nothing says whose it is.
    set(0);
    assert!(is_heard(&daemon, &beat_at("a-key-of-some-length", "web1", 0)));
    let beginning = Instant::now();
    while !daemon.has_said("overdue") {
        assert!(beginning.elapsed() < TIMEOUT, "{:#?}", daemon.seen);
        daemon.beat(&beat_at("a-key-of-some-length", "web1", 4 * 3_600_000));
        if let Ok(line) = daemon.log.recv_timeout(Duration::from_millis(500)) {
            daemon.seen.push(line);
        }
    }
    let words = "overdue (last seen: ";
    let told = daemon.seen.iter().find(|line| line.contains(words)).unwrap();
    assert!(
        told.contains("clock: its datagrams come, but its clock and ours differ by 4 h"),
        "{told}"
    );
    daemon.stop();
}

fn hbd(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hbd")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_key_is_changed_without_an_outage_and_nobody_is_forgotten() {
    let place = Place::new("{}");
    let made = |file: &str| {
        let path = place.directory.path().join(file);
        let (code, said) = hbd(&["key", "web1", "--write", path.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("key_file: {}\n", path.display())), "{said}");
        fs::read_to_string(path).unwrap().trim().to_owned()
    };
    let (old, new) = (made("old.key"), made("new.key"));
    let beat = |daemon: &Daemon, key: &str| {
        let time = unix_millis() as f64 / 1000.0;
        daemon.beat(&signed(key, &format!(r#"{{"host":"web1","interval":60,"time":{time}}}"#)));
    };
    place.configure("{web1: {watch: true, key_file: old.key}}");
    let mut daemon = Daemon::start(&place.config());
    let status = |daemon: &Daemon| {
        let url = format!("http://{}", daemon.http);
        hbd(&["key", "--status", "--url", &url])
    };
    beat(&daemon, &old);
    daemon.get_until("/api/v1/hosts", r#""state":"UP""#);
    assert_eq!(status(&daemon), (Some(0), "nobody signs with a previous key\n".into()));

    place.configure("{web1: {watch: true, key_file: new.key, previous_key_file: old.key}}");
    daemon.signal(libc::SIGHUP);
    daemon.get_until("/api/v1/hosts", r#""old_key":true"#);
    beat(&daemon, &old);
    daemon.wait_for("web1 ipv4 still signs with the previous key");
    let (code, said) = status(&daemon);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("web1 ipv4 signs with the previous key, last heard 2"), "{said}");
    let metrics = daemon.get("/metrics");
    assert!(metrics.contains("hbd_connection_old_key{host=\"web1\",connection=\"ipv4\"} 1"));

    beat(&daemon, &new);
    daemon.wait_for("web1 ipv4 signs with its new key");
    assert_eq!(status(&daemon).0, Some(0));
    place.configure("{web1: {watch: true, key_file: new.key}}");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("the configuration was reloaded");
    beat(&daemon, &old);
    let refused = r#"hbd_datagrams_rejected_total{reason="bad_signature"} 1"#;
    daemon.get_until("/metrics", refused);
    let (code, said) = hbd(&["key", "web1", "--config", place.config().to_str().unwrap()]);
    assert_eq!(code, Some(0));
    assert!(said.contains("There is a key already"), "{said}");
    let line = said.lines().find(|line| line.starts_with("key: ")).unwrap();
    assert!(!said.contains(&new) && line.len() == 5 + 64, "{said}");
}

impl Place {
    /// The configuration with so much more.
    fn add(&self, more: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), text + more).unwrap();
    }
}

#[test]
fn the_daemon_watches_its_own_machine() {
    let limits = "threshold_configs: {default: {uptime_monitor.seconds: {warning: \"> 0\"}}}\n";
    let place = Place::new("{}");
    place.add("agent: {enabled: true, host: here, interval: 1s, without: [disk_monitor]}\n");
    place.add(limits);
    let mut daemon = Daemon::start(&place.config());
    daemon.wait_for_once("this machine is watched as here");
    daemon.wait_for_once("WARNING: here - uptime_monitor.seconds = ");
    let shown = daemon.get_until("/api/v1/hosts/here", r#""path":"cpu_monitor.cpu_percent""#);
    assert!(shown.contains(r#""state":"UP""#) && shown.contains(r#""name":"local""#), "{shown}");
    assert!(shown.contains("memory_monitor.percent") && !shown.contains("disk_monitor"), "{shown}");
    assert_eq!(daemon.stop().code(), Some(0));

    let mut daemon = Daemon::start(&place.config());
    daemon.get_until("/api/v1/hosts/here", r#""path":"cpu_monitor.cpu_percent""#);
    let told = |daemon: &Daemon| daemon.seen.iter().any(|line| line.contains("WARNING: here"));
    assert!(!told(&daemon), "it was told already");
    place.configure("{}");
    place.add("agent: {enabled: false}\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("the configuration was reloaded");
    assert!(daemon.get("/api/v1/hosts/here").contains("404"));
    place.configure("{}");
    place.add("agent: {enabled: true, host: there, interval: 1s}\n");
    daemon.signal(libc::SIGHUP);
    daemon.get_until("/api/v1/hosts/there", r#""state":"UP""#);
    assert!(!daemon.seen.iter().any(|line| line.contains("overdue")), "{:#?}", daemon.seen);
    assert_eq!(daemon.stop().code(), Some(0));
}
