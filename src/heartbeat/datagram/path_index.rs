//! Where each path of a datagram stands: a hash table that a sender cannot fill with collisions. Pure.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// So few paths are compared with each other: most datagrams have one or two, and allocate nothing.
const MAX_COMPARED: usize = 8;

/// A slot without a path. There are never as many.
const EMPTY: u16 = u16::MAX;

/// Secret, and another one in each process: who knew it could choose paths that all meet in one slot.
static KEYS: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [random.hash_one(0), random.hash_one(1) | 1]
});

/// The places of some paths, which are kept elsewhere: open addressing, at most half full. It is made
/// with one allocation and costs a few nanoseconds a path, in whatever order they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathIndex(Vec<u16>);

impl PathIndex {
    /// The index of `count` paths; none when two of them are equal.
    pub fn new<'p>(count: usize, path: impl Fn(usize) -> &'p str) -> Option<PathIndex> {
        if count <= MAX_COMPARED {
            let repeated = |place| (0..place).any(|other| path(other) == path(place));
            return (!(0..count).any(repeated)).then(PathIndex::default);
        }
        let mut index = PathIndex(vec![EMPTY; (2 * count).next_power_of_two()]);
        for place in 0..count {
            let new = path(place);
            let slot = index.slot(new, |other| path(other) == new);
            if index.0[slot] != EMPTY {
                return None;
            }
            index.0[slot] = u16::try_from(place).expect("a datagram has fewer metrics");
        }
        Some(index)
    }

    /// Where `wanted` stands among those `count` paths.
    pub fn find<'p>(
        &self,
        wanted: &str,
        count: usize,
        path: impl Fn(usize) -> &'p str,
    ) -> Option<usize> {
        if self.0.is_empty() {
            return (0..count).find(|place| path(*place) == wanted);
        }
        let place = self.0[self.slot(wanted, |place| path(place) == wanted)];
        (place != EMPTY).then_some(place.into())
    }

    /// The slot of a path, or the empty one where it would be.
    fn slot(&self, path: &str, is_it: impl Fn(usize) -> bool) -> usize {
        let mask = self.0.len() - 1;
        let mut slot = hash(path.as_bytes()) as usize & mask;
        while self.0[slot] != EMPTY && !is_it(self.0[slot].into()) {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// Eight bytes at a time, each multiplied and folded, as wyhash does.
fn hash(bytes: &[u8]) -> u64 {
    let [seed, factor] = *KEYS;
    let fold = |value: u64| {
        let product = u128::from(value) * u128::from(factor);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = seed ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(state ^ u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_found_where_it_stands_and_no_other() {
        for count in [0, 1, 8, 9, 64, 512] {
            let paths: Vec<String> = (0..count).map(|n| format!("disk_monitor.d{n}.x")).collect();
            let index = PathIndex::new(count, |place| &paths[place]).unwrap();
            for (place, path) in paths.iter().enumerate() {
                assert_eq!(index.find(path, count, |place| &paths[place]), Some(place));
            }
            for other in ["", "disk_monitor.d0", "disk_monitor.d512.x", "x"] {
                assert_eq!(index.find(other, count, |place| &paths[place]), None);
            }
        }
    }

    #[test]
    fn two_equal_paths_have_no_index() {
        for count in [2, 3, 9, 512] {
            let mut paths: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
            paths[count - 1] = "m0".into();
            assert!(PathIndex::new(count, |place| &paths[place]).is_none(), "{count}");
        }
    }
}
