//! The sections `notifier`, `notification_channels` and their defaults.

use std::collections::BTreeMap;

use super::channel::Channel;
use crate::address::is_name;
use crate::config_file::{NameSet, Section};

/// The section `notifier`: who hears about backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The channels; none means the default ones.
    pub notification_channels: Option<Vec<String>>,
}

impl Settings {
    /// Reads the section; channels must be among those that there are.
    pub fn read(section: &mut Section, channels: &NameSet) -> Settings {
        let notification_channels = section.names("notification_channels", "channel", channels);
        Settings { notification_channels }
    }
}

/// Warns when nobody is `told` about backups, and somebody `expects` to be.
pub fn check_backups(top: &Section, told: &[String], expects: bool) {
    if told.is_empty() && expects {
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
