//! Problems of a configuration: file, line, path of the key, what is wrong and what to do. Pure.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::escape::{LineBreaks, visible};

/// Whether a problem is an error or a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It can never work: the configuration is refused.
    Error,
    /// It looks wrong but may be mended outside the file.
    Warning,
}

/// One problem. Displays as one line:
/// `heartbeat.yaml:14: notification_channels.x.tokn: unknown key, did you mean "token"?`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The file as the operator named it.
    pub file: String,
    /// The line in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// The dotted path of the key; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let show = |f: &mut fmt::Formatter, text: &str| {
            visible(text, LineBreaks::Remove).try_for_each(|character| f.write_char(character))
        };
        show(f, &self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            show(f, &self.path)?;
            f.write_str(": ")?;
        }
        show(f, &self.what)
    }
}

/// All problems of a configuration, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// An address that cannot be listened on. Displays as `heartbeat.port: UDP 127.0.0.1:9099 is in
/// use by another program`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenError {
    /// The key of the configuration that would have to change.
    pub key: &'static str,
    /// What is wrong with the address, and what to do.
    pub why: String,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

impl std::error::Error for ListenError {}
