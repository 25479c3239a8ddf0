//! Names in the DNS follow their hosts: real datagrams through the real hbd into a real BIND with a
//! signed dynamic zone, and to a provider that speaks dyndns2 and refuses what the real ones refuse.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod bind;
    pub mod hbd;
    pub mod http_double;
    pub mod tls_front;
}

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heartbeat::heartbeat::encode;
use heartbeat::secret::Secret;
use serde_json::Value;
use support::bind::{Bind, KEY, OTHER_KEY};
use support::hbd::Hbd;
use support::http_double::{HttpDouble, Mode, Reply, Request, lock, reply};
use support::tls_front::{tls_file, tls_front};

const NAME: &str = "web1.dyn.example.com";
const SECRET: &str = "the-key-of-web1";

/// A directory with a configuration and a state.
struct Place {
    directory: tempfile::TempDir,
    last: AtomicU64,
}

impl Place {
    fn new(dyndns: &str) -> Place {
        Place::with(dyndns, "true")
    }

    fn with(dyndns: &str, host: &str) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { directory, last: AtomicU64::new(0) };
        place.configure(dyndns, host);
        place
    }

    fn configure(&self, dyndns: &str, host: &str) {
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             heartbeat: {{host: '{}', port: 0, key: {SECRET}}}\nreceiver: {{port: 0}}\n\
             state_dir: {}\nhosts: {{web1: {{dyndns: {host}}}, web2: {{}}}}\n\
             dyndns: {{allow_private: true, settle: 300ms, retry: 200ms, min_interval: 0, {dyndns}}}\n",
            if has_ipv6() { "::" } else { "127.0.0.1" },
            self.directory.path().join("state").display()
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    /// Microseconds since 1970, later than all before.
    fn time(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let last = self.last.load(Ordering::SeqCst);
        let time = now.max(last + 1000);
        self.last.store(time, Ordering::SeqCst);
        time
    }

    fn datagram(&self, more: &str) -> Vec<u8> {
        let time = self.time();
        let json = format!(
            r#"{{"host":"web1","time":{}.{:06}{more}}}"#,
            time / 1_000_000,
            time % 1_000_000
        );
        encode::sign(&encode::signing_key(&Secret::new(SECRET)), json.as_bytes())
    }

    /// A signed beat from this address.
    fn beat(&self, hbd: &Hbd, from: &str) {
        send(hbd, from, &self.datagram(""));
    }

    fn cli(&self, hbd: Option<&Hbd>, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
        command.args(words);
        match hbd {
            Some(hbd) => command.arg("--url").arg(format!("http://{}", hbd.address)),
            None => command.arg("--config").arg(self.config()),
        };
        command.output().unwrap()
    }
}

/// Where it has none, IPv6 is left to the tests that move addresses by hand.
fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

/// Sends a datagram from an address of this machine.
fn send(hbd: &Hbd, from: &str, bytes: &[u8]) {
    let ready = hbd.wait_log("is ready: ");
    let port = ready.split("UDP ").nth(1).unwrap().split(',').next().unwrap();
    let port: SocketAddr = port.parse().unwrap();
    let here = if from.contains(':') { "::1" } else { "127.0.0.1" };
    let from: SocketAddr = SocketAddr::new(from.parse().unwrap(), 0);
    let to = SocketAddr::new(here.parse().unwrap(), port.port());
    assert!(UdpSocket::bind(from).unwrap().send_to(bytes, to).is_ok());
}

fn rfc2136(bind: &Bind, key: &str) -> String {
    format!(
        "method: rfc2136, server: 127.0.0.1, port: {}, zone: dyn.example.com, key_name: hbd, key: {key}",
        bind.port
    )
}

fn heard(hbd: &Hbd, count: f64) {
    hbd.wait_until("all datagrams are looked at", |hbd| {
        hbd.metric("hbd_datagrams_accepted_total") + hbd.metric("hbd_datagrams_rejected_total")
            >= count
    });
}

fn api(hbd: &Hbd) -> Value {
    let (_, answer) = hbd.request("GET", "/api/v1/dyndns", b"");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str::<Value>(body).unwrap()["names"][0].clone()
}

#[test]
fn a_name_follows_its_host_and_rests_while_that_does_not_move() {
    let bind = Bind::start();
    let place = Place::new(&rfc2136(&bind, KEY));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    bind.wait_for(NAME, "A", "127.0.0.2");
    place.beat(&hbd, "127.0.0.3");
    bind.wait_for(NAME, "A", "127.0.0.3");
    for _ in 0..20 {
        place.beat(&hbd, "127.0.0.3");
    }
    // One that is over before it has proven itself, among others that go on.
    place.beat(&hbd, "127.0.0.9");
    place.beat(&hbd, "127.0.0.3");
    heard(&hbd, 24.0);
    place.beat(&hbd, "127.0.0.4");
    bind.wait_for(NAME, "A", "127.0.0.4");
    let records = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
    assert_eq!(bind.added(), records.map(|address| format!("{NAME} A {address}")));

    let view = api(&hbd);
    assert_eq!((&view["host"], &view["name"]), (&"web1".into(), &NAME.into()), "{view}");
    hbd.wait_until("kept", |hbd| api(hbd)["state"] == "kept");
    let view = api(&hbd);
    assert_eq!(view["records"][0]["written"], "127.0.0.4", "{view}");
    assert!(view["records"][0]["last_update"].is_string(), "{view}");
    assert_eq!(hbd.metric("hbd_dyndns_up"), 1.0);
    let log = place.cli(Some(&hbd), &["log", "web1"]);
    let log = String::from_utf8(log.stdout).unwrap();
    assert!(log.contains(&format!("{NAME} A is 127.0.0.4")), "{log}");
    let state = place.cli(Some(&hbd), &["dyndns", "web1"]);
    let said = String::from_utf8(state.stdout).unwrap();
    assert_eq!(state.status.code(), Some(0), "{said}");
    assert!(said.contains("web1: web1.dyn.example.com is kept"), "{said}");
    assert!(said.contains("A    127.0.0.4, written 20"), "{said}");
    hbd.stop();
}

#[test]
fn both_families_have_their_records_and_a_longer_key_signs_as_well() {
    let bind = Bind::with("hmac-sha512");
    let place = Place::new(&format!("{}, algorithm: hmac-sha512, ttl: 2m", rfc2136(&bind, KEY)));
    bind.change(&format!("update add {NAME} 60 AAAA 2001:db8::1\nupdate add {NAME} 60 TXT x"));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    bind.wait_for(NAME, "A", "127.0.0.2");
    assert_eq!(bind.ask(NAME, "AAAA"), ["2001:db8::1"], "the other family is left alone");
    if has_ipv6() {
        place.beat(&hbd, "::1");
        bind.wait_for(NAME, "AAAA", "::1");
    }
    assert_eq!(bind.ask(NAME, "A"), ["127.0.0.2"]);
    assert_eq!(bind.ask(NAME, "TXT"), ["\"x\""]);
    hbd.stop();
}

#[test]
fn what_is_forged_moves_no_name() {
    let bind = Bind::start();
    let place = Place::new(&rfc2136(&bind, KEY));
    let hbd = Hbd::start(&place.config());
    let first = place.datagram("");
    send(&hbd, "127.0.0.2", &first);
    bind.wait_for(NAME, "A", "127.0.0.2");
    // The same again, from elsewhere and over the other family, where it is new.
    send(&hbd, "127.0.0.66", &first);
    send(&hbd, if has_ipv6() { "::1" } else { "127.0.0.65" }, &first);
    let unsigned = format!(r#"{{"host":"web1","time":{}}}"#, place.time() / 1_000_000);
    send(&hbd, "127.0.0.66", unsigned.as_bytes());
    let key = encode::signing_key(&Secret::new("another"));
    send(&hbd, "127.0.0.66", &encode::sign(&key, unsigned.as_bytes()));
    let mut changed = place.datagram("");
    *changed.last_mut().unwrap() = b' ';
    send(&hbd, "127.0.0.66", &changed);
    // A connection that nobody named in the configuration.
    send(&hbd, "127.0.0.67", &place.datagram(r#","connection":"vpn""#));
    // Another host, whose name is not kept.
    let json = format!(r#"{{"host":"web2","time":{}}}"#, place.time() / 1_000_000);
    let other = encode::sign(&encode::signing_key(&Secret::new(SECRET)), json.as_bytes());
    send(&hbd, "127.0.0.68", &other);
    heard(&hbd, 8.0);
    let (status, _) = hbd.request("POST", "/api/v1/heartbeat", &place.datagram(""));
    assert_eq!(status, 200, "the address of a proxy says nothing");
    place.beat(&hbd, "127.0.0.3");
    bind.wait_for(NAME, "A", "127.0.0.3");
    let expected = ["127.0.0.2", "127.0.0.3"].map(|address| format!("{NAME} A {address}"));
    assert_eq!(bind.added(), expected);
    assert_eq!(bind.ask(NAME, "AAAA"), Vec::<String>::new());
    hbd.stop();
}

#[test]
fn a_connection_of_another_name_counts_where_it_is_configured() {
    let bind = Bind::start();
    let place = Place::with(&rfc2136(&bind, KEY), "{connections: [vpn], name: 'gate.{zone}'}");
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    send(&hbd, "127.0.0.5", &place.datagram(r#","connection":"vpn""#));
    bind.wait_for("gate.dyn.example.com", "A", "127.0.0.5");
    assert_eq!(bind.added(), ["gate.dyn.example.com A 127.0.0.5"]);
    hbd.stop();
}

#[test]
fn a_private_address_is_not_published_unless_that_is_allowed() {
    let bind = Bind::start();
    let place = Place::with(&rfc2136(&bind, KEY), "{allow_private: false}");
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("not for the DNS, it is private");
    assert_eq!(api(&hbd)["state"], "unknown");
    place.configure(&rfc2136(&bind, KEY), "true");
    hbd.reload();
    place.beat(&hbd, "127.0.0.2");
    bind.wait_for(NAME, "A", "127.0.0.2");
    hbd.stop();
}

#[test]
fn a_wrong_key_is_told_at_once_and_so_is_the_right_one() {
    let bind = Bind::start();
    let place = Place::new(&rfc2136(&bind, OTHER_KEY));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    let told = hbd.wait_log("WARN  web1.dyn.example.com cannot be updated: 127.0.0.1 port");
    assert!(told.contains("BADSIG") && !told.contains(OTHER_KEY), "{told}");
    assert_eq!(api(&hbd)["state"], "refused");
    let state = place.cli(Some(&hbd), &["dyndns"]);
    assert_eq!(state.status.code(), Some(1));
    assert_eq!(bind.added(), Vec::<String>::new());
    place.configure(&rfc2136(&bind, KEY), "true");
    hbd.reload();
    bind.wait_for(NAME, "A", "127.0.0.2");
    hbd.wait_log("web1.dyn.example.com is kept up to date again");
    hbd.stop();
}

#[test]
fn a_key_that_the_server_does_not_have_is_refused_in_its_own_words() {
    let bind = Bind::start();
    let place = Place::new(&rfc2136(&bind, KEY).replace("key_name: hbd", "key_name: nobody"));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("BADKEY: it has no key nobody");
    hbd.stop();
    let place = Place::new(&rfc2136(&bind, KEY).replace("zone: dyn.", "zone: "));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("NOTAUTH");
    hbd.stop();
}

#[test]
fn a_server_that_is_down_is_told_of_and_gets_the_newest_address_when_it_is_back() {
    let mut bind = Bind::start();
    let place = Place::new(&format!("{}, report_after: 1s", rfc2136(&bind, KEY)));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    bind.wait_for(NAME, "A", "127.0.0.2");
    bind.down();
    place.beat(&hbd, "127.0.0.3");
    let told = hbd.wait_log("WARN  web1.dyn.example.com cannot be updated: 127.0.0.1 port");
    assert!(told.contains("refused"), "{told}");
    hbd.wait_log("meanwhile: the name may lead to an address");
    place.beat(&hbd, "127.0.0.4");
    hbd.wait_until("the new address is known", |hbd| {
        api(hbd)["records"][0]["address"] == "127.0.0.4"
    });
    bind.up();
    bind.wait_for(NAME, "A", "127.0.0.4");
    hbd.wait_log("web1.dyn.example.com is kept up to date again");
    hbd.stop();
}

#[test]
fn a_restart_in_the_middle_resumes_and_writes_nothing_twice() {
    let mut bind = Bind::start();
    let place = Place::new(&rfc2136(&bind, KEY));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    bind.wait_for(NAME, "A", "127.0.0.2");
    hbd.wait_until("kept", |hbd| api(hbd)["state"] == "kept");
    bind.down();
    place.beat(&hbd, "127.0.0.3");
    hbd.wait_log("cannot be updated");
    // Answered after all that was stored before is on disk.
    assert_eq!(hbd.request("GET", "/api/v1/backups", b"").0, 200);
    hbd.kill();
    bind.up();
    // Nobody beats: what was known is enough.
    let hbd = Hbd::start(&place.config());
    bind.wait_for(NAME, "A", "127.0.0.3");
    hbd.wait_until("kept", |hbd| api(hbd)["state"] == "kept");
    hbd.stop();
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.3");
    hbd.wait_log("web1.dyn.example.com A is 127.0.0.3 already");
    hbd.stop();
    assert_eq!(bind.added().len(), 2, "{:?}", bind.added());

    bind.change(&format!("update delete {NAME} A\nupdate add {NAME} 60 A 127.0.0.99"));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.3");
    bind.wait_for(NAME, "A", "127.0.0.3");
    hbd.stop();
}

/// What a provider has in its books, and what it was asked.
#[derive(Default)]
struct Books {
    address: Option<String>,
    asked: Vec<String>,
    blocked: Option<&'static str>,
}

/// Speaks dyndns2 as <https://help.dyn.com/remote-access-api/> has it, and is as strict.
fn dyndns2(books: &Arc<Mutex<Books>>) -> HttpDouble {
    let books = Arc::clone(books);
    HttpDouble::start(move |request| answer(&mut lock(&books), request))
}

fn answer(books: &mut Books, request: &Request) -> Reply {
    books.asked.push(request.target.clone());
    let agent = request.header("user-agent").unwrap_or_default();
    if !agent.starts_with("heartbeat/") || agent.contains("ureq") {
        return reply(200, "badagent");
    }
    // ann:secret-word
    if request.header("authorization") != Some("Basic YW5uOnNlY3JldC13b3Jk") {
        return reply(401, "badauth");
    }
    let Some(query) = request.target.strip_prefix("/nic/update?") else { return reply(404, "") };
    let value = |name| {
        query.split('&').find_map(|part| part.split_once('=').filter(|(key, _)| *key == name))
    };
    let (hostname, address) = (value("hostname"), value("myip"));
    let (Some((_, hostname)), Some((_, address))) = (hostname, address) else {
        return reply(200, "notfqdn");
    };
    if !hostname.contains('.') {
        return reply(200, "notfqdn");
    }
    if hostname != "home.example.net" {
        return reply(200, "nohost");
    }
    if let Some(blocked) = books.blocked {
        return reply(200, blocked);
    }
    if books.address.as_deref() == Some(address) {
        return reply(200, format!("nochg {address}\n"));
    }
    books.address = Some(address.to_owned());
    reply(200, format!("good {address}\n"))
}

fn http(double: &HttpDouble, password: &str) -> String {
    format!(
        "method: http, url: '{}/nic/update?hostname={{name}}&myip={{ip}}', name: home.example.net, user: ann, password: {password}",
        double.url
    )
}

fn asked(books: &Arc<Mutex<Books>>) -> usize {
    lock(books).asked.len()
}

#[test]
fn a_provider_is_asked_once_for_each_address() {
    let books = Arc::new(Mutex::new(Books::default()));
    let double = dyndns2(&books);
    let place = Place::new(&http(&double, "secret-word"));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("home.example.net A is 127.0.0.2 now");
    lock(&books).address = Some("127.0.0.3".into());
    place.beat(&hbd, "127.0.0.3");
    hbd.wait_log("home.example.net A is 127.0.0.3 now");
    assert_eq!(api(&hbd)["state"], "kept", "nochg is as good");
    hbd.stop();
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.3");
    heard(&hbd, 1.0);
    place.beat(&hbd, "127.0.0.4");
    hbd.wait_log("home.example.net A is 127.0.0.4 now");
    assert_eq!(asked(&books), 3, "{:?}", lock(&books).asked);
    hbd.stop();
}

#[test]
fn a_provider_that_refuses_is_left_alone_until_the_configuration_changes() {
    let books = Arc::new(Mutex::new(Books::default()));
    let double = dyndns2(&books);
    let place = Place::new(&http(&double, "wrong-word"));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    let told = hbd.wait_log("WARN  home.example.net cannot be updated: http://127.0.0.1:");
    assert!(told.contains("answers badauth: user or password are wrong"), "{told}");
    assert!(!told.contains("nic") && !told.contains("wrong-word"), "{told}");
    // Neither another address nor a restart makes it ask again.
    place.beat(&hbd, "127.0.0.3");
    hbd.wait_until("known", |hbd| api(hbd)["records"][0]["address"] == "127.0.0.3");
    hbd.stop();
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.4");
    hbd.wait_until("known", |hbd| api(hbd)["records"][0]["address"] == "127.0.0.4");
    assert_eq!(api(&hbd)["state"], "refused");
    assert_eq!(asked(&books), 1);
    place.configure(&http(&double, "secret-word"), "true");
    hbd.reload();
    place.beat(&hbd, "127.0.0.4");
    hbd.wait_log("home.example.net is kept up to date again");
    assert_eq!(lock(&books).address.as_deref(), Some("127.0.0.4"));
    hbd.stop();
}

#[test]
fn abuse_and_maintenance_are_answered_by_patience() {
    for (blocked, state, words) in
        [("abuse", "refused", "blocked for abuse"), ("911", "failing", "trouble of its own")]
    {
        let blocked = Some(blocked);
        let books = Arc::new(Mutex::new(Books { blocked, ..Books::default() }));
        let double = dyndns2(&books);
        let place = Place::new(&http(&double, "secret-word"));
        let hbd = Hbd::start(&place.config());
        place.beat(&hbd, "127.0.0.2");
        hbd.wait_log(words);
        let view = api(&hbd);
        assert_eq!(view["state"], state, "{view}");
        let next = view["next_attempt"].as_str().unwrap();
        let least = if state == "failing" { 29 * 60 } else { 23 * 3600 };
        let soon = SystemTime::now() + Duration::from_secs(least);
        assert!(next > humantime::format_rfc3339_millis(soon).to_string().as_str(), "{view}");
        hbd.stop();
        lock(&books).blocked = None;
        let hbd = Hbd::start(&place.config());
        place.beat(&hbd, "127.0.0.2");
        heard(&hbd, 1.0);
        assert_eq!((asked(&books), &api(&hbd)["state"] == "kept"), (1, false), "{words}");
        hbd.stop();
    }
}

#[test]
fn the_maintenance_of_a_provider_holds_for_all_its_names() {
    let books = Arc::new(Mutex::new(Books { blocked: Some("911"), ..Books::default() }));
    let double = dyndns2(&books);
    let other = "true}, web3: {dyndns: {name: home.example.net}";
    let place = Place::new("method: rfc2136");
    let settings = http(&double, "secret-word").replace("name: home", "name: '{host}.home");
    let settings = settings.replace(".example.net,", ".example.net',");
    place.configure(&settings, other);
    let hbd = Hbd::start(&place.config());
    let json = format!(r#"{{"host":"web3","time":{}}}"#, place.time() / 1_000_000 + 1);
    send(
        &hbd,
        "127.0.0.2",
        &encode::sign(&encode::signing_key(&Secret::new(SECRET)), json.as_bytes()),
    );
    hbd.wait_log("home.example.net cannot be updated: http");
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("web1.home.example.net cannot be updated: http");
    assert_eq!(asked(&books), 1);
    hbd.stop();
}

#[test]
fn duckdns_takes_its_token_in_the_address_and_nobody_sees_it() {
    let double = HttpDouble::start(|request| {
        let good = "/update?domains=web1&token=a7c4d0ad-114e-40ef-ba1d-d217904a50f2&ip=127.0.0.2";
        reply(200, if request.target == good { "OK" } else { "KO" })
    });
    let url = |token: &str| {
        let url = format!("{}/update?domains={{host}}&token={token}&ip={{ip}}", double.url);
        format!("method: http, url: '{url}'")
    };
    let place = Place::new(&url("a7c4d0ad-114e-40ef-ba1d-d217904a50f2"));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    let said = hbd.wait_log("web1 A is 127.0.0.2 now, written to http://127.0.0.1:");
    assert!(!said.contains("a7c4d0ad"), "{said}");
    let dry = place.cli(None, &["dyndns", "web1", "--dry-run", "--address", "1.1.1.1"]);
    let said = String::from_utf8(dry.stdout).unwrap();
    assert_eq!(said, format!("GET {}/update?domains=web1&token=[secret]&ip=1.1.1.1\n", double.url));
    place.beat(&hbd, "127.0.0.3");
    let told = hbd.wait_log("cannot be updated: http://127.0.0.1:");
    assert!(told.contains("answers KO") && !told.contains("a7c4d0ad"), "{told}");
    hbd.stop();
}

#[test]
fn what_would_be_sent_is_shown_without_sending_it() {
    let mut bind = Bind::start();
    let place = Place::new(&rfc2136(&bind, KEY));
    let words = ["dyndns", "web1", "--dry-run", "--address", "1.1.1.1", "--address", "2a00::1"];
    let dry = place.cli(None, &words);
    let said = String::from_utf8(dry.stdout).unwrap();
    assert_eq!(dry.status.code(), Some(0), "{said}");
    let port = bind.port;
    assert_eq!(
        said,
        format!(
            "server 127.0.0.1 {port}\nzone dyn.example.com.\nkey hmac-sha256:hbd [secret]\n\
             update delete {NAME}. A\nupdate add {NAME}. 60 A 1.1.1.1\n\
             update delete {NAME}. AAAA\nupdate add {NAME}. 60 AAAA 2a00::1\nsend\n"
        )
    );
    assert_eq!(bind.added(), Vec::<String>::new());
    // nsupdate would do as it says.
    let script = said.replace("[secret]", KEY);
    let script: String = script
        .lines()
        .filter(|line| *line != "send")
        .fold(String::new(), |all, line| all + line + "\n");
    bind.change(&script);
    assert_eq!(bind.ask(NAME, "AAAA"), ["2a00::1"]);
    bind.down();
    let dry = place.cli(None, &["dyndns", "web1", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(3), "no address, and no daemon to ask");
    let nobody = place.cli(None, &["dyndns", "web2", "--dry-run", "--address", "1.1.1.1"]);
    assert_eq!(nobody.status.code(), Some(1));
}

#[test]
fn an_alias_is_refused_since_the_server_would_pass_over_the_address() {
    let bind = Bind::start();
    bind.change(&format!("update add {NAME} 60 CNAME elsewhere.example.com."));
    let place = Place::new(&rfc2136(&bind, KEY));
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("the name is an alias there (CNAME)");
    assert_eq!(api(&hbd)["state"], "refused");
    bind.change(&format!("update delete {NAME} CNAME"));
    bind.wait_for(NAME, "A", "127.0.0.2");
    hbd.wait_log("web1.dyn.example.com is kept up to date again");
    hbd.stop();
}

#[test]
fn a_provider_is_known_by_its_certificate() {
    let books = Arc::new(Mutex::new(Books::default()));
    let double = dyndns2(&books);
    let secure = tls_front(&double.url, "server.pem");
    let settings = http(&double, "secret-word").replace(&double.url, &secure);
    let place = Place::new(&settings);
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("its certificate is not trusted, see ca_file");
    assert_eq!(asked(&books), 0);
    let ca = tls_file("ca.pem").display().to_string();
    place.configure(&format!("{settings}, ca_file: {ca}"), "true");
    hbd.reload();
    hbd.wait_log("home.example.net A is 127.0.0.2 now");
    hbd.stop();
}

#[test]
fn servers_that_misbehave_are_tried_again() {
    let modes = [
        Mode::DropAfterReading,
        Mode::DropBeforeReading,
        Mode::Status(503, "busy".into()),
        Mode::Cut(200, "good"),
    ];
    for mode in modes {
        let books = Arc::new(Mutex::new(Books::default()));
        let double = dyndns2(&books);
        double.set_mode(mode);
        let place = Place::new(&http(&double, "secret-word"));
        let hbd = Hbd::start(&place.config());
        place.beat(&hbd, "127.0.0.2");
        hbd.wait_log("cannot be updated: http://127.0.0.1:");
        assert_eq!(api(&hbd)["state"], "failing");
        double.set_mode(Mode::Normal);
        hbd.wait_log("home.example.net A is 127.0.0.2 now");
        hbd.stop();
    }
    // What accepts a connection and says nothing of DNS.
    let double = HttpDouble::start(|_| reply(200, "x"));
    let port = double.url.rsplit(':').next().unwrap().to_owned();
    let place = Place::new(&format!(
        "method: rfc2136, server: 127.0.0.1, port: {port}, zone: dyn.example.com, key_name: hbd, key: {KEY}"
    ));
    double.set_mode(Mode::DropBeforeReading);
    let hbd = Hbd::start(&place.config());
    place.beat(&hbd, "127.0.0.2");
    hbd.wait_log("web1.dyn.example.com cannot be updated: 127.0.0.1 port");
    // A stop does not wait for it.
    double.set_mode(Mode::Hang);
    hbd.stop();
}
