//! Reminders of hosts that stay silent, told by hand-moved time.

use super::*;
use crate::event::Incident;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn test() -> TestOutbox {
    let mut test = TestOutbox::with(&["mail"]);
    test.outbox.set_overdue_renotify(Some(DAY));
    test
}

/// Lets time pass, a minute at a time; what is sent meanwhile.
fn pass(test: &mut TestOutbox, time: Duration) -> Vec<String> {
    let (mut told, end) = (Vec::new(), test.now.mono + time);
    while test.now.mono < end {
        test.wait(MINUTE);
        for event in test.outbox.overdue_reminders(test.now) {
            if test.outbox.acknowledged(&event, test.now).is_none() {
                test.accept(event.level, event.kind);
            }
        }
        told.extend(test.drain());
    }
    told
}

#[test]
fn a_host_that_stayed_overdue_for_weeks_was_told_of_once() {
    let mut test = test();
    test.overdue("web1").drain();
    assert!(pass(&mut test, DAY - MINUTE).is_empty());
    assert_eq!(pass(&mut test, MINUTE), ["mail: web1 ipv4 is still overdue (for 1 d)"]);
    assert_eq!(
        pass(&mut test, 3 * DAY),
        [2, 3, 4].map(|days| format!("mail: web1 ipv4 is still overdue (for {days} d)"))
    );
    // The clock of this machine was set: a day is a day.
    test.now.wall = test.now.wall + 5 * HOUR;
    assert_eq!(pass(&mut test, DAY), ["mail: web1 ipv4 is still overdue (for 5 d 5 h)"]);
    assert_eq!(test.back("web1").drain(), ["mail: web1 ipv4 is back"]);
    assert!(pass(&mut test, 3 * DAY).is_empty());
    assert_eq!(test.outbox.next_wake(test.now), None, "nothing is silent");
}

#[test]
fn reminders_end_with_an_acknowledgement_and_begin_anew_without_it() {
    let mut test = test();
    test.overdue("web1").drain();
    let by = Acknowledgement { at: test.now.wall, ..Acknowledgement::default() };
    test.outbox.acknowledge(|_| true, &by, test.now);
    assert!(pass(&mut test, 3 * DAY).is_empty());
    test.outbox.undo_acknowledgement(|_| true, test.now);
    assert_eq!(pass(&mut test, DAY).len(), 1);
}

#[test]
fn reminders_go_on_after_a_restart_but_not_before_hosts_had_the_time_to_beat() {
    let (mut test, mut disk) = (test(), BTreeMap::new());
    test.overdue("web1").drain();
    pass(&mut test, 20 * HOUR);
    for _ in 0..2 {
        test.crash(&mut disk);
        test.outbox.set_overdue_renotify(Some(DAY));
        assert!(pass(&mut test, 2 * HOUR - MINUTE).is_empty());
    }
    assert_eq!(pass(&mut test, 3 * MINUTE).len(), 1, "a day after it was told");
    test.wait(3 * DAY).crash(&mut disk);
    test.outbox.set_overdue_renotify(Some(DAY));
    assert!(pass(&mut test, 9 * MINUTE).is_empty());
    assert_eq!(pass(&mut test, HOUR), ["mail: web1 ipv4 is still overdue (for 4 d)"]);
}

#[test]
fn a_reload_turns_reminders_off_and_on() {
    let mut test = test();
    test.overdue("web1").drain();
    test.outbox.set_overdue_renotify(None);
    assert!(pass(&mut test, 3 * DAY).is_empty());
    test.outbox.set_overdue_renotify(Some(7 * DAY));
    assert!(pass(&mut test, 4 * DAY - MINUTE).is_empty());
    assert_eq!(pass(&mut test, MINUTE).len(), 1);
}

#[test]
fn what_was_shut_down_is_not_reminded_of_and_what_has_not_come_back_is() {
    let mut test = test();
    let (host, connection) = ("web1".to_owned(), "ipv4".to_owned());
    test.accept(Level::Warning, EventKind::Shutdown { host: host.clone(), connection }).drain();
    assert!(pass(&mut test, 3 * DAY).is_empty());
    let not_back = EventKind::NotBack { host: host.clone(), since: Wall(0), within: HOUR };
    test.accept(Level::Critical, not_back).drain();
    assert_eq!(pass(&mut test, DAY), ["mail: web1 has still not come back (for 1 d)"]);
    assert!(test.outbox.open_incident(&Incident::NotBack { host }).is_some());
}

#[test]
fn a_channel_that_was_added_is_told_by_the_reminder_and_then_by_the_end() {
    let mut test = test();
    test.overdue("web1").drain();
    test.routes = routes(&["mail", "chat"]);
    test.outbox.reconfigure(settings(&["mail", "chat"]), &test.routes, 7, test.now);
    assert_eq!(pass(&mut test, DAY).len(), 2);
    assert_eq!(test.back("web1").drain(), ["chat: web1 ipv4 is back", "mail: web1 ipv4 is back"]);
}
