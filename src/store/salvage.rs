//! Reads the rows of a damaged file, past redb, which trusts its pages: what is read is what was
//! stored, and what is missing is known to be.
//!
//! The format is that of redb 3 and 4 (its design.md): a header with two commit slots, and trees of
//! pages. A pointer to a page stands beside the checksum of that page. A page whose checksum is
//! right is right; one that was changed is believed row by row, by the rows' own checks, if what
//! points to it is right: else it may be a page of another time.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_128;

use super::check;
use super::position::{Position, STORE_KEY, position_of};
use super::table::Table;

const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
const PAGE: u64 = 4096;
/// redb's regions, without a header of their own.
const REGION: u64 = 1 << 32;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const SLOTS: [usize; 2] = [64, 192];
const SLOT_LENGTH: usize = 128;
/// Trees of so many levels have more rows than any disk.
const MAX_DEPTH: usize = 40;
/// A key that is reported is cut to so many characters: it may be damaged itself.
const MAX_KEY: usize = 100;

/// Called with a key, its value if that can be found, and whether the page of both is right.
type EachEntry<'f> = &'f mut dyn FnMut(&[u8], Option<&[u8]>, bool);
type EachRow<'f> = &'f mut dyn FnMut(&str, Option<&[u8]>, bool);

/// Where a page is, and its checksum.
#[derive(Clone, Copy)]
struct Pointer {
    page: u64,
    checksum: u128,
    /// Whether it comes from a page, or a slot, whose own checksum is right.
    sound: bool,
}

/// The root of a table, and how many rows it says that it has.
struct Root {
    pointer: Option<Pointer>,
    /// None where that may be wrong.
    rows: Option<u64>,
}

/// What could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// In people's words, those of which something is known.
    pub(super) rows: Vec<String>,
    /// How many rows there are in all.
    pub(super) count: usize,
    /// More of these may be lost.
    pub(super) uncounted: Vec<&'static str>,
    /// Those of [`Table::Pipelines`], of which other people must hear as well.
    pub(super) alerts: Vec<String>,
    history_only: bool,
}

impl Losses {
    /// None yet. Where the process still has its state in memory, only history can be lost.
    pub(super) fn of_history_only(history_only: bool) -> Losses {
        Losses { history_only, ..Losses::default() }
    }

    fn add_uncounted(&mut self, table: Table) {
        self.uncounted.push(table.people());
        if table == Table::Pipelines {
            self.alerts.push(format!("perhaps {}", table.people()));
        }
    }
}

/// A damaged file.
pub(super) struct Salvage<'a> {
    file: &'a File,
    tables: BTreeMap<Vec<u8>, Root>,
    /// Whether the list of tables could be read to its end.
    complete: bool,
    /// Whether rows carry their checks; without them only pages that are right are believed.
    checked: bool,
    position: Option<Position>,
}

impl<'a> Salvage<'a> {
    /// The newest state of the file that can be found; none when there is none.
    pub(super) fn open(file: &'a File) -> Option<Salvage<'a>> {
        let mut header = [0; SLOTS[1] + SLOT_LENGTH];
        file.read_exact_at(&mut header, 0).ok()?;
        let mut found: Vec<(u64, Salvage)> = Vec::new();
        for offset in SLOTS {
            let (transaction, root) = read_slot(&header[offset..offset + SLOT_LENGTH]);
            let mut salvage = Salvage {
                file,
                tables: BTreeMap::new(),
                complete: true,
                checked: true,
                position: None,
            };
            salvage.read_tables(root);
            if !salvage.tables.is_empty() {
                salvage.read_position();
                found.push((transaction, salvage));
            }
        }
        // A file that is not redb's may still hold pages that look like it.
        if header[..MAGIC.len()] != MAGIC && found.iter().all(|(_, one)| one.position.is_none()) {
            return None;
        }
        let commit = |one: &Salvage| one.position.as_ref().map(|position| position.commit);
        found.sort_unstable_by_key(|(transaction, one)| (commit(one), *transaction));
        found.pop().map(|(_, salvage)| salvage)
    }

    /// Which commit it is; none when that cannot be read.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Reads the list of tables, which is a tree as well.
    fn read_tables(&mut self, root: Pointer) {
        let mut tables = BTreeMap::new();
        let whole = self.walk(root, 0, &mut |name, definition, sound| {
            if let Some(root) = definition.and_then(|bytes| read_definition(bytes, sound)) {
                tables.insert(name.to_vec(), root);
            }
        });
        self.tables = tables;
        self.complete = whole;
    }

    fn read_position(&mut self) {
        let (mut checked, mut position) = (false, None);
        for table in Table::ALL {
            self.visit(table, &mut |key, stored, _| {
                let value = stored.and_then(|stored| check::open(table, key, stored));
                checked |= value.is_some();
                if table == Table::Meta && key == STORE_KEY {
                    position = value.and_then(position_of);
                }
            });
            // Any row tells.
            if checked {
                break;
            }
        }
        (self.checked, self.position) = (checked, position);
    }

    /// Every row of a table that is what was stored; what is missing goes to `losses`.
    pub(super) fn read(&self, table: Table, losses: &mut Losses, mut row: impl FnMut(&str, &[u8])) {
        let counts = table.is_history() || !losses.history_only;
        let Some(root) = self.tables.get(table.name().as_bytes()) else {
            // Those of an earlier version have fewer tables.
            if counts && (!self.complete || self.checked) {
                losses.add_uncounted(table);
            }
            return;
        };
        let (mut good, mut named) = (0_u64, Vec::new());
        let whole = self.visit(table, &mut |key, stored, sound| {
            let value = match stored {
                Some(stored) if self.checked => check::open(table, key, stored),
                stored => stored.filter(|_| sound),
            };
            match value {
                Some(value) => {
                    good += 1;
                    row(key, value);
                }
                None => named.push(describe(table, key)),
            }
        });
        let counted = root.rows.map(|rows| rows.saturating_sub(good));
        let lost = counted.map_or(0, |lost| usize::try_from(lost).unwrap_or(usize::MAX));
        if !counts || (lost == 0 && named.is_empty() && (whole || root.rows.is_some())) {
            return;
        }
        if root.rows.is_none() && !whole {
            losses.add_uncounted(table);
        }
        let lost = lost.max(named.len());
        losses.count += lost;
        let unnamed = lost - named.len();
        if unnamed > 0 {
            named.push(format!("{unnamed} of the {}", table.people()));
        }
        if table == Table::Pipelines {
            losses.alerts.extend(named.iter().cloned());
        }
        losses.rows.append(&mut named);
    }

    fn visit(&self, table: Table, row: EachRow) -> bool {
        let Some(root) = self.tables.get(table.name().as_bytes()) else { return false };
        let Some(pointer) = root.pointer else { return true };
        self.walk(pointer, 0, &mut |key, value, sound| {
            row(&String::from_utf8_lossy(key), value, sound);
        })
    }

    /// Calls `entry` with each key, its value, and whether its page is right; false when a part of
    /// the tree cannot be read.
    fn walk(&self, pointer: Pointer, depth: usize, entry: EachEntry) -> bool {
        let Some(page) = self.page(pointer.page).filter(|_| depth < MAX_DEPTH) else {
            return false;
        };
        let end = match page[0] {
            LEAF => leaf_end(&page),
            BRANCH => branch_end(&page),
            _ => None,
        };
        let sound = end
            .and_then(|end| page.get(..end))
            .is_some_and(|bytes| xxh3_128(bytes) == pointer.checksum);
        if !sound && !pointer.sound {
            return false;
        }
        match page[0] {
            LEAF => visit_leaf(&page, sound, entry) && sound,
            BRANCH => {
                let mut whole = sound;
                for child in children(&page, sound) {
                    whole &= self.walk(child, depth + 1, entry);
                }
                whole
            }
            _ => false,
        }
    }

    /// The bytes of a page; none when there is no such page.
    fn page(&self, number: u64) -> Option<Vec<u8>> {
        let (order, region) = (number >> 59, (number >> 20) & 0xf_ffff);
        let index = number & (0xf_ffff_u64.checked_shr(u32::try_from(order).ok()?)?);
        let length = PAGE.checked_shl(u32::try_from(order).ok()?)?;
        let offset = PAGE + region * REGION + index * length;
        if offset.checked_add(length)? > self.file.metadata().ok()?.len() {
            return None;
        }
        let mut page = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut page, offset).ok()?;
        Some(page)
    }
}

/// The id of the transaction, and the root of the list of tables. One flipped bit is undone.
fn read_slot(slot: &[u8]) -> (u64, Pointer) {
    let is_sound = |slot: &[u8]| number(slot, 112, 16) == Some(xxh3_128(&slot[..112]));
    let mut slot = slot.to_vec();
    let flip = |slot: &mut [u8], bit: usize| slot[bit / 8] ^= 1 << (bit % 8);
    let mut sound = is_sound(&slot);
    for bit in 0..slot.len() * 8 {
        if sound {
            break;
        }
        flip(&mut slot, bit);
        sound = is_sound(&slot);
        if !sound {
            flip(&mut slot, bit);
        }
    }
    let transaction = number(&slot, 104, 8).unwrap_or_default() as u64;
    let nowhere = Pointer { page: 0, checksum: 0, sound: false };
    (transaction, read_pointer(&slot, 8, sound).unwrap_or(nowhere))
}

fn read_pointer(bytes: &[u8], at: usize, sound: bool) -> Option<Pointer> {
    let (page, checksum) = (number(bytes, at, 8)? as u64, number(bytes, at + 8, 16)?);
    Some(Pointer { page, checksum, sound })
}

/// What the list of tables says of one.
fn read_definition(bytes: &[u8], sound: bool) -> Option<Root> {
    let rows = number(bytes, 1, 8)? as u64;
    let has_rows = *bytes.get(9)? != 0;
    let pointer = read_pointer(bytes, 10, sound)?;
    Some(Root { pointer: has_rows.then_some(pointer), rows: sound.then_some(rows) })
}

/// A number of `length` bytes, the lowest first.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u128> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

fn offset(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    usize::try_from(number(bytes, at, length)?).ok()
}

/// Where the last value of a leaf ends, and with it what its checksum is about.
fn leaf_end(page: &[u8]) -> Option<usize> {
    let pairs = offset(page, 2, 2)?;
    offset(page, 4 + 4 * (pairs + pairs.checked_sub(1)?), 4)
}

/// Where the last key of a branch ends.
fn branch_end(page: &[u8]) -> Option<usize> {
    let keys = offset(page, 2, 2)?;
    offset(page, 8 + 24 * (keys + 1) + 4 * keys.checked_sub(1)?, 4)
}

/// Calls `entry` with each pair; false when there are some that cannot be found.
fn visit_leaf(page: &[u8], sound: bool, entry: EachEntry) -> bool {
    let Some(pairs) = offset(page, 2, 2) else { return false };
    let key_end = |pair: usize| offset(page, 4 + 4 * pair, 4);
    let value_end = |pair: usize| offset(page, 4 + 4 * (pairs + pair), 4);
    let mut whole = true;
    for pair in 0..pairs {
        let key_start = if pair == 0 { Some(4 + 8 * pairs) } else { key_end(pair - 1) };
        let value_start = if pair == 0 { key_end(pairs - 1) } else { value_end(pair - 1) };
        let part = |start: Option<usize>, end: Option<usize>| page.get(start?..end?);
        match part(key_start, key_end(pair)) {
            Some(key) => entry(key, part(value_start, value_end(pair)), sound),
            None => whole = false,
        }
    }
    whole
}

fn children(page: &[u8], sound: bool) -> Vec<Pointer> {
    let Some(count) = offset(page, 2, 2).map(|keys| keys + 1) else { return Vec::new() };
    let child = |index: usize| {
        let checksum = number(page, 8 + 16 * index, 16)?;
        let page = number(page, 8 + 16 * count + 8 * index, 8)? as u64;
        Some(Pointer { page, checksum, sound })
    };
    (0..count).filter_map(child).collect()
}

/// A row in people's words.
pub(super) fn describe(table: Table, key: &str) -> String {
    let key: String = key.chars().filter(|one| !one.is_control()).take(MAX_KEY).collect();
    format!("{} {key}", table.row_name())
}
