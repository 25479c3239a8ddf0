//! Whether the machine is being rebooted or switched off, or only this program ended: what its init
//! says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use log::debug;

use crate::heartbeat::datagram::ShutdownReason;
use crate::process;

/// How long it may take to find out: the shutdown waits for it, and the network may go.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why the machine shuts down; none when it does not, or when that cannot be known.
pub fn find() -> Option<ShutdownReason> {
    let init = fs::read("/proc/1/cmdline").unwrap_or_default();
    let reason = if Path::new("/run/systemd/system").is_dir() {
        final_program(&init).or_else(|| {
            jobs(&output("systemctl", &["list-jobs", "--full", "--no-legend", "--no-pager"]))
        })
    } else {
        runlevel(&output("runlevel", &[]))
    };
    debug!("the machine: {reason:?}");
    reason
}

/// The standard output; empty when it cannot be run or does not end.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = process::command(Path::new(program), &[]);
    command.args(arguments).env("LC_ALL", "C");
    match process::run_until(&mut command, "", TIMEOUT, None) {
        Ok(finished) if !finished.timed_out => finished.stdout,
        Ok(_) => String::new(),
        Err(why) => {
            debug!("cannot run {program}: {why}");
            String::new()
        }
    }
}

/// From `systemctl list-jobs`, lines `123 reboot.target start waiting`: the target that the machine is
/// on its way to (systemd.special(7), bootup(7)).
fn jobs(list: &str) -> Option<ShutdownReason> {
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        match (words.next()?, words.next()?) {
            ("reboot.target" | "kexec.target" | "soft-reboot.target", "start") => {
                Some(ShutdownReason::Reboot)
            }
            ("poweroff.target" | "halt.target", "start") => Some(ShutdownReason::PowerOff),
            _ => None,
        }
    })
}

/// From the command line of process 1: at the very end, and at once with `systemctl reboot --force`,
/// systemd becomes `systemd-shutdown reboot`.
fn final_program(command: &[u8]) -> Option<ShutdownReason> {
    let mut arguments = command.split(|byte| *byte == 0);
    let program = arguments.next()?;
    let verb = arguments.next()?;
    match (program.ends_with(b"systemd-shutdown"), verb) {
        (true, b"reboot" | b"kexec") => Some(ShutdownReason::Reboot),
        (true, b"poweroff" | b"halt") => Some(ShutdownReason::PowerOff),
        _ => None,
    }
}

/// From runlevel(8) of System V init, `2 6`: the runlevel before and the present one.
fn runlevel(levels: &str) -> Option<ShutdownReason> {
    match levels.split_ascii_whitespace().nth(1)? {
        "6" => Some(ShutdownReason::Reboot),
        "0" => Some(ShutdownReason::PowerOff),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REBOOT: Option<ShutdownReason> = Some(ShutdownReason::Reboot);
    const POWEROFF: Option<ShutdownReason> = Some(ShutdownReason::PowerOff);

    #[test]
    fn systemd_says_where_the_machine_is_going() {
        let going = |target: &str| {
            format!(
                "1420 hbc.service          stop  running\n1339 {target}        start waiting\n\
                 1342 shutdown.target      start waiting\n"
            )
        };
        for (list, reason) in [
            (going("reboot.target"), REBOOT),
            (going("kexec.target"), REBOOT),
            (going("soft-reboot.target"), REBOOT),
            (going("poweroff.target"), POWEROFF),
            (going("halt.target"), POWEROFF),
            (going("rescue.target"), None),
            ("1420 hbc.service stop running\n".into(), None),
            ("1420 reboot.target stop waiting\n".into(), None),
            ("No jobs running.\n".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(jobs(&list), reason, "{list}");
        }
    }

    #[test]
    fn a_forced_reboot_leaves_only_the_last_program() {
        for (command, reason) in [
            ("/usr/lib/systemd/systemd-shutdown\0reboot\0--log-level\x006\0", REBOOT),
            ("/lib/systemd/systemd-shutdown\0poweroff\0", POWEROFF),
            ("/sbin/init\0splash\0", None),
            ("/sbin/init\0reboot\0", None),
            ("", None),
        ] {
            assert_eq!(final_program(command.as_bytes()), reason, "{command:?}");
        }
    }

    #[test]
    fn a_runlevel_says_it_too() {
        for (levels, reason) in
            [("2 6\n", REBOOT), ("N 0\n", POWEROFF), ("N 2", None), ("unknown", None), ("", None)]
        {
            assert_eq!(runlevel(levels), reason, "{levels}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_says_nothing() {
        assert_eq!(output("/nonexistent/systemctl", &[]), "");
        assert_eq!(output("sleep", &["600"]), "", "it is not waited for");
    }
}
