//! What a run of an own program means: its metrics, and what is worth a line in the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};

use super::output::{self, Output};
use super::program::Found;
use crate::agent::name::{place, segments};
use crate::clock::words;

/// The exit code of a program that was killed at its deadline, as timeout(1) has it.
const HANGING: i32 = 124;

/// How a program ended.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Its exit code; 128 and the signal that killed it; 124 when it took too long; 126 or 127
    /// when it could not be started.
    pub code: i32,
    /// How long it took.
    pub took: Duration,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// It was killed at its deadline.
    pub hung: bool,
    /// Why it could not be started.
    pub unstarted: Option<String>,
}

/// What is wrong with a program: one that stays the same is logged once.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// What does not change from run to run.
    what: String,
    /// What may.
    details: String,
}

impl Run {
    /// One that was killed at its deadline. What it had printed by then is half of something.
    pub fn hanging(took: Duration) -> Run {
        Run { code: HANGING, took, hung: true, ..Run::default() }
    }

    /// Its metrics under `own_monitor.NAME`, or under the paths that it gave itself.
    pub fn report(self, name: &str, deadline: Duration) -> (Vec<(String, f64)>, Option<Trouble>) {
        let output = output::parse(&self.stdout);
        let seconds = (self.took.as_secs_f64() * 1000.0).round() / 1000.0;
        let own = [("exit_code", f64::from(self.code)), ("seconds", seconds)];
        let labels: Vec<String> = output.perfdata.iter().map(|(label, _)| place(label)).collect();
        let taken = own.iter().map(|(what, _)| *what).chain(labels.iter().map(String::as_str));
        let values = own.iter().map(|(_, value)| *value);
        let values = values.chain(output.perfdata.iter().map(|(_, value)| *value));
        let named = segments(taken).into_iter().zip(values);
        let named = named.map(|(what, value)| (format!("own_monitor.{name}.{what}"), value));
        let trouble = self.trouble(&output, deadline);
        (output.metrics.iter().cloned().chain(named).collect(), trouble)
    }

    fn trouble(&self, output: &Output, deadline: Duration) -> Option<Trouble> {
        let first = |text: &str| {
            let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
            let line = line.split('|').next().unwrap_or(line).trim();
            let clean = line.chars().filter(|c| !c.is_control()).take(120).collect::<String>();
            Some(format!(": {clean}"))
        };
        // A plugin says on its output how things are; where that holds metrics, it says no more.
        let (one, other) = match output.metrics.is_empty() {
            true => (&self.stdout, &self.stderr),
            false => (&self.stderr, &self.stdout),
        };
        let said = || first(one).or_else(|| first(other)).unwrap_or_default();
        let (what, details) = match (&self.unstarted, self.code, output.doubt.as_deref()) {
            (Some(why), ..) => ("cannot be started".into(), format!(": {why}")),
            _ if self.hung => {
                let limit = words(deadline);
                (format!("took more than {limit} and was killed with its children"), String::new())
            }
            (None, 0, None) => return None,
            (None, 0, Some(doubt)) => (format!("works, but {doubt}"), String::new()),
            (None, code @ 129.., _) => (format!("was killed by signal {}", code - 128), said()),
            (None, code, _) => (format!("ended with exit code {code}"), said()),
        };
        Some(Trouble { what, details })
    }
}

/// A segment for each program: its file name, with `_` for what does not fit.
pub fn names(programs: &[PathBuf]) -> Vec<String> {
    let files: Vec<String> = programs
        .iter()
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    segments(files.iter().map(String::as_str))
}

/// What was logged about each program, so that it is logged once, and its end once.
#[derive(Default)]
pub struct Troubles {
    known: BTreeMap<PathBuf, String>,
    refused: BTreeMap<PathBuf, String>,
}

impl Troubles {
    /// Programs that are not run at all.
    pub fn refuse(&mut self, refused: &[(PathBuf, String)]) {
        for (path, why) in refused {
            if self.refused.insert(path.clone(), why.clone()).as_ref() != Some(why) {
                warn!("{} {why}; it is not run", path.display());
            }
        }
    }

    /// Forgets those that are gone, or no longer refused.
    pub fn keep(&mut self, found: &Found) {
        self.known.retain(|path, _| found.programs.contains(path));
        self.refused.retain(|path, _| found.refused.iter().any(|(refused, _)| refused == path));
    }

    /// How a program's last run went.
    pub fn judge(&mut self, path: &Path, trouble: Option<Trouble>) {
        let shown = path.display();
        match trouble {
            None => {
                if self.known.remove(path).is_some() {
                    info!("{shown} works again");
                }
            }
            Some(Trouble { what, details }) => {
                let before = self.known.insert(path.into(), what.clone());
                if before.as_ref() != Some(&what) {
                    warn!("{shown} {what}{details}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(run: Run) -> Option<String> {
        let (_, trouble) = run.report("x", Duration::from_secs(10));
        trouble.map(|trouble| trouble.what + &trouble.details)
    }

    fn ended(code: i32, stdout: &str, stderr: &str) -> Run {
        Run { code, stdout: stdout.into(), stderr: stderr.into(), ..Run::default() }
    }

    #[test]
    fn what_is_logged_says_what_happened() {
        for (run, line) in [
            (ended(0, "OK - fine | a=1", "a warning"), None),
            (
                ended(0, "a 1\nb", ""),
                Some(
                    "works, but line 2 of its output must be a path and a number, such as \"raid.degraded 1\", not \"b\"",
                ),
            ),
            (
                ended(2, "CRITICAL - mirror broken | a=1", ""),
                Some("ended with exit code 2: CRITICAL - mirror broken"),
            ),
            (ended(1, "", "\n x: not found\nmore"), Some("ended with exit code 1: x: not found")),
            (
                ended(2, "CRITICAL - 99 %", "a warning"),
                Some("ended with exit code 2: CRITICAL - 99 %"),
            ),
            (ended(1, "a 1\n", "cannot read b"), Some("ended with exit code 1: cannot read b")),
            (ended(3, "", ""), Some("ended with exit code 3")),
            (ended(137, "", ""), Some("was killed by signal 9")),
            (ended(124, "", ""), Some("ended with exit code 124")),
            (
                Run::hanging(Duration::ZERO),
                Some("took more than 10 s and was killed with its children"),
            ),
            (
                Run { code: 127, unstarted: Some("no such file".into()), ..Run::default() },
                Some("cannot be started: no such file"),
            ),
        ] {
            assert_eq!(what(run.clone()).as_deref(), line, "{run:?}");
        }
    }

    #[test]
    fn the_same_trouble_is_known_by_what_does_not_change() {
        let path = Path::new("/x");
        let mut troubles = Troubles::default();
        let mut known = |run: Run| {
            let (_, trouble) = run.report("x", Duration::from_secs(10));
            troubles.judge(path, trouble);
            troubles.known.get(path).cloned()
        };
        let first = known(ended(2, "CRITICAL - 91 %", ""));
        assert_eq!(first.as_deref(), Some("ended with exit code 2"));
        assert_eq!(known(ended(2, "CRITICAL - 92 %", "")), first);
        assert_eq!(known(ended(0, "OK", "")), None);
    }

    #[test]
    fn programs_that_look_alike_are_told_apart() {
        let programs = ["/d/a.b", "/d/a_b", "/d/c"].map(PathBuf::from);
        assert_eq!(names(&programs), ["a_b", "a_b_2", "c"]);
    }
}
