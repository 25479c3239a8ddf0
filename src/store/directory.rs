//! The state directory: made private, held by one daemon at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write as _};
use std::path::{Path, PathBuf};

use super::{Held, LOCK};
use crate::clock::Wall;

pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Takes the lock on the directory: held while the file lives, gone with the process.
pub(super) fn lock(directory: &Path) -> Result<Result<File, String>, Held> {
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

pub(super) fn aside_name(path: &Path) -> PathBuf {
    let now: Wall = std::time::SystemTime::now().into();
    let stamp = now.to_string().replace([':', '.'], "-");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{stamp}"));
    PathBuf::from(name)
}
