//! Paths of metrics: their limits, segments for any text, patterns; and the rounding of values. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The longest metric path that hbd takes, in bytes.
pub const MAX_PATH_LENGTH: usize = 200;
/// The most segments of a path: hbd refuses a datagram that is nested deeper.
pub const MAX_PATH_DEPTH: usize = 16;
/// The longest segment, in bytes.
const MAX_SEGMENT: usize = 64;

/// Two decimals: more would be noise, and costs bytes in every datagram.
pub fn round_hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The share of `part` in `whole`, from 0 to 100.
pub fn percent(part: f64, whole: f64) -> f64 {
    (part / whole * 100.0).clamp(0.0, 100.0)
}

/// `text` as one segment of a path: letters, digits, `-` and `_` stay, everything else, dots
/// above all, becomes `_`. Never empty, at most 64 bytes.
pub fn segment(text: &str) -> String {
    let mut segment = String::new();
    for letter in text.chars() {
        let kept = letter.is_alphanumeric() || letter == '-';
        let letter = if kept { letter } else { '_' };
        if segment.len() + letter.len_utf8() > MAX_SEGMENT {
            break;
        }
        segment.push(letter);
    }
    if segment.is_empty() { "_".into() } else { segment }
}

/// The label of a file path, before it becomes a segment: `/` is `root`, `/var` is `var`.
pub fn path_label(path: &str) -> String {
    match path.strip_prefix('/').map(|inner| inner.trim_matches('/')) {
        Some("") => "root".to_owned(),
        Some(inner) => inner.to_owned(),
        None => path.to_owned(),
    }
}

/// A segment for each text, in order; where it is in use already, with `_2`, `_3` ... behind it.
pub fn unique_segments<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut used = BTreeSet::new();
    texts.into_iter().map(|text| unused_segment(text, &mut used)).collect()
}

/// Beyond this number a registry forgets what is not there any more.
const MAX_REGISTERED: usize = 1024;

/// The segments of things that may look alike: whatever else comes and goes, each thing keeps its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentRegistry {
    /// By what identifies the thing.
    known: BTreeMap<String, String>,
}

impl SegmentRegistry {
    /// After a start: things that are not known take over the segments of those that are gone and were
    /// called alike. What identifies a thing may have another number since the last boot.
    pub fn take_over(&mut self, things: &[(String, String)]) {
        let is_gone = |key: &&String| !things.iter().any(|(_, identity)| identity == *key);
        let mut gone: Vec<String> = self.known.keys().filter(is_gone).cloned().collect();
        gone.sort_unstable_by_key(|key| (self.known[key].len(), self.known[key].clone()));
        for (text, identity) in things {
            let plain = segment(text);
            let like = |key: &String| is_numbered(&self.known[key], &plain);
            if !self.known.contains_key(identity)
                && let Some(index) = gone.iter().position(like)
                && let Some(segment) = self.known.remove(&gone.remove(index))
            {
                self.known.insert(identity.clone(), segment);
            }
        }
    }

    /// A segment for each thing, in order; `things` are a text for its name, and what identifies it.
    /// Where a segment is another one's already, it has `_2`, `_3` ... behind it.
    pub fn assign(&mut self, things: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
        let things: Vec<(String, String)> = things.into_iter().collect();
        if self.known.len() > MAX_REGISTERED {
            self.known.retain(|key, _| things.iter().any(|(_, identity)| identity == key));
        }
        let mut used: BTreeSet<String> = self.known.values().cloned().collect();
        let mut segments = Vec::new();
        for (text, identity) in things {
            let known = self.known.entry(identity);
            segments.push(known.or_insert_with(|| unused_segment(&text, &mut used)).clone());
        }
        segments
    }
}

/// Whether a segment is `plain`, or that with `_2`, `_3` ... behind it.
fn is_numbered(segment: &str, plain: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = segment.strip_prefix(plain);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('_').is_some_and(is_number))
}

fn unused_segment(text: &str, used: &mut BTreeSet<String>) -> String {
    let plain = segment(text);
    let mut name = plain.clone();
    let mut count = 1;
    while !used.insert(name.clone()) {
        count += 1;
        name = format!("{plain}_{count}");
    }
    name
}

/// Whether `text` matches `pattern`, in which `*` stands for any text, also for none.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let parts: Vec<&str> = tail.split('*').collect();
    let (last, middle) = parts.split_last().expect("a split gives one part at least");
    for part in middle {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_segment_has_no_dots() {
        for (text, name) in [
            ("eth0.100", "eth0_100"),
            ("var/lib", "var_lib"),
            ("Package id 0", "Package_id_0"),
            ("Büro", "Büro"),
            ("a*b", "a_b"),
            ("", "_"),
        ] {
            assert_eq!(segment(text), name);
        }
    }

    #[test]
    fn names_that_look_alike_are_told_apart() {
        let names = unique_segments(["a.b", "a_b", "a_b_2", "a/b", "c"]);
        assert_eq!(names, ["a_b", "a_b_2", "a_b_2_2", "a_b_3", "c"]);
    }

    #[test]
    fn a_thing_keeps_its_segment_when_another_one_that_looks_alike_goes_or_comes() {
        let thing = |text: &str| (text.to_owned(), format!("id of {text}"));
        let mut registry = SegmentRegistry::default();
        assert_eq!(registry.assign([thing("a.b"), thing("a_b")]), ["a_b", "a_b_2"]);
        assert_eq!(registry.assign([thing("a_b")]), ["a_b_2"]);
        assert_eq!(registry.assign([thing("a/b"), thing("a_b")]), ["a_b_3", "a_b_2"]);
        assert_eq!(registry.assign([thing("a.b")]), ["a_b"]);
        for n in 0..2 * MAX_REGISTERED {
            registry.assign([thing(&format!("c{n}"))]);
        }
        assert!(registry.known.len() <= MAX_REGISTERED + 1, "what is gone is forgotten");
    }

    #[test]
    fn a_thing_that_a_boot_has_numbered_anew_keeps_its_segment() {
        let thing = |text: &str, identity: &str| (text.to_owned(), identity.to_owned());
        let mut registry = SegmentRegistry::default();
        let before = [thing("jc42", "i2c-4"), thing("jc42", "i2c-5"), thing("jc429", "i2c-6")];
        assert_eq!(registry.assign(before), ["jc42", "jc42_2", "jc429"]);
        let after = [thing("jc42", "i2c-7"), thing("jc42", "i2c-8"), thing("jc42", "i2c-9")];
        registry.take_over(&after);
        assert_eq!(registry.assign(after), ["jc42", "jc42_2", "jc42_3"]);
        // One that has died leaves its segment to nobody.
        let survivor = [thing("jc42", "i2c-8")];
        registry.take_over(&survivor);
        assert_eq!(registry.assign(survivor), ["jc42_2"]);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, does) in [
            ("veth*", "veth12ab", true),
            ("veth*", "veth", true),
            ("veth*", "eth0", false),
            ("lo", "lo", true),
            ("lo", "lo0", false),
            ("tap*i*", "tap100i0", true),
            ("tap*i*", "tap0", false),
            ("/run/*", "/run/user/1000", true),
            ("/run/*", "/run", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("*/x", "/a/x", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), does, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_it_is_called_it_gets_a_segment_of_its_own(
            texts in prop::collection::vec("\\PC{0,90}|[a/._]{1,3}", 0..20),
        ) {
            let names = unique_segments(texts.iter().map(String::as_str));
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), texts.len());
            for name in names {
                prop_assert!(!name.is_empty() && name.len() < 70);
                prop_assert!(!name.contains(['.', '*', '/']) && !name.contains(char::is_control));
            }
        }

        #[test]
        fn a_pattern_never_panics(pattern in "[a*é]{0,6}", text in "[aé]{0,6}") {
            matches_pattern(&pattern, &text);
            prop_assert!(matches_pattern("*", &text) && matches_pattern(&text, &text));
        }
    }
}
