//! A section of a configuration file: one map, read key by key by the feature that it belongs to.
//!
//! Reading does not stop at an error: a method that finds one reports it, returns nothing (or an
//! empty value) and goes on. A configuration with an error is refused as a whole, so such values are
//! never used. Keys that no feature read are unknown, and are reported at the end.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::load_context::LoadContext;
use super::suggestion;
use super::yaml::{MapEntry, Node, NodeValue, ScalarKind};
use crate::address::to_ascii_host;
use crate::btree::InsertAll;
use crate::clock::format_duration;
use crate::duration;
use crate::problem::Severity;

mod lists;
mod secrets;

pub use lists::NameSet;

/// The value of a key that is a flag or a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagOrSection<T> {
    /// `true` or `false`.
    Flag(bool),
    /// What was read from the section.
    Section(T),
}

/// One map of the file, while it is read.
pub struct Section<'a> {
    context: &'a LoadContext<'a>,
    path: String,
    line: Option<usize>,
    /// That of the key that was read last.
    last_line: Option<usize>,
    entries: &'a [MapEntry],
    /// By entry: whether its key was read, or is reported already.
    seen: Vec<bool>,
    /// The keys that were read.
    known: Vec<&'static str>,
    /// The required ones among them that are not there, and what is said of each.
    missing: Vec<(&'static str, String)>,
}

impl<'a> Section<'a> {
    fn new(
        context: &'a LoadContext<'a>,
        path: String,
        line: Option<usize>,
        entries: &'a [MapEntry],
    ) -> Section<'a> {
        let seen = vec![false; entries.len()];
        let known = Vec::new();
        let mut section = Section {
            context,
            path,
            line,
            last_line: line,
            entries,
            seen,
            known,
            missing: Vec::new(),
        };
        section.refuse_duplicates();
        section
    }

    /// Reads the top level of a file; unknown keys in it are reported.
    pub fn read_root<T>(
        context: &'a LoadContext<'a>,
        root: &'a Node,
        read: impl FnOnce(&mut Section) -> T,
    ) -> T {
        let entries = match &root.value {
            NodeValue::Map(entries) => entries.as_slice(),
            NodeValue::Scalar { .. } | NodeValue::List(_) => &[],
        };
        let mut section = Section::new(context, String::new(), root.line, entries);
        let value = read(&mut section);
        section.finish();
        value
    }

    fn refuse_duplicates(&mut self) {
        let mut first: HashMap<&str, Option<usize>> = HashMap::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(line) = first.get(entry.key.as_str()) {
                let what = self.context.duplicate(*line, entry.line.or(self.line));
                self.report(Severity::Error, entry.line.or(self.line), &entry.key, what);
                self.seen[index] = true;
            } else {
                first.insert(&entry.key, entry.line);
            }
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The load that this section is part of.
    pub fn context(&self) -> &'a LoadContext<'a> {
        self.context
    }

    /// A hash of what is written in it, in whatever order, without those keys of it or of a section in it
    /// that `skip` is true for (`receiver.port`). Of secrets it says no more than its 32 bits.
    pub fn fingerprint(&self, skip: &dyn Fn(&str) -> bool) -> u32 {
        let hash = hash_entries("", self.entries, skip);
        (hash ^ (hash >> 32)) as u32
    }

    /// Whether the key is there and not null. Does not mark it as read.
    pub fn given(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key && !is_null(&entry.node))
    }

    /// Whether the key is there, or one that can only be its misspelling.
    pub fn is_meant(&self, key: &str) -> bool {
        self.given(key)
            || self.entries.iter().any(|one| suggestion::nearest(&one.key, [key]).is_some())
    }

    /// Reports an error at a key, or at the section itself when the key is empty.
    pub fn error(&self, key: &str, what: impl Into<String>) {
        self.report(Severity::Error, self.line_of(key), key, what.into());
    }

    /// Reports a warning, likewise.
    pub fn warning(&self, key: &str, what: impl Into<String>) {
        self.report(Severity::Warning, self.line_of(key), key, what.into());
    }

    /// Reports a warning at a key of a section within this one.
    pub fn entry_warning(&self, section: &str, key: &str, what: String) {
        let all = self.entries.iter().find(|entry| entry.key == section);
        let inner = match all.map(|entry| &entry.node.value) {
            Some(NodeValue::Map(entries)) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        };
        let line = inner.and_then(|entry| entry.line).or_else(|| self.line_of(section));
        self.context.report(Severity::Warning, line, join(section, key), what);
    }

    fn report(&self, severity: Severity, line: Option<usize>, key: &str, what: String) {
        self.context.report(severity, line, join(&self.path, key), what);
    }

    /// The line of a key, or of the section.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.and_then(|entry| entry.line).or(self.line)
    }

    /// The node of a key, which is marked as read; none when it is missing or null.
    fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        self.seen[index] = true;
        self.last_line = self.entries[index].line.or(self.line);
        let node = &self.entries[index].node;
        (!is_null(node)).then_some(node)
    }

    /// One value as written.
    fn scalar(&mut self, key: &'static str) -> Option<&'a str> {
        let node = self.node(key)?;
        self.scalar_text(key, node)
    }

    fn scalar_text(&self, key: &str, node: &'a Node) -> Option<&'a str> {
        match &node.value {
            NodeValue::Scalar { text, .. } => Some(text),
            NodeValue::List(_) => self.refuse(key, "must be one value, not a list"),
            NodeValue::Map(_) => self.refuse(key, "must be one value, not a map"),
        }
    }

    fn refuse<T>(&self, key: &str, what: impl Into<String>) -> Option<T> {
        self.error(key, what);
        None
    }

    /// A text, of one line and not empty.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let text = self.scalar(key)?;
        self.single_line(key, text)
    }

    fn single_line(&self, key: &str, text: &str) -> Option<String> {
        if text.trim().is_empty() {
            return self.refuse(key, "must not be empty");
        }
        if text.chars().any(char::is_control) {
            return self.refuse(key, "must be one line without control characters");
        }
        Some(text.to_owned())
    }

    /// A text that must be there; when it is missing, that is reported and it is empty.
    pub fn required(&mut self, key: &'static str) -> String {
        self.require(key);
        self.text(key).unwrap_or_default()
    }

    /// Reports the key as missing, unless it is there or was merely misspelled.
    pub fn require(&mut self, key: &'static str) {
        if !self.given(key) {
            self.missing.push((key, "is missing".into()));
        }
    }

    /// The same of a key that is a [`Section::choice`], whose words are named.
    pub fn require_choice<T>(&mut self, key: &'static str, choices: &[(&str, T)]) {
        if !self.given(key) {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.missing.push((key, format!("is missing: {}", alternatives(&names))));
        }
    }

    /// `true` or `false`; `yes`, `no`, `on`, `off` are as good.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let text = self.scalar(key)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => self.refuse(key, format!("must be true or false, not \"{text}\"")),
        }
    }

    /// A whole number in a range.
    pub fn number(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let text = self.scalar(key)?;
        match text.parse() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (from, to) = range.into_inner();
                self.refuse(
                    key,
                    format!("must be a whole number from {from} to {to}, not \"{text}\""),
                )
            }
        }
    }

    /// A port, 1 to 65535.
    pub fn port(&mut self, key: &'static str) -> Option<u16> {
        let text = self.scalar(key)?;
        match text.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => self.refuse(key, format!("must be a port, 1 to 65535, not \"{text}\"")),
        }
    }

    /// A port to listen on: 0 lets the system choose a free one.
    pub fn listen_port(&mut self, key: &'static str) -> Option<u16> {
        let text = self.scalar(key)?;
        text.parse().ok().or_else(|| {
            self.refuse(key, format!("must be a port, 0 (any free one) to 65535, not \"{text}\""))
        })
    }

    /// A duration: `500ms`, `30s`, `1h30m`, `2w`, or a number of seconds.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.scalar(key)?;
        duration::parse(text).map_err(|what| self.error(key, what)).ok()
    }

    /// A duration in a range.
    pub fn duration_within(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = self.duration(key)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let (from, to) = (format_duration(*range.start()), format_duration(*range.end()));
        self.refuse(key, format!("must be from {from} to {to}, not {}", format_duration(duration)))
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.scalar(key)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let meant = suggestion::nearest(text, names.iter().copied())
            .map_or(String::new(), |near| format!(", did you mean \"{near}\"?"));
        self.refuse(key, format!("must be {}, not \"{text}\"{meant}", alternatives(&names)))
    }

    /// A host's name or address, as [`to_ascii_host`] makes it. Anything else is refused: that it
    /// cannot be a `wanted`.
    pub fn host(&mut self, key: &'static str, wanted: &str) -> Option<String> {
        let text = self.text(key)?;
        to_ascii_host(&text).or_else(|| self.refuse(key, format!("\"{text}\" cannot be {wanted}")))
    }

    /// A path; a relative one starts from the configuration's directory.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        if let Some(NodeValue::Scalar { text, kind: ScalarKind::Null }) =
            entry.map(|entry| &entry.node.value)
            && text == "~"
        {
            let what = "a ~ alone is nothing in YAML: write \"~\" in quotes, or the whole path";
            self.warning(key, what);
        }
        Some(self.context.resolve(&self.text(key)?))
    }

    /// The path of a file that should be there; it is a warning when it is not.
    pub fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        if let Err(error) = std::fs::File::open(&path) {
            self.warning(key, format!("cannot read {}: {error}", path.display()));
        }
        Some(path)
    }

    /// The same; it is a warning, too, when `check` finds a fault in it.
    pub fn file_with(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&Path) -> Result<(), String>,
    ) -> Option<PathBuf> {
        let path = self.file(key)?;
        if path.exists()
            && let Err(fault) = check(&path)
        {
            self.warning(key, fault);
        }
        Some(path)
    }

    /// A program, found in PATH when it has no slash; it is a warning when it is not there.
    pub fn program(&mut self, key: &'static str, default: &str) -> PathBuf {
        let path = self.program_unchecked(key, default);
        if self.context.program(&path).is_none() {
            let place = if path.is_absolute() { "" } else { " in PATH" };
            self.warning(key, format!("there is no program {}{place}", path.display()));
        }
        path
    }

    /// The same without a warning, for a program that is not started.
    pub fn program_unchecked(&mut self, key: &'static str, default: &str) -> PathBuf {
        let name = self.text(key).unwrap_or_else(|| default.to_owned());
        if name.contains('/') { self.context.resolve(&name) } else { name.into() }
    }

    /// The keys of a section within this one, valid or not. Does not mark it as read.
    pub fn names_in(&self, key: &str) -> NameSet {
        match self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node.value) {
            Some(NodeValue::Map(entries)) => {
                entries.iter().map(|entry| entry.key.clone()).insert_all()
            }
            Some(NodeValue::Scalar { .. } | NodeValue::List(_)) | None => NameSet::new(),
        }
    }

    /// The keys of this section in their order, all of them marked as read.
    pub fn take_names(&mut self) -> Vec<String> {
        self.ignore_rest();
        self.entries.iter().map(|entry| entry.key.clone()).collect()
    }

    /// Reads a section within this one; none when it is not there. Unknown keys in it are reported.
    pub fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> Option<T> {
        let node = self.node(key)?;
        let mut section = self.inner(key, node, self.line_of(key))?;
        let value = read(&mut section);
        section.finish();
        Some(value)
    }

    /// Reads a map of sections, one after the other; empty when it is not there.
    pub fn entries<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section) -> T,
    ) -> Vec<(String, T)> {
        let mut values = Vec::new();
        self.section(key, |section| {
            section.seen.fill(true);
            for entry in section.entries {
                if let Some(mut inner) =
                    section.inner(&entry.key, &entry.node, entry.line.or(section.line))
                {
                    values.push((entry.key.clone(), read(&entry.key, &mut inner)));
                    inner.finish();
                }
            }
        });
        values
    }

    /// Reads all entries that were not read so far: each a section, or the word `off`, which gives none.
    /// Anything else is refused with what is `wanted`.
    pub fn others<T>(
        &mut self,
        wanted: &str,
        mut read: impl FnMut(&str, Option<&mut Section>) -> T,
    ) -> Vec<(String, T)> {
        let mut values = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if std::mem::replace(&mut self.seen[index], true) {
                continue;
            }
            match &entry.node.value {
                NodeValue::Scalar { text, .. } if text == "off" => {
                    values.push((entry.key.clone(), read(&entry.key, None)));
                }
                NodeValue::Scalar { .. } | NodeValue::List(_) => self.error(&entry.key, wanted),
                NodeValue::Map(entries) => {
                    let (path, line) = (join(&self.path, &entry.key), entry.line.or(self.line));
                    let mut inner = Section::new(self.context, path, line, entries);
                    values.push((entry.key.clone(), read(&entry.key, Some(&mut inner))));
                    inner.finish();
                }
            }
        }
        values
    }

    /// Reads a key that is a flag or a section; none when it is not there.
    pub fn flag_or_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> Option<FlagOrSection<T>> {
        let node = self.node(key)?;
        match &node.value {
            NodeValue::Map(_) => self.section(key, read).map(FlagOrSection::Section),
            NodeValue::Scalar { .. } => self.flag(key).map(FlagOrSection::Flag),
            NodeValue::List(_) => self.refuse(key, "must be true, false or a map, not a list"),
        }
    }

    /// Reads a key that is a section, or the word `off`, which gives none within. Anything else is
    /// refused, with an `example` of a section.
    pub fn section_or_off<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&mut Section) -> T,
    ) -> Option<Option<T>> {
        let node = self.node(key)?;
        let wanted = format!("must be off, or a map such as {example}");
        match &node.value {
            NodeValue::Map(_) => self.section(key, read).map(Some),
            NodeValue::Scalar { text, .. } if text == "off" => Some(None),
            NodeValue::Scalar { text, .. } => self.refuse(key, format!("{wanted}, not \"{text}\"")),
            NodeValue::List(_) => self.refuse(key, format!("{wanted}, not a list")),
        }
    }

    /// Marks this key as read: what is wrong with it is reported already.
    pub fn ignore(&mut self, key: &str) {
        for (entry, seen) in self.entries.iter().zip(&mut self.seen) {
            *seen |= entry.key == key;
        }
    }

    /// Marks these keys as read, and as those that there are: what they belong to is reported
    /// already, and only others are unknown.
    pub fn ignore_known(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
        for (entry, seen) in self.entries.iter().zip(&mut self.seen) {
            *seen |= keys.contains(&entry.key.as_str());
        }
    }

    /// Marks all keys as read: what they belong to is reported already.
    pub fn ignore_rest(&mut self) {
        self.seen.fill(true);
    }

    fn inner(&self, key: &str, node: &'a Node, line: Option<usize>) -> Option<Section<'a>> {
        let entries = match &node.value {
            NodeValue::Map(entries) => entries.as_slice(),
            NodeValue::Scalar { .. } if is_null(node) => &[],
            NodeValue::Scalar { .. } | NodeValue::List(_) => {
                return self.refuse(key, "must be a map: indented lines of \"key: value\"");
            }
        };
        Some(Section::new(self.context, join(&self.path, key), line, entries))
    }

    fn finish(self) {
        let mut misspelled = Vec::new();
        for (entry, _) in self.entries.iter().zip(&self.seen).filter(|(_, seen)| !**seen) {
            if entry.key == "<<" {
                self.error("<<", "YAML's merge keys are not supported: write the keys out");
                continue;
            }
            misspelled.extend(suggestion::nearest(&entry.key, self.known.iter().copied()));
            let meant = suggestion::suggestion(&entry.key, self.known.iter().copied());
            let line = entry.line.or(self.line);
            self.report(Severity::Error, line, &entry.key, format!("unknown key{meant}"));
        }
        for (key, what) in self.missing.iter().filter(|(key, _)| !misspelled.contains(key)) {
            self.error(key, what.as_str());
        }
    }
}

/// The sum of the hashes of all values with their paths, so that the order of keys does not matter.
fn hash_entries(path: &str, entries: &[MapEntry], skip: &dyn Fn(&str) -> bool) -> u64 {
    let kept = entries.iter().map(|entry| (join(path, &entry.key), &entry.node));
    let kept = kept.filter(|(path, _)| !skip(path));
    kept.fold(0, |sum, (path, node)| sum.wrapping_add(hash_node(&path, node, skip)))
}

fn hash_node(path: &str, node: &Node, skip: &dyn Fn(&str) -> bool) -> u64 {
    let own = |text: &str| xxh3_64_with_seed(text.as_bytes(), xxh3_64(path.as_bytes()));
    match &node.value {
        // A host without settings is one all the same; a map of which nothing is left says nothing.
        NodeValue::Map(entries) if entries.is_empty() => own("{"),
        NodeValue::Scalar { kind: ScalarKind::Null, .. } => own("{"),
        NodeValue::Scalar { text, .. } => own(text),
        NodeValue::List(nodes) => {
            let item = |(index, node)| hash_node(&format!("{path}[{index}]"), node, skip);
            nodes.iter().enumerate().map(item).fold(own("["), u64::wrapping_add)
        }
        NodeValue::Map(entries) => hash_entries(path, entries, skip),
    }
}

fn is_null(node: &Node) -> bool {
    matches!(node.value, NodeValue::Scalar { kind: ScalarKind::Null, .. })
}

/// `a`, `a or b`, `a, b or c`.
fn alternatives(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => names.concat(),
    }
}

fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}
