//! What is said about one of several recipients, told by hand-moved time.

use super::*;

const PAUSE: Duration = Duration::from_secs(30 * 60);

fn to(names: &[&str]) -> TestOutbox {
    let mut test = TestOutbox::with(&["mail"]);
    let recipients = names.iter().map(|name| Some((*name).to_owned())).collect();
    let settings = QueueSettings { retry_policy: pace(), recipients };
    test.outbox = Outbox::new(BTreeMap::from([("mail".to_owned(), settings)]), 7, test.now);
    test
}

fn refused() -> Failure {
    Failure::recipient_refused("554 5.7.1 no")
}

impl TestOutbox {
    /// Makes every attempt that is due, each ended as `answer` says for its recipient; the
    /// recipients in order, with a mark at those that got it.
    fn answer(&mut self, answer: impl Fn(&str) -> Option<Failure>) -> Vec<String> {
        let mut tried = Vec::new();
        while let Some(job) = self.start().pop() {
            let to = job.delivery.recipient.clone().unwrap();
            let failure = answer(&to);
            tried.push(if failure.is_none() { format!("{to}!") } else { to });
            self.finish(&job, failure.map_or(Ok(Delivered::default()), Err));
        }
        tried
    }

    fn status(&self) -> QueueStatus {
        self.outbox.queue_status(self.now).remove(0)
    }
}

#[test]
fn a_verdict_on_one_recipient_silenced_the_others_for_two_days() {
    let only = |name: &'static str| move |to: &str| (to == name).then(refused);
    for bad in ["a", "b"] {
        let mut test = to(&["a", "b"]);
        test.overdue("web1");
        let mut tried = test.answer(only(bad));
        tried.sort();
        assert_eq!(tried, if bad == "a" { ["a", "b!"] } else { ["a!", "b"] });
        let status = test.status();
        assert!(!status.refused && status.failing_since.is_none(), "the channel works");
        assert_eq!(status.last_failure.unwrap().1, "554 5.7.1 no");
        test.wait(MINUTE).overdue("web2");
        let good = if bad == "a" { "b!" } else { "a!" };
        assert_eq!(test.answer(only(bad)), [good], "the other one goes on");
        assert!(test.outbox.channel_reports(test.now).is_empty());
        assert_eq!(test.wait(PAUSE).answer(only(bad)), [bad], "it is probed");
        test.wait(2 * PAUSE).back("web1");
        let mut tried = test.answer(|_| None);
        tried.sort();
        let one = format!("{bad}!");
        assert_eq!(tried.iter().filter(|to| **to == one).count(), 3, "nothing is lost: {tried:?}");
    }
}

#[test]
fn what_is_refused_for_all_is_the_channel_s_and_each_is_probed_in_turn() {
    let mut test = to(&["a", "b", "c"]);
    test.overdue("web1").overdue("web2");
    assert_eq!(test.answer(|_| Some(refused())), ["a", "b", "c"]);
    assert!(test.status().refused);
    assert_eq!(test.outbox.channel_reports(test.now).len(), 1, "told at once");
    let mut probed = Vec::new();
    while probed.len() < 4 {
        probed.extend(test.wait(5 * MINUTE).answer(|_| Some(refused())));
    }
    assert_eq!(probed, ["a", "b", "c", "a"], "probing does not stay with one");
    test.wait(7 * HOUR).overdue("web3");
    let tried = test.answer(|to| (to == "a").then(refused));
    assert!(tried.contains(&"c!".to_owned()) && tried.contains(&"b!".to_owned()), "{tried:?}");
    assert!(!test.status().refused, "one of them is accepted again");
    assert!(
        matches!(
            test.outbox.channel_reports(test.now)[..],
            [Event { kind: EventKind::ChannelDelivers { .. }, .. }]
        ),
        "and that is told"
    );
}

#[test]
fn a_greylisted_recipient_delays_nobody_else() {
    let grey = |to: &str| (to == "a").then(|| Failure::recipient_deferred("450 later"));
    let mut test = to(&["a", "b"]);
    test.overdue("web1");
    assert_eq!(test.answer(grey), ["a", "b!"]);
    for n in 0..20 {
        test.said("web2", &format!("number {n}"));
        let tried = test.answer(grey);
        assert!(tried.contains(&"b!".to_owned()), "{n}: {tried:?}");
        test.wait(Duration::from_secs(1));
    }
    test.wait(HOUR);
    assert!(test.outbox.channel_reports(test.now).is_empty());
    let later = test.answer(|_| None);
    assert_eq!(later, vec!["a!"; later.len()]);
    assert_eq!(test.outbox.len(), 0);
}

#[test]
fn all_recipients_deferred_for_ten_minutes_are_told() {
    let mut test = to(&["a", "b"]);
    test.overdue("web1");
    for _ in 0..30 {
        test.answer(|_| Some(Failure::recipient_deferred("451 later")));
        test.wait(30 * Duration::from_secs(1));
    }
    assert_eq!(test.outbox.channel_reports(test.now).len(), 1);
    assert!(!test.status().refused);
}

#[test]
fn a_single_recipient_is_its_channel() {
    let mut test = to(&["a"]);
    test.overdue("web1");
    assert_eq!(test.answer(|_| Some(refused())), ["a"]);
    assert!(test.status().refused);
    let mut test = to(&["a", "b"]);
    test.overdue("web1");
    let gone = |to: &str| match to {
        "a" => Failure::MessageRefused("550 5.1.1 nobody".into()),
        _ => refused(),
    };
    assert_eq!(test.answer(|to| Some(gone(to))), ["a", "b"]);
    assert!(test.status().refused, "nothing arrives anywhere");
}

#[test]
fn a_channel_that_delivers_nothing_was_told_as_working_with_each_probe() {
    let mut test = to(&["a", "b"]);
    let gone = |to: &str| match to {
        "a" => Failure::MessageRefused("550 5.1.1 nobody".into()),
        _ => refused(),
    };
    let mut reports = 0;
    for hour in 0..24 {
        test.overdue(&format!("web{hour}"));
        test.wait(HOUR).answer(|to| Some(gone(to)));
        reports += test.outbox.channel_reports(test.now).len();
    }
    assert_eq!(reports, 1);
    test.answer(|_| None);
    test.wait(7 * HOUR).answer(|_| None);
    assert_eq!(test.outbox.channel_reports(test.now).len(), 1, "it delivers again");
}
