//! Strangers' words, fit for a header, a text and a page. Pure.

/// Characters that reorder what is around them (Unicode Standard Annex 9), or hide in it.
fn misleads(c: char) -> bool {
    matches!(
        c,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}'
    )
}

/// A stranger's text on one line, without control and bidi characters.
pub fn one_line(text: &str) -> String {
    lines(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A stranger's text, without control and bidi characters except for the ends of its lines.
pub fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let clean = text.chars().filter(|c| !misleads(*c)).filter_map(|c| match c {
        '\r' | '\u{0B}' | '\u{0C}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some('\n'),
        '\n' => Some('\n'),
        '\t' => Some(' '),
        c if c.is_control() => None,
        c => Some(c),
    });
    clean.collect::<String>().trim().to_owned()
}

/// At most `most` characters, the last of them an ellipsis where something was cut; accents,
/// emoji and what is joined to them stay together.
pub fn cut(text: &str, most: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub(1);
    while end > 0 && (joins(chars[end]) || chars[end - 1] == '\u{200D}') {
        end -= 1;
    }
    chars[..end].iter().chain(['…'].iter()).collect()
}

fn joins(c: char) -> bool {
    matches!(
        c,
        '\u{0300}'..='\u{036F}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}' | '\u{1F3FB}'..='\u{1F3FF}' | '\u{20D0}'..='\u{20FF}'
    )
}

/// `text` as the content of an element or an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidi_characters_go_and_the_ends_of_lines_are_alike() {
        assert_eq!(lines("a\r\nb\rc\u{2028}d\u{0}\u{202E}e\tf\n"), "a\nb\nc\nde f");
        assert_eq!(one_line(" a\r\n\r\nBcc: b "), "a Bcc: b");
    }

    #[test]
    fn what_is_cut_says_so_and_keeps_emoji_whole() {
        assert_eq!(cut("abcd", 4), "abcd");
        assert_eq!(cut("abcde", 4), "abc…");
        assert_eq!(cut("ab👩\u{200D}🚒cd", 5), "ab…");
        assert_eq!(cut("ae\u{301}bc", 3), "a…");
    }
}
