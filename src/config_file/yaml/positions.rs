//! The line of every node of a YAML tree, and the spelling of its scalars. Pure.
//!
//! One scan of the text in the order of the tree. The tree says what must come next, so the scanner
//! verifies each word; at the first mismatch it stops, and the nodes that it did not reach have no line
//! of their own: a wrong line is worse than an ancestor's.

use super::{MapEntry, Node, NodeValue, ScalarKind};

/// Sets the lines of the nodes of `root`, which was read from `text`, and the spelling of the scalars that
/// are not text. Returns whether it reached the end and saw every scalar.
pub(super) fn locate(text: &str, root: &mut Node) -> bool {
    let mut walk = PositionScanner { text: text.as_bytes(), at: 0, line: 1, aliased: false };
    let arrived = walk.node(root, false).is_some();
    walk.skip_space();
    arrived && !walk.aliased && walk.peek().is_none()
}

struct PositionScanner<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    /// Whether there was an alias: the nodes that it stands for were not seen.
    aliased: bool,
}

/// None when the text does not match the tree.
type Matched = Option<()>;

impl PositionScanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn peek_after(&self) -> Option<u8> {
        self.text.get(self.at + 1).copied()
    }

    fn advance(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn at_line_start(&self) -> bool {
        self.at == 0 || self.text[self.at - 1] == b'\n'
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    fn skip_word(&mut self) {
        while self
            .peek()
            .is_some_and(|byte| !byte.is_ascii_whitespace() && !b",[]{}".contains(&byte))
        {
            self.at += 1;
        }
    }

    /// White space, comments, document markers and directives.
    fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            let spaced = self.at == 0 || self.text[self.at - 1].is_ascii_whitespace();
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.advance(),
                b'#' if spaced => self.skip_line(),
                b'%' if self.at_line_start() => self.skip_line(),
                b'-' if self.at_line_start() && self.text[self.at..].starts_with(b"---") => {
                    self.at += 3;
                }
                _ => return,
            }
        }
    }

    /// Anchors and tags, which stand before a node.
    fn skip_properties(&mut self) {
        self.skip_space();
        while matches!(self.peek(), Some(b'&' | b'!')) {
            self.skip_word();
            self.skip_space();
        }
    }

    fn node(&mut self, node: &mut Node, flow: bool) -> Matched {
        if let NodeValue::Scalar { text, kind: ScalarKind::Null } = &mut node.value {
            return self.null(text);
        }
        self.skip_properties();
        let line = self.line;
        let first = self.peek()?;
        if first == b'*' {
            self.skip_word();
            self.aliased = true;
        } else {
            match &mut node.value {
                NodeValue::Scalar { text, kind: ScalarKind::Text } => self.scalar(text, flow)?,
                NodeValue::Scalar {
                    text,
                    kind: ScalarKind::Bool | ScalarKind::Int | ScalarKind::Float | ScalarKind::Null,
                } => {
                    self.typed(text)?;
                }
                NodeValue::List(nodes) => self.list(nodes)?,
                NodeValue::Map(entries) => self.map(entries, flow)?,
            }
        }
        node.line = Some(line);
        Some(())
    }

    /// Null is empty, or a word on the same line. An empty one must not be followed by an alias, which
    /// could be this very null.
    fn null(&mut self, text: &mut String) -> Matched {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let start = self.at;
        self.skip_word();
        let word = std::str::from_utf8(&self.text[start..self.at]).ok()?;
        if matches!(word, "~" | "null" | "Null" | "NULL") {
            word.clone_into(text);
            return Some(());
        }
        self.at = start;
        if matches!(self.peek(), Some(b'&' | b'!')) {
            return None;
        }
        self.skip_space();
        if self.peek() == Some(b'*') { None } else { Some(()) }
    }

    /// A number or a boolean: one plain word, which must have the value that YAML read.
    fn typed(&mut self, text: &mut String) -> Matched {
        let start = self.at;
        self.skip_word();
        let word = std::str::from_utf8(&self.text[start..self.at]).ok()?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        // 0x1F, .inf: spellings that only YAML knows.
        let unsigned = word.trim_start_matches(['+', '-']);
        let special =
            ["0x", "0o", "0b", ".i", ".I", ".n", ".N"].iter().any(|s| unsigned.starts_with(s));
        let same = special
            || word.eq_ignore_ascii_case(text)
            || number(word).is_some() && number(word) == number(text);
        same.then(|| word.clone_into(text))
    }

    fn list(&mut self, nodes: &mut [Node]) -> Matched {
        if self.peek()? == b'[' {
            self.at += 1;
            for node in nodes {
                self.node(node, true)?;
                self.comma()?;
            }
            return self.expect(b']');
        }
        for node in nodes {
            self.skip_space();
            self.expect(b'-')?;
            self.node(node, false)?;
        }
        Some(())
    }

    fn map(&mut self, entries: &mut [MapEntry], flow: bool) -> Matched {
        if self.peek()? == b'{' {
            self.at += 1;
            for entry in entries {
                self.entry(entry, true)?;
                self.comma()?;
            }
            return self.expect(b'}');
        }
        entries.iter_mut().try_for_each(|entry| self.entry(entry, flow))
    }

    fn entry(&mut self, entry: &mut MapEntry, flow: bool) -> Matched {
        self.skip_properties();
        if self.peek()? == b'?' && self.peek_after().is_some_and(|byte| byte.is_ascii_whitespace())
        {
            self.at += 1;
            self.skip_properties();
        }
        let line = self.line;
        self.scalar(&entry.key, flow)?;
        entry.line = Some(line);
        self.skip_space();
        if flow && matches!(self.peek()?, b',' | b'}') {
            return Some(());
        }
        self.expect(b':')?;
        self.node(&mut entry.node, flow)
    }

    fn comma(&mut self) -> Matched {
        self.skip_space();
        if self.peek()? == b',' {
            self.at += 1;
            self.skip_space();
        }
        Some(())
    }

    fn expect(&mut self, byte: u8) -> Matched {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn scalar(&mut self, text: &str, flow: bool) -> Matched {
        match self.peek()? {
            quote @ (b'\'' | b'"') => self.quoted(text, quote),
            b'|' | b'>' if !flow => self.block(text),
            _ => self.plain(text),
        }
    }

    fn quoted(&mut self, text: &str, quote: u8) -> Matched {
        self.at += 1;
        let start = self.at;
        let mut simple = true;
        loop {
            let byte = self.peek()?;
            if byte == b'\\' && quote == b'"' {
                simple = false;
                self.advance();
            } else if byte == quote {
                if quote == b'"' || self.peek_after() != Some(b'\'') {
                    break;
                }
                simple = false;
                self.advance();
            } else if byte == b'\n' {
                simple = false;
            }
            self.advance();
        }
        let same = !simple || self.text[start..self.at] == *text.as_bytes();
        self.at += 1;
        same.then_some(())
    }

    /// A plain scalar may span several lines; the tree has its words.
    fn plain(&mut self, text: &str) -> Matched {
        let mut words = text.split_ascii_whitespace().peekable();
        words.peek()?;
        for word in words {
            while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
                self.advance();
            }
            if !self.text[self.at..].starts_with(word.as_bytes()) {
                return None;
            }
            self.at += word.len();
        }
        let ended =
            self.peek().is_none_or(|byte| byte.is_ascii_whitespace() || b":,]}".contains(&byte));
        ended.then_some(())
    }

    /// A block scalar (`|` or `>`) ends before the first line that is indented less than its first.
    fn block(&mut self, text: &str) -> Matched {
        let header = self.at;
        self.skip_line();
        let explicit = self.text[header..self.at].iter().any(u8::is_ascii_digit);
        if explicit || text.trim().is_empty() {
            return None;
        }
        let mut indent = None;
        while self.at < self.text.len() {
            let rest = &self.text[self.at + 1..];
            let line = rest.split(|byte| *byte == b'\n').next()?;
            let depth = line.iter().take_while(|byte| **byte == b' ').count();
            let blank = line.trim_ascii().is_empty();
            if !blank && depth < *indent.get_or_insert(depth) {
                break;
            }
            self.advance();
            self.skip_line();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Node, NodeValue, parse};

    /// Every path with its line, `?` where there is none.
    fn lines(text: &str) -> Vec<String> {
        fn walk(node: &Node, path: &str, out: &mut Vec<String>) {
            match &node.value {
                NodeValue::Scalar { .. } => {}
                NodeValue::List(nodes) => {
                    for (index, node) in nodes.iter().enumerate() {
                        let path = format!("{path}[{index}]");
                        out.push(format!(
                            "{path} {}",
                            node.line.map_or("?".into(), |l| l.to_string())
                        ));
                        walk(node, &path, out);
                    }
                }
                NodeValue::Map(entries) => {
                    for entry in entries {
                        let path = format!("{path}.{}", entry.key);
                        out.push(format!(
                            "{path} {}",
                            entry.line.map_or("?".into(), |l| l.to_string())
                        ));
                        walk(&entry.node, &path, out);
                    }
                }
            }
        }
        let mut out = Vec::new();
        walk(&parse(text).unwrap(), "", &mut out);
        out
    }

    #[test]
    fn block_style_is_followed() {
        let text = "# c\na: # c\n  b: 1\n\n  c:\n  - x\n  -\n    y\nd:\ne: {}\n";
        assert_eq!(
            lines(text),
            [".a 2", ".a.b 3", ".a.c 5", ".a.c[0] 6", ".a.c[1] 8", ".d 9", ".e 10"]
        );
    }

    #[test]
    fn flow_style_is_followed_over_lines() {
        let text = "a: {b: [x,\n  'y, z', # c\n  \"w\"], c,\n  d: {}}\ne: [f: 1, g]\nh: 1\n";
        assert_eq!(
            lines(text),
            [
                ".a 1",
                ".a.b 1",
                ".a.b[0] 1",
                ".a.b[1] 2",
                ".a.b[2] 3",
                ".a.c 3",
                ".a.d 4",
                ".e 5",
                ".e[0] 5",
                ".e[0].f 5",
                ".e[1] 5",
                ".h 6"
            ]
        );
    }

    #[test]
    fn long_scalars_do_not_shift_the_lines_after_them() {
        let text = "a: |\n  x: 1\n\n  # no comment\nb: >-\n    one\n   # c\nc: plain\n  goes on\nd: \"quoted\n  goes \\\" on\"\ne: 'it''s\n  so'\nf: 1\n";
        assert_eq!(lines(text), [".a 1", ".b 5", ".c 8", ".d 10", ".e 12", ".f 14"]);
    }

    #[test]
    fn anchors_aliases_and_markers_are_passed() {
        let text = "%YAML 1.1\n---\na: &x\n  b: 1\nc: *x\nd: &y [1]\ne: [*y, *x]\n? f\n: 1\n\"g\": 1\r\nh: 1\n";
        assert_eq!(
            lines(text),
            [
                ".a 3",
                ".a.b 4",
                ".c 5",
                ".c.b ?",
                ".d 6",
                ".d[0] 6",
                ".e 7",
                ".e[0] 7",
                ".e[0][0] ?",
                ".e[1] 7",
                ".e[1].b ?",
                ".f 8",
                ".g 10",
                ".h 11"
            ]
        );
    }

    #[test]
    fn keys_and_values_that_look_like_syntax_are_passed() {
        let text = "101: -1\non: ~\nurl: http://x:1/#y\n-a: ---b\n\"k: l\": 'a # b'\nz: 1\n";
        assert_eq!(lines(text), [".101 1", ".on 2", ".url 3", ".-a 4", ".k: l 5", ".z 6"]);
    }
}
