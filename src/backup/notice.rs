//! What is told of a backup plan besides reports: that its trouble goes on unchanged, and that it is
//! over. Pure.

use super::analysis::PlanReport;
use super::plan_tracker::EndReason;
use super::report::ALL_PLANS;
use super::schedule::Zone;
use crate::clock::Wall;
use crate::event::{BackupNotice, Event, EventKind, Level};
use crate::view::ToldView;

/// That a trouble goes on, at its level. Repositories are not asked for it.
pub fn reminder(report: &PlanReport, told: &ToldView, now: Wall) -> Event {
    let PlanReport { plan, plan_outcome, .. } = report;
    let name = plan.name.as_ref().unwrap_or(&plan.id);
    let title = format!(
        "backup {name} still {}, unchanged since {}: {}",
        plan_outcome.outcome.name(),
        plan.zone.format_minute(told.since),
        plan_outcome.why
    );
    let mut event = report.event(&[], now);
    if let EventKind::Backup { notice, title: plain, .. } = &mut event.kind {
        (*notice, *plain) = (BackupNotice::Reminder, title);
    }
    event
}

/// That a plan is well again.
pub fn recovery(report: &PlanReport, told: &ToldView, now: Wall) -> Event {
    let mut event = report.event(&[], now);
    if let EventKind::Backup { notice, details, .. } = &mut event.kind {
        *notice = BackupNotice::End;
        details.insert(0, had_been(told, &report.plan.zone));
    }
    event
}

/// That a trouble is over without a success.
#[derive(Clone, Copy, Debug)]
pub struct EndNotice<'a> {
    /// The id of the plan.
    pub plan: &'a str,
    /// Its name, where it is known.
    pub name: Option<&'a str>,
    /// What was told.
    pub told: &'a ToldView,
    /// Why it is over.
    pub reason: EndReason,
    /// In which people read its times.
    pub zone: &'a Zone,
}

impl EndNotice<'_> {
    /// For those who were told of the trouble.
    pub fn event(&self, now: Wall) -> Event {
        let why = match self.reason {
            EndReason::Gone | EndReason::NeverExisted if self.plan == ALL_PLANS => {
                "Redis knows no plan that is switched on"
            }
            EndReason::Gone => "the plan no longer exists",
            EndReason::NeverExisted => "there is no such plan",
            EndReason::SwitchedOff => "the plan was switched off",
            EndReason::NoModules => "the plan has no modules",
            EndReason::RedisAnswers => "what Redis says of them can be read",
            EndReason::Forgotten => "no longer told, on an operator's word",
        };
        let id = if self.plan == ALL_PLANS { "of all plans" } else { self.plan };
        let kind = EventKind::Backup {
            plan: self.plan.to_owned(),
            notice: BackupNotice::End,
            level: Level::Ok,
            title: format!("backup {}: {why}", self.name.unwrap_or(id)),
            details: vec![had_been(self.told, self.zone)],
            table: None,
        };
        Event::new(now, kind)
    }
}

fn had_been(told: &ToldView, zone: &Zone) -> (String, String) {
    ("was".to_owned(), format!("{} since {}", told.outcome, zone.format_minute(told.since)))
}

#[cfg(test)]
mod tests {
    use super::super::outcome::PlanOutcome;
    use super::super::plan::{Module, ModuleState, Plan};
    use super::*;
    use crate::event::EventId;

    const NOW: Wall = Wall(1_795_291_928_000);

    fn report(state: ModuleState) -> PlanReport {
        let module = Module { id: "mail1".into(), state, ..Module::default() };
        let plan = Plan {
            id: "7".into(),
            name: Some("Nightly".into()),
            enabled: Some(true),
            modules: vec![module],
            ..Plan::default()
        };
        PlanReport { plan_outcome: PlanOutcome::of(&plan), plan, repositories: None }
    }

    fn told() -> ToldView {
        ToldView {
            outcome: "FAILED".into(),
            open: true,
            since: NOW - std::time::Duration::from_secs(86_400),
            at: NOW,
            switched_off: false,
            modules: Vec::new(),
        }
    }

    fn words(event: &Event) -> String {
        let message = event.message(EventId(1));
        let details = message.details.iter().map(|(label, text)| format!("{label}: {text}"));
        format!("{} {} / {}", event.level, message.title, details.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_reminder_says_since_when_nothing_changed() {
        let event = reminder(&report(ModuleState::Failed), &told(), NOW);
        let said = words(&event);
        let start = "CRITICAL backup Nightly still FAILED, unchanged since 2026-11-";
        assert!(
            said.starts_with(start) && said.contains(": 1 of 1 module failed / failed: mail1"),
            "{said}"
        );
        assert!(event.kind.describe().is_reminder);
    }

    #[test]
    fn the_end_says_what_is_over() {
        let said = words(&recovery(&report(ModuleState::Success), &told(), NOW));
        let start = "OK backup Nightly SUCCESS: its module succeeded / was: FAILED since 2026-11-";
        assert!(said.starts_with(start), "{said}");
        for (plan, name, reason, title) in [
            ("7", Some("Nightly"), EndReason::Gone, "backup Nightly: the plan no longer exists"),
            ("9", None, EndReason::NeverExisted, "backup 9: there is no such plan"),
            ("7", None, EndReason::SwitchedOff, "backup 7: the plan was switched off"),
            (
                "all",
                Some("of all plans"),
                EndReason::RedisAnswers,
                "backup of all plans: what Redis says of them can be read",
            ),
            ("7", Some("Nightly"), EndReason::NoModules, "backup Nightly: the plan has no modules"),
        ] {
            let (told, zone) = (&told(), &Zone::default());
            let event = EndNotice { plan, name, told, reason, zone }.event(NOW);
            assert_eq!(event.message(EventId(1)).title, title);
            assert!(!event.kind.describe().ok_is_news && event.level == Level::Ok);
        }
    }
}
