//! `hbd backup`: analyzes backup plans now, and prints what an alert would report.

use std::io::{self, Write};
use std::path::Path;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use lexopt::prelude::*;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::client::{Client, DaemonArgs, DaemonOption};
use super::{CONFIGURATION, FAILED, config_file, help, json_line, print, print_error};
use crate::backup::analysis::{Analyzer, PlanReport};
use crate::backup::outcome::Outcome;
use crate::backup::plan_query::PlanQuery;
use crate::backup::plan_summary::PlanSummary;
use crate::backup::repo_check::RepoChecker;
use crate::backup::restic_permits::ResticPermits;
use crate::backup::schedule::Zones;
use crate::clock::Now;
use crate::config::Config;
use crate::escape::PercentEncoded;
use crate::event::{EventId, Message};
use crate::notify::text::{LineBreaks, clean, format_table};
use crate::thread::Stop;

/// Every plan succeeded.
const SUCCESS: u8 = 0;
/// One did not, or that is not known.
const NOT_ALL: u8 = 1;

#[derive(Debug, Default, PartialEq)]
struct BackupArgs {
    daemon: DaemonArgs,
    plan: Option<String>,
    json: bool,
    forget: bool,
}

/// Reads the arguments and does what they say. Gives the exit code: 0 when every plan succeeded, 1
/// when one did not, 3 when the daemon cannot be reached, 78 when the configuration cannot be used.
///
/// # Errors
/// When the arguments are wrong.
pub fn run(parser: lexopt::Parser) -> Result<u8, lexopt::Error> {
    let Some(args) = parse_args(parser)? else { return Ok(print(&help::of("backup"))) };
    if let Some(plan) = args.plan.as_deref().filter(|_| args.forget) {
        let client = args.daemon.client()?;
        return Ok(client.map_or_else(|code| code, |client| forget(&client, plan)));
    }
    let (config, mut out) = (config_file(args.daemon.config), io::stdout().lock());
    Ok(backup(&config, args.plan.as_deref(), args.json, &mut out).unwrap_or(FAILED))
}

/// None when help is asked for.
fn parse_args(mut parser: lexopt::Parser) -> Result<Option<BackupArgs>, lexopt::Error> {
    let (mut args, mut all) = (BackupArgs::default(), false);
    while let Some(argument) = parser.next()? {
        if let Some(option) = DaemonOption::of(&argument) {
            args.daemon.set(option, &mut parser)?;
            continue;
        }
        match argument {
            Long("all") => all = true,
            Long("json") => args.json = true,
            Long("forget") => args.forget = true,
            Long("help") | Short('h') => return Ok(None),
            Value(name) if args.plan.is_none() => args.plan = Some(name.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if args.plan.is_some() == all {
        return Err("name one PLAN, by its id or name, or --all".into());
    }
    if args.forget && args.json {
        return Err("--json does not go with --forget".into());
    }
    let daemon = args.daemon.url.is_some() || args.daemon.ca_file.is_some();
    if daemon && !args.forget || args.forget && all {
        return Err("--url and --ca-file go with --forget, and that with a PLAN".into());
    }
    Ok(Some(args))
}

/// Prints the report about one plan, by its id or its name; of all plans, when none is given, a line
/// each, and the reports about those that did not succeed. Gives the exit code. Modules that are still
/// running are not waited for.
pub fn backup(
    config: &Path,
    plan: Option<&str>,
    json: bool,
    out: &mut impl Write,
) -> io::Result<u8> {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(problems) => {
            writeln!(out, "{problems}")?;
            return Ok(CONFIGURATION);
        }
    };
    let (stop, interrupted) = stop_on_signals()?;
    let Some(reports) = analyze(&config, plan, &stop) else {
        // As a shell has it.
        let signal = interrupted.recv().unwrap_or(SIGTERM);
        return Ok(u8::try_from(128 + signal).unwrap_or(NOT_ALL));
    };
    if json {
        let plans: Vec<Value> = reports.iter().map(to_json).collect();
        out.write_all(json_line(&json!({ "plans": plans })).as_bytes())?;
    } else {
        let parts: Vec<String> = match plan {
            Some(_) => reports.iter().map(format_report).collect(),
            None => {
                let troubles = reports.iter().filter(|one| !is_well(one));
                format_summary(&reports).into_iter().chain(troubles.map(format_report)).collect()
            }
        };
        write!(out, "{}", parts.join("\n"))?;
    }
    Ok(if reports.iter().all(is_well) { SUCCESS } else { NOT_ALL })
}

/// Has the daemon end the trouble of a plan, given by its id or its name. Gives the exit code.
pub fn forget(client: &Client, plan: &str) -> u8 {
    match client.delete(&format!("/api/v1/backups/{}", PercentEncoded(plan))) {
        Ok(answer) => {
            let id = answer["plan"].as_str().unwrap_or(plan);
            let id = clean(id, LineBreaks::Remove);
            print(&format!("the trouble of plan {id} is ended; it is told again when it changes\n"))
        }
        Err(why) => {
            print_error(&why);
            NOT_ALL
        }
    }
}

fn is_well(one: &PlanReport) -> bool {
    one.plan_outcome.outcome == Outcome::Success
}

/// One line for each plan; none when no plan is known.
fn format_summary(reports: &[PlanReport]) -> Option<String> {
    let zones = Zones::read();
    let summary = PlanSummary { reports, last: None, now: Now::read().wall, zone: zones.local() };
    let mut lines = Vec::new();
    lines.extend(summary.table().map(|table| format_table(&table)));
    let off = summary.switched_off();
    lines.extend(off.map(|names| format!("switched off: {}", clean(&names, LineBreaks::Remove))));
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

/// A stop at the first of these signals, and the number of that signal: restic runs in a process group
/// of its own, so that a terminal does not stop it.
pub fn stop_on_signals() -> io::Result<(Stop, Receiver<i32>)> {
    let (stopper, stop) = Stop::channel();
    let (tx, rx) = bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            let _ = tx.send(signal);
        }
        drop(stopper);
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok((stop, rx))
}

/// None when it was told to stop.
fn analyze(config: &Config, plan: Option<&str>, stop: &Stop) -> Option<Vec<PlanReport>> {
    let (settings, permits) = (config.repo_check.as_ref(), ResticPermits::default());
    let analyzer = Analyzer {
        correlator: &config.correlator,
        repo_checker: settings.map(|settings| RepoChecker { settings, permits: &permits }),
        wait_for_running: false,
    };
    let ask = |query: &PlanQuery| analyzer.analyze(query, stop);
    let Some(id) = plan else { return ask(&PlanQuery::for_all()) };
    let found = ask(&PlanQuery::for_plan(id))?;
    let is_unknown = |PlanReport { plan, .. }: &PlanReport| {
        plan.enabled.is_none() && plan.why.is_none() && plan.modules.is_empty()
    };
    if !found.iter().all(is_unknown) {
        return Some(found);
    }
    let all = ask(&PlanQuery::for_all())?.into_iter();
    let named: Vec<_> = all.filter(|one| one.plan.name.as_deref() == Some(id)).collect();
    Some(if named.is_empty() { found } else { named })
}

fn to_json(one: &PlanReport) -> Value {
    json!({
        "plan": one.plan,
        "outcome": one.plan_outcome.outcome,
        "why": one.plan_outcome.why,
        "repositories": one.repositories,
    })
}

fn format_report(one: &PlanReport) -> String {
    let message: Message = one.event(&[], Now::read().wall).message(EventId::default());
    let mut text = format!("{}\n", clean(&message.title, LineBreaks::Remove));
    let width = message.details.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    for (label, value) in &message.details {
        let indent = format!("\n{}", " ".repeat(width + 4));
        let value = clean(value, LineBreaks::Keep).replace('\n', &indent);
        let label = format!("{label}:");
        text.push_str(&format!("  {label:<0$} {value}\n", width + 1));
    }
    if let Some(table) = &message.table {
        text.push_str(&format!("\n{}\n", format_table(table)));
    }
    text
}
