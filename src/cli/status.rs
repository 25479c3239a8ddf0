//! `hbd status`: a table of the hosts and channels of the running daemon, the worst first.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use lexopt::prelude::*;
use serde_json::{Value as Json, json};

use super::answer::{field, items};
use super::client::{Client, DaemonArgs, DaemonOption, print_unreachable};
use super::local_time::TimeFormat;
use super::table::{Style, TableRow, Tone, section, table};
use super::terminal::{ColorChoice, sanitize, wrap};
use super::words::{self, connection, health, since, time, value};
use super::{FAILED, help, json_line, nodes, print, print_error, terminal};
use crate::clock::{Wall, format_duration};
use crate::event::counted;
use crate::thread::Stop;

/// The width of a terminal that does not tell its own.
const DEFAULT_WIDTH: usize = 80;
/// Its height, likewise.
const DEFAULT_HEIGHT: usize = 24;
/// How often `--watch` draws anew.
const REDRAW: Duration = Duration::from_secs(2);

#[derive(Debug, Default, PartialEq)]
struct StatusArgs {
    daemon: DaemonArgs,
    host: Option<String>,
    alive: bool,
    all: bool,
    watch: bool,
    json: bool,
    color: ColorChoice,
}

/// Reads the arguments, asks the daemon and prints. Gives the exit code: 0 when all is well, 1 when
/// something is not, 3 when the daemon cannot be reached.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("status"))) };
    let (client, notice) = match args.daemon.client_and_notice()? {
        Ok(found) => found,
        Err(code) => return Ok(code),
    };
    if args.watch {
        return Ok(watch(&client, &args, notice));
    }
    notice.inspect(|notice| print_error(notice));
    if args.alive {
        return Ok(check_alive(&client));
    }
    Ok(match fetch(&client, &args) {
        Ok(Ok((text, well))) => {
            let _ = io::stdout().write_all(text.as_bytes());
            if well { 0 } else { FAILED }
        }
        Ok(Err(no_host)) => {
            print_error(&no_host);
            FAILED
        }
        Err(why) => print_unreachable(&why),
    })
}

/// What is printed, and whether all is well; the inner error says that there is no such host.
type Shown = Result<(String, bool), String>;

fn fetch(client: &Client, args: &StatusArgs) -> Result<Shown, String> {
    let style = Style {
        width: terminal::width().unwrap_or(DEFAULT_WIDTH),
        color: args.color.wanted(),
        all: args.all,
    };
    match &args.host {
        Some(host) => fetch_host(client, host, args.json, style),
        None => fetch_overview(client, args.json, style).map(Ok),
    }
}

/// Draws it again and again until a signal ends the process; while the daemon does not answer, it
/// says so. What is wrong with the configuration stays above it. Gives the exit code when nobody looks
/// any more.
fn watch(client: &Client, args: &StatusArgs, notice: Option<String>) -> u8 {
    let (_source, stop) = Stop::channel();
    let mut out = io::stdout().lock();
    let _ = out.write_all(b"\x1b[2J");
    loop {
        let wrapped = |text: &str| {
            wrap("", &sanitize(text), terminal::width().unwrap_or(DEFAULT_WIDTH), "  ") + "\n"
        };
        let text = match fetch(client, args) {
            Ok(Ok((text, _))) => text,
            Ok(Err(why)) | Err(why) => wrapped(&why),
        };
        let clock = TimeFormat::new(false).clock(crate::clock::Now::read().wall);
        let head = format!("{clock}, every {} s, Ctrl-C ends\n", REDRAW.as_secs());
        let notice = notice.as_deref().map(wrapped).unwrap_or_default();
        let text = format!("{head}{notice}\n{text}");
        let frame = terminal::frame(&text, terminal::height().unwrap_or(DEFAULT_HEIGHT));
        if out.write_all(frame.as_bytes()).and_then(|()| out.flush()).is_err() {
            return 0;
        }
        stop.wait(REDRAW);
    }
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<StatusArgs>, lexopt::Error> {
    let mut args = StatusArgs::default();
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("alive") => args.alive = true,
            Long("all") => args.all = true,
            Long("watch") => args.watch = true,
            Long("json") => args.json = true,
            Long("color") => {
                let text = parser.value()?.string()?;
                let what = || format!("--color must be auto, always or never, not \"{text}\"");
                args.color = ColorChoice::parse(&text).ok_or_else(what)?;
            }
            Long("help") | Short('h') => return Ok(None),
            Value(host) if args.host.is_none() => args.host = Some(host.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if args.watch && args.json {
        return Err("--watch and --json exclude each other".into());
    }
    if args.watch && terminal::width().is_none() {
        return Err("--watch needs a terminal: without one, call hbd status again".into());
    }
    if args.alive && (args.host.is_some() || args.all || args.json || args.watch) {
        return Err(
            "--alive goes without HOST and other options: it prints nothing of hosts".into()
        );
    }
    Ok(Some(args))
}

/// Whether the daemon itself answers, for what would start it again: a host that is down does not count.
/// Gives the exit code.
fn check_alive(client: &Client) -> u8 {
    match client.get_text("/-/healthy") {
        Ok((200, _)) => 0,
        Ok((status, why)) => {
            print_unreachable(&format!("{} answered {status}: {}", client.base(), sanitize(&why)))
        }
        Err(why) => print_unreachable(&why),
    }
}

/// All hosts and channels, and whether all is well.
fn fetch_overview(client: &Client, json: bool, style: Style) -> Result<(String, bool), String> {
    let (ready, why) = client.get_text("/-/ready")?;
    let cluster = client.cluster();
    if let Some(cluster) = &cluster
        && cluster["role"] != "leader"
    {
        return Ok(standby(cluster, client.base(), json, style));
    }
    let mut hosts = client.get("/api/v1/hosts", &[])?;
    hosts["alerts"] = fetch_alerts(client);
    let channels = client.get("/api/v1/channels", &[])?;
    let failure = (ready != 200).then(|| terminal::sanitize(&why));
    let (mut text, nodes_well) =
        cluster.as_ref().map_or((String::new(), true), |one| nodes::overview(one, style));
    let well = failure.is_none() && nodes_well && all_well(&hosts, &channels);
    if json {
        let mut answer = json!({
            "ok": well,
            "daemon": client.base(),
            "trouble": failure,
            "now": hosts["now"],
            "hosts": hosts["hosts"],
            "alerts": hosts["alerts"],
            "channels": channels["channels"],
        });
        if let Some(cluster) = cluster {
            answer["cluster"] = cluster;
        }
        return Ok((json_line(&answer), well));
    }
    text.push_str(&overview(&hosts, &channels, failure.as_deref(), style));
    Ok((text, well))
}

/// What a node shows that does not lead its cluster: the nodes, and whom to ask for the hosts.
fn standby(cluster: &Json, base: &str, json: bool, style: Style) -> (String, bool) {
    let (mut text, well) = nodes::overview(cluster, style);
    if json {
        let answer = json!({ "ok": well, "daemon": base, "cluster": cluster });
        return (json_line(&answer), well);
    }
    let url = field(cluster, "leader_url");
    if !url.is_empty() {
        let what = format!("this node stands by; for the hosts: hbd status --url {url}");
        text.push_str(&(wrap("", &sanitize(&what), style.width, "  ") + "\n"));
    }
    (text, well)
}

/// One host with all that is known of it.
fn fetch_host(client: &Client, name: &str, json: bool, style: Style) -> Result<Shown, String> {
    let host = match client.get_host(name)? {
        Ok(host) => host,
        Err(why) => return Ok(Err(why)),
    };
    let now = crate::clock::Now::read().wall;
    let hosts = json!({ "now": now.to_string(), "hosts": [host], "alerts": fetch_alerts(client) });
    let well = all_well(&hosts, &Json::Null);
    let text = if json { json_line(&host) } else { host_page(&hosts, style) };
    Ok(Ok((text, well)))
}

/// The open alerts, which say what is held back or acknowledged. When the daemon is too busy for
/// them, the marks are missing: how the hosts are is shown in any case.
fn fetch_alerts(client: &Client) -> Json {
    let answer = client.get("/api/v1/alerts", &[]);
    answer.map_or(Json::Null, |mut answer| answer["alerts"].take())
}

/// One host, and what is wrong with it.
struct HostStatus {
    name: String,
    state: String,
    since: String,
    last_seen: String,
    tone: Tone,
    alerts: Vec<(Tone, String)>,
    /// The silences and windows that are about it, by their ids.
    quiet: Vec<String>,
}

/// Whether nothing needs attention.
fn all_well(hosts: &Json, channels: &Json) -> bool {
    hosts_by_tone(hosts).iter().all(|host| host.tone == Tone::Good)
        && items(channels, "channels").all(|channel| field(channel, "state") == "works")
}

/// All hosts that are not well, or all, with their alerts; then the channels.
fn overview(hosts: &Json, channels: &Json, failure: Option<&str>, style: Style) -> String {
    let sorted = hosts_by_tone(hosts);
    let not_well = sorted.iter().filter(|host| host.tone != Tone::Good).count();
    let alerts: usize = sorted.iter().map(|host| host.alerts.len()).sum();
    let failing = items(channels, "channels").filter(|one| field(one, "state") != "works").count();
    let worst = sorted.iter().map(|host| host.tone).max().unwrap_or(Tone::Good);
    let worst = if failure.is_some() || failing > 0 { Tone::Critical } else { worst };
    let head = headline(sorted.len(), not_well, alerts, failing);
    let mut text = worst.paint(&wrap("", &head, style.width, "  "), style.color) + "\n";
    if let Some(why) = failure {
        let line = wrap("", &format!("hbd itself: {why}"), style.width, "  ");
        text.push_str(&format!("{}\n", Tone::Critical.paint(&line, style.color)));
    }
    let shown: Vec<&HostStatus> =
        sorted.iter().filter(|host| style.all || host.tone != Tone::Good).collect();
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&host_table(&shown, style));
    }
    let well = sorted.len() - not_well;
    if well > 0 && !style.all && not_well > 0 {
        let verb = if well == 1 { "is" } else { "are" };
        text.push_str(&format!("{} {verb} well (--all shows them)\n", counted(well, "host")));
    }
    let channels = channel_table(channels, style);
    if !channels.is_empty() {
        text.push('\n');
        text.push_str(&channels);
    }
    text
}

/// The only host of a list, with its connections and metrics.
fn host_page(hosts: &Json, style: Style) -> String {
    let sorted = hosts_by_tone(hosts);
    let mut text = host_table(&sorted.iter().collect::<Vec<_>>(), style);
    let now = time(hosts, "now");
    let Some(host) = items(hosts, "hosts").next() else { return text };
    if let Some(refused) = host["refused"]["text"].as_str() {
        text.push_str(&format!("\n{}\n", sanitize(refused)));
    }
    let rows = items(host, "connections").map(|one| {
        let state = field(one, "state");
        let tone = connection_tone(&state);
        let interval = one["interval"].as_f64().unwrap_or(0.0);
        let interval =
            format_duration(std::time::Duration::try_from_secs_f64(interval).unwrap_or_default());
        let cells = [field(one, "name"), connection(&state).into(), age(one, "last_seen", now)];
        (cells.into_iter().chain([interval, field(one, "address")]).collect(), tone, Vec::new())
    });
    let names = ["CONNECTION", "STATE", "LAST SEEN", "INTERVAL", "ADDRESS"];
    text.push_str(&section(&names, 1, rows.collect(), style));
    let rows = items(host, "metrics").map(|one| {
        let level = field(one, "level");
        let (tone, text) = (metric_tone(&level), field(one, "text"));
        let cells = vec![field(one, "path"), level, value(one), field(one, "limit")];
        (cells, tone, if text.is_empty() { Vec::new() } else { vec![(tone, text)] })
    });
    text.push_str(&section(&["METRIC", "LEVEL", "VALUE", "LIMIT"], 1, rows.collect(), style));
    text
}

fn headline(hosts: usize, not_well: usize, alerts: usize, failing: usize) -> String {
    let mut parts = Vec::new();
    match (hosts, not_well) {
        (0, _) => parts.push("no hosts yet".to_owned()),
        (_, 0) => parts.push(format!("{}, all well", counted(hosts, "host"))),
        (_, 1) => parts.push(format!("1 of {} is not well", counted(hosts, "host"))),
        _ => parts.push(format!("{not_well} of {} are not well", counted(hosts, "host"))),
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

fn host_table(hosts: &[&HostStatus], style: Style) -> String {
    let rows = hosts.iter().map(|host| {
        let cells = [&host.name, &host.state, &host.since, &host.last_seen];
        let quiet = (!host.quiet.is_empty()).then(|| format!("quiet: {}", host.quiet.join(", ")));
        let below = host.alerts.iter().cloned();
        let below = below.chain(quiet.map(|quiet| (Tone::Unsure, quiet))).collect();
        (cells.into_iter().cloned().collect(), host.tone, below)
    });
    table(&["HOST", "STATE", "SINCE", "LAST SEEN"], 1, rows.collect(), style)
}

fn channel_table(channels: &Json, style: Style) -> String {
    let now = time(channels, "now");
    let rows: Vec<TableRow> = items(channels, "channels")
        .map(|one| {
            let state = field(one, "state");
            let tone = if state == "works" { Tone::Good } else { Tone::Critical };
            let oldest = one["oldest_age_seconds"].as_f64();
            let oldest = oldest
                .and_then(|age| std::time::Duration::try_from_secs_f64(age).ok())
                .map(format_duration);
            let cells = vec![
                field(one, "name"),
                field(one, "type"),
                state,
                one["waiting"].as_u64().unwrap_or(0).to_string(),
                oldest.unwrap_or_default(),
                age(one, "last_success", now),
            ];
            let why = field(&one["last_failure"], "why");
            let below = tone != Tone::Good && !why.is_empty();
            (cells, tone, if below { vec![(tone, why)] } else { Vec::new() })
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let names = ["CHANNEL", "TYPE", "STATE", "WAITING", "OLDEST", "LAST SUCCESS"];
    table(&names, 2, rows, style)
}

/// All hosts, the worst first, and by name.
fn hosts_by_tone(hosts: &Json) -> Vec<HostStatus> {
    let now = time(hosts, "now");
    let mut alerts: BTreeMap<&str, Vec<&Json>> = BTreeMap::new();
    for alert in items(hosts, "alerts") {
        alerts.entry(alert["host"].as_str().unwrap_or_default()).or_default().push(alert);
    }
    let of_host = |host: &Json| host["name"].as_str().and_then(|name| alerts.get(name));
    let assess = |host| assess(host, of_host(host).map_or(&[], Vec::as_slice), now);
    let mut sorted: Vec<HostStatus> = items(hosts, "hosts").map(assess).collect();
    sorted.sort_unstable_by(|a, b| b.tone.cmp(&a.tone).then_with(|| a.name.cmp(&b.name)));
    sorted
}

/// `open`: the open alerts of the host.
fn assess(host: &Json, open: &[&Json], now: Option<Wall>) -> HostStatus {
    let watch = host["watch"].as_bool().unwrap_or(false);
    let state = field(host, "state");
    let mut alerts = Vec::new();
    // The silence of a host that is not watched is no problem.
    for one in items(host, "connections").filter(|_| watch) {
        let (name, how) = (field(one, "name"), field(one, "state"));
        let tone = match (how.as_str(), state.as_str()) {
            ("OVERDUE", "OVERDUE") => Tone::Critical,
            ("OVERDUE" | "SHUTDOWN", _) => Tone::Warning,
            _ => continue,
        };
        let seen = age(one, "last_seen", now);
        let mark = mark(open, host, &name, now);
        alerts.push((tone, format!("{name} {}, last seen {seen} ago{mark}", connection(&how))));
    }
    for metric in items(host, "metrics") {
        let tone = metric_tone(&field(metric, "level"));
        if tone == Tone::Good {
            continue;
        }
        let (path, since) = (field(metric, "path"), age(metric, "since", now));
        let (what, mark) = (words::metric(metric), mark(open, host, &path, now));
        alerts.push((tone, format!("{what} for {since}: {path}{mark}")));
    }
    if state == "NEW" && watch {
        alerts.push((Tone::Unsure, format!("was never heard{}", mark(open, host, "was", now))));
    }
    alerts.extend(alarms_of_host(open, now));
    for (tone, what) in &mut alerts {
        *what = format!("{}: {what}", tone.name());
    }
    alerts.sort_by_key(|(tone, _)| std::cmp::Reverse(*tone));
    let seen = items(host, "connections").filter_map(|one| time(one, "last_seen")).max();
    HostStatus {
        name: field(host, "name"),
        since: age_of(since(host), now),
        last_seen: age_of(seen, now),
        tone: alerts.iter().map(|(tone, _)| *tone).max().unwrap_or(Tone::Good),
        state: health(host).into(),
        alerts,
        quiet: items(host, "quiet").filter_map(Json::as_str).map(sanitize).collect(),
    }
}

/// What keeps an alert from being told, or from being told again: ` [held back by s17 for 2 h more]`.
fn mark(open: &[&Json], host: &Json, part: &str, now: Option<Wall>) -> String {
    let scope = format!("{}/{part}", field(host, "name"));
    let prefix = format!("{part} ");
    let is_meant = |alert: &&&Json| match alert["scope"].as_str() {
        Some(of_part) if of_part.contains('/') => of_part == scope,
        _ => alert["text"].as_str().is_some_and(|text| text.starts_with(&prefix)),
    };
    open.iter().find(is_meant).map_or(String::new(), |alert| mark_of(alert, now))
}

/// Open alerts that are about no part of the host: it has not come back, its name in the DNS is stale.
fn alarms_of_host<'a>(
    open: &'a [&Json],
    now: Option<Wall>,
) -> impl Iterator<Item = (Tone, String)> + 'a {
    let whole = |alert: &&&Json| alert["scope"].as_str().is_some_and(|scope| !scope.contains('/'));
    open.iter().filter(whole).filter_map(move |alert| {
        let text = field(alert, "text");
        let tone = match &*field(alert, "level") {
            "critical" => Tone::Critical,
            _ => Tone::Warning,
        };
        (text != "was never heard").then(|| (tone, text + &mark_of(alert, now)))
    })
}

fn mark_of(alert: &Json, now: Option<Wall>) -> String {
    let mut marks = Vec::new();
    let held = &alert["held"];
    if held.is_object() {
        let told = items(alert, "told").next().map_or("", |_| "told, then ");
        let reason = items(held, "reasons").last().unwrap_or(&Json::Null);
        let follows = now.zip(time(held, "out_at")).map(|(now, out)| out.since(now));
        marks.push(format!("{told}{}", held_by(held, reason, follows, now)));
    }
    if alert["acknowledged"].is_string() {
        marks.push(format!("acknowledged {} ago", age(alert, "acknowledged", now)));
    }
    if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join("; ")) }
}

/// `held back by s17 for 2 h more`, `held back by router, which is down`.
fn held_by(held: &Json, reason: &Json, follows: Option<Duration>, now: Option<Wall>) -> String {
    let left = now.zip(time(reason, "until"));
    let left = left.map(|(now, end)| format_duration(end.since(now)));
    let why = field(reason, "why");
    let by = match &*why {
        "storm" => "the storm".into(),
        "flapping" => "its flapping".into(),
        _ => field(reason, "id"),
    };
    match (follows, left) {
        (Some(Duration::ZERO), _) => format!("held back by {by}, follows now"),
        (Some(left), _) => format!("held back by {by}, follows in {}", format_duration(left)),
        (None, _) if why == "parent" => format!("held back by {by}, which is down"),
        (None, Some(left)) if why == "flapping" => {
            let text = field(held, "text");
            let flapping = text.find("flapping: ").map_or("flapping", |at| &text[at..]);
            format!("{flapping}, told again if it is quiet for {left} more")
        }
        (None, Some(left)) => format!("held back by {by} for {left} more"),
        (None, None) => format!("held back by {by}"),
    }
}

fn metric_tone(level: &str) -> Tone {
    match level {
        "critical" => Tone::Critical,
        "warning" => Tone::Warning,
        _ => Tone::Good,
    }
}

fn connection_tone(state: &str) -> Tone {
    match state {
        "OVERDUE" => Tone::Critical,
        "SHUTDOWN" => Tone::Warning,
        "NEW" => Tone::Unsure,
        _ => Tone::Good,
    }
}

/// How long ago it was; empty when that is not known.
fn age(of: &Json, name: &str, now: Option<Wall>) -> String {
    age_of(time(of, name), now)
}

fn age_of(then: Option<Wall>, now: Option<Wall>) -> String {
    now.zip(then).map_or(String::new(), |(now, then)| format_duration(now.since(then)))
}

#[cfg(test)]
mod tests {
    use super::super::terminal::columns;
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<StatusArgs>, String> {
        parse_args(lexopt::Parser::from_args(arguments)).map_err(|why| why.to_string())
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(parsed(&[]).unwrap().unwrap(), StatusArgs::default());
        let args = StatusArgs {
            host: Some("web1".into()),
            daemon: DaemonArgs {
                url: Some("https://x".into()),
                ca_file: Some("ca.pem".into()),
                ..DaemonArgs::default()
            },
            all: true,
            json: true,
            color: ColorChoice::Never,
            ..StatusArgs::default()
        };
        let words =
            ["web1", "--url=https://x", "--ca-file", "ca.pem", "--all", "--json", "--color=never"];
        assert_eq!(parsed(&words).unwrap().unwrap(), args);
        for wrong in [
            &["a", "b"][..],
            &["--color", "red"],
            &["--limit", "3"],
            &["--watch", "--json"],
            &["--alive", "--all"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    const STYLE: Style = Style { width: 80, color: false, all: false };
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
            overview(&hosts, &channels, None, STYLE),
            "\
4 of 5 hosts are not well, 4 alerts, 1 channel fails

HOST  STATE        SINCE      LAST SEEN
db1   overdue      3 h 5 min  3 h 5 min
  critical: ipv4 overdue, last seen 3 h 5 min ago
web1  critical     12 min     2 s
  critical: disk root 97.5 % (limit: above 95.0 %) for 12 min:
    disk_monitor.root.percent
gone  shut down    3 h 5 min  3 h 5 min
  warning: ipv4 shut down, last seen 3 h 5 min ago
new   never heard  3 h 5 min
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
    fn what_is_held_back_or_acknowledged_is_marked_and_not_well_all_the_same() {
        let disk = json!([{"path": "disk_monitor.root.percent", "value": 97.5,
            "level": "critical", "since": "2026-11-21T20:00:08.000Z", "limit": "> 95.0"}]);
        let mut silent = host("web1", "OVERDUE", disk);
        silent["quiet"] = json!(["s17", "nightly"]);
        let reasons = json!([{"why": "silence", "id": "s17",
            "until": "2026-11-21T22:12:08.000Z", "channels": ["mail"]}]);
        let (mut hosts, _) = pictures(vec![silent], Vec::new());
        hosts["alerts"] = json!([
            {"host": "web1", "text": "disk_monitor.root.percent = 97.5 (> 95.0)",
                "scope": "web1/disk_monitor.root.percent", "told": ["mail"], "held": null,
                "acknowledged": "2026-11-21T20:07:08.000Z"},
            {"host": "web1", "text": "ipv4 overdue", "told": [], "acknowledged": null,
                "held": {"text": "web1 ipv4 overdue", "reasons": reasons, "out_at": null}},
            {"host": null, "text": "ipv4 overdue", "acknowledged": NOW},
        ]);
        let marked = "\
HOST  STATE    SINCE      LAST SEEN
web1  overdue  3 h 5 min  3 h 5 min
  critical: ipv4 overdue, last seen 3 h 5 min ago [held back by s17 for 2 h more]
  critical: disk root 97.5 % (limit: above 95.0 %) for 12 min: disk_monitor.root.percent [acknowledged 5 min ago]
  quiet: s17, nightly
";
        let text = overview(&hosts, &Json::Null, None, Style { width: 120, ..STYLE });
        assert_eq!(text, format!("1 of 1 host is not well, 2 alerts\n\n{marked}"));
        assert!(!all_well(&hosts, &Json::Null));
        hosts["alerts"][1]["told"] = json!(["mail"]);
        hosts["alerts"][1]["held"]["out_at"] = json!(NOW);
        let text = overview(&hosts, &Json::Null, None, Style { width: 120, ..STYLE });
        assert!(text.contains(" [told, then held back by s17, follows now]\n"), "{text}");
        hosts["alerts"][1]["held"]["out_at"] = json!("2026-11-21T20:12:48.000Z");
        let text = overview(&hosts, &Json::Null, None, Style { width: 120, ..STYLE });
        assert!(text.contains(" [told, then held back by s17, follows in 40 s]\n"), "{text}");
    }

    #[test]
    fn hosts_that_are_down_storms_and_flapping_are_named_as_what_holds_back() {
        let (mut hosts, _) = pictures(vec![host("web1", "OVERDUE", json!([]))], Vec::new());
        let end = "2026-11-21T20:24:08.000Z";
        for (why, id, until, out_at, words) in [
            ("parent", "router", Json::Null, Json::Null, "held back by router, which is down"),
            ("storm", "storm", Json::Null, Json::Null, "held back by the storm"),
            (
                "flapping",
                "flapping",
                json!(end),
                Json::Null,
                "flapping, told again if it is quiet for 12 min more",
            ),
            ("flapping", "flapping", Json::Null, Json::Null, "held back by its flapping"),
            ("parent", "router", Json::Null, json!(NOW), "held back by router, follows now"),
            ("storm", "storm", Json::Null, json!(end), "held back by the storm, follows in 12 min"),
        ] {
            let reasons = json!([{"why": why, "id": id, "until": until, "channels": ["mail"]}]);
            hosts["alerts"] = json!([{"host": "web1", "scope": "web1/ipv4", "told": [],
                "text": "ipv4 overdue", "held": {"reasons": reasons, "out_at": out_at}}]);
            let text = overview(&hosts, &Json::Null, None, Style { width: 120, ..STYLE });
            assert!(text.contains(&format!(" ago [{words}]\n")), "{words}: {text}");
        }
        hosts["alerts"][0]["held"] = json!({"text": "web1 ipv4 is flapping: 14 changes in 52 min",
            "reasons": [{"why": "flapping", "until": end}]});
        let text = overview(&hosts, &Json::Null, None, Style { width: 150, ..STYLE });
        let words =
            " ago [flapping: 14 changes in 52 min, told again if it is quiet for 12 min more]";
        assert!(text.contains(words), "{text}");
    }

    #[test]
    fn alarms_about_a_whole_host_have_a_line_each() {
        let (mut hosts, _) = pictures(vec![host("web1", "UP", json!([]))], Vec::new());
        hosts["alerts"] = json!([
            {"host": "web1", "scope": "web1", "level": "critical", "text": "has not come back",
                "acknowledged": "2026-11-21T20:07:08.000Z"},
            {"host": "web1", "scope": "web1", "level": "warning",
                "text": "its name in the DNS cannot be kept"},
            {"host": "web1", "scope": "web1", "level": "warning", "text": "was never heard"},
            {"host": null, "scope": "plan:4", "level": "critical", "text": "the backup failed"},
        ]);
        let text = overview(&hosts, &Json::Null, None, Style { width: 120, ..STYLE });
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).collect();
        let come = "  critical: has not come back [acknowledged 5 min ago]";
        assert_eq!(lines, [come, "  warning: its name in the DNS cannot be kept"], "{text}");
    }

    #[test]
    fn when_all_is_well_little_is_said() {
        let (hosts, channels) = pictures(vec![host("web1", "UP", json!([]))], Vec::new());
        assert_eq!(overview(&hosts, &channels, None, STYLE), "1 host, all well\n");
        assert!(all_well(&hosts, &channels));
        let all = overview(&hosts, &channels, None, Style { all: true, ..STYLE });
        assert!(all.contains("web1  up"), "{all}");
        let told = overview(&hosts, &channels, Some("the disk is full"), STYLE);
        assert!(told.contains("\nhbd itself: the disk is full\n"), "{told}");
        assert_eq!(overview(&Json::Null, &Json::Null, None, STYLE), "no hosts yet\n");
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
            [overview(&hosts, &channels, Some(&sanitize(&long)), STYLE), host_page(&hosts, STYLE)]
        {
            assert!(!text.contains('\u{1b}'), "{text}");
            for line in text.lines() {
                assert!(columns(line) <= 80, "{} columns: {line}", columns(line));
            }
        }
        let colored = overview(&hosts, &channels, None, Style { color: true, ..STYLE });
        assert!(colored.contains("\u{1b}[1;31moverdue\u{1b}[0m"), "{colored}");
    }

    #[test]
    fn a_host_has_a_page_of_its_own() {
        let metrics = json!([{"path": "load_monitor.load1", "value": 0.5, "level": null,
            "since": null, "limit": null}]);
        let (hosts, _) = pictures(vec![host("web1", "UP", metrics)], Vec::new());
        assert_eq!(
            host_page(&hosts, STYLE),
            "\
HOST  STATE  SINCE      LAST SEEN
web1  up     3 h 5 min  2 s

CONNECTION  STATE  LAST SEEN  INTERVAL  ADDRESS
ipv4        up     2 s        10 s      192.0.2.1

METRIC              LEVEL  VALUE  LIMIT
load_monitor.load1         0.5
"
        );
        let mut silent = hosts;
        let why = "beats that say they are web1 come from 192.0.2.9 and are refused: bad signature";
        silent["hosts"][0]["refused"] = json!({"text": format!("{why}\u{1b}[31m, once")});
        let page = host_page(&silent, STYLE);
        assert!(page.contains(&format!("2 s\n\n{why}")) && !page.contains('\u{1b}'), "{page}");
    }

    #[test]
    fn what_a_host_said_beside_a_metric_was_not_shown() {
        let metrics = json!([{"path": "job_monitor.backup.exit_code", "value": 3.0,
            "level": "critical", "since": NOW, "limit": "> 0.0",
            "text": "Fatal: \u{1b}[31mno\nrepository"}]);
        let (hosts, _) = pictures(vec![host("web1", "UP", metrics)], Vec::new());
        let page = host_page(&hosts, STYLE);
        assert!(page.contains("\n  Fatal: [31mno repository\n"), "{page}");
    }
}
