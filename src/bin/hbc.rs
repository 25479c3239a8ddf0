//! `hbc`, the agent of one host.

use std::io::Write;
use std::process::ExitCode;

use heartbeat::agent::cli::{self, CliCommand, ExecArgs, SendArgs};
use heartbeat::agent::help;
use heartbeat::agent::run::{self, RunError};
use heartbeat::agent::send::SendCommand;
use heartbeat::agent::settings::{CliOverrides, check};
use heartbeat::agent::{exec, sampler};
use heartbeat::{logger, name_service, version};

const NOT_SENT: u8 = 1;
const USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.h.
const CONFIGURATION: u8 = 78;
/// What this build can do, for bug reports.
const FEATURES: &[&str] = &["run", "send", "exec", "metrics"];

fn main() -> ExitCode {
    name_service::use_built_in();
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(CliCommand::Help(command)) => print(help::of(command)),
        Ok(CliCommand::Version) => print(&version::lines("hbc", FEATURES)),
        Ok(CliCommand::Run(overrides)) => return run(&overrides),
        Ok(CliCommand::Check { config, strict, json }) => {
            let (text, valid) = check(config, strict, json);
            print(&text);
            return if valid { ExitCode::SUCCESS } else { ExitCode::from(CONFIGURATION) };
        }
        Ok(CliCommand::Send(args)) => return send(*args),
        Ok(CliCommand::Exec(args)) => return exec(*args),
        Ok(CliCommand::Metrics(directory)) => {
            logger::start_with("HBC_LOG");
            print(&sampler::sample_once(directory));
        }
        Err(why) => return print_error(USAGE, &why),
    }
    ExitCode::SUCCESS
}

fn run(overrides: &CliOverrides) -> ExitCode {
    logger::start_with("HBC_LOG");
    match run::run(overrides, &|settings| Some(sampler::collect_fn(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Configuration(problems)) => {
            eprintln!("{problems}");
            ExitCode::from(CONFIGURATION)
        }
        Err(RunError::Other(why)) => print_error(NOT_SENT, &why),
    }
}

fn send(args: SendArgs) -> ExitCode {
    let command = match SendCommand::prepare(args) {
        Ok(command) => command,
        Err(why) => return print_error(USAGE, &why),
    };
    let mut code = ExitCode::SUCCESS;
    for result in command.send() {
        match result {
            Ok(line) => print(&line),
            Err(why) => code = print_error(NOT_SENT, &why),
        }
    }
    code
}

/// The exit code is that of the job, also when it could not be reported.
fn exec(args: ExecArgs) -> ExitCode {
    let exit = exec::run(args);
    for why in &exit.errors {
        print_error(exit.code, why);
    }
    exit.code.into()
}

/// A closed output is no error: it is not read any more.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn print_error(code: u8, why: &str) -> ExitCode {
    eprintln!("hbc: {why}");
    ExitCode::from(code)
}
