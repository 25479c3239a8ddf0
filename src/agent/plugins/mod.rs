//! Plugins: programs in a directory of the operator that print metrics. They are run in turn, each with
//! a timeout.

mod output;
mod run;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::collect::Sample;
use crate::clock::{Mono, Now};
use crate::process;
use crate::thread::{DEFAULT_STACK, Stop, lock, spawn_critical};
use run::{PluginErrorLog, PluginRun};

/// The most metrics of all plugins together: hbd keeps 512 of a host.
const MAX_METRICS: usize = 256;

/// Which programs are run, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSettings {
    /// Where they are; it need not exist.
    pub directory: PathBuf,
    /// The time from the start of one round to that of the next.
    pub interval: Duration,
    /// How long one program may take.
    pub timeout: Duration,
}

impl Default for PluginSettings {
    fn default() -> PluginSettings {
        PluginSettings {
            directory: "/etc/hbc/metrics.d".into(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
        }
    }
}

/// What each program printed last, and when; by path, the order in which they are run.
type PluginResults = BTreeMap<PathBuf, (Mono, Sample)>;

/// Runs the programs until it is stopped.
pub struct Plugins {
    settings: PluginSettings,
    results: Arc<Mutex<PluginResults>>,
}

impl Plugins {
    /// Starts the thread that runs them, the first time at once. It ends soon after `stop`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(settings: &PluginSettings, stop: Stop) -> std::io::Result<Plugins> {
        let results = Arc::default();
        let plugins = Plugins { settings: settings.clone(), results: Arc::clone(&results) };
        let mut runner =
            PluginRunner { settings: settings.clone(), errors: PluginErrorLog::default() };
        spawn_critical("own-metrics", DEFAULT_STACK, move || {
            loop {
                let start = Instant::now();
                runner.run_all(&results, &stop);
                // After a round that took too long the machine gets a moment, too.
                let rest = runner.settings.interval.saturating_sub(start.elapsed());
                if stop.wait(rest.max(Duration::from_secs(1))) {
                    return;
                }
            }
        })?;
        Ok(plugins)
    }

    /// What the programs printed last, finite and ordered by path, no path twice. It never waits.
    /// What is older than a few rounds is left out.
    pub fn latest(&self, now: Now) -> Vec<(String, f64)> {
        merge(self.fresh(now).flat_map(|sample| sample.metrics))
    }

    /// What the programs said last about these metrics, by path.
    pub fn texts(&self, now: Now) -> Vec<(String, String)> {
        self.fresh(now).flat_map(|sample| sample.texts).collect()
    }

    fn fresh(&self, now: Now) -> impl Iterator<Item = Sample> {
        let results = lock(&self.results);
        let programs = u32::try_from(results.len()).unwrap_or(u32::MAX);
        let round = self.settings.timeout.saturating_mul(programs) + self.settings.interval;
        let is_fresh = |at: Mono| now.mono.since(at) <= round.saturating_mul(3);
        let fresh = results.values().filter(|(at, _)| is_fresh(*at));
        fresh.map(|(_, sample)| sample.clone()).collect::<Vec<_>>().into_iter()
    }
}

/// Runs all programs once, one after the other; their metrics.
pub fn run_once(settings: &PluginSettings, stop: &Stop) -> Vec<(String, f64)> {
    let results = Mutex::default();
    let errors = PluginErrorLog::default();
    PluginRunner { settings: settings.clone(), errors }.run_all(&results, stop);
    let results = std::mem::take(&mut *lock(&results));
    merge(results.into_values().flat_map(|(_, sample)| sample.metrics))
}

/// Of one path the last value counts.
fn merge(metrics: impl Iterator<Item = (String, f64)>) -> Vec<(String, f64)> {
    metrics.collect::<BTreeMap<_, _>>().into_iter().take(MAX_METRICS).collect()
}

/// What a program said is beside its exit code, and while that says that something is wrong beside what
/// it measured, too.
fn texts(
    metrics: &[(String, f64)],
    name: &str,
    is_fine: bool,
    text: &str,
) -> Vec<(String, String)> {
    const MAX_TEXTS: usize = 8;
    let own = format!("own_monitor.{name}.");
    let is_beside = |what: &str| what == "exit_code" || (!is_fine && what != "seconds");
    let paths = metrics.iter().map(|(path, _)| path);
    let chosen = paths.filter(|path| path.strip_prefix(&own).is_some_and(is_beside));
    chosen.take(MAX_TEXTS).map(|path| (path.clone(), text.to_owned())).collect()
}

/// Runs all programs one after the other, and remembers what was logged about them.
struct PluginRunner {
    settings: PluginSettings,
    errors: PluginErrorLog,
}

impl PluginRunner {
    fn run_all(&mut self, results: &Mutex<PluginResults>, stop: &Stop) {
        let found = run::find(&self.settings.directory);
        self.errors.log_refused(&found.refused);
        lock(results).retain(|path, _| found.programs.contains(path));
        self.errors.retain(&found);
        let names = run::names(&found.programs);
        for (path, name) in found.programs.iter().zip(names) {
            let run = execute(path, self.settings.timeout, stop);
            if stop.stopped() {
                return;
            }
            let text = run.text(self.settings.timeout);
            let is_fine = run.code == 0;
            let (metrics, error) = run.evaluate(&name, self.settings.timeout);
            let texts = text.map(|text| texts(&metrics, &name, is_fine, &text)).unwrap_or_default();
            self.errors.log(path, error);
            lock(results).insert(path.clone(), (Now::read().mono, Sample { metrics, texts }));
        }
    }
}

/// Without a shell, without arguments, in a process group of its own that is killed as a whole.
fn execute(path: &Path, timeout: Duration, stop: &Stop) -> PluginRun {
    let start = Instant::now();
    let mut command = process::command(path, process::NETWORK_VARIABLES);
    // A plugin that speaks the operator's language would write decimal commas.
    command.env("LC_ALL", "C");
    let finished = process::run_until(&mut command, "", timeout, Some(stop));
    let took = start.elapsed();
    match finished {
        Ok(finished) if finished.timed_out => PluginRun::timed_out(took),
        Ok(finished) => PluginRun {
            code: finished.code.or(finished.signal.map(|signal| 128 + signal)).unwrap_or_default(),
            took,
            stdout: finished.stdout,
            stdout_cut: finished.stdout_cut,
            stderr: finished.stderr,
            ..PluginRun::default()
        },
        Err(why) => {
            let code = if why.kind() == ErrorKind::NotFound { 127 } else { 126 };
            PluginRun { code, took, start_error: Some(why.to_string()), ..PluginRun::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// By another process: a program started meanwhile would inherit our open file, and what is
    /// open for writing cannot be run.
    fn put(folder: &Path, name: &str, script: &str) {
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
        let path = folder.join(name);
        let done = Command::new("sh").arg("-c").arg(write).arg(path).arg(script).status().unwrap();
        assert!(done.success());
    }

    fn settings(folder: &tempfile::TempDir) -> PluginSettings {
        PluginSettings {
            directory: folder.path().into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(20),
        }
    }

    /// Waits until a process is gone, or merely waits to be reaped.
    fn wait_for_end(id: &str) {
        let stat = format!("/proc/{}/stat", id.trim());
        let begin = Instant::now();
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(begin.elapsed() < Duration::from_secs(60), "it was not killed");
            std::thread::yield_now();
        }
    }

    /// All but how long it took.
    fn shown(metrics: &[(String, f64)]) -> Vec<String> {
        let timeless = metrics.iter().filter(|(path, _)| !path.ends_with(".seconds"));
        timeless.map(|(path, value)| format!("{path}={value}")).collect()
    }

    #[test]
    fn each_program_tells_its_metrics_its_exit_code_and_how_long_it_took() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "raid.sh", "echo raid_monitor.md0.degraded 1; echo twice 1");
        put(
            folder.path(),
            "check_load",
            "echo 'WARNING - much | /=5%;80;90 load one=2;; exit_code=9'; exit 1",
        );
        put(folder.path(), "check_disk", "echo 'DISK OK | /=81% /var=20% '\\''a b'\\''=1'");
        put(folder.path(), "zombie", "echo twice 2; kill -TERM $$");
        fs::write(folder.path().join("README"), "read me").unwrap();
        let (_stopper, stop) = Stop::channel();
        let metrics = run_once(&settings(&folder), &stop);
        assert_eq!(
            shown(&metrics),
            [
                "own_monitor.check_disk.a_b=1",
                "own_monitor.check_disk.exit_code=0",
                "own_monitor.check_disk.root=81",
                "own_monitor.check_disk.var=20",
                "own_monitor.check_load.exit_code=1",
                "own_monitor.check_load.root=5",
                "own_monitor.raid_sh.exit_code=0",
                "own_monitor.zombie.exit_code=143",
                "raid_monitor.md0.degraded=1",
                "twice=2",
            ]
        );
        let took =
            metrics.iter().filter(|(path, value)| path.ends_with(".seconds") && *value > 0.0);
        assert_eq!(took.count(), 4);
    }

    #[test]
    fn what_a_plugin_says_goes_beside_its_exit_code_and_in_trouble_beside_its_figures() {
        let paths = ["exit_code", "seconds", "root"].map(|what| format!("own_monitor.disk.{what}"));
        let mut metrics: Vec<(String, f64)> = paths.into_iter().map(|path| (path, 1.0)).collect();
        metrics.push(("raid.degraded".into(), 1.0));
        let of = |is_fine| {
            texts(&metrics, "disk", is_fine, "full").into_iter().map(|(path, text)| {
                assert_eq!(text, "full");
                path
            })
        };
        assert_eq!(of(true).collect::<Vec<_>>(), ["own_monitor.disk.exit_code"]);
        let both = ["own_monitor.disk.exit_code", "own_monitor.disk.root"];
        assert_eq!(of(false).collect::<Vec<_>>(), both);
    }

    #[test]
    fn the_beginning_of_an_endless_output_counts_without_its_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo first 1; i=0; while [ $i -lt 9000 ]; do echo '# 456789'; i=$((i+1)); done; echo last 1";
        put(folder.path(), "long", script);
        let (_stopper, stop) = Stop::channel();
        let metrics = run_once(&settings(&folder), &stop);
        assert_eq!(shown(&metrics), ["first=1", "own_monitor.long.exit_code=0"]);
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children_and_the_others_run() {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join(".child");
        let script = format!("sleep 600 & echo $! > {}; echo half 1; wait", child.display());
        put(folder.path(), "a", &script);
        put(folder.path(), "b", "echo whole 1");
        // Time enough to begin its child, however busy the machine is.
        let settings = PluginSettings { timeout: Duration::from_secs(2), ..settings(&folder) };
        let (_stopper, stop) = Stop::channel();
        let begin = Instant::now();
        let metrics = run_once(&settings, &stop);
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert_eq!(
            shown(&metrics),
            ["own_monitor.a.exit_code=124", "own_monitor.b.exit_code=0", "whole=1"]
        );
        let id = fs::read_to_string(child).expect("the child was begun");
        wait_for_end(&id);
    }

    #[test]
    fn a_program_that_cannot_be_started_says_so_by_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let write = "printf '#!/nonexistent/shell\n' > x; echo neither script nor program > y; chmod 755 x y";
        let done = Command::new("sh").args(["-c", write]).current_dir(&folder).status().unwrap();
        assert!(done.success());
        let (_stopper, stop) = Stop::channel();
        let codes = ["own_monitor.x.exit_code=127", "own_monitor.y.exit_code=126"];
        assert_eq!(shown(&run_once(&settings(&folder), &stop)), codes);
    }

    #[test]
    fn it_goes_on_by_itself_and_follows_what_changes() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "count", "echo first 1");
        let (stopper, stop) = Stop::channel();
        let plugins = Plugins::start(&settings(&folder), stop).unwrap();
        let begin = Instant::now();
        let wait_for = |what: &[&str]| {
            while shown(&plugins.latest(Now::read())) != what {
                assert!(
                    begin.elapsed() < Duration::from_secs(60),
                    "{:?}",
                    plugins.latest(Now::read())
                );
                std::thread::yield_now();
            }
        };
        wait_for(&["first=1", "own_monitor.count.exit_code=0"]);
        let later = Now::read().later(Duration::from_secs(3600));
        assert_eq!(plugins.latest(later), [], "what is old is no news");
        put(folder.path(), "count.new", "echo second 2");
        fs::rename(folder.path().join("count.new"), folder.path().join("count")).unwrap();
        wait_for(&["own_monitor.count.exit_code=0", "second=2"]);
        fs::remove_file(folder.path().join("count")).unwrap();
        wait_for(&[]);
        drop(stopper);
    }

    #[test]
    fn what_hangs_does_not_outlive_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600", alive.display());
        let programs = folder.path().join("metrics.d");
        fs::create_dir(&programs).unwrap();
        put(&programs, "hang", &script);
        let settings = PluginSettings { directory: programs, ..settings(&folder) };
        let (stopper, stop) = Stop::channel();
        let plugins =
            Plugins::start(&PluginSettings { timeout: Duration::from_secs(600), ..settings }, stop)
                .unwrap();
        let begin = Instant::now();
        while !alive.exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it was never started");
            assert_eq!(plugins.latest(Now::read()), [], "nobody waits for it");
        }
        let id = fs::read_to_string(&alive).unwrap();
        drop(stopper);
        wait_for_end(&id);
    }
}
