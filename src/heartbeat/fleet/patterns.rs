//! Hosts that are configured by a pattern: they come when they are heard first, and go when nothing is
//! known of them any more. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::dependencies::DependsOn;
use super::{Changes, Fleet};
use crate::clock::Now;
use crate::event::{KeptLimit, LimitEpisodes, LimitUse};
use crate::heartbeat::host::Host;
use crate::heartbeat::settings::{Profile, Profiles};
use crate::host_pattern::ByPattern;

/// The patterns, and the hosts that came by them.
#[derive(Debug, Default)]
pub struct PatternHosts {
    /// What each host has that matches.
    profiles: ByPattern<Arc<Profile>>,
    /// By the number of a pattern, what its hosts are reached through, by their indexes.
    parents: Vec<Vec<Vec<u32>>>,
    count: usize,
    /// Those of which nothing is known any more: they are to be removed.
    gone: BTreeSet<u32>,
    limit: LimitEpisodes,
}

/// The profiles of a configuration, to be looked up.
pub(super) struct ProfileIndex<'a> {
    listed: HashMap<&'a str, &'a Arc<Profile>>,
    patterns: &'a ByPattern<Arc<Profile>>,
}

impl<'a> ProfileIndex<'a> {
    pub(super) fn new(profiles: &'a Profiles) -> ProfileIndex<'a> {
        let listed = profiles.listed.iter().map(|(name, profile)| (name.as_str(), profile));
        ProfileIndex { listed: listed.collect(), patterns: &profiles.patterns }
    }

    /// The profile of a host; none when it is not configured. A pattern keeps only what was heard.
    pub(super) fn get(&self, name: &str, was_heard: bool) -> Option<&'a Arc<Profile>> {
        let by_pattern = || self.patterns.find(name).filter(|_| was_heard);
        self.listed.get(name).copied().or_else(by_pattern)
    }
}

impl PatternHosts {
    /// Those of another configuration.
    pub fn set(&mut self, profiles: ByPattern<Arc<Profile>>) {
        self.profiles = profiles;
        self.parents.clear();
    }

    /// The profile of a host of that name, if it is not listed.
    pub fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.find(name)
    }

    /// Counts a host that is new in the fleet.
    pub fn add(&mut self, host: &Host) {
        self.count += usize::from(host.profile.pattern.is_some());
    }

    /// There are none any more: they are added again.
    pub fn clear(&mut self) {
        self.count = 0;
        self.gone.clear();
    }

    /// Whether a host is to be removed.
    pub fn is_gone(&self, host_index: u32) -> bool {
        self.gone.contains(&host_index)
    }

    /// Whether one more finds room.
    pub fn has_room(&self, most: usize) -> bool {
        self.count < most
    }

    /// How near the limit is.
    pub fn limit_use(&self, most: usize) -> LimitUse {
        LimitUse {
            name: KeptLimit::PatternHosts(0).name(),
            used: self.count,
            most,
            reached: self.limit.count(),
        }
    }
}

impl Fleet {
    /// Whether a host that is not listed is kept. One that came by a pattern is, also where a lower limit
    /// takes no more of them: what was heard before is still watched.
    pub(super) fn may_stay(&mut self, host: &Host) -> bool {
        if host.profile.pattern.is_some() {
            return true;
        }
        let has_place = Some(self.unknown.count()) < self.common.max_unknown_hosts;
        let comes_again = host.forgotten || self.patterns.profile(&host.name).is_some();
        !comes_again && has_place && self.unknown_room() > 0
    }

    /// Whether one more host that matches a pattern finds room; when it does not, that is told.
    pub(super) fn has_room_for_pattern_host(&mut self, now: Now) -> bool {
        if self.patterns.has_room(self.common.max_pattern_hosts) {
            return true;
        }
        if self.patterns.limit.reached(1, now.mono) {
            self.report_limit(KeptLimit::PatternHosts(self.patterns.count), now);
        }
        false
    }

    /// Notes that nothing is known any more of a host, if it came by a pattern.
    pub(super) fn note_if_gone(&mut self, host_index: u32) {
        let host = &self.hosts[host_index as usize];
        if host.profile.pattern.is_some() && host.connections.is_empty() {
            self.patterns.gone.insert(host_index);
        }
    }

    /// Removes the hosts that were noted so.
    pub(super) fn remove_gone(&mut self, changes: &mut Changes, now: Now) {
        let gone = std::mem::take(&mut self.patterns.gone);
        if !gone.is_empty() {
            changes.removed_hosts.extend(self.names_of(gone.iter().copied()));
            self.remove(&gone, now);
        }
    }

    /// The pattern that a host of that name has its settings from, which was not heard yet.
    pub fn unheard_pattern(&self, name: &str) -> Option<&str> {
        let unheard = !self.by_name.contains_key(name);
        unheard.then(|| self.patterns.profiles.pattern_of(name)).flatten()
    }

    /// Looks up what the hosts of each pattern are reached through: only listed hosts can be that.
    pub(super) fn find_parents_of_patterns(&mut self, depends_on: &DependsOn) {
        let index = |name: &String| self.by_name.get(name.as_str()).copied();
        let entry = |names: &Vec<String>| names.iter().filter_map(index).collect();
        let of_pattern = |(pattern, _): (&str, &Arc<Profile>)| {
            depends_on.get(pattern).into_iter().flatten().map(entry).collect()
        };
        self.patterns.parents = self.patterns.profiles.iter().map(of_pattern).collect();
    }

    /// A host that is new in the fleet, behind all others, is reached through what its pattern says.
    pub(super) fn connect_by_pattern(&mut self, host_index: u32) {
        let pattern = self.hosts[host_index as usize].profile.pattern;
        let parents = pattern.and_then(|number| self.patterns.parents.get(usize::from(number)));
        if let Some(parents) = parents {
            self.dependencies.add(host_index, parents);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::heartbeat::datagram::Rejection;
    use crate::heartbeat::host_settings::HostSettings;
    use crate::heartbeat::settings::{FleetConfig, UnknownHosts};
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, SECOND, TestFleet, config};
    use crate::host_pattern::ByPattern;
    use crate::secret::Secret;
    use crate::view::HostState;

    fn watched() -> HostSettings {
        HostSettings { watch: true, ..HostSettings::default() }
    }

    fn with(patterns: &[(&str, HostSettings)]) -> FleetConfig {
        let entries = patterns.iter().map(|(text, one)| ((*text).to_owned(), one.clone()));
        FleetConfig { patterns: ByPattern::new(entries.collect()), ..config() }
    }

    fn state(test: &TestFleet, host: &str) -> Option<HostState> {
        Some(test.fleet.view(host)?.state)
    }

    #[test]
    fn a_host_by_pattern_is_watched_from_its_first_beat_on_and_never_missed_before() {
        let mut test = TestFleet::with(with(&[("app*", watched())]));
        test.wait(3 * DAY);
        assert_eq!(test.titles(), ["web1 was never heard"], "the listed one");
        test.beat("app7").wait(MINUTE);
        assert_eq!(test.titles_with_level(), ["critical app7 ipv4 overdue"]);
        assert!(test.fleet.is_configured("app7") && !test.fleet.is_configured("db1"));
        assert_eq!(test.try_ingest(br#"{"host":"db1"}"#), Err(Rejection::UnknownHost));
        test.restart_after(HOUR).wait(MINUTE);
        assert!(test.titles().is_empty(), "it is known after a restart, and was told already");
        test.beat("app7");
        assert_eq!(test.titles_with_level(), ["ok app7 ipv4 is back"]);
    }

    #[test]
    fn a_pattern_that_is_taken_out_takes_its_hosts_with_it() {
        let mut test = TestFleet::with(with(&[("app*", watched())]));
        test.beat("app1").beat("app2").wait(MINUTE).beat("app2").take_events();
        test.config.patterns = ByPattern::default();
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(changes.removed_hosts.len(), 2);
        test.add_events(changes.events);
        assert_eq!(test.titles(), ["app1 is no longer watched"]);
        assert_eq!(state(&test, "app1"), None);
        assert_eq!(test.fleet.limits()[2].used, 0);
    }

    #[test]
    fn a_lower_limit_took_watched_hosts_away() {
        let mut test = TestFleet::with(with(&[("app*", watched())]));
        test.beat("app1").beat("app2").wait(MINUTE).take_events();
        test.config.settings.unknown_hosts = UnknownHosts::Accept;
        test.config.settings.max_unknown_hosts = 1;
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(changes.removed_hosts, [""; 0]);
        test.beat("app2");
        assert_eq!(test.titles_with_level(), ["ok app2 ipv4 is back"], "it was heard before");
        assert!(test.try_ingest(br#"{"host":"app3"}"#).is_err(), "there is no room for one more");
    }

    #[test]
    fn the_same_host_by_name_and_by_pattern_goes_on() {
        let mut test = TestFleet::with(with(&[("app*", watched())]));
        test.beat("app1").wait(MINUTE).take_events();
        test.config.hosts.insert("app1".into(), watched());
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        test.add_events(changes.events);
        assert!(test.titles().is_empty() && test.fleet.limits()[2].used == 0);
        assert_eq!(state(&test, "app1"), Some(HostState::Overdue));
        test.config.hosts.remove("app1");
        // Listed and never heard, a host is nothing that a pattern keeps.
        test.config.hosts.insert("app2".into(), watched());
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(state(&test, "app2"), Some(HostState::New));
        test.wait(2 * DAY);
        assert_eq!(test.titles(), ["web1 was never heard", "app2 was never heard"]);
        test.config.hosts.remove("app2");
        let changes = test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(changes.removed_hosts, ["app2"]);
        test.add_events(changes.events);
        assert_eq!(test.titles(), ["app2 is no longer watched"]);
        assert_eq!(
            (state(&test, "app1"), test.fleet.limits()[2].used),
            (Some(HostState::Overdue), 1)
        );
        test.beat("app1");
        assert_eq!(test.titles(), ["app1 ipv4 is back"]);
    }

    #[test]
    fn one_host_by_pattern_too_many_is_told_once_and_listed_ones_are_not_concerned() {
        let mut config = with(&[("app*", watched())]);
        config.settings.max_unknown_hosts = 2;
        let mut test = TestFleet::with(config);
        test.beat("app1").beat("app2").beat("web1");
        for _ in 0..50 {
            assert_eq!(test.try_ingest(br#"{"host":"app3"}"#), Err(Rejection::TooManyHosts));
            test.wait(SECOND).beat("app1").beat("app2").beat("web1");
        }
        let told = test.titles();
        let words = "2 hosts match patterns, further ones are ignored";
        assert_eq!(told, [words]);
        assert_eq!(test.fleet.limits()[2].reached, 50);
        test.restart_after(SECOND).beat("app1").beat("app2").beat("web1");
        assert_eq!(test.fleet.limits()[2].used, 2);
        let changes = test.fleet.forget("app1", None, test.now).unwrap();
        assert_eq!(changes.removed_hosts, ["app1"], "what is forgotten makes room");
        test.beat("app3");
        assert_eq!(state(&test, "app3"), Some(HostState::Up));
    }

    #[test]
    fn a_host_by_pattern_that_is_not_heard_any_more_was_shown_for_ever() {
        let mut config = with(&[("app*", watched())]);
        config.hosts.clear();
        let mut test = TestFleet::with(config);
        test.beat("app1").beat("app2").beat("app3").wait(MINUTE).take_events();
        test.beat("app2").take_events();
        test.wait(30 * DAY - MINUTE / 2);
        let told = test.titles();
        assert!(told.contains(&"app1 ipv4 is forgotten".to_owned()), "{told:?}");
        assert_eq!((state(&test, "app1"), state(&test, "app3")), (None, None));
        assert_eq!(
            (state(&test, "app2"), test.fleet.limits()[2].used),
            (Some(HostState::Overdue), 1)
        );
        test.beat("app1");
        assert_eq!(state(&test, "app1"), Some(HostState::Up), "it may come again");
    }

    #[test]
    fn a_pattern_has_a_key_and_a_host_of_its_own_name_has_none_of_it() {
        let keyed = HostSettings { key: Some(Secret::new("0123456789abcdef")), ..watched() };
        let mut test = TestFleet::with(with(&[("app*", keyed)]));
        test.config.hosts.insert("app9".into(), watched());
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(test.try_ingest(br#"{"host":"app1"}"#), Err(Rejection::Unsigned));
        assert_eq!(state(&test, "app1"), None, "nobody can make up hosts without the key");
        test.beat("app9");
        assert_eq!(state(&test, "app9"), Some(HostState::Up));
    }

    #[test]
    fn a_stranger_that_a_pattern_matches_now_is_none_any_more() {
        let mut config = config();
        config.settings.unknown_hosts = UnknownHosts::Accept;
        let mut test = TestFleet::with(config);
        test.beat("app1").beat("other");
        test.config.patterns = with(&[("app*", watched())]).patterns;
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(test.fleet.limits()[1].used, 1);
        test.wait(MINUTE);
        assert_eq!(test.titles(), ["app1 ipv4 overdue", "other ipv4 overdue"]);
        assert!(test.fleet.is_configured("app1") && !test.fleet.is_configured("other"));
    }

    #[test]
    fn hosts_of_a_pattern_are_reached_through_a_listed_one() {
        let mut config = with(&[("app*", watched())]);
        config.hosts.insert("router".into(), watched());
        config.depends_on.insert("app*".into(), vec![vec!["router".into()]]);
        let mut test = TestFleet::with(config);
        test.beat("router").beat("app1").beat("app2").beat("web1");
        test.fleet.forget("app1", None, test.now).unwrap();
        test.beat("app3");
        for _ in 0..2 {
            let behind = test.fleet.dependency_view("router").behind.into_iter();
            let behind: Vec<String> = behind.map(|host| host.name).collect();
            assert_eq!(behind, ["app2", "app3"], "also when others before them are gone");
            test.restart_after(SECOND).beat("router").beat("app2").beat("app3").take_events();
        }
    }
}
