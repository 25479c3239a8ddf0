//! The delivery engine, with its real channels, against providers that fail, hang and come back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heartbeat::Notifier;
use heartbeat::clock::{Now, Wall};
use heartbeat::event::{Event, EventKind, Level};
use heartbeat::notify::channel::email::{Email, TlsMode};
use heartbeat::notify::channel::mattermost::Mattermost;
use heartbeat::notify::channel::pushover::Pushover;
use heartbeat::notify::channel::signal::{RpcAddress, Signal};
use heartbeat::notify::channel::{Channel, ChannelKind, RetryPolicy};
use heartbeat::notify::courier::{Courier, CourierExit, CourierHooks};
use heartbeat::notify::routing::{ChannelRoute, HostRoute, Routes};
use heartbeat::notify::settings::NotifySettings;
use heartbeat::secret::Secret;
use heartbeat::store::Change;
use heartbeat::store::Store;
use support::http_double::{HttpDouble, Mode, reply};
use support::mattermost::MattermostDouble;
use support::pushover::PushoverDouble;
use support::signal::{SignalDaemon, SignalDouble};
use support::smtp::{Reaction, Script, Server};
use tempfile::TempDir;

mod support;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The channels' own pace, without the waiting.
fn quick(pace: RetryPolicy) -> RetryPolicy {
    RetryPolicy {
        first_delay: Duration::from_millis(20),
        max_delay: Duration::from_millis(100),
        per_minute: 6_000_000,
        burst: 100_000,
        ..pace
    }
}

/// As [`quick`], and each event by itself.
fn quick_and_single(pace: RetryPolicy) -> RetryPolicy {
    RetryPolicy { digest: None, ..quick(pace) }
}

/// As [`quick`], but who failed once does not try again in this test: a digest that failed several
/// times comes apart.
fn quick_once(pace: RetryPolicy) -> RetryPolicy {
    let later = Duration::from_secs(600);
    RetryPolicy { first_delay: later, max_delay: later, ..quick(pace) }
}

fn mattermost(url: &str) -> ChannelKind {
    ChannelKind::Mattermost(Mattermost {
        base_url: url.into(),
        token: Secret::new(MattermostDouble::TOKEN),
        channel: "ops".into(),
        username: None,
        icon: None,
        ca_file: None,
        bot_token: None,
    })
}

fn pushover(double: &PushoverDouble) -> ChannelKind {
    ChannelKind::Pushover(Pushover {
        token: Secret::new(PushoverDouble::TOKEN),
        user: Secret::new(PushoverDouble::USER),
        priority: None,
        retry: Duration::from_secs(60),
        expire: Duration::from_secs(3600),
        sound: None,
        device: None,
        api_url: double.url.clone(),
    })
}

fn signal(cli_path: &Path, rpc: Option<RpcAddress>, user: &str) -> ChannelKind {
    ChannelKind::Signal(Signal {
        cli_path: cli_path.into(),
        user: user.into(),
        recipient: "+12025550123".into(),
        rpc,
    })
}

fn email(server: &Server) -> ChannelKind {
    ChannelKind::Email(Email {
        recipients: vec!["ann@example.com".into()],
        sender: "hbd@example.com".into(),
        smtp_server: "127.0.0.1".into(),
        smtp_port: server.port,
        smtp_user: None,
        smtp_password: None,
        tls: TlsMode::None,
        ca_file: None,
        helo: Some("hbd.example.com".into()),
    })
}

fn settings(
    channels: Vec<(&str, ChannelKind)>,
    pace: fn(RetryPolicy) -> RetryPolicy,
) -> NotifySettings {
    let hosts = ["web1", "web2", "web3"];
    let names: Vec<String> = channels.iter().map(|(name, _)| (*name).to_owned()).collect();
    let line = |name: &String| (name.clone(), ChannelRoute { min_level: Level::Info });
    NotifySettings {
        routes: Routes {
            channels: names.iter().map(line).collect(),
            default: names.clone(),
            hosts: hosts
                .map(|host| (host.into(), HostRoute { watch: true, channels: None }))
                .into(),
            backups: Vec::new(),
        },
        channels: channels
            .into_iter()
            .map(|(name, kind)| {
                let definition = Channel { kind, min_level: Level::Info };
                (name.to_owned(), Arc::new(definition))
            })
            .collect::<BTreeMap<_, _>>(),
        calm: heartbeat::notify::calm::CalmSettings::default(),
        overdue_renotify: None,
        public_url: None,
        retry_policy: Some(pace),
    }
}

/// A courier on a store; what a restart keeps is the directory.
struct Engine {
    courier: Courier,
    thread: JoinHandle<CourierExit>,
}

impl Engine {
    fn open(directory: &Path, settings: NotifySettings) -> Engine {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, _) = Store::open(directory, Now::read()).unwrap();
        let (courier, pending) = Courier::new();
        let (every_row, permit) = (Box::new(Vec::new), Arc::new(|| true));
        let hooks = CourierHooks { every_row, permit, on_exit: Box::new(|_| ()) };
        let thread = pending.open(store, settings, hooks, |then| then).unwrap();
        Engine { courier, thread }
    }

    fn tell(&self, level: Level, kind: EventKind) {
        let events = vec![Event { level, ..Event::new(Now::read().wall, kind) }];
        self.courier.commit(Change { events, ..Change::default() });
    }

    fn say(&self, host: &str, text: &str) {
        self.tell(Level::Warning, EventKind::HostMessage { host: host.into(), text: text.into() });
    }

    fn waiting(&self, channel: &str) -> Option<usize> {
        let lines = self.courier.stats().queues;
        lines.iter().find(|line| line.channel == channel).map(|line| line.waiting)
    }

    /// Waits until everything that was told has been taken up, and `channel` is empty.
    fn empty(&self, channel: &str) {
        let (tx, stored) = std::sync::mpsc::channel();
        let answer = Box::new(move |is_stored| {
            let _ = tx.send(is_stored);
        });
        self.courier.commit(Change { on_stored: Some(answer), ..Change::default() });
        assert!(stored.recv_timeout(TIMEOUT).unwrap());
        wait_for(|| self.waiting(channel) == Some(0), &format!("{channel} to be empty"));
    }

    fn stop(self) {
        self.courier.stop();
        assert_eq!(self.thread.join().unwrap(), CourierExit::Stored);
    }
}

fn wait_for(fact: impl Fn() -> bool, what: &str) {
    let end = Instant::now() + TIMEOUT;
    while !fact() {
        assert!(Instant::now() < end, "waited for {what} in vain");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The words of a `Said` in a text of a channel.
fn said(text: &str) -> Vec<usize> {
    text.split("number ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

/// The text parts of so many mails.
fn texts_of(server: &Server, count: u64) -> Vec<String> {
    (0..count)
        .flat_map(|_| server.session().mails)
        .map(|mail| mailparse::parse_mail(&mail).unwrap().subparts[0].get_body().unwrap())
        .collect()
}

fn resident_kilobytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_provider_that_hangs_delays_no_other_channel() {
    let (dead, alive) = (MattermostDouble::start(), MattermostDouble::start());
    dead.set_mode(Mode::Hang);
    let kept = directory();
    let channels = vec![("dead", mattermost(&dead.url)), ("alive", mattermost(&alive.url))];
    let engine = Engine::open(kept.path(), settings(channels, quick_and_single));
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let told = Instant::now();
        engine.say("web1", &format!("number {n}"));
        assert_eq!(alive.wait_for(n + 1, TIMEOUT).len(), n + 1);
        slowest = slowest.max(told.elapsed());
    }
    println!("while one channel hangs, the other's slowest delivery took {slowest:?}");
    assert!(slowest < Duration::from_secs(5));
    assert_eq!(engine.waiting("dead"), Some(20));
    assert_eq!(alive.violations(), [""; 0]);
}

#[test]
fn order_holds_through_failures_of_every_kind() {
    let double = MattermostDouble::start();
    let kept = directory();
    let channels = vec![("chat", mattermost(&double.url))];
    let engine = Engine::open(kept.path(), settings(channels, quick_and_single));
    let modes = [
        Mode::Status(503, "down".into()),
        Mode::DropBeforeReading,
        Mode::DropAfterReading,
        Mode::Status(429, "slow down".into()),
        Mode::Cut(200, "o"),
    ];
    for (n, mode) in modes.into_iter().cycle().take(30).enumerate() {
        double.set_mode(mode);
        for host in ["web1", "web2", "web3"] {
            engine.say(host, &format!("number {n}"));
        }
        double.wait_for(n, Duration::from_millis(30));
    }
    double.set_mode(Mode::Normal);
    engine.empty("chat");
    for host in ["web1", "web2", "web3"] {
        let posts = double.received();
        let of_host = posts.iter().filter(|post| post.text.contains(&format!("{host} number")));
        let mut last = None;
        for n in of_host.flat_map(|post| said(&post.text)) {
            assert!(
                last.is_none_or(|last| n == last || n == last + 1),
                "{host}: {n} after {last:?}"
            );
            last = Some(n);
        }
        assert_eq!(last, Some(29), "{host}");
    }
}

#[test]
fn a_thousand_events_reach_the_living_while_one_channel_is_dead_and_one_slow() {
    let good = MattermostDouble::start();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let slow = HttpDouble::start(move |_| {
        std::thread::park_timeout(Duration::from_millis(10));
        count.fetch_add(1, Ordering::SeqCst);
        reply(200, "ok")
    });
    let kept = directory();
    let channels = vec![
        ("dead", mattermost("http://127.0.0.1:9")),
        ("good", mattermost(&good.url)),
        ("slow", mattermost(&slow.url)),
    ];
    let engine = Engine::open(kept.path(), settings(channels, quick_and_single));
    let (before, begun) = (resident_kilobytes(), Instant::now());
    for n in 0..1000 {
        engine.say(["web1", "web2", "web3"][n % 3], &format!("number {n}"));
    }
    let accepted = begun.elapsed();
    assert_eq!(good.wait_for(1000, TIMEOUT).len(), 1000);
    let (first, memory) = (begun.elapsed(), resident_kilobytes());
    engine.empty("slow");
    println!(
        "1000 events: ordered in {accepted:?}, the good channel had all after {first:?}, the slow \
         one (10 ms each) after {:?}; {} kB more in memory",
        begun.elapsed(),
        memory.saturating_sub(before)
    );
    assert_eq!(heard.load(Ordering::SeqCst), 1000);
    assert_eq!(engine.waiting("dead"), Some(1000), "nothing is dropped");
    engine.stop();
}

#[test]
fn what_is_sent_at_once_and_what_was_queued_use_an_account_one_after_the_other() {
    let (cli, kept) = (SignalDouble::start(), directory());
    cli.answer("sleep 0.1; echo '{\"results\":[{\"type\":\"SUCCESS\"}]}'");
    let channels = vec![("signal", signal(&cli.cli_path, None, "+12025550103"))];
    let settings = settings(channels, quick_and_single);
    let default = vec!["signal".to_owned()];
    let notifier = Notifier::with(settings.channels.clone(), default, BTreeMap::new());
    let engine = Engine::open(kept.path(), settings.clone());
    let notifier = notifier.sharing(engine.courier.channel_state());
    for n in 0..3 {
        engine.say("web1", &format!("queued {n}"));
        let sent = notifier.pushmsg_from_config(&format!("at once {n}"));
        assert_eq!(sent, [("signal".to_owned(), true)].into());
        engine.courier.reconfigure(settings.clone());
    }
    engine.empty("signal");
    assert_eq!(cli.received().len(), 6);
    assert!(cli.violations().is_empty(), "{:?}", cli.violations());
    engine.stop();
}

#[test]
fn every_channel_takes_a_digest_and_everything_is_in_it() {
    let (chat, pager) = (MattermostDouble::start(), PushoverDouble::start());
    let (cli, daemon) = (SignalDouble::start(), SignalDaemon::start());
    let mail = Script::default().start();
    let kept = directory();
    let rpc = Some(RpcAddress::Unix(daemon.path.clone()));
    let channels = || {
        vec![
            ("chat", mattermost(&chat.url)),
            ("mail", email(&mail)),
            ("pager", pushover(&pager)),
            ("signal", signal(&cli.cli_path, None, "+12025550100")),
            ("rpc", signal(Path::new("signal-cli"), rpc.clone(), "+12025550101")),
            ("log", ChannelKind::Log),
        ]
    };
    // Everybody is away: the mail server answers nobody, the others refuse.
    chat.set_mode(Mode::Status(503, String::new()));
    pager.set_mode(Mode::Status(503, String::new()));
    cli.answer("echo 'java.io.IOException: closed' >&2; exit 3");
    // What it was asked before it closed would be a possible repeat, and stay alone.
    let closed = serde_json::json!({ "code": -3, "message": "closed" });
    daemon.set_mode(support::signal::DaemonMode::Error(closed));
    let away = Script::default().says("CONNECT", "421 later").start();
    let mut first = channels();
    first[1].1 = email(&away);
    let engine = Engine::open(kept.path(), settings(first, quick_once));
    for n in 0..25 {
        engine.say(["web1", "web2", "web3"][n % 3], &format!("number {n} grüße"));
    }
    wait_for(|| engine.courier.stats().failed.len() == 5, "every channel to fail");
    engine.stop();
    chat.set_mode(Mode::Normal);
    pager.set_mode(Mode::Normal);
    cli.answer("");
    daemon.set_mode(support::signal::DaemonMode::Normal);
    let engine = Engine::open(kept.path(), settings(channels(), quick));
    for (name, _) in channels() {
        engine.empty(name);
    }
    let mails = texts_of(&mail, engine.courier.stats().sent["mail"]);
    let heard = [
        ("chat", chat.received().into_iter().map(|post| post.text).collect::<Vec<_>>()),
        ("mail", mails),
        ("pager", pager.received().into_iter().map(|fields| fields["message"].clone()).collect()),
        ("signal", cli.received().into_iter().map(|(text, _)| text).collect()),
        (
            "rpc",
            daemon.received().iter().map(|p| p["message"].as_str().unwrap().to_owned()).collect(),
        ),
    ];
    for (name, texts) in heard {
        let mut numbers: Vec<usize> = texts.iter().flat_map(|text| said(text)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..25).collect::<Vec<_>>(), "{name}: {texts:#?}");
        let digests = texts.iter().filter(|text| text.contains("events while")).count();
        assert!(digests > 0, "{name} had a digest");
    }
    assert_eq!(chat.violations(), [""; 0]);
    assert_eq!(pager.violations(), [""; 0]);
    assert_eq!(cli.violations(), [""; 0]);
    assert_eq!(daemon.violations(), [""; 0]);
    engine.stop();
}

#[test]
fn a_refused_channel_is_told_through_its_neighbours_once_and_so_is_its_return() {
    let (chat, other) = (MattermostDouble::start(), MattermostDouble::start());
    let kept = directory();
    let channels = || {
        let kinds = vec![("chat", mattermost(&chat.url)), ("other", mattermost(&other.url))];
        settings(kinds, quick)
    };
    chat.set_mode(Mode::Status(403, "locked".into()));
    let engine = Engine::open(kept.path(), channels());
    for n in 0..5 {
        engine.say("web1", &format!("number {n}"));
    }
    let notices = |words: &str| {
        let posts = other.received();
        posts.iter().filter(|post| post.text.contains(words)).count()
    };
    wait_for(|| notices("channel chat is failing") == 1, "the notice");
    // Each probe is refused again, and the restart finds it refused too.
    engine.courier.reconfigure(channels());
    engine.say("web1", "number 5");
    engine.empty("other");
    engine.stop();
    let engine = Engine::open(kept.path(), channels());
    engine.say("web1", "number 6");
    engine.empty("other");
    assert_eq!(notices("channel chat is failing"), 1, "told once");
    assert_eq!(notices("channel chat delivers again"), 0);
    chat.set_mode(Mode::Normal);
    engine.courier.reconfigure(channels());
    engine.empty("chat");
    wait_for(|| notices("channel chat delivers again") == 1, "the return to be told");
    let own = chat.received().iter().filter(|post| post.text.contains("channel chat")).count();
    assert_eq!(own, 0, "never through itself");
    engine.stop();
}

#[test]
fn a_mail_server_that_refuses_one_of_two_recipients_still_gives_the_other_its_mail() {
    for answer in
        ["556 5.1.10 null MX", "556 no mail here", "554 5.7.1 no", "550 5.7.1 access denied"]
    {
        for bad in ["ann@", "bob@"] {
            let line: &'static str = if bad == "ann@" { "RCPT TO:<ann@" } else { "RCPT TO:<bob@" };
            let server = Script::default().says(line, answer).start();
            let ChannelKind::Email(one) = email(&server) else { unreachable!() };
            let recipients = vec!["ann@example.com".into(), "bob@example.com".into()];
            let both = ChannelKind::Email(Email { recipients, ..one });
            let kept = directory();
            let engine = Engine::open(kept.path(), settings(vec![("mail", both)], quick));
            for n in 0..3 {
                engine.say("web1", &format!("number {n}"));
                wait_for(
                    || engine.courier.stats().sent.get("mail").copied().unwrap_or(0) > n,
                    "the other's mail",
                );
            }
            let stats = engine.courier.stats();
            assert!(
                !stats.queues[0].refused && stats.queues[0].failing_since.is_none(),
                "{answer}"
            );
            engine.stop();
        }
    }
}

#[test]
fn a_recipient_that_is_deferred_or_hung_up_on_delays_nobody_else() {
    let slow: fn(RetryPolicy) -> RetryPolicy = |policy| RetryPolicy {
        first_delay: Duration::from_secs(3600),
        max_delay: Duration::from_secs(3600),
        ..quick(policy)
    };
    let late = [
        Reaction::Say("450 4.2.0 greylisted"),
        Reaction::Say("421 4.7.0 come later"),
        Reaction::Say("552 5.2.2 full"),
        Reaction::Close,
    ];
    for reaction in late {
        for line in ["RCPT TO:<ann@", "RCPT TO:<bob@"] {
            let server = Script::default().on(line, reaction.clone()).start();
            let ChannelKind::Email(one) = email(&server) else { unreachable!() };
            let recipients = vec!["ann@example.com".into(), "bob@example.com".into()];
            let both = ChannelKind::Email(Email { recipients, ..one });
            let kept = directory();
            let engine = Engine::open(kept.path(), settings(vec![("mail", both)], slow));
            for n in 0..3 {
                engine.say("web1", &format!("number {n}"));
                let sent = || engine.courier.stats().sent.get("mail").copied().unwrap_or(0);
                wait_for(|| sent() > n, "the other's mail");
            }
            assert!(engine.courier.stats().queues[0].failing_since.is_none(), "{reaction:?}");
            engine.stop();
        }
    }
}

#[test]
fn an_acknowledged_alert_is_not_repeated_until_it_is_over() {
    let (pager, chat) = (PushoverDouble::start(), MattermostDouble::start());
    let kept = directory();
    let channels = vec![("pager", pushover(&pager)), ("chat", mattermost(&chat.url))];
    let engine = Engine::open(kept.path(), settings(channels, quick));
    let alert = |level: Level, reminder: bool| {
        let kind = EventKind::Threshold {
            host: "web1".into(),
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level,
            since: Wall(0),
            reminder,
        };
        engine.tell(level, kind);
    };
    alert(Level::Critical, false);
    let unacknowledged =
        || engine.courier.stats().queues.iter().map(|line| line.unacknowledged).sum::<usize>();
    wait_for(|| unacknowledged() == 1, "the emergency");
    wait_for(|| unacknowledged() == 0, "the acknowledgement");
    alert(Level::Critical, true);
    engine.empty("chat");
    assert_eq!(chat.received().len(), 1, "no reminder, through any channel");
    alert(Level::Ok, false);
    engine.empty("pager");
    engine.empty("chat");
    alert(Level::Critical, false);
    assert_eq!(chat.wait_for(3, TIMEOUT).len(), 3);
    assert_eq!(pager.cancelled().len(), 1);
    assert_eq!(pager.violations(), [""; 0]);
    engine.stop();
}

#[test]
fn nothing_is_lost_over_restarts_in_the_middle() {
    let (chat, pager, daemon) =
        (MattermostDouble::start(), PushoverDouble::start(), SignalDaemon::start());
    let mail = Script::default().start();
    let kept = directory();
    let channels = || {
        let rpc = Some(RpcAddress::Http(daemon.url.clone()));
        let kinds = vec![
            ("chat", mattermost(&chat.url)),
            ("mail", email(&mail)),
            ("pager", pushover(&pager)),
            ("rpc", signal(Path::new("signal-cli"), rpc, "+12025550102")),
        ];
        settings(kinds, quick_and_single)
    };
    for round in 0..6 {
        let engine = Engine::open(kept.path(), channels());
        for n in round * 10..round * 10 + 10 {
            engine.say("web1", &format!("number {n}"));
        }
        engine.stop();
    }
    let engine = Engine::open(kept.path(), channels());
    for name in ["chat", "mail", "pager", "rpc"] {
        engine.empty(name);
    }
    let mails = texts_of(&mail, 60);
    let heard: [Vec<String>; 4] = [
        chat.received().into_iter().map(|post| post.text).collect(),
        mails,
        pager.received().into_iter().map(|fields| fields["message"].clone()).collect(),
        daemon.received().iter().map(|p| p["message"].as_str().unwrap().to_owned()).collect(),
    ];
    for texts in heard {
        let numbers: Vec<usize> = texts.iter().flat_map(|text| said(text)).collect();
        assert_eq!(numbers, (0..60).collect::<Vec<_>>());
    }
    engine.stop();
}
