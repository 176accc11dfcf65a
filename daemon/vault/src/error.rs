use std::io;
use std::path::{Path, PathBuf};

/// Why the vault could not do what was asked. Holds paths of the state folder, never names of objects, texts or keys.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The disk failed, is full, or refuses.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The reader or writer below a stream failed.
    #[error("a sealed stream cannot be read or written: {0}")]
    Stream(#[source] io::Error),
    /// The system's random generator failed.
    #[error("the system gave no random bytes: nothing was sealed, try again")]
    Random,
    /// ring refused an input that this crate should never have given it.
    #[error("the cipher refused its input: this is a fault of moat, nothing was sealed")]
    Cipher,
    /// A recipient's key with which everybody would agree on the same secret.
    #[error("nothing can be encrypted to this recipient's key: ask the recipient for a new one")]
    Recipient,
    /// Memory for keys could not be had.
    #[error("the system gave no memory for keys: {0}")]
    Memory(#[source] io::Error),
    /// A vault must not be made over another.
    #[error("there is already a vault in {0}: open it, or choose another folder")]
    Exists(PathBuf),
    /// No vault is there.
    #[error("there is no vault in {0}: create one first")]
    Missing(PathBuf),
    /// Another process, or another part of this one, holds the vault.
    #[error("the vault in {0} is held by another moatd: stop that one first")]
    InUse(PathBuf),
    /// The root keys were wiped from memory.
    #[error("the vault is sealed: open it with `moat vault unseal`")]
    Sealed,
    /// The key-encryption key is a wrong one, or the slot that it would open was changed on disk.
    #[error("no slot of this vault opens with this {0}: check it, or use another slot's key")]
    WrongKek(&'static str),
    /// No slot of this kind exists.
    #[error("this vault has no slot for a {0}: use one of the kinds that it has")]
    NoSlot(&'static str),
    /// The root file is not what was written.
    #[error("the root file {0} is damaged: restore it from a backup")]
    Damaged(PathBuf),
    /// The root file was changed by someone who holds no key of it.
    #[error("the root file {0} was changed by something other than moat: restore it from a backup")]
    Forged(PathBuf),
    /// The root file was written by a newer Moat.
    #[error("the root file has version {found}, this moat knows {known}: install the newer release again")]
    Newer {
        /// Version of the file.
        found: u32,
        /// Newest version that this build knows.
        known: u32,
    },
    /// Sealed bytes that do not open.
    #[error("sealed bytes do not open: they were cut or changed, or belong to another object or key")]
    Refused,
    /// Sealed bytes, or a wrapped key, of a format that this build does not know.
    #[error(
        "these bytes are not sealed in a format that this moat knows: they are foreign or from a newer release"
    )]
    Foreign,
    /// The root generation that wrapped a key is gone.
    #[error("the key was wrapped by root generation {generation}, which was forgotten: the object is erased")]
    Forgotten {
        /// That generation.
        generation: u32,
    },
    /// A rotation is under way.
    #[error("a rotation of the root key is under way: finish it before you begin another")]
    Rotating,
    /// Keys are still wrapped by the generation that should be forgotten.
    #[error(
        "keys are still wrapped by root generation {generation}: rewrap them before you finish the rotation"
    )]
    StillInUse {
        /// That generation.
        generation: u32,
    },
    /// No such slot.
    #[error("the vault has no slot {0}: list the slots to see those that it has")]
    UnknownSlot(u32),
    /// The last way in must stay.
    #[error("slot {0} is the only one: add another before you remove it")]
    LastSlot(u32),
    /// A value is too large to be sealed in one piece.
    #[error(
        "a value of {length} bytes is too large to seal in one piece, {most} are allowed: seal it as a stream"
    )]
    TooLarge {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        most: usize,
    },
    /// systemd handed over no usable credential.
    #[error("the credential {path} is no key: it must hold 32 bytes, or 64 hexadecimal digits")]
    Credential {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// systemd handed over no credentials at all.
    #[error(
        "CREDENTIALS_DIRECTORY is not set: load the credential moat-kek in the unit, or use another kind of key"
    )]
    NoCredentials,
    /// The passphrase is too short to protect anything.
    #[error("the passphrase is too short: use at least {0} characters")]
    WeakPassphrase(usize),
    /// Costs of a passphrase that Argon2 refuses, or that would exhaust the machine.
    #[error("the costs of this passphrase are out of bounds: at most 4 GiB, 64 passes and 64 lanes")]
    Costs,
    /// A share, or a set of them, is not right.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl VaultError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl From<VaultError> for io::Error {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Stream(source) => source,
            VaultError::Io { ref source, .. } => Self::new(source.kind(), error),
            VaultError::Refused | VaultError::Foreign => Self::new(io::ErrorKind::InvalidData, error),
            _ => Self::other(error),
        }
    }
}

/// What is wrong with a share as typed, or with a set of shares. Groups are counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Characters are missing, or too many.
    #[error("a share has {wanted} characters after MOAT1, this one has {found}: type it again")]
    Length {
        /// Characters found, blanks and dashes left out.
        found: usize,
        /// Characters that a share has.
        wanted: usize,
    },
    /// A character that no share has.
    #[error("group {0} of the share has a character that no share has: type it again")]
    Character(usize),
    /// A group's check fails.
    #[error("group {0} of the share is mistyped: type it again")]
    Mistyped(usize),
    /// All groups pass, the whole does not.
    #[error("the share is mistyped: type it again from the start")]
    Checksum,
    /// So few or so many shares cannot be made.
    #[error("{needed} of {of} shares cannot be made: at least 2 are needed, of at most 255")]
    Counts {
        /// Shares that would open.
        needed: u8,
        /// Shares in all.
        of: u8,
    },
    /// Not enough shares.
    #[error("{have} shares are too few: {needed} are needed")]
    TooFew {
        /// Shares given.
        have: usize,
        /// Shares needed.
        needed: usize,
    },
    /// The same share twice.
    #[error("share {0} was given twice: give another one")]
    Repeated(u8),
    /// Shares of different splits.
    #[error("the shares are of different sets: use those that were made together")]
    Mixed,
    /// The shares do not give the secret that was split.
    #[error("the shares do not fit together: one of them is false")]
    Disagree,
}
