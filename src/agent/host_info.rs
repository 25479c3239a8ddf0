//! What the kernel says about this machine.

use std::fs;
use std::time::Duration;

/// The name of this machine (proc(5), `/proc/sys/kernel/hostname`).
///
/// # Errors
/// Why it cannot be known, and what to do instead.
pub fn hostname() -> Result<String, String> {
    word("/proc/sys/kernel/hostname").map_err(|why| format!("{why}: give --host NAME"))
}

/// The id of this boot (random(4)).
///
/// # Errors
/// Why it cannot be known, and what to do instead.
pub fn boot_id() -> Result<String, String> {
    word("/proc/sys/kernel/random/boot_id").map_err(|why| format!("{why}: give --boot-id ID"))
}

/// How long ago that boot was (proc(5), `/proc/uptime`).
///
/// # Errors
/// Why it cannot be known, and what to do instead.
pub fn uptime() -> Result<Duration, String> {
    let text = word("/proc/uptime")?;
    let seconds = text.split(' ').next().and_then(|first| first.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "/proc/uptime does not begin with seconds: leave --uptime out".into())
}

fn word(path: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|why| format!("cannot read {path}: {why}"))?;
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
}
