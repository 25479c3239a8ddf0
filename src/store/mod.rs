//! The state on disk: one redb file, one transaction for all that belongs together.
//!
//! What cannot be written is kept and written later: a full disk delays durability, it does not
//! lose what the daemon still knows. Rows are JSON under text keys,
//! but for those of which there are too many.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{debug, error, info, warn};
use redb::{Database, ReadableDatabase};

use crate::clock::Now;

pub mod change;
mod file;
mod snapshot;
mod table;

pub use self::change::{Change, ChangeSink};
pub use self::snapshot::Snapshot;
pub use self::table::{Table, Write};

use self::file::{
    Unopened, aside_name, copy_in_memory, guarded, lock, make_private, newest_rows, oldest_keys,
    open_database, read_row, read_table, write_rows,
};

/// The file in the state directory.
pub const FILE: &str = "heartbeat.redb";
const LOCK: &str = "hbd.lock";
const RETRY: Duration = Duration::from_secs(5);
/// Rows of history that wait for a disk to heal; older ones give way.
const HISTORY_WAITING: usize = 10_000;

/// Why the daemon must not start on this state directory.
#[derive(Debug)]
pub struct Held {
    /// A sentence that names the directory and who holds it.
    pub why: String,
}

/// What happened while the store was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is there and readable, or new.
    Ready,
    /// It could not be read and was moved aside; a new one was begun.
    MovedAside { why: String, to: String },
    /// It cannot be opened now; it is tried again at every commit.
    Refused { why: String },
}

/// What a commit did.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    /// All that was waiting is on disk.
    Stored,
    /// As before, nothing is on disk yet; the next try comes later.
    StillRefused,
    /// The disk began to refuse.
    Refused { why: String },
    /// The disk takes writes again, and has everything.
    Healed { refused_for: Duration },
    /// The disk takes writes again, and what was there before the start can be read only now. What
    /// waited to be sent was added to it; the rest of it is not known to us and was left alone.
    Unread { refused_for: Duration },
    /// The disk takes writes again but the old file is gone or unreadable: everything that is
    /// known must be given to it anew.
    Emptied { refused_for: Duration },
}

/// The store of one daemon.
pub struct Store {
    directory: PathBuf,
    // Held for its lock; a lock that could not be taken yet is taken when the disk heals.
    lock: Option<File>,
    database: Option<Database>,
    // What the file held when it could be read but not written: the state goes on from there.
    copy: Option<Database>,
    // There was a file at the start, and it could not be read.
    unread: bool,
    waiting: BTreeMap<(Table, String), Option<Vec<u8>>>,
    refused: Option<Refused>,
}

struct Refused {
    since: Now,
    next: Now,
}

impl Store {
    /// Opens the store in `directory`, which is made when it is missing.
    ///
    /// # Errors
    /// When another daemon holds it. Everything else (no such disk, damaged, read-only) is
    /// survived and told in [`Opened`].
    pub fn open(directory: &Path, now: Now) -> Result<(Store, Opened), Held> {
        let mut store = Store {
            directory: directory.to_owned(),
            lock: None,
            database: None,
            copy: None,
            unread: false,
            waiting: BTreeMap::new(),
            refused: None,
        };
        let opened = match store.reach()? {
            Ok(None) => Opened::Ready,
            Ok(Some((why, to))) => Opened::MovedAside { why, to },
            Err(why) => {
                store.refused = Some(Refused { since: now, next: now.later(RETRY) });
                let path = directory.join(FILE);
                store.copy = copy_in_memory(&path);
                store.unread = store.copy.is_none() && fs::symlink_metadata(&path).is_ok();
                Opened::Refused { why }
            }
        };
        Ok((store, opened))
    }

    /// Makes the directory, takes the lock, opens the file; says where an unreadable one went.
    #[allow(clippy::type_complexity, reason = "held, refused and moved aside are three matters")]
    fn reach(&mut self) -> Result<Result<Option<(String, String)>, String>, Held> {
        if self.lock.is_none() {
            if let Err(why) = make_private(&self.directory) {
                return Ok(Err(format!("{} cannot be made: {why}", self.directory.display())));
            }
            match lock(&self.directory)? {
                Ok(file) => self.lock = Some(file),
                Err(why) => return Ok(Err(why)),
            }
        }
        let path = self.directory.join(FILE);
        match open_database(&path) {
            Ok(database) => {
                self.database = Some(database);
                Ok(Ok(None))
            }
            Err(Unopened::Refused(why)) => Ok(Err(format!("{}: {why}", path.display()))),
            Err(Unopened::Damaged(why)) => Ok(self.begin_anew(&path, why)),
        }
    }

    fn begin_anew(&mut self, path: &Path, why: String) -> Result<Option<(String, String)>, String> {
        let aside = aside_name(path);
        fs::rename(path, &aside).map_err(|rename| {
            format!("{} is unreadable ({why}) and cannot be moved aside: {rename}", path.display())
        })?;
        error!("{} could not be read ({why}); it is kept as {}", path.display(), aside.display());
        match open_database(path) {
            Ok(database) => {
                self.database = Some(database);
                Ok(Some((why, aside.display().to_string())))
            }
            Err(Unopened::Refused(why) | Unopened::Damaged(why)) => {
                Err(format!("{}: {why}", path.display()))
            }
        }
    }

    fn readable(&self) -> Option<&Database> {
        self.database.as_ref().or(self.copy.as_ref())
    }

    /// Every row of a table, by key. Empty while the store cannot be read.
    pub fn rows(&self, table: Table) -> Vec<(String, Vec<u8>)> {
        let Some(database) = self.readable() else { return Vec::new() };
        match guarded(|| read_table(database, table)) {
            Ok(rows) => rows,
            Err(why) => {
                error!("the store's {table:?} cannot be read: {why}");
                Vec::new()
            }
        }
    }

    /// Every row of a table that is what it should be. A row that is not is left and said.
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

    /// One row, if it is there and what it should be.
    pub fn get<T: serde::de::DeserializeOwned>(&self, table: Table, key: &str) -> Option<T> {
        let database = self.readable()?;
        let bytes = guarded(|| read_row(database, table, key)).unwrap_or_else(|why| {
            error!("the store's {table:?} row {key} cannot be read: {why}");
            None
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|why| error!("the store's {table:?} row {key} is damaged and ignored: {why}"))
            .ok()
    }

    /// At most `count` rows of a table, those with the greatest keys below `before` first. What
    /// waits for a commit is among them.
    pub fn newest(
        &self,
        table: Table,
        before: Option<&str>,
        count: usize,
    ) -> Vec<(String, Vec<u8>)> {
        let mut rows = BTreeMap::new();
        if let Some(database) = &self.database {
            match guarded(|| newest_rows(database, table, before, count)) {
                Ok(stored) => rows.extend(stored),
                Err(why) => error!("the store's {table:?} cannot be read: {why}"),
            }
        }
        for ((of, key), value) in self.waiting.range((table, String::new())..) {
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

    /// What is on disk at this moment, for a thread that has time to read it; none while the disk
    /// refuses.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let database = self.database.as_ref().filter(|_| self.refused.is_none())?;
        guarded(|| Ok(database.begin_read()?)).map(Snapshot::new).ok()
    }

    /// The keys of the oldest rows of a table beyond the newest `kept`.
    pub fn oldest(&self, table: Table, kept: usize) -> Vec<String> {
        let Some(database) = &self.database else { return Vec::new() };
        guarded(|| oldest_keys(database, table, kept)).unwrap_or_else(|why| {
            warn!("the store's {table:?} cannot be counted: {why}");
            Vec::new()
        })
    }

    /// Lets a row wait for the next commit.
    pub fn write(&mut self, write: Write) {
        self.waiting.insert((write.table, write.key), write.value);
    }

    /// Whether the disk refused at the last try.
    pub fn refuses(&self) -> bool {
        self.refused.is_some()
    }

    /// When a refused commit is tried again.
    pub fn next_try(&self) -> Option<Now> {
        self.refused.as_ref().map(|refused| refused.next)
    }

    /// Writes everything that waits, in one transaction with one fsync. While the disk refuses,
    /// it is tried again every few seconds only.
    pub fn commit(&mut self, now: Now) -> Committed {
        if self.refused.as_ref().is_some_and(|refused| now.mono < refused.next.mono) {
            return Committed::StillRefused;
        }
        self.commit_now(now)
    }

    /// The same, however lately the disk refused: the last chance before the end.
    pub fn commit_now(&mut self, now: Now) -> Committed {
        if self.waiting.is_empty() && self.refused.is_none() {
            return Committed::Stored;
        }
        let reached = if self.database.is_some() { Ok(false) } else { self.reach_again() };
        if reached.is_ok() && self.unread {
            self.waiting.retain(|(table, _), _| table.only_grows());
        }
        match reached.and_then(|emptied| self.write_waiting().map(|()| emptied)) {
            Ok(emptied) => self.stored(emptied, now),
            Err(why) => self.refuse(why, now),
        }
    }

    fn stored(&mut self, emptied: bool, now: Now) -> Committed {
        self.waiting.clear();
        self.copy = None;
        let unread = std::mem::take(&mut self.unread);
        let Some(refused) = self.refused.take() else { return Committed::Stored };
        let refused_for = now.mono.since(refused.since.mono);
        info!("{} takes writes again", self.directory.display());
        match (emptied, unread) {
            (true, _) => Committed::Emptied { refused_for },
            (false, true) => Committed::Unread { refused_for },
            (false, false) => Committed::Healed { refused_for },
        }
    }

    /// How many rows wait for the disk.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Opens the file anew after a failure; true when what is there now is an empty one.
    fn reach_again(&mut self) -> Result<bool, String> {
        let was_there = self.directory.join(FILE).exists();
        match self.reach() {
            Ok(Ok(moved)) => Ok(moved.is_some() || !was_there),
            Ok(Err(why)) => Err(why),
            Err(held) => Err(held.why),
        }
    }

    fn write_waiting(&self) -> Result<(), String> {
        let database = self.database.as_ref().ok_or("the file is not open")?;
        guarded(|| write_rows(database, &self.waiting))
    }

    fn refuse(&mut self, why: String, now: Now) -> Committed {
        // redb refuses everything after an I/O error until the file is opened anew.
        self.database = None;
        self.forget_old_history();
        let next = now.later(RETRY);
        if let Some(refused) = &mut self.refused {
            refused.next = next;
            debug!("the store still refuses: {why}");
            return Committed::StillRefused;
        }
        warn!("{} refuses to be written: {why}", self.directory.display());
        self.refused = Some(Refused { since: now, next });
        Committed::Refused { why }
    }

    fn forget_old_history(&mut self) {
        for table in Table::ALL.into_iter().filter(|table| table.is_past()) {
            let rows = self.waiting.range((table, String::new())..);
            let keys: Vec<_> =
                rows.map(|(key, _)| key).take_while(|key| key.0 == table).cloned().collect();
            let excess = keys.len().saturating_sub(HISTORY_WAITING);
            for key in &keys[..excess] {
                self.waiting.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Wall};

    fn at(seconds: i64) -> Now {
        Now { mono: Mono(seconds * 1000), wall: Wall(1_800_000_000_000 + seconds * 1000) }
    }

    fn open(directory: &Path) -> Store {
        let (store, opened) = Store::open(directory, at(0)).unwrap();
        assert_eq!(opened, Opened::Ready);
        store
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &1));
        store.write(Write::put(Table::Hosts, "web2", &2));
        assert_eq!(store.commit(at(1)), Committed::Stored);
        store.write(Write::remove(Table::Hosts, "web1"));
        assert_eq!(store.commit(at(2)), Committed::Stored);
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
        assert_eq!(store.commit(at(1)), Committed::Stored);
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
        let path = directory.path().join(FILE);
        for junk in [vec![0u8; 0], b"junk".to_vec(), vec![7u8; 100_000]] {
            fs::write(&path, &junk).unwrap();
            let (mut store, opened) = Store::open(directory.path(), at(0)).unwrap();
            if junk.is_empty() {
                // redb takes an empty file for a new one.
                assert_eq!(opened, Opened::Ready);
            } else {
                let Opened::MovedAside { to, .. } = opened else { panic!("{opened:?}") };
                assert_eq!(fs::read(to).unwrap(), junk);
            }
            store.write(Write::put(Table::Hosts, "web1", &1));
            assert_eq!(store.commit(at(1)), Committed::Stored);
        }
    }

    #[test]
    fn a_store_with_broken_pages_never_takes_the_daemon_down() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut store = open(directory.path());
        for n in 0..2000 {
            store.write(Write::put(Table::Hosts, format!("host{n}"), &"x".repeat(100)));
        }
        assert_eq!(store.commit(at(1)), Committed::Stored);
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
        // A file where the directory should be: nobody, not even root, can write below it.
        fs::write(&state, "").unwrap();
        let (mut store, opened) = Store::open(&state, at(0)).unwrap();
        assert!(matches!(opened, Opened::Refused { .. }));
        store.write(Write::put(Table::Hosts, "web1", &1));
        assert_eq!(store.commit(at(1)), Committed::StillRefused);
        fs::remove_file(&state).unwrap();
        assert_eq!(store.commit(at(2)), Committed::StillRefused, "not before its time");
        let healed = store.commit(at(6));
        assert_eq!(healed, Committed::Emptied { refused_for: Duration::from_secs(6) });
        assert_eq!(store.read::<i32>(Table::Hosts), [("web1".into(), 1)]);
    }

    #[test]
    fn a_store_that_can_only_be_read_is_gone_on_from() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &1));
        store.commit(at(1));
        drop(store);
        // A directory where the lock should be: nobody, not even root, can open it for writing.
        let lock = directory.path().join(LOCK);
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        let (mut store, opened) = Store::open(directory.path(), at(2)).unwrap();
        assert!(matches!(opened, Opened::Refused { .. }), "{opened:?}");
        assert_eq!(store.read::<i32>(Table::Hosts), [("web1".into(), 1)]);
        fs::remove_dir(&lock).unwrap();
        store.write(Write::put(Table::Hosts, "web2", &2));
        assert!(matches!(store.commit(at(8)), Committed::Healed { .. }));
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
}
