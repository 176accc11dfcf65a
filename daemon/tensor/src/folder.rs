use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use moat_contracts::{Digest, Hasher, RunKey, RunPart};
use moat_vault::{DataKey, SealedFile, SealedFolder, VaultError};

use crate::{Lora, TensorError};

/// A folder whose files are all plain, or all sealed under a run's key. Whoever reads and writes them by name sees their
/// plain bytes either way, which then never lie on a disk where they are sealed.
#[derive(Debug)]
pub struct Folder(Kind);

#[derive(Debug)]
enum Kind {
    Plain(PathBuf),
    Sealed(SealedFolder),
}

/// What a run left in a folder.
#[derive(Debug)]
pub enum Tuned {
    /// An adapter, for [`Lora::load_from`].
    Adapter(Folder),
    /// A fully trained model, for [`crate::Weights::load_from`].
    Model(Folder),
}

impl Folder {
    /// A folder of plain files.
    #[must_use]
    pub fn plain(path: &Path) -> Self {
        Self(Kind::Plain(path.to_owned()))
    }

    /// A folder of a run, whatever its path: sealed for the run and the part where there is a key.
    #[must_use]
    pub fn of_run(path: &Path, run: &str, part: RunPart, key: Option<&RunKey>) -> Self {
        let Some(key) = key else { return Self::plain(path) };
        let key = DataKey::from_bytes(key.expose());
        Self(Kind::Sealed(SealedFolder::new(path, key, part.object(run))))
    }

    /// The result of a run, by what lies in the folder: an adapter where it has an adapter's configuration.
    #[must_use]
    pub fn tuned(path: &Path, run: &str, key: Option<&RunKey>) -> Tuned {
        let adapter = Self::of_run(path, run, RunPart::Adapter, key);
        if adapter.has(Lora::CONFIG) {
            Tuned::Adapter(adapter)
        } else {
            Tuned::Model(Self::of_run(path, run, RunPart::Model, key))
        }
    }

    /// Where the file of that name lies.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        match &self.0 {
            Kind::Plain(path) => path.join(name),
            Kind::Sealed(folder) => folder.place(name),
        }
    }

    /// Whether there is a file of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.place(name).exists()
    }

    /// A whole file's plain bytes.
    ///
    /// # Errors
    /// [`TensorError::Io`] where it cannot be read; of the kind `InvalidData` where it is sealed and was cut or changed,
    /// or belongs to another name, part, run or key; of the kind `NotFound` where it is not there.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, TensorError> {
        let read = match &self.0 {
            Kind::Plain(path) => fs::read(path.join(name)),
            Kind::Sealed(folder) => opened(folder, name),
        };
        read.map_err(|source| TensorError::Io { path: self.place(name), what: "read", source })
    }

    /// A file's plain bytes, from its beginning on.
    pub(crate) fn open(&self, name: &str) -> Result<Box<dyn Read>, TensorError> {
        let opened: io::Result<Box<dyn Read>> = match &self.0 {
            Kind::Plain(path) => File::open(path.join(name)).map(|file| Box::new(file) as Box<dyn Read>),
            Kind::Sealed(folder) => {
                folder.open(name).map(|file| Box::new(file) as Box<dyn Read>).map_err(cause)
            }
        };
        opened.map_err(|source| TensorError::Io { path: self.place(name), what: "read", source })
    }

    /// Writes a file whole or not at all, in pieces; one that has the name is replaced. Returns the SHA-256 of its plain
    /// bytes once it is on the disk.
    ///
    /// # Errors
    /// [`TensorError::Io`], also for what `fill` gives.
    pub fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut FileWriter) -> io::Result<()>,
    ) -> Result<Digest, TensorError> {
        let written = FileWriter::create(&self.0, name).and_then(|mut file| {
            fill(&mut file)?;
            file.publish()
        });
        written.map_err(|source| TensorError::Io { path: self.place(name), what: "written", source })
    }

    /// That a file does not follow its format.
    pub(crate) fn damaged(&self, name: &str, reason: String) -> TensorError {
        TensorError::Format { path: self.place(name), reason }
    }
}

fn opened(folder: &SealedFolder, name: &str) -> io::Result<Vec<u8>> {
    let mut file = folder.open(name).map_err(cause)?;
    // With all its room from the start, it is not copied while it grows.
    let mut bytes = Vec::with_capacity(usize::try_from(file.length()?).unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The system's own reason where there is one: who asked names the file.
fn cause(error: VaultError) -> io::Error {
    match error {
        VaultError::Io { source, .. } => source,
        other => other.into(),
    }
}

/// A file being written into a [`Folder`], under another name until it is complete.
pub struct FileWriter {
    to: To,
    hasher: Hasher,
}

enum To {
    Plain { file: File, new: PathBuf, folder: PathBuf, path: PathBuf },
    Sealed(SealedFile),
}

impl FileWriter {
    fn create(folder: &Kind, name: &str) -> io::Result<Self> {
        let to = match folder {
            Kind::Plain(folder) => {
                let new = folder.join(format!(".{name}.new"));
                To::Plain { file: File::create(&new)?, new, folder: folder.clone(), path: folder.join(name) }
            }
            Kind::Sealed(folder) => To::Sealed(folder.create(name).map_err(cause)?),
        };
        Ok(Self { to, hasher: Hasher::default() })
    }

    fn publish(self) -> io::Result<Digest> {
        match self.to {
            To::Plain { file, new, folder, path } => {
                file.sync_all()?;
                fs::rename(&new, &path)?;
                File::open(&folder)?.sync_all()?;
            }
            To::Sealed(file) => _ = file.publish().map_err(cause)?,
        }
        Ok(self.hasher.finish())
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Plain { file, .. } => file.write(bytes)?,
            To::Sealed(file) => file.write(bytes)?,
        };
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Plain { file, .. } => file.flush(),
            To::Sealed(file) => file.flush(),
        }
    }
}
