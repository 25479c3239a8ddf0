//! Disks that hang, fail, or are taken away under a running daemon: alarms go out, people are told,
//! and the state is written anew where that can be.

mod support {
    #![allow(dead_code, reason = "each test file uses some of them")]
    pub mod hbd;
    pub mod http_double;
    pub mod preload;
}

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use support::hbd::Hbd;
use support::preload::compile;
use tempfile::TempDir;

/// Within this an alarm goes out, whatever the disk does.
const LIMIT: Duration = Duration::from_secs(10);

/// tests/support/disk.c, compiled.
static LIBRARY: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| compile("disk.c"));

/// A state directory on a disk that can be made to hang or fail.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap() };
        let text = format!(
            "state_dir: {}\n\
             heartbeat: {{host: 127.0.0.1, port: 0}}\n\
             receiver: {{host: 127.0.0.1, port: 0}}\n\
             hosts: {{web1: {{watch: true}}, web2: {{watch: true}}}}\n\
             notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n",
            place.state().display()
        );
        fs::write(place.config(), text).unwrap();
        place
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join("heartbeat.redb")
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn start(&self) -> Hbd {
        let environment = [
            ("LD_PRELOAD", LIBRARY.1.display().to_string()),
            ("DISK", self.disk().display().to_string()),
        ];
        Hbd::start_with(&self.config(), &environment)
    }

    /// From now on the disk does what `what` says; see tests/support/disk.c.
    fn break_disk(&self, what: &str) {
        let made = self.directory.path().join("made");
        fs::write(&made, what).unwrap();
        fs::rename(made, self.disk()).unwrap();
    }

    fn mend_disk(&self) {
        fs::remove_file(self.disk()).unwrap();
    }
}

fn says(hbd: &Hbd, host: &str, text: &str) -> u16 {
    let body = format!(r#"{{"host":"{host}","event":"message","message":"{text}"}}"#);
    hbd.request("POST", "/api/v1/heartbeat", body.as_bytes()).0
}

/// A host that beats, and says something.
fn begin(hbd: &Hbd) {
    assert_eq!(hbd.request("POST", "/api/v1/heartbeat", br#"{"host":"web1"}"#).0, 200);
    assert_eq!(says(hbd, "web1", "before"), 200);
}

/// Has a host say something and waits until it was told; how long that took.
fn told(hbd: &Hbd, host: &str, text: &str) -> Duration {
    let begin = Instant::now();
    says(hbd, host, text);
    hbd.wait_log(&format!("{host} {text}"));
    begin.elapsed()
}

/// Waits until everything is told, and that is on disk.
fn settle(hbd: &Hbd) {
    hbd.wait_until("told", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
    assert_eq!(says(hbd, "web1", "settled"), 200);
    hbd.wait_log("web1 settled");
    hbd.wait_until("told", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
    // A beat is answered after the commit of all that was before it.
    hbd.request("POST", "/api/v1/heartbeat", br#"{"host":"web1"}"#);
}

fn ready(hbd: &Hbd) -> (u16, String) {
    hbd.request("GET", "/-/ready", b"")
}

/// Every question that is answered from the disk ends in time, with whatever.
fn assert_answers(hbd: &Hbd) {
    for path in [
        "/",
        "/api/v1/hosts",
        "/api/v1/events",
        "/api/v1/notifications",
        "/api/v1/backups",
        "/api/v1/alerts",
        "/api/v1/hosts/web1/metrics",
        "/metrics",
        "/-/healthy",
    ] {
        let begin = Instant::now();
        hbd.request("GET", path, b"");
        assert!(begin.elapsed() < LIMIT, "{path} took {:?}", begin.elapsed());
    }
}

/// What the next daemon remembers.
fn assert_known(place: &Place, host: &str, text: &str) {
    let hbd = place.start();
    let (_, events) = hbd.request("GET", "/api/v1/events", b"");
    assert!(events.contains(&format!("{host} {text}")), "{events}");
    assert!(hbd.request("GET", "/api/v1/hosts", b"").1.contains("\"ipv4\""));
    hbd.stop();
}

/// Does the same with each, at the same time: what hangs is waited for.
fn for_each<T: Copy + Send>(cases: impl IntoIterator<Item = T>, test: fn(T)) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}

#[test]
fn alarms_waited_for_a_disk_that_hangs() {
    for_each(["sync", "write", "all"], |what| {
        let place = Place::new();
        let hbd = place.start();
        begin(&hbd);
        place.break_disk(what);
        let took = told(&hbd, "web1", "during");
        assert!(took < LIMIT, "{what}: {took:?}");
        hbd.wait_log("hbd cannot write its state to disk");
        let (status, why) = ready(&hbd);
        assert!(status == 503 && why.contains("has not answered for 5 s"), "{what}: {why}");
        // Nothing waits a second time.
        let took = told(&hbd, "web2", "later");
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
        assert_eq!(says(&hbd, "web2", "unstored"), 503);
        assert_answers(&hbd);
        place.mend_disk();
        hbd.wait_log("hbd writes its state to disk again");
        hbd.wait_until("ready", |hbd| ready(hbd).0 == 200);
        hbd.kill();
        assert_known(&place, "web1", "during");
        assert_known(&place, "web2", "unstored");
    });
}

#[test]
fn a_stop_ends_though_the_disk_hangs_and_says_what_is_lost() {
    for_each([true, false], |known| {
        let place = Place::new();
        let mut hbd = place.start();
        place.break_disk("write");
        if known {
            told(&hbd, "web1", "during");
        } else {
            says(&hbd, "web1", "during");
        }
        let begin = Instant::now();
        hbd.signal(libc::SIGTERM);
        assert_eq!(hbd.child.wait().unwrap().code(), Some(1), "{:#?}", hbd.log());
        // systemd waits for 30 s.
        assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
        hbd.wait_log("rows of state are lost");
    });
}

#[test]
fn a_start_ends_though_the_disk_hangs_and_takes_the_state_up_later() {
    for_each(["sync", "all"], |what| {
        let place = Place::new();
        let hbd = place.start();
        begin(&hbd);
        hbd.kill();
        place.break_disk(what);
        let begin = Instant::now();
        let hbd = place.start();
        assert!(begin.elapsed() < LIMIT, "{what}: {:?}", begin.elapsed());
        assert!(told(&hbd, "web2", "during") < LIMIT);
        assert_eq!(ready(&hbd).0, 503);
        assert_answers(&hbd);
        place.mend_disk();
        hbd.wait_log("hbd starts anew to take it up");
        hbd.wait_until("a second start", |hbd| hbd.logged("is ready: ") == 2);
        hbd.kill();
        assert_known(&place, "web1", "before");
    });
}

#[test]
fn a_disk_that_fails_is_told_with_its_reason_and_gone_on_with() {
    for (what, words) in [
        ("EIO", "Input/output error"),
        ("EROFS", "Read-only file system"),
        ("ENODEV", "No such device"),
    ] {
        let place = Place::new();
        let hbd = place.start();
        begin(&hbd);
        place.break_disk(what);
        assert!(told(&hbd, "web1", "during") < LIMIT);
        hbd.wait_log("hbd cannot write its state to disk");
        let (status, why) = ready(&hbd);
        assert!(status == 503 && why.contains(words), "{what}: {why}");
        place.mend_disk();
        hbd.wait_until("ready", |hbd| ready(hbd).0 == 200);
        hbd.kill();
        assert_known(&place, "web1", "during");
    }
}

#[test]
fn a_state_that_was_taken_away_under_the_daemon_was_lost_at_the_restart() {
    type Way = (&'static str, fn(&Place));
    let ways: [Way; 6] = [
        ("rm -r", |place| fs::remove_dir_all(place.state()).unwrap()),
        ("rm", |place| fs::remove_file(place.file()).unwrap()),
        ("mv", |place| fs::rename(place.state(), place.directory.path().join("old")).unwrap()),
        ("another directory", |place| {
            fs::rename(place.state(), place.directory.path().join("old")).unwrap();
            fs::create_dir(place.state()).unwrap();
        }),
        ("truncated", |place| drop(fs::File::create(place.file()).unwrap())),
        ("overwritten", |place| fs::write(place.file(), "junk").unwrap()),
    ];
    for (way, take_away) in ways {
        let place = Place::new();
        let hbd = place.start();
        begin(&hbd);
        settle(&hbd);
        take_away(&place);
        assert_eq!(says(&hbd, "web2", "after"), 200, "{way}");
        hbd.wait_log("hbd's state file was taken away while hbd ran");
        hbd.wait_until("ready", |hbd| ready(hbd).0 == 200);
        assert_eq!(
            hbd.logged("WARN  hbd's state file was taken away while hbd ran"),
            1,
            "{way}: {:#?}",
            hbd.log()
        );
        assert_eq!(says(&hbd, "web2", "last"), 200, "{way}");
        // Else what was told may be told again.
        hbd.wait_until("told", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
        hbd.request(
            "POST",
            "/api/v1/heartbeat",
            br#"{"host":"web1","event":"boot","boot_id":"a"}"#,
        );
        hbd.kill();
        let hbd = place.start();
        let (_, hosts) = hbd.request("GET", "/api/v1/hosts", b"");
        assert_eq!(hosts.matches("\"ipv4\"").count(), 2, "{way}: {hosts}");
        assert_eq!(hbd.logged("state file"), 0, "{way}: {:#?}", hbd.log());
        hbd.stop();
        assert_known(&place, "web2", "last");
    }
}

#[test]
fn a_backup_that_is_restored_under_the_daemon_is_moved_aside() {
    for in_place in [true, false] {
        let place = Place::new();
        let hbd = place.start();
        assert_eq!(says(&hbd, "web1", "first"), 200);
        hbd.stop();
        let backup = fs::read(place.file()).unwrap();
        let hbd = place.start();
        assert_eq!(says(&hbd, "web2", "second"), 200);
        settle(&hbd);
        if !in_place {
            fs::remove_file(place.file()).unwrap();
        }
        fs::write(place.file(), &backup).unwrap();
        assert_eq!(says(&hbd, "web2", "third"), 200);
        hbd.wait_log("hbd's state file was taken away while hbd ran");
        let kept = fs::read_dir(place.state()).unwrap().map(|entry| entry.unwrap().path());
        let kept = kept.filter(|path| path.to_string_lossy().contains(".replaced-"));
        let kept: Vec<_> = kept.map(|path| fs::read(path).unwrap()).collect();
        assert!(kept == [backup], "the backup itself is kept: {}", kept.len());
        hbd.kill();
        assert_known(&place, "web2", "third");
    }
}

#[test]
fn a_second_daemon_that_took_the_directory_is_named_and_left_alone() {
    let place = Place::new();
    let first = place.start();
    assert_eq!(says(&first, "web1", "before"), 200);
    settle(&first);
    fs::remove_dir_all(place.state()).unwrap();
    let second = place.start();
    assert_eq!(says(&second, "web2", "second"), 200);
    assert!(told(&first, "web1", "during") < LIMIT);
    let holder = format!("in use by another hbd (pid {})", second.id());
    first.wait_until("not ready", |hbd| ready(hbd).1.contains(&holder));
    assert_eq!(says(&second, "web2", "still"), 200);
    assert_eq!(ready(&second).0, 200);
    second.stop();
    // Now the directory is free, but what lies there is the second daemon's.
    first.wait_until("ready", |hbd| ready(hbd).0 == 200);
    first.stop();
    assert_known(&place, "web1", "during");
}

#[test]
fn a_lock_file_that_is_removed_is_taken_anew() {
    let place = Place::new();
    let hbd = place.start();
    fs::remove_file(place.state().join("hbd.lock")).unwrap();
    assert_eq!(says(&hbd, "web1", "after"), 200);
    let second = Command::new(env!("CARGO_BIN_EXE_hbd"))
        .args(["run", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&second.stderr);
    assert!(why.contains(&format!("in use by another hbd (pid {})", hbd.id())), "{why}");
    assert_eq!(hbd.logged("taken away"), 0);
    hbd.stop();
    assert_known(&place, "web1", "after");
}

#[test]
fn systemd_was_not_fed_while_the_disk_hung() {
    let place = Place::new();
    let path = place.directory.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let environment = [
        ("LD_PRELOAD", LIBRARY.1.display().to_string()),
        ("DISK", place.disk().display().to_string()),
        ("NOTIFY_SOCKET", path.display().to_string()),
        ("WATCHDOG_USEC", "2000000".to_owned()),
    ];
    let hbd = Hbd::start_with(&place.config(), &environment);
    place.break_disk("write");
    says(&hbd, "web1", "during");
    hbd.wait_log("hbd cannot write its state to disk");
    let begin = Instant::now();
    let mut fed = 0;
    let mut text = [0; 100];
    // What came before, and what comes while it hangs.
    while begin.elapsed() < Duration::from_secs(4) {
        let length = systemd.recv(&mut text).unwrap();
        fed += usize::from(&text[..length] == b"WATCHDOG=1");
    }
    assert!(fed >= 4, "{fed}");
    assert_eq!(ready(&hbd).0, 503);
}
