//! Shared tables in memory, which refuse, do not confirm and lose commits when they are told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::shared::{KeyRange, SharedCommit, SharedCommitError, SharedPosition, SharedTables};
use super::{HistoryBytes, RawRow, Table};
use crate::thread::lock;

/// How commits end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelAnswer {
    /// They are confirmed.
    Confirmed,
    /// They are written, and too few replicas have them.
    Unconfirmed,
    /// They are not written, and there is no answer.
    Silent,
    /// They are refused.
    Refused,
    /// Another daemon leads.
    Deposed,
}

type Stored = BTreeMap<(Table, String), Vec<u8>>;

/// See above.
pub struct SharedModel {
    state: Mutex<State>,
    asked: Condvar,
}

struct State {
    /// What each commit left; the first one is empty.
    states: Vec<(u64, Stored)>,
    answer: ModelAnswer,
    readable: bool,
    /// How many commits were tried.
    tried: usize,
}

impl SharedModel {
    /// Empty tables that confirm every commit.
    pub fn new() -> Arc<SharedModel> {
        let (states, answer) = (vec![(0, Stored::new())], ModelAnswer::Confirmed);
        let state = State { states, answer, readable: true, tried: 0 };
        Arc::new(SharedModel { state: Mutex::new(state), asked: Condvar::new() })
    }

    /// How commits end from now on.
    pub fn answer(&self, answer: ModelAnswer) {
        lock(&self.state).answer = answer;
    }

    /// Whether they can be read from now on.
    pub fn set_readable(&self, readable: bool) {
        lock(&self.state).readable = readable;
    }

    /// The last `count` commits are lost.
    pub fn roll_back(&self, count: usize) {
        let states = &mut lock(&self.state).states;
        let left = states.len().saturating_sub(count).max(1);
        states.truncate(left);
    }

    /// What is stored at present.
    pub fn stored(&self) -> Stored {
        lock(&self.state).last().1.clone()
    }

    /// Waits until `count` more commits were tried.
    pub fn wait_for_tries(&self, count: usize) {
        let state = lock(&self.state);
        let until = state.tried + count;
        let waited =
            self.asked.wait_timeout_while(state, Duration::from_secs(60), |s| s.tried < until);
        assert!(!waited.unwrap().1.timed_out(), "no commit is tried");
    }

    fn read<T>(&self, read: impl FnOnce(&Stored) -> T) -> Result<T, String> {
        let state = lock(&self.state);
        if state.readable { Ok(read(&state.last().1)) } else { Err("no connection".into()) }
    }
}

impl State {
    fn last(&self) -> &(u64, Stored) {
        self.states.last().unwrap()
    }

    fn write(&mut self, commit: &SharedCommit) -> Result<(), SharedCommitError> {
        let (number, mut rows) = self.last().clone();
        if !commit.rewrites && number < commit.known {
            return Err(SharedCommitError::WentBack { to: number });
        }
        if commit.rewrites {
            rows.retain(|(table, _), _| !table.is_known_whole());
        }
        for (key, value) in commit.rows {
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
        self.states.push((number.max(commit.known) + 1, rows));
        Ok(())
    }
}

impl SharedTables for SharedModel {
    fn position(&self) -> Result<SharedPosition, String> {
        let bytes = self.read(history_bytes)?;
        Ok(SharedPosition { number: lock(&self.state).last().0, history: bytes })
    }

    fn rows(&self, table: Table) -> Result<Vec<RawRow>, String> {
        self.read(|stored| {
            let of_table = stored.iter().filter(|((of, _), _)| *of == table);
            of_table.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        })
    }

    fn get_all(&self, table: Table, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String> {
        self.read(|stored| {
            keys.iter().map(|key| stored.get(&(table, key.clone())).cloned()).collect()
        })
    }

    fn keys_in(
        &self,
        table: Table,
        ranges: &[KeyRange],
        count: usize,
    ) -> Result<Vec<Vec<String>>, String> {
        let keys: Vec<String> = self.rows(table)?.into_iter().map(|(key, _)| key).collect();
        Ok(ranges.iter().map(|range| range.select(&keys, count)).collect())
    }

    fn commit(&self, commit: &SharedCommit) -> Result<SharedPosition, SharedCommitError> {
        let mut state = lock(&self.state);
        state.tried += 1;
        self.asked.notify_all();
        let unconfirmed = |why: &str| Err(SharedCommitError::Unconfirmed(why.into()));
        match state.answer {
            ModelAnswer::Deposed => return Err(SharedCommitError::Deposed),
            ModelAnswer::Refused => return Err(SharedCommitError::Refused("OOM".into())),
            ModelAnswer::Silent => return unconfirmed("no answer"),
            ModelAnswer::Confirmed | ModelAnswer::Unconfirmed => state.write(commit)?,
        }
        if state.answer == ModelAnswer::Unconfirmed {
            return unconfirmed("0 of 1 replicas have it");
        }
        let (number, rows) = state.last();
        Ok(SharedPosition { number: *number, history: history_bytes(rows) })
    }
}

fn history_bytes(stored: &Stored) -> HistoryBytes {
    let mut bytes = HistoryBytes::default();
    for ((table, key), value) in stored {
        bytes.replace(*table, key, None, Some(value.len()));
    }
    bytes
}
