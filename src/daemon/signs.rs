//! Alerts that are signs of life: a Watchdog that fires says that its Prometheus and Alertmanager
//! live.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backup::alert::{self, Alert};
use crate::config::Config;
use crate::heartbeat::watch::Watch;

/// How often an Alertmanager that sends repeats an alert that goes on, unless it was told
/// otherwise (`repeat_interval`); the repeat comes at the next `group_interval` after it.
const REPEAT: Duration = Duration::from_secs(4 * 3600);

/// By `alertname`, the host whose life it is a sign of.
#[derive(Debug, Default)]
pub struct Signs {
    hosts: BTreeMap<String, String>,
    names: Vec<String>,
    interval: Duration,
}

impl Signs {
    /// As the configuration has them. Where alerts are fetched, each answer is a sign of life.
    pub fn of(config: &Config) -> Signs {
        let receiver = &config.receiver;
        Signs {
            hosts: receiver.heartbeat_alerts.clone(),
            names: receiver.heartbeat_alerts.keys().cloned().collect(),
            interval: if receiver.poll_url.is_some() { receiver.poll_interval } else { REPEAT },
        }
    }

    /// The names of the alerts.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The signs of life in the body of a webhook. A body that is none is told by who reads the
    /// rest of it.
    pub fn of_webhook(&self, body: &[u8], watch: &Watch) {
        if self.names.is_empty() {
            return;
        }
        if let Ok(alerts) = alert::relevant(body, &self.names) {
            self.beat(&alerts, watch);
        }
    }

    /// Each of these alerts is a beat of its host.
    pub fn beat(&self, alerts: &[Alert], watch: &Watch) {
        for host in alerts.iter().filter_map(|alert| self.hosts.get(&alert.name)) {
            watch.hear_of(host, self.interval);
        }
    }
}
