//! Checks that signal-cli can be run, before the first alarm needs it.

use std::collections::BTreeMap;
use std::thread;

use log::{info, warn};

use crate::btree::InsertAll;
use crate::config::Config;
use crate::notify::channel::ChannelKind;
use crate::notify::channel::signal::Signal;

/// Asks the signal-cli of each such channel for its version, in a thread of its own: a JVM takes
/// seconds to start, and nothing waits for the answer.
pub fn start(config: &Config) {
    let channels: BTreeMap<String, Signal> = config
        .channels
        .iter()
        .filter_map(|(name, channel)| match &channel.kind {
            ChannelKind::Signal(signal) => Some((name.clone(), signal.clone())),
            ChannelKind::Email(_)
            | ChannelKind::Pushover(_)
            | ChannelKind::Mattermost(_)
            | ChannelKind::Log => None,
        })
        .insert_all();
    if channels.is_empty() {
        return;
    }
    let started =
        thread::Builder::new().name("signal-check".into()).spawn(move || check(&channels));
    if let Err(why) = started {
        warn!("signal-cli could not be looked at: {why}");
    }
}

fn check(channels: &BTreeMap<String, Signal>) {
    for (name, signal) in channels {
        match signal.version() {
            Ok(version) => info!("channel {name} has signal-cli {version}"),
            Err(why) => warn!("channel {name} will not deliver: {why}"),
        }
    }
}
