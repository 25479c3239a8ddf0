//! The names of hosts in the DNS: what the configuration and the store mean to their keeper, and
//! who tells it where hosts are.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Now;
use crate::config::Config;
use crate::dyndns::keeper::{Keeper, OnWritten, Written};
use crate::dyndns::names::Family;
use crate::event::{EventId, Level, Subject};
use crate::heartbeat::moves::Moved;
use crate::heartbeat::watch::Watch;
use crate::notify::courier::{Courier, DirectRecord};
use crate::notify::outbox::DeliveryRecord;
use crate::store::ChangeSink;
use crate::store::{Store, Table};
use crate::thread::Stop;

use super::{Failure, spawn};

/// What stands in the place of a channel in the history of what was told to whom: the DNS was told.
const CHANNEL: &str = "dyndns";

/// The keeper, with what the store knows.
pub fn keeper(
    config: &Config,
    store: &Store,
    courier: &Courier,
    sink: ChangeSink,
    now: Now,
) -> Arc<Keeper> {
    let rows = store.read(Table::Dyndns);
    Arc::new(Keeper::new(config.dyndns.clone(), rows, sink, history(courier.clone()), now))
}

/// From now on the keeper hears of moves, and keeps names until the stop.
///
/// # Errors
/// When its thread cannot be started.
pub fn begin(keeper: &Arc<Keeper>, watch: &Watch, stop: &Stop) -> Result<(), Failure> {
    let told = Arc::clone(keeper);
    watch.on_move(Box::new(move |moved: Moved| {
        let Moved { host, connection, address } = moved;
        told.hear(&host, &connection, address, Now::read());
    }));
    let (keeper, stop) = (Arc::clone(keeper), stop.clone());
    spawn("dyndns", move || keeper.keep(&stop))
}

/// Every record that is written is a line of the history, beside the messages to people.
fn history(courier: Courier) -> OnWritten {
    Box::new(move |written, now| {
        let record = record(written, now);
        courier.record(vec![DirectRecord { record, reason: None }]);
    })
}

fn record(written: Written, now: Now) -> DeliveryRecord {
    let Written { host, name, address, place, attempts } = written;
    DeliveryRecord {
        event: EventId::default().next(now.wall),
        channel: CHANNEL.into(),
        recipient: Some(place),
        subject: Subject::Host(host),
        level: Level::Info,
        title: title(&name, address),
        accepted: now.wall,
        finished: now.wall,
        attempts,
        delivered: true,
        why: None,
        told_in: None,
        acknowledged: None,
        acknowledged_by: None,
    }
}

fn title(name: &str, address: IpAddr) -> String {
    format!("{name} {} is {address}", Family::of(address).record())
}
