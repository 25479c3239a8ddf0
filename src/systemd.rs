//! What systemd is told: sd_notify(3), one datagram to the socket that it names.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock::Mono;

/// Tells systemd `state`, such as `READY=1`. Nothing happens where nobody asked for it.
pub fn tell(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(why) = send(name.as_bytes(), state) {
        log::warn!("systemd could not be told {state}: {why}");
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
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
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
            return None;
        }
        let time = number("WATCHDOG_USEC").filter(|time| *time > 0)?;
        Some(Watchdog { every: Duration::from_micros(time / 2), next: now })
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
