//! What is held back, and why. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::is_flapping;
use crate::clock::{Mono, Now, Wall};
use crate::event::{CalmEvent, Event, EventId, EventKind, Incident, Level};

/// The notes of one host that are kept; of those beyond it their number and the worst level.
pub const MAX_NOTES: usize = 20;

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

/// An open incident whose newest event is held back, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldIncident {
    /// What is wrong.
    pub incident: Incident,
    /// The newest event about it.
    pub event: Event,
    /// The number of that event in the history.
    pub id: EventId,
    /// Since when it is held.
    pub since: Wall,
    /// Why; once the last reason has ended, why it was.
    pub reasons: Vec<Reason>,
    /// The level that each channel was told, of those that were told of it.
    #[serde(default)]
    pub told: BTreeMap<String, Level>,
    /// When the last reason ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Now>,
}

impl HeldIncident {
    /// When it comes out; none while a reason lasts.
    pub fn out_at(&self) -> Option<Mono> {
        self.released.map(|released| released.mono + self.event.patience)
    }

    /// How long it is until then.
    pub fn out_in(&self, now: Now) -> Option<Duration> {
        self.out_at().map(|at| at.since(now.mono))
    }

    /// Whether a silence of the host itself held it back: the host is to be back when that ends.
    pub fn is_by_host(&self) -> bool {
        self.reasons.iter().any(|reason| reason.why == ReasonKind::Host)
    }

    /// The host, when what is held says that the host announced its shutdown.
    pub fn shut_down_host(&self) -> Option<&str> {
        match &self.event.kind {
            EventKind::Shutdown { host, .. } if self.is_by_host() => Some(host),
            _ => None,
        }
    }

    /// The event as it is told when it comes out.
    pub fn into_event(self) -> Event {
        let until = self.released.map_or(self.since, |released| released.wall);
        let not_back = self.is_by_host()
            && is_silence_of_host(&self.incident)
            && !is_flapping(&self.event.kind);
        let mut event = self.event;
        event.held_back = Some(match not_back {
            true => format!("by its own silence until {}; it has not come back", second(until)),
            false => held_back(until, &self.reasons),
        });
        if not_back && matches!(event.kind, EventKind::Shutdown { .. }) {
            event.level = Level::Critical;
        }
        event
    }

    /// On this boot's clock. What should have come out while the daemon was down has its patience
    /// from now on.
    pub fn rebase(&mut self, rebase: impl Fn(Now) -> Now, now: Now) {
        self.released = self.released.map(rebase);
        if self.out_at().is_some_and(|at| at <= now.mono) {
            self.released = Some(now);
        }
    }
}

/// Whether it is about a host that is not heard.
fn is_silence_of_host(incident: &Incident) -> bool {
    matches!(incident, Incident::Connection { .. } | Incident::NotBack { .. })
}

/// A message about a host that was held back, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldNote {
    /// The host.
    pub host: String,
    /// What was to be said.
    pub event: Event,
    /// Why it is held, or was.
    pub reasons: Vec<Reason>,
    /// How many more came behind the last note that is kept of the host.
    #[serde(default)]
    pub more: usize,
    /// The worst level of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_of_more: Option<Level>,
}

impl HeldNote {
    /// Its level, or that of one that came behind it.
    pub fn worst_level(&self) -> Level {
        self.worst_of_more.map_or(self.event.level, |more| more.max(self.event.level))
    }

    /// The notes of one host as one message; the oldest first.
    pub fn join(host: String, notes: &[HeldNote], now: Now) -> Event {
        let texts = notes.iter().map(|note| note.event.kind.describe().title);
        let level = notes.iter().map(HeldNote::worst_level).max().unwrap_or(Level::Info);
        let reasons = notes.last().map(|note| note.reasons.as_slice()).unwrap_or_default();
        let kind = CalmEvent::Notes {
            host,
            level,
            watched_only: notes.iter().all(|note| note.event.watched_only()),
            texts: texts.collect(),
            count: notes.len() + notes.iter().map(|note| note.more).sum::<usize>(),
            held_back: held_back(now.wall, reasons),
        };
        Event::new(now.wall, kind)
    }
}

/// `until 2026-11-22T05:53:10Z, by s17 of ann (kernel update)`.
fn held_back(until: Wall, reasons: &[Reason]) -> String {
    let texts: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    format!("until {}, by {}", second(until), texts.join(" and by "))
}

/// To the second: `2026-11-22T05:53:10Z`.
pub fn second(at: Wall) -> String {
    Wall(at.0 - at.0.rem_euclid(1000)).to_string().replace(".000Z", "Z")
}
