use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sort of text a document holds; decides the quality rules that apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Plain text in sentences.
    Prose,
    /// Markdown.
    Markdown,
    /// Text taken out of HTML.
    Html,
    /// Source code, and markup that people write as code.
    Code,
    /// A JSON document, or one line of JSONL.
    Json,
    /// Rows of a CSV or TSV file.
    Table,
    /// A chat: messages with roles, as JSONL holds them.
    Chat,
    /// A prompt with an answer that people chose and one that they rejected: never a text to learn, since it holds what
    /// is not to be said.
    Preference,
}

impl Kind {
    /// All kinds, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Prose,
        Self::Markdown,
        Self::Html,
        Self::Code,
        Self::Json,
        Self::Table,
        Self::Chat,
        Self::Preference,
    ];

    /// The word that stands in recipes, tables and the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prose => "prose",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Code => "code",
            Self::Json => "json",
            Self::Table => "table",
            Self::Chat => "chat",
            Self::Preference => "preference",
        }
    }

    /// The inverse of [`Kind::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Text that extraction took out of a document, or out of a span of it: valid, NFC-normalised UTF-8 with `\n`
/// line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Position among the document's texts, from 0. A plain document has one; JSONL has one a line.
    pub ordinal: u32,
    /// First line of the span in the document, from 1.
    pub first_line: u64,
    /// The text itself. For [`Kind::Chat`] a JSON array of `{"role", "content"}` objects, with `"train": false` in those
    /// that are not to be learnt. For [`Kind::Preference`] a JSON object of `prompt`, `chosen` and `rejected`, all of them
    /// such arrays, or all of them texts.
    pub body: String,
    /// What sort of text.
    pub kind: Kind,
    /// ISO 639-3 code, or a programming language's lowercase name for code; `None` where it could not be told.
    pub language: Option<String>,
    /// The charset that the bytes were decoded from, by its WHATWG name.
    pub charset: &'static str,
}

/// A place in a document that could not be read, or had to be guessed, while the rest of it could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TextFault {
    /// Line in the document, from 1.
    pub line: u64,
    /// What is wrong there, without any of the document's words.
    pub what: String,
}
