//! The list of deliveries, ended and waiting, newest first: what `/api/v1/notifications` shows.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::courier::{Courier, DirectRecord};
use super::notifier::ChannelResult;
use super::outbox::{Delivery, DeliveryId, DeliveryRecord, Outbox};
use super::text::{TextUnit, cut};
use crate::clock::Wall;
use crate::event::{EventId, Level, Message, Subject};
use crate::store::{Store, Table, TableView};
use crate::view::query::NotificationQuery;
use crate::view::{DeliveryState, NotificationView};

/// Rows that are looked at before the courier goes on with its work.
const BATCH_ROWS: usize = 200;
/// For all batches of one request together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// In characters; the history of a direct message needs no more.
const MAX_TITLE: usize = 500;

/// A part of the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotificationPage {
    /// The newest first.
    pub notifications: Vec<NotificationView>,
    /// Where the next part begins; none when there is no more.
    pub next: Option<DeliveryId>,
}

/// Looks the answer up, in batches, so that a long history delays no alarm.
///
/// # Errors
/// A sentence when the courier is too busy to answer.
pub fn query(courier: &Courier, query: &NotificationQuery) -> Result<NotificationPage, String> {
    let deadline = Instant::now() + TIMEOUT;
    let mut page =
        NotificationPage { notifications: Vec::new(), next: query.before.map(DeliveryId) };
    loop {
        let (left, before) = (deadline.saturating_duration_since(Instant::now()), page.next);
        let look = move |store: &Store, outbox: &Outbox| {
            (store.view(Table::History), waiting(outbox, before, BATCH_ROWS))
        };
        let (history, waiting) = courier.inspect(left, look)?;
        let batch = batch(&history, waiting, before, BATCH_ROWS);
        for (id, view) in batch.rows {
            if page.notifications.len() >= query.limit {
                return Ok(page);
            }
            page.next = Some(id);
            if query.matches(&view) {
                page.notifications.push(view);
            }
        }
        page.next = batch.next;
        if page.next.is_none() {
            return Ok(page);
        }
    }
}

struct Batch {
    rows: Vec<(DeliveryId, NotificationView)>,
    /// Before which there may be more rows.
    next: Option<DeliveryId>,
}

/// The newest deliveries of the outbox that are older than `before`.
fn waiting(
    outbox: &Outbox,
    before: Option<DeliveryId>,
    count: usize,
) -> Vec<(DeliveryId, NotificationView)> {
    let newest = outbox.newest(before).take(count);
    newest.map(|(id, delivery)| (id, view_of_waiting(id, delivery, outbox))).collect()
}

/// The newest rows of the history and of the outbox, older than `before`; at most `count` of each.
fn batch(
    history: &TableView,
    waiting: Vec<(DeliveryId, NotificationView)>,
    before: Option<DeliveryId>,
    count: usize,
) -> Batch {
    let key = before.map(DeliveryId::key);
    let kept = history.newest(key.as_deref(), count);
    // Where one list was cut, the other may not go further.
    let cut_kept = kept.get(count - 1).and_then(|(key, _)| delivery_id(key));
    let cut_waiting = waiting.get(count - 1).map(|(id, _)| *id);
    let next = cut_kept.max(cut_waiting);
    let mut rows: Vec<_> =
        kept.iter().filter_map(|(key, value)| view_of_record(key, value)).collect();
    rows.extend(waiting);
    rows.retain(|(id, _)| next.is_none_or(|next| *id >= next));
    rows.sort_unstable_by_key(|(id, _)| Reverse(*id));
    Batch { rows, next }
}

fn delivery_id(key: &str) -> Option<DeliveryId> {
    key.parse().ok().map(DeliveryId)
}

fn format_id(id: DeliveryId) -> String {
    EventId(id.0).to_string()
}

/// A row that is damaged is left out: the store said so when it was opened.
fn view_of_record(key: &str, value: &[u8]) -> Option<(DeliveryId, NotificationView)> {
    let id = delivery_id(key)?;
    let record: DeliveryRecord = serde_json::from_slice(value).ok()?;
    let state = if record.delivered { DeliveryState::Delivered } else { DeliveryState::Failed };
    let host = host_of(&record.subject);
    let view = NotificationView {
        id: format_id(id),
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

fn view_of_waiting(id: DeliveryId, delivery: &Delivery, outbox: &Outbox) -> NotificationView {
    let message = &delivery.message;
    let why = outbox.failure_of(&delivery.channel).filter(|_| delivery.attempts > 0);
    NotificationView {
        id: format_id(id),
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

/// The rows of the history for a message that was sent directly through a channel.
pub fn direct_records(
    message: &Message,
    channel: &str,
    report: &ChannelResult,
    finished: Wall,
) -> Vec<DirectRecord> {
    let records = report.recipients.iter().map(|outcome| DirectRecord {
        record: DeliveryRecord {
            event: message.event,
            channel: channel.to_owned(),
            recipient: outcome.recipient.clone(),
            subject: message.subject.clone(),
            level: message.level,
            title: cut(&message.title, MAX_TITLE, TextUnit::Characters),
            accepted: message.at,
            finished,
            attempts: outcome.attempts,
            delivered: outcome.why.is_none(),
            why: outcome.why.clone(),
            is_minor: message.level < Level::Critical,
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        },
        reason: outcome.reason,
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::Now;
    use crate::event::{Event, EventKind};
    use crate::notify::channel::Failure;
    use crate::notify::channel::log::RETRY_POLICY;
    use crate::notify::outbox::QueueSettings;
    use crate::notify::routing::{self, Routes};
    use crate::store::Write;

    struct Fixture {
        store: Store,
        outbox: Outbox,
        routes: Routes,
        now: Now,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let now = Now::read();
            let settings = QueueSettings { retry_policy: RETRY_POLICY, recipients: vec![None] };
            let route = routing::ChannelRoute { min_level: Level::Info };
            let routes = Routes {
                channels: BTreeMap::from([("chat".into(), route)]),
                default: vec!["chat".into()],
                ..Routes::default()
            };
            Fixture {
                store: Store::open(directory.path(), now).unwrap().0,
                outbox: Outbox::new(BTreeMap::from([("chat".into(), settings)]), 1, now),
                routes,
                now,
                _directory: directory,
            }
        }

        fn accept(&mut self, number: u64) {
            let (level, text) = (Level::Warning, format!("text {number}"));
            let kind = EventKind::Custom { host: None, level, text };
            let event = Event::new(self.now.wall, kind);
            let hearing = self.outbox.audience(&event, &self.routes);
            self.outbox.accept(&event, EventId(number), hearing, self.now);
        }

        fn batch(&self, before: Option<DeliveryId>, count: usize) -> Batch {
            let history = self.store.view(Table::History);
            batch(&history, waiting(&self.outbox, before, count), before, count)
        }

        /// Ends the attempt whose turn it is.
        fn end(&mut self, result: Result<(), Failure>) {
            let job = self.outbox.start(self.now).pop().unwrap();
            self.outbox.complete(job.id, result.map(|()| Default::default()), self.now);
            for write in self.outbox.take_writes() {
                self.store.write(write);
            }
        }

        /// All of it, in pieces of `count`.
        fn listed(&self, count: usize) -> Vec<(String, DeliveryState)> {
            let (mut listed, mut before) = (Vec::new(), None);
            loop {
                let batch = self.batch(before, count);
                assert!(batch.rows.len() <= 2 * count);
                listed.extend(batch.rows.into_iter().map(|(_, view)| (view.title, view.state)));
                before = batch.next;
                if before.is_none() {
                    return listed;
                }
            }
        }
    }

    #[test]
    fn what_waits_and_what_ended_are_one_list_however_it_is_cut() {
        let mut fixture = Fixture::new();
        for number in 1..=20 {
            fixture.accept(number);
            if number % 3 == 0 {
                fixture.end(Ok(()));
            }
            if number == 10 {
                fixture.store.commit(fixture.now);
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
            assert_eq!(fixture.listed(count), expected, "in pieces of {count}");
        }
    }

    #[test]
    fn what_failed_says_why_and_so_does_what_waits() {
        let mut fixture = Fixture::new();
        fixture.accept(1);
        fixture.end(Err(Failure::MessageRefused("too rude".into())));
        fixture.accept(2);
        fixture.end(Err(Failure::unreachable("nobody home")));
        fixture.accept(3);
        let rows = fixture.batch(None, 10).rows;
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
        let mut fixture = Fixture::new();
        fixture.accept(1);
        fixture.end(Ok(()));
        for key in ["99999999999999999998", "99999999999999999997", "x"] {
            let broken = Write { value: Some(b"{".to_vec()), ..Write::remove(Table::History, key) };
            fixture.store.write(broken);
        }
        fixture.accept(2);
        let expected = [
            ("text 2".into(), DeliveryState::Waiting),
            ("text 1".into(), DeliveryState::Delivered),
        ];
        assert_eq!(fixture.listed(1)[..], expected[..], "one by one");
        assert_eq!(fixture.listed(10)[..], expected[..]);
    }

    #[test]
    fn a_question_may_be_about_a_host_a_channel_or_an_end() {
        let view = view_of_record(
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
        let mut fixture = Fixture::new();
        fixture.accept(1);
        fixture.end(Err(Failure::channel_refused("bad token")));
        assert!(fixture.outbox.start(fixture.now).is_empty());
        let rows = fixture.batch(None, 10).rows;
        let mut record = DeliveryRecord {
            event: EventId(2),
            channel: rows[0].1.channel.clone(),
            recipient: None,
            subject: Subject::Daemon,
            level: Level::Warning,
            title: "a try".into(),
            accepted: fixture.now.wall,
            finished: fixture.now.wall,
            attempts: 1,
            delivered: false,
            why: Some("still bad".into()),
            is_minor: false,
            told_in: None,
            acknowledged: None,
            acknowledged_by: None,
        };
        fixture.outbox.record_direct(&record, fixture.now);
        let view = fixture.outbox.queue_status(fixture.now).remove(0);
        assert_eq!(view.last_failure, Some((fixture.now.wall, "still bad".into())));
        assert!(view.refused && fixture.outbox.start(fixture.now).is_empty());
        (record.delivered, record.why) = (true, None);
        fixture.outbox.record_direct(&record, fixture.now);
        let view = fixture.outbox.queue_status(fixture.now).remove(0);
        assert_eq!((view.failing_since, view.last_success), (None, Some(fixture.now.wall)));
        assert_eq!(fixture.outbox.start(fixture.now).len(), 1, "what waited goes on at once");
    }

    #[test]
    fn a_direct_message_is_noted_once_for_each_recipient() {
        let empty = Default::default();
        let notifier = crate::Notifier::with(empty, Vec::new(), BTreeMap::new());
        let text = "x".repeat(1000);
        let notice = crate::notify::notifier::DirectMessage::new(text);
        let sent = notifier.send(["gone"], &notice, |_, _, _| {});
        let records = direct_records(&sent.message, "gone", &sent.channels["gone"], Wall(5));
        let [DirectRecord { record, reason: None }] = records.as_slice() else { panic!("one") };
        assert_eq!((record.attempts, record.delivered, record.finished), (0, false, Wall(5)));
        assert!(record.title.chars().count() == MAX_TITLE && record.why.is_some());
    }
}
