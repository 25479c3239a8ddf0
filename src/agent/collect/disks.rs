//! How full the disks are, from statvfs(3).

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mounts::{self, Disk};
use super::probe::Probe;
use crate::agent::name::{hundredths, percent};

// Where a plain one has 32 bits, large disks do not fit into it.
#[cfg(not(target_env = "gnu"))]
use libc::statvfs as statvfs64;
#[cfg(target_env = "gnu")]
use libc::statvfs64;

/// How full a disk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// Of what programs can use, as df(1) counts it: the blocks that only root may take count on
    /// neither side.
    percent: f64,
    /// What is left for programs, in bytes.
    free: f64,
    /// None where the filesystem has no fixed number of inodes.
    inodes: Option<f64>,
}

/// The numbers of statvfs(3).
struct Numbers {
    unit: u64,
    blocks: u64,
    free: u64,
    available: u64,
    inodes: u64,
    free_inodes: u64,
}

impl Numbers {
    fn fill(&self) -> Option<Fill> {
        let share = |used: u64, left: u64| {
            let total = used as f64 + left as f64;
            (total > 0.0).then(|| hundredths(percent(used as f64, total)))
        };
        // Some filesystems give out what they owe as an enormous unsigned number.
        let available = if self.available > self.blocks { 0 } else { self.available };
        let used = self.blocks.saturating_sub(self.free);
        Some(Fill {
            percent: share(used, available)?,
            free: available as f64 * self.unit as f64,
            inodes: share(self.inodes.saturating_sub(self.free_inodes), self.free_inodes)
                .filter(|_| self.inodes > 0),
        })
    }
}

fn numbers(point: &Path) -> Option<Numbers> {
    let path = CString::new(point.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<statvfs64>::uninit();
    // SAFETY: the path ends with a nul byte, and the structure is written when 0 is returned.
    let found = unsafe {
        if statvfs64(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "the fields are narrower on some targets")]
    Some(Numbers {
        unit: found.f_frsize as u64,
        blocks: found.f_blocks as u64,
        free: found.f_bfree as u64,
        available: found.f_bavail as u64,
        inodes: found.f_files as u64,
        free_inodes: found.f_ffree as u64,
    })
}

/// Asked where it is mounted as a directory: a single file that is mounted is no disk.
fn fill(disk: &Disk) -> Option<Fill> {
    let point = disk.0.iter().find(|point| point.is_dir())?;
    numbers(point)?.fill()
}

/// Asks the disks, and waits for none that hangs.
pub struct Disks(Probe<Disk, Fill>);

impl Disks {
    /// None was asked yet.
    pub fn new() -> Disks {
        Disks(Probe::new("the disk at", fill))
    }

    /// The metrics of all disks that answer.
    pub fn ask(&mut self, mountinfo: &[u8], excluded: &[String]) -> Vec<(String, f64)> {
        let disks = mounts::disks(mountinfo, excluded);
        let names = mounts::names(disks.iter().map(Disk::point));
        let mut metrics = Vec::new();
        for (name, fill) in names.iter().zip(self.0.ask(&disks)) {
            let Some(fill) = fill else { continue };
            metrics.push((format!("{name}.percent"), fill.percent));
            metrics.push((format!("{name}.free_bytes"), fill.free));
            metrics.extend(fill.inodes.map(|share| (format!("{name}.inodes_percent"), share)));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: Numbers = Numbers {
        unit: 4096,
        blocks: 1000,
        free: 300,
        available: 250,
        inodes: 100,
        free_inodes: 60,
    };

    #[test]
    fn what_only_root_may_take_counts_on_neither_side() {
        let fill = EXT4.fill().unwrap();
        assert_eq!((fill.percent, fill.free), (73.68, 250.0 * 4096.0));
        assert_eq!(fill.inodes, Some(40.0));
    }

    #[test]
    fn a_disk_without_a_fixed_number_of_inodes_has_no_share_of_them() {
        assert_eq!(Numbers { inodes: 0, free_inodes: 0, ..EXT4 }.fill().unwrap().inodes, None);
    }

    #[test]
    fn odd_numbers_give_no_nonsense() {
        assert_eq!(Numbers { blocks: 0, free: 0, available: 0, ..EXT4 }.fill(), None);
        let owing = Numbers { free: 0, available: u64::MAX - 5, ..EXT4 }.fill().unwrap();
        assert_eq!((owing.percent, owing.free), (100.0, 0.0));
        let odd = Numbers { free: 5000, free_inodes: 5000, ..EXT4 }.fill().unwrap();
        assert_eq!((odd.percent, odd.inodes), (0.0, Some(0.0)));
    }

    #[test]
    fn a_file_that_is_mounted_is_no_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(fill(&Disk(vec![file.path().into()])), None);
        assert!(fill(&Disk(vec![file.path().into(), folder.path().into()])).is_some());
        assert_eq!(fill(&Disk(vec!["/nonexistent".into()])), None);
    }
}
