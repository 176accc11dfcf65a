//! Bases and models as folders in Hugging Face's layout: taking an open model in, and handing a tuned one over.
//!
//! A folder is verified while it is copied, byte by byte and once, and appears under its name whole or not at all. What
//! a run sealed is opened on its way out of a staged export, and nowhere else.
//! Only files of known names are taken: no pickles and no programs, and nothing that is taken is ever run. Weights are
//! never held in memory, let alone computed with.

mod card;
mod error;
mod export;
mod files;
mod import;
mod store;
mod weights;

pub use card::card;
pub use error::ModelError;
pub use export::{Earlier, Export, Parts, Staged, forget_unfinished, measure, release, stage, verify_export};
pub use import::import;
pub use store::{FileEntry, ImportedBase, find, list, verify};
