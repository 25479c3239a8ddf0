//! The key `include` of a configuration: further files, whose sections are added to those of the first.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::load_context::{LoadContext, open_to_others};
use super::text_file::{self, Program};
use super::yaml::{self, MapEntry, Node, NodeValue, ScalarKind};
use crate::host_pattern::{is_pattern, matches};
use crate::problem::Severity;

/// The key at the top level of the first file.
pub const KEY: &str = "include";
/// The most bytes of all included files together.
const MAX_TOTAL_BYTES: usize = 64 << 20;
/// The most included files.
const MAX_FILES: usize = 10_000;
/// The end of the names of the files of a directory that are read.
const SUFFIX: &str = ".yaml";

/// The first file, and what is wanted of those that it includes.
#[derive(Clone, Copy)]
pub struct Including<'a> {
    /// Where problems are reported.
    pub context: &'a LoadContext<'a>,
    /// The first file.
    pub first: &'a Metadata,
    /// The program that it belongs to.
    pub program: Program,
    /// The only section that is wanted, however broken the others are; none: all.
    pub section: Option<&'a str>,
}

/// Reads the files that `root`, the tree of the first file, includes, and adds their sections to it. What
/// is wrong is reported, and the rest is read all the same.
pub fn include(including: Including, root: &mut Node) {
    let context = including.context;
    let NodeValue::Map(entries) = &mut root.value else { return };
    // A second one is reported as a duplicate.
    let Some(entry) = entries.iter().find(|entry| entry.key == KEY).cloned() else { return };
    let seen = vec![identity(including.first)];
    let mut files = IncludedFiles { including, seen, files: Vec::new() };
    for (name, line) in named(context, &entry) {
        files.add(&name, line);
    }
    let mut total = 0;
    for (path, line) in files.files {
        match read_included(including, &path, &mut total) {
            Ok((begin, included)) => merge(context, entries, included, begin),
            Err(IncludeError::InFile(line, what)) => context.report_error(line, "", what),
            Err(IncludeError::TooMuch(what)) => return context.report_error(line, KEY, what),
        }
    }
}

/// What the key names: one, or a list.
fn named(context: &LoadContext, entry: &MapEntry) -> Vec<(String, Option<usize>)> {
    let nodes = match &entry.node.value {
        NodeValue::List(nodes) => nodes.as_slice(),
        NodeValue::Scalar { kind: ScalarKind::Null, .. } => &[],
        NodeValue::Scalar { .. } | NodeValue::Map(_) => std::slice::from_ref(&entry.node),
    };
    let mut names = Vec::with_capacity(nodes.len());
    for node in nodes {
        let line = node.line.or(entry.line);
        match &node.value {
            NodeValue::Scalar { text, kind } if *kind != ScalarKind::Null && !text.is_empty() => {
                names.push((text.clone(), line));
            }
            _ => {
                let what = "must be a file, a directory, or a pattern such as conf.d/*.yaml, or a list of these";
                context.report_error(line, KEY, what.into());
            }
        }
    }
    names
}

/// A file, whatever its name: the device and the number there.
type Identity = (u64, u64);

fn identity(data: &Metadata) -> Identity {
    (data.dev(), data.ino())
}

/// The files that are to be read, each once.
struct IncludedFiles<'a> {
    including: Including<'a>,
    seen: Vec<Identity>,
    /// With the line that names each.
    files: Vec<(PathBuf, Option<usize>)>,
}

impl IncludedFiles<'_> {
    fn refuse(&self, line: Option<usize>, what: String) {
        self.including.context.report_error(line, KEY, what);
    }

    fn unreadable(&self, line: Option<usize>, path: &Path, error: &io::Error) {
        let remedy = text_file::remedy(error, self.including.program);
        self.refuse(line, format!("{} cannot be read ({error}){remedy}", path.display()));
    }

    /// Adds a file, those of a directory, or those that match a pattern.
    fn add(&mut self, name: &str, line: Option<usize>) {
        let path = self.including.context.resolve(name);
        let (directory, pattern) = match path.file_name().and_then(|name| name.to_str()) {
            Some(last) if is_pattern(last) => {
                (path.parent().unwrap_or(Path::new("")).to_owned(), last.to_owned())
            }
            _ if path.is_dir() => (path, format!("*{SUFFIX}")),
            _ => return self.add_file(path, line),
        };
        match files_of(&directory, &pattern) {
            Ok(files) if files.is_empty() => {
                let what = format!("{name} has no file {pattern}: nothing is included");
                self.including.context.report(Severity::Warning, line, KEY.into(), what);
            }
            Ok(files) => files.into_iter().for_each(|file| self.add_file(file, line)),
            Err(error) => self.unreadable(line, &directory, &error),
        }
    }

    fn add_file(&mut self, path: PathBuf, line: Option<usize>) {
        let data = match path.metadata() {
            Ok(data) => data,
            Err(error) => return self.unreadable(line, &path, &error),
        };
        if !data.is_file() && !data.is_dir() {
            return self.refuse(line, format!("{} is no file", path.display()));
        }
        let own = identity(&data);
        if self.seen.first() == Some(&own) {
            let what = format!("{} is this file itself: name others", path.display());
            return self.refuse(line, what);
        }
        if self.seen.contains(&own) {
            return self.refuse(line, format!("names {} twice", path.display()));
        }
        if self.files.len() == MAX_FILES {
            return self.refuse(line, format!("names more than {MAX_FILES} files"));
        }
        self.seen.push(own);
        self.files.push((path, line));
    }
}

/// The files of a directory whose names match a pattern, by name; hidden ones are left out.
fn files_of(directory: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut names = Vec::new();
    for entry in fs::read_dir(here)? {
        let name = entry?.file_name();
        let is_meant = |name: &str| !name.starts_with('.') && matches(pattern, name);
        if name.to_str().is_some_and(is_meant) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Why an included file is not added.
enum IncludeError {
    /// What is wrong in it, and at which line.
    InFile(Option<usize>, String),
    /// All together are too much.
    TooMuch(String),
}

/// The sections of an included file, and the number that stands for it as a whole.
fn read_included(
    including: Including,
    path: &Path,
    total: &mut usize,
) -> Result<(usize, Vec<MapEntry>), IncludeError> {
    let Including { context, program, section, .. } = including;
    let begin = context.sources().add(path);
    let in_file = |(line, what): (Option<usize>, String)| {
        IncludeError::InFile(Some(begin + line.unwrap_or(0)), what)
    };
    let read = text_file::read(path).map_err(|error| {
        let remedy = text_file::remedy(&error, program);
        in_file((None, format!("cannot be read ({error}){remedy}")))
    });
    let (bytes, data) = read?;
    context.sources().set_contents(text_file::count_lines(&bytes), open_to_others(&data));
    *total += bytes.len();
    if *total > MAX_TOTAL_BYTES {
        let what = format!("names files of more than {} MiB", MAX_TOTAL_BYTES >> 20);
        return Err(IncludeError::TooMuch(what));
    }
    let text = text_file::to_text(bytes).map_err(in_file)?;
    let is_meant = |key: &str| section.is_none_or(|section| key == section);
    if section.is_some_and(|section| !text.contains(section)) {
        return Ok((begin, Vec::new()));
    }
    let root = match section {
        Some(section) => text_file::parse_section(&text, section),
        None => yaml::parse(&text),
    };
    let mut root = root.map_err(|error| in_file((error.line, error.what)))?;
    move_lines(&mut root, begin);
    let NodeValue::Map(entries) = root.value else { return Ok((begin, Vec::new())) };
    if let Some(nested) = entries.iter().find(|entry| entry.key == KEY) {
        let what = "included files include no others: name those in the first file";
        context.report_error(nested.line.or(Some(begin)), KEY, what.into());
    }
    let is_kept = |entry: &MapEntry| entry.key != KEY && is_meant(&entry.key);
    Ok((begin, entries.into_iter().filter(is_kept).collect()))
}

/// Counts the lines of a tree from `begin` on.
fn move_lines(node: &mut Node, begin: usize) {
    node.line = node.line.map(|line| line + begin);
    match &mut node.value {
        NodeValue::Scalar { .. } => {}
        NodeValue::List(nodes) => nodes.iter_mut().for_each(|node| move_lines(node, begin)),
        NodeValue::Map(entries) => {
            for entry in entries {
                entry.line = entry.line.map(|line| line + begin);
                move_lines(&mut entry.node, begin);
            }
        }
    }
}

fn is_null(node: &Node) -> bool {
    matches!(node.value, NodeValue::Scalar { kind: ScalarKind::Null, .. })
}

/// Adds the sections of an included file to those that there are. What cannot be added to another one
/// stays beside it, and is reported as a duplicate.
fn merge(context: &LoadContext, root: &mut Vec<MapEntry>, included: Vec<MapEntry>, begin: usize) {
    let mut merged: Vec<(String, Option<usize>)> = Vec::new();
    for mut entry in included {
        entry.line = entry.line.or(Some(begin));
        if let Some((_, first)) = merged.iter().find(|(key, _)| *key == entry.key) {
            let what = context.duplicate(*first, entry.line);
            context.report_error(entry.line, &entry.key, what);
            continue;
        }
        merged.push((entry.key.clone(), entry.line));
        let Some(known) = root.iter_mut().find(|known| known.key == entry.key) else {
            root.push(entry);
            continue;
        };
        if is_null(&entry.node) {
            continue;
        }
        if is_null(&known.node) {
            *known = entry;
            continue;
        }
        match (&mut known.node.value, &mut entry.node.value) {
            (NodeValue::Map(entries), NodeValue::Map(added)) => {
                // Whatever has no line of its own is in this file, and not in that of the section.
                added.iter_mut().for_each(|one| one.line = one.line.or(entry.line));
                entries.append(added);
            }
            _ => root.push(entry),
        }
    }
}
