//! What the courier finds in the store at its start.

use log::{error, info, warn};

use super::LAST_EVENT_KEY;
use super::overlay::Overlay;
use crate::clock::Now;
use crate::notify::calm::LostRow;
use crate::notify::outbox::{
    Delivery, DeliveryRecord, DeliveryResult, OpenIncident, Outbox, StoredOutbox,
};
use crate::notify::settings::NotifySettings;
use crate::store::{Store, Table, Write};

/// The overlay, with what the store has of it. Rows that cannot be read are logged.
pub fn restore_overlay(
    store: &mut Store,
    settings: &NotifySettings,
    rebase: impl Fn(Now) -> Now,
    now: Now,
) -> Overlay {
    let mut overlay = Overlay::new(settings.calm.clone());
    for LostRow { key, content, why } in overlay.calm.restore(store.rows(Table::Calm), rebase, now)
    {
        error!("what was held back as {key} cannot be read and is removed: {why}: {content}");
    }
    overlay
}

/// The outbox, with what the store has of it, and what became of deliveries that have no channel.
pub fn restore_outbox(
    store: &mut Store,
    settings: &NotifySettings,
    rebase: impl Fn(Now) -> Now,
    now: Now,
) -> (Outbox, Vec<(DeliveryResult, DeliveryRecord)>) {
    let seed = now.wall.0.unsigned_abs() ^ u64::from(std::process::id()).rotate_left(32);
    let mut outbox = Outbox::new(settings.queue_settings(), seed, now);
    outbox.set_overdue_renotify(settings.overdue_renotify);
    outbox.set_public_url(settings.public_url.clone());
    let mut deliveries = store.read::<Delivery>(Table::Outbox);
    for (key, delivery) in &mut deliveries {
        let accepted = rebase(delivery.accepted);
        if accepted != delivery.accepted {
            delivery.accepted = accepted;
            store.write(Write::put(Table::Outbox, key.clone(), delivery));
        }
    }
    if !deliveries.is_empty() {
        info!("{} deliveries wait from before the start", deliveries.len());
    }
    let stored = StoredOutbox {
        last_event: store.get(Table::Meta, LAST_EVENT_KEY).unwrap_or_default(),
        deliveries,
        incidents: restore_incidents(store, &rebase, now),
        receipts: store.read(Table::Receipts).into_iter().map(|(_, receipt)| receipt).collect(),
    };
    outbox.restore(stored, now);
    outbox
        .successions(&settings.queue_settings(), &settings.routes)
        .iter()
        .for_each(|one| warn!("{one}"));
    let dropped = outbox.take_over(&settings.routes, now);
    (outbox, dropped)
}

/// The open incidents. An acknowledgement for a time goes on for what is left of it; so does the time
/// to the next reminder, and where an earlier version wrote none, it begins now.
fn restore_incidents(
    store: &mut Store,
    rebase: impl Fn(Now) -> Now,
    now: Now,
) -> Vec<OpenIncident> {
    let mut incidents = Vec::new();
    for (key, mut open) in store.read::<OpenIncident>(Table::Troubles) {
        let last_told = Some(open.last_told.map_or(now, &rebase));
        let changed = std::mem::replace(&mut open.last_told, last_told) != last_told;
        if open.rebase_acknowledgement(&rebase, now) || changed {
            store.write(Write::put(Table::Troubles, key, &open));
        }
        incidents.push(open);
    }
    incidents
}
