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
use super::schedule::Zones;
use super::settings::CorrelatorSettings;
use crate::clock::{Mono, Now, Wall};
use crate::event::Event;
use crate::secret::Secret;
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
    /// Whether its repositories may show why it did not succeed.
    pub fn needs_check(&self) -> bool {
        self.plan_outcome.outcome != Outcome::Success && !self.plan.modules.is_empty()
    }

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

/// What Redis says about the plans of a query, before their repositories are checked.
#[derive(Debug)]
pub struct PlansReading {
    /// The plans; at least one. What could not be read is part of the reports.
    pub reports: Vec<PlanReport>,
    /// The passwords of the destinations' repositories, where we may read them.
    pub passwords: BTreeMap<String, Secret>,
    /// Whether all that was asked for could be read: only then a plan that is not there is gone.
    pub complete: bool,
    /// Whether Redis could not be asked.
    pub is_unanswered: bool,
    /// When it was read.
    pub read_at: Mono,
}

impl PlansReading {
    /// What Redis answered, or why it did not.
    pub fn of(state: Result<RedisState, String>, query: &PlanQuery, read_at: Mono) -> PlansReading {
        let RedisState { plans, passwords, connection_lost, incomplete } = match state {
            Ok(state) => state,
            Err(why) => return PlansReading::unknown(query, &why),
        };
        let complete = connection_lost.is_none() && incomplete.is_none();
        let report = |plan| {
            let plan_outcome =
                PlanOutcome::of(&plan).with_connection_lost(&plan, connection_lost.as_deref());
            PlanReport { plan, plan_outcome, repositories: None }
        };
        let mut reports: Vec<_> = plans.into_iter().map(report).collect();
        // Of the plans that could not be listed nothing is known.
        reports.extend(incomplete.map(|why| unknown_plan(ALL_PLANS, Some("of all plans"), &why)));
        let reports = if reports.is_empty() { unknown(query, NO_PLAN) } else { reports };
        PlansReading { reports, passwords, complete, is_unanswered: false, read_at }
    }

    /// When nothing is known.
    pub fn unknown(query: &PlanQuery, why: &str) -> PlansReading {
        let reports = unknown(query, why);
        let passwords = BTreeMap::new();
        let read_at = Now::read().mono;
        PlansReading { reports, passwords, complete: false, is_unanswered: true, read_at }
    }
}

impl Analyzer<'_> {
    /// Analyzes the plans of a query; at least one report. What could not be read is part of the
    /// reports. None at the stop.
    pub fn analyze(&self, query: &PlanQuery, stop: &Stop) -> Option<Vec<PlanReport>> {
        let PlansReading { reports, passwords, .. } = self.read(query, stop)?;
        let mut checked = Vec::new();
        self.check_repositories(reports, &passwords, stop, |report| checked.push(report))?;
        checked.sort_unstable_by(|one: &PlanReport, other| one.plan.id.cmp(&other.plan.id));
        Some(checked)
    }

    /// Reads the plans of a query. None at the stop.
    pub fn read(&self, query: &PlanQuery, stop: &Stop) -> Option<PlansReading> {
        let state = if self.wait_for_running {
            correlator::correlate(self.correlator, query, stop)?
        } else {
            correlator::read_once(self.correlator, query, stop)?
        };
        Some(PlansReading::of(state, query, Now::read().mono))
    }

    /// Checks the repositories of the plans that did not succeed, and hands on each report as soon
    /// as its repositories are done. None at the stop.
    pub fn check_repositories(
        &self,
        reports: Vec<PlanReport>,
        passwords: &BTreeMap<String, Secret>,
        stop: &Stop,
        mut on_done: impl FnMut(PlanReport),
    ) -> Option<()> {
        let Some(checker) = &self.repo_checker else {
            reports.into_iter().for_each(on_done);
            return Some(());
        };
        let (wanted, others): (Vec<_>, Vec<_>) =
            reports.into_iter().partition(PlanReport::needs_check);
        others.into_iter().for_each(&mut on_done);
        let plans: Vec<&Plan> = wanted.iter().map(|report| &report.plan).collect();
        checker.check_plans(&plans, passwords, stop, |index, found| {
            on_done(PlanReport { repositories: Some(found), ..wanted[index].clone() });
        })
    }
}

/// The reports when nothing is known: one for each plan of the query, one for all plans together
/// where it is about all.
pub fn unknown(query: &PlanQuery, why: &str) -> Vec<PlanReport> {
    let named = query.plans.keys().map(|id| unknown_plan(id, None, why));
    let all = query.all.then(|| unknown_plan(ALL_PLANS, Some("of all plans"), why));
    named.chain(all).collect()
}

fn unknown_plan(id: &str, name: Option<&str>, why: &str) -> PlanReport {
    PlanReport {
        plan: Plan {
            id: id.into(),
            name: name.map(str::to_owned),
            zone: Zones::read().local().clone(),
            ..Plan::default()
        },
        plan_outcome: PlanOutcome::unknown(why),
        repositories: None,
    }
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
pub fn is_idle(plan: &Plan) -> bool {
    let is_well =
        |module: &Module| matches!(module.state, ModuleState::Success | ModuleState::Missing);
    plan.enabled == Some(false) && plan.modules.iter().all(is_well)
}

/// A report as it is shown and stored.
pub fn view(report: &PlanReport, now: Wall) -> PlanView {
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
                text: describe_state(&repository.state, now, &plan.zone),
            })
            .collect(),
        told: None,
        configured: plan.configured.clone(),
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
            let module = Module { id: "mail1".into(), state, ..Module::default() };
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
            run: Some(BackupRun { errors: Some(2), end: Some(NOW), ..BackupRun::default() }),
            id: "mail1".into(),
            state: ModuleState::Failed,
            ..Module::default()
        }
    }

    #[test]
    fn a_plan_is_kept_as_it_was_told() {
        let view = view(&report_of("4", vec![failed()]), NOW);
        assert_eq!(view.outcome, "FAILED");
        assert_eq!(view.headline, "backup 4 FAILED: 1 of 1 module failed");
        assert_eq!((view.at, view.modules[0].errors), (NOW, Some(2)));
    }
}
