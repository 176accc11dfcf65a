use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk::{DRAFT, create_as, draft_of, publish};
use crate::{DataKey, OpenReader, SealWriter, VaultError};

/// A sealed file being written beside its final name. [`publish`](Self::publish) gives it that name once it is whole
/// and on the disk; dropped before, it leaves nothing. One chunk is in memory, whatever its length.
pub struct SealedFile {
    writer: Option<SealWriter<File>>,
    draft: PathBuf,
    path: PathBuf,
}

impl SealedFile {
    /// Begins a file that will have this name and replace what had it. One writer per name at a time.
    ///
    /// # Errors
    /// [`VaultError::Io`] where the folder cannot be written, [`VaultError::Random`] without random bytes.
    pub fn create(path: &Path, key: &DataKey, object: &str) -> Result<Self, VaultError> {
        Self::create_as(path, key, object, 0o600)
    }

    pub(crate) fn create_as(path: &Path, key: &DataKey, object: &str, mode: u32) -> Result<Self, VaultError> {
        let draft = draft_of(path);
        let writer = SealWriter::new(create_as(&draft, mode)?, key, object);
        let mut file = Self { writer: None, draft, path: path.to_owned() };
        file.writer = Some(writer?);
        Ok(file)
    }

    /// Writes what the caller needs no more; see [`SealWriter::write_in_place`].
    ///
    /// # Errors
    /// Those of the file.
    pub fn write_in_place(&mut self, plain: &mut [u8]) -> io::Result<()> {
        self.writer.as_mut().map_or_else(|| Err(closed()), |writer| writer.write_in_place(plain))
    }

    /// Seals the last chunk, syncs, renames, syncs the folder. Returns the plain bytes written.
    ///
    /// # Errors
    /// [`VaultError::Io`] where the disk fails; the file that had the name before is then still there, whole, unless it
    /// was the folder's sync that failed.
    pub fn publish(mut self) -> Result<u64, VaultError> {
        let Some(writer) = self.writer.take() else { return Err(VaultError::Cipher) };
        let length = writer.written();
        let file = writer.finish().map_err(VaultError::io("write", &self.draft))?;
        publish(&file, &self.draft, &self.path)?;
        Ok(length)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Write for SealedFile {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or_else(|| Err(closed()), |writer| writer.write(plain))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        // After publishing there is none; what a full disk or a kill leaves is swept at the next start.
        drop(fs::remove_file(&self.draft));
    }
}

/// Opens a sealed file; it can be read from its start or by range.
///
/// # Errors
/// [`VaultError::Io`] where it cannot be opened, and those of [`OpenReader::new`].
pub fn open_file(path: &Path, key: &DataKey, object: &str) -> Result<OpenReader<File>, VaultError> {
    let file = File::open(path).map_err(VaultError::io("open", path))?;
    OpenReader::new(file, key, object).map_err(|error| match error {
        VaultError::Stream(source) => VaultError::io("read", path)(source),
        other => other,
    })
}

/// Removes the unfinished files that a kill left in a folder; for its owner, at start, before anything is written there.
/// Returns how many there were.
///
/// # Errors
/// [`VaultError::Io`] where the folder cannot be read or a file not be removed.
pub fn sweep(folder: &Path) -> Result<usize, VaultError> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(VaultError::io("list", folder))? {
        let path = entry.map_err(VaultError::io("list", folder))?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(DRAFT.as_bytes()) && path.is_file() {
            fs::remove_file(&path).map_err(VaultError::io("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}
