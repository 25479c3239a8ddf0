//! Strangers' words, fit for a mail: cleaned as for every channel, but nothing stays nothing. Pure.

use crate::notify::text::{Flavour, NO_DETAILS, Unit, clean};
use crate::secret::Secret;

/// A stranger's text on one line, its words one space apart.
pub fn one_line(text: &str) -> String {
    cleaned(text, Flavour::Line).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A stranger's text with its lines.
pub fn lines(text: &str) -> String {
    cleaned(text, Flavour::Block)
}

/// A header, a cell or an error may be empty, where a message says that there is nothing to say.
fn cleaned(text: &str, flavour: Flavour) -> String {
    let clean = clean(text, flavour);
    if clean == NO_DETAILS && !text.contains(NO_DETAILS) { String::new() } else { clean }
}

/// At most `most` characters.
pub fn cut(text: &str, most: usize) -> String {
    crate::notify::text::cut(text, most, Unit::Characters)
}

/// Whether `text` repeats a part of a secret, however it is broken up.
pub fn holds_a_piece(text: &str, secret: &Secret) -> bool {
    const PIECE: usize = 6;
    let letters = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '+' | '/' | '=')).collect()
    };
    let text = letters(text);
    letters(secret.reveal())
        .windows(PIECE)
        .any(|piece| text.windows(PIECE).any(|window| window == piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidi_characters_go_and_the_ends_of_lines_are_alike() {
        assert_eq!(lines("a\r\nb\rc\u{2028}d\u{0}\u{202E}e\tf\n"), "a\nb\nc\nde f");
        assert_eq!(one_line(" a\r\n\r\nBcc: b "), "a Bcc: b");
        assert_eq!(one_line("\u{200b} \r\n"), "");
    }

    #[test]
    fn a_piece_of_a_secret_is_found_in_pieces() {
        let secret = Secret::new("correct-horse");
        for (text, found) in [
            ("corr ect", true),
            ("5 t-horse", true),
            ("wrong password", false),
            ("", false),
            ("horse", false),
        ] {
            assert_eq!(holds_a_piece(text, &secret), found, "{text}");
        }
    }
}
