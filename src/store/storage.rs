//! The file below redb. What redb writes is held back in memory until the file has been verified: a
//! damaged one is not touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::thread::{ProgressCounter, lock};

const PAGE: usize = 4096;

/// What becomes of what redb writes.
#[derive(Debug)]
enum Mode {
    /// It stays in memory: the length of the file, and its changed pages.
    Held { length: u64, pages: BTreeMap<u64, Vec<u8>> },
    /// It goes to the file.
    Live,
    /// It goes nowhere: the file is another's now.
    Cut,
}

/// The file of one database. Cloned: all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct FileStorage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    /// Takes the locks of redb on the file; none on a file that cannot be written.
    locks: Option<FileBackend>,
    mode: Mutex<Mode>,
    progress: ProgressCounter,
}

impl FileStorage {
    /// A file to which nothing is written before [`FileStorage::release`].
    pub(super) fn held(file: File, progress: ProgressCounter) -> io::Result<FileStorage> {
        let locks = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
        FileStorage::new(file, Some(locks), progress)
    }

    /// A file that can only be read.
    pub(super) fn read_only(file: File, progress: ProgressCounter) -> io::Result<FileStorage> {
        FileStorage::new(file, None, progress)
    }

    fn new(
        file: File,
        locks: Option<FileBackend>,
        progress: ProgressCounter,
    ) -> io::Result<FileStorage> {
        let length = file.metadata()?.len();
        let mode = Mutex::new(Mode::Held { length, pages: BTreeMap::new() });
        Ok(FileStorage(Arc::new(Inner { file, locks, mode, progress })))
    }

    /// Writes what was held back, and from now on everything at once. The header comes last: it
    /// says that the other pages are there.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut mode = lock(&self.0.mode);
        let Mode::Held { length, pages } = &*mode else { return Ok(()) };
        if self.0.file.metadata()?.len() != *length {
            self.0.file.set_len(*length)?;
        }
        for (number, page) in pages.iter().rev() {
            if *number == 0 {
                self.0.file.sync_data()?;
            }
            let offset = number * PAGE as u64;
            let end = usize::try_from(length - offset).unwrap_or(PAGE).min(PAGE);
            self.0.file.write_all_at(&page[..end], offset)?;
            self.0.progress.increment();
        }
        if !pages.is_empty() {
            self.0.file.sync_data()?;
        }
        *mode = Mode::Live;
        Ok(())
    }

    /// Writes nothing to the file any more, not even when the database is closed.
    pub(super) fn cut(&self) {
        *lock(&self.0.mode) = Mode::Cut;
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.0.file
    }

    fn live<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let result = work(&self.0.file);
        self.0.progress.increment();
        result
    }
}

fn cut() -> io::Error {
    io::Error::other("the file was replaced")
}

/// Calls `each` with the page, the place in it, and the part of a transfer that belongs there.
fn for_each_page(
    offset: u64,
    length: usize,
    mut each: impl FnMut(u64, usize, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let start = (at % PAGE as u64) as usize;
        let count = (PAGE - start).min(length - done);
        each(at / PAGE as u64, start, done..done + count);
        done += count;
    }
}

/// Reads what the file has, with zeros beyond its end.
fn read_padded(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    let in_file = file.metadata()?.len().saturating_sub(offset);
    let count = usize::try_from(in_file).unwrap_or(usize::MAX).min(out.len());
    file.read_exact_at(&mut out[..count], offset)?;
    out[count..].fill(0);
    Ok(())
}

impl StorageBackend for FileStorage {
    fn len(&self) -> io::Result<u64> {
        match &*lock(&self.0.mode) {
            Mode::Held { length, .. } => return Ok(*length),
            Mode::Cut => return Err(cut()),
            Mode::Live => {}
        }
        self.live(|file| Ok(file.metadata()?.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        {
            let mode = lock(&self.0.mode);
            match &*mode {
                Mode::Held { length, pages } => {
                    if offset + out.len() as u64 > *length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.live(|file| read_padded(file, out, offset))?;
                    for_each_page(offset, out.len(), |number, start, part| {
                        if let Some(page) = pages.get(&number) {
                            let count = part.len();
                            out[part].copy_from_slice(&page[start..start + count]);
                        }
                    });
                    return Ok(());
                }
                Mode::Cut => return Err(cut()),
                Mode::Live => {}
            }
        }
        self.live(|file| file.read_exact_at(out, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *lock(&self.0.mode) {
            Mode::Held { length, pages } => {
                *length = len;
                pages.retain(|number, _| number * (PAGE as u64) < len);
                return Ok(());
            }
            Mode::Cut => return Err(cut()),
            Mode::Live => {}
        }
        self.live(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        match &*lock(&self.0.mode) {
            Mode::Held { .. } => return Ok(()),
            Mode::Cut => return Err(cut()),
            Mode::Live => {}
        }
        self.live(File::sync_data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *lock(&self.0.mode) {
            Mode::Held { pages, .. } => {
                let mut result = Ok(());
                for_each_page(offset, data.len(), |number, start, part| {
                    if let std::collections::btree_map::Entry::Vacant(entry) = pages.entry(number) {
                        let mut page = vec![0; PAGE];
                        match read_padded(&self.0.file, &mut page, number * PAGE as u64) {
                            Ok(()) => drop(entry.insert(page)),
                            Err(why) => return result = Err(why),
                        }
                    }
                    if let Some(page) = pages.get_mut(&number) {
                        page[start..start + part.len()].copy_from_slice(&data[part]);
                    }
                });
                return result;
            }
            Mode::Cut => return Err(cut()),
            Mode::Live => {}
        }
        self.live(|file| file.write_all_at(data, offset))
    }

    fn close(&self) -> io::Result<()> {
        self.0.locks.as_ref().map_or(Ok(()), FileBackend::close)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        match &self.0.locks {
            Some(locks) => locks.try_lock_range(start, end),
            None => Err(BackendError::Unsupported),
        }
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        match &self.0.locks {
            Some(locks) => locks.unlock_range(start, end),
            None => Err(BackendError::Unsupported),
        }
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        match &self.0.locks {
            Some(locks) => locks.query_lock_range(start, end),
            None => Err(BackendError::Unsupported),
        }
    }
}
