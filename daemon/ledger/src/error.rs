//! What can go wrong with the ledger, in sentences that hold no customers' text and no key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::verify::Finding;

/// Why the ledger refused, or could not do, what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The act breaks a rule for entries; nothing was written.
    #[error("the ledger refuses this entry: {0}")]
    Refused(&'static str),
    /// The entry is not on disk, so its act may not take effect; the log can be appended to again.
    #[error("the entry could not be written to the ledger ({source}); the act must not take effect")]
    NotWritten {
        /// What the disk answered.
        source: Arc<io::Error>,
    },
    /// A file or folder of the ledger could not be read or written.
    #[error("the ledger could not {what} {path}: {source}", path = .path.display())]
    Io {
        /// The deed that failed, such as `read`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: Arc<io::Error>,
    },
    /// Another process has this ledger open.
    #[error("the ledger in {path} is open in another process: stop that one first", path = .0.display())]
    Busy(PathBuf),
    /// The ledger is not as it was written; it is left as found.
    #[error("the ledger is damaged: {0}; keep the folder as it is and run a verification")]
    Damaged(Finding),
    /// There is no signing key, since the daemon is sealed.
    #[error("the ledger has no signing key while the daemon is sealed: unseal it to sign a checkpoint")]
    Sealed,
    /// A receipt does not convince.
    #[error("the receipt is not valid: {0}")]
    Receipt(&'static str),
    /// Nothing was ever signed, so there is no checkpoint to copy.
    #[error("the ledger has no checkpoint yet: sign one first")]
    NoCheckpoint,
    /// The witness file holds a checkpoint that this log contradicts or does not reach.
    #[error("the witness file {path} contradicts this ledger: {finding}", path = .path.display())]
    Witness {
        /// The witness file.
        path: PathBuf,
        /// In what they differ.
        finding: Finding,
    },
    /// A proof or entry was asked for that this log does not have.
    #[error("the ledger holds {size} entries and cannot answer for {asked}")]
    Beyond {
        /// What was asked for.
        asked: u64,
        /// How many entries there are.
        size: u64,
    },
    /// A public key is not in the form `name+hash+key` of a C2SP signed note, or is not a ledger's.
    #[error("this is not a public key of a ledger; expected `{origin}+<8 hex digits>+<base64>`", origin = crate::ORIGIN)]
    Key,
}

impl LedgerError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source: Arc::new(source) }
    }
}
