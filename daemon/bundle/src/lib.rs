//! Bundles: one signed file with packages, bases, licences and SBOM, by which a site without a network gets a new Moat.
//!
//! A bundle is a plain tar: `manifest.json`, `signatures.json`, then exactly the files that the manifest names, in its
//! order. Every byte of it follows from the two documents and the files' contents, so whatever differs by a bit is
//! refused. The manifest takes the signatures of a threshold of release keys; a bundle carries the whole history of
//! those keys, which must go through the ones that this machine trusts. An older release, an expired one, another one
//! of the same number, or one for other machines is refused. The crate never goes by bytes that it checked at another
//! time: it hashes while it stages. It never installs anything of a bundle before the whole of it was verified, never
//! opens a connection, and asks no clock: whoever calls says what time it is.

mod codec;
mod disk;
mod error;
mod install;
mod keys;
mod manifest;
mod pack;
mod packager;
mod read;
mod standing;
mod tar;

#[cfg(test)]
extern crate self as moat_bundle;
#[cfg(test)]
mod tests;

pub use error::BundleError;
pub use install::{Installation, Places, install, remember, trusted};
pub use keys::{Key, PublicKey, ReleaseKeys, Signature, SignedKeys, SigningKey, newest};
pub use manifest::{Manifest, Member, Packaging, Version, What, sbom};
pub use pack::{Mark, Release, add_signature, pack};
pub use packager::Packager;
pub use read::{Admitted, Bundle, Piece, Signatures};
pub use standing::{Installed, Machine, Record, Standing};

/// The format of bundles and of every document in them that this release knows.
pub const FORMAT: u32 = 1;
/// What every document names.
pub const PRODUCT: &str = "moat";
/// The first member of a bundle.
pub const MANIFEST: &str = "manifest.json";
/// The second member of a bundle.
pub const SIGNATURES: &str = "signatures.json";

/// Told how many of how many bytes are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
