//! Making a bundle of a folder, and adding signatures to it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use moat_contracts::{Digest, Hasher};

use crate::disk;
use crate::keys::{Signature, SignedKeys, SigningKey, newest, put};
use crate::manifest::{Manifest, Member, Version, What, check_path};
use crate::read::{Bundle, Piece, Signatures};
use crate::{BundleError, MANIFEST, Progress, SIGNATURES, tar};

/// What a bundle says of itself beyond its files.
#[derive(Debug, Clone)]
pub struct Release {
    /// The version of its packages.
    pub version: Version,
    /// Its number, larger than every earlier release's.
    pub number: u64,
    /// When it is made, in Unix seconds.
    pub made: i64,
    /// When it expires, in Unix seconds.
    pub expires: i64,
    /// All release keys from version 1 to those that will sign it.
    pub keys: Vec<SignedKeys>,
}

/// Packs a folder that holds `packages/`, `bases/`, `licences/` and the SBOM, and nothing else, into a new file that
/// nobody signed yet. The same folder and release give the same bytes.
///
/// # Errors
/// [`BundleError::Pack`] for what cannot be in a bundle, [`BundleError::Io`], and those of [`Manifest::new`].
pub fn pack(
    folder: &Path,
    release: Release,
    to: &Path,
    progress: Progress<'_>,
) -> Result<Manifest, BundleError> {
    if to.symlink_metadata().is_ok() {
        return Err(BundleError::Pack { path: to.to_owned(), why: "it is there already".to_owned() });
    }
    let keys = newest(&release.keys)?.signed.version;
    let mut files = Vec::new();
    find(folder, "", release.version, &mut files)?;
    let times = (release.made, release.expires);
    let manifest = Manifest::new(release.version, release.number, times, keys, files)?;
    let signatures = Signatures::new(release.keys);
    write_whole(to, &manifest.write()?, &signatures, &mut |output| {
        let (mut done, of) = (0, manifest.bytes());
        for file in &manifest.files {
            output.put(&tar::header(&file.path, file.bytes))?;
            let mut count = |bytes: u64| progress(done + bytes, of);
            let from = folder.join(&file.path);
            let found = copy(&from, &mut |bytes| output.put(bytes), &mut count)?;
            if found != (file.bytes, file.sha256) {
                let why = "it changed while it was packed".to_owned();
                return Err(BundleError::Pack { path: from, why });
            }
            output.pad(file.bytes)?;
            done += file.bytes;
        }
        Ok(())
    })?;
    Ok(manifest)
}

/// Every file below a folder, hashed.
fn find(folder: &Path, prefix: &str, version: Version, found: &mut Vec<Member>) -> Result<(), BundleError> {
    for entry in fs::read_dir(folder).map_err(BundleError::io("list", folder))? {
        let entry = entry.map_err(BundleError::io("list", folder))?;
        let refuse = |why: String| Err(BundleError::Pack { path: entry.path(), why });
        let kind = entry.file_type().map_err(BundleError::io("look at", &entry.path()))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            return refuse("its name is no UTF-8".to_owned());
        };
        let path = format!("{prefix}{name}");
        check_path(&path)?;
        if kind.is_dir() {
            find(&entry.path(), &format!("{path}/"), version, found)?;
        } else if !kind.is_file() {
            return refuse("it is no regular file".to_owned());
        } else if let Some(what) = What::of(&path, version) {
            let (bytes, sha256) = copy(&entry.path(), &mut |_| Ok(()), &mut |_| {})?;
            found.push(Member { path, what, bytes, sha256 });
        } else {
            let places = "packages/FILE, bases/NAME/FILE, licences/FILE";
            return refuse(format!("a bundle of {version} holds {places} and {}", crate::sbom(version)));
        }
    }
    Ok(())
}

/// Reads a file in pieces: its size and SHA-256.
fn copy(
    from: &Path,
    take: &mut dyn FnMut(&[u8]) -> Result<(), BundleError>,
    count: &mut dyn FnMut(u64),
) -> Result<(u64, Digest), BundleError> {
    let mut file = File::open(from).map_err(BundleError::io("open", from))?;
    let (mut buffer, mut hasher, mut bytes) = (vec![0; 1 << 20], Hasher::default(), 0);
    loop {
        let length = file.read(&mut buffer).map_err(BundleError::io("read", from))?;
        if length == 0 {
            return Ok((bytes, hasher.finish()));
        }
        hasher.update(&buffer[..length]);
        take(&buffer[..length])?;
        bytes += length as u64;
        count(bytes);
    }
}

/// By what a bundle is signed.
pub enum Mark<'a> {
    /// A key that is at hand.
    Key(&'a SigningKey),
    /// A signature that was made elsewhere over the same manifest.
    Made(Signature),
}

/// Verifies every file of a bundle, and writes it anew with one more signature, or with a key's newer one. Returns the
/// key's id.
///
/// # Errors
/// [`BundleError::Foreign`] for a key that is no release key of this bundle, [`BundleError::Signature`] for a signature
/// over something else, and whatever a bundle is refused for.
pub fn add_signature(path: &Path, mark: Mark<'_>, progress: Progress<'_>) -> Result<Digest, BundleError> {
    let bundle = Bundle::open(path)?;
    let manifest = bundle.unsigned()?;
    let text = bundle.manifest_bytes().to_vec();
    let mut signatures = bundle.signatures().clone();
    let signature = match mark {
        Mark::Key(key) => key.sign_manifest(&text)?,
        Mark::Made(signature) => signature,
    };
    let id = signature.key;
    newest(&signatures.keys)?.signed.made(&text, &signature)?;
    put(&mut signatures.signatures, signature);
    let mut bundle = Some(bundle);
    write_whole(path, &text, &signatures, &mut |output| {
        let Some(bundle) = bundle.take() else { return Ok(()) };
        let mut take = |file: &Member, piece: Piece<'_>| match piece {
            Piece::Begin => output.put(&tar::header(&file.path, file.bytes)),
            Piece::Bytes(bytes) => output.put(bytes),
            Piece::End => output.pad(file.bytes),
        };
        bundle.contents(&manifest, &mut take, progress)
    })?;
    Ok(id)
}

/// A bundle being written beside its final name.
struct Output {
    file: File,
    path: PathBuf,
}

impl Output {
    fn put(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.file.write_all(bytes).map_err(BundleError::io("write", &self.path))
    }

    fn pad(&mut self, bytes: u64) -> Result<(), BundleError> {
        self.put(&[0; tar::BLOCK][..tar::padding(bytes)])
    }

    fn member(&mut self, path: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let length = bytes.len() as u64;
        self.put(&tar::header(path, length))?;
        self.put(bytes)?;
        self.pad(length)
    }
}

/// Writes a bundle, which has its name only once it is whole and on the disk.
fn write_whole(
    to: &Path,
    manifest: &[u8],
    signatures: &Signatures,
    contents: &mut dyn FnMut(&mut Output) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let draft = disk::draft_of(to);
    let mut write = || {
        let mut output = Output { file: disk::create(&draft, 0o644)?, path: draft.clone() };
        output.member(MANIFEST, manifest)?;
        output.member(SIGNATURES, &signatures.write()?)?;
        contents(&mut output)?;
        output.put(&[0; 2 * tar::BLOCK])?;
        disk::publish(&output.file, &draft, to)
    };
    let written = write();
    if written.is_err() {
        // The reason of the failure matters more than what is left of it; the next attempt replaces it.
        drop(fs::remove_file(&draft));
    }
    written
}
