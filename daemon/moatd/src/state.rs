use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_catalog::Catalog;

use crate::failure::Failure;
use crate::safe::Safe;

const BASES: &str = "bases";
const RUNS: &str = "runs";
/// What `moat restore` removes once everything is there.
const RESTORING: &str = "restoring";

/// The state folder: where everything that outlives the daemon lies.
#[derive(Clone)]
pub(crate) struct State {
    folder: PathBuf,
    safe: Arc<Safe>,
}

impl State {
    /// Makes the folder, for this user only, and takes its lock, which is held as long as the file is.
    pub(crate) fn open(folder: &Path) -> Result<(Self, File), Failure> {
        for folder in [folder.to_owned(), folder.join(BASES), folder.join(RUNS)] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| {
                Failure::internal(format!("the state folder {} cannot be made: {error}", folder.display()))
            })?;
        }
        let private = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
        private.map_err(|error| {
            Failure::internal(format!("{} cannot be made private: {error}", folder.display()))
        })?;
        if folder.join(RESTORING).exists() {
            return Err(Failure::internal(format!(
                "a restore into {} was cut off: empty the folder, and restore again",
                folder.display()
            )));
        }
        let lock = folder.join("lock");
        let file = File::create(&lock)
            .map_err(|error| Failure::internal(format!("{} cannot be written: {error}", lock.display())))?;
        // An engine that a killed daemon was just starting holds the lock until it is executed.
        let patience = Instant::now() + Duration::from_secs(3);
        loop {
            match file.try_lock() {
                Ok(()) => {
                    settle(folder)?;
                    let safe = Arc::new(Safe::open(folder.join("vault")));
                    return Ok((Self { folder: folder.to_owned(), safe }, file));
                }
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::internal(format!(
                        "another moatd holds {}: end it first, or give --state another folder",
                        folder.display()
                    )));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(Failure::internal(format!("{} cannot be locked: {error}", lock.display())));
                }
            }
        }
    }

    /// Opens one more connection to the catalog, which needs the vault open.
    pub(crate) fn catalog(&self) -> Result<Catalog, Failure> {
        Ok(Catalog::open(&self.folder.join("catalog.db"), &self.safe.vault()?)?)
    }

    /// The vault.
    pub(crate) fn safe(&self) -> &Safe {
        &self.safe
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The vault's folder.
    pub(crate) fn vault(&self) -> PathBuf {
        self.folder.join("vault")
    }

    /// The ledger's folder.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.join("ledger")
    }

    /// Folder of the admin port's own certificate authority.
    pub(crate) fn tls(&self) -> PathBuf {
        self.folder.join("tls")
    }

    /// Imported bases, a folder each.
    pub(crate) fn bases(&self) -> PathBuf {
        self.folder.join(BASES)
    }

    /// The folder of an imported base.
    pub(crate) fn base(&self, name: &str) -> PathBuf {
        self.bases().join(name)
    }

    /// Runs, a folder each.
    pub(crate) fn runs(&self) -> PathBuf {
        self.folder.join(RUNS)
    }

    /// The folder that a run's engine writes.
    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.runs().join(name)
    }
}

/// Syncs what a daemon that was killed may not have come to: this one goes by what it finds, and a power cut must not take
/// that back. Vault, ledger and engines do so with what is theirs.
fn settle(folder: &Path) -> Result<(), Failure> {
    for path in [folder.join("catalog.db-wal"), folder.join(BASES), folder.join(RUNS), folder.to_owned()] {
        match File::open(&path).and_then(|file| file.sync_all()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::internal(format!("{} cannot be synced: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}
