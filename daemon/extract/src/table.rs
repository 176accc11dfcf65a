//! CSV and its relatives: texts of about fifty rows, each readable on its own.
//!
//! A table of short cells becomes lines with ` | ` between cells, headed by the column names in every text. A table of
//! long rows or of cells with line ends (tickets, letters) becomes `column: value` lines with an empty line between
//! rows, so that a value stands beside its name. Which of the two is decided once for a document, from all its rows.

use csv::{ReaderBuilder, StringRecord};
use moat_contracts::Kind;

use crate::clean::clean;
use crate::language::natural;
use crate::{ExtractError, Writer};

/// Rows of one text.
const ROWS: usize = 50;
/// Bytes after which a text takes no further row.
const BYTES: usize = 16 * 1024;
/// Mean bytes a row from which a table is written as `column: value` lines.
const LONG_ROW: u64 = 160;
/// Bytes of one column name, and of all, for a first row to be a header: names are repeated in every text.
const MAX_NAME: usize = 64;
const MAX_NAMES: usize = 1024;
/// Lines in one row from which an odd quote is taken for damage.
const LONG_QUOTE: usize = 100;
/// Bytes and rows at the start from which the delimiter is told.
const SAMPLE: usize = 64 * 1024;
const SAMPLE_ROWS: usize = 50;

/// Takes the rows out, with the delimiter given or told from the first rows.
pub(crate) fn rows(text: &str, delimiter: Option<u8>, out: &mut Writer) -> Result<(), ExtractError> {
    let delimiter = delimiter.unwrap_or_else(|| sniff(text));
    let mut quoting = true;
    let mut survey = survey(text, delimiter, quoting)?;
    if let Some(line) = survey.open_quote {
        out.fault(line, "a quoted cell never ends; quotes were read as plain characters");
        quoting = false;
        survey = self::survey(text, delimiter, quoting)?;
    }
    let long = survey.line_ends || survey.bytes / survey.rows.max(1) > LONG_ROW;
    let mut names = None;
    let mut group = Group::default();
    let mut left_out = None;
    each_row(text, delimiter, quoting, |line, row| {
        if out.full() {
            left_out = Some(line);
            return false;
        }
        if names.is_none() {
            let header = is_header(row);
            names = Some(if header {
                row.iter().map(|name| name.trim().to_owned()).collect()
            } else {
                Vec::new()
            });
            group.start(line);
            if header {
                return true;
            }
        }
        group.start(line);
        let names = names.as_deref().unwrap_or_default();
        if long {
            group.long_row(names, row);
        } else {
            group.short_row(names, row);
        }
        if group.rows >= ROWS || group.body.len() >= BYTES {
            group.flush(long, out);
        }
        true
    })?;
    if let (0, Some(names)) = (group.body.len() + out.extracted.texts.len(), &names) {
        // Nothing but a header is a text, too.
        group.body = names.join(" | ");
    }
    if let Some(line) = left_out {
        out.fault(line, "more texts than one document may give; the rest is left out");
    }
    group.flush(long, out);
    Ok(())
}

/// Rows on their way into one text.
#[derive(Default)]
struct Group {
    body: String,
    rows: usize,
    first_line: Option<u64>,
}

impl Group {
    fn start(&mut self, line: u64) {
        self.first_line.get_or_insert(line);
    }

    fn short_row(&mut self, names: &[String], row: &StringRecord) {
        if self.rows == 0 && !names.is_empty() {
            self.body.push_str(&names.join(" | "));
            self.body.push('\n');
        }
        for (column, cell) in row.iter().enumerate() {
            self.body.push_str(if column > 0 { " | " } else { "" });
            self.body.push_str(cell.trim());
        }
        self.body.truncate(self.body.trim_end_matches([' ', '|']).len());
        self.body.push('\n');
        self.rows += 1;
    }

    fn long_row(&mut self, names: &[String], row: &StringRecord) {
        if self.rows > 0 {
            self.body.push('\n');
        }
        for (column, cell) in row.iter().enumerate() {
            let cell = cell.trim();
            if cell.is_empty() {
                continue;
            }
            if let Some(name) = names.get(column) {
                self.body.push_str(name);
                self.body.push_str(": ");
            }
            self.body.push_str(cell);
            self.body.push('\n');
        }
        self.rows += 1;
    }

    fn flush(&mut self, long: bool, out: &mut Writer) {
        let Self { body, first_line, .. } = std::mem::take(self);
        let body = clean(body);
        let language = if long { natural(&body) } else { None };
        out.push(Kind::Table, first_line.unwrap_or(1), body, language);
    }
}

/// A first row names the columns if its cells are short, filled, distinct, and none is a number.
fn is_header(row: &StringRecord) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    row.as_slice().len() <= MAX_NAMES
        && row.iter().map(str::trim).all(|name| {
            !name.is_empty() && name.len() <= MAX_NAME && name.parse::<f64>().is_err() && seen.insert(name)
        })
}

struct Survey {
    rows: u64,
    bytes: u64,
    line_ends: bool,
    /// Line of the last row, if it looks as though its quote never ended.
    open_quote: Option<u64>,
}

fn survey(text: &str, delimiter: u8, quoting: bool) -> Result<Survey, ExtractError> {
    let mut survey = Survey { rows: 0, bytes: 0, line_ends: false, open_quote: None };
    let mut last = (1, 0);
    each_row(text, delimiter, quoting, |line, row| {
        survey.rows += 1;
        survey.bytes += row.as_slice().len() as u64;
        survey.line_ends |= row.iter().any(|cell| cell.trim().contains('\n'));
        let start = row.position().map_or(0, |position| position.byte() as usize);
        last = (line, start);
        true
    })?;
    let tail = text.get(last.1..).unwrap_or("");
    let long = tail.bytes().filter(|&byte| byte == b'\n').count() > LONG_QUOTE;
    let odd = tail.bytes().filter(|&byte| byte == b'"').count() % 2 == 1;
    survey.open_quote = (quoting && long && odd).then_some(last.0);
    Ok(survey)
}

/// Calls `visit` with every row that holds anything and its line, until it says false.
fn each_row(
    text: &str,
    delimiter: u8,
    quoting: bool,
    mut visit: impl FnMut(u64, &StringRecord) -> bool,
) -> Result<(), ExtractError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoting)
        .flexible(true)
        .has_headers(false)
        .from_reader(text.as_bytes());
    let mut row = StringRecord::new();
    let (mut line, mut counted) = (1, 0);
    loop {
        match reader.read_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) => {
                let what = "the table could not be read".to_owned();
                return Err(ExtractError::Damaged { line, what });
            }
        }
        // The reader's own count is of the line where it began to look, empty lines included.
        let begins = row.position().map_or(counted, |position| position.byte() as usize).min(text.len());
        let begins = begins + text.as_bytes()[begins..].iter().take_while(|&&byte| byte == b'\n').count();
        line += text.as_bytes()[counted..begins].iter().filter(|&&byte| byte == b'\n').count() as u64;
        counted = begins;
        if row.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if !visit(line, &row) {
            return Ok(());
        }
    }
}

/// The delimiter that cuts the most of the first rows into the same number of cells, more than one.
fn sniff(text: &str) -> u8 {
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    // A cut last row would count against the right delimiter.
    let sample = if sample.len() < text.len() {
        sample.rsplit_once('\n').map_or(sample, |(rows, _)| rows)
    } else {
        sample
    };
    let score = |delimiter: u8| {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .has_headers(false)
            .from_reader(sample.as_bytes());
        let mut counts = std::collections::BTreeMap::new();
        for row in reader.byte_records().take(SAMPLE_ROWS).flatten() {
            *counts.entry(row.len()).or_insert(0) += 1;
        }
        counts.into_iter().filter(|(cells, _)| *cells > 1).map(|(cells, rows)| (rows, cells)).max()
    };
    // Of equals the last wins, and the comma is the most usual.
    b"|\t;,".iter().copied().max_by_key(|&delimiter| score(delimiter)).unwrap_or(b',')
}

#[cfg(test)]
mod tests {
    use super::sniff;

    #[test]
    fn the_delimiter_is_the_one_that_gives_even_rows() {
        assert_eq!(sniff("a,b\n1,2\n"), b',');
        assert_eq!(sniff("name;price\nbolt;1,50\nnut;0,20\n"), b';');
        assert_eq!(sniff("a\tb, c\n1\t2\n"), b'\t');
        assert_eq!(sniff("a|b|c\n1|2,5|3\n"), b'|');
        assert_eq!(sniff("x,\"a;b;c\"\ny,\"d;e\"\n"), b',');
        assert_eq!(sniff("one column\nonly\n"), b',');
    }
}
