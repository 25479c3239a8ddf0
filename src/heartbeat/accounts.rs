//! What the fleet tells the history: how each host fared, and when nobody listened. Pure.

use crate::clock::{Mono, Now, Wall};
use crate::event::{Incident, Level};
use crate::heartbeat::fleet::Fleet;
use crate::view::{State, UptimeSample};

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
