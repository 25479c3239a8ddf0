//! What systemd is told: sd_notify(3), one datagram to the socket that it names.

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

/// Tells systemd `state`, such as `READY=1`. Nothing happens where nobody asked for it.
pub fn tell(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(why) = send(name.as_bytes(), state) {
        log::warn!("systemd could not be told {state}: {why}");
    }
}

/// Tells systemd that the configuration is read again; `READY=1` ends that. Without the time it
/// does not believe it (`MONOTONIC_USEC`, sd_notify(3)).
pub fn reloading() {
    if env::var_os("NOTIFY_SOCKET").is_some() {
        tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()));
    }
}

/// The first directory below `/run` that systemd made for this service; none where
/// `RuntimeDirectory=` is not set (systemd.exec(5): a list that is separated by colons).
pub fn runtime_directory() -> Option<PathBuf> {
    first_directory(env::var_os("RUNTIME_DIRECTORY")?.as_bytes())
}

fn first_directory(list: &[u8]) -> Option<PathBuf> {
    let first = list.split(|byte| *byte == b':').find(|path| !path.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(first)))
}

/// How often systemd wants to hear `WATCHDOG=1` at least (sd_watchdog_enabled(3)); none when it
/// does not want to.
pub fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && ours)?;
    Some(Duration::from_micros(micros))
}

/// systemd's clock.
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

/// The watchdog of systemd: who does not feed it in time is started again (sd_watchdog_enabled(3)).
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// Half of the time that systemd gives.
    every: Duration,
    next: Mono,
}

impl Watchdog {
    /// The one that systemd asks for; none where it does not.
    pub fn wanted(now: Mono) -> Option<Watchdog> {
        let time = watchdog()?;
        Some(Watchdog { every: time / 2, next: now })
    }

    /// Feeds it, if it is time to. To be called by whoever does the real work.
    pub fn feed(&mut self, now: Mono) {
        if self.next <= now {
            self.next = now + self.every;
            tell("WATCHDOG=1");
        }
    }

    /// When it wants to be fed.
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
