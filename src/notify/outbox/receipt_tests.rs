//! Emergencies and their acknowledgement, told by hand-moved time.

use super::*;
use crate::event::Level;

fn acknowledged(at: Wall) -> Result<ReceiptState, Failure> {
    Ok(ReceiptState { acknowledged: Some(at), device: Some("phone".into()), expired: false })
}

fn open() -> Result<ReceiptState, Failure> {
    Ok(ReceiptState::default())
}

impl TestOutbox {
    fn is_silent(&self, level: Level) -> bool {
        let event = Event::new(self.now.wall, TestOutbox::threshold(level, true));
        self.outbox.acknowledged(&event, self.now).is_some()
    }

    fn deliver_with_receipt(&mut self, receipt: &str) {
        let job = self.one();
        self.finish(&job, Ok(Delivered { receipt: Some(receipt.into()), thread: None }));
    }

    fn polls(&mut self) -> Vec<ReceiptPoll> {
        self.outbox.due_polls(self.now)
    }

    fn poll(&mut self) -> ReceiptPoll {
        let mut polls = self.polls();
        assert_eq!(polls.len(), 1);
        polls.remove(0)
    }
}

#[test]
fn an_acknowledgement_stops_reminders_until_the_trouble_ends_or_rises() {
    let mut test = TestOutbox::with(&["pager"]);
    test.metric(Level::Warning, false).deliver_with_receipt("r1");
    assert!(!test.is_silent(Level::Warning));
    let poll = test.wait(MINUTE).poll();
    let (at, now) = (test.now.wall, test.now);
    let note = test.outbox.on_poll_result(&poll, acknowledged(at), now).unwrap();
    assert_eq!(note.by.device.as_deref(), Some("phone"));
    assert!(test.is_silent(Level::Warning));
    assert!(!test.is_silent(Level::Critical), "it rises");
    assert_eq!(test.outbox.open_incidents().next().unwrap().acknowledged.as_ref().unwrap().at, at);
    test.metric(Level::Critical, false).drain();
    assert!(!test.is_silent(Level::Critical));
    test.metric(Level::Ok, false).drain();
    test.metric(Level::Warning, false);
    assert!(!test.is_silent(Level::Warning), "another trouble");
}

#[test]
fn the_history_says_who_took_note() {
    let mut test = TestOutbox::with(&["pager"]);
    test.overdue("web1").deliver_with_receipt("r1");
    test.outbox.take_writes();
    let poll = test.wait(MINUTE).poll();
    let now = test.now;
    test.outbox.on_poll_result(&poll, acknowledged(now.wall), now);
    let writes = test.outbox.take_writes();
    let history = writes.iter().find(|write| write.table == Table::History).unwrap();
    let record: DeliveryRecord = serde_json::from_slice(history.value.as_ref().unwrap()).unwrap();
    assert_eq!(record.acknowledged, Some(now.wall));
    assert_eq!(record.acknowledged_by.as_deref(), Some("phone"));
    assert!(test.wait(HOUR).polls().is_empty(), "nothing is left to ask about");
}

#[test]
fn a_channel_is_asked_one_question_at_a_time_less_and_less_often() {
    let mut test = TestOutbox::with(&["pager"]);
    test.overdue("web1").deliver_with_receipt("r1");
    test.overdue("web2").deliver_with_receipt("r2");
    assert!(test.outbox.due_polls(test.now).is_empty(), "not at once");
    let (begin, mut asked) = (test.now.mono, 0);
    let mut last = begin;
    while let Some(next) = test.outbox.receipts.next_due() {
        test.now = test.now.later(next.since(test.now.mono));
        let polls = test.outbox.due_polls(test.now);
        let [poll] = polls.as_slice() else { break };
        assert!(test.outbox.due_polls(test.now).is_empty(), "one in flight");
        assert!(test.now.mono.since(last) >= Duration::from_secs(5));
        last = test.now.mono;
        let now = test.now;
        let answer = if asked % 3 == 0 { Err(Failure::Unknown("lost".into())) } else { open() };
        test.outbox.on_poll_result(poll, answer, now);
        asked += 1;
    }
    assert!((180..260).contains(&asked), "{asked}");
    assert!(test.now.mono.since(begin) < 4 * HOUR, "for as long as it may be repeated");
}

#[test]
fn nobody_is_asked_about_what_is_over_expired_or_unknown() {
    for end in 0..3 {
        let mut test = TestOutbox::with(&["pager"]);
        test.overdue("web1").deliver_with_receipt("r1");
        if end == 0 {
            test.back("web1").drain();
        } else {
            let poll = test.wait(MINUTE).poll();
            let expired = Ok(ReceiptState { expired: true, ..ReceiptState::default() });
            let unknown = Err(Failure::MessageRefused("not found".into()));
            let now = test.now;
            test.outbox.on_poll_result(&poll, if end == 1 { expired } else { unknown }, now);
        }
        assert!(test.wait(HOUR).polls().is_empty());
        assert_eq!(test.outbox.queue_status(test.now)[0].unacknowledged, 0);
    }
}

#[test]
fn emergencies_are_followed_up_after_a_crash() {
    let mut disk = BTreeMap::new();
    let mut test = TestOutbox::with(&["pager"]);
    test.overdue("web1").deliver_with_receipt("r1");
    test.crash(&mut disk);
    assert_eq!(test.outbox.queue_status(test.now)[0].unacknowledged, 1);
    assert_eq!(test.wait(MINUTE).poll().receipt, "r1");
}
