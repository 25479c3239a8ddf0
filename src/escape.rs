//! Text of others as it may be shown, and text and bytes in another notation: HTML entities, JSON,
//! percent-encoding, hexadecimal digits. Pure.

use std::fmt::{self, Display, Formatter, Write};
use std::str::Chars;

/// Whether a text keeps its line breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineBreaks {
    /// They become spaces: for a title, a header, a code span.
    Remove,
    /// They are kept, as `\n`.
    Keep,
}

/// The characters of `text` as they may be shown to people, whoever wrote them: without those that
/// nobody sees and that act on what stands around them. Everything that leaves the process for a person
/// goes through this: the log, the channels, the page, the terminal.
///
/// Of what has no width there stays what belongs to a word or a picture (UAX #31, section 2.3): a
/// joiner between two letters of a script that is written with joiners (Persian, the scripts of India), or
/// between two emoji, and the selector of the coloured form behind an emoji. Right-to-left text keeps its
/// letters, whose direction needs no control.
pub fn visible(text: &str, breaks: LineBreaks) -> Visible<'_> {
    Visible { rest: text.chars(), breaks, before: None }
}

/// What [`visible`] gives.
#[derive(Clone, Debug)]
pub struct Visible<'a> {
    rest: Chars<'a>,
    breaks: LineBreaks,
    before: Option<char>,
}

impl Iterator for Visible<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        loop {
            let character = self.rest.next()?;
            let after = self.rest.clone().next();
            let shown = match character {
                // Half of CR LF: the other half ends the line.
                '\r' if after == Some('\n') => continue,
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                    if self.breaks == LineBreaks::Keep { '\n' } else { ' ' }
                }
                '\t' => ' ',
                unseen if is_unseen(unseen) && !belongs(self.before, unseen, after) => continue,
                other => other,
            };
            self.before = Some(shown);
            return Some(shown);
        }
    }
}

/// Characters that are read for what they do and not for what they are: controls (C0, C1), those that
/// turn the direction of what follows (UAX #9), those of no width or of a width that shows nothing
/// (`Default_Ignorable_Code_Point` of the Unicode Character Database), annotations, and what is no
/// character.
pub fn is_unseen(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}'
        | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
        || u32::from(character) & 0xfffe == 0xfffe
}

/// Whether a character of no width is part of the word or of the emoji that it stands in.
fn belongs(before: Option<char>, unseen: char, after: Option<char>) -> bool {
    const NON_JOINER: char = '\u{200c}';
    const JOINER: char = '\u{200d}';
    const EMOJI_FORM: char = '\u{fe0f}';
    let Some(before) = before else { return false };
    match (unseen, after) {
        (EMOJI_FORM, _) => is_emoji(before),
        (JOINER, Some(after)) if is_emoji(before) || before == EMOJI_FORM => is_emoji(after),
        (JOINER | NON_JOINER, Some(after)) => is_joined_script(before) && is_joined_script(after),
        _ => false,
    }
}

/// Roughly `Emoji` of the Unicode Character Database, without digits.
fn is_emoji(character: char) -> bool {
    matches!(character,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}'
        | '\u{2190}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}'
        | '\u{1f000}'..='\u{1faff}')
}

/// The blocks of Arabic, Syriac and N'Ko, and of the scripts of India.
fn is_joined_script(character: char) -> bool {
    let block = matches!(character,
        '\u{620}'..='\u{8ff}' | '\u{900}'..='\u{df4}' | '\u{fb50}'..='\u{fdff}'
        | '\u{fe70}'..='\u{fefc}');
    block && !is_unseen(character)
}

/// The entity that stands for a character with a meaning in HTML and XML, within an element and
/// within quotes; none for every other character.
pub fn html_entity(character: char) -> Option<&'static str> {
    match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    }
}

/// `text` for HTML and XML, as content or as a quoted attribute.
pub fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    push_html(&mut escaped, text);
    escaped
}

/// The same, behind what stands in `html` already.
pub fn push_html(html: &mut String, text: &str) {
    for character in visible(text, LineBreaks::Keep) {
        match html_entity(character) {
            Some(entity) => html.push_str(entity),
            None => html.push(character),
        }
    }
}

/// The same JSON with an escape in place of every character that nobody sees (RFC 8259, section 7): a
/// program reads what it read before, and a terminal that shows it obeys nothing.
pub fn json(written: String) -> String {
    // JSON itself has no others than the line break that may be at its end.
    let hides = |character: char| character > '~' && is_unseen(character);
    if !written.contains(hides) {
        return written;
    }
    let mut shown = String::with_capacity(written.len());
    for character in written.chars() {
        if hides(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Percent-encoded, for one segment of a path or one value of a query (RFC 3986, section 2.3).
#[derive(Clone, Copy, Debug)]
pub struct PercentEncoded<'a>(pub &'a str);

impl Display for PercentEncoded<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                f.write_char(byte.into())?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Two lower-case hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped() {
        assert_eq!(html("<a href=\"x\">'&'"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;");
    }

    fn shown(text: &str) -> String {
        visible(text, LineBreaks::Remove).collect()
    }

    #[test]
    fn what_nobody_sees_does_nothing() {
        for (hostile, expected) in [
            ("\u{1b}[31mred\u{7}\0", "[31mred"),
            ("\u{9b}31mred\u{7f}\u{90}", "31mred"),
            ("abc\u{202e}txt.exe\u{2066}\u{2069}\u{202c}", "abctxt.exe"),
            ("a\u{200e}b\u{200f}c\u{61c}d", "abcd"),
            ("pay\u{200b}pal\u{2060}\u{feff}\u{ad}\u{34f}", "paypal"),
            ("a\u{200d}b\u{200c}c\u{fe0f}", "abc"),
            ("1\u{fe0f}\u{e0100}\u{fe00}", "1"),
            ("\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}", "\u{1f3f4}"),
            ("\u{3164}\u{115f}\u{1160}\u{ffa0}\u{180e}x", "x"),
            ("\u{fff9}a\u{fffa}b\u{fffb}\u{fffe}\u{ffff}\u{1ffff}\u{fdd0}", "ab"),
            ("one\r\ntwo\rthree\u{2028}four\u{2029}five\u{85}six", "one two three four five six"),
        ] {
            assert_eq!(shown(hostile), expected, "{hostile:?}");
        }
        assert_eq!(visible("a\r\nb\u{2029}c", LineBreaks::Keep).collect::<String>(), "a\nb\nc");
    }

    #[test]
    fn words_and_pictures_stay_as_they_are() {
        for text in [
            "gr\u{fc}\u{df}e \u{65e5}\u{672c} e\u{301}",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd} backup-7 \u{5e0}\u{5db}\u{5e9}\u{5dc}",
            "\u{646}\u{633}\u{62e}\u{647}\u{200c}\u{647}\u{627}",
            "\u{d9a}\u{dca}\u{200d}\u{dbb}",
            "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            "\u{2764}\u{fe0f}\u{200d}\u{1f525} \u{26a0}\u{fe0f}",
            "\u{1f468}\u{1f3fd}\u{200d}\u{1f692}",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn json_is_the_same_to_a_program_and_harmless_to_a_terminal() {
        let text = "a\u{9b}31m\u{202e}b\u{e0041}\u{7f}\u{fc}\u{1f600}\n\u{1b}";
        let written = serde_json::to_string(text).unwrap() + "\n";
        let safe = json(written);
        assert_eq!(safe, "\"a\\u009b31m\\u202eb\\udb40\\udc41\\u007f\u{fc}\u{1f600}\\n\\u001b\"\n");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        let deleted = serde_json::to_string("\u{7f}").unwrap();
        assert_eq!(json(deleted), "\"\\u007f\"");
    }

    #[test]
    fn what_a_url_does_not_take_as_it_is_is_encoded() {
        let encoded = PercentEncoded("a b/\u{fc}~&=%-._9").to_string();
        assert_eq!(encoded, "a%20b%2F%C3%BC~%26%3D%25-._9");
    }

    #[test]
    fn a_byte_is_two_digits() {
        assert_eq!(hex(&[0x00, 0x1a, 0xff]), "001aff");
    }
}
