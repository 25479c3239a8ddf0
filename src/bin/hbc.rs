//! `hbc`, the agent of one host.

use std::io::Write;
use std::process::ExitCode;

use heartbeat::agent::options::{self, Command, Errand, HELP};
use heartbeat::agent::send::Parcel;
use heartbeat::version;

const UNTOLD: u8 = 1;
const USAGE: u8 = 2;
/// What this build can do, for bug reports.
const FEATURES: &[&str] = &["run", "send", "exec", "metrics"];

fn main() -> ExitCode {
    match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(&version::lines("hbc", FEATURES)),
        Ok(Command::Send(errand)) => return send(*errand),
        Err(why) => return complain(USAGE, &why),
    }
    ExitCode::SUCCESS
}

fn send(errand: Errand) -> ExitCode {
    let parcel = match Parcel::pack(errand) {
        Ok(parcel) => parcel,
        Err(why) => return complain(USAGE, &why),
    };
    let mut code = ExitCode::SUCCESS;
    for result in parcel.send() {
        match result {
            Ok(line) => print(&line),
            Err(why) => code = complain(UNTOLD, &why),
        }
    }
    code
}

/// Whoever closed our output does not want to hear more.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(code: u8, why: &str) -> ExitCode {
    eprintln!("hbc: {why}");
    ExitCode::from(code)
}
