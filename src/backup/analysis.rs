//! From a question to what can be told about each plan: Redis first, then the repositories.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::alert::Alert;
use super::correlator::{self, RedisState};
use super::outcome::{Outcome, Verdict};
use super::plan::{BackupRun, Module, ModuleState, Plan};
use super::question::PlanQuery;
use super::repo_check::{self, RepoCheckResult};
use super::report::{ALL_PLANS, ReportBuilder, condition};
use super::settings::{CorrelatorSettings, RepoCheckSettings};
use crate::clock::Wall;
use crate::event::Event;
use crate::secret::Secret;
use crate::store::{Table, Write};
use crate::thread::Stop;
use crate::view::{ModuleView, PlanView, RepositoryView};

const NO_PLAN: &str = "Redis knows no plan that is switched on";

/// A plan and all that was found out about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// The plan and its modules.
    pub plan: Plan,
    /// How it fared.
    pub verdict: Verdict,
    /// What the repositories said; none when they were not asked.
    pub findings: Option<Vec<RepoCheckResult>>,
}

impl PlanReport {
    /// The event for people, with the alerts that complained.
    pub fn event(&self, alerts: &[&Alert], now: Wall) -> Event {
        let findings = self.findings.as_deref();
        ReportBuilder { plan: &self.plan, verdict: &self.verdict, findings, alerts, now }.event()
    }
}

/// How one asks.
#[derive(Clone, Copy, Debug)]
pub struct Analyzer<'a> {
    /// Where the truth is.
    pub correlator: &'a CorrelatorSettings,
    /// How repositories are asked; none means not at all.
    pub repo_check: Option<&'a RepoCheckSettings>,
    /// Whether modules that are running are waited for.
    pub patient: bool,
}

impl Analyzer<'_> {
    /// Examines the plans in question, at least one. What could not be found out is part of the
    /// answer. None when it was told to stop meanwhile.
    pub fn examine(&self, question: &PlanQuery, stop: &Stop) -> Option<Vec<PlanReport>> {
        let answer = if self.patient {
            correlator::correlate(self.correlator, question, stop)?
        } else {
            correlator::look(self.correlator, question, stop)?
        };
        let RedisState { plans, passwords, lost } = match answer {
            Ok(answer) if answer.plans.is_empty() => {
                return Some(unknown(question, NO_PLAN));
            }
            Ok(answer) => answer,
            Err(why) => return Some(unknown(question, &why)),
        };
        // One for all plans: however many of them restic hangs over, people are told in time.
        let until = self.repo_check.map(repo_check::deadline);
        let examine = |plan| {
            let verdict = Verdict::of(&plan).when_lost(&plan, lost.as_deref());
            self.with_repositories(plan, verdict, &passwords, until, stop)
        };
        plans.into_iter().map(examine).collect()
    }

    fn with_repositories(
        &self,
        plan: Plan,
        verdict: Verdict,
        passwords: &BTreeMap<String, Secret>,
        until: Option<Instant>,
        stop: &Stop,
    ) -> Option<PlanReport> {
        let wanted = verdict.outcome != Outcome::Success && !plan.modules.is_empty();
        let findings = match self.repo_check.zip(until).filter(|_| wanted) {
            Some((settings, until)) => {
                Some(repo_check::check(settings, &plan, passwords, until, stop)?)
            }
            None => None,
        };
        Some(PlanReport { plan, verdict, findings })
    }
}

/// What can be said when nothing is known: so of each plan that was named, else of all.
pub fn unknown(question: &PlanQuery, why: &str) -> Vec<PlanReport> {
    let nothing_about = |id: &str, name: Option<&str>| PlanReport {
        plan: Plan { id: id.into(), name: name.map(str::to_owned), ..Plan::default() },
        verdict: Verdict::unknown(why),
        findings: None,
    };
    let named = question.named.keys().map(|id| nothing_about(id, None));
    let all = question.everything.then(|| nothing_about(ALL_PLANS, Some("of all plans")));
    named.chain(all).collect()
}

/// What is to be reported of several plans. When somebody complained about no plan in particular,
/// those that are well are left out, unless all are: then that is the news. A plan that somebody
/// switched off is never the news, unless its last run went wrong.
pub fn worth_telling(mut examined: Vec<PlanReport>, question: &PlanQuery) -> Vec<PlanReport> {
    let named = |one: &PlanReport| question.named.contains_key(&one.plan.id);
    examined.retain(|one| named(one) || !rests(&one.plan));
    if examined.is_empty() {
        return unknown(question, NO_PLAN);
    }
    let told = |one: &PlanReport| named(one) || one.verdict.outcome != Outcome::Success;
    if examined.iter().any(told) {
        examined.retain(told);
    }
    examined
}

/// Whether a plan is switched off, and nothing went wrong when it last ran.
fn rests(plan: &Plan) -> bool {
    let well =
        |module: &Module| matches!(module.state, ModuleState::Success | ModuleState::Missing);
    plan.enabled == Some(false) && plan.modules.iter().all(well)
}

/// The rows of these plans; nobody misses one that rests. What was said of all plans together goes when plans are known again.
pub fn rows(examined: &[PlanReport], now: Wall) -> Vec<Write> {
    let mut rows: Vec<Write> = examined
        .iter()
        .filter(|one| !rests(&one.plan))
        .map(|one| Write::put(Table::Plans, one.plan.id.clone(), &view(one, now)))
        .collect();
    if examined.iter().any(|one| !one.plan.modules.is_empty())
        && examined.iter().all(|one| one.plan.id != ALL_PLANS)
    {
        rows.push(Write::remove(Table::Plans, ALL_PLANS));
    }
    rows
}

fn view(one: &PlanReport, now: Wall) -> PlanView {
    let PlanReport { plan, verdict, findings } = one;
    let findings = findings.as_deref();
    let report = ReportBuilder { plan, verdict, findings, alerts: &[], now };
    PlanView {
        plan: plan.id.clone(),
        name: plan.name.clone(),
        outcome: verdict.outcome.name().to_owned(),
        level: verdict.outcome.level(),
        at: now,
        why: verdict.why.clone(),
        headline: report.title(),
        modules: plan.modules.iter().map(module).collect(),
        repositories: findings
            .into_iter()
            .flatten()
            .map(|finding| RepositoryView {
                module: finding.module.clone(),
                text: condition(&finding.condition, now),
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

    fn examined(id: &str, outcome: Outcome) -> PlanReport {
        let plan = Plan { id: id.into(), ..Plan::default() };
        PlanReport { plan, verdict: Verdict { outcome, why: String::new() }, findings: None }
    }

    fn told(outcomes: &[Outcome], question: &PlanQuery) -> String {
        let examined: Vec<_> = outcomes
            .iter()
            .enumerate()
            .map(|(index, outcome)| examined(&index.to_string(), *outcome))
            .collect();
        let worth = worth_telling(examined, question);
        worth.iter().map(|one| one.plan.id.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_well_is_left_out_where_nobody_named_it() {
        let mixed = [Outcome::Success, Outcome::Failed, Outcome::Success];
        assert_eq!(told(&mixed, &PlanQuery::about_everything()), "1");
        assert_eq!(told(&mixed, &PlanQuery::about("2")), "1 2");
        assert_eq!(told(&[Outcome::Success; 2], &PlanQuery::about_everything()), "0 1");
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
            PlanReport { verdict: Verdict::of(&plan), plan, findings: None }
        };
        let told = |off: PlanReport, question: &PlanQuery| {
            let examined = vec![off, examined("on", Outcome::Success)];
            let worth = worth_telling(examined, question).into_iter();
            worth.map(|one| one.plan.id).collect::<Vec<_>>().join(" ")
        };
        let all = PlanQuery::about_everything();
        assert_eq!(told(off(ModuleState::Success), &all), "on");
        assert_eq!(told(off(ModuleState::Missing), &all), "on");
        assert_eq!(told(off(ModuleState::Failed), &all), "off");
        assert_eq!(told(off(ModuleState::Success), &PlanQuery::about("off")), "off");
        let alone = worth_telling(vec![off(ModuleState::Success)], &all);
        assert_eq!(alone[0].verdict, Verdict::unknown(NO_PLAN), "whoever complained is answered");
    }

    #[test]
    fn without_redis_every_question_still_has_an_answer() {
        let mut question = PlanQuery::about("7");
        question.everything = true;
        let titles: Vec<_> = unknown(&question, "x")
            .iter()
            .map(|one| one.event(&[], Wall(0)).message(crate::event::EventId(1)).title)
            .collect();
        assert_eq!(titles, ["backup 7 UNKNOWN: x", "backup of all plans UNKNOWN: x"]);
    }

    const NOW: Wall = Wall(1_795_291_928_000);

    fn kept(id: &str, modules: Vec<Module>) -> PlanReport {
        let plan = Plan { id: id.into(), enabled: Some(true), modules, ..Plan::default() };
        let verdict = Verdict::of(&plan);
        PlanReport { plan, verdict, findings: None }
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
        let rows = rows(&[kept("4", vec![failed()])], NOW);
        assert_eq!((rows.len(), rows[0].key.as_str()), (2, "4"));
        let kept: PlanView = serde_json::from_slice(rows[0].value.as_deref().unwrap()).unwrap();
        assert_eq!(kept.outcome, "FAILED");
        assert_eq!(kept.headline, "backup 4 FAILED: 1 of 1 module failed");
        assert_eq!((kept.at, kept.modules[0].errors), (NOW, Some(2)));
    }

    #[test]
    fn what_was_said_of_all_plans_ends_when_plans_are_known_again() {
        let removed = |rows: Vec<Write>| rows.iter().any(|row| row.value.is_none());
        assert!(removed(rows(&[kept("4", vec![failed()])], NOW)));
        assert!(!removed(rows(&[kept("4", Vec::new())], NOW)));
        assert!(!removed(rows(&[kept(ALL_PLANS, Vec::new())], NOW)));
    }
}
