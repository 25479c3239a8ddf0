//! The analysis of backup plans: reads their state from Redis, then checks the repositories of
//! those that did not succeed.

use std::collections::BTreeMap;

use super::alert::Alert;
use super::correlator::{self, RedisState};
use super::outcome::{Outcome, PlanOutcome};
use super::plan::{BackupRun, Module, ModuleState, Plan};
use super::plan_query::PlanQuery;
use super::repo_check::{RepoCheckResult, RepoChecker};
use super::report::{ALL_PLANS, ReportBuilder, describe_state};
use super::settings::CorrelatorSettings;
use crate::clock::Wall;
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Table, Write};
use crate::thread::Stop;
use crate::view::{ModuleView, PlanView, RepositoryView};

const NO_PLAN: &str = "Redis knows no plan that is switched on";

/// A plan and the result of its analysis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanReport {
    /// The plan and its modules.
    pub plan: Plan,
    /// Its outcome.
    pub plan_outcome: PlanOutcome,
    /// The states of its repositories; none when they were not checked.
    pub repositories: Option<Vec<RepoCheckResult>>,
}

impl PlanReport {
    /// The event that reports the plan, with the alerts about it.
    pub fn event(&self, alerts: &[&Alert], now: Wall) -> Event {
        let repositories = self.repositories.as_deref();
        ReportBuilder {
            plan: &self.plan,
            plan_outcome: &self.plan_outcome,
            repositories,
            alerts,
            now,
        }
        .event()
    }
}

/// How plans are analyzed.
#[derive(Clone, Copy, Debug)]
pub struct Analyzer<'a> {
    /// Where Redis is.
    pub correlator: &'a CorrelatorSettings,
    /// How repositories are checked; none: not at all.
    pub repo_checker: Option<RepoChecker<'a>>,
    /// Whether to wait for modules that are still running.
    pub wait_for_running: bool,
}

impl Analyzer<'_> {
    /// Analyzes the plans of a query; at least one report. What could not be read is part of the
    /// reports. None at the stop.
    pub fn analyze(&self, query: &PlanQuery, stop: &Stop) -> Option<Vec<PlanReport>> {
        let state = if self.wait_for_running {
            correlator::correlate(self.correlator, query, stop)?
        } else {
            correlator::read_once(self.correlator, query, stop)?
        };
        let RedisState { plans, passwords, connection_lost } = match state {
            Ok(state) if state.plans.is_empty() => {
                return Some(unknown(query, NO_PLAN));
            }
            Ok(state) => state,
            Err(why) => return Some(unknown(query, &why)),
        };
        let analyze = |plan| {
            let plan_outcome =
                PlanOutcome::of(&plan).with_connection_lost(&plan, connection_lost.as_deref());
            PlanReport { plan, plan_outcome, repositories: None }
        };
        let mut reports: Vec<PlanReport> = plans.into_iter().map(analyze).collect();
        self.check_repositories(&mut reports, &passwords, stop)?;
        Some(reports)
    }

    /// Checks the repositories of the plans that did not succeed. None at the stop.
    fn check_repositories(
        &self,
        reports: &mut [PlanReport],
        passwords: &BTreeMap<String, Secret>,
        stop: &Stop,
    ) -> Option<()> {
        let Some(checker) = &self.repo_checker else { return Some(()) };
        let is_wanted = |report: &PlanReport| {
            report.plan_outcome.outcome != Outcome::Success && !report.plan.modules.is_empty()
        };
        let wanted: Vec<usize> =
            (0..reports.len()).filter(|index| is_wanted(&reports[*index])).collect();
        let plans: Vec<&Plan> = wanted.iter().map(|index| &reports[*index].plan).collect();
        let mut results = Vec::new();
        checker.check_plans(&plans, passwords, stop, |index, found| {
            results.push((wanted[index], found));
        })?;
        for (index, found) in results {
            reports[index].repositories = Some(found);
        }
        Some(())
    }
}

/// The reports when nothing is known: one for each plan of the query, one for all plans together
/// where it is about all.
pub fn unknown(query: &PlanQuery, why: &str) -> Vec<PlanReport> {
    let unknown_plan = |id: &str, name: Option<&str>| PlanReport {
        plan: Plan { id: id.into(), name: name.map(str::to_owned), ..Plan::default() },
        plan_outcome: PlanOutcome::unknown(why),
        repositories: None,
    };
    let named = query.plans.keys().map(|id| unknown_plan(id, None));
    let all = query.all.then(|| unknown_plan(ALL_PLANS, Some("of all plans")));
    named.chain(all).collect()
}

/// The reports that are to be sent. For an alert that names no plan, plans that are well are left
/// out, unless all are: then that is the answer. A plan that is switched off is left out, unless its
/// last run went wrong.
pub fn reportable(mut reports: Vec<PlanReport>, query: &PlanQuery) -> Vec<PlanReport> {
    let named = |report: &PlanReport| query.plans.contains_key(&report.plan.id);
    reports.retain(|report| named(report) || !is_idle(&report.plan));
    if reports.is_empty() {
        return unknown(query, NO_PLAN);
    }
    let is_reported =
        |report: &PlanReport| named(report) || report.plan_outcome.outcome != Outcome::Success;
    if reports.iter().any(is_reported) {
        reports.retain(is_reported);
    }
    reports
}

/// Whether a plan is switched off, and its last run did not go wrong.
fn is_idle(plan: &Plan) -> bool {
    let is_well =
        |module: &Module| matches!(module.state, ModuleState::Success | ModuleState::Missing);
    plan.enabled == Some(false) && plan.modules.iter().all(is_well)
}

/// The stored rows of these plans, without idle ones. The row about all plans together is removed
/// once plans are known again.
pub fn plan_rows(reports: &[PlanReport], now: Wall) -> Vec<Write> {
    let mut rows: Vec<Write> = reports
        .iter()
        .filter(|report| !is_idle(&report.plan))
        .map(|report| Write::put(Table::Plans, report.plan.id.clone(), &view(report, now)))
        .collect();
    if reports.iter().any(|report| !report.plan.modules.is_empty())
        && reports.iter().all(|report| report.plan.id != ALL_PLANS)
    {
        rows.push(Write::remove(Table::Plans, ALL_PLANS));
    }
    rows
}

fn view(report: &PlanReport, now: Wall) -> PlanView {
    let PlanReport { plan, plan_outcome, repositories } = report;
    let repositories = repositories.as_deref();
    let builder = ReportBuilder { plan, plan_outcome, repositories, alerts: &[], now };
    PlanView {
        plan: plan.id.clone(),
        name: plan.name.clone(),
        outcome: plan_outcome.outcome.name().to_owned(),
        level: plan_outcome.outcome.level(),
        at: now,
        why: plan_outcome.why.clone(),
        headline: builder.title(),
        modules: plan.modules.iter().map(module).collect(),
        repositories: repositories
            .into_iter()
            .flatten()
            .map(|repository| RepositoryView {
                module: repository.module.clone(),
                text: describe_state(&repository.state, now),
            })
            .collect(),
    }
}

fn module(module: &Module) -> ModuleView {
    let none = BackupRun::default();
    let run = module.run.as_ref().unwrap_or(&none);
    ModuleView {
        name: module.id.clone(),
        label: module.ui_name.clone(),
        state: module.state.name().to_owned(),
        error: module.why.clone(),
        errors: run.errors,
        size: run.size,
        files: run.files,
        snapshots: run.snapshots,
        start: run.start,
        end: run.end,
        node: module.node.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_with(id: &str, outcome: Outcome) -> PlanReport {
        let plan = Plan { id: id.into(), ..Plan::default() };
        PlanReport {
            plan,
            plan_outcome: PlanOutcome { outcome, why: String::new() },
            repositories: None,
        }
    }

    fn is_reported(outcomes: &[Outcome], query: &PlanQuery) -> String {
        let reports: Vec<_> = outcomes
            .iter()
            .enumerate()
            .map(|(index, outcome)| report_with(&index.to_string(), *outcome))
            .collect();
        let worth = reportable(reports, query);
        worth.iter().map(|report| report.plan.id.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_well_is_left_out_where_nobody_named_it() {
        let mixed = [Outcome::Success, Outcome::Failed, Outcome::Success];
        assert_eq!(is_reported(&mixed, &PlanQuery::for_all()), "1");
        assert_eq!(is_reported(&mixed, &PlanQuery::for_plan("2")), "1 2");
        assert_eq!(is_reported(&[Outcome::Success; 2], &PlanQuery::for_all()), "0 1");
    }

    #[test]
    fn a_plan_that_was_lately_switched_off_was_told_as_missing_to_those_who_did_not_ask() {
        let off = |state| {
            let module = Module {
                id: "mail1".into(),
                ui_name: None,
                uuid: None,
                node: None,
                state,
                why: None,
                run: None,
            };
            let plan = Plan {
                id: "off".into(),
                enabled: Some(false),
                modules: vec![module],
                ..Plan::default()
            };
            PlanReport { plan_outcome: PlanOutcome::of(&plan), plan, repositories: None }
        };
        let is_reported = |off: PlanReport, query: &PlanQuery| {
            let reports = vec![off, report_with("on", Outcome::Success)];
            let worth = reportable(reports, query).into_iter();
            worth.map(|report| report.plan.id).collect::<Vec<_>>().join(" ")
        };
        let all = PlanQuery::for_all();
        assert_eq!(is_reported(off(ModuleState::Success), &all), "on");
        assert_eq!(is_reported(off(ModuleState::Missing), &all), "on");
        assert_eq!(is_reported(off(ModuleState::Failed), &all), "off");
        assert_eq!(is_reported(off(ModuleState::Success), &PlanQuery::for_plan("off")), "off");
        let alone = reportable(vec![off(ModuleState::Success)], &all);
        assert_eq!(
            alone[0].plan_outcome,
            PlanOutcome::unknown(NO_PLAN),
            "whoever complained is answered"
        );
    }

    #[test]
    fn without_redis_every_question_still_has_an_answer() {
        let mut query = PlanQuery::for_plan("7");
        query.all = true;
        let titles: Vec<_> = unknown(&query, "x")
            .iter()
            .map(|report| report.event(&[], Wall(0)).message(crate::event::EventId(1)).title)
            .collect();
        assert_eq!(titles, ["backup 7 UNKNOWN: x", "backup of all plans UNKNOWN: x"]);
    }

    const NOW: Wall = Wall(1_795_291_928_000);

    fn report_of(id: &str, modules: Vec<Module>) -> PlanReport {
        let plan = Plan { id: id.into(), enabled: Some(true), modules, ..Plan::default() };
        let plan_outcome = PlanOutcome::of(&plan);
        PlanReport { plan, plan_outcome, repositories: None }
    }

    fn failed() -> Module {
        Module {
            id: "mail1".into(),
            ui_name: None,
            uuid: None,
            node: None,
            state: ModuleState::Failed,
            why: None,
            run: Some(BackupRun { errors: Some(2), end: Some(NOW), ..BackupRun::default() }),
        }
    }

    #[test]
    fn a_plan_is_kept_as_it_was_told_and_read_as_it_was_kept() {
        let rows = plan_rows(&[report_of("4", vec![failed()])], NOW);
        assert_eq!((rows.len(), rows[0].key.as_str()), (2, "4"));
        let view: PlanView = serde_json::from_slice(rows[0].value.as_deref().unwrap()).unwrap();
        assert_eq!(view.outcome, "FAILED");
        assert_eq!(view.headline, "backup 4 FAILED: 1 of 1 module failed");
        assert_eq!((view.at, view.modules[0].errors), (NOW, Some(2)));
    }

    #[test]
    fn what_was_said_of_all_plans_ends_when_plans_are_known_again() {
        let removed = |rows: Vec<Write>| rows.iter().any(|row| row.value.is_none());
        assert!(removed(plan_rows(&[report_of("4", vec![failed()])], NOW)));
        assert!(!removed(plan_rows(&[report_of("4", Vec::new())], NOW)));
        assert!(!removed(plan_rows(&[report_of(ALL_PLANS, Vec::new())], NOW)));
    }
}
