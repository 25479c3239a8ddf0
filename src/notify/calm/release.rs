//! What comes out of a hold when the last reason has ended. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::held::{HeldIncident, HeldNote};
use super::reason::{KnownCauses, RootCause, channels_of, reasons_of};
use super::scope::Target;
use super::silence::Silence;
use super::{Calm, Due, MAX_WAIT, held_key, note_key};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now};
use crate::event::{Event, Incident, Level};
use crate::store::{Table, Write};

/// What comes out of a hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    /// What is wrong.
    pub incident: Incident,
    /// The newest event about it, with what held it back.
    pub event: Event,
    /// The channels that it comes out to, while it is held back from others; none: to all.
    pub channels: Option<BTreeSet<String>>,
}

impl Calm {
    /// Ends silences whose time is over, and lets out what nothing holds back any more.
    pub fn due(&mut self, now: Now) -> Due {
        let mut due = Due { events: self.flaps.due(now), ..Due::default() };
        if !self.lost.is_empty() {
            due.events.push(self.report_lost(now));
        }
        if self.next_review.is_some_and(|at| now.mono < at) {
            return due;
        }
        let over =
            |(number, silence): (&u64, &Silence)| (!silence.is_running(now)).then_some(*number);
        let over: Vec<u64> = self.silences.iter().filter_map(over).collect();
        due.events.extend(over.into_iter().filter_map(|number| self.remove(number, None, now)));
        self.update_running(now.wall);
        self.review(now);
        due.released = self.take_released(now);
        due.events.extend(self.take_notes(now));
        due.window_began = self.windows_began();
        self.next_review = Some(self.following_review(now));
        due
    }

    /// Looks again at what holds each thing back.
    pub fn review(&mut self, now: Now) {
        let mut held = std::mem::take(&mut self.held);
        for (incident, one) in &mut held {
            let level = one.event.level;
            let overlays = match Target::of_incident(incident) {
                Some(target) => self.reasons(target, level, now),
                None => self.reasons_for_all(&Target::of_storm(&one.event), level, now),
            };
            if one.review(overlays, &self.causes, now) {
                self.writes.push(Write::put(Table::Calm, held_key(incident), one));
            }
        }
        if !self.causes.is_empty() {
            let used: BTreeSet<RootCause> =
                held.values().flat_map(|one| RootCause::of(&one.event)).insert_all();
            self.causes.retain(|cause, _| used.contains(cause));
        }
        self.held = held;
    }

    /// What comes out now, and what explains something else before that: of a host that silenced
    /// itself and shut down, one thing and no more.
    fn take_released(&mut self, now: Now) -> Vec<Released> {
        let is_out = |one: &&HeldIncident| one.all_out_at().any(|at| at <= now.mono);
        let mut out: Vec<HeldIncident> = self.held.values().filter(is_out).cloned().collect();
        out.sort_unstable_by_key(|one| (one.event.behind.len(), one.event.in_storm, one.id));
        let is_whole = |one: &HeldIncident| one.out_at().is_some_and(|at| at <= now.mono);
        let mut told: BTreeSet<String> = BTreeSet::new();
        for one in out.iter().filter(|one| is_whole(one)) {
            if let (Incident::NotBack { host }, true) = (&one.incident, one.is_by_host()) {
                told.insert(host.clone());
            }
        }
        let mut released = Vec::new();
        for one in out {
            let incident = &one.incident;
            if !is_whole(&one) {
                for (held_back, channels) in one.out_to(now.mono) {
                    let event = Event { held_back: Some(held_back), ..one.event.clone() };
                    let (incident, channels) = (incident.clone(), Some(channels));
                    released.push(Released { incident, event, channels });
                }
                continue;
            }
            let host = one.shut_down_host().map(str::to_owned);
            if host.is_none_or(|host| told.insert(host)) {
                let (incident, event) = (incident.clone(), one.to_event());
                released.push(Released { incident, event, channels: None });
            } else {
                self.release_quietly(incident);
            }
        }
        let said = |one: &&HeldIncident| {
            !is_whole(one)
                && one.released.is_some()
                && one.shut_down_host().is_some_and(|host| told.contains(host))
        };
        let said = self.held.values().filter(said).map(|one| one.incident.clone());
        said.collect::<Vec<_>>().iter().for_each(|incident| self.release_quietly(incident));
        released
    }

    /// Lets out what was released to those of the channels in `hearing` that know of none of its
    /// causes; these. It stays held back from the others: what explains it was told meanwhile.
    pub fn release(
        &mut self,
        released: &Released,
        mut hearing: BTreeSet<String>,
        known: &KnownCauses,
    ) -> BTreeSet<String> {
        let Some(mut one) = self.held.remove(&released.incident) else { return BTreeSet::new() };
        let reasons = reasons_of(one.causes(), &hearing, known);
        let held = channels_of(&reasons);
        hearing.retain(|channel| !held.contains(channel));
        let is_left = match &released.channels {
            None => !held.is_empty(),
            Some(channels) => {
                one.remove_channels(channels) || !held.is_empty() || one.released.is_some()
            }
        };
        if released.channels.is_none() {
            one.reasons.clear();
            one.free.clear();
        }
        if !reasons.is_empty() {
            one.released = None;
            one.add_reasons(reasons);
            self.causes.extend(known.clone());
            self.next_review = None;
        }
        let key = held_key(&released.incident);
        if is_left {
            self.writes.push(Write::put(Table::Calm, key, &one));
            self.held.insert(released.incident.clone(), one);
        } else {
            self.writes.push(Write::remove(Table::Calm, key));
        }
        hearing
    }

    /// After a reload: what is held comes out to the channels in the `audience` of its event, as far
    /// as these were told something else.
    pub fn readdress(&mut self, audience: impl Fn(&Event) -> BTreeSet<String>, now: Now) {
        for (incident, one) in &mut self.held {
            if one.set_channels(&audience(&one.event), now) {
                self.writes.push(Write::put(Table::Calm, held_key(incident), one));
                self.next_review = None;
            }
        }
    }

    fn take_notes(&mut self, now: Now) -> Vec<Event> {
        let mut notes = std::mem::take(&mut self.notes);
        let mut out: BTreeMap<String, Vec<HeldNote>> = BTreeMap::new();
        let mut quiet: BTreeMap<(String, Level), bool> = BTreeMap::new();
        notes.retain(|number, note| {
            // All notes of a host come out together, unless something holds back the lesser ones alone.
            let level = note.worst_level();
            let is_quiet = *quiet
                .entry((note.host.clone(), level))
                .or_insert_with(|| !self.reasons(Target::Host(&note.host), level, now).is_empty());
            if !is_quiet {
                self.writes.push(Write::remove(Table::Calm, note_key(*number)));
                out.entry(note.host.clone()).or_default().push(note.clone());
            }
            is_quiet
        });
        self.notes = notes;
        out.into_iter().map(|(host, notes)| HeldNote::join(host, &notes, now)).collect()
    }

    fn windows_began(&mut self) -> bool {
        let windows = self.settings.windows.iter().zip(&self.running.1);
        let running = windows.filter(|(_, running)| running.is_some());
        let running: BTreeSet<String> = running.map(|(window, _)| window.name.clone()).insert_all();
        let before = std::mem::replace(&mut self.began, running);
        self.began.difference(&before).next().is_some()
    }

    fn following_review(&self, now: Now) -> Mono {
        let silences = self.silences.values().map(Silence::end);
        let windows = self.running.1.iter().flatten();
        let windows = windows.map(|running| now.mono + running.until.since(now.wall));
        let held = self.held.values().flat_map(HeldIncident::all_out_at);
        let watches =
            !self.held.is_empty() || !self.notes.is_empty() || !self.settings.windows.is_empty();
        let most = watches.then(|| now.mono + MAX_WAIT);
        let all = silences.chain(windows).chain(held).chain(most);
        all.min().unwrap_or(Mono(i64::MAX))
    }

    /// When [`Calm::due`] has something to do next.
    pub fn next_wake(&self, now: Now) -> Option<Mono> {
        if !self.lost.is_empty() {
            return Some(now.mono);
        }
        let review = match self.next_review {
            None => Some(now.mono),
            Some(Mono(i64::MAX)) => None,
            Some(at) => Some(at),
        };
        review.into_iter().chain(self.flaps.next_wake(now)).min()
    }
}
