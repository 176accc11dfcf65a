use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, RecordId};

/// Names a dataset: SHA-256 of its canonical manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct DatasetId(pub Digest);

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which side of a dataset a record is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Trained on.
    Train,
    /// Kept from training to choose by: when to end, what to keep. Only where the recipe asks for it.
    Validation,
    /// Held back, for measuring the edge.
    HeldOut,
}

impl Split {
    /// All sides.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::HeldOut];

    /// The word that stands in tables, JSON and the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::HeldOut => "held_out",
        }
    }
}

/// One record's place in a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetEntry {
    /// The record.
    pub record: RecordId,
    /// Its side.
    pub split: Split,
    /// The configured name of its source.
    pub source: String,
    /// Tokens under the recipe's base, special tokens not counted.
    pub tokens: u64,
    /// Bytes of UTF-8.
    pub bytes: u64,
}

/// Totals of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SplitCounts {
    /// Records.
    pub records: u64,
    /// Tokens.
    pub tokens: u64,
    /// Bytes of UTF-8.
    pub bytes: u64,
}

/// Totals of one source within a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetSource {
    /// Trained on.
    pub train: SplitCounts,
    /// Kept to choose by.
    #[serde(default, skip_serializing_if = "SplitCounts::is_empty")]
    pub validation: SplitCounts,
    /// Held back.
    pub held_out: SplitCounts,
}

impl SplitCounts {
    /// Adds another part's totals.
    pub const fn join(&mut self, other: &Self) {
        self.records += other.records;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
    }

    /// Whether there is no record.
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }
}

impl DatasetSource {
    /// Counts one entry in.
    pub fn add(&mut self, entry: &DatasetEntry) {
        let side = match entry.split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
            Split::HeldOut => &mut self.held_out,
        };
        side.records += 1;
        side.tokens += entry.tokens;
        side.bytes += entry.bytes;
    }
}

/// How the records of a dataset are spread. A dataset never changes, so neither does this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetShape {
    /// By tokens: each power of two with the records of at least as many tokens and fewer than the next power. Records
    /// without a token count to the first.
    pub lengths: BTreeMap<u64, DatasetSource>,
    /// By kind of text.
    pub kinds: BTreeMap<String, DatasetSource>,
    /// By language; empty where it could not be told.
    pub languages: BTreeMap<String, DatasetSource>,
}

/// An immutable, content-addressed list of records with its splits. The same documents, rules and recipe give
/// the same id on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dataset {
    /// SHA-256 of the canonical manifest.
    pub id: DatasetId,
    /// Hash of the parts of the recipe that select and split ([`crate::Recipe::data_hash`]).
    pub recipe: Digest,
    /// Hash of the curation rules that made the records.
    pub rules: Digest,
    /// Hash of the tokenizer that counted the tokens.
    pub tokenizer: Digest,
    /// Sorted by record id, each once.
    pub entries: Vec<DatasetEntry>,
    /// Totals by source name.
    pub sources: BTreeMap<String, DatasetSource>,
}
