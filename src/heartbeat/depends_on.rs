//! The key `depends_on` of hosts: what each is reached through.

use std::collections::{BTreeMap, BTreeSet};

use crate::btree::InsertAll;
use crate::config_file::{NameSet, Section};
use crate::heartbeat::fleet::dependencies::DependsOn;
use crate::problem::Severity;

/// Up to this many hosts with the same fault are named one by one; more are counted.
const MAX_NAMED_HOSTS: usize = 20;

/// What is read of all hosts, one after the other.
#[derive(Debug, Default)]
pub struct DependencySettings {
    depends_on: DependsOn,
    lines: BTreeMap<String, Option<usize>>,
    watched: BTreeSet<String>,
}

impl DependencySettings {
    /// Reads the key of one host; its parents must be among the hosts that there are.
    pub fn read(&mut self, host: &str, section: &mut Section, known: &NameSet) {
        let Some(entries) = section.name_groups("depends_on", "host", known) else { return };
        if entries.iter().flatten().any(|parent| parent == host) {
            section.error("depends_on", format!("{host} cannot depend on itself"));
        }
        if !entries.is_empty() {
            self.lines.insert(host.to_owned(), section.line_of("depends_on"));
            self.depends_on.insert(host.to_owned(), entries);
        }
    }

    /// A host is watched.
    pub fn note_watched(&mut self, host: &str, watch: bool) {
        if watch {
            self.watched.insert(host.to_owned());
        }
    }

    /// All of it, after what concerns several hosts was checked.
    pub fn finish(self, top: &Section) -> DependsOn {
        let report = |severity, host: &str, what: String| {
            let line = self.lines.get(host).copied().flatten();
            top.context().report(severity, line, format!("hosts.{host}.depends_on"), what);
        };
        for circle in circles(&self.depends_on) {
            let what = format!("goes in a circle: {}", circle.join(", "));
            report(Severity::Error, circle[0], what);
        }
        let mut unwatched: BTreeMap<&str, &str> = BTreeMap::new();
        for (host, entries) in &self.depends_on {
            for parent in entries.iter().flatten().filter(|parent| !self.watched.contains(*parent))
            {
                unwatched.entry(parent).or_insert(host);
            }
        }
        if unwatched.len() > MAX_NAMED_HOSTS {
            let count = unwatched.len();
            let what = format!(
                "{count} hosts that others depend on are not watched: they hold nothing back"
            );
            top.warning("hosts", what);
        } else {
            for (parent, host) in unwatched {
                let what = format!("{parent} is not watched: it holds nothing back");
                report(Severity::Warning, host, what);
            }
        }
        self.depends_on
    }
}

/// The circles, each from one of its hosts back to that; a host that depends on itself is none.
fn circles(depends_on: &DependsOn) -> Vec<Vec<&str>> {
    let mut circles = Vec::new();
    // What was left behind: nothing in a circle is met again there.
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in depends_on.keys() {
        // The way to here, and what of each host on it is still to be followed.
        let mut way: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(start.as_str());
        loop {
            if let Some(host) = next.take().filter(|host| !done.contains(host)) {
                if let Some(from) = way.iter().position(|(on_way, _)| *on_way == host) {
                    let circle = way[from..].iter().map(|(name, _)| *name).chain([host]);
                    circles.extend((way.len() - from > 1).then(|| circle.collect()));
                } else {
                    let entries = depends_on.get(host).into_iter().flatten().flatten();
                    let parents: BTreeSet<&str> = entries.map(String::as_str).insert_all();
                    way.push((host, parents.into_iter().rev().collect()));
                }
            }
            let Some((host, parents)) = way.last_mut() else { break };
            next = parents.pop();
            if next.is_none() {
                done.insert(*host);
                way.pop();
            }
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(depends_on: &[(&str, &[&[&str]])]) -> Vec<String> {
        let names = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let entries = |entries: &[&[&str]]| entries.iter().map(names).collect();
        let all = depends_on.iter().map(|(host, list)| ((*host).to_owned(), entries(list)));
        let depends_on: DependsOn = all.collect();
        circles(&depends_on).iter().map(|circle| circle.join(", ")).collect()
    }

    #[test]
    fn each_circle_is_found_once() {
        assert!(found(&[]).is_empty());
        assert!(found(&[("a", &[&["b"], &["c"]]), ("b", &[&["d"]]), ("c", &[&["d"]])]).is_empty());
        assert!(found(&[("a", &[&["a"]])]).is_empty(), "has words of its own");
        assert_eq!(found(&[("a", &[&["b"]]), ("b", &[&["a"]])]), ["a, b, a"]);
        assert_eq!(
            found(&[("a", &[&["b"]]), ("b", &[&["x", "c"]]), ("c", &[&["b"]]), ("d", &[&["c"]])]),
            ["b, c, b"]
        );
        assert_eq!(
            found(&[("a", &[&["b", "c"]]), ("b", &[&["a"]]), ("c", &[&["a"]])]),
            ["a, b, a", "a, c, a"]
        );
    }

    #[test]
    fn a_long_chain_is_no_circle() {
        let name = |n: usize| format!("host{n:06}");
        let chain = (0..20_000).map(|n| (name(n), vec![vec![name(n + 1)]]));
        let depends_on: DependsOn = chain.collect();
        assert!(circles(&depends_on).is_empty());
    }
}
