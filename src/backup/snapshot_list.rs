//! The newest of the snapshots that `restic snapshots --json` lists, found while the list is read: it
//! may be longer than is worth keeping. Pure.

use serde::Deserialize;

use super::restic_output::is_id;
use crate::clock::{Wall, parse_rfc3339};

/// How many bytes one snapshot may take in the list: it names all paths that it was made of.
const MAX_ENTRY: usize = 4 * 1024 * 1024;

/// The newest snapshot of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewestSnapshot {
    /// When it was taken; none when the list is empty.
    pub newest: Option<Wall>,
    /// Its id.
    pub id: Option<String>,
    /// How many bytes it holds; restic writes it into snapshots since version 0.17.
    pub size: Option<u64>,
}

/// Reads a list of snapshots piece by piece. Only a list that was read to its end, each of its entries
/// included, has a newest snapshot.
#[derive(Debug, Default)]
pub struct SnapshotList {
    found: NewestSnapshot,
    position: Position,
    /// The entry that is being read, or the word `null` in place of a list.
    entry: Vec<u8>,
    /// How many brackets are open within the entry.
    depth: usize,
    /// Whether a string is being read, and whether its next byte stands for itself.
    in_string: bool,
    escaped: bool,
    /// The first reason why the list cannot be told.
    unreadable: Option<&'static str>,
}

/// Where in the list the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Before,
    /// In the word that stands in place of a list.
    Word,
    Between,
    Entry,
    After,
}

#[derive(Deserialize)]
struct SnapshotJson {
    time: String,
    #[serde(default)]
    id: String,
    summary: Option<SummaryJson>,
}

#[derive(Deserialize)]
struct SummaryJson {
    total_bytes_processed: Option<u64>,
}

impl SnapshotList {
    /// Reads the next piece of the list.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.unreadable.is_some() {
                return;
            }
            self.read_byte(*byte);
        }
    }

    /// The newest snapshot.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn finish(self) -> Result<NewestSnapshot, String> {
        let is_null = self.position == Position::Word && self.entry == b"null";
        match self.unreadable {
            Some(why) => Err(why.into()),
            None if self.position == Position::After || is_null => Ok(self.found),
            None if self.position == Position::Before => Err("restic listed nothing".into()),
            None => Err("restic's list of snapshots breaks off".into()),
        }
    }

    fn read_byte(&mut self, byte: u8) {
        match (self.position, byte) {
            (Position::Entry, _) => self.read_in_entry(byte),
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Position::Before, b'[') => self.position = Position::Between,
            (Position::Between, b']') => self.position = Position::After,
            (Position::Between, b',') => {}
            (Position::Between, b'{') => {
                self.position = Position::Entry;
                self.read_in_entry(byte);
            }
            (Position::Before | Position::Word, b'a'..=b'z') if self.entry.len() < 4 => {
                self.position = Position::Word;
                self.entry.push(byte);
            }
            _ => self.unreadable = Some("restic's list of snapshots is not what it should be"),
        }
    }

    fn read_in_entry(&mut self, byte: u8) {
        if self.entry.len() == MAX_ENTRY {
            self.unreadable = Some("an entry of restic's list of snapshots is too long");
            return;
        }
        self.entry.push(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.end_entry();
                }
            }
            _ => {}
        }
    }

    fn end_entry(&mut self) {
        self.position = Position::Between;
        let snapshot = serde_json::from_slice::<SnapshotJson>(&self.entry).ok();
        let with_time = |one: SnapshotJson| Some((parse_rfc3339(&one.time).ok()?, one));
        let Some((time, snapshot)) = snapshot.and_then(with_time) else {
            self.unreadable = Some("an entry of restic's list of snapshots cannot be read");
            return;
        };
        self.entry.clear();
        if self.found.newest < Some(time) {
            let SnapshotJson { id, summary, .. } = snapshot;
            self.found = NewestSnapshot {
                newest: Some(time),
                id: is_id(&id).then_some(id),
                size: summary.and_then(|summary| summary.total_bytes_processed),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, piece: usize) -> Result<NewestSnapshot, String> {
        let mut list = SnapshotList::default();
        text.as_bytes().chunks(piece).for_each(|bytes| list.read(bytes));
        list.finish()
    }

    fn newest(text: &str) -> String {
        let found = read(text, 7).unwrap();
        assert_eq!(read(text, 1), Ok(found.clone()));
        found.newest.map_or("none".into(), |newest| newest.to_string())
    }

    #[test]
    fn the_newest_is_found_whatever_the_order_the_zone_and_the_length() {
        let list = r#"[{"time":"2026-11-21T22:53:42.563588977Z","paths":["/a]}","/\"{["]},
            {"time":"2026-11-21T23:53:43+01:00","summary":{"total_bytes_processed":7}},
            {"time":"2026-11-22T03:30:00+09:00"}, {"time":"2026-11-20T22:53:42Z"}]"#;
        assert_eq!(newest(list), "2026-11-21T22:53:43.000Z");
        let found = read(list, 64).unwrap();
        assert_eq!((found.id, found.size), (None, Some(7)));
        let paths = "\"/a/long/path/with/words\",".repeat(900);
        let entry = |day| format!(r#"{{"paths":[{paths}"/b"],"time":"2026-11-{day}T22:53:42Z"}}"#);
        let list = format!("[{},{},{}]\n", entry("01"), entry("02"), entry("03"));
        assert!(list.len() > 64 * 1024);
        assert_eq!(newest(&list), "2026-11-03T22:53:42.000Z");
        let many: Vec<String> = (0..2000)
            .map(|n| format!(r#"{{"time":"{}-01-01T00:00:00Z"}}"#, 1990 + n % 50))
            .collect();
        assert_eq!(newest(&format!("[{}]", many.join(","))), "2039-01-01T00:00:00.000Z");
        assert_eq!(newest("[]"), "none");
        assert_eq!(newest("null\n"), "none");
    }

    #[test]
    fn a_list_that_cannot_be_read_to_its_end_has_no_newest_snapshot() {
        let entry = r#"{"time":"2026-11-21T22:53:42Z"}"#;
        for (text, why) in [
            ("", "listed nothing"),
            ("nonsense", "not what it should be"),
            ("nul", "breaks off"),
            ("<html>", "not what it should be"),
            ("{}", "not what it should be"),
            (&format!("[{entry}"), "breaks off"),
            (&format!("[{entry},"), "breaks off"),
            (&format!("[{entry},{{\"time\":\"2026"), "breaks off"),
            (&format!("[{entry}] and more"), "not what it should be"),
            (&format!("[{entry},3]"), "not what it should be"),
            (&format!("[{entry},{{}}]"), "cannot be read"),
            (&format!("[{{\"time\":\"yesterday\"}},{entry}]"), "cannot be read"),
            (&format!("[{entry},{{\"time\":null}}]"), "cannot be read"),
            (&format!("[{{\"x\":\"{}", "y".repeat(MAX_ENTRY)), "too long"),
        ] {
            let told = read(text, 4096).unwrap_err();
            assert!(told.contains(why), "{}: {told}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn the_size_of_a_snapshot_of_an_older_restic_is_asked_for_by_its_id() {
        let id = "0f".repeat(32);
        let list = |id: &str| format!(r#"[{{"time":"2026-11-20T22:53:42Z","id":"{id}"}}]"#);
        let found = read(&list(&id), 9).unwrap();
        assert_eq!((found.id, found.size), (Some(id), None));
        assert_eq!(read(&list("--help"), 9).unwrap().id, None, "no argument of its own");
    }

    proptest! {
        #[test]
        fn no_output_is_a_crash(text in r#"[\[\]{}",:\\ a-z0-9]{0,60}"#, piece in 1_usize..9) {
            let _ = read(&text, piece);
            let _ = read(&format!("[{{{text}}}]"), piece);
        }
    }
}
