//! The state on disk: one redb file, one transaction for all that belongs together.
//!
//! What cannot be written is kept and written later: a full disk delays durability, it does not
//! lose what the daemon still knows. Rows are JSON under text keys.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{debug, error, info, warn};
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use crate::clock::{Now, Wall};

/// The file in the state directory.
pub const FILE: &str = "heartbeat.redb";
const LOCK: &str = "hbd.lock";
/// redb's default is sized for databases, not for a small box.
const CACHE_BYTES: usize = 1 << 20;
const RETRY: Duration = Duration::from_secs(5);
/// Rows of history that wait for a disk to heal; older ones give way.
const HISTORY_WAITING: usize = 10_000;

/// What a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The last sign of life of the daemon, the last event number.
    Meta,
    /// Hosts with their connections and alerts, by name.
    Hosts,
    /// Deliveries that wait, by number.
    Outbox,
    /// Open troubles and who was told, by their text.
    Troubles,
    /// Emergencies that nobody acknowledged yet, by channel and receipt.
    Receipts,
    /// Backup alerts that wait for their pipeline.
    Pipelines,
    /// What was sent to whom, by number.
    History,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 7] = [
        Table::Meta,
        Table::Hosts,
        Table::Outbox,
        Table::Troubles,
        Table::Receipts,
        Table::Pipelines,
        Table::History,
    ];

    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Table::Meta => "meta",
            Table::Hosts => "hosts",
            Table::Outbox => "outbox",
            Table::Troubles => "troubles",
            Table::Receipts => "receipts",
            Table::Pipelines => "pipelines",
            Table::History => "history",
        })
    }
}

/// One row to write, or to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: String,
    /// What; none removes the row.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// Stores `value` as JSON.
    pub fn put(table: Table, key: impl Into<String>, value: &impl serde::Serialize) -> Write {
        let value = serde_json::to_vec(value).expect("rows are plain data with text keys");
        Write { table, key: key.into(), value: Some(value) }
    }

    /// Removes a row.
    pub fn remove(table: Table, key: impl Into<String>) -> Write {
        Write { table, key: key.into(), value: None }
    }
}

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
            waiting: BTreeMap::new(),
            refused: None,
        };
        let opened = match store.reach()? {
            Ok(None) => Opened::Ready,
            Ok(Some((why, to))) => Opened::MovedAside { why, to },
            Err(why) => {
                store.refused = Some(Refused { since: now, next: now.later(RETRY) });
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

    /// Every row of a table, by key. Empty while the store cannot be read.
    pub fn rows(&self, table: Table) -> Vec<(String, Vec<u8>)> {
        let Some(database) = &self.database else { return Vec::new() };
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
        let database = self.database.as_ref()?;
        let bytes = guarded(|| read_row(database, table, key)).unwrap_or_else(|why| {
            error!("the store's {table:?} row {key} cannot be read: {why}");
            None
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|why| error!("the store's {table:?} row {key} is damaged and ignored: {why}"))
            .ok()
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

    /// Whether anything waits for a commit.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
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
        if self.waiting.is_empty() && self.refused.is_none() {
            return Committed::Stored;
        }
        let reached = if self.database.is_some() { Ok(false) } else { self.reach_again() };
        match reached.and_then(|emptied| self.write_waiting().map(|()| emptied)) {
            Ok(emptied) => {
                self.waiting.clear();
                match self.refused.take() {
                    None => Committed::Stored,
                    Some(refused) => {
                        let refused_for = now.mono.since(refused.since.mono);
                        info!("{} takes writes again", self.directory.display());
                        if emptied {
                            Committed::Emptied { refused_for }
                        } else {
                            Committed::Healed { refused_for }
                        }
                    }
                }
            }
            Err(why) => self.refuse(why, now),
        }
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
        let history = || (Table::History, String::new())..;
        let excess = self.waiting.range(history()).count().saturating_sub(HISTORY_WAITING);
        let old: Vec<_> =
            self.waiting.range(history()).take(excess).map(|(key, _)| key.clone()).collect();
        for key in old {
            self.waiting.remove(&key);
        }
    }
}

enum Unopened {
    /// The disk or the system says no; the file may be sound.
    Refused(String),
    /// The file is not what it should be.
    Damaged(String),
}

fn open_database(path: &Path) -> Result<Database, Unopened> {
    let existed = path.exists();
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(judged)?;
        if existed {
            check(&database)?
        } else {
            prepare(&database)?
        }
        Ok(database)
    }));
    let result = opened.unwrap_or_else(|_| Err(Unopened::Damaged("its pages are broken".into())));
    if result.is_ok() && !existed {
        private(path).map_err(|why| Unopened::Refused(why.to_string()))?;
    }
    if !existed && result.is_err() {
        // A half-made file of a full disk would look like a damaged one next time.
        let _ = fs::remove_file(path);
    }
    result
}

fn judged(why: impl Into<redb::Error>) -> Unopened {
    match why.into() {
        redb::Error::Io(why) if why.kind() == io::ErrorKind::InvalidData => {
            Unopened::Damaged(why.to_string())
        }
        redb::Error::Io(why) if why.kind() == io::ErrorKind::UnexpectedEof => {
            Unopened::Damaged("it ends too early".into())
        }
        redb::Error::Io(why) => Unopened::Refused(why.to_string()),
        redb::Error::PreviousIo => Unopened::Refused("an earlier write failed".into()),
        redb::Error::DatabaseAlreadyOpen => {
            Unopened::Refused("another process has the file open".into())
        }
        why => Unopened::Damaged(why.to_string()),
    }
}

/// Reads everything once: a page that is broken is better found now than at the first alarm.
fn check(database: &Database) -> Result<(), Unopened> {
    for table in Table::ALL {
        let transaction = database.begin_read().map_err(judged)?;
        match transaction.open_table(table.definition()) {
            Ok(rows) => {
                for row in rows.iter().map_err(judged)? {
                    row.map_err(judged)?;
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(why) => return Err(judged(why)),
        }
    }
    Ok(())
}

fn prepare(database: &Database) -> Result<(), Unopened> {
    let transaction = database.begin_write().map_err(judged)?;
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(judged)?;
    }
    transaction.commit().map_err(judged)
}

fn read_table(database: &Database, table: Table) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let rows = match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        rows => rows?,
    };
    let mut all = Vec::new();
    for row in rows.iter()? {
        let (key, value) = row?;
        all.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(all)
}

fn read_row(database: &Database, table: Table, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        rows => Ok(rows?.get(key)?.map(|value| value.value().to_owned())),
    }
}

fn oldest_keys(database: &Database, table: Table, kept: usize) -> Result<Vec<String>, redb::Error> {
    let transaction = database.begin_read()?;
    let rows = match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        rows => rows?,
    };
    let excess = usize::try_from(rows.len()?).unwrap_or(usize::MAX).saturating_sub(kept);
    rows.iter()?.take(excess).map(|row| Ok(row?.0.value().to_owned())).collect()
}

fn write_rows(
    database: &Database,
    rows: &BTreeMap<(Table, String), Option<Vec<u8>>>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        let mut of_table = rows.range((table, String::new())..).take_while(|row| row.0.0 == table);
        let Some(first) = of_table.next() else { continue };
        let mut open = transaction.open_table(table.definition())?;
        for ((_, key), value) in std::iter::once(first).chain(of_table) {
            match value {
                Some(value) => drop(open.insert(key.as_str(), value.as_slice())?),
                None => drop(open.remove(key.as_str())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// redb asserts on some damaged pages; a damaged file must not take the daemon down.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|why| why.to_string()),
        Err(_) => Err("its pages are broken".into()),
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// Takes the lock on the directory: held while the file lives, gone with the process.
fn lock(directory: &Path) -> Result<Result<File, String>, Held> {
    let path = directory.join(LOCK);
    let refused = |why: io::Error| format!("{} cannot be written: {why}", path.display());
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = match opened {
        Ok(file) => file,
        Err(why) => return Ok(Err(refused(why))),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(Held {
                why: format!(
                    "{} is in use by another hbd ({}); stop that one, or give this one a state_dir of its own",
                    directory.display(),
                    if holder.trim().is_empty() { "pid unknown" } else { holder.trim() },
                ),
            });
        }
        Err(fs::TryLockError::Error(why)) => return Ok(Err(refused(why))),
    }
    // The holder's name is a courtesy: a full disk must not keep the lock from being held.
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = writeln!(file, "pid {}", std::process::id());
    Ok(Ok(file))
}

fn aside_name(path: &Path) -> PathBuf {
    let now: Wall = std::time::SystemTime::now().into();
    let stamp = now.to_string().replace([':', '.'], "-");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{stamp}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

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
    fn a_row_that_is_damaged_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store.write(Write::put(Table::Hosts, "web1", &"not a number"));
        store.write(Write::put(Table::Hosts, "web2", &2));
        store.commit(at(1));
        assert_eq!(store.read::<i32>(Table::Hosts), [("web2".into(), 2)]);
    }
}
