//! What is remembered of each backup plan: the last look at it, and what was told. A look becomes a
//! change of the store, with the event that it is worth. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::alert::Alert;
use super::analysis::{PlanReport, is_idle, view};
use super::notice::{self, EndNotice};
use super::plan::Plan;
use super::plan_changes::LastLook;
use super::plan_tracker::{
    EndReason, Finding, LookCause, LookContext, PlanDecision, PlanTracker, Presence, SuccessPolicy,
    is_forgotten,
};
use super::report::ALL_PLANS;
use super::schedule::Zone;
use super::settings::TellingSettings;
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident, KeptLimit, LimitEpisodes, LimitUse};
use crate::store::change::Change;
use crate::store::{Table, Write};
use crate::view::{PlanView, ToldView};

/// How old the row of a plan is when a look that found nothing new renews it.
const ROW_RENEWAL: Duration = Duration::from_secs(3600);

/// How many plans are remembered that were reported though nothing is known of them: an alert may name
/// anything.
const MAX_UNKNOWN_PLANS: usize = 2000;
/// This part of them is forgotten at a time.
const FORGOTTEN_PART: usize = 8;

/// A plan that was looked at, and why.
#[derive(Clone, Copy, Debug)]
pub struct LookedAt<'a> {
    /// What was found.
    pub report: &'a PlanReport,
    /// Why it was looked at.
    pub cause: LookCause,
    /// Whether all that was asked for could be read.
    pub complete: bool,
    /// The alerts about it.
    pub alerts: &'a [&'a Alert],
}

/// What is remembered of all plans.
#[derive(Debug, Default)]
pub struct PlanRecords {
    tracker: PlanTracker,
    rows: BTreeMap<String, PlanView>,
    /// By id the time of the latest reading of a plan.
    read_as_of: BTreeMap<String, Mono>,
    /// By id the time of the reading of a plan that was told last.
    told_as_of: BTreeMap<String, Mono>,
    /// How the plans were configured at the last look at each.
    last_looks: BTreeMap<String, LastLook>,
    unknown_limit: LimitEpisodes,
}

impl LookedAt<'_> {
    fn finding(&self) -> Finding {
        let PlanReport { plan, plan_outcome, .. } = self.report;
        Finding::of(plan, plan_outcome, self.complete)
    }
}

impl PlanRecords {
    /// As the rows of [`Table::Plans`] have it; `open_incidents` are the plans whose incident is open.
    pub fn restore(
        rows: Vec<PlanView>,
        open_incidents: &BTreeSet<String>,
        now: Wall,
    ) -> PlanRecords {
        let tracker = PlanTracker::restore(rows.iter(), open_incidents, now);
        let look = |row: &PlanView| {
            let last = LastLook { at: row.at.min(now), configured: row.configured.clone() };
            let is_found = last.configured.is_some() || !row.modules.is_empty();
            is_found.then(|| (row.plan.clone(), last))
        };
        let last_looks = rows.iter().filter_map(look).insert_all();
        let rows = rows.into_iter().map(|row| (row.plan.clone(), row)).insert_all();
        PlanRecords { tracker, rows, last_looks, ..PlanRecords::default() }
    }

    /// The plans with an open trouble, by id.
    pub fn open_plans(&self) -> BTreeSet<String> {
        self.tracker.open_plans().map(str::to_owned).insert_all()
    }

    /// How the plans were configured at the last look at each.
    pub fn last_looks(&self) -> BTreeMap<String, LastLook> {
        self.last_looks.clone()
    }

    /// The plans that were looked at and found, by id.
    pub fn known_plans(&self) -> BTreeSet<String> {
        self.last_looks.keys().cloned().insert_all()
    }

    /// Whether any plan was found.
    pub fn knows_plans(&self) -> bool {
        self.rows.values().any(|row| !row.modules.is_empty())
    }

    /// The id of a plan that is given by its id or its name.
    pub fn find(&self, plan: &str) -> String {
        let is_known = self.rows.contains_key(plan) || self.tracker.told(plan).is_some();
        let is_open = |row: &&PlanView| self.tracker.told(&row.plan).is_some_and(|told| told.open);
        // Of two with this name the one that is in trouble is meant.
        let mut rows: Vec<&PlanView> =
            self.rows.values().filter(|row| row.name.as_deref() == Some(plan)).collect();
        rows.sort_by_key(|row| !is_open(row));
        let named = || rows.first();
        let id = if is_known { None } else { named().map(|row| row.plan.clone()) };
        id.unwrap_or_else(|| plan.to_owned())
    }

    /// Whether a look is going to be told as a report.
    pub fn will_report(&self, look: LookedAt, telling: &TellingSettings, now: Wall) -> bool {
        self.decide(look, telling, now) == PlanDecision::Report
    }

    fn decide(&self, look: LookedAt, telling: &TellingSettings, now: Wall) -> PlanDecision {
        let plan = &look.report.plan;
        let context = LookContext { cause: look.cause, policy: telling.policy(plan), now };
        self.tracker.decide(&plan.id, &look.finding(), context)
    }

    /// Whether what was read of a plan at `read_at` is not to be told any more: a later reading was
    /// taken in meanwhile, as while repositories were asked. An alert is owed its answer until one
    /// was told.
    fn is_outdated(&self, plan: &str, cause: LookCause, read_at: Mono) -> bool {
        let later = match cause {
            LookCause::Alert => self.told_as_of.get(plan),
            LookCause::Recheck => self.read_as_of.get(plan),
        };
        later.is_some_and(|later| *later > read_at)
    }

    /// Takes in that a reading of a plan was taken in, and whether it was told.
    fn note_reading(&mut self, plan: &str, read_at: Mono, is_told: bool) {
        if self.tracker.told(plan).is_none() && !self.rows.contains_key(plan) {
            // Any id may come with an alert: what is over is not remembered.
            self.read_as_of.remove(plan);
            self.told_as_of.remove(plan);
            return;
        }
        let latest = self.read_as_of.entry(plan.to_owned()).or_insert(read_at);
        *latest = read_at.max(*latest);
        if is_told {
            self.told_as_of.insert(plan.to_owned(), read_at);
        }
    }

    /// Whether the alerts that came in by then were answered with this success by another look.
    fn has_answered(&self, look: LookedAt, accepted: Wall) -> bool {
        self.tracker.was_told(&look.report.plan.id, &look.finding(), accepted)
    }

    /// Takes in what was read of a plan at `read_at`, because of alerts that were `accepted` then, if of
    /// any: the rows and the event that it is worth.
    pub fn take_in(
        &mut self,
        mut look: LookedAt,
        accepted: Option<Wall>,
        read_at: Mono,
        telling: &TellingSettings,
        now: Wall,
    ) -> Change {
        let plan = &look.report.plan.id;
        if self.is_outdated(plan, look.cause, read_at) {
            return Change::default();
        }
        // Two alerts of one moment, of which one names no plan, are answered once.
        if accepted.is_some_and(|accepted| self.has_answered(look, accepted)) {
            look.cause = LookCause::Recheck;
        }
        let mut change = self.record(look, telling, now);
        self.note_reading(plan, read_at, !change.events.is_empty());
        self.forget_unknown(&mut change, Now { mono: read_at, wall: now });
        change
    }

    /// Forgets the oldest plans that nothing is known of, when they are too many.
    fn forget_unknown(&mut self, change: &mut Change, now: Now) {
        if self.rows.len() <= MAX_UNKNOWN_PLANS {
            return;
        }
        let is_unknown = |row: &&PlanView| {
            row.configured.is_none() && row.modules.is_empty() && row.plan != ALL_PLANS
        };
        let unknown = self.rows.values().filter(is_unknown);
        let mut oldest: Vec<(Wall, String)> =
            unknown.map(|row| (row.at, row.plan.clone())).collect();
        if oldest.len() <= MAX_UNKNOWN_PLANS {
            return;
        }
        oldest.sort_unstable();
        let forgotten = oldest.len() - MAX_UNKNOWN_PLANS + MAX_UNKNOWN_PLANS / FORGOTTEN_PART;
        for (_, plan) in oldest.into_iter().take(forgotten) {
            self.tracker.end(&plan);
            self.read_as_of.remove(&plan);
            self.told_as_of.remove(&plan);
            change.writes.extend(self.remove_row(&plan));
            change.closed_silently.push(Incident::Backup { plan });
        }
        if self.unknown_limit.reached(forgotten as u64, now.mono) {
            let limit = KeptLimit::UnknownPlans;
            change.events.push(Event::new(now.wall, EventKind::LimitReached { limit }));
        }
    }

    /// How near the limit of plans that nothing is known of is.
    pub fn limit(&self) -> LimitUse {
        LimitUse {
            name: KeptLimit::UnknownPlans.name(),
            used: self.rows.values().filter(|row| row.configured.is_none()).count(),
            most: MAX_UNKNOWN_PLANS,
            reached: self.unknown_limit.count(),
        }
    }

    /// Takes in a look: the rows and the event that it is worth.
    fn record(&mut self, look: LookedAt, telling: &TellingSettings, now: Wall) -> Change {
        let (report, finding) = (look.report, look.finding());
        let decision = self.decide(look, telling, now);
        self.remember(look, now);
        let before = self.tracker.told(&report.plan.id).cloned();
        self.tracker.record(&report.plan.id, &finding, decision, now);
        let told = self.tracker.told(&report.plan.id);
        let mut change = Change::default();
        match (decision, before) {
            (PlanDecision::Quiet, _) => {}
            (PlanDecision::Report, _) => change.events.push(report.event(look.alerts, now)),
            (PlanDecision::Remind, Some(told)) => {
                change.events.push(notice::reminder(report, &told, now));
            }
            (PlanDecision::Recovered, Some(before)) => {
                let policy = telling.policy(&report.plan).success;
                change = recovered(look, policy, &before, now);
            }
            (PlanDecision::Ended(reason), Some(told)) => {
                let plan = &report.plan;
                let notice = self.end_notice(&plan.id, &told, reason, &plan.zone);
                change.events.push(notice.event(now));
            }
            (PlanDecision::Remind | PlanDecision::Recovered | PlanDecision::Ended(_), None) => {}
        }
        let is_kept = match decision {
            PlanDecision::Ended(_) => false,
            PlanDecision::Quiet if matches!(finding.presence, Presence::Gone | Presence::Empty) => {
                told.is_some()
            }
            _ => true,
        };
        let write = match decision {
            _ if !is_kept => self.remove_row(&report.plan.id),
            PlanDecision::Quiet if finding.presence == Presence::Unread => None,
            PlanDecision::Quiet if told.is_none() && is_idle(&report.plan) => {
                self.renew_row(&report.plan, now)
            }
            _ => self.put_row(report, decision, now),
        };
        change.writes.extend(write);
        change
    }

    /// Of a plan that does not exist nothing is remembered.
    fn remember(&mut self, look: LookedAt, now: Wall) {
        let plan = &look.report.plan;
        match plan.configured.clone().filter(|_| plan.enabled.is_some()) {
            Some(configured) => {
                let last = LastLook { at: now, configured: Some(configured) };
                self.last_looks.insert(plan.id.clone(), last);
            }
            None if look.complete => drop(self.last_looks.remove(&plan.id)),
            None => {}
        }
    }

    fn remove_row(&mut self, plan: &str) -> Option<Write> {
        self.rows.remove(plan).map(|_| Write::remove(Table::Plans, plan))
    }

    /// The row of a plan, unless it says nothing new.
    fn put_row(&mut self, report: &PlanReport, decision: PlanDecision, now: Wall) -> Option<Write> {
        let mut row = view(report, now);
        row.told = self.tracker.told(&row.plan).cloned();
        let before = self.rows.get(&row.plan);
        if let Some(before) = before
            && matches!(decision, PlanDecision::Quiet | PlanDecision::Remind)
            && row.told.as_ref().is_some_and(|told| told.open)
        {
            // What was found when it was reported; they were not asked again.
            row.repositories = before.repositories.clone();
        }
        let is_same = before.is_some_and(|before| {
            let is_recent = before.at <= now && now.since(before.at) < ROW_RENEWAL;
            is_recent && *before == PlanView { at: before.at, ..row.clone() }
        });
        if is_same {
            return None;
        }
        let write = Write::put(Table::Plans, row.plan.clone(), &row);
        self.rows.insert(row.plan.clone(), row);
        Some(write)
    }

    /// The row of a plan of which nothing is told: how it is configured, where that has changed.
    fn renew_row(&mut self, plan: &Plan, now: Wall) -> Option<Write> {
        let row = self.rows.get_mut(&plan.id)?;
        if row.configured == plan.configured && now.since(row.at) < ROW_RENEWAL {
            return None;
        }
        (row.configured, row.at) = (plan.configured.clone(), now);
        Some(Write::put(Table::Plans, plan.id.clone(), row))
    }

    fn end_notice<'a>(
        &'a self,
        plan: &'a str,
        told: &'a ToldView,
        reason: EndReason,
        zone: &'a Zone,
    ) -> EndNotice<'a> {
        let name = self.rows.get(plan).and_then(|row| row.name.as_deref());
        EndNotice { plan, name, told, reason, zone }
    }

    /// Ends the trouble of a plan for a reason that no look finds; none when it has none.
    pub fn end(&mut self, plan: &str, reason: EndReason, zone: &Zone, now: Wall) -> Option<Change> {
        let told = self.tracker.told(plan)?.clone();
        let is_over = reason != EndReason::Forgotten;
        if !told.open && !is_over {
            return None;
        }
        // Of what an operator ended nobody is told that it is over.
        let event = told.open.then(|| self.end_notice(plan, &told, reason, zone).event(now));
        let write = match reason {
            EndReason::Forgotten => self.forget_row(plan),
            _ => {
                self.tracker.end(plan);
                self.remove_row(plan)
            }
        };
        let writes = write.into_iter().collect();
        Some(Change { writes, events: event.into_iter().collect(), ..Change::default() })
    }

    /// Whether an operator ended the trouble of a plan, and nothing has changed since.
    pub fn is_forgotten(&self, plan: &str) -> bool {
        self.tracker.told(plan).is_some_and(is_forgotten)
    }

    /// What was told stays, so that it is not told again while it is unchanged.
    fn forget_row(&mut self, plan: &str) -> Option<Write> {
        self.tracker.forget(plan);
        let row = self.rows.get_mut(plan)?;
        row.told = self.tracker.told(plan).cloned();
        Some(Write::put(Table::Plans, plan, row))
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        self.rows.iter().map(|(plan, row)| Write::put(Table::Plans, plan.clone(), row)).collect()
    }
}

/// What a recovery is worth: an answer to the alert that asked, a record for those who keep one, else
/// a word to those who were told of the trouble.
fn recovered(look: LookedAt, policy: SuccessPolicy, before: &ToldView, now: Wall) -> Change {
    let report = look.report;
    let event = match policy {
        _ if look.cause == LookCause::Alert => report.event(look.alerts, now),
        SuccessPolicy::Always => report.event(look.alerts, now),
        SuccessPolicy::Recovery => notice::recovery(report, before, now),
        SuccessPolicy::Never => {
            let incident = Incident::Backup { plan: report.plan.id.clone() };
            return Change { closed_silently: vec![incident], ..Change::default() };
        }
    };
    Change { events: vec![event], ..Change::default() }
}

#[cfg(test)]
mod tests {
    use super::super::analysis::unknown;
    use super::super::outcome::PlanOutcome;
    use super::super::plan::{BackupRun, Module, ModuleState, Plan};
    use super::super::plan_query::PlanQuery;
    use super::super::repo_check::{RepoCheckResult, RepoState};
    use super::*;
    use crate::event::EventId;

    const NOW: Wall = Wall(1_795_291_928_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn report(state: ModuleState, end: Wall) -> PlanReport {
        let module = Module {
            run: Some(BackupRun { end: Some(end), ..BackupRun::default() }),
            id: "mail1".into(),
            state,
            ..Module::default()
        };
        let plan = Plan {
            id: "7".into(),
            name: Some("Nightly".into()),
            enabled: Some(true),
            modules: vec![module],
            ..Plan::default()
        };
        PlanReport { plan_outcome: PlanOutcome::of(&plan), plan, repositories: None }
    }

    fn record(
        records: &mut PlanRecords,
        report: &PlanReport,
        cause: LookCause,
        now: Wall,
    ) -> Change {
        let complete = !report.plan.modules.is_empty();
        let look = LookedAt { report, cause, complete, alerts: &[] };
        records.record(look, &TellingSettings::default(), now)
    }

    fn titles(change: &Change) -> Vec<String> {
        change.events.iter().map(|event| event.message(EventId(1)).title).collect()
    }

    fn row(change: &Change) -> PlanView {
        serde_json::from_slice(change.writes[0].value.as_deref().unwrap()).unwrap()
    }

    #[test]
    fn what_was_read_before_the_latest_news_was_told_after_it() {
        let mut records = PlanRecords::default();
        let (early, late) = (Mono(1000), Mono(2000));
        for cause in [LookCause::Alert, LookCause::Recheck] {
            assert!(!records.is_outdated("7", cause, early));
        }
        records.note_reading("9", late, true);
        assert!(!records.is_outdated("9", LookCause::Alert, early), "it is over");
        record(&mut records, &report(ModuleState::Failed, NOW), LookCause::Alert, NOW);
        records.note_reading("7", late, false);
        assert!(records.is_outdated("7", LookCause::Recheck, early));
        assert!(!records.is_outdated("7", LookCause::Alert, early), "it is owed its answer");
        assert!(!records.is_outdated("7", LookCause::Recheck, late));
        records.note_reading("7", late, true);
        assert!(records.is_outdated("7", LookCause::Alert, early));
        assert!(!records.is_outdated("8", LookCause::Alert, early));
    }

    #[test]
    fn what_is_told_and_what_is_remembered_of_it_are_one_change() {
        let mut records = PlanRecords::default();
        let mut failed = report(ModuleState::Failed, NOW);
        let state = RepoState::NotChecked("x".into());
        failed.repositories = Some(vec![RepoCheckResult { module: "mail1".into(), state }]);
        let change = record(&mut records, &failed, LookCause::Alert, NOW);
        assert_eq!(titles(&change), ["backup Nightly FAILED: 1 of 1 module failed"]);
        let told = row(&change);
        assert!(told.told.as_ref().unwrap().open && told.repositories.len() == 1);
        failed.repositories = None;
        let change = record(&mut records, &failed, LookCause::Recheck, NOW + MINUTE);
        assert!(change.writes.is_empty() && change.events.is_empty());
        let change = record(&mut records, &failed, LookCause::Recheck, NOW + ROW_RENEWAL);
        assert_eq!(row(&change).repositories, told.repositories, "they were not asked again");
        let incidents = BTreeSet::new();
        let restored = PlanRecords::restore(vec![row(&change)], &incidents, NOW);
        assert_eq!(restored.open_plans(), BTreeSet::from(["7".to_owned()]));
        assert_eq!((restored.find("Nightly"), restored.find("9")), ("7".into(), "9".into()));
        let mut namesake = report(ModuleState::Success, NOW);
        namesake.plan.id = "1".into();
        record(&mut records, &namesake, LookCause::Recheck, NOW + ROW_RENEWAL);
        assert_eq!(records.find("Nightly"), "7", "of two plans with a name the one in trouble");
        let well = report(ModuleState::Success, NOW + MINUTE);
        let change = record(&mut records, &well, LookCause::Recheck, NOW + ROW_RENEWAL);
        assert_eq!(titles(&change), ["backup Nightly SUCCESS: its module succeeded"]);
        assert!(!change.events[0].kind.describe().ok_is_news, "for those who were told");
        assert!(records.open_plans().is_empty());
    }

    #[test]
    fn a_success_that_is_never_told_ends_its_trouble_all_the_same() {
        let mut records = PlanRecords::default();
        record(&mut records, &report(ModuleState::Failed, NOW), LookCause::Alert, NOW);
        let telling =
            TellingSettings { success: SuccessPolicy::Never, ..TellingSettings::default() };
        let well = report(ModuleState::Success, NOW + MINUTE);
        let look =
            LookedAt { report: &well, cause: LookCause::Recheck, complete: true, alerts: &[] };
        let change = records.record(look, &telling, NOW + MINUTE);
        assert_eq!(change.closed_silently, [Incident::Backup { plan: "7".into() }]);
        assert!(change.events.is_empty() && records.open_plans().is_empty());
    }

    #[test]
    fn every_plan_that_an_alert_made_up_was_remembered_for_ever() {
        let mut records = PlanRecords::default();
        let telling = TellingSettings::default();
        let (mut stored, mut open, mut told) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut take_in = |records: &mut PlanRecords, report: &PlanReport, at: i64| {
            let cause = LookCause::Alert;
            let look = LookedAt { report, cause, complete: false, alerts: &[] };
            let change = records.take_in(look, None, Mono(at), &telling, Wall(NOW.0 + at));
            for write in change.writes {
                match write.value {
                    Some(_) => drop(stored.insert(write.key)),
                    None => drop(stored.remove(&write.key)),
                }
            }
            for incident in change.closed_silently {
                let Incident::Backup { plan } = incident else { panic!("{incident}") };
                assert!(open.remove(&plan));
            }
            open.insert(report.plan.id.clone());
            told += change
                .events
                .iter()
                .filter(|event| matches!(event.kind, EventKind::LimitReached { .. }))
                .count();
            (stored.len(), open.len(), told)
        };
        let known = report(ModuleState::Failed, NOW);
        take_in(&mut records, &known, 0);
        let mut state = (0, 0, 0);
        for number in 0..2 * MAX_UNKNOWN_PLANS as i64 {
            let mut made_up = unknown(&PlanQuery::for_all(), "not known").remove(0);
            made_up.plan.id = format!("made-up-{number}");
            state = take_in(&mut records, &made_up, number + 1);
        }
        let (stored, open, told) = state;
        assert!((1000..=MAX_UNKNOWN_PLANS + 1).contains(&stored), "{stored}");
        assert_eq!((open, told), (stored, 1));
        assert!(records.tracker.told("7").is_some(), "a plan that is known is not forgotten");
        assert!(records.limit().reached > 1000);
    }

    #[test]
    fn a_redis_that_is_away_is_told_ended_and_forgotten() {
        let mut records = PlanRecords::default();
        let zone = Zone::default();
        let all = &unknown(&PlanQuery::for_all(), "refused")[0];
        let change = record(&mut records, all, LookCause::Alert, NOW);
        assert_eq!(titles(&change), ["backup of all plans UNKNOWN: refused"]);
        assert!(record(&mut records, all, LookCause::Recheck, NOW).events.is_empty());
        let change = records.end(ALL_PLANS, EndReason::RedisAnswers, &zone, NOW).unwrap();
        assert_eq!(titles(&change), ["backup of all plans: what Redis says of them can be read"]);
        assert_eq!(change.writes, [Write::remove(Table::Plans, ALL_PLANS)]);
        assert!(records.end(ALL_PLANS, EndReason::RedisAnswers, &zone, NOW).is_none());
        record(&mut records, all, LookCause::Alert, NOW);
        assert!(records.end(ALL_PLANS, EndReason::Forgotten, &zone, NOW).is_some());
        assert!(records.is_forgotten(ALL_PLANS));
        assert!(records.end(ALL_PLANS, EndReason::Forgotten, &zone, NOW).is_none());
        let change = records.end(ALL_PLANS, EndReason::RedisAnswers, &zone, NOW).unwrap();
        assert!(change.events.is_empty() && change.writes.len() == 1);
    }
}
