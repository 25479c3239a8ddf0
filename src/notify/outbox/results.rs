//! What the end of an attempt, or of patience, means for a delivery and for those beside it. Pure.

use std::time::Duration;

use super::queue::PATIENCE;
use super::{
    Delivery, DeliveryId, EXPIRY_CHECK, Fate, Incident, Line, Mono, Now, Outbox, Receipt, Record,
    Subject, Table, Write, words,
};
use crate::event::EventId;
use crate::notify::channel::{Delivered, Failure};

impl Outbox {
    /// Takes note of how an attempt ended, and says what became of it: the delivery itself first,
    /// then what it means for others. Empty when the delivery is no longer known.
    pub fn finish(
        &mut self,
        id: DeliveryId,
        result: Result<Delivered, Failure>,
        now: Now,
    ) -> Vec<(Fate, Record)> {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return Vec::new() };
        delivery.in_flight = false;
        let bundled = delivery.bundle.is_some();
        if let Some(line) = self.lines.get_mut(&delivery.channel) {
            line.attempt_ended(bundled, result.is_ok());
        }
        let ended = match result {
            Ok(done) => self.delivered(id, &done, now),
            Err(Failure::Unreachable { why, after }) => self.retry(id, why, after, false, now),
            Err(Failure::Unknown(why)) => self.retry(id, why, None, true, now),
            Err(Failure::ChannelRefused { why, after }) => self.refused(id, why, after, now),
            Err(Failure::MessageRefused(why) | Failure::FormRefused(why)) if bundled => {
                self.bundle_refused(id, why, now)
            }
            Err(Failure::MessageRefused(why)) => {
                self.works(id, now, false);
                return self.drop_delivery(id, &why, now);
            }
            Err(Failure::FormRefused(why)) => return self.form_refused(id, why, now),
        };
        ended.into_iter().collect()
    }

    fn line_of(&mut self, id: DeliveryId) -> Option<&mut Line> {
        self.lines.get_mut(&self.deliveries.get(&id)?.channel)
    }

    fn works(&mut self, id: DeliveryId, now: Now, success: bool) {
        if let Some(line) = self.line_of(id) {
            line.works(now, success);
        }
    }

    fn delivered(&mut self, id: DeliveryId, done: &Delivered, now: Now) -> Option<(Fate, Record)> {
        self.works(id, now, true);
        let sent = self.as_sent(id)?;
        let members = self.members(id);
        let within = self.deliveries.get(&id)?.bundle.as_ref().map(|bundle| bundle.event);
        if let Some(root) = &done.thread {
            self.hang_on(&sent, root);
        }
        let mut records = Vec::new();
        let mut troubles = Vec::new();
        for member in members {
            let Some(mut delivery) = self.take(member) else { continue };
            delivery.attempts += u32::from(member != id);
            let thread =
                done.thread.clone().filter(|_| delivery.message.thread == sent.message.thread);
            if self.troubles.goes_on(&delivery) {
                self.troubles.delivered(&delivery, within, thread);
                troubles.extend(delivery.opens.clone());
            }
            self.heard(&delivery, within);
            let record = Record { told_in: within, ..delivery.record(now, None) };
            self.writes.push(Write::put(Table::History, member.key(), &record));
            records.push((member, record));
        }
        let events = records.len();
        if let Some(receipt) = &done.receipt {
            let (channel, event) = (sent.channel.clone(), sent.message.event);
            let receipt = receipt.clone();
            let receipt = Receipt { channel, receipt, event, troubles, sent: now.wall, records };
            self.receipts.follow(receipt, now);
        }
        Some((Fate::Delivered { events }, sent.record(now, None)))
    }

    /// Lets what waits for the same thread hang on the message that began it.
    fn hang_on(&mut self, first: &Delivery, root: &str) {
        let same = |delivery: &Delivery| {
            delivery.channel == first.channel
                && delivery.message.thread == first.message.thread
                && delivery.thread.is_none()
        };
        let waiting: Vec<DeliveryId> =
            self.deliveries.iter().filter(|(_, other)| same(other)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.amend(id, |delivery| delivery.thread = Some(root.to_owned()));
        }
    }

    /// An alarm arrived: the end of it, if that waits already, has something to say; and it takes
    /// back the message that told of the alarm among others, if nothing else in it goes on.
    fn heard(&mut self, alarm: &Delivery, within: Option<EventId>) {
        let Some(trouble) = &alarm.opens else { return };
        let taken_back = within.filter(|event| !self.troubles.is_listed(*event));
        for id in self.ends_of(alarm, trouble) {
            self.amend(id, |end| {
                end.told = true;
                end.ends.extend(taken_back);
            });
        }
    }

    /// The deliveries on the alarm's channel that wait and end its trouble: one for each recipient.
    /// What ends a later trouble of the same kind is none of them.
    fn ends_of(&self, alarm: &Delivery, trouble: &Incident) -> Vec<DeliveryId> {
        let ends = || {
            self.about(&alarm.channel, &alarm.message.subject)
                .filter(|(_, other)| other.message.event > alarm.message.event)
                .filter(|(_, other)| other.closes.contains(trouble))
        };
        let first = ends().map(|(_, other)| other.message.event).min();
        ends().filter(|(_, end)| Some(end.message.event) == first).map(|(id, _)| id).collect()
    }

    /// Everything about one subject that waits on a channel, for all of its recipients.
    fn about<'a>(
        &'a self,
        channel: &str,
        subject: &'a Subject,
    ) -> impl Iterator<Item = (DeliveryId, &'a Delivery)> {
        let ids = self.lines.get(channel).into_iter().flat_map(move |line| line.about(subject));
        ids.filter_map(|id| Some((*id, self.deliveries.get(id)?)))
    }

    fn retry(
        &mut self,
        id: DeliveryId,
        why: String,
        after: Option<Duration>,
        may_have_arrived: bool,
        now: Now,
    ) -> Option<(Fate, Record)> {
        let sent = self.as_sent(id)?;
        self.amend(id, |delivery| {
            delivery.possible_repeat |= may_have_arrived;
            if let Some(bundle) = &mut delivery.bundle {
                bundle.lost += u32::from(may_have_arrived);
            }
        });
        let delay = self.line_of(id)?.fails(&why, after, now);
        self.after_failure(id);
        let fate = Fate::Waits { why: why.clone(), delay, may_have_arrived };
        Some((fate, sent.record(now, Some(why))))
    }

    fn refused(
        &mut self,
        id: DeliveryId,
        why: String,
        after: Option<Duration>,
        now: Now,
    ) -> Option<(Fate, Record)> {
        let sent = self.as_sent(id)?;
        self.amend(id, |_| ());
        let delay = self.line_of(id)?.is_refused(&why, after, now);
        self.after_failure(id);
        let fate = Fate::ChannelRefused { why: why.clone(), delay };
        Some((fate, sent.record(now, Some(why))))
    }

    /// A message that surely did not arrive comes apart again: what it told of may be over until
    /// the next attempt. One that may have arrived stays as it was, except when it is lost again
    /// and again: one text in it may be the reason.
    fn after_failure(&mut self, id: DeliveryId) {
        let Some(delivery) = self.deliveries.get(&id) else { return };
        let stays = delivery.bundle.as_ref().is_some_and(|bundle| bundle.lost < PATIENCE);
        if !(delivery.possible_repeat && stays) {
            self.take_apart(id, false);
        }
        if let Some(delivery) = self.deliveries.get(&id)
            && let Some(line) = self.lines.get_mut(&delivery.channel)
        {
            line.failed(id, delivery.attempts);
        }
    }

    fn take_apart(&mut self, id: DeliveryId, alone: bool) {
        let members = self.members(id);
        let Some(lead) = self.deliveries.get(&id) else { return };
        let possible_repeat = lead.possible_repeat;
        for member in &members {
            self.bundled.remove(member);
            let mark = |delivery: &mut Delivery| {
                delivery.bundle = None;
                delivery.alone |= alone;
                delivery.possible_repeat |= possible_repeat;
                delivery.attempts += u32::from(*member != id);
            };
            // The count of attempts alone is not worth a row for each of hundreds.
            if *member == id || alone || possible_repeat {
                self.amend(*member, mark);
            } else if let Some(delivery) = self.deliveries.get_mut(member) {
                mark(delivery);
            }
        }
    }

    /// A message that told of several is refused as such: each of them is tried by itself.
    fn bundle_refused(&mut self, id: DeliveryId, why: String, now: Now) -> Option<(Fate, Record)> {
        let sent = self.as_sent(id)?;
        self.works(id, now, false);
        self.take_apart(id, true);
        let fate = Fate::Waits { why: why.clone(), delay: Duration::ZERO, may_have_arrived: false };
        Some((fate, sent.record(now, Some(why))))
    }

    fn form_refused(&mut self, id: DeliveryId, why: String, now: Now) -> Vec<(Fate, Record)> {
        self.works(id, now, false);
        let Some(delivery) = self.deliveries.get(&id) else { return Vec::new() };
        if delivery.plain {
            return self.drop_delivery(id, &why, now);
        }
        let record = delivery.record(now, Some(why.clone()));
        self.amend(id, |delivery| delivery.plain = true);
        let fate = Fate::Waits { why, delay: Duration::ZERO, may_have_arrived: false };
        vec![(fate, record)]
    }

    fn amend(&mut self, id: DeliveryId, change: impl FnOnce(&mut Delivery)) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            change(delivery);
            self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        }
    }

    fn take(&mut self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.deliveries.remove(&id)?;
        self.bundled.remove(&id);
        if let Some(line) = self.lines.get_mut(&delivery.channel) {
            line.remove(id, &delivery);
        }
        self.writes.push(Write::remove(Table::Outbox, id.key()));
        Some(delivery)
    }

    /// Gives a delivery up, and with it the end of its trouble where nobody heard of the beginning.
    pub(super) fn drop_delivery(
        &mut self,
        id: DeliveryId,
        why: &str,
        now: Now,
    ) -> Vec<(Fate, Record)> {
        let Some(delivery) = self.let_go(id) else { return Vec::new() };
        let record = self.in_history(id, &delivery, why, now);
        let mut ended = vec![(Fate::Dropped { why: why.to_owned() }, record)];
        if delivery.possible_repeat {
            // It may have been heard: then its end must be.
            self.heard(&delivery, None);
            return ended;
        }
        for end in self.pointless(&delivery) {
            if let Some(delivery) = self.let_go(end) {
                let why = "the alarm that it ends never arrived";
                ended.push((Fate::Unneeded, self.in_history(end, &delivery, why, now)));
            }
        }
        ended
    }

    fn let_go(&mut self, id: DeliveryId) -> Option<Delivery> {
        let delivery = self.take(id)?;
        self.troubles.dropped(&delivery);
        Some(delivery)
    }

    fn in_history(&mut self, id: DeliveryId, delivery: &Delivery, why: &str, now: Now) -> Record {
        let record = delivery.record(now, Some(why.to_owned()));
        self.writes.push(Write::put(Table::History, id.key(), &record));
        record
    }

    /// The deliveries that wait only to say that `alarm`, which will not arrive, is over.
    fn pointless(&self, alarm: &Delivery) -> Vec<DeliveryId> {
        let Some(trouble) = &alarm.opens else { return Vec::new() };
        let announced = |end: DeliveryId| {
            let mut alarms = self.about(&alarm.channel, &alarm.message.subject);
            alarms.any(|(_, other)| {
                other.opens.as_ref().is_some_and(|opens| self.ends_of(other, opens).contains(&end))
            })
        };
        let mut ends = self.ends_of(alarm, trouble);
        ends.retain(|id| {
            let end = &self.deliveries[id];
            !end.told && !end.in_flight && !announced(*id)
        });
        ends
    }

    /// Drops what has waited for too long; every half minute at most.
    pub fn expire(&mut self, now: Now) -> Vec<(Fate, Record)> {
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
        expired.into_iter().flat_map(|id| self.give_up(id, now)).collect()
    }

    /// What is told in one message expires together, with the last of it.
    fn is_expired(&self, id: DeliveryId, delivery: &Delivery, now: Mono) -> bool {
        if delivery.in_flight || self.expires(delivery).is_none_or(|end| now < end) {
            return false;
        }
        let Some(lead) = self.bundled.get(&id) else { return true };
        self.members(*lead)
            .iter()
            .filter_map(|id| self.deliveries.get(id))
            .all(|member| !member.in_flight && self.expires(member).is_some_and(|end| now >= end))
    }

    /// The end of an alarm that still waits is not given up before the alarm.
    fn expires(&self, delivery: &Delivery) -> Option<Mono> {
        let pace = self.lines.get(&delivery.channel)?.pace();
        let end =
            |delivery: &Delivery| delivery.accepted.mono + pace.give_up(delivery.message.level);
        let ended_by_it = |other: &Delivery| {
            other.recipient == delivery.recipient
                && other.message.event < delivery.message.event
                && other.opens.as_ref().is_some_and(|opens| delivery.closes.contains(opens))
        };
        let alarms = (!delivery.closes.is_empty())
            .then(|| self.about(&delivery.channel, &delivery.message.subject));
        let alarms = alarms.into_iter().flatten().filter(|(_, other)| ended_by_it(other));
        alarms.map(|(_, alarm)| end(alarm)).chain([end(delivery)]).max()
    }

    fn give_up(&mut self, id: DeliveryId, now: Now) -> Vec<(Fate, Record)> {
        let Some(delivery) = self.deliveries.get(&id) else { return Vec::new() };
        let Some(line) = self.lines.get(&delivery.channel) else { return Vec::new() };
        let waited = now.mono.since(delivery.accepted.mono);
        let mut why = format!("given up after {}", words(waited));
        if let Some(last) = line.last_failure() {
            why.push_str(&format!("; the last attempt: {last}"));
        }
        self.drop_delivery(id, &why, now)
    }
}
