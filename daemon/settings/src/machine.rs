use std::fs;
use std::path::Path;

use crate::fault::at;
use crate::schema::{Shape, places};
use crate::{EnginePlace, Fault, Settings, SourceKind};

/// Holds settings against this machine: sources can be read, the state folder is there or can be made, the engine is
/// where it should be. Reads only. `text` is what the settings were parsed from, for the faults' places (empty for the
/// defaults); `programs` is the folder that `moatd` lies in.
pub fn check_machine(settings: &Settings, text: &str, programs: &Path) -> Vec<Fault> {
    let places = Shape::of(&Settings::example()).map(|shape| places(text, &shape)).unwrap_or_default();
    let mut faults = Vec::new();
    let mut hold = |key: String, fault: Option<String>| {
        if let Some(message) = fault {
            faults.push(at(text, places.get(&key).copied().unwrap_or(0), &key, message));
        }
    };
    hold("daemon.state".to_owned(), unmakeable(&settings.daemon.state));
    hold("daemon.runtime".to_owned(), unmakeable(&settings.daemon.runtime));
    hold("daemon.engine".to_owned(), no_engine(&settings.engine(programs)));
    for (index, folder) in settings.boundary.sources.iter().enumerate() {
        hold(format!("boundary.sources[{index}]"), unreadable(folder));
    }
    for (index, source) in settings.source.iter().enumerate() {
        let key = format!("source[{index}].path");
        let fault = match unreadable(&source.path) {
            None if source.kind == SourceKind::Git => not_a_repository(&source.path),
            fault => fault,
        };
        hold(key, fault);
    }
    faults.sort();
    faults
}

fn unreadable(folder: &Path) -> Option<String> {
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) => Some(format!("{shown} cannot be opened: {error}")),
        Ok(found) if !found.is_dir() => Some(format!("{shown} is no folder")),
        Ok(_) => {
            fs::read_dir(folder).err().map(|error| format!("{shown} cannot be read by this user: {error}"))
        }
    }
}

fn not_a_repository(folder: &Path) -> Option<String> {
    // A work tree has `.git` (a file in linked ones); a bare repository has its `HEAD` at the top.
    let found = folder.join(".git").exists() || folder.join("HEAD").is_file();
    (!found).then(|| format!("{} is no git repository: use kind = \"folder\"", folder.display()))
}

/// Why a folder is neither there nor to be made.
fn unmakeable(folder: &Path) -> Option<String> {
    for above in folder.ancestors() {
        match fs::symlink_metadata(above) {
            Ok(_) => {
                return match fs::metadata(above) {
                    Ok(found) if found.is_dir() => None,
                    Ok(_) => Some(format!("{} is no folder", above.display())),
                    Err(error) => Some(format!("{} cannot be opened: {error}", above.display())),
                };
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Some(format!("{} cannot be opened: {error}", above.display())),
        }
    }
    Some(format!("{} has no folder above it", folder.display()))
}

fn no_engine(place: &EnginePlace) -> Option<String> {
    match place {
        EnginePlace::Program(path) => not_a_program(path),
        EnginePlace::Sockets(folder) => unreadable(folder),
    }
}

fn not_a_program(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) => Some(format!("the engine {shown} cannot be opened: {error}")),
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
            Some(format!("the engine {shown} is no program"))
        }
        Ok(_) => None,
    }
}
