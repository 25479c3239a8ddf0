//! YAML text as a tree whose leaves keep their text exactly: `+1234567890`, `0123`, `yes`, `101:`. Pure.
//!
//! Asked what a node is, serde tells its shape but rewrites a leaf that looks like a number (`0123`
//! becomes 123); asked for a string, it gives the leaf as written but must know that it is one. So one
//! pass learns the shape, a walk through the text finds every node's line and takes such leaves from
//! there, and where the walk loses its way a second pass asks for the leaves.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor,
};

mod errors;
mod positions;

/// A longer text is not parsed.
pub const LONGEST: usize = 1 << 20;
/// What is said of one.
pub const TOO_LONG: &str = "is longer than 1 MiB, which no configuration is: is it the right file?";
/// Deeper nesting is refused.
const DEEPEST: usize = 32;
/// More nodes are refused: a few aliases of aliases are enough for millions.
const MOST_NODES: usize = 1 << 20;

/// What a leaf would be to a program that asks YAML for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool,
    /// `42`, `+1234567890`, `0x1f`.
    Int,
    /// `0.5`, `1e3`, `.inf`.
    Float,
    /// All else, and everything in quotes.
    Text,
}

/// A node and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// From 1; none where it could not be told, and the nearest ancestor's is to be used.
    pub line: Option<usize>,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A leaf, as written, without its quotes.
    Scalar { text: String, kind: Kind },
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the text, duplicates and all.
    Map(Vec<Entry>),
}

/// A key and its node.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As written, without its quotes.
    pub key: String,
    /// Where the key stands.
    pub line: Option<usize>,
    /// What it stands for.
    pub node: Node,
}

/// Why a text is not YAML that we read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where, from 1, when it is known.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub what: String,
}

/// Reads a text. An empty one is an empty map; a top level that is no map is refused.
pub fn parse(text: &str) -> Result<Node, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LONGEST {
        return Err(Refusal { line: None, what: TOO_LONG.into() });
    }
    errors::check_nesting(text)?;
    let nodes = Cell::new(0);
    let refusal = |error: serde_yaml::Error| errors::explain(&error, text);
    let shape = Shape { nodes: &nodes, depth: 0 }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(refusal)?;
    let mut root = match shape {
        Value::Scalar { kind: Kind::Null, .. } => return Ok(Node::from(Value::Map(Vec::new()))),
        Value::Map(_) => Node::from(shape),
        Value::Scalar { .. } | Value::List(_) => {
            let what = "must be a map: lines of \"key: value\"";
            return Err(Refusal { line: Some(1), what: what.into() });
        }
    };
    let complete = positions::place(text, &mut root);
    if !complete {
        Leaves(&mut root).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(refusal)?;
    }
    Ok(root)
}

impl From<Value> for Node {
    fn from(value: Value) -> Node {
        Node { line: None, value }
    }
}

/// The first pass: lists, maps with their keys, and the kinds of the leaves.
#[derive(Clone, Copy)]
struct Shape<'a> {
    nodes: &'a Cell<usize>,
    depth: usize,
}

impl Shape<'_> {
    fn deeper(self) -> Self {
        Shape { depth: self.depth + 1, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.nodes.set(self.nodes.get() + 1);
        if self.depth > DEEPEST {
            return Err(D::Error::custom("is nested too deeply"));
        }
        if self.nodes.get() > MOST_NODES {
            return Err(D::Error::custom("has too many values: are there aliases of aliases?"));
        }
        deserializer.deserialize_any(self)
    }
}

/// A leaf that is not text, in YAML's own spelling until the walk finds how it is written.
fn leaf<E>(kind: Kind, text: impl ToString) -> Result<Value, E> {
    Ok(Value::Scalar { text: text.to_string(), kind })
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        leaf(Kind::Null, "")
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        leaf(Kind::Null, "")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        leaf(Kind::Bool, value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        leaf(Kind::Int, value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        leaf(Kind::Int, value)
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        leaf(Kind::Int, value)
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        leaf(Kind::Int, value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        leaf(Kind::Float, value)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        leaf(Kind::Text, text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(value) = list.next_element_seed(self.deeper())? {
            nodes.push(value.into());
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(Text)? {
            let node = map.next_value_seed(self.deeper())?.into();
            entries.push(Entry { key, line: None, node });
        }
        Ok(Value::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("has a YAML tag: a value that begins with \"!\" must be in quotes"))
    }
}

/// A leaf or a key, as written.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a word")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// The second pass, directed by the shape that the first one found.
struct Leaves<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for Leaves<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &mut self.0.value {
            Value::Scalar { text, .. } => {
                *text = Text.deserialize(deserializer)?;
                Ok(())
            }
            Value::List(_) => deserializer.deserialize_seq(self),
            Value::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Leaves<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("what the first pass found")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Value::List(nodes) = &mut self.0.value {
            for node in nodes {
                list.next_element_seed(Leaves(node))?;
            }
        }
        end(list.next_element_seed(Text)?)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Value::Map(entries) = &mut self.0.value {
            for entry in entries {
                map.next_key_seed(Text)?;
                map.next_value_seed(Leaves(&mut entry.node))?;
            }
        }
        end(map.next_key_seed(Text)?)
    }
}

/// serde wants to be asked once more than there are elements, or it complains of a rest.
fn end<E: serde::de::Error>(rest: Option<String>) -> Result<(), E> {
    match rest {
        None => Ok(()),
        Some(_) => Err(E::custom("is longer at second sight")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(text: &str) -> Vec<Entry> {
        match parse(text).unwrap().value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn leaves_and_keys_keep_their_text() {
        for text in [
            "+1234567890",
            "+0987654321",
            "0123",
            "1e3",
            "yes",
            "on",
            "0x1F",
            "1_000",
            "-0",
            ".5",
            "true",
            "~",
            "null",
            "2024-01-01",
            "12:30:45",
            "1.10",
            "99999999999999999999999999",
            "340282366920938463463374607431768211456",
            "+.inf",
            "a#b",
            "a:b",
            "-x",
        ] {
            let entries = map(&format!("{text}: 1\nk: {text}\nl: [{text}]\n"));
            assert_eq!(entries[0].key, text);
            let Value::Scalar { text: value, .. } = &entries[1].node.value else { panic!() };
            assert_eq!(value, text);
            let Value::List(list) = &entries[2].node.value else { panic!() };
            let Value::Scalar { text: value, .. } = &list[0].value else { panic!() };
            assert_eq!(value, text);
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let text = "a:\nb: true\nc: 12\nd: 1.5\ne: x\nf: '12'\ng: ~\nh: ''";
        let kinds: Vec<_> = map(text)
            .into_iter()
            .map(|entry| match entry.node.value {
                Value::Scalar { kind, .. } => kind,
                other => panic!("{other:?}"),
            })
            .collect();
        use Kind::*;
        assert_eq!(kinds, [Null, Bool, Int, Float, Text, Text, Null, Text]);
    }

    #[test]
    fn duplicates_and_their_order_are_kept() {
        let keys: Vec<_> =
            map("b: 1\na: 2\nb: 3\n").into_iter().map(|e| (e.key, e.line.unwrap())).collect();
        assert_eq!(keys, [("b".into(), 1), ("a".into(), 2), ("b".into(), 3)]);
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        for text in ["", "\n\n", "# nothing\n", "---\n", "\u{feff}# x\n", "~\n"] {
            assert_eq!(map(text), []);
        }
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in ["- a\n", "hello\n", "12\n"] {
            assert!(parse(text).unwrap_err().what.starts_with("must be a map"), "{text}");
        }
    }

    #[test]
    fn aliases_of_aliases_are_refused() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (next, before) in ('b'..='k').zip('a'..) {
            let list = vec![format!("*{before}"); 9].join(",");
            text.push_str(&format!("{next}: &{next} [{list}]\n"));
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_at_once() {
        let nested = ["[".repeat(500_000), "[\n".repeat(300_000), "[a, {b: ".repeat(90_000)];
        let nested = nested.map(|brackets| "k: ".to_owned() + &brackets);
        for text in nested.into_iter().chain(["- ".repeat(300_000)]) {
            parse(&text).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "[ -~\n\t\u{e9}]{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn yaml_like_junk_never_panics_and_the_walk_agrees_with_a_second_pass(
            text in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", "b:", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "'", "\"", "|\n",
                    ">-\n", "&x ", "*x", "!t ", "# c", "---\n", "...\n", "? ", "\t", "<<", "~", "1", "0x1F", "+12", "1.50", "null", "true", "0x1F", "+12", "1.50", "null", "true",
                ]),
                0..24,
            )
        ) {
            let text = text.concat();
            let filled = |root: &Node| !matches!(&root.value, Value::Map(map) if map.is_empty());
            if let Some(mut root) = parse(&text).ok().filter(filled) {
                let walked = root.clone();
                Leaves(&mut root).deserialize(serde_yaml::Deserializer::from_str(&text)).unwrap();
                prop_assert_eq!(walked, root, "the walk took another text for {:?}", text);
            }
        }
    }
}
