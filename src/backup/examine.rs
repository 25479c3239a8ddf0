//! From a question to what can be told about each plan: Redis first, then the repositories.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::alert::Alert;
use super::correlator::{self, Answer};
use super::plan::Plan;
use super::question::Question;
use super::repo_check::{self, Finding};
use super::report::{ALL_PLANS, Report};
use super::settings::{Correlator, RepoCheck};
use super::verdict::{Outcome, Verdict};
use crate::clock::Wall;
use crate::event::Event;
use crate::secret::Secret;
use crate::stop::Stop;

/// A plan and all that was found out about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// The plan and its modules.
    pub plan: Plan,
    /// How it fared.
    pub verdict: Verdict,
    /// What the repositories said; none when they were not asked.
    pub findings: Option<Vec<Finding>>,
}

impl Examined {
    /// The event for people, with the alerts that complained.
    pub fn event(&self, alerts: &[&Alert], now: Wall) -> Event {
        let findings = self.findings.as_deref();
        Report { plan: &self.plan, verdict: &self.verdict, findings, alerts, now }.event()
    }
}

/// How one asks.
#[derive(Clone, Copy, Debug)]
pub struct Examiner<'a> {
    /// Where the truth is.
    pub correlator: &'a Correlator,
    /// How repositories are asked; none means not at all.
    pub repo_check: Option<&'a RepoCheck>,
    /// Whether modules that are running are waited for.
    pub patient: bool,
}

impl Examiner<'_> {
    /// Examines the plans in question, at least one. What could not be found out is part of the
    /// answer. None when it was told to stop meanwhile.
    pub fn examine(&self, question: &Question, stop: &Stop) -> Option<Vec<Examined>> {
        let answer = if self.patient {
            correlator::correlate(self.correlator, question, stop)?
        } else {
            correlator::look(self.correlator, question)
        };
        let Answer { plans, passwords } = match answer {
            Ok(answer) if answer.plans.is_empty() => {
                return Some(unknown(question, "Redis knows no plan that is switched on"));
            }
            Ok(answer) => answer,
            Err(why) => return Some(unknown(question, &why)),
        };
        // One for all plans: however many of them restic hangs over, people are told in time.
        let until = self.repo_check.map(repo_check::deadline);
        let examine = |plan| self.with_repositories(plan, &passwords, until, stop);
        plans.into_iter().map(examine).collect()
    }

    fn with_repositories(
        &self,
        plan: Plan,
        passwords: &BTreeMap<String, Secret>,
        until: Option<Instant>,
        stop: &Stop,
    ) -> Option<Examined> {
        let verdict = Verdict::of(&plan);
        let wanted = verdict.outcome != Outcome::Success && !plan.modules.is_empty();
        let findings = match self.repo_check.zip(until).filter(|_| wanted) {
            Some((settings, until)) => {
                Some(repo_check::check(settings, &plan, passwords, until, stop)?)
            }
            None => None,
        };
        Some(Examined { plan, verdict, findings })
    }
}

/// What can be said when nothing is known: so of each plan that was named, else of all.
pub fn unknown(question: &Question, why: &str) -> Vec<Examined> {
    let nothing_about = |id: &str, name: Option<&str>| Examined {
        plan: Plan { id: id.into(), name: name.map(str::to_owned), ..Plan::default() },
        verdict: Verdict::unknown(why),
        findings: None,
    };
    let named = question.named.keys().map(|id| nothing_about(id, None));
    let all = question.everything.then(|| nothing_about(ALL_PLANS, Some("of all plans")));
    named.chain(all).collect()
}

/// What is to be reported of several plans. When somebody complained about no plan in particular,
/// those that are well are left out, unless all are: then that is the news.
pub fn worth_telling<'a>(examined: &'a [Examined], question: &Question) -> Vec<&'a Examined> {
    let told = |one: &&Examined| {
        question.named.contains_key(&one.plan.id) || one.verdict.outcome != Outcome::Success
    };
    let worth: Vec<_> = examined.iter().filter(told).collect();
    if worth.is_empty() { examined.iter().collect() } else { worth }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(id: &str, outcome: Outcome) -> Examined {
        let plan = Plan { id: id.into(), ..Plan::default() };
        Examined { plan, verdict: Verdict { outcome, why: String::new() }, findings: None }
    }

    fn told(outcomes: &[Outcome], question: &Question) -> String {
        let examined: Vec<_> = outcomes
            .iter()
            .enumerate()
            .map(|(index, outcome)| examined(&index.to_string(), *outcome))
            .collect();
        let worth = worth_telling(&examined, question);
        worth.iter().map(|one| one.plan.id.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_well_is_left_out_where_nobody_named_it() {
        let mixed = [Outcome::Success, Outcome::Failed, Outcome::Success];
        assert_eq!(told(&mixed, &Question::about_everything()), "1");
        assert_eq!(told(&mixed, &Question::about("2")), "1 2");
        assert_eq!(told(&[Outcome::Success; 2], &Question::about_everything()), "0 1");
    }

    #[test]
    fn without_redis_every_question_still_has_an_answer() {
        let mut question = Question::about("7");
        question.everything = true;
        let titles: Vec<_> = unknown(&question, "x")
            .iter()
            .map(|one| one.event(&[], Wall(0)).message(crate::event::EventId(1)).title)
            .collect();
        assert_eq!(titles, ["backup 7 UNKNOWN: x", "backup of all plans UNKNOWN: x"]);
    }
}
