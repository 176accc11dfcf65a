//! What `moat` and `moatd` say to each other about accounts, API keys, and what takes two people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boundary::Secret;
use crate::source::AskedSource;

/// What a person shows besides being the caller: both are needed to ask for, and to agree to, what takes two people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The account's name; the caller's own account where absent.
    pub name: Option<String>,
    /// Its password.
    pub password: Secret,
    /// The code that its owner's device shows now.
    pub code: Secret,
}

/// An account that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// By which people call it.
    pub name: String,
    /// The user of the machine that is the same person.
    pub uid: Option<u32>,
    /// Its roles; only when the site is set up.
    pub roles: Vec<String>,
    /// Its first password.
    pub password: Secret,
}

/// A made account's secret, shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadeAccount {
    /// Its name.
    pub name: String,
    /// The secret of its codes as a URI for an authenticator app (otpauth).
    pub uri: Secret,
}

/// What lets people make the first accounts in their browsers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invitation {
    /// To be typed at the admin port; shown this once.
    pub code: Secret,
    /// Seconds since 1970 from which on it is void.
    pub until: i64,
}

/// How far the first accounts have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enlisted {
    /// Who took the invitation up.
    pub guests: Vec<Guest>,
    /// What keeps the accounts from being made; nothing where they are made.
    pub missing: Option<String>,
}

/// Somebody who took an invitation up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Guest {
    /// The account's name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whether its device showed the right code.
    pub ready: bool,
}

/// An account as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Never given again.
    pub id: String,
    /// The user of the machine that is the same person.
    pub uid: Option<u32>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whether it may do anything.
    pub enabled: bool,
    /// Seconds since 1970 at which it was made.
    pub created: i64,
    /// Seconds since 1970 since which it has its roles.
    pub roles_since: i64,
}

/// An API key as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKey {
    /// The beginning of its hash.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// The account that it acts for.
    pub owner: String,
    /// The acts that it is for.
    pub scope: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970 from which on it is void.
    pub expires: i64,
    /// Seconds since 1970 since which it is revoked.
    pub revoked: Option<i64>,
    /// Bytes of completions that it was served today (UTC).
    pub served: u64,
    /// Bytes of completions that it may be served a day; none where it may not ask.
    pub cap: Option<u64>,
}

/// Something that takes two people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Statement {
    /// Names it.
    pub id: String,
    /// `export`, `policy`, `role` or `source`.
    pub kind: String,
    /// What it is, for people.
    pub what: String,
    /// SHA-256 of what it is about.
    pub hash: String,
    /// Bytes of that.
    pub bytes: u64,
    /// Where it goes: a folder, an account, the policy; of a source its path.
    pub destination: String,
    /// The public key that an export is encrypted to.
    pub recipient: Option<String>,
    /// Who asks.
    pub requester: String,
    /// Who agreed.
    pub approver: Option<String>,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970 from which on it is void.
    pub expires: i64,
    /// `waiting`, `expired`, `agreed`, `done`, `failed` or `withdrawn`.
    pub state: String,
    /// Why it failed.
    pub message: Option<String>,
    /// What both sign, byte for byte.
    pub text: String,
    /// The source that is asked for, whole.
    #[serde(default)]
    pub source: Option<Box<AskedSource>>,
}
