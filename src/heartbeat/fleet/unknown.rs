//! The memory that hosts take together that are not configured, and what is given up where it is used
//! up: metrics before beats. Configured hosts are not counted, and lose nothing. Pure.

use std::cmp::Reverse;

use super::Fleet;
use crate::clock::Now;
use crate::event::{Event, EventKind, KeptLimit, LimitEpisodes, LimitUse};
use crate::heartbeat::host::Host;
use crate::heartbeat::host::memory::HostMemory;
use crate::heartbeat::settings::Interner;

/// This part of the budget is freed at a time: all hosts are looked at for it.
const FREED_PART: usize = 16;

/// What hosts that are not configured take together.
#[derive(Debug, Default)]
pub struct UnknownMemory {
    /// The names of their connections and metrics.
    pub names: Interner,
    count: usize,
    beats: usize,
    metrics: usize,
    bytes_limit: LimitEpisodes,
    hosts_limit: LimitEpisodes,
}

impl UnknownMemory {
    /// Counts a host that is new in the fleet, unless it is configured.
    pub fn add(&mut self, host: &mut Host) {
        host.memory = HostMemory::default();
        self.count += usize::from(!host.profile.configured);
        self.recount(host);
    }

    /// Counts what a host takes now.
    pub fn recount(&mut self, host: &mut Host) {
        if host.profile.configured {
            return;
        }
        let measured = host.measure();
        let before = std::mem::replace(&mut host.memory, measured);
        self.beats = self.beats - before.beats as usize + host.memory.beats as usize;
        self.metrics = self.metrics - before.metrics as usize + host.memory.metrics as usize;
    }

    /// There are none any more: they are added again.
    pub fn clear(&mut self) {
        (self.count, self.beats, self.metrics) = (0, 0, 0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes they take.
    pub fn used(&self) -> usize {
        self.beats + self.metrics + self.names.bytes()
    }
}

impl Fleet {
    /// How many bytes a host may take in addition.
    pub(super) fn room_for(&mut self, host_index: u32) -> usize {
        if self.hosts[host_index as usize].profile.configured {
            return usize::MAX;
        }
        self.unknown_room()
    }

    /// How many bytes hosts that are not configured may take in addition.
    pub(super) fn unknown_room(&mut self) -> usize {
        if self.unknown.used() >= self.common.max_unknown_bytes {
            self.unknown.names.shrink_if_worth();
        }
        self.common.max_unknown_bytes.saturating_sub(self.unknown.used())
    }

    /// Whether one more host that is not configured finds room: beats go before metrics.
    pub(super) fn has_room_for_host(&mut self, now: Now) -> bool {
        if self.common.max_unknown_hosts.is_none_or(|most| self.unknown.count() >= most) {
            let limit = KeptLimit::UnknownHosts(self.unknown.count());
            if self.unknown.hosts_limit.reached(1, now.mono) {
                self.report_limit(limit, now);
            }
            return false;
        }
        if self.unknown_room() > 0 {
            return true;
        }
        self.note_no_room(1, now);
        if self.unknown.metrics >= self.common.max_unknown_bytes / FREED_PART {
            self.drop_unknown_metrics();
        }
        self.unknown_room() > 0
    }

    /// Something of a host that is not configured found no room.
    pub(super) fn note_no_room(&mut self, times: usize, now: Now) {
        if times > 0 && self.unknown.bytes_limit.reached(times as u64, now.mono) {
            self.report_limit(KeptLimit::UnknownHostBytes(self.common.max_unknown_bytes), now);
        }
    }

    /// Goes out with the next deadline, a second from now at most.
    pub(super) fn report_limit(&mut self, limit: KeptLimit, now: Now) {
        self.pending.events.push(Event::new(now.wall, EventKind::LimitReached { limit }));
    }

    /// Drops the metrics of the hosts that have most of them, until a part of the budget is free.
    fn drop_unknown_metrics(&mut self) {
        let most = self.common.max_unknown_bytes;
        let unknown = |host: &&mut Host| !host.profile.configured && !host.metrics.is_empty();
        let mut hosts: Vec<&mut Host> = self.hosts.iter_mut().filter(unknown).collect();
        hosts.sort_unstable_by_key(|host| Reverse(host.metrics.capacity()));
        for host in hosts {
            if self.unknown.used() <= most - most / FREED_PART {
                break;
            }
            let metrics = std::mem::take(&mut host.metrics);
            let closed = metrics.iter().filter_map(|metric| metric.open_incident(&host.name));
            self.pending.closed_incidents.extend(closed);
            self.unknown.recount(host);
        }
        self.unknown.names.shrink();
    }

    /// How near the limits are.
    pub fn limits(&self) -> [LimitUse; 3] {
        let (unknown, common) = (&self.unknown, &self.common);
        [
            LimitUse {
                name: KeptLimit::UnknownHostBytes(0).name(),
                used: unknown.used(),
                most: common.max_unknown_bytes,
                reached: unknown.bytes_limit.count(),
            },
            LimitUse {
                name: KeptLimit::UnknownHosts(0).name(),
                used: unknown.count,
                most: common.max_unknown_hosts.unwrap_or_default(),
                reached: unknown.hosts_limit.count(),
            },
            self.patterns.limit_use(common.max_pattern_hosts),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::heartbeat::datagram::Rejection;
    use crate::heartbeat::settings::UnknownHosts;
    use crate::heartbeat::test_fleet::{HOUR, MINUTE, SECOND, TestFleet, config};
    use crate::view::HostState;

    const MOST: usize = 1_000_000;
    const TITLE: &str = "warning hosts that are not configured take 1 MB";

    fn test() -> TestFleet {
        let mut config = config();
        config.settings.unknown_hosts = UnknownHosts::Accept;
        config.settings.max_unknown_bytes = MOST;
        TestFleet::with(config)
    }

    /// A beat with `count` metrics of long names that no other host has.
    fn beat(test: &mut TestFleet, host: &str, first: usize, count: usize) {
        let long = "x".repeat(150);
        let metrics = (first..first + count).map(|n| format!(r#""{long}.{host}.{n}":1"#));
        let metrics = metrics.collect::<Vec<_>>().join(",");
        test.ingest(&format!(r#"{{"host":"{host}","metrics":{{{metrics}}}}}"#));
    }

    fn metrics(test: &TestFleet, host: &str) -> usize {
        test.fleet.view(host).unwrap().metrics.len()
    }

    /// What is counted, added up anew.
    fn counted(test: &TestFleet) -> usize {
        let hosts = test.fleet.hosts.iter().filter(|host| !host.profile.configured);
        hosts.map(|host| host.measure().total()).sum::<usize>() + test.fleet.unknown.names.bytes()
    }

    #[test]
    fn strangers_with_512_long_paths_each_filled_the_memory() {
        let mut test = test();
        for host in 0..100 {
            for part in 0..14 {
                beat(&mut test, &format!("stranger{host}"), part * 37, 37);
                assert!(test.fleet.unknown.used() < MOST + 4096, "{}", test.fleet.unknown.used());
            }
        }
        assert_eq!(test.fleet.unknown.used(), counted(&test));
        assert_eq!(test.fleet.unknown.count(), 100, "all beats are kept");
        let up = |n: usize| test.fleet.view(&format!("stranger{n}")).unwrap().state;
        assert!((0..100).all(|n| up(n) == HostState::Up));
        assert_eq!(test.wait(SECOND).titles_with_level(), [TITLE], "once");
        for part in 0..14 {
            beat(&mut test, "web1", part * 37, 37);
        }
        assert_eq!(metrics(&test, "web1"), 512, "a configured host keeps all of its metrics");
        let [bytes, hosts, _] = test.fleet.limits();
        assert!(bytes.reached > 10_000 && bytes.used <= MOST + 4096 && hosts.used == 100);
    }

    #[test]
    fn what_a_host_sends_already_goes_on_when_there_is_no_room_for_more() {
        let mut test = test();
        for host in ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"] {
            for part in 0..14 {
                beat(&mut test, host, part * 37, 37);
            }
        }
        assert!(metrics(&test, "seventh") < 400, "there is no room");
        test.wait(20 * SECOND);
        for part in 0..14 {
            beat(&mut test, "first", part * 37, 37);
        }
        let now = test.now.wall;
        let view = test.fleet.view("first").unwrap();
        assert_eq!(view.metrics.iter().filter(|metric| metric.at == Some(now)).count(), 512);
    }

    #[test]
    fn beats_of_more_strangers_go_before_the_metrics_of_the_first_ones() {
        let mut test = test();
        for part in 0..14 * 20 {
            beat(&mut test, &format!("first{}", part / 14), part % 14 * 37, 37);
        }
        for host in 0..1_200 {
            test.beat(&format!("later{host}"));
        }
        assert_eq!(test.fleet.unknown.count(), 1_220);
        assert!(test.fleet.unknown.used() < MOST + 4096);
        assert_eq!(test.fleet.unknown.used(), counted(&test));
    }

    #[test]
    fn names_of_connections_and_boots_without_end_are_bounded() {
        let mut test = test();
        let mut refused = 0;
        for host in 0..600 {
            for connection in 0..16 {
                let name = format!("{host:016}{connection:016}");
                let id = format!("{connection:064}");
                let json =
                    format!(r#"{{"host":"s{host}","connection":"{name}","boot_id":"{id}"}}"#);
                match test.try_ingest(json.as_bytes()) {
                    Ok(_) => {}
                    Err(Rejection::TooManyConnections | Rejection::TooManyHosts) => refused += 1,
                    Err(why) => panic!("{why}"),
                }
            }
            assert!(test.fleet.unknown.used() < MOST + 4096, "{}", test.fleet.unknown.used());
        }
        assert_eq!(test.fleet.unknown.used(), counted(&test));
        assert!(refused > 100, "{refused}");
        let titles = test.wait(SECOND).titles_with_level();
        assert_eq!(titles.iter().filter(|title| *title == TITLE).count(), 1);
    }

    #[test]
    fn a_connection_that_came_with_a_refused_message_was_not_counted() {
        let mut test = test();
        let mut refused = 0;
        for n in 0..3_000 {
            let (host, connection) = (n % 30, n / 30 % 16);
            let json = format!(
                r#"{{"host":"s{host}","connection":"c{connection}","event":"message","message":"m"}}"#
            );
            refused += usize::from(test.try_ingest(json.as_bytes()).is_err());
            assert_eq!(test.fleet.unknown.used(), counted(&test), "{n}");
        }
        assert!(refused > 1_000, "{refused}");
    }

    #[test]
    fn a_stranger_that_is_forgotten_or_configured_gives_its_memory_back() {
        let mut test = test();
        for part in 0..14 {
            beat(&mut test, "stranger", part * 37, 37);
        }
        test.fleet.unknown.names.shrink();
        let full = test.fleet.unknown.used();
        let mut config = test.config.clone();
        config.hosts.insert("stranger".into(), Default::default());
        test.fleet.reconfigure(config, test.now);
        assert_eq!(metrics(&test, "stranger"), 512);
        assert_eq!(test.fleet.unknown.count(), 0);
        test.fleet.reconfigure(test.config.clone(), test.now);
        assert_eq!(test.fleet.unknown.used(), full);
        test.fleet.forget("stranger", None, test.now).unwrap();
        test.fleet.unknown.names.shrink();
        assert_eq!(test.fleet.unknown.used(), 0);
    }

    #[test]
    fn a_hundred_thousand_strangers_fit_into_the_default_budget() {
        let mut config = config();
        config.settings.unknown_hosts = UnknownHosts::Accept;
        let most = config.settings.max_unknown_bytes;
        let mut test = TestFleet::with(config);
        for host in 0..1_000 {
            test.beat(&format!("a-host-with-a-name-of-usual-length-{host:06}"));
        }
        let used = test.fleet.unknown.used();
        assert!(used * 100 < most, "{used} bytes for 1000 hosts");
    }

    #[test]
    fn one_stranger_too_many_is_told_once() {
        let mut test = test();
        test.config.settings.max_unknown_hosts = 2;
        test.fleet.reconfigure(test.config.clone(), test.now);
        test.beat("a").beat("b");
        for _ in 0..50 {
            assert_eq!(test.try_ingest(br#"{"host":"c"}"#), Err(Rejection::TooManyHosts));
            test.wait(MINUTE).beat("a").beat("b");
        }
        let told = test.wait(SECOND).titles();
        let words = "2 hosts beat that are not configured, further ones are ignored";
        assert_eq!(told.iter().filter(|title| *title == words).count(), 1, "{told:?}");
        assert_eq!(test.fleet.limits()[1].reached, 50);
        test.wait(2 * HOUR);
        let _ = test.try_ingest(br#"{"host":"c"}"#);
        let told = test.wait(SECOND).titles();
        assert!(told.contains(&words.to_owned()), "another episode: {told:?}");
    }
}
