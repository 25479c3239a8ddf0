//! The outbox: which deliveries wait, whose turn it is, which of them become one message. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Failure, ReceiptState};
use super::routing::Routes;
use crate::clock::{Mono, Now, Wall, words};
use crate::event::{Event, EventId, EventKind, Incident, Message, Subject};
use crate::store::{Table, Write};

mod delivery;
mod digest;
mod incidents;
mod queue;
mod receipts;
mod results;

use self::delivery::Bundle;
pub use self::delivery::{Delivery, DeliveryId, Fate, Job, LineSettings, LineView, Record};
use self::digest::Waiting;
use self::incidents::Troubles;
pub use self::incidents::{Acknowledged, AlertView, Open};
use self::queue::{Line, Report};
use self::receipts::Receipts;
pub use self::receipts::{Note, Poll, Receipt};

/// A channel that has been failing for so long is reported through others.
const REPORT_AFTER: Duration = Duration::from_secs(600);
/// How often waiting deliveries are looked through for expired ones.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);

/// Deliveries by channel, and the troubles that they told of.
#[derive(Debug, Default)]
pub struct Outbox {
    deliveries: BTreeMap<DeliveryId, Delivery>,
    lines: BTreeMap<String, Line>,
    troubles: Troubles,
    receipts: Receipts,
    /// Of each delivery that is told of together with others, the first of these.
    bundled: BTreeMap<DeliveryId, DeliveryId>,
    last_id: DeliveryId,
    last_event: EventId,
    next_expiry_check: Mono,
    writes: Vec<Write>,
}

/// What the store kept of an outbox.
#[derive(Debug, Default)]
pub struct Kept {
    /// The number of the last event.
    pub last_event: EventId,
    /// By key; their times already translated to this boot's clock.
    pub deliveries: Vec<(String, Delivery)>,
    /// What was wrong.
    pub troubles: Vec<Open>,
    /// What nobody had acknowledged.
    pub receipts: Vec<Receipt>,
}

/// What one channel is to be told.
#[derive(Default)]
struct Target {
    told: bool,
    closes: Vec<Incident>,
    ends: Vec<EventId>,
    thread: Option<String>,
}

impl Outbox {
    /// An empty one with these channels. `seed` varies the jitter.
    pub fn new(settings: BTreeMap<String, LineSettings>, seed: u64, now: Now) -> Outbox {
        let mut outbox = Outbox { next_expiry_check: now.mono + EXPIRY_CHECK, ..Outbox::default() };
        outbox.reconfigure(settings, seed, now);
        outbox
    }

    /// Takes over what the store kept. What was under way when the daemon died may have arrived.
    /// Deliveries to channels that are gone are dropped, and told.
    pub fn restore(&mut self, kept: Kept, now: Now) -> Vec<(Fate, Record)> {
        self.last_event = self.last_event.max(kept.last_event);
        kept.troubles.into_iter().for_each(|open| self.troubles.restore(open));
        kept.receipts.into_iter().for_each(|receipt| self.receipts.restore(receipt, now));
        for (key, mut delivery) in kept.deliveries {
            let Ok(number) = key.parse() else { continue };
            let id = DeliveryId(number);
            self.last_id = self.last_id.max(id);
            if delivery.in_flight {
                delivery.in_flight = false;
                delivery.possible_repeat = true;
                self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
            }
            self.troubles.count(&delivery);
            if let Some(line) = self.lines.get_mut(&delivery.channel) {
                line.push(id, &delivery);
                if delivery.attempts > u32::from(delivery.possible_repeat) {
                    line.has_failed();
                }
            }
            self.deliveries.insert(id, delivery);
        }
        self.restore_bundles();
        for (channel, since) in self.troubles.failing_channels() {
            if let Some(line) = self.lines.get_mut(&channel) {
                line.was_reported(since, now);
            }
        }
        self.clear_out(now)
    }

    fn restore_bundles(&mut self) {
        for (id, delivery) in &self.deliveries {
            let Some(bundle) = &delivery.bundle else { continue };
            let there = bundle.members.iter().filter(|id| self.deliveries.contains_key(id));
            self.bundled.extend(there.map(|member| (*member, *id)));
        }
    }

    /// Takes over a new configuration. Deliveries to channels that are gone are dropped, and told.
    pub fn reconfigure(
        &mut self,
        settings: BTreeMap<String, LineSettings>,
        seed: u64,
        now: Now,
    ) -> Vec<(Fate, Record)> {
        let mut old = std::mem::take(&mut self.lines);
        for (index, (name, settings)) in settings.into_iter().enumerate() {
            let line = match old.remove(&name) {
                Some(line) => line.with_settings(settings),
                None => Line::new(settings, seed.wrapping_add(index as u64), now.mono),
            };
            self.lines.insert(name, line);
        }
        self.clear_out(now)
    }

    /// Lets go of all that belongs to channels which are no longer configured.
    fn clear_out(&mut self, now: Now) -> Vec<(Fate, Record)> {
        self.receipts.keep_channels(|channel| self.lines.contains_key(channel));
        for (channel, _) in self.troubles.failing_channels() {
            if !self.lines.contains_key(&channel) {
                self.forget(&Incident::Channel { channel });
            }
        }
        let is_orphan = |delivery: &Delivery| !self.lines.contains_key(&delivery.channel);
        let orphans: Vec<_> = self
            .deliveries
            .iter()
            .filter(|(_, delivery)| is_orphan(delivery))
            .map(|(id, _)| *id)
            .collect();
        orphans
            .into_iter()
            .flat_map(|id| self.drop_delivery(id, "its channel is no longer configured", now))
            .collect()
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        let mut writes = std::mem::take(&mut self.writes);
        writes.append(&mut self.troubles.take_writes());
        writes.append(&mut self.receipts.take_writes());
        writes
    }

    /// Every row, for a store that lost its own.
    pub fn all_writes(&self) -> Vec<Write> {
        let deliveries = self
            .deliveries
            .iter()
            .map(|(id, delivery)| Write::put(Table::Outbox, id.key(), delivery));
        deliveries.chain(self.troubles.rows()).chain(self.receipts.rows()).collect()
    }

    /// The number of the next event.
    pub fn next_event(&mut self, now: Wall) -> EventId {
        self.last_event = self.last_event.next(now);
        self.last_event
    }

    /// The number of the last event.
    pub fn last_event(&self) -> EventId {
        self.last_event
    }

    /// Who has taken note of what `event` only repeats: then it is not to be told again.
    pub fn acknowledged(&self, event: &Event) -> Option<&Acknowledged> {
        let EventKind::Threshold { reminder: true, .. } = event.kind else { return None };
        self.troubles.acknowledged(&event.opens()?, event.level)
    }

    /// Turns an event into deliveries, one per channel and recipient; says how many.
    pub fn accept(&mut self, event: &Event, id: EventId, routes: &Routes, now: Now) -> usize {
        self.last_event = self.last_event.max(id);
        let message = Arc::new(event.message(id));
        let opens = event.opens();
        let misled = event.corrects().map(|trouble| self.troubles.told(&trouble));
        let hearing = routes.targets(event).into_iter().chain(misled.into_iter().flatten());
        let mut targets: BTreeMap<String, Target> = hearing
            .map(|name| {
                let known = opens.as_ref();
                let thread = known.and_then(|trouble| self.troubles.thread_of(trouble, &name));
                (name, Target { told: true, thread, ..Target::default() })
            })
            .collect();
        for trouble in event.closes() {
            self.receipts.over(&trouble);
            for (name, given) in self.troubles.close(&trouble) {
                let target = targets.entry(name).or_default();
                target.told |= given.delivered;
                target.ends.extend(given.events);
                target.thread = target.thread.take().or(given.thread);
                target.closes.push(trouble.clone());
            }
        }
        let mut count = 0;
        for (name, target) in targets {
            count += self.post(&name, &message, opens.as_ref(), &target, now);
        }
        count
    }

    /// Queues a message for every recipient of a channel.
    fn post(
        &mut self,
        channel: &str,
        message: &Arc<Message>,
        opens: Option<&Incident>,
        target: &Target,
        now: Now,
    ) -> usize {
        let Some(line) = self.lines.get(channel) else { return 0 };
        let recipients = line.recipients().to_vec();
        for recipient in &recipients {
            let delivery = Delivery {
                channel: channel.to_owned(),
                recipient: recipient.clone(),
                message: Arc::clone(message),
                accepted: now,
                attempts: 0,
                in_flight: false,
                possible_repeat: false,
                plain: false,
                alone: false,
                opens: opens.cloned(),
                closes: target.closes.clone(),
                told: target.told,
                ends: target.ends.clone(),
                thread: target.thread.clone(),
                bundle: None,
            };
            let id = self.next_id(now.wall);
            self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
            if let Some(line) = self.lines.get_mut(channel) {
                line.push(id, &delivery);
            }
            self.deliveries.insert(id, delivery);
        }
        if let Some(trouble) = opens {
            self.troubles.tell(trouble, channel, message, recipients.len());
        }
        recipients.len()
    }

    /// Made of the time, so that it stays unique when the store was lost.
    fn next_id(&mut self, now: Wall) -> DeliveryId {
        self.last_id = DeliveryId(EventId(self.last_id.0).next(now).0);
        self.last_id
    }

    /// Ends a trouble of which nothing is known any more (a rule or host that was removed),
    /// without a word to anybody.
    pub fn forget(&mut self, trouble: &Incident) {
        self.receipts.over(trouble);
        self.troubles.close(trouble);
    }

    /// Every attempt whose turn it is now: one per channel, marked as under way.
    pub fn start(&mut self, now: Now) -> Vec<Job> {
        let ready: Vec<DeliveryId> =
            self.lines.values_mut().filter_map(|line| line.ready(now.mono)).collect();
        ready.into_iter().filter_map(|id| self.begin(id, now)).collect()
    }

    fn begin(&mut self, id: DeliveryId, now: Now) -> Option<Job> {
        let id = match self.bundled.get(&id) {
            Some(lead) => *lead,
            None => self.bundle(id, now).unwrap_or(id),
        };
        let delivery = self.deliveries.get_mut(&id)?;
        delivery.attempts += 1;
        delivery.in_flight = true;
        self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        self.lines.get_mut(&delivery.channel)?.begin(id, now.mono);
        Some(Job { id, delivery: self.as_sent(id)? })
    }

    /// Puts what waits into one message where the channel could not send, and says under which
    /// delivery that goes. `id` is the delivery whose turn it is.
    fn bundle(&mut self, id: DeliveryId, now: Now) -> Option<DeliveryId> {
        let turn = self.deliveries.get(&id)?;
        let line = self.lines.get(&turn.channel)?;
        let (cause, room) = (line.held_up()?, line.pace().digest?);
        if !turn.may_join() {
            return None;
        }
        let digest = if line.is_probed() {
            None
        } else {
            let sequences: Vec<Waiting> =
                line.sequences(&turn.recipient).map(|ids| self.joinable(ids)).collect();
            digest::digest(&sequences, room)
        };
        let (members, left) = match digest {
            Some(digest) => digest,
            None => (digest::over(&self.joinable(line.sequence_of(turn)), room), 0),
        };
        let lead = *members.first()?;
        self.bundled.extend(members.iter().map(|member| (*member, lead)));
        let event = self.next_event(now.wall);
        let bundle = Bundle { event, at: now.wall, cause, members, left, lost: 0 };
        self.deliveries.get_mut(&lead)?.bundle = Some(Box::new(bundle));
        Some(lead)
    }

    /// The beginning of a sequence, as far as it may be told of together with others.
    fn joinable<'a>(&self, ids: impl Iterator<Item = &'a DeliveryId>) -> Waiting<'_> {
        ids.map_while(|id| Some((*id, self.deliveries.get(id)?)))
            .take_while(|(id, delivery)| delivery.may_join() && !self.bundled.contains_key(id))
            .collect()
    }

    /// The deliveries that go out with this one, itself among them.
    fn members(&self, id: DeliveryId) -> Vec<DeliveryId> {
        match self.deliveries.get(&id).and_then(|delivery| delivery.bundle.as_ref()) {
            Some(bundle) => bundle.members.clone(),
            None => vec![id],
        }
    }

    /// A delivery as it goes out: where it stands for others too, what is said of all.
    fn as_sent(&self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.deliveries.get(&id)?;
        let Some(bundle) = &delivery.bundle else { return Some(delivery.clone()) };
        let members: Vec<&Delivery> =
            bundle.members.iter().filter_map(|id| self.deliveries.get(id)).collect();
        let whole = digest::whole(bundle, &members)?;
        let Delivery { attempts, in_flight, possible_repeat, accepted, .. } = *delivery;
        Some(Delivery { attempts, in_flight, possible_repeat, accepted, ..whole })
    }

    /// Emergencies to ask about now: one at a time for each channel, and never faster than the
    /// provider wants to be asked.
    pub fn polls(&mut self, now: Now) -> Vec<Poll> {
        self.receipts.due(now.mono)
    }

    /// Takes note of an answer; says so when somebody acknowledged the emergency.
    pub fn polled(
        &mut self,
        poll: &Poll,
        answer: Result<ReceiptState, Failure>,
        now: Now,
    ) -> Option<Note> {
        let note = self.receipts.answered(poll, answer, now)?;
        for trouble in &note.troubles {
            self.troubles.acknowledge(trouble, &note.by);
        }
        Some(note)
    }

    /// Channels that have been failing for long enough to be reported, and those that recovered.
    pub fn reports(&mut self, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, line) in &mut self.lines {
            let kind = match line.report(now.mono, REPORT_AFTER) {
                None => continue,
                Some(Report::Fails { why }) => {
                    EventKind::ChannelFails { channel: name.clone(), why, waiting: line.waiting() }
                }
                Some(Report::Delivers { failed_for }) => {
                    EventKind::ChannelDelivers { channel: name.clone(), failed_for }
                }
            };
            events.push(Event::new(now.wall, kind));
        }
        events
    }

    /// When something is to be done next without anything happening from outside.
    pub fn next_wake(&self, now: Now) -> Option<Mono> {
        let turn = self.lines.values().filter_map(|line| line.next_start(now.mono)).min();
        let report = self.lines.values().filter_map(|line| line.next_report(REPORT_AFTER)).min();
        let expiry = (!self.deliveries.is_empty()).then_some(self.next_expiry_check);
        [turn, report, expiry, self.receipts.next_due()].into_iter().flatten().min()
    }

    /// Whether an attempt is under way.
    pub fn is_busy(&self) -> bool {
        self.lines.values().any(Line::is_busy)
    }

    /// How many deliveries wait or are under way.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// How every channel stands.
    pub fn views(&self, now: Now) -> Vec<LineView> {
        self.lines
            .iter()
            .map(|(name, line)| {
                let oldest = line.oldest().and_then(|id| self.deliveries.get(&id));
                LineView {
                    channel: name.clone(),
                    oldest: oldest.map(|delivery| now.mono.since(delivery.accepted.mono)),
                    unacknowledged: self.receipts.waiting(name),
                    ..line.view()
                }
            })
            .collect()
    }

    /// What is wrong at present, and who has taken note.
    pub fn alerts(&self) -> Vec<AlertView> {
        self.troubles.views().collect()
    }

    /// One thing that is wrong, as far as anybody was told.
    pub fn alert(&self, trouble: &Incident) -> Option<AlertView> {
        self.troubles.view(trouble)
    }

    /// What is wrong at present but with the hosts.
    pub fn alerts_of_no_host(&self) -> Vec<AlertView> {
        self.troubles.of_no_host().collect()
    }

    /// The deliveries that wait or are under way, the newest first, from before that one on.
    pub fn newest(
        &self,
        before: Option<DeliveryId>,
    ) -> impl Iterator<Item = (DeliveryId, &Delivery)> {
        let before = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.deliveries.range((Bound::Unbounded, before)).rev().map(|(id, one)| (*id, one))
    }

    /// Why a channel does not deliver, while it does not.
    pub fn trouble_of(&self, channel: &str) -> Option<&str> {
        self.lines.get(channel)?.last_failure()
    }

    /// Puts into the history what was sent without the outbox. What arrived shows that the channel
    /// works: who has mended one and tries it need not wait for the next probe.
    pub fn note(&mut self, record: &Record, now: Now) {
        if let Some(line) = self.lines.get_mut(&record.channel) {
            match &record.why {
                None => line.works(now, true),
                Some(why) => line.failed_elsewhere(why, now),
            }
        }
        let id = self.next_id(now.wall);
        self.writes.push(Write::put(Table::History, id.key(), record));
    }
}

#[cfg(test)]
mod tests;
