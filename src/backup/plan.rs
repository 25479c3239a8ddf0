//! Backup plans, the last run of each of their modules, and the state that follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::schedule::{MAX_FIRST_RUN_TIME, Schedule, Zone, Zones, regular_end};
use crate::clock::Wall;
use crate::view::{ConfiguredView, rfc3339};

/// A status from further in the future is damaged: no clock is that wrong.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(86_400);

/// A run may always be late by this, since no two runs take the same time.
const MIN_TOLERANCE: Duration = Duration::from_secs(600);

/// A success that ended before an elapse by no more than this, or half the interval, counts for it:
/// someone started the plan by hand.
const MAX_EARLINESS: Duration = Duration::from_secs(3 * 3600);

/// A pass that may take all of the interval is looked at so long before the next one.
const LAST_LOOK: Duration = Duration::from_secs(60);

/// No run takes longer, unless its schedule has longer intervals.
const MAX_RUN_TIME: Duration = Duration::from_secs(86_400);

/// A backup plan and the states of its modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// The name that an administrator gave it.
    pub name: Option<String>,
    /// Whether it is switched on; none when the cluster does not know it.
    pub enabled: Option<bool>,
    /// When it runs (systemd's OnCalendar).
    pub schedule: Option<String>,
    /// Where it writes.
    pub destination: Option<Destination>,
    /// What it backs up.
    pub modules: Vec<Module>,
    /// In which people read its times.
    #[serde(skip)]
    pub zone: Zone,
    /// Why this plan could not be read, if so; then nothing else is known of it.
    pub why: Option<String>,
    /// How it is configured, and since when, where that was read.
    #[serde(skip)]
    pub configured: Option<ConfiguredView>,
    /// The ids of the modules that became part of it after its latest elapse, where others did not:
    /// they are pending, and say nothing about how it is.
    #[serde(skip)]
    pub not_due: BTreeSet<String>,
}

/// Where a plan writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// Its UUID.
    pub id: String,
    /// The name that an administrator gave it.
    pub name: Option<String>,
    /// The provider of the storage.
    pub provider: Option<String>,
}

/// A module of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its id: `mail1`.
    pub id: String,
    /// The label that an administrator gave it.
    pub ui_name: Option<String>,
    /// Its UUID, which is part of its repository's path.
    pub uuid: Option<String>,
    /// The name of its image, which is part of that path, too; none: its id without the trailing
    /// digits.
    #[serde(skip)]
    pub image: Option<String>,
    /// The node that wrote its status, else the one that it runs on.
    pub node: Option<String>,
    /// How its last run went.
    pub state: ModuleState,
    /// The reason, where the state alone does not say it.
    pub why: Option<String>,
    /// Its last run.
    pub run: Option<BackupRun>,
}

/// The outcome of the last run of a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleState {
    /// It ended without an error, and recently enough.
    Success,
    /// It ended with errors.
    Failed,
    /// There was none, or none recently enough.
    Missing,
    /// It has started and not ended.
    Running,
    /// The module has not had its turn in the present pass of its plan.
    Pending,
    /// Its status, or the schedule of its plan, cannot be read or does not say enough.
    #[default]
    Unreadable,
}

impl ModuleState {
    /// `success`, `failed` and so on.
    pub fn name(self) -> &'static str {
        match self {
            ModuleState::Success => "success",
            ModuleState::Failed => "failed",
            ModuleState::Missing => "missing",
            ModuleState::Running => "running",
            ModuleState::Pending => "pending",
            ModuleState::Unreadable => "unreadable",
        }
    }

    /// Whether its run of the present pass is still awaited.
    pub fn is_open(self) -> bool {
        matches!(self, ModuleState::Running | ModuleState::Pending)
    }
}

/// One run, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupRun {
    /// When it started.
    #[serde(serialize_with = "rfc3339")]
    pub start: Option<Wall>,
    /// When it ended.
    #[serde(serialize_with = "rfc3339")]
    pub end: Option<Wall>,
    /// How many errors it had; 0 is success.
    pub errors: Option<u64>,
    /// Bytes in its repository.
    pub size: Option<u64>,
    /// Files in its repository.
    pub files: Option<u64>,
    /// Snapshots in its repository.
    pub snapshots: Option<u64>,
}

/// The status of the last run of a module, as Redis holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// It was parsed.
    Readable(BackupRun),
    /// Its count of errors says that the run failed; what else it says cannot all be used, and why.
    Failed(BackupRun, String),
    /// It cannot be read or parsed, and why.
    Damaged(String),
}

impl RunStatus {
    /// Reads the current layout: one JSON object.
    pub fn from_json(text: &str) -> RunStatus {
        let fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return RunStatus::Damaged("the status is no JSON object".into()),
            Err(_) => return RunStatus::Damaged("the status is not JSON".into()),
        };
        RunStatus::from_reader(|name| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(value) => number(value).map(Some),
        })
    }

    /// Reads the older layout: the same values as the fields of a hash.
    pub fn from_fields(fields: &BTreeMap<String, String>) -> RunStatus {
        RunStatus::from_reader(|name| match fields.get(name).map(|text| text.trim()) {
            None | Some("") => Ok(None),
            Some(text) => number(&Value::from(text)).map(Some),
        })
    }

    fn from_reader(number: impl Fn(&str) -> Result<Option<u64>, ()>) -> RunStatus {
        let mut damage = None;
        let mut read = |name: &str| {
            number(name).unwrap_or_else(|()| {
                damage.get_or_insert(format!("\"{name}\" in the status is no whole number"));
                None
            })
        };
        let run = BackupRun {
            start: read("start").and_then(seconds),
            end: read("end").and_then(seconds),
            errors: read("errors"),
            size: read("total_size"),
            files: read("total_file_count"),
            snapshots: read("snapshots_count"),
        };
        if damage.is_none() && (run.end.is_none() && (run.start.is_none() || run.has_errors())) {
            damage = Some("the status has no \"end\"".into());
        }
        match damage {
            None => RunStatus::Readable(run),
            Some(why) if run.has_errors() => RunStatus::Failed(run, why),
            Some(why) => RunStatus::Damaged(why),
        }
    }

    /// The newer of two statuses of a module: the one with the later start or end. One without such
    /// a time may be the newest of all: only a run that ended after the alert began to fire, if that
    /// is known, counts for more.
    pub fn newer(self, other: RunStatus, alert_since: Option<Wall>) -> RunStatus {
        let is_newer = match (self.last_written(), other.last_written()) {
            (Some(time), Some(other_time)) => other_time > time,
            (Some(_), None) => !self.ended_after(alert_since),
            (None, Some(_)) => other.ended_after(alert_since),
            (None, None) => matches!(other, RunStatus::Failed(..)),
        };
        if is_newer { other } else { self }
    }

    fn ended_after(&self, alert_since: Option<Wall>) -> bool {
        match self {
            RunStatus::Readable(run) | RunStatus::Failed(run, _) => {
                alert_since.is_some_and(|since| run.end > Some(since))
            }
            RunStatus::Damaged(_) => false,
        }
    }

    /// When it was last written, as far as its times say.
    pub fn last_written(&self) -> Option<Wall> {
        match self {
            RunStatus::Readable(run) | RunStatus::Failed(run, _) => run.last_written(),
            RunStatus::Damaged(_) => None,
        }
    }
}

impl BackupRun {
    fn last_written(&self) -> Option<Wall> {
        self.start.max(self.end)
    }

    fn has_errors(&self) -> bool {
        self.errors > Some(0)
    }

    /// Whether it has started and not ended.
    fn is_running(&self) -> bool {
        self.start.is_some() && self.end.is_none_or(|end| self.start > Some(end))
    }
}

/// A whole number, also one that is written as a text.
fn number(value: &Value) -> Result<u64, ()> {
    if let Value::String(text) = value {
        let parsed = text.trim().parse::<serde_json::Number>();
        return parsed.map_err(|_| ()).and_then(|parsed| number(&Value::Number(parsed)));
    }
    let whole = |float: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        (0.0..9.0e15).contains(&float).then_some(float as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(whole)).ok_or(())
}

fn seconds(seconds: u64) -> Option<Wall> {
    // NethServer writes 0 for "never".
    let millis = i64::try_from(seconds.min(9_000_000_000_000)).ok()?.checked_mul(1000)?;
    (millis > 0).then_some(Wall(millis))
}

/// When an alert about a plan began to fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertTime {
    /// Since when it fires.
    pub since: Wall,
    /// Whether the alert names the plan: else it may be about another one.
    pub names_plan: bool,
    /// Since when an alert says that a run is missing, and not only that one failed.
    pub missing_since: Option<Wall>,
}

/// What is known of a plan when its modules are evaluated.
#[derive(Clone, Copy, Debug)]
pub struct PlanSituation<'a> {
    /// When it runs (systemd's OnCalendar).
    pub schedule: Option<&'a str>,
    /// Whether its timer is on: what is off is not awaited.
    pub enabled: bool,
    /// What elapsed before this is not awaited: the plan was off, or had another schedule.
    pub since: Option<Wall>,
    /// When an alert about it began to fire.
    pub alert_time: Option<AlertTime>,
    /// What its modules did last.
    pub history: PassHistory,
    /// A plan whose schedule is not understood is taken to run once in this time.
    pub default_interval: Duration,
    /// The time of the evaluation.
    pub now: Wall,
    /// Where the schedule is at home.
    pub zones: &'a Zones,
}

/// The last runs of the modules of a plan, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassHistory {
    /// How long they took: each node works through its own modules one after the other. None: some
    /// module never ran.
    pub usual_duration: Option<Duration>,
    /// When the last of them ended.
    pub last_end: Option<Wall>,
    /// The most snapshots that one of them has: more than one, and this is not the first pass.
    pub snapshots: Option<u64>,
}

impl PassHistory {
    /// Of each module the node, and its last run.
    pub fn of<'a>(
        runs: impl Iterator<Item = (Option<&'a str>, Option<&'a BackupRun>)>,
    ) -> PassHistory {
        let mut of_node: BTreeMap<Option<&str>, Duration> = BTreeMap::new();
        let (mut all_ran, mut last_end, mut snapshots) = (true, None, None);
        for (node, run) in runs {
            let Some(run) = run else {
                all_ran = false;
                continue;
            };
            let took = run.start.zip(run.end).map(|(start, end)| end.since(start));
            *of_node.entry(node).or_default() += took.unwrap_or_default();
            last_end = last_end.max(run.end);
            snapshots = snapshots.max(run.snapshots);
        }
        let usual_duration = of_node.into_values().max().filter(|_| all_ran);
        PassHistory { usual_duration, last_end, snapshots }
    }

    /// Whether an earlier pass may still go on, because some module makes its first full backup.
    fn first_pass_goes_on(&self, elapse: &Elapse, now: Wall) -> bool {
        let is_first = |end: Wall| {
            let of_earlier_pass = end < elapse.success_since()
                || self.snapshots <= Some(1) && elapse.after < MAX_FIRST_RUN_TIME;
            of_earlier_pass && now < end + MAX_FIRST_RUN_TIME
        };
        self.usual_duration.is_none() && self.last_end.is_some_and(is_first)
    }
}

/// The times that the last run of a module is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunWindow {
    /// The time of the evaluation.
    pub now: Wall,
    /// A success that ended before this is too old.
    pub success_since: Wall,
    /// A module whose last success ended before this is missing, even while a pass goes on: it missed
    /// the pass before as well, or an alert says that it is missing.
    pub missing_before: Option<Wall>,
    /// Whether an alert says that a run is missing: then a module that never ran is.
    pub is_missing_reported: bool,
    /// A run that started before this and has not ended counts as failed.
    pub running_since: Wall,
    /// Whether the schedule of the plan is understood: else no run can be known to be missing.
    pub schedule_known: bool,
    /// The pass that goes on; none when its time is over, or none was due.
    pub open_pass: Option<OpenPass>,
    /// In which people read times.
    pub zone: Zone,
}

/// A pass of a plan that may still go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPass {
    /// When it began; none: the first one is yet to come.
    pub elapse: Option<Wall>,
    /// The time to the next one.
    pub interval: Duration,
}

/// An elapse of a schedule, and how far its neighbours are away.
struct Elapse {
    at: Wall,
    before: Duration,
    after: Duration,
}

impl Elapse {
    /// The latest elapse at a moment.
    fn latest(schedule: &Schedule, until: Wall, default_interval: Duration) -> Option<Elapse> {
        let at = schedule.latest_elapse(until)?;
        let before = schedule.latest_elapse(Wall(at.0 - 1)).map(|before| at.since(before));
        let after = schedule.next_elapse(at).map(|next| next.since(at));
        let any = before.or(after).unwrap_or(default_interval);
        Some(Elapse { at, before: before.unwrap_or(any), after: after.unwrap_or(any) })
    }

    /// A success that ended before this is not one of its pass.
    fn success_since(&self) -> Wall {
        self.at - (self.before / 2).min(MAX_EARLINESS)
    }
}

impl RunWindow {
    /// The window of a plan.
    pub fn new(situation: PlanSituation) -> RunWindow {
        match situation.schedule.and_then(|text| Schedule::parse(text, situation.zones)) {
            Some(schedule) => RunWindow::of_schedule(&schedule, situation),
            None => RunWindow::without_schedule(situation),
        }
    }

    /// A success counts when it is one of the latest pass. Until the regular time of that pass is
    /// over, a module without one is awaited, unless it missed the pass before as well.
    fn of_schedule(schedule: &Schedule, situation: PlanSituation) -> RunWindow {
        let PlanSituation { enabled, now, default_interval, .. } = situation;
        let zone = situation.zones.local().clone();
        let complained = situation.alert_time.and_then(|alert| alert.missing_since);
        // What elapses after a plan was switched off is missed only where an alert says so.
        let is_awaited = enabled || complained.is_some() || situation.since.is_none();
        let latest = |until| {
            let elapse = Elapse::latest(schedule, until, default_interval);
            let counts = |at| is_awaited && situation.since.is_none_or(|since| at > since);
            elapse.filter(|elapse| counts(elapse.at))
        };
        let Some(elapse) = latest(now) else {
            let (elapse, interval) = (None, default_interval);
            return RunWindow {
                now,
                success_since: Wall(i64::MIN),
                missing_before: None,
                is_missing_reported: false,
                running_since: now - MAX_RUN_TIME,
                schedule_known: true,
                open_pass: enabled.then_some(OpenPass { elapse, interval }),
                zone,
            };
        };
        let success_since = |until| latest(until).map(|earlier| earlier.success_since());
        let history = situation.history;
        let first_pass = history.first_pass_goes_on(&elapse, now);
        // What elapses while a pass goes on is skipped by systemd.
        let usual = history.usual_duration.unwrap_or_default().max(Duration::from_millis(1));
        let earlier = success_since(elapse.at - usual).filter(|_| !first_pass);
        let missing_before =
            earlier.max(complained.and_then(|since| success_since(since.min(now))));
        let until = regular_end(elapse.at, history.usual_duration, elapse.after);
        let is_open = enabled && (now < until || first_pass);
        let pass = OpenPass { elapse: Some(elapse.at), interval: elapse.after };
        RunWindow {
            now,
            success_since: elapse.success_since(),
            missing_before,
            is_missing_reported: complained.is_some(),
            running_since: now - elapse.after.max(MAX_RUN_TIME) - MIN_TOLERANCE,
            schedule_known: true,
            open_pass: is_open.then_some(pass),
            zone,
        }
    }

    /// A success counts for the interval, and for a twelfth of that more. When an alert names the
    /// plan, the success must also have ended later than half the interval before the alert began.
    fn without_schedule(situation: PlanSituation) -> RunWindow {
        let PlanSituation { default_interval: interval, now, .. } = situation;
        let tolerance = (interval / 12).max(MIN_TOLERANCE);
        let regular = now - interval - tolerance;
        let of_alert = |AlertTime { since, names_plan, .. }: AlertTime| {
            let before = if names_plan { interval / 2 } else { interval };
            regular.max(since.min(now) - before.max(MIN_TOLERANCE))
        };
        RunWindow {
            now,
            success_since: situation.alert_time.map_or(regular, of_alert),
            missing_before: None,
            is_missing_reported: false,
            running_since: now - interval.max(MAX_RUN_TIME) - tolerance,
            schedule_known: false,
            open_pass: None,
            zone: situation.zones.local().clone(),
        }
    }

    /// The state of a module without a success in the latest pass, and with this earlier one.
    fn without_success(&self, earlier: Option<Wall>) -> (ModuleState, Option<String>) {
        if !self.schedule_known && earlier.is_some() {
            let why = "whether another run was due is not known: its schedule is not understood";
            return (ModuleState::Unreadable, Some(why.into()));
        }
        let is_late = match earlier {
            Some(earlier) => self.missing_before.is_some_and(|before| earlier < before),
            None => self.is_missing_reported,
        };
        match self.open_pass.filter(|_| !is_late) {
            Some(pass) => {
                let last = match earlier {
                    Some(at) => format!("last success {}", self.day_and_time(at)),
                    None => "no run is known".into(),
                };
                (ModuleState::Pending, Some(format!("{last}, {}", self.not_yet_run(pass))))
            }
            None => {
                let why = match earlier {
                    Some(at) => format!("the last run ended {}", self.zone.format_minute(at)),
                    None => "no run is known".into(),
                };
                (ModuleState::Missing, Some(why))
            }
        }
    }

    /// `not yet run tonight`, `not yet run since 14:00`.
    fn not_yet_run(&self, pass: OpenPass) -> String {
        let Some(elapse) = pass.elapse else { return "not yet due".into() };
        let hour = |at| self.zone.civil_time(at).hour();
        let is_night = |at| !(6..18).contains(&hour(at));
        let one_night =
            is_night(elapse) && is_night(self.now) && self.now.since(elapse) < MAX_RUN_TIME / 2;
        if one_night && pass.interval >= MAX_RUN_TIME / 2 {
            return "not yet run tonight".into();
        }
        let since = self.day_and_time(elapse);
        format!("not yet run since {}", since.strip_prefix("today ").unwrap_or(&since))
    }

    /// `yesterday 22:52`.
    fn day_and_time(&self, at: Wall) -> String {
        let (civil, today) = (self.zone.civil_time(at), self.zone.civil_time(self.now).date());
        let time = civil.strftime("%H:%M");
        match civil.date() {
            day if day == today => format!("today {time}"),
            day if today.yesterday().is_ok_and(|yesterday| day == yesterday) => {
                format!("yesterday {time}")
            }
            day => format!("{day} {time}"),
        }
    }
}

impl Plan {
    /// The modules that say how it is: all but those that are not due yet.
    pub fn due_modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(|module| !self.not_due.contains(&module.id))
    }

    /// The next moment after `after` at which a pass of this plan should be over; none when it never
    /// runs, or its schedule is not understood.
    pub fn next_regular_end(&self, zones: &Zones, after: Wall) -> Option<Wall> {
        let schedule = Schedule::parse(self.schedule.as_deref()?, zones)?;
        let runs = self.due_modules().map(|module| (module.node.as_deref(), module.run.as_ref()));
        let usual = PassHistory::of(runs).usual_duration;
        let end = |at: Wall| {
            let next = schedule.next_elapse(at).or_else(|| schedule.latest_elapse(Wall(at.0 - 1)));
            let interval = next.map_or(MAX_RUN_TIME, |next| next.since(at).max(at.since(next)));
            // Before the next pass begins: then none of its modules has had its turn again.
            let latest = at + interval.saturating_sub(LAST_LOOK);
            regular_end(at, usual, interval).min(latest)
        };
        let of_latest = schedule.latest_elapse(after).map(end).filter(|end| *end > after);
        of_latest.or_else(|| schedule.next_elapse(after).map(end))
    }
}

/// The state of a module, and the reason where the state alone does not say it.
pub fn evaluate(status: Option<&RunStatus>, window: &RunWindow) -> (ModuleState, Option<String>) {
    let run = match status {
        None => return window.without_success(None),
        Some(RunStatus::Damaged(why)) => return (ModuleState::Unreadable, Some(why.clone())),
        Some(RunStatus::Failed(_, why)) => return (ModuleState::Failed, Some(why.clone())),
        Some(RunStatus::Readable(run)) => run,
    };
    if run.last_written() > Some(window.now + MAX_CLOCK_SKEW) {
        let failed = run.has_errors();
        let state = if failed { ModuleState::Failed } else { ModuleState::Unreadable };
        return (state, Some("its run lies in the future".into()));
    }
    if run.is_running() {
        return match run.start {
            Some(start) if start < window.running_since => {
                let start = window.zone.format_minute(start);
                (ModuleState::Failed, Some(format!("began {start} and never ended")))
            }
            _ => (ModuleState::Running, None),
        };
    }
    match (run.end, run.errors) {
        (None, _) => (ModuleState::Unreadable, Some("the status has no \"end\"".into())),
        (_, None) => (ModuleState::Unreadable, Some("the status has no \"errors\"".into())),
        (Some(end), Some(1..)) => {
            let has_not_run =
                window.schedule_known && window.open_pass.is_none() && end < window.success_since;
            (ModuleState::Failed, has_not_run.then(|| "has not run since".into()))
        }
        (Some(end), Some(0)) if end < window.success_since => window.without_success(Some(end)),
        (Some(_), Some(0)) => (ModuleState::Success, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Wall = Wall(1_790_100_000_000);

    fn window() -> RunWindow {
        RunWindow {
            now: NOW,
            success_since: NOW - DAY,
            missing_before: None,
            is_missing_reported: false,
            running_since: NOW - DAY,
            schedule_known: true,
            open_pass: None,
            zone: Zone::default(),
        }
    }

    fn state(json: &str) -> ModuleState {
        evaluate(Some(&RunStatus::from_json(json)), &window()).0
    }

    #[test]
    fn a_status_is_judged_by_its_errors_and_its_end() {
        for (json, expected) in [
            (r#"{"start": 1790090000, "errors": 0, "end": 1790090420}"#, ModuleState::Success),
            (r#"{"start": 1790090000, "errors": 2, "end": 1790090420}"#, ModuleState::Failed),
            (r#"{"start": 1790000000, "errors": 0, "end": 1790000420}"#, ModuleState::Missing),
            (r#"{"start": 1790000000, "errors": 1, "end": 1790000420}"#, ModuleState::Failed),
            (r#"{"start": 1790090000}"#, ModuleState::Running),
            (r#"{"start": 1790099000, "errors": 0, "end": 1790090420}"#, ModuleState::Running),
            (r#"{"start": 1780000000}"#, ModuleState::Failed),
            (r#"{"errors": 0}"#, ModuleState::Unreadable),
            (r#"{"start": 1790090000, "end": 1790090420}"#, ModuleState::Unreadable),
            (
                r#"{"start": "1790090000", "errors": "0", "end": " 1790090420 "}"#,
                ModuleState::Success,
            ),
            (r#"{"errors": "2", "end": "1790090420", "total_size": ""}"#, ModuleState::Failed),
            (r#"{"errors": "none", "end": 1790090420}"#, ModuleState::Unreadable),
            (r#"{"errors": true, "end": 1790090420}"#, ModuleState::Unreadable),
            (r#"{"start": 1790090000, "errors": -1, "end": 1790090420}"#, ModuleState::Unreadable),
            (r#"{"start": 1, "errors": 0, "end": 1790990420}"#, ModuleState::Unreadable),
            (r#"{"start": 1.79009e9, "errors": 0.0, "end": 1790090420.5}"#, ModuleState::Success),
            ("[]", ModuleState::Unreadable),
            ("{", ModuleState::Unreadable),
            ("", ModuleState::Unreadable),
            ("{}", ModuleState::Unreadable),
        ] {
            assert_eq!(state(json), expected, "{json}");
        }
        assert_eq!(evaluate(None, &window()).0, ModuleState::Missing);
    }

    #[test]
    fn the_older_layout_holds_the_same_as_texts() {
        let fields = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let status = RunStatus::from_fields(&fields(&[
            ("start", "1790090000"),
            ("end", "1790090420"),
            ("errors", "0"),
            ("total_size", ""),
        ]));
        assert_eq!(evaluate(Some(&status), &window()).0, ModuleState::Success);
        let damaged = RunStatus::from_fields(&fields(&[("end", "soon"), ("errors", "0")]));
        assert_eq!(damaged, RunStatus::Damaged("\"end\" in the status is no whole number".into()));
    }

    #[test]
    fn a_run_with_errors_was_unreadable_because_of_another_value() {
        for (json, what) in [
            (r#"{"errors": 2, "end": 1790090420, "total_size": 1e300}"#, "\"total_size\""),
            (r#"{"errors": 2, "end": 1790090420, "total_size": -5}"#, "\"total_size\""),
            (r#"{"errors": "2", "end": 1790090420, "snapshots_count": []}"#, "\"snapshots_count\""),
            (r#"{"errors": 2, "end": 1790090420, "total_file_count": "many"}"#, "\"total_file"),
            (r#"{"errors": 2, "end": "soon", "start": 1790090000}"#, "\"end\""),
            (r#"{"errors": 2, "end": -1}"#, "\"end\""),
            (r#"{"errors": 2, "start": -1, "end": 1790090420}"#, "\"start\""),
            (r#"{"errors": 2, "start": 1790090000}"#, "no \"end\""),
            (r#"{"errors": 2}"#, "no \"end\""),
            (r#"{"errors": 2, "end": 1990090420}"#, "future"),
        ] {
            let (state, why) = evaluate(Some(&RunStatus::from_json(json)), &window());
            assert_eq!(state, ModuleState::Failed, "{json}");
            assert!(why.as_ref().is_some_and(|why| why.contains(what)), "{json}: {why:?}");
        }
        let good = r#"{"errors": 0, "end": 1790090420, "total_size": -5}"#;
        assert_eq!(
            state(good),
            ModuleState::Unreadable,
            "what says that all is well must be whole"
        );
    }

    #[test]
    fn a_failure_without_a_time_is_not_passed_over_for_an_older_success() {
        let failed = RunStatus::from_json(r#"{"errors": 2, "end": "soon"}"#);
        let success = RunStatus::from_json(r#"{"errors": 0, "end": 1790000000}"#);
        let garbage = RunStatus::Damaged("x".into());
        for (one, two) in [(&failed, &success), (&success, &failed), (&garbage, &failed)] {
            assert_eq!(one.clone().newer(two.clone(), None), failed);
        }
        let alert_since = Some(Wall(1_789_999_999_000));
        assert_eq!(failed.clone().newer(success.clone(), alert_since), success);
        let old = RunStatus::from_json(r#"{"errors": 2, "end": 1780000000, "total_size": -5}"#);
        assert_eq!(old.newer(success.clone(), None), success, "it is the older one");
    }

    #[test]
    fn of_two_layouts_the_newer_end_counts() {
        let old = RunStatus::from_json(r#"{"errors": 0, "end": 1}"#);
        let new = RunStatus::from_json(r#"{"errors": 1, "end": 2}"#);
        assert_eq!(old.clone().newer(new.clone(), None), new);
        assert_eq!(new.clone().newer(old, None), new);
    }

    #[test]
    fn what_is_damaged_is_not_passed_over_for_an_older_success() {
        let run = RunStatus::from_json(r#"{"errors": 0, "end": 1790000000}"#);
        let end = Wall(1_790_000_000_000);
        for damaged in [RunStatus::Damaged("x".into()), RunStatus::from_json(r#"{"errors": 0}"#)] {
            for (alert_since, expected) in [
                (None, &damaged),
                (Some(end), &damaged),
                (Some(end + HOUR), &damaged),
                (Some(end - HOUR), &run),
            ] {
                assert_eq!(damaged.clone().newer(run.clone(), alert_since), *expected);
                assert_eq!(run.clone().newer(damaged.clone(), alert_since), *expected);
            }
        }
    }

    fn situation<'a>(schedule: Option<&'a str>, zones: &'a Zones, now: Wall) -> PlanSituation<'a> {
        PlanSituation {
            since: None,
            schedule,
            enabled: true,
            alert_time: None,
            history: history(Some(20)),
            default_interval: DAY,
            now,
            zones,
        }
    }

    fn history(usual_minutes: Option<u32>) -> PassHistory {
        let usual_duration = usual_minutes.map(|minutes| minutes * MINUTE);
        PassHistory { usual_duration, ..PassHistory::default() }
    }

    /// `2026-11-30 22:10` in Rome.
    fn rome(text: &str) -> Wall {
        let at: jiff::civil::DateTime = text.parse().unwrap();
        Wall(at.in_tz("Europe/Rome").unwrap().timestamp().as_millisecond())
    }

    fn zones() -> Zones {
        Zones::with_local("Europe/Rome").unwrap()
    }

    /// A success that ended then; none: no run is known.
    fn success(end: Option<&str>) -> Option<RunStatus> {
        let run = |end| BackupRun { end: Some(rome(end)), errors: Some(0), ..BackupRun::default() };
        end.map(run).map(RunStatus::Readable)
    }

    /// `pending: last success yesterday 22:52, not yet run tonight`.
    fn told(status: Option<&RunStatus>, situation: PlanSituation) -> String {
        let (state, why) = evaluate(status, &RunWindow::new(situation));
        why.map_or(state.name().into(), |why| format!("{}: {why}", state.name()))
    }

    #[test]
    fn a_module_that_has_not_had_its_turn_is_not_missing() {
        for (schedule, now, last, expected) in [
            (
                "22:00",
                "2026-11-30 22:10",
                "2026-11-29 22:52",
                "pending: last success yesterday 22:52, not yet run tonight",
            ),
            (
                "22:00",
                "2026-12-01 01:10",
                "2026-11-29 22:52",
                "pending: last success 2026-11-29 22:52, not yet run tonight",
            ),
            // In the morning "tonight" is the next night.
            (
                "05:00",
                "2026-12-01 08:53",
                "2026-11-30 05:10",
                "pending: last success yesterday 05:10, not yet run since 05:00",
            ),
            ("22:00", "2026-11-30 22:10", "2026-11-30 22:05", "success"),
            ("22:00", "2026-11-30 21:59", "2026-11-29 22:05", "success"),
            // It began before its time and ended after it, or was over a little before.
            ("22:00", "2026-11-30 22:10", "2026-11-30 22:01", "success"),
            ("22:00", "2026-11-30 22:10", "2026-11-30 19:01", "success"),
            (
                "22:00",
                "2026-11-30 22:10",
                "2026-11-30 18:59",
                "pending: last success today 18:59, not yet run tonight",
            ),
            // Its regular time is over after six hours.
            (
                "22:00",
                "2026-12-01 03:59",
                "2026-11-29 22:05",
                "pending: last success 2026-11-29 22:05, not yet run tonight",
            ),
            (
                "22:00",
                "2026-12-01 04:00",
                "2026-11-29 22:05",
                "missing: the last run ended 2026-11-29 22:05 CET",
            ),
            (
                "22:00",
                "2026-12-01 21:59",
                "2026-11-29 22:05",
                "missing: the last run ended 2026-11-29 22:05 CET",
            ),
            // It has missed the night before as well.
            (
                "22:00",
                "2026-11-30 22:10",
                "2026-11-28 22:05",
                "missing: the last run ended 2026-11-28 22:05 CET",
            ),
            (
                "13:00",
                "2026-11-30 13:10",
                "2026-11-29 13:05",
                "pending: last success yesterday 13:05, not yet run since 13:00",
            ),
            (
                "hourly",
                "2026-11-30 02:10",
                "2026-11-30 01:09",
                "pending: last success today 01:09, not yet run since 02:00",
            ),
            ("hourly", "2026-11-30 02:10", "2026-11-30 01:31", "success"),
            (
                "hourly",
                "2026-11-30 02:41",
                "2026-11-30 01:09",
                "missing: the last run ended 2026-11-30 01:09 CET",
            ),
            (
                "*:0/15",
                "2026-11-30 02:09",
                "2026-11-30 01:47",
                "pending: last success today 01:47, not yet run since 02:00",
            ),
            (
                "Sun 23:00",
                "2026-11-30 00:10",
                "2026-11-22 23:10",
                "pending: last success 2026-11-22 23:10, not yet run tonight",
            ),
            (
                "Mon..Fri 03:00",
                "2026-11-30 03:10",
                "2026-11-27 03:10",
                "pending: last success 2026-11-27 03:10, not yet run tonight",
            ),
            ("Mon..Fri 03:00", "2026-11-29 23:10", "2026-11-27 03:10", "success"),
            (
                "Mon..Fri 03:00",
                "2026-11-30 23:10",
                "2026-11-27 03:10",
                "missing: the last run ended 2026-11-27 03:10 CET",
            ),
            ("03:00 UTC", "2026-11-30 03:30", "2026-11-29 04:10", "success"),
            (
                "03:00 UTC",
                "2026-11-30 04:05",
                "2026-11-29 04:10",
                "pending: last success yesterday 04:10, not yet run tonight",
            ),
            // The clocks skip 02:30 in the one night and show it twice in the other.
            ("02:30", "2026-03-29 03:30", "2026-03-28 02:40", "success"),
            (
                "02:30",
                "2026-10-25 02:31",
                "2026-10-24 02:40",
                "pending: last success yesterday 02:40, not yet run tonight",
            ),
        ] {
            let (status, zones) = (success(Some(last)), zones());
            let told = told(status.as_ref(), situation(Some(schedule), &zones, rome(now)));
            assert_eq!(told, expected, "{schedule} {now} {last}");
        }
    }

    #[test]
    fn a_pass_may_take_as_long_as_it_usually_takes_and_as_long_again() {
        for (schedule, usual, now, last, expected) in [
            ("hourly", 50, "2026-11-30 14:58", "2026-11-30 13:20", "pending"),
            ("hourly", 5, "2026-11-30 14:20", "2026-11-30 13:20", "missing"),
            ("22:00", 300, "2026-12-01 07:30", "2026-11-30 03:00", "pending"),
            ("22:00", 300, "2026-12-01 08:30", "2026-11-30 03:00", "missing"),
            ("22:00", 900, "2026-12-01 21:30", "2026-11-30 13:00", "pending"),
            // It skips every other hour.
            ("hourly", 70, "2026-11-30 16:05", "2026-11-30 14:20", "pending"),
            ("hourly", 70, "2026-11-30 18:05", "2026-11-30 14:20", "missing"),
        ] {
            let (status, zones) = (success(Some(last)), zones());
            let situation = PlanSituation {
                history: history(Some(usual)),
                ..situation(Some(schedule), &zones, rome(now))
            };
            let state = evaluate(status.as_ref(), &RunWindow::new(situation)).0;
            assert_eq!(state.name(), expected, "{schedule} {usual} {now} {last}");
        }
    }

    #[test]
    fn a_first_backup_of_13_hours_is_not_missing() {
        for (now, expected) in [
            ("2026-11-30 22:10", "pending: no run is known, not yet run tonight"),
            ("2026-12-01 11:00", "pending: no run is known, not yet run since yesterday 22:00"),
            ("2026-12-01 16:00", "missing: no run is known"),
        ] {
            let zones = zones();
            let situation = PlanSituation {
                history: history(None),
                ..situation(Some("22:00"), &zones, rome(now))
            };
            assert_eq!(told(None, situation), expected, "{now}");
        }
    }

    #[test]
    fn a_first_backup_of_13_hours_holds_up_an_hourly_plan_and_nothing_is_missing() {
        let ended = rome("2026-11-30 14:10");
        for (now, last, snapshots, expected) in [
            ("2026-11-30 14:50", None, None, "pending"),
            ("2026-11-30 14:50", None, Some(1), "pending"),
            ("2026-11-30 20:50", None, Some(1), "pending"),
            ("2026-11-30 20:50", Some("2026-11-30 14:10"), Some(1), "pending"),
            ("2026-12-01 08:50", None, Some(1), "missing"),
            // The others run hour by hour, and this one does not.
            ("2026-11-30 14:50", None, Some(2), "missing"),
        ] {
            let (status, zones) = (success(last), zones());
            let situation = PlanSituation {
                history: PassHistory { usual_duration: None, last_end: Some(ended), snapshots },
                ..situation(Some("hourly"), &zones, rome(now))
            };
            let state = evaluate(status.as_ref(), &RunWindow::new(situation)).0;
            assert_eq!(state.name(), expected, "{now} {last:?}");
        }
    }

    #[test]
    fn what_is_not_awaited_is_not_pending() {
        let (now, zones) = (rome("2026-11-30 22:10"), zones());
        let plan = situation(Some("22:00"), &zones, now);
        let off = PlanSituation { enabled: false, ..plan };
        assert!(told(None, off).starts_with("missing"));
        let failed = |end: &str| {
            let run = BackupRun { end: Some(rome(end)), errors: Some(1), ..BackupRun::default() };
            RunStatus::Readable(run)
        };
        assert_eq!(told(Some(&failed("2026-11-29 22:02")), plan), "failed");
        let later = PlanSituation { now: now + DAY / 2, ..plan };
        assert_eq!(told(Some(&failed("2026-11-29 22:02")), later), "failed: has not run since");
        assert_eq!(told(Some(&failed("2026-11-30 22:02")), later), "failed");
        let future = PlanSituation { schedule: Some("2030-01-01"), ..plan };
        assert_eq!(told(None, future), "pending: no run is known, not yet due");
        assert_eq!(told(success(Some("2025-01-01 00:00")).as_ref(), future), "success");
    }

    #[test]
    fn an_alert_that_a_run_is_missing_is_believed_at_once() {
        for (since, now, last, expected) in [
            ("2026-11-30 22:05", "2026-11-30 22:10", Some("2026-11-29 22:52"), "missing"),
            ("2026-11-30 22:05", "2026-11-30 22:10", None, "missing"),
            ("2026-11-30 22:05", "2026-11-30 22:10", Some("2026-11-30 22:06"), "success"),
            // The alert is about the night before, which this module has not missed.
            ("2026-11-30 09:00", "2026-11-30 22:10", Some("2026-11-29 22:52"), "pending"),
            ("2026-11-30 09:00", "2026-11-30 22:10", Some("2026-11-28 22:52"), "missing"),
        ] {
            let (status, zones) = (success(last), zones());
            let since = rome(since);
            let alert = AlertTime { since, names_plan: true, missing_since: Some(since) };
            let situation = PlanSituation {
                alert_time: Some(alert),
                ..situation(Some("22:00"), &zones, rome(now))
            };
            let state = evaluate(status.as_ref(), &RunWindow::new(situation)).0;
            assert_eq!(state.name(), expected, "{since} {now} {last:?}");
        }
    }

    #[test]
    fn a_plan_whose_schedule_is_not_understood_has_nothing_missing() {
        const H: u64 = 60;
        let named = |ago: u64| AlertTime {
            since: NOW - Duration::from_secs(ago * 60),
            names_plan: true,
            missing_since: None,
        };
        for (schedule, ago, alert_time, expected) in [
            (None, 26 * H, None, ModuleState::Success),
            (None, 26 * H + 1, None, ModuleState::Unreadable),
            (Some("whenever"), 24 * H, None, ModuleState::Success),
            (Some("whenever"), 24 * H, Some(named(0)), ModuleState::Unreadable),
            (Some("whenever"), 13 * H, Some(named(2 * H)), ModuleState::Success),
        ] {
            let zones = Zones::default();
            let end = Some(NOW - Duration::from_secs(ago * 60));
            let run = BackupRun { end, errors: Some(0), ..BackupRun::default() };
            let situation = PlanSituation { alert_time, ..situation(schedule, &zones, NOW) };
            let window = RunWindow::new(situation);
            let state = evaluate(Some(&RunStatus::Readable(run)), &window).0;
            assert_eq!(state, expected, "{schedule:?} {ago}");
        }
    }

    #[test]
    fn a_long_run_of_an_hourly_plan_is_still_running() {
        let status =
            RunStatus::Readable(BackupRun { start: Some(NOW - 3 * HOUR), ..BackupRun::default() });
        let zones = Zones::default();
        let window = RunWindow::new(situation(Some("hourly"), &zones, NOW));
        assert_eq!(evaluate(Some(&status), &window).0, ModuleState::Running);
    }

    #[test]
    fn a_pass_takes_as_long_as_the_slowest_node() {
        let run = |minutes: u32| BackupRun {
            start: Some(NOW),
            end: Some(NOW + minutes * MINUTE),
            ..BackupRun::default()
        };
        let (one, two, three) = (run(10), run(20), run(25));
        let runs = [(Some("1"), Some(&one)), (Some("1"), Some(&two)), (Some("2"), Some(&three))];
        let last_end = Some(NOW + 25 * MINUTE);
        let usual_duration = Some(30 * MINUTE);
        let history = PassHistory { usual_duration, last_end, snapshots: None };
        assert_eq!(PassHistory::of(runs.into_iter()), history);
        let with_new = runs.into_iter().chain([(None, None)]);
        assert_eq!(PassHistory::of(with_new), PassHistory { usual_duration: None, ..history });
    }

    #[test]
    fn the_next_look_is_when_a_pass_should_be_over() {
        let module = |start: &str, end: &str| Module {
            run: Some(BackupRun {
                start: Some(rome(start)),
                end: Some(rome(end)),
                ..BackupRun::default()
            }),
            id: "mail1".into(),
            state: ModuleState::Success,
            ..Module::default()
        };
        let modules = vec![module("2026-11-29 22:00", "2026-11-29 22:40")];
        for (schedule, after, expected) in [
            ("22:00", "2026-11-30 21:00", "2026-12-01 04:00"),
            ("22:00", "2026-12-01 03:59", "2026-12-01 04:00"),
            ("22:00", "2026-12-01 04:00", "2026-12-02 04:00"),
            // A minute before the next pass begins: else none was ever seen to be over.
            ("hourly", "2026-11-30 21:10", "2026-11-30 21:59"),
            ("hourly", "2026-11-30 21:59", "2026-11-30 22:59"),
            ("*:0/15", "2026-11-30 21:10", "2026-11-30 21:14"),
            ("Sun 22:00", "2026-11-30 09:00", "2026-12-07 04:00"),
        ] {
            let schedule = Some(schedule.to_owned());
            let plan = Plan { schedule, modules: modules.clone(), ..Plan::default() };
            let next = plan.next_regular_end(&zones(), rome(after));
            assert_eq!(next, Some(rome(expected)), "{plan:?} {after}");
        }
        for schedule in ["2020-01-01", "whenever"] {
            let plan = Plan { schedule: Some(schedule.into()), ..Plan::default() };
            assert_eq!(plan.next_regular_end(&zones(), NOW), None);
        }
    }

    proptest! {
        #[test]
        fn no_status_is_a_crash(text in r#"[{}\[\]":, 0-9a-z.+-]{0,60}"#, number in any::<u64>()) {
            let json = format!(r#"{{"start": {number}, "end": {number}, "errors": 0}}"#);
            for text in [&text, &json] {
                let _ = evaluate(Some(&RunStatus::from_json(text)), &window());
            }
            let fields = [("start", &text), ("end", &json)];
            let fields = fields.map(|(name, text)| (name.to_owned(), text.clone()));
            let _ = evaluate(Some(&RunStatus::from_fields(&BTreeMap::from(fields))), &window());
            let zones = Zones::default();
            let alert_time = AlertTime { since: Wall(0), names_plan: true, missing_since: None };
            let situation = situation(Some(&text), &zones, NOW);
            let _ = RunWindow::new(PlanSituation { alert_time: Some(alert_time), ..situation });
        }
    }
}
