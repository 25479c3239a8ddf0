//! Reads JSON of which a part is spoiled: a lone surrogate, bytes that are no UTF-8, a raw line break in
//! a string, or `NaN` costs itself and not the whole document. Pure.

use serde_json::Value;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const REPLACEMENT: char = '\u{fffd}';

/// The value of a document. What is spoiled within a string becomes U+FFFD, a number that is none
/// null.
///
/// # Errors
/// What is wrong with a document whose structure is broken.
pub fn parse(body: &[u8]) -> Result<Value, String> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    serde_json::from_slice(body).or_else(|why| {
        let mended = mend(&String::from_utf8_lossy(body));
        serde_json::from_str(&mended).map_err(|_| format!("the body is not JSON: {why}"))
    })
}

/// The same document without spoiled strings and numbers.
fn mend(text: &str) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = if letter == '"' {
            mended.push('"');
            mend_string(&rest[1..], &mut mended)
        } else if is_bare(letter) {
            let end = rest.find(|letter| !is_bare(letter)).unwrap_or(rest.len());
            mended.push_str(mended_word(&rest[..end]));
            &rest[end..]
        } else {
            mended.push(letter);
            &rest[letter.len_utf8()..]
        };
    }
    mended
}

/// Whether a letter belongs to a number, or to a word such as `true`.
fn is_bare(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.')
}

/// Numbers that JSON does not know, or that are too large to be one, as null.
fn mended_word(word: &str) -> &str {
    let is_number = |word: &str| word.parse::<f64>().is_ok_and(f64::is_finite);
    match word {
        "true" | "false" | "null" => word,
        _ if is_number(word) || word.parse::<f64>().is_err() => word,
        _ => "null",
    }
}

/// Mends a string whose first quote was read; what follows its last one.
fn mend_string<'a>(text: &'a str, mended: &mut String) -> &'a str {
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        rest = match letter {
            '"' => {
                mended.push('"');
                return after;
            }
            '\\' => mend_escape(after, mended),
            '\0'..='\x1f' => {
                mended.push_str(&format!("\\u{:04x}", u32::from(letter)));
                after
            }
            letter => {
                mended.push(letter);
                after
            }
        };
    }
    rest
}

/// Mends an escape whose backslash was read; what follows it.
fn mend_escape<'a>(text: &'a str, mended: &mut String) -> &'a str {
    let code = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    match text.chars().next() {
        Some(letter @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
            mended.extend(['\\', letter]);
            &text[1..]
        }
        Some('u') if code(&text[1..]).is_some() => {
            let (first, after) = (code(&text[1..]).unwrap_or_default(), &text[5..]);
            let second = after.strip_prefix("\\u").and_then(code);
            let is_pair = matches!(first, 0xd800..=0xdbff)
                && second.is_some_and(|second| matches!(second, 0xdc00..=0xdfff));
            let is_lone = matches!(first, 0xd800..=0xdfff) && !is_pair;
            let length = if is_pair { 11 } else { 5 };
            if is_lone {
                mended.push(REPLACEMENT);
            } else {
                mended.push('\\');
                mended.push_str(&text[..length]);
            }
            &text[length..]
        }
        _ => {
            mended.push(REPLACEMENT);
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spoiled_string_or_number_cost_the_whole_document() {
        for (body, value) in [
            (&b"{\"a\":\"\\ud83d\",\"b\":1}"[..], json!({"a": "\u{fffd}", "b": 1})),
            (
                b"[\"\\udc00\\ud83d\\ude00 \\ud83dx\\\\ud83d\"]",
                json!(["\u{fffd}\u{1f600} \u{fffd}x\\ud83d"]),
            ),
            (b"[\"a\xffb\", 2]", json!(["a\u{fffd}b", 2])),
            (b"[\"a\nb\tc\"]", json!(["a\nb\tc"])),
            (b"[\"a\\qb\\u12\"]", json!(["a\u{fffd}qb\u{fffd}u12"])),
            (
                b"{\"a\": NaN, \"b\": [-Infinity, 1e999, 7]}",
                json!({"a": null, "b": [null, null, 7]}),
            ),
            (b"\xef\xbb\xbf{}", json!({})),
            (b"\xef\xbb\xbf[\"\\ud800\"]", json!(["\u{fffd}"])),
        ] {
            assert_eq!(parse(body).unwrap(), value, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_broken_structure_stays_broken() {
        for body in ["", "{", "[\"", "[\"\\", "[\"\\u", "[NaN", "{} x", "{\"a\":}", "[1,,2]"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse(b"\xff{}").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_document_is_a_crash(body in "[]{}\\[\"\\\\u0-9dDnNaI:,.+ö\\n-]{0,60}") {
            let _ = parse(body.as_bytes());
        }

        #[test]
        fn what_was_right_stays_as_it_was(text in any::<String>(), number in any::<f64>()) {
            let value = json!({text.clone(): [text, number, true, null]});
            let document = value.to_string();
            prop_assert_eq!(serde_json::from_str::<Value>(&mend(&document)).unwrap(), serde_json::from_str::<Value>(&document).unwrap());
        }
    }
}
