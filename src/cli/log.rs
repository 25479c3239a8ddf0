//! `hbd log`: the log of deliveries of the running daemon, or its events; once, or as they come.

use std::io::{self, Write};
use std::time::Duration;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::answer::field;
use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::local_time::TimeFormat;
use super::terminal::{columns, wrap};
use super::{FAILED, help, json_line, print, print_error, terminal};
use crate::thread::Stop;

/// How many rows are shown without `--limit`.
const DEFAULT_LIMIT: usize = 50;
/// How many rows the daemon returns at a time.
const MAX_PAGE: usize = 1000;
/// How many are asked for first where a few are expected, and how many are read at most.
const FOLLOW_PAGE: usize = 50;
const MAX_FOLLOWED: usize = 1000;
/// How often `--follow` asks.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Each time so many intervals are over, it asks for what has waited for long, too: while a channel is
/// down, that may be a thousand messages.
const LOOK_BACK: u32 = 10;
/// The columns before the title: their least widths, and the greatest that they are given.
const MESSAGES: &[(&str, usize, usize)] = &[
    ("TIME", 4, 28),
    ("LEVEL", 8, 8),
    ("TO", 12, 40),
    ("OUTCOME", 9, 9),
    ("TRIES", 5, 5),
    ("EVENT", 14, 14),
];
const EVENTS: &[(&str, usize, usize)] =
    &[("TIME", 4, 28), ("LEVEL", 8, 8), ("KIND", 12, 20), ("EVENT", 14, 14)];
/// A title that has less room goes on a line of its own.
const MIN_TITLE_WIDTH: usize = 30;

#[derive(Debug, Default, PartialEq)]
struct LogArgs {
    daemon: DaemonArgs,
    host: Option<String>,
    limit: usize,
    events: bool,
    follow: bool,
    utc: bool,
    json: bool,
}

impl LogArgs {
    /// The API's name of what is listed.
    fn what(&self) -> &'static str {
        if self.events { "events" } else { "notifications" }
    }
}

/// Reads the arguments, asks the daemon and prints. Gives the exit code: 0, 1 when there is no such
/// host, or 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("log"))) };
    let client = match args.daemon.client()? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    let found = match fetch(&client, &args) {
        Ok(found) => found,
        Err(why) => return Ok(print_unreachable(&why)),
    };
    if let Some(why) = unknown_host(&client, &args, &found) {
        print_error(&why);
        return Ok(FAILED);
    }
    if args.follow {
        return Ok(follow(&client, &args, found));
    }
    let text = if args.json {
        json_line(&json!({ args.what(): found }))
    } else if found.is_empty() {
        "there is nothing\n".into()
    } else {
        let table = LogTable::new(&args, &found, terminal::width());
        table.head() + &table.rows(&found)
    };
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<LogArgs>, lexopt::Error> {
    let mut args = LogArgs { limit: DEFAULT_LIMIT, ..LogArgs::default() };
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("limit") | Short('n') => {
                let text = parser.value()?.string()?;
                let limit = text.parse().ok().filter(|limit| *limit > 0);
                let what = || format!("--limit must be a number, 1 or more, not \"{text}\"");
                args.limit = limit.ok_or_else(what)?;
            }
            Long("events") => args.events = true,
            Long("follow") | Short('f') => args.follow = true,
            Long("utc") => args.utc = true,
            Long("json") => args.json = true,
            Long("help") | Short('h') => return Ok(None),
            Value(host) if args.host.is_none() => args.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

/// What is said when nothing was found of a host that there is not.
fn unknown_host(client: &Client, args: &LogArgs, found: &[Json]) -> Option<String> {
    let host = args.host.as_deref().filter(|_| found.is_empty())?;
    client.get_host(host).ok()?.err()
}

/// As many rows as `--limit` says, page by page, the newest first.
fn fetch(client: &Client, args: &LogArgs) -> Result<Vec<Json>, String> {
    fetch_while(client, args, (args.limit, MAX_PAGE), |_| true)
}

/// At most `most` rows, the newest first: page by page, the first of `page` rows, as long as the last
/// one is `wanted`.
fn fetch_while(
    client: &Client,
    args: &LogArgs,
    (most, page): (usize, usize),
    wanted: impl Fn(&Json) -> bool,
) -> Result<Vec<Json>, String> {
    let mut all: Vec<Json> = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let page = if all.is_empty() { page } else { MAX_PAGE };
        let count = (most - all.len()).min(page);
        let mut query = vec![("limit", count.to_string())];
        query.extend(args.host.clone().map(|host| ("host", host)));
        query.extend(before.map(|id| ("before", id)));
        let answer = client.get(&format!("/api/v1/{}", args.what()), &query)?;
        let page = answer[args.what()].as_array();
        let old = all.len();
        all.extend(page.into_iter().flatten().take(count).cloned());
        before = answer["next"].as_str().map(str::to_owned);
        let is_last = before.is_none() || all.len() == old || all.len() >= most;
        if is_last || !all.last().is_some_and(&wanted) {
            return Ok(all);
        }
    }
}

/// Prints what was found, then what is new whenever there is something, until a signal ends the
/// process or nobody reads any more. While the daemon does not answer, it is waited for.
fn follow(client: &Client, args: &LogArgs, found: Vec<Json>) -> u8 {
    let (_source, stop) = Stop::channel();
    let table = LogTable::new(args, &found, terminal::width());
    let mut followed = Followed::default();
    let mut text = if args.json { String::new() } else { table.head() };
    let mut is_lost = false;
    let mut rows = followed.take_new(found);
    for turn in 1_u32.. {
        text += &match args.json {
            true => rows.iter().rev().map(json_line).collect(),
            false => table.rows(&rows),
        };
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return 0;
        }
        stop.wait(POLL_INTERVAL);
        let oldest = followed.oldest(turn);
        let wanted = |row: &Json| number(row) > oldest;
        let found = fetch_while(client, args, (MAX_FOLLOWED, FOLLOW_PAGE), wanted);
        if let (Err(why), false) = (&found, is_lost) {
            print_error(&format!("{why}; waiting for it"));
        }
        is_lost = found.is_err();
        rows = followed.take_new(found.unwrap_or_default());
        text = String::new();
    }
    0
}

/// What was printed already.
#[derive(Debug, Default)]
struct Followed {
    /// The newest row.
    last: u64,
    /// Those whose end is still to come.
    waiting: Vec<u64>,
}

impl Followed {
    /// Down to which row the next answer must go: to what is new, and now and then to what waits.
    fn oldest(&self, turn: u32) -> u64 {
        let waiting = self.waiting.iter().copied().filter(|_| turn.is_multiple_of(LOOK_BACK));
        waiting.chain([self.last]).min().unwrap_or_default()
    }

    /// The rows that are new, and those that have ended meanwhile; the newest first, as they come.
    fn take_new(&mut self, newest_first: Vec<Json>) -> Vec<Json> {
        let Some(newest) = newest_first.first().map(number) else { return newest_first };
        if newest < self.last {
            // The daemon has begun a new store.
            *self = Followed::default();
        }
        let last = std::mem::replace(&mut self.last, newest);
        let is_new = |row: &Json| {
            let id = number(row);
            let known = self.waiting.iter().position(|waiting| *waiting == id);
            match (known, row["state"] == "waiting") {
                (Some(_), true) => false,
                (Some(index), false) => {
                    self.waiting.swap_remove(index);
                    true
                }
                (None, true) if id > last => {
                    self.waiting.push(id);
                    true
                }
                (None, _) => id > last,
            }
        };
        let mut is_new = is_new;
        newest_first.into_iter().filter(|row| is_new(row)).collect()
    }
}

/// The number of a row: rising.
fn number(row: &Json) -> u64 {
    row["id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok()).unwrap_or_default()
}

/// Why a message did not arrive, or when and where it was acknowledged.
fn note(one: &Json, times: &TimeFormat) -> String {
    let at = times.format(one, "acknowledged");
    match (at.is_empty(), field(one, "acknowledged_by")) {
        (true, _) => field(one, "why"),
        (false, by) if by.is_empty() => format!("acknowledged {at}"),
        (false, by) => format!("acknowledged {at} on {by}"),
    }
}

/// A row of the table: its cells, the title, and a note that goes on a line of its own.
type LogRow = (Vec<String>, String, String);

/// The table, the newest last as in every log: that is where the prompt is.
struct LogTable {
    events: bool,
    widths: Vec<usize>,
    times: TimeFormat,
    /// That of the terminal; none: no line is broken.
    width: Option<usize>,
}

impl LogTable {
    /// A table in which these rows fit.
    fn new(args: &LogArgs, rows: &[Json], width: Option<usize>) -> LogTable {
        let (times, widths) = (TimeFormat::new(args.utc), Vec::new());
        let mut table = LogTable { events: args.events, widths, times, width };
        let cells: Vec<_> = rows.iter().map(|row| table.row(row).0).collect();
        for (index, (_, least, most)) in table.columns().iter().enumerate() {
            let widest = cells.iter().map(|cells| columns(&cells[index])).max().unwrap_or(0);
            table.widths.push(widest.clamp(*least, *most));
        }
        table
    }

    fn columns(&self) -> &'static [(&'static str, usize, usize)] {
        if self.events { EVENTS } else { MESSAGES }
    }

    fn head(&self) -> String {
        let names: Vec<String> =
            self.columns().iter().map(|(name, ..)| (*name).to_owned()).collect();
        self.format_row(&names, "TITLE")
    }

    fn rows(&self, newest_first: &[Json]) -> String {
        let mut text = String::new();
        for (cells, title, note) in newest_first.iter().rev().map(|one| self.row(one)) {
            text.push_str(&self.format_row(&cells, &title));
            if !note.is_empty() {
                text.push_str(&self.wrapped("  ", &note, "  "));
                text.push('\n');
            }
        }
        text
    }

    fn row(&self, one: &Json) -> LogRow {
        let text = |name| field(one, name);
        if self.events {
            let cells = vec![self.times.format(one, "at"), text("level"), text("kind"), text("id")];
            return (cells, text("text"), String::new());
        }
        let recipient = text("recipient");
        let space = if recipient.is_empty() { "" } else { " " };
        let cells = vec![
            self.times.format(one, "accepted"),
            text("level"),
            format!("{}{space}{recipient}", text("channel")),
            text("state"),
            one["attempts"].to_string(),
            text("event"),
        ];
        (cells, text("title"), note(one, &self.times))
    }

    /// The title stands behind the cells, or below them where there is too little room.
    fn format_row(&self, cells: &[String], title: &str) -> String {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            let gap = width.saturating_sub(columns(cell)) + 2;
            text.push_str(&format!("{cell}{}", " ".repeat(gap)));
        }
        let used = columns(&text);
        match self.width {
            Some(width) if used + MIN_TITLE_WIDTH > width => {
                let mut cells = text.trim_end().to_owned();
                if columns(&cells) > width {
                    cells = wrap("", &cells, width, "  ");
                }
                text = format!("{cells}\n{}", wrap("  ", title, width, "  "));
            }
            _ => text = self.wrapped(&text, title, &" ".repeat(used)),
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }

    fn wrapped(&self, prefix: &str, text: &str, indent: &str) -> String {
        match self.width {
            Some(width) => wrap(prefix, text, width, indent),
            None => format!("{prefix}{text}"),
        }
    }
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

    fn table(events: bool, rows: &[Json], width: Option<usize>) -> String {
        let args = LogArgs { events, utc: true, ..LogArgs::default() };
        let table = LogTable::new(&args, rows, width);
        table.head() + &table.rows(rows)
    }

    #[test]
    fn the_newest_comes_last_and_a_failure_has_its_reason() {
        let all = [one("failed", "second", Some("nobody home")), one("delivered", "first", None)];
        assert_eq!(
            table(false, &all, None),
            "\
TIME                     LEVEL     TO                    OUTCOME    TRIES  EVENT           TITLE
2026-11-21 20:12:08 UTC  critical  mail ann@example.com  delivered  3      1a200635da82f3  first
2026-11-21 20:12:08 UTC  critical  mail ann@example.com  failed     3      1a200635da82f3  second
  nobody home
"
        );
    }

    #[test]
    fn what_is_too_long_for_the_terminal_goes_on_below() {
        let all = [one("failed", "the disk of web1 is full since yesterday", Some("nobody home"))];
        let events = [json!({"at": "2026-11-21T20:12:08.667Z", "level": "critical",
            "kind": "overdue", "id": "1a200635da82f3", "text": "web1 ipv4 overdue and so forth, x y"})];
        assert_eq!(
            table(true, &events, Some(95)),
            "\
TIME                     LEVEL     KIND          EVENT           TITLE
2026-11-21 20:12:08 UTC  critical  overdue       1a200635da82f3  web1 ipv4 overdue and so
                                                                 forth, x y
"
        );
        assert_eq!(
            table(false, &all, Some(60)),
            "\
TIME LEVEL TO OUTCOME TRIES EVENT
  TITLE
2026-11-21 20:12:08 UTC critical mail ann@example.com failed
  3 1a200635da82f3
  the disk of web1 is full since yesterday
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
        for width in [40, 120] {
            let text = table(false, &all, Some(width));
            assert!(text.lines().all(|line| columns(line) <= width), "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
            assert_eq!(text.matches('x').count(), 301, "nothing is cut: {text}");
        }
    }

    #[test]
    fn what_is_no_notification_breaks_nothing() {
        let all = [json!({"accepted": "ü"}), json!(7)];
        assert_eq!(table(false, &all, None).lines().count(), 3);
        assert_eq!(table(true, &all, None).lines().count(), 3);
    }

    #[test]
    fn a_row_is_followed_until_it_has_ended_and_is_printed_when_that_changes() {
        let row = |id: &str, state: &str| json!({"id": id, "state": state});
        let mut followed = Followed::default();
        let ids = |rows: Vec<Json>| -> Vec<String> {
            rows.iter().map(|row| format!("{} {}", field(row, "id"), field(row, "state"))).collect()
        };
        let first = vec![row("b", "waiting"), row("a", "delivered"), row("9", "waiting")];
        assert_eq!(
            ids(followed.take_new(first.clone())),
            ["b waiting", "a delivered", "9 waiting"]
        );
        assert_eq!((followed.oldest(LOOK_BACK), followed.last), (9, 11));
        assert_eq!(followed.oldest(1), 11, "what waits is asked for more rarely");
        assert!(followed.take_new(first).is_empty(), "nothing is printed twice");
        let next = vec![row("10", "failed"), row("b", "delivered"), row("a", "delivered")];
        assert_eq!(ids(followed.take_new(next)), ["10 failed", "b delivered"]);
        assert_eq!(followed.oldest(LOOK_BACK), 9);
        assert!(followed.take_new(Vec::new()).is_empty(), "a daemon that does not answer");
        let anew = vec![row("2", "delivered"), row("1", "delivered")];
        assert_eq!(ids(followed.take_new(anew)), ["2 delivered", "1 delivered"]);
    }

    /// A daemon whose channel is down: every row waits. How often it was asked, at the end.
    fn with_all_waiting(count: usize) -> (Client, std::thread::JoinHandle<usize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = move || {
            for asked in 0.. {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = [0; 4096];
                let length = io::Read::read(&mut stream, &mut bytes).unwrap();
                let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if request.starts_with("GET /end") {
                    return asked;
                }
                let (_, limit) = request.split_once("limit=").unwrap();
                let limit: usize = limit.split(['&', ' ']).next().unwrap().parse().unwrap();
                let before = request.split_once("before=").map(|(_, id)| &id[..4]);
                let from = before.map_or(count, |id| usize::from_str_radix(id, 16).unwrap());
                let ids: Vec<usize> = (from.saturating_sub(limit)..from).rev().collect();
                let rows =
                    ids.iter().map(|id| json!({"id": format!("{id:04x}"), "state": "waiting"}));
                let next = ids.last().filter(|id| **id > 0).map(|id| format!("{id:04x}"));
                let rows: Vec<Json> = rows.collect();
                let body = json!({"notifications": rows, "next": next}).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
            0
        };
        let server = std::thread::Builder::new().name("daemon".into()).spawn(serve).unwrap();
        (Client::for_url(&url, None).unwrap(), server)
    }

    #[test]
    fn a_daemon_whose_channel_is_down_was_asked_twenty_times_a_second() {
        let (client, daemon) = with_all_waiting(1200);
        let (args, mut followed) = (LogArgs::default(), Followed::default());
        let first = fetch_while(&client, &args, (MAX_FOLLOWED, MAX_PAGE), |_| true).unwrap();
        assert_eq!(followed.take_new(first).len(), MAX_FOLLOWED);
        for turn in 1..=LOOK_BACK {
            let oldest = followed.oldest(turn);
            let wanted = |row: &Json| number(row) > oldest;
            let most = (MAX_FOLLOWED, FOLLOW_PAGE);
            let found = fetch_while(&client, &args, most, wanted).unwrap();
            let expected = if turn == LOOK_BACK { MAX_FOLLOWED } else { FOLLOW_PAGE };
            assert_eq!(found.len(), expected, "{turn}");
            assert!(followed.take_new(found).is_empty());
        }
        let _ = client.get("/end", &[]);
        assert_eq!(daemon.join().unwrap(), 1 + 10 + 1, "once an interval, and once more for all");
    }

    #[test]
    fn arguments_are_read() {
        let usual = LogArgs { limit: 50, ..LogArgs::default() };
        assert_eq!(parsed(&[]).unwrap().unwrap(), usual);
        let args = LogArgs {
            host: Some("web1".into()),
            limit: 3,
            events: true,
            follow: true,
            utc: true,
            json: true,
            ..usual
        };
        let words = ["web1", "--limit=3", "--events", "-f", "--utc", "--json"];
        assert_eq!(parsed(&words).unwrap().unwrap(), args);
        for wrong in [&["a", "b"][..], &["--limit", "0"], &["--limit", "x"], &["--jsno"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        assert!(parsed(&["--limit", "x"]).unwrap_err().ends_with("1 or more, not \"x\""));
    }
}
