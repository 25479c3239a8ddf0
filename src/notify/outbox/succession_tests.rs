//! What becomes of open incidents when their channels are renamed or removed.

use super::*;

fn reload(test: &mut TestOutbox, names: &[&str]) -> Vec<String> {
    reload_with(test, settings(names), routes(names))
}

fn reload_with(
    test: &mut TestOutbox,
    settings: BTreeMap<String, QueueSettings>,
    routes: Routes,
) -> Vec<String> {
    let said = test.outbox.successions(&settings, &routes);
    test.routes = routes;
    test.outbox.reconfigure(settings.clone(), &test.routes, 7, test.now);
    let left = test.outbox.successions(&settings, &test.routes);
    assert!(left.is_empty() || settings.is_empty(), "done: {left:?}");
    test.report();
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
    assert_eq!(
        test.drain(),
        ["post: web1 ipv4 overdue", "post: CRITICAL: web1 - m = 1.0 (threshold: > 0.0)"],
        "what is critical is told there once"
    );
    reload(&mut test, &["chat"]);
    assert_eq!(test.drain().len(), 2);
    reload(&mut test, &["post"]);
    assert!(test.drain().is_empty(), "once");
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
    assert_eq!(
        reload(&mut test, &["post"]),
        [
            "notification_channels.mail: is gone, 1 message that waited for it goes to post",
            "notification_channels.mail: is gone, the end of 1 open alarm that it was given goes to post"
        ]
    );
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
    assert_eq!(test.drain(), ["post: web1 ipv4 overdue", "post: web1 ipv4 is back"]);
}

#[test]
fn without_any_channel_that_is_said() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    test.drain();
    let said = reload(&mut test, &[]);
    assert!(said[0].contains("no channel hears of the end of 1 open alarm"), "{said:?}");
    reload(&mut test, &["post"]);
    test.back("web1");
    let told = ["post: web1 ipv4 overdue", "post: web1 ipv4 is back"];
    assert_eq!(test.drain(), told, "a channel that comes later does");
}

/// Its first attempt fails, so that all of it waits.
fn fail_first(test: &mut TestOutbox) {
    for job in test.start() {
        test.finish(&job, unreachable());
    }
}

#[test]
fn what_waited_for_a_channel_that_was_replaced_was_dropped() {
    for restarts in [false, true] {
        let mut test = TestOutbox::with(&["mm"]);
        test.said("web1", "raid failed")
            .said("web2", "hello")
            .overdue("web1")
            .said("web1", "again");
        fail_first(&mut test);
        if restarts {
            let mut disk = BTreeMap::new();
            test.write_to(&mut disk);
            test.routes = routes(&["chat"]);
            test.outbox.reconfigure(settings(&["chat"]), &routes(&["chat", "mm"]), 7, test.now);
            test.outbox.take_writes();
            test.crash(&mut disk);
        } else {
            let said = reload(&mut test, &["chat"]);
            assert!(said[0].ends_with("4 messages that waited for it go to chat"), "{said:?}");
        }
        let mut told = test.drain();
        told.retain(|line| !line.contains("web2"));
        assert_eq!(
            told,
            ["chat: web1 raid failed", "chat: web1 ipv4 overdue", "chat: web1 again"],
            "{restarts}"
        );
        test.back("web1");
        assert_eq!(test.drain(), ["chat: web1 ipv4 is back"]);
    }
}

#[test]
fn a_channel_that_is_replaced_twice_before_it_delivers_loses_nothing() {
    let mut test = TestOutbox::with(&["mm"]);
    test.said("web1", "raid failed").overdue("web1").back("web1");
    for names in [&["chat"][..], &["post"], &[], &["mail"]] {
        fail_first(&mut test);
        reload(&mut test, names);
    }
    let told = ["mail: web1 raid failed", "mail: web1 ipv4 overdue", "mail: web1 ipv4 is back"];
    assert_eq!(test.drain(), told);
}

#[test]
fn two_channels_that_become_one_do_not_tell_twice() {
    for at_once in [true, false] {
        let mut test = TestOutbox::with(&["mm1", "mm2"]);
        test.said("web1", "raid failed").overdue("web1");
        fail_first(&mut test);
        if at_once {
            reload(&mut test, &["chat"]);
            assert_eq!(test.drain(), ["chat: web1 raid failed", "chat: web1 ipv4 overdue"]);
        } else {
            reload(&mut test, &["chat", "mm2"]);
            for expected in ["web1 raid failed", "web1 ipv4 overdue"] {
                for job in test.start() {
                    let dead = job.delivery.channel == "mm2";
                    assert!(dead || job.delivery.message.title == expected, "{job:?}");
                    test.finish(&job, if dead { unreachable() } else { Ok(Delivered::default()) });
                }
            }
            reload(&mut test, &["chat"]);
            assert!(test.drain().is_empty());
        }
    }
}

#[test]
fn who_was_given_the_same_is_not_told_twice() {
    let mut test = TestOutbox::with(&["mm", "mail"]);
    test.said("web1", "raid failed");
    for job in test.start() {
        let result =
            if job.delivery.channel == "mail" { Ok(Delivered::default()) } else { unreachable() };
        test.finish(&job, result);
    }
    assert_eq!(
        reload(&mut test, &["mail"]),
        ["notification_channels.mm: is gone, 1 message that waited is known through others"]
    );
    assert!(test.drain().is_empty());
}

#[test]
fn a_level_that_the_hosts_channels_do_not_take_goes_to_the_default_ones_else_it_is_said() {
    let with_pager = |default: &[&str]| {
        let mut routes = routes(&["pager", "chat"]);
        routes.channels.get_mut("pager").unwrap().min_level = Level::Critical;
        routes.hosts.get_mut("web1").unwrap().channels = Some(vec!["pager".into()]);
        routes.default = default.iter().map(|name| name.to_string()).collect();
        routes
    };
    let waiting = || {
        let mut test = TestOutbox::with(&["mm"]);
        test.said("web1", "raid failed").overdue("web1");
        fail_first(&mut test);
        test
    };
    let mut test = waiting();
    reload_with(&mut test, settings(&["pager", "chat"]), with_pager(&["chat"]));
    assert_eq!(test.drain(), ["chat: web1 raid failed", "pager: web1 ipv4 overdue"]);

    let mut test = waiting();
    let mut alone = with_pager(&["pager"]);
    alone.channels.remove("chat");
    let said = reload_with(&mut test, settings(&["pager"]), alone);
    assert!(said.iter().any(|line| line.contains("1 message that waited for it goes to pager")));
    assert!(said.iter().any(|line| line.contains("is given up: no channel takes")), "{said:?}");
    let told = test.drain();
    assert!(told.contains(&"pager: web1 ipv4 overdue".to_owned()), "{told:?}");
    let lost = "pager: 1 message was given up because mm is no longer configured and no other \
                channel takes it: web1 raid failed";
    assert!(told.contains(&lost.to_owned()), "{told:?}");
}

#[test]
fn what_waited_for_a_former_recipient_goes_to_the_new_ones() {
    let recipients = |names: &[&str]| {
        let recipients = names.iter().map(|name| Some(name.to_string())).collect();
        BTreeMap::from([("mail".to_owned(), QueueSettings { retry_policy: pace(), recipients })])
    };
    for restarts in [false, true] {
        let mut test = TestOutbox::with(&["mail"]);
        test.outbox = Outbox::new(recipients(&["ann", "bob"]), 7, test.now);
        test.overdue("web1");
        let job = test.one();
        assert_eq!(job.delivery.recipient.as_deref(), Some("ann"));
        test.finish(&job, Err(Failure::recipient_deferred("greylisted")));
        let job = test.one();
        test.finish(&job, Ok(Delivered::default()));
        if restarts {
            let mut disk = BTreeMap::new();
            test.write_to(&mut disk);
            test.outbox = Outbox::new(recipients(&["bob", "eve"]), 7, test.now);
            test.crash(&mut disk);
        } else {
            let said = reload_with(&mut test, recipients(&["bob", "eve"]), routes(&["mail"]));
            let expected = "notification_channels.mail: 1 message that waited for a former recipient goes to eve";
            assert_eq!(said, [expected]);
        }
        let job = test.one();
        assert_eq!(job.delivery.recipient.as_deref(), Some("eve"), "{restarts}");
        test.finish(&job, Ok(Delivered::default()));
        assert!(test.start().is_empty());
        test.back("web1");
        assert_eq!(test.drain().len(), 2);
    }
}

#[test]
fn a_digest_and_what_is_in_flight_move_too() {
    let mut test = TestOutbox::with(&["mm"]);
    test.digesting(2000);
    for number in 0..15 {
        test.said("web1", &number.to_string());
    }
    let job = test.one();
    test.finish(&job, unreachable());
    let job = test.wait(MINUTE).one();
    assert!(job.delivery.message.title.starts_with("15 events"), "{}", job.delivery.message.title);
    let said = reload(&mut test, &["chat"]);
    assert_eq!(
        said,
        ["notification_channels.mm: is gone, 15 messages that waited for it go to chat"]
    );
    assert!(test.outbox.complete(job.id, Ok(Delivered::default()), test.now).is_empty());
    let first = test.one();
    assert!(first.delivery.possible_repeat, "it may have arrived");
    test.finish(&first, Ok(Delivered::default()));
    assert_eq!(test.drain().len(), 14);
}

#[test]
fn what_waits_stays_while_its_channel_is_there() {
    let mut test = TestOutbox::with(&["mm", "chat"]);
    test.routes.default = vec!["mm".into()];
    test.said("web1", "raid failed");
    fail_first(&mut test);
    let mut elsewhere = routes(&["mm", "chat"]);
    elsewhere.hosts.get_mut("web1").unwrap().channels = Some(vec!["chat".into()]);
    assert!(reload_with(&mut test, settings(&["mm", "chat"]), elsewhere).is_empty());
    assert_eq!(test.wait(MINUTE).drain(), ["mm: web1 raid failed"]);
}

#[test]
fn what_is_moved_has_its_place_among_what_waits_there() {
    let mut test = TestOutbox::with(&["mm", "chat"]);
    test.routes.default = vec!["mm".into()];
    test.said("web1", "first");
    fail_first(&mut test);
    test.routes.default = vec!["chat".into()];
    test.said("web1", "second");
    let mut disk = BTreeMap::new();
    reload(&mut test, &["chat"]);
    test.crash(&mut disk);
    assert_eq!(test.drain(), ["chat: web1 first", "chat: web1 second"]);
}

#[test]
fn the_notice_of_a_channel_that_is_replaced_goes_to_the_new_one() {
    let mut test = TestOutbox::with(&["mm"]);
    test.said("web1", "raid failed");
    fail_first(&mut test);
    test.wait(7 * HOUR).expire();
    reload(&mut test, &["chat"]);
    let told = "chat: 1 message was given up while mm could not be reached: web1 raid failed";
    assert_eq!(test.drain(), [told]);
}

#[test]
fn the_notice_of_a_channel_that_was_renamed_and_renamed_back_was_lost() {
    for (between, restarts) in [(&["post"][..], false), (&["post"], true), (&[], false)] {
        let mut test = TestOutbox::with(&["mm"]);
        test.said("web1", "raid failed");
        fail_first(&mut test);
        test.wait(7 * HOUR).expire();
        reload(&mut test, between);
        if restarts {
            test.crash(&mut BTreeMap::new());
        }
        reload(&mut test, &["mm"]);
        let told = "mm: 1 message was given up while mm could not be reached: web1 raid failed";
        assert_eq!(test.drain(), [told]);
        assert!(reload(&mut test, &["post"]).is_empty() && test.outbox.is_empty(), "once");
    }
}

#[test]
fn a_notice_that_is_known_on_its_own_channel_does_not_come_back_to_it() {
    let mut test = TestOutbox::with(&["chat", "mm"]);
    test.said("web1", "raid failed");
    test.start().iter().for_each(|job| drop(test.finish(job, unreachable())));
    test.wait(7 * HOUR).expire();
    reload(&mut test, &["mm"]);
    let told = test.drain();
    let one = |lost| {
        format!("mm: 1 message was given up while {lost} could not be reached: web1 raid failed")
    };
    assert_eq!(told, [one("chat"), one("mm")]);
}

#[test]
fn what_was_kept_while_there_was_no_channel_waited_until_the_next_start() {
    let mut test = TestOutbox::with(&["mm"]);
    test.said("web1", "raid failed").overdue("web1");
    fail_first(&mut test);
    reload(&mut test, &[]);
    reload(&mut test, &["mm"]);
    assert_eq!(test.wait(HOUR).drain(), ["mm: web1 raid failed", "mm: web1 ipv4 overdue"]);
    assert!(test.outbox.is_empty());
}

#[test]
fn sixteen_thousand_that_waited_about_one_host_moved_in_the_time_of_their_square() {
    use crate::notify::routing::HostRoute;
    let mut test = TestOutbox::with(&["mm"]);
    test.routes.hosts.insert("web1".into(), HostRoute { watch: true, channels: None });
    for number in 0..16_000 {
        test.said("web1", &number.to_string());
    }
    let begun = std::time::Instant::now();
    reload(&mut test, &["post"]);
    assert!(begun.elapsed().as_secs() < 30, "it took minutes: {:?}", begun.elapsed());
    let told = test.drain();
    assert!(told.iter().enumerate().all(|(n, told)| *told == format!("post: web1 {n}")));
}
