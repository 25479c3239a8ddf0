//! Hosts that leave, come back, share a name or are given up, as an operator sees it.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod clock;
    pub mod hbd;
    pub mod http_double;
    pub mod preload;
}

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::clock::hbd_at;
use support::hbd::Hbd;

/// A directory with a configuration and a state.
struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.configure("log", text);
        place
    }

    /// One channel of this name, for all.
    fn configure(&self, channel: &str, text: &str) {
        let state = self.0.path().join("state");
        let text = format!(
            "notification_channels: {{{channel}: {{type: log}}}}\n\
             default_notification_channels: [{channel}]\nreceiver: {{port: 0}}\n\
             state_dir: {}\n{text}\n",
            state.display()
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("heartbeat.yaml")
    }

    fn start(&self) -> Hbd {
        Hbd::start(&self.config())
    }
}

fn send(hbd: &Hbd, datagram: &str) {
    let (status, answer) = hbd.request("POST", "/api/v1/heartbeat", datagram.as_bytes());
    assert_eq!(status, 200, "{datagram}: {answer}");
}

fn told(hbd: &Hbd, words: &str) {
    hbd.wait_log(words);
}

fn command(hbd: &Hbd, arguments: &[&str]) -> Output {
    let url = format!("http://{}", hbd.address);
    let (name, rest) = arguments.split_first().unwrap();
    Command::new(env!("CARGO_BIN_EXE_hbd"))
        .arg(name)
        .args(["--url", &url])
        .args(rest)
        .output()
        .unwrap()
}

#[test]
fn an_update_whose_reboot_hangs_is_told_and_its_return_ends_it() {
    let place =
        Place::new("heartbeat: {port: 0}\nhosts: {web1: {watch: true, back_within: 500ms}}");
    let hbd = place.start();
    send(&hbd, r#"{"host":"web1","boot_id":"a"}"#);
    send(&hbd, r#"{"host":"web1","event":"shutdown","boot_id":"a","reason":"reboot"}"#);
    told(&hbd, "web1 has not come back");
    let status = command(&hbd, &["status"]);
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1), "{shown}");
    assert!(shown.contains("critical: ipv4 overdue"), "{shown}");
    let (_, alerts) = hbd.request("GET", "/api/v1/alerts", b"");
    assert!(alerts.contains("has not come back"), "{alerts}");
    hbd.stop();
    let hbd = place.start();
    send(&hbd, r#"{"host":"web1","boot_id":"b"}"#);
    told(&hbd, "web1 has come back");
    told(&hbd, "INFO  web1 booted");
    assert_eq!(hbd.logged("has not come back"), 0, "told once, over the restart");
    hbd.stop();
}

#[test]
fn a_clone_that_kept_its_name_is_told_once() {
    let place = Place::new("heartbeat: {port: 0}\nhosts: {web1: {watch: true}}");
    let hbd = place.start();
    for _ in 0..10 {
        for boot in ["a", "b", "c"] {
            send(&hbd, &format!(r#"{{"host":"web1","boot_id":"{boot}"}}"#));
        }
    }
    told(&hbd, "web1: two machines beat under this name");
    hbd.wait_until("told", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
    let title = |line: &String| line.contains("web1: two machines") && !line.contains("addresses");
    assert!(hbd.log().iter().filter(|line| title(line)).count() <= 1, "{:#?}", hbd.log());
    let (_, events) = hbd.request("GET", "/api/v1/events?kind=booted,two_machines", b"");
    assert_eq!(events.matches("two machines beat").count(), 1, "{events}");
    assert_eq!(events.matches("web1 booted").count(), 2, "{events}");
    hbd.stop();
}

#[test]
fn a_beat_with_a_metric_that_is_no_number_is_a_beat() {
    let place = Place::new("heartbeat: {port: 0}\nhosts: {web1: {watch: true}, web2: {}}");
    let hbd = place.start();
    for odd in ["null", "\"51\"", "true"] {
        send(&hbd, &format!(r#"{{"host":"web1","metrics":{{"a":{odd},"b":1}}}}"#));
    }
    send(&hbd, r#"{"host":"web2","metrics":{"a":[null]}}"#);
    assert!(hbd.metric("hbd_datagram_metrics_left_out_total") > 3.5);
    hbd.wait_log("web2 sends metrics that cannot be used");
    assert_eq!(hbd.logged("web1 sends metrics that cannot be used"), 1);
    let (_, host) = hbd.request("GET", "/api/v1/hosts/web1", b"");
    assert!(host.contains(r#""path":"b""#) && !host.contains(r#""path":"a""#), "{host}");
    hbd.stop();
}

#[test]
fn a_connection_that_was_given_up_is_forgotten() {
    let place = Place::new(
        "heartbeat: {port: 0, forget_after: 2s}\n\
         hosts: {web1: {watch: true, interval: 1h}, web2: {watch: true, interval: 100ms, grace: 100ms}}",
    );
    let hbd = place.start();
    send(&hbd, r#"{"host":"web1"}"#);
    send(&hbd, r#"{"host":"web1","connection":"vpn"}"#);
    send(&hbd, r#"{"host":"web2","connection":"lte"}"#);
    told(&hbd, "web2 lte overdue");
    told(&hbd, "web2 lte is forgotten");
    let forgotten = command(&hbd, &["forget", "web1/vpn"]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert_eq!(
        String::from_utf8_lossy(&forgotten.stdout),
        "web1 vpn is forgotten until it beats again\n"
    );
    let (_, host) = hbd.request("GET", "/api/v1/hosts/web1", b"");
    assert!(host.contains("ipv4") && !host.contains("vpn"), "{host}");
    for unknown in ["web1/vpn", "web9"] {
        let output = command(&hbd, &["forget", unknown]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert!(command(&hbd, &["forget", "web1"]).status.success());
    let output = command(&hbd, &["forget", "web1/vpn"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("web1 has not been heard"), "no empty list: {said}");
    assert_eq!(command(&hbd, &["status"]).status.code(), Some(0), "{:#?}", hbd.log());
    hbd.stop();
}

#[test]
fn the_end_of_an_alarm_goes_to_the_channel_that_was_renamed_meanwhile() {
    let rest = "heartbeat: {port: 0}\nhosts: {web1: {watch: true, interval: 100ms, grace: 100ms}}";
    let place = Place::new(rest);
    let hbd = place.start();
    send(&hbd, r#"{"host":"web1"}"#);
    told(&hbd, "web1 ipv4 overdue");
    hbd.wait_until("sent", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
    place.configure("post", rest);
    let (status, answer) = hbd.request("POST", "/-/reload", b"");
    assert_eq!(status, 200);
    assert!(answer.contains("the end of 1 open alarm that it was given goes to post"), "{answer}");
    send(&hbd, r#"{"host":"web1"}"#);
    told(&hbd, "web1 ipv4 is back");
    hbd.stop();
}

/// Starts hbd with both of its clocks `life` times thirty seconds ahead.
fn thirty_seconds_later(place: &Place, life: i64) -> Hbd {
    let mut command = hbd_at(1_795_291_928 + 30 * life);
    command.env("BOOT_SHIFT", (30 * life).to_string());
    Hbd::start_by(command, &place.config())
}

#[test]
fn a_daemon_that_is_killed_every_thirty_seconds_did_never_tell_who_fell_silent() {
    let place = Place::new("heartbeat: {port: 0}\nhosts: {web1: {watch: true}, web2: {}}");
    let overdue = |hbd: &Hbd| {
        let (_, events) = hbd.request("GET", "/api/v1/events?kind=overdue", b"");
        events.matches("web1 ipv4 overdue").count()
    };
    let mut told = Vec::new();
    for life in 0..20 {
        let hbd = thirty_seconds_later(&place, life);
        if life == 0 {
            send(&hbd, r#"{"host":"web1"}"#);
        }
        // What it stored before is on disk with this.
        send(&hbd, r#"{"host":"web2","event":"message","message":"x"}"#);
        told.push(overdue(&hbd));
        hbd.kill();
    }
    assert_eq!(told[..3], [0; 3], "its restarts are not the silence of a host: {told:?}");
    let hbd = thirty_seconds_later(&place, 20);
    assert_eq!(overdue(&hbd), 1, "{told:?}");
    assert!(told[8..].iter().all(|count| *count == 1), "{told:?}");
    hbd.stop();
}
