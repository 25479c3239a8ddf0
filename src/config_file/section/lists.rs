//! Lists and maps of a section: texts, and names of things that are defined elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::{Section, is_null};
use crate::config_file::suggestion;
use crate::config_file::yaml::{Node, NodeValue};
use crate::problem::Severity;

/// The names of what is defined elsewhere: channels, threshold sets.
pub type NameSet = BTreeSet<String>;

/// The entries of a list; anything else is its own only one.
fn entries(node: &Node) -> &[Node] {
    match &node.value {
        NodeValue::List(nodes) => nodes,
        NodeValue::Scalar { .. } | NodeValue::Map(_) => std::slice::from_ref(node),
    }
}

impl<'a> Section<'a> {
    /// A list of texts. One value where a list is wanted is a list of one.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        Some(self.list_items(key)?.into_iter().map(|(text, _)| text).collect())
    }

    /// The entries of a list; one value where a list is wanted is a list of one.
    fn list_nodes(&mut self, key: &'static str) -> Option<&'a [Node]> {
        let node = self.node(key)?;
        match &node.value {
            NodeValue::Map(_) => self.refuse(key, "must be a list, not a map"),
            NodeValue::List(_) | NodeValue::Scalar { .. } => Some(entries(node)),
        }
    }

    /// The text of an entry of a list; another one is refused as not what is `wanted`.
    fn list_item(
        &self,
        key: &str,
        node: &Node,
        line: Option<usize>,
        wanted: &str,
    ) -> Option<String> {
        match &node.value {
            NodeValue::Scalar { text, .. } if !is_null(node) => self.single_line(key, text),
            _ => {
                self.report(Severity::Error, line, key, format!("must be a list of {wanted}"));
                None
            }
        }
    }

    fn list_items(&mut self, key: &'static str) -> Option<Vec<(String, Option<usize>)>> {
        let nodes = self.list_nodes(key)?;
        let of_key = self.line_of(key);
        let mut list_items = Vec::with_capacity(nodes.len());
        for node in nodes {
            let line = node.line.or(of_key);
            let text = self.list_item(key, node, line, "single values");
            list_items.extend(text.map(|text| (text, line)));
        }
        Some(list_items)
    }

    /// A name that must be among the known ones of that sort.
    pub fn name(&mut self, key: &'static str, sort: &str, known: &NameSet) -> Option<String> {
        let text = self.text(key)?;
        self.check_name(key, self.line_of(key), sort, known, &text);
        Some(text)
    }

    /// A list of names, each of them among the known ones of that sort.
    pub fn names(&mut self, key: &'static str, sort: &str, known: &NameSet) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for (name, line) in self.list_items(key)? {
            self.add_name(key, line, (sort, known), name, &mut names);
        }
        Some(names)
    }

    /// Adds a name that must be among the known ones of that sort, once.
    fn add_name(
        &self,
        key: &str,
        line: Option<usize>,
        (sort, known): (&str, &NameSet),
        name: String,
        names: &mut Vec<String>,
    ) {
        self.check_name(key, line, sort, known, &name);
        if names.contains(&name) {
            self.report(Severity::Warning, line, key, format!("names \"{name}\" twice"));
        } else {
            names.push(name);
        }
    }

    /// A list whose entries are names or lists of names, each of them among the known ones of that
    /// sort.
    pub fn name_groups(
        &mut self,
        key: &'static str,
        sort: &str,
        known: &NameSet,
    ) -> Option<Vec<Vec<String>>> {
        let nodes = self.list_nodes(key)?;
        let of_key = self.line_of(key);
        let wanted = format!("{sort}s and lists of {sort}s");
        let mut groups: Vec<Vec<String>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let line = node.line.or(of_key);
            let members = entries(node);
            if members.is_empty() {
                let what = format!("has an empty list in it: name a {sort}");
                self.report(Severity::Error, line, key, what);
            }
            let mut group: Vec<String> = Vec::with_capacity(members.len());
            for member in members {
                let line = member.line.or(line);
                if let Some(name) = self.list_item(key, member, line, &wanted) {
                    self.add_name(key, line, (sort, known), name, &mut group);
                }
            }
            if groups.contains(&group) {
                let what = format!("names \"{}\" twice", group.join(", "));
                self.report(Severity::Warning, line, key, what);
            } else {
                groups.push(group);
            }
        }
        Some(groups)
    }

    /// A map whose values are names, each of them among the known ones of that sort; empty when it
    /// is not there.
    pub fn names_by_key(
        &mut self,
        key: &'static str,
        sort: &str,
        known: &NameSet,
    ) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        self.section(key, |section| {
            section.ignore_rest();
            for entry in section.entries {
                let text = section.scalar_text(&entry.key, &entry.node);
                if let Some(name) = text.and_then(|text| section.single_line(&entry.key, text)) {
                    section.check_name(&entry.key, entry.line, sort, known, &name);
                    names.insert(entry.key.clone(), name);
                }
            }
        });
        names
    }

    fn check_name(&self, key: &str, line: Option<usize>, sort: &str, known: &NameSet, name: &str) {
        if !known.contains(name) {
            let meant = suggestion::suggestion(name, known.iter().map(String::as_str));
            let what = format!("no {sort} is called \"{name}\"{meant}");
            self.report(Severity::Error, line, key, what);
        }
    }
}
