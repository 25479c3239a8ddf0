//! Causes: what was told and explains something else, which is held back for whoever was told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::held::{Reason, ReasonKind};
use crate::btree::InsertAll;
use crate::event::Event;

/// Something that explains events: a channel that was told of it is not told of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Hosts that others are reached through are down: one, or as [`Event::behind`] names them several
    /// that only together are in the way.
    Parents(String),
    /// Many hosts fell silent together.
    Storm,
}

/// The channels that were told of each cause.
pub type KnownCauses = BTreeMap<Cause, BTreeSet<String>>;

impl Cause {
    /// What explains an event, while it goes on.
    pub fn of(event: &Event) -> impl Iterator<Item = Cause> {
        let parents = event.behind.iter().cloned().map(Cause::Parents);
        parents.chain(event.in_storm.then_some(Cause::Storm))
    }

    /// The hosts that are down.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let hosts = match self {
            Cause::Parents(hosts) => Some(hosts),
            Cause::Storm => None,
        };
        hosts.into_iter().flat_map(|hosts| hosts.split(','))
    }

    /// The reason that it is for those of `channels` that know of it; none when these are none.
    fn reason(&self, channels: &BTreeSet<String>, known: &BTreeSet<String>) -> Option<Reason> {
        let channels: BTreeSet<String> = channels.intersection(known).cloned().insert_all();
        if channels.is_empty() {
            return None;
        }
        let (why, id, text) = match self {
            Cause::Parents(hosts) => {
                let verb = if hosts.contains(',') { "were" } else { "was" };
                let text = format!("{} {verb} overdue", hosts.replace(',', " and "));
                (ReasonKind::Parent, hosts.clone(), text)
            }
            Cause::Storm => {
                (ReasonKind::Storm, "storm".into(), "many hosts were silent together".into())
            }
        };
        Some(Reason { why, id, until: None, text, channels })
    }
}

/// The reasons that `causes` are for those of `channels` that know of them.
pub fn reasons(
    causes: impl Iterator<Item = Cause>,
    channels: &BTreeSet<String>,
    known: &KnownCauses,
) -> Vec<Reason> {
    causes.filter_map(|cause| cause.reason(channels, known.get(&cause)?)).collect()
}

/// The channels that reasons hold something back from.
pub fn channels_of(reasons: &[Reason]) -> BTreeSet<String> {
    reasons.iter().flat_map(|reason| &reason.channels).cloned().insert_all()
}
