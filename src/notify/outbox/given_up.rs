//! What is given up is told: by one notice on the channel that could not deliver it, and by one on
//! each other channel that the people concerned hear of. Pure.
//!
//! A notice is a delivery like others, and is stored in the transaction that gives the messages up.
//! It does not expire: while it waits, what is given up next becomes part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::delivery::{Delivery, DeliveryId, Place};
use super::{ChannelTarget, Outbox};
use crate::btree::InsertAll;
use crate::clock::{Mono, Now};
use crate::event::{
    Event, EventId, EventKind, GiveUpCause, GivenUp, GivenUpMessage, Incident, Message,
};
use crate::notify::routing::Routes;
use crate::notify::text::{LineBreaks, TextUnit, clean, cut};
use crate::store::{Table, Write};

/// The least time between two notices about one channel on another one; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// In bytes. The whole title is in the history.
const MAX_TITLE: usize = 250;

/// What makes one notice: the channel, one of its recipients, the cause.
type Kind = (String, Option<String>, GiveUpCause);

/// What was given up in this turn, and the notices that wait.
#[derive(Debug, Default)]
pub struct Notices {
    untold: BTreeMap<Kind, Untold>,
    /// Until when each is held back; none when it is queued.
    waiting: BTreeMap<DeliveryId, Option<Mono>>,
    /// By the channel that lost messages and the one that was told.
    last: BTreeMap<(String, String), LastNotice>,
}

#[derive(Debug, Default)]
struct Untold {
    messages: BTreeMap<EventId, GivenUpMessage>,
    why: Option<String>,
}

#[derive(Debug)]
struct LastNotice {
    event: EventId,
    at: Mono,
    pause: Duration,
}

impl Notices {
    /// A delivery is there that is a notice.
    pub fn restore(&mut self, id: DeliveryId) {
        self.waiting.insert(id, None);
    }

    /// A delivery is gone.
    pub fn remove(&mut self, id: DeliveryId) {
        self.waiting.remove(&id);
    }

    /// Whether a notice is there that is not queued yet.
    pub fn is_held(&self, id: DeliveryId) -> bool {
        self.waiting.get(&id).is_some_and(Option::is_some)
    }

    /// When the next notice is queued that is held back.
    pub fn next_release(&self) -> Option<Mono> {
        self.waiting.values().flatten().min().copied()
    }

    /// Until when a notice about a channel is held back on another one, for all recipients of that;
    /// none when it is not.
    fn hold(&mut self, event: EventId, about: &str, channel: &str, now: Mono) -> Option<Mono> {
        self.last.retain(|_, last| now.since(last.at) < 2 * MAX_PAUSE);
        let pair = (about.to_owned(), channel.to_owned());
        let Some(last) = self.last.get_mut(&pair) else {
            self.last.insert(pair, LastNotice { event, at: now, pause: FIRST_PAUSE });
            return None;
        };
        if last.event != event {
            let at = (last.at + last.pause).max(now);
            *last = LastNotice { event, at, pause: (last.pause * 2).min(MAX_PAUSE) };
        }
        Some(last.at).filter(|at| *at > now)
    }
}

impl Outbox {
    /// A delivery is given up. A notice that is given up is not told by another one.
    pub(super) fn note_given_up(
        &mut self,
        delivery: &Delivery,
        (cause, of_recipient): (GiveUpCause, bool),
        why: Option<&str>,
    ) {
        if delivery.given_up.is_some() {
            return;
        }
        let message = &delivery.message;
        let open = |incident| self.incidents.is_open_since(incident, message.event);
        let noted = GivenUpMessage {
            event: message.event,
            at: message.at,
            level: message.level,
            subject: message.subject.clone(),
            for_backups: delivery.for_backups,
            title: cut(&clean(&message.title, LineBreaks::Remove), MAX_TITLE, TextUnit::Bytes),
            opens: delivery.opens.clone(),
            over: delivery.opens.as_ref().is_some_and(|incident| !open(incident)),
        };
        let recipient = delivery.recipient.clone().filter(|_| of_recipient);
        let kind = (delivery.channel.clone(), recipient, cause);
        let untold = self.notices.untold.entry(kind).or_default();
        untold.messages.insert(message.event, noted);
        untold.why = why.map(str::to_owned).or(untold.why.take());
    }

    /// Queues notices of what was given up since this was called last. It must be called before each
    /// commit. Returns the events, and the channels that are told of each.
    pub fn report_given_up(
        &mut self,
        routes: &Routes,
        now: Now,
    ) -> Vec<(EventId, Event, Vec<String>)> {
        let untold = std::mem::take(&mut self.notices.untold);
        let mut events = Vec::new();
        for ((channel, recipient, cause), Untold { messages, why }) in untold {
            let lost = GivenUp {
                channel,
                recipient,
                cause,
                count: messages.len(),
                messages: messages.into_values().collect(),
                why,
                untitled: false,
            };
            let event = self.next_event(now.wall);
            let mut parts = routes.concerned(&lost);
            parts.insert(lost.channel.clone(), lost.clone());
            let places = self.places_of(parts.keys().cloned());
            for (name, recipient) in places.iter() {
                self.tell_given_up(event, &parts[name], name, recipient.clone(), &places, now);
            }
            let listed = lost.abridged();
            let mut told: Vec<String> = places.iter().map(|(name, _)| name.clone()).collect();
            told.dedup();
            events.push((event, Event::new(now.wall, EventKind::GivenUp(listed)), told));
        }
        events
    }

    /// The recipients of these channels.
    pub(super) fn places_of(&self, names: impl Iterator<Item = String>) -> Arc<BTreeSet<Place>> {
        let of = |name: String| {
            let recipients = self.queues.get(&name).map(|queue| queue.recipients().to_vec());
            recipients.unwrap_or_default().into_iter().map(move |one| (name.clone(), one))
        };
        Arc::new(names.flat_map(of).insert_all())
    }

    /// Has a notice that waits there say this, too, or queues one.
    pub(super) fn tell_given_up(
        &mut self,
        event: EventId,
        lost: &GivenUp,
        channel: &str,
        recipient: Option<String>,
        places: &Arc<BTreeSet<Place>>,
        now: Now,
    ) {
        if let Some(id) = self.notice_to_extend(lost, channel, &recipient) {
            self.rewrite_notice(id, now, |delivery| {
                if let Some(notice) = &mut delivery.given_up {
                    notice.merge(lost.clone());
                }
                let both = delivery.given_to.intersection(places).cloned().insert_all();
                delivery.given_to = Arc::new(both);
            });
            return;
        }
        let (lost, about) = (lost.abridged(), lost.channel.clone());
        let message = notice_message(&lost, event, now);
        let target = ChannelTarget { always_deliver: true, ..ChannelTarget::default() };
        let delivery = Delivery {
            never_digest: true,
            given_to: Arc::clone(places),
            given_up: Some(Box::new(lost)),
            ..Delivery::new(channel, recipient, message, None, &target, now)
        };
        let id = self.next_delivery_id(now.wall);
        self.writes.push(Write::put(Table::Outbox, id.key(), &delivery));
        let held = self.notices.hold(event, &about, channel, now.mono);
        self.notices.waiting.insert(id, held);
        if held.is_none()
            && let Some(queue) = self.queues.get_mut(channel)
        {
            queue.push(id, &delivery);
        }
        self.keep(id, delivery);
    }

    /// A notice of the same kind that surely did not arrive yet.
    fn notice_to_extend(
        &self,
        lost: &GivenUp,
        channel: &str,
        recipient: &Option<String>,
    ) -> Option<DeliveryId> {
        let extends = |id: &&DeliveryId| {
            self.deliveries.get(id).is_some_and(|delivery| {
                let same = delivery.given_up.as_ref().is_some_and(|one| one.is_same_kind(lost));
                let place = delivery.channel == channel && delivery.recipient == *recipient;
                same && place && !delivery.in_flight && !delivery.possible_repeat
            })
        };
        self.notices.waiting.keys().find(extends).copied()
    }

    /// A notice did not arrive at a place: others of its kind do not count on that.
    pub(super) fn forget_notice_at(&mut self, place: &Place, lost: &GivenUp) {
        let ids: Vec<DeliveryId> = self.notices.waiting.keys().copied().collect();
        for id in ids {
            let counts_on_it = self.deliveries.get(&id).is_some_and(|delivery| {
                delivery.given_to.contains(place)
                    && delivery.given_up.as_ref().is_some_and(|one| one.is_same_kind(lost))
            });
            if counts_on_it {
                self.update(id, |delivery| {
                    let others = delivery.given_to.iter().filter(|one| *one != place);
                    delivery.given_to = Arc::new(others.cloned().insert_all());
                });
            }
        }
    }

    /// Changes a notice and words it anew.
    fn rewrite_notice(&mut self, id: DeliveryId, now: Now, change: impl FnOnce(&mut Delivery)) {
        let Some(delivery) = self.deliveries.get_mut(&id) else { return };
        let is_queued = self.notices.waiting.get(&id).is_some_and(Option::is_none);
        let queue = self.queues.get_mut(&delivery.channel).filter(|_| is_queued);
        let (before, in_flight) = (delivery.clone(), delivery.in_flight);
        change(delivery);
        if let Some(notice) = &delivery.given_up {
            delivery.message = notice_message(notice, delivery.message.event, now);
        }
        self.writes.push(Write::put(Table::Outbox, id.key(), &*delivery));
        // Its level may be another one, and with it its turn.
        if let Some(queue) = queue.filter(|_| !in_flight) {
            queue.remove(id, &before);
            queue.push(id, delivery);
        }
    }

    /// Queues the notices whose time has come.
    pub(super) fn release_notices(&mut self, now: Now) {
        for (id, held) in &mut self.notices.waiting {
            if held.is_none_or(|until| until > now.mono) {
                continue;
            }
            *held = None;
            if let Some(delivery) = self.deliveries.get(id)
                && let Some(queue) = self.queues.get_mut(&delivery.channel)
            {
                queue.push(*id, delivery);
            }
        }
    }

    /// An incident is over: the notices that say so of its alarm. Returns the channels, and the notice,
    /// where one that says otherwise is on its way or may have arrived, and whether it may have.
    pub(super) fn end_in_notices(
        &mut self,
        incident: &Incident,
        now: Now,
    ) -> Vec<(String, EventId, bool)> {
        let mut told = Vec::new();
        let ids: Vec<DeliveryId> = self.notices.waiting.keys().copied().collect();
        for id in ids {
            let Some(delivery) = self.deliveries.get(&id) else { continue };
            let is_listed = |message: &GivenUpMessage| {
                message.opens.as_ref() == Some(incident) && !message.over
            };
            if !delivery.given_up.iter().flat_map(|one| &one.messages).any(is_listed) {
                continue;
            }
            // A repeat has the words of the first attempt.
            let repeats = delivery.possible_repeat;
            if delivery.in_flight || repeats {
                told.push((delivery.channel.clone(), delivery.message.event, repeats));
            }
            let end = |delivery: &mut Delivery| {
                let messages = delivery.given_up.iter_mut().flat_map(|one| &mut one.messages);
                messages
                    .filter(|message| message.opens.as_ref() == Some(incident))
                    .for_each(|message| message.over = true);
            };
            if repeats { self.update(id, end) } else { self.rewrite_notice(id, now, end) }
        }
        told
    }

    /// An attempt of a notice came to its end: the channel hears of the end of what it listed only
    /// where it may have arrived. What is sent of it from now on says itself that this is over.
    pub(super) fn settle_ends_of_notice(
        &mut self,
        channel: &str,
        notice: EventId,
        may_have_arrived: bool,
        now: Now,
    ) {
        let counts_on_it = |(id, end): (&DeliveryId, &Delivery)| {
            let is_end = end.channel == channel && end.recovered_events.contains(&notice);
            (is_end && !end.always_deliver && !end.in_flight).then_some(*id)
        };
        let ends: Vec<DeliveryId> = self.deliveries.iter().filter_map(counts_on_it).collect();
        for id in ends {
            if may_have_arrived {
                self.update(id, |end| end.always_deliver = true);
            } else if !self.follows_a_waiting_alarm(id)
                && let Some(end) = self.remove_failed(id)
            {
                self.record_failure(id, &end, "not sent: nothing was told of what it ends", now);
            }
        }
    }

    /// The daemon died during an attempt of a notice: that may have arrived.
    pub(super) fn restore_ends_of_notices(&mut self, now: Now) {
        let repeats = |one: &&Delivery| one.given_up.is_some() && one.possible_repeat;
        let repeated = self.deliveries.values().filter(repeats);
        let repeated: Vec<(String, EventId)> =
            repeated.map(|one| (one.channel.clone(), one.message.event)).collect();
        for (channel, event) in repeated {
            self.settle_ends_of_notice(&channel, event, true, now);
        }
    }

    /// A notice arrived: the channel hears of the end of what it lists. The incidents that are open.
    pub(super) fn on_notice_delivered(&mut self, delivery: &Delivery) -> Vec<Incident> {
        let mut open = Vec::new();
        for message in delivery.given_up.iter().flat_map(|one| &one.messages) {
            let Some(incident) = message.opens.as_ref().filter(|_| !message.over) else { continue };
            let notice = delivery.message.event;
            if self.incidents.record_noticed(incident, message.event, &delivery.channel, notice) {
                open.push(incident.clone());
            }
        }
        open
    }

    /// A notice is refused: it is tried once more without what the messages said. False when it was.
    pub(super) fn shorten_notice(&mut self, id: DeliveryId, now: Now) -> bool {
        let notice = self.deliveries.get(&id).and_then(|delivery| delivery.given_up.as_ref());
        let shortens = notice.is_some_and(|notice| !notice.untitled);
        if shortens {
            self.rewrite_notice(id, now, |delivery| {
                if let Some(notice) = &mut delivery.given_up {
                    notice.untitled = true;
                }
            });
        }
        shortens
    }
}

fn notice_message(lost: &GivenUp, event: EventId, now: Now) -> Arc<Message> {
    Arc::new(Event::new(now.wall, EventKind::GivenUp(lost.clone())).message(event))
}
