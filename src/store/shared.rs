//! Tables that several daemons share and one of them writes: what the store asks of them.

use super::history_limit::HistoryBytes;
use super::table::{RawRow, Rows, Table};

/// How many rows are read at a time.
pub(super) const ROWS_PER_READ: usize = 1000;

/// Tables that several daemons share. Each call waits for an answer, at most for a few seconds, and
/// may be made from any thread.
pub trait SharedTables: Send + Sync {
    /// The last commit, and how many bytes of history there are.
    ///
    /// # Errors
    /// A sentence: they cannot be asked.
    fn position(&self) -> Result<SharedPosition, String>;

    /// Every row of a table, by key.
    ///
    /// # Errors
    /// A sentence: they cannot be asked.
    fn rows(&self, table: Table) -> Result<Vec<RawRow>, String>;

    /// Several rows of one table, in the order of `keys`.
    ///
    /// # Errors
    /// A sentence: they cannot be asked.
    fn get_all(&self, table: Table, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, String>;

    /// For each range at most `count` keys: its first ones, or its last ones.
    ///
    /// # Errors
    /// A sentence: they cannot be asked.
    fn keys_in(
        &self,
        table: Table,
        ranges: &[KeyRange],
        count: usize,
    ) -> Result<Vec<Vec<String>>, String>;

    /// Writes rows as one, where this daemon still is the one that writes. Returns when they are as
    /// safe as they are to be.
    ///
    /// # Errors
    /// See [`SharedCommitError`].
    fn commit(&self, commit: &SharedCommit) -> Result<SharedPosition, SharedCommitError>;
}

/// A range of keys, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key of it.
    pub from: String,
    /// The first key behind it; none: it has no end.
    pub to: Option<String>,
    /// Its last keys are asked for, the last one first.
    pub last_first: bool,
}

impl KeyRange {
    /// What is asked for, of the keys of a table in their order.
    pub fn select(&self, keys: &[String], count: usize) -> Vec<String> {
        let start = keys.partition_point(|key| *key < self.from);
        let end = self.to.as_ref().map_or(keys.len(), |to| keys.partition_point(|key| key < to));
        let inside = keys.get(start..end).unwrap_or_default();
        match self.last_first {
            true => inside.iter().rev().take(count).cloned().collect(),
            false => inside.iter().take(count).cloned().collect(),
        }
    }
}

/// Where the tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedPosition {
    /// The number of the last commit. A later one has a greater number, unless commits were lost.
    pub number: u64,
    /// How many bytes of history there are.
    pub history: HistoryBytes,
}

/// What is to be written as one.
pub struct SharedCommit<'a> {
    /// The rows.
    pub rows: &'a Rows,
    /// The number of the last commit that was confirmed. Where the tables are behind it nothing is
    /// written, except by a rewrite.
    pub known: u64,
    /// The tables that are known whole are emptied first: `rows` has all that is to be in them.
    pub rewrites: bool,
}

/// Why a commit is not known to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedCommitError {
    /// Another daemon writes from now on. Nothing was written.
    Deposed,
    /// It may or may not be written, or not be safe yet.
    Unconfirmed(String),
    /// Nothing was written, and why: somebody must act.
    Refused(String),
    /// Nothing was written: the tables have lost commits that were confirmed.
    WentBack {
        /// The number of the last commit that they have.
        to: u64,
    },
}

/// At most `count` rows of a range: fewer only where no more follow.
pub(super) fn rows_in(
    tables: &dyn SharedTables,
    table: Table,
    mut range: KeyRange,
    count: usize,
) -> Result<Vec<RawRow>, String> {
    let mut rows: Vec<RawRow> = Vec::new();
    loop {
        let wanted = (count - rows.len()).min(ROWS_PER_READ);
        let keys = tables.keys_in(table, std::slice::from_ref(&range), wanted)?;
        let keys = keys.into_iter().next().unwrap_or_default();
        let values = tables.get_all(table, &keys)?;
        let (found, last) = (keys.len(), keys.last().cloned());
        // A row may be removed between the two questions.
        let there = keys.into_iter().zip(values);
        rows.extend(there.filter_map(|(key, value)| Some((key, value?))));
        let Some(last) = last.filter(|_| found == wanted && rows.len() < count) else {
            return Ok(rows);
        };
        match range.last_first {
            true => range.to = Some(last),
            false => range.from = format!("{last}\0"),
        }
    }
}

/// The last row of each range; none where there is none.
pub(super) fn last_rows(
    tables: &dyn SharedTables,
    table: Table,
    ranges: Vec<(String, String)>,
) -> Result<Vec<Option<RawRow>>, String> {
    let range = |(from, to)| KeyRange { from, to: Some(to), last_first: true };
    let ranges: Vec<KeyRange> = ranges.into_iter().map(range).collect();
    let last: Vec<Option<String>> =
        tables.keys_in(table, &ranges, 1)?.into_iter().map(|mut keys| keys.pop()).collect();
    let keys: Vec<String> = last.iter().flatten().cloned().collect();
    let mut values = tables.get_all(table, &keys)?.into_iter();
    let row = |key: Option<String>| {
        let key = key?;
        Some((key, values.next()??))
    };
    Ok(last.into_iter().map(row).collect())
}
