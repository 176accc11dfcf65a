//! The ledger: an append-only Merkle log of every act that touches data, weights, keys or rights.
//!
//! An act is one canonical JSON line, hashed as RFC 6962 and C2SP's tlog do, written and fsynced before
//! [`Ledger::append`] returns, so that a caller who appends first and acts afterwards never acts unrecorded.
//! Checkpoints (C2SP signed notes, Ed25519) fix the tree's size and root; [`verify`] recomputes everything from a copy,
//! offline, and names what was flipped, cut, rolled back or signed anew. The ledger never holds customers' text, never
//! changes a line that it acknowledged, and never heals damage: it cuts back only a last write that was never
//! acknowledged, and says so.

mod checkpoints;
mod codec;
mod entry;
mod error;
mod hashes;
mod lines;
mod log;
mod merkle;
mod note;
mod read;
mod receipt;
mod verify;
mod walk;

pub use entry::{Act, Entry, MAX_ENTRY, Phase, Who};
pub use error::LedgerError;
pub use log::{Ledger, Options, Repairs};
pub use merkle::{Hash, empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion};
pub use note::{Checkpoint, ORIGIN, PublicKey};
pub use read::{Filter, Page, Reader};
pub use receipt::verify_receipt;
pub use verify::{Finding, Place, Report, verify};
