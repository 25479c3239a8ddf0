//! Parses the alerts of an Alertmanager, from its webhook (version 4) and its API (v2): strict about
//! JSON, lenient about what is in it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::{Wall, parse_rfc3339};

/// How many labels or annotations of an alert are kept, and how many characters of each: an alert is
/// stored until it is reported.
const MAX_TEXTS: usize = 64;
const MAX_TEXT_CHARS: usize = 4096;
/// How many bytes all annotations of an alert may take together.
const MAX_ANNOTATION_BYTES: usize = 4096;

/// A firing alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its `alertname`.
    pub name: String,
    /// As Alertmanager gave it, else a hash of the labels.
    pub fingerprint: String,
    /// Since when it fires, where the delivery says so.
    pub starts_at: Option<Wall>,
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// Identifies the alert: fingerprint, start and status. Another delivery of it, by webhook or by
    /// API, has the same.
    pub fn instance(&self) -> String {
        let start = self.starts_at.map_or(0, |start| start.0);
        format!("{} {start} firing", self.fingerprint)
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

/// The names of the alerts that count, by their use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertNames {
    /// Alerts about backups.
    pub backup: Vec<String>,
    /// Alerts that are heartbeats of a host while they fire.
    pub heartbeat: Vec<String>,
}

/// The alerts of a delivery that have one of these names, each instance once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelevantAlerts {
    /// The alerts about backups.
    pub backup: Vec<Alert>,
    /// The alerts that are heartbeats. From the API also those that are silenced or inhibited: their
    /// sender lives.
    pub heartbeat: Vec<Alert>,
}

/// The firing alerts in the body of a webhook (version 4).
///
/// # Errors
/// A sentence for the 400 when the body is no JSON object.
pub fn from_webhook(body: &[u8], names: &AlertNames) -> Result<RelevantAlerts, String> {
    let Value::Object(mut body) = parse_json(body)? else {
        return Err("the body must be a JSON object".into());
    };
    let firing =
        |alert: &Map<String, Value>| alert.get("status").and_then(Value::as_str) == Some("firing");
    let Some(Value::Array(alerts)) = body.remove("alerts") else {
        return Ok(RelevantAlerts::default());
    };
    let alerts = alerts.into_iter().filter(|alert| alert.as_object().is_some_and(firing));
    Ok(select(alerts.map(|alert| (alert, true)), names))
}

/// The alerts in an answer to `GET /api/v2/alerts`. A backup alert that is silenced or inhibited is
/// left out.
///
/// # Errors
/// A sentence when the body is no JSON array.
pub fn from_api(body: &[u8], names: &AlertNames) -> Result<RelevantAlerts, String> {
    let Value::Array(alerts) = parse_json(body)? else {
        return Err("the body must be a JSON array".into());
    };
    let active = |alert: &Map<String, Value>| {
        let status = alert.get("status").and_then(Value::as_object);
        status.and_then(|status| status.get("state")).and_then(Value::as_str) == Some("active")
    };
    let with_state = |alert: Value| {
        let is_active = alert.as_object().is_some_and(active);
        (alert, is_active)
    };
    Ok(select(alerts.into_iter().map(with_state), names))
}

/// Those that have one of the names, each instance once; of backup alerts only active ones.
fn select(alerts: impl Iterator<Item = (Value, bool)>, names: &AlertNames) -> RelevantAlerts {
    let (mut backup_seen, mut heartbeat_seen) = (BTreeSet::new(), BTreeSet::new());
    let mut relevant = RelevantAlerts::default();
    for (alert, is_active) in alerts {
        let Some(alert) = parse_alert(alert) else { continue };
        let is_backup = is_active && names.backup.contains(&alert.name);
        let is_heartbeat = names.heartbeat.contains(&alert.name);
        if is_heartbeat && heartbeat_seen.insert(alert.instance()) {
            relevant.heartbeat.push(alert.clone());
        }
        if is_backup && backup_seen.insert(alert.instance()) {
            relevant.backup.push(alert);
        }
    }
    relevant
}

fn parse_json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|why| format!("the body is not JSON: {why}"))
}

fn parse_alert(alert: Value) -> Option<Alert> {
    let Value::Object(mut alert) = alert else { return None };
    let labels = parse_texts(alert.remove("labels"));
    let name = labels.get("alertname")?.clone();
    let given = match alert.remove("fingerprint") {
        Some(Value::String(text)) if (1..=128).contains(&text.len()) => Some(text),
        _ => None,
    };
    Some(Alert {
        name,
        fingerprint: given.unwrap_or_else(|| short_hash(&labels)),
        starts_at: alert.get("startsAt").and_then(Value::as_str).and_then(moment),
        annotations: limit_total(parse_texts(alert.remove("annotations"))),
        labels,
    })
}

/// As many of these as fit into the limit, the last of them cut.
fn limit_total(texts: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut left = MAX_ANNOTATION_BYTES;
    let mut kept = BTreeMap::new();
    for (name, mut text) in texts {
        let Some(mut fitting) = left.checked_sub(name.len()).filter(|_| left > 0) else { break };
        while fitting < text.len() && !text.is_char_boundary(fitting) {
            fitting -= 1;
        }
        text.truncate(fitting);
        text.shrink_to_fit();
        left = fitting - text.len();
        kept.insert(name, text);
    }
    kept
}

/// The texts of an object. Numbers and booleans are taken as they are written; arrays and objects
/// are left out.
fn parse_texts(object: Option<Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(pairs)) = object else { return BTreeMap::new() };
    pairs
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            Value::Bool(flag) => Some((name, flag.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
        .take(MAX_TEXTS)
        .map(|(name, text)| (truncate(name), truncate(text)))
        .collect()
}

fn truncate(mut text: String) -> String {
    // A text has no more characters than bytes.
    if text.len() > MAX_TEXT_CHARS
        && let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS)
    {
        text.truncate(end);
        // The limits count the length, and the capacity may be megabytes.
        text.shrink_to_fit();
    }
    text
}

/// Sixteen hex digits, a hash of the labels.
fn short_hash(labels: &BTreeMap<String, String>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (name, value) in labels {
        for part in [name, value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    crate::escape::hex(&context.finish().as_ref()[..8])
}

/// A time of the webhook, which gives nanoseconds, or of the API, which gives milliseconds: both
/// mean the same instance.
pub(super) fn moment(text: &str) -> Option<Wall> {
    parse_rfc3339(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn both_names() -> AlertNames {
        AlertNames { backup: vec!["BackupFailed".into()], heartbeat: vec!["Watchdog".into()] }
    }

    fn names() -> Vec<String> {
        ["NsBackupFailed", "NsBackupMissing", "BackupFailed", "Watchdog"].map(String::from).into()
    }

    /// The backup alerts of a webhook, where each of [`names`] is one.
    fn webhook(body: &[u8]) -> Result<Vec<Alert>, String> {
        let names = AlertNames { backup: names(), ..AlertNames::default() };
        Ok(from_webhook(body, &names)?.backup)
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
        let alerts = from_webhook(body.as_bytes(), &names).unwrap().backup;
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
            ("08-truncated.json", "NsBackupFailed 0, NsBackupFailed 1"),
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
        for body in ["", "{", "null", "[]", "7", "\"x\"", "{\"alerts\":[}", "\u{feff}{}", "{} x"] {
            assert!(webhook(body.as_bytes()).is_err(), "{body}");
        }
        assert!(webhook(b"{\"a\":\"\xff\"}").is_err());
        assert!(webhook("[".repeat(100_000).as_bytes()).is_err());
        assert!(from_api(b"{}", &both_names()).is_err());
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
        let api = from_api(api.to_string().as_bytes(), &both_names()).unwrap().backup;
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
        let found = from_webhook(body.as_bytes(), &names).unwrap();
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
        let found = from_api(body.as_bytes(), &both_names()).unwrap();
        let told = |alerts: &[Alert]| {
            alerts.iter().map(|alert| alert.labels["state"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(&found.backup), ["active"]);
        assert_eq!(told(&found.heartbeat), states);
    }

    #[test]
    fn annotations_are_bounded_together() {
        let texts: Map<String, Value> =
            (0..9).map(|n| (format!("word{n}"), json!("ö".repeat(700)))).collect();
        let alert = json!({"status": "firing", "labels": {"alertname": "BackupFailed"},
            "annotations": texts});
        let body = json!({"alerts": [alert]}).to_string();
        let alert = webhook(body.as_bytes()).unwrap().remove(0);
        assert_eq!(alert.annotations.len(), 3);
        assert!((4095..=4096 + 64).contains(&alert.size()), "{}", alert.size());
    }

    #[test]
    fn times_of_all_forms_are_read() {
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T00:00:01.5Z", Some(1_500)),
            ("1970-01-01T00:00:01.123456789Z", Some(1_123)),
            ("1970-01-01T02:00:01+02:00", Some(1_000)),
            ("1970-01-01T00:00:01-05:30", Some(19_801_000)),
            ("0001-01-01T00:00:00Z", None),
            ("yesterday", None),
            ("ö", None),
            ("", None),
        ] {
            assert_eq!(moment(text), millis.map(Wall), "{text}");
        }
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
            let _ = from_api(value["alerts"].to_string().as_bytes(), &both_names());
            let _ = webhook(&body[..usize::from(cut) % body.len()]);
        }

        #[test]
        fn no_time_is_a_crash(text in "[0-9T:.+Zö-]{0,40}") {
            let _ = moment(&text);
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
