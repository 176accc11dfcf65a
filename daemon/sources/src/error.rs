use std::io;
use std::path::PathBuf;

use moat_catalog::CatalogError;

/// A sink takes no more changes; the scan stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("whoever takes the changes has stopped")]
pub struct SinkClosed;

/// Why a source could not be scanned or watched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The folder is not there or may not be read.
    #[error(
        "source `{name}`: folder {} cannot be read: {error}; mount it or correct `path`; everything known of it is \
         kept",
        root.display()
    )]
    Root {
        /// The source.
        name: String,
        /// Its folder.
        root: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The folder is empty and on another device than everything known of it: most likely nothing is mounted there.
    #[error(
        "source `{name}`: folder {} is empty and on another device than the {known} documents known of it; mount \
         it, or take the source out of the configuration; everything known of it is kept",
        root.display()
    )]
    Emptied {
        /// The source.
        name: String,
        /// Its folder.
        root: PathBuf,
        /// Documents known of it.
        known: u64,
    },
    /// A folder of the source cannot be looked into.
    #[error("source `{name}` has no such folder that may be looked into: {reason}")]
    Place {
        /// The source.
        name: String,
        /// What is wrong; the folder is not repeated, since a name says as much as a text.
        reason: String,
    },
    /// The folder cannot be watched.
    #[error("source `{name}`: folder {} cannot be watched: {reason}; it is only rescanned", root.display())]
    Watch {
        /// The source.
        name: String,
        /// Its folder.
        root: PathBuf,
        /// What is missing and what to do.
        reason: String,
    },
    /// The repository cannot be read.
    #[error("source `{name}`: repository {}: {reason}", repository.display())]
    Repository {
        /// The source.
        name: String,
        /// Its repository.
        repository: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The catalog could not be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The sink closed.
    #[error(transparent)]
    Closed(#[from] SinkClosed),
}
