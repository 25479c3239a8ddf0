//! A hundred times `kill -9` at random moments, while events come in over HTTP and the channels
//! fail, drop connections and recover: nothing that was accepted is lost, each host's events
//! arrive in order, and what arrives twice says so and has a reason to.
//!
//! The daemon keeps its real pace: a chat channel sends five messages at once and then one in
//! three seconds, so the chats get few events. The volume goes through the `log` channel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

mod support;

use support::http_double::lock;
use support::mattermost::{MattermostDouble, Mode, Post};
use support::torture::{Dice, request};

const KILLS: usize = 100;
/// Each has a chat channel of its own; all have the log.
const CHATS: usize = 3;
const HOSTS: usize = 6;
/// The host whose events go to the log alone, as many as the daemon takes.
const VOLUME: &str = "volume";
const LONG: Duration = Duration::from_secs(30);
/// So many starts at most until everything has arrived; each lets five messages out per chat.
const MAX_DRAINS: usize = 60;

/// Which run of the daemon is on, and where it answers.
#[derive(Default)]
struct Stage {
    run: usize,
    address: Option<SocketAddr>,
    over: bool,
}

type Shared = Arc<(Mutex<Stage>, Condvar)>;

/// One run of the daemon; it does not outlive a test that fails.
struct Run {
    child: Child,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    fn start(config: &Path, number: usize, shared: &Shared) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hbd"))
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let shared = shared.clone();
        // What was written before a kill is still in the pipe: it is read to its end.
        let log = thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            let seen = |line: &String| {
                if let Some(address) = ready(line) {
                    let stage = Stage { run: number, address: Some(address), over: false };
                    *lock(&shared.0) = stage;
                    shared.1.notify_all();
                }
            };
            lines.inspect(seen).collect()
        });
        Run { child, log: Some(log) }
    }

    fn kill(mut self, shared: &Shared) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.ended(shared)
    }

    /// As an operator does it.
    fn stop(mut self, shared: &Shared) -> Vec<String> {
        // SAFETY: it only sends a signal, to a child that was not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.ended(shared)
    }
}

impl Run {
    /// All that it wrote.
    fn ended(&mut self, shared: &Shared) -> Vec<String> {
        let lines = self.log.take().unwrap().join().unwrap();
        let invented = lines.iter().find(|line| line.contains("hbd's state file"));
        assert_eq!(invented, None, "a kill damages no file");
        lock(&shared.0).address = None;
        lines
    }
}

/// Where the web side is, from the line that says that the daemon is ready.
fn ready(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("is ready: ")?.1.split_once("HTTP on ")?;
    rest.split(',').next()?.parse().ok()
}

/// The address of a run later than `after`; none when everything is over or nothing is ready.
fn wait_ready(shared: &Shared, after: usize) -> Option<(usize, SocketAddr)> {
    let end = Instant::now() + LONG;
    let mut stage = lock(&shared.0);
    loop {
        match stage.address {
            _ if stage.over => return None,
            Some(address) if stage.run > after => return Some((stage.run, address)),
            _ => {}
        }
        let left = end.checked_duration_since(Instant::now())?;
        stage = shared.1.wait_timeout(stage, left).unwrap().0;
    }
}

/// What one host told, and whether the daemon said that it is stored.
#[derive(Default)]
struct Told {
    messages: Vec<bool>,
    boots: Vec<bool>,
}

impl Told {
    /// The next thing that a host tells.
    fn next(&self, host: &str, step: usize) -> String {
        match step % 5 {
            3 => format!(r#"{{"host":"{host}","event":"shutdown"}}"#),
            4 => {
                let id = self.boots.len();
                format!(r#"{{"host":"{host}","event":"boot","boot_id":"b{id}"}}"#)
            }
            _ => {
                let number = self.messages.len();
                format!(r#"{{"host":"{host}","event":"message","message":"number {number}"}}"#)
            }
        }
    }

    fn note(&mut self, step: usize, stored: bool) {
        match step % 5 {
            3 => {}
            4 => self.boots.push(stored),
            _ => self.messages.push(stored),
        }
    }
}

/// One host tells one thing after the other, `each` per run, until it is over.
fn speak(host: &str, each: usize, shared: &Shared) -> Told {
    let (mut told, mut step, mut last) = (Told::default(), 0, 0);
    while let Some((run, address)) = wait_ready(shared, last) {
        last = run;
        for _ in 0..each {
            let body = told.next(host, step);
            let answer = request(address, "POST /api/v1/heartbeat", &body, LONG);
            let stored = answer.as_ref().is_some_and(|(status, _)| *status == 200);
            // 429: it has sent as many messages as a host may.
            let may_be = |(status, _)| matches!(status, 429 | 503);
            assert!(stored || answer.is_none_or(may_be), "{host}: {body}");
            told.note(step, stored);
            step += 1;
            if !stored {
                break;
            }
        }
    }
    told
}

/// Something that arrived.
#[derive(Debug)]
struct Arrival {
    run: usize,
    /// The server took it and said so.
    answered: bool,
    /// The number of the message, which may tell of several events.
    message: String,
    event: String,
    host: String,
    text: String,
    marked: bool,
}

/// What arrived in a chat: all that the server has taken, answered or not.
fn chat_arrivals(run: usize, double: &MattermostDouble, chat: &str) -> Vec<Arrival> {
    let posts = double.received().into_iter();
    let taken =
        posts.filter(|post| post.body["channel"] == chat && !matches!(post.mode, Mode::Status(..)));
    let of_post = |post: Post| {
        let message = post.text.rsplit("event ").next().unwrap().trim_end_matches('_').to_owned();
        let title = post.text.split('`').nth(1).unwrap().to_owned();
        let mut events: Vec<_> = post.text.lines().filter_map(line_of_several).collect();
        if events.is_empty() {
            events.push((message.clone(), title));
        }
        let arrival = move |(event, text): (String, String)| Arrival {
            run,
            answered: matches!(post.mode, Mode::Normal),
            message: message.clone(),
            event,
            host: text.split(' ').next().unwrap().to_owned(),
            text,
            marked: post.text.contains("possible repeat"),
        };
        events.into_iter().map(arrival)
    };
    taken.flat_map(of_post).collect()
}

/// Event and title in a line of a message that tells of several: `TIME`: `LEVEL: TITLE [EVENT]`.
fn line_of_several(line: &str) -> Option<(String, String)> {
    let (_, words) = line.strip_prefix('`')?.strip_suffix("]`")?.split_once("`: `")?;
    let (title, event) = words.split_once(": ")?.1.rsplit_once(" [")?;
    Some((event.to_owned(), title.to_owned()))
}

/// What arrived in the log: `TIME LEVEL web1 said this (possibly a repeat) (details) [EVENT]`.
fn log_arrivals(run: usize, lines: &[String]) -> Vec<Arrival> {
    let notifications = lines.iter().filter_map(|line| {
        let (text, event) = line.strip_suffix(']')?.rsplit_once(" [")?;
        let (time, rest) = text.split_once(' ')?;
        let text = rest.trim_start().split_once(' ')?.1.trim_start();
        // What is told here has no brackets of its own.
        let plain = text.split(" (").next().unwrap_or_default();
        time.ends_with('Z').then(|| Arrival {
            run,
            answered: true,
            message: event.to_owned(),
            event: event.to_owned(),
            host: plain.split(' ').next().unwrap_or_default().to_owned(),
            text: plain.to_owned(),
            marked: text.contains(" (possibly a repeat)"),
        })
    });
    notifications.collect()
}

/// Order and repeats of one channel.
fn judge_channel(channel: &str, arrivals: &[Arrival]) -> usize {
    let mut last_of_host: BTreeMap<&str, &str> = BTreeMap::new();
    let mut last_of_event: BTreeMap<&str, &Arrival> = BTreeMap::new();
    let mut cut_short: BTreeMap<usize, &str> = BTreeMap::new();
    let mut repeats = 0;
    for arrival in arrivals {
        let earlier = last_of_event.insert(&arrival.event, arrival);
        let last = last_of_host.insert(&arrival.host, &arrival.event).unwrap_or("");
        // What one message told is repeated from its first event: in one message, or each alone.
        let with_last = last_of_event.get(last).map(|last| &last.message);
        let again = earlier.is_some_and(|earlier| {
            [Some(&arrival.message), with_last].contains(&Some(&earlier.message))
        });
        assert!(again || last <= &*arrival.event, "{channel}: {arrival:?} came after {last}");
        let Some(earlier) = earlier else { continue };
        repeats += 1;
        assert!(arrival.marked, "{channel}: {arrival:?} came before and does not say so");
        if earlier.answered {
            let why = "came twice, although nothing was unknown";
            assert!(earlier.run < arrival.run, "{channel}: {arrival:?} {why}");
            // One message is under way per channel: a kill hides the end of no second one.
            let other = cut_short.insert(earlier.run, &earlier.message);
            let same = other.is_none_or(|other| other == earlier.message);
            assert!(same, "{channel}: {arrival:?} {why}");
        }
    }
    repeats
}

/// Nothing accepted is lost, and nothing is told that was not said.
fn judge_host(channel: &str, host: &str, told: &Told, arrivals: &[Arrival]) {
    let mine = || arrivals.iter().filter(|arrival| arrival.host == host);
    let texts: BTreeSet<&str> = mine().map(|arrival| &*arrival.text).collect();
    for (number, stored) in told.messages.iter().enumerate() {
        let arrived = texts.contains(&*format!("{host} number {number}"));
        assert!(arrived || !stored, "{channel}: {host} number {number} was accepted and is lost");
    }
    let of = |what: &str| -> BTreeSet<&str> {
        let all = mine().filter(|arrival| arrival.text == format!("{host} {what}"));
        all.map(|arrival| &*arrival.event).collect()
    };
    let (booted, shutdown) = (of("booted"), of("ipv4 shutdown"));
    let stored = told.boots.iter().filter(|stored| **stored).count();
    assert!(booted.len() >= stored, "{channel}: {host} booted {stored} times: {booted:?}");
    assert!(booted.len() <= told.boots.len(), "{channel}: {host} never booted so often");
    let both: BTreeMap<&str, bool> =
        booted.iter().map(|id| (*id, true)).chain(shutdown.iter().map(|id| (*id, false))).collect();
    let kinds: Vec<bool> = both.into_values().collect();
    let twice = kinds.windows(2).any(|pair| pair == [false, false]);
    assert!(!twice, "{channel}: {host} shut down twice without a boot between");
    let known = mine().all(|arrival| {
        let number = arrival.text.rsplit(' ').next().and_then(|number| number.parse().ok());
        match number {
            Some(number) => told.messages.len() > number,
            None => booted.contains(&*arrival.event) || shutdown.contains(&*arrival.event),
        }
    });
    assert!(known, "{channel}: {host} never said something that arrived");
}

impl Dice {
    /// How the chat server behaves: well, more often than not.
    fn mode(&mut self) -> Mode {
        match self.throw(10) {
            0 => Mode::Status(503, "down for maintenance".into()),
            1 => Mode::DropAfterReading,
            2 => Mode::Cut(200, "o"),
            3 => Mode::DropBeforeReading,
            _ => Mode::Normal,
        }
    }
}

fn configure(path: &Path, url: &str) {
    let folder = path.parent().unwrap().display().to_string();
    let mut text = format!(
        "state_dir: {folder}/state\nheartbeat: {{port: 0}}\nreceiver: {{port: 0}}\n\
         calm: {{flapping: off}}\ndefault_notification_channels: [log]\nnotification_channels:\n  log: {{type: log}}\n"
    );
    let token = MattermostDouble::TOKEN;
    for chat in 0..CHATS {
        text += &format!(
            "  chat-{chat}: {{type: mattermost, host: \"{url}\", token: {token}, channel: chat-{chat}}}\n"
        );
    }
    text += &format!("hosts:\n  {VOLUME}: {{watch: true, interval: 1d}}\n");
    for host in 0..HOSTS {
        let channels = format!("[log, chat-{}]", host % CHATS);
        text += &format!(
            "  host-{host}: {{watch: true, interval: 1d, notification_channels: {channels}}}\n"
        );
    }
    fs::write(path, text).unwrap();
}

/// The daemon, killed again and again, then left to finish.
struct Torture {
    folder: tempfile::TempDir,
    shared: Shared,
    dice: Dice,
    doubles: Vec<MattermostDouble>,
    logs: Vec<Vec<String>>,
}

impl Torture {
    fn begin(&mut self, mode: Mode) -> Run {
        let double = MattermostDouble::start();
        double.set_mode(mode);
        let config = self.folder.path().join("heartbeat.yaml");
        configure(&config, &double.url);
        self.doubles.push(double);
        Run::start(&config, self.doubles.len(), &self.shared)
    }

    /// One life, ended at a moment that is nobody's choice.
    fn live_and_die(&mut self) {
        let mode = self.dice.mode();
        let run = self.begin(mode);
        let early = self.dice.throw(10) == 0;
        if !early {
            let ready = wait_ready(&self.shared, self.doubles.len() - 1);
            assert!(ready.is_some(), "the daemon does not start");
        }
        let moment = self.dice.throw(if early { 100 } else { 200 });
        // These two are the randomness itself; nothing is waited for.
        thread::sleep(Duration::from_millis(moment));
        let mode = self.dice.mode();
        self.doubles.last().unwrap().set_mode(mode);
        let moment = self.dice.throw(if early { 50 } else { 200 });
        thread::sleep(Duration::from_millis(moment));
        self.logs.push(run.kill(&self.shared));
    }

    /// One life among servers that work; whether the outbox was empty in the end.
    fn finish(&mut self) -> bool {
        let run = self.begin(Mode::Normal);
        let ready = wait_ready(&self.shared, self.doubles.len() - 1);
        let (_, address) = ready.expect("the daemon starts");
        let double = self.doubles.last().unwrap();
        double.wait_for(CHATS * 5, Duration::from_millis(700));
        let (_, figures) = request(address, "GET /metrics", "", LONG).unwrap();
        let waiting = figures.lines().filter(|line| line.starts_with("hbd_outbox_deliveries{"));
        let empty = waiting.clone().count() == CHATS + 1
            && waiting.into_iter().all(|line| line.ends_with(" 0"));
        self.logs.push(run.stop(&self.shared));
        empty
    }

    /// By channel, in order.
    fn arrivals(&self) -> BTreeMap<String, Vec<Arrival>> {
        let mut arrivals: BTreeMap<String, Vec<Arrival>> = BTreeMap::new();
        for (run, (double, lines)) in self.doubles.iter().zip(&self.logs).enumerate() {
            assert_eq!(double.violations(), [""; 0]);
            for chat in (0..CHATS).map(|chat| format!("chat-{chat}")) {
                let came = chat_arrivals(run, double, &chat);
                arrivals.entry(chat).or_default().extend(came);
            }
            arrivals.entry("log".into()).or_default().extend(log_arrivals(run, lines));
        }
        arrivals
    }
}

fn speakers(shared: &Shared) -> Vec<(String, JoinHandle<Told>)> {
    let hosts = (0..HOSTS).map(|host| (format!("host-{host}"), 1));
    hosts
        .chain([(VOLUME.to_owned(), usize::MAX)])
        .map(|(host, each)| {
            let (name, shared) = (host.clone(), shared.clone());
            (host, thread::spawn(move || speak(&name, each, &shared)))
        })
        .collect()
}

#[test]
fn nothing_accepted_is_lost_over_a_hundred_kills() {
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("the dice begin at {seed}");
    let mut torture = Torture {
        folder: tempfile::tempdir().unwrap(),
        shared: Shared::default(),
        dice: Dice(seed),
        doubles: Vec::new(),
        logs: Vec::new(),
    };
    let speakers = speakers(&torture.shared);
    for _ in 0..KILLS {
        torture.live_and_die();
    }
    lock(&torture.shared.0).over = true;
    torture.shared.1.notify_all();
    let told: Vec<(String, Told)> =
        speakers.into_iter().map(|(host, thread)| (host, thread.join().unwrap())).collect();
    lock(&torture.shared.0).over = false;
    let drains = (1..=MAX_DRAINS).find(|_| torture.finish());
    let arrivals = torture.arrivals();
    let mut repeats = 0;
    for (channel, arrivals) in &arrivals {
        repeats += judge_channel(channel, arrivals);
    }
    for (index, (host, told)) in told.iter().enumerate() {
        judge_host("log", host, told, &arrivals["log"]);
        if host != VOLUME {
            let chat = format!("chat-{}", index % CHATS);
            judge_host(&chat, host, told, &arrivals[&chat]);
        }
    }
    let stored: usize = told.iter().map(|(_, t)| t.messages.iter().filter(|s| **s).count()).sum();
    println!("{stored} messages were accepted, {repeats} came twice, {drains:?} starts to finish");
    assert!(drains.is_some(), "the outbox never became empty");
    assert!(stored > KILLS, "only {stored} messages were accepted: this tested nothing");
}

fn arrival(run: usize, answered: bool, event: &str, marked: bool) -> Arrival {
    let (host, text) = ("web1".to_owned(), "web1 number 1".to_owned());
    Arrival { run, answered, message: event.into(), event: event.into(), host, text, marked }
}

#[test]
#[should_panic(expected = "does not say so")]
fn a_repeat_that_does_not_say_so_is_found() {
    judge_channel("chat", &[arrival(1, false, "1", false), arrival(1, true, "1", false)]);
}

#[test]
#[should_panic(expected = "although nothing was unknown")]
fn a_repeat_without_a_reason_is_found() {
    judge_channel("chat", &[arrival(1, true, "1", false), arrival(1, true, "1", true)]);
}

#[test]
#[should_panic(expected = "came after 2")]
fn a_wrong_order_is_found() {
    judge_channel("chat", &[arrival(1, true, "2", false), arrival(2, true, "1", true)]);
}

#[test]
#[should_panic(expected = "number 1 was accepted and is lost")]
fn a_loss_is_found() {
    let told = Told { messages: vec![false, true], boots: Vec::new() };
    judge_host("chat", "web1", &told, &[]);
}
