//! hbc and hbd over a network that loses, delays and is cut: two namespaces with two paths.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

mod support {
    pub mod hbd;
    #[allow(dead_code, reason = "hbd.rs takes one word of it")]
    pub mod http_double;
    pub mod network;
}

use support::hbd::{Hbd, TIMEOUT};
use support::network::{LAN, Network, VPN};

const SECOND: Duration = Duration::from_secs(1);

/// A running agent.
struct Hbc {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Hbc {
    fn start(mut command: Command, arguments: &[&str]) -> Hbc {
        let mut child = command
            .arg("run")
            .args(arguments)
            .env_remove("HBC_LOG")
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                shared.0.lock().unwrap().push(line);
                shared.1.notify_all();
            }
        });
        Hbc { child, log }
    }

    fn wait_log(&self, words: &str) {
        let end = Instant::now() + TIMEOUT;
        let mut lines = self.log.0.lock().unwrap();
        while !lines.iter().any(|line| line.contains(words)) {
            let left = end.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("no {words:?} in {lines:#?}"));
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn count(&self, words: &str) -> usize {
        self.log.0.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Stops it by a signal; how it ended.
    fn stop(mut self, signal: i32) -> Option<i32> {
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(self.pid(), signal) };
        self.child.wait().unwrap().code()
    }
}

impl Drop for Hbc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two machines, with hbd on one of them.
struct Play {
    hbd: Option<Hbd>,
    network: Network,
    config: PathBuf,
    key: PathBuf,
}

impl Play {
    /// `grace` is how late a beat may be.
    fn new(grace: &str) -> Play {
        let network = Network::new();
        let directory = network.directory().to_owned();
        let config = directory.join("heartbeat.yaml");
        let key = directory.join("key");
        std::fs::write(&key, "hunter22hunter22\n").unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n\
             hosts: {{web1: {{watch: true}}}}\n\
             receiver: {{port: 0}}\n\
             state_dir: {}\n\
             heartbeat: {{host: {}, port: {}, key_file: key, grace: {grace}}}\n",
            directory.join("state").display(),
            network.hbd.ip(),
            network.hbd.port(),
        );
        std::fs::write(&config, text).unwrap();
        let hbd = Some(start_hbd(&network, &config));
        Play { hbd, network, config, key }
    }

    fn hbd(&self) -> &Hbd {
        self.hbd.as_ref().unwrap()
    }

    fn server(&self, path: usize) -> String {
        format!("{}:9098", self.network.servers[path])
    }

    /// A configuration of three lines, and `more`.
    fn configure(&self, server: &str, more: &str) -> PathBuf {
        let file = self.network.directory().join("hbc.yaml");
        let text =
            format!("server: {server}\nkey_file: {}\nhost: web1\n{more}\n", self.key.display());
        std::fs::write(&file, text).unwrap();
        file
    }

    /// An agent that beats over both paths.
    fn agent(&self, interval: &str, vpn: &str) -> Hbc {
        let connections =
            format!("connections: {{vpn: {{{vpn}, server: '{}'}}}}", self.server(VPN));
        let more = format!("interval: {interval}\n{connections}");
        let config = self.configure(&self.server(LAN), &more);
        let hbc = self.start(&config);
        for connection in ["ipv4", "vpn"] {
            hbc.wait_log(&format!(" {connection}: "));
        }
        hbc
    }

    fn start(&self, config: &Path) -> Hbc {
        let command = self.network.on_the_client(env!("CARGO_BIN_EXE_hbc"));
        Hbc::start(command, &["--config", config.to_str().unwrap()])
    }

    fn source(&self) -> String {
        format!("source: {}", self.network.clients[VPN])
    }

    fn request(&self, target: &str) -> String {
        let hbd = self.hbd();
        self.network.ask(|| hbd.request("GET", target, b"").1)
    }

    /// The last value of a metric of web1.
    fn metric(&self, path: &str) -> Option<f64> {
        let answer = self.request("/api/v1/hosts/web1");
        let (_, rest) = answer.split_once(&format!("\"path\":\"{path}\",\"value\":"))?;
        rest.split([',', '}']).next()?.parse().ok()
    }

    /// Waits until hbd has believed `more` datagrams.
    fn wait_beats(&self, more: f64) {
        let hbd = self.hbd();
        let beats = || self.network.ask(|| hbd.metric("hbd_datagrams_accepted_total"));
        let enough = beats() + more;
        wait_until("enough beats", || beats() >= enough);
    }

    /// What people were told, with the levels of the log.
    fn told(&self) -> Vec<String> {
        let lines = self.hbd().log();
        let event = |line: &String| {
            let (_, rest) = line.split_once("Z ")?;
            let (level, what) = rest.split_at_checked(6)?;
            let what = what.strip_prefix("web1 ")?;
            let what = what.split(['(', '[']).next().unwrap_or_default().trim();
            Some(format!("{} {what}", level.trim()))
        };
        lines.iter().filter_map(event).collect()
    }
}

fn start_hbd(network: &Network, config: &Path) -> Hbd {
    Hbd::start_by(network.on_the_server(env!("CARGO_BIN_EXE_hbd")), config)
}

impl Drop for Play {
    fn drop(&mut self) {
        // Before its network.
        self.hbd = None;
    }
}

#[test]
fn one_path_down_is_a_warning_both_are_critical_and_each_returns() {
    let play = Play::new("4s");
    let vpn = format!("interface: {}", play.network.interface(VPN));
    let hbc = play.agent("500ms", &vpn);
    play.network.cut(VPN, true);
    play.hbd().wait_log("web1 vpn overdue");
    play.network.cut(LAN, true);
    play.hbd().wait_log("web1 ipv4 overdue");
    play.network.cut(LAN, false);
    play.hbd().wait_log("web1 ipv4 is back");
    play.network.cut(VPN, false);
    play.hbd().wait_log("web1 vpn is back");
    assert_eq!(
        play.told(),
        ["WARN vpn overdue", "ERROR ipv4 overdue", "INFO ipv4 is back", "INFO vpn is back"]
    );
    assert_eq!(hbc.stop(libc::SIGTERM), Some(0));
    play.hbd().wait_log("web1 ipv4 shutdown");
    play.hbd().wait_log("web1 vpn shutdown");
    assert_eq!(play.told().len(), 6, "{:?}", play.told());
}

#[test]
fn a_network_that_loses_a_fifth_invents_nothing() {
    let play = Play::new("5s");
    for path in [LAN, VPN] {
        play.network.weather(path, 20, Duration::from_millis(40));
    }
    let hbc = play.agent("300ms", &play.source());
    // Both figures are of a whole window then, which is 100 datagrams.
    let full = Instant::now() + 25 * SECOND;
    let figure = |path: &str| play.metric(path).unwrap_or(-1.0);
    wait_until("a window is full", || Instant::now() >= full);
    for connection in ["ipv4", "vpn"] {
        let loss = figure(&format!("connection_monitor.{connection}.loss_percent"));
        assert!((15.0..60.0).contains(&loss), "{connection}: {loss}, about 36 is right");
        let rtt = figure(&format!("connection_monitor.{connection}.rtt_ms"));
        assert!((80.0..2000.0).contains(&rtt), "{connection}: {rtt}, 80 and more is right");
    }
    assert!(figure("connection_monitor.loss_percent") >= 15.0);
    assert_eq!(hbc.count("has not answered"), 0);
    assert_eq!(hbc.stop(libc::SIGTERM), Some(0));
    for connection in ["ipv4", "vpn"] {
        play.hbd().wait_log(&format!("web1 {connection} shutdown"));
    }
    assert_eq!(play.told().len(), 2, "{:?}", play.told());
}

#[test]
fn an_agent_that_is_killed_or_restarted_and_a_daemon_that_is_restarted_tell_nothing() {
    let mut play = Play::new("15s");
    let hbc = play.agent("300ms", &play.source());
    assert_eq!(hbc.stop(libc::SIGKILL), None);
    let hbc = play.agent("300ms", &play.source());
    assert_eq!(hbc.stop(libc::SIGUSR1), Some(0));
    let hbc = play.agent("300ms", &play.source());
    for _ in 0..2 {
        play.hbd.take().unwrap().stop();
        play.hbd = Some(start_hbd(&play.network, &play.config));
        play.wait_beats(10.0);
        assert_eq!(play.told(), [""; 0]);
    }
    drop(hbc);
    // It sent no shutdown.
    play.hbd().wait_log("web1 vpn overdue");
    play.hbd().wait_log("web1 ipv4 overdue");
    assert_eq!(play.told().len(), 2);
}

#[test]
fn a_server_that_does_not_answer_is_logged_once_and_so_is_its_return() {
    let play = Play::new("10m");
    let config = play.configure(&play.server(LAN), "interval: 200ms");
    play.network.cut(LAN, true);
    let hbc = play.start(&config);
    hbc.wait_log("has not answered for 10 s");
    play.network.cut(LAN, false);
    hbc.wait_log("answers again");
    // A connection that has answered is reported later.
    play.network.cut(LAN, true);
    let end = Instant::now() + 45 * SECOND;
    wait_until("it is silent again", || hbc.count("has not answered") == 2 || Instant::now() > end);
    play.network.cut(LAN, false);
    wait_until("it answers again", || hbc.count("answers again") == 2);
    play.wait_beats(20.0);
    assert_eq!((hbc.count("has not answered"), hbc.count("answers again")), (2, 2));
}

#[test]
fn a_name_that_moves_is_followed() {
    let play = Play::new("20s");
    let [lan, vpn] = &play.network.servers;
    play.network.write("hosts", &format!("127.0.0.1 localhost\n{lan} hbd.test\n"));
    play.network.write("resolv.conf", "");
    let config = play.configure("hbd.test:9098", "interval: 300ms");
    let command = play.network.with_etc(env!("CARGO_BIN_EXE_hbc"));
    let hbc = Hbc::start(command, &["--config", config.to_str().unwrap()]);
    hbc.wait_log(&format!("hbd.test:9098 ({lan}:9098) answers"));
    play.network.cut(LAN, true);
    play.network.write("hosts", &format!("127.0.0.1 localhost\n{vpn} hbd.test\n"));
    play.wait_beats(10.0);
    // A resolver that dies takes nothing away.
    play.network.write("hosts", "127.0.0.1 localhost\n");
    play.wait_beats(20.0);
    assert_eq!(play.told(), [""; 0]);
}

#[test]
fn a_name_that_nobody_answers_for_keeps_nobody_waiting() {
    let play = Play::new("10s");
    // No name server is there: the resolver waits for its timeouts, five seconds and more.
    play.network.write("resolv.conf", &format!("nameserver {}\n", play.network.nobody()));
    play.network.write("hosts", "127.0.0.1 localhost\n");
    let directory = play.network.directory();
    let config = directory.join("hbc.yaml");
    let text = format!(
        "servers: [hbd.test, '{}']\nkey_file: key\nhost: web1\ninterval: 200ms\n",
        play.server(LAN)
    );
    std::fs::write(&config, text).unwrap();
    let command = play.network.with_etc(env!("CARGO_BIN_EXE_hbc"));
    let begun = Instant::now();
    let hbc = Hbc::start(command, &["--config", config.to_str().unwrap()]);
    play.wait_beats(20.0);
    assert!(begun.elapsed() < TIMEOUT);
    hbc.wait_log("hbd.test:9099: ");
    play.wait_beats(40.0);
    assert_eq!(play.told(), [""; 0]);
    assert_eq!(hbc.count("WARN"), 1);
}

#[test]
fn a_path_that_cannot_be_taken_is_explained_once_and_disturbs_nobody() {
    let play = Play::new("10s");
    let others = "connections: {vpn: {source: 192.0.2.77}, wire: {interface: nosuch0}}";
    let config = play.configure(&play.server(LAN), &format!("interval: 200ms\n{others}"));
    let hbc = play.start(&config);
    hbc.wait_log("ipv4: ");
    hbc.wait_log("this machine does not have the address 192.0.2.77 now");
    hbc.wait_log("there is no interface nosuch0 now");
    if play.network.give_client("192.0.2.77", LAN) {
        hbc.wait_log(&format!("vpn: {0} answers again", play.server(LAN)));
    }
    play.wait_beats(20.0);
    assert_eq!(hbc.count("WARN"), 2);
    assert_eq!(play.told(), [""; 0]);
}

#[test]
fn a_server_whose_name_comes_later_is_found() {
    let play = Play::new("10s");
    play.network.write("hosts", "127.0.0.1 localhost\n");
    play.network.write("resolv.conf", "");
    let config = play.configure("hbd.test:9098", "interval: 1d");
    let command = play.network.with_etc(env!("CARGO_BIN_EXE_hbc"));
    let hbc = Hbc::start(command, &["--config", config.to_str().unwrap()]);
    hbc.wait_log("hbd.test:9098: hbd.test cannot be resolved");
    let lan = &play.network.servers[LAN];
    play.network.write("hosts", &format!("127.0.0.1 localhost\n{lan} hbd.test\n"));
    // Long before the next beat.
    hbc.wait_log("hbd.test:9098: there is a way to it now");
    hbc.wait_log("answers");
    assert_eq!(hbc.count("WARN"), 1);
}

#[test]
fn threads_and_memory_stay_while_servers_come_and_go() {
    let play = Play::new("10m");
    let more = format!(
        "connections: {{vpn: {{server: '{}'}}, dead: {{source: 192.0.2.77}}}}\ninterval: 50ms",
        play.server(VPN)
    );
    let config = play.configure(&play.server(LAN), &more);
    play.network.write("hosts", "127.0.0.1 localhost\n");
    play.network.write("resolv.conf", "");
    let hbc = play.start(&config);
    hbc.wait_log("vpn: ");
    let mut sizes = Vec::new();
    for round in 0..6 {
        for cut in [true, false] {
            play.network.cut(VPN, cut);
            play.wait_beats(60.0);
        }
        sizes.push(status(hbc.pid()));
        assert_eq!(sizes[0].0, sizes[round].0, "threads: {sizes:?}");
    }
    let grown = sizes[5].1 - sizes[1].1;
    assert!(grown < 300, "it grew by {grown} KB: {sizes:?}");
}

/// Threads, and resident memory in KB (proc(5), status).
fn status(pid: i32) -> (i64, i64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (value("Threads:"), value("VmRSS:"))
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + 2 * TIMEOUT;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::park_timeout(Duration::from_millis(50));
    }
}
