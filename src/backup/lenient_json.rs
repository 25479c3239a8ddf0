//! Reads JSON of which a part is spoiled: a lone surrogate, bytes that are no UTF-8, a raw line break in
//! a string, or `NaN` costs itself and not the whole document. No tree is built of a document: what
//! nobody asks for is passed over, however large or deep it is. Pure.

use std::fmt;
use std::io::{self, BufReader, Read};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
/// The last two digits of the escapes of all control characters.
const CONTROL_DIGITS: &[u8] = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Reads a document. What is spoiled within a string becomes U+FFFD, a number that is none null.
///
/// # Errors
/// What is wrong with a document whose structure is broken.
pub fn read<'de, P: Part<'de>>(body: &[u8], part: P) -> Result<P::Value, String> {
    let rest = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let reader = BufReader::new(Mender { rest, in_string: false, piece: (&[], &[]) });
    let mut document = serde_json::Deserializer::from_reader(reader);
    let value = Lenient(part).deserialize(&mut document);
    let value = value.and_then(|value| document.end().map(|()| value));
    value.map_err(|why| format!("the body is not JSON: {why}"))
}

/// Reads a part of a document, whatever it is. Of what is not read nothing is kept.
pub trait Part<'de>: Sized {
    /// What is kept of it; the default where it is something else than was expected.
    type Value: Default;

    /// It is an object.
    ///
    /// # Errors
    /// When the document is broken in it.
    fn read_object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Value::default())
    }

    /// It is an array.
    ///
    /// # Errors
    /// When the document is broken in it.
    fn read_array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Value::default())
    }

    /// It is neither.
    fn read_scalar(self, _: Scalar) -> Self::Value {
        Self::Value::default()
    }
}

/// A value that holds no others.
pub enum Scalar<'a> {
    /// A string.
    Text(&'a str),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Flag(bool),
    /// `null`.
    Null,
}

/// A [`Part`] as serde reads it.
pub struct Lenient<P>(pub P);

impl<'de, P: Part<'de>> DeserializeSeed<'de> for Lenient<P> {
    type Value = P::Value;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<P::Value, D::Error> {
        document.deserialize_any(self)
    }
}

impl<'de, P: Part<'de>> Visitor<'de> for Lenient<P> {
    type Value = P::Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<P::Value, A::Error> {
        self.0.read_object(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<P::Value, A::Error> {
        self.0.read_array(array)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<P::Value, E> {
        Ok(self.0.read_scalar(Scalar::Text(text)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<P::Value, E> {
        Ok(self.0.read_scalar(Scalar::Number(number.into())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<P::Value, E> {
        Ok(self.0.read_scalar(Scalar::Number(number.into())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<P::Value, E> {
        Ok(self.0.read_scalar(Number::from_f64(number).map_or(Scalar::Null, Scalar::Number)))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<P::Value, E> {
        Ok(self.0.read_scalar(Scalar::Flag(flag)))
    }

    fn visit_unit<E: Error>(self) -> Result<P::Value, E> {
        Ok(self.0.read_scalar(Scalar::Null))
    }
}

/// A document without spoiled strings and numbers, mended while it is read.
struct Mender<'a> {
    rest: &'a [u8],
    in_string: bool,
    /// What comes before the rest.
    piece: (&'a [u8], &'a [u8]),
}

impl Read for Mender<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.piece.0.is_empty() {
                self.piece = match self.piece.1 {
                    [] => self.next_piece(),
                    second => (second, &[]),
                };
            }
            if self.piece.0.is_empty() {
                break;
            }
            filled += self.piece.0.read(&mut buffer[filled..])?;
        }
        Ok(filled)
    }
}

impl<'a> Mender<'a> {
    /// The next bytes, mended; empty at the end.
    fn next_piece(&mut self) -> (&'a [u8], &'a [u8]) {
        match self.rest.first() {
            None => (&[], &[]),
            Some(first) if self.in_string => self.string_piece(*first),
            Some(b'"') => {
                self.in_string = true;
                (self.take(1), &[])
            }
            Some(first) if is_bare(first) => (mended_word(self.take_while(is_bare)), &[]),
            Some(_) => (self.take_while(|byte| *byte != b'"' && !is_bare(byte)), &[]),
        }
    }

    fn string_piece(&mut self, first: u8) -> (&'a [u8], &'a [u8]) {
        match first {
            b'"' => {
                self.in_string = false;
                (self.take(1), &[])
            }
            b'\\' => (self.escape(), &[]),
            0..=0x1f => {
                self.take(1);
                let digits = usize::from(first) * 2;
                (b"\\u00", &CONTROL_DIGITS[digits..digits + 2])
            }
            0x80.. => (self.letter(), &[]),
            _ => {
                let plain = |byte: &u8| (b' '..0x80).contains(byte) && !b"\"\\".contains(byte);
                (self.take_while(plain), &[])
            }
        }
    }

    /// A letter of several bytes.
    fn letter(&mut self) -> &'a [u8] {
        let window = &self.rest[..self.rest.len().min(4)];
        let Some(chunk) = window.utf8_chunks().next() else { return &[] };
        match chunk.valid().chars().next() {
            Some(letter) => self.take(letter.len_utf8()),
            None => {
                self.take(chunk.invalid().len());
                REPLACEMENT
            }
        }
    }

    fn escape(&mut self) -> &'a [u8] {
        let length = match self.rest {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            rest => match (escaped_code(rest), escaped_code(rest.get(6..).unwrap_or_default())) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => {
                    self.take(6);
                    return REPLACEMENT;
                }
                (Some(_), _) => 6,
                (None, _) => {
                    self.take(1);
                    return REPLACEMENT;
                }
            },
        };
        self.take(length)
    }

    fn take_while(&mut self, wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(byte));
        self.take(end.unwrap_or(self.rest.len()))
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

/// Whether a byte belongs to a number, or to a word such as `true`.
fn is_bare(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(byte)
}

/// Numbers that JSON does not know, or that are too large to be one, as null.
fn mended_word(word: &[u8]) -> &[u8] {
    let number = std::str::from_utf8(word).ok().and_then(|word| word.parse::<f64>().ok());
    if number.is_some_and(|number| !number.is_finite()) { b"null" } else { word }
}

/// The number of a `\u12ab` at the beginning.
fn escaped_code(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digit = |code: u32, digit: &u8| Some(code << 4 | char::from(*digit).to_digit(16)?);
    digits.iter().try_fold(0, digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The whole document.
    struct Tree;

    impl<'de> Part<'de> for Tree {
        type Value = Value;

        fn read_object<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
            let mut fields = serde_json::Map::new();
            while let Some(name) = object.next_key()? {
                fields.insert(name, object.next_value_seed(Lenient(Tree))?);
            }
            Ok(fields.into())
        }

        fn read_array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = array.next_element_seed(Lenient(Tree))? {
                items.push(item);
            }
            Ok(items.into())
        }

        fn read_scalar(self, scalar: Scalar) -> Value {
            match scalar {
                Scalar::Text(text) => text.into(),
                Scalar::Number(number) => number.into(),
                Scalar::Flag(flag) => flag.into(),
                Scalar::Null => Value::Null,
            }
        }
    }

    fn parse(body: &[u8]) -> Result<Value, String> {
        read(body, Tree)
    }

    #[test]
    fn a_spoiled_string_or_number_cost_the_whole_document() {
        for (body, value) in [
            (&b"{\"a\":\"\\ud83d\",\"b\":1}"[..], json!({"a": "\u{fffd}", "b": 1})),
            (
                b"[\"\\udc00\\ud83d\\ude00 \\ud83dx\\\\ud83d\"]",
                json!(["\u{fffd}\u{1f600} \u{fffd}x\\ud83d"]),
            ),
            (b"[\"a\xffb\", 2]", json!(["a\u{fffd}b", 2])),
            (b"[\"\xe2\x82\", \"\xe2\x82\xac\xf0\x9f\"]", json!(["\u{fffd}", "€\u{fffd}"])),
            (b"[\"a\nb\tc\"]", json!(["a\nb\tc"])),
            (b"[\"a\\qb\\u12\\u+123\"]", json!(["a\u{fffd}qb\u{fffd}u12\u{fffd}u+123"])),
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

    struct Nothing;

    impl Part<'_> for Nothing {
        type Value = ();
    }

    #[test]
    fn what_nobody_asked_for_overflowed_the_stack_or_the_memory() {
        let many = 1_000_000;
        for (begin, end) in [("[", "]"), ("{\"a\":", "}"), ("[[],{\"b\":[", "]}]")] {
            let (begin, end) = (begin.repeat(many / 4), end.repeat(many / 4));
            assert_eq!(read(format!("{{\"x\":{begin}0{end}}}").as_bytes(), Nothing), Ok(()));
            assert!(read(format!("{{\"x\":{begin}0}}").as_bytes(), Nothing).is_err());
        }
        let digits = "9".repeat(many);
        for body in [format!("[{digits}]"), format!("[0.{digits}]"), format!("\"{digits}\"")] {
            assert_eq!(read(body.as_bytes(), Nothing), Ok(()));
        }
    }

    #[test]
    fn what_is_spoiled_from_end_to_end_is_read_in_one_pass() {
        for spoiled in [&b"\xff"[..], b"\xf0\x9f", b"\x01", b"\\q", b"\\ud800"] {
            let body = [&b"\""[..], &spoiled.repeat(50_000), b"\""].concat();
            assert_eq!(read(&body, Nothing), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn no_document_is_a_crash(body in "[]{}\\[\"\\\\u0-9dDnNaI:,.+ö\\n-]{0,60}") {
            let _ = parse(body.as_bytes());
        }

        #[test]
        fn no_bytes_are_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let spoiled = [&b"[\""[..], &bytes, b"\"]"].concat();
            let _ = (parse(&bytes), parse(&spoiled));
        }

        #[test]
        fn what_was_right_stays_as_it_was(text in any::<String>(), number in any::<f64>()) {
            let value = json!({text.clone(): [text, number, true, null]});
            let document = value.to_string();
            let (ours, theirs) = (parse(document.as_bytes()), serde_json::from_str::<Value>(&document));
            prop_assert_eq!(ours.unwrap(), theirs.unwrap());
        }
    }
}
