//! Connects the updater of names in the DNS to the store, to the monitor, which reports addresses,
//! and to the log of deliveries.

use std::net::IpAddr;
use std::sync::Arc;

use super::threads::Threads;
use crate::clock::Now;
use crate::config::Config;
use crate::dyndns::names::RecordFamily;
use crate::dyndns::updater::{OnRecordWritten, RecordWritten, Updater};
use crate::event::{EventId, Level, Subject};
use crate::heartbeat::fleet::AddressChange;
use crate::heartbeat::monitor::Monitor;
use crate::notify::courier::{Courier, DirectRecord, SendPermit};
use crate::notify::outbox::DeliveryRecord;
use crate::store::{ChangeSink, Store, Table};
use crate::thread::Stop;

/// What written records have in place of a channel in the log of deliveries.
const CHANNEL: &str = "dyndns";

/// The updater, with the state that the store has of it.
pub fn open(
    config: &Config,
    store: &Store,
    courier: &Courier,
    sink: ChangeSink,
    now: Now,
) -> Arc<Updater> {
    let rows = store.read(Table::Dyndns);
    Arc::new(Updater::new(config.dyndns.clone(), rows, sink, log_written(courier.clone()), now))
}

/// From now on the updater is notified of new addresses, and updates names until the stop.
///
/// # Errors
/// When its thread cannot be started.
pub fn start(
    updater: &Arc<Updater>,
    monitor: &Monitor,
    permit: SendPermit,
    (threads, stop): (&Threads, &Stop),
) -> Result<(), String> {
    let notified = Arc::clone(updater);
    monitor.on_address_change(Box::new(move |moved: AddressChange| {
        let AddressChange { host, connection, address } = moved;
        notified.address_changed(&host, &connection, address, Now::read());
    }));
    let (updater, stop) = (Arc::clone(updater), stop.clone());
    threads.spawn("dyndns", move || updater.run(&*permit, &stop))
}

/// Logs every record that is written, beside the messages to people.
fn log_written(courier: Courier) -> OnRecordWritten {
    Box::new(move |written, now| {
        let record = record(written, now);
        courier.record(vec![DirectRecord { record, reason: None }]);
    })
}

fn record(written: RecordWritten, now: Now) -> DeliveryRecord {
    let RecordWritten { host, name, address, server, attempts } = written;
    DeliveryRecord {
        event: EventId::unique(now.wall),
        channel: CHANNEL.into(),
        recipient: Some(server),
        subject: Subject::Host(host),
        level: Level::Info,
        title: title(&name, address),
        accepted: now.wall,
        finished: now.wall,
        attempts,
        delivered: true,
        why: None,
        is_minor: true,
        told_in: None,
        acknowledged: None,
        acknowledged_by: None,
    }
}

fn title(name: &str, address: IpAddr) -> String {
    format!("{name} {} is {address}", RecordFamily::of(address).record())
}
