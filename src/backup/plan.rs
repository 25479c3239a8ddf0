//! Backup plans, the last run of each of their modules, and the state that follows from it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::schedule::RunIntervals;
use crate::clock::Wall;
use crate::view::rfc3339;

/// A status from further in the future is damaged: no clock is that wrong.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(86_400);

/// A run may always be late by this, since no two runs take the same time.
const MIN_TOLERANCE: Duration = Duration::from_secs(600);

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
    /// Why this plan could not be read, if so; then nothing else is known of it.
    pub why: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
    /// Its status, or the schedule of its plan, cannot be read or does not say enough.
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
            ModuleState::Unreadable => "unreadable",
        }
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
}

/// The times that the last run of a module is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunWindow {
    /// The time of the evaluation.
    pub now: Wall,
    /// A success that ended before this is too old.
    pub success_since: Wall,
    /// A run that started before this and has not ended counts as failed.
    pub running_since: Wall,
    /// Whether the schedule of the plan is understood: else no run can be known to be missing.
    pub schedule_known: bool,
}

impl RunWindow {
    /// The window of a plan; a plan whose schedule is not understood is taken to run once in
    /// `default_interval`.
    ///
    /// A success counts for the longest interval between two runs, and for a twelfth of that more.
    /// When an alert names the plan, the success must also have ended later than half the shortest
    /// interval before the alert began: the run before does not disprove that this one is missing.
    /// An alert that names no plan accepts the whole longest interval before its beginning.
    pub fn new(
        schedule: Option<&str>,
        alert_time: Option<AlertTime>,
        default_interval: Duration,
        now: Wall,
    ) -> RunWindow {
        let known = schedule.and_then(RunIntervals::parse);
        let intervals =
            known.unwrap_or(RunIntervals { shortest: default_interval, longest: default_interval });
        let tolerance = (intervals.longest / 12).max(MIN_TOLERANCE);
        let regular = now - intervals.longest - tolerance;
        let success_since = alert_time.map_or(regular, |AlertTime { since, names_plan }| {
            let before = match names_plan {
                true => (intervals.shortest / 2).max(MIN_TOLERANCE),
                false => intervals.longest + MIN_TOLERANCE,
            };
            regular.max(since.min(now) - before)
        });
        let running_since = now - intervals.longest.max(MAX_RUN_TIME) - tolerance;
        RunWindow { now, success_since, running_since, schedule_known: known.is_some() }
    }
}

/// The state of a module, and the reason where the state alone does not say it.
pub fn evaluate(status: Option<&RunStatus>, window: RunWindow) -> (ModuleState, Option<String>) {
    let run = match status {
        None => return (ModuleState::Missing, Some("no run is known".into())),
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
                (ModuleState::Failed, Some(format!("began at {start} and never ended")))
            }
            _ => (ModuleState::Running, None),
        };
    }
    match (run.end, run.errors) {
        (None, _) => (ModuleState::Unreadable, Some("the status has no \"end\"".into())),
        (_, None) => (ModuleState::Unreadable, Some("the status has no \"errors\"".into())),
        (Some(_), Some(1..)) => (ModuleState::Failed, None),
        (Some(end), Some(0)) if end < window.success_since => {
            success_too_old(end, window.schedule_known)
        }
        (Some(_), Some(0)) => (ModuleState::Success, None),
    }
}

/// The state of a module whose last success is too old.
fn success_too_old(end: Wall, schedule_known: bool) -> (ModuleState, Option<String>) {
    if schedule_known {
        return (ModuleState::Missing, Some(format!("the last run ended at {end}")));
    }
    let why = "whether another run was due is not known: its schedule is not understood";
    (ModuleState::Unreadable, Some(why.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Wall = Wall(1_790_100_000_000);

    fn window() -> RunWindow {
        RunWindow {
            now: NOW,
            success_since: NOW - DAY,
            running_since: NOW - DAY,
            schedule_known: true,
        }
    }

    fn state(json: &str) -> ModuleState {
        evaluate(Some(&RunStatus::from_json(json)), window()).0
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
        assert_eq!(evaluate(None, window()).0, ModuleState::Missing);
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
        assert_eq!(evaluate(Some(&status), window()).0, ModuleState::Success);
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
            let (state, why) = evaluate(Some(&RunStatus::from_json(json)), window());
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

    /// The state of a module that succeeded so many minutes ago.
    fn succeeded(ago: u64, schedule: Option<&str>, alert_time: Option<AlertTime>) -> ModuleState {
        let end = NOW - Duration::from_secs(ago * 60);
        let status = RunStatus::Readable(BackupRun {
            end: Some(end),
            errors: Some(0),
            ..BackupRun::default()
        });
        evaluate(Some(&status), RunWindow::new(schedule, alert_time, DAY, NOW)).0
    }

    #[test]
    fn a_success_counts_for_one_period_and_a_twelfth() {
        const H: u64 = 60;
        for (schedule, last_good) in [
            (Some("*:0/15"), 25),
            (Some("hourly"), 70),
            (Some("daily"), 26 * H),
            (Some("Mon..Fri 03:00"), 78 * H),
            (Some("weekly"), 182 * H),
        ] {
            assert_eq!(succeeded(last_good, schedule, None), ModuleState::Success, "{schedule:?}");
            let late = succeeded(last_good + 1, schedule, None);
            assert_eq!(late, ModuleState::Missing, "{schedule:?}");
        }
        for schedule in [None, Some("whenever")] {
            assert_eq!(succeeded(26 * H, schedule, None), ModuleState::Success);
            assert_eq!(succeeded(26 * H + 1, schedule, None), ModuleState::Unreadable);
        }
    }

    #[test]
    fn the_run_before_does_not_disprove_a_complaint() {
        const H: u64 = 60;
        for (schedule, ago, complained, expected) in [
            // Last night's run, and an alert of this night that none is there.
            ("daily", 25 * H, 0, ModuleState::Missing),
            ("daily", 13 * H, 0, ModuleState::Missing),
            ("daily", 12 * H, 0, ModuleState::Success),
            ("daily", 13 * H, 2 * H, ModuleState::Success),
            // An alert that goes on, and a run that came after it.
            ("daily", H, 72 * H, ModuleState::Success),
            // One that goes on for weeks does not make what was fresh then fresh for ever.
            ("daily", 48 * H, 40 * H, ModuleState::Missing),
            ("hourly", 45, 0, ModuleState::Missing),
            ("hourly", 20, 0, ModuleState::Success),
            ("*:0/15", 11, 0, ModuleState::Missing),
            ("*:0/15", 5, 0, ModuleState::Success),
            ("Mon..Fri 03:00", 24 * H, 0, ModuleState::Missing),
            ("weekly", 100 * H, 0, ModuleState::Missing),
            ("weekly", 80 * H, 0, ModuleState::Success),
            ("whenever", 24 * H, 0, ModuleState::Unreadable),
        ] {
            let since = NOW - Duration::from_secs(complained * 60);
            let alert = Some(AlertTime { since, names_plan: true });
            assert_eq!(succeeded(ago, Some(schedule), alert), expected, "{schedule} {ago}");
        }
        let ahead = Some(AlertTime { since: NOW + DAY, names_plan: true });
        assert_eq!(succeeded(H, Some("daily"), ahead), ModuleState::Success);
    }

    #[test]
    fn a_complaint_about_no_plan_asks_of_each_the_run_that_was_due_before_it() {
        const H: u64 = 60;
        let nameless = Some(AlertTime { since: NOW, names_plan: false });
        for (schedule, ago, expected) in [
            ("daily", 25 * H, ModuleState::Missing),
            ("daily", 24 * H, ModuleState::Success),
            ("weekly", 120 * H, ModuleState::Success),
            ("hourly", 71, ModuleState::Missing),
        ] {
            assert_eq!(succeeded(ago, Some(schedule), nameless), expected, "{schedule} {ago}");
        }
    }

    #[test]
    fn a_long_run_of_an_hourly_plan_is_still_running() {
        let status =
            RunStatus::Readable(BackupRun { start: Some(NOW - 3 * HOUR), ..BackupRun::default() });
        let window = RunWindow::new(Some("hourly"), None, DAY, NOW);
        assert_eq!(evaluate(Some(&status), window).0, ModuleState::Running);
    }

    proptest! {
        #[test]
        fn no_status_is_a_crash(text in r#"[{}\[\]":, 0-9a-z.+-]{0,60}"#, number in any::<u64>()) {
            let json = format!(r#"{{"start": {number}, "end": {number}, "errors": 0}}"#);
            for text in [&text, &json] {
                let _ = evaluate(Some(&RunStatus::from_json(text)), window());
            }
            let fields = [("start", &text), ("end", &json)];
            let fields = fields.map(|(name, text)| (name.to_owned(), text.clone()));
            let _ = evaluate(Some(&RunStatus::from_fields(&BTreeMap::from(fields))), window());
            let _ = RunWindow::new(Some(&text), Some(AlertTime { since: Wall(0), names_plan: true }), DAY, NOW);
        }
    }
}
