//! `hbc exec`: runs a job, passes signals on to it, and reports its start and its end. A report that
//! fails harms neither the job nor its exit code.

mod reporter;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::ptr;
use std::time::{Duration, Instant};

use super::cli::ExecArgs;
use super::collect::metric_name::segment;
use crate::clock::{Now, Wall, words};
use reporter::Reporter;

/// The longest text of a message.
const LONGEST: usize = 500;

/// How a job ended, and what of it could not be told.
pub struct JobExit {
    /// Its exit code; 128 and the signal that killed it; 127 or 126 when it could not be started.
    pub code: u8,
    /// Why it was not started, and why which server was not told.
    pub complaints: Vec<String>,
}

/// Runs the job with our own input and outputs. BlockedSignals that are sent to us are passed on to it.
pub fn run(job: ExecArgs) -> JobExit {
    let name = job.name.clone().unwrap_or_else(|| file_name(&job.command));
    let begin = (Now::read().wall, Instant::now());
    // Before any thread: what is blocked here is blocked in all of them.
    let signals = BlockedSignals::block();
    let telling = Reporter::start(job.errand, &segment(&name), begin.0);
    let outcome = match spawn(&job.command, &signals) {
        Ok(child) => attend(child, &signals),
        Err(why) => JobOutcome::NotStarted(why),
    };
    signals.release();
    let report = FinishedJob { name, outcome, started: begin.0, took: begin.1.elapsed() };
    let (code, complaint) = (report.outcome.code(), report.complaint(&job.command));
    let complaints = complaint.into_iter().chain(telling.end(&report)).collect();
    JobExit { code, complaints }
}

fn file_name(command: &[OsString]) -> String {
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

fn spawn(command: &[OsString], signals: &BlockedSignals) -> std::io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(ErrorKind::InvalidInput)?;
    let mut job = Command::new(program);
    job.args(arguments);
    signals.spare(&mut job);
    job.spawn()
}

/// Waits until the job has ended, and passes signals on.
fn attend(mut child: Child, signals: &BlockedSignals) -> JobOutcome {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return JobOutcome::Exited(status),
            Ok(None) => {}
            Err(why) => return JobOutcome::Lost(why),
        }
        if let CaughtSignal::Sent(signal) = signals.wait() {
            pass_on(&child, signal);
        }
    }
}

/// How a job ended.
#[derive(Debug)]
enum JobOutcome {
    Exited(ExitStatus),
    /// It never began.
    NotStarted(std::io::Error),
    /// Nobody knows.
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
}

impl FinishedJob {
    /// What is told of one that failed.
    fn message(&self) -> Option<String> {
        let how = match &self.outcome {
            JobOutcome::Exited(status) if status.success() => return None,
            JobOutcome::NotStarted(why) => format!("could not be started: {why}"),
            JobOutcome::Lost(why) => format!("was lost sight of after {}: {why}", words(self.took)),
            JobOutcome::Exited(status) => match status.signal() {
                Some(signal) => format!("was killed by signal {signal} after {}", words(self.took)),
                None => format!(
                    "failed with exit code {} after {}",
                    self.outcome.code(),
                    words(self.took)
                ),
            },
        };
        let name: String = self.name.chars().filter(|c| !c.is_control()).collect();
        Some(format!("job {name} {how}").chars().take(LONGEST).collect())
    }

    /// What is said here, where the job itself could not say it.
    fn complaint(&self, command: &[OsString]) -> Option<String> {
        let shown = command.first().map_or(OsStr::new(""), OsString::as_os_str).display();
        match &self.outcome {
            JobOutcome::NotStarted(why) => Some(format!("cannot run {shown}: {why}")),
            JobOutcome::Lost(why) => Some(format!("cannot wait for {shown}: {why}")),
            JobOutcome::Exited(_) => None,
        }
    }

    /// What is told of every one.
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

/// What a job may be told by signals.
const PASSED_ON: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// BlockedSignals that wait until they are asked for.
pub struct BlockedSignals {
    wanted: libc::sigset_t,
    before: libc::sigset_t,
}

/// What came.
pub enum CaughtSignal {
    /// Somebody sent that to us.
    Sent(i32),
    /// The job may have ended, or its terminal has told it by itself.
    Other,
}

impl BlockedSignals {
    /// From now on, here and in threads that are started later, signals wait.
    pub fn block() -> BlockedSignals {
        let mut wanted = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are live; sigemptyset(3) writes the first and pthread_sigmask(3) the
        // second. A parent may have had the end of its children ignored, and we inherit that.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigemptyset(wanted.as_mut_ptr());
            for signal in PASSED_ON.into_iter().chain([libc::SIGCHLD]) {
                libc::sigaddset(wanted.as_mut_ptr(), signal);
            }
            let blocked =
                libc::pthread_sigmask(libc::SIG_BLOCK, wanted.as_ptr(), before.as_mut_ptr());
            assert_eq!(blocked, 0, "these signals exist");
            BlockedSignals { wanted: wanted.assume_init(), before: before.assume_init() }
        }
    }

    /// The job does not inherit that they wait here: it starts with what was blocked before.
    pub fn spare(&self, job: &mut Command) {
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

    /// Waits for the next one.
    pub fn wait(&self) -> CaughtSignal {
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: both are live; the second is written when a signal is returned (sigwaitinfo(2)).
        let (signal, code) = unsafe {
            match libc::sigwaitinfo(&self.wanted, info.as_mut_ptr()) {
                signal @ 1.. => (signal, info.assume_init().si_code),
                _ => return CaughtSignal::Other,
            }
        };
        // What comes from the kernel, as on Ctrl-C, went to all in front of the terminal: the job
        // has it already. What processes send has a code up to 0.
        if signal == libc::SIGCHLD || code > 0 {
            CaughtSignal::Other
        } else {
            CaughtSignal::Sent(signal)
        }
    }

    /// BlockedSignals do again what they did: from now on they end us.
    pub fn release(self) {
        // SAFETY: the set is the one that was there before; nothing is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// To the job alone: what it does with its own children is its business.
pub fn pass_on(child: &Child, signal: i32) {
    if let Ok(id) = libc::pid_t::try_from(child.id()) {
        // SAFETY: no memory is involved; the child is not reaped, so the number is still its own.
        unsafe { libc::kill(id, signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: JobOutcome) -> FinishedJob {
        let took = Duration::from_millis(303_250);
        FinishedJob { name: "backup.sh".into(), outcome, started: Wall(1_795_291_928_667), took }
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
            let report = report(outcome);
            assert_eq!((report.outcome.code(), report.message().as_deref()), (code, message));
        }
        let long = FinishedJob { name: "ä".repeat(900), ..report(status(256)) };
        assert_eq!(long.message().unwrap().chars().count(), LONGEST);
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
        let metrics = report(JobOutcome::Exited(ExitStatus::from_raw(256))).metrics();
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
