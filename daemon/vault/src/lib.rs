//! Keys, and everything sealed under them: streams, files and small values under AES-256-GCM, one data key per object,
//! data keys wrapped by a root key, the root unlocked by a key-encryption key. Never logs, never names an object or a
//! key in an error, never writes a plain byte to a file, and never hands out the root.
//!
//! # The chain of keys
//!
//! ```text
//! KEK (credential, passphrase, k-of-n shares) ─► master ─► root key, generation n ─► data key of an object ─► bytes
//!        one slot for each of them                  └────► field key ─► derived keys, look-up tags
//! ```
//!
//! Everything left of the objects stands in one small file, `root`, that is replaced as a whole: a new slot, a removed
//! slot or a new root generation rewrites nothing else. Rotation makes generation n + 1 beside n; the owner of the
//! wrapped keys rewraps them in transactions of its own; then n is forgotten. The field key outlives rotations, so
//! that sealed fields can still be found by equality.
//!
//! # Why no nonce is ever used twice under one key
//!
//! Nothing here encrypts under a long-lived key. Each seal draws a fresh random salt, and HKDF-SHA256 makes of the
//! long-lived key, the salt, a label of its use and the object's name an AES key that seals this one thing. Under that
//! key a nonce has only to count: small things are one message with nonce zero; a stream's chunk has its number
//! (11 bytes) and a flag that is set for the last one, the STREAM construction as the age format has it. So a data key
//! may seal any number of files and values. Two salts of 16 bytes meet with a probability of 2⁻⁴⁹ after 2⁴⁰ seals under
//! one key and one name; a stream's salt has 32 bytes. The name, the format's version and the use are inputs of the
//! derivation: bytes sealed for one object, use or version are noise for every other, which binds at least as firmly
//! as associated data would. A stream's end, order and length are bound by the numbers and the flag.
//!
//! # What erasing means
//!
//! An object is erased when its owner deletes its wrapped key. A copy of that wrapped key made earlier opens as long as
//! its root generation is kept; after the next rotation it is useless, since the generation's key is gone. Whoever kept
//! an old copy of the *root file too*, and has a KEK that opened it then, is not stopped by this: retire copies of the
//! root file with the KEK (see [`Vault::reset_slots`]). The vault cannot see a root file put back to an older state
//! either; its [`Vault::serial`] belongs in the ledger.
//!
//! # What memory holds
//!
//! The root, master and field keys lie in one page that is locked, left out of dumps and empty in forked children;
//! [`Vault::guarded`] says whether the machine granted that. Keys and buffers of plain bytes are wiped when dropped.
//! What ring leaves on the stack while it works is not wiped: no dumps and no tracing are the firewall's to hold.

mod cipher;
mod disk;
mod error;
mod file;
mod folder;
mod kek;
mod key;
mod locked;
mod recipient;
mod root;
mod shamir;
mod share;
mod stream;
#[cfg(test)]
mod tests;
mod value;
mod vault;

pub use error::{ShareError, VaultError};
pub use file::{SealedFile, open_file, sweep};
pub use folder::SealedFolder;
pub use kek::{Kek, PassphraseCosts};
pub use key::{DataKey, WrappedKey};
pub use recipient::{EncryptWriter, NoRecipient, Recipient};
pub use root::{SlotInfo, SlotKind};
pub use share::Share;
pub use stream::{CHUNK, OpenReader, SealWriter, open_in_place, sealed_length};
pub use value::{VALUE_MOST, VALUE_OVERHEAD, open_bytes, seal_bytes};
pub use vault::Vault;
