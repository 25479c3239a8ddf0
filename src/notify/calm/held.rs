//! What is held back, and why. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::is_flapping;
use super::reason::{KnownCauses, Reason, ReasonKind, RootCause, channels_of, reasons_of};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{CalmEvent, Event, EventId, EventKind, Incident, Level};

/// The notes of one host that are kept; of those beyond it their number and the worst level.
pub const MAX_NOTES: usize = 20;

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
    /// The channels that no reason holds it back from any more, while others do from others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub free: BTreeMap<String, FreeChannel>,
    /// Hosts that the event is [behind](Event::behind), and that are no longer down.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parents_up: BTreeSet<String>,
}

/// A channel that something comes out to while it is held back from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeChannel {
    /// Since when nothing holds it back from this one.
    pub since: Now,
    /// What did until then, for the details of the event.
    pub held_back: String,
}

impl HeldIncident {
    /// When it comes out; none while a reason lasts.
    pub fn out_at(&self) -> Option<Mono> {
        self.released.map(|released| released.mono + self.event.patience)
    }

    /// When it comes out, to all or to some.
    pub fn all_out_at(&self) -> impl Iterator<Item = Mono> {
        let free = self.free.values().map(|free| free.since.mono + self.event.patience);
        free.chain(self.out_at())
    }

    /// The channels that it comes out to now, while it is held back from others; by what held it back
    /// from them.
    pub fn out_to(&self, now: Mono) -> BTreeMap<String, BTreeSet<String>> {
        let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (channel, free) in &self.free {
            if free.since.mono + self.event.patience <= now {
                out.entry(free.held_back.clone()).or_default().insert(channel.clone());
            }
        }
        out
    }

    /// What explains it, as far as that is known to go on.
    pub fn causes(&self) -> impl Iterator<Item = RootCause> {
        let is_over =
            |cause: &RootCause| cause.parent().is_some_and(|host| self.parents_up.contains(host));
        RootCause::of(&self.event).filter(move |cause| !is_over(cause))
    }

    /// No host that it is behind explains it any more; whether one did. One alone does again when it
    /// falls silent before this is told; of several nobody knows which does.
    pub fn clear_parents(&mut self) -> bool {
        match self.event.behind.as_slice() {
            [] => false,
            [parent] => self.parents_up.insert(parent.clone()),
            [..] => {
                self.event.behind.clear();
                true
            }
        }
    }

    /// The channels that it is to come out to.
    pub fn channels(&self) -> BTreeSet<String> {
        let mut channels = channels_of(&self.reasons);
        channels.extend(self.free.keys().cloned());
        channels
    }

    /// Looks again at what holds it back: overlays from all, and causes from the channels that know of
    /// them. Whether anything changed.
    pub fn review(&mut self, overlays: Vec<Reason>, known: &KnownCauses, now: Now) -> bool {
        let channels = self.channels();
        let mut reasons = overlays;
        let held_from_all = !reasons.is_empty();
        reasons.iter_mut().for_each(|reason| reason.channels.clone_from(&channels));
        reasons.extend(reasons_of(self.causes(), &channels, known));
        if reasons.is_empty() {
            let ends = self.released.is_none();
            self.released = self.released.or(Some(now));
            return ends;
        }
        let mut free = BTreeMap::new();
        if !held_from_all {
            let held = channels_of(&reasons);
            for channel in channels.difference(&held) {
                free.insert(channel.clone(), self.free_channel(channel, now));
            }
        }
        if self.released.is_none() && same(&reasons, &self.reasons) && free == self.free {
            return false;
        }
        (self.released, self.reasons, self.free) = (None, reasons, free);
        true
    }

    /// A channel that no reason holds it back from any more, since now or before.
    fn free_channel(&self, channel: &str, now: Now) -> FreeChannel {
        if let Some(free) = self.free.get(channel) {
            return free.clone();
        }
        let since = self.released.unwrap_or(now);
        let of_channel = |reason: &&Reason| reason.channels.contains(channel);
        let reasons: Vec<&Reason> = self.reasons.iter().filter(of_channel).collect();
        FreeChannel { since, held_back: held_back(since.wall, &reasons) }
    }

    /// Further reasons, or further channels that they hold it back from.
    pub fn add_reasons(&mut self, reasons: Vec<Reason>) {
        for reason in reasons {
            let same = |known: &&mut Reason| known.why == reason.why && known.id == reason.id;
            match self.reasons.iter_mut().find(same) {
                Some(known) => known.channels.extend(reason.channels),
                None => self.reasons.push(reason),
            }
        }
    }

    /// The channels that it is to come out to are these from now on, by a reload; whether it was to
    /// others.
    pub fn set_channels(&mut self, new: &BTreeSet<String>, now: Now) -> bool {
        let old = self.channels();
        if old == *new {
            return false;
        }
        self.remove_channels(&old.difference(new).cloned().insert_all());
        let held_back = format!("until {}, the time of a reload", now.wall.local());
        for channel in new.difference(&old) {
            let free = FreeChannel { since: now, held_back: held_back.clone() };
            self.free.insert(channel.clone(), free);
        }
        true
    }

    /// Nothing is to come out to these channels any more; whether anything is to others.
    pub fn remove_channels(&mut self, channels: &BTreeSet<String>) -> bool {
        self.free.retain(|channel, _| !channels.contains(channel));
        for reason in &mut self.reasons {
            reason.channels.retain(|channel| !channels.contains(channel));
        }
        !self.channels().is_empty()
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

    /// The event as it is told when it comes out to all.
    pub fn to_event(&self) -> Event {
        let until = self.released.map_or(self.since, |released| released.wall);
        let not_back = self.is_by_host()
            && is_silence_of_host(&self.incident)
            && !is_flapping(&self.event.kind);
        let mut event = self.event.clone();
        event.held_back = Some(match not_back {
            true => format!("by its own silence until {}; it has not come back", until.local()),
            false => held_back(until, &self.reasons.iter().collect::<Vec<_>>()),
        });
        if not_back && matches!(event.kind, EventKind::Shutdown { .. }) {
            event.level = Level::Critical;
        }
        event
    }

    /// On this boot's clock. What should have come out while the daemon was down has its patience
    /// from now on.
    pub fn rebase(&mut self, rebase: impl Fn(Now) -> Now, now: Now) {
        let patience = self.event.patience;
        let rebase = |then: Now| {
            let then = rebase(then);
            if then.mono + patience <= now.mono { now } else { then }
        };
        self.released = self.released.map(rebase);
        self.free.values_mut().for_each(|free| free.since = rebase(free.since));
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
        let reasons = notes.last().map(|note| note.reasons.iter().collect::<Vec<_>>());
        let kind = CalmEvent::Notes {
            host,
            level,
            watched_only: notes.iter().all(|note| note.event.watched_only()),
            texts: texts.collect(),
            count: notes.len() + notes.iter().map(|note| note.more).sum::<usize>(),
            held_back: held_back(now.wall, &reasons.unwrap_or_default()),
        };
        Event::new(now.wall, kind)
    }
}

/// `until 2026-11-22 05:53:10 UTC, by s17 of ann (kernel update)`; `while router was overdue`.
fn held_back(until: Wall, reasons: &[&Reason]) -> String {
    let is_cause = |reason: &Reason| matches!(reason.why, ReasonKind::Parent | ReasonKind::Storm);
    let texts = |of_causes: bool| {
        let of_kind = reasons.iter().filter(|reason| is_cause(reason) == of_causes);
        of_kind.map(|reason| reason.text.as_str()).collect::<Vec<_>>()
    };
    let (overlays, causes) = (texts(false), texts(true));
    let until = format!("until {}, by {}", until.local(), overlays.join(" and by "));
    let lasted = format!("while {}", causes.join(" and "));
    match (overlays.is_empty(), causes.is_empty()) {
        (_, true) => until,
        (true, false) => lasted,
        (false, false) => format!("{until}, and {lasted}"),
    }
}

/// Whether two lists name the same reasons for the same channels.
fn same(one: &[Reason], other: &[Reason]) -> bool {
    let is_same = |(one, other): (&Reason, &Reason)| {
        (one.why, &one.id, &one.channels) == (other.why, &other.id, &other.channels)
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}
