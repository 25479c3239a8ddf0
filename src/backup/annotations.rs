//! The annotations of an alert: which of them are kept, and which are quoted in a report. Pure.

use std::collections::BTreeMap;

/// What people write for people, in the order in which it is quoted; each maybe with a language
/// behind it, as `summary_en`.
const QUOTED: [&str; 4] = ["summary", "description", "message", "title"];
/// How many bytes are kept of each of these, and of all other annotations together: an alert is stored
/// until it is reported.
const MAX_QUOTED_BYTES: usize = 1024;
const MAX_OTHER_BYTES: usize = 1024;
/// The longest language: `_pt_BR`.
const MAX_LANGUAGE: usize = 6;
/// The rank of a name with a language that is not English.
const ANY_LANGUAGE: u8 = 2;

/// Those that are kept: what is quoted first, each up to its limit, whatever else the alert has. Names
/// that begin with `__` are notes of a program to itself (Grafana's `__dashboardUid__`).
pub fn keep(mut all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.retain(|name, text| !is_private(name) && !text.trim().is_empty());
    let quoted: Vec<String> =
        QUOTED.iter().filter_map(|kind| named(&all, kind)).map(str::to_owned).collect();
    let mut kept = BTreeMap::new();
    for name in quoted {
        if let Some(text) = all.remove(&name) {
            kept.insert(name, cut(text, MAX_QUOTED_BYTES));
        }
    }
    let mut left = MAX_OTHER_BYTES;
    for (name, text) in all {
        let Some(fitting) = left.checked_sub(name.len()).filter(|fitting| *fitting > 0) else {
            continue;
        };
        let text = cut(text, fitting);
        left = fitting - text.len();
        kept.insert(name, text);
    }
    kept
}

/// The texts that are quoted, each once: those for people, or else the first there is.
pub fn quoted(annotations: &BTreeMap<String, String>) -> Vec<&str> {
    let mut texts: Vec<&str> = Vec::new();
    for name in QUOTED.iter().filter_map(|kind| named(annotations, kind)) {
        let text = annotations[name].trim();
        if !texts.iter().any(|other| other.contains(text)) {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        let mut others = annotations.iter().filter(|(name, _)| !is_private(name));
        texts.extend(others.find(|(_, text)| !text.trim().is_empty()).map(|(_, text)| text.trim()));
    }
    texts
}

/// Whether an annotation has one of the names of what is quoted, without a language or in English.
pub fn is_for_people(name: &str) -> bool {
    QUOTED.iter().any(|kind| rank(name, kind).is_some_and(|rank| rank < ANY_LANGUAGE))
}

fn is_private(name: &str) -> bool {
    name.starts_with("__")
}

/// The name of the annotation of a kind that has a text: without a language, in English, or in any.
fn named<'a>(annotations: &'a BTreeMap<String, String>, kind: &str) -> Option<&'a str> {
    let with_text = annotations.iter().filter(|(_, text)| !text.trim().is_empty());
    let ranked = with_text.filter_map(|(name, _)| Some((rank(name, kind)?, name.as_str())));
    ranked.min().map(|(_, name)| name)
}

/// How well a name is that of a kind, the best first.
fn rank(name: &str, kind: &str) -> Option<u8> {
    let (start, language) = name.split_at_checked(kind.len())?;
    match language.to_ascii_lowercase().as_str() {
        _ if !start.eq_ignore_ascii_case(kind) => None,
        "" => Some(0),
        "_en" => Some(1),
        other if other.starts_with('_') && other.len() <= MAX_LANGUAGE => Some(ANY_LANGUAGE),
        _ => None,
    }
}

/// As much of a text as fits, with an ellipsis where it is cut.
fn cut(mut text: String, most: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > most {
        let mut end = most.saturating_sub(ELLIPSIS.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        if most >= ELLIPSIS.len_utf8() {
            text.push(ELLIPSIS);
        }
        // The limits count the length, and the capacity may be megabytes.
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_dashboard_was_quoted_in_place_of_what_was_written_for_people() {
        for (pairs, expected) in [
            (&[("__dashboardUid__", "ab12"), ("summary", "It failed")][..], &["It failed"][..]),
            (&[("__dashboardUid__", "ab12"), ("__panelId__", "7")], &[]),
            (&[("__value_string__", "[ var='A' ]"), ("runbook_url", "https://x")], &["https://x"]),
            (&[("summary_en", "It failed"), ("summary_it", "Fallito")], &["It failed"]),
            (&[("summary_it", "Fallito"), ("description_en", "More")], &["Fallito", "More"]),
            (&[("summary", "Plain"), ("summary_en", "English")], &["Plain"]),
            (&[("summary", " "), ("summary_en", "English")], &["English"]),
            (&[("Summary", "It failed"), ("DESCRIPTION", "More")], &["It failed", "More"]),
            (&[("message", "It failed"), ("title", "Backup")], &["It failed", "Backup"]),
            (&[("summary", "It failed"), ("description", "It failed")], &["It failed"]),
            (&[("summary", "It failed: 3"), ("title", "It failed")], &["It failed: 3"]),
            (&[("summary_of_all_that_is", "x"), ("b", "y")], &["y"]),
            (&[("a", ""), ("b", "first")], &["first"]),
            (&[], &[]),
        ] {
            assert_eq!(quoted(&texts(pairs)), expected, "{pairs:?}");
            assert_eq!(quoted(&keep(texts(pairs))), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_long_annotation_that_sorts_before_the_summary_pushed_it_out() {
        let long = "d".repeat(4096);
        let all = texts(&[
            ("a", &long),
            ("description", &long),
            ("__alertId__", &long),
            ("message", &long),
            ("summary", "It failed"),
            ("title", "ö"),
            ("z", "also there"),
        ]);
        let kept = keep(all);
        assert_eq!(quoted(&kept)[0], "It failed");
        assert_eq!((kept["title"].as_str(), kept["description"].len()), ("ö", MAX_QUOTED_BYTES));
        assert!(kept["description"].ends_with("d…") && !kept.contains_key("__alertId__"));
        let size: usize = kept.iter().map(|(name, text)| name.len() + text.len()).sum();
        assert!(size < 5 * 1024, "{size}");
    }

    #[test]
    fn no_cut_is_within_a_letter() {
        for most in 0..12 {
            let kept = cut("ö".repeat(9), most);
            assert!(kept.len() <= most, "{most}: {kept}");
        }
    }
}
