//! The metrics of one host: last value, alert state, and when one that no longer arrives counts as
//! missing. Pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Mono, Now, Wall, format_duration};
use crate::event::metric::text_label;
use crate::event::{Event, EventKind, Incident, Level};
use crate::heartbeat::datagram::{DatagramMetrics, MAX_METRICS};
use crate::heartbeat::renotify::Renotify;
use crate::heartbeat::settings::{Interner, NAME_BYTES, Profile};
use crate::heartbeat::threshold::{Rule, ThresholdState};
use crate::heartbeat::uptime::MetricAccumulator;
use crate::view::MetricSummary;

/// When a host has too many metrics, at most this many that are OK and stale are evicted beyond need.
const MAX_STALE_EVICTED: usize = MAX_METRICS / 8;
/// What `hbc exec` tells of jobs is below this.
pub const JOBS: &str = "job_monitor.";
/// A metric is stale when it was received this long before the newest one of its host.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// A metric of a host.
#[derive(Debug)]
pub struct Metric {
    /// Its dotted path.
    pub path: Arc<str>,
    /// Its last value.
    pub value: f64,
    /// When it was received, and when it counts as missing.
    pub freshness: Freshness,
    /// Its threshold, where the host's set has one for it.
    pub alert_state: Option<Box<AlertState>>,
    /// Its values since the last uptime sample, where its host has an uptime counter.
    pub accumulator: Option<Box<MetricAccumulator>>,
    /// The text that came with its last value, where its host is configured.
    #[allow(clippy::box_collection, reason = "one word for each metric of 100,000 hosts")]
    pub text: Option<Box<String>>,
}

/// The alert state of a metric with a threshold.
#[derive(Debug)]
pub struct AlertState {
    /// The rule that its path falls under.
    pub rule: Arc<Rule>,
    /// Its level, and since when a limit is exceeded.
    pub threshold: ThresholdState,
    /// Since when it is at that level.
    pub since: Wall,
    /// When an event of that was last made.
    pub last_notified: Now,
    /// How many reminders there were since it is at that level.
    pub reminders: u8,
    /// It was reported as missing: its level is that of the last value, the present one is unknown.
    pub reported_missing: bool,
    /// Its last value would have brought its level down, which was put off.
    pub recovery_put_off: bool,
    /// When its earliest entry in the deadline heap is due; `i64::MAX` when it has none.
    pub scheduled_at: Mono,
}

impl Metric {
    /// A metric under the rule of its host's set.
    pub fn new(
        path: Arc<str>,
        value: f64,
        freshness: Freshness,
        profile: &Profile,
        now: Now,
    ) -> Metric {
        let alert_state = profile.rule(&path).map(|rule| Box::new(AlertState::new(rule, now)));
        Metric { path, value, freshness, alert_state, accumulator: None, text: None }
    }

    /// What its text adds to an event about it.
    fn with_text(&self, event: Event) -> Event {
        match self.text.as_deref() {
            Some(text) => event.with_detail(text_label(&self.path), text),
            None => event,
        }
    }

    /// Its alert state, while it is not OK.
    pub fn alert(&self) -> Option<&AlertState> {
        self.alert_state.as_deref().filter(|alert| alert.threshold.level != Level::Ok)
    }

    /// The incident that is open, while it is not OK.
    pub fn open_incident(&self, host: &str) -> Option<Incident> {
        self.alert()
            .map(|_| Incident::Metric { host: host.to_owned(), metric: self.path.as_ref().into() })
    }

    /// When a reminder of its alert is due. A missing metric gets none: its value is old.
    pub fn reminder_due_at(&self, renotify: Renotify) -> Option<Mono> {
        let alert = self.alert().filter(|alert| !alert.reported_missing)?;
        Some(alert.last_notified.mono + renotify.delay(alert.reminders)?)
    }

    /// Whether its recovery is put off, or must last: a reminder waits for either to end.
    pub fn is_recovering(&self) -> bool {
        self.alert().is_some_and(|alert| alert.recovery_put_off || alert.threshold.is_on_way_back())
    }

    /// Whether the connection that brought it beats on without it; `last_seen` and `interval` are that
    /// connection's. What a job left behind stands until it runs again, whenever that may be.
    pub fn is_missing(&self, last_seen: Mono, interval: Duration) -> bool {
        !self.path.starts_with(JOBS) && self.freshness.is_missing(last_seen, interval)
    }

    /// Whether it is to be dropped, likewise. A job that failed has failed until it succeeds.
    pub fn is_expired(&self, last_seen: Mono, interval: Duration) -> bool {
        let (job, notified) = (self.path.starts_with(JOBS), self.alert().is_some());
        !(job && notified) && self.freshness.is_expired(last_seen, interval, notified)
    }

    /// Its values since this was called last.
    pub fn take_summary(&mut self) -> Option<MetricSummary> {
        self.accumulator.as_mut()?.take_summary(&self.path)
    }

    /// Ingests a new value; an event when that changes the level, or when the metric was missing.
    /// It comes down to a lower level only when it `may_recover`: else with a later value.
    pub fn update(
        &mut self,
        host: &str,
        value: f64,
        may_recover: &mut dyn FnMut() -> bool,
        now: Now,
    ) -> Option<Event> {
        self.value = value;
        let alert = self.alert_state.as_deref_mut()?;
        let returned = std::mem::take(&mut alert.reported_missing);
        let (earlier, before, since) = (alert.threshold, alert.threshold.level, alert.since);
        match alert.rule.evaluate(&mut alert.threshold, value, now.mono) {
            Some(level) if level < before && !may_recover() => {
                alert.threshold.put_off(earlier);
                (alert.recovery_put_off, alert.reported_missing) = (true, returned);
                return None;
            }
            Some(_) => (alert.since, alert.recovery_put_off) = (now.wall, false),
            None => {
                alert.recovery_put_off = false;
                // A level that it may leave soon is not how it stands.
                alert.reported_missing = returned && alert.threshold.is_on_way_back();
                if !returned || alert.reported_missing {
                    return None;
                }
            }
        }
        let event = self.event(host, now, false)?;
        if before == Level::Ok || returned {
            return Some(event);
        }
        let lasted = format!("{before} for {}", format_duration(now.wall.since(since)));
        Some(event.with_detail("before", lasted))
    }

    /// The event that it is missing, once, when it is not OK: its present level is unknown.
    pub fn mark_missing(&mut self, host: &str, now: Now) -> Option<Event> {
        let alert = self.alert_state.as_deref_mut()?;
        // For how long its value was beyond a limit is not known, either.
        alert.threshold.reset_pending();
        let level = alert.threshold.level;
        if level == Level::Ok || std::mem::replace(&mut alert.reported_missing, true) {
            return None;
        }
        let limit = alert.rule.limit(level).map(|limit| limit.to_string()).unwrap_or_default();
        let kind = EventKind::Missing {
            host: host.to_owned(),
            metric: self.path.as_ref().into(),
            last_sent: self.freshness.last_received,
            value: self.value,
            limit,
            last_level: level,
        };
        Some(self.with_text(Event::new(now.wall, kind)))
    }

    /// The event of its present level.
    pub fn event(&mut self, host: &str, now: Now, reminder: bool) -> Option<Event> {
        let alert = self.alert_state.as_deref_mut()?;
        let level = alert.threshold.level;
        alert.last_notified = now;
        alert.reminders = if reminder { alert.reminders.saturating_add(1) } else { 0 };
        let limit = alert.rule.limit(level).map(|limit| limit.to_string()).unwrap_or_default();
        let kind = EventKind::Threshold {
            host: host.to_owned(),
            metric: self.path.as_ref().into(),
            value: self.value,
            limit,
            level,
            since: alert.since,
            reminder,
        };
        Some(self.with_text(Event::new(now.wall, kind)))
    }

    /// Looks its rule up again after a reload. An alert whose rule is gone, or the limit that it
    /// stands at, is closed without an event: no value made it OK. The incident that is closed.
    pub fn reapply_rule(&mut self, host: &str, profile: &Profile, now: Now) -> Option<Incident> {
        let open = self.open_incident(host);
        let rule = profile.rule(&self.path);
        match (&mut self.alert_state, rule) {
            (Some(alert), Some(rule)) => {
                alert.scheduled_at = Mono(i64::MAX);
                if alert.rule != rule {
                    alert.threshold.reset_pending();
                    alert.rule = rule;
                }
                if alert.rule.allows(alert.threshold.level) {
                    return None;
                }
                alert.threshold = ThresholdState::new(Level::Ok);
                alert.reported_missing = false;
                alert.since = now.wall;
                open
            }
            (None, Some(rule)) => {
                self.alert_state = Some(Box::new(AlertState::new(rule, now)));
                None
            }
            (_, None) => {
                self.alert_state = None;
                open
            }
        }
    }
}

impl AlertState {
    /// The state of a metric that is OK as far as is known.
    fn new(rule: Arc<Rule>, now: Now) -> AlertState {
        let threshold = ThresholdState::new(Level::Ok);
        let scheduled_at = Mono(i64::MAX);
        AlertState {
            rule,
            threshold,
            since: now.wall,
            last_notified: now,
            reminders: 0,
            reported_missing: false,
            recovery_put_off: false,
            scheduled_at,
        }
    }
}

/// What the metrics of a datagram changed.
#[derive(Debug, Default)]
pub struct MetricChanges {
    /// One for each metric that changed its level.
    pub events: Vec<Event>,
    /// Incidents that are closed without an event, because their metrics were evicted.
    pub closed_incidents: Vec<Incident>,
    /// Metrics have other indexes than before.
    pub reindexed: bool,
    /// A recovery was put off, or metrics were left out for which others with an alert would have
    /// had to go.
    pub put_off: bool,
    /// How many new ones found no room.
    pub refused: usize,
}

/// Which host sent metrics, and over which connection.
#[derive(Debug)]
pub struct MetricSource<'a> {
    /// The name of the host.
    pub host: &'a Arc<str>,
    /// What the configuration says of it.
    pub profile: &'a Profile,
    /// The index of the connection.
    pub connection: usize,
    /// How many bytes its new metrics may take.
    pub room: usize,
}

/// What a metric takes in memory, with a name of its own.
fn size_with_name(path: &str) -> usize {
    size_of::<Metric>() + NAME_BYTES + path.len()
}

/// Ingests the metrics of a datagram. `may_recover` is asked whenever an alert is to end, be it
/// that a metric with one makes room for another.
pub fn ingest(
    metrics: &mut Vec<Metric>,
    source: &MetricSource,
    received: &DatagramMetrics,
    names: &mut Interner,
    may_recover: &mut dyn FnMut() -> bool,
    now: Now,
) -> MetricChanges {
    let (host, connection) = (source.host, source.connection);
    let mut changes = MetricChanges::default();
    let (mut room, mut put_off) = (source.room, false);
    let mut may_recover = || {
        let may = may_recover();
        put_off |= !may;
        may
    };
    let mut indexes = MetricIndexes::default();
    if metrics.is_empty() {
        // The usual growth makes room for four: 100,000 hosts that send one would pay for that.
        let most = (room / size_with_name("")).min(MAX_METRICS);
        metrics.reserve_exact(received.len().min(most));
    }
    for (place, (path, value)) in received.iter().enumerate() {
        let index = match indexes.find(metrics, received, place, path) {
            Some(index) => {
                metrics[index].freshness.received(connection, now);
                index
            }
            None if room < size_with_name(path) => {
                changes.refused += 1;
                continue;
            }
            None => {
                if metrics.len() == MAX_METRICS && !changes.reindexed {
                    let closed = evict(metrics, host, received, &mut may_recover);
                    changes.closed_incidents.extend(closed);
                    changes.reindexed = true;
                    indexes = MetricIndexes::default();
                }
                if metrics.len() == MAX_METRICS {
                    continue;
                }
                room -= size_with_name(path);
                let freshness = Freshness::new(connection, now);
                let path = names.intern(path);
                metrics.push(Metric::new(path, value, freshness, source.profile, now));
                metrics.len() - 1
            }
        };
        indexes.next = index + 1;
        if source.profile.configured {
            metrics[index].accumulator.get_or_insert_default().add(value);
            set_text(metrics, index, received.text(path));
        }
        changes.events.extend(metrics[index].update(host, value, &mut may_recover, now));
    }
    changes.put_off = put_off;
    changes
}

/// The most texts that are kept of one host.
const MAX_TEXTS: usize = 64;

/// The text beside a metric is the one that came with its last value, or none.
fn set_text(metrics: &mut [Metric], index: usize, text: Option<&str>) {
    let Some(text) = text else {
        metrics[index].text = None;
        return;
    };
    let known = metrics[index].text.is_some();
    if known || metrics.iter().filter(|metric| metric.text.is_some()).count() < MAX_TEXTS {
        metrics[index].text = Some(Box::new(text.to_owned()));
    }
}

/// Finds the metrics of a host that are in a datagram.
#[derive(Default)]
struct MetricIndexes {
    /// The one behind the last that was found.
    next: usize,
    /// How many were somewhere else, or are new.
    misses: usize,
    /// For each place in the datagram, which metric it is; empty as long as that is not needed.
    by_place: Vec<Option<u16>>,
}

/// So many are looked for one by one: a datagram of several begins in the middle, and has new metrics.
const MAX_SEARCHES: usize = 4;

impl MetricIndexes {
    /// The index of the metric at `place` of the datagram, whose path is `path`.
    ///
    /// A host sends the same metrics in the same order each time, in one datagram or several: the one
    /// behind the last is compared first. Where the order is another one, all are looked up at once:
    /// one by one, each of 512 would be compared with most of 512.
    fn find(
        &mut self,
        metrics: &[Metric],
        received: &DatagramMetrics,
        place: usize,
        path: &str,
    ) -> Option<usize> {
        if metrics.get(self.next).is_some_and(|metric| *metric.path == *path) {
            return Some(self.next);
        }
        self.misses += 1;
        if self.misses <= MAX_SEARCHES {
            return metrics.iter().position(|metric| *metric.path == *path);
        }
        if self.by_place.is_empty() {
            self.by_place = vec![None; received.len()];
            for (index, metric) in metrics.iter().enumerate() {
                if let Some(place) = received.position(&metric.path) {
                    self.by_place[place] = u16::try_from(index).ok();
                }
            }
        }
        self.by_place[place].map(usize::from)
    }
}

/// Evicts metrics that are not in this datagram, so that all that are find room: those that are OK
/// first, and of these the ones that were received the longest ago; of stale ones maybe more than
/// needed. One with an alert is evicted only when it `may_recover`: else there may be too little
/// room. The incidents that are closed with them.
fn evict(
    metrics: &mut Vec<Metric>,
    host: &str,
    received: &DatagramMetrics,
    may_recover: &mut dyn FnMut() -> bool,
) -> Vec<Incident> {
    let mut new: HashSet<&str> = received.iter().map(|(path, _)| path).collect();
    let mut idle = Vec::new();
    for (index, metric) in metrics.iter().enumerate() {
        if !new.remove(&*metric.path) {
            idle.push((metric.alert().is_some(), metric.freshness.last_received, index));
        }
    }
    let room = MAX_METRICS - metrics.len();
    idle.sort_unstable();
    let newest = idle.iter().map(|(_, at, _)| *at).max().unwrap_or_default();
    let old = idle.iter().filter(|(alert, at, _)| !alert && *at + STALE_AFTER < newest).count();
    idle.truncate((new.len() - room).max(old.min(MAX_STALE_EVICTED)));
    idle.retain(|(alert, ..)| !alert || may_recover());
    let closed =
        idle.iter().filter_map(|(.., index)| metrics[*index].open_incident(host)).collect();
    let dropped: HashSet<usize> = idle.into_iter().map(|(.., index)| index).collect();
    let mut index = 0..;
    metrics.retain(|_| index.next().is_none_or(|index| !dropped.contains(&index)));
    clear_schedule(metrics);
    closed
}

/// Makes the entries in the deadline heap void: they are about indexes that have changed.
pub fn clear_schedule(metrics: &mut [Metric]) {
    for alert in metrics.iter_mut().filter_map(|metric| metric.alert_state.as_deref_mut()) {
        alert.scheduled_at = Mono(i64::MAX);
    }
}

/// How often a metric must have been received before its usual gap counts: a job that was tried a
/// few times in a row may not go on.
const MIN_SAMPLES: u8 = 10;
/// A metric is missing after this many of its usual gaps: it travels in one datagram of several, and
/// datagrams get lost.
const MISSED_SAMPLES: u32 = 5;
/// No metric is missing sooner.
const MIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// A metric that was received only a few times is missing no sooner: it may be that of a weekly job.
const IRREGULAR_TIMEOUT: Duration = Duration::from_secs(8 * 24 * 3600);
/// A metric that is OK is dropped after this many of its timeouts, and no sooner than `MIN_EXPIRY`.
const EXPIRY_TIMEOUTS: u32 = 2;
const MIN_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// One that was reported as missing is dropped this long after its timeout.
const NOTIFIED_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);

/// When a metric was received, and when it counts as missing.
///
/// Its absence is the time in which the connection that brought it beats without it. A connection
/// that is silent proves nothing about its metrics: either it is reported as overdue itself, or the
/// daemon could not receive.
#[derive(Clone, Debug)]
pub struct Freshness {
    /// When it was last received.
    pub last_received: Wall,
    /// From when on its absence counts.
    absent_since: Mono,
    /// The longest gap between two samples of late, in milliseconds.
    usual_gap: u32,
    /// How often it was received; saturates.
    samples: u8,
    /// The index of the connection that brought it last.
    connection: u8,
}

/// [`Freshness`] as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PresenceRow {
    /// When it was last received.
    pub at: Wall,
    /// How long it had been absent when its connection was last seen, in milliseconds.
    pub absent: u32,
    /// The longest gap between two samples of late, in milliseconds.
    pub every: u32,
    /// How often it was received.
    pub samples: u8,
}

impl Freshness {
    /// A metric that is received for the first time, over the connection at the index `connection`.
    pub fn new(connection: usize, now: Now) -> Freshness {
        Freshness {
            last_received: now.wall,
            absent_since: now.mono,
            usual_gap: 0,
            samples: 1,
            connection: small_index(connection),
        }
    }

    /// One from before a restart; `last_seen` is that of its connection.
    pub fn restore(row: PresenceRow, connection: usize, last_seen: Mono) -> Freshness {
        let absent_since = last_seen - Duration::from_millis(row.absent.into());
        let PresenceRow { at: last_received, every: usual_gap, samples, .. } = row;
        Freshness {
            last_received,
            absent_since,
            usual_gap,
            samples,
            connection: small_index(connection),
        }
    }

    /// What is stored; `last_seen` is that of its connection.
    pub fn to_row(&self, last_seen: Mono) -> PresenceRow {
        let absent = millis(self.absence(last_seen));
        PresenceRow { at: self.last_received, absent, every: self.usual_gap, samples: self.samples }
    }

    /// It is received over the connection at the index `connection`.
    pub fn received(&mut self, connection: usize, now: Now) {
        let gap = millis(now.mono.since(self.absent_since));
        // The same beat over another connection is no further sample.
        if gap >= self.usual_gap / 4 {
            self.samples = self.samples.saturating_add(1);
        }
        self.usual_gap =
            if gap > self.usual_gap { gap } else { self.usual_gap - (self.usual_gap - gap) / 8 };
        (self.last_received, self.absent_since, self.connection) =
            (now.wall, now.mono, small_index(connection));
    }

    /// The index of the connection that brought it last.
    pub fn connection(&self) -> usize {
        self.connection.into()
    }

    /// Its absence counts anew, by another connection: the one that brought it is down.
    pub fn move_to_connection(&mut self, connection: usize, now: Now) {
        (self.absent_since, self.connection) = (now.mono, small_index(connection));
    }

    /// The connection at the index `removed` is no more, and those behind it moved up.
    pub fn connection_removed(&mut self, removed: usize) {
        if self.connection() > removed {
            self.connection -= 1;
        } else if self.connection() == removed {
            self.connection = u8::MAX;
        }
    }

    /// Its connection was silent for `gap` beyond its interval: that does not count as absence.
    pub fn extend(&mut self, gap: Duration) {
        self.absent_since = self.absent_since + gap;
    }

    /// How long it was absent when its connection was last seen.
    pub fn absence(&self, last_seen: Mono) -> Duration {
        last_seen.since(self.absent_since)
    }

    /// Whether it is missing, by when its connection was last seen and the interval of that.
    pub fn is_missing(&self, last_seen: Mono, interval: Duration) -> bool {
        self.absence(last_seen) >= self.timeout(interval)
    }

    /// Whether it is to be dropped; `notified` says that it was reported as missing.
    pub fn is_expired(&self, last_seen: Mono, interval: Duration, notified: bool) -> bool {
        let timeout = self.timeout(interval);
        let expiry = if notified {
            timeout.saturating_add(NOTIFIED_EXPIRY)
        } else {
            timeout.saturating_mul(EXPIRY_TIMEOUTS).max(MIN_EXPIRY)
        };
        self.absence(last_seen) >= expiry
    }

    fn timeout(&self, interval: Duration) -> Duration {
        let every = Duration::from_millis(self.usual_gap.into()).max(interval);
        let regular = every.saturating_mul(MISSED_SAMPLES).max(MIN_TIMEOUT);
        if self.samples < MIN_SAMPLES { regular.max(IRREGULAR_TIMEOUT) } else { regular }
    }
}

fn small_index(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::settings::HostSettings;
    use crate::heartbeat::test_fleet::{HOUR, MINUTE, SECOND, TestFleet, set};
    use crate::heartbeat::threshold::ThresholdSet;

    fn high() -> Rule {
        let limit = |text: &str| Some(text.parse().unwrap());
        Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() }
    }

    /// Keeps web1 up for a while, with a beat every ten seconds that carries no metrics.
    fn stay_up(test: &mut TestFleet, time: std::time::Duration) {
        for _ in 0..time.as_secs() / 10 {
            test.beat("web1").wait(10 * SECOND);
        }
        test.beat("web1");
    }

    /// A beat of web1 with these metrics, whose values say which they are, in an order by `turn`.
    fn in_order(names: &[String], turn: usize) -> String {
        let mut order: Vec<usize> = (0..names.len()).collect();
        // Coprime to the number of names, so that each comes once.
        order.sort_by_key(|n| n * turn % names.len());
        let metrics: Vec<String> =
            order.iter().map(|n| format!("\"{}\":{}", names[*n], n * 2 + turn)).collect();
        format!(r#"{{"host":"web1","metrics":{{{}}}}}"#, metrics.join(","))
    }

    #[test]
    fn metrics_are_told_apart_in_whatever_order_they_come() {
        for count in [1, 3, 5, 9, 101, 511] {
            let names: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
            let mut test = TestFleet::new();
            for turn in [1, 7, 3, 13] {
                test.ingest(&in_order(&names, turn));
                let metrics = test.fleet.view("web1").unwrap().metrics;
                assert_eq!(metrics.len(), count);
                for metric in metrics {
                    let number: usize = metric.path[1..].parse().unwrap();
                    assert_eq!(metric.value, (number * 2 + turn) as f64, "{}", metric.path);
                }
            }
            // Some are new, some are gone, and the others come backwards.
            let names: Vec<String> =
                (count / 2..count + count / 2).map(|n| format!("m{n}")).collect();
            test.ingest(&in_order(&names, names.len() - 1));
            let known = test.fleet.view("web1").unwrap().metrics.len();
            assert_eq!(known, (count + count / 2).min(MAX_METRICS));
        }
    }

    /// What this thread has used of a processor: others use it, too.
    fn spent() -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[test]
    fn metrics_in_another_order_each_time_cost_six_times_as_much() {
        let names: Vec<String> = (0..509).map(|n| format!("m{n}")).collect();
        let mut test = TestFleet::new();
        let mut fastest = [Duration::MAX; 2];
        test.ingest(&in_order(&names, 1));
        for turn in 2..40 {
            for (which, turn) in [(0, 1), (1, turn)] {
                let json = in_order(&names, turn);
                let before = spent();
                test.ingest(&json);
                fastest[which] = fastest[which].min(spent() - before);
            }
        }
        // Twice at most, where the compiler optimizes.
        assert!(fastest[1] < 4 * fastest[0], "{fastest:?}");
    }

    #[test]
    fn every_change_of_level_is_told_once_in_its_words() {
        let mut test = TestFleet::with_threshold("m", high());
        for value in [10.0, 95.2, 96.0, 85.0, 86.0, 42.0, 41.0] {
            test.sample(value);
        }
        assert_eq!(
            test.titles_with_level(),
            [
                "critical CRITICAL: web1 - m = 95.2 (threshold: > 90.0)",
                "warning WARNING: web1 - m = 85.0 (threshold: > 80.0)",
                "ok OK: web1 - m = 42.0 (threshold: > 80.0)",
            ]
        );
    }

    #[test]
    fn an_alert_that_goes_on_is_repeated_with_the_current_value_also_over_restarts() {
        let mut test = TestFleet::with_threshold("m", high());
        test.sample(95.0).take_events();
        stay_up(&mut test, HOUR - MINUTE);
        test.sample(97.5);
        assert!(test.titles().is_empty());
        test.restart_after(SECOND);
        stay_up(&mut test, MINUTE);
        assert_eq!(test.titles(), ["CRITICAL: web1 - m = 97.5 (threshold: > 90.0)"]);
        stay_up(&mut test, HOUR);
        assert_eq!(test.titles().len(), 1);
        test.sample(10.0).take_events();
        stay_up(&mut test, 2 * HOUR);
        assert!(test.titles().is_empty());
    }

    #[test]
    fn a_value_that_was_well_again_was_repeated_as_critical() {
        let mut test = TestFleet::with_threshold("m", Rule { clear_for: 15 * MINUTE, ..high() });
        test.sample(95.0).take_events();
        let goes_on = |test: &mut TestFleet, value, minutes: u64| {
            for _ in 0..6 * minutes {
                test.wait(10 * SECOND).sample(value);
            }
        };
        goes_on(&mut test, 95.0, 55);
        goes_on(&mut test, 42.0, 10);
        assert!(test.titles().is_empty(), "the hour is over while it is on its way back");
        goes_on(&mut test, 96.0, 2);
        assert_eq!(test.titles(), ["CRITICAL: web1 - m = 96.0 (threshold: > 90.0)"]);
        goes_on(&mut test, 42.0, 16);
        assert_eq!(test.titles(), ["OK: web1 - m = 42.0 (threshold: > 80.0)"]);
    }

    #[test]
    fn while_a_host_is_overdue_its_thresholds_are_frozen() {
        let rule = Rule { for_duration: MINUTE, ..high() };
        let mut test = TestFleet::with_threshold("m", rule);
        test.sample(95.0).wait(2 * HOUR);
        assert_eq!(test.titles(), ["web1 ipv4 overdue"], "no level, no reminder");
        test.sample(95.0);
        assert_eq!(test.titles(), ["web1 ipv4 is back"], "its time begins anew");
        for _ in 0..6 {
            test.wait(10 * SECOND).sample(95.0);
        }
        assert_eq!(test.titles(), ["CRITICAL: web1 - m = 95.0 (threshold: > 90.0)"]);
        test.wait(3 * HOUR);
        assert_eq!(test.titles(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn reminders_go_on_when_the_host_is_back() {
        let mut test = TestFleet::with_threshold("m", high());
        test.sample(95.0).wait(3 * HOUR).take_events();
        test.sample(96.0).wait(SECOND);
        let expected = ["web1 ipv4 is back", "CRITICAL: web1 - m = 96.0 (threshold: > 90.0)"];
        assert_eq!(test.titles(), expected);
    }

    #[test]
    fn a_reload_that_removes_a_rule_ends_its_alert_without_a_word() {
        let mut test = TestFleet::with_threshold("m", high());
        test.sample(95.0).take_events();
        test.config.threshold_sets.insert("default".into(), ThresholdSet::default());
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        let incident = Incident::Metric { host: "web1".into(), metric: "m".into() };
        assert_eq!((changes.events.len(), changes.closed_incidents), (0, vec![incident]));
        test.sample(10.0);
        stay_up(&mut test, 2 * HOUR);
        assert!(test.titles().is_empty());
        assert_eq!(test.fleet.view("web1").unwrap().metrics[0].level, None);
    }

    #[test]
    fn a_reload_that_changes_a_rule_keeps_its_level_until_the_next_value() {
        let mut test = TestFleet::with_threshold("m", high());
        test.sample(85.0).take_events();
        let lower = Rule { critical: Some("> 84".parse().unwrap()), ..high() };
        test.config.threshold_sets.insert("default".into(), set("*", lower));
        assert!(test.fleet.reconfigure(test.config.clone(), test.now).events.is_empty());
        assert_eq!(test.sample(85.0).titles(), ["CRITICAL: web1 - m = 85.0 (threshold: > 84.0)"]);
    }

    #[test]
    fn metrics_that_are_no_longer_sent_make_room() {
        let mut test = TestFleet::with_threshold("x.old0", high());
        for round in ["old", "new"] {
            let metrics: Vec<String> =
                (0..300).map(|n| format!(r#""{round}{n}":{}"#, 99)).collect();
            let metrics = metrics.join(",");
            test.ingest(&format!(r#"{{"host":"web1","metrics":{{"x":{{{metrics}}}}}}}"#));
        }
        assert_eq!(test.titles().len(), 1);
        let paths: Vec<_> = test.fleet.view("web1").unwrap().metrics;
        assert!((301..=512).contains(&paths.len()), "{}", paths.len());
        assert!(paths.iter().any(|metric| metric.path == "x.old0"), "its alert is open");
        assert_eq!(paths.iter().filter(|metric| metric.path.starts_with("x.new")).count(), 300);
        stay_up(&mut test, HOUR);
        assert_eq!(test.titles(), ["CRITICAL: web1 - x.old0 = 99.0 (threshold: > 90.0)"]);
    }

    fn said(test: &mut TestFleet) -> Vec<String> {
        let details = |event: Event| event.message(crate::event::EventId(1)).details;
        let all = test.take_events().into_iter().flat_map(details);
        all.filter(|(label, _)| label != "measured")
            .map(|(label, text)| format!("{label}: {text}"))
            .collect()
    }

    fn with_text(value: f64, text: &str) -> String {
        format!(r#"{{"host":"web1","metrics":{{"m":{value}}},"texts":{{"m":"{text}"}}}}"#)
    }

    #[test]
    fn what_was_said_with_the_value_stands_in_the_message_and_survives_a_restart() {
        let mut test = TestFleet::with_threshold("m", high());
        test.ingest(&with_text(95.0, "nginx.service"));
        assert_eq!(said(&mut test), ["it says: nginx.service"]);
        let text = |test: &TestFleet| test.fleet.view("web1").unwrap().metrics[0].text.clone();
        assert_eq!(text(&test).as_deref(), Some("nginx.service"));
        test.restart_after(SECOND);
        assert_eq!(text(&test).as_deref(), Some("nginx.service"));
        assert_eq!(said(test.beat("web1").wait(20 * SECOND)), [""; 0]);
        test.ingest(&with_text(85.0, "foo.service"));
        assert_eq!(said(&mut test), ["it says: foo.service", "before: CRITICAL for 21 s"]);
        // It was of the value before.
        assert_eq!(said(test.sample(42.0)), ["before: WARNING for 0 s"]);
        assert_eq!(text(&test), None);
    }

    #[test]
    fn the_texts_of_a_host_are_bounded_and_unknown_hosts_have_none() {
        let mut config = crate::heartbeat::test_fleet::config();
        config.settings.unknown_hosts = crate::heartbeat::settings::UnknownHosts::Accept;
        let mut test = TestFleet::with(config);
        let all = |of: &dyn Fn(usize) -> String| (0..100).map(of).collect::<Vec<_>>().join(",");
        let (metrics, texts) =
            (all(&|n| format!("\"m{n}\":1")), all(&|n| format!("\"m{n}\":\"t\"")));
        for (host, count) in [("web1", MAX_TEXTS), ("unknown", 0)] {
            for _ in 0..2 {
                test.ingest(&format!(
                    r#"{{"host":"{host}","metrics":{{{metrics}}},"texts":{{{texts}}}}}"#
                ));
                let metrics = test.fleet.view(host).unwrap().metrics;
                assert_eq!(metrics.len(), 100);
                assert_eq!(metrics.iter().filter(|metric| metric.text.is_some()).count(), count);
            }
        }
    }

    #[test]
    fn metrics_of_unwatched_hosts_are_reported_too() {
        let mut test = TestFleet::with_threshold("m", high());
        test.config.hosts.insert("web1".into(), HostSettings::default());
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(test.sample(95.0).take_events().iter().filter(|e| !e.watched_only()).count(), 1);
    }

    #[test]
    fn a_reload_that_took_only_the_warning_away_did_cause_a_false_ok() {
        let test = TestFleet::with_threshold("m", Rule { warning: None, ..high() });
        let only_critical = test.config.clone();
        let mut test = TestFleet::with_threshold("m", high());
        test.sample(85.0).take_events();
        test.config = only_critical;
        assert!(test.restart_after(SECOND).sample(85.0).titles().is_empty());

        let mut test = TestFleet::with_threshold("m", high());
        test.sample(85.0).take_events();
        let only_critical = Rule { warning: None, ..high() };
        test.config.threshold_sets.insert("default".into(), set("m", only_critical));
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        let incident = Incident::Metric { host: "web1".into(), metric: "m".into() };
        assert_eq!(
            (changes.events.len(), changes.closed_incidents, changes.rows.len()),
            (0, vec![incident], 1)
        );
        assert!(test.sample(85.0).titles().is_empty());
        test.sample(95.0).take_events();
        let only_warning = Rule { critical: None, ..high() };
        test.config.threshold_sets.insert("default".into(), set("m", only_warning));
        assert!(test.fleet.reconfigure(test.config.clone(), test.now).closed_incidents.is_empty());
        assert_eq!(
            test.sample(85.0).titles_with_level(),
            ["warning WARNING: web1 - m = 85.0 (threshold: > 80.0)"]
        );
    }

    fn after(gaps: &[u64]) -> (Freshness, Now) {
        let mut now = Now { mono: Mono(0), wall: Wall(0) };
        let mut freshness = Freshness::new(0, now);
        for gap in gaps {
            now = now.later(Duration::from_secs(*gap));
            freshness.received(0, now);
        }
        (freshness, now)
    }

    /// After how many seconds of beats every ten seconds it is missing.
    fn missing_after(gaps: &[u64]) -> u64 {
        let (freshness, now) = after(gaps);
        let missing = |seconds: &u64| {
            freshness.is_missing(now.mono + Duration::from_secs(*seconds), 10 * SECOND)
        };
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
    fn a_job_that_was_tried_a_few_times_is_not_expected_to_go_on() {
        for gaps in [&[][..], &[5], &[5, 5, 5, 5, 5, 5]] {
            assert_eq!(missing_after(gaps), 8 * 86_400, "{gaps:?}");
        }
    }

    #[test]
    fn what_is_known_survives_a_restart() {
        let (freshness, now) = after(&[60; 20]);
        let last_seen = now.mono + 300 * SECOND;
        let again = Freshness::restore(freshness.to_row(last_seen), 3, Mono(7_000_000));
        assert_eq!(again.absence(Mono(7_000_000)), 300 * SECOND);
        assert!(!again.is_missing(Mono(7_299_999), 10 * SECOND));
        assert!(again.is_missing(Mono(7_300_000), 10 * SECOND));
        assert_eq!((again.last_received, again.connection()), (freshness.last_received, 3));
    }

    #[test]
    fn what_is_long_gone_is_forgotten() {
        let (freshness, now) = after(&[10; 20]);
        let at = |days: u64| now.mono + Duration::from_secs(days * 86_400);
        assert!(!freshness.is_expired(at(0), 10 * SECOND, false));
        assert!(freshness.is_expired(at(1), 10 * SECOND, false));
        assert!(!freshness.is_expired(at(30), 10 * SECOND, true));
        assert!(freshness.is_expired(at(31), 10 * SECOND, true));
    }
}
