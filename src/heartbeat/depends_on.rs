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
    unwatched: BTreeSet<String>,
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

    /// Whether a host is watched.
    pub fn note_watched(&mut self, host: &str, watch: bool) {
        if !watch {
            self.unwatched.insert(host.to_owned());
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
            for parent in entries.iter().flatten().filter(|parent| self.unwatched.contains(*parent))
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

    /// What was read of `depends_on`, and all problems of a configuration with these hosts.
    fn load(hosts: &str) -> (DependsOn, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("heartbeat.yaml");
        let channels = "notification_channels: {log: {type: log}}\n\
             default_notification_channels: [log]\n";
        std::fs::write(&file, format!("{channels}hosts:\n{hosts}")).unwrap();
        let shown = |problems: crate::problem::Problems| {
            let shown = |one: &crate::problem::Problem| {
                format!("{}: {}: {}", one.line.unwrap_or(0), one.path, one.what)
            };
            problems.0.iter().map(shown).collect()
        };
        match crate::config::Config::load(&file) {
            Ok(config) => (config.depends_on, shown(config.warnings)),
            Err(problems) => (DependsOn::new(), shown(problems)),
        }
    }

    #[test]
    fn hosts_and_lists_of_hosts_are_read() {
        let (read, problems) = load(
            "  router: {watch: true}\n  wan1: {watch: true}\n  101: {watch: true}\n  \
             web1: {watch: true, depends_on: [router, [wan1, 101]]}\n  \
             web2: {watch: true, depends_on: router}\n  web3: {watch: true, depends_on: []}\n",
        );
        assert_eq!(problems, [""; 0]);
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let entries: Vec<Vec<String>> = vec![list(&["router"]), list(&["wan1", "101"])];
        let expected = [("web1".to_owned(), entries), ("web2".to_owned(), vec![list(&["router"])])];
        assert_eq!(read, expected.into());
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_with_its_line_and_a_remedy() {
        for (list, problem) in [
            ("[wbe1]", "no host is called \"wbe1\", did you mean \"web1\"?"),
            ("[router, [wbe1, router]]", "no host is called \"wbe1\", did you mean \"web1\"?"),
            ("[db1]", "db1 cannot depend on itself"),
            ("[[router, db1]]", "db1 cannot depend on itself"),
            ("[web1]", "goes in a circle: db1, web1, db1"),
            ("[[]]", "has an empty list in it: name a host"),
            ("[router, [[web1]]]", "must be a list of hosts and lists of hosts"),
            ("[{a: b}]", "must be a list of hosts and lists of hosts"),
            ("[null]", "must be a list of hosts and lists of hosts"),
            ("{router: 1}", "must be a list, not a map"),
            ("[router, router]", "names \"router\" twice"),
            ("[[router, router]]", "names \"router\" twice"),
            ("[dark]", "dark is not watched: it holds nothing back"),
            ("[\"\"]", "must not be empty"),
        ] {
            let (_, problems) = load(&format!(
                "  router: {{watch: true}}\n  dark: {{notification_channels: [log]}}\n  \
                 web1: {{watch: true, depends_on: [db1]}}\n  \
                 db1: {{watch: true, depends_on: {list}}}\n"
            ));
            let expected = format!("7: hosts.db1.depends_on: {problem}");
            let others = |one: &&String| !one.contains("listed but not watched");
            let said: Vec<&String> = problems.iter().filter(others).collect();
            assert_eq!(said, [&expected], "{list}");
        }
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
