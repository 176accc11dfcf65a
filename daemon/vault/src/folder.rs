use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::{DataKey, OpenReader, SealedFile, VaultError, open_file};

/// What a sealed file's name ends with, after its plain name.
const SEALED: &str = ".sealed";

/// A folder whose files are sealed, used by their plain names: `NAME` is the file `NAME.sealed`, sealed for the object
/// `OBJECT/NAME`. Renaming the folder keeps its files readable; a file under another's name, or in the folder of
/// another object, is refused.
#[derive(Debug)]
pub struct SealedFolder {
    path: PathBuf,
    key: DataKey,
    object: String,
}

impl SealedFolder {
    /// A folder and what its files are sealed for; it need not exist yet.
    #[must_use]
    pub fn new(path: &Path, key: DataKey, object: String) -> Self {
        Self { path: path.to_owned(), key, object }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the sealed file of that plain name lies.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{SEALED}"))
    }

    /// The plain names of the sealed files, sorted; what is not sealed is left out.
    ///
    /// # Errors
    /// [`VaultError::Io`] where the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, VaultError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(VaultError::io("list", &self.path))? {
            let name = entry.map_err(VaultError::io("list", &self.path))?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(SEALED)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Those of [`open_file`].
    pub fn open(&self, name: &str) -> Result<OpenReader<File>, VaultError> {
        open_file(&self.place(name), &self.key, &self.object_of(name))
    }

    /// Begins a file, to be published when it is complete. The folder's group may read it too where the process's umask
    /// or the folder's ACL grants that: such a folder is shared by `moatd` and its engines.
    ///
    /// # Errors
    /// Those of [`SealedFile::create`].
    pub fn create(&self, name: &str) -> Result<SealedFile, VaultError> {
        SealedFile::create_as(&self.place(name), &self.key, &self.object_of(name), 0o660)
    }

    fn object_of(&self, name: &str) -> String {
        format!("{}/{name}", self.object)
    }
}
