//! What `moat` and `moatd` say to each other about the vault, the ledger and the canaries.

use std::collections::BTreeMap;
use std::fmt;

use moat_contracts::Held;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Something that must not be printed, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
#[schemars(extend("format" = "password"))]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

/// What opens the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A passphrase.
    Passphrase(Secret),
    /// One share of several, as it was printed.
    Share(Secret),
}

/// A new way to open the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewSlot {
    /// The credential `moat-kek` that systemd hands to `moatd`.
    Credential,
    /// A passphrase.
    Passphrase(Secret),
    /// Shares for several people, some of whom open it together.
    Shares {
        /// How many open it.
        needed: u8,
        /// How many there are.
        of: u8,
    },
}

/// How the vault stands, as anyone may know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seal {
    /// True while nothing that is sealed can be opened.
    pub sealed: bool,
    /// False before a vault was made.
    pub made: bool,
    /// Shares given in a ceremony that is under way.
    pub shares_given: u64,
    /// Shares that this ceremony takes, as the first one that was given says.
    #[serde(default)]
    pub shares_needed: Option<u64>,
    /// Generation of the root key, while open.
    pub generation: Option<u32>,
    /// True while keys move to a new root.
    pub rotating: bool,
    /// Whether the machine keeps the root keys out of swap and dumps, while open.
    pub guarded: Option<bool>,
    /// The ways to open it.
    pub slots: Vec<Slot>,
}

/// One way to open the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// Its number.
    pub id: u32,
    /// What opens it, in words.
    pub kind: String,
}

/// Entries of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerPage {
    /// Entries in all.
    pub size: u64,
    /// What was found, newest first.
    pub entries: Vec<LedgerEntry>,
    /// Where to go on, if there is more.
    pub next: Option<u64>,
    /// The key that checkpoints are signed with, as `moat ledger verify` wants it.
    pub key: Option<String>,
}

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerEntry {
    /// Its place, from 0.
    pub index: u64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Who did it: name and role.
    pub who: String,
    /// The user id that the kernel reported.
    pub uid: Option<u32>,
    /// What was done, in dotted words.
    pub act: String,
    /// `intent`, `done`, `failed` or `refused`.
    pub phase: String,
    /// On what: kind and id.
    pub on: BTreeMap<String, String>,
    /// Facts.
    pub detail: BTreeMap<String, String>,
}

/// Ways out that canaries tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Canary {
    /// Each way: how often it was tried, and how often it was open.
    pub ways: BTreeMap<String, (u64, u64)>,
    /// What came of the last try of each way, in words.
    #[serde(default)]
    pub last: BTreeMap<String, String>,
    /// Seconds since 1970 at which a canary last flew.
    pub flown: Option<i64>,
}

/// What a process gave up before it touched data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confined {
    /// Seconds since 1970 at which it did.
    pub since: i64,
    /// Each protection: in force, or why not.
    pub protections: Vec<Held>,
}
