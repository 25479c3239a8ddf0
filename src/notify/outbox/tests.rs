//! How the outbox behaves, told by hand-moved time.

#[cfg(test)]
#[path = "digest_tests.rs"]
mod digests;
#[cfg(test)]
#[path = "given_up_tests.rs"]
mod given_up_tests;
#[cfg(test)]
#[path = "property_tests.rs"]
mod properties;
#[cfg(test)]
#[path = "receipt_tests.rs"]
mod receipt_tests;
#[cfg(test)]
#[path = "recipient_tests.rs"]
mod recipient_tests;
#[cfg(test)]
#[path = "reminder_tests.rs"]
mod reminder_tests;
#[cfg(test)]
#[path = "shared_property_tests.rs"]
mod shared_properties;
#[cfg(test)]
#[path = "succession_tests.rs"]
mod succession_tests;

use serde_json::Value;

use super::*;
use crate::event::{Level, Subject};
use crate::notify::channel::{Delivered, RetryPolicy, Scope};
use crate::notify::routing;
use crate::notify::text::{TextLimit, TextUnit};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn pace() -> RetryPolicy {
    RetryPolicy {
        first_delay: Duration::from_secs(5),
        max_delay: 5 * MINUTE,
        per_minute: 60_000,
        burst: 1000,
        give_up_critical: 24 * HOUR,
        give_up_warning: 6 * HOUR,
        give_up_other: HOUR,
        digest: None,
    }
}

fn settings(names: &[&str]) -> BTreeMap<String, QueueSettings> {
    names
        .iter()
        .map(|name| {
            (name.to_string(), QueueSettings { retry_policy: pace(), recipients: vec![None] })
        })
        .collect()
}

fn routes(names: &[&str]) -> Routes {
    let line = routing::ChannelRoute { min_level: Level::Info };
    Routes {
        channels: names.iter().map(|name| (name.to_string(), line.clone())).collect(),
        default: names.iter().map(|name| name.to_string()).collect(),
        hosts: ["web1", "web2", "web3"]
            .map(|host| (host.to_owned(), routing::HostRoute { watch: true, channels: None }))
            .into(),
        ..Routes::default()
    }
}

/// An outbox, its clock, and what it was told to send.
struct TestOutbox {
    outbox: Outbox,
    routes: Routes,
    now: Now,
    event: EventId,
}

impl TestOutbox {
    fn with(names: &[&str]) -> TestOutbox {
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_800_000_000_000) };
        TestOutbox {
            outbox: Outbox::new(settings(names), 7, now),
            routes: routes(names),
            now,
            event: EventId(0),
        }
    }

    fn wait(&mut self, by: Duration) -> &mut TestOutbox {
        self.now = self.now.later(by);
        self
    }

    /// Lets its channels take digests of so many characters.
    fn digesting(&mut self, most: usize) -> &mut TestOutbox {
        let names: Vec<String> = self.routes.channels.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut settings = settings(&names);
        for line in settings.values_mut() {
            line.retry_policy.digest = Some(TextLimit { max: most, unit: TextUnit::Characters });
        }
        self.outbox.reconfigure(settings, &self.routes, 7, self.now);
        self
    }

    fn accept(&mut self, level: Level, kind: EventKind) -> &mut TestOutbox {
        let event = Event { level, ..Event::new(self.now.wall, kind) };
        self.event = self.outbox.next_event(self.now.wall);
        let hearing = self.outbox.audience(&event, &self.routes);
        self.outbox.accept(&event, self.event, hearing, self.now);
        self
    }

    /// The metric m of web1 at a level.
    fn threshold(level: Level, reminder: bool) -> EventKind {
        EventKind::Threshold {
            host: "web1".into(),
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level,
            since: Wall(0),
            reminder,
        }
    }

    fn metric(&mut self, level: Level, reminder: bool) -> &mut TestOutbox {
        self.accept(level, TestOutbox::threshold(level, reminder))
    }

    fn overdue(&mut self, host: &str) -> &mut TestOutbox {
        self.accept(
            Level::Critical,
            EventKind::Overdue {
                host: host.into(),
                connection: "ipv4".into(),
                last_seen: Wall(0),
                promised: Wall(0),
                others_down: vec!["elsewhere".into()],
                others_count: 7,
                was_last_up: true,
                clock: None,
                behind_it: Vec::new(),
                behind_count: 0,
            },
        )
    }

    fn back(&mut self, host: &str) -> &mut TestOutbox {
        let kind =
            EventKind::Back { host: host.into(), connection: "ipv4".into(), gone: Duration::ZERO };
        self.accept(Level::Ok, kind)
    }

    fn said(&mut self, host: &str, text: &str) -> &mut TestOutbox {
        self.accept(Level::Warning, EventKind::HostMessage { host: host.into(), text: text.into() })
    }

    fn start(&mut self) -> Vec<DeliveryAttempt> {
        self.outbox.start(self.now)
    }

    fn one(&mut self) -> DeliveryAttempt {
        let mut jobs = self.start();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    fn finish(
        &mut self,
        job: &DeliveryAttempt,
        result: Result<Delivered, Failure>,
    ) -> DeliveryResult {
        self.outbox.complete(job.id, result, self.now).swap_remove(0).0
    }

    /// Sends everything that can be sent now; whom each message says to be overdue, too.
    fn drain_overdue(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for job in self.start() {
            let message = &job.delivery.message;
            let others = message.details.iter().find(|(label, _)| label == "also overdue");
            let others = others.map_or("-", |(_, text)| text);
            said.push(format!("{}: {} {others}", job.delivery.channel, message.host().unwrap()));
            self.finish(&job, Ok(Delivered::default()));
        }
        said
    }

    /// Sends everything that can be sent now; the titles in order.
    fn drain(&mut self) -> Vec<String> {
        let mut titles = Vec::new();
        loop {
            let jobs = self.start();
            if jobs.is_empty() {
                return titles;
            }
            for job in jobs {
                titles.push(format!("{}: {}", job.delivery.channel, job.delivery.message.title));
                self.finish(&job, Ok(Delivered::default()));
            }
        }
    }

    /// A crash: only what was written is there afterwards.
    fn crash(&mut self, disk: &mut BTreeMap<(Table, String), Vec<u8>>) {
        self.write_to(disk);
        let last_event = self.outbox.last_event();
        let lines = self.outbox.settings();
        self.outbox = Outbox::new(lines, 7, self.now);
        let rows = |table: Table| {
            disk.iter().filter(move |((of, _), _)| *of == table).map(|((_, key), row)| (key, row))
        };
        let deliveries = rows(Table::Outbox)
            .map(|(key, row)| (key.clone(), serde_json::from_slice(row).unwrap()))
            .collect();
        let incidents =
            rows(Table::Troubles).map(|(_, row)| serde_json::from_slice(row).unwrap()).collect();
        let receipts =
            rows(Table::Receipts).map(|(_, row)| serde_json::from_slice(row).unwrap()).collect();
        let kept = StoredOutbox { last_event, deliveries, incidents, receipts };
        self.outbox.restore(kept, self.now);
        self.outbox.take_over(&self.routes, self.now);
    }

    /// What the end of each turn does.
    fn report(&mut self) -> &mut TestOutbox {
        self.outbox.report_given_up(&self.routes, self.now);
        self
    }

    /// Gives up what has waited for too long.
    fn expire(&mut self) -> &mut TestOutbox {
        self.outbox.expire(self.now);
        self.report()
    }

    fn write_to(&mut self, disk: &mut BTreeMap<(Table, String), Vec<u8>>) {
        self.report();
        for write in self.outbox.take_writes() {
            match write.value {
                Some(value) => drop(disk.insert((write.table, write.key), value)),
                None => drop(disk.remove(&(write.table, write.key))),
            }
        }
    }
}

fn unreachable() -> Result<Delivered, Failure> {
    Err(Failure::unreachable("connection refused"))
}

#[test]
fn a_channel_has_one_delivery_in_flight() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1").overdue("web2");
    let job = test.one();
    assert!(test.start().is_empty());
    test.finish(&job, Ok(Delivered::default()));
    assert_eq!(test.one().delivery.message.title, "web2 ipv4 overdue");
}

#[test]
fn what_may_have_been_told_before_begins_as_a_possible_repeat_and_what_waits_already_does_not() {
    let mut test = TestOutbox::with(&["mail"]);
    test.said("web1", "first");
    let last = test.outbox.last_delivery();
    test.said("web2", "second");
    test.outbox.mark_as_repeats(last);
    let mut marked = Vec::new();
    for _ in 0..2 {
        let job = test.one();
        marked.push((job.delivery.message.title.clone(), job.delivery.possible_repeat));
        test.finish(&job, Ok(Delivered::default()));
    }
    assert_eq!(marked, [("web1 first".to_owned(), false), ("web2 second".to_owned(), true)]);
}

#[test]
fn a_recovery_never_overtakes_its_alarm() {
    let mut test = TestOutbox::with(&["mail"]);
    test.said("web2", "hello").overdue("web1");
    let job = test.one();
    assert_eq!(job.delivery.message.title, "web1 ipv4 overdue", "critical goes first");
    test.back("web1");
    test.finish(&job, unreachable());
    test.wait(MINUTE);
    assert_eq!(
        test.drain(),
        ["mail: web1 ipv4 overdue", "mail: web2 hello", "mail: web1 ipv4 is back"]
    );
}

#[test]
fn what_is_critical_pulls_what_came_before_it_about_the_same_host() {
    let mut test = TestOutbox::with(&["mail"]);
    test.said("web2", "first").said("web1", "second").overdue("web1");
    assert_eq!(test.drain(), ["mail: web1 second", "mail: web1 ipv4 overdue", "mail: web2 first"]);
}

#[test]
fn a_recovery_goes_to_those_who_were_given_the_trouble_and_to_no_other() {
    let mut test = TestOutbox::with(&["mail", "pager"]);
    test.routes.channels.get_mut("pager").unwrap().min_level = Level::Critical;
    test.said("web1", "quiet words");
    test.overdue("web1");
    test.routes.default = vec!["chat".into()];
    test.drain();
    test.back("web1");
    assert_eq!(test.drain(), ["mail: web1 ipv4 is back", "pager: web1 ipv4 is back"]);
    test.back("web1");
    assert!(test.drain().is_empty(), "a trouble ends once");
}

#[test]
fn a_channel_that_never_took_the_alarm_does_not_hear_of_its_end() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    let job = test.one();
    let result = test.finish(&job, Err(Failure::MessageRefused("no such user".into())));
    assert_eq!(
        result,
        DeliveryResult::Failed { reason: DropReason::MessageRefused, why: "no such user".into() }
    );
    test.back("web1");
    assert!(test.drain().is_empty());
}

#[test]
fn failures_back_off_up_to_the_max_delay_and_success_resets_them() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    let mut delays = Vec::new();
    for _ in 0..10 {
        let job = test.one();
        let DeliveryResult::Retrying { delay, .. } = test.finish(&job, unreachable()) else {
            panic!()
        };
        assert!(test.start().is_empty());
        let wake = test.outbox.next_wake(test.now).unwrap();
        assert!(wake <= test.now.mono + delay);
        test.wait(delay);
        delays.push(delay);
    }
    assert!(delays[0] >= Duration::from_secs(4) && delays[0] <= Duration::from_secs(6));
    assert!(delays[1] > delays[0]);
    assert!(delays.iter().all(|delay| *delay <= 6 * MINUTE));
    test.drain();
    test.overdue("web2");
    let job = test.one();
    let DeliveryResult::Retrying { delay, .. } = test.finish(&job, unreachable()) else { panic!() };
    assert!(delay <= Duration::from_secs(6));
}

#[test]
fn a_dead_channel_holds_up_no_other() {
    let mut test = TestOutbox::with(&["dead", "mail"]);
    test.overdue("web1");
    let jobs = test.start();
    let dead = jobs.iter().find(|job| job.delivery.channel == "dead").unwrap().clone();
    let mail = jobs.iter().find(|job| job.delivery.channel == "mail").unwrap().clone();
    test.finish(&mail, Ok(Delivered::default()));
    test.overdue("web2");
    assert_eq!(test.drain(), ["mail: web2 ipv4 overdue"], "dead is still hanging");
    test.finish(&dead, unreachable());
}

#[test]
fn a_message_that_fails_for_ever_lets_the_others_pass() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1").overdue("web2");
    let mut passed = false;
    for _ in 0..10 {
        let job = test.one();
        if job.delivery.message.title.starts_with("web1") {
            test.finish(&job, unreachable());
        } else {
            test.finish(&job, Ok(Delivered::default()));
            passed = true;
        }
        test.wait(10 * MINUTE);
    }
    assert!(passed);
}

#[test]
fn an_outage_does_not_push_what_is_critical_behind_everything() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    for _ in 0..7 {
        let job = test.one();
        test.finish(&job, unreachable());
        test.wait(10 * MINUTE);
    }
    test.said("web2", "chatter").said("web3", "more chatter");
    let titles = test.drain();
    let place = titles.iter().position(|title| title.contains("web1 ipv4 overdue")).unwrap();
    assert!(place <= 1, "{titles:?}");
}

#[test]
fn a_hint_of_the_provider_is_followed() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    let job = test.one();
    let retry_after = Some(Duration::from_secs(90));
    test.finish(
        &job,
        Err(Failure::Unreachable { why: "slow down".into(), retry_after, scope: Scope::Channel }),
    );
    assert!(test.wait(Duration::from_secs(89)).start().is_empty());
    assert_eq!(test.wait(Duration::from_secs(1)).start().len(), 1);
}

#[test]
fn a_refused_channel_is_probed_slowly_with_the_oldest_message_and_told_at_once() {
    let mut test = TestOutbox::with(&["chat", "mail"]);
    test.routes.default = vec!["chat".into()];
    test.said("web2", "the oldest").overdue("web1");
    let job = test.one();
    assert!(test.outbox.channel_reports(test.now).is_empty());
    let why = || Failure::channel_refused("bad token");
    test.finish(&job, Err(why()));
    let reports = test.outbox.channel_reports(test.now);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].message(EventId(1)).title, "channel chat is failing: bad token");
    assert!(test.outbox.channel_reports(test.now).is_empty(), "once");
    assert!(test.wait(11 * MINUTE).start().is_empty());
    let job = test.wait(8 * MINUTE).one();
    assert_eq!(job.delivery.message.title, "web2 the oldest");
    test.finish(&job, Ok(Delivered::default()));
    let reports = test.outbox.channel_reports(test.now);
    assert_eq!(reports[0].message(EventId(2)).title, "channel chat delivers again");
    assert_eq!(test.drain(), ["chat: web1 ipv4 overdue"]);
}

#[test]
fn a_channel_that_fails_for_ten_minutes_is_told() {
    let mut test = TestOutbox::with(&["chat", "mail"]);
    test.overdue("web1");
    for job in test.start() {
        test.finish(&job, unreachable());
    }
    let now = test.wait(9 * MINUTE).now;
    assert!(test.outbox.channel_reports(now).is_empty());
    let now = test.wait(MINUTE).now;
    assert_eq!(test.outbox.channel_reports(now).len(), 2);
}

#[test]
fn what_waits_too_long_is_given_up_and_said_so() {
    let mut test = TestOutbox::with(&["mail"]);
    test.said("web1", "hello");
    let job = test.one();
    test.finish(&job, unreachable());
    let now = test.wait(5 * HOUR).now;
    assert!(test.outbox.expire(now).is_empty());
    let now = test.wait(HOUR).now;
    let fates = test.outbox.expire(now);
    let why = "given up after 6 h; the last attempt: connection refused";
    assert_eq!(fates[0].0, DeliveryResult::Failed { reason: DropReason::Expired, why: why.into() });
    assert!(test.outbox.is_empty());
}

#[test]
fn after_a_crash_nothing_is_lost_and_only_what_was_under_way_may_be_a_repeat() {
    let mut disk = BTreeMap::new();
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1").overdue("web2").back("web2");
    test.one();
    test.crash(&mut disk);
    let mut seen = Vec::new();
    while let [job] = test.start().as_slice() {
        seen.push((job.delivery.message.title.clone(), job.delivery.possible_repeat));
        test.finish(job, Ok(Delivered::default()));
    }
    assert_eq!(
        seen,
        [
            ("web1 ipv4 overdue".into(), true),
            ("web2 ipv4 overdue".into(), false),
            ("web2 ipv4 is back".into(), false)
        ]
    );
    test.back("web1");
    assert_eq!(test.drain(), ["mail: web1 ipv4 is back"], "who was told is remembered");
    test.write_to(&mut disk);
    assert!(disk.keys().all(|(table, _)| *table == Table::History), "{disk:?}");
}

#[test]
fn a_refusal_from_before_a_reload_paused_the_repaired_channel_for_a_quarter_of_an_hour() {
    let mut test = TestOutbox::with(&["chat"]);
    test.overdue("web1");
    let refused = || Err(Failure::channel_refused("bad token"));
    let job = test.one();
    let settings = test.outbox.settings();
    test.outbox.reconfigure(settings, &test.routes, 7, test.now);
    test.finish(&job, refused());
    let job = test.one();
    test.finish(&job, refused());
    assert!(test.wait(10 * MINUTE).start().is_empty(), "that one was made with the new settings");
}

#[test]
fn an_unknown_outcome_is_marked_as_a_possible_repeat() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    let job = test.one();
    test.finish(&job, Err(Failure::Unknown("no answer".into())));
    let job = test.wait(MINUTE).one();
    assert!(job.delivery.possible_repeat);
}

#[test]
fn a_refused_form_is_sent_once_more_short_and_plain() {
    let mut test = TestOutbox::with(&["mail"]);
    test.overdue("web1");
    let refused = || Err(Failure::FormRefused("552 too big".into()));
    let job = test.one();
    test.finish(&job, refused());
    let job = test.one();
    assert!(job.delivery.plain);
    assert_eq!(
        test.finish(&job, refused()),
        DeliveryResult::Failed { reason: DropReason::MessageRefused, why: "552 too big".into() }
    );
}

#[test]
fn a_rate_limit_makes_messages_wait_and_drops_none() {
    let mut test = TestOutbox::with(&["mail"]);
    let slow = QueueSettings {
        retry_policy: RetryPolicy { per_minute: 20, burst: 5, ..pace() },
        recipients: vec![None],
    };
    test.outbox = Outbox::new(BTreeMap::from([("mail".to_owned(), slow)]), 7, test.now);
    for n in 0..30 {
        test.said("web1", &n.to_string());
    }
    assert_eq!(test.drain().len(), 5);
    let mut sent = 5;
    while sent < 30 {
        let wake = test.outbox.next_wake(test.now).unwrap();
        test.now = test.now.later(wake.since(test.now.mono));
        assert!(test.outbox.expire(test.now).is_empty());
        sent += test.drain().len();
    }
    let passed = test.now.mono.since(Mono(1_000_000));
    assert!(passed >= Duration::from_secs(74) && passed <= Duration::from_secs(76), "{passed:?}");
}

#[test]
fn a_channel_that_is_no_longer_configured_drops_its_queue_and_says_so() {
    let mut test = TestOutbox::with(&["mail", "chat"]);
    test.overdue("web1");
    let fates = test.outbox.reconfigure(settings(&["mail"]), &routes(&["mail"]), 7, test.now);
    assert_eq!(fates.len(), 1);
    assert_eq!(fates[0].1.channel, "chat");
    assert_eq!(test.drain(), ["mail: web1 ipv4 overdue"]);
}

#[test]
fn each_recipient_has_a_delivery_of_its_own() {
    let mut test = TestOutbox::with(&["mail"]);
    let both = QueueSettings {
        retry_policy: pace(),
        recipients: vec![Some("a@example.com".into()), Some("b@example.com".into())],
    };
    test.outbox = Outbox::new(BTreeMap::from([("mail".to_owned(), both)]), 7, test.now);
    test.overdue("web1");
    let job = test.one();
    test.finish(&job, Err(Failure::MessageRefused("550 no such user".into())));
    let job = test.one();
    assert_eq!(job.delivery.recipient.as_deref(), Some("b@example.com"));
    test.finish(&job, Ok(Delivered::default()));
    test.back("web1");
    assert_eq!(test.drain().len(), 2, "the channel was given the trouble");
}

#[test]
fn later_messages_hang_on_the_thread_of_the_first() {
    let mut test = TestOutbox::with(&["chat"]);
    test.overdue("web1").back("web1");
    let job = test.one();
    let post = Delivered { thread: Some("post1".into()), ..Delivered::default() };
    test.finish(&job, Ok(post));
    let job = test.one();
    assert_eq!(job.delivery.thread.as_deref(), Some("post1"));
    assert_eq!(job.delivery.recovered_events.len(), 1);
}

#[test]
fn who_was_told_of_a_metric_hears_that_it_is_missing_whatever_their_level() {
    let mut test = TestOutbox::with(&["mail", "pager", "other"]);
    let line = |min_level| routing::ChannelRoute { min_level };
    test.routes.channels.insert("pager".into(), line(Level::Critical));
    test.routes.channels.insert("other".into(), line(Level::Critical));
    test.routes.default = vec!["mail".into(), "pager".into()];
    let (host, metric) = ("web1".to_owned(), "disk.mnt.percent".to_owned());
    let threshold = |level| EventKind::Threshold {
        host: host.clone(),
        metric: metric.clone(),
        value: 95.0,
        limit: if level == Level::Ok { "> 80.0".into() } else { "> 90.0".into() },
        level,
        since: Wall(0),
        reminder: false,
    };
    let missing = EventKind::Missing {
        host: host.clone(),
        metric: metric.clone(),
        last_sent: Wall(0),
        value: 95.0,
        limit: "> 90.0".into(),
        last_level: Level::Critical,
    };
    let mut told = |level, kind| {
        test.accept(level, kind);
        let jobs = test.start();
        let mut channels: Vec<String> =
            jobs.iter().map(|job| job.delivery.channel.clone()).collect();
        for job in &jobs {
            test.finish(job, Ok(Delivered::default()));
        }
        channels.sort();
        channels.join(" ")
    };
    assert_eq!(told(Level::Critical, threshold(Level::Critical)), "mail pager");
    assert_eq!(told(Level::Warning, missing), "mail pager");
    assert_eq!(told(Level::Ok, threshold(Level::Ok)), "mail pager", "and that it is well again");
}

/// The names in rows are kept by stores of every version.
#[test]
fn rows_keep_the_names_that_they_have_on_disk() {
    let delivery = r#"{"channel":"chat","recipient":"ann@x","message":{"event":5,"at":3,
        "level":"critical","title":"t","thread":"web1","subject":{"host":"web1"}},
        "accepted":{"mono":1,"wall":2},"attempts":1,"in_flight":true,"possible_repeat":true,
        "plain":true,"alone":true,"opens":{"channel":{"channel":"x"}},
        "closes":[{"channel":{"channel":"y"}}],"told":true,"ends":[4],"thread":"root",
        "bundle":{"event":6,"at":7,"cause":"unreached","members":[8],"left":9,"lost":10},
        "for_backups":true,"ended_level":"warning","given_to":[["chat",null],["mail","ann@x"]],
        "given_up":{"channel":"chat","recipient":"ann@x","cause":"unreachable","messages":[
        {"event":1,"at":2,"level":"critical","subject":"daemon","for_backups":true,"title":"t",
        "opens":{"channel":{"channel":"x"}},"over":true}],"count":3,"why":"w","untitled":true}}"#;
    let open = r#"{"trouble":{"channel":{"channel":"x"}},"first":1,"since":2,
        "level":"warning","title":"t","acknowledged":{"at":3,"channel":"pager","device":"phone"},
        "given":{"chat":{"delivered":true,"queued":1,"events":[4],"within":[5],"thread":"r"}}}"#;
    let receipt = r#"{"channel":"pager","receipt":"r1","event":1,
        "troubles":[{"channel":{"channel":"x"}}],"sent":2,"records":[]}"#;
    fn again<T: serde::Serialize + serde::de::DeserializeOwned>(row: &str) -> (Value, Value) {
        let read: T = serde_json::from_str(row).unwrap();
        (serde_json::to_value(read).unwrap(), serde_json::from_str(row).unwrap())
    }
    for (written, row) in
        [again::<Delivery>(delivery), again::<OpenIncident>(open), again::<Receipt>(receipt)]
    {
        assert_eq!(written, row);
    }
}

#[test]
fn a_channel_was_told_the_names_of_hosts_that_it_has_nothing_to_do_with() {
    let mut test = TestOutbox::with(&["ann", "bob"]);
    let own = |names: &[&str]| routing::HostRoute {
        watch: true,
        channels: Some(names.iter().map(|name| name.to_string()).collect()),
    };
    test.routes.hosts.insert("web1".into(), own(&["ann"]));
    test.routes.hosts.insert("web2".into(), own(&["bob"]));
    assert_eq!(test.overdue("web1").drain_overdue(), ["ann: web1 -"]);
    assert_eq!(test.overdue("web2").drain_overdue(), ["bob: web2 -"]);
    // That one is everybody's.
    assert_eq!(test.overdue("web3").drain_overdue(), ["ann: web3 web1", "bob: web3 web2"]);
    let mut disk = BTreeMap::new();
    test.crash(&mut disk);
    test.back("web1").drain();
    test.routes.hosts.insert("web4".into(), own(&["ann"]));
    assert_eq!(test.overdue("web4").drain_overdue(), ["ann: web4 web3"]);
}

#[test]
fn a_message_links_to_the_page_of_its_host() {
    let mut test = TestOutbox::with(&["chat"]);
    test.overdue("web1");
    assert_eq!(test.one().delivery.message.link, None);
    test.outbox.set_public_url(Some("https://hbd.example.com/hb".into()));
    let link = |test: &TestOutbox, kind| {
        test.outbox.message_of(&Event::new(Wall(0), kind), EventId(1)).link.clone().unwrap()
    };
    let host = EventKind::HostMessage { host: "web1".into(), text: "x".into() };
    assert_eq!(link(&test, host), "https://hbd.example.com/hb/hosts/web1");
    let strange = EventKind::HostMessage { host: "a b/\u{fc}".into(), text: "x".into() };
    assert_eq!(link(&test, strange), "https://hbd.example.com/hb/hosts/a%20b%2F%C3%BC");
    let disk = EventKind::StoreWrites { refused_for: MINUTE };
    assert_eq!(link(&test, disk), "https://hbd.example.com/hb/");
}
