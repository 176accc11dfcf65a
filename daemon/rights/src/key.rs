//! API keys: `moat_`, 32 random bytes and a checksum; kept only as SHA-256, with a scope and an end.

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::acts::{Act, Roles, Scope, may};
use crate::codec::{from_hex, hex};
use crate::{NoRandom, random, same};

const PREFIX: &str = "moat_";
const CHECK: usize = 4;

/// Why a key gives no right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no key of Moat's; perhaps a character is wrong or missing.
    #[error("this is not an API key of Moat's: a character is wrong or missing")]
    Malformed,
    /// It is another key.
    #[error("there is no such API key")]
    Unknown,
    /// Its time is over.
    #[error("the API key has expired")]
    Expired,
    /// It was revoked, or its owner's account is disabled.
    #[error("the API key was revoked, or its owner's account is disabled")]
    Revoked,
    /// It is not for this act.
    #[error("the API key's scope does not hold this act")]
    Scope,
    /// Its owner has not the right.
    #[error("the API key's owner may not do this")]
    Owner,
}

/// A new key, shown once to whoever made it.
pub struct ApiKey {
    /// The text of the key.
    pub text: Zeroizing<String>,
    /// What is kept of it.
    pub hash: [u8; 32],
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// SHA-256 of the key's text.
    pub hash: [u8; 32],
    /// The id of the account that it acts for.
    pub owner: String,
    /// What it is for.
    pub scope: Scope,
    /// From when on it is void, in seconds since 1970.
    pub expires: u64,
    /// Whether it was revoked.
    pub revoked: bool,
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn check(secret: &[u8; 32]) -> String {
    hex(&sha256(&[PREFIX.as_bytes(), secret].concat())[..CHECK])
}

impl ApiKey {
    /// A new key.
    ///
    /// # Errors
    /// [`NoRandom`] where the system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        let secret = Zeroizing::new(random::<32>()?);
        let text = Zeroizing::new(format!("{PREFIX}{}{}", *Zeroizing::new(hex(&*secret)), check(&secret)));
        let hash = sha256(text.as_bytes());
        Ok(Self { text, hash })
    }
}

/// The hash by which a presented key is found among those that are kept.
///
/// # Errors
/// [`KeyError::Malformed`] where the text cannot be a key.
pub fn find_by(presented: &str) -> Result<[u8; 32], KeyError> {
    let encoded = presented.strip_prefix(PREFIX).ok_or(KeyError::Malformed)?;
    let (secret, sum) = encoded.split_at_checked(64).ok_or(KeyError::Malformed)?;
    let secret = Zeroizing::new(from_hex::<32>(secret).ok_or(KeyError::Malformed)?);
    if !same(check(&secret).as_bytes(), sum.as_bytes()) {
        return Err(KeyError::Malformed);
    }
    Ok(sha256(presented.as_bytes()))
}

impl KeyRecord {
    /// Whether a presented key, in this record's name, may do an act at `now`, in seconds since 1970. `owner` is what the
    /// owner's account may do at this moment, `None` while it is disabled: a key never outlives its owner's rights.
    ///
    /// # Errors
    /// [`KeyError`]: why not.
    pub fn allow(&self, presented: &str, act: Act, now: u64, owner: Option<Roles>) -> Result<(), KeyError> {
        if !same(&find_by(presented)?, &self.hash) {
            return Err(KeyError::Unknown);
        }
        let roles = owner.filter(|_| !self.revoked).ok_or(KeyError::Revoked)?;
        if now >= self.expires {
            return Err(KeyError::Expired);
        }
        if !self.scope.has(act) {
            return Err(KeyError::Scope);
        }
        if may(roles, act) { Ok(()) } else { Err(KeyError::Owner) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::acts::Role;

    fn record(key: &ApiKey, acts: &[Act]) -> KeyRecord {
        KeyRecord {
            hash: key.hash,
            owner: "ben".into(),
            scope: Scope::of(acts),
            expires: 1000,
            revoked: false,
        }
    }

    #[test]
    fn a_key_is_random_and_reads_back() {
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        assert!(*key.text != *other.text && key.text.starts_with("moat_") && key.text.len() == 77);
        assert_eq!(find_by(&key.text).unwrap(), key.hash);
        for at in 0..key.text.len() {
            for bit in 0..7 {
                let mut bytes = key.text.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert_eq!(find_by(&changed), Err(KeyError::Malformed), "byte {at}");
            }
        }
        for wrong in
            ["", "moat_", &key.text[..76], &format!("{}0", *key.text), &key.text.to_uppercase(), "moat_ä"]
        {
            assert_eq!(find_by(wrong), Err(KeyError::Malformed));
        }
    }

    #[test]
    fn a_key_gives_what_its_scope_and_its_owner_share_until_it_ends() {
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let engineer = Some(Roles::of(&[Role::Engineer]));
        let own = record(&key, &[Act::RunStart, Act::RecordRead]);
        assert_eq!(own.allow(&key.text, Act::RunStart, 999, engineer), Ok(()));
        assert_eq!(own.allow(&key.text, Act::RunStart, 1000, engineer), Err(KeyError::Expired));
        assert_eq!(own.allow(&other.text, Act::RunStart, 999, engineer), Err(KeyError::Unknown));
        assert_eq!(own.allow(&key.text, Act::RunStop, 999, engineer), Err(KeyError::Scope));
        assert_eq!(own.allow(&key.text, Act::RecordRead, 999, engineer), Err(KeyError::Owner));
        assert_eq!(own.allow(&key.text, Act::RunStart, 999, Some(Roles::NONE)), Err(KeyError::Owner));
        assert_eq!(own.allow(&key.text, Act::RunStart, 999, None), Err(KeyError::Revoked));
        let revoked = KeyRecord { revoked: true, ..own };
        assert_eq!(revoked.allow(&key.text, Act::RunStart, 999, engineer), Err(KeyError::Revoked));
    }
}
