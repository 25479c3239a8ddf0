//! Which commit of which store a file holds. Pure.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};

/// The row of [`super::Table::Meta`] that says it. Where it is, rows have checks.
pub(super) const STORE_KEY: &str = "store";

/// Which store it is, and which of its commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) id: String,
    pub(super) commit: u64,
}

impl Position {
    /// The first one of a new file, which goes on from what is known of the one before.
    pub(super) fn first(known: Option<&Position>) -> Position {
        let random = || RandomState::new().build_hasher().finish();
        let new = || Position { id: format!("{:016x}", random()), commit: 0 };
        known.cloned().unwrap_or_else(new)
    }

    /// Whether this store has every commit of `known`.
    fn includes(&self, known: &Position) -> bool {
        self.id == known.id && self.commit >= known.commit
    }
}

/// Whether what was found in a file lacks commits that are known.
pub(super) fn is_behind(found: Option<&Position>, known: Option<&Position>) -> bool {
    let lacks = |known| !found.is_some_and(|found| found.includes(known));
    known.is_some_and(lacks)
}

/// What a row under [`STORE_KEY`] says.
pub(super) fn position_of(value: &[u8]) -> Option<Position> {
    serde_json::from_slice(value).ok()
}
