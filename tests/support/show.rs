//! A made-up daemon with everything that a page can show, and its HTTP server.
#![allow(dead_code)]

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heartbeat::clock::{Now, Wall};
use heartbeat::event::{EventId, Level};
use heartbeat::http::calm_request::CalmCommand;
use heartbeat::http::query::{NotifyRequest, Recipients};
use heartbeat::http::service::{CalmRefusal, MetricsSnapshot};
use heartbeat::http::{
    Credentials, Daemon, HttpServer, Ingest, IngestResult, PublicHosts, ReloadResult, SendError,
    SendJob, SendResponse, Service,
};
use heartbeat::secret::Secret;
use heartbeat::view::calm::{
    CalmAnswer, HeldListView, HeldView, ReasonView, SilenceView, SilencesView,
};
use heartbeat::view::cluster::{ClusterView, NodeState, NodeView};
use heartbeat::view::query::{EventQuery, NotificationQuery, SeriesQuery};
use heartbeat::view::{
    AlertView, AvailabilityView, ChannelState, ChannelView, ConnectionView, DeliveryState,
    DependencyView, DetailView, EventView, FailureView, HostState, HostView, LinkedHost,
    MetricView, ModuleView, NotificationView, PlanView, PointView, RemindedView, RepositoryView,
    SeriesView, UptimeSlice,
};

pub const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// What everybody may call something who may call something anything.
pub const EVIL: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&\u{202e}";

/// What there is to show.
#[derive(Default)]
pub struct Show {
    pub hosts: Vec<HostView>,
    pub alerts: Vec<AlertView>,
    pub plans: Vec<PlanView>,
    pub channels: Vec<ChannelView>,
    pub events: Vec<EventView>,
    pub told: Vec<NotificationView>,
    pub silences: Vec<SilenceView>,
    pub held: Vec<HeldView>,
    pub cluster: Option<ClusterView>,
    /// The test messages that were sent.
    pub sent: Vec<String>,
    pub slow: bool,
}

/// What a host fares by: every seventh has a bad day, the second was not watched for a while.
fn past(number: usize, now: Wall) -> AvailabilityView {
    let slice = |start: Wall, whole: Duration, index: usize| match (number * 31 + index * 7) % 97 {
        _ if number % 9 == 2 && index < 8 => UptimeSlice { start, ..UptimeSlice::default() },
        3 => {
            UptimeSlice { start, up: whole / 3, down: whole - whole / 3, ..UptimeSlice::default() }
        }
        7 | 8 => {
            UptimeSlice { start, up: whole / 2, degraded: whole / 2, ..UptimeSlice::default() }
        }
        40 => {
            UptimeSlice { start, up: whole / 4, blind: whole - whole / 4, ..UptimeSlice::default() }
        }
        _ => UptimeSlice { start, up: whole, ..UptimeSlice::default() },
    };
    let hours: Vec<UptimeSlice> =
        (0..24).map(|n| slice(now - HOUR * (23 - n as u32), HOUR, n)).collect();
    let days: Vec<UptimeSlice> =
        (0..90).map(|n| slice(now - DAY * (89 - n as u32), DAY, n)).collect();
    let mut past = AvailabilityView {
        availability_day: UptimeSlice::availability(&hours),
        availability_90_days: UptimeSlice::availability(&days),
        hours,
        days,
    };
    let nights = (0..90).filter(|day| day % 7 == number as u32 % 7);
    let nights: Vec<_> = nights.map(|day| now - DAY * day - HOUR..now - DAY * day).collect();
    if number.is_multiple_of(3) {
        past.mark(&nights);
    }
    past
}

/// A cluster with a node that leads, one with another configuration, and one that is gone.
fn nodes(now: Wall) -> ClusterView {
    let node = |name: &str, role, last_sign_seconds, configuration: &str| NodeView {
        name: name.into(),
        role,
        version: "0.1.0".into(),
        url: None,
        last_sign_seconds,
        hosts: 1234,
        configuration: configuration.into(),
    };
    ClusterView {
        now,
        name: "hbd".into(),
        node: "hb1".into(),
        role: NodeState::Leader,
        leader: Some("hb1".into()),
        leader_url: None,
        epoch: 7,
        takeovers: 1,
        connections: 40,
        redis_trouble: Some("Redis at redis1:6379: it does not answer".into()),
        nodes: vec![
            node("hb1", NodeState::Leader, 0.2, "4f2a"),
            node(&"a-long-name-of-a-node.".repeat(9), NodeState::Standby, 1.0, "77b0"),
            node(EVIL, NodeState::Receiver, 4000.0, "4f2a"),
        ],
    }
}

/// A daemon that shows it.
pub struct ShowDaemon(Mutex<Show>);

impl ShowDaemon {
    pub fn show(&self) -> MutexGuard<'_, Show> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes from the disk.
    fn kept<T>(&self, of: impl FnOnce(&Show) -> T) -> Result<T, String> {
        let show = self.show();
        if show.slow { Err("the disk is slow".into()) } else { Ok(of(&show)) }
    }
}

impl Daemon for ShowDaemon {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn hosts(&self, from: usize, count: usize) -> Vec<HostView> {
        self.show().hosts.iter().skip(from).take(count).cloned().collect()
    }

    fn host(&self, name: &str) -> Option<HostView> {
        self.show().hosts.iter().find(|host| host.name == name).cloned()
    }

    fn ingest_heartbeat(&self, _: &[u8], _: IpAddr) -> Ingest {
        Ingest::Done(IngestResult::Stored)
    }

    fn forget(&self, host: &str, _: Option<&str>) -> Result<(), String> {
        Err(format!("no host is called {host}"))
    }

    fn forget_plan(&self, _: &str) -> Option<String> {
        None
    }

    fn ingest_alert(&self, _: &[u8]) -> Ingest {
        Ingest::Done(IngestResult::Stored)
    }

    fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot::default()
    }

    fn cluster(&self) -> Option<ClusterView> {
        self.show().cluster.clone()
    }

    fn channels(&self) -> Vec<ChannelView> {
        self.show().channels.clone()
    }

    fn notifications(
        &self,
        _: &NotificationQuery,
    ) -> Result<(Vec<NotificationView>, Option<u64>), String> {
        self.kept(|show| show.told.clone()).map(|told| (told, None))
    }

    fn availabilities(&self, hosts: &[&str]) -> Result<Vec<Option<AvailabilityView>>, String> {
        let now = Now::read().wall;
        let place = |name: &str| self.show().hosts.iter().position(|host| host.name == name);
        let past = |name: &&str| place(name).map(|number| past(number, now));
        let pasts = hosts.iter().map(past).collect();
        self.kept(|_| pasts)
    }

    fn windows(&self, _: &str, period: &Range<Wall>) -> Vec<Range<Wall>> {
        vec![period.end - HOUR * 9..period.end - HOUR * 7]
    }

    fn dependencies(&self, _: &str) -> DependencyView {
        let link = |(name, state): (&str, HostState)| LinkedHost { name: name.into(), state };
        let links = |all: &[(&str, HostState)]| all.iter().copied().map(link).collect::<Vec<_>>();
        let show = self.show();
        if show.told.is_empty() {
            return DependencyView::default();
        }
        DependencyView {
            through: vec![
                links(&[("router", HostState::Up)]),
                links(&[("wan1", HostState::Overdue), (EVIL, HostState::Up)]),
            ],
            behind: links(&[("db-primary", HostState::Overdue), ("web9", HostState::New)]),
            behind_count: 40,
        }
    }

    fn limits(&self, _: &str, metric: &str) -> Vec<(Level, String)> {
        let percent = metric.ends_with("percent");
        let limits = [(Level::Warning, "> 40.0".into()), (Level::Critical, "> 60.0".into())];
        if percent { limits.to_vec() } else { Vec::new() }
    }

    fn series(&self, host: &str, wanted: &SeriesQuery) -> Result<Option<Vec<SeriesView>>, String> {
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
        self.kept(|_| Some(all))
    }

    fn events(&self, query: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String> {
        let id = |event: &EventView| u64::from_str_radix(&event.id, 16).ok().map(EventId);
        let mut events = self.kept(|show| show.events.clone())?;
        events.retain(|event| {
            query.matches(event) && query.before.is_none_or(|to| id(event) < Some(to))
        });
        let next = events.get(query.limit).and_then(|_| id(&events[query.limit - 1]));
        events.truncate(query.limit);
        Ok((events, next))
    }

    fn alerts(&self) -> Result<Vec<AlertView>, String> {
        self.kept(|show| show.alerts.clone())
    }

    fn plans(&self) -> Result<Vec<PlanView>, String> {
        self.kept(|show| show.plans.clone())
    }

    fn silences(&self) -> Result<SilencesView, String> {
        let now = Now::read().wall;
        self.kept(|show| SilencesView { now, silences: show.silences.clone(), next: Vec::new() })
    }

    fn held(&self, host: Option<&str>) -> Result<HeldListView, String> {
        self.kept(|show| {
            let mut held = show.held.clone();
            held.retain(|one| host.is_none_or(|host| one.subject == format!("host {host}")));
            HeldListView { count: held.len(), held }
        })
    }

    fn calm(&self, _: CalmCommand) -> Result<CalmAnswer, CalmRefusal> {
        Err(CalmRefusal::NotFound(String::new()))
    }

    fn reload(&self) -> ReloadResult {
        ReloadResult::NotTried("there is no configuration".into())
    }

    /// The channel `oncall` does not work.
    fn notify(&self, request: NotifyRequest) -> Result<SendJob, SendError> {
        let Recipients::Channels(channels) = request.recipients else {
            return Err(SendError::NoChannel("nobody".into()));
        };
        let known = |name: &String| self.show().channels.iter().any(|one| one.name == *name);
        if !channels.iter().all(known) {
            return Err(SendError::NoChannel("there is no such channel".into()));
        }
        self.show().sent.push(request.message);
        Ok(Box::new(move || {
            let mut sent = SendResponse::default();
            for name in channels {
                if name == "oncall" {
                    sent.why.insert(name.clone(), format!("signal-cli says {EVIL}"));
                }
                sent.results.insert(name.clone(), name != "oncall");
            }
            Ok(sent)
        }))
    }
}

impl Show {
    /// So many hosts, most of them well.
    pub fn with(count: usize) -> Show {
        let hosts = (0..count).map(usual).collect();
        let channels = vec![channel("mail", "email"), channel("oncall", "signal")];
        let now = Now::read().wall;
        let events =
            (0..20).map(|n| event(&format!("web{n} ipv4 is back"), Level::Ok, now - HOUR * n));
        Show { hosts, channels, events: events.collect(), ..Show::default() }
    }

    /// So many hosts in groups, one in nine of them in some trouble.
    pub fn mixed(count: usize) -> Show {
        let now = Now::read().wall;
        let mut show = Show::with(count);
        for (number, host) in show.hosts.iter_mut().enumerate() {
            host.groups = vec![["web", "db", "mail", "shop"][number % 4].to_owned()];
            host.metrics[3].value = (number % 13) as f64 / 4.0;
            match number % 45 {
                2 => overdue(host, now - HOUR * 3),
                9 => {
                    host.metrics[1].value = 96.4;
                    host.metrics[1].level = Some(Level::Critical);
                    host.metrics[1].since = Some(now - HOUR / 4);
                }
                18 | 27 => {
                    host.metrics[2].value = 88.0;
                    host.metrics[2].level = Some(Level::Warning);
                    host.metrics[2].since = Some(now - HOUR * 50);
                }
                36 => host.state = HostState::Shutdown,
                _ => {}
            }
            if number % 10 == 3 {
                host.note = Some("rack 3".into());
            }
        }
        let told = |host: &HostView| {
            let (text, scope, level) = match host.metrics.iter().find(|m| m.level > Some(Level::Ok))
            {
                Some(metric) => (metric.path.clone(), metric.path.clone(), metric.level?),
                None if host.state == HostState::Overdue => {
                    ("ipv4 overdue".into(), "ipv4".into(), Level::Critical)
                }
                None => return None,
            };
            Some(AlertView {
                subject: format!("host {}", host.name),
                host: Some(host.name.clone()),
                text,
                level,
                since: Some(now - HOUR / 4),
                channels: vec!["mail".into()],
                acknowledged: None,
                scope: Some(format!("{}/{scope}", host.name)),
                told: vec!["mail".into()],
                held: None,
            })
        };
        show.alerts = show.hosts.iter().filter_map(told).collect();
        show.alerts.sort_by_key(|alert| std::cmp::Reverse(alert.level));
        show
    }

    /// Everything that can be wrong, and everything that can be attacked.
    pub fn ugly() -> Show {
        let now = Now::read().wall;
        let mut daemon = Show::with(40);
        daemon.cluster = Some(nodes(now));
        let long = "a-very-long-host-name-that-somebody-thought-of.".repeat(5);
        for (index, name) in
            [EVIL, &long, "db-primary", "shy", "gone", "laptop"].into_iter().enumerate()
        {
            daemon.hosts[index].name = name.into();
        }
        let hosts = &mut daemon.hosts;
        overdue(&mut hosts[0], now - 3 * HOUR);
        overdue(&mut hosts[2], now - HOUR / 7);
        hosts[3].state = HostState::New;
        hosts[3].since = None;
        hosts[3].connections.clear();
        hosts[3].metrics.clear();
        hosts[4].state = HostState::Shutdown;
        hosts[4].connections[0].state = HostState::Shutdown;
        overdue(&mut hosts[5], now - 90 * HOUR);
        hosts[5].watch = false;
        hosts[1].metrics[0].level = Some(Level::Critical);
        hosts[1].metrics[0].value = 99.3;
        hosts[1].metrics.push(metric(EVIL, 1e9, Some(Level::Warning), Some("> 5.0")));
        hosts[7].metrics[1].level = Some(Level::Warning);
        hosts[7].metrics[1].value = 91.0;
        hosts[7].metrics[2].stale = true;
        hosts[7].metrics[2].at = Some(now - HOUR);
        hosts[7].connections[0].old_key = true;
        let vpn = hosts[8].connections[0].clone();
        hosts[8].connections.push(ConnectionView {
            name: "vpn".into(),
            state: HostState::Overdue,
            ..vpn
        });
        hosts[2].groups = vec!["db".into()];
        hosts[9].groups = vec!["web".into(), EVIL.into()];
        hosts[9].note = Some(format!("rack 3, {EVIL}"));
        hosts[9].link = Some("https://wiki.example/web9?a=b&c".into());
        hosts[10].groups = vec!["web".into()];
        hosts[10].note = Some("the shop of a customer who calls at night ".repeat(9));
        hosts[7].groups = vec!["web".into()];
        for (text, level) in [
            ("ipv4 overdue", Level::Critical),
            (EVIL, Level::Critical),
            ("disk_monitor.root.percent = 97.0 (> 95.0)", Level::Critical),
            ("does not deliver", Level::Warning),
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
                scope: None,
                told: Vec::new(),
                held: None,
            });
        }
        let silence = |id: &str, kind, by: Option<&str>| SilenceView {
            id: id.into(),
            kind,
            scope: format!("{id}*"),
            from: now - HOUR,
            until: now + HOUR,
            by: by.map(str::to_owned),
            comment: by.map(|_| EVIL.into()),
            unless: None,
            holds: 1,
        };
        daemon.silences = vec![
            silence("s1", "silence", Some(EVIL)),
            silence("s2", "host", Some("web2")),
            silence("nightly", "window", None),
        ];
        let reason = ReasonView {
            why: "silence",
            id: "s1".into(),
            until: Some(now + HOUR),
            channels: vec!["mail".into()],
        };
        let held = HeldView {
            subject: "host db-primary".into(),
            text: EVIL.into(),
            level: Level::Critical,
            since: now - HOUR,
            reasons: vec![reason],
            out_at: None,
        };
        daemon.alerts[0].scope = Some("db-primary/ipv4".into());
        daemon.alerts[0].acknowledged = Some(now - HOUR);
        daemon.alerts[1].scope = Some(format!("db-primary/{EVIL}"));
        daemon.alerts[1].held = Some(held.clone());
        daemon.alerts[2].scope = Some("db-primary/disk_monitor.root.percent".into());
        let disk = &mut daemon.hosts[2].metrics[2];
        (disk.value, disk.level) = (97.0, Some(Level::Critical));
        disk.limit = Some("> 95.0".into());
        let reason = |why, until| ReasonView { why, id: EVIL.into(), until, channels: Vec::new() };
        let others = vec![
            reason("parent", None),
            reason("storm", None),
            reason("flapping", Some(now + HOUR)),
        ];
        let also = HeldView { reasons: others, ..held.clone() };
        daemon.held = vec![held, also];
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
        for (text, kind, level, hours) in [
            ("web7 ipv4 overdue", "overdue", Level::Critical, 3),
            ("web7 ipv4 is back", "back", Level::Ok, 2),
            ("CRITICAL: web7 - memory_monitor.percent = 97.0", "threshold", Level::Critical, 13),
            ("web7 booted", "booted", Level::Warning, 5),
        ] {
            let event = event(text, level, now - HOUR * hours);
            let reminded = (kind == "threshold").then_some(RemindedView { count: 67, last: now });
            let host = Some("web7".to_owned());
            daemon.events.push(EventView { kind: kind.into(), host, reminded, ..event });
        }
        daemon.events.sort_by_key(|event| std::cmp::Reverse(event.at));
        daemon.told = vec![
            told(EVIL, DeliveryState::Delivered, now),
            told("db-primary ipv4 overdue", DeliveryState::Waiting, now),
            told("db-primary booted", DeliveryState::Failed, now),
        ];
        daemon
    }
}

pub fn overdue(host: &mut HostView, since: Wall) {
    host.state = HostState::Overdue;
    host.since = Some(since);
    for connection in &mut host.connections {
        connection.state = HostState::Overdue;
        connection.since = Some(since);
        connection.last_seen = Some(since - HOUR / 60);
    }
}

fn metric(path: &str, value: f64, level: Option<Level>, limit: Option<&str>) -> MetricView {
    MetricView {
        path: path.into(),
        value,
        level,
        since: None,
        limit: limit.map(str::to_owned),
        text: None,
        at: None,
        stale: false,
    }
}

fn usual(number: usize) -> HostView {
    let now = Now::read().wall;
    let share = |of: usize| ((number * of) % 70) as f64 + 0.5;
    let ok = Some(Level::Ok);
    HostView {
        name: format!("web{number}"),
        watch: true,
        state: HostState::Up,
        since: Some(now - HOUR * (number as u32 + 1)),
        connections: vec![ConnectionView {
            name: "ipv4".into(),
            state: HostState::Up,
            since: None,
            last_seen: Some(now - Duration::from_secs(3)),
            interval: Duration::from_secs(10),
            address: Some("192.0.2.1".into()),
            old_key: false,
        }],
        metrics: vec![
            metric("cpu_monitor.cpu_percent", share(13), ok, Some("> 80.0")),
            metric("memory_monitor.percent", share(17), ok, Some("> 85.0")),
            metric("disk_monitor.root.percent", share(29), ok, Some("> 85.0")),
            metric("load_monitor.per_core", 0.21, ok, Some("> 2.0")),
            metric("disk_monitor.root.free_bytes", 123e9, None, None),
        ],
        channels: vec!["mail".into()],
        quiet: Vec::new(),
        note: None,
        link: None,
        groups: Vec::new(),
        refused: None,
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
        told: Vec::new(),
        held_by: Vec::new(),
        trouble: None,
        reminder: false,
        reminded: None,
    }
}

fn told(title: &str, state: DeliveryState, at: Wall) -> NotificationView {
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
        why: (state != DeliveryState::Delivered).then(|| "no answer".into()),
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
        told: None,
        configured: None,
    }
}

/// The page of a made-up daemon.
pub struct Site {
    web: Option<HttpServer>,
    pub daemon: Arc<ShowDaemon>,
    pub url: String,
    _scratch: tempfile::TempDir,
}

impl Site {
    pub fn open(show: Show) -> Site {
        Site::open_at(SocketAddr::from(([127, 0, 0, 1], 0)), show, None)
    }

    pub fn open_at(address: SocketAddr, show: Show, token: Option<&str>) -> Site {
        let access = Credentials { token: token.map(Secret::new), ..Credentials::default() };
        Site::open_with(address, show, access)
    }

    /// With a token, and these groups for everybody.
    pub fn open_public(show: Show, groups: &[&str]) -> Site {
        let is_public =
            |host: &&HostView| host.groups.iter().any(|group| groups.contains(&group.as_str()));
        let mut hosts: Vec<String> =
            show.hosts.iter().filter(is_public).map(|host| host.name.clone()).collect();
        hosts.sort();
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let access = Credentials {
            token: Some(Secret::new("s3cret")),
            public: Arc::new(PublicHosts { groups, hosts, ..PublicHosts::default() }),
            ..Credentials::default()
        };
        Site::open_with(SocketAddr::from(([127, 0, 0, 1], 0)), show, access)
    }

    fn open_with(address: SocketAddr, show: Show, access: Credentials) -> Site {
        let scratch = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let daemon = Arc::new(ShowDaemon(Mutex::new(show)));
        let web =
            HttpServer::start(listener, Service::Daemon(daemon.clone()), access, scratch.path())
                .unwrap();
        let url = format!("http://{}", web.address());
        Site { web: Some(web), daemon, url, _scratch: scratch }
    }

    pub fn get(&self, target: &str) -> String {
        let mut answer = ureq::get(format!("{}{target}", self.url)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    /// Ends it and says where it was.
    pub fn close(mut self) -> SocketAddr {
        let web = self.web.take().unwrap();
        let address = web.address();
        web.stop();
        address
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(web) = self.web.take() {
            web.stop();
        }
    }
}
