//! `hbd backup`: finds out now how backup plans fared, and prints what an alert would report.

use std::io::{self, Write};
use std::path::Path;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::CONFIGURATION;
use crate::backup::examine::{Examined, Examiner};
use crate::backup::question::Question;
use crate::backup::verdict::Outcome;
use crate::clock::Now;
use crate::config::Config;
use crate::event::{EventId, Message};
use crate::notify::text::{LineBreaks, clean, format_table};
use crate::thread::Stop;

/// Every plan succeeded.
const OK: u8 = 0;
/// Some did not, or it is not known.
const NOT_ALL: u8 = 1;

/// Prints the report about one plan, by its id or its name, or about all plans when none is given.
/// Gives the exit code. Modules that are still running are not waited for.
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
    let Some(examined) = examine(&config, plan, &stop) else {
        // As a shell has it.
        let signal = interrupted.recv().unwrap_or(SIGTERM);
        return Ok(u8::try_from(128 + signal).unwrap_or(NOT_ALL));
    };
    if json {
        let plans: Vec<Value> = examined.iter().map(as_json).collect();
        writeln!(out, "{}", json!({ "plans": plans }))?;
    } else {
        for (index, one) in examined.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            write!(out, "{gap}{}", in_words(one))?;
        }
    }
    let well = |one: &Examined| one.verdict.outcome == Outcome::Success;
    Ok(if examined.iter().all(well) { OK } else { NOT_ALL })
}

/// Told to stop by the first of these signals, with its number: restic, which runs in a process
/// group of its own, must not live on.
fn stop_on_signals() -> io::Result<(Stop, Receiver<i32>)> {
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
fn examine(config: &Config, plan: Option<&str>, stop: &Stop) -> Option<Vec<Examined>> {
    let examiner = Examiner {
        correlator: &config.correlator,
        repo_check: config.repo_check.as_ref(),
        patient: false,
    };
    let ask = |question: &Question| examiner.examine(question, stop);
    let Some(id) = plan else { return ask(&Question::about_everything()) };
    let found = ask(&Question::about(id))?;
    let stranger = |one: &Examined| one.plan.enabled.is_none() && one.plan.modules.is_empty();
    if !found.iter().all(stranger) {
        return Some(found);
    }
    let all = ask(&Question::about_everything())?.into_iter();
    let named: Vec<_> = all.filter(|one| one.plan.name.as_deref() == Some(id)).collect();
    Some(if named.is_empty() { found } else { named })
}

fn as_json(one: &Examined) -> Value {
    json!({
        "plan": one.plan,
        "outcome": one.verdict.outcome,
        "why": one.verdict.why,
        "repositories": one.findings,
    })
}

fn in_words(one: &Examined) -> String {
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
