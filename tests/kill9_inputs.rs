//! `kill -9` at random moments while everything that the daemon takes comes in at once: signed and
//! unsigned datagrams, heartbeats and messages over HTTP, backup alerts, `hbd notify`, reloads, hosts
//! that fall silent, and channels that refuse, hang up or hang.
//!
//! The judge knows of each title how often it must arrive at least and may arrive at most: nothing that
//! was accepted is lost, nothing is invented, nothing is altered, and what arrives twice says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heartbeat::heartbeat::encode;
use heartbeat::secret::Secret;

#[allow(dead_code)]
mod support {
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod torture;
}

use support::hbd::{Hbd, TIMEOUT};
use support::http_double::Mode;
use support::mattermost::MattermostDouble;
use support::torture::{Dice, judge, request};

const KEY: &str = "0123456789abcdef0123456789abcdef";
/// Hosts that say things, to the log alone: so many that none says much.
const TELLERS: usize = 60;
/// Hosts that beat once and then are silent, again and again.
const SILENT: usize = 150;
/// Hosts whose words go to a chat of the same name, too: one that fails now and then, and one that
/// hangs until the kills are over.
const CHATS: [&str; 2] = ["moody", "hung"];
/// How long a host may be silent, and how long its overdue is waited for.
const INTERVAL: &str = "{watch: true, interval: 1s, grace: 1s}";
/// So many starts at most until everything has arrived.
const MAX_DRAINS: usize = 60;

/// One thing that is said to the daemon.
#[derive(Clone, Debug)]
enum Input {
    /// A text of a host, over HTTP or as a datagram, signed or not.
    Message { host: String, text: String, over: Over },
    /// A host beats, and will be silent.
    Beat { host: String, over: Over },
    /// An alert about a backup plan that nobody can be asked about.
    Alert { plan: String },
    /// `hbd notify`.
    Notify { text: String },
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Http,
    Udp,
    SignedUdp,
}

impl Input {
    /// Says it; whether the daemon answered that it has it. None when the daemon is gone.
    fn say(&self, to: &Addresses) -> Option<bool> {
        match self {
            Input::Message { host, text, over } => {
                to.tell(host, &format!(r#","event":"message","message":"{text}""#), *over)
            }
            Input::Beat { host, over } => to.tell(host, "", *over),
            Input::Alert { plan } => to.post(
                "POST /alert",
                &format!(
                    r#"{{"version":"4","status":"firing","alerts":[{{"status":"firing","labels":
                    {{"alertname":"BackupFailed","backup_id":"{plan}"}},"fingerprint":"f-{plan}"}}]}}"#
                ),
            ),
            Input::Notify { text } => to.post(
                "POST /api/v1/notify",
                &format!(r#"{{"channels":["log"],"message":"{text}","level":"warning"}}"#),
            ),
        }
    }
}

/// Where the daemon of this life hears.
struct Addresses {
    http: SocketAddr,
    udp: SocketAddr,
}

impl Addresses {
    fn post(&self, head: &str, body: &str) -> Option<bool> {
        let (status, answer) = request(self.http, head, body, TIMEOUT)?;
        assert!(matches!(status, 200 | 503), "{head} {body}: {answer}");
        Some(status == 200)
    }

    fn tell(&self, host: &str, more: &str, over: Over) -> Option<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let body = format!(r#"{{"host":"{host}","time":{now:.6},"ack":true{more}}}"#);
        let datagram = match over {
            Over::Http => return self.post("POST /api/v1/heartbeat", &body),
            Over::Udp => body.into_bytes(),
            Over::SignedUdp => {
                encode::sign(&encode::signing_key(&Secret::new(KEY)), body.as_bytes())
            }
        };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect(self.udp).unwrap();
        // Nobody says when a datagram was refused.
        socket.send(&datagram).ok()?;
        let heard = socket.recv(&mut [0; 512]).is_ok();
        heard.then_some(true)
    }
}

/// How often a title must and may arrive, each time as another event.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    least: usize,
    most: usize,
}

impl Expected {
    fn add(&mut self, accepted: bool) {
        self.least += usize::from(accepted);
        self.most += 1;
    }
}

/// What arrived in the log: `TIME LEVEL title (possibly a repeat) (details) [EVENT]`.
#[derive(Debug)]
struct Arrival {
    event: String,
    title: String,
    marked: bool,
}

fn arrivals(lines: &[String]) -> Vec<Arrival> {
    let notifications = lines.iter().filter_map(|line| {
        let (text, event) = line.strip_suffix(']')?.rsplit_once(" [")?;
        let (time, rest) = text.split_once(' ')?;
        let rest = rest.trim_start().split_once(' ')?.1.trim_start();
        (time.ends_with('Z') && event.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| {
            Arrival {
                event: event.to_owned(),
                title: plain_title(rest).to_owned(),
                marked: rest.contains(" (possibly a repeat)"),
            }
        })
    });
    notifications.collect()
}

/// The title without what is said in brackets behind it, and without why a backup is unknown: Redis
/// cannot be asked, or looking into it was killed too often.
fn plain_title(text: &str) -> &str {
    let end = if text.starts_with("backup ") { ": " } else { " (" };
    text.split(end).next().unwrap_or_default()
}

/// What the daemon says of itself, and nobody has told it.
fn is_of_its_own(title: &str) -> bool {
    let channels = CHATS.iter().any(|chat| title.contains(&format!("channel {chat} ")));
    channels || title.contains("Redis")
}

/// Nothing is lost, invented, altered, or repeated without saying so.
fn judge_log(expected: &BTreeMap<String, Expected>, arrivals: &[Arrival]) -> usize {
    let mut events: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut repeats = 0;
    for arrival in arrivals {
        events.entry(&arrival.title).or_default().insert(&arrival.event);
        if !seen.insert((&arrival.title, &arrival.event)) {
            repeats += 1;
            assert!(arrival.marked, "{arrival:?} came before and does not say so");
        }
    }
    for (title, ids) in &events {
        let most = expected.get(*title).map_or(0, |expected| expected.most);
        let count = ids.len();
        assert!(
            count <= most || is_of_its_own(title),
            "{title:?} happened {most} times at most, and was told as {count} events"
        );
    }
    for (title, Expected { least, .. }) in expected {
        let count = events.get(title.as_str()).map_or(0, BTreeSet::len);
        assert!(count >= *least, "{title:?} was accepted {least} times, and told {count} times");
    }
    repeats
}

/// The daemon, killed again and again, then left to finish.
struct Torture {
    folder: tempfile::TempDir,
    dice: Dice,
    life: usize,
    inputs: usize,
    /// By [`CHATS`], the servers of each life.
    chats: [Vec<MattermostDouble>; 2],
    expected: BTreeMap<String, Expected>,
    /// By [`CHATS`], whether each number was stored.
    told: [Vec<bool>; 2],
    /// How often each silent host has beaten; none when nobody knows whether the last beat was heard.
    beats: Vec<Option<usize>>,
    log: Vec<Arrival>,
}

impl Torture {
    fn new(seed: u64) -> Torture {
        Torture {
            folder: tempfile::tempdir().unwrap(),
            dice: Dice(seed),
            life: 0,
            inputs: 0,
            chats: Default::default(),
            expected: BTreeMap::new(),
            told: Default::default(),
            beats: vec![Some(0); SILENT],
            log: Vec::new(),
        }
    }

    /// Writes the configuration of this life, as an editor does; a reload finds another one.
    fn configure(&self, reloaded: bool) {
        let path = self.folder.path().join("heartbeat.yaml");
        let mut text = format!(
            "state_dir: {state}\nheartbeat: {{port: 0}}\nreceiver: {{port: 0}}\n\
             calm: {{flapping: off, storm: off}}\ncorrelator: {{wait_seconds: 0, redis_url: \"redis://127.0.0.1:1\"}}\n\
             renotify_interval: {renotify}\n\
             default_notification_channels: [log]\nnotification_channels:\n  log: {{type: log}}\n",
            state = self.folder.path().join("state").display(),
            renotify = if reloaded { "2h" } else { "1h" },
        );
        if reloaded {
            text += "  another: {type: log, min_level: critical}\n";
        }
        for (chat, servers) in CHATS.iter().zip(&self.chats) {
            let (url, token) = (&servers.last().unwrap().url, MattermostDouble::TOKEN);
            text += &format!(
                "  {chat}: {{type: mattermost, host: \"{url}\", token: {token}, channel: {chat}}}\n"
            );
        }
        text += "hosts:\n";
        for chat in CHATS {
            text += &format!(
                "  {chat}: {{watch: true, interval: 1d, notification_channels: [{chat}]}}\n"
            );
        }
        for teller in 0..TELLERS {
            let key = if teller % 2 == 0 { String::new() } else { format!(", key: {KEY}") };
            text += &format!("  teller-{teller}: {{watch: true, interval: 1d{key}}}\n");
        }
        for silent in 0..SILENT {
            text += &format!("  silent-{silent}: {INTERVAL}\n");
        }
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("heartbeat.yaml")
    }

    fn begin(&mut self, modes: [Mode; 2]) -> Hbd {
        self.life += 1;
        for (servers, mode) in self.chats.iter_mut().zip(modes) {
            let server = MattermostDouble::start();
            server.set_mode(mode);
            servers.push(server);
        }
        self.configure(false);
        Hbd::begin(Command::new(env!("CARGO_BIN_EXE_hbd")), &self.config())
    }

    fn over(&mut self, teller: usize) -> Over {
        match (teller % 2, self.dice.throw(2)) {
            // A host with a key is never believed without a signature, over HTTP neither.
            (1, _) => Over::SignedUdp,
            (_, 0) => Over::Udp,
            _ => Over::Http,
        }
    }

    fn message(&mut self) -> Input {
        self.inputs += 1;
        let teller = self.dice.throw(TELLERS as u64) as usize;
        let text = format!("number {} {:016x}", self.inputs, self.dice.throw(u64::MAX));
        Input::Message { host: format!("teller-{teller}"), text, over: self.over(teller) }
    }

    /// One that is known to be told as overdue, or was never heard.
    fn beat(&mut self) -> Option<Input> {
        let first = self.dice.throw(SILENT as u64) as usize;
        let told = |host: &str| {
            let title = format!("{host} ipv4 overdue");
            let events = self.log.iter().filter(|arrival| arrival.title == title);
            events.map(|arrival| &arrival.event).collect::<BTreeSet<_>>().len()
        };
        let free = |index: &usize| {
            self.beats[*index].is_some_and(|beats| beats == told(&format!("silent-{index}")))
        };
        let index = (first..first + SILENT).map(|index| index % SILENT).take(20).find(free)?;
        let over = if self.dice.throw(2) == 0 { Over::Http } else { Over::Udp };
        Some(Input::Beat { host: format!("silent-{index}"), over })
    }

    /// What comes in during one life: several threads say their part in order.
    fn inputs(&mut self) -> Vec<Vec<Input>> {
        let mut threads = Vec::new();
        for _ in 0..3 {
            threads.push((0..5).map(|_| self.message()).collect());
        }
        self.inputs += 1;
        let number = self.inputs;
        let alert = Input::Alert { plan: format!("plan-{number}") };
        let notify =
            Input::Notify { text: format!("said {number} {:016x}", self.dice.throw(u64::MAX)) };
        threads.push(vec![alert]);
        threads.push(vec![notify]);
        threads.push(self.beat().into_iter().collect());
        let mut chats = Vec::new();
        for (index, chat) in CHATS.iter().enumerate() {
            if index == 0 || self.life.is_multiple_of(10) {
                let text = format!("number {}", self.told[index].len());
                chats.push(Input::Message { host: (*chat).into(), text, over: Over::Http });
            }
        }
        threads.push(chats);
        threads
    }

    /// Takes down what was said, and whether it was accepted.
    fn note(&mut self, input: &Input, accepted: bool) {
        let mut expect = |title: String| self.expected.entry(title).or_default().add(accepted);
        match input {
            Input::Message { host, text, .. } => match CHATS.iter().position(|chat| chat == host) {
                Some(index) => self.told[index].push(accepted),
                None => expect(format!("{host} {text}")),
            },
            Input::Beat { host, .. } => {
                expect(format!("{host} ipv4 overdue"));
                let index: usize = host.rsplit('-').next().unwrap().parse().unwrap();
                let beats = self.beats[index].expect("a host of which all is known");
                if beats > 0 {
                    expect(format!("{host} ipv4 is back"));
                }
                self.beats[index] = accepted.then_some(beats + 1);
            }
            Input::Alert { plan } => expect(format!("backup {plan} UNKNOWN")),
            Input::Notify { text } => expect(text.clone()),
        }
    }

    /// One life, ended at a moment that is nobody's choice, or `in_peace` when all is said.
    fn live_and_die(&mut self, in_peace: bool) {
        let mood = match self.dice.throw(10) {
            0 => Mode::Status(503, "down for maintenance".into()),
            1 => Mode::DropAfterReading,
            2 => Mode::Cut(200, "o"),
            3 => Mode::DropBeforeReading,
            _ => Mode::Normal,
        };
        let mut hbd = self.begin([mood, Mode::Hang]);
        if self.dice.throw(10) == 0 && !in_peace {
            // While it starts; the moment is the randomness itself, nothing is waited for.
            thread::sleep(Duration::from_millis(self.dice.throw(150)));
            self.log.extend(arrivals(&hbd.crash()));
            return;
        }
        hbd.wait_ready();
        let inputs = self.inputs();
        let reload_at = (self.dice.throw(5) == 0).then(|| self.dice.throw(100));
        let moment = Duration::from_millis(self.dice.throw(250));
        let to = Addresses { http: hbd.address, udp: hbd.udp() };
        let (tx, rx) = channel();
        let lines = thread::scope(|scope| {
            for inputs in &inputs {
                let (tx, to) = (tx.clone(), &to);
                scope.spawn(move || say_all(inputs, to, &tx));
            }
            drop(tx);
            if in_peace {
                rx.iter().for_each(|(input, accepted)| self.note(&input, accepted));
                return hbd.crash();
            }
            let begun = Instant::now();
            if let Some(at) = reload_at {
                thread::sleep(Duration::from_millis(at).min(moment));
                self.configure(true);
                hbd.signal(libc::SIGHUP);
            }
            thread::sleep(moment.saturating_sub(begun.elapsed()));
            hbd.crash()
        });
        self.log.extend(arrivals(&lines));
        rx.iter().for_each(|(input, accepted)| self.note(&input, accepted));
    }

    /// Whether all that was accepted was told.
    fn all_told(&self, log: &[Arrival]) -> bool {
        let mut events: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for arrival in self.log.iter().chain(log) {
            events.entry(&arrival.title).or_default().insert(&arrival.event);
        }
        self.expected.iter().all(|(title, expected)| {
            events.get(title.as_str()).map_or(0, BTreeSet::len) >= expected.least
        })
    }

    /// One life among servers that work, or refuse where the queue is so long that it takes a failure to
    /// make a digest of it; how many deliveries wait then.
    fn drain(&mut self, waiting: [f64; 2]) -> [f64; 2] {
        let modes = waiting.map(|count| {
            let failed_before = self.life.is_multiple_of(2);
            let refuse = Mode::Status(503, "down for maintenance".into());
            if count > 10.0 && !failed_before { refuse } else { Mode::Normal }
        });
        let mut hbd = self.begin(modes);
        hbd.wait_ready();
        let end = Instant::now() + Duration::from_secs(10);
        while !self.all_told(&arrivals(&hbd.log())) && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        // What a chat takes at once has been taken, or it fails.
        let sent = |hbd: &Hbd, chat: &str| {
            let figures = hbd.request("GET", "/metrics", b"").1;
            let sum = |name: &str| -> f64 {
                let start = format!("{name}{{channel=\"{chat}\"");
                let samples = figures.lines().filter(|line| line.starts_with(&start));
                samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
            };
            let waits = sum("hbd_outbox_deliveries");
            let done = sum("hbd_notifications_sent_total") + sum("hbd_notifications_failed_total");
            (waits, waits == 0.0 || done >= 5.0 || sum("hbd_notifications_failed_total") > 0.0)
        };
        hbd.wait_until("each has sent what it may", |hbd| {
            CHATS.iter().all(|chat| sent(hbd, chat).1)
        });
        let waits = CHATS.map(|chat| sent(&hbd, chat).0);
        self.log.extend(arrivals(&hbd.crash()));
        waits
    }

    fn judge(&self) -> usize {
        for (index, chat) in CHATS.iter().enumerate() {
            let mut texts = Vec::new();
            for server in &self.chats[index] {
                assert_eq!(server.violations(), [""; 0]);
                let posts = server.received().into_iter();
                let taken =
                    posts.filter(|post| !matches!(post.mode, Mode::Status(..) | Mode::Hang));
                texts.extend(taken.map(|post| post.text));
            }
            let (arrived, repeats) = judge(chat, &self.told[index], &texts);
            println!("{chat}: {arrived} of {} arrived, {repeats} twice", self.told[index].len());
        }
        judge_log(&self.expected, &self.log)
    }
}

/// Says one thing after the other, until the daemon is gone.
fn say_all(inputs: &[Input], to: &Addresses, said: &Sender<(Input, bool)>) {
    for input in inputs {
        let accepted = input.say(to);
        said.send((input.clone(), accepted == Some(true))).unwrap();
        if accepted.is_none() {
            return;
        }
    }
}

/// A number in the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn kill(times: usize) {
    let seed = given("TORTURE_SEED").unwrap_or(1601);
    println!("the dice begin at {seed}: TORTURE_SEED is another beginning");
    let mut torture = Torture::new(seed);
    (1..=times).for_each(|life| torture.live_and_die(life == times));
    let mut waiting = [0.0; 2];
    let drains = (1..=MAX_DRAINS).find(|_| {
        waiting = torture.drain(waiting);
        waiting == [0.0; 2] && torture.all_told(&[])
    });
    let repeats = torture.judge();
    let (sum, kinds) = torture.summary();
    println!(
        "{sum} things were accepted, {repeats} came twice, {drains:?} starts to finish: {kinds:?}"
    );
    assert!(drains.is_some(), "{waiting:?} wait");
    assert!(kinds.values().all(|count| *count > 0), "this tested nothing: {kinds:?}");
}

impl Torture {
    /// What was accepted, in all and by kind.
    fn summary(&self) -> (usize, BTreeMap<&'static str, usize>) {
        let mut kinds =
            BTreeMap::from([("messages", 0), ("alerts", 0), ("notify", 0), ("overdue", 0)]);
        for (title, expected) in &self.expected {
            let kind = match title {
                title if title.starts_with("teller") => "messages",
                title if title.starts_with("backup") => "alerts",
                title if title.starts_with("said") => "notify",
                _ => "overdue",
            };
            *kinds.get_mut(kind).unwrap() += expected.least;
        }
        (kinds.values().sum(), kinds)
    }
}

#[test]
fn nothing_that_comes_in_is_lost_invented_or_altered_over_ten_kills() {
    kill(10);
}

#[test]
#[ignore = "1,000 kills with every input: about 12 minutes"]
fn nothing_that_comes_in_is_lost_invented_or_altered_over_a_thousand_kills() {
    kill(given("TORTURE_KILLS").map_or(1000, |kills| kills as usize));
}

fn told(title: &str, event: &str, marked: bool) -> Arrival {
    Arrival { event: event.into(), title: title.into(), marked }
}

fn expecting(title: &str, least: usize, most: usize) -> BTreeMap<String, Expected> {
    BTreeMap::from([(title.to_owned(), Expected { least, most })])
}

#[test]
#[should_panic(expected = "was accepted 1 times, and told 0 times")]
fn a_loss_is_found() {
    judge_log(&expecting("web1 number 1", 1, 1), &[]);
}

#[test]
#[should_panic(expected = "happened 0 times at most")]
fn an_altered_text_is_found() {
    judge_log(&expecting("web1 number 1", 0, 1), &[told("web1 number 2", "e1", false)]);
}

#[test]
#[should_panic(expected = "told as 2 events")]
fn an_invention_is_found() {
    let twice = [told("web1 x", "e1", false), told("web1 x", "e2", false)];
    judge_log(&expecting("web1 x", 1, 1), &twice);
}

#[test]
#[should_panic(expected = "does not say so")]
fn a_repeat_that_does_not_say_so_is_found() {
    let twice = [told("web1 x", "e1", false), told("web1 x", "e1", false)];
    judge_log(&expecting("web1 x", 1, 1), &twice);
}
