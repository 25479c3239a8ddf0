//! The description of the API (OpenAPI 3.1), minified at compile time. Pure.

/// As it is written for people.
const SOURCE: &str = include_str!("openapi.json");

const LENGTH: usize = minified(SOURCE.as_bytes()).1;

static BYTES: [u8; LENGTH] = {
    let (all, _) = minified(SOURCE.as_bytes());
    let mut bytes = [0; LENGTH];
    let mut place = 0;
    while place < LENGTH {
        bytes[place] = all[place];
        place += 1;
    }
    bytes
};

/// The document, without the white space that only people need.
pub fn document() -> &'static [u8] {
    &BYTES
}

/// JSON without white space between its tokens, and how long that is.
const fn minified(text: &[u8]) -> ([u8; SOURCE.len()], usize) {
    let mut bytes = [0; SOURCE.len()];
    let (mut from, mut to) = (0, 0);
    let mut in_string = false;
    while from < text.len() {
        let byte = text[from];
        let escaped = from > 0 && text[from - 1] == b'\\' && in_string;
        if byte == b'"' && !escaped {
            in_string = !in_string;
        }
        if in_string || !byte.is_ascii_whitespace() {
            bytes[to] = byte;
            to += 1;
        }
        from += 1;
    }
    (bytes, to)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::routes::ROUTES;
    use super::*;
    use crate::event::EventKind;

    fn read() -> Value {
        serde_json::from_slice(document()).unwrap()
    }

    #[test]
    fn what_is_embedded_says_what_the_source_says() {
        assert_eq!(read(), serde_json::from_str::<Value>(SOURCE).unwrap());
        assert!(document().len() < 28_000, "{}", document().len());
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, methods) in read()["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.push((method.to_uppercase(), path.replace("{name}", "*")));
            }
        }
        let mut routes: Vec<_> = ROUTES
            .iter()
            .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
            // The pages are for people.
            .filter(|(_, path)| {
                const PAGES: [&str; 11] = [
                    "/",
                    "/hosts/*",
                    "/hosts/*/graph",
                    "/events",
                    "/charts.js",
                    "/public",
                    "/favicon.ico",
                    "/silence",
                    "/unsilence",
                    "/ack",
                    "/test",
                ];
                !PAGES.contains(&path.as_str())
            })
            .collect();
        described.sort();
        routes.sort();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_kind_of_event_is_described() {
        let kinds = &read()["components"]["schemas"]["Event"]["properties"]["kind"]["enum"];
        assert_eq!(kinds, &serde_json::json!(EventKind::NAMES.to_vec()));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn look(value: &Value, whole: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        assert!(whole.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                    }
                    fields.values().for_each(|field| look(field, whole));
                }
                Value::Array(items) => items.iter().for_each(|item| look(item, whole)),
                _ => {}
            }
        }
        look(&read(), &read());
    }
}
