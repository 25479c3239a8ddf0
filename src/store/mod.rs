//! The state on disk: one redb file, one transaction for all that belongs together.
//!
//! Rows that cannot be written stay in memory and are written later: a full disk delays durability,
//! it does not lose what the daemon still knows. Rows are JSON under text keys, except those of the
//! history of metrics, of which there are too many.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{debug, error, info, warn};
use redb::{Database, ReadableDatabase};

use crate::clock::Now;

pub mod change;
mod file;
mod history_limit;
mod snapshot;
mod table;

pub use self::change::{Change, ChangeSink};
pub use self::file::LockError;
pub use self::history_limit::HistoryLimit;
pub use self::snapshot::Snapshot;
pub use self::table::{RawRow, Table, Write};

use self::file::{
    OpenError, catch_panics, history_bytes, load_into_memory, lock_directory,
    make_directory_private, moved_aside_name, newest_rows, open_database, read_row, read_table,
    scan_rows, write_rows,
};
use self::history_limit::{
    BY_TIME, HistoryBytes, PendingRows, WEIGHED, drop_pending, pending_bytes,
};

/// The database in the state directory.
pub const FILE_NAME: &str = "heartbeat.redb";
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of the history that may be pending while the disk fails.
const MAX_PENDING_HISTORY: u64 = 8_000_000;
/// How many bytes of history a commit removes, and four for each that it adds: a limit that a reload
/// has made lower is reached in several.
const MAX_TRIMMED: u64 = 1_000_000;
/// How many rows a commit looks at in search of those that matter less.
const MAX_SCANNED: usize = 10_000;

/// What happened while the store was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenResult {
    /// It is there and readable, or new.
    Ready,
    /// It could not be read and was moved aside; a new one was begun.
    MovedAside { why: String, to: String },
    /// It cannot be opened now; it is tried again at every commit.
    Failed { why: String },
}

/// What a commit did.
///
/// ```text
///                                  Failed
///                +---------+ ------------------> +---------+
///  Committed +-> | working |                     | failing | <-+ StillFailing
///            +-- +---------+ <------------------ +---------+ --+
///                          Recovered, RecoveredUnread,
///                                RecoveredEmpty
/// ```
#[derive(Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// Every pending row is on disk.
    Committed,
    /// As before, nothing is on disk yet; the next attempt comes later.
    StillFailing,
    /// The first commit that failed.
    Failed { why: String },
    /// The disk takes writes again, and has everything.
    Recovered { failed_for: Duration },
    /// The disk takes writes again, and what was there before the start can be read only now. Rows
    /// of tables that only grow were added to it; the other pending rows were dropped, since they
    /// were made without knowing the file.
    RecoveredUnread { failed_for: Duration },
    /// The disk takes writes again but the old file is gone or unreadable: the caller must write
    /// its whole state again.
    RecoveredEmpty { failed_for: Duration },
}

/// The store of one daemon.
pub struct Store {
    directory: PathBuf,
    // Open for the sake of its lock; one that could not be taken yet is taken when the disk works.
    lock: Option<File>,
    database: Option<Database>,
    // A copy in memory of a file that can be read but not written.
    copy: Option<Database>,
    // There was a file at the start, and it could not be read; nothing was decided from it.
    unread: bool,
    pending: PendingRows,
    limit: Option<HistoryLimit>,
    bytes: HistoryBytes,
    // By table of the history, from where on there may be rows that matter less.
    minor_from: BTreeMap<Table, String>,
    failure: Option<WriteFailure>,
}

/// A period in which commits fail.
struct WriteFailure {
    since: Now,
    next_attempt: Now,
}

impl Store {
    /// Opens the store in `directory`, which is made when it is missing.
    ///
    /// # Errors
    /// When another daemon holds it. Every other failure (no such disk, damaged, read-only) is
    /// reported in [`OpenResult`], and the store works in memory meanwhile.
    pub fn open(directory: &Path, now: Now) -> Result<(Store, OpenResult), LockError> {
        let mut store = Store {
            directory: directory.to_owned(),
            lock: None,
            database: None,
            copy: None,
            unread: false,
            pending: BTreeMap::new(),
            limit: None,
            bytes: HistoryBytes::default(),
            minor_from: BTreeMap::new(),
            failure: None,
        };
        let opened = match store.open_file()? {
            Ok(None) => OpenResult::Ready,
            Ok(Some((why, to))) => OpenResult::MovedAside { why, to },
            Err(why) => {
                store.failure =
                    Some(WriteFailure { since: now, next_attempt: now.later(RETRY_INTERVAL) });
                let path = directory.join(FILE_NAME);
                store.copy = load_into_memory(&path);
                store.unread = store.copy.is_none() && fs::symlink_metadata(&path).is_ok();
                OpenResult::Failed { why }
            }
        };
        Ok((store, opened))
    }

    /// Makes the directory, takes the lock, opens the file; returns why an unreadable one was moved
    /// aside and where to.
    #[allow(
        clippy::type_complexity,
        reason = "locked, unavailable and moved aside are three outcomes"
    )]
    fn open_file(&mut self) -> Result<Result<Option<(String, String)>, String>, LockError> {
        if self.lock.is_none() {
            if let Err(why) = make_directory_private(&self.directory) {
                return Ok(Err(format!("{} cannot be made: {why}", self.directory.display())));
            }
            match lock_directory(&self.directory)? {
                Ok(file) => self.lock = Some(file),
                Err(why) => return Ok(Err(why)),
            }
        }
        let path = self.directory.join(FILE_NAME);
        match open_database(&path) {
            Ok(database) => {
                self.use_database(database);
                Ok(Ok(None))
            }
            Err(OpenError::Unavailable(why)) => Ok(Err(format!("{}: {why}", path.display()))),
            Err(OpenError::Corrupt(why)) => Ok(self.replace_corrupt_file(&path, why)),
        }
    }

    fn replace_corrupt_file(
        &mut self,
        path: &Path,
        why: String,
    ) -> Result<Option<(String, String)>, String> {
        let aside = moved_aside_name(path);
        fs::rename(path, &aside).map_err(|rename| {
            format!("{} is unreadable ({why}) and cannot be moved aside: {rename}", path.display())
        })?;
        error!("{} could not be read ({why}); it is kept as {}", path.display(), aside.display());
        match open_database(path) {
            Ok(database) => {
                self.use_database(database);
                Ok(Some((why, aside.display().to_string())))
            }
            Err(OpenError::Unavailable(why) | OpenError::Corrupt(why)) => {
                Err(format!("{}: {why}", path.display()))
            }
        }
    }

    fn use_database(&mut self, database: Database) {
        self.bytes = catch_panics(|| history_bytes(&database)).unwrap_or_else(|why| {
            warn!("the size of the history cannot be read: {why}");
            HistoryBytes::default()
        });
        self.minor_from.clear();
        self.database = Some(database);
    }

    fn readable(&self) -> Option<&Database> {
        self.database.as_ref().or(self.copy.as_ref())
    }

    /// Every row of a table, by key. Empty while the store cannot be read.
    pub fn rows(&self, table: Table) -> Vec<RawRow> {
        let Some(database) = self.readable() else { return Vec::new() };
        match catch_panics(|| read_table(database, table)) {
            Ok(rows) => rows,
            Err(why) => {
                error!("the store's {table:?} cannot be read: {why}");
                Vec::new()
            }
        }
    }

    /// Every row of a table that can be parsed. A row that cannot is logged and left where it is.
    pub fn read<T: serde::de::DeserializeOwned>(&self, table: Table) -> Vec<(String, T)> {
        let mut rows = Vec::new();
        for (key, value) in self.rows(table) {
            match serde_json::from_slice(&value) {
                Ok(row) => rows.push((key, row)),
                Err(why) => error!("the store's {table:?} row {key} is damaged and ignored: {why}"),
            }
        }
        rows
    }

    /// One row, if it is there and can be parsed.
    pub fn get<T: serde::de::DeserializeOwned>(&self, table: Table, key: &str) -> Option<T> {
        let database = self.readable()?;
        let bytes = catch_panics(|| read_row(database, table, key)).unwrap_or_else(|why| {
            error!("the store's {table:?} row {key} cannot be read: {why}");
            None
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|why| error!("the store's {table:?} row {key} is damaged and ignored: {why}"))
            .ok()
    }

    /// At most `count` rows of a table, those with the greatest keys below `before` first, pending
    /// rows included.
    pub fn newest(&self, table: Table, before: Option<&str>, count: usize) -> Vec<RawRow> {
        let mut rows = BTreeMap::new();
        if let Some(database) = &self.database {
            match catch_panics(|| newest_rows(database, table, before, count)) {
                Ok(stored) => rows.extend(stored),
                Err(why) => error!("the store's {table:?} cannot be read: {why}"),
            }
        }
        for ((of, key), value) in self.pending.range((table, String::new())..) {
            if *of != table || before.is_some_and(|before| key.as_str() >= before) {
                break;
            }
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
        rows.into_iter().rev().take(count).collect()
    }

    /// What is on disk at this moment, for reading in another thread; none while commits fail.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let database = self.database.as_ref().filter(|_| self.failure.is_none())?;
        catch_panics(|| Ok(database.begin_read()?)).map(Snapshot::new).ok()
    }

    /// Has every commit remove what the history has too much of, in the same transaction.
    pub fn limit_history(&mut self, limit: HistoryLimit) {
        self.limit = Some(limit);
    }

    /// Has the next commit remove what the history will have too much of.
    fn trim_history(&mut self) {
        let (Some(limit), Some(database)) = (self.limit, &self.database) else { return };
        let added = pending_bytes(&self.pending);
        let Some(excess) = limit.excess(self.bytes.counted(&limit) + added) else { return };
        let mut trim = Trim {
            excess: excess.min(4 * added + MAX_TRIMMED),
            is_urgent: excess > limit.max_bytes / 4,
            removed: 0,
            keys: BTreeSet::new(),
        };
        let tables =
            catch_panics(|| trim.choose(database, &limit, self.bytes, &mut self.minor_from));
        if let Err(why) = tables {
            warn!("the history cannot be trimmed: {why}");
        }
        self.pending.extend(trim.keys.into_iter().map(|key| (key, None)));
        drop_pending(&mut self.pending, &limit, limit.max_bytes);
    }

    /// Adds a row to the next commit.
    pub fn write(&mut self, write: Write) {
        self.pending.insert((write.table, write.key), write.value);
    }

    /// Whether the last commit failed.
    pub fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// When a failed commit is tried again.
    pub fn next_attempt(&self) -> Option<Now> {
        self.failure.as_ref().map(|failure| failure.next_attempt)
    }

    /// Writes all pending rows in one transaction with one fsync. While commits fail, one is tried
    /// every five seconds only.
    pub fn commit(&mut self, now: Now) -> CommitResult {
        if self.failure.as_ref().is_some_and(|failure| now.mono < failure.next_attempt.mono) {
            return CommitResult::StillFailing;
        }
        self.commit_now(now)
    }

    /// The same, however recently the last attempt failed: for the end of the process.
    pub fn commit_now(&mut self, now: Now) -> CommitResult {
        if self.pending.is_empty() && self.failure.is_none() {
            return CommitResult::Committed;
        }
        let reached = if self.database.is_some() { Ok(false) } else { self.reopen() };
        if reached.is_ok() && self.unread {
            self.pending.retain(|(table, _), _| table.is_append_only());
        }
        self.trim_history();
        match reached.and_then(|is_empty| self.write_pending().map(|()| is_empty)) {
            Ok(is_empty) => self.on_committed(is_empty, now),
            Err(why) => self.on_failed(why, now),
        }
    }

    fn on_committed(&mut self, is_empty: bool, now: Now) -> CommitResult {
        self.pending.clear();
        self.copy = None;
        let unread = std::mem::take(&mut self.unread);
        let Some(failure) = self.failure.take() else { return CommitResult::Committed };
        let failed_for = now.mono.since(failure.since.mono);
        info!("{} takes writes again", self.directory.display());
        match (is_empty, unread) {
            (true, _) => CommitResult::RecoveredEmpty { failed_for },
            (false, true) => CommitResult::RecoveredUnread { failed_for },
            (false, false) => CommitResult::Recovered { failed_for },
        }
    }

    /// How many rows are pending.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Opens the file after a failure; true when the file is now an empty one.
    fn reopen(&mut self) -> Result<bool, String> {
        let was_there = self.directory.join(FILE_NAME).exists();
        match self.open_file() {
            Ok(Ok(moved)) => Ok(moved.is_some() || !was_there),
            Ok(Err(why)) => Err(why),
            Err(held) => Err(held.why),
        }
    }

    fn write_pending(&mut self) -> Result<(), String> {
        let database = self.database.as_ref().ok_or("the file is not open")?;
        self.bytes = catch_panics(|| write_rows(database, &self.pending, self.bytes))?;
        Ok(())
    }

    fn on_failed(&mut self, why: String, now: Now) -> CommitResult {
        // redb refuses everything after an I/O error until the file is opened anew.
        self.database = None;
        self.drop_old_history();
        let next_attempt = now.later(RETRY_INTERVAL);
        if let Some(failure) = &mut self.failure {
            failure.next_attempt = next_attempt;
            debug!("the store still refuses: {why}");
            return CommitResult::StillFailing;
        }
        warn!("{} refuses to be written: {why}", self.directory.display());
        self.failure = Some(WriteFailure { since: now, next_attempt });
        CommitResult::Failed { why }
    }

    fn drop_old_history(&mut self) {
        let none = HistoryLimit { max_bytes: MAX_PENDING_HISTORY, is_minor: |_| false };
        let limit = self.limit.unwrap_or(none);
        drop_pending(&mut self.pending, &limit, limit.max_bytes.min(MAX_PENDING_HISTORY));
    }
}

/// The choice of the rows that are removed from the history.
struct Trim {
    /// How many bytes are to go.
    excess: u64,
    /// There are so many too many that alarms do not wait for messages that were not found yet.
    is_urgent: bool,
    removed: u64,
    keys: BTreeSet<(Table, String)>,
}

impl Trim {
    fn choose(
        &mut self,
        database: &Database,
        limit: &HistoryLimit,
        bytes: HistoryBytes,
        minor_from: &mut BTreeMap<Table, String>,
    ) -> Result<(), redb::Error> {
        let mut scanned = 0;
        let mut weighed = WEIGHED;
        weighed.sort_by_key(|table| Reverse(bytes.of(*table)));
        for table in weighed {
            let from = minor_from.entry(table).or_default();
            let start = from.clone();
            scan_rows(database, table, &start, |key, value| {
                if self.removed >= self.excess || scanned >= MAX_SCANNED {
                    return false;
                }
                scanned += 1;
                if (limit.is_minor)(value) {
                    self.remove(table, key, value);
                }
                // Behind this one: no key has a character before it.
                *from = format!("{key}\0");
                true
            })?;
        }
        if scanned >= MAX_SCANNED && !self.is_urgent {
            return Ok(());
        }
        self.choose_oldest(database, bytes)
    }

    fn choose_oldest(
        &mut self,
        database: &Database,
        bytes: HistoryBytes,
    ) -> Result<(), redb::Error> {
        let Some(table) = BY_TIME.into_iter().max_by_key(|table| bytes.of(*table)) else {
            return Ok(());
        };
        scan_rows(database, table, "", |key, value| {
            let more = self.removed < self.excess;
            if more && !self.keys.contains(&(table, key.to_owned())) {
                self.remove(table, key, value);
            }
            more
        })
    }

    fn remove(&mut self, table: Table, key: &str, value: &[u8]) {
        self.removed += (key.len() + value.len()) as u64;
        self.keys.insert((table, key.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::file::LOCK_NAME;
    use super::*;
    use crate::clock::{Mono, Wall};

    fn at(seconds: i64) -> Now {
        Now { mono: Mono(seconds * 1000), wall: Wall(1_800_000_000_000 + seconds * 1000) }
    }

    fn open(directory: &Path) -> Store {
        let (store, opened) = Store::open(directory, at(0)).unwrap();
        assert_eq!(opened, OpenResult::Ready);
        store
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &1));
        store.write(Write::put(Table::Hosts, "web2", &2));
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
        store.write(Write::remove(Table::Hosts, "web1"));
        assert_eq!(store.commit(at(2)), CommitResult::Committed);
        drop(store);
        assert_eq!(open(directory.path()).read::<i32>(Table::Hosts), [("web2".into(), 2)]);
    }

    #[test]
    fn the_newest_rows_are_told_in_pages_with_what_waits_for_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        for number in 0..5 {
            store.write(Write::put(Table::History, format!("k{number}"), &number));
            store.write(Write::put(Table::Hosts, format!("k{number}"), &number));
        }
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
        store.write(Write::put(Table::History, "k5", &5));
        store.write(Write::remove(Table::History, "k0"));
        let keys = |before, count| -> Vec<String> {
            store.newest(Table::History, before, count).into_iter().map(|row| row.0).collect()
        };
        assert_eq!(keys(None, 10), ["k5", "k4", "k3", "k2", "k1"]);
        assert_eq!(keys(None, 2), ["k5", "k4"]);
        assert_eq!(keys(Some("k4"), 2), ["k3", "k2"]);
        assert_eq!(keys(Some("k2"), 2), ["k1"]);
        assert_eq!(keys(Some("k1"), 2), [""; 0]);
    }

    #[test]
    fn a_second_daemon_is_told_who_holds_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let _store = open(directory.path());
        let held = Store::open(directory.path(), at(0)).err().unwrap();
        assert!(held.why.contains(&format!("pid {}", std::process::id())), "{}", held.why);
    }

    #[test]
    fn junk_is_moved_aside_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for junk in [vec![0u8; 0], b"junk".to_vec(), vec![7u8; 100_000]] {
            fs::write(&path, &junk).unwrap();
            let (mut store, opened) = Store::open(directory.path(), at(0)).unwrap();
            if junk.is_empty() {
                // redb takes an empty file for a new one.
                assert_eq!(opened, OpenResult::Ready);
            } else {
                let OpenResult::MovedAside { to, .. } = opened else { panic!("{opened:?}") };
                assert_eq!(fs::read(to).unwrap(), junk);
            }
            store.write(Write::put(Table::Hosts, "web1", &1));
            assert_eq!(store.commit(at(1)), CommitResult::Committed);
        }
    }

    #[test]
    fn a_store_with_broken_pages_never_takes_the_daemon_down() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut store = open(directory.path());
        for n in 0..2000 {
            store.write(Write::put(Table::Hosts, format!("host{n}"), &"x".repeat(100)));
        }
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
        drop(store);
        let sound = fs::read(&path).unwrap();
        for offset in (0..sound.len()).step_by(sound.len() / 40) {
            let mut broken = sound.clone();
            let end = (offset + 3000).min(broken.len());
            broken[offset..end].fill(0xa5);
            fs::write(&path, &broken).unwrap();
            let (mut store, _) = Store::open(directory.path(), at(0)).unwrap();
            store.rows(Table::Hosts);
            store.write(Write::put(Table::Hosts, "web1", &1));
            store.commit(at(1));
        }
    }

    #[test]
    fn what_a_refusing_disk_did_not_take_is_written_when_it_heals() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        // A file where the directory should be: not even root can write below it.
        fs::write(&state, "").unwrap();
        let (mut store, opened) = Store::open(&state, at(0)).unwrap();
        assert!(matches!(opened, OpenResult::Failed { .. }));
        store.write(Write::put(Table::Hosts, "web1", &1));
        assert_eq!(store.commit(at(1)), CommitResult::StillFailing);
        fs::remove_file(&state).unwrap();
        assert_eq!(store.commit(at(2)), CommitResult::StillFailing, "not before its time");
        let healed = store.commit(at(6));
        assert_eq!(healed, CommitResult::RecoveredEmpty { failed_for: Duration::from_secs(6) });
        assert_eq!(store.read::<i32>(Table::Hosts), [("web1".into(), 1)]);
    }

    #[test]
    fn a_store_that_can_only_be_read_is_gone_on_from() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &1));
        store.commit(at(1));
        drop(store);
        // A directory where the lock should be: not even root can open it for writing.
        let lock = directory.path().join(LOCK_NAME);
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        let (mut store, opened) = Store::open(directory.path(), at(2)).unwrap();
        assert!(matches!(opened, OpenResult::Failed { .. }), "{opened:?}");
        assert_eq!(store.read::<i32>(Table::Hosts), [("web1".into(), 1)]);
        fs::remove_dir(&lock).unwrap();
        store.write(Write::put(Table::Hosts, "web2", &2));
        assert!(matches!(store.commit(at(8)), CommitResult::Recovered { .. }));
        assert_eq!(store.read::<i32>(Table::Hosts).len(), 2);
    }

    #[test]
    fn a_row_that_is_damaged_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &"not a number"));
        store.write(Write::put(Table::Hosts, "web2", &2));
        store.commit(at(1));
        assert_eq!(store.read::<i32>(Table::Hosts), [("web2".into(), 2)]);
    }

    fn history_rows(store: &Store) -> usize {
        store.rows(Table::Events).len()
    }

    #[test]
    fn a_limit_that_a_reload_makes_lower_is_reached_in_several_commits() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let limit = |max_bytes| HistoryLimit { max_bytes, is_minor: |_| false };
        store.limit_history(limit(10_000_000));
        for number in 0..6000 {
            store.write(Write::put(Table::Events, format!("{number:05}"), &"x".repeat(993)));
        }
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
        assert_eq!(history_rows(&store), 6000);
        store.limit_history(limit(1_000_000));
        let mut left = vec![6000];
        for second in 2..10 {
            store.write(Write::put(Table::Meta, "n", &second));
            assert_eq!(store.commit(at(second)), CommitResult::Committed);
            left.push(history_rows(&store));
        }
        assert_eq!(left[..3], [6000, 5000, 4000]);
        assert!((900..=1000).contains(left.last().unwrap()), "{left:?}");
        assert_eq!(store.rows(Table::Events).last().unwrap().0, "05999");
    }

    #[test]
    fn a_file_that_does_not_know_its_sizes_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Events, "1", &"x".repeat(993)));
        store.write(Write::put(Table::Names, "web1/0000", &1));
        store.commit(at(1));
        let sizes = store.bytes;
        store.write(Write::remove(Table::Meta, history_limit::BYTES_KEY));
        store.commit(at(2));
        drop(store);
        assert_eq!(open(directory.path()).bytes, sizes);
        assert_eq!(sizes.of(Table::Events), 996);
    }
}
