//! The sections `notifier` and `notification_channels`, and what a configuration means to the
//! courier.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::channel::{Channel, RetryPolicy};
use super::outbox::QueueSettings;
use super::routing::Routes;
use crate::address::is_name;
use crate::config_file::{NameSet, Section};

/// The section `notifier`: the channels for backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifierSettings {
    /// The channels; none means the default ones.
    pub notification_channels: Option<Vec<String>>,
}

impl NotifierSettings {
    /// Reads the section; channels must be among those that there are.
    pub fn read(section: &mut Section, channels: &NameSet) -> NotifierSettings {
        let notification_channels = section.names("notification_channels", "channel", channels);
        NotifierSettings { notification_channels }
    }
}

/// Warns when no `channels` are there for backups, and messages about them are `expected`.
pub fn check_backups(top: &Section, channels: &[String], expected: bool) {
    if channels.is_empty() && expected {
        let what = "names no channel, so backup alerts reach nobody: name some here, or in \
                    default_notification_channels";
        top.warning("notifier", what);
    }
}

/// Reads the section `notification_channels` of the top level.
pub fn read_channels(top: &mut Section) -> BTreeMap<String, Channel> {
    let channels = top.entries("notification_channels", |name, section| {
        if !is_name(name) {
            section
                .error("", "a channel's name must be letters, digits, dots, dashes, underscores");
        }
        Channel::read(section)
    });
    channels.into_iter().collect()
}

/// The channels and the routes of a configuration.
#[derive(Clone)]
pub struct NotifySettings {
    /// Which channels get which event.
    pub routes: Routes,
    /// The channels by name.
    pub channels: BTreeMap<String, Arc<Channel>>,
    /// Replaces the channels' own rates and delays: for tests.
    pub retry_policy: Option<fn(RetryPolicy) -> RetryPolicy>,
}

impl NotifySettings {
    /// What the outbox needs to know of each channel.
    pub fn queue_settings(&self) -> BTreeMap<String, QueueSettings> {
        self.channels
            .iter()
            .map(|(name, channel)| {
                let retry_policy = self
                    .retry_policy
                    .map_or(channel.retry_policy(), |change| change(channel.retry_policy()));
                (name.clone(), QueueSettings { retry_policy, recipients: channel.recipients() })
            })
            .collect()
    }
}
