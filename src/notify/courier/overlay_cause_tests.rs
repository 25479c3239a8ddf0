//! How parents that are down, and storms, hold back what they explain.

use super::*;
use crate::event::StormEvent;
use crate::notify::text::{TextLimit, TextUnit};
use crate::view::calm::HeldView;

const BEHIND: [&str; 1] = ["router"];

impl TestOverlay {
    /// With hosts that others are reached through.
    fn with_parents() -> TestOverlay {
        let mut test = TestOverlay::new();
        test.add_parents();
        test
    }

    fn add_parents(&mut self) {
        for name in ["router", "switch"] {
            self.routes.hosts.insert(name.into(), HostRoute { watch: true, channels: None });
        }
    }

    pub(super) fn overdue_event(&self, host: &str, connection: &str, last: bool) -> Event {
        let kind = EventKind::Overdue {
            host: host.into(),
            connection: connection.into(),
            last_seen: Wall(0),
            promised: Wall(0),
            others_down: Vec::new(),
            others_count: 0,
            was_last_up: last,
            clock: None,
            behind_it: Vec::new(),
            behind_count: 0,
        };
        Event { patience: PATIENCE, ..event(self.now, kind) }
    }

    /// Falls silent behind these hosts.
    fn overdue_behind(&mut self, host: &str, parents: &[&str]) -> &mut TestOverlay {
        let behind = parents.iter().map(|name| name.to_string()).collect();
        self.accept(Event { behind, ..self.overdue_event(host, "ipv4", true) })
    }

    fn overdue_in_storm(&mut self, host: &str) -> &mut TestOverlay {
        self.accept(Event { in_storm: true, ..self.overdue_event(host, "ipv4", true) })
    }

    /// The host is heard again, and no longer down.
    fn up(&mut self, host: &str) -> &mut TestOverlay {
        self.parent_up(host);
        self.back(host)
    }

    fn storm(&mut self, count: usize) -> &mut TestOverlay {
        let (hosts, within) = (vec!["web1".into()], 20 * SECOND);
        self.accept(event(self.now, StormEvent::Began { hosts, count, of: 14, within }))
    }

    fn storm_over(&mut self, count: usize) -> &mut TestOverlay {
        let (silent, silent_count, gone) = (Vec::new(), 0, HOUR);
        self.accept(event(self.now, StormEvent::Ended { count, silent, silent_count, gone }))
    }

    /// What another one was told, this one was told, too.
    fn adopt_incidents(&mut self, before: &TestOverlay) {
        let open = before.disk.iter().filter(|((table, _), _)| *table == Table::Troubles);
        self.disk.extend(open.map(|(key, row)| (key.clone(), row.clone())));
        self.restart();
    }

    /// What is held back, and by which reasons from which channels.
    fn held_views(&self) -> Vec<HeldView> {
        self.overlay.calm.held_view(None, self.now).held
    }

    fn reasons(&self) -> Vec<String> {
        let views = self.held_views();
        let reasons = views.iter().flat_map(|view| &view.reasons);
        reasons.map(|one| format!("{} {}: {}", one.why, one.id, one.channels.join(" "))).collect()
    }

    fn detail(&self, title: &str) -> Option<String> {
        let message = self.messages.iter().rev().find(|message| message.title == title)?;
        let held = message.details.iter().find(|(label, _)| label == "held back");
        held.map(|(_, text)| text.clone())
    }
}

/// One way to hold back that web1 is silent, and its end an hour later.
struct Case {
    name: &'static str,
    test: TestOverlay,
    parents: &'static [&'static str],
    in_storm: bool,
    /// What the details say when it comes out.
    words: &'static str,
}

impl Case {
    /// The host's connection was told as overdue before the reason began.
    fn warn_before(&mut self) {
        let mut before = TestOverlay::new();
        before.overdue_over("web1", "ipv4", false);
        self.test.adopt_incidents(&before);
    }

    fn overdue(&mut self, last: bool) -> &mut TestOverlay {
        let behind = self.parents.iter().map(|name| name.to_string()).collect();
        let event = self.test.overdue_event("web1", "ipv4", last);
        self.test.accept(Event { behind, in_storm: self.in_storm, ..event })
    }

    /// An hour after the beginning every reason ends.
    fn end(&mut self) -> &mut TestOverlay {
        let end = BEGIN.later(HOUR);
        self.test.wait(end.mono.since(self.test.now.mono));
        assert_eq!(self.test.told(), NONE, "{}: nothing before the end", self.name);
        for parent in self.parents {
            self.test.up(parent);
        }
        if self.in_storm {
            self.test.storm_over(12);
        }
        self.test.told();
        &mut self.test
    }
}

/// Every cause, two at once, and with overlays that hold back from all.
fn cases() -> Vec<Case> {
    let case = |name, parents: &'static [&'static str], in_storm, words| {
        let mut test = TestOverlay::with_parents();
        if name == "window" {
            test = TestOverlay::in_window("web1");
            test.add_parents();
        }
        if name == "silence" {
            test.silence("web1", HOUR);
        }
        for parent in parents {
            test.overdue(parent);
        }
        if in_storm {
            test.storm(12);
        }
        test.told();
        Case { name, test, parents, in_storm, words }
    };
    let (router, storm) = ("while router was overdue", "while many hosts were silent together");
    vec![
        case("parent", &["router"], false, router),
        case("storm", &[], true, storm),
        case("parents", &["router", "switch"], false, "while switch was overdue"),
        case("both", &["router"], true, storm),
        case("silence", &["router"], false, router),
        case("window", &[], true, storm),
    ]
}

#[test]
fn whoever_was_told_why_is_not_told_of_the_host_itself() {
    for mut case in cases() {
        let name = case.name;
        case.overdue(true).wait(30 * MINUTE);
        assert_eq!((case.test.told(), case.test.held()), (vec![], 1), "{name}");
        let (kind, held_by) = case.test.history.last().unwrap();
        assert_eq!(*kind, "overdue");
        assert!(!held_by.is_empty(), "{name}");
        case.end();
        case.test.wait(PATIENCE - SECOND);
        assert_eq!(case.test.told(), NONE, "{name}: its beat may be on its way");
        case.test.wait(2 * SECOND);
        assert_eq!(case.test.told(), OVERDUE, "{name}");
        let words = case.test.detail("web1 ipv4 overdue").unwrap();
        assert!(words.ends_with(case.words), "{name}: {words}");
        case.test.back("web1");
        assert_eq!(case.test.told(), BACK, "{name}");
        assert_eq!(case.test.wait(HOUR).calm_rows(), 0, "{name}");
    }
}

#[test]
fn the_words_are_those_of_the_contract() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").overdue_behind("web1", &BEHIND).up("router").wait(PATIENCE);
    assert_eq!(test.detail("web1 ipv4 overdue").unwrap(), "while router was overdue");
    let mut test = TestOverlay::with_parents();
    test.overdue("router").storm(12).silence("web1", HOUR);
    let event = Event { in_storm: true, ..test.overdue_event("web1", "ipv4", true) };
    test.accept(Event { behind: vec!["router".into()], ..event });
    // All of it ends at once.
    test.parent_up("router");
    test.outbox.close_silently(&Incident::Storm);
    test.unsilence(SilenceSelection::All);
    test.wait(PATIENCE);
    assert_eq!(
        test.detail("web1 ipv4 overdue").unwrap(),
        "until 2027-01-15 08:00:00 UTC, by s1 of ann (kernel update), \
         and while router was overdue and many hosts were silent together"
    );
}

#[test]
fn a_host_that_is_back_in_time_was_never_told_of() {
    for back_after in [None, Some(Duration::ZERO), Some(PATIENCE - SECOND)] {
        for mut case in cases() {
            let name = case.name;
            case.overdue(true).wait(10 * MINUTE);
            match back_after {
                None => case.test.back("web1"),
                Some(after) => {
                    case.end();
                    case.test.wait(after).back("web1")
                }
            };
            case.test.wait(2 * HOUR);
            assert_eq!(case.test.told(), NONE, "{name} {back_after:?}");
            assert!(case.test.history.iter().any(|(kind, _)| *kind == "back"), "{name}");
            assert_eq!(case.test.calm_rows(), 0, "{name} {back_after:?}");
        }
    }
}

#[test]
fn what_was_told_before_ends_at_once_and_comes_out_only_if_it_differs() {
    for mut case in cases() {
        let name = case.name;
        case.warn_before();
        // Its newest state is held, at the level that was told.
        case.overdue(true).wait(MINUTE);
        assert_eq!((case.test.told(), case.test.held()), (vec![], 1), "{name}");
        case.overdue(false);
        case.end();
        case.test.wait(2 * PATIENCE);
        assert_eq!(case.test.told(), NONE, "{name}: as it was told to mail; no news to the pager");
        assert_eq!(case.test.calm_rows(), 0, "{name}");
        case.test.back("web1");
        assert_eq!(case.test.told(), [BACK[0]], "{name}: to whoever was told");
    }
}

#[test]
fn a_worse_state_than_was_told_comes_out() {
    for mut case in cases() {
        let name = case.name;
        case.warn_before();
        case.overdue(true).wait(MINUTE);
        case.end();
        case.test.wait(PATIENCE);
        assert_eq!(case.test.told(), OVERDUE, "{name}");
        case.test.back("web1").wait(HOUR);
        assert_eq!(case.test.told(), BACK, "{name}");
    }
}

#[test]
fn another_cause_before_it_comes_out_holds_it_on() {
    for mut case in cases() {
        let name = case.name;
        case.overdue(true);
        case.end();
        case.test.wait(PATIENCE / 2);
        for parent in case.parents {
            case.test.overdue(parent);
        }
        if case.in_storm {
            case.test.storm(9);
        }
        case.test.told();
        case.test.wait(HOUR);
        assert_eq!((case.test.told(), case.test.held()), (vec![], 1), "{name}");
        for parent in case.parents {
            case.test.up(parent);
        }
        if case.in_storm {
            case.test.storm_over(9);
        }
        case.test.told();
        case.test.wait(PATIENCE);
        assert_eq!(case.test.told(), OVERDUE, "{name}");
    }
}

#[test]
fn the_last_of_several_causes_counts() {
    for first in [0, 1] {
        let mut test = TestOverlay::with_parents();
        test.overdue("switch").overdue("router").overdue_behind("web1", &["router", "switch"]);
        test.told();
        let parents = ["router", "switch"];
        test.up(parents[first]).told();
        test.wait(HOUR);
        assert_eq!((test.told(), test.held()), (vec![], 1), "{first}");
        let last = parents[1 - first];
        assert_eq!(test.reasons(), [format!("parent {last}: mail pager")]);
        test.up(last).told();
        test.wait(PATIENCE);
        assert_eq!(test.told(), OVERDUE);
        assert_eq!(test.detail("web1 ipv4 overdue").unwrap(), format!("while {last} was overdue"));
    }
}

#[test]
fn a_silence_and_a_parent_each_hold_for_their_own_channels() {
    let mut test = TestOverlay::with_parents();
    let own = Some(vec!["mail".to_owned()]);
    test.routes.hosts.insert("router".into(), HostRoute { watch: true, channels: own });
    test.overdue("router").silence("web1", HOUR).overdue_behind("web1", &BEHIND);
    assert_eq!(test.told(), ["mail router ipv4 overdue"]);
    assert_eq!(test.reasons(), ["silence s1: mail pager", "parent router: mail"]);
    test.wait(HOUR + PATIENCE - SECOND);
    assert_eq!(test.told(), NONE);
    test.wait(2 * SECOND);
    assert_eq!(test.told(), ["pager web1 ipv4 overdue"], "it was not told of the router");
    let words = test.detail("web1 ipv4 overdue").unwrap();
    assert_eq!(words, "until 2027-01-15 09:00:00 UTC, by s1 of ann (kernel update)");
    assert_eq!(test.reasons(), ["parent router: mail"]);
    test.restart().wait(HOUR).up("router").wait(PATIENCE);
    assert_eq!(test.told(), ["mail router ipv4 is back", "mail web1 ipv4 overdue"]);
    test.back("web1");
    assert_eq!(test.told(), BACK);
    assert_eq!(test.calm_rows(), 0);
}

#[test]
fn each_channel_has_its_own_parent() {
    let mut test = TestOverlay::with_parents();
    let own = |name: &str| HostRoute { watch: true, channels: Some(vec![name.into()]) };
    test.routes.hosts.insert("router".into(), own("mail"));
    test.routes.hosts.insert("switch".into(), own("pager"));
    test.overdue("router").overdue("switch").overdue_behind("web1", &["router", "switch"]).told();
    test.wait(MINUTE).up("router").wait(PATIENCE);
    assert_eq!(test.told(), ["mail router ipv4 is back", "mail web1 ipv4 overdue"]);
    assert_eq!(test.detail("web1 ipv4 overdue").unwrap(), "while router was overdue");
    test.wait(MINUTE).up("switch").wait(PATIENCE);
    assert_eq!(test.told(), ["pager switch ipv4 is back", "pager web1 ipv4 overdue"]);
    assert_eq!(test.detail("web1 ipv4 overdue").unwrap(), "while switch was overdue");
    test.back("web1");
    assert_eq!(test.told(), BACK);
}

#[test]
fn a_channel_that_was_not_told_of_the_parent_hears_of_the_host() {
    for restarts in [false, true] {
        let mut test = TestOverlay::with_parents();
        let own = Some(vec!["mail".to_owned()]);
        test.routes.hosts.insert("router".into(), HostRoute { watch: true, channels: own });
        test.overdue("router").overdue_behind("web1", &BEHIND);
        assert_eq!(test.told(), ["mail router ipv4 overdue", "pager web1 ipv4 overdue"]);
        let (_, held_by) = test.history.last().unwrap();
        assert_eq!(held_by, &["router"]);
        if restarts {
            test.restart();
        }
        test.wait(HOUR);
        assert_eq!(test.reasons(), ["parent router: mail"]);
        assert_eq!(test.overlay.calm.stats(test.now).held, [0, 0, 0, 1, 0, 0]);
        test.up("router").wait(PATIENCE);
        assert_eq!(test.told(), ["mail router ipv4 is back", "mail web1 ipv4 overdue"]);
        test.back("web1");
        assert_eq!(test.told(), BACK);
        assert_eq!(test.calm_rows(), 0);
        // Back before it comes out: only whoever was told hears of it.
        test.overdue("router").overdue_behind("web1", &BEHIND).told();
        test.back("web1").up("router").wait(HOUR);
        assert_eq!(test.told(), ["pager web1 ipv4 is back", "mail router ipv4 is back"]);
    }
}

#[test]
fn a_channel_that_does_not_take_the_parent_s_level_hears_of_the_host() {
    let mut test = TestOverlay::with_parents();
    // One of the two connections of the router: a warning, which the pager does not take.
    test.shutdown("router", "ipv4").overdue_behind("web1", &BEHIND);
    assert_eq!(test.told(), ["mail router ipv4 shutdown", "pager web1 ipv4 overdue"]);
    let report = EventKind::NotBack { host: "router".into(), since: Wall(0), within: MINUTE };
    test.accept(event(test.now, report));
    test.overdue_behind("web2", &BEHIND);
    assert_eq!(test.told(), ["mail router has not come back", "pager router has not come back"]);
}

#[test]
fn what_nobody_was_told_of_holds_nothing() {
    let all = ["mail web1 ipv4 overdue", "pager web1 ipv4 overdue"];
    let mut test = TestOverlay::with_parents();
    test.silence("router", HOUR).overdue("router").overdue_behind("web1", &BEHIND);
    assert_eq!(test.told(), all, "the parent is silenced");
    let mut test = TestOverlay::with_parents();
    test.overdue_behind("web1", &BEHIND);
    assert_eq!(test.told(), all, "it was never told of");
    let mut test = TestOverlay::with_parents();
    test.overdue_in_storm("web1");
    assert_eq!(test.told(), all, "no storm was told of");
}

#[test]
fn what_explains_it_and_is_told_with_it_goes_first() {
    // Both come out of the same silence; the router's event is the later one.
    let mut test = TestOverlay::with_parents();
    test.silence("--all", HOUR).overdue_behind("web1", &BEHIND).overdue("router");
    test.wait(HOUR + PATIENCE);
    assert_eq!(test.told(), ["mail router ipv4 overdue", "pager router ipv4 overdue"]);
    assert_eq!(test.reasons(), ["parent router: mail pager"]);
    test.restart().wait(HOUR).up("router").told();
    test.wait(PATIENCE);
    assert_eq!(test.told(), OVERDUE);
}

#[test]
fn a_channel_that_refuses_what_was_said_of_the_parent_hears_of_the_host() {
    for before in [false, true] {
        let mut test = TestOverlay::with_parents();
        test.works = false;
        test.overdue("router");
        if !before {
            test.overdue_behind("web1", &BEHIND);
            assert_eq!(test.held(), 1, "it is on its way to both");
        }
        // And the notice that it was given up.
        loop {
            test.commit();
            let attempts = test.outbox.start(test.now);
            if attempts.is_empty() {
                break;
            }
            for attempt in attempts {
                let refused = Err(Failure::MessageRefused("no".into()));
                let is_mail = attempt.delivery.channel == "mail";
                let result = if is_mail { refused } else { Ok(Delivered::default()) };
                test.outbox.complete(attempt.id, result, test.now);
            }
        }
        test.works = true;
        test.turn();
        if before {
            test.overdue_behind("web1", &BEHIND);
        }
        test.wait(PATIENCE + SECOND);
        assert_eq!(test.told(), [OVERDUE[0]], "{before}");
        assert_eq!(test.reasons(), ["parent router: pager"]);
        test.up("router").wait(PATIENCE);
        assert_eq!(test.told(), ["pager router ipv4 is back", OVERDUE[1]], "{before}");
        assert_eq!(test.calm_rows(), 0);
    }
}

#[test]
fn a_cause_that_ends_without_a_word_releases() {
    for restarts in [false, true] {
        let mut test = TestOverlay::with_parents();
        test.overdue("router").storm(12);
        let both = Event { in_storm: true, ..test.overdue_event("web1", "ipv4", true) };
        test.accept(Event { behind: vec!["router".into()], ..both }).told();
        // The parent is forgotten, and the storm.
        test.outbox.close_silently(&Incident::connection("router", "ipv4"));
        test.turn().wait(MINUTE);
        assert_eq!((test.told(), test.held()), (vec![], 1));
        test.outbox.close_silently(&Incident::Storm);
        test.commit();
        if restarts {
            test.now = test.now.later(HOUR);
            test.restart();
        } else {
            test.turn();
        }
        test.wait(PATIENCE - SECOND);
        assert_eq!(test.told(), NONE);
        test.wait(2 * SECOND);
        assert_eq!(test.told(), OVERDUE, "{restarts}");
    }
}

#[test]
fn a_parent_with_two_connections_is_up_by_one() {
    let mut test = TestOverlay::with_parents();
    test.overdue_over("router", "ipv4", true).overdue_over("router", "vpn", true);
    test.overdue_behind("web1", &BEHIND).told();
    // vpn is back; ipv4 is not, and that is known.
    let (host, connection) = ("router".to_owned(), "vpn".to_owned());
    test.accept(event(test.now, EventKind::Back { host, connection, gone: HOUR })).told();
    test.wait(MINUTE);
    assert_eq!(test.held(), 1, "as long as the fleet does not say that it is up");
    test.parent_up("router");
    test.turn().restart().wait(PATIENCE / 2).overdue_over("router", "vpn", true);
    test.told();
    test.wait(HOUR);
    assert_eq!((test.told(), test.held()), (vec![], 1), "it is down again");
    test.parent_up("router");
    test.turn().wait(PATIENCE);
    assert_eq!(test.told(), OVERDUE);
}

#[test]
fn a_reload_that_takes_the_parent_away_lets_out_what_differs() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").overdue_behind("web1", &BEHIND).overdue_behind("web2", &BEHIND);
    test.told();
    // It is still down, but nobody is reached through it any more.
    test.parent_up("router");
    test.turn().wait(PATIENCE / 2).back("web2").wait(PATIENCE);
    assert_eq!(test.told(), OVERDUE);
}

#[test]
fn of_two_parents_of_which_one_suffices_one_is_up() {
    let mut test = TestOverlay::with_parents();
    let both = ["router", "switch"];
    test.overdue("router").overdue("switch").overdue_behind("web1", &both).told();
    test.overdue_behind("web2", &["router"]);
    let kind = EventKind::NeverSeen { host: "web1".into(), configured: Wall(0), clock: None };
    let behind = both.map(str::to_owned).to_vec();
    test.accept(Event { behind: behind.clone(), ..event(test.now, kind) });
    let kind =
        EventKind::NotBack { host: "web1".into(), since: test.now.wall, within: 15 * MINUTE };
    test.accept(Event { behind, ..event(test.now, kind) });
    // The router stays down; web2 has no other way.
    test.parent_up("switch");
    test.overlay.calm.clear_parents("web1");
    test.back("switch").told();
    test.restart().wait(PATIENCE);
    assert_eq!(test.told(), OVERDUE);
    assert_eq!(test.reasons(), ["parent router: mail pager"]);
    let words = "while router was overdue and switch was overdue";
    for title in ["web1 ipv4 overdue", "web1 was never heard", "web1 has not come back"] {
        assert_eq!(test.detail(title).as_deref(), Some(words), "{title}");
    }
    assert_eq!(test.calm_rows(), 1);
    // One alone explains it again when it is down again in time.
    test.parent_up("router");
    test.overlay.calm.clear_parents("web2");
    test.back("router").wait(PATIENCE / 2).overdue("router").told();
    test.wait(HOUR);
    assert_eq!((test.told(), test.held()), (vec![], 1));
}

#[test]
fn a_restart_within_a_hold_by_a_cause_changes_nothing() {
    for mut case in cases() {
        let name = case.name;
        case.overdue(true).restart().wait(10 * MINUTE).restart();
        assert_eq!((case.test.told(), case.test.held()), (vec![], 1), "{name}");
        case.end();
        case.test.restart().wait(PATIENCE / 2).restart().wait(PATIENCE / 2);
        assert_eq!(case.test.told(), OVERDUE, "{name}");
        case.test.restart().wait(HOUR);
        assert_eq!(case.test.told(), NONE, "{name}");
    }
}

#[test]
fn a_cause_that_ended_while_the_daemon_was_down_gives_patience_from_the_start() {
    for mut case in cases() {
        let name = case.name;
        case.overdue(true);
        case.end();
        case.test.now = case.test.now.later(HOUR);
        case.test.restart().wait(PATIENCE - SECOND);
        assert_eq!(case.test.told(), NONE, "{name}");
        case.test.wait(2 * SECOND);
        assert_eq!(case.test.told(), OVERDUE, "{name}");
    }
}

#[test]
fn a_boot_of_the_machine_ends_no_cause() {
    for mut case in cases().into_iter().filter(|case| !["silence", "window"].contains(&case.name)) {
        let name = case.name;
        case.overdue(true).reboot(10 * MINUTE, None).wait(HOUR);
        assert_eq!((case.test.told(), case.test.held()), (vec![], 1), "{name}");
    }
}

#[test]
fn a_host_with_two_connections_is_held_with_both_and_boots_with_both() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").told();
    for connection in ["ipv4", "vpn"] {
        let event = test.overdue_event("web1", connection, connection == "vpn");
        test.accept(Event { behind: vec!["router".into()], ..event });
    }
    assert_eq!((test.told(), test.held(), test.calm_rows()), (vec![], 2, 2));
    test.up("router").told();
    test.booted("web1", false, &["ipv4", "vpn"]).wait(HOUR);
    assert_eq!(test.told(), ["mail web1 booted"], "and nothing is held any more");
    assert_eq!(test.calm_rows(), 0);
}

#[test]
fn a_host_that_was_never_heard_is_held_behind_its_parent() {
    let mut test = TestOverlay::with_parents();
    let kind = EventKind::NeverSeen { host: "web1".into(), configured: Wall(0), clock: None };
    let never = Event { behind: vec!["router".into()], ..event(test.now, kind) };
    test.overdue("router").accept(never).told();
    assert_eq!(test.held(), 1);
    test.up("router").turn();
    assert_eq!(test.told()[2..], ["mail web1 was never heard"], "it has no patience");
}

#[test]
fn a_host_that_is_forgotten_leaves_nothing() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").overdue_behind("web1", &BEHIND).told();
    let incident = Incident::connection("web1", "ipv4");
    test.outbox.close_silently(&incident);
    test.overlay.calm.close_silently(&incident);
    test.up("router").told();
    test.wait(HOUR);
    assert_eq!((test.told(), test.calm_rows()), (vec![], 0));
}

#[test]
fn metrics_and_messages_of_a_host_are_told_although_a_parent_is_down() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").overdue_behind("web1", &BEHIND).told();
    test.said("web1", "hello").metric(Level::Warning);
    assert_eq!(test.told(), ["mail web1 hello".to_owned(), of_metric("WARNING")]);
}

#[test]
fn a_channel_that_a_reload_adds_hears_of_the_host_and_one_that_takes_over_does_not() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").overdue_behind("web1", &BEHIND).told();
    test.rename("mail", "post");
    test.wait(HOUR);
    assert_eq!(test.told(), ["post router ipv4 overdue"], "it took over what mail was told");
    assert_eq!(test.reasons(), ["parent router: pager post"]);
    let route = ChannelRoute { min_level: Level::Info };
    test.routes.channels.insert("chat".into(), route);
    test.routes.default.push("chat".into());
    test.outbox.reconfigure(queues(&test.routes), &test.routes, 7, test.now);
    test.overlay.readdress(&test.outbox, &test.routes, test.now);
    test.turn().wait(PATIENCE);
    assert_eq!(test.told(), ["chat web1 ipv4 overdue"], "nobody told it why");
    test.up("router").told();
    test.wait(PATIENCE);
    assert_eq!(test.told(), ["pager web1 ipv4 overdue", "post web1 ipv4 overdue"]);
    test.back("web1");
    assert_eq!(test.told().len(), 3);
}

#[test]
fn what_was_over_before_it_was_let_go_is_recorded_only() {
    let mut test = TestOverlay::new();
    let event = Event { untold: true, ..test.overdue_event("web1", "ipv4", true) };
    test.accept(event).back("web1");
    assert_eq!(test.told(), NONE);
    assert_eq!(test.outbox.open_incidents().count(), 0);
    let kinds: Vec<_> = test.history.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["overdue", "back"]);
}

#[test]
fn no_event_is_held_for_the_pager_when_the_newest_one_is_none_of_its() {
    let mut test = TestOverlay::with_parents();
    test.overdue("router").overdue_behind("web1", &BEHIND).told();
    let milder = test.overdue_event("web1", "ipv4", false);
    test.accept(Event { behind: vec!["router".into()], ..milder });
    assert_eq!(test.reasons(), ["parent router: mail"]);
    test.up("router").told();
    test.wait(PATIENCE);
    assert_eq!(test.told(), [OVERDUE[0]]);
}

#[test]
fn a_parent_that_was_back_before_its_silence_was_told_explains_nothing() {
    let mut test = TestOverlay::with(CalmSettings::default());
    test.add_parents();
    for _ in 0..3 {
        test.overdue("router").up("router");
    }
    // It flaps, and everybody knows that it does.
    test.overdue("router").overdue_behind("web1", &BEHIND).up("router").told();
    assert_eq!(test.held(), 2);
    // It was silent once more, for so short a time that nobody was told.
    test.parent_up("router");
    let silent = Event { untold: true, ..test.overdue_event("router", "ipv4", true) };
    test.accept(silent).back("router").wait(PATIENCE);
    assert_eq!(test.told(), OVERDUE);
}

#[test]
fn a_host_flaps_itself_unless_a_channel_knows_why() {
    for known in [true, false] {
        let mut test = TestOverlay::with(CalmSettings::default());
        test.add_parents();
        if !known {
            test.silence("router", 4 * HOUR);
        }
        for _ in 0..5 {
            test.overdue("router").overdue_behind("web1", &BEHIND).wait(MINUTE);
            test.up("router").back("web1").wait(MINUTE);
        }
        let told = test.told();
        let of_web1 = told.iter().filter(|title| title.contains(" web1 ")).count();
        assert_eq!(of_web1, if known { 0 } else { 12 }, "{told:?}");
        test.wait(HOUR);
        let host = if known { "router" } else { "web1" };
        let title = format!("{host} ipv4 has settled: up (10 changes in 9 min)");
        assert_eq!(test.told(), [format!("mail {title}"), format!("pager {title}")]);
    }
}

#[test]
fn a_channel_that_was_told_of_one_connection_does_not_know_that_the_host_is_down() {
    let mut test = TestOverlay::with_parents();
    test.overdue_over("router", "ipv6", false);
    assert_eq!(test.told(), ["mail router ipv6 overdue"]);
    test.silence("router", HOUR).overdue_over("router", "ipv4", true);
    test.overdue_behind("web1", &BEHIND);
    assert_eq!(test.told(), OVERDUE, "nobody was told that the router is down");
    // All of its connections were shut down.
    let mut test = TestOverlay::with_parents();
    test.routes.channels.get_mut("pager").unwrap().min_level = Level::Warning;
    test.shutdown("router", "ipv4").shutdown("router", "ipv6").told();
    test.overdue_behind("web1", &BEHIND);
    assert_eq!((test.told(), test.held()), (vec![], 1));
}

#[test]
fn of_very_many_things_that_are_held_back_the_oldest_are_shown() {
    let mut test = TestOverlay::with_parents();
    test.works = false;
    test.overdue("router");
    for number in (0..1_005).rev() {
        let name = format!("node{number:04}");
        test.routes.hosts.insert(name.clone(), HostRoute { watch: true, channels: None });
        let overdue = test.overdue_event(&name, "ipv4", true);
        test.accept_one(&Event { behind: vec!["router".into()], ..overdue });
        test.now = test.now.later(SECOND);
    }
    let view = test.overlay.calm.held_view(None, test.now);
    assert_eq!((view.held.len(), view.count), (1_000, 1_005));
    assert_eq!(view.held[0].text, "node1004 ipv4 overdue");
    assert_eq!(view.held[999].text, "node0005 ipv4 overdue");
    let view = test.overlay.calm.held_view(Some("node0000"), test.now);
    assert_eq!((view.held[0].text.as_str(), view.count), ("node0000 ipv4 overdue", 1));
}

#[test]
fn a_channel_that_takes_over_is_told_once_what_was_held_back_from_the_one_that_is_gone() {
    let mut test = TestOverlay::with_parents();
    let only_mail = HostRoute { watch: true, channels: Some(vec!["mail".into()]) };
    test.routes.hosts.insert("router".into(), only_mail);
    test.overdue_over("web1", "ipv4", false).overdue("router").told();
    test.overdue_behind("web1", &BEHIND);
    assert_eq!(test.told(), ["pager web1 ipv4 overdue"]);
    test.rename("mail", "post");
    let route = HostRoute { watch: true, channels: Some(vec!["post".into()]) };
    test.routes.hosts.insert("router".into(), route);
    test.turn();
    assert_eq!(test.told(), ["post router ipv4 overdue", "post web1 ipv4 overdue"]);
    test.up("router").told();
    test.wait(HOUR);
    assert_eq!((test.told(), test.calm_rows()), (vec![], 0));
}

/// Channels that put many messages into one.
fn with_digests(test: &mut TestOverlay) {
    let digest = Some(TextLimit { max: 4000, unit: TextUnit::Bytes });
    let queues: BTreeMap<String, QueueSettings> = queues(&test.routes)
        .into_iter()
        .map(|(name, settings)| {
            let retry_policy = RetryPolicy { digest, ..settings.retry_policy };
            (name, QueueSettings { retry_policy, ..settings })
        })
        .collect();
    test.outbox.reconfigure(queues, &test.routes, 7, test.now);
}

#[test]
fn many_things_that_come_out_together_become_a_digest() {
    for (count, messages, restarts) in [(10, 10, false), (11, 1, false), (40, 1, true)] {
        let mut test = TestOverlay::with_parents();
        let names: Vec<String> = (0..count).map(|number| format!("node{number}")).collect();
        for name in &names {
            let channels = Some(vec!["mail".to_owned()]);
            test.routes.hosts.insert(name.clone(), HostRoute { watch: true, channels });
        }
        with_digests(&mut test);
        test.overdue("router");
        for name in &names {
            test.overdue_behind(name, &BEHIND);
        }
        test.up("router").told();
        test.works = !restarts;
        test.wait(PATIENCE);
        if restarts {
            test.restart();
            with_digests(&mut test);
            test.works = true;
            test.turn();
        }
        let told = test.told();
        assert_eq!(told.len(), messages, "{told:?}");
        if messages == 1 {
            let title = format!("mail {count} events while they were held back: {count} critical");
            assert_eq!(told, [title]);
        }
        // The queue is empty: what follows is told by itself.
        test.back(&names[0]);
        assert_eq!(test.told(), ["mail node0 ipv4 is back"]);
    }
}

#[test]
fn a_storm_and_its_end_are_one_message_where_the_channel_was_cut_off_too() {
    let mut test = TestOverlay::new();
    with_digests(&mut test);
    test.works = false;
    test.storm(12).overdue_in_storm("web1").overdue_in_storm("web2");
    for attempt in test.outbox.start(test.now) {
        test.outbox.complete(attempt.id, Err(Failure::unreachable("no route")), test.now);
    }
    test.wait(5 * MINUTE).back("web1").back("web2").storm_over(12);
    test.works = true;
    test.wait(10 * MINUTE);
    let told = test.told();
    assert_eq!(told.len(), 2, "one on each channel: {told:?}");
    let title = "12 of 14 hosts fell silent within 20 s: probably this machine's own uplink, \
                 then the 12 hosts are back (gone for: 1 h)";
    assert_eq!(told[0], format!("mail {title}"));
}

#[test]
fn a_storm_of_hosts_that_were_all_silenced_was_told_nonetheless() {
    // The event names one of its hosts: of several that is not all of them.
    for (scope, count) in [("--all", 12), ("*", 12), ("web*", 1), ("web1", 1)] {
        for window in [false, true] {
            let silenced = || match window {
                true => TestOverlay::in_window(scope),
                false => {
                    let mut test = TestOverlay::new();
                    test.silence(scope, HOUR);
                    test
                }
            };
            let name = format!("{scope} {window}");
            let mut test = silenced();
            test.storm(count).overdue_in_storm("web1");
            assert_eq!((test.told(), test.held()), (vec![], 2), "{name}");
            test.wait(HOUR / 2).restart().storm_over(count).back("web1").wait(HOUR);
            assert_eq!((test.told(), test.calm_rows()), (vec![], 0), "{name}");
            // It goes on when that ends: then it is told, and holds its host back.
            let mut test = silenced();
            test.storm(count).overdue_in_storm("web1").wait(2 * HOUR);
            let title = format!(
                "{count} of 14 hosts fell silent within 20 s: probably this machine's own uplink"
            );
            assert_eq!(test.told(), [format!("mail {title}"), format!("pager {title}")], "{name}");
            assert_eq!(test.reasons(), ["storm storm: mail pager"], "{name}");
            test.storm_over(count).told();
            test.wait(PATIENCE);
            assert_eq!(test.told(), OVERDUE, "{name}");
        }
    }
    for (scope, count) in [("web1", 12), ("web*", 12), ("web2", 1), ("web1/ipv4", 1)] {
        let mut test = TestOverlay::new();
        if scope == "web2" {
            test.routes.hosts.insert("web2".into(), HostRoute { watch: true, channels: None });
        }
        test.silence(scope, HOUR).storm(count);
        assert_eq!(test.told().len(), 2, "{scope}");
    }
}
