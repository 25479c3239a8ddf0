//! The calm overlay beside the outbox: what is let through from one to the other, and the requests of
//! people about silences and acknowledgements. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::btree::InsertAll;
use crate::clock::Now;
use crate::event::{CalmEvent, Event, EventId, EventKind, Incident, SilenceNotice, WatchEvent};
use crate::notify::calm::scope::{CalmScope, Target};
use crate::notify::calm::{
    Absorbed, Calm, CalmError, CalmSettings, Due, FLAPPING, NewSilence, Released, Ruling,
    SilenceSelection, Told, checked_comment, is_flapping, is_news,
};
use crate::notify::outbox::{Acknowledgement, OpenIncident, Outbox};
use crate::notify::routing::Routes;
use crate::view::calm::{
    AcknowledgedView, CalmAnswer, FollowingView, SilencedView, UnsilencedView,
};

/// An acknowledgement to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAcknowledgement {
    /// Of which open alarms.
    pub scope: CalmScope,
    /// Who.
    pub by: String,
    /// A comment.
    pub comment: Option<String>,
    /// For how long; none: as long as the alarm lasts.
    pub length: Option<std::time::Duration>,
}

/// What people ask of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalmRequest {
    /// Sets a silence.
    Silence(NewSilence),
    /// Ends silences.
    Unsilence {
        /// Which.
        which: SilenceSelection,
        /// Who.
        by: String,
    },
    /// Acknowledges open alarms.
    Acknowledge(NewAcknowledgement),
    /// Takes acknowledgements back.
    UndoAcknowledgement {
        /// Of which alarms.
        scope: CalmScope,
        /// Who.
        by: String,
    },
}

/// How a request is undone that could not be stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Undo {
    /// The silence of this number never was.
    Silence(u64),
    /// The acknowledgements of these are as they were before, unless they changed since.
    Acknowledgements { before: Vec<OpenIncident>, set: Option<Acknowledgement> },
    /// Nothing: that a silence has ended is told rather than kept.
    Nothing,
}

/// A request that was carried out.
pub struct HandledRequest {
    /// The answer, for when it is stored.
    pub answer: CalmAnswer,
    /// What is to be done when it cannot be.
    pub undo: Undo,
    /// What is to be recorded.
    pub events: Vec<Event>,
}

/// What a host asked for and got.
#[derive(Debug)]
pub struct HostRequest {
    /// What is to be recorded.
    pub events: Vec<Event>,
    /// What is to be done when it cannot be stored.
    pub undo: Undo,
}

/// An event that passed the overlay.
pub struct Passed {
    /// Its number.
    pub id: EventId,
    /// The channels that have or will get it.
    pub told: Vec<String>,
    /// What keeps it from others.
    pub held_by: Vec<String>,
}

/// The overlay, and how it meets the outbox.
#[derive(Debug)]
pub struct Overlay {
    /// The silences, the windows, and what they hold back.
    pub calm: Calm,
}

impl Overlay {
    /// An overlay that holds nothing back, under these settings.
    pub fn new(settings: CalmSettings) -> Overlay {
        Overlay { calm: Calm::new(settings) }
    }

    /// Passes an event on to those who get it now; none when it only repeats what is held back.
    pub fn accept(
        &mut self,
        event: &Event,
        outbox: &mut Outbox,
        routes: &Routes,
        now: Now,
    ) -> Option<Passed> {
        let id = outbox.next_event(now.wall);
        if let EventKind::Overdue { host, was_last_up: true, .. } = &event.kind
            && !event.untold
        {
            self.calm.set_parent(host, false);
        }
        let hearing = outbox.audience(event, routes);
        let told = outbox.told(event);
        if let EventKind::Watch(WatchEvent::NoLonger { closes, .. }) = &event.kind
            && told.ended.is_empty()
        {
            // Nobody believes that anything is wrong.
            closes.iter().for_each(|incident| self.calm.close_silently(incident));
            return None;
        }
        let rest = match self.calm.absorb(event, &hearing, &told, now) {
            Absorbed::Nothing => None,
            Absorbed::Partly(rest) => Some(rest),
            Absorbed::Reminder => return None,
            Absorbed::Whole => {
                return Some(Passed { id, told: Vec::new(), held_by: vec![FLAPPING.into()] });
            }
        };
        if event.untold {
            return Some(Passed { id, told: Vec::new(), held_by: Vec::new() });
        }
        let (event, told) = match &rest {
            Some(rest) => (rest.as_ref(), outbox.told(rest)),
            None => (event, told),
        };
        let ruling = self.calm.rule(event, id, hearing, &told, now);
        let Ruling { hearing, mut held_by, dropped } = ruling;
        let flaps = is_flapping(&event.kind);
        // Of what nobody was told of no reminder waits.
        if (flaps || !held_by.is_empty())
            && !told.opened.is_empty()
            && let Some(incident) = event.incident().opens()
        {
            let why = if flaps { FLAPPING } else { SILENCED };
            outbox.withdraw_reminders(|other, _| other == incident, why, now);
        }
        if dropped {
            return None;
        }
        held_by.extend(rest.is_some().then(|| FLAPPING.to_owned()));
        let told = outbox.accept(event, id, hearing, now);
        Some(Passed { id, told, held_by })
    }

    /// What the passing of time caused, and what channels were told or not told since the last call.
    pub fn due(&mut self, outbox: &Outbox, now: Now) -> Due {
        self.calm.set_known(|cause| outbox.knowing(cause));
        self.calm.due(now)
    }

    /// Passes on what came out of a hold, to the channels that were told something else; none when
    /// there is none. Where it is one of many, they become a digest.
    pub fn release_all(
        &mut self,
        released: Vec<Released>,
        outbox: &mut Outbox,
        routes: &Routes,
        now: Now,
    ) -> Vec<(Event, Passed)> {
        let mut passed = Vec::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for released in released {
            let Some(one) = self.release(&released, outbox, routes, now) else { continue };
            for channel in &one.told {
                *counts.entry(channel.clone()).or_default() += 1;
            }
            passed.push((released.event, one));
        }
        counts.iter().for_each(|(channel, count)| outbox.on_released(channel, *count));
        passed
    }

    fn release(
        &mut self,
        released: &Released,
        outbox: &mut Outbox,
        routes: &Routes,
        now: Now,
    ) -> Option<Passed> {
        let event = &released.event;
        let told = outbox.told(event);
        let mut hearing = news(event, &told, outbox, routes);
        if let Some(channels) = &released.channels {
            hearing.retain(|channel| channels.contains(channel));
        }
        let hearing = self.calm.release(released, hearing, &told.causes);
        if hearing.is_empty() {
            return None;
        }
        let id = outbox.next_event(now.wall);
        let told = outbox.accept(event, id, hearing, now);
        Some(Passed { id, told, held_by: Vec::new() })
    }

    /// After a reload: what is held comes out to the channels that there are now.
    pub fn readdress(&mut self, outbox: &Outbox, routes: &Routes, now: Now) {
        self.calm.readdress(|event| news(event, &outbox.told(event), outbox, routes), now);
    }

    /// A host asks for a silence of its own.
    ///
    /// # Errors
    /// Conflict: one too many.
    pub fn on_host_request(
        &mut self,
        request: &SilenceNotice,
        outbox: &mut Outbox,
        routes: &Routes,
        now: Now,
    ) -> Result<HostRequest, CalmError> {
        let is_configured = routes.host(&request.by).is_some();
        let (events, set) = self.calm.on_host_request(request, is_configured, now)?;
        self.withdraw_reminders(outbox, now);
        Ok(HostRequest { events, undo: set.map_or(Undo::Nothing, Undo::Silence) })
    }

    /// Takes reminders out of the outbox that a silence or a window holds back now.
    pub fn withdraw_reminders(&mut self, outbox: &mut Outbox, now: Now) {
        let calm = &mut self.calm;
        let quiet = |incident: &Incident, level| calm.is_quiet(incident, level, now);
        outbox.withdraw_reminders(quiet, SILENCED, now);
    }

    /// Carries a request out.
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed.
    pub fn handle(
        &mut self,
        request: CalmRequest,
        outbox: &mut Outbox,
        now: Now,
    ) -> Result<HandledRequest, CalmError> {
        match request {
            CalmRequest::Silence(new) => self.silence(new, outbox, now),
            CalmRequest::Unsilence { which, by } => self.unsilence(&which, &by, outbox, now),
            CalmRequest::Acknowledge(new) => acknowledge(new, outbox, now),
            CalmRequest::UndoAcknowledgement { scope, by } => undo(&scope, &by, outbox, now),
        }
    }

    /// Takes back what could not be stored.
    pub fn undo(&mut self, undo: &Undo, outbox: &mut Outbox) {
        match undo {
            Undo::Silence(number) => self.calm.take_back(*number),
            Undo::Acknowledgements { before, set } => {
                outbox.restore_acknowledgements(before, set.as_ref());
            }
            Undo::Nothing => {}
        }
    }

    fn silence(
        &mut self,
        new: NewSilence,
        outbox: &mut Outbox,
        now: Now,
    ) -> Result<HandledRequest, CalmError> {
        let scope = new.scope.clone();
        let number = self.calm.set(new, now)?;
        self.withdraw_reminders(outbox, now);
        let silence = self.calm.silence(number, now).expect("it was set just now");
        let told = outbox.open_incidents().filter(|open| covers(&scope, open));
        let view = SilencedView { silence, told: told.map(title).collect() };
        Ok(HandledRequest {
            answer: CalmAnswer::Silenced(view),
            undo: Undo::Silence(number),
            events: self.calm.notice(number, now).into_iter().collect(),
        })
    }

    fn unsilence(
        &mut self,
        which: &SilenceSelection,
        by: &str,
        outbox: &Outbox,
        now: Now,
    ) -> Result<HandledRequest, CalmError> {
        let events = self.calm.end(which, by, now)?;
        self.calm.set_known(|cause| outbox.knowing(cause));
        self.calm.review(now);
        let mut follows: Vec<FollowingView> = Vec::new();
        let new = self.calm.follows(now).filter(|(held, _)| held.released == Some(now));
        for (held, left) in new {
            let (told, state) = (outbox.told(&held.event), held.event.alarm_state());
            let mut channels = held.reasons.iter().flat_map(|reason| &reason.channels);
            if channels.any(|channel| is_news(&state, told.opened.get(channel))) {
                let (text, seconds) = (held.incident.to_string(), left.as_secs_f64());
                follows.push(FollowingView { text, seconds });
            }
        }
        follows.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        let ended = events.iter().filter_map(|event| match &event.kind {
            EventKind::Calm(CalmEvent::Unsilenced { id, .. }) => Some(id.clone()),
            _ => None,
        });
        let answer = CalmAnswer::Unsilenced(UnsilencedView { ended: ended.collect(), follows });
        Ok(HandledRequest { answer, undo: Undo::Nothing, events })
    }
}

/// The channels of an event that were told something else.
fn news(event: &Event, told: &Told, outbox: &Outbox, routes: &Routes) -> BTreeSet<String> {
    let state = event.alarm_state();
    let mut hearing = outbox.audience(event, routes);
    hearing.retain(|channel| is_news(&state, told.opened.get(channel)));
    hearing
}

const SILENCED: &str = "silenced";

fn covers(scope: &CalmScope, open: &OpenIncident) -> bool {
    let told = !open.channels.is_empty();
    told && Target::of_incident(&open.incident).is_some_and(|target| scope.covers(target))
}

/// As it was told, or else what it is about.
fn title(open: &OpenIncident) -> String {
    open.title.clone().unwrap_or_else(|| open.incident.to_string())
}

fn acknowledge(
    new: NewAcknowledgement,
    outbox: &mut Outbox,
    now: Now,
) -> Result<HandledRequest, CalmError> {
    let NewAcknowledgement { scope, by, comment, length } = new;
    if length.is_some_and(|length| length.is_zero()) {
        let what = "must be longer than 0 s".into();
        return Err(CalmError::Invalid { field: "seconds", what });
    }
    let note = checked_comment(comment)?;
    let acknowledgement = Acknowledgement {
        at: now.wall,
        by: Some(by.clone()),
        note,
        limit: length.map(|length| (now, length)),
        ..Acknowledgement::default()
    };
    let before = outbox.acknowledge(|open| covers(&scope, open), &acknowledgement, now);
    if before.is_empty() {
        let why = format!("nothing that was told is wrong with {scope}");
        return Err(CalmError::NotFound(why));
    }
    Ok(acknowledged(before, &by, Some(acknowledgement), now))
}

fn undo(
    scope: &CalmScope,
    by: &str,
    outbox: &mut Outbox,
    now: Now,
) -> Result<HandledRequest, CalmError> {
    let before = outbox.undo_acknowledgement(|open| covers(scope, open), now);
    if before.is_empty() {
        return Err(CalmError::NotFound(format!("nothing of {scope} is acknowledged")));
    }
    Ok(acknowledged(before, by, None, now))
}

fn acknowledged(
    before: Vec<OpenIncident>,
    by: &str,
    set: Option<Acknowledgement>,
    now: Now,
) -> HandledRequest {
    let titles: Vec<String> = before.iter().map(title).collect();
    let comment = set.as_ref().and_then(|set| set.note.clone());
    let event = acknowledgement_event(&before, by, comment, set.is_none(), now);
    HandledRequest {
        answer: CalmAnswer::Acknowledged(AcknowledgedView { acknowledged: titles }),
        undo: Undo::Acknowledgements { before, set },
        events: vec![event],
    }
}

/// The event that reports an acknowledgement of these, or its end.
pub fn acknowledgement_event(
    open: &[OpenIncident],
    by: &str,
    comment: Option<String>,
    undone: bool,
    now: Now,
) -> Event {
    let host = |open: &OpenIncident| match Target::of_incident(&open.incident) {
        Some(Target::Host(host) | Target::Part { host, .. }) => Some(host.to_owned()),
        Some(Target::Plan(_) | Target::OtherHosts) | None => None,
    };
    let hosts: BTreeSet<Option<String>> = open.iter().map(host).insert_all();
    let kind = CalmEvent::Acknowledged {
        // Only where all are of one host.
        host: hosts.iter().next().filter(|_| hosts.len() == 1).cloned().flatten(),
        alarms: open.iter().map(title).collect(),
        by: by.to_owned(),
        comment,
        undone,
    };
    Event::new(now.wall, kind)
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
