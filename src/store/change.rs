//! What a feature has established: rows to keep and events to tell, in one transaction.

use std::sync::Arc;

use crate::event::{Event, Incident};
use crate::store::Write;

/// State and events that belong together: on disk as one, and only then told.
#[derive(Default)]
pub struct Change {
    /// Rows of the feature's own state.
    pub writes: Vec<Write>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Troubles of which nothing is known any more; they end without a word.
    pub forgotten: Vec<Incident>,
    /// Told whether all of it is on disk.
    pub stored: Option<Box<dyn FnOnce(bool) + Send>>,
}

/// Where effects are left. It never blocks.
pub type ChangeSink = Arc<dyn Fn(Change) + Send + Sync>;
