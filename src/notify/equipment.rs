//! Channels and routes as the courier is given them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::channel::{Channel, RetryPolicy};
use super::outbox::LineSettings;
use super::route::Routes;

/// Channels and routes: what a configuration means to the courier.
#[derive(Clone)]
pub struct Equipment {
    /// Who hears about what.
    pub routes: Routes,
    /// The channels by name.
    pub channels: BTreeMap<String, Arc<Channel>>,
    /// What to make of the channels' own paces: where time must not be waited for.
    pub pace: Option<fn(RetryPolicy) -> RetryPolicy>,
}

impl Equipment {
    /// What the outbox has to be told of each channel.
    pub fn lines(&self) -> BTreeMap<String, LineSettings> {
        self.channels
            .iter()
            .map(|(name, channel)| {
                let pace = self
                    .pace
                    .map_or(channel.retry_policy(), |change| change(channel.retry_policy()));
                (name.clone(), LineSettings { pace, recipients: channel.recipients() })
            })
            .collect()
    }
}
