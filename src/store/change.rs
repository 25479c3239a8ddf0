//! A change of state: rows to store and events to deliver, in one transaction. Pure.

use std::sync::Arc;

use super::table::{Table, Write};
use crate::clock::Wall;
use crate::event::{Event, Incident};

/// The row that says up to where the inbox of a cluster was handled, in [`Table::Meta`].
pub const INBOX_KEY: &str = "inbox";
/// What the rows of entries that were handled lately begin with; their uid follows.
pub const HANDLED_PREFIX: &str = "u/";

/// Rows and events that belong together: stored in one transaction, and only then delivered.
#[derive(Default)]
pub struct Change {
    /// Rows of the feature's own state.
    pub writes: Vec<Write>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Incidents that end without a message: nothing is known of them any more.
    pub closed_silently: Vec<Incident>,
    /// Hosts that others are reached through, and that are no longer down.
    pub parents_up: Vec<String>,
    /// Hosts that are down, or never beat, and that nothing explains any more.
    pub not_behind: Vec<String>,
    /// The entry of the inbox that this is the effect of: that it was handled is stored with it.
    pub entry: Option<InboxEntry>,
    /// What it tells may have been told before: its deliveries are marked so.
    pub may_repeat: bool,
    /// Called with whether all of it is on disk.
    pub on_stored: Option<Box<dyn FnOnce(bool) + Send>>,
}

/// An entry of the inbox of a cluster. The change with its effect takes it along, so that it is handled
/// exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Its place in the stream.
    pub id: String,
    /// What it is known by, however often it is in the stream; empty when that need not be noted.
    pub uid: String,
    /// It was given to the inbox once more, and may have been handled before.
    pub again: bool,
}

impl InboxEntry {
    /// The rows that say that it was handled.
    pub fn writes(&self, now: Wall) -> impl Iterator<Item = Write> + use<> {
        let handled = (!self.uid.is_empty())
            .then(|| Write::put(Table::Meta, format!("{HANDLED_PREFIX}{}", self.uid), &now));
        [Write::put(Table::Meta, INBOX_KEY, &self.id)].into_iter().chain(handled)
    }
}

/// Accepts changes. It never blocks.
pub type ChangeSink = Arc<dyn Fn(Change) + Send + Sync>;
