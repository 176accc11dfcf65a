//! Looking for a folder that may become a source.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::FileType;

use crate::file;
use crate::walk::list;

/// A folder in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerFolder {
    /// Its name.
    pub name: String,
    /// Whether it is a git repository: a work tree, or a bare one.
    pub repository: bool,
}

/// A part of what a folder holds, as far as choosing a folder needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Folders, by name.
    pub folders: Vec<InnerFolder>,
    /// Folders that there are in all.
    pub of: u64,
    /// Whatever else there is, links among it.
    pub files: u64,
    /// Whether there are more behind these.
    pub more: bool,
}

/// The folders in a folder: at most `most` behind the name `after`. `inner` is the way from `root` to it. Nothing is opened but
/// folders, and no link is followed. Folders whose names begin with a dot, or are no text, are passed over.
///
/// # Errors
/// What the system says where the folder is not there, may not be read, or lies behind a link.
pub fn folders_in(root: &Path, inner: &Path, after: Option<&str>, most: usize) -> io::Result<Inside> {
    let mut open = file::open_folder(rustix::fs::CWD, root.as_os_str().as_bytes())?;
    for part in inner.components() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        open = file::open_folder(&open, name.as_bytes())?;
    }
    let mut inside = Inside::default();
    for name in list(&open, |name| name.starts_with(b"."))? {
        // What went meanwhile is neither.
        let Ok(facts) = file::look(&open, &name) else { continue };
        if facts.kind() != FileType::Directory {
            inside.files += 1;
            continue;
        }
        let Ok(name) = std::str::from_utf8(&name) else { continue };
        inside.of += 1;
        if after.is_some_and(|after| name <= after) {
            continue;
        }
        inside.more = inside.folders.len() == most;
        if !inside.more {
            let repository = is_repository(&root.join(inner).join(name));
            inside.folders.push(InnerFolder { name: name.to_owned(), repository });
        }
    }
    Ok(inside)
}

/// Whether a folder looks like a repository: a work tree, or a bare one. One that cannot be looked into does not.
pub fn is_repository(folder: &Path) -> bool {
    let holds = |name: &str| folder.join(name).symlink_metadata().is_ok();
    holds(".git") || (holds("HEAD") && holds("objects"))
}
