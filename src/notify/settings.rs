//! The sections `notifier` and `notification_channels`, and what a configuration means to the
//! courier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::calm::CalmSettings;
use super::channel::{Channel, RetryPolicy};
use super::outbox::QueueSettings;
use super::routing::Routes;
use super::summary_times::TimeOfDay;
use crate::address::is_name;
use crate::btree::InsertAll;
use crate::config_file::{NameSet, Section};
use crate::event::Level;

/// The section `notifier`: the channels for backups, and what they are told beyond alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifierSettings {
    /// The channels; none means the default ones.
    pub notification_channels: Option<Vec<String>>,
    /// When the daily summary is sent; empty means never.
    pub summary_at: BTreeSet<TimeOfDay>,
}

impl NotifierSettings {
    /// Reads the section; channels must be among those that there are.
    pub fn read(section: &mut Section, channels: &NameSet) -> NotifierSettings {
        NotifierSettings {
            notification_channels: section.names("notification_channels", "channel", channels),
            summary_at: read_times(section),
        }
    }
}

/// The times of `summary_at`: one, or a list.
fn read_times(section: &mut Section) -> BTreeSet<TimeOfDay> {
    let mut times = BTreeSet::new();
    for text in section.texts("summary_at").unwrap_or_default() {
        match TimeOfDay::parse(&text) {
            Some(time) => {
                times.insert(time);
            }
            None => {
                let what = format!(
                    "must be a time of day by this machine's clock, from \"00:00\" to \"23:59\", \
                     not \"{text}\""
                );
                section.error("summary_at", what);
            }
        }
    }
    times
}

/// Warns when a summary is configured that no channel takes: it is no more than info.
pub fn check_summary(
    top: &Section,
    notifier: &NotifierSettings,
    told: &[String],
    channels: &BTreeMap<String, Channel>,
) {
    let takes_info =
        |name: &String| channels.get(name).is_some_and(|channel| channel.min_level <= Level::Info);
    if !notifier.summary_at.is_empty() && !told.is_empty() && !told.iter().any(takes_info) {
        let what = "summary_at: the summary is of level info, and no channel for backups takes \
                    that: name one in notifier.notification_channels with min_level: info";
        top.warning("notifier", what);
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
    channels.into_iter().insert_all()
}

/// The channels and the routes of a configuration.
#[derive(Clone)]
pub struct NotifySettings {
    /// Which channels get which event.
    pub routes: Routes,
    /// The channels by name.
    pub channels: BTreeMap<String, Arc<Channel>>,
    /// What holds messages back.
    pub calm: CalmSettings,
    /// How often it is repeated that something is overdue; none: never.
    pub overdue_renotify: Option<Duration>,
    /// Where people reach the status page, without a trailing slash.
    pub public_url: Option<String>,
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
            .insert_all()
    }
}
