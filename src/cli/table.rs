//! Tables as the commands print them: as wide as the terminal at most, and coloured where it may be.

use super::terminal::{columns, truncate_middle, wrap};

/// How the tables are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// How many columns a line has at most.
    pub width: usize,
    /// With colours.
    pub color: bool,
    /// With hosts that are well.
    pub all: bool,
}

/// How bad something is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// Nothing is wrong.
    Good,
    /// It is not known.
    Unsure,
    /// Something is wrong.
    Warning,
    /// Much is.
    Critical,
}

impl Tone {
    /// As a word.
    pub fn name(self) -> &'static str {
        match self {
            Tone::Good => "ok",
            Tone::Unsure => "unsure",
            Tone::Warning => "warning",
            Tone::Critical => "critical",
        }
    }

    /// Select Graphic Rendition (ECMA-48, 8.3.117): green, yellow, bold red.
    pub fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            _ if !color => return text.to_owned(),
            Tone::Good => "32",
            Tone::Unsure | Tone::Warning => "33",
            Tone::Critical => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Cells, how it is, and lines that go below.
pub type TableRow = (Vec<String>, Tone, Vec<(Tone, String)>);

/// Two blanks between columns; the first gives way when there is too little room. The column
/// `painted` has the colour of the row.
pub fn table(names: &[&str], painted: usize, rows: Vec<TableRow>, style: Style) -> String {
    const GAP: usize = 2;
    let widest = |column: usize| {
        let cells = rows.iter().map(|(cells, ..)| columns(&cells[column]));
        cells.chain([columns(names[column])]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..names.len()).map(widest).collect();
    let rest: usize = widths[1..].iter().map(|width| width + GAP).sum();
    widths[0] = widths[0].min(style.width.saturating_sub(rest).max(columns(names[0])));
    let line = |cells: &[String], tone: Option<Tone>| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let cell = truncate_middle(cell, widths[column]);
            let last = column + 1 == cells.len();
            let fill = if last { 0 } else { widths[column] - columns(&cell) + GAP };
            match tone.filter(|_| column == painted) {
                Some(tone) => text.push_str(&tone.paint(&cell, style.color)),
                None => text.push_str(&cell),
            }
            text.push_str(&" ".repeat(fill));
        }
        text.trim_end().to_owned() + "\n"
    };
    let head: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut text = line(&head, None);
    for (cells, tone, below) in &rows {
        text.push_str(&line(cells, Some(*tone)));
        for (tone, what) in below {
            let what = wrap("  ", what, style.width, "    ");
            text.push_str(&format!("{}\n", tone.paint(&what, style.color)));
        }
    }
    text
}

/// A table below an empty line; nothing without rows.
pub fn section(names: &[&str], painted: usize, rows: Vec<TableRow>, style: Style) -> String {
    if rows.is_empty() {
        String::new()
    } else {
        format!("\n{}", table(names, painted, rows, style))
    }
}
