//! Which file of the crate knows which, read from its `use` items and paths.
//!
//! A file knows the file that declares what it names: where a module only hands something on by a
//! `use`, that is followed. That a module names the modules below it does not count: the front of a
//! folder and its parts are one thing, and a part may use what the front declares. A circle is a
//! group of files each of which knows, maybe by way of others, all the others.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, Use};

/// How often a name is followed from one module that hands it on to the next.
const MAX_STEPS: usize = 8;

type ModulePath = Vec<String>;

/// The files and whom they know.
pub struct Imports {
    files: Vec<String>,
    known: Vec<BTreeSet<usize>>,
}

struct Module {
    index: usize,
    uses: Vec<Use>,
}

impl Imports {
    /// Reads the files of a crate below `src`; binaries are crates of their own.
    pub fn of(sources: &[Source]) -> Imports {
        let sources: Vec<&Source> =
            sources.iter().filter(|source| source.module != "bin").collect();
        let modules: BTreeMap<ModulePath, Module> = sources
            .iter()
            .enumerate()
            .map(|(index, source)| (path_of(source), Module { index, uses: source.uses() }))
            .collect();
        let mut known = vec![BTreeSet::new(); sources.len()];
        for (path, module) in &modules {
            let paths = module.uses.iter().map(|item| item.path.clone());
            for named in paths.chain(sources[module.index].inline_paths()) {
                let Some(target) = absolute(&named, path, &modules) else { continue };
                let Some(found) = declaring(&target, &modules, MAX_STEPS) else { continue };
                if !found.starts_with(path) {
                    known[module.index].insert(modules[&found].index);
                }
            }
        }
        let files = sources.iter().map(|source| source.path.clone()).collect();
        Imports { files, known }
    }

    /// The circles, each with its files in order.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reach: Vec<BTreeSet<usize>> =
            (0..self.files.len()).map(|file| self.reachable(file)).collect();
        let mut circles = BTreeSet::new();
        for file in 0..self.files.len() {
            let circle: Vec<String> = reach[file]
                .iter()
                .filter(|other| reach[**other].contains(&file))
                .map(|other| self.files[*other].clone())
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reachable(&self, from: usize) -> BTreeSet<usize> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            next.extend(self.known[file].iter().copied().filter(|other| seen.insert(*other)));
        }
        seen
    }
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`; `src/lib.rs` is the root.
fn path_of(source: &Source) -> ModulePath {
    let below = source.path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: ModulePath = below.split('/').map(str::to_owned).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib")) {
        path.pop();
    }
    path
}

/// A path as `module` names it, from the root of the crate; none for another crate's.
fn absolute(
    named: &[String],
    module: &ModulePath,
    modules: &BTreeMap<ModulePath, Module>,
) -> Option<ModulePath> {
    let mut from = module.clone();
    let mut rest = named;
    match named.first()?.as_str() {
        "crate" => (from, rest) = (Vec::new(), &named[1..]),
        "self" => rest = &named[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                from.pop();
                rest = &rest[1..];
            }
        }
        child => {
            let below = [module.as_slice(), &[child.to_owned()]].concat();
            modules.contains_key(&below).then_some(())?;
        }
    }
    Some([from.as_slice(), rest].concat())
}

/// The module that declares what `path` names.
fn declaring(
    path: &[String],
    modules: &BTreeMap<ModulePath, Module>,
    steps: usize,
) -> Option<ModulePath> {
    let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let (module, rest) = (path[..length].to_vec(), &path[length..]);
    let Some(name) = rest.first().filter(|_| steps > 0) else { return Some(module) };
    for item in modules[&module].uses.iter().filter(|item| item.name == *name) {
        if let Some(target) = absolute(&item.path, &module, modules) {
            let target = [target.as_slice(), &rest[1..]].concat();
            return declaring(&target, modules, steps - 1).or(Some(module));
        }
    }
    Some(module)
}
