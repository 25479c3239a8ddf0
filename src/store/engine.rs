//! What the thread `store` owns: the directory's lock and the open file. It opens, writes, and finds
//! out when the file is no longer the one that it wrote.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{error, info, warn};
use redb::backends::InMemoryBackend;
use redb::{Builder, ReadTransaction, ReadableDatabase};

use super::check;
use super::directory::{DirectoryLock, LockError, make_directory_private};
use super::file::{
    OpenDatabase, OpenError, StateFile, UNTOLD_KEY, catch_panics, fill_database, moved_aside_name,
    verify, verify_read_only, write_own,
};
use super::history_limit::{HistoryBytes, HistoryLimit};
use super::position::{Position, is_behind};
use super::salvage::{Losses, Salvage};
use super::table::{Rows, Table};
use super::{FILE_NAME, OpenResult};
use crate::btree::InsertAll;
use crate::event::{MAX_LISTED, StoreFileEvent};
use crate::thread::ProgressCounter;

/// So many lost rows have a line in the log each.
const MAX_LOGGED: usize = 200;

/// The engine's state; one thread owns it.
pub(super) struct Engine {
    directory: PathBuf,
    progress: ProgressCounter,
    /// One that could not be taken yet is taken when the disk works.
    lock: Option<DirectoryLock>,
    pub(super) file: Option<StateFile>,
    /// A copy in memory of a file that can be read but not written.
    copy: Option<OpenDatabase>,
    /// The last commit that this process knows to be on disk, or read from it.
    last: Option<Position>,
}

/// One transaction.
pub(super) struct Batch {
    pub(super) rows: Arc<Rows>,
    /// How much history is left.
    pub(super) limit: Option<HistoryLimit>,
    /// Nothing was decided from what the file held at the start: only rows of tables that only grow
    /// may be written to it.
    pub(super) unread: bool,
}

/// What opening the file, or writing to it, brought about.
#[derive(Default)]
pub(super) struct Done {
    /// The file has none of what this process knows from before.
    pub(super) fresh: bool,
    /// What people must be told.
    pub(super) reports: Vec<StoreFileEvent>,
}

/// What the first opening brought about.
pub(super) struct Opened {
    pub(super) result: OpenResult,
    pub(super) done: Done,
    /// What is on disk could be read, or there is nothing.
    pub(super) read: bool,
}

impl Engine {
    /// The engine of the store in `directory`, which is not opened yet.
    pub(super) fn new(directory: &Path, progress: ProgressCounter) -> Engine {
        let directory = directory.to_owned();
        Engine { directory, progress, lock: None, file: None, copy: None, last: None }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// Opens the store for the first time.
    pub(super) fn open(&mut self) -> Result<Opened, LockError> {
        let opened = match self.open_file()? {
            Ok(done) => {
                let moved = done.reports.iter().find_map(|report| match report {
                    StoreFileEvent::MovedAside { why, to } => Some((why.clone(), to.clone())),
                    _ => None,
                });
                let result =
                    moved.map_or(OpenResult::Ready, |(why, to)| OpenResult::MovedAside { why, to });
                Opened { result, done, read: true }
            }
            Err(why) => {
                let done = Done { reports: self.open_copy(), fresh: false };
                let missing = || fs::symlink_metadata(self.path()).is_err_and(is_missing);
                let read = self.copy.is_some() || missing();
                Opened { result: OpenResult::Failed { why }, done, read }
            }
        };
        Ok(opened)
    }

    /// Takes what can be read of a file that cannot be written.
    fn open_copy(&mut self) -> Vec<StoreFileEvent> {
        let path = self.path();
        match verify_read_only(&path, &self.progress) {
            Ok(verified) => {
                if let Some((database, position)) = verified.into_copy() {
                    (self.copy, self.last) = (Some(database), position);
                }
                Vec::new()
            }
            Err(OpenError::Unavailable(_)) => Vec::new(),
            Err(OpenError::Corrupt(why)) => self.copy_salvaged(&path, &why).unwrap_or_default(),
        }
    }

    fn copy_salvaged(&mut self, path: &Path, why: &str) -> Option<Vec<StoreFileEvent>> {
        let file = File::open(path).ok()?;
        let salvage = Salvage::open(&file)?;
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).ok()?;
        let position = salvage.position().cloned();
        let first = position.clone().unwrap_or_else(|| Position::first(None));
        let mut losses = Losses::default();
        let fill = |transaction: &redb::WriteTransaction| {
            write_salvaged(&salvage, &mut losses, transaction)
        };
        fill_database(&database, &first, fill).ok()?;
        log_lost(&losses.rows);
        (self.copy, self.last) = (Some(database.into()), position);
        Some(vec![damaged(losses, why, path)])
    }

    /// Makes the directory, takes the lock, opens the file.
    fn open_file(&mut self) -> Result<Result<Done, String>, LockError> {
        if self.lock.as_ref().is_some_and(|lock| !lock.is_in_place()) {
            self.lock = None;
        }
        if self.lock.is_none() {
            if let Err(why) = make_directory_private(&self.directory) {
                return Ok(Err(format!("{} cannot be made: {why}", self.directory.display())));
            }
            match DirectoryLock::take(&self.directory)? {
                Ok(lock) => self.lock = Some(lock),
                Err(why) => return Ok(Err(why)),
            }
        }
        let done = self.open_locked();
        if let (Ok(_), Some(file)) = (&done, &self.file) {
            self.last = Some(file.position.clone());
            self.copy = None;
        }
        Ok(done)
    }

    fn open_locked(&mut self) -> Result<Done, String> {
        let path = self.path();
        let unavailable = |why| format!("{}: {why}", path.display());
        match fs::metadata(&path) {
            Ok(there) if there.is_file() && there.len() == 0 => return self.begin("it is empty"),
            Ok(_) => {}
            Err(why) if is_missing(&why) => return self.begin("it is gone"),
            Err(why) => return Err(unavailable(why.to_string())),
        }
        let verified = match verify(&path, &self.progress) {
            Ok(verified) => verified,
            Err(OpenError::Unavailable(why)) => return Err(unavailable(why)),
            Err(OpenError::Corrupt(why)) => return self.rebuild(&why),
        };
        let known = self.known();
        let behind = is_behind(verified.position(), known.as_ref());
        if behind && has_newer(&path, known.as_ref()) {
            drop(verified);
            return self.rebuild("its last commit is damaged");
        }
        if behind && self.last.is_some() {
            drop(verified);
            return self.set_aside("another file lies in its place");
        }
        let mut reports = verified.untold();
        if behind {
            reports.extend(self.reports_behind(verified.position()));
        }
        self.file = Some(verified.adopt(known.as_ref()).map_err(unavailable)?);
        Ok(Done { fresh: false, reports })
    }

    /// The last commit that is known, from this life of the daemon or from the note.
    fn known(&self) -> Option<Position> {
        let noted = self.lock.as_ref().and_then(DirectoryLock::noted);
        self.last.as_ref().or(noted).cloned()
    }

    fn reports_behind(&self, found: Option<&Position>) -> Vec<StoreFileEvent> {
        let Some(known) = self.known() else { return Vec::new() };
        let what = match found {
            Some(found) if found.id == known.id => {
                let missing = known.commit.saturating_sub(found.commit);
                format!("the last {missing} changes that were written are not in it")
            }
            _ => "it is not the one that hbd wrote last".to_owned(),
        };
        vec![StoreFileEvent::Behind { what }]
    }

    /// Begins a new file where there is none.
    fn begin(&mut self, why: &str) -> Result<Done, String> {
        let known = self.known();
        let reports = match (&self.last, &known) {
            (Some(_), _) => vec![StoreFileEvent::Replaced { why: why.to_owned(), kept: None }],
            (None, Some(_)) => vec![StoreFileEvent::Behind { what: why.to_owned() }],
            (None, None) => Vec::new(),
        };
        self.create(reports)
    }

    fn create(&mut self, reports: Vec<StoreFileEvent>) -> Result<Done, String> {
        let (path, position) = (self.path(), Position::first(self.known().as_ref()));
        let fill = |transaction: &redb::WriteTransaction| keep_untold(transaction, &reports);
        let file = StateFile::create(&path, position, &self.progress, fill, || Ok(()));
        self.file = Some(file.map_err(|why| format!("{}: {why}", path.display()))?);
        Ok(Done { fresh: true, reports })
    }

    /// Keeps a file that is not ours under another name, and begins a new one.
    fn set_aside(&mut self, why: &str) -> Result<Done, String> {
        let aside = self.rename_aside("replaced", why)?;
        warn!("{} was replaced ({why}); what lay there is kept as {aside}", self.path().display());
        self.create(vec![StoreFileEvent::Replaced { why: why.to_owned(), kept: Some(aside) }])
    }

    fn rename_aside(&self, what: &str, why: &str) -> Result<String, String> {
        let path = self.path();
        let aside = moved_aside_name(&path, what);
        fs::rename(&path, &aside).map_err(|rename| {
            format!("{} is unusable ({why}) and cannot be moved aside: {rename}", path.display())
        })?;
        Ok(aside.display().to_string())
    }

    /// Writes what can be read of a damaged file into a new one. The damaged one is kept as it is.
    fn rebuild(&mut self, why: &str) -> Result<Done, String> {
        let path = self.path();
        let file = File::open(&path).map_err(|why| format!("{}: {why}", path.display()))?;
        let Some(salvage) = Salvage::open(&file) else { return self.replace_unreadable(why) };
        let known = self.known();
        let found = salvage.position();
        let behind = is_behind(found, known.as_ref());
        if behind && self.last.is_some() {
            return self.set_aside("a damaged file lies in its place");
        }
        let newer = found.into_iter().chain(&known).max_by_key(|position| position.commit);
        let position = Position::first(newer);
        let aside = moved_aside_name(&path, "damaged");
        let keep = || fs::hard_link(&path, &aside).or_else(|_| fs::rename(&path, &aside));
        let mut reports = if behind { self.reports_behind(found) } else { Vec::new() };
        // What this process knows of its state is written anew in any case.
        let (fresh, mut losses) =
            (self.last.is_some(), Losses::of_history_only(self.last.is_some()));
        let mut lost = Vec::new();
        let fill = |transaction: &redb::WriteTransaction| {
            write_salvaged(&salvage, &mut losses, transaction)?;
            lost.clone_from(&losses.rows);
            reports.push(damaged(std::mem::take(&mut losses), why, &aside));
            keep_untold(transaction, &reports)
        };
        let file = StateFile::create(&path, position, &self.progress, fill, keep);
        self.file = Some(file.map_err(|why| {
            format!("{} is damaged and cannot be written anew: {why}", path.display())
        })?);
        error!("{} is damaged ({why}); it is kept as {}", path.display(), aside.display());
        log_lost(&lost);
        Ok(Done { fresh, reports })
    }

    fn replace_unreadable(&mut self, why: &str) -> Result<Done, String> {
        let aside = self.rename_aside("damaged", why)?;
        error!("{} could not be read ({why}); it is kept as {aside}", self.path().display());
        let why = why.to_owned();
        self.create(vec![match self.last {
            Some(_) => StoreFileEvent::Replaced { why, kept: Some(aside) },
            None => StoreFileEvent::MovedAside { why, to: aside },
        }])
    }

    /// Writes a batch in one transaction with one fsync, into the file that is in its place.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Done, String> {
        let result = self.try_commit(batch);
        if result.is_err() {
            // redb refuses everything after an I/O error until the file is opened anew.
            self.file = None;
        }
        result
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<Done, String> {
        self.leave_what_is_not_in_place();
        let is_open = self.file.is_some();
        let done = match is_open {
            true => Done::default(),
            false => self.open_file().unwrap_or_else(|held| Err(held.why))?,
        };
        let file = self.file.as_mut().ok_or("the file is not open")?;
        if batch.unread && !done.fresh {
            let rows = batch.rows.iter().filter(|((table, _), _)| table.is_append_only());
            file.write(&rows.map(|(key, value)| (key.clone(), value.clone())).insert_all(), None)?;
        } else if !is_open || !batch.rows.is_empty() {
            file.write(&batch.rows, batch.limit)?;
        }
        self.last = Some(file.position.clone());
        self.note();
        Ok(done)
    }

    /// Closes a file, and gives up a lock, that the directory does not have any more.
    fn leave_what_is_not_in_place(&mut self) {
        let path = self.path();
        let Some(file) = self.file.take() else { return };
        let locked = self.lock.as_ref().is_some_and(DirectoryLock::is_in_place);
        match file.is_in_place(&path) {
            Ok(()) if locked => self.file = Some(file),
            Ok(()) => info!("{} has another lock file now", self.directory.display()),
            Err(why) => {
                warn!("{} is not what hbd wrote any more: {why}", path.display());
                file.abandon();
            }
        }
    }

    fn note(&self) {
        if let (Some(lock), Some(file)) = (&self.lock, &self.file) {
            lock.note(&file.position);
        }
    }

    /// What is on disk at this moment, and how much history that is; of a copy in memory only where
    /// `or_copy`.
    pub(super) fn begin_read(&self, or_copy: bool) -> Option<(ReadTransaction, HistoryBytes)> {
        let file = self.file.as_ref().map(|file| (&file.database, file.history.bytes));
        let copy = self.copy.as_ref().filter(|_| or_copy);
        let (database, bytes) = file.or(copy.map(|copy| (copy, HistoryBytes::default())))?;
        catch_panics(|| Ok(database.begin_read()?)).ok().map(|transaction| (transaction, bytes))
    }
}

/// Whether a file in which redb finds an older commit only has the last one as well, damaged.
fn has_newer(path: &Path, known: Option<&Position>) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let salvage = Salvage::open(&file);
    !is_behind(salvage.as_ref().and_then(Salvage::position), known)
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing is written to another's file at the end either.
        self.leave_what_is_not_in_place();
    }
}

fn is_missing(why: impl std::borrow::Borrow<std::io::Error>) -> bool {
    why.borrow().kind() == std::io::ErrorKind::NotFound
}

fn write_salvaged(
    salvage: &Salvage,
    losses: &mut Losses,
    transaction: &redb::WriteTransaction,
) -> Result<(), redb::Error> {
    for table in Table::ALL {
        let mut rows = transaction.open_table(table.definition())?;
        let mut result = Ok(());
        salvage.read(table, losses, |key, value| {
            if result.is_ok() {
                let stored = check::seal(table, key, value);
                result = rows.insert(key, stored.as_slice()).map(drop);
            }
        });
        result?;
    }
    Ok(())
}

/// Stores what is not told yet with the file that was begun because of it.
fn keep_untold(
    transaction: &redb::WriteTransaction,
    reports: &[StoreFileEvent],
) -> Result<(), redb::Error> {
    if reports.is_empty() {
        return Ok(());
    }
    write_own(transaction, UNTOLD_KEY, &reports)
}

/// Only once the new file is there: that may be tried again and again.
fn log_lost(rows: &[String]) {
    let logged = rows.len().min(MAX_LOGGED);
    rows[..logged].iter().for_each(|row| error!("lost from the damaged store: {row}"));
    if logged < rows.len() {
        error!("lost from the damaged store: {} more", rows.len() - logged);
    }
}

fn damaged(losses: Losses, why: &str, kept: &Path) -> StoreFileEvent {
    let Losses { mut rows, count, uncounted, alerts, .. } = losses;
    rows.truncate(MAX_LISTED);
    StoreFileEvent::Damaged {
        rows,
        count,
        uncounted: uncounted.into_iter().map(str::to_owned).collect(),
        alerts,
        why: why.to_owned(),
        kept: kept.display().to_string(),
    }
}
