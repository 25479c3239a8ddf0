//! What was last told about each backup plan, and what a new look at it is worth: a report when
//! something changed, a reminder when nothing did for long, the end when it is over. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::outcome::{Outcome, PlanOutcome};
use super::plan::{ModuleState, Plan};
use crate::btree::InsertAll;
use crate::clock::Wall;
use crate::view::{PlanView, ToldModuleView, ToldView};

/// A time of the store that is further ahead comes from a clock that was wrong.
const MAX_CLOCK_STEP: Duration = Duration::from_secs(3600);

/// Why a plan is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookCause {
    /// An alert about it, which was not seen before: it is owed an answer.
    Alert,
    /// None, or one that was reported before: its trouble is open, its run should be over, or its
    /// alert was repeated or has ended.
    Recheck,
}

/// When the end of a trouble, and a success that ended none, are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SuccessPolicy {
    /// Each backup that succeeded.
    Always,
    /// The success that ends a trouble, to those who were told of that.
    #[default]
    Recovery,
    /// None; a success that an alert asks about is told all the same.
    Never,
}

/// How often a trouble is told, and which successes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TellingPolicy {
    /// An unchanged trouble is told again after this time; none: never.
    pub renotify: Option<Duration>,
    /// Which successes are told.
    pub success: SuccessPolicy,
}

/// The circumstances of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookContext {
    /// Why the plan is looked at.
    pub cause: LookCause,
    /// How it is told.
    pub policy: TellingPolicy,
    /// When.
    pub now: Wall,
}

impl LookContext {
    /// Whether an alert is owed an answer.
    fn is_asked(self) -> bool {
        self.cause == LookCause::Alert
    }
}

/// What Redis says about a plan as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Present,
    /// It is there and switched off.
    SwitchedOff,
    /// It is there and has no modules.
    Empty,
    /// It is not there: Redis was read completely.
    Gone,
    /// That could not be read.
    Unread,
}

/// What a look at a plan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The outcome.
    pub outcome: Outcome,
    /// Whether the plan is there.
    pub presence: Presence,
    /// Whether no module's run of this pass is awaited any more.
    pub pass_over: bool,
    /// The modules.
    pub modules: Vec<ToldModuleView>,
}

impl Finding {
    /// What was read of a plan; `complete`: all that Redis has of it.
    pub fn of(plan: &Plan, plan_outcome: &PlanOutcome, complete: bool) -> Finding {
        let presence = match plan.enabled {
            // The statuses of one that was deleted may be left.
            None if complete && plan.why.is_none() => Presence::Gone,
            _ if plan.modules.is_empty() && !(complete && plan.why.is_none()) => Presence::Unread,
            Some(_) if plan.modules.is_empty() => Presence::Empty,
            Some(false) => Presence::SwitchedOff,
            Some(true) | None => Presence::Present,
        };
        let module = |module: &super::plan::Module| ToldModuleView {
            name: module.id.clone(),
            state: module.state.name().to_owned(),
            end: module.run.as_ref().and_then(|run| run.end),
        };
        Finding {
            outcome: plan_outcome.outcome,
            presence,
            pass_over: !plan.due_modules().any(|module| module.state.is_open()),
            modules: plan.due_modules().map(module).collect(),
        }
    }

    fn any_bad(&self) -> bool {
        self.modules.iter().any(is_bad)
    }

    /// Whether it is sure and final enough to be told to those who did not ask.
    fn can_be_told_unasked(&self) -> bool {
        self.pass_over && !matches!(self.outcome, Outcome::Unknown | Outcome::Running)
    }
}

/// What a look at a plan is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanDecision {
    /// Nothing is told.
    Quiet,
    /// The plan is reported.
    Report,
    /// It is told that nothing has changed.
    Remind,
    /// The trouble is over: the plan is well.
    Recovered,
    /// The trouble is over for this reason.
    Ended(EndReason),
}

/// Why a trouble ends without a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The plan no longer exists.
    Gone,
    /// It was never there.
    NeverExisted,
    /// It has no modules.
    NoModules,
    /// It was switched off.
    SwitchedOff,
    /// Redis, which could not be asked about any plan, answers.
    RedisAnswers,
    /// An operator said so.
    Forgotten,
}

/// What was told about every plan.
///
/// ```text
///             Report (bad)                    Report (changed), Remind
///  nothing ------------------> open trouble <---------------------------+
///     ^                          |     |    ----------------------------+
///     |     Recovered, Ended     |     | Ended(Forgotten)
///     +--------------------------+     v
///     +------------ changed -------- forgotten: quiet while nothing changes
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanTracker {
    told: BTreeMap<String, ToldView>,
}

impl PlanTracker {
    /// What was told before the start: by the stored rows of the plans, and by the plans with an
    /// open incident, which may have no row.
    pub fn restore<'a>(
        rows: impl Iterator<Item = &'a PlanView>,
        open_incidents: &BTreeSet<String>,
        now: Wall,
    ) -> PlanTracker {
        let told = |row: &PlanView| told_by(row, open_incidents.contains(&row.plan));
        let rows = rows.filter_map(|row| Some((row.plan.clone(), told(row)?)));
        let mut told: BTreeMap<String, ToldView> = rows.insert_all();
        for plan in open_incidents {
            told.entry(plan.clone()).or_insert_with(|| ToldView {
                outcome: Outcome::Unknown.name().to_owned(),
                open: true,
                since: now,
                at: now,
                switched_off: false,
                modules: Vec::new(),
            });
        }
        PlanTracker { told }
    }

    /// What was last told about a plan.
    pub fn told(&self, plan: &str) -> Option<&ToldView> {
        self.told.get(plan)
    }

    /// Whether this was told of a plan since then as what needs nobody any more.
    pub fn was_told(&self, plan: &str, finding: &Finding, since: Wall) -> bool {
        let told = self.told.get(plan).filter(|told| !told.open && told.at >= since);
        told.is_some_and(|told| !differs(told, finding))
    }

    /// The plans with an open trouble.
    pub fn open_plans(&self) -> impl Iterator<Item = &str> {
        self.told.iter().filter(|(_, told)| told.open).map(|(plan, _)| plan.as_str())
    }

    /// What a look at a plan is worth.
    pub fn decide(&self, plan: &str, finding: &Finding, context: LookContext) -> PlanDecision {
        let told = self.told.get(plan);
        let asked = context.is_asked();
        if let Some(decision) = end_of_unknown_plan(told, finding, asked) {
            return decision;
        }
        match told.filter(|told| told.open) {
            Some(told) if finding.outcome == Outcome::Success => {
                let disproved = asked || missing_ones_ran(told, &finding.modules);
                if disproved { PlanDecision::Recovered } else { PlanDecision::Quiet }
            }
            Some(told) => compare(told, finding, context),
            None if asked => PlanDecision::Report,
            None if !finding.can_be_told_unasked() => PlanDecision::Quiet,
            None => {
                let is_told = finding.outcome != Outcome::Success
                    || context.policy.success == SuccessPolicy::Always;
                let changed = told.is_none_or(|told| differs(told, finding));
                if is_told && changed { PlanDecision::Report } else { PlanDecision::Quiet }
            }
        }
    }

    /// Takes in that this was decided, and is told.
    pub fn record(&mut self, plan: &str, finding: &Finding, decision: PlanDecision, now: Wall) {
        match decision {
            PlanDecision::Quiet => {}
            PlanDecision::Report | PlanDecision::Recovered => {
                self.told.insert(plan.to_owned(), told_of(finding, now));
            }
            PlanDecision::Remind => {
                if let Some(told) = self.told.get_mut(plan) {
                    told.at = now;
                }
            }
            PlanDecision::Ended(_) => self.end(plan),
        }
    }

    /// Ends the trouble of a plan, which is told anew should it come back.
    pub fn end(&mut self, plan: &str) {
        self.told.remove(plan);
    }

    /// Ends the trouble of a plan, which is told again only when it changes; false when it has none.
    pub fn forget(&mut self, plan: &str) -> bool {
        let told = self.told.get_mut(plan).filter(|told| told.open);
        told.map(|told| told.open = false).is_some()
    }
}

/// Whether this is a trouble that an operator ended.
pub fn is_forgotten(told: &ToldView) -> bool {
    !told.open && told.outcome != Outcome::Success.name()
}

/// What was told of a plan, by its row. That of an earlier version has a report and no more: it was
/// told where its incident is open.
fn told_by(row: &PlanView, is_open: bool) -> Option<ToldView> {
    let module = |module: &crate::view::ModuleView| ToldModuleView {
        name: module.name.clone(),
        state: module.state.clone(),
        end: module.end,
    };
    row.told.clone().or_else(|| {
        (is_open && row.outcome != Outcome::Success.name()).then(|| ToldView {
            outcome: row.outcome.clone(),
            open: true,
            since: row.at,
            at: row.at,
            switched_off: false,
            modules: row.modules.iter().map(module).collect(),
        })
    })
}

/// What is decided about a plan of which Redis has nothing to say, or no more.
fn end_of_unknown_plan(
    told: Option<&ToldView>,
    finding: &Finding,
    asked: bool,
) -> Option<PlanDecision> {
    if asked {
        return None;
    }
    let open = told.filter(|told| told.open);
    let ended = |why| Some(open.map_or(PlanDecision::Quiet, |_| PlanDecision::Ended(why)));
    match finding.presence {
        Presence::Present => None,
        // That it cannot be read is reminded of where that was told.
        Presence::Unread if open.is_some_and(|told| told.outcome == finding.outcome.name()) => None,
        Presence::Unread => Some(PlanDecision::Quiet),
        Presence::Empty => ended(EndReason::NoModules),
        Presence::Gone if open.is_some_and(is_about_nothing) => ended(EndReason::NeverExisted),
        Presence::Gone => ended(EndReason::Gone),
        Presence::SwitchedOff => match open {
            Some(told) if told.switched_off && finding.any_bad() => None,
            _ => ended(EndReason::SwitchedOff),
        },
    }
}

/// What is told when this finding is reported.
fn told_of(finding: &Finding, now: Wall) -> ToldView {
    ToldView {
        outcome: finding.outcome.name().to_owned(),
        open: finding.outcome != Outcome::Success,
        since: now,
        at: now,
        switched_off: finding.presence == Presence::SwitchedOff,
        modules: finding.modules.clone(),
    }
}

/// Whether nothing was known of the plan.
fn is_about_nothing(told: &ToldView) -> bool {
    told.outcome == Outcome::Unknown.name() && told.modules.is_empty()
}

/// What a look is worth that found an open trouble to go on.
fn compare(told: &ToldView, finding: &Finding, context: LookContext) -> PlanDecision {
    let LookContext { policy, now, .. } = context;
    let is_old = |after| told.at > now + MAX_CLOCK_STEP || now.since(told.at) >= after;
    let is_due = policy.renotify.is_some_and(is_old);
    match differs(told, finding) {
        true if context.is_asked() || finding.can_be_told_unasked() => PlanDecision::Report,
        // Not sure yet, but for so long that it should be known.
        true if is_due && finding.pass_over => PlanDecision::Report,
        true => PlanDecision::Quiet,
        false if is_due => PlanDecision::Remind,
        false => PlanDecision::Quiet,
    }
}

/// Whether a look found something else: another outcome, or other modules that are not well, or
/// another run of one of them. That a module which had not had its turn has succeeded is none, nor
/// that one which is well has run again. Of a success the runs are compared.
fn differs(told: &ToldView, finding: &Finding) -> bool {
    if told.outcome != finding.outcome.name() {
        return true;
    }
    let counts = |module: &&ToldModuleView| finding.outcome == Outcome::Success || is_bad(module);
    let then: BTreeSet<_> = told.modules.iter().filter(counts).collect();
    let now: BTreeSet<_> = finding.modules.iter().filter(counts).collect();
    then != now
}

/// Whether each module that was told as missing has run since, or is no longer there. Without the
/// alert that asked, an older run may be enough for a success.
fn missing_ones_ran(told: &ToldView, now: &[ToldModuleView]) -> bool {
    let mut missing =
        told.modules.iter().filter(|module| module.state == ModuleState::Missing.name());
    let same = |then: &ToldModuleView| {
        now.iter().any(|module| module.name == then.name && module.end == then.end)
    };
    !missing.any(same)
}

/// Whether a module needs somebody: it neither succeeded nor is awaited.
fn is_bad(module: &ToldModuleView) -> bool {
    let bad = [ModuleState::Failed, ModuleState::Missing, ModuleState::Unreadable];
    bad.iter().any(|state| state.name() == module.state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plan::Module;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NIGHT: Wall = Wall(1_795_291_200_000);

    const POLICY: TellingPolicy =
        TellingPolicy { renotify: Some(DAY), success: SuccessPolicy::Recovery };

    /// A module for each word: `f1` failed and ended in the first hour, `m` missing, `s` success,
    /// `p` awaited, `u` unreadable.
    fn modules(words: &str) -> Vec<ToldModuleView> {
        let module = |(index, word): (usize, &str)| {
            let (state, hour) = word.split_at(1);
            let state = match state {
                "s" => "success",
                "f" => "failed",
                "m" => "missing",
                "u" => "unreadable",
                _ => "running",
            };
            let end = hour.parse::<u32>().ok().map(|hour| NIGHT + HOUR * hour);
            ToldModuleView { name: format!("mail{index}"), state: state.into(), end }
        };
        words.split_whitespace().enumerate().map(module).collect()
    }

    fn finding(words: &str) -> Finding {
        let modules = modules(words);
        let count = |state: &str| modules.iter().filter(|module| module.state == state).count();
        let (good, failed) = (count("success") + count("running"), count("failed"));
        let outcome = match (failed, count("missing"), count("unreadable"), count("running")) {
            _ if modules.is_empty() => Outcome::Unknown,
            (0, 0, 0, 0) => Outcome::Success,
            (0, 0, 0, _) => Outcome::Running,
            (0, 0, _, _) => Outcome::Unknown,
            (0, _, _, _) if good == 0 => Outcome::Missing,
            _ if good == 0 => Outcome::Failed,
            _ => Outcome::Partial,
        };
        let presence = if modules.is_empty() { Presence::Gone } else { Presence::Present };
        Finding { outcome, presence, pass_over: count("running") == 0, modules }
    }

    /// A tracker and a clock that is moved by hand.
    struct Play {
        tracker: PlanTracker,
        policy: TellingPolicy,
        now: Wall,
    }

    impl Play {
        fn new() -> Play {
            Play { tracker: PlanTracker::default(), policy: POLICY, now: NIGHT }
        }

        fn after(&mut self, time: Duration) -> &mut Play {
            self.now = self.now + time;
            self
        }

        fn look(&mut self, cause: LookCause, finding: &Finding) -> PlanDecision {
            let context = LookContext { cause, policy: self.policy, now: self.now };
            let decision = self.tracker.decide("7", finding, context);
            self.tracker.record("7", finding, decision, self.now);
            decision
        }

        fn is_open(&self) -> bool {
            self.tracker.open_plans().next().is_some()
        }

        fn alert(&mut self, words: &str) -> PlanDecision {
            self.look(LookCause::Alert, &finding(words))
        }

        fn recheck(&mut self, words: &str) -> PlanDecision {
            self.look(LookCause::Recheck, &finding(words))
        }
    }

    #[test]
    fn one_failing_night_was_24_critical_reports_a_day() {
        let mut play = Play::new();
        assert_eq!(play.alert("f1 s1"), PlanDecision::Report);
        let told: Vec<_> = (0..72)
            .map(|_| play.after(HOUR).recheck("f1 s1"))
            .filter(|told| *told != PlanDecision::Quiet)
            .collect();
        assert_eq!(told, [PlanDecision::Remind; 3]);
        assert_eq!(play.tracker.told("7").unwrap().since, NIGHT, "unchanged since then");
        assert_eq!(play.after(HOUR).recheck("f80 s80"), PlanDecision::Report, "it failed again");
    }

    #[test]
    fn a_reminder_can_be_switched_off() {
        let mut play = Play::new();
        play.policy.renotify = None;
        play.alert("f1");
        assert_eq!(play.after(DAY * 99).recheck("f1"), PlanDecision::Quiet);
    }

    #[test]
    fn the_modules_that_had_not_had_their_turn_are_no_second_report_when_they_succeed() {
        let mut play = Play::new();
        assert_eq!(play.alert("f1 p p"), PlanDecision::Report);
        assert_eq!(play.after(HOUR).recheck("f1 s2 p"), PlanDecision::Quiet);
        assert_eq!(play.after(HOUR).recheck("f1 s2 s3"), PlanDecision::Quiet);
        assert_eq!(play.after(HOUR).recheck("f1 s2 f4"), PlanDecision::Report, "another failed");
    }

    #[test]
    fn a_change_is_told_to_those_who_did_not_ask_when_the_pass_is_over() {
        let mut play = Play::new();
        play.alert("f1 s1 s1");
        assert_eq!(play.after(DAY / 2).recheck("f13 p1 p1"), PlanDecision::Quiet);
        assert_eq!(play.recheck("f13 f13 p1"), PlanDecision::Quiet);
        assert_eq!(play.recheck("f13 f13 s13"), PlanDecision::Report);
        assert_eq!(play.alert("s14 f13 s13"), PlanDecision::Report, "whoever asks is answered");
    }

    #[test]
    fn the_end_is_told_and_the_next_failure_is_a_new_trouble() {
        let mut play = Play::new();
        assert_eq!(play.recheck("s1"), PlanDecision::Quiet, "nobody asked");
        assert_eq!(play.alert("f1"), PlanDecision::Report);
        assert_eq!(play.after(HOUR).recheck("s2"), PlanDecision::Recovered);
        assert!(!play.is_open());
        assert_eq!(play.after(HOUR).recheck("s2"), PlanDecision::Quiet);
        assert_eq!(play.recheck("f3"), PlanDecision::Report);
        assert_eq!(play.alert("s4"), PlanDecision::Recovered);
        assert_eq!(play.alert("s4"), PlanDecision::Report, "an alert that asks is answered");
    }

    #[test]
    fn a_run_that_an_alert_called_too_old_is_no_recovery() {
        let mut play = Play::new();
        assert_eq!(play.alert("m1 s25"), PlanDecision::Report);
        assert_eq!(play.after(HOUR).recheck("s1 s25"), PlanDecision::Quiet);
        assert_eq!(play.after(HOUR).recheck("s27 s25"), PlanDecision::Recovered);
    }

    #[test]
    fn a_node_that_is_off_is_not_told_with_every_run_of_the_others() {
        let mut play = Play::new();
        assert_eq!(play.recheck("m1 s2"), PlanDecision::Report);
        for hour in 3..24 {
            assert_eq!(play.after(HOUR).recheck(&format!("m1 s{hour}")), PlanDecision::Quiet);
        }
    }

    #[test]
    fn a_plan_that_is_gone_or_never_was_or_is_switched_off_ends() {
        for (told, later, reason) in [
            ("f1", Presence::Gone, EndReason::Gone),
            ("f1", Presence::Empty, EndReason::NoModules),
            ("", Presence::Empty, EndReason::NoModules),
            ("", Presence::Gone, EndReason::NeverExisted),
            ("m1", Presence::SwitchedOff, EndReason::SwitchedOff),
        ] {
            let mut play = Play::new();
            assert_eq!(play.alert(told), PlanDecision::Report);
            let later = Finding { presence: later, ..finding(told) };
            let unread = Finding { presence: Presence::Unread, ..finding("") };
            assert_eq!(play.after(HOUR).look(LookCause::Recheck, &unread), PlanDecision::Quiet);
            assert_eq!(play.look(LookCause::Recheck, &later), PlanDecision::Ended(reason));
            assert_eq!(play.look(LookCause::Recheck, &later), PlanDecision::Quiet);
            assert_eq!(play.tracker.told("7"), None);
        }
    }

    #[test]
    fn a_plan_that_could_not_be_read_was_never_reminded_of() {
        let mut play = Play::new();
        let unread = Finding { presence: Presence::Unread, ..finding("") };
        assert_eq!(play.look(LookCause::Alert, &unread), PlanDecision::Report);
        assert_eq!(play.after(HOUR).look(LookCause::Recheck, &unread), PlanDecision::Quiet);
        assert_eq!(play.after(DAY).look(LookCause::Recheck, &unread), PlanDecision::Remind);
        assert_eq!(play.look(LookCause::Recheck, &unread), PlanDecision::Quiet);
    }

    #[test]
    fn a_plan_that_was_told_as_switched_off_ends_only_when_it_is_well() {
        let mut play = Play::new();
        let off = |words| Finding { presence: Presence::SwitchedOff, ..finding(words) };
        assert_eq!(play.look(LookCause::Recheck, &off("f1")), PlanDecision::Quiet, "nobody asked");
        assert_eq!(play.look(LookCause::Alert, &off("f1")), PlanDecision::Report);
        assert_eq!(play.look(LookCause::Recheck, &off("f1")), PlanDecision::Quiet);
        let well = Finding { outcome: Outcome::Missing, ..off("s2") };
        let ended = PlanDecision::Ended(EndReason::SwitchedOff);
        assert_eq!(play.look(LookCause::Recheck, &well), ended);
    }

    #[test]
    fn a_trouble_that_was_forgotten_is_told_when_it_changes() {
        let mut play = Play::new();
        assert!(!play.tracker.forget("7"));
        play.alert("f1");
        assert!(play.tracker.forget("7") && !play.tracker.forget("7"));
        assert_eq!(play.after(DAY * 2).recheck("f1"), PlanDecision::Quiet);
        assert_eq!(play.recheck("f2"), PlanDecision::Report);
    }

    #[test]
    fn what_cannot_be_read_is_told_only_to_those_who_ask_or_when_it_lasts() {
        let mut play = Play::new();
        assert_eq!(play.recheck("u s1"), PlanDecision::Quiet);
        play.alert("f1 s1");
        assert_eq!(play.after(HOUR).recheck("u s1"), PlanDecision::Quiet);
        assert_eq!(play.after(DAY).recheck("u s1"), PlanDecision::Report);
        assert_eq!(play.recheck("s2 s1"), PlanDecision::Recovered);
    }

    #[test]
    fn every_success_is_told_once_where_that_is_wished() {
        let mut play = Play::new();
        play.policy.success = SuccessPolicy::Always;
        assert_eq!(play.recheck("s1 s1"), PlanDecision::Report);
        assert_eq!(play.recheck("s1 s1"), PlanDecision::Quiet);
        assert_eq!(play.recheck("s25 p1"), PlanDecision::Quiet);
        assert_eq!(play.recheck("s25 s25"), PlanDecision::Report);
    }

    #[test]
    fn a_clock_that_was_ahead_silenced_the_reminders() {
        let mut play = Play::new();
        play.now = NIGHT + DAY * 400;
        play.alert("f1");
        play.now = NIGHT;
        assert_eq!(play.recheck("f1"), PlanDecision::Remind);
        assert_eq!(play.after(HOUR).recheck("f1"), PlanDecision::Quiet);
    }

    #[test]
    fn the_troubles_of_an_earlier_version_go_on() {
        let row = r#"{"plan":"7","name":null,"outcome":"FAILED","level":"critical","at":"2026-11-21T20:12:11Z","why":"x","headline":"x","modules":[{"name":"mail0","label":null,"state":"failed","error":null,"errors":2,"size":null,"files":null,"snapshots":null,"start":null,"end":"2026-11-21T21:00:00Z","node":null}],"repositories":[]}"#;
        let row: PlanView = serde_json::from_str(row).unwrap();
        let incidents = BTreeSet::from(["7".to_owned(), "all".to_owned()]);
        let tracker = PlanTracker::restore([row].iter(), &incidents, NIGHT);
        assert_eq!(tracker.open_plans().collect::<Vec<_>>(), ["7", "all"]);
        let told = tracker.told("7").unwrap();
        assert_eq!((told.outcome.as_str(), told.modules[0].end.is_some()), ("FAILED", true));
        assert_eq!(tracker.told("all").unwrap().outcome, "UNKNOWN");
    }

    #[test]
    fn what_was_never_told_was_open_after_a_restart() {
        let row = r#"{"plan":"7","name":null,"outcome":"RUNNING","level":"warning","at":"2026-11-21T20:12:11Z","why":"x","headline":"x","modules":[],"repositories":[]}"#;
        let row: PlanView = serde_json::from_str(row).unwrap();
        let tracker = PlanTracker::restore([row].iter(), &BTreeSet::new(), NIGHT);
        assert_eq!(tracker.open_plans().next(), None);
    }

    #[test]
    fn a_deleted_plan_whose_statuses_stay_was_open_for_ever_and_an_empty_one_was_called_deleted() {
        let module = Module { id: "mail1".into(), state: ModuleState::Failed, ..Module::default() };
        let presence = |enabled, modules: &[&Module], complete| {
            let modules = modules.iter().map(|module| (*module).clone()).collect();
            let plan = Plan { enabled, modules, ..Plan::default() };
            Finding::of(&plan, &PlanOutcome::of(&plan), complete).presence
        };
        for (enabled, modules, expected) in [
            (None, &[&module][..], Presence::Gone),
            (None, &[], Presence::Gone),
            (Some(true), &[], Presence::Empty),
            (Some(true), &[&module], Presence::Present),
        ] {
            assert_eq!(presence(enabled, modules, true), expected);
        }
        assert_eq!(presence(None, &[&module], false), Presence::Present);
        let mut play = Play::new();
        assert_eq!(play.alert("f1"), PlanDecision::Report);
        let empty = Finding { presence: Presence::Empty, ..finding("") };
        let ended = PlanDecision::Ended(EndReason::NoModules);
        assert_eq!(play.look(LookCause::Recheck, &empty), ended);
    }

    /// One pass of a plan of three modules: how each of them ends, and after which of them an alert
    /// comes.
    fn pass() -> impl Strategy<Value = (Vec<char>, Option<usize>)> {
        let ends = proptest::sample::select(vec!['s', 's', 's', 'f', 'm']);
        (proptest::collection::vec(ends, 3), proptest::option::of(0..3_usize))
    }

    proptest! {
        /// The oracle knows how each pass ended. Nobody believes in a trouble that is over, nor that
        /// all is well when it is not, and no change is told twice.
        #[test]
        fn one_message_per_change_and_nobody_is_left_believing(passes in proptest::collection::vec(pass(), 1..12)) {
            let mut play = Play::new();
            let mut before = vec!["s0".to_owned(); 3];
            let mut believed: Option<Vec<String>> = None;
            for (number, (ends, alert)) in passes.into_iter().enumerate() {
                let mut now = before.clone();
                let mut told = 0;
                for turn in 0..3 {
                    play.after(HOUR);
                    // A module that is missing keeps the end of its last run.
                    let end = if ends[turn] == 'm' { before[turn][1..].to_owned() } else { (number * 24 + turn + 1).to_string() };
                    now[turn] = format!("{}{end}", ends[turn]);
                    let awaited = |index: usize| format!("p{}", &now[index][1..]);
                    let seen = (0..3).map(|index| if index > turn { awaited(index) } else { now[index].clone() });
                    let seen = seen.collect::<Vec<_>>().join(" ");
                    let cause = if alert == Some(turn) { LookCause::Alert } else { LookCause::Recheck };
                    let decision = play.look(cause, &finding(&seen));
                    told += usize::from(!matches!(decision, PlanDecision::Quiet | PlanDecision::Remind));
                    let again = play.look(LookCause::Recheck, &finding(&seen));
                    prop_assert!(matches!(again, PlanDecision::Quiet | PlanDecision::Remind), "{again:?}");
                }
                let over = finding(&now.join(" "));
                let bad: Vec<String> = now.iter().filter(|word| !word.starts_with('s')).cloned().collect();
                let truth = (!bad.is_empty()).then_some(bad);
                prop_assert_eq!(play.is_open(), truth.is_some());
                if let Some(told) = play.tracker.told("7").filter(|told| told.open) {
                    prop_assert_eq!(told.outcome.as_str(), over.outcome.name());
                }
                // An alert in the middle of a pass is answered, and the end of the pass told if it
                // is another.
                let most = if alert.is_some() { 2 } else { usize::from(truth != believed) };
                prop_assert!(told <= most, "{told} messages, {most} changes");
                believed = truth;
                before = now;
                play.after(HOUR * 20);
            }
        }
    }
}
