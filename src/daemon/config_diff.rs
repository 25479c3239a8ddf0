//! The differences between two configurations, as sentences for the log and for the answer to a reload.
//! Pure.

use std::collections::BTreeMap;

use crate::btree::InsertAll;
use crate::config::Config;
use crate::heartbeat::host_settings::HostSettings;

/// How many names a sentence lists.
const MAX_LISTED: usize = 10;

/// A sentence for each difference. Of secrets only that they changed.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut sentences = Vec::new();
    entries("notification_channels", &old.channels, &new.channels, &mut sentences);
    entries("hosts", &old.hosts, &new.hosts, &mut sentences);
    let patterns = |config: &Config| -> BTreeMap<String, HostSettings> {
        let entries = config.patterns.iter();
        entries.map(|(pattern, host)| (pattern.to_owned(), host.clone())).insert_all()
    };
    entries("hosts", &patterns(old), &patterns(new), &mut sentences);
    entries("threshold_configs", &old.threshold_sets, &new.threshold_sets, &mut sentences);
    let (was, is) = (&old.heartbeat, &new.heartbeat);
    address("heartbeat", (&was.host, was.port), (&is.host, is.port), &mut sentences);
    let (was, is) = (&old.receiver, &new.receiver);
    address("receiver", (&was.host, was.port), (&is.host, is.port), &mut sentences);
    match (&was.token, &is.token) {
        (None, Some(_)) => sentences.push("receiver.token: is asked for".into()),
        (Some(_), None) => sentences.push("receiver.token: is no longer asked for".into()),
        (was, is) if was != is => sentences.push("receiver.token: another one".into()),
        _ => {}
    }
    if was.public_groups != is.public_groups {
        sentences.push(match is.public_groups.as_slice() {
            [] => "receiver.public: nothing is shown without the token any more".into(),
            groups => format!("receiver.public: everybody is shown {}", groups.join(", ")),
        });
    }
    match (&was.tls, &is.tls) {
        (Some(_), None) => sentences.push("receiver.tls: plain HTTP".into()),
        (was, Some(is)) if was.as_ref().is_none_or(|was| was.certificate != is.certificate) => {
            let until = is.certificate.not_after();
            sentences.push(format!("receiver.tls: another certificate, valid until {until}"));
        }
        _ => {}
    }
    for (name, differs) in whole_sections(old, new) {
        if differs {
            sentences.push(format!("{name}: changed"));
        }
    }
    sentences
}

/// Sections whose changes are not described in detail, and whether they changed.
fn whole_sections(old: &Config, new: &Config) -> [(&'static str, bool); 13] {
    let heartbeat = |config: &Config| {
        let mut settings = config.heartbeat.clone();
        (settings.host, settings.port) = (String::new(), 0);
        settings
    };
    let receiver = |config: &Config| {
        let mut settings = config.receiver.clone();
        (settings.host, settings.port) = (String::new(), 0);
        (settings.token, settings.tls) = (None, None);
        settings.public_groups.clear();
        settings
    };
    let limits = |config: &Config| (config.calm.longest_silence, config.calm.longest_host_silence);
    [
        ("default_notification_channels", old.default_channels != new.default_channels),
        ("renotify_interval", old.renotify_interval != new.renotify_interval),
        ("renotify_backoff", old.renotify_backoff != new.renotify_backoff),
        ("heartbeat", heartbeat(old) != heartbeat(new)),
        ("receiver", receiver(old) != receiver(new)),
        ("agent", old.agent != new.agent),
        ("dyndns", old.dyndns != new.dyndns),
        ("history", old.history != new.history),
        ("correlator", old.correlator != new.correlator),
        ("repo_check", old.repo_check != new.repo_check),
        ("maintenance", old.calm.windows != new.calm.windows),
        ("calm", limits(old) != limits(new)),
        ("notifier", (&old.notifier, &old.telling) != (&new.notifier, &new.telling)),
    ]
}

fn address(section: &str, was: (&str, u16), is: (&str, u16), sentences: &mut Vec<String>) {
    if was != is {
        sentences.push(format!("{section}: moved from {}:{} to {}:{}", was.0, was.1, is.0, is.1));
    }
}

fn entries<T: PartialEq>(
    section: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    sentences: &mut Vec<String>,
) {
    let missing = |from: &BTreeMap<String, T>, of: &BTreeMap<String, T>| -> Vec<String> {
        of.keys().filter(|name| !from.contains_key(*name)).cloned().collect()
    };
    let differs = |name: &&String| old.get(*name).is_some_and(|was| new[*name] != *was);
    let changed: Vec<String> = new.keys().filter(differs).cloned().collect();
    for (what, names) in
        [("new", missing(old, new)), ("removed", missing(new, old)), ("changed", changed)]
    {
        if names.is_empty() {
            continue;
        }
        let shown = names[..names.len().min(MAX_LISTED)].join(", ");
        let more = match names.len().saturating_sub(MAX_LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        sentences.push(format!("{section}: {what}: {shown}{more}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        let whole = format!("state_dir: /tmp/state\n{text}");
        std::fs::write(&file, whole).unwrap();
        Config::load(&file).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn what_is_different_is_said_and_no_secret_is_shown() {
        let old = config(
            "hosts: {web1: {}, web2: {}, db1: {}}\nreceiver: {token: first-secret}\n\
             notification_channels: {log: {type: log}}\n",
        );
        let new = config(
            "hosts: {web2: {watch: true}, db1: {}, db2: {}}\n\
             receiver: {token: second-secret, port: 9100, poll_interval: 1m}\n\
             notification_channels: {log: {type: log}}\nheartbeat: {host: localhost}\n",
        );
        assert_eq!(
            changes(&old, &new),
            [
                "hosts: new: db2",
                "hosts: removed: web1",
                "hosts: changed: web2",
                "heartbeat: moved from 127.0.0.1:9099 to localhost:9099",
                "receiver: moved from 127.0.0.1:9099 to 127.0.0.1:9100",
                "receiver.token: another one",
                "receiver: changed",
            ]
        );
        assert_eq!(changes(&new, &new), [""; 0]);
    }

    #[test]
    fn many_names_are_counted() {
        let hosts = (10..30).map(|n| format!("h{n}: {{}}")).collect::<Vec<_>>().join(", ");
        let sentences = changes(&config("hosts: {}"), &config(&format!("hosts: {{{hosts}}}")));
        assert_eq!(
            sentences,
            ["hosts: new: h10, h11, h12, h13, h14, h15, h16, h17, h18, h19 and 10 more"]
        );
    }
}
