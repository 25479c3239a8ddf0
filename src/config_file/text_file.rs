//! The text of a file of a configuration: read, with its limit, and parsed as a whole or in part.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use super::yaml::{self, Node, YamlError};

/// The program that the file belongs to, for the remedy when it cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name: `hbd`.
    pub name: &'static str,
    /// The environment variable that names another file: `HBD_CONFIG`.
    pub variable: &'static str,
}

/// The tree of a text, or of the lines of one key where it is broken.
pub(super) fn parse_section(text: &str, key: &str) -> Result<Node, YamlError> {
    yaml::parse(text).or_else(|_| yaml::parse(&lines_of(text, key)))
}

/// The lines of a key at the top level, with those that are indented below it.
pub(super) fn lines_of(text: &str, key: &str) -> String {
    let begins = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    let is_below = |line: &&str| line.starts_with([' ', '#']) || line.trim().is_empty();
    let mut lines = text.lines().skip_while(|line| !begins(line));
    let first = lines.next();
    first.into_iter().chain(lines.take_while(is_below)).map(|line| format!("{line}\n")).collect()
}

/// The bytes of a file, some more than are accepted at most, and its metadata.
pub(super) fn read(file: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let open = File::open(file)?;
    let data = open.metadata()?;
    let mut bytes = Vec::new();
    open.take(yaml::MAX_BYTES as u64 + 4).read_to_end(&mut bytes)?;
    Ok((bytes, data))
}

/// How many lines a problem of a text may be at: one more than it has, where something is missing there.
pub(super) fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count() + 2
}

/// The text of a file, or the line and what is wrong there.
pub(super) fn to_text(bytes: Vec<u8>) -> Result<String, (Option<usize>, String)> {
    if bytes.len() > yaml::MAX_BYTES {
        return Err((None, yaml::TOO_LONG.into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (Some(line), "is not UTF-8 text here: save the file as UTF-8".into())
    })
}

/// What to do about a file that cannot be read.
pub(super) fn remedy(error: &io::Error, program: Program) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(": let the user that runs {} read it", program.name)
        }
        _ => String::new(),
    }
}
