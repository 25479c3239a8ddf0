//! How full a filesystem is, from statvfs(3).

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::disks::Disk;
use super::metric_name::{percent, round_hundredths};

// Where a plain one has 32 bits, large disks do not fit into it.
#[cfg(not(target_env = "gnu"))]
use libc::statvfs as statvfs64;
#[cfg(target_env = "gnu")]
use libc::statvfs64;

/// How full a disk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskUsage {
    /// The used share of what programs can use, as df(1) counts it: the blocks that only root may take
    /// count on neither side.
    pub percent: f64,
    /// What programs can still use, in bytes.
    pub free: f64,
    /// The used share; none where the filesystem has no fixed number of inodes.
    pub inodes: Option<f64>,
}

/// The numbers of statvfs(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemStats {
    /// Its number (stat(2)).
    pub device: u64,
    /// Bytes of a block.
    pub unit: u64,
    /// All blocks.
    pub blocks: u64,
    /// Those that are free.
    pub free: u64,
    /// Those of them that programs may take.
    pub available: u64,
    /// All inodes.
    pub inodes: u64,
    /// Those that are free.
    pub free_inodes: u64,
}

impl FilesystemStats {
    /// How full it is; none where it has no size.
    pub fn usage(&self) -> Option<DiskUsage> {
        let share = |used: u64, left: u64| {
            let total = used as f64 + left as f64;
            (total > 0.0).then(|| round_hundredths(percent(used as f64, total)))
        };
        let available = self.available();
        let used = self.blocks.saturating_sub(self.free);
        Some(DiskUsage {
            percent: share(used, available)?,
            free: available as f64 * self.unit as f64,
            inodes: share(self.inodes.saturating_sub(self.free_inodes), self.free_inodes)
                .filter(|_| self.inodes > 0),
        })
    }

    /// Some filesystems give out what they owe as an enormous unsigned number.
    fn available(&self) -> u64 {
        if self.available > self.blocks { 0 } else { self.available }
    }

    /// What programs can still use, in bytes.
    pub fn available_bytes(&self) -> u64 {
        self.available().saturating_mul(self.unit)
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.unit)
    }

    /// Those of filesystems that take their space from the same place: what is used by each, and what
    /// is left to all, as the first one says.
    pub fn sum(all: &[FilesystemStats]) -> Option<FilesystemStats> {
        let first = all.first()?;
        let bytes = |blocks: u64, of: &FilesystemStats| blocks.saturating_mul(of.unit);
        let used = |of: &FilesystemStats| bytes(of.blocks.saturating_sub(of.free), of);
        let used_inodes = |of: &FilesystemStats| of.inodes.saturating_sub(of.free_inodes);
        let free = bytes(first.free, first);
        Some(FilesystemStats {
            device: first.device,
            unit: 1,
            blocks: all.iter().map(used).fold(free, u64::saturating_add),
            free,
            available: first.available_bytes(),
            inodes: all.iter().map(used_inodes).fold(first.free_inodes, u64::saturating_add),
            free_inodes: first.free_inodes,
        })
    }
}

fn statvfs(point: &Path, device: u64) -> io::Result<FilesystemStats> {
    let path = CString::new(point.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<statvfs64>::uninit();
    // SAFETY: the path ends with a nul byte, and the structure is written when 0 is returned.
    let found = unsafe {
        if statvfs64(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "the fields are narrower on some targets")]
    Ok(FilesystemStats {
        device,
        unit: found.f_frsize as u64,
        blocks: found.f_blocks as u64,
        free: found.f_bfree as u64,
        available: found.f_bavail as u64,
        inodes: found.f_files as u64,
        free_inodes: found.f_ffree as u64,
    })
}

/// Reads a disk at its first mount point that is a directory: a single file that is mounted is no disk.
/// The error is why it cannot be read.
pub fn read_stats(disk: &Disk) -> Option<Result<FilesystemStats, String>> {
    let mut refused = None;
    for point in &disk.points {
        match fs::metadata(point).and_then(|data| match data.is_dir() {
            true => statvfs(point, data.dev()).map(Some),
            false => Ok(None),
        }) {
            Ok(Some(stats)) => return Some(Ok(stats)),
            Ok(None) => {}
            Err(why) if why.kind() == ErrorKind::NotFound => {
                refused.get_or_insert("another mount hides it".to_owned());
            }
            Err(why) => drop(refused.get_or_insert(why.to_string())),
        }
    }
    refused.map(Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: FilesystemStats = FilesystemStats {
        device: 1,
        unit: 4096,
        blocks: 1000,
        free: 300,
        available: 250,
        inodes: 100,
        free_inodes: 60,
    };

    #[test]
    fn what_only_root_may_take_counts_on_neither_side() {
        let usage = EXT4.usage().unwrap();
        assert_eq!((usage.percent, usage.free), (73.68, 250.0 * 4096.0));
        assert_eq!(usage.inodes, Some(40.0));
    }

    #[test]
    fn a_disk_without_a_fixed_number_of_inodes_has_no_share_of_them() {
        assert_eq!(
            FilesystemStats { inodes: 0, free_inodes: 0, ..EXT4 }.usage().unwrap().inodes,
            None
        );
    }

    #[test]
    fn odd_numbers_give_no_nonsense() {
        assert_eq!(FilesystemStats { blocks: 0, free: 0, available: 0, ..EXT4 }.usage(), None);
        let owing = FilesystemStats { free: 0, available: u64::MAX - 5, ..EXT4 }.usage().unwrap();
        assert_eq!((owing.percent, owing.free), (100.0, 0.0));
        let odd = FilesystemStats { free: 5000, free_inodes: 5000, ..EXT4 }.usage().unwrap();
        assert_eq!((odd.percent, odd.inodes), (0.0, Some(0.0)));
    }

    #[test]
    fn a_file_that_is_mounted_is_no_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let disk = |points: &[&Path]| Disk {
            points: points.iter().map(|point| point.to_path_buf()).collect(),
            ..Disk::default()
        };
        assert_eq!(read_stats(&disk(&[file.path()])), None);
        assert!(read_stats(&disk(&[file.path(), folder.path()])).unwrap().is_ok());
    }

    #[test]
    fn a_disk_that_another_mount_hides_was_missing_without_a_word() {
        let disk = Disk { points: vec!["/nonexistent".into()], ..Disk::default() };
        assert_eq!(read_stats(&disk), Some(Err("another mount hides it".into())));
    }
}
