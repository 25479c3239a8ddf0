//! The calm overlay: what stands between an event and its deliveries, and what it holds back until
//! the reason has ended. Pure.
//!
//! ```text
//!  Event --> rule --> tell these channels        --> outbox
//!              |
//!              +----> hold, from all or from some: a row in the table `calm`
//!                       |  the incident is over, or its subject is gone: the row goes
//!                       |  the last reason ends, and its patience has passed
//!                       v
//!                     due --> told to each channel that was told something else --> outbox
//! ```
//!
//! A hold stops deliveries from being made, and nothing else: the state is evaluated and recorded,
//! and the end of an incident reaches every channel that was given it. The courier owns this beside
//! the outbox, and writes both in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{
    AlarmState, CalmEvent, Event, EventId, EventKind, FlapEvent, Incident, IncidentChange, Level,
};
use crate::store::{Table, Write};

mod flap;
mod held;
mod reason;
mod release;
mod requests;
mod restore;
pub mod scope;
pub mod settings;
mod silence;
mod views;
pub mod window;

use self::flap::Flaps;
pub use self::flap::{Absorbed, FLAPPING, FlapSettings};
use self::held::HeldNote;
pub use self::held::{HeldIncident, MAX_NOTES};
pub use self::reason::{KnownCauses, Reason, ReasonKind, RootCause};
use self::reason::{channels_of, reasons_of};
pub use self::release::Released;
pub use self::requests::{NewSilence, SilenceSelection, checked_comment};
pub use self::restore::LostRow;
use self::scope::Target;
pub use self::settings::CalmSettings;
pub use self::silence::{MAX_COMMENT, MAX_SILENCES, Origin, Silence, rebased_start};
pub use self::views::{CalmOverview, CalmStats};
use self::window::Occurrence;

/// While something is held or a window is configured, the clocks are compared this often: the wall
/// clock may have been set.
const MAX_WAIT: Duration = Duration::from_secs(60);
const LAST_SILENCE_KEY: &str = "meta/last_silence";

/// The silences, the windows, and what they hold back.
#[derive(Debug, Default)]
pub struct Calm {
    settings: CalmSettings,
    silences: BTreeMap<u64, Silence>,
    last_silence: u64,
    held: BTreeMap<Incident, HeldIncident>,
    notes: BTreeMap<EventId, HeldNote>,
    /// What may explain things that are held, and the channels that know of it.
    causes: KnownCauses,
    flaps: Flaps,
    /// The windows that are running, by their index, as of a moment.
    running: (Wall, Vec<Option<Occurrence>>),
    /// The names of those that were running at the last review.
    began: BTreeSet<String>,
    /// When the next review is due; none: at once.
    next_review: Option<Mono>,
    /// The keys of rows that could not be read.
    lost: Vec<String>,
    writes: Vec<Write>,
}

/// What the outbox knows of the incidents that an event opens or ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What each channel was told last of the incident that it opens.
    pub opened: BTreeMap<String, AlarmState>,
    /// The channels that were given an incident that it ends.
    pub ended: BTreeSet<String>,
    /// The channels that were told of each cause that the event has.
    pub causes: KnownCauses,
}

/// What becomes of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// The channels that get it, beside those that were given an incident that it ends.
    pub hearing: BTreeSet<String>,
    /// What keeps it from others: `s17`, the name of a window. Empty: nothing does.
    pub held_by: Vec<String>,
    /// It only repeats what is held back: it is not recorded either.
    pub dropped: bool,
}

/// What the passing of time caused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// What comes out of a hold.
    pub released: Vec<Released>,
    /// Events to accept as any other: the ends of silences, the notes of hosts, what was lost.
    pub events: Vec<Event>,
    /// A window began: reminders that wait may be in it.
    pub window_began: bool,
}

/// Why a request about silences or acknowledgements is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalmError {
    /// The request is wrong (400).
    Invalid { field: &'static str, what: String },
    /// There is no such host, silence or open alarm (404).
    NotFound(String),
    /// It is beyond a limit (409).
    Conflict(String),
    /// It could not be stored, or there was no time for it (503); it has no effect.
    NotStored(String),
}

impl fmt::Display for CalmError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CalmError::Invalid { field, what } if !field.is_empty() => write!(f, "{field}: {what}"),
            CalmError::Invalid { what, .. }
            | CalmError::NotFound(what)
            | CalmError::Conflict(what)
            | CalmError::NotStored(what) => f.write_str(what),
        }
    }
}

fn id(number: u64) -> String {
    format!("s{number}")
}

fn silence_key(number: u64) -> String {
    format!("silence/{}", id(number))
}

fn held_key(incident: &Incident) -> String {
    format!("held/{}", incident.key())
}

fn note_key(event: EventId) -> String {
    format!("note/{event}")
}

impl Calm {
    /// Without silences, under these settings.
    pub fn new(settings: CalmSettings) -> Calm {
        Calm { flaps: Flaps::new(settings.flapping), settings, ..Calm::default() }
    }

    /// Applies other settings: what a window held that is gone comes out.
    pub fn reconfigure(&mut self, settings: CalmSettings) {
        self.flaps.reconfigure(settings.flapping);
        self.settings = settings;
        self.running = (Wall(0), Vec::new());
        self.next_review = None;
    }

    /// What holds back an event of this level about `target`.
    fn reasons(&mut self, target: Target, level: Level, now: Now) -> Vec<Reason> {
        self.reasons_for_all(&[target], level, now)
    }

    /// What holds back an event of this level about all of these: each overlay covers every one.
    fn reasons_for_all(&mut self, targets: &[Target], level: Level, now: Now) -> Vec<Reason> {
        if targets.is_empty() {
            return Vec::new();
        }
        self.update_running(now.wall);
        let speaks = |unless: Option<Level>| unless.is_none_or(|unless| level < unless);
        let silences = self.silences.iter().filter(|(_, silence)| {
            speaks(silence.unless)
                && silence.is_running(now)
                && targets.iter().all(|target| silence.covers(*target))
        });
        let silences = silences.map(|(number, silence)| silence_reason(*number, silence, now));
        let windows = self.settings.windows.iter().zip(&self.running.1);
        let windows = windows.filter_map(|(window, running)| {
            let covers = targets.iter().all(|target| window.covers(*target));
            let running = running.filter(|_| speaks(window.unless) && covers)?;
            Some(Reason {
                why: ReasonKind::Window,
                id: window.name.clone(),
                until: Some(running.until),
                text: format!("the window {}", window.name),
                channels: BTreeSet::new(),
            })
        });
        silences.chain(windows).collect()
    }

    fn update_running(&mut self, now: Wall) {
        if self.running.0 != now || self.running.1.len() != self.settings.windows.len() {
            let windows = self.settings.windows.iter();
            self.running = (now, windows.map(|window| window.current(now)).collect());
        }
    }

    /// Whether something holds back what is known of an open incident.
    pub fn is_quiet(&mut self, incident: &Incident, level: Level, now: Now) -> bool {
        Target::of_incident(incident)
            .is_some_and(|target| !self.reasons(target, level, now).is_empty())
    }

    /// What becomes of an event because what it is about changes again and again: that is the case
    /// before it is asked what else holds it back.
    pub fn absorb(
        &mut self,
        event: &Event,
        hearing: &BTreeSet<String>,
        told: &Told,
        now: Now,
    ) -> Absorbed {
        let absorbed = self.flaps.absorb(event, hearing, told, now);
        if absorbed != Absorbed::Nothing {
            let change = event.incident();
            for incident in change.opens().into_iter().chain(change.closes()) {
                // What else was held back of it is not how it stands any more.
                let outdated = |held: &HeldIncident| !is_flapping(&held.event.kind);
                if self.flaps.is_flapping(incident) && self.held.get(incident).is_some_and(outdated)
                {
                    self.release_quietly(incident);
                }
            }
        }
        absorbed
    }

    /// Decides which of the channels in `hearing` get an event now, and holds it back for the others.
    pub fn rule(
        &mut self,
        event: &Event,
        number: EventId,
        hearing: BTreeSet<String>,
        told: &Told,
        now: Now,
    ) -> Ruling {
        let described = event.describe();
        for incident in described.incident.closes() {
            self.release_quietly(incident);
        }
        if let Some(incident) = described.incident.opens().filter(|_| is_flapping(&event.kind)) {
            self.flaps.set_channels(incident, &hearing);
        }
        let target = match &described.incident {
            IncidentChange::Opens(incident) | IncidentChange::Corrects(incident) => {
                Target::of_incident(incident)
            }
            IncidentChange::Closes(incidents) if event.level == Level::Ok => {
                incidents.first().and_then(Target::of_incident)
            }
            IncidentChange::Closes(_) | IncidentChange::None => {
                Target::of_subject(&described.subject)
            }
        };
        let reasons = match target {
            _ if described.history_only => Vec::new(),
            Some(target) => self.reasons(target, event.level, now),
            None => self.reasons_for_all(&Target::of_storm(event), event.level, now),
        };
        match described.incident.opens() {
            None if reasons.is_empty() => Ruling { hearing, ..Ruling::default() },
            None => self.rule_without_incident(event, number, &hearing, told, reasons),
            Some(incident) => {
                let incident = incident.clone();
                let is_reminder = described.is_reminder;
                let event = (event, number, is_reminder);
                let ruling = self.rule_incident(incident, event, hearing, told, reasons);
                if !ruling.held_by.is_empty() {
                    // What holds it back was looked at just now.
                    self.next_review = self.next_review.map(|at| at.min(now.mono + MAX_WAIT));
                }
                ruling
            }
        }
    }

    /// Overlays hold it back from all, and causes from the channels that know of them: the others get
    /// it. Where something held it back until a moment ago, it is news only to those that were told
    /// something else.
    fn rule_incident(
        &mut self,
        incident: Incident,
        (event, number, is_reminder): (&Event, EventId, bool),
        mut hearing: BTreeSet<String>,
        told: &Told,
        mut reasons: Vec<Reason>,
    ) -> Ruling {
        let held_from_all = !reasons.is_empty();
        reasons.iter_mut().for_each(|reason| reason.channels.clone_from(&hearing));
        reasons.extend(reasons_of(RootCause::of(event), &hearing, &told.causes));
        let held = if held_from_all { hearing.clone() } else { channels_of(&reasons) };
        hearing.retain(|channel| !held.contains(channel));
        let before = self.held.get(&incident);
        let knows = |channel: &String| told.opened.contains_key(channel);
        if !reasons.is_empty() && is_reminder && held.iter().all(knows) {
            let dropped = hearing.is_empty();
            return Ruling { hearing, held_by: names(&reasons), dropped };
        }
        if before.is_some() && !is_reminder {
            let state = event.alarm_state();
            hearing.retain(|channel| is_news(&state, told.opened.get(channel)));
        }
        if reasons.is_empty() || (held.is_empty() && before.is_none()) {
            self.release_quietly(&incident);
            return Ruling { hearing, ..Ruling::default() };
        }
        let held_by = names(&reasons);
        self.hold(incident, event, number, told, reasons);
        Ruling { hearing, held_by, dropped: false }
    }

    /// An end reaches those that were given the alarm, by the outbox; an announcement is a note.
    fn rule_without_incident(
        &mut self,
        event: &Event,
        number: EventId,
        hearing: &BTreeSet<String>,
        told: &Told,
        reasons: Vec<Reason>,
    ) -> Ruling {
        let held_by = names(&reasons);
        let unheard: BTreeSet<String> = hearing.difference(&told.ended).cloned().insert_all();
        let said_before = matches!(event.kind, EventKind::Booted { announced: true, .. })
            && reasons.iter().any(|reason| reason.why == ReasonKind::Host);
        if event.level > Level::Ok && !unheard.is_empty() && !said_before {
            self.keep_note(event, number, &unheard, reasons);
        }
        Ruling { held_by, ..Ruling::default() }
    }

    fn hold(
        &mut self,
        incident: Incident,
        event: &Event,
        id: EventId,
        told: &Told,
        reasons: Vec<Reason>,
    ) {
        let level = |(channel, state): (&String, &AlarmState)| (channel.clone(), state.level);
        let before = self.held.get(&incident);
        let held = HeldIncident {
            since: before.map_or(event.at, |before| before.since),
            event: event.clone(),
            id,
            reasons,
            told: told.opened.iter().map(level).insert_all(),
            released: None,
            free: BTreeMap::new(),
            parents_up: BTreeSet::new(),
            incident: incident.clone(),
        };
        self.writes.push(Write::put(Table::Calm, held_key(&incident), &held));
        self.held.insert(incident, held);
        self.causes.extend(told.causes.clone());
    }

    /// What [causes](RootCause) a channel must know of that something is held back from.
    pub fn set_known(&mut self, knowing: impl Fn(&RootCause) -> BTreeSet<String>) {
        for (cause, known) in &mut self.causes {
            let channels = knowing(cause);
            if *known != channels {
                *known = channels;
                self.next_review = None;
            }
        }
    }

    /// A host that others are reached through is down, or no longer: what is held because of that.
    pub fn set_parent(&mut self, host: &str, is_up: bool) {
        if !self.causes.contains_key(&RootCause::Parent(host.to_owned())) {
            return;
        }
        for (incident, one) in &mut self.held {
            let changes = match is_up {
                true => {
                    one.event.behind.iter().any(|parent| parent == host)
                        && one.parents_up.insert(host.to_owned())
                }
                false => one.parents_up.remove(host),
            };
            if changes {
                self.writes.push(Write::put(Table::Calm, held_key(incident), one));
                self.next_review = None;
            }
        }
    }

    /// What a host is reached through does not explain its silence any more: of several that are down
    /// perhaps one is in its way no longer.
    pub fn clear_parents(&mut self, host: &str) {
        let of_host = |incident: &Incident| matches!(incident, Incident::Connection { host: of, .. } if of == host);
        let first = Incident::connection(host, "");
        let connections = self.held.range(first..).map(|(incident, _)| incident.clone());
        let of_whole = [
            Incident::NeverSeen { host: host.to_owned() },
            Incident::NotBack { host: host.to_owned() },
        ];
        let all: Vec<Incident> = connections.take_while(of_host).chain(of_whole).collect();
        for incident in all {
            if let Some(one) = self.held.get_mut(&incident)
                && one.clear_parents()
            {
                self.writes.push(Write::put(Table::Calm, held_key(&incident), one));
                self.next_review = None;
            }
        }
    }

    fn keep_note(
        &mut self,
        event: &Event,
        id: EventId,
        hearing: &BTreeSet<String>,
        mut reasons: Vec<Reason>,
    ) {
        let subject = event.subject();
        let Some(Target::Host(host)) = Target::of_subject(&subject) else { return };
        let of_host = self.notes.iter_mut().filter(|(_, note)| note.host == host);
        let (count, last) = of_host.fold((0, None), |(count, _), note| (count + 1, Some(note)));
        if let (MAX_NOTES.., Some((number, note))) = (count, last) {
            note.more += 1;
            note.worst_of_more = note.worst_of_more.max(Some(event.level));
            self.writes.push(Write::put(Table::Calm, note_key(*number), &*note));
            return;
        }
        for reason in &mut reasons {
            reason.channels.clone_from(hearing);
        }
        let (host, event) = (host.to_owned(), event.clone());
        let note = HeldNote { host, event, reasons, more: 0, worst_of_more: None };
        self.writes.push(Write::put(Table::Calm, note_key(id), &note));
        self.notes.insert(id, note);
        self.next_review = None;
    }

    /// An incident has lost its subject (a rule or a host that was removed): nobody is told what was
    /// held back of it, and it does not flap any more.
    pub fn close_silently(&mut self, incident: &Incident) {
        self.release_quietly(incident);
        self.flaps.close(incident);
    }

    /// An incident is over, or its newest event is told: nothing of it is held back any more.
    fn release_quietly(&mut self, incident: &Incident) {
        if self.held.remove(incident).is_some() {
            self.writes.push(Write::remove(Table::Calm, held_key(incident)));
        }
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        let mut writes = std::mem::take(&mut self.writes);
        writes.append(&mut self.flaps.take_writes());
        writes
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let silences = self.silences.iter();
        let silences = silences
            .map(|(number, silence)| Write::put(Table::Calm, silence_key(*number), silence));
        let held = self.held.iter();
        let held = held.map(|(incident, held)| Write::put(Table::Calm, held_key(incident), held));
        let notes = self.notes.iter();
        let notes = notes.map(|(number, note)| Write::put(Table::Calm, note_key(*number), note));
        let last = (self.last_silence > 0)
            .then(|| Write::put(Table::Calm, LAST_SILENCE_KEY, &self.last_silence));
        silences.chain(held).chain(notes).chain(self.flaps.rows()).chain(last).collect()
    }
}

/// Whether it says that something flaps.
pub fn is_flapping(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Calm(CalmEvent::Flap(FlapEvent::Flapping { .. })))
}

/// Whether what an event says is something else than a channel was told.
pub fn is_news(state: &AlarmState, told: Option<&AlarmState>) -> bool {
    told.is_none_or(|told| !told.says_the_same(state))
}

fn names(reasons: &[Reason]) -> Vec<String> {
    reasons.iter().map(|reason| reason.id.clone()).collect()
}

fn silence_reason(number: u64, silence: &Silence, now: Now) -> Reason {
    let comment = silence.comment.as_ref().map(|comment| format!(" ({comment})"));
    let (why, text) = match silence.origin {
        Origin::Host => (ReasonKind::Host, "its own silence".to_owned()),
        Origin::Command | Origin::Api | Origin::Page => {
            (ReasonKind::Silence, format!("{} of {}", id(number), silence.by))
        }
    };
    Reason {
        why,
        id: id(number),
        until: Some(silence.until(now)),
        text: text + &comment.unwrap_or_default(),
        channels: BTreeSet::new(),
    }
}
