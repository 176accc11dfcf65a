//! What `moat` and `moatd` say to each other about what lies in a source.

use std::collections::BTreeMap;

use moat_contracts::TextFault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of what a folder of a source holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceListing {
    /// The source.
    pub source: String,
    /// The folder, from the source's root; empty for the root.
    pub folder: String,
    /// Entries, by name.
    pub entries: Vec<SourceEntry>,
    /// Entries that the folder has in all.
    pub of: u64,
    /// The name after which to ask for more; none where these are the last.
    pub more: Option<String>,
}

/// One entry of a [`SourceListing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceEntry {
    /// Its name, as paths are written.
    pub name: String,
    /// `folder`, `file`, `link` or `special`.
    pub kind: String,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Seconds since 1970 of its last change, where the source keeps that.
    pub modified: Option<i64>,
    /// Whether the source passes it over by its name.
    pub passed_over: bool,
    /// Where a file stands: `present` or `skipped`; nothing where it is not taken in.
    pub state: Option<String>,
    /// Why it was not read, if it was not.
    pub skip: Option<String>,
}

/// What a trial of a source found; nothing was taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceTrial {
    /// The source.
    pub source: String,
    /// Files that can be opened.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Folders that were entered.
    pub folders: u64,
    /// Entries that would not be read, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Folders that cannot be listed.
    pub closed: u64,
    /// Entries that are passed over by their names.
    pub passed_over: u64,
    /// The first entries that would not be read.
    pub problems: Vec<SourceProblem>,
    /// Whether everything was looked at within the trial's time.
    pub whole: bool,
    /// The commit at the tip of a repository.
    pub commit: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// One entry that would not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceProblem {
    /// Its path in its source.
    pub path: String,
    /// Why: the word of a reason, or `closed` for a folder that cannot be listed.
    pub what: String,
}

/// A part of a source's documents that were not read, or only in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceFaults {
    /// The source.
    pub source: String,
    /// Documents, in the order of first sight.
    pub documents: Vec<FaultyDocument>,
    /// After which number to ask for more; none where these are the last.
    pub more: Option<u64>,
}

/// A document that was not read, or only in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultyDocument {
    /// Its path in its source.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Why it was not read; nothing for one that was read in part.
    pub skip: Option<String>,
    /// The first places that could not be read.
    pub faults: Vec<TextFault>,
    /// Places that could not be read, in all.
    pub places: u64,
}
