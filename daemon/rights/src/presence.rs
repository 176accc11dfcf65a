//! Presence: the evidence that a person showed password and code just now. Only showing both makes one.

use std::time::Duration;

use crate::account::Account;
use crate::password::{PasswordError, verify_nobody, verify_password};
use crate::totp::Secret;

/// For how many seconds a presence lets its account approve.
pub const PRESENCE_LIFE: u64 = 300;

/// What is kept of an account to know its owner by.
pub struct Credentials<'a> {
    /// The PHC string of its password.
    pub password: &'a str,
    /// The secret of its codes.
    pub totp: &'a Secret,
    /// The step of the last code that was used.
    pub last_step: Option<u64>,
}

/// Why somebody is not taken to be who they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Name, password or code is wrong; which one is not told.
    #[error("name, password or code is wrong")]
    Wrong,
    /// The stored password hash could not be used.
    #[error(transparent)]
    Password(PasswordError),
}

/// A person showed an account's password and code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    account: String,
    at: u64,
    uid: Option<u32>,
}

impl Presence {
    /// Judges what somebody typed at `now`, in seconds since 1970. `account` is `None` where there is none of that name;
    /// it takes as long then. `uid` is the kernel's word for who is at the other end of a local socket, `None` for the
    /// web. Returns the presence and the code's step, which is to be kept before anything else is done.
    ///
    /// # Errors
    /// [`LoginError`]; a wrong password and a wrong code look the same, and a disabled account as well.
    pub fn prove(
        account: Option<(&Account, &Credentials<'_>)>,
        password: &str,
        code: &str,
        now: u64,
        uid: Option<u32>,
    ) -> Result<(Self, u64), LoginError> {
        let Some((account, credentials)) = account else {
            verify_nobody(password).map_err(LoginError::Password)?;
            return Err(LoginError::Wrong);
        };
        // Both are judged before either is told.
        let known = match verify_password(credentials.password, password) {
            Ok(known) => known,
            Err(PasswordError::Long) => false,
            Err(error) => return Err(LoginError::Password(error)),
        };
        match credentials.totp.verify(code, now, credentials.last_step) {
            Ok(step) if known && account.enabled => {
                Ok((Self { account: account.id.clone(), at: now, uid }, step))
            }
            _ => Err(LoginError::Wrong),
        }
    }

    /// The id of the account whose owner is present.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The user of the machine at whose command line this happened.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Whether this is still evidence at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        now.checked_sub(self.at).is_some_and(|age| age < PRESENCE_LIFE)
    }
}

/// How long an account must wait after so many failed tries in a row: nothing for four, then doubling up to an hour.
#[must_use]
pub fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(5) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(30 << over.min(7)).min(Duration::from_secs(3600)),
    }
}
