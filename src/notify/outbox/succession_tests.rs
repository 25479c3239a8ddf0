//! What becomes of open incidents when their channels are renamed or removed.

use super::*;

fn reload(test: &mut TestOutbox, names: &[&str]) -> Vec<String> {
    test.routes = routes(names);
    let said = test.outbox.successions(&test.routes).iter().map(Succession::describe).collect();
    test.outbox.reconfigure(settings(names), &test.routes, 7, test.now);
    assert!(test.outbox.successions(&test.routes).is_empty(), "done");
    said
}

#[test]
fn the_end_of_an_alarm_whose_channel_was_renamed_went_nowhere() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1").metric(Level::Critical, false);
    assert_eq!(test.drain().len(), 2);
    let said = reload(&mut test, &["post"]);
    assert_eq!(
        said,
        [
            "notification_channels.mail: is gone, the end of 2 open alarms that it was given goes to post"
        ]
    );
    assert!(test.drain().is_empty(), "what was told is not told again");
    test.back("web1").metric(Level::Ok, false);
    assert_eq!(
        test.drain(),
        ["post: web1 ipv4 is back", "post: OK: web1 - m = 1.0 (threshold: > 0.0)"]
    );
}

#[test]
fn a_removed_channel_leaves_its_alarms_to_those_that_there_are_and_each_is_ended_once() {
    let mut test = TestOutbox::with(&["mail", "chat"]);
    test.overdue("web1");
    assert_eq!(test.drain().len(), 2);
    assert_eq!(reload(&mut test, &["mail"]).len(), 1);
    test.back("web1");
    assert_eq!(test.drain(), ["mail: web1 ipv4 is back"]);
    assert!(reload(&mut test, &["mail", "chat"]).is_empty());
}

#[test]
fn a_channel_that_comes_back_before_the_end_hears_of_it() {
    let mut test = TestOutbox::with(&["mail", "chat"]);
    test.overdue("web1");
    test.drain();
    for names in [&["mail"][..], &["mail", "chat"], &["mail"], &["mail", "chat"]] {
        reload(&mut test, names);
    }
    test.back("web1");
    assert_eq!(test.drain(), ["chat: web1 ipv4 is back", "mail: web1 ipv4 is back"]);
}

#[test]
fn an_alarm_that_waits_for_a_channel_that_is_renamed_is_sent_through_the_new_one() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    let job = test.one();
    test.finish(&job, unreachable());
    assert_eq!(reload(&mut test, &["post"]).len(), 1);
    assert_eq!(test.drain(), ["post: web1 ipv4 overdue"]);
    test.back("web1");
    assert_eq!(test.drain(), ["post: web1 ipv4 is back"]);
}

#[test]
fn what_got_worse_while_the_old_channel_was_down_is_told_through_the_new_one() {
    let mut test = TestOutbox::with(&["mail"]);
    test.metric(Level::Warning, false);
    assert_eq!(test.drain().len(), 1);
    test.metric(Level::Critical, false);
    reload(&mut test, &["post"]);
    assert_eq!(test.drain(), ["post: CRITICAL: web1 - m = 1.0 (threshold: > 0.0)"]);
}

#[test]
fn a_channel_that_was_renamed_while_the_daemon_was_away_is_the_same() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    assert_eq!(test.drain().len(), 1);
    let mut disk = BTreeMap::new();
    test.write_to(&mut disk);
    test.routes = routes(&["post"]);
    test.outbox.reconfigure(settings(&["post"]), &routes(&["mail", "post"]), 7, test.now);
    test.outbox.take_writes();
    test.crash(&mut disk);
    test.back("web1");
    assert_eq!(test.drain(), ["post: web1 ipv4 is back"]);
}

#[test]
fn without_any_channel_that_is_said() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    test.drain();
    let said = reload(&mut test, &[]);
    assert!(said[0].contains("no channel hears of the end of 1 open alarm"), "{said:?}");
}
