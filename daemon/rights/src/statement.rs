//! The statement that two people sign: what is to be done, said completely, in one canonical text.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::acts::Act;
use crate::codec::{from_hex, hex};
use crate::presence::Presence;
use crate::random;

const MAX_TEXT: usize = 512;
const VERSION: u32 = 1;
/// What stands before the text that is signed, so that asking and agreeing are never taken for each other.
const REQUEST: &str = "moat statement, requested\n";
const APPROVE: &str = "moat statement, approved\n";

/// What takes two people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Weights or data leave.
    Export,
    /// The site's policy changes.
    Policy,
    /// Somebody's roles change.
    Role,
    /// A source is added.
    Source,
}

impl Kind {
    /// The right to ask for it.
    #[must_use]
    pub fn request(self) -> Act {
        match self {
            Self::Export => Act::ExportRequest,
            Self::Policy => Act::PolicyRequest,
            Self::Role => Act::RoleRequest,
            Self::Source => Act::SourceChange,
        }
    }

    /// The right to agree to it.
    #[must_use]
    pub fn approve(self) -> Act {
        match self {
            Self::Export => Act::ExportApprove,
            Self::Policy => Act::PolicyApprove,
            Self::Role => Act::RoleApprove,
            Self::Source => Act::SourceApprove,
        }
    }
}

/// What is to be done, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// What kind of thing it is.
    pub kind: Kind,
    /// SHA-256 of what leaves, or of the new policy, or of the description of the roles' change, or of a source's definition.
    pub subject: [u8; 32],
    /// How many bytes that is.
    pub bytes: u64,
    /// Where it goes: a destination's name in the configuration, the policy's file, the account whose roles change,
    /// the path of a source.
    pub destination: String,
    /// The public key that an export is encrypted to.
    pub recipient: Option<String>,
}

/// A deed, who asks for it, and until when the answer counts. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What is to be done.
    pub deed: Deed,
    /// The id of the account that asks.
    pub requester: String,
    /// The user of the machine at whose command line it was asked for; `None` for the web.
    pub uid: Option<u32>,
    /// When it was asked for.
    pub created: u64,
    /// From when on it is void.
    pub expires: u64,
    /// Makes it unlike any other, so that it is used once.
    pub nonce: [u8; 16],
}

/// Why a statement cannot be made, read or signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// A name or destination is empty, too long or more than one line.
    #[error("a statement's names are single lines of 1 to {MAX_TEXT} bytes")]
    Text,
    /// The text is not a statement in its one canonical form.
    #[error("this is not a statement in its canonical form: it was changed")]
    Form,
    /// The requester did not show password and code just now.
    #[error("whoever asks has to show password and code again")]
    Absent,
    /// The signing key cannot be used.
    #[error("the account's signing key cannot be used: give the account a new one")]
    Key,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] crate::NoRandom),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    kind: Kind,
    subject: String,
    bytes: u64,
    destination: String,
    recipient: Option<String>,
    requester: String,
    uid: Option<u32>,
    created: u64,
    expires: u64,
    nonce: String,
}

fn is_line(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl Statement {
    /// Asks for a deed in the name of whoever is present, at `now`, good for `life` seconds.
    ///
    /// # Errors
    /// [`StatementError`] where the presence is stale, a name is no single line, or random bytes are lacking.
    pub fn new(deed: Deed, requester: &Presence, now: u64, life: u64) -> Result<Self, StatementError> {
        if !requester.is_fresh(now) {
            return Err(StatementError::Absent);
        }
        let statement = Self {
            deed,
            requester: requester.account().to_owned(),
            uid: requester.uid(),
            created: now,
            expires: now.saturating_add(life),
            nonce: random()?,
        };
        statement.check()?;
        Ok(statement)
    }

    fn check(&self) -> Result<(), StatementError> {
        let lines = [&self.deed.destination, &self.requester].into_iter().chain(&self.deed.recipient);
        if lines.into_iter().all(|line| is_line(line)) { Ok(()) } else { Err(StatementError::Text) }
    }

    /// The one canonical text: JSON with these fields in this order.
    ///
    /// # Errors
    /// [`StatementError::Text`] where a name is no single line.
    pub fn to_text(&self) -> Result<String, StatementError> {
        self.check()?;
        let Self { deed, requester, uid, created, expires, nonce } = self;
        let wire = Wire {
            version: VERSION,
            kind: deed.kind,
            subject: hex(&deed.subject),
            bytes: deed.bytes,
            destination: deed.destination.clone(),
            recipient: deed.recipient.clone(),
            requester: requester.clone(),
            uid: *uid,
            created: *created,
            expires: *expires,
            nonce: hex(nonce),
        };
        serde_json::to_string(&wire).map_err(|_| StatementError::Form)
    }

    /// Reads what [`Statement::to_text`] wrote, byte for byte, and nothing else.
    ///
    /// # Errors
    /// [`StatementError::Form`] for any other text.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let wire: Wire = serde_json::from_str(text).map_err(|_| StatementError::Form)?;
        let deed = Deed {
            kind: wire.kind,
            subject: from_hex(&wire.subject).ok_or(StatementError::Form)?,
            bytes: wire.bytes,
            destination: wire.destination,
            recipient: wire.recipient,
        };
        let statement = Self {
            deed,
            requester: wire.requester,
            uid: wire.uid,
            created: wire.created,
            expires: wire.expires,
            nonce: from_hex(&wire.nonce).ok_or(StatementError::Form)?,
        };
        // A second spelling of the same statement would have a second hash: there is none.
        if wire.version != VERSION || statement.to_text()? != text {
            return Err(StatementError::Form);
        }
        Ok(statement)
    }

    /// The requester's signature.
    ///
    /// # Errors
    /// [`StatementError`] where the seed makes no key, or the statement has no text.
    pub fn sign_request(&self, seed: &[u8; 32]) -> Result<[u8; 64], StatementError> {
        sign(seed, REQUEST, &self.to_text()?)
    }

    /// The approver's signature.
    ///
    /// # Errors
    /// As [`Statement::sign_request`].
    pub fn sign_approval(&self, seed: &[u8; 32]) -> Result<[u8; 64], StatementError> {
        sign(seed, APPROVE, &self.to_text()?)
    }
}

fn pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, StatementError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| StatementError::Key)
}

fn sign(seed: &[u8; 32], prefix: &str, text: &str) -> Result<[u8; 64], StatementError> {
    let signature = pair(seed)?.sign([prefix, text].concat().as_bytes());
    signature.as_ref().try_into().map_err(|_| StatementError::Key)
}

/// The public half of an account's signing key, of which the caller keeps the seed sealed.
///
/// # Errors
/// [`StatementError::Key`] where the seed makes no key.
pub fn public_key(seed: &[u8; 32]) -> Result<[u8; 32], StatementError> {
    pair(seed)?.public_key().as_ref().try_into().map_err(|_| StatementError::Key)
}

pub(crate) fn is_requested(text: &str, key: &[u8; 32], signature: &[u8; 64]) -> bool {
    is_signed(REQUEST, text, key, signature)
}

pub(crate) fn is_approved(text: &str, key: &[u8; 32], signature: &[u8; 64]) -> bool {
    is_signed(APPROVE, text, key, signature)
}

fn is_signed(prefix: &str, text: &str, key: &[u8; 32], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify([prefix, text].concat().as_bytes(), signature).is_ok()
}
