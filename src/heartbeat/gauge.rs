//! The metrics of one host: last values, levels, and when an alert was last told. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, Fact, Level, Trouble};
use crate::heartbeat::diary::Tally;
use crate::heartbeat::metrics::{MAX_METRICS, Metrics};
use crate::heartbeat::profile::{Names, Profile};
use crate::heartbeat::threshold::{Rule, Standing};
use crate::snapshot::Reading;

/// A metric of a host.
#[derive(Debug)]
pub struct Gauge {
    /// Its dotted path.
    pub path: Arc<str>,
    /// Its last value.
    pub value: f64,
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
    /// The moment of its earliest entry among the deadlines.
    pub queued: Mono,
}

impl Gauge {
    /// A metric under the rule of its host's set.
    pub fn new(path: Arc<str>, value: f64, profile: &Profile, now: Now) -> Gauge {
        let watched = profile.rule(&path).map(|rule| {
            let standing = Standing::at(Level::Ok);
            Box::new(Watched { rule, standing, since: now.wall, told: now, queued: Mono(i64::MAX) })
        });
        Gauge { path, value, watched, tally: None }
    }

    /// What it is watched by, while it is not OK.
    pub fn alert(&self) -> Option<&Watched> {
        self.watched.as_deref().filter(|watched| watched.standing.level != Level::Ok)
    }

    /// The trouble that is open with it.
    pub fn trouble(&self, host: &str) -> Option<Trouble> {
        self.alert()
            .map(|_| Trouble::Metric { host: host.to_owned(), metric: self.path.as_ref().into() })
    }

    /// When a reminder of its alert is due.
    pub fn remind_at(&self, every: Option<Duration>) -> Option<Mono> {
        Some(self.alert()?.told.mono + every.filter(|every| !every.is_zero())?)
    }

    /// Its values since the last account.
    pub fn reading(&mut self) -> Option<Reading> {
        self.tally.as_mut()?.take(&self.path)
    }

    /// Takes a new value; an event when that changes the level.
    pub fn sample(&mut self, host: &str, value: f64, now: Now) -> Option<Event> {
        self.value = value;
        let watched = self.watched.as_deref_mut()?;
        watched.rule.judge(&mut watched.standing, value, now.mono)?;
        watched.since = now.wall;
        self.tell(host, now, false)
    }

    /// Says where it stands.
    pub fn tell(&mut self, host: &str, now: Now, reminder: bool) -> Option<Event> {
        let watched = self.watched.as_deref_mut()?;
        let level = watched.standing.level;
        watched.told = now;
        let limit = watched.rule.limit(level).map(|limit| limit.to_string()).unwrap_or_default();
        let fact = Fact::Threshold {
            host: host.to_owned(),
            metric: self.path.as_ref().into(),
            value: self.value,
            limit,
            since: watched.since,
            reminder,
        };
        Some(Event { at: now.wall, level, fact })
    }

    /// Looks its rule up again after a reload. An alert whose rule is gone, or the limit that it
    /// stands at, ends without a word: no value made it OK.
    pub fn rematch(&mut self, host: &str, profile: &Profile, now: Now) -> Option<Trouble> {
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
                watched.since = now.wall;
                open
            }
            (None, Some(_)) => {
                let tally = self.tally.take();
                *self = Gauge::new(self.path.clone(), self.value, profile, now);
                self.tally = tally;
                None
            }
            (_, None) => {
                self.watched = None;
                open
            }
        }
    }
}

/// What the metrics of a datagram meant.
#[derive(Debug, Default)]
pub struct Taken {
    /// One for each metric that changed its level.
    pub events: Vec<Event>,
    /// Troubles that end without a word, because their metrics had to make room.
    pub ended: Vec<Trouble>,
    /// Metrics are at other places than before.
    pub moved: bool,
}

/// Takes the metrics of a datagram in.
pub fn take(
    gauges: &mut Vec<Gauge>,
    host: &str,
    metrics: &Metrics,
    profile: &Profile,
    names: &mut Names,
    now: Now,
) -> Taken {
    let mut taken = Taken::default();
    for (turn, (path, value)) in metrics.iter().enumerate() {
        let place = match place(gauges, path, turn) {
            Some(place) => place,
            None => {
                if gauges.len() == MAX_METRICS {
                    taken.ended.extend(make_room(gauges, host, metrics));
                    taken.moved = true;
                }
                gauges.push(Gauge::new(names.intern(path), value, profile, now));
                gauges.len() - 1
            }
        };
        if profile.configured {
            gauges[place].tally.get_or_insert_default().add(value);
        }
        taken.events.extend(gauges[place].sample(host, value, now));
    }
    taken
}

/// A host sends the same metrics in the same order each time: look where it was last time first.
fn place(gauges: &[Gauge], path: &str, turn: usize) -> Option<usize> {
    match gauges.get(turn) {
        Some(gauge) if *gauge.path == *path => Some(turn),
        _ => gauges.iter().position(|gauge| *gauge.path == *path),
    }
}

/// Drops the metrics that the host no longer sends: first those that are well, then all.
fn make_room(gauges: &mut Vec<Gauge>, host: &str, metrics: &Metrics) -> Vec<Trouble> {
    let sent: std::collections::HashSet<&str> = metrics.iter().map(|(path, _)| path).collect();
    gauges.retain(|gauge| gauge.alert().is_some() || sent.contains(&*gauge.path));
    let mut ended = Vec::new();
    let unsent = gauges.iter().filter(|gauge| !sent.contains(&*gauge.path)).count();
    if unsent + sent.len() > MAX_METRICS {
        ended = gauges
            .iter()
            .filter(|gauge| !sent.contains(&*gauge.path))
            .filter_map(|gauge| gauge.trouble(host))
            .collect();
        gauges.retain(|gauge| sent.contains(&*gauge.path));
    }
    for watched in gauges.iter_mut().filter_map(|gauge| gauge.watched.as_deref_mut()) {
        watched.queued = Mono(i64::MAX);
    }
    ended
}

#[cfg(test)]
mod tests {
    use crate::event::Trouble;
    use crate::heartbeat::play::{HOUR, MINUTE, Play, SECOND, set};
    use crate::heartbeat::settings::HostSettings;
    use crate::heartbeat::threshold::{Rule, ThresholdSet};

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
        let trouble = Trouble::Metric { host: "web1".into(), metric: "m".into() };
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
        assert_eq!(paths.len(), 301, "the new ones and the open alert");
        stay_up(&mut play, HOUR);
        assert_eq!(play.events(), ["CRITICAL: web1 - x.old0 = 99.0 (threshold: > 90.0)"]);
    }

    #[test]
    fn metrics_of_unwatched_hosts_are_told_too() {
        let mut play = Play::with_threshold("m", high());
        play.rules.hosts.insert("web1".into(), HostSettings::default());
        play.fleet.reconfigure(play.rules.clone(), play.now);
        assert_eq!(play.sample(95.0).facts().iter().filter(|e| !e.wants_watch()).count(), 1);
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
        let trouble = Trouble::Metric { host: "web1".into(), metric: "m".into() };
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
}
