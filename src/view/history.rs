//! The API model of the history: availability, metrics over time, events, open alerts, backup plans.
//! Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calm::HeldView;
use super::{always, rfc3339, seconds};
use crate::clock::Wall;
use crate::event::{Event, EventId, Level};

/// A period, and how long a host was in which state in it. The rest of the period was before the host
/// was known, after it had announced its shutdown, was not recorded, or is in the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UptimeSlice {
    /// When it begins: a full hour, or midnight, UTC.
    #[serde(serialize_with = "always")]
    pub start: Wall,
    /// All was well.
    #[serde(serialize_with = "seconds")]
    pub up: Duration,
    /// It was up, but a connection was overdue or a metric beyond its limit.
    #[serde(serialize_with = "seconds")]
    pub degraded: Duration,
    /// It was overdue.
    #[serde(serialize_with = "seconds")]
    pub down: Duration,
    /// The daemon could not listen.
    #[serde(serialize_with = "seconds")]
    pub blind: Duration,
    /// A maintenance window or a silence was about the host, or is.
    #[serde(skip)]
    pub maintained: bool,
}

impl UptimeSlice {
    /// The share of the known time that the host was up, degraded or not; none when nothing is known.
    /// The time that the daemon could not listen does not count.
    pub fn availability(slices: &[UptimeSlice]) -> Option<f64> {
        let sum = |of: fn(&UptimeSlice) -> Duration| slices.iter().map(of).sum::<Duration>();
        let there = sum(|slice| slice.up + slice.degraded).as_secs_f64();
        let known = there + sum(|slice| slice.down).as_secs_f64();
        (known > 0.0).then(|| there / known)
    }
}

/// The availability of a host. The last slice of each list is the current one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AvailabilityView {
    /// The last 24 hours, the oldest first.
    pub hours: Vec<UptimeSlice>,
    /// The last 90 days, the oldest first.
    pub days: Vec<UptimeSlice>,
    /// Over those hours, from 0 to 1, the time that the daemon could not listen left out; null when nothing is
    /// known.
    pub availability_day: Option<f64>,
    /// Over those days.
    pub availability_90_days: Option<f64>,
}

impl AvailabilityView {
    /// How far back it goes.
    pub const SHOWN: Duration = Duration::from_secs(90 * 86_400);

    /// Marks the hours and days that these maintenance windows and silences touch.
    pub fn mark(&mut self, windows: &[Range<Wall>]) {
        for (slices, seconds) in [(&mut self.hours, 3600), (&mut self.days, 86_400)] {
            for slice in slices {
                let end = slice.start + Duration::from_secs(seconds);
                let touches = |window: &Range<Wall>| window.start < end && slice.start < window.end;
                slice.maintained = windows.iter().any(touches);
            }
        }
    }
}

/// One metric of a host over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SeriesView {
    /// Its dotted path.
    pub path: String,
    /// Seconds that one point stands for.
    #[serde(serialize_with = "seconds")]
    pub step: Duration,
    /// The oldest first. There is none for steps in which no value came.
    pub points: Vec<PointView>,
}

/// The values of a metric within one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PointView {
    /// When the step begins.
    #[serde(serialize_with = "always")]
    pub at: Wall,
    /// Their mean.
    pub mean: f32,
    /// The least of them.
    pub least: f32,
    /// The greatest of them.
    pub most: f32,
}

/// An event, notified or not, in the shape of `/api/v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number, rising; pages begin after one. Messages name it.
    pub id: String,
    /// When.
    #[serde(with = "stored")]
    pub at: Wall,
    /// How much it matters.
    pub level: Level,
    /// The host that it is about, where it is about one.
    pub host: Option<String>,
    /// What it is about: `host web1`, `channel chat`, `hbd`.
    pub subject: String,
    /// What kind of thing happened: `overdue`, `back`, `threshold` ...
    pub kind: String,
    /// What it says, in one line.
    pub text: String,
    /// What more there is to say.
    pub details: Vec<DetailView>,
    /// The channels that have or will get a message about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
    /// What held it back: `s17`, the name of a window. Empty when nothing did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// The trouble that it begins, or that goes on: `web1 ipv4`. Null when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// It only repeats what was told before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reminder: bool,
    /// The reminders of it that stand in one with it, where they are not shown each by itself.
    #[serde(skip)]
    pub reminded: Option<RemindedView>,
}

/// Reminders that are shown as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemindedView {
    /// How many.
    pub count: usize,
    /// When the last one was.
    pub last: Wall,
}

/// A labelled detail of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailView {
    /// `last seen`, `gone for`.
    pub label: String,
    /// May have several lines.
    pub text: String,
}

/// An open problem, in the shape of `/api/v1/alerts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertView {
    /// What it is about: `host web1`, `plan 4`, `channel chat`, `hbd`.
    pub subject: String,
    /// The host that it is about, where it is about one.
    pub host: Option<String>,
    /// What is wrong: `web1 ipv4 overdue`, `web1 cpu_monitor.cpu_percent = 95.2 (> 90.0)`.
    pub text: String,
    /// How much it matters.
    pub level: Level,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub since: Option<Wall>,
    /// The channels that have or will get a message about it; empty when there is none.
    pub channels: Vec<String>,
    /// When it was acknowledged.
    #[serde(serialize_with = "rfc3339")]
    pub acknowledged: Option<Wall>,
    /// What a silence or an acknowledgement of it alone is about: `web1/ipv4`; null for the daemon's own
    /// troubles, which nothing holds back.
    pub scope: Option<String>,
    /// Those of its channels that a message about it has reached.
    pub told: Vec<String>,
    /// What is held back of it; null when nothing is.
    pub held: Option<HeldView>,
}

/// The last report about a backup plan, in the shape of `/api/v1/backups`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// Its id.
    pub plan: String,
    /// What people call it.
    pub name: Option<String>,
    /// `SUCCESS`, `PARTIAL`, `FAILED`, `MISSING`, `RUNNING` or `UNKNOWN`.
    pub outcome: String,
    /// How much that matters.
    pub level: Level,
    /// When it was analyzed.
    #[serde(with = "stored")]
    pub at: Wall,
    /// Half a sentence: `2 of 5 modules failed, 1 missing`.
    pub why: String,
    /// The title of the message about it.
    pub headline: String,
    /// Its modules, by id.
    pub modules: Vec<ModuleView>,
    /// The states of its repositories; empty when they were not checked.
    pub repositories: Vec<RepositoryView>,
    /// What the channels were last told about it; none: nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<ToldView>,
    /// How it was configured at the last look; not part of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<ConfiguredView>,
}

/// How a backup plan was configured when it was looked at last, and since when: what elapsed before is
/// not awaited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredView {
    /// Whether it was switched on.
    pub enabled: bool,
    /// When it runs.
    pub schedule: Option<String>,
    /// Since when all that is so; none: since before it was looked at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Wall>,
    /// Its modules, and since when each is part of it.
    #[serde(default)]
    pub modules: BTreeMap<String, Option<Wall>>,
}

/// What the channels were last told about a backup plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldView {
    /// The outcome: `FAILED`.
    pub outcome: String,
    /// Whether that is a trouble that goes on.
    pub open: bool,
    /// When it was told first.
    #[serde(with = "stored")]
    pub since: Wall,
    /// When it was told last, reminders included.
    #[serde(with = "stored")]
    pub at: Wall,
    /// Whether the plan was switched off then.
    #[serde(default)]
    pub switched_off: bool,
    /// The modules as they were then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ToldModuleView>,
}

/// What was told of a module of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToldModuleView {
    /// Its id: `mail1`.
    pub name: String,
    /// Its state: `failed`.
    pub state: String,
    /// When its last run ended.
    #[serde(with = "stored_if_any", default)]
    pub end: Option<Wall>,
}

/// A module of a backup plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleView {
    /// Its id: `mail1`.
    pub name: String,
    /// The label that people gave it.
    pub label: Option<String>,
    /// `success`, `failed`, `missing`, `running`, `pending` or `unreadable`.
    pub state: String,
    /// What went wrong, where the state does not say it.
    pub error: Option<String>,
    /// How many errors its last run had.
    pub errors: Option<u64>,
    /// Bytes in its repository.
    pub size: Option<u64>,
    /// Files in its repository.
    pub files: Option<u64>,
    /// Snapshots in its repository.
    pub snapshots: Option<u64>,
    /// When its last run began.
    #[serde(with = "stored_if_any", default)]
    pub start: Option<Wall>,
    /// When its last run ended.
    #[serde(with = "stored_if_any", default)]
    pub end: Option<Wall>,
    /// The node that it runs on.
    pub node: Option<String>,
}

/// The state of the repository of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryView {
    /// The module's id.
    pub module: String,
    /// The state, in half a line.
    pub text: String,
}

impl EventView {
    /// An event, as it is shown and stored.
    pub fn of(event: &Event, id: EventId) -> EventView {
        let message = event.message(id);
        let described = event.kind.describe();
        let detail = |(label, text)| DetailView { label, text };
        EventView {
            id: id.to_string(),
            at: event.at,
            level: event.level,
            host: message.host().map(str::to_owned),
            subject: message.subject.to_string(),
            kind: described.name.to_owned(),
            text: message.title,
            details: message.details.into_iter().map(detail).collect(),
            told: Vec::new(),
            held_by: Vec::new(),
            trouble: described.incident.opens().map(ToString::to_string),
            reminder: described.is_reminder,
            reminded: None,
        }
    }

    /// Whether it only repeats what was told before, as an event of an older version says it, too.
    pub fn is_reminder(&self) -> bool {
        self.reminder || self.details.iter().any(|detail| detail.label == "reminder")
    }

    /// What the trouble is called that it begins or repeats: reminders and their alarm have the same
    /// name. Events of older versions do not know theirs.
    pub fn trouble_name(&self) -> &str {
        let from_text = || {
            let named = self.text.split_once(": ").map_or(&*self.text, |(_, named)| named);
            named.split(" = ").next().unwrap_or_default()
        };
        self.trouble.as_deref().unwrap_or_else(from_text)
    }
}

/// Reads times that are stored in the form in which they are shown.
mod stored {
    use super::*;

    pub use crate::view::always as serialize;

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Wall, D::Error> {
        let text = <std::borrow::Cow<str>>::deserialize(reader)?;
        let time = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(time.into())
    }
}

/// The same for times that may be missing.
mod stored_if_any {
    use super::*;

    pub use crate::view::rfc3339 as serialize;

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        reader: D,
    ) -> Result<Option<Wall>, D::Error> {
        let Some(text) = <Option<std::borrow::Cow<str>>>::deserialize(reader)? else {
            return Ok(None);
        };
        let time = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        Ok(Some(time.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_and_a_plan_are_kept_as_they_are_shown() {
        let kind = crate::event::EventKind::HostMessage {
            host: "web1".into(),
            text: "\u{1}<b>\"é".into(),
        };
        let event = Event { level: Level::Warning, ..Event::new(Wall(1_795_291_928_667), kind) };
        let view = EventView::of(&event, EventId(7));
        let text = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<EventView>(&text).unwrap(), view);
        let module = ModuleView {
            name: "mail1".into(),
            label: None,
            state: "failed".into(),
            error: None,
            errors: Some(2),
            size: None,
            files: None,
            snapshots: None,
            start: None,
            end: Some(Wall(1_795_291_928_000)),
            node: None,
        };
        let text = serde_json::to_string(&module).unwrap();
        assert_eq!(serde_json::from_str::<ModuleView>(&text).unwrap(), module);
    }

    #[test]
    fn availability_leaves_out_what_is_not_known() {
        let seconds = Duration::from_secs;
        let good = UptimeSlice { up: seconds(30), degraded: seconds(30), ..UptimeSlice::default() };
        let bad = UptimeSlice { down: seconds(20), blind: seconds(999), ..UptimeSlice::default() };
        assert_eq!(UptimeSlice::availability(&[good, bad]), Some(0.75));
        assert_eq!(
            UptimeSlice::availability(&[UptimeSlice {
                blind: seconds(9),
                ..UptimeSlice::default()
            }]),
            None
        );
        assert_eq!(UptimeSlice::availability(&[]), None);
    }
}
