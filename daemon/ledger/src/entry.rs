//! What one line of the ledger says: who did what, on what, and how far it came.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::LedgerError;

/// The most bytes that an entry's JSON may have.
pub const MAX_ENTRY: usize = 4096;
const MAX_ACT: usize = 64;
const MAX_NAME: usize = 128;
const MAX_KEY: usize = 32;
const MAX_VALUE: usize = 512;
const MAX_PAIRS: usize = 32;

/// Who acts: a person at an account, a user of the machine's command line, or the daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The account's or the system user's name; `moatd` for the daemon.
    pub name: String,
    /// The role in which it acts, such as `steward`; `daemon` for the daemon.
    pub role: String,
    /// The user id that the kernel reported, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

impl Who {
    /// A person at an account of Moat's own.
    #[must_use]
    pub fn account(name: &str, role: &str) -> Self {
        Self { name: name.to_owned(), role: role.to_owned(), uid: None }
    }

    /// A user of the machine, known by the peer credentials of the socket.
    #[must_use]
    pub fn user(uid: u32, name: &str, role: &str) -> Self {
        Self { name: name.to_owned(), role: role.to_owned(), uid: Some(uid) }
    }

    /// The daemon, acting by itself.
    #[must_use]
    pub fn daemon() -> Self {
        Self::account("moatd", "daemon")
    }
}

/// How far an act came. An act that changes something is written as an intent before it takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is about to take effect.
    Intent,
    /// It took effect.
    Done,
    /// It was tried, and did not work.
    Failed,
    /// It was not allowed.
    Refused,
}

/// An act to be written: ids, hashes and names from the configuration only, never customers' text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    pub(crate) who: Who,
    pub(crate) act: String,
    pub(crate) phase: Phase,
    pub(crate) on: BTreeMap<String, String>,
    pub(crate) detail: BTreeMap<String, String>,
}

impl Act {
    /// An act named by dotted words, such as `run.start`.
    #[must_use]
    pub fn new(who: Who, act: &str, phase: Phase) -> Self {
        Self { who, act: act.to_owned(), phase, on: BTreeMap::new(), detail: BTreeMap::new() }
    }

    /// Names a thing that the act touches, by its kind (`run`, `model`) and its id or hash.
    #[must_use]
    pub fn on(mut self, kind: &str, id: impl ToString) -> Self {
        self.on.insert(kind.to_owned(), id.to_string());
        self
    }

    /// Adds a short fact, such as a size or a reason.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl ToString) -> Self {
        self.detail.insert(key.to_owned(), value.to_string());
        self
    }

    /// The same act at a later phase, naming the index of the entry that announced it.
    #[must_use]
    pub fn follow(&self, phase: Phase, intent: u64) -> Self {
        Self { phase, ..self.clone() }.detail("intent", intent)
    }

    /// The same act, not allowed.
    #[must_use]
    pub fn refused(&self) -> Self {
        Self { phase: Phase::Refused, ..self.clone() }
    }

    /// Refuses what breaks the rules for entries, whatever its index and time will be.
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        let refuse = |why| Err(LedgerError::Refused(why));
        let word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        let short = |text: &str, most| text.len() <= most && !text.chars().any(char::is_control);
        if self.act.len() > MAX_ACT || !self.act.contains('.') || !self.act.split('.').all(word) {
            return refuse("an act is dotted lowercase words of at most 64 bytes");
        }
        if self.who.name.is_empty() || !short(&self.who.name, MAX_NAME) || !word(&self.who.role) {
            return refuse("who acts needs a name of at most 128 bytes and a role of one word");
        }
        if self.who.role.len() > MAX_KEY || self.on.len().max(self.detail.len()) > MAX_PAIRS {
            return refuse("a role has at most 32 bytes, and an entry at most 32 things and 32 facts");
        }
        for (key, value) in self.on.iter().chain(&self.detail) {
            if key.len() > MAX_KEY || !word(key) || !short(value, MAX_VALUE) {
                return refuse(
                    "a key is a lowercase word of at most 32 bytes, a value one line of at most 512",
                );
            }
        }
        if self.encode(u64::MAX, u64::MAX).is_none_or(|json| json.len() > MAX_ENTRY) {
            return refuse("an entry has at most 4096 bytes");
        }
        Ok(())
    }

    /// The canonical JSON: these fields in this order, maps sorted, no white space. `None` only were JSON unable to say it.
    pub(crate) fn encode(&self, index: u64, time: u64) -> Option<Vec<u8>> {
        let Self { who, act, phase, on, detail } = self;
        serde_json::to_vec(&Fields { index, time, who, act, phase: *phase, on, detail }).ok()
    }
}

#[derive(Serialize)]
struct Fields<'a> {
    index: u64,
    time: u64,
    who: &'a Who,
    act: &'a str,
    phase: Phase,
    on: &'a BTreeMap<String, String>,
    detail: &'a BTreeMap<String, String>,
}

/// An act as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place in the log, counted from 0.
    pub index: u64,
    /// When it was written, in milliseconds since 1970.
    pub time: u64,
    /// Who acted.
    pub who: Who,
    /// What was done: dotted words, such as `export.approve`.
    pub act: String,
    /// How far it came.
    pub phase: Phase,
    /// What it touched: kind to id, hash or name.
    pub on: BTreeMap<String, String>,
    /// Short facts about it.
    pub detail: BTreeMap<String, String>,
}
