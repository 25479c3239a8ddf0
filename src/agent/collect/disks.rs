//! Disk usage: the mounts that are disks of this machine, from `/proc/self/mountinfo`
//! (proc_pid_mountinfo(5)), and how full each is, from statvfs(3).

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::metric_name::{matches_pattern, path_label, percent, round_hundredths, unique_segments};
use super::probe::TimedProbe;

// Where a plain one has 32 bits, large disks do not fit into it.
#[cfg(not(target_env = "gnu"))]
use libc::statvfs as statvfs64;
#[cfg(target_env = "gnu")]
use libc::statvfs64;

/// The most disks.
const MAX_DISKS: usize = 32;

/// Filesystems of this machine that have no device under `/dev`.
const WITHOUT_DEVICE: &[&str] = &["zfs", "ubifs", "jffs2"];

/// Archives that are mounted: always full, and nothing to be done about it.
const ARCHIVES: &[&str] = &["squashfs", "iso9660", "udf", "erofs", "cramfs", "romfs"];

/// Filesystems of another machine, which has an agent of its own. A read of one whose server is gone
/// may block for ever.
const REMOTE: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "autofs",
    "beegfs",
];

/// The fields of a mount that matter here.
struct Mount<'a> {
    device: &'a [u8],
    root: &'a [u8],
    point: PathBuf,
    kind: &'a [u8],
    source: &'a [u8],
}

impl Mount<'_> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &[u8]) -> Option<Mount<'_>> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [_, _, device, root, point, _, rest @ ..] = &fields[..] else { return None };
        let end = rest.iter().position(|field| *field == b"-")?;
        let [_, kind, source, ..] = &rest[end..] else { return None };
        let point = PathBuf::from(OsStr::from_bytes(&unescape(point)));
        point.is_absolute().then_some(Mount { device, root, point, kind, source })
    }

    fn is_disk(&self) -> bool {
        let one_of = |kinds: &[&str]| kinds.iter().any(|kind| kind.as_bytes() == self.kind);
        if one_of(ARCHIVES) || one_of(REMOTE) || self.kind.starts_with(b"fuse.") {
            return false;
        }
        // The root of a container or of a live system is an overlay or lies in memory: when it is
        // full, the machine stands all the same.
        one_of(WITHOUT_DEVICE) || self.source.starts_with(b"/dev/") || self.point == Path::new("/")
    }

    /// The order of the mounts of one device, of which the first names it: `/`, then one that shows all of it, then
    /// the shortest.
    fn rank(&self) -> (bool, bool, usize, &Path) {
        let point = &self.point;
        (point != Path::new("/"), self.root != b"/", point.as_os_str().len(), point)
    }
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// A disk: its mount points, the one that names it first. There may be several, because a container
/// has single files mounted, too, which only a look at the filesystem tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk(pub Vec<PathBuf>);

impl Disk {
    /// The mount point that names it.
    pub fn point(&self) -> &Path {
        self.0.first().map_or(Path::new("/"), PathBuf::as_path)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.point().display().fmt(f)
    }
}

/// The disks of this machine, each once however often it is mounted (bind mounts, subvolumes).
fn find_disks(mountinfo: &[u8], excluded: &[String]) -> Vec<Disk> {
    // A later mount at the same point hides the earlier one.
    let mut visible = BTreeMap::new();
    for mount in mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::parse) {
        visible.insert(mount.point.clone(), mount);
    }
    let included = |mount: &Mount| {
        let point = mount.point.to_string_lossy();
        mount.is_disk() && !excluded.iter().any(|pattern| matches_pattern(pattern, &point))
    };
    let mut devices: BTreeMap<&[u8], Vec<Mount>> = BTreeMap::new();
    for mount in visible.into_values().filter(included) {
        devices.entry(mount.device).or_default().push(mount);
    }
    let mut disks: Vec<Disk> = devices
        .into_values()
        .map(|mut mounts| {
            mounts.sort_by(|a, b| a.rank().cmp(&b.rank()));
            Disk(mounts.into_iter().map(|mount| mount.point).collect())
        })
        .collect();
    disks.sort();
    disks.truncate(MAX_DISKS);
    disks
}

/// A segment for each mount point, in order: `/` is `root`, `/var/lib` is `var_lib`.
fn names<'a>(points: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    let plain: Vec<String> =
        points.into_iter().map(|point| path_label(&point.to_string_lossy())).collect();
    unique_segments(plain.iter().map(String::as_str))
}

/// How full a disk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskUsage {
    /// The used share of what programs can use, as df(1) counts it: the blocks that only root may take
    /// count on neither side.
    percent: f64,
    /// What programs can still use, in bytes.
    free: f64,
    /// The used share; none where the filesystem has no fixed number of inodes.
    inodes: Option<f64>,
}

/// The numbers of statvfs(3).
struct FilesystemStats {
    unit: u64,
    blocks: u64,
    free: u64,
    available: u64,
    inodes: u64,
    free_inodes: u64,
}

impl FilesystemStats {
    fn usage(&self) -> Option<DiskUsage> {
        let share = |used: u64, left: u64| {
            let total = used as f64 + left as f64;
            (total > 0.0).then(|| round_hundredths(percent(used as f64, total)))
        };
        // Some filesystems give out what they owe as an enormous unsigned number.
        let available = if self.available > self.blocks { 0 } else { self.available };
        let used = self.blocks.saturating_sub(self.free);
        Some(DiskUsage {
            percent: share(used, available)?,
            free: available as f64 * self.unit as f64,
            inodes: share(self.inodes.saturating_sub(self.free_inodes), self.free_inodes)
                .filter(|_| self.inodes > 0),
        })
    }
}

fn statvfs(point: &Path) -> Option<FilesystemStats> {
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
    Some(FilesystemStats {
        unit: found.f_frsize as u64,
        blocks: found.f_blocks as u64,
        free: found.f_bfree as u64,
        available: found.f_bavail as u64,
        inodes: found.f_files as u64,
        free_inodes: found.f_ffree as u64,
    })
}

/// The usage at the first mount point that is a directory: a single file that is mounted is no disk.
fn read_usage(disk: &Disk) -> Option<DiskUsage> {
    let point = disk.0.iter().find(|point| point.is_dir())?;
    statvfs(point)?.usage()
}

/// Reads the usage of disks, and waits for none that hangs.
pub struct Disks(TimedProbe<Disk, DiskUsage>);

impl Disks {
    /// Nothing was read yet.
    pub fn new() -> Disks {
        Disks(TimedProbe::new("the disk at", read_usage))
    }

    /// The metrics of all disks that can be read.
    pub fn collect(&mut self, mountinfo: &[u8], excluded: &[String]) -> Vec<(String, f64)> {
        let disks = find_disks(mountinfo, excluded);
        let labels = names(disks.iter().map(Disk::point));
        let mut metrics = Vec::new();
        for (name, usage) in labels.iter().zip(self.0.read_all(&disks)) {
            let Some(usage) = usage else { continue };
            metrics.push((format!("{name}.percent"), usage.percent));
            metrics.push((format!("{name}.free_bytes"), usage.free));
            metrics.extend(usage.inodes.map(|share| (format!("{name}.inodes_percent"), share)));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(mountinfo: &str) -> Vec<String> {
        let disks = find_disks(mountinfo.as_bytes(), &["/var/lib/docker/*".into()]);
        let names = names(disks.iter().map(Disk::point));
        disks.iter().zip(names).map(|(disk, name)| format!("{disk} {name}")).collect()
    }

    #[test]
    fn a_server_has_its_disks_and_nothing_else() {
        let mountinfo = "\
22 27 0:21 / /proc rw,nosuid shared:14 - proc proc rw
24 27 0:6 / /dev rw - devtmpfs udev rw,size=12334492k
25 24 0:23 / /dev/shm rw shared:4 - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
31 27 254:1 / /boot/efi rw shared:2 - vfat /dev/vda1 rw
40 27 7:1 / /snap/core22/1122 ro,nodev shared:3 - squashfs /dev/loop1 ro
41 27 0:52 / /mnt/nas rw shared:9 - nfs4 nas:/export rw,hard
42 27 0:53 / /run/user/1000/doc rw - fuse.portal portal rw
43 27 8:17 / /mnt/My\\040Disk.1 rw shared:5 - ext4 /dev/sdb1 rw
44 27 8:17 /sub /srv/bound rw shared:5 - ext4 /dev/sdb1 rw
45 27 0:60 / /var/lib/docker/overlay2/ab/merged rw - overlay overlay rw,lowerdir=x
46 27 254:0 /var/lib/docker/volumes/x /var/lib/docker/volumes rw - ext4 /dev/vda rw
47 27 8:33 / /media/usb rw master:1 propagate_from:2 - fuseblk /dev/sdc1 rw
48 27 9:0 / /root rw - xfs /dev/md0 rw
49 27 11:0 / /media/cdrom ro - iso9660 /dev/sr0 ro
";
        assert_eq!(
            told(mountinfo),
            [
                "/ root",
                "/boot/efi boot_efi",
                "/media/usb media_usb",
                "/mnt/My Disk.1 mnt_My_Disk_1",
                "/root root_2",
            ]
        );
    }

    #[test]
    fn subvolumes_are_one_disk() {
        let mountinfo = "\
30 1 0:25 /@ / rw - btrfs /dev/nvme0n1p2 rw,subvol=/@
31 30 0:25 /@home /home rw - btrfs /dev/nvme0n1p2 rw,subvol=/@home
32 30 0:26 / /data rw - btrfs /dev/sda rw
33 30 0:26 /@x /d rw - btrfs /dev/sda rw
";
        assert_eq!(told(mountinfo), ["/ root", "/data data"]);
    }

    #[test]
    fn a_container_has_its_root() {
        let lxc = "\
500 400 0:47 / / rw - zfs rpool/data/subvol-101-disk-0 rw
501 500 0:48 / /dev rw - tmpfs none rw
502 500 0:49 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw
503 500 0:51 / /srv rw - zfs rpool/data/subvol-101-disk-1 rw
";
        assert_eq!(told(lxc), ["/ root", "/srv srv"]);
        let docker = "\
600 1 0:70 / / rw - overlay overlay rw,lowerdir=/x
601 600 8:1 /var/lib/docker/containers/ab/hosts /etc/hosts rw - ext4 /dev/sda1 rw
602 600 8:1 /srv/data /data rw - ext4 /dev/sda1 rw
";
        let disks = find_disks(docker.as_bytes(), &[]);
        assert_eq!(disks[0].0, [Path::new("/")]);
        assert_eq!(disks[1].0, [Path::new("/data"), Path::new("/etc/hosts")]);
    }

    #[test]
    fn what_is_mounted_over_a_disk_hides_it() {
        let hidden =
            "1 0 8:1 / /home rw - ext4 /dev/sda1 rw\n2 0 0:9 / /home rw - tmpfs tmpfs rw\n";
        assert!(told(hidden).is_empty());
    }

    #[test]
    fn a_router_has_its_flash() {
        let openwrt = "\
14 1 31:3 / /rom ro - squashfs /dev/root ro
21 1 31:4 / /overlay rw - jffs2 /dev/mtdblock4 rw
22 1 0:14 / / rw - overlay overlayfs:/overlay rw,lowerdir=/
";
        assert_eq!(told(openwrt), ["/ root", "/overlay overlay"]);
    }

    #[test]
    fn escapes_are_undone() {
        for (field, bytes) in [
            (r"a\040b", "a b"),
            (r"\134040", r"\040"),
            (r"a\", r"a\"),
            (r"\04", r"\04"),
            (r"\xyz", r"\xyz"),
            (r"\777", r"\777"),
        ] {
            assert_eq!(unescape(field.as_bytes()), bytes.as_bytes(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_no_disk_and_no_panic(junk: Vec<u8>, words in "([-/a0: \\\\]{0,40}\n){0,5}") {
            find_disks(&junk, &["*x*".into()]);
            find_disks(words.as_bytes(), &[]);
            unescape(&junk);
        }
    }

    const EXT4: FilesystemStats = FilesystemStats {
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
        assert_eq!(read_usage(&Disk(vec![file.path().into()])), None);
        assert!(read_usage(&Disk(vec![file.path().into(), folder.path().into()])).is_some());
        assert_eq!(read_usage(&Disk(vec!["/nonexistent".into()])), None);
    }
}
