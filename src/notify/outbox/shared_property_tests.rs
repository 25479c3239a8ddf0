//! What holds on tables that several daemons share, whatever they lose: random events and outcomes,
//! commits that are not confirmed, failovers that roll back the last commits, takeovers.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::event::Level;
use crate::store::shared_model::{ModelAnswer, SharedModel};
use crate::store::{CommitResult, DirectoryLock, OpenResult, Store};

#[derive(Clone, Debug)]
enum Step {
    Overdue(u8),
    Back(u8),
    Said(u8),
    Finish(u8, u8),
    /// What had a permit has none any more.
    NotMade(u8),
    Wait(u16),
    /// The last commits are lost, as by a failover to a replica that lacks them.
    RollBack(u8),
    Answer(u8),
    /// Another daemon leads, on what the tables hold.
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3).prop_map(Step::Overdue),
        4 => (0u8..3).prop_map(Step::Back),
        2 => (0u8..3).prop_map(Step::Said),
        10 => (0u8..4, 0u8..9).prop_map(|(which, outcome)| Step::Finish(which, outcome)),
        2 => (0u8..4).prop_map(Step::NotMade),
        6 => (0u16..1200).prop_map(Step::Wait),
        2 => (1u8..6).prop_map(Step::RollBack),
        3 => (0u8..6).prop_map(Step::Answer),
        1 => Just(Step::TakeOver),
    ]
}

const NAMES: [&str; 2] = ["chat", "mail"];

struct World {
    test: TestOutbox,
    directory: tempfile::TempDir,
    model: Arc<SharedModel>,
    /// None while one ends and the next one begins.
    store: Option<Store>,
    /// Attempts that wait until their commit is confirmed.
    held: Vec<DeliveryAttempt>,
    in_flight: Vec<DeliveryAttempt>,
    /// Channel and event of all that was accepted, and confirmed.
    accepted: BTreeSet<(String, EventId)>,
    unconfirmed: BTreeSet<(String, EventId)>,
    /// Of what came to an end.
    ended: BTreeSet<(String, EventId)>,
    /// What may have arrived: its next attempt must say so.
    perhaps: BTreeSet<(String, EventId)>,
    /// A commit was lost since the tables were written last: only the leader knows all.
    lost: bool,
}

impl World {
    fn new() -> World {
        let (directory, model) = (tempfile::tempdir().unwrap(), SharedModel::new());
        let mut world = World {
            test: TestOutbox::with(&NAMES),
            directory,
            model,
            store: None,
            held: Vec::new(),
            in_flight: Vec::new(),
            accepted: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            ended: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            lost: false,
        };
        world.test.digesting(600);
        world.store = Some(world.open());
        world
    }

    fn open(&self) -> Store {
        let lock = DirectoryLock::hold(self.directory.path()).unwrap();
        let (store, opened) = Store::open_shared(lock, self.model.clone(), self.test.now);
        assert_eq!(opened, OpenResult::Ready);
        store
    }

    fn take(&mut self, step: &Step) {
        let host = |host: &u8| ["web1", "web2", "web3"][usize::from(*host)].to_owned();
        let connection = || "ipv4".to_owned();
        match step {
            Step::Overdue(of) => self.accept(
                Level::Critical,
                EventKind::Shutdown { host: host(of), connection: connection() },
            ),
            Step::Back(of) => self.accept(
                Level::Ok,
                EventKind::Back { host: host(of), connection: connection(), gone: MINUTE },
            ),
            Step::Said(of) => self.accept(
                Level::Warning,
                EventKind::HostMessage { host: host(of), text: "hello".into() },
            ),
            Step::Finish(which, outcome) => self.finish(*which, *outcome),
            Step::NotMade(which) => {
                if let Some(attempt) = self.take_in_flight(*which) {
                    self.test.outbox.on_not_made(attempt.id, self.test.now);
                    // The end of an alarm that never arrived may end with it.
                    self.note(&[]);
                }
            }
            Step::Wait(seconds) => {
                self.test.wait(Duration::from_secs(u64::from(*seconds)));
                let ended = self.test.outbox.expire(self.test.now);
                self.note(&ended);
            }
            Step::RollBack(count) => {
                self.model.roll_back(usize::from(*count));
                self.lost = true;
            }
            Step::Answer(answer) => self.model.answer(match answer {
                0 => ModelAnswer::Unconfirmed,
                1 => ModelAnswer::Silent,
                2 => ModelAnswer::Refused,
                _ => ModelAnswer::Confirmed,
            }),
            Step::TakeOver => self.take_over(),
        }
        self.turn();
    }

    fn accept(&mut self, level: Level, kind: EventKind) {
        let before: BTreeSet<DeliveryId> = self.test.outbox.deliveries.keys().copied().collect();
        self.test.accept(level, kind);
        let new = self.test.outbox.deliveries.iter().filter(|(id, _)| !before.contains(id));
        self.unconfirmed.extend(new.map(|(_, new)| (new.channel.clone(), new.message.event)));
    }

    /// What the courier does at each turn.
    fn turn(&mut self) {
        let attempts = self.test.start();
        self.held.extend(attempts);
        self.test.report();
        let store = self.store.as_mut().unwrap();
        self.test.outbox.take_writes().into_iter().for_each(|write| store.write(write));
        let now = self.test.now;
        // As the leader's mark is, so that it is found out when commits are lost.
        store.write(Write::put(Table::Meta, "mark", &now.mono.0));
        let mut committed = store.commit(now);
        if committed == CommitResult::Replaced {
            store.rewrite(self.test.outbox.every_row().into_iter());
            committed = store.commit(now);
        }
        match committed {
            CommitResult::Unconfirmed { .. } => return,
            CommitResult::Failed { .. } | CommitResult::StillFailing => {}
            CommitResult::Committed | CommitResult::Recovered { .. } => {
                self.accepted.append(&mut self.unconfirmed);
                self.lost = false;
            }
            other => panic!("{other:?}"),
        }
        for attempt in std::mem::take(&mut self.held) {
            for what in self.members(&attempt) {
                let marked = attempt.delivery.possible_repeat;
                assert!(marked || !self.perhaps.contains(&what), "{what:?} is repeated unmarked");
            }
            self.in_flight.push(attempt);
        }
    }

    fn members(&self, attempt: &DeliveryAttempt) -> Vec<(String, EventId)> {
        let members = self.test.outbox.members(attempt.id);
        let known = members.iter().filter_map(|id| self.test.outbox.deliveries.get(id));
        known.map(|one| (one.channel.clone(), one.message.event)).collect()
    }

    fn take_in_flight(&mut self, which: u8) -> Option<DeliveryAttempt> {
        let count = self.in_flight.len();
        (count > 0).then(|| self.in_flight.remove(usize::from(which) % count))
    }

    fn finish(&mut self, which: u8, outcome: u8) {
        let Some(attempt) = self.take_in_flight(which) else { return };
        let why = || "because".to_owned();
        let result = match outcome {
            0 => Err(Failure::unreachable(why())),
            1 => Err(Failure::MessageRefused(why())),
            2 => Err(Failure::Unknown(why())),
            _ => Ok(Delivered::default()),
        };
        if result.is_ok() {
            let arrived = self.members(&attempt);
            self.ended.extend(arrived);
        }
        let ended = self.test.outbox.complete(attempt.id, result, self.test.now);
        self.note(&ended);
    }

    fn note(&mut self, ended: &[(DeliveryResult, DeliveryRecord)]) {
        for (result, record) in ended {
            if matches!(result, DeliveryResult::Failed { .. } | DeliveryResult::Orphaned) {
                self.ended.insert((record.channel.clone(), record.event));
            }
        }
        // Some end without a word of their own: the history has each.
        for write in &self.test.outbox.writes {
            if let (Table::History, Some(value)) = (write.table, &write.value) {
                let record: DeliveryRecord = serde_json::from_slice(value).unwrap();
                self.ended.insert((record.channel, record.event));
            }
        }
    }

    /// The leader dies, and another one leads on what the tables hold: what was sent may have arrived.
    /// Only after the leader has written anew what a failover has lost: a death in between is the one
    /// that can lose what only the leader knew.
    fn take_over(&mut self) {
        if self.lost {
            return;
        }
        self.model.answer(ModelAnswer::Confirmed);
        self.test.wait(MINUTE);
        self.turn();
        self.held.clear();
        for attempt in std::mem::take(&mut self.in_flight) {
            let members = self.members(&attempt);
            self.perhaps.extend(members);
        }
        drop(self.store.take());
        let mut disk: BTreeMap<(Table, String), Vec<u8>> = self.model.stored();
        self.test.crash(&mut disk);
        for delivery in self.test.outbox.deliveries.values() {
            let what = (delivery.channel.clone(), delivery.message.event);
            assert!(!self.ended.contains(&what), "{what:?} is resurrected");
        }
        self.store = Some(self.open());
    }

    /// Lets everything arrive that can.
    fn drain(&mut self) {
        self.model.answer(ModelAnswer::Confirmed);
        for _ in 0..10_000 {
            self.test.wait(Duration::from_secs(1));
            self.turn();
            if self.in_flight.is_empty() && self.test.outbox.is_empty() {
                break;
            }
            if self.in_flight.is_empty() {
                let wake = self.test.outbox.next_wake(self.test.now).unwrap();
                self.test.now = self.test.now.later(wake.since(self.test.now.mono));
                let now = self.test.now;
                self.test.outbox.channel_reports(now);
                let ended = self.test.outbox.expire(now);
                self.note(&ended);
            } else {
                self.finish(0, 9);
            }
        }
        self.turn();
    }

    fn judge(&self) {
        assert!(self.test.outbox.is_empty());
        let stored = self.model.stored();
        let left = stored.keys().any(|(table, _)| *table == Table::Outbox);
        assert!(!left, "a delivery that has ended is there again");
        let open: BTreeSet<String> = self.test.outbox.incidents.rows().map(|row| row.key).collect();
        let told = stored.keys().filter(|(table, _)| *table == Table::Troubles);
        let told: BTreeSet<String> = told.map(|(_, key)| key.clone()).collect();
        assert_eq!(open, told, "an incident that is over is there again");
        for what in &self.accepted {
            assert!(self.ended.contains(what), "{what:?} is lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_was_confirmed_is_lost_and_nothing_that_ended_comes_back(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        world.drain();
        world.judge();
    }
}
