//! Rows as the arguments of a script: cut into calls, and each call by tables. Pure.

use std::borrow::Cow;

use crate::store::{Rows, Table};

/// How many rows, and bytes, one call has: Redis does nothing else meanwhile.
pub const MAX_ROWS_PER_CALL: usize = 10_000;
const MAX_BYTES_PER_CALL: usize = 8_000_000;

/// One row of a call; none removes it.
pub type CallRow<'a> = (Table, &'a str, Option<&'a [u8]>);

/// The rows of each call, in the order of tables and keys.
pub fn chunks(rows: &Rows) -> Vec<Vec<CallRow<'_>>> {
    let mut calls: Vec<Vec<CallRow>> = Vec::new();
    let mut bytes = 0;
    for ((table, key), value) in rows {
        let size = key.len() + value.as_ref().map_or(0, Vec::len);
        let is_full = |call: &&mut Vec<CallRow>| {
            call.len() < MAX_ROWS_PER_CALL && bytes + size <= MAX_BYTES_PER_CALL
        };
        let row = (*table, key.as_str(), value.as_deref());
        match calls.last_mut().filter(is_full) {
            Some(call) => {
                call.push(row);
                bytes += size;
            }
            None => {
                calls.push(vec![row]);
                bytes = size;
            }
        }
    }
    calls
}

/// The arguments of a call: for each table its name, whether it has an index, how many rows are put and
/// how many removed; the keys and values, and the keys.
pub fn flatten<'a>(call: &[CallRow<'a>]) -> Vec<Cow<'a, [u8]>> {
    let mut arguments = Vec::with_capacity(2 * call.len() + 4);
    for rows in call.chunk_by(|one, other| one.0 == other.0) {
        let table = rows[0].0;
        let puts = rows.iter().filter(|(_, _, value)| value.is_some()).count();
        let number = |number: usize| Cow::Owned(number.to_string().into_bytes());
        arguments.push(Cow::Borrowed(table.name().as_bytes()));
        arguments.push(number(usize::from(table.is_history())));
        arguments.push(number(puts));
        arguments.push(number(rows.len() - puts));
        for (_, key, value) in rows {
            if let Some(value) = value {
                arguments.extend([Cow::Borrowed(key.as_bytes()), Cow::Borrowed(*value)]);
            }
        }
        let removed = rows.iter().filter(|(_, _, value)| value.is_none());
        arguments.extend(removed.map(|(_, key, _)| Cow::Borrowed(key.as_bytes())));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, size: usize) -> Rows {
        let row = |number: usize| ((Table::Hosts, format!("{number:06}")), Some(vec![b'x'; size]));
        (0..count).map(row).collect()
    }

    #[test]
    fn a_commit_is_cut_by_rows_and_by_bytes() {
        let sizes = |rows: &Rows| chunks(rows).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&rows(0, 1)), [0usize; 0]);
        assert_eq!(sizes(&rows(MAX_ROWS_PER_CALL, 1)), [MAX_ROWS_PER_CALL]);
        assert_eq!(sizes(&rows(MAX_ROWS_PER_CALL + 1, 1)), [MAX_ROWS_PER_CALL, 1]);
        assert_eq!(sizes(&rows(3, MAX_BYTES_PER_CALL / 2)), [1, 1, 1]);
        assert_eq!(sizes(&rows(2, 2 * MAX_BYTES_PER_CALL)), [1, 1]);
    }

    #[test]
    fn rows_are_told_by_tables_first_those_that_are_put() {
        let mut rows = Rows::new();
        for (table, key, value) in [
            (Table::Hosts, "a", None),
            (Table::Hosts, "b", Some("1")),
            (Table::Hosts, "c", Some("2")),
            (Table::Events, "d", None),
        ] {
            let value: Option<&str> = value;
            rows.insert((table, key.into()), value.map(|value| value.as_bytes().to_vec()));
        }
        let arguments: Vec<String> = chunks(&rows)
            .iter()
            .flat_map(|call| flatten(call))
            .map(|argument| String::from_utf8(argument.into_owned()).unwrap())
            .collect();
        let expected =
            ["hosts", "0", "2", "1", "b", "1", "c", "2", "a", "events", "1", "0", "1", "d"];
        assert_eq!(arguments, expected);
    }
}
