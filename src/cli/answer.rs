//! What the daemon answered, as JSON, for the terminal.

use serde_json::Value as Json;

use super::terminal::sanitize;

/// The elements of a list; none when there is no such list.
pub fn items<'a>(of: &'a Json, name: &str) -> impl Iterator<Item = &'a Json> {
    of[name].as_array().into_iter().flatten()
}

/// A text; empty when there is none.
pub fn field(of: &Json, name: &str) -> String {
    of[name].as_str().map_or_else(String::new, sanitize)
}

/// The texts of a list.
pub fn texts(of: &Json, name: &str) -> Vec<String> {
    items(of, name).filter_map(Json::as_str).map(sanitize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_do_not_steer_the_terminal() {
        let odd = serde_json::json!({"text": "\u{1b}[31mred", "list": [1, "\u{7}b"]});
        assert_eq!(field(&odd, "none"), "");
        assert!(!field(&odd, "text").contains('\u{1b}'));
        assert_eq!(texts(&odd, "list"), ["b"]);
    }
}
