//! Dependencies and doubt, with time moved by hand.

use std::time::Duration;

use crate::clock::{Mono, Wall};
use crate::event::{Event, EventKind};
use crate::heartbeat::fleet::{Changes, Fleet};
use crate::heartbeat::persistence::HostRow;
use crate::heartbeat::settings::{FleetConfig, HostSettings};
use crate::heartbeat::test_fleet::{BEGIN, DAY, HERE, HOUR, MINUTE, SECOND, TestFleet, config};
use crate::view::HostState;

/// Watched hosts that beat every ten seconds, with 30 s of grace; `web1: router, wan1 wan2` is reached
/// through the router, and through one of the two. With a dash in front it is not watched.
fn hosts(lines: &[&str]) -> FleetConfig {
    let mut config = config();
    config.hosts.clear();
    for line in lines {
        let (name, list) = line.split_once(": ").unwrap_or((line, ""));
        let (watch, name) = (!name.starts_with('-'), name.trim_start_matches('-'));
        config.hosts.insert(name.into(), HostSettings { watch, ..HostSettings::default() });
        let names = |entry: &str| entry.split(' ').map(str::to_owned).collect();
        let entries: Vec<Vec<String>> =
            list.split(", ").filter(|entry| !entry.is_empty()).map(names).collect();
        if !entries.is_empty() {
            config.depends_on.insert(name.into(), entries);
        }
    }
    config
}

fn with_hosts(lines: &[&str]) -> TestFleet {
    TestFleet::with(hosts(lines))
}

/// Title, what it is behind, and whether nobody is told.
fn told(event: &Event) -> String {
    let mut text = event.describe().title;
    if !event.behind.is_empty() {
        text += &format!(" behind {}", event.behind.join(" "));
    }
    if event.untold {
        assert!(event.describe().history_only);
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

    /// Each of them beats now.
    fn beats(&mut self, hosts: &[&str]) -> &mut TestFleet {
        for host in hosts {
            self.beat(host);
        }
        self
    }

    /// They beat on for a while, every ten seconds.
    fn goes_on(&mut self, hosts: &[&str], time: Duration) -> &mut TestFleet {
        for _ in 0..time.as_secs() / 10 {
            self.beats(hosts).wait(10 * SECOND);
        }
        self
    }

    fn goodbye(&mut self, host: &str) -> &mut TestFleet {
        self.ingest(&format!(r#"{{"host":"{host}","event":"shutdown"}}"#))
    }

    /// Applies another configuration; parents that are up, and hosts that are not behind any more.
    fn reload(&mut self, config: FleetConfig) -> (Vec<String>, Vec<String>) {
        self.config = config;
        let changes = self.fleet.reconfigure(self.config.clone(), self.now);
        self.add_events(changes.events);
        (changes.parents_up, changes.not_behind)
    }

    /// A beat of that host; parents that are up, and hosts that are not behind any more.
    fn returns(&mut self, host: &str) -> (Vec<String>, Vec<String>) {
        let ingested = self.try_ingest(format!(r#"{{"host":"{host}"}}"#).as_bytes()).unwrap();
        (ingested.parents_up, ingested.not_behind)
    }
}

fn names(parents_up: &[&str], not_behind: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    (owned(parents_up), owned(not_behind))
}

/// The router beat 5 s after web1, and both fall silent: it is 40 s after web1's last beat.
fn in_doubt() -> TestFleet {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").wait(5 * SECOND).beat("router").wait(35 * SECOND);
    assert_eq!((test.state("web1"), test.state("router")), (HostState::Overdue, HostState::Up));
    assert!(test.told().is_empty(), "nobody knows yet whose silence it is");
    test
}

const ROUTER: &str = "router ipv4 overdue";
const WEB1: &str = "web1 ipv4 overdue";
const BEHIND: &str = "web1 ipv4 overdue behind router";
const UNTOLD: &str = "web1 ipv4 overdue (untold)";

#[test]
fn a_child_that_falls_due_before_its_parent_waits_for_it() {
    let mut test = in_doubt();
    test.wait(5 * SECOND);
    assert_eq!(test.told(), [ROUTER, BEHIND], "the reason goes first");
    assert!(test.wait(10 * MINUTE).told().is_empty());
}

#[test]
fn a_child_that_falls_due_after_its_parent_or_with_it_is_behind_it() {
    for delay in [Duration::ZERO, 5 * SECOND] {
        let mut test = with_hosts(&["router", "web1: router"]);
        test.beat("router").wait(delay).beat("web1").wait(40 * SECOND);
        assert_eq!(test.told(), [ROUTER, BEHIND], "{delay:?}");
    }
    // The names do not matter.
    let mut test = with_hosts(&["a: b", "b"]);
    test.beats(&["a", "b"]).wait(40 * SECOND);
    assert_eq!(test.told(), ["b ipv4 overdue", "a ipv4 overdue behind b"]);
}

#[test]
fn a_parent_that_is_heard_ends_the_doubt_at_once() {
    let mut test = in_doubt();
    let ingested = test.wait(3 * SECOND).try_ingest(br#"{"host":"router"}"#).unwrap();
    assert!(ingested.rearm, "the deadline thread must look");
    assert!(ingested.parents_up.is_empty(), "it was not down");
    assert_eq!(test.wait(Duration::ZERO).told(), [WEB1]);
    test.wait(HOUR).beat("web1");
    assert_eq!(test.told(), [ROUTER, "web1 ipv4 is back"], "it was told for itself");
}

#[test]
fn nothing_waits_when_every_parent_was_heard_since() {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").wait(10 * SECOND).beat("router").wait(29 * SECOND);
    assert!(test.told().is_empty());
    assert_eq!(test.wait(SECOND).told(), [WEB1]);
    // Its parent is up over one of two connections.
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").beat_over("router", "lan").beat_over("router", "lte").wait(20 * SECOND);
    test.beat_over("router", "lte").wait(20 * SECOND);
    assert_eq!(test.told(), ["router lan overdue", WEB1]);
}

#[test]
fn what_explains_nothing_holds_nothing_back_and_causes_no_doubt() {
    // Not watched, never heard, forgotten.
    for parent in ["-router", "router"] {
        let mut test = with_hosts(&[parent, "web1: router"]);
        test.beat("web1");
        if parent == "-router" {
            test.wait(Duration::ZERO).beat("router");
        }
        test.wait(40 * SECOND);
        assert!(test.told().contains(&WEB1.to_owned()), "{parent}");
        assert!(test.wait(MINUTE).told().iter().all(|told| !told.contains("behind")));
    }
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beats(&["router", "web1"]).wait(20 * SECOND).beat("web1");
    test.fleet.forget("router", None, test.now).unwrap();
    assert_eq!(test.wait(40 * SECOND).told(), [WEB1]);
    // A name that no host has.
    let mut test = with_hosts(&["web1: gone"]);
    assert_eq!(test.beat("web1").wait(40 * SECOND).told(), [WEB1]);
}

#[test]
fn nothing_waits_for_longer_than_two_minutes() {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.ingest(r#"{"host":"router","interval":3600}"#).wait(SECOND).beat("web1");
    test.wait(159 * SECOND);
    assert!(test.told().is_empty());
    assert_eq!(test.wait(SECOND).told(), [WEB1], "the router may be down or up");
    assert!(test.wait(DAY).told().contains(&ROUTER.to_owned()));
}

#[test]
fn of_an_inner_list_one_must_be_up() {
    let lines = ["wan1", "wan2", "web1: wan1 wan2"];
    let mut test = with_hosts(&lines);
    test.beats(&["wan1", "wan2", "web1"]).wait(20 * SECOND).beat("wan2").wait(20 * SECOND);
    assert_eq!(test.told(), ["wan1 ipv4 overdue", WEB1], "there is another way");
    let mut test = with_hosts(&lines);
    test.beats(&["wan1", "wan2", "web1"]).wait(40 * SECOND);
    let both = "web1 ipv4 overdue behind wan1 wan2";
    assert_eq!(test.told(), ["wan1 ipv4 overdue", "wan2 ipv4 overdue", both]);
    assert_eq!(test.returns("wan2"), names(&["wan2"], &["web1"]), "there is a way again");
    // One is down, and of the other one it is not known yet.
    let mut test = with_hosts(&lines);
    test.beats(&["wan1", "web1"]).wait(3 * SECOND).beat("wan2").wait(37 * SECOND);
    assert_eq!(test.told(), ["wan1 ipv4 overdue"]);
    assert_eq!(test.wait(3 * SECOND).told(), ["wan2 ipv4 overdue", both]);
}

#[test]
fn each_entry_must_be_up() {
    let lines = ["a", "b", "web1: a, b"];
    let mut test = with_hosts(&lines);
    test.beats(&["a", "b", "web1"]).wait(20 * SECOND).beat("b").wait(20 * SECOND);
    assert_eq!(test.told(), ["a ipv4 overdue", "web1 ipv4 overdue behind a"]);
    let mut test = with_hosts(&lines);
    test.beat("web1").wait(5 * SECOND).beats(&["a", "b"]).wait(35 * SECOND);
    test.wait(SECOND).beat("a");
    assert!(test.wait(Duration::ZERO).told().is_empty(), "of b it is not known");
    assert_eq!(test.wait(4 * SECOND).told(), ["b ipv4 overdue", "web1 ipv4 overdue behind b"]);
}

#[test]
fn a_chain_is_followed_to_its_end() {
    let lines = ["router", "switch: router", "web1: switch"];
    let mut test = with_hosts(&lines);
    test.beats(&["router", "switch", "web1"]).wait(40 * SECOND);
    let behind = ["switch ipv4 overdue behind router", "web1 ipv4 overdue behind switch router"];
    assert_eq!(test.told(), [&[ROUTER][..], &behind].concat());
    assert_eq!(test.returns("router"), names(&["router"], &["switch"]), "web1 is behind still");
    assert_eq!(test.returns("switch"), names(&["switch"], &["web1"]));
    // The nearest falls due first, and the farthest last.
    let mut test = with_hosts(&lines);
    test.beat("web1").wait(3 * SECOND).beat("switch").wait(3 * SECOND).beat("router");
    test.wait(37 * SECOND);
    assert!(test.told().is_empty(), "switch is overdue, and may be behind the router");
    let told = test.wait(3 * SECOND).told();
    assert_eq!(told[0], ROUTER);
    assert!(told.len() == 3 && told[1..].iter().all(|told| told.contains("router")), "{told:?}");
    // The middle one is not watched, or was never heard.
    for lines in [["router", "-switch: router", "web1: switch"], lines] {
        let mut test = with_hosts(&lines);
        test.beats(&["router", "web1"]).wait(40 * SECOND);
        assert_eq!(test.told(), [ROUTER, BEHIND]);
    }
    // It is reached in another way: what is above it does not matter.
    let mut test = with_hosts(&lines);
    test.beats(&["router", "switch", "web1"]).wait(20 * SECOND).beat("switch");
    assert_eq!(test.wait(20 * SECOND).told(), [ROUTER, WEB1]);
}

#[test]
fn a_goodbye_of_the_parent_explains_it_too() {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beats(&["router", "web1"]).wait(SECOND).goodbye("router").wait(39 * SECOND);
    assert_eq!(test.told(), ["router ipv4 shutdown", BEHIND]);
    assert_eq!(test.returns("router"), names(&["router"], &["web1"]));
    let mut test = in_doubt();
    test.wait(SECOND).goodbye("router").wait(Duration::ZERO);
    assert_eq!(test.told(), ["router ipv4 shutdown", BEHIND]);
}

#[test]
fn a_child_that_is_back_in_the_doubt_is_recorded_and_not_told() {
    let mut test = in_doubt();
    test.wait(SECOND).beat("web1");
    assert_eq!(test.told(), [UNTOLD, "web1 ipv4 is back"]);
    test.wait(10 * SECOND);
    assert_eq!(test.told(), [ROUTER]);
    let mut test = in_doubt();
    test.ingest(r#"{"host":"web1","event":"boot","boot_id":"b1"}"#);
    assert_eq!(test.told(), [UNTOLD, "web1 booted"]);
    let mut test = in_doubt();
    test.goodbye("web1");
    assert_eq!(test.told(), [UNTOLD, "web1 ipv4 shutdown"]);
    let mut test = in_doubt();
    let changes = test.fleet.forget("web1", None, test.now).unwrap();
    let forgotten: Vec<String> = changes.events.iter().map(told).collect();
    assert_eq!(forgotten, [UNTOLD, "web1 ipv4 is forgotten"]);
    assert_eq!(test.wait(DAY).told(), [ROUTER]);
}

#[test]
fn each_connection_of_a_child_waits_for_itself() {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat_over("web1", "a").wait(SECOND).beat_over("web1", "b").wait(4 * SECOND);
    test.beat("router").wait(37 * SECOND);
    assert!(test.told().is_empty());
    test.beat_over("web1", "a");
    assert_eq!(test.told(), ["web1 a overdue (untold)", "web1 a is back"]);
    assert_eq!(test.wait(3 * SECOND).told(), [ROUTER, "web1 b overdue behind router"]);
    // A boot over one of them ends the doubt of both.
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat_over("web1", "a").beat_over("web1", "b").wait(5 * SECOND).beat("router");
    test.wait(35 * SECOND).ingest(r#"{"host":"web1","connection":"a","event":"boot"}"#);
    let untold = ["web1 a overdue (untold)", "web1 b overdue (untold)", "web1 booted"];
    assert_eq!(test.told(), untold);
    test.goes_on(&["router"], MINUTE);
    assert_eq!(test.told(), ["web1 a overdue", "web1 b overdue"], "they had to beat in time");
}

#[test]
fn a_reload_in_the_doubt_loses_nothing() {
    let lines = ["router", "web1: router"];
    let mut test = in_doubt();
    test.reload(hosts(&lines));
    assert!(test.wait(Duration::ZERO).told().is_empty(), "it goes on waiting");
    assert_eq!(test.wait(5 * SECOND).told(), [ROUTER, BEHIND]);
    for lines in [&["router", "web1"][..], &["-router", "web1: router"], &["web1"]] {
        let mut test = in_doubt();
        test.reload(hosts(lines));
        assert_eq!(test.wait(Duration::ZERO).told(), [WEB1], "{lines:?}");
    }
    let mut test = in_doubt();
    test.reload(hosts(&["router", "-web1: router"]));
    assert_eq!(test.told(), [UNTOLD], "nobody is told of it any more");
    test.reload(hosts(&["router"]));
    assert_eq!(test.wait(MINUTE).told(), [ROUTER]);
    let mut test = in_doubt();
    test.reload(hosts(&["router"]));
    assert_eq!(test.told(), [UNTOLD]);
    let mut test = in_doubt();
    test.reload(hosts(&["other", "router", "web1: router, other"]));
    assert_eq!(test.wait(5 * SECOND).told(), [ROUTER, BEHIND], "other indexes");
}

#[test]
fn who_was_told_of_one_connection_did_not_hear_that_its_host_is_removed_in_the_doubt() {
    for restarts in [false, true] {
        let mut test = with_hosts(&["router", "web1: router"]);
        test.beat_over("web1", "a");
        for _ in 0..6 {
            test.beat_over("web1", "b").beat("router").wait(10 * SECOND);
        }
        assert_eq!(test.told(), ["web1 a overdue"]);
        test.beat_over("web1", "b").wait(5 * SECOND).beat("router").wait(35 * SECOND);
        assert!(test.told().is_empty(), "nobody knows yet whose silence that of b is");
        if restarts {
            test.config = hosts(&["router"]);
            test.restart_after(Duration::ZERO);
        } else {
            test.reload(hosts(&["router"]));
        }
        let events = test.take_events();
        let titles: Vec<String> = events.iter().map(told).collect();
        assert_eq!(titles, ["web1 b overdue (untold)", "web1 is no longer watched"]);
        let closes = events[1].describe().incident.closes().to_vec();
        assert_eq!(closes, [crate::event::Incident::connection("web1", "a")]);
    }
}

#[test]
fn a_restart_in_the_doubt_goes_on_with_it() {
    for kill in [false, true] {
        let start = |test: &mut TestFleet, away| {
            match kill {
                true => test.kill_and_start_after(away),
                false => test.restart_after(away),
            };
        };
        let in_doubt = || {
            let mut test = with_hosts(&["router", "web1: router"]);
            test.beats(&["router", "web1"]).record_start();
            test.beat("web1").wait(5 * SECOND).beat("router").wait(35 * SECOND);
            test
        };
        let mut test = in_doubt();
        start(&mut test, SECOND);
        assert!(test.told().is_empty(), "{kill}");
        assert!(test.wait(39 * SECOND).told().is_empty(), "the router may beat again until then");
        let told = test.wait(6 * SECOND).told();
        assert_eq!(told, [ROUTER, BEHIND], "{kill}");
        start(&mut test, SECOND);
        assert!(test.wait(HOUR).told().is_empty(), "once");
        let mut test = in_doubt();
        start(&mut test, SECOND);
        test.beat("router").wait(Duration::ZERO);
        assert_eq!(test.told(), [WEB1], "{kill}");
        let mut test = in_doubt();
        start(&mut test, DAY);
        test.beat("web1");
        assert_eq!(test.told(), [UNTOLD, "web1 ipv4 is back"], "{kill}");
        let mut test = in_doubt();
        for _ in 0..50 {
            start(&mut test, 10 * SECOND);
            test.wait(10 * SECOND);
        }
        let told = test.told();
        assert!(told.iter().any(|told| told.starts_with(WEB1)), "not postponed for ever: {told:?}");
    }
    let mut test = in_doubt();
    test.reboot_after(MINUTE);
    assert!(test.told().is_empty());
    assert_eq!(test.wait(50 * SECOND).told(), [ROUTER, BEHIND], "the machine booted");
}

#[test]
fn a_parent_that_was_heard_before_the_daemon_was_blind_was_not_heard_since() {
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").wait(12 * SECOND).beat("router").wait(3 * SECOND);
    test.sleep(MINUTE).wait(SECOND).beat("web1").wait(SECOND);
    assert!(test.told().is_empty());
    // web1 beat once more, the router did not: its own deadline was extended to 40 s after the sleep.
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat("web1").wait(12 * SECOND).beat("router").wait(3 * SECOND);
    test.sleep(MINUTE).wait(45 * SECOND);
    let mut told = test.told();
    told.sort_unstable();
    assert_eq!(told, [ROUTER, BEHIND]);
}

#[test]
fn asleep_in_the_doubt() {
    let mut test = in_doubt();
    test.sleep(HOUR);
    assert!(test.told().is_empty(), "the router has the time to beat");
    assert_eq!(test.wait(MINUTE).told(), [ROUTER, BEHIND]);
    let mut test = in_doubt();
    test.sleep(HOUR).beat("router").wait(Duration::ZERO);
    assert_eq!(test.told(), [WEB1]);
}

#[test]
fn a_wall_clock_that_is_set_changes_nothing() {
    for step in [-86_400_000, 86_400_000] {
        let mut test = in_doubt();
        test.now.wall = Wall(test.now.wall.0 + step);
        assert!(test.wait(4 * SECOND).told().is_empty());
        assert_eq!(test.wait(SECOND).told(), [ROUTER, BEHIND]);
    }
}

#[test]
fn the_event_of_a_parent_says_who_is_behind_it() {
    let mut lines = vec!["router".to_owned(), "wan: isp1 isp2".into(), "isp1: router".into()];
    lines.extend(["isp2".into(), "-dark: router".into()]);
    lines.extend((1..=40).map(|n| format!("web{n:02}: router")));
    lines.push("zweb: isp1".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut test = with_hosts(&lines);
    test.beats(&["router", "web01", "isp2"]).wait(20 * SECOND).beats(&["isp2", "web01"]);
    test.wait(20 * SECOND);
    let events = test.take_events();
    assert_eq!(events.len(), 1);
    let EventKind::Overdue { behind_it, behind_count, .. } = &events[0].kind else { panic!() };
    assert_eq!((behind_it[0].as_str(), behind_it.len(), *behind_count), ("isp1", 10, 42));
    let details = events[0].describe().details;
    let detail = details.iter().find(|(label, _)| label == "behind it").unwrap();
    assert!(detail.1.starts_with("isp1, web01, web02, "), "{detail:?}");
    assert!(detail.1.ends_with("and 32 more, not told while it is overdue"), "{detail:?}");
    // Nobody is behind one connection of two.
    let mut test = with_hosts(&["router", "web1: router"]);
    test.beat_over("router", "a").wait(SECOND).beat_over("router", "b").wait(39 * SECOND);
    let behind =
        |event: &Event| event.describe().details.iter().any(|(label, _)| label == "behind it");
    assert_eq!(test.take_events().iter().map(behind).collect::<Vec<_>>(), [false]);
    test.wait(SECOND);
    assert_eq!(test.take_events().iter().map(behind).collect::<Vec<_>>(), [true]);
}

#[test]
fn a_host_that_was_never_heard_or_did_not_come_back_may_be_behind_another() {
    let mut test = with_hosts(&["router", "web1: router", "web2: router"]);
    test.ingest(r#"{"host":"web2","boot_id":"b"}"#);
    test.goes_on(&["router"], DAY - 10 * MINUTE);
    test.ingest(r#"{"host":"web2","boot_id":"b","event":"shutdown","reason":"reboot"}"#);
    test.take_events();
    let told = test.wait(DAY).told();
    let behind = ["web2 has not come back behind router", "web1 was never heard behind router"];
    assert!(told.contains(&ROUTER.to_owned()), "{told:?}");
    assert!(behind.iter().all(|behind| told.contains(&(*behind).to_owned())), "{told:?}");
    assert_eq!(test.returns("router"), names(&["router"], &["web1", "web2"]));
    // The parent is up: it is told for itself.
    let mut test = with_hosts(&["router", "web1: router"]);
    test.goes_on(&["router"], DAY + MINUTE);
    assert_eq!(test.told(), ["web1 was never heard"]);
}

#[test]
fn a_host_that_was_never_heard_had_no_time_to_beat_when_its_parent_was_back() {
    let mut config = hosts(&["router", "web1: router"]);
    config.hosts.get_mut("web1").unwrap().interval = Some(MINUTE);
    let mut test = TestFleet::with(config);
    test.wait(23 * HOUR).beat("router").wait(2 * HOUR);
    let events = test.take_events();
    let patience = |event: &Event| (told(event), event.patience);
    let unheard = "web1 was never heard behind router".to_owned();
    let expected = [(ROUTER.to_owned(), 40 * SECOND), (unheard, 3 * MINUTE)];
    assert_eq!(events.iter().map(patience).collect::<Vec<_>>(), expected);
}

#[test]
fn a_parent_that_is_up_again_or_not_expected_any_more_is_reported_with_that() {
    let lines = ["router", "web1: router"];
    let down = || {
        let mut test = with_hosts(&lines);
        test.beats(&["router", "web1"]).record_start().wait(40 * SECOND).told();
        test
    };
    let both = names(&["router"], &["web1"]);
    assert_eq!(down().returns("router"), both);
    let mut test = down();
    assert_eq!(test.returns("web1"), names(&[], &[]), "it is back");
    assert_eq!(test.returns("router"), names(&["router"], &[]));
    let mut test = down();
    let boot = br#"{"host":"router","event":"boot"}"#;
    assert_eq!(test.try_ingest(boot).unwrap().parents_up, ["router"]);
    let mut test = down();
    let changes = test.fleet.forget("router", None, test.now).unwrap();
    assert_eq!((changes.parents_up, changes.not_behind), both);
    // Reloads.
    assert_eq!(down().reload(hosts(&lines)), names(&[], &[]));
    for lines in [&["-router", "web1: router"][..], &["router", "web1"], &["other", "web1"]] {
        assert_eq!(down().reload(hosts(lines)), both, "{lines:?}");
    }
    let more = ["router", "web1: router", "web2: router"];
    assert_eq!(down().reload(hosts(&more)), names(&[], &[]), "those behind it stay so");
    let fewer = ["a: router", "router", "web1"];
    assert_eq!(down().reload(hosts(&fewer)), names(&[], &["web1"]));
    // The configuration was changed while the daemon was away.
    let mut test = down();
    test.config = hosts(&["router", "web1"]);
    test.now = test.now.later(MINUTE);
    let (rows, alive) = (test.rows(), test.last_alive());
    test.fleet = Fleet::restore(test.config.clone(), rows, Some(alive), test.now, &test.kernel);
    assert_eq!(test.fleet.due(test.now).not_behind, ["web1"]);
}

#[test]
fn a_row_says_that_an_event_waits() {
    let test = in_doubt();
    let row = test.fleet.row("web1").unwrap();
    let stored = serde_json::to_value(&row).unwrap();
    let expected = serde_json::json!({
        "at": BEGIN.later(40 * SECOND).wall.0, "last": true,
        "promised": {"mono": BEGIN.mono.0 + 10_000, "wall": BEGIN.wall.0 + 10_000},
        "from": BEGIN.mono.0 + 40_000, "parents": BEGIN.mono.0 + 160_000,
    });
    assert_eq!(stored["connections"][0]["untold"], expected);
    let again: HostRow = serde_json::from_value(stored).unwrap();
    assert_eq!(again, row);
    let weird = r#"{"connections":[{"name":"ipv4","state":"OVERDUE",
        "seen":{"mono":10000000,"wall":1795291928000},"untold":{"parents":9223372036854775807}}]}"#;
    let rows = [("web1".to_owned(), serde_json::from_str(weird).unwrap())];
    let mut fleet = Fleet::restore(test.config.clone(), rows, None, BEGIN, "k");
    assert!(fleet.due(BEGIN.later(2 * MINUTE)).events.iter().any(|event| told(event) == WEB1));
}

/// A tenth of 100,000 hosts is reached through a hundred others, all of which fall silent at one moment:
/// nothing that is done for one host may depend on how many there are.
#[test]
fn a_hundred_thousand_hosts_fall_due_without_a_look_at_all_of_them() {
    let mut config = config();
    config.hosts.clear();
    let watched = HostSettings { watch: true, ..HostSettings::default() };
    for n in 0..100_000 {
        config.hosts.insert(format!("web{n:05}"), watched.clone());
    }
    for n in (0..100_000).step_by(10) {
        let parents = vec![vec![format!("web{:05}", n / 1000 * 1000 + 1)]];
        config.depends_on.insert(format!("web{n:05}"), parents);
    }
    let mut fleet = Fleet::new(config, BEGIN);
    fleet.due(BEGIN);
    let mut now = BEGIN;
    for n in 0..100_000 {
        fleet.ingest(format!(r#"{{"host":"web{n:05}"}}"#).as_bytes(), HERE, now).unwrap();
        now = if n % 1000 == 0 { now.later(Duration::from_millis(1)) } else { now };
    }
    let mut events = Vec::new();
    let end = now.later(40 * SECOND);
    let began = std::time::Instant::now();
    let mut calls = 0;
    while fleet.next_deadline().is_some_and(|next| next <= end.mono) {
        let Changes { events: some, .. } = fleet.due(end);
        events.extend(some);
        calls += 1;
    }
    assert_eq!(events.len(), 100_000);
    assert!((98..=300).contains(&calls), "{calls}");
    let behind = events.iter().filter(|event| !event.behind.is_empty()).count();
    assert_eq!(behind, 10_000, "every tenth");
    assert!(began.elapsed() < 60 * SECOND, "{:?}", began.elapsed());
    assert!(fleet.next_deadline().is_none_or(|next| next > Mono(end.mono.0)));
}

#[test]
fn who_is_behind_a_host_was_named_as_also_overdue_once_more() {
    let mut test = with_hosts(&["router", "web1: router", "web2: router", "other"]);
    test.beats(&["router", "web1", "web2", "other"]).goes_on(&["router", "web2"], MINUTE);
    // It was told before: the router was up.
    test.take_events();
    test.wait(MINUTE);
    let events = test.take_events();
    let router = events.iter().find(|event| event.describe().title == ROUTER).unwrap();
    let details = router.describe().details;
    let of =
        |wanted: &str| details.iter().find(|(label, _)| label == wanted).map(|(_, text)| &**text);
    assert_eq!(of("behind it"), Some("web1, web2, not told while it is overdue"));
    assert_eq!(of("also overdue"), Some("other"));
}
