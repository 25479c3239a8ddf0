//! Alertmanager's alerts: strict about JSON, lenient about what is in it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::{Wall, parse_rfc3339};

/// How much of an alert is kept: it lies in the store until it is reported.
const MOST_WORDS: usize = 64;
const LONGEST_WORD: usize = 4096;
/// In bytes, all annotations of an alert together: they are prose.
const MOST_PROSE: usize = 4096;

/// A firing alert whose name we listen for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its `alertname`.
    pub name: String,
    /// Alertmanager's, or a hash of the labels where the sender gave none.
    pub fingerprint: String,
    /// Since when it fires, where the sender said so.
    pub starts_at: Option<Wall>,
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// What makes it this alert and no other: fingerprint, start and status. A second delivery of
    /// it, be it by webhook or by API, has the same.
    pub fn instance(&self) -> String {
        let start = self.starts_at.map_or(0, |start| start.0);
        format!("{} {start} firing", self.fingerprint)
    }

    /// About how many bytes it takes while it waits.
    pub fn size(&self) -> usize {
        let words = |words: &BTreeMap<String, String>| -> usize {
            words.iter().map(|(name, text)| name.len() + text.len()).sum()
        };
        self.name.len() + self.fingerprint.len() + words(&self.labels) + words(&self.annotations)
    }

    /// The plan that it is about: the first of these labels that it has.
    pub fn plan_id(&self, labels: &[String]) -> Option<&str> {
        labels
            .iter()
            .filter_map(|label| self.labels.get(label))
            .map(|id| id.trim())
            .find(|id| !id.is_empty())
    }
}

/// The firing alerts of a webhook's body (version 4) that have one of `names`, each once.
///
/// # Errors
/// A sentence for the 400 when the body is no JSON object.
pub fn relevant(body: &[u8], names: &[String]) -> Result<Vec<Alert>, String> {
    let Value::Object(mut body) = parse(body)? else {
        return Err("the body must be a JSON object".into());
    };
    let firing =
        |alert: &Map<String, Value>| alert.get("status").and_then(Value::as_str) == Some("firing");
    let Some(Value::Array(mut alerts)) = body.remove("alerts") else { return Ok(Vec::new()) };
    alerts.retain(|alert| alert.as_object().is_some_and(firing));
    Ok(picked(alerts.into_iter().filter_map(read), names))
}

/// Which alerts are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The names of those that are about backups.
    pub alerts: Vec<String>,
    /// The names of those that are signs of life.
    pub signs: Vec<String>,
}

/// What an Alertmanager was found to hold, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The active alerts about backups.
    pub alerts: Vec<Alert>,
    /// The signs of life, also those that are silenced or inhibited: who sends them lives.
    pub signs: Vec<Alert>,
}

/// What an answer to `GET /api/v2/alerts` holds. A backup alert that is silenced or inhibited is
/// left out.
///
/// # Errors
/// A sentence when the body is no JSON array.
pub fn fetched(body: &[u8], wanted: &Wanted) -> Result<Fetched, String> {
    let Value::Array(body) = parse(body)? else {
        return Err("the body must be a JSON array".into());
    };
    let active = |alert: &Map<String, Value>| {
        let status = alert.get("status").and_then(Value::as_object);
        status.and_then(|status| status.get("state")).and_then(Value::as_str) == Some("active")
    };
    let mut found = Vec::new();
    for alert in body {
        let counts = alert.as_object().is_some_and(active);
        found.extend(read(alert).map(|alert| (counts, alert)));
    }
    let active =
        found.iter().filter(|(counts, alert)| *counts && wanted.alerts.contains(&alert.name));
    let alerts = picked(active.map(|(_, alert)| alert.clone()), &wanted.alerts);
    let signs = picked(found.into_iter().map(|(_, alert)| alert), &wanted.signs);
    Ok(Fetched { alerts, signs })
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|why| format!("the body is not JSON: {why}"))
}

/// Those that have one of `names`, each once.
fn picked(alerts: impl Iterator<Item = Alert>, names: &[String]) -> Vec<Alert> {
    let mut seen = BTreeSet::new();
    alerts.filter(|alert| names.contains(&alert.name) && seen.insert(alert.instance())).collect()
}

fn read(alert: Value) -> Option<Alert> {
    let Value::Object(mut alert) = alert else { return None };
    let labels = words(alert.remove("labels"));
    let name = labels.get("alertname")?.clone();
    let given = match alert.remove("fingerprint") {
        Some(Value::String(text)) if (1..=128).contains(&text.len()) => Some(text),
        _ => None,
    };
    Some(Alert {
        name,
        fingerprint: given.unwrap_or_else(|| digest(&labels)),
        starts_at: alert.get("startsAt").and_then(Value::as_str).and_then(moment),
        annotations: bounded(words(alert.remove("annotations"))),
        labels,
    })
}

/// So many of these as fit, the last of them cut.
fn bounded(words: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut left = MOST_PROSE;
    let mut kept = BTreeMap::new();
    for (name, mut text) in words {
        let Some(mut room) = left.checked_sub(name.len()).filter(|_| left > 0) else { break };
        while room < text.len() && !text.is_char_boundary(room) {
            room -= 1;
        }
        text.truncate(room);
        text.shrink_to_fit();
        left = room - text.len();
        kept.insert(name, text);
    }
    kept
}

/// An object of texts. Other single values are taken as they are written, the rest is left out.
fn words(object: Option<Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(pairs)) = object else { return BTreeMap::new() };
    pairs
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            Value::Bool(flag) => Some((name, flag.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
        .take(MOST_WORDS)
        .map(|(name, text)| (shortened(name), shortened(text)))
        .collect()
}

fn shortened(mut text: String) -> String {
    // Fewer bytes than that are no more characters.
    if text.len() > LONGEST_WORD
        && let Some((end, _)) = text.char_indices().nth(LONGEST_WORD)
    {
        text.truncate(end);
        // It counts as what it is, and a label may have megabytes.
        text.shrink_to_fit();
    }
    text
}

/// Sixteen hex digits that stand for the labels.
fn digest(labels: &BTreeMap<String, String>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (name, value) in labels {
        for part in [name, value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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

    fn wanted() -> Wanted {
        Wanted { alerts: vec!["BackupFailed".into()], signs: vec!["Watchdog".into()] }
    }

    fn names() -> Vec<String> {
        ["NsBackupFailed", "NsBackupMissing", "BackupFailed", "Watchdog"].map(String::from).into()
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
        let alerts = relevant(body, &names()).unwrap();
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
        let alerts = relevant(body.as_bytes(), &["A".into()]).unwrap();
        let kept = |words: &BTreeMap<String, String>| -> usize {
            words.values().map(String::capacity).sum()
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
            assert!(relevant(&body, &names()).is_ok(), "{file}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "{", "null", "[]", "7", "\"x\"", "{\"alerts\":[}", "\u{feff}{}", "{} x"] {
            assert!(relevant(body.as_bytes(), &names()).is_err(), "{body}");
        }
        assert!(relevant(b"{\"a\":\"\xff\"}", &names()).is_err());
        assert!(relevant("[".repeat(100_000).as_bytes(), &names()).is_err());
        assert!(fetched(b"{}", &wanted()).is_err());
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
        let hook = relevant(hook.to_string().as_bytes(), &names()).unwrap();
        let api = fetched(api.to_string().as_bytes(), &wanted()).unwrap().alerts;
        assert_eq!(hook, api);
        assert_eq!(hook[0].instance(), "2fd1e5e5a7a59685 1795301670626 firing");
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
        let found = fetched(body.as_bytes(), &wanted()).unwrap();
        let told = |alerts: &[Alert]| {
            alerts.iter().map(|alert| alert.labels["state"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(&found.alerts), ["active"]);
        assert_eq!(told(&found.signs), states);
    }

    #[test]
    fn annotations_are_bounded_together() {
        let words: Map<String, Value> =
            (0..9).map(|n| (format!("word{n}"), json!("ö".repeat(700)))).collect();
        let alert = json!({"status": "firing", "labels": {"alertname": "BackupFailed"},
            "annotations": words});
        let body = json!({"alerts": [alert]}).to_string();
        let alert = relevant(body.as_bytes(), &names()).unwrap().remove(0);
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
        let of = |id| relevant(body(id).as_bytes(), &names()).unwrap()[0].fingerprint.clone();
        assert_eq!(of("1"), of("1"));
        assert_ne!(of("1"), of("2"));
        assert_eq!(of("1").len(), 16);
    }

    #[test]
    fn the_same_alert_twice_in_a_body_counts_once() {
        let alert = json!({"status": "firing", "labels": {"alertname": "BackupFailed"}});
        let body = json!({"alerts": [alert, alert]}).to_string();
        assert_eq!(relevant(body.as_bytes(), &names()).unwrap().len(), 1);
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
            prop_assert!(relevant(value.to_string().as_bytes(), &names()).is_ok());
            let _ = fetched(value["alerts"].to_string().as_bytes(), &wanted());
            let _ = relevant(&body[..usize::from(cut) % body.len()], &names());
        }

        #[test]
        fn no_time_is_a_crash(text in "[0-9T:.+Zö-]{0,40}") {
            let _ = moment(&text);
        }

        #[test]
        fn an_alert_comes_back_from_the_store_as_it_was(file in 0usize..9) {
            let bodies = recorded();
            for alert in relevant(&bodies[file % bodies.len()].1, &names()).unwrap() {
                let stored = serde_json::to_vec(&alert).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Alert>(&stored).unwrap(), alert);
            }
        }
    }
}
