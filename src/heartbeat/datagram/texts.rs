//! The texts beside the metrics of a datagram: an object of texts by dotted path. One that cannot be used
//! costs only itself. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::escape::{LineBreaks, visible};

/// The longest text beside a metric, in characters; what is longer is cut.
pub const MAX_TEXT: usize = 200;

/// A text as it is kept: one line, without what nobody sees, at most [`MAX_TEXT`] long. None when nothing
/// is left of it.
pub fn cleaned_text(text: &str) -> Option<String> {
    let line: String = visible(text.trim(), LineBreaks::Remove).collect();
    let line = line.trim();
    let cut = || line.chars().take(MAX_TEXT - 1).chain(['\u{2026}']).collect();
    let kept = if line.chars().count() > MAX_TEXT { cut() } else { line.to_owned() };
    Some(kept).filter(|kept| !kept.is_empty())
}

/// The texts in the JSON of the field `texts`, by path: each of many metrics asks for its own.
pub fn parse(json: &str) -> BTreeMap<String, String> {
    let Ok(Value::Object(texts)) = serde_json::from_str(json) else { return BTreeMap::new() };
    let usable = |(path, text): (String, Value)| Some((path, cleaned_text(text.as_str()?)?));
    texts.into_iter().filter_map(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::datagram;

    fn texts(field: &str) -> Vec<(String, Option<String>)> {
        let json = format!(r#"{{"host":"w","metrics":{{"a":{{"b":1}},"c":2}}{field}}}"#);
        let read = datagram::parse(json.as_bytes()).unwrap_or_else(|why| panic!("{why:?} {field}"));
        let of = |path: &str| (path.to_owned(), read.metrics.text(path).map(str::to_owned));
        read.metrics.iter().map(|(path, _)| of(path)).collect()
    }

    #[test]
    fn a_text_travels_beside_its_metric() {
        let found = texts(r#","texts":{"a.b":"nginx.service, foo.service","other":"x"}"#);
        assert_eq!(
            found,
            [("a.b".into(), Some("nginx.service, foo.service".into())), ("c".into(), None)]
        );
    }

    #[test]
    fn a_text_of_a_wrong_type_cost_its_whole_datagram() {
        for field in [
            "",
            r#","texts":null"#,
            r#","texts":7"#,
            r#","texts":"c""#,
            r#","texts":["c"]"#,
            r#","texts":{"a.b":7,"c":null}"#,
            r#","texts":{"a.b":{"c":"x"}}"#,
            r#","texts":{"a.b":"\u202e \n","c":""}"#,
        ] {
            assert!(texts(field).iter().all(|(_, text)| text.is_none()), "{field}");
        }
        let found = texts(r#","texts":{"a.b":7,"c":"kept"}"#);
        assert_eq!(found[1].1.as_deref(), Some("kept"));
    }

    #[test]
    fn a_text_is_one_clean_line_and_cut_where_it_is_too_long() {
        assert_eq!(cleaned_text(" a\r\nb\u{202e}c\u{1b}[1m\t"), Some("a bc[1m".into()));
        let long = cleaned_text(&"\u{fc}".repeat(201)).unwrap();
        assert_eq!((long.chars().count(), long.chars().last()), (200, Some('\u{2026}')));
        assert_eq!(cleaned_text(&"x".repeat(200)).unwrap().chars().last(), Some('x'));
    }
}
