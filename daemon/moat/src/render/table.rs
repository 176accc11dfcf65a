//! Aligned columns.

use super::{Tone, View};

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: Tone::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

/// Rows below a heading, columns two spaces apart, lines without trailing spaces. A heading that begins with `>`
/// aligns its column to the right.
pub(crate) fn table(view: &View, headings: &[&str], rows: &[Vec<Cell>]) -> String {
    let names: Vec<_> = headings.iter().map(|heading| heading.trim_start_matches('>')).collect();
    let heading = names.iter().map(|name| Cell::toned(*name, Tone::Faint)).collect();
    let lines: Vec<&Vec<Cell>> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut gap = 0;
        for (column, cell) in line.iter().enumerate() {
            let room = widths.get(column).map_or(0, |width| width - cell.text.chars().count());
            let right = headings.get(column).is_some_and(|heading| heading.starts_with('>'));
            let (before, after) = if right { (room, 0) } else { (0, room) };
            gap += before;
            if !cell.text.is_empty() {
                text.extend(std::iter::repeat_n(' ', gap));
                text.push_str(&view.paint(cell.tone, &cell.text));
                gap = 0;
            }
            gap += after + 2;
        }
        text.push('\n');
    }
    text
}

/// Names and values below each other; a pair without a value is left out.
pub(crate) fn pairs(view: &View, pairs: &[(&str, String)]) -> String {
    let shown: Vec<_> = pairs.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = shown
        .iter()
        .map(|(name, value)| format!("{}  {value}\n", view.paint(Tone::Faint, &pad(name, width))));
    lines.collect()
}

fn pad(name: &str, width: usize) -> String {
    format!("{name:width$}")
}
