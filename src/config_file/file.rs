//! Loads a configuration file: reads, parses and checks it, and returns all of its problems at once.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use super::load_context::{Environment, LoadContext, open_to_others};
use super::section::Section;
use super::yaml;
use crate::problem::{Problem, Problems, Severity};
use crate::secret::Secret;

/// The program that the file belongs to, for the remedy when it cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name: `hbd`.
    pub name: &'static str,
    /// The environment variable that names another file: `HBD_CONFIG`.
    pub variable: &'static str,
}

/// A file without errors.
#[derive(Debug)]
pub struct LoadedFile<T> {
    /// The configuration.
    pub value: T,
    /// Its warnings.
    pub warnings: Problems,
    /// Every secret that was read, to remove them from everything that is printed.
    pub secrets: Vec<Secret>,
}

/// Loads a file, whose top level is read by `read`.
///
/// # Errors
/// All of its problems, warnings included.
pub fn load<T>(
    file: &Path,
    environment: Environment,
    program: Program,
    read: impl FnOnce(&mut Section) -> T,
) -> Result<LoadedFile<T>, Problems> {
    let (text, data) = contents(file, program).map_err(|(line, what)| refused(file, line, what))?;
    let root = yaml::parse(&text).map_err(|error| refused(file, error.line, error.what))?;
    let context = LoadContext::new(file, environment);
    let value = Section::read_root(&context, &root, read);
    if context.holds_secrets() && open_to_others(&data) {
        let what = format!("holds secrets and others can read it: chmod o-r {}", file.display());
        context.report(Severity::Warning, None, String::new(), what);
    }
    let (secrets, warnings) = (context.secrets(), context.problems());
    if warnings.has_errors() { Err(warnings) } else { Ok(LoadedFile { value, warnings, secrets }) }
}

/// Loads one section of a file, whatever is wrong with the others: where even YAML cannot be read,
/// the lines of that section alone. An absent section is an empty one.
///
/// # Errors
/// All problems of that section, or of the file when it cannot be read.
pub fn load_section<T>(
    file: &Path,
    environment: Environment,
    program: Program,
    key: &'static str,
    read: impl FnOnce(&mut Section) -> T,
) -> Result<Option<T>, Problems> {
    let (text, _) = contents(file, program).map_err(|(line, what)| refused(file, line, what))?;
    let root = yaml::parse(&text).or_else(|_| yaml::parse(&lines_of(&text, key)));
    let root = root.map_err(|error| refused(file, error.line, error.what))?;
    let context = LoadContext::new(file, environment);
    let value = Section::read_root(&context, &root, |top| {
        let value = top.section(key, read);
        top.ignore_rest();
        value
    });
    let own = |problem: &Problem| problem.path.split('.').next() == Some(key);
    let problems = Problems(context.problems().0.into_iter().filter(own).collect());
    if problems.has_errors() { Err(problems) } else { Ok(value) }
}

/// The lines of a key at the top level, with those that are indented below it.
fn lines_of(text: &str, key: &str) -> String {
    let begins = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    let is_below = |line: &&str| line.starts_with([' ', '#']) || line.trim().is_empty();
    let mut lines = text.lines().skip_while(|line| !begins(line));
    let first = lines.next();
    first.into_iter().chain(lines.take_while(is_below)).map(|line| format!("{line}\n")).collect()
}

fn refused(file: &Path, line: Option<usize>, what: String) -> Problems {
    let file = file.display().to_string();
    let path = String::new();
    Problems(vec![Problem { severity: Severity::Error, file, line, path, what }])
}

/// The text of a file and its metadata, or the line and what is wrong there.
fn contents(file: &Path, program: Program) -> Result<(String, Metadata), (Option<usize>, String)> {
    let read = || -> io::Result<(Vec<u8>, Metadata)> {
        let open = File::open(file)?;
        let data = open.metadata()?;
        let mut bytes = Vec::new();
        open.take(yaml::MAX_BYTES as u64 + 4).read_to_end(&mut bytes)?;
        Ok((bytes, data))
    };
    let (bytes, data) = read().map_err(|error| (None, unreadable(&error, program)))?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err((None, yaml::TOO_LONG.into()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, data)),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err((Some(line), "is not UTF-8 text here: save the file as UTF-8".into()))
        }
    }
}

fn unreadable(error: &io::Error, program: Program) -> String {
    let Program { name, variable } = program;
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => format!(": name another one with --config or ${variable}"),
        io::ErrorKind::PermissionDenied => format!(": let the user that runs {name} read it"),
        _ => String::new(),
    };
    format!("cannot be read ({error}){remedy}")
}
