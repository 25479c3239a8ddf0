//! What becomes of the channels and recipients that are no longer configured: what waits for them goes
//! to the present channels of its subject, and these hear of the end of the incidents that are open. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delivery::{
    Delivery, DeliveryId, DeliveryRecord, DeliveryResult, DropReason, Place, QueueSettings,
};
use super::incidents::{NotifiedChannel, OpenIncident};
use super::{ChannelTarget, Outbox};
use crate::btree::InsertAll;
use crate::clock::Now;
use crate::event::{EventId, Incident, Level, Message, counted};
use crate::notify::routing::Routes;
use crate::store::{Table, Write};

/// What becomes of a delivery whose channel or recipient is no longer configured.
enum Fate {
    /// It is sent there.
    Moves(BTreeSet<Place>),
    /// Every channel that would take it was given it.
    IsKnown,
    /// There is no channel at all: it waits for one.
    Waits,
    /// No channel takes it.
    GivenUp,
}

/// What the log says of deliveries that end alike.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    OtherChannels(String),
    OtherRecipients(String),
    Known,
    Kept,
    Lost,
}

impl Fate {
    fn outcome(&self, channel_is_configured: bool) -> Outcome {
        match self {
            Fate::Moves(places) if channel_is_configured => {
                let recipients = places.iter().filter_map(|(_, recipient)| recipient.clone());
                Outcome::OtherRecipients(joined(&recipients.insert_all()).unwrap_or_default())
            }
            Fate::Moves(places) => {
                let names = places.iter().map(|(name, _)| name.clone());
                Outcome::OtherChannels(joined(&names.insert_all()).unwrap_or_default())
            }
            Fate::IsKnown => Outcome::Known,
            Fate::Waits => Outcome::Kept,
            Fate::GivenUp => Outcome::Lost,
        }
    }
}

impl Outcome {
    fn describe(&self, count: usize) -> String {
        let one = count == 1;
        let messages = counted(count, "message");
        let (go, are) = if one { ("goes", "is") } else { ("go", "are") };
        match self {
            Outcome::OtherChannels(names) => {
                format!("{messages} that waited for it {go} to {names}")
            }
            Outcome::OtherRecipients(names) => {
                format!("{messages} that waited for a former recipient {go} to {names}")
            }
            Outcome::Known => format!("{messages} that waited {are} known through others"),
            Outcome::Kept => {
                format!("{messages} that waited for it {are} kept for a channel to come")
            }
            Outcome::Lost => {
                format!("{messages} that waited for it {are} given up: no channel takes that level")
            }
        }
    }
}

/// Where each event that moves goes, as far as that is decided.
type Moved = BTreeMap<EventId, BTreeSet<Place>>;

impl Outbox {
    /// What [`Outbox::take_over`] does under these settings and routes: a sentence each, for the log
    /// and the answer to a reload.
    pub fn successions(
        &self,
        settings: &BTreeMap<String, QueueSettings>,
        routes: &Routes,
    ) -> Vec<String> {
        let mut sentences = self.describe_fates(settings, routes);
        let mut gone: BTreeMap<(&str, BTreeSet<String>), usize> = BTreeMap::new();
        for open in self.open_incidents() {
            for channel in open.gone_channels(|name| routes.has_channel(name)) {
                *gone.entry((channel, successors(open, routes))).or_default() += 1;
            }
        }
        for ((channel, successors), count) in gone {
            let count = counted(count, "open alarm");
            let what = match joined(&successors) {
                None => {
                    format!("and no channel hears of the end of {count} that it was given")
                }
                Some(names) => format!("the end of {count} that it was given goes to {names}"),
            };
            sentences.push(format!("notification_channels.{channel}: is gone, {what}"));
        }
        sentences
    }

    fn describe_fates(
        &self,
        settings: &BTreeMap<String, QueueSettings>,
        routes: &Routes,
    ) -> Vec<String> {
        let mut groups: BTreeMap<(&str, Outcome), BTreeSet<EventId>> = BTreeMap::new();
        for (id, fate) in self.fates(settings, routes) {
            let delivery = &self.deliveries[&id];
            let is_configured = settings.contains_key(&delivery.channel);
            let group = (delivery.channel.as_str(), fate.outcome(is_configured));
            groups.entry(group).or_default().insert(delivery.message.event);
        }
        let sentence = |((channel, outcome), events): ((&str, Outcome), BTreeSet<EventId>)| {
            let gone = if settings.contains_key(channel) { "" } else { "is gone, " };
            let what = outcome.describe(events.len());
            format!("notification_channels.{channel}: {gone}{what}")
        };
        groups.into_iter().map(sentence).collect()
    }

    /// What becomes of each delivery that has nowhere to go, the oldest event first.
    fn fates(
        &self,
        settings: &BTreeMap<String, QueueSettings>,
        routes: &Routes,
    ) -> Vec<(DeliveryId, Fate)> {
        let is_configured = |delivery: &Delivery| {
            let queue = settings.get(&delivery.channel);
            queue.is_some_and(|queue| queue.recipients.contains(&delivery.recipient))
        };
        let mut orphans: Vec<_> =
            self.deliveries.iter().filter(|(_, delivery)| !is_configured(delivery)).collect();
        orphans.sort_unstable_by_key(|(id, delivery)| (delivery.message.event, **id));
        let mut moved = Moved::new();
        let mut fates = Vec::with_capacity(orphans.len());
        for (id, delivery) in orphans {
            let known = moved.entry(delivery.message.event).or_default();
            let fate = self.fate(delivery, settings, routes, known);
            if let Fate::Moves(places) = &fate {
                known.extend(places.iter().cloned());
            }
            fates.push((*id, fate));
        }
        fates
    }

    fn fate(
        &self,
        delivery: &Delivery,
        settings: &BTreeMap<String, QueueSettings>,
        routes: &Routes,
        moved: &BTreeSet<Place>,
    ) -> Fate {
        if settings.is_empty() {
            return Fate::Waits;
        }
        let places = |name: &String| {
            let recipients = settings.get(name).map(|queue| queue.recipients.clone());
            let name = name.clone();
            recipients.unwrap_or_default().into_iter().map(move |one| (name.clone(), one))
        };
        let given = || delivery.given_to.iter().chain(moved);
        let places: BTreeSet<Place> = if settings.contains_key(&delivery.channel) {
            places(&delivery.channel).filter(|place| !given().any(|one| one == place)).insert_all()
        } else {
            let heirs = heirs(delivery, routes);
            if heirs.is_empty() {
                return Fate::GivenUp;
            }
            let event = delivery.message.event;
            let knows = |name: &String| {
                let incident = delivery.opens.as_ref();
                given().any(|(channel, _)| channel == name)
                    || incident.is_some_and(|one| self.incidents.was_given(one, name, event))
            };
            heirs.iter().filter(|name| !knows(name)).flat_map(places).insert_all()
        };
        if places.is_empty() { Fate::IsKnown } else { Fate::Moves(places) }
    }

    /// Hands everything over that has no channel any more: first what waits, then open incidents.
    /// Returns what became of the deliveries.
    pub fn take_over(
        &mut self,
        routes: &Routes,
        now: Now,
    ) -> Vec<(DeliveryResult, DeliveryRecord)> {
        let settings = self.settings();
        let fates = self.fates(&settings, routes);
        for (id, _) in &fates {
            if self.deliveries.get(id).is_some_and(|delivery| delivery.digest.is_some()) {
                self.split_digest(*id, false);
            }
        }
        let mut by_event: BTreeMap<EventId, Vec<DeliveryId>> = BTreeMap::new();
        for (id, delivery) in self.deliveries.iter().filter(|_| !fates.is_empty()) {
            by_event.entry(delivery.message.event).or_default().push(*id);
        }
        let mut ended = Vec::new();
        for (id, fate) in fates {
            match fate {
                Fate::Waits => self.keep_without_channel(id),
                Fate::GivenUp => {
                    let why = "its channel is no longer configured, and no other one takes it";
                    ended.extend(self.fail(id, DropReason::ChannelRemoved, why, now));
                }
                Fate::IsKnown => {
                    let none = BTreeSet::new();
                    ended.extend(self.move_delivery(id, &none, &by_event, routes, now));
                }
                Fate::Moves(places) => {
                    ended.extend(self.move_delivery(id, &places, &by_event, routes, now));
                }
            }
        }
        self.hand_over_incidents(routes, now);
        ended
    }

    /// Queues what was kept while there was no channel at all, for those of them that are there again.
    pub(super) fn queue_what_was_kept(&mut self, new: &BTreeSet<String>) {
        let mut kept: Vec<(EventId, DeliveryId)> = self
            .deliveries
            .iter()
            .filter(|(id, delivery)| new.contains(&delivery.channel) && !self.notices.is_held(**id))
            .map(|(id, delivery)| (delivery.message.event, *id))
            .collect();
        kept.sort_unstable();
        for (_, id) in kept {
            let delivery = &self.deliveries[&id];
            if let Some(queue) = self.queues.get_mut(&delivery.channel) {
                queue.push(id, delivery);
            }
        }
    }

    fn keep_without_channel(&mut self, id: DeliveryId) {
        if self.deliveries.get(&id).is_some_and(|delivery| delivery.in_flight) {
            self.update(id, |delivery| {
                delivery.in_flight = false;
                delivery.possible_repeat = true;
            });
        }
    }

    /// Sends a delivery to `places` instead, and has the others of its event know that.
    fn move_delivery(
        &mut self,
        id: DeliveryId,
        places: &BTreeSet<Place>,
        by_event: &BTreeMap<EventId, Vec<DeliveryId>>,
        routes: &Routes,
        now: Now,
    ) -> Option<(DeliveryResult, DeliveryRecord)> {
        let old = self.remove(id)?;
        let mut given = BTreeSet::clone(&old.given_to);
        // It did not arrive there: should that place be configured again, it is one like others.
        given.remove(&old.place());
        given.extend(places.iter().cloned());
        let given = Arc::new(given);
        for other in by_event.get(&old.message.event).into_iter().flatten() {
            self.update(*other, |delivery| delivery.given_to = Arc::clone(&given));
        }
        if let Some(lost) = &old.given_up {
            self.forget_notice_at(&old.place(), lost);
        }
        let parts = old.given_up.as_ref().map(|lost| routes.concerned(lost));
        for place in places {
            match &old.given_up {
                Some(all) => {
                    let lost = parts.as_ref().and_then(|parts| parts.get(&place.0)).unwrap_or(all);
                    let event = old.message.event;
                    self.tell_given_up(event, lost, &place.0, place.1.clone(), &given, now);
                }
                None => self.send_instead(&old, place, &given, now),
            }
        }
        self.incidents.record_failed(&old);
        let to: BTreeSet<String> = places.iter().map(|(name, _)| name.clone()).insert_all();
        let why = match joined(&to) {
            Some(names) => format!("no longer configured: it goes to {names}"),
            None => "no longer configured, and others were given the same".into(),
        };
        let record = self.record_failure(id, &old, &why, now);
        Some((DeliveryResult::Moved { to: to.into_iter().collect() }, record))
    }

    fn send_instead(
        &mut self,
        old: &Delivery,
        (channel, recipient): &Place,
        given: &Arc<BTreeSet<Place>>,
        now: Now,
    ) {
        let thread =
            old.opens.as_ref().and_then(|incident| self.incidents.thread_of(incident, channel));
        let new = Delivery {
            channel: channel.clone(),
            recipient: recipient.clone(),
            accepted: now,
            attempts: 0,
            in_flight: false,
            possible_repeat: old.possible_repeat || old.in_flight,
            plain: false,
            digest: None,
            thread,
            given_to: Arc::clone(given),
            ..old.clone()
        };
        let id = self.next_delivery_id(now.wall);
        self.writes.push(Write::put(Table::Outbox, id.key(), &new));
        self.incidents.record_moved(&new);
        self.insert_in_order(id, &new);
        self.keep(id, new);
    }

    /// Queues a delivery before what waits of later events about its subject.
    fn insert_in_order(&mut self, id: DeliveryId, new: &Delivery) {
        let Some(queue) = self.queues.get(&new.channel) else { return };
        let is_later = |other: &&DeliveryId| {
            self.deliveries.get(other).is_some_and(|delivery| {
                delivery.message.event > new.message.event
                    && !delivery.in_flight
                    && !self.digested_in.contains_key(other)
            })
        };
        let before = queue.waiting_with(new).rev().take_while(is_later).last().copied();
        if let Some(queue) = self.queues.get_mut(&new.channel) {
            queue.insert(id, new, before);
        }
    }

    /// Hands open incidents over to the channels that there are. Those that knew nothing of one that is
    /// critical are told of it once.
    fn hand_over_incidents(&mut self, routes: &Routes, now: Now) {
        let is_configured = |name: &str| routes.has_channel(name);
        let gone = |open: &&OpenIncident| {
            let returned = |(name, given): (&String, &NotifiedChannel)| {
                given.handed_over && is_configured(name)
            };
            let gone = open.gone_channels(is_configured).next().is_some();
            gone || open.channels.iter().any(returned)
        };
        let heirs: Vec<(Incident, BTreeSet<String>)> = self
            .open_incidents()
            .filter(gone)
            .map(|open| (open.incident.clone(), successors(open, routes)))
            .collect();
        for (incident, successors) in heirs {
            let new = self.incidents.hand_over(&incident, &successors, is_configured);
            self.tell_of_open_incident(&incident, &new, now);
        }
    }

    fn tell_of_open_incident(&mut self, incident: &Incident, channels: &[String], now: Now) {
        let open = self.incidents.get(incident).filter(|open| open.is_critical_and_unseen());
        let Some(open) = open.filter(|_| !channels.is_empty()) else { return };
        let (at, title) = (open.since.unwrap_or(now.wall), open.title());
        let told_last = open.channels.values().max_by_key(|given| given.events.last());
        let state = told_last.and_then(|given| given.told.clone());
        let state = state.filter(|told| told.level == Level::Critical);
        let message = Arc::new(Message {
            event: self.next_event(now.wall),
            at,
            level: Level::Critical,
            subject: incident.subject(),
            thread: incident.to_string(),
            title,
            details: vec![("told before".into(), "through a channel that is gone".into())],
            link: self.link_of(&incident.subject()),
            table: None,
        });
        let target = ChannelTarget {
            always_deliver: true,
            given_to: self.places_of(channels.iter().cloned()),
            ..ChannelTarget::default()
        };
        for name in channels {
            if self.enqueue(name, &message, Some(incident), &target, now) > 0
                && let Some(state) = &state
            {
                // It says what was told last, to whomever.
                self.incidents.record_told(incident, name, state);
            }
        }
    }
}

/// The channels that take over a delivery.
fn heirs(delivery: &Delivery, routes: &Routes) -> BTreeSet<String> {
    match &delivery.given_up {
        Some(lost) => {
            // One that is told of its own losses was given a notice of its own, unless it was gone
            // meanwhile.
            let own = Some(lost.channel.clone()).filter(|name| routes.has_channel(name));
            routes.concerned(lost).into_keys().chain(own).insert_all()
        }
        None => {
            routes.heirs(&delivery.message.subject, delivery.for_backups, delivery.routing_level())
        }
    }
}

/// The present channels for what an incident is about, as far as its level concerns them.
fn successors(open: &OpenIncident, routes: &Routes) -> BTreeSet<String> {
    routes.heirs(&open.incident.subject(), false, open.level.unwrap_or(Level::Warning))
}

fn joined(names: &BTreeSet<String>) -> Option<String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
