//! Numbers that are none of JSON, or too large, as some programs write them: `NaN`, `-Infinity`,
//! `1e999`. Pure.

/// `text` with an empty text for each such number outside of texts; none when it has none.
pub fn replace_odd_numbers(text: &str) -> Option<String> {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => text_length(rest),
            _ => rest.find(|c| !is_of_number(c)).unwrap_or(rest.len()).max(first.len_utf8()),
        };
        let (token, after) = rest.split_at(length);
        let is_odd = token.parse::<f64>().is_ok_and(|number| !number.is_finite());
        replaced.push_str(if is_odd { "\"\"" } else { token });
        rest = after;
    }
    (replaced != text).then_some(replaced)
}

fn is_of_number(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-.".contains(c)
}

/// The length of the JSON text at the beginning of `json`, its quotes included.
fn text_length(json: &str) -> usize {
    let mut is_escaped = false;
    let end = json.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(json.len(), |(at, _)| at + 1)
}
