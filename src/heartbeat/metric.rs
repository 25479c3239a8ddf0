//! The metrics of one host: last values, levels, when an alert was last told, and from when on the
//! absence of one means something. Pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident, Level};
use crate::heartbeat::datagram::{MAX_METRICS, Metrics};
use crate::heartbeat::settings::{Names, Profile};
use crate::heartbeat::threshold::{Rule, Standing};
use crate::heartbeat::uptime::Tally;
use crate::view::MetricSummary;

/// So many metrics that are well, and that were not sent for so long, make room at a time.
const SPARE: usize = MAX_METRICS / 8;
const OLD: Duration = Duration::from_secs(3600);

/// A metric of a host.
#[derive(Debug)]
pub struct Gauge {
    /// Its dotted path.
    pub path: Arc<str>,
    /// Its last value.
    pub value: f64,
    /// When it comes.
    pub presence: Presence,
    /// Its threshold, where the host's set has one for it.
    pub watched: Option<Box<Watched>>,
    /// Its values since the last account, where its host keeps one.
    pub tally: Option<Box<Tally>>,
}

/// Where a metric with a threshold stands.
#[derive(Debug)]
pub struct Watched {
    /// The rule that its path falls under.
    pub rule: Arc<Rule>,
    /// Its level.
    pub standing: Standing,
    /// Since when it is at that level.
    pub since: Wall,
    /// When that was last told.
    pub told: Now,
    /// People were told that it is missing: its level is that of the last value, and nobody knows
    /// how it stands.
    pub missing: bool,
    /// The moment of its earliest entry among the deadlines.
    pub queued: Mono,
}

impl Gauge {
    /// A metric under the rule of its host's set.
    pub fn new(
        path: Arc<str>,
        value: f64,
        presence: Presence,
        profile: &Profile,
        now: Now,
    ) -> Gauge {
        let watched = profile.rule(&path).map(|rule| Box::new(Watched::new(rule, now)));
        Gauge { path, value, presence, watched, tally: None }
    }

    /// What it is watched by, while it is not OK.
    pub fn alert(&self) -> Option<&Watched> {
        self.watched.as_deref().filter(|watched| watched.standing.level != Level::Ok)
    }

    /// The trouble that is open with it.
    pub fn trouble(&self, host: &str) -> Option<Incident> {
        self.alert()
            .map(|_| Incident::Metric { host: host.to_owned(), metric: self.path.as_ref().into() })
    }

    /// When a reminder of its alert is due. There is none of one that is missing: its value is old.
    pub fn remind_at(&self, every: Option<Duration>) -> Option<Mono> {
        let alert = self.alert().filter(|alert| !alert.missing)?;
        Some(alert.told.mono + every.filter(|every| !every.is_zero())?)
    }

    /// Its values since the last account.
    pub fn reading(&mut self) -> Option<MetricSummary> {
        self.tally.as_mut()?.take(&self.path)
    }

    /// Takes a new value; an event when that changes the level, or tells how a metric stands that
    /// was missing.
    pub fn sample(&mut self, host: &str, value: f64, now: Now) -> Option<Event> {
        self.value = value;
        let watched = self.watched.as_deref_mut()?;
        let returned = std::mem::take(&mut watched.missing);
        match watched.rule.judge(&mut watched.standing, value, now.mono) {
            Some(_) => watched.since = now.wall,
            None if returned => {}
            None => return None,
        }
        self.tell(host, now, false)
    }

    /// Says that it is missing, once, when it is not OK: nobody knows any more how it stands.
    pub fn miss(&mut self, host: &str, now: Now) -> Option<Event> {
        let watched = self.watched.as_deref_mut()?;
        // For how long its value was beyond a limit is not known, either.
        watched.standing.restart();
        let level = watched.standing.level;
        if level == Level::Ok || std::mem::replace(&mut watched.missing, true) {
            return None;
        }
        let limit = watched.rule.limit(level).map(|limit| limit.to_string()).unwrap_or_default();
        let kind = EventKind::Missing {
            host: host.to_owned(),
            metric: self.path.as_ref().into(),
            last: self.presence.at,
            value: self.value,
            limit,
            stood: level,
        };
        Some(Event::new(now.wall, kind))
    }

    /// Says where it stands.
    pub fn tell(&mut self, host: &str, now: Now, reminder: bool) -> Option<Event> {
        let watched = self.watched.as_deref_mut()?;
        let level = watched.standing.level;
        watched.told = now;
        let limit = watched.rule.limit(level).map(|limit| limit.to_string()).unwrap_or_default();
        let kind = EventKind::Threshold {
            host: host.to_owned(),
            metric: self.path.as_ref().into(),
            value: self.value,
            limit,
            level,
            since: watched.since,
            reminder,
        };
        Some(Event::new(now.wall, kind))
    }

    /// Looks its rule up again after a reload. An alert whose rule is gone, or the limit that it
    /// stands at, ends without a word: no value made it OK.
    pub fn rematch(&mut self, host: &str, profile: &Profile, now: Now) -> Option<Incident> {
        let open = self.trouble(host);
        let rule = profile.rule(&self.path);
        match (&mut self.watched, rule) {
            (Some(watched), Some(rule)) => {
                watched.queued = Mono(i64::MAX);
                if watched.rule != rule {
                    watched.standing.restart();
                    watched.rule = rule;
                }
                if watched.rule.reaches(watched.standing.level) {
                    return None;
                }
                watched.standing = Standing::at(Level::Ok);
                watched.missing = false;
                watched.since = now.wall;
                open
            }
            (None, Some(rule)) => {
                self.watched = Some(Box::new(Watched::new(rule, now)));
                None
            }
            (_, None) => {
                self.watched = None;
                open
            }
        }
    }
}

impl Watched {
    /// A metric that is OK as far as is known.
    fn new(rule: Arc<Rule>, now: Now) -> Watched {
        let standing = Standing::at(Level::Ok);
        let queued = Mono(i64::MAX);
        Watched { rule, standing, since: now.wall, told: now, missing: false, queued }
    }
}

/// What the metrics of a datagram meant.
#[derive(Debug, Default)]
pub struct Taken {
    /// One for each metric that changed its level.
    pub events: Vec<Event>,
    /// Troubles that end without a word, because their metrics had to make room.
    pub ended: Vec<Incident>,
    /// Metrics are at other places than before.
    pub moved: bool,
}

/// Whose metrics a datagram brought, and over which connection.
#[derive(Debug)]
pub struct Bringer<'a> {
    /// The name of the host.
    pub host: &'a str,
    /// What the configuration says of it.
    pub profile: &'a Profile,
    /// The place of the connection.
    pub over: usize,
}

/// Takes the metrics of a datagram in.
pub fn take(
    gauges: &mut Vec<Gauge>,
    bringer: &Bringer,
    metrics: &Metrics,
    names: &mut Names,
    now: Now,
) -> Taken {
    let (host, over) = (bringer.host, bringer.over);
    let mut taken = Taken::default();
    let mut next = 0;
    if gauges.is_empty() {
        // Room for four would be paid for by 100,000 hosts that send one.
        gauges.reserve_exact(metrics.len().min(MAX_METRICS));
    }
    for (path, value) in metrics.iter() {
        let place = match place(gauges, path, next) {
            Some(place) => {
                gauges[place].presence.sent(over, now);
                place
            }
            None => {
                if gauges.len() == MAX_METRICS {
                    taken.ended.extend(make_room(gauges, host, metrics));
                    taken.moved = true;
                }
                let presence = Presence::new(over, now);
                let path = names.intern(path);
                gauges.push(Gauge::new(path, value, presence, bringer.profile, now));
                gauges.len() - 1
            }
        };
        next = place + 1;
        if bringer.profile.configured {
            gauges[place].tally.get_or_insert_default().add(value);
        }
        taken.events.extend(gauges[place].sample(host, value, now));
    }
    taken
}

/// A host sends the same metrics in the same order each time, in one datagram or several: the one
/// behind the last is looked at first.
fn place(gauges: &[Gauge], path: &str, next: usize) -> Option<usize> {
    match gauges.get(next) {
        Some(gauge) if *gauge.path == *path => Some(next),
        _ => gauges.iter().position(|gauge| *gauge.path == *path),
    }
}

/// Drops metrics that this datagram does not bring, so that all that it does find room: those that
/// are well go first, and of these the ones that were sent the longest ago, maybe more than needed.
/// The troubles that end with them.
fn make_room(gauges: &mut Vec<Gauge>, host: &str, metrics: &Metrics) -> Vec<Incident> {
    let mut strange: HashSet<&str> = metrics.iter().map(|(path, _)| path).collect();
    let mut idle = Vec::new();
    for (place, gauge) in gauges.iter().enumerate() {
        if !strange.remove(&*gauge.path) {
            idle.push((gauge.alert().is_some(), gauge.presence.at, place));
        }
    }
    let room = MAX_METRICS - gauges.len();
    idle.sort_unstable();
    let newest = idle.iter().map(|(_, at, _)| *at).max().unwrap_or_default();
    let old = idle.iter().filter(|(alert, at, _)| !alert && *at + OLD < newest).count();
    idle.truncate((strange.len() - room).max(old.min(SPARE)));
    let ended = idle.iter().filter_map(|(.., place)| gauges[*place].trouble(host)).collect();
    let dropped: HashSet<usize> = idle.into_iter().map(|(.., place)| place).collect();
    let mut place = 0..;
    gauges.retain(|_| place.next().is_none_or(|place| !dropped.contains(&place)));
    unqueue(gauges);
    ended
}

/// They are at other places now: what is queued for the old ones means nothing.
pub fn unqueue(gauges: &mut [Gauge]) {
    for watched in gauges.iter_mut().filter_map(|gauge| gauge.watched.as_deref_mut()) {
        watched.queued = Mono(i64::MAX);
    }
}

/// So many times a metric must have come before one can tell how often it does: whoever tries a job
/// a few times in a row does not promise to go on.
const REGULAR: u8 = 10;
/// So many of its usual distances a metric may be absent. A metric travels in one datagram of
/// several, and datagrams get lost.
const MISSED: u32 = 5;
/// No metric is missing before it was absent that long.
const LEAST: Duration = Duration::from_secs(10 * 60);
/// What may be expected of a metric that came only a few times: it may be that of a weekly job.
const IRREGULAR: Duration = Duration::from_secs(8 * 24 * 3600);
/// A metric that is well is forgotten when it was absent for so many times its patience, and that
/// long at least.
const FORGOTTEN: u32 = 2;
const LEAST_FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// One whose absence people were told of is forgotten after that long.
const TOLD_FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// When a metric comes.
///
/// What counts as its absence is the time in which the connection that brought it was heard
/// without it. A connection that is silent proves nothing about its metrics: its silence is told
/// as such, or nobody could listen.
#[derive(Clone, Debug)]
pub struct Presence {
    /// When it was last sent.
    pub at: Wall,
    /// From when on its absence counts.
    from: Mono,
    /// How far apart it comes, in milliseconds: the longest distance of late.
    every: u32,
    /// How often it came, as far as that matters.
    samples: u8,
    /// The place of the connection that brought it last.
    over: u8,
}

/// What of it survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// When it was last sent.
    pub at: Wall,
    /// How long it had been absent when its connection was last heard, in milliseconds.
    pub absent: u32,
    /// How far apart it comes, in milliseconds.
    pub every: u32,
    /// How often it came.
    pub samples: u8,
}

impl Presence {
    /// A metric that came for the first time, over the connection at the place `over`.
    pub fn new(over: usize, now: Now) -> Presence {
        Presence {
            at: now.wall,
            from: now.mono,
            every: 0,
            samples: 1,
            over: connection_index(over),
        }
    }

    /// One that is known from before a restart; `heard` is when its connection was.
    pub fn restore(known: Known, over: usize, heard: Mono) -> Presence {
        let from = heard - Duration::from_millis(known.absent.into());
        let Known { at, every, samples, .. } = known;
        Presence { at, from, every, samples, over: connection_index(over) }
    }

    /// What a restart must know; `heard` is when its connection was.
    pub fn known(&self, heard: Mono) -> Known {
        let absent = millis(self.absent(heard));
        Known { at: self.at, absent, every: self.every, samples: self.samples }
    }

    /// It came.
    pub fn sent(&mut self, over: usize, now: Now) {
        let gap = millis(now.mono.since(self.from));
        // The same beat over another connection is no further sample.
        if gap >= self.every / 4 {
            self.samples = self.samples.saturating_add(1);
        }
        self.every = if gap > self.every { gap } else { self.every - (self.every - gap) / 8 };
        (self.at, self.from, self.over) = (now.wall, now.mono, connection_index(over));
    }

    /// The place of the connection that brought it last.
    pub fn over(&self) -> usize {
        self.over.into()
    }

    /// Its absence counts anew, by another connection: the one that brought it is down.
    pub fn expect_over(&mut self, over: usize, now: Now) {
        (self.from, self.over) = (now.mono, connection_index(over));
    }

    /// The connections behind the place `gone` moved up: that one is no more.
    pub fn connection_gone(&mut self, gone: usize) {
        if self.over() > gone {
            self.over -= 1;
        } else if self.over() == gone {
            self.over = u8::MAX;
        }
    }

    /// For so long its connection was silent beyond what it promises: that counts as nothing.
    pub fn excuse(&mut self, silence: Duration) {
        self.from = self.from + silence;
    }

    /// How long it was absent when its connection was `heard`.
    pub fn absent(&self, heard: Mono) -> Duration {
        heard.since(self.from)
    }

    /// Whether it is missing, by when its connection was `heard` and how often that beats.
    pub fn missing(&self, heard: Mono, interval: Duration) -> bool {
        self.absent(heard) >= self.patience(interval)
    }

    /// Whether nothing is expected of it any more; `told` says that people know of its absence.
    pub fn forgotten(&self, heard: Mono, interval: Duration, told: bool) -> bool {
        let patience = self.patience(interval);
        let long = if told {
            patience.saturating_add(TOLD_FORGOTTEN)
        } else {
            patience.saturating_mul(FORGOTTEN).max(LEAST_FORGOTTEN)
        };
        self.absent(heard) >= long
    }

    fn patience(&self, interval: Duration) -> Duration {
        let every = Duration::from_millis(self.every.into()).max(interval);
        let regular = every.saturating_mul(MISSED).max(LEAST);
        if self.samples < REGULAR { regular.max(IRREGULAR) } else { regular }
    }
}

fn connection_index(over: usize) -> u8 {
    u8::try_from(over).unwrap_or(u8::MAX)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::settings::HostSettings;
    use crate::heartbeat::test_fleet::{HOUR, MINUTE, Play, SECOND, set};
    use crate::heartbeat::threshold::ThresholdSet;

    fn high() -> Rule {
        let limit = |text: &str| Some(text.parse().unwrap());
        Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() }
    }

    /// Keeps web1 up for a while, with a beat every ten seconds that carries no metrics.
    fn stay_up(play: &mut Play, time: std::time::Duration) {
        for _ in 0..time.as_secs() / 10 {
            play.beat("web1").wait(10 * SECOND);
        }
        play.beat("web1");
    }

    #[test]
    fn every_change_of_level_is_told_once_in_its_words() {
        let mut play = Play::with_threshold("m", high());
        for value in [10.0, 95.2, 96.0, 85.0, 86.0, 42.0, 41.0] {
            play.sample(value);
        }
        assert_eq!(
            play.told(),
            [
                "critical CRITICAL: web1 - m = 95.2 (threshold: > 90.0)",
                "warning WARNING: web1 - m = 85.0 (threshold: > 80.0)",
                "ok OK: web1 - m = 42.0 (threshold: > 80.0)",
            ]
        );
    }

    #[test]
    fn an_alert_that_goes_on_is_repeated_with_the_current_value_also_over_restarts() {
        let mut play = Play::with_threshold("m", high());
        play.sample(95.0).facts();
        stay_up(&mut play, HOUR - MINUTE);
        play.sample(97.5);
        assert!(play.events().is_empty());
        play.restart_after(SECOND);
        stay_up(&mut play, MINUTE);
        assert_eq!(play.events(), ["CRITICAL: web1 - m = 97.5 (threshold: > 90.0)"]);
        stay_up(&mut play, HOUR);
        assert_eq!(play.events().len(), 1);
        play.sample(10.0).facts();
        stay_up(&mut play, 2 * HOUR);
        assert!(play.events().is_empty());
    }

    #[test]
    fn while_a_host_is_overdue_its_thresholds_are_frozen() {
        let rule = Rule { hold: MINUTE, ..high() };
        let mut play = Play::with_threshold("m", rule);
        play.sample(95.0).wait(2 * HOUR);
        assert_eq!(play.events(), ["web1 ipv4 overdue"], "no level, no reminder");
        play.sample(95.0);
        assert_eq!(play.events(), ["web1 ipv4 is back"], "its time begins anew");
        for _ in 0..6 {
            play.wait(10 * SECOND).sample(95.0);
        }
        assert_eq!(play.events(), ["CRITICAL: web1 - m = 95.0 (threshold: > 90.0)"]);
        play.wait(3 * HOUR);
        assert_eq!(play.events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn reminders_go_on_when_the_host_is_back() {
        let mut play = Play::with_threshold("m", high());
        play.sample(95.0).wait(3 * HOUR).facts();
        play.sample(96.0).wait(SECOND);
        let expected = ["web1 ipv4 is back", "CRITICAL: web1 - m = 96.0 (threshold: > 90.0)"];
        assert_eq!(play.events(), expected);
    }

    #[test]
    fn a_reload_that_removes_a_rule_ends_its_alert_without_a_word() {
        let mut play = Play::with_threshold("m", high());
        play.sample(95.0).facts();
        play.rules.threshold_sets.insert("default".into(), ThresholdSet::default());
        let due = play.fleet.reconfigure(play.rules.clone(), play.now);
        let trouble = Incident::Metric { host: "web1".into(), metric: "m".into() };
        assert_eq!((due.events.len(), due.ended), (0, vec![trouble]));
        play.sample(10.0);
        stay_up(&mut play, 2 * HOUR);
        assert!(play.events().is_empty());
        assert_eq!(play.fleet.view("web1").unwrap().metrics[0].level, None);
    }

    #[test]
    fn a_reload_that_changes_a_rule_keeps_its_level_until_the_next_value() {
        let mut play = Play::with_threshold("m", high());
        play.sample(85.0).facts();
        let lower = Rule { critical: Some("> 84".parse().unwrap()), ..high() };
        play.rules.threshold_sets.insert("default".into(), set("*", lower));
        assert!(play.fleet.reconfigure(play.rules.clone(), play.now).events.is_empty());
        assert_eq!(play.sample(85.0).events(), ["CRITICAL: web1 - m = 85.0 (threshold: > 84.0)"]);
    }

    #[test]
    fn metrics_that_are_no_longer_sent_make_room() {
        let mut play = Play::with_threshold("x.old0", high());
        for round in ["old", "new"] {
            let metrics: Vec<String> =
                (0..300).map(|n| format!(r#""{round}{n}":{}"#, 99)).collect();
            let metrics = metrics.join(",");
            play.hear(&format!(r#"{{"host":"web1","metrics":{{"x":{{{metrics}}}}}}}"#));
        }
        assert_eq!(play.events().len(), 1);
        let paths: Vec<_> = play.fleet.view("web1").unwrap().metrics;
        assert!((301..=512).contains(&paths.len()), "{}", paths.len());
        assert!(paths.iter().any(|metric| metric.path == "x.old0"), "its alert is open");
        assert_eq!(paths.iter().filter(|metric| metric.path.starts_with("x.new")).count(), 300);
        stay_up(&mut play, HOUR);
        assert_eq!(play.events(), ["CRITICAL: web1 - x.old0 = 99.0 (threshold: > 90.0)"]);
    }

    #[test]
    fn metrics_of_unwatched_hosts_are_told_too() {
        let mut play = Play::with_threshold("m", high());
        play.rules.hosts.insert("web1".into(), HostSettings::default());
        play.fleet.reconfigure(play.rules.clone(), play.now);
        assert_eq!(play.sample(95.0).facts().iter().filter(|e| !e.watched_only()).count(), 1);
    }

    #[test]
    fn a_reload_that_took_only_the_warning_away_did_cause_a_false_ok() {
        let play = Play::with_threshold("m", Rule { warning: None, ..high() });
        let only_critical = play.rules.clone();
        let mut play = Play::with_threshold("m", high());
        play.sample(85.0).facts();
        play.rules = only_critical;
        assert!(play.restart_after(SECOND).sample(85.0).events().is_empty());

        let mut play = Play::with_threshold("m", high());
        play.sample(85.0).facts();
        let only_critical = Rule { warning: None, ..high() };
        play.rules.threshold_sets.insert("default".into(), set("m", only_critical));
        let due = play.fleet.reconfigure(play.rules.clone(), play.now);
        let trouble = Incident::Metric { host: "web1".into(), metric: "m".into() };
        assert_eq!((due.events.len(), due.ended, due.rows.len()), (0, vec![trouble], 1));
        assert!(play.sample(85.0).events().is_empty());
        play.sample(95.0).facts();
        let only_warning = Rule { critical: None, ..high() };
        play.rules.threshold_sets.insert("default".into(), set("m", only_warning));
        assert!(play.fleet.reconfigure(play.rules.clone(), play.now).ended.is_empty());
        assert_eq!(
            play.sample(85.0).told(),
            ["warning WARNING: web1 - m = 85.0 (threshold: > 80.0)"]
        );
    }

    fn after(gaps: &[u64]) -> (Presence, Now) {
        let mut now = Now { mono: Mono(0), wall: Wall(0) };
        let mut presence = Presence::new(0, now);
        for gap in gaps {
            now = now.later(Duration::from_secs(*gap));
            presence.sent(0, now);
        }
        (presence, now)
    }

    /// After how many seconds of beats every ten seconds it is missing.
    fn missing_after(gaps: &[u64]) -> u64 {
        let (presence, now) = after(gaps);
        let missing =
            |seconds: &u64| presence.missing(now.mono + Duration::from_secs(*seconds), 10 * SECOND);
        (0..).step_by(10).find(missing).unwrap()
    }

    #[test]
    fn the_usual_distance_decides_when_a_metric_is_missing() {
        for (gaps, missing) in [
            (&[10; 20][..], 600),
            (&[60; 20], 600),
            (&[600; 20], 3_000),
            (&[0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10, 0, 10], 600),
            (&[86_400; 20], 5 * 86_400),
            // One that was late once is given more time, for a while.
            (&[600, 600, 600, 600, 600, 600, 600, 600, 600, 1_800], 9_000),
        ] {
            assert_eq!(missing_after(gaps), missing, "{gaps:?}");
        }
    }

    #[test]
    fn a_job_that_was_tried_a_few_times_does_not_promise_to_go_on() {
        for gaps in [&[][..], &[5], &[5, 5, 5, 5, 5, 5]] {
            assert_eq!(missing_after(gaps), 8 * 86_400, "{gaps:?}");
        }
    }

    #[test]
    fn what_is_known_survives_a_restart() {
        let (presence, now) = after(&[60; 20]);
        let heard = now.mono + 300 * SECOND;
        let again = Presence::restore(presence.known(heard), 3, Mono(7_000_000));
        assert_eq!(again.absent(Mono(7_000_000)), 300 * SECOND);
        assert!(!again.missing(Mono(7_299_999), 10 * SECOND));
        assert!(again.missing(Mono(7_300_000), 10 * SECOND));
        assert_eq!((again.at, again.over()), (presence.at, 3));
    }

    #[test]
    fn what_is_long_gone_is_forgotten() {
        let (presence, now) = after(&[10; 20]);
        let at = |days: u64| now.mono + Duration::from_secs(days * 86_400);
        assert!(!presence.forgotten(at(0), 10 * SECOND, false));
        assert!(presence.forgotten(at(1), 10 * SECOND, false));
        assert!(!presence.forgotten(at(30), 10 * SECOND, true));
        assert!(presence.forgotten(at(31), 10 * SECOND, true));
    }
}
