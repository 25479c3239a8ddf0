//! YAML text as a tree whose leaves keep their text exactly: `+1234567890`, `0123`, `yes`, `101:`. Pure.
//!
//! serde_yaml's `deserialize_any` gives the shape of a node but rewrites a scalar that looks like a number
//! (`0123` becomes 123); `deserialize_str` gives the scalar as written but must know that it is one. So
//! `ShapePass` reads the shape, a scan of the text finds every node's line and the spelling of such
//! scalars, and where the scan cannot follow the text `ScalarPass` reads the scalars.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor,
};

mod errors;
mod positions;

/// The longest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The error for a longer one.
pub const TOO_LONG: &str = "is longer than 1 MiB, which no configuration is: is it the right file?";
/// The deepest nesting that is accepted.
const MAX_DEPTH: usize = 32;
/// The most nodes that are accepted: a few aliases of aliases expand to millions.
const MAX_NODES: usize = 1 << 20;

/// The type of a scalar by the rules of YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool,
    /// `42`, `+1234567890`, `0x1f`.
    Int,
    /// `0.5`, `1e3`, `.inf`.
    Float,
    /// Everything else, and everything in quotes.
    Text,
}

/// A node of the tree, with its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// From 1; none where it is not known: use that of the nearest ancestor.
    pub line: Option<usize>,
    /// What it is.
    pub value: NodeValue,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeValue {
    /// A scalar, as written, without its quotes.
    Scalar { text: String, kind: ScalarKind },
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the text, with duplicate keys.
    Map(Vec<MapEntry>),
}

/// A key and its node.
#[derive(Clone, Debug, PartialEq)]
pub struct MapEntry {
    /// As written, without its quotes.
    pub key: String,
    /// The line of the key.
    pub line: Option<usize>,
    /// Its value.
    pub node: Node,
}

/// Why a text cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// The line, from 1, when it is known.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub what: String,
}

/// Parses a text. An empty one is an empty map; a top level that is no map is an error.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        return Err(YamlError { line: None, what: TOO_LONG.into() });
    }
    errors::check_characters(text)?;
    errors::check_nesting(text)?;
    let nodes = Cell::new(0);
    let error = |error: serde_yaml::Error| errors::explain(&error, text);
    let shape = ShapePass { nodes: &nodes, depth: 0 }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(error)?;
    let mut root = match shape {
        NodeValue::Scalar { kind: ScalarKind::Null, .. } => {
            return Ok(Node::from(NodeValue::Map(Vec::new())));
        }
        NodeValue::Map(_) => Node::from(shape),
        NodeValue::Scalar { .. } | NodeValue::List(_) => {
            let what = "must be a map: lines of \"key: value\"";
            return Err(YamlError { line: Some(1), what: what.into() });
        }
    };
    let complete = positions::locate(text, &mut root);
    if !complete {
        ScalarPass(&mut root)
            .deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(error)?;
    }
    Ok(root)
}

impl From<NodeValue> for Node {
    fn from(value: NodeValue) -> Node {
        Node { line: None, value }
    }
}

/// The first pass: lists, maps with their keys, and the kinds of the leaves.
#[derive(Clone, Copy)]
struct ShapePass<'a> {
    nodes: &'a Cell<usize>,
    depth: usize,
}

impl ShapePass<'_> {
    fn deeper(self) -> Self {
        ShapePass { depth: self.depth + 1, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for ShapePass<'_> {
    type Value = NodeValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeValue, D::Error> {
        self.nodes.set(self.nodes.get() + 1);
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("is nested too deeply"));
        }
        if self.nodes.get() > MAX_NODES {
            return Err(D::Error::custom("has too many values: are there aliases of aliases?"));
        }
        deserializer.deserialize_any(self)
    }
}

/// A scalar that is not text has YAML's own spelling until the scan finds how it is written.
fn leaf<E>(kind: ScalarKind, text: impl ToString) -> Result<NodeValue, E> {
    Ok(NodeValue::Scalar { text: text.to_string(), kind })
}

impl<'de> Visitor<'de> for ShapePass<'_> {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        leaf(ScalarKind::Null, "")
    }

    fn visit_none<E>(self) -> Result<NodeValue, E> {
        leaf(ScalarKind::Null, "")
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeValue, E> {
        leaf(ScalarKind::Bool, value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeValue, E> {
        leaf(ScalarKind::Int, value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<NodeValue, E> {
        leaf(ScalarKind::Int, value)
    }

    fn visit_i128<E>(self, value: i128) -> Result<NodeValue, E> {
        leaf(ScalarKind::Int, value)
    }

    fn visit_u128<E>(self, value: u128) -> Result<NodeValue, E> {
        leaf(ScalarKind::Int, value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeValue, E> {
        leaf(ScalarKind::Float, value)
    }

    fn visit_str<E>(self, text: &str) -> Result<NodeValue, E> {
        leaf(ScalarKind::Text, text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NodeValue, A::Error> {
        let mut nodes = Vec::new();
        while let Some(value) = list.next_element_seed(self.deeper())? {
            nodes.push(value.into());
        }
        Ok(NodeValue::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(TextVisitor)? {
            let node = map.next_value_seed(self.deeper())?.into();
            entries.push(MapEntry { key, line: None, node });
        }
        Ok(NodeValue::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<NodeValue, A::Error> {
        Err(A::Error::custom("has a YAML tag: a value that begins with \"!\" must be in quotes"))
    }
}

/// Reads a scalar or a key as written.
struct TextVisitor;

impl<'de> DeserializeSeed<'de> for TextVisitor {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a word")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// The second pass, which reads scalars as written: the first one found which nodes they are.
struct ScalarPass<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for ScalarPass<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &mut self.0.value {
            NodeValue::Scalar { text, .. } => {
                *text = TextVisitor.deserialize(deserializer)?;
                Ok(())
            }
            NodeValue::List(_) => deserializer.deserialize_seq(self),
            NodeValue::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for ScalarPass<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("what the first pass found")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let NodeValue::List(nodes) = &mut self.0.value {
            for node in nodes {
                list.next_element_seed(ScalarPass(node))?;
            }
        }
        end(list.next_element_seed(TextVisitor)?)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let NodeValue::Map(entries) = &mut self.0.value {
            for entry in entries {
                map.next_key_seed(TextVisitor)?;
                map.next_value_seed(ScalarPass(&mut entry.node))?;
            }
        }
        end(map.next_key_seed(TextVisitor)?)
    }
}

/// serde must be asked for one element more than there are, else it reports trailing elements.
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

    fn map(text: &str) -> Vec<MapEntry> {
        match parse(text).unwrap().value {
            NodeValue::Map(entries) => entries,
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
            let NodeValue::Scalar { text: value, .. } = &entries[1].node.value else { panic!() };
            assert_eq!(value, text);
            let NodeValue::List(list) = &entries[2].node.value else { panic!() };
            let NodeValue::Scalar { text: value, .. } = &list[0].value else { panic!() };
            assert_eq!(value, text);
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let text = "a:\nb: true\nc: 12\nd: 1.5\ne: x\nf: '12'\ng: ~\nh: ''";
        let kinds: Vec<_> = map(text)
            .into_iter()
            .map(|entry| match entry.node.value {
                NodeValue::Scalar { kind, .. } => kind,
                other => panic!("{other:?}"),
            })
            .collect();
        use ScalarKind::*;
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
            let filled = |root: &Node| !matches!(&root.value, NodeValue::Map(map) if map.is_empty());
            if let Some(mut root) = parse(&text).ok().filter(filled) {
                let walked = root.clone();
                ScalarPass(&mut root).deserialize(serde_yaml::Deserializer::from_str(&text)).unwrap();
                prop_assert_eq!(walked, root, "the walk took another text for {:?}", text);
            }
        }
    }
}
