//! Silences and acknowledgements as people and hosts ask for them: by `hbd silence`, `hbd unsilence`,
//! `hbd ack` and `hbc silence`, of a daemon that runs.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod certificates;
    pub mod hbd;
    pub mod http_double;
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::certificates::certificates;
use support::hbd::Hbd;

/// A directory with a configuration, a state, and what else a test puts there.
struct Place(tempfile::TempDir);

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    error: String,
}

impl Place {
    /// web1 falls silent after a moment, web2 never.
    fn new(rest: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let state = place.path("state");
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             hosts:\n  web1: {{watch: true, interval: 100ms, grace: 100ms}}\n  \
             web2: {{watch: true, interval: 1h}}\nstate_dir: {}\n{rest}\n",
            state.display()
        );
        fs::write(place.config(), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("heartbeat.yaml")
    }

    fn start(&self) -> Hbd {
        Hbd::start(&self.config())
    }

    /// web1 is overdue, which was told; web2 is up.
    fn start_and_tell(&self) -> Hbd {
        let daemon = self.start();
        send(&daemon, r#"{"host":"web1"}"#);
        send(&daemon, r#"{"host":"web2"}"#);
        daemon.wait_log("web1 ipv4 overdue");
        daemon.wait_until("sent", |daemon| daemon.metric("hbd_outbox_deliveries") == 0.0);
        daemon
    }
}

const OPEN: &str = "receiver: {port: 0}\nheartbeat: {port: 0}";

fn run(program: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("HBD_CONFIG").env_remove("HBD_TOKEN").env("USER", "ann");
    command.env("TZ", "UTC0");
    let output = command.env_remove("SUDO_USER").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        error: text(output.stderr),
    }
}

/// `hbd` with the words of a line, asking this daemon.
fn hbd(daemon: &Hbd, line: &str) -> Ended {
    let url = format!("http://{}", daemon.address);
    let mut words: Vec<&str> = line.split(' ').collect();
    words.extend(["--url", &url]);
    run(env!("CARGO_BIN_EXE_hbd"), &words)
}

/// What it prints when it has done what it was asked for.
fn done(daemon: &Hbd, line: &str) -> String {
    let ended = hbd(daemon, line);
    assert_eq!((ended.code, &*ended.error), (0, ""), "{line}: {ended:?}");
    ended.out
}

fn send(daemon: &Hbd, datagram: &str) {
    let (status, answer) = daemon.request("POST", "/api/v1/heartbeat", datagram.as_bytes());
    assert_eq!(status, 200, "{datagram}: {answer}");
}

/// `hbc silence` with the words of a line, to this daemon.
fn hbc(daemon: &Hbd, line: &str) -> Ended {
    let ready = daemon.wait_log("is ready: ");
    let (_, rest) = ready.split_once("UDP ").unwrap();
    let address = rest.split(',').next().unwrap();
    let mut words = vec!["silence", "--server", address, "--host", "web2"];
    words.extend(line.split(' '));
    run(env!("CARGO_BIN_EXE_hbc"), &words)
}

#[test]
fn a_silence_is_set_listed_and_ended_from_the_command_line() {
    let place = Place::new(OPEN);
    let daemon = place.start_and_tell();
    let set = done(&daemon, "silence web1 2h --comment kernel-update");
    let (first, wrong) = set.split_once('\n').unwrap();
    assert!(first.starts_with("s1: web1 is silenced until 20") && first.ends_with("UTC"), "{set}");
    assert_eq!(wrong, "at present wrong with it, and told before: web1 ipv4 overdue\n");
    let listed = done(&daemon, "silence");
    assert!(listed.starts_with("s1    web1               until 20"), "{listed}");
    assert!(listed.contains("UTC  ann: kernel-update   holds nothing back\n"), "{listed}");
    let listed: Value = serde_json::from_str(&done(&daemon, "silence --json")).unwrap();
    assert_eq!(listed["silences"][0]["id"], "s1", "{listed}");
    assert!(listed["held"].is_array(), "{listed}");
    let ended = done(&daemon, "unsilence s1");
    assert_eq!(ended, "s1 has ended; nothing differs from what was told\n");
    assert_eq!(done(&daemon, "silence"), "nothing is silenced\n");

    done(&daemon, "silence web2/ipv4 1h --by bob --unless critical");
    done(&daemon, "silence --all 1h");
    send(&daemon, r#"{"host":"web2","event":"shutdown"}"#);
    let listed = done(&daemon, "silence");
    assert!(listed.contains(", unless critical  bob"), "{listed}");
    assert_eq!(listed.matches("holds 1 thing back").count(), 2, "{listed}");
    let status = hbd(&daemon, "status");
    assert_eq!(status.code, 1, "a silence is no well-being: {status:?}");
    assert!(status.out.contains("shut down, last seen") && status.out.contains("[held back by s"));
    assert!(status.out.contains("  quiet: s2, s3\n"), "{}", status.out);
    assert!(done(&daemon, "unsilence --all").starts_with("s2, s3 have ended; 1 thing differs"));
    assert!(
        done(&daemon, "silence").starts_with("no longer held back: web2 ipv4 shutdown  follows")
    );
    done(&daemon, "silence web* 1h --json");
    assert!(done(&daemon, "unsilence web*").starts_with("s4 has ended; "));
    assert_eq!(daemon.logged("web2 ipv4 shutdown"), 0, "{:#?}", daemon.log());
    daemon.stop();
}

#[test]
fn an_alarm_is_acknowledged_and_no_longer() {
    let place = Place::new(OPEN);
    let daemon = place.start_and_tell();
    let line = "ack web1/ipv4 --comment on-my-way --for 1h";
    assert_eq!(done(&daemon, line), "acknowledged: web1 ipv4 overdue\n");
    let status = hbd(&daemon, "status");
    assert!(status.code == 1 && status.out.contains(" [acknowledged "), "{status:?}");
    let taken_back = done(&daemon, "ack --undo web1");
    assert_eq!(taken_back, "no longer acknowledged: web1 ipv4 overdue\n");
    let status = hbd(&daemon, "status");
    assert!(status.code == 1 && !status.out.contains("acknowledged"), "{status:?}");
    let again = hbd(&daemon, "ack --undo web1");
    assert_eq!((again.code, &*again.error), (1, "nothing of web1 is acknowledged\n"));
    let answer: Value = serde_json::from_str(&done(&daemon, "ack --all --json")).unwrap();
    assert_eq!(answer["acknowledged"][0], "web1 ipv4 overdue");
    send(&daemon, r#"{"host":"web1","interval":3600}"#);
    daemon.wait_log("web1 ipv4 is back");
    let late = hbd(&daemon, "ack web1");
    assert_eq!((late.code, &*late.error), (1, "nothing that was told is wrong with web1\n"));
    daemon.stop();
}

#[test]
fn what_is_wrong_with_a_command_is_said_and_has_its_exit_code() {
    let place = Place::new(OPEN);
    let daemon = place.start();
    send(&daemon, r#"{"host":"web1","interval":3600}"#);
    let range = "a silence lasts from 1 s to 4 w (calm.longest_silence)\n";
    let duration = "must be a duration, such as 30s, 5m or 1h30m, not \"soon\"";
    for (line, code, words) in [
        ("silence wbe1 1h", 1, "no host is called \"wbe1\", did you mean \"web1\"?\n"),
        (
            "silence web1/ipv5 1h",
            1,
            "web1 has no connection and no metric \"ipv5\", did you mean \"ipv4\"?\n",
        ),
        ("silence web1", 2, "hbd silence: a duration is missing; see hbd silence --help\n"),
        (
            "silence web1 soon",
            2,
            &format!("hbd silence: DURATION {duration}; see hbd silence --help\n"),
        ),
        ("silence web1 0", 1, range),
        ("silence web1 5w", 1, range),
        ("ack web2", 1, "nothing that was told is wrong with web2\n"),
        ("ack wbe2", 1, "no host is called \"wbe2\", did you mean \"web2\"?\n"),
        ("unsilence wbe2", 1, "no host is called \"wbe2\", did you mean \"web2\"?\n"),
        ("unsilence s9", 1, "there is no silence s9\n"),
        ("unsilence web1", 1, "no silence is set for web1\n"),
        ("unsilence --all", 1, "there is no silence\n"),
    ] {
        let ended = hbd(&daemon, line);
        assert_eq!((ended.code, &*ended.error), (code, words), "{line}: {ended:?}");
    }
    for command in [&["silence"][..], &["silence", "a", "1h"], &["unsilence", "s1"], &["ack", "a"]]
    {
        let asked = |more: &[&str]| run(env!("CARGO_BIN_EXE_hbd"), &[command, more].concat()).code;
        assert_eq!(asked(&["--url", "http://127.0.0.1:1"]), 3, "{command:?}");
        assert_eq!(asked(&["--config", "/nowhere"]), 78, "{command:?}");
        assert_eq!(asked(&["--config", "/nowhere", "--url", "a"]), 2, "{command:?}");
    }
    daemon.stop();
}

#[test]
fn a_daemon_behind_tls_and_a_token_is_asked_by_its_configuration() {
    const RECEIVER: &str = "receiver: {port: 0, token: a-token-of-some-length, \
                            tls: {certificate_file: web.pem, key_file: web.key}}";
    let place = Place::new(&format!("{RECEIVER}\nheartbeat: {{port: 0}}"));
    let pair = &certificates().wrong_name;
    fs::copy(&pair.certificate, place.path("web.pem")).unwrap();
    fs::copy(&pair.key, place.path("web.key")).unwrap();
    fs::set_permissions(place.path("web.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = place.start();
    let port = format!("receiver: {{port: {}", daemon.address.port());
    let text = fs::read_to_string(place.config()).unwrap();
    let known = place.path("known.yaml");
    fs::write(&known, text.replace("receiver: {port: 0", &port)).unwrap();
    let config = known.to_str().unwrap();
    let asked = |words: &[&str]| {
        let ended = run(env!("CARGO_BIN_EXE_hbd"), &[words, &["--config", config]].concat());
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
        ended.out
    };
    let set = asked(&["silence", "web1", "2h", "--comment", "a \"ü\"\\"]);
    assert!(set.starts_with("s1: web1 is silenced until "), "{set}");
    assert!(asked(&["silence"]).contains("ann: a \"ü\"\\ "));
    let ended = asked(&["unsilence", "web1"]);
    assert_eq!(ended, "s1 has ended; nothing differs from what was told\n");
    daemon.stop();
}

#[test]
fn a_host_silences_itself_and_ends_it() {
    let place = Place::new(OPEN);
    let daemon = place.start();
    send(&daemon, r#"{"host":"web2"}"#);
    let set = hbc(&daemon, "20m --comment kernel-update --wait 20s");
    assert!(set.code == 0 && set.out.contains(" answered in "), "{set:?}");
    let listed = done(&daemon, "silence");
    assert!(listed.starts_with("s1    web2               until 20"), "{listed}");
    assert!(listed.contains("web2: kernel-update"), "{listed}");
    let ended = hbc(&daemon, "end --wait 20s");
    assert_eq!(ended.code, 0, "{ended:?}");
    daemon.wait_until("ended", |daemon| done(daemon, "silence") == "nothing is silenced\n");
    let long = hbc(&daemon, "5h --wait 1s");
    assert_eq!(long.code, 1, "{long:?}");
    assert!(long.error.contains("does it allow so long a silence"), "{long:?}");
    for (line, words) in
        [("soon", "the length must be a duration"), ("1h --message x", "--message")]
    {
        let wrong = hbc(&daemon, line);
        assert!(wrong.code == 2 && wrong.error.contains(words), "{wrong:?}");
    }
    daemon.stop();
}

#[test]
fn a_silence_without_the_key_is_not_answered() {
    let place = Place::new("receiver: {port: 0}\nheartbeat: {port: 0, key: hunter22}");
    let key = place.path("key");
    fs::write(&key, "hunter22\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = place.start();
    assert_eq!(hbc(&daemon, "20m --wait 1s").code, 1);
    assert_eq!(done(&daemon, "silence"), "nothing is silenced\n");
    let signed = hbc(&daemon, &format!("20m --wait 20s --key-file {}", key.display()));
    assert_eq!(signed.code, 0, "{signed:?}");
    assert!(done(&daemon, "silence").contains("  web2 "));
    daemon.stop();
}

#[test]
fn a_host_may_be_called_like_a_silence() {
    let place = Place::new(OPEN);
    let text = fs::read_to_string(place.config()).unwrap();
    fs::write(place.config(), text.replace("hosts:\n", "hosts:\n  s1: {}\n  s7: {}\n")).unwrap();
    let daemon = place.start();
    assert!(done(&daemon, "silence s7 1h").starts_with("s1: s7 is silenced until "));
    assert!(done(&daemon, "silence s1 1h").starts_with("s2: s1 is silenced until "));
    assert!(done(&daemon, "unsilence s7").starts_with("s1 has ended; "));
    assert!(done(&daemon, "unsilence s1").starts_with("s2 has ended; "));
    daemon.stop();
}

#[test]
fn a_reload_that_removes_a_window_lets_out_what_it_held_back() {
    const WINDOWS: &str = "maintenance:\n  always: {hosts: [web*], at: 00:00-24:00, zone: UTC}";
    let place = Place::new(&format!("{OPEN}\n{WINDOWS}"));
    let daemon = place.start();
    send(&daemon, r#"{"host":"web1"}"#);
    daemon.wait_until("held", |daemon| done(daemon, "silence").contains("holds 1 thing back"));
    let listed = done(&daemon, "silence");
    assert!(listed.starts_with("window always: web*  until 20"), "{listed}");
    let page = daemon.request("GET", "/hosts/web1", b"").1;
    assert!(page.contains("Silent by always."), "{page}");
    assert_eq!(daemon.logged("web1 ipv4 overdue"), 0, "{:#?}", daemon.log());
    let text = fs::read_to_string(place.config()).unwrap();
    fs::write(place.config(), text.replace(WINDOWS, "")).unwrap();
    assert_eq!(daemon.request("POST", "/-/reload", b"").0, 200);
    daemon.wait_log("web1 ipv4 overdue");
    assert_eq!(done(&daemon, "silence"), "nothing is silenced\n");
    daemon.stop();
}
