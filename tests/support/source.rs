//! Rust source as the rules of tests/architecture.rs see it: without comments, strings and tests.

/// One file below `src`.
pub struct Source {
    /// From the root of the repository.
    pub path: String,
    /// The module of the crate's root that it belongs to: `http`, `store`, `bin`.
    pub module: String,
    /// Its first `//!` lines.
    pub head: String,
    /// Files that it declares for tests only.
    pub test_files: Vec<String>,
    /// The text as it is, without the tests.
    text: String,
    /// The same lines with blanks for comments and for what is between quotes.
    code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let blanked = blank(text);
        let test_items = test_items(&blanked);
        let test_files = test_items
            .iter()
            .filter_map(|(begin, end)| declared(path, &text[*begin..*end]))
            .collect();
        let (mut text, mut code) = (text.to_owned(), blanked);
        for (begin, end) in test_items.into_iter().rev() {
            text.replace_range(begin..end, "");
            code.replace_range(begin..end, "");
        }
        let below = path.strip_prefix("src/").unwrap_or(path);
        let module = below.split(['/', '.']).next().unwrap_or_default().to_owned();
        let head = text.lines().take_while(|line| line.starts_with("//!")).collect();
        Source { path: path.to_owned(), module, head, test_files, text, code }
    }

    /// Whether it says that it decides only.
    pub fn is_pure(&self) -> bool {
        self.head.contains("Pure.")
    }

    /// How long it is without its tests.
    pub fn lines(&self) -> usize {
        self.code.trim_end().lines().count()
    }

    /// Where any of these stands in the code as a word of its own: the word and its line.
    pub fn find<'w>(&self, words: &[&'w str]) -> Vec<(&'w str, usize)> {
        let mut found = Vec::new();
        for word in words {
            for (at, _) in self.code.match_indices(word) {
                let before = self.code[..at].chars().next_back();
                let begins = word.starts_with(|c: char| !c.is_alphanumeric());
                if begins || !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    found.push((*word, self.line(at)));
                }
            }
        }
        found
    }

    /// The identifier behind `word` in that line.
    pub fn word_after(&self, line: usize, word: &str) -> String {
        let text = self.code.lines().nth(line - 1).unwrap_or_default();
        let rest = text.split_once(word).map_or("", |(_, rest)| rest);
        identifier(rest).to_owned()
    }

    /// The modules of the crate's root that it names, by `crate::` or by enough `super::`, and the
    /// line.
    pub fn root_modules(&self) -> Vec<(String, usize)> {
        let mut modules = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let names = first_names(&self.code[at + 7..]);
            modules.extend(names.into_iter().map(|name| (name, self.line(at))));
        }
        let mut at = 0;
        while let Some(found) = self.code[at..].find("super::") {
            let begin = at + found;
            let steps = self.code[begin..].split("super::").take_while(|part| part.is_empty());
            let steps = steps.count();
            // `split` gives one empty part before the first "super::", then one for each further.
            at = begin + steps * 7;
            if steps >= self.depth() {
                let names = first_names(&self.code[at..]);
                modules.extend(names.into_iter().map(|name| (name, self.line(begin))));
            }
        }
        // Macros, constants and types of the root are no modules.
        modules.retain(|(name, _)| name.starts_with(|c: char| c.is_ascii_lowercase()));
        modules
    }

    /// How many steps up the root of the crate is.
    fn depth(&self) -> usize {
        let below = self.path.trim_start_matches("src/");
        let steps = below.split('/').count();
        if below.ends_with("/mod.rs") || below == "lib.rs" { steps - 1 } else { steps }
    }

    /// Builders of threads that are spawned without a name.
    pub fn unnamed_threads(&self) -> Vec<(usize, &'static str)> {
        let builders = self.code.match_indices("Builder::new()").filter(|(at, _)| {
            self.code[..*at].ends_with("thread::")
                && self.code[*at..]
                    .find(".spawn")
                    .is_some_and(|end| !self.code[*at..*at + end].contains(".name("))
        });
        builders.map(|(at, _)| (self.line(at), "thread::Builder")).collect()
    }

    /// The first line with this note.
    pub fn comment_with(&self, note: &str) -> Option<usize> {
        self.text.lines().position(|line| line.contains(note)).map(|index| index + 1)
    }

    /// Every function, with the number of its lines from `fn` to the closing brace.
    pub fn functions(&self) -> Vec<(String, usize)> {
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let before = self.code[..at].chars().next_back();
            let name = identifier(&self.code[at + 3..]);
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') || name.is_empty() {
                continue;
            }
            let end = end_of_item(&self.code, at);
            functions.push((name.to_owned(), self.code[at..end].lines().count()));
        }
        functions
    }

    /// Every type that it declares: struct, enum, union, trait, or alias outside of an `impl`.
    pub fn types(&self) -> Vec<TypeItem> {
        let mut types = Vec::new();
        for keyword in ["struct ", "enum ", "union ", "trait ", "type "] {
            for (at, _) in self.code.match_indices(keyword) {
                let before = self.code[..at].trim_end();
                let in_word = self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                let name = identifier(&self.code[at + keyword.len()..]);
                let public = before.ends_with("pub") || is_restricted(before);
                // An alias that is not public may be an associated type.
                if in_word || name.is_empty() || (keyword == "type " && !public) {
                    continue;
                }
                types.push(TypeItem { name: name.to_owned(), public, line: self.line(at) });
            }
        }
        types
    }

    /// The types that have an inherent `impl` here, by the last part of their path, with the line.
    pub fn inherent_impls(&self) -> Vec<(String, usize)> {
        let mut impls = Vec::new();
        for (at, _) in self.code.match_indices("impl") {
            let before = self.code[..at].trim_end();
            let after = &self.code[at + 4..];
            // Elsewhere it is a type: `-> impl Fn()`, `&impl Trait`.
            let is_item = before.is_empty() || before.ends_with(['}', ';', ']', '{']);
            if !is_item || !after.starts_with([' ', '<']) {
                continue;
            }
            let head = after.split('{').next().unwrap_or_default();
            let head = without_generics(head.split(" where ").next().unwrap_or_default());
            let name = head.rsplit("::").next().unwrap_or_default().trim();
            if !head.contains(" for ") && !name.is_empty() && name == identifier(name) {
                impls.push((name.to_owned(), self.line(at)));
            }
        }
        impls
    }

    /// Every path that its `use` items name, spread out.
    pub fn uses(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for (begin, end) in self.use_items() {
            spread(self.code[begin + 4..end].trim_end_matches(';'), &[], &mut uses);
        }
        uses
    }

    fn use_items(&self) -> Vec<(usize, usize)> {
        let items = self.code.match_indices("use ").filter(|(at, _)| {
            let before = self.code[..*at].trim_end();
            let own_word = *at == 0 || self.code[..*at].ends_with(char::is_whitespace);
            let public = before.ends_with("pub") || is_restricted(before);
            own_word && (public || before.is_empty() || before.ends_with(['}', ';', ']', '{']))
        });
        items.map(|(at, _)| (at, end_of_item(&self.code, at))).collect()
    }

    /// Paths outside of `use` items that begin with `crate`, `super` or `self`.
    pub fn inline_paths(&self) -> Vec<Vec<String>> {
        let items = self.use_items();
        let mut paths = Vec::new();
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in self.code.match_indices(start) {
                let before = &self.code[..at];
                let goes_on = before.ends_with("::");
                let in_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
                if goes_on || in_word || items.iter().any(|(from, to)| (*from..*to).contains(&at)) {
                    continue;
                }
                let mut path = Vec::new();
                let mut rest = &self.code[at..];
                loop {
                    let part = identifier(rest);
                    path.push(part.to_owned());
                    match rest[part.len()..].strip_prefix("::") {
                        Some(more) if !identifier(more).is_empty() => rest = more,
                        _ => break,
                    }
                }
                paths.push(path);
            }
        }
        paths
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

/// A type as a file declares it.
pub struct TypeItem {
    pub name: String,
    /// Whether others may name it: `pub`, `pub(crate)`, `pub(super)`.
    pub public: bool,
    pub line: usize,
}

/// One path of a `use` item.
#[derive(Debug, PartialEq)]
pub struct Use {
    pub path: Vec<String>,
    /// The name that it has from then on; `*` for everything.
    pub name: String,
}

/// Whether the text ends with `pub(...)`.
fn is_restricted(before: &str) -> bool {
    let inside = before.strip_suffix(')').and_then(|text| text.rsplit_once('('));
    inside.is_some_and(|(word, _)| word.ends_with("pub"))
}

/// The text without what stands between angle brackets; the `>` of an arrow is none.
fn without_generics(text: &str) -> String {
    let (mut kept, mut depth, mut last) = (String::new(), 0, ' ');
    for c in text.chars() {
        match c {
            '<' => depth += 1,
            '>' if last != '-' => depth -= 1,
            c if depth == 0 => kept.push(if c.is_whitespace() { ' ' } else { c }),
            _ => {}
        }
        last = c;
    }
    kept
}

/// `a::{b, c::d as e}` as `a::b` and `a::c::d`, called `e`.
fn spread(tree: &str, before: &[String], uses: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some(inside) = tree.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !inside[from..at].trim().is_empty() {
                        spread(&inside[from..at], before, uses);
                    }
                    from = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let first = tree.split("::").next().unwrap_or_default();
    if let Some(rest) = tree[first.len()..].strip_prefix("::") {
        let path = [before, &[first.trim().to_owned()]].concat();
        return spread(rest, &path, uses);
    }
    let (last, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let last = last.trim().to_owned();
    let mut path = before.to_vec();
    // `a::{self, b}`: the module itself.
    if last != "self" || path.is_empty() {
        path.push(last);
    }
    let own = path.last().cloned().unwrap_or_default();
    let name = if alias.is_empty() { own } else { alias.trim().to_owned() };
    uses.push(Use { path, name });
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    if !path.starts_with('{') {
        return vec![identifier(path).to_owned()];
    }
    let (mut names, mut depth, mut wanted) = (Vec::new(), 0, false);
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(c, '{' | ',') {
            wanted = true;
        } else if wanted && !c.is_whitespace() {
            names.push(identifier(&path[at..]).to_owned());
            wanted = false;
        }
    }
    names
}

/// Where the items behind `#[cfg(test)]` begin and end.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(found) = code[at..].find("#[cfg(test)]") {
        let begin = at + found;
        at = end_of_item(code, begin);
        items.push((begin, at));
    }
    items
}

/// Behind the closing brace, or the semicolon, of the item that begins at `begin`.
fn end_of_item(code: &str, begin: usize) -> usize {
    let (mut braces, mut others) = (0, 0);
    for (at, c) in code[begin..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        if braces == 0 && others == 0 && matches!(c, '}' | ';') {
            return begin + at + 1;
        }
    }
    code.len()
}

/// The file that `#[cfg(test)] mod name;` means.
fn declared(path: &str, item: &str) -> Option<String> {
    let (before, name) = item.strip_suffix(';')?.split_once("mod ")?;
    let (folder, file) = path.rsplit_once('/')?;
    if let Some((_, rest)) = before.split_once("#[path = \"") {
        return Some(format!("{folder}/{}", rest.split_once('"')?.0));
    }
    match file.strip_suffix(".rs")? {
        "mod" | "lib" | "main" => Some(format!("{folder}/{name}.rs")),
        stem => Some(format!("{folder}/{stem}/{name}.rs")),
    }
}

/// The code with a blank for every character of a comment or between quotes. It stays as long,
/// in bytes, as it was.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kept, hidden) = token(rest, first, code.chars().next_back());
        code.push_str(&rest[..kept]);
        for c in rest[kept..kept + hidden].chars() {
            code.push_str(if c == '\n' { "\n" } else { &"    "[..c.len_utf8()] });
        }
        rest = &rest[kept + hidden..];
    }
    code
}

/// How many bytes at the begin of `rest` are code, and how many behind them are not.
fn token(rest: &str, first: char, before: Option<char>) -> (usize, usize) {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return (0, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (0, block_comment(rest));
    }
    match first {
        '"' => (1, quoted(&rest[1..], '"')),
        'r' | 'b' if !in_word => match raw(rest) {
            Some((open, inside)) => (open, inside),
            None => (1, 0),
        },
        '\'' => match character(rest) {
            Some(inside) => (1, inside),
            None => (1, 0),
        },
        _ => (first.len_utf8(), 0),
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, pair) in rest.as_bytes().windows(2).enumerate() {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 2;
        }
    }
    rest.len()
}

/// The length of a text up to and with its closing quote.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    inside.len()
}

/// A raw text: the length of `r#"`, and of what follows up to and with `"#`.
fn raw(rest: &str) -> Option<(usize, usize)> {
    let prefix = if rest.starts_with("br") { 2 } else { 1 };
    if !rest[..prefix].ends_with('r') {
        return None;
    }
    let hashes = rest[prefix..].len() - rest[prefix..].trim_start_matches('#').len();
    let open = prefix + hashes + 1;
    if !rest[prefix + hashes..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let inside = rest[open..].find(&close).map_or(rest.len() - open, |at| at + close.len());
    Some((open, inside))
}

/// A character, not a lifetime: the length behind its first quote.
fn character(rest: &str) -> Option<usize> {
    let inside = &rest[1..];
    if inside.starts_with('\\') {
        return Some(quoted(inside, '\''));
    }
    let c = inside.chars().next()?;
    inside[c.len_utf8()..].starts_with('\'').then_some(c.len_utf8() + 1)
}
