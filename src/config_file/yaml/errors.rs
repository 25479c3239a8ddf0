//! Errors of the YAML parser, reworded so that an operator can act on them. Pure.

use super::YamlError;

/// The most brackets that are open at once, quoted ones included.
const MAX_OPEN_BRACKETS: usize = 500;

/// Refuses absurd nesting before the parser sees it: the parser's time grows with the square of the
/// depth.
pub(super) fn check_nesting(text: &str) -> Result<(), YamlError> {
    let mut open: usize = 0;
    for (index, line) in text.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        let dashes = line.len() - line.trim_start_matches(['-', '?', ' ']).len();
        if open > MAX_OPEN_BRACKETS || dashes > MAX_OPEN_BRACKETS {
            return Err(YamlError { line: Some(index + 1), what: "is nested too deeply".into() });
        }
    }
    Ok(())
}

/// Refuses what YAML knows no character for (YAML 1.2, section 5.1), with its line, which the parser
/// does not tell.
pub(super) fn check_characters(text: &str) -> Result<(), YamlError> {
    let odd = |c: char| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r');
    let Some((at, c)) = text.char_indices().find(|(_, c)| odd(*c)) else { return Ok(()) };
    let line = text[..at].matches('\n').count() + 1;
    let what = match c {
        '\0' => "holds a NUL here: delete it, or save the file as UTF-8 (it may be UTF-16)".into(),
        other => {
            format!("holds a control character here (U+{:04X}): delete it", u32::from(other))
        }
    };
    Err(YamlError { line: Some(line), what })
}

/// An error of the parser, with its line and a remedy.
pub(super) fn explain(error: &serde_yaml::Error, text: &str) -> YamlError {
    let said = error.to_string();
    let location = error.location();
    let line = location.as_ref().map(serde_yaml::Location::line);
    let at = location.and_then(|location| text.get(location.index()..)?.chars().next());
    if let Some((opening, what)) = opened(&said) {
        let (line, what) = variable(text, opening, line).unwrap_or((opening, what));
        return YamlError { line: Some(line), what };
    }
    let line = if said.contains("more than one document") { second_document(text) } else { line };
    YamlError { line, what: remedy(&said, at).unwrap_or_else(|| bare(&said)) }
}

/// The line of the marker that ends the first document.
fn second_document(text: &str) -> Option<usize> {
    let content = |line: &str| !line.trim().is_empty() && !line.starts_with(['#', '%', '-']);
    let start = text.lines().position(content)?;
    let marker = |line: &str| line.starts_with("---") || line.starts_with("...");
    let (index, _) = text.lines().enumerate().skip(start).find(|(_, line)| marker(line))?;
    Some(index + 1)
}

/// A quote or bracket that is not closed: the line where it opens is the one to look at.
fn opened(said: &str) -> Option<(usize, String)> {
    for (context, what) in [
        ("while scanning a quoted scalar at line ", "the quote that opens here is never closed"),
        (
            "while parsing a flow sequence at line ",
            "the bracket [ that opens here is not closed well",
        ),
        ("while parsing a flow mapping at line ", "the brace { that opens here is not closed well"),
    ] {
        if let Some((_, rest)) = said.split_once(context) {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            if what.contains("quote") && !said.contains("end of stream") {
                continue;
            }
            return Some((digits.parse().ok()?, what.into()));
        }
    }
    None
}

/// A `${NAME}` without quotes between the bracket that opens on one line and the end of what could be
/// read: its braces are taken for YAML's own.
fn variable(text: &str, opening: usize, end: Option<usize>) -> Option<(usize, String)> {
    let lines = text.lines().enumerate().skip(opening.saturating_sub(1));
    for (index, line) in lines.take_while(|(index, _)| Some(*index) <= end) {
        let bare = |at: &usize| !line[..*at].ends_with(['"', '\'']);
        let Some(at) = line.match_indices("${").map(|(at, _)| at).find(bare) else { continue };
        let name = line[at..].split_inclusive('}').next().unwrap_or_default();
        let what = format!("within {{ }} and [ ], {name} must be in quotes: \"{name}\"");
        return Some((index + 1, what));
    }
    None
}

fn remedy(said: &str, at: Option<char>) -> Option<String> {
    let has = |part: &str| said.contains(part);
    Some(match at {
        _ if has("more than one document") => {
            "has more than one document: take out the lines \"---\" and \"...\"".into()
        }
        Some('\t') if has("cannot start any token") => {
            "a tab cannot indent in YAML: use spaces".into()
        }
        Some(sign) if has("cannot start any token") => {
            format!("a value that begins with \"{sign}\" must be in quotes")
        }
        _ if has("mapping values are not allowed") => {
            "a colon where none can be: is the line indented as its neighbours are? a value that holds \": \" must be in quotes".into()
        }
        _ if has("unknown anchor") => {
            "a value that begins with \"*\" must be in quotes (YAML reads it as an alias, and there is no such anchor)".into()
        }
        _ if has("did not find expected key") || has("did not find expected '-' indicator") => {
            "is not indented as its neighbours are, or something follows a closing quote".into()
        }
        _ if has("could not find expected ':'") => {
            "a key without a colon: lines are \"key: value\"".into()
        }
        _ if has("did not find expected node content") => {
            "a value is missing here, or a bracket [ or brace { before it is never closed".into()
        }
        _ if has("recursion limit") => "is nested too deeply".into(),
        _ if has("repetition limit") => "has too many values: are there aliases of aliases?".into(),
        _ if has("expected a word") => "a key must be a word, not a list or a map".into(),
        _ => return None,
    })
}

/// The message of the parser without its position, which is shown as the line.
fn bare(said: &str) -> String {
    let end = said.find(" at line ").unwrap_or(said.len());
    let said = &said[..end];
    match said.rsplit_once(": ") {
        Some((_, what)) if !said.contains('"') => what.to_owned(),
        _ => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn mistakes_are_told_with_their_line_and_a_remedy() {
        for (text, line, words) in [
            ("a:\n\tb: 1\n", 2, "a tab cannot indent"),
            ("a: 1\nb: x\0y\nc: 2\n", 2, "holds a NUL here"),
            ("a: 1\r\n# x\u{1}y\r\n", 2, "a control character here (U+0001)"),
            ("\u{feff}a: \"\u{1b}[31m\"\n", 1, "U+001B"),
            ("a: 1\nb: @x\n", 2, "begins with \"@\" must be in quotes"),
            ("a: 1\nb: 'x\nc: 2\n", 2, "the quote that opens here is never closed"),
            ("a: 1\nb: [x, y\nc: 2\n", 2, "the bracket [ that opens here"),
            ("a: 1\nb: {x: y\nc: 2\n", 2, "the brace { that opens here"),
            ("a: {x: ${TOKEN}, y: z}\n", 1, "${TOKEN} must be in quotes: \"${TOKEN}\""),
            ("a: 1\nb: {\n  x: y,\n  z: ${A_B}\n}\nc: 1\n", 4, "${A_B} must be in quotes"),
            ("a: [x, ${TOKEN}]\n", 1, "${TOKEN} must be in quotes"),
            ("a: {x: \"${TOKEN}\", y: z\n", 1, "the brace { that opens here"),
            ("a: 1\nb: [\n", 3, "a bracket [ or brace { before it is never closed"),
            ("a: b: c\n", 1, "a colon where none can be"),
            ("a:\n  b: 1\n c: 2\n", 3, "is not indented as its neighbours"),
            ("a: \"x\" y\n", 1, "is not indented as its neighbours are, or something follows"),
            ("a: *x\n", 1, "begins with \"*\" must be in quotes"),
            ("a: 1\nb\nc: 2\n", 3, "a key without a colon"),
            ("a: !secret x\n", 1, "begins with \"!\" must be in quotes"),
            ("? [a]\n: b\n", 1, "a key must be a word"),
        ] {
            let refusal = parse(text).unwrap_err();
            assert!(refusal.what.contains(words), "{text:?}: {refusal:?}");
            assert_eq!(refusal.line, Some(line), "{text:?}: {refusal:?}");
        }
        assert!(parse("a: 1\n---\nb: 2\n").unwrap_err().what.contains("more than one document"));
    }
}
