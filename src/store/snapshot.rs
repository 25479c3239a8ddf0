//! A read transaction: the store as it is at one moment, read in a thread of its own while the courier
//! goes on writing.

use log::error;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::file::catch_panics;
use super::table::{RawRow, Table};

/// The store as it is at one moment. redb reuses no page of that moment while this lives: drop it
/// soon.
pub struct Snapshot(ReadTransaction);

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction) -> Snapshot {
        Snapshot(transaction)
    }

    fn read<T: Default>(
        &self,
        table: Table,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, redb::Error>,
    ) -> T {
        let result = catch_panics(|| match self.0.open_table(table.definition()) {
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(T::default()),
            rows => read(&rows?),
        });
        result.unwrap_or_else(|why| {
            error!("the store's {table:?} cannot be read: {why}");
            T::default()
        })
    }

    /// One row.
    pub fn get(&self, table: Table, key: &str) -> Option<Vec<u8>> {
        self.read(table, |rows| Ok(rows.get(key)?.map(|value| value.value().to_owned())))
    }

    /// Several rows of one table, in the order of the keys.
    pub fn get_all<'a>(
        &self,
        table: Table,
        keys: impl Iterator<Item = &'a str>,
    ) -> Vec<Option<Vec<u8>>> {
        self.read(table, |rows| {
            keys.map(|key| Ok(rows.get(key)?.map(|value| value.value().to_owned()))).collect()
        })
    }

    /// The first `count` rows from a key on, before another.
    pub fn range(&self, table: Table, from: &str, to: &str, count: usize) -> Vec<RawRow> {
        self.read(table, |rows| {
            let row = |row: Result<(redb::AccessGuard<&str>, redb::AccessGuard<&[u8]>), _>| {
                let (key, value) = row?;
                Ok((key.value().to_owned(), value.value().to_owned()))
            };
            rows.range(from..to)?.take(count).map(row).collect()
        })
    }

    /// The last row before a key, from another on.
    pub fn last(&self, table: Table, from: &str, to: &str) -> Option<RawRow> {
        self.read(table, |rows| match rows.range(from..to)?.next_back() {
            None => Ok(None),
            Some(row) => {
                let (key, value) = row?;
                Ok(Some((key.value().to_owned(), value.value().to_owned())))
            }
        })
    }

    /// At most `count` rows, those with the greatest keys below `before` first.
    pub fn newest(&self, table: Table, before: Option<&str>, count: usize) -> Vec<RawRow> {
        self.read(table, |rows| {
            let range = match before {
                Some(before) => rows.range(..before)?,
                None => rows.iter()?,
            };
            let row = |row: Result<(redb::AccessGuard<&str>, redb::AccessGuard<&[u8]>), _>| {
                let (key, value) = row?;
                Ok((key.value().to_owned(), value.value().to_owned()))
            };
            range.rev().take(count).map(row).collect()
        })
    }

    /// The keys of the oldest rows before a key, `count` at most.
    pub fn keys_before(&self, table: Table, from: &str, to: &str, count: usize) -> Vec<String> {
        self.read(table, |rows| {
            let keys = rows.range(from..to)?.take(count);
            keys.map(|row| Ok(row?.0.value().to_owned())).collect()
        })
    }

    /// How many bytes a table takes on disk. Reads all of its pages.
    pub fn bytes(&self, table: Table) -> u64 {
        self.read(table, |rows| {
            let stats = rows.stats()?;
            Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
        })
    }
}
