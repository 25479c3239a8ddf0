//! `hbd status`: how the hosts and channels of the running daemon are, the worst first.

use std::io::{self, Write};
use std::path::PathBuf;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::client::{Client, unreachable};
use super::terminal::{Color, columns, plain, shortened};
use super::{FAILED, HELP, say, terminal};
use crate::address::Encoded;
use crate::clock::{Wall, words};

/// As wide as everybody's terminal is.
const NARROW: usize = 80;

#[derive(Debug, Default, PartialEq)]
struct Wish {
    config: Option<PathBuf>,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    host: Option<String>,
    all: bool,
    json: bool,
    color: Color,
}

/// Reads the arguments, asks the daemon and prints. Gives the exit code: 0 when all is well, 1 when
/// something is not, 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(wish) = wish(parser)? else { return Ok(say(HELP)) };
    let client = match Client::wished(&wish.config, &wish.url, &wish.ca_file)? {
        Ok(client) => client,
        Err(code) => return Ok(code),
    };
    let look = Look {
        width: terminal::width().unwrap_or(NARROW),
        color: wish.color.wanted(),
        all: wish.all,
    };
    let shown = match &wish.host {
        Some(host) => one(&client, host, wish.json, look),
        None => everything(&client, wish.json, look),
    };
    Ok(match shown {
        Ok((text, well)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            if well { 0 } else { FAILED }
        }
        Err(why) => unreachable(&why),
    })
}

/// What is asked for; none when it is help.
fn wish(mut parser: lexopt::Parser) -> Result<Option<Wish>, lexopt::Error> {
    let mut wish = Wish::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => wish.config = Some(parser.value()?.into()),
            Long("url") => wish.url = Some(parser.value()?.string()?),
            Long("ca-file") => wish.ca_file = Some(parser.value()?.into()),
            Long("all") => wish.all = true,
            Long("json") => wish.json = true,
            Long("color") => {
                let word = parser.value()?.string()?;
                let what = "--color must be auto, always or never";
                wish.color = Color::read(&word).ok_or(what)?;
            }
            Long("help") | Short('h') => return Ok(None),
            Value(host) if wish.host.is_none() => wish.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(wish))
}

/// The whole picture, and whether all is well.
fn everything(client: &Client, json: bool, look: Look) -> Result<(String, bool), String> {
    let (ready, why) = client.ask("/-/ready")?;
    let hosts = client.get("/api/v1/hosts", &[])?;
    let channels = client.get("/api/v1/channels", &[])?;
    let trouble = (ready != 200).then(|| terminal::plain(&why));
    let well = trouble.is_none() && all_well(&hosts, &channels);
    if json {
        let answer = json!({
            "ok": well,
            "daemon": client.base(),
            "trouble": trouble,
            "now": hosts["now"],
            "hosts": hosts["hosts"],
            "channels": channels["channels"],
        });
        return Ok((format!("{answer}\n"), well));
    }
    Ok((overview(&hosts, &channels, trouble.as_deref(), look), well))
}

/// One host with all that is known of it.
fn one(client: &Client, name: &str, json: bool, look: Look) -> Result<(String, bool), String> {
    let host = client.get(&format!("/api/v1/hosts/{}", Encoded(name)), &[])?;
    let now = crate::clock::Now::read().wall;
    let hosts = json!({ "now": now.to_string(), "hosts": [host] });
    let well = all_well(&hosts, &Json::Null);
    let text = if json { format!("{host}\n") } else { host_page(&hosts, look) };
    Ok((text, well))
}

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// So many columns at most.
    width: usize,
    /// With colours.
    color: bool,
    /// Also what is well.
    all: bool,
}

/// How bad something is; it sorts the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    Well,
    Unsure,
    Warning,
    Critical,
}

impl Mood {
    fn name(self) -> &'static str {
        match self {
            Mood::Well => "ok",
            Mood::Unsure => "unsure",
            Mood::Warning => "warning",
            Mood::Critical => "critical",
        }
    }

    /// Select Graphic Rendition (ECMA-48, 8.3.117): green, yellow, bold red.
    fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            _ if !color => return text.to_owned(),
            Mood::Well => "32",
            Mood::Unsure | Mood::Warning => "33",
            Mood::Critical => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// One host, judged.
struct Host {
    name: String,
    state: String,
    since: String,
    last_seen: String,
    mood: Mood,
    alerts: Vec<(Mood, String)>,
}

/// Whether there is nothing that somebody should look at.
fn all_well(hosts: &Json, channels: &Json) -> bool {
    judged(hosts).iter().all(|host| host.mood == Mood::Well)
        && list(channels, "channels").all(|channel| word(channel, "state") == "works")
}

/// All hosts that are not well, or all, with their alerts; then the channels.
fn overview(hosts: &Json, channels: &Json, trouble: Option<&str>, look: Look) -> String {
    let judged = judged(hosts);
    let ill = judged.iter().filter(|host| host.mood != Mood::Well).count();
    let alerts: usize = judged.iter().map(|host| host.alerts.len()).sum();
    let failing = list(channels, "channels").filter(|one| word(one, "state") != "works").count();
    let worst = judged.iter().map(|host| host.mood).max().unwrap_or(Mood::Well);
    let worst = if trouble.is_some() || failing > 0 { Mood::Critical } else { worst };
    let head = headline(judged.len(), ill, alerts, failing);
    let mut text = worst.paint(&shortened(&head, look.width), look.color) + "\n";
    if let Some(why) = trouble {
        let line = shortened(&format!("hbd itself: {why}"), look.width);
        text.push_str(&format!("{}\n", Mood::Critical.paint(&line, look.color)));
    }
    let shown: Vec<&Host> =
        judged.iter().filter(|host| look.all || host.mood != Mood::Well).collect();
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&host_table(&shown, look));
    }
    let well = judged.len() - ill;
    if well > 0 && !look.all && ill > 0 {
        let verb = if well == 1 { "is" } else { "are" };
        text.push_str(&format!("{} {verb} well (--all shows them)\n", counted(well, "host")));
    }
    let channels = channel_table(channels, look);
    if !channels.is_empty() {
        text.push('\n');
        text.push_str(&channels);
    }
    text
}

/// The only host of a list, with its connections and metrics.
fn host_page(hosts: &Json, look: Look) -> String {
    let judged = judged(hosts);
    let mut text = host_table(&judged.iter().collect::<Vec<_>>(), look);
    let now = time(hosts, "now");
    let Some(host) = list(hosts, "hosts").next() else { return text };
    let rows = list(host, "connections").map(|one| {
        let mood = connection_mood(&word(one, "state"));
        let interval = one["interval"].as_f64().unwrap_or(0.0);
        let interval = words(std::time::Duration::try_from_secs_f64(interval).unwrap_or_default());
        let cells = [word(one, "name"), word(one, "state"), age(one, "last_seen", now)];
        (cells.into_iter().chain([interval, word(one, "address")]).collect(), mood, Vec::new())
    });
    let names = ["CONNECTION", "STATE", "LAST SEEN", "INTERVAL", "ADDRESS"];
    text.push_str(&section(&names, 1, rows.collect(), look));
    let rows = list(host, "metrics").map(|one| {
        let level = word(one, "level");
        let value = one["value"].to_string();
        let cells = vec![word(one, "path"), level.to_uppercase(), value, word(one, "limit")];
        (cells, metric_mood(&level), Vec::new())
    });
    text.push_str(&section(&["METRIC", "LEVEL", "VALUE", "LIMIT"], 1, rows.collect(), look));
    text
}

fn section(names: &[&str], painted: usize, rows: Vec<Row>, look: Look) -> String {
    if rows.is_empty() { String::new() } else { format!("\n{}", table(names, painted, rows, look)) }
}

fn headline(hosts: usize, ill: usize, alerts: usize, failing: usize) -> String {
    let mut parts = Vec::new();
    match (hosts, ill) {
        (0, _) => parts.push("no hosts yet".to_owned()),
        (_, 0) => parts.push(format!("{}, all well", counted(hosts, "host"))),
        (_, 1) => parts.push(format!("1 of {} is not well", counted(hosts, "host"))),
        _ => parts.push(format!("{ill} of {} are not well", counted(hosts, "host"))),
    }
    if alerts > 0 {
        parts.push(counted(alerts, "alert"));
    }
    if failing > 0 {
        let verb = if failing == 1 { "fails" } else { "fail" };
        parts.push(format!("{} {verb}", counted(failing, "channel")));
    }
    parts.join(", ")
}

fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn host_table(hosts: &[&Host], look: Look) -> String {
    let rows = hosts.iter().map(|host| {
        let cells = [&host.name, &host.state, &host.since, &host.last_seen];
        (cells.into_iter().cloned().collect(), host.mood, host.alerts.clone())
    });
    table(&["HOST", "STATE", "SINCE", "LAST SEEN"], 1, rows.collect(), look)
}

fn channel_table(channels: &Json, look: Look) -> String {
    let now = time(channels, "now");
    let rows: Vec<Row> = list(channels, "channels")
        .map(|one| {
            let state = word(one, "state");
            let mood = if state == "works" { Mood::Well } else { Mood::Critical };
            let oldest = one["oldest_age_seconds"].as_f64();
            let oldest =
                oldest.and_then(|age| std::time::Duration::try_from_secs_f64(age).ok()).map(words);
            let cells = vec![
                word(one, "name"),
                word(one, "type"),
                state,
                one["waiting"].as_u64().unwrap_or(0).to_string(),
                oldest.unwrap_or_default(),
                age(one, "last_success", now),
            ];
            let why = word(&one["last_failure"], "why");
            let below = mood != Mood::Well && !why.is_empty();
            (cells, mood, if below { vec![(mood, why)] } else { Vec::new() })
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let names = ["CHANNEL", "TYPE", "STATE", "WAITING", "OLDEST", "LAST SUCCESS"];
    table(&names, 2, rows, look)
}

/// Cells, how it is, and lines that go below.
type Row = (Vec<String>, Mood, Vec<(Mood, String)>);

/// Two blanks between columns; the first gives way when there is too little room. The column
/// `painted` has the colour of the row.
fn table(names: &[&str], painted: usize, rows: Vec<Row>, look: Look) -> String {
    const GAP: usize = 2;
    let widest = |column: usize| {
        let cells = rows.iter().map(|(cells, ..)| columns(&cells[column]));
        cells.chain([columns(names[column])]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..names.len()).map(widest).collect();
    let rest: usize = widths[1..].iter().map(|width| width + GAP).sum();
    widths[0] = widths[0].min(look.width.saturating_sub(rest).max(columns(names[0])));
    let line = |cells: &[String], mood: Option<Mood>| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let cell = shortened(cell, widths[column]);
            let last = column + 1 == cells.len();
            let fill = if last { 0 } else { widths[column] - columns(&cell) + GAP };
            match mood.filter(|_| column == painted) {
                Some(mood) => text.push_str(&mood.paint(&cell, look.color)),
                None => text.push_str(&cell),
            }
            text.push_str(&" ".repeat(fill));
        }
        text.trim_end().to_owned() + "\n"
    };
    let head: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut text = line(&head, None);
    for (cells, mood, below) in &rows {
        text.push_str(&line(cells, Some(*mood)));
        for (mood, what) in below {
            let what = shortened(&format!("  {what}"), look.width);
            text.push_str(&format!("{}\n", mood.paint(&what, look.color)));
        }
    }
    text
}

/// All hosts, the worst first, and by name.
fn judged(hosts: &Json) -> Vec<Host> {
    let now = time(hosts, "now");
    let mut judged: Vec<Host> = list(hosts, "hosts").map(|host| judge(host, now)).collect();
    judged.sort_by(|a, b| b.mood.cmp(&a.mood).then_with(|| a.name.cmp(&b.name)));
    judged
}

fn judge(host: &Json, now: Option<Wall>) -> Host {
    let watch = host["watch"].as_bool().unwrap_or(false);
    let state = word(host, "state");
    let mut alerts = Vec::new();
    // Nobody has asked to be told of the silence of a host that is not watched.
    for connection in list(host, "connections").filter(|_| watch) {
        let (name, how) = (word(connection, "name"), word(connection, "state"));
        let mood = match (how.as_str(), state.as_str()) {
            ("OVERDUE", "OVERDUE") => Mood::Critical,
            ("OVERDUE" | "SHUTDOWN", _) => Mood::Warning,
            _ => continue,
        };
        let seen = age(connection, "last_seen", now);
        alerts.push((mood, format!("{name} {}, last seen {seen} ago", how.to_lowercase())));
    }
    for metric in list(host, "metrics") {
        let mood = metric_mood(&word(metric, "level"));
        if mood == Mood::Well {
            continue;
        }
        let (path, value, limit) = (word(metric, "path"), &metric["value"], word(metric, "limit"));
        let since = age(metric, "since", now);
        alerts.push((mood, format!("{path} = {value} (threshold: {limit}) for {since}")));
    }
    if state == "NEW" && watch {
        alerts.push((Mood::Unsure, "was never heard".into()));
    }
    for (mood, what) in &mut alerts {
        *what = format!("{}: {what}", mood.name());
    }
    alerts.sort_by_key(|(mood, _)| std::cmp::Reverse(*mood));
    let seen = list(host, "connections").filter_map(|one| time(one, "last_seen")).max();
    Host {
        name: word(host, "name"),
        since: age(host, "since", now),
        last_seen: now.zip(seen).map_or(String::new(), |(now, seen)| words(now.since(seen))),
        mood: alerts.iter().map(|(mood, _)| *mood).max().unwrap_or(Mood::Well),
        state,
        alerts,
    }
}

fn metric_mood(level: &str) -> Mood {
    match level {
        "critical" => Mood::Critical,
        "warning" => Mood::Warning,
        _ => Mood::Well,
    }
}

fn connection_mood(state: &str) -> Mood {
    match state {
        "OVERDUE" => Mood::Critical,
        "SHUTDOWN" => Mood::Warning,
        "NEW" => Mood::Unsure,
        _ => Mood::Well,
    }
}

fn list<'a>(of: &'a Json, name: &str) -> impl Iterator<Item = &'a Json> {
    of[name].as_array().into_iter().flatten()
}

fn word(of: &Json, name: &str) -> String {
    of[name].as_str().map_or_else(String::new, plain)
}

fn time(of: &Json, name: &str) -> Option<Wall> {
    humantime::parse_rfc3339(of[name].as_str()?).ok().map(Wall::from)
}

/// How long ago it was; empty when that is not known.
fn age(of: &Json, name: &str, now: Option<Wall>) -> String {
    now.zip(time(of, name)).map_or(String::new(), |(now, then)| words(now.since(then)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Wish>, String> {
        wish(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(parsed(&[]).unwrap().unwrap(), Wish::default());
        let wish = Wish {
            host: Some("web1".into()),
            url: Some("https://x".into()),
            ca_file: Some("ca.pem".into()),
            all: true,
            json: true,
            color: Color::Never,
            ..Wish::default()
        };
        let words =
            ["web1", "--url=https://x", "--ca-file", "ca.pem", "--all", "--json", "--color=never"];
        assert_eq!(parsed(&words).unwrap().unwrap(), wish);
        for wrong in [&["a", "b"][..], &["--color", "red"], &["--limit", "3"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    const LOOK: Look = Look { width: 80, color: false, all: false };
    const NOW: &str = "2026-11-21T20:12:08.000Z";

    fn host(name: &str, state: &str, metrics: Json) -> Json {
        let (long, short) = ("2026-11-21T17:07:08.000Z", "2026-11-21T20:12:06.000Z");
        let seen = if state == "UP" { short } else { long };
        let connections = if state == "NEW" {
            json!([])
        } else {
            json!([{"name": "ipv4", "state": state, "last_seen": seen, "interval": 10.0,
                "address": "192.0.2.1"}])
        };
        json!({"name": name, "watch": true, "state": state, "since": long,
            "connections": connections, "metrics": metrics, "channels": []})
    }

    fn channel(name: &str, state: &str) -> Json {
        json!({"name": name, "type": "signal", "state": state, "waiting": 3,
            "oldest_age_seconds": 65.2, "last_success": "2026-11-21T20:11:08.000Z",
            "last_failure": {"at": NOW, "why": "phone:8080: connection refused"}})
    }

    fn pictures(hosts: Vec<Json>, channels: Vec<Json>) -> (Json, Json) {
        (json!({"now": NOW, "hosts": hosts}), json!({"now": NOW, "channels": channels}))
    }

    #[test]
    fn the_worst_comes_first_with_its_alerts_below() {
        let disk = json!([
            {"path": "disk_monitor.root.percent", "value": 97.5, "level": "critical",
                "since": "2026-11-21T20:00:08.000Z", "limit": "> 95.0"},
            {"path": "load_monitor.load1", "value": 0.1, "level": "ok", "since": NOW, "limit": null},
        ]);
        let all = vec![
            host("well", "UP", json!([])),
            host("db1", "OVERDUE", json!([])),
            host("new", "NEW", json!([])),
            host("web1", "UP", disk),
            host("gone", "SHUTDOWN", json!([])),
        ];
        let channels = vec![channel("oncall", "failing"), channel("ops", "works")];
        let (hosts, channels) = pictures(all, channels);
        assert_eq!(
            overview(&hosts, &channels, None, LOOK),
            "\
4 of 5 hosts are not well, 4 alerts, 1 channel fails

HOST  STATE     SINCE      LAST SEEN
db1   OVERDUE   3 h 5 min  3 h 5 min
  critical: ipv4 overdue, last seen 3 h 5 min ago
web1  UP        3 h 5 min  2 s
  critical: disk_monitor.root.percent = 97.5 (threshold: > 95.0) for 12 min
gone  SHUTDOWN  3 h 5 min  3 h 5 min
  warning: ipv4 shutdown, last seen 3 h 5 min ago
new   NEW       3 h 5 min
  unsure: was never heard
1 host is well (--all shows them)

CHANNEL  TYPE    STATE    WAITING  OLDEST     LAST SUCCESS
oncall   signal  failing  3        1 min 5 s  1 min
  critical: phone:8080: connection refused
ops      signal  works    3        1 min 5 s  1 min
"
            .replace("critical: phone", "phone")
        );
        assert!(!all_well(&hosts, &channels));
    }

    #[test]
    fn when_all_is_well_little_is_said() {
        let (hosts, channels) = pictures(vec![host("web1", "UP", json!([]))], Vec::new());
        assert_eq!(overview(&hosts, &channels, None, LOOK), "1 host, all well\n");
        assert!(all_well(&hosts, &channels));
        let all = overview(&hosts, &channels, None, Look { all: true, ..LOOK });
        assert!(all.contains("web1  UP"), "{all}");
        let ill = overview(&hosts, &channels, Some("the disk is full"), LOOK);
        assert!(ill.contains("\nhbd itself: the disk is full\n"), "{ill}");
        assert_eq!(overview(&Json::Null, &Json::Null, None, LOOK), "no hosts yet\n");
    }

    #[test]
    fn a_host_that_is_not_watched_may_be_silent() {
        let mut silent = host("lab", "OVERDUE", json!([]));
        silent["watch"] = json!(false);
        assert!(all_well(&pictures(vec![silent], Vec::new()).0, &Json::Null));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_nothing_steers_it() {
        let long = format!("{}\u{1b}[31m{}", "長い".repeat(60), "x".repeat(60));
        let metrics = json!([{"path": long, "value": 1e300, "level": "warning", "since": NOW,
            "limit": "> 1.0"}]);
        let (hosts, channels) =
            pictures(vec![host(&long, "OVERDUE", metrics)], vec![channel(&long, "refused")]);
        for text in
            [overview(&hosts, &channels, Some(&plain(&long)), LOOK), host_page(&hosts, LOOK)]
        {
            assert!(!text.contains('\u{1b}'), "{text}");
            for line in text.lines() {
                assert!(columns(line) <= 80, "{} columns: {line}", columns(line));
            }
        }
        let colored = overview(&hosts, &channels, None, Look { color: true, ..LOOK });
        assert!(colored.contains("\u{1b}[1;31mOVERDUE\u{1b}[0m"), "{colored}");
    }

    #[test]
    fn a_host_has_a_page_of_its_own() {
        let metrics = json!([{"path": "load_monitor.load1", "value": 0.5, "level": null,
            "since": null, "limit": null}]);
        let (hosts, _) = pictures(vec![host("web1", "UP", metrics)], Vec::new());
        assert_eq!(
            host_page(&hosts, LOOK),
            "\
HOST  STATE  SINCE      LAST SEEN
web1  UP     3 h 5 min  2 s

CONNECTION  STATE  LAST SEEN  INTERVAL  ADDRESS
ipv4        UP     2 s        10 s      192.0.2.1

METRIC              LEVEL  VALUE  LIMIT
load_monitor.load1         0.5
"
        );
    }
}
