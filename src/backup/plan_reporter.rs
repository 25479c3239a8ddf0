//! Looks at backup plans and tells what the looks are worth: each in one transaction with what is
//! remembered of it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use log::{error, info, warn};

use super::alert::Alert;
use super::analysis::{Analyzer, PlanReport, PlansReading, reportable};
use super::outcome::Outcome;
use super::plan_changes::LastLook;
use super::plan_query::{PlanQuery, alerts_about};
use super::plan_records::{LookedAt, PlanRecords};
use super::plan_tracker::{EndReason, LookCause};
use super::repo_check::RepoChecker;
use super::report::ALL_PLANS;
use super::restic_permits::ResticPermits;
use super::schedule::{ZONE_READER_STACK, Zone, Zones};
use super::settings::{CorrelatorSettings, RepoCheckSettings, TellingSettings};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, LimitUse};
use crate::secret::Secret;
use crate::store::Write;
use crate::store::change::ChangeSink;
use crate::thread::{Stop, lock, spawn_critical};
use crate::view::PlanView;

/// The configuration of the looks at backup plans.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The names of the alerts that are about backups.
    pub alert_names: Vec<String>,
    /// Where Redis is, and how long to wait for it.
    pub correlator: CorrelatorSettings,
    /// How repositories are checked; none: not at all.
    pub repo_check: Option<RepoCheckSettings>,
    /// How often a trouble is told, and which successes.
    pub telling: TellingSettings,
}

/// A look at plans.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Which plans.
    pub query: &'a PlanQuery,
    /// Why.
    pub cause: LookCause,
    /// The alerts that caused it.
    pub alerts: &'a [Alert],
    /// When they came in.
    pub accepted: Option<Wall>,
    /// The plans that these alerts were answered about already, by id.
    pub answered: &'a BTreeSet<String>,
}

/// Looks at plans and tells about them. Shared by the pipelines and the watch.
pub struct PlanReporter {
    settings: Mutex<Arc<PipelineSettings>>,
    records: Mutex<PlanRecords>,
    sink: ChangeSink,
    stop: Stop,
    /// In which people read times. Read once: not every thread has the stack for it.
    zone: Zone,
    outcomes: Mutex<BTreeMap<Outcome, u64>>,
    /// The plans whose repositories are checked in the background.
    checked: Mutex<BTreeSet<String>>,
    /// Shared by all looks: the machines are small.
    restic_permits: ResticPermits,
}

impl PlanReporter {
    /// With what the rows of [`crate::store::Table::Plans`] hold; `open_incidents` are the plans
    /// whose incident is open.
    pub fn restore(
        rows: Vec<PlanView>,
        open_incidents: &BTreeSet<String>,
        settings: PipelineSettings,
        sink: ChangeSink,
        stop: Stop,
    ) -> PlanReporter {
        PlanReporter {
            records: Mutex::new(PlanRecords::restore(rows, open_incidents, Now::read().wall)),
            settings: Mutex::new(Arc::new(settings)),
            sink,
            stop,
            zone: Zones::read().local().clone(),
            outcomes: Mutex::new(BTreeMap::new()),
            checked: Mutex::new(BTreeSet::new()),
            restic_permits: ResticPermits::default(),
        }
    }

    /// Applies another configuration; a look that is under way keeps its own.
    pub fn reconfigure(&self, settings: PipelineSettings) {
        *lock(&self.settings) = Arc::new(settings);
    }

    /// The configuration at present.
    pub fn settings(&self) -> Arc<PipelineSettings> {
        Arc::clone(&lock(&self.settings))
    }

    /// Told when it is time to stop.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// The plans with an open trouble, by id.
    pub fn open_plans(&self) -> BTreeSet<String> {
        lock(&self.records).open_plans()
    }

    /// Whether an operator ended the trouble of a plan, and nothing has changed since.
    pub fn is_forgotten(&self, plan: &str) -> bool {
        lock(&self.records).is_forgotten(plan)
    }

    /// The last look at each plan that was found, by its id.
    pub fn last_looks(&self) -> BTreeMap<String, LastLook> {
        lock(&self.records).last_looks()
    }

    /// The plans that were looked at and found, by id.
    pub fn known_plans(&self) -> BTreeSet<String> {
        lock(&self.records).known_plans()
    }

    /// How near the limit of plans that nothing is known of is.
    pub fn limit(&self) -> LimitUse {
        lock(&self.records).limit()
    }

    /// Whether any plan was ever found.
    pub fn knows_plans(&self) -> bool {
        lock(&self.records).knows_plans()
    }

    /// Reads the plans of a query. What panics is not known. None at the stop.
    pub fn read(&self, query: &PlanQuery, wait_for_running: bool) -> Option<PlansReading> {
        let settings = self.settings();
        let query = &PlanQuery { last_looks: Some(self.last_looks()), ..query.clone() };
        let analyzer = self.analyzer(&settings, wait_for_running);
        let read = catch_unwind(AssertUnwindSafe(|| analyzer.read(query, &self.stop)));
        read.unwrap_or_else(|_| {
            error!("looking into a backup panicked");
            Some(PlansReading::unknown(query, "looking into it failed, see the log of hbd"))
        })
    }

    fn analyzer<'a>(&'a self, settings: &'a PipelineSettings, wait: bool) -> Analyzer<'a> {
        let (repo_check, permits) = (settings.repo_check.as_ref(), &self.restic_permits);
        Analyzer {
            correlator: &settings.correlator,
            repo_checker: repo_check.map(|settings| RepoChecker { settings, permits }),
            wait_for_running: wait,
        }
    }

    /// Tells what a reading is worth; repositories are checked only for what is reported, and each
    /// plan is told as soon as its own are done. `rows` gives what else belongs to the transaction of
    /// a plan that is told. None at the stop.
    pub fn tell(
        &self,
        look: Look,
        reading: PlansReading,
        rows: impl Fn(&str) -> Option<Write>,
    ) -> Option<()> {
        let unchecked = self.tell_unchecked(look, reading, &rows);
        self.check_and_tell(look, unchecked, &rows)
    }

    /// The same for a look that no alert caused. Repositories are asked in a thread of its own: a
    /// destination that does not answer keeps no later look waiting.
    pub fn tell_in_background(
        self: &Arc<Self>,
        query: PlanQuery,
        cause: LookCause,
        reading: PlansReading,
    ) {
        let none = BTreeSet::new();
        let look = Look { query: &query, cause, alerts: &[], accepted: None, answered: &none };
        let mut unchecked = self.tell_unchecked(look, reading, &|_| None);
        let checking = Checking::begin(self, &mut unchecked.reports);
        if unchecked.reports.is_empty() {
            return;
        }
        let work = move || {
            let none = BTreeSet::new();
            let look = Look { query: &query, cause, alerts: &[], accepted: None, answered: &none };
            // None at the stop: what was not told is found again after the next start.
            let check = || checking.reporter.check_and_tell(look, unchecked, &|_| None);
            if catch_unwind(AssertUnwindSafe(check)).is_err() {
                error!("checking the repositories of a backup panicked");
            }
        };
        if let Err(why) = spawn_critical("backup-check", ZONE_READER_STACK, work) {
            warn!("the repositories of a backup are not checked now: {why}");
        }
    }

    /// Tells what is worth it without a check of repositories; gives what is left.
    fn tell_unchecked(
        &self,
        look: Look,
        reading: PlansReading,
        rows: &impl Fn(&str) -> Option<Write>,
    ) -> Unchecked {
        let settings = self.settings();
        let PlansReading { reports, passwords, complete, read_at, .. } = reading;
        let (reports, asked) = with_answers(reports, look);
        if look.query.all && complete && reports.iter().all(|one| one.plan.id != ALL_PLANS) {
            self.end(ALL_PLANS, EndReason::RedisAnswers);
        }
        let mut unchecked =
            Unchecked { settings, reports: Vec::new(), passwords, complete, asked, read_at };
        let is_checked = |report: &PlanReport| {
            let looked_at = unchecked.looked_at(report, look, &[]);
            let now = Now::read().wall;
            report.needs_check()
                && lock(&self.records).will_report(looked_at, &unchecked.settings.telling, now)
        };
        let unanswered = reports.into_iter().filter(|one| !look.answered.contains(&one.plan.id));
        let (reports, checked): (Vec<_>, Vec<_>) = unanswered.partition(is_checked);
        checked.iter().for_each(|report| self.tell_plan(&unchecked, report, look, rows));
        unchecked.reports = reports;
        unchecked
    }

    fn check_and_tell(
        &self,
        look: Look,
        mut unchecked: Unchecked,
        rows: &impl Fn(&str) -> Option<Write>,
    ) -> Option<()> {
        let reports = std::mem::take(&mut unchecked.reports);
        let settings = self.settings();
        let analyzer = self.analyzer(&settings, false);
        analyzer.check_repositories(reports, &unchecked.passwords, &self.stop, |report| {
            self.tell_plan(&unchecked, &report, look, rows);
        })
    }

    fn tell_plan(
        &self,
        reading: &Unchecked,
        report: &PlanReport,
        look: Look,
        rows: &impl Fn(&str) -> Option<Write>,
    ) {
        let settings = &reading.settings;
        let labels = &settings.correlator.backup_id_labels;
        let alerts = alerts_about(&report.plan.id, look.alerts, labels);
        let may_repeat = alerts.iter().any(|alert| alert.may_repeat);
        let (look, accepted) = (reading.looked_at(report, look, &alerts), look.accepted);
        let row = rows(&report.plan.id);
        let now = Now::read().wall;
        let words = {
            // Under the lock: what is remembered must reach the disk in the order of the decisions.
            let mut records = lock(&self.records);
            let mut change =
                records.take_in(look, accepted, reading.read_at, &settings.telling, now);
            let words = change.events.first().map(|event| (title(event), is_report(event, look)));
            if words.is_some() {
                change.writes.extend(row);
            }
            change.may_repeat = may_repeat;
            if !(change.writes.is_empty() && change.closed_silently.is_empty()) {
                (self.sink)(change);
            }
            words
        };
        let Some((words, is_report)) = words else { return };
        if is_report {
            *lock(&self.outcomes).entry(look.report.plan_outcome.outcome).or_default() += 1;
        }
        info!("plan {}: {words}", look.report.plan.id);
    }

    /// Ends the trouble of a plan, given by its id or its name, on an operator's word: its id, or
    /// none when it has none.
    pub fn forget(&self, plan: &str) -> Option<String> {
        let id = lock(&self.records).find(plan);
        self.end(&id, EndReason::Forgotten).then_some(id)
    }

    /// Ends the trouble of a plan for a reason that no look finds; false when it has none.
    pub fn end(&self, plan: &str, reason: EndReason) -> bool {
        let words: Option<String> = {
            let mut records = lock(&self.records);
            let ended = records.end(plan, reason, &self.zone, Now::read().wall);
            ended.map(|change| {
                let words = change.events.iter().map(title).collect();
                (self.sink)(change);
                words
            })
        };
        if let Some(words) = words.as_ref().filter(|words| !words.is_empty()) {
            info!("plan {plan}: {words}");
        }
        words.is_some()
    }

    /// How many reports had which outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        lock(&self.outcomes).get(&outcome).copied().unwrap_or(0)
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        lock(&self.records).every_row()
    }

    /// Waits until no restic runs any more, for `limit` at most. To be called after the stop.
    pub fn wait_for_restic(&self, limit: Duration) {
        self.restic_permits.wait_for_end(limit);
    }
}

/// What a look has read, and those of its plans whose repositories have to be checked.
struct Unchecked {
    settings: Arc<PipelineSettings>,
    reports: Vec<PlanReport>,
    passwords: BTreeMap<String, Secret>,
    complete: bool,
    /// The plans that an alert is owed an answer about.
    asked: BTreeSet<String>,
    read_at: Mono,
}

impl Unchecked {
    fn looked_at<'a>(
        &self,
        report: &'a PlanReport,
        look: Look,
        alerts: &'a [&'a Alert],
    ) -> LookedAt<'a> {
        let cause = cause_of(report, &self.asked, look.cause);
        LookedAt { report, cause, complete: self.complete, alerts }
    }
}

/// Plans whose repositories are checked in the background: another look does not check them again.
struct Checking {
    reporter: Arc<PlanReporter>,
    plans: BTreeSet<String>,
}

impl Checking {
    /// Leaves out the reports about plans that are being checked already.
    fn begin(reporter: &Arc<PlanReporter>, reports: &mut Vec<PlanReport>) -> Checking {
        let mut checked = lock(&reporter.checked);
        reports.retain(|report| checked.insert(report.plan.id.clone()));
        let plans = reports.iter().map(|report| report.plan.id.clone()).insert_all();
        Checking { reporter: Arc::clone(reporter), plans }
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        lock(&self.reporter.checked).retain(|plan| !self.plans.contains(plan));
    }
}

fn title(event: &Event) -> String {
    event.kind.describe().title
}

/// Whether an event tells an outcome, and not that there is none any more, or none that is new.
fn is_report(event: &Event, look: LookedAt) -> bool {
    let is_new = !event.kind.describe().is_reminder;
    is_new && event.level == look.report.plan_outcome.outcome.level()
}

/// The reports with the one that answers an alert of which none of them says anything, and the plans
/// that an alert is owed an answer about.
pub fn with_answers(
    mut reports: Vec<PlanReport>,
    look: Look,
) -> (Vec<PlanReport>, BTreeSet<String>) {
    if look.cause != LookCause::Alert {
        return (reports, BTreeSet::new());
    }
    let answers = reportable(reports.clone(), look.query);
    let asked = answers.iter().map(|report| report.plan.id.clone()).insert_all();
    let is_new = |answer: &PlanReport| reports.iter().all(|one| one.plan.id != answer.plan.id);
    let new: Vec<_> = answers.iter().filter(|answer| is_new(answer)).cloned().collect();
    reports.extend(new);
    (reports, asked)
}

/// What an alert did not ask about is looked at on the occasion.
pub fn cause_of(report: &PlanReport, asked: &BTreeSet<String>, cause: LookCause) -> LookCause {
    match cause {
        LookCause::Alert if !asked.contains(&report.plan.id) => LookCause::Recheck,
        cause => cause,
    }
}
