//! The one place that calls ring's AES-256-GCM, and the derivation that every seal starts with.

use std::mem::{ManuallyDrop, needs_drop};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroizing, zeroize_flat_type};

use crate::VaultError;

/// Bytes of an authentication tag.
pub(crate) const TAG: usize = 16;
/// Bytes of the salt in front of small sealed things.
pub(crate) const SALT: usize = 16;

/// A secret of 32 bytes that stays where it is and is wiped when dropped.
pub(crate) type Secret = Box<Zeroizing<[u8; 32]>>;

/// Fills a buffer from the system's generator.
pub(crate) fn random(into: &mut [u8]) -> Result<(), VaultError> {
    SystemRandom::new().fill(into).map_err(|_| VaultError::Random)
}

/// A new random secret.
pub(crate) fn random_secret() -> Result<Secret, VaultError> {
    let mut secret = Secret::default();
    random(secret.as_mut_slice())?;
    Ok(secret)
}

/// HKDF-SHA256 (RFC 5869) of a secret to another of 32 bytes; `info` starts with the use's label.
pub(crate) fn derive(secret: &[u8; 32], info: &[&[u8]]) -> Result<Secret, VaultError> {
    let mut derived = Secret::default();
    Prk::new_less_safe(HKDF_SHA256, secret)
        .expand(info, HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .map_err(|_| VaultError::Cipher)?;
    Ok(derived)
}

/// An AES-256-GCM key that seals one message or one stream; its round keys are wiped when dropped.
pub(crate) struct Cipher(Box<ManuallyDrop<LessSafeKey>>);

impl Cipher {
    /// The key that HKDF-SHA256 makes of a secret, a salt, and `info`, which starts with the use's label.
    pub(crate) fn derive(secret: &[u8; 32], salt: &[u8], info: &[&[u8]]) -> Result<Self, VaultError> {
        let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
        let okm = prk.expand(info, &AES_256_GCM).map_err(|_| VaultError::Cipher)?;
        Ok(Self(Box::new(ManuallyDrop::new(LessSafeKey::new(UnboundKey::from(okm))))))
    }

    /// Encrypts in place.
    pub(crate) fn seal(&self, nonce: [u8; 12], plain: &mut [u8]) -> Result<[u8; TAG], VaultError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), plain);
        let tag: Tag = tag.map_err(|_| VaultError::Cipher)?;
        tag.as_ref().try_into().map_err(|_| VaultError::Cipher)
    }

    /// Decrypts in place what ends with its tag; returns the plain bytes' length. The buffer holds no plain bytes
    /// where it is refused.
    pub(crate) fn open(&self, nonce: [u8; 12], sealed: &mut [u8]) -> Result<usize, VaultError> {
        self.open_towards_front(nonce, sealed, 0)
    }

    /// The same for what begins at `from`; the plain bytes come to stand at the front.
    pub(crate) fn open_towards_front(
        &self,
        nonce: [u8; 12],
        sealed: &mut [u8],
        from: usize,
    ) -> Result<usize, VaultError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.0.open_within(nonce, Aad::empty(), sealed, from..);
        plain.map(|plain| plain.len()).map_err(|_| VaultError::Refused)
    }
}

impl Drop for Cipher {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        const { assert!(!needs_drop::<LessSafeKey>()) }
        // SAFETY: the key owns nothing, has no destructor, and is never touched again.
        unsafe { zeroize_flat_type(&raw mut *self.0) }
    }
}

/// Seals something small: `head` as it is, a fresh salt, the ciphertext, its tag. `info` starts with the use's label.
pub(crate) fn seal_small(
    secret: &[u8; 32],
    info: &[&[u8]],
    head: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, VaultError> {
    let mut salt = [0; SALT];
    random(&mut salt)?;
    let mut sealed = Vec::with_capacity(head.len() + SALT + plain.len() + TAG);
    sealed.extend_from_slice(head);
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(plain);
    let tag = Cipher::derive(secret, &salt, info)?.seal([0; 12], &mut sealed[head.len() + SALT..])?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what [`seal_small`] made under the same secret and `info`; its head is left out of `sealed`.
pub(crate) fn open_small(
    secret: &[u8; 32],
    info: &[&[u8]],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let (salt, sealed) = sealed.split_at_checked(SALT).ok_or(VaultError::Refused)?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let length = Cipher::derive(secret, salt, info)?.open([0; 12], &mut plain)?;
    plain.truncate(length);
    Ok(plain)
}

/// Opens a sealed secret of 32 bytes.
pub(crate) fn open_secret(secret: &[u8; 32], info: &[&[u8]], sealed: &[u8]) -> Result<Secret, VaultError> {
    let plain = open_small(secret, info, sealed)?;
    let mut opened = Secret::default();
    if plain.len() != opened.len() {
        return Err(VaultError::Refused);
    }
    opened.copy_from_slice(&plain);
    Ok(opened)
}
