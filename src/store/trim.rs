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

/// The history of an open file.
pub(super) struct History {
    pub(super) bytes: HistoryBytes,
    /// By table, from where on there may be rows that matter less.
    minor_from: BTreeMap<Table, String>,
}

impl History {
    /// A history of so many bytes.
    pub(super) fn new(bytes: HistoryBytes) -> History {
        History { bytes, minor_from: BTreeMap::new() }
    }

    /// The removal of what is too much, in the transaction that has written `rows`.
    pub(super) fn excess_rows(
        &mut self,
        transaction: &WriteTransaction,
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
        trim.choose(transaction, limit, self)?;
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
        transaction: &WriteTransaction,
        limit: &HistoryLimit,
        history: &mut History,
    ) -> Result<(), redb::Error> {
        let mut scanned = 0;
        let mut weighed = WEIGHED;
        weighed.sort_unstable_by_key(|table| Reverse(history.bytes.of(*table)));
        for table in weighed {
            let from = history.minor_from.entry(table).or_default();
            let start = from.clone();
            scan_rows(transaction, table, &start, |key, stored| {
                if self.removed >= self.excess || scanned >= MAX_SCANNED {
                    return false;
                }
                scanned += 1;
                if check::open(table, key, stored).is_some_and(limit.is_minor) {
                    self.remove(table, key, stored);
                }
                // Behind this one: no key has a character before it.
                *from = format!("{key}\0");
                true
            })?;
        }
        if scanned >= MAX_SCANNED && !self.is_urgent {
            return Ok(());
        }
        self.choose_oldest(transaction, history.bytes)
    }

    fn choose_oldest(
        &mut self,
        transaction: &WriteTransaction,
        bytes: HistoryBytes,
    ) -> Result<(), redb::Error> {
        let Some(table) = BY_TIME.into_iter().max_by_key(|table| bytes.of(*table)) else {
            return Ok(());
        };
        scan_rows(transaction, table, "", |key, stored| {
            let more = self.removed < self.excess;
            if more && !self.rows.contains_key(&(table, key.to_owned())) {
                self.remove(table, key, stored);
            }
            more
        })
    }

    fn remove(&mut self, table: Table, key: &str, stored: &[u8]) {
        self.removed += (key.len() + stored.len()) as u64;
        self.rows.insert((table, key.to_owned()), None);
    }
}

/// Visits the rows of a table from a key on, until `visit` has seen enough.
fn scan_rows(
    transaction: &WriteTransaction,
    table: Table,
    from: &str,
    mut visit: impl FnMut(&str, &[u8]) -> bool,
) -> Result<(), redb::Error> {
    for row in transaction.open_table(table.definition())?.range(from..)? {
        let (key, stored) = row?;
        if !visit(key.value(), stored.value()) {
            break;
        }
    }
    Ok(())
}
