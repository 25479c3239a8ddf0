//! What the commands of silences and acknowledgements have in common: their options, who asks, and
//! how the daemon's answer is shown.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lexopt::prelude::*;
use serde_json::{Number, Value as Json};

use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::terminal::sanitize;
use super::{FAILED, json_line, print, print_error};
use crate::duration;
use crate::event::Level;
use crate::notify::calm::scope::CalmScope;

/// How many things one line names.
const MAX_NAMED: usize = 20;

/// The options of these commands; each refuses those that are not its own.
#[derive(Debug, Default, PartialEq)]
pub struct CalmArgs {
    /// The daemon that is asked.
    pub daemon: DaemonArgs,
    /// Why.
    pub comment: Option<String>,
    /// Who asks, where it is not the user.
    pub by: Option<String>,
    /// From which level on it is told all the same.
    pub unless: Option<Level>,
    /// `--for`.
    pub length: Option<Duration>,
    /// Times are shown in UTC.
    pub utc: bool,
    /// For programs.
    pub json: bool,
    /// `--undo`.
    pub undo: bool,
    /// The scope, and what else has no option, in this order.
    pub words: Vec<String>,
}

impl CalmArgs {
    /// The options of a command that has these besides those of every one; none when help is asked
    /// for. `--all` is a word.
    pub fn parse(
        mut parser: lexopt::Parser,
        own: &[&str],
    ) -> Result<Option<CalmArgs>, lexopt::Error> {
        let mut args = CalmArgs::default();
        while let Some(argument) = parser.next()? {
            if let Some(option) = DaemonOption::of(&argument) {
                args.daemon.set(option, &mut parser)?;
                continue;
            }
            match argument {
                Long("json") => args.json = true,
                Long("utc") if own.contains(&"utc") => args.utc = true,
                Long("all") => args.words.push("--all".into()),
                Long("help") | Short('h') => return Ok(None),
                Long(name) if own.contains(&name) => {
                    let name = name.to_owned();
                    args.set(&name, &mut parser)?;
                }
                Value(word) => args.words.push(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(args))
    }

    fn set(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
        if name == "undo" {
            self.undo = true;
            return Ok(());
        }
        let value = parser.value()?.string()?;
        match name {
            "comment" => self.comment = Some(value),
            "by" => self.by = Some(value),
            "unless" => self.unless = Some(level(&value)?),
            _ => {
                let length = duration::parse(&value);
                self.length = Some(length.map_err(|why| format!("--{name} {why}"))?);
            }
        }
        Ok(())
    }

    /// The daemon that they name, or the exit code when there is none.
    pub fn client(&self) -> Result<Result<Client, u8>, lexopt::Error> {
        self.daemon.client()
    }

    /// Who asks: `--by`, else the user.
    pub fn by(&self) -> String {
        let variable = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
        let user = || ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(variable);
        self.by.clone().or_else(user).unwrap_or_else(account)
    }
}

/// The name of the account that runs this, else its number (passwd(5)).
fn account() -> String {
    let id = fs::metadata("/proc/self").map_or(0, |of_us| of_us.uid()).to_string();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(&*id)).then(|| name.to_owned())
    });
    named.unwrap_or(id)
}

fn level(name: &str) -> Result<Level, lexopt::Error> {
    const LEVELS: [Level; 3] = [Level::Info, Level::Warning, Level::Critical];
    let found = LEVELS.into_iter().find(|level| level.name() == name);
    found.ok_or_else(|| format!("--unless must be info, warning or critical, not {name:?}").into())
}

/// The scope in its own spelling.
pub fn scope(word: &str) -> Result<String, lexopt::Error> {
    Ok(CalmScope::parse(word).map_err(|why| format!("the scope {why}"))?.to_string())
}

/// A duration as the API takes it: whole seconds as a whole number.
pub fn seconds(length: Duration) -> Json {
    match length.subsec_nanos() {
        0 => Json::from(length.as_secs()),
        _ => Number::from_f64(length.as_secs_f64()).map_or(Json::Null, Json::Number),
    }
}

/// What is sent: these fields, without those that are null.
pub fn body(mut fields: Json) -> Json {
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    fields
}

/// Where the daemon found nothing of a scope, that there is no such host, if there is none.
pub fn with_known_hosts(
    client: &Client,
    scope: &str,
    answer: Result<Result<Json, String>, String>,
) -> Result<Result<Json, String>, String> {
    let host = scope.split('/').next().unwrap_or_default();
    let is_host = !scope.contains(['*', ':']) && !scope.starts_with('-');
    answer.map(|answer| {
        answer.map_err(|why| {
            let unknown = if is_host { client.unknown_host(host) } else { None };
            unknown.unwrap_or(why)
        })
    })
}

/// Prints what the daemon answered, as JSON or in `words`; gives the exit code.
pub fn print_answer(
    answer: Result<Result<Json, String>, String>,
    json: bool,
    words: impl Fn(&Json) -> String,
) -> u8 {
    match answer {
        Ok(Ok(answer)) if json => print(&json_line(&answer)),
        Ok(Ok(answer)) => print(&words(&answer)),
        Ok(Err(why)) => {
            print_error(&sanitize(&why));
            FAILED
        }
        Err(why) => print_unreachable(&sanitize(&why)),
    }
}

/// `a, b, c`, and of many the first ones.
pub fn named(all: &[String]) -> String {
    let shown = all[..all.len().min(MAX_NAMED)].join(", ");
    match all.len() - all.len().min(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_things_the_first_ones_are_named() {
        let all: Vec<String> = (1..=22).map(|number| format!("web{number}")).collect();
        assert_eq!(named(&all[..2]), "web1, web2");
        assert!(named(&all).ends_with(", web20 and 2 more"), "{}", named(&all));
        assert_eq!(named(&[]), "");
    }

    #[test]
    fn who_asks_has_a_name() {
        assert!(!account().is_empty());
        let args = CalmArgs { by: Some("ann".into()), ..CalmArgs::default() };
        assert_eq!(args.by(), "ann");
    }

    #[test]
    fn whole_seconds_are_a_whole_number() {
        assert_eq!(seconds(Duration::from_secs(7200)).to_string(), "7200");
        assert_eq!(seconds(Duration::from_millis(1500)).to_string(), "1.5");
    }
}
