//! Patterns that stand for hosts of many names, and which of several is meant by a name. Pure.
//!
//! In a pattern `*` stands for any characters, also none, and `?` for one. What is configured by the
//! exact name of a host goes before any pattern; of the patterns that match, the one with the most
//! literal characters is meant; of several with equally many the one with the most `?`, and then the first
//! of the file.

use std::cmp::Reverse;

use crate::address::is_name;

/// Whether a key is a pattern: it has a `*` or a `?` in it.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether a pattern can match a name: beside `*` and `?` it has the characters of names.
pub fn is_good_pattern(text: &str) -> bool {
    is_pattern(text) && is_name(&text.replace(['*', '?'], "x"))
}

/// How many characters of a pattern stand for themselves, and how many for one each.
fn specificity(pattern: &str) -> (usize, usize) {
    let count = |is_meant: fn(&u8) -> bool| pattern.bytes().filter(is_meant).count();
    (count(|byte| !matches!(byte, b'*' | b'?')), count(|byte| *byte == b'?'))
}

/// Whether a pattern is the whole of `name`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut next) = (0, 0);
    // Behind the last star, and how much of the name that star stands for so far.
    let mut retry: Option<(usize, usize)> = None;
    while next < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, next));
            }
            Some(byte) if *byte == b'?' || *byte == name[next] => (at, next) = (at + 1, next + 1),
            _ => {
                let Some((behind, taken)) = retry else { return false };
                (at, next) = (behind, taken + 1);
                retry = Some((behind, taken + 1));
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Whether there is a name that both patterns match.
pub fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    // Most pairs differ in a character before their first star, or behind their last.
    let ends = |byte: &u8| *byte != b'*';
    let differ = |(left, right): (&u8, &u8)| left != right && *left != b'?' && *right != b'?';
    let begins = one.iter().take_while(|b| ends(b)).zip(other.iter().take_while(|b| ends(b)));
    let tails = one.iter().rev().take_while(|b| ends(b));
    let tails = tails.zip(other.iter().rev().take_while(|b| ends(b)));
    if begins.into_iter().any(differ) || tails.into_iter().any(differ) {
        return false;
    }
    // By what is left of the other: whether that and what is left of the one match something alike.
    let mut below = vec![false; other.len() + 1];
    for i in (0..=one.len()).rev() {
        let mut row = vec![false; other.len() + 1];
        for j in (0..=other.len()).rev() {
            row[j] = match (one.get(i), other.get(j)) {
                (None, None) => true,
                (Some(b'*'), right) => below[j] || right.is_some() && row[j + 1],
                (left, Some(b'*')) => row[j + 1] || left.is_some() && below[j],
                (Some(left), Some(right)) => {
                    (left == right || *left == b'?' || *right == b'?') && below[j + 1]
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = row;
    }
    below[0]
}

/// Something by pattern, in the order in which patterns are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByPattern<T>(Vec<(String, T)>);

impl<T> Default for ByPattern<T> {
    fn default() -> ByPattern<T> {
        ByPattern(Vec::new())
    }
}

impl<T> ByPattern<T> {
    /// Of patterns in the order of their file.
    pub fn new(entries: Vec<(String, T)>) -> ByPattern<T> {
        let mut order: Vec<(Reverse<(usize, usize)>, usize)> = Vec::with_capacity(entries.len());
        order.extend(
            entries.iter().enumerate().map(|(at, (text, _))| (Reverse(specificity(text)), at)),
        );
        order.sort_unstable();
        let mut entries: Vec<Option<(String, T)>> = entries.into_iter().map(Some).collect();
        ByPattern(order.into_iter().filter_map(|(_, at)| entries[at].take()).collect())
    }

    /// The number of the pattern that is meant by a name, by which [`ByPattern::get`] gives it.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(pattern, _)| matches(pattern, name))
    }

    /// The pattern of that number.
    pub fn get(&self, position: usize) -> Option<&(String, T)> {
        self.0.get(position)
    }

    /// What belongs to a name.
    pub fn find(&self, name: &str) -> Option<&T> {
        Some(&self.0.get(self.position(name)?)?.1)
    }

    /// The pattern that is meant by a name.
    pub fn pattern_of(&self, name: &str) -> Option<&str> {
        Some(&self.0.get(self.position(name)?)?.0)
    }

    /// All of them, in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(pattern, value)| (pattern.as_str(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The same patterns with something else.
    pub fn map<U>(&self, change: impl Fn(&str, &T) -> U) -> ByPattern<U> {
        ByPattern(self.0.iter().map(|(text, one)| (text.clone(), change(text, one))).collect())
    }

    /// Two patterns of which neither is more specific than the other, although both match some name: the
    /// second gives way there.
    pub fn ties(&self) -> Vec<(&str, &str)> {
        let mut ties = Vec::new();
        for (at, (text, _)) in self.0.iter().enumerate() {
            let equal = self.0[..at].iter().rev().map(|(other, _)| other.as_str());
            let mut equal = equal.take_while(|other| specificity(other) == specificity(text));
            ties.extend(
                equal
                    .find(|other| *other != text && overlap(other, text))
                    .map(|other| (other, text.as_str())),
            );
        }
        ties
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_characters_and_a_question_mark_is_one() {
        for (pattern, name, expected) in [
            ("web*", "web", true),
            ("web*", "web1", true),
            ("web*", "we", false),
            ("web?", "web", false),
            ("web?", "web1", true),
            ("web?", "web12", false),
            ("*", "x", true),
            ("*-db", "eu-db", true),
            ("*-db", "eu-db-2", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b?c", "a-b-b1c", true),
            ("a*b?c", "abc", false),
            ("??", "ab", true),
            ("**", "", true),
            ("Web*", "web1", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(is_good_pattern("web-??.*") && !is_good_pattern("web") && !is_good_pattern("w b*"));
        assert!(!is_good_pattern(&"*".repeat(254)));
    }

    #[test]
    fn the_most_literal_characters_win_and_then_the_order_of_the_file() {
        let list = ["*", "web*", "*-db", "eu-*", "web-1?", "web-?1", "d*", "d?"];
        let all = ByPattern::new(list.map(|text| (text.to_owned(), ())).into());
        for (name, meant) in [
            ("x", "*"),
            ("web7", "web*"),
            ("us-db", "*-db"),
            ("eu-db", "*-db"),
            ("eu-1", "eu-*"),
            ("web-11", "web-1?"),
            ("web-21", "web-?1"),
            ("db", "d?"),
            ("db2", "d*"),
        ] {
            assert_eq!(all.pattern_of(name), Some(meant), "{name}");
        }
        let ties = all.ties();
        let expected = [("web-1?", "web-?1"), ("web*", "*-db"), ("*-db", "eu-*")];
        assert_eq!(ties, expected);
        assert_eq!(ByPattern::<()>::default().pattern_of("x"), None);
    }

    proptest! {
        #[test]
        fn patterns_that_match_one_name_overlap(
            one in "[ab*?]{0,5}", other in "[ab*?]{0,5}", name in "[abc]{0,5}",
        ) {
            if matches(&one, &name) && matches(&other, &name) {
                prop_assert!(overlap(&one, &other));
            }
            prop_assert_eq!(overlap(&one, &name), matches(&one, &name));
            prop_assert_eq!(overlap(&one, &other), overlap(&other, &one));
        }

        #[test]
        fn patterns_that_overlap_match_one_name(one in "[ab*?]{0,4}", other in "[ab*?]{0,4}") {
            let mut names = vec![String::new()];
            let mut at = 0;
            while at < names.len() {
                if names[at].len() < 8 {
                    for letter in ['a', 'b'] {
                        names.push(format!("{}{letter}", names[at]));
                    }
                }
                at += 1;
            }
            let common = names.iter().any(|name| matches(&one, name) && matches(&other, name));
            prop_assert_eq!(overlap(&one, &other), common);
        }
    }
}
