//! Routing: which channels get an event. Those of its host, else the default ones. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::btree::InsertAll;
use crate::event::{Event, GivenUp, GivenUpMessage, Level, Subject};
use crate::host_pattern::ByPattern;

/// What routing needs to know of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRoute {
    /// The lowest level that it gets.
    pub min_level: Level,
}

/// What routing needs to know of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRoute {
    /// Whether messages are sent about its heartbeats.
    pub watch: bool,
    /// Its own channels, if it has any.
    pub channels: Option<Vec<String>>,
}

/// The routing part of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Every channel, by name.
    pub channels: BTreeMap<String, ChannelRoute>,
    /// The channels of hosts that have none of their own.
    pub default: Vec<String>,
    /// The hosts that are listed by their names.
    pub hosts: BTreeMap<String, HostRoute>,
    /// Those that come by patterns.
    pub patterns: ByPattern<HostRoute>,
    /// The channels for backups.
    pub backups: Vec<String>,
}

impl Routes {
    /// The channels of a host, whatever the level.
    pub fn host_channels(&self, host: &str) -> &[String] {
        match self.host(host).and_then(|host| host.channels.as_ref()) {
            Some(own) => own,
            None => &self.default,
        }
    }

    /// What is configured for a host, by its name or by a pattern.
    pub fn host(&self, name: &str) -> Option<&HostRoute> {
        self.hosts.get(name).or_else(|| self.patterns.find(name))
    }

    /// The channels that get `event` for what it is. A recovery goes to the channels that were
    /// notified of the incident, which only the outbox knows: for it this is empty. Except for a
    /// backup: that a failed one is well now is news of its own.
    pub fn targets(&self, event: &Event) -> BTreeSet<String> {
        let described = event.describe();
        let is_recovery = event.level == Level::Ok && !described.ok_is_news;
        if described.history_only
            || is_recovery
            || (described.watched_only && !self.is_watched(&described.subject))
        {
            return BTreeSet::new();
        }
        self.of_subject(&described.subject, described.for_backups, event.level)
    }

    /// The channels that take messages of this level about a subject, or about backups.
    fn of_subject(&self, subject: &Subject, for_backups: bool, level: Level) -> BTreeSet<String> {
        match subject {
            _ if for_backups => self.accepting(&self.backups, level),
            Subject::Host(host) => self.accepting(self.host_channels(host), level),
            Subject::Plan(_) => self.accepting(&self.backups, level),
            Subject::Channel(channel) => {
                let siblings = self.accepting(&self.sibling_channels(channel), level);
                if siblings.is_empty() {
                    self.accepting(&self.others(channel), level)
                } else {
                    siblings
                }
            }
            Subject::Daemon => self.accepting(&self.daemon_channels(), level),
        }
    }

    /// The channels that take over what another one was to deliver: those of the subject, else the
    /// default ones.
    pub fn heirs(&self, subject: &Subject, for_backups: bool, level: Level) -> BTreeSet<String> {
        let heirs = self.of_subject(subject, for_backups, level);
        if heirs.is_empty() { self.accepting(&self.default, level) } else { heirs }
    }

    /// The other channels whose people hear that a channel gave messages up, and what each is told:
    /// of those messages that it is one of the channels of; and of those that have no other, if its
    /// hosts use it, else all are told of them. Where the channel is gone, one is told whatever its
    /// level.
    pub fn concerned(&self, lost: &GivenUp) -> BTreeMap<String, GivenUp> {
        let (channel, level) = (&lost.channel, lost.level());
        let siblings = self.of_subject(&Subject::Channel(channel.clone()), false, level);
        let mut messages: BTreeMap<&str, Vec<GivenUpMessage>> = BTreeMap::new();
        let mut names_of: BTreeMap<(&Subject, bool), BTreeSet<String>> = BTreeMap::new();
        for message in &lost.messages {
            let key = (&message.subject, message.for_backups);
            names_of.entry(key).or_insert_with(|| {
                let mut names = self.of_subject(key.0, key.1, level);
                names.remove(channel);
                if names.is_empty() { siblings.clone() } else { names }
            });
        }
        for message in &lost.messages {
            for name in &names_of[&(&message.subject, message.for_backups)] {
                messages.entry(name).or_default().push(message.clone());
            }
        }
        let parts = messages.into_iter().map(|(name, part)| (name.to_owned(), lost.part(part)));
        let mut parts: BTreeMap<String, GivenUp> =
            parts.filter(|(name, part)| self.accepts(name, part.level())).insert_all();
        if parts.is_empty() && !self.has_channel(channel) {
            parts.extend(self.others(channel).into_iter().map(|name| (name, lost.clone())));
        }
        parts
    }

    /// Whether a channel of that name is configured.
    pub fn has_channel(&self, name: &str) -> bool {
        self.channels.contains_key(name)
    }

    fn is_watched(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Host(host) => self.host(host).is_some_and(|host| host.watch),
            Subject::Plan(_) | Subject::Channel(_) | Subject::Daemon => true,
        }
    }

    fn accepting(&self, names: &[String], level: Level) -> BTreeSet<String> {
        let level = level.max(Level::Info);
        names.iter().filter(|name| self.accepts(name, level)).cloned().collect()
    }

    fn accepts(&self, name: &str, level: Level) -> bool {
        self.channels.get(name).is_some_and(|route| level >= route.min_level)
    }

    /// The other channels that the hosts of a channel use: its failure concerns the same people.
    /// Where none of these takes the level, all other channels are used.
    fn sibling_channels(&self, channel: &str) -> Vec<String> {
        let by_pattern = self.patterns.iter().map(|(_, host)| host);
        let hosts = self.hosts.values().chain(by_pattern);
        let groups = std::iter::once(self.default.as_slice())
            .chain(std::iter::once(self.backups.as_slice()))
            .chain(hosts.filter_map(|host| host.channels.as_deref()));
        groups
            .filter(|group| group.iter().any(|name| name == channel))
            .flatten()
            .filter(|name| *name != channel)
            .cloned()
            .collect()
    }

    fn others(&self, channel: &str) -> Vec<String> {
        self.channels.keys().filter(|name| *name != channel).cloned().collect()
    }

    /// The channels for events of the daemon itself: the default ones, else all.
    fn daemon_channels(&self) -> Vec<String> {
        if self.default.is_empty() {
            self.channels.keys().cloned().collect()
        } else {
            self.default.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::event::{BackupNotice, EventKind};

    fn routes() -> Routes {
        let route = |min_level| ChannelRoute { min_level };
        let own = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect());
        Routes {
            channels: BTreeMap::from([
                ("mail".into(), route(Level::Info)),
                ("pager".into(), route(Level::Critical)),
                ("chat".into(), route(Level::Info)),
            ]),
            default: vec!["mail".into()],
            hosts: BTreeMap::from([
                ("web1".into(), HostRoute { watch: true, channels: own(&["mail", "pager"]) }),
                ("quiet".into(), HostRoute { watch: false, channels: None }),
                ("plain".into(), HostRoute { watch: true, channels: None }),
            ]),
            backups: vec!["mail".into()],
            patterns: ByPattern::default(),
        }
    }

    fn said(host: &str, level: Level) -> Event {
        let kind = EventKind::HostMessage { host: host.into(), text: "hello".into() };
        Event { level, ..Event::new(Wall(0), kind) }
    }

    fn targets(event: &Event) -> Vec<String> {
        routes().targets(event).into_iter().collect()
    }

    #[test]
    fn a_host_has_its_own_channels_or_the_defaults() {
        assert_eq!(targets(&said("web1", Level::Critical)), ["mail", "pager"]);
        assert_eq!(targets(&said("plain", Level::Critical)), ["mail"]);
    }

    #[test]
    fn a_host_by_pattern_has_what_the_pattern_says_and_one_by_name_none_of_that() {
        let own = |name: &str| HostRoute { watch: true, channels: Some(vec![name.into()]) };
        let entries = vec![("*".into(), own("chat")), ("we*".into(), own("pager"))];
        let routes = Routes { patterns: ByPattern::new(entries), ..routes() };
        assert_eq!(routes.host_channels("web2"), ["pager"]);
        assert_eq!(routes.host_channels("db1"), ["chat"]);
        assert_eq!(routes.host_channels("plain"), ["mail"], "the default ones");
        let told = routes.targets(&said("web2", Level::Critical));
        assert_eq!(told.into_iter().collect::<Vec<_>>(), ["pager"], "it is watched");
        assert!(routes.targets(&said("quiet", Level::Critical)).is_empty());
        assert_eq!(routes.sibling_channels("chat"), [""; 0]);
    }

    #[test]
    fn a_channel_is_quiet_below_its_level() {
        assert_eq!(targets(&said("web1", Level::Warning)), ["mail"]);
    }

    #[test]
    fn only_watched_hosts_tell_of_their_heartbeats() {
        assert!(targets(&said("quiet", Level::Critical)).is_empty());
        assert!(targets(&said("stranger", Level::Critical)).is_empty());
    }

    #[test]
    fn thresholds_are_told_of_unwatched_hosts_too() {
        let kind = EventKind::Threshold {
            host: "quiet".into(),
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level: Level::Warning,
            since: Wall(0),
            reminder: false,
        };
        assert_eq!(targets(&Event::new(Wall(0), kind)), ["mail"]);
    }

    #[test]
    fn that_a_backup_is_well_is_told_to_those_who_hear_about_backups() {
        let kind = EventKind::Backup {
            plan: "1".into(),
            notice: BackupNotice::Report,
            level: Level::Ok,
            title: "t".into(),
            details: Vec::new(),
            table: None,
        };
        assert_eq!(targets(&Event { level: Level::Ok, ..Event::new(Wall(0), kind) }), ["mail"]);
    }

    #[test]
    fn alerts_that_were_lost_are_told_to_those_who_hear_about_backups() {
        let kind = EventKind::AlertsLost { rows: Vec::new(), count: 1 };
        let event = Event { level: Level::Critical, ..Event::new(Wall(0), kind) };
        let routes = Routes { backups: vec!["chat".into(), "pager".into()], ..routes() };
        assert_eq!(routes.targets(&event).into_iter().collect::<Vec<_>>(), ["chat", "pager"]);
    }

    #[test]
    fn a_failing_channel_is_told_through_its_neighbours_and_never_through_itself() {
        let fails = |channel: &str| {
            let (channel, why) = (channel.into(), "x".into());
            let kind = EventKind::ChannelFails { channel, why, waiting: 1 };
            Event { level: Level::Critical, ..Event::new(Wall(0), kind) }
        };
        assert_eq!(targets(&fails("pager")), ["mail"]);
        let mild = Event { level: Level::Warning, ..fails("mail") };
        assert_eq!(targets(&mild), ["chat"], "the pager beside it would not hear of a warning");
        assert_eq!(targets(&fails("chat")), ["mail", "pager"], "nobody beside it: everybody else");
    }
}
