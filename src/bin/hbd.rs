//! `hbd`, the daemon and its own admin tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    heartbeat::name_service::use_built_in();
    heartbeat::cli::hbd(std::env::args_os().skip(1))
}
