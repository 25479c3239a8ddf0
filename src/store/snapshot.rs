//! What is on disk at a moment, read by whoever has the time: the courier goes on meanwhile.

use log::error;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::Table;
use super::file::guarded;

/// The store as it is at a moment. While it lives no page of that moment is used again: let go of
/// it soon.
pub struct Snapshot(ReadTransaction);

type Row = (String, Vec<u8>);

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction) -> Snapshot {
        Snapshot(transaction)
    }

    fn look<T: Default>(
        &self,
        table: Table,
        look: impl FnOnce(&redb::ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, redb::Error>,
    ) -> T {
        let looked = guarded(|| match self.0.open_table(table.definition()) {
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(T::default()),
            rows => look(&rows?),
        });
        looked.unwrap_or_else(|why| {
            error!("the store's {table:?} cannot be read: {why}");
            T::default()
        })
    }

    /// One row.
    pub fn get(&self, table: Table, key: &str) -> Option<Vec<u8>> {
        self.look(table, |rows| Ok(rows.get(key)?.map(|value| value.value().to_owned())))
    }

    /// Several rows of one table, in the order of the keys.
    pub fn get_all<'a>(
        &self,
        table: Table,
        keys: impl Iterator<Item = &'a str>,
    ) -> Vec<Option<Vec<u8>>> {
        self.look(table, |rows| {
            keys.map(|key| Ok(rows.get(key)?.map(|value| value.value().to_owned()))).collect()
        })
    }

    /// The first `count` rows from a key on, before another.
    pub fn range(&self, table: Table, from: &str, to: &str, count: usize) -> Vec<Row> {
        self.look(table, |rows| {
            let row = |row: Result<(redb::AccessGuard<&str>, redb::AccessGuard<&[u8]>), _>| {
                let (key, value) = row?;
                Ok((key.value().to_owned(), value.value().to_owned()))
            };
            rows.range(from..to)?.take(count).map(row).collect()
        })
    }

    /// The last row before a key, from another on.
    pub fn last(&self, table: Table, from: &str, to: &str) -> Option<Row> {
        self.look(table, |rows| match rows.range(from..to)?.next_back() {
            None => Ok(None),
            Some(row) => {
                let (key, value) = row?;
                Ok(Some((key.value().to_owned(), value.value().to_owned())))
            }
        })
    }

    /// At most `count` rows, those with the greatest keys below `before` first.
    pub fn newest(&self, table: Table, before: Option<&str>, count: usize) -> Vec<Row> {
        self.look(table, |rows| {
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
        self.look(table, |rows| {
            let keys = rows.range(from..to)?.take(count);
            keys.map(|row| Ok(row?.0.value().to_owned())).collect()
        })
    }

    /// The oldest keys whose rows together have so many bytes.
    pub fn oldest(&self, table: Table, bytes: u64) -> Vec<String> {
        self.look(table, |rows| {
            let mut keys = Vec::new();
            let mut sum = 0;
            for row in rows.iter()? {
                let (key, value) = row?;
                if sum >= bytes {
                    break;
                }
                sum += (key.value().len() + value.value().len()) as u64;
                keys.push(key.value().to_owned());
            }
            Ok(keys)
        })
    }

    /// How many bytes a table takes on disk. All of its pages are looked at.
    pub fn bytes(&self, table: Table) -> u64 {
        self.look(table, |rows| {
            let stats = rows.stats()?;
            Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
        })
    }
}
