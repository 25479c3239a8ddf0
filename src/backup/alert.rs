//! Parses the alerts of an Alertmanager, from its webhook (version 4) and its API (v2): strict about the
//! structure, lenient about what is in it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::alert_json::{AlertsPart, Group, RawAlert, Status, TextHash, WebhookPart};
use super::{alert_start, annotations, lenient_json};
use crate::btree::InsertAll;
use crate::clock::Wall;

/// How many labels of an alert are kept beyond those that are needed, and how many characters of each:
/// an alert is stored until it is reported.
const MAX_LABELS: usize = 64;
const MAX_LABEL_CHARS: usize = 4096;
/// The longest id of a plan, in bytes.
const MAX_PLAN_ID: usize = 253;
/// How many names of alerts that are in no list are told of one delivery, and how much of each.
const MAX_UNLISTED: usize = 20;
const MAX_UNLISTED_CHARS: usize = 100;
/// How many alerts of one delivery are kept: fewer than may wait, so that every delivery can be taken.
const MAX_DELIVERED: usize = 9_990;
/// How many bytes these may take in memory.
const MAX_DELIVERED_BYTES: usize = 16 << 20;
/// What an alert takes in memory beside its texts, and each label and annotation.
const ALERT_BYTES: usize = 256;
const TEXT_BYTES: usize = 96;

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
    /// It was taken in once more by a cluster, and may have been told of before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub may_repeat: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
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
            texts.iter().map(|(name, text)| TEXT_BYTES + name.len() + text.len()).sum()
        };
        let texts = texts(&self.labels) + texts(&self.annotations);
        ALERT_BYTES + self.name.len() + self.fingerprint.len() + texts
    }

    /// The id of the plan that it is about: the value of the first of these labels that it has. A text
    /// that is longer than any id is none.
    pub fn plan_id(&self, labels: &[String]) -> Option<&str> {
        labels
            .iter()
            .filter_map(|label| self.labels.get(label))
            .map(|id| id.trim())
            .find(|id| (1..=MAX_PLAN_ID).contains(&id.len()))
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
    let mut selection = Selection::new(names, now);
    let mut on_alert = |alert: RawAlert| {
        let state = match &alert.status {
            Status::Text(text) if text.eq_ignore_ascii_case("firing") => AlertState::Firing,
            Status::Text(text) if text.eq_ignore_ascii_case("resolved") => AlertState::Resolved,
            Status::Text(_) | Status::State(_) | Status::Missing => return,
        };
        selection.add(alert, state);
    };
    let webhook = WebhookPart { labels: &names.plan_labels, on_alert: &mut on_alert };
    let group = lenient_json::read(body, webhook)?;
    let group = group.ok_or("the body must be a JSON object")?;
    let mut relevant = selection.finish();
    if let Some(left_out) = left_out(group, &relevant) {
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
    let mut selection = Selection::new(names, now);
    let mut on_alert = |alert: RawAlert| {
        let is_active = matches!(&alert.status, Status::State(state) if state == "active");
        let state = if is_active { AlertState::Firing } else { AlertState::Suppressed };
        selection.add(alert, state);
    };
    let alerts = AlertsPart { labels: &names.plan_labels, on_alert: &mut on_alert };
    lenient_json::read(body, alerts)?.ok_or("the body must be a JSON array")?;
    Ok(selection.finish())
}

/// Those alerts of a delivery that have one of the names, each instance once; of backup alerts none
/// that is suppressed. Others leave nothing behind, however many they are.
struct Selection<'n> {
    names: &'n AlertNames,
    now: Wall,
    relevant: RelevantAlerts,
    seen: BTreeSet<(AlertState, String)>,
    /// How many bytes the selected alerts take.
    size: usize,
    /// The first backup alert that fires and was not selected because too many were before it, how
    /// many there are, and a hash of them all.
    beyond: Option<(String, u64, TextHash)>,
}

impl<'n> Selection<'n> {
    fn new(names: &'n AlertNames, now: Wall) -> Selection<'n> {
        let (relevant, seen) = (RelevantAlerts::default(), BTreeSet::new());
        Selection { names, now, relevant, seen, size: 0, beyond: None }
    }

    fn add(&mut self, alert: RawAlert, state: AlertState) {
        let Some(name) = alert.labels.by_name.get("alertname") else { return };
        let is_backup = self.names.backup.contains(name) && state != AlertState::Suppressed;
        let is_heartbeat = self.names.heartbeat.contains(name);
        if !is_backup && !is_heartbeat {
            if state == AlertState::Firing {
                self.add_unlisted(name);
            }
            return;
        }
        let Some(alert) = parse_alert(alert, self.names, self.now) else { return };
        let instance = (state, alert.instance());
        if self.seen.contains(&instance) {
            return;
        }
        if self.seen.len() == MAX_DELIVERED || self.size + alert.size() > MAX_DELIVERED_BYTES {
            return self.add_beyond(alert, state, is_backup, is_heartbeat);
        }
        self.size += alert.size();
        self.seen.insert(instance);
        self.select(alert, state, is_backup, is_heartbeat);
    }

    fn select(&mut self, alert: Alert, state: AlertState, is_backup: bool, is_heartbeat: bool) {
        let relevant = &mut self.relevant;
        let (backup, heartbeat) = match state {
            AlertState::Firing | AlertState::Suppressed => {
                (&mut relevant.backup, &mut relevant.heartbeat)
            }
            AlertState::Resolved => {
                (&mut relevant.backup_resolved, &mut relevant.heartbeat_resolved)
            }
        };
        if is_heartbeat {
            heartbeat.push(alert.clone());
        }
        if is_backup {
            backup.push(alert);
        }
    }

    /// There is no room for an alert any more. Of a heartbeat one of each name says all, and the end of
    /// an alert says nothing about a backup.
    fn add_beyond(&mut self, alert: Alert, state: AlertState, is_backup: bool, is_heartbeat: bool) {
        let known = match state {
            AlertState::Resolved => &self.relevant.heartbeat_resolved,
            AlertState::Firing | AlertState::Suppressed => &self.relevant.heartbeat,
        };
        if is_heartbeat && !known.iter().any(|known| known.name == alert.name) {
            self.select(alert.clone(), state, false, true);
        }
        if is_backup && state == AlertState::Firing {
            let new = || (alert.name.clone(), 0, TextHash::default());
            let (_, count, hash) = self.beyond.get_or_insert_with(new);
            *count += 1;
            hash.add(&alert.instance());
        }
    }

    /// Notes the name of an alert that is in no list, where it seems to be about backups.
    fn add_unlisted(&mut self, name: &str) {
        let is_about_backup = || name.to_lowercase().contains("backup");
        if name.len() <= MAX_LABEL_CHARS && is_about_backup() {
            let unlisted = &mut self.relevant.unlisted;
            unlisted.insert(name.chars().take(MAX_UNLISTED_CHARS).collect());
            if unlisted.len() > MAX_UNLISTED {
                unlisted.pop_last();
            }
        }
    }

    /// One alert stands for all that were too many: it is about every plan.
    fn finish(self) -> RelevantAlerts {
        let mut relevant = self.relevant;
        if let Some((name, count, hash)) = self.beyond {
            let summary =
                format!("{count} more alerts came with it, too many to look at each of them");
            let labels = BTreeMap::from([("alertname".to_owned(), name.clone())]);
            relevant.backup.push(stand_in(name, hash.short(), labels, summary));
        }
        relevant
    }
}

/// An alert that stands for others, of which nothing is known.
fn stand_in(
    name: String,
    fingerprint: String,
    labels: BTreeMap<String, String>,
    summary: String,
) -> Alert {
    let annotations = BTreeMap::from([("summary".to_owned(), summary)]);
    Alert { name, fingerprint, starts_at: None, labels, annotations, may_repeat: false }
}

/// An alert in place of those that the sender left out of a delivery (`truncatedAlerts`) about backups.
/// It names a plan only where all alerts of the group are about that plan. As an instance it is told
/// from another one by what was shown beside it.
fn left_out(group: Group, relevant: &RelevantAlerts) -> Option<Alert> {
    let count = group.left_out;
    if count == 0 {
        return None;
    }
    let name = relevant.backup.first()?.name.clone();
    let mut labels = group.labels;
    labels.insert("alertname".into(), name.clone());
    let shown = relevant.backup.iter().chain(&relevant.backup_resolved).map(Alert::instance);
    let parts: Vec<String> = [group.key, count.to_string()].into_iter().chain(shown).collect();
    let alerts = if count == 1 { "alert" } else { "alerts" };
    let summary = format!("the sender left out {count} {alerts}");
    let fingerprint = short_hash(parts.iter().map(String::as_str));
    Some(stand_in(name, fingerprint, keep_labels(labels, &[]), summary))
}

fn parse_alert(alert: RawAlert, names: &AlertNames, now: Wall) -> Option<Alert> {
    let RawAlert { labels, annotations, fingerprint, starts_at, .. } = alert;
    let name = truncate(labels.by_name.get("alertname")?.clone());
    let given = fingerprint.filter(|text| (1..=128).contains(&text.len()));
    let beyond = labels.beyond.map(TextHash::short);
    let by_name = labels.by_name;
    let pairs = || by_name.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    Some(Alert {
        name,
        fingerprint: given.unwrap_or_else(|| short_hash(pairs().chain(beyond.as_deref()))),
        starts_at: alert_start::read(starts_at.as_ref(), now),
        annotations: annotations::keep(annotations.by_name),
        labels: keep_labels(by_name, &names.plan_labels),
        may_repeat: false,
    })
}

/// As many labels as are kept, each cut; first of all the name, and those of `needed`.
fn keep_labels(labels: BTreeMap<String, String>, needed: &[String]) -> BTreeMap<String, String> {
    let is_needed = |name: &String| name == "alertname" || needed.contains(name);
    let (needed, others): (Vec<_>, Vec<_>) =
        labels.into_iter().partition(|(name, _)| is_needed(name));
    let kept = needed.into_iter().chain(others.into_iter().take(MAX_LABELS));
    kept.map(|(name, text)| (truncate(name), truncate(text))).insert_all()
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
    let mut hash = TextHash::default();
    parts.for_each(|part| hash.add(part));
    hash.short()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

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

    #[test]
    fn a_text_that_is_no_id_of_a_plan_was_remembered_as_one() {
        let long = "x".repeat(4000);
        let body = format!(
            r#"{{"alerts":[{{"status":"firing","labels":{{"alertname":"BackupFailed","id":"{long}"}}}}]}}"#
        );
        assert_eq!(about(body.as_bytes()), "BackupFailed -", "it is about every plan");
    }

    fn firing(name: &str, id: usize) -> Value {
        json!({"status": "firing", "labels": {"alertname": name, "id": id}})
    }

    fn body_of(alerts: impl Iterator<Item = Value>) -> String {
        json!({"alerts": alerts.collect::<Vec<_>>()}).to_string()
    }

    #[test]
    fn one_alert_among_45_000_that_are_no_concern_is_the_only_one_that_takes_memory() {
        let others = (0..45_000).map(|id| firing("Other", id));
        let body = body_of(others.chain([firing("BackupFailed", 7)]));
        assert_eq!(about(body.as_bytes()), "BackupFailed 7");
    }

    #[test]
    fn a_delivery_of_more_alerts_than_may_wait_was_sent_away_for_ever() {
        let count = 45_000;
        let body = body_of((0..count).map(|id| firing("BackupFailed", id)));
        let alerts = webhook(body.as_bytes()).unwrap();
        assert_eq!(alerts.len(), MAX_DELIVERED + 1);
        let last = &alerts[MAX_DELIVERED];
        assert_eq!(last.plan_id(&ids()), None, "it is about every plan");
        let more = count - MAX_DELIVERED;
        let told = format!("{more} more alerts came with it, too many to look at each of them");
        assert_eq!(last.quoted(), [told.as_str()]);
        let again = webhook(body.as_bytes()).unwrap().remove(MAX_DELIVERED);
        assert_eq!(last.instance(), again.instance(), "a repeat");
        let other = webhook(body.replace("44999", "77777").as_bytes()).unwrap();
        assert_ne!(last.instance(), other[MAX_DELIVERED].instance(), "another one");
        let size: usize = alerts.iter().map(Alert::size).sum();
        assert!(size < MAX_DELIVERED_BYTES, "{size}");
    }

    #[test]
    fn large_alerts_of_one_delivery_are_bounded_in_bytes_and_a_heartbeat_beside_them_counts() {
        let large = |id: usize| {
            let mut alert = firing("BackupFailed", id);
            alert["labels"]["long"] = "x".repeat(4096).into();
            alert["annotations"] = json!({"summary": "y".repeat(4096)});
            alert
        };
        let body = body_of((0..6_000).map(large).chain([firing("Watchdog", 1)]));
        let found = from_webhook(body.as_bytes(), &both_names(), NOW).unwrap();
        let size: usize = found.backup.iter().map(Alert::size).sum();
        assert!(size > MAX_DELIVERED_BYTES / 2 && size < MAX_DELIVERED_BYTES + 8192, "{size}");
        assert_eq!(found.heartbeat.len(), 1);
    }

    #[test]
    fn a_label_of_many_labels_hid_the_name_of_the_alert() {
        let labels: String = (0..20_000).map(|n| format!("\"a{n}\":{n},")).collect();
        let body = |last: &str| {
            let labels = format!("{labels}\"last\":\"{last}\",\"alertname\":\"BackupFailed\"");
            format!(
                r#"{{"alerts":[{{"status":"firing","labels":{{{labels},"id":7}},
                    "annotations":{{{labels},"summary":"It failed"}}}}]}}"#
            )
        };
        let [x, y] = ["x", "y"].map(|last| webhook(body(last).as_bytes()).unwrap().remove(0));
        assert_eq!((x.plan_id(&ids()), x.quoted()), (Some("7"), vec!["It failed"]));
        assert_ne!(x.fingerprint, y.fingerprint, "what is not kept tells them apart");
        assert!(x.size() < 64 * 1024, "{}", x.size());
    }

    #[test]
    fn alerts_under_a_name_that_is_there_twice_were_lost() {
        let alerts = |id| json!([firing("BackupFailed", id)]).to_string();
        let body = format!(r#"{{"alerts":{},"alerts":{},"alerts":[]}}"#, alerts(1), alerts(7));
        assert_eq!(about(body.as_bytes()), "BackupFailed 1, BackupFailed 7");
        let twice = r#"{"status":"x","status":"firing","labels":{},"labels":{"alertname":"BackupFailed","id":1,"id":7}}"#;
        assert_eq!(about(format!(r#"{{"alerts":[{twice}]}}"#).as_bytes()), "BackupFailed 7");
    }

    #[test]
    fn brackets_in_any_place_cost_the_alert_beside_them() {
        let good = firing("BackupFailed", 7);
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let objects = format!("{}0{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
        for junk in [deep, objects, format!("[{}0]", "[],".repeat(20_000))] {
            for place in ["status", "labels", "annotations", "startsAt", "fingerprint", "x"] {
                let odd = format!(r#"{{"{place}":{junk},"{place}s":{junk}}}"#);
                let body = format!(
                    r#"{{"x":{junk},"groupLabels":{junk},"groupKey":{junk},
                        "truncatedAlerts":{junk},"alerts":[{junk},{odd},{good}]}}"#
                );
                assert_eq!(about(body.as_bytes()), "BackupFailed 7", "{place}");
            }
            let body = format!(
                r#"{{"alerts":[{{"status":"firing","labels":{{"x":{junk},"alertname":"BackupFailed",
                    "id":7}},"annotations":{{"x":{junk}}},"startsAt":{junk}}}]}}"#
            );
            assert_eq!(about(body.as_bytes()), "BackupFailed 7");
        }
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
