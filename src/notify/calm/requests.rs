//! Silences are set and ended: by people, and by hosts for themselves. Pure.

use std::time::Duration;

use super::scope::CalmScope;
use super::silence::{MAX_COMMENT, MAX_SILENCES, Origin, Silence};
use super::{Calm, CalmError, LAST_SILENCE_KEY, id, silence_key};
use crate::clock::{Now, format_duration};
use crate::event::{CalmEvent, Event, Level, SilenceNotice};
use crate::store::{Table, Write};

/// A host that repeats its wish for a silence within this time does not begin another one.
const SAME_SILENCE: Duration = Duration::from_secs(120);

/// A silence to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSilence {
    /// What is to be silent.
    pub scope: CalmScope,
    /// For how long.
    pub length: Duration,
    /// Who asks for it.
    pub by: String,
    /// Why.
    pub comment: Option<String>,
    /// Events of this level and above are to be told all the same.
    pub unless: Option<Level>,
    /// Where it comes from.
    pub origin: Origin,
}

/// The silences to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SilenceSelection {
    /// One by its id, `s17`.
    Id(String),
    /// All of exactly this scope.
    Scope(CalmScope),
    /// All.
    All,
}

impl Calm {
    /// Sets a silence; its number.
    ///
    /// # Errors
    /// Invalid and Conflict. Whether there is anything that it is about is checked by
    /// [`CalmScope::check`].
    pub fn set(&mut self, new: NewSilence, now: Now) -> Result<u64, CalmError> {
        let longest = self.settings.longest_silence;
        let range = || {
            let longest = weeks(longest);
            format!("a silence lasts from 1 s to {longest} (calm.longest_silence)")
        };
        if new.length < Duration::from_secs(1) {
            return Err(CalmError::Invalid { field: "", what: range() });
        }
        if new.length > longest {
            return Err(CalmError::Conflict(range()));
        }
        let comment = checked_comment(new.comment)?;
        let set = self.silences.values().filter(|silence| silence.origin != Origin::Host);
        if set.count() >= MAX_SILENCES {
            return Err(CalmError::Conflict(format!(
                "there are {MAX_SILENCES} silences already: end some (hbd unsilence)"
            )));
        }
        let silence = Silence {
            scope: new.scope,
            from: now,
            length: new.length,
            by: new.by,
            comment,
            unless: new.unless,
            origin: new.origin,
        };
        Ok(self.insert(silence))
    }

    fn insert(&mut self, silence: Silence) -> u64 {
        self.last_silence += 1;
        let number = self.last_silence;
        self.writes.push(Write::put(Table::Calm, LAST_SILENCE_KEY, &number));
        self.writes.push(Write::put(Table::Calm, silence_key(number), &silence));
        self.silences.insert(number, silence);
        self.next_review = None;
        number
    }

    /// The event that reports a silence that was set.
    pub fn notice(&self, number: u64, now: Now) -> Option<Event> {
        let silence = self.silences.get(&number)?;
        let notice = SilenceNotice {
            scope: silence.scope.to_string(),
            host: silence.scope.host().map(str::to_owned),
            id: id(number),
            length: silence.length,
            by: silence.by.clone(),
            comment: silence.comment.clone(),
            by_host: silence.origin == Origin::Host,
        };
        Some(Event::new(now.wall, CalmEvent::Silenced(notice)))
    }

    /// A host asks for a silence of its own, or ends it; the events that report it, and the number of a
    /// new one. One that it only repeats is none, and lasts from now on.
    ///
    /// # Errors
    /// Conflict: one too many. Of hosts that are not configured there may be any number of names: they
    /// leave room for the others.
    pub fn on_host_request(
        &mut self,
        request: &SilenceNotice,
        is_configured: bool,
        now: Now,
    ) -> Result<(Vec<Event>, Option<u64>), CalmError> {
        let Some(host) = &request.host else { return Ok((Vec::new(), None)) };
        let of_hosts = || self.silences.iter().filter(|(_, one)| one.origin == Origin::Host);
        let count = of_hosts().count();
        let before = of_hosts().find(|(_, one)| one.scope.host() == Some(host));
        let before = before.map(|(number, _)| *number);
        if let Some(number) = before
            && let Some(silence) = self.silences.get_mut(&number)
            && repeats(request, silence, now)
        {
            silence.from = now;
            self.writes.push(Write::put(Table::Calm, silence_key(number), &*silence));
            self.next_review = None;
            return Ok((Vec::new(), None));
        }
        let most = if is_configured { MAX_SILENCES } else { MAX_SILENCES / 2 };
        if before.is_none() && !request.length.is_zero() && count >= most {
            return Err(CalmError::Conflict(format!("{count} hosts silence themselves already")));
        }
        let ended = before.and_then(|number| self.remove(number, Some(host), now));
        if request.length.is_zero() {
            return Ok((ended.into_iter().collect(), None));
        }
        let number = self.insert(Silence {
            scope: CalmScope::Hosts(host.clone()),
            from: now,
            length: request.length,
            by: host.clone(),
            comment: request.comment.clone(),
            unless: None,
            origin: Origin::Host,
        });
        Ok((self.notice(number, now).into_iter().collect(), Some(number)))
    }

    /// Ends silences; the events that report it, one for each.
    ///
    /// # Errors
    /// NotFound.
    pub fn end(
        &mut self,
        which: &SilenceSelection,
        by: &str,
        now: Now,
    ) -> Result<Vec<Event>, CalmError> {
        let chosen = |(number, silence): (&u64, &Silence)| {
            let chosen = match which {
                SilenceSelection::Id(wanted) => id(*number) == *wanted,
                SilenceSelection::Scope(scope) => silence.scope == *scope,
                SilenceSelection::All => true,
            };
            (chosen && silence.is_running(now)).then_some(*number)
        };
        let chosen: Vec<u64> = self.silences.iter().filter_map(chosen).collect();
        if chosen.is_empty() {
            return Err(CalmError::NotFound(match which {
                SilenceSelection::Id(wanted) => format!("there is no silence {wanted}"),
                SilenceSelection::Scope(scope) => format!("no silence is set for {scope}"),
                SilenceSelection::All => "there is no silence".into(),
            }));
        }
        Ok(chosen.into_iter().filter_map(|number| self.remove(number, Some(by), now)).collect())
    }

    /// Takes a silence back that could not be stored: it never was.
    pub fn take_back(&mut self, number: u64) {
        if self.silences.remove(&number).is_some() {
            self.writes.push(Write::remove(Table::Calm, silence_key(number)));
            self.next_review = None;
        }
    }

    pub(super) fn remove(&mut self, number: u64, by: Option<&str>, now: Now) -> Option<Event> {
        let silence = self.silences.remove(&number)?;
        self.writes.push(Write::remove(Table::Calm, silence_key(number)));
        self.next_review = None;
        let kind = CalmEvent::Unsilenced {
            scope: silence.scope.to_string(),
            host: silence.scope.host().map(str::to_owned),
            id: id(number),
            by: by.map(str::to_owned),
        };
        Some(Event::new(now.wall, kind))
    }
}

/// Whether a host asks for its silence once more: it did not hear that it was stored.
fn repeats(request: &SilenceNotice, silence: &Silence, now: Now) -> bool {
    silence.is_running(now)
        && silence.length == request.length
        && silence.comment == request.comment
        && now.mono.since(silence.from.mono) < SAME_SILENCE
}

/// A comment of one line that is not too long; none when it is empty.
///
/// # Errors
/// Invalid.
pub fn checked_comment(comment: Option<String>) -> Result<Option<String>, CalmError> {
    let comment = comment.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let invalid = |what: String| Err(CalmError::Invalid { field: "comment", what });
    match &comment {
        Some(text) if text.chars().count() > MAX_COMMENT => {
            invalid(format!("must be at most {MAX_COMMENT} characters"))
        }
        Some(text) if text.chars().any(char::is_control) => {
            invalid("must be one line without control characters".into())
        }
        _ => Ok(comment),
    }
}

/// `4 w` where that is what was written, else as other durations.
fn weeks(length: Duration) -> String {
    const WEEK: u64 = 7 * 24 * 3600;
    match length.as_secs() {
        seconds if seconds > 0 && seconds % WEEK == 0 => format!("{} w", seconds / WEEK),
        _ => format_duration(length),
    }
}
