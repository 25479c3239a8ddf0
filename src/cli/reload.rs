//! `hbd reload`: has the running daemon read its configuration again, and prints what changed.

use std::time::Duration;

use lexopt::prelude::*;
use serde_json::Value as Json;

use super::answer::{field, items, texts};
use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::{FAILED, help, json_line, print, print_error};
use crate::problem::{Problem, Problems, Severity};

/// The daemon itself gives up after 30 s.
const TIMEOUT: Duration = Duration::from_secs(35);
/// What there is to do when the file names another address or token than the daemon has.
const OTHERWISE: &str = "if receiver itself was changed: systemctl reload hbd";

#[derive(Debug, Default, PartialEq)]
struct ReloadArgs {
    daemon: DaemonArgs,
    json: bool,
}

/// Reads the arguments and asks the daemon. Gives the exit code: 0 when the configuration is in use,
/// 1 when it is refused, 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("reload"))) };
    // What is wrong with the configuration the daemon says itself.
    let found = args.daemon.client_and_notice()?;
    Ok(found.map_or_else(|code| code, |(client, _)| reload(&client.within(TIMEOUT), &args)))
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<ReloadArgs>, lexopt::Error> {
    let mut args = ReloadArgs::default();
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("json") => args.json = true,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

fn reload(client: &Client, args: &ReloadArgs) -> u8 {
    let answer = match client.reload() {
        Ok(answer) => answer,
        Err(why) if args.daemon.url.is_none() => {
            return print_unreachable(&format!("{why} ({OTHERWISE})"));
        }
        Err(why) => return print_unreachable(&why),
    };
    let refused = answer["error"].is_string();
    let code = if refused { FAILED } else { 0 };
    if args.json {
        print(&json_line(&answer));
        return code;
    }
    let problems = problems(&answer, if refused { "problems" } else { "warnings" });
    if !problems.0.is_empty() {
        print_error(&problems);
    }
    if refused {
        print_error(&field(&answer, "error"));
    } else {
        print(&changes(&answer));
    }
    code
}

/// A line for each change.
fn changes(answer: &Json) -> String {
    let changes = texts(answer, "changes");
    if changes.is_empty() {
        return "reloaded: nothing changed\n".into();
    }
    changes.iter().map(|change| format!("{change}\n")).collect()
}

/// The problems of a list of the answer, as `hbd check` prints them.
fn problems(answer: &Json, list: &str) -> Problems {
    let problem = |one: &Json| Problem {
        severity: match &*field(one, "severity") {
            "warning" => Severity::Warning,
            _ => Severity::Error,
        },
        file: field(one, "file"),
        line: one["line"].as_u64().and_then(|line| usize::try_from(line).ok()),
        path: field(one, "path"),
        what: field(one, "what"),
    };
    Problems(items(answer, list).map(problem).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_and_problems_have_a_line_each() {
        let answer = json!({"changes": ["hosts: new: db2", "receiver: changed"], "warnings": []});
        assert_eq!(changes(&answer), "hosts: new: db2\nreceiver: changed\n");
        assert_eq!(changes(&json!({"changes": []})), "reloaded: nothing changed\n");
        let answer = json!({"error": "refused", "problems": [
            {"severity": "error", "file": "hb.yaml", "line": 3, "path": "hots", "what": "unknown key"},
            {"severity": "warning", "file": "hb.yaml", "line": null, "path": "", "what": "\u{1b}odd"},
        ]});
        let lines = "hb.yaml:3: hots: unknown key\nhb.yaml: warning: odd";
        assert_eq!(problems(&answer, "problems").to_string(), lines);
    }
}
