//! Which notifications, events and metrics are asked for: queries as the HTTP API reads them and
//! the history answers them. Pure.

use std::time::Duration;

use super::{DeliveryState, EventView, NotificationView};
use crate::clock::Wall;
use crate::event::{EventId, Level};

/// How far back a series goes when the query does not say it.
const DEFAULT_RANGE: Duration = Duration::from_secs(24 * 3600);

/// A part of what was sent or waits to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationQuery {
    /// How many at most.
    pub limit: usize,
    /// Only what is older than the notification of this id.
    pub before: Option<u64>,
    /// Only about this host.
    pub host: Option<String>,
    /// Only through this channel.
    pub channel: Option<String>,
    /// Only what arrived, or only what did not (or not yet).
    pub delivered: Option<bool>,
}

impl NotificationQuery {
    /// Whether a notification is asked for, wherever it stands.
    pub fn matches(&self, view: &NotificationView) -> bool {
        let arrived = view.state == DeliveryState::Delivered;
        self.host.as_ref().is_none_or(|host| view.host.as_ref() == Some(host))
            && self.channel.as_ref().is_none_or(|channel| view.channel == *channel)
            && self.delivered.is_none_or(|delivered| delivered == arrived)
    }
}

/// A part of the event log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// How many at most.
    pub limit: usize,
    /// Only what is older than the event of this id.
    pub before: Option<EventId>,
    /// Only about this host.
    pub host: Option<String>,
    /// Only about hosts whose name has this in it, in lower case; about anything when it is empty.
    pub name: String,
    /// Only of these levels; all when there is none.
    pub levels: Vec<Level>,
    /// Only of these kinds; all when there is none.
    pub kinds: Vec<String>,
    /// Nothing older.
    pub since: Option<Wall>,
    /// Only what is older than this moment.
    pub until: Option<Wall>,
    /// Reminders stand in one with what they repeat. Not all events are searched then: where the next
    /// page begins says how far it came.
    pub fold_reminders: bool,
}

impl EventQuery {
    /// Whether an event is asked for, wherever it stands.
    pub fn matches(&self, event: &EventView) -> bool {
        let named = |host: &String| host.to_lowercase().contains(&self.name);
        self.host.as_ref().is_none_or(|host| event.host.as_ref() == Some(host))
            && (self.name.is_empty() || event.host.as_ref().is_some_and(named))
            && (self.levels.is_empty() || self.levels.contains(&event.level))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
    }
}

/// A part of the metrics of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuery {
    /// Their paths; `*` stands for one part, and by itself for all. All when there is none.
    pub metrics: Vec<String>,
    /// How far back.
    pub range: Duration,
}

impl Default for SeriesQuery {
    fn default() -> SeriesQuery {
        SeriesQuery { metrics: Vec::new(), range: DEFAULT_RANGE }
    }
}
