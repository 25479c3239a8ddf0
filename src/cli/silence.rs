//! `hbd silence` and `hbd unsilence`: messages are held back for a time, by the running daemon.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::answer::{field, items, texts};
use super::calm::{CalmArgs, body, named, print_answer, scope, seconds, with_known_hosts};
use super::client::Client;
use super::local_time::TimeFormat;
use super::terminal::columns;
use super::{help, print};
use crate::clock::format_duration;
use crate::duration;
use crate::escape::PercentEncoded;

/// The columns of a list: the id, the scope, the end, and who set it. Wider ones make room.
const COLUMNS: [usize; 4] = [4, 17, 0, 19];

/// What `hbd silence` is to do.
#[derive(Debug, PartialEq)]
enum SilenceCommand {
    List,
    Set { scope: String, length: Duration },
}

/// What `hbd unsilence` is to end.
#[derive(Debug, PartialEq)]
enum Ended {
    /// `s17`; where there is none of that number, the host of that name.
    Id(String),
    Scope(String),
}

/// Reads the arguments and asks the daemon. Gives the exit code: 0 when it is silent, 1 when the
/// daemon refuses, 3 when it cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = CalmArgs::parse(parser, &["comment", "unless", "by", "utc"])? else {
        return Ok(print(&help::of("silence")));
    };
    let command = silence_command(&args)?;
    let client = match args.client()? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    let times = TimeFormat::new(args.utc);
    Ok(match command {
        SilenceCommand::List => {
            let answer = list(&client).map(Ok);
            print_answer(answer, args.json, |answer| silences(answer, &times))
        }
        SilenceCommand::Set { scope, length } => {
            let body = body(json!({
                "scope": scope,
                "seconds": seconds(length),
                "comment": args.comment,
                "by": args.by(),
                "unless": args.unless,
            }));
            let answer = client.post_json("/api/v1/silences", &body);
            print_answer(answer, args.json, |answer| silenced(answer, &times))
        }
    })
}

fn silence_command(args: &CalmArgs) -> Result<SilenceCommand, lexopt::Error> {
    let alone = args.comment.is_none() && args.by.is_none() && args.unless.is_none();
    match &*args.words {
        [] if alone => Ok(SilenceCommand::List),
        [] => Err("name what is to be silent: web1, web*, web1/ipv4, plan:4 or --all".into()),
        [_] => Err("a duration is missing".into()),
        [one, other] => {
            // --all may stand behind the duration, as options do.
            let (what, length) = if other == "--all" { (other, one) } else { (one, other) };
            let length = duration::parse(length).map_err(|why| format!("DURATION {why}"))?;
            Ok(SilenceCommand::Set { scope: scope(what)?, length })
        }
        [_, _, more, ..] => Err(format!("{more:?} is too much: one scope and one duration").into()),
    }
}

/// Reads the arguments and asks the daemon. Gives the exit code: 0 when it is over, 1 when nothing
/// is silent there, 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run_end(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = CalmArgs::parse(parser, &[])? else {
        return Ok(print(&help::of("unsilence")));
    };
    let ended = what_ends(&args)?;
    let client = args.client()?;
    Ok(client.map_or_else(
        |code| code,
        |client| {
            let answer = end(&client, &ended, &args.by());
            let answer = match &ended {
                Ended::Scope(scope) => with_known_hosts(&client, scope, answer),
                Ended::Id(_) => answer,
            };
            print_answer(answer, args.json, unsilenced)
        },
    ))
}

fn what_ends(args: &CalmArgs) -> Result<Ended, lexopt::Error> {
    let [word] = &*args.words else {
        return Err("name one silence to end: its id such as s17, its scope, or --all".into());
    };
    let digits = word.strip_prefix('s').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(Ended::Id(word.clone()));
    }
    scope(word).map(Ended::Scope)
}

fn end(client: &Client, ended: &Ended, by: &str) -> Result<Result<Json, String>, String> {
    let scope = |scope: &String| {
        client.post_json("/api/v1/silences/end", &json!({ "scope": scope, "by": by }))
    };
    match ended {
        Ended::Scope(name) => scope(name),
        Ended::Id(id) => {
            let path = format!("/api/v1/silences/{}/end", PercentEncoded(id));
            let answer = client.post_json(&path, &json!({ "by": by }))?;
            if answer.is_ok() {
                return Ok(answer);
            }
            // A host may be called like a silence.
            Ok(scope(id)?.or(answer))
        }
    }
}

/// What is silent, what comes next, and what is held back.
fn list(client: &Client) -> Result<Json, String> {
    let mut answer = client.get("/api/v1/silences", &[])?;
    let mut held = client.get("/api/v1/held", &[])?;
    answer["held"] = held["held"].take();
    Ok(answer)
}

/// What was set, and what is wrong already.
fn silenced(answer: &Json, times: &TimeFormat) -> String {
    let (id, scope) = (field(answer, "id"), field(answer, "scope"));
    let mut text = format!("{id}: {scope} is silenced {}\n", until(answer, times));
    let told = texts(answer, "told");
    if !told.is_empty() {
        text.push_str(&format!("at present wrong with it, and told before: {}\n", named(&told)));
    }
    text
}

/// What ended, and what is told now.
fn unsilenced(answer: &Json) -> String {
    let ended = texts(answer, "ended");
    let verb = if ended.len() == 1 { "has" } else { "have" };
    let follows: Vec<(String, Duration)> = items(answer, "follows")
        .map(|one| {
            let left = one["seconds"].as_f64().unwrap_or_default();
            (field(one, "text"), Duration::try_from_secs_f64(left).unwrap_or_default())
        })
        .collect();
    format!("{} {verb} ended; {}\n", named(&ended), following(&follows))
}

fn following(all: &[(String, Duration)]) -> String {
    let names: Vec<String> = all.iter().map(|(text, _)| text.clone()).collect();
    match all {
        [] => "nothing differs from what was told".into(),
        [(text, left)] => {
            format!("1 thing differs from what was told, it follows {}: {text}", soon(*left))
        }
        [(_, first), .., (_, last)] => {
            let (first, last, count) = (soon(*first), soon(*last), all.len());
            let when = if first == last { first } else { last.replacen("in", "within", 1) };
            format!(
                "{count} things differ from what was told, they follow {when}: {}",
                named(&names)
            )
        }
    }
}

/// `in 40 s`, `at once`. What is left of a second is none to wait for.
fn soon(left: Duration) -> String {
    match left.as_secs_f64().round() as u64 {
        0 => "at once".into(),
        seconds => format!("in {}", format_duration(Duration::from_secs(seconds))),
    }
}

/// The list of `hbd silence`.
fn silences(answer: &Json, times: &TimeFormat) -> String {
    let (windows, silences): (Vec<&Json>, Vec<&Json>) =
        items(answer, "silences").partition(|one| one["kind"] == "window");
    let rows: Vec<[String; 4]> =
        silences.iter().map(|silence| silence_row(silence, times)).collect();
    let mut widths = COLUMNS;
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = columns(cell).max(*width);
        }
    }
    let mut text = String::new();
    for (row, silence) in rows.iter().zip(silences) {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell}{}  ", " ".repeat(width - columns(cell))));
        }
        text.push_str(&format!("{}\n", holds(count(silence))));
    }
    for window in windows {
        let until = until(window, times);
        text.push_str(&format!("{}  {until}  {}\n", window_name(window), holds(count(window))));
    }
    text.push_str(&other_reasons(answer, times));
    for window in items(answer, "next") {
        text.push_str(&format!("{}  {}\n", window_name(window), next(window, times)));
    }
    for held in items(answer, "held").filter(|held| held["out_at"].is_string()) {
        let (what, at) = (field(held, "text"), times.format(held, "out_at"));
        text.push_str(&format!("no longer held back: {what}  follows {at}\n"));
    }
    if text.is_empty() { "nothing is silenced\n".into() } else { text }
}

/// What else holds something back: hosts that are down, a storm, flapping.
fn other_reasons(answer: &Json, times: &TimeFormat) -> String {
    let mut holders: Vec<(String, u64)> = Vec::new();
    let mut text = String::new();
    for held in items(answer, "held").filter(|held| held["out_at"].is_null()) {
        for reason in items(held, "reasons") {
            let name = match reason["why"].as_str() {
                Some("parent") => format!("{} is down", field(reason, "id")),
                Some("storm") => "a storm".into(),
                Some("flapping") => {
                    text.push_str(&flapping(&field(held, "text"), &times.format(reason, "until")));
                    continue;
                }
                _ => continue,
            };
            match holders.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => holders.push((name, 1)),
            }
        }
    }
    let holders = holders.iter().map(|(name, count)| format!("{name}  {}\n", holds(*count)));
    holders.collect::<String>() + &text
}

fn flapping(what: &str, until: &str) -> String {
    let until = if until.is_empty() { String::new() } else { format!(" until {until}") };
    format!("{what}  told again if it is quiet{until}\n")
}

fn silence_row(silence: &Json, times: &TimeFormat) -> [String; 4] {
    let (by, comment) = (field(silence, "by"), field(silence, "comment"));
    let who = if comment.is_empty() { by } else { format!("{by}: {comment}") };
    [field(silence, "id"), field(silence, "scope"), until(silence, times), who]
}

/// When it ends, and what is told all the same.
fn until(silence: &Json, times: &TimeFormat) -> String {
    let (until, unless) = (times.format(silence, "until"), field(silence, "unless"));
    let unless = if unless.is_empty() { unless } else { format!(", unless {unless}") };
    format!("until {until}{unless}")
}

fn holds(count: u64) -> String {
    match count {
        0 => "holds nothing back".into(),
        1 => "holds 1 thing back".into(),
        count => format!("holds {count} things back"),
    }
}

fn count(silence: &Json) -> u64 {
    silence["holds"].as_u64().unwrap_or_default()
}

fn window_name(window: &Json) -> String {
    format!("window {}: {}", field(window, "id"), field(window, "scope"))
}

/// When a window is next; an end on the same day is without its date.
fn next(window: &Json, times: &TimeFormat) -> String {
    let (from, until) = (times.format(window, "from"), times.format(window, "until"));
    let end = match (from.split_once(' '), until.split_once(' ')) {
        (Some((day, _)), Some((same, end))) if day == same => end.to_owned(),
        _ => until.clone(),
    };
    format!("next {from} to {end} ({})", field(window, "text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<CalmArgs, String> {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let parser = lexopt::Parser::from_args(words);
        let parsed = CalmArgs::parse(parser, &["comment", "unless", "by"]);
        parsed.map(Option::unwrap).map_err(|why| why.to_string())
    }

    fn parsed(line: &str) -> Result<SilenceCommand, String> {
        silence_command(&args(line)?).map_err(|why| why.to_string())
    }

    fn set(scope: &str, seconds: u64) -> Result<SilenceCommand, String> {
        let length = Duration::from_secs(seconds);
        Ok(SilenceCommand::Set { scope: scope.into(), length })
    }

    #[test]
    fn a_scope_and_a_duration_are_silenced() {
        assert_eq!(parsed("web1 2h"), set("web1", 7200));
        assert_eq!(parsed("web1/disk_monitor.*.percent 0"), set("web1/disk_monitor.*.percent", 0));
        for line in ["--all 1h", "1h --all", "--all --by ann 1h --comment x --unless critical"] {
            assert_eq!(parsed(line), set("--all", 3600), "{line}");
        }
        assert_eq!(parsed("--json"), Ok(SilenceCommand::List));
    }

    #[test]
    fn what_is_wrong_with_a_silence_is_said() {
        for (line, what) in [
            ("web1", "a duration is missing"),
            ("--all", "a duration is missing"),
            ("web1 soon", "must be a duration, such as 30s, 5m or 1h30m, not \"soon\""),
            ("web1 1h 2h", "\"2h\" is too much"),
            ("--comment x", "name what is to be silent"),
            ("web/ 1h", "the scope must be a host such as"),
            ("web1 1h --unless loud", "--unless must be info, warning or critical"),
            ("web1 1h --for 2h", "--for"),
        ] {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    #[test]
    fn an_id_a_scope_or_everything_is_ended() {
        let ended = |line| what_ends(&args(line)?).map_err(|why| why.to_string());
        assert_eq!(ended("s17"), Ok(Ended::Id("s17".into())));
        for scope in ["--all", "s", "s1x", "web*", "plan:4"] {
            assert_eq!(ended(scope), Ok(Ended::Scope(scope.into())));
        }
        for line in ["", "s1 s2", "s1 --all", "a b"] {
            assert!(ended(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_silence_that_was_set_says_what_is_wrong_already() {
        let mut answer = json!({
            "id": "s17", "kind": "silence", "scope": "web1", "from": "2026-11-22T03:53:10.250Z",
            "until": "2026-11-22T05:53:10.250Z", "by": "ann", "comment": "kernel update",
            "unless": null, "holds": 0, "told": ["web1 ipv4 overdue"],
        });
        let first = "s17: web1 is silenced until 2026-11-22 05:53:10 UTC\n";
        let wrong = "at present wrong with it, and told before: web1 ipv4 overdue\n";
        assert_eq!(silenced(&answer, &TimeFormat::new(true)), format!("{first}{wrong}"));
        answer["told"] = json!([]);
        assert_eq!(silenced(&answer, &TimeFormat::new(true)), first);
    }

    #[test]
    fn the_list_shows_silences_windows_and_what_follows() {
        let answer = json!({
            "now": "2026-11-22T03:53:20.000Z",
            "silences": [
                {"id": "s17", "kind": "silence", "scope": "web1",
                    "from": "2026-11-22T03:53:10.250Z", "until": "2026-11-22T05:53:10.250Z",
                    "by": "ann", "comment": "kernel update", "unless": null, "holds": 2},
                {"id": "s18", "kind": "host", "scope": "db1", "from": "2026-11-22T03:53:10.250Z",
                    "until": "2026-11-22T04:00:00.000Z", "by": "db1", "comment": null,
                    "unless": "critical", "holds": 0},
                {"id": "firmware", "kind": "window", "scope": "router",
                    "from": "2026-11-22T03:00:00.000Z", "until": "2026-11-22T05:00:00.000Z",
                    "by": null, "comment": null, "unless": null, "holds": 1},
            ],
            "next": [
                {"id": "nightly", "scope": "web*, db1", "from": "2026-11-23T01:00:00.000Z",
                    "until": "2026-11-23T03:30:00.000Z",
                    "text": "Mon 02:00 to 04:30 Europe/Berlin"},
                {"id": "late", "scope": "--all", "from": "2026-11-23T23:00:00.000Z",
                    "until": "2026-11-24T01:00:00.000Z", "text": "Mon 23:00 to 01:00 UTC"},
            ],
            "held": [
                {"text": "web1 memory_monitor.percent = 97", "out_at": "2026-11-22T03:54:00.000Z"},
                {"text": "web1 ipv4 overdue", "out_at": null,
                    "reasons": [{"why": "silence", "id": "s17"}]},
                {"text": "db1 ipv4 overdue", "out_at": null, "reasons": [
                    {"why": "parent", "id": "router"}, {"why": "storm", "id": "storm"}]},
                {"text": "db2 ipv4 overdue", "out_at": null,
                    "reasons": [{"why": "parent", "id": "router"}]},
                {"text": "db3 ipv4 overdue", "out_at": "2026-11-22T03:55:00.000Z",
                    "reasons": [{"why": "parent", "id": "router"}]},
                {"text": "db4 ipv4 is flapping: 7 changes in 4 min", "out_at": null, "reasons": [
                    {"why": "flapping", "id": "", "until": "2026-11-22T04:10:00.250Z"}]},
            ],
        });
        assert_eq!(
            silences(&answer, &TimeFormat::new(true)),
            "\
s17   web1               until 2026-11-22 05:53:10 UTC                   ann: kernel update   holds 2 things back
s18   db1                until 2026-11-22 04:00:00 UTC, unless critical  db1                  holds nothing back
window firmware: router  until 2026-11-22 05:00:00 UTC  holds 1 thing back
router is down  holds 2 things back
a storm  holds 1 thing back
db4 ipv4 is flapping: 7 changes in 4 min  told again if it is quiet until 2026-11-22 04:10:00 UTC
window nightly: web*, db1  next 2026-11-23 01:00:00 UTC to 03:30:00 UTC (Mon 02:00 to 04:30 Europe/Berlin)
window late: --all  next 2026-11-23 23:00:00 UTC to 2026-11-24 01:00:00 UTC (Mon 23:00 to 01:00 UTC)
no longer held back: web1 memory_monitor.percent = 97  follows 2026-11-22 03:54:00 UTC
no longer held back: db3 ipv4 overdue  follows 2026-11-22 03:55:00 UTC
"
        );
        let one = json!({ "silences": [answer["silences"][0].clone()] });
        let row = "s17   web1               until 2026-11-22 05:53:10 UTC  ann: kernel update   holds 2 things back\n";
        assert_eq!(silences(&one, &TimeFormat::new(true)), row);
        for nothing in [json!({"silences": [], "next": [], "held": []}), json!(7)] {
            assert_eq!(silences(&nothing, &TimeFormat::new(true)), "nothing is silenced\n");
        }
    }

    #[test]
    fn an_end_says_what_follows_and_when() {
        let memory = json!({"text": "web1 memory_monitor.percent", "seconds": 40.0});
        let plan = json!({"text": "plan 4", "seconds": 0.0});
        for (ended, follows, text) in [
            (
                json!(["s17"]),
                json!([memory]),
                "s17 has ended; 1 thing differs from what was told, it follows in 40 s: web1 memory_monitor.percent\n",
            ),
            (
                json!(["s17", "s18"]),
                json!([plan, memory]),
                "s17, s18 have ended; 2 things differ from what was told, they follow within 40 s: plan 4, web1 memory_monitor.percent\n",
            ),
            (json!(["s17"]), json!([]), "s17 has ended; nothing differs from what was told\n"),
        ] {
            assert_eq!(unsilenced(&json!({"ended": ended, "follows": follows})), text);
        }
        assert_eq!(
            following(&[("plan 4".into(), Duration::ZERO)]),
            "1 thing differs from what was told, it follows at once: plan 4"
        );
    }
}
