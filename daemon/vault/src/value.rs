use crate::cipher::{SALT, TAG, open_small, seal_small};
use crate::{DataKey, VaultError};

/// Bytes that sealing adds to a value: version, salt, tag.
pub const VALUE_OVERHEAD: usize = 1 + SALT + TAG;
/// The longest value that is sealed in one piece, in bytes; it is held in memory twice.
pub const VALUE_MOST: usize = 256 << 20;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"moat value\0\x01";

/// Seals a small value for an object: a byte of version, a salt of 16 bytes, the ciphertext, a tag of 16 bytes.
///
/// # Errors
/// [`VaultError::TooLarge`] above [`VALUE_MOST`]; [`VaultError::Random`] where the system has no random bytes.
pub fn seal_bytes(key: &DataKey, object: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
    if plain.len() > VALUE_MOST {
        return Err(VaultError::TooLarge { length: plain.len(), most: VALUE_MOST });
    }
    seal_small(key.expose(), &[LABEL, object.as_bytes()], &[VERSION], plain)
}

/// Opens what [`seal_bytes`] sealed for the same object under the same key.
///
/// # Errors
/// [`VaultError::Foreign`] where the version is unknown, [`VaultError::Refused`] where the bytes were changed or cut, or
/// belong to another object or key.
pub fn open_bytes(key: &DataKey, object: &str, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
    match sealed.split_first() {
        Some((&VERSION, sealed)) => {
            let mut plain = open_small(key.expose(), &[LABEL, object.as_bytes()], sealed)?;
            Ok(std::mem::take(&mut *plain))
        }
        Some(_) => Err(VaultError::Foreign),
        None => Err(VaultError::Refused),
    }
}
