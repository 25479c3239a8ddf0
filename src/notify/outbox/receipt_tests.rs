//! Emergencies and their acknowledgement, told by hand-moved time.

use super::*;
use crate::event::Level;

fn acknowledged(at: Wall) -> Result<ReceiptState, Failure> {
    Ok(ReceiptState { acknowledged: Some(at), device: Some("phone".into()), expired: false })
}

fn open() -> Result<ReceiptState, Failure> {
    Ok(ReceiptState::default())
}

impl Play {
    fn level(&mut self, level: Level) -> &mut Play {
        let event = self.threshold(level, false);
        self.accept(level, event.kind)
    }

    fn threshold(&self, level: Level, reminder: bool) -> Event {
        let kind = EventKind::Threshold {
            host: "web1".into(),
            metric: "m".into(),
            value: 1.0,
            limit: "> 0.0".into(),
            level,
            since: Wall(0),
            reminder,
        };
        Event::new(self.now.wall, kind)
    }

    fn is_silent(&self, level: Level) -> bool {
        self.outbox.acknowledged(&self.threshold(level, true)).is_some()
    }

    fn deliver_with_receipt(&mut self, receipt: &str) {
        let job = self.one();
        self.finish(&job, Ok(Delivered { receipt: Some(receipt.into()), thread: None }));
    }

    fn polls(&mut self) -> Vec<Poll> {
        self.outbox.polls(self.now)
    }

    fn poll(&mut self) -> Poll {
        let mut polls = self.polls();
        assert_eq!(polls.len(), 1);
        polls.remove(0)
    }
}

#[test]
fn an_acknowledgement_stops_reminders_until_the_trouble_ends_or_rises() {
    let mut play = Play::with(&["pager"]);
    play.level(Level::Warning).deliver_with_receipt("r1");
    assert!(!play.is_silent(Level::Warning));
    let poll = play.wait(MINUTE).poll();
    let (at, now) = (play.now.wall, play.now);
    let note = play.outbox.polled(&poll, acknowledged(at), now).unwrap();
    assert_eq!(note.by.device.as_deref(), Some("phone"));
    assert!(play.is_silent(Level::Warning));
    assert!(!play.is_silent(Level::Critical), "it rises");
    assert_eq!(play.outbox.alerts()[0].acknowledged.as_ref().unwrap().at, at);
    play.level(Level::Critical).drain();
    assert!(!play.is_silent(Level::Critical));
    play.level(Level::Ok).drain();
    play.level(Level::Warning);
    assert!(!play.is_silent(Level::Warning), "another trouble");
}

#[test]
fn the_history_says_who_took_note() {
    let mut play = Play::with(&["pager"]);
    play.overdue("web1").deliver_with_receipt("r1");
    play.outbox.take_writes();
    let poll = play.wait(MINUTE).poll();
    let now = play.now;
    play.outbox.polled(&poll, acknowledged(now.wall), now);
    let writes = play.outbox.take_writes();
    let history = writes.iter().find(|write| write.table == Table::History).unwrap();
    let record: Record = serde_json::from_slice(history.value.as_ref().unwrap()).unwrap();
    assert_eq!(record.acknowledged, Some(now.wall));
    assert_eq!(record.acknowledged_by.as_deref(), Some("phone"));
    assert!(play.wait(HOUR).polls().is_empty(), "nothing is left to ask about");
}

#[test]
fn a_channel_is_asked_one_question_at_a_time_less_and_less_often() {
    let mut play = Play::with(&["pager"]);
    play.overdue("web1").deliver_with_receipt("r1");
    play.overdue("web2").deliver_with_receipt("r2");
    assert!(play.outbox.polls(play.now).is_empty(), "not at once");
    let (begin, mut asked) = (play.now.mono, 0);
    let mut last = begin;
    while let Some(next) = play.outbox.receipts.next_due() {
        play.now = play.now.later(next.since(play.now.mono));
        let polls = play.outbox.polls(play.now);
        let [poll] = polls.as_slice() else { break };
        assert!(play.outbox.polls(play.now).is_empty(), "one in flight");
        assert!(play.now.mono.since(last) >= Duration::from_secs(5));
        last = play.now.mono;
        let now = play.now;
        let answer = if asked % 3 == 0 { Err(Failure::Unknown("lost".into())) } else { open() };
        play.outbox.polled(poll, answer, now);
        asked += 1;
    }
    assert!((180..260).contains(&asked), "{asked}");
    assert!(play.now.mono.since(begin) < 4 * HOUR, "for as long as it may be repeated");
}

#[test]
fn nobody_is_asked_about_what_is_over_expired_or_unknown() {
    for end in 0..3 {
        let mut play = Play::with(&["pager"]);
        play.overdue("web1").deliver_with_receipt("r1");
        if end == 0 {
            play.back("web1").drain();
        } else {
            let poll = play.wait(MINUTE).poll();
            let expired = Ok(ReceiptState { expired: true, ..ReceiptState::default() });
            let unknown = Err(Failure::MessageRefused("not found".into()));
            let now = play.now;
            play.outbox.polled(&poll, if end == 1 { expired } else { unknown }, now);
        }
        assert!(play.wait(HOUR).polls().is_empty());
        assert_eq!(play.outbox.views(play.now)[0].unacknowledged, 0);
    }
}

#[test]
fn emergencies_are_followed_up_after_a_crash() {
    let mut disk = BTreeMap::new();
    let mut play = Play::with(&["pager"]);
    play.overdue("web1").deliver_with_receipt("r1");
    play.crash(&mut disk);
    assert_eq!(play.outbox.views(play.now)[0].unacknowledged, 1);
    assert_eq!(play.wait(MINUTE).poll().receipt, "r1");
}
