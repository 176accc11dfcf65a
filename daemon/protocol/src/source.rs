//! What `moat` and `moatd` say to each other about what lies in a source.

use std::collections::BTreeMap;

use moat_contracts::TextFault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a source is, whole: what two people agree to, byte for byte, and what the catalog keeps of one that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceDefinition {
    /// Its name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// `folder` or `git`.
    pub kind: String,
    /// Absolute path of the folder or repository, which lies in one of `boundary.sources`.
    pub path: String,
    /// Branch of a git source; empty for the one that HEAD names.
    pub branch: String,
    /// The policy that its documents carry.
    pub policy: String,
    /// Bytes of a document at most; larger ones are counted and skipped.
    pub max_bytes: u64,
    /// Seconds for which a changed file is waited for.
    pub settle_seconds: u64,
    /// Seconds between two whole scans.
    pub rescan_seconds: u64,
    /// Whether names that begin with a dot are read.
    pub hidden: bool,
}

/// Who brought a source that the configuration does not name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// The account that asked.
    pub asked_by: String,
    /// The account that agreed.
    pub agreed_by: String,
    /// Seconds since 1970 at which it was agreed to.
    pub since: i64,
    /// The statement that both signed.
    pub statement: String,
}

/// A source that waits for a second person, or waited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AskedSource {
    /// What both sign.
    pub definition: SourceDefinition,
    /// What it would have read when it was asked for; its problems are counted, not named.
    pub trial: SourceTrial,
}

/// A source that is read no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedSource {
    /// The source.
    pub source: String,
    /// Documents that were deleted, with their records.
    pub documents: u64,
}

/// A part of the folders that lie in a folder of this machine, from which a source can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FolderListing {
    /// The folder's path; empty for the folders at which one begins.
    pub folder: String,
    /// The folder above; empty for the folders at which one begins, none where there is nothing above.
    pub above: Option<String>,
    /// Whether a source may be added that is this folder.
    pub allowed: bool,
    /// Folders in it, by name.
    pub folders: Vec<FolderEntry>,
    /// Folders in it, in all.
    pub of: u64,
    /// Other files in it.
    pub files: u64,
    /// The name after which to ask for more; none where these are the last.
    pub more: Option<String>,
    /// The folders in which people may add sources, as the configuration names them in `boundary.sources`.
    pub boundary: Vec<String>,
}

/// One folder of a [`FolderListing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FolderEntry {
    /// Its name, or its path where one begins.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Whether it is a git repository.
    pub repository: bool,
    /// The source that reads it already.
    pub source: Option<String>,
    /// Whether a source may be added that is this folder.
    pub allowed: bool,
}

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

impl SourceTrial {
    /// Whether nothing was found that would not be read. Problems that were left out are counted all the same.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.skipped.is_empty() && self.closed == 0
    }
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
