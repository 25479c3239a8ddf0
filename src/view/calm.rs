//! The API model of silences, windows, and what they hold back. Pure.

use serde::Serialize;

use super::{always, rfc3339};
use crate::clock::Wall;
use crate::event::Level;

/// The silences and windows at present, in the shape of `/api/v1/silences`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SilencesView {
    /// The daemon's time.
    #[serde(serialize_with = "always")]
    pub now: Wall,
    /// What is silent at present: silences by number, then windows.
    pub silences: Vec<SilenceView>,
    /// The windows that come next, one of each entry of `maintenance`, the soonest first.
    pub next: Vec<NextWindowView>,
}

/// One silence, or one window that is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SilenceView {
    /// `s17`; of a window its name.
    pub id: String,
    /// `silence`, `host` (the host's own) or `window`.
    pub kind: &'static str,
    /// `web*`, `web1/ipv4`, `plan:4`, `--all`; of a window several, with commas.
    pub scope: String,
    /// When it began.
    #[serde(serialize_with = "always")]
    pub from: Wall,
    /// When it ends.
    #[serde(serialize_with = "always")]
    pub until: Wall,
    /// Who set it; of a window null.
    pub by: Option<String>,
    /// Why.
    pub comment: Option<String>,
    /// Events of this level and above are told all the same.
    pub unless: Option<Level>,
    /// How many things it holds back.
    pub holds: usize,
}

/// The next time of a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NextWindowView {
    /// Its name.
    pub id: String,
    /// As that of a silence.
    pub scope: String,
    /// When it begins.
    #[serde(serialize_with = "always")]
    pub from: Wall,
    /// When it ends.
    #[serde(serialize_with = "always")]
    pub until: Wall,
    /// For people: `Mon 02:00 to 04:30 Europe/Berlin`.
    pub text: String,
}

/// A silence that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SilencedView {
    /// The silence.
    #[serde(flatten)]
    pub silence: SilenceView,
    /// What is wrong within its scope, and was told before: `web1 ipv4 overdue`.
    pub told: Vec<String>,
}

/// Silences that were ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnsilencedView {
    /// Their ids.
    pub ended: Vec<String>,
    /// What differs from what was told, and follows; the soonest first.
    pub follows: Vec<FollowingView>,
}

/// Something that comes out of a hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FollowingView {
    /// `web1 memory_monitor.percent`.
    pub text: String,
    /// Seconds until then, if it is not over before.
    pub seconds: f64,
}

/// Open alarms that were acknowledged, or no longer are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcknowledgedView {
    /// What each of them is: `web1 ipv4 overdue`.
    pub acknowledged: Vec<String>,
}

/// What became of what people asked of silences and acknowledgements.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum CalmAnswer {
    /// To a silence.
    Silenced(SilencedView),
    /// To its end.
    Unsilenced(UnsilencedView),
    /// To an acknowledgement, or the end of one.
    Acknowledged(AcknowledgedView),
}

/// What is held back, in the shape of `/api/v1/held`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldListView {
    /// The oldest first, 1,000 at most; with what comes out soon.
    pub held: Vec<HeldView>,
    /// How many things are held back in all, without what comes out soon.
    pub count: usize,
}

/// One thing that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldView {
    /// What it is about: `host web1`, `plan 4`.
    pub subject: String,
    /// What is to be told: `web1 ipv4 overdue`.
    pub text: String,
    /// How much it matters.
    pub level: Level,
    /// Since when it is held.
    #[serde(serialize_with = "always")]
    pub since: Wall,
    /// Why; when it comes out soon, why it was.
    pub reasons: Vec<ReasonView>,
    /// When it is told, if it is not over by then; null while a reason lasts.
    #[serde(serialize_with = "rfc3339")]
    pub out_at: Option<Wall>,
}

/// Why something is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonView {
    /// `silence`, `host`, `window`, `parent`, `storm` or `flapping`.
    pub why: &'static str,
    /// `s17`, the name of a window or of a host.
    pub id: String,
    /// When it ends, where that is known.
    #[serde(serialize_with = "rfc3339")]
    pub until: Option<Wall>,
    /// The channels that it holds it for.
    pub channels: Vec<String>,
}
