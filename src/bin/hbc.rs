//! `hbc`, the agent of one host.

use std::io::Write;
use std::process::ExitCode;

use heartbeat::agent::cli::{self, CliCommand, ExecArgs, HELP, SendArgs};
use heartbeat::agent::run::{self, RunError};
use heartbeat::agent::send::SendCommand;
use heartbeat::agent::settings::{CliOverrides, check};
use heartbeat::agent::{exec, sampler};
use heartbeat::{logger, version};

const UNTOLD: u8 = 1;
const USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.h.
const CONFIGURATION: u8 = 78;
/// What this build can do, for bug reports.
const FEATURES: &[&str] = &["run", "send", "exec", "metrics"];

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(CliCommand::Help) => print(HELP),
        Ok(CliCommand::Version) => print(&version::lines("hbc", FEATURES)),
        Ok(CliCommand::Run(overrides)) => return run(&overrides),
        Ok(CliCommand::Check { config, strict }) => {
            let (text, sound) = check(config, strict);
            print(&text);
            return if sound { ExitCode::SUCCESS } else { ExitCode::from(CONFIGURATION) };
        }
        Ok(CliCommand::Send(errand)) => return send(*errand),
        Ok(CliCommand::Exec(job)) => return exec(*job),
        Ok(CliCommand::Metrics(directory)) => {
            logger::start_by("HBC_LOG");
            print(&sampler::metrics(directory));
        }
        Err(why) => return complain(USAGE, &why),
    }
    ExitCode::SUCCESS
}

fn run(overrides: &CliOverrides) -> ExitCode {
    logger::start_by("HBC_LOG");
    match run::run(overrides, &|settings| Some(sampler::of_this_machine(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Configuration(problems)) => {
            eprintln!("{problems}");
            ExitCode::from(CONFIGURATION)
        }
        Err(RunError::Other(why)) => complain(UNTOLD, &why),
    }
}

fn send(errand: SendArgs) -> ExitCode {
    let parcel = match SendCommand::pack(errand) {
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

/// Its exit code is the job's, whatever became of the telling.
fn exec(job: ExecArgs) -> ExitCode {
    let ended = exec::run(job);
    for why in &ended.complaints {
        complain(ended.code, why);
    }
    ended.code.into()
}

/// Whoever closed our output does not want to hear more.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(code: u8, why: &str) -> ExitCode {
    eprintln!("hbc: {why}");
    ExitCode::from(code)
}
