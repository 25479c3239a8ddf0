//! What the outbox takes over from the store and from a new configuration, and what it gives. Pure.

use std::collections::BTreeMap;

use super::{
    Delivery, DeliveryId, Fate, Incident, Line, LineSettings, Now, Open, Outbox, Receipt, Record,
    Table, Write,
};
use crate::event::EventId;

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

impl Outbox {
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
}
