//! Moves the whole state from this node's own file into the Redis of its cluster, or back. No node may
//! run meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::standby::lease_options;
use crate::clock::Now;
use crate::cluster::connection::Connector;
use crate::cluster::keys::Keys;
use crate::cluster::lease::{Lease, LeaseEvent};
use crate::cluster::settings::{ClusterSettings, NodeRole};
use crate::cluster::tables::RedisTables;
use crate::config::Config;
use crate::store::{CommitResult, DirectoryLock, FILE_NAME, OpenResult, Store, Table, Write};

/// How long the lead is waited for: longer than that of a node that has just died.
const LEAD_TIMEOUT: Duration = Duration::from_secs(40);

/// So many rows go into one transaction.
const MAX_ROWS: usize = 1000;

/// From the file into an empty Redis; how many rows.
///
/// # Errors
/// A sentence: nothing was moved, or the Redis is to be emptied before another attempt.
pub fn import(config: &Config, settings: &ClusterSettings) -> Result<usize, String> {
    let file = config.state_dir.join(FILE_NAME);
    if !file.exists() {
        return Err(format!("{} is not there", file.display()));
    }
    let rows = rows_of_file(&config.state_dir)?;
    in_redis(config, settings, |store| {
        if count(store) > 0 {
            let name = &settings.name;
            return Err(format!("the cluster {name} in Redis has a state already: it stays"));
        }
        write(store, rows)
    })
}

/// From Redis into a file that is empty or not there; how many rows.
///
/// # Errors
/// A sentence.
pub fn export(config: &Config, settings: &ClusterSettings) -> Result<usize, String> {
    let rows = in_redis(config, settings, |store| Ok(all_rows(store)))?;
    let mut store = open_file(&config.state_dir)?;
    if count(&store) > 0 {
        let file = config.state_dir.join(FILE_NAME);
        return Err(format!("{} has a state already: move it away first", file.display()));
    }
    write(&mut store, rows)
}

fn rows_of_file(directory: &Path) -> Result<Vec<Write>, String> {
    Ok(all_rows(&open_file(directory)?))
}

fn open_file(directory: &Path) -> Result<Store, String> {
    match Store::open(directory, Now::read()).map_err(|locked| locked.why)? {
        (store, OpenResult::Ready) => Ok(store),
        (_, OpenResult::MovedAside { why, .. } | OpenResult::Failed { why }) => Err(why),
    }
}

/// Does something with the state in Redis while no node leads.
fn in_redis<T>(
    config: &Config,
    settings: &ClusterSettings,
    work: impl FnOnce(&mut Store) -> Result<T, String>,
) -> Result<T, String> {
    let lock = DirectoryLock::hold(&config.state_dir).map_err(|locked| locked.why)?;
    let connector = Connector::new(settings)?;
    // A receiver never leads, and this is not for long.
    let settings = ClusterSettings { role: NodeRole::Auto, ..settings.clone() };
    let options = lease_options(config, &settings, Vec::new())?;
    let (lease, events) = Lease::start(connector.clone(), options)
        .map_err(|why| format!("the thread lease cannot be started: {why}"))?;
    let result = wait_for_lead(&lease, &events).and_then(|()| {
        let (own, keys) = (lease.clone(), Keys::new(&settings.name));
        let tables = RedisTables::new(connector, keys, Arc::new(move || own.token()));
        match Store::open_shared(lock, Arc::new(tables), Now::read()) {
            (mut store, OpenResult::Ready) => work(&mut store),
            (_, OpenResult::MovedAside { why, .. } | OpenResult::Failed { why }) => Err(why),
        }
    });
    lease.release();
    result
}

fn wait_for_lead(lease: &Lease, events: &Receiver<LeaseEvent>) -> Result<(), String> {
    let end = Instant::now() + LEAD_TIMEOUT;
    loop {
        match events.recv_deadline(end) {
            Ok(LeaseEvent::Leads { .. }) => return Ok(()),
            Ok(LeaseEvent::RedisLost(why) | LeaseEvent::CannotLead(why)) => return Err(why),
            Ok(_) => {}
            Err(_) => {
                let who = lease.leader().map_or("a node".into(), |token| token.node);
                return Err(format!("{who} leads: stop hbd on every node first"));
            }
        }
    }
}

fn all_rows(store: &Store) -> Vec<Write> {
    let of = |table| {
        store.rows(table).into_iter().map(move |(key, value)| Write::raw(table, key, value))
    };
    Table::ALL.into_iter().flat_map(of).collect()
}

/// How many rows there are, without those that a new file has of itself.
fn count(store: &Store) -> usize {
    let tables = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
    tables.map(|table| store.rows(table).len()).sum()
}

fn write(store: &mut Store, rows: Vec<Write>) -> Result<usize, String> {
    let count = rows.len();
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        rows.by_ref().take(MAX_ROWS).for_each(|row| store.write(row));
        if store.commit(Now::read()) != CommitResult::Committed {
            return Err(store.failure().unwrap_or("the rows cannot be written").into());
        }
    }
    Ok(count)
}
