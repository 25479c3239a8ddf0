//! The words for events: one title, and what more there is to say. Pure.

use super::{Event, EventKind};
use crate::clock::{Wall, words};

impl Event {
    pub(super) fn title(&self) -> String {
        match &self.kind {
            EventKind::Overdue { host, connection, .. } => format!("{host} {connection} overdue"),
            EventKind::Shutdown { host, connection } => format!("{host} {connection} shutdown"),
            EventKind::Back { host, connection, .. } => format!("{host} {connection} is back"),
            EventKind::Booted { host, .. } => format!("{host} booted"),
            EventKind::Said { host, text } => format!("{host} {text}"),
            EventKind::NeverSeen { host, .. } => format!("{host} was never heard"),
            EventKind::FirstHeard { host, connection } => format!("{host} {connection} is up"),
            EventKind::Threshold { host, metric, value, limit, .. } => format!(
                "{}: {host} - {metric} = {} (threshold: {limit})",
                self.level,
                decimal(*value)
            ),
            EventKind::Missing { host, metric, .. } => format!("{host} metric {metric} is missing"),
            EventKind::StoreRefuses { .. } => "hbd cannot write its state to disk".into(),
            EventKind::StoreWrites { .. } => "hbd writes its state to disk again".into(),
            EventKind::StoreMovedAside { .. } => {
                "hbd could not read its state and began anew".into()
            }
            EventKind::ChannelFails { channel, why, .. } => {
                format!("channel {channel} is failing: {why}")
            }
            EventKind::ChannelDelivers { channel, .. } => {
                format!("channel {channel} delivers again")
            }
            EventKind::Backup { title, .. } => title.clone(),
            EventKind::AlertsLost { .. } => {
                "hbd can no longer read backup alerts that it accepted".into()
            }
            EventKind::AlertmanagerSilent { why } => {
                format!("Alertmanager cannot be asked about backups: {why}")
            }
            EventKind::AlertmanagerAnswers { .. } => "Alertmanager answers again".into(),
            EventKind::DyndnsFails { name, why, .. } => format!("{name} cannot be updated: {why}"),
            EventKind::DyndnsKept { name, .. } => format!("{name} is kept up to date again"),
            EventKind::Custom { text, .. } => text.clone(),
        }
    }

    pub(super) fn details(&self) -> Vec<(&'static str, String)> {
        match &self.kind {
            EventKind::Overdue { last_seen, promised, others_down, others_count, .. } => {
                let others = (!others_down.is_empty()).then(|| listed(others_down, *others_count));
                let seen = [
                    ("last seen", last_seen.to_string()),
                    ("promised", format!("the next beat by {promised}")),
                ];
                seen.into_iter().chain(others.map(|others| ("also overdue", others))).collect()
            }
            EventKind::Back { gone, .. } => vec![("gone for", words(*gone))],
            EventKind::Booted { announced, gone, .. } => {
                let gone = gone.iter().map(|gone| ("not heard for", words(*gone)));
                gone.chain((!announced).then(|| ("reboot", UNANNOUNCED.into()))).collect()
            }
            EventKind::NeverSeen { configured, .. } => vec![
                ("configured since", configured.to_string()),
                (
                    "to do",
                    "install the agent there, or take the host out of the configuration".into(),
                ),
            ],
            EventKind::Threshold { since, reminder: true, .. } => {
                vec![("reminder", format!("at this level since {since}"))]
            }
            EventKind::Missing { last, value, limit, stood, .. } => {
                was_then(*last, &format!("{stood}: {} (threshold: {limit})", decimal(*value)))
            }
            EventKind::StoreRefuses { why } => vec![
                ("why", why.clone()),
                ("meanwhile", "alarms are sent, but a crash would lose what is not on disk".into()),
            ],
            EventKind::StoreWrites { refused_for } => vec![("refused for", words(*refused_for))],
            EventKind::AlertmanagerSilent { .. } => {
                vec![("meanwhile", "a backup that fails would not be noticed here".into())]
            }
            EventKind::AlertmanagerAnswers { silent_for } => {
                vec![("silent for", words(*silent_for))]
            }
            EventKind::AlertsLost { rows, count } => lost_alerts(rows, *count),
            EventKind::StoreMovedAside { why, to } => moved_aside(why, to),
            EventKind::ChannelFails { waiting, .. } => vec![("waiting for it", messages(*waiting))],
            EventKind::ChannelDelivers { failed_for, .. } => {
                vec![("failed for", words(*failed_for))]
            }
            EventKind::DyndnsFails { host, .. } => of_name(host, "meanwhile", STALE_NAME),
            EventKind::DyndnsKept { host, failed_for, .. } => {
                of_name(host, "failed for", &words(*failed_for))
            }
            // The words alone need not say which host they are about.
            EventKind::Custom { host: Some(host), .. } => vec![("host", host.clone())],
            EventKind::Shutdown { .. }
            | EventKind::Said { .. }
            | EventKind::FirstHeard { .. }
            | EventKind::Threshold { .. }
            | EventKind::Backup { .. }
            | EventKind::Custom { host: None, .. } => Vec::new(),
        }
    }
}

fn was_then(last: Wall, how: &str) -> Vec<(&'static str, String)> {
    vec![
        ("last sent", last.to_string()),
        ("was then", how.to_owned()),
        ("meanwhile", "nobody knows how it stands, its alert stays open".into()),
    ]
}

fn moved_aside(why: &str, to: &str) -> Vec<(&'static str, String)> {
    vec![
        ("why", why.to_owned()),
        ("kept as", to.to_owned()),
        ("lost", "what was waiting to be sent, and which alerts were open".into()),
    ]
}

fn lost_alerts(rows: &[String], count: usize) -> Vec<(&'static str, String)> {
    vec![
        ("not readable", lines(rows, count)),
        ("lost", "which backups they were about: nobody will be told of these".into()),
        ("to do", "look how all backups fared: hbd backup --all".into()),
    ]
}

const UNANNOUNCED: &str = "it was not announced by a shutdown";
const STALE_NAME: &str = "the name may lead to an address that is no longer the host's";

fn of_name(host: &str, label: &'static str, text: &str) -> Vec<(&'static str, String)> {
    vec![("host", host.to_owned()), (label, text.to_owned())]
}

fn messages(count: usize) -> String {
    if count == 1 { "1 message".into() } else { format!("{count} messages") }
}

/// The names, then how many more of `count` there are.
fn listed(names: &[String], count: usize) -> String {
    match count.saturating_sub(names.len()) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// One below the other, then how many more of `count` there are.
fn lines(rows: &[String], count: usize) -> String {
    match count.saturating_sub(rows.len()) {
        0 => rows.join("\n"),
        more => format!("{}\nand {more} more", rows.join("\n")),
    }
}

/// A number as short as it can be told exactly, with at least one decimal: `95.2`, `90.0`.
pub fn decimal(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use super::super::MOST_OTHERS;
    use super::*;

    #[test]
    fn a_long_list_of_hosts_is_cut_with_its_true_count() {
        let names: Vec<_> = (0..MOST_OTHERS).map(|n| format!("h{n}")).collect();
        assert!(listed(&names, 9_999).ends_with("h8, h9 and 9989 more"));
        assert_eq!(listed(&names[..2], 2), "h0, h1");
    }
}
