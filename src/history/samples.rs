//! The binary rows of metrics: all of a host in one slot, in a few hundred bytes. Pure.
//!
//! A row is: the version, the epoch of the host's list of names (u16), how many values a point
//! stands for (u32), the number of names (u16), a bitmap of those that have a point, a bitmap of the
//! points that never changed, then the points: mean, least and most, or one number where it never
//! changed. All little-endian. A number takes three bytes: the upper 24 bits of its f32, which are
//! four digits, as much as a curve shows. So a year of 50 hosts fits on a small disk.
//!
//! Rows refer to the names of the metrics by their index in a list that only grows, so that every
//! row that was written by it stays true. A list that has grown too long, since a host invents ever
//! new names, is left as it is, and a new one is begun: the next epoch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::btree::InsertAll;
use serde::{Deserialize, Serialize};

/// The version of the format.
const VERSION: u8 = 1;
/// How many names a list may have, and bits a bitmap.
pub const MAX_NAMES: usize = 1024;
/// How many lists of a host are kept: what the rows before say is lost, of a host that invents ever
/// new names.
const MAX_LISTS: u16 = 4;

/// The values of one metric in one slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricPoint {
    /// Their mean.
    pub mean: f32,
    /// Their minimum.
    pub least: f32,
    /// Their maximum.
    pub most: f32,
}

impl MetricPoint {
    fn merge(self, other: MetricPoint, weights: (f64, f64)) -> MetricPoint {
        let sum = f64::from(self.mean) * weights.0 + f64::from(other.mean) * weights.1;
        #[allow(clippy::cast_possible_truncation, reason = "a mean of f32 is one")]
        let mean = (sum / (weights.0 + weights.1).max(1.0)) as f32;
        MetricPoint { mean, least: self.least.min(other.least), most: self.most.max(other.most) }
    }
}

/// The metrics of a host in one slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleRow {
    /// Which of the host's lists of names it refers to.
    pub epoch: u16,
    /// How many values a point is made of: the weight of its mean.
    pub count: u32,
    /// The points, in order of the index of their name.
    pub points: Vec<(u16, MetricPoint)>,
}

impl SampleRow {
    /// Encodes the row.
    pub fn encode(&self) -> Vec<u8> {
        let names = self.points.last().map_or(0, |(name, _)| usize::from(*name) + 1);
        let mut bytes = vec![VERSION];
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.count.to_le_bytes());
        #[allow(clippy::cast_possible_truncation, reason = "names are fewer than 1024")]
        bytes.extend((names as u16).to_le_bytes());
        let present = self.points.iter().map(|(name, _)| usize::from(*name));
        bytes.extend(bitmap(present, names));
        let constant = self.points.iter().enumerate();
        let constant =
            constant.filter(|(_, (_, point))| is_constant(point)).map(|(index, _)| index);
        bytes.extend(bitmap(constant, self.points.len()));
        for (_, point) in &self.points {
            bytes.extend(&pack(point.mean));
            if !is_constant(point) {
                bytes.extend(pack(point.least));
                bytes.extend(pack(point.most));
            }
        }
        bytes
    }

    /// Decodes a row; none when it is corrupt or of another version.
    pub fn decode(bytes: &[u8]) -> Option<SampleRow> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let epoch = u16::from_le_bytes(take_array(&mut rest)?);
        let count = u32::from_le_bytes(take_array(&mut rest)?);
        let names = usize::from(u16::from_le_bytes(take_array(&mut rest)?));
        let present = take_bytes(&mut rest, names.div_ceil(8))?;
        let present: Vec<usize> = (0..names).filter(|name| is_set(present, *name)).collect();
        let constant = take_bytes(&mut rest, present.len().div_ceil(8))?;
        let mut points = Vec::with_capacity(present.len());
        for (index, name) in present.into_iter().enumerate() {
            let mean = unpack(take_array(&mut rest)?);
            let (least, most) = if is_set(constant, index) {
                (mean, mean)
            } else {
                (unpack(take_array(&mut rest)?), unpack(take_array(&mut rest)?))
            };
            points.push((u16::try_from(name).ok()?, MetricPoint { mean, least, most }));
        }
        rest.is_empty().then_some(SampleRow { epoch, count, points })
    }

    /// Merges this row with a later one; the later alone, if it refers to another list of names.
    #[must_use]
    pub fn merge(self, later: SampleRow) -> SampleRow {
        if self.epoch != later.epoch {
            return later;
        }
        let mut points: BTreeMap<u16, MetricPoint> = self.points.into_iter().insert_all();
        let weights = (f64::from(self.count), f64::from(later.count));
        for (name, point) in later.points {
            let merged = points.get(&name).map_or(point, |own| own.merge(point, weights));
            points.insert(name, merged);
        }
        let count = self.count.saturating_add(later.count);
        SampleRow { epoch: self.epoch, count, points: points.into_iter().collect() }
    }

    /// The point of a name.
    #[cfg(test)]
    pub fn point(&self, name: u16) -> Option<MetricPoint> {
        let index = self.points.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        Some(self.points[index].1)
    }
}

fn is_constant(point: &MetricPoint) -> bool {
    pack(point.least) == pack(point.most) && pack(point.mean) == pack(point.most)
}

fn bitmap(set: impl Iterator<Item = usize>, count: usize) -> Vec<u8> {
    let mut bits = vec![0; count.div_ceil(8)];
    set.for_each(|index| bits[index / 8] |= 1 << (index % 8));
    bits
}

fn is_set(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

fn take_bytes<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(count)?;
    *rest = back;
    Some(front)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take_bytes(rest, N)?.try_into().ok()
}

/// The upper 24 bits, rounded to the nearest.
fn pack(value: f32) -> [u8; 3] {
    let bits = value.to_bits();
    let rounded = bits.saturating_add(0x80);
    // Rounding must not turn the greatest numbers into infinity.
    let kept = if f32::from_bits(rounded).is_finite() { rounded } else { bits };
    let [_, a, b, c] = kept.to_le_bytes();
    [a, b, c]
}

/// The number, with the decimal digits that 24 bits hold.
fn unpack([a, b, c]: [u8; 3]) -> f32 {
    let exact = f32::from_le_bytes([0, a, b, c]);
    let shown = format!("{exact:.3e}").parse().ok().filter(|shown: &f32| shown.is_finite());
    // A number that is whole in 24 bits was whole before.
    if exact.fract() == 0.0 && exact.abs() < 65_536.0 { exact } else { shown.unwrap_or(exact) }
}

/// Quotes and a comma.
const NAME_OVERHEAD: u64 = 3;

/// How many bytes new names of metrics may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamesRoom {
    /// Of all hosts together, from now on.
    pub left: u64,
    /// In one list.
    pub of_list: u64,
}

impl NamesRoom {
    /// Of a history of so many bytes a quarter may be names, `taken` of which are there.
    pub fn new(max_bytes: u64, taken: u64) -> NamesRoom {
        NamesRoom { left: (max_bytes / 4).saturating_sub(taken), of_list: max_bytes / 32 }
    }
}

/// A list of metric names, stored as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricNames {
    /// The number of the list among those of the host.
    pub epoch: u16,
    /// The day on which a row last referred to it.
    pub day: u32,
    /// The names, in the order in which they were first seen.
    pub paths: Vec<Arc<str>>,
}

impl MetricNames {
    /// The key of a list.
    pub fn key(host: &str, epoch: u16) -> String {
        format!("{host}/{epoch:04x}")
    }

    /// The range of the keys of all lists of a host.
    pub fn keys(host: &str) -> (String, String) {
        // `0` is the character after `/`.
        (format!("{host}/"), format!("{host}0"))
    }

    /// The key of the list that is too old when this one is begun.
    pub fn outdated_key(host: &str, epoch: u16) -> String {
        MetricNames::key(host, epoch.wrapping_sub(MAX_LISTS))
    }

    /// Which of these names there is room for: those that are known, and new ones as long as it lasts.
    pub fn affordable(&self, paths: &[Arc<str>], room: &mut NamesRoom) -> Vec<bool> {
        let known: HashSet<&str> = self.paths.iter().map(|path| &**path).collect();
        let new = paths.iter().filter(|path| !known.contains(&***path)).count();
        let begins_anew = known.len() + new > MAX_NAMES;
        let bytes = |path: &str| path.len() as u64 + NAME_OVERHEAD;
        let mut own = if begins_anew { 0 } else { self.paths.iter().map(|path| bytes(path)).sum() };
        let mut fits = |path: &Arc<str>| {
            let bytes = bytes(path);
            if known.contains(&**path) && !begins_anew {
                return true;
            }
            let fits = bytes <= room.left && own + bytes <= room.of_list;
            if fits {
                (room.left, own) = (room.left - bytes, own + bytes);
            }
            fits
        };
        paths.iter().map(&mut fits).collect()
    }

    /// The indexes of these names; new ones are added. True when the list has changed.
    pub fn indexes(&mut self, paths: &[Arc<str>], day: u32) -> (Vec<u16>, bool) {
        let known: HashMap<&str, usize> =
            self.paths.iter().enumerate().map(|(index, path)| (&**path, index)).collect();
        let new: Vec<Arc<str>> =
            paths.iter().filter(|path| !known.contains_key(&***path)).cloned().collect();
        if self.paths.len() + new.len() > MAX_NAMES {
            let paths_now = paths.iter().take(MAX_NAMES).cloned().collect();
            *self = MetricNames { epoch: self.epoch.wrapping_add(1), day, paths: paths_now };
            #[allow(clippy::cast_possible_truncation, reason = "names are fewer than 1024")]
            return ((0..self.paths.len() as u16).collect(), true);
        }
        let mut next = self.paths.len();
        let index = |path: &Arc<str>| {
            let index = known.get(&**path).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            u16::try_from(index).unwrap_or(u16::MAX)
        };
        let indexes = paths.iter().map(index).collect();
        let changed = !new.is_empty() || self.day != day;
        self.day = day;
        self.paths.extend(new);
        (indexes, changed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(mean: f32, least: f32, most: f32) -> MetricPoint {
        MetricPoint { mean, least, most }
    }

    #[test]
    fn what_people_read_comes_back_as_it_was() {
        for value in [0.0, 95.2, 100.0, 0.25, 99.99, 65_535.0, -3.7, 1e-6, 8.123e9] {
            assert_eq!(unpack(pack(value)), value, "{value}");
        }
        assert!(unpack(pack(f32::MAX)).is_finite() && unpack(pack(f32::MIN)).is_finite());
    }

    #[test]
    fn a_host_with_thirty_metrics_takes_few_bytes() {
        let of = |most: f32| {
            let points = (0..30).map(|name| (name, point(1.0, 1.0, most))).collect();
            SampleRow { epoch: 0, count: 60, points }.encode().len()
        };
        assert_eq!((of(2.0), of(1.0)), (287, 107));
    }

    fn paths(range: std::ops::Range<usize>) -> Vec<Arc<str>> {
        range.map(|n| format!("m{n}").into()).collect()
    }

    #[test]
    fn a_list_grows_and_what_was_in_it_keeps_its_place() {
        let mut names = MetricNames::default();
        assert_eq!(names.indexes(&paths(0..3), 1), (vec![0, 1, 2], true));
        assert_eq!(names.indexes(&paths(1..3), 1), (vec![1, 2], false));
        assert_eq!(names.indexes(&paths(2..5), 1), (vec![2, 3, 4], true));
        assert_eq!(names.indexes(&paths(0..1), 2), (vec![0], true), "another day");
        assert_eq!((names.epoch, names.paths.len()), (0, 5));
    }

    #[test]
    fn a_host_that_invents_names_begins_a_new_list() {
        let mut names = MetricNames::default();
        for round in 0..10 {
            names.indexes(&paths(round * 300..(round + 1) * 300), 1);
            assert!(names.paths.len() <= MAX_NAMES);
        }
        assert_eq!(names.epoch, 3);
        let (indexes, _) = names.indexes(&paths(0..2000), 1);
        assert_eq!(indexes.len(), MAX_NAMES);
    }

    #[test]
    fn names_took_any_room_however_small_the_history_was() {
        let mut room = NamesRoom::new(3200, 0);
        let mut names = MetricNames::default();
        let take = |names: &mut MetricNames, paths: &[Arc<str>], room: &mut NamesRoom| {
            let fits = names.affordable(paths, room);
            let paths =
                paths.iter().zip(fits).filter(|(_, fits)| *fits).map(|(path, _)| path.clone());
            names.indexes(&paths.collect::<Vec<_>>(), 1).0.len()
        };
        assert_eq!(take(&mut names, &paths(0..10), &mut room), 10);
        assert_eq!(take(&mut names, &paths(0..100), &mut room), 18, "100 bytes");
        assert_eq!(take(&mut names, &paths(0..10), &mut room), 10, "what is known goes on");
        assert_eq!(room.left, 800 - 98);
        let mut little = NamesRoom { left: 12, of_list: 100 };
        assert_eq!(take(&mut MetricNames::default(), &paths(0..9), &mut little), 2);
        assert_eq!(NamesRoom::new(3200, 5000).left, 0);
    }

    #[test]
    fn keys_belong_to_one_host() {
        let (from, to) = MetricNames::keys("web1");
        let key = MetricNames::key("web1", 7);
        assert!(from < key && key < to);
        assert!(MetricNames::key("web10", 0) > to || MetricNames::key("web10", 0) < from);
    }

    #[test]
    fn a_stored_list_keeps_its_names() {
        let stored = r#"{"epoch":1,"day":20778,"paths":["cpu.load","disk.root.used"]}"#;
        let names: MetricNames = serde_json::from_str(stored).unwrap();
        assert_eq!((names.epoch, names.paths.len()), (1, 2));
        assert_eq!(serde_json::to_string(&names).unwrap(), stored);
    }

    proptest! {
        #[test]
        fn every_row_comes_back(
            epoch: u16,
            count: u32,
            set in proptest::collection::btree_map(0..1024u16, (-1e9..1e9f32, 0..3u8), 0..60)
        ) {
            let points = set.into_iter().map(|(name, (value, spread))| {
                let spread = value.abs() * f32::from(spread);
                (name, point(value, value - spread, value + spread))
            });
            let row = SampleRow { epoch, count, points: points.collect() };
            let read = SampleRow::decode(&row.encode()).unwrap();
            prop_assert_eq!((read.epoch, read.count), (epoch, count));
            prop_assert_eq!(read.points.len(), row.points.len());
            for ((name, was), (same, is)) in row.points.iter().zip(&read.points) {
                prop_assert_eq!(name, same);
                for (was, is) in [(was.mean, is.mean), (was.least, is.least), (was.most, is.most)] {
                    prop_assert!((was - is).abs() <= was.abs() * 6e-4, "{} {}", was, is);
                }
            }
        }

        #[test]
        fn what_is_no_row_is_none(bytes: Vec<u8>) {
            let _ = SampleRow::decode(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend(bytes);
            let _ = SampleRow::decode(&versioned);
        }
    }
}
