//! The outcome of a plan, from the states of its modules. Pure.

use serde::Serialize;

use super::plan::{ModuleState, Plan};
use crate::event::Level;

/// The outcome of a plan; shown in capitals: `PARTIAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// Every module succeeded.
    Success,
    /// Some modules succeeded or are awaited, others failed or are missing.
    Partial,
    /// At least one module failed, and none succeeded or is awaited.
    Failed,
    /// At least one module has no recent run, none succeeded, failed or is awaited.
    Missing,
    /// Some modules are still running or have yet to run, and no other is worse than a success.
    Running,
    /// Redis could not be read, or not for all modules, and no module is known to have failed.
    Unknown,
}

impl Outcome {
    /// All of them, so that every counter is exported from the start.
    pub const ALL: [Outcome; 6] = [
        Outcome::Success,
        Outcome::Partial,
        Outcome::Failed,
        Outcome::Missing,
        Outcome::Running,
        Outcome::Unknown,
    ];

    /// `SUCCESS`, `PARTIAL` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Success => "SUCCESS",
            Outcome::Partial => "PARTIAL",
            Outcome::Failed => "FAILED",
            Outcome::Missing => "MISSING",
            Outcome::Running => "RUNNING",
            Outcome::Unknown => "UNKNOWN",
        }
    }

    /// The level of an event with this outcome.
    pub fn level(self) -> Level {
        match self {
            Outcome::Success => Level::Ok,
            Outcome::Running => Level::Warning,
            Outcome::Partial | Outcome::Failed | Outcome::Missing | Outcome::Unknown => {
                Level::Critical
            }
        }
    }
}

/// The outcome of a plan and its reason: `2 of 5 modules failed, 1 missing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanOutcome {
    /// The outcome.
    pub outcome: Outcome,
    /// Half a sentence for the title.
    pub why: String,
}

impl PlanOutcome {
    /// The outcome where nothing could be read.
    pub fn unknown(why: impl Into<String>) -> PlanOutcome {
        PlanOutcome { outcome: Outcome::Unknown, why: why.into() }
    }

    /// The outcome of a plan.
    pub fn of(plan: &Plan) -> PlanOutcome {
        if let Some(why) = &plan.why {
            return PlanOutcome::unknown(why);
        }
        let count = |state| plan.due_modules().filter(|module| module.state == state).count();
        let counts = StateCounts {
            success: count(ModuleState::Success),
            failed: count(ModuleState::Failed),
            missing: count(ModuleState::Missing),
            running: count(ModuleState::Running),
            pending: count(ModuleState::Pending),
            unreadable: count(ModuleState::Unreadable),
            not_due: plan.not_due.len(),
        };
        match plan.enabled {
            None if counts.total() == 0 => PlanOutcome::unknown("Redis knows nothing of this plan"),
            Some(_) if counts.total() == 0 => PlanOutcome::unknown("the plan has no modules"),
            Some(false) => counts.switched_off(),
            Some(true) | None => PlanOutcome { outcome: counts.outcome(), why: counts.describe() },
        }
    }

    /// The same with the sentence `connection_lost`, where that left the state of a module unknown.
    #[must_use]
    pub fn with_connection_lost(self, plan: &Plan, connection_lost: Option<&str>) -> PlanOutcome {
        let open = plan.modules.iter().any(|module| module.state == ModuleState::Unreadable);
        match connection_lost.filter(|_| open) {
            Some(connection_lost) => {
                PlanOutcome { why: format!("{}; {connection_lost}", self.why), ..self }
            }
            None => self,
        }
    }
}

struct StateCounts {
    success: usize,
    failed: usize,
    missing: usize,
    running: usize,
    pending: usize,
    unreadable: usize,
    /// Not counted among the others.
    not_due: usize,
}

impl StateCounts {
    fn total(&self) -> usize {
        let open = self.running + self.pending;
        self.success + self.failed + self.missing + open + self.unreadable
    }

    /// The last runs of a plan that is switched off cannot make it a success: no run follows them.
    fn switched_off(&self) -> PlanOutcome {
        let text = self.describe();
        match self.outcome() {
            Outcome::Success => PlanOutcome {
                outcome: Outcome::Missing,
                why: format!("the plan is switched off; when it last ran, {text}"),
            },
            outcome => PlanOutcome { outcome, why: format!("the plan is switched off; {text}") },
        }
    }

    /// A failed or missing module outweighs an unreadable one, and that outweighs what is good so
    /// far.
    fn outcome(&self) -> Outcome {
        let any_good = self.success + self.running + self.pending > 0;
        match self {
            StateCounts { failed: 1.., .. } if !any_good => Outcome::Failed,
            StateCounts { missing: 1.., .. } if !any_good => Outcome::Missing,
            StateCounts { failed: 1.., .. } | StateCounts { missing: 1.., .. } => Outcome::Partial,
            StateCounts { unreadable: 1.., .. } => Outcome::Unknown,
            StateCounts { running: 1.., .. } | StateCounts { pending: 1.., .. } => Outcome::Running,
            StateCounts { .. } => Outcome::Success,
        }
    }

    /// The worst first: `1 of 3 modules failed, 1 missing`.
    fn describe(&self) -> String {
        let parts: Vec<(usize, &str, &str)> = [
            (self.failed, "failed", "failed"),
            (self.missing, "missing", "without a recent run"),
            (self.unreadable, "unreadable", "whose status cannot be judged"),
            (self.running, "running", "still running"),
            (self.pending, "not yet run", "not yet run"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .collect();
        let total = self.total();
        let modules = if total == 1 { "module" } else { "modules" };
        let mut text = match parts.first() {
            None if total == 1 => "its module succeeded".into(),
            None => format!("all {total} {modules} succeeded"),
            Some((count, _, first)) => format!("{count} of {total} {modules} {first}"),
        };
        for (count, short, _) in parts.iter().skip(1) {
            text.push_str(&format!(", {count} {short}"));
        }
        if self.not_due > 0 {
            text.push_str(&format!(", {} not yet due", self.not_due));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Module;
    use super::*;

    fn plan(states: &str) -> Plan {
        let state = |letter| match letter {
            's' => ModuleState::Success,
            'f' => ModuleState::Failed,
            'm' => ModuleState::Missing,
            'r' => ModuleState::Running,
            'p' => ModuleState::Pending,
            _ => ModuleState::Unreadable,
        };
        let module =
            |letter| Module { id: "mail1".into(), state: state(letter), ..Module::default() };
        Plan {
            enabled: Some(true),
            modules: states.chars().map(module).collect(),
            ..Plan::default()
        }
    }

    #[test]
    fn that_redis_went_away_stands_in_the_title_of_what_it_left_open() {
        let title = |states| {
            let plan = plan(states);
            let plan_outcome =
                PlanOutcome::of(&plan).with_connection_lost(&plan, Some("Redis went away"));
            format!("{}: {}", plan_outcome.outcome.name(), plan_outcome.why)
        };
        let open = "UNKNOWN: 1 of 2 modules whose status cannot be judged; Redis went away";
        assert_eq!(title("su"), open);
        assert_eq!(title("fu"), "FAILED: 1 of 2 modules failed, 1 unreadable; Redis went away");
        assert_eq!(title("sf"), "PARTIAL: 1 of 2 modules failed");
    }

    #[test]
    fn the_states_of_the_modules_make_the_outcome() {
        for (states, outcome, why) in [
            ("s", "SUCCESS", "its module succeeded"),
            ("sss", "SUCCESS", "all 3 modules succeeded"),
            ("fss", "PARTIAL", "1 of 3 modules failed"),
            ("sfmur", "PARTIAL", "1 of 5 modules failed, 1 missing, 1 unreadable, 1 running"),
            ("fr", "PARTIAL", "1 of 2 modules failed, 1 running"),
            ("ff", "FAILED", "2 of 2 modules failed"),
            ("fm", "FAILED", "1 of 2 modules failed, 1 missing"),
            ("fu", "FAILED", "1 of 2 modules failed, 1 unreadable"),
            ("m", "MISSING", "1 of 1 module without a recent run"),
            ("mu", "MISSING", "1 of 2 modules without a recent run, 1 unreadable"),
            ("ms", "PARTIAL", "1 of 2 modules without a recent run"),
            ("su", "UNKNOWN", "1 of 2 modules whose status cannot be judged"),
            ("uu", "UNKNOWN", "2 of 2 modules whose status cannot be judged"),
            ("rs", "RUNNING", "1 of 2 modules still running"),
            ("fppp", "PARTIAL", "1 of 4 modules failed, 3 not yet run"),
            ("fssp", "PARTIAL", "1 of 4 modules failed, 1 not yet run"),
            ("mp", "PARTIAL", "1 of 2 modules without a recent run, 1 not yet run"),
            ("up", "UNKNOWN", "1 of 2 modules whose status cannot be judged, 1 not yet run"),
            ("pp", "RUNNING", "2 of 2 modules not yet run"),
            ("spr", "RUNNING", "1 of 3 modules still running, 1 not yet run"),
            ("", "UNKNOWN", "the plan has no modules"),
        ] {
            let plan_outcome = PlanOutcome::of(&plan(states));
            assert_eq!(
                (plan_outcome.outcome.name(), plan_outcome.why.as_str()),
                (outcome, why),
                "{states}"
            );
        }
        let stranger = Plan::default();
        assert_eq!(PlanOutcome::of(&stranger).why, "Redis knows nothing of this plan");
    }

    #[test]
    fn a_module_that_is_not_due_yet_says_nothing_about_its_plan() {
        for (states, said) in [
            ("sp", "SUCCESS: its module succeeded, 1 not yet due"),
            ("ssp", "SUCCESS: all 2 modules succeeded, 1 not yet due"),
            ("fp", "FAILED: 1 of 1 module failed, 1 not yet due"),
            ("fsp", "PARTIAL: 1 of 2 modules failed, 1 not yet due"),
        ] {
            let mut plan = plan(states);
            let new = plan.modules.last_mut().unwrap();
            new.id = "new9".into();
            plan.not_due.insert("new9".into());
            let PlanOutcome { outcome, why } = PlanOutcome::of(&plan);
            assert_eq!(format!("{}: {why}", outcome.name()), said);
        }
    }

    #[test]
    fn a_plan_that_is_switched_off_is_never_a_success() {
        for (states, outcome, why) in [
            (
                "ss",
                "MISSING",
                "the plan is switched off; when it last ran, all 2 modules succeeded",
            ),
            ("m", "MISSING", "the plan is switched off; 1 of 1 module without a recent run"),
            ("f", "FAILED", "the plan is switched off; 1 of 1 module failed"),
        ] {
            let plan_outcome = PlanOutcome::of(&Plan { enabled: Some(false), ..plan(states) });
            assert_eq!(
                (plan_outcome.outcome.name(), plan_outcome.why.as_str()),
                (outcome, why),
                "{states}"
            );
        }
    }

    #[test]
    fn only_success_is_ok() {
        let ok: Vec<_> =
            Outcome::ALL.into_iter().filter(|outcome| outcome.level() == Level::Ok).collect();
        assert_eq!(ok, [Outcome::Success]);
    }
}
