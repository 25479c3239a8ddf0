//! Reminders of hosts that are still silent: of what is overdue, and told, nothing else reminds. Pure.

use std::time::Duration;

use super::Outbox;
use super::incidents::OpenIncident;
use crate::clock::{Mono, Now};
use crate::event::{Event, Incident, Level, WatchEvent};

/// For so long after the start nothing is reminded of: whoever is back beats by then.
const SETTLING_TIME: Duration = Duration::from_secs(10 * 60);

/// How many reminders are made at once; the next ones follow.
const MAX_AT_ONCE: usize = 1000;

/// When reminders are due.
#[derive(Debug, Default)]
pub struct Reminders {
    /// How often; none: never.
    interval: Option<Duration>,
    /// Not before this.
    from: Mono,
    /// When the next one may be due; none: nothing is silent.
    next: Option<Mono>,
}

impl Reminders {
    /// None, until there is an interval.
    pub fn new(now: Now) -> Reminders {
        Reminders { from: now.mono + SETTLING_TIME, ..Reminders::default() }
    }

    /// An incident was told just now.
    pub fn on_told(&mut self, incident: &Incident, now: Now) {
        if let Some(interval) = self.interval.filter(|_| may_be_silence(incident)) {
            self.wake_at(now.mono + interval);
        }
    }

    fn wake_at(&mut self, at: Mono) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// When the next reminder may be due.
    pub fn next_due(&self) -> Option<Mono> {
        self.next.map(|next| next.max(self.from))
    }
}

fn may_be_silence(incident: &Incident) -> bool {
    matches!(incident, Incident::Connection { .. } | Incident::NotBack { .. })
}

/// Whether people were told of it that it is overdue, or has not come back: what was shut down, or
/// flaps, is nothing to be reminded of.
fn is_silent(open: &OpenIncident) -> bool {
    let said = |title: &String| title.ends_with(" overdue");
    let told = open.channels.values().filter_map(|channel| channel.told.as_ref());
    let mut told = told.filter_map(|told| told.what.as_deref()).peekable();
    match &open.incident {
        Incident::NotBack { .. } => !open.channels.is_empty(),
        // Rows of earlier versions do not say what was told.
        Incident::Connection { .. } if told.peek().is_none() => {
            open.title.as_ref().is_some_and(said)
        }
        Incident::Connection { .. } => told.any(|what| what == "overdue"),
        _ => false,
    }
}

impl Outbox {
    /// How often it is reminded of what is overdue; none: never.
    pub fn set_overdue_renotify(&mut self, interval: Option<Duration>) {
        if self.reminders.interval != interval {
            self.reminders.interval = interval;
            self.reminders.next = interval.map(|_| Mono(i64::MIN));
        }
    }

    /// The reminders that are due now, each once.
    pub fn overdue_reminders(&mut self, now: Now) -> Vec<Event> {
        let Some(interval) = self.reminders.interval else { return Vec::new() };
        if self.reminders.next_due().is_none_or(|next| now.mono < next) {
            return Vec::new();
        }
        let (mut due, mut next) = (Vec::new(), None);
        for open in self.incidents.iter().filter(|open| is_silent(open)) {
            let told = open.last_told.unwrap_or(now);
            let at = told.mono + interval;
            if at <= now.mono && due.len() < MAX_AT_ONCE {
                due.push(reminder(open, now));
            }
            let later = if at <= now.mono { now.mono } else { at };
            next = Some(next.map_or(later, |next: Mono| next.min(later)));
        }
        self.reminders.next = next;
        for event in &due {
            if let Some(incident) = event.incident().opens() {
                self.incidents.record_reminded(incident, now);
            }
        }
        if !due.is_empty() {
            // Of those that were due, the next time; of more than these, at once.
            self.reminders.wake_at(now.mono);
        }
        due
    }
}

fn reminder(open: &OpenIncident, now: Now) -> Event {
    let since = open.since.unwrap_or(now.wall);
    let still = WatchEvent::Still {
        incident: open.incident.clone(),
        level: open.level.unwrap_or(Level::Warning),
        since,
        lasting: now.wall.since(since),
    };
    Event::new(now.wall, still)
}
