//! The check that each stored row carries: XXH3-64 over its table, its key and its value. Pure.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::table::Table;

/// How many bytes of a stored value are its check, at its end.
const LENGTH: usize = size_of::<u64>();

/// The value as it is stored: with its check.
pub(super) fn seal(table: Table, key: &str, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + LENGTH);
    stored.extend_from_slice(value);
    stored.extend_from_slice(&check(table, key, value).to_le_bytes());
    stored
}

/// The value of a stored row; none when it is not what was stored.
pub(super) fn open<'a>(table: Table, key: &str, stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, end) = stored.split_last_chunk::<LENGTH>()?;
    (check(table, key, value) == u64::from_le_bytes(*end)).then_some(value)
}

fn check(table: Table, key: &str, value: &[u8]) -> u64 {
    let place = xxh3_64_with_seed(key.as_bytes(), xxh3_64(table.name().as_bytes()));
    xxh3_64_with_seed(value, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_row_can_change_unnoticed() {
        let stored = seal(Table::Hosts, "web1", b"{\"up\":true}");
        assert_eq!(open(Table::Hosts, "web1", &stored), Some(&b"{\"up\":true}"[..]));
        assert_eq!(open(Table::Plans, "web1", &stored), None);
        assert_eq!(open(Table::Hosts, "web2", &stored), None);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(Table::Hosts, "web1", &flipped), None, "bit {bit}");
        }
        for length in 0..stored.len() {
            assert_eq!(open(Table::Hosts, "web1", &stored[..length]), None, "{length}");
        }
        assert_eq!(open(Table::Hosts, "web1", &[0; 512]), None);
    }

    #[test]
    fn the_check_is_the_published_one() {
        // The test vectors of XXH3-64 for the empty input (xxHash 0.8, xsum_sanity_check.c).
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }
}
