//! What the kernel says about this machine: its name, its boot and its uptime (proc(5)).

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

/// Why it cannot be known.
#[derive(Debug)]
pub enum HostInfoError {
    /// The file cannot be read.
    Unreadable { path: &'static str, source: io::Error },
    /// `/proc/uptime` holds no uptime.
    NoUptime,
}

impl fmt::Display for HostInfoError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            HostInfoError::Unreadable { path, source } => write!(f, "cannot read {path}: {source}"),
            HostInfoError::NoUptime => f.write_str("/proc/uptime does not begin with seconds"),
        }
    }
}

/// The name of this machine (proc(5), `/proc/sys/kernel/hostname`).
///
/// # Errors
/// Why it cannot be known.
pub fn hostname() -> Result<String, HostInfoError> {
    read_word("/proc/sys/kernel/hostname")
}

/// The id of this boot (random(4)).
///
/// # Errors
/// Why it cannot be known.
pub fn boot_id() -> Result<String, HostInfoError> {
    read_word("/proc/sys/kernel/random/boot_id")
}

/// How long ago that boot was (proc(5), `/proc/uptime`).
///
/// # Errors
/// Why it cannot be known.
pub fn uptime() -> Result<Duration, HostInfoError> {
    let text = read_word("/proc/uptime")?;
    let seconds = text.split(' ').next().and_then(|first| first.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or(HostInfoError::NoUptime)
}

fn read_word(path: &'static str) -> Result<String, HostInfoError> {
    let text =
        fs::read_to_string(path).map_err(|source| HostInfoError::Unreadable { path, source })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_asked() {
        assert!(!hostname().unwrap().is_empty());
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(uptime().unwrap() > Duration::ZERO);
    }
    #[test]
    fn what_cannot_be_read_is_named_without_a_remedy_of_one_program() {
        let why = read_word("/nonexistent/hostname").unwrap_err().to_string();
        assert!(why.starts_with("cannot read /nonexistent/hostname: "), "{why}");
        assert!(!why.contains("give"), "{why}");
    }
}
