//! A read transaction: the store as it is at one moment, read in another thread than the one that
//! writes. Of tables that are shared, which have none: each answer as it is when it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::error;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::disk_thread::{DiskThread, PATIENCE};
use super::file::{catch_panics, value_of};
use super::history_limit::HistoryBytes;
use super::shared::{KeyRange, SharedTables, last_rows, rows_in};
use super::table::{RawRow, Table};
use crate::btree::InsertAll;

type Rows = ReadOnlyTable<&'static str, &'static [u8]>;

/// The store as it is at one moment. redb reuses no page of that moment while this lives: drop it
/// soon. A disk that hangs is waited for five seconds, and then has no rows.
pub struct Snapshot {
    source: Source,
    history: HistoryBytes,
    /// Something could not be read: what was read is not all that there is.
    failed: AtomicBool,
}

enum Source {
    File { transaction: Arc<ReadTransaction>, reader: Arc<DiskThread<()>> },
    Shared(Arc<dyn SharedTables>),
}

impl Snapshot {
    pub(super) fn new(
        transaction: ReadTransaction,
        history: HistoryBytes,
        reader: Arc<DiskThread<()>>,
    ) -> Snapshot {
        let source = Source::File { transaction: Arc::new(transaction), reader };
        Snapshot { source, history, failed: AtomicBool::new(false) }
    }

    /// Tables that are shared, as they are whenever they are asked.
    pub fn shared(tables: Arc<dyn SharedTables>, history: HistoryBytes) -> Snapshot {
        Snapshot { source: Source::Shared(tables), history, failed: AtomicBool::new(false) }
    }

    /// Whether all that was asked of it could be read.
    pub fn is_sound(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    /// Reads; nothing, with a line in the log, where that cannot be.
    fn read<T: Default + Send + 'static>(
        &self,
        table: Table,
        of_file: impl FnOnce(&Rows) -> Result<T, redb::Error> + Send + 'static,
        of_shared: impl FnOnce(&dyn SharedTables) -> Result<T, String>,
    ) -> T {
        self.try_read(PATIENCE, table, of_file, of_shared).unwrap_or_default()
    }

    /// The same; none where that cannot be. A file is read in the thread for it.
    fn try_read<T: Default + Send + 'static>(
        &self,
        limit: Duration,
        table: Table,
        of_file: impl FnOnce(&Rows) -> Result<T, redb::Error> + Send + 'static,
        of_shared: impl FnOnce(&dyn SharedTables) -> Result<T, String>,
    ) -> Option<T> {
        let answer = match &self.source {
            Source::File { transaction, reader } => {
                let transaction = Arc::clone(transaction);
                let read = move |(): &mut ()| read_table(&transaction, table, of_file);
                let no_answer = || Err("the disk does not answer".to_owned());
                reader.ask(limit, read).unwrap_or_else(no_answer)
            }
            Source::Shared(tables) => of_shared(&**tables),
        };
        if let Err(why) = &answer {
            self.failed.store(true, Ordering::Relaxed);
            error!("the store's {table:?} cannot be read: {why}");
        }
        answer.ok()
    }

    /// Every row of a table, by key; none when it cannot be read. A disk that answers something is
    /// waited for until `limit`.
    pub(super) fn rows(&self, limit: Duration, table: Table) -> Option<Vec<RawRow>> {
        let all = move |rows: &Rows| take_rows(table, rows.iter()?, usize::MAX);
        self.try_read(limit, table, all, |tables| tables.rows(table))
    }

    /// One row, if it is there; the outer option is none when it cannot be read.
    pub(super) fn row(&self, table: Table, key: &str) -> Option<Option<Vec<u8>>> {
        let keys = vec![key.to_owned()];
        self.try_get_all(table, keys).map(|mut rows| rows.pop().flatten())
    }

    /// Several rows of one table, in the order of the keys.
    pub fn get_all<'a>(
        &self,
        table: Table,
        keys: impl Iterator<Item = &'a str>,
    ) -> Vec<Option<Vec<u8>>> {
        self.try_get_all(table, keys.map(str::to_owned).collect()).unwrap_or_default()
    }

    fn try_get_all(&self, table: Table, keys: Vec<String>) -> Option<Vec<Option<Vec<u8>>>> {
        let keys = Arc::new(keys);
        let of_file = Arc::clone(&keys);
        self.try_read(
            PATIENCE,
            table,
            move |rows| of_file.iter().map(|key| value_at(table, key, rows)).collect(),
            |tables| tables.get_all(table, &keys),
        )
    }

    /// The first `count` rows from a key on, before another.
    pub fn range(&self, table: Table, from: &str, to: &str, count: usize) -> Vec<RawRow> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let range = KeyRange { from: from.clone(), to: Some(to.clone()), last_first: false };
        self.read(
            table,
            move |rows| take_rows(table, rows.range(from.as_str()..to.as_str())?, count),
            |tables| rows_in(tables, table, range, count),
        )
    }

    /// The last row before a key, from another on.
    pub fn last(&self, table: Table, from: &str, to: &str) -> Option<RawRow> {
        self.last_of_each(table, vec![(from.to_owned(), to.to_owned())]).pop().flatten()
    }

    /// The same for several ranges of keys, in their order.
    pub fn last_of_each(&self, table: Table, ranges: Vec<(String, String)>) -> Vec<Option<RawRow>> {
        let of_file = ranges.clone();
        self.read(
            table,
            move |rows| {
                let last = |(from, to): &(String, String)| {
                    let range = rows.range(from.as_str()..to.as_str())?;
                    Ok(take_rows(table, range.rev(), 1)?.pop())
                };
                of_file.iter().map(last).collect()
            },
            |tables| last_rows(tables, table, ranges),
        )
    }

    /// At most `count` rows, those with the greatest keys below `before` first.
    pub fn newest(&self, table: Table, before: Option<&str>, count: usize) -> Vec<RawRow> {
        let before = before.map(str::to_owned);
        let range = KeyRange { from: String::new(), to: before.clone(), last_first: true };
        self.read(
            table,
            move |rows| {
                let range = match &before {
                    Some(before) => rows.range(..before.as_str())?,
                    None => rows.iter()?,
                };
                take_rows(table, range.rev(), count)
            },
            |tables| rows_in(tables, table, range, count),
        )
    }

    /// The keys of the oldest rows before a key, `count` at most.
    pub fn keys_before(&self, table: Table, from: &str, to: &str, count: usize) -> Vec<String> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let range = KeyRange { from: from.clone(), to: Some(to.clone()), last_first: false };
        self.read(
            table,
            move |rows| {
                let keys = rows.range(from.as_str()..to.as_str())?.take(count);
                keys.map(|row| Ok(row?.0.value().to_owned())).collect()
            },
            |tables| Ok(tables.keys_in(table, &[range], count)?.pop().unwrap_or_default()),
        )
    }

    /// How many bytes the keys and values of a table of the history have.
    pub fn bytes(&self, table: Table) -> u64 {
        self.history.of(table)
    }
}

fn value_at(table: Table, key: &str, rows: &Rows) -> Result<Option<Vec<u8>>, redb::Error> {
    Ok(rows.get(key)?.and_then(|stored| value_of(table, key, stored.value())))
}

fn read_table<T: Default>(
    transaction: &ReadTransaction,
    table: Table,
    read: impl FnOnce(&Rows) -> Result<T, redb::Error>,
) -> Result<T, String> {
    catch_panics(|| match transaction.open_table(table.definition()) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(T::default()),
        rows => read(&rows?),
    })
}

/// The first `count` rows of a range that are what was stored: fewer only where no more follow.
fn take_rows<'a>(
    table: Table,
    range: impl Iterator<
        Item = Result<
            (redb::AccessGuard<'a, &'static str>, redb::AccessGuard<'a, &'static [u8]>),
            redb::StorageError,
        >,
    >,
    count: usize,
) -> Result<Vec<RawRow>, redb::Error> {
    let mut rows = Vec::new();
    for row in range {
        if rows.len() == count {
            break;
        }
        let (key, stored) = row?;
        if let Some(value) = value_of(table, key.value(), stored.value()) {
            rows.push((key.value().to_owned(), value));
        }
    }
    Ok(rows)
}

/// The rows that can be parsed. One that cannot is logged.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    table: Table,
    rows: Vec<RawRow>,
) -> Vec<(String, T)> {
    let parse = |(key, value): (String, Vec<u8>)| match serde_json::from_slice(&value) {
        Ok(row) => Some((key, row)),
        Err(why) => {
            error!("the store's {table:?} row {key} is damaged and ignored: {why}");
            None
        }
    };
    rows.into_iter().filter_map(parse).collect()
}

/// One table as it is at one moment, with the rows that are not on disk yet.
pub struct TableView {
    pub(super) table: Table,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) pending: BTreeMap<String, Option<Vec<u8>>>,
}

impl TableView {
    /// At most `count` rows, those with the greatest keys below `before` first.
    pub fn newest(&self, before: Option<&str>, count: usize) -> Vec<RawRow> {
        let stored = self.snapshot.as_ref().map(|stored| stored.newest(self.table, before, count));
        let mut rows: BTreeMap<_, _> = stored.unwrap_or_default().into_iter().insert_all();
        let below = |key: &str| before.is_none_or(|before| key < before);
        for (key, value) in self.pending.iter().filter(|(key, _)| below(key)) {
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
        rows.into_iter().rev().take(count).collect()
    }

    /// Every row that can be parsed, by key.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Vec<(String, T)> {
        let mut rows = self.newest(None, usize::MAX);
        rows.reverse();
        parse(self.table, rows)
    }
}

#[cfg(test)]
mod tests {
    use redb::ReadableDatabase;

    use super::*;
    use crate::store::check;

    #[test]
    fn a_page_with_a_damaged_row_was_taken_for_the_last_one() {
        let backend = redb::backends::InMemoryBackend::new();
        let database = redb::Database::builder().create_with_backend(backend).unwrap();
        let writing = database.begin_write().unwrap();
        let mut rows = writing.open_table(Table::Events.definition()).unwrap();
        for key in ["1", "2", "3", "4"] {
            let mut stored = check::seal(Table::Events, key, b"{}");
            stored[0] ^= u8::from(key == "2");
            rows.insert(key, stored.as_slice()).unwrap();
        }
        drop(rows);
        writing.commit().unwrap();
        let reading = database.begin_read().unwrap();
        let rows = reading.open_table(Table::Events.definition()).unwrap();
        let keys = |count| {
            let rows = take_rows(Table::Events, rows.iter().unwrap(), count).unwrap();
            rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(2), ["1", "3"]);
        assert_eq!(keys(9), ["1", "3", "4"]);
    }
}
