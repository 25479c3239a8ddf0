//! Hosts that send as fast as they can: what it costs the disk, their neighbours, and the alarms.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod burst;
    pub mod hbd;
    pub mod http_double;
}

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heartbeat::heartbeat::encode::{sign, signing_key};
use heartbeat::secret::Secret;
use serde_json::Value;
use support::burst::percentiles;
use support::hbd::Hbd;

/// How long a flood lasts; `HBD_FLOOD_SECONDS` has another one for a measurement.
fn flood_time() -> Duration {
    let seconds = std::env::var("HBD_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

const KEY: &str = "a-key-of-web1";

struct Place(tempfile::TempDir);

impl Place {
    /// A daemon with a history of one megabyte, which tells its log; `more` is more of its
    /// configuration.
    fn start(channels: &str, defaults: &str, hosts: &str) -> (Place, Hbd) {
        let place = Place(tempfile::tempdir().unwrap());
        let text = format!(
            "notification_channels:\n  log: {{type: log}}\n{channels}\
             default_notification_channels: [{defaults}]\n\
             heartbeat: {{port: 0}}\nreceiver: {{port: 0}}\nhistory: {{max_bytes: 1000000}}\n\
             calm: {{flapping: off}}\n\
             hosts:\n  web1: {{watch: true}}\n  web2: {{watch: true}}\n{hosts}state_dir: {}\n",
            place.0.path().join("state").display()
        );
        let config = place.0.path().join("heartbeat.yaml");
        fs::write(&config, text).unwrap();
        let hbd = Hbd::start(&config);
        (place, hbd)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("state").join(heartbeat::store::FILE_NAME)
    }
}

fn post(hbd: &Hbd, datagram: &str) -> (u16, String) {
    hbd.request("POST", "/api/v1/heartbeat", datagram.as_bytes())
}

fn message(host: &str, number: usize) -> String {
    let text = format!("{number} {}", "x".repeat(480));
    format!(r#"{{"host":"{host}","event":"message","message":"{text}"}}"#)
}

/// What the list of events has of a host, the newest first.
fn events(hbd: &Hbd, host: &str) -> Vec<Value> {
    let target = format!("/api/v1/events?host={host}&limit=1000");
    // It is not shown while too much waits for the disk.
    hbd.wait_until("shown", |hbd| hbd.request("GET", &target, b"").0 == 200);
    let (_, answer) = hbd.request("GET", &target, b"");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    // The answer may come in pieces.
    let json = &body[body.find('{').unwrap()..=body.rfind('}').unwrap()];
    let json: String = json.lines().filter(|line| line.len() > 8).collect();
    let all: Value = serde_json::from_str(&json).unwrap_or_else(|why| panic!("{why}: {body}"));
    all["events"].as_array().unwrap().clone()
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["kind"] == kind).count()
}

/// Everything that a host can say, as fast as it goes, until the flood ends; how much it was, and
/// the most that the file had.
fn flood(place: &Place, hbd: &Hbd, datagram: impl Fn(usize) -> Vec<u8>) -> (usize, u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = hbd.last_address("heartbeats on UDP ");
    let end = Instant::now() + flood_time();
    let (mut sent, mut most) = (0, 0);
    while Instant::now() < end {
        for _ in 0..100 {
            // A full buffer drops it, as any network does.
            let _ = socket.send_to(&datagram(sent), to);
            sent += 1;
        }
        most = most.max(fs::metadata(place.file()).unwrap().len());
    }
    (sent, most)
}

/// How long the messages of a neighbour take meanwhile, one after another.
fn neighbour<T>(hbd: &Hbd, work: impl FnOnce() -> T) -> (T, Vec<Duration>) {
    let over = Arc::new(AtomicBool::new(false));
    let address = hbd.address;
    let done = Arc::clone(&over);
    let times = thread::spawn(move || {
        let mut times = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let number = times.len();
            let bodies = [format!(r#"{{"host":"web2","boot_id":"b","uptime":{number}}}"#)];
            let target = "/api/v1/heartbeat";
            let answer =
                support::burst::burst(address, target, &bodies, false, Duration::from_secs(30));
            assert!(answer[0].text.starts_with("HTTP/1.1 200"), "{}", answer[0].text);
            times.push(answer[0].took);
        }
        times
    });
    let result = work();
    over.store(true, Ordering::Relaxed);
    (result, times.join().unwrap())
}

#[test]
fn many_hosts_at_once_filled_the_disk() {
    let hosts: String = (0..500).map(|number| format!("  h{number}: {{watch: false}}\n")).collect();
    let (place, hbd) = Place::start("", "log", &hosts);
    assert_eq!(post(&hbd, r#"{"host":"web2"}"#).0, 200);
    assert_eq!(post(&hbd, r#"{"host":"web2","event":"shutdown"}"#).0, 200);
    let one = |number: usize| message(&format!("h{}", number % 500), number).into_bytes();
    let (_, most) = flood(&place, &hbd, one);
    assert!(hbd.metric("hbd_datagrams_accepted_total") > 3000.0, "more than there is room for");
    // Until all of it is on disk.
    hbd.wait_until("stored", |hbd| hbd.request("GET", "/api/v1/events", b"").0 == 200);
    let most = most.max(fs::metadata(place.file()).unwrap().len());
    assert!(most < 5_000_000, "{most} bytes");
    assert_eq!(count(&events(&hbd, "web2"), "shutdown"), 1, "an alarm from before the flood");
}

#[test]
fn messages_that_are_sent_at_once_filled_the_disk() {
    let (place, hbd) = Place::start("", "log", "");
    let body = format!(r#"{{"channels":["log"],"message":"{}"}}"#, "x".repeat(500));
    let bodies = vec![body; 4];
    let mut most = 0;
    let end = Instant::now() + flood_time();
    while Instant::now() < end {
        let (to, patience) = (hbd.address, Duration::from_secs(30));
        support::burst::burst(to, "/api/v1/notify", &bodies, false, patience);
        most = most.max(fs::metadata(place.file()).unwrap().len());
    }
    assert!(most < 5_000_000, "{most} bytes");
}

const TOLD: &str = "web1 sends more than 60 messages a minute: ";

#[test]
fn one_host_that_sends_without_end_filled_the_disk() {
    let (place, hbd) = Place::start("", "log", "");
    assert_eq!(post(&hbd, r#"{"host":"web1","boot_id":"b"}"#).0, 200);
    assert_eq!(post(&hbd, r#"{"host":"web2","boot_id":"b"}"#).0, 200);
    assert_eq!(post(&hbd, r#"{"host":"web2","event":"shutdown"}"#).0, 200);
    let everything = |number: usize| -> Vec<u8> {
        match number % 8 {
            0 => format!(r#"{{"host":"web1","event":"boot","boot_id":"b{number}"}}"#),
            1 => r#"{"host":"web1","event":"shutdown"}"#.into(),
            2 => r#"{"host":"web1","metrics":{"swap_monitor":{"percent":99}}}"#.into(),
            3 => r#"{"host":"web1","metrics":{"swap_monitor":{"percent":9}}}"#.into(),
            4 => format!(r#"{{"host":"web1","metrics":{{"m{number}":1}}}}"#),
            5 => format!(r#"{{"host":"web1","connection":"c{number}"}}"#),
            _ => message("web1", number),
        }
        .into()
    };
    let ((sent, most), times) = neighbour(&hbd, || flood(&place, &hbd, everything));
    // For whoever measures.
    println!("{sent} sent, at most {most} bytes of file, neighbour {:?}", percentiles(times));
    assert!(most < 5_000_000, "{most} bytes");
    hbd.wait_log(TOLD);
    assert_eq!(hbd.logged("were not recorded"), 1, "{:#?}", hbd.log());
    let [noisy, quiet] = ["web1", "web2"].map(|host| events(&hbd, host));
    let most = 60 + 2 * flood_time().as_secs() as usize;
    for kind in ["message", "booted", "back"] {
        assert!(count(&noisy, kind) <= most, "{kind}");
    }
    assert_eq!(count(&noisy, "too_many_messages"), 1);
    assert_eq!(count(&quiet, "shutdown"), 1, "an alarm from before the flood");
    hbd.stop();
}

#[test]
fn a_message_beyond_the_limit_is_neither_stored_nor_called_so() {
    let hosts = format!("  signed: {{watch: true, key: {KEY}}}\n");
    let (_place, hbd) = Place::start("", "log", &hosts);
    for (host, key) in [("web1", None), ("signed", Some(signing_key(&Secret::new(KEY))))] {
        let mut taken = 0;
        let answer = loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
            let json = format!(
                r#"{{"host":"{host}","event":"message","message":"m","time":{}.{:06}}}"#,
                now / 1_000_000,
                now % 1_000_000
            );
            let signed = key.as_ref().map(|key| sign(key, json.as_bytes()));
            let body = signed.unwrap_or(json.into_bytes());
            match hbd.request("POST", "/api/v1/heartbeat", &body) {
                (200, _) => taken += 1,
                answer => break answer,
            }
        };
        assert_eq!(answer.0, 429, "{answer:?}");
        assert!(answer.1.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{answer:?}");
        assert!(taken >= 60, "{taken}");
        assert_eq!(count(&events(&hbd, host), "message"), taken);
    }
    let rejected = hbd.metric("hbd_datagrams_rejected_total{reason=\"too_many_messages\"}");
    assert_eq!(rejected, 2.0);
    // By UDP it has no answer, while a beat of the same host has one.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(hbd.last_address("heartbeats on UDP ")).unwrap();
    socket.set_read_timeout(Some(support::hbd::TIMEOUT)).unwrap();
    for _ in 0..200 {
        let text = r#"{"host":"web1","event":"message","message":"m","ack":true,"time":1}"#;
        socket.send(text.as_bytes()).unwrap();
    }
    socket.send(br#"{"host":"web1","ack":true,"time":2.5}"#).unwrap();
    let (mut answers, mut buffer) = (0, [0; 1000]);
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        if String::from_utf8_lossy(&buffer[..length]).contains("2.5") {
            break;
        }
        answers += 1;
    }
    assert!(answers < 60, "{answers} of 200 were called stored");
}

#[test]
fn one_host_that_fills_the_outbox_had_its_neighbours_refused() {
    // Nobody listens there: what is to be sent waits.
    let dead: Vec<String> = (0..20).map(|number| format!("dead{number}")).collect();
    let channel = |name: &String| {
        format!(
            "  {name}: {{type: mattermost, host: \"http://127.0.0.1:9\", token: {}, channel: c}}\n",
            "x".repeat(26)
        )
    };
    let channels: String = dead.iter().map(channel).collect();
    let own = dead.join(", ");
    let hosts = format!("  busy: {{watch: true, notification_channels: [{own}]}}\n");
    let (_place, hbd) = Place::start(&channels, "log", &hosts);
    let swap = |percent: u32| {
        format!(r#"{{"host":"busy","metrics":{{"swap_monitor":{{"percent":{percent}}}}}}}"#)
    };
    for host in ["busy", "web2"] {
        assert_eq!(post(&hbd, &format!(r#"{{"host":"{host}"}}"#)).0, 200);
    }
    hbd.wait_until("its share is used up", |hbd| {
        assert_eq!(post(hbd, &swap(99)).0, 200, "a beat is always taken");
        assert_eq!(post(hbd, &swap(9)).0, 200);
        post(hbd, &message("busy", 1)).0 == 503
    });
    let waiting = hbd.metric("hbd_outbox_deliveries");
    assert!(waiting < 4000.0, "{waiting}");
    assert_eq!(post(&hbd, r#"{"host":"busy","event":"shutdown"}"#).0, 503);
    // It is critical in the end, and that is told; what comes after adds nothing any more.
    post(&hbd, &swap(99));
    let full = hbd.metric("hbd_outbox_deliveries");
    for _ in 0..50 {
        assert_eq!(post(&hbd, &swap(9)).0, 200);
        assert_eq!(post(&hbd, &swap(99)).0, 200);
    }
    let more = hbd.metric("hbd_outbox_deliveries") - full;
    assert!(more <= 40.0, "{more} more");
    let last = events(&hbd, "busy").remove(0);
    assert_eq!(last["level"], "critical", "{last}");
    for said in [
        message("web2", 1),
        r#"{"host":"web2","event":"boot","boot_id":"x"}"#.into(),
        r#"{"host":"web2","event":"shutdown"}"#.into(),
    ] {
        assert_eq!(post(&hbd, &said).0, 200, "{said}");
    }
    hbd.wait_log("web2 ipv4 shutdown");
    let told = hbd.wait_log("were refused: too many wait to be sent already");
    assert!(told.contains("messages of busy ("), "{told}");
    assert_eq!(hbd.logged("were refused: too many wait"), 1);
}
