//! The rows of the overlay after a start. One that cannot be read holds nothing back, and is told.
//! Pure.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use super::held::{HeldIncident, HeldNote};
use super::reason::RootCause;
use super::silence::Silence;
use super::{Calm, LAST_SILENCE_KEY, held_key, silence_key};
use crate::clock::Now;
use crate::event::{CalmEvent, Event, EventId, MAX_LISTED};
use crate::store::{RawRow, Table, Write};

/// A row that was found damaged, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRow {
    /// Its key.
    pub key: String,
    /// What it holds, as far as it is text.
    pub content: String,
    /// What is wrong with it.
    pub why: String,
}

impl Calm {
    /// Loads what the store has. `rebase` turns a time of an earlier boot into one of this boot's
    /// clock. The rows that cannot be read are removed, and returned.
    pub fn restore(
        &mut self,
        rows: Vec<RawRow>,
        rebase: impl Fn(Now) -> Now,
        now: Now,
    ) -> Vec<LostRow> {
        let mut lost = Vec::new();
        let mut stored_last = 0;
        for (key, value) in rows {
            if key == LAST_SILENCE_KEY {
                stored_last = read(&value).unwrap_or_default();
            }
            if let Err(why) = self.restore_row(&key, &value, &rebase, now) {
                self.writes.push(Write::remove(Table::Calm, key.clone()));
                self.lost.push(key.clone());
                let content = String::from_utf8_lossy(&value).into_owned();
                lost.push(LostRow { key, content, why });
            }
        }
        if self.last_silence != stored_last {
            self.writes.push(Write::put(Table::Calm, LAST_SILENCE_KEY, &self.last_silence));
        }
        lost
    }

    fn restore_row(
        &mut self,
        key: &str,
        value: &[u8],
        rebase: &impl Fn(Now) -> Now,
        now: Now,
    ) -> Result<(), String> {
        if key == LAST_SILENCE_KEY {
            self.last_silence = self.last_silence.max(read(value)?);
            return Ok(());
        }
        match key.split_once('/') {
            Some(("silence", id)) => {
                let number = id.strip_prefix('s').and_then(|digits| digits.parse().ok());
                let number: u64 = number.ok_or("its key is no number of a silence")?;
                self.last_silence = self.last_silence.max(number);
                let stored = read::<Silence>(value)?;
                self.restore_silence(number, stored, rebase, now);
            }
            Some(("held", _)) => {
                let stored = read::<HeldIncident>(value)?;
                if held_key(&stored.incident) != key {
                    return Err("it is about another alarm than its key".into());
                }
                let mut held = stored.clone();
                held.rebase(rebase, now);
                if held != stored {
                    self.writes.push(Write::put(Table::Calm, key, &held));
                }
                let causes = RootCause::of(&held.event).map(|cause| (cause, BTreeSet::new()));
                self.causes.extend(causes);
                self.held.insert(held.incident.clone(), held);
            }
            Some(("note", id)) => {
                let number = u64::from_str_radix(id, 16).map_err(|why| why.to_string())?;
                self.notes.insert(EventId(number), read::<HeldNote>(value)?);
            }
            Some(("flap", _)) => self.flaps.restore(key, value, rebase, now)?,
            _ => return Err("what it is about is not known".into()),
        }
        Ok(())
    }

    /// One that has ended meanwhile is removed by the first review, which reports it.
    fn restore_silence(
        &mut self,
        number: u64,
        stored: Silence,
        rebase: &impl Fn(Now) -> Now,
        now: Now,
    ) {
        let key = silence_key(number);
        match stored.clone().rebased(rebase, now) {
            Some(silence) => {
                if silence != stored {
                    self.writes.push(Write::put(Table::Calm, key, &silence));
                }
                self.silences.insert(number, silence);
            }
            None => {
                let length = std::time::Duration::ZERO;
                self.silences.insert(number, Silence { from: now, length, ..stored });
            }
        }
    }

    /// What could not be read, as an event: once.
    pub(super) fn report_lost(&mut self, now: Now) -> Event {
        let mut keys = std::mem::take(&mut self.lost);
        let count = keys.len();
        keys.truncate(MAX_LISTED);
        Event::new(now.wall, CalmEvent::HeldLost { keys, count })
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|why| why.to_string())
}
