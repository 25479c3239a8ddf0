//! How many bytes the tables of the history may have together, and how many each has. Pure.

use serde::{Deserialize, Serialize};

use super::table::{Rows, Table, rows_of};

/// The tables that may grow without end.
const TABLES: [Table; 6] =
    [Table::History, Table::Events, Table::Hours, Table::Days, Table::Names, Table::Metrics];
/// Tables whose keys are in order of time: the first row is the oldest.
pub(super) const BY_TIME: [Table; 3] = [Table::Metrics, Table::Events, Table::History];
/// Tables of which some rows are worth less than others.
pub(super) const WEIGHED: [Table; 2] = [Table::Events, Table::History];

/// Which rows go when the history has too many bytes: those that matter less, the oldest first, then
/// the oldest of the largest table.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimit {
    /// Keys and values, without what the file needs to hold them.
    pub max_bytes: u64,
    /// Whether a row, of which this is the value, matters less than an alarm.
    pub is_minor: fn(&[u8]) -> bool,
}

impl HistoryLimit {
    /// How many bytes are too many, of so many; then a few more, so as not to look again at once.
    pub(super) fn excess(&self, bytes: u64) -> Option<u64> {
        let excess = bytes.checked_sub(self.max_bytes).filter(|excess| *excess > 0)?;
        Some(excess + self.max_bytes / 64)
    }
}

/// How many bytes the rows of each table of the history have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryBytes([u64; TABLES.len()]);

impl HistoryBytes {
    /// As `measure` finds them.
    pub(super) fn measured<E>(
        measure: impl FnMut(Table) -> Result<u64, E>,
    ) -> Result<HistoryBytes, E> {
        let sizes: Result<Vec<u64>, E> = TABLES.into_iter().map(measure).collect();
        Ok(HistoryBytes(sizes?.try_into().expect("one for each table")))
    }

    /// As they are known.
    pub fn of_tables(bytes: impl FnMut(Table) -> u64) -> HistoryBytes {
        HistoryBytes(TABLES.map(bytes))
    }

    /// Those of one table.
    pub fn of(&self, table: Table) -> u64 {
        TABLES.iter().position(|own| *own == table).map_or(0, |index| self.0[index])
    }

    /// Those of all tables. What is kept of each host, which no age removes, counts at most half the
    /// limit: alarms must not go for it.
    pub fn counted(&self, limit: &HistoryLimit) -> u64 {
        let by_time: u64 = BY_TIME.map(|table| self.of(table)).iter().sum();
        let all: u64 = self.0.iter().sum();
        by_time + (all - by_time).min(limit.max_bytes / 2)
    }

    /// A row is written in the place of another one, or removed.
    pub fn replace(&mut self, table: Table, key: &str, old: Option<usize>, new: Option<usize>) {
        let Some(index) = TABLES.iter().position(|own| *own == table) else { return };
        let row = |value: Option<usize>| value.map_or(0, |value| (key.len() + value) as u64);
        self.0[index] = (self.0[index] + row(new)).saturating_sub(row(old));
    }
}

/// How many bytes of history wait to be written.
pub(super) fn pending_bytes(pending: &Rows) -> u64 {
    let of_table = |table| {
        let rows = rows_of(pending, table);
        rows.filter_map(|(key, value)| Some(key.len() + value.as_ref()?.len())).sum::<usize>()
    };
    BY_TIME.map(of_table).iter().sum::<usize>() as u64
}

/// Takes rows that matter less, then the oldest, out of those that wait, until these have at most
/// `max_bytes`.
pub(super) fn drop_pending(pending: &mut Rows, limit: &HistoryLimit, max_bytes: u64) {
    let mut left = pending_bytes(pending);
    for minor_only in [true, false] {
        for table in BY_TIME {
            let weighed = WEIGHED.contains(&table);
            if left <= max_bytes || minor_only && !weighed {
                continue;
            }
            let mut dropped = Vec::new();
            for (key, value) in rows_of(pending, table) {
                let Some(value) = value else { continue };
                if left <= max_bytes {
                    break;
                }
                if !minor_only || (limit.is_minor)(value) {
                    left = left.saturating_sub((key.len() + value.len()) as u64);
                    dropped.push((table, key.clone()));
                }
            }
            dropped.iter().for_each(|key| drop(pending.remove(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max_bytes: u64) -> HistoryLimit {
        HistoryLimit { max_bytes, is_minor: |value| value.starts_with(b"m") }
    }

    #[test]
    fn sizes_follow_the_rows() {
        let mut sizes = HistoryBytes::default();
        sizes.replace(Table::Events, "ab", None, Some(8));
        sizes.replace(Table::Events, "ab", Some(8), Some(3));
        sizes.replace(Table::Hours, "web1", None, Some(6));
        sizes.replace(Table::Hosts, "web1", None, Some(1000));
        assert_eq!((sizes.of(Table::Events), sizes.of(Table::Hours)), (5, 10));
        sizes.replace(Table::Events, "ab", Some(3), None);
        assert_eq!((sizes.of(Table::Events), sizes.counted(&limit(1000))), (0, 10));
        assert_eq!(sizes.counted(&limit(10)), 5, "of what no age removes, half the limit");
    }

    #[test]
    fn what_waits_for_the_disk_has_the_same_limit_and_the_same_order() {
        let mut pending = Rows::new();
        for number in 0..10 {
            let text = if number % 2 == 0 { "message  " } else { "alarm    " };
            let key = (Table::Events, number.to_string());
            pending.insert(key, Some(text.as_bytes().to_vec()));
        }
        pending.insert((Table::Hosts, "web1".into()), Some(vec![0; 1000]));
        let left = |pending: &Rows| -> String {
            pending.keys().filter(|key| key.0 == Table::Events).map(|key| key.1.as_str()).collect()
        };
        drop_pending(&mut pending, &limit(0), 75);
        assert_eq!(left(&pending), "1356789");
        drop_pending(&mut pending, &limit(0), 40);
        assert_eq!(left(&pending), "3579", "an alarm goes when no message is left");
        assert!(pending.contains_key(&(Table::Hosts, "web1".into())));
    }
}
