//! A host that has another name from now on (`hosts.NAME.was`) takes over what is stored of its old one:
//! its state and open alarms, its events, availability and metrics. At the start, before anything is
//! read, and once: as soon as it was heard under its new name there is nothing to take over.

use log::info;
use serde_json::Value;

use crate::clock::Now;
use crate::config::Config;
use crate::event::Incident;
use crate::heartbeat::monitor::Monitor;
use crate::heartbeat::persistence::HostRow;
use crate::store::{CommitResult, RawRow, Store, Table, Write};
use crate::view::HostState;

/// Rewrites what is stored of hosts that have another name.
///
/// # Errors
/// When that is not on disk: a start that went on would read the old names, and tell of each that it is
/// no longer watched.
pub fn take_over_renamed(store: &mut Store, config: &Config, now: Now) -> Result<(), String> {
    for (new, old) in renames(config) {
        let known = store.get::<HostRow>(Table::Hosts, old).is_some();
        let row = store.get::<HostRow>(Table::Hosts, new).unwrap_or_default();
        let was_heard = row.connections.iter().any(|one| one.state != HostState::New);
        if !known || was_heard {
            continue;
        }
        let rename = Rename { old, new };
        let mut count = 0;
        for table in Table::ALL {
            for row in store.rows(table) {
                let key = row.0.clone();
                let Some(write) = rename.row(table, row) else { continue };
                if write.key != key {
                    store.write(Write::remove(table, key));
                }
                store.write(write);
                count += 1;
            }
        }
        if store.commit(now) != CommitResult::Committed {
            let why = store.failure().unwrap_or("not all of it can be read");
            return Err(format!("hosts.{new}.was: {new} cannot take over from {old}: {why}"));
        }
        info!("{new} takes over what is known of {old} (hosts.{new}.was): {count} rows");
    }
    Ok(())
}

/// A host that is to take over another one that is known: its name and the old one.
pub fn pending<'a>(monitor: &Monitor, config: &'a Config) -> Option<(&'a str, &'a str)> {
    renames(config).find(|(new, old)| {
        let was_heard = monitor.view(new).is_some_and(|host| host.state != HostState::New);
        !was_heard && monitor.view(old).is_some()
    })
}

/// The hosts with another name, and the one that they had.
fn renames(config: &Config) -> impl Iterator<Item = (&str, &str)> {
    config.hosts.iter().filter_map(|(new, host)| Some((new.as_str(), host.was.as_deref()?)))
}

struct Rename<'a> {
    old: &'a str,
    new: &'a str,
}

impl Rename<'_> {
    /// A row under its new name; none when it is not about the host.
    fn row(&self, table: Table, (key, value): RawRow) -> Option<Write> {
        let own = |key: &str| (key == self.old).then(|| self.new.to_owned());
        match table {
            Table::Hosts | Table::Dyndns | Table::Hours | Table::Days => {
                Some(Write::raw(table, own(&key)?, value))
            }
            Table::Names => {
                let (host, list) = key.rsplit_once('/')?;
                Some(Write::raw(table, format!("{}/{list}", own(host)?), value))
            }
            Table::Metrics => {
                let (slot, host) = key.rsplit_once('/')?;
                Some(Write::raw(table, format!("{slot}/{}", own(host)?), value))
            }
            Table::Troubles => self.json(table, self.incident_key(&key)?, &value),
            Table::Calm => {
                let of_incident = key.split_once('/').and_then(|(kind, incident)| {
                    Some(format!("{kind}/{}", self.incident_key(incident)?))
                });
                match of_incident {
                    // Where only the key says whom it is about the value stays.
                    Some(key) => self
                        .json(table, key.clone(), &value)
                        .or(Some(Write::raw(table, key, value))),
                    None => self.json(table, key, &value),
                }
            }
            Table::Outbox | Table::Receipts | Table::History | Table::Events => {
                self.json(table, key, &value)
            }
            Table::Meta | Table::Pipelines | Table::Plans => None,
        }
    }

    /// The key of an incident of the host; none when it is another's, or no incident.
    fn incident_key(&self, key: &str) -> Option<String> {
        let mut value: Value = serde_json::from_str(key).ok()?;
        let changed = self.within(&mut value);
        let incident: Incident = serde_json::from_value(value).ok()?;
        changed.then(|| incident.key())
    }

    fn json(&self, table: Table, key: String, value: &[u8]) -> Option<Write> {
        // Of many thousands nearly all are about others.
        let names_it = value.windows(self.old.len()).any(|part| part == self.old.as_bytes());
        let mut row: Value = serde_json::from_slice(value).ok().filter(|_| names_it)?;
        self.within(&mut row).then(|| Write::put(table, key, &row))
    }

    /// Renames the host wherever a field says that it is about it; what was told stays as it was.
    fn within(&self, value: &mut Value) -> bool {
        match value {
            Value::Object(fields) => fields.iter_mut().fold(false, |changed, (name, field)| {
                let renamed = match (name.as_str(), field.as_str()) {
                    ("host", Some(host)) if host == self.old => Some(self.new.to_owned()),
                    ("subject", Some(subject))
                        if subject.strip_prefix("host ") == Some(self.old) =>
                    {
                        Some(format!("host {}", self.new))
                    }
                    ("scope", Some(scope)) => match scope.strip_prefix(self.old) {
                        Some(part) if part.is_empty() || part.starts_with('/') => {
                            Some(format!("{}{part}", self.new))
                        }
                        _ => None,
                    },
                    _ => None,
                };
                match renamed {
                    Some(renamed) => {
                        *field = Value::String(renamed);
                        true
                    }
                    None => self.within(field) | changed,
                }
            }),
            Value::Array(values) => {
                values.iter_mut().fold(false, |changed, value| self.within(value) | changed)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    const RENAME: Rename = Rename { old: "web1", new: "www" };

    fn renamed(table: Table, key: &str, value: &str) -> Option<(String, String)> {
        let write = RENAME.row(table, (key.to_owned(), value.into()))?;
        Some((write.key, String::from_utf8(write.value.unwrap()).unwrap()))
    }

    #[test]
    fn rows_of_a_host_get_its_new_name_and_those_of_others_stay() {
        for (table, key, new) in [
            (Table::Hosts, "web1", "www"),
            (Table::Days, "web1", "www"),
            (Table::Names, "web1/0007", "www/0007"),
            (Table::Metrics, "a00000001/web1", "a00000001/www"),
        ] {
            assert_eq!(renamed(table, key, "x"), Some((new.to_owned(), "x".to_owned())));
        }
        for (table, key) in [
            (Table::Hosts, "web10"),
            (Table::Names, "web10/0007"),
            (Table::Metrics, "a00000001/web10"),
            (Table::Meta, "web1"),
        ] {
            assert_eq!(renamed(table, key, "x"), None, "{key}");
        }
    }

    #[test]
    fn incidents_events_and_silences_are_about_the_new_name() {
        let incident = |host: &str| Incident::metric(host, "m");
        let row = |host: &str| json!({"trouble": incident(host), "title": "web1 m"}).to_string();
        let (key, value) = renamed(Table::Troubles, &incident("web1").key(), &row("web1")).unwrap();
        assert_eq!(key, incident("www").key());
        let value: Value = serde_json::from_str(&value).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(&row("www")).unwrap());
        assert_eq!(renamed(Table::Troubles, &incident("web10").key(), &row("web10")), None);
        let held = format!("held/{}", incident("web1").key());
        let (key, _) = renamed(Table::Calm, &held, &row("web1")).unwrap();
        assert_eq!(key, format!("held/{}", incident("www").key()));
        let flap = |host: &str| format!("flap/{}", incident(host).key());
        let value = r#"{"events":[1]}"#;
        assert_eq!(
            renamed(Table::Calm, &flap("web1"), value),
            Some((flap("www"), value.to_owned())),
            "it stayed under the old name"
        );
        assert_eq!(renamed(Table::Calm, &flap("web10"), value), None);
        let event = r#"{"host":"web1","subject":"host web1","text":"web1 booted"}"#;
        let new = r#"{"host":"www","subject":"host www","text":"web1 booted"}"#.to_owned();
        assert_eq!(renamed(Table::Events, "1", event), Some(("1".into(), new)));
        for (scope, new) in [("web1", "www"), ("web1/m", "www/m"), ("web10", "web10")] {
            let row = |scope: &str| format!(r#"{{"host":"web1","scope":"{scope}"}}"#);
            let (key, value) = renamed(Table::Calm, "silence/s1", &row(scope)).unwrap();
            assert_eq!(key, "silence/s1");
            assert_eq!(value, row(new).replace(r#""host":"web1""#, r#""host":"www""#));
        }
        assert_eq!(renamed(Table::Events, "1", r#"{"host":"db1","text":"web1"}"#), None);
    }

    #[test]
    fn a_host_takes_over_from_one_that_is_gone_and_from_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        let hosts = "hosts: {a: {was: a}, b: {was: c}, c: {}, d: {was: x}, e: {was: x}}\n";
        fs::write(&file, hosts).unwrap();
        let problems = Config::load(&file).unwrap_err().to_string();
        for problem in [
            "hosts.a.was: a cannot take over from itself",
            "hosts.b.was: c is still among the hosts: take it out, or this line",
            "hosts.e.was: d takes over from x already: only one can",
        ] {
            assert!(problems.contains(problem), "{problem}: {problems}");
        }
    }

    /// A configuration in this directory, where www was web1.
    fn renaming(directory: &Path) -> Config {
        let file = directory.join("heartbeat.yaml");
        let text = "hosts: {www: {watch: true, was: web1}}\n\
                    notification_channels: {log: {type: log}}\n\
                    default_notification_channels: [log]\n";
        fs::write(&file, format!("state_dir: {}\n{text}", directory.display())).unwrap();
        Config::load(&file).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn a_takeover_that_the_disk_refuses_ends_the_start_and_is_made_at_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (config, now) = (renaming(directory.path()), Now::read());
        let (state, away) = (directory.path().join("state"), directory.path().join("away"));
        let (mut store, _) = Store::open(&state, now).unwrap();
        store.write(Write::raw(Table::Days, "web1", vec![1]));
        store.write(Write::put(Table::Hosts, "web1", &json!({})));
        store.commit(now);
        // A file where the directory should be: not even root can write below it.
        fs::rename(&state, &away).unwrap();
        fs::write(&state, "").unwrap();
        let why = take_over_renamed(&mut store, &config, now.later(MINUTE)).unwrap_err();
        assert!(why.starts_with("hosts.www.was: www cannot take over from web1: "), "{why}");
        drop(store);
        let (mut store, _) = Store::open(&away, now).unwrap();
        take_over_renamed(&mut store, &config, now).unwrap();
        assert_eq!(store.rows(Table::Days), [("www".to_owned(), vec![1])]);
    }

    #[test]
    fn a_renamed_host_takes_over_once() {
        let directory = tempfile::tempdir().unwrap();
        let (config, now) = (renaming(directory.path()), Now::read());
        let (mut store, _) = Store::open(directory.path(), now).unwrap();
        let heard: Value = json!({"connections": [{"name": "ipv4", "state": "OVERDUE"}]});
        store.write(Write::put(Table::Hosts, "web1", &heard));
        store.write(Write::raw(Table::Days, "web1", vec![1, 2]));
        store.write(Write::put(Table::Hosts, "www", &json!({})));
        store.commit(now);
        take_over_renamed(&mut store, &config, now).unwrap();
        let row = store.get::<HostRow>(Table::Hosts, "www").unwrap();
        assert_eq!(row.connections[0].state, HostState::Overdue);
        assert_eq!(store.rows(Table::Days), [("www".to_owned(), vec![1, 2])]);
        assert!(store.get::<HostRow>(Table::Hosts, "web1").is_none());
        // It beats under its old name, too: that is another host by now.
        store.write(Write::raw(Table::Days, "web1", vec![3]));
        store.write(Write::put(Table::Hosts, "web1", &heard));
        store.commit(now);
        take_over_renamed(&mut store, &config, now).unwrap();
        assert_eq!(store.rows(Table::Days).len(), 2);
    }
}
