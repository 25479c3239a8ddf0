//! `/metrics`: Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Pure.

use std::fmt::{Display, Write as _};
use std::io::Read;
use std::sync::Arc;

use super::refusals::RefusedAlerts;
use super::response::GeneratedBody;
use super::service::{ChannelMetrics, Daemon, MetricsSnapshot};
use crate::clock::Wall;
use crate::escape::is_unseen;
use crate::event::{Level, LimitUse};
use crate::version::VERSION;
use crate::view::cluster::{ClusterView, NodeState};
use crate::view::{DyndnsState, DyndnsView, HostState, HostView};

/// The `Content-Type` of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How many hosts are asked for at a time.
pub const HOSTS_AT_ONCE: usize = 200;

type MetricFamily = fn(&str, &HostView, &mut String);

/// The families with one line or more per host: name, help, how a host is written.
const PER_HOST: [(&str, &str, MetricFamily); 5] = [
    ("hbd_connection_up", "Whether the beats of the connection come.", connections_up),
    (
        "hbd_connection_last_seen_timestamp_seconds",
        "When the connection was last heard.",
        connections_last_seen,
    ),
    (
        "hbd_connection_old_key",
        "1 for a connection that still signs with the previous key.",
        connections_old_key,
    ),
    (
        "hbd_threshold_level",
        "0 is OK, 1 WARNING, 2 CRITICAL; of metrics that are still sent.",
        threshold_levels,
    ),
    ("hbd_metric_stale", "1 for a metric that its host no longer sends.", stale_metrics),
];

/// All metrics, generated while they are sent. Lines of one family must stay together, so all hosts
/// are asked for once for each family.
pub fn body(daemon: Arc<dyn Daemon>, refused: Arc<RefusedAlerts>) -> impl Read + Send {
    let mut families = PER_HOST.into_iter();
    let mut current: Option<(&str, MetricFamily)> = None;
    let mut from = 0;
    let mut begun = false;
    GeneratedBody::new(move |piece| {
        let mut text = String::new();
        if !std::mem::replace(&mut begun, true) {
            snapshot(&daemon.metrics(), &mut text);
            refusals(&refused, &mut text);
            names(&daemon.dyndns(), &mut text);
            daemon.cluster().iter().for_each(|view| cluster(view, &mut text));
        } else if let Some((name, write)) = current {
            let hosts = daemon.hosts(from, HOSTS_AT_ONCE);
            from += hosts.len();
            hosts.iter().for_each(|host| write(name, host, &mut text));
            if hosts.is_empty() {
                current = None;
            }
        } else if let Some((name, help, write)) = families.next() {
            head(&mut text, name, "gauge", help);
            (current, from) = (Some((name, write)), 0);
        } else {
            return false;
        }
        piece.extend_from_slice(text.as_bytes());
        true
    })
}

/// The metrics of a node that does not lead its cluster.
pub fn standby(view: &ClusterView, last_reload_refused: bool) -> String {
    let mut text = String::new();
    build_info(&mut text);
    cluster(view, &mut text);
    single(&mut text, RELOAD_SUCCESSFUL, u8::from(!last_reload_refused));
    text
}

fn cluster(view: &ClusterView, text: &mut String) {
    let leads = u8::from(view.role == NodeState::Leader);
    single(text, ("hbd_cluster_leader", "gauge", "Whether this node leads."), leads);
    let help = "How often the lead has changed hands.";
    single(text, ("hbd_cluster_epoch", "gauge", help), view.epoch);
    let help = "How often this node took over.";
    single(text, ("hbd_cluster_takeovers_total", "counter", help), view.takeovers);
    let help = "Connections of hosts of which this node knows when they were heard last.";
    single(text, ("hbd_cluster_connections", "gauge", help), view.connections);
    let redis_up = u8::from(view.redis_trouble.is_none());
    single(text, ("hbd_cluster_redis_up", "gauge", "Whether Redis answers."), redis_up);
    let name = "hbd_cluster_node_last_sign_seconds";
    head(text, name, "gauge", "How long ago a node gave its last sign.");
    for node in &view.nodes {
        sample(text, name, &[("node", &node.name)], node.last_sign_seconds);
    }
}

fn build_info(text: &mut String) {
    head(text, "hbd_build_info", "gauge", "The version that runs.");
    sample(text, "hbd_build_info", &[("version", VERSION)], 1);
}

/// Everything that is not per host.
fn snapshot(snapshot: &MetricsSnapshot, text: &mut String) {
    build_info(text);
    single(
        text,
        ("hbd_datagrams_accepted_total", "counter", "Datagrams that were believed."),
        snapshot.datagrams_accepted,
    );
    single(
        text,
        (
            "hbd_datagram_metrics_left_out_total",
            "counter",
            "Metrics in accepted datagrams that cannot be used.",
        ),
        snapshot.metrics_left_out,
    );
    head(text, "hbd_datagrams_rejected_total", "counter", "Datagrams that were dropped.");
    for (reason, count) in &snapshot.datagrams_rejected {
        sample(text, "hbd_datagrams_rejected_total", &[("reason", reason)], count);
    }
    limits(&snapshot.limits, text);
    channels(&snapshot.channels, text);
    backups(snapshot, text);
    calm(snapshot, text);
    reloads(snapshot, text);
}

fn limits(limits: &[LimitUse], text: &mut String) {
    type LimitValue = fn(&LimitUse) -> u64;
    let families: [(&str, &str, &str, LimitValue); 3] = [
        ("hbd_limit", "gauge", "How much of something is kept at most.", |l| l.most as u64),
        ("hbd_limit_used", "gauge", "How much of it is kept.", |l| l.used as u64),
        ("hbd_limit_reached_total", "counter", "What was not kept.", |l| l.reached),
    ];
    for (name, kind, help, value) in families {
        head(text, name, kind, help);
        for limit in limits {
            sample(text, name, &[("limit", limit.name)], value(limit));
        }
    }
}

fn calm(snapshot: &MetricsSnapshot, text: &mut String) {
    single(text, ("hbd_silences", "gauge", "Silences that are running."), snapshot.silences);
    let name = "hbd_held";
    head(text, name, "gauge", "Alarms and messages that are held back, by the kind of reason.");
    for (reason, count) in &snapshot.held {
        sample(text, name, &[("reason", reason)], count);
    }
    single(
        text,
        ("hbd_acknowledged", "gauge", "Open alarms that are acknowledged."),
        snapshot.acknowledged,
    );
}

fn channels(channels: &[ChannelMetrics], text: &mut String) {
    type ChannelValue = fn(&ChannelMetrics) -> f64;
    let families: [(&str, &str, &str, ChannelValue); 4] = [
        ("hbd_notifications_sent_total", "counter", "Deliveries that arrived.", |c| c.sent as f64),
        ("hbd_outbox_deliveries", "gauge", "Deliveries that wait.", |c| c.deliveries as f64),
        (
            "hbd_outbox_oldest_age_seconds",
            "gauge",
            "How long the oldest waiting delivery has waited.",
            |c| c.oldest_age.as_secs_f64(),
        ),
        ("hbd_channel_up", "gauge", "Whether the channel takes messages.", |c| f64::from(c.up)),
    ];
    for (name, kind, help, value) in families {
        head(text, name, kind, help);
        for channel in channels {
            sample(text, name, &[("channel", &channel.name)], value(channel));
        }
    }
    let name = "hbd_notifications_failed_total";
    head(text, name, "counter", "Attempts that did not arrive.");
    for channel in channels {
        for (reason, count) in &channel.failed {
            sample(text, name, &[("channel", &channel.name), ("reason", reason)], count);
        }
    }
}

fn backups(snapshot: &MetricsSnapshot, text: &mut String) {
    single(
        text,
        ("hbd_alerts_received_total", "counter", "Alert instances that came in, repeats too."),
        snapshot.alerts_received,
    );
    single(text, ("hbd_pipelines", "gauge", "Pipelines that run or wait."), snapshot.pipelines);
    let name = "hbd_backup_outcomes_total";
    head(text, name, "counter", "Reports about backup plans by outcome.");
    let outcomes = &snapshot.backup_outcomes;
    for (outcome, count) in [
        ("SUCCESS", outcomes.success),
        ("PARTIAL", outcomes.partial),
        ("FAILED", outcomes.failed),
        ("MISSING", outcomes.missing),
        ("RUNNING", outcomes.running),
        ("UNKNOWN", outcomes.unknown),
    ] {
        sample(text, name, &[("outcome", outcome)], count);
    }
}

fn refusals(refused: &RefusedAlerts, text: &mut String) {
    let name = "hbd_alerts_refused_total";
    head(text, name, "counter", "Webhooks that were refused: their alerts may not come again.");
    for (reason, count) in refused.counts() {
        sample(text, name, &[("reason", reason)], count);
    }
}

const RELOAD_SUCCESSFUL: (&str, &str, &str) = (
    "hbd_config_last_reload_successful",
    "gauge",
    "Whether the configuration was taken when it was last loaded.",
);

fn reloads(snapshot: &MetricsSnapshot, text: &mut String) {
    single(text, RELOAD_SUCCESSFUL, u8::from(!snapshot.last_reload_refused));
    single(
        text,
        (
            "hbd_config_last_reload_success_timestamp_seconds",
            "gauge",
            "When the configuration was last taken.",
        ),
        snapshot.last_reload_success.map_or(0.0, unix_seconds),
    );
    if let Some(expiry) = snapshot.certificate_expiry {
        single(
            text,
            (
                "hbd_certificate_expiry_timestamp_seconds",
                "gauge",
                "Until when the certificate of receiver.tls is valid.",
            ),
            unix_seconds(expiry),
        );
    }
}

/// Nothing where no names are kept.
fn names(names: &[DyndnsView], text: &mut String) {
    if names.is_empty() {
        return;
    }
    let family = "hbd_dyndns_up";
    head(text, family, "gauge", "Whether the name in the DNS can be kept.");
    for view in names {
        let fails = matches!(view.state, DyndnsState::Failing | DyndnsState::Refused);
        sample(text, family, &[("host", &view.host), ("name", &view.name)], u8::from(!fails));
    }
    let family = "hbd_dyndns_last_update_timestamp_seconds";
    head(text, family, "gauge", "When the record was last written.");
    for view in names {
        for record in &view.records {
            let labels = [("host", &*view.host), ("name", &*view.name), ("type", record.record)];
            if let Some(time) = record.last_update {
                sample(text, family, &labels, unix_seconds(time));
            }
        }
    }
}

fn connections_up(name: &str, host: &HostView, text: &mut String) {
    for connection in &host.connections {
        let labels = [("host", host.name.as_str()), ("connection", &connection.name)];
        sample(text, name, &labels, u8::from(connection.state == HostState::Up));
    }
}

fn connections_last_seen(name: &str, host: &HostView, text: &mut String) {
    for connection in &host.connections {
        if let Some(time) = connection.last_seen {
            let labels = [("host", host.name.as_str()), ("connection", &connection.name)];
            sample(text, name, &labels, unix_seconds(time));
        }
    }
}

fn connections_old_key(name: &str, host: &HostView, text: &mut String) {
    for connection in host.connections.iter().filter(|connection| connection.old_key) {
        sample(text, name, &[("host", &host.name), ("connection", &connection.name)], 1);
    }
}

fn stale_metrics(name: &str, host: &HostView, text: &mut String) {
    for metric in host.metrics.iter().filter(|metric| metric.stale) {
        sample(text, name, &[("host", &host.name), ("metric", &metric.path)], 1);
    }
}

fn threshold_levels(name: &str, host: &HostView, text: &mut String) {
    // The level of one that is no longer sent is not known: Prometheus takes a series that ends
    // as such, and an old value for a true one.
    for metric in host.metrics.iter().filter(|metric| !metric.stale) {
        let number = match metric.level {
            Some(Level::Ok | Level::Info) => 0,
            Some(Level::Warning) => 1,
            Some(Level::Critical) => 2,
            None => continue,
        };
        let labels = [("host", host.name.as_str()), ("metric", &metric.path)];
        sample(text, name, &labels, number);
    }
}

fn unix_seconds(time: Wall) -> f64 {
    time.0 as f64 / 1000.0
}

fn single(text: &mut String, (name, kind, help): (&str, &str, &str), value: impl Display) {
    head(text, name, kind, help);
    sample(text, name, &[], value);
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    text.push_str(name);
    for (index, (label, content)) in labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"", if index == 0 { '{' } else { ',' });
        escape(text, content);
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

fn escape(text: &mut String, content: &str) {
    for letter in content.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            // Told apart, unlike where people read them: two series of one name spoil each other.
            other if is_unseen(other) => {
                let _ = write!(text, "\\\\u{{{:x}}}", u32::from(other));
            }
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use super::super::calm_request::CalmCommand;
    use super::super::query::NotifyRequest;
    use super::super::service::{
        CalmRefusal, Ingest, IngestResult, ReloadResult, SendError, SendJob,
    };
    use std::time::Duration;

    use super::*;
    use crate::event::EventId;
    use crate::view::calm::{CalmAnswer, HeldListView, SilencesView};
    use crate::view::query::{EventQuery, NotificationQuery, SeriesQuery};
    use crate::view::{
        AlertView, AvailabilityView, ChannelView, ConnectionView, EventView, MetricView,
        NotificationView, PlanView, SeriesView,
    };

    struct Hosts(usize);

    fn host(name: String) -> HostView {
        HostView {
            connections: vec![ConnectionView {
                since: None,
                name: "ipv4".into(),
                state: HostState::Up,
                last_seen: Some(Wall(1_795_291_928_667)),
                interval: Duration::from_secs(10),
                address: None,
                old_key: true,
            }],
            metrics: [("a", Some(Level::Critical)), ("b", None), ("gone", Some(Level::Critical))]
                .map(|(path, level)| MetricView {
                    path: path.into(),
                    value: 1.0,
                    level,
                    since: None,
                    limit: None,
                    text: None,
                    at: None,
                    stale: path == "gone",
                })
                .into(),
            ..HostView::named(&name)
        }
    }

    impl Daemon for Hosts {
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }
        fn hosts(&self, from: usize, count: usize) -> Vec<HostView> {
            (from..self.0.min(from + count)).map(|n| host(format!("h{n}"))).collect()
        }
        fn host(&self, _: &str) -> Option<HostView> {
            None
        }
        fn ingest_heartbeat(&self, _: &[u8], _: IpAddr) -> Ingest {
            Ingest::Done(IngestResult::Stored)
        }
        fn ingest_alert(&self, _: &[u8]) -> Ingest {
            Ingest::Done(IngestResult::Stored)
        }
        fn channels(&self) -> Vec<ChannelView> {
            Vec::new()
        }
        fn notifications(
            &self,
            _: &NotificationQuery,
        ) -> Result<(Vec<NotificationView>, Option<u64>), String> {
            Ok(Default::default())
        }
        fn reload(&self) -> ReloadResult {
            ReloadResult::NotTried("nobody asks for it here".into())
        }

        fn availabilities(&self, _: &[&str]) -> Result<Vec<Option<AvailabilityView>>, String> {
            Ok(Vec::new())
        }
        fn series(&self, _: &str, _: &SeriesQuery) -> Result<Option<Vec<SeriesView>>, String> {
            Ok(None)
        }
        fn events(&self, _: &EventQuery) -> Result<(Vec<EventView>, Option<EventId>), String> {
            Ok(Default::default())
        }
        fn alerts(&self) -> Result<Vec<AlertView>, String> {
            Ok(Vec::new())
        }
        fn plans(&self) -> Result<Vec<PlanView>, String> {
            Ok(Vec::new())
        }
        fn notify(&self, _: NotifyRequest) -> Result<SendJob, SendError> {
            Err(SendError::Busy(String::new()))
        }
        fn forget(&self, _: &str, _: Option<&str>) -> Result<(), String> {
            Ok(())
        }
        fn forget_plan(&self, _: &str) -> Option<String> {
            None
        }
        fn silences(&self) -> Result<SilencesView, String> {
            Err(String::new())
        }
        fn held(&self, _: Option<&str>) -> Result<HeldListView, String> {
            Err(String::new())
        }
        fn calm(&self, _: CalmCommand) -> Result<CalmAnswer, CalmRefusal> {
            Err(CalmRefusal::NotFound(String::new()))
        }
        fn metrics(&self) -> MetricsSnapshot {
            MetricsSnapshot {
                datagrams_rejected: [("malformed".into(), 3)].into(),
                metrics_left_out: 4,
                held: vec![("silence", 2), ("window", 0)],
                channels: vec![ChannelMetrics {
                    name: "a\\b\"c\nd".into(),
                    failed: [("unreachable".into(), 0)].into(),
                    oldest_age: Duration::from_millis(1500),
                    up: true,
                    ..Default::default()
                }],
                ..Default::default()
            }
        }
    }

    fn scrape(hosts: usize) -> String {
        let mut text = String::new();
        body(Arc::new(Hosts(hosts)), Arc::default()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn every_family_of_the_contract_is_there_once() {
        let text = scrape(1);
        for name in [
            "hbd_build_info",
            "hbd_datagrams_accepted_total",
            "hbd_datagrams_rejected_total",
            "hbd_connection_up",
            "hbd_connection_last_seen_timestamp_seconds",
            "hbd_threshold_level",
            "hbd_notifications_sent_total",
            "hbd_notifications_failed_total",
            "hbd_outbox_deliveries",
            "hbd_outbox_oldest_age_seconds",
            "hbd_channel_up",
            "hbd_alerts_received_total",
            "hbd_alerts_refused_total",
            "hbd_pipelines",
            "hbd_backup_outcomes_total",
            "hbd_silences",
            "hbd_held",
            "hbd_acknowledged",
            "hbd_config_last_reload_successful",
            "hbd_config_last_reload_success_timestamp_seconds",
        ] {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
            assert!(
                text.lines().any(|line| line.starts_with(&format!("{name}{{"))
                    || line.starts_with(&format!("{name} "))),
                "{name}"
            );
        }
    }

    #[test]
    fn samples_are_printed_as_prometheus_reads_them() {
        let text = scrape(1);
        for line in [
            "hbd_datagrams_rejected_total{reason=\"malformed\"} 3",
            "hbd_datagram_metrics_left_out_total 4",
            "hbd_connection_up{host=\"h0\",connection=\"ipv4\"} 1",
            "hbd_connection_last_seen_timestamp_seconds{host=\"h0\",connection=\"ipv4\"} 1795291928.667",
            "hbd_connection_old_key{host=\"h0\",connection=\"ipv4\"} 1",
            "hbd_threshold_level{host=\"h0\",metric=\"a\"} 2",
            "hbd_metric_stale{host=\"h0\",metric=\"gone\"} 1",
            "hbd_outbox_oldest_age_seconds{channel=\"a\\\\b\\\"c\\nd\"} 1.5",
            "hbd_backup_outcomes_total{outcome=\"UNKNOWN\"} 0",
            "hbd_held{reason=\"silence\"} 2",
            "hbd_config_last_reload_successful 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("metric=\"b\""), "a metric without a threshold has no level");
        assert_eq!(text.matches("metric=\"gone\"").count(), 1, "an old level is no level");
    }

    #[test]
    fn families_stay_together_over_many_chunks() {
        let text = scrape(450);
        let mut seen = HashSet::new();
        let mut last = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(name == last || seen.insert(name), "{name} is in two places");
            last = name;
        }
        assert_eq!(text.matches("hbd_connection_up{").count(), 450);
        assert_eq!(text.matches("hbd_threshold_level{").count(), 450);
    }
}
