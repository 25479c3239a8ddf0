//! A store that an earlier version wrote is taken over whole: nothing on disk changed its name.
//!
//! `tests/fixtures/store-0.1.0` has the store of an hbd of November 2026 that had seen most of what
//! can happen, its configuration, and the script that made it. The clocks of the daemon here are
//! shifted to the day of the fixture, or to a year after it.

mod support {
    #![allow(dead_code, reason = "each test file uses some of them")]
    pub mod clock;
    pub mod hbd;
    pub mod http_double;
    pub mod preload;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use heartbeat::clock::{Now, Wall};
use heartbeat::store::{Store, Table};
use serde_json::{Value, json};
use support::clock::hbd_at;
use support::hbd::Hbd;
use tempfile::TempDir;

/// 2026-11-20T12:00:00Z: the store was written half a minute later.
const NOON: i64 = 1_795_176_000;
const DAY: i64 = 86_400;

/// A copy of the fixture, and a daemon on it.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap() };
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-0.1.0");
        fs::copy(fixture.join("heartbeat.yaml"), place.config()).unwrap();
        fs::set_permissions(place.config(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(place.state()).unwrap();
        let store = File::create(place.state().join("heartbeat.redb")).unwrap();
        let packed = File::open(fixture.join("heartbeat.redb.gz")).unwrap();
        let status = Command::new("gzip").arg("-dc").stdin(packed).stdout(store).status();
        assert!(status.expect("gzip can be started: apt-get install gzip").success());
        place
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("heartbeat.yaml")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Starts the daemon when its clock shows `seconds` after noon.
    fn start(&self, seconds: i64) -> Hbd {
        let mut command = hbd_at(NOON + seconds);
        command.env("STATE_DIRECTORY", self.state());
        Hbd::start_by(command, &self.config())
    }

    /// The rows of a table, while no daemon runs.
    fn rows(&self, table: Table) -> BTreeMap<String, Vec<u8>> {
        let (store, _) = Store::open(&self.state(), Now::read()).unwrap();
        store.rows(table).into_iter().collect()
    }
}

/// The value of a row.
fn json_of(row: &[u8]) -> Value {
    serde_json::from_slice(row).unwrap()
}

/// Tables whose rows are JSON; the others have a form of their own, which the history API reads.
const JSON_TABLES: [Table; 11] = [
    Table::Meta,
    Table::Hosts,
    Table::Outbox,
    Table::Troubles,
    Table::Receipts,
    Table::Pipelines,
    Table::History,
    Table::Dyndns,
    Table::Events,
    Table::Plans,
    Table::Names,
];

fn get(hbd: &Hbd, path: &str) -> Value {
    let (status, answer) = hbd.request("GET", path, b"");
    assert_eq!(status, 200, "{path}: {answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// All pages of a list, by the field `key` of each entry.
fn all(hbd: &Hbd, list: &str, key: &str) -> BTreeMap<String, Value> {
    let (mut entries, mut before) = (BTreeMap::new(), String::new());
    loop {
        let page = get(hbd, &format!("/api/v1/{list}?limit=100{before}"));
        for entry in page[list].as_array().unwrap() {
            entries.insert(entry[key].as_str().unwrap().to_owned(), entry.clone());
        }
        let Some(next) = page["next"].as_str() else { return entries };
        before = format!("&before={next}");
    }
}

/// The entry of a list whose field has this value.
fn find<'a>(list: &'a Value, field: &str, value: &Value) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry[field] == *value);
    found.unwrap_or_else(|| panic!("no {field} {value} in {list:#}"))
}

/// Stored milliseconds as the API shows them.
fn shown(millis: &Value) -> Value {
    millis.as_i64().map_or(Value::Null, |millis| json!(Wall(millis).to_string()))
}

/// A number of an event or a delivery as the API shows it.
fn number(stored: u64) -> String {
    format!("{stored:014x}")
}

fn assert_nothing_was_lost(hbd: &Hbd) {
    let bad = ["damaged", "cannot be read", "could not be read", "moved aside", "panicked"];
    let log = hbd.log();
    let lines: Vec<_> =
        log.iter().filter(|line| bad.iter().any(|words| line.contains(words))).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}

#[test]
fn every_table_is_in_the_fixture() {
    let place = Place::new();
    // A table that is newer than the fixture.
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Calm) {
        assert!(!place.rows(table).is_empty(), "{table:?} is empty");
    }
    let rows = |table| -> String {
        let texts = place.rows(table).into_values().map(|row| String::from_utf8(row).unwrap());
        texts.collect::<Vec<_>>().join("\n")
    };
    // What is stored only in special cases is there, too.
    for (table, words) in [
        (Table::Hosts, &["NEW", "UP", "OVERDUE", "SHUTDOWN"].map(|word| format!("{word:?}"))[..]),
        (
            Table::Hosts,
            &[
                "reported",
                "unwatched",
                "boot_id",
                "previous_boot_id",
                "booted",
                "named",
                "covered",
                "granted",
                "key",
                "warning_since",
                "missing",
                "known",
            ]
            .map(|field| format!("\"{field}\":")),
        ),
        (
            Table::Outbox,
            &[
                "recipient",
                "alone",
                "opens",
                "closes",
                "told",
                "ends",
                "thread",
                "bundle",
                "details",
            ]
            .map(|field| format!("\"{field}\":")),
        ),
        (Table::Outbox, &["\"in_flight\":true", "\"possible_repeat\":true"].map(String::from)),
        (Table::Troubles, &["acknowledged", "within", "thread"].map(|f| format!("\"{f}\":"))),
        (
            Table::History,
            &["\"delivered\":false", "\"told_in\":", "\"acknowledged_by\":"].map(String::from),
        ),
        (Table::Dyndns, &["sent", "failure", "held_until"].map(|field| format!("\"{field}\":"))),
    ] {
        let rows = rows(table);
        for word in words {
            assert!(rows.contains(word), "no {word} in {table:?}: {rows}");
        }
    }
    let pipelines = place.rows(Table::Pipelines);
    for prefix in ["batch/", "reported/"] {
        assert!(pipelines.keys().any(|key| key.starts_with(prefix)), "{pipelines:?}");
    }
}

#[test]
fn all_that_an_earlier_version_stored_is_shown() {
    let place = Place::new();
    let before: BTreeMap<Table, _> =
        Table::ALL.into_iter().map(|table| (table, place.rows(table))).collect();
    let hbd = place.start(120);
    check_hosts(&hbd, &before[&Table::Hosts]);
    check_alerts(&hbd, &before[&Table::Troubles]);
    check_notifications(&hbd, &before);
    check_channels(&hbd, &before);
    check_dyndns(&hbd, &before[&Table::Dyndns]);
    let events = all(&hbd, "events", "id");
    for (key, row) in &before[&Table::Events] {
        assert_eq!(events.get(key), Some(&json_of(row)));
    }
    let plans = get(&hbd, "/api/v1/backups");
    for (key, row) in &before[&Table::Plans] {
        assert_eq!(*find(&plans["plans"], "plan", &json!(key)), json_of(row));
    }
    check_history(&hbd, &before[&Table::Names]);
    assert_nothing_was_lost(&hbd);
    hbd.stop();
    // Nothing is dropped, and nothing is written under another name.
    for table in JSON_TABLES {
        let after = place.rows(table);
        for (key, row) in &before[&table] {
            let now = after.get(key).unwrap_or_else(|| panic!("{table:?} lost its row {key}"));
            assert_same_fields(table, key, row, now);
        }
    }
}

fn check_hosts(hbd: &Hbd, rows: &BTreeMap<String, Vec<u8>>) {
    let hosts = get(hbd, "/api/v1/hosts");
    let (_, metrics) = hbd.request("GET", "/metrics", b"");
    for (name, row) in rows {
        let (row, host) = (json_of(row), find(&hosts["hosts"], "name", &json!(name)));
        for stored in row["connections"].as_array().unwrap() {
            let connection = find(&host["connections"], "name", &stored["name"]);
            let seen = &stored["seen"]["wall"];
            assert_eq!(connection["state"], stored["state"], "{name}");
            assert_eq!(connection["address"], stored["address"], "{name}");
            if stored["state"] == "NEW" {
                assert_eq!(connection["last_seen"], Value::Null, "{name}");
                continue;
            }
            assert_eq!(connection["last_seen"], shown(seen), "{name}");
            let sample = format!(
                "hbd_connection_last_seen_timestamp_seconds{{host=\"{name}\",connection={}}} {}",
                stored["name"],
                seen.as_f64().unwrap() / 1000.0
            );
            assert!(metrics.contains(&sample), "no {sample} in {metrics}");
        }
        let mut connections = row["connections"].as_array().unwrap().iter();
        let never_heard = connections.all(|connection| connection["state"] == "NEW");
        assert_eq!(host["state"] == "NEW", never_heard, "{host}");
        if !never_heard {
            assert_eq!(host["since"], shown(&row["since"]), "{name}");
        }
        for stored in row["alerts"].as_array().into_iter().flatten() {
            let metric = find(&host["metrics"], "path", &stored["path"]);
            for field in ["value", "level"] {
                assert_eq!(metric[field], stored[field], "{name}");
            }
            assert_eq!(metric["at"], shown(&stored["known"]["at"]), "{name}");
            assert_eq!(metric["stale"], json!(stored["missing"] == true), "{name}");
            if stored["level"] != "ok" {
                assert_eq!(metric["since"], shown(&stored["since"]), "{name}");
            }
        }
    }
    let level = |level: &str| metrics.matches(level).count();
    assert!(level("hbd_threshold_level{host=\"web1\",metric=\"disk.d1\"} 2") == 1, "{metrics}");
}

/// The subject, and how the text begins, of what is shown about an open incident.
fn subject_of(incident: &Value) -> (String, String) {
    let (kind, of) = incident.as_object().unwrap().iter().next().unwrap();
    let text = |field: &str| of[field].as_str().unwrap().to_owned();
    match kind.as_str() {
        "connection" => (format!("host {}", text("host")), text("connection")),
        "metric" => (format!("host {}", text("host")), text("metric")),
        "never_seen" | "dyndns" => (format!("host {}", text("host")), String::new()),
        "backup" => (format!("plan {}", text("plan")), String::new()),
        "channel" => (format!("channel {}", text("channel")), String::new()),
        other => panic!("{other}"),
    }
}

fn check_alerts(hbd: &Hbd, rows: &BTreeMap<String, Vec<u8>>) {
    let alerts = get(hbd, "/api/v1/alerts");
    for row in rows.values().map(|row| json_of(row)) {
        let (subject, text) = subject_of(&row["trouble"]);
        let notified: Vec<&String> = row["given"].as_object().unwrap().keys().collect();
        let found = alerts["alerts"].as_array().unwrap().iter().find(|alert| {
            alert["subject"] == json!(subject)
                && alert["text"].as_str().unwrap().starts_with(&text)
                && alert["channels"] == json!(notified)
        });
        let alert = found.unwrap_or_else(|| panic!("no {row} in {alerts:#}"));
        assert_eq!(alert["acknowledged"], shown(&row["acknowledged"]["at"]), "{row}");
        // That of a metric is the one that it had when it was last sent.
        if row["trouble"]["metric"] == Value::Null {
            assert_eq!(alert["level"], row["level"], "{row}");
        }
    }
}

fn check_notifications(hbd: &Hbd, before: &BTreeMap<Table, BTreeMap<String, Vec<u8>>>) {
    let notifications = all(hbd, "notifications", "id");
    for (key, row) in &before[&Table::Outbox] {
        let (id, row) = (number(key.parse().unwrap()), json_of(row));
        let shown_as = notifications.get(&id).unwrap_or_else(|| panic!("no {id} for {row}"));
        assert_eq!(shown_as["state"], "waiting", "{shown_as}");
        assert_eq!(shown_as["event"], number(row["message"]["event"].as_u64().unwrap()));
        assert_eq!(shown_as["title"], row["message"]["title"]);
        for field in ["channel", "recipient"] {
            assert_eq!(shown_as[field], row[field], "{shown_as}");
        }
        assert_eq!(shown_as["accepted"], shown(&row["accepted"]["wall"]), "{shown_as}");
        assert!(shown_as["attempts"].as_u64() >= row["attempts"].as_u64(), "{shown_as}");
    }
    for (key, row) in &before[&Table::History] {
        let (id, row) = (number(key.parse().unwrap()), json_of(row));
        let shown_as = notifications.get(&id).unwrap_or_else(|| panic!("no {id} for {row}"));
        let state = if row["delivered"] == true { "delivered" } else { "failed" };
        assert_eq!(shown_as["state"], state, "{shown_as}");
        let of = |field: &str| row[field].as_u64().map_or(Value::Null, |id| json!(number(id)));
        assert_eq!(shown_as["event"], of("event"));
        assert_eq!(shown_as["told_in"], of("told_in"));
        for field in
            ["channel", "recipient", "level", "title", "attempts", "why", "acknowledged_by"]
        {
            assert_eq!(shown_as[field], row[field], "{shown_as}");
        }
        for field in ["accepted", "finished", "acknowledged"] {
            assert_eq!(shown_as[field], shown(&row[field]), "{shown_as}");
        }
    }
}

fn check_channels(hbd: &Hbd, before: &BTreeMap<Table, BTreeMap<String, Vec<u8>>>) {
    let channels = get(hbd, "/api/v1/channels");
    let count = |table: Table, name: &Value| {
        before[&table].values().filter(|row| json_of(row)["channel"] == *name).count()
    };
    for channel in channels["channels"].as_array().unwrap() {
        let name = &channel["name"];
        assert_eq!(channel["waiting"], count(Table::Outbox, name), "{channel}");
        assert_eq!(channel["unacknowledged"], count(Table::Receipts, name), "{channel}");
        let failing = is_reported_as_failing(before, name);
        assert_eq!(channel["failing_since"] != Value::Null, failing, "{channel}");
    }
    let batches = before[&Table::Pipelines].keys().filter(|key| key.starts_with("batch/")).count();
    assert_eq!(hbd.metric("hbd_pipelines"), batches as f64);
    assert_eq!(hbd.metric("hbd_outbox_deliveries"), before[&Table::Outbox].len() as f64);
}

/// Whether it was told that a channel fails, and not yet that it delivers again.
fn is_reported_as_failing(
    before: &BTreeMap<Table, BTreeMap<String, Vec<u8>>>,
    name: &Value,
) -> bool {
    let incident = json!({"channel": {"channel": name}});
    before[&Table::Troubles].values().any(|row| json_of(row)["trouble"] == incident)
}

fn check_dyndns(hbd: &Hbd, rows: &BTreeMap<String, Vec<u8>>) {
    let names = get(hbd, "/api/v1/dyndns");
    for (host, row) in rows {
        let (row, name) = (json_of(row), find(&names["names"], "host", &json!(host)));
        assert_eq!((&name["name"], &name["server"]), (&row["name"], &row["place"]));
        for (family, stored) in row["records"].as_object().unwrap() {
            let record = find(&name["records"], "type", &json!(family));
            assert_eq!(record["address"], stored["wanted"], "{name}");
            assert_eq!(record["written"], stored["sent"], "{name}");
            assert_eq!(record["last_update"], shown(&stored["at"]), "{name}");
        }
        assert_eq!(name["failing_since"], shown(&row["failure"]["since"]), "{name}");
        // A provider that wants to be left alone is, as long as the configuration is the same.
        if row["held_until"] != Value::Null {
            assert_eq!(name["state"], "refused", "{name}");
            let next = name["next_attempt"].as_str().unwrap();
            let held = shown(&row["held_until"]);
            assert_eq!(&next[..16], &held.as_str().unwrap()[..16], "{name}");
        }
    }
}

fn check_history(hbd: &Hbd, names: &BTreeMap<String, Vec<u8>>) {
    for (key, row) in names {
        let (host, _) = key.split_once('/').unwrap();
        let past = get(hbd, &format!("/api/v1/hosts/{host}/history?metrics=*"));
        let mut paths = json_of(row)["paths"].as_array().unwrap().clone();
        paths.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        let series = past["series"].as_array().unwrap();
        let shown: Vec<Value> = series.iter().map(|series| series["path"].clone()).collect();
        assert_eq!(shown, paths, "{host}");
        assert!(series.iter().all(|series| series["points"] != json!([])), "{past:#}");
    }
    let past = get(hbd, "/api/v1/hosts/web1/history?metrics=cpu");
    let points = past["series"][0]["points"].as_array().unwrap();
    let last = points.last().unwrap();
    let values = [&last["at"], &last["least"], &last["most"]];
    assert_eq!(values, [&json!("2026-11-20T11:40:00.000Z"), &json!(85.5), &json!(93.5)]);
    let week = get(hbd, "/api/v1/hosts/web1/history?metrics=cpu&range=7d");
    let first = &week["series"][0]["points"][0];
    assert_eq!((&first["at"], &first["mean"]), (&json!("2026-11-20T11:00:00.000Z"), &json!(86.0)));
    let seconds = |list: &str, field: &str| -> f64 {
        past[list].as_array().unwrap().iter().map(|slice| slice[field].as_f64().unwrap()).sum()
    };
    // Well for ten seconds four days before, beyond its limits for a quarter of an hour before noon.
    assert_eq!(seconds("days", "up"), 10.0, "{past:#}");
    assert!((870.0..1000.0).contains(&seconds("days", "degraded")), "{past:#}");
    assert!((510.0..640.0).contains(&seconds("hours", "degraded")), "{past:#}");
    let past = get(hbd, "/api/v1/hosts/mail1/history");
    let today = past["days"].as_array().unwrap().last().unwrap();
    assert_eq!(today["up"], 2.0, "{past:#}");
    assert!((870.0..1000.0).contains(&today["down"].as_f64().unwrap()), "{past:#}");
}

/// Every field of a row that may be there: `given.chat.events[]`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                fields(value, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(list) => {
            list.iter().for_each(|value| fields(value, &format!("{path}[]"), found));
        }
        Value::String(text) => drop(found.insert(format!("{path} = {text}"))),
        _ => drop(found.insert(path.to_owned())),
    }
}

/// Whether each field, and each text in it, of the row is there still.
fn assert_same_fields(table: Table, key: &str, row: &[u8], now: &[u8]) {
    let read = if table == Table::Meta { without_texts } else { json_of };
    let (row, now) = (read(row), read(now));
    let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
    fields(&row, "", &mut old);
    fields(&now, "", &mut new);
    // Whether the last boot had an id means nothing where none is known.
    let means = |field: &&String| *field != ".named" || old.contains(".booted");
    let gone: Vec<_> = old.difference(&new).filter(means).collect();
    assert!(gone.is_empty(), "{table:?} {key} lost {gone:#?}\n{row}\n{now}");
}

#[test]
fn every_row_is_written_under_the_names_that_it_had() {
    let place = Place::new();
    let before: BTreeMap<Table, _> =
        Table::ALL.into_iter().map(|table| (table, place.rows(table))).collect();
    // A directory where the lock should be: the store can be read, but not written.
    let lock = place.state().join("hbd.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    let hbd = place.start(120);
    let beat = json!({"host": "quiet1", "metrics": {"cpu": 1}}).to_string();
    hbd.request("POST", "/api/v1/heartbeat", beat.as_bytes());
    // When the disk takes writes again the file is gone: all that is known is written anew.
    fs::remove_file(place.state().join("heartbeat.redb")).unwrap();
    fs::remove_dir(&lock).unwrap();
    hbd.wait_until("the store writes", |hbd| {
        all(hbd, "events", "id").values().any(|event| event["kind"] == "store_writes")
    });
    hbd.stop();
    let known = [
        Table::Meta,
        Table::Hosts,
        Table::Outbox,
        Table::Troubles,
        Table::Receipts,
        Table::Pipelines,
        Table::Dyndns,
    ];
    for table in known {
        let after = place.rows(table);
        for (key, row) in &before[&table] {
            let now = after.get(key).unwrap_or_else(|| panic!("{table:?} lost its row {key}"));
            // The host that was heard meanwhile is another one now.
            if key != "quiet1" {
                assert_same_fields(table, key, row, now);
            }
        }
    }
    // What is only ever added has new rows, which look as the old ones do.
    for table in [Table::History, Table::Events, Table::Names] {
        let names = |rows: &BTreeMap<String, Vec<u8>>| -> BTreeSet<String> {
            let row = |row| json_of(row).as_object().unwrap().clone();
            rows.values().flat_map(|bytes| row(bytes)).map(|(name, _)| name).collect()
        };
        let (mut old, new) = (names(&before[&table]), names(&place.rows(table)));
        if table == Table::Events {
            // Who was told, what held it back, and what it repeats: newer than the fixture.
            old.extend(["told", "held_by", "trouble", "reminder"].map(String::from));
        }
        assert!(!new.is_empty() && new.is_subset(&old), "{table:?} had {old:?} and has {new:?}");
    }
}

/// Changes every copy of these bytes in the file of the store.
fn damage(place: &Place, bytes: &[u8]) -> Vec<u8> {
    let path = place.state().join("heartbeat.redb");
    let mut file = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..file.len() - bytes.len()).filter(|at| file[*at..].starts_with(bytes)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| file[at] ^= 1);
    fs::write(path, &file).unwrap();
    file
}

#[test]
fn rows_of_an_earlier_version_get_their_checks_and_damaged_ones_are_told() {
    let known = Place::new().rows(Table::Hosts);
    let (host, row) = known.iter().next().unwrap();
    for is_checked in [false, true] {
        let place = Place::new();
        if is_checked {
            assert_eq!(place.rows(Table::Hosts), known);
        }
        let damaged = damage(&place, &row[..row.len() / 2]);
        let (mut store, _) = Store::open(&place.state(), Now::read()).unwrap();
        let reports = format!("{:?}", store.take_reports());
        assert!(reports.contains(&format!("host {host}")), "{reports}");
        let rows: BTreeMap<_, _> = store.rows(Table::Hosts).into_iter().collect();
        assert!(!rows.contains_key(host));
        assert!(rows.iter().all(|(key, row)| known[key] == *row), "nothing altered is read");
        // Without checks nobody knows which rows of a damaged page are right.
        assert!(!is_checked || rows.len() == known.len() - 1, "{}", rows.len());
        assert!(!store.rows(Table::Outbox).is_empty(), "the other tables are there");
        let kept = fs::read_dir(place.state()).unwrap().map(|entry| entry.unwrap().path());
        let kept = kept.filter(|path| path.to_string_lossy().contains(".damaged-"));
        assert!(kept.map(|path| fs::read(path).unwrap()).eq([damaged]), "it is kept as it was");
    }
}

/// The value of a row whose texts change from one start to the next.
fn without_texts(row: &[u8]) -> Value {
    let mut value = json_of(row);
    for inside in value.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if inside.is_string() {
            *inside = json!(0);
        }
    }
    value
}

#[test]
fn a_year_later_nothing_is_lost_either() {
    let place = Place::new();
    let (outbox, hosts) = (place.rows(Table::Outbox), place.rows(Table::Hosts));
    let hbd = place.start(366 * DAY);
    // The alerts that waited for their pipelines are looked into and reported.
    hbd.wait_until("the pipelines run", |hbd| hbd.metric("hbd_pipelines") == 0.0);
    let plans = get(&hbd, "/api/v1/backups");
    let outcome = |plan: &str| find(&plans["plans"], "plan", &json!(plan))["outcome"].clone();
    assert_eq!((outcome("1"), outcome("2")), (json!("UNKNOWN"), json!("UNKNOWN")));
    // Deliveries wait still, or were given up, and are listed as such.
    let notifications = all(&hbd, "notifications", "id");
    for key in outbox.keys() {
        let shown = notifications.get(&number(key.parse().unwrap()));
        let shown = shown.unwrap_or_else(|| panic!("{key} is neither waiting nor in the history"));
        assert_ne!(shown["state"], "delivered", "{shown}");
    }
    let listed = get(&hbd, "/api/v1/hosts");
    for (name, row) in &hosts {
        let host = find(&listed["hosts"], "name", &json!(name));
        let row = json_of(row);
        let connections = row["connections"].as_array().unwrap().iter();
        for stored in connections.filter(|connection| connection["state"] != "NEW") {
            let connection = find(&host["connections"], "name", &stored["name"]);
            assert_eq!(connection["last_seen"], shown(&stored["seen"]["wall"]), "{name}");
        }
    }
    assert_nothing_was_lost(&hbd);
    hbd.stop();
}
