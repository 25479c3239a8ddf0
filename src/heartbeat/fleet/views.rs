//! What the API, the page and the history see of the fleet. Pure.

use crate::clock::{Mono, Now, Wall};
use crate::event::{Incident, Level};
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::host::Host;
use crate::heartbeat::metric::Gauge;
use crate::view::{ConnectionView, HostView, MetricView, State, UptimeSample};

/// Something of a host that is wrong at present.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// What.
    pub trouble: Incident,
    /// How much it matters.
    pub level: Level,
    /// Since when.
    pub since: Wall,
    /// In words.
    pub text: String,
}

impl Fleet {
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

    /// Writes down how a host fares from now on.
    pub(super) fn note_condition(&mut self, index: u32, now: Now) {
        let blind = self.blindness.periods();
        self.hosts[index as usize].note_condition(now.mono, blind);
    }

    /// How the `count` hosts from the place `from` on fared since their last account; those that
    /// keep none are left out.
    pub fn accounts(&mut self, from: usize, count: usize, now: Now) -> Vec<UptimeSample> {
        let blind = self.blindness.periods();
        let hosts = self.hosts.iter_mut().skip(from).take(count);
        hosts.filter_map(|host| host.account(now.mono, blind)).collect()
    }

    /// What the next account of a host would say, its metrics left out.
    pub fn running(&self, host: &str, now: Now) -> Option<UptimeSample> {
        let host = &self.hosts[*self.index.get(host)? as usize];
        host.running(now.mono, self.blindness.periods())
    }

    /// From when to when nothing could be heard, each told once.
    pub fn unseen(&mut self, now: Now) -> Vec<(Wall, Wall)> {
        let wall = |at: Mono| now.wall - now.mono.since(at);
        let unseen = std::mem::take(&mut self.unseen);
        unseen.into_iter().map(|period| (wall(period.stop), wall(period.start))).collect()
    }

    /// What is wrong with the `count` hosts from the place `from` on, in so far as anybody is to
    /// be told: connections of watched hosts, and metrics of all.
    pub fn wrong(&self, from: usize, count: usize) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for host in self.hosts.iter().skip(from).take(count) {
            for gauge in &host.gauges {
                let Some(watched) = gauge.alert() else { continue };
                let level = watched.standing.level;
                let limit = watched.rule.limit(level).map(|limit| limit.to_string());
                let limit = limit.unwrap_or_default();
                let value = crate::event::decimal(gauge.value);
                wrong.push(Wrong {
                    trouble: Incident::Metric {
                        host: host.name.as_ref().into(),
                        metric: gauge.path.as_ref().into(),
                    },
                    level,
                    since: watched.since,
                    text: match watched.missing {
                        false => format!("{} = {value} ({limit})", gauge.path),
                        true => format!("{} is missing, it was {value} ({limit})", gauge.path),
                    },
                });
            }
            if !host.profile.watch {
                continue;
            }
            for connection in host.connections.iter().filter(|connection| connection.in_trouble()) {
                let last = connection.state == State::Overdue && host.state != State::Up;
                let words = if connection.state == State::Overdue { "overdue" } else { "shutdown" };
                wrong.push(Wrong {
                    trouble: Incident::Connection {
                        host: host.name.as_ref().into(),
                        connection: connection.name.as_ref().into(),
                    },
                    level: if last { Level::Critical } else { Level::Warning },
                    since: connection.since,
                    text: format!("{} {words}", connection.name),
                });
            }
            if host.reported {
                wrong.push(Wrong {
                    trouble: Incident::NeverSeen { host: host.name.as_ref().into() },
                    level: Level::Warning,
                    since: host.configured,
                    text: "was never heard".into(),
                });
            }
        }
        wrong
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::settings::{HostSettings, UnknownHosts};
    use crate::heartbeat::test_fleet::{Play, rules};

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
}
