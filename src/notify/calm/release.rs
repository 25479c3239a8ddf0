//! What comes out of a hold when the last reason has ended. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::held::{HeldIncident, HeldNote, Reason};
use super::scope::Target;
use super::silence::Silence;
use super::{Calm, Due, MAX_WAIT, held_key, note_key};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now};
use crate::event::{Event, Incident, Level};
use crate::store::{Table, Write};

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
            let target = Target::of_incident(incident);
            let mut reasons =
                target.map(|target| self.reasons(target, one.event.level, now)).unwrap_or_default();
            let released = reasons.is_empty();
            if released == one.released.is_some() && (released || same(&reasons, &one.reasons)) {
                continue;
            }
            one.released = released.then_some(now);
            if !released {
                let channels = one.reasons.first().map(|reason| reason.channels.clone());
                let channels = channels.unwrap_or_default();
                reasons.iter_mut().for_each(|reason| reason.channels.clone_from(&channels));
                one.reasons = reasons;
            }
            self.writes.push(Write::put(Table::Calm, held_key(incident), one));
        }
        self.held = held;
    }

    /// What comes out now: of a host that silenced itself and shut down, one thing and no more.
    fn take_released(&mut self, now: Now) -> Vec<Event> {
        let is_out = |one: &&HeldIncident| one.out_at().is_some_and(|at| at <= now.mono);
        let mut out: Vec<HeldIncident> = self.held.values().filter(is_out).cloned().collect();
        out.sort_unstable_by_key(|one| one.id);
        let mut told: BTreeSet<String> = BTreeSet::new();
        for one in &out {
            if let (Incident::NotBack { host }, true) = (&one.incident, one.is_by_host()) {
                told.insert(host.clone());
            }
        }
        let mut events = Vec::new();
        for one in out {
            self.release_quietly(&one.incident);
            let host = one.shut_down_host().map(str::to_owned);
            if host.is_none_or(|host| told.insert(host)) {
                events.push(one.into_event());
            }
        }
        let said = |one: &&HeldIncident| {
            one.released.is_some() && one.shut_down_host().is_some_and(|host| told.contains(host))
        };
        let said = self.held.values().filter(said).map(|one| one.incident.clone());
        said.collect::<Vec<_>>().iter().for_each(|incident| self.release_quietly(incident));
        events
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
        let held = self.held.values().filter_map(HeldIncident::out_at);
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

/// Whether two lists name the same overlays.
fn same(one: &[Reason], other: &[Reason]) -> bool {
    let key = |reason: &Reason| (reason.why, reason.id.clone());
    one.iter().map(key).eq(other.iter().map(key))
}
