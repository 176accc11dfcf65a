//! An account, as far as rights are concerned, and when two of them are one person.

use crate::acts::Roles;

/// What the catalog knows of an account. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id, which never changes and is never given again.
    pub id: String,
    /// The user of the machine that is the same person, where there is one.
    pub uid: Option<u32>,
    /// Its roles.
    pub roles: Roles,
    /// The public half of its signing key.
    pub key: [u8; 32],
    /// Whether it may do anything at all.
    pub enabled: bool,
    /// The account that made it; empty for those made when the site was set up.
    pub created_by: String,
    /// The account that last gave it credentials: by a reset, or when it was made. A reset replaces password, code and
    /// signing key. That its owner chose a new password since changes nothing here: so could whoever did the reset.
    pub credentials_by: String,
    /// The accounts that asked for and agreed to its newest role; empty when the site was set up.
    pub roles_by: Vec<String>,
    /// Since when it has had its newest role.
    pub roles_since: u64,
}

/// Whether two accounts belong to one person, as far as can be known: one id, one user of the machine, or one key.
#[must_use]
pub fn same_person(left: &Account, right: &Account) -> bool {
    left.id == right.id || left.uid.is_some() && left.uid == right.uid || left.key == right.key
}

impl Account {
    /// Whether `other` had a hand in this account's being able to approve.
    pub(crate) fn owes(&self, other: &str) -> bool {
        self.created_by == other || self.credentials_by == other || self.roles_by.iter().any(|by| by == other)
    }
}
