//! Text and bytes in another notation: HTML entities, percent-encoding, hexadecimal digits. Pure.

use std::fmt::{self, Display, Formatter, Write};

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

/// `text` for HTML, as content or as a quoted attribute.
pub fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match html_entity(character) {
            Some(entity) => escaped.push_str(entity),
            None => escaped.push(character),
        }
    }
    escaped
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
