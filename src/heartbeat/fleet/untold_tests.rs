//! Dependencies and doubt, with time moved by hand.

use std::time::Duration;

use crate::event::Event;
use crate::heartbeat::settings::HostSettings;
use crate::heartbeat::test_fleet::{MINUTE, SECOND, TestFleet, config};
use crate::view::HostState;

/// Watched hosts that beat every ten seconds, with 30 s of grace; `web1: router, wan1 wan2` is reached
/// through the router, and through one of the two.
fn with_hosts(hosts: &[&str]) -> TestFleet {
    let mut config = config();
    config.hosts.clear();
    for line in hosts {
        let (name, list) = line.split_once(": ").unwrap_or((line, ""));
        config.hosts.insert(name.into(), HostSettings { watch: true, ..HostSettings::default() });
        let names = |entry: &str| entry.split(' ').map(str::to_owned).collect();
        let entries: Vec<Vec<String>> =
            list.split(", ").filter(|entry| !entry.is_empty()).map(names).collect();
        if !entries.is_empty() {
            config.depends_on.insert(name.into(), entries);
        }
    }
    TestFleet::with(config)
}

/// Title, what it is behind, and whether nobody is told.
fn told(event: &Event) -> String {
    let mut text = event.describe().title;
    if !event.behind.is_empty() {
        text += &format!(" behind {}", event.behind.join(" "));
    }
    if event.untold {
        text += " (untold)";
    }
    text
}

impl TestFleet {
    fn told(&mut self) -> Vec<String> {
        self.take_events().iter().map(told).collect()
    }

    fn state(&self, host: &str) -> HostState {
        self.fleet.view(host).unwrap().state
    }
}

/// The router beat 5 s after web1, and both fall silent: it is 40 s after web1's last beat.
fn in_doubt() -> TestFleet {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").wait(5 * SECOND).beat("router").wait(35 * SECOND);
    assert_eq!((test.state("web1"), test.state("router")), (HostState::Overdue, HostState::Up));
    assert!(test.told().is_empty(), "nobody knows yet whose silence it is");
    test
}

#[test]
fn a_child_that_falls_due_before_its_parent_waits_for_it() {
    let mut test = in_doubt();
    test.wait(5 * SECOND);
    assert_eq!(test.told(), ["router ipv4 overdue", "web1 ipv4 overdue behind router"]);
    assert!(test.wait(10 * MINUTE).told().is_empty());
}

#[test]
fn a_parent_that_is_heard_ends_the_doubt_at_once() {
    let mut test = in_doubt();
    let ingested = test.wait(3 * SECOND).try_ingest(br#"{"host":"router"}"#).unwrap();
    assert!(ingested.rearm, "the deadline thread must look");
    test.wait(Duration::ZERO);
    assert_eq!(test.told(), ["web1 ipv4 overdue"]);
}

#[test]
fn nothing_waits_when_every_parent_was_heard_since() {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").wait(10 * SECOND).beat("router").wait(29 * SECOND);
    assert!(test.told().is_empty());
    test.wait(SECOND);
    assert_eq!(test.told(), ["web1 ipv4 overdue"]);
}
