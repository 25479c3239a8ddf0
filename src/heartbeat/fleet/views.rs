//! What the API, the page and the history see of the fleet. Pure.

use crate::clock::{Mono, Now, Wall};
use crate::event::metric::measured;
use crate::event::{Incident, Level};
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::host::Host;
use crate::heartbeat::metric::Metric;
use crate::view::{ConnectionView, HostState, HostView, MetricView, UptimeSample};

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
        }
    }

    fn connection_views(&self, host: &Host) -> Vec<ConnectionView> {
        let keys = host.profile.keys.as_ref().or(self.common.keys.as_ref());
        host.connections
            .iter()
            .map(|connection| ConnectionView {
                name: connection.name.as_ref().into(),
                state: connection.state,
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
        let blind = self.blindness.periods();
        self.hosts[host_index as usize].update_uptime(now.mono, blind);
    }

    /// The availability of `count` hosts from the index `from` on since their last sample; those that
    /// are not configured are left out.
    pub fn take_samples(&mut self, from: usize, count: usize, now: Now) -> Vec<UptimeSample> {
        let blind = self.blindness.periods();
        let hosts = self.hosts.iter_mut().skip(from).take(count);
        hosts.filter_map(|host| host.take_sample(now.mono, blind)).collect()
    }

    /// What the next sample of a host would be, its metrics left out.
    pub fn peek_sample(&self, host: &str, now: Now) -> Option<UptimeSample> {
        let host = &self.hosts[*self.by_name.get(host)? as usize];
        host.peek_sample(now.mono, self.blindness.periods())
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
                    text: match alert.reported_missing {
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
}
