//! Alerts that are signs of life: a Watchdog that fires says that its Prometheus and Alertmanager
//! live.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backup::alert::{self, Alert};
use crate::config::Config;
use crate::heartbeat::monitor::FleetMonitor;
use crate::heartbeat::settings::Expectation;

/// How often an Alertmanager that sends repeats an alert that goes on, unless it was told
/// otherwise (`repeat_interval`); the repeat comes at the next `group_interval` after it.
const REPEAT: Duration = Duration::from_secs(4 * 3600);
/// Twice the usual `group_interval`.
const LEAST_GRACE_SENT: Duration = Duration::from_secs(10 * 60);
/// An Alertmanager that was restarted knows its alerts again when Prometheus has sent them again.
const LEAST_GRACE_FETCHED: Duration = Duration::from_secs(5 * 60);

/// What may be expected of each host whose signs of life an Alertmanager passes on: of its
/// connection `alertmanager` this goes before all else. What the configuration says of that very
/// host holds, but where alerts are fetched no more often than they are; what it says of all hosts
/// is meant for those that beat themselves.
pub fn promises(config: &Config) -> BTreeMap<String, Expectation> {
    let receiver = &config.receiver;
    let promise = |name: &String| {
        let host = config.hosts.get(name);
        let own = host.and_then(|host| host.interval);
        let (interval, least) = match receiver.poll_url {
            Some(_) => {
                let fetched = receiver.poll_interval;
                (own.map_or(fetched, |own| own.max(fetched)), LEAST_GRACE_FETCHED)
            }
            None => (own.unwrap_or(REPEAT), LEAST_GRACE_SENT),
        };
        let usual = interval.saturating_mul(2).max(least);
        let grace = host.and_then(|host| host.grace).unwrap_or(usual);
        (name.clone(), Expectation { interval, grace })
    };
    receiver.heartbeat_alerts.values().map(promise).collect()
}

/// By `alertname`, the host whose life it is a sign of.
#[derive(Debug, Default)]
pub struct Signs {
    hosts: BTreeMap<String, String>,
    names: Vec<String>,
}

impl Signs {
    /// As the configuration has them.
    pub fn of(config: &Config) -> Signs {
        let receiver = &config.receiver;
        Signs {
            hosts: receiver.heartbeat_alerts.clone(),
            names: receiver.heartbeat_alerts.keys().cloned().collect(),
        }
    }

    /// The names of the alerts.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The signs of life in the body of a webhook. A body that is none is told by who reads the
    /// rest of it.
    pub fn of_webhook(&self, body: &[u8], watch: &FleetMonitor) {
        if self.names.is_empty() {
            return;
        }
        if let Ok(alerts) = alert::relevant(body, &self.names) {
            self.beat(&alerts, watch);
        }
    }

    /// Each of these alerts is a beat of its host.
    pub fn beat(&self, alerts: &[Alert], watch: &FleetMonitor) {
        for host in alerts.iter().filter_map(|alert| self.hosts.get(&alert.name)) {
            watch.ingest_alert_heartbeat(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promised(receiver: &str, host: &str) -> (u64, u64) {
        let text = format!(
            "heartbeat: {{grace: 1s, interval: 1s}}\nhosts: {{prometheus: {{watch: true{host}}}}}\n\
             notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             receiver: {{heartbeat_alerts: {{Watchdog: prometheus}}{receiver}}}\n"
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap_or_else(|why| panic!("{why}"));
        let promise = promises(&config)["prometheus"];
        (promise.interval.as_secs(), promise.grace.as_secs())
    }

    #[test]
    fn the_common_grace_or_a_restarted_alertmanager_made_a_watchdog_overdue() {
        let fetched = ", poll_url: 'http://127.0.0.1:9093'";
        for (receiver, host, promise) in [
            ("", "", (14_400, 28_800)),
            ("", ", interval: 2m", (120, 600)),
            ("", ", interval: 2m, grace: 3m", (120, 180)),
            (fetched, "", (30, 300)),
            (fetched, ", interval: 10s", (30, 300)),
            (fetched, ", interval: 1h", (3_600, 7_200)),
            (fetched, ", grace: 20m", (30, 1_200)),
        ] {
            assert_eq!(promised(receiver, host), promise, "{receiver} {host}");
        }
    }
}
