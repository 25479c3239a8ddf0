//! The terminal: its width, whether it shows colours, how many columns a text takes.

use std::io::{self, IsTerminal};

use unicode_segmentation::UnicodeSegmentation;

use crate::notify::text::{LineBreaks, clean};

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal that has some, unless `NO_COLOR` is set (<https://no-color.org>).
    #[default]
    Auto,
    /// Always, even into a file.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Reads the word behind `--color`.
    pub fn parse(word: &str) -> Option<ColorChoice> {
        match word {
            "auto" => Some(ColorChoice::Auto),
            "always" => Some(ColorChoice::Always),
            "never" => Some(ColorChoice::Never),
            _ => None,
        }
    }

    /// Whether the standard output gets colours.
    pub fn wanted(self) -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => io::stdout().is_terminal() && !set("NO_COLOR") && !dumb(),
        }
    }
}

/// The width of the terminal; none when the output goes elsewhere, and then nothing is cut.
pub fn width() -> Option<usize> {
    size().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// How many lines the terminal has; none when the output goes elsewhere, or when it does not say.
pub fn height() -> Option<usize> {
    size().map(|size| usize::from(size.ws_row)).filter(|height| *height > 0)
}

fn size() -> Option<libc::winsize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills a winsize, and the pointer is to a live one (ioctl_tty(2)).
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (result == 0).then_some(size)
}

/// Text of others on one line, without control sequences; empty when there is none.
pub fn sanitize(text: &str) -> String {
    if text.is_empty() { String::new() } else { clean(text, LineBreaks::Remove) }
}

/// How many columns a text takes.
pub fn columns(text: &str) -> usize {
    text.graphemes(true).map(cluster_width).sum()
}

/// The width of one grapheme cluster: that of its widest character.
fn cluster_width(cluster: &str) -> usize {
    cluster.chars().map(|c| if is_wide(c) { 2 } else { 1 }).max().unwrap_or(0)
}

/// The blocks of East Asian wide characters and of emoji (UAX #11), roughly.
fn is_wide(character: char) -> bool {
    matches!(character,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}' | '\u{1f900}'..='\u{1f9ff}' | '\u{20000}'..='\u{3fffd}')
}

/// The text in at most `width` columns: what is too long loses its middle, since names differ at their
/// ends.
pub fn truncate_middle(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let Some(width) = width.checked_sub(1) else { return String::new() };
    let back = width / 2;
    let front = take(text.graphemes(true), width - back);
    let mut end: Vec<&str> = take(text.graphemes(true).rev(), back);
    end.reverse();
    format!("{}…{}", front.concat(), end.concat())
}

/// A text behind `prefix`, in lines of at most `width` columns, broken at blanks as far as there are
/// some. What does not fit on the first line goes on behind `indent`.
pub fn wrap(prefix: &str, text: &str, width: usize, indent: &str) -> String {
    let (mut lines, mut used, start) = (prefix.to_owned(), columns(prefix), columns(indent));
    let mut gap = "";
    for word in text.split_whitespace() {
        if !gap.is_empty() && used + 1 + columns(word) > width {
            lines.push_str(&format!("\n{indent}"));
            used = start;
        } else {
            lines.push_str(gap);
            used += gap.len();
        }
        gap = " ";
        for cluster in word.graphemes(true) {
            if used + cluster_width(cluster) > width && used > start {
                lines.push_str(&format!("\n{indent}"));
                used = start;
            }
            lines.push_str(cluster);
            used += cluster_width(cluster);
        }
    }
    lines
}

/// A text drawn over the one before, from the upper left corner of a terminal of this height (ECMA-48:
/// CUP, EL, ED). Of one that is higher the beginning, and how much more there is.
pub fn frame(text: &str, height: usize) -> String {
    let count = text.lines().count();
    // The cursor has a line of its own.
    let room = height.saturating_sub(1).max(1);
    let shown = if count > room { room - 1 } else { count };
    let mut frame = "\u{1b}[H".to_owned();
    for line in text.lines().take(shown) {
        frame.push_str(&format!("{line}\u{1b}[K\n"));
    }
    if shown < count {
        frame.push_str(&format!("\u{2026} {} more lines\u{1b}[K\n", count - shown));
    }
    frame + "\u{1b}[J"
}

fn take<'a>(clusters: impl Iterator<Item = &'a str>, width: usize) -> Vec<&'a str> {
    let mut used = 0;
    clusters
        .take_while(|next| {
            used += cluster_width(next);
            used <= width
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_loses_its_middle() {
        for (text, width, short) in [
            ("prod-web-01", 11, "prod-web-01"),
            ("prod-web-01", 10, "prod-…b-01"),
            ("prod-web-01", 1, "…"),
            ("prod-web-01", 0, ""),
            ("日本語サーバー", 8, "日本…ー"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
        ] {
            assert_eq!(truncate_middle(text, width), short);
            assert!(columns(&truncate_middle(text, width)) <= width);
        }
    }

    #[test]
    fn what_is_too_long_for_a_line_goes_on_below() {
        for (prefix, text, width, indent, wrapped) in [
            ("", "a short text", 12, "  ", "a short text"),
            ("", "a short text", 11, "  ", "a short\n  text"),
            ("  ", "critical: disk root", 12, "    ", "  critical:\n    disk\n    root"),
            ("  ", "abcdefghij", 6, "    ", "  abcd\n    ef\n    gh\n    ij"),
            ("", "日本語サーバー", 8, "", "日本語サ\nーバー"),
            ("", "ab", 0, "", "a\nb"),
            ("x: ", "", 9, "", "x: "),
        ] {
            assert_eq!(wrap(prefix, text, width, indent), wrapped, "{text}");
        }
    }

    #[test]
    fn a_frame_is_as_high_as_the_terminal() {
        let text = "a\nb\nc\nd\n";
        assert_eq!(frame(text, 9), "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\nc\u{1b}[K\nd\u{1b}[K\n\u{1b}[J");
        assert_eq!(
            frame(text, 4),
            "\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n… 2 more lines\u{1b}[K\n\u{1b}[J"
        );
        assert_eq!(frame(text, 5), frame(text, 9));
        assert_eq!(frame(text, 0), "\u{1b}[H… 4 more lines\u{1b}[K\n\u{1b}[J");
    }

    #[test]
    fn a_text_is_as_wide_as_it_is_shown() {
        for (text, wide) in [("abc", 3), ("", 0), ("日本", 4), ("e\u{301}", 1), ("👩‍🚒", 2)]
        {
            assert_eq!(columns(text), wide, "{text}");
        }
    }
}
