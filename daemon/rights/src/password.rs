//! Passwords: Argon2id with RFC 9106's second recommended cost (64 MiB, three passes), kept as PHC strings.

use argon2::password_hash::{Error as HashError, PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::random;

/// The fewest characters of a password.
pub const MIN_LENGTH: usize = 12;
const MAX_BYTES: usize = 1024;
/// The fewest different characters.
const MIN_DIFFERENT: usize = 5;
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// The most that a stored hash may ask for, so that a forged one cannot exhaust the machine.
const MOST_MEMORY_KIB: u32 = 256 << 10;
const MOST_PASSES: u32 = 16;
/// A hash of a password that nobody knows, which stands in where there is no account.
const NOBODY: &[u8] = b"moat: there is no such account";

/// Why a password was not taken, or could not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is too short.
    #[error("a password needs at least {MIN_LENGTH} characters")]
    Short,
    /// It is too long.
    #[error("a password has at most {MAX_BYTES} bytes")]
    Long,
    /// It is made of very few characters.
    #[error("a password needs at least {MIN_DIFFERENT} different characters")]
    Plain,
    /// It holds the account's name.
    #[error("a password may not hold the name of its account")]
    Name,
    /// The stored hash is none that this crate made.
    #[error("the account's stored password hash cannot be read: reset its password")]
    Stored,
    /// The hash could not be computed.
    #[error("the password could not be hashed: the system lacks memory or random bytes")]
    Failed,
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes a new password of the account `name` to a PHC string.
///
/// # Errors
/// [`PasswordError`] where the password is too weak, or the system lacks random bytes.
pub fn hash_password(name: &str, password: &str) -> Result<String, PasswordError> {
    let mut different: Vec<_> = password.chars().collect();
    if different.len() < MIN_LENGTH {
        return Err(PasswordError::Short);
    }
    if password.len() > MAX_BYTES {
        return Err(PasswordError::Long);
    }
    different.sort_unstable();
    different.dedup();
    let plain = different.len() < MIN_DIFFERENT;
    zeroize::Zeroize::zeroize(&mut different);
    if plain {
        return Err(PasswordError::Plain);
    }
    if !name.is_empty() && zeroize::Zeroizing::new(password.to_lowercase()).contains(&name.to_lowercase()) {
        return Err(PasswordError::Name);
    }
    let salt = random::<16>().map_err(|_| PasswordError::Failed)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| PasswordError::Failed)?;
    let hash = hasher()?.hash_password(password.as_bytes(), &salt).map_err(|_| PasswordError::Failed)?;
    Ok(hash.to_string())
}

/// The costs of a stored hash, if it is one that may be computed at all.
fn costs<'a>(stored: &'a str) -> Result<(PasswordHash<'a>, Params), PasswordError> {
    let hash = PasswordHash::new(stored).map_err(|_| PasswordError::Stored)?;
    let params = Params::try_from(&hash).map_err(|_| PasswordError::Stored)?;
    let known = hash.algorithm == Algorithm::Argon2id.ident() && hash.hash.is_some();
    if !known || params.m_cost() > MOST_MEMORY_KIB || params.t_cost() > MOST_PASSES {
        return Err(PasswordError::Stored);
    }
    Ok((hash, params))
}

/// Whether a password is the one of a stored PHC string. Takes its time, and the same for right and wrong.
///
/// # Errors
/// [`PasswordError::Stored`] where the stored text is no hash of this crate, [`PasswordError::Long`] for a password that
/// could never have been set, [`PasswordError::Failed`] where memory is lacking.
pub fn verify_password(stored: &str, password: &str) -> Result<bool, PasswordError> {
    if password.len() > MAX_BYTES {
        return Err(PasswordError::Long);
    }
    let (hash, _) = costs(stored)?;
    match hasher()?.verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(HashError::Password) => Ok(false),
        Err(_) => Err(PasswordError::Failed),
    }
}

/// Takes as long as [`verify_password`], where there is no account of the name that was given.
///
/// # Errors
/// [`PasswordError::Failed`] where memory is lacking.
pub fn verify_nobody(password: &str) -> Result<bool, PasswordError> {
    let mut hash = [0; 32];
    let bytes = &password.as_bytes()[..password.len().min(MAX_BYTES)];
    hasher()?.hash_password_into(bytes, NOBODY, &mut hash).map_err(|_| PasswordError::Failed)?;
    zeroize::Zeroize::zeroize(&mut hash);
    Ok(false)
}

/// Whether a stored hash was made at other costs than today's: hash the password anew at the next login.
#[must_use]
pub fn is_outdated(stored: &str) -> bool {
    costs(stored).map_or(true, |(_, params)| {
        (params.m_cost(), params.t_cost(), params.p_cost()) != (MEMORY_KIB, PASSES, LANES)
    })
}
