//! Which datasets of a ZFS pool are one disk. Pure.
//!
//! All datasets of a pool take their space from it, and statvfs(3) gives for each what it uses itself
//! and what is left to it. One with a quota or a reservation is left another amount than the pool; the
//! others are left the same, and when that is nothing, it is one thing that is wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::disk_usage::FilesystemStats;
use super::disks::Disk;

type ReadDisk = (Disk, FilesystemStats);

/// The disks, with the datasets of a pool that share its space as one. What is excluded counts in its
/// pool only.
pub fn merge_pools(disks: Vec<ReadDisk>) -> Vec<ReadDisk> {
    let mut merged = Vec::new();
    let mut pools: BTreeMap<Vec<u8>, Vec<ReadDisk>> = BTreeMap::new();
    for read in disks {
        match &read.0.dataset {
            Some(dataset) => pools.entry(pool(dataset).to_owned()).or_default().push(read),
            None => merged.push(read),
        }
    }
    merged.extend(pools.into_values().flat_map(share).filter_map(join));
    merged.retain(|(disk, _)| !disk.excluded);
    merged
}

/// `rpool/data/web1` is in the pool `rpool`.
fn pool(dataset: &[u8]) -> &[u8] {
    dataset.split(|byte| *byte == b'/').next().unwrap_or(dataset)
}

fn name(read: &ReadDisk) -> &[u8] {
    read.0.dataset.as_deref().unwrap_or_default()
}

/// The datasets of one pool, those together that take their space from the same place: from the pool,
/// or from a dataset above that has a quota.
fn share(mut datasets: Vec<ReadDisk>) -> Vec<Vec<ReadDisk>> {
    datasets.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    let of_pool = pool_space(&datasets);
    let mut shared = Vec::new();
    let mut own: Vec<Vec<ReadDisk>> = Vec::new();
    for read in datasets {
        let left = read.1.available_bytes();
        let above = |group: &&mut Vec<ReadDisk>| {
            is_below(name(&read), name(&group[0])) && is_same(left, group[0].1.available_bytes())
        };
        if of_pool.is_some_and(|space| is_same(left, space)) {
            shared.push(read);
        } else if let Some(group) = own.iter_mut().rev().find(above) {
            group.push(read);
        } else {
            own.push(vec![read]);
        }
    }
    if !shared.is_empty() {
        // What a quota bounds takes up space of the pool, too.
        let used = |(disk, stats): &ReadDisk| (Disk { excluded: true, ..disk.clone() }, *stats);
        shared.extend(own.iter().flatten().map(used));
        own.push(shared);
    }
    own
}

/// What the pool has left, in bytes: as its own dataset says, where that is mounted, else the most that
/// is left to more than one. Less than is left to another one may be left to quotas of one size, too:
/// there it counts when the sizes differ.
fn pool_space(datasets: &[ReadDisk]) -> Option<u64> {
    let of_pool = datasets.iter().find(|read| !name(read).contains(&b'/'));
    let space = |(_, stats): &ReadDisk| (stats.available_bytes(), stats.bytes());
    let mut spaces: Vec<(u64, u64)> = datasets.iter().map(space).collect();
    spaces.sort_unstable_by(|a, b| b.cmp(a));
    let most = spaces.first()?.0;
    let is_common = |pair: &&[(u64, u64)]| {
        let [(left, size), (other_left, other_size)] = [pair[0], pair[1]];
        is_same(left, other_left) && (is_same(left, most) || !is_same(size, other_size))
    };
    let common = spaces.windows(2).find(is_common).map(|pair| pair[0].0);
    of_pool.map(|(_, stats)| stats.available_bytes()).or(common)
}

fn is_below(dataset: &[u8], above: &[u8]) -> bool {
    dataset.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Whether the amounts are one: something may be written between two readings.
fn is_same(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= one.max(other) / 200
}

/// Datasets as one disk, which is called as before, else like the shortest mount point.
fn join(mut datasets: Vec<ReadDisk>) -> Option<ReadDisk> {
    let order = |disk: &Disk| (disk.excluded, !disk.named);
    datasets
        .sort_unstable_by(|(a, _), (b, _)| order(a).cmp(&order(b)).then(a.rank().cmp(&b.rank())));
    let disk = datasets.first()?.0.clone();
    let mut devices = BTreeSet::new();
    let mut stats: Vec<FilesystemStats> = Vec::new();
    for (_, of_dataset) in datasets {
        // What is mounted twice is used once.
        if devices.insert(of_dataset.device) {
            stats.push(of_dataset);
        }
    }
    Some((disk, FilesystemStats::sum(&stats)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    /// A dataset, where it is mounted, and the gigabytes that it uses and that are left to it.
    fn dataset(device: u64, name: &str, point: &str, used: u64, left: u64) -> ReadDisk {
        let dataset = Some(name.as_bytes().to_vec()).filter(|name| !name.is_empty());
        let disk = Disk { points: vec![point.into()], dataset, ..Disk::default() };
        let (used, left) = (used * GB, left * GB);
        let stats = FilesystemStats {
            device,
            unit: 1,
            blocks: used + left,
            free: left,
            available: left,
            inodes: 0,
            free_inodes: 0,
        };
        (disk, stats)
    }

    fn told(disks: Vec<ReadDisk>) -> Vec<String> {
        let line = |(disk, stats): ReadDisk| {
            let usage = stats.usage().unwrap();
            format!("{disk} {} % {} GB", usage.percent.round(), usage.free / GB as f64)
        };
        let mut told: Vec<String> = merge_pools(disks).into_iter().map(line).collect();
        told.sort();
        told
    }

    #[test]
    fn a_full_pool_was_31_full_disks_and_not_one() {
        let mut disks: Vec<ReadDisk> = (0..40)
            .map(|n| dataset(n, &format!("tank/data/{n:02}"), &format!("/srv/data/{n:02}"), 24, 30))
            .collect();
        disks.push(dataset(50, "tank", "/tank", 1, 30));
        disks.push(dataset(60, "", "/", 5, 5));
        assert_eq!(told(disks), ["/ 50 % 5 GB", "/tank 97 % 30 GB"]);
    }

    #[test]
    fn a_dataset_with_a_quota_of_its_own_is_its_own() {
        let disks = vec![
            dataset(1, "rpool/ROOT/pve-1", "/", 100, 300),
            dataset(2, "rpool/ROOT/pve-1/var", "/var", 200, 300),
            dataset(3, "rpool/data/subvol-101-disk-0", "/rpool/data/101", 7, 1),
            dataset(4, "rpool/data/subvol-102-disk-0", "/rpool/data/102", 1, 7),
            // What is below one shares its quota.
            dataset(5, "rpool/data/subvol-102-disk-0/x", "/rpool/data/102/x", 6, 7),
        ];
        let told = told(disks);
        assert_eq!(
            told,
            ["/ 51 % 300 GB", "/rpool/data/101 88 % 1 GB", "/rpool/data/102 50 % 7 GB"]
        );
    }

    #[test]
    fn containers_of_one_size_were_taken_for_their_pool_and_were_full() {
        let root = |left| dataset(1, "rpool/ROOT/debian", "/", 100, left);
        let container = |n| dataset(n, &format!("rpool/data/{n}"), &format!("/c/{n}"), 1, 7);
        let all = vec![root(300), container(2), container(3)];
        assert_eq!(told(all), ["/ 25 % 300 GB", "/c/2 13 % 7 GB", "/c/3 13 % 7 GB"]);
        // One with a reservation is left more than the pool.
        let data = |n| dataset(n, &format!("rpool/data/{n}"), &format!("/d/{n}"), 10 * n, 50);
        assert_eq!(told(vec![root(60), data(2), data(3)]), ["/ 63 % 60 GB", "/d/2 75 % 50 GB"]);
    }

    #[test]
    fn homes_of_the_same_quota_are_each_its_own() {
        let home = |n| dataset(n, &format!("tank/home/{n}"), &format!("/home/{n}"), n, 10);
        let disks = vec![dataset(9, "tank", "/tank", 7, 90), home(1), home(2)];
        assert_eq!(told(disks), ["/home/1 9 % 10 GB", "/home/2 17 % 10 GB", "/tank 10 % 90 GB"]);
    }

    #[test]
    fn two_pools_are_two_disks_however_alike_they_are() {
        let disks = vec![
            dataset(1, "bpool/BOOT/ubuntu", "/boot", 1, 1),
            dataset(2, "rpool/ROOT/ubuntu", "/", 1, 1),
            dataset(3, "rpool/USERDATA/home", "/home", 1, 1),
        ];
        assert_eq!(told(disks), ["/ 67 % 1 GB", "/boot 50 % 1 GB"]);
    }

    #[test]
    fn what_is_excluded_takes_up_space_all_the_same() {
        let mut docker = dataset(2, "rpool/docker/ab", "/var/lib/docker/zfs/graph/ab", 70, 10);
        docker.0.excluded = true;
        let mut alone = dataset(3, "lxd/containers/c1", "/run/c1", 1, 1);
        alone.0.excluded = true;
        let disks = vec![dataset(1, "rpool/ROOT/debian", "/", 20, 10), docker, alone];
        assert_eq!(told(disks), ["/ 90 % 10 GB"]);
    }

    #[test]
    fn a_dataset_that_is_mounted_twice_is_used_once() {
        let disks =
            vec![dataset(1, "tank", "/tank", 50, 50), dataset(1, "tank/a", "/srv/a", 50, 50)];
        assert_eq!(told(disks), ["/tank 50 % 50 GB"]);
    }
}
