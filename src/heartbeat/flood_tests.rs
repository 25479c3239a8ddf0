//! Hosts that send as fast as they can: what is refused, what is put off, and that no alarm is.

use crate::event::{EventKind, Level};
use crate::heartbeat::datagram::{ReceivedDatagram, Rejection};
use crate::heartbeat::event_limits::Load;
use crate::heartbeat::fleet::Ingested;
use crate::heartbeat::settings::{HostSettings, UnknownHosts};
use crate::heartbeat::test_fleet::{DAY, HERE, HOUR, MINUTE, SECOND, TestFleet, config, set};
use crate::heartbeat::threshold::Rule;
use crate::view::HostState;

const MESSAGE: &str = r#"{"host":"web1","event":"message","message":"x"}"#;
const SHUTDOWN: &str = r#"{"host":"web1","event":"shutdown"}"#;

fn under(test: &mut TestFleet, load: Load, json: &str) -> Result<Ingested, Rejection> {
    let received = ReceivedDatagram::parse(json.as_bytes()).unwrap();
    let ingested = test.fleet.ingest_parsed(&received, HERE, load, test.now)?;
    test.add_events(ingested.events.clone());
    Ok(ingested)
}

fn with_threshold() -> TestFleet {
    let limit = |text: &str| Some(text.parse().unwrap());
    let rule = Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() };
    TestFleet::with_threshold("*", rule)
}

/// Ten seconds pass, in which nothing is sent: what was refused is told.
fn pause(test: &mut TestFleet) -> Vec<String> {
    test.wait(10 * SECOND).process_due().titles()
}

#[test]
fn messages_of_one_host_without_end_were_all_recorded() {
    let mut test = TestFleet::new();
    let mut taken = 0;
    for _ in 0..200 {
        match test.try_ingest(MESSAGE.as_bytes()) {
            Ok(_) => taken += 1,
            Err(why) => assert_eq!(why, Rejection::TooManyMessages),
        }
    }
    assert_eq!((taken, test.titles().len()), (60, 60));
    test.beat("web1").ingest(SHUTDOWN);
    assert_eq!(test.titles(), ["web1 ipv4 shutdown"], "an alarm among them");
    let told = "web1 sends more than 60 messages a minute: 140 were not recorded";
    assert_eq!(pause(&mut test), [told]);
    test.ingest(MESSAGE);
    assert_eq!(test.wait(HOUR).process_due().titles().len(), 1, "it is told once");
}

#[test]
fn what_a_stranger_was_refused_is_not_told_to_people() {
    let mut config = config();
    config.settings.unknown_hosts = UnknownHosts::Accept;
    let mut test = TestFleet::with(config);
    let message = br#"{"host":"x","event":"message","message":"x"}"#;
    let refused = (0..100).filter(|_| test.try_ingest(message).is_err()).count();
    assert_eq!((refused, test.titles().len()), (40, 60));
    assert_eq!(pause(&mut test), [""; 0]);
}

#[test]
fn a_new_boot_id_in_each_datagram_was_a_boot_each_time() {
    let mut test = TestFleet::new();
    test.beat("web1");
    for number in 0..500 {
        test.ingest(&format!(r#"{{"host":"web1","event":"boot","boot_id":"{number}"}}"#));
    }
    let titles = test.titles();
    assert!(titles.len() <= 60 && titles.iter().all(|title| title == "web1 booted"), "{titles:?}");
    assert!(pause(&mut test)[0].contains("were not recorded"));
    test.ingest(r#"{"host":"web1","boot_id":"499"}"#);
    assert_eq!(test.titles(), ["web1 booted"], "the last one is told, by the next beat");
}

#[test]
fn a_connection_that_flaps_is_told_so_often_and_how_it_stands_in_the_end() {
    let mut test = TestFleet::new();
    test.beat("web1");
    for _ in 0..500 {
        test.ingest(SHUTDOWN).beat("web1");
    }
    let titles = test.titles();
    assert_eq!((titles.len(), titles.last().unwrap().as_str()), (121, "web1 ipv4 shutdown"));
    pause(&mut test);
    test.beat("web1");
    assert_eq!(test.titles(), ["web1 ipv4 is back"]);
    test.wait(MINUTE);
    assert_eq!(test.titles(), ["web1 ipv4 overdue"], "its deadline runs again");
}

#[test]
fn a_host_that_beats_has_come_back_though_that_is_not_told_yet() {
    let mut config = config();
    config.hosts.get_mut("web1").unwrap().back_within = Some(10 * MINUTE);
    let mut test = TestFleet::with(config);
    test.beat("web1").ingest(SHUTDOWN);
    for _ in 0..40 {
        test.wait(MINUTE);
        under(&mut test, Load::ShareUsed, r#"{"host":"web1"}"#).unwrap();
    }
    assert_eq!(test.titles(), ["web1 ipv4 shutdown"]);
    assert_eq!(test.fleet.view("web1").unwrap().state, HostState::Shutdown);
    test.beat("web1");
    assert_eq!(test.titles(), ["web1 ipv4 is back"]);
}

#[test]
fn a_metric_that_jumps_at_each_beat_is_told_so_often_and_never_as_well_while_it_is_not() {
    let mut test = with_threshold();
    for _ in 0..2000 {
        test.sample(95.0).sample(5.0);
    }
    let events = test.take_events();
    assert_eq!(events.len(), 1201);
    assert_eq!(events.last().unwrap().level, Level::Critical);
    let told = pause(&mut test);
    assert_eq!(told, ["web1 sends more than 60 messages a minute: 1400 were not recorded"]);
    test.sample(95.0);
    assert!(test.take_events().is_empty(), "it was told as critical");
    test.sample(5.0).sample(85.0);
    let levels: Vec<Level> = test.take_events().iter().map(|event| event.level).collect();
    assert_eq!(levels, [Level::Ok, Level::Warning]);
}

#[test]
fn a_recovery_that_is_put_off_is_not_reminded_of() {
    let mut test = with_threshold();
    test.sample(95.0);
    assert_eq!(test.take_events().len(), 1);
    let well = r#"{"host":"web1","metrics":{"m":5}}"#;
    for _ in 0..(5 * 360) {
        under(&mut test, Load::ShareUsed, well).unwrap();
        test.wait(10 * SECOND);
    }
    assert!(test.take_events().is_empty());
    test.ingest(well);
    assert_eq!(test.take_events()[0].level, Level::Ok);
}

#[test]
fn a_recovery_that_was_put_off_waited_for_its_time_again() {
    let limit = |text: &str| Some(text.parse().unwrap());
    let rule = Rule { critical: limit("> 90"), clear_for: 5 * MINUTE, ..Rule::default() };
    let mut test = TestFleet::with_threshold("*", rule);
    test.sample(95.0).take_events();
    let well = r#"{"host":"web1","metrics":{"m":5}}"#;
    for _ in 0..31 {
        test.wait(10 * SECOND);
        under(&mut test, Load::ShareUsed, well).unwrap();
    }
    assert!(test.take_events().is_empty());
    test.wait(10 * SECOND).ingest(well);
    assert_eq!(test.take_events()[0].level, Level::Ok);
}

#[test]
fn new_names_of_metrics_in_each_datagram_were_alarms_without_end() {
    let mut test = with_threshold();
    let mut critical = 0;
    for round in 0..200 {
        let metrics: Vec<String> =
            (0..100).map(|number| format!(r#""m{round}_{number}":95"#)).collect();
        test.ingest(&format!(r#"{{"host":"web1","metrics":{{{}}}}}"#, metrics.join(",")));
        critical += test.take_events().len();
    }
    assert!(critical <= 512 + 600, "{critical}");
    assert_eq!(test.fleet.view("web1").unwrap().metrics.len(), 512);
    assert!(pause(&mut test)[0].contains("were not recorded"));
}

#[test]
fn connections_of_ever_new_names_are_sixteen() {
    let mut test = TestFleet::new();
    let shut = |n: usize| format!(r#"{{"host":"web1","connection":"c{n}","event":"shutdown"}}"#);
    for number in 0..500 {
        let beat = format!(r#"{{"host":"web1","connection":"c{number}"}}"#);
        let _ = test.try_ingest(beat.as_bytes());
        let _ = test.try_ingest(shut(number).as_bytes());
    }
    assert_eq!(test.titles().len(), 16);
}

#[test]
fn under_load_only_beats_are_taken_and_of_a_full_share_no_recovery() {
    let mut test = with_threshold();
    test.sample(5.0);
    for load in [Load::DiskBusy, Load::OutboxFull, Load::ShareUsed] {
        assert_eq!(under(&mut test, load, MESSAGE), Err(Rejection::Busy));
        assert_eq!(under(&mut test, load, SHUTDOWN), Err(Rejection::Busy));
        let boot = r#"{"host":"web1","event":"boot"}"#;
        assert_eq!(under(&mut test, load, boot), Err(Rejection::Busy));
        under(&mut test, load, r#"{"host":"web1","metrics":{"m":95}}"#).unwrap();
        assert_eq!(test.take_events().len(), 1, "an alarm is taken");
        under(&mut test, load, r#"{"host":"web1","metrics":{"m":5}}"#).unwrap();
        let recovered = usize::from(load != Load::ShareUsed);
        assert_eq!(test.take_events().len(), recovered, "{load:?}");
        test.sample(5.0).take_events();
    }
    let told = "6 messages of web1 (6) were refused: too many wait to be sent already";
    assert_eq!(pause(&mut test), [told], "the disk is told of otherwise");
}

#[test]
fn a_datagram_that_is_not_believed_uses_up_nothing_and_is_not_told_as_refused() {
    let mut config = config();
    let secret = crate::secret::Secret::new("k");
    config.hosts.get_mut("web1").unwrap().key = Some(secret);
    let mut test = TestFleet::with(config);
    for _ in 0..100 {
        assert_eq!(test.try_ingest(MESSAGE.as_bytes()), Err(Rejection::Unsigned));
        assert_eq!(under(&mut test, Load::OutboxFull, MESSAGE), Err(Rejection::Unsigned));
    }
    assert_eq!(pause(&mut test), [""; 0]);
}

#[test]
fn what_is_not_told_yet_outlives_a_reload_and_is_told_at_the_stop() {
    let mut test = TestFleet::new();
    (0..70).for_each(|_| drop(test.try_ingest(MESSAGE.as_bytes())));
    test.config.hosts.insert("web2".into(), HostSettings::default());
    test.config.threshold_sets.insert("default".into(), set("x", Rule::default()));
    test.fleet.reconfigure(test.config.clone(), test.now);
    assert_eq!(test.try_ingest(MESSAGE.as_bytes()), Err(Rejection::TooManyMessages));
    let told = test.fleet.limits.due(test.now, true);
    assert!(matches!(told[0].kind, EventKind::TooManyMessages { count: 11, .. }));
    test.wait(DAY);
    assert!(test.try_ingest(MESSAGE.as_bytes()).is_ok());
}

#[test]
fn a_boot_that_was_put_off_for_long_was_not_told_or_that_of_another_machine() {
    let mut test = TestFleet::new();
    test.ingest(r#"{"host":"web1","boot_id":"a","uptime":900000}"#).wait(20 * SECOND);
    for uptime in (10..3600).step_by(10) {
        let beat = format!(r#"{{"host":"web1","boot_id":"b","uptime":{uptime}}}"#);
        under(&mut test, Load::ShareUsed, &beat).unwrap();
        test.wait(10 * SECOND);
    }
    assert_eq!(test.titles(), [""; 0]);
    test.ingest(r#"{"host":"web1","boot_id":"b","uptime":3600}"#);
    let event = test.take_events().remove(0);
    let EventKind::Booted { gone, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!(gone, Some(20 * SECOND));
    test.ingest(r#"{"host":"web1","boot_id":"c","uptime":7200}"#);
    assert_eq!(test.titles(), [""; 0], "another machine, as ever");
}

#[test]
fn who_was_back_an_hour_ago_was_said_to_have_been_silent_for_ten_seconds() {
    let mut test = TestFleet::new();
    test.beat_over("web1", "a").beat_over("web1", "b").wait(10 * MINUTE).take_events();
    let beat = |name: &str| format!(r#"{{"host":"web1","connection":"{name}"}}"#);
    for _ in 0..360 {
        under(&mut test, Load::ShareUsed, &beat("a")).unwrap();
        test.wait(10 * SECOND);
    }
    for (name, silent) in [("b", 70 * MINUTE), ("a", 10 * MINUTE)] {
        test.ingest(&beat(name));
        let event = test.take_events().remove(0);
        let EventKind::Back { gone, .. } = event.kind else { panic!("{event:?}") };
        assert_eq!(gone, silent, "{name}");
    }
    test.wait(20 * MINUTE).take_events();
    test.ingest(&beat("a"));
    let event = test.take_events().remove(0);
    assert!(matches!(event.kind, EventKind::Back { gone, .. } if gone == 20 * MINUTE), "{event:?}");
}

#[test]
fn a_new_interval_that_came_with_a_boot_that_is_put_off_was_a_false_alarm() {
    let mut test = TestFleet::new();
    test.ingest(r#"{"host":"web1","boot_id":"a","interval":10}"#);
    let beat = r#"{"host":"web1","boot_id":"b","interval":3600}"#;
    under(&mut test, Load::ShareUsed, beat).unwrap();
    assert_eq!(test.wait(HOUR).titles(), [""; 0]);
}

#[test]
fn what_was_put_off_before_is_not_said_of_the_next_silence() {
    let mut test = TestFleet::new();
    test.beat("web1").wait(10 * MINUTE).take_events();
    under(&mut test, Load::ShareUsed, r#"{"host":"web1"}"#).unwrap();
    test.ingest(SHUTDOWN).wait(HOUR).take_events();
    test.beat("web1");
    let event = test.take_events().remove(0);
    assert!(matches!(event.kind, EventKind::Back { gone, .. } if gone >= HOUR), "{event:?}");
    assert!(test.fleet.hosts.iter().all(|host| host.put_off.is_none()));
}
