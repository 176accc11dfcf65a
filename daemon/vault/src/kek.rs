use std::fmt;
use std::fs;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::cipher::{Secret, random, random_secret};
use crate::root::{Hex, Lock};
use crate::{Share, VaultError};

/// The credential's name in a systemd unit: `LoadCredentialEncrypted=moat-kek`.
const CREDENTIAL: &str = "moat-kek";
/// Characters that a passphrase must have when a slot is made for it.
const LEAST: usize = 12;

/// What one guess of a passphrase costs (Argon2id, RFC 9106). The default takes 256 MiB and about a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassphraseCosts {
    /// Memory in KiB, at least 8 a lane, at most 4 GiB.
    pub memory: u32,
    /// Passes over that memory, 1 to 64.
    pub passes: u32,
    /// Lanes, 1 to 64; computed one after the other.
    pub lanes: u32,
}

impl Default for PassphraseCosts {
    fn default() -> Self {
        Self { memory: 256 << 10, passes: 3, lanes: 1 }
    }
}

/// A key-encryption key: what opens one slot of the root file. Wiped when dropped, never printed.
pub struct Kek(Source);

enum Source {
    Credential(Secret),
    Passphrase { text: Zeroizing<String>, costs: PassphraseCosts },
    Shares { secret: Secret, set: String, needed: u8, of: u8 },
}

impl Kek {
    /// The credential `moat-kek` that systemd put into `$CREDENTIALS_DIRECTORY`, decrypted with the machine's TPM or host
    /// key where the unit says so.
    ///
    /// # Errors
    /// [`VaultError::NoCredentials`] outside such a unit, and those of [`credential_in`](Self::credential_in).
    pub fn credential() -> Result<Self, VaultError> {
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(VaultError::NoCredentials)?;
        Self::credential_in(Path::new(&folder))
    }

    /// The file `moat-kek` of a folder: 32 bytes, or 64 hexadecimal digits that may end with a line feed.
    ///
    /// # Errors
    /// [`VaultError::Io`] where it cannot be read, [`VaultError::Credential`] where it is no key.
    pub fn credential_in(folder: &Path) -> Result<Self, VaultError> {
        let path = folder.join(CREDENTIAL);
        let bytes = Zeroizing::new(fs::read(&path).map_err(VaultError::io("read the credential", &path))?);
        let mut secret = Secret::default();
        if let Ok(raw) = <&[u8; 32]>::try_from(bytes.as_slice()) {
            secret.copy_from_slice(raw);
        } else if !unhex(bytes.trim_ascii_end(), secret.as_mut_slice()) {
            return Err(VaultError::Credential { path });
        }
        Ok(Self(Source::Credential(secret)))
    }

    /// A passphrase, byte for byte as typed, without a line feed; a slot made for it has the default costs.
    #[must_use]
    pub fn passphrase(text: Zeroizing<String>) -> Self {
        Self::passphrase_with(text, PassphraseCosts::default())
    }

    /// A passphrase, with the costs of a slot that is made for it; opening uses those kept in the slot.
    #[must_use]
    pub fn passphrase_with(text: Zeroizing<String>, costs: PassphraseCosts) -> Self {
        Self(Source::Passphrase { text, costs })
    }

    /// A new random key in `of` shares, any `needed` of which give it back. The shares are all there ever is of it.
    ///
    /// # Errors
    /// [`ShareError::Counts`](crate::ShareError::Counts) unless 2 <= `needed` <= `of`; [`VaultError::Random`].
    pub fn split(needed: u8, of: u8) -> Result<(Self, Vec<Share>), VaultError> {
        let secret = random_secret()?;
        let shares = Share::split(&secret, needed, of)?;
        let kek = Self::from_shares(&shares)?;
        Ok((kek, shares))
    }

    /// The key that these shares were made of.
    ///
    /// # Errors
    /// [`VaultError::Share`] where they are too few, repeated, of different sets, or false.
    pub fn from_shares(shares: &[Share]) -> Result<Self, VaultError> {
        let secret = Share::combine(shares)?;
        let source = shares.first().map(|share| (share.set(), share.needed(), share.of()));
        let (set, needed, of) = source.ok_or(crate::ShareError::Disagree)?;
        Ok(Self(Source::Shares { secret, set, needed, of }))
    }

    /// What it is, in words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            Source::Credential(_) => "credential",
            Source::Passphrase { .. } => "passphrase",
            Source::Shares { .. } => "set of shares",
        }
    }

    /// What a new slot keeps in the open for this key, and the secret that the slot is sealed with.
    pub(crate) fn new_lock(&self) -> Result<(Lock, Secret), VaultError> {
        match &self.0 {
            Source::Credential(secret) => Ok((Lock::Credential {}, secret.clone())),
            Source::Passphrase { text, costs } => {
                if text.chars().count() < LEAST {
                    return Err(VaultError::WeakPassphrase(LEAST));
                }
                let mut salt = vec![0; 16];
                random(&mut salt)?;
                let secret = stretch(text, &salt, *costs)?;
                let PassphraseCosts { memory, passes, lanes } = *costs;
                Ok((Lock::Passphrase { salt: Hex(salt), memory, passes, lanes }, secret))
            }
            Source::Shares { secret, set, needed, of } => {
                Ok((Lock::Shares { set: set.clone(), needed: *needed, of: *of }, secret.clone()))
            }
        }
    }

    /// The secret that a slot is sealed with, where the slot is of this key's kind.
    pub(crate) fn secret_for(&self, lock: &Lock) -> Result<Option<Secret>, VaultError> {
        match (&self.0, lock) {
            (Source::Credential(secret), Lock::Credential {}) => Ok(Some(secret.clone())),
            (Source::Shares { secret, .. }, Lock::Shares { .. }) => Ok(Some(secret.clone())),
            (Source::Passphrase { text, .. }, &Lock::Passphrase { ref salt, memory, passes, lanes }) => {
                stretch(text, &salt.0, PassphraseCosts { memory, passes, lanes }).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kek({})", self.kind())
    }
}

/// Argon2id, version 0x13.
fn stretch(text: &str, salt: &[u8], costs: PassphraseCosts) -> Result<Secret, VaultError> {
    // The costs of a slot are read before anything proves them: a changed file must not exhaust the machine.
    if costs.memory > 4 << 20 || costs.passes > 64 || costs.lanes > 64 {
        return Err(VaultError::Costs);
    }
    let params =
        Params::new(costs.memory, costs.passes, costs.lanes, Some(32)).map_err(|_| VaultError::Costs)?;
    let mut secret = Secret::default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(text.as_bytes(), salt, secret.as_mut_slice())
        .map_err(|_| VaultError::Costs)?;
    Ok(secret)
}

/// Reads hexadecimal digits into a buffer of exactly their number.
pub(crate) fn unhex(digits: &[u8], into: &mut [u8]) -> bool {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    digits.len() == 2 * into.len()
        && into.iter_mut().zip(digits.chunks_exact(2)).all(|(byte, pair)| {
            let read = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low);
            *byte = read.unwrap_or_default();
            read.is_some()
        })
}
