//! The files that a configuration is made of, and where in them a line stands. Pure.
//!
//! Lines are counted over all files: those of the second file come behind those of the first. So a node
//! of the tree needs one number to say where it stands, and a tree that is merged from several files is
//! like any other.

use std::path::{Path, PathBuf};

/// One file.
#[derive(Debug)]
struct Source {
    /// As the operator named it.
    name: String,
    /// The number that stands for the file as a whole; its first line has the next one.
    begin: usize,
    open_to_others: bool,
    holds_secrets: bool,
}

/// All of them, in the order in which they are read.
#[derive(Debug)]
pub struct Sources {
    /// What relative paths in any of them start from: the directory of the first.
    pub directory: PathBuf,
    sources: Vec<Source>,
    lines: usize,
}

impl Sources {
    /// The first file, of which nothing is read yet.
    pub fn new(file: &Path) -> Sources {
        let directory = file.parent().unwrap_or(Path::new("")).to_owned();
        let mut sources = Sources { directory, sources: Vec::new(), lines: 0 };
        sources.add(file);
        sources
    }

    /// A further file; the number that stands for it as a whole.
    pub fn add(&mut self, file: &Path) -> usize {
        let name = file.display().to_string();
        let begin = if self.sources.is_empty() { 0 } else { self.lines + 1 };
        let source = Source { name, begin, open_to_others: false, holds_secrets: false };
        self.sources.push(source);
        self.lines = begin;
        begin
    }

    /// What was read of the file that was added last: how many lines it has, and whether everybody on the
    /// machine can read it.
    pub fn set_contents(&mut self, lines: usize, open_to_others: bool) {
        self.lines += lines;
        if let Some(source) = self.sources.last_mut() {
            source.open_to_others = open_to_others;
        }
    }

    fn index_of(&self, line: Option<usize>) -> usize {
        let after = self.sources.partition_point(|source| source.begin <= line.unwrap_or(0));
        after.saturating_sub(1)
    }

    /// The file of a line, and which of its own lines that is: none for the file as a whole.
    pub fn place(&self, line: Option<usize>) -> (&str, Option<usize>) {
        let source = &self.sources[self.index_of(line)];
        let own = line.map(|line| line - source.begin).filter(|own| *own > 0);
        (&source.name, own)
    }

    /// The words for a line, as they are said of one in the same file or in another one.
    pub fn place_seen_from(&self, line: Option<usize>, from: Option<usize>) -> Option<String> {
        let (file, own) = self.place(line);
        let is_same = self.index_of(line) == self.index_of(from);
        match (is_same, own) {
            (true, own) => own.map(|own| format!("on line {own}")),
            (false, Some(own)) => Some(format!("in {file}:{own}")),
            (false, None) => Some(format!("in {file}")),
        }
    }

    /// A secret stands in the file of that line.
    pub fn note_secret(&mut self, line: Option<usize>) {
        let index = self.index_of(line);
        self.sources[index].holds_secrets = true;
    }

    /// The files that hold secrets and that others can read: the line that stands for each, and its name.
    pub fn exposed(&self) -> Vec<(usize, &str)> {
        let exposed = self.sources.iter().filter(|one| one.holds_secrets && one.open_to_others);
        exposed.map(|one| (one.begin, one.name.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_in_one_file_and_says_which() {
        let mut sources = Sources::new(Path::new("/etc/hbd/heartbeat.yaml"));
        assert_eq!(sources.directory, Path::new("/etc/hbd"));
        sources.set_contents(10, false);
        let a = sources.add(Path::new("conf.d/a.yaml"));
        sources.set_contents(3, true);
        let b = sources.add(Path::new("conf.d/b.yaml"));
        sources.set_contents(1, true);
        assert_eq!((a, b), (11, 15));
        for (line, place) in [
            (None, ("/etc/hbd/heartbeat.yaml", None)),
            (Some(10), ("/etc/hbd/heartbeat.yaml", Some(10))),
            (Some(11), ("conf.d/a.yaml", None)),
            (Some(14), ("conf.d/a.yaml", Some(3))),
            (Some(16), ("conf.d/b.yaml", Some(1))),
        ] {
            assert_eq!(sources.place(line), place);
        }
        let seen = |line, from| sources.place_seen_from(Some(line), Some(from));
        assert_eq!(seen(3, 9).as_deref(), Some("on line 3"));
        assert_eq!(seen(3, 12).as_deref(), Some("in /etc/hbd/heartbeat.yaml:3"));
        assert_eq!(seen(11, 16).as_deref(), Some("in conf.d/a.yaml"));
        assert!(sources.exposed().is_empty());
        sources.note_secret(Some(4));
        sources.note_secret(Some(16));
        assert_eq!(sources.exposed(), [(15, "conf.d/b.yaml")]);
    }
}
