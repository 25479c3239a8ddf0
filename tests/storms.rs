//! Hosts behind others, hosts that fall silent together, and hosts that change again and again: what
//! people get of it, by hbd as an operator runs it.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod beats;
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod pushover;
    pub mod signal;
    pub mod smtp;
}

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use mailparse::{MailHeaderMap, parse_mail};
use serde_json::Value;
use support::beats::Beats;
use support::hbd::Hbd;
use support::http_double::lock;
use support::mattermost::{MattermostDouble, Mode};
use support::pushover::PushoverDouble;
use support::signal::SignalDouble;
use support::smtp::{Script, Server};

/// How often the hosts beat here, and how long each is waited for.
const INTERVAL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(2500);
/// Kills of each kind: in a usual run, and in a long one.
const KILLS: usize = 3;
const MANY_KILLS: usize = 20;

/// A channel of every kind, and a directory with a configuration and a state.
struct Place {
    directory: tempfile::TempDir,
    chat: MattermostDouble,
    push: PushoverDouble,
    phone: SignalDouble,
    mail: Server,
    mails: Mutex<Vec<String>>,
}

impl Place {
    /// With this below `hosts` and this at the top level. Everything is told to the chat where
    /// nothing else is said.
    fn new(hosts: &str, rest: &str) -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
            chat: MattermostDouble::start(),
            push: PushoverDouble::start(),
            phone: SignalDouble::start(),
            mail: Script::default().start(),
            mails: Mutex::default(),
        };
        let text = format!(
            r#"
state_dir: {state}
heartbeat: {{port: 0, interval: 500ms, grace: 2s}}
receiver: {{port: 0}}
notification_channels:
  chat: {{type: mattermost, host: "{chat}", token: {token}, channel: ops}}
  push: {{type: pushover, token: {push_token}, user: {user}, api_url: "{push}"}}
  phone: {{type: signal, cli_path: "{cli}", user: "+12025550100", recipient: "+12025550101"}}
  mail: {{type: email, recipients: [ann@example.com], sender: hbd@example.com,
    smtp_server: 127.0.0.1, smtp_port: {port}, tls: none}}
  log: {{type: log}}
default_notification_channels: [chat]
hosts:
{hosts}{rest}
"#,
            state = place.directory.path().join("state").display(),
            chat = place.chat.url,
            token = place.chat.token,
            push_token = PushoverDouble::TOKEN,
            user = PushoverDouble::USER,
            push = place.push.url,
            cli = place.phone.cli_path.display(),
            port = place.mail.port,
        );
        fs::write(place.directory.path().join("heartbeat.yaml"), text).unwrap();
        place
    }

    fn start(&self) -> Hbd {
        Hbd::start(&self.directory.path().join("heartbeat.yaml"))
    }

    /// Ends the daemon at once, and starts another one that the hosts beat at.
    fn kill(&self, hbd: Hbd, beats: &[&Beats]) -> Hbd {
        hbd.crash();
        let hbd = self.start();
        beats.iter().for_each(|beats| beats.redirect(hbd.udp()));
        hbd
    }

    /// The messages of the chat, without those that say that they may be repeats.
    fn chat(&self) -> Vec<String> {
        let taken = self.chat.received().into_iter();
        let taken = taken.filter(|post| matches!(post.mode, Mode::Normal));
        let texts = taken.map(|post| post.text);
        texts.filter(|text| !text.contains("possible repeat")).collect()
    }

    /// As soon as there are so many messages in the chat and no more wait; each has these words.
    fn wait_chat(&self, hbd: &Hbd, words: &[&str]) {
        hbd.wait_until(&format!("{words:?} and not {:#?}", self.chat()), |_| {
            self.chat().len() >= words.len()
        });
        wait_sent(hbd);
        let chat = self.chat();
        assert_eq!(chat.len(), words.len(), "{words:?}: {chat:#?}");
        for (text, words) in chat.iter().zip(words) {
            assert!(text.contains(words), "{words}: {chat:#?}");
        }
    }

    /// What each other channel was sent, with its title.
    fn others(&self) -> [Vec<String>; 3] {
        let push = self.push.received().into_iter();
        let push = push.map(|fields| format!("{}\n{}", fields["title"], fields["message"]));
        let phone = self.phone.received().into_iter().map(|(text, _)| text);
        let mut mails = lock(&self.mails);
        for mail in self.mail.ended().into_iter().flat_map(|session| session.mails) {
            let mail = parse_mail(&mail).unwrap();
            mails.push(mail.headers.get_first_value("Subject").unwrap_or_default());
        }
        [push.collect(), phone.collect(), mails.clone()]
    }

    /// What must not have been sent was not.
    fn sound(&self) {
        for violations in [self.chat.violations(), self.push.violations(), self.phone.violations()]
        {
            assert_eq!(violations, [""; 0]);
        }
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number:03}")).collect()
}

/// Watched hosts, with this in each of them.
fn hosts(names: &[String], more: &str) -> String {
    names.iter().map(|name| format!("  {name}: {{watch: true{more}}}\n")).collect()
}

fn get(hbd: &Hbd, target: &str) -> Value {
    let mut answer = ureq::get(format!("http://{}{target}", hbd.address)).call().unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

/// The events of a kind, the newest first.
fn events(hbd: &Hbd, kind: &str) -> Vec<Value> {
    get(hbd, &format!("/api/v1/events?limit=1000&kind={kind}"))["events"]
        .as_array()
        .unwrap()
        .clone()
}

fn send(hbd: &Hbd, datagram: &str) {
    let (status, answer) = hbd.request("POST", "/api/v1/heartbeat", datagram.as_bytes());
    assert_eq!(status, 200, "{datagram}: {answer}");
}

/// Nothing waits to be sent.
fn wait_sent(hbd: &Hbd) {
    hbd.wait_until("sent", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
}

/// So many connections are up.
fn wait_up(hbd: &Hbd, count: usize) {
    hbd.wait_until(&format!("{count} are up"), |hbd| {
        hbd.metric("hbd_connection_up") == count as f64
    });
}

/// So many things are held back for that reason.
fn wait_held(hbd: &Hbd, reason: &str, count: usize) {
    let name = format!("hbd_held{{reason=\"{reason}\"}}");
    hbd.wait_until(&format!("{count} held by {reason}"), |hbd| hbd.metric(&name) == count as f64);
}

fn state(hbd: &Hbd, host: &str) -> String {
    get(hbd, &format!("/api/v1/hosts/{host}"))["state"].as_str().unwrap().to_owned()
}

fn wait_state(hbd: &Hbd, host: &str, wanted: &str) {
    hbd.wait_until(&format!("{host} is {wanted}"), |hbd| state(hbd, host) == wanted);
}

fn time(value: &Value) -> Duration {
    let time = humantime::parse_rfc3339(value.as_str().unwrap()).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap()
}

/// A router, 500 hosts behind it, all of them up, and these channels for all.
fn behind_a_router(channels: &str) -> (Place, Hbd, Beats, Vec<String>) {
    let mut all = vec!["router".to_owned()];
    let behind = names("h", 500);
    let hosts = hosts(&all, "") + &hosts(&behind, ", depends_on: [router]");
    let place = Place::new(&hosts, "");
    let file = place.directory.path().join("heartbeat.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let default = format!("default_notification_channels: [{channels}]");
    fs::write(&file, text.replace("default_notification_channels: [chat]", &default)).unwrap();
    let hbd = place.start();
    all.extend(behind);
    let beats = Beats::start(hbd.udp(), &all, INTERVAL);
    wait_up(&hbd, 501);
    (place, hbd, beats, all)
}

const ROUTER_TOLD: [&str; 2] = ["router ipv4 overdue", "router ipv4 is back"];

#[test]
fn five_hundred_hosts_behind_a_router_are_one_message_on_every_channel() {
    let (place, hbd, beats, all) = behind_a_router("chat, push, phone, mail");
    beats.cut(&all);
    wait_held(&hbd, "parent", 500);
    place.wait_chat(&hbd, &ROUTER_TOLD[..1]);
    let text = place.chat().remove(0);
    assert!(text.contains("behind it"), "{text}");
    assert!(text.contains(" more, not told while it is overdue"), "{text}");
    beats.heal();
    wait_up(&hbd, 501);
    wait_held(&hbd, "parent", 0);
    place.wait_chat(&hbd, &ROUTER_TOLD);
    for sent in place.others() {
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert!(sent.iter().zip(ROUTER_TOLD).all(|(sent, told)| sent.contains(told)), "{sent:?}");
    }
    place.sound();
    hbd.stop();
}

#[test]
fn of_five_hundred_hosts_behind_a_router_those_that_stay_away_are_told() {
    let (place, hbd, beats, all) = behind_a_router("chat, push, phone, mail");
    beats.cut(&all);
    wait_held(&hbd, "parent", 500);
    place.wait_chat(&hbd, &ROUTER_TOLD[..1]);
    let away = &all[100..103];
    beats.heal_all_but(away);
    wait_up(&hbd, 498);
    let words = [&ROUTER_TOLD[..], &["ipv4 overdue"; 3]].concat();
    place.wait_chat(&hbd, &words);
    wait_held(&hbd, "parent", 0);
    let chat = place.chat();
    for name in away {
        let own = |text: &&String| text.contains(&format!("{name} ipv4 overdue"));
        let text = chat.iter().find(own).unwrap_or_else(|| panic!("{name}: {chat:#?}"));
        assert!(text.contains("while router was overdue"), "{text}");
    }
    for sent in place.others() {
        // Where one waits for another, what is critical goes first.
        assert_eq!(sent.len(), 5, "{sent:?}");
        let overdue = sent.iter().filter(|sent| sent.contains(" ipv4 overdue")).count();
        assert_eq!(overdue, 4, "{sent:?}");
    }
    place.sound();
    hbd.stop();
}

#[test]
fn a_host_that_falls_due_before_its_router_is_not_told() {
    let (router, child) = (names("router", 1), names("child", 1));
    let place = Place::new(
        &(hosts(&router, ", interval: 2s, grace: 4s")
            + &hosts(&child, ", depends_on: [router000]")),
        "",
    );
    let hbd = place.start();
    let parent = Beats::start(hbd.udp(), &router, Duration::from_secs(2));
    let beats = Beats::start(hbd.udp(), &child, INTERVAL);
    wait_up(&hbd, 2);
    parent.cut(&router);
    beats.cut(&child);
    wait_state(&hbd, "child000", "OVERDUE");
    wait_held(&hbd, "parent", 1);
    place.wait_chat(&hbd, &["router000 ipv4 overdue"]);
    let (held, alerts) = (get(&hbd, "/api/v1/held"), get(&hbd, "/api/v1/alerts"));
    let reason = &held["held"][0]["reasons"][0];
    assert_eq!((&reason["why"], &reason["id"]), (&"parent".into(), &"router000".into()), "{held}");
    assert_eq!(reason["until"], Value::Null);
    assert_eq!(alerts["alerts"].as_array().unwrap().len(), 2, "{alerts}");
    let page = hbd.request("GET", "/", b"").1;
    assert!(page.contains("1 host that is down holds 1 thing back"), "{page}");
    let why = "held back by router000, which is down";
    assert!(page.contains(why), "{page}");
    let page = hbd.request("GET", "/hosts/child000", b"").1;
    assert!(page.contains(why), "{page}");
    let page = hbd.request("GET", "/hosts/router000", b"").1;
    assert!(!page.contains(why), "{page}");

    // Both are back, the child within its patience.
    parent.heal();
    beats.heal();
    wait_up(&hbd, 2);
    wait_held(&hbd, "parent", 0);
    let mut told = vec!["router000 ipv4 overdue", "router000 ipv4 is back"];
    place.wait_chat(&hbd, &told);

    // The router is back, the child after its patience.
    parent.cut(&router);
    beats.cut(&child);
    wait_held(&hbd, "parent", 1);
    parent.heal();
    told.extend(["router000 ipv4 overdue", "router000 ipv4 is back", "child000 ipv4 overdue"]);
    place.wait_chat(&hbd, &told);
    let text = place.chat().remove(4);
    assert!(text.contains("held back") && text.contains("while router000 was overdue"), "{text}");
    beats.heal();
    told.push("child000 ipv4 is back");
    place.wait_chat(&hbd, &told);
    place.sound();
    hbd.stop();
}

#[test]
fn a_host_whose_router_beats_on_is_told() {
    let (router, child) = (names("router", 1), names("child", 1));
    let place = Place::new(
        &(hosts(&router, ", interval: 5s, grace: 5s")
            + &hosts(&child, ", depends_on: [router000]")),
        "",
    );
    let hbd = place.start();
    let _parent = Beats::start(hbd.udp(), &router, Duration::from_secs(5));
    let beats = Beats::start(hbd.udp(), &child, INTERVAL);
    wait_up(&hbd, 2);
    beats.cut(&child);
    place.wait_chat(&hbd, &["child000 ipv4 overdue"]);
    assert!(!place.chat()[0].contains("held back"), "{:?}", place.chat());
    beats.heal();
    place.wait_chat(&hbd, &["child000 ipv4 overdue", "child000 ipv4 is back"]);
    place.sound();
    hbd.stop();
}

#[test]
fn a_host_that_is_back_before_it_is_known_whose_silence_it_was_is_only_recorded() {
    let (router, child) = (names("router", 1), names("child", 1));
    let place = Place::new(
        &(hosts(&router, ", interval: 30s, grace: 30s")
            + &hosts(&child, ", depends_on: [router000]")),
        "",
    );
    let hbd = place.start();
    send(&hbd, r#"{"host":"router000"}"#);
    let beats = Beats::start(hbd.udp(), &child, INTERVAL);
    wait_up(&hbd, 2);
    beats.cut(&child);
    wait_state(&hbd, "child000", "OVERDUE");
    beats.heal();
    wait_state(&hbd, "child000", "UP");
    hbd.wait_until("recorded", |hbd| events(hbd, "back").len() == 1);
    let overdue = events(&hbd, "overdue");
    assert_eq!((overdue.len(), &overdue[0]["told"]), (1, &Value::Null), "{overdue:?}");
    wait_sent(&hbd);
    assert_eq!(place.chat(), [""; 0]);
    hbd.stop();
}

#[test]
fn a_channel_that_hears_of_the_host_only_is_told_of_it() {
    let (router, child) = (names("router", 1), names("child", 1));
    let place = Place::new(
        &(hosts(&router, ", notification_channels: [log]")
            + &hosts(&child, ", depends_on: [router000]")),
        "",
    );
    let hbd = place.start();
    let all = [router, child].concat();
    let beats = Beats::start(hbd.udp(), &all, INTERVAL);
    wait_up(&hbd, 2);
    beats.cut(&all);
    place.wait_chat(&hbd, &["child000 ipv4 overdue"]);
    hbd.wait_log("router000 ipv4 overdue");
    beats.heal();
    place.wait_chat(&hbd, &["child000 ipv4 overdue", "child000 ipv4 is back"]);
    hbd.stop();
}

#[test]
fn an_uplink_that_the_channel_needs_too_is_one_message_in_all() {
    let cut_off = names("h", 14);
    let place = Place::new(&hosts(&cut_off, ""), "");
    let hbd = place.start();
    let beats = Beats::start(hbd.udp(), &cut_off, INTERVAL);
    wait_up(&hbd, 14);
    // It surely takes nothing: what may have arrived would be sent once more by itself.
    place.chat.set_mode(Mode::Status(503, String::new()));
    beats.cut(&cut_off);
    hbd.wait_until("a storm", |hbd| events(hbd, "storm").len() == 1);
    wait_held(&hbd, "storm", 14);
    let storm = events(&hbd, "storm").remove(0);
    let title = storm["text"].as_str().unwrap();
    assert!(title.starts_with("14 of 14 hosts fell silent within "), "{title}");
    assert!(title.ends_with(": probably this machine's own uplink"), "{title}");
    assert_eq!(storm["level"], "critical");
    let page = hbd.request("GET", "/", b"").1;
    assert!(page.contains("a storm holds 14 things back"), "{page}");
    beats.heal();
    wait_up(&hbd, 14);
    hbd.wait_until("the end of it", |hbd| events(hbd, "storm_over").len() == 1);
    wait_held(&hbd, "storm", 0);
    assert_eq!(place.chat(), [""; 0]);
    place.chat.set_mode(Mode::Normal);
    hbd.wait_until("told", |_| !place.chat().is_empty());
    wait_sent(&hbd);
    let chat = place.chat();
    assert_eq!(chat.len(), 1, "{chat:#?}");
    assert!(chat[0].contains("14 of 14 hosts fell silent"), "{chat:#?}");
    assert!(chat[0].contains("the 14 hosts are back (gone for: "), "{chat:#?}");
    hbd.stop();
}

#[test]
fn after_a_storm_those_that_are_still_silent_are_told() {
    let all = names("h", 14);
    let place = Place::new(&hosts(&all, ""), "");
    let hbd = place.start();
    let beats = Beats::start(hbd.udp(), &all, INTERVAL);
    wait_up(&hbd, 14);
    beats.cut(&all[..12]);
    let began = "12 of 14 hosts fell silent within ";
    place.wait_chat(&hbd, &[began]);
    wait_held(&hbd, "storm", 12);
    beats.heal_all_but(&all[..2]);
    let over = "10 of the 12 hosts are back; still silent: h000, h001";
    place.wait_chat(&hbd, &[began, over, "ipv4 overdue", "ipv4 overdue"]);
    let chat = place.chat();
    assert!(chat[2..].iter().all(|text| text.contains("held back")), "{chat:#?}");
    wait_held(&hbd, "storm", 0);
    beats.heal();
    wait_up(&hbd, 14);
    let back = "ipv4 is back";
    place.wait_chat(&hbd, &[began, over, "ipv4 overdue", "ipv4 overdue", back, back]);
    hbd.stop();
}

/// Each message within 100 ms of the deadline. A machine that is busy with other things may be late
/// once, not three times.
#[test]
fn a_few_hosts_that_fall_silent_together_are_told_at_once() {
    let all = names("h", 14);
    let place = Place::new(&hosts(&all, ""), "calm: {flapping: off}");
    let hbd = place.start();
    let beats = Beats::start(hbd.udp(), &all, INTERVAL);
    wait_up(&hbd, 14);
    let mut told = Vec::new();
    let mut late = Vec::new();
    for _ in 0..3 {
        beats.cut(&all[..2]);
        told.extend(["ipv4 overdue"; 2]);
        place.wait_chat(&hbd, &told);
        late = events(&hbd, "overdue")[..2].iter().map(|event| lateness(&hbd, event)).collect();
        assert!(late.iter().all(|late| *late < Duration::from_secs(10)), "it waited: {late:?}");
        beats.heal();
        wait_up(&hbd, 14);
        told.extend(["ipv4 is back"; 2]);
        place.wait_chat(&hbd, &told);
        if late.iter().all(|late| *late <= Duration::from_millis(100)) {
            break;
        }
    }
    assert!(late.iter().all(|late| *late <= Duration::from_millis(100)), "{late:?}");
    hbd.stop();
}

/// How long after the deadline of its connection an overdue event came.
fn lateness(hbd: &Hbd, event: &Value) -> Duration {
    let host = get(hbd, &format!("/api/v1/hosts/{}", event["host"].as_str().unwrap()));
    assert_eq!(host["state"], "OVERDUE", "{host}");
    let seen = time(&host["connections"][0]["last_seen"]);
    time(&event["at"]).saturating_sub(seen + PATIENCE)
}

const FLAPPING: &str = "calm: {flapping: {changes: 6, within: 5m, quiet: 20s}, storm: off}";

/// A host that is overdue and back until it has changed so often.
struct Flapper {
    hbd: Hbd,
    changes: usize,
}

impl Flapper {
    /// One change, which is on disk.
    fn change(&mut self) {
        let (datagram, state) = match self.changes % 2 {
            0 => (r#"{"host":"web1","interval":0.1}"#, "OVERDUE"),
            _ => (r#"{"host":"web1","interval":3600}"#, "UP"),
        };
        send(&self.hbd, datagram);
        wait_state(&self.hbd, "web1", state);
        // An answer says that this and all before it is kept.
        send(&self.hbd, r#"{"host":"other","interval":3600}"#);
        self.changes += 1;
    }
}

/// Five changes, the flapping, and how it is when it has settled; so many kills while it flaps.
fn flaps(kills: usize) {
    const TOLD: [&str; 6] = [
        "web1 ipv4 overdue",
        "web1 ipv4 is back",
        "web1 ipv4 overdue",
        "web1 ipv4 is back",
        "web1 ipv4 overdue",
        "web1 ipv4 is flapping: 6 changes in ",
    ];
    let place =
        Place::new("  web1: {watch: true, grace: 100ms}\n  other: {watch: false}\n", FLAPPING);
    let mut flapper = Flapper { hbd: place.start(), changes: 0 };
    for told in 1..=TOLD.len() {
        flapper.change();
        place.wait_chat(&flapper.hbd, &TOLD[..told]);
    }
    let page = flapper.hbd.request("GET", "/", b"").1;
    assert!(page.contains("web1 ipv4 is flapping: 6 changes in "), "{page}");
    assert!(page.contains(", told again if it is quiet until "), "{page}");
    for number in 0..kills.max(4) * 2 {
        if number < kills {
            flapper.hbd = place.kill(flapper.hbd, &[]);
        }
        flapper.change();
    }
    place.wait_chat(&flapper.hbd, &TOLD);
    let settled = format!("web1 ipv4 has settled: up ({} changes in ", flapper.changes);
    place.wait_chat(&flapper.hbd, &[&TOLD[..], &[&settled]].concat());
    wait_held(&flapper.hbd, "flapping", 0);
    // And it is told as ever.
    flapper.change();
    place.wait_chat(&flapper.hbd, &[&TOLD[..], &[&settled, "web1 ipv4 overdue"]].concat());
    place.sound();
    flapper.hbd.stop();
}

#[test]
fn a_host_that_flaps_is_five_changes_and_two_messages() {
    flaps(0);
}

#[test]
fn a_host_that_flaps_is_told_as_without_kills() {
    flaps(KILLS);
}

/// Nobody is told of those behind it, however often it comes and goes.
#[test]
fn a_router_that_flaps_is_told_alone() {
    let behind = names("h", 20);
    let router = vec!["router".to_owned()];
    let hosts = hosts(&router, "") + &hosts(&behind, ", depends_on: [router]");
    let place = Place::new(&hosts, FLAPPING);
    let hbd = place.start();
    let all = [router, behind].concat();
    let beats = Beats::start(hbd.udp(), &all, INTERVAL);
    wait_up(&hbd, 21);
    let (overdue, back) = ("router ipv4 overdue", "router ipv4 is back");
    let told = [overdue, back, overdue, back, overdue, "router ipv4 is flapping: 6 changes in "];
    for round in 1..=3 {
        beats.cut(&all);
        wait_up(&hbd, 0);
        wait_held(&hbd, "parent", 20);
        place.wait_chat(&hbd, &told[..2 * round - 1]);
        beats.heal();
        wait_up(&hbd, 21);
        wait_held(&hbd, "parent", 0);
        place.wait_chat(&hbd, &told[..2 * round]);
    }
    let settled = "router ipv4 has settled: up (6 changes in ";
    place.wait_chat(&hbd, &[&told[..], &[settled]].concat());
    wait_held(&hbd, "flapping", 0);
    place.wait_chat(&hbd, &[&told[..], &[settled]].concat());
    hbd.stop();
}

/// Hosts that fall silent together, with kills while it is not yet a storm, and while it is one.
fn storms(kills: usize) {
    let all = names("h", 14);
    let place = Place::new(&hosts(&all, ""), "");
    let mut hbd = place.start();
    let beats = Beats::start(hbd.udp(), &all, INTERVAL);
    wait_up(&hbd, 14);
    beats.cut(&all);
    wait_up(&hbd, 0);
    for _ in 0..kills {
        hbd = place.kill(hbd, &[&beats]);
    }
    let began = "14 of 14 hosts fell silent within ";
    place.wait_chat(&hbd, &[began]);
    wait_held(&hbd, "storm", 14);
    for _ in 0..kills {
        hbd = place.kill(hbd, &[&beats]);
        wait_held(&hbd, "storm", 14);
    }
    place.wait_chat(&hbd, &[began]);
    beats.heal();
    wait_up(&hbd, 14);
    place.wait_chat(&hbd, &[began, "the 14 hosts are back (gone for: "]);
    wait_held(&hbd, "storm", 0);
    assert_eq!(events(&hbd, "storm").len(), 1);
    hbd.stop();
}

#[test]
fn a_storm_is_told_as_without_kills() {
    storms(KILLS);
}

/// A host falls due while it is not known whether its router is silent, too; with kills meanwhile.
fn doubts(kills: usize) {
    let (router, child) = (names("router", 1), names("child", 1));
    let place = Place::new(
        &(hosts(&router, ", grace: 5s") + &hosts(&child, ", depends_on: [router000]")),
        "calm: {flapping: off}",
    );
    const ROUTER: &str = r#"{"host":"router000","interval":60}"#;
    let mut hbd = place.start();
    send(&hbd, ROUTER);
    let beats = Beats::start(hbd.udp(), &child, INTERVAL);
    wait_up(&hbd, 2);
    let mut told = Vec::new();
    for _ in 0..2 {
        beats.cut(&child);
        wait_state(&hbd, "child000", "OVERDUE");
        for _ in 0..kills {
            hbd = place.kill(hbd, &[&beats]);
            // At once, or anew when the kill came before that was on disk.
            wait_state(&hbd, "child000", "OVERDUE");
        }
        place.wait_chat(&hbd, &told);
        // The router was there.
        send(&hbd, ROUTER);
        told.push("child000 ipv4 overdue");
        place.wait_chat(&hbd, &told);
        beats.heal();
        told.push("child000 ipv4 is back");
        place.wait_chat(&hbd, &told);
    }
    // This time it is not. How often it beats is on disk when the daemon stops in good order.
    send(&hbd, r#"{"host":"router000","interval":5}"#);
    hbd.stop();
    hbd = place.start();
    beats.redirect(hbd.udp());
    beats.cut(&child);
    wait_state(&hbd, "child000", "OVERDUE");
    for _ in 0..kills {
        hbd = place.kill(hbd, &[&beats]);
    }
    told.push("router000 ipv4 overdue");
    place.wait_chat(&hbd, &told);
    wait_held(&hbd, "parent", 1);
    beats.heal();
    wait_up(&hbd, 1);
    wait_held(&hbd, "parent", 0);
    place.wait_chat(&hbd, &told);
    hbd.stop();
}

#[test]
fn a_doubt_is_told_as_without_kills() {
    doubts(KILLS);
}

#[test]
#[ignore = "20 kills each take minutes"]
fn twenty_kills_each_are_told_as_without() {
    flaps(MANY_KILLS);
    storms(MANY_KILLS);
    doubts(MANY_KILLS);
}
