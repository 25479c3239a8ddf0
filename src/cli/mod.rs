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
pub mod dyndns;
pub mod forget;
pub mod key;
pub mod log;
pub mod notify;
pub mod silence;
pub mod status;
mod terminal;

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

const HELP: &str = "\
hbd watches hosts by their heartbeats and tells people.

  hbd run    [--config FILE]                      the daemon, in the foreground, log on stderr
  hbd check  [--config FILE] [--strict] [--json]  says what is wrong with the configuration
  hbd notify [--config FILE] (--host HOST | --channel NAME ... | --default)
             [--level LEVEL] [--json] MESSAGE     sends a message now, through the real channels
  hbd status [--config FILE | --url URL [--ca-file FILE]] [HOST] [--all] [--json] [--color WHEN]
                                                  how hosts and channels are; exits with 1 when not all is well
  hbd log    [--config FILE | --url URL [--ca-file FILE]] [HOST]
             [--events] [--limit N] [--json]      the last 50 or N messages: to whom, and how they ended;
                                                  or what happened, told or not
  hbd silence [--config FILE | --url URL [--ca-file FILE]] SCOPE DURATION
             [--comment TEXT] [--unless LEVEL] [--by NAME] [--json]
                                                  holds messages back: web1, web*, web1/ipv4, plan:4, --all
  hbd silence [--config FILE | --url URL [--ca-file FILE]] [--json]
                                                  what is silent now, what it holds back, and what is next
  hbd unsilence [--config FILE | --url URL [--ca-file FILE]] (sN | SCOPE | --all) [--json]
                                                  ends silences, and says what follows
  hbd ack    [--config FILE | --url URL [--ca-file FILE]] SCOPE
             [--comment TEXT] [--for DURATION] [--by NAME] [--json]
                                                  stops reminders of what was told and is still wrong
  hbd ack    [--config FILE | --url URL [--ca-file FILE]] --undo SCOPE [--by NAME] [--json]
                                                  takes that back
  hbd backup [--config FILE] (PLAN | --all) [--json]
                                                  how backup plans fared, and how their repositories are
  hbd backup [--config FILE | --url URL [--ca-file FILE]] PLAN --forget
                                                  ends a trouble that hbd tells of, until it changes
  hbd forget [--config FILE | --url URL [--ca-file FILE]] HOST[/CONNECTION]
                                                  gives up a connection, or all of a host, until it beats again
  hbd key    [--config FILE] (HOST | --common) [--write FILE]
                                                  makes a key, and says where it goes on each side
  hbd key    --status [--config FILE | --url URL [--ca-file FILE]]
                                                  who still signs with a previous key
  hbd dyndns [--config FILE | --url URL [--ca-file FILE]] [HOST] [--json]
                                                  the names in the DNS, their addresses and last updates
  hbd dyndns [--config FILE] HOST --dry-run [--address IP ...]
                                                  what would be sent for that host
  hbd --help | --version

A MESSAGE of - is read from standard input; -- goes before one that begins with a dash.
LEVEL is ok, info, warning (default) or critical; no channel is quiet below its min_level here.
That of a silence is info, warning or critical: what is told all the same, from that level on.
A DURATION is 30m, 2h, 1d or the like. NAME is $SUDO_USER, else the user.
The configuration is FILE, else $HBD_CONFIG, else /etc/hbd/heartbeat.yaml.
The daemon at a URL (http://host:port) is shown the token in $HBD_TOKEN.
WHEN is auto (default), always or never.
What the log shows is set by HBD_LOG: error, warn, info (default), debug.
Manual: hbd(8), heartbeat.yaml(5)
";

/// Runs `hbd` with these arguments.
pub fn hbd(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    descriptors::close_inherited_on_exec();
    // One TLS stack; the second call of a test process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    clock::read_local_zone();
    match command(lexopt::Parser::from_args(arguments)) {
        Ok(code) => code.into(),
        Err(why) => {
            print_error(&format!("{why}; see hbd --help"));
            USAGE.into()
        }
    }
}

fn command(mut parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(first) = parser.next()? else {
        return Err("a command is missing".into());
    };
    match first {
        Long("help") | Short('h') => Ok(print(HELP)),
        Long("version") | Short('V') => Ok(print(&version::lines("hbd", FEATURES))),
        Value(name) => match name.string()?.as_str() {
            "run" => run(parser),
            "check" => check(parser),
            "notify" => notify::run(parser),
            "log" => log::run(parser),
            "dyndns" => dyndns::run(parser),
            "forget" => forget::run(parser),
            "status" => status::run(parser),
            "silence" => silence::run(parser),
            "unsilence" => silence::run_end(parser),
            "ack" => ack::run(parser),
            "backup" => backup(parser),
            "key" => key::run(parser),
            "help" => Ok(print(HELP)),
            other => Err(format!("there is no command {other:?}").into()),
        },
        other => Err(other.unexpected()),
    }
}

fn run(mut parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let mut config = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => config = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(print(HELP)),
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

fn check(mut parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let (mut config, mut strict, mut json) = (None, false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => config = Some(parser.value()?.into()),
            Long("strict") => strict = true,
            Long("json") => json = true,
            Long("help") | Short('h') => return Ok(print(HELP)),
            other => return Err(other.unexpected()),
        }
    }
    let printed = check::check(&config_file(config), strict, json, &mut io::stdout().lock());
    Ok(printed.unwrap_or(FAILED))
}

fn backup(mut parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let (mut config, mut plan, mut all, mut json) = (None, None, false, false);
    let (mut forget, mut url, mut ca_file) = (false, None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => config = Some(parser.value()?.into()),
            Long("all") => all = true,
            Long("json") => json = true,
            Long("forget") => forget = true,
            Long("url") => url = Some(parser.value()?.string()?),
            Long("ca-file") => ca_file = Some(parser.value()?.into()),
            Long("help") | Short('h') => return Ok(print(HELP)),
            Value(name) if plan.is_none() => plan = Some(name.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if plan.is_some() == all {
        return Err("name one PLAN, by its id or name, or --all".into());
    }
    if forget && json {
        return Err("--json does not go with --forget".into());
    }
    if let Some(plan) = plan.as_deref().filter(|_| forget) {
        let client = client::Client::from_args(&config, &url, &ca_file)?;
        return Ok(client.map_or_else(|code| code, |client| backup::forget(&client, plan)));
    }
    if forget || url.is_some() || ca_file.is_some() {
        return Err("--url and --ca-file go with --forget, and that with a PLAN".into());
    }
    let (config, mut out) = (config_file(config), io::stdout().lock());
    Ok(backup::backup(&config, plan.as_deref(), json, &mut out).unwrap_or(FAILED))
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
