//! What becomes one message, told by hand-moved time.

use super::*;
use crate::event::Level;

fn lines(job: &Job) -> Vec<String> {
    job.delivery.message.details.iter().map(|(_, text)| text.clone()).collect()
}

/// The words of a line without the number of its event.
fn words_of(line: &str) -> &str {
    line.split(" [").next().unwrap()
}

impl Play {
    /// One attempt fails, so that what comes now builds up.
    fn fail_once(&mut self) -> &mut Play {
        let job = self.one();
        self.finish(&job, unreachable());
        self
    }

    fn metric(&mut self, level: Level, reminder: bool) -> &mut Play {
        self.accept(
            level,
            EventKind::Threshold {
                host: "web1".into(),
                metric: "m".into(),
                value: 1.0,
                limit: "> 0.0".into(),
                level,
                since: Wall(0),
                reminder,
            },
        )
    }
}

#[test]
fn an_alarm_and_its_end_that_are_both_unsent_become_one_message() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).overdue("web1").fail_once();
    let job = play.wait(3 * MINUTE).back("web1").one();
    let message = &job.delivery.message;
    assert_eq!(message.title, "web1 ipv4 overdue, then web1 ipv4 is back");
    assert_eq!(message.level, Level::Ok, "nobody is woken for what is over");
    assert_eq!(message.thread, "web1 ipv4");
    assert_eq!(message.subject, Subject::Host("web1".into()));
    let details = &message.details;
    assert_eq!(details[0].0, "2027-01-15T08:00:00.000Z");
    assert_eq!(words_of(&details[0].1), "critical, over: web1 ipv4 overdue");
    assert_eq!(details[1].0, "2027-01-15T08:03:00.000Z");
    assert_eq!(words_of(&details[1].1), "ok: web1 ipv4 is back");
    assert_eq!(details[2].1, "while chat could not be reached");
    assert_eq!(play.finish(&job, Ok(Delivered::default())), Fate::Delivered { events: 2 });
    assert!(play.outbox.is_empty());
}

#[test]
fn nothing_is_collapsed_while_the_channel_works() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).overdue("web1").back("web1");
    assert_eq!(play.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv4 is back"]);
}

#[test]
fn an_alarm_that_may_have_arrived_is_not_collapsed() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).overdue("web1");
    let job = play.one();
    play.finish(&job, Err(Failure::Unknown("no answer".into())));
    play.wait(MINUTE).back("web1");
    assert_eq!(play.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv4 is back"]);
}

#[test]
fn every_level_of_one_alarm_is_collapsed_with_its_end() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).metric(Level::Warning, false).fail_once();
    play.metric(Level::Critical, false).metric(Level::Critical, true).metric(Level::Ok, false);
    let job = play.wait(MINUTE).one();
    let title = &job.delivery.message.title;
    assert!(title.starts_with("CRITICAL: web1 - m = 1.0"), "{title}");
    assert!(title.ends_with("then OK: web1 - m = 1.0 (threshold: > 0.0) (4 events in all)"));
}

#[test]
fn a_rise_that_is_over_ends_what_was_told_before() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).metric(Level::Warning, false).drain();
    let told = play.event;
    play.metric(Level::Critical, false).fail_once();
    let job = play.metric(Level::Ok, false).wait(MINUTE).one();
    assert_eq!(job.delivery.message.level, Level::Ok, "who was told hears that it is over");
    assert_eq!(job.delivery.ends, [told]);
}

#[test]
fn what_goes_on_is_not_hidden_by_what_is_over() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).overdue("web1").fail_once();
    play.said("web1", "the fan is loud").back("web1").overdue("web1").wait(MINUTE);
    let job = play.one();
    assert_eq!(job.delivery.message.level, Level::Warning);
    assert_eq!(words_of(&lines(&job)[1]), "warning: web1 the fan is loud");
    play.finish(&job, Ok(Delivered::default()));
    assert_eq!(play.drain(), ["chat: web1 ipv4 overdue"]);
}

#[test]
fn more_than_ten_that_wait_become_a_digest_critical_first() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).said("web3", "first").fail_once();
    for n in 0..8 {
        play.said("web2", &n.to_string());
    }
    play.overdue("web1").back("web1").said("web2", "then this").overdue("web2");
    let job = play.wait(MINUTE).one();
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
    assert_eq!(play.finish(&job, Ok(Delivered::default())), Fate::Delivered { events: 13 });
    let records: Vec<Record> = play
        .outbox
        .take_writes()
        .into_iter()
        .filter(|write| write.table == Table::History)
        .map(|write| serde_json::from_slice(&write.value.unwrap()).unwrap())
        .collect();
    assert_eq!(records.len(), 13, "the history has each");
    assert!(records.iter().all(|record| record.delivered && record.told_in == Some(message.event)));
    play.back("web2");
    assert_eq!(play.drain(), ["chat: web2 ipv4 is back"], "the digest told of the alarm");
}

#[test]
fn a_digest_does_not_hang_on_the_thread_of_its_first_event() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).overdue("web1");
    let job = play.one();
    let post = Delivered { thread: Some("post1".into()), ..Delivered::default() };
    play.finish(&job, Ok(post));
    play.overdue("web1").fail_once();
    for n in 0..12 {
        play.said("web2", &n.to_string());
    }
    let job = play.wait(MINUTE).one();
    assert!(job.delivery.message.details.len() > 10);
    assert_eq!(job.delivery.thread, None);
}

#[test]
fn what_does_not_fit_stays_for_the_next_digest() {
    let mut play = Play::with(&["chat"]);
    play.digesting(880).said("web1", "0").fail_once();
    for n in 1..40 {
        play.said("web1", &n.to_string());
    }
    play.wait(MINUTE);
    let (mut told, mut digests) = (Vec::new(), 0);
    while let [job] = play.start().as_slice() {
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
        play.finish(&job, Ok(Delivered::default()));
    }
    let told: Vec<_> = told.iter().map(|line| words_of(line).to_owned()).collect();
    let wanted: Vec<_> = (0..40).map(|n| format!("warning: web1 {n}")).collect();
    assert_eq!(told, wanted, "everything, once, in order");
    assert!(digests > 2);
}

#[test]
fn a_rate_limit_that_holds_makes_a_digest_too() {
    let mut play = Play::with(&["chat"]);
    let room = Some(Room { most: 3500, unit: Unit::Characters });
    let slow = Pace { per_minute: 10, burst: 1, digest: room, ..pace() };
    let slow = LineSettings { pace: slow, recipients: vec![None] };
    play.outbox = Outbox::new(BTreeMap::from([("chat".to_owned(), slow)]), 7, play.now);
    for n in 0..12 {
        play.said("web1", &n.to_string());
    }
    assert_eq!(play.drain(), ["chat: web1 0"]);
    let job = play.wait(7 * Duration::from_secs(1)).one();
    assert_eq!(
        job.delivery.message.title,
        "11 events while chat was held back by its rate limit: 11 warning"
    );
}

#[test]
fn a_digest_that_was_under_way_at_a_crash_is_a_possible_repeat_as_a_whole() {
    let mut disk = BTreeMap::new();
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).overdue("web1").fail_once();
    for n in 0..12 {
        play.said("web2", &n.to_string());
    }
    let before = play.wait(MINUTE).one();
    play.crash(&mut disk);
    play.back("web1").said("web2", "later");
    let after = play.wait(MINUTE).one();
    assert!(after.delivery.possible_repeat && !before.delivery.possible_repeat);
    assert_eq!(after.delivery.message, before.delivery.message);
    play.finish(&after, Ok(Delivered::default()));
    assert_eq!(play.drain(), ["chat: web1 ipv4 is back", "chat: web2 later"]);
    play.write_to(&mut disk);
    assert!(disk.keys().all(|(table, _)| *table == Table::History), "{disk:?}");
}

#[test]
fn a_queue_that_built_up_before_a_restart_becomes_a_digest_too() {
    let mut disk = BTreeMap::new();
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).said("web1", "0").fail_once();
    for n in 1..12 {
        play.said("web1", &n.to_string());
    }
    play.crash(&mut disk);
    let title = play.one().delivery.message.title.clone();
    assert!(title.starts_with("12 events while chat could not be reached"), "{title}");
}

#[test]
fn a_digest_that_is_refused_comes_apart() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).said("web1", "0").fail_once();
    for n in 1..12 {
        play.said("web1", &n.to_string());
    }
    let job = play.wait(MINUTE).one();
    play.finish(&job, Err(Failure::FormRefused("too big".into())));
    assert_eq!(play.drain().len(), 12);
}

#[test]
fn a_text_that_a_provider_chokes_on_holds_up_only_itself() {
    let mut play = Play::with(&["chat"]);
    play.digesting(3500).said("web3", "poison").fail_once();
    for n in 0..20 {
        play.said(if n % 2 == 0 { "web1" } else { "web2" }, &n.to_string());
    }
    for _ in 0..100 {
        let job = play.wait(6 * MINUTE).one();
        let message = &job.delivery.message;
        let poisoned = message.title.contains("poison")
            || message.details.iter().any(|(_, text)| text.contains("poison"));
        let result = if poisoned { unreachable() } else { Ok(Delivered::default()) };
        play.finish(&job, result);
    }
    assert_eq!(play.outbox.len(), 1, "all but one arrived");
}

#[test]
fn an_alarm_that_is_given_up_takes_its_end_with_it() {
    let mut play = Play::with(&["chat"]);
    play.overdue("web1");
    let job = play.one();
    play.back("web1");
    let ended =
        play.outbox.finish(job.id, Err(Failure::MessageRefused("no such user".into())), play.now);
    let whys: Vec<_> = ended.iter().filter_map(|(_, record)| record.why.as_deref()).collect();
    assert_eq!(whys, ["no such user", "the alarm that it ends never arrived"]);
    assert!(play.outbox.is_empty());
}

#[test]
fn the_end_of_an_alarm_that_still_waits_is_not_given_up_before_it() {
    let mut play = Play::with(&["chat"]);
    play.overdue("web1").fail_once();
    play.back("web1").wait(5 * HOUR);
    let now = play.now;
    assert!(play.outbox.expire(now).is_empty(), "an ok lives an hour, its alarm a day");
    assert_eq!(play.drain(), ["chat: web1 ipv4 overdue", "chat: web1 ipv4 is back"]);
}

#[test]
fn an_emergency_that_told_of_several_is_taken_back_with_the_last_of_them() {
    let mut play = Play::with(&["pager"]);
    play.digesting(3500).overdue("web1").fail_once();
    play.overdue("web2");
    for n in 0..12 {
        play.said("web3", &n.to_string());
    }
    let digest = play.wait(MINUTE).one();
    let done = Delivered { receipt: Some("r1".into()), thread: None };
    play.finish(&digest, Ok(done));
    let number = digest.delivery.message.event;
    let first = play.back("web1").one();
    assert!(!first.delivery.ends.contains(&number), "web2 is still down");
    play.finish(&first, Ok(Delivered::default()));
    assert!(play.back("web2").one().delivery.ends.contains(&number));
}
