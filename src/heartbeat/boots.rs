//! The boots of a host, by their ids, and how two machines show that beat under its name. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Mono;

/// How many ids of earlier boots are remembered of a host.
const USUAL_EARLIER: usize = 3;
/// The same while new ones come in quick succession: an image may have been cloned many times.
const MAX_EARLIER: usize = 64;
/// No machine boots so often.
const QUICK: Duration = Duration::from_secs(3600);
/// How many addresses are named.
const MAX_ADDRESSES: usize = 8;
/// After so many changes back to an id that was heard before there are two machines: a datagram that
/// is late after a boot makes two of them at most.
const CHANGES_OF_TWO: u8 = 3;
/// When the ids have not changed back for so long, there is one machine again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The boot ids of a host that sends them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootIds {
    /// That of the running boot.
    pub current: Box<str>,
    /// Most of 100,000 hosts have none.
    past: Option<Box<PastBoots>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PastBoots {
    /// The newest first: a datagram with one of them shows no new boot.
    ids: Vec<Box<str>>,
    /// When the last new one was heard, since the start of the daemon.
    newest_at: Option<Mono>,
    alternation: Option<Alternation>,
}

/// Ids that change back: no machine boots with an id that it had before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alternation {
    /// The id that was heard last.
    last: Box<str>,
    changes: u8,
    /// When they changed last.
    at: Mono,
    addresses: BTreeMap<Box<str>, IpAddr>,
    reported: bool,
}

impl BootIds {
    /// The first id of a host.
    pub fn new(current: &str) -> BootIds {
        BootIds { current: current.into(), past: None }
    }

    /// From a store. `reported`: that two machines beat was reported.
    pub fn restore(current: &str, earlier: Vec<String>, reported: bool, now: Mono) -> BootIds {
        let mut ids = BootIds::new(current);
        if !earlier.is_empty() {
            let earlier = earlier.into_iter().take(MAX_EARLIER).map(Into::into);
            ids.past.get_or_insert_default().ids = earlier.collect();
        }
        if reported {
            ids.alternation(now).reported = true;
        }
        ids
    }

    fn alternation(&mut self, now: Mono) -> &mut Alternation {
        let last = &self.current;
        self.past.get_or_insert_default().alternation.get_or_insert_with(|| {
            let (last, addresses) = (last.clone(), BTreeMap::new());
            Alternation { last, changes: 0, at: now, addresses, reported: false }
        })
    }

    fn known_alternation(&self) -> Option<&Alternation> {
        self.past.as_ref()?.alternation.as_ref()
    }

    /// How many bytes they take in memory.
    pub fn size(&self) -> usize {
        // Each id is one allocation more.
        let text = |id: &str| size_of::<Box<str>>() + 16 + id.len();
        let past = self.past.as_ref().map_or(0, |past| {
            let alternation = past.alternation.iter().flat_map(|one| one.addresses.keys());
            let ids = past.ids.iter().chain(alternation);
            size_of::<PastBoots>() + ids.map(|id| text(id)).sum::<usize>()
        });
        size_of::<BootIds>() + text(&self.current) + past
    }

    /// Those of the boots before, the newest first.
    pub fn earlier(&self) -> &[Box<str>] {
        self.past.as_ref().map_or(&[], |past| &past.ids)
    }

    /// Whether it was reported that two machines beat under the name of the host.
    pub fn two_machines_reported(&self) -> bool {
        self.known_alternation().is_some_and(|alternation| alternation.reported)
    }

    /// Whether an id is that of this boot or of one before.
    pub fn is_known(&self, id: &str) -> bool {
        *self.current == *id || self.is_earlier(id)
    }

    /// Whether an id is that of a boot before.
    pub fn is_earlier(&self, id: &str) -> bool {
        self.earlier().iter().any(|earlier| **earlier == *id)
    }

    /// A new id is heard.
    pub fn boot(&mut self, id: &str, now: Mono) {
        let before = std::mem::replace(&mut self.current, id.into());
        let past = self.past.get_or_insert_default();
        past.ids.insert(0, before);
        let before = past.newest_at.replace(now);
        let quick = before.is_some_and(|before| now.since(before) < QUICK);
        past.ids.truncate(if quick { MAX_EARLIER } else { USUAL_EARLIER });
        if let Some(alternation) = &mut past.alternation {
            alternation.last = id.into();
        }
    }

    /// A known id is heard, from this address. The addresses of two machines when it shows, for the
    /// first time, that there are two.
    pub fn hear(&mut self, id: &str, from: IpAddr, now: Mono) -> Option<Vec<IpAddr>> {
        if *self.current == *id && self.known_alternation().is_none() {
            return None;
        }
        let alternation = self.alternation(now);
        if *alternation.last == *id {
            return None;
        }
        if now.since(alternation.at) > FORGOTTEN_AFTER {
            (alternation.changes, alternation.reported) = (0, false);
            alternation.addresses.clear();
        }
        alternation.last = id.into();
        alternation.at = now;
        alternation.changes = alternation.changes.saturating_add(1);
        if alternation.addresses.len() < MAX_ADDRESSES {
            alternation.addresses.insert(id.into(), from.to_canonical());
        }
        if alternation.reported || alternation.changes < CHANGES_OF_TWO {
            return None;
        }
        alternation.reported = true;
        Some(alternation.addresses.values().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::heartbeat::test_fleet::{DAY, HOUR, MINUTE, SECOND, TestFleet};

    const TOLD: &str = "warning web1: two machines beat under this name";
    const BOOTED: &str = "warning web1 booted";

    /// Beats of machines a, b ... in turn, each from its own address; the titles.
    fn beats(test: &mut TestFleet, machines: &str, times: usize) -> Vec<String> {
        for _ in 0..times {
            for machine in machines.chars() {
                beat(test, machine, None);
            }
        }
        test.titles_with_level()
    }

    fn beat(test: &mut TestFleet, machine: char, uptime: Option<u64>) {
        let uptime = uptime.map_or(String::new(), |uptime| format!(r#","uptime":{uptime}"#));
        let json = format!(r#"{{"host":"web1","boot_id":"boot-{machine}"{uptime}}}"#);
        let from = IpAddr::from([192, 0, 2, machine as u8 - b'a' + 1]);
        let now: Now = test.now;
        let ingested = test.fleet.ingest(json.as_bytes(), from, now).unwrap();
        test.add_events(ingested.events);
        test.wait(5 * SECOND);
    }

    #[test]
    fn machines_that_share_a_name_booted_with_nearly_every_beat() {
        for (machines, boots) in [("ab", 1), ("abc", 2), ("abcdefghijklmnopqrstuvwxyz", 25)] {
            let mut test = TestFleet::new();
            let mut titles = beats(&mut test, machines, 20);
            assert_eq!(titles.pop().as_deref(), Some(TOLD), "{machines}");
            assert_eq!(titles, vec![BOOTED; boots], "{machines}");
            test.restart_after(MINUTE);
            assert!(beats(&mut test, machines, 20).is_empty(), "{machines}: told once");
        }
    }

    #[test]
    fn both_addresses_are_named() {
        let mut test = TestFleet::new();
        for machine in "abababab".chars() {
            beat(&mut test, machine, None);
        }
        let events = test.take_events();
        let details = events[1].kind.describe().details;
        assert_eq!(details[0], ("addresses".into(), "192.0.2.1, 192.0.2.2".into()));
    }

    #[test]
    fn a_machine_that_ran_all_the_time_has_not_booted() {
        let mut test = TestFleet::new();
        for turn in 0..20 {
            beat(&mut test, 'a', Some(50_000 + turn * 10));
            beat(&mut test, 'b', Some(90_000 + turn * 10));
            beat(&mut test, 'c', Some(70_000 + turn * 10));
        }
        assert_eq!(test.titles_with_level(), [TOLD]);
    }

    #[test]
    fn two_real_boots_are_still_two() {
        let mut test = TestFleet::new();
        beats(&mut test, "aaa", 1);
        for (machine, uptime) in [('b', 20), ('c', 30), ('d', 250)] {
            test.wait(5 * MINUTE).take_events();
            beat(&mut test, machine, Some(uptime));
            assert_eq!(test.titles_with_level(), [BOOTED]);
            test.wait(2 * HOUR).take_events();
            beat(&mut test, machine, Some(uptime + 7200));
            assert_eq!(test.titles_with_level(), ["ok web1 ipv4 is back"]);
        }
        // The first datagrams of a boot, and a late one of the boot before.
        assert!(beats(&mut test, "dcddd", 1).is_empty());
        assert!(beats(&mut test, "dddd", 1).is_empty());
    }

    #[test]
    fn a_pair_that_comes_back_after_it_was_parted_is_told_again() {
        let mut test = TestFleet::new();
        assert_eq!(beats(&mut test, "ab", 9).last().unwrap(), TOLD);
        for _ in 0..2 * 24 * 60 {
            beat(&mut test, 'b', None);
            test.wait(25 * SECOND);
        }
        assert!(test.titles().is_empty());
        test.wait(DAY).take_events();
        assert_eq!(beats(&mut test, "ab", 9).last().unwrap(), TOLD);
    }
}
