//! How each plan fared when it was last looked into, as it is kept and shown. Pure.

use super::examine::{Examined, rests};
use super::plan::{Module, Run};
use super::report::{ALL_PLANS, Report, condition};
use crate::clock::Wall;
use crate::store::{Table, Write};
use crate::view::{ModuleView, PlanView, RepositoryView};

/// The rows of these plans; nobody misses one that rests. What was said of all plans together goes when plans are known again.
pub fn rows(examined: &[Examined], now: Wall) -> Vec<Write> {
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

fn view(one: &Examined, now: Wall) -> PlanView {
    let Examined { plan, verdict, findings } = one;
    let findings = findings.as_deref();
    let report = Report { plan, verdict, findings, alerts: &[], now };
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
    let none = Run::default();
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
    use super::super::plan::{ModuleState, Plan};
    use super::super::verdict::Verdict;
    use super::*;

    const NOW: Wall = Wall(1_795_291_928_000);

    fn examined(id: &str, modules: Vec<Module>) -> Examined {
        let plan = Plan { id: id.into(), enabled: Some(true), modules, ..Plan::default() };
        let verdict = Verdict::of(&plan);
        Examined { plan, verdict, findings: None }
    }

    fn failed() -> Module {
        Module {
            id: "mail1".into(),
            ui_name: None,
            uuid: None,
            node: None,
            state: ModuleState::Failed,
            why: None,
            run: Some(Run { errors: Some(2), end: Some(NOW), ..Run::default() }),
        }
    }

    #[test]
    fn a_plan_is_kept_as_it_was_told_and_read_as_it_was_kept() {
        let rows = rows(&[examined("4", vec![failed()])], NOW);
        assert_eq!((rows.len(), rows[0].key.as_str()), (2, "4"));
        let kept: PlanView = serde_json::from_slice(rows[0].value.as_deref().unwrap()).unwrap();
        assert_eq!(kept.outcome, "FAILED");
        assert_eq!(kept.headline, "backup 4 FAILED: 1 of 1 module failed");
        assert_eq!((kept.at, kept.modules[0].errors), (NOW, Some(2)));
    }

    #[test]
    fn what_was_said_of_all_plans_ends_when_plans_are_known_again() {
        let removed = |rows: Vec<Write>| rows.iter().any(|row| row.value.is_none());
        assert!(removed(rows(&[examined("4", vec![failed()])], NOW)));
        assert!(!removed(rows(&[examined("4", Vec::new())], NOW)));
        assert!(!removed(rows(&[examined(ALL_PLANS, Vec::new())], NOW)));
    }
}
