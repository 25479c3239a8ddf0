//! What holds whatever happens: random events, overlays, restarts and channels that fail.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::event::IncidentChange;

#[derive(Clone, Debug)]
enum Step {
    /// A connection of a host falls silent, shuts down or is back.
    Connection(usize, usize, u8),
    Boot(usize, bool),
    /// A metric is at a level, or missing.
    Metric(usize, u8),
    Reminder(usize),
    Plan(u8),
    Say(usize),
    Silence(usize, u16, bool),
    HostSilence(usize, u16),
    Unsilence(usize),
    Acknowledge(usize),
    Windows(u8),
    Works(bool),
    Wait(u16),
    Restart,
    Reboot,
    SetClock(i8),
    /// What is known of a host's incidents ends without a message.
    Forget(usize),
    /// A channel is called otherwise from now on.
    Rename,
}

const HOSTS: [&str; 2] = ["web1", "web2"];
const CONNECTIONS: [&str; 2] = ["ipv4", "vpn"];
const SCOPES: [&str; 6] = ["--all", "web1", "web*", "web1/ipv4", "*/m", "plan:4"];

fn step() -> impl Strategy<Value = Step> {
    let (host, scope) = (0usize..2, 0usize..SCOPES.len());
    prop_oneof![
        8 => (host.clone(), 0usize..2, 0u8..4).prop_map(|(h, c, to)| Step::Connection(h, c, to)),
        2 => (host.clone(), any::<bool>()).prop_map(|(host, known)| Step::Boot(host, known)),
        6 => (host.clone(), 0u8..4).prop_map(|(host, to)| Step::Metric(host, to)),
        2 => host.clone().prop_map(Step::Reminder),
        3 => (0u8..3).prop_map(Step::Plan),
        2 => host.clone().prop_map(Step::Say),
        5 => (scope.clone(), 1u16..7200, any::<bool>())
            .prop_map(|(scope, length, unless)| Step::Silence(scope, length, unless)),
        2 => (host.clone(), 0u16..3600).prop_map(|(host, length)| Step::HostSilence(host, length)),
        2 => scope.clone().prop_map(Step::Unsilence),
        1 => scope.prop_map(Step::Acknowledge),
        2 => (0u8..3).prop_map(Step::Windows),
        2 => any::<bool>().prop_map(Step::Works),
        9 => (0u16..3600).prop_map(Step::Wait),
        2 => Just(Step::Restart),
        1 => Just(Step::Reboot),
        1 => (-3i8..4).prop_map(Step::SetClock),
        1 => host.prop_map(Step::Forget),
        1 => Just(Step::Rename),
    ]
}

/// What a message says of an incident, as people see it.
type Said = (Level, String);

struct World {
    test: TestOverlay,
    /// What is true of each open incident: what its last event says.
    truth: BTreeMap<Incident, Event>,
    levels: BTreeMap<usize, Level>,
    /// By the number of deliveries before it: the old name of a channel and the new one.
    renamed: Vec<(usize, &'static str, &'static str)>,
}

impl World {
    fn new() -> World {
        World {
            test: TestOverlay::new(),
            truth: BTreeMap::new(),
            levels: BTreeMap::new(),
            renamed: Vec::new(),
        }
    }

    fn rename(&mut self) {
        // What waits goes to the new name.
        self.test.works = true;
        self.test.turn();
        let has_mail = self.test.routes.channels.contains_key("mail");
        let (from, to) = if has_mail { ("mail", "post") } else { ("post", "mail") };
        self.renamed.push((self.test.deliveries.len(), from, to));
        self.test.rename(from, to);
    }

    fn accept(&mut self, mut event: Event) {
        event.patience = match event.kind {
            EventKind::Overdue { .. } | EventKind::Shutdown { .. } => PATIENCE,
            EventKind::Threshold { .. } | EventKind::Missing { .. } => INTERVAL,
            _ => Duration::ZERO,
        };
        match event.incident() {
            IncidentChange::Opens(incident) | IncidentChange::Corrects(incident) => {
                self.truth.insert(incident, event.clone());
            }
            IncidentChange::Closes(incidents) => {
                incidents.iter().for_each(|incident| drop(self.truth.remove(incident)));
            }
            IncidentChange::None => {}
        }
        self.test.accept(event);
    }

    fn connection(&mut self, host: usize, connection: usize, to: u8) {
        let (host, connection) = (HOSTS[host].to_owned(), CONNECTIONS[connection].to_owned());
        let incident = Incident::connection(&host, &connection);
        let before = self.truth.get(&incident).map(|event| event.kind.describe().name);
        let kind = match (to, before) {
            (0 | 1, None) => {
                let was_last_up = to == 0;
                let (last_seen, promised, others_count) = (Wall(0), Wall(0), 0);
                let others_down = Vec::new();
                EventKind::Overdue {
                    host,
                    connection,
                    last_seen,
                    promised,
                    others_down,
                    others_count,
                    was_last_up,
                    clock: None,
                    behind_it: Vec::new(),
                    behind_count: 0,
                }
            }
            (2, None | Some("overdue")) => EventKind::Shutdown { host, connection },
            (3, Some(_)) => EventKind::Back { host, connection, gone: HOUR },
            _ => return,
        };
        self.accept(event(self.test.now, kind));
    }

    fn boot(&mut self, host: usize, announced: bool) {
        let host = HOSTS[host];
        let down = |name: &&str| self.truth.contains_key(&Incident::connection(host, name));
        let returned = CONNECTIONS.iter().filter(|name| down(name)).map(|name| name.to_string());
        let (host, returned, gone) = (host.to_owned(), returned.collect(), None);
        self.accept(event(self.test.now, EventKind::Booted { host, announced, returned, gone }));
    }

    fn metric(&mut self, host: usize, to: u8, reminder: bool) {
        let level = [Level::Ok, Level::Warning, Level::Critical, Level::Info][usize::from(to)];
        let before = self.levels.get(&host).copied().unwrap_or(Level::Ok);
        let (name, metric) = (HOSTS[host].to_owned(), "m".to_owned());
        let (value, limit) = (1.0, "> 0.0".to_owned());
        let kind = match (level, before) {
            (same, before) if same == before && !reminder => return,
            (Level::Info, Level::Ok) => return,
            (Level::Info, last_level) => {
                let last_sent = Wall(0);
                EventKind::Missing { host: name, metric, last_sent, value, limit, last_level }
            }
            (level, _) => {
                let since = Wall(0);
                EventKind::Threshold { host: name, metric, value, limit, since, level, reminder }
            }
        };
        self.levels.insert(host, level);
        self.accept(event(self.test.now, kind));
    }

    fn plan(&mut self, to: u8) {
        let (level, title) = match to {
            0 => (Level::Ok, "plan 4: well"),
            1 => (Level::Critical, "plan 4: 1 failed"),
            _ => (Level::Critical, "plan 4: 2 failed"),
        };
        let incident = Incident::Backup { plan: "4".into() };
        let before = self.truth.get(&incident).map(|event| event.kind.describe().title);
        if before.as_deref() != Some(title) {
            let (plan, title, notice) = ("4".into(), title.into(), BackupNotice::Report);
            let (details, table) = (Vec::new(), None);
            let kind = EventKind::Backup { plan, notice, level, title, details, table };
            self.accept(event(self.test.now, kind));
        }
    }

    fn silence(&mut self, scope: usize, length: u16, unless: bool) {
        let new = NewSilence {
            scope: CalmScope::parse(SCOPES[scope]).unwrap(),
            length: Duration::from_secs(length.into()),
            by: "ann".into(),
            comment: None,
            unless: unless.then_some(Level::Critical),
            origin: Origin::Command,
        };
        let test = &mut self.test;
        let handled =
            test.overlay.handle(CalmRequest::Silence(new), &mut test.outbox, test.now).unwrap();
        handled.events.iter().for_each(|event| test.accept_one(event));
        test.turn();
    }

    fn windows(&mut self, which: u8) {
        self.test.settings.windows = match which {
            0 => Vec::new(),
            1 => vec![window("08:00-09:30", "web1")],
            _ => vec![window("09:00-08:30", "--all"), window("10:00-10:05", "*/m")],
        };
        self.test.overlay.calm.reconfigure(self.test.settings.clone());
        self.test.turn();
    }

    fn forget(&mut self, host: usize) {
        // An alarm that is queued is sent although its incident is forgotten meanwhile.
        self.test.works = true;
        self.test.turn();
        let of_host = |incident: &Incident| match incident {
            Incident::Connection { host: of, .. } | Incident::Metric { host: of, .. } => {
                of == HOSTS[host]
            }
            _ => false,
        };
        let gone: Vec<Incident> = self.truth.keys().filter(|one| of_host(one)).cloned().collect();
        for incident in gone {
            self.truth.remove(&incident);
            self.test.outbox.close_silently(&incident);
            self.test.overlay.calm.release_quietly(&incident);
            self.test.forgotten.push((self.test.deliveries.len(), incident));
        }
        self.levels.insert(host, Level::Ok);
        self.test.turn();
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Connection(host, connection, to) => self.connection(host, connection, to),
            Step::Boot(host, announced) => self.boot(host, announced),
            Step::Metric(host, to) => self.metric(host, to, false),
            Step::Reminder(host) => match self.levels.get(&host) {
                Some(Level::Warning) => self.metric(host, 1, true),
                Some(Level::Critical) => self.metric(host, 2, true),
                _ => {}
            },
            Step::Plan(to) => self.plan(to),
            Step::Say(host) => {
                self.test.said(HOSTS[host], "hello");
            }
            Step::Silence(scope, length, unless) => self.silence(scope, length, unless),
            Step::HostSilence(host, length) => {
                self.test.host_silence(HOSTS[host], Duration::from_secs(length.into()));
            }
            Step::Unsilence(scope) => {
                let test = &mut self.test;
                let which = SilenceSelection::Scope(CalmScope::parse(SCOPES[scope]).unwrap());
                let request = CalmRequest::Unsilence { which, by: "bob".into() };
                let _ = test.overlay.handle(request, &mut test.outbox, test.now);
                test.turn();
            }
            Step::Acknowledge(scope) => {
                let _ = self.test.try_acknowledge(SCOPES[scope], Some(HOUR));
            }
            Step::Windows(which) => self.windows(which),
            Step::Works(works) => {
                self.test.works = works;
                self.test.turn();
            }
            Step::Wait(seconds) => {
                self.test.wait(Duration::from_secs(seconds.into()));
            }
            Step::Restart => {
                self.test.restart();
            }
            Step::Reboot => {
                self.test.reboot(MINUTE, None);
            }
            Step::SetClock(hours) => self.test.now.wall.0 += i64::from(hours) * 3_600_000,
            Step::Forget(host) => self.forget(host),
            Step::Rename => self.rename(),
        }
    }

    /// Nothing holds anything back any more, and the channels work.
    fn settle(&mut self) {
        self.windows(0);
        let test = &mut self.test;
        let request = CalmRequest::Unsilence { which: SilenceSelection::All, by: "bob".into() };
        let _ = test.overlay.handle(request, &mut test.outbox, test.now);
        test.works = true;
        test.wait(2 * HOUR);
    }

    fn check(&self) {
        assert_eq!(self.test.held(), 0, "nothing is held for ever");
        assert_eq!(self.test.calm_rows(), 0, "a quiet system has no rows");
        let told = self.told();
        for (incident, event) in &self.truth {
            if matches!(event.kind, EventKind::Shutdown { .. }) {
                // Of a host that silenced itself one thing is told.
                continue;
            }
            for channel in self.test.routes.targets(event) {
                let last = told.get(&(channel.clone(), incident.clone()));
                assert_eq!(last, Some(&said(event)), "{channel} {incident} is not told the truth");
            }
        }
        for (channel, incident) in told.keys() {
            assert!(self.truth.contains_key(incident), "{channel} is left with {incident}");
        }
    }

    /// What each channel was told last of each incident that it believes to be open.
    fn told(&self) -> BTreeMap<(String, Incident), Said> {
        let mut told: BTreeMap<(String, Incident), Said> = BTreeMap::new();
        let mut doubtful = BTreeSet::new();
        for (index, delivery) in self.test.deliveries.iter().enumerate() {
            let forgotten = self.test.forgotten.iter().filter(|(at, _)| *at <= index);
            for (at, incident) in forgotten {
                // Only what was delivered before is forgotten with it.
                if *at == index {
                    told.retain(|(_, other), _| other != incident);
                }
            }
            for (at, from, to) in &self.renamed {
                if *at == index {
                    take_over(&mut told, from, to);
                    // A channel that is back may be told once more.
                    doubtful.extend(told.keys().filter(|(name, _)| name == to).cloned());
                }
            }
            let key = |incident: &Incident| (delivery.channel.clone(), incident.clone());
            for incident in &delivery.closes {
                let was = told.remove(&key(incident));
                assert!(was.is_some(), "{} was not told of {incident}", delivery.channel);
            }
            if let Some(incident) = &delivery.opens {
                let says = (delivery.message.level, delivery.message.title.clone());
                let before = told.insert(key(incident), says.clone());
                // The pager does not hear of what is less than critical between two alarms.
                let again = before.as_ref() == Some(&says) && delivery.channel != "pager";
                let took_over = doubtful.remove(&key(incident));
                let twice = again && !delivery.is_reminder && !took_over;
                assert!(!twice, "{} was told twice: {says:?}", delivery.channel);
            }
        }
        for (_, incident) in
            self.test.forgotten.iter().filter(|(at, _)| *at >= self.test.deliveries.len())
        {
            told.retain(|(_, other), _| other != incident);
        }
        let last = self.renamed.iter().filter(|(at, ..)| *at >= self.test.deliveries.len());
        last.for_each(|(_, from, to)| take_over(&mut told, from, to));
        told
    }
}

/// What one channel was told is what another one knows.
fn take_over(told: &mut BTreeMap<(String, Incident), Said>, from: &str, to: &str) {
    for ((channel, incident), said) in std::mem::take(told) {
        let channel = if channel == from { to.to_owned() } else { channel };
        told.insert((channel, incident), said);
    }
}

fn said(event: &Event) -> Said {
    (event.level, event.kind.describe().title)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 3 / 2, ..ProptestConfig::default() })]

    #[test]
    fn whoever_was_told_of_a_problem_is_told_of_its_end_and_the_truth_comes_out(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        world.settle();
        world.check();
    }

    /// With no overlay the deliveries are those of an outbox alone.
    #[test]
    fn without_an_overlay_nothing_is_different(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        for step in &steps {
            if !matches!(step, Step::Silence(..) | Step::HostSilence(..) | Step::Windows(_)) {
                world.apply(step);
            }
        }
        assert!(world.test.history.iter().all(|(_, held_by)| held_by.is_empty()));
        assert_eq!(world.test.calm_rows(), 0);
        world.settle();
        world.check();
    }
}
