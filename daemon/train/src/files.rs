use std::fs::{self, File};
use std::path::Path;

use crate::TrainError;

/// Makes an empty folder, in place of what an interrupted writer may have left there.
pub(crate) fn fresh_folder(path: &Path) -> Result<(), TrainError> {
    remove(path)?;
    // What is published here later must be found after a power cut: each folder that is new, in the one above it.
    let new = path.ancestors().take_while(|folder| !folder.is_dir());
    let above: Vec<_> = new.filter_map(Path::parent).filter(|above| !above.as_os_str().is_empty()).collect();
    fs::create_dir_all(path).map_err(TrainError::written(path))?;
    above.into_iter().try_for_each(sync_folder)
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TrainError::written(path)(error)),
        _ => Ok(()),
    }
}

/// Gives a finished folder its name: everything in it is on disk before the name is, and the name before this returns.
/// A folder that bore the name is replaced.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), TrainError> {
    let list = fs::read_dir(from).map_err(TrainError::read(from))?;
    for entry in list {
        let path = entry.map_err(TrainError::read(from))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(TrainError::written(&path))?;
    }
    sync_folder(from)?;
    remove(to)?;
    fs::rename(from, to).map_err(TrainError::written(to))?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
}

fn sync_folder(path: &Path) -> Result<(), TrainError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(TrainError::written(path))
}
