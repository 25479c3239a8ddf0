//! File descriptors: how many we may have, and which of them the programs that we start do not get.

use std::io;
use std::os::fd::RawFd;

use libc::{c_uint, rlim_t, rlimit};

/// As many as hbd ever needs: at most some 900 connections, and a few for each message and each backup
/// that is looked at. As `LimitNOFILE=` of its unit.
const WANTED: rlim_t = 8192;

/// With fewer, strangers that hold their connections leave too little for hosts and people.
pub const ENOUGH: rlim_t = 256;

/// Raises the limit as far as is wanted and allowed; what it is now. Most systems begin with 1,024 and
/// allow far more (getrlimit(2)).
///
/// # Errors
/// It cannot be known.
pub fn raise_limit() -> io::Result<rlim_t> {
    let mut limit = rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = rlimit { rlim_cur: limit.rlim_max.min(WANTED), ..limit };
    if limit.rlim_cur >= raised.rlim_cur {
        return Ok(limit.rlim_cur);
    }
    // SAFETY: the pointer is to a live rlimit.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0;
    Ok(if done { raised.rlim_cur } else { limit.rlim_cur })
}

/// Descriptors that whoever started us left open are not left open for the programs that we start
/// (close_range(2)). To be called at the start: all that we open ourselves is closed there anyway.
pub fn close_inherited_on_exec() {
    // SAFETY: no memory is involved, and no descriptor is closed here.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    // Before Linux 5.11.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for descriptor in numbers.filter(|descriptor| *descriptor > 2) {
        // SAFETY: no memory is involved; a descriptor that is closed by now gives an error.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_descriptor_that_we_were_given_was_open_in_programs() {
        let file = File::open("/dev/null").unwrap();
        // SAFETY: the descriptor is open, and no memory is involved.
        let inherited = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 100) };
        assert!(inherited >= 100);
        let is_open = || {
            let output = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().contains(&format!(" {inherited} -> "))
        };
        assert!(is_open());
        close_inherited_on_exec();
        assert!(!is_open());
        // SAFETY: it is ours alone.
        unsafe { libc::close(inherited) };
    }

    #[test]
    fn a_limit_is_raised_once_and_never_lowered() {
        let first = raise_limit().unwrap();
        assert!(first > 0);
        assert_eq!(raise_limit().unwrap(), first);
    }
}
