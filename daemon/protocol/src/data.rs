//! What `moatd` tells of records and their texts, of what waits for a person, and of what other rules would do.

use std::collections::BTreeMap;

use moat_contracts::{DatasetId, DatasetShape, Decision, Digest, Reason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::{Reached, Twin};

/// Which records. What is absent allows any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecordFilter {
    /// Of this source.
    pub source: Option<String>,
    /// `kept`, `redacted` or `dropped`, duplicates and what people decided counted in.
    pub verdict: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// With this rule or label among the reasons; also `duplicate`, `near_duplicate` and `review`.
    pub rule: Option<String>,
    /// In this language.
    pub language: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordsFound {
    /// Records whose text holds every word, in the order in which they came.
    pub found: Vec<RecordFound>,
    /// Texts that were opened.
    pub looked: u64,
    /// Records that the filter lets through.
    pub of: u64,
    /// Where to go on; none where all were looked at.
    pub after: Option<u64>,
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordFound {
    /// Its id.
    pub record: Digest,
    /// Its source.
    pub source: String,
    /// Its document's path in the source.
    pub path: String,
    /// First line of its span in the document.
    pub first_line: u64,
    /// Its kind.
    pub kind: String,
    /// Its language.
    pub language: Option<String>,
    /// `kept`, `redacted` or `dropped`, duplicates and what people decided counted in.
    pub verdict: String,
    /// The stretch of its text in which the words stand, or its beginning.
    pub snippet: Vec<Piece>,
}

/// A stretch of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// Why it stands out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// Why a stretch of text stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It is what was looked for.
    Hit,
    /// It stands for something that was replaced.
    Replaced {
        /// The detector's label.
        label: String,
        /// Bytes of what stood there.
        length: u64,
        /// Its line in the document.
        line: u64,
    },
    /// Text that is not told, since there is too much of it.
    Cut,
}

/// What a person decided about a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Review {
    /// What.
    pub decision: Decision,
    /// Who.
    pub who: String,
    /// Seconds since 1970.
    pub at: i64,
}

/// A record with its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordShown {
    /// Its id.
    pub record: Digest,
    /// Its kind.
    pub kind: String,
    /// Its language.
    pub language: Option<String>,
    /// Words.
    pub words: u64,
    /// Bytes of the text.
    pub bytes: u64,
    /// The text as it is trained on.
    pub text: Vec<Piece>,
    /// `kept`, `redacted` or `dropped`, duplicates and what people decided counted in; none where no document holds it now.
    pub verdict: Option<String>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Replaced spans: label, how many.
    pub redactions: BTreeMap<String, u64>,
    /// What a person decided.
    pub review: Option<Review>,
    /// Why it waits for a person, if it does: `borderline`, `redacted` or `sample`.
    pub waits: Option<String>,
    /// Whether a person may keep it although the rules dropped it.
    pub may_be_kept: bool,
    /// Where it is a duplicate: the survivor.
    pub twin: Option<Twin>,
    /// Texts that say nearly the same, the survivor's first; the beginning of many.
    pub near: Vec<Near>,
    /// How many there are, this one counted in.
    pub near_count: u64,
    /// The document that it is shown in, and its texts around it.
    pub document: Option<ShownDocument>,
    /// Other documents that hold it: source and path; the beginning of many.
    pub elsewhere: Vec<(String, String)>,
    /// Datasets that hold it, and the runs that learnt or were measured on it.
    pub reached: Vec<Reached>,
}

/// A text that says nearly the same as another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Near {
    /// Its record.
    pub record: Digest,
    /// Source and path of its first document.
    pub place: Option<(String, String)>,
    /// Estimated Jaccard similarity of its shingles to the survivor's.
    pub similarity: Option<f64>,
    /// Whether it goes into datasets for all of them.
    pub survives: bool,
}

/// The document of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShownDocument {
    /// Its source.
    pub source: String,
    /// Its path in the source.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Texts that were taken out of it.
    pub texts: u64,
    /// Some of them, in order, with the record's own among them.
    pub around: Vec<ShownText>,
}

/// A text of a document, as extraction took it out, with labels in place of what was replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShownText {
    /// The record that was made of it.
    pub record: Digest,
    /// First line of its span in the document.
    pub first_line: u64,
    /// As in [`RecordFound`].
    pub verdict: String,
    /// Whether it is the record that was asked for.
    pub here: bool,
    /// The text.
    pub text: Vec<Piece>,
}

/// What to do about a record that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Keep it, also against quality rules.
    Keep,
    /// Let it go into no dataset.
    Drop,
    /// Take back what was decided.
    Undo,
}

impl Judgement {
    /// The word that stands in the ledger.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Undo => "undo",
        }
    }
}

/// What waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReviewQueue {
    /// Records that wait, in the order in which they are to be looked at.
    pub waiting: Vec<Waiting>,
    /// How many wait, counted up to [`REVIEW_COUNT`].
    pub count: u64,
    /// What was decided last, newest first.
    pub decided: Vec<Decided>,
}

/// How far records that wait are counted.
pub const REVIEW_COUNT: u64 = 10_000;

/// A record that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// Its id.
    pub record: Digest,
    /// Its source.
    pub source: String,
    /// Its document's path in the source.
    pub path: String,
    /// Its kind.
    pub kind: String,
    /// The rules' verdict.
    pub verdict: String,
    /// Why it waits: `borderline`, `redacted` or `sample`.
    pub why: String,
    /// The verdict's reasons.
    pub reasons: Vec<Reason>,
}

/// What was decided about a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// Its id.
    pub record: Digest,
    /// What was decided; none where it was taken back.
    pub review: Option<Review>,
    /// Records that hold the text now.
    pub records: u64,
}

/// What other rules would keep and drop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tryout {
    /// Hash of the rules in force.
    pub in_force: Digest,
    /// Hash of the rules that were tried.
    pub tried: Digest,
    /// Records that were judged.
    pub judged: u64,
    /// Records that there are.
    pub of: u64,
    /// Records that were drawn and not judged: another stands for them, or a person decided about them.
    pub left_out: u64,
    /// What drew the records, where not all were judged.
    pub seed: u64,
    /// Records that stay kept.
    pub kept: u64,
    /// Records that stay dropped.
    pub dropped: u64,
    /// Records that stay kept with other spans replaced.
    pub other_redactions: u64,
    /// Kept now, and would be dropped.
    pub lost: Change,
    /// Dropped now, and would be kept.
    pub gained: Change,
}

/// Records whose verdict other rules would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Records.
    pub records: u64,
    /// Words in them.
    pub words: u64,
    /// By the rule that would drop them, or drops them now; a record with several counts to each.
    pub rules: BTreeMap<String, u64>,
    /// Some of them: a few of each rule.
    pub examples: Vec<TryoutExample>,
}

/// A record whose verdict other rules would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TryoutExample {
    /// Its id.
    pub record: Digest,
    /// Its source.
    pub source: String,
    /// Its document's path in the source.
    pub path: String,
    /// Its kind.
    pub kind: String,
    /// What would drop it, or drops it now.
    pub reasons: Vec<Reason>,
    /// The beginning of its text.
    pub beginning: String,
}

/// How a dataset is spread, and what was made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatasetFacts {
    /// Its id.
    pub id: DatasetId,
    /// Hash of the recipe's selection and split.
    pub recipe: Digest,
    /// Hash of the curation rules.
    pub rules: Digest,
    /// Hash of the tokenizer.
    pub tokenizer: Digest,
    /// Seconds since 1970 at which it was first built here.
    pub built: i64,
    /// Totals by source.
    pub sources: BTreeMap<String, moat_contracts::DatasetSource>,
    /// By length, kind and language.
    pub shape: DatasetShape,
    /// Runs on it.
    pub runs: Vec<String>,
    /// Runs that started from one of those, and so hold what that learnt.
    pub later: Vec<String>,
}
