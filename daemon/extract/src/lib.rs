//! Turns the bytes of one document into texts: decodes the charset, normalises Unicode, tells what sort of document
//! it is by its path first and its content second, and takes out what a person would read. Everything is a pure
//! function of path and bytes: this crate reads no file, keeps no state, never panics on any input, and its errors
//! and faults name lines, never the document's words. Time and memory are linear in the input, however it is built.

mod charset;
mod clean;
mod format;
mod html;
mod json;
mod language;
mod markup;
mod preference;
mod table;

use moat_contracts::{Kind, Skip, Text, TextFault};

use crate::format::Format;

/// Bounds on what one document may turn into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Texts that one document may give (lines of JSONL, groups of table rows). What lies beyond is left out and
    /// reported as a [`TextFault`].
    pub max_texts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_texts: 1_000_000 }
    }
}

/// What a document turned into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Its texts, ordinals counting from 0. Empty for a document without any text.
    pub texts: Vec<Text>,
    /// What had to be left out or guessed, by line. At most [`MAX_FAULTS`]; the last then says so.
    pub faults: Vec<TextFault>,
}

/// Faults that are told one by one; a file of a million bad lines need not be listed.
pub const MAX_FAULTS: usize = 100;

/// Why a document gives no text at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// Not text in any charset, or a format that holds none.
    #[error("the bytes are not text; exclude such files, or convert them to text")]
    Binary,
    /// The format is damaged throughout.
    #[error("damaged at line {line}: {what}; repair the file, or exclude it")]
    Damaged {
        /// Line in the document, from 1.
        line: u64,
        /// What is wrong there, without any of the document's words.
        what: String,
    },
}

impl ExtractError {
    /// The reason as the catalog keeps it.
    pub const fn skip(&self) -> Skip {
        match self {
            Self::Binary => Skip::Binary,
            Self::Damaged { .. } => Skip::Damaged,
        }
    }

    /// Where the document is damaged, if that can be told.
    pub fn fault(self) -> Option<TextFault> {
        match self {
            Self::Binary => None,
            Self::Damaged { line, what } => Some(TextFault { line, what }),
        }
    }
}

/// Takes the texts out of one document. `path` is its path in the source and only its last part matters.
///
/// Bodies are NFC-normalised UTF-8 with `\n` line ends, free of control and of invisible formatting characters; for
/// prose and code nothing else is changed, so extracting an extracted text gives the same text.
///
/// # Errors
/// [`ExtractError::Binary`] for bytes that are no text, [`ExtractError::Damaged`] where a structured format could
/// not be read at all. A document that could be read in part is no error: see [`Extracted::faults`].
pub fn extract(path: &str, bytes: &[u8], limits: &Limits) -> Result<Extracted, ExtractError> {
    let known = format::by_path(path);
    if known == Some(Format::Binary) || format::is_binary(bytes) {
        return Err(ExtractError::Binary);
    }
    let declares = match known {
        Some(Format::Html | Format::Code(_)) => true,
        Some(_) => false,
        None => matches!(bytes.trim_ascii_start(), [b'<', ..] | [b'#', b'!', ..]),
    };
    let decoded = charset::decode(bytes, declares)?;
    let text = clean::clean(decoded.text);
    let format = format::by_content(path, known, &text);
    let mut out = Writer { extracted: Extracted::default(), charset: decoded.charset, limits: *limits };
    if let Some(fault) = decoded.fault {
        out.fault(fault.line, fault.what);
    }
    match format {
        Format::Binary => return Err(ExtractError::Binary),
        Format::Prose => out.whole(Kind::Prose, text),
        Format::Markdown => out.whole(Kind::Markdown, text),
        Format::Code(name) => out.push(Kind::Code, 1, text, Some(name.to_owned())),
        Format::Html => {
            let readable = clean::clean(html::readable(&text));
            out.whole(Kind::Html, readable);
        }
        Format::Json => json::document(text, &mut out)?,
        Format::Jsonl => json::lines(&text, &mut out)?,
        Format::Table(delimiter) => table::rows(&text, delimiter, &mut out)?,
    }
    Ok(out.extracted)
}

/// Collects texts and faults under the limits.
struct Writer {
    extracted: Extracted,
    charset: &'static str,
    limits: Limits,
}

impl Writer {
    /// A document that is one text in a natural language.
    fn whole(&mut self, kind: Kind, body: String) {
        let language = language::natural(&body);
        self.push(kind, 1, body, language);
    }

    /// Adds a clean text, unless it is blank.
    fn push(&mut self, kind: Kind, first_line: u64, body: String, language: Option<String>) {
        if body.trim().is_empty() || self.full() {
            return;
        }
        let ordinal = self.extracted.texts.len() as u32;
        let charset = self.charset;
        self.extracted.texts.push(Text { ordinal, first_line, body, kind, language, charset });
    }

    /// Whether no further text may come.
    fn full(&self) -> bool {
        self.extracted.texts.len() >= self.limits.max_texts.min(u32::MAX as usize)
    }

    fn fault(&mut self, line: u64, what: impl Into<String>) {
        let faults = &mut self.extracted.faults;
        match faults.len() + 1 {
            n if n < MAX_FAULTS => faults.push(TextFault { line, what: what.into() }),
            MAX_FAULTS => {
                faults
                    .push(TextFault { line, what: "further faults from here on are not listed".to_owned() });
            }
            _ => {}
        }
    }
}
