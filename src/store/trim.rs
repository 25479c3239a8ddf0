//! What each commit removes from the history: how many bytes that has, and which rows go.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use redb::{ReadableTable, WriteTransaction};

use super::check;
use super::history_limit::{BY_TIME, HistoryBytes, HistoryLimit, WEIGHED, pending_bytes};
use super::table::{Rows, Table};

/// How many bytes of history a commit removes, and four for each that it adds: a limit that a reload
/// has made lower is reached in several.
const MAX_TRIMMED: u64 = 1_000_000;
/// How many rows a commit looks at in search of those that matter less.
const MAX_SCANNED: usize = 10_000;

/// Is shown a row: its key, its value, which is none of a row that is damaged, and how many bytes are
/// stored. False when it has seen enough.
pub(super) type RowVisitor<'a> = dyn FnMut(&str, Option<&[u8]>, usize) -> bool + 'a;

/// The rows of the history, before they are trimmed.
pub(super) trait HistoryRows {
    /// Visits the rows of a table from a key on, until `visit` has seen enough.
    fn scan(&self, table: Table, from: &str, visit: &mut RowVisitor<'_>)
    -> Result<(), redb::Error>;
}

/// How much history there is, and where it was looked at.
pub(super) struct Trimmer {
    pub(super) bytes: HistoryBytes,
    /// By table, from where on there may be rows that matter less.
    minor_from: BTreeMap<Table, String>,
}

impl Trimmer {
    /// For a history of so many bytes.
    pub(super) fn new(bytes: HistoryBytes) -> Trimmer {
        Trimmer { bytes, minor_from: BTreeMap::new() }
    }

    /// The removal of what is too much, once `rows` were written.
    pub(super) fn excess_rows(
        &mut self,
        stored: &dyn HistoryRows,
        limit: &HistoryLimit,
        rows: &Rows,
    ) -> Result<Rows, redb::Error> {
        let Some(excess) = limit.excess(self.bytes.counted(limit)) else { return Ok(Rows::new()) };
        let mut trim = Trim {
            excess: excess.min(4 * pending_bytes(rows) + MAX_TRIMMED),
            is_urgent: excess > limit.max_bytes / 4,
            removed: 0,
            rows: Rows::new(),
        };
        trim.choose(stored, limit, self)?;
        Ok(trim.rows)
    }
}

/// The choice of the rows that are removed from the history.
struct Trim {
    /// How many bytes are to go.
    excess: u64,
    /// There are so many too many that alarms do not wait for messages that were not found yet.
    is_urgent: bool,
    removed: u64,
    rows: Rows,
}

impl Trim {
    fn choose(
        &mut self,
        stored: &dyn HistoryRows,
        limit: &HistoryLimit,
        history: &mut Trimmer,
    ) -> Result<(), redb::Error> {
        let mut scanned = 0;
        let mut weighed = WEIGHED;
        weighed.sort_unstable_by_key(|table| Reverse(history.bytes.of(*table)));
        for table in weighed {
            let from = history.minor_from.entry(table).or_default();
            let start = from.clone();
            stored.scan(table, &start, &mut |key, value, length| {
                if self.removed >= self.excess || scanned >= MAX_SCANNED {
                    return false;
                }
                scanned += 1;
                if value.is_some_and(limit.is_minor) {
                    self.remove(table, key, length);
                }
                // Behind this one: no key has a character before it.
                *from = format!("{key}\0");
                true
            })?;
        }
        if scanned >= MAX_SCANNED && !self.is_urgent {
            return Ok(());
        }
        self.choose_oldest(stored, history.bytes)
    }

    fn choose_oldest(
        &mut self,
        stored: &dyn HistoryRows,
        bytes: HistoryBytes,
    ) -> Result<(), redb::Error> {
        let Some(table) = BY_TIME.into_iter().max_by_key(|table| bytes.of(*table)) else {
            return Ok(());
        };
        stored.scan(table, "", &mut |key, _, length| {
            let more = self.removed < self.excess;
            if more && !self.rows.contains_key(&(table, key.to_owned())) {
                self.remove(table, key, length);
            }
            more
        })
    }

    fn remove(&mut self, table: Table, key: &str, length: usize) {
        self.removed += (key.len() + length) as u64;
        self.rows.insert((table, key.to_owned()), None);
    }
}

impl HistoryRows for WriteTransaction {
    fn scan(
        &self,
        table: Table,
        from: &str,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), redb::Error> {
        for row in self.open_table(table.definition())?.range(from..)? {
            let (key, stored) = row?;
            let (key, stored) = (key.value(), stored.value());
            if !visit(key, check::open(table, key, stored), stored.len()) {
                break;
            }
        }
        Ok(())
    }
}
