//! Signals of a parent that waits: passed on to the job, and the end of the job itself (signal(7)).

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

/// What a job may be told by signals.
const PASSED_ON: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Signals that wait until they are asked for.
pub struct Signals {
    wanted: libc::sigset_t,
    before: libc::sigset_t,
}

/// What came.
pub enum Caught {
    /// Somebody sent that to us.
    Sent(i32),
    /// The job may have ended, or its terminal has told it by itself.
    Other,
}

impl Signals {
    /// From now on, here and in threads that are started later, signals wait.
    pub fn block() -> Signals {
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
            Signals { wanted: wanted.assume_init(), before: before.assume_init() }
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
    pub fn wait(&self) -> Caught {
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: both are live; the second is written when a signal is returned (sigwaitinfo(2)).
        let (signal, code) = unsafe {
            match libc::sigwaitinfo(&self.wanted, info.as_mut_ptr()) {
                signal @ 1.. => (signal, info.assume_init().si_code),
                _ => return Caught::Other,
            }
        };
        // What comes from the kernel, as on Ctrl-C, went to all in front of the terminal: the job
        // has it already. What processes send has a code up to 0.
        if signal == libc::SIGCHLD || code > 0 { Caught::Other } else { Caught::Sent(signal) }
    }

    /// Signals do again what they did: from now on they end us.
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
