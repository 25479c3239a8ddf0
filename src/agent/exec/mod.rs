//! `hbc exec`: runs a job, passes signals on to it, and reports its start and its end. A report that
//! fails harms neither the job nor its exit code.

mod reporter;
mod words;

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, PipeWriter};
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use super::cli::ExecArgs;
use super::collect::metric_name::segment;
use crate::clock::{Now, Wall, format_duration};
use crate::escape::{LineBreaks, visible};
use reporter::Reporter;
use words::LastWords;

/// The longest text of a message, in characters.
const MAX_MESSAGE: usize = 500;

/// How `hbc exec` ends: as the job ended, and with what could not be reported.
pub struct JobExit {
    /// Its exit code; 128 and the signal that killed it; 127 or 126 when it could not be started.
    pub code: u8,
    /// Why it was not started, and which server did not get the report and why.
    pub errors: Vec<String>,
}

/// Runs the job with our own input and outputs, and passes signals on to it.
pub fn run(args: ExecArgs) -> JobExit {
    let name = args.name.clone().unwrap_or_else(|| file_name(&args.command));
    let (started, clock) = (Now::read().wall, Instant::now());
    // Before any thread: what is blocked here is blocked in all of them.
    let signals = BlockedSignals::block();
    let reporter = Reporter::start(args.send, &segment(&name), started);
    let (words, stderr) = LastWords::start().unzip();
    let outcome = match spawn(&args.command, &signals, stderr) {
        Ok(child) => wait_for_end(child, &signals),
        Err(why) => JobOutcome::NotStarted(why),
    };
    let took = clock.elapsed();
    let last_words = words.and_then(LastWords::finish);
    signals.release();
    let job = FinishedJob { name, outcome, started, took, last_words };
    let (code, error) = (job.outcome.code(), job.error(&args.command));
    let errors = error.into_iter().chain(reporter.finish(&job)).collect();
    JobExit { code, errors }
}

fn file_name(command: &[OsString]) -> String {
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

/// Starts the job; without a `stderr` of its own it gets ours.
fn spawn(
    command: &[OsString],
    signals: &BlockedSignals,
    stderr: Option<PipeWriter>,
) -> std::io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(ErrorKind::InvalidInput)?;
    let mut job = Command::new(program);
    job.args(arguments).stderr(stderr.map_or_else(Stdio::inherit, Stdio::from));
    signals.unblock_in(&mut job);
    job.spawn()
}

/// Waits until the job has ended, and passes signals on to it.
fn wait_for_end(mut child: Child, signals: &BlockedSignals) -> JobOutcome {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return JobOutcome::Exited(status),
            Ok(None) => {}
            Err(why) => return JobOutcome::Lost(why),
        }
        if let CaughtSignal::Forward(signal) = signals.wait() {
            forward(&child, signal);
        }
    }
}

/// How a job ended.
#[derive(Debug)]
enum JobOutcome {
    Exited(ExitStatus),
    /// It could not be started.
    NotStarted(std::io::Error),
    /// It cannot be waited for.
    Lost(std::io::Error),
}

impl JobOutcome {
    /// As a shell would have it (env(1), sh(1)).
    fn code(&self) -> u8 {
        let code = match self {
            JobOutcome::Exited(status) => {
                status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1)
            }
            JobOutcome::NotStarted(why) if why.kind() == ErrorKind::NotFound => 127,
            JobOutcome::NotStarted(_) => 126,
            JobOutcome::Lost(_) => 1,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

/// A job that has ended.
struct FinishedJob {
    name: String,
    outcome: JobOutcome,
    started: Wall,
    took: Duration,
    /// The last line that it wrote to its standard error, where that was not a terminal.
    last_words: Option<String>,
}

impl FinishedJob {
    /// The text of the message about a job that failed.
    fn message(&self) -> Option<String> {
        let how = match &self.outcome {
            JobOutcome::Exited(status) if status.success() => return None,
            JobOutcome::NotStarted(why) => format!("could not be started: {why}"),
            JobOutcome::Lost(why) => {
                format!("was lost sight of after {}: {why}", format_duration(self.took))
            }
            JobOutcome::Exited(status) => match status.signal() {
                Some(signal) => {
                    format!("was killed by signal {signal} after {}", format_duration(self.took))
                }
                None => format!(
                    "failed with exit code {} after {}",
                    self.outcome.code(),
                    format_duration(self.took)
                ),
            },
        };
        let name: String = visible(&self.name, LineBreaks::Remove).collect();
        let words = self.last_words.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
        Some(format!("job {name} {how}{words}").chars().take(MAX_MESSAGE).collect())
    }

    /// The text beside its exit code, when it failed.
    fn text(&self) -> Option<&String> {
        self.last_words.as_ref().filter(|_| self.outcome.code() != 0)
    }

    /// What is printed here, because the job itself could not print it.
    fn error(&self, command: &[OsString]) -> Option<String> {
        let shown = command.first().map_or(OsStr::new(""), OsString::as_os_str).display();
        match &self.outcome {
            JobOutcome::NotStarted(why) => Some(format!("cannot run {shown}: {why}")),
            JobOutcome::Lost(why) => Some(format!("cannot wait for {shown}: {why}")),
            JobOutcome::Exited(_) => None,
        }
    }

    /// The metrics of its end. They repeat its start, in case that was not delivered.
    fn metrics(&self) -> [(&'static str, f64); 5] {
        let ended = self.started + self.took;
        [
            ("running", 0.0),
            ("started", unix(self.started)),
            ("ended", unix(ended)),
            ("seconds", (self.took.as_secs_f64() * 1000.0).round() / 1000.0),
            ("exit_code", f64::from(self.outcome.code())),
        ]
    }
}

fn unix(time: Wall) -> f64 {
    time.0 as f64 / 1000.0
}

/// The signals that are passed on to the job.
const FORWARDED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Signals that stay pending until they are waited for, instead of ending this process (signal(7)).
pub struct BlockedSignals {
    blocked: libc::sigset_t,
    before: libc::sigset_t,
}

/// A signal that came.
pub enum CaughtSignal {
    /// A process sent it to us: it is to be passed on.
    Forward(i32),
    /// The job may have ended, or its terminal has sent it the signal, too.
    Other,
}

impl BlockedSignals {
    /// Blocks the signals here and in threads that are started later.
    pub fn block() -> BlockedSignals {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are live; sigemptyset(3) writes the first and pthread_sigmask(3) the
        // second. A parent may have had the end of its children ignored, and we inherit that.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigemptyset(set.as_mut_ptr());
            for signal in FORWARDED.into_iter().chain([libc::SIGCHLD]) {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let result = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            assert_eq!(result, 0, "these signals exist");
            BlockedSignals { blocked: set.assume_init(), before: before.assume_init() }
        }
    }

    /// Has the job start with the signals blocked that were blocked before, instead of ours.
    pub fn unblock_in(&self, job: &mut Command) {
        let before = self.before;
        let restore = move || {
            // SAFETY: as in `release`.
            match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) } {
                0 => Ok(()),
                why => Err(std::io::Error::from_raw_os_error(why)),
            }
        };
        // SAFETY: between fork and exec it calls only what signal-safety(7) allows.
        unsafe { job.pre_exec(restore) };
    }

    /// Waits for the next signal.
    pub fn wait(&self) -> CaughtSignal {
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: both are live; the second is written when a signal is returned (sigwaitinfo(2)).
        let (signal, code) = unsafe {
            match libc::sigwaitinfo(&self.blocked, info.as_mut_ptr()) {
                signal @ 1.. => (signal, info.assume_init().si_code),
                _ => return CaughtSignal::Other,
            }
        };
        // What comes from the kernel, as on Ctrl-C, went to all in front of the terminal: the job
        // has it already. What processes send has a code up to 0.
        if signal == libc::SIGCHLD || code > 0 {
            CaughtSignal::Other
        } else {
            CaughtSignal::Forward(signal)
        }
    }

    /// Unblocks the signals: they end this process again.
    pub fn release(self) {
        // SAFETY: the set is the one that was there before; nothing is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// Sends a signal to the job alone: what it does with its own children is its business.
fn forward(child: &Child, signal: i32) {
    if let Ok(id) = libc::pid_t::try_from(child.id()) {
        // SAFETY: no memory is involved; the child is not reaped, so the number is still its own.
        unsafe { libc::kill(id, signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(outcome: JobOutcome) -> FinishedJob {
        let took = Duration::from_millis(303_250);
        let (name, started) = ("backup.sh".into(), Wall(1_795_291_928_667));
        FinishedJob { name, outcome, started, took, last_words: None }
    }

    #[test]
    fn a_job_that_failed_says_how_and_after_how_long() {
        let status = |raw| JobOutcome::Exited(ExitStatus::from_raw(raw));
        let not_found = || JobOutcome::NotStarted(ErrorKind::NotFound.into());
        for (outcome, code, message) in [
            (status(0), 0, None),
            (status(3 << 8), 3, Some("job backup.sh failed with exit code 3 after 5 min 3 s")),
            (status(9), 137, Some("job backup.sh was killed by signal 9 after 5 min 3 s")),
            (not_found(), 127, Some("job backup.sh could not be started: entity not found")),
            (
                JobOutcome::NotStarted(ErrorKind::PermissionDenied.into()),
                126,
                Some("job backup.sh could not be started: permission denied"),
            ),
        ] {
            let job = job(outcome);
            assert_eq!((job.outcome.code(), job.message().as_deref()), (code, message));
        }
        let long = FinishedJob { name: "ä".repeat(900), ..job(status(256)) };
        assert_eq!(long.message().unwrap().chars().count(), MAX_MESSAGE);
        let words = |raw| FinishedJob { last_words: Some("Fatal: no".into()), ..job(status(raw)) };
        let failed = "job backup.sh failed with exit code 3 after 5 min 3 s: Fatal: no";
        assert_eq!(words(3 << 8).message().as_deref(), Some(failed));
        assert_eq!(words(3 << 8).text().map(String::as_str), Some("Fatal: no"));
        assert_eq!((words(0).message(), words(0).text()), (None, None));
    }

    #[test]
    fn a_job_is_called_like_its_program() {
        for (command, name) in
            [("/usr/bin/backup.sh", "backup.sh"), ("backup", "backup"), ("..", "..")]
        {
            assert_eq!(file_name(&[command.into(), "x".into()]), name);
        }
    }

    #[test]
    fn the_end_tells_the_beginning_too() {
        let metrics = job(JobOutcome::Exited(ExitStatus::from_raw(256))).metrics();
        assert_eq!(
            metrics,
            [
                ("running", 0.0),
                ("started", 1_795_291_928.667),
                ("ended", 1_795_292_231.917),
                ("seconds", 303.25),
                ("exit_code", 1.0),
            ]
        );
    }
}
