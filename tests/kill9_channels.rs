//! A hundred times `kill -9` at random moments with every kind of channel: mail, Pushover, Signal
//! and a chat, each of which fails, hangs up or loses its answers now and then. Nothing that was
//! accepted is lost, what arrives is in order, and what arrives twice says so.
//!
//! The daemon keeps its real pace: Pushover and Signal get one message at a start, so their queues
//! become digests. What counts is that a channel's server has taken the words.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use mailparse::parse_mail;

#[allow(dead_code)]
mod support {
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod pushover;
    pub mod signal;
    pub mod smtp;
    pub mod torture;
}

use support::hbd::{Hbd, TIMEOUT};
use support::http_double::Mode;
use support::mattermost::MattermostDouble;
use support::pushover::PushoverDouble;
use support::signal::SignalDouble;
use support::smtp::{Reaction, Script, Server, Session};
use support::torture::{Dice, judge, request};

const KILLS: usize = 100;
/// So many starts at most until everything has arrived.
const MAX_DRAINS: usize = 60;
/// Each has one host, of the same name, and takes so many messages at once.
const CHANNELS: [(&str, f64); 4] = [("mail", 10.0), ("push", 1.0), ("phone", 1.0), ("chat", 5.0)];
/// More than so many that wait may become a digest.
const DIGEST_ABOVE: f64 = 10.0;

/// How a server behaves for the length of one life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Works,
    /// It says that it cannot take anything now.
    Refuses,
    /// It ends before it took anything.
    HangsUp,
    /// It takes the message, and ends without a word.
    LosesAnswer,
}

impl Mood {
    fn http(self) -> Mode {
        match self {
            Mood::Works => Mode::Normal,
            Mood::Refuses => Mode::Status(503, "down for maintenance".into()),
            Mood::HangsUp => Mode::DropBeforeReading,
            Mood::LosesAnswer => Mode::DropAfterReading,
        }
    }

    fn smtp(self) -> Script {
        match self {
            Mood::Works => Script::default(),
            Mood::Refuses => Script::default().says("MAIL", "451 later, please"),
            Mood::HangsUp => Script::default().on("DATA", Reaction::Close),
            Mood::LosesAnswer => Script::default().on(".", Reaction::Close),
        }
    }

    /// What signal-cli does when it has read the message.
    fn shell(self) -> &'static str {
        match self {
            Mood::Works => "",
            Mood::Refuses => {
                r#"echo '{"timestamp":1,"results":[{"type":"NETWORK_FAILURE"}]}'; exit 1"#
            }
            Mood::HangsUp => "echo 'Connection refused' >&2; exit 3",
            Mood::LosesAnswer => "kill -9 $$",
        }
    }

    fn takes(self) -> bool {
        matches!(self, Mood::Works | Mood::LosesAnswer)
    }
}

/// Who is there during one life of the daemon, and their moods in the order of [`CHANNELS`].
struct Servers {
    moods: [Mood; 4],
    mail: Server,
    push: PushoverDouble,
    phone: SignalDouble,
    chat: MattermostDouble,
}

impl Servers {
    fn start(moods: [Mood; 4]) -> Servers {
        let mail = moods[0].smtp().start();
        let (push, phone, chat) =
            (PushoverDouble::start(), SignalDouble::start(), MattermostDouble::start());
        push.set_mode(moods[1].http());
        phone.answer(moods[2].shell());
        chat.set_mode(moods[3].http());
        Servers { moods, mail, push, phone, chat }
    }

    fn configure(&self, path: &Path) {
        let mut text = format!(
            r#"
state_dir: {state}
heartbeat: {{port: 0}}
receiver: {{port: 0}}
notification_channels:
  mail: {{type: email, recipients: [ann@example.com], sender: hbd@example.com,
    smtp_server: 127.0.0.1, smtp_port: {port}, tls: none}}
  push: {{type: pushover, token: {push_token}, user: {user}, api_url: "{push}"}}
  phone: {{type: signal, cli_path: "{cli}", user: "+12025550100", recipient: "+12025550101"}}
  chat: {{type: mattermost, host: "{chat}", token: {token}, channel: ops}}
  log: {{type: log}}
default_notification_channels: [log]
hosts:
"#,
            state = path.with_file_name("state").display(),
            port = self.mail.port,
            push_token = PushoverDouble::TOKEN,
            user = PushoverDouble::USER,
            push = self.push.url,
            cli = self.phone.cli_path.display(),
            chat = self.chat.url,
            token = self.chat.token,
        );
        for (name, _) in CHANNELS {
            text += &format!(
                "  {name}: {{watch: true, interval: 1d, notification_channels: [{name}]}}\n"
            );
        }
        fs::write(path, text).unwrap();
    }

    /// What each has taken, in order.
    fn taken(&self) -> [Vec<String>; 4] {
        let mails = self.mail.ended().into_iter().flat_map(|session: Session| session.mails);
        let push = self.push.received().into_iter().map(|fields| fields["message"].clone());
        let phone = self.phone.received().into_iter().map(|(text, _)| text);
        let chat = self.chat.received().into_iter().map(|post| post.text);
        let mut taken = [
            mails.map(|mail| mail_text(&mail)).collect(),
            push.collect(),
            phone.collect(),
            chat.collect::<Vec<_>>(),
        ];
        for (texts, mood) in taken.iter_mut().zip(self.moods) {
            texts.retain(|_| mood.takes());
        }
        taken
    }

    fn assert_contracts(&self) {
        assert_eq!(self.push.violations(), [""; 0]);
        assert_eq!(self.chat.violations(), [""; 0]);
        // A daemon that is killed in between has started signal-cli and told it nothing.
        let mut violations = self.phone.violations();
        violations.retain(|violation| violation != "an empty message");
        assert_eq!(violations, [""; 0]);
    }
}

fn mail_text(mail: &[u8]) -> String {
    parse_mail(mail).unwrap().subparts[0].get_body().unwrap()
}

impl Dice {
    fn mood(&mut self) -> Mood {
        match self.throw(10) {
            0 => Mood::Refuses,
            1 => Mood::HangsUp,
            2 => Mood::LosesAnswer,
            _ => Mood::Works,
        }
    }
}

/// The host of this channel said its next thing, and whether the daemon said that it is stored.
type Said = (usize, bool);

/// Lets hosts say the numbers that are next for them, until the daemon is gone.
fn speak(address: SocketAddr, words: &[(usize, usize)], said: &Sender<Said>) {
    for (index, number) in words {
        let host = CHANNELS[*index].0;
        let body = format!(r#"{{"host":"{host}","event":"message","message":"number {number}"}}"#);
        let answer = request(address, "POST /api/v1/heartbeat", &body, TIMEOUT);
        let status = answer.map(|(status, _)| status);
        assert!(matches!(status, None | Some(200 | 503)), "{body}: {status:?}");
        said.send((*index, status == Some(200))).unwrap();
        if status.is_none() {
            return;
        }
    }
}

/// The daemon, killed again and again, then left to finish.
struct Torture {
    folder: tempfile::TempDir,
    dice: Dice,
    lives: Vec<Servers>,
    /// By channel, whether each number was stored.
    told: [Vec<bool>; 4],
}

impl Torture {
    fn begin(&mut self, moods: [Mood; 4]) -> Hbd {
        let servers = Servers::start(moods);
        let config = self.folder.path().join("heartbeat.yaml");
        servers.configure(&config);
        self.lives.push(servers);
        Hbd::start(&config)
    }

    /// One number for each host, now and then two; another host begins each time.
    fn words(&mut self) -> Vec<(usize, usize)> {
        let mut next = [0, 1, 2, 3].map(|index: usize| self.told[index].len());
        let mut words = Vec::new();
        let first = self.dice.throw(4) as usize;
        for index in (0..4).map(|index| (first + index) % 4) {
            for _ in 0..=usize::from(self.dice.throw(3) == 0) {
                words.push((index, next[index]));
                next[index] += 1;
            }
        }
        words
    }

    /// One life, ended at a moment that is nobody's choice.
    fn live_and_die(&mut self) {
        let moods = [(); 4].map(|()| self.dice.mood());
        let hbd = self.begin(moods);
        let (words, address) = (self.words(), hbd.address);
        let moment = Instant::now() + Duration::from_millis(self.dice.throw(120));
        let (tx, rx) = channel();
        thread::scope(|scope| {
            // Ours stays open: the silence after the last word is waited for too.
            let speaker = tx.clone();
            scope.spawn(move || speak(address, &words, &speaker));
            self.hear(&rx, moment);
            hbd.kill();
            drop(tx);
            rx.iter().for_each(|(index, stored)| self.told[index].push(stored));
        });
    }

    fn hear(&mut self, said: &Receiver<Said>, until: Instant) {
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Ok((index, stored)) = said.recv_timeout(left) else { return };
            self.told[index].push(stored);
        }
    }

    /// One life among servers that work, except where the queue is so long that it takes a failure
    /// to make a digest of it. Returns what then waits, by channel.
    fn drain(&mut self, waiting: [f64; 4]) -> [f64; 4] {
        let last = self.lives.last().unwrap().moods;
        let moods = [0, 1, 2, 3].map(|index| {
            let failed = last[index] == Mood::Refuses;
            if waiting[index] > DIGEST_ABOVE && !failed { Mood::Refuses } else { Mood::Works }
        });
        let hbd = self.begin(moods);
        hbd.wait_until("each has sent what it may", |hbd| {
            let figures = Figures::of(hbd);
            CHANNELS.iter().all(|(name, burst)| {
                figures.sum("hbd_outbox_deliveries", name) == 0.0
                    || figures.sum("hbd_notifications_failed_total", name) > 0.0
                    || figures.sum("hbd_notifications_sent_total", name) >= *burst
            })
        });
        let figures = Figures::of(&hbd);
        hbd.stop();
        CHANNELS.map(|(name, _)| figures.sum("hbd_outbox_deliveries", name))
    }
}

/// What the daemon says of itself.
struct Figures(String);

impl Figures {
    fn of(hbd: &Hbd) -> Figures {
        Figures(hbd.request("GET", "/metrics", b"").1)
    }

    /// The sum of a channel's samples of a metric.
    fn sum(&self, metric: &str, channel: &str) -> f64 {
        let start = format!("{metric}{{channel=\"{channel}\"");
        let samples: Vec<f64> = self
            .0
            .lines()
            .filter(|line| line.starts_with(&start))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!samples.is_empty(), "no {start} in {}", self.0);
        samples.into_iter().sum()
    }
}

#[test]
fn no_kind_of_channel_loses_what_was_accepted_over_a_hundred_kills() {
    let seed = u64::from(std::process::id()) << 20 | 1;
    println!("the dice begin at {seed}");
    let mut torture = Torture {
        folder: tempfile::tempdir().unwrap(),
        dice: Dice(seed),
        lives: Vec::new(),
        told: Default::default(),
    };
    (0..KILLS).for_each(|_| torture.live_and_die());
    let mut waiting = [0.0; 4];
    let drains = (1..=MAX_DRAINS).find(|_| {
        waiting = torture.drain(waiting);
        waiting == [0.0; 4]
    });
    let mut texts: [Vec<String>; 4] = Default::default();
    for servers in &torture.lives {
        servers.assert_contracts();
        for (all, more) in texts.iter_mut().zip(servers.taken()) {
            all.extend(more);
        }
    }
    for (index, (host, _)) in CHANNELS.iter().enumerate() {
        let told = &torture.told[index];
        let (arrived, repeats) = judge(host, told, &texts[index]);
        let stored = told.iter().filter(|stored| **stored).count();
        let messages = texts[index].len();
        println!(
            "{host}: {stored} of {} accepted, {arrived} arrived in {messages} messages, {repeats} came twice",
            told.len()
        );
        assert!(stored > KILLS / 4, "{host}: only {stored} were accepted: this tested nothing");
    }
    println!("{drains:?} starts to finish");
    assert!(drains.is_some(), "the outboxes never became empty: {waiting:?} wait");
}

#[test]
#[should_panic(expected = "does not say so")]
fn a_repeat_that_does_not_say_so_is_found() {
    let told = "info: mail number 0 [e0]".to_owned();
    judge("mail", &[true], &[told.clone(), told]);
}

#[test]
#[should_panic(expected = "number 1 came after Some(10)")]
fn a_wrong_order_is_found() {
    let texts = ["mail number 10".to_owned(), "mail number 1".to_owned()];
    judge("mail", &[false; 11], &texts);
}

#[test]
#[should_panic(expected = "number 1 was accepted and is lost")]
fn a_loss_is_found() {
    judge("mail", &[true, true], &["mail number 0".to_owned()]);
}
