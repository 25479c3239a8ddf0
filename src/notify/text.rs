//! Untrusted text made fit for a channel: cleaned, cut, escaped, in this order. Pure.

use unicode_segmentation::UnicodeSegmentation;

pub use crate::escape::LineBreaks;
use crate::escape::visible;
use crate::event::TextTable;

/// What stands in place of an empty text.
pub const NO_DETAILS: &str = "(no details)";

/// What a channel counts when it says that a text is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextUnit {
    /// Unicode scalar values.
    Characters,
    /// Bytes of UTF-8.
    Bytes,
    /// Units of UTF-16.
    Utf16,
}

impl TextUnit {
    /// How long `text` is.
    pub fn count(self, text: &str) -> usize {
        match self {
            TextUnit::Characters => text.chars().count(),
            TextUnit::Bytes => text.len(),
            TextUnit::Utf16 => text.encode_utf16().count(),
        }
    }
}

/// The longest text that fits somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimit {
    /// The length.
    pub max: usize,
    /// What is counted.
    pub unit: TextUnit,
}

/// `text` as it may be shown ([`visible`]), trimmed; [`NO_DETAILS`] when nothing is left.
pub fn clean(text: &str, line_breaks: LineBreaks) -> String {
    let shown: String = visible(text, line_breaks).collect();
    match shown.trim() {
        "" => NO_DETAILS.into(),
        trimmed => trimmed.to_owned(),
    }
}

/// `text` in at most `limit` units: as it is, or cut between two characters as people see them
/// (grapheme clusters, UAX #29) and ended by an ellipsis. Escaping comes after cutting.
pub fn cut(text: &str, limit: usize, unit: TextUnit) -> String {
    const ELLIPSIS: &str = "…";
    if unit.count(text) <= limit {
        return text.to_owned();
    }
    let Some(room) = limit.checked_sub(unit.count(ELLIPSIS)) else { return String::new() };
    let mut kept = prefix_length(text.graphemes(true), room, unit);
    if kept == 0 {
        // One "character" of thousands of accents.
        kept = prefix_length(text.split_inclusive(|_| true), room, unit);
    }
    text[..kept].trim_end().to_owned() + ELLIPSIS
}

/// How many bytes the first `pieces` have that fit into `room` together.
fn prefix_length<'a>(pieces: impl Iterator<Item = &'a str>, room: usize, unit: TextUnit) -> usize {
    let mut used = 0;
    pieces
        .take_while(|piece| {
            used += unit.count(piece);
            used <= room
        })
        .map(str::len)
        .sum()
}

/// `text` as Markdown code, in which no mention and no link has an effect: a span, or a fenced
/// block when it has several lines. A backtick becomes its look-alike U+02CB, because renderers
/// disagree about longer fences and a text must not break out in any of them.
pub fn markdown_code(text: &str) -> String {
    let tame = text.replace('`', "\u{2cb}");
    if tame.contains('\n') { format!("\n```\n{tame}\n```") } else { format!("`{tame}`") }
}

/// A table as lines of aligned columns, for a fixed-width font. Numbers are aligned to the right.
pub fn format_table(table: &TextTable) -> String {
    const MAX_CELL: usize = 40;
    let cell = |text: &String| match text.is_empty() {
        true => String::new(),
        false => cut(&clean(text, LineBreaks::Remove), MAX_CELL, TextUnit::Characters),
    };
    let rows: Vec<Vec<String>> = std::iter::once(&table.head)
        .chain(&table.rows)
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let width = |column: usize| {
        // A row of one cell is a remark: it does not widen the first column.
        let cells = rows.iter().filter(|row| row.len() > 1).filter_map(|row| row.get(column));
        cells.map(|cell| TextUnit::Characters.count(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let number = cell.starts_with(|c: char| c.is_ascii_digit());
            if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_and_bidi_characters_are_taken_out() {
        for (dirty, line, block) in [
            ("web1\r\nBcc: x", "web1 Bcc: x", "web1\nBcc: x"),
            ("a\rb\u{2028}c", "a b c", "a\nb\nc"),
            ("\u{1b}[31mred\u{7}\0", "[31mred", "[31mred"),
            ("abc\u{202e}txt.exe\u{2066}", "abctxt.exe", "abctxt.exe"),
            ("tab\there", "tab here", "tab here"),
            ("grüße 👩‍👩‍👧 ok", "grüße 👩‍👩‍👧 ok", "grüße 👩‍👩‍👧 ok"),
        ] {
            assert_eq!(clean(dirty, LineBreaks::Remove), line);
            assert_eq!(clean(dirty, LineBreaks::Keep), block);
        }
    }

    #[test]
    fn an_empty_text_says_so() {
        for empty in ["", " \r\n ", "\u{202e}\u{200b}", "\0", "\u{200d}"] {
            assert_eq!(clean(empty, LineBreaks::Keep), NO_DETAILS);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_as_people_see_them() {
        for (text, limit, unit, expected) in [
            ("short", 5, TextUnit::Characters, "short"),
            ("longer", 5, TextUnit::Characters, "long…"),
            ("grüße", 6, TextUnit::Bytes, "gr…"),
            ("grüße", 7, TextUnit::Bytes, "grüße"),
            ("a👩‍👩‍👧b", 5, TextUnit::Characters, "a…"),
            ("e\u{301}e\u{301}e\u{301}", 4, TextUnit::Characters, "e\u{301}…"),
            ("😀😀😀", 5, TextUnit::Utf16, "😀😀…"),
            ("one two", 5, TextUnit::Characters, "one…"),
            ("abc", 0, TextUnit::Characters, ""),
        ] {
            assert_eq!(cut(text, limit, unit), expected, "{text} in {limit}");
        }
    }

    #[test]
    fn a_character_of_a_thousand_accents_is_cut_all_the_same() {
        let text = "e".to_owned() + &"\u{301}".repeat(1000);
        assert_eq!(TextUnit::Characters.count(&cut(&text, 10, TextUnit::Characters)), 10);
    }

    #[test]
    fn code_cannot_be_broken_out_of() {
        assert_eq!(markdown_code("a`b``@channel"), "`a\u{2cb}b\u{2cb}\u{2cb}@channel`");
        assert_eq!(markdown_code("a\n```\n@here"), "\n```\na\n\u{2cb}\u{2cb}\u{2cb}\n@here\n```");
    }

    #[test]
    fn a_table_is_aligned_whatever_is_in_it() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let table = TextTable {
            head: row(&["module", "errors", "end"]),
            rows: vec![
                row(&["mail1 (Grüße\r\n)", "12", "2026"]),
                row(&["x", "", "2026"]),
                row(&["and 3 more, which is a long remark"]),
            ],
        };
        assert_eq!(
            format_table(&table),
            "module          errors  end\n\
             mail1 (Grüße )      12  2026\n\
             x                       2026\n\
             and 3 more, which is a long remark"
        );
        assert_eq!(format_table(&TextTable::default()), "");
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_its_limit(text in ".{0,80}", limit in 0usize..40) {
            for unit in [TextUnit::Characters, TextUnit::Bytes, TextUnit::Utf16] {
                prop_assert!(unit.count(&cut(&text, limit, unit)) <= limit);
            }
        }

        #[test]
        fn what_was_cleaned_is_clean(text in any::<String>()) {
            let line = clean(&text, LineBreaks::Remove);
            prop_assert!(!line.contains(char::is_control));
            prop_assert_eq!(clean(&line, LineBreaks::Remove), line.clone());
            prop_assert!(!line.is_empty());
        }
    }
}
