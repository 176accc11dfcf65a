use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Names a document through all its versions, renames included. Minted by the source at first sight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentId(pub Digest);

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One thing that a source holds, at one version. The bytes travel beside it, never inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Stays the same while the document is renamed or rewritten in place.
    pub id: DocumentId,
    /// The configured name of its source.
    pub source: String,
    /// Relative to the source's root, `/` between parts; bytes that are no UTF-8 are percent-encoded.
    pub path: String,
    /// SHA-256 of the bytes as the source holds them.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When its author last changed it, in seconds since 1970-01-01 UTC, where the source knows (git does; a
    /// folder gives the file's modification time).
    pub authored: Option<i64>,
    /// Who may read it, as the source says it: `user:NAME`, `group:NAME`, or `other` for everyone.
    pub readers: Vec<String>,
    /// The policy under which its source was configured.
    pub policy: String,
}

/// Where a known document stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentState {
    /// In its source, read, and curated.
    Present,
    /// In its source, but not read; the reason is kept.
    Skipped,
    /// No longer in its source: its records leave the next dataset.
    Deleted,
}

/// Why a document that is in its source was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// The daemon may not read it.
    Unreadable,
    /// Larger than the source's `max_bytes`.
    TooLarge,
    /// Bytes that no extractor takes for text.
    Binary,
    /// Not a regular file: a device, a pipe, a socket.
    Special,
    /// A symbolic link that leads out of the source or back into itself.
    Link,
    /// Extraction failed; the format is damaged.
    Damaged,
}

impl Skip {
    /// The word that stands in tables, JSON and the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Binary => "binary",
            Self::Special => "special",
            Self::Link => "link",
            Self::Damaged => "damaged",
        }
    }

    /// The inverse of [`Skip::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Unreadable, Self::TooLarge, Self::Binary, Self::Special, Self::Link, Self::Damaged]
            .into_iter()
            .find(|skip| skip.word() == word)
    }
}
