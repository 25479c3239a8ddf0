//! `hbd log`: the log of deliveries of the running daemon, or its events.

use std::io::{self, Write};
use std::path::PathBuf;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::answer::field;
use super::client::{Client, print_unreachable};
use super::{HELP, json_line, print, terminal};
use crate::notify::text::{TextUnit, cut};

/// How many rows are shown without `--limit`.
const DEFAULT_LIMIT: usize = 50;
/// How many rows the daemon returns at a time.
const MAX_PAGE: usize = 1000;
/// The columns before the title, and their greatest widths.
const MESSAGES: &[(&str, usize)] =
    &[("TIME", 20), ("LEVEL", 8), ("TO", 40), ("OUTCOME", 9), ("TRIES", 5), ("EVENT", 14)];
const EVENTS: &[(&str, usize)] = &[("TIME", 20), ("LEVEL", 8), ("KIND", 20), ("EVENT", 14)];
/// The least width of a title, however narrow the terminal is.
const MIN_TITLE_WIDTH: usize = 20;

#[derive(Debug, Default, PartialEq)]
struct LogArgs {
    config: Option<PathBuf>,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    host: Option<String>,
    limit: usize,
    events: bool,
    json: bool,
}

impl LogArgs {
    /// The API's name of what is listed.
    fn what(&self) -> &'static str {
        if self.events { "events" } else { "notifications" }
    }
}

/// Reads the arguments, asks the daemon and prints. Gives the exit code: 0, or 3 when the daemon
/// cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(HELP)) };
    let client = match Client::from_args(&args.config, &args.url, &args.ca_file)? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    let found = match fetch(&client, &args) {
        Ok(found) => found,
        Err(why) => return Ok(print_unreachable(&why)),
    };
    let text = if args.json {
        json_line(&json!({ args.what(): found }))
    } else if args.events {
        table(EVENTS, found.iter().map(event_row), terminal::width())
    } else {
        table(MESSAGES, found.iter().map(message_row), terminal::width())
    };
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<LogArgs>, lexopt::Error> {
    let mut args = LogArgs { limit: DEFAULT_LIMIT, ..LogArgs::default() };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => args.config = Some(parser.value()?.into()),
            Long("url") => args.url = Some(parser.value()?.string()?),
            Long("ca-file") => args.ca_file = Some(parser.value()?.into()),
            Long("limit") | Short('n') => {
                args.limit = parser.value()?.parse()?;
                if args.limit == 0 {
                    return Err("--limit must be at least 1".into());
                }
            }
            Long("events") => args.events = true,
            Long("json") => args.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(host) if args.host.is_none() => args.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

/// As many rows as `--limit` says, page by page, the newest first.
fn fetch(client: &Client, args: &LogArgs) -> Result<Vec<Json>, String> {
    let mut all: Vec<Json> = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let wanted = (args.limit - all.len()).min(MAX_PAGE);
        let mut query = vec![("limit", wanted.to_string())];
        query.extend(args.host.clone().map(|host| ("host", host)));
        query.extend(before.map(|id| ("before", id)));
        let answer = client.get(&format!("/api/v1/{}", args.what()), &query)?;
        let page = answer[args.what()].as_array();
        let old = all.len();
        all.extend(page.into_iter().flatten().take(wanted).cloned());
        before = answer["next"].as_str().map(str::to_owned);
        if before.is_none() || all.len() == old || all.len() >= args.limit {
            return Ok(all);
        }
    }
}

/// Why a message did not arrive, or when and where it was acknowledged.
fn note(one: &Json) -> String {
    let at = field(one, "acknowledged");
    match (at.is_empty(), field(one, "acknowledged_by")) {
        (true, _) => field(one, "why"),
        (false, by) if by.is_empty() => format!("acknowledged {at}"),
        (false, by) => format!("acknowledged {at} on {by}"),
    }
}

/// A row of the table: its cells, the title, and a note that goes on a line of its own.
type LogRow = (Vec<String>, String, String);

/// The table, the newest last as in every log: that is where the prompt is.
fn table(
    columns: &[(&str, usize)],
    newest_first: impl Iterator<Item = LogRow>,
    width: Option<usize>,
) -> String {
    let mut rows: Vec<LogRow> = newest_first.collect();
    rows.reverse();
    if rows.is_empty() {
        return "there is nothing\n".into();
    }
    let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let width_of = |(column, (_, most)): (usize, &(&str, usize))| {
        let cells = rows.iter().map(|(cells, ..)| &cells[column]).chain([&head[column]]);
        cells.map(|cell| count(cell)).max().unwrap_or(0).min(*most)
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(width_of).collect();
    let mut text = format_row(&head, &widths, "TITLE", width);
    for (cells, title, why) in &rows {
        text.push_str(&format_row(cells, &widths, title, width));
        if !why.is_empty() {
            let why = format!("  {why}");
            text.push_str(
                &width.map_or(why.clone(), |width| cut(&why, width, TextUnit::Characters)),
            );
            text.push('\n');
        }
    }
    text
}

fn message_row(one: &Json) -> LogRow {
    let recipient = field(one, "recipient");
    let space = if recipient.is_empty() { "" } else { " " };
    let to = format!("{}{space}{recipient}", field(one, "channel"));
    let cells = vec![
        time(one, "accepted"),
        field(one, "level"),
        to,
        field(one, "state"),
        one["attempts"].to_string(),
        field(one, "event"),
    ];
    (cells, field(one, "title"), note(one))
}

fn event_row(one: &Json) -> LogRow {
    let cells = vec![time(one, "at"), field(one, "level"), field(one, "kind"), field(one, "id")];
    (cells, field(one, "text"), String::new())
}

/// A time to the second.
fn time(one: &Json, name: &str) -> String {
    let time = field(one, name);
    time.get(..19).map_or(time.clone(), |seconds| seconds.replace('T', " ") + "Z")
}

fn format_row(cells: &[String], widths: &[usize], title: &str, width: Option<usize>) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let cell = cut(cell, *width, TextUnit::Characters);
        text.push_str(&format!("{cell}{}  ", " ".repeat(width - count(&cell))));
    }
    let used = count(&text);
    let width = width.map(|width| width.saturating_sub(used).max(MIN_TITLE_WIDTH));
    text.push_str(&width.map_or(title.to_owned(), |width| cut(title, width, TextUnit::Characters)));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn count(text: &str) -> usize {
    TextUnit::Characters.count(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<LogArgs>, String> {
        parse_args(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    fn one(state: &str, title: &str, why: Option<&str>) -> Json {
        json!({
            "id": "1", "event": "1a200635da82f3", "state": state, "channel": "mail",
            "recipient": "ann@example.com", "host": "web1", "subject": "host web1",
            "level": "critical", "title": title, "accepted": "2026-11-21T20:12:08.667Z",
            "finished": null, "attempts": 3, "why": why,
        })
    }

    #[test]
    fn the_newest_comes_last_and_a_failure_has_its_reason() {
        let all = [one("failed", "second", Some("nobody home")), one("delivered", "first", None)];
        assert_eq!(
            table(MESSAGES, all.iter().map(message_row), None),
            "\
TIME                  LEVEL     TO                    OUTCOME    TRIES  EVENT           TITLE
2026-11-21 20:12:08Z  critical  mail ann@example.com  delivered  3      1a200635da82f3  first
2026-11-21 20:12:08Z  critical  mail ann@example.com  failed     3      1a200635da82f3  second
  nobody home
"
        );
    }

    #[test]
    fn a_terminal_is_not_overrun_and_not_steered() {
        let all = [one(
            "failed",
            &format!("\u{1b}[31mred\nü{}", "x".repeat(300)),
            Some(&"y".repeat(300)),
        )];
        let text = table(MESSAGES, all.iter().map(message_row), Some(120));
        assert!(text.lines().all(|line| count(line) <= 120), "{text}");
        assert!(text.lines().count() == 3 && !text.contains('\u{1b}'), "{text}");
        assert_eq!(table(MESSAGES, std::iter::empty(), None), "there is nothing\n");
    }

    #[test]
    fn what_is_no_notification_breaks_nothing() {
        let all = [json!({"accepted": "ü"}), json!(7)];
        assert_eq!(table(MESSAGES, all.iter().map(message_row), None).lines().count(), 3);
        assert_eq!(table(EVENTS, all.iter().map(event_row), None).lines().count(), 3);
    }

    #[test]
    fn arguments_are_read() {
        let usual = LogArgs { limit: 50, ..LogArgs::default() };
        assert_eq!(parsed(&[]).unwrap().unwrap(), usual);
        let args =
            LogArgs { host: Some("web1".into()), limit: 3, events: true, json: true, ..usual };
        assert_eq!(parsed(&["web1", "--limit=3", "--events", "--json"]).unwrap().unwrap(), args);
        for wrong in [&["a", "b"][..], &["--limit", "0"], &["--limit", "x"], &["--jsno"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
