//! Acknowledgements of open incidents, and reminders that are not sent because of one, or of a
//! silence. Pure.

use std::collections::BTreeSet;

use super::acknowledgement::Acknowledgement;
use super::delivery::{Delivery, DeliveryId};
use super::incidents::OpenIncident;
use super::{Outbox, ReceiptPoll};
use crate::btree::InsertAll;
use crate::clock::Now;
use crate::event::{Event, Incident, Level};
use crate::notify::calm::{RootCause, Told};

impl Outbox {
    /// What the channels were told of the incidents that an event opens or ends.
    pub fn told(&self, event: &Event) -> Told {
        let change = event.incident();
        let opened = change.opens().and_then(|incident| self.incidents.get(incident));
        let ended = change.closes().iter().filter_map(|incident| self.incidents.get(incident));
        Told {
            opened: opened.map(OpenIncident::told).unwrap_or_default(),
            ended: ended.flat_map(|open| open.channels.keys().cloned()).insert_all(),
            causes: RootCause::of(event)
                .map(|cause| (cause.clone(), self.knowing(&cause)))
                .insert_all(),
        }
    }

    /// The channels that were told of a cause.
    pub fn knowing(&self, cause: &RootCause) -> BTreeSet<String> {
        match cause {
            RootCause::Parent(host) => self.incidents.told_of_silence(host),
            RootCause::Storm => self.incidents.told_of(&Incident::Storm),
        }
    }

    /// Acknowledges the open incidents that a channel was told of and that are `chosen`; these.
    pub fn acknowledge(
        &mut self,
        chosen: impl Fn(&OpenIncident) -> bool,
        by: &Acknowledgement,
        now: Now,
    ) -> Vec<OpenIncident> {
        let open = self.incidents.iter().filter(|open| !open.channels.is_empty() && chosen(open));
        let open: Vec<OpenIncident> = open.cloned().collect();
        for one in &open {
            self.incidents.set_acknowledged(&one.incident, Some(by.clone()));
        }
        let incidents: BTreeSet<&Incident> = open.iter().map(|open| &open.incident).insert_all();
        self.withdraw_reminders(|incident, _| incidents.contains(incident), "acknowledged", now);
        open
    }

    /// Acknowledges incidents that a provider's receipt was about, as far as they are open and not
    /// acknowledged already.
    pub(super) fn acknowledge_all(
        &mut self,
        incidents: &[Incident],
        by: &Acknowledgement,
        now: Now,
    ) {
        let fresh = |open: &OpenIncident| {
            incidents.contains(&open.incident) && open.acknowledgement(now).is_none()
        };
        self.acknowledge(fresh, by, now);
    }

    /// Takes acknowledgements back; of which incidents.
    pub fn undo_acknowledgement(
        &mut self,
        chosen: impl Fn(&OpenIncident) -> bool,
        now: Now,
    ) -> Vec<OpenIncident> {
        let acknowledged = |open: &&OpenIncident| open.acknowledgement(now).is_some();
        let open = self.incidents.iter().filter(acknowledged).filter(|open| chosen(open));
        let open: Vec<OpenIncident> = open.cloned().collect();
        for one in &open {
            self.incidents.set_acknowledged(&one.incident, None);
        }
        open
    }

    /// Sets the acknowledgement of incidents as it was before, if they are open still, and what was
    /// `set` is what stands: they may have risen, or be acknowledged by another one.
    pub fn restore_acknowledgements(
        &mut self,
        before: &[OpenIncident],
        set: Option<&Acknowledgement>,
    ) {
        for one in before {
            let stands = |open: &OpenIncident| {
                open.first_event == one.first_event && open.acknowledged.as_ref() == set
            };
            if self.incidents.get(&one.incident).is_some_and(stands) {
                self.incidents.set_acknowledged(&one.incident, one.acknowledged.clone());
            }
        }
    }

    /// Ends acknowledgements whose time is over; how many.
    pub fn expire_acknowledgements(&mut self, now: Now) -> usize {
        self.incidents.expire_acknowledgements(now)
    }

    /// Takes reminders out that were not sent yet, of incidents that are `quiet`. One that may have
    /// arrived stays, and so does one that is all that a channel has of its incident.
    pub fn withdraw_reminders(
        &mut self,
        mut quiet: impl FnMut(&Incident, Level) -> bool,
        why: &str,
        now: Now,
    ) {
        let unsent = |id: &DeliveryId, one: &Delivery| {
            let in_flight = one.in_flight || one.possible_repeat;
            one.is_reminder && !in_flight && !self.digested_in.contains_key(id)
        };
        let waiting = self.deliveries.iter().filter(|(id, one)| unsent(id, one));
        let waiting = waiting.filter_map(|(id, one)| Some((*id, one, one.opens.as_ref()?)));
        let mut chosen: Vec<(DeliveryId, &Delivery, &Incident)> =
            waiting.filter(|(_, one, incident)| quiet(incident, one.message.level)).collect();
        // Many deliveries may wait, and mostly none of them is such a reminder.
        if chosen.is_empty() {
            return;
        }
        let alarms = self.deliveries.values().filter(|one| !one.is_reminder);
        let known: BTreeSet<(&str, &Incident)> =
            alarms.filter_map(|one| Some((one.channel.as_str(), one.opens.as_ref()?))).insert_all();
        chosen.retain(|(_, one, incident)| {
            known.contains(&(one.channel.as_str(), *incident))
                || self.incidents.was_delivered(incident, &one.channel)
        });
        let chosen: Vec<DeliveryId> = chosen.into_iter().map(|(id, ..)| id).collect();
        let why = format!("not sent: it is {why}");
        for id in chosen {
            if let Some(delivery) = self.remove_failed(id) {
                self.record_failure(id, &delivery, &why, now);
            }
        }
    }

    /// The emergencies to ask the provider about now, or to end because a person has seen what they
    /// are about: one at a time for each channel, and questions never faster than the provider
    /// allows.
    pub fn due_polls(&mut self, now: Now) -> Vec<ReceiptPoll> {
        let incidents = &self.incidents;
        self.receipts.cancel_acknowledged(
            |incident| incidents.get(incident)?.acknowledgement(now).cloned(),
            now,
        );
        self.receipts.due_polls(now.mono)
    }
}
