//! The redb file: opened, verified, read and written so that a damaged one is an error and never a
//! panic. And its directory: private, and locked by one daemon at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
};

use super::history_limit::{BYTES_KEY, HistoryBytes, PendingRows};
use super::table::{RawRow, Table};
use crate::clock::Wall;

/// redb's default is sized for databases, not for a small box.
const CACHE_BYTES: usize = 1 << 20;

/// The file whose lock says that a daemon uses the directory.
pub(super) const LOCK_NAME: &str = "hbd.lock";

/// Another daemon holds the lock of the state directory.
#[derive(Debug)]
pub struct LockError {
    /// A sentence that names the directory and the process that holds it.
    pub why: String,
}

/// Why the database cannot be opened.
pub(super) enum OpenError {
    /// The disk or the system says no; the file may be sound.
    Unavailable(String),
    /// The file is not a sound database.
    Corrupt(String),
}

pub(super) fn open_database(path: &Path) -> Result<Database, OpenError> {
    let existed = path.exists();
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database =
            Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(classify_error)?;
        if existed {
            verify_rows(&database)?
        } else {
            create_tables(&database)?
        }
        Ok(database)
    }));
    let result = opened.unwrap_or_else(|_| Err(OpenError::Corrupt("its pages are broken".into())));
    if result.is_ok() && !existed {
        make_file_private(path).map_err(|why| OpenError::Unavailable(why.to_string()))?;
    }
    if !existed && result.is_err() {
        // A half-made file of a full disk would look like a damaged one next time.
        let _ = fs::remove_file(path);
    }
    result
}

/// The file as it stands, opened in memory: on a read-only disk it cannot even be repaired.
pub(super) fn load_into_memory(path: &Path) -> Option<Database> {
    let bytes = fs::read(path).ok()?;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let backend = InMemoryBackend::new();
        backend.set_len(bytes.len() as u64).and_then(|()| backend.write(0, &bytes)).ok()?;
        let database =
            Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).ok()?;
        verify_rows(&database).ok()?;
        Some(database)
    }));
    opened.ok().flatten()
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

/// Reads every row that the daemon works with: a broken page is better found now than at the first
/// alarm.
fn verify_rows(database: &Database) -> Result<(), OpenError> {
    for table in Table::ALL.into_iter().filter(|table| !table.is_history()) {
        let transaction = database.begin_read().map_err(classify_error)?;
        match transaction.open_table(table.definition()) {
            Ok(rows) => {
                for row in rows.iter().map_err(classify_error)? {
                    row.map_err(classify_error)?;
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(why) => return Err(classify_error(why)),
        }
    }
    Ok(())
}

fn create_tables(database: &Database) -> Result<(), OpenError> {
    let transaction = database.begin_write().map_err(classify_error)?;
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(classify_error)?;
    }
    transaction.commit().map_err(classify_error)
}

pub(super) fn read_table(database: &Database, table: Table) -> Result<Vec<RawRow>, redb::Error> {
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

pub(super) fn read_row(
    database: &Database,
    table: Table,
    key: &str,
) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        rows => Ok(rows?.get(key)?.map(|value| value.value().to_owned())),
    }
}

pub(super) fn newest_rows(
    database: &Database,
    table: Table,
    before: Option<&str>,
    count: usize,
) -> Result<Vec<RawRow>, redb::Error> {
    let transaction = database.begin_read()?;
    let rows = match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        rows => rows?,
    };
    let range = match before {
        Some(before) => rows.range(..before)?,
        None => rows.iter()?,
    };
    range
        .rev()
        .take(count)
        .map(|row| {
            let (key, value) = row?;
            Ok((key.value().to_owned(), value.value().to_owned()))
        })
        .collect()
}

/// How many bytes the rows of the history have: as it is stored, or counted where it is not.
pub(super) fn history_bytes(database: &Database) -> Result<HistoryBytes, redb::Error> {
    let stored = read_row(database, Table::Meta, BYTES_KEY)?;
    if let Some(bytes) = stored.as_deref().and_then(HistoryBytes::decode) {
        return Ok(bytes);
    }
    let transaction = database.begin_read()?;
    HistoryBytes::measured(|table| match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        rows => Ok(rows?.stats()?.stored_bytes()),
    })
}

/// Visits the rows of a table from a key on, until `visit` has seen enough.
pub(super) fn scan_rows(
    database: &Database,
    table: Table,
    from: &str,
    mut visit: impl FnMut(&str, &[u8]) -> bool,
) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    let rows = match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        rows => rows?,
    };
    for row in rows.range(from..)? {
        let (key, value) = row?;
        if !visit(key.value(), value.value()) {
            break;
        }
    }
    Ok(())
}

/// Writes rows in one transaction; how many bytes of history there are then.
pub(super) fn write_rows(
    database: &Database,
    rows: &PendingRows,
    before: HistoryBytes,
) -> Result<HistoryBytes, redb::Error> {
    let transaction = database.begin_write()?;
    let mut bytes = before;
    for table in Table::ALL {
        let mut of_table = rows.range((table, String::new())..).take_while(|row| row.0.0 == table);
        let Some(first) = of_table.next() else { continue };
        let mut open = transaction.open_table(table.definition())?;
        for ((_, key), value) in std::iter::once(first).chain(of_table) {
            let old = match value {
                Some(value) => open.insert(key.as_str(), value.as_slice())?,
                None => open.remove(key.as_str())?,
            };
            let old = old.map(|old| old.value().len());
            bytes.replace(table, key, old, value.as_ref().map(Vec::len));
        }
    }
    if bytes != before {
        let mut meta = transaction.open_table(Table::Meta.definition())?;
        meta.insert(BYTES_KEY, bytes.encode().as_slice())?;
    }
    transaction.commit()?;
    Ok(bytes)
}

/// redb asserts on some damaged pages; a damaged file must not take the daemon down.
pub(super) fn catch_panics<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|why| why.to_string()),
        Err(_) => Err("its pages are broken".into()),
    }
}

fn make_file_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

pub(super) fn make_directory_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Takes the lock on the directory: held while the file lives, gone with the process.
pub(super) fn lock_directory(directory: &Path) -> Result<Result<File, String>, LockError> {
    let path = directory.join(LOCK_NAME);
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
            return Err(LockError {
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

pub(super) fn moved_aside_name(path: &Path) -> PathBuf {
    let now: Wall = std::time::SystemTime::now().into();
    let stamp = now.to_string().replace([':', '.'], "-");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{stamp}"));
    PathBuf::from(name)
}
