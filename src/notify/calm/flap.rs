//! Flapping: connections and metrics that change again and again are told of once, and once more when
//! they have settled. Pure.
//!
//! ```text
//!              a change        so many changes within a time: `flapping` is told
//!   unknown ------------> counting ------------------------------------------> flapping
//!      ^  the newest is too old |     a change: absorbed; the worst so far: `flapping` is told |
//!      +------------------------+                                             ^----------------+
//!      +------------------------------------------------------------------------+
//!                 no change for a while: `settled` is told, with how it stands
//! ```
//!
//! Changes count whether they were told or held back; the two messages are held back as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Told;
use super::reason::{Reason, ReasonKind};
use crate::clock::{Mono, Now};
use crate::event::{
    CalmEvent, Event, EventKind, FlapEvent, FlapState, Incident, IncidentChange, Level, WatchEvent,
};
use crate::store::{Table, Write};

/// What the history and the API call the reason.
pub const FLAPPING: &str = "flapping";
/// What is not flapping is forgotten together with others, after this at the soonest: of each commit
/// a disk wears.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How many are forgotten in one transaction.
const MAX_FORGOTTEN: usize = 1_000;
/// How soon the next ones are, where there are more.
const FORGET_MORE: Duration = Duration::from_secs(1);

/// When something counts as flapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlapSettings {
    /// So many changes
    pub changes: usize,
    /// within this time.
    pub within: Duration,
    /// It has settled after this time without a change.
    pub quiet: Duration,
}

impl Default for FlapSettings {
    fn default() -> FlapSettings {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        FlapSettings { changes: 6, within: minutes(30), quiet: minutes(15) }
    }
}

/// What becomes of an event because of flapping.
#[derive(Clone, Debug, PartialEq)]
pub enum Absorbed {
    /// It takes its course.
    Nothing,
    /// It only repeats what flaps: it is not recorded either.
    Reminder,
    /// It is recorded, and nobody is told.
    Whole,
    /// It takes its course without the end of what flaps.
    Partly(Box<Event>),
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlapChange {
    at: Now,
    /// The level that it led to; OK: it was over.
    level: Level,
}

/// The changes of one connection or metric, as they are kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flap {
    /// The newest ones, the oldest of these first; at most as many as make it flapping.
    changes: Vec<FlapChange>,
    /// How it stands since the newest one.
    state: FlapState,
    /// As the newest event has it that has any.
    #[serde(default)]
    patience: Duration,
    /// As the event of the newest one has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    behind: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_storm: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flapping: Option<Box<Flapping>>,
}

/// What is known of what flaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flapping {
    /// The first of its changes.
    since: Now,
    /// How many there were.
    count: usize,
    /// The worst level that was told of it.
    worst: Level,
    /// The channels that it is held back for: those that got the message, or will.
    #[serde(default)]
    channels: BTreeSet<String>,
    /// It does not settle before this: while the daemon was down, changes were not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<Now>,
}

impl Flap {
    /// One that changed for the first time.
    fn new(event: &Event, level: Level, state: FlapState, now: Now) -> Flap {
        Flap {
            // Most do not change again: there is no room for more.
            changes: Vec::from([FlapChange { at: now, level }]),
            state,
            patience: event.patience,
            behind: event.behind.clone(),
            in_storm: event.in_storm,
            flapping: None,
        }
    }

    /// The newest change.
    fn last(&self) -> FlapChange {
        *self.changes.last().expect("one that never changed is not known")
    }

    fn push(&mut self, event: &Event, level: Level, state: FlapState, most: usize, now: Now) {
        let excess = (self.changes.len() + 1).saturating_sub(most.max(1));
        self.changes.drain(..excess.min(self.changes.len()));
        self.changes.push(FlapChange { at: now, level });
        self.state = state;
        if !event.patience.is_zero() {
            self.patience = event.patience;
        }
        self.behind.clone_from(&event.behind);
        self.in_storm = event.in_storm;
    }

    /// When it has settled, or is forgotten, if it does not change before.
    fn end(&self, settings: Option<FlapSettings>) -> Mono {
        let last = self.last().at.mono;
        match (&self.flapping, settings) {
            (Some(flapping), settings) => {
                let settled = last + settings.map_or(Duration::ZERO, |settings| settings.quiet);
                flapping.not_before.map_or(settled, |at| settled.max(at.mono))
            }
            (None, Some(settings)) => last + settings.within + Duration::from_millis(1),
            (None, None) => last,
        }
    }

    /// Whether it has not changed for so long that it has settled, as far as the clock says.
    fn is_quiet(&self, settings: Option<FlapSettings>, now: Now) -> bool {
        let quiet = settings.map_or(Duration::ZERO, |settings| settings.quiet);
        self.last().at.mono + quiet <= now.mono
    }

    /// Of those changes that are not too old, their first, their number and the worst level, once
    /// there are as many as `settings` say.
    fn begins(&mut self, settings: FlapSettings, now: Now) -> Option<Flapping> {
        self.changes.retain(|change| now.mono.since(change.at.mono) <= settings.within);
        let (first, count) = (self.changes.first()?, self.changes.len());
        let worst = self.changes.iter().map(|change| change.level).max()?;
        let channels = BTreeSet::new();
        let begun = Flapping { since: first.at, count, worst, channels, not_before: None };
        (count >= settings.changes).then_some(begun)
    }

    /// An event about it; it is held back by what held the newest change back.
    fn event(&self, kind: FlapEvent, now: Now) -> Event {
        let (patience, behind) = (self.patience, self.behind.clone());
        Event { patience, behind, in_storm: self.in_storm, ..Event::new(now.wall, kind) }
    }

    /// That it flaps; none while it does not.
    fn flapping(&self, incident: &Incident) -> Option<FlapEvent> {
        let flapping = self.flapping.as_ref()?;
        Some(FlapEvent::Flapping {
            incident: incident.clone(),
            level: flapping.worst,
            changes: flapping.count,
            within: self.last().at.mono.since(flapping.since.mono),
        })
    }

    /// That it has settled; none when it did not flap.
    fn settled(&self, incident: &Incident, now: Now) -> Option<Event> {
        let (flapping, last) = (self.flapping.as_ref()?, self.last());
        let kind = FlapEvent::Settled {
            incident: incident.clone(),
            level: last.level,
            state: self.state,
            changes: flapping.count,
            within: last.at.mono.since(flapping.since.mono),
        };
        Some(self.event(kind, now))
    }

    fn rebase(&mut self, rebase: impl Fn(Now) -> Now) {
        self.changes.iter_mut().for_each(|change| change.at = rebase(change.at));
        if let Some(flapping) = &mut self.flapping {
            flapping.since = rebase(flapping.since);
            flapping.not_before = flapping.not_before.map(rebase);
        }
    }
}

/// The connections and metrics that changed of late.
#[derive(Debug, Default)]
pub struct Flaps {
    /// None: nothing counts as flapping.
    settings: Option<FlapSettings>,
    known: BTreeMap<Incident, Flap>,
    /// How many of them flap.
    flapping: usize,
    /// What is to be told of them.
    events: Vec<Event>,
    /// When one of them may have settled, or is to be forgotten.
    next: Option<Mono>,
    writes: Vec<Write>,
}

/// Whether the change is part of another piece of news, or of none: what only comes and goes with the
/// host that it is reached through, or with a storm, does not flap itself, unless none of `hearing` was
/// told of that.
fn is_explained(event: &Event, hearing: &BTreeSet<String>, told: &Told) -> bool {
    let knows = |known: &BTreeSet<String>| !known.is_disjoint(hearing);
    event.untold || told.causes.values().any(knows)
}

fn flap_key(incident: &Incident) -> String {
    format!("flap/{}", incident.key())
}

impl Flaps {
    /// None yet, under these settings.
    pub fn new(settings: Option<FlapSettings>) -> Flaps {
        Flaps { settings, ..Flaps::default() }
    }

    /// Applies other settings. Where nothing is flapping any more, what did is told as it stands.
    pub fn reconfigure(&mut self, settings: Option<FlapSettings>) {
        self.settings = settings;
        self.look_again();
    }

    fn look_again(&mut self) {
        self.next = (!self.known.is_empty()).then_some(Mono(i64::MIN));
    }

    /// What becomes of an event that `hearing` are to get, and whose incidents were `told`.
    pub fn absorb(
        &mut self,
        event: &Event,
        hearing: &BTreeSet<String>,
        told: &Told,
        now: Now,
    ) -> Absorbed {
        if self.settings.is_none() && self.known.is_empty() {
            return Absorbed::Nothing;
        }
        let described = event.kind.describe();
        let is_given_up = matches!(
            event.kind,
            EventKind::Forgotten { .. } | EventKind::Watch(WatchEvent::NoLonger { .. })
        );
        if is_given_up {
            described.incident.closes().iter().for_each(|incident| self.close(incident));
        }
        let Some(state) = event.kind.flap_state() else { return Absorbed::Nothing };
        match described.incident {
            IncidentChange::Opens(incident) | IncidentChange::Corrects(incident) => {
                if described.is_reminder {
                    return self.on_reminder(&incident, state);
                }
                let is_news = !hearing.is_empty() || !told.opened.is_empty();
                let (level, counts) = (event.level, !is_explained(event, hearing, told));
                match self.on_change(&incident, event, (level, state), (is_news, counts), now) {
                    true => Absorbed::Whole,
                    false => Absorbed::Nothing,
                }
            }
            IncidentChange::Closes(incidents) => {
                let (is_news, level) = (!told.ended.is_empty(), Level::Ok);
                let counts = !is_explained(event, hearing, told);
                let mut absorbed = Vec::new();
                for incident in incidents {
                    if self.on_change(&incident, event, (level, state), (is_news, counts), now) {
                        absorbed.push(incident);
                    }
                }
                if absorbed.is_empty() {
                    return Absorbed::Nothing;
                }
                let rest = event.without_ends(&absorbed);
                rest.map_or(Absorbed::Whole, |rest| Absorbed::Partly(Box::new(rest)))
            }
            IncidentChange::None => Absorbed::Nothing,
        }
    }

    /// What flaps is not reminded of; the value is newer.
    fn on_reminder(&mut self, incident: &Incident, state: FlapState) -> Absorbed {
        let Some(flap) = self.known.get_mut(incident).filter(|flap| flap.flapping.is_some()) else {
            return Absorbed::Nothing;
        };
        if flap.state.is_like(state) && flap.state != state {
            flap.state = state;
            self.store(incident);
        }
        Absorbed::Reminder
    }

    /// Something is at another level, or over; whether that is absorbed. Of what nobody hears, or what
    /// else explains, changes are not counted.
    fn on_change(
        &mut self,
        incident: &Incident,
        event: &Event,
        (level, state): (Level, FlapState),
        (is_news, counts): (bool, bool),
        now: Now,
    ) -> bool {
        let settings = self.settings;
        let Some(flap) = self.known.get_mut(incident) else {
            if is_news && counts {
                self.begin_to_count(incident, Flap::new(event, level, state, now), now);
            }
            return false;
        };
        let flaps = flap.flapping.is_some();
        if flap.last().level == level && flap.state.is_like(state) {
            flap.state = state;
            return flaps;
        }
        if !counts && !flaps {
            return false;
        }
        let was_quiet = flap.is_quiet(settings, now);
        let most = settings.map_or(1, |settings| settings.changes);
        flap.push(event, level, state, most, now);
        let Some(flapping) = &mut flap.flapping else {
            return self.count(incident, now);
        };
        flapping.count += 1;
        if was_quiet {
            // It had settled before, and that was not told in time: this is how it stands.
            let settled = flap.settled(incident, now);
            self.events.extend(settled);
            self.forget(incident);
            self.begin_to_count(incident, Flap::new(event, level, state, now), now);
            return true;
        }
        if level > flapping.worst {
            flapping.worst = level;
            self.events.extend(flap.flapping(incident).map(|kind| flap.event(kind, now)));
        }
        self.store(incident);
        true
    }

    fn begin_to_count(&mut self, incident: &Incident, flap: Flap, now: Now) {
        let Some(settings) = self.settings else { return };
        self.known.insert(incident.clone(), flap);
        self.wake_at(now.mono + settings.within);
        self.store(incident);
    }

    /// Whether something flaps with its newest change.
    fn count(&mut self, incident: &Incident, now: Now) -> bool {
        let (Some(settings), Some(flap)) = (self.settings, self.known.get_mut(incident)) else {
            return false;
        };
        let begun = flap.begins(settings, now);
        let begins = begun.is_some();
        if begins {
            flap.flapping = begun.map(Box::new);
            self.flapping += 1;
            self.events.extend(flap.flapping(incident).map(|kind| flap.event(kind, now)));
            self.wake_at(now.mono + settings.quiet);
        }
        self.store(incident);
        begins
    }

    fn wake_at(&mut self, at: Mono) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// The channels that are told that something flaps.
    pub fn set_channels(&mut self, incident: &Incident, channels: &BTreeSet<String>) {
        let flap = self.known.get_mut(incident).and_then(|flap| flap.flapping.as_mut());
        if let Some(flapping) = flap
            && flapping.channels != *channels
        {
            flapping.channels.clone_from(channels);
            self.store(incident);
        }
    }

    /// An incident has lost its subject: nobody is told that it flaps, or did.
    pub fn close(&mut self, incident: &Incident) {
        self.events.retain(|event| match &event.kind {
            EventKind::Calm(CalmEvent::Flap(event)) => event.incident() != incident,
            _ => true,
        });
        self.forget(incident);
    }

    fn forget(&mut self, incident: &Incident) {
        if let Some(flap) = self.known.remove(incident) {
            self.flapping -= usize::from(flap.flapping.is_some());
            self.writes.push(Write::remove(Table::Calm, flap_key(incident)));
        }
    }

    /// What is to be told by now: what began to flap, and what has settled. What changed too long ago
    /// is forgotten.
    pub fn due(&mut self, now: Now) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        if self.next.is_none_or(|next| now.mono < next) {
            return events;
        }
        let (mut over, mut left) = (Vec::new(), MAX_FORGOTTEN);
        let forget_at = now.mono + FORGET_EVERY;
        let mut next = None;
        for (incident, flap) in &self.known {
            let (end, flaps) = (flap.end(self.settings), flap.flapping.is_some());
            let wake = match (end <= now.mono, flaps) {
                (true, true) => None,
                (true, false) if left == 0 => Some(now.mono + FORGET_MORE),
                (true, false) => {
                    left -= 1;
                    None
                }
                (false, true) => Some(end),
                (false, false) => Some(end.max(forget_at)),
            };
            match wake {
                Some(at) => next = Some(next.map_or(at, |next: Mono| next.min(at))),
                None => over.push(incident.clone()),
            }
        }
        self.next = next;
        for incident in over {
            events.extend(self.known.get(&incident).and_then(|flap| flap.settled(&incident, now)));
            self.forget(&incident);
        }
        events
    }

    /// When [`Flaps::due`] has something to do next.
    pub fn next_wake(&self, now: Now) -> Option<Mono> {
        if self.events.is_empty() { self.next } else { Some(now.mono) }
    }

    /// Loads a row; what may have changed meanwhile is given its patience from now on.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn restore(
        &mut self,
        key: &str,
        value: &[u8],
        rebase: impl Fn(Now) -> Now,
        now: Now,
    ) -> Result<(), String> {
        let about = key.strip_prefix("flap/").unwrap_or_default();
        let incident: Incident = serde_json::from_str(about).map_err(|why| why.to_string())?;
        let stored: Flap = serde_json::from_slice(value).map_err(|why| why.to_string())?;
        if stored.changes.is_empty() || flap_key(&incident) != key {
            return Err("it has no change, or another key".into());
        }
        let mut flap = stored.clone();
        flap.rebase(rebase);
        let is_over = flap.end(self.settings) <= now.mono;
        if let Some(flapping) = &mut flap.flapping {
            self.flapping += 1;
            if is_over {
                flapping.not_before = Some(now.later(flap.patience));
            }
        }
        let changed = flap != stored;
        self.known.insert(incident.clone(), flap);
        if changed {
            self.store(&incident);
        }
        self.look_again();
        Ok(())
    }

    fn store(&mut self, incident: &Incident) {
        if let Some(flap) = self.known.get(incident) {
            self.writes.push(Write::put(Table::Calm, flap_key(incident), flap));
        }
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Write> + '_ {
        let row = |(incident, flap)| Write::put(Table::Calm, flap_key(incident), flap);
        self.known.iter().map(row)
    }

    /// How many flap.
    pub fn count_flapping(&self) -> usize {
        self.flapping
    }

    /// What flaps, as an event that says so, and why it is held back.
    pub fn flapping(&self, now: Now) -> impl Iterator<Item = (&Incident, Event, Reason)> {
        // Mostly nothing does, and many may have changed.
        let known = (self.flapping > 0).then_some(&self.known).into_iter().flatten();
        known
            .filter_map(move |(incident, flap)| Some((incident, self.shown(incident, flap, now)?)))
            .map(|(incident, (event, reason))| (incident, event, reason))
    }

    /// Whether something flaps.
    pub fn is_flapping(&self, incident: &Incident) -> bool {
        self.known.get(incident).is_some_and(|flap| flap.flapping.is_some())
    }

    /// One of these.
    pub fn flapping_incident(&self, incident: &Incident, now: Now) -> Option<(Event, Reason)> {
        self.shown(incident, self.known.get(incident)?, now)
    }

    fn shown(&self, incident: &Incident, flap: &Flap, now: Now) -> Option<(Event, Reason)> {
        let flapping = flap.flapping.as_ref()?;
        let event = Event::new(flapping.since.wall, flap.flapping(incident)?);
        let reason = Reason {
            why: ReasonKind::Flapping,
            id: FLAPPING.into(),
            until: Some(now.wall + flap.end(self.settings).since(now.mono)),
            text: FLAPPING.into(),
            channels: flapping.channels.clone(),
        };
        Some((event, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    const BEGIN: Now = Now { mono: Mono(1_000_000), wall: Wall(1_800_000_000_000) };
    const SECOND: Duration = Duration::from_secs(1);

    /// Three changes within ten seconds, until it is quiet for five.
    fn flaps() -> Flaps {
        let (within, quiet) = (10 * SECOND, 5 * SECOND);
        Flaps::new(Some(FlapSettings { changes: 3, within, quiet }))
    }

    fn threshold(level: Level, now: Now) -> Event {
        let kind = EventKind::Threshold {
            host: "web1".into(),
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level,
            since: Wall(0),
            reminder: false,
        };
        Event::new(now.wall, kind)
    }

    /// What is told: changes by the first letter of their level, in capitals when it flaps or has
    /// settled at that.
    fn played(flaps: &mut Flaps, changes: &[(u32, Level)]) -> String {
        let letter = |level: Level| level.name().chars().next().unwrap();
        let mut told = String::new();
        let due = |flaps: &mut Flaps, now, told: &mut String| {
            for event in flaps.due(now) {
                let name = event.kind.describe().name;
                told.push(if name == "flapping" {
                    'F'
                } else {
                    letter(event.level).to_ascii_uppercase()
                });
            }
        };
        let hearing: BTreeSet<String> = ["mail".to_owned()].into();
        let mut now = BEGIN;
        for (second, level) in changes {
            let then = BEGIN.later(*second * SECOND);
            while let Some(at) = flaps.next_wake(now).filter(|at| *at < then.mono) {
                now = now.later(at.since(now.mono).max(Duration::from_millis(1)));
                due(flaps, now, &mut told);
            }
            now = then;
            let event = threshold(*level, now);
            match flaps.absorb(&event, &hearing, &Told::default(), now) {
                Absorbed::Nothing => told.push(letter(*level)),
                Absorbed::Whole => {}
                other => panic!("{other:?}"),
            }
            due(flaps, now, &mut told);
        }
        while let Some(at) = flaps.next_wake(now) {
            now = now.later(at.since(now.mono).max(Duration::from_millis(1)));
            due(flaps, now, &mut told);
        }
        assert!(flaps.known.is_empty() && flaps.flapping == 0, "nothing is kept for ever");
        told
    }

    #[test]
    fn so_many_changes_within_a_time_are_flapping_until_it_is_quiet() {
        use Level::{Critical, Ok, Warning};
        for (changes, told) in [
            (&[(0, Warning)][..], "w"),
            (&[(0, Warning), (1, Ok)], "wo"),
            (&[(0, Warning), (1, Ok), (2, Warning)], "woFW"),
            (&[(0, Warning), (1, Critical), (2, Ok)], "wcFO"),
            // The first one is ten seconds old, or more.
            (&[(0, Warning), (5, Ok), (10, Warning)], "woFW"),
            (&[(0, Warning), (5, Ok), (11, Warning)], "wow"),
            (&[(0, Warning), (5, Ok), (11, Warning), (12, Ok)], "wowFO"),
            // The same again is no change.
            (&[(0, Warning), (1, Warning), (2, Ok), (3, Ok), (4, Ok)], "wwooo"),
            // Each change begins the quiet anew; one at its end comes too late.
            (&[(0, Warning), (1, Ok), (2, Warning), (6, Ok), (10, Warning)], "woFW"),
            (&[(0, Warning), (1, Ok), (2, Warning), (7, Ok)], "woFO"),
            (&[(0, Warning), (1, Ok), (2, Warning), (8, Ok)], "woFWo"),
            (&[(0, Warning), (1, Ok), (2, Warning), (8, Ok), (9, Warning)], "woFWow"),
            // Worse than was told of it.
            (&[(0, Warning), (1, Ok), (2, Warning), (3, Critical), (4, Ok)], "woFFO"),
            (&[(0, Warning), (1, Ok), (2, Critical), (3, Warning), (4, Critical)], "woFC"),
        ] {
            assert_eq!(played(&mut flaps(), changes), told, "{changes:?}");
        }
    }
}
