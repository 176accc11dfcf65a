use std::fmt;

use crate::VaultError;
use crate::cipher::{SALT, Secret, TAG, open_secret, random_secret, seal_small};

/// The key of one object, or of one run's files: seals any number of streams and values. Wiped when dropped, never
/// printed.
pub struct DataKey(Secret);

impl DataKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`VaultError::Random`] where the system has no random bytes.
    pub fn random() -> Result<Self, VaultError> {
        Ok(Self(random_secret()?))
    }

    /// The key that another process was handed; the caller wipes what it copied from.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut secret = Secret::default();
        secret.copy_from_slice(bytes);
        Self(secret)
    }

    /// The key itself, to hand it to the process that needs it.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DataKey(hidden)")
    }
}

const VERSION: u8 = 1;
const LENGTH: usize = 1 + 4 + SALT + 32 + TAG;

/// A data key under a root key: one byte of version, the root's generation (little endian), a salt of 16 bytes, the
/// sealed key and its tag. Opens only for the object's name that it was made for; safe to store beside the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey([u8; LENGTH]);

impl WrappedKey {
    /// Bytes of every wrapped key.
    pub const LENGTH: usize = LENGTH;

    /// Takes stored bytes back.
    ///
    /// # Errors
    /// [`VaultError::Foreign`] where these are no wrapped key of a known version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VaultError> {
        let bytes: [u8; LENGTH] = bytes.try_into().map_err(|_| VaultError::Foreign)?;
        if bytes[0] == VERSION { Ok(Self(bytes)) } else { Err(VaultError::Foreign) }
    }

    /// The bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The root generation that wrapped it, so that its owner can find those that a rotation has yet to rewrap.
    #[must_use]
    pub fn generation(&self) -> u32 {
        u32::from_le_bytes([self.0[1], self.0[2], self.0[3], self.0[4]])
    }

    pub(crate) fn wrap(
        root: &[u8; 32],
        generation: u32,
        object: &str,
        key: &DataKey,
    ) -> Result<Self, VaultError> {
        let mut head = [VERSION, 0, 0, 0, 0];
        head[1..].copy_from_slice(&generation.to_le_bytes());
        let wrapped = seal_small(root, &Self::info(&head, object), &head, key.expose())?;
        wrapped.try_into().map(Self).map_err(|_| VaultError::Cipher)
    }

    pub(crate) fn unwrap(&self, root: &[u8; 32], object: &str) -> Result<DataKey, VaultError> {
        let (head, sealed) = self.0.split_at(5);
        open_secret(root, &Self::info(head, object), sealed).map(DataKey)
    }

    fn info<'a>(head: &'a [u8], object: &'a str) -> [&'a [u8]; 3] {
        [b"moat data key\0", head, object.as_bytes()]
    }
}
