//! A change of state: rows to store and events to deliver, in one transaction. Pure.

use std::sync::Arc;

use super::table::Write;
use crate::event::{Event, Incident};

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
    /// Called with whether all of it is on disk.
    pub on_stored: Option<Box<dyn FnOnce(bool) + Send>>,
}

/// Accepts changes. It never blocks.
pub type ChangeSink = Arc<dyn Fn(Change) + Send + Sync>;
