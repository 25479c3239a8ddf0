//! Storms: when they begin and end, and that nothing is lost or told twice meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::clock::{Mono, Now};
use crate::event::{CalmEvent, Event, EventId, EventKind, Incident, StormEvent, StormLimit};
use crate::heartbeat::fleet::Fleet;
use crate::heartbeat::settings::{FleetConfig, HostSettings};
use crate::heartbeat::test_fleet::{BEGIN, HERE, HOUR, MINUTE, SECOND, TestFleet, config};
use crate::view::HostState;

const MINUTES: u64 = 60;

impl Fleet {
    /// How many hosts the storm has that lasts.
    fn storm_size(&self) -> Option<usize> {
        self.storms.current.as_ref().map(|storm| storm.hosts.len())
    }
}

fn name(host: usize) -> String {
    format!("h{host:02}")
}

/// `count` watched hosts, `h00` and so on.
fn hosts(count: usize) -> FleetConfig {
    let mut config = config();
    config.hosts.clear();
    config.storm = Some(StormLimit::default());
    let watched = HostSettings { watch: true, ..HostSettings::default() };
    config.hosts.extend((0..count).map(|host| (name(host), watched.clone())));
    config
}

/// The hosts beat every ten seconds, each at a second of its own.
fn beat_for(test: &mut TestFleet, hosts: impl Iterator<Item = usize> + Clone, seconds: u64) {
    for _ in 0..seconds {
        for host in hosts.clone() {
            if (test.now.mono.0 / 1000 + host as i64) % 10 == 0 {
                test.beat(&name(host));
            }
        }
        test.wait(SECOND);
    }
}

fn beat_once(test: &mut TestFleet, count: usize) {
    for host in 0..count {
        test.beat(&name(host));
    }
}

/// `count` hosts that have beaten for a minute.
fn beating(count: usize) -> TestFleet {
    let mut test = TestFleet::with(hosts(count));
    beat_for(&mut test, 0..count, MINUTES);
    assert_eq!(test.titles(), [""; 0]);
    test
}

/// Events in short: `storm`, `over`, `(h00)` within a storm, `-h00` recorded only, `h00` told, `+h00`
/// back.
fn short(test: &mut TestFleet) -> Vec<String> {
    let one = |event: &Event| match &event.kind {
        EventKind::Overdue { host, .. } if event.in_storm => format!("({host})"),
        EventKind::Overdue { host, .. } if event.untold => format!("-{host}"),
        EventKind::Overdue { host, .. } => host.clone(),
        EventKind::Back { host, .. } => format!("+{host}"),
        EventKind::Calm(CalmEvent::Storm(StormEvent::Began { .. })) => "storm".into(),
        EventKind::Calm(CalmEvent::Storm(StormEvent::Ended { .. })) => "over".into(),
        _ => event.message(EventId(1)).title,
    };
    test.take_events().iter().map(one).collect()
}

fn all(form: &str, hosts: impl Iterator<Item = usize>) -> Vec<String> {
    hosts.map(|host| form.replace("NN", &format!("{host:02}"))).collect()
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort_unstable();
    words
}

/// Twelve of fourteen hosts are cut off; the storm is known.
fn in_storm() -> TestFleet {
    let mut test = beating(14);
    beat_for(&mut test, 12..14, 70);
    assert_eq!(short(&mut test).len(), 13);
    test
}

#[test]
fn hosts_that_fall_silent_together_are_one_storm_and_then_each_part_of_it() {
    let mut test = beating(14);
    beat_for(&mut test, 12..14, 70);
    let events = test.take_events();
    let storm = events[0].message(EventId(1));
    assert_eq!(
        storm.title,
        "12 of 14 hosts fell silent within 9 s: probably this machine's own uplink"
    );
    assert_eq!(storm.details[0].1, "h00, h01, h02, h03, h04, h05, h06, h07, h08, h09 and 2 more");
    test.add_events(events);
    assert_eq!(short(&mut test), [vec!["storm".to_owned()], all("(hNN)", 0..12)].concat());
    let silent = (0..14).filter(|host| test.fleet.is_silent(*host, test.now.mono)).count();
    assert_eq!((test.fleet.storm_size(), silent), (Some(12), 12));
}

#[test]
fn it_is_over_when_its_hosts_have_been_back_for_their_patience() {
    let mut test = in_storm();
    beat_for(&mut test, 12..14, 2 * MINUTES);
    assert_eq!(test.titles(), [""; 0]);
    let cut_off = test.now;
    beat_for(&mut test, 0..14, 30);
    assert_eq!(sorted(short(&mut test)), all("+hNN", 0..12));
    beat_for(&mut test, 0..14, 40);
    let events = test.take_events();
    let titles: Vec<String> = events.iter().map(|e| e.message(EventId(1)).title).collect();
    assert_eq!(titles, ["the 12 hosts are back (gone for: 3 min 16 s)"]);
    let after = events[0].at.since(cut_off.wall);
    assert!(after > 40 * SECOND && after < 60 * SECOND, "{after:?}");
    assert_eq!((test.fleet.storm_size(), test.fleet.storm_row()), (None, None));
    beat_for(&mut test, 0..14, 5 * MINUTES);
    assert_eq!(test.titles(), [""; 0]);
}

#[test]
fn those_that_stay_away_are_named_at_its_end() {
    let mut test = in_storm();
    beat_for(&mut test, 2..14, 70);
    let titles = test.titles();
    assert_eq!(titles.last().unwrap(), "10 of the 12 hosts are back; still silent: h00, h01");
    assert_eq!(titles.len(), 11);
    beat_for(&mut test, 2..14, 5 * MINUTES);
    assert_eq!(test.titles(), [""; 0]);
}

#[test]
fn a_storm_of_which_more_than_half_stay_away_goes_on() {
    let mut test = in_storm();
    // Five of twelve.
    beat_for(&mut test, 7..14, 10 * MINUTES);
    assert_eq!(sorted(short(&mut test)), all("+hNN", 7..12));
    // Six of twelve.
    beat_for(&mut test, 6..14, 2 * MINUTES);
    assert_eq!(short(&mut test), ["+h06", "over"]);
}

#[test]
fn a_storm_of_hosts_that_stay_away_held_the_others_back_for_ever() {
    let mut test = beating(4);
    beat_for(&mut test, 3..4, 58 * MINUTES);
    assert_eq!(short(&mut test).len(), 4, "the storm, and three of four in it");
    beat_for(&mut test, 3..4, 2 * MINUTES);
    let title = "0 of the 3 hosts are back; still silent: h00, h01, h02";
    assert_eq!(test.titles(), [title]);
    // The fourth one is told as ever.
    test.wait(MINUTE);
    assert_eq!(short(&mut test), ["h03"]);
}

#[test]
fn half_of_the_hosts_or_less_are_told_at_their_deadlines() {
    for silent in [1, 2, 7] {
        let mut test = beating(14);
        let last_beat = test.now.wall;
        beat_for(&mut test, silent..14, 5 * MINUTES);
        let events = test.take_events();
        assert_eq!(events.len(), silent, "{silent}");
        for event in &events {
            let EventKind::Overdue { last_seen, .. } = &event.kind else { panic!("{event:?}") };
            assert!(*last_seen < last_beat && !event.in_storm && !event.untold);
            assert_eq!(event.at, *last_seen + 40 * SECOND);
        }
        assert_eq!(test.fleet.storm_size(), None);
    }
    let mut test = beating(14);
    beat_for(&mut test, 8..14, 5 * MINUTES);
    assert_eq!(short(&mut test)[0], "storm");
}

#[test]
fn two_hosts_of_two_are_no_storm() {
    let mut test = beating(2);
    test.wait(41 * SECOND);
    assert_eq!(sorted(short(&mut test)), ["h00", "h01"]);
}

#[test]
fn hosts_with_short_graces_are_known_by_those_that_fell_before() {
    let mut config = hosts(14);
    config.settings.grace = Some(2 * SECOND);
    let mut test = TestFleet::with(config);
    beat_once(&mut test, 14);
    // None of them is late by two intervals yet when all are overdue.
    test.wait(33 * SECOND);
    let told = short(&mut test);
    assert_eq!(told[..8], all("hNN", 0..7).into_iter().chain(["storm".into()]).collect::<Vec<_>>());
    assert_eq!(told[8..], all("(hNN)", 7..14));
}

#[test]
fn hosts_that_beat_seldom_neither_count_nor_wait() {
    let mut config = hosts(20);
    for host in 0..12 {
        config.hosts.get_mut(&name(host)).unwrap().interval = Some(5 * MINUTE + SECOND);
    }
    let mut test = TestFleet::with(config.clone());
    beat_for(&mut test, 0..20, MINUTES);
    // Eight count; four of these are half of them.
    beat_for(&mut test, 16..20, 5 * MINUTES);
    assert_eq!(sorted(short(&mut test)), all("hNN", 12..16));
    beat_for(&mut test, 16..20, 15 * MINUTES);
    assert_eq!(sorted(short(&mut test)), all("hNN", 0..12));
    // Five are more than half.
    let mut test = TestFleet::with(config);
    beat_for(&mut test, 0..20, MINUTES);
    beat_for(&mut test, 17..20, 5 * MINUTES);
    let told = short(&mut test);
    assert_eq!(told, [vec!["storm".to_owned()], all("(hNN)", 12..17)].concat());
}

#[test]
fn whoever_falls_silent_while_it_lasts_belongs_to_it() {
    let mut test = in_storm();
    let began = test.now.wall;
    beat_for(&mut test, 13..14, 70);
    let events = test.take_events();
    assert_eq!(events.len(), 1);
    let EventKind::Overdue { host, last_seen, .. } = &events[0].kind else { panic!() };
    assert!(host == "h12" && events[0].in_storm && events[0].at > began);
    assert_eq!(events[0].at, *last_seen + 40 * SECOND);
    beat_for(&mut test, 1..14, 70);
    assert_eq!(test.titles().last().unwrap(), "12 of the 13 hosts are back; still silent: h00");
}

#[test]
fn hosts_with_other_deadlines_wait_for_the_first_of_them_only() {
    let mut config = hosts(6);
    for host in 0..6 {
        let grace = Duration::from_secs(30 + 4 * host as u64);
        config.hosts.get_mut(&name(host)).unwrap().grace = Some(grace);
    }
    let mut test = TestFleet::with(config);
    beat_once(&mut test, 6);
    let begin = test.now.wall;
    test.wait(60 * SECOND - Duration::from_millis(1));
    assert_eq!(short(&mut test), [""; 0]);
    test.wait(Duration::from_millis(1));
    let events = test.take_events();
    let at = |event: &Event| event.at.since(begin).as_secs();
    assert_eq!(events.iter().map(at).collect::<Vec<_>>(), [60, 40, 44, 48, 52, 56, 60]);
    assert!(events[1..].iter().all(|event| event.in_storm));
}

#[test]
fn a_host_that_is_back_within_the_wait_is_in_the_history_only() {
    let mut test = beating(14);
    beat_for(&mut test, 12..14, 45);
    assert_eq!(short(&mut test), [""; 0]);
    let view = test.fleet.view("h00").unwrap();
    assert_eq!(view.state, HostState::Overdue);
    test.beat("h00");
    assert_eq!(short(&mut test), ["-h00", "+h00"]);
    beat_for(&mut test, (0..1).chain(12..14), 30);
    assert_eq!(short(&mut test), [vec!["storm".to_owned()], all("(hNN)", 1..12)].concat());
}

#[test]
fn when_most_are_back_within_the_wait_the_others_are_told() {
    let mut test = beating(14);
    beat_for(&mut test, 12..14, 40);
    let waited: BTreeSet<String> = (0..12)
        .map(name)
        .filter(|host| test.fleet.view(host).unwrap().state == HostState::Overdue)
        .collect();
    assert!(waited.len() > 10);
    beat_for(&mut test, 2..14, 20);
    let told = short(&mut test);
    assert!(
        told.iter().all(|word| word.starts_with(['-', '+']) || *word == "h00" || *word == "h01")
    );
    assert_eq!(told[told.len() - 2..], ["h00", "h01"]);
    assert_eq!(test.fleet.storm_size(), None);
}

#[test]
fn a_restart_changes_nothing_of_a_storm() {
    for kill in [false, true] {
        for wait in [41, 45, 55, 61, 65, 100] {
            let mut test = beating(14);
            test.record_start();
            beat_for(&mut test, 12..14, wait);
            match kill {
                true => test.kill_and_start_after(2 * SECOND),
                false => test.restart_after(2 * SECOND),
            };
            beat_for(&mut test, 12..14, 3 * MINUTES);
            let told = short(&mut test);
            assert_eq!(told[0], "storm", "{kill} {wait} {told:?}");
            let hosts = all("(hNN)", 0..12);
            assert_eq!(sorted(told[1..].to_vec()), hosts, "{kill} {wait}");
            match kill {
                true => test.kill_and_start_after(2 * SECOND),
                false => test.restart_after(2 * SECOND),
            };
            beat_for(&mut test, 0..14, 2 * MINUTES);
            let told = short(&mut test);
            assert_eq!(told.last().unwrap(), "over", "{kill} {wait} {told:?}");
            assert_eq!(sorted(told)[..12], all("+hNN", 0..12), "{kill} {wait}");
        }
    }
}

#[test]
fn frequent_restarts_do_not_postpone_the_decision_for_ever() {
    let mut test = beating(14);
    test.record_start();
    beat_for(&mut test, 12..14, 45);
    for _ in 0..5 {
        test.kill_and_start_after(SECOND);
        beat_for(&mut test, 12..14, 8);
    }
    assert_eq!(short(&mut test)[0], "storm");
}

#[test]
fn a_daemon_that_dies_between_two_parts_of_a_storm_goes_on_with_it() {
    let mut config = hosts(0);
    let watched = HostSettings { watch: true, ..HostSettings::default() };
    config.hosts.extend((0..3000).map(|host| (format!("n{host}"), watched.clone())));
    let mut test = TestFleet::with(config);
    test.record_start();
    for host in 0..3000 {
        test.beat(&format!("n{host}"));
    }
    test.record_start();
    test.wait(59 * SECOND);
    test.now = test.now.later(SECOND);
    // The first of three parts.
    test.process_due();
    let first = short(&mut test);
    assert!(first[0] == "storm" && first.len() < 1100, "{}", first.len());
    test.kill_and_start_after(SECOND).wait(2 * MINUTE);
    let rest = short(&mut test);
    assert!(rest.iter().all(|word| word.starts_with('(')), "{rest:?}");
    assert_eq!(first.len() + rest.len(), 3001);
}

#[test]
fn what_the_daemon_slept_through_is_no_storm() {
    let mut config = hosts(14);
    for host in 1..14 {
        config.hosts.get_mut(&name(host)).unwrap().interval = Some(4 * MINUTE);
    }
    let mut test = TestFleet::with(config);
    beat_for(&mut test, 0..14, MINUTES);
    test.sleep(HOUR);
    // The others have not beaten since, but they need not have.
    test.wait(41 * SECOND);
    assert_eq!(short(&mut test), ["h00"]);
    beat_for(&mut test, 1..14, 20 * MINUTES);
    assert_eq!(short(&mut test), [""; 0]);
    let mut test = beating(14);
    test.sleep(HOUR);
    beat_for(&mut test, 0..14, 5 * MINUTES);
    assert_eq!(short(&mut test), [""; 0]);
}

#[test]
fn whoever_could_not_be_heard_while_it_slept_has_the_rest_of_the_wait() {
    let mut test = beating(14);
    beat_for(&mut test, 12..14, 35);
    test.sleep(HOUR);
    assert_eq!(short(&mut test), [""; 0]);
    beat_for(&mut test, 0..14, 30);
    let told = short(&mut test);
    assert!(told.iter().all(|word| word.starts_with(['-', '+'])), "{told:?}");
    assert_eq!(test.fleet.storm_size(), None);
}

#[test]
fn hosts_with_two_connections_are_silent_with_the_first_that_falls_due() {
    let beat = |test: &mut TestFleet, connections: &[&str], seconds| {
        for _ in 0..seconds {
            for host in 0..8 {
                for connection in connections {
                    if (test.now.mono.0 / 1000 + host) % 10 == 0 {
                        test.beat_over(&name(host as usize), connection);
                    }
                }
            }
            test.wait(SECOND);
        }
    };
    let mut test = TestFleet::with(hosts(8));
    beat(&mut test, &["ipv4", "ipv6"], 60);
    test.wait(2 * MINUTE);
    let told = short(&mut test);
    assert!(told[0] == "storm" && told.len() == 17, "{told:?}");
    assert!(told[1..].iter().all(|word| word.starts_with('(')), "{told:?}");
    // Only one of the two ways is cut off: the hosts are heard.
    let mut test = TestFleet::with(hosts(8));
    beat(&mut test, &["ipv4", "ipv6"], 60);
    beat(&mut test, &["ipv4"], 120);
    assert_eq!(sorted(short(&mut test)), all("hNN", 0..8));
}

#[test]
fn hosts_that_are_reached_through_another_one_do_not_count() {
    let mut config = hosts(14);
    for host in 1..14 {
        config.depends_on.insert(name(host), vec![vec![name(0)]]);
    }
    let mut test = TestFleet::with(config);
    beat_for(&mut test, 0..14, MINUTES);
    test.wait(4 * MINUTE);
    let told = test.take_events();
    assert_eq!(told.len(), 14);
    assert!(told.iter().all(|event| !event.in_storm));
    assert_eq!(test.fleet.storm_size(), None);
}

/// Twelve of fourteen hosts are cut off, and with these the hosts `c0` and `c1` behind one of them.
fn with_those_behind_one() -> TestFleet {
    let mut config = hosts(14);
    for child in ["c0", "c1"] {
        config.hosts.insert(child.into(), config.hosts[&name(0)].clone());
        config.depends_on.insert(child.into(), vec![vec![name(0)]]);
    }
    TestFleet::with(config)
}

#[test]
fn hosts_behind_one_that_is_in_a_storm_were_told_one_by_one() {
    // They fall due before it, with it, and after it.
    for at in [0, 5, 9] {
        let mut test = with_those_behind_one();
        beat_for(&mut test, 0..14, MINUTES);
        for second in 0..110 {
            if second == at {
                test.beat("c0").beat("c1");
            }
            let hosts = if second < 10 { 0..14 } else { 12..14 };
            beat_for(&mut test, hosts, 1);
        }
        let told = short(&mut test);
        let expected = [vec!["storm".into()], all("(hNN)", 0..12)].concat();
        let behind = ["(c0)".to_owned(), "(c1)".to_owned()];
        assert_eq!(sorted(told), sorted([expected, behind.to_vec()].concat()), "{at}");
    }
    // One of them was never heard.
    let mut test = with_those_behind_one();
    test.wait(23 * HOUR + 58 * MINUTE).take_events();
    beat_for(&mut test, 0..14, 30);
    beat_for(&mut test, 12..14, 150);
    let events = test.take_events();
    let unheard: Vec<&Event> =
        events.iter().filter(|event| matches!(event.kind, EventKind::NeverSeen { .. })).collect();
    assert_eq!(unheard.len(), 2);
    assert!(unheard.iter().all(|event| event.in_storm && event.behind == [name(0)]));
}

#[test]
fn hosts_that_were_down_before_the_machine_booted_counted_as_silent_since_then() {
    let mut config = hosts(5);
    config.settings.interval = SECOND;
    config.settings.grace = Some(5 * SECOND);
    let mut test = TestFleet::with(config);
    for host in 0..3 {
        test.beat(&name(host)).wait(2 * MINUTE);
    }
    test.beat("h03").beat("h04").wait(SECOND);
    assert_eq!(short(&mut test), all("hNN", 0..3));
    test.wait(Duration::ZERO).beat("h03").beat("h04").wait(SECOND);
    let (rows, last_alive) = (test.rows(), test.last_alive());
    test.kernel.push('x');
    test.now = Now { mono: Mono(8_000), wall: test.now.wall + MINUTE };
    test.start(rows, Some(last_alive)).beat("h03").beat("h04");
    for _ in 0..20 {
        test.wait(SECOND).beat("h04");
    }
    assert_eq!(short(&mut test), ["h03"], "at once");
    assert_eq!(test.fleet.storm_size(), None);
}

#[test]
fn switched_off_everything_is_told_at_its_deadline() {
    let mut config = hosts(14);
    config.storm = None;
    let mut test = TestFleet::with(config);
    beat_once(&mut test, 14);
    test.wait(40 * SECOND);
    assert_eq!(sorted(short(&mut test)), all("hNN", 0..14));
}

#[test]
fn a_reload_that_switches_storms_off_ends_one() {
    let off = FleetConfig { storm: None, ..hosts(14) };
    let mut test = in_storm();
    beat_for(&mut test, 11..14, 20);
    test.take_events();
    let changes = test.fleet.reconfigure(off.clone(), test.now);
    assert_eq!(changes.storm, Some(None));
    test.add_events(changes.events);
    let silent = "1 of the 12 hosts are back; still silent: h00, h01, h02, h03, h04, h05, h06, h07, h08, h09 and 1 more";
    assert_eq!(test.titles(), [silent]);
    test.wait(3 * MINUTE);
    assert_eq!(sorted(short(&mut test)), all("hNN", 11..14));
    // Within the wait: what waits is told.
    let mut test = beating(14);
    beat_for(&mut test, 12..14, 45);
    let changes = test.fleet.reconfigure(off, test.now);
    test.add_events(changes.events);
    test.process_due();
    assert_eq!(sorted(short(&mut test)), all("hNN", 0..12));
}

#[test]
fn a_reload_changes_no_storm() {
    for time in [45, 70] {
        let mut test = beating(14);
        beat_for(&mut test, 12..14, time);
        let mut config = hosts(14);
        let watched = config.hosts[&name(0)].clone();
        config.hosts.insert("a".into(), watched.clone());
        config.hosts.insert("z".into(), watched);
        config.hosts.remove(&name(3));
        let changes = test.fleet.reconfigure(config, test.now);
        test.add_events(changes.events);
        beat_for(&mut test, 12..14, 30);
        let told = short(&mut test);
        let told: Vec<_> = told.iter().filter(|word| *word != "-h03").collect();
        assert_eq!(told[0], "storm", "{time}");
        assert_eq!(test.fleet.storm_size(), Some(11), "{time}");
        beat_for(&mut test, 4..14, 70);
        let title = "8 of the 11 hosts are back; still silent: h00, h01, h02";
        assert_eq!(test.titles().last().unwrap(), title, "{time}");
    }
}

#[test]
fn hosts_that_are_no_longer_expected_leave_it() {
    let mut test = in_storm();
    for host in 0..6 {
        test.fleet.forget(&name(host), None, test.now).unwrap();
    }
    for host in 6..9 {
        test.ingest(&format!(r#"{{"host":"{}","event":"shutdown"}}"#, name(host)));
    }
    test.take_events();
    test.wait(2 * SECOND);
    assert_eq!(test.fleet.storm_size(), Some(3));
    beat_for(&mut test, 10..14, 70);
    assert_eq!(test.titles().last().unwrap(), "2 of the 3 hosts are back; still silent: h09");
}

#[test]
fn a_storm_without_hosts_is_closed_without_a_word() {
    let mut test = in_storm();
    let mut config = hosts(14);
    config.hosts.values_mut().for_each(|host| host.watch = false);
    test.fleet.reconfigure(config, test.now);
    test.now = test.now.later(2 * SECOND);
    let mut closed = Vec::new();
    while test.fleet.next_deadline().is_some_and(|next| next <= test.now.mono) {
        let changes = test.fleet.due(test.now);
        assert_eq!(changes.events, []);
        closed.extend(changes.closed_incidents);
    }
    assert_eq!(closed, [Incident::Storm]);
    assert_eq!(test.fleet.storm_row(), None);
}

#[test]
fn a_row_of_a_storm_survives_the_store() {
    let test = in_storm();
    let row = test.fleet.storm_row().unwrap();
    let stored = serde_json::to_string(&row).unwrap();
    assert_eq!(serde_json::from_str::<super::StormRow>(&stored).unwrap(), row);
    assert!(test.fleet.row("h00").unwrap().storm == row.id && row.id > 0);
    assert_eq!(test.fleet.row("h13").unwrap().storm, 0);
}

/// How long it takes until `due` has told of one host of `count` that is silent, and of all.
fn time_of(count: usize, limit: Option<StormLimit>) -> (Duration, Duration) {
    let mut fleet = Fleet::new(FleetConfig { storm: limit, ..hosts(count) }, BEGIN);
    let beat = |fleet: &mut Fleet, host: usize, now: Now| {
        fleet.ingest(format!(r#"{{"host":"{}"}}"#, name(host)).as_bytes(), HERE, now).unwrap();
    };
    (0..count).for_each(|host| beat(&mut fleet, host, BEGIN.later(SECOND * u32::from(host > 0))));
    let now = BEGIN.later(30 * SECOND);
    (1..count).for_each(|host| beat(&mut fleet, host, now));
    let now = BEGIN.later(40 * SECOND);
    let begun = Instant::now();
    assert_eq!(fleet.due(now).events.len(), 1);
    let one = begun.elapsed();
    let (begun, mut events, mut now) = (Instant::now(), 0, now);
    while now.mono < BEGIN.mono + 2 * MINUTE {
        events += fleet.due(now).events.len();
        if fleet.next_deadline().is_none_or(|next| next > now.mono) {
            now = now.later(SECOND);
        }
    }
    assert_eq!(events, count - 1 + usize::from(limit.is_some()));
    (one, begun.elapsed())
}

#[test]
fn counting_takes_no_longer_than_its_hosts_do() {
    let limit = Some(StormLimit::default());
    let shortest = |count| {
        let times = [time_of(count, limit), time_of(count, limit)];
        times.into_iter().min_by_key(|(_, all)| *all).unwrap()
    };
    let (off, few, many) = (time_of(8000, None), shortest(2000), shortest(8000));
    eprintln!("one silent host, and then all: off {off:?}, 2,000 {few:?}, 8,000 {many:?}");
    // Four times as many take four times as long; sixteen times would be quadratic.
    assert!(many.1 < 12 * few.1, "{few:?}, {many:?}");
}

#[derive(Clone, Debug)]
enum Step {
    /// These hosts beat for so many seconds, the others do not.
    Run(u8, u8),
    Shutdown(u8),
    Sleep(u32),
    Restart(u32),
    Kill(u32),
    Limit(Option<(usize, usize)>),
}

fn step() -> impl Strategy<Value = Step> {
    let limit = (2..5usize, 1..100usize);
    prop_oneof![
        12 => (any::<u8>(), 1..90u8).prop_map(|(hosts, seconds)| Step::Run(hosts, seconds)),
        3 => (1..150u8).prop_map(|seconds| Step::Run(0, seconds)),
        3 => (1..150u8).prop_map(|seconds| Step::Run(255, seconds)),
        1 => (0..8u8).prop_map(Step::Shutdown),
        1 => (1..200_000u32).prop_map(Step::Sleep),
        1 => (1..100_000u32).prop_map(Step::Restart),
        1 => (1..100_000u32).prop_map(Step::Kill),
        1 => proptest::option::of(limit).prop_map(Step::Limit),
    ]
}

/// Eight hosts, and what was told of them.
struct Trace {
    test: TestFleet,
    open: BTreeSet<Incident>,
    /// When the daemon was last blind.
    blind: Mono,
}

impl Trace {
    fn record(&mut self, closed: Vec<Incident>) {
        for event in self.test.take_events() {
            let change = event.incident();
            if let Some(incident) = change.opens().cloned() {
                let again = matches!(event.kind, EventKind::Shutdown { .. });
                assert!(self.open.insert(incident) || again, "told twice: {event:?}");
            }
            for incident in change.closes() {
                assert!(self.open.remove(incident), "over before it began: {event:?}");
            }
            if matches!(event.kind, EventKind::Overdue { .. }) {
                let waited = self.test.now.wall.since(event.at);
                let was_blind = self.test.now.mono.since(self.blind) < MINUTE;
                assert!(was_blind || waited <= 20 * SECOND, "waited {waited:?}: {event:?}");
                assert!(!event.in_storm || self.open.contains(&Incident::Storm), "{event:?}");
            }
        }
        for incident in closed {
            assert!(self.open.remove(&incident), "closed before it began: {incident:?}");
        }
    }

    fn due(&mut self) {
        let changes = self.test.fleet.due(self.test.now);
        self.test.add_events(changes.events);
        self.test.store(changes.rows);
        self.record(changes.closed_incidents);
    }

    fn wait(&mut self, time: Duration) {
        let end = self.test.now.later(time);
        while let Some(next) = self.test.fleet.next_deadline().filter(|next| *next <= end.mono) {
            self.test.now = self.test.now.later(next.since(self.test.now.mono));
            self.due();
        }
        self.test.now = end;
    }

    fn run(&mut self, hosts: u8, seconds: u8) {
        for _ in 0..seconds {
            for host in 0..8 {
                if hosts & 1 << host != 0 && (self.test.now.mono.0 / 1000 + host) % 10 == 0 {
                    self.test.beat(&name(host as usize));
                    self.record(Vec::new());
                }
            }
            self.wait(SECOND);
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Run(hosts, seconds) => self.run(hosts, seconds),
            Step::Shutdown(host) => {
                let host = name(host.into());
                self.test.ingest(&format!(r#"{{"host":"{host}","event":"shutdown"}}"#));
            }
            Step::Sleep(millis) => {
                self.test.sleep(Duration::from_millis(millis.into()));
                self.blind = self.test.now.mono;
            }
            Step::Restart(millis) => {
                self.test.restart_after(Duration::from_millis(millis.into()));
                self.blind = self.test.now.mono;
            }
            Step::Kill(millis) => {
                self.test.kill_and_start_after(Duration::from_millis(millis.into()));
                self.blind = self.test.now.mono;
            }
            Step::Limit(limit) => {
                self.test.config.storm = limit.map(|(hosts, share)| StormLimit { hosts, share });
                let changes = self.test.fleet.reconfigure(self.test.config.clone(), self.test.now);
                self.test.add_events(changes.events);
                self.test.store(changes.rows);
                self.record(changes.closed_incidents);
            }
        }
        self.record(Vec::new());
    }
}

proptest! {
    #[test]
    fn problem_and_end_alternate_in_storms_and_nothing_waits_for_long(
        steps in proptest::collection::vec(step(), 1..30)
    ) {
        let mut test = TestFleet::with(hosts(8));
        test.record_start();
        let mut trace = Trace { test, open: BTreeSet::new(), blind: Mono(i64::MIN / 2) };
        trace.run(255, 60);
        for step in &steps {
            trace.apply(step);
        }
        // In the end what is told is what is true.
        trace.run(15, 250);
        for host in 0..8 {
            let incident = Incident::connection(&name(host), "ipv4");
            prop_assert_eq!(trace.open.contains(&incident), host > 3, "{:?}", incident);
        }
        trace.run(255, 250);
        prop_assert!(trace.open.is_empty(), "{:?}", trace.open);
        prop_assert_eq!(trace.test.fleet.storm_size(), None);
    }
}
