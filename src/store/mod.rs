//! The state on disk: one redb file, one transaction for all that belongs together. Where several
//! daemons act as one service it is in tables that they share instead, with the same transactions.
//!
//! Rows that cannot be written stay in memory and are written later: a full disk delays durability,
//! it does not lose what the daemon still knows. A disk may also hang: what touches it runs in
//! threads of its own, `store` for what is written and `store-read` for what is read, and is waited
//! for five seconds. Rows are JSON under text keys, except those of the history of metrics, of which
//! there are too many. Each has a check: a row that was altered on disk is never read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::clock::{Mono, Now};
use crate::event::{EventKind, MAX_LISTED, StoreFileEvent};

pub mod change;
mod check;
mod directory;
mod disk_thread;
mod engine;
mod file;
mod file_backend;
mod history_limit;
mod position;
mod salvage;
pub mod shared;
mod shared_backend;
mod snapshot;
mod storage;
mod table;
mod trim;

pub use self::change::{Change, ChangeSink, InboxEntry};
pub use self::directory::{DirectoryLock, LockError};
pub use self::history_limit::{HistoryBytes, HistoryLimit};
pub use self::snapshot::{Snapshot, TableView};
pub use self::table::{RawRow, Rows, Table, Write};

use self::disk_thread::PATIENCE;
use self::file::UNTOLD_KEY;
use self::file_backend::FileBackend;
use self::history_limit::drop_pending;
use self::shared::{SharedCommitError, SharedTables};
use self::shared_backend::SharedBackend;
use self::table::rows_of;

/// The database in the state directory.
pub const FILE_NAME: &str = "heartbeat.redb";
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The same where tables are shared: at first, and when it lasts.
const SHARED_RETRY_MIN: Duration = Duration::from_millis(100);
const SHARED_RETRY_MAX: Duration = Duration::from_secs(1);
/// How often it is checked, while nothing is written, that the file is still in its place.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How long the start waits for a disk that is slow, but answers: shorter than systemd waits for it.
const START_LIMIT: Duration = Duration::from_secs(40);
/// Bytes of the history that may be pending while the disk fails.
const MAX_PENDING_HISTORY: u64 = 8_000_000;

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
///
/// Only where tables are shared: `Unconfirmed`, from which every other one may follow, and `Deposed`,
/// which is the end.
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
    /// No commit failed, but the file was taken away or replaced, and a new one was begun; or tables
    /// that are shared have lost commits that were confirmed. The caller must write its whole state
    /// again, by [`Store::rewrite`].
    Replaced,
    /// Another daemon writes the shared tables from now on: nothing was written, and nothing may be
    /// sent.
    Deposed,
    /// It may or may not be written, and it is tried again soon. Nothing of it may be sent yet.
    Unconfirmed { why: String },
}

/// The store of one daemon.
pub struct Store {
    backend: Backend,
    pending: Rows,
    limit: Option<HistoryLimit>,
    /// There were rows at the start, and they could not be read; nothing was decided from them.
    unread: bool,
    /// The same, found out by reading: the disk answered while the file was opened, and not later.
    missed: AtomicBool,
    /// Until when a disk that is slow is waited for at the start.
    start_ends: Instant,
    failure: Option<WriteFailure>,
    next_check: Mono,
}

/// Where the rows are.
enum Backend {
    File(FileBackend),
    Shared(SharedBackend),
}

/// A period in which commits fail.
struct WriteFailure {
    since: Now,
    next_attempt: Now,
    why: String,
    /// It may be written: nothing said that it is not.
    unconfirmed: bool,
    /// That commits are refused was reported.
    reported: bool,
}

impl Store {
    /// Opens the store in `directory`, which is made when it is missing.
    ///
    /// # Errors
    /// When another daemon holds it, or no thread can be started. Every other failure (no such
    /// disk, one that hangs, damaged, read-only) is reported in [`OpenResult`], and the store works
    /// in memory meanwhile.
    pub fn open(directory: &Path, now: Now) -> Result<(Store, OpenResult), LockError> {
        let start_ends = Instant::now() + START_LIMIT;
        let (file, result, read) = FileBackend::open(directory)?;
        let mut store = Store::new(Backend::File(file), start_ends, now);
        store.unread = !read;
        store.note_open_failure(&result, now);
        Ok((store, result))
    }

    /// The store of a daemon that shares its rows with others, of which it alone writes. What it reads
    /// and writes is in `tables`; `lock` says that no other daemon of this state directory does so; without it
    /// only the tables themselves keep another one from it.
    pub fn open_shared(
        lock: impl Into<Option<DirectoryLock>>,
        tables: Arc<dyn SharedTables>,
        now: Now,
    ) -> (Store, OpenResult) {
        let (shared, result) = match SharedBackend::open(lock.into(), tables) {
            (shared, Ok(())) => (shared, OpenResult::Ready),
            (shared, Err(why)) => (shared, OpenResult::Failed { why }),
        };
        let mut store = Store::new(Backend::Shared(shared), Instant::now() + START_LIMIT, now);
        store.unread = result != OpenResult::Ready;
        store.note_open_failure(&result, now);
        (store, result)
    }

    fn new(backend: Backend, start_ends: Instant, now: Now) -> Store {
        Store {
            backend,
            pending: Rows::new(),
            limit: None,
            unread: false,
            missed: AtomicBool::new(false),
            start_ends,
            failure: None,
            next_check: now.mono + CHECK_INTERVAL,
        }
    }

    fn note_open_failure(&mut self, result: &OpenResult, now: Now) {
        if let OpenResult::Failed { why } = result {
            self.failure = Some(WriteFailure {
                since: now,
                next_attempt: now.later(RETRY_INTERVAL),
                why: why.clone(),
                unconfirmed: false,
                reported: true,
            });
        }
    }

    /// What is stored at this moment, for reading in another thread; none while commits fail.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.failure.is_none().then(|| self.begin_read(false)?).flatten()
    }

    /// The outer option is none when the disk hangs, the inner one when nothing is open.
    fn begin_read(&self, or_copy: bool) -> Option<Option<Snapshot>> {
        match &self.backend {
            Backend::File(file) => file.begin_read(or_copy),
            Backend::Shared(shared) => Some(Some(shared.snapshot())),
        }
    }

    /// What the daemon begins with. Where a disk does not tell it, that is known: see `missed`.
    fn read_at_start<T: Default>(&self, read: impl FnOnce(Snapshot) -> Option<T>) -> T {
        if self.missed.load(Ordering::Relaxed) {
            // One half of the state is worse than none, and a slow disk is not waited for again.
            return T::default();
        }
        let answer = self.begin_read(true).and_then(|open| open.map_or(Some(T::default()), read));
        answer.unwrap_or_else(|| {
            self.missed.store(true, Ordering::Relaxed);
            T::default()
        })
    }

    /// Every row of a table, by key. Empty while the store cannot be read.
    pub fn rows(&self, table: Table) -> Vec<RawRow> {
        let left = self.start_ends.saturating_duration_since(Instant::now()).max(PATIENCE);
        self.read_at_start(|snapshot| snapshot.rows(left, table))
    }

    /// Whether all that was asked of it could be read, up to now.
    pub fn was_read_whole(&self) -> bool {
        !self.unread && !self.missed.load(Ordering::Relaxed)
    }

    /// Every row of a table that can be parsed. A row that cannot is logged and left where it is.
    pub fn read<T: serde::de::DeserializeOwned>(&self, table: Table) -> Vec<(String, T)> {
        snapshot::parse(table, self.rows(table))
    }

    /// One row, if it is there and can be parsed.
    pub fn get<T: serde::de::DeserializeOwned>(&self, table: Table, key: &str) -> Option<T> {
        let row = self.read_at_start(|snapshot| snapshot.row(table, key))?;
        snapshot::parse(table, vec![(key.to_owned(), row)]).pop().map(|(_, row)| row)
    }

    /// A table with the rows that are not stored yet, for reading in another thread.
    pub fn view(&self, table: Table) -> TableView {
        let in_flight = match &self.backend {
            Backend::File(file) => file.in_flight(),
            Backend::Shared(_) => None,
        };
        let in_flight = in_flight.into_iter().flat_map(|rows| rows_of(rows, table));
        let mut pending = BTreeMap::new();
        for (key, value) in in_flight.chain(rows_of(&self.pending, table)) {
            pending.insert(key.clone(), value.clone());
        }
        TableView { table, snapshot: self.snapshot(), pending }
    }

    /// Has every commit remove what the history has too much of, in the same transaction; where
    /// tables are shared, in the next one.
    pub fn limit_history(&mut self, limit: HistoryLimit) {
        self.limit = Some(limit);
    }

    /// Adds a row to the next commit.
    pub fn write(&mut self, write: Write) {
        self.pending.insert((write.table, write.key), write.value);
    }

    /// Adds every row that there is to the next commit, for a store that has lost some. Of tables
    /// whose rows are all known (see [`Table::is_known_whole`]) it then has these rows and no others.
    pub fn rewrite(&mut self, rows: impl Iterator<Item = Write>) {
        rows.for_each(|write| self.write(write));
        if let Backend::Shared(shared) = &mut self.backend {
            shared.rewrite();
        }
    }

    /// Whether the last commit was refused.
    pub fn is_failing(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| !failure.unconfirmed)
    }

    /// Why nothing is stored; none while it is.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.why.as_str())
    }

    /// When a failed commit is tried again, or else the file's place is checked.
    pub fn next_attempt(&self) -> Mono {
        self.failure.as_ref().map_or(self.next_check, |failure| failure.next_attempt.mono)
    }

    /// What people must be told of the file, each once.
    pub fn take_reports(&mut self) -> Vec<EventKind> {
        let reports = match &mut self.backend {
            Backend::File(file) => std::mem::take(&mut file.reports),
            Backend::Shared(_) => Vec::new(),
        };
        if !reports.is_empty() {
            self.write(Write::remove(Table::Meta, UNTOLD_KEY));
        }
        reports.into_iter().flat_map(kinds).collect()
    }

    /// Writes all pending rows in one transaction with one fsync. While commits fail, one is tried
    /// every five seconds only; where tables are shared, more often.
    pub fn commit(&mut self, now: Now) -> CommitResult {
        let answered = match &self.backend {
            Backend::File(file) => file.has_answered(),
            Backend::Shared(_) => false,
        };
        let early = |failure: &&WriteFailure| now.mono < failure.next_attempt.mono && !answered;
        if let Some(failure) = self.failure.as_ref().filter(early) {
            return failure.again();
        }
        self.commit_within(Duration::ZERO, now)
    }

    /// The same, however recently the last attempt failed: for the end of the process.
    pub fn commit_now(&mut self, now: Now) -> CommitResult {
        self.commit_within(PATIENCE, now)
    }

    /// `patience` is for a batch that the disk did not take in time before.
    fn commit_within(&mut self, patience: Duration, now: Now) -> CommitResult {
        self.unread |= self.missed.swap(false, Ordering::Relaxed);
        if self.pending.is_empty() && self.failure.is_none() && now.mono < self.next_check {
            return CommitResult::Committed;
        }
        self.next_check = now.mono + CHECK_INTERVAL;
        let (pending, limit) = (&mut self.pending, self.limit);
        match &mut self.backend {
            Backend::Shared(shared) => match shared.commit(pending, limit, self.unread) {
                Ok(()) => self.on_committed(false, now),
                Err(why) => self.on_not_shared(why, now),
            },
            Backend::File(file) => {
                let settled = file.settle(patience, pending).and_then(|()| {
                    if file.engine.hangs() {
                        return Err(file.hangs());
                    }
                    if let Some(limit) = &limit {
                        drop_pending(pending, limit, limit.max_bytes);
                    }
                    file.hand_over(pending, limit, self.unread)
                });
                let fresh = settled.is_ok() && file.take_fresh();
                match settled {
                    Ok(()) => self.on_committed(fresh, now),
                    Err(why) => self.on_failed(why, RETRY_INTERVAL, now),
                }
            }
        }
    }

    fn on_committed(&mut self, fresh: bool, now: Now) -> CommitResult {
        let unread = std::mem::take(&mut self.unread);
        let failure = self.failure.take();
        if failure.is_some() {
            info!("{} takes writes again", self.place());
        }
        let Some(failure) = failure.filter(|failure| failure.reported) else {
            return match (fresh, unread) {
                (true, _) => CommitResult::Replaced,
                (false, true) => CommitResult::RecoveredUnread { failed_for: Duration::ZERO },
                (false, false) => CommitResult::Committed,
            };
        };
        let failed_for = now.mono.since(failure.since.mono);
        match (fresh, unread) {
            (true, _) => CommitResult::RecoveredEmpty { failed_for },
            (false, true) => CommitResult::RecoveredUnread { failed_for },
            (false, false) => CommitResult::Recovered { failed_for },
        }
    }

    /// Where the rows are, for the log.
    fn place(&self) -> String {
        match &self.backend {
            Backend::File(file) => file.place().to_string(),
            Backend::Shared(_) => "the shared store".to_owned(),
        }
    }

    /// How many rows are pending.
    pub fn pending(&self) -> usize {
        let given = match &self.backend {
            Backend::File(file) => file.in_flight().map_or(0, Rows::len),
            Backend::Shared(_) => 0,
        };
        self.pending.len() + given
    }

    fn on_failed(&mut self, why: String, retry_after: Duration, now: Now) -> CommitResult {
        self.drop_old_history();
        let next_attempt = now.later(retry_after);
        let place = self.place();
        let new = || WriteFailure {
            since: now,
            next_attempt,
            why: String::new(),
            unconfirmed: false,
            reported: false,
        };
        let failure = self.failure.get_or_insert_with(new);
        (failure.next_attempt, failure.unconfirmed) = (next_attempt, false);
        failure.why.clone_from(&why);
        if std::mem::replace(&mut failure.reported, true) {
            debug!("the store still refuses: {why}");
            return CommitResult::StillFailing;
        }
        warn!("{place} refuses to be written: {why}");
        CommitResult::Failed { why }
    }

    fn on_not_shared(&mut self, error: SharedCommitError, now: Now) -> CommitResult {
        match error {
            SharedCommitError::Deposed => CommitResult::Deposed,
            SharedCommitError::Refused(why) => self.on_failed(why, SHARED_RETRY_MAX, now),
            SharedCommitError::Unconfirmed(why) => self.on_unconfirmed(why, now),
            SharedCommitError::WentBack { to } => {
                warn!("the shared store went back to its change number {to}: all is written anew");
                if let Some(failure) = &mut self.failure {
                    failure.next_attempt = now;
                }
                CommitResult::Replaced
            }
        }
    }

    fn on_unconfirmed(&mut self, why: String, now: Now) -> CommitResult {
        self.drop_old_history();
        if self.failure.is_none() {
            warn!("nothing is sent until what was written is confirmed: {why}");
        }
        let failure = self.failure.get_or_insert_with(|| WriteFailure {
            since: now,
            next_attempt: now,
            why: String::new(),
            unconfirmed: true,
            reported: false,
        });
        let passed = now.mono.since(failure.since.mono) / 10;
        failure.next_attempt = now.later(passed.clamp(SHARED_RETRY_MIN, SHARED_RETRY_MAX));
        failure.unconfirmed = true;
        failure.why = why;
        failure.again()
    }

    fn drop_old_history(&mut self) {
        let none = HistoryLimit { max_bytes: MAX_PENDING_HISTORY, is_minor: |_| false };
        let limit = self.limit.unwrap_or(none);
        drop_pending(&mut self.pending, &limit, limit.max_bytes.min(MAX_PENDING_HISTORY));
    }
}

impl WriteFailure {
    /// What a further commit does that is not tried yet, or ends like the last one.
    fn again(&self) -> CommitResult {
        match self.unconfirmed {
            true => CommitResult::Unconfirmed { why: self.why.clone() },
            false => CommitResult::StillFailing,
        }
    }
}

/// What is told of a report. Those who hear of backups hear of their alerts.
fn kinds(report: StoreFileEvent) -> Vec<EventKind> {
    let alerts = match &report {
        StoreFileEvent::Damaged { alerts, .. } if !alerts.is_empty() => {
            let rows = alerts.iter().take(MAX_LISTED).cloned().collect();
            Some(EventKind::AlertsLost { rows, count: alerts.len() })
        }
        _ => None,
    };
    std::iter::once(EventKind::StoreFile(report)).chain(alerts).collect()
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
pub mod shared_model;
#[cfg(test)]
mod shared_tests;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::directory::LOCK_NAME;
    use super::engine::Engine;
    use super::*;
    use crate::clock::Wall;

    pub(super) fn at(seconds: i64) -> Now {
        Now { mono: Mono(seconds * 1000), wall: Wall(1_800_000_000_000 + seconds * 1000) }
    }

    fn file(store: &Store) -> &FileBackend {
        match &store.backend {
            Backend::File(file) => file,
            Backend::Shared(_) => panic!("it is in no file"),
        }
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
            store.view(Table::History).newest(before, count).into_iter().map(|row| row.0).collect()
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
    fn what_came_after_a_batch_that_hung_stands() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let (release, released) = crossbeam_channel::bounded::<()>(1);
        let hung = file(&store).engine.start(move |_| released.recv().is_ok());
        for key in ["removed", "changed", "stays"] {
            store.write(Write::put(Table::Hosts, key, &1));
        }
        assert!(matches!(store.commit(at(1)), CommitResult::Failed { .. }));
        store.write(Write::remove(Table::Hosts, "removed"));
        store.write(Write::put(Table::Hosts, "changed", &2));
        assert_eq!((store.commit(at(7)), store.pending()), (CommitResult::StillFailing, 5));
        release.send(()).unwrap();
        assert_eq!(hung.recv(), Ok(true));
        let failed_for = Duration::from_secs(7);
        assert_eq!(store.commit_now(at(8)), CommitResult::Recovered { failed_for });
        let expected = [("changed".to_owned(), 2), ("stays".to_owned(), 1)];
        assert_eq!((store.read::<i32>(Table::Hosts), store.pending()), (expected.into(), 0));
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
    fn a_disk_that_hung_while_the_rows_were_read_made_the_daemon_begin_with_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &1));
        store.write(Write::put(Table::Outbox, "1", &1));
        store.commit(at(1));
        drop(store);
        let mut store = open(directory.path());
        let (release, released) = crossbeam_channel::bounded::<()>(1);
        let hung = file(&store).reader.start(move |()| released.recv().is_ok());
        assert_eq!(store.read::<i32>(Table::Hosts), []);
        assert_eq!(store.get::<i32>(Table::Outbox, "1"), None);
        release.send(()).unwrap();
        assert_eq!(hung.recv(), Ok(true));
        store.write(Write::remove(Table::Hosts, "web1"));
        store.write(Write::put(Table::Outbox, "2", &2));
        let failed_for = Duration::ZERO;
        assert_eq!(store.commit(at(2)), CommitResult::RecoveredUnread { failed_for });
        assert_eq!(store.read::<i32>(Table::Hosts), [("web1".into(), 1)]);
        assert_eq!(store.rows(Table::Outbox).len(), 2);
        assert_eq!(store.commit(at(100)), CommitResult::Committed);
    }

    #[test]
    fn what_an_earlier_version_wrote_after_a_downgrade_was_called_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let rows = [Table::Hosts, Table::Meta, Table::Outbox, Table::Metrics, Table::Events];
        rows.into_iter().for_each(|table| store.write(Write::put(table, "1", &1)));
        store.commit(at(1));
        drop(store);
        let file = redb::Database::create(directory.path().join(FILE_NAME)).unwrap();
        let transaction = file.begin_write().unwrap();
        for table in rows {
            let mut rows = transaction.open_table(table.definition()).unwrap();
            rows.insert("2", b"2".as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(file);
        for _ in 0..2 {
            let mut store = open(directory.path());
            assert_eq!(store.take_reports(), []);
            let [counted, measured] = history_bytes(&store);
            assert_eq!(counted, measured);
            for table in rows {
                let found = store.read::<i32>(table);
                let own = |(key, _): &(String, i32)| key == "1" || key == "2";
                assert_eq!(found.into_iter().filter(own).count(), 2, "{table:?}");
            }
        }
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

    #[test]
    fn what_is_counted_of_the_history_is_what_a_file_that_is_opened_has() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.limit_history(HistoryLimit { max_bytes: 20_000, is_minor: |_| false });
        for second in 1..50 {
            for table in [Table::Events, Table::Metrics, Table::Hours, Table::Hosts] {
                store.write(Write::put(table, format!("{second:03}"), &"x".repeat(200)));
                store.write(Write::put(table, "again", &"x".repeat(second as usize)));
            }
            store.write(Write::remove(Table::Events, format!("{:03}", second - 2)));
            assert_eq!(store.commit(at(second)), CommitResult::Committed);
        }
        let [counted, measured] = history_bytes(&store);
        assert_eq!(counted, measured);
        drop(store);
        assert_eq!(history_bytes(&open(directory.path())), [counted; 2]);
        assert!(counted.of(Table::Events) > 0 && counted.of(Table::Hosts) == 0);
    }

    /// What the open file takes its history for, and what that is.
    pub(super) fn history_bytes(store: &Store) -> [history_limit::HistoryBytes; 2] {
        let look = |engine: &mut Engine| {
            let file = engine.file.as_ref()?;
            Some([file.history.bytes, file::history_bytes(&file.database).unwrap()])
        };
        file(store).engine.ask(PATIENCE, look).flatten().unwrap()
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
            store.write(Write::put(Table::Events, format!("{number:05}"), &"x".repeat(985)));
        }
        assert_eq!(store.commit(at(1)), CommitResult::Committed);
        assert_eq!(history_rows(&store), 6000);
        store.limit_history(limit(1_000_000));
        let mut left = vec![6000];
        for second in 2..10 {
            store.write(Write::put(Table::Meta, "n", &second));
            assert_eq!(store.commit(at(second)), CommitResult::Committed);
            left.push(history_rows(&store));
            if second == 4 {
                // What there is, is counted anew.
                drop(store);
                store = open(directory.path());
                store.limit_history(limit(1_000_000));
            }
        }
        assert_eq!(left[..3], [6000, 5000, 4000]);
        assert!((900..=1000).contains(left.last().unwrap()), "{left:?}");
        assert_eq!(store.rows(Table::Events).last().unwrap().0, "05999");
    }
}
