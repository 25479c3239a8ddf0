//! Parses the alerts of an Alertmanager, from its webhook (version 4) and its API (v2): strict about the
//! structure, lenient about what is in it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{alert_start, annotations, lenient_json};
use crate::clock::Wall;

/// How many labels of an alert are kept beyond those that are needed, and how many characters of each:
/// an alert is stored until it is reported.
const MAX_LABELS: usize = 64;
const MAX_LABEL_CHARS: usize = 4096;
/// How many names of alerts that are in no list are told of one delivery, and how much of each.
const MAX_UNLISTED: usize = 20;
const MAX_UNLISTED_CHARS: usize = 100;

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its `alertname`.
    pub name: String,
    /// As Alertmanager gave it, else a hash of the labels.
    pub fingerprint: String,
    /// Since when it fires, where the delivery says so without a doubt.
    pub starts_at: Option<Wall>,
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// Identifies the alert: fingerprint, start and status. Another delivery of it, by webhook or by
    /// API, has the same. Those of one alert whose start cannot be read have the same, too, until it
    /// is said to be resolved.
    pub fn instance(&self) -> String {
        let start = self.starts_at.map_or(0, |start| start.0);
        format!("{} {start} firing", self.fingerprint)
    }

    /// The instance that it is where its start cannot be read.
    pub fn instance_without_start(&self) -> String {
        format!("{} 0 firing", self.fingerprint)
    }

    /// What is quoted of it in a report: of its annotations those that were written for people.
    pub fn quoted(&self) -> Vec<&str> {
        annotations::quoted(&self.annotations)
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let texts = |texts: &BTreeMap<String, String>| -> usize {
            texts.iter().map(|(name, text)| name.len() + text.len()).sum()
        };
        self.name.len() + self.fingerprint.len() + texts(&self.labels) + texts(&self.annotations)
    }

    /// The id of the plan that it is about: the value of the first of these labels that it has.
    pub fn plan_id(&self, labels: &[String]) -> Option<&str> {
        labels
            .iter()
            .filter_map(|label| self.labels.get(label))
            .map(|id| id.trim())
            .find(|id| !id.is_empty())
    }
}

/// Which alerts count, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertNames {
    /// Alerts about backups.
    pub backup: Vec<String>,
    /// Alerts that are heartbeats of a host while they fire.
    pub heartbeat: Vec<String>,
    /// The labels that may hold the id of a plan: kept, however many others there are.
    pub plan_labels: Vec<String>,
}

/// The alerts of a delivery that have one of these names, each instance once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelevantAlerts {
    /// The firing alerts about backups; first of all one that stands for those that the sender left out.
    pub backup: Vec<Alert>,
    /// The firing alerts that are heartbeats. From the API also those that are silenced or inhibited:
    /// their sender lives.
    pub heartbeat: Vec<Alert>,
    /// Alerts about backups that no longer fire. That says nothing about the backup.
    pub backup_resolved: Vec<Alert>,
    /// Heartbeats that no longer fire: their sender has not heard of them.
    pub heartbeat_resolved: Vec<Alert>,
    /// Names of firing alerts that seem to be about backups and are in no list.
    pub unlisted: BTreeSet<String>,
}

/// What a delivery says of an alert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AlertState {
    Firing,
    /// It fires, and is silenced or inhibited.
    Suppressed,
    Resolved,
}

/// The alerts in the body of a webhook (version 4).
///
/// # Errors
/// A sentence for the 400 when the body is no JSON object.
pub fn from_webhook(body: &[u8], names: &AlertNames, now: Wall) -> Result<RelevantAlerts, String> {
    let Value::Object(mut body) = lenient_json::parse(body)? else {
        return Err("the body must be a JSON object".into());
    };
    let Some(Value::Array(alerts)) = body.remove("alerts") else {
        return Ok(RelevantAlerts::default());
    };
    let with_state = |alert: Value| {
        let status = alert.as_object()?.get("status").and_then(Value::as_str)?;
        let state = if status.eq_ignore_ascii_case("firing") {
            AlertState::Firing
        } else if status.eq_ignore_ascii_case("resolved") {
            AlertState::Resolved
        } else {
            return None;
        };
        Some((alert, state))
    };
    let mut relevant = select(alerts.into_iter().filter_map(with_state), names, now);
    if let Some(left_out) = left_out(&mut body, &relevant) {
        relevant.backup.insert(0, left_out);
    }
    Ok(relevant)
}

/// The alerts in an answer to `GET /api/v2/alerts`. A backup alert that is silenced or inhibited is
/// left out.
///
/// # Errors
/// A sentence when the body is no JSON array.
pub fn from_api(body: &[u8], names: &AlertNames, now: Wall) -> Result<RelevantAlerts, String> {
    let Value::Array(alerts) = lenient_json::parse(body)? else {
        return Err("the body must be a JSON array".into());
    };
    let active = |alert: &Map<String, Value>| {
        let status = alert.get("status").and_then(Value::as_object);
        status.and_then(|status| status.get("state")).and_then(Value::as_str) == Some("active")
    };
    let with_state = |alert: Value| {
        let is_active = alert.as_object().is_some_and(active);
        (alert, if is_active { AlertState::Firing } else { AlertState::Suppressed })
    };
    Ok(select(alerts.into_iter().map(with_state), names, now))
}

/// Those that have one of the names, each instance once; of backup alerts none that is suppressed.
fn select(
    alerts: impl Iterator<Item = (Value, AlertState)>,
    names: &AlertNames,
    now: Wall,
) -> RelevantAlerts {
    let mut relevant = RelevantAlerts::default();
    let mut seen = BTreeSet::new();
    for (alert, state) in alerts {
        let Some(alert) = parse_alert(alert, names, now) else { continue };
        if !seen.insert((state, alert.instance())) {
            continue;
        }
        let is_backup = names.backup.contains(&alert.name);
        let is_heartbeat = names.heartbeat.contains(&alert.name);
        let (backup, heartbeat) = match state {
            AlertState::Firing => (Some(&mut relevant.backup), &mut relevant.heartbeat),
            AlertState::Suppressed => (None, &mut relevant.heartbeat),
            AlertState::Resolved => {
                (Some(&mut relevant.backup_resolved), &mut relevant.heartbeat_resolved)
            }
        };
        if is_heartbeat {
            heartbeat.push(alert.clone());
        }
        if !is_backup && !is_heartbeat && state == AlertState::Firing {
            relevant.unlisted.extend(unlisted_name(&alert.name));
        } else if let Some(backup) = backup.filter(|_| is_backup) {
            backup.push(alert);
        }
    }
    while relevant.unlisted.len() > MAX_UNLISTED {
        relevant.unlisted.pop_last();
    }
    relevant
}

/// The name of an alert that is in no list, where it seems to be about backups.
fn unlisted_name(name: &str) -> Option<String> {
    let is_about_backup = name.to_lowercase().contains("backup");
    is_about_backup.then(|| name.chars().take(MAX_UNLISTED_CHARS).collect())
}

/// An alert in place of those that the sender left out of a delivery (`truncatedAlerts`) about backups.
/// It names a plan only where all alerts of the group are about that plan. As an instance it is told
/// from another one by what was shown beside it.
fn left_out(body: &mut Map<String, Value>, relevant: &RelevantAlerts) -> Option<Alert> {
    let count = body.get("truncatedAlerts").and_then(Value::as_f64)? as u64;
    if count == 0 {
        return None;
    }
    let name = relevant.backup.first()?.name.clone();
    let mut labels = parse_texts(body.remove("groupLabels"));
    labels.insert("alertname".into(), name.clone());
    let shown = relevant.backup.iter().chain(&relevant.backup_resolved).map(Alert::instance);
    let group = body.get("groupKey").and_then(Value::as_str).unwrap_or_default().to_owned();
    let parts: Vec<String> = [group, count.to_string()].into_iter().chain(shown).collect();
    let alerts = if count == 1 { "alert" } else { "alerts" };
    let summary = format!("the sender left out {count} {alerts}");
    Some(Alert {
        name,
        fingerprint: short_hash(parts.iter().map(String::as_str)),
        starts_at: None,
        labels: keep_labels(labels, &[]),
        annotations: BTreeMap::from([("summary".to_owned(), summary)]),
    })
}

fn parse_alert(alert: Value, names: &AlertNames, now: Wall) -> Option<Alert> {
    let Value::Object(mut alert) = alert else { return None };
    let labels = parse_texts(alert.remove("labels"));
    let name = labels.get("alertname")?.clone();
    let given = match alert.remove("fingerprint") {
        Some(Value::String(text)) if (1..=128).contains(&text.len()) => Some(text),
        _ => None,
    };
    let pairs = || labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    Some(Alert {
        name,
        fingerprint: given.unwrap_or_else(|| short_hash(pairs())),
        starts_at: alert_start::read(alert.get("startsAt"), now),
        annotations: annotations::keep(parse_texts(alert.remove("annotations"))),
        labels: keep_labels(labels, &names.plan_labels),
    })
}

/// As many labels as are kept, each cut; first of all the name, and those of `needed`.
fn keep_labels(labels: BTreeMap<String, String>, needed: &[String]) -> BTreeMap<String, String> {
    let is_needed = |name: &String| name == "alertname" || needed.contains(name);
    let (needed, others): (Vec<_>, Vec<_>) =
        labels.into_iter().partition(|(name, _)| is_needed(name));
    let kept = needed.into_iter().chain(others.into_iter().take(MAX_LABELS));
    kept.map(|(name, text)| (truncate(name), truncate(text))).collect()
}

/// The texts of an object. Numbers and booleans are taken as they are written, a whole number without a
/// fraction; arrays and objects are left out.
fn parse_texts(object: Option<Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(pairs)) = object else { return BTreeMap::new() };
    pairs
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => {
                let text = number.to_string();
                Some((name, text.strip_suffix(".0").map_or(text.clone(), str::to_owned)))
            }
            Value::Bool(flag) => Some((name, flag.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
        .collect()
}

fn truncate(mut text: String) -> String {
    // A text has no more characters than bytes.
    if text.len() > MAX_LABEL_CHARS
        && let Some((end, _)) = text.char_indices().nth(MAX_LABEL_CHARS)
    {
        text.truncate(end);
        // The limits count the length, and the capacity may be megabytes.
        text.shrink_to_fit();
    }
    text
}

/// Sixteen hex digits, a hash of these texts.
fn short_hash<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    crate::escape::hex(&context.finish().as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Wall = Wall(1_795_305_600_000);

    fn both_names() -> AlertNames {
        AlertNames {
            backup: vec!["BackupFailed".into()],
            heartbeat: vec!["Watchdog".into()],
            plan_labels: ids(),
        }
    }

    fn names() -> Vec<String> {
        ["NsBackupFailed", "NsBackupMissing", "BackupFailed", "Watchdog"].map(String::from).into()
    }

    /// The backup alerts of a webhook, where each of [`names`] is one.
    fn webhook(body: &[u8]) -> Result<Vec<Alert>, String> {
        let names = AlertNames { backup: names(), plan_labels: ids(), ..AlertNames::default() };
        Ok(from_webhook(body, &names, NOW)?.backup)
    }

    fn ids() -> Vec<String> {
        ["backup_id", "id"].map(String::from).into()
    }

    fn recorded() -> Vec<(String, Vec<u8>)> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alertmanager");
        let mut bodies: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect();
        bodies.sort();
        bodies
    }

    /// `BackupFailed 1, Watchdog -`: the alerts and their plans.
    fn about(body: &[u8]) -> String {
        let alerts = webhook(body).unwrap();
        let said =
            |alert: &Alert| format!("{} {}", alert.name, alert.plan_id(&ids()).unwrap_or("-"));
        alerts.iter().map(said).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_huge_word_keeps_no_more_memory_than_counts() {
        let huge = "x".repeat(4_000_000);
        let body = format!(
            r#"{{"alerts":[{{"status":"firing","labels":{{"alertname":"A","l":"{huge}"}},
                "annotations":{{"a":"{huge}","b":"{huge}"}}}}]}}"#
        );
        let names = AlertNames { backup: vec!["A".into()], ..AlertNames::default() };
        let alerts = from_webhook(body.as_bytes(), &names, NOW).unwrap().backup;
        let kept = |texts: &BTreeMap<String, String>| -> usize {
            texts.values().map(String::capacity).sum()
        };
        let kept = kept(&alerts[0].labels) + kept(&alerts[0].annotations);
        assert!(kept <= alerts[0].size() && kept < 10_000, "{kept}");
    }

    #[test]
    fn every_recorded_body_says_what_it_is_about() {
        let bodies = recorded();
        for (file, alerts) in [
            ("01-firing-NsBackupFailed.json", "NsBackupFailed 3"),
            ("02-firing-NsBackupMissing.json", "NsBackupMissing -"),
            ("03-firing-ns8-BackupFailed.json", "BackupFailed 1"),
            ("04-group-mixed.json", "BackupFailed 1, BackupFailed 3"),
            ("05-resolved.json", ""),
            ("08-truncated.json", "NsBackupFailed -, NsBackupFailed 0, NsBackupFailed 1"),
            ("09-watchdog-1.json", "Watchdog -"),
            ("09-watchdog-2.json", "Watchdog -"),
        ] {
            let (_, body) = bodies.iter().find(|(name, _)| name == file).expect(file);
            assert_eq!(about(body), alerts, "{file}");
        }
        for (file, body) in bodies {
            assert!(webhook(&body).is_ok(), "{file}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "{", "null", "[]", "7", "\"x\"", "{\"alerts\":[}", "\u{feff}", "{} x"] {
            assert!(webhook(body.as_bytes()).is_err(), "{body}");
        }
        assert!(webhook(b"{\xff}").is_err());
        assert!(webhook("[".repeat(100_000).as_bytes()).is_err());
        assert!(from_api(b"{}", &both_names(), NOW).is_err());
    }

    #[test]
    fn an_alert_that_lacks_something_is_skipped_and_the_others_are_not() {
        let good = json!({"status": "firing", "labels": {"alertname": "BackupFailed", "id": 7}});
        for odd in [
            json!(null),
            json!("firing"),
            json!([]),
            json!({}),
            json!({"status": "firing"}),
            json!({"status": "firing", "labels": null}),
            json!({"status": "firing", "labels": []}),
            json!({"status": "firing", "labels": {"alertname": null}}),
            json!({"labels": {"alertname": "BackupFailed"}}),
            json!({"status": {"state": "active"}, "labels": {"alertname": "BackupFailed"}}),
            json!({"status": "resolved", "labels": {"alertname": "BackupFailed"}}),
            json!({"status": "firing", "labels": {"alertname": "Other"}}),
        ] {
            let body = json!({"alerts": [odd, good]}).to_string();
            assert_eq!(about(body.as_bytes()), "BackupFailed 7", "{odd}");
        }
        for alerts in [json!(null), json!({}), json!("x"), json!([])] {
            assert!(about(json!({"alerts": alerts}).to_string().as_bytes()).is_empty());
        }
        assert!(about(b"{}").is_empty());
    }

    #[test]
    fn an_instance_is_the_same_however_it_was_delivered() {
        let hook = json!({"alerts": [{
            "status": "firing", "fingerprint": "2fd1e5e5a7a59685",
            "startsAt": "2026-11-21T23:54:30.626987654+01:00",
            "labels": {"alertname": "BackupFailed", "id": "1"},
        }]});
        let api = json!([
            {
                "status": {"inhibitedBy": [], "silencedBy": [], "state": "active"},
                "fingerprint": "2fd1e5e5a7a59685", "startsAt": "2026-11-21T22:54:30.626Z",
                "receivers": [{"name": "x"}], "annotations": {},
                "labels": {"alertname": "BackupFailed", "id": "1"},
            },
            {
                "status": {"inhibitedBy": [], "silencedBy": ["1"], "state": "suppressed"},
                "labels": {"alertname": "BackupFailed", "id": "2"},
            },
        ]);
        let hook = webhook(hook.to_string().as_bytes()).unwrap();
        let api = from_api(api.to_string().as_bytes(), &both_names(), NOW).unwrap().backup;
        assert_eq!(hook, api);
        assert_eq!(hook[0].instance(), "2fd1e5e5a7a59685 1795301670626 firing");
    }

    #[test]
    fn one_body_holds_backup_alerts_and_heartbeats_and_an_alert_may_be_both() {
        let alert =
            |name: &str, status: &str| json!({"status": status, "labels": {"alertname": name}});
        let alerts = [
            alert("Watchdog", "firing"),
            alert("BackupFailed", "firing"),
            alert("Both", "firing"),
            alert("Other", "firing"),
            alert("Watchdog", "resolved"),
            alert("Watchdog", "firing"),
        ];
        let mut names = both_names();
        names.backup.push("Both".into());
        names.heartbeat.push("Both".into());
        let body = json!({"alerts": alerts}).to_string();
        let found = from_webhook(body.as_bytes(), &names, NOW).unwrap();
        let named =
            |alerts: &[Alert]| alerts.iter().map(|alert| alert.name.clone()).collect::<Vec<_>>();
        assert_eq!(named(&found.backup), ["BackupFailed", "Both"]);
        assert_eq!(named(&found.heartbeat), ["Watchdog", "Both"]);
    }

    #[test]
    fn a_silenced_watchdog_was_no_sign_of_life() {
        let alert = |name: &str, state: &str| {
            let labels = json!({"alertname": name, "state": state});
            json!({"status": {"state": state}, "labels": labels})
        };
        let states = ["active", "suppressed", "unprocessed"];
        let alerts = states.map(|state| alert("BackupFailed", state));
        let signs = states.map(|state| alert("Watchdog", state));
        let body = json!([alerts, signs].concat()).to_string();
        let found = from_api(body.as_bytes(), &both_names(), NOW).unwrap();
        let told = |alerts: &[Alert]| {
            alerts.iter().map(|alert| alert.labels["state"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(&found.backup), ["active"]);
        assert_eq!(told(&found.heartbeat), states);
    }

    #[test]
    fn a_plan_and_a_name_behind_64_labels_were_cut_off() {
        let mut labels: Map<String, Value> =
            (0..200).map(|n| (format!("a{n}"), json!("x"))).collect();
        labels.insert("alertname".into(), json!("BackupFailed"));
        labels.insert("id".into(), json!(7.0));
        let alert = json!({"status": "firing", "labels": labels});
        let body = json!({"alerts": [alert]}).to_string();
        assert_eq!(about(body.as_bytes()), "BackupFailed 7");
        assert_eq!(webhook(body.as_bytes()).unwrap()[0].labels.len(), MAX_LABELS + 2);
        // What is cut off tells alerts apart nevertheless.
        let other = body.replace("\"a99\":\"x\"", "\"a99\":\"y\"");
        let fingerprint = |body: &str| webhook(body.as_bytes()).unwrap().remove(0).fingerprint;
        assert_ne!(fingerprint(&body), fingerprint(&other));
    }

    #[test]
    fn a_spoiled_annotation_cost_the_other_alerts() {
        let good = json!({"status": "firing", "labels": {"alertname": "BackupFailed", "id": 7}});
        for spoiled in ["\"\\ud83d\"", "\"\u{1}\"", "NaN", "1e999", "\"\\q\""] {
            let body = format!(
                r#"{{"alerts":[{{"status":"firing","labels":{{"alertname":"BackupFailed","id":"1"}},
                    "annotations":{{"summary":{spoiled}}}}},{good}]}}"#
            );
            assert_eq!(about(body.as_bytes()), "BackupFailed 1, BackupFailed 7", "{spoiled}");
        }
    }

    #[test]
    fn alerts_that_were_left_out_were_about_nothing() {
        let body = |shown: Value, group: Value, count: u64| {
            json!({"alerts": shown, "groupLabels": group, "truncatedAlerts": count}).to_string()
        };
        let alert = |name: &str, id: &str, status: &str| json!({"status": status, "labels": {"alertname": name, "id": id}});
        let shown = json!([alert("BackupFailed", "1", "firing")]);
        for (shown, group, count, alerts) in [
            (&shown, json!({}), 0, "BackupFailed 1"),
            (&shown, json!({}), 3, "BackupFailed -, BackupFailed 1"),
            (&shown, json!({"id": "1"}), 3, "BackupFailed 1, BackupFailed 1"),
            (&json!([alert("Other", "1", "firing")]), json!({}), 3, ""),
            (&json!([alert("BackupFailed", "1", "resolved")]), json!({}), 3, ""),
        ] {
            assert_eq!(about(body(shown.clone(), group, count).as_bytes()), alerts);
        }
        let stands_for = |shown: &Value, count| {
            webhook(body(shown.clone(), json!({}), count).as_bytes()).unwrap().remove(0)
        };
        let first = stands_for(&shown, 3);
        assert_eq!(first.quoted(), ["the sender left out 3 alerts"]);
        assert_eq!(stands_for(&shown, 1).quoted(), ["the sender left out 1 alert"]);
        assert_eq!(first.instance(), stands_for(&shown, 3).instance());
        let others = json!([alert("BackupFailed", "2", "firing")]);
        assert_ne!(first.instance(), stands_for(&others, 3).instance());
    }

    #[test]
    fn an_alert_about_a_backup_that_is_in_no_list_is_named() {
        let names = ["BackupFailed", "Watchdog", "backup_failed", "PgBACKUPold", "Other"];
        let alert =
            |name: &str, status: &str| json!({"status": status, "labels": {"alertname": name}});
        let mut alerts: Vec<Value> = names.iter().map(|name| alert(name, "firing")).collect();
        alerts.push(alert("ResticBackupResolved", "resolved"));
        let body = json!({"alerts": alerts}).to_string();
        let found = from_webhook(body.as_bytes(), &both_names(), NOW).unwrap();
        assert_eq!(Vec::from_iter(&found.unlisted), ["PgBACKUPold", "backup_failed"]);
        let many = (0..99).map(|n| alert(&format!("Backup{n}{}", "x".repeat(4000)), "firing"));
        let body = json!({"alerts": many.collect::<Vec<_>>()}).to_string();
        let found = from_webhook(body.as_bytes(), &both_names(), NOW).unwrap();
        assert_eq!(found.unlisted.len(), MAX_UNLISTED);
        assert!(found.unlisted.iter().all(|name| name.len() == MAX_UNLISTED_CHARS));
    }

    #[test]
    fn what_is_resolved_is_kept_apart() {
        let alert =
            |name: &str, status: &str| json!({"status": status, "labels": {"alertname": name}});
        let body = json!({"alerts": [
            alert("BackupFailed", "resolved"), alert("Watchdog", "Resolved"), alert("Other", "resolved"),
            alert("BackupFailed", "FIRING"),
        ]});
        let found = from_webhook(body.to_string().as_bytes(), &both_names(), NOW).unwrap();
        let count =
            [&found.backup, &found.heartbeat, &found.backup_resolved, &found.heartbeat_resolved];
        assert_eq!(count.map(Vec::len), [1, 0, 1, 1]);
        assert_eq!(found.backup[0].instance(), found.backup_resolved[0].instance());
    }

    #[test]
    fn labels_stand_in_for_a_missing_fingerprint() {
        let body = |id: &str| {
            let labels = json!({"alertname": "BackupFailed", "id": id});
            json!({"alerts": [{"status": "firing", "labels": labels}]}).to_string()
        };
        let of = |id| webhook(body(id).as_bytes()).unwrap()[0].fingerprint.clone();
        assert_eq!(of("1"), of("1"));
        assert_ne!(of("1"), of("2"));
        assert_eq!(of("1").len(), 16);
    }

    #[test]
    fn the_same_alert_twice_in_a_body_counts_once() {
        let alert = json!({"status": "firing", "labels": {"alertname": "BackupFailed"}});
        let body = json!({"alerts": [alert, alert]}).to_string();
        assert_eq!(webhook(body.as_bytes()).unwrap().len(), 1);
    }

    /// Replaces the value at the `at`-th place of the document by another.
    fn mutate(value: &mut Value, at: &mut usize, by: &Value) {
        if *at == 0 {
            *value = by.clone();
            *at = usize::MAX;
            return;
        }
        *at -= 1;
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| mutate(item, at, by)),
            Value::Object(fields) => fields.values_mut().for_each(|field| mutate(field, at, by)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    proptest! {
        #[test]
        fn no_mutated_body_is_a_crash(
            file in 0usize..9, at in 1usize..60, by in 0usize..7, cut in any::<u16>(),
        ) {
            let values =
                [json!(null), json!(7), json!(""), json!([null]), json!({}), json!(1e300), json!(true)];
            let bodies = recorded();
            let body = &bodies[file % bodies.len()].1;
            let mut value: Value = serde_json::from_slice(body).unwrap();
            mutate(&mut value, &mut { at }, &values[by]);
            prop_assert!(webhook(value.to_string().as_bytes()).is_ok());
            let _ = from_api(value["alerts"].to_string().as_bytes(), &both_names(), NOW);
            let _ = webhook(&body[..usize::from(cut) % body.len()]);
        }

        #[test]
        fn no_time_is_a_crash(text in "[0-9T:.+Zö-]{0,40}") {
            let _ = alert_start::read(Some(&json!(text)), NOW);
        }

        #[test]
        fn an_alert_comes_back_from_the_store_as_it_was(file in 0usize..9) {
            let bodies = recorded();
            for alert in webhook(&bodies[file % bodies.len()].1).unwrap() {
                let stored = serde_json::to_vec(&alert).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Alert>(&stored).unwrap(), alert);
            }
        }
    }
}
