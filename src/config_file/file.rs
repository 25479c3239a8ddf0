//! Loads a configuration file: reads, parses and checks it, and returns all of its problems at once.

use std::fs::Metadata;
use std::io;
use std::path::Path;

use super::include::{self, Including};
use super::load_context::{Environment, LoadContext, open_to_others};
use super::section::Section;
use super::text_file::{count_lines, lines_of, parse_section, read, remedy, to_text};
use super::yaml::{self, Node};
use crate::problem::{Problem, Problems, Severity};
use crate::secret::Secret;

pub use super::text_file::Program;

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
    load_with(file, environment, program, |_, _, _| {}, read)
}

/// The same of a file that may include others.
///
/// # Errors
/// All problems of any of them, warnings included.
pub fn load_including<T>(
    file: &Path,
    environment: Environment,
    program: Program,
    read: impl FnOnce(&mut Section) -> T,
) -> Result<LoadedFile<T>, Problems> {
    let add = |context: &LoadContext, data: &Metadata, root: &mut Node| {
        include::include(Including { context, first: data, program, section: None }, root);
    };
    load_with(file, environment, program, add, |top| {
        top.ignore_known(&[include::KEY]);
        read(top)
    })
}

fn load_with<T>(
    file: &Path,
    environment: Environment,
    program: Program,
    add: impl FnOnce(&LoadContext, &Metadata, &mut Node),
    read: impl FnOnce(&mut Section) -> T,
) -> Result<LoadedFile<T>, Problems> {
    let (text, data) = contents(file, program).map_err(|(line, what)| refused(file, line, what))?;
    let mut root = yaml::parse(&text).map_err(|error| refused(file, error.line, error.what))?;
    let context = LoadContext::new(file, environment);
    context.sources().set_contents(count_lines(text.as_bytes()), open_to_others(&data));
    drop(text);
    add(&context, &data, &mut root);
    let value = Section::read_root(&context, &root, read);
    warn_of_exposed(&context);
    let (secrets, warnings) = (context.secrets(), context.problems());
    if warnings.has_errors() { Err(warnings) } else { Ok(LoadedFile { value, warnings, secrets }) }
}

fn warn_of_exposed(context: &LoadContext) {
    let exposed: Vec<(usize, String)> = {
        let sources = context.sources();
        let exposed = sources.exposed().into_iter();
        exposed.map(|(line, file)| (line, file.to_owned())).collect()
    };
    for (line, file) in exposed {
        let what = format!("holds secrets and others can read it: chmod o-r {file}");
        context.report(Severity::Warning, Some(line), String::new(), what);
    }
}

/// Loads one section of a file and of those that it includes, whatever is wrong with the others: where
/// even YAML cannot be read, the lines of that section alone. An absent section is an empty one.
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
    let (text, data) = contents(file, program).map_err(|(line, what)| refused(file, line, what))?;
    let root = yaml::parse(&text)
        .or_else(|_| yaml::parse(&(lines_of(&text, include::KEY) + &lines_of(&text, key))))
        .or_else(|_| parse_section(&text, key));
    let mut root = root.map_err(|error| refused(file, error.line, error.what))?;
    let context = LoadContext::new(file, environment);
    context.sources().set_contents(count_lines(text.as_bytes()), open_to_others(&data));
    let including = Including { context: &context, first: &data, program, section: Some(key) };
    include::include(including, &mut root);
    let value = Section::read_root(&context, &root, |top| {
        let value = top.section(key, read);
        top.ignore_rest();
        value
    });
    // What stands nowhere may stand in the file that cannot be read.
    let own = |problem: &Problem| match problem.path.split('.').next() {
        Some("" | include::KEY) => value.is_none() && problem.severity == Severity::Error,
        first => first == Some(key),
    };
    let problems = Problems(context.problems().0.into_iter().filter(own).collect());
    if problems.has_errors() { Err(problems) } else { Ok(value) }
}

fn refused(file: &Path, line: Option<usize>, what: String) -> Problems {
    let file = file.display().to_string();
    let path = String::new();
    Problems(vec![Problem { severity: Severity::Error, file, line, path, what }])
}

/// The text of a file and its metadata, or the line and what is wrong there.
fn contents(file: &Path, program: Program) -> Result<(String, Metadata), (Option<usize>, String)> {
    let (bytes, data) = read(file).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => {
                format!(": name another one with --config or ${}", program.variable)
            }
            _ => remedy(&error, program),
        };
        (None, format!("cannot be read ({error}){remedy}"))
    })?;
    Ok((to_text(bytes)?, data))
}
