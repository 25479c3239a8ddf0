//! What is kept about a backup plan, and what that says about its modules. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::schedule::RunIntervals;
use crate::clock::Wall;
use crate::view::rfc3339;

/// A status from further ahead than this is damaged: no clock is so wrong.
const LONGEST_SKEW: Duration = Duration::from_secs(86_400);

/// No two runs take the same time: what a run may always be late by.
const LEAST_TOLERANCE: Duration = Duration::from_secs(600);

/// No run takes longer, unless its schedule has longer gaps.
const LONGEST_RUN: Duration = Duration::from_secs(86_400);

/// A plan and how its modules fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether it is switched on; none when the cluster does not know it.
    pub enabled: Option<bool>,
    /// When it runs (systemd's OnCalendar).
    pub schedule: Option<String>,
    /// Where it writes.
    pub destination: Option<Destination>,
    /// What it backs up.
    pub modules: Vec<Module>,
}

/// Where a plan writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// Its UUID.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Who runs it.
    pub provider: Option<String>,
}

/// A module of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its id: `mail1`.
    pub id: String,
    /// The label that people gave it.
    pub ui_name: Option<String>,
    /// Its UUID, which is part of its repository's path.
    pub uuid: Option<String>,
    /// The node that it runs on, or that told of it.
    pub node: Option<String>,
    /// How its last run went.
    pub state: ModuleState,
    /// Why, where that is not plain.
    pub why: Option<String>,
    /// Its last run.
    pub run: Option<BackupRun>,
}

/// How the last run of a module went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleState {
    /// It ended without an error, and lately.
    Success,
    /// It ended with errors.
    Failed,
    /// There was none, or none lately.
    Missing,
    /// It has begun and not ended.
    Running,
    /// What is kept about it, or its plan, is damaged or does not say enough.
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
    /// When it began.
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

/// What is kept about the last run of a module, sound or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// It could be read.
    Readable(BackupRun),
    /// It could not, and why.
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
        RunStatus::from_numbers(|name| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => number(value).map(Some),
        })
    }

    /// Reads the older layout: the same facts as the texts of a hash.
    pub fn from_texts(fields: &BTreeMap<String, String>) -> RunStatus {
        RunStatus::from_numbers(|name| match fields.get(name).map(|text| text.trim()) {
            None | Some("") => Ok(None),
            Some(text) => {
                let value = text.parse::<serde_json::Number>().map_err(|_| ())?;
                number(&Value::Number(value)).map(Some)
            }
        })
    }

    fn from_numbers(number: impl Fn(&str) -> Result<Option<u64>, ()>) -> RunStatus {
        let read = |name: &str| {
            number(name).map_err(|()| format!("\"{name}\" in the status is no whole number"))
        };
        let run = || -> Result<BackupRun, String> {
            Ok(BackupRun {
                start: read("start")?.and_then(seconds),
                end: read("end")?.and_then(seconds),
                errors: read("errors")?,
                size: read("total_size")?,
                files: read("total_file_count")?,
                snapshots: read("snapshots_count")?,
            })
        };
        match run() {
            Ok(BackupRun { start: None, end: None, .. }) => {
                RunStatus::Damaged("the status has no \"end\"".into())
            }
            Ok(run) => RunStatus::Readable(run),
            Err(why) => RunStatus::Damaged(why),
        }
    }

    /// Of two that stand side by side, the newer end counts. A run that has begun after the other
    /// ended is newer, too. What is damaged may be the newest of all: only a run that ended after
    /// somebody complained, if that is known, says more.
    pub fn newer(self, other: RunStatus, alarmed: Option<Wall>) -> RunStatus {
        let after = |run: &BackupRun| alarmed.is_some_and(|alarmed| run.end > Some(alarmed));
        match (&self, &other) {
            (RunStatus::Damaged(_), RunStatus::Readable(run)) if after(run) => other,
            (RunStatus::Readable(run), RunStatus::Damaged(_)) if !after(run) => other,
            (RunStatus::Readable(one), RunStatus::Readable(two)) if two.latest() > one.latest() => {
                other
            }
            (
                RunStatus::Readable(_) | RunStatus::Damaged(_),
                RunStatus::Readable(_) | RunStatus::Damaged(_),
            ) => self,
        }
    }

    /// When it was last written, as far as that is known.
    pub fn latest(&self) -> Option<Wall> {
        match self {
            RunStatus::Readable(run) => run.latest(),
            RunStatus::Damaged(_) => None,
        }
    }
}

impl BackupRun {
    fn latest(&self) -> Option<Wall> {
        self.start.max(self.end)
    }

    /// Whether it has begun and not ended.
    fn goes_on(&self) -> bool {
        self.start.is_some() && self.end.is_none_or(|end| self.start > Some(end))
    }
}

fn number(value: &Value) -> Result<u64, ()> {
    let whole = |float: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        (0.0..9.0e15).contains(&float).then_some(float as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(whole)).ok_or(())
}

fn seconds(seconds: u64) -> Option<Wall> {
    // 0 is what is written for "never".
    let millis = i64::try_from(seconds.min(9_000_000_000_000)).ok()?.checked_mul(1000)?;
    (millis > 0).then_some(Wall(millis))
}

/// That somebody complained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertTime {
    /// Since when.
    pub since: Wall,
    /// Whether the plan was named: else it may be about another one.
    pub named: bool,
}

/// What times a module's last run is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunWindow {
    /// The moment of judging.
    pub now: Wall,
    /// A success that ended before proves nothing.
    pub since: Wall,
    /// A run that began before and has not ended never will.
    pub begun: Wall,
    /// Whether it is known when the plan runs: else nobody can say that a run is missing.
    pub scheduled: bool,
}

impl RunWindow {
    /// The window of a plan; `usual` is how often plans run whose schedule is not understood.
    ///
    /// A success counts for the longest time between two runs, and for a twelfth of that more. When
    /// somebody complains about the plan it must also have ended later than half the shortest time
    /// between two runs before the complaint: the run before does not disprove that this one is
    /// missing. A complaint about no plan in particular leaves it the whole time before itself.
    pub fn of(
        schedule: Option<&str>,
        complaint: Option<AlertTime>,
        usual: Duration,
        now: Wall,
    ) -> RunWindow {
        let understood = schedule.and_then(RunIntervals::of);
        let gaps = understood.unwrap_or(RunIntervals { shortest: usual, longest: usual });
        let tolerance = (gaps.longest / 12).max(LEAST_TOLERANCE);
        let regular = now - gaps.longest - tolerance;
        let since = complaint.map_or(regular, |AlertTime { since, named }| {
            let before = match named {
                true => (gaps.shortest / 2).max(LEAST_TOLERANCE),
                false => gaps.longest + LEAST_TOLERANCE,
            };
            regular.max(since.min(now) - before)
        });
        let begun = now - gaps.longest.max(LONGEST_RUN) - tolerance;
        RunWindow { now, since, begun, scheduled: understood.is_some() }
    }
}

/// The state of a module, and why where that is not plain.
pub fn judge(status: Option<&RunStatus>, window: RunWindow) -> (ModuleState, Option<String>) {
    let run = match status {
        None => return (ModuleState::Missing, Some("no run is known".into())),
        Some(RunStatus::Damaged(why)) => return (ModuleState::Unreadable, Some(why.clone())),
        Some(RunStatus::Readable(run)) => run,
    };
    if run.latest() > Some(window.now + LONGEST_SKEW) {
        return (ModuleState::Unreadable, Some("its run lies in the future".into()));
    }
    if run.goes_on() {
        return match run.start {
            Some(start) if start < window.begun => {
                (ModuleState::Failed, Some(format!("began at {start} and never ended")))
            }
            _ => (ModuleState::Running, None),
        };
    }
    match (run.end, run.errors) {
        (None, _) => (ModuleState::Unreadable, Some("the status has no \"end\"".into())),
        (_, None) => (ModuleState::Unreadable, Some("the status has no \"errors\"".into())),
        (Some(_), Some(1..)) => (ModuleState::Failed, None),
        (Some(end), Some(0)) if end < window.since => old(end, window.scheduled),
        (Some(_), Some(0)) => (ModuleState::Success, None),
    }
}

/// What is said of a success that is too long ago.
fn old(end: Wall, scheduled: bool) -> (ModuleState, Option<String>) {
    if scheduled {
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
        RunWindow { now: NOW, since: NOW - DAY, begun: NOW - DAY, scheduled: true }
    }

    fn state(json: &str) -> ModuleState {
        judge(Some(&RunStatus::from_json(json)), window()).0
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
            (r#"{"start": 1790090000, "errors": "0", "end": 1}"#, ModuleState::Unreadable),
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
        assert_eq!(judge(None, window()).0, ModuleState::Missing);
    }

    #[test]
    fn the_older_layout_holds_the_same_as_texts() {
        let fields = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let status = RunStatus::from_texts(&fields(&[
            ("start", "1790090000"),
            ("end", "1790090420"),
            ("errors", "0"),
            ("total_size", ""),
        ]));
        assert_eq!(judge(Some(&status), window()).0, ModuleState::Success);
        let damaged = RunStatus::from_texts(&fields(&[("end", "soon"), ("errors", "0")]));
        assert_eq!(damaged, RunStatus::Damaged("\"end\" in the status is no whole number".into()));
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
            for (alarmed, expected) in [
                (None, &damaged),
                (Some(end), &damaged),
                (Some(end + HOUR), &damaged),
                (Some(end - HOUR), &run),
            ] {
                assert_eq!(damaged.clone().newer(run.clone(), alarmed), *expected);
                assert_eq!(run.clone().newer(damaged.clone(), alarmed), *expected);
            }
        }
    }

    /// The state of a module that succeeded so many minutes ago.
    fn succeeded(ago: u64, schedule: Option<&str>, complaint: Option<AlertTime>) -> ModuleState {
        let end = NOW - Duration::from_secs(ago * 60);
        let status = RunStatus::Readable(BackupRun {
            end: Some(end),
            errors: Some(0),
            ..BackupRun::default()
        });
        judge(Some(&status), RunWindow::of(schedule, complaint, DAY, NOW)).0
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
            let named = Some(AlertTime { since, named: true });
            assert_eq!(succeeded(ago, Some(schedule), named), expected, "{schedule} {ago}");
        }
        let ahead = Some(AlertTime { since: NOW + DAY, named: true });
        assert_eq!(succeeded(H, Some("daily"), ahead), ModuleState::Success);
    }

    #[test]
    fn a_complaint_about_no_plan_asks_of_each_the_run_that_was_due_before_it() {
        const H: u64 = 60;
        let nameless = Some(AlertTime { since: NOW, named: false });
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
        let window = RunWindow::of(Some("hourly"), None, DAY, NOW);
        assert_eq!(judge(Some(&status), window).0, ModuleState::Running);
    }

    proptest! {
        #[test]
        fn no_status_is_a_crash(text in r#"[{}\[\]":, 0-9a-z.+-]{0,60}"#, number in any::<u64>()) {
            let json = format!(r#"{{"start": {number}, "end": {number}, "errors": 0}}"#);
            for text in [&text, &json] {
                let _ = judge(Some(&RunStatus::from_json(text)), window());
            }
            let fields = [("start", &text), ("end", &json)];
            let fields = fields.map(|(name, text)| (name.to_owned(), text.clone()));
            let _ = judge(Some(&RunStatus::from_texts(&BTreeMap::from(fields))), window());
            let _ = RunWindow::of(Some(&text), Some(AlertTime { since: Wall(0), named: true }), DAY, NOW);
        }
    }
}
