//! Scopes: which events a silence or a window is about. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config_file::suggestion::suggestion;
use crate::event::{CalmEvent, Event, EventKind, Incident, StormEvent, Subject};

/// The longest part of a scope behind its first name, in bytes: the longest path of a metric, and room.
const MAX_TEXT: usize = 500;

/// What is silent. Its text is what an operator writes: `web1`, `web*`, `web1/ipv4`,
/// `web1/disk_monitor.*.percent`, `plan:4`, `--all`. A `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CalmScope {
    /// All hosts and all backup plans.
    All,
    /// Everything about hosts, by name or pattern.
    Hosts(String),
    /// Connections and metrics of hosts, both by name or pattern.
    Parts { host: String, part: String },
    /// A backup plan, by id.
    Plan(String),
}

/// What an event is about, as scopes see it. The daemon's own troubles are none of these: nothing
/// holds them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A host as a whole.
    Host(&'a str),
    /// A connection or a metric of a host.
    Part { host: &'a str, part: &'a str },
    /// A backup plan.
    Plan(&'a str),
    /// Hosts that are not named.
    OtherHosts,
}

/// Why a scope is about nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMatch(pub String);

/// What there is that a scope may match.
pub struct Inventory<'a> {
    /// The hosts.
    pub hosts: &'a [String],
    /// The connections and the metrics of a host.
    pub parts: &'a dyn Fn(&str) -> Vec<String>,
    /// The ids of the backup plans; empty when that is not known, and then any matches.
    pub plans: &'a [String],
}

impl CalmScope {
    /// Reads what an operator wrote.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn parse(text: &str) -> Result<CalmScope, String> {
        let text = text.trim();
        let is_name = |name: &str| {
            (1..=253).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte))
        };
        let is_text = |name: &str| {
            (1..=MAX_TEXT).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if text == "--all" {
            return Ok(CalmScope::All);
        }
        if let Some(plan) = text.strip_prefix("plan:").filter(|plan| is_text(plan)) {
            return Ok(CalmScope::Plan(plan.to_owned()));
        }
        match text.split_once('/') {
            Some((host, part)) if is_name(host) && is_text(part) => {
                Ok(CalmScope::Parts { host: host.to_owned(), part: part.to_owned() })
            }
            None if is_name(text) => Ok(CalmScope::Hosts(text.to_owned())),
            Some(_) | None => Err(format!(
                "must be a host such as web1 or web*, a part of one such as web1/ipv4, plan:4 or --all, not \"{}\"",
                text.chars().take(MAX_TEXT).collect::<String>()
            )),
        }
    }

    /// Whether it is about `target`.
    pub fn covers(&self, target: Target) -> bool {
        match (self, target) {
            (CalmScope::All, _) => true,
            (CalmScope::Hosts(pattern), Target::Host(host) | Target::Part { host, .. }) => {
                matches(pattern, host)
            }
            (CalmScope::Parts { host: pattern, part: parts }, Target::Part { host, part }) => {
                matches(pattern, host) && matches(parts, part)
            }
            (CalmScope::Hosts(pattern), Target::OtherHosts) => {
                pattern.bytes().all(|byte| byte == b'*')
            }
            (CalmScope::Plan(plan), Target::Plan(id)) => plan == id,
            (CalmScope::Hosts(_), Target::Plan(_))
            | (CalmScope::Parts { .. }, Target::Host(_) | Target::Plan(_) | Target::OtherHosts)
            | (CalmScope::Plan(_), Target::Host(_) | Target::Part { .. } | Target::OtherHosts) => {
                false
            }
        }
    }

    /// The one host that it is about, where it is about exactly one.
    pub fn host(&self) -> Option<&str> {
        match self {
            CalmScope::Hosts(host) | CalmScope::Parts { host, .. } => {
                (!host.contains('*')).then_some(host.as_str())
            }
            CalmScope::All | CalmScope::Plan(_) => None,
        }
    }

    /// Whether there is anything that it is about.
    ///
    /// # Errors
    /// A sentence that names what is near.
    pub fn check(&self, inventory: &Inventory) -> Result<(), NoMatch> {
        let named = |what: String, name: &str, known: &[String]| {
            let meant = suggestion(name, known.iter().map(String::as_str));
            Err(NoMatch(format!("{what} \"{name}\"{meant}")))
        };
        let hosts = |pattern: &str| {
            let pattern = pattern.to_owned();
            inventory.hosts.iter().filter(move |host| matches(&pattern, host))
        };
        match self {
            CalmScope::All => Ok(()),
            CalmScope::Plan(plan)
                if inventory.plans.is_empty() || inventory.plans.contains(plan) =>
            {
                Ok(())
            }
            CalmScope::Plan(plan) => named("there is no backup plan".into(), plan, inventory.plans),
            CalmScope::Hosts(host) | CalmScope::Parts { host, .. }
                if hosts(host).next().is_none() =>
            {
                if host.contains('*') {
                    return Err(NoMatch(format!("no host matches \"{host}\"")));
                }
                named("no host is called".into(), host, inventory.hosts)
            }
            CalmScope::Hosts(_) => Ok(()),
            CalmScope::Parts { host, part } => {
                let mut known: Vec<String> = Vec::new();
                for host in hosts(host) {
                    known.extend((inventory.parts)(host));
                }
                if known.iter().any(|name| matches(part, name)) {
                    return Ok(());
                }
                known.sort_unstable();
                known.dedup();
                named(format!("{host} has no connection and no metric"), part, &known)
            }
        }
    }
}

impl fmt::Display for CalmScope {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CalmScope::All => f.write_str("--all"),
            CalmScope::Hosts(host) => f.write_str(host),
            CalmScope::Parts { host, part } => write!(f, "{host}/{part}"),
            CalmScope::Plan(plan) => write!(f, "plan:{plan}"),
        }
    }
}

impl TryFrom<String> for CalmScope {
    type Error = String;
    fn try_from(text: String) -> Result<CalmScope, String> {
        CalmScope::parse(&text)
    }
}

impl From<CalmScope> for String {
    fn from(scope: CalmScope) -> String {
        scope.to_string()
    }
}

impl<'a> Target<'a> {
    /// What a storm is about: its hosts, of which the event names some. Empty for any other event.
    pub fn of_storm(event: &'a Event) -> Vec<Target<'a>> {
        let EventKind::Calm(CalmEvent::Storm(StormEvent::Began { hosts, count, .. })) = &event.kind
        else {
            return Vec::new();
        };
        let others = (*count > hosts.len()).then_some(Target::OtherHosts);
        hosts.iter().map(|host| Target::Host(host)).chain(others).collect()
    }

    /// What an incident is about; none for the daemon's own, and for a storm, which is about several
    /// hosts.
    pub fn of_incident(incident: &'a Incident) -> Option<Target<'a>> {
        match incident {
            Incident::Connection { host, connection: part }
            | Incident::Metric { host, metric: part } => Some(Target::Part { host, part }),
            Incident::NeverSeen { host }
            | Incident::NotBack { host }
            | Incident::Dyndns { host } => Some(Target::Host(host)),
            Incident::Backup { plan } => Some(Target::Plan(plan)),
            Incident::Alertmanager
            | Incident::Channel { .. }
            | Incident::Store
            | Incident::Node { .. }
            | Incident::Storm => None,
        }
    }

    /// The scope of it alone.
    pub fn scope(self) -> CalmScope {
        match self {
            Target::Host(host) => CalmScope::Hosts(host.to_owned()),
            Target::Part { host, part } => {
                CalmScope::Parts { host: host.to_owned(), part: part.to_owned() }
            }
            Target::Plan(plan) => CalmScope::Plan(plan.to_owned()),
            Target::OtherHosts => CalmScope::All,
        }
    }

    /// What an event without an incident is about.
    pub fn of_subject(subject: &'a Subject) -> Option<Target<'a>> {
        match subject {
            Subject::Host(host) => Some(Target::Host(host)),
            Subject::Plan(plan) => Some(Target::Plan(plan)),
            Subject::Channel(_) | Subject::Daemon => None,
        }
    }
}

/// Whether a pattern, in which `*` stands for any characters, is the whole of `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("web1", "web1", true),
            ("web1", "web12", false),
            ("web1", "aweb1", false),
            ("web*", "web", true),
            ("web*", "we", false),
            ("*", "", true),
            ("*1", "web11", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("disk_monitor.*.percent", "disk_monitor./var.lib.percent", true),
            ("disk_monitor.*.percent", "disk_monitor.percent", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn scopes_read_as_they_print_and_cover_what_they_say() {
        let part = |part| Target::Part { host: "web1", part };
        for (text, host, ipv4, plan) in [
            ("web1", true, true, false),
            ("web*", true, true, false),
            ("web1/ipv4", false, true, false),
            ("*/ip*", false, true, false),
            ("web1/cpu", false, false, false),
            ("plan:4", false, false, true),
            ("--all", true, true, true),
            ("web2", false, false, false),
        ] {
            let scope = CalmScope::parse(text).unwrap();
            assert_eq!(scope.to_string(), text);
            assert_eq!(serde_json::to_value(&scope).unwrap(), text);
            let covered = [Target::Host("web1"), part("ipv4"), Target::Plan("4")]
                .map(|target| scope.covers(target));
            assert_eq!(covered, [host, ipv4, plan], "{text}");
        }
        for text in ["", "a b", "plan:", "/ipv4", "web1/", "web1\nx", "web1/a\nb", "w\u{e9}b"] {
            assert!(CalmScope::parse(text).is_err(), "{text}");
        }
        for scope in ["web1/", "plan:"] {
            let of_length = |length| CalmScope::parse(&(scope.to_owned() + &"x".repeat(length)));
            assert!(of_length(MAX_TEXT).is_ok());
            let refused = of_length(100_000).unwrap_err();
            assert!(refused.len() < 2 * MAX_TEXT, "a row is bounded, and so is what is said of it");
        }
        assert_eq!(CalmScope::parse("web1/ipv4").unwrap().host(), Some("web1"));
        assert_eq!(CalmScope::parse("web*").unwrap().host(), None);
    }

    #[test]
    fn a_scope_that_matches_nothing_says_what_was_meant() {
        let hosts = ["web1".to_owned(), "db1".to_owned()];
        let parts = |host: &str| match host {
            "web1" => vec!["ipv4".to_owned(), "cpu_monitor.cpu_percent".to_owned()],
            _ => Vec::new(),
        };
        let inventory = Inventory { hosts: &hosts, parts: &parts, plans: &["4".to_owned()] };
        for (scope, why) in [
            ("wbe1", "no host is called \"wbe1\", did you mean \"web1\"?"),
            ("wbe*", "no host matches \"wbe*\""),
            ("wbe1/ipv4", "no host is called \"wbe1\", did you mean \"web1\"?"),
            ("web1/ipv5", "web1 has no connection and no metric \"ipv5\", did you mean \"ipv4\"?"),
            ("plan:5", "there is no backup plan \"5\", did you mean \"4\"?"),
        ] {
            let found = CalmScope::parse(scope).unwrap().check(&inventory).unwrap_err().0;
            if scope == "plan:5" {
                assert!(found.starts_with("there is no backup plan \"5\""), "{found}");
            } else {
                assert_eq!(found, why);
            }
        }
        for scope in ["web1", "*", "web1/ipv4", "web*/cpu*", "plan:4", "--all"] {
            assert_eq!(CalmScope::parse(scope).unwrap().check(&inventory), Ok(()), "{scope}");
        }
    }
}
