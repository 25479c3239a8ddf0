//! What the API, the page and the history see of the fleet. Pure.

use crate::clock::{Mono, Now, Wall};
use crate::event::metric::measured;
use crate::event::{Incident, Level};
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::fleet::dependencies::MAX_BEHIND;
use crate::heartbeat::host::Host;
use crate::heartbeat::metric::Metric;
use crate::view::{
    ConnectionView, DependencyView, HostState, HostView, LinkedHost, MetricView, RefusedView,
    UptimeSample,
};

/// A connection, a metric or a host that is not OK at present.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenProblem {
    /// Its incident.
    pub incident: Incident,
    /// How much it matters.
    pub level: Level,
    /// Since when.
    pub since: Wall,
    /// In words.
    pub text: String,
}

impl Fleet {
    /// `count` hosts from the index `from` on: the configured ones by name, then the others as they
    /// came. Between two reloads no host changes its index.
    pub fn views(&self, from: usize, count: usize) -> Vec<HostView> {
        self.hosts.iter().skip(from).take(count).map(|host| self.host_view(host)).collect()
    }

    /// One host.
    pub fn view(&self, name: &str) -> Option<HostView> {
        let host = *self.by_name.get(name)?;
        Some(self.host_view(&self.hosts[host as usize]))
    }

    fn host_view(&self, host: &Host) -> HostView {
        let view = |metric| metric_view(metric, host.is_missing(metric, &self.common));
        let mut metrics: Vec<MetricView> = host.metrics.iter().map(view).collect();
        metrics.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        HostView {
            name: host.name.as_ref().into(),
            // Nothing is expected of it until it beats again.
            watch: host.profile.watch && !host.forgotten,
            state: host.state,
            since: (host.state != HostState::New).then_some(host.since),
            connections: self.connection_views(host),
            metrics,
            channels: host.profile.channels.clone(),
            quiet: Vec::new(),
            note: None,
            link: None,
            groups: Vec::new(),
            refused: self.refusals.of(&host.name).map(RefusedView::from),
        }
    }

    /// What a host is reached through, and who is reached through it, at most [`MAX_BEHIND`] of these.
    pub fn dependency_view(&self, name: &str) -> DependencyView {
        let Some(index) = self.by_name.get(name).copied() else { return DependencyView::default() };
        let linked = |index: u32| {
            let host = &self.hosts[index as usize];
            LinkedHost { name: host.name.as_ref().into(), state: host.state }
        };
        let behind = self.dependencies.descendants(index);
        let mut view = DependencyView {
            through: self
                .dependencies
                .parents(index)
                .map(|one| one.map(linked).collect())
                .collect(),
            behind_count: behind.len(),
            behind: behind.into_iter().map(linked).collect(),
        };
        view.behind.sort_unstable_by(|a, b| {
            let is_up = |host: &LinkedHost| host.state == HostState::Up;
            (is_up(a), &a.name).cmp(&(is_up(b), &b.name))
        });
        view.behind.truncate(MAX_BEHIND);
        view
    }

    /// The limits of a metric of a host, and the level beyond each.
    pub fn limit_views(&self, host: &str, metric: &str) -> Vec<(Level, String)> {
        let host = self.by_name.get(host).map(|index| &self.hosts[*index as usize]);
        let Some(rule) = host.and_then(|host| host.profile.rule(metric)) else { return Vec::new() };
        let limits = [(Level::Warning, rule.warning), (Level::Critical, rule.critical)];
        limits.iter().filter_map(|(level, limit)| Some((*level, (*limit)?.to_string()))).collect()
    }

    fn connection_views(&self, host: &Host) -> Vec<ConnectionView> {
        let keys = host.profile.keys.as_ref().or(self.common.keys.as_ref());
        host.connections
            .iter()
            .map(|connection| ConnectionView {
                name: connection.name.as_ref().into(),
                state: connection.state,
                since: (connection.state != HostState::New).then_some(connection.since),
                last_seen: (connection.state != HostState::New)
                    .then_some(connection.last_seen.wall),
                interval: connection.expectation(&host.profile, &self.common).interval,
                address: connection.address.map(|a| a.to_canonical().to_string()),
                old_key: keys.is_some_and(|keys| keys.is_previous(connection.key_id)),
            })
            .collect()
    }

    /// Counts the time of a host under its present status from now on.
    pub(super) fn update_uptime(&mut self, host_index: u32, now: Now) {
        let host = &mut self.hosts[host_index as usize];
        let blind = self.blindness.periods_of(host.receivers(), now.mono);
        host.update_uptime(now.mono, &blind);
    }

    /// The availability of `count` hosts from the index `from` on since their last sample; those that
    /// are not configured are left out.
    pub fn take_samples(&mut self, from: usize, count: usize, now: Now) -> Vec<UptimeSample> {
        let blindness = &self.blindness;
        let hosts = self.hosts.iter_mut().skip(from).take(count);
        let sample = |host: &mut Host| {
            let blind = blindness.periods_of(host.receivers(), now.mono);
            host.take_sample(now.mono, &blind)
        };
        hosts.filter_map(sample).collect()
    }

    /// What the next sample of a host would be, its metrics left out.
    pub fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample> {
        let host = &self.hosts[*self.by_name.get(host)? as usize];
        host.peek_sample(now.mono, &self.blindness.periods_of(host.receivers(), now.mono))
    }

    /// From when to when the daemon could not receive, each period once.
    pub fn take_blind_periods(&mut self, now: Now) -> Vec<(Wall, Wall)> {
        let wall = |at: Mono| now.wall - now.mono.since(at);
        let periods = std::mem::take(&mut self.unreported_blindness);
        periods.into_iter().map(|period| (wall(period.from), wall(period.to))).collect()
    }

    /// What is wrong with `count` hosts from the index `from` on, as far as that is notified:
    /// connections of watched hosts, and metrics of all.
    pub fn open_problems(&self, from: usize, count: usize) -> Vec<OpenProblem> {
        let mut problems = Vec::new();
        for host in self.hosts.iter().skip(from).take(count) {
            for metric in &host.metrics {
                let Some(alert) = metric.alert() else { continue };
                let level = alert.threshold.level;
                let limit = alert.rule.limit(level);
                let value = measured(metric.value, limit.map(|limit| limit.value));
                let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
                problems.push(OpenProblem {
                    incident: Incident::Metric {
                        host: host.name.as_ref().into(),
                        metric: metric.path.as_ref().into(),
                    },
                    level,
                    since: alert.since,
                    text: match alert.reported_missing && host.is_missing(metric, &self.common) {
                        false => format!("{} = {value} ({limit})", metric.path),
                        true => format!("{} is missing, it was {value} ({limit})", metric.path),
                    },
                });
            }
            if !host.profile.watch {
                continue;
            }
            for connection in
                host.connections.iter().filter(|connection| connection.has_open_incident())
            {
                let last = connection.state == HostState::Overdue && host.state != HostState::Up;
                let words =
                    if connection.state == HostState::Overdue { "overdue" } else { "shutdown" };
                problems.push(OpenProblem {
                    incident: Incident::Connection {
                        host: host.name.as_ref().into(),
                        connection: connection.name.as_ref().into(),
                    },
                    level: if last { Level::Critical } else { Level::Warning },
                    since: connection.since,
                    text: format!("{} {words}", connection.name),
                });
            }
            if let Some(goodbye) = host.goodbye.as_deref().filter(|goodbye| goodbye.reported) {
                problems.push(OpenProblem {
                    incident: Incident::NotBack { host: host.name.as_ref().into() },
                    level: Level::Critical,
                    since: goodbye.at.wall,
                    text: "has not come back".into(),
                });
            }
            if host.never_seen_reported {
                problems.push(OpenProblem {
                    incident: Incident::NeverSeen { host: host.name.as_ref().into() },
                    level: Level::Warning,
                    since: host.configured_since,
                    text: "was never heard".into(),
                });
            }
        }
        problems
    }
}

fn metric_view(metric: &Metric, stale: bool) -> MetricView {
    let alert = metric.alert_state.as_deref();
    let limit = alert.and_then(|alert| alert.rule.limit(alert.threshold.level));
    MetricView {
        path: metric.path.as_ref().into(),
        value: metric.value,
        level: alert.map(|alert| alert.threshold.level),
        since: alert.map(|alert| alert.since),
        limit: limit.map(|limit| limit.to_string()),
        text: metric.text.as_deref().cloned(),
        at: Some(metric.freshness.last_received),
        stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::settings::{HostSettings, UnknownHosts};
    use crate::heartbeat::test_fleet::{TestFleet, config};

    #[test]
    fn views_come_in_a_stable_order_and_in_parts() {
        let mut config = config();
        config.settings.unknown_hosts = UnknownHosts::Accept;
        config.hosts.insert("b".into(), HostSettings::default());
        let mut test = TestFleet::with(config);
        test.beat("z").beat("a").beat("b");
        let names = |from, count| {
            let views = test.fleet.views(from, count);
            views.into_iter().map(|view| view.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(0, 2), "b web1");
        assert_eq!(names(2, 9), "z a");
        let view = test.fleet.view("web1").unwrap();
        assert_eq!((view.state, view.since), (HostState::New, None));
    }

    #[test]
    fn a_host_knows_what_it_is_reached_through_and_who_is_behind_it() {
        let mut config = config();
        for name in ["router", "wan1", "wan2", "web2"] {
            config.hosts.insert(name.into(), HostSettings::default());
        }
        let one = |name: &str| vec![name.to_owned()];
        config.depends_on.insert("web1".into(), vec![one("router")]);
        config.depends_on.insert("web2".into(), vec![one("router")]);
        let wans = vec!["wan1".into(), "wan2".into()];
        config.depends_on.insert("router".into(), vec![wans]);
        let mut test = TestFleet::with(config);
        test.beat("web1").beat("wan2");
        let words = |hosts: &[LinkedHost]| {
            let words = hosts.iter().map(|host| format!("{} {:?}", host.name, host.state));
            words.collect::<Vec<_>>().join(", ")
        };
        let router = test.fleet.dependency_view("router");
        assert_eq!(
            router.through.iter().map(|one| words(one)).collect::<Vec<_>>(),
            ["wan1 New, wan2 Up"]
        );
        assert_eq!((words(&router.behind), router.behind_count), ("web2 New, web1 Up".into(), 2));
        let wan = test.fleet.dependency_view("wan1");
        assert_eq!(words(&wan.behind), "router New, web2 New, web1 Up", "those behind others, too");
        assert_eq!(test.fleet.dependency_view("nobody"), DependencyView::default());
    }
}
