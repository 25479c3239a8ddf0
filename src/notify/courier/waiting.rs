//! What waits for a commit: answers to producers, and attempts that may be made.

use super::{MAX_BACKLOG, OnStored};
use crate::notify::worker::TaskKind;

/// What a commit did, for what waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Everything is stored.
    Stored,
    /// The store takes nothing.
    Refused,
    /// It may be stored, and may not be acted on before that is known.
    Unconfirmed,
}

/// What waits until everything that it is based on is stored.
#[derive(Default)]
pub struct Waiting {
    /// Producers that are told what became of it.
    pub answers: Vec<OnStored>,
    /// Attempts and polls.
    pub tasks: Vec<TaskKind>,
}

impl Waiting {
    /// Answers all that wait, unless it is not known what; beyond a limit the first ones hear that
    /// nothing is stored.
    pub fn answer(&mut self, durability: Durability) {
        let count = match durability {
            Durability::Unconfirmed => self.answers.len().saturating_sub(MAX_BACKLOG),
            Durability::Stored | Durability::Refused => self.answers.len(),
        };
        self.answers.drain(..count).for_each(|answer| answer(durability == Durability::Stored));
    }

    /// What the workers may do now: nothing while it is not known whether it is stored, since another
    /// daemon might do it as well. A store that refuses is another matter: only this one knows of it.
    pub fn take_tasks(&mut self, durability: Durability) -> Vec<TaskKind> {
        match durability {
            Durability::Unconfirmed => Vec::new(),
            Durability::Stored | Durability::Refused => std::mem::take(&mut self.tasks),
        }
    }
}
