//! The overlay as it is shown. Pure.

use std::ops::Range;
use std::time::Duration;

use super::held::HeldIncident;
use super::reason::{Reason, ReasonKind};
use super::scope::{CalmScope, Target};
use super::silence::{Origin, Silence};
use super::window::Window;
use super::{Calm, id};
use crate::clock::{Now, Wall};
use crate::event::{Event, Incident};
use crate::view::calm::{
    HeldListView, HeldView, NextWindowView, ReasonView, SilenceView, SilencesView,
};

/// How many things that are held back are shown, the oldest of them.
const MAX_SHOWN: usize = 1_000;

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CalmStats {
    /// Silences that are running.
    pub silences: usize,
    /// Alarms and messages that each kind of reason holds back, in the order of
    /// [`ReasonKind::ALL`].
    pub held: [usize; ReasonKind::ALL.len()],
}

/// What is quiet, for those who may not wait for the courier's thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalmOverview {
    /// Figures.
    pub stats: CalmStats,
    /// The silences and windows that are running.
    quiet: Vec<Running>,
    /// All windows.
    windows: Vec<Window>,
}

/// A silence or a window that is running.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Running {
    id: String,
    scopes: Vec<CalmScope>,
    period: Range<Wall>,
}

impl CalmOverview {
    /// The ids of the silences and windows that are about a host or a part of it: `quiet` of
    /// `/api/v1/hosts`.
    pub fn quiet(&self, host: &str) -> Vec<String> {
        let quiet = self.quiet.iter().filter(|running| are_about(&running.scopes, host));
        quiet.map(|running| running.id.clone()).collect()
    }

    /// When each of these hosts was in a window within a period, as they are configured now, or in a
    /// silence that is running.
    pub fn windows(&self, hosts: &[&str], period: &Range<Wall>) -> Vec<Vec<Range<Wall>>> {
        // The calendar is asked once, however many hosts there are.
        let windows = self.windows.iter().map(|window| (&window.scopes, window.within(period)));
        let running = self.quiet.iter().map(|one| (&one.scopes, vec![one.period.clone()]));
        let all: Vec<(&Vec<CalmScope>, Vec<Range<Wall>>)> = windows.chain(running).collect();
        let of_host = |host: &&str| {
            let own = all.iter().filter(|(scopes, _)| are_about(scopes, host));
            own.flat_map(|(_, periods)| periods).cloned().collect()
        };
        hosts.iter().map(of_host).collect()
    }
}

/// Whether any of these is about a host or a part of it.
fn are_about(scopes: &[CalmScope], host: &str) -> bool {
    scopes.iter().any(|scope| match scope {
        CalmScope::Parts { host: pattern, .. } => super::scope::matches(pattern, host),
        CalmScope::All | CalmScope::Hosts(_) | CalmScope::Plan(_) => {
            scope.covers(Target::Host(host))
        }
    })
}

impl ReasonKind {
    /// Every kind.
    pub const ALL: [ReasonKind; 6] = [
        ReasonKind::Silence,
        ReasonKind::Host,
        ReasonKind::Window,
        ReasonKind::Parent,
        ReasonKind::Storm,
        ReasonKind::Flapping,
    ];

    /// As the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            ReasonKind::Silence => "silence",
            ReasonKind::Host => "host",
            ReasonKind::Window => "window",
            ReasonKind::Parent => "parent",
            ReasonKind::Storm => "storm",
            ReasonKind::Flapping => "flapping",
        }
    }
}

impl Calm {
    /// The silences and the windows.
    pub fn silences(&self, now: Now) -> SilencesView {
        let running = self.silences.iter().filter(|(_, silence)| silence.is_running(now));
        let silences = running.map(|(number, silence)| self.silence_view(*number, silence, now));
        let windows = self.settings.windows.iter();
        let windows = windows.filter_map(|window| self.window_view(window, now.wall));
        let next = self.settings.windows.iter().filter_map(|window| next(window, now.wall));
        let mut next: Vec<NextWindowView> = next.collect();
        next.sort_by_key(|window| window.from);
        SilencesView { now: now.wall, silences: silences.chain(windows).collect(), next }
    }

    /// One silence by its number.
    pub fn silence(&self, number: u64, now: Now) -> Option<SilenceView> {
        self.silences.get(&number).map(|silence| self.silence_view(number, silence, now))
    }

    fn silence_view(&self, number: u64, silence: &Silence, now: Now) -> SilenceView {
        let kind = match silence.origin {
            Origin::Host => ReasonKind::Host,
            Origin::Command | Origin::Api | Origin::Page => ReasonKind::Silence,
        };
        SilenceView {
            id: id(number),
            kind: kind.name(),
            scope: silence.scope.to_string(),
            from: silence.from.wall,
            until: silence.until(now),
            by: Some(silence.by.clone()),
            comment: silence.comment.clone(),
            unless: silence.unless,
            holds: self.held_by(kind, &id(number)),
        }
    }

    fn window_view(&self, window: &Window, now: Wall) -> Option<SilenceView> {
        let running = window.current(now)?;
        Some(SilenceView {
            id: window.name.clone(),
            kind: ReasonKind::Window.name(),
            scope: scopes(window),
            from: running.from,
            until: running.until,
            by: None,
            comment: None,
            unless: window.unless,
            holds: self.held_by(ReasonKind::Window, &window.name),
        })
    }

    fn held_by(&self, kind: ReasonKind, id: &str) -> usize {
        self.all_reasons()
            .filter(|reasons| reasons.iter().any(|one| one.why == kind && one.id == id))
            .count()
    }

    /// The reasons of everything that is held, and not about to come out.
    fn all_reasons(&self) -> impl Iterator<Item = &[Reason]> {
        let held = self.held.values().filter(|held| held.released.is_none());
        let held = held.map(|held| held.reasons.as_slice());
        held.chain(self.notes.values().map(|note| note.reasons.as_slice()))
    }

    /// What is held back, of one host or in all, the oldest first.
    pub fn held_view(&self, host: Option<&str>, now: Now) -> HeldListView {
        let is_of = |incident: &Incident| {
            host.is_none_or(|host| match Target::of_incident(incident) {
                Some(Target::Host(of) | Target::Part { host: of, .. }) => of == host,
                Some(Target::Plan(_) | Target::OtherHosts) | None => false,
            })
        };
        let mut oldest: Vec<&HeldIncident> =
            self.held.values().filter(|held| is_of(&held.incident)).collect();
        // Of very many each one would be put into words.
        if oldest.len() > MAX_SHOWN {
            oldest.select_nth_unstable_by_key(MAX_SHOWN, |held| (held.since, held.id));
            oldest.truncate(MAX_SHOWN);
        }
        let mut held: Vec<HeldView> =
            oldest.into_iter().map(|held| self.incident_view(held, now)).collect();
        let notes = self.notes.values().filter(|note| host.is_none_or(|host| note.host == host));
        held.extend(notes.map(|note| self.event_view(&note.event, &note.reasons, now)));
        // Of these nothing else is held back.
        let flapping = self.flaps.flapping(now).filter(|(one, ..)| !self.held.contains_key(*one));
        let flapping = flapping.filter(|(incident, ..)| is_of(incident));
        let before = held.len();
        held.extend(flapping.map(|(_, event, reason)| self.event_view(&event, &[reason], now)));
        let flapping = held.len() - before;
        held.sort_unstable_by(|one, other| (one.since, &one.text).cmp(&(other.since, &other.text)));
        held.truncate(MAX_SHOWN);
        let count = match host {
            None => self.all_reasons().count() + flapping,
            Some(_) => held.iter().filter(|one| one.out_at.is_none()).count(),
        };
        HeldListView { held, count }
    }

    /// The open incidents of which something is held back.
    pub fn held_incidents(&self) -> impl Iterator<Item = &Incident> {
        self.held.keys()
    }

    /// What is held back of an open incident: `/api/v1/alerts`.
    pub fn held_incident(&self, incident: &Incident, now: Now) -> Option<HeldView> {
        let flapping = || {
            let (event, reason) = self.flaps.flapping_incident(incident, now)?;
            Some(self.event_view(&event, &[reason], now))
        };
        let held = self.held.get(incident).map(|held| self.incident_view(held, now));
        held.or_else(flapping)
    }

    fn incident_view(&self, held: &HeldIncident, now: Now) -> HeldView {
        let out_at = held.out_in(now).map(|left| now.wall + left);
        let flapping = self.flaps.flapping_incident(&held.incident, now);
        let reasons: Vec<Reason> =
            held.reasons.iter().cloned().chain(flapping.map(|(_, reason)| reason)).collect();
        HeldView { since: held.since, out_at, ..self.event_view(&held.event, &reasons, now) }
    }

    fn event_view(&self, event: &Event, reasons: &[Reason], now: Now) -> HeldView {
        let described = event.kind.describe();
        let reason = |reason: &Reason| ReasonView {
            why: reason.why.name(),
            id: reason.id.clone(),
            // The wall clock may have been set since.
            until: self.end_of(reason, now).or(reason.until),
            channels: reason.channels.iter().cloned().collect(),
        };
        HeldView {
            subject: described.subject.to_string(),
            text: described.title,
            level: event.level,
            since: event.at,
            reasons: reasons.iter().map(reason).collect(),
            out_at: None,
        }
    }

    fn end_of(&self, reason: &Reason, now: Now) -> Option<Wall> {
        if !matches!(reason.why, ReasonKind::Silence | ReasonKind::Host) {
            return None;
        }
        let number = reason.id.strip_prefix('s').and_then(|digits| digits.parse().ok())?;
        self.silences.get(&number).map(|silence| silence.until(now))
    }

    /// What is quiet, and the figures about it.
    pub fn overview(&self, now: Now) -> CalmOverview {
        let silences = self.silences.iter().filter(|(_, one)| one.is_running(now));
        let silences = silences.map(|(number, one)| Running {
            id: id(*number),
            scopes: vec![one.scope.clone()],
            period: one.from.wall..one.until(now),
        });
        let windows = self.settings.windows.iter().filter_map(|window| {
            let running = window.current(now.wall)?;
            let (id, scopes) = (window.name.clone(), window.scopes.clone());
            Some(Running { id, scopes, period: running.from..running.until })
        });
        CalmOverview {
            stats: self.stats(now),
            quiet: silences.chain(windows).collect(),
            windows: self.settings.windows.clone(),
        }
    }

    /// What nothing holds back any more and comes out soon, within these scopes; and in how long.
    pub fn follows(&self, now: Now) -> impl Iterator<Item = (&HeldIncident, Duration)> {
        self.held.values().filter_map(move |held| Some((held, held.out_in(now)?)))
    }

    /// Figures for the metrics.
    pub fn stats(&self, now: Now) -> CalmStats {
        let silences = self.silences.values().filter(|silence| silence.is_running(now)).count();
        let held = ReasonKind::ALL.map(|kind| {
            let by = |reasons: &&[Reason]| reasons.iter().any(|reason| reason.why == kind);
            match kind {
                ReasonKind::Flapping => self.flaps.count_flapping(),
                _ => self.all_reasons().filter(by).count(),
            }
        });
        CalmStats { silences, held }
    }
}

fn scopes(window: &Window) -> String {
    window.scopes.iter().map(CalmScope::to_string).collect::<Vec<_>>().join(", ")
}

fn next(window: &Window, now: Wall) -> Option<NextWindowView> {
    let next = window.next(now)?;
    Some(NextWindowView {
        id: window.name.clone(),
        scope: scopes(window),
        from: next.from,
        until: next.until,
        text: window.describe(next),
    })
}
