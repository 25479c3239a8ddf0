//! What changes again and again: told once, and once more when it has settled.

use super::*;
use crate::notify::calm::FlapSettings;

const QUIET: Duration = Duration::from_secs(15 * 60);

fn flapping() -> TestOverlay {
    TestOverlay::with(CalmSettings::default())
}

impl TestOverlay {
    /// A connection goes down and up again so often, every two minutes, and stays up for two more.
    fn flap(&mut self, times: usize) -> &mut TestOverlay {
        for _ in 0..times {
            self.overdue("web1").wait(2 * MINUTE).back("web1").wait(2 * MINUTE);
        }
        self
    }

    /// It flaps, is up, and what was told of that is forgotten here.
    fn flapped(&mut self) -> &mut TestOverlay {
        self.flap(3);
        self.told.clear();
        self.messages.clear();
        self
    }

    fn flap_rows(&self) -> usize {
        self.rows(Table::Calm).iter().filter(|(key, _)| key.starts_with("flap/")).count()
    }

    fn reconfigure(&mut self, flapping: Option<FlapSettings>) -> &mut TestOverlay {
        self.settings.flapping = flapping;
        self.overlay.calm.reconfigure(self.settings.clone());
        self.turn()
    }

    fn level_told(&self, incident: &Incident, channel: &str) -> Option<Level> {
        Some(self.outbox.open_incident(incident)?.told().get(channel)?.level)
    }
}

fn ipv4() -> Incident {
    Incident::connection("web1", "ipv4")
}

/// On both channels.
fn both(title: &str) -> [String; 2] {
    [format!("mail {title}"), format!("pager {title}")]
}

#[test]
fn a_host_that_flaps_for_an_hour_is_five_changes_one_flapping_and_one_settled() {
    let mut test = flapping();
    test.flap(15);
    let mut expected: Vec<String> = Vec::new();
    for _ in 0..2 {
        expected.extend(OVERDUE.map(str::to_owned));
        expected.extend(BACK.map(str::to_owned));
    }
    expected.extend(OVERDUE.map(str::to_owned));
    expected.extend(both("web1 ipv4 is flapping: 6 changes in 10 min"));
    assert_eq!(test.told(), expected);
    test.wait(QUIET - 2 * MINUTE - SECOND);
    assert_eq!(test.told(), NONE);
    test.wait(SECOND);
    assert_eq!(test.told(), both("web1 ipv4 has settled: up (30 changes in 58 min)"));
    assert_eq!(test.calm_rows(), 0);
    let changes = test.history.iter().filter(|(kind, _)| matches!(*kind, "overdue" | "back"));
    let (told, held): (Vec<_>, Vec<_>) = changes.partition(|(_, by)| by.is_empty());
    assert_eq!((told.len(), held.len()), (5, 25), "each of them is in the history");
    assert!(held.iter().all(|(_, by)| *by == ["flapping"]));
    test.wait(2 * HOUR).overdue("web1");
    assert_eq!(test.told(), OVERDUE, "afterwards as ever");
}

#[test]
fn a_metric_flaps_and_settles_with_its_level_and_its_value() {
    for (last, title, pager) in [
        (Level::Ok, "web1 - m has settled: OK = 1.0 (8 changes in 7 min)", true),
        (Level::Warning, "web1 - m has settled: WARNING = 1.0 (7 changes in 6 min)", true),
        (Level::Critical, "web1 - m has settled: CRITICAL = 1.0 (8 changes in 7 min)", true),
        // What was sent of it is known, and how it stands is not.
        (Level::Info, "web1 - m has settled: missing (8 changes in 7 min)", true),
    ] {
        let mut test = flapping();
        let levels = [Level::Warning, Level::Critical, Level::Warning, Level::Ok];
        for level in levels.iter().chain(&levels[..3]) {
            test.metric(*level).wait(MINUTE);
        }
        let told = test.told();
        let text = "mail web1 - m is flapping: 6 changes in 5 min";
        assert_eq!(told.iter().filter(|title| *title == text).count(), 1, "{told:?}");
        assert_eq!(test.messages.last().unwrap().level, Level::Critical, "the worst of them");
        match last {
            Level::Warning => &mut test,
            Level::Info => test.missing(),
            level => test.metric(level),
        };
        test.wait(QUIET);
        let mut expected = vec![format!("mail {title}")];
        expected.extend(pager.then(|| format!("pager {title}")));
        assert_eq!(test.told(), expected, "{last:?}");
        assert_eq!(test.calm_rows(), 0);
    }
}

#[test]
fn fewer_changes_or_slower_ones_are_told_one_by_one() {
    let mut test = flapping();
    test.flap(2).overdue("web1");
    assert_eq!(test.told().len(), 10, "five changes on two channels");
    test.wait(30 * MINUTE).back("web1");
    assert_eq!(test.told(), BACK, "the first ones are too old");
    let mut test = flapping();
    for _ in 0..20 {
        test.overdue("web1").wait(6 * MINUTE + SECOND).back("web1").wait(6 * MINUTE + SECOND);
    }
    assert_eq!(test.told().len(), 80);
    // At most so many minutes lie between the first and the last.
    let mut test = flapping();
    test.flap(2).overdue("web1").wait(14 * MINUTE).back("web1");
    assert_eq!(test.told().len(), 12);
    let mut test = flapping();
    test.overdue("web1").wait(22 * MINUTE).back("web1").flap(2);
    assert_eq!(test.told()[10..], both("web1 ipv4 is flapping: 6 changes in 28 min"));
}

#[test]
fn what_says_the_same_again_is_no_change() {
    let mut test = flapping();
    for _ in 0..20 {
        test.metric(Level::Warning).threshold("web1", Level::Warning, true).wait(SECOND);
    }
    assert!(test.told().iter().all(|title| *title == of_metric("WARNING")));
}

#[test]
fn connections_and_metrics_flap_each_for_itself() {
    let mut test = flapping();
    for _ in 0..2 {
        test.overdue("web1").metric(Level::Warning).overdue("web2");
        test.back("web1").metric(Level::Ok).back("web2");
    }
    test.overdue("web1");
    assert!(!test.told().iter().any(|title| title.contains("flapping")));
    test.back("web1").metric(Level::Warning);
    let mut expected = both("web1 ipv4 is flapping: 6 changes in 0 s").to_vec();
    expected.push(of_metric("WARNING"));
    assert_eq!(test.told(), expected);
}

#[test]
fn what_is_no_connection_and_no_metric_does_not_flap() {
    let mut test = flapping();
    for number in 0..10 {
        test.plan(BackupNotice::Report, Level::Critical, &format!("plan 4: {number} failed"));
        test.not_back("web1");
        let kind = EventKind::Returned { host: "web1".into(), gone: HOUR };
        test.accept(event(test.now, kind));
    }
    assert_eq!(test.told().len(), 10 + 20 + 20);
    assert_eq!(test.calm_rows(), 0);
}

#[test]
fn it_settles_as_it_stands_and_what_is_told_later_fits() {
    for shutdown in [false, true] {
        let mut test = flapping();
        test.flapped();
        if shutdown {
            test.shutdown("web1", "ipv4");
        } else {
            test.overdue("web1");
        }
        test.wait(QUIET);
        let state = if shutdown { "shutdown" } else { "overdue" };
        let title = format!("web1 ipv4 has settled: {state} (7 changes in 12 min)");
        assert_eq!(test.told(), both(&title), "{state}: to whoever was told, whatever the level");
        let level = if shutdown { Level::Warning } else { Level::Critical };
        assert_eq!(test.messages.last().unwrap().level, level);
        assert_eq!(test.level_told(&ipv4(), "pager"), Some(level));
        assert_eq!((test.calm_rows(), test.outbox.open_incidents().count()), (0, 1));
        // What it stands for is no news afterwards.
        test.silence("web1", HOUR).back("web1");
        assert_eq!(test.told(), BACK, "its end, within the silence");
        test.wait(2 * HOUR);
        assert_eq!((test.told(), test.calm_rows()), (vec![], 0));
    }
    let mut test = flapping();
    for level in [Level::Warning, Level::Ok].iter().cycle().take(7) {
        test.metric(*level);
    }
    test.wait(QUIET).told();
    test.silence("web1", HOUR).metric(Level::Ok);
    assert_eq!(test.told(), [of_metric("OK")]);
    test.metric(Level::Warning).wait(2 * HOUR);
    assert_eq!(test.told(), [of_metric("WARNING")], "the end was told, and this is news");
}

#[test]
fn a_state_that_was_told_as_settled_is_no_news_at_the_end_of_a_silence() {
    let mut test = flapping();
    for level in [Level::Critical, Level::Warning].iter().cycle().take(8) {
        test.metric(*level);
    }
    test.wait(QUIET).told();
    test.silence("web1", HOUR).metric(Level::Critical).metric(Level::Warning).wait(2 * HOUR);
    assert_eq!(test.told(), NONE);
    test.threshold("web1", Level::Warning, true);
    assert_eq!(test.told(), [of_metric("WARNING")]);
    assert!(test.deliveries.last().unwrap().is_reminder, "of what the settled message said");
}

#[test]
fn reminders_of_what_flaps_are_dropped_and_one_that_waits_is_taken_out() {
    let mut test = flapping();
    for level in [Level::Warning, Level::Ok].iter().cycle().take(5) {
        test.metric(*level);
    }
    test.told();
    test.works = false;
    test.threshold("web1", Level::Warning, true);
    assert_eq!(test.outbox.len(), 1);
    test.metric(Level::Ok);
    assert_eq!(test.outbox.len(), 1, "the reminder is out, and the message is in");
    test.works = true;
    test.metric(Level::Warning);
    assert_eq!(test.told(), ["mail web1 - m is flapping: 6 changes in 0 s"]);
    let before = test.history.len();
    test.threshold("web1", Level::Warning, true).wait(MINUTE);
    test.threshold("web1", Level::Warning, true);
    assert_eq!((test.told(), test.history.len()), (vec![], before));
    test.wait(QUIET);
    assert_eq!(test.told(), ["mail web1 - m has settled: WARNING = 1.0 (7 changes in 0 s)"]);
    test.threshold("web1", Level::Warning, true);
    assert_eq!(test.told(), [of_metric("WARNING")]);
}

#[test]
fn what_becomes_worse_than_was_told_of_it_is_told_and_no_other_change_is() {
    let mut test = flapping();
    for level in [Level::Warning, Level::Ok].iter().cycle().take(6) {
        test.metric(*level).wait(MINUTE);
    }
    assert_eq!(test.told().pop().unwrap(), "mail web1 - m is flapping: 6 changes in 5 min");
    test.metric(Level::Warning).wait(MINUTE);
    assert_eq!(test.told(), NONE);
    test.metric(Level::Critical).wait(MINUTE);
    assert_eq!(test.told(), both("web1 - m is flapping: 8 changes in 7 min"), "the pager, too");
    assert_eq!(test.messages.last().unwrap().level, Level::Critical);
    for level in [Level::Ok, Level::Critical, Level::Warning, Level::Critical] {
        test.metric(level).wait(MINUTE);
    }
    assert_eq!(test.told(), NONE);
    test.wait(QUIET - MINUTE);
    assert_eq!(test.told(), both("web1 - m has settled: CRITICAL = 1.0 (12 changes in 11 min)"));
}

#[test]
fn a_boot_loses_only_the_ends_of_what_flaps() {
    let mut test = flapping();
    test.routes.channels.get_mut("pager").unwrap().min_level = Level::Warning;
    test.flapped();
    test.overdue_over("web1", "vpn", false).told();
    test.overdue("web1").booted("web1", true, &["ipv4", "vpn"]);
    assert_eq!(test.told(), both("web1 booted"), "the pager hears that vpn is back");
    assert_eq!(test.history.last().unwrap(), &("booted", vec!["flapping".to_owned()]));
    let open: Vec<_> = test.outbox.open_incidents().map(|open| open.incident.clone()).collect();
    assert_eq!(open, [ipv4()]);
    test.wait(QUIET);
    assert_eq!(test.told(), both("web1 ipv4 has settled: up (8 changes in 12 min)"));
    // And the sixth change may be a boot.
    let mut test = flapping();
    test.flap(2).overdue("web1").told();
    test.booted("web1", true, &["ipv4"]);
    let mut expected = vec!["mail web1 booted".to_owned()];
    expected.extend(both("web1 ipv4 is flapping: 6 changes in 8 min"));
    let mut told = test.told();
    // A channel is a queue of its own.
    told.sort_unstable_by_key(|title| title.starts_with("pager"));
    assert_eq!(told, expected);
}

/// Silences and windows of an hour from now on.
fn flapping_overlays() -> Vec<(&'static str, TestOverlay)> {
    let mut all = overlays();
    for (_, test) in &mut all {
        test.reconfigure(Some(FlapSettings::default()));
    }
    all
}

#[test]
fn within_a_silence_nobody_is_told_and_the_changes_count() {
    for (name, mut test) in flapping_overlays() {
        test.flap(5).wait(QUIET);
        let kinds: Vec<_> = test.history.iter().map(|(kind, _)| *kind).collect();
        assert!(kinds.contains(&"flapping") && kinds.contains(&"settled"), "{name}: {kinds:?}");
        test.wait(2 * HOUR);
        assert_eq!((test.told(), test.calm_rows()), (vec![], 0), "{name}: settled within it");
    }
    for (name, mut test) in flapping_overlays() {
        test.flap(14).wait(4 * MINUTE + PATIENCE - SECOND);
        assert_eq!(test.told(), NONE, "{name}");
        assert_eq!(test.held(), 1);
        test.wait(2 * SECOND);
        assert_eq!(test.told(), both("web1 ipv4 is flapping: 6 changes in 10 min"), "{name}");
        test.wait(QUIET);
        assert_eq!(test.told(), both("web1 ipv4 has settled: up (28 changes in 54 min)"), "{name}");
        assert_eq!(test.calm_rows(), 0, "{name}");
    }
}

#[test]
fn whoever_was_told_before_a_silence_hears_how_it_settled() {
    for (name, mut test) in flapping_overlays() {
        let mut before = TestOverlay::new();
        before.overdue("web1");
        test.outbox = before.outbox;
        test.disk.extend(before.disk);
        test.wait(MINUTE).back("web1");
        assert_eq!(test.told(), BACK, "{name}: its end, at once");
        test.flap(3);
        assert_eq!(test.told(), NONE, "{name}");
        test.wait(QUIET);
        assert_eq!(test.told(), NONE, "{name}: nobody was told of these");
        test.wait(2 * HOUR);
        assert_eq!((test.told(), test.calm_rows()), (vec![], 0), "{name}");
    }
    // It flapped before the silence, and settles within it.
    let mut test = flapping();
    test.flapped().silence("web1", HOUR).flap(2).wait(QUIET);
    assert_eq!(test.told(), both("web1 ipv4 has settled: up (10 changes in 18 min)"));
    let mut test = flapping();
    test.flapped().silence("web1", HOUR).overdue("web1").wait(QUIET);
    assert_eq!((test.told(), test.held()), (vec![], 1), "it is still wrong");
    test.wait(HOUR);
    assert_eq!(test.told(), both("web1 ipv4 has settled: overdue (7 changes in 12 min)"));
    assert_eq!(test.calm_rows(), 0);
}

#[test]
fn unless_lets_the_message_through() {
    let mut test = TestOverlay::in_window("--all");
    test.settings.windows[0].unless = Some(Level::Critical);
    test.settings.flapping = Some(FlapSettings::default());
    test.overlay.calm.reconfigure(test.settings.clone());
    for level in [Level::Warning, Level::Ok].iter().cycle().take(7) {
        test.metric(*level);
    }
    assert_eq!(test.told(), NONE);
    test.metric(Level::Critical);
    assert_eq!(test.told(), both("web1 - m is flapping: 8 changes in 0 s"));
    test.metric(Level::Ok).wait(QUIET);
    assert_eq!(test.told(), both("web1 - m has settled: OK = 1.0 (9 changes in 0 s)"));
}

#[test]
fn a_hold_of_the_first_changes_does_not_outlive_the_message() {
    // The silence has ended, and what it held back waits for its patience.
    let mut test = flapping();
    test.silence("web1", 5 * MINUTE);
    test.flap(1).overdue("web1").wait(MINUTE + SECOND);
    assert_eq!((test.told(), test.held()), (vec![], 1));
    test.back("web1").overdue("web1").back("web1");
    let mut expected = OVERDUE.map(str::to_owned).to_vec();
    expected.extend(both("web1 ipv4 is flapping: 6 changes in 5 min 1 s"));
    assert_eq!(test.told(), expected);
    assert_eq!(test.held(), 1, "what flaps, and nothing else");
    test.wait(QUIET);
    assert_eq!(test.told(), both("web1 ipv4 has settled: up (6 changes in 5 min 1 s)"));
}

#[test]
fn a_restart_loses_nothing_of_it() {
    for boot in [false, true] {
        let mut test = flapping();
        let again = |test: &mut TestOverlay| {
            if boot {
                test.reboot(Duration::ZERO, None);
            } else {
                test.restart();
            }
        };
        again(&mut test);
        for _ in 0..3 {
            test.overdue("web1");
            again(&mut test);
            test.wait(2 * MINUTE).back("web1");
            again(&mut test);
            test.wait(2 * MINUTE);
        }
        assert_eq!(test.told()[10..], both("web1 ipv4 is flapping: 6 changes in 10 min"), "{boot}");
        test.overdue("web1").wait(QUIET / 3);
        again(&mut test);
        test.wait(QUIET / 3);
        again(&mut test);
        test.wait(QUIET / 3 - SECOND);
        assert_eq!(test.told(), NONE, "{boot}");
        test.wait(2 * SECOND);
        let title = "web1 ipv4 has settled: overdue (7 changes in 12 min)";
        assert_eq!(test.told(), both(title), "{boot}");
        assert_eq!(test.calm_rows(), 0, "{boot}");
    }
}

#[test]
fn what_settled_while_the_daemon_was_down_is_told_after_its_patience() {
    let mut test = flapping();
    test.flapped().overdue("web1");
    test.now = test.now.later(2 * HOUR);
    test.restart().wait(PATIENCE / 2);
    test.restart().wait(PATIENCE / 2 - SECOND);
    assert_eq!(test.told(), NONE);
    test.wait(2 * SECOND);
    assert_eq!(test.told(), both("web1 ipv4 has settled: overdue (7 changes in 12 min)"));
    // It is back by then: that is how it stands.
    let mut test = flapping();
    test.flapped().overdue("web1");
    test.now = test.now.later(2 * HOUR);
    test.restart().wait(PATIENCE / 2).back("web1");
    let told = test.told();
    assert!(told[0].starts_with("mail web1 ipv4 has settled: up (8 changes in 2 h"), "{told:?}");
    test.overdue("web1");
    assert_eq!(test.told(), OVERDUE, "it does not flap any more");
    test.back("web1").wait(HOUR);
    assert_eq!(test.calm_rows(), 0);
}

#[test]
fn a_clock_that_was_lost_does_not_keep_it_for_ever() {
    for wall in [Wall(0), Wall(BEGIN.wall.0 - 1_000)] {
        let mut test = flapping();
        test.flapped().overdue("web1").reboot(MINUTE, Some(wall)).wait(QUIET + SECOND);
        assert_eq!(test.told().len(), 2, "{wall}");
        assert_eq!(test.calm_rows(), 0, "{wall}");
    }
    let mut test = flapping();
    test.flapped();
    test.now.wall.0 += 86_400_000;
    test.wait(QUIET);
    assert_eq!(test.told().len(), 2, "a wall clock that is set moves nothing");
}

#[test]
fn without_flapping_it_settles_at_once_and_other_numbers_count_from_then_on() {
    let mut test = flapping();
    test.flapped().overdue("web1").reconfigure(None);
    assert_eq!(test.told(), both("web1 ipv4 has settled: overdue (7 changes in 12 min)"));
    assert_eq!(test.calm_rows(), 0);
    test.back("web1").flap(5);
    assert_eq!(test.told().len(), 2 + 20, "as ever");
    assert_eq!(test.calm_rows(), 0);
    let few = FlapSettings { changes: 3, within: HOUR, quiet: MINUTE };
    let mut test = flapping();
    test.flap(1).reconfigure(Some(few)).overdue("web1");
    assert_eq!(test.told()[4..], both("web1 ipv4 is flapping: 3 changes in 4 min"));
    test.wait(MINUTE);
    assert_eq!(test.told().len(), 2);
    let mut test = flapping();
    test.flapped().reconfigure(Some(few));
    assert_eq!(test.told().len(), 2, "it has been quiet for two minutes");
    let mut test = flapping();
    test.flapped().wait(QUIET - 3 * MINUTE);
    test.reconfigure(Some(FlapSettings { quiet: 2 * QUIET, ..FlapSettings::default() }));
    test.wait(QUIET + MINUTE - SECOND);
    assert_eq!(test.told(), NONE);
    test.wait(SECOND);
    assert_eq!(test.told().len(), 2);
    // A daemon that starts with other settings.
    let mut test = flapping();
    test.flapped();
    test.settings.flapping = None;
    test.restart().wait(PATIENCE);
    assert_eq!((test.told().len(), test.calm_rows()), (2, 0));
}

fn forgotten() -> EventKind {
    let connection = ForgottenConnection {
        name: "ipv4".into(),
        last_seen: Wall(0),
        silent_for: Some(HOUR),
        was_last: true,
        closes: vec![ipv4()],
    };
    EventKind::Forgotten { host: "web1".into(), connection }
}

#[test]
fn what_ends_without_an_event_flaps_no_more() {
    let mut test = flapping();
    test.flapped().overdue("web1");
    test.outbox.close_silently(&ipv4());
    test.overlay.calm.close_silently(&ipv4());
    test.wait(HOUR);
    assert_eq!((test.told(), test.calm_rows()), (vec![], 0));
    let mut test = flapping();
    test.flapped().overdue("web1");
    test.accept(event(test.now, forgotten())).wait(HOUR);
    assert_eq!(test.told(), both("web1 ipv4 is forgotten"), "to whoever was told that it flaps");
    assert_eq!(test.calm_rows(), 0);
}

#[test]
fn what_ends_in_the_turn_in_which_it_begins_to_flap_is_not_told_as_flapping() {
    for event_of_end in [None, Some(forgotten())] {
        let mut test = flapping();
        test.flap(2).overdue("web1").told();
        let kind = EventKind::Shutdown { host: "web1".into(), connection: "ipv4".into() };
        test.accept_one(&event(test.now, kind));
        match event_of_end {
            Some(kind) => test.accept_one(&event(test.now, kind)),
            None => {
                test.outbox.close_silently(&ipv4());
                test.overlay.calm.close_silently(&ipv4());
            }
        }
        test.wait(HOUR);
        let told = test.told();
        assert!(!told.iter().any(|title| title.contains("flapping")), "{told:?}");
        assert_eq!((test.outbox.open_incidents().count(), test.calm_rows()), (0, 0));
    }
}

#[test]
fn of_what_nobody_hears_nothing_is_kept() {
    let mut test = flapping();
    for _ in 0..10 {
        test.overdue("quiet").back("quiet").overdue("stranger").back("stranger");
    }
    assert_eq!((test.told(), test.flap_rows()), (vec![], 0));
    for level in [Level::Warning, Level::Ok].iter().cycle().take(6) {
        test.threshold("quiet", *level, false);
    }
    assert_eq!(test.told().pop().unwrap(), "mail quiet - m is flapping: 6 changes in 0 s");
}

#[test]
fn what_was_over_before_it_was_told_counts_only_while_it_flaps() {
    let untold = |test: &mut TestOverlay| {
        for kind in [
            EventKind::Shutdown { host: "web1".into(), connection: "ipv4".into() },
            EventKind::Back { host: "web1".into(), connection: "ipv4".into(), gone: HOUR },
        ] {
            test.accept(Event { untold: true, ..event(test.now, kind) });
        }
    };
    let mut test = flapping();
    for _ in 0..10 {
        untold(&mut test);
    }
    assert_eq!(test.flap_rows(), 0);
    test.flapped().wait(QUIET / 2);
    untold(&mut test);
    test.wait(QUIET - SECOND);
    assert_eq!(test.told(), NONE);
    test.wait(SECOND);
    assert_eq!(test.told().len(), 2);
}

#[test]
fn a_row_that_cannot_be_read_holds_nothing_back_and_is_told() {
    let mut test = flapping();
    test.flapped();
    let key = test.rows(Table::Calm).pop().unwrap().0;
    let sound = test.disk[&(Table::Calm, key.clone())].clone();
    let text = String::from_utf8(sound).unwrap();
    for damaged in [
        "{}".to_owned(),
        text.replace("\"count\"", "\"more\":1,\"count\""),
        text.replace("\"up\"", "\"sideways\""),
        "{\"changes\":[],\"state\":\"up\"}".into(),
    ] {
        let mut test = flapping();
        test.disk.insert((Table::Calm, key.clone()), damaged.clone().into_bytes());
        test.restart();
        assert_eq!(test.told(), both("hbd could not read what it held back"), "{damaged}");
        assert_eq!(test.calm_rows(), 0);
        test.overdue("web1");
        assert_eq!(test.told(), OVERDUE);
    }
    for key in ["flap/x", "flap/", "flap/ {\"connection\":{\"host\":\"a\",\"connection\":\"b\"}}"] {
        let mut test = flapping();
        test.disk.insert((Table::Calm, key.to_owned()), text.clone().into_bytes());
        test.restart();
        assert_eq!(test.told().len(), 2, "{key}");
        assert_eq!(test.calm_rows(), 0, "{key}");
    }
}

#[test]
fn what_flaps_is_shown_with_a_name_and_an_end() {
    let mut test = flapping();
    test.flapped().overdue("web1").wait(5 * MINUTE);
    let calm = &test.overlay.calm;
    let view = calm.held_view(None, test.now);
    assert_eq!((view.held.len(), view.count), (1, 1));
    let one = &view.held[0];
    assert_eq!(one.text, "web1 ipv4 is flapping: 7 changes in 12 min");
    assert_eq!((one.subject.as_str(), one.level), ("host web1", Level::Critical));
    assert_eq!((one.since, one.out_at), (BEGIN.wall, None));
    let reason = &one.reasons[0];
    assert_eq!((reason.why, reason.id.as_str()), ("flapping", "flapping"));
    assert_eq!(reason.until, Some(test.now.wall + 10 * MINUTE));
    assert_eq!(reason.channels, ["mail", "pager"]);
    assert_eq!(calm.held_incident(&ipv4(), test.now).as_ref(), Some(one));
    assert_eq!(calm.stats(test.now).held, [0, 0, 0, 0, 0, 1]);
    // Beside a silence that holds the message back.
    let mut test = flapping();
    test.silence("web1", HOUR).flap(3);
    let calm = &test.overlay.calm;
    let view = calm.held_view(None, test.now);
    let reasons: Vec<_> = view.held[0].reasons.iter().map(|one| one.why).collect();
    assert_eq!((view.count, reasons), (1, vec!["silence", "flapping"]));
    assert_eq!(calm.stats(test.now).held, [1, 0, 0, 0, 0, 1]);
    test.wait(QUIET);
    let ended = test.overlay.calm.stats(test.now).held;
    assert_eq!(ended, [0; 6]);
}

#[test]
fn a_change_costs_one_row_in_the_commit_of_its_event() {
    let mut test = flapping();
    let kind = EventKind::Shutdown { host: "web1".into(), connection: "ipv4".into() };
    test.accept_one(&event(test.now, kind));
    let writes = test.overlay.calm.take_writes();
    assert_eq!(writes.len(), 1);
    test.write(writes);
    test.commit();
    test.said("web1", "x").plan(BackupNotice::Report, Level::Critical, "plan 4: failed");
    assert_eq!(test.flap_rows(), 1, "of others none");
    assert_eq!(test.overlay.calm.every_row().len(), test.rows(Table::Calm).len());
    // Six changes and the message, at one turn: they are one commit.
    let mut test = flapping();
    for kind in 0..6 {
        let (host, connection) = ("web1".to_owned(), "ipv4".to_owned());
        let kind = match kind % 2 {
            0 => EventKind::Shutdown { host, connection },
            _ => EventKind::Back { host, connection, gone: HOUR },
        };
        test.accept_one(&event(test.now, kind));
    }
    assert!(test.disk.is_empty());
    test.turn();
    assert!(test.told().contains(&"mail web1 ipv4 is flapping: 6 changes in 0 s".to_owned()));
}

#[test]
fn what_changed_once_is_forgotten_in_time_and_in_few_commits() {
    let mut test = flapping();
    test.works = false;
    for number in 0..2_500 {
        let host = format!("h{number}");
        let kind = EventKind::Threshold {
            host,
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level: Level::Warning,
            since: Wall(0),
            reminder: false,
        };
        test.accept_one(&event(test.now, kind));
        test.now = test.now.later(Duration::from_millis(10));
    }
    test.commit();
    assert_eq!(test.flap_rows(), 2_500);
    let mut wakes = 0;
    while let Some(at) = test.overlay.calm.next_wake(test.now) {
        test.now = test.now.later(at.since(test.now.mono).max(Duration::from_millis(1)));
        test.overlay.calm.due(test.now);
        let writes = test.overlay.calm.take_writes();
        assert!(writes.len() <= 1_000);
        test.write(writes);
        wakes += 1;
    }
    assert_eq!(test.flap_rows(), 0);
    assert!(test.now.mono.since(BEGIN.mono) < 34 * MINUTE, "{:?}", test.now);
    assert!(wakes < 8, "{wakes}");
}

#[test]
fn the_messages_hang_on_the_alarm() {
    let mut test = flapping();
    test.flap(2).overdue("web1");
    test.try_acknowledge("web1/ipv4", None).unwrap();
    test.back("web1").overdue("web1").wait(QUIET);
    let messages: Vec<_> = test.messages.iter().map(|one| one.thread.as_str()).collect();
    assert!(messages.iter().all(|thread| *thread == "web1 ipv4"), "{messages:?}");
    let last = test.deliveries.last().unwrap();
    assert_eq!(last.opens.as_ref(), Some(&ipv4()));
    let acknowledged =
        |test: &TestOverlay| test.outbox.open_incident(&ipv4()).unwrap().acknowledged.is_some();
    assert!(acknowledged(&test), "it is seen, and no worse than it was");
    test.back("web1");
    assert_eq!(test.deliveries.last().unwrap().closes, [ipv4()]);
}

#[test]
fn a_channel_that_was_down_hears_both_in_the_end() {
    let mut test = flapping();
    test.works = false;
    test.flap(4).wait(QUIET);
    test.works = true;
    test.wait(MINUTE);
    let told = test.told();
    assert_eq!(told.len(), 14, "{told:?}");
    assert!(told.last().unwrap().contains("has settled: up (8 changes in 14 min)"));
    assert_eq!(test.outbox.open_incidents().count(), 0);
}
