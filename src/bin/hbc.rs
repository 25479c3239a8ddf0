//! `hbc`, the agent of one host.

use std::io::Write;
use std::process::ExitCode;

use heartbeat::agent::options::{self, Command, Errand, HELP, Job};
use heartbeat::agent::run::{self, Failure};
use heartbeat::agent::send::Parcel;
use heartbeat::agent::settings::Overrides;
use heartbeat::agent::{check, exec, gather, show};
use heartbeat::{logger, version};

const UNTOLD: u8 = 1;
const USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.h.
const CONFIGURATION: u8 = 78;
/// What this build can do, for bug reports.
const FEATURES: &[&str] = &["run", "send", "exec", "metrics"];

fn main() -> ExitCode {
    match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(&version::lines("hbc", FEATURES)),
        Ok(Command::Run(overrides)) => return run(&overrides),
        Ok(Command::Check { config, strict }) => {
            let (text, sound) = check::check(config, strict);
            print(&text);
            return if sound { ExitCode::SUCCESS } else { ExitCode::from(CONFIGURATION) };
        }
        Ok(Command::Send(errand)) => return send(*errand),
        Ok(Command::Exec(job)) => return exec(*job),
        Ok(Command::Metrics(directory)) => {
            logger::start_with("HBC_LOG");
            print(&show::metrics(directory));
        }
        Err(why) => return complain(USAGE, &why),
    }
    ExitCode::SUCCESS
}

fn run(overrides: &Overrides) -> ExitCode {
    logger::start_with("HBC_LOG");
    match run::run(overrides, &|settings| Some(gather::of_this_machine(settings))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(problems)) => {
            eprintln!("{problems}");
            ExitCode::from(CONFIGURATION)
        }
        Err(Failure::Other(why)) => complain(UNTOLD, &why),
    }
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

/// Its exit code is the job's, whatever became of the telling.
fn exec(job: Job) -> ExitCode {
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
