//! The status page in a real browser: readable, usable, quick, and proof against what strangers
//! call their metrics.

use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heartbeat::clock::{Now, Wall};
use heartbeat::event::Level;
use heartbeat::snapshot::{
    AlertView, ChannelState, ChannelView, ConnectionView, DetailView, EventView, FailureView,
    HostView, MetricView, ModuleView, NotificationView, PastView, PlanView, PointView,
    RepositoryView, SeriesView, Slice, State, Telling,
};
use heartbeat::web::metrics::Figures;
use heartbeat::web::notice::Notice;
use heartbeat::web::wanted::{EventsWanted, SeriesWanted, Wanted};
use heartbeat::web::{Answer, House, NotSent, Sending, Taken, Web};

#[path = "support/browser.rs"]
mod browser;

use browser::Browser;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// What everybody may call something who may call something anything.
const EVIL: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&\u{202e}";

/// Browsers need memory: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A daemon with what there is to show.
#[derive(Default)]
struct Daemon {
    hosts: Vec<HostView>,
    alerts: Vec<AlertView>,
    plans: Vec<PlanView>,
    channels: Vec<ChannelView>,
    events: Vec<EventView>,
    told: Vec<NotificationView>,
    slow: bool,
}

/// What a host fares by: every seventh has a bad day, the second was not watched for a while.
fn past(number: usize, now: Wall) -> PastView {
    let slice = |start: Wall, whole: Duration, index: usize| match (number * 31 + index * 7) % 97 {
        _ if number % 9 == 2 && index < 8 => Slice { start, ..Slice::default() },
        3 => Slice { start, up: whole / 3, down: whole - whole / 3, ..Slice::default() },
        7 | 8 => Slice { start, up: whole / 2, degraded: whole / 2, ..Slice::default() },
        40 => Slice { start, up: whole / 4, blind: whole - whole / 4, ..Slice::default() },
        _ => Slice { start, up: whole, ..Slice::default() },
    };
    let hours: Vec<Slice> = (0..24).map(|n| slice(now - HOUR * (23 - n as u32), HOUR, n)).collect();
    let days: Vec<Slice> = (0..90).map(|n| slice(now - DAY * (89 - n as u32), DAY, n)).collect();
    PastView {
        availability_day: Slice::availability(&hours),
        availability_90_days: Slice::availability(&days),
        hours,
        days,
    }
}

impl House for Daemon {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn hosts(&self, from: usize, count: usize) -> Vec<HostView> {
        self.hosts.iter().skip(from).take(count).cloned().collect()
    }

    fn host(&self, name: &str) -> Option<HostView> {
        self.hosts.iter().find(|host| host.name == name).cloned()
    }

    fn hear(&self, _: &[u8], _: IpAddr) -> Taken {
        Taken::Now(Answer::Stored)
    }

    fn alert(&self, _: &[u8]) -> Taken {
        Taken::Now(Answer::Stored)
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn channels(&self) -> Vec<ChannelView> {
        self.channels.clone()
    }

    fn notifications(&self, _: &Wanted) -> Result<(Vec<NotificationView>, Option<u64>), String> {
        self.read(&self.told).map(|told| (told, None))
    }

    fn pasts(&self, hosts: &[&str]) -> Result<Vec<Option<PastView>>, String> {
        let now = Now::read().wall;
        let place = |name: &str| self.hosts.iter().position(|host| host.name == name);
        let past = |name: &&str| place(name).map(|number| past(number, now));
        self.read(hosts).map(|hosts| hosts.iter().map(past).collect())
    }

    fn series(&self, host: &str, wanted: &SeriesWanted) -> Result<Option<Vec<SeriesView>>, String> {
        let Some(host) = self.host(host) else { return Ok(None) };
        let step = wanted.range / 144;
        let now = Now::read().wall;
        let series = |(number, metric): (usize, &MetricView)| {
            let point = |index: u32| {
                let wave = (f64::from(index) / 9.0 + number as f64).sin() * 0.2 + 1.0;
                let mean = (metric.value * wave) as f32;
                PointView {
                    at: now - step * (144 - index),
                    mean,
                    least: mean * 0.9,
                    most: mean * 1.15,
                }
            };
            let points = (0..144).filter(|index| !(40..52).contains(index)).map(point).collect();
            SeriesView { path: metric.path.clone(), step, points }
        };
        let all: Vec<_> = host.metrics.iter().enumerate().map(series).collect();
        self.read(&all).map(Some)
    }

    fn events(&self, _: &EventsWanted) -> Result<(Vec<EventView>, Option<u64>), String> {
        self.read(&self.events).map(|events| (events, None))
    }

    fn alerts(&self) -> Result<Vec<AlertView>, String> {
        self.read(&self.alerts)
    }

    fn plans(&self) -> Result<Vec<PlanView>, String> {
        self.read(&self.plans)
    }

    fn notify(&self, _: Notice) -> Result<Sending, NotSent> {
        Err(NotSent::Nobody("nobody".into()))
    }
}

impl Daemon {
    fn read<T: Clone>(&self, of: &[T]) -> Result<Vec<T>, String> {
        if self.slow { Err("the disk is slow".into()) } else { Ok(of.to_vec()) }
    }

    /// So many hosts, most of them well.
    fn with(count: usize) -> Daemon {
        let hosts = (0..count).map(usual).collect();
        let channels = vec![channel("mail", "email"), channel("oncall", "signal")];
        let now = Now::read().wall;
        let events =
            (0..20).map(|n| event(&format!("web{n} ipv4 is back"), Level::Ok, now - HOUR * n));
        Daemon { hosts, channels, events: events.collect(), ..Daemon::default() }
    }

    /// Everything that can be wrong, and everything that can be attacked.
    fn ugly() -> Daemon {
        let now = Now::read().wall;
        let mut daemon = Daemon::with(40);
        let long = "a-very-long-host-name-that-somebody-thought-of.".repeat(5);
        for (index, name) in
            [EVIL, &long, "db-primary", "shy", "gone", "laptop"].into_iter().enumerate()
        {
            daemon.hosts[index].name = name.into();
        }
        let hosts = &mut daemon.hosts;
        overdue(&mut hosts[0], now - 3 * HOUR);
        overdue(&mut hosts[2], now - HOUR / 7);
        hosts[3].state = State::New;
        hosts[3].since = None;
        hosts[3].connections.clear();
        hosts[3].metrics.clear();
        hosts[4].state = State::Shutdown;
        hosts[4].connections[0].state = State::Shutdown;
        overdue(&mut hosts[5], now - 90 * HOUR);
        hosts[5].watch = false;
        hosts[1].metrics[0].level = Some(Level::Critical);
        hosts[1].metrics[0].value = 99.3;
        hosts[1].metrics.push(metric(EVIL, 1e9, Some(Level::Warning), Some("> 5.0")));
        hosts[7].metrics[1].level = Some(Level::Warning);
        hosts[7].metrics[1].value = 91.0;
        let vpn = hosts[8].connections[0].clone();
        hosts[8].connections.push(ConnectionView {
            name: "vpn".into(),
            state: State::Overdue,
            ..vpn
        });
        for (text, level) in [
            ("db-primary ipv4 overdue", Level::Critical),
            (EVIL, Level::Critical),
            ("web7 memory_monitor.percent = 91.0 (> 85.0)", Level::Warning),
        ] {
            let host = (level == Level::Critical).then(|| "db-primary".to_owned());
            daemon.alerts.push(AlertView {
                subject: format!("host {EVIL}"),
                host,
                text: text.into(),
                level,
                since: Some(now - HOUR),
                channels: vec!["oncall".into(), "mail".into()],
                acknowledged: None,
            });
        }
        daemon.plans = vec![
            plan("1", "Nightly", "SUCCESS", Level::Ok, now),
            plan("2", EVIL, "PARTIAL", Level::Critical, now),
        ];
        daemon.channels[1].state = ChannelState::Failing;
        daemon.channels[1].waiting = 3;
        daemon.channels[1].oldest_age_seconds = Some(754.0);
        daemon.channels[1].last_failure =
            Some(FailureView { at: Some(now - HOUR / 60), why: format!("signal-cli says {EVIL}") });
        daemon.events.insert(0, event(EVIL, Level::Critical, now));
        daemon.told = vec![
            told(EVIL, Telling::Delivered, now),
            told("db-primary ipv4 overdue", Telling::Waiting, now),
            told("db-primary booted", Telling::Failed, now),
        ];
        daemon
    }
}

fn overdue(host: &mut HostView, since: Wall) {
    host.state = State::Overdue;
    host.since = Some(since);
    for connection in &mut host.connections {
        connection.state = State::Overdue;
        connection.last_seen = Some(since - HOUR / 60);
    }
}

fn metric(path: &str, value: f64, level: Option<Level>, limit: Option<&str>) -> MetricView {
    MetricView { path: path.into(), value, level, since: None, limit: limit.map(str::to_owned) }
}

fn usual(number: usize) -> HostView {
    let now = Now::read().wall;
    let share = |of: usize| ((number * of) % 70) as f64 + 0.5;
    let ok = Some(Level::Ok);
    HostView {
        name: format!("web{number}"),
        watch: true,
        state: State::Up,
        since: Some(now - HOUR * (number as u32 + 1)),
        connections: vec![ConnectionView {
            name: "ipv4".into(),
            state: State::Up,
            last_seen: Some(now - Duration::from_secs(3)),
            interval: Duration::from_secs(10),
            address: Some("192.0.2.1".into()),
        }],
        metrics: vec![
            metric("cpu_monitor.cpu_percent", share(13), ok, Some("> 80.0")),
            metric("memory_monitor.percent", share(17), ok, Some("> 85.0")),
            metric("disk_monitor.root.percent", share(29), ok, Some("> 85.0")),
            metric("load_monitor.per_core", 0.21, ok, Some("> 2.0")),
            metric("disk_monitor.root.free_bytes", 123e9, None, None),
        ],
        channels: vec!["mail".into()],
    }
}

fn channel(name: &str, kind: &'static str) -> ChannelView {
    ChannelView {
        name: name.into(),
        kind,
        min_level: Level::Info,
        state: ChannelState::Works,
        failing_since: None,
        last_success: Some(Now::read().wall - HOUR),
        last_failure: None,
        waiting: 0,
        unacknowledged: 0,
        oldest_age_seconds: None,
        sent: 5,
        failed: 0,
    }
}

fn event(text: &str, level: Level, at: Wall) -> EventView {
    let details = vec![DetailView { label: EVIL.into(), text: EVIL.into() }];
    EventView {
        id: format!("{:014x}", at.0),
        at,
        level,
        host: Some("web1".into()),
        subject: "host web1".into(),
        kind: "back".into(),
        text: text.into(),
        details,
    }
}

fn told(title: &str, state: Telling, at: Wall) -> NotificationView {
    NotificationView {
        id: format!("{title:.9}"),
        event: String::new(),
        state,
        channel: "oncall".into(),
        recipient: Some(EVIL.into()),
        host: None,
        subject: String::new(),
        level: Level::Critical,
        title: title.into(),
        accepted: Some(at),
        finished: None,
        attempts: 1,
        why: (state != Telling::Delivered).then(|| "no answer".into()),
        told_in: None,
        acknowledged: None,
        acknowledged_by: None,
    }
}

fn plan(id: &str, name: &str, outcome: &str, level: Level, at: Wall) -> PlanView {
    let module = |name: &str, state: &str| ModuleView {
        name: name.into(),
        label: Some(EVIL.into()),
        state: state.into(),
        error: (state == "failed").then(|| EVIL.into()),
        errors: Some(u64::from(state == "failed")),
        size: Some(123_456_789),
        files: Some(3),
        snapshots: Some(12),
        start: Some(at - HOUR),
        end: Some(at - HOUR / 2),
        node: Some("1".into()),
    };
    PlanView {
        plan: id.into(),
        name: Some(name.into()),
        outcome: outcome.into(),
        level,
        at: at - HOUR,
        why: "1 of 3 modules failed".into(),
        headline: EVIL.into(),
        modules: vec![
            module("mail1", if level == Level::Ok { "success" } else { "failed" }),
            module("nextcloud2", "success"),
        ],
        repositories: vec![RepositoryView { module: "mail1".into(), text: EVIL.into() }],
    }
}

/// The page of a made-up daemon.
struct Site {
    web: Option<Web>,
    url: String,
    _scratch: tempfile::TempDir,
}

impl Site {
    fn open(daemon: Daemon) -> Site {
        let scratch = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Web::start(listener, Arc::new(daemon), None, scratch.path()).unwrap();
        let url = format!("http://{}", web.address());
        Site { web: Some(web), url, _scratch: scratch }
    }

    fn get(&self, target: &str) -> String {
        let mut answer = ureq::get(format!("{}{target}", self.url)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(web) = self.web.take() {
            web.stop();
        }
    }
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const SCREENS: [(u32, u32, bool, &str); 4] = [
    (1280, 900, false, "wide-light"),
    (1280, 900, true, "wide-dark"),
    (390, 844, false, "phone-light"),
    (390, 844, true, "phone-dark"),
];

#[test]
fn every_page_is_sound_on_every_screen() {
    let _alone = alone();
    let browser = Browser::start();
    let sites = [
        ("none", Site::open(Daemon::default()), "/"),
        ("three", Site::open(Daemon::with(3)), "/"),
        ("ugly", Site::open(Daemon::ugly()), "/"),
        ("thousand", Site::open(Daemon::with(1000)), "/"),
        ("host", Site::open(Daemon::ugly()), "/hosts/web7"),
        ("first", Site::open(Daemon::ugly()), "/hosts/shy"),
        ("nobody", Site::open(Daemon::ugly()), "/hosts/nobody"),
    ];
    let mut broken = Vec::new();
    for (name, site, path) in &sites {
        for (width, height, dark, screen) in SCREENS {
            browser.screen(width, height, dark);
            browser.open(&format!("{}{path}", site.url));
            browser.picture(&format!("{name}-{screen}"));
            let wide = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
            if wide > u64::from(width) {
                broken.push(format!("{name}-{screen} scrolls sideways: {wide}"));
            }
            // Contrast goes by the colours, the rest by the width.
            if dark == (width > 600) {
                continue;
            }
            let complaints = browser.axe();
            broken.extend(complaints.into_iter().map(|words| format!("{name}-{screen}: {words}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let console: Vec<_> =
        browser.console().into_iter().filter(|line| !line.contains("404")).collect();
    assert!(console.is_empty(), "{console:#?}");
}
