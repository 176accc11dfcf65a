//! What an auditor gets: everything recomputed from a copy, and each fault by its name.

use std::fmt;
use std::path::Path;

use crate::error::LedgerError;
use crate::note::PublicKey;
use crate::walk::walk;

/// Where a checkpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `checkpoints`: every one that was ever signed.
    History,
    /// `checkpoint`: the newest.
    Current,
    /// The witness file, kept elsewhere.
    Witness,
}

impl fmt::Display for Place {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str(match self {
            Self::History => "the history",
            Self::Current => "the file of the newest",
            Self::Witness => "the witness file",
        })
    }
}

/// A fault in a ledger. Checkpoints are counted from 1 within their place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Bytes of these entries were changed: their lines do not agree with their checksums, or are gone.
    #[error("entries {from} to {last} are not as they were written", last = .to - 1)]
    Damaged {
        /// The first of them.
        from: u64,
        /// The first after them.
        to: u64,
    },
    /// An entry's line and the stored hash over it (`level` 0) or over it and those before it disagree.
    #[error(
        "entry {index} and the stored hash of level {level} that it completes disagree: one of them was changed"
    )]
    Hash {
        /// The entry.
        index: u64,
        /// The height of the subtree.
        level: u32,
    },
    /// A well-formed line says that it is another entry: lines were removed, doubled or moved.
    #[error("where entry {expected} belongs stands one that calls itself {found}")]
    Order {
        /// The entry that belongs there.
        expected: u64,
        /// The entry that stands there.
        found: u64,
    },
    /// Entries at the end that were acknowledged or signed are gone.
    #[error("the log ends after {have} entries, but had {known}: its tail was cut")]
    CutTail {
        /// How many are there.
        have: u64,
        /// How many were once there.
        known: u64,
    },
    /// The last write was cut short by a power cut or a kill before it was acknowledged. No acknowledged entry is gone.
    #[error("the last write, of entry {index}, was never completed: {bytes} bytes of it are there")]
    TornWrite {
        /// The entry that was being written.
        index: u64,
        /// How many bytes of the write are there.
        bytes: u64,
    },
    /// The last checkpoint's writing was cut short; no completed one is gone.
    #[error("the last checkpoint of {place} was never completed")]
    TornCheckpoint {
        /// Where it stands.
        place: Place,
    },
    /// A checkpoint is no signed note of a ledger.
    #[error("checkpoint {number} of {place} cannot be read: it was changed")]
    Unreadable {
        /// Where it stands.
        place: Place,
        /// Its number there.
        number: u64,
    },
    /// A checkpoint was signed by another key than the auditor's.
    #[error("checkpoint {number} of {place} was signed by another key")]
    ForeignKey {
        /// Where it stands.
        place: Place,
        /// Its number there.
        number: u64,
    },
    /// A checkpoint's signature does not fit its text.
    #[error("checkpoint {number} of {place} has a wrong signature: it was changed or forged")]
    Signature {
        /// Where it stands.
        place: Place,
        /// Its number there.
        number: u64,
    },
    /// A signed checkpoint says otherwise than the entries: history was rewritten after it was signed.
    #[error(
        "checkpoint {number} of {place} signed another history of the first {size} entries than this one"
    )]
    Contradicted {
        /// Where it stands.
        place: Place,
        /// Its number there.
        number: u64,
        /// How many entries it signed.
        size: u64,
    },
    /// A checkpoint is for fewer entries than the one before it.
    #[error("checkpoint {number} of {place} is for fewer entries than the one before it")]
    Backwards {
        /// Where it stands.
        place: Place,
        /// Its number there.
        number: u64,
    },
    /// The newest checkpoint is missing from the history.
    #[error("the newest checkpoint, for {size} entries, is missing from the history")]
    HistoryCut {
        /// How many entries it signed.
        size: u64,
    },
    /// The witness saw more entries than there are: an older state was put in place of a newer one.
    #[error("the witness saw {witnessed} entries and the log has {have}: an older state was put back")]
    RolledBack {
        /// How many are there.
        have: u64,
        /// How many the witness saw.
        witnessed: u64,
    },
}

impl Finding {
    /// Whether it is what a power cut leaves, and nothing that was acknowledged is touched.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::TornWrite { .. } | Self::TornCheckpoint { .. })
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many entries were recomputed.
    pub entries: u64,
    /// How many of them a good checkpoint covers; those after it rest on checksums alone.
    pub covered: u64,
    /// How many of them a good checkpoint of the witness covers.
    pub witnessed: u64,
    /// How many checkpoints of the history agree with the entries and the key.
    pub checkpoints: u64,
    /// How many stored hashes are missing, as after a power cut; opening computes them again.
    pub missing_hashes: u64,
    /// The faults, at most [`Report::MOST`].
    pub findings: Vec<Finding>,
    /// How many faults there were beyond those listed.
    pub unlisted: u64,
}

impl Report {
    /// The most findings that a report lists.
    pub const MOST: usize = 1000;

    /// Whether every acknowledged entry is as it was written, as far as the checkpoints can tell.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unlisted == 0 && self.findings.iter().all(Finding::is_harmless)
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if self.findings.len() < Self::MOST {
            self.findings.push(finding);
        } else {
            self.unlisted += 1;
        }
    }
}

/// Recomputes a ledger from its folder or a copy of it, in constant memory and without changing anything.
///
/// Entries, stored hashes and every checkpoint are held against each other; with a `witness` file also against what was
/// copied there, which alone shows that a whole older folder was put back or that history was signed anew with the
/// same key. The folder may be that of a running daemon: what it adds meanwhile is left for the next time.
///
/// # Errors
/// [`LedgerError`] where a file cannot be read at all; what is wrong inside the files is in the report.
pub fn verify(folder: &Path, key: &PublicKey, witness: Option<&Path>) -> Result<Report, LedgerError> {
    Ok(walk(folder, Some(key), witness, &mut |_, _| Ok(()))?.report)
}
