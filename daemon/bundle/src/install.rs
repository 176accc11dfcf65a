//! Installing a bundle so that a power cut at any moment leaves a machine on which the same bundle can be installed
//! again, and no older one.
//!
//! 1. The time is remembered, whatever becomes of the bundle.
//! 2. Everything is staged where only root may look, hashed while it is copied, and synced. Until here a power cut
//!    leaves only leftovers, which the next installation removes.
//! 3. Newer release keys are trusted, then the release is recorded as begun: from here on nothing older is taken.
//! 4. Papers, bases and the package go to their places. Each of these steps can be done again.
//! 5. The release is recorded as whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, fchown, flock, statvfs};
use rustix::process::geteuid;

use crate::keys::SignedKeys;
use crate::manifest::{Manifest, Member, Packaging, What};
use crate::read::{Admitted, Bundle, Piece};
use crate::standing::{Machine, Record, Standing};
use crate::{BundleError, MANIFEST, Progress, SIGNATURES, codec, disk};

const RECORD: &str = "installed.json";
const KEYS: &str = "release-keys.json";
const STAGING: &str = "staging";
/// In the inbox, where bases wait under a name that nobody imports.
const HIDDEN: &str = ".bundle";

/// Where things lie on an appliance.
#[derive(Debug, Clone)]
pub struct Places {
    /// Root's own: the record, the trusted release keys, and a folder for each release with its papers.
    pub state: PathBuf,
    /// Where bases are imported from.
    pub inbox: PathBuf,
    /// The release keys that came with the package, trusted at first use.
    pub shipped: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            state: "/var/lib/moat-bundles".into(),
            inbox: "/var/lib/moat-inbox".into(),
            shipped: "/usr/share/moat/release-keys.json".into(),
        }
    }
}

/// What an installation did.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The bundle.
    pub admitted: Admitted,
    /// How it stood to what was there.
    pub standing: Standing,
    /// Where its licences and its SBOM are kept.
    pub papers: PathBuf,
    /// Where its bases are now.
    pub bases: Vec<PathBuf>,
}

/// What this machine remembers of bundles.
///
/// # Errors
/// [`BundleError::State`] where the record is damaged, [`BundleError::Io`] where it cannot be read.
pub fn remember(places: &Places) -> Result<Record, BundleError> {
    let path = places.state.join(RECORD);
    let Some(text) = read_if_there(&path)? else { return Ok(Record::default()) };
    let damaged = |error: BundleError| BundleError::State { path: path.clone(), why: error.to_string() };
    codec::head(RECORD, &text).and_then(|()| codec::read(RECORD, &text)).map_err(damaged)
}

/// The release keys that this machine trusts: its own, or before the first installation those that the package brought.
///
/// # Errors
/// [`BundleError::NoKeys`] where there are none, [`BundleError::State`] where they are not those of the record, and
/// those of [`SignedKeys::check_alone`].
pub fn trusted(places: &Places, record: &Record) -> Result<SignedKeys, BundleError> {
    let path = places.state.join(KEYS);
    let text = match read_if_there(&path)? {
        Some(text) => text,
        // Once a release is recorded, keys that are gone are damage, and no reason to begin anew with others.
        None if record.release.is_some() => {
            return Err(BundleError::State { path, why: "it is gone".to_owned() });
        }
        None => read_if_there(&places.shipped)?.ok_or_else(|| BundleError::NoKeys(places.shipped.clone()))?,
    };
    let keys = SignedKeys::read(&text)?;
    keys.check_alone()?;
    if keys.signed.version < record.keys {
        let why = format!("it has version {}, and {} was in force", keys.signed.version, record.keys);
        return Err(BundleError::State { path, why });
    }
    Ok(keys)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, BundleError> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(BundleError::io("read", path)),
    }
}

/// Verifies a bundle, stages it, and installs it. `put` installs the package that lies at a path, and may be called for
/// the same one again after a power cut.
///
/// # Errors
/// Whatever a bundle is refused for, in which case nothing is installed; [`BundleError::Packager`] where the package
/// manager fails; [`BundleError::Io`] where the disk does.
pub fn install(
    bundle: &Path,
    places: &Places,
    machine: &Machine,
    packaging: Packaging,
    put: &mut dyn FnMut(&Path, &Manifest) -> Result<(), BundleError>,
    progress: Progress<'_>,
) -> Result<Installation, BundleError> {
    for (folder, mode) in [(&places.state, 0o700), (&places.inbox, 0o750)] {
        disk::make_folder(folder, mode)?;
        disk::sync_folder(disk::folder_of(folder))?;
        check_own(folder)?;
    }
    let _lock = lock(&places.state)?;
    let mut record = remember(places)?;
    let trusted = trusted(places, &record)?;
    if record.latest < machine.now {
        record.latest = machine.now;
        write_record(places, &record)?;
    }
    let bundle = Bundle::open(bundle)?;
    let admitted = bundle.admit(&trusted)?;
    let standing = record.judge(&admitted, machine)?;
    let manifest = &admitted.manifest;
    let package = packaging.file(manifest.version, &machine.architecture);
    let package = format!("packages/{}", package.unwrap_or_default());
    if !manifest.files.iter().any(|file| file.path == package) {
        return Err(BundleError::NoPackage { name: package });
    }

    let stage = Stage::new(places, package)?;
    stage.clear()?;
    let staged = stage.room(manifest).and_then(|()| stage.fill(bundle, manifest, progress));
    if let Err(refused) = staged {
        // Whatever is left is removed by the next installation; the reason of the refusal matters more.
        drop(stage.clear());
        return Err(refused);
    }
    disk::replace(&places.state.join(KEYS), &admitted.keys.write()?, 0o600)?;
    let begun = record.with(&admitted, machine, false);
    write_record(places, &begun)?;

    let papers = places.state.join(manifest.number.to_string());
    disk::remove_tree(&papers)?;
    disk::rename(&stage.papers, &papers)?;
    let bases = stage.publish_bases(manifest)?;
    let packages = papers.join("packages");
    put(&papers.join(&stage.package), manifest)?;
    write_record(places, &record.with(&admitted, machine, true))?;
    disk::remove_tree(&packages)?;
    Ok(Installation { standing, papers, bases, admitted })
}

fn write_record(places: &Places, record: &Record) -> Result<(), BundleError> {
    disk::replace(&places.state.join(RECORD), &codec::write(RECORD, record)?, 0o600)
}

/// Whoever else could write there could put something in the place of what was verified.
fn check_own(folder: &Path) -> Result<(), BundleError> {
    let facts = fs::symlink_metadata(folder).map_err(BundleError::io("look at", folder))?;
    let own = facts.is_dir() && facts.uid() == geteuid().as_raw() && facts.mode() & 0o022 == 0;
    if own { Ok(()) } else { Err(BundleError::Open(folder.to_owned())) }
}

/// Held while one installation goes on; the system lets it go with the process.
fn lock(state: &Path) -> Result<File, BundleError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(BundleError::io("create", &path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| BundleError::Busy)?;
    Ok(file)
}

/// Where a bundle lies until all of it is verified.
struct Stage {
    /// Papers and the package, in root's own folder.
    papers: PathBuf,
    /// Bases, in the inbox itself, so that they only have to be renamed, in a folder that only root may enter.
    bases: PathBuf,
    inbox: PathBuf,
    /// The group that reads the inbox.
    group: u32,
    package: String,
}

impl Stage {
    fn new(places: &Places, package: String) -> Result<Self, BundleError> {
        let facts = fs::metadata(&places.inbox).map_err(BundleError::io("look at", &places.inbox))?;
        Ok(Self {
            papers: places.state.join(STAGING),
            bases: places.inbox.join(HIDDEN),
            inbox: places.inbox.clone(),
            group: facts.gid(),
            package,
        })
    }

    fn clear(&self) -> Result<(), BundleError> {
        disk::remove_tree(&self.papers)?;
        disk::remove_tree(&self.bases)
    }

    /// Where a file goes; `None` for packages of other machines.
    fn place(&self, file: &Member) -> Option<PathBuf> {
        match file.what {
            What::Base => file.path.strip_prefix("bases/").map(|path| self.bases.join(path)),
            What::Package if file.path != self.package => None,
            _ => Some(self.papers.join(&file.path)),
        }
    }

    /// Refuses before a disk is full, whether the two places share one or not.
    fn room(&self, manifest: &Manifest) -> Result<(), BundleError> {
        let mut disks: Vec<(u64, PathBuf, u64)> = Vec::new();
        for file in &manifest.files {
            let Some(place) = self.place(file) else { continue };
            let top = if place.starts_with(&self.bases) { &self.bases } else { &self.papers };
            let path = disk::folder_of(top);
            let disk = fs::metadata(path).map_err(BundleError::io("look at", path))?.dev();
            match disks.iter_mut().find(|(known, ..)| *known == disk) {
                Some((_, _, needed)) => *needed += file.bytes,
                None => disks.push((disk, path.to_owned(), file.bytes)),
            }
        }
        for (_, path, needed) in disks {
            let facts = statvfs(&path).map_err(|error| BundleError::io("look at", &path)(error.into()))?;
            let free = facts.f_bavail.saturating_mul(facts.f_frsize);
            if free < needed {
                return Err(BundleError::Room { path, needed, free });
            }
        }
        Ok(())
    }

    fn fill<R: std::io::Read>(
        &self,
        bundle: Bundle<R>,
        manifest: &Manifest,
        progress: Progress<'_>,
    ) -> Result<(), BundleError> {
        for folder in [&self.papers, &self.bases] {
            disk::make_folder(folder, 0o700)?;
        }
        let documents =
            [(MANIFEST, bundle.manifest_bytes().to_vec()), (SIGNATURES, bundle.signatures().write()?)];
        for (name, text) in documents {
            disk::replace(&self.papers.join(name), &text, 0o600)?;
        }
        let mut open: Option<(File, PathBuf)> = None;
        let mut take = |file: &Member, piece: Piece<'_>| {
            match (piece, &mut open) {
                (Piece::Begin, open) => {
                    *open = match self.place(file) {
                        Some(path) => Some((self.create(&path, file.what == What::Base)?, path)),
                        None => None,
                    };
                }
                (Piece::Bytes(bytes), Some((to, path))) => {
                    to.write_all(bytes).map_err(BundleError::io("write", path))?;
                }
                (Piece::End, Some((to, path))) => disk::sync(to, path)?,
                (_, None) => {}
            }
            Ok(())
        };
        bundle.contents(manifest, &mut take, progress)?;
        disk::sync_tree(&self.papers)?;
        disk::sync_tree(&self.bases)
    }

    fn create(&self, path: &Path, base: bool) -> Result<File, BundleError> {
        let (top, folder_mode, mode) =
            if base { (&self.bases, 0o750, 0o640) } else { (&self.papers, 0o700, 0o600) };
        let folder = disk::folder_of(path);
        let inner: Vec<_> = folder.ancestors().take_while(|folder| folder != top).collect();
        for folder in inner.into_iter().rev() {
            disk::make_folder(folder, folder_mode)?;
            if base {
                let opened = File::open(folder).map_err(BundleError::io("open", folder))?;
                self.share(&opened, folder)?;
            }
        }
        let file = disk::create(path, mode)?;
        if base {
            self.share(&file, path)?;
        }
        Ok(file)
    }

    /// Gives a base to the group that reads the inbox.
    fn share(&self, file: &File, path: &Path) -> Result<(), BundleError> {
        let shared = fchown(file, None, Some(Gid::from_raw(self.group)));
        shared.map_err(|error| BundleError::io("share", path)(error.into()))
    }

    /// Gives the bases their names in the inbox, each at once; what had the name before goes.
    fn publish_bases(&self, manifest: &Manifest) -> Result<Vec<PathBuf>, BundleError> {
        let mut published = Vec::new();
        for name in manifest.bases() {
            let (from, to) = (self.bases.join(name), self.inbox.join(name));
            if to.symlink_metadata().is_ok() {
                disk::exchange(&from, &to)?;
            } else {
                disk::rename(&from, &to)?;
            }
            published.push(to);
        }
        disk::remove_tree(&self.bases)?;
        Ok(published)
    }
}
