//! The fleet as a whole: what is stored and shown of it, and what a reload makes of it. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::{Mono, Now};
use crate::event::{Incident, Level};
use crate::heartbeat::fleet::{Due, Fleet, Row, Rules};
use crate::heartbeat::gauge::Gauge;
use crate::heartbeat::host::Host;
use crate::heartbeat::profile::{self, Common, Profile};
use crate::view::{ConnectionView, HostView, MetricView, State};

/// How many hosts, connections and alerts there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hosts.
    pub hosts: usize,
    /// Hosts that are not configured.
    pub unknown: usize,
    /// Connections that are up.
    pub up: usize,
    /// Connections that are overdue.
    pub overdue: usize,
    /// Connections that were shut down.
    pub shutdown: usize,
    /// Metrics at WARNING.
    pub warning: usize,
    /// Metrics at CRITICAL.
    pub critical: usize,
}

impl Fleet {
    /// Fills the fleet: first the configured hosts by name, then the others that may stay.
    pub(super) fn populate(
        &mut self,
        profiles: Vec<(String, Arc<Profile>)>,
        mut known: HashMap<Arc<str>, Host>,
        now: Now,
    ) {
        self.hosts.reserve_exact(profiles.len().max(known.len()));
        for (name, profile) in profiles {
            let name: Arc<str> = name.into();
            let new = || Host { changed: true, ..Host::new(name.clone(), profile.clone(), now) };
            let host = known.remove(&name).unwrap_or_else(new);
            self.add(host);
        }
        let mut others: Vec<Host> = known.into_values().collect();
        others.sort_by(|a, b| (a.configured, &a.name).cmp(&(b.configured, &b.name)));
        for host in others {
            if Some(self.strangers) < self.common.most_strangers {
                self.add(host);
            } else {
                self.pending.ended.extend(host.troubles());
                self.pending.gone.push(host.name.as_ref().into());
            }
        }
        for index in 0..self.hosts.len() as u32 {
            let host = &self.hosts[index as usize];
            if host.changed || host.unsaved {
                self.list(index);
            }
            self.note_state(index);
            self.note_condition(index, now);
            self.schedule_connections(index);
            self.schedule_metrics(index);
            self.schedule_never_seen(index, now);
        }
    }

    /// Goes by new rules: hosts that are no longer configured go, or become unknown ones where
    /// those are accepted; new ones begin; an alert whose rule is gone ends without a false OK.
    pub fn reconfigure(&mut self, rules: Rules, now: Now) -> Due {
        let profiles = profile::profiles(&rules);
        let configured: HashMap<&str, &Arc<Profile>> =
            profiles.iter().map(|(name, profile)| (name.as_str(), profile)).collect();
        self.common = Common::new(&rules);
        self.index.clear();
        self.changed.clear();
        self.down.clear();
        self.deadlines.clear();
        self.trust.forget_witnesses();
        self.strangers = 0;
        self.moves.forget();
        let mut known = HashMap::with_capacity(self.hosts.len());
        for mut host in std::mem::take(&mut self.hosts) {
            let profile = configured.get(&*host.name).copied().unwrap_or(&self.stranger);
            self.pending.ended.extend(host.adopt(profile.clone(), &self.common, now));
            known.insert(host.name.clone(), host);
        }
        self.populate(profiles, known, now);
        self.names.tidy();
        let mut due = std::mem::take(&mut self.pending);
        due.rows.extend(self.flush());
        due
    }

    /// The rows of all hosts that changed since they were last taken, be it only that they were
    /// heard.
    pub fn flush(&mut self) -> Vec<(String, Row)> {
        self.flush_some(usize::MAX)
    }

    /// The same, at most `most` of them at a time: the rows of 100,000 hosts are many megabytes.
    pub fn flush_some(&mut self, most: usize) -> Vec<(String, Row)> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let Some(index) = self.changed.pop() else {
                break;
            };
            let host = &mut self.hosts[index as usize];
            host.listed = false;
            if host.unsaved {
                rows.push(self.take_row(index));
            }
        }
        rows
    }

    /// The rows of all hosts, to heal a lost store.
    pub fn all_rows(&self) -> Vec<(String, Row)> {
        self.rows(0, usize::MAX)
    }

    /// The rows of `count` hosts, from the place `from` on.
    pub fn rows(&self, from: usize, count: usize) -> Vec<(String, Row)> {
        self.hosts.iter().skip(from).take(count).map(|host| self.row_of(host)).collect()
    }

    /// The row of one host.
    pub fn row(&self, name: &str) -> Option<Row> {
        let host = *self.index.get(name)?;
        Some(self.row_of(&self.hosts[host as usize]).1)
    }

    /// `count` hosts from the place `from` on: the configured ones by name, then the others as
    /// they came. Between two reloads no host changes its place.
    pub fn views(&self, from: usize, count: usize) -> Vec<HostView> {
        self.hosts.iter().skip(from).take(count).map(|host| self.host_view(host)).collect()
    }

    /// One host.
    pub fn view(&self, name: &str) -> Option<HostView> {
        let host = *self.index.get(name)?;
        Some(self.host_view(&self.hosts[host as usize]))
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> Counts {
        let mut counts =
            Counts { hosts: self.hosts.len(), unknown: self.strangers, ..Counts::default() };
        for connection in self.hosts.iter().flat_map(|host| &host.connections) {
            match connection.state {
                State::New => {}
                State::Up => counts.up += 1,
                State::Overdue => counts.overdue += 1,
                State::Shutdown => counts.shutdown += 1,
            }
        }
        let gauges = self.hosts.iter().flat_map(|host| &host.gauges);
        for watched in gauges.filter_map(|gauge| gauge.alert()) {
            match watched.standing.level {
                Level::Critical => counts.critical += 1,
                Level::Warning => counts.warning += 1,
                Level::Ok | Level::Info => {}
            }
        }
        counts
    }

    fn host_view(&self, host: &Host) -> HostView {
        let view = |gauge| metric_view(gauge, host.is_missing(gauge, &self.common));
        let mut metrics: Vec<MetricView> = host.gauges.iter().map(view).collect();
        metrics.sort_by(|a, b| a.path.cmp(&b.path));
        HostView {
            name: host.name.as_ref().into(),
            watch: host.profile.watch,
            state: host.state,
            since: (host.state != State::New).then_some(host.since),
            connections: self.connection_views(host),
            metrics,
            channels: host.profile.channels.clone(),
        }
    }

    fn connection_views(&self, host: &Host) -> Vec<ConnectionView> {
        let keys = host.profile.keys.as_ref().or(self.common.keys.as_ref());
        host.connections
            .iter()
            .map(|connection| ConnectionView {
                name: connection.name.as_ref().into(),
                state: connection.state,
                last_seen: (connection.state != State::New).then_some(connection.seen.wall),
                interval: connection.promise(&host.profile, &self.common).interval,
                address: connection.address.map(|a| a.to_canonical().to_string()),
                old_key: keys.is_some_and(|keys| keys.is_previous(connection.key)),
            })
            .collect()
    }
}

fn metric_view(gauge: &Gauge, stale: bool) -> MetricView {
    let watched = gauge.watched.as_deref();
    let limit = watched.and_then(|watched| watched.rule.limit(watched.standing.level));
    MetricView {
        path: gauge.path.as_ref().into(),
        value: gauge.value,
        level: watched.map(|watched| watched.standing.level),
        since: watched.map(|watched| watched.since),
        limit: limit.map(|limit| limit.to_string()),
        at: Some(gauge.presence.at),
        stale,
    }
}

impl Host {
    /// Goes by a new profile; the troubles that end without a word.
    fn adopt(&mut self, profile: Arc<Profile>, common: &Common, now: Now) -> Vec<Incident> {
        if profile.configured && !self.profile.configured {
            self.configured = now.wall;
            self.changed = true;
        }
        let was_watched = std::mem::replace(&mut self.profile, profile).watch;
        self.listed = false;
        for connection in &mut self.connections {
            connection.queued = Mono(i64::MAX);
        }
        let name = self.name.clone();
        let mut ended: Vec<_> = self
            .gauges
            .iter_mut()
            .filter_map(|gauge| gauge.rematch(&name, &self.profile, now))
            .collect();
        ended.extend(self.review_vouched(now));
        if self.profile.watch && !was_watched {
            ended.extend(self.tell_anew(common, now));
        }
        self.changed |= !ended.is_empty() || self.profile.watch != was_watched;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::heartbeat::connection::Promise;
    use crate::heartbeat::play::{DAY, HERE, HOUR, MINUTE, Play, SECOND, rules};
    use crate::heartbeat::settings::{HostSettings, UnknownHosts};

    #[test]
    fn a_reload_takes_hosts_out_and_in() {
        let mut play = Play::new();
        play.beat("web1").wait(HOUR).facts();
        play.rules.hosts.clear();
        let watched = HostSettings { watch: true, ..HostSettings::default() };
        play.rules.hosts.insert("web2".into(), watched);
        let due = play.fleet.reconfigure(play.rules.clone(), play.now);
        assert_eq!(due.gone, ["web1"]);
        let trouble = Incident::Connection { host: "web1".into(), connection: "ipv4".into() };
        assert_eq!((due.events.len(), due.ended), (0, vec![trouble]));
        assert_eq!(due.rows.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["web2"]);
        assert!(play.fleet.view("web1").is_none());
        assert_eq!(play.wait(DAY).events(), ["web2 was never heard"]);
    }

    fn signs(interval: Duration, grace: Duration) -> Play {
        let mut rules = rules();
        rules.settings.grace = Some(SECOND);
        rules.signs.insert("web1".into(), Promise { interval, grace });
        Play::with(rules)
    }

    fn sign(play: &mut Play) {
        let json = br#"{"host":"web1","connection":"alertmanager"}"#;
        play.fleet.hear_of(json, HERE, play.now).unwrap();
    }

    #[test]
    fn signs_of_life_keep_their_own_promise() {
        let mut play = signs(30 * SECOND, 5 * MINUTE);
        sign(&mut play);
        play.beat("web1");
        assert_eq!(play.wait(5 * MINUTE).events(), ["web1 ipv4 overdue"]);
        assert_eq!(play.wait(30 * SECOND).events(), ["web1 alertmanager overdue"]);
    }

    #[test]
    fn another_way_to_hear_signs_of_life_made_them_overdue() {
        let fetched = Promise { interval: 30 * SECOND, grace: 5 * MINUTE };
        for reload in [true, false] {
            let mut play = signs(4 * HOUR, 8 * HOUR);
            sign(&mut play);
            play.wait(3 * HOUR);
            play.rules.signs.insert("web1".into(), fetched);
            if reload {
                play.fleet.reconfigure(play.rules.clone(), play.now);
            } else {
                play.restart_after(SECOND);
            }
            assert!(play.wait(5 * MINUTE).events().is_empty());
            // Another start promises nothing anew.
            play.restart_after(Duration::ZERO);
            assert_eq!(play.wait(MINUTE).events(), ["web1 alertmanager overdue"]);
        }
    }

    #[test]
    fn signs_of_life_that_nobody_passes_on_any_more_are_forgotten() {
        for reload in [true, false] {
            for overdue in [true, false] {
                let mut play = signs(30 * SECOND, 5 * MINUTE);
                sign(&mut play);
                play.wait(if overdue { 2 * DAY } else { SECOND }).facts();
                play.rules.signs.clear();
                let due = if reload {
                    play.fleet.reconfigure(play.rules.clone(), play.now)
                } else {
                    let (rows, mark) = (play.rows(), play.mark());
                    let (rules, now) = (play.rules.clone(), play.now);
                    play.fleet = Fleet::restore(rules, rows, Some(mark), now, &play.kernel);
                    play.fleet.due(now)
                };
                assert_eq!((due.events.len(), due.ended.len()), (0, usize::from(overdue)));
                assert!(play.fleet.view("web1").unwrap().connections.is_empty());
                assert!(play.wait(DAY - SECOND).events().is_empty(), "{reload} {overdue}");
                assert_eq!(play.wait(DAY).events(), ["web1 was never heard"]);
            }
        }
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let mut play = Play::new();
        play.beat("web1").wait(20 * SECOND);
        play.rules.hosts.get_mut("web1").unwrap().grace = Some(MINUTE);
        play.rules.default_channels = vec!["oncall".into()];
        assert!(play.fleet.reconfigure(play.rules.clone(), play.now).gone.is_empty());
        assert_eq!(play.fleet.view("web1").unwrap().channels, ["oncall"]);
        assert!(play.wait(50 * SECOND - SECOND).events().is_empty());
        assert_eq!(play.wait(SECOND).events(), ["web1 ipv4 overdue"]);
    }

    #[test]
    fn a_host_that_is_no_longer_configured_becomes_an_unknown_one_where_those_are_accepted() {
        let mut play = Play::new();
        play.beat("web1");
        play.rules.hosts.clear();
        play.rules.settings.unknown_hosts = UnknownHosts::Accept;
        assert!(play.fleet.reconfigure(play.rules.clone(), play.now).gone.is_empty());
        assert!(!play.fleet.view("web1").unwrap().watch);
        assert_eq!(play.fleet.counts().unknown, 1);
    }

    #[test]
    fn rows_of_hosts_that_are_gone_are_told_after_a_restart() {
        let mut play = Play::new();
        play.beat("web1");
        let (rows, mark) = (play.rows(), play.mark());
        play.rules.hosts.clear();
        play.now = play.now.later(SECOND);
        play.fleet = Fleet::restore(play.rules, rows, Some(mark), play.now, &play.kernel);
        assert!(play.fleet.is_empty());
        assert_eq!(play.fleet.next_deadline(), Some(Mono(i64::MIN)), "at once");
        assert_eq!(play.fleet.due(play.now).gone, ["web1"]);
        assert_eq!(play.fleet.next_deadline(), None);
    }

    #[test]
    fn views_come_in_a_stable_order_and_in_parts() {
        let mut rules = rules();
        rules.settings.unknown_hosts = UnknownHosts::Accept;
        rules.hosts.insert("b".into(), HostSettings::default());
        let mut play = Play::with(rules);
        play.beat("z").beat("a").beat("b");
        let names = |from, count| {
            let views = play.fleet.views(from, count);
            views.into_iter().map(|view| view.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(0, 2), "b web1");
        assert_eq!(names(2, 9), "z a");
        let view = play.fleet.view("web1").unwrap();
        assert_eq!((view.state, view.since), (State::New, None));
    }

    #[test]
    fn a_reload_did_forget_who_was_heard_and_a_restart_invented_an_alarm() {
        let mut play = Play::with_interval(DAY);
        play.rules.settings.grace = Some(HOUR);
        play.fleet.reconfigure(play.rules.clone(), play.now);
        play.beat("web1");
        let mut stored: HashMap<_, _> = play.rows().into_iter().collect();
        play.fleet.flush();
        play.wait(DAY).beat("web1").wait(20 * SECOND);
        stored.extend(play.fleet.reconfigure(play.rules.clone(), play.now).rows);
        play.wait(2 * HOUR);
        stored.extend(play.fleet.flush());
        let mark = play.mark();
        play.now = play.now.later(SECOND);
        assert!(play.start(stored.into_iter().collect(), Some(mark)).events().is_empty());
    }

    /// web1 is down, and from now on it is watched.
    fn watched_at_last(restarts: bool) -> Play {
        let mut play = Play::new();
        play.rules.hosts.get_mut("web1").unwrap().watch = false;
        play.fleet.reconfigure(play.rules.clone(), play.now);
        play.beat_over("web1", "a").beat_over("web1", "b").wait(HOUR).facts();
        play.rules.hosts.get_mut("web1").unwrap().watch = true;
        if restarts {
            play.restart_after(SECOND);
        } else {
            let due = play.fleet.reconfigure(play.rules.clone(), play.now);
            assert_eq!((due.events.len(), due.ended.len()), (0, 2));
        }
        play
    }

    #[test]
    fn a_host_that_was_down_when_it_became_watched_was_never_told() {
        for restarts in [false, true] {
            let mut play = watched_at_last(restarts);
            assert!(play.wait(39 * SECOND).events().is_empty(), "it may be back by itself");
            let told = ["critical web1 a overdue", "warning web1 b overdue"];
            assert_eq!(play.wait(SECOND).told(), told);
            play.restart_after(SECOND);
            play.fleet.reconfigure(play.rules.clone(), play.now);
            assert!(play.wait(DAY).events().is_empty(), "once");
            assert_eq!(play.beat_over("web1", "a").events(), ["web1 a is back"]);

            let mut play = watched_at_last(restarts);
            play.wait(SECOND);
            assert!(play.beat_over("web1", "a").events().is_empty(), "nobody knew it was away");
            assert_eq!(play.wait(40 * SECOND).told()[0], "warning web1 b overdue");
        }
    }
}
