use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use moat_catalog::Known;
use moat_contracts::{DocumentId, Skip};

/// One difference between a source and what the catalog knows of it.
#[derive(Clone, Debug)]
pub enum Change {
    /// A document is new, or its content is, or it has to be curated again: under other rules, or under a name that
    /// may make another kind of text of it.
    Arrived {
        /// State `Present`; `rules` is `None`, and becomes the rules that its records are made under.
        known: Known,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// The same bytes as before, under another name, time, or right to read: its records stay as they are.
    Restamped {
        /// As the catalog has it, with path, stamp, time, readers and policy of now.
        known: Known,
    },
    /// In its source, but not read: it has no records any more.
    Skipped {
        /// State `Skipped`, with the reason.
        known: Known,
    },
    /// No longer in its source.
    Gone {
        /// Which.
        id: DocumentId,
        /// Its source.
        source: String,
        /// Its last path.
        path: String,
    },
}

/// What a scan did, in counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Documents met, unchanged and skipped ones too.
    pub met: u64,
    /// Documents that the catalog already knew at this version; their content was not read.
    pub unchanged: u64,
    /// Documents whose content was opened.
    pub read: u64,
    /// Bytes of content read.
    pub read_bytes: u64,
    /// [`Change::Arrived`] handed over.
    pub arrived: u64,
    /// [`Change::Restamped`] handed over.
    pub restamped: u64,
    /// [`Change::Gone`] handed over.
    pub gone: u64,
    /// Documents that are there but not read, by reason, whether this scan found that out or knew it.
    pub skipped: BTreeMap<Skip, u64>,
    /// Files that vanished between being listed and being read.
    pub vanished: u64,
    /// Files that are being written, left for later.
    pub unsettled: u64,
    /// The earliest time at which one of the unsettled files may be complete.
    pub look_again: Option<SystemTime>,
    /// The paths to look at again then, for [`crate::Folder::scan_paths`]; only the empty one, which stands for the
    /// whole folder, where they are many.
    pub again: BTreeSet<String>,
    /// Links to what the source holds under its own path.
    pub aliases: u64,
    /// Folders that could not be listed; what was known below them stays known.
    pub unreadable_folders: u64,
    /// Documents that were not met and are kept all the same: they lay below a folder that could not be listed, or
    /// on a file system that is no longer mounted there.
    pub spared: u64,
    /// Key and value to keep with `Batch::put_meta` once every change of this scan is committed: lets the next scan
    /// tell at once that nothing changed.
    pub checkpoint: Option<(String, String)>,
}
