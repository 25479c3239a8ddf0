//! Notifications to systemd (sd_notify(3)): one datagram each to the socket that it names.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use crate::clock::Mono;

/// Sends `state` to systemd, such as `READY=1`. Does nothing without `NOTIFY_SOCKET`.
pub fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(why) = send(name.as_bytes(), state) {
        log::warn!("systemd could not be told {state}: {why}");
    }
}

/// Tells systemd that a reload begins; `READY=1` ends it. systemd ignores it without the time
/// (`MONOTONIC_USEC`, sd_notify(3)).
pub fn notify_reloading() {
    if env::var_os("NOTIFY_SOCKET").is_some() {
        notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
    }
}

/// The first directory below `/run` that systemd made for this service; none where
/// `RuntimeDirectory=` is not set (systemd.exec(5): a list that is separated by colons).
pub fn runtime_directory() -> Option<PathBuf> {
    first_directory(env::var_os("RUNTIME_DIRECTORY")?.as_bytes())
}

/// The first directory that keeps the state of this service; none where `StateDirectory=` is not set
/// (systemd.exec(5)).
pub fn state_directory() -> Option<PathBuf> {
    first_directory(env::var_os("STATE_DIRECTORY")?.as_bytes())
}

fn first_directory(list: &[u8]) -> Option<PathBuf> {
    let first = list.split(|byte| *byte == b':').find(|path| !path.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(first)))
}

/// The time within which systemd expects the next `WATCHDOG=1` (sd_watchdog_enabled(3)); none without a
/// watchdog for this process.
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && ours)?;
    Some(Duration::from_micros(micros))
}

/// `CLOCK_MONOTONIC`, which systemd uses.
fn monotonic_micros() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    #[allow(clippy::unnecessary_cast, reason = "both fields are 32 bits wide on some targets")]
    (time.tv_sec as i64 * 1_000_000 + time.tv_nsec as i64 / 1000)
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// The watchdog of systemd: a process that does not feed it in time is restarted
/// (sd_watchdog_enabled(3)).
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// Half of the time that systemd gives.
    every: Duration,
    next: Mono,
}

impl Watchdog {
    /// The watchdog for this process; none when systemd has none.
    pub fn from_environment(now: Mono) -> Option<Watchdog> {
        let time = watchdog_interval()?;
        Some(Watchdog { every: time / 2, next: now })
    }

    /// Feeds it when half of its time has passed. To be called by the thread that does the work.
    pub fn feed(&mut self, now: Mono) {
        if self.next <= now {
            self.next = now + self.every;
            notify("WATCHDOG=1");
        }
    }

    /// When it is to be fed next.
    pub fn next(&self) -> Mono {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_runtime_directories_the_first_counts() {
        for (list, first) in [
            ("/run/hbc", Some("/run/hbc")),
            ("/run/hbc:/run/other", Some("/run/hbc")),
            (":/run/hbc", Some("/run/hbc")),
            ("", None),
        ] {
            assert_eq!(first_directory(list.as_bytes()), first.map(PathBuf::from), "{list}");
        }
    }
}
