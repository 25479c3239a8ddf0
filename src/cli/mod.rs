//! The commands of `hbd`, one file each: they parse arguments, make one call, print, and return an
//! exit code.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::clock;
use crate::daemon::{self, DaemonError};
use crate::descriptors;
use crate::escape::{self, LineBreaks, visible};
use crate::logger;
use crate::version;

pub mod ack;
mod answer;
pub mod backup;
mod calm;
pub mod check;
pub mod client;
mod cluster;
pub mod dyndns;
pub mod forget;
mod help;
pub mod key;
mod local_time;
pub mod log;
mod names;
mod nodes;
pub mod notify;
mod reload;
pub mod silence;
pub mod status;
mod table;
mod terminal;
mod words;

/// The configuration cannot be used (`EX_CONFIG`, sysexits.h).
pub const CONFIGURATION: u8 = 78;
/// The arguments are wrong.
pub const USAGE: u8 = 2;
/// The running daemon does not answer.
pub const UNREACHABLE: u8 = 3;
const FAILED: u8 = 1;

/// What this build can do, for bug reports.
const FEATURES: &[&str] = &[
    "email",
    "pushover",
    "signal",
    "mattermost",
    "log",
    "alertmanager",
    "redis",
    "restic",
    "dyndns",
    "tls",
];

/// Runs `hbd` with these arguments.
pub fn hbd(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    descriptors::close_inherited_on_exec();
    // One TLS stack; the second call of a test process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    clock::read_local_zone();
    let mut name = String::new();
    match command(lexopt::Parser::from_args(arguments), &mut name) {
        Ok(code) => code.into(),
        Err(why) => {
            print_error(&help::describe(&name, why));
            USAGE.into()
        }
    }
}

type Command = fn(lexopt::Parser) -> Result<u8, lexopt::Error>;

const COMMANDS: [(&str, Command); 15] = [
    ("run", run),
    ("check", check::run),
    ("reload", reload::run),
    ("status", status::run),
    ("log", log::run),
    ("notify", notify::run),
    ("silence", silence::run),
    ("unsilence", silence::run_end),
    ("ack", ack::run),
    ("backup", backup::run),
    ("key", key::run),
    ("dyndns", dyndns::run),
    ("forget", forget::run),
    ("cluster", cluster::run),
    ("names", names::run),
];

/// Runs the command that the arguments name; `name` is then its name.
fn command(mut parser: lexopt::Parser, name: &mut String) -> Result<u8, lexopt::Error> {
    let Some(first) = parser.next()? else {
        return Err("a command is missing".into());
    };
    let word = match first {
        Long("help") | Short('h') => return Ok(print(help::OVERVIEW)),
        Long("version") | Short('V') => return Ok(print(&version::lines("hbd", FEATURES))),
        Value(word) => word.string()?,
        other => return Err(other.unexpected()),
    };
    if word == "help" {
        let of = parser.value().unwrap_or_default().string()?;
        return match COMMANDS.iter().any(|(known, _)| *known == of) || of.is_empty() {
            true => Ok(print(&help::of(&of))),
            false => Err(help::unknown_command(&of).into()),
        };
    }
    let Some((known, run)) = COMMANDS.iter().find(|(known, _)| *known == word) else {
        return Err(help::unknown_command(&word).into());
    };
    *name = (*known).to_owned();
    run(parser)
}

fn run(mut parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let mut config = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => config = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(print(&help::of("run"))),
            other => return Err(other.unexpected()),
        }
    }
    logger::start();
    Ok(match daemon::run(&config_file(config)) {
        Ok(()) => 0,
        Err(DaemonError::Configuration(problems)) => {
            print_error(&problems);
            CONFIGURATION
        }
        Err(DaemonError::Other(why)) => {
            print_error(&why);
            FAILED
        }
    })
}

/// `--config`, else `$HBD_CONFIG`, else the file of the Debian package.
fn config_file(named: Option<PathBuf>) -> PathBuf {
    named
        .or_else(|| std::env::var_os("HBD_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("/etc/hbd/heartbeat.yaml"))
}

/// Prints to the standard output. A closed one is not an error: the reader wants no more.
fn print(text: &str) -> u8 {
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

/// JSON as one line, which may be read on a terminal.
fn json_line(value: &serde_json::Value) -> String {
    escape::json(format!("{value}\n"))
}

fn print_error(what: &dyn Display) {
    let text: String = visible(&what.to_string(), LineBreaks::Keep).collect();
    let _ = writeln!(io::stderr(), "{text}");
}
