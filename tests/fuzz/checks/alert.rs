//! Feeds bytes to the reading of alerts, as the webhook and the poller do: what is kept of them is
//! bounded, is in the lists, comes once, and is read again as it was.

use std::collections::BTreeSet;

use heartbeat::backup::alert::{Alert, AlertNames, RelevantAlerts, from_api, from_webhook};
use heartbeat::clock::Wall;
use serde_json::{Value, json};

const NOW: Wall = Wall(1_795_305_600_000);

fn names() -> AlertNames {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    AlertNames {
        backup: texts(&["NsBackupFailed", "NsBackupMissing", "BackupFailed", "Both"]),
        heartbeat: texts(&["Watchdog", "Both"]),
        plan_labels: texts(&["backup_id", "id"]),
    }
}

fn all(relevant: &RelevantAlerts) -> [(&Vec<Alert>, &'static str, bool); 4] {
    [
        (&relevant.backup, "firing", true),
        (&relevant.heartbeat, "firing", false),
        (&relevant.backup_resolved, "resolved", true),
        (&relevant.heartbeat_resolved, "resolved", false),
    ]
}

fn check_bounds(length: usize, relevant: &RelevantAlerts) {
    let names = names();
    let mut bytes = 0;
    for (alerts, status, is_backup) in all(relevant) {
        let listed = if is_backup { &names.backup } else { &names.heartbeat };
        let mut instances = BTreeSet::new();
        for alert in alerts {
            assert!(listed.contains(&alert.name), "{alert:?} is in no list");
            assert!(instances.insert(alert.instance()), "{status} twice: {alert:?}");
            assert!((1..=128).contains(&alert.fingerprint.len()));
            assert!(alert.labels.len() <= 64 + 1 + names.plan_labels.len());
            let texts = alert.labels.iter().flat_map(|(name, text)| [name, text]);
            assert!(texts.map(|text| text.chars().count()).all(|count| count <= 4096));
            let annotations = alert.annotations.iter().map(|(name, text)| name.len() + text.len());
            assert!(annotations.sum::<usize>() <= 6 * 1024 + length.min(4 * 4096));
            bytes += alert.size();
        }
    }
    // A byte that is no UTF-8 becomes three; an alert of both lists is there twice.
    assert!(bytes <= 8 * length + 1024, "{bytes} bytes are kept of {length}");
    assert!(relevant.unlisted.len() <= 20);
    assert!(relevant.unlisted.iter().all(|name| name.chars().count() <= 100));
}

/// The alert as an Alertmanager would send it.
fn written(alert: &Alert, status: Value) -> Value {
    json!({
        "status": status,
        "fingerprint": alert.fingerprint,
        "startsAt": alert.starts_at.map(|start| start.to_string()),
        "labels": alert.labels,
        "annotations": alert.annotations,
    })
}

/// The alerts of a list, without their order.
fn sorted(alerts: &[Alert]) -> Vec<&Alert> {
    let mut alerts: Vec<&Alert> = alerts.iter().collect();
    alerts.sort_by_key(|alert| alert.instance());
    alerts
}

fn check_same(before: &RelevantAlerts, after: &RelevantAlerts) {
    for ((before, ..), (after, ..)) in all(before).iter().zip(all(after)) {
        assert_eq!(sorted(before), sorted(after));
    }
}

fn check_webhook(mut relevant: RelevantAlerts) {
    let summary = relevant.backup.first().and_then(|alert| alert.annotations.get("summary"));
    if summary.is_some_and(|text| text.starts_with("the sender left out ")) {
        // What stands for alerts that the sender left out is made here, and is not sent.
        relevant.backup.remove(0);
    }
    let lists = all(&relevant);
    let of_list = |(alerts, status, _): &(&Vec<Alert>, &str, bool)| -> Vec<Value> {
        alerts.iter().map(|alert| written(alert, json!(status))).collect()
    };
    let alerts: Vec<Value> = lists.iter().flat_map(of_list).collect();
    let body = json!({ "alerts": alerts }).to_string();
    let again = from_webhook(body.as_bytes(), &names(), NOW).expect("it is JSON");
    check_same(&relevant, &again);
}

fn check_api(relevant: &RelevantAlerts) {
    assert!(relevant.backup_resolved.is_empty() && relevant.heartbeat_resolved.is_empty());
    let active = relevant.backup.iter().map(|alert| written(alert, json!({"state": "active"})));
    // An alert of both lists that is not active is a heartbeat only.
    let others = relevant.heartbeat.iter().filter(|alert| !relevant.backup.contains(alert));
    let others = others.map(|alert| written(alert, json!({"state": "suppressed"})));
    let body = Value::from_iter(active.chain(others)).to_string();
    let again = from_api(body.as_bytes(), &names(), NOW).expect("it is JSON");
    check_same(relevant, &again);
}

/// Checks one input.
pub fn run(bytes: &[u8]) {
    if let Ok(relevant) = from_webhook(bytes, &names(), NOW) {
        check_bounds(bytes.len(), &relevant);
        check_webhook(relevant);
    }
    if let Ok(relevant) = from_api(bytes, &names(), NOW) {
        check_bounds(bytes.len(), &relevant);
        check_api(&relevant);
    }
}
