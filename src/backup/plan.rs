//! What is kept about a backup plan, and what that says about its modules. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::clock::Wall;
use crate::snapshot::rfc3339;

/// A status from further ahead than this is damaged: no clock is so wrong.
const LONGEST_SKEW: Duration = Duration::from_secs(86_400);

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
    pub run: Option<Run>,
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
    /// What is kept about it is damaged.
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
pub struct Run {
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
pub enum Status {
    /// It could be read.
    Run(Run),
    /// It could not, and why.
    Damaged(String),
}

impl Status {
    /// Reads the current layout: one JSON object.
    pub fn from_json(text: &str) -> Status {
        let fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Status::Damaged("the status is no JSON object".into()),
            Err(_) => return Status::Damaged("the status is not JSON".into()),
        };
        Status::from_numbers(|name| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => number(value).map(Some),
        })
    }

    /// Reads the older layout: the same facts as the texts of a hash.
    pub fn from_texts(fields: &BTreeMap<String, String>) -> Status {
        Status::from_numbers(|name| match fields.get(name).map(|text| text.trim()) {
            None | Some("") => Ok(None),
            Some(text) => {
                let value = text.parse::<serde_json::Number>().map_err(|_| ())?;
                number(&Value::Number(value)).map(Some)
            }
        })
    }

    fn from_numbers(number: impl Fn(&str) -> Result<Option<u64>, ()>) -> Status {
        let read = |name: &str| {
            number(name).map_err(|()| format!("\"{name}\" in the status is no whole number"))
        };
        let run = || -> Result<Run, String> {
            Ok(Run {
                start: read("start")?.and_then(seconds),
                end: read("end")?.and_then(seconds),
                errors: read("errors")?,
                size: read("total_size")?,
                files: read("total_file_count")?,
                snapshots: read("snapshots_count")?,
            })
        };
        match run() {
            Ok(run) => Status::Run(run),
            Err(why) => Status::Damaged(why),
        }
    }

    /// Of two layouts that stand side by side, the newer end counts. A run that has begun after
    /// the other ended is newer, too; what is damaged counts only where nothing else is there.
    pub fn newer(self, other: Status) -> Status {
        match (&self, &other) {
            (Status::Damaged(_), Status::Run(_)) => other,
            (Status::Run(one), Status::Run(two)) if two.latest() > one.latest() => other,
            (Status::Run(_) | Status::Damaged(_), Status::Run(_) | Status::Damaged(_)) => self,
        }
    }

    /// When it was last written, as far as that is known.
    pub fn latest(&self) -> Option<Wall> {
        match self {
            Status::Run(run) => run.latest(),
            Status::Damaged(_) => None,
        }
    }
}

impl Run {
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

/// What times a module's last run is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The moment of judging.
    pub now: Wall,
    /// A run that ended before is none.
    pub since: Wall,
}

impl Window {
    /// The window of a plan that somebody complains about since `alarmed`, or about which nobody
    /// complains. A run counts when it ended within `recent` (or, for schedules of weeks and
    /// months, one period) before the complaint; without one, a twelfth more is allowed, for no
    /// two runs take the same time.
    pub fn of(
        schedule: Option<&str>,
        alarmed: Option<Wall>,
        recent: Duration,
        now: Wall,
    ) -> Window {
        let period = recent.max(schedule.map_or(Duration::ZERO, period));
        let since = match alarmed {
            // An alert that fires for weeks does not make what was fresh then fresh for ever.
            Some(alarmed) => alarmed.clamp(now - period, now) - period,
            None => now - period - period / 12,
        };
        Window { now, since }
    }
}

/// How far apart the runs of a systemd schedule may be (systemd.time(7)), by its coarsest part.
fn period(schedule: &str) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    let words = schedule.trim().to_ascii_lowercase();
    let days = match words.as_str() {
        "minutely" | "hourly" | "daily" => 1,
        "weekly" => 7,
        "monthly" => 31,
        "quarterly" => 92,
        "semiannually" | "semi-annually" => 184,
        "yearly" | "annually" => 366,
        _ => words.split_whitespace().map(days_of_part).max().unwrap_or(1),
    };
    DAY * days
}

/// Days between two runs, for one part of a schedule: the days of the week, the date, the time.
fn days_of_part(part: &str) -> u32 {
    const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    if WEEKDAYS.iter().any(|day| part.starts_with(day)) {
        return if part == "mon..sun" { 1 } else { 7 };
    }
    let fields: Vec<&str> = part.split('-').collect();
    match fields.as_slice() {
        [.., month, _] if *month != "*" && fields.len() > 1 => 366,
        [_, _, day] | [_, day] if *day != "*" => 31,
        _ => 1,
    }
}

/// The state of a module, and why where that is not plain. `expected` is whether there should be
/// a run at all: not so for a plan that is switched off.
pub fn judge(
    status: Option<&Status>,
    window: Window,
    expected: bool,
) -> (ModuleState, Option<String>) {
    let run = match status {
        None => return (ModuleState::Missing, Some("no run is known".into())),
        Some(Status::Damaged(why)) => return (ModuleState::Unreadable, Some(why.clone())),
        Some(Status::Run(run)) => run,
    };
    if run.latest() > Some(window.now + LONGEST_SKEW) {
        return (ModuleState::Unreadable, Some("its run lies in the future".into()));
    }
    if run.goes_on() {
        return match run.start {
            Some(start) if start < window.since => {
                (ModuleState::Failed, Some(format!("began at {start} and never ended")))
            }
            _ => (ModuleState::Running, None),
        };
    }
    match (run.end, run.errors) {
        (None, _) => (ModuleState::Unreadable, Some("the status has no \"end\"".into())),
        (_, None) => (ModuleState::Unreadable, Some("the status has no \"errors\"".into())),
        (Some(_), Some(1..)) => (ModuleState::Failed, None),
        (Some(end), Some(0)) if expected && end < window.since => {
            (ModuleState::Missing, Some(format!("the last run ended at {end}")))
        }
        (Some(_), Some(0)) => (ModuleState::Success, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Wall = Wall(1_790_100_000_000);

    fn window() -> Window {
        Window { now: NOW, since: NOW - DAY }
    }

    fn state(json: &str) -> ModuleState {
        judge(Some(&Status::from_json(json)), window(), true).0
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
        assert_eq!(judge(None, window(), true).0, ModuleState::Missing);
    }

    #[test]
    fn the_older_layout_holds_the_same_as_texts() {
        let fields = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let status = Status::from_texts(&fields(&[
            ("start", "1790090000"),
            ("end", "1790090420"),
            ("errors", "0"),
            ("total_size", ""),
        ]));
        assert_eq!(judge(Some(&status), window(), true).0, ModuleState::Success);
        let damaged = Status::from_texts(&fields(&[("end", "soon"), ("errors", "0")]));
        assert_eq!(damaged, Status::Damaged("\"end\" in the status is no whole number".into()));
    }

    #[test]
    fn of_two_layouts_the_newer_end_counts() {
        let old = Status::from_json(r#"{"errors": 0, "end": 1}"#);
        let new = Status::from_json(r#"{"errors": 1, "end": 2}"#);
        let damaged = Status::Damaged("x".into());
        assert_eq!(old.clone().newer(new.clone()), new);
        assert_eq!(new.clone().newer(old), new);
        assert_eq!(damaged.clone().newer(new.clone()), new);
        assert_eq!(new.clone().newer(damaged), new);
    }

    #[test]
    fn the_period_of_a_schedule_is_that_of_its_coarsest_part() {
        for (schedule, days) in [
            ("daily", 1),
            ("*-*-* 03:00:00", 1),
            ("03:00", 1),
            ("hourly", 1),
            ("*:0/15", 1),
            ("Mon..Sun 03:00", 1),
            ("weekly", 7),
            ("Sun 03:00", 7),
            ("Mon,Thu *-*-* 03:00:00", 7),
            ("*-*-01 03:00", 31),
            ("monthly", 31),
            ("*-01-01 00:00:00", 366),
            ("", 1),
            ("nonsense", 1),
        ] {
            assert_eq!(period(schedule), DAY * days, "{schedule}");
        }
    }

    #[test]
    fn a_run_counts_within_a_period_before_the_complaint() {
        let since = |schedule, alarmed| Window::of(schedule, alarmed, DAY, NOW).since;
        assert_eq!(since(Some("daily"), Some(NOW - HOUR)), NOW - HOUR - DAY);
        assert_eq!(since(Some("weekly"), Some(NOW)), NOW - 7 * DAY);
        assert_eq!(since(None, None), NOW - 26 * HOUR);
        assert_eq!(since(None, Some(NOW - 30 * DAY)), NOW - 2 * DAY);
        assert_eq!(since(None, Some(NOW + DAY)), NOW - DAY);
    }

    proptest! {
        #[test]
        fn no_status_is_a_crash(text in r#"[{}\[\]":, 0-9a-z.+-]{0,60}"#, number in any::<u64>()) {
            let json = format!(r#"{{"start": {number}, "end": {number}, "errors": 0}}"#);
            for text in [&text, &json] {
                let _ = judge(Some(&Status::from_json(text)), window(), true);
            }
            let fields = [("start", &text), ("end", &json)];
            let fields = fields.map(|(name, text)| (name.to_owned(), text.clone()));
            let _ = judge(Some(&Status::from_texts(&BTreeMap::from(fields))), window(), true);
            let _ = Window::of(Some(&text), Some(Wall(0)), DAY, NOW);
        }
    }
}
