//! From a configuration to what each feature is configured with; and the alerts that count as
//! heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::warn;

use super::local_agent;
use crate::backup::alert::{Alert, AlertNames};
use crate::backup::plan_reporter::PipelineSettings;
use crate::btree::InsertAll;
use crate::config::Config;
use crate::heartbeat::event_limits::Load;
use crate::heartbeat::monitor::Monitor;
use crate::heartbeat::renotify::Renotify;
use crate::heartbeat::settings::{Expectation, FleetConfig, HostSettings};
use crate::host_pattern::ByPattern;
use crate::http::{Credentials, PublicHosts};
use crate::notify::courier::Courier;
use crate::notify::outbox::Room;
use crate::notify::routing::{self, Routes};
use crate::notify::settings::NotifySettings;
use crate::thread::lock;
use crate::view::{HostLabels, HostView};

/// The rules of the monitor.
pub fn fleet_config(config: &Config) -> FleetConfig {
    let own = local_agent::expectation(config);
    let mut hosts = config.hosts.clone();
    // Hosts that differ in nothing else share what the monitor knows of them.
    hosts.values_mut().for_each(|host| host.labels = HostLabels::default());
    let mut depends_on = config.depends_on.clone();
    if let Some((host, _)) = &own
        && !hosts.contains_key(host)
    {
        // This machine is a host from the start, whichever pattern it matches.
        let settings = config.patterns.find(host).cloned().unwrap_or_default();
        let parents = config.patterns.pattern_of(host).and_then(|pattern| depends_on.get(pattern));
        if let Some(parents) = parents.cloned() {
            depends_on.insert(host.clone(), parents);
        }
        hosts.insert(host.clone(), settings);
    }
    FleetConfig {
        settings: config.heartbeat.clone(),
        hosts,
        patterns: config.patterns.clone(),
        threshold_sets: config.threshold_sets.clone(),
        renotify: Renotify { interval: config.renotify_interval, backoff: config.renotify_backoff },
        default_channels: config.default_channels.clone(),
        alert_heartbeats: expectations(config),
        local_host: own,
        max_silence: config.calm.longest_host_silence,
        depends_on,
        storm: config.calm.storm,
    }
}

/// What the HTTP server asks for and shows.
pub fn credentials(config: &Config) -> Credentials {
    let receiver = &config.receiver;
    let certificate = receiver.tls.as_ref().map(|tls| Arc::clone(&tls.certificate));
    let trusted_proxies = receiver.trusted_proxies.clone();
    let is_public = |host: &HostSettings| {
        host.labels.groups.iter().any(|group| receiver.public_groups.contains(group))
    };
    let patterns = config.patterns.map(|_, host| is_public(host));
    let by_pattern = |name: &str| patterns.find(name).copied().unwrap_or_default();
    let (public, others): (Vec<_>, Vec<_>) =
        config.hosts.iter().partition(|(_, host)| is_public(host));
    let others = others.into_iter().filter(|(name, _)| by_pattern(name));
    let public = PublicHosts {
        groups: receiver.public_groups.clone(),
        hosts: public.into_iter().map(|(name, _)| name.clone()).collect(),
        others: others.map(|(name, _)| name.clone()).collect(),
        patterns,
    };
    Credentials {
        token: receiver.token.clone(),
        certificate,
        trusted_proxies,
        public: Arc::new(public),
    }
}

/// What the configuration says about hosts for people.
#[derive(Debug, Default)]
pub struct LabelledHosts {
    /// By name, in order.
    listed: Vec<(String, HostLabels)>,
    patterns: ByPattern<HostLabels>,
}

impl LabelledHosts {
    /// Those of `hosts`.
    pub fn from_config(config: &Config) -> LabelledHosts {
        let patterns = config.patterns.map(|_, host| host.labels.clone());
        // What a pattern says is not for a host that is listed without labels.
        let is_needed = |(name, host): &(&String, &HostSettings)| {
            host.labels != HostLabels::default() || patterns.position(name).is_some()
        };
        let listed = config.hosts.iter().filter(is_needed);
        let listed = listed.map(|(name, host)| (name.clone(), host.labels.clone())).collect();
        LabelledHosts { listed, patterns }
    }

    /// Adds what is said about a host.
    pub fn label(&self, host: &mut HostView) {
        let found = self.listed.binary_search_by(|(name, _)| name.as_str().cmp(&host.name));
        let listed = found.ok().map(|index| &self.listed[index].1);
        if let Some(labels) = listed.or_else(|| self.patterns.find(&host.name)) {
            let HostLabels { note, link, groups } = labels.clone();
            (host.note, host.link, host.groups) = (note, link, groups);
        }
    }
}

/// Which alerts count.
pub fn alert_names(config: &Config) -> AlertNames {
    AlertNames {
        backup: config.receiver.alert_names.clone(),
        heartbeat: config.receiver.heartbeat_alerts.keys().cloned().collect(),
        plan_labels: config.correlator.backup_id_labels.clone(),
    }
}

/// The settings of what looks at backup plans and tells of them.
pub fn pipeline_settings(config: &Config) -> PipelineSettings {
    PipelineSettings {
        alert_names: config.receiver.alert_names.clone(),
        correlator: config.correlator.clone(),
        repo_check: config.repo_check.clone(),
        telling: config.telling.clone(),
    }
}

/// The channels and routes of the courier.
pub fn notify_settings(config: &Config) -> NotifySettings {
    let route = |host: &HostSettings| {
        let channels = host.notification_channels.clone();
        routing::HostRoute { watch: host.watch, channels }
    };
    let hosts = config.hosts.iter().map(|(name, host)| (name.clone(), route(host)));
    let channels = config.channels.iter().map(|(name, channel)| {
        (name.clone(), routing::ChannelRoute { min_level: channel.min_level })
    });
    NotifySettings {
        routes: Routes {
            channels: channels.insert_all(),
            default: config.default_channels.clone(),
            hosts: hosts.insert_all(),
            patterns: config.patterns.map(|_, host| route(host)),
            backups: config.notification_channels_for_backups().to_vec(),
        },
        channels: config
            .channels
            .iter()
            .map(|(name, channel)| (name.clone(), Arc::new(channel.clone())))
            .insert_all::<BTreeMap<_, _>>(),
        calm: config.calm.clone(),
        overdue_renotify: Some(config.heartbeat.renotify_interval).filter(|time| !time.is_zero()),
        public_url: config.receiver.public_url.clone(),
        retry_policy: None,
    }
}

/// What waits already when a datagram of a host comes in.
pub fn load(courier: &Courier, host: &str, configured: bool) -> Load {
    if courier.is_backlogged() {
        return Load::DiskBusy;
    }
    match courier.room(host, configured) {
        Room::Free => Load::Free,
        Room::Full => Load::OutboxFull,
        Room::ShareUsed => Load::ShareUsed,
    }
}

/// How often an Alertmanager that sends repeats an alert that goes on, unless `hosts` says otherwise:
/// `repeat_interval` is 12 hours in the most common configuration (kube-prometheus), and 4 hours where
/// none is set. The repeat comes at the next `group_interval` after it.
const REPEAT: Duration = Duration::from_secs(12 * 3600);
/// The grace of a repeat that nothing is known about.
const REPEAT_GRACE: Duration = Duration::from_secs(2 * 3600);
/// The least grace where alerts are sent: twice the default `group_interval`.
const MIN_GRACE_SENT: Duration = Duration::from_secs(10 * 60);
/// The least grace where alerts are polled: an Alertmanager that was restarted knows its alerts again
/// when Prometheus has sent them again.
const MIN_GRACE_FETCHED: Duration = Duration::from_secs(5 * 60);

/// By host, how often an alert may be expected that counts as its heartbeat. It holds for the
/// connection `alertmanager` of that host. The host's own `interval` and `grace` go first, except that
/// the interval is not shorter than that of polling; those of the section `heartbeat` are for hosts
/// that beat themselves and do not count.
fn expectations(config: &Config) -> BTreeMap<String, Expectation> {
    let receiver = &config.receiver;
    let expectation = |name: &String| {
        let host = config.host(name);
        let own = host.and_then(|host| host.interval);
        let (interval, min_grace) = match receiver.poll_url {
            Some(_) => {
                let polled = receiver.poll_interval;
                (own.map_or(polled, |own| own.max(polled)), MIN_GRACE_FETCHED)
            }
            None => (own.unwrap_or(REPEAT), MIN_GRACE_SENT),
        };
        let default = match (own, &receiver.poll_url) {
            (None, None) => REPEAT_GRACE,
            _ => interval.saturating_mul(2).max(min_grace),
        };
        let grace = host.and_then(|host| host.grace).unwrap_or(default);
        (name.clone(), Expectation { interval, grace })
    };
    receiver.heartbeat_alerts.values().map(expectation).insert_all()
}

/// Alerts that count as heartbeats: a Watchdog that fires proves that its Prometheus and its
/// Alertmanager are alive.
#[derive(Debug, Default)]
pub struct HeartbeatAlerts {
    /// By `alertname`, the host that it is a heartbeat of.
    hosts: BTreeMap<String, String>,
    names: Vec<String>,
}

impl HeartbeatAlerts {
    /// Those of `receiver.heartbeat_alerts`.
    pub fn from_config(config: &Config) -> HeartbeatAlerts {
        let receiver = &config.receiver;
        HeartbeatAlerts {
            hosts: receiver.heartbeat_alerts.clone(),
            names: receiver.heartbeat_alerts.keys().cloned().collect(),
        }
    }

    /// The names of the alerts.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Passes alerts that fire on to the monitor as heartbeats of their hosts, and the end of those
    /// that are resolved. A host of which one of several still fires lives.
    pub fn ingest(&self, firing: &[Alert], resolved: &[Alert], monitor: &Monitor) {
        let hosts = |alerts: &[Alert]| -> BTreeSet<&String> {
            alerts.iter().filter_map(|alert| self.hosts.get(&alert.name)).collect()
        };
        let (alive, ended) = (hosts(firing), hosts(resolved));
        alive.iter().for_each(|host| monitor.ingest_alert_heartbeat(host));
        for host in ended.difference(&alive) {
            warn!(
                "the sign of life of {host} is resolved: {host} is overdue soon if it stays away"
            );
            monitor.resolve_alert_heartbeat(host);
        }
    }
}

/// The value of the configuration in use: shared by threads, replaced by a reload.
#[derive(Debug, Default)]
pub struct Current<T>(Mutex<Arc<T>>);

impl<T> Current<T> {
    /// With the value of the first configuration.
    pub fn new(value: T) -> Current<T> {
        Current(Mutex::new(Arc::new(value)))
    }

    /// The value at present.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&lock(&self.0))
    }

    /// Replaces the value; threads that have the old one go on with it.
    pub fn replace(&self, value: T) {
        *lock(&self.0) = Arc::new(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(receiver: &str, host: &str) -> (u64, u64) {
        let text = format!(
            "heartbeat: {{grace: 1s, interval: 1s}}\nhosts: {{prometheus: {{watch: true{host}}}}}\n\
             notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             receiver: {{heartbeat_alerts: {{Watchdog: prometheus}}{receiver}}}\n"
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap_or_else(|why| panic!("{why}"));
        let expected = expectations(&config)["prometheus"];
        (expected.interval.as_secs(), expected.grace.as_secs())
    }

    #[test]
    fn the_common_grace_or_a_restarted_alertmanager_made_a_watchdog_overdue() {
        let fetched = ", poll_url: 'http://127.0.0.1:9093'";
        for (receiver, host, promise) in [
            ("", "", (43_200, 7_200)),
            ("", ", grace: 20m", (43_200, 1_200)),
            ("", ", interval: 2m", (120, 600)),
            ("", ", interval: 2m, grace: 3m", (120, 180)),
            (fetched, "", (30, 300)),
            (fetched, ", interval: 10s", (30, 300)),
            (fetched, ", interval: 1h", (3_600, 7_200)),
            (fetched, ", grace: 20m", (30, 1_200)),
        ] {
            assert_eq!(expected(receiver, host), promise, "{receiver} {host}");
        }
    }
}
