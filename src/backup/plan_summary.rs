//! The summary of all plans: one line for each, for a daily message and for `hbd backup --all`. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use super::analysis::PlanReport;
use super::outcome::Outcome;
use super::plan::{BackupRun, Module, Plan};
use super::report::{ALL_PLANS, count, format_bytes};
use super::schedule::Zone;
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
    pub zone: &'a Zone,
}

impl PlanSummary<'_> {
    /// The daily message. It is a record: whatever is wrong was told before, so that its level is
    /// info, but a warning where it is not known how plans are.
    pub fn event(&self) -> Event {
        let last = self.last.unwrap_or(self.now - DAY);
        let daily = PlanSummary { last: Some(last), ..*self };
        let (lines, unknown) = (daily.lines(), daily.unknown());
        let is_known = unknown.is_none() && !lines.is_empty();
        let more = lines.len().saturating_sub(MAX_LINES);
        let mut details: Vec<_> = lines.into_iter().take(MAX_LINES).collect();
        let mut add = |label: &str, text: Option<String>| {
            details.extend(text.map(|text| (label.to_owned(), text)));
        };
        add("and", (more > 0).then(|| count(more as u64, "more plan")));
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
        let count_of =
            |outcome| plans.iter().filter(|report| report.plan_outcome.outcome == outcome).count();
        let unknown = self.unknown();
        match plans.len() {
            0 => {
                let unknown = unknown.map(|why| format!("not known how they are: {why}"));
                format!("backups: {}", unknown.unwrap_or_else(|| "no plan is switched on".into()))
            }
            total => {
                let word = if total == 1 { "plan" } else { "plans" };
                let well = count_of(Outcome::Success);
                let running = match count_of(Outcome::Running) {
                    0 => String::new(),
                    running => format!(", {running} not over yet"),
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
        plans.sort_unstable_by_key(|report| {
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

    /// The name and the line of each plan that is on.
    fn lines(&self) -> Vec<(String, String)> {
        let line = |report: &PlanReport| (plan_name(&report.plan), self.line(report));
        self.plans().into_iter().map(line).collect()
    }

    /// `SUCCESS, 4 modules, 12.3 GB, 4321 files, 5 snapshots, ended 03:41 CET`.
    fn line(&self, report: &PlanReport) -> String {
        let figures = Figures::of(&report.plan);
        let mut parts = vec![match report.plan_outcome.outcome {
            Outcome::Success => count_modules(&report.plan),
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
            format!("{word} {}", self.zone.format_recent(end, self.now))
        }));
        let outcome = report.plan_outcome.outcome.name();
        format!("{outcome}, {}", parts.join(", "))
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
            figures.end.map(|end| self.zone.format_minute(end)).unwrap_or_default(),
            remarks.join(", "),
        ]
    }

    /// Whether a run that ended then is not news since the summary before.
    fn is_old(&self, end: Wall) -> bool {
        self.last.is_some_and(|last| end <= last)
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

/// `4 modules, 1 not yet due`.
fn count_modules(plan: &Plan) -> String {
    let due = count(plan.due_modules().count() as u64, "module");
    match plan.not_due.len() {
        0 => due,
        new => format!("{due}, {new} not yet due"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::outcome::PlanOutcome;
    use crate::backup::plan::ModuleState;
    use crate::backup::schedule::Zones;
    use crate::event::{EventId, IncidentChange, Message};

    /// 2026-11-30 08:00 in Rome.
    const NOW: Wall = Wall(1_796_022_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn module(state: ModuleState, run: Option<BackupRun>) -> Module {
        Module { run, id: "mail1".into(), state, ..Module::default() }
    }

    fn run(ended_before: Duration) -> BackupRun {
        BackupRun {
            start: Some(NOW - ended_before - HOUR),
            end: Some(NOW - ended_before),
            errors: Some(0),
            size: Some(6_150_000_000),
            files: Some(1000),
            snapshots: Some(3),
        }
    }

    fn report(id: &str, name: &str, enabled: bool, modules: Vec<Module>) -> PlanReport {
        let name = (!name.is_empty()).then(|| name.to_owned());
        let plan = Plan { id: id.into(), name, enabled: Some(enabled), modules, ..Plan::default() };
        PlanReport { plan_outcome: PlanOutcome::of(&plan), plan, repositories: None }
    }

    fn well(id: &str, name: &str, ended_before: Duration) -> PlanReport {
        let module = module(ModuleState::Success, Some(run(ended_before)));
        report(id, name, true, vec![module.clone(), module])
    }

    fn unknown(why: &str) -> PlanReport {
        let plan = Plan { id: ALL_PLANS.into(), ..Plan::default() };
        PlanReport { plan, plan_outcome: PlanOutcome::unknown(why), repositories: None }
    }

    fn sent(reports: &[PlanReport], last: Option<Wall>) -> (Level, Message) {
        let zone = Zones::default().get("Europe/Rome").expect("the package tzdata is there");
        let event = PlanSummary { reports, last, now: NOW, zone: &zone }.event();
        assert_eq!(event.incident(), IncidentChange::None);
        (event.level, event.message(EventId(1)))
    }

    /// The lines of the plans, as channels without tables show them.
    fn lines(message: &Message) -> Vec<String> {
        let others = ["and", "not known", "switched off"];
        let plans = message.details.iter().filter(|(label, _)| !others.contains(&label.as_str()));
        plans.map(|(label, text)| format!("{label}: {text}")).collect()
    }

    fn detail(message: &Message, label: &str) -> String {
        let detail = message.details.iter().find(|(name, _)| name == label);
        detail.map(|(_, text)| text.clone()).unwrap_or_default()
    }

    #[test]
    fn each_plan_has_one_line_and_the_worst_comes_first() {
        let failed = module(ModuleState::Failed, Some(run(2 * HOUR)));
        let good = module(ModuleState::Success, Some(run(HOUR)));
        let running = module(ModuleState::Running, None);
        let reports = [
            well("10", "Nightly", 4 * HOUR),
            well("2", "", 8 * HOUR + HOUR / 2),
            report("3", "Mail", true, vec![failed, good.clone()]),
            report("4", "Slow", true, vec![running, good]),
            report("5", "Lost", true, vec![module(ModuleState::Missing, None)]),
        ];
        let (level, message) = sent(&reports, None);
        assert_eq!(level, Level::Info, "a record, whatever is in it");
        assert_eq!(message.title, "backups: 2 of 5 plans well, 1 not over yet");
        let lines = lines(&message);
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], "Lost (5): MISSING, 1 of 1 module without a recent run");
        assert_eq!(
            lines[1],
            "Mail (3): PARTIAL, 1 of 2 modules failed, 12.3 GB, 2000 files, 6 snapshots, \
             ended 07:00 CET"
        );
        assert!(lines[2].starts_with("Slow (4): RUNNING, "), "{}", lines[2]);
        assert!(lines[2].contains("at least 6.2 GB"), "the other has not said: {}", lines[2]);
        assert_eq!(
            lines[3],
            "2: SUCCESS, 2 modules, 12.3 GB, 2000 files, 6 snapshots, ended 2026-11-29 23:30 CET"
        );
        assert!(lines[4].starts_with("Nightly (10): SUCCESS, "), "{}", lines[4]);
        let table = message.table.unwrap();
        assert_eq!(table.rows.len(), 5);
        assert_eq!(
            table.rows[4],
            ["10", "Nightly", "SUCCESS", "2", "12.3 GB", "2000", "6", "2026-11-30 04:00 CET", ""]
        );
    }

    #[test]
    fn of_a_plan_without_a_run_since_the_last_summary_it_is_said_since_when() {
        let reports = [well("1", "Weekly", 30 * HOUR), well("2", "Nightly", 4 * HOUR)];
        let (_, message) = sent(&reports, Some(NOW - 24 * HOUR));
        let told = lines(&message);
        assert!(told[0].ends_with("6 snapshots, no run since 2026-11-29 02:00 CET"), "{told:?}");
        assert!(told[1].ends_with("ended 04:00 CET"), "{told:?}");
        assert_eq!(message.table.unwrap().rows[0][8], "no run since");
        let (_, first) = sent(&reports, None);
        assert_eq!(lines(&first), told, "the first one looks back for a day");
        let (_, later) = sent(&reports, Some(NOW - 3 * HOUR));
        assert!(lines(&later)[1].ends_with("no run since 04:00 CET"));
    }

    #[test]
    fn plans_that_are_switched_off_are_one_line_and_not_counted() {
        let off =
            |id, name| report(id, name, false, vec![module(ModuleState::Success, Some(run(HOUR)))]);
        let reports = [well("1", "Nightly", HOUR), off("2", "Old"), off("3", "Older")];
        let (level, message) = sent(&reports, None);
        assert_eq!((level, message.title.as_str()), (Level::Info, "backups: 1 of 1 plan well"));
        assert_eq!(lines(&message).len(), 1);
        assert_eq!(detail(&message, "switched off"), "Old (2), Older (3)");
        let (level, none) = sent(&reports[1..], None);
        assert_eq!(
            (level, none.title.as_str()),
            (Level::Warning, "backups: no plan is switched on")
        );
    }

    #[test]
    fn without_redis_the_summary_is_a_warning_that_says_why() {
        let (level, message) = sent(&[unknown("Redis at x: refused")], None);
        assert_eq!(level, Level::Warning);
        assert_eq!(message.title, "backups: not known how they are: Redis at x: refused");
        assert_eq!((lines(&message).len(), &message.table), (0, &None));
        let (level, some) = sent(&[well("1", "Nightly", HOUR), unknown("no list")], None);
        assert_eq!(level, Level::Warning, "nobody knows what is missing here");
        assert_eq!(some.title, "backups: 1 of 1 plan well, of others it is not known");
        assert_eq!(detail(&some, "not known"), "no list");
    }

    #[test]
    fn a_name_cannot_look_like_the_line_of_another_plan() {
        let (_, message) = sent(&[well("1", "a\nNightly (2): SUCCESS\u{2028}x", HOUR)], None);
        let line = lines(&message).concat();
        assert!(line.starts_with("a Nightly (2): SUCCESS x (1): SUCCESS, "), "{line}");
        assert!(!line.contains(['\n', '\u{2028}']), "{line}");
    }

    #[test]
    fn a_thousand_plans_are_cut_with_their_true_count() {
        let reports: Vec<_> = (0..1000).map(|id| well(&id.to_string(), "", HOUR)).collect();
        let (_, message) = sent(&reports, None);
        assert_eq!(message.title, "backups: 1000 of 1000 plans well");
        assert_eq!(
            (lines(&message).len(), detail(&message, "and").as_str()),
            (100, "900 more plans")
        );
        assert_eq!(message.table.unwrap().rows.len(), MAX_LINES + 1);
    }

    #[test]
    fn damaged_figures_and_times_do_not_end_hbd() {
        let wild = BackupRun {
            end: Some(Wall(i64::MAX)),
            size: Some(u64::MAX),
            files: Some(u64::MAX),
            ..run(HOUR)
        };
        let modules = vec![module(ModuleState::Unreadable, Some(wild)); 2];
        let (_, message) = sent(&[report("1", "", true, modules)], None);
        assert!(lines(&message)[0].contains("18.4 EB"));
    }
}
