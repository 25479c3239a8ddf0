//! What holds whatever happens: random events, outcomes, crashes and configurations.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::event::Level;

#[derive(Clone, Debug)]
enum Step {
    Overdue(u8),
    Back(u8),
    Said(u8),
    Fire(u8, bool),
    Calm(u8),
    Finish(u8, u8),
    Wait(u16),
    Crash,
    Reconfigure(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3).prop_map(Step::Overdue),
        4 => (0u8..3).prop_map(Step::Back),
        2 => (0u8..3).prop_map(Step::Said),
        3 => (0u8..3, any::<bool>()).prop_map(|(host, critical)| Step::Fire(host, critical)),
        2 => (0u8..3).prop_map(Step::Calm),
        10 => (0u8..4, 0u8..9).prop_map(|(which, outcome)| Step::Finish(which, outcome)),
        6 => (0u16..1200).prop_map(Step::Wait),
        1 => Just(Step::Crash),
        1 => (0u8..4).prop_map(Step::Reconfigure),
    ]
}

/// What was told to one channel, and everything that is known of what was not.
#[derive(Default)]
struct Ledger {
    /// Events by channel, in the order in which they arrived for the first time.
    told: BTreeMap<String, Vec<EventId>>,
    /// Channel and event of what may have arrived.
    perhaps: BTreeSet<(String, EventId)>,
    /// Channel and event of whatever came to an end, with how often.
    ended: BTreeMap<(String, EventId), u32>,
    /// The channels that each event was sent to; one more than once when it came back.
    posted: BTreeMap<EventId, Vec<String>>,
    configured: BTreeMap<EventId, Vec<String>>,
    subjects: BTreeMap<EventId, Subject>,
    /// Alarms by the number of their end.
    ends: BTreeMap<EventId, Vec<EventId>>,
    open: BTreeMap<Incident, Vec<EventId>>,
    /// Channel and event of what came from another channel.
    moved: BTreeSet<(String, EventId)>,
    /// What was given up, and what notices that arrived told of it.
    lost: BTreeSet<EventId>,
    noticed: BTreeSet<EventId>,
    /// Channel and event of alarms that were open when a notice told of them.
    noticed_open: BTreeSet<(String, EventId)>,
    /// A notice did not arrive, or not with all that it was about.
    notice_lost: bool,
}

struct World {
    test: TestOutbox,
    disk: BTreeMap<(Table, String), Vec<u8>>,
    in_flight: Vec<DeliveryAttempt>,
    ledger: Ledger,
}

const NAMES: [&str; 3] = ["chat", "mail", "pager"];
const HOSTS: [&str; 3] = ["web1", "web2", "web3"];

impl World {
    fn new() -> World {
        let mut test = TestOutbox::with(&NAMES);
        test.digesting(600);
        World { test, disk: BTreeMap::new(), in_flight: Vec::new(), ledger: Ledger::default() }
    }

    fn take(&mut self, step: &Step) {
        let host = |host: &u8| HOSTS[usize::from(*host)].to_owned();
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
            Step::Said(of) => {
                self.accept(
                    Level::Warning,
                    EventKind::HostMessage { host: host(of), text: "hello".into() },
                );
            }
            Step::Fire(of, critical) => {
                let level = if *critical { Level::Critical } else { Level::Warning };
                self.accept(level, metric(host(of), level));
            }
            Step::Calm(of) => self.accept(Level::Ok, metric(host(of), Level::Ok)),
            Step::Finish(which, outcome) => self.finish(*which, *outcome),
            Step::Wait(seconds) => {
                self.test.wait(Duration::from_secs(u64::from(*seconds)));
                let now = self.test.now;
                let expired = self.test.outbox.expire(now);
                self.note(&expired);
            }
            Step::Crash => {
                for job in std::mem::take(&mut self.in_flight) {
                    self.lost(&job);
                }
                let mut disk = std::mem::take(&mut self.disk);
                self.test.crash(&mut disk);
                self.disk = disk;
            }
            Step::Reconfigure(without) => self.reconfigure(usize::from(*without)),
        }
        self.start();
    }

    fn accept(&mut self, level: Level, kind: EventKind) {
        let event = Event { level, ..Event::new(self.test.now.wall, kind) };
        let before: BTreeSet<DeliveryId> = self.test.outbox.deliveries.keys().copied().collect();
        self.test.accept(level, event.kind.clone());
        let id = self.test.event;
        let ledger = &mut self.ledger;
        ledger.subjects.insert(id, event.subject());
        let configured = self.test.routes.channels.keys().cloned().collect();
        ledger.configured.insert(id, configured);
        let change = event.incident();
        if let Some(incident) = change.opens().cloned() {
            ledger.open.entry(incident).or_default().push(id);
        }
        for incident in change.closes() {
            ledger.ends.insert(id, ledger.open.remove(incident).unwrap_or_default());
        }
        let new = self.test.outbox.deliveries.iter().filter(|(id, _)| !before.contains(id));
        let to = new.map(|(_, delivery)| delivery.channel.clone()).collect();
        ledger.posted.insert(id, to);
    }

    fn start(&mut self) {
        let jobs = self.test.start();
        for job in jobs {
            let channel = &job.delivery.channel;
            let same = self.in_flight.iter().any(|other| other.delivery.channel == *channel);
            assert!(!same, "two in flight on {channel}");
            self.in_flight.push(job);
        }
        // What was decided is on disk before anything is sent.
        self.test.write_to(&mut self.disk);
    }

    fn finish(&mut self, which: u8, outcome: u8) {
        if self.in_flight.is_empty() {
            return;
        }
        let job = self.in_flight.remove(usize::from(which) % self.in_flight.len());
        let why = || "because".to_owned();
        let result = match outcome {
            0 => Err(Failure::unreachable(why())),
            1 => Err(Failure::MessageRefused(why())),
            2 => Err(Failure::channel_refused(why())),
            3 => Err(Failure::FormRefused(why())),
            4 => Err(Failure::Unknown(why())),
            _ => Ok(Delivered::default()),
        };
        if result.is_ok() {
            self.arrived(&job);
        }
        if outcome == 4 {
            self.lost(&job);
        }
        let ended = self.test.outbox.complete(job.id, result, self.test.now);
        self.note(&ended);
    }

    fn arrived(&mut self, job: &DeliveryAttempt) {
        let channel = job.delivery.channel.clone();
        for member in self.test.outbox.members(job.id) {
            let Some(delivery) = self.test.outbox.deliveries.get(&member) else { continue };
            let event = delivery.message.event;
            if let Some(notice) = job.delivery.given_up.as_deref() {
                self.ledger.notice_lost |= notice.untitled || notice.count > notice.messages.len();
                self.ledger.noticed.extend(notice.messages.iter().map(|message| message.event));
                let still = delivery.given_up.iter().flat_map(|one| &one.messages);
                let open = still.filter(|one| one.opens.is_some() && !one.over);
                self.ledger.noticed_open.extend(open.map(|one| (channel.clone(), one.event)));
                let all = notice.messages.iter().map(|one| (channel.clone(), one.event));
                self.ledger.perhaps.extend(all);
                continue;
            }
            let told = self.ledger.told.entry(channel.clone()).or_default();
            let subject = &self.ledger.subjects[&event];
            let before = told.iter().rfind(|other| self.ledger.subjects[other] == *subject);
            let is_moved = |event: &EventId| self.ledger.moved.contains(&(channel.clone(), *event));
            let before = before.filter(|before| !is_moved(&event) && !is_moved(before));
            assert!(before.is_none_or(|before| *before < event), "{channel}: order of {subject}");
            told.push(event);
        }
    }

    fn lost(&mut self, job: &DeliveryAttempt) {
        for member in self.test.outbox.members(job.id) {
            if let Some(delivery) = self.test.outbox.deliveries.get(&member) {
                let what = (delivery.channel.clone(), delivery.message.event);
                self.ledger.perhaps.insert(what);
                let listed = delivery.given_up.iter().flat_map(|one| &one.messages);
                let listed = listed.map(|one| (delivery.channel.clone(), one.event));
                self.ledger.perhaps.extend(listed);
            }
        }
    }

    fn note(&mut self, ended: &[(DeliveryResult, DeliveryRecord)]) {
        for (result, record) in ended {
            if matches!(result, DeliveryResult::Failed { .. } | DeliveryResult::Orphaned) {
                assert!(record.why.is_some());
                match self.ledger.subjects.contains_key(&record.event) {
                    true => drop(self.ledger.lost.insert(record.event)),
                    false => self.ledger.notice_lost = true,
                }
            }
        }
        self.test.report();
        for write in self.test.outbox.take_writes() {
            if write.table == Table::History {
                let record: DeliveryRecord =
                    serde_json::from_slice(write.value.as_ref().unwrap()).unwrap();
                *self.ledger.ended.entry((record.channel, record.event)).or_default() += 1;
            }
            match write.value {
                Some(value) => drop(self.disk.insert((write.table, write.key), value)),
                None => drop(self.disk.remove(&(write.table, write.key))),
            }
        }
    }

    fn reconfigure(&mut self, without: usize) {
        let room = Some(TextLimit { max: 600, unit: TextUnit::Characters });
        let kept = NAMES.iter().enumerate().filter(|(index, _)| *index != without);
        let names: Vec<&str> = kept.map(|(_, name)| *name).collect();
        let mut settings = settings(&names);
        settings.values_mut().for_each(|line| line.retry_policy.digest = room);
        let now = self.test.now;
        self.test.routes = routes(&names);
        let before: BTreeSet<DeliveryId> = self.test.outbox.deliveries.keys().copied().collect();
        let ended = self.test.outbox.reconfigure(settings, &self.test.routes, 7, now);
        self.note_successions(&before);
        self.in_flight.retain(|job| names.contains(&job.delivery.channel.as_str()));
        self.note(&ended);
    }

    /// What channels have taken over counts as told to them, and what they are sent of it is new.
    fn note_successions(&mut self, before: &BTreeSet<DeliveryId>) {
        let ledger = &mut self.ledger;
        for open in self.test.outbox.open_incidents() {
            for (channel, notified) in open.channels.iter().filter(|(_, given)| given.delivered) {
                let all = notified.events.iter().map(|event| (channel.clone(), *event));
                ledger.perhaps.extend(all);
            }
        }
        let outbox = &self.test.outbox;
        let new = outbox.deliveries.iter().filter(|(id, _)| !before.contains(id));
        for delivery in new.map(|(_, delivery)| delivery).filter(|one| one.given_up.is_none()) {
            let (channel, event) = (delivery.channel.clone(), delivery.message.event);
            ledger.moved.insert((channel.clone(), event));
            // It was in flight on the channel that is gone.
            ledger.perhaps.extend(delivery.possible_repeat.then(|| (channel.clone(), event)));
            ledger.subjects.insert(event, delivery.message.subject.clone());
            ledger
                .configured
                .entry(event)
                .or_insert_with(|| self.test.routes.channels.keys().cloned().collect());
            ledger.posted.entry(event).or_default().push(channel.clone());
            // Its alarm may have been told through the channel that is gone.
            let alarms = ledger.ends.get(&event).into_iter().flatten();
            ledger.perhaps.extend(alarms.map(|alarm| (channel.clone(), *alarm)));
            if let Some(incident) = delivery.opens.clone()
                && !ledger.ends.values().flatten().any(|ended| *ended == event)
            {
                let alarms = ledger.open.entry(incident).or_default();
                if !alarms.contains(&event) {
                    alarms.push(event);
                }
            }
        }
    }

    /// Lets everything arrive that can.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            self.start();
            if self.in_flight.is_empty() && self.test.outbox.is_empty() {
                break;
            }
            if self.in_flight.is_empty() {
                let wake = self.test.outbox.next_wake(self.test.now).unwrap();
                self.test.now = self.test.now.later(wake.since(self.test.now.mono));
                let now = self.test.now;
                self.test.outbox.channel_reports(now);
                let expired = self.test.outbox.expire(now);
                self.note(&expired);
            } else {
                self.finish(0, 9);
            }
        }
        self.test.write_to(&mut self.disk);
    }

    fn judge(&self) {
        assert!(self.test.outbox.is_empty() && self.test.outbox.digested_in.is_empty());
        let left = self.disk.keys().any(|(table, _)| *table == Table::Outbox);
        assert!(!left, "rows are left");
        for (event, channels) in &self.ledger.posted {
            for channel in channels {
                let ends = self.ledger.ended.get(&(channel.clone(), *event));
                let times = channels.iter().filter(|other| *other == channel).count() as u32;
                assert_eq!(ends, Some(&times), "{event} on {channel} ended once");
            }
        }
        if !self.ledger.notice_lost {
            assert!(self.ledger.lost.is_subset(&self.ledger.noticed), "given up without a word");
        }
        for (end, alarms) in &self.ledger.ends {
            for channel in NAMES {
                let Some(told) = self.ledger.told.get(channel) else { continue };
                let is_told = told.contains(end);
                let noticed = |alarm: &EventId| {
                    self.ledger.noticed_open.contains(&(channel.to_owned(), *alarm))
                };
                let knew = alarms.iter().any(|alarm| told.contains(alarm) || noticed(alarm));
                let perhaps =
                    |alarm: &EventId| self.ledger.perhaps.contains(&(channel.to_owned(), *alarm));
                assert!(
                    !is_told || knew || alarms.iter().any(perhaps),
                    "{end} on {channel} ends what was never told"
                );
                let configured = self.ledger.configured[end].iter().any(|name| name == channel);
                let posted = self.ledger.posted[end].iter().any(|name| name == channel);
                assert!(posted || !knew || !configured, "{channel} is owed {end}");
            }
        }
    }
}

fn metric(host: String, level: Level) -> EventKind {
    EventKind::Threshold {
        host,
        metric: "m".into(),
        value: 1.0,
        limit: "> 0.0".into(),
        level,
        since: Wall(0),
        reminder: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        world.drain();
        world.judge();
    }
}
