//! The disks of this machine, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)), and the metrics of
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use log::{info, warn};

use super::disk_usage::{FilesystemStats, read_stats};
use super::metric_name::{SegmentRegistry, matches_pattern, path_label};
use super::pools::merge_pools;
use super::probe::TimedProbe;
use crate::btree::InsertAll;

/// The most disks.
const MAX_DISKS: usize = 32;
/// The most mounts that are read to find them: the datasets of a pool may be many, and are one disk.
const MAX_READ: usize = 1024;
/// The most that one line of the log names.
const MAX_NAMED: usize = 8;

/// Filesystems of this machine that have no device under `/dev`.
const WITHOUT_DEVICE: &[&str] = &["zfs", "bcachefs", "ubifs", "jffs2"];

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
    /// Its line: later ones were mounted later, below the same directory.
    line: usize,
    device: &'a [u8],
    root: &'a [u8],
    point: PathBuf,
    kind: &'a [u8],
    source: &'a [u8],
    /// The filesystem itself is read-only, and not merely this mount of it. A dataset that may only be
    /// read shares a pool that others write to.
    read_only: bool,
}

impl<'a> Mount<'a> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &[u8]) -> Option<Mount<'_>> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [_, _, device, root, point, _, rest @ ..] = &fields[..] else { return None };
        let end = rest.iter().position(|field| *field == b"-")?;
        let [_, kind, source, options @ ..] = &rest[end..] else { return None };
        let point = PathBuf::from(OsStr::from_bytes(&unescape(point)));
        let mut options = options.iter().flat_map(|field| field.split(|byte| *byte == b','));
        let read_only = *kind != b"zfs" && options.any(|option| option == b"ro");
        let mount = Mount { line: 0, device, root, point, kind, source, read_only };
        mount.point.is_absolute().then_some(mount)
    }

    fn is_disk(&self) -> bool {
        let one_of = |kinds: &[&str]| kinds.iter().any(|kind| kind.as_bytes() == self.kind);
        if one_of(ARCHIVES) || one_of(REMOTE) || self.kind.starts_with(b"fuse.") {
            return false;
        }
        // A snapshot is as full as it was made.
        if self.dataset().is_some_and(|dataset| dataset.contains(&b'@')) {
            return false;
        }
        // The root of a container or of a live system is an overlay or lies in memory: when it is
        // full, the machine stands all the same.
        one_of(WITHOUT_DEVICE) || self.source.starts_with(b"/dev/") || self.point == Path::new("/")
    }

    /// What tells whether two mounts show the same filesystem: its number; of bcachefs, whose subvolumes
    /// may each have one, the devices that it lies on.
    fn filesystem(&self) -> &'a [u8] {
        if self.kind == b"bcachefs" { self.source } else { self.device }
    }

    /// The name of the dataset, where it is one of ZFS: that of its pool, or below that.
    fn dataset(&self) -> Option<&[u8]> {
        (self.kind == b"zfs").then_some(self.source)
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

/// A disk, or a dataset of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// Its mount points, the one that names it first. There may be several, because a container has
    /// single files mounted, too, which only a look at the filesystem tells.
    pub points: Vec<PathBuf>,
    /// What identifies it in mountinfo.
    pub device: Vec<u8>,
    /// The name of the dataset, where it is one of ZFS.
    pub dataset: Option<Vec<u8>>,
    /// It is no metric by itself, and takes up space of its pool.
    pub excluded: bool,
    /// Its maker filled it, and nothing can be done about it.
    pub read_only: bool,
    /// Its mount point named a disk at the last reading.
    pub named: bool,
}

impl Disk {
    /// The mount point that names it.
    pub fn point(&self) -> &Path {
        self.points.first().map_or(Path::new("/"), PathBuf::as_path)
    }

    /// The order of the disks when there are too many, and of the datasets of a pool, of which the
    /// first names it: the shortest mount point first.
    pub fn rank(&self) -> (bool, usize, &Path) {
        (self.excluded, self.point().as_os_str().len(), self.point())
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.point().display().fmt(f)
    }
}

/// The disks of this machine, each once however often it is mounted (bind mounts, subvolumes), ordered
/// by mount point. Of a pool each dataset is one.
fn find_disks(mountinfo: &[u8], excluded: &[String]) -> Vec<Disk> {
    // A later mount at the same point hides the earlier one.
    let mut visible = BTreeMap::new();
    for (line, text) in mountinfo.split(|byte| *byte == b'\n').enumerate() {
        if let Some(mount) = Mount::parse(text) {
            visible.insert(mount.point.clone(), Mount { line, ..mount });
        }
    }
    let is_excluded = |mount: &Mount| {
        let point = mount.point.to_string_lossy();
        excluded.iter().any(|pattern| matches_pattern(pattern, &point))
    };
    let mut devices: BTreeMap<(&[u8], bool), Vec<Mount>> = BTreeMap::new();
    for mount in visible.into_values().filter(Mount::is_disk) {
        let excluded = is_excluded(&mount);
        devices.entry((mount.filesystem(), excluded)).or_default().push(mount);
    }
    let told: BTreeSet<&[u8]> =
        devices.keys().filter(|(_, excluded)| !excluded).map(|(device, _)| *device).insert_all();
    devices.retain(|(device, excluded), mounts| {
        !excluded || (mounts[0].dataset().is_some() && !told.contains(device))
    });
    let disk = |((device, excluded), mut mounts): ((&[u8], bool), Vec<Mount>)| {
        let first = mounts.iter().map(|mount| mount.line).min();
        // What shows all subvolumes, and came after them, is mounted to work on them.
        let is_late = |mount: &Mount| {
            mount.kind == b"btrfs" && mount.root == b"/" && Some(mount.line) != first
        };
        let order = |mount: &Mount| (mount.point != Path::new("/"), is_late(mount));
        mounts.sort_unstable_by(|a, b| order(a).cmp(&order(b)).then(a.rank().cmp(&b.rank())));
        let dataset = mounts[0].dataset().map(<[u8]>::to_owned);
        let read_only = mounts[0].read_only;
        let points = mounts.into_iter().map(|mount| mount.point).collect();
        Disk { points, device: device.to_owned(), dataset, excluded, read_only, named: false }
    };
    let mut disks: Vec<Disk> = devices.into_iter().map(disk).collect();
    disks.sort_unstable();
    disks
}

/// Reads the usage of disks, and waits for none that hangs.
pub struct Disks {
    probe: TimedProbe<Disk, Result<FilesystemStats, String>>,
    /// The mount point that names each device, by its number: it does while it is there, whatever else
    /// is mounted for a while.
    points: BTreeMap<Vec<u8>, PathBuf>,
    /// The mount points that named a disk at the last reading.
    named: BTreeSet<PathBuf>,
    names: SegmentRegistry,
    log: DiskLog,
}

impl Disks {
    /// Nothing was read yet.
    pub fn new() -> Disks {
        Disks {
            probe: TimedProbe::new("the disk at", read_stats),
            points: BTreeMap::new(),
            named: BTreeSet::new(),
            names: SegmentRegistry::default(),
            log: DiskLog::default(),
        }
    }

    /// The metrics of all disks that can be read.
    pub fn collect(&mut self, mountinfo: &[u8], excluded: &[String]) -> Vec<(String, f64)> {
        let mut found = find_disks(mountinfo, excluded);
        for point in self.became_read_only(&found) {
            warn!(
                "the disk at {} has become read-only, maybe by errors: it is left out until it can be written to",
                point.display()
            );
        }
        found.retain(|disk| !disk.read_only);
        self.keep_points(&mut found);
        let mut found: Vec<(Disk, ())> = found.into_iter().map(|disk| (disk, ())).collect();
        let mut left_out = keep_shortest(&mut found, MAX_READ);
        let disks: Vec<Disk> = found.into_iter().map(|(disk, ())| disk).collect();
        let readings = self.probe.read_all(&disks);
        self.log.log_unreadable(&disks, &readings);
        let names = self.name(&disks);
        let stats = readings.into_iter().map(|reading| reading?.ok());
        let read = disks.into_iter().zip(stats).filter_map(|(disk, stats)| Some((disk, stats?)));
        let mut read = merge_pools(read.collect());
        left_out.extend(keep_shortest(&mut read, MAX_DISKS));
        self.log.log_left_out(&left_out);
        self.named = read.iter().map(|(disk, _)| disk.point().to_owned()).insert_all();
        let mut metrics = Vec::new();
        for (disk, stats) in read {
            let (Some(name), Some(usage)) = (names.get(disk.point()), stats.usage()) else {
                continue;
            };
            metrics.push((format!("{name}.percent"), usage.percent));
            metrics.push((format!("{name}.free_bytes"), usage.free));
            metrics.extend(usage.inodes.map(|share| (format!("{name}.inodes_percent"), share)));
        }
        metrics
    }

    /// The mount points of the disks that could be written to at the last reading, and cannot any more.
    fn became_read_only(&self, disks: &[Disk]) -> Vec<&Path> {
        let read_only = disks.iter().filter(|disk| disk.read_only);
        read_only.filter_map(|disk| Some(self.points.get(&disk.device)?.as_path())).collect()
    }

    fn keep_points(&mut self, disks: &mut [Disk]) {
        for disk in disks.iter_mut() {
            let known = self.points.get(&disk.device);
            let known = known.and_then(|known| disk.points.iter().position(|point| point == known));
            disk.points[..=known.unwrap_or(0)].rotate_right(1);
            disk.named = self.named.contains(disk.point());
        }
        let named = |disk: &Disk| (disk.device.clone(), disk.point().to_owned());
        self.points = disks.iter().map(named).insert_all();
        disks.sort_unstable();
    }

    /// A segment for each mount point: `/` is `root`, `/var/lib` is `var_lib`.
    fn name(&mut self, disks: &[Disk]) -> BTreeMap<PathBuf, String> {
        let points: Vec<&Path> = disks.iter().map(Disk::point).collect();
        let things = points.iter().map(|point| {
            // Points that differ in bytes only look alike as texts.
            (path_label(&point.to_string_lossy()), format!("{point:?}"))
        });
        let names = self.names.assign(things);
        points.iter().map(|point| point.to_path_buf()).zip(names).insert_all()
    }
}

/// Leaves the `most` disks with the shortest mount points, in order of these; gives the others.
fn keep_shortest<S>(disks: &mut Vec<(Disk, S)>, most: usize) -> Vec<Disk> {
    disks.sort_unstable_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
    let others = disks.split_off(most.min(disks.len()));
    disks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    others.into_iter().map(|(disk, _)| disk).collect()
}

/// What was logged about disks, each once.
#[derive(Default)]
struct DiskLog {
    unreadable: BTreeSet<PathBuf>,
    left_out: BTreeSet<PathBuf>,
}

impl DiskLog {
    /// Logs the disks that cannot be read, such as those below a folder that we may not enter.
    fn log_unreadable(
        &mut self,
        disks: &[Disk],
        readings: &[Option<Result<FilesystemStats, String>>],
    ) {
        self.unreadable.retain(|point| disks.iter().any(|disk| disk.point() == point));
        for (disk, reading) in disks.iter().zip(readings).filter(|(disk, _)| !disk.excluded) {
            match reading {
                Some(Ok(_)) if self.unreadable.remove(disk.point()) => {
                    info!("the disk at {disk} can be read again");
                }
                Some(Err(why)) if self.unreadable.insert(disk.point().to_owned()) => warn!(
                    "the disk at {disk} cannot be read: {why}; it is left out until it can, and for good with excluded_mounts"
                ),
                Some(_) | None => {}
            }
        }
    }

    /// Logs the disks that are too many.
    fn log_left_out(&mut self, disks: &[Disk]) {
        let points: BTreeSet<PathBuf> = disks
            .iter()
            .filter(|disk| !disk.excluded)
            .map(|disk| disk.point().to_owned())
            .insert_all();
        if !points.is_subset(&self.left_out) {
            let mut named: Vec<String> =
                points.iter().take(MAX_NAMED).map(|point| point.display().to_string()).collect();
            if points.len() > MAX_NAMED {
                named.push(format!("and {} more", points.len() - MAX_NAMED));
            }
            warn!(
                "more than {MAX_DISKS} disks: these are left out, excluded_mounts makes room: {}",
                named.join(", ")
            );
        }
        self.left_out = points;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(mountinfo: &str) -> Vec<String> {
        let disks = find_disks(mountinfo.as_bytes(), &["/var/lib/docker/*".into()]);
        let names = Disks::new().name(&disks);
        let told = disks.iter().filter(|disk| !disk.excluded && !disk.read_only);
        told.map(|disk| format!("{disk} {}", names[disk.point()])).collect()
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

    /// The disks that a reading tells of, each by its segment.
    fn collected(disks: &mut Disks, mountinfo: &str) -> Vec<String> {
        let metrics = disks.collect(mountinfo.as_bytes(), &["/excluded/*".into()]);
        let names = metrics.iter().filter_map(|(path, _)| path.strip_suffix(".percent"));
        names.filter(|name| !name.ends_with(".inodes")).map(str::to_owned).collect()
    }

    fn folders(names: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let points: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
        points.iter().for_each(|point| std::fs::create_dir_all(point).unwrap());
        (folder, points)
    }

    #[test]
    fn a_disk_of_btrfs_was_renamed_while_its_top_level_was_mounted_elsewhere() {
        let (_folder, points) = folders(&["srv/data", "top"]);
        let data = format!("30 1 0:26 /@data {} rw - btrfs /dev/sda rw\n", points[0].display());
        let top = format!("31 1 0:26 / {} rw - btrfs /dev/sda rw\n", points[1].display());
        let mut disks = Disks::new();
        let first = collected(&mut disks, &data);
        assert!(first.len() == 1 && first[0].ends_with("srv_data"), "{first:?}");
        assert_eq!(collected(&mut disks, &(top.clone() + &data)), first);
        assert_eq!(collected(&mut disks, &data), first);
        assert_eq!(collected(&mut disks, &(data.clone() + &top)), first);
        assert!(collected(&mut disks, &top)[0].ends_with("_top"), "the other one is gone");
        assert_eq!(collected(&mut Disks::new(), &(data + &top)), first, "after a restart");
    }

    #[test]
    fn a_pool_of_many_datasets_is_one_disk_and_hides_no_other() {
        let datasets: Vec<String> = (0..40).map(|n| format!("pool/dataset{n:02}")).collect();
        let names: Vec<&str> = datasets.iter().map(String::as_str).chain(["zzz/other"]).collect();
        let (_folder, points) = folders(&names);
        let mut mountinfo = String::new();
        for (n, point) in points.iter().enumerate().take(40) {
            let point = point.display();
            mountinfo += &format!("5{n} 1 0:{n} / {point} rw - zfs tank/data/{n:02} rw,xattr\n");
        }
        let other = points[40].display();
        mountinfo += &format!("99 1 8:1 / {other} rw - ext4 /dev/sda1 rw\n");
        let mut disks = Disks::new();
        let told = collected(&mut disks, &mountinfo);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].ends_with("dataset00") && told[1].ends_with("zzz_other"), "{told:?}");
        // What has named the pool goes on to.
        let short = points[0].parent().unwrap().parent().unwrap().display();
        let more = format!("98 1 0:98 / {short} rw - zfs tank/short rw\n{mountinfo}");
        assert_eq!(collected(&mut disks, &more), told);
        assert_eq!(disks.log.left_out.len(), 0);
    }

    #[test]
    fn when_there_are_too_many_the_shortest_mounts_are_told_and_the_others_logged() {
        let names: Vec<String> = (0..40).map(|n| "x".repeat(n + 1)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (_folder, points) = folders(&names);
        let mut mountinfo = String::new();
        for (n, point) in points.iter().enumerate().rev() {
            let point = point.display();
            mountinfo += &format!("5{n} 1 8:{n} / {point} rw - ext4 /dev/sd{n} rw\n");
        }
        let mut disks = Disks::new();
        let told = collected(&mut disks, &mountinfo);
        assert_eq!(told.len(), MAX_DISKS);
        assert!(told[0].ends_with("_x") && told[31].ends_with(&"x".repeat(32)), "{told:?}");
        assert_eq!(disks.log.left_out, points[MAX_DISKS..].iter().cloned().collect());
    }

    #[test]
    fn a_filesystem_that_its_maker_filled_was_a_full_disk() {
        let image = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 254:3 / /usr ro,nodev - ext4 /dev/mapper/usr ro,seclabel
3 1 254:4 / /opt rw - btrfs /dev/sdb seclabel,ro,subvol=/
4 1 0:40 / /tank/x rw - zfs tank/x@snap ro
";
        assert_eq!(told(image), ["/ root"]);
        // Under the sandbox of the unit every mount is read-only, and the disks behind are not.
        let sandbox = "\
1 0 8:1 / / ro,nosuid shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
2 1 8:2 / /home ro - xfs /dev/sda2 rw,prjquota
3 1 0:41 / /tank/replica ro - zfs tank/replica ro,xattr
4 1 0:42 / /data ro - bcachefs /dev/sdb:/dev/sdc rw
5 1 0:43 /vm /data/vm ro - bcachefs /dev/sdb:/dev/sdc rw
";
        assert_eq!(
            told(sandbox),
            ["/ root", "/data data", "/home home", "/tank/replica tank_replica"]
        );
    }

    #[test]
    fn a_disk_that_errors_made_read_only_was_missing_without_a_word() {
        let (_folder, points) = folders(&["data"]);
        let point = points[0].display();
        let mount = |how: &str| {
            format!("30 1 8:1 / {point} {how} - ext4 /dev/sda1 {how},errors=remount-ro\n")
        };
        let mut disks = Disks::new();
        let read_only = find_disks(mount("ro").as_bytes(), &[]);
        assert_eq!(collected(&mut disks, &mount("ro")).len(), 0);
        assert!(disks.became_read_only(&read_only).is_empty(), "it was from the beginning");
        assert_eq!(collected(&mut disks, &mount("rw")).len(), 1);
        assert_eq!(disks.became_read_only(&read_only), [points[0].as_path()]);
        assert_eq!(collected(&mut disks, &mount("ro")).len(), 0);
        assert!(disks.became_read_only(&read_only).is_empty(), "it is said once");
        assert_eq!(collected(&mut disks, &mount("rw")).len(), 1);
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
        assert_eq!(disks[0].points, [Path::new("/")]);
        assert_eq!(disks[1].points, [Path::new("/data"), Path::new("/etc/hosts")]);
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
}
