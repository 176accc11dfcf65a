//! Rights: who may do what, how a person shows to be that person, and the rule that some acts take two of them.
//!
//! Roles and acts are one table. A person shows a password (Argon2id) and a code (TOTP); a program shows an API key with
//! a scope and an end. An export, a change of policy and a change of roles need a [`Statement`] that two people signed;
//! [`Approval::check`] alone makes the [`Approved`] that such an act takes. This crate computes: it keeps nothing, does
//! no I/O but asking the system for random bytes, and never decides by a name that it was not given.

mod account;
mod acts;
mod approval;
mod codec;
mod key;
mod password;
mod presence;
mod statement;
mod totp;

pub use account::{Account, same_person};
pub use acts::{Act, Role, Roles, Row, Scope, TABLE, UnknownWord, may, table};
pub use approval::{Approval, Approved, MAX_LIFE, Refusal, Situation};
pub use codec::{from_hex, hex};
pub use key::{ApiKey, KeyError, KeyRecord, find_by};
pub use password::{MIN_LENGTH, PasswordError, hash_password, is_outdated, verify_nobody, verify_password};
pub use presence::{Credentials, LoginError, PRESENCE_LIFE, Presence, wait_after};
pub use statement::{Deed, Kind, Statement, StatementError, public_key};
pub use totp::{CODE_LENGTH, Secret, TotpError};

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes: try again")]
pub struct NoRandom;

/// Random bytes from the system, for ids and keys.
///
/// # Errors
/// [`NoRandom`] where it gives none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// Whether two texts or hashes are equal, in a time that does not tell where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differs = left.iter().zip(right).fold(0, |differs, (left, right)| differs | (left ^ right));
    left.len() == right.len() && std::hint::black_box(differs) == 0
}
