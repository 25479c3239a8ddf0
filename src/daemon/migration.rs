//! Moves the whole state from this node's own file into the Redis of its cluster, or back. No node may
//! run meanwhile.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
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

/// Of a file in the state directory, as the daemon makes it.
const FILE_MODE: u32 = 0o600;

/// From the file into an empty Redis; how many rows.
///
/// # Errors
/// A sentence: nothing was moved, or the Redis is to be emptied before another attempt.
pub fn import(config: &Config, settings: &ClusterSettings) -> Result<usize, String> {
    let file = config.state_dir.join(FILE_NAME);
    if !file.exists() {
        return Err(format!("{} is not there", file.display()));
    }
    for_owner(&config.state_dir, || {
        let rows = all_rows(&open_file(&config.state_dir)?)?;
        in_redis(config, settings, |store| {
            if count(store)? > 0 {
                let name = &settings.name;
                return Err(format!("the cluster {name} in Redis has a state already: it stays"));
            }
            write(store, rows)
        })
    })
}

/// From Redis into a file that is empty or not there; how many rows.
///
/// # Errors
/// A sentence.
pub fn export(config: &Config, settings: &ClusterSettings) -> Result<usize, String> {
    for_owner(&config.state_dir, || {
        let rows = in_redis(config, settings, |store| all_rows(store))?;
        let mut store = open_file(&config.state_dir)?;
        if count(&store)? > 0 {
            let file = config.state_dir.join(FILE_NAME);
            return Err(format!("{} has a state already: move it away first", file.display()));
        }
        write(&mut store, rows)
    })
}

/// Does something that may make files in the state directory, and gives these to the directory's
/// owner: root calls this, and the daemon that is to open them is not root.
fn for_owner<T>(directory: &Path, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let before = names_in(directory)?;
    let result = work();
    match (result, give_to_owner(directory, &before)) {
        (result, Ok(())) => result,
        (Ok(_), Err(why)) => Err(why),
        (Err(why), Err(also)) => Err(format!("{why}; {also}")),
    }
}

fn names_in(directory: &Path) -> Result<BTreeSet<OsString>, String> {
    let names = || -> io::Result<BTreeSet<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    };
    match names() {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        names => names.map_err(|why| format!("{} cannot be read: {why}", directory.display())),
    }
}

fn give_to_owner(directory: &Path, before: &BTreeSet<OsString>) -> Result<(), String> {
    for name in names_in(directory)?.difference(before) {
        let path = directory.join(name);
        let owner = fs::metadata(directory)
            .map_err(|why| format!("{} cannot be read: {why}", directory.display()))?;
        give_file(&path, &owner).map_err(|why| {
            let (path, uid, gid) = (path.display(), owner.uid(), owner.gid());
            format!(
                "{path} was made and cannot be given to the owner of its directory: {why}; run \
                 chown {uid}:{gid} {path} before hbd is started"
            )
        })?;
    }
    Ok(())
}

fn give_file(path: &Path, owner: &Metadata) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.uid() == owner.uid() {
        return Ok(());
    }
    // The owner of the directory could put a link there meanwhile, to a file that is not theirs.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    fchown(&file, Some(owner.uid()), Some(owner.gid()))
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
    let options = lease_options(config, &settings, Vec::new(), true)?;
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

fn all_rows(store: &Store) -> Result<Vec<Write>, String> {
    let of = |table| {
        store.rows(table).into_iter().map(move |(key, value)| Write::raw(table, key, value))
    };
    if_whole(store, Table::ALL.into_iter().flat_map(of).collect())
}

/// How many rows there are, without those that a new file has of itself.
fn count(store: &Store) -> Result<usize, String> {
    let tables = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
    if_whole(store, tables.map(|table| store.rows(table).len()).sum())
}

/// What was found in a store, unless that is not all that it has.
fn if_whole<T>(store: &Store, found: T) -> Result<T, String> {
    match store.was_read_whole() {
        true => Ok(found),
        false => Err("the state could not be read, or not all of it: nothing was moved".into()),
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn what_root_made_in_the_state_directory_was_closed_to_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "").unwrap();
        let old = fs::metadata(path("old")).unwrap().uid();
        if chown(directory.path(), Some(4711), Some(4712)).is_err() {
            // Only root can give a file away.
            return;
        }
        let make = || fs::write(path("new"), "").map_err(|why| why.to_string());
        assert_eq!(for_owner(directory.path(), make), Ok(()));
        let made = fs::metadata(path("new")).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (4711, 4712, FILE_MODE));
        assert_eq!(fs::metadata(path("old")).unwrap().uid(), old);
    }
}
