//! Receipts: one entry with the proof that a signed checkpoint covers it, in C2SP's `tlog-proof` format.
//!
//! The format's free `extra` line holds the entry itself, so that a receipt, the public key and nothing else convince.

use std::fmt::Write;

use crate::codec::{base64, from_base64};
use crate::entry::Entry;
use crate::error::LedgerError;
use crate::log::Ledger;
use crate::merkle::{Hash, leaf_hash, verify_inclusion};
use crate::note::{Checkpoint, PublicKey};

const HEAD: &str = "c2sp.org/tlog-proof@v1\n";

impl Ledger {
    /// The receipt of an entry that the newest checkpoint covers.
    ///
    /// # Errors
    /// [`LedgerError::NoCheckpoint`] where nothing was signed, [`LedgerError::Beyond`] where the newest checkpoint does
    /// not cover the entry yet: sign another.
    pub fn receipt(&self, index: u64) -> Result<String, LedgerError> {
        let checkpoint = self.last_checkpoint().ok_or(LedgerError::NoCheckpoint)?;
        let path = self.prove(index, checkpoint.size)?;
        let mut text = format!("{HEAD}extra {}\nindex {index}\n", base64(&self.entry_bytes(index)?));
        for hash in path {
            text.push_str(&base64(&hash));
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{}", checkpoint.note);
        Ok(text)
    }
}

/// Judges a receipt by the ledger's public key alone; returns the entry and the checkpoint that covers it.
///
/// # Errors
/// [`LedgerError::Receipt`] where anything in it does not hold.
pub fn verify_receipt(text: &str, key: &PublicKey) -> Result<(Entry, Checkpoint), LedgerError> {
    let faulty = |why| LedgerError::Receipt(why);
    let unreadable = || faulty("it is not in the format of a receipt");
    let (proof, note) =
        text.strip_prefix(HEAD).and_then(|text| text.split_once("\n\n")).ok_or_else(unreadable)?;
    let mut lines = proof.lines();
    let mut field = |name| lines.next().and_then(|line| line.strip_prefix(name)).ok_or_else(unreadable);
    let bytes = from_base64(field("extra ")?).ok_or_else(unreadable)?;
    let place = field("index ")?;
    let index: u64 = place.parse().map_err(|_| unreadable())?;
    let hash = |line| from_base64(line).and_then(|hash| hash.try_into().ok()).ok_or_else(unreadable);
    let path = lines.map(hash).collect::<Result<Vec<Hash>, _>>()?;
    let checkpoint = Checkpoint::parse(note).ok_or_else(unreadable)?;
    if !checkpoint.is_signed_by(key) {
        return Err(faulty("its checkpoint is not signed by this ledger's key"));
    }
    if !verify_inclusion(&leaf_hash(&bytes), index, checkpoint.size, &path, &checkpoint.root) {
        return Err(faulty("its proof does not lead from the entry to the signed root"));
    }
    let entry: Entry = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    if entry.index != index || index.to_string() != place {
        return Err(faulty("its entry is another one than it says"));
    }
    Ok((entry, checkpoint))
}
