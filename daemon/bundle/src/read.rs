//! A bundle from its first byte to its last, once and in order.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use moat_contracts::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use crate::keys::{Signature, SignedKeys, newest};
use crate::manifest::{Manifest, Member};
use crate::{BundleError, FORMAT, MANIFEST, Progress, SIGNATURES, codec, tar};

/// Largest manifest: some 20,000 files.
const MOST_MANIFEST: u64 = 4 << 20;
/// Largest `signatures.json`: some hundred generations of release keys.
const MOST_SIGNATURES: u64 = 1 << 20;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// `signatures.json`: who signed the manifest, and how the release keys came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// The format of the bundle.
    pub format: u32,
    /// All release keys from version 1 to those that sign the manifest.
    pub keys: Vec<SignedKeys>,
    /// Over the manifest, by key, ascending.
    pub signatures: Vec<Signature>,
}

impl Signatures {
    pub(crate) fn new(keys: Vec<SignedKeys>) -> Self {
        Self { format: FORMAT, keys, signatures: Vec::new() }
    }

    fn read(text: &[u8]) -> Result<Self, BundleError> {
        codec::head(SIGNATURES, text)?;
        codec::read(SIGNATURES, text)
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>, BundleError> {
        codec::write(SIGNATURES, self)
    }
}

/// What a bundle's signatures vouch for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What it holds.
    pub manifest: Manifest,
    /// The SHA-256 of `manifest.json`, which names this very bundle.
    pub digest: Digest,
    /// The keys that signed it.
    pub signers: Vec<Digest>,
    /// The newest release keys, by which it is signed.
    pub keys: SignedKeys,
}

/// A file of a bundle as it comes.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// The file begins.
    Begin,
    /// Its next bytes, which nothing vouches for yet.
    Bytes(&'a [u8]),
    /// All its bytes came, and they are those that the manifest names.
    End,
}

/// A bundle of which the two documents in front were read.
pub struct Bundle<R> {
    input: R,
    manifest: Vec<u8>,
    signatures: Signatures,
}

impl Bundle<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`BundleError::Io`] where it cannot be opened, and those of [`Bundle::read`].
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        // Opening a pipe would wait for whoever writes it.
        let facts = std::fs::metadata(path).map_err(BundleError::io("open", path))?;
        if !facts.is_file() {
            return Err(BundleError::NoFile { path: path.display().to_string() });
        }
        let file = File::open(path).map_err(BundleError::io("open", path))?;
        Self::read(BufReader::with_capacity(PIECE, file))
    }
}

impl<R: Read> Bundle<R> {
    /// Reads manifest and signatures. Nothing of them is trusted yet.
    ///
    /// # Errors
    /// [`BundleError::Cut`], [`BundleError::Damaged`] and the like.
    pub fn read(mut input: R) -> Result<Self, BundleError> {
        let manifest = document(&mut input, MANIFEST, MOST_MANIFEST)?;
        let signatures = Signatures::read(&document(&mut input, SIGNATURES, MOST_SIGNATURES)?)?;
        Ok(Self { input, manifest, signatures })
    }

    /// The bytes of `manifest.json`, which are what is signed.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// The signatures, not judged.
    #[must_use]
    pub const fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    /// The manifest, whoever signed it.
    ///
    /// # Errors
    /// Those of [`Manifest::read`], and [`BundleError::OldKeys`] where the bundle carries other keys than it names.
    pub fn unsigned(&self) -> Result<Manifest, BundleError> {
        self.manifest_under(newest(&self.signatures.keys)?)
    }

    fn manifest_under(&self, newest: &SignedKeys) -> Result<Manifest, BundleError> {
        let manifest = Manifest::read(&self.manifest)?;
        let found = newest.signed.version;
        if manifest.keys != found {
            return Err(BundleError::OldKeys { found, expected: manifest.keys });
        }
        Ok(manifest)
    }

    /// Judges the release keys' history against the trusted ones, then the signatures; only then reads the manifest.
    ///
    /// # Errors
    /// [`BundleError::Fork`], [`BundleError::OldKeys`], [`BundleError::TooFew`], [`BundleError::Foreign`],
    /// [`BundleError::Signature`], and those of [`Manifest::read`].
    pub fn admit(&self, trusted: &SignedKeys) -> Result<Admitted, BundleError> {
        let history = &self.signatures.keys;
        let newest = newest(history)?;
        let version = trusted.signed.version;
        let ours = history.iter().find(|keys| keys.signed.version == version);
        match ours {
            Some(keys) if keys.signed == trusted.signed => {}
            Some(_) => return Err(BundleError::Fork { version }),
            None => return Err(BundleError::OldKeys { found: newest.signed.version, expected: version }),
        }
        let signers = newest.signed.signers(&self.manifest, &self.signatures.signatures)?;
        let manifest = self.manifest_under(newest)?;
        Ok(Admitted { manifest, digest: Digest::of(&self.manifest), signers, keys: newest.clone() })
    }

    /// Hands on every file of the manifest, and checks that there is nothing else. Whoever takes the pieces may go by
    /// none of them before this returned.
    ///
    /// # Errors
    /// Those of the bundle, such as [`BundleError::Digest`], and those of `take`.
    pub fn contents(
        mut self,
        manifest: &Manifest,
        take: &mut dyn FnMut(&Member, Piece<'_>) -> Result<(), BundleError>,
        progress: Progress<'_>,
    ) -> Result<(), BundleError> {
        let (mut done, of) = (0, manifest.bytes());
        let mut buffer = vec![0; PIECE];
        for file in &manifest.files {
            let mut header = [0; tar::BLOCK];
            fill(&mut self.input, &mut header, &file.path)?;
            tar::compare(&header, &file.path, file.bytes)?;
            take(file, Piece::Begin)?;
            let (mut left, mut hasher) = (file.bytes, Hasher::default());
            while left > 0 {
                let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                let bytes = &mut buffer[..length];
                fill(&mut self.input, bytes, &file.path)?;
                hasher.update(bytes);
                take(file, Piece::Bytes(bytes))?;
                left -= length as u64;
                done += length as u64;
                progress(done, of);
            }
            if hasher.finish() != file.sha256 {
                return Err(BundleError::Digest { path: file.path.clone() });
            }
            zeros(&mut self.input, tar::padding(file.bytes), &file.path)?;
            take(file, Piece::End)?;
        }
        let mut end = [0; 2 * tar::BLOCK];
        fill(&mut self.input, &mut end, "its end")?;
        if end.iter().any(|byte| *byte != 0) {
            return Err(BundleError::Trailing);
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(BundleError::Trailing),
            Err(error) => Err(BundleError::Medium(error)),
        }
    }
}

/// One of the two members in front, whose size only its header tells.
fn document(input: &mut impl Read, path: &'static str, most: u64) -> Result<Vec<u8>, BundleError> {
    let mut header = [0; tar::BLOCK];
    fill(input, &mut header, path)?;
    let bytes = tar::size(&header).unwrap_or(0);
    tar::compare(&header, path, bytes)?;
    if bytes > most {
        return Err(BundleError::TooLarge { path });
    }
    let mut text = vec![0; usize::try_from(bytes).map_err(|_| BundleError::TooLarge { path })?];
    fill(input, &mut text, path)?;
    zeros(input, tar::padding(bytes), path)?;
    Ok(text)
}

fn zeros(input: &mut impl Read, length: usize, within: &str) -> Result<(), BundleError> {
    let mut padding = [0; tar::BLOCK];
    let padding = &mut padding[..length];
    fill(input, padding, within)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(BundleError::Damaged { what: format!("what follows {within}") });
    }
    Ok(())
}

fn fill(input: &mut impl Read, bytes: &mut [u8], within: &str) -> Result<(), BundleError> {
    input.read_exact(bytes).map_err(|error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => BundleError::Cut { within: within.to_owned() },
        _ => BundleError::Medium(error),
    })
}
