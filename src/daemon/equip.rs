//! What a configuration means to each of the daemon's rooms.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{agent, signs};
use crate::backup::pipeline;
use crate::config::Config;
use crate::heartbeat::fleet::Rules;
use crate::notify::routing::{self, Routes};
use crate::notify::settings::NotifySettings;

/// What the configuration means to the fleet.
pub fn rules(config: &Config) -> Rules {
    let own = agent::promise(config);
    let mut hosts = config.hosts.clone();
    if let Some((host, _)) = &own {
        hosts.entry(host.clone()).or_default();
    }
    Rules {
        settings: config.heartbeat.clone(),
        hosts,
        threshold_sets: config.threshold_sets.clone(),
        renotify_interval: config.renotify_interval,
        default_channels: config.default_channels.clone(),
        signs: signs::promises(config),
        own,
    }
}

/// What the configuration means to the pipelines.
pub fn pipeline(config: &Config) -> pipeline::Settings {
    pipeline::Settings {
        alert_names: config.receiver.alert_names.clone(),
        correlator: config.correlator.clone(),
        repo_check: config.repo_check.clone(),
        renotify: config.renotify_interval,
    }
}

/// What the configuration means to the courier.
pub fn equipment(config: &Config) -> NotifySettings {
    let hosts = config.hosts.iter().map(|(name, host)| {
        let channels = host.notification_channels.clone();
        (name.clone(), routing::HostRoute { watch: host.watch, channels })
    });
    let lines = config.channels.iter().map(|(name, channel)| {
        (name.clone(), routing::ChannelRoute { min_level: channel.min_level })
    });
    NotifySettings {
        routes: Routes {
            channels: lines.collect(),
            default: config.default_channels.clone(),
            hosts: hosts.collect(),
            backups: config.notification_channels_for_backups().to_vec(),
        },
        channels: config
            .channels
            .iter()
            .map(|(name, channel)| (name.clone(), Arc::new(channel.clone())))
            .collect::<BTreeMap<_, _>>(),
        pace: None,
    }
}
