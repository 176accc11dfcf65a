//! The places in a company where data lives: a folder, and a local git repository.
//!
//! A source compares what it holds with what the catalog knows, and hands every difference as a [`Change`] to a
//! sink. It never writes the catalog: who takes a change commits it together with the records made of it, so a kill
//! at any moment costs only that what was not committed is found again. Nothing here follows a link out of a source,
//! opens anything but regular files, runs a program that a repository names, or opens a connection.

mod browse;
mod change;
mod choose;
mod error;
mod file;
mod folder;
mod git;
mod history;
mod identity;
mod path;
mod readers;
mod scan;
mod tree;
mod walk;
mod watch;

pub use browse::{EntryIs, ListedEntry, Listing, Trial, TrialLimits};
pub use change::{Change, ScanReport};
pub use choose::{InnerFolder, Inside, folders_in, is_repository};
pub use error::{SinkClosed, SourceError};
pub use folder::Folder;
pub use git::Git;
pub use watch::{Hints, Waker, Watch};
