//! What is given up is told, on the channel itself and on the others, and a restart does not forget it.

use super::*;

/// Whatever is tried now fails.
fn fail_all(test: &mut TestOutbox) {
    for job in test.start() {
        test.finish(&job, unreachable());
    }
}

/// What was given up is told here, and everything else as it is.
fn drain_to(test: &mut TestOutbox, channel: &str) -> Vec<String> {
    let prefix = format!("{channel}: ");
    test.drain().iter().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

const FOUR: &str = "4 messages were given up while mm could not be reached: \
                    web1 raid failed (3 times), web2 hot";

/// The only channel is dead for seven hours, in which four warnings expire.
fn four_are_given_up(test: &mut TestOutbox) {
    test.said("web1", "raid failed").said("web2", "hot");
    test.said("web1", "raid failed").said("web1", "raid failed");
    fail_all(test);
    test.wait(7 * HOUR).expire();
}

#[test]
fn a_channel_that_was_away_was_not_told_that_there_had_been_messages() {
    for restarts in [false, true] {
        let mut test = TestOutbox::with(&["mm"]);
        four_are_given_up(&mut test);
        fail_all(&mut test);
        if restarts {
            test.crash(&mut BTreeMap::new());
        }
        assert!(test.wait(30 * 24 * HOUR).expire().outbox.len() == 1, "the notice stays");
        assert_eq!(test.drain(), [format!("mm: {FOUR}")]);
        assert!(test.outbox.is_empty() && test.report().drain().is_empty(), "once");
    }
}

#[test]
fn the_others_hear_at_once_and_in_one_message() {
    let mut test = TestOutbox::with(&["chat", "mm", "other"]);
    test.routes.default = vec!["mm".into(), "chat".into()];
    test.routes.hosts.get_mut("web2").unwrap().channels = Some(vec!["mm".into()]);
    test.said("web1", "raid failed").said("web2", "hot");
    test.said("web1", "raid failed").said("web1", "raid failed");
    let mut jobs = test.start();
    while !jobs.is_empty() {
        for job in &jobs {
            let dead = job.delivery.channel == "mm";
            test.finish(job, if dead { unreachable() } else { Ok(Delivered::default()) });
        }
        jobs = test.start();
    }
    test.wait(7 * HOUR).expire();
    let jobs = test.start();
    let titles: Vec<_> = jobs
        .iter()
        .map(|job| format!("{}: {}", job.delivery.channel, job.delivery.message.title))
        .collect();
    assert!(titles.contains(&format!("chat: {FOUR}")), "{titles:?}");
    assert!(!titles.iter().any(|title| title.starts_with("other")), "{titles:?}");
    let details = &jobs[0].delivery.message.details;
    assert!(details.iter().any(|(_, text)| text.starts_with("warning: web2 hot [")), "{details:?}");
}

#[test]
fn what_is_given_up_later_becomes_part_of_the_notice_that_waits() {
    let mut test = TestOutbox::with(&["mm"]);
    for _ in 0..30 {
        test.said("web1", "raid failed");
        fail_all(&mut test);
        test.wait(7 * HOUR).expire();
        assert_eq!(test.outbox.len(), 1);
    }
    let job = test.one();
    let message = &job.delivery.message;
    let title = "30 messages were given up while mm could not be reached: \
                 web1 raid failed (20 times) and 10 more";
    assert_eq!(message.title, title);
    assert_eq!(message.details.len(), 22, "twenty, how many more, why");
}

#[test]
fn notices_about_a_channel_that_stays_dead_become_rarer() {
    let mut test = TestOutbox::with(&["chat", "mm"]);
    let mut told = 0;
    for _ in 0..9 * 60 {
        test.said("web1", "raid failed");
        test.wait(MINUTE);
        loop {
            let jobs = test.start();
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                let is_notice = job.delivery.given_up.is_some();
                told += usize::from(is_notice && job.delivery.channel == "chat");
                let dead = job.delivery.channel == "mm";
                test.finish(&job, if dead { unreachable() } else { Ok(Delivered::default()) });
            }
        }
        test.expire();
    }
    assert!((7..=12).contains(&told), "{told} in three hours");
}

#[test]
fn two_dead_channels_do_not_tell_each_other_of_their_notices() {
    let mut test = TestOutbox::with(&["a", "b"]);
    test.said("web1", "raid failed");
    for _ in 0..50 {
        fail_all(&mut test);
        test.wait(7 * HOUR).expire();
        assert!(test.outbox.len() <= 4);
    }
    let mut told = test.drain();
    told.sort();
    let one = |channel: &str, lost: &str| {
        format!(
            "{channel}: 1 message was given up while {lost} could not be reached: web1 raid failed"
        )
    };
    assert_eq!(told, [one("a", "a"), one("a", "b"), one("b", "a"), one("b", "b")]);
}

#[test]
fn what_a_provider_refuses_is_told_in_true_words() {
    let mut test = TestOutbox::with(&["chat", "mm"]);
    test.said("web1", "raid failed");
    for job in test.start() {
        let dead = job.delivery.channel == "mm";
        let refused = Err(Failure::MessageRefused("too rude".into()));
        test.finish(&job, if dead { refused } else { Ok(Delivered::default()) });
    }
    test.report();
    let title = "1 message was given up because mm refused it: web1 raid failed";
    let mut jobs = test.start();
    assert!(jobs.iter().all(|job| job.delivery.message.title == title), "{jobs:?}");
    let own = jobs.remove(1);
    // The words may be what is refused; then no notice is made of that one.
    test.finish(&own, Err(Failure::MessageRefused("too rude".into())));
    let own = test.start().remove(0);
    assert_eq!(own.delivery.message.title, "1 message was given up because mm refused it");
    test.finish(&own, Err(Failure::MessageRefused("too rude".into())));
    test.finish(&jobs[0], Ok(Delivered::default()));
    assert!(test.report().outbox.is_empty() && test.start().is_empty());
}

#[test]
fn a_channel_that_refuses_everything_was_reached() {
    let mut test = TestOutbox::with(&["mm"]);
    test.said("web1", "raid failed");
    let job = test.one();
    test.finish(&job, Err(Failure::channel_refused("bad token")));
    test.wait(7 * HOUR).expire();
    let title = "mm: 1 message was given up while mm refused everything: web1 raid failed";
    assert_eq!(test.drain(), [title]);
}

#[test]
fn an_alarm_that_was_given_up_is_told_with_its_end_or_before_it() {
    // It ends while the notice waits.
    let mut test = TestOutbox::with(&["mm"]);
    test.overdue("web1");
    fail_all(&mut test);
    test.wait(25 * HOUR).expire();
    fail_all(&mut test);
    test.back("web1");
    let over = "mm: 1 message was given up while mm could not be reached: web1 ipv4 overdue (over)";
    assert_eq!(test.wait(HOUR).drain(), [over]);

    // It ends after the notice arrived.
    let mut test = TestOutbox::with(&["mm"]);
    test.overdue("web1");
    fail_all(&mut test);
    test.wait(25 * HOUR).expire();
    let open = "mm: 1 message was given up while mm could not be reached: web1 ipv4 overdue";
    assert_eq!(test.drain(), [open]);
    let job = test.back("web1").one();
    assert_eq!(job.delivery.message.title, "web1 ipv4 is back");
    assert_eq!(job.delivery.recovered_events.len(), 1, "the notice is taken back");

    // It ended before it was given up.
    let mut test = TestOutbox::with(&["mm"]);
    test.overdue("web1").back("web1");
    fail_all(&mut test);
    test.wait(25 * HOUR).expire();
    let job = test.one();
    assert_eq!(
        job.delivery.message.title,
        "2 messages were given up while mm could not be reached: \
         web1 ipv4 overdue (over), web1 ipv4 is back"
    );
    assert_eq!(job.delivery.message.level, Level::Info, "no phone rings for what is over");
}

/// An alarm was given up, and ended while the notice of that was in flight.
fn in_flight_at_the_end() -> (TestOutbox, DeliveryAttempt) {
    let mut test = TestOutbox::with(&["mm"]);
    test.overdue("web1");
    fail_all(&mut test);
    test.wait(25 * HOUR).expire();
    let job = test.one();
    test.back("web1");
    (test, job)
}

#[test]
fn an_alarm_that_ends_while_its_notice_is_in_flight_has_an_end() {
    let (mut test, job) = in_flight_at_the_end();
    test.finish(&job, Ok(Delivered::default()));
    assert_eq!(test.drain(), ["mm: web1 ipv4 is back"]);
}

#[test]
fn the_end_of_an_alarm_was_told_though_the_notice_of_it_never_arrived() {
    let refused = Failure::MessageRefused("too odd".into());
    for (failure, has_end) in [
        (Failure::unreachable("down"), false),
        (refused, false),
        (Failure::channel_refused("no"), false),
        (Failure::Unknown("lost".into()), true),
    ] {
        let (mut test, job) = in_flight_at_the_end();
        test.finish(&job, Err(failure.clone()));
        let told = test.wait(HOUR).drain();
        assert_eq!(told.contains(&"mm: web1 ipv4 is back".to_owned()), has_end, "{failure:?}");
        assert_eq!(told.len(), 1 + usize::from(has_end), "{failure:?}: {told:?}");
        assert!(test.outbox.is_empty());
    }
}

#[test]
fn after_a_crash_in_the_attempt_of_a_notice_the_end_follows() {
    let (mut test, _) = in_flight_at_the_end();
    test.crash(&mut BTreeMap::new());
    let told = test.wait(HOUR).drain();
    assert!(told.iter().any(|line| line == "mm: web1 ipv4 is back"), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn a_message_for_several_recipients_is_one_message() {
    let recipients = vec![Some("ann".into()), Some("bob".into()), Some("eve".into())];
    let settings = QueueSettings { retry_policy: pace(), recipients };
    let mut test = TestOutbox::with(&["mail"]);
    test.outbox = Outbox::new(BTreeMap::from([("mail".to_owned(), settings)]), 7, test.now);
    for number in 0..30 {
        test.said("web1", &number.to_string());
    }
    fail_all(&mut test);
    test.wait(7 * HOUR).expire();
    let told = drain_to(&mut test, "mail");
    assert_eq!(told.len(), 3, "each recipient hears of it");
    assert!(told[0].starts_with("30 messages were given up while mail could not be reached: "));

    test.said("web1", "hello");
    let job = test.one();
    test.finish(&job, Err(Failure::MessageRefused("no such user".into())));
    let told = {
        let others = test.drain();
        test.wait(2 * MINUTE).report();
        assert_eq!(others.len(), 2);
        test.wait(2 * HOUR).drain()
    };
    let title = "mail: 1 message was given up because mail refused it for ann: web1 hello";
    assert_eq!(told, [title; 3]);
}

#[test]
fn each_channel_hears_of_its_own_hosts_and_no_host_is_forgotten_for_the_number_of_others() {
    let mut test = TestOutbox::with(&["db", "mm", "web"]);
    let own = |team: &str| Some(vec!["mm".to_owned(), team.to_owned()]);
    test.routes.default = vec!["mm".into()];
    test.routes.hosts.get_mut("web1").unwrap().channels = own("web");
    test.routes.hosts.get_mut("web2").unwrap().channels = own("db");
    for number in 0..25 {
        test.said("web1", &format!("noise {number}"));
    }
    test.said("web2", "raid failed");
    for _ in 0..100 {
        for job in test.start() {
            let dead = job.delivery.channel == "mm";
            test.finish(&job, if dead { unreachable() } else { Ok(Delivered::default()) });
        }
    }
    test.wait(7 * HOUR).expire();
    let told = test.drain();
    let of = |channel: &str| {
        let of: Vec<_> = told.iter().filter(|line| line.starts_with(channel)).collect();
        assert_eq!(of.len(), 1, "{told:?}");
        of[0].clone()
    };
    assert_eq!(
        of("db: "),
        "db: 1 message was given up while mm could not be reached: web2 raid failed"
    );
    assert!(of("web: ").starts_with("web: 25 messages were") && !of("web: ").contains("raid"));
    assert!(of("mm: ").starts_with("mm: 26 messages were given up"));
}
