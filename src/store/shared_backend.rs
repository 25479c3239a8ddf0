//! The state in tables that several daemons share: how it is committed to them, written anew where they
//! have lost some of it, and kept from growing.

use std::sync::Arc;

use super::directory::DirectoryLock;
use super::history_limit::HistoryLimit;
use super::shared::{
    KeyRange, ROWS_PER_READ, SharedCommit, SharedCommitError, SharedPosition, SharedTables, rows_in,
};
use super::snapshot::Snapshot;
use super::table::{Rows, Table};
use super::trim::{HistoryRows, RowVisitor, Trimmer};

/// The store's side of shared tables.
pub(super) struct SharedBackend {
    /// Held for as long as this daemon writes; none where it could not be had.
    _lock: Option<DirectoryLock>,
    tables: Arc<dyn SharedTables>,
    /// The last commit that was confirmed.
    known: u64,
    trimmer: Trimmer,
    /// All rows are pending, since commits were lost.
    rewrites: bool,
}

impl SharedBackend {
    /// The tables, and whether they can be read.
    pub(super) fn open(
        lock: Option<DirectoryLock>,
        tables: Arc<dyn SharedTables>,
    ) -> (SharedBackend, Result<(), String>) {
        let position = tables.position();
        let SharedPosition { number, history } = position.clone().unwrap_or_default();
        let trimmer = Trimmer::new(history);
        let backend =
            SharedBackend { _lock: lock, tables, known: number, trimmer, rewrites: false };
        (backend, position.map(drop))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::shared(Arc::clone(&self.tables), self.trimmer.bytes)
    }

    /// From now on all rows are pending.
    pub(super) fn rewrite(&mut self) {
        self.rewrites = true;
    }

    /// Writes the pending rows, of which none is left then but the removal of too much history. Where
    /// the tables could not be read, only rows of tables that only grow are written.
    pub(super) fn commit(
        &mut self,
        pending: &mut Rows,
        limit: Option<HistoryLimit>,
        unread: bool,
    ) -> Result<(), SharedCommitError> {
        if unread {
            pending.retain(|(table, _), _| table.is_append_only());
        }
        let (known, rewrites) = (if unread { 0 } else { self.known }, self.rewrites);
        let position = self.tables.commit(&SharedCommit { rows: pending, known, rewrites })?;
        (self.known, self.rewrites) = (position.number, false);
        self.trimmer.bytes = position.history;
        let rows = std::mem::take(pending);
        if let Some(limit) = limit {
            // What cannot be found now is found after a later commit.
            *pending = self.trimmer.excess_rows(&self.tables, &limit, &rows).unwrap_or_default();
        }
        Ok(())
    }
}

impl HistoryRows for Arc<dyn SharedTables> {
    fn scan(
        &self,
        table: Table,
        from: &str,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), redb::Error> {
        let mut range = KeyRange { from: from.to_owned(), to: None, last_first: false };
        loop {
            let rows = rows_in(&**self, table, range.clone(), ROWS_PER_READ)
                .map_err(|why| redb::Error::Io(std::io::Error::other(why)))?;
            for (key, value) in &rows {
                if !visit(key, Some(value), value.len()) {
                    return Ok(());
                }
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == ROWS_PER_READ) else {
                return Ok(());
            };
            range.from = format!("{last}\0");
        }
    }
}
