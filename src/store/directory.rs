//! The state directory: private, locked by one daemon at a time, and with a note beside the store of
//! how far the store went.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::position::Position;

/// The file whose lock says that a daemon uses the directory.
pub(super) const LOCK_NAME: &str = "hbd.lock";

/// The lock file has two lines: the holder, and from here on the note.
const NOTE_OFFSET: usize = 64;
const NOTE_LENGTH: usize = 64;

/// Another daemon holds the lock of the state directory.
#[derive(Debug)]
pub struct LockError {
    /// A sentence that names the directory and the process that holds it.
    pub why: String,
}

/// The lock of the state directory: held while this lives, gone with the process. Who has it knows that
/// no other daemon of this directory lives.
pub struct DirectoryLock {
    file: File,
    path: PathBuf,
    /// What the note said when the lock was taken.
    noted: Option<Position>,
}

/// Which file it is, whatever its name is.
pub(super) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

pub(super) fn make_directory_private(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

impl DirectoryLock {
    /// Takes the lock of a directory, which is made when it is missing.
    ///
    /// # Errors
    /// A sentence: another daemon holds it, or it cannot be written.
    pub fn hold(directory: &Path) -> Result<DirectoryLock, LockError> {
        DirectoryLock::try_hold(directory)?.map_err(|why| LockError { why })
    }

    /// Takes the lock of a directory, which is made when it is missing; the inner error says why it
    /// cannot be had, while no other daemon is known to have it.
    ///
    /// # Errors
    /// Another daemon holds it.
    pub fn try_hold(directory: &Path) -> Result<Result<DirectoryLock, String>, LockError> {
        if let Err(why) = make_directory_private(directory) {
            return Ok(Err(format!("{} cannot be made: {why}", directory.display())));
        }
        DirectoryLock::take(directory)
    }

    /// Takes the lock; the inner error says why it cannot be had now.
    pub(super) fn take(directory: &Path) -> Result<Result<DirectoryLock, String>, LockError> {
        let path = directory.join(LOCK_NAME);
        let refused = |why: io::Error| format!("{} cannot be written: {why}", path.display());
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(why) => return Ok(Err(refused(why))),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(held_by_another(directory, &file)),
            Err(fs::TryLockError::Error(why)) => return Ok(Err(refused(why))),
        }
        let noted = read_note(&file);
        // The holder's name is a courtesy: a full disk must not keep the lock from being held.
        let mut holder = format!("pid {}", std::process::id());
        holder = format!("{holder:<width$}\n", width = NOTE_OFFSET - 1);
        let _ = file.write_all_at(holder.as_bytes(), 0);
        Ok(Ok(DirectoryLock { file, path, noted }))
    }

    /// The last commit that was noted before the lock was taken; none when that is not known.
    pub(super) fn noted(&self) -> Option<&Position> {
        self.noted.as_ref()
    }

    /// Notes a commit that is on disk. The note itself need not be: after a loss of power it says
    /// less than there is, and never more.
    pub(super) fn note(&self, position: &Position) {
        let text = format!("commit {:020} {}", position.commit, position.id);
        let check = xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32;
        let line = format!("{text} {check:08x}");
        let line = format!("{line:<width$}\n", width = NOTE_LENGTH - 1);
        // Without it nothing is known of the last commit, as after a loss of power.
        let _ = self.file.write_all_at(line.as_bytes(), NOTE_OFFSET as u64);
    }

    /// Whether the locked file is still the one in the directory.
    pub(super) fn is_in_place(&self) -> bool {
        let same = || -> io::Result<bool> {
            Ok(identity(&self.file.metadata()?) == identity(&fs::metadata(&self.path)?))
        };
        same().unwrap_or(false)
    }
}

fn read_note(file: &File) -> Option<Position> {
    let mut note = [0; NOTE_LENGTH];
    file.read_exact_at(&mut note, NOTE_OFFSET as u64).ok()?;
    let line = std::str::from_utf8(&note).ok()?.trim_end();
    let (text, check) = line.rsplit_once(' ')?;
    let sound =
        u32::from_str_radix(check, 16) == Ok(xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32);
    let (commit, id) = text.strip_prefix("commit ").filter(|_| sound)?.split_once(' ')?;
    Some(Position { id: id.to_owned(), commit: commit.parse().ok()? })
}

fn held_by_another(directory: &Path, file: &File) -> LockError {
    let mut line = [0; NOTE_OFFSET];
    let length = file.read_at(&mut line, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&line[..length]);
    let holder = text.lines().next().unwrap_or_default().trim();
    LockError {
        why: format!(
            "{} is in use by another hbd ({}); stop that one, or give this one a state_dir of its own",
            directory.display(),
            if holder.is_empty() { "pid unknown" } else { holder },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_a_damaged_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let position = Position { id: "0123456789abcdef".into(), commit: u64::MAX };
        let take = || DirectoryLock::take(directory.path()).unwrap().unwrap();
        assert_eq!(take().noted(), None);
        take().note(&position);
        assert_eq!(take().noted(), Some(&position));
        let path = directory.path().join(LOCK_NAME);
        let sound = fs::read(&path).unwrap();
        for bit in NOTE_OFFSET * 8..(NOTE_OFFSET + NOTE_LENGTH) * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let taken = take();
            assert!(taken.noted().is_none_or(|noted| *noted == position), "bit {bit}");
        }
        fs::remove_file(&path).unwrap();
        let lock = take();
        assert!(lock.is_in_place());
        fs::remove_file(&path).unwrap();
        assert!(!lock.is_in_place());
    }
}
