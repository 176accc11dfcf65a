use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use moat_catalog::Catalog;
use moat_contracts::Digest;

use crate::scan::Scan;
use crate::{Change, ScanReport, SinkClosed, SourceError};

/// A folder of files as a source.
///
/// A document is a regular file. Its id follows it through renames, rotations and editors' replace-by-rename; a file
/// that only has the inode of another is a new document. Links are not followed out of the folder ([`Skip::Link`]);
/// one to what the folder holds under its own path is passed over, one to what is hidden in the folder is followed.
/// Devices, pipes and sockets are never opened ([`Skip::Special`]). Folders named `.git` are never entered.
///
/// [`Skip::Link`]: moat_contracts::Skip::Link
/// [`Skip::Special`]: moat_contracts::Skip::Special
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The source's configured name.
    pub name: String,
    /// The folder; may itself be a link.
    pub root: PathBuf,
    /// Larger files are skipped.
    pub max_bytes: u64,
    /// The policy that its documents carry.
    pub policy: String,
    /// A file that changed less than this long ago is left for a later scan.
    pub settle: Duration,
    /// Whether names that begin with a dot are read.
    pub hidden: bool,
}

impl Folder {
    /// Compares the whole folder with what the catalog knows, and hands every difference to the sink. A file whose
    /// device, inode, size and times are those known, curated under `rules`, is not opened.
    ///
    /// The sink may commit on this connection while the scan runs, but must not keep a batch open between calls. What
    /// it does not commit is handed over again by the next scan. Memory is bounded by the largest folder's names, the
    /// largest file, and 65,536 names of files that wait for the end of the scan.
    ///
    /// # Errors
    /// [`SourceError::Root`] and [`SourceError::Emptied`] where the folder is not there: nothing is reported gone then.
    /// [`SourceError::Closed`] where the sink closed; [`SourceError::Catalog`] where the catalog fails.
    pub fn scan(
        &self,
        catalog: &Catalog,
        rules: Digest,
        sink: &mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    ) -> Result<ScanReport, SourceError> {
        Scan::begin(self, catalog, rules, sink)?.everything()
    }

    /// Like [`Folder::scan`], but looks only at these paths (as documents have them) and below them. A path that is no
    /// longer there, file or folder, gives [`Change::Gone`] for what was known at and below it.
    ///
    /// # Errors
    /// Those of [`Folder::scan`].
    pub fn scan_paths(
        &self,
        catalog: &Catalog,
        rules: Digest,
        paths: &BTreeSet<String>,
        sink: &mut dyn FnMut(Change) -> Result<(), SinkClosed>,
    ) -> Result<ScanReport, SourceError> {
        if paths.contains("") {
            return self.scan(catalog, rules, sink);
        }
        Scan::begin(self, catalog, rules, sink)?.only(paths)
    }

    /// Whether an entry of this name is passed over.
    pub(crate) fn ignores(&self, name: &[u8]) -> bool {
        name == b".git" || !self.hidden && name.starts_with(b".")
    }
}
