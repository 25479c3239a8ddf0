//! The calm overlay: what stands between an event and its deliveries, and what it holds back until
//! the reason has ended. Pure.
//!
//! ```text
//!  Event --> rule --> tell these channels        --> outbox
//!              |
//!              +----> hold: a row in the table `calm`
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
use crate::event::{AlarmState, Event, EventId, EventKind, Incident, IncidentChange, Level};
use crate::store::{Table, Write};

mod held;
mod release;
mod requests;
mod restore;
pub mod scope;
pub mod settings;
mod silence;
mod views;
pub mod window;

use self::held::HeldNote;
pub use self::held::{HeldIncident, MAX_NOTES, Reason, ReasonKind};
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
    /// Events that come out of a hold, each for the channels that were told something else.
    pub released: Vec<Event>,
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
        Calm { settings, ..Calm::default() }
    }

    /// Applies other settings: what a window held that is gone comes out.
    pub fn reconfigure(&mut self, settings: CalmSettings) {
        self.settings = settings;
        self.running = (Wall(0), Vec::new());
        self.next_review = None;
    }

    /// What holds back an event of this level about `target`.
    fn reasons(&mut self, target: Target, level: Level, now: Now) -> Vec<Reason> {
        self.update_running(now.wall);
        let speaks = |unless: Option<Level>| unless.is_none_or(|unless| level < unless);
        let silences = self.silences.iter().filter(|(_, silence)| {
            speaks(silence.unless) && silence.is_running(now) && silence.covers(target)
        });
        let silences = silences.map(|(number, silence)| silence_reason(*number, silence, now));
        let windows = self.settings.windows.iter().zip(&self.running.1);
        let windows = windows.filter_map(|(window, running)| {
            let running = running.filter(|_| speaks(window.unless) && window.covers(target))?;
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
            Some(target) if !described.history_only => self.reasons(target, event.level, now),
            _ => Vec::new(),
        };
        match described.incident.opens() {
            None if reasons.is_empty() => Ruling { hearing, ..Ruling::default() },
            None => self.rule_without_incident(event, number, &hearing, told, reasons),
            Some(incident) if reasons.is_empty() => {
                self.rule_undisturbed(incident, event, described.is_reminder, hearing, told)
            }
            Some(_)
                if described.is_reminder
                    && hearing.iter().all(|channel| told.opened.contains_key(channel)) =>
            {
                Ruling { held_by: names(&reasons), dropped: true, ..Ruling::default() }
            }
            Some(incident) => {
                let incident = incident.clone();
                self.hold(incident, event, number, hearing, told, reasons)
            }
        }
    }

    /// Nothing holds it back. Where something did until a moment ago, it is news only to the channels
    /// that were told something else.
    fn rule_undisturbed(
        &mut self,
        incident: &Incident,
        event: &Event,
        is_reminder: bool,
        mut hearing: BTreeSet<String>,
        told: &Told,
    ) -> Ruling {
        if self.held.contains_key(incident) {
            self.release_quietly(incident);
            if !is_reminder {
                let state = event.alarm_state();
                hearing.retain(|channel| is_news(&state, told.opened.get(channel)));
            }
        }
        Ruling { hearing, ..Ruling::default() }
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
        hearing: BTreeSet<String>,
        told: &Told,
        mut reasons: Vec<Reason>,
    ) -> Ruling {
        let before = self.held.get(&incident);
        if hearing.is_empty() && before.is_none() {
            return Ruling::default();
        }
        let held_by = names(&reasons);
        for reason in &mut reasons {
            reason.channels.clone_from(&hearing);
        }
        let level = |(channel, state): (&String, &AlarmState)| (channel.clone(), state.level);
        let held = HeldIncident {
            since: before.map_or(event.at, |before| before.since),
            event: event.clone(),
            id,
            reasons,
            told: told.opened.iter().map(level).insert_all(),
            released: None,
            incident: incident.clone(),
        };
        self.writes.push(Write::put(Table::Calm, held_key(&incident), &held));
        self.held.insert(incident, held);
        self.next_review = None;
        Ruling { held_by, ..Ruling::default() }
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

    /// An incident has lost its subject (a rule or a host that was removed), or is over: nobody is
    /// told what was held back of it.
    pub fn release_quietly(&mut self, incident: &Incident) {
        if self.held.remove(incident).is_some() {
            self.writes.push(Write::remove(Table::Calm, held_key(incident)));
        }
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
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
        silences.chain(held).chain(notes).chain(last).collect()
    }
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
