//! The redb file: verified before anything is written to it, opened, read and written so that a
//! damaged one is an error and never a panic.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use log::error;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::check;
use super::directory::identity;
use super::history_limit::{HistoryBytes, HistoryLimit};
use super::position::{Position, STORE_KEY, position_of};
use super::storage::FileStorage;
use super::table::{RawRow, Rows, Table, rows_of};
use super::trim::Trimmer;
use crate::clock::Wall;
use crate::event::StoreFileEvent;
use crate::thread::ProgressCounter;

/// redb's default is sized for databases, not for a small box.
const CACHE_BYTES: usize = 1 << 20;
/// The row of [`Table::Meta`] with what people must be told of the file.
pub(super) const UNTOLD_KEY: &str = "untold";
/// The row with [`HistoryBytes`], as of the same commit.
const HISTORY_KEY: &str = "history_bytes";
/// Of redb's file: what each commit changes.
const HEADER_LENGTH: usize = 320;
/// How many rows are read at a time.
const ROWS_PER_READ: usize = 1000;

/// Why the database cannot be opened.
pub(super) enum OpenError {
    /// The disk or the system says no; the file may be sound.
    Unavailable(String),
    /// The file is not a sound database.
    Corrupt(String),
}

/// A database that is closed when it is dropped, even if redb asserts on what it finds then.
pub(super) struct OpenDatabase(Option<Database>);

impl From<Database> for OpenDatabase {
    fn from(database: Database) -> OpenDatabase {
        OpenDatabase(Some(database))
    }
}

impl Deref for OpenDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let database = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// An open database, and the file that it is in.
pub(super) struct StateFile {
    pub(super) database: OpenDatabase,
    pub(super) position: Position,
    pub(super) history: Trimmer,
    backend: FileStorage,
    header: [u8; HEADER_LENGTH],
}

/// A file that was read and verified, and not written to yet.
pub(super) struct Verified {
    database: OpenDatabase,
    backend: FileStorage,
    own: OwnRows,
}

/// What the rows of a file say of it.
#[derive(Default)]
struct OwnRows {
    /// Which commit it is; none in a file of an earlier version, whose rows have no checks.
    position: Option<Position>,
    /// What was found earlier and not told yet.
    untold: Vec<StoreFileEvent>,
    /// None where the file does not say.
    history: Option<HistoryBytes>,
    /// How many rows have no check, and are right.
    unchecked: usize,
}

/// Opens a file and verifies it: every page, and every row of the state. A row of the history has its
/// check looked at when it is read.
pub(super) fn verify(path: &Path, progress: &ProgressCounter) -> Result<Verified, OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(unavailable)?;
    let backend = FileStorage::held(file, progress.clone()).map_err(unavailable)?;
    verify_backend(backend)
}

/// The same for a file that can only be read: what is written to it stays in memory.
pub(super) fn verify_read_only(
    path: &Path,
    progress: &ProgressCounter,
) -> Result<Verified, OpenError> {
    let file = File::open(path).map_err(unavailable)?;
    let backend = FileStorage::read_only(file, progress.clone()).map_err(unavailable)?;
    verify_backend(backend)
}

fn verify_backend(backend: FileStorage) -> Result<Verified, OpenError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        builder.create_with_backend(backend.clone()).map_err(classify_error)
    }));
    let database = OpenDatabase::from(opened.unwrap_or_else(|_| broken())?);
    let own = catch_unwind(AssertUnwindSafe(|| verify_rows(&database)));
    Ok(Verified { database, backend, own: own.unwrap_or_else(|_| broken())? })
}

const BROKEN_PAGES: &str = "its pages are broken";

fn broken<T>() -> Result<T, OpenError> {
    Err(OpenError::Corrupt(BROKEN_PAGES.into()))
}

/// Reads every row of the state, and what the file says of itself. The history is read as well where
/// nothing says how much that is.
fn verify_rows(database: &Database) -> Result<OwnRows, OpenError> {
    let (mut right, mut wrong, mut own) = (0, 0, OwnRows::default());
    // Not all of it is JSON: the other tables tell what it is.
    let (mut history_wrong, mut counted) = (0, HistoryBytes::default());
    let transaction = database.begin_read().map_err(classify_error)?;
    for table in Table::ALL {
        // The first table says it, and the pages are right.
        if table.is_history() && own.history.is_some() {
            continue;
        }
        let rows = match transaction.open_table(table.definition()) {
            Ok(rows) => rows,
            Err(redb::TableError::TableDoesNotExist(_)) => continue,
            Err(why) => return Err(classify_error(why)),
        };
        for row in rows.iter().map_err(classify_error)? {
            let (key, stored) = row.map_err(classify_error)?;
            counted.replace(table, key.value(), None, Some(stored.value().len()));
            match check::open(table, key.value(), stored.value()) {
                Some(value) => {
                    right += 1;
                    match (table, key.value()) {
                        (Table::Meta, STORE_KEY) => own.position = position_of(value),
                        (Table::Meta, HISTORY_KEY) => {
                            own.history = serde_json::from_slice(value).ok();
                        }
                        (Table::Meta, UNTOLD_KEY) => {
                            own.untold = serde_json::from_slice(value).unwrap_or_default();
                        }
                        _ => {}
                    }
                }
                // The page is right: an earlier version wrote it, to a file that had checks already.
                None if table.is_history() => history_wrong += 1,
                None if is_json(stored.value()) => own.unchecked += 1,
                None => wrong += 1,
            }
        }
    }
    own.history.get_or_insert(counted);
    if own.unchecked == 0 {
        wrong += history_wrong;
    }
    match (wrong, &own.position) {
        (0, Some(_)) => Ok(own),
        (_, None) if right == 0 => Ok(own),
        (wrong, _) => Err(OpenError::Corrupt(format!("{wrong} of its rows are damaged"))),
    }
}

fn is_json(stored: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(stored).is_ok()
}

impl Verified {
    /// Which commit it is; none in a file of an earlier version.
    pub(super) fn position(&self) -> Option<&Position> {
        self.own.position.as_ref()
    }

    /// What was found earlier and not told yet.
    pub(super) fn untold(&self) -> Vec<StoreFileEvent> {
        self.own.untold.clone()
    }

    /// Goes on with the file: from now on it is written to.
    pub(super) fn adopt(self, known: Option<&Position>) -> Result<StateFile, String> {
        let Verified { database, backend, own } = self;
        backend.release().map_err(|why| why.to_string())?;
        if let (Some(position), Some(bytes), 0) = (&own.position, own.history, own.unchecked) {
            return StateFile::new(database, backend, position.clone(), bytes);
        }
        let position = own.position.unwrap_or_else(|| Position::first(known));
        seal_rows(&database, &position)?;
        StateFile::measured(database, backend, position)
    }

    /// Goes on in memory with a file that cannot be written.
    pub(super) fn into_copy(self) -> Option<(OpenDatabase, Option<Position>)> {
        let OwnRows { position, unchecked, .. } = self.own;
        if position.is_none() || unchecked > 0 {
            let first = || Position::first(None);
            seal_rows(&self.database, &position.clone().unwrap_or_else(first)).ok()?;
        }
        Some((self.database, position))
    }
}

/// Gives every row that an earlier version wrote its check, all in one transaction.
fn seal_rows(database: &Database, position: &Position) -> Result<(), String> {
    catch_panics(|| {
        let transaction = database.begin_write()?;
        for table in Table::ALL {
            let mut rows = transaction.open_table(table.definition())?;
            let mut from = String::new();
            loop {
                let some: Result<Vec<RawRow>, redb::StorageError> = rows
                    .range(from.as_str()..)?
                    .take(ROWS_PER_READ)
                    .map(|row| row.map(|(key, value)| (key.value().into(), value.value().into())))
                    .collect();
                let some = some?;
                for (key, value) in &some {
                    if check::open(table, key, value).is_some() {
                        continue;
                    }
                    rows.insert(key.as_str(), check::seal(table, key, value).as_slice())?;
                }
                let Some((last, _)) = some.last() else { break };
                from = format!("{last}\0");
            }
        }
        write_position(&transaction, position)?;
        Ok(transaction.commit()?)
    })
}

/// Writes what a file whose rows did not come one by one says of itself: how much history it has is to
/// be measured.
fn write_position(
    transaction: &redb::WriteTransaction,
    position: &Position,
) -> Result<(), redb::Error> {
    transaction.open_table(Table::Meta.definition())?.remove(HISTORY_KEY)?;
    write_own(transaction, STORE_KEY, position)
}

/// Writes what the file says of itself.
pub(super) fn write_own(
    transaction: &redb::WriteTransaction,
    key: &str,
    value: &impl serde::Serialize,
) -> Result<(), redb::Error> {
    let row = serde_json::to_vec(value).expect("rows are plain data with text keys");
    let mut meta = transaction.open_table(Table::Meta.definition())?;
    meta.insert(key, check::seal(Table::Meta, key, &row).as_slice())?;
    Ok(())
}

impl StateFile {
    fn new(
        database: OpenDatabase,
        backend: FileStorage,
        position: Position,
        history: HistoryBytes,
    ) -> Result<StateFile, String> {
        let (history, header) = (Trimmer::new(history), [0; HEADER_LENGTH]);
        let mut file = StateFile { database, history, backend, position, header };
        file.header = file.read_header()?;
        Ok(file)
    }

    /// One whose history is measured first.
    fn measured(
        database: OpenDatabase,
        backend: FileStorage,
        position: Position,
    ) -> Result<StateFile, String> {
        let history = catch_panics(|| history_bytes(&database))?;
        StateFile::new(database, backend, position, history)
    }

    /// Makes a new file in the place of one that is not there or empty. `fill` writes its first
    /// rows.
    pub(super) fn create(
        path: &Path,
        position: Position,
        progress: &ProgressCounter,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
        before: impl FnOnce() -> io::Result<()>,
    ) -> Result<StateFile, String> {
        // A half-made file would look like a damaged one.
        let made = with_suffix(path, ".new");
        let _ = fs::remove_file(&made);
        let result =
            create_file(&made, &position, progress, fill).and_then(|(database, backend)| {
                let renamed = before().and_then(|()| fs::rename(&made, path));
                renamed.map_err(|why| why.to_string())?;
                let _ = path.parent().map(|directory| File::open(directory)?.sync_all());
                StateFile::measured(database, backend, position)
            });
        if result.is_err() {
            let _ = fs::remove_file(&made);
        }
        result
    }

    fn read_header(&self) -> Result<[u8; HEADER_LENGTH], String> {
        let mut header = [0; HEADER_LENGTH];
        let read = self.backend.file().read_exact_at(&mut header, 0);
        read.map_err(|why| why.to_string())?;
        Ok(header)
    }

    /// Whether the file is still what lies at `path`, and as the last commit left it; else why not.
    pub(super) fn is_in_place(&self, path: &Path) -> Result<(), String> {
        match (self.backend.file().metadata(), fs::metadata(path)) {
            (Ok(ours), Ok(there)) if identity(&ours) == identity(&there) => {}
            (_, Err(why)) if why.kind() == io::ErrorKind::NotFound => {
                return Err("it is gone".into());
            }
            (Ok(_), Ok(_)) => return Err("another file lies in its place".into()),
            (Err(why), _) | (_, Err(why)) => return Err(why.to_string()),
        }
        match self.read_header() {
            Ok(header) if header == self.header => Ok(()),
            _ => Err("it was overwritten".into()),
        }
    }

    /// Ends without another write to the file.
    pub(super) fn abandon(self) {
        self.backend.cut();
    }

    /// Writes rows in one transaction, and removes what the history has too much of then. After an
    /// error the file is to be opened anew.
    pub(super) fn write(&mut self, rows: &Rows, limit: Option<HistoryLimit>) -> Result<(), String> {
        let next =
            Position { id: self.position.id.clone(), commit: self.position.commit.wrapping_add(1) };
        catch_panics(|| {
            let transaction = self.database.begin_write()?;
            write_rows(&transaction, rows, &mut self.history.bytes)?;
            if let Some(limit) = &limit {
                let excess = self.history.excess_rows(&transaction, limit, rows)?;
                write_rows(&transaction, &excess, &mut self.history.bytes)?;
            }
            write_own(&transaction, STORE_KEY, &next)?;
            write_own(&transaction, HISTORY_KEY, &self.history.bytes)?;
            Ok(transaction.commit()?)
        })?;
        self.position = next;
        self.header = self.read_header()?;
        Ok(())
    }
}

fn create_file(
    path: &Path,
    position: &Position,
    progress: &ProgressCounter,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(OpenDatabase, FileStorage), String> {
    let make = || {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let backend = FileStorage::held(file, progress.clone())?;
        backend.release()?;
        Ok(backend)
    };
    let backend = make().map_err(|why: io::Error| why.to_string())?;
    let made = catch_unwind(AssertUnwindSafe(|| {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend.clone())
            .map_err(|why| why.to_string())?;
        let database = OpenDatabase::from(database);
        fill_database(&database, position, fill)?;
        Ok(database)
    }));
    made.unwrap_or_else(|_| Err(BROKEN_PAGES.into())).map(|database| (database, backend))
}

/// Makes every table, and the first rows.
pub(super) fn fill_database(
    database: &Database,
    position: &Position,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), String> {
    catch_panics(|| {
        let transaction = database.begin_write()?;
        for table in Table::ALL {
            transaction.open_table(table.definition())?;
        }
        fill(&transaction)?;
        write_position(&transaction, position)?;
        Ok(transaction.commit()?)
    })
}

pub(super) fn history_bytes(database: &Database) -> Result<HistoryBytes, redb::Error> {
    let transaction = database.begin_read()?;
    HistoryBytes::measured(|table| match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        rows => Ok(rows?.stats()?.stored_bytes()),
    })
}

fn write_rows(
    transaction: &redb::WriteTransaction,
    rows: &Rows,
    bytes: &mut HistoryBytes,
) -> Result<(), redb::Error> {
    for table in Table::ALL {
        let mut of_table = rows_of(rows, table);
        let Some(first) = of_table.next() else { continue };
        let mut open = transaction.open_table(table.definition())?;
        for (key, value) in std::iter::once(first).chain(of_table) {
            let sealed = value.as_ref().map(|value| check::seal(table, key, value));
            let old = match &sealed {
                Some(sealed) => open.insert(key.as_str(), sealed.as_slice())?,
                None => open.remove(key.as_str())?,
            };
            let old = old.map(|old| old.value().len());
            bytes.replace(table, key, old, sealed.map(|sealed| sealed.len()));
        }
    }
    Ok(())
}

/// The value of a stored row; none, with a line in the log, when it is damaged.
pub(super) fn value_of(table: Table, key: &str, stored: &[u8]) -> Option<Vec<u8>> {
    let value = check::open(table, key, stored);
    if value.is_none() {
        error!("the store's {table:?} row {key} is damaged and ignored");
    }
    value.map(<[u8]>::to_vec)
}

fn unavailable(why: io::Error) -> OpenError {
    OpenError::Unavailable(why.to_string())
}

fn classify_error(why: impl Into<redb::Error>) -> OpenError {
    match why.into() {
        redb::Error::Io(why) if why.kind() == io::ErrorKind::InvalidData => {
            OpenError::Corrupt(why.to_string())
        }
        redb::Error::Io(why) if why.kind() == io::ErrorKind::UnexpectedEof => {
            OpenError::Corrupt("it ends too early".into())
        }
        redb::Error::Io(why) => OpenError::Unavailable(why.to_string()),
        redb::Error::PreviousIo => OpenError::Unavailable("an earlier write failed".into()),
        redb::Error::DatabaseAlreadyOpen => {
            OpenError::Unavailable("another process has the file open".into())
        }
        why => OpenError::Corrupt(why.to_string()),
    }
}

/// redb asserts on some damaged pages; a damaged file must not take the daemon down.
pub(super) fn catch_panics<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|why| why.to_string()),
        Err(_) => Err(BROKEN_PAGES.into()),
    }
}

/// The name under which a file is kept that cannot be gone on with; `what` says why.
pub(super) fn moved_aside_name(path: &Path, what: &str) -> PathBuf {
    let now: Wall = std::time::SystemTime::now().into();
    let stamp = now.to_string().replace([':', '.'], "-");
    let aside = with_suffix(path, &format!(".{what}-{stamp}"));
    // Never over another one.
    let numbered = (2..).map(|number| with_suffix(&aside, &format!("-{number}")));
    let mut names = std::iter::once(aside.clone()).chain(numbered);
    names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
