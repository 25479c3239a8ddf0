//! What becomes one message, told by hand-moved time.

use super::*;
use crate::event::Level;

fn lines(job: &DeliveryAttempt) -> Vec<String> {
    job.delivery.message.details.iter().map(|(_, text)| text.clone()).collect()
}

/// The words of a line without the number of its event.
fn words_of(line: &str) -> &str {
    line.split(" [").next().unwrap()
}

impl TestOutbox {
    /// One attempt fails, so that what comes now builds up.
    fn fail_once(&mut self) -> &mut TestOutbox {
        let job = self.one();
        self.finish(&job, unreachable());
        self
    }
}

#[test]
fn an_alarm_and_its_end_that_are_both_unsent_become_one_message() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).overdue("web1").fail_once();
    let job = test.wait(3 * MINUTE).back("web1").one();
    let message = &job.delivery.message;
    assert_eq!(message.title, "web1 ipv4 overdue, then web1 ipv4 is back");
    assert_eq!(message.level, Level::Ok, "nobody is woken for what is over");
    assert_eq!(message.thread, "web1 ipv4");
    assert_eq!(message.subject, Subject::Host("web1".into()));
    let details = &message.details;
    assert_eq!(details[0].0, "2027-01-15 08:00:00 UTC");
    assert_eq!(words_of(&details[0].1), "critical, over: web1 ipv4 overdue");
    assert_eq!(details[1].0, "2027-01-15 08:03:00 UTC");
    assert_eq!(words_of(&details[1].1), "ok: web1 ipv4 is back");
    assert_eq!(details[2].1, "while chat could not be reached");
    assert_eq!(
        test.finish(&job, Ok(Delivered::default())),
        DeliveryResult::Delivered { events: 2 }
    );
    assert!(test.outbox.is_empty());
}

impl TestOutbox {
    /// A connection of web1 falls due, or is back.
    fn connection(&mut self, name: &str, level: Level) -> &mut TestOutbox {
        let (host, connection) = ("web1".to_owned(), name.to_owned());
        if level == Level::Ok {
            let gone = Duration::from_secs(u64::from(name.as_bytes()[3]));
            return self.accept(level, EventKind::Back { host, connection, gone });
        }
        let kind = EventKind::Overdue {
            host,
            connection,
            last_seen: Wall(i64::from(name.as_bytes()[3]) * 1000),
            promised: Wall(0),
            others_down: vec!["db1".into()],
            others_count: 1,
            was_last_up: level == Level::Critical,
            clock: None,
            behind_it: Vec::new(),
            behind_count: 0,
        };
        self.accept(level, kind)
    }
}

#[test]
fn both_connections_of_a_host_that_went_and_came_rang_the_phone_four_times() {
    let mut test = TestOutbox::with(&["chat"]);
    test.outbox.set_public_url(Some("https://hbd.example.com".into()));
    test.digesting(3500).connection("ipv4", Level::Warning).connection("ipv6", Level::Critical);
    let job = test.one();
    let message = &job.delivery.message;
    assert_eq!(message.link.as_deref(), Some("https://hbd.example.com/hosts/web1"));
    assert_eq!(message.title, "web1 ipv4 overdue\nweb1 ipv6 overdue");
    assert_eq!((message.level, message.subject.to_string()), (Level::Critical, "host web1".into()));
    let labels: Vec<&str> = message.details.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["ipv4 last seen", "ipv6 last seen", "promised", "not heard for"]);
    assert_eq!(
        test.finish(&job, Ok(Delivered::default())),
        DeliveryResult::Delivered { events: 2 }
    );
    // Back: the first one waits for the second, a second at most.
    test.wait(MINUTE).connection("ipv6", Level::Ok);
    assert!(test.start().is_empty());
    let soon = test.outbox.queues["chat"].next_start(test.now.mono);
    assert_eq!(soon, Some(test.now.mono + Duration::from_secs(1)));
    test.wait(Duration::from_millis(700)).connection("ipv4", Level::Ok);
    assert_eq!(test.drain(), ["chat: web1 ipv6 is back\nweb1 ipv4 is back"]);
    assert!(test.outbox.is_empty());
}

#[test]
fn what_is_alone_waits_for_nothing_or_a_second() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).connection("ipv4", Level::Warning);
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue"]);
    test.wait(MINUTE).connection("ipv6", Level::Critical);
    assert_eq!(test.drain(), ["chat: web1 ipv6 overdue"]);
    test.wait(MINUTE).connection("ipv4", Level::Ok);
    assert!(test.drain().is_empty());
    test.wait(Duration::from_secs(1));
    assert_eq!(test.drain(), ["chat: web1 ipv4 is back"]);
    test.wait(MINUTE).connection("ipv6", Level::Ok);
    assert_eq!(test.drain(), ["chat: web1 ipv6 is back"], "no other one is down");
    // What comes after it does not wait with it.
    test.connection("ipv4", Level::Warning).connection("ipv6", Level::Critical).drain();
    test.connection("ipv4", Level::Ok).said("web1", "hello");
    assert_eq!(test.drain(), ["chat: web1 ipv4 is back", "chat: web1 hello"]);
}

#[test]
fn an_alarm_waited_with_the_recovery_behind_it() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).connection("ipv4", Level::Warning).drain();
    test.connection("ipv6", Level::Critical).drain();
    test.metric(Level::Critical, false).wait(MINUTE).connection("ipv4", Level::Ok);
    assert_eq!(
        test.drain(),
        ["chat: CRITICAL: web1 - m = 1.0 (threshold: > 0.0)", "chat: web1 ipv4 is back"]
    );
}

#[test]
fn a_message_for_two_that_is_refused_is_sent_as_two() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).connection("ipv4", Level::Warning).connection("ipv6", Level::Critical);
    let job = test.one();
    test.finish(&job, Err(Failure::MessageRefused("too long".into())));
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv6 overdue"]);
}

#[test]
fn nothing_is_collapsed_while_the_channel_works() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).overdue("web1").back("web1");
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv4 is back"]);
}

#[test]
fn an_alarm_that_may_have_arrived_is_not_collapsed() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).overdue("web1");
    let job = test.one();
    test.finish(&job, Err(Failure::Unknown("no answer".into())));
    test.wait(MINUTE).back("web1");
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv4 is back"]);
}

#[test]
fn every_level_of_one_alarm_is_collapsed_with_its_end() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).metric(Level::Warning, false).fail_once();
    test.metric(Level::Critical, false).metric(Level::Critical, true).metric(Level::Ok, false);
    let job = test.wait(MINUTE).one();
    let title = &job.delivery.message.title;
    assert!(title.starts_with("CRITICAL: web1 - m = 1.0"), "{title}");
    assert!(title.ends_with("then OK: web1 - m = 1.0 (threshold: > 0.0) (4 events in all)"));
}

#[test]
fn a_rise_that_is_over_ends_what_was_told_before() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).metric(Level::Warning, false).drain();
    let told = test.event;
    test.metric(Level::Critical, false).fail_once();
    let job = test.metric(Level::Ok, false).wait(MINUTE).one();
    assert_eq!(job.delivery.message.level, Level::Ok, "who was told hears that it is over");
    assert_eq!(job.delivery.recovered_events, [told]);
}

#[test]
fn what_goes_on_is_not_hidden_by_what_is_over() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).overdue("web1").fail_once();
    test.said("web1", "the fan is loud").back("web1").overdue("web1").wait(MINUTE);
    let job = test.one();
    assert_eq!(job.delivery.message.level, Level::Warning);
    assert_eq!(words_of(&lines(&job)[1]), "warning: web1 the fan is loud");
    test.finish(&job, Ok(Delivered::default()));
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue"]);
}

#[test]
fn more_than_ten_that_wait_become_a_digest_critical_first() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).said("web3", "first").fail_once();
    for n in 0..8 {
        test.said("web2", &n.to_string());
    }
    test.overdue("web1").back("web1").said("web2", "then this").overdue("web2");
    let job = test.wait(MINUTE).one();
    let message = &job.delivery.message;
    assert_eq!(message.title, "13 events while chat could not be reached: 1 critical, 10 warning");
    assert_eq!((message.level, &message.subject), (Level::Critical, &Subject::Daemon));
    let lines = lines(&job);
    let told: Vec<&str> = lines.iter().map(|line| words_of(line)).collect();
    assert_eq!(told[0], "warning: web2 0", "it comes before what is critical about its host");
    assert_eq!(told[9], "critical: web2 ipv4 overdue");
    assert_eq!(
        told[10..],
        ["warning: web3 first", "critical, over: web1 ipv4 overdue", "ok: web1 ipv4 is back"]
    );
    assert_eq!(
        test.finish(&job, Ok(Delivered::default())),
        DeliveryResult::Delivered { events: 13 }
    );
    let records: Vec<DeliveryRecord> = test
        .outbox
        .take_writes()
        .into_iter()
        .filter(|write| write.table == Table::History)
        .map(|write| serde_json::from_slice(&write.value.unwrap()).unwrap())
        .collect();
    assert_eq!(records.len(), 13, "the history has each");
    assert!(records.iter().all(|record| record.delivered && record.told_in == Some(message.event)));
    test.back("web2");
    assert_eq!(test.drain(), ["chat: web2 ipv4 is back"], "the digest told of the alarm");
}

#[test]
fn a_digest_does_not_hang_on_the_thread_of_its_first_event() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).overdue("web1");
    let job = test.one();
    let post = Delivered { thread: Some("post1".into()), ..Delivered::default() };
    test.finish(&job, Ok(post));
    test.overdue("web1").fail_once();
    for n in 0..12 {
        test.said("web2", &n.to_string());
    }
    let job = test.wait(MINUTE).one();
    assert!(job.delivery.message.details.len() > 10);
    assert_eq!(job.delivery.thread, None);
}

#[test]
fn what_does_not_fit_stays_for_the_next_digest() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(880).said("web1", "0").fail_once();
    for n in 1..40 {
        test.said("web1", &n.to_string());
    }
    test.wait(MINUTE);
    let (mut told, mut digests) = (Vec::new(), 0);
    while let [job] = test.start().as_slice() {
        let job = job.clone();
        let message = &job.delivery.message;
        let said = lines(&job);
        let size: usize = message.details.iter().map(|(l, t)| l.len() + t.len() + 3).sum();
        assert!(size + message.title.len() <= 880);
        digests += u32::from(!said.is_empty());
        told.extend(said.iter().filter(|line| line.starts_with("warning")).cloned());
        if said.is_empty() {
            told.push(format!("warning: {} [", message.title));
        }
        test.finish(&job, Ok(Delivered::default()));
    }
    let told: Vec<_> = told.iter().map(|line| words_of(line).to_owned()).collect();
    let wanted: Vec<_> = (0..40).map(|n| format!("warning: web1 {n}")).collect();
    assert_eq!(told, wanted, "everything, once, in order");
    assert!(digests > 2);
}

#[test]
fn a_rate_limit_that_holds_makes_a_digest_too() {
    let mut test = TestOutbox::with(&["chat"]);
    let room = Some(TextLimit { max: 3500, unit: TextUnit::Characters });
    let slow = RetryPolicy { per_minute: 10, burst: 1, digest: room, ..pace() };
    let slow = QueueSettings { retry_policy: slow, recipients: vec![None] };
    test.outbox = Outbox::new(BTreeMap::from([("chat".to_owned(), slow)]), 7, test.now);
    for n in 0..12 {
        test.said("web1", &n.to_string());
    }
    assert_eq!(test.drain(), ["chat: web1 0"]);
    let job = test.wait(7 * Duration::from_secs(1)).one();
    assert_eq!(
        job.delivery.message.title,
        "11 events while chat was held back by its rate limit: 11 warning"
    );
}

#[test]
fn a_digest_that_was_under_way_at_a_crash_is_a_possible_repeat_as_a_whole() {
    let mut disk = BTreeMap::new();
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).overdue("web1").fail_once();
    for n in 0..12 {
        test.said("web2", &n.to_string());
    }
    let before = test.wait(MINUTE).one();
    test.crash(&mut disk);
    test.back("web1").said("web2", "later");
    let after = test.wait(MINUTE).one();
    assert!(after.delivery.possible_repeat && !before.delivery.possible_repeat);
    assert_eq!(after.delivery.message, before.delivery.message);
    test.finish(&after, Ok(Delivered::default()));
    assert_eq!(test.drain(), ["chat: web1 ipv4 is back", "chat: web2 later"]);
    test.write_to(&mut disk);
    assert!(disk.keys().all(|(table, _)| *table == Table::History), "{disk:?}");
}

#[test]
fn a_queue_that_built_up_before_a_restart_becomes_a_digest_too() {
    let mut disk = BTreeMap::new();
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).said("web1", "0").fail_once();
    for n in 1..12 {
        test.said("web1", &n.to_string());
    }
    test.crash(&mut disk);
    let title = test.one().delivery.message.title.clone();
    assert!(title.starts_with("12 events while chat could not be reached"), "{title}");
}

#[test]
fn a_digest_that_is_refused_comes_apart() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).said("web1", "0").fail_once();
    for n in 1..12 {
        test.said("web1", &n.to_string());
    }
    let job = test.wait(MINUTE).one();
    test.finish(&job, Err(Failure::FormRefused("too big".into())));
    assert_eq!(test.drain().len(), 12);
}

#[test]
fn a_text_that_a_provider_chokes_on_holds_up_only_itself() {
    let mut test = TestOutbox::with(&["chat"]);
    test.digesting(3500).said("web3", "poison").fail_once();
    for n in 0..20 {
        test.said(if n % 2 == 0 { "web1" } else { "web2" }, &n.to_string());
    }
    for _ in 0..100 {
        let job = test.wait(6 * MINUTE).one();
        let message = &job.delivery.message;
        let poisoned = message.title.contains("poison")
            || message.details.iter().any(|(_, text)| text.contains("poison"));
        let result = if poisoned { unreachable() } else { Ok(Delivered::default()) };
        test.finish(&job, result);
    }
    assert_eq!(test.outbox.len(), 1, "all but one arrived");
}

#[test]
fn an_alarm_that_is_given_up_takes_its_end_with_it() {
    let mut test = TestOutbox::with(&["chat"]);
    test.overdue("web1");
    let job = test.one();
    test.back("web1");
    let ended =
        test.outbox.complete(job.id, Err(Failure::MessageRefused("no such user".into())), test.now);
    let whys: Vec<_> = ended.iter().filter_map(|(_, record)| record.why.as_deref()).collect();
    assert_eq!(whys, ["no such user", "the alarm that it ends never arrived"]);
    assert!(test.outbox.is_empty());
}

#[test]
fn the_end_of_an_alarm_that_still_waits_is_not_given_up_before_it() {
    let mut test = TestOutbox::with(&["chat"]);
    test.overdue("web1").fail_once();
    test.back("web1").wait(5 * HOUR);
    let now = test.now;
    assert!(test.outbox.expire(now).is_empty(), "an ok lives an hour, its alarm a day");
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv4 is back"]);
}

#[test]
fn an_emergency_that_told_of_several_is_taken_back_with_the_last_of_them() {
    let mut test = TestOutbox::with(&["pager"]);
    test.digesting(3500).overdue("web1").fail_once();
    test.overdue("web2");
    for n in 0..12 {
        test.said("web3", &n.to_string());
    }
    let digest = test.wait(MINUTE).one();
    let done = Delivered { receipt: Some("r1".into()), thread: None };
    test.finish(&digest, Ok(done));
    let number = digest.delivery.message.event;
    let first = test.back("web1").one();
    assert!(!first.delivery.recovered_events.contains(&number), "web2 is still down");
    test.finish(&first, Ok(Delivered::default()));
    assert!(test.back("web2").one().delivery.recovered_events.contains(&number));
}
