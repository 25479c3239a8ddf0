//! The options of `hbc run` and `hbc check`. Pure.

use lexopt::Parser;

use super::{Command, Word, next, unknown, value};
use crate::agent::server::Server;
use crate::agent::settings::{INTERVALS, Overrides};
use crate::clock::words;
use crate::duration;

/// Reads what is behind `run`.
pub(super) fn run(parser: &mut Parser) -> Result<Command, String> {
    let mut overrides = Overrides::default();
    while let Some(word) = next(parser)? {
        match word {
            Word::Option('h') => return Ok(Command::Help),
            Word::Option('V') => return Ok(Command::Version),
            Word::Long(name) => take(&mut overrides, &name, parser)?,
            other => return Err(unknown(other)),
        }
    }
    Ok(Command::Run(overrides))
}

fn take(overrides: &mut Overrides, name: &str, parser: &mut Parser) -> Result<(), String> {
    let of_option = |why: String| format!("--{name}: {why}");
    match name {
        "config" => overrides.config = Some(value(parser, name)?.into()),
        "server" => {
            let server = Server::parse(&value(parser, name)?).map_err(of_option)?;
            if overrides.servers.contains(&server) {
                return Err(format!("--server: {server} is given twice"));
            }
            overrides.servers.push(server);
        }
        "host" => overrides.host = Some(value(parser, name)?),
        "interval" => {
            let interval = duration::parse(&value(parser, name)?).map_err(of_option)?;
            if !INTERVALS.contains(&interval) {
                let (from, to) = (words(*INTERVALS.start()), words(*INTERVALS.end()));
                return Err(of_option(format!("must be from {from} to {to}")));
            }
            overrides.interval = Some(interval);
        }
        "key-file" => overrides.key_file = Some(value(parser, name)?.into()),
        _ => return Err(unknown(Word::Long(name.to_owned()))),
    }
    Ok(())
}

/// Reads what is behind `check`.
pub(super) fn check(parser: &mut Parser) -> Result<Command, String> {
    let (mut config, mut strict) = (None, false);
    while let Some(word) = next(parser)? {
        match word {
            Word::Option('h') => return Ok(Command::Help),
            Word::Option('V') => return Ok(Command::Version),
            Word::Long(name) if name == "config" => config = Some(value(parser, &name)?.into()),
            Word::Long(name) if name == "strict" => strict = true,
            other => return Err(unknown(other)),
        }
    }
    Ok(Command::Check { config, strict })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;
    use crate::agent::options::parse;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn all_options_are_understood() {
        let line =
            "run --config /c --server a --server b:7 --host web1 --interval 1m --key-file /k";
        let Ok(Command::Run(overrides)) = parsed(line) else { panic!() };
        assert_eq!(overrides.config, Some("/c".into()));
        assert_eq!(
            overrides.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:9099", "b:7"]
        );
        assert_eq!(overrides.host.as_deref(), Some("web1"));
        assert_eq!(overrides.interval, Some(Duration::from_secs(60)));
        assert_eq!(overrides.key_file, Some("/k".into()));
        let check = Command::Check { config: Some("/c".into()), strict: true };
        assert_eq!(parsed("check --strict --config /c"), Ok(check));
        assert_eq!(parsed("run --help"), Ok(Command::Help));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        for (line, what) in [
            ("run --server", "--server: a value is missing"),
            ("run --server a --server a:9099", "--server: a:9099 is given twice"),
            ("run --interval 1ms", "--interval: must be from 50 ms to 7 d"),
            ("run --wait 3s", "there is no option --wait"),
            ("run web1", "\"web1\" belongs to no option"),
            ("check -x", "there is no option -x"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }
}
