//! The history as it is asked for: what was sent and what still waits, the newest first.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::courier::{Courier, Noted, Order};
use super::direct::Report;
use super::outbox::{Delivery, DeliveryId, Outbox, Record};
use super::text::{Unit, cut};
use crate::clock::Wall;
use crate::event::{EventId, Message, Subject};
use crate::store::{Store, Table};
use crate::view::query::NotificationQuery;
use crate::view::{DeliveryState, NotificationView};

/// So many rows are looked at before the courier goes on with its work.
const PIECE: usize = 200;
/// How long the courier may let us wait, all pieces together.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer title is cut in the history.
const LONGEST_TITLE: usize = 500;

/// A part of the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The newest first.
    pub notifications: Vec<NotificationView>,
    /// Where to go on; none when there is no more.
    pub next: Option<DeliveryId>,
}

/// Looks the answer up, in pieces, so that a long history keeps no alarm waiting.
///
/// # Errors
/// A sentence when the courier is too busy to answer.
pub fn ask(courier: &Courier, query: &NotificationQuery) -> Result<Page, String> {
    let patience = Instant::now() + PATIENCE;
    let mut page = Page { notifications: Vec::new(), next: query.before.map(DeliveryId) };
    loop {
        let (tx, rx) = bounded(1);
        let before = page.next;
        courier.order(Order::Look(Box::new(move |store, outbox| {
            // Who no longer waits for the answer does not get it.
            let _ = tx.send(piece(store, outbox, before, PIECE));
        })));
        let piece = rx.recv_deadline(patience).map_err(|why| match why {
            RecvTimeoutError::Timeout => "the history cannot be read now, the disk is slow",
            RecvTimeoutError::Disconnected => "hbd is stopping",
        })?;
        for (id, view) in piece.rows {
            if page.notifications.len() >= query.limit {
                return Ok(page);
            }
            page.next = Some(id);
            if query.matches(&view) {
                page.notifications.push(view);
            }
        }
        page.next = piece.next;
        if page.next.is_none() {
            return Ok(page);
        }
    }
}

struct Piece {
    rows: Vec<(DeliveryId, NotificationView)>,
    /// Before which there may be more.
    next: Option<DeliveryId>,
}

/// The newest of both, from before that one on. At most `count` of either are looked at.
fn piece(store: &Store, outbox: &Outbox, before: Option<DeliveryId>, count: usize) -> Piece {
    let key = before.map(DeliveryId::key);
    let kept = store.newest(Table::History, key.as_deref(), count);
    let waiting: Vec<_> = outbox.newest(before).take(count).collect();
    // Where one list was cut, the other may not go further.
    let cut_kept = kept.get(count - 1).and_then(|(key, _)| number(key));
    let cut_waiting = waiting.get(count - 1).map(|(id, _)| *id);
    let next = cut_kept.max(cut_waiting);
    let mut rows: Vec<_> = kept.iter().filter_map(|(key, value)| ended(key, value)).collect();
    rows.extend(waiting.into_iter().map(|(id, delivery)| (id, waits(id, delivery, outbox))));
    rows.retain(|(id, _)| next.is_none_or(|next| *id >= next));
    rows.sort_by_key(|(id, _)| Reverse(*id));
    Piece { rows, next }
}

fn number(key: &str) -> Option<DeliveryId> {
    key.parse().ok().map(DeliveryId)
}

fn shown(id: DeliveryId) -> String {
    EventId(id.0).to_string()
}

/// A row that is damaged is left out: the store said so when it was opened.
fn ended(key: &str, value: &[u8]) -> Option<(DeliveryId, NotificationView)> {
    let id = number(key)?;
    let record: Record = serde_json::from_slice(value).ok()?;
    let state = if record.delivered { DeliveryState::Delivered } else { DeliveryState::Failed };
    let host = host_of(&record.subject);
    let view = NotificationView {
        id: shown(id),
        event: record.event.to_string(),
        state,
        channel: record.channel,
        recipient: record.recipient,
        host,
        subject: record.subject.to_string(),
        level: record.level,
        title: record.title,
        accepted: Some(record.accepted),
        finished: Some(record.finished),
        attempts: record.attempts,
        why: record.why,
        told_in: record.told_in.map(|event| event.to_string()),
        acknowledged: record.acknowledged,
        acknowledged_by: record.acknowledged_by,
    };
    Some((id, view))
}

fn waits(id: DeliveryId, delivery: &Delivery, outbox: &Outbox) -> NotificationView {
    let message = &delivery.message;
    let why = outbox.trouble_of(&delivery.channel).filter(|_| delivery.attempts > 0);
    NotificationView {
        id: shown(id),
        event: message.event.to_string(),
        state: DeliveryState::Waiting,
        channel: delivery.channel.clone(),
        recipient: delivery.recipient.clone(),
        host: host_of(&message.subject),
        subject: message.subject.to_string(),
        level: message.level,
        title: message.title.clone(),
        accepted: Some(delivery.accepted.wall),
        finished: None,
        attempts: delivery.attempts,
        why: why.map(str::to_owned),
        told_in: None,
        acknowledged: None,
        acknowledged_by: None,
    }
}

fn host_of(subject: &Subject) -> Option<String> {
    match subject {
        Subject::Host(name) => Some(name.clone()),
        Subject::Plan(_) | Subject::Channel(_) | Subject::Daemon => None,
    }
}

/// What the history keeps of a message that was sent directly through a channel.
pub fn noted(message: &Message, channel: &str, report: &Report, finished: Wall) -> Vec<Noted> {
    let noted = report.outcomes.iter().map(|outcome| Noted {
        record: Record {
            event: message.event,
            channel: channel.to_owned(),
            recipient: outcome.recipient.clone(),
            subject: message.subject.clone(),
            level: message.level,
            title: cut(&message.title, LONGEST_TITLE, Unit::Characters),
            accepted: message.at,
            finished,
            attempts: outcome.attempts,
            delivered: outcome.why.is_none(),
            why: outcome.why.clone(),
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        },
        reason: outcome.reason,
    });
    noted.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::Now;
    use crate::event::{Event, EventKind, Level};
    use crate::notify::channel::Failure;
    use crate::notify::channel::log::PACE;
    use crate::notify::outbox::LineSettings;
    use crate::notify::route::{self, Routes};
    use crate::store::Write;

    struct Desk {
        store: Store,
        outbox: Outbox,
        routes: Routes,
        now: Now,
        _directory: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Desk {
            let directory = tempfile::tempdir().unwrap();
            let now = Now::read();
            let settings = LineSettings { pace: PACE, recipients: vec![None] };
            let line = route::Line { min_level: Level::Info };
            let routes = Routes {
                channels: BTreeMap::from([("chat".into(), line)]),
                default: vec!["chat".into()],
                ..Routes::default()
            };
            Desk {
                store: Store::open(directory.path(), now).unwrap().0,
                outbox: Outbox::new(BTreeMap::from([("chat".into(), settings)]), 1, now),
                routes,
                now,
                _directory: directory,
            }
        }

        fn accept(&mut self, number: u64) {
            let kind = EventKind::Custom { host: None, text: format!("text {number}") };
            let event = Event { at: self.now.wall, level: Level::Warning, kind };
            self.outbox.accept(&event, EventId(number), &self.routes, self.now);
        }

        /// Ends the attempt whose turn it is.
        fn end(&mut self, result: Result<(), Failure>) {
            let job = self.outbox.start(self.now).pop().unwrap();
            self.outbox.finish(job.id, result.map(|()| Default::default()), self.now);
            for write in self.outbox.take_writes() {
                self.store.write(write);
            }
        }

        /// All of it, in pieces of `count`.
        fn told(&self, count: usize) -> Vec<(String, DeliveryState)> {
            let (mut told, mut before) = (Vec::new(), None);
            loop {
                let piece = piece(&self.store, &self.outbox, before, count);
                assert!(piece.rows.len() <= 2 * count);
                told.extend(piece.rows.into_iter().map(|(_, view)| (view.title, view.state)));
                before = piece.next;
                if before.is_none() {
                    return told;
                }
            }
        }
    }

    #[test]
    fn what_waits_and_what_ended_are_one_list_however_it_is_cut() {
        let mut desk = Desk::new();
        for number in 1..=20 {
            desk.accept(number);
            if number % 3 == 0 {
                desk.end(Ok(()));
            }
            if number == 10 {
                desk.store.commit(desk.now);
            }
        }
        let mut expected: Vec<_> = (1..=20)
            .map(|number| {
                let state =
                    if number <= 6 { DeliveryState::Delivered } else { DeliveryState::Waiting };
                (format!("text {number}"), state)
            })
            .collect();
        expected.reverse();
        for count in [1, 2, 3, 7, 20, 100] {
            assert_eq!(desk.told(count), expected, "in pieces of {count}");
        }
    }

    #[test]
    fn what_failed_says_why_and_so_does_what_waits() {
        let mut desk = Desk::new();
        desk.accept(1);
        desk.end(Err(Failure::MessageRefused("too rude".into())));
        desk.accept(2);
        desk.end(Err(Failure::Unreachable { why: "nobody home".into(), after: None }));
        desk.accept(3);
        let rows = piece(&desk.store, &desk.outbox, None, 10).rows;
        let said: Vec<_> =
            rows.iter().map(|(_, view)| (view.state, view.attempts, view.why.as_deref())).collect();
        assert_eq!(
            said,
            [
                (DeliveryState::Waiting, 0, None),
                (DeliveryState::Waiting, 1, Some("nobody home")),
                (DeliveryState::Failed, 1, Some("too rude")),
            ]
        );
    }

    #[test]
    fn a_damaged_row_hides_no_other() {
        let mut desk = Desk::new();
        desk.accept(1);
        desk.end(Ok(()));
        for key in ["99999999999999999998", "99999999999999999997", "x"] {
            let broken = Write { value: Some(b"{".to_vec()), ..Write::remove(Table::History, key) };
            desk.store.write(broken);
        }
        desk.accept(2);
        let expected = [
            ("text 2".into(), DeliveryState::Waiting),
            ("text 1".into(), DeliveryState::Delivered),
        ];
        assert_eq!(desk.told(1)[..], expected[..], "one by one");
        assert_eq!(desk.told(10)[..], expected[..]);
    }

    #[test]
    fn a_question_may_be_about_a_host_a_channel_or_an_end() {
        let view = ended(
            "5",
            br#"{"event":1,"channel":"chat","subject":{"host":"web1"},"level":"warning",
                "title":"t","accepted":1,"finished":2,"attempts":1,"delivered":true}"#,
        );
        let (id, view) = view.unwrap();
        assert_eq!((id, view.id.as_str()), (DeliveryId(5), "00000000000005"));
        let some = |text: &str| Some(text.to_owned());
        let all = NotificationQuery::default;
        for (query, wanted) in [
            (all(), true),
            (NotificationQuery { host: some("web1"), ..all() }, true),
            (NotificationQuery { host: some("web"), ..all() }, false),
            (NotificationQuery { channel: some("chat"), ..all() }, true),
            (NotificationQuery { channel: some("mail"), ..all() }, false),
            (NotificationQuery { delivered: Some(true), ..all() }, true),
            (NotificationQuery { delivered: Some(false), ..all() }, false),
        ] {
            assert_eq!(query.matches(&view), wanted, "{query:?}");
        }
    }

    #[test]
    fn a_direct_message_that_arrives_ends_the_pause_of_its_channel() {
        let mut desk = Desk::new();
        desk.accept(1);
        desk.end(Err(Failure::ChannelRefused { why: "bad token".into(), after: None }));
        assert!(desk.outbox.start(desk.now).is_empty());
        let rows = piece(&desk.store, &desk.outbox, None, 10).rows;
        let mut record = Record {
            event: EventId(2),
            channel: rows[0].1.channel.clone(),
            recipient: None,
            subject: Subject::Daemon,
            level: Level::Warning,
            title: "a try".into(),
            accepted: desk.now.wall,
            finished: desk.now.wall,
            attempts: 1,
            delivered: false,
            why: Some("still bad".into()),
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        };
        desk.outbox.note(&record, desk.now);
        let view = desk.outbox.views(desk.now).remove(0);
        assert_eq!(view.last_failure, Some((desk.now.wall, "still bad".into())));
        assert!(view.refused && desk.outbox.start(desk.now).is_empty());
        (record.delivered, record.why) = (true, None);
        desk.outbox.note(&record, desk.now);
        let view = desk.outbox.views(desk.now).remove(0);
        assert_eq!((view.failing_since, view.last_success), (None, Some(desk.now.wall)));
        assert_eq!(desk.outbox.start(desk.now).len(), 1, "what waited goes on at once");
    }

    #[test]
    fn a_direct_message_is_noted_once_for_each_recipient() {
        let empty = Default::default();
        let notifier = crate::Notifier::with(empty, Vec::new(), BTreeMap::new());
        let text = "x".repeat(1000);
        let notice = crate::notify::direct::Notice::new(text);
        let sent = notifier.send(["gone"], &notice, |_, _, _| {});
        let noted = noted(&sent.message, "gone", &sent.reports["gone"], Wall(5));
        let [Noted { record, reason: None }] = noted.as_slice() else { panic!("one") };
        assert_eq!((record.attempts, record.delivered, record.finished), (0, false, Wall(5)));
        assert!(record.title.chars().count() == LONGEST_TITLE && record.why.is_some());
    }
}
