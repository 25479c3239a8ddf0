//! The words for events: one title, and what more there is to say. Pure.

use super::{Event, Fact};
use crate::clock::{Wall, words};

impl Event {
    pub(super) fn title(&self) -> String {
        match &self.fact {
            Fact::Overdue { host, connection, .. } => format!("{host} {connection} overdue"),
            Fact::Shutdown { host, connection } => format!("{host} {connection} shutdown"),
            Fact::Back { host, connection, .. } => format!("{host} {connection} is back"),
            Fact::Booted { host, .. } => format!("{host} booted"),
            Fact::Said { host, text } => format!("{host} {text}"),
            Fact::NeverSeen { host, .. } => format!("{host} was never heard"),
            Fact::FirstHeard { host, connection } => format!("{host} {connection} is up"),
            Fact::Threshold { host, metric, value, limit, .. } => format!(
                "{}: {host} - {metric} = {} (threshold: {limit})",
                self.level,
                decimal(*value)
            ),
            Fact::Missing { host, metric, .. } => format!("{host} metric {metric} is missing"),
            Fact::StoreRefuses { .. } => "hbd cannot write its state to disk".into(),
            Fact::StoreWrites { .. } => "hbd writes its state to disk again".into(),
            Fact::StoreMovedAside { .. } => "hbd could not read its state and began anew".into(),
            Fact::ChannelFails { channel, why, .. } => {
                format!("channel {channel} is failing: {why}")
            }
            Fact::ChannelDelivers { channel, .. } => format!("channel {channel} delivers again"),
            Fact::Backup { title, .. } => title.clone(),
            Fact::AlertsLost { .. } => {
                "hbd can no longer read backup alerts that it accepted".into()
            }
            Fact::AlertmanagerSilent { why } => {
                format!("Alertmanager cannot be asked about backups: {why}")
            }
            Fact::AlertmanagerAnswers { .. } => "Alertmanager answers again".into(),
            Fact::DyndnsFails { name, why, .. } => format!("{name} cannot be updated: {why}"),
            Fact::DyndnsKept { name, .. } => format!("{name} is kept up to date again"),
            Fact::Custom { text, .. } => text.clone(),
        }
    }

    pub(super) fn details(&self) -> Vec<(&'static str, String)> {
        match &self.fact {
            Fact::Overdue { last_seen, promised, others_down, others_count, .. } => {
                let others = (!others_down.is_empty()).then(|| listed(others_down, *others_count));
                let seen = [
                    ("last seen", last_seen.to_string()),
                    ("promised", format!("the next beat by {promised}")),
                ];
                seen.into_iter().chain(others.map(|others| ("also overdue", others))).collect()
            }
            Fact::Back { gone, .. } => vec![("gone for", words(*gone))],
            Fact::Booted { announced, gone, .. } => {
                let gone = gone.iter().map(|gone| ("not heard for", words(*gone)));
                gone.chain((!announced).then(|| ("reboot", UNANNOUNCED.into()))).collect()
            }
            Fact::NeverSeen { configured, .. } => vec![
                ("configured since", configured.to_string()),
                (
                    "to do",
                    "install the agent there, or take the host out of the configuration".into(),
                ),
            ],
            Fact::Threshold { since, reminder: true, .. } => {
                vec![("reminder", format!("at this level since {since}"))]
            }
            Fact::Missing { last, value, limit, stood, .. } => {
                was_then(*last, &format!("{stood}: {} (threshold: {limit})", decimal(*value)))
            }
            Fact::StoreRefuses { why } => vec![
                ("why", why.clone()),
                ("meanwhile", "alarms are sent, but a crash would lose what is not on disk".into()),
            ],
            Fact::StoreWrites { refused_for } => vec![("refused for", words(*refused_for))],
            Fact::AlertmanagerSilent { .. } => {
                vec![("meanwhile", "a backup that fails would not be noticed here".into())]
            }
            Fact::AlertmanagerAnswers { silent_for } => vec![("silent for", words(*silent_for))],
            Fact::AlertsLost { rows, count } => lost_alerts(rows, *count),
            Fact::StoreMovedAside { why, to } => vec![
                ("why", why.clone()),
                ("kept as", to.clone()),
                ("lost", "what was waiting to be sent, and which alerts were open".into()),
            ],
            Fact::ChannelFails { waiting, .. } => vec![("waiting for it", messages(*waiting))],
            Fact::ChannelDelivers { failed_for, .. } => vec![("failed for", words(*failed_for))],
            Fact::DyndnsFails { host, .. } => of_name(host, "meanwhile", STALE_NAME),
            Fact::DyndnsKept { host, failed_for, .. } => {
                of_name(host, "failed for", &words(*failed_for))
            }
            // The words alone need not say which host they are about.
            Fact::Custom { host: Some(host), .. } => vec![("host", host.clone())],
            Fact::Shutdown { .. }
            | Fact::Said { .. }
            | Fact::FirstHeard { .. }
            | Fact::Threshold { .. }
            | Fact::Backup { .. }
            | Fact::Custom { host: None, .. } => Vec::new(),
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
