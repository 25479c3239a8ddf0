//! The commands as an operator types them: mistakes and what is said of them, and what `hbd reload`,
//! `hbd status`, `hbd log`, `hbd key` and `hbd names` do with a daemon and its configuration.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod hbd;
    pub mod http_double;
}

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use support::hbd::Hbd;

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    error: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Ended { code, out: text(output.stdout), error: text(output.stderr) }
    }
}

/// A directory with a configuration and a state, and ports of its own: the configuration says where
/// the daemon is.
struct Place {
    directory: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new(hosts: &str) -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap(), port: free_port() };
        place.configure(hosts);
        place
    }

    fn configure(&self, hosts: &str) {
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             state_dir: {}\nreceiver:\n  port: {}\nheartbeat: {{port: {}}}\nhosts: {hosts}\n",
            self.path("state").display(),
            self.port,
            self.port,
        );
        self.write("heartbeat.yaml", &text);
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// Adds to the configuration.
    fn add(&self, more: &str) {
        let text = fs::read_to_string(self.path("heartbeat.yaml")).unwrap();
        self.write("heartbeat.yaml", &(text + more));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&self) -> Hbd {
        Hbd::start(&self.path("heartbeat.yaml"))
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env("HBD_CONFIG", self.path("heartbeat.yaml")).env("TZ", "UTC0");
        command.env_remove("HBD_TOKEN").env_remove("HBC_CONFIG");
        command
    }

    /// What `hbd` says to the words of a line, of which quoted ones are one.
    fn hbd(&self, line: &str) -> Ended {
        let words = words(line);
        self.command(env!("CARGO_BIN_EXE_hbd"), &words).output().unwrap().into()
    }

    fn hbc(&self, line: &str) -> Ended {
        self.command(env!("CARGO_BIN_EXE_hbc"), &words(line)).output().unwrap().into()
    }
}

fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split(' ').filter(|word| !word.is_empty()).collect(),
            _ => vec![part],
        })
        .collect()
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

fn beat(hbd: &Hbd, json: &str) {
    let (status, answer) = hbd.request("POST", "/api/v1/heartbeat", json.as_bytes());
    assert_eq!(status, 200, "{json}: {answer}");
}

/// Of each mistake: how the command ends, and the one line that it says.
fn assert_said(found: impl Iterator<Item = (String, (i32, String), (i32, String))>) {
    let wrong: Vec<String> = found
        .filter(|(_, said, expected)| said != expected)
        .map(|(line, said, expected)| {
            format!("{line}\n  said     {said:?}\n  expected {expected:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_mistake_in_a_command_is_told_in_one_line_with_its_remedy() {
    let place = Place::new("{web1: {watch: true}, web2: {watch: true}}");
    let found = MISTAKES_IN_COMMANDS.iter().map(|(line, code, words)| {
        let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
        let ended = if program == "hbd" { place.hbd(rest) } else { place.hbc(rest) };
        let said = ended.error.replace(&format!("127.0.0.1:{}", place.port), "HERE");
        (line.to_string(), (ended.code, said), (*code, format!("{words}\n")))
    });
    assert_said(found);
}

const MISTAKES_IN_COMMANDS: &[(&str, i32, &str)] = &[
    ("hbd", 2, "hbd: a command is missing; see hbd --help"),
    ("hbd stauts", 2, "hbd: there is no command \"stauts\", did you mean \"status\"?"),
    ("hbd help stauts", 2, "hbd: there is no command \"stauts\", did you mean \"status\"?"),
    ("hbc help sned", 2, "hbc: there is no command \"sned\", did you mean \"send\"?"),
    ("hbd --versoin", 2, "hbd: there is no option --versoin, did you mean --version?"),
    ("hbd status --josn", 2, "hbd status: there is no option --josn, did you mean --json?"),
    ("hbd status --json=yes", 2, "hbd status: --json takes no value; see hbd status --help"),
    ("hbd status web1 web2", 2, "hbd status: \"web2\" is one word too many; see hbd status --help"),
    (
        "hbd status --color red",
        2,
        "hbd status: --color must be auto, always or never, not \"red\"; see hbd status --help",
    ),
    (
        "hbd status --watch",
        2,
        "hbd status: --watch needs a terminal: without one, call hbd status again; see hbd status --help",
    ),
    (
        "hbd status --url",
        2,
        "hbd status: --url: a value is missing behind it; see hbd status --help",
    ),
    (
        "hbd status --url 'mon example'",
        2,
        "hbd status: --url: must be a host, maybe with a port and a path; see hbd status --help",
    ),
    ("hbd status", 3, "http://HERE: nobody answers there: is hbd running?"),
    ("hbd log --folow", 2, "hbd log: there is no option --folow, did you mean --follow?"),
    (
        "hbd log --limit many",
        2,
        "hbd log: --limit must be a number, 1 or more, not \"many\"; see hbd log --help",
    ),
    (
        "hbd check a.yaml b.yaml",
        2,
        "hbd check: name one file: FILE is the same as --config FILE; see hbd check --help",
    ),
    (
        "hbd reload",
        3,
        "http://HERE: nobody answers there: is hbd running? (if receiver itself was changed: systemctl reload hbd)",
    ),
    ("hbd notify --default", 2, "hbd notify: the message is missing; see hbd notify --help"),
    (
        "hbd notify hello",
        2,
        "hbd notify: whom to tell is missing: --host, --channel or --default; see hbd notify --help",
    ),
    (
        "hbd notify --default --level loud hello",
        2,
        "hbd notify: --level must be ok, info, warning or critical, not \"loud\"; see hbd notify --help",
    ),
    (
        "hbd notify --default the disk is full",
        2,
        "hbd notify: there is more than one message: put it in quotes; see hbd notify --help",
    ),
    (
        "hbd notify --default -5",
        2,
        "hbd notify: there is no option -5 (before a message that begins with -, put --); see hbd notify --help",
    ),
    ("hbd silence web1", 2, "hbd silence: a duration is missing; see hbd silence --help"),
    (
        "hbd silence web1 soon",
        2,
        "hbd silence: DURATION must be a duration, such as 30s, 5m or 1h30m, not \"soon\"; see hbd silence --help",
    ),
    (
        "hbd key",
        2,
        "hbd key: name one HOST, or --common for all that have no key of their own, or --status; see hbd key --help",
    ),
    (
        "hbd dyndns web1 --dry-run --address home",
        2,
        "hbd dyndns: --address must be such as 192.0.2.7, not \"home\"; see hbd dyndns --help",
    ),
    ("hbd dyndns web1 --dry-run", 1, "hosts.web1.dyndns is not set: no name follows that host"),
    (
        "hbd names servers",
        2,
        "hbd names: there are hosts and channels, not \"servers\"; see hbd names --help",
    ),
    (
        "hbd forget",
        2,
        "hbd forget: name what to forget: HOST or HOST/CONNECTION; see hbd forget --help",
    ),
    (
        "hbd backup",
        2,
        "hbd backup: name one PLAN, by its id or name, or --all; see hbd backup --help",
    ),
    ("hbc", 2, "hbc: what shall be done? Try: hbc --help"),
    ("hbc sned", 2, "hbc: there is no command \"sned\", did you mean \"send\"?"),
    ("hbc run --sever a", 2, "hbc: run has no option --sever, did you mean --server?"),
    (
        "hbc send --server a:x",
        2,
        "hbc: --server: \"a:x\" must have a port from 1 to 65535 behind the colon",
    ),
];

#[test]
fn a_mistake_in_a_configuration_is_told_in_one_line_with_its_place_and_remedy() {
    let place = Place::new("{}");
    let found = MISTAKES_IN_CONFIGURATIONS.iter().map(|(text, words)| {
        let head =
            "notification_channels: {log: {type: log}}\ndefault_notification_channels: [log]\n";
        let text = if text.starts_with("notification_channels") || text.is_empty() {
            (*text).to_owned()
        } else {
            format!("{head}{text}")
        };
        place.write("hb.yaml", &text);
        let ended = place.hbd("check --strict hb.yaml");
        (text, (ended.code, ended.out), (78, format!("{words}\n")))
    });
    assert_said(found);
}

const MISTAKES_IN_CONFIGURATIONS: &[(&str, &str)] = &[
    (
        "",
        "hb.yaml: warning: is empty: no host is watched and nobody is told; begin with hosts and notification_channels, see heartbeat.yaml(5)",
    ),
    ("hots: {web1: {}}\n", "hb.yaml:3: hots: unknown key, did you mean \"hosts\"?"),
    (
        "hosts: {web1: {}}\n",
        "hb.yaml:3: warning: hosts.web1: listed but not watched: without \"watch: true\" nobody is told when it is overdue",
    ),
    (
        "hosts: {web1: {wacth: true}}\n",
        "hb.yaml:3: hosts.web1.wacth: unknown key, did you mean \"watch\"?",
    ),
    (
        "hosts: {web1: {watch: maybe}}\n",
        "hb.yaml:3: hosts.web1.watch: must be true or false, not \"maybe\"",
    ),
    (
        "hosts: {web1: {watch: true, notification_channels: [lgo]}}\n",
        "hb.yaml:3: hosts.web1.notification_channels: no channel is called \"lgo\", did you mean \"log\"?",
    ),
    (
        "hosts: {web1: {watch: true, interval: 1 fortnight}}\n",
        "hb.yaml:3: hosts.web1.interval: must be a duration, such as 30s, 5m or 1h30m, not \"1 fortnight\"",
    ),
    (
        "hosts: {web1: {watch: true, threshold_config: databse}}\n",
        "hb.yaml:3: hosts.web1.threshold_config: no threshold set is called \"databse\", did you mean \"database\"?",
    ),
    ("hosts:\n\tweb1: {}\n", "hb.yaml:4: a tab cannot indent in YAML: use spaces"),
    ("hosts: {web1: {watch: true}\n", "hb.yaml:3: the brace { that opens here is not closed well"),
    (
        "hosts:\n  web1: [\n",
        "hb.yaml:5: a value is missing here, or a bracket [ or brace { before it is never closed",
    ),
    ("hosts: [web1]\n", "hb.yaml:3: hosts: must be a map: indented lines of \"key: value\""),
    (
        "heartbeat: {key: secret}\n",
        "hb.yaml:3: warning: heartbeat.key: is shorter than 16 characters and can be guessed: make one with hbd key",
    ),
    (
        "heartbeat: {host: 0.0.0.0}\n",
        "hb.yaml:3: heartbeat.host: 0.0.0.0 is reachable from outside, and heartbeats are not signed: set key or key_file, or accept_unsigned: true",
    ),
    (
        "receiver: {host: 0.0.0.0}\n",
        "hb.yaml:3: receiver.host: 0.0.0.0 is reachable from outside: set token or token_file",
    ),
    (
        "receiver: {token: ${TOKEN}}\n",
        "hb.yaml:3: within { } and [ ], ${TOKEN} must be in quotes: \"${TOKEN}\"",
    ),
    (
        "receiver:\n  token: ${NOT_SET}\n",
        "hb.yaml:4: receiver.token: the environment variable NOT_SET is not set",
    ),
    (
        "threshold_configs: {mine: {cpu_monitor.cpu_percent: {warning: 80}}}\n",
        "hb.yaml:3: threshold_configs.mine.cpu_monitor.cpu_percent.warning: must be an operator (> >= < <= == !=) and a number, such as \"> 80\", not \"80\"",
    ),
    (
        "notification_channels: {a: {recipients: a@b.example}}\ndefault_notification_channels: [a]\n",
        "hb.yaml:1: notification_channels.a.type: is missing: email, pushover, signal, mattermost or log",
    ),
    (
        "notification_channels: {a: {tpye: log}}\ndefault_notification_channels: [a]\n",
        "hb.yaml:1: notification_channels.a.tpye: unknown key, did you mean \"type\"?",
    ),
    (
        "notification_channels: {a: {type: emial}}\ndefault_notification_channels: [a]\n",
        "hb.yaml:1: notification_channels.a.type: must be email, pushover, signal, mattermost or log, not \"emial\", did you mean \"email\"?",
    ),
    (
        "notification_channels: {a: {type: log}}\ndefault_notification_channels: [b]\n",
        "hb.yaml:2: default_notification_channels: no channel is called \"b\"; there are: a",
    ),
];

#[test]
fn what_is_asked_of_a_daemon_in_vain_is_told_with_those_that_there_are() {
    let place = Place::new("{web1: {watch: true, interval: 1h}, web2: {watch: true}}");
    let hbd = place.start();
    beat(&hbd, r#"{"host":"web1"}"#);
    let meant = "no host is called \"wbe1\", did you mean \"web1\"?";
    let other = "no host is called \"mail\"; there are: web1, web2";
    let https = format!("https://127.0.0.1:{}", place.port);
    let found = [
        ("status wbe1", 1, meant),
        ("status mail", 1, other),
        ("status wbe1 --json", 1, meant),
        ("log wbe1", 1, meant),
        ("log wbe1 --events", 1, meant),
        ("log wbe1 --follow", 1, meant),
        ("forget wbe1", 1, meant),
        ("forget wbe1/ipv4", 1, meant),
        ("forget web1/ipv6", 1, "web1 has no such connection, but: ipv4"),
        ("dyndns wbe1", 1, meant),
        ("dyndns web1", 1, "the daemon keeps no name of web1: hosts.web1.dyndns is not set"),
        ("ack wbe1", 1, meant),
        ("unsilence wbe1", 1, meant),
        ("silence wbe1 1h", 1, meant),
        (
            &format!("status --url {https}"),
            3,
            &format!("{https}: does not speak TLS: write http://"),
        ),
    ]
    .map(|(line, code, words)| {
        let ended = place.hbd(line);
        (line.to_owned(), (ended.code, ended.error), (code, format!("{words}\n")))
    });
    assert_said(found.into_iter());
    let ended = place.hbd("notify --channel lgo hello");
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("no channel is called \"lgo\", did you mean \"log\"?"), "{ended:?}");
    hbd.stop();
}

#[test]
fn a_reload_says_what_changed_or_every_problem() {
    let place = Place::new("{web1: {watch: true}}");
    let hbd = place.start();
    let same = place.hbd("reload");
    assert_eq!((same.code, &*same.out, &*same.error), (0, "reloaded: nothing changed\n", ""));
    place.configure("{web1: {watch: true}, db1: {}}");
    let ended = place.hbd("reload");
    assert_eq!((ended.code, &*ended.out), (0, "hosts: new: db1\n"), "{ended:?}");
    assert!(ended.error.contains(": warning: hosts.db1: listed but not watched"), "{ended:?}");
    place.add("hots: 1\nrenotify_interval: soon\n");
    let refused = place.hbd("reload");
    assert_eq!((refused.code, &*refused.out), (1, ""), "{refused:?}");
    for words in ["hots: unknown key, did you mean", "renotify_interval: must be a duration"] {
        assert!(refused.error.contains(words), "{refused:?}");
    }
    assert!(refused.error.ends_with("the configuration is refused, the old one stays\n"));
    let json: Value = serde_json::from_str(&place.hbd("reload --json").out).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 3, "{json}");
    assert_eq!(hbd.logged("was not reloaded"), 2);
    hbd.stop();
    assert_eq!(place.hbd("reload").code, 3);
}

/// The daemon goes on with what it had, and nobody could ask it how it was.
#[test]
fn a_daemon_is_asked_while_its_file_is_broken_and_that_is_said() {
    let place = Place::new("{web1: {watch: true, interval: 1h}}");
    let hbd = place.start();
    beat(&hbd, r#"{"host":"web1"}"#);
    let sound = fs::read_to_string(place.path("heartbeat.yaml")).unwrap();
    for (broken, count) in [
        ("hots: 1\n", "1 error"),
        ("hosts: {}\nhots: 1\n", "2 errors"),
        ("calm: [\n", "1 error"),
        ("\tx: 1\n", "1 error"),
    ] {
        place.write("heartbeat.yaml", &format!("{sound}{broken}"));
        for (line, out) in [("status", "1 host, all well\n"), ("log", "there is nothing\n")] {
            let ended = place.hbd(line);
            assert_eq!(ended.code, 0, "{broken:?}: {ended:?}");
            assert!(ended.out.starts_with(out), "{broken:?}: {ended:?}");
            let file = place.path("heartbeat.yaml");
            let words = "hbd would not start with it, see hbd check";
            let said = format!("{} has {count}: {words}\n", file.display());
            assert_eq!(ended.error, said, "{broken:?}");
        }
    }
    place.write("heartbeat.yaml", &sound.replace("  port:", "  prot:"));
    assert_eq!(place.hbd("status").code, 3, "another port is none of the daemon");
    place.write("heartbeat.yaml", &sound.replace("  port:", "  port: x"));
    let ended = place.hbd("status");
    assert!(ended.code == 78 && ended.error.contains("receiver.port: must be"), "{ended:?}");
    hbd.stop();
}

/// A command that goes on, and what it prints.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    error: BufReader<ChildStderr>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let error = BufReader::new(child.stderr.take().unwrap());
        Running { child, out, error }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_is_followed_over_a_restart_of_the_daemon() {
    let place = Place::new("{web1: {watch: true, interval: 1h}}");
    let hbd = place.start();
    beat(&hbd, r#"{"host":"web1","event":"message","message":"one"}"#);
    hbd.settled();
    let words = ["log", "--follow", "--json"];
    let mut log = Running::start(place.command(env!("CARGO_BIN_EXE_hbd"), &words));
    let title = |line: String| {
        let row: Value = serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
        (row["title"].as_str().unwrap().to_owned(), row["state"].as_str().unwrap().to_owned())
    };
    let sent = |title: &str| (title.to_owned(), "delivered".to_owned());
    assert_eq!(title(log.line()), sent("web1 one"));
    beat(&hbd, r#"{"host":"web1","event":"message","message":"two"}"#);
    // It may be seen while it waits, and then again.
    let mut next = || loop {
        let row = title(log.line());
        if row.1 != "waiting" {
            return row;
        }
    };
    assert_eq!(next(), sent("web1 two"));
    hbd.stop();
    let mut lost = String::new();
    log.error.read_line(&mut lost).unwrap();
    assert!(lost.ends_with("is hbd running?; waiting for it\n"), "{lost}");
    let hbd = place.start();
    beat(&hbd, r#"{"host":"web1","event":"message","message":"three"}"#);
    let mut next = || loop {
        let row = title(log.line());
        if row.1 != "waiting" {
            return row;
        }
    };
    assert_eq!(next(), sent("web1 three"), "and nothing twice");
    let events = ["log", "-f", "--events", "-n", "1"];
    let mut events = Running::start(place.command(env!("CARGO_BIN_EXE_hbd"), &events));
    assert!(events.line().starts_with("TIME "));
    assert!(events.line().trim_end().ends_with("web1 three"));
    beat(&hbd, r#"{"host":"web1","event":"message","message":"four"}"#);
    assert!(events.line().trim_end().ends_with("web1 four"));
    hbd.stop();
}

#[test]
fn times_are_those_of_the_zone_of_this_machine_which_is_named() {
    let place = Place::new("{web1: {watch: true, interval: 1h}}");
    let hbd = place.start();
    beat(&hbd, r#"{"host":"web1","event":"message","message":"one"}"#);
    hbd.settled();
    let said = |words: &[&str]| {
        let mut command = place.command(env!("CARGO_BIN_EXE_hbd"), words);
        let ended = Ended::from(command.env("TZ", "XST-5:30").output().unwrap());
        assert_eq!((ended.code, &*ended.error), (0, ""), "{words:?}: {ended:?}");
        ended.out
    };
    for line in [&["log"][..], &["log", "--events"], &["silence", "web1", "1h"], &["silence"]] {
        assert!(said(line).contains(" XST"), "{line:?}: {}", said(line));
        let utc = said(&[line, &["--utc"]].concat());
        assert!(utc.contains(" UTC") && !utc.contains(" XST"), "{line:?}: {utc}");
    }
    hbd.stop();
}

#[test]
fn status_is_drawn_anew_on_a_terminal_until_it_is_interrupted() {
    let place = Place::new("{web1: {watch: true, interval: 1h}}");
    let hbd = place.start();
    beat(&hbd, r#"{"host":"web1"}"#);
    let sound = fs::read_to_string(place.path("heartbeat.yaml")).unwrap();
    place.add("hots: 1\n");
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointers are to live variables, or null where openpty(3) allows that.
    let opened = unsafe {
        libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size)
    };
    assert_eq!(opened, 0);
    // SAFETY: both descriptors are open and ours alone.
    let (mut terminal, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    let mut command = place.command(env!("CARGO_BIN_EXE_hbd"), &["status", "--watch"]);
    command.stdout(theirs).stderr(Stdio::null());
    // SAFETY: signal(2) is safe between fork and exec. What runs beside others in a script ignores it.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut shown = String::new();
    let mut wait = |words: &str, count: usize| {
        while shown.matches(words).count() < count {
            let mut bytes = [0; 4096];
            let length = terminal.read(&mut bytes).unwrap();
            shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    wait("1 host, all well", 2);
    // What was said of the file was wiped away by the first picture.
    wait("heartbeat.yaml has 1 error: hbd", 2);
    place.write("heartbeat.yaml", &sound);
    hbd.stop();
    wait("is hbd running?", 1);
    let hbd = place.start();
    wait("1 host, all well", 3);
    // SAFETY: it only sends a signal, to a child that was not yet waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
    hbd.stop();
}

#[test]
fn a_key_is_written_to_the_file_that_the_configuration_names_already() {
    let place = Place::new("{web1: {watch: true, key_file: web1.key}}");
    assert_eq!(place.hbd("check").code, 78);
    let made = place.hbd("key web1 --write web1.key --config heartbeat.yaml");
    assert_eq!((made.code, &*made.error), (0, ""), "{made:?}");
    assert!(!made.out.contains("There is a key already"), "{made:?}");
    assert_eq!(place.hbd("check --strict").code, 0);
    let again = place.hbd("key web1 --write new.key --config heartbeat.yaml");
    assert!(again.out.contains("There is a key already"), "{again:?}");
    let unknown = place.hbd("key wbe1");
    assert!(unknown.out.contains("has no host wbe1 yet, did you mean web1?"), "{unknown:?}");
    place.add("hots: 1\n");
    let refused = place.hbd("key web1 --write other.key --config heartbeat.yaml");
    assert!(refused.code == 78 && !place.path("other.key").exists(), "{refused:?}");
}

#[test]
fn who_signs_with_a_previous_key_is_told_to_programs() {
    let place = Place::new("{web1: {watch: true}}");
    let hbd = place.start();
    let ended = place.hbd("key --status --json");
    assert_eq!((ended.code, &*ended.out), (0, "{\"previous_key\":[]}\n"), "{ended:?}");
    hbd.stop();
}

#[test]
fn names_are_listed_whatever_else_is_wrong() {
    // A shell may expand what it completes: what is no name is left out.
    let place = Place::new("{web1: {}, db1: {wacth: 1}, '$(id)': {}}");
    place.add("hots: 1\n");
    assert_eq!(place.hbd("names hosts").out, "web1\ndb1\n");
    assert_eq!(place.hbd("names channels --config heartbeat.yaml").out, "log\n");
    let ended = place.hbd("names hosts --config nowhere.yaml");
    assert!(ended.code == 78 && ended.error.contains("nowhere.yaml: cannot be read"), "{ended:?}");
}

#[test]
fn a_host_that_is_not_to_be_watched_is_no_mistake() {
    let place = Place::new("{web1: {watch: false}}");
    let ended = place.hbd("check --strict heartbeat.yaml");
    assert_eq!((ended.code, &*ended.out), (0, "OK: 1 channel, 1 host, 0 threshold sets\n"));
}

#[test]
fn programs_of_a_directory_that_is_named_from_here_are_run() {
    let place = Place::new("{}");
    fs::create_dir(place.path("own")).unwrap();
    let program = place.write("own/queue", "#!/bin/sh\necho 'length 7'\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for directory in ["own", "./own"] {
        let ended = place.hbc(&format!("metrics --metrics-dir {directory}"));
        assert!(ended.out.contains("length 7\n"), "{ended:?}");
    }
}
