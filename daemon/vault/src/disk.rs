//! The few steps that change the disk. Tests record them, or die between them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::VaultError;

/// Tells the tests that a step was taken; nothing in the product.
macro_rules! step {
    ($($step:tt)*) => {
        #[cfg(test)]
        crate::tests::steps::took(crate::tests::steps::Step::$($step)*);
    };
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder that only its owner may enter, durably.
pub(crate) fn make_folder(path: &Path) -> Result<(), VaultError> {
    fs::create_dir_all(path).map_err(VaultError::io("create the folder", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(VaultError::io("protect", path))?;
    sync_folder(folder_of(path))
}

/// Makes a new file that only its owner may read; a leftover of the same name goes first.
pub(crate) fn create(path: &Path) -> Result<File, VaultError> {
    create_as(path, 0o600)
}

/// [`create`] with other rights, as far as the process grants them.
pub(crate) fn create_as(path: &Path, mode: u32) -> Result<File, VaultError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(VaultError::io("remove the leftover", path)(error));
        }
        _ => {
            step!(Removed(path));
        }
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let made = made.map_err(VaultError::io("create", path))?;
    step!(Created(path));
    Ok(made)
}

/// Makes a written file durable under its final name, in place of what had that name.
pub(crate) fn publish(file: &File, from: &Path, to: &Path) -> Result<(), VaultError> {
    file.sync_all().map_err(VaultError::io("sync", from))?;
    step!(Synced(from));
    fs::rename(from, to).map_err(VaultError::io("publish", to))?;
    step!(Renamed(from, to));
    sync_folder(folder_of(to))
}

/// Replaces a file as a whole: whoever is killed leaves the old one or the new one, and the new one once this returns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), VaultError> {
    let draft = draft_of(path);
    let mut file = create(&draft)?;
    // In two halves, so that a kill between them is tried too.
    let (first, second) = content.split_at(content.len() / 2);
    for half in [first, second] {
        file.write_all(half).map_err(VaultError::io("write", &draft))?;
        step!(Written(&draft));
    }
    publish(&file, &draft, path)
}

/// Makes a file and its name durable, whoever wrote it.
pub(crate) fn settle(path: &Path) -> Result<(), VaultError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(VaultError::io("sync", path))?;
    step!(Synced(path));
    sync_folder(folder_of(path))
}

/// The name that a file has while it is written.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DRAFT);
    name.into()
}

/// How the names of unfinished files end.
pub(crate) const DRAFT: &str = ".draft";

fn sync_folder(path: &Path) -> Result<(), VaultError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(VaultError::io("sync the folder", path))?;
    step!(FolderSynced(path));
    Ok(())
}
