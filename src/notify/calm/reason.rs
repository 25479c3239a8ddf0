//! Why something is held back: overlays, and root causes that were told of. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::btree::InsertAll;
use crate::clock::Wall;
use crate::event::Event;

/// What kind of overlay holds something back. The API calls it `why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReasonKind {
    /// A silence that people set.
    Silence,
    /// A silence that the host asked for.
    Host,
    /// A maintenance window.
    Window,
    /// A host that it is reached through is down.
    Parent,
    /// Many hosts fell silent together.
    Storm,
    /// It changes again and again.
    Flapping,
}

/// Why something is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// What kind of overlay it is.
    pub why: ReasonKind,
    /// Its name: `s17`, `nightly`.
    pub id: String,
    /// When it is expected to end; none: that depends on what is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Wall>,
    /// In words: `s17 of ann (kernel update)`.
    pub text: String,
    /// The channels that it holds it for.
    #[serde(default)]
    pub channels: BTreeSet<String>,
}

/// What explains events: a channel that was told of it is not told of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootCause {
    /// This host is down, and others are reached through it.
    Parent(String),
    /// Many hosts fell silent together.
    Storm,
}

/// The channels that were told of each cause.
pub type KnownCauses = BTreeMap<RootCause, BTreeSet<String>>;

impl RootCause {
    /// What explains an event, while it goes on.
    pub fn of(event: &Event) -> impl Iterator<Item = RootCause> {
        let parents = event.behind.iter().cloned().map(RootCause::Parent);
        parents.chain(event.in_storm.then_some(RootCause::Storm))
    }

    /// The host that is down.
    pub fn parent(&self) -> Option<&str> {
        match self {
            RootCause::Parent(host) => Some(host),
            RootCause::Storm => None,
        }
    }

    /// The reason that it is for those of `channels` that know of it; none when these are none.
    fn reason(&self, channels: &BTreeSet<String>, known: &BTreeSet<String>) -> Option<Reason> {
        let channels: BTreeSet<String> = channels.intersection(known).cloned().insert_all();
        if channels.is_empty() {
            return None;
        }
        let (why, id, text) = match self {
            RootCause::Parent(host) => {
                (ReasonKind::Parent, host.clone(), format!("{host} was overdue"))
            }
            RootCause::Storm => {
                (ReasonKind::Storm, "storm".into(), "many hosts were silent together".into())
            }
        };
        Some(Reason { why, id, until: None, text, channels })
    }
}

/// The reasons that `causes` are for those of `channels` that know of them.
pub fn reasons_of(
    causes: impl Iterator<Item = RootCause>,
    channels: &BTreeSet<String>,
    known: &KnownCauses,
) -> Vec<Reason> {
    causes.filter_map(|cause| cause.reason(channels, known.get(&cause)?)).collect()
}

/// The channels that reasons hold something back from.
pub fn channels_of(reasons: &[Reason]) -> BTreeSet<String> {
    reasons.iter().flat_map(|reason| &reason.channels).cloned().insert_all()
}
