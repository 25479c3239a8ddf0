//! `hbd`, the daemon and its own admin tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    heartbeat::cli::hbd(std::env::args_os().skip(1))
}
