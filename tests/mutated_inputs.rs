//! What strangers may send, by the checks of `tests/fuzz/checks`: the seeds of the fuzzer, and those with
//! random changes. `tests/run --long` has the same checks fuzzed with the coverage as a guide.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

#[path = "fuzz/checks/alert.rs"]
mod alert;
#[path = "fuzz/checks/datagram.rs"]
mod datagram;
#[path = "fuzz/checks/head.rs"]
mod head;
#[path = "fuzz/checks/restic.rs"]
mod restic;
#[path = "fuzz/checks/smtp.rs"]
mod smtp;
#[path = "fuzz/checks/yaml.rs"]
mod yaml;

/// The longest input, as of the fuzzer.
const MAX_BYTES: usize = 8192;

/// One change of an input.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Remove(Index, usize),
    /// A part of it, once more and elsewhere.
    Copy(Index, usize, Index),
    /// A word of the dictionary, at a place.
    Insert(Index, Index),
    Cut(Index),
    /// Its beginning, and the end of another seed.
    Splice(Index, Index, Index),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>]) {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        let part = |index: &Index, length: usize, bytes: &[u8]| {
            let begin = place(index, bytes);
            begin..(begin + length).min(bytes.len())
        };
        match self {
            Mutation::Flip(index, bit) if !bytes.is_empty() => {
                *index.get_mut(bytes) ^= 1 << bit;
            }
            Mutation::Set(index, byte) if !bytes.is_empty() => *index.get_mut(bytes) = *byte,
            Mutation::Flip(..) | Mutation::Set(..) => {}
            Mutation::Remove(index, length) => {
                bytes.drain(part(index, *length, bytes));
            }
            Mutation::Copy(index, length, to) => {
                let copied = bytes[part(index, *length, bytes)].to_vec();
                let to = place(to, bytes);
                bytes.splice(to..to, copied);
            }
            Mutation::Insert(_, _) if words.is_empty() => {}
            Mutation::Insert(index, word) => {
                let to = place(index, bytes);
                bytes.splice(to..to, word.get(words).clone());
            }
            Mutation::Cut(index) => bytes.truncate(place(index, bytes)),
            Mutation::Splice(index, other, from) => {
                bytes.truncate(place(index, bytes));
                let other = other.get(seeds);
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
        }
        bytes.truncate(MAX_BYTES);
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<Index>(), 1..200_usize, any::<Index>())
            .prop_map(|(at, length, to)| Mutation::Copy(at, length, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, word)| Mutation::Insert(at, word)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, other, from)| Mutation::Splice(at, other, from)),
    ]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder().join("seeds").join(target)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// The words of libFuzzer's dictionary: a quoted text a line, with `\xNN` for bytes.
fn words(target: &str) -> Vec<Vec<u8>> {
    let Ok(text) = std::fs::read_to_string(folder().join(format!("{target}.dict"))) else {
        return Vec::new();
    };
    let quoted = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    quoted.map(unescape).collect()
}

fn unescape(word: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), word.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [b'x', digits @ ..]) => {
                let hex = std::str::from_utf8(&digits[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &digits[2..];
            }
            (b'\\', [escaped, ..]) => {
                bytes.push(*escaped);
                rest = &after[1..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

fn check(target: &str, cases: u32, run: fn(&[u8])) {
    let (seeds, words) = (seeds(target), words(target));
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds.iter().for_each(|seed| run(seed));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let inputs = (any::<Index>(), prop::collection::vec(mutation(), 1..6));
    let mutated = inputs.prop_map(|(seed, mutations)| {
        let mut bytes = seed.get(&seeds).clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes, &seeds, &words));
        bytes
    });
    let result = TestRunner::new(config).run(&mutated, |bytes| {
        run(&bytes);
        Ok(())
    });
    result.unwrap_or_else(|why| panic!("{target}: {why}"));
}

#[test]
fn words_of_a_dictionary_are_bytes() {
    assert_eq!(unescape(r#"a\x0d\x0a\"b\\"#), b"a\r\n\"b\\");
    assert!(words("head").contains(&b"\r\n\r\n".to_vec()));
}

#[test]
fn alerts() {
    check("alert", 3000, alert::run);
}

#[test]
fn datagrams() {
    check("datagram", 1000, datagram::run);
}

#[test]
fn heads_of_requests() {
    check("head", 10_000, head::run);
}

#[test]
fn words_of_restic() {
    check("restic", 5000, restic::run);
}

#[test]
fn replies_of_smtp_servers() {
    check("smtp", 200, smtp::run);
}

#[test]
fn configurations() {
    check("yaml", 600, yaml::run);
}
