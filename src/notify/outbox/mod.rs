//! The outbox: the deliveries of every channel, from an event to its attempts. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Failure, ReceiptState};
use super::routing::Routes;
use crate::btree::InsertAll;
use crate::clock::{Mono, Now, Wall};
use crate::event::{
    Event, EventDescription, EventId, EventKind, Incident, Level, Message, is_minor,
};
use crate::store::{Table, Write};

mod acknowledge;
mod acknowledgement;
mod delivery;
mod digest;
mod given_up;
mod incidents;
mod jitter;
mod messages;
mod overdue;
mod queue;
mod receipts;
mod recipients;
mod reminders;
mod results;
mod shares;
mod succession;
mod together;

pub use self::acknowledgement::Acknowledgement;
use self::delivery::{Backlog, Digest, Place, SubjectDeliveries};
pub use self::delivery::{
    Delivery, DeliveryAttempt, DeliveryId, DeliveryRecord, DeliveryResult, DropReason,
    QueueSettings, QueueStatus,
};
use self::given_up::Notices;
use self::incidents::Incidents;
pub use self::incidents::OpenIncident;
use self::queue::{ChannelQueue, HealthChange};
use self::receipts::Receipts;
pub use self::receipts::{AcknowledgedMessage, Receipt, ReceiptPoll};
use self::recipients::Standing;
use self::reminders::Reminders;
use self::shares::Shares;
pub use self::shares::{Room, UsedShares};

/// A channel that has failed for this long is reported through other channels.
const REPORT_AFTER: Duration = Duration::from_secs(600);
/// How often waiting deliveries are searched for expired ones.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);

/// The deliveries by channel, and the open incidents that they are about.
#[derive(Debug, Default)]
pub struct Outbox {
    deliveries: BTreeMap<DeliveryId, Delivery>,
    queues: BTreeMap<String, ChannelQueue>,
    incidents: Incidents,
    receipts: Receipts,
    notices: Notices,
    reminders: Reminders,
    /// Of each delivery that is part of a digest, the first delivery of that digest.
    digested_in: BTreeMap<DeliveryId, DeliveryId>,
    shares: Shares,
    /// Where people reach the status page.
    public_url: Option<String>,
    last_id: DeliveryId,
    last_event: EventId,
    next_expiry_check: Mono,
    writes: Vec<Write>,
}

/// What the store has of an outbox.
#[derive(Debug, Default)]
pub struct StoredOutbox {
    /// The number of the last event.
    pub last_event: EventId,
    /// By key, with times of this boot's clock.
    pub deliveries: Vec<(String, Delivery)>,
    /// The incidents that are open.
    pub incidents: Vec<OpenIncident>,
    /// The emergencies that are not acknowledged.
    pub receipts: Vec<Receipt>,
}

/// What one event means for one channel.
#[derive(Default)]
struct ChannelTarget {
    always_deliver: bool,
    is_minor: bool,
    closes: Vec<Incident>,
    recovered_events: Vec<EventId>,
    thread: Option<String>,
    for_backups: bool,
    ended_level: Option<Level>,
    given_to: Arc<BTreeSet<Place>>,
    is_reminder: bool,
}

impl Outbox {
    /// An empty outbox with these channels. `seed` varies the jitter.
    pub fn new(settings: BTreeMap<String, QueueSettings>, seed: u64, now: Now) -> Outbox {
        let (next_expiry_check, reminders) = (now.mono + EXPIRY_CHECK, Reminders::new(now));
        let mut outbox = Outbox { next_expiry_check, reminders, ..Outbox::default() };
        outbox.reconfigure(settings, &Routes::default(), seed, now);
        outbox
    }

    /// Loads what the store has. What was in flight when the daemon died may have arrived. What has
    /// no channel any more waits for [`Outbox::take_over`].
    pub fn restore(&mut self, kept: StoredOutbox, now: Now) {
        self.last_event = self.last_event.max(kept.last_event);
        kept.incidents.into_iter().for_each(|open| self.incidents.restore(open));
        kept.receipts.into_iter().for_each(|receipt| self.receipts.restore(receipt, now));
        let number = |(key, delivery): (String, Delivery)| Some((key.parse().ok()?, delivery));
        let mut deliveries: Vec<(u64, Delivery)> =
            kept.deliveries.into_iter().filter_map(number).collect();
        // One that came from another channel has its place among those of this one.
        deliveries.sort_unstable_by_key(|(number, delivery)| (delivery.message.event, *number));
        for (number, mut delivery) in deliveries {
            let id = DeliveryId(number);
            self.last_id = self.last_id.max(id);
            if delivery.in_flight {
                delivery.in_flight = false;
                delivery.possible_repeat = true;
                self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
            }
            self.incidents.count_waiting(&delivery);
            if delivery.given_up.is_some() {
                self.notices.restore(id);
            }
            if let Some(queue) = self.queues.get_mut(&delivery.channel) {
                queue.push(id, &delivery);
                if delivery.attempts > u32::from(delivery.possible_repeat) {
                    queue.restore_backlog();
                }
            }
            self.keep(id, delivery);
        }
        self.restore_digests();
        self.restore_released();
        self.restore_ends_of_notices(now);
        for (channel, since) in self.incidents.failing_channels() {
            if let Some(queue) = self.queues.get_mut(&channel) {
                queue.restore_reported_failure(since, now);
            }
        }
        self.close_removed_channels();
    }

    /// What came out of a hold before the daemon died becomes digests all the same.
    fn restore_released(&mut self) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let was_held = |delivery: &&Delivery| delivery.message.was_held_back();
        for delivery in self.deliveries.values().filter(was_held) {
            *counts.entry(delivery.channel.clone()).or_default() += 1;
        }
        counts.iter().for_each(|(channel, count)| self.on_released(channel, *count));
    }

    fn restore_digests(&mut self) {
        for (id, delivery) in &self.deliveries {
            let Some(digest) = &delivery.digest else { continue };
            let there = digest.members.iter().filter(|id| self.deliveries.contains_key(id));
            self.digested_in.extend(there.map(|member| (*member, *id)));
        }
    }

    /// Applies a new configuration. What has no channel any more is taken over; returns what became of
    /// it.
    pub fn reconfigure(
        &mut self,
        settings: BTreeMap<String, QueueSettings>,
        routes: &Routes,
        seed: u64,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        self.shares.on_new_routes();
        let mut old = std::mem::take(&mut self.queues);
        let mut new = BTreeSet::new();
        for (index, (name, settings)) in settings.into_iter().enumerate() {
            let queue = match old.remove(&name) {
                Some(queue) => queue.with_settings(settings),
                None => {
                    new.insert(name.clone());
                    ChannelQueue::new(settings, seed.wrapping_add(index as u64), now.mono)
                }
            };
            self.queues.insert(name, queue);
        }
        self.queue_what_was_kept(&new);
        let ended = self.take_over(routes, now);
        self.close_removed_channels();
        ended
    }

    /// Forgets how channels fared that are no longer configured.
    fn close_removed_channels(&mut self) {
        self.receipts.retain_channels(|channel| self.queues.contains_key(channel));
        for (channel, _) in self.incidents.failing_channels() {
            if !self.queues.contains_key(&channel) {
                self.close_silently(&Incident::Channel { channel });
            }
        }
    }

    /// The settings in use.
    fn settings(&self) -> BTreeMap<String, QueueSettings> {
        let of = |(name, queue): (&String, &ChannelQueue)| (name.clone(), queue.settings().clone());
        self.queues.iter().map(of).insert_all()
    }

    /// The rows that changed since the last call.
    pub fn take_writes(&mut self) -> Vec<Write> {
        let mut writes = std::mem::take(&mut self.writes);
        writes.append(&mut self.incidents.take_writes());
        writes.append(&mut self.receipts.take_writes());
        writes
    }

    /// Every row, for a store that lost its own.
    pub fn every_row(&self) -> Vec<Write> {
        let deliveries = self
            .deliveries
            .iter()
            .map(|(id, delivery)| Write::put(Table::Outbox, id.key(), delivery));
        deliveries.chain(self.incidents.rows()).chain(self.receipts.rows()).collect()
    }

    /// A new number for an event.
    pub fn next_event(&mut self, now: Wall) -> EventId {
        self.last_event = self.last_event.next(now);
        self.last_event
    }

    /// The number of the last event.
    pub fn last_event(&self) -> EventId {
        self.last_event
    }

    /// The acknowledgement of what `event` only repeats: with one, no reminder is sent.
    pub fn acknowledged(&self, event: &Event, now: Now) -> Option<&Acknowledgement> {
        let described = event.kind.describe();
        let opens = described.incident.opens().filter(|_| described.is_reminder)?;
        self.incidents.acknowledged(opens, event.level, now)
    }

    /// The channels that get an event for what it is: those of its routes, and those that it
    /// corrects.
    pub fn audience(&self, event: &Event, routes: &Routes) -> BTreeSet<String> {
        let change = event.incident();
        let corrected =
            change.corrects().map(|incident| self.incidents.notified_channels(incident));
        let corrected = corrected.into_iter().flatten();
        routes.targets(event).into_iter().chain(corrected).insert_all()
    }

    /// Turns an event into deliveries, one for each channel and recipient: to those in `hearing`, and
    /// to those that were given an incident that it closes. Returns the channels.
    pub fn accept(
        &mut self,
        event: &Event,
        id: EventId,
        hearing: BTreeSet<String>,
        now: Now,
    ) -> Vec<String> {
        self.last_event = self.last_event.max(id);
        let message = self.message_of(event, id);
        let EventDescription { name, for_backups, is_reminder, incident: change, .. } =
            event.kind.describe();
        let (opens, state) = (change.opens(), event.alarm_state());
        let is_minor = is_minor(name, event.level);
        let mut targets: BTreeMap<String, ChannelTarget> = hearing
            .into_iter()
            .map(|name| {
                let thread = opens.and_then(|incident| self.incidents.thread_of(incident, &name));
                (name, ChannelTarget { always_deliver: true, thread, ..ChannelTarget::default() })
            })
            .insert_all();
        for incident in change.closes() {
            self.close_incident(incident, &mut targets, now);
        }
        let places = self.places_of(targets.keys().cloned());
        let given_to = if places.len() > 1 { places } else { Arc::default() };
        let mut channels = Vec::new();
        for (name, target) in targets {
            // To a channel that was told something else it is news.
            let is_reminder = is_reminder
                && opens.is_some_and(|incident| self.incidents.knows(incident, &name, &state));
            let given_to = Arc::clone(&given_to);
            let target = ChannelTarget { for_backups, is_minor, is_reminder, given_to, ..target };
            let message = self.message_for(event, &message, &name);
            if self.enqueue(&name, &message, opens, &target, now) > 0 {
                if let Some(incident) = opens {
                    self.incidents.record_told(incident, &name, &state);
                }
                channels.push(name);
            }
        }
        channels
    }

    /// So many events came out of a hold at once for a channel: too many for single messages become
    /// digests.
    pub fn on_released(&mut self, channel: &str, count: usize) {
        if count > digest::MAX_SINGLE_MESSAGES
            && let Some(queue) = self.queues.get_mut(channel)
        {
            queue.on_released();
        }
    }

    /// Closes an incident: those that were told of it are to be told of its end.
    fn close_incident(
        &mut self,
        incident: &Incident,
        targets: &mut BTreeMap<String, ChannelTarget>,
        now: Now,
    ) {
        self.receipts.close_incident(incident);
        let level = self.incidents.get(incident).and_then(|open| open.level);
        let noticed = self.end_in_notices(incident, now);
        for (name, notified) in self.incidents.close(incident) {
            let target = targets.entry(name).or_default();
            target.always_deliver |= notified.delivered;
            target.recovered_events.extend(notified.events);
            target.thread = target.thread.take().or(notified.thread);
            target.closes.push(incident.clone());
            target.ended_level = target.ended_level.max(level);
        }
        for (name, notice, may_have_arrived) in noticed {
            let target = targets.entry(name).or_default();
            target.always_deliver |= may_have_arrived;
            target.recovered_events.push(notice);
            target.ended_level = target.ended_level.max(level);
            if !target.closes.contains(incident) {
                target.closes.push(incident.clone());
            }
        }
    }

    /// Queues a message for every recipient of a channel.
    fn enqueue(
        &mut self,
        channel: &str,
        message: &Arc<Message>,
        opens: Option<&Incident>,
        target: &ChannelTarget,
        now: Now,
    ) -> usize {
        let Some(queue) = self.queues.get(channel) else { return 0 };
        let recipients = queue.recipients().to_vec();
        let gathers = self.gathers_until(channel, target, message.level, now);
        for recipient in &recipients {
            let message = Arc::clone(message);
            let delivery = Delivery::new(channel, recipient.clone(), message, opens, target, now);
            let id = self.next_delivery_id(now.wall);
            self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
            if let Some(queue) = self.queues.get_mut(channel) {
                queue.push(id, &delivery);
                queue.gather(id, &delivery, gathers);
            }
            self.keep(id, delivery);
        }
        if let Some(incident) = opens {
            self.incidents.record_queued(incident, channel, message, recipients.len(), now);
            self.reminders.on_told(incident, now);
        }
        recipients.len()
    }

    fn keep(&mut self, id: DeliveryId, delivery: Delivery) {
        self.shares.add(&delivery.message.subject);
        self.deliveries.insert(id, delivery);
    }

    /// Derived from the time, so that it stays unique when the store was lost.
    fn next_delivery_id(&mut self, now: Wall) -> DeliveryId {
        self.last_id = DeliveryId(EventId(self.last_id.0).next(now).0);
        self.last_id
    }

    /// Closes an incident that has lost its subject (a rule or a host that was removed), without a
    /// message.
    pub fn close_silently(&mut self, incident: &Incident) {
        self.receipts.close_incident(incident);
        self.incidents.close(incident);
    }

    /// Starts every attempt that is due: at most one per channel, marked as in flight.
    pub fn start(&mut self, now: Now) -> Vec<DeliveryAttempt> {
        self.release_notices(now);
        let ready: Vec<DeliveryId> =
            self.queues.values_mut().filter_map(|queue| queue.next_ready(now.mono)).collect();
        ready.into_iter().filter_map(|id| self.start_attempt(id, now)).collect()
    }

    fn start_attempt(&mut self, id: DeliveryId, now: Now) -> Option<DeliveryAttempt> {
        let id = match self.digested_in.get(&id) {
            Some(first) => *first,
            None => self.form_digest(id, now).unwrap_or(id),
        };
        let delivery = self.deliveries.get_mut(&id)?;
        delivery.attempts += 1;
        delivery.in_flight = true;
        self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        let recipient = &delivery.recipient;
        self.queues.get_mut(&delivery.channel)?.start_attempt(id, recipient, now.mono);
        Some(DeliveryAttempt { id, delivery: self.as_sent(id)? })
    }

    /// Puts what waits into one message when a backlog built up; returns the delivery that carries
    /// it. `id` is the delivery that is due.
    fn form_digest(&mut self, id: DeliveryId, now: Now) -> Option<DeliveryId> {
        let turn = self.deliveries.get(&id)?;
        let queue = self.queues.get(&turn.channel)?;
        let (backlog, room) = (queue.backlog(&turn.recipient), queue.retry_policy().digest?);
        if !turn.can_be_digested() || !queue.takes_digests() {
            return None;
        }
        let selected = if queue.is_probing() || backlog.is_none() {
            None
        } else {
            let sequences: Vec<SubjectDeliveries> = queue
                .waiting_for_recipient(&turn.recipient)
                .map(|ids| self.digestible(ids))
                .collect();
            digest::select(&sequences, room)
        };
        let (cause, (members, left)) = match (backlog, selected) {
            (Some(cause), Some(selected)) => (cause, selected),
            (backlog, _) => {
                let same = self.digestible(queue.waiting_with(turn));
                let over = backlog.map(|cause| (cause, digest::alarm_and_recovery(&same, room)));
                let over = over.filter(|(_, members)| !members.is_empty());
                let together = || (Backlog::Together, together::head_together(&same));
                let (cause, members) = over.unwrap_or_else(together);
                (cause, (members, 0))
            }
        };
        let first = *members.first()?;
        self.digested_in.extend(members.iter().map(|member| (*member, first)));
        let event = self.next_event(now.wall);
        let digest = Digest { event, at: now.wall, cause, members, left_out: left, times_lost: 0 };
        self.deliveries.get_mut(&first)?.digest = Some(Box::new(digest));
        Some(first)
    }

    /// The head of a subject's deliveries, as far as these may be part of a digest.
    fn digestible<'a>(&self, ids: impl Iterator<Item = &'a DeliveryId>) -> SubjectDeliveries<'_> {
        ids.map_while(|id| Some((*id, self.deliveries.get(id)?)))
            .take_while(|(id, delivery)| {
                delivery.can_be_digested() && !self.digested_in.contains_key(id)
            })
            .collect()
    }

    /// The deliveries that are sent with this one, itself among them.
    fn members(&self, id: DeliveryId) -> Vec<DeliveryId> {
        match self.deliveries.get(&id).and_then(|delivery| delivery.digest.as_ref()) {
            Some(digest) => digest.members.clone(),
            None => vec![id],
        }
    }

    /// A delivery as it is sent: with the text of its digest, if it carries one.
    fn as_sent(&self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.deliveries.get(&id)?;
        let Some(digest) = &delivery.digest else { return Some(delivery.clone()) };
        let members: Vec<&Delivery> =
            digest.members.iter().filter_map(|id| self.deliveries.get(id)).collect();
        let whole = digest::render(digest, &members)?;
        let Delivery { attempts, in_flight, possible_repeat, accepted, .. } = *delivery;
        Some(Delivery { attempts, in_flight, possible_repeat, accepted, ..whole })
    }

    /// Records a provider's answer; returns the message if it was acknowledged.
    pub fn on_poll_result(
        &mut self,
        poll: &ReceiptPoll,
        answer: Result<ReceiptState, Failure>,
        now: Now,
    ) -> Option<AcknowledgedMessage> {
        let acknowledged = self.receipts.on_poll_result(poll, answer, now)?;
        self.acknowledge_all(&acknowledged.incidents, &acknowledged.by, now);
        Some(acknowledged)
    }

    /// Events about channels that have failed for long enough, and about those that recovered.
    pub fn channel_reports(&mut self, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, queue) in &mut self.queues {
            let kind = match queue.health_change(now.mono, REPORT_AFTER) {
                None => continue,
                Some(HealthChange::Failing { why }) => {
                    EventKind::ChannelFails { channel: name.clone(), why, waiting: queue.waiting() }
                }
                Some(HealthChange::Recovered { failed_for }) => {
                    EventKind::ChannelDelivers { channel: name.clone(), failed_for }
                }
            };
            events.push(Event::new(now.wall, kind));
        }
        events
    }

    /// When something falls due next, if nothing else happens before.
    pub fn next_wake(&self, now: Now) -> Option<Mono> {
        let turn = self.queues.values().filter_map(|queue| queue.next_start(now.mono)).min();
        let report =
            self.queues.values().filter_map(|queue| queue.next_health_change(REPORT_AFTER)).min();
        let expiry = (!self.deliveries.is_empty()).then_some(self.next_expiry_check);
        let notice = self.notices.next_release();
        let acknowledged = self.incidents.next_end_of_acknowledgement();
        let (receipt, reminder) = (self.receipts.next_due(), self.reminders.next_due());
        let all = [turn, report, expiry, notice, receipt, acknowledged, reminder];
        all.into_iter().flatten().min()
    }

    /// Whether an attempt is in flight.
    pub fn is_busy(&self) -> bool {
        self.queues.values().any(ChannelQueue::is_busy)
    }

    /// How many deliveries wait or are in flight.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Which hosts may add nothing, when that may have changed since this was asked last.
    pub fn used_shares(&mut self, routes: &Routes) -> Option<UsedShares> {
        self.shares.changed(routes)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Every queue and the health of its channel, for the status.
    pub fn queue_status(&self, now: Now) -> Vec<QueueStatus> {
        self.queues
            .iter()
            .map(|(name, queue)| {
                let oldest = queue.oldest().and_then(|id| self.deliveries.get(&id));
                QueueStatus {
                    channel: name.clone(),
                    oldest: oldest.map(|delivery| now.mono.since(delivery.accepted.mono)),
                    unacknowledged: self.receipts.waiting(name),
                    ..queue.status()
                }
            })
            .collect()
    }

    /// Every incident that is open, by incident.
    pub fn open_incidents(&self) -> impl Iterator<Item = &OpenIncident> {
        self.incidents.iter()
    }

    /// One incident, if it is open and a channel was notified of it.
    pub fn open_incident(&self, incident: &Incident) -> Option<&OpenIncident> {
        self.incidents.get(incident)
    }

    /// The deliveries that wait or are in flight, the newest first; only those before `before`.
    pub fn newest(
        &self,
        before: Option<DeliveryId>,
    ) -> impl Iterator<Item = (DeliveryId, &Delivery)> {
        let before = before.map_or(Bound::Unbounded, Bound::Excluded);
        self.deliveries.range((Bound::Unbounded, before)).rev().map(|(id, one)| (*id, one))
    }

    /// Why the last attempt of a failing channel failed; none when it works.
    pub fn failure_of(&self, channel: &str) -> Option<&str> {
        self.queues.get(channel)?.last_failure()
    }

    /// Records a message that was sent without the outbox in the history. One that arrived shows
    /// that its channel works: a test message after a repair ends the pause before the next probe.
    pub fn record_direct(&mut self, record: &DeliveryRecord, now: Now) {
        if let Some(queue) = self.queues.get_mut(&record.channel) {
            match &record.why {
                None => queue.on_answer(&record.recipient, Standing::Accepted, true, now),
                Some(why) => queue.record_external_failure(why, now),
            }
        }
        let id = self.next_delivery_id(now.wall);
        self.writes.push(Write::put(Table::History, id.key(), record));
    }
}

#[cfg(test)]
mod tests;
