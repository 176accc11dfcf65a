use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, DocumentId, Kind};

/// Names a record by what is trained on: SHA-256 over kind, language and curated text ([`Record::id_of`]). Two
/// documents with the same text give the same id, on every machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct RecordId(pub Digest);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a record comes from: one per text of a document, dropped or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// Its document.
    pub document: DocumentId,
    /// Position among the document's texts ([`crate::Text::ordinal`]).
    pub ordinal: u32,
}

/// What curation decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Goes into datasets as it is.
    Kept,
    /// Goes into datasets with secrets or personal data replaced.
    Redacted,
    /// Goes into no dataset.
    Dropped,
}

impl Verdict {
    /// The word that stands in tables, JSON and the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Redacted => "redacted",
            Self::Dropped => "dropped",
        }
    }

    /// The inverse of [`Verdict::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Kept, Self::Redacted, Self::Dropped].into_iter().find(|verdict| verdict.word() == word)
    }
}

/// One finding that led to a verdict. Holds a rule's name and its measure, never the customer's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// The rule's key in the configuration, such as `max_symbol_ratio`, or the detector's label, such as `EMAIL`.
    pub rule: String,
    /// What was measured, where the rule measures something.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<f64>,
    /// The threshold that it was held against.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<f64>,
    /// First line of the text that it concerns, from 1, where it concerns a place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u64>,
}

/// One replaced span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// The detector's label, such as `EMAIL` or `AWS_KEY`.
    pub label: String,
    /// Numbers equal values within one document from 1: the text shows `[EMAIL_1]`.
    pub number: u32,
    /// Byte offset of the span in the extracted text, before redaction.
    pub start: u64,
    /// Length of the span in bytes, before redaction.
    pub length: u64,
}

/// What a person decided about a text, whichever documents hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It goes into datasets although quality rules say otherwise.
    Keep,
    /// It goes into no dataset.
    Drop,
}

impl Decision {
    /// The word that stands in tables, JSON and the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
        }
    }

    /// The inverse of [`Decision::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Keep, Self::Drop].into_iter().find(|decision| decision.word() == word)
    }
}

/// Curated text made from a document's text, with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it comes from.
    pub key: RecordKey,
    /// What it holds.
    pub id: RecordId,
    /// First line of its span in the document, from 1.
    pub first_line: u64,
    /// What sort of text.
    pub kind: Kind,
    /// As [`crate::Text::language`].
    pub language: Option<String>,
    /// Decided from this record alone; a duplicate's verdict is added by the catalog's view.
    pub verdict: Verdict,
    /// Why; empty for [`Verdict::Kept`].
    pub reasons: Vec<Reason>,
    /// How far the quality rules are from judging otherwise, as a share of a limit: of a record that passes, how near it
    /// is to the nearest limit; of one that they alone dropped, how far it is beyond the limit that it misses by most.
    /// None where no rule measured anything, and where a detector dropped it, so that no person keeps it.
    pub margin: Option<f64>,
    /// What was replaced.
    pub redactions: Vec<Redaction>,
    /// The text after redaction. Kept for dropped records too, so that a changed rule can be tried out.
    pub body: String,
    /// Words by Unicode segmentation.
    pub words: u64,
    /// MinHash signature of the word shingles; empty where the text is too short to have one.
    pub signature: Vec<u32>,
}

impl Record {
    /// The id of a curated text: SHA-256 over kind, language and body, each preceded by its length.
    pub fn id_of(kind: Kind, language: Option<&str>, body: &str) -> RecordId {
        let language = language.unwrap_or("");
        let length = |text: &str| (text.len() as u64).to_le_bytes();
        RecordId(Digest::of_parts(&[
            b"moat record 1\0",
            &length(kind.word()),
            kind.word().as_bytes(),
            &length(language),
            language.as_bytes(),
            &length(body),
            body.as_bytes(),
        ]))
    }
}
