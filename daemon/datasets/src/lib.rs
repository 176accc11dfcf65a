//! Datasets: the records that a recipe selects, split into a side to train on and a side to be examined on,
//! and where it asks for one, a side to choose by.
//!
//! The same records, rules and recipe give the same dataset on every machine: nothing but their hashes, counts and
//! sources' names goes into its manifest, whose SHA-256 is its id. Near-duplicates are grouped, and a group is never
//! on two sides. Texts are read in small groups to count their tokens and are never kept; nothing is written.

mod build;
mod diff;
mod error;
mod groups;
mod manifest;
mod seen;
mod split;

pub use build::{Built, build};
pub use diff::{Diff, diff};
pub use error::DatasetError;
pub use manifest::{manifest, parse};
pub use seen::seen;
pub use split::LeftOut;
