//! The few steps that change the disk. Tests die between them, and take back what was not synced.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::BundleError;

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

/// The name that a file has while it is written.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".draft");
    name.into()
}

/// Makes a new file with these rights, whatever the process masks; a leftover of the same name goes first.
pub(crate) fn create(path: &Path, mode: u32) -> Result<File, BundleError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(BundleError::io("remove the leftover", path)(error));
        }
        _ => {}
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let file = made.map_err(BundleError::io("create", path))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(BundleError::io("protect", path))?;
    step!(Created(path));
    Ok(file)
}

/// Makes a folder with these rights, whatever the process masks; one that is there keeps its own.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<(), BundleError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made.map_err(BundleError::io("create the folder", path))?,
    }
    let protected = fs::set_permissions(path, Permissions::from_mode(mode));
    protected.map_err(BundleError::io("protect", path))?;
    step!(Made(path));
    Ok(())
}

/// Makes a file's content durable.
pub(crate) fn sync(file: &File, path: &Path) -> Result<(), BundleError> {
    file.sync_all().map_err(BundleError::io("sync", path))?;
    step!(Synced(path));
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), BundleError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(BundleError::io("sync the folder", path))?;
    step!(FolderSynced(path));
    Ok(())
}

/// Makes the names in a folder and in all below it durable.
pub(crate) fn sync_tree(path: &Path) -> Result<(), BundleError> {
    for entry in fs::read_dir(path).map_err(BundleError::io("list", path))? {
        let entry = entry.map_err(BundleError::io("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_tree(&entry.path())?;
        }
    }
    sync_folder(path)
}

/// Gives what was written its final name, in place of what had that name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), BundleError> {
    fs::rename(from, to).map_err(BundleError::io("publish", to))?;
    step!(Renamed(from));
    sync_folder(folder_of(to))
}

/// Makes a written file durable under its final name, in place of what had that name.
pub(crate) fn publish(file: &File, from: &Path, to: &Path) -> Result<(), BundleError> {
    sync(file, from)?;
    rename(from, to)
}

/// Replaces a file as a whole: whoever is killed leaves the old one or the new one, and the new one once this returns.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), BundleError> {
    let draft = draft_of(path);
    let mut file = create(&draft, mode)?;
    file.write_all(content).map_err(BundleError::io("write", &draft))?;
    step!(Written);
    publish(&file, &draft, path)
}

/// Puts a folder in the place of another one at once; the other one is at `from` then.
pub(crate) fn exchange(from: &Path, to: &Path) -> Result<(), BundleError> {
    let exchanged = renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE);
    exchanged.map_err(|error| BundleError::io("exchange", to)(error.into()))?;
    step!(Exchanged);
    sync_folder(folder_of(to))?;
    sync_folder(folder_of(from))
}

/// Removes a folder with all that is in it, where there is one.
pub(crate) fn remove_tree(path: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(BundleError::io("remove", path))?,
    }
    step!(Removed(path));
    Ok(())
}
