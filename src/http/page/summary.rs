//! Health: of one host, and the headline about everything together. Pure.

use super::format::count;
use crate::clock::Wall;
use crate::event::Level;
use crate::view::{AlertView, ChannelState, ChannelView, HostState, HostView, PlanView};

/// The health of a host, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It is watched, and no beat comes.
    Down,
    /// Its beats come, and a metric is CRITICAL.
    Critical,
    /// Its beats come, but not over every connection, or a metric is at WARNING.
    Degraded,
    /// It is overdue or shut down, and not watched.
    Silent,
    /// It announced its shutdown.
    Shutdown,
    /// No beat of it ever came.
    New,
    /// All is well.
    Up,
}

impl Health {
    /// All of them, the worst first.
    pub const ALL: [Health; 7] = [
        Health::Down,
        Health::Critical,
        Health::Degraded,
        Health::Silent,
        Health::Shutdown,
        Health::New,
        Health::Up,
    ];

    /// The health of a host. The metrics of a host whose beats do not come are old.
    pub fn of(host: &HostView) -> Health {
        match host.state {
            HostState::Overdue | HostState::Shutdown if !host.watch => Health::Silent,
            HostState::Overdue => Health::Down,
            HostState::Shutdown => Health::Shutdown,
            HostState::New => Health::New,
            HostState::Up => Health::of_seen(host),
        }
    }

    fn of_seen(host: &HostView) -> Health {
        let worst = host.metrics.iter().filter_map(|metric| metric.level).max();
        let partly = host.watch
            && host.connections.iter().any(|connection| connection.state != HostState::Up);
        match worst {
            Some(Level::Critical) => Health::Critical,
            Some(Level::Warning) => Health::Degraded,
            _ if partly => Health::Degraded,
            _ => Health::Up,
        }
    }

    /// Since when it is so: of a host that is up with trouble, since the oldest of what makes it so.
    pub fn since(self, host: &HostView) -> Option<Wall> {
        let metrics = |level| {
            let at = host.metrics.iter().filter(move |metric| metric.level == Some(level));
            at.filter_map(|metric| metric.since)
        };
        let gone = host.connections.iter().filter(|one| host.watch && one.state != HostState::Up);
        let oldest = match self {
            Health::Critical => metrics(Level::Critical).min(),
            Health::Degraded => {
                metrics(Level::Warning).chain(gone.filter_map(|one| one.since)).min()
            }
            Health::Down | Health::Silent | Health::Shutdown | Health::New | Health::Up => None,
        };
        oldest.or(host.since)
    }

    /// The word that is shown where there is little room.
    pub fn short_word(self) -> &'static str {
        if self == Health::Silent { "silent" } else { self.word() }
    }

    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Health::Down => "overdue",
            Health::Critical => "critical",
            Health::Degraded => "degraded",
            Health::Silent => "silent, not watched",
            Health::Shutdown => "shut down",
            Health::New => "never heard",
            Health::Up => "up",
        }
    }

    /// The class that colours it.
    pub fn class(self) -> &'static str {
        match self {
            Health::Down | Health::Critical => "bad",
            Health::Degraded => "warn",
            Health::Silent | Health::Shutdown | Health::New => "dim",
            Health::Up => "good",
        }
    }

    /// The value of `?state=` that shows it.
    pub fn filter(self) -> &'static str {
        match self {
            Health::Down | Health::Silent => "overdue",
            Health::Critical => "critical",
            Health::Degraded => "degraded",
            Health::Shutdown => "shutdown",
            Health::New => "new",
            Health::Up => "up",
        }
    }
}

/// The class that colours a level.
pub fn class_of(level: Level) -> &'static str {
    match level {
        Level::Critical => "bad",
        Level::Warning => "warn",
        Level::Info => "dim",
        Level::Ok => "good",
    }
}

/// How many hosts there are of each health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthCounts([usize; Health::ALL.len()]);

impl HealthCounts {
    /// Counts one more.
    pub fn add(&mut self, health: Health) {
        self.0[health as usize] += 1;
    }

    /// How many there are of it.
    pub fn of(&self, health: Health) -> usize {
        self.0[health as usize]
    }

    /// How many there are.
    pub fn all(&self) -> usize {
        self.0.iter().sum()
    }
}

/// The answer to "is all well?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// How much it matters.
    pub level: Level,
    /// In words.
    pub words: String,
    /// How many things are wrong.
    pub troubles: usize,
}

impl Headline {
    /// For the browser's tab: `(2) Heartbeat`.
    pub fn title(&self) -> String {
        match self.troubles {
            0 => "Heartbeat".into(),
            troubles => format!("({troubles}) Heartbeat"),
        }
    }
}

/// A number of things that are wrong in the same way.
struct Complaint {
    level: Level,
    number: usize,
    words: String,
}

/// What is known when the headline is made.
pub struct PageSummary<'a> {
    /// The hosts.
    pub counts: &'a HealthCounts,
    /// The channels.
    pub channels: &'a [ChannelView],
    /// What is open; an error says why that is not known.
    pub alerts: &'a Result<Vec<AlertView>, String>,
    /// The backups; an error says why that is not known.
    pub plans: &'a Result<Vec<PlanView>, String>,
    /// What keeps the daemon from its work.
    pub ready: &'a Result<(), String>,
}

impl PageSummary<'_> {
    /// The answer to "is all well?".
    pub fn headline(&self) -> Headline {
        let complaints = self.complaints();
        let Some(level) = complaints.iter().map(|complaint| complaint.level).max() else {
            let (level, words) = match self.counts.all() {
                0 => (Level::Info, "No hosts yet"),
                _ => (Level::Ok, "All is well"),
            };
            return Headline { level, words: words.into(), troubles: 0 };
        };
        let troubles = complaints.iter().map(|complaint| complaint.number).sum();
        let mut words: Vec<String> =
            complaints.into_iter().map(|complaint| complaint.words).collect();
        let more = words.len().saturating_sub(MAX_COMPLAINTS);
        words.truncate(MAX_COMPLAINTS);
        if more > 0 {
            words.push(format!("and {more} more"));
        }
        Headline { level, words: capital(&words.join(", ")), troubles }
    }

    /// What is wrong, the worst first.
    fn complaints(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        let mut complain = |level, number, one: &str, many: &str| {
            if number > 0 {
                found.push(Complaint { level, number, words: count(number, one, many) });
            }
        };
        let hosts = |health| self.counts.of(health);
        complain(Level::Critical, hosts(Health::Down), "host is overdue", "hosts are overdue");
        complain(
            Level::Critical,
            hosts(Health::Critical),
            "host is critical",
            "hosts are critical",
        );
        let plans = self.plans.as_deref().unwrap_or_default();
        let at = |wanted| plans.iter().filter(|plan| plan.level == wanted).count();
        complain(
            Level::Critical,
            at(Level::Critical),
            "backup is not known to have succeeded",
            "backups are not known to have succeeded",
        );
        let channels = self.channels.iter().filter(|channel| channel.state != ChannelState::Works);
        let (one, many) = ("channel does not deliver", "channels do not deliver");
        complain(Level::Critical, channels.count(), one, many);
        complain(Level::Warning, hosts(Health::Degraded), "host is degraded", "hosts are degraded");
        complain(
            Level::Warning,
            hosts(Health::Shutdown),
            "host is shut down",
            "hosts are shut down",
        );
        complain(
            Level::Warning,
            at(Level::Warning),
            "backup is not over yet",
            "backups are not over yet",
        );
        for (what, why) in
            [("open alerts", self.alerts.as_ref().err()), ("backups", self.plans.as_ref().err())]
        {
            found.extend(why.map(|_| Complaint {
                level: Level::Warning,
                number: 1,
                words: format!("the {what} cannot be read"),
            }));
        }
        found.extend(self.ready.as_ref().err().map(|why| Complaint {
            level: Level::Critical,
            number: 1,
            words: why.clone(),
        }));
        found.extend(self.other_alerts(found.iter().map(|complaint| complaint.level).max()));
        found.sort_by_key(|complaint| std::cmp::Reverse(complaint.level));
        found
    }

    /// The open alerts, where one is worse than all complaints.
    fn other_alerts(&self, complained: Option<Level>) -> Option<Complaint> {
        let alerts = self.alerts.as_deref().unwrap_or_default();
        let level = alerts.iter().map(|alert| alert.level).max()?;
        let number = alerts.iter().filter(|alert| alert.level == level).count();
        let words = count(number, "open alert", "open alerts");
        (Some(level) > complained).then_some(Complaint { level, number, words })
    }
}

const MAX_COMPLAINTS: usize = 3;

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{ConnectionView, MetricView};

    fn host(watch: bool, state: HostState, level: Option<Level>, other: HostState) -> HostView {
        let connection = |name: &str, state| ConnectionView {
            name: name.into(),
            state,
            since: None,
            last_seen: None,
            interval: std::time::Duration::ZERO,
            address: None,
            old_key: false,
        };
        let (path, value) = ("a".to_owned(), 1.0);
        HostView {
            watch,
            state,
            since: Some(Wall(0)),
            connections: vec![connection("ipv4", state), connection("vpn", other)],
            metrics: vec![MetricView {
                path,
                value,
                level,
                since: None,
                limit: None,
                text: None,
                at: None,
                stale: false,
            }],
            ..HostView::named("web1")
        }
    }

    #[test]
    fn a_host_is_as_bad_as_the_worst_that_is_known_of_it() {
        let (warning, critical) = (Some(Level::Warning), Some(Level::Critical));
        for (host, health) in [
            (host(true, HostState::Up, None, HostState::Up), Health::Up),
            (host(true, HostState::Up, Some(Level::Ok), HostState::Up), Health::Up),
            (host(true, HostState::Up, warning, HostState::Up), Health::Degraded),
            (host(true, HostState::Up, None, HostState::Overdue), Health::Degraded),
            (host(true, HostState::Up, critical, HostState::Overdue), Health::Critical),
            (host(false, HostState::Up, critical, HostState::Up), Health::Critical),
            (host(true, HostState::Overdue, critical, HostState::Overdue), Health::Down),
            (host(false, HostState::Overdue, critical, HostState::Overdue), Health::Silent),
            (host(false, HostState::Shutdown, None, HostState::Shutdown), Health::Silent),
            (host(false, HostState::Up, None, HostState::Overdue), Health::Up),
            (host(true, HostState::Shutdown, critical, HostState::Shutdown), Health::Shutdown),
            (host(true, HostState::New, None, HostState::New), Health::New),
        ] {
            assert_eq!(Health::of(&host), health, "{host:?}");
        }
        assert!(Health::ALL.is_sorted());
    }

    fn headline(healths: &[Health], alerts: Result<Vec<AlertView>, String>) -> (Level, String) {
        let mut counts = HealthCounts::default();
        healths.iter().for_each(|health| counts.add(*health));
        let summary = PageSummary {
            counts: &counts,
            channels: &[],
            alerts: &alerts,
            plans: &Ok(Vec::new()),
            ready: &Ok(()),
        };
        let headline = summary.headline();
        (headline.level, headline.words)
    }

    #[test]
    fn a_host_is_at_its_level_since_it_came_there_and_not_since_it_was_heard_first() {
        let metric = |level, since| MetricView {
            path: "a".into(),
            value: 1.0,
            level: Some(level),
            since: Some(Wall(since)),
            limit: None,
            at: None,
            text: None,
            stale: false,
        };
        let view = |metrics: &[(Level, i64)], gone: Option<i64>| {
            let other = if gone.is_some() { HostState::Overdue } else { HostState::Up };
            let mut view = host(true, HostState::Up, None, other);
            view.connections[1].since = gone.map(Wall);
            view.metrics = metrics.iter().map(|(level, since)| metric(*level, *since)).collect();
            view
        };
        use Level::{Critical, Ok, Warning};
        for (metrics, gone, since) in [
            (&[(Ok, 5), (Ok, 7)][..], None, 0),
            (&[(Warning, 5), (Critical, 9), (Critical, 7)], None, 7),
            (&[(Warning, 5), (Warning, 4), (Ok, 1)], None, 4),
            (&[(Warning, 5), (Ok, 1)], Some(3), 3),
            (&[(Ok, 1)], Some(8), 8),
        ] {
            let view = view(metrics, gone);
            let health = Health::of(&view);
            assert_eq!(health.since(&view), Some(Wall(since)), "{metrics:?} {gone:?}");
        }
        let down = host(true, HostState::Overdue, Some(Critical), HostState::Overdue);
        assert_eq!(Health::of(&down).since(&down), down.since);
    }

    #[test]
    fn the_tab_counts_the_troubles() {
        for (troubles, title) in [(0, "Heartbeat"), (2, "(2) Heartbeat")] {
            let headline = Headline { level: Level::Ok, words: String::new(), troubles };
            assert_eq!(headline.title(), title);
        }
    }

    #[test]
    fn the_headline_answers_whether_all_is_well() {
        use Health::{Critical, Degraded, Down, New, Shutdown, Silent, Up};
        for (healths, level, words) in [
            (&[][..], Level::Info, "No hosts yet"),
            (&[Up, New, Silent], Level::Ok, "All is well"),
            (&[Up, Down], Level::Critical, "1 host is overdue"),
            (&[Degraded, Degraded], Level::Warning, "2 hosts are degraded"),
            (
                &[Shutdown, Degraded, Critical, Down],
                Level::Critical,
                "1 host is overdue, 1 host is critical, 1 host is degraded, and 1 more",
            ),
        ] {
            assert_eq!(headline(healths, Ok(Vec::new())), (level, words.to_owned()));
        }
        let alert = AlertView {
            subject: "alertmanager".into(),
            host: None,
            text: "does not answer".into(),
            level: Level::Warning,
            since: None,
            channels: Vec::new(),
            acknowledged: None,
            scope: None,
            told: Vec::new(),
            held: None,
        };
        let open = headline(&[Up], Ok(vec![alert.clone()]));
        assert_eq!(open, (Level::Warning, "1 open alert".to_owned()));
        assert_eq!(headline(&[Degraded], Ok(vec![alert])).1, "1 host is degraded");
        let unread = headline(&[Up], Err("the disk is slow".into()));
        assert_eq!(unread, (Level::Warning, "The open alerts cannot be read".to_owned()));
    }
}
