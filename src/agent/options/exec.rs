//! The command lines of `hbc exec` and `hbc metrics`. Pure.

use lexopt::{Arg, Parser};

use super::{Command, Job, Word, next, value};
use crate::agent::own;

/// What `hbc exec` has in common with `hbc send`.
const OF_EXEC: &[&str] =
    &["server", "host", "connection", "metric", "interval", "key-file", "wait"];

/// The options end with `--`, or with the first word that is none: that is the command.
pub fn exec(parser: &mut Parser) -> Result<Command, String> {
    let mut job = Job::default();
    while let Some(argument) = parser.next().map_err(|why| format!("{why}, see hbc --help"))? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Short(letter) => {
                return Err(format!("there is no option -{letter}, see hbc --help"));
            }
            Arg::Long(name) => {
                let name = name.to_owned();
                match name.as_str() {
                    "name" => job.name = Some(value(parser, &name)?),
                    "event" | "message" => {
                        return Err(format!("--{name}: exec tells by itself how the job went"));
                    }
                    _ if OF_EXEC.contains(&name.as_str()) => job.errand.take(&name, parser)?,
                    _ => return Err(format!("exec has no option --{name}, see hbc --help")),
                }
            }
            Arg::Value(command) => {
                job.command.push(command);
                let arguments = parser.raw_args().map_err(|why| why.to_string())?;
                job.command.extend(arguments);
                break;
            }
        }
    }
    if job.command.is_empty() {
        return Err("what shall be run? Try: hbc exec --server HOST:PORT -- COMMAND".into());
    }
    Ok(Command::Exec(Box::new(job)))
}

pub fn metrics(parser: &mut Parser) -> Result<Command, String> {
    let mut directory = own::Settings::default().directory;
    while let Some(word) = next(parser)? {
        match word {
            Word::Option('h') => return Ok(Command::Help),
            Word::Option('V') => return Ok(Command::Version),
            Word::Long(name) if name == "metrics-dir" => directory = value(parser, &name)?.into(),
            Word::Long(name) => {
                return Err(format!("metrics has no option --{name}, see hbc --help"));
            }
            Word::Option(letter) => {
                return Err(format!("there is no option -{letter}, see hbc --help"));
            }
            Word::Value(word) => return Err(format!("\"{word}\" belongs to no option")),
        }
    }
    Ok(Command::Metrics(directory))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::super::parse;
    use super::*;

    fn parsed(line: &[&str]) -> Result<Command, String> {
        parse(line.iter().map(OsString::from))
    }

    #[test]
    fn a_job_is_what_follows_the_options() {
        let words = |job: &Job| {
            job.command.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for line in [
            &[
                "exec", "--server", "a", "--wait", "3", "--name", "n", "--", "backup", "--server",
                "x", "--",
            ][..],
            &["exec", "--server", "a", "--wait=3", "--name=n", "backup", "--server", "x", "--"],
        ] {
            let Ok(Command::Exec(job)) = parsed(line) else { panic!("{line:?}") };
            assert_eq!(words(&job), ["backup", "--server", "x", "--"]);
            assert_eq!(job.name.as_deref(), Some("n"));
            assert_eq!(job.errand.wait, Some(Duration::from_secs(3)));
        }
    }

    #[test]
    fn metrics_come_from_a_directory_too() {
        let of = |line| match parsed(line) {
            Ok(Command::Metrics(directory)) => directory,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&["metrics"]), PathBuf::from("/etc/hbc/metrics.d"));
        assert_eq!(of(&["metrics", "--metrics-dir", "/x"]), PathBuf::from("/x"));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_remedy() {
        for (line, what) in [
            (&["exec", "--server", "a"][..], "what shall be run?"),
            (&["exec", "--server", "a", "--"], "what shall be run?"),
            (&["exec", "--server", "a", "--message", "x"], "exec tells by itself"),
            (&["exec", "--server", "a", "--uptime", "x"], "exec has no option --uptime"),
            (&["exec", "-x"], "there is no option -x"),
            (&["metrics", "x"], "\"x\" belongs to no option"),
            (&["metrics", "--server", "x"], "metrics has no option --server"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(what), "{line:?}: {why}");
        }
    }
}
