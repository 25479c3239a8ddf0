//! `hbd log`: what the running daemon sent to whom and what still waits, or what happened.

use std::io::{self, Write};
use std::path::PathBuf;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::client::{Client, unreachable};
use super::{HELP, say, terminal};
use crate::notify::text::{LineBreaks, TextUnit, clean, cut};

/// How many are shown when it is not said.
const USUAL: usize = 50;
/// How many the daemon tells at a time.
const PAGE: usize = 1000;
/// The columns before the title, and how wide they may become.
const MESSAGES: &[(&str, usize)] =
    &[("TIME", 20), ("LEVEL", 8), ("TO", 40), ("OUTCOME", 9), ("TRIES", 5), ("EVENT", 14)];
const EVENTS: &[(&str, usize)] = &[("TIME", 20), ("LEVEL", 8), ("KIND", 20), ("EVENT", 14)];
/// Less than that is left for no title.
const NARROWEST: usize = 20;

#[derive(Debug, Default, PartialEq)]
struct Wish {
    config: Option<PathBuf>,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    host: Option<String>,
    limit: usize,
    events: bool,
    json: bool,
}

impl Wish {
    /// What is asked for, as the daemon calls it.
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
    let Some(wish) = wish(parser)? else { return Ok(say(HELP)) };
    let client = match Client::wished(&wish.config, &wish.url, &wish.ca_file)? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    let found = match ask(&client, &wish) {
        Ok(found) => found,
        Err(why) => return Ok(unreachable(&why)),
    };
    let text = if wish.json {
        format!("{}\n", json!({ wish.what(): found }))
    } else if wish.events {
        table(EVENTS, found.iter().map(event), terminal::width())
    } else {
        table(MESSAGES, found.iter().map(message), terminal::width())
    };
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// What is asked for; none when it is help.
fn wish(mut parser: lexopt::Parser) -> Result<Option<Wish>, lexopt::Error> {
    let mut wish = Wish { limit: USUAL, ..Wish::default() };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => wish.config = Some(parser.value()?.into()),
            Long("url") => wish.url = Some(parser.value()?.string()?),
            Long("ca-file") => wish.ca_file = Some(parser.value()?.into()),
            Long("limit") | Short('n') => {
                wish.limit = parser.value()?.parse()?;
                if wish.limit == 0 {
                    return Err("--limit must be at least 1".into());
                }
            }
            Long("events") => wish.events = true,
            Long("json") => wish.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(host) if wish.host.is_none() => wish.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(wish))
}

/// As many as are wanted, page by page, the newest first.
fn ask(client: &Client, wish: &Wish) -> Result<Vec<Json>, String> {
    let mut all: Vec<Json> = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let wanted = (wish.limit - all.len()).min(PAGE);
        let mut query = vec![("limit", wanted.to_string())];
        query.extend(wish.host.clone().map(|host| ("host", host)));
        query.extend(before.map(|id| ("before", id)));
        let answer = client.get(&format!("/api/v1/{}", wish.what()), &query)?;
        let page = answer[wish.what()].as_array();
        let old = all.len();
        all.extend(page.into_iter().flatten().take(wanted).cloned());
        before = answer["next"].as_str().map(str::to_owned);
        if before.is_none() || all.len() == old || all.len() >= wish.limit {
            return Ok(all);
        }
    }
}

/// Why a message did not arrive, or who has acknowledged it.
fn remark(one: &Json) -> String {
    let at = word(one, "acknowledged");
    match (at.is_empty(), word(one, "acknowledged_by")) {
        (true, _) => word(one, "why"),
        (false, by) if by.is_empty() => format!("acknowledged {at}"),
        (false, by) => format!("acknowledged {at} on {by}"),
    }
}

/// A line of the table: its cells, the title, and what more there is to say.
type Line = (Vec<String>, String, String);

/// The table, the newest last as in every log: that is where the prompt is. What there is to say
/// of a message that did not arrive has a line of its own.
fn table(
    columns: &[(&str, usize)],
    newest_first: impl Iterator<Item = Line>,
    width: Option<usize>,
) -> String {
    let mut rows: Vec<Line> = newest_first.collect();
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
    let mut text = line(&head, &widths, "TITLE", width);
    for (cells, title, why) in &rows {
        text.push_str(&line(cells, &widths, title, width));
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

fn message(one: &Json) -> Line {
    let recipient = word(one, "recipient");
    let space = if recipient.is_empty() { "" } else { " " };
    let to = format!("{}{space}{recipient}", word(one, "channel"));
    let cells = vec![
        time(one, "accepted"),
        word(one, "level"),
        to,
        word(one, "state"),
        one["attempts"].to_string(),
        word(one, "event"),
    ];
    (cells, word(one, "title"), remark(one))
}

fn event(one: &Json) -> Line {
    let cells = vec![time(one, "at"), word(one, "level"), word(one, "kind"), word(one, "id")];
    (cells, word(one, "text"), String::new())
}

/// A time to the second.
fn time(one: &Json, name: &str) -> String {
    let time = word(one, name);
    time.get(..19).map_or(time.clone(), |seconds| seconds.replace('T', " ") + "Z")
}

/// A text of the daemon's, fit for a terminal; empty when there is none.
fn word(one: &Json, name: &str) -> String {
    one[name].as_str().map_or_else(String::new, |text| clean(text, LineBreaks::Remove))
}

fn line(cells: &[String], widths: &[usize], title: &str, width: Option<usize>) -> String {
    let mut text = String::new();
    for (cell, room) in cells.iter().zip(widths) {
        let cell = cut(cell, *room, TextUnit::Characters);
        text.push_str(&format!("{cell}{}  ", " ".repeat(room - count(&cell))));
    }
    let used = count(&text);
    let room = width.map(|width| width.saturating_sub(used).max(NARROWEST));
    text.push_str(&room.map_or(title.to_owned(), |room| cut(title, room, TextUnit::Characters)));
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

    fn parsed(arguments: &[&str]) -> Result<Option<Wish>, String> {
        wish(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
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
            table(MESSAGES, all.iter().map(message), None),
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
        let text = table(MESSAGES, all.iter().map(message), Some(120));
        assert!(text.lines().all(|line| count(line) <= 120), "{text}");
        assert!(text.lines().count() == 3 && !text.contains('\u{1b}'), "{text}");
        assert_eq!(table(MESSAGES, std::iter::empty(), None), "there is nothing\n");
    }

    #[test]
    fn what_is_no_notification_breaks_nothing() {
        let all = [json!({"accepted": "ü"}), json!(7)];
        assert_eq!(table(MESSAGES, all.iter().map(message), None).lines().count(), 3);
        assert_eq!(table(EVENTS, all.iter().map(event), None).lines().count(), 3);
    }

    #[test]
    fn arguments_are_read() {
        let usual = Wish { limit: 50, ..Wish::default() };
        assert_eq!(parsed(&[]).unwrap().unwrap(), usual);
        let wish = Wish { host: Some("web1".into()), limit: 3, events: true, json: true, ..usual };
        assert_eq!(parsed(&["web1", "--limit=3", "--events", "--json"]).unwrap().unwrap(), wish);
        for wrong in [&["a", "b"][..], &["--limit", "0"], &["--limit", "x"], &["--jsno"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
