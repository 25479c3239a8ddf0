//! The number of failed units of systemd and their names, from systemctl(1).
//!
//! systemd keeps that on no file, and D-Bus is not everywhere: the program that comes with systemd
//! knows the way. It is queried in a thread of its own, once a minute, because it may hang, and one
//! more program in each beat would cost more than all other figures together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{info, warn};

use crate::clock::{Mono, Now};
use crate::process;
use crate::thread::{DEFAULT_STACK, Stop, StopSource, lock, spawn_critical};

/// How often it is queried.
const QUERY_INTERVAL: Duration = Duration::from_secs(60);
/// How long it may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// An older result is left out.
const MAX_AGE: Duration = Duration::from_secs(150);

/// When, how many, and which.
type Latest = Arc<Mutex<Option<(Mono, f64, Option<String>)>>>;

/// Queries systemd until it is dropped.
pub struct FailedUnits {
    latest: Latest,
    _source: StopSource,
}

impl FailedUnits {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(systemctl: PathBuf) -> std::io::Result<FailedUnits> {
        let (source, stop) = Stop::channel();
        let latest = Latest::default();
        let shared = latest.clone();
        spawn_critical("units", DEFAULT_STACK, move || run(&systemctl, &shared, &stop))?;
        Ok(FailedUnits { latest, _source: source })
    }

    /// The last result, unless it is old.
    pub fn failed(&self, now: Now) -> Option<f64> {
        let latest = lock(&self.latest);
        latest
            .as_ref()
            .filter(|(at, ..)| now.mono.since(*at) <= MAX_AGE)
            .map(|(_, failed, _)| *failed)
    }

    /// The names of these units: `nginx.service, foo.service`; none when there are none, or they are not
    /// known.
    pub fn names(&self, now: Now) -> Option<String> {
        let latest = lock(&self.latest);
        let fresh = latest.as_ref().filter(|(at, ..)| now.mono.since(*at) <= MAX_AGE);
        fresh.and_then(|(_, _, names)| names.clone())
    }
}

fn run(systemctl: &Path, latest: &Latest, stop: &Stop) {
    let mut working = true;
    loop {
        let result = query(systemctl, stop);
        if stop.stopped() {
            return;
        }
        match &result {
            Ok(_) if !working => info!("{} answers again", systemctl.display()),
            Err(why) if working => warn!("failed units are left out: {why}"),
            Ok(_) | Err(_) => {}
        }
        working = result.is_ok();
        let named =
            |failed| (failed, if failed > 0.0 { query_names(systemctl, stop) } else { None });
        let result = result.ok().map(named);
        *lock(latest) = result.map(|(failed, names)| (Now::read().mono, failed, names));
        if stop.wait(QUERY_INTERVAL) {
            return;
        }
    }
}

/// Which units failed; none when that cannot be found out: their number is enough for an alarm.
fn query_names(systemctl: &Path, stop: &Stop) -> Option<String> {
    let arguments = ["list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"];
    let mut command = process::command(systemctl, &[]);
    command.args(arguments).env("LC_ALL", "C");
    let finished = process::run_until(&mut command, "", QUERY_TIMEOUT, Some(stop)).ok()?;
    let names: Vec<&str> =
        finished.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    (finished.code == Some(0) && !names.is_empty()).then(|| names.join(", "))
}

fn query(systemctl: &Path, stop: &Stop) -> Result<f64, String> {
    let mut command = process::command(systemctl, &[]);
    command.args(["show", "--property=NFailedUnits"]).env("LC_ALL", "C");
    let shown = systemctl.display();
    let finished = process::run_until(&mut command, "", QUERY_TIMEOUT, Some(stop))
        .map_err(|why| format!("cannot run {shown}: {why}"))?;
    if finished.timed_out {
        return Err(format!("{shown} took more than {} s", QUERY_TIMEOUT.as_secs()));
    }
    parse(&finished.stdout).ok_or_else(|| {
        let why = finished.stderr.lines().next().unwrap_or("it did not say NFailedUnits");
        format!("{shown}: {why}")
    })
}

/// `NFailedUnits=2`, a property of the manager (org.freedesktop.systemd1(5)).
fn parse(output: &str) -> Option<f64> {
    let number = output.lines().find_map(|line| line.strip_prefix("NFailedUnits="))?;
    number.trim().parse::<u32>().ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// By another process: a program started meanwhile would inherit our open file, and what is
    /// open for writing cannot be run.
    fn script(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let path = folder.path().join("systemctl");
        let done = Command::new("sh").arg("-c").arg(write).arg(&path).arg(text).status().unwrap();
        assert!(done.success());
        path
    }

    #[test]
    fn the_number_is_taken_and_kept_until_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let says = r#"case "$*" in
            "show --property=NFailedUnits") echo NFailedUnits=3 ;;
            "list-units --state=failed --plain --no-legend --no-pager")
                echo 'nginx.service loaded failed failed A web server'
                echo 'foo.service not-found failed failed foo' ;;
            *) exit 1 ;;
        esac"#;
        let units = FailedUnits::start(script(&folder, says)).unwrap();
        let begin = Instant::now();
        while units.failed(Now::read()).is_none() {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        assert_eq!(units.failed(Now::read()), Some(3.0));
        assert_eq!(units.names(Now::read()).as_deref(), Some("nginx.service, foo.service"));
        let later = Now::read().later(Duration::from_secs(600));
        assert_eq!((units.failed(later), units.names(later)), (None, None));
    }

    #[test]
    fn where_systemd_does_not_answer_nothing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (_source, stop) = Stop::channel();
        let offline = "echo 'System has not been booted with systemd' >&2; exit 1";
        let why = query(&script(&folder, offline), &stop).unwrap_err();
        assert!(why.ends_with("systemctl: System has not been booted with systemd"), "{why}");
        let why = query(Path::new("/nonexistent"), &stop).unwrap_err();
        assert!(why.starts_with("cannot run /nonexistent: "), "{why}");
    }

    #[test]
    fn only_a_number_is_one() {
        assert_eq!(parse("NFailedUnits=0\n"), Some(0.0));
        assert_eq!(parse("Version=252\nNFailedUnits=12\n"), Some(12.0));
        for text in ["", "NFailedUnits=", "NFailedUnits=-1", "NFailedUnits=many", "3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
