//! What is shown to everybody: `receiver.public`, with a real daemon and its reloads.

#[allow(dead_code, reason = "each test file uses some of it")]
mod support {
    pub mod hbd;
    pub mod http_double;
}

use std::fs;
use std::path::PathBuf;

use support::hbd::Hbd;

/// A daemon, and the place of its configuration.
struct Place {
    hbd: Hbd,
    config: PathBuf,
    directory: tempfile::TempDir,
}

impl Place {
    fn start(receiver: &str) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("heartbeat.yaml");
        fs::write(&config, text(&directory, receiver)).unwrap();
        Place { hbd: Hbd::start(&config), config, directory }
    }

    fn reload(&self, receiver: &str) {
        fs::write(&self.config, text(&self.directory, receiver)).unwrap();
        self.hbd.reload();
    }

    /// The status of a page, and what it says.
    fn get(&self, target: &str, host: &str) -> (u16, String) {
        let request = ureq::get(format!("http://{}{target}", self.hbd.address));
        let request = request.header("Host", host);
        let mut answer = request.config().http_status_as_error(false).build().call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    fn statuses(&self, host: &str) -> [u16; 4] {
        ["/public", "/api/v1/hosts/web1/badge.svg", "/api/v1/hosts/db1/badge.svg", "/"]
            .map(|target| self.get(target, host).0)
    }
}

fn text(directory: &tempfile::TempDir, receiver: &str) -> String {
    let state = directory.path().join("state");
    format!(
        "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
         heartbeat: {{port: 0}}\nreceiver: {{port: 0{receiver}}}\nstate_dir: {}\nhosts:\n  \
         web1: {{watch: true, groups: [web, inner], note: rack 3, link: 'https://wiki.example/1'}}\n  \
         db1: {{watch: true, groups: [db]}}\n",
        state.display()
    )
}

const PUBLIC: &str = ", public: {groups: [web]}";
const TOKEN: &str = ", token: a-long-random-word";

#[test]
fn a_public_group_is_open_to_all_with_a_token_and_guarded_as_all_else_is_without_one() {
    let place = Place::start(PUBLIC);
    assert_eq!(place.statuses("localhost"), [200, 200, 200, 200]);
    assert_eq!(place.statuses("status.example"), [403, 403, 403, 403]);
    let (_, all) = place.get("/api/v1/hosts", "localhost");
    for part in [
        "\"note\":\"rack 3\"",
        "\"link\":\"https://wiki.example/1\"",
        "\"groups\":[\"web\",\"inner\"]",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let (_, page) = place.get("/public", "localhost");
    assert!(page.contains(">web1<") && page.contains("never heard"), "{page}");
    let body = page.split_once("<body>").unwrap().1.split("<script>").next().unwrap();
    for secret in ["db1", "inner", "rack", "wiki"] {
        assert!(!body.contains(secret), "{secret}: {body}");
    }
    place.reload(&format!("{PUBLIC}{TOKEN}"));
    assert_eq!(place.statuses("status.example"), [200, 200, 401, 401]);
    assert_eq!(place.get("/api/v1/hosts", "localhost").0, 401);
    place.reload(&format!(", public: {{groups: [db]}}{TOKEN}"));
    assert_eq!(place.statuses("localhost"), [200, 401, 200, 401]);
    assert!(place.hbd.logged("receiver.public: everybody is shown db") > 0);
    place.reload(TOKEN);
    assert_eq!(place.statuses("localhost"), [401, 401, 401, 401]);
    place.reload("");
    assert_eq!(place.statuses("localhost"), [404, 200, 200, 200]);
}

/// Hosts by pattern, in an included file, from the first beat to the reload that takes the pattern out.
#[test]
fn hosts_by_pattern_are_shown_told_of_and_kept_as_listed_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (config, included) = (directory.path().join("heartbeat.yaml"), directory.path().join("d"));
    fs::create_dir(&included).unwrap();
    let patterns = "hosts:\n  \"app*\": {watch: true, groups: [web], note: by pattern, interval: 100ms, grace: 400ms}\n  app9: {watch: true}\n";
    fs::write(included.join("a.yaml"), patterns).unwrap();
    let text = text(&directory, PUBLIC) + "include: d\n";
    fs::write(&config, &text).unwrap();
    let mut place = Place { hbd: Hbd::start(&config), config, directory };
    let beat = |place: &Place, host: &str| {
        let body = format!("{{\"host\":\"{host}\"}}");
        place.hbd.request("POST", "/api/v1/heartbeat", body.as_bytes()).0
    };
    assert_eq!([beat(&place, "app7"), beat(&place, "app9")], [200, 200]);
    assert_ne!(beat(&place, "other"), 200);
    place.hbd.wait_log("app7 ipv4 overdue");
    let shown = |place: &Place| {
        let (_, host) = place.get("/api/v1/hosts/app7", "localhost");
        assert!(host.contains("\"note\":\"by pattern\"") && host.contains("[\"web\"]"), "{host}");
        let (_, page) = place.get("/public", "localhost");
        assert!(page.contains(">app7<") && !page.contains(">app9<"), "{page}");
        let badge = |host: &str| format!("/api/v1/hosts/{host}/badge.svg");
        assert_eq!(place.get(&badge("app7"), "localhost").0, 200);
        let (_, events) = place.get("/api/v1/events", "localhost");
        assert!(events.contains("app7 ipv4 overdue"), "{events}");
    };
    shown(&place);
    assert_eq!(place.hbd.metric("hbd_limit_used{limit=\"pattern_hosts\"}"), 1.0);
    let state = place.config.clone();
    let Place { hbd, directory, .. } = place;
    hbd.stop();
    place = Place { hbd: Hbd::start(&state), config: state, directory };
    shown(&place);
    fs::write(included.join("a.yaml"), "hosts: {app9: {watch: true}}\n").unwrap();
    place.hbd.reload();
    place.hbd.wait_log("hosts: removed: app*");
    place.hbd.wait_log("app7 is no longer watched");
    assert_eq!(place.get("/api/v1/hosts/app7", "localhost").0, 404);
    assert_eq!(place.get("/api/v1/hosts/app9", "localhost").0, 200);
}
