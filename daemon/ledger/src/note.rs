//! Checkpoints as C2SP's `tlog-checkpoint` and `signed-note` write them: five lines, signed with Ed25519.
//!
//! ```text
//! moat/ledger
//! 4711
//! nYJ5…root hash, base64…=
//!
//! — moat/ledger Az3grl…key id and signature, base64…=
//! ```

use ring::digest::{Context, SHA256};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::codec::{base64, from_base64, hex};
use crate::error::LedgerError;
use crate::merkle::Hash;

/// The first line of every checkpoint, and the name of the key that signs it.
pub const ORIGIN: &str = "moat/ledger";
/// The signed note's number for plain Ed25519.
const ED25519_KIND: u8 = 1;

/// A ledger's public key, which an auditor keeps apart from the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The public half of a signing key's seed.
    ///
    /// # Errors
    /// [`LedgerError::Key`] where the seed makes no key.
    pub fn of_seed(seed: &[u8; 32]) -> Result<Self, LedgerError> {
        Ok(Self::of(&Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| LedgerError::Key)?))
    }

    pub(crate) fn of(pair: &Ed25519KeyPair) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(pair.public_key().as_ref());
        Self(key)
    }

    fn id(&self) -> [u8; 4] {
        key_id(ORIGIN, &self.0)
    }

    /// The key as a signed note's verifiers take it: `name+hash+key`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut key = vec![ED25519_KIND];
        key.extend_from_slice(&self.0);
        format!("{ORIGIN}+{}+{}", hex(&self.id()), base64(&key))
    }

    /// Reads what [`PublicKey::to_text`] wrote.
    ///
    /// # Errors
    /// [`LedgerError::Key`] where the text is anything else.
    pub fn from_text(text: &str) -> Result<Self, LedgerError> {
        let encoded = text.trim().splitn(3, '+').nth(2).and_then(from_base64).ok_or(LedgerError::Key)?;
        let key = encoded.get(1..).and_then(|key| key.try_into().ok()).map(Self).ok_or(LedgerError::Key)?;
        if key.to_text() == text.trim() { Ok(key) } else { Err(LedgerError::Key) }
    }
}

/// What a checkpoint fixes, and its signed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many entries the log had.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The whole signed note.
    pub note: String,
}

/// How a note's signature stands to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    Good,
    /// Made by another key, or so it says.
    Foreign,
    /// Said to be by this key, but it is not.
    Wrong,
}

/// Whether a complete line, without its end, may stand at this place of a note.
pub(crate) fn fits(place: usize, line: &str) -> bool {
    match place {
        0 => line == ORIGIN,
        1 => line.parse().is_ok_and(|size: u64| size.to_string() == line),
        2 => from_base64(line).is_some_and(|root| root.len() == 32),
        3 => line.is_empty(),
        4 => signature(line).is_some(),
        _ => false,
    }
}

/// The key id and signature in a signature line.
fn signature(line: &str) -> Option<([u8; 4], Vec<u8>)> {
    let encoded = line.strip_prefix("— ")?.strip_prefix(ORIGIN)?.strip_prefix(' ')?;
    let bytes = from_base64(encoded).filter(|bytes| bytes.len() == 68)?;
    let (id, signature) = bytes.split_first_chunk()?;
    Some((*id, signature.to_vec()))
}

/// The first four bytes of `SHA-256(name || 0x0A || 0x01 || key)`.
fn key_id(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let mut context = Context::new(&SHA256);
    for part in [name.as_bytes(), &[b'\n', ED25519_KIND], key] {
        context.update(part);
    }
    let hash = context.finish();
    let mut id = [0; 4];
    id.copy_from_slice(&hash.as_ref()[..4]);
    id
}

fn body(size: u64, root: &Hash) -> String {
    format!("{ORIGIN}\n{size}\n{}\n", base64(root))
}

impl Checkpoint {
    /// How many lines a note has.
    pub(crate) const LINES: usize = 5;

    pub(crate) fn sign(pair: &Ed25519KeyPair, size: u64, root: Hash) -> Self {
        let body = body(size, &root);
        let mut signature = PublicKey::of(pair).id().to_vec();
        signature.extend_from_slice(pair.sign(body.as_bytes()).as_ref());
        Self { size, root, note: format!("{body}\n— {ORIGIN} {}\n", base64(&signature)) }
    }

    /// Reads a note of exactly five lines; `None` where it is none. The signature is not judged.
    pub(crate) fn parse(note: &str) -> Option<Self> {
        let lines: Vec<_> = note.strip_suffix('\n')?.split('\n').collect();
        if lines.len() != Self::LINES || !lines.iter().enumerate().all(|(place, line)| fits(place, line)) {
            return None;
        }
        let root = from_base64(lines[2])?.try_into().ok()?;
        Some(Self { size: lines[1].parse().ok()?, root, note: note.to_owned() })
    }

    /// Judges the signature.
    pub(crate) fn check(&self, key: &PublicKey) -> Signature {
        let line = self.note.lines().nth(4).and_then(signature);
        match line {
            Some((id, signature)) if id == key.id() => {
                let public = UnparsedPublicKey::new(&ED25519, key.0);
                match public.verify(body(self.size, &self.root).as_bytes(), &signature) {
                    Ok(()) => Signature::Good,
                    Err(_) => Signature::Wrong,
                }
            }
            _ => Signature::Foreign,
        }
    }

    /// Whether this key signed the checkpoint.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.check(key) == Signature::Good
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// The example of Go's `note` package, which the format comes from.
    #[test]
    fn a_note_signed_elsewhere_verifies() {
        let key = from_base64("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signed =
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let signed = from_base64(signed).unwrap();
        let public: [u8; 32] = key[1..].try_into().unwrap();
        assert_eq!(hex(&key_id("PeterNeumann", &public)), "c74f20a3");
        assert_eq!(key_id("PeterNeumann", &public), signed[..4]);
        UnparsedPublicKey::new(&ED25519, public).verify(text.as_bytes(), &signed[4..]).unwrap();
    }

    #[test]
    fn a_public_key_reads_back_and_nothing_else_does() {
        let key = PublicKey::of_seed(&[5; 32]).unwrap();
        let text = key.to_text();
        assert_eq!(PublicKey::from_text(&text).unwrap(), key);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(PublicKey::from_text(&String::from_utf8(bytes).unwrap()).is_err(), "byte {at}");
        }
    }
}
