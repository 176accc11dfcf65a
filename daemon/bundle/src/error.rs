//! Why a bundle is refused, or could not be made or installed.

use std::io;
use std::path::{Path, PathBuf};

use moat_contracts::Digest;

use crate::manifest::Version;

/// Why a bundle, or what belongs to one, is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file or folder could not be read or written.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// The deed that failed, such as `read`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The medium failed while the bundle was read.
    #[error("the bundle cannot be read: {0}; copy it again")]
    Medium(io::Error),
    /// The bundle ends too early.
    #[error("the bundle ends within {within}: it was cut off; copy it again")]
    Cut {
        /// The member, or the end mark.
        within: String,
    },
    /// Bytes are not those that were written.
    #[error("{what} in the bundle is damaged: copy it again")]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// A file has other bytes than its manifest says.
    #[error("{path} in the bundle has another SHA-256 than its manifest says: do not use this bundle")]
    Digest {
        /// The file.
        path: String,
    },
    /// A file has another size than its manifest says.
    #[error(
        "{path} in the bundle has {found} bytes and its manifest says {expected}: do not use this bundle"
    )]
    Size {
        /// The file.
        path: String,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes by the header.
        found: u64,
    },
    /// A member is a link, a folder, a device or the like.
    #[error("{path} in the bundle is no regular file: do not use this bundle")]
    NoFile {
        /// The member.
        path: String,
    },
    /// A member stands where another one belongs.
    #[error("the bundle holds {found} where {expected} belongs: do not use this bundle")]
    Unexpected {
        /// What is there.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// The bundle ends before a file that its manifest names.
    #[error("{path} is missing in the bundle: do not use this bundle")]
    Missing {
        /// The file.
        path: String,
    },
    /// Something follows the last file.
    #[error("the bundle holds more than its manifest says: do not use this bundle")]
    Trailing,
    /// One of the two small members in front is larger than any could be.
    #[error("{path} in the bundle is too large to be one: do not use this bundle")]
    TooLarge {
        /// The member.
        path: &'static str,
    },
    /// A path that leads out of its folder, or is written as no path in a bundle is.
    #[error("`{path}` may not be a path in a bundle: {why}")]
    Path {
        /// The path.
        path: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A document is not what its place asks for.
    #[error("{what} is not well-formed: {why}")]
    Form {
        /// The document.
        what: String,
        /// The rule that it breaks.
        why: String,
    },
    /// A format that this release does not know.
    #[error(
        "{what} has format {found}, and this release of moat knows format {known}: install a newer release by hand"
    )]
    Format {
        /// The document.
        what: String,
        /// Its format.
        found: u64,
        /// Ours.
        known: u32,
    },
    /// Another product's.
    #[error("{what} is of the product `{found}`, not of moat")]
    Product {
        /// The document.
        what: String,
        /// The product that it names.
        found: String,
    },
    /// Too few people signed.
    #[error(
        "{what} is signed by {signed} of the {threshold} release keys that it takes: have it signed by more"
    )]
    TooFew {
        /// What is signed.
        what: String,
        /// Different keys that signed.
        signed: usize,
        /// Keys that it takes.
        threshold: usize,
    },
    /// A key signed twice, or signatures are out of order.
    #[error("{what} bears the signatures of its keys twice or out of order: a key counts once")]
    Twice {
        /// What is signed.
        what: String,
    },
    /// A signature by a key that is no release key.
    #[error("{what} is signed with key {key}, which is no release key here: it comes from somebody else", key = .key.short())]
    Foreign {
        /// What is signed.
        what: String,
        /// The key's id.
        key: Digest,
    },
    /// A signature that its key did not make over these bytes.
    #[error("the signature of key {key} is not over this: {what} is not what was signed", key = .key.short())]
    Signature {
        /// What is said to be signed.
        what: String,
        /// The key's id.
        key: Digest,
    },
    /// A chain of release keys does not go through the ones that are trusted here.
    #[error(
        "the release keys in the bundle are others than those trusted here (version {version}): it comes from somebody else"
    )]
    Fork {
        /// The version at which they part.
        version: u64,
    },
    /// A chain of release keys ends before the ones that are trusted here, or before what the manifest names.
    #[error(
        "the bundle is signed under release keys {found}, and {expected} are in force here: take a newer bundle"
    )]
    OldKeys {
        /// The bundle's version of the keys.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// The release keys themselves are past their date.
    #[error("release keys {version} expired {at}: take a bundle that carries newer ones", at = time(*.expires))]
    KeysExpired {
        /// Their version.
        version: u64,
        /// When, in Unix seconds.
        expires: i64,
    },
    /// Nobody is trusted yet.
    #[error("there are no release keys at {path}, so no bundle can be verified: put the site's release-keys.json there", path = .0.display())]
    NoKeys(PathBuf),
    /// The bundle is past its date, by the clock or by the latest time that was seen.
    #[error("the bundle expired {at}, and {seen} has been seen here: take a newer one", at = time(*.expires), seen = time(*.seen))]
    Expired {
        /// When, in Unix seconds.
        expires: i64,
        /// The latest time seen.
        seen: i64,
    },
    /// An older release than the one installed.
    #[error(
        "the bundle is release {number}, and release {installed} was installed here before: moat does not go back"
    )]
    Rollback {
        /// The bundle's.
        number: u64,
        /// Installed.
        installed: u64,
    },
    /// A newer number, but an older version.
    #[error("the bundle holds moat {version}, and {installed} is here: moat does not go back")]
    Older {
        /// The bundle's.
        version: Version,
        /// Installed, or this program's own.
        installed: Version,
    },
    /// Two different bundles say that they are the same release.
    #[error(
        "another bundle was installed as release {number} before: one of the two is not what its signers think"
    )]
    Equivocation {
        /// The release.
        number: u64,
    },
    /// For other machines.
    #[error("the bundle is for {theirs}, and this machine is {ours}")]
    Architecture {
        /// This machine's.
        ours: String,
        /// The bundle's.
        theirs: String,
    },
    /// No package that this machine's package manager takes.
    #[error("the bundle has no {name}, which is what this machine installs")]
    NoPackage {
        /// The file that is missing.
        name: String,
    },
    /// The package holds something else than its name says.
    #[error("the package {path} is {found}, and the manifest says {expected}: do not use this bundle", path = .path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// What it says of itself.
        found: String,
        /// What its name says.
        expected: String,
    },
    /// The package manager failed.
    #[error(
        "{program} did not install the package: {words}; put right what it says, and install the bundle again"
    )]
    Packager {
        /// The program.
        program: &'static str,
        /// What it said last.
        words: String,
    },
    /// The record of what is installed cannot be right.
    #[error("{path} is damaged: {why}; compare it with a backup before you install anything", path = .path.display())]
    State {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another installation goes on.
    #[error("another bundle is being installed here: wait until it is done")]
    Busy,
    /// Others than root could change what is staged, or is a link.
    #[error("{path} is not a folder that only root may write: make it one first", path = .0.display())]
    Open(PathBuf),
    /// Not enough room.
    #[error("{path} has {free} bytes of room, and the bundle needs {needed}: make room first", path = .path.display())]
    Room {
        /// Where it is needed.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// What was to be packed does not make a bundle.
    #[error("{path} cannot be packed: {why}", path = .path.display())]
    Pack {
        /// The file or folder.
        path: PathBuf,
        /// The rule that it breaks.
        why: String,
    },
    /// A file is no key.
    #[error("{path} is no Ed25519 {half} key in PEM: `moat bundle key create` makes a pair", path = .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// `private` or `public`.
        half: &'static str,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a key")]
    Random,
}

impl BundleError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn form(what: &str, why: impl Into<String>) -> Self {
        Self::Form { what: what.to_owned(), why: why.into() }
    }
}

/// Unix seconds as a day and a time in UTC.
fn time(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}
