//! The summary of all plans: one line for each, for a daily message and for `hbd backup --all`. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::analysis::PlanReport;
use super::outcome::Outcome;
use super::plan::{BackupRun, Module, Plan};
use super::report::{ALL_PLANS, format_bytes};
use crate::clock::Wall;
use crate::event::{Event, EventKind, Level, TextTable};

/// How many plans have a line in a message, and a row in its table.
const MAX_LINES: usize = 100;

/// How long a plan may be without a run where no summary was sent before.
const DAY: Duration = Duration::from_secs(86_400);

/// What a summary is made of.
#[derive(Clone, Copy, Debug)]
pub struct PlanSummary<'a> {
    /// The analysis of all plans.
    pub reports: &'a [PlanReport],
    /// When the summary before was sent; of a plan without a run since it is said that there was
    /// none.
    pub last: Option<Wall>,
    /// The time of the summary.
    pub now: Wall,
    /// The zone that times are shown in.
    pub zone: &'a TimeZone,
}

impl PlanSummary<'_> {
    /// The daily message. It is a record: whatever is wrong was told before, so that its level is
    /// info, but a warning where it is not known how plans are.
    pub fn event(&self) -> Event {
        let last = self.last.unwrap_or(self.now - DAY);
        let daily = PlanSummary { last: Some(last), ..*self };
        let (lines, unknown) = (daily.lines(), daily.unknown());
        let is_known = unknown.is_none() && !lines.is_empty();
        let mut details = Vec::new();
        let mut add = |label: &str, text: Option<String>| {
            details.extend(text.map(|text| (label.to_owned(), text)));
        };
        add("plans", joined(&lines));
        add("not known", unknown);
        add("switched off", self.switched_off());
        let kind = EventKind::BackupSummary {
            level: if is_known { Level::Info } else { Level::Warning },
            title: daily.title(),
            details,
            table: daily.table(),
        };
        Event::new(self.now, kind)
    }

    /// `backups: 4 of 5 plans well`.
    fn title(&self) -> String {
        let plans = self.plans();
        let count =
            |outcome| plans.iter().filter(|report| report.plan_outcome.outcome == outcome).count();
        let unknown = self.unknown();
        match plans.len() {
            0 => {
                let unknown = unknown.map(|why| format!("not known how they are: {why}"));
                format!("backups: {}", unknown.unwrap_or_else(|| "no plan is switched on".into()))
            }
            total => {
                let word = if total == 1 { "plan" } else { "plans" };
                let well = count(Outcome::Success);
                let running = match count(Outcome::Running) {
                    0 => String::new(),
                    running => format!(", {running} still running"),
                };
                let others = if unknown.is_some() { ", of others it is not known" } else { "" };
                format!("backups: {well} of {total} {word} well{running}{others}")
            }
        }
    }

    /// The plans that are on, the worst first, then by id.
    fn plans(&self) -> Vec<&PlanReport> {
        let is_on =
            |report: &&PlanReport| !is_unknown(report) && report.plan.enabled != Some(false);
        let mut plans: Vec<&PlanReport> = self.reports.iter().filter(is_on).collect();
        plans.sort_by_key(|report| {
            let id = &report.plan.id;
            (Reverse(rank(report.plan_outcome.outcome)), id.parse::<u64>().unwrap_or(u64::MAX), id)
        });
        plans
    }

    /// Why it is not known how all plans, or some of them, are.
    fn unknown(&self) -> Option<String> {
        let unknown = self.reports.iter().find(|report| is_unknown(report))?;
        Some(one_line(&unknown.plan_outcome.why))
    }

    /// The names of the plans that are switched off and ran not long ago: others were not read.
    pub fn switched_off(&self) -> Option<String> {
        let is_off = |report: &&PlanReport| report.plan.enabled == Some(false);
        let names: Vec<String> =
            self.reports.iter().filter(is_off).map(|report| plan_name(&report.plan)).collect();
        let more = names.len().saturating_sub(MAX_LINES);
        let shown = names[..names.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{shown}{more}"))
    }

    /// One line for each plan that is on.
    pub fn lines(&self) -> Vec<String> {
        self.plans().into_iter().map(|report| self.line(report)).collect()
    }

    /// `Nightly (7): SUCCESS, 4 modules, 12.3 GB, 5 snapshots, ended 03:41 CET`.
    fn line(&self, report: &PlanReport) -> String {
        let figures = Figures::of(&report.plan);
        let mut parts = vec![match report.plan_outcome.outcome {
            Outcome::Success => count(report.plan.modules.len(), "module"),
            Outcome::Partial
            | Outcome::Failed
            | Outcome::Missing
            | Outcome::Running
            | Outcome::Unknown => one_line(&report.plan_outcome.why),
        }];
        parts.extend(figures.size);
        parts.extend(figures.files.map(|files| format!("{files} files")));
        parts.extend(figures.snapshots.map(|number| format!("{number} snapshots")));
        parts.extend(figures.end.map(|end| {
            let word = if self.is_old(end) { "no run since" } else { "ended" };
            format!("{word} {}", self.short_time(end))
        }));
        let outcome = report.plan_outcome.outcome.name();
        format!("{}: {outcome}, {}", plan_name(&report.plan), parts.join(", "))
    }

    /// The same in rows and columns, with all of the figures; none without a plan.
    pub fn table(&self) -> Option<TextTable> {
        let plans = self.plans();
        if plans.is_empty() {
            return None;
        }
        let head =
            ["id", "plan", "outcome", "modules", "size", "files", "snapshots", "ended", "remark"];
        let mut rows: Vec<_> =
            plans.iter().take(MAX_LINES).map(|report| self.row(report)).collect();
        let more = plans.len().saturating_sub(MAX_LINES);
        rows.extend((more > 0).then(|| vec![format!("and {more} more")]));
        Some(TextTable { head: head.map(str::to_owned).into(), rows })
    }

    fn row(&self, report: &PlanReport) -> Vec<String> {
        let (plan, outcome) = (&report.plan, report.plan_outcome.outcome);
        let figures = Figures::of(plan);
        let mut remarks = Vec::new();
        remarks.extend((outcome != Outcome::Success).then(|| one_line(&report.plan_outcome.why)));
        let is_old = figures.end.is_some_and(|end| self.is_old(end));
        remarks.extend(is_old.then(|| "no run since".to_owned()));
        vec![
            one_line(&plan.id),
            plan.name.as_deref().map(one_line).unwrap_or_default(),
            outcome.name().to_owned(),
            plan.modules.len().to_string(),
            figures.size.unwrap_or_default(),
            figures.files.unwrap_or_default(),
            figures.snapshots.unwrap_or_default(),
            figures.end.map(|end| self.time(end)).unwrap_or_default(),
            remarks.join(", "),
        ]
    }

    /// Whether a run that ended then is not news since the summary before.
    fn is_old(&self, end: Wall) -> bool {
        self.last.is_some_and(|last| end <= last)
    }

    /// `03:41 CET`, with the date unless it is that of the summary.
    fn short_time(&self, at: Wall) -> String {
        let is_today = local(at, self.zone, "%F") == local(self.now, self.zone, "%F");
        if is_today { local(at, self.zone, "%H:%M %Z") } else { self.time(at) }
    }

    /// `2026-11-30 03:41 CET`.
    fn time(&self, at: Wall) -> String {
        local(at, self.zone, "%F %H:%M %Z")
    }
}

/// Whether this is no report about a plan, but says that nothing is known about all of them.
fn is_unknown(report: &PlanReport) -> bool {
    report.plan.id == ALL_PLANS && report.plan.enabled.is_none() && report.plan.modules.is_empty()
}

/// How bad an outcome is: the worst plans come first.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Failed => 5,
        Outcome::Missing => 4,
        Outcome::Partial => 3,
        Outcome::Unknown => 2,
        Outcome::Running => 1,
        Outcome::Success => 0,
    }
}

/// What the last runs of a plan's modules came to, as far as it is known.
#[derive(Default)]
struct Figures {
    size: Option<String>,
    files: Option<String>,
    snapshots: Option<String>,
    /// When the last of them ended.
    end: Option<Wall>,
}

impl Figures {
    fn of(plan: &Plan) -> Figures {
        let runs: Vec<Option<&BackupRun>> =
            plan.modules.iter().map(|module: &Module| module.run.as_ref()).collect();
        let sum = |figure: fn(&BackupRun) -> Option<u64>, format: fn(u64) -> String| {
            let known: Vec<u64> = runs.iter().filter_map(|run| figure((*run)?)).collect();
            let total = format(known.iter().fold(0, |sum, one| sum.saturating_add(*one)));
            let least = if known.len() < runs.len() { "at least " } else { "" };
            (!known.is_empty()).then(|| format!("{least}{total}"))
        };
        Figures {
            size: sum(|run| run.size, format_bytes),
            files: sum(|run| run.files, |files| files.to_string()),
            snapshots: sum(|run| run.snapshots, |snapshots| snapshots.to_string()),
            end: runs.iter().filter_map(|run| (*run)?.end).max(),
        }
    }
}

/// `Nightly (7)`.
fn plan_name(plan: &Plan) -> String {
    let id = one_line(&plan.id);
    plan.name.as_ref().map_or(id.clone(), |name| format!("{} ({id})", one_line(name)))
}

/// A text from outside cannot look like the line of another plan.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// One below the other; none where there is none.
fn joined(lines: &[String]) -> Option<String> {
    let more = lines.len().saturating_sub(MAX_LINES);
    let mut text = lines[..lines.len() - more].join("\n");
    if more > 0 {
        text.push_str(&format!("\nand {more} more"));
    }
    (!lines.is_empty()).then_some(text)
}

/// A time in a zone, as strftime(3) has it; in UTC where it is beyond every calendar.
fn local(at: Wall, zone: &TimeZone, format: &str) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(time) => time.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => at.to_string(),
    }
}
