//! Plugins of one directory: which programs may be run, and what a run means in metrics and log lines.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};

use super::output::{self, PluginOutput};
use crate::agent::collect::metric_name::{path_label, unique_segments};
use crate::clock::format_duration;
use crate::escape::{LineBreaks, visible};
use crate::heartbeat::datagram::cleaned_text;

/// What editors and package managers leave behind.
const LEFTOVERS: &[&str] =
    &["~", ".bak", ".old", ".orig", ".swp", ".disabled", ".rpmsave", ".rpmnew", ".rpmorig", ",v"];

/// The permission of others to write.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// The permissions to execute.
const EXECUTABLE: u32 = 0o111;

/// The programs in the directory of plugins.
#[derive(Debug, Default, PartialEq)]
pub struct PluginPrograms {
    /// Those that may be run, in order of their names.
    pub programs: Vec<PathBuf>,
    /// Those that may not, why, and the remedy.
    pub refused: Vec<(PathBuf, String)>,
}

/// Lists the directory. One that does not exist is empty.
pub fn find(directory: &Path) -> PluginPrograms {
    // The programs are run in another directory.
    let directory = &std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut found = PluginPrograms::default();
    let refused = |why: String| PluginPrograms {
        refused: vec![(directory.into(), why)],
        ..PluginPrograms::default()
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return found,
        Err(why) => return refused(format!("cannot be read: {why}")),
    };
    match fs::metadata(directory) {
        Err(why) => return refused(format!("cannot be looked at: {why}")),
        Ok(about) => {
            if let Some(why) = ownership_error(&about) {
                return refused(why);
            }
        }
    }
    let mut entries: Vec<DirEntry> =
        entries.flatten().filter(|entry| !is_leftover(entry)).collect();
    entries.sort_unstable_by_key(DirEntry::file_name);
    for path in entries.iter().map(DirEntry::path) {
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => {}
            Ok(about) => match refusal_reason(&about) {
                None => found.programs.push(path),
                Some(why) => found.refused.push((path, why)),
            },
            Err(why) => found.refused.push((path, format!("cannot be looked at: {why}"))),
        }
    }
    found
}

fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    let ends = |end: &str| name.ends_with(end);
    name.starts_with(['.', '#']) || name.contains(".dpkg-") || LEFTOVERS.iter().any(|end| ends(end))
}

fn refusal_reason(about: &Metadata) -> Option<String> {
    if !about.is_file() {
        return Some("is no file".into());
    }
    if about.mode() & EXECUTABLE == 0 {
        return Some("is not executable: chmod +x, or take it away".into());
    }
    ownership_error(about)
}

/// Why users besides root and our own could have us run what they like.
fn ownership_error(about: &Metadata) -> Option<String> {
    // SAFETY: geteuid(2) takes nothing and never fails.
    let us = unsafe { libc::geteuid() };
    if about.mode() & WRITABLE_BY_OTHERS != 0 {
        Some("can be written by everybody: chmod o-w".into())
    } else if about.uid() != 0 && about.uid() != us {
        Some("belongs to another user: chown root".into())
    } else {
        None
    }
}

/// The exit code of a program that was killed at its timeout, as timeout(1) has it.
const TIMEOUT_CODE: i32 = 124;

/// How a program ended.
#[derive(Clone, Debug, Default)]
pub struct PluginRun {
    /// Its exit code; 128 and the signal that killed it; 124 when it took too long; 126 or 127
    /// when it could not be started.
    pub code: i32,
    /// How long it took.
    pub took: Duration,
    /// Its standard output.
    pub stdout: String,
    /// Whether that is only the beginning.
    pub stdout_cut: bool,
    /// Its standard error.
    pub stderr: String,
    /// It was killed at its timeout.
    pub timed_out: bool,
    /// Why it could not be started.
    pub start_error: Option<String>,
}

/// What is wrong with a plugin. It is logged once, as long as it stays the same.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginError {
    /// What does not change from run to run.
    what: String,
    /// What may.
    details: String,
}

impl PluginRun {
    /// A run that was killed at its timeout. What it had printed by then is incomplete.
    pub fn timed_out(took: Duration) -> PluginRun {
        PluginRun { code: TIMEOUT_CODE, took, timed_out: true, ..PluginRun::default() }
    }

    /// Its metrics under `own_monitor.NAME`, or under the paths that it printed; and what is wrong with
    /// it.
    pub fn evaluate(
        self,
        name: &str,
        timeout: Duration,
    ) -> (Vec<(String, f64)>, Option<PluginError>) {
        let output = match self.stdout_cut {
            true => output::parse_beginning(&self.stdout),
            false => output::parse(&self.stdout),
        };
        let seconds = (self.took.as_secs_f64() * 1000.0).round() / 1000.0;
        let own = [("exit_code", f64::from(self.code)), ("seconds", seconds)];
        let labels: Vec<String> =
            output.perfdata.iter().map(|(label, _)| path_label(label)).collect();
        let names = own.iter().map(|(what, _)| *what).chain(labels.iter().map(String::as_str));
        let values = own.iter().map(|(_, value)| Some(*value));
        let values = values.chain(output.perfdata.iter().map(|(_, value)| *value));
        let named = unique_segments(names).into_iter().zip(values);
        let named =
            named.filter_map(|(what, value)| Some((format!("own_monitor.{name}.{what}"), value?)));
        let error = self.error(&output, timeout);
        (output.metrics.iter().cloned().chain(named).collect(), error)
    }

    /// What it says about itself, for people: a line of its own, or why it could not say any.
    pub fn text(&self, timeout: Duration) -> Option<String> {
        if let Some(why) = &self.start_error {
            return Some(format!("cannot be started: {why}"));
        }
        if self.timed_out {
            return Some(format!("took more than {} and was killed", format_duration(timeout)));
        }
        let is_plugin = output::parse(&self.stdout).metrics.is_empty();
        let said = if is_plugin { first_line(&self.stdout) } else { None };
        let said = said.or_else(|| first_line(&self.stderr).filter(|_| self.code != 0));
        said.and_then(|line| cleaned_text(&line))
    }

    fn error(&self, output: &PluginOutput, timeout: Duration) -> Option<PluginError> {
        let first = |text: &str| {
            let clean = first_line(text)?.chars().take(120).collect::<String>();
            Some(format!(": {clean}"))
        };
        // A Nagios plugin describes the state on its output; metrics there describe nothing.
        let (one, other) = match output.metrics.is_empty() {
            true => (&self.stdout, &self.stderr),
            false => (&self.stderr, &self.stdout),
        };
        let cut = if self.stdout_cut { ", and it printed more than 64 kB" } else { "" };
        let said = || first(one).or_else(|| first(other)).unwrap_or_default() + cut;
        let (what, details) = match (&self.start_error, self.code, output.warning.as_deref()) {
            (Some(why), ..) => ("cannot be started".into(), format!(": {why}")),
            _ if self.timed_out => {
                let limit = format_duration(timeout);
                (format!("took more than {limit} and was killed with its children"), String::new())
            }
            (None, 0, None) => return None,
            (None, 0, Some(warning)) => (format!("works, but {warning}"), String::new()),
            (None, code @ 129.., _) => (format!("was killed by signal {}", code - 128), said()),
            (None, code, _) => (format!("ended with exit code {code}"), said()),
        };
        Some(PluginError { what, details })
    }
}

/// The first line of a text that is not empty, without performance data and what nobody sees.
fn first_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let line = line.split('|').next().unwrap_or(line).trim();
    Some(visible(line, LineBreaks::Remove).collect())
}

/// A path segment for each program: its file name, with `_` for what does not fit.
pub fn names(programs: &[PathBuf]) -> Vec<String> {
    let files: Vec<String> = programs
        .iter()
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    unique_segments(files.iter().map(String::as_str))
}

/// What was logged about each program, so that an error is logged once, and its end once.
#[derive(Default)]
pub struct PluginErrorLog {
    logged: BTreeMap<PathBuf, String>,
    refused: BTreeMap<PathBuf, String>,
}

impl PluginErrorLog {
    /// Logs the programs that are not run.
    pub fn log_refused(&mut self, refused: &[(PathBuf, String)]) {
        for (path, why) in refused {
            if self.refused.insert(path.clone(), why.clone()).as_ref() != Some(why) {
                warn!("{} {why}; it is not run", path.display());
            }
        }
    }

    /// Forgets programs that are gone, or no longer refused.
    pub fn retain(&mut self, found: &PluginPrograms) {
        self.logged.retain(|path, _| found.programs.contains(path));
        self.refused.retain(|path, _| found.refused.iter().any(|(refused, _)| refused == path));
    }

    /// Logs a change in how the last run of a program went.
    pub fn log(&mut self, path: &Path, error: Option<PluginError>) {
        let shown = path.display();
        match error {
            None => {
                if self.logged.remove(path).is_some() {
                    info!("{shown} works again");
                }
            }
            Some(PluginError { what, details }) => {
                let before = self.logged.insert(path.into(), what.clone());
                if before.as_ref() != Some(&what) {
                    warn!("{shown} {what}{details}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn put(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn file_names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn programs_are_run_in_order_and_leftovers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["raid.sh", "10-dns", "check_ups", "raid.sh~", ".hidden", "a.dpkg-old", "b.bak"]
        {
            put(path, name, 0o755);
        }
        fs::create_dir(path.join("lib")).unwrap();
        symlink("/bin/true", path.join("true")).unwrap();
        let found = find(path);
        assert_eq!(file_names(&found.programs), ["10-dns", "check_ups", "raid.sh", "true"]);
        assert_eq!(found.refused, []);
    }

    #[test]
    fn what_others_could_have_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        put(path, "open", 0o757);
        put(path, "plain", 0o644);
        put(path, "good", 0o775);
        symlink("/nonexistent", path.join("dangling")).unwrap();
        symlink("/dev/null", path.join("null")).unwrap();
        let found = find(path);
        assert_eq!(file_names(&found.programs), ["good"]);
        let why = |name: &str| {
            let refused = found.refused.iter().find(|(path, _)| path.ends_with(name));
            refused.unwrap().1.as_str()
        };
        assert_eq!(why("open"), "can be written by everybody: chmod o-w");
        assert_eq!(why("plain"), "is not executable: chmod +x, or take it away");
        assert!(why("dangling").starts_with("cannot be looked at: "));
        assert_eq!(why("null"), "is no file");
    }

    #[test]
    fn a_directory_that_everybody_may_write_to_holds_nothing_to_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.d");
        fs::create_dir(&path).unwrap();
        put(&path, "good", 0o755);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        let why = "can be written by everybody: chmod o-w".to_owned();
        assert_eq!(find(&path), PluginPrograms { programs: vec![], refused: vec![(path, why)] });
    }

    #[test]
    fn a_program_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = put(folder.path(), "theirs", 0o755);
        // Only root can give files away; for others theirs is ours.
        if chown(&theirs, Some(4711), None).is_ok() {
            let found = find(folder.path());
            assert_eq!(found.refused, [(theirs, "belongs to another user: chown root".to_owned())]);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        assert_eq!(find(Path::new("/nonexistent/metrics.d")), PluginPrograms::default());
        assert_eq!(find(Path::new("/bin/true")).refused.len(), 1);
    }

    fn what(run: PluginRun) -> Option<String> {
        let (_, error) = run.evaluate("x", Duration::from_secs(10));
        error.map(|error| error.what + &error.details)
    }

    fn ended(code: i32, stdout: &str, stderr: &str) -> PluginRun {
        PluginRun { code, stdout: stdout.into(), stderr: stderr.into(), ..PluginRun::default() }
    }

    #[test]
    fn what_a_plugin_says_of_itself_is_a_line_of_its_own() {
        let timeout = Duration::from_secs(10);
        let missing =
            PluginRun { code: 127, start_error: Some("no".into()), ..PluginRun::default() };
        for (run, text) in [
            (ended(0, "OK - all fine | a=1\n", ""), Some("OK - all fine")),
            (
                ended(2, "\n  DISK CRITICAL - 2% left |a=1\nmore", "x"),
                Some("DISK CRITICAL - 2% left"),
            ),
            (ended(2, "", "no such disk\nmore"), Some("no such disk")),
            (ended(0, "a.b 1\n", "odd"), None),
            (ended(1, "a.b 1\n", "odd"), Some("odd")),
            (ended(0, "", ""), None),
            (PluginRun::timed_out(timeout), Some("took more than 10 s and was killed")),
            (missing, Some("cannot be started: no")),
        ] {
            assert_eq!(run.text(timeout).as_deref(), text, "{run:?}");
        }
    }

    #[test]
    fn a_value_took_the_path_of_another_one_that_was_unknown() {
        for unknown in ["U", "", "odd"] {
            let text = format!("OK | '/var/log'={unknown} 'var_log'=5 temp={unknown} temp=40");
            let (metrics, _) = ended(0, &text, "").evaluate("x", Duration::from_secs(1));
            let paths: Vec<&str> = metrics.iter().map(|(path, _)| path.as_str()).collect();
            let (log, temp) = ("own_monitor.x.var_log_2", "own_monitor.x.temp_2");
            let own = ["own_monitor.x.exit_code", "own_monitor.x.seconds"];
            assert_eq!(paths, [&own[..], &[log, temp]].concat(), "{unknown}");
        }
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
                PluginRun::timed_out(Duration::ZERO),
                Some("took more than 10 s and was killed with its children"),
            ),
            (
                PluginRun {
                    code: 127,
                    start_error: Some("no such file".into()),
                    ..PluginRun::default()
                },
                Some("cannot be started: no such file"),
            ),
        ] {
            assert_eq!(what(run.clone()).as_deref(), line, "{run:?}");
        }
    }

    #[test]
    fn an_output_that_was_too_long_is_told() {
        let long = |code| PluginRun { stdout_cut: true, ..ended(code, "a 1\nb 2", "") };
        let line = "works, but it printed more than 64 kB: the rest is passed over";
        assert_eq!(what(long(0)).as_deref(), Some(line));
        let line = "ended with exit code 3: a 1, and it printed more than 64 kB";
        assert_eq!(what(long(3)).as_deref(), Some(line));
    }

    #[test]
    fn the_same_error_is_known_by_what_does_not_change() {
        let path = Path::new("/x");
        let mut log = PluginErrorLog::default();
        let mut known = |run: PluginRun| {
            let (_, error) = run.evaluate("x", Duration::from_secs(10));
            log.log(path, error);
            log.logged.get(path).cloned()
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
