//! What the end of an attempt, or expiry, means for a delivery and for those beside it. Pure.

use std::time::Duration;

use super::delivery::{Delivery, DeliveryId, DeliveryRecord, DeliveryResult, DropReason};
use super::queue::{ChannelQueue, FAILURES_BEFORE_SKIP};
use super::receipts::Receipt;
use super::recipients::Standing;
use super::{EXPIRY_CHECK, Outbox};
use crate::clock::{Mono, Now, format_duration};
use crate::event::{EventId, GiveUpCause, Incident, Subject};
use crate::notify::channel::{Delivered, Failure, Scope};
use crate::store::{Table, Write};

/// Until an attempt is made that was not made: so often it is asked whether it may be.
const NOT_MADE_PAUSE: Duration = Duration::from_millis(250);

impl Outbox {
    /// The last delivery that was made.
    pub fn last_delivery(&self) -> DeliveryId {
        self.last_id
    }

    /// Marks the deliveries that were made after `last`: what they tell may have been told before.
    pub fn mark_as_repeats(&mut self, last: DeliveryId) {
        for (id, delivery) in self.deliveries.range_mut(last..).filter(|(id, _)| **id > last) {
            delivery.possible_repeat = true;
            self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        }
    }

    /// Applies the end of an attempt. Returns what became of the delivery itself, then of others
    /// because of it; nothing when the delivery is no longer known.
    pub fn complete(
        &mut self,
        id: DeliveryId,
        result: Result<Delivered, Failure>,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return Vec::new() };
        delivery.in_flight = false;
        let was_digest = delivery.digest.is_some();
        if let Some(queue) = self.queues.get_mut(&delivery.channel) {
            queue.attempt_ended(was_digest, result.is_ok());
        }
        let notice = delivery.given_up.as_ref();
        let notice = notice.map(|_| (delivery.channel.clone(), delivery.message.event));
        let may_have_arrived =
            delivery.possible_repeat || matches!(result, Ok(_) | Err(Failure::Unknown(_)));
        let ended = self.apply_result(id, result, was_digest, now);
        if let Some((channel, event)) = notice {
            self.settle_ends_of_notice(&channel, event, may_have_arrived, now);
        }
        ended
    }

    /// An attempt was not made: for a moment this process may not send. It is as if the attempt had not
    /// begun, and says nothing about the channel.
    pub fn on_not_made(&mut self, id: DeliveryId, now: Now) {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        delivery.in_flight = false;
        delivery.attempts = delivery.attempts.saturating_sub(1);
        let possible_repeat = delivery.possible_repeat;
        let notice = delivery.given_up.as_ref();
        let notice = notice.map(|_| (delivery.channel.clone(), delivery.message.event));
        if let Some(queue) = self.queues.get_mut(&delivery.channel) {
            queue.attempt_not_made(now.mono + NOT_MADE_PAUSE);
        }
        self.update(id, |_| ());
        if !possible_repeat {
            self.split_digest(id, false);
        }
        if let Some((channel, event)) = notice {
            self.settle_ends_of_notice(&channel, event, possible_repeat, now);
        }
    }

    fn apply_result(
        &mut self,
        id: DeliveryId,
        result: Result<Delivered, Failure>,
        was_digest: bool,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        let about_one = |scope| scope == Scope::Recipient;
        let several = self.has_several_recipients(id);
        let ended = match result {
            Ok(done) => self.on_delivered(id, &done, now),
            Err(Failure::Unreachable { why, scope, .. }) if several && about_one(scope) => {
                self.on_recipient_failure(id, why, Standing::Deferred, now)
            }
            Err(Failure::ChannelRefused { why, scope, .. }) if several && about_one(scope) => {
                self.on_recipient_failure(id, why, Standing::Refused, now)
            }
            Err(Failure::Unreachable { why, retry_after: after, .. }) => {
                self.on_unreachable(id, why, after, false, now)
            }
            Err(Failure::Unknown(why)) => self.on_unreachable(id, why, None, true, now),
            Err(Failure::ChannelRefused { why, retry_after: after, .. }) => {
                self.on_channel_refused(id, why, after, now)
            }
            Err(Failure::MessageRefused(why) | Failure::FormRefused(why)) if was_digest => {
                self.on_digest_refused(id, why, now)
            }
            Err(Failure::MessageRefused(why)) => {
                self.on_answer(id, now, Standing::Rejected);
                return self.fail(id, DropReason::MessageRefused, &why, now);
            }
            Err(Failure::FormRefused(why)) => return self.on_form_refused(id, why, now),
        };
        ended.into_iter().collect()
    }

    fn queue_of(&mut self, id: DeliveryId) -> Option<&mut ChannelQueue> {
        self.queues.get_mut(&self.deliveries.get(&id)?.channel)
    }

    fn has_several_recipients(&self, id: DeliveryId) -> bool {
        let queue = self.deliveries.get(&id).and_then(|one| self.queues.get(&one.channel));
        queue.is_some_and(ChannelQueue::has_several_recipients)
    }

    /// The provider took the message, or refused that alone. The short form of a message is tried
    /// only after its recipient was accepted.
    fn on_answer(&mut self, id: DeliveryId, now: Now, standing: Standing) {
        let plain = self.deliveries.get(&id).is_some_and(|delivery| delivery.plain);
        let of_recipient = if plain { Standing::Accepted } else { standing };
        self.record_answer(id, of_recipient, standing == Standing::Accepted, now);
    }

    /// The form alone was refused, of a message for a recipient that was accepted.
    fn on_form_answer(&mut self, id: DeliveryId, now: Now) {
        self.record_answer(id, Standing::Accepted, false, now);
    }

    fn record_answer(&mut self, id: DeliveryId, standing: Standing, success: bool, now: Now) {
        let Some(delivery) = self.deliveries.get(&id) else { return };
        if let Some(queue) = self.queues.get_mut(&delivery.channel) {
            queue.on_answer(&delivery.recipient, standing, success, now);
        }
    }

    fn on_delivered(
        &mut self,
        id: DeliveryId,
        done: &Delivered,
        now: Now,
    ) -> Option<(DeliveryResult, DeliveryRecord)> {
        self.on_answer(id, now, Standing::Accepted);
        let sent = self.as_sent(id)?;
        let members = self.members(id);
        let in_digest = self.deliveries.get(&id)?.digest.as_ref().map(|digest| digest.event);
        if let Some(root) = &done.thread {
            self.attach_thread(&sent, root);
        }
        let mut records = Vec::new();
        let mut incidents = Vec::new();
        for member in members {
            let Some(mut delivery) = self.remove(member) else { continue };
            delivery.attempts += u32::from(member != id);
            let thread =
                done.thread.clone().filter(|_| delivery.message.thread == sent.message.thread);
            if self.incidents.is_open(&delivery) {
                self.incidents.record_delivered(&delivery, in_digest, thread);
                incidents.extend(delivery.opens.clone());
            }
            self.on_alarm_delivered(&delivery, in_digest);
            incidents.extend(self.on_notice_delivered(&delivery));
            let record = DeliveryRecord { told_in: in_digest, ..delivery.record(now, None) };
            self.writes.push(Write::put(Table::History, member.key(), &record));
            records.push((member, record));
        }
        let events = records.len();
        if let Some(receipt) = &done.receipt {
            let (channel, event) = (sent.channel.clone(), sent.message.event);
            let receipt = receipt.clone();
            let receipt = Receipt {
                channel,
                receipt,
                event,
                incidents,
                sent: now.wall,
                records,
                cancelled: false,
            };
            self.receipts.track(receipt, now);
        }
        Some((DeliveryResult::Delivered { events }, sent.record(now, None)))
    }

    /// Has what waits for the same thread reply to the message that started it.
    fn attach_thread(&mut self, first: &Delivery, root: &str) {
        let same = |delivery: &Delivery| {
            delivery.channel == first.channel
                && delivery.message.thread == first.message.thread
                && delivery.thread.is_none()
        };
        let waiting: Vec<DeliveryId> =
            self.deliveries.iter().filter(|(_, other)| same(other)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.update(id, |delivery| delivery.thread = Some(root.to_owned()));
        }
    }

    /// An alarm arrived: its recovery, if that waits already, must be delivered; and it replaces the
    /// digest that the alarm was part of, if no other incident in that is open.
    fn on_alarm_delivered(&mut self, alarm: &Delivery, in_digest: Option<EventId>) {
        let Some(incident) = &alarm.opens else { return };
        let taken_back = in_digest.filter(|event| !self.incidents.is_in_open_incident(*event));
        for id in self.recoveries_of(alarm, incident) {
            self.update(id, |end| {
                end.always_deliver = true;
                end.recovered_events.extend(taken_back);
            });
        }
    }

    /// The deliveries on the alarm's channel that wait and close its incident: one for each
    /// recipient. Those that close a later incident of the same kind are none of them.
    fn recoveries_of(&self, alarm: &Delivery, incident: &Incident) -> Vec<DeliveryId> {
        let ends = || {
            self.waiting_about(&alarm.channel, &alarm.message.subject)
                .filter(|(_, other)| other.message.event > alarm.message.event)
                .filter(|(_, other)| other.closes.contains(incident))
        };
        let first = ends().map(|(_, other)| other.message.event).min();
        ends().filter(|(_, end)| Some(end.message.event) == first).map(|(id, _)| id).collect()
    }

    /// Everything about one subject that waits on a channel, for all of its recipients.
    fn waiting_about<'a>(
        &'a self,
        channel: &str,
        subject: &'a Subject,
    ) -> impl Iterator<Item = (DeliveryId, &'a Delivery)> {
        let ids = self
            .queues
            .get(channel)
            .into_iter()
            .flat_map(move |queue| queue.waiting_about(subject));
        ids.filter_map(|id| Some((*id, self.deliveries.get(id)?)))
    }

    fn on_unreachable(
        &mut self,
        id: DeliveryId,
        why: String,
        after: Option<Duration>,
        may_have_arrived: bool,
        now: Now,
    ) -> Option<(DeliveryResult, DeliveryRecord)> {
        let sent = self.as_sent(id)?;
        self.update(id, |delivery| {
            delivery.possible_repeat |= may_have_arrived;
            if let Some(digest) = &mut delivery.digest {
                digest.times_lost += u32::from(may_have_arrived);
            }
        });
        let delay = self.queue_of(id)?.on_unreachable(&why, after, now);
        self.after_failure(id);
        let result = DeliveryResult::Retrying { why: why.clone(), delay, may_have_arrived };
        Some((result, sent.record(now, Some(why))))
    }

    fn on_channel_refused(
        &mut self,
        id: DeliveryId,
        why: String,
        after: Option<Duration>,
        now: Now,
    ) -> Option<(DeliveryResult, DeliveryRecord)> {
        let sent = self.as_sent(id)?;
        self.update(id, |_| ());
        let delay = self.queue_of(id)?.on_refused(&why, after, now);
        self.after_failure(id);
        let result = DeliveryResult::ChannelPaused { why: why.clone(), delay };
        Some((result, sent.record(now, Some(why))))
    }

    /// What the provider said is about one of several recipients: the others do not wait for it.
    fn on_recipient_failure(
        &mut self,
        id: DeliveryId,
        why: String,
        standing: Standing,
        now: Now,
    ) -> Option<(DeliveryResult, DeliveryRecord)> {
        let sent = self.as_sent(id)?;
        self.update(id, |_| ());
        let queue = self.queue_of(id)?;
        let pause = queue.on_recipient_failure(&sent.recipient, standing, &why, now);
        self.after_failure(id);
        let (why_said, delay) = (why.clone(), pause.delay);
        let result = match (pause.is_channel, standing) {
            (true, _) => DeliveryResult::ChannelPaused { why, delay },
            (false, Standing::Refused) => DeliveryResult::RecipientPaused { why, delay },
            (false, _) => DeliveryResult::Retrying { why, delay, may_have_arrived: false },
        };
        Some((result, sent.record(now, Some(why_said))))
    }

    /// A digest that surely did not arrive is split: until the next attempt, incidents in it may be
    /// closed. One that may have arrived stays as it was, except when it is lost again and again: one
    /// text in it may be the reason.
    fn after_failure(&mut self, id: DeliveryId) {
        let Some(delivery) = self.deliveries.get(&id) else { return };
        let stays =
            delivery.digest.as_ref().is_some_and(|digest| digest.times_lost < FAILURES_BEFORE_SKIP);
        if !(delivery.possible_repeat && stays) {
            self.split_digest(id, false);
        }
        if let Some(delivery) = self.deliveries.get(&id)
            && let Some(queue) = self.queues.get_mut(&delivery.channel)
        {
            queue.record_failed_attempts(id, delivery);
        }
    }

    pub(super) fn split_digest(&mut self, id: DeliveryId, alone: bool) {
        let members = self.members(id);
        let Some(first) = self.deliveries.get(&id) else { return };
        let possible_repeat = first.possible_repeat;
        for member in &members {
            self.digested_in.remove(member);
            let mark = |delivery: &mut Delivery| {
                delivery.digest = None;
                delivery.never_digest |= alone;
                delivery.possible_repeat |= possible_repeat;
                delivery.attempts += u32::from(*member != id);
            };
            // The count of attempts alone is not worth writing hundreds of rows.
            if *member == id || alone || possible_repeat {
                self.update(*member, mark);
            } else if let Some(delivery) = self.deliveries.get_mut(member) {
                mark(delivery);
            }
        }
    }

    /// A digest is refused: each of its deliveries is tried alone.
    fn on_digest_refused(
        &mut self,
        id: DeliveryId,
        why: String,
        now: Now,
    ) -> Option<(DeliveryResult, DeliveryRecord)> {
        let sent = self.as_sent(id)?;
        self.on_form_answer(id, now);
        self.split_digest(id, true);
        let result = DeliveryResult::Retrying {
            why: why.clone(),
            delay: Duration::ZERO,
            may_have_arrived: false,
        };
        Some((result, sent.record(now, Some(why))))
    }

    fn on_form_refused(
        &mut self,
        id: DeliveryId,
        why: String,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        self.on_form_answer(id, now);
        let Some(delivery) = self.deliveries.get(&id) else { return Vec::new() };
        if delivery.plain {
            return self.fail(id, DropReason::MessageRefused, &why, now);
        }
        self.update(id, |delivery| delivery.plain = true);
        self.retry_at_once(id, &why, now)
    }

    fn retry_at_once(
        &self,
        id: DeliveryId,
        why: &str,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        let Some(delivery) = self.deliveries.get(&id) else { return Vec::new() };
        let record = delivery.record(now, Some(why.to_owned()));
        let (why, delay) = (why.to_owned(), Duration::ZERO);
        vec![(DeliveryResult::Retrying { why, delay, may_have_arrived: false }, record)]
    }

    pub(super) fn update(&mut self, id: DeliveryId, change: impl FnOnce(&mut Delivery)) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            change(delivery);
            self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        }
    }

    pub(super) fn remove(&mut self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        self.notices.remove(id);
        self.digested_in.remove(&id);
        self.shares.remove(&delivery.message.subject);
        if let Some(queue) = self.queues.get_mut(&delivery.channel) {
            queue.remove(id, &delivery);
        }
        self.writes.push(Write::remove(Table::Outbox, id.key()));
        Some(delivery)
    }

    /// Drops a delivery, and its recovery where no recipient has seen the alarm.
    pub(super) fn fail(
        &mut self,
        id: DeliveryId,
        reason: DropReason,
        why: &str,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        if reason == DropReason::MessageRefused && self.shorten_notice(id, now) {
            return self.retry_at_once(id, why, now);
        }
        let Some(delivery) = self.remove_failed(id) else { return Vec::new() };
        self.incidents.forget_told(&delivery);
        let cause = self.give_up_cause(&delivery, reason);
        self.note_given_up(&delivery, cause, Some(why));
        let record = self.record_failure(id, &delivery, why, now);
        let mut ended = vec![(DeliveryResult::Failed { reason, why: why.to_owned() }, record)];
        if delivery.possible_repeat {
            // It may have been seen: then the recovery must be.
            self.on_alarm_delivered(&delivery, None);
            return ended;
        }
        for end in self.orphaned_recoveries(&delivery) {
            if let Some(delivery) = self.remove_failed(end) {
                // Both were given up: neither is told without the other.
                let why = "the alarm that it ends never arrived";
                self.note_given_up(&delivery, cause, None);
                ended.push((
                    DeliveryResult::Orphaned,
                    self.record_failure(end, &delivery, why, now),
                ));
            }
        }
        ended
    }

    /// Why, and whether that concerns one of several recipients.
    fn give_up_cause(&self, delivery: &Delivery, reason: DropReason) -> (GiveUpCause, bool) {
        let queue = self.queues.get(&delivery.channel);
        match (reason, queue) {
            (DropReason::ChannelRemoved, _) | (_, None) => (GiveUpCause::ChannelRemoved, false),
            (DropReason::MessageRefused, Some(queue)) => {
                (GiveUpCause::MessageRefused, queue.has_several_recipients())
            }
            (DropReason::Expired, Some(queue)) => queue.give_up_cause(delivery),
        }
    }

    pub(super) fn remove_failed(&mut self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.remove(id)?;
        self.incidents.record_failed(&delivery);
        Some(delivery)
    }

    pub(super) fn record_failure(
        &mut self,
        id: DeliveryId,
        delivery: &Delivery,
        why: &str,
        now: Now,
    ) -> DeliveryRecord {
        let record = delivery.record(now, Some(why.to_owned()));
        self.writes.push(Write::put(Table::History, id.key(), &record));
        record
    }

    /// The deliveries that wait only to close `alarm`, which will not arrive.
    fn orphaned_recoveries(&self, alarm: &Delivery) -> Vec<DeliveryId> {
        let Some(incident) = &alarm.opens else { return Vec::new() };
        let mut ends = self.recoveries_of(alarm, incident);
        ends.retain(|id| {
            let end = &self.deliveries[id];
            !end.always_deliver && !end.in_flight && !self.follows_a_waiting_alarm(*id)
        });
        ends
    }

    /// Whether an alarm that a delivery ends waits on the same channel.
    pub(super) fn follows_a_waiting_alarm(&self, end: DeliveryId) -> bool {
        let Some(delivery) = self.deliveries.get(&end) else { return false };
        self.waiting_about(&delivery.channel, &delivery.message.subject).any(|(_, alarm)| {
            let opens = alarm.opens.as_ref();
            opens.is_some_and(|opens| self.recoveries_of(alarm, opens).contains(&end))
        })
    }

    /// Drops what has waited for too long; searches once in `EXPIRY_CHECK`.
    pub fn expire(&mut self, now: Now) -> Vec<(DeliveryResult, DeliveryRecord)> {
        if now.mono < self.next_expiry_check {
            return Vec::new();
        }
        self.next_expiry_check = now.mono + EXPIRY_CHECK;
        let expired: Vec<DeliveryId> = self
            .deliveries
            .iter()
            .filter(|(id, delivery)| self.is_expired(**id, delivery, now.mono))
            .map(|(id, _)| *id)
            .collect();
        expired.into_iter().flat_map(|id| self.expire_one(id, now)).collect()
    }

    /// The deliveries of one digest expire together, with the last of them.
    fn is_expired(&self, id: DeliveryId, delivery: &Delivery, now: Mono) -> bool {
        // A notice waits until its channel is back, and takes in what is given up until then.
        let stays = delivery.in_flight || delivery.given_up.is_some();
        if stays || self.expiry(delivery).is_none_or(|end| now < end) {
            return false;
        }
        let Some(first) = self.digested_in.get(&id) else { return true };
        self.members(*first)
            .iter()
            .filter_map(|id| self.deliveries.get(id))
            .all(|member| !member.in_flight && self.expiry(member).is_some_and(|end| now >= end))
    }

    /// The recovery of an alarm that still waits does not expire before the alarm.
    fn expiry(&self, delivery: &Delivery) -> Option<Mono> {
        let pace = self.queues.get(&delivery.channel)?.retry_policy();
        let end =
            |delivery: &Delivery| delivery.accepted.mono + pace.give_up(delivery.message.level);
        let ended_by_it = |other: &Delivery| {
            other.recipient == delivery.recipient
                && other.message.event < delivery.message.event
                && other.opens.as_ref().is_some_and(|opens| delivery.closes.contains(opens))
        };
        let alarms = (!delivery.closes.is_empty())
            .then(|| self.waiting_about(&delivery.channel, &delivery.message.subject));
        let alarms = alarms.into_iter().flatten().filter(|(_, other)| ended_by_it(other));
        alarms.map(|(_, alarm)| end(alarm)).chain([end(delivery)]).max()
    }

    fn expire_one(&mut self, id: DeliveryId, now: Now) -> Vec<(DeliveryResult, DeliveryRecord)> {
        let Some(delivery) = self.deliveries.get(&id) else { return Vec::new() };
        let Some(queue) = self.queues.get(&delivery.channel) else { return Vec::new() };
        let waited = now.mono.since(delivery.accepted.mono);
        let mut why = format!("given up after {}", format_duration(waited));
        if let Some(last) = queue.last_failure_for(&delivery.recipient) {
            why.push_str(&format!("; the last attempt: {last}"));
        }
        self.fail(id, DropReason::Expired, &why, now)
    }
}
